//! What follows from every command: the queue is tried when something became
//! free, drained nodes are noticed, operations come to their results.

use std::sync::Arc;

use claw_proto::ids::{NodeId, OperationId, WorkloadId};
use claw_proto::limits::{LEASE_DRIFT_PERMILLE, LEASE_MARGIN_MS};
use claw_proto::message::StatusCause;
use claw_proto::spec::{OnPartition, RestartPolicy};
use claw_proto::time::Timestamp;
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::operations::OperationState;
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use super::Report;
use super::notice;
use super::queue::{look_at_reserved, reserve, schedule};
use super::work::Work;
use crate::Cluster;
use crate::cluster::{ExecEntry, PlanEntry};
use crate::command::Operation;
use crate::effect::Effect;
use crate::event::{Event, Goal, Moved};
use crate::preemption;
use crate::registry::NodeEntry;
use crate::workload::{AttemptEntry, Desired, WorkloadEntry};

/// How often an infrastructure loss may start a workload again.
const INFRA_ATTEMPTS_MAX: u32 = 100;
/// First pause before a restart, milliseconds; doubles up to [`RESTART_PAUSE_MS_MAX`].
const RESTART_PAUSE_MS: i64 = 1_000;
/// Longest pause before a restart, milliseconds.
const RESTART_PAUSE_MS_MAX: i64 = 60_000;
/// So many silent nodes at least, and [`MASS_LOSS_PERCENT`] of all, look like a fault of ours.
const MASS_LOSS_NODES_MIN: u32 = 3;
/// Share of silent nodes above which nobody is declared lost.
const MASS_LOSS_PERCENT: u32 = 20;
/// What fell silent within this time fell silent at once, milliseconds. Nodes that
/// broke one by one over weeks are no fault of ours and hold nobody's work back.
const MASS_LOSS_WINDOW_MS: i64 = 10 * 60 * 1000;
/// How many ended workloads one pruning forgets at most.
const PRUNE_BATCH: usize = 1_000;

/// Runs after every command (and once more costs nothing).
pub(super) fn settle(work: &mut Work<'_>) {
    let submitted = std::mem::take(&mut work.submitted);
    if std::mem::take(&mut work.room_changed) {
        notice_drained(work);
        let queue = work.state.workloads.queue().collect();
        schedule(work, queue);
        look_at_reserved(work);
        reserve(work);
        if std::mem::take(&mut work.gave_up_claims) {
            // What was kept may be somebody else's now.
            let queue = work.state.workloads.queue().collect();
            schedule(work, queue);
        }
        work.room_changed = false;
    } else {
        schedule(work, submitted);
        if std::mem::take(&mut work.gave_up_claims) {
            reserve(work);
        }
    }
    resolve_operations(work);
    work.touched.clear();
    work.touched_nodes.clear();
}

/// Time has passed: leases run out, what may not start before may now, history is pruned.
pub(super) fn tick(work: &mut Work<'_>) -> Report {
    watch_mass_loss(work);
    expire_leases(work);
    notice::end_overdue(work);
    let now = work.now();
    end_reservations(work);
    let opened = work.state.workloads.queue().any(|id| {
        work.state
            .workloads
            .get(id)
            .is_some_and(|w| w.reason == WorkloadReason::NotBefore && w.not_before.is_none_or(|t| t <= now))
    });
    work.room_changed |= opened || preemption::may_ripen(work.state);
    look_at_reserved(work);
    reserve(work);
    work.room_changed |= std::mem::take(&mut work.gave_up_claims);
    prune(work);
    Report::Done
}

/// Whose time is over keeps nothing any more.
fn end_reservations(work: &mut Work<'_>) {
    // By the clock that decisions look at, which never goes back.
    let now = work.state.clock;
    let over = work.state.reservations.iter().filter(|kept| kept.ends_at <= now);
    let names: Vec<String> = over.map(|kept| kept.name.clone()).collect();
    for name in names {
        work.emit(Event::ReservationEnded { name });
    }
}

