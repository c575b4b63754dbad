//! `fragmentation_report`: how much of what is free is of use.
//!
//! What is lost is measured as FGD does it (Weng et al., USENIX ATC'23): the free GPUs
//! of a node on which a kind of work does not fit are lost to that kind, and so is what is
//! left of shared GPUs where it needs more of one, weighted by how frequent it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use claw_proto::limits;
use claw_proto::topology::GpuHealth;
use claw_proto::validation::{Demand, GPU_MILLI, takes_model};
use claw_tools::nearest::nearest;
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::refusal::{ErrorCode, Refusal, SuggestedCall};
use claw_tools::scheduling::{
    FragmentationReport, FragmentationReportParams, FragmentedModel, FragmentedNode, FreeOnNodes, MoreWouldFit,
    TypicalWork,
};
use serde_json::json;

use crate::Cluster;
use crate::registry::NodeEntry;

/// Kinds of work that are taken as typical, at most.
const KINDS_MAX: usize = 20;
/// Nodes that are named for a model, at most.
const WORST_MAX: usize = 10;
/// Sizes that are tried, GPUs on one node.
const SIZES: [u32; 4] = [1, 2, 4, 8];

/// What a kind of work takes of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    gpus: u32,
    /// Of each, thousandths.
    milli: u16,
    models: Vec<String>,
    cpu_millis: u64,
    memory_mib: u64,
}

/// What one node has free of one model.
#[derive(Debug)]
struct Free<'a> {
    node: &'a NodeEntry,
    /// GPUs that nobody has a part of.
    gpus: u32,
    /// What is left of each that is shared, thousandths.
    parts: Vec<u16>,
    cpu_millis: u64,
    memory_mib: u64,
}

impl Kind {
    fn of(demand: &Demand) -> Self {
        let (cpu_millis, memory_mib) = (demand.cpu_millis, demand.memory_mib);
        Self { gpus: demand.gpus, milli: demand.gpu_milli, models: demand.gpu_models.clone(), cpu_millis, memory_mib }
    }

    fn of_size(gpus: u32) -> Self {
        let (cpu_millis, memory_mib) = (limits::CPU_MILLIS_DEFAULT, limits::MEMORY_MIB_DEFAULT);
        Self { gpus, milli: GPU_MILLI, models: Vec::new(), cpu_millis, memory_mib }
    }

    /// How often it fits there.
    fn fits(&self, free: &Free<'_>) -> u32 {
        let of = |has: u64, each: u64| u32::try_from(has / each.max(1)).unwrap_or(u32::MAX);
        let host = of(free.cpu_millis, self.cpu_millis).min(of(free.memory_mib, self.memory_mib));
        if self.milli == GPU_MILLI {
            return host.min(free.gpus / self.gpus.max(1));
        }
        let times = |free: u16| u32::from(free / self.milli.max(1));
        host.min(free.gpus * times(GPU_MILLI) + free.parts.iter().map(|part| times(*part)).sum::<u32>())
    }

    /// What of it this kind cannot use, GPU thousandths: all where it does not fit, else what is
    /// left of GPUs that have less than it needs.
    fn cannot_use(&self, free: &Free<'_>) -> u32 {
        if self.fits(free) == 0 {
            return free.milli();
        }
        free.parts.iter().filter(|part| **part < self.milli).map(|part| u32::from(*part)).sum()
    }

    fn takes(&self, model: &str) -> bool {
        takes_model(&self.models, model)
    }
}

impl Free<'_> {
    /// All that is free, GPU thousandths.
    fn milli(&self) -> u32 {
        self.gpus * u32::from(GPU_MILLI) + self.part_milli()
    }

    /// What is left of shared GPUs, GPU thousandths.
    fn part_milli(&self) -> u32 {
        self.parts.iter().map(|part| u32::from(*part)).sum()
    }
}

/// `fragmentation_report`.
///
/// # Errors
/// `NOT_FOUND` where no node has such a GPU.
pub fn fragmentation(cluster: &Cluster, p: &FragmentationReportParams) -> Result<FragmentationReport, Refusal> {
    let known: BTreeSet<&str> =
        cluster.nodes.iter().flat_map(|n| n.whole_gpus()).map(|gpu| gpu.model.as_str()).collect();
    let is_wanted = |model: &&str| p.model.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(model));
    let wanted: Vec<&str> = known.iter().copied().filter(is_wanted).collect();
    if let Some(model) = p.model.as_ref().filter(|_| wanted.is_empty()) {
        return Err(Refusal::new(ErrorCode::NotFound, "no node has a GPU of this model")
            .with_field("model", model.clone())
            .with_nearest(nearest(model, known))
            .with_next("gpu_list", json!({})));
    }
    let (kinds, assumed) = typical(cluster);
    let models: Vec<FragmentedModel> = wanted.into_iter().map(|model| of_model(cluster, model, &kinds)).collect();
    let next = match models.iter().max_by(|a, b| a.lost.total_cmp(&b.lost)) {
        Some(worst) if worst.lost > 0.0 => {
            vec![SuggestedCall::new("gpu_list", json!({ "model": worst.model, "free": true }))]
        }
        _ => Vec::new(),
    };
    let all: f64 = kinds.iter().map(|(_, n)| f64::from(*n)).sum();
    let typical = kinds.iter().map(|(kind, n)| TypicalWork {
        gpus: kind.gpus,
        share: (kind.milli < GPU_MILLI).then(|| in_gpus(kind.milli.into())),
        model: (!kind.models.is_empty()).then(|| kind.models.join(" or ")),
        cpu_cores: kind.cpu_millis as f64 / 1_000.0,
        memory_gib: kind.memory_mib as f64 / 1_024.0,
        percent: rounded(f64::from(*n) / all * 100.0),
    });
    let (summary, typical) = (summary(&models), typical.collect());
    Ok(FragmentationReport { summary, models, typical, assumed, revision: cluster.revision, next })
}

