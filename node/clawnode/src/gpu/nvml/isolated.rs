//! NVIDIA's library in a process of its own, and the driver that asks it.
//!
//! A library that crashes takes its process along, and one that hangs while it is opened
//! holds the dynamic linker's lock, on which every thread of the process may come to
//! wait. So the agent loads none: it starts itself as `clawnode gpu-driver`, which does
//! ([`super::serve`]), and asks over pipes, one line of JSON each way. A process that is
//! gone is a driver that is over ([`GpuDriver::over`]): the worker makes another after a
//! pause, and that one is told what the last remembered of the GPUs. What happened
//! between the last answer and the end of a process is lost.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use claw_proto::message::{GpuEvent, GpuMetrics};
use claw_proto::topology::{GpuDriver as GpuDriverKind, GpuInfo, NodeFinding};
use serde::{Deserialize, Serialize};

use super::super::child::signal_of;
use super::super::leash::{End, Leash};
use super::super::{GpuDriver, Sampling, Seen};
use super::{Memory, NvmlOptions};

/// The word of `clawnode` that serves the library.
pub const WORD: &str = "gpu-driver";
/// Longest line of either side, bytes: some thousand GPUs.
pub(super) const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// On a host without the library no process waits for one; it is looked for again after, milliseconds.
const ABSENT_RETRY_MS: u64 = 60_000;
/// Variables of the agent's environment that the process may see: where the library is, and how to log.
const ENVIRONMENT: [&str; 3] = ["LD_LIBRARY_PATH", "CLAWNODE_LOG", "NO_COLOR"];

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Comes first and has no answer: how to work, and what the last process knew.
    Begin { options: NvmlOptions, memory: Memory },
    /// To look, at this uptime of the agent in milliseconds.
    Detect { uptime_ms: u64 },
    /// To measure.
    Measure,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// To [`Request::Detect`].
    Seen {
        gpus: Vec<GpuInfo>,
        findings: Vec<NodeFinding>,
        events: Vec<GpuEvent>,
        /// What is to be remembered, if it has changed.
        memory: Option<Memory>,
        /// There is no library and there was none: the process is of no use.
        absent: bool,
    },
    /// To [`Request::Measure`]. Nobody owns the processes: the agent knows who does.
    Measured { gpus: Vec<GpuMetrics> },
}

/// What the driver is made from; what is remembered outlives it.
#[derive(Debug, Clone)]
pub struct IsolatedOptions {
    /// The program that serves the library, started with [`WORD`].
    pub program: PathBuf,
    /// How it works.
    pub nvml: NvmlOptions,
    memory: Arc<Mutex<Memory>>,
}

impl IsolatedOptions {
    /// The options for a program; nothing is remembered yet.
    pub fn new(program: PathBuf, nvml: NvmlOptions) -> Self {
        Self { program, nvml, memory: Arc::default() }
    }
}

/// Both ends of the talk.
#[derive(Debug)]
struct Pipes {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// The driver.
#[derive(Debug)]
pub struct IsolatedGpus {
    options: IsolatedOptions,
    leash: Arc<Leash>,
    pipes: Option<Pipes>,
    /// What was seen without a library holds until the agent has run so long, milliseconds.
    rests_until_ms: Option<u64>,
    last: Seen,
    events: Vec<GpuEvent>,
    over: Option<String>,
}

impl IsolatedGpus {
    /// A driver that starts its process when it is first asked.
    pub fn new(options: IsolatedOptions, leash: Arc<Leash>) -> Self {
        let (last, events) = (Seen::default(), Vec::new());
        Self { options, leash, pipes: None, rests_until_ms: None, last, events, over: None }
    }

    /// Starts the process if there is none, and asks it.
    fn ask(&mut self, request: &Request) -> Result<Reply, String> {
        if self.pipes.is_none() {
            let mut pipes = self.start()?;
            let (options, memory) = (self.options.nvml.clone(), self.remembered().clone());
            let sent = send(&mut pipes, &Request::Begin { options, memory });
            // In any case: its end is waited for with them.
            self.pipes = Some(pipes);
            sent.map_err(|error| self.ended(&error))?;
        }
        let Some(pipes) = &mut self.pipes else { return Err("it has no process".to_owned()) };
        send(pipes, request).and_then(|()| receive(pipes)).map_err(|error| self.ended(&error))
    }

