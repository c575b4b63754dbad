//! `workload_list`, `workload_get`.

use claw_proto::spec::RuntimeKind;
use claw_tools::nodes::NodeLink;
use claw_tools::refusal::{Refusal, SuggestedCall};
use claw_tools::workloads::{
    AttemptView, Blocker, CheckpointView, WorkloadDetail, WorkloadList, WorkloadListParams, WorkloadReason,
    WorkloadRow, WorkloadState, WorkloadUsage,
};
use serde_json::json;

use super::page::{Asked, page};
use crate::Cluster;
use crate::workload::{AttemptEntry, WorkloadEntry};

/// How many nodes of one workload a row names.
const NODES_SHOWN: usize = 16;

fn node_name(cluster: &Cluster, id: claw_proto::ids::NodeId) -> String {
    cluster.nodes.get(id).map_or_else(|| id.to_string(), |n| n.name.clone())
}

/// One workload, in a row. While its node is unreachable its state is the last
/// one known, and the reason says so.
pub fn workload_row(cluster: &Cluster, w: &WorkloadEntry) -> WorkloadRow {
    let unreachable = |a: &AttemptEntry| cluster.nodes.get(a.node_id).is_some_and(|n| n.link == NodeLink::Unreachable);
    let cut_off = w.lives().any(unreachable);
    let shown: Vec<&AttemptEntry> = w.latest().iter().filter(|a| a.live || w.state.is_final()).collect();
    let names = || shown.iter().map(|a| node_name(cluster, a.node_id));
    WorkloadRow {
        workload_id: w.workload_id,
        name: w.name.clone(),
        state: w.state,
        reason: if cut_off { WorkloadReason::NodeUnreachable } else { w.reason },
        since: w.since,
        what: super::what(w.spec.spec()),
        node: names().next(),
        nodes: if shown.len() > 1 { names().take(NODES_SHOWN).collect() } else { Vec::new() },
        gpus: u32::try_from(w.lives().map(|a| a.gpus.len()).sum::<usize>()).unwrap_or(u32::MAX),
        attempt: w.main_attempt(),
        exit_code: w.verdict().and_then(|a| a.exit_code),
        simulated: w.simulated(),
        revision: w.revision,
    }
}

/// One that holds a place, with all its GPUs; none if it holds none.
pub(super) fn holder(cluster: &Cluster, w: &WorkloadEntry) -> Option<Blocker> {
    let node = cluster.nodes.get(w.live()?.node_id)?.name.clone();
    let gpus = u32::try_from(w.lives().map(|a| a.gpus.len()).sum::<usize>()).unwrap_or(u32::MAX);
    Some(Blocker { workload_id: w.workload_id, name: w.name.clone(), owner: w.submitted_by.clone(), gpus, node })
}

/// `workload_list`.
pub fn workload_list(cluster: &Cluster, p: &WorkloadListParams) -> Result<WorkloadList, Refusal> {
    let only = p.node.as_deref().map(|text| cluster.resolve_node(text).map(|n| n.node_id)).transpose()?;
    let rows = cluster
        .workloads
        .iter()
        .filter(|w| p.states.is_empty() || p.states.contains(&w.state))
        .filter(|w| only.is_none_or(|id| w.live_on(id).is_some()))
        .filter(|w| p.labels.iter().all(|(k, v)| w.spec.spec().labels.get(k) == Some(v)))
        .filter(|w| p.filter.as_deref().is_none_or(|f| w.name.contains(f)))
        .filter(|w| p.since_revision.is_none_or(|r| w.revision > r))
        .map(|w| (w.workload_id.to_string(), workload_row(cluster, w)))
        .collect();
    let page = page(
        rows,
        &Asked {
            limit: p.limit,
            cursor: p.cursor.as_deref(),
            fields: &p.fields,
            id_field: "workload_id",
            revision: cluster.revision,
        },
    )?;
    Ok(WorkloadList {
        workloads: page.rows,
        total: page.total,
        truncated: page.truncated,
        next_cursor: page.next_cursor,
        revision: cluster.revision,
    })
}

