//! Where a workload goes, and why not elsewhere.
//!
//! A first policy: feasible, then best fit over GPU, memory and CPU, one NVLink
//! island preferred (and required where asked for). Pure: cluster in, report
//! out. The phases are numbered.

pub mod certificate;
pub mod fairness;
mod fit;
mod gang;
pub mod jobs;
pub mod nowhere;
pub mod packing;
mod report;
pub(crate) mod reserve;

use std::sync::Arc;

use claw_proto::ids::{Attempt, GpuUuid, NodeId};
use claw_proto::spec::{PlacementStrategy, RuntimeKind};
use claw_proto::validation::ValidSpec;
use claw_tools::workloads::{PlacementReason, PlacementReport};

use crate::Cluster;
use crate::event::Event;
use crate::registry::NodeEntry;
pub use crate::workload::Place;
use crate::workload::{Part, WorkloadEntry};

/// A decision about one workload.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It can start here.
    Place {
        /// Where, in order of rank: one place, or one for each node that it spans.
        places: Vec<Place>,
        /// Why here.
        report: Arc<PlacementReport>,
    },
    /// It cannot start now.
    Wait {
        /// Why nowhere.
        report: Arc<PlacementReport>,
    },
}

/// A node that can take the workload, or a part of it.
#[derive(Debug, Clone)]
struct Candidate {
    node: Arc<NodeEntry>,
    gpus: Vec<GpuUuid>,
    island: Option<u32>,
    /// Model of its GPUs.
    model: Option<String>,
    runtime: RuntimeKind,
    score: Score,
}

/// Lower is better; compared field by field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// Real hardware before simulated, unless the spec says otherwise.
    simulated: bool,
    /// GPUs spread over several islands.
    broken_island: bool,
    /// Free GPUs left in the islands that are touched: best fit first.
    island_left: u32,
    /// Free GPUs left on the node.
    gpus_left: u32,
    /// Memory of the taken GPUs beyond what is wanted, MiB: keep large ones for those who need them.
    gpu_memory_over_mib: u64,
    /// Share of CPU and memory left, per mille (turned around for spread).
    host_left_permille: u64,
    /// Decides what is equal, the same way every time.
    node_id: NodeId,
}

/// A node that cannot, with the number that is missing.
#[derive(Debug, Clone)]
struct Rejection {
    name: String,
    reason: PlacementReason,
    detail: String,
}

/// Decides about a workload that nobody has submitted yet: it stands behind all others.
pub fn decide(cluster: &Cluster, spec: &ValidSpec) -> Decision {
    decide_as(cluster, spec, None)
}

/// Decides about one workload of the queue: room that is being made for it, or for those behind it, is its own.
pub fn decide_for(cluster: &Cluster, entry: &WorkloadEntry) -> Decision {
    decide_as(cluster, &entry.spec, Some(entry))
}

/// Decides about `spec`, at the place of `asker` in the queue.
pub(crate) fn decide_as(cluster: &Cluster, spec: &ValidSpec, asker: Option<&WorkloadEntry>) -> Decision {
    // 1. feasible: every node is a candidate or says why not
    let mut candidates = Vec::new();
    let mut rejections = Vec::new();
    for node in cluster.nodes.iter() {
        match fit::check(cluster, node, spec, asker) {
            Ok(candidate) => candidates.push(candidate),
            Err(rejection) => rejections.push(rejection),
        }
    }
    // 2. rank: best fit
    candidates.sort_by(|a, b| a.score.cmp(&b.score));
    if spec.nodes() > 1 {
        return gang::decide(cluster.nodes.len(), &candidates, &rejections, spec);
    }
    // 3. report: the same data that decided
    let report = Arc::new(report::build(cluster.nodes.len(), &candidates, &rejections, spec));
    match candidates.into_iter().next() {
        Some(best) => Decision::Place { places: vec![best.into_place()], report },
        None => Decision::Wait { report },
    }
}

/// The events by which a workload gets its places, in order of rank. They belong into one decision.
pub(crate) fn placements(entry: &WorkloadEntry, places: Vec<Place>, report: &Arc<PlacementReport>) -> Vec<Event> {
    let first = Attempt(entry.attempt().0 + 1);
    let n_nodes = u32::try_from(places.len()).unwrap_or(u32::MAX);
    let ranked = (0..).zip(places);
    let placed = ranked.map(|(node_rank, Place { node_id, gpus, runtime })| Event::WorkloadPlaced {
        workload_id: entry.workload_id,
        attempt: Attempt(first.0 + node_rank),
        node_id,
        gpus,
        runtime,
        part: (n_nodes > 1).then_some(Part { node_rank, n_nodes, first }),
        report: Arc::clone(report),
    });
    placed.collect()
}

impl Candidate {
    fn into_place(self) -> Place {
        Place { node_id: self.node.node_id, gpus: self.gpus, runtime: self.runtime }
    }
}

/// This node alone can take it, or a part of it.
pub(crate) fn fits_on(cluster: &Cluster, node: &Arc<NodeEntry>, entry: &WorkloadEntry) -> bool {
    fit::check(cluster, node, &entry.spec, Some(entry)).is_ok()
}

/// Two specs of the same shape get the same answer from the same fleet.
pub fn same_shape(a: &ValidSpec, b: &ValidSpec) -> bool {
    a.demand() == b.demand()
        && a.nodes() == b.nodes()
        && a.spec().placement == b.spec().placement
        && a.spec().runtime == b.spec().runtime
        && needs(a) == needs(b)
}

/// What decides which runtimes can execute it: (has a model, has an image, has a command).
fn needs(spec: &ValidSpec) -> (bool, bool, bool) {
    let s = spec.spec();
    (s.model.is_some(), s.image.is_some(), s.command.is_some())
}

/// The runtime that this node would use for it. A simulated node simulates
/// everything, and says so; elsewhere an image or a model needs a container
/// engine, and a bare command may run as a process where the node allows it.
fn runtime_for(node: &NodeEntry, spec: &ValidSpec) -> Option<RuntimeKind> {
    let capabilities = node.capabilities.as_ref()?;
    let has = |kind: RuntimeKind| capabilities.runtimes.contains(&kind);
    if let Some(wanted) = spec.spec().runtime {
        return has(wanted).then_some(wanted);
    }
    if capabilities.simulated && has(RuntimeKind::Sim) {
        return Some(RuntimeKind::Sim);
    }
    let (model, image, command) = needs(spec);
    // Which image serves a model is not known here.
    if image && has(RuntimeKind::Docker) {
        return Some(RuntimeKind::Docker);
    }
    if command && !image && !model && has(RuntimeKind::Process) {
        return Some(RuntimeKind::Process);
    }
    None
}

fn spreads(spec: &ValidSpec) -> bool {
    spec.spec().placement.as_ref().and_then(|p| p.strategy) == Some(PlacementStrategy::Spread)
}

#[cfg(test)]
mod tests;