    fn start(&self) -> Result<Pipes, String> {
        let seen = |(name, _): &(OsString, OsString)| ENVIRONMENT.iter().any(|known| name == known);
        let mut command = Command::new(&self.options.program);
        // The name is for those who list processes.
        command
            .arg0("clawnode")
            .args([WORD, "--parent", &std::process::id().to_string()])
            .env_clear()
            .envs(std::env::vars_os().filter(seen))
            .current_dir("/");
        // It complains where the agent does.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let told = |error| format!("its process ({}) cannot be started: {error}", self.options.program.display());
        let mut child = command.spawn().map_err(told)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        self.leash.hold(child);
        let (to, from) = pipes.ok_or_else(|| "its process has no pipes".to_owned())?;
        Ok(Pipes { to, from: BufReader::new(from) })
    }

    /// Lets the process go, and waits for that.
    fn let_go(&mut self) -> Option<End> {
        self.pipes = None;
        self.leash.end()
    }

    /// Why there is no answer: how the process ended, or what is wrong with what it says.
    fn ended(&mut self, error: &TalkError) -> String {
        match (error, self.let_go()) {
            (TalkError::Over | TalkError::Pipe(_), Some(End { status, was_killed: false })) => {
                match signal_of(status) {
                    Some(signal) => {
                        format!("its process was ended by {signal}: the library crashed, or somebody did it")
                    }
                    None => format!("its process ended by itself ({status}); the agent's log may tell why"),
                }
            }
            (error, _) => format!("its process was given up: {error}"),
        }
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.options.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
enum TalkError {
    #[error("it ended its output")]
    Over,
    #[error("{0}")]
    Pipe(#[from] std::io::Error),
    #[error("a line of more than {LINE_BYTES_MAX} bytes came back")]
    Long,
    #[error("what it answered cannot be read: {0}")]
    Garbled(serde_json::Error),
    #[error("it cannot be asked: {0}")]
    Unsaid(serde_json::Error),
}

fn send(pipes: &mut Pipes, request: &Request) -> Result<(), TalkError> {
    let mut line = serde_json::to_vec(request).map_err(TalkError::Unsaid)?;
    line.push(b'\n');
    Ok(pipes.to.write_all(&line)?)
}

fn receive(pipes: &mut Pipes) -> Result<Reply, TalkError> {
    let mut line = Vec::new();
    pipes.from.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
    if line.len() as u64 > LINE_BYTES_MAX {
        return Err(TalkError::Long);
    }
    if line.pop() != Some(b'\n') {
        return Err(TalkError::Over);
    }
    serde_json::from_slice(&line).map_err(TalkError::Garbled)
}

impl GpuDriver for IsolatedGpus {
    fn kind(&self) -> GpuDriverKind {
        GpuDriverKind::Nvml
    }

    fn detect(&mut self, uptime_ms: u64) -> Seen {
        if self.rests_until_ms.is_some_and(|until_ms| uptime_ms < until_ms) {
            return self.last.clone();
        }
        self.rests_until_ms = None;
        match self.ask(&Request::Detect { uptime_ms }) {
            Ok(Reply::Seen { gpus, findings, events, memory, absent }) => {
                if let Some(memory) = memory {
                    *self.remembered() = memory;
                }
                if absent {
                    self.let_go();
                    self.rests_until_ms = Some(uptime_ms.saturating_add(ABSENT_RETRY_MS));
                }
                self.events.extend(events);
                self.last = Seen { gpus, findings };
            }
            Ok(Reply::Measured { .. }) => self.over = Some("its process answered something else".to_owned()),
            Err(message) => self.over = Some(message),
        }
        self.last.clone()
    }

    fn measure(&mut self, sampling: &Sampling) -> Vec<GpuMetrics> {
        // What has not been looked at has no numbers.
        if self.pipes.is_none() {
            return Vec::new();
        }
        let mut gpus = match self.ask(&Request::Measure) {
            Ok(Reply::Measured { gpus }) => gpus,
            Ok(Reply::Seen { .. }) => {
                self.over = Some("its process answered something else".to_owned());
                return Vec::new();
            }
            Err(message) => {
                self.over = Some(message);
                return Vec::new();
            }
        };
        let details = gpus.iter_mut().filter_map(|gpu| gpu.details.as_deref_mut());
        for process in details.flat_map(|details| &mut details.processes) {
            process.workload_id = (sampling.owner_of)(process.pid);
        }
        gpus
    }

    fn events(&mut self) -> Vec<GpuEvent> {
        std::mem::take(&mut self.events)
    }

    fn over(&self) -> Option<String> {
        self.over.clone()
    }
}

impl Drop for IsolatedGpus {
    fn drop(&mut self) {
        self.let_go();
    }
}
