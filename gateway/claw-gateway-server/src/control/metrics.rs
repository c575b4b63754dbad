//! The latest numbers of each node and what happened to its GPUs; not journaled,
//! gone with the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use claw_proto::ids::{Attempt, NodeId, WorkloadId};
use claw_proto::message::GpuEvent;
use claw_tools::nodes::MetricsSnapshot;
use claw_tools::workloads::WorkloadUsage;

/// Events of GPUs that are kept of each node.
const GPU_EVENTS_KEPT: usize = 20;

/// What is known of one node.
#[derive(Debug, Default)]
struct Known {
    latest: Option<MetricsSnapshot>,
    /// The newest last.
    gpu_events: VecDeque<GpuEvent>,
}

/// Latest metrics per node.
#[derive(Debug, Clone, Default)]
pub struct MetricsDesk(Arc<RwLock<BTreeMap<NodeId, Known>>>);

impl MetricsDesk {
    /// Replaces a node's numbers.
    pub fn put(&self, node_id: NodeId, snapshot: MetricsSnapshot) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(node_id).or_default().latest = Some(snapshot);
    }
    /// Notes what happened to a node's GPUs.
    pub fn happened(&self, node_id: NodeId, events: Vec<GpuEvent>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = &mut all.entry(node_id).or_default().gpu_events;
        known.extend(events);
        let n_over = known.len().saturating_sub(GPU_EVENTS_KEPT);
        known.drain(..n_over);
    }
    /// A node's numbers, if it sent some since the gateway started.
    pub fn get(&self, node_id: NodeId) -> Option<MetricsSnapshot> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&node_id)?.latest.clone()
    }
    /// What happened to a node's GPUs since the gateway started, newest first.
    pub fn gpu_events(&self, node_id: NodeId) -> Vec<GpuEvent> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&node_id).map(|known| known.gpu_events.iter().rev().cloned().collect()).unwrap_or_default()
    }
    /// What an attempt used when its node last measured it.
    pub fn usage(&self, node_id: NodeId, workload_id: WorkloadId, attempt: Attempt) -> Option<WorkloadUsage> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let latest = all.get(&node_id)?.latest.as_ref()?;
        let its = latest.workloads.iter().find(|m| (m.workload_id, m.attempt) == (workload_id, attempt))?;
        Some(WorkloadUsage { at: latest.at, numbers: its.clone() })
    }
    /// Forgets a node.
    pub fn forget(&self, node_id: NodeId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&node_id);
    }
}
