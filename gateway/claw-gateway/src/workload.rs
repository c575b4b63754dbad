//! The workloads of the fleet: [`WorkloadManager`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::{Attempt, GpuUuid, NodeId, OperationId, WorkloadId};
use claw_proto::spec::RuntimeKind;
use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;
use claw_tools::workloads::{PlacementReport, WorkloadReason, WorkloadState};
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

/// How many tries a workload remembers.
pub const ATTEMPTS_KEPT: usize = 10;

/// One try.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptEntry {
    /// Number.
    pub attempt: Attempt,
    /// Where.
    pub node_id: NodeId,
    /// With which GPUs.
    pub gpus: Vec<GpuUuid>,
    /// With which runtime.
    pub runtime: RuntimeKind,
    /// State it reached.
    pub state: WorkloadState,
    /// Why.
    pub reason: WorkloadReason,
    /// Detail from the node.
    pub detail: String,
    /// When it ran, node's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// It holds its place: not ended.
    pub live: bool,
    /// Nothing really runs.
    pub simulated: bool,
}

/// What is wanted of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Be run.
    Run,
    /// Leave its node and be run again.
    Move,
    /// End.
    Stop,
}

/// One workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadEntry {
    /// Id.
    pub workload_id: WorkloadId,
    /// Name.
    pub name: String,
    /// What to run.
    pub spec: Arc<ValidSpec>,
    /// Handle of the environment values.
    pub env_handle: Option<String>,
    /// Who submitted it.
    pub submitted_by: String,
    /// When.
    pub submitted_at: Timestamp,
    /// Order of submission.
    pub order: u64,
    /// By which operation.
    pub operation_id: Option<OperationId>,
    /// State.
    pub state: WorkloadState,
    /// Why.
    pub reason: WorkloadReason,
    /// Since when.
    pub since: Timestamp,
    /// What is wanted.
    pub desired: Desired,
    /// Grace of a stop under way, seconds.
    pub stop_grace_s: u32,
    /// Tries, oldest first.
    pub attempts: Vec<AttemptEntry>,
    /// Restarts that count against the limit.
    pub restarts: u32,
    /// Not placed before.
    pub not_before: Option<Timestamp>,
    /// The last decision about its place.
    pub report: Option<Arc<PlacementReport>>,
    /// Revision of its last change.
    pub revision: u64,
}

impl WorkloadEntry {
    /// The number of the latest attempt, 0 before the first.
    pub fn attempt(&self) -> Attempt {
        self.attempts.last().map_or(Attempt(0), |a| a.attempt)
    }
    /// The attempt that holds a place now.
    pub fn live(&self) -> Option<&AttemptEntry> {
        self.attempts.last().filter(|a| a.live)
    }
    /// Nothing really runs, as far as is known.
    pub fn simulated(&self) -> bool {
        self.attempts.last().is_some_and(|a| a.simulated || a.runtime == RuntimeKind::Sim)
    }
    /// It ran once.
    pub fn ever_ran(&self) -> bool {
        self.attempts.iter().any(|a| a.started_at.is_some())
    }
    fn queue_key(&self) -> QueueKey {
        (Reverse(self.spec.priority().value()), self.order, self.workload_id)
    }
}

/// Order in the queue: higher priority first, then first come.
type QueueKey = (Reverse<u32>, u64, WorkloadId);

/// All workloads, with the queue and the GPU ledger as indexes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkloadManager {
    workloads: OrdMap<WorkloadId, Arc<WorkloadEntry>>,
    /// Waiting, in order.
    queue: OrdSet<QueueKey>,
    /// The ledger: who holds a GPU. Keys that own memory are shared, here and in
    /// `names`: a change copies a leaf of the tree with all its keys.
    held: OrdMap<Arc<GpuUuid>, WorkloadId>,
    /// Names of those that have not ended.
    names: OrdMap<Arc<str>, WorkloadId>,
    /// Ended ones, in order of their end.
    ended: OrdSet<(Timestamp, WorkloadId)>,
    /// How many per state.
    counts: BTreeMap<WorkloadState, u32>,
    /// Submissions so far.
    submitted: u64,
}

