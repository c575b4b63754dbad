//! Host processes, without isolation, each under a supervisor of its own.
//!
//! The agent prepares a [`super::folder`], starts `clawnode shim` on it and then only
//! watches: the supervisor (see [`shim`]) keeps log, lease, stops and exit
//! status even while the agent is dead. A restarted agent finds the folders
//! again. Whether a supervisor lives is told by its lock, never by a pid alone.

pub(super) mod attach;
mod cgroup;
pub(super) mod enforcer;
mod output;
pub(super) mod proc_table;
pub mod shim;
pub(super) mod supervision;
mod user;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use claw_proto::ids::GpuUuid;
use claw_proto::message::{DesiredWorkload, StatusCause};
use claw_proto::spec::RuntimeKind;
use claw_proto::topology::NodeCapabilities;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::folder::{Folder, StopFile};
use super::ports::MeetingPorts;
use super::{Key, Runtime};
use crate::clock;
use crate::node::{FoundWorkload, Lease, RuntimeEvent};

/// What the process runtime needs to know.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Node's name, for the execution log.
    pub node: String,
    /// Folder with one folder per attempt.
    pub workloads: PathBuf,
    /// The execution log.
    pub execution_log: PathBuf,
    /// The program that understands `shim --dir …` (this binary).
    pub shim_program: PathBuf,
    /// User of a workload that names none; the agent's own if absent.
    pub default_user: Option<String>,
    /// Whether to try control groups.
    pub cgroups: bool,
    /// Most processes of a workload, with control groups.
    pub pids_max: u32,
    /// Whether who has a share of a GPU is held to its memory where it can be.
    pub limits_shares: bool,
    /// Log bytes that one stream of a new attempt may hold.
    pub log_bytes_max: u64,
    /// What the node has, for ranks.
    pub capabilities: Option<Arc<NodeCapabilities>>,
}

/// The latest orders for one attempt; the newest value replaces the older one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) stop: Option<StopFile>,
    pub(super) lease: Option<Lease>,
}

impl Orders {
    /// A request to stop; a repetition may only end it earlier.
    pub(super) fn stop(&mut self, kill_at_ms: u64, cause: StatusCause) {
        let stop = self.stop.get_or_insert(StopFile { kill_at_ms, cause });
        stop.kill_at_ms = stop.kill_at_ms.min(kill_at_ms);
    }
}

/// Runs host processes.
#[derive(Debug)]
pub struct ProcessRuntime {
    options: ProcessOptions,
    events: mpsc::Sender<RuntimeEvent>,
    attempts: BTreeMap<Key, watch::Sender<Orders>>,
    ports: Arc<MeetingPorts>,
    tasks: JoinSet<()>,
}

impl ProcessRuntime {
    /// A runtime that tells what happens through `events`. Must live inside a
    /// tokio runtime. Dropping it leaves the processes running.
    ///
    /// # Errors
    /// If the folder for the attempts cannot be created.
    pub fn new(options: ProcessOptions, events: mpsc::Sender<RuntimeEvent>) -> io::Result<Self> {
        // Workloads of other users pass through to their own working folder.
        crate::files::create_passable(&options.workloads)?;
        let ports = Arc::new(MeetingPorts::of_processes());
        Ok(Self { options, events, attempts: BTreeMap::new(), ports, tasks: JoinSet::new() })
    }

    /// The folder of an attempt.
    pub fn folder(&self, key: Key) -> Folder {
        Folder::of(&self.options.workloads, key)
    }

    /// Waits until no supervisor is watched any more (tests).
    pub async fn idle(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    fn order(&mut self, key: Key, change: impl FnOnce(&mut Orders)) {
        if let Some(orders) = self.attempts.get(&key) {
            orders.send_modify(change);
        }
    }
}

impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn recover(&mut self, known: &[Arc<DesiredWorkload>]) -> Vec<FoundWorkload> {
        let (found, live) = attach::recover(&self.options, known);
        for attached in live {
            let (orders, receiver) = watch::channel(Orders::default());
            self.attempts.insert(attached.key(), orders);
            self.ports.recover(attached.key(), &attached.folder);
            self.tasks.spawn(supervision::watch_attached(attached, receiver, self.events.clone()));
        }
        found
    }

    fn start(&mut self, workload: Arc<DesiredWorkload>, lease: Option<Lease>) {
        while self.tasks.try_join_next().is_some() {}
        let key = (workload.workload_id, workload.attempt);
        let (orders, receiver) = watch::channel(Orders { stop: None, lease });
        self.attempts.insert(key, orders);
        let (options, ports) = (self.options.clone(), Arc::clone(&self.ports));
        self.tasks.spawn(supervision::start_and_watch(options, ports, workload, receiver, self.events.clone()));
    }

    fn stop(&mut self, key: Key, grace_ms: u64, cause: StatusCause) {
        let kill_at_ms = clock::boot_ms().saturating_add(grace_ms);
        self.order(key, |orders| orders.stop(kill_at_ms, cause));
    }

    fn renew_lease(&mut self, key: Key, lease: Lease) {
        self.order(key, |orders| orders.lease = Some(lease));
    }

    fn gpu_failed(&mut self, _gpu: &GpuUuid) {}

    fn remove(&mut self, key: Key) {
        self.attempts.remove(&key);
        self.ports.take_back(key);
        self.folder(key).remove_or_warn();
    }

    fn set_capabilities(&mut self, capabilities: &NodeCapabilities) {
        self.options.capabilities = Some(Arc::new(capabilities.clone()));
    }

    fn set_log_bytes_max(&mut self, bytes_max: u64) {
        self.options.log_bytes_max = bytes_max;
    }
}
