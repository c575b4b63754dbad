//! What to move so that free GPUs are of use again.
//!
//! A move ends a program and starts it elsewhere, so only one is moved that can
//! begin again where it was (it tells of checkpoints, or states an interval). Each
//! is tried on a copy of the fleet, by the scheduler's own rules: where it would
//! really go, and what typical work could use then that it cannot use now. That much
//! for as long as it is worth anything (the horizon) has to be more than what the
//! moved lose. The best set is taken until none is worth it.

use std::collections::BTreeSet;
use std::sync::Arc;

use claw_proto::ids::{CountingIds, GpuUuid, NodeId, WorkloadId};
use claw_proto::time::Timestamp;
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use super::{is_ripe, lost_gpu_ms};
use crate::event::{Event, EventRecord};
use crate::query::Measure;
use crate::step::reschedule;
use crate::workload::{Desired, WorkloadEntry};
use crate::{Caller, Cluster};

/// Sets that are tried in a round at most: those on the nodes that lose most.
const TRIED_MAX: usize = 64;
/// The same while many wait: each try looks at all of them.
const TRIED_MAX_IN_A_CROWD: usize = 8;
/// So many that wait are many.
const CROWD: usize = 256;

/// One workload that is to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) workload_id: WorkloadId,
    pub(crate) from: NodeId,
    /// Where the scheduler would put it as things are.
    pub(crate) to: NodeId,
    /// What it did since its last checkpoint, thousandths of GPU seconds.
    pub(crate) lost_gpu_ms: u64,
}

/// What is to be moved, and what for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Defrag {
    pub(crate) moves: Vec<Move>,
    /// GPUs of use to typical work that are of none now.
    pub(crate) gained_gpus: f64,
    /// Workloads that could be moved at all.
    pub(crate) movable: usize,
    /// The best set that was tried and is not worth it: GPUs gained, GPU seconds lost.
    pub(crate) not_worth: Option<(f64, f64)>,
}

impl Defrag {
    /// What all that are moved lose, GPU seconds.
    pub(crate) fn lost_gpu_s(&self) -> f64 {
        lost_gpu_s(&self.moves)
    }
}

fn lost_gpu_s(moves: &[Move]) -> f64 {
    moves.iter().map(|one| one.lost_gpu_ms as f64 / 1_000.0).sum()
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// Only GPUs of this model.
    pub(crate) model: Option<&'a str>,
    /// How long what is gained is worth something, seconds.
    pub(crate) horizon_s: u64,
    /// Workloads that are moved at most.
    pub(crate) moves_max: usize,
    pub(crate) now: Timestamp,
}

/// The sets of moves that gain most beyond what they lose, one after the other.
pub(crate) fn plan(cluster: &Cluster, ask: Ask<'_>) -> Defrag {
    let measure = Measure::of(cluster, ask.model);
    let mut defrag = Defrag { movable: movable(cluster, ask.now).count(), ..Defrag::default() };
    let mut fork = cluster.detached();
    while defrag.moves.len() < ask.moves_max {
        let left = ask.moves_max - defrag.moves.len();
        let moved: BTreeSet<WorkloadId> = defrag.moves.iter().map(|one| one.workload_id).collect();
        let tried = sets(&fork, &measure, &ask, &moved).into_iter().filter(|set| set.len() <= left);
        let n_tried = if cluster.workloads.queue_len() > CROWD { TRIED_MAX_IN_A_CROWD } else { TRIED_MAX };
        let outcomes = tried.take(n_tried).filter_map(|set| {
            let (after, moves, gained) = moved_away(&fork, &measure, &set, ask.now)?;
            Some((gained * ask.horizon_s as f64 - lost_gpu_s(&moves), gained, moves, after))
        });
        let best = outcomes.max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((net, gained, moves, after)) = best else { break };
        if net <= 0.0 {
            defrag.not_worth = Some((gained, lost_gpu_s(&moves)));
            break;
        }
        defrag.gained_gpus += gained;
        defrag.moves.extend(moves);
        fork = after;
    }
    defrag
}

/// Exactly these, as planned before: nothing where one of them cannot be moved now, or all of them are not worth it.
pub(crate) fn again(cluster: &Cluster, ask: Ask<'_>, ids: &[WorkloadId]) -> Option<Defrag> {
    let measure = Measure::of(cluster, ask.model);
    let set: Vec<Arc<WorkloadEntry>> = ids
        .iter()
        .map(|id| cluster.workloads.get(*id).filter(|w| is_movable(cluster, w, ask.now)).cloned())
        .collect::<Option<_>>()?;
    let (_, moves, gained_gpus) = moved_away(&cluster.detached(), &measure, &set, ask.now)?;
    let is_worth = gained_gpus * ask.horizon_s as f64 > lost_gpu_s(&moves);
    let movable = movable(cluster, ask.now).count();
    is_worth.then_some(Defrag { moves, gained_gpus, movable, not_worth: None })
}

