//! The folder of one attempt: how agent and supervisor talk, even when one of
//! them is dead. Every file is replaced as a whole.
//!
//! | file | written by | meaning |
//! |---|---|---|
//! | `spec.json` | agent | what to run |
//! | `shim.lock` | agent, then held by the supervisor for its life | alive |
//! | `attempted` | supervisor | from here on something may have run |
//! | `shim.json` | supervisor | its process; it takes signals from now on |
//! | `started.json` | supervisor | the program runs |
//! | `lease.json`, `stop.json` | agent | orders |
//! | `exit.json` | supervisor, or the agent for a dead one | how it ended |
//! | `sim.json` | agent | a simulated attempt; it has no supervisor |
//! | `logs/`, `work/` | supervisor, program | output, working directory |
//! | `checkpoint/` | program, agent | what is said of checkpoints |

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use claw_proto::message::{DesiredWorkload, NodeWorkloadState, StatusCause};
use claw_proto::time::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::dmem::MemoryCap;
use super::docker::gpu::ExpectedDevices;
use crate::files::read_json;
use crate::node::{Lease, WorkloadEnd};
use crate::runtime::Key;

/// Paths of one attempt.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder at this path.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of an attempt below `workloads`.
    pub fn of(workloads: &Path, key: Key) -> Self {
        Self { root: workloads.join(format!("{}.{}", key.0, key.1.0)) }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The kernel took the limit of its GPU's memory.
    pub(super) fn gpu_limited(&self) -> PathBuf {
        self.root.join("gpu-limited")
    }

    /// Whether the attempt has a limit of its GPU's memory, or gets one before its program runs; nothing if it has not
    /// begun. What cannot be read has none.
    pub(crate) fn has_gpu_limit(&self) -> Option<bool> {
        match read_json::<SpecFile>(&self.spec()) {
            Ok(spec) => {
                spec.map(|spec| spec.gpu_memory.is_some() && (!self.started().exists() || self.gpu_limited().exists()))
            }
            Err(_) => Some(false),
        }
    }

    pub(super) fn sim(&self) -> PathBuf {
        self.root.join("sim.json")
    }
    pub(super) fn spec(&self) -> PathBuf {
        self.root.join("spec.json")
    }
    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("shim.lock")
    }
    pub(super) fn attempted(&self) -> PathBuf {
        self.root.join("attempted")
    }
    pub(super) fn shim(&self) -> PathBuf {
        self.root.join("shim.json")
    }
    pub(super) fn shim_log(&self) -> PathBuf {
        self.root.join("shim.log")
    }
    pub(super) fn started(&self) -> PathBuf {
        self.root.join("started.json")
    }
    pub(super) fn lease(&self) -> PathBuf {
        self.root.join("lease.json")
    }
    pub(super) fn stop(&self) -> PathBuf {
        self.root.join("stop.json")
    }
    pub(super) fn exit(&self) -> PathBuf {
        self.root.join("exit.json")
    }
    /// Where its log segments are.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    /// Where its program and the node talk of checkpoints.
    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint")
    }
    pub(super) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Removes it with everything in it; one that is not there is fine.
    pub(super) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// The same where nobody waits for the result.
    pub(super) fn remove_or_warn(&self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, folder = %self.root.display(), "an attempt's folder could not be removed");
        }
    }

    /// Whether it is that of a container.
    pub(super) fn is_container(&self) -> bool {
        crate::files::read_json::<SpecFile>(&self.spec())
            .is_ok_and(|spec| spec.is_some_and(|spec| spec.container.is_some()))
    }

    /// Takes the supervisor's lock; `None` if a supervisor holds it.
    pub(super) fn try_lock(&self) -> io::Result<Option<File>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(self.lock())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// `spec.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SpecFile {
    pub(super) node: String,
    pub(super) workload: DesiredWorkload,
    pub(super) execution_log: PathBuf,
    pub(super) log_bytes_max: u64,
    /// User of a workload that names none.
    pub(super) default_user: Option<String>,
    /// Whether to try cgroups.
    pub(super) cgroups: bool,
    /// Most processes, with cgroups.
    pub(super) pids_max: u32,
    /// Environment from the node, such as ranks; the workload's own wins.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// What it may have of its GPU's memory, where the node holds shares to theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gpu_memory: Option<MemoryCap>,
    /// The container, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<Box<ContainerFile>>,
}

/// What the supervisor of a container needs beside the workload. Nothing in it
/// is secret: secret files are named by their folder only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ContainerFile {
    /// The engine's socket.
    pub(super) socket: PathBuf,
    /// The container's name.
    pub(super) name: String,
    /// Id of the node that it belongs to.
    pub(super) node_id: String,
    /// What the engine is asked for; none for one that was found without its folder.
    pub(super) create: Option<bollard::models::ContainerCreateBody>,
    /// Folder with the secret files, removed at the end.
    pub(super) secrets: Option<PathBuf>,
    /// Where declared outputs go at the end.
    pub(super) outputs: PathBuf,
    /// Most of them, bytes.
    pub(super) outputs_bytes_max: u64,
    /// Devices that it must see before it counts as running.
    #[serde(default)]
    pub(super) devices: ExpectedDevices,
}

/// A process that cannot be mixed up with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) pid: i32,
    /// Start time in clock ticks since boot.
    pub(super) start_ticks: u64,
}

/// `shim.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShimFile {
    pub(super) process: ProcessId,
    pub(super) boot_id: String,
}

/// `started.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StartedFile {
    pub(super) child: ProcessId,
    /// For people: where ports are published, why limits are not enforced.
    pub(super) note: String,
    /// When it started, milliseconds since boot.
    #[serde(default)]
    pub(super) at_ms: Option<u64>,
}

/// `stop.json` holds one, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StopFile {
    /// KILL comes at this time since boot, milliseconds.
    pub(super) kill_at_ms: u64,
    pub(super) cause: StatusCause,
}

/// `lease.json`: none for a workload that runs on.
pub(super) type LeaseFile = Option<Lease>;

/// An end without exit code or signal.
pub(super) fn exit_of(state: NodeWorkloadState, cause: StatusCause, detail: String, at: Timestamp) -> ExitFile {
    ExitFile { state, cause, detail, exit_code: None, signal: None, at }
}

/// `exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExitFile {
    pub(super) state: NodeWorkloadState,
    pub(super) cause: StatusCause,
    pub(super) detail: String,
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) at: Timestamp,
}

impl ExitFile {
    /// Adds something that is worth knowing about the end.
    pub(super) fn add_detail(&mut self, text: &str) {
        add_detail(&mut self.detail, text);
    }
}

/// Appends to what is told already.
pub(super) fn add_detail(detail: &mut String, text: &str) {
    if !detail.is_empty() {
        detail.push_str("; ");
    }
    detail.push_str(text);
}

impl From<ExitFile> for WorkloadEnd {
    fn from(exit: ExitFile) -> Self {
        let ExitFile { state, cause, detail, exit_code, signal, at } = exit;
        Self { state, cause, detail, exit_code, signal, at: Some(at) }
    }
}
