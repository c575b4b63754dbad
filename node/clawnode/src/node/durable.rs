//! What a node must still know after `kill -9`, and the only changes to it.
//!
//! The state is the fold of its [`DurableChange`]s: the node applies a change
//! in memory when it decides it, the shell appends the same change to disk, and
//! a restarted node folds the disk again. The simulator's disk is this fold too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use claw_proto::ids::{Attempt, Generation, WorkloadId};
use claw_proto::message::{DesiredWorkload, NodeWorkloadState, StatusCause, StatusRecord};
use serde::{Deserialize, Serialize};

use super::lease::Lease;

/// Ended attempts that a node remembers, so that none of them is started
/// again. The oldest acknowledged ones go first; what is not acknowledged stays.
pub const ENDED_ATTEMPTS_MAX: usize = 16_384;

/// A decided stop of a live attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopIntent {
    /// Why; the final record carries it.
    pub cause: StatusCause,
    /// Monotonic time at which the attempt is killed if it still runs, milliseconds.
    pub kill_at_ms: u64,
}

/// One attempt that the node accepted and that has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptEntry {
    /// What runs.
    pub workload: Arc<DesiredWorkload>,
    /// State of the latest record; none before the first.
    pub state: Option<NodeWorkloadState>,
    /// The stop that was decided, if any.
    pub stop: Option<StopIntent>,
    /// Monotonic time at which it was first seen running, milliseconds.
    pub running_at_ms: Option<u64>,
    /// The lease that it was started with; later renewals live with the runtime.
    pub lease: Option<Lease>,
}

impl AttemptEntry {
    /// Which attempt.
    pub fn attempt(&self) -> Attempt {
        self.workload.attempt
    }

    /// State to show: an accepted attempt without a record counts as pulling.
    pub fn shown_state(&self) -> NodeWorkloadState {
        self.state.unwrap_or(NodeWorkloadState::Pulling)
    }
}

/// One change of the durable state; the shell appends it to disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DurableChange {
    /// A higher epoch or generation was seen.
    Seen {
        /// Highest gateway epoch.
        epoch: u64,
        /// Highest desired-state generation.
        generation: Generation,
    },
    /// An attempt was accepted; written before it is started.
    Accepted {
        /// What is to run.
        workload: Arc<DesiredWorkload>,
        /// The lease that it starts with.
        lease: Option<Lease>,
    },
    /// A stop was decided.
    StopDecided {
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// What was decided.
        stop: StopIntent,
    },
    /// An accepted attempt never reached its runtime; the node does not have it.
    Abandoned {
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
    },
    /// A status record was made; written before it is sent.
    Recorded {
        /// The record.
        record: StatusRecord,
        /// Monotonic time of the node, milliseconds.
        mono_ms: u64,
    },
    /// The gateway has every record up to this one.
    Acked {
        /// Highest such record.
        through: u64,
    },
}

/// Everything that survives a crash of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DurableState {
    /// Changes when the store is made anew.
    pub store_id: u128,
    /// Highest gateway epoch seen.
    pub epoch: u64,
    /// Highest desired-state generation seen.
    pub generation: Generation,
    /// Number of the latest status record; 0 before the first.
    pub last_record: u64,
    /// Highest record that the gateway acknowledged.
    pub acked: u64,
    /// Records not yet acknowledged, in order.
    pub outbox: VecDeque<StatusRecord>,
    /// Attempts that were accepted and have not ended: one per workload at most.
    pub attempts: BTreeMap<WorkloadId, AttemptEntry>,
    /// Final record of every ended attempt that is remembered.
    pub ended: BTreeMap<WorkloadId, BTreeMap<Attempt, StatusRecord>>,
    /// How many those are.
    n_ended: usize,
}

impl DurableState {
    /// The state of a new store.
    pub fn new(store_id: u128) -> Self {
        Self {
            store_id,
            epoch: 0,
            generation: Generation::default(),
            last_record: 0,
            acked: 0,
            outbox: VecDeque::new(),
            attempts: BTreeMap::new(),
            ended: BTreeMap::new(),
            n_ended: 0,
        }
    }

