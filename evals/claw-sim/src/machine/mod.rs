//! One machine: its clocks, its disk, the real node in its agent, and the
//! supervisors of its virtual processes, which outlive the agent.

mod agent;
mod checkpoints;
mod clock;
mod supervisor;

use std::collections::{BTreeMap, VecDeque};

use claw_proto::ids::{GpuUuid, NodeId};
use claw_proto::spec::{GpuVendor, RuntimeKind};
use claw_proto::topology::{GpuDriver, GpuInfo, NodeCapabilities};
use clawnode::node::{DurableChange, DurableState};

use crate::execution::Key;
pub(crate) use agent::Agent;
pub(crate) use clock::NodeClock;
pub(crate) use supervisor::Folder;

/// One machine of the fleet.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) ix: usize,
    pub(crate) node_id: NodeId,
    pub(crate) name: String,
    pub(crate) capabilities: NodeCapabilities,
    /// How it executes: real processes (under supervisors), or simulated ones.
    pub(crate) kind: RuntimeKind,
    pub(crate) clock: NodeClock,
    pub(crate) is_up: bool,
    /// Which life of the machine this is.
    pub(crate) boot: u32,
    /// Which life of the agent this is.
    pub(crate) run: u32,
    pub(crate) agent: Option<Agent>,
    disk: DurableState,
    unwritten: VecDeque<(u64, DurableChange)>,
    writing: bool,
    pub(crate) disk_full: bool,
    /// One folder per attempt that reached the runtime.
    pub(crate) folders: BTreeMap<Key, Folder>,
    /// How long an order takes to be performed on this machine at most, milliseconds.
    pub(crate) sluggish_ms: u64,
}

/// What distinguishes a machine when a round begins.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) n_gpus: u32,
    pub(crate) kind: RuntimeKind,
    pub(crate) drift_ppm: i64,
    pub(crate) wall_offset_ms: i64,
    pub(crate) sluggish_ms: u64,
    pub(crate) store_id: u128,
}

impl Machine {
    pub(crate) fn new(ix: usize, node_id: NodeId, name: String, shape: &Shape) -> Self {
        let capabilities = capabilities(&name, shape);
        Self {
            ix,
            node_id,
            name,
            capabilities,
            kind: shape.kind,
            clock: NodeClock::new(shape.drift_ppm, shape.wall_offset_ms),
            is_up: false,
            boot: 0,
            run: 0,
            agent: None,
            disk: DurableState::new(shape.store_id),
            unwritten: VecDeque::new(),
            writing: false,
            disk_full: false,
            folders: BTreeMap::new(),
            sluggish_ms: shape.sluggish_ms,
        }
    }

    /// The node's own view of what it has, runs and owes, for a failing round's trace.
    pub(crate) fn describe(&self) -> String {
        let attempts: Vec<String> = self
            .disk
            .attempts
            .iter()
            .map(|(id, entry)| {
                format!("{} attempt {} {}", crate::execution::short(id), entry.attempt().0, entry.shown_state())
            })
            .collect();
        format!(
            "m{} up={} agent={} outbox={} attempts=[{}]",
            self.ix,
            self.is_up,
            self.agent.is_some(),
            self.disk.outbox.len(),
            attempts.join(", ")
        )
    }

    /// Every record has reached the gateway.
    pub(crate) fn is_quiet(&self) -> bool {
        self.disk.outbox.is_empty() && self.unwritten.is_empty()
    }
}

fn capabilities(name: &str, shape: &Shape) -> NodeCapabilities {
    let gpu = |index: u32| GpuInfo {
        nvlink_island: Some(index / 4),
        numa_node: Some(index / 4),
        ..GpuInfo::new(GpuUuid(format!("GPU-{name}-{index}")), index, GpuVendor::Nvidia, "H100", 81_559)
    };
    NodeCapabilities {
        hostname: name.into(),
        os: "Debian 13".into(),
        arch: "x86_64".into(),
        agent_version: "0.1.0".into(),
        cpu_millis: 32_000,
        memory_mib: 256 * 1024,
        disk_mib: 1024 * 1024,
        gpu_driver: GpuDriver::Sim,
        gpus: (0..shape.n_gpus).map(gpu).collect(),
        runtimes: vec![shape.kind],
        simulated: shape.kind == RuntimeKind::Sim,
        labels: BTreeMap::new(),
        findings: Vec::new(),
        engine: None,
        nics: Vec::new(),
        boot_id: None,
    }
}
