//! What the gateway wants: sets, starts, stops, and the deadlines of what runs.

use std::sync::Arc;

use claw_proto::ids::{Attempt, Generation, WorkloadId};
use claw_proto::limits::{STATUS_OUTBOX_RECORDS_MAX, WORKLOADS_PER_NODE_MAX};
use claw_proto::message::{DesiredWorkload, NodeErrorCode, NodeMessage, NodeWorkloadState, StatusCause, StopOrder};
use claw_proto::spec::RuntimeKind;
use claw_proto::topology::GpuHealth;
use claw_proto::validation::{GPU_MILLI, share_milli};

use super::io::{Action, WorkloadEnd};
use super::lease::Lease;
use super::{AttemptEntry, DurableChange, Live, Node, StopIntent, Wanted, never_started};

/// The end of an attempt that never began, because a newer one had.
fn superseded() -> WorkloadEnd {
    WorkloadEnd::of(NodeWorkloadState::Stopped, StatusCause::Superseded, "a newer attempt was started on this node")
}

impl Node {
    pub(super) fn desired_set(
        &mut self,
        generation: Generation,
        workloads: Vec<DesiredWorkload>,
        stop: Vec<StopOrder>,
    ) {
        if generation < self.durable.generation {
            self.refuse_stale(generation);
            return;
        }
        self.see(self.durable.epoch, generation);
        // The set is complete: an attempt that waits and is not in it is not wanted any more.
        self.waiting.retain(|id, next| workloads.iter().any(|w| w.workload_id == *id && w.attempt == next.attempt()));
        for order in stop {
            self.stop_order(&order);
        }
        for workload in workloads {
            self.want(workload);
        }
    }

    /// A start within an epoch is one numbered change: one that is not newer
    /// than what was seen is a repetition if its attempt is known, else it came
    /// too late and the gateway is told so that it sends the full set.
    pub(super) fn start_workload(&mut self, generation: Generation, workload: DesiredWorkload) {
        if generation < self.durable.generation {
            if !self.has_or_had(workload.workload_id, workload.attempt) {
                self.refuse_stale(generation);
            }
            return;
        }
        self.see(self.durable.epoch, generation);
        self.want(workload);
    }

    pub(super) fn stop_workload(&mut self, generation: Generation, order: StopOrder) {
        if generation < self.durable.generation {
            let (id, attempt) = (order.workload_id, order.attempt);
            // A repetition if its stop or its end is known; else, even of an attempt
            // that never came here, the gateway waits for an answer.
            let is_over = self.durable.ended_record(id, attempt).is_some();
            if self.durable.entry(id, attempt).map_or(!is_over, |entry| entry.stop.is_none()) {
                self.refuse_stale(generation);
            }
            return;
        }
        self.see(self.durable.epoch, generation);
        self.stop_order(&order);
    }

    fn refuse_stale(&mut self, generation: Generation) {
        let message = format!("generation {generation} is older than {}, which this node saw", self.durable.generation);
        self.error(NodeErrorCode::StaleGeneration, message);
    }

    pub(super) fn refuse_for_storage(&mut self, detail: &str) {
        let is_storage_error = |action: &Action| matches!(action, Action::Send(envelope) if matches!(envelope.body, NodeMessage::Error { code: NodeErrorCode::StorageUnavailable, .. }));
        // One set may ask for many workloads; one answer says it for all.
        if !self.out.iter().any(is_storage_error) {
            let message = format!("no new workload is accepted until the record store can be written: {detail}");
            self.error(NodeErrorCode::StorageUnavailable, message);
        }
    }

    fn has_or_had(&self, id: WorkloadId, attempt: Attempt) -> bool {
        let live = self.durable.attempts.get(&id).map(AttemptEntry::attempt);
        let waiting = self.waiting.get(&id).map(Wanted::attempt);
        self.durable.highest_ended(id).max(live).max(waiting) >= Some(attempt)
    }

    /// Brings one wanted attempt closer.
    fn want(&mut self, workload: DesiredWorkload) {
        let (id, attempt) = (workload.workload_id, workload.attempt);
        let live = self.durable.attempts.get(&id).map(AttemptEntry::attempt);
        if live == Some(attempt) {
            return;
        }
        if self.durable.ended_record(id, attempt).is_some() {
            self.report_end_again(id, attempt);
            return;
        }
        if self.durable.highest_ended(id).max(live) > Some(attempt) {
            self.record(id, attempt, superseded(), workload.runtime == RuntimeKind::Sim);
            return;
        }
        let base_ms = self.session.register_sent_ms;
        let wanted = Wanted { workload: Arc::new(workload), base_ms };
        let newer = self.waiting.get(&id).is_none_or(|next| next.attempt() <= attempt);
        if self.cannot_record() {
            // It begins when records can be kept again; nobody asks a second time.
            if newer {
                self.waiting.insert(id, wanted);
            }
            self.refuse_for_storage("the status records of this workload could not be kept");
            return;
        }
        match live {
            Some(older) => {
                if newer {
                    self.waiting.insert(id, wanted);
                    self.supersede(id, older);
                }
            }
            None => self.begin(wanted),
        }
    }

