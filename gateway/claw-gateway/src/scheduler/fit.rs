//! Does one node fit, and with which GPUs?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::spec::RuntimeKind;
use claw_proto::topology::{GpuHealth, GpuInfo, NodeCapabilities};
use claw_proto::validation::{Demand, ValidSpec};
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::workloads::PlacementReason as R;

use super::{Candidate, Rejection, Score, runtime_for, spreads};
use crate::Cluster;
use crate::registry::NodeEntry;
use crate::workload::WorkloadEntry;

type Check = Result<(), (R, String)>;

/// The node as a candidate, or the most severe reason why not.
pub(super) fn check(
    cluster: &Cluster,
    node: &Arc<NodeEntry>,
    spec: &ValidSpec,
    asker: Option<&WorkloadEntry>,
) -> Result<Candidate, Rejection> {
    let reject = |(reason, detail): (R, String)| Rejection { name: node.name.clone(), reason, detail };
    let Some(capabilities) = node.capabilities.as_ref() else {
        return Err(reject((R::NodeUnreachable, "enrolled, never connected".into())));
    };
    // What will never fit comes before what only waits.
    selected(node, spec).map_err(reject)?;
    let Some(runtime) = runtime_for(node, spec) else {
        return Err(reject((R::RuntimeMissing, runtime_detail(capabilities, spec))));
    };
    let demand = spec.node_demand();
    let fitting: Vec<&GpuInfo> = fitting_gpus(cluster, node, capabilities, demand).map_err(reject)?;
    host_size(capabilities, demand).map_err(reject)?;
    if node.link != NodeLink::Online {
        return Err(reject((R::NodeUnreachable, node.link.to_string())));
    }
    if node.schedulable != Schedulable::Active {
        return Err(reject((R::NodeUnschedulable, node.schedulable.to_string())));
    }
    let free = free_gpus(cluster, node, &fitting, demand, asker).map_err(reject)?;
    host_free(cluster, node, capabilities, demand, asker).map_err(reject)?;
    let chosen = choose(&free, demand).map_err(reject)?;
    let score = score(node, capabilities, spec, runtime, &free, &chosen);
    let island = common_island(&chosen);
    let gpus = chosen.iter().map(|g| g.uuid.clone()).collect();
    let model = chosen.first().map(|g| g.model.clone());
    Ok(Candidate { node: Arc::clone(node), gpus, island, model, runtime, score })
}

fn selected(node: &NodeEntry, spec: &ValidSpec) -> Check {
    let Some(placement) = &spec.spec().placement else {
        return Ok(());
    };
    let is = |text: &String| *text == node.name || *text == node.node_id.to_string();
    if let Some(wanted) = &placement.node
        && !is(wanted)
    {
        return Err((R::NodeNotNamed, format!("wanted {wanted}")));
    }
    if placement.exclude_nodes.iter().any(is) {
        return Err((R::NodeExcluded, "excluded by the spec".into()));
    }
    if let Some(zone) = &placement.zone
        && node.labels.get("zone") != Some(zone)
    {
        return Err((
            R::ZoneMismatch,
            format!("wanted zone {zone}, is in {}", node.labels.get("zone").map_or("none", String::as_str)),
        ));
    }
    for (key, value) in &placement.labels {
        if node.labels.get(key) != Some(value) {
            return Err((
                R::LabelMismatch,
                format!("wanted {key}={value}, has {}", node.labels.get(key).map_or("none", String::as_str)),
            ));
        }
    }
    Ok(())
}

fn runtime_detail(capabilities: &NodeCapabilities, spec: &ValidSpec) -> String {
    let has: Vec<&str> = capabilities.runtimes.iter().map(|r| r.as_str()).collect();
    let wants = match spec.spec().runtime {
        Some(kind) => kind.as_str(),
        None if spec.spec().image.is_some() => "docker",
        None if spec.spec().model.is_some() => "a simulated node (the model has no image)",
        None => "process",
    };
    format!("wants {wants}, has {}", if has.is_empty() { "none".to_owned() } else { has.join(", ") })
}

