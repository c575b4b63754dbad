//! The latest numbers of each node, a bounded window of those of each GPU, and what
//! happened to its GPUs; not journaled, gone with the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use claw_observe::diagnose::series::window::{WINDOW_BYTES, Window};
use claw_proto::ids::{Attempt, GpuUuid, NodeId, WorkloadId};
use claw_proto::limits::GPUS_PER_NODE_MAX;
use claw_proto::message::{GpuEvent, GpuEventKind, GpuMetrics};
use claw_proto::time::Timestamp;
use claw_tools::nodes::MetricsSnapshot;
use claw_tools::workloads::WorkloadUsage;

/// Events that are kept of each GPU, and of each node.
const EVENTS_OF_A_GPU: usize = 16;
const EVENTS_OF_A_NODE: usize = 256;
/// Bytes of an event's words that are kept.
const EVENT_BYTES: usize = 512;
/// Xids whose number and time are kept of each GPU.
const XIDS_OF_A_GPU: usize = 32;

/// GPUs of which a window is kept; of more there is none, and a diagnosis says so.
const WINDOWS_MAX: usize = 16_384;
/// Bytes that the windows of all GPUs take at most.
const WINDOWS_BYTES_MAX: usize = WINDOWS_MAX * WINDOW_BYTES;
/// The window of a GPU that its node does not measure any more goes after so long, milliseconds.
const WINDOW_UNUSED_MS: i64 = 4 * 3_600_000;

const _: () = assert!(WINDOWS_BYTES_MAX <= 256 << 20);

/// A run of a node's machine; none if its agent does not tell it.
pub type Boot = Option<Arc<str>>;

/// What is known of one node.
#[derive(Debug, Default)]
struct Known {
    latest: Option<MetricsSnapshot>,
    /// In the order of the node's last numbers, which mostly is that of the ones before.
    windows: Vec<(GpuUuid, Window)>,
    /// The newest last, with the run of the machine in which it was told: clocks of nodes and of the gateway
    /// differ, and a machine may come back within the difference.
    gpu_events: VecDeque<(GpuEvent, Boot)>,
    /// Numbers of Xids of each GPU, and in which run of the machine, the newest last.
    xids: BTreeMap<GpuUuid, VecDeque<(u32, Boot)>>,
}

/// All nodes.
#[derive(Debug, Default)]
struct Fleet {
    nodes: BTreeMap<NodeId, Known>,
    /// Windows of all of them.
    n_windows: usize,
}

/// Latest metrics per node.
#[derive(Debug, Clone, Default)]
pub struct MetricsDesk(Arc<RwLock<Fleet>>);

impl Known {
    /// Appends the numbers of one GPU to its window; `place` is where it stands among its node's.
    fn append(&mut self, place: usize, at: Timestamp, gpu: &GpuMetrics, n_windows: &mut usize) {
        let is_its = |(uuid, _): &(GpuUuid, Window)| *uuid == gpu.uuid;
        let known = if self.windows.get(place).is_some_and(is_its) {
            Some(place)
        } else {
            self.windows.iter().position(is_its)
        };
        let place = known.unwrap_or(self.windows.len());
        if known.is_none() {
            if self.windows.len() >= GPUS_PER_NODE_MAX || *n_windows >= WINDOWS_MAX {
                return;
            }
            *n_windows += 1;
            self.windows.push((gpu.uuid.clone(), Window::default()));
        }
        if let Some((_, window)) = self.windows.get_mut(place) {
            window.push(at, gpu);
        }
    }