    fn supersede(&mut self, id: WorkloadId, older: Attempt) {
        let grace_ms = self.durable.entry(id, older).map_or(0, |entry| u64::from(entry.workload.grace_s) * 1_000);
        self.stop(id, older, grace_ms, StatusCause::Superseded);
    }

    /// Records of a new attempt could not be kept.
    pub(super) fn cannot_record(&self) -> bool {
        self.writes.failed || self.durable.outbox.len() >= STATUS_OUTBOX_RECORDS_MAX
    }

    /// Records can be kept again: what waited for that begins, or at least ends
    /// the older attempt that it waits for.
    pub(super) fn begin_waiting(&mut self) {
        if self.waiting.is_empty() || self.cannot_record() {
            return;
        }
        let ids: Vec<WorkloadId> = self.waiting.keys().copied().collect();
        for id in ids {
            match self.durable.attempts.get(&id).map(AttemptEntry::attempt) {
                Some(older) => self.supersede(id, older),
                None => {
                    if let Some(next) = self.waiting.remove(&id) {
                        self.begin(next);
                    }
                }
            }
        }
    }

    /// Accepts an attempt: it is written down, and started once that is on disk.
    pub(super) fn begin(&mut self, wanted: Wanted) {
        let Wanted { workload, base_ms } = wanted;
        let (id, attempt) = (workload.workload_id, workload.attempt);
        if self.durable.highest_ended(id) >= Some(attempt) {
            // While it waited, it or a newer attempt was told to be over.
            if self.durable.ended_record(id, attempt).is_none() {
                self.record(id, attempt, superseded(), workload.runtime == RuntimeKind::Sim);
            }
            return;
        }
        if let Some(end) = self.cannot_run(&workload) {
            self.record(id, attempt, end, workload.runtime == RuntimeKind::Sim);
            return;
        }
        let base_ms = self.lease_base_ms.unwrap_or(0).max(base_ms);
        let lease = Lease::of(&workload, base_ms);
        let write = self.commit(DurableChange::Accepted { workload, lease });
        self.live.insert(id, Live { started: false, lease });
        self.writes.starts.push_back((write, id, attempt));
    }

    /// Why an attempt cannot run here, as its final record.
    fn cannot_run(&self, workload: &DesiredWorkload) -> Option<WorkloadEnd> {
        let failed = |cause, detail: String| Some(WorkloadEnd::of(NodeWorkloadState::Failed, cause, detail));
        if !self.capabilities.runtimes.contains(&workload.runtime) {
            return failed(
                StatusCause::Unsupported,
                format!("runtime {} is not enabled on this node", workload.runtime),
            );
        }
        if self.live.len() >= WORKLOADS_PER_NODE_MAX {
            return failed(
                StatusCause::Unsupported,
                format!("the node already has {WORKLOADS_PER_NODE_MAX} workloads"),
            );
        }
        for uuid in &workload.gpus {
            match self.capabilities.gpus.iter().find(|gpu| gpu.uuid == *uuid) {
                None => {
                    return failed(StatusCause::GpuMissing, format!("gpu {uuid} is not on this node"));
                }
                Some(gpu) if gpu.health == GpuHealth::Failed => {
                    let reason = gpu.health_reason.as_deref().unwrap_or("no reason is known");
                    return failed(StatusCause::GpuMissing, format!("gpu {uuid} failed: {reason}"));
                }
                Some(_) => {}
            }
            let holders: Vec<(WorkloadId, u16)> = self.holders_of(uuid).collect();
            let taken = holders.iter().fold(0, |sum: u16, (_, milli)| sum.saturating_add(*milli));
            if let Some((holder, _)) = holders.first()
                && taken.saturating_add(share_milli(&workload.spec)) > GPU_MILLI
            {
                return failed(StatusCause::GpuMissing, format!("gpu {uuid} is held by {holder}"));
            }
        }
        None
    }

    /// The attempt is on disk: hand it to its runtime, unless it was stopped
    /// meanwhile or waited for the disk longer than its lease.
    pub(super) fn start_now(&mut self, id: WorkloadId, attempt: Attempt) {
        let Some(entry) = self.durable.entry(id, attempt) else {
            return;
        };
        let workload = Arc::clone(&entry.workload);
        let Some(live) = self.live.get_mut(&id) else {
            return;
        };
        let lease = live.lease;
        if lease.is_some_and(|lease| lease.term_at_ms <= self.now.mono_ms) {
            self.ended(id, attempt, never_started(StatusCause::PartitionLease));
            return;
        }
        live.started = true;
        self.out.push(Action::Start { workload, lease });
    }

