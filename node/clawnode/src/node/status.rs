//! Status records: made once, in order, durable before sent, sent until acknowledged.

use claw_proto::ids::{Attempt, WorkloadId};
use claw_proto::limits::STATUS_RECORDS_PER_MESSAGE_MAX;
use claw_proto::message::{NodeMessage, NodeWorkloadState, StatusCause, StatusRecord};
use claw_proto::spec::RuntimeKind;

use super::io::{Action, FoundWorkload, RuntimeEvent, WorkloadEnd};
use super::{DurableChange, Node};

/// Longest detail of a record.
const DETAIL_CHARS_MAX: usize = 500;
/// Records that were sent and not acknowledged for so long are sent again,
/// milliseconds: the gateway may have dropped them while it could not write.
pub(super) const RESEND_AFTER_MS: u64 = 10_000;

impl Node {
    /// News from a runtime; news about what is not live here is old news.
    pub(super) fn runtime(&mut self, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Progress { workload_id, attempt, state, detail } => {
                self.progress(workload_id, attempt, state, detail);
            }
            RuntimeEvent::Checkpoint { workload_id, attempt, written, at } => {
                self.checkpointed(workload_id, attempt, written, at);
            }
            RuntimeEvent::Ended { workload_id, attempt, end } => self.ended(workload_id, attempt, end),
            RuntimeEvent::Found(FoundWorkload { workload, found }) => {
                if self.durable.entry(workload.workload_id, workload.attempt).is_none() {
                    self.adopt_unknown(workload, found);
                }
            }
            RuntimeEvent::TaskDone { task, result } => self.task_done(task, result),
        }
    }

    /// A live attempt moved forward; anything else changes nothing.
    pub(super) fn progress(&mut self, id: WorkloadId, attempt: Attempt, state: NodeWorkloadState, detail: String) {
        let Some(entry) = self.durable.entry(id, attempt) else {
            return;
        };
        if state.is_final() || entry.state.is_some_and(|known| known.rank() >= state.rank()) {
            return;
        }
        let end = WorkloadEnd::of(state, StatusCause::Progress, detail);
        self.record(id, attempt, end, entry.workload.runtime == RuntimeKind::Sim);
    }

    /// A live attempt is over; a newer attempt that waited for it may start.
    pub(super) fn ended(&mut self, id: WorkloadId, attempt: Attempt, end: WorkloadEnd) {
        let Some(entry) = self.durable.entry(id, attempt) else {
            return;
        };
        let end = if end.state.is_final() { end } else { WorkloadEnd { state: NodeWorkloadState::Lost, ..end } };
        let simulated = entry.workload.runtime == RuntimeKind::Sim;
        // Its last word comes before its end.
        self.tell_checkpoint(id);
        self.record(id, attempt, end, simulated);
        self.live.remove(&id);
        if !self.cannot_record()
            && let Some(next) = self.waiting.remove(&id)
        {
            self.begin(next);
        }
    }

    /// Makes the next record.
    pub(super) fn record(&mut self, id: WorkloadId, attempt: Attempt, end: WorkloadEnd, simulated: bool) {
        let record = StatusRecord {
            record: self.durable.last_record + 1,
            workload_id: id,
            attempt,
            state: end.state,
            cause: end.cause,
            detail: end.detail.chars().take(DETAIL_CHARS_MAX).collect(),
            exit_code: end.exit_code,
            signal: end.signal,
            at: end.at.unwrap_or(self.now.wall),
            simulated,
            checkpoint: None,
        };
        self.record_this(record);
    }

    pub(super) fn record_this(&mut self, record: StatusRecord) {
        let number = record.record;
        let write = self.commit(DurableChange::Recorded { record, mono_ms: self.now.mono_ms });
        self.writes.records.push_back((write, number));
    }

    /// Says again how an attempt ended, unless that is still on its way.
    pub(super) fn report_end_again(&mut self, id: WorkloadId, attempt: Attempt) {
        let Some(known) = self.durable.ended_record(id, attempt) else {
            return;
        };
        if known.record > self.durable.acked {
            return;
        }
        let known = known.clone();
        let end = WorkloadEnd {
            state: known.state,
            cause: known.cause,
            detail: known.detail,
            exit_code: known.exit_code,
            signal: known.signal,
            at: Some(known.at),
        };
        self.record(id, attempt, end, known.simulated);
    }

    /// Sends every record that is durable and not yet sent on this connection.
    pub(super) fn send_statuses(&mut self) {
        if !self.session.is_registered() {
            return;
        }
        let unacked = |through: u64| through.saturating_sub(self.durable.acked);
        let from = usize::try_from(unacked(self.session.sent_record)).unwrap_or(usize::MAX);
        let until =
            usize::try_from(unacked(self.writes.durable_record)).unwrap_or(usize::MAX).min(self.durable.outbox.len());
        if from >= until {
            return;
        }
        let records: Vec<StatusRecord> = self.durable.outbox.range(from..until).cloned().collect();
        for chunk in records.chunks(STATUS_RECORDS_PER_MESSAGE_MAX) {
            self.send(NodeMessage::WorkloadStatus { records: chunk.to_vec() });
        }
        self.session.sent_record = self.writes.durable_record;
        // Not put off by newer records: the oldest may be the one that the gateway waits for.
        self.session.resend_at_ms.get_or_insert(self.now.mono_ms + RESEND_AFTER_MS);
    }

    /// Sends the oldest unacknowledged records once more.
    pub(super) fn resend_statuses(&mut self) {
        let last = self.session.sent_record;
        let records: Vec<StatusRecord> = self
            .durable
            .outbox
            .iter()
            .take(STATUS_RECORDS_PER_MESSAGE_MAX)
            .take_while(|record| record.record <= last)
            .cloned()
            .collect();
        self.session.resend_at_ms = if records.is_empty() { None } else { Some(self.now.mono_ms + RESEND_AFTER_MS) };
        if !records.is_empty() {
            self.send(NodeMessage::WorkloadStatus { records });
        }
    }

    /// The gateway has every record up to `through`.
    pub(super) fn records_acked(&mut self, through: u64) {
        // More than was ever sent is another store's number: not ours.
        if through <= self.durable.acked || through > self.writes.durable_record {
            return;
        }
        let over: Vec<(WorkloadId, Attempt)> = self
            .durable
            .outbox
            .iter()
            .take_while(|record| record.record <= through)
            .filter(|record| record.state.is_final())
            .map(|record| (record.workload_id, record.attempt))
            .collect();
        self.commit(DurableChange::Acked { through });
        self.session.resend_at_ms = (!self.durable.outbox.is_empty()).then_some(self.now.mono_ms + RESEND_AFTER_MS);
        self.begin_waiting();
        self.tell_checkpoints();
        for (workload_id, attempt) in over {
            // A re-placed attempt of the same number cannot exist, so its files may go.
            self.out.push(Action::Forget { workload_id, attempt });
        }
    }
}
