//! The simulated runtime: nothing runs, and every line and record says so.
//!
//! It is an ordinary runtime with timers instead of programs. A workload runs
//! until it is stopped, or as its labels say:
//!
//! | label | meaning |
//! |---|---|
//! | `claw.sim/run-for-ms` | ends by itself after so long |
//! | `claw.sim/exit-code` | with this exit code (0) |
//! | `claw.sim/start-error` | cannot be started, with this text |
//! | `claw.sim/log-lines` | log lines that it writes (3) |
//! | `claw.sim/checkpoint-every-ms` | writes a checkpoint each time it has run so long, and begins again from the last one |
//! | `claw.sim/checkpoint-ms` | so long it takes to write one (0) |
//! | `claw.sim/checkpoint-says-took` | it says how long it took (true) |
//!
//! Simulated workloads end with the agent: a restarted agent reports them lost.

mod trainer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use claw_proto::ids::GpuUuid;
use claw_proto::message::{DesiredWorkload, LogStream, NodeWorkloadState, StatusCause};
use claw_proto::spec::RuntimeKind;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::warn;

use super::execution_log::{self, ExecutionEntry};
use super::folder::{ExitFile, Folder, exit_of};
use super::{Key, Runtime};
use crate::clock;
use crate::files::{Durability, create_folder, read_json, replace_json};
use crate::logs::SegmentWriter;
use crate::node::{Found, FoundWorkload, Lease, RuntimeEvent, WorkloadEnd};

/// Begins every line that a simulated workload writes.
pub const LINE_MARK: &str = "[simulated]";
/// Log lines of a workload that does not say how many.
const LOG_LINES_DEFAULT: u32 = 3;

/// What the simulated runtime needs to know.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Node's name, for the execution log.
    pub node: String,
    /// Folder with one folder per attempt.
    pub workloads: PathBuf,
    /// The execution log.
    pub execution_log: PathBuf,
    /// How long fetching takes, milliseconds.
    pub pull_ms: u64,
    /// How long starting takes, milliseconds.
    pub start_ms: u64,
    /// How long a stop takes, milliseconds; never longer than the grace.
    pub stop_ms: u64,
    /// Log bytes that one stream of a new attempt may hold.
    pub log_bytes_max: u64,
    /// When the agent before this one was last seen alive, milliseconds since
    /// boot: what it simulated ended then, not when somebody noticed.
    pub last_alive_ms: Option<u64>,
}

/// A stop: how long it takes, and why.
type Stop = Option<(u64, StatusCause)>;

/// How to reach a pretended run.
#[derive(Debug)]
struct Attempt {
    stop: watch::Sender<Stop>,
    notice: watch::Sender<bool>,
    gpus: Vec<GpuUuid>,
}

/// Pretends to run workloads.
#[derive(Debug)]
pub struct SimRuntime {
    options: SimOptions,
    events: mpsc::Sender<RuntimeEvent>,
    attempts: BTreeMap<Key, Attempt>,
    tasks: JoinSet<()>,
}

impl SimRuntime {
    /// A runtime that tells what happens through `events`. Must live inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// If the folder for the attempts cannot be created.
    pub fn new(options: SimOptions, events: mpsc::Sender<RuntimeEvent>) -> io::Result<Self> {
        create_folder(&options.workloads, 0o711)?;
        Ok(Self { options, events, attempts: BTreeMap::new(), tasks: JoinSet::new() })
    }

    fn find(&self, folder: &Folder) -> io::Result<Option<FoundWorkload>> {
        let Some(workload) = read_json::<DesiredWorkload>(&folder.sim())? else {
            return Ok(None);
        };
        let exit = if let Some(exit) = read_json::<ExitFile>(&folder.exit())? {
            exit
        } else {
            let detail = "simulated workloads end with the agent".to_owned();
            let now = clock::now();
            let ended_ms = self.options.last_alive_ms.map_or(now.mono_ms, |alive_ms| alive_ms.min(now.mono_ms));
            let ago_ms = i64::try_from(now.mono_ms - ended_ms).unwrap_or(0);
            let at = now.wall.plus_ms(-ago_ms);
            let exit = exit_of(NodeWorkloadState::Lost, StatusCause::AgentRestarted, detail, at);
            write_end(&self.options, folder, (workload.workload_id, workload.attempt), &exit, ended_ms)?;
            exit
        };
        Ok(Some(FoundWorkload { workload: Arc::new(workload), found: Found::Ended(exit.into()) }))
    }
}