fn notice_drained(work: &mut Work<'_>) {
    let drained: Vec<NodeId> =
        work.state.nodes.draining().filter(|n| n.usage.workloads.is_empty()).map(|n| n.node_id).collect();
    for node_id in drained {
        work.emit(Event::NodeSchedulableChanged { node_id, to: Schedulable::Drained });
    }
}

/// When the gateway may take a cut-off node's attempt for ended: what the node
/// does by itself, plus drift and margin, counted from when it was last heard.
pub(super) fn lease_end(last_heard: Timestamp, stop_after_s: u32) -> Timestamp {
    // A clock that runs slow by the drift takes lease / (1 - drift) to count to the lease.
    let lease_ms = (u64::from(stop_after_s) * 1_000_000).div_ceil(1000 - LEASE_DRIFT_PERMILLE);
    last_heard.plus_ms(i64::try_from(lease_ms + LEASE_MARGIN_MS).unwrap_or(i64::MAX))
}

/// When a cut-off node has certainly stopped a workload; never, if it keeps running.
/// Wall clocks of two runs of the gateway need not agree, so nothing that was
/// heard before this start counts as older than the start.
pub(crate) fn partition_lease_end(cluster: &Cluster, node: &NodeEntry, w: &WorkloadEntry) -> Option<Timestamp> {
    match w.spec.on_partition() {
        OnPartition::Keep => None,
        OnPartition::StopAfter(s) => Some(lease_end(node.last_heard.max(cluster.started_at), s)),
    }
}

fn expire_leases(work: &mut Work<'_>) {
    if work.state.mass_loss.is_some() {
        return;
    }
    let now = work.now();
    let mut lost = Vec::new();
    for node in work.state.nodes.iter().filter(|n| n.link == NodeLink::Unreachable) {
        for id in &node.usage.workloads {
            let Some(w) = work.state.workloads.get(*id) else {
                continue;
            };
            if partition_lease_end(work.state, node, w).is_some_and(|end| end <= now) {
                lost.push((*id, node.node_id));
            }
        }
    }
    for part in lost {
        end_lost(work, part, WorkloadReason::NodeLost, "its node is unreachable and the partition lease has run out");
    }
}

/// The attempt on this node is over as far as the lease guarantees; what comes next depends on what is wanted.
pub(super) fn end_lost(work: &mut Work<'_>, (id, node_id): (WorkloadId, NodeId), why: WorkloadReason, detail: &str) {
    let Some(entry) = work.state.workloads.get(id).cloned() else {
        return;
    };
    let Some(attempt) = entry.live_on(node_id).map(|a| a.attempt) else {
        return;
    };
    work.emit(Event::AttemptEnded {
        workload_id: id,
        attempt,
        state: WorkloadState::Lost,
        why,
        detail: detail.to_owned(),
        exit_code: None,
        signal: None,
        node_at: None,
    });
    after_end(work, &entry, WorkloadState::Lost, why);
}

/// How a workload ended whose parts have all ended.
pub(super) fn verdict(work: &Work<'_>, id: WorkloadId) -> Option<(WorkloadState, WorkloadReason)> {
    let ended = work.state.workloads.get(id)?.verdict()?;
    Some((ended.state, ended.reason))
}

