//! The supervisor of one container: `clawnode shim` on a folder that names one.
//!
//! As for a host process it is a process of its own that outlives the agent:
//! it creates and starts the container, takes its output into the log, keeps
//! its lease, performs its stops through the engine (by the kernel if the engine
//! is not there) and writes down how it ended. Killed itself, it leaves the
//! container running; the agent starts another one on the same folder, which
//! finds the container by its name and labels.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use claw_proto::message::{NodeWorkloadState, StatusCause};
use rustix::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::container::{self, Ended, Exited, Seen, StartFault};
use super::engine;
use super::follow::Follower;
use super::oom::{self, OomWatch};
use super::{gpu, outputs, secrets};
use crate::clock;
use crate::files::{Durability, read_json, replace_json};
use crate::runtime::dmem;
use crate::runtime::execution_log::{self, ExecutionEntry};
use crate::runtime::folder::{
    ContainerFile, ExitFile, Folder, LeaseFile, ProcessId, ShimFile, SpecFile, StartedFile, StopFile, exit_of,
};
use crate::runtime::process::enforcer::{Enforcer, Order};
use crate::runtime::process::proc_table;
use crate::runtime::process::shim::{STARTED_LINE, ShimError, reserve_exit, write_exit};

/// Orders are looked at this often even if nobody signals.
const POLL_MS: u64 = 250;
/// An engine that is not there when a container is to be created is waited for so long, milliseconds.
const ENGINE_WAIT_MS: u64 = 30_000;
/// A signal through the engine may take so long, milliseconds.
const SIGNAL_TIMEOUT_MS: u64 = 5_000;
/// A container whose process is gone while its engine is away is given up after, milliseconds.
const GIVEN_UP_MS: u64 = 600_000;
/// What is told of a container that was over before a look inside: nothing shows afterwards what it had.
const NOT_SEEN: &str = "its GPUs were not seen: it was over before a look inside, and may have run without them";
/// The same, of the limit of its GPU's memory.
const NOT_HELD: &str = "it was over before its GPU's memory was limited";

/// Supervises the container in `folder` until it is over.
pub(in crate::runtime) async fn supervise(
    folder: &Folder,
    spec: &SpecFile,
    container: &ContainerFile,
    own: ProcessId,
) -> Result<(), ShimError> {
    let mut wake = signal(SignalKind::user_defined1())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // An earlier supervisor went as far as asking the engine.
    let resumed = folder.attempted().try_exists()?;
    crate::files::replace(&folder.attempted(), b"", Durability::Synced)?;
    let shim = ShimFile { process: own, boot_id: clock::boot_id() };
    replace_json(&folder.shim(), &shim, Durability::Cached)?;
    reserve_exit(folder)?;
    let follower = Follower::open(&container.name, &folder.logs(), spec.log_bytes_max)?;
    let mut supervisor = Supervisor::new(folder, spec, container, resumed, follower)?;
    let mut step = Step::Begin;
    loop {
        let now_ms = clock::boot_ms();
        supervisor.follow_orders(now_ms);
        step = match step {
            Step::Begin => {
                let next = supervisor.begin().await;
                if next.is_none() && tokio::time::timeout(Duration::from_millis(POLL_MS), wake.recv()).await.is_err() {
                    tracing::debug!("the engine is not there yet");
                }
                next.unwrap_or(Step::Begin)
            }
            Step::Over(exit) => {
                supervisor.finish(exit).await;
                return Ok(());
            }
            Step::Running(mut ended) => {
                let next_ms = supervisor.enforcer.next_ms();
                let until_ms = next_ms.map_or(POLL_MS, |at_ms| at_ms.saturating_sub(now_ms).clamp(1, POLL_MS));
                tokio::select! {
                    over = &mut ended => Step::Over(supervisor.judge(over.ok()).await),
                    () = supervisor.follower.pump() => Step::Running(ended),
                    _ = wake.recv() => Step::Running(ended),
                    _ = terminate.recv() => supervisor.asked_to_end(ended),
                    _ = interrupt.recv() => supervisor.asked_to_end(ended),
                    _ = hangup.recv() => Step::Running(ended),
                    () = tokio::time::sleep(Duration::from_millis(until_ms)) => supervisor.look_around(ended),
                }
            }
        };
    }
}

