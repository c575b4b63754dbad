//! Whether those who are stopped for others had their word: an auditor of their own, who
//! hears of checkpoints and notices and of nothing else.

use claw_proto::ids::Attempt;
use claw_proto::time::Timestamp;
use claw_tools::workloads::WorkloadReason;

use super::Wrong;
use super::certificate::Certificate;
use super::rules::Rules;
use crate::event::{Event, EventRecord};

/// What is known of one workload.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Notices {
    /// The last attempt that told of a checkpoint.
    spoke: Option<Attempt>,
    /// How long it writes one, milliseconds, as last told.
    took_ms: Option<u32>,
    /// It was told to write one: end of its grace, and whether it has answered.
    open: Option<(Timestamp, bool)>,
}

impl Rules {
    /// Nobody is stopped for others before it has answered, or has had its grace.
    pub(super) fn notice_event(&mut self, record: &EventRecord, books: &Certificate) -> Result<(), Wrong> {
        match &record.event {
            Event::CheckpointWritten { workload_id, attempt, answers_notice, took_ms, .. } => {
                if let Some(known) = self.known.get_mut(workload_id) {
                    known.notices.took_ms = took_ms.or(known.notices.took_ms);
                    known.notices.spoke = Some(*attempt);
                    let heard = |(until, answered)| (until, answered || *answers_notice);
                    known.notices.open = known.notices.open.map(heard);
                }
            }
            Event::WorkloadStopping { workload_id, why, grace_s, notice, .. } => {
                let both = self.known.get_mut(workload_id).zip(books.works.get(workload_id));
                let Some((known, work)) = both else { return Ok(()) };
                known.notices.open = None;
                if !matches!(why, WorkloadReason::Preempted | WorkloadReason::Defragmented) {
                    return Ok(());
                }
                if *grace_s < work.spec.grace_s() {
                    return Err(Wrong::StoppedTooEarly(*workload_id));
                }
                if *notice {
                    let until = record.at.plus_ms(i64::from(*grace_s) * 1_000);
                    known.notices.open = Some((until, false));
                    return Ok(());
                }
                let spoke = known.notices.spoke.is_some_and(|by| work.parts.keys().next() == Some(&by));
                let in_vain = |took_ms: u32| u64::from(took_ms) > u64::from(*grace_s) * 1_000;
                if *grace_s > 0 && spoke && !known.notices.took_ms.is_some_and(in_vain) {
                    return Err(Wrong::NotNoticed(*workload_id));
                }
            }
            Event::NoticeEnded { workload_id, .. } => {
                let Some(known) = self.known.get_mut(workload_id) else { return Ok(()) };
                let may = known.notices.open.take().is_some_and(|(until, answered)| answered || record.at >= until);
                if !may {
                    return Err(Wrong::StoppedTooEarly(*workload_id));
                }
            }
            // It ended as one that was told to, and nobody had told it.
            Event::AttemptEnded { workload_id, why: WorkloadReason::Preempted, .. }
                if self.known.get(workload_id).is_some_and(|known| known.notices.open.is_some()) =>
            {
                return Err(Wrong::StoppedTooEarly(*workload_id));
            }
            Event::WorkloadRequeued { workload_id, .. } => {
                if let Some(known) = self.known.get_mut(workload_id) {
                    known.notices.open = None;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
