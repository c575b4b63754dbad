//! Applying events about workloads.

use std::sync::Arc;

use claw_proto::ids::WorkloadId;
use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use crate::Cluster;
use crate::event::{Event, EventRecord};
use crate::preemption::DAY_MS;
use crate::scheduler::Likely;
use crate::tenancy::{Books, part_amounts};
use crate::workload::{ATTEMPTS_KEPT, AttemptEntry, Checkpoint, Desired, Notice, WorkloadEntry};

impl Cluster {
    /// Events about workloads.
    pub(super) fn apply_workload(&mut self, record: &EventRecord) {
        let at = record.at;
        match &record.event {
            Event::WorkloadSubmitted { .. } => self.submit(record),
            Event::WorkloadWaits { workload_id, why, report } => self.touch(*workload_id, |w| {
                w.reason = *why;
                w.report.clone_from(report);
            }),
            Event::WorkloadPlaced { workload_id, attempt, node_id, gpus, runtime, part, report } => {
                let placed = AttemptEntry {
                    attempt: *attempt,
                    node_id: *node_id,
                    gpus: gpus.clone(),
                    runtime: *runtime,
                    state: WorkloadState::Placed,
                    reason: WorkloadReason::Scheduled,
                    detail: String::new(),
                    started_at: None,
                    ended_at: None,
                    exit_code: None,
                    signal: None,
                    live: true,
                    // A real process on simulated GPUs is not a real run either.
                    simulated: *runtime == claw_proto::spec::RuntimeKind::Sim
                        || (!gpus.is_empty() && self.nodes.get(*node_id).is_some_and(|n| n.simulated())),
                    part: *part,
                };
                self.place(*workload_id, placed, report, at);
            }
            Event::WorkloadProgressed { .. } => self.progress(record),
            Event::WorkloadStopping { .. } => self.stopping(record),
            Event::CheckpointWritten { .. } | Event::NoticeEnded { .. } => self.checkpoint(record),
            Event::RoomClaimed { workload_id, claim, .. } => self.touch(*workload_id, |w| {
                w.reason = match claim {
                    Some(claim) if claim.victims.is_empty() => WorkloadReason::Reserved,
                    Some(_) => WorkloadReason::MakingRoom,
                    None => WorkloadReason::NoRoom,
                };
                w.claim.clone_from(claim);
            }),
            Event::WorkloadGated { workload_id, gates } => self.touch(*workload_id, |w| gate(w, gates, at)),
            Event::AttemptEnded { workload_id, .. } => self.end_attempt(*workload_id, record),
            Event::WorkloadRequeued { workload_id, why, not_before, counts } => self.touch(*workload_id, |w| {
                enter(w, WorkloadState::Pending, *why, at);
                w.desired = Desired::Run;
                w.not_before = *not_before;
                w.report = None;
                w.restarts += u32::from(*counts);
            }),
            Event::WorkloadEnded { workload_id, state, why } => {
                self.touch(*workload_id, |w| {
                    enter(w, *state, *why, at);
                    w.claim = None;
                });
            }
            Event::WorkloadAdopted { workload_id, .. } => {
                self.touch(*workload_id, |w| w.reason = WorkloadReason::Adopted);
            }
            _ => {}
        }
    }

    fn stopping(&mut self, record: &EventRecord) {
        let Event::WorkloadStopping { workload_id, why, grace_s, requeue, regroup, notice } = &record.event else {
            return;
        };
        self.touch(*workload_id, |w| {
            enter(w, WorkloadState::Stopping, *why, record.at);
            w.desired = match (*requeue, *regroup) {
                (_, true) => Desired::Regroup,
                (true, false) => Desired::Move,
                (false, false) => Desired::Stop,
            };
            w.stop_grace_s = *grace_s;
            w.notice = notice.then(|| Notice { until: record.at.plus_ms(i64::from(*grace_s) * 1_000) });
            if matches!(why, WorkloadReason::Preempted | WorkloadReason::Defragmented) {
                w.preempted_at.retain(|earlier| record.at.ms_since(*earlier) < DAY_MS);
                w.preempted_at.push(record.at);
            }
        });
        self.bump_nodes_of(*workload_id);
    }

    /// Its program wrote a checkpoint, or is not waited for any more.
    fn checkpoint(&mut self, record: &EventRecord) {
        match &record.event {
            Event::CheckpointWritten { workload_id, attempt, label, node_at, took_ms, .. } => {
                let (attempt, label, at) = (*attempt, label.clone(), *node_at);
                self.touch(*workload_id, |w| {
                    let took_ms = took_ms.or(w.checkpoint.as_ref().and_then(|earlier| earlier.took_ms));
                    w.checkpoint = Some(Arc::new(Checkpoint { attempt, label, at, took_ms }));
                });
            }
            Event::NoticeEnded { workload_id, grace_s, .. } => {
                self.touch(*workload_id, |w| {
                    w.notice = None;
                    w.stop_grace_s = *grace_s;
                });
                self.bump_nodes_of(*workload_id);
            }
            _ => {}
        }
    }