fn over(state: NodeWorkloadState, cause: StatusCause, detail: String) -> Step {
    Step::Over(exit_of(state, cause, detail, clock::wall()))
}

/// Where the supervisor stands.
enum Step {
    /// The container is to be found or made.
    Begin,
    /// It runs; the handle tells how it ends.
    Running(JoinHandle<Ended>),
    /// It is over.
    Over(ExitFile),
}

struct Supervisor<'a> {
    folder: &'a Folder,
    spec: &'a SpecFile,
    container: &'a ContainerFile,
    /// A container may be there from an earlier supervisor.
    resumed: bool,
    began: Instant,
    enforcer: Enforcer,
    follower: Follower,
    oom: Option<OomWatch>,
    /// The container's first process.
    process: Option<ProcessId>,
    /// Since when that process is seen to be gone.
    gone_since: Option<Instant>,
    /// What it was asked for, for notes.
    noted: Option<Order>,
}

impl<'a> Supervisor<'a> {
    fn new(
        folder: &'a Folder,
        spec: &'a SpecFile,
        container: &'a ContainerFile,
        resumed: bool,
        follower: Follower,
    ) -> io::Result<Self> {
        let started = read_json::<StartedFile>(&folder.started())?;
        let workload = &spec.workload;
        let duration_ms = workload.max_duration_s.map(|seconds| seconds.saturating_mul(1_000));
        let grace_ms = u64::from(workload.grace_s) * 1_000;
        let started_ms = started.as_ref().and_then(|started| started.at_ms);
        let began_ms = started_ms.unwrap_or_else(clock::boot_ms);
        Ok(Self {
            folder,
            spec,
            container,
            resumed,
            began: Instant::now(),
            enforcer: Enforcer::new(began_ms, duration_ms, grace_ms),
            follower,
            oom: None,
            process: started.map(|started| started.child),
            gone_since: None,
            noted: None,
        })
    }

    /// Finds or makes the container; nothing while the engine is not there.
    async fn begin(&mut self) -> Option<Step> {
        let docker = match engine::connect(&self.container.socket).await {
            Ok((docker, _)) => docker,
            Err(error) => return self.without_engine(&error.to_string()),
        };
        match container::see(&docker, self.container).await {
            Ok(Seen::Running { pid, id, ports }) => Some(self.attach(docker, pid, &id, &ports).await),
            Ok(Seen::Ended(ended)) => Some(self.over_already(ended).await),
            Ok(Seen::Absent | Seen::Created) if self.enforcer.cause().is_some() => Some(self.stopped_early()),
            Ok(Seen::Created) => Some(self.start(docker, true).await),
            Ok(Seen::Absent) if self.resumed => Some(Step::Over(self.judge(Some(Ended::Absent)).await)),
            Ok(Seen::Absent) => Some(self.start(docker, false).await),
            Ok(Seen::Foreign) => {
                let detail = format!("a container {} that is not this node's is in the way", self.container.name);
                Some(over(NodeWorkloadState::Failed, StatusCause::EngineFailed, detail))
            }
            Err(error) => self.without_engine(&error.to_string()),
        }
    }

    fn stopped_early(&self) -> Step {
        let cause = self.enforcer.cause().unwrap_or(StatusCause::StopRequested);
        over(NodeWorkloadState::Stopped, cause, "stopped before it was started".to_owned())
    }

    /// The engine does not answer: nothing can be made; what was made may run.
    fn without_engine(&mut self, why: &str) -> Option<Step> {
        if self.resumed {
            return self.given_up(why);
        }
        if self.enforcer.cause().is_some() {
            return Some(self.stopped_early());
        }
        let waited = self.began.elapsed() > Duration::from_millis(ENGINE_WAIT_MS);
        let detail = || format!("the container engine does not answer: {why}");
        waited.then(|| over(NodeWorkloadState::Failed, StatusCause::EngineFailed, detail()))
    }

