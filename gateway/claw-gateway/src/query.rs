//! Reads, over a snapshot of the durable state.

mod desk;
mod events;
mod explain;
mod fleet;
mod forecast;
mod fragmentation;
mod mig;
mod page;
mod queue;
mod quotas;
mod reservations;
mod simulate;
mod works;

use std::sync::Arc;

use claw_proto::ids::{Attempt, Generation, NodeId, WorkloadId};
use claw_proto::message::{DesiredWorkload, RankAssignment, StatusCause, StopOrder};
use claw_proto::spec::WorkloadSpec;
use claw_proto::time::Timestamp;
use smallvec::SmallVec;

use crate::Cluster;
use crate::workload::{Desired, Part, WorkloadEntry};

pub use desk::{approval_list, exec_view, key_list, operation_list, operation_view, plan_detail, secret_list};
pub use events::{describe_event, event_subjects};
pub use explain::explain;
pub use fleet::{NodeLive, gpu_list, node_detail, node_list, node_row, status};
pub(crate) use fragmentation::Measure;
pub use fragmentation::fragmentation;
pub use queue::{capacity_find, queue_list};
pub use quotas::quota_list;
pub use reservations::reservation_list;
pub use simulate::simulate;
pub use works::{workload_detail, workload_list, workload_row};

/// What is said of GPUs and nodes takes mostly less.
const SAID_BYTES: usize = 40;

/// What a spec runs, in a few words.
pub fn what(spec: &WorkloadSpec) -> String {
    let command = || spec.command.as_ref().map(|command| command.join(" "));
    let mut words = spec.model.clone().or_else(|| spec.image.clone()).or_else(command).unwrap_or_default();
    words.reserve(SAID_BYTES);
    // Said at each submission: put together without a format, which is several times as fast.
    let mut say = |parts: &[&str]| {
        for part in parts {
            words.push_str(part);
        }
    };
    if let Some(gpu) = &spec.gpu {
        let models: SmallVec<[&str; 4]> = gpu.models().collect();
        let model = if let [only] = models[..] { only } else { &models.join("/") };
        let model = if model.is_empty() { "GPU" } else { model };
        match (gpu.fraction, &gpu.mig_profile, gpu.count.unwrap_or(0)) {
            (Some(fraction), _, _) if fraction < 1.0 => say(&[" on ", &fraction.to_string(), " of a ", model]),
            (_, Some(profile), count) => say(&[" on ", &count.max(1).to_string(), "×", model, " ", profile]),
            (_, None, 0) if gpu.fraction.is_none() => {}
            (_, None, count) => say(&[" on ", &count.max(1).to_string(), "×", model]),
        }
    }
    if let Some(nodes @ 2..) = spec.nodes {
        say(&[" over ", &nodes.to_string(), " nodes"]);
    }
    claw_tools::outcome::clip(&words, 120)
}

/// A wanted workload and the handle of its environment values.
pub type WithEnv = (DesiredWorkload, Option<String>);

/// So many nodes, in words.
pub(crate) fn nodes(n: usize) -> String {
    if n == 1 { "1 node".into() } else { format!("{n} nodes") }
}

/// The first names, and how many more there are.
pub(crate) fn first_names(names: &[&str], shown: usize) -> String {
    let more = names.len().saturating_sub(shown);
    let rest = (more > 0).then(|| format!("and {more} more"));
    names.iter().take(shown).copied().chain(rest.as_deref()).collect::<Vec<_>>().join(", ")
}

/// So many GPUs, in words.
pub(crate) fn gpus(n: u32) -> String {
    if n == 1 { "1 GPU".into() } else { [&n.to_string(), " GPUs"].concat() }
}

/// The full desired set of a node, with the handles of the environment values
/// that the shell has to fill in.
pub fn desired_set(cluster: &Cluster, node_id: NodeId) -> (Generation, Vec<WithEnv>, Vec<StopOrder>) {
    let Some(node) = cluster.nodes.get(node_id) else {
        return (Generation::default(), Vec::new(), Vec::new());
    };
    let mut start = Vec::new();
    let mut stop = Vec::new();
    for id in &node.usage.workloads {
        let Some(w) = cluster.workloads.get(*id) else {
            continue;
        };
        match w.desired {
            // Told to write a checkpoint and not stopped yet: it runs.
            Desired::Move if w.notice.is_some() => {
                start.extend(desired(cluster, w, node_id).map(|d| (d, w.env_handle.clone())));
            }
            Desired::Run => start.extend(desired(cluster, w, node_id).map(|d| (d, w.env_handle.clone()))),
            Desired::Move | Desired::Stop | Desired::Regroup => stop.extend(w.live_on(node_id).map(|a| StopOrder {
                workload_id: *id,
                attempt: a.attempt,
                grace_s: w.stop_grace_s,
                cause: StatusCause::StopRequested,
            })),
        }
    }
    (node.generation(cluster.epoch), start, stop)
}

/// What a node is told about its live attempt of a workload.
pub fn desired(cluster: &Cluster, w: &WorkloadEntry, node_id: NodeId) -> Option<DesiredWorkload> {
    let live = w.live_on(node_id)?;
    Some(DesiredWorkload {
        workload_id: w.workload_id,
        attempt: live.attempt,
        spec: w.spec.spec().clone(),
        gpus: live.gpus.clone(),
        runtime: live.runtime,
        on_partition: w.spec.on_partition(),
        grace_s: w.spec.grace_s(),
        max_duration_s: w.spec.spec().max_duration_s,
        // The shell fills in values that are not in the state.
        secrets: Vec::new(),
        registry_auth: None,
        ranks: live.part.map(|part| ranks(cluster, w, part)),
        checkpoint_last: w.checkpoint_before().map(|written| written.label.clone()),
    })
}

/// Live attempts of a node whose programs were told to write a checkpoint, with what is left of
/// their grace at this time, seconds.
pub fn notices(cluster: &Cluster, node_id: NodeId, now: Timestamp) -> Vec<(WorkloadId, Attempt, u32)> {
    let of = |w: &Arc<WorkloadEntry>| {
        let (notice, live) = (w.notice?, w.live_on(node_id)?);
        let left_s = notice.until.ms_since(now).max(0) / 1_000;
        Some((w.workload_id, live.attempt, u32::try_from(left_s).unwrap_or(u32::MAX)))
    };
    cluster.workloads.noticed().filter_map(of).collect()
}

/// First port that the parts of a workload meet at, below those that systems hand out by themselves.
const MASTER_PORT_MIN: u16 = 20_000;
/// So many ports are used in turn, so that workloads one after the other do not meet.
const MASTER_PORTS: u64 = 10_000;

/// How the parts of a workload find each other: one process for each GPU is
/// counted, or one for each node without GPUs.
fn ranks(cluster: &Cluster, w: &WorkloadEntry, part: Part) -> RankAssignment {
    let per_node = w.spec.node_demand().gpus.max(1);
    let master = w.latest().first().and_then(|a| cluster.nodes.get(a.node_id));
    let address = master.and_then(|n| n.capabilities.as_ref().map(|c| c.hostname.clone()).or(Some(n.name.clone())));
    let turn = u16::try_from(w.order % MASTER_PORTS).unwrap_or(0);
    RankAssignment {
        node_rank: part.node_rank,
        n_nodes: part.n_nodes,
        first_rank: part.node_rank.saturating_mul(per_node),
        world_size: part.n_nodes.saturating_mul(per_node),
        master_address: address.unwrap_or_default(),
        master_port: MASTER_PORT_MIN + turn,
    }
}
