//! The agent's side of one attempt: prepare the folder, start the supervisor,
//! pass orders on, tell what happens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use claw_proto::message::{DesiredWorkload, NodeWorkloadState, StatusCause};
use rustix::process::{Pid, Signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::attach::{self, Attached};
use super::{Orders, ProcessOptions, shim};
use crate::files::{Durability, create_folder, create_passable, read_json, replace_json};
use crate::node::{RuntimeEvent, WorkloadEnd};
use crate::platform;
use crate::runtime::folder::{ExitFile, Folder, SpecFile, StartedFile};
use crate::runtime::ports::MeetingPorts;
use crate::runtime::{Key, checkpoints, dmem, network};

/// How often a supervisor without a pidfd, or one that has not said yet that
/// its program runs, is looked at.
const POLL_MS: u64 = 50;

/// Where one attempt's news goes.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct Reporter {
    pub(in crate::runtime) key: Key,
    pub(in crate::runtime) events: mpsc::Sender<RuntimeEvent>,
}

impl Reporter {
    pub(in crate::runtime) async fn progress(&self, state: NodeWorkloadState, detail: String) {
        let (workload_id, attempt) = self.key;
        self.send(RuntimeEvent::Progress { workload_id, attempt, state, detail }).await;
    }

    pub(in crate::runtime) async fn ended(&self, end: WorkloadEnd) {
        let (workload_id, attempt) = self.key;
        self.send(RuntimeEvent::Ended { workload_id, attempt, end }).await;
    }

    async fn send(&self, event: RuntimeEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("the agent is shutting down; news waits on disk for the next one");
        }
    }
}

/// Why the spec cannot run as a host process.
fn unsupported(workload: &DesiredWorkload) -> Option<String> {
    let spec = &workload.spec;
    let needs = |what: &str| Some(format!("{what} needs a container runtime; this is a host process"));
    if spec.command.as_ref().is_none_or(Vec::is_empty) {
        return Some("a host process needs a command".to_owned());
    }
    match () {
        () if spec.image.is_some() => needs("an image"),
        () if !spec.volumes.is_empty() => needs("a volume"),
        () if !spec.secrets.is_empty() => needs("a secret file"),
        () if spec.shm_gib.is_some() => needs("a size of shared memory"),
        () => None,
    }
}

/// Runs one attempt from nothing to its end.
pub(super) async fn start_and_watch(
    options: ProcessOptions,
    ports: Arc<MeetingPorts>,
    workload: Arc<DesiredWorkload>,
    orders: watch::Receiver<Orders>,
    events: mpsc::Sender<RuntimeEvent>,
) {
    let key = (workload.workload_id, workload.attempt);
    let reporter = Reporter { key, events };
    let folder = Folder::of(&options.workloads, key);
    if let Some(why) = unsupported(&workload) {
        reporter.ended(WorkloadEnd::of(NodeWorkloadState::Failed, StatusCause::Unsupported, why)).await;
        return;
    }
    reporter.progress(NodeWorkloadState::Starting, String::new()).await;
    let first = *orders.borrow();
    let env = network::placed_environment(&workload, options.capabilities.clone(), Some(&ports)).await;
    let started = prepare(&options, &folder, &workload, first, env)
        .and_then(|lock| spawn_shim(&options.shim_program, &folder, lock));
    match started {
        Ok(child) => {
            let mut watch = Watch { folder, orders, reporter, written: first, running: false };
            watch.child(child).await;
            over(watch, &options).await;
        }
        Err(error) => {
            let detail = format!("the supervisor could not be started: {error}");
            warn!(%error, workload_id = %key.0, "a supervisor could not be started");
            reporter.ended(WorkloadEnd::of(NodeWorkloadState::Failed, StatusCause::StartFailed, detail)).await;
        }
    }
}

async fn next_line(lines: &mut Option<tokio::io::Lines<BufReader<tokio::process::ChildStdout>>>) -> Option<String> {
    match lines {
        Some(lines) => lines.next_line().await.unwrap_or_default(),
        None => None,
    }
}

/// Watches an attempt that an earlier agent started.
pub(super) async fn watch_attached(
    attached: Attached,
    orders: watch::Receiver<Orders>,
    events: mpsc::Sender<RuntimeEvent>,
) {
    let reporter = Reporter { key: attached.key(), events };
    // Nothing was written by this agent yet: an order that came before this task
    // ran must not count as passed on.
    let Attached { options, folder, .. } = attached;
    let mut watch = Watch { folder, orders, reporter, written: Orders::default(), running: false };
    watch.stranger().await;
    over(watch, &options).await;
}