/// What comes after the end of an attempt. While other parts of it are there,
/// one that ended well is waited for, and one that ended badly takes them along.
pub(super) fn after_end(work: &mut Work<'_>, entry: &WorkloadEntry, state: WorkloadState, why: WorkloadReason) {
    let id = entry.workload_id;
    if work.state.workloads.get(id).is_some_and(|w| w.live().is_some()) {
        if entry.desired == Desired::Run && state != WorkloadState::Completed {
            let grace_s = entry.spec.grace_s();
            work.emit(Event::WorkloadStopping {
                workload_id: id,
                why,
                grace_s,
                requeue: false,
                regroup: true,
                notice: false,
            });
            work.order_stop(id, grace_s, StatusCause::StopRequested);
        }
        return;
    }
    let (state, why) = verdict(work, id).unwrap_or((state, why));
    let own_end = state == WorkloadState::Completed || by_itself(why);
    let next = match entry.desired {
        Desired::Stop => None,
        // Drained, or preempted.
        Desired::Move if !own_end && !may_run_on(entry, why) => Some((entry.reason, None, false)),
        Desired::Move | Desired::Run | Desired::Regroup => restart(work, entry, state, why),
    };
    if let Some((why, not_before, counts)) = next {
        work.emit(Event::WorkloadRequeued { workload_id: id, why, not_before, counts });
    } else {
        end(work, entry, state, why);
    }
}

/// It has ended for good: nobody needs its environment values any more.
pub(super) fn end(work: &mut Work<'_>, entry: &WorkloadEntry, state: WorkloadState, why: WorkloadReason) {
    work.emit(Event::WorkloadEnded { workload_id: entry.workload_id, state, why });
    if let Some(handle) = &entry.env_handle {
        work.effect(Effect::EraseBlob { handle: handle.clone() });
    }
}

/// It runs on where nobody will see it again: a second one would be a copy.
fn may_run_on(entry: &WorkloadEntry, why: WorkloadReason) -> bool {
    why == WorkloadReason::NodeRemoved && entry.spec.on_partition() == OnPartition::Keep
}

/// The program's own end, or its time was up: being moved is no reason to run it again.
const fn by_itself(why: WorkloadReason) -> bool {
    use WorkloadReason as R;
    matches!(why, R::ExitedZero | R::ExitedNonZero | R::Signaled | R::OutOfMemory | R::MaxDuration)
}

/// Whether and when it is started again: (reason, not before, counts against the limit).
fn restart(
    work: &Work<'_>,
    entry: &WorkloadEntry,
    state: WorkloadState,
    why: WorkloadReason,
) -> Option<(WorkloadReason, Option<Timestamp>, bool)> {
    let explicit_never = entry.spec.spec().restart == Some(RestartPolicy::Never);
    // Runs elsewhere, unless "never" was said.
    if is_infrastructure(state, why) {
        let tries_left = !may_run_on(entry, why)
            && (entry.attempt().0 / entry.spec.nodes()).saturating_sub(entry.restarts) < INFRA_ATTEMPTS_MAX;
        let not_before = infrastructure_pause_ms(entry).map(|pause| work.now().plus_ms(pause));
        return (!explicit_never && tries_left).then_some((why, not_before, false));
    }
    if matches!(why, WorkloadReason::MaxDuration | WorkloadReason::StopRequested) {
        return None;
    }
    let again = match entry.spec.restart() {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => state == WorkloadState::Failed,
        RestartPolicy::Always => true,
    };
    if !again || entry.restarts >= entry.spec.max_restarts() {
        return None;
    }
    let pause = (RESTART_PAUSE_MS << entry.restarts.min(6)).min(RESTART_PAUSE_MS_MAX);
    Some((WorkloadReason::Restarted, Some(work.now().plus_ms(pause)), true))
}

/// It ended by its node's doing or with its node's GPU, not by its own.
fn is_infrastructure(state: WorkloadState, why: WorkloadReason) -> bool {
    use WorkloadReason as R;
    state == WorkloadState::Lost || matches!(why, R::PartitionLease | R::NotOnNode | R::GpuMissing | R::PeerFailed)
}