    /// Nothing of the container runs and nobody can tell how it ended.
    fn given_up(&mut self, why: &str) -> Option<Step> {
        let process = self.process?;
        if proc_table::is_alive(process) {
            self.gone_since = None;
            return None;
        }
        let since = *self.gone_since.get_or_insert_with(Instant::now);
        let was_told = self.enforcer.cause().is_some();
        let wait_ms = if was_told { ENGINE_WAIT_MS } else { GIVEN_UP_MS };
        if since.elapsed() < Duration::from_millis(wait_ms) {
            return None;
        }
        let detail = format!("it ended while the engine was away: {why}");
        Some(match self.enforcer.cause() {
            Some(cause) => over(NodeWorkloadState::Stopped, cause, detail),
            None => over(NodeWorkloadState::Lost, StatusCause::EngineFailed, detail),
        })
    }

    async fn start(&mut self, docker: Docker, is_created: bool) -> Step {
        self.resumed = true;
        match container::create_and_start(&docker, self.container, is_created).await {
            Ok(()) => match container::see(&docker, self.container).await {
                Ok(Seen::Running { pid, id, ports }) => self.attach(docker, pid, &id, &ports).await,
                Ok(Seen::Ended(ended)) => self.over_already(ended).await,
                Ok(Seen::Absent | Seen::Created | Seen::Foreign) | Err(_) => Step::Begin,
            },
            Err(StartFault::Engine(error)) => {
                tracing::warn!(%error, "the engine failed while a container was started");
                // Whatever it did is looked at when it answers again.
                Step::Begin
            }
            Err(StartFault::Refused { cause, detail }) => over(NodeWorkloadState::Failed, cause, detail),
        }
    }

    /// The container is over before it was seen running.
    async fn over_already(&mut self, ended: Exited) -> Step {
        let is_first = !self.folder.started().exists();
        if is_first {
            self.announce(ProcessId { pid: 0, start_ticks: 0 }, "");
        }
        let mut exit = self.judge(Some(Ended::Exited(ended))).await;
        if is_first && !self.container.devices.is_empty() {
            self.follower.note(NOT_SEEN);
            exit.add_detail(NOT_SEEN);
        }
        if is_first && self.spec.gpu_memory.is_some() && !self.folder.gpu_limited().exists() {
            self.follower.note(NOT_HELD);
            exit.add_detail(NOT_HELD);
        }
        Step::Over(exit)
    }