/// The supervisor is gone: tell what it wrote down, or that it did not.
async fn over(mut watch: Watch, options: &ProcessOptions) {
    watch.report_short_run().await;
    let Watch { folder, reporter, .. } = &watch;
    let exit = match read_json::<ExitFile>(&folder.exit()) {
        Ok(Some(exit)) => Ok(exit),
        Ok(None) => attach::bury(options, folder, reporter.key),
        Err(error) => Err(error),
    };
    let end = exit.map_or_else(
        |error| {
            warn!(%error, workload_id = %reporter.key.0, "how an attempt ended is not known");
            let detail = format!("its exit status could not be read: {error}");
            WorkloadEnd::of(NodeWorkloadState::Lost, StatusCause::SupervisorGone, detail)
        },
        WorkloadEnd::from,
    );
    reporter.ended(end).await;
}

async fn gone(pidfd: Option<&AsyncFd<std::os::fd::OwnedFd>>) {
    if let Some(pidfd) = pidfd
        && let Err(error) = pidfd.readable().await
    {
        warn!(%error, "a supervisor's pidfd could not be waited for");
    }
}

/// A handle that becomes readable when the folder's supervisor is gone.
#[expect(unsafe_code, reason = "registering a descriptor has no safe interface")]
fn open_pidfd(folder: &Folder) -> Option<AsyncFd<std::os::fd::OwnedFd>> {
    let shim = attach::supervisor(folder).ok().flatten()?;
    let pidfd = platform::handle_of(Pid::from_raw(shim.process.pid)?).ok()?;
    // The number may have gone to another process between the two look-ups.
    attach::supervisor(folder).ok().flatten().filter(|again| *again == shim)?;
    // SAFETY: the `OwnedFd` is open, is the same descriptor on every call, and
    // moves into the `AsyncFd`, which closes it after it was deregistered.
    unsafe { AsyncFd::register_with_interest(pidfd, tokio::io::Interest::READABLE).ok() }
}

/// Watches the supervisor of one attempt and passes orders on to it.
pub(in crate::runtime) struct Watch {
    pub(in crate::runtime) folder: Folder,
    pub(in crate::runtime) orders: watch::Receiver<Orders>,
    pub(in crate::runtime) reporter: Reporter,
    /// Orders that are on disk.
    pub(in crate::runtime) written: Orders,
    /// `running` was told.
    pub(in crate::runtime) running: bool,
}

impl Watch {
    /// Until a supervisor that this agent started is gone.
    pub(in crate::runtime) async fn child(&mut self, mut child: Child) {
        let mut lines = child.stdout.take().map(|pipe| BufReader::new(pipe).lines());
        loop {
            tokio::select! {
                line = next_line(&mut lines), if !self.running && lines.is_some() => match line {
                    Some(line) if line == shim::STARTED_LINE => self.report_running().await,
                    Some(_) => {}
                    None => lines = None,
                },
                _ = child.wait() => break,
                changed = self.orders.changed() => self.orders_changed(changed.is_ok()).await,
            }
        }
    }

    /// Until a supervisor that an earlier agent started is gone.
    pub(in crate::runtime) async fn stranger(&mut self) {
        let mut exit = None;
        loop {
            if !self.running && self.folder.started().exists() {
                self.report_running().await;
            }
            if exit.is_none() {
                exit = open_pidfd(&self.folder);
            }
            // A pidfd that was opened after the supervisor died is ready at once.
            let has_pidfd = exit.is_some();
            tokio::select! {
                () = gone(exit.as_ref()), if has_pidfd => exit = None,
                () = tokio::time::sleep(Duration::from_millis(POLL_MS)), if !has_pidfd || !self.running => {}
                changed = self.orders.changed() => self.orders_changed(changed.is_ok()).await,
            }
            match self.folder.try_lock() {
                Ok(Some(_)) => break,
                Ok(None) => {}
                Err(error) => warn!(%error, "a supervisor's lock could not be looked at"),
            }
        }
    }

    /// A short program may end before the agent has read that it began.
    pub(in crate::runtime) async fn report_short_run(&mut self) {
        if !self.running && self.folder.started().exists() {
            self.report_running().await;
        }
    }

    async fn report_running(&mut self) {
        self.running = true;
        let note = match read_json::<StartedFile>(&self.folder.started()) {
            Ok(started) => started.map(|started| started.note).unwrap_or_default(),
            Err(error) => format!("started.json could not be read: {error}"),
        };
        self.reporter.progress(NodeWorkloadState::Running, note).await;
    }

