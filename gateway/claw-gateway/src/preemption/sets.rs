//! Sets of victims: the cheapest that makes room.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use claw_proto::validation::Demand;

use super::free;
use crate::Cluster;
use crate::registry::NodeEntry;
use crate::scheduler::{Decision, decide_for, place_on};
use crate::workload::WorkloadEntry;

/// So many sets of one node are looked at for one that loses less, and so many of them tried.
const LOOKED_MAX: usize = 256;
const TRIED_MAX: usize = 32;

/// Somebody who could leave, with what that costs.
#[derive(Debug, Clone)]
pub(super) struct Weighed {
    pub(super) lost_gpu_ms: u64,
    pub(super) entry: Arc<WorkloadEntry>,
}

impl Weighed {
    /// The least important first, then the one that loses least, then the newest.
    pub(super) fn order(&self) -> (u32, u64, Reverse<u64>) {
        (self.entry.spec.priority().value(), self.lost_gpu_ms, Reverse(self.entry.order))
    }
}

/// What a set costs: the highest priority that it touches, what is lost, how many leave.
type Cost = (u32, u64, usize);

fn cost(set: &[Weighed]) -> Cost {
    set.iter().fold((0, 0, 0), with)
}

/// What a set costs with one more in it: never less.
fn with((highest, lost_gpu_ms, n): Cost, more: &Weighed) -> Cost {
    (highest.max(more.entry.spec.priority().value()), lost_gpu_ms.saturating_add(more.lost_gpu_ms), n + 1)
}

/// The fleet as if these had ended.
pub(super) fn without(cluster: &Cluster, victims: &[Weighed]) -> Cluster {
    let mut fork = cluster.clone();
    for victim in victims {
        free(&mut fork, victim.entry.workload_id);
    }
    fork
}

/// The cheapest set on any one node, of those there whom `may` lets stop together.
pub(super) fn for_one(
    cluster: &Cluster,
    entry: &WorkloadEntry,
    ripe: &[Weighed],
    may: impl Fn(Vec<Weighed>) -> Vec<Weighed>,
) -> Option<Vec<Weighed>> {
    let homes: BTreeSet<_> = ripe.iter().flat_map(|v| v.entry.lives().map(|a| a.node_id)).collect();
    let sets = homes.into_iter().filter_map(|home| {
        let node = cluster.nodes.get(home)?;
        let here: Vec<Weighed> = ripe.iter().filter(|v| v.entry.live_on(home).is_some()).cloned().collect();
        on_node(cluster, node, entry, &may(here))
    });
    sets.min_by_key(|set| cost(set))
}

/// The cheapest set on this node that a bounded search finds.
fn on_node(cluster: &Cluster, node: &Arc<NodeEntry>, entry: &WorkloadEntry, here: &[Weighed]) -> Option<Vec<Weighed>> {
    let fits = |victims: &[Weighed]| {
        let fork = without(cluster, victims);
        fork.nodes.get(node.node_id).is_some_and(|node| place_on(&fork, node, entry).is_some())
    };
    let whole = |demand: &Demand| if demand.is_share() { 0 } else { demand.gpus };
    let free = u32::try_from(node.given_gpus().count()).unwrap_or(u32::MAX).saturating_sub(node.usage.gpus);
    let gpus = whole(entry.spec.node_demand()).saturating_sub(free);
    Some(cheapest(here, least(here, fits)?, gpus, fits))
}

/// The cheapest set of those `here` that fits, or `known` if none that was tried is cheaper: sets in order of what
/// they cost, from the empty one, those that hold fewer GPUs than are wanted untried.
fn cheapest(here: &[Weighed], known: Vec<Weighed>, gpus: u32, fits: impl Fn(&[Weighed]) -> bool) -> Vec<Weighed> {
    let most = cost(&known);
    let mut open = BinaryHeap::from([Reverse((Cost::default(), Vec::<usize>::new()))]);
    let mut n_tried = 0;
    for _ in 0..LOOKED_MAX {
        let Some(Reverse((so_far, set))) = open.pop() else { break };
        let victims: Vec<Weighed> = set.iter().map(|place| here[*place].clone()).collect();
        let held = victims.iter().fold(0_u32, |sum, v| sum.saturating_add(v.entry.spec.node_demand().gpus));
        if !victims.is_empty() && held >= gpus {
            n_tried += 1;
            if fits(&victims) {
                return victims;
            }
            if n_tried == TRIED_MAX {
                break;
            }
        }
        let after = set.last().map_or(0, |last| last + 1);
        for (place, more) in here.iter().enumerate().skip(after) {
            let all = with(so_far, more);
            if all < most {
                open.push(Reverse((all, set.iter().copied().chain([place]).collect())));
            }
        }
    }
    known
}

/// For several nodes: nodes are freed in order of what they cost, until all parts fit.
pub(super) fn for_gang(cluster: &Cluster, entry: &WorkloadEntry, ripe: &[Weighed]) -> Option<Vec<Weighed>> {
    let homes: BTreeSet<_> = ripe.iter().flat_map(|v| v.entry.lives().map(|a| a.node_id)).collect();
    let mut sets: Vec<Vec<Weighed>> = homes
        .into_iter()
        .filter_map(|home| {
            let here: Vec<Weighed> = ripe.iter().filter(|v| v.entry.live_on(home).is_some()).cloned().collect();
            on_node(cluster, cluster.nodes.get(home)?, entry, &here)
        })
        .collect();
    sets.sort_by_key(|set| cost(set));
    let mut order: Vec<Weighed> = Vec::new();
    for victim in sets.into_iter().flatten() {
        if !order.iter().any(|v| v.entry.workload_id == victim.entry.workload_id) {
            order.push(victim);
        }
    }
    least(&order, |victims| matches!(decide_for(&without(cluster, victims), entry), Decision::Place { .. }))
}

/// The shortest beginning of `order` that fits, found by halving, without those
/// that it does not need, the dearest tried first. Leaving more is never worse for fitting.
fn least(order: &[Weighed], fits: impl Fn(&[Weighed]) -> bool) -> Option<Vec<Weighed>> {
    if !fits(order) {
        return None;
    }
    let (mut too_few, mut enough) = (0, order.len());
    while too_few < enough {
        let half = too_few.midpoint(enough);
        if fits(&order[..half]) { enough = half } else { too_few = half + 1 }
    }
    let mut set = order[..enough].to_vec();
    let mut dearest = set.clone();
    dearest.sort_by_key(|v| Reverse(v.order()));
    for needless in dearest {
        let id = needless.entry.workload_id;
        let rest: Vec<Weighed> = set.iter().filter(|v| v.entry.workload_id != id).cloned().collect();
        if fits(&rest) {
            set = rest;
        }
    }
    (!set.is_empty()).then_some(set)
}
