//! Reservation: what has waited long keeps the room that becomes free next, so
//! that a stream of smaller work cannot pass it for ever.
//!
//! Only room whose end is known is reserved: on the nodes in question everything
//! that runs says how long at most (`max_duration_s`). Where nothing says when it
//! ends, keeping what becomes free would leave GPUs idle for who knows how long.
//! Until then, who is sure to have ended may use it (conservative backfill, Mu'alem
//! and Feitelson, TPDS 2001): the start that is promised is the latest, and comes only nearer. It is withdrawn where it
//! cannot be kept: work that goes before took its place or needs its nodes, or these are not what they were.

use std::collections::BTreeSet;
use std::sync::Arc;

use claw_proto::ids::{GpuUuid, WorkloadId};
use claw_proto::time::Timestamp;
use claw_proto::topology::GpuHealth;
use claw_proto::validation::Demand;
use claw_tools::nodes::{NodeLink, Schedulable};

use super::apart::is_left_out;
use super::fit::is_let_in;
use super::{Decision, Place, decide_for, place_on};
use crate::Cluster;
use crate::preemption::free;
use crate::registry::NodeEntry;
use crate::reservations::keeping_out;
use crate::workload::{Claim, WorkloadEntry, ends_by};

/// Where `entry` will fit first, if that can be known: on nodes that are not kept for who stands before it, so that no
/// start that is promised depends on another.
pub(crate) fn plan(cluster: &Cluster, entry: &WorkloadEntry, now: Timestamp) -> Option<Claim> {
    let before = |w: &&Arc<WorkloadEntry>| w.keeps_what_becomes_free() && w.outranks(entry);
    let is_kept = |node: &NodeEntry| cluster.workloads.claimants_on(node.node_id).any(|w| before(&w));
    let (kept, others): (Vec<_>, Vec<_>) = cluster.nodes.iter().partition(|node| is_kept(node));
    let others = others.into_iter().filter_map(|node| Some((free_at(cluster, node, now)?, node)));
    let mut nodes: Vec<(Timestamp, &Arc<NodeEntry>)> = others.collect();
    nodes.sort_by_key(|(at, node)| (*at, node.node_id));
    let mut without = cluster.clone();
    for node in kept {
        without.nodes.update(node.node_id, |node| node.schedulable = Schedulable::Cordoned);
    }
    let mut fork = without.clone();
    for (at, node) in nodes {
        if entry.spec.nodes() == 1 {
            fork = without.clone();
        }
        // What is kept for tenants by then keeps it out as well.
        fork.clock = fork.clock.max(at);
        for id in &node.usage.workloads {
            free(&mut fork, *id);
        }
        if let Some(places) = places(&fork, node, entry) {
            let claim = Claim { places, victims: Vec::new(), begins_at: Some(at), reclaims: false };
            if stands(cluster, entry, &claim, now) {
                return Some(claim);
            }
        }
    }
    None
}