impl WorkloadManager {
    /// The workload with this id.
    pub fn get(&self, id: WorkloadId) -> Option<&Arc<WorkloadEntry>> {
        self.workloads.get(&id)
    }
    /// All, by id (which is by time of submission).
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<WorkloadEntry>> {
        self.workloads.values()
    }
    /// How many are known.
    pub fn len(&self) -> usize {
        self.workloads.len()
    }
    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.workloads.is_empty()
    }
    /// The one of this name that has not ended.
    pub fn by_name(&self, name: &str) -> Option<&Arc<WorkloadEntry>> {
        self.names.get(name).and_then(|id| self.workloads.get(id))
    }
    /// Waiting ones, in the order in which they are tried.
    pub fn queue(&self) -> impl Iterator<Item = WorkloadId> + '_ {
        self.queue.iter().map(|(_, _, id)| *id)
    }
    /// How many wait.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }
    /// Who holds a GPU.
    pub fn holder(&self, gpu: &GpuUuid) -> Option<WorkloadId> {
        self.held.get(gpu).copied()
    }
    /// All held GPUs.
    pub fn held(&self) -> impl Iterator<Item = (&GpuUuid, &WorkloadId)> {
        self.held.iter().map(|(gpu, id)| (&**gpu, id))
    }
    /// How many are in a state.
    pub fn count(&self, state: WorkloadState) -> u32 {
        self.counts.get(&state).copied().unwrap_or(0)
    }
    /// Ended ones beyond the newest `keep`, oldest first.
    pub fn ended_beyond(&self, keep: usize) -> Vec<WorkloadId> {
        let excess = self.ended.len().saturating_sub(keep);
        self.ended.iter().take(excess).map(|(_, id)| *id).collect()
    }
    /// Submissions so far.
    pub const fn submitted(&self) -> u64 {
        self.submitted
    }
    /// The map itself, for differences between two states.
    pub(crate) fn map(&self) -> &OrdMap<WorkloadId, Arc<WorkloadEntry>> {
        &self.workloads
    }
    /// Continues the count of submissions (when a snapshot is read).
    pub(crate) fn restore_submitted(&mut self, submitted: u64) {
        self.submitted = self.submitted.max(submitted);
    }

    /// Adds one and keeps the indexes.
    pub(crate) fn insert(&mut self, entry: WorkloadEntry) {
        self.submitted = self.submitted.max(entry.order + 1);
        let entry = Arc::new(entry);
        self.index(&entry);
        self.workloads.insert(entry.workload_id, entry);
    }
    /// Changes one and keeps the indexes.
    pub(crate) fn update(&mut self, id: WorkloadId, change: impl FnOnce(&mut WorkloadEntry)) {
        let Some(old) = self.workloads.get(&id).cloned() else {
            return;
        };
        self.unindex(&old);
        let mut new = (*old).clone();
        change(&mut new);
        let new = Arc::new(new);
        self.index(&new);
        self.workloads.insert(id, new);
    }
    /// Forgets one (its events stay in the journal).
    pub(crate) fn forget(&mut self, id: WorkloadId) {
        if let Some(old) = self.workloads.remove(&id) {
            self.unindex(&old);
        }
    }

    fn index(&mut self, entry: &WorkloadEntry) {
        *self.counts.entry(entry.state).or_insert(0) += 1;
        if entry.state == WorkloadState::Pending {
            self.queue.insert(entry.queue_key());
        }
        if entry.state.is_final() {
            self.ended.insert((entry.since, entry.workload_id));
        } else {
            self.names.insert(Arc::from(entry.name.as_str()), entry.workload_id);
        }
        for gpu in entry.live().map_or(&[][..], |a| &a.gpus) {
            self.held.insert(Arc::new(gpu.clone()), entry.workload_id);
        }
    }

    fn unindex(&mut self, entry: &WorkloadEntry) {
        if let Some(count) = self.counts.get_mut(&entry.state) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&entry.state);
            }
        }
        self.queue.remove(&entry.queue_key());
        self.ended.remove(&(entry.since, entry.workload_id));
        if self.names.get(entry.name.as_str()) == Some(&entry.workload_id) {
            self.names.remove(entry.name.as_str());
        }
        for gpu in entry.live().map_or(&[][..], |a| &a.gpus) {
            if self.held.get(gpu) == Some(&entry.workload_id) {
                self.held.remove(gpu);
            }
        }
    }
}
