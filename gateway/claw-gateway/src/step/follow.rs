//! What follows from every command: the queue is tried when something became
//! free, drained nodes are noticed, operations come to their results.

use std::sync::Arc;

use claw_proto::ids::{Attempt, NodeId, WorkloadId};
use claw_proto::limits::{LEASE_DRIFT_PERMILLE, LEASE_MARGIN_MS};
use claw_proto::spec::{OnPartition, RestartPolicy};
use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::operations::OperationState;
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use super::Report;
use super::work::Work;
use crate::Cluster;
use crate::cluster::{ExecEntry, PlanEntry};
use crate::command::Operation;
use crate::effect::Effect;
use crate::event::{Event, Goal};
use crate::registry::NodeEntry;
use crate::scheduler::{self, Decision as Placing};
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
        work.room_changed = false;
    } else {
        schedule(work, submitted);
    }
    resolve_operations(work);
    work.touched.clear();
    work.touched_nodes.clear();
}

/// Time has passed: leases run out, gates open, history is pruned.
pub(super) fn tick(work: &mut Work<'_>) -> Report {
    watch_mass_loss(work);
    expire_leases(work);
    let now = work.now();
    let opened = work.state.workloads.queue().any(|id| {
        work.state
            .workloads
            .get(id)
            .is_some_and(|w| w.reason == WorkloadReason::NotBefore && w.not_before.is_none_or(|t| t <= now))
    });
    work.room_changed |= opened;
    prune(work);
    Report::Done
}

/// Tries the queue in order; the same shape is tried once.
fn schedule(work: &mut Work<'_>, queue: Vec<WorkloadId>) {
    let mut hopeless: Vec<(Arc<ValidSpec>, Placing)> = Vec::new();
    for id in queue {
        let Some(entry) = work.state.workloads.get(id).cloned() else {
            continue;
        };
        if entry.state != WorkloadState::Pending {
            continue;
        }
        if entry.not_before.is_some_and(|t| t > work.now()) {
            wait(work, &entry, WorkloadReason::NotBefore, None);
            continue;
        }
        let known = hopeless.iter().find(|(spec, _)| scheduler::same_shape(spec, &entry.spec)).map(|(_, d)| d.clone());
        let decision = known.unwrap_or_else(|| scheduler::decide(&work.state, &entry.spec));
        match decision {
            Placing::Place { node_id, gpus, runtime, report } => {
                let attempt = Attempt(entry.attempt().0 + 1);
                work.emit(Event::WorkloadPlaced { workload_id: id, attempt, node_id, gpus, runtime, report });
                let generation =
                    work.state.nodes.get(node_id).map(|n| n.generation(work.state.epoch)).unwrap_or_default();
                work.effect(Effect::StartWorkload { node_id, workload_id: id, attempt, generation });
            }
            Placing::Wait { ref report } => {
                let why = if report.waiting_helps || work.state.nodes.is_empty() {
                    WorkloadReason::NoRoom
                } else {
                    WorkloadReason::NoSuitableNode
                };
                wait(work, &entry, why, Some(Arc::clone(report)));
                hopeless.push((Arc::clone(&entry.spec), decision));
            }
        }
    }
}

fn wait(
    work: &mut Work<'_>,
    entry: &WorkloadEntry,
    why: WorkloadReason,
    report: Option<Arc<claw_tools::workloads::PlacementReport>>,
) {
    // Only a change of reason is an event: the numbers are asked for with `workload_explain`.
    if entry.reason != why {
        work.emit(Event::WorkloadWaits { workload_id: entry.workload_id, why, report });
    }
}

fn notice_drained(work: &mut Work<'_>) {
    let drained: Vec<NodeId> = work
        .state
        .nodes
        .iter()
        .filter(|n| n.schedulable == Schedulable::Draining && n.usage.workloads.is_empty())
        .map(|n| n.node_id)
        .collect();
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
pub(super) fn partition_lease_end(cluster: &Cluster, node: &NodeEntry, w: &WorkloadEntry) -> Option<Timestamp> {
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
            if partition_lease_end(&work.state, node, w).is_some_and(|end| end <= now) {
                lost.push(*id);
            }
        }
    }
    for id in lost {
        end_lost(work, id, WorkloadReason::NodeLost, "its node is unreachable and the partition lease has run out");
    }
}

/// The attempt is over as far as the lease guarantees; what comes next depends on what is wanted.
pub(super) fn end_lost(work: &mut Work<'_>, id: WorkloadId, why: WorkloadReason, detail: &str) {
    let Some(entry) = work.state.workloads.get(id).cloned() else {
        return;
    };
    let Some(attempt) = entry.live().map(|a| a.attempt) else {
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

/// What comes after the end of an attempt.
pub(super) fn after_end(work: &mut Work<'_>, entry: &WorkloadEntry, state: WorkloadState, why: WorkloadReason) {
    let id = entry.workload_id;
    let own_end = state == WorkloadState::Completed || by_itself(why);
    let next = match entry.desired {
        Desired::Stop => None,
        Desired::Move if !own_end && !may_run_on(entry, why) => Some((WorkloadReason::NodeDrained, None, false)),
        Desired::Move | Desired::Run => restart(work, entry, state, why),
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
        let tries_left =
            !may_run_on(entry, why) && entry.attempt().0.saturating_sub(entry.restarts) < INFRA_ATTEMPTS_MAX;
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
    state == WorkloadState::Lost || matches!(why, R::PartitionLease | R::NotOnNode | R::GpuMissing)
}

/// How long work that its node lost waits. The first loss moves it at once; a node
/// that loses it again and again as soon as it starts must not burn all tries in seconds.
fn infrastructure_pause_ms(entry: &WorkloadEntry) -> Option<i64> {
    let is_quick_loss = |a: &&AttemptEntry| {
        let ran_ms = a.started_at.zip(a.ended_at).map_or(0, |(from, to)| to.ms_since(from));
        is_infrastructure(a.state, a.reason) && ran_ms < RESTART_PAUSE_MS_MAX
    };
    let n = entry.attempts.iter().rev().skip_while(|a| a.live).take_while(is_quick_loss).count();
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
    let mut results = Vec::new();
    for id in &work.touched {
        let open = work
            .state
            .open_by_workload
            .range((*id, claw_proto::ids::OperationId::from_bits(0))..)
            .take_while(|(w, _)| w == id);
        let Some(entry) = work.state.workloads.get(*id) else {
            continue;
        };
        for (_, operation_id) in open {
            let Some(operation) = work.state.operations.get(operation_id) else {
                continue;
            };
            results.extend(result_of(&operation.record.goal, entry).map(|(state, text)| (*operation_id, state, text)));
        }
    }
    for id in &work.touched_nodes {
        let open = work
            .state
            .open_by_node
            .range((*id, claw_proto::ids::OperationId::from_bits(0))..)
            .take_while(|(n, _)| n == id);
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
        | Goal::ExecEnds { .. }
        | Goal::NodeEmpty { .. }
        | Goal::Immediate => None,
    }
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
        for handle in forgotten_blobs(&work.state, before, &workloads) {
            work.effect(Effect::EraseBlob { handle });
        }
        work.emit(Event::HistoryPruned { receipts_before: before, workloads });
    }
}
