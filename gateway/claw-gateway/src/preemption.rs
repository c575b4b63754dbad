//! # claw-preemption: whom to stop so that more important work can start:
//! [`PreemptionPolicy`], [`Victim`].
//!
//! Only work that said `preemptible` is stopped, only for work of a higher
//! priority (or of the same, where a tenant takes back what it is guaranteed from those who hold more than
//! they are, see [`crate::tenancy`]), and only if that work then fits: either a whole set of victims makes
//! its place, or nobody is touched. Of the sets that would do, the one that touches
//! the least important work and then loses least is taken, as far as a bounded search finds it: on a
//! node 256 sets are looked at and 32 tried; for several nodes the nodes are freed one by one. What
//! is lost is counted in GPU seconds since the last checkpoint, as its program told or as its interval
//! says; of a program that is known to write one within its grace, what it does while it writes. A program that tells of
//! checkpoints is told to write one more and stopped when it has, or after its grace; any
//! other, and one that is known to need longer for that, gets TERM and its grace, which is its notice.

pub(crate) mod defrag;
mod sets;

use std::sync::Arc;

use claw_proto::ids::WorkloadId;
use claw_proto::time::Timestamp;
use claw_proto::validation::GPU_MILLI;

use crate::Cluster;
use crate::scheduler::{Decision, decide_for};
use crate::tenancy;
use crate::workload::{Claim, WorkloadEntry};

use self::sets::{Weighed, for_gang, for_one, without};

/// A day, milliseconds: what [`PreemptionPolicy::per_day_max`] counts over.
pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// So many victims at most are weighed for one workload: the least important and cheapest.
const WEIGHED_MAX: usize = 512;

/// A tick comes each second: who became ripe within so long is looked at again, milliseconds.
const JUST_RIPE_MS: i64 = 5_000;
/// So many that wait are asked at a tick whether they could take something back.
const WAITING_LOOKED_MAX: usize = 32;

/// Whom more important work may stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreemptionPolicy {
    /// Nobody is stopped that ran for less, milliseconds.
    pub min_run_ms: i64,
    /// Nobody is stopped more often within 24 hours.
    pub per_day_max: usize,
    /// Work that states no checkpoint interval is taken to lose at most this, seconds:
    /// stating none must not be a shield.
    pub assumed_checkpoint_s: u64,
}

impl Default for PreemptionPolicy {
    fn default() -> Self {
        Self { min_run_ms: 60_000, per_day_max: 3, assumed_checkpoint_s: 1_800 }
    }
}

/// Somebody who would have to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// Who.
    pub workload_id: WorkloadId,
    /// What it would lose, thousandths of GPU seconds (a workload without GPUs counts as one).
    pub lost_gpu_ms: u64,
}

/// What somebody would lose if it were stopped now, thousandths of GPU seconds: what its last
/// checkpoint does not hold, by its own word; if it never told of one, what it did since the last that
/// its interval says. One that is known to write a checkpoint within its grace is told to write one
/// more, and loses what it does while it writes that. Of one that fell silent no more counts than its
/// interval or what is assumed: telling of one checkpoint and then of none is no shield either.
pub fn lost_gpu_ms(policy: &PreemptionPolicy, w: &WorkloadEntry, now: Timestamp) -> u64 {
    let ran_ms = w.started_at().map_or(0, |at| u64::try_from(now.ms_since(at)).unwrap_or(0));
    let stated_s = w.spec.spec().checkpoint_interval_s;
    let since_checkpoint_ms = match (w.checkpoint_of_latest(), stated_s) {
        (Some(written), _) => {
            let since_ms = u64::try_from(now.ms_since(written.at)).unwrap_or(0);
            let most_s = policy.assumed_checkpoint_s.max(stated_s.unwrap_or(0));
            let took_ms = u64::from(written.took_ms.unwrap_or(0));
            let unheld_ms = (since_ms + took_ms).min(ran_ms).min(most_s.saturating_mul(1_000));
            if writes_in_time(w) == Some(true) { unheld_ms.min(took_ms) } else { unheld_ms }
        }
        (None, Some(interval_s @ 1..)) => ran_ms % interval_s.saturating_mul(1_000),
        (None, Some(0) | None) => ran_ms.min(policy.assumed_checkpoint_s.saturating_mul(1_000)),
    };
    let milli = match w.spec.demand().gpu_milli_total() {
        0 => u64::from(GPU_MILLI),
        milli => milli,
    };
    since_checkpoint_ms.saturating_mul(milli) / u64::from(GPU_MILLI)
}

/// Whether it writes a checkpoint within the grace that it has; nothing where that is not known.
pub(crate) fn writes_in_time(w: &WorkloadEntry) -> Option<bool> {
    let took_ms = w.checkpoint_of_latest()?.took_ms?;
    Some(u64::from(took_ms) <= u64::from(w.spec.grace_s()) * 1_000)
}

/// May it be stopped at this instant, for work of a higher priority or to be moved?
fn is_ripe(policy: &PreemptionPolicy, w: &WorkloadEntry, now: Timestamp) -> bool {
    // What has not begun loses nothing.
    let ran_long = |at: Timestamp| now.ms_since(at) >= policy.min_run_ms;
    let is_long = w.started_at().is_none_or(ran_long);
    let n_recent = w.preempted_at.iter().filter(|at| now.ms_since(**at) < DAY_MS).count();
    is_long && n_recent < policy.per_day_max
}