/// GPUs of the right model, vendor and memory, whoever holds them.
fn fitting_gpus<'a>(
    cluster: &Cluster,
    node: &NodeEntry,
    capabilities: &'a NodeCapabilities,
    demand: &Demand,
) -> Result<Vec<&'a GpuInfo>, (R, String)> {
    if demand.gpus == 0 {
        return Ok(Vec::new());
    }
    // A GPU that another node reported first is not this node's to give; one that is listed twice is one.
    let mut seen = BTreeSet::new();
    let all: Vec<&GpuInfo> = capabilities
        .whole_gpus()
        .filter(|g| cluster.nodes.home_of(&g.uuid) == Some(node.node_id) && seen.insert(&g.uuid))
        .collect();
    let of_vendor: Vec<&GpuInfo> =
        all.iter().copied().filter(|g| demand.gpu_vendor.is_none_or(|v| v == g.vendor)).collect();
    if of_vendor.is_empty() && !all.is_empty() {
        return Err((R::GpuVendorMismatch, format!("wanted {}", demand.gpu_vendor.map_or("any", |v| v.as_str()))));
    }
    let of_model: Vec<&GpuInfo> = of_vendor
        .iter()
        .copied()
        .filter(|g| demand.gpu_model.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(&g.model)))
        .collect();
    if of_model.is_empty() && !all.is_empty() {
        let has = all.first().map_or("none", |g| g.model.as_str());
        return Err((
            R::GpuModelMismatch,
            format!("wanted {}, has {has}", demand.gpu_model.as_deref().unwrap_or("any")),
        ));
    }
    let large: Vec<&GpuInfo> = of_model.iter().copied().filter(|g| g.memory_mib >= demand.gpu_memory_mib_min).collect();
    if large.is_empty() && !of_model.is_empty() {
        let most = of_model.iter().map(|g| g.memory_mib).max().unwrap_or(0);
        return Err((R::GpuMemoryTooSmall, format!("wanted {} MiB per GPU, has {most}", demand.gpu_memory_mib_min)));
    }
    if large.len() < demand.gpus as usize {
        return Err((R::GpuCountTooSmall, format!("wanted {}, has {}", demand.gpus, large.len())));
    }
    if demand.nvlink && demand.gpus > 1 {
        let largest = islands(&large).values().map(Vec::len).max().unwrap_or(0);
        if largest < demand.gpus as usize {
            return Err((
                R::NvlinkIslandTooSmall,
                format!("wanted {} in one island, the largest has {largest}", demand.gpus),
            ));
        }
    }
    Ok(large)
}

fn host_size(capabilities: &NodeCapabilities, demand: &Demand) -> Check {
    if capabilities.cpu_millis < demand.cpu_millis {
        return Err((
            R::CpuTooSmall,
            format!("wanted {} millicores, has {}", demand.cpu_millis, capabilities.cpu_millis),
        ));
    }
    if capabilities.memory_mib < demand.memory_mib {
        return Err((R::MemoryTooSmall, format!("wanted {} MiB, has {}", demand.memory_mib, capabilities.memory_mib)));
    }
    if capabilities.disk_mib < demand.disk_mib {
        return Err((R::DiskTooSmall, format!("wanted {} MiB, has {}", demand.disk_mib, capabilities.disk_mib)));
    }
    Ok(())
}

fn free_gpus<'a>(
    cluster: &Cluster,
    node: &NodeEntry,
    fitting: &[&'a GpuInfo],
    demand: &Demand,
    asker: Option<&WorkloadEntry>,
) -> Result<Vec<&'a GpuInfo>, (R, String)> {
    let wanted = demand.gpus as usize;
    let healthy: Vec<&GpuInfo> = fitting.iter().copied().filter(|g| g.health == GpuHealth::Healthy).collect();
    if healthy.len() < wanted {
        return Err((R::GpuUnhealthy, format!("wanted {wanted}, healthy {}", healthy.len())));
    }
    let free: Vec<&GpuInfo> = healthy.into_iter().filter(|g| cluster.workloads.holder(&g.uuid).is_none()).collect();
    if free.len() < wanted {
        return Err((R::GpuBusy, format!("wanted {wanted}, free {} of {}", free.len(), node.whole_gpus().count())));
    }
    let n_free = free.len();
    let is_mine = |g: &&GpuInfo| !cluster.workloads.claimants(&g.uuid).any(|claimant| binds(claimant, asker));
    let free: Vec<&GpuInfo> =
        if cluster.workloads.has_claims() { free.into_iter().filter(is_mine).collect() } else { free };
    if free.len() < wanted {
        let claimed = n_free - free.len();
        return Err((
            R::RoomClaimed,
            format!("wanted {wanted}, free {n_free}, of which {claimed} wait for work before it"),
        ));
    }
    if demand.nvlink && wanted > 1 {
        let largest = islands(&free).values().map(Vec::len).max().unwrap_or(0);
        if largest < wanted {
            return Err((
                R::NvlinkIslandBusy,
                format!("wanted {wanted} free in one island, the largest has {largest}"),
            ));
        }
    }
    Ok(free)
}

/// A claim keeps out whoever stands behind it in the queue.
fn binds(claimant: &WorkloadEntry, asker: Option<&WorkloadEntry>) -> bool {
    asker.is_none_or(|asker| claimant.workload_id != asker.workload_id && claimant.outranks(asker))
}

fn host_free(
    cluster: &Cluster,
    node: &NodeEntry,
    capabilities: &NodeCapabilities,
    demand: &Demand,
    asker: Option<&WorkloadEntry>,
) -> Check {
    let claims: Vec<&Demand> = cluster
        .workloads
        .claimants_on(node.node_id)
        .filter(|claimant| binds(claimant, asker))
        .map(|claimant| claimant.spec.node_demand())
        .collect();
    host_room(node, capabilities, demand)?;
    // What is being made free is still in use, so a claim counts only against what is free beyond it.
    let short = |total: u64, used: u64, of: fn(&Demand) -> u64| {
        let claimed: u64 = claims.iter().map(|claim| of(claim)).sum();
        claimed > 0 && total.saturating_sub(used) < claimed + of(demand)
    };
    if short(capabilities.cpu_millis, node.usage.cpu_millis, |d| d.cpu_millis)
        || short(capabilities.memory_mib, node.usage.memory_mib, |d| d.memory_mib)
        || short(capabilities.disk_mib, node.usage.disk_mib, |d| d.disk_mib)
    {
        return Err((R::RoomClaimed, format!("{} workload(s) before it wait for room there", claims.len())));
    }
    Ok(())
}

