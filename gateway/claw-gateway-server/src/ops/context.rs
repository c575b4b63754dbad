//! The live fleet, as the intent engine may look at it.

use claw_gateway::Cluster;
use claw_intents::{Context, ContextGpu, ContextNode, ContextWorkload, Now};
use claw_proto::time::Timestamp;

/// Workloads that a request in words may refer to: those that have not ended, newest first.
const WORKLOADS_MAX: usize = 2_000;

pub(super) fn of(cluster: &Cluster, now: Timestamp) -> Context {
    let nodes = cluster
        .nodes
        .iter()
        .map(|n| ContextNode {
            id: Some(n.node_id.to_string()),
            name: n.name.clone(),
            gpu: n
                .gpus()
                .first()
                .map(|g| ContextGpu { model: Some(g.model.clone()), count: u32::try_from(n.gpus().len()).ok() }),
            state: Some(n.schedulable.to_string()),
            zone: n.labels.get("zone").cloned(),
            labels: n.labels.clone(),
        })
        .collect();
    let workloads = cluster
        .workloads
        .iter()
        .rev()
        .filter(|w| !w.state.is_final())
        .take(WORKLOADS_MAX)
        .map(|w| ContextWorkload {
            id: w.workload_id.to_string(),
            name: Some(w.name.clone()),
            kind: w.spec.spec().kind.map(|k| k.to_string()),
            model: w.spec.spec().model.clone(),
            image: w.spec.spec().image.clone(),
            state: Some(w.state.to_string()),
            node: w.live().and_then(|a| cluster.nodes.get(a.node_id)).map(|n| n.name.clone()),
        })
        .collect();
    Context { nodes, workloads, now: Some(Now::utc(now)), ..Context::default() }
}