    /// A part has come further; the workload is as far as its slowest part.
    fn progress(&mut self, record: &EventRecord) {
        let Event::WorkloadProgressed { workload_id, attempt, state, detail, node_at, simulated } = &record.event
        else {
            return;
        };
        self.touch(*workload_id, |w| {
            if let Some(a) = w.attempts.iter_mut().rev().find(|a| a.attempt == *attempt) {
                a.state = *state;
                a.detail.clone_from(detail);
                a.simulated |= *simulated;
                if *state == WorkloadState::Running && a.started_at.is_none() {
                    a.started_at = Some(*node_at);
                }
            }
            let slowest = w.lives().map(|a| a.state).min().unwrap_or(*state);
            if w.state != WorkloadState::Stopping {
                enter(w, slowest, WorkloadReason::Progress, record.at);
            }
        });
    }

    fn submit(&mut self, record: &EventRecord) {
        let Event::WorkloadSubmitted { workload_id, name, spec, env_handle } = &record.event else {
            return;
        };
        let entry = WorkloadEntry {
            workload_id: *workload_id,
            name: name.clone(),
            spec: Arc::clone(spec),
            env_handle: env_handle.clone(),
            submitted_by: record.principal.clone(),
            submitted_at: record.at,
            order: self.workloads.submitted(),
            operation_id: record.operation_id,
            state: WorkloadState::Pending,
            reason: WorkloadReason::Submitted,
            since: record.at,
            desired: Desired::Run,
            stop_grace_s: spec.grace_s(),
            attempts: Vec::new(),
            restarts: 0,
            not_before: spec.spec().not_before,
            gates: spec.spec().gates.clone(),
            report: None,
            preempted_at: Vec::new(),
            checkpoint: None,
            notice: None,
            claim: None,
            revision: self.revision,
        };
        self.workloads.insert(entry);
        if self.likely.is_due(self) {
            self.likely = Arc::new(Likely::learn(self));
        }
    }

    fn place(
        &mut self,
        id: WorkloadId,
        placed: AttemptEntry,
        report: &Arc<claw_tools::workloads::PlacementReport>,
        at: Timestamp,
    ) {
        let Some(spec) = self.workloads.get(id).map(|w| Arc::clone(&w.spec)) else {
            return;
        };
        let node_id = placed.node_id;
        let n_gpus = self.workloads.n_alone(id, node_id, &placed.gpus);
        self.touch(id, |w| {
            enter(w, WorkloadState::Placed, WorkloadReason::Scheduled, at);
            w.claim = None;
            w.report = Some(Arc::clone(report));
            // Most workloads are placed once.
            w.attempts.reserve_exact(1);
            w.attempts.push(placed);
            let n_old = w.attempts.len() - w.latest().len();
            w.attempts.drain(..n_old.min(w.attempts.len().saturating_sub(ATTEMPTS_KEPT)));
        });
        self.touch_node(node_id, |n| {
            n.usage.take(id, spec.node_demand(), n_gpus);
            n.generation_n += 1;
        });
        self.account(&spec, &|books| books.take(part_amounts(&spec), at));
    }

    fn end_attempt(&mut self, id: WorkloadId, record: &EventRecord) {
        let Event::AttemptEnded { attempt, state, why, detail, exit_code, signal, node_at, .. } = &record.event else {
            return;
        };
        let Some(entry) = self.workloads.get(id).cloned() else {
            return;
        };
        // Without a live attempt it is how one that was given up really ended.
        let Some(ended) = entry.latest().iter().find(|a| a.attempt == *attempt) else {
            return;
        };
        let n_gpus = self.workloads.n_alone(id, ended.node_id, &ended.gpus);
        self.touch(id, |w| {
            if let Some(a) = w.attempts.iter_mut().rev().find(|a| a.attempt == *attempt) {
                a.live = false;
                a.state = *state;
                a.reason = *why;
                a.detail.clone_from(detail);
                a.exit_code = *exit_code;
                a.signal = *signal;
                a.ended_at = Some(node_at.unwrap_or(record.at));
            }
            if w.live().is_none() {
                w.notice = None;
            }
        });
        if !ended.live {
            return;
        }
        self.touch_node(ended.node_id, |n| {
            n.usage.give_back(id, entry.spec.node_demand(), n_gpus);
            n.generation_n += 1;
        });
        self.account(&entry.spec, &|books| books.give(part_amounts(&entry.spec), record.at));
    }

    /// The tenant of a workload holds more, or less.
    fn account(&mut self, spec: &ValidSpec, change: &dyn Fn(&mut Books)) {
        self.tenants.change(spec.spec().tenant.as_deref(), change, self.policy.half_life_s());
    }
}

/// These gates are closed now.
fn gate(w: &mut WorkloadEntry, gates: &Vec<String>, at: Timestamp) {
    let opens = !w.gates.is_empty() && gates.is_empty();
    w.gates.clone_from(gates);
    if w.state != WorkloadState::Pending {
        return;
    }
    if opens {
        // For room it waits from now on.
        w.since = at;
    }
    if !w.gates.is_empty() {
        // What is kept for it would be kept in vain.
        (w.reason, w.report, w.claim) = (WorkloadReason::Gated, None, None);
    }
}

fn enter(w: &mut WorkloadEntry, state: WorkloadState, reason: WorkloadReason, at: Timestamp) {
    if w.state != state {
        w.since = at;
    }
    w.state = state;
    w.reason = reason;
}