fn host_room(node: &NodeEntry, capabilities: &NodeCapabilities, demand: &Demand) -> Check {
    let cpu = capabilities.cpu_millis.saturating_sub(node.usage.cpu_millis);
    if cpu < demand.cpu_millis {
        return Err((R::CpuBusy, format!("wanted {} millicores, free {cpu}", demand.cpu_millis)));
    }
    let memory = capabilities.memory_mib.saturating_sub(node.usage.memory_mib);
    if memory < demand.memory_mib {
        return Err((R::MemoryBusy, format!("wanted {} MiB, free {memory}", demand.memory_mib)));
    }
    let disk = capabilities.disk_mib.saturating_sub(node.usage.disk_mib);
    if disk < demand.disk_mib {
        return Err((R::DiskBusy, format!("wanted {} MiB, free {disk}", demand.disk_mib)));
    }
    Ok(())
}

/// Islands of these GPUs; a GPU without NVLink is in none.
fn islands<'a>(gpus: &[&'a GpuInfo]) -> BTreeMap<u32, Vec<&'a GpuInfo>> {
    let mut islands: BTreeMap<u32, Vec<&GpuInfo>> = BTreeMap::new();
    for gpu in gpus {
        if let Some(island) = gpu.nvlink_island {
            islands.entry(island).or_default().push(gpu);
        }
    }
    islands
}

/// The smallest island that is large enough; else, where NVLink is not
/// demanded, the fewest and fullest islands; smallest GPUs first.
fn choose<'a>(free: &[&'a GpuInfo], demand: &Demand) -> Result<Vec<&'a GpuInfo>, (R, String)> {
    let wanted = demand.gpus as usize;
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let mut islands: Vec<Vec<&GpuInfo>> = islands(free).into_values().collect();
    islands.sort_by_key(|gpus| (gpus.len(), gpus[0].index));
    if let Some(island) = islands.iter().find(|gpus| gpus.len() >= wanted) {
        return Ok(take(island.clone(), wanted));
    }
    if demand.nvlink && wanted > 1 {
        return Err((R::NvlinkIslandBusy, format!("wanted {wanted} free in one island")));
    }
    let mut pool: Vec<&GpuInfo> = islands.into_iter().rev().flatten().collect();
    pool.extend(free.iter().copied().filter(|g| g.nvlink_island.is_none()));
    pool.truncate(wanted);
    Ok(take(pool, wanted))
}

fn take(mut gpus: Vec<&GpuInfo>, wanted: usize) -> Vec<&GpuInfo> {
    gpus.sort_by_key(|g| (g.memory_mib, g.index));
    gpus.truncate(wanted);
    gpus.sort_by_key(|g| g.index);
    gpus
}

fn common_island(chosen: &[&GpuInfo]) -> Option<u32> {
    let first = chosen.first()?.nvlink_island?;
    chosen.iter().all(|g| g.nvlink_island == Some(first)).then_some(first)
}

fn score(
    node: &NodeEntry,
    capabilities: &NodeCapabilities,
    spec: &ValidSpec,
    runtime: RuntimeKind,
    free: &[&GpuInfo],
    chosen: &[&GpuInfo],
) -> Score {
    let demand = spec.node_demand();
    let n_free = u32::try_from(free.len()).unwrap_or(u32::MAX);
    let touched = free.iter().filter(|g| chosen.iter().any(|c| c.nvlink_island == g.nvlink_island)).count();
    let left = |total: u64, used: u64, wanted: u64| total.saturating_sub(used + wanted) * 1000 / total.max(1);
    let host_left = left(capabilities.cpu_millis, node.usage.cpu_millis, demand.cpu_millis)
        + left(capabilities.memory_mib, node.usage.memory_mib, demand.memory_mib);
    let all_free = u32::try_from(capabilities.gpus.len()).unwrap_or(u32::MAX).saturating_sub(node.usage.gpus);
    let (mut gpus_left, mut island_left) =
        (all_free.saturating_sub(demand.gpus), u32::try_from(touched).unwrap_or(u32::MAX).saturating_sub(demand.gpus));
    let mut host_left_permille = host_left;
    if spreads(spec) {
        gpus_left = u32::MAX - gpus_left;
        island_left = u32::MAX - island_left.min(n_free);
        host_left_permille = 2000 - host_left.min(2000);
    }
    Score {
        simulated: runtime == RuntimeKind::Sim || (capabilities.simulated && demand.gpus > 0),
        broken_island: chosen.len() > 1 && common_island(chosen).is_none(),
        island_left,
        gpus_left,
        gpu_memory_over_mib: chosen.iter().map(|g| g.memory_mib.saturating_sub(demand.gpu_memory_mib_min)).sum(),
        host_left_permille,
        node_id: node.node_id,
    }
}
