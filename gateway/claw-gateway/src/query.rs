//! Reads, over a snapshot of the durable state.

mod desk;
mod events;
mod explain;
mod fleet;
mod page;
mod works;

use claw_proto::ids::{Generation, NodeId};
use claw_proto::message::{DesiredWorkload, StatusCause, StopOrder};
use claw_proto::spec::WorkloadSpec;

use crate::Cluster;
use crate::workload::{Desired, WorkloadEntry};

pub use desk::{approval_list, exec_view, key_list, operation_list, operation_view, plan_detail, secret_list};
pub use events::{describe_event, event_subjects};
pub use explain::explain;
pub use fleet::{NodeLive, gpu_list, node_detail, node_list, node_row, status};
pub use works::{workload_detail, workload_list, workload_row};

/// What a spec runs, in a few words.
pub fn what(spec: &WorkloadSpec) -> String {
    let mut words = if let Some(model) = &spec.model {
        model.clone()
    } else if let Some(image) = &spec.image {
        image.clone()
    } else {
        spec.command.as_ref().map(|c| c.join(" ")).unwrap_or_default()
    };
    if let Some(gpu) = &spec.gpu
        && gpu.count.unwrap_or(0) > 0
    {
        words = format!("{words} on {}×{}", gpu.count.unwrap_or(0), gpu.model.as_deref().unwrap_or("GPU"));
    }
    claw_tools::outcome::clip(&words, 120)
}

/// A wanted workload and the handle of its environment values.
pub type WithEnv = (DesiredWorkload, Option<String>);

/// So many GPUs, in words.
pub(crate) fn gpus(n: u32) -> String {
    if n == 1 { "1 GPU".into() } else { format!("{n} GPUs") }
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
            Desired::Run => start.extend(desired(w).map(|d| (d, w.env_handle.clone()))),
            Desired::Move | Desired::Stop => stop.extend(w.live().map(|a| StopOrder {
                workload_id: *id,
                attempt: a.attempt,
                grace_s: w.stop_grace_s,
                cause: StatusCause::StopRequested,
            })),
        }
    }
    (node.generation(cluster.epoch), start, stop)
}

/// What a node is told about the live attempt of a workload.
pub fn desired(w: &WorkloadEntry) -> Option<DesiredWorkload> {
    let live = w.live()?;
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
        ranks: None,
    })
}