/// Those behind `entry` that keep what becomes free on nodes of this claim.
pub(crate) fn kept_behind(cluster: &Cluster, entry: &WorkloadEntry, claim: &Claim) -> BTreeSet<WorkloadId> {
    let on_its_nodes = claim.places.iter().flat_map(|place| cluster.workloads.claimants_on(place.node_id));
    let behind = on_its_nodes.filter(|w| w.keeps_what_becomes_free() && entry.outranks(w));
    behind.map(|w| w.workload_id).collect()
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

/// The nodes of a claim still take work, let this in and have what is claimed, none is kept for somebody else by now,
/// and where it was known when it begins, that is known still: somebody more important without an end may have come.
pub(crate) fn stands(cluster: &Cluster, entry: &WorkloadEntry, claim: &Claim, now: Timestamp) -> bool {
    // What runs on these nodes will have ended by then; what runs near them need not.
    let leaves = |w: &WorkloadEntry| claim.places.iter().any(|place| w.live_on(place.node_id).is_some());
    let lets_in = |node: &NodeEntry| is_let_in(node, &entry.spec) && !is_left_out(cluster, entry, node, leaves);
    let can_be_had = |place: &Place| {
        let node = cluster.nodes.get(place.node_id);
        node.is_some_and(|node| takes_work(node) && lets_in(node) && has(cluster, node, place, entry))
            && keeping_out(cluster, place.node_id, &entry.spec).is_none()
    };
    claim.places.iter().all(can_be_had) && (claim.begins_at.is_none() || begins_at(cluster, claim, now).is_some())
}

/// The node has what the place takes of it, whoever holds it now: its GPUs are there and healthy.
fn has(cluster: &Cluster, node: &NodeEntry, place: &Place, entry: &WorkloadEntry) -> bool {
    let (Some(capabilities), demand) = (&node.capabilities, entry.spec.node_demand()) else { return false };
    let is_healthy = |uuid: &GpuUuid| {
        let gpu = capabilities.gpus.iter().find(|gpu| gpu.uuid == *uuid);
        gpu.is_some_and(|gpu| gpu.health == GpuHealth::Healthy) && cluster.nodes.home_of(uuid) == Some(node.node_id)
    };
    capabilities.cpu_millis >= demand.cpu_millis
        && capabilities.memory_mib >= demand.memory_mib
        && capabilities.disk_mib >= demand.disk_mib
        && place.gpus.iter().all(is_healthy)
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
        latest = latest.max(ends_on(cluster.workloads.get(*id)?, node, now)?);
    }
    Some(latest)
}

/// When what runs there has ended at the latest.
fn ends_on(w: &WorkloadEntry, node: &NodeEntry, now: Timestamp) -> Option<Timestamp> {
    ends_by(&w.spec, w.live_on(node.node_id).and_then(|a| a.started_at).unwrap_or(now))
}

/// One that was placed just now may hold what is kept for `kept` when that was to begin: its GPUs, or, with all else
/// that may be there still, too much of its node. Of one without an end it may be over in a moment: whether such a
/// promise stands is looked at by the clock.
pub(crate) fn is_put_off(cluster: &Cluster, kept: &WorkloadEntry, placed: &WorkloadEntry, now: Timestamp) -> bool {
    let claim = kept.claim.as_ref().filter(|_| kept.keeps_what_becomes_free());
    let told = claim.and_then(|claim| Some((claim, claim.begins_at?)));
    let (Some((claim, begins_at)), Some(ends_at)) = (told, ends_by(&placed.spec, now)) else { return false };
    let takes = |place: &Place| {
        let node = cluster.nodes.get(place.node_id);
        placed.live_on(place.node_id).zip(node).is_some_and(|(part, node)| {
            place.gpus.iter().any(|gpu| part.gpus.contains(gpu)) || !has_room(cluster, node, kept, (begins_at, now))
        })
    };
    ends_at > begins_at && claim.places.iter().any(takes)
}

/// The node's cores, memory and disk suffice for a part of this beside all that may be there at that time still.
fn has_room(cluster: &Cluster, node: &NodeEntry, entry: &WorkloadEntry, (at, now): (Timestamp, Timestamp)) -> bool {
    let Some(has) = &node.capabilities else { return false };
    let there = node.usage.workloads.iter().filter_map(|id| cluster.workloads.get(*id));
    let stays = there.filter(|w| ends_on(w, node, now).is_none_or(|ends_at| ends_at > at));
    let demands: Vec<&Demand> = stays.map(|w| &**w).chain([entry]).map(|w| w.spec.node_demand()).collect();
    let sum = |of: fn(&Demand) -> u64| demands.iter().map(|demand| of(demand)).fold(0, u64::saturating_add);
    sum(|d| d.cpu_millis) <= has.cpu_millis
        && sum(|d| d.memory_mib) <= has.memory_mib
        && sum(|d| d.disk_mib) <= has.disk_mib
}

fn takes_work(node: &NodeEntry) -> bool {
    node.link == NodeLink::Online && node.schedulable == Schedulable::Active
}