/// The kinds of work that are known, most frequent first, with how often each is; whether they are only assumed.
fn typical(cluster: &Cluster) -> (Vec<(Kind, u32)>, bool) {
    let mut seen: BTreeMap<Kind, u32> = BTreeMap::new();
    // Slices are cut apart from the GPUs that are counted here.
    let counts = |demand: &Demand| demand.gpus > 0 && demand.mig_profile.is_none();
    for w in cluster.workloads.iter().filter(|w| counts(w.spec.demand())) {
        *seen.entry(Kind::of(w.spec.node_demand())).or_default() += w.spec.nodes();
    }
    if seen.is_empty() {
        return (SIZES.map(|size| (Kind::of_size(size), 1)).to_vec(), true);
    }
    let mut kinds: Vec<(Kind, u32)> = seen.into_iter().collect();
    kinds.sort_by_key(|(kind, n)| (Reverse(*n), kind.clone()));
    kinds.truncate(KINDS_MAX);
    (kinds, false)
}

/// What typical work of a fleet cannot use, a node at a time.
pub(crate) struct Measure {
    kinds: Vec<(Kind, u32)>,
    model: Option<String>,
}

impl Measure {
    /// By the work that is known, of one model or of all.
    pub(crate) fn of(cluster: &Cluster, model: Option<&str>) -> Self {
        Self { kinds: typical(cluster).0, model: model.map(str::to_owned) }
    }

    /// Free GPUs of a node that typical work cannot use.
    pub(crate) fn lost_on(&self, cluster: &Cluster, node: &NodeEntry) -> f64 {
        let is_wanted = |model: &&str| self.model.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(model));
        let models: BTreeSet<&str> = node.whole_gpus().map(|gpu| gpu.model.as_str()).filter(is_wanted).collect();
        let lost = models.into_iter().filter_map(|model| {
            let kinds: Vec<&(Kind, u32)> = self.kinds.iter().filter(|(kind, _)| kind.takes(model)).collect();
            Some(of_node(&free_of(cluster, node, model).free?, &kinds).lost)
        });
        lost.sum()
    }
}

/// GPUs of one model on one node.
struct OfModel<'a> {
    /// Those that can be given, and those that cannot.
    counted: u32,
    left_out: u32,
    /// What is free of them; nothing where that is nothing.
    free: Option<Free<'a>>,
}

fn free_of<'a>(cluster: &Cluster, node: &'a NodeEntry, model: &str) -> OfModel<'a> {
    let its: Vec<_> = node.whole_gpus().filter(|gpu| gpu.model == model).collect();
    // What is kept for a tenant, or for who bears its taint, is not for everybody.
    let is_kept = cluster.reservations.of_node(node.node_id).next().is_some() || node.taints().next().is_some();
    let takes_work = node.link == NodeLink::Online && node.schedulable == Schedulable::Active && !is_kept;
    let counts = |gpu: &&&claw_proto::topology::GpuInfo| {
        takes_work && gpu.health == GpuHealth::Healthy && cluster.nodes.home_of(&gpu.uuid) == Some(node.node_id)
    };
    let counted = its.iter().filter(counts).count();
    // What is kept for work that waits is nobody else's.
    let is_open = |gpu: &&&claw_proto::topology::GpuInfo| cluster.workloads.claimants(&gpu.uuid).next().is_none();
    let open = its.iter().filter(counts).filter(is_open).map(|gpu| cluster.workloads.free_milli(&gpu.uuid));
    let (whole, parts): (Vec<u16>, Vec<u16>) = open.filter(|milli| *milli > 0).partition(|milli| *milli == GPU_MILLI);
    let has = node.capabilities.as_deref();
    let free = (!whole.is_empty() || !parts.is_empty()).then(|| Free {
        node,
        gpus: count(whole.len()),
        parts,
        cpu_millis: has.map_or(0, |c| c.cpu_millis.saturating_sub(node.usage.cpu_millis)),
        memory_mib: has.map_or(0, |c| c.memory_mib.saturating_sub(node.usage.memory_mib)),
    });
    OfModel { counted: count(counted), left_out: count(its.len() - counted), free }
}

