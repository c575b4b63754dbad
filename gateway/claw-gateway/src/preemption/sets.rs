//! Sets of victims: the cheapest that makes room.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::free;
use crate::Cluster;
use crate::registry::NodeEntry;
use crate::scheduler::{Decision, decide_for, place_on};
use crate::workload::WorkloadEntry;

/// Somebody who could leave, with what that costs.
#[derive(Debug, Clone)]
pub(super) struct Weighed {
    pub(super) lost_gpu_ms: u64,
    pub(super) entry: Arc<WorkloadEntry>,
}

impl Weighed {
    /// The least important first, then the one that loses least, then the newest.
    pub(super) fn order(&self) -> (u32, u64, std::cmp::Reverse<u64>) {
        (self.entry.spec.priority().value(), self.lost_gpu_ms, std::cmp::Reverse(self.entry.order))
    }
}

/// What a set costs: the highest priority that it touches, what is lost, how many leave.
fn cost(set: &[Weighed]) -> (u32, u64, usize) {
    let highest = set.iter().map(|v| v.entry.spec.priority().value()).max().unwrap_or(0);
    (highest, set.iter().map(|v| v.lost_gpu_ms).sum(), set.len())
}

/// The fleet as if these had ended.
pub(super) fn without(cluster: &Cluster, victims: &[Weighed]) -> Cluster {
    let mut fork = cluster.clone();
    for victim in victims {
        free(&mut fork, victim.entry.workload_id);
    }
    fork
}

/// The cheapest set on any one node.
pub(super) fn for_one(cluster: &Cluster, entry: &WorkloadEntry, ripe: &[Weighed]) -> Option<Vec<Weighed>> {
    let homes: BTreeSet<_> = ripe.iter().flat_map(|v| v.entry.lives().map(|a| a.node_id)).collect();
    let sets = homes.into_iter().filter_map(|home| {
        let node = cluster.nodes.get(home)?;
        let here: Vec<Weighed> = ripe.iter().filter(|v| v.entry.live_on(home).is_some()).cloned().collect();
        on_node(cluster, node, entry, &here)
    });
    sets.min_by_key(|set| cost(set))
}

/// The cheapest set on this node: as few as are needed in order, then without those that turn out to be needless.
fn on_node(cluster: &Cluster, node: &Arc<NodeEntry>, entry: &WorkloadEntry, here: &[Weighed]) -> Option<Vec<Weighed>> {
    let fits = |victims: &[Weighed]| {
        let fork = without(cluster, victims);
        fork.nodes.get(node.node_id).is_some_and(|node| place_on(&fork, node, entry).is_some())
    };
    least(here, fits)
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
    dearest.sort_by_key(|v| std::cmp::Reverse(v.order()));
    for needless in dearest {
        let id = needless.entry.workload_id;
        let rest: Vec<Weighed> = set.iter().filter(|v| v.entry.workload_id != id).cloned().collect();
        if fits(&rest) {
            set = rest;
        }
    }
    (!set.is_empty()).then_some(set)
}
