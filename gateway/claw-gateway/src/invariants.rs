//! What is always true of a [`Cluster`], each with a name.
//!
//! Checked after every decision in the property tests and in simulation, and by
//! the shell in debug builds.

use std::collections::{BTreeMap, BTreeSet};

use claw_proto::ids::{GpuUuid, NodeId, WorkloadId};
use claw_proto::validation::GPU_MILLI;
use claw_tools::nodes::Schedulable;
use claw_tools::operations::OperationState;
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use crate::Cluster;
use crate::cluster::SNAPSHOT_FORMAT;
use crate::scheduler;
use crate::workload::{AttemptEntry, Desired};

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant {name} is broken: {detail}")]
pub struct Broken {
    /// Its name.
    pub name: &'static str,
    /// By what.
    pub detail: String,
}

type Check = Result<(), Broken>;
type Invariant = (&'static str, fn(&Cluster) -> Result<(), String>);

/// All invariants by name.
pub const INVARIANTS: &[Invariant] = &[
    ("S1_no_gpu_double_booked", no_gpu_double_booked),
    ("S2_all_or_nothing", all_or_nothing),
    ("S3_no_node_overcommitted", no_node_overcommitted),
    ("S7_everything_pending_has_a_reason", pending_has_reason),
    ("live_attempt_iff_active_state", live_iff_active),
    ("gpus_belong_to_their_node", gpus_belong_to_node),
    ("drained_nodes_are_empty", drained_is_empty),
    ("open_operations_are_pending", open_is_pending),
    ("attempts_rise", attempts_rise),
    ("reservations_share_no_node", reservations_share_no_node),
];

/// Checks all; cheap enough for every step of a test.
pub fn check(cluster: &Cluster) -> Check {
    for (name, invariant) in INVARIANTS {
        invariant(cluster).map_err(|detail| Broken { name, detail })?;
    }
    Ok(())
}

/// The indexes are what a rebuild from the entities gives. Costs a serialization.
pub fn check_indexes(cluster: &Cluster) -> Check {
    let broken = |detail: String| Broken { name: "indexes_equal_a_rebuild", detail };
    let bytes = cluster.to_snapshot();
    let rebuilt =
        Cluster::from_snapshot(SNAPSHOT_FORMAT, &bytes, cluster.policy.clone()).map_err(|e| broken(e.to_string()))?;
    let same = [
        ("nodes", rebuilt.nodes == cluster.nodes),
        ("workloads", rebuilt.workloads == cluster.workloads),
        ("tenants", rebuilt.tenants == cluster.tenants),
        ("likely", rebuilt.likely == cluster.likely),
        ("open_by_workload", rebuilt.open_by_workload == cluster.open_by_workload),
        ("open_by_node", rebuilt.open_by_node == cluster.open_by_node),
        ("receipts_by_time", rebuilt.receipts_by_time == cluster.receipts_by_time),
    ];
    if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
        return Err(broken(format!("{what} differ")));
    }
    match scheduler::stale(cluster) {
        None => Ok(()),
        Some(spec) => {
            Err(broken(format!("the scheduler knows another answer than the fleet gives: {:?}", spec.spec())))
        }
    }
}

fn no_gpu_double_booked(c: &Cluster) -> Result<(), String> {
    let mut taken: BTreeMap<&GpuUuid, Vec<(WorkloadId, u16)>> = BTreeMap::new();
    for w in c.workloads.iter() {
        for gpu in w.lives().flat_map(|a| &a.gpus) {
            taken.entry(gpu).or_default().push((w.workload_id, w.spec.demand().gpu_milli));
        }
    }
    for (gpu, shares) in &taken {
        if shares.iter().map(|(_, milli)| u32::from(*milli)).sum::<u32>() > u32::from(GPU_MILLI) {
            return Err(format!("{gpu} is given away more than once: {shares:?}"));
        }
        let ledger: Vec<(WorkloadId, u16)> = c.workloads.holders(gpu).iter().flat_map(|h| h.each()).collect();
        if ledger != *shares {
            return Err(format!("{gpu} is held by {shares:?}, and by {ledger:?} in the ledger"));
        }
    }
    for n in c.nodes.iter() {
        let its = n.usage.workloads.iter().filter_map(|id| c.workloads.get(*id)).filter_map(|w| w.live_on(n.node_id));
        let held: BTreeSet<&GpuUuid> = its.flat_map(|live| &live.gpus).collect();
        if n.usage.gpus as usize != held.len() {
            return Err(format!("{} holds {} GPUs and counts {}", n.name, held.len(), n.usage.gpus));
        }
    }
    let n_ledger = c.workloads.held().count();
    if n_ledger != taken.len() {
        return Err(format!("the ledger holds {n_ledger} GPUs, live attempts hold {}", taken.len()));
    }
    Ok(())
}