fn of_model(cluster: &Cluster, model: &str, kinds: &[(Kind, u32)]) -> FragmentedModel {
    let (mut gpus, mut left_out, mut frees) = (0, 0, Vec::new());
    for node in cluster.nodes.iter() {
        let of = free_of(cluster, node, model);
        gpus += of.counted;
        left_out += of.left_out;
        frees.extend(of.free);
    }
    let kinds: Vec<&(Kind, u32)> = kinds.iter().filter(|(kind, _)| kind.takes(model)).collect();
    let mut worst: Vec<FragmentedNode> = frees.iter().map(|free| of_node(free, &kinds)).collect();
    // Of the whole, and rounded once: hundredths of many nodes are many.
    // A sum of nothing is -0 for floats.
    let lost = worst.iter().map(|node| node.lost).fold(0.0, |sum, lost| sum + lost);
    worst.retain(|node| node.lost > 0.0);
    worst.sort_by(|a, b| b.lost.total_cmp(&a.lost).then_with(|| a.node.cmp(&b.node)));
    worst.truncate(WORST_MAX);
    for node in &mut worst {
        node.lost = rounded(node.lost);
    }
    let mut by_free: BTreeMap<u32, u32> = BTreeMap::new();
    for free in &frees {
        *by_free.entry(free.gpus).or_default() += u32::from(free.gpus > 0);
    }
    by_free.remove(&0);
    let part_milli: u32 = frees.iter().map(Free::part_milli).sum();
    let free: u32 = frees.iter().map(|free| free.gpus).sum();
    let more = |size: u32| MoreWouldFit {
        gpus: size,
        workloads: frees.iter().map(|free| Kind::of_size(size).fits(free)).fold(0, u32::saturating_add),
    };
    FragmentedModel {
        model: model.to_owned(),
        gpus,
        free,
        free_in_part: rounded(in_gpus(part_milli)),
        lost: rounded(lost),
        lost_percent: if free + part_milli == 0 {
            0.0
        } else {
            rounded(lost / (f64::from(free) + in_gpus(part_milli)) * 100.0)
        },
        largest: frees.iter().map(|free| free.gpus).max().unwrap_or(0),
        by_free: by_free.into_iter().map(|(free, nodes)| FreeOnNodes { free, nodes }).collect(),
        more: SIZES.map(more).to_vec(),
        worst,
        left_out,
    }
}

/// What of a node's free GPUs typical work cannot use.
fn of_node(free: &Free<'_>, kinds: &[&(Kind, u32)]) -> FragmentedNode {
    let all: f64 = kinds.iter().map(|(_, n)| f64::from(*n)).sum();
    let shut_out = || kinds.iter().filter(|(kind, _)| kind.fits(free) == 0);
    let lost: f64 = kinds.iter().map(|(kind, n)| in_gpus(kind.cannot_use(free)) * f64::from(*n) / all.max(1.0)).sum();
    let for_host = shut_out().any(|(kind, _)| kind.milli == GPU_MILLI && kind.gpus <= free.gpus);
    let smallest = shut_out().map(|(kind, _)| (kind.gpus, kind.milli)).min().unwrap_or((0, GPU_MILLI));
    let in_parts = match free.part_milli() {
        0 => String::new(),
        milli => format!(" and {} of shared ones", in_gpus(milli)),
    };
    let why = match (shut_out().next().is_some(), for_host) {
        (false, _) if lost > 0.0 => "what is left of shared GPUs is too little for some".to_owned(),
        (false, _) => String::new(),
        (true, true) => format!(
            "{} cores and {} MiB of memory are left beside {}",
            free.cpu_millis as f64 / 1_000.0,
            free.memory_mib,
            super::gpus(free.gpus)
        ),
        (true, false) => {
            let smallest = match smallest {
                (gpus, GPU_MILLI) => gpus.to_string(),
                (_, milli) => format!("{} of one", in_gpus(milli.into())),
            };
            format!("{}{in_parts} free, and work that asks for {smallest} or more does not fit", super::gpus(free.gpus))
        }
    };
    let free_in_part = rounded(in_gpus(free.part_milli()));
    FragmentedNode { node: free.node.name.clone(), free: free.gpus, free_in_part, lost, why }
}

fn summary(models: &[FragmentedModel]) -> String {
    let told: Vec<String> = models
        .iter()
        .map(|m| {
            let parts = if m.free_in_part > 0.0 { format!(" and {} in parts", m.free_in_part) } else { String::new() };
            match m.free {
                0 if parts.is_empty() => format!("{}: none of {} is free", m.model, m.gpus),
                free => format!(
                    "{}: {free}{parts} of {} free, at most {} on one node, {} % of no use to typical work",
                    m.model, m.gpus, m.largest, m.lost_percent
                ),
            }
        })
        .collect();
    if told.is_empty() { "the fleet has no GPUs that can be given as a whole".into() } else { told.join("; ") }
}

fn in_gpus(milli: u32) -> f64 {
    f64::from(milli) / f64::from(GPU_MILLI)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