fn attempt_view(cluster: &Cluster, a: &AttemptEntry) -> AttemptView {
    AttemptView {
        attempt: a.attempt,
        node_rank: a.part.map(|part| part.node_rank),
        node_id: a.node_id,
        node: node_name(cluster, a.node_id),
        gpus: a.gpus.clone(),
        state: a.state,
        reason: a.reason,
        detail: a.detail.clone(),
        started_at: a.started_at,
        ended_at: a.ended_at,
        exit_code: a.exit_code,
        signal: a.signal,
    }
}

/// On the GPU that it has a share of now, whoever has one is held to its memory. Of what has ended nobody knows.
fn shares_are_capped(cluster: &Cluster, w: &WorkloadEntry) -> bool {
    let Some(live) = w.live() else { return false };
    let gpus = cluster.nodes.get(live.node_id).map(|node| node.gpus()).unwrap_or_default();
    gpus.iter().any(|gpu| gpu.caps_shares && live.gpus.contains(&gpu.uuid))
}

/// What keeps others from the GPUs that it has.
fn gpu_isolation(cluster: &Cluster, w: &WorkloadEntry, runtime: RuntimeKind) -> &'static str {
    let demand = w.spec.demand();
    let (is_live, is_process) = (w.live().is_some(), runtime == RuntimeKind::Process);
    if demand.is_share() {
        return match (is_live, shares_are_capped(cluster, w)) {
            (false, _) => "; its share of a GPU was one by time",
            (true, true) => {
                "; its GPU is shared by time: the node's kernel holds each who shares it to the memory of the share"
            }
            (true, false) => "; its GPU is shared by time: nothing keeps others from its memory or its time",
        };
    }
    match (demand.mig_profile.is_some(), is_process) {
        // What it had others may have by now.
        _ if demand.gpus == 0 || !is_live || w.simulated() => "",
        (true, true) => "; it sees the GPU's other slices as well as its own",
        (true, false) => "; its slice of a GPU is kept apart by hardware",
        // Whom the node's owner lets at its GPUs beside the agent nobody here knows.
        (false, true) => "; its GPUs are whole and given to no other workload, and it sees all of the node's GPUs",
        (false, false) => "; its GPUs are whole and given to no other workload",
    }
}

/// `workload_get`.
pub fn workload_detail(
    cluster: &Cluster,
    text: &str,
    usage: impl Fn(&WorkloadEntry) -> Option<WorkloadUsage>,
) -> Result<WorkloadDetail, Refusal> {
    let w = cluster.resolve_workload(text)?;
    let runtime = w.attempts.last().map(|a| a.runtime);
    let by_runtime = match runtime {
        Some(RuntimeKind::Process) => "none: a host process without isolation",
        Some(RuntimeKind::Sim) => "simulated: nothing really runs",
        Some(RuntimeKind::Docker) => "container",
        None => "not placed yet",
    };
    let of_gpu = runtime.map_or("", |runtime| gpu_isolation(cluster, w, runtime));
    let args = json!({ "workload": w.workload_id });
    let next = match w.state {
        WorkloadState::Pending => vec![SuggestedCall::new("workload_explain", args)],
        _ => vec![SuggestedCall::new("workload_logs", args)],
    };
    Ok(WorkloadDetail {
        workload: workload_row(cluster, w),
        // Environment values were moved out when it was submitted: only names are left.
        spec: w.spec.spec().clone(),
        priority: w.spec.priority(),
        closed_gates: w.gates.clone(),
        on_partition: w.spec.on_partition(),
        runtime,
        isolation: format!("{by_runtime}{of_gpu}"),
        submitted_by: w.submitted_by.clone(),
        submitted_at: w.submitted_at,
        placement: w.report.as_deref().cloned(),
        usage: usage(w),
        checkpoint: w.checkpoint.as_ref().map(|written| CheckpointView {
            attempt: written.attempt,
            label: written.label.clone(),
            at: written.at,
            took_ms: written.took_ms,
        }),
        attempts: w.attempts.iter().rev().map(|a| attempt_view(cluster, a)).collect(),
        next,
    })
}