/// No start that is promised to one of the queue depends on another.
fn reservations_share_no_node(c: &Cluster) -> Result<(), String> {
    let mut kept: BTreeMap<NodeId, WorkloadId> = BTreeMap::new();
    for w in c.workloads.reserved() {
        let places = w.claim.iter().flat_map(|claim| &claim.places);
        let nodes: BTreeSet<NodeId> = places.map(|place| place.node_id).collect();
        if let Some((node, other)) = nodes.iter().find_map(|node| Some((node, kept.insert(*node, w.workload_id)?))) {
            return Err(format!("{node} is kept for {other} and for {}", w.workload_id));
        }
    }
    Ok(())
}

fn all_or_nothing(c: &Cluster) -> Result<(), String> {
    for w in c.workloads.iter() {
        let wanted = w.spec.node_demand().gpus as usize;
        if let Some(live) = w.lives().find(|live| live.gpus.len() != wanted) {
            return Err(format!("{} wants {wanted} GPUs a node and holds {}", w.workload_id, live.gpus.len()));
        }
        // Once a part has ended badly, the others are on their way out.
        let parts = w.latest();
        let is_whole = parts.len() == w.spec.nodes() as usize;
        let are_well = parts.iter().all(|a| a.live || a.state == WorkloadState::Completed);
        let is_wanted = w.live().is_some() && w.desired == Desired::Run;
        if is_wanted && !(is_whole && are_well) {
            return Err(format!(
                "{} wants {} nodes and has {} parts: {parts:?}",
                w.workload_id,
                w.spec.nodes(),
                parts.len()
            ));
        }
        let nodes: BTreeSet<_> = parts.iter().map(|a| a.node_id).collect();
        if nodes.len() != parts.len() {
            return Err(format!("{} has two parts on one node", w.workload_id));
        }
    }
    Ok(())
}

/// Nothing more is held than is there; hardware that went away under a running
/// workload does not count against the decision that was made before.
fn no_node_overcommitted(c: &Cluster) -> Result<(), String> {
    for n in c.nodes.iter() {
        let Some(cap) = &n.capabilities else { continue };
        let u = &n.usage;
        if !u.workloads.is_empty()
            && (u.cpu_millis > cap.cpu_millis || u.memory_mib > cap.memory_mib || u.disk_mib > cap.disk_mib)
        {
            return Err(format!(
                "{} holds {} millicores of {}, {} MiB of {}",
                n.name, u.cpu_millis, cap.cpu_millis, u.memory_mib, cap.memory_mib
            ));
        }
    }
    Ok(())
}

fn pending_has_reason(c: &Cluster) -> Result<(), String> {
    for w in c.workloads.queue().filter_map(|id| c.workloads.get(id)) {
        if w.reason == WorkloadReason::Submitted {
            return Err(format!("{} waits and nobody looked at it", w.workload_id));
        }
    }
    Ok(())
}

fn live_iff_active(c: &Cluster) -> Result<(), String> {
    for w in c.workloads.iter() {
        let active = !w.state.is_final() && w.state != WorkloadState::Pending;
        if active != w.live().is_some() {
            return Err(format!(
                "{} is {} with{} a live attempt",
                w.workload_id,
                w.state,
                if active { "out" } else { "" }
            ));
        }
        if w.desired != Desired::Run && w.state == WorkloadState::Pending {
            return Err(format!("{} waits though it is to stop", w.workload_id));
        }
    }
    Ok(())
}

fn gpus_belong_to_node(c: &Cluster) -> Result<(), String> {
    for w in c.workloads.iter() {
        for live in w.lives() {
            let Some(n) = c.nodes.get(live.node_id) else {
                return Err(format!("{} runs on a node that is gone", w.workload_id));
            };
            if !n.usage.workloads.contains(&w.workload_id) {
                return Err(format!("{} is not among the workloads of {}", w.workload_id, n.name));
            }
        }
    }
    Ok(())
}

fn drained_is_empty(c: &Cluster) -> Result<(), String> {
    match c.nodes.iter().find(|n| n.schedulable == Schedulable::Drained && !n.usage.workloads.is_empty()) {
        Some(n) => Err(format!("{} is drained and has {} workload(s)", n.name, n.usage.workloads.len())),
        None => Ok(()),
    }
}

fn open_is_pending(c: &Cluster) -> Result<(), String> {
    let open = c.open_by_workload.iter().map(|(_, o)| o).chain(c.open_by_node.iter().map(|(_, o)| o));
    for id in open {
        if c.operations.get(id).is_none_or(|o| o.state != OperationState::Pending) {
            return Err(format!("{id} is open in the index and not pending"));
        }
    }
    Ok(())
}

fn attempts_rise(c: &Cluster) -> Result<(), String> {
    for w in c.workloads.iter() {
        let are_apart = |pair: &[AttemptEntry]| pair[0].first() != pair[1].first();
        let is_wrong = |pair: &[AttemptEntry]| pair[0].attempt >= pair[1].attempt || (pair[0].live && are_apart(pair));
        if w.attempts.windows(2).any(is_wrong) {
            return Err(format!("{} has attempts out of order or an old one alive", w.workload_id));
        }
    }
    Ok(())
}
