//! Facts that nodes report about attempts.

use std::collections::BTreeMap;

use claw_proto::ids::NodeId;
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C, StatusRecord};
use claw_tools::outcome::clip;
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::workloads::{WorkloadReason as R, WorkloadState as S};

use super::Report;
use super::follow::{after_end, verdict};
use super::notice;
use super::work::Work;
use crate::event::Event;
use crate::workload::{AttemptEntry, Desired, WorkloadEntry};

/// Longest detail that is kept of a record.
const DETAIL_CHARS_MAX: usize = 500;

pub(super) fn records(work: &mut Work<'_>, node_id: NodeId, records: &[StatusRecord]) -> Result<Report, Refusal> {
    if work.state.nodes.get(node_id).is_none() {
        return Err(Refusal::new(ErrorCode::NotFound, format!("node {node_id} is not in the fleet")));
    }
    // Of many checkpoints that come at once the last of each attempt counts.
    let written = records.iter().enumerate().filter(|(_, r)| r.checkpoint.as_ref().is_some_and(|c| !c.answers_notice));
    let last: BTreeMap<_, usize> = written.map(|(place, r)| ((r.workload_id, r.attempt), place)).collect();
    for (place, record) in records.iter().enumerate() {
        match &record.checkpoint {
            Some(written)
                if written.answers_notice || last.get(&(record.workload_id, record.attempt)) == Some(&place) =>
            {
                let is_end = |later: &StatusRecord| {
                    (later.workload_id, later.attempt) == (record.workload_id, record.attempt) && later.state.is_final()
                };
                let is_last_word = records[place..].iter().any(is_end);
                notice::checkpoint(work, node_id, record, written, is_last_word);
            }
            Some(_) => {}
            None => one(work, node_id, record),
        }
    }
    Ok(Report::Done)
}

/// Takes a record once: only of the live attempt on this node, and only forward.
fn one(work: &mut Work<'_>, node_id: NodeId, record: &StatusRecord) {
    let orphan_over = record.state.is_final()
        && work
            .state
            .nodes
            .get(node_id)
            .is_some_and(|n| n.orphans.get(&record.workload_id).is_some_and(|o| o.attempt == record.attempt));
    if orphan_over {
        work.emit(Event::OrphanGone { node_id, workload_id: record.workload_id });
    }
    let Some(entry) = work.state.workloads.get(record.workload_id).cloned() else {
        return;
    };
    if entry.live().is_none() {
        return found_after_all(work, node_id, &entry, record);
    }
    let Some(live) = entry.live_on(node_id).filter(|a| a.attempt == record.attempt) else {
        return part_found_after_all(work, node_id, &entry, record);
    };
    if record.state.is_final() {
        ended(work, &entry, record);
    } else if record.state.rank() > rank(live.state) {
        progressed(work, record);
    }
}

fn progressed(work: &mut Work<'_>, record: &StatusRecord) {
    let state = match record.state {
        N::Pulling => S::Pulling,
        N::Starting => S::Starting,
        N::Running => S::Running,
        N::Stopping => S::Stopping,
        N::Completed | N::Failed | N::Stopped | N::Lost => return,
    };
    work.emit(Event::WorkloadProgressed {
        workload_id: record.workload_id,
        attempt: record.attempt,
        state,
        detail: clip(&record.detail, DETAIL_CHARS_MAX),
        node_at: record.at,
        simulated: record.simulated,
    });
}

fn ended(work: &mut Work<'_>, entry: &WorkloadEntry, record: &StatusRecord) {
    if let Some((state, why)) = attempt_ended(work, entry, record) {
        after_end(work, entry, state, why);
    }
}

