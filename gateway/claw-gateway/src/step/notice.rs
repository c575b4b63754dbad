//! Two phases of a preemption: a program that tells of its checkpoints is told to
//! write one, and stopped when it has, or when its grace is over. One that was never
//! heard of, or needs longer than its grace, gets TERM and its grace, as everybody did
//! before there was such a word.

use claw_proto::ids::{NodeId, WorkloadId};
use claw_proto::limits::{CHECKPOINT_INTERVAL_MS_MIN, CHECKPOINT_LABEL_CHARS_MAX};
use claw_proto::message::{CheckpointWritten, StatusCause, StatusRecord};
use claw_tools::nodes::NodeLink;
use claw_tools::outcome::clip;
use claw_tools::workloads::WorkloadReason;

use super::perform::stop_workload;
use super::work::Work;
use crate::effect::Effect;
use crate::event::Event;
use crate::preemption::writes_in_time;
use crate::workload::WorkloadEntry;

/// Between TERM and KILL for a program whose checkpoint is written, or whose notice has run out,
/// seconds: nobody is killed who was not told in the way that every program knows.
const TERM_GRACE_S_MAX: u32 = 5;
/// Nodes do not measure to the millisecond: checkpoints this much closer together than agreed still count.
const INTERVAL_SLACK_MS: u64 = 100;

/// Ends what is to run elsewhere: by notice if its program has told of a checkpoint in this
/// attempt, which says that program and node know the word; else by TERM. By TERM as well where it
/// is known to need longer than its grace to write one: it would hold its GPUs for a checkpoint that
/// is never written.
pub(super) fn send_away(work: &mut Work<'_>, entry: &WorkloadEntry, why: WorkloadReason) {
    let (workload_id, grace_s) = (entry.workload_id, entry.spec.grace_s());
    if entry.checkpoint_of_latest().is_none() || grace_s == 0 || writes_in_time(entry) == Some(false) {
        return stop_workload(work, workload_id, grace_s, why, true);
    }
    work.emit(Event::WorkloadStopping { workload_id, why, grace_s, requeue: true, regroup: false, notice: true });
    for part in entry.lives() {
        work.effect(Effect::NoticeCheckpoint { node_id: part.node_id, workload_id, attempt: part.attempt });
    }
}

/// A node says that a program has written a checkpoint. Taken once, of the live attempt of rank 0,
/// and not more often than agreed unless it answers a notice or is the last word of an attempt
/// whose end comes with it.
pub(super) fn checkpoint(
    work: &mut Work<'_>,
    node_id: NodeId,
    record: &StatusRecord,
    written: &CheckpointWritten,
    is_last_word: bool,
) {
    let Some(entry) = work.state.workloads.get(record.workload_id).cloned() else {
        return;
    };
    let is_first =
        entry.latest().first().is_some_and(|a| a.live && (a.node_id, a.attempt) == (node_id, record.attempt));
    if !is_first {
        return;
    }
    // A clock that is ahead must not make a checkpoint younger than it can be.
    let at = record.at.min(work.now());
    let apart_ms = i64::try_from(CHECKPOINT_INTERVAL_MS_MIN - INTERVAL_SLACK_MS).unwrap_or(i64::MAX);
    let is_new = entry.checkpoint_of_latest().is_none_or(|known| {
        let since_ms = at.ms_since(known.at);
        since_ms >= apart_ms || (is_last_word && since_ms > 0)
    });
    let answered = entry.notice.filter(|_| written.answers_notice);
    let answers_notice = answered.is_some();
    if !is_new && !answers_notice {
        return;
    }
    // Who does not say how long it was written shows it by its answer.
    let shown_ms = answered.and_then(|notice| {
        let told_at = notice.until.plus_ms(-i64::from(entry.stop_grace_s) * 1_000);
        u32::try_from(at.ms_since(told_at)).ok()
    });
    work.emit(Event::CheckpointWritten {
        workload_id: record.workload_id,
        attempt: record.attempt,
        // Cut without a mark: the program reads it again.
        label: clip(&written.label.chars().take(CHECKPOINT_LABEL_CHARS_MAX).collect::<String>(), usize::MAX),
        node_at: at,
        answers_notice,
        took_ms: written.took_ms.or(shown_ms),
    });
    if answers_notice {
        end(work, &entry, true);
    }
}

/// Those whose grace is over are stopped, answer or not.
pub(super) fn end_overdue(work: &mut Work<'_>) {
    let now = work.now();
    let is_over = |w: &WorkloadEntry| w.notice.is_some_and(|notice| notice.until <= now);
    let over: Vec<WorkloadId> = work.state.workloads.noticed().filter(|w| is_over(w)).map(|w| w.workload_id).collect();
    for id in over {
        if let Some(entry) = work.state.workloads.get(id).cloned() {
            end(work, &entry, false);
        }
    }
}

fn end(work: &mut Work<'_>, entry: &WorkloadEntry, acked: bool) {
    let Some(notice) = entry.notice else {
        return;
    };
    let left_s = u32::try_from(notice.until.ms_since(work.now()).max(0) / 1_000).unwrap_or(u32::MAX);
    let was_told = entry.lives().all(|part| is_linked(work, part.node_id));
    let grace_s = match (acked, was_told) {
        (true, _) => left_s.clamp(1, TERM_GRACE_S_MAX),
        (false, true) => TERM_GRACE_S_MAX.min(entry.spec.grace_s()),
        // Its node is not heard from: whether the notice came through is not known, so it has
        // all of its grace once the stop does.
        (false, false) => entry.spec.grace_s(),
    };
    work.emit(Event::NoticeEnded { workload_id: entry.workload_id, acked, grace_s });
    work.order_stop(entry.workload_id, grace_s, StatusCause::StopRequested);
}

fn is_linked(work: &Work<'_>, node_id: NodeId) -> bool {
    work.state.nodes.get(node_id).is_some_and(|node| node.link == NodeLink::Online)
}
