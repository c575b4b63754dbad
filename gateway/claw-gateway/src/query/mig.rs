//! How GPUs could be cut so that a workload that waits for MIG slices would start: each way is tried
//! on a copy of the fleet before it is offered. Nothing here cuts a GPU; its host does.

use std::sync::Arc;

use claw_proto::ids::GpuUuid;
use claw_proto::mig::{MigRoom, geometry};
use claw_proto::topology::{GpuHealth, GpuInfo, MigSlice, NodeCapabilities};
use claw_tools::nodes::{NodeLink, Schedulable};

use crate::Cluster;
use crate::registry::NodeEntry;
use crate::workload::WorkloadEntry;

/// Nodes that are tried at most.
const NODES_TRIED_MAX: usize = 64;
/// Of a slice's memory its driver keeps so much at most (9,856 MiB of 10,194 are left of a 1g.10gb of an H100).
const KEPT_PERCENT: u64 = 4;

/// A node whose GPUs could be cut so.
pub(super) struct Cut {
    /// Name of the node.
    pub(super) node: String,
    /// What would have to be cut, in words.
    pub(super) change: String,
}

/// The first node on which cutting idle GPUs, or what is left of cut ones, would make it start. Who waits before it
/// may take what is cut: whether it starts in a fleet is asked with the queue.
pub(super) fn cut(cluster: &Cluster, w: &WorkloadEntry, mut starts: impl FnMut(&Cluster) -> bool) -> Option<Cut> {
    let demand = w.spec.node_demand();
    let profile = demand.mig_profile.as_deref()?;
    let takes_work = |n: &&Arc<NodeEntry>| n.link == NodeLink::Online && n.schedulable == Schedulable::Active;
    let nodes = cluster.nodes.iter().filter(takes_work).map(|node| (node, parents(cluster, node, w, profile)));
    nodes.filter(|(_, parents)| !parents.is_empty()).take(NODES_TRIED_MAX).find_map(|(node, parents)| {
        let has = node.capabilities.as_deref()?;
        let mut cut_more = has.clone();
        let mut told: Vec<String> = Vec::new();
        for (parent, n) in parents {
            told.push(format!("{n} from GPU {} ({})", parent.index, parent.model));
            (0..n).for_each(|at| cut_more.gpus.push(slice(has, parent, profile, at)));
            let mut fork = cluster.clone();
            fork.nodes.set_capabilities(node.node_id, Arc::new(cut_more.clone()));
            if starts(&fork) {
                let (of, how) = (told.join(" and "), how(node, profile));
                let change = format!("slices {profile} were cut on {}: {of}{how}", node.name);
                return Some(Cut { node: node.name.clone(), change });
            }
        }
        None
    })
}

/// GPUs that could give slices of this profile, with how many: what is cut already and has room
/// wherever its slices stand, and then idle ones that are whole.
fn parents<'a>(cluster: &Cluster, node: &'a NodeEntry, w: &WorkloadEntry, profile: &str) -> Vec<(&'a GpuInfo, u32)> {
    let demand = w.spec.node_demand();
    let does = |gpu: &&GpuInfo| {
        gpu.health == GpuHealth::Healthy
            && gpu.mig.is_none()
            && demand.takes_model(&gpu.model)
            && demand.gpu_vendor.is_none_or(|vendor| vendor == gpu.vendor)
            && cluster.nodes.home_of(&gpu.uuid) == Some(node.node_id)
            && cluster.workloads.holders(&gpu.uuid).is_none()
    };
    let mut parents: Vec<(&GpuInfo, u32)> = Vec::new();
    for gpu in node.gpus().iter().filter(does) {
        let Some(known) = geometry(&gpu.model, gpu.memory_mib) else { continue };
        let mine = node.gpus().iter().filter_map(|slice| slice.mig.as_ref()).filter(|slice| slice.parent == gpu.uuid);
        let mut present: Vec<&str> = mine.map(|slice| slice.profile.as_str()).collect();
        let is_whole = present.is_empty();
        let mut n = 0;
        while known.room(&present, profile) == Some(MigRoom::Sure) && n < demand.gpus {
            present.push(profile);
            n += 1;
        }
        let n = if is_whole { known.most_of(profile).min(demand.gpus) } else { n };
        if n > 0 {
            parents.push((gpu, n));
        }
    }
    // Cut ones first: whole GPUs are for those who need them.
    parents.sort_by_key(|(gpu, _)| node.whole_gpus().any(|whole| whole.uuid == gpu.uuid));
    parents
}

/// A slice that is not there yet.
fn slice(has: &NodeCapabilities, parent: &GpuInfo, profile: &str, at: u32) -> GpuInfo {
    GpuInfo {
        uuid: GpuUuid(format!("MIG-imagined-{}-{at}", parent.uuid)),
        index: u32::try_from(has.gpus.len()).unwrap_or(u32::MAX).saturating_add(at),
        mig: Some(MigSlice { parent: parent.uuid.clone(), profile: profile.to_owned() }),
        memory_mib: memory_mib(parent, profile),
        nvlink_island: None,
        ..parent.clone()
    }
}

/// What a slice has of its GPU's memory, with what the driver keeps of each taken off.
fn memory_mib(parent: &GpuInfo, profile: &str) -> u64 {
    let part = geometry(&parent.model, parent.memory_mib).and_then(|known| known.profile(profile));
    part.map_or(0, |part| parent.memory_mib * u64::from(part.memory_slices) / 8 * (100 - KEPT_PERCENT) / 100)
}

/// What one does on the host for it.
fn how(node: &NodeEntry, profile: &str) -> String {
    if node.simulated() {
        return ", in its simulation".to_owned();
    }
    format!(" (on its host, once MIG mode is on: nvidia-smi mig -i <GPU> -cgi {profile} -C, for each)")
}
