//! Where a workload goes, and why not elsewhere.
//!
//! A first policy: feasible, then best fit over GPU, memory and CPU, one NVLink
//! island preferred (and required where asked for). Pure: cluster in, report
//! out. The phases are numbered.

mod answers;
pub(crate) mod apart;
pub mod certificate;
mod detail;
pub mod fairness;
mod fit;
mod gang;
mod index;
pub mod jobs;
pub(crate) mod likely;
mod likes;
pub mod packing;
mod rank;
mod recent;
mod report;
pub(crate) mod reserve;
mod row;
mod tournament;
mod view;

use std::sync::Arc;

use self::answers::{Answers, Asks};
use self::fit::Claims;
pub use self::index::Handle as IndexHandle;
use self::likely::Losses;
pub use self::likely::{Likely, LikelyWork};
use self::view::{Gpu, View};

use claw_proto::ids::{Attempt, GpuUuid, NodeId, WorkloadId};
use claw_proto::spec::{Placement, PlacementStrategy, RuntimeKind};
use claw_proto::validation::ValidSpec;
use claw_tools::workloads::{PlacementReason, PlacementReport};

use crate::Cluster;
use crate::event::Event;
use crate::registry::NodeEntry;
use crate::tenancy;
pub use crate::workload::Place;
use crate::workload::{Part, WorkloadEntry, ends_by};

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
struct Candidate<'a> {
    view: &'a View,
    /// GPUs, in order of their index on the node.
    chosen: Arc<[Gpu]>,
    runtime: RuntimeKind,
    score: Score,
}

/// Lower is better; compared field by field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// Real hardware before simulated, unless the spec says otherwise.
    simulated: bool,
    /// It is not kept for its tenant.
    unreserved: bool,
    /// How many models its spec would rather have than that of these GPUs.
    fallback: u8,
    /// GPUs spread over several islands.
    broken_island: bool,
    /// GPUs without an island in common that are on several NUMA nodes: what they tell each other goes over the
    /// processors' link.
    split_numa: bool,
    /// What it takes from work that is likely to come, see [`likely`].
    lost: u32,
    /// A share takes a GPU that nobody has a part of, while others would do.
    opened: bool,
    /// What is left of the GPU that it shares, thousandths.
    milli_left: u16,
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

/// The most that a score says is left: above it, it is turned around for who wants to be spread.
const LEFT_MAX: u32 = 65_535;

/// The same, thousandths of a GPU.
const MILLI_LEFT_MAX: u16 = 1_023;

/// Where it goes, and why there.
pub(crate) type Placed = (Vec<Place>, Arc<PlacementReport>);

/// What became of an attempt to place a workload, without the reasons of those that have to wait.
#[derive(Debug, Clone)]
pub(crate) enum Trial {
    /// It can start here.
    Place(Placed),
    /// It cannot start now.
    Wait {
        /// It may, without a change of the fleet or the spec.
        waiting_helps: bool,
    },
}

/// Who is not taken is named from so many nodes at most where a workload found a place; that
/// must not take longer in a larger fleet.
const NAMED_AMONG: usize = 1_024;

/// Decides about a workload that nobody has submitted yet: it stands behind all others.
/// Quotas are looked at first: what its tenant may not have has no place.
pub fn decide(cluster: &Cluster, spec: &ValidSpec) -> Decision {
    decide_as(cluster, spec, None)
}

/// Decides about one workload of the queue: room that is being made for it, or for those behind it, is its own.
pub fn decide_for(cluster: &Cluster, entry: &WorkloadEntry) -> Decision {
    decide_as(cluster, &entry.spec, Some(entry))
}