impl SimRuntime {
    /// An attempt of which nothing can be read: without a folder it never
    /// began, with one it ended with the agent.
    fn judge_unseen(&self, workload: &Arc<DesiredWorkload>) -> FoundWorkload {
        let key = (workload.workload_id, workload.attempt);
        let began = Folder::of(&self.options.workloads, key).root().exists();
        let detail = "simulated workloads end with the agent";
        let lost = WorkloadEnd::of(NodeWorkloadState::Lost, StatusCause::AgentRestarted, detail);
        let found = if began { Found::Ended(lost) } else { Found::NeverStarted };
        FoundWorkload { workload: Arc::clone(workload), found }
    }
}

impl Runtime for SimRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Sim
    }

    fn recover(&mut self, known: &[Arc<DesiredWorkload>]) -> Vec<FoundWorkload> {
        let entries = match fs::read_dir(&self.options.workloads) {
            Ok(entries) => entries,
            Err(error) => {
                warn!(%error, "the folder of the attempts could not be read");
                return Vec::new();
            }
        };
        let folders = entries.filter_map(|entry| Some(Folder::at(entry.ok()?.path())));
        let mut found = Vec::new();
        for folder in folders {
            match self.find(&folder) {
                Ok(one) => found.extend(one),
                Err(error) => {
                    warn!(%error, folder = %folder.root().display(), "a simulated attempt could not be read");
                }
            }
        }
        let seen: BTreeSet<Key> = found.iter().map(|one| (one.workload.workload_id, one.workload.attempt)).collect();
        let unseen = known.iter().filter(|workload| !seen.contains(&(workload.workload_id, workload.attempt)));
        found.extend(unseen.map(|workload| self.judge_unseen(workload)));
        found
    }

    fn start(&mut self, workload: Arc<DesiredWorkload>, _lease: Option<Lease>) {
        while self.tasks.try_join_next().is_some() {}
        let key = (workload.workload_id, workload.attempt);
        let (stop, receiver) = watch::channel(None);
        let (notice, noticed) = watch::channel(false);
        self.attempts.insert(key, Attempt { stop, notice, gpus: workload.gpus.clone() });
        let (options, events) = (self.options.clone(), self.events.clone());
        let run = Run { options, workload, key, stop: receiver, notice: noticed, events };
        self.tasks.spawn(run.play());
    }

    fn stop(&mut self, key: Key, grace_ms: u64, cause: StatusCause) {
        if let Some(attempt) = self.attempts.get(&key) {
            let stop_ms = self.options.stop_ms.min(grace_ms);
            attempt.stop.send_modify(|known| {
                let (known_ms, first) = known.unwrap_or((stop_ms, cause));
                *known = Some((known_ms.min(stop_ms), first));
            });
        }
    }

    fn notice_checkpoint(&mut self, key: Key) {
        if let Some(attempt) = self.attempts.get(&key) {
            attempt.notice.send_replace(true);
        }
    }

    /// The lease ends by a stop: a simulated workload cannot outlive its agent.
    fn renew_lease(&mut self, _key: Key, _lease: Lease) {}

    /// A simulated program dies with its GPU, as a real one does.
    fn gpu_failed(&mut self, gpu: &GpuUuid) {
        for attempt in self.attempts.values().filter(|attempt| attempt.gpus.contains(gpu)) {
            attempt.stop.send_modify(|known| {
                known.get_or_insert((0, StatusCause::GpuMissing));
            });
        }
    }

    fn remove(&mut self, key: Key) {
        self.attempts.remove(&key);
        Folder::of(&self.options.workloads, key).remove_or_warn();
    }

    fn set_log_bytes_max(&mut self, bytes_max: u64) {
        self.options.log_bytes_max = bytes_max;
    }
}

/// Writes down an end once: `exit.json`, then the execution log.
fn write_end(options: &SimOptions, folder: &Folder, key: Key, exit: &ExitFile, ended_ms: u64) -> io::Result<()> {
    replace_json(&folder.exit(), exit, Durability::Cached)?;
    let mut entry = ExecutionEntry::ended(&options.node, key, exit, ended_ms);
    entry.simulated = true;
    execution_log::append(&options.execution_log, &entry)
}

/// Waits for a stop. Without a sender there is none to come: the agent goes,
/// and the workload with it.
async fn stopped(stop: &mut watch::Receiver<Stop>) -> Stop {
    let found = stop.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
    if found.is_none() {
        std::future::pending::<()>().await;
    }
    found
}

/// One pretended run.
struct Run {
    options: SimOptions,
    workload: Arc<DesiredWorkload>,
    key: Key,
    stop: watch::Receiver<Stop>,
    notice: watch::Receiver<bool>,
    events: mpsc::Sender<RuntimeEvent>,
}