    /// The container runs: everything about it is watched from here on.
    async fn attach(&mut self, docker: Docker, pid: i32, id: &str, ports: &str) -> Step {
        let is_first = !self.folder.started().exists();
        // The number is worth something only if it is one of this host's.
        let process = proc_table::identify(pid).filter(|_| container::holds(pid, id));
        if is_first && let Some(refused) = self.without_cap(&docker, process).await {
            return refused;
        }
        if is_first && let Some(refused) = self.without_devices(&docker, process).await {
            return refused;
        }
        self.process = process;
        self.oom = process.and_then(|process| match OomWatch::of(process.pid) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, "want of memory can be told by the engine only");
                None
            }
        });
        self.follower.connect(docker.clone());
        self.follower.follow();
        if is_first {
            self.announce(process.unwrap_or(ProcessId { pid, start_ticks: 0 }), ports);
        }
        self.gone_since = None;
        Step::Running(tokio::spawn(container::until_over(self.container.clone())))
    }

    /// A container that does not see its GPUs goes, before it counts as running.
    async fn without_devices(&self, docker: &Docker, process: Option<ProcessId>) -> Option<Step> {
        let expected = &self.container.devices;
        if expected.is_empty() {
            return None;
        }
        let hidden = || Err("the container cannot be looked into".to_owned());
        let missing = process.map_or_else(hidden, |process| gpu::check(process.pid, expected)).err()?;
        self.take_away(docker, process).await;
        Some(over(NodeWorkloadState::Failed, StatusCause::GpuNotAttached, missing))
    }

    /// A container that is not to run goes; if the engine does not remove it, what runs in it is killed.
    async fn take_away(&self, docker: &Docker, process: Option<ProcessId>) {
        let Err(error) = container::remove(docker, self.container).await else { return };
        tracing::warn!(%error, "a container that is not to run could not be removed yet");
        let first = process.filter(|process| proc_table::is_alive(*process));
        if let Some(pid) = first.and_then(|process| Pid::from_raw(process.pid))
            && let Err(error) = rustix::process::kill_process(pid, Signal::KILL)
        {
            tracing::warn!(%error, "nor could its first process be killed");
        }
    }

    /// A container that cannot be held to its part of a GPU's memory goes: others count on theirs. Docker has no
    /// field for the limit, so it is set on the group that the engine has made, a moment after the start.
    async fn without_cap(&self, docker: &Docker, process: Option<ProcessId>) -> Option<Step> {
        let cap = self.spec.gpu_memory.as_ref()?;
        let hidden = || io::Error::new(io::ErrorKind::NotFound, "the container's control group cannot be found");
        let group = process.ok_or_else(hidden).and_then(|process| oom::group_of(process.pid));
        // A group of version 1 has no such limit, and `apply` says so.
        let limited = group.and_then(|(group, _)| dmem::apply(Path::new(dmem::CGROUP_ROOT), &group, cap));
        let noted = limited.and_then(|()| std::fs::write(self.folder.gpu_limited(), b""));
        let error = noted.err()?;
        if !cap.must {
            tracing::warn!(%error, "a share of a GPU is not held to its memory");
            return None;
        }
        if process.is_some_and(|process| !proc_table::is_alive(process)) {
            // It is over: a look at it tells how.
            return Some(Step::Begin);
        }
        self.take_away(docker, process).await;
        let detail = format!("memory of its GPU: {error}");
        Some(over(NodeWorkloadState::Failed, StatusCause::StartFailed, detail))
    }

    /// Writes down that it runs, and tells the agent.
    fn announce(&mut self, process: ProcessId, ports: &str) {
        let key = (self.spec.workload.workload_id, self.spec.workload.attempt);
        let mut entry = ExecutionEntry::started(&self.spec.node, key, clock::wall(), clock::boot_ms());
        entry.pid = Some(process.pid).filter(|pid| *pid > 0);
        if let Err(error) = execution_log::append(&self.spec.execution_log, &entry) {
            tracing::warn!(%error, "the execution log could not be written");
        }
        let started = StartedFile { child: process, note: ports.to_owned(), at_ms: Some(clock::boot_ms()) };
        if let Err(error) = replace_json(&self.folder.started(), &started, Durability::Cached) {
            tracing::warn!(%error, "started.json could not be written");
        }
        self.follower.note(&format!("started as container {}", self.container.name));
        if !ports.is_empty() {
            self.follower.note(ports);
        }
        let mut agent = io::stdout();
        // The agent may be gone; then it reads started.json later.
        if writeln!(agent, "{STARTED_LINE}").and_then(|()| agent.flush()).is_err() {
            tracing::debug!("the agent does not listen");
        }
    }

    /// Reads the orders in the folder and does what is due.
    fn follow_orders(&mut self, now_ms: u64) {
        match read_json::<Option<StopFile>>(&self.folder.stop()).map(Option::flatten) {
            Ok(Some(stop)) => self.enforcer.stop(now_ms, stop.kill_at_ms, stop.cause),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "stop.json could not be read"),
        }
        match read_json::<LeaseFile>(&self.folder.lease()) {
            Ok(lease) => self.enforcer.set_lease(lease.flatten()),
            Err(error) => tracing::warn!(%error, "lease.json could not be read"),
        }
        for order in self.enforcer.due(now_ms) {
            let (signal, word, cause) = match order {
                Order::Terminate(cause) => (Signal::TERM, "TERM", cause),
                Order::Kill(cause) => (Signal::KILL, "KILL", cause),
            };
            self.noted = Some(order);
            self.follower.note(&format!("{word} is sent: {cause}"));
            self.signal(signal, word);
        }
    }

    /// The kernel is quicker than any engine and needs none; where the
    /// container's process is not ours to see, the engine does it.
    fn signal(&self, signal: Signal, word: &'static str) {
        let process = self.process.filter(|process| proc_table::is_alive(*process));
        if signal == Signal::KILL
            && let Some(pid) = process.and_then(|process| Pid::from_raw(process.pid))
            && let Err(error) = rustix::process::kill_process(pid, signal)
        {
            tracing::warn!(%error, "the container's process could not be signaled");
        }
        let (container, by_kernel) = (self.container.clone(), process.and_then(|process| Pid::from_raw(process.pid)));
        tokio::spawn(async move {
            let sent = container::signal(&container, word);
            let result = tokio::time::timeout(Duration::from_millis(SIGNAL_TIMEOUT_MS), sent).await;
            let error = match result {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            tracing::warn!(error, word, "the engine did not pass a signal on");
            if let Some(pid) = by_kernel
                && let Err(error) = rustix::process::kill_process(pid, signal)
            {
                tracing::debug!(%error, "the container's process is gone");
            }
        });
    }

    fn asked_to_end(&mut self, ended: JoinHandle<Ended>) -> Step {
        let now_ms = clock::boot_ms();
        let kill_at_ms = now_ms + u64::from(self.spec.workload.grace_s) * 1_000;
        self.enforcer.stop(now_ms, kill_at_ms, StatusCause::StopRequested);
        Step::Running(ended)
    }

    fn look_around(&mut self, ended: JoinHandle<Ended>) -> Step {
        if let Some(oom) = &mut self.oom {
            oom.look();
        }
        match self.given_up("it does not answer") {
            Some(over) => {
                ended.abort();
                over
            }
            None => Step::Running(ended),
        }
    }

    /// How it ended, told apart.
    async fn judge(&mut self, ended: Option<Ended>) -> ExitFile {
        let by_us = self.enforcer.cause();
        let killed_for_memory = match &mut self.oom {
            Some(oom) => oom.was_killed().await,
            None => false,
        };
        match ended {
            Some(Ended::Exited(exited)) => {
                // It may have been over before its group could be watched.
                let killed = killed_for_memory || (exited.code != Some(0) && oom::kernel_log_names(&exited.id));
                exited.judge(by_us, killed)
            }
            Some(Ended::Absent) | None => {
                let detail = "its container was removed by somebody else".to_owned();
                match by_us {
                    Some(cause) => exit_of(NodeWorkloadState::Stopped, cause, detail, clock::wall()),
                    None => exit_of(NodeWorkloadState::Lost, StatusCause::SupervisorGone, detail, clock::wall()),
                }
            }
        }
    }

    /// What the workload declared as its outputs; what is missing of them is told with its end.
    async fn collect_outputs(&mut self, docker: &Docker, exit: &mut ExitFile) {
        for told in outputs::collect(docker, self.container, &self.spec.workload.spec.outputs).await {
            self.follower.note(told.as_ref().unwrap_or_else(|missing| missing));
            if let Err(missing) = told {
                exit.add_detail(&missing);
            }
        }
    }

    /// Everything that is left to do, in the order in which it must be seen:
    /// lines, results, then the end.
    async fn finish(mut self, mut exit: ExitFile) {
        let has_run = self.folder.started().exists();
        if has_run {
            self.follower.rest(&self.container.socket).await;
        }
        let has_outputs = has_run && !self.spec.workload.spec.outputs.is_empty();
        match engine::connect(&self.container.socket).await {
            Ok((docker, _)) => {
                if has_outputs {
                    self.collect_outputs(&docker, &mut exit).await;
                }
                if let Err(error) = container::remove(&docker, self.container).await {
                    tracing::warn!(%error, "a container could not be removed yet; the agent tries again");
                }
            }
            Err(error) if has_outputs => exit.add_detail(&format!("its outputs could not be collected: {error}")),
            Err(error) => tracing::warn!(%error, "the agent removes the container when the engine is there again"),
        }
        if let Some(folder) = &self.container.secrets {
            secrets::remove(folder);
        }
        self.follower.note(&format!("ended: {} ({})", exit.state, exit.cause));
        self.follower.finish();
        write_exit(self.folder, &exit).await;
        let key = (self.spec.workload.workload_id, self.spec.workload.attempt);
        let entry = ExecutionEntry::ended(&self.spec.node, key, &exit, clock::boot_ms());
        if has_run && let Err(error) = execution_log::append(&self.spec.execution_log, &entry) {
            tracing::warn!(%error, "the execution log could not be written");
        }
    }
}