/// It can begin again where it was, and may be stopped now: on one node, with GPUs of its own or a share.
fn is_movable(cluster: &Cluster, w: &WorkloadEntry, now: Timestamp) -> bool {
    let demand = w.spec.demand();
    let resumes = w.checkpoint_of_latest().is_some() || w.spec.spec().checkpoint_interval_s.is_some_and(|s| s > 0);
    w.state == WorkloadState::Running
        && w.desired == Desired::Run
        && w.spec.nodes() == 1
        && demand.gpus > 0
        && demand.mig_profile.is_none()
        && resumes
        && is_ripe(&cluster.policy.preemption, w, now)
}

fn movable(cluster: &Cluster, now: Timestamp) -> impl Iterator<Item = &Arc<WorkloadEntry>> {
    cluster.workloads.iter().filter(move |w| is_movable(cluster, w, now))
}

/// Sets that may be worth a try, those on the nodes that lose most first: all that a node runs,
/// and each alone. Who was moved already is not moved again.
fn sets(
    cluster: &Cluster,
    measure: &Measure,
    ask: &Ask<'_>,
    moved: &BTreeSet<WorkloadId>,
) -> Vec<Vec<Arc<WorkloadEntry>>> {
    let mut nodes: Vec<(f64, NodeId)> =
        cluster.nodes.iter().map(|n| (measure.lost_on(cluster, n), n.node_id)).collect();
    nodes.retain(|(lost, _)| *lost > 0.0);
    nodes.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut sets = Vec::new();
    for (_, node_id) in nodes.into_iter().take(TRIED_MAX) {
        let Some(node) = cluster.nodes.get(node_id) else { continue };
        let held = node.usage.workloads.iter().filter_map(|id| cluster.workloads.get(*id));
        let with_gpus: Vec<&Arc<WorkloadEntry>> = held.filter(|w| w.spec.demand().gpus > 0).collect();
        let may = |w: &WorkloadEntry| is_movable(cluster, w, ask.now) && !moved.contains(&w.workload_id);
        let mut its: Vec<Arc<WorkloadEntry>> = with_gpus.iter().filter(|w| may(w)).map(|w| Arc::clone(w)).collect();
        // The largest first: it has the fewest places to go to.
        its.sort_by_key(|w| (std::cmp::Reverse(w.spec.demand().gpu_milli_total()), w.workload_id));
        if its.len() > 1 && its.len() == with_gpus.len() {
            sets.push(its.clone());
        }
        sets.extend(its.into_iter().map(|one| vec![one]));
    }
    sets
}

/// The fleet after these were moved one after the other, in this order, where each goes, and how many GPUs
/// are of use then that are of none now. Nothing where one stays, or finds no place.
fn moved_away(
    cluster: &Cluster,
    measure: &Measure,
    set: &[Arc<WorkloadEntry>],
    now: Timestamp,
) -> Option<(Cluster, Vec<Move>, f64)> {
    let mut fork = cluster.clone();
    let mut moves = Vec::new();
    for w in set {
        let from = w.live()?.node_id;
        let to = moved(&mut fork, w, now)?;
        if to == from {
            return None;
        }
        let lost_gpu_ms = lost_gpu_ms(&cluster.policy.preemption, w, now);
        moves.push(Move { workload_id: w.workload_id, from, to, lost_gpu_ms });
    }
    let touched: BTreeSet<NodeId> = moves.iter().flat_map(|one| [one.from, one.to]).collect();
    let lost = |of: &Cluster| -> f64 {
        touched.iter().filter_map(|id| of.nodes.get(*id)).map(|node| measure.lost_on(of, node)).sum()
    };
    let gained = lost(cluster) - lost(&fork);
    Some((fork, moves, gained))
}

/// It has ended and starts again by the scheduler's rules; the node that it goes to.
fn moved(fork: &mut Cluster, w: &WorkloadEntry, now: Timestamp) -> Option<NodeId> {
    let (workload_id, why) = (w.workload_id, WorkloadReason::Defragmented);
    let attempt = w.live()?.attempt;
    let claimed = fork.clone();
    let apply = |fork: &mut Cluster, event: Event| {
        let (principal, reason) = (String::new(), String::new());
        fork.apply(&EventRecord { at: now, principal, reason, operation_id: None, event });
    };
    apply(
        fork,
        Event::AttemptEnded {
            workload_id,
            attempt,
            state: WorkloadState::Stopped,
            why,
            detail: String::new(),
            exit_code: None,
            signal: None,
            node_at: None,
        },
    );
    apply(fork, Event::WorkloadRequeued { workload_id, why, not_before: None, counts: false });
    // Who waits before it goes first, as it will be; then it may find no place at all.
    let (caller, mut ids) = (Caller::system(now), CountingIds::new(0));
    let _moved = reschedule(fork, &caller, &mut ids);
    let place = fork.workloads.get(workload_id)?.live().cloned()?;
    // What is kept for work that waits is not for what moves.
    let is_kept = |gpu: &GpuUuid| claimed.workloads.claimants(gpu).next().is_some();
    (!place.gpus.iter().any(is_kept)).then_some(place.node_id)
}