    fn stop_order(&mut self, order: &StopOrder) {
        let (id, attempt) = (order.workload_id, order.attempt);
        if self.waiting.get(&id).map(Wanted::attempt) == Some(attempt) {
            let simulated = self.waiting.remove(&id).is_some_and(|next| next.workload.runtime == RuntimeKind::Sim);
            self.record(id, attempt, never_started(order.cause), simulated);
        } else if self.durable.entry(id, attempt).is_some() {
            self.stop(id, attempt, u64::from(order.grace_s) * 1_000, order.cause);
        } else if self.durable.ended_record(id, attempt).is_some() {
            self.report_end_again(id, attempt);
        } else {
            let end = WorkloadEnd::of(NodeWorkloadState::Stopped, order.cause, "it was not running on this node");
            self.record(id, attempt, end, false);
        }
    }

    /// Ends a live attempt. A repetition changes nothing unless it ends it earlier.
    fn stop(&mut self, id: WorkloadId, attempt: Attempt, grace_ms: u64, cause: StatusCause) {
        let Some(entry) = self.durable.entry(id, attempt) else {
            return;
        };
        if self.live.get(&id).is_some_and(|live| !live.started) {
            self.ended(id, attempt, never_started(cause));
            return;
        }
        let kill_at_ms = self.now.mono_ms.saturating_add(grace_ms);
        if entry.stop.is_some_and(|known| known.kill_at_ms <= kill_at_ms) {
            return;
        }
        let cause = entry.stop.map_or(cause, |known| known.cause);
        let simulated = entry.workload.runtime == RuntimeKind::Sim;
        let stopping = entry.state == Some(NodeWorkloadState::Stopping);
        self.commit(DurableChange::StopDecided { workload_id: id, attempt, stop: StopIntent { cause, kill_at_ms } });
        self.out.push(Action::Stop { workload_id: id, attempt, grace_ms, cause });
        if !stopping {
            self.record(id, attempt, WorkloadEnd::of(NodeWorkloadState::Stopping, cause, ""), simulated);
        }
    }

    /// An answer of ours that was sent at `base_ms` has arrived.
    pub(super) fn renew_leases(&mut self, base_ms: u64) {
        if self.lease_base_ms.is_some_and(|known| known >= base_ms) {
            return;
        }
        self.lease_base_ms = Some(base_ms);
        for (id, entry) in &self.durable.attempts {
            let Some(live) = self.live.get_mut(id) else {
                continue;
            };
            let lease = Lease::of(&entry.workload, base_ms);
            if lease.is_some_and(|new| live.lease.is_none_or(|old| old.kill_at_ms < new.kill_at_ms)) {
                live.lease = lease;
                if let (Some(lease), true) = (lease, live.started) {
                    self.out.push(Action::RenewLease { workload_id: *id, attempt: entry.attempt(), lease });
                }
            }
        }
    }

    /// When something must happen to a live attempt: (instant, KILL at, cause).
    fn next_deadline(&self, id: WorkloadId) -> Option<(u64, u64, StatusCause)> {
        let entry = self.durable.attempts.get(&id)?;
        let live = self.live.get(&id)?;
        let lease = live.lease.map(|lease| (lease.term_at_ms, lease.kill_at_ms, StatusCause::PartitionLease));
        let duration = entry.running_at_ms.zip(entry.workload.max_duration_s).map(|(running_at_ms, max_s)| {
            let at_ms = running_at_ms.saturating_add(max_s.saturating_mul(1_000));
            (at_ms, at_ms.saturating_add(u64::from(entry.workload.grace_s) * 1_000), StatusCause::MaxDuration)
        });
        // A stop that ends it earlier is already decided: nothing left to do.
        let open = |deadline: &(u64, u64, StatusCause)| entry.stop.is_none_or(|stop| deadline.1 < stop.kill_at_ms);
        lease.into_iter().chain(duration).filter(open).min_by_key(|deadline| deadline.0)
    }

    pub(super) fn attempt_wake_ms(&self, id: WorkloadId) -> Option<u64> {
        self.next_deadline(id).map(|(at_ms, _, _)| at_ms)
    }

    /// Stops what has run too long, or been cut off too long.
    pub(super) fn enforce_deadlines(&mut self) {
        let now_ms = self.now.mono_ms;
        let due: Vec<(WorkloadId, Attempt, u64, StatusCause)> = self
            .durable
            .attempts
            .iter()
            .filter_map(|(id, entry)| {
                let (at_ms, kill_at_ms, cause) = self.next_deadline(*id)?;
                (at_ms <= now_ms).then(|| (*id, entry.attempt(), kill_at_ms.saturating_sub(now_ms), cause))
            })
            .collect();
        for (id, attempt, grace_ms, cause) in due {
            self.stop(id, attempt, grace_ms, cause);
        }
    }
}
