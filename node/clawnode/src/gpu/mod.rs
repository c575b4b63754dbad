//! The GPUs of a node, behind one interface.
//!
//! A [`GpuDriver`] lists GPUs, measures them and tells what happened to them.
//! The [`GpuDetector`] runs several drivers, each on a thread of its own: one
//! that hangs or panics is a finding, never a node that stands still. What needs a
//! vendor's library loads it into another process: one that crashes is a finding,
//! too. Two drivers that see one GPU are joined by its PCI address. `sim` and `none`
//! are ordinary drivers chosen by config; what a simulated driver reports says so.

mod child;
pub mod detector;
pub mod leash;
pub mod loose;
pub mod merge;
pub mod metal;
pub mod models;
pub mod none;
#[cfg(not(target_os = "macos"))]
pub mod nvml;
pub mod owner;
pub mod program;
pub mod rocm;
pub mod select;
pub mod sim;
#[cfg(test)]
mod tests;
pub mod topology;
pub mod vulkan;
pub mod worker;
pub mod xid;

use std::collections::BTreeSet;
use std::sync::Arc;

use claw_proto::ids::{GpuUuid, WorkloadId};
use claw_proto::message::{GpuEvent, GpuMetrics};
use claw_proto::topology::{GpuDriver as GpuDriverKind, GpuInfo, NodeFinding};

pub use detector::{Fleet, GpuDetector};
pub use select::{GpuConfigError, GpuOptions};

/// What a driver sees now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Its GPUs, with their health. `index` is the driver's own; the detector numbers anew.
    pub gpus: Vec<GpuInfo>,
    /// What stands in the way of seeing or using them.
    pub findings: Vec<NodeFinding>,
}

/// Says which workload a process of this host belongs to.
pub type OwnerOf = Arc<dyn Fn(u32) -> Option<WorkloadId> + Send + Sync>;

/// What a measurement needs to know about the node.
#[derive(Clone)]
pub struct Sampling {
    /// Since the start of the agent, milliseconds.
    pub uptime_ms: u64,
    /// GPUs that a workload holds.
    pub held: Arc<BTreeSet<GpuUuid>>,
    /// Which workload a process belongs to.
    pub owner_of: OwnerOf,
}

impl std::fmt::Debug for Sampling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampling").field("uptime_ms", &self.uptime_ms).field("held", &self.held).finish_non_exhaustive()
    }
}

impl Sampling {
    /// A measurement for which no process is known.
    pub fn new(uptime_ms: u64, held: BTreeSet<GpuUuid>) -> Self {
        Self { uptime_ms, held: Arc::new(held), owner_of: Arc::new(|_| None) }
    }
}

/// One way to see GPUs. It lives on a thread of its own, is made there, and may
/// block: the detector waits for no driver longer than its deadline.
pub trait GpuDriver {
    /// Which driver it is.
    fn kind(&self) -> GpuDriverKind;

    /// The GPUs that are there now. `uptime_ms` counts from the start of the agent.
    /// What cannot be seen is a finding; a GPU that was seen before and is gone
    /// may be left out: the detector remembers it.
    fn detect(&mut self, uptime_ms: u64) -> Seen;

    /// Measures every GPU that answers.
    fn measure(&mut self, sampling: &Sampling) -> Vec<GpuMetrics>;

    /// What happened to the GPUs since the last call; asked after each detection.
    fn events(&mut self) -> Vec<GpuEvent> {
        Vec::new()
    }

    /// Why it cannot answer any more, and has to be made anew; asked after each
    /// detection and measurement, whose answer does not count then.
    fn over(&self) -> Option<String> {
        None
    }
}