fn attempt_ended(work: &mut Work<'_>, entry: &WorkloadEntry, record: &StatusRecord) -> Option<(S, R)> {
    let state = match record.state {
        N::Completed => S::Completed,
        N::Failed => S::Failed,
        N::Stopped => S::Stopped,
        N::Lost => S::Lost,
        N::Pulling | N::Starting | N::Running | N::Stopping => return None,
    };
    let why = reason(record, entry);
    let detail = match work.state.workloads.leaves_for(entry.workload_id).filter(|_| why == R::Preempted) {
        Some(other) => format!("made room for {} (priority {})", other.name, other.spec.priority()),
        None => clip(&record.detail, DETAIL_CHARS_MAX),
    };
    work.emit(Event::AttemptEnded {
        workload_id: entry.workload_id,
        attempt: record.attempt,
        state,
        why,
        detail,
        exit_code: record.exit_code,
        signal: record.signal,
        node_at: Some(record.at),
    });
    Some((state, why))
}

/// A workload that was given up with its cut-off node, and not started again:
/// the node is back and knows how it ended. Lost means that nobody knows.
fn found_after_all(work: &mut Work<'_>, node_id: NodeId, entry: &WorkloadEntry, record: &StatusRecord) {
    let given_up = entry.state == S::Lost
        && entry.reason == R::NodeLost
        && entry.latest().iter().any(|a| is_given_up(a, node_id, record));
    if given_up
        && record.state != N::Lost
        && attempt_ended(work, entry, record).is_some()
        && let Some((state, why)) = verdict(work, entry.workload_id)
    {
        work.emit(Event::WorkloadEnded { workload_id: entry.workload_id, state, why });
    }
}

/// The same of one part, while others are still there: how it really ended decides what comes after them.
fn part_found_after_all(work: &mut Work<'_>, node_id: NodeId, entry: &WorkloadEntry, record: &StatusRecord) {
    if record.state != N::Lost && entry.latest().iter().any(|a| is_given_up(a, node_id, record)) {
        attempt_ended(work, entry, record);
    }
}

/// The record is of this attempt, which was given up with its node.
fn is_given_up(a: &AttemptEntry, node_id: NodeId, record: &StatusRecord) -> bool {
    let is_it = (a.node_id, a.attempt) == (node_id, record.attempt);
    is_it && !a.live && (a.state, a.reason) == (S::Lost, R::NodeLost)
}

fn reason(record: &StatusRecord, entry: &WorkloadEntry) -> R {
    match record.cause {
        C::Progress => R::Progress,
        C::Exited if record.exit_code == Some(0) => R::ExitedZero,
        C::Exited => R::ExitedNonZero,
        C::Signaled => R::Signaled,
        C::OutOfMemory => R::OutOfMemory,
        C::StopRequested if entry.desired == Desired::Regroup => R::PeerFailed,
        // The gateway asked: its own reason (stop, drain) says more.
        C::StopRequested if entry.state == S::Stopping => entry.reason,
        C::StopRequested => R::StopRequested,
        // Of the live attempt: the node knows a newer one (this gateway was restored). Nobody asked for its end.
        C::Superseded => R::NotOnNode,
        C::MaxDuration => R::MaxDuration,
        C::PartitionLease => R::PartitionLease,
        C::StartFailed => R::StartFailed,
        C::Unsupported => R::NodeUnsupported,
        C::GpuMissing => R::GpuMissing,
        C::SupervisorGone => R::SupervisorGone,
        C::AgentRestarted => R::AgentRestarted,
        C::PullFailed => R::PullFailed,
        C::ImageRefused => R::ImageRefused,
        C::GpuNotAttached => R::GpuNotAttached,
        C::VolumeRefused => R::VolumeRefused,
        C::EngineFailed => R::EngineFailed,
    }
}

/// Position of a state in the life of an attempt, as [`N::rank`] counts.
fn rank(state: S) -> u8 {
    match state {
        S::Pending | S::Placed => 0,
        S::Pulling => N::Pulling.rank(),
        S::Starting => N::Starting.rank(),
        S::Running => N::Running.rank(),
        S::Stopping => N::Stopping.rank(),
        S::Completed | S::Failed | S::Stopped | S::Lost => N::Completed.rank(),
    }
}