/// Decides about `spec`, at the place of `asker` in the queue.
pub(crate) fn decide_as(cluster: &Cluster, spec: &ValidSpec, asker: Option<&WorkloadEntry>) -> Decision {
    if let Some(report) = tenancy::blocked(cluster, spec, asker) {
        return Decision::Wait { report: Arc::new(report) };
    }
    let asks = asks(cluster, spec, asker);
    cluster.scheduler.ask(cluster, |index| {
        let mut answers = index.answers(spec, asks);
        match place(&mut answers, spec) {
            Some((places, report)) => Decision::Place { places, report },
            None => Decision::Wait { report: why_nowhere(&mut answers, spec) },
        }
    })
}

/// Whether and where a workload of the queue can start; why not is told by [`why_it_waits`].
pub(crate) fn attempt(cluster: &Cluster, entry: &WorkloadEntry) -> Trial {
    let spec = &entry.spec;
    let asks = asks(cluster, spec, Some(entry));
    cluster.scheduler.ask(cluster, |index| {
        let mut answers = index.answers(spec, asks);
        match place(&mut answers, spec) {
            Some(placed) => Trial::Place(placed),
            None => Trial::Wait { waiting_helps: waiting_helps(&answers, spec) },
        }
    })
}

/// Why no node takes a workload of the queue.
pub(crate) fn why_it_waits(cluster: &Cluster, entry: &WorkloadEntry) -> Arc<PlacementReport> {
    let asks = asks(cluster, &entry.spec, Some(entry));
    cluster.scheduler.ask(cluster, |index| why_nowhere(&mut index.answers(&entry.spec, asks), &entry.spec))
}

/// Nodes that would take a workload of the queue, or a part of it, if others had less of them: with what is short.
pub(crate) fn busy_nodes(cluster: &Cluster, entry: &WorkloadEntry) -> Vec<(NodeId, PlacementReason)> {
    let asks = asks(cluster, &entry.spec, Some(entry));
    cluster.scheduler.ask(cluster, |index| index.answers(&entry.spec, asks).busy())
}

/// What holds for this asker alone.
fn asks<'a>(cluster: &'a Cluster, spec: &ValidSpec, asker: Option<&'a WorkloadEntry>) -> Asks<'a> {
    let left_out = apart::left_out(cluster, spec, asker);
    let name = |id: WorkloadId| cluster.workloads.get(id).map_or("", |w| w.name.as_str());
    let apart = left_out.into_iter().map(|(node_id, id)| (node_id, name(id))).collect();
    Asks { claims: claims(cluster, spec, asker), apart }
}

fn claims<'a>(cluster: &'a Cluster, spec: &ValidSpec, asker: Option<&'a WorkloadEntry>) -> Option<Claims<'a>> {
    let is_kept = cluster.workloads.has_claims() || !cluster.reservations.is_empty();
    is_kept.then(|| Claims {
        cluster,
        asker,
        ends_at: ends_by(spec, cluster.clock),
        is_guaranteed: tenancy::is_guaranteed(cluster, spec, asker),
    })
}

/// The best place: best fit, or the nearest nodes for several.
fn place(answers: &mut Answers<'_>, spec: &ValidSpec) -> Option<Placed> {
    if spec.nodes() > 1 {
        if answers.n_candidates() < spec.nodes() as usize {
            return None;
        }
        let (candidates, claims) = (answers.candidates(), answers.claims());
        let is_free = |view: &View, gpu: &Gpu| {
            let kept = |claims: Claims<'_>| view.info(gpu).map_or(0, |info| claims.kept_milli(&info.uuid));
            claims.is_none_or(|claims| kept(claims) == 0)
        };
        return gang::place(answers.considered, &candidates, || answers.rejected(NAMED_AMONG), spec, is_free);
    }
    let (best, second) = answers.best_two()?;
    let considered = (answers.considered, answers.n_candidates());
    let report = report::placed(considered, &best, second, answers.rejected(NAMED_AMONG), spec);
    Some((vec![best.place()], Arc::new(report)))
}