    /// Keeps an event; of one GPU, and of all together, the oldest go.
    fn happened(&mut self, mut event: GpuEvent, boot: &Boot) {
        let cut = (0..=EVENT_BYTES.min(event.detail.len())).rev().find(|end| event.detail.is_char_boundary(*end));
        event.detail.truncate(cut.unwrap_or(0));
        if let (GpuEventKind::Xid, Some(code)) = (event.kind, event.code)
            && (self.xids.len() < GPUS_PER_NODE_MAX || self.xids.contains_key(&event.uuid))
        {
            let seen = self.xids.entry(event.uuid.clone()).or_default();
            if seen.len() >= XIDS_OF_A_GPU {
                seen.pop_front();
            }
            seen.push_back((code, boot.clone()));
        }
        let its = |(known, _): &(GpuEvent, Boot)| known.uuid == event.uuid;
        let crowded = self.gpu_events.iter().filter(|known| its(known)).count() >= EVENTS_OF_A_GPU;
        let oldest = if crowded { self.gpu_events.iter().position(its) } else { None };
        if let Some(oldest) = oldest.or((self.gpu_events.len() >= EVENTS_OF_A_NODE).then_some(0)) {
            self.gpu_events.remove(oldest);
        }
        self.gpu_events.push_back((event, boot.clone()));
    }

    /// Lets windows go whose GPUs are not measured any more.
    fn tidy(&mut self, now: Timestamp, n_windows: &mut usize) {
        let before = self.windows.len();
        let unused = |last: Timestamp| now.ms_since(last) > WINDOW_UNUSED_MS;
        self.windows.retain(|(_, window)| !window.last().is_some_and(unused));
        *n_windows -= before - self.windows.len();
    }
}

impl MetricsDesk {
    /// Replaces a node's numbers, and appends those of its GPUs to their windows.
    pub fn put(&self, node_id: NodeId, snapshot: MetricsSnapshot) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Fleet { nodes, n_windows } = &mut *all;
        let known = nodes.entry(node_id).or_default();
        for (place, gpu) in snapshot.gpus.iter().enumerate() {
            known.append(place, snapshot.at, gpu, n_windows);
        }
        if known.windows.len() > snapshot.gpus.len() {
            known.tidy(snapshot.at, n_windows);
        }
        known.latest = Some(snapshot);
    }
    /// The windows of a node's GPUs.
    pub fn windows(&self, node_id: NodeId) -> Vec<(GpuUuid, Window)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.nodes.get(&node_id).map(|known| known.windows.clone()).unwrap_or_default()
    }
    /// Notes what happened to a node's GPUs, told in this run of its machine.
    pub fn happened(&self, node_id: NodeId, boot: &Boot, events: Vec<GpuEvent>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.nodes.entry(node_id).or_default();
        for event in events {
            known.happened(event, boot);
        }
    }
    /// A node's numbers, if it sent some since the gateway started.
    pub fn get(&self, node_id: NodeId) -> Option<MetricsSnapshot> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).nodes.get(&node_id)?.latest.clone()
    }
    /// Numbers of Xids of a node's GPUs, and in which run of its machine, as far as they are kept.
    pub fn xids(&self, node_id: NodeId) -> Vec<(GpuUuid, u32, Boot)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let xids = all.nodes.get(&node_id).into_iter().flat_map(|known| &known.xids);
        xids.flat_map(|(uuid, seen)| seen.iter().map(|(code, boot)| (uuid.clone(), *code, boot.clone()))).collect()
    }
    /// What happened to a node's GPUs since the gateway started, newest first, and in which run of its machine.
    pub fn gpu_events(&self, node_id: NodeId) -> Vec<(GpuEvent, Boot)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.nodes.get(&node_id).map(|known| known.gpu_events.iter().rev().cloned().collect()).unwrap_or_default()
    }
    /// What an attempt used when its node last measured it.
    pub fn usage(&self, node_id: NodeId, workload_id: WorkloadId, attempt: Attempt) -> Option<WorkloadUsage> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let latest = all.nodes.get(&node_id)?.latest.as_ref()?;
        let its = latest.workloads.iter().find(|m| (m.workload_id, m.attempt) == (workload_id, attempt))?;
        Some(WorkloadUsage { at: latest.at, numbers: its.clone() })
    }
    /// Forgets a node.
    pub fn forget(&self, node_id: NodeId) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let n_gone = all.nodes.remove(&node_id).map_or(0, |known| known.windows.len());
        all.n_windows -= n_gone;
    }
}

#[cfg(test)]
mod tests;