/// Some workload may become ripe by time alone while others wait: worth a look at each tick.
pub fn may_ripen(cluster: &Cluster) -> bool {
    let highest = cluster.workloads.queue().next().and_then(|id| cluster.workloads.get(id));
    let is_above =
        |w: &Arc<WorkloadEntry>| cluster.workloads.preemptible_below(w.spec.priority().value()).next().is_some();
    highest.is_some_and(is_above) || may_take_back(cluster)
}

/// Somebody just became ripe of whom one that waits might take back what it is guaranteed.
fn may_take_back(cluster: &Cluster) -> bool {
    if cluster.tenants.is_empty() {
        return false;
    }
    let min_run_ms = cluster.policy.preemption.min_run_ms;
    let became_ripe = |w: &&Arc<WorkloadEntry>| {
        let ran_ms = w.started_at().map(|at| cluster.clock.ms_since(at));
        ran_ms.is_some_and(|ran_ms| (min_run_ms..min_run_ms + JUST_RIPE_MS).contains(&ran_ms))
    };
    let waiting = cluster.workloads.queue().take(WAITING_LOOKED_MAX).filter_map(|id| cluster.workloads.get(id));
    waiting.filter(|w| tenancy::is_guaranteed(cluster, &w.spec, Some(w))).any(|w| {
        let priority = w.spec.priority().value();
        let equals =
            cluster.workloads.preemptible_below(priority + 1).filter(|v| v.spec.priority().value() == priority);
        equals.take(WEIGHED_MAX).any(|v| became_ripe(&v))
    })
}

/// Who has to leave so that `entry` fits, and where it goes then; nothing if no
/// set of victims makes room for all of it.
pub fn plan(cluster: &Cluster, entry: &WorkloadEntry, now: Timestamp) -> Option<(Claim, Vec<Victim>)> {
    let policy = &cluster.policy.preemption;
    let priority = entry.spec.priority().value();
    // What its tenant is guaranteed is taken back from who borrowed it, of the same priority as well.
    let lent = tenancy::Lent::to_take_back(cluster, entry);
    let candidates = cluster.workloads.preemptible_below(priority + u32::from(lent.is_some()));
    let mut ripe: Vec<Weighed> = candidates
        .filter(|w| is_ripe(policy, w, now))
        .map(|w| Weighed { lost_gpu_ms: lost_gpu_ms(policy, w, now), entry: Arc::clone(w) })
        .collect();
    ripe.sort_by_key(Weighed::order);
    ripe.truncate(WEIGHED_MAX);
    let is_less = |v: &Weighed| v.entry.spec.priority().value() < priority;
    let taken_back = lent.and_then(|lent| {
        let may = |mut some: Vec<Weighed>| {
            let mut lent = lent.clone();
            some.retain(|v| is_less(v) || lent.takes(&v.entry));
            some
        };
        let chosen = chosen(cluster, entry, &ripe, may)?;
        // With the less important ones that leave as well, everybody has to keep what is guaranteed.
        let mut lent = lent.clone();
        chosen.iter().filter(|v| is_less(v)).for_each(|v| lent.debit(&v.entry));
        chosen.iter().all(|v| is_less(v) || lent.takes(&v.entry)).then_some(chosen)
    });
    let chosen = taken_back.or_else(|| {
        ripe.retain(is_less);
        chosen(cluster, entry, &ripe, |some| some)
    })?;
    let Decision::Place { places, .. } = decide_for(&without(cluster, &chosen), entry) else {
        return None;
    };
    let reclaims = chosen.iter().any(|v| v.entry.spec.priority().value() >= priority);
    let claim =
        Claim { places, victims: chosen.iter().map(|v| v.entry.workload_id).collect(), begins_at: None, reclaims };
    let victims = chosen.iter().map(|v| Victim { workload_id: v.entry.workload_id, lost_gpu_ms: v.lost_gpu_ms });
    Some((claim, victims.collect()))
}

/// The cheapest set that makes room.
fn chosen(
    cluster: &Cluster,
    entry: &WorkloadEntry,
    ripe: &[Weighed],
    may: impl Fn(Vec<Weighed>) -> Vec<Weighed>,
) -> Option<Vec<Weighed>> {
    if ripe.is_empty() {
        return None;
    }
    if entry.spec.nodes() > 1 {
        return for_gang(cluster, entry, &may(ripe.to_vec()));
    }
    for_one(cluster, entry, ripe, may)
}

/// Takes a workload out of a fork, as if it had ended.
pub(crate) fn free(fork: &mut Cluster, id: WorkloadId) {
    let Some(w) = fork.workloads.get(id).cloned() else {
        return;
    };
    for live in w.lives() {
        let n_gpus = fork.workloads.n_alone(id, live.node_id, &live.gpus);
        fork.nodes.update(live.node_id, |node| node.usage.give_back(id, w.spec.node_demand(), n_gpus));
        let less = tenancy::part_amounts(&w.spec);
        let give = |books: &mut tenancy::Books| books.held = books.held.minus(less);
        fork.tenants.change(w.spec.spec().tenant.as_deref(), &give, fork.policy.half_life_s());
    }
    fork.workloads.forget(id);
}