    /// Counts again what follows from the rest: a number that was read is not believed.
    pub(crate) fn recount(&mut self) {
        self.n_ended = self.ended.values().map(BTreeMap::len).sum();
    }

    /// Applies one change. Total: a change that no longer fits changes nothing.
    pub fn apply(&mut self, change: &DurableChange) {
        match change {
            DurableChange::Seen { epoch, generation } => {
                self.epoch = self.epoch.max(*epoch);
                self.generation = self.generation.max(*generation);
            }
            DurableChange::Accepted { workload, lease } => {
                let entry = AttemptEntry {
                    workload: Arc::clone(workload),
                    state: None,
                    stop: None,
                    running_at_ms: None,
                    lease: *lease,
                };
                self.attempts.insert(workload.workload_id, entry);
            }
            DurableChange::StopDecided { workload_id, attempt, stop } => {
                if let Some(entry) = self.entry_mut(*workload_id, *attempt) {
                    entry.stop = Some(*stop);
                }
            }
            DurableChange::Abandoned { workload_id, attempt } => {
                if self.entry_mut(*workload_id, *attempt).is_some() {
                    self.attempts.remove(workload_id);
                }
            }
            DurableChange::Recorded { record, mono_ms } => self.apply_record(record, *mono_ms),
            DurableChange::Acked { through } => {
                self.acked = self.acked.max((*through).min(self.last_record));
                while self.outbox.front().is_some_and(|record| record.record <= self.acked) {
                    self.outbox.pop_front();
                }
            }
        }
    }

    fn apply_record(&mut self, record: &StatusRecord, mono_ms: u64) {
        self.last_record = self.last_record.max(record.record);
        self.outbox.push_back(record.clone());
        if record.state.is_final() {
            if self.entry_mut(record.workload_id, record.attempt).is_some() {
                self.attempts.remove(&record.workload_id);
            }
            let attempts = self.ended.entry(record.workload_id).or_default();
            if attempts.insert(record.attempt, record.clone()).is_none() {
                self.n_ended += 1;
            }
            self.forget_oldest_ended();
        } else if let Some(entry) = self.entry_mut(record.workload_id, record.attempt) {
            entry.state = Some(record.state);
            if record.state == NodeWorkloadState::Running {
                entry.running_at_ms.get_or_insert(mono_ms);
            }
        }
    }

    /// Drops the oldest quarter of the acknowledged ended attempts once there
    /// are too many, so that the cost is spread over many ends.
    fn forget_oldest_ended(&mut self) {
        if self.n_ended <= ENDED_ATTEMPTS_MAX {
            return;
        }
        let acked = self.acked;
        let records = self.ended.values().flat_map(BTreeMap::values).map(|record| record.record);
        let mut old: Vec<u64> = records.filter(|record| *record <= acked).collect();
        old.sort_unstable();
        if let Some(limit) = old.get(old.len() / 4).copied() {
            self.ended.retain(|_, attempts| {
                attempts.retain(|_, record| record.record > limit);
                !attempts.is_empty()
            });
            self.recount();
        }
    }

    /// How an attempt ended, if that is remembered.
    pub fn ended_record(&self, workload_id: WorkloadId, attempt: Attempt) -> Option<&StatusRecord> {
        self.ended.get(&workload_id).and_then(|attempts| attempts.get(&attempt))
    }

    /// The highest attempt of a workload that ended.
    pub fn highest_ended(&self, workload_id: WorkloadId) -> Option<Attempt> {
        self.ended.get(&workload_id).and_then(|attempts| attempts.keys().next_back().copied())
    }

    fn entry_mut(&mut self, workload_id: WorkloadId, attempt: Attempt) -> Option<&mut AttemptEntry> {
        self.attempts.get_mut(&workload_id).filter(|entry| entry.attempt() == attempt)
    }

    /// The live attempt of a workload, if it is this one.
    pub fn entry(&self, workload_id: WorkloadId, attempt: Attempt) -> Option<&AttemptEntry> {
        self.attempts.get(&workload_id).filter(|entry| entry.attempt() == attempt)
    }
}
