//! Reservation: what has waited long keeps the room that becomes free next, so
//! that a stream of smaller work cannot pass it for ever.
//!
//! Only room whose end is known is reserved: on the nodes in question everything
//! that runs says how long at most (`max_duration_s`). Where nothing says when it
//! ends, keeping what becomes free would leave GPUs idle for who knows how long.
//! Until then, who is sure to have ended may use it (conservative backfill, Mu'alem
//! and Feitelson, TPDS 2001): what is promised is the latest start, and it stays.

use std::sync::Arc;

use claw_proto::time::Timestamp;
use claw_tools::nodes::{NodeLink, Schedulable};

use super::{Decision, Place, decide_for, place_on};
use crate::Cluster;
use crate::preemption::free;
use crate::registry::NodeEntry;
use crate::reservations::keeping_out;
use crate::workload::{Claim, WorkloadEntry};

/// Where `entry` will fit first, if that can be known.
pub(crate) fn plan(cluster: &Cluster, entry: &WorkloadEntry, now: Timestamp) -> Option<Claim> {
    let mut nodes: Vec<(Timestamp, &Arc<NodeEntry>)> =
        cluster.nodes.iter().filter_map(|node| Some((free_at(cluster, node, now)?, node))).collect();
    nodes.sort_by_key(|(at, node)| (*at, node.node_id));
    let mut fork = cluster.clone();
    for (at, node) in nodes {
        if entry.spec.nodes() == 1 {
            fork = cluster.clone();
        }
        // What is kept for tenants by then keeps it out as well.
        fork.clock = fork.clock.max(at);
        for id in &node.usage.workloads {
            free(&mut fork, *id);
        }
        if let Some(places) = places(&fork, node, entry) {
            let claim = Claim { places, victims: Vec::new(), begins_at: Some(at), reclaims: false };
            if stands(cluster, entry, &claim) {
                return Some(claim);
            }
        }
    }
    None
}

/// Where it fits once this node is free: there, if it is to stand on one.
fn places(fork: &Cluster, node: &NodeEntry, entry: &WorkloadEntry) -> Option<Vec<Place>> {
    if entry.spec.nodes() == 1 {
        return place_on(fork, fork.nodes.get(node.node_id)?, entry).map(|place| vec![place]);
    }
    match decide_for(fork, entry) {
        Decision::Place { places, .. } => Some(places),
        Decision::Wait { .. } => None,
    }
}

/// The nodes of a claim still take work, and none is kept for somebody else by now.
pub(crate) fn stands(cluster: &Cluster, entry: &WorkloadEntry, claim: &Claim) -> bool {
    let spec = entry.spec.spec();
    let (tenant, limit) = (spec.tenant.as_deref(), spec.max_duration_s);
    claim.places.iter().all(|place| {
        cluster.nodes.get(place.node_id).is_some_and(|node| takes_work(node))
            && keeping_out(cluster, place.node_id, tenant, limit).is_none()
    })
}

/// When all that runs on the nodes of a claim will have ended at the latest; nothing if something has no end.
pub(crate) fn begins_at(cluster: &Cluster, claim: &Claim, now: Timestamp) -> Option<Timestamp> {
    let nodes = claim.places.iter().map(|place| cluster.nodes.get(place.node_id));
    nodes.map(|node| free_at(cluster, node?, now)).try_fold(now, |latest, at| Some(latest.max(at?)))
}

/// When all that runs there will have ended at the latest.
fn free_at(cluster: &Cluster, node: &NodeEntry, now: Timestamp) -> Option<Timestamp> {
    if !takes_work(node) {
        return None;
    }
    let mut latest = now;
    for id in &node.usage.workloads {
        let w = cluster.workloads.get(*id)?;
        let seconds = w.spec.spec().max_duration_s?;
        let from = w.live_on(node.node_id).and_then(|a| a.started_at).unwrap_or(now);
        latest = latest.max(from.plus_ms(i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX / 4)));
    }
    Some(latest)
}

fn takes_work(node: &NodeEntry) -> bool {
    node.link == NodeLink::Online && node.schedulable == Schedulable::Active
}