    /// Passes new orders on. Without a sender there are none to come: the
    /// agent is going, or the attempt is removed.
    async fn orders_changed(&mut self, has_sender: bool) {
        if !has_sender {
            std::future::pending::<()>().await;
        }
        let orders = *self.orders.borrow_and_update();
        let folder = &self.folder;
        let mut result = Ok(());
        if orders.stop != self.written.stop {
            result = replace_json(&folder.stop(), &orders.stop, Durability::Cached).and_then(|()| wake(folder));
        }
        if orders.lease != self.written.lease {
            result = result.and(replace_json(&folder.lease(), &orders.lease, Durability::Cached));
        }
        match result {
            Ok(()) => self.written = orders,
            Err(error) => {
                warn!(%error, "orders could not be passed on by file");
                self.signal_instead(orders);
            }
        }
    }

    /// A full disk must not keep a workload running: a stop goes by signal.
    fn signal_instead(&self, orders: Orders) {
        if orders.stop.is_some()
            && let Ok(Some(shim)) = attach::supervisor(&self.folder)
            && let Some(pid) = Pid::from_raw(shim.process.pid)
            && let Err(error) = rustix::process::kill_process(pid, Signal::TERM)
        {
            warn!(%error, "a supervisor could not be told to stop");
        }
    }
}

/// Makes the supervisor look at its orders now.
fn wake(folder: &Folder) -> io::Result<()> {
    let Some(shim) = attach::supervisor(folder)? else {
        return Ok(());
    };
    let Some(pid) = Pid::from_raw(shim.process.pid) else {
        return Ok(());
    };
    match platform::handle_of(pid).and_then(|handle| platform::signal_to(&handle, Signal::USR1)) {
        // It looks by itself a moment later.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes the folder of an attempt anew.
pub(in crate::runtime) fn make_folder(folder: &Folder) -> io::Result<()> {
    folder.remove()?;
    create_passable(folder.root())?;
    create_folder(&folder.logs(), 0o700)?;
    create_folder(&folder.work(), 0o700)
}

/// Writes the folder; returns the lock that the supervisor will hold.
fn prepare(
    options: &ProcessOptions,
    folder: &Folder,
    workload: &DesiredWorkload,
    orders: Orders,
    env: BTreeMap<String, String>,
) -> io::Result<fs::File> {
    make_folder(folder)?;
    let mut env = env;
    if checkpoints::speaks(workload) {
        checkpoints::make(&folder.checkpoint(), false)?;
        env.extend(checkpoints::environment(workload, &folder.checkpoint().to_string_lossy()));
    }
    let gpus = options.capabilities.as_ref().map_or(&[][..], |capabilities| &capabilities.gpus);
    let gpu_memory = dmem::cap_of(Path::new(dmem::CGROUP_ROOT), workload, (gpus, options.limits_shares));
    let gpu_memory = gpu_memory.map_err(|error| io::Error::new(error.kind(), format!("memory of its GPU: {error}")))?;
    let spec = SpecFile {
        node: options.node.clone(),
        workload: workload.clone(),
        execution_log: options.execution_log.clone(),
        log_bytes_max: options.log_bytes_max,
        default_user: options.default_user.clone(),
        cgroups: options.cgroups,
        pids_max: options.pids_max,
        env,
        gpu_memory,
        container: None,
    };
    hand_over(&options.workloads, folder, &spec, orders)
}

/// Writes what a supervisor starts from; returns the lock that it will hold.
pub(in crate::runtime) fn hand_over(
    workloads: &Path,
    folder: &Folder,
    spec: &SpecFile,
    orders: Orders,
) -> io::Result<fs::File> {
    replace_json(&folder.lease(), &orders.lease, Durability::Cached)?;
    replace_json(&folder.stop(), &orders.stop, Durability::Cached)?;
    let lock = folder.try_lock()?.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))?;
    replace_json(&folder.spec(), spec, Durability::Synced)?;
    crate::files::sync_folder(workloads)?;
    Ok(lock)
}

/// Starts the supervisor of a folder.
pub(in crate::runtime) fn spawn_shim(shim_program: &Path, folder: &Folder, lock: fs::File) -> io::Result<Child> {
    let log = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(folder.shim_log())?;
    let mut command = Command::new(shim_program);
    command.arg("shim").arg("--dir").arg(folder.root()).current_dir("/");
    command.stdin(Stdio::from(lock)).stdout(Stdio::piped()).stderr(Stdio::from(log));
    command.spawn()
}