/// How long work that its node lost waits. The first loss moves it at once; a node
/// that loses it again and again as soon as it starts must not burn all tries in seconds.
fn infrastructure_pause_ms(entry: &WorkloadEntry) -> Option<i64> {
    let is_quick_loss = |a: &&AttemptEntry| {
        let ran_ms = a.started_at.zip(a.ended_at).map_or(0, |(from, to)| to.ms_since(from));
        is_infrastructure(a.state, a.reason) && ran_ms < RESTART_PAUSE_MS_MAX
    };
    // Before this one; parts that went with another's end are one loss with it.
    let before = &entry.attempts[..entry.attempts.len() - entry.latest().len()];
    let ended = before.iter().rev().filter(|a| a.reason != WorkloadReason::PeerFailed);
    let n = ended.take_while(is_quick_loss).count();
    let doublings = u32::try_from(n).unwrap_or(u32::MAX).checked_sub(1)?;
    Some((RESTART_PAUSE_MS << doublings.min(6)).min(RESTART_PAUSE_MS_MAX))
}

fn watch_mass_loss(work: &mut Work<'_>) {
    let (mut since, mut total) = (Vec::new(), 0_u32);
    for node in work.state.nodes.iter().filter(|n| n.link != NodeLink::Enrolled) {
        total += 1;
        since.extend((node.link == NodeLink::Unreachable).then_some(node.link_since));
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let silent = count(since.len());
    let newest = since.iter().max().copied().unwrap_or_default();
    let at_once = count(since.iter().filter(|at| newest.ms_since(**at) <= MASS_LOSS_WINDOW_MS).count());
    let mass = |n: u32| n >= MASS_LOSS_NODES_MIN && n * 100 > total * MASS_LOSS_PERCENT;
    match work.state.mass_loss {
        None if mass(at_once) => work.emit(Event::MassLossSuspected { silent, total }),
        // However long it lasts: it stands until they are back, or removed.
        Some(_) if !mass(silent) => work.emit(Event::MassLossCleared { silent, total }),
        Some(_) | None => {}
    }
}

fn resolve_operations(work: &mut Work<'_>) {
    let mut results: Vec<(OperationId, OperationState, String)> = Vec::new();
    for id in &work.touched {
        let open = work.state.open_by_workload.range((*id, OperationId::from_bits(0))..).take_while(|(w, _)| w == id);
        let Some(entry) = work.state.workloads.get(*id) else {
            continue;
        };
        for (_, operation_id) in open {
            let Some(operation) = work.state.operations.get(operation_id) else {
                continue;
            };
            let result = match &operation.record.goal {
                Goal::WorkloadsMove { moves } => result_of_moves(work.state, moves),
                goal => result_of(goal, entry),
            };
            // Several of its workloads may have come further at once.
            if let Some((state, text)) = result
                && !results.iter().any(|(known, ..)| known == operation_id)
            {
                results.push((*operation_id, state, text));
            }
        }
    }
    for id in &work.touched_nodes {
        let open = work.state.open_by_node.range((*id, OperationId::from_bits(0))..).take_while(|(n, _)| n == id);
        let result = match work.state.nodes.get(*id).map(|n| n.schedulable) {
            Some(Schedulable::Drained) => (OperationState::Succeeded, "drained: no work is left on it".to_owned()),
            Some(to @ (Schedulable::Active | Schedulable::Cordoned)) => {
                (OperationState::Canceled, format!("the node is {to} again"))
            }
            None => (OperationState::Canceled, "the node was removed from the fleet".to_owned()),
            Some(Schedulable::Draining) => continue,
        };
        results.extend(open.map(|(_, operation_id)| (*operation_id, result.0, result.1.clone())));
    }
    for (operation_id, state, observed) in results {
        work.emit(Event::OperationResolved { operation_id, state, observed });
    }
}

fn result_of(goal: &Goal, w: &WorkloadEntry) -> Option<(OperationState, String)> {
    let state_text = || format!("{} ({})", w.state, w.reason);
    match goal {
        Goal::WorkloadRuns { .. } if w.state == WorkloadState::Running || w.ever_ran() => {
            Some((OperationState::Succeeded, state_text()))
        }
        Goal::WorkloadRuns { .. } if w.state == WorkloadState::Completed => {
            Some((OperationState::Succeeded, state_text()))
        }
        Goal::WorkloadRuns { .. } if w.state.is_final() => Some((OperationState::Failed, state_text())),
        Goal::WorkloadEnds { .. } if w.state.is_final() => Some((OperationState::Succeeded, state_text())),
        Goal::WorkloadRuns { .. }
        | Goal::WorkloadEnds { .. }
        | Goal::WorkloadsMove { .. }
        | Goal::ExecEnds { .. }
        | Goal::NodeEmpty { .. }
        | Goal::Immediate => None,
    }
}

/// What became of those that were told to move, once each of them runs again or has ended: it went well if all run,
/// elsewhere.
fn result_of_moves(cluster: &Cluster, moves: &[Moved]) -> Option<(OperationState, String)> {
    let mut told = Vec::new();
    let mut all_moved = true;
    for Moved { workload_id, attempt, node_id } in moves {
        let Some(w) = cluster.workloads.get(*workload_id) else {
            all_moved = false;
            told.push(format!("{workload_id} has ended"));
            continue;
        };
        if w.state.is_final() {
            all_moved = false;
            told.push(format!("{} is {}", w.name, w.state));
            continue;
        }
        let runs = w.live().filter(|part| w.state == WorkloadState::Running && part.attempt > *attempt)?;
        let node = cluster.nodes.get(runs.node_id).map_or_else(|| runs.node_id.to_string(), |node| node.name.clone());
        let again = if runs.node_id == *node_id { "again " } else { "" };
        all_moved &= runs.node_id != *node_id;
        told.push(format!("{} runs {again}on {node}", w.name));
    }
    let state = if all_moved { OperationState::Succeeded } else { OperationState::Failed };
    Some((state, told.join("; ")))
}

/// Values that nothing refers to any more: environments and secrets of plans that
/// nobody applied, and again those of ended workloads, where erasing failed at their end;
/// what commands wrote that are as old.
fn forgotten_blobs(cluster: &Cluster, plans_before: Timestamp, workloads: &[WorkloadId]) -> Vec<String> {
    let of_plan = |plan: &Arc<PlanEntry>| {
        let old = !plan.applied && plan.at < plans_before;
        match &plan.record.operation {
            Operation::WorkloadRun { env_handle: handle, .. } | Operation::SecretSet { blob: handle, .. } => {
                handle.clone().filter(|_| old)
            }
            _ => None,
        }
    };
    let ended = workloads.iter().filter_map(|id| cluster.workloads.get(*id)?.env_handle.clone());
    let of_exec = |exec: &Arc<ExecEntry>| exec.output.clone().filter(|_| exec.at < plans_before);
    let written = cluster.execs.values().filter_map(of_exec);
    cluster.plans.values().filter_map(of_plan).chain(ended).chain(written).collect()
}

fn prune(work: &mut Work<'_>) {
    let before = work.now().plus_ms(-work.state.policy.receipt_ttl_ms);
    let due = before.plus_ms(-60_000);
    let old_receipts = work.state.receipts_by_time.get_min().is_some_and(|(at, _)| *at < due);
    let old_plans = work.state.plans.get_min().is_some_and(|(_, plan)| plan.at < due);
    let mut workloads = work.state.workloads.ended_beyond(work.state.policy.ended_workloads_max);
    workloads.truncate(PRUNE_BATCH);
    let old_execs = work.state.execs.get_min().is_some_and(|(_, exec)| exec.at < due && exec.end.is_some());
    if old_receipts || old_plans || old_execs || workloads.len() == PRUNE_BATCH {
        for handle in forgotten_blobs(work.state, before, &workloads) {
            work.effect(Effect::EraseBlob { handle });
        }
        work.emit(Event::HistoryPruned { receipts_before: before, workloads });
    }
}
