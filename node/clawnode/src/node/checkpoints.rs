//! What programs say of their checkpoints: a record, as everything that must arrive once.
//!
//! The newest of each attempt counts. While the gateway is away, or takes no records, only
//! that one is kept and told later, so that a program that writes one every second does
//! not fill the outbox.

use claw_proto::ids::{Attempt, WorkloadId};
use claw_proto::limits::STATUS_RECORDS_PER_MESSAGE_MAX;
use claw_proto::message::{CheckpointWritten, StatusCause, StatusRecord};
use claw_proto::spec::RuntimeKind;
use claw_proto::time::Timestamp;

use super::Node;

/// One that is not a record yet.
#[derive(Debug, Clone)]
pub(super) struct Untold {
    attempt: Attempt,
    written: CheckpointWritten,
    at: Timestamp,
}

impl Node {
    /// A live attempt's program has written a checkpoint.
    pub(super) fn checkpointed(&mut self, id: WorkloadId, attempt: Attempt, written: CheckpointWritten, at: Timestamp) {
        if self.durable.entry(id, attempt).is_none() {
            return;
        }
        let mut written = written;
        // An answer that is still to be told is not forgotten for a newer word.
        let earlier = self.untold.get(&id).filter(|untold| untold.attempt == attempt);
        written.answers_notice |= earlier.is_some_and(|untold| untold.written.answers_notice);
        self.untold.insert(id, Untold { attempt, written, at: at.min(self.now.wall) });
        self.tell_checkpoints();
    }

    /// Makes records of what is untold, if the gateway is there and takes them.
    pub(super) fn tell_checkpoints(&mut self) {
        if !self.session.is_registered() || self.durable.outbox.len() >= STATUS_RECORDS_PER_MESSAGE_MAX {
            return;
        }
        for id in self.untold.keys().copied().collect::<Vec<_>>() {
            self.tell_checkpoint(id);
        }
    }

    /// Makes a record of what is untold of one, whoever takes it.
    pub(super) fn tell_checkpoint(&mut self, id: WorkloadId) {
        let Some(Untold { attempt, written, at }) = self.untold.remove(&id) else {
            return;
        };
        let Some(entry) = self.durable.entry(id, attempt) else {
            return;
        };
        let record = StatusRecord {
            record: self.durable.last_record + 1,
            workload_id: id,
            attempt,
            state: entry.shown_state(),
            cause: StatusCause::Progress,
            detail: String::new(),
            exit_code: None,
            signal: None,
            at,
            simulated: entry.workload.runtime == RuntimeKind::Sim,
            checkpoint: Some(written),
        };
        self.record_this(record);
    }
}