impl Run {
    async fn play(mut self) {
        let folder = Folder::of(&self.options.workloads, self.key);
        let exit = match self.prepare(&folder) {
            Ok(()) => self.act(&folder).await,
            Err(error) => {
                exit_of(NodeWorkloadState::Failed, StatusCause::StartFailed, error.to_string(), clock::wall())
            }
        };
        if let Err(error) = write_end(&self.options, &folder, self.key, &exit, clock::boot_ms()) {
            warn!(%error, "a simulated end could not be written down");
        }
        let (workload_id, attempt) = self.key;
        self.send(RuntimeEvent::Ended { workload_id, attempt, end: exit.into() }).await;
    }

    fn prepare(&self, folder: &Folder) -> io::Result<()> {
        folder.remove()?;
        create_folder(&folder.logs(), 0o711)?;
        replace_json(&folder.sim(), self.workload.as_ref(), Durability::Cached)
    }

    /// The label's value; one that cannot be read is as good as none, and said so.
    fn label<T: FromStr>(&self, name: &str) -> Option<T> {
        let text = self.workload.spec.labels.get(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            warn!(name, text, "a simulation label could not be read");
        }
        value
    }

    async fn act(&mut self, folder: &Folder) -> ExitFile {
        for (state, length_ms) in
            [(NodeWorkloadState::Pulling, self.options.pull_ms), (NodeWorkloadState::Starting, self.options.start_ms)]
        {
            self.progress(state).await;
            if let Some(exit) = self.wait(Some(length_ms)).await {
                return exit;
            }
        }
        if let Some(text) = self.label::<String>("claw.sim/start-error") {
            let detail = format!("{LINE_MARK} {text}");
            return exit_of(NodeWorkloadState::Failed, StatusCause::StartFailed, detail, clock::wall());
        }
        let mut entry = ExecutionEntry::started(&self.options.node, self.key, clock::wall(), clock::boot_ms());
        entry.simulated = true;
        if let Err(error) = execution_log::append(&self.options.execution_log, &entry) {
            warn!(%error, "the execution log could not be written");
        }
        self.write_lines(folder);
        self.progress(NodeWorkloadState::Running).await;
        if let Some(exit) = self.train().await {
            return exit;
        }
        let exit_code = self.label("claw.sim/exit-code").unwrap_or(0);
        let state = if exit_code == 0 { NodeWorkloadState::Completed } else { NodeWorkloadState::Failed };
        ExitFile { exit_code: Some(exit_code), ..exit_of(state, StatusCause::Exited, String::new(), clock::wall()) }
    }

    /// Waits so long, or for ever; an end if it was stopped meanwhile.
    async fn wait(&mut self, length_ms: Option<u64>) -> Option<ExitFile> {
        let stop = match length_ms {
            Some(length_ms) => {
                tokio::time::timeout(Duration::from_millis(length_ms), stopped(&mut self.stop)).await.ok()?
            }
            None => stopped(&mut self.stop).await,
        };
        let (mut stop_ms, cause) = stop?;
        // A second stop may only shorten the first.
        let began = tokio::time::Instant::now();
        loop {
            let end = began + Duration::from_millis(stop_ms);
            match tokio::time::timeout_at(end, self.stop.changed()).await {
                Ok(Ok(())) => {
                    stop_ms = self.stop.borrow_and_update().map_or(stop_ms, |(again_ms, _)| again_ms.min(stop_ms));
                }
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => break,
            }
        }
        let (state, detail) = if cause == StatusCause::GpuMissing {
            (NodeWorkloadState::Failed, format!("{LINE_MARK} a gpu failed"))
        } else {
            (NodeWorkloadState::Stopped, String::new())
        };
        Some(exit_of(state, cause, detail, clock::wall()))
    }

    fn write_lines(&self, folder: &Folder) {
        let n_lines = self.label("claw.sim/log-lines").unwrap_or(LOG_LINES_DEFAULT);
        let spec = &self.workload.spec;
        let what = spec.model.as_deref().or(spec.image.as_deref()).or(spec.name.as_deref()).unwrap_or("a command");
        let n_gpus = self.workload.gpus.len();
        let result =
            SegmentWriter::open(&folder.logs(), LogStream::Stdout, self.options.log_bytes_max).and_then(|mut log| {
                for n in 1..=n_lines {
                    log.push(
                        clock::wall(),
                        format!("{LINE_MARK} {what} on {n_gpus} GPUs, line {n} of {n_lines}").as_bytes(),
                    );
                    if n % 1_000 == 0 {
                        log.flush()?;
                    }
                }
                log.flush()
            });
        if let Err(error) = result {
            warn!(%error, "simulated log lines are lost");
        }
    }

    async fn progress(&self, state: NodeWorkloadState) {
        let (workload_id, attempt) = self.key;
        self.send(RuntimeEvent::Progress { workload_id, attempt, state, detail: "simulated".to_owned() }).await;
    }

    async fn send(&self, event: RuntimeEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("the agent is shutting down");
        }
    }
}