fn waiting_helps(answers: &Answers<'_>, spec: &ValidSpec) -> bool {
    match spec.nodes() as usize {
        0 | 1 => answers.n_transient() > 0,
        n_nodes => answers.n_candidates() + answers.n_transient() >= n_nodes,
    }
}

fn why_nowhere(answers: &mut Answers<'_>, spec: &ValidSpec) -> Arc<PlacementReport> {
    if let Some(report) = answers.told() {
        return report;
    }
    let rejected = answers.rejected(usize::MAX);
    let report = Arc::new(match spec.nodes() {
        0 | 1 => report::waits(answers.considered, rejected),
        _ => gang::waits(answers.considered, &answers.candidates(), rejected, spec),
    });
    answers.tell(&report);
    report
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

impl Candidate<'_> {
    fn node(&self) -> &NodeEntry {
        &self.view.node
    }

    fn gpus(&self) -> Vec<GpuUuid> {
        self.chosen.iter().filter_map(|gpu| self.view.info(gpu)).map(|info| info.uuid.clone()).collect()
    }

    /// The NVLink island of all its GPUs, as the node numbers it.
    fn island(&self) -> Option<u32> {
        fit::common_island(&self.chosen)?;
        self.chosen.first().and_then(|gpu| self.view.info(gpu)).and_then(|info| info.nvlink_island)
    }

    /// Whoever shares its GPU is held to the share's memory.
    fn caps_shares(&self) -> bool {
        self.chosen.first().and_then(|gpu| self.view.info(gpu)).is_some_and(|info| info.caps_shares)
    }

    /// Model of its GPUs.
    fn model(&self) -> Option<&str> {
        self.chosen.first().and_then(|gpu| self.view.info(gpu)).map(|info| info.model.as_str())
    }

    fn place(&self) -> Place {
        Place { node_id: self.view.node_id(), gpus: self.gpus(), runtime: self.runtime }
    }
}

/// This node alone can take it, or a part of it: here.
pub(crate) fn place_on(cluster: &Cluster, node: &Arc<NodeEntry>, entry: &WorkloadEntry) -> Option<Place> {
    let losses = Losses::of(cluster);
    let mut view = View::of(cluster, node);
    view.measure(&losses);
    let fit = fit::judge(&view, &entry.spec, claims(cluster, &entry.spec, Some(entry)), &losses).ok()?;
    if apart::is_left_out(cluster, entry, node, |_| false) {
        return None;
    }
    Some(fit.candidate(&view).place())
}

/// A shape whose answer is another one than that of a scheduler that knows nothing yet.
pub(crate) fn stale(cluster: &Cluster) -> Option<Arc<ValidSpec>> {
    let fresh = cluster.detached();
    let known = cluster.scheduler.ask(cluster, |index| index.known());
    known.into_iter().find(|spec| decide(cluster, spec) != decide(&fresh, spec))
}

/// Two specs of the same shape get the same answer from the same fleet, whoever asks.
pub fn same_shape(a: &ValidSpec, b: &ValidSpec) -> bool {
    same_kind(a, b) && apart::wanted(a) == apart::wanted(b)
}

/// The same, but for whom they are kept apart from, of which no node knows.
fn same_kind(a: &ValidSpec, b: &ValidSpec) -> bool {
    let alike = |p: &Placement, q: &Placement| {
        // All fields are named, so that a new one is thought of here.
        let Placement { node, exclude_nodes, zone, labels, strategy, tolerations, anti_affinity: _ } = p;
        (node, zone, strategy) == (&q.node, &q.zone, &q.strategy)
            && (exclude_nodes, labels, tolerations) == (&q.exclude_nodes, &q.labels, &q.tolerations)
    };
    let placed_alike = match (&a.spec().placement, &b.spec().placement) {
        (None, None) => true,
        (Some(p), Some(q)) => alike(p, q),
        _ => false,
    };
    placed_alike
        && a.demand() == b.demand()
        && a.nodes() == b.nodes()
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
