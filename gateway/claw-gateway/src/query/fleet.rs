//! `cluster_status`, `node_list`, `node_get`, `gpu_list`.

use std::collections::{BTreeMap, BTreeSet};

use claw_proto::ids::GpuUuid;
use claw_proto::message::GpuEvent;
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuHealth, GpuInfo, NodeFinding};
use claw_proto::validation::GPU_MILLI;
use claw_tools::cluster::{ClusterStatus, GpuCounts, NodeCounts, Problem, WorkloadCounts};
use claw_tools::nodes::{
    GpuList, GpuListParams, GpuRow, GpuShare, KernelHeard, MetricsSnapshot, NodeDetail, NodeLink, NodeList,
    NodeListParams, NodeRow, Orphan, Schedulable,
};
use claw_tools::outcome::clip;
use claw_tools::refusal::{Refusal, SuggestedCall};
use claw_tools::workloads::{WorkloadReason, WorkloadState as S};
use serde_json::json;

use super::page::{Asked, page};
use super::works::workload_row;
use crate::Cluster;
use crate::registry::NodeEntry;
use crate::workload::Holders;

/// Most problems that a status lists.
const PROBLEMS_MAX: usize = 20;
/// Longest words of a finding.
const FINDING_CHARS_MAX: usize = 300;

/// Health first: totals, then what is wrong.
pub fn status(cluster: &Cluster, now: Timestamp, journal_writable: bool) -> ClusterStatus {
    let nodes = count_nodes(cluster);
    let gpus = count_gpus(cluster);
    let count = |state| cluster.workloads.count(state);
    let workloads = WorkloadCounts {
        pending: count(S::Pending),
        starting: count(S::Placed) + count(S::Pulling) + count(S::Starting),
        running: count(S::Running),
        stopping: count(S::Stopping),
        completed: count(S::Completed),
        failed: count(S::Failed),
        stopped: count(S::Stopped),
        lost: count(S::Lost),
    };
    let problems = problems(cluster, journal_writable);
    let simulated = cluster.nodes.iter().any(|n| n.simulated());
    let summary = format!(
        "{} of {} nodes online, {} of {} GPUs free, {} workload(s) running, {} waiting, {} problem(s){}",
        nodes.online,
        nodes.total,
        gpus.free,
        gpus.total,
        workloads.running,
        workloads.pending,
        problems.len(),
        if simulated { "; some nodes are simulated" } else { "" }
    );
    let mut next: Vec<SuggestedCall> = problems.iter().flat_map(|p| p.next.clone()).take(5).collect();
    if nodes.total == 0 {
        next.push(SuggestedCall::new("node_token_create", json!({})));
    }
    ClusterStatus {
        summary,
        revision: cluster.revision,
        at: now,
        journal_writable,
        nodes,
        gpus,
        workloads,
        simulated,
        problems,
        next,
    }
}

fn count_nodes(cluster: &Cluster) -> NodeCounts {
    let mut counts = NodeCounts { total: 0, online: 0, unreachable: 0, unschedulable: 0 };
    for n in cluster.nodes.iter() {
        counts.total += 1;
        counts.online += u32::from(n.link == NodeLink::Online);
        counts.unreachable += u32::from(n.link == NodeLink::Unreachable);
        counts.unschedulable += u32::from(n.schedulable != Schedulable::Active);
    }
    counts
}

fn count_gpus(cluster: &Cluster) -> GpuCounts {
    let mut counts = GpuCounts { total: 0, free: 0, held: 0, unhealthy: 0 };
    for n in cluster.nodes.iter() {
        for g in n.given_gpus().filter(|g| cluster.nodes.home_of(&g.uuid) == Some(n.node_id)) {
            let held = cluster.workloads.holders(&g.uuid).is_some();
            let healthy = g.health == GpuHealth::Healthy;
            counts.total += 1;
            counts.held += u32::from(held);
            counts.unhealthy += u32::from(!healthy);
            let usable = n.link == NodeLink::Online && n.schedulable == Schedulable::Active;
            counts.free += u32::from(!held && healthy && usable);
        }
    }
    counts
}

fn problems(cluster: &Cluster, journal_writable: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |code: &str, message: String, next: Vec<SuggestedCall>| {
        problems.push(Problem { code: code.into(), message, workloads: Vec::new(), next });
    };
    if !journal_writable {
        add(
            "JOURNAL_UNAVAILABLE",
            "the journal cannot be written: reads go on, changes are refused; free disk space on the gateway".into(),
            Vec::new(),
        );
    }
    if let Some((silent, total)) = cluster.mass_loss {
        add(
            "MASS_LOSS_SUSPECTED",
            format!(
                "{silent} of {total} nodes are silent at once: probably the gateway's network; nobody is declared lost"
            ),
            Vec::new(),
        );
    }
    if cluster.ca.requested > cluster.ca.finished {
        add(
            "CA_ROTATION",
            format!(
                "rotation {} of the certificate authority is under way: every node gets a new certificate",
                cluster.ca.requested
            ),
            vec![SuggestedCall::new("events_list", json!({ "kinds": ["CaRotated"] }))],
        );
    }
    for n in cluster.nodes.iter() {
        node_problems(cluster, n, &mut add);
    }
    for w in cluster
        .workloads
        .queue()
        .filter_map(|id| cluster.workloads.get(id))
        .filter(|w| w.reason == WorkloadReason::NoSuitableNode)
        .take(5)
    {
        let next = vec![SuggestedCall::new("workload_explain", json!({ "workload": w.workload_id }))];
        add("WORKLOAD_CANNOT_START", format!("{} fits no node of the fleet", w.name), next);
    }
    problems.truncate(PROBLEMS_MAX);
    problems
}

fn node_problems(cluster: &Cluster, n: &NodeEntry, add: &mut impl FnMut(&str, String, Vec<SuggestedCall>)) {
    let get = || vec![SuggestedCall::new("node_get", json!({ "node": n.name }))];
    if n.link == NodeLink::Unreachable {
        add("NODE_UNREACHABLE", format!("{} was last heard at {}", n.name, n.last_heard), get());
    }
    if n.is_revoked() {
        let next = vec![SuggestedCall::new("node_token_create", json!({ "name": n.name }))];
        let message =
            format!("the certificates of {} are revoked; it comes back when its machine enrolls again", n.name);
        add("NODE_REVOKED", message, next);
    }
    if !n.orphans.is_empty() {
        add("ORPHANS", format!("{} runs {} workload(s) that are not known here", n.name, n.orphans.len()), get());
    }
    for f in n.capabilities.iter().flat_map(|c| &c.findings).map(shown) {
        add("NODE_FINDING", format!("{}: {} ({}): {}", n.name, f.code, f.subject, f.detail), get());
    }
    // What its slices suffer from is told of the GPU.
    for g in n.gpus().iter().filter(|g| g.health != GpuHealth::Healthy && g.mig.is_none()) {
        add(
            "GPU_UNHEALTHY",
            format!(
                "{} GPU {} is {}: {}",
                n.name,
                g.index,
                g.health,
                g.health_reason.as_deref().unwrap_or("no reason given")
            ),
            get(),
        );
    }
    for g in n.gpus().iter().filter(|g| cluster.nodes.home_of(&g.uuid).is_some_and(|home| home != n.node_id)) {
        add(
            "GPU_UUID_TWICE",
            format!("{} reports GPU {} that another node has; it is not used here", n.name, g.uuid),
            get(),
        );
    }
}

/// One node, in a row.
pub fn node_row(n: &NodeEntry) -> NodeRow {
    let c = n.capabilities.as_deref();
    let left = |total: Option<u64>, used: u64| total.unwrap_or(0).saturating_sub(used);
    let gpus_total = u32::try_from(n.given_gpus().count()).unwrap_or(u32::MAX);
    NodeRow {
        node_id: n.node_id,
        name: n.name.clone(),
        link: n.link,
        link_since: n.link_since,
        schedulable: n.schedulable,
        gpus: gpus_in_short(n),
        gpus_total,
        gpus_free: gpus_total.saturating_sub(n.usage.gpus),
        cpu_cores_free: left(c.map(|c| c.cpu_millis), n.usage.cpu_millis) as f64 / 1000.0,
        memory_gib_free: (left(c.map(|c| c.memory_mib), n.usage.memory_mib) as f64 / 1024.0 * 10.0).round() / 10.0,
        workloads: u32::try_from(n.usage.workloads.len()).unwrap_or(u32::MAX),
        simulated: n.simulated(),
        labels: n.labels.clone(),
        revision: n.revision,
    }
}

fn gpus_in_short(n: &NodeEntry) -> String {
    let whole = n.whole_gpus().map(|g| g.model.clone());
    let slices = n.gpus().iter().filter_map(|g| Some(format!("{} {}", g.model, g.mig.as_ref()?.profile)));
    let mut models: BTreeMap<String, u32> = BTreeMap::new();
    for model in whole.chain(slices) {
        *models.entry(model).or_default() += 1;
    }
    if models.is_empty() {
        return "none".into();
    }
    models.iter().map(|(model, n)| format!("{n}×{model}")).collect::<Vec<_>>().join(" ")
}

/// `node_list`.
pub fn node_list(cluster: &Cluster, p: &NodeListParams) -> Result<NodeList, Refusal> {
    let rows = cluster
        .nodes
        .iter()
        .filter(|n| p.link.is_none_or(|l| l == n.link))
        .filter(|n| p.since_revision.is_none_or(|r| n.revision > r))
        .filter(|n| p.labels.iter().all(|(k, v)| n.labels.get(k) == Some(v)))
        .filter(|n| p.gpu_model.as_deref().is_none_or(|m| n.gpus().iter().any(|g| g.model.eq_ignore_ascii_case(m))))
        .map(|n| (n.node_id.to_string(), node_row(n)))
        .collect();
    let page = page(
        rows,
        &Asked {
            limit: p.limit,
            cursor: p.cursor.as_deref(),
            fields: &p.fields,
            id_field: "node_id",
            revision: cluster.revision,
        },
    )?;
    Ok(NodeList {
        nodes: page.rows,
        total: page.total,
        truncated: page.truncated,
        next_cursor: page.next_cursor,
        revision: cluster.revision,
    })
}

fn gpu_row(cluster: &Cluster, n: &NodeEntry, g: &GpuInfo, rail: Option<u32>) -> GpuRow {
    let (mut whole, mut shares) = (None, Vec::new());
    match cluster.workloads.holders(&g.uuid) {
        Some(Holders::Whole(id)) => whole = Some(*id),
        Some(holders @ Holders::Shares(_)) => {
            let row = |(workload_id, milli)| GpuShare { workload_id, share: f64::from(milli) / f64::from(GPU_MILLI) };
            shares.extend(holders.each().map(row));
        }
        None => {}
    }
    GpuRow {
        uuid: g.uuid.clone(),
        node_id: n.node_id,
        node: n.name.clone(),
        index: g.index,
        model: g.model.clone(),
        memory_gib: g.memory_mib as f64 / 1024.0,
        health: g.health,
        nvlink_island: g.nvlink_island,
        rail,
        memory_capped: g.caps_shares && n.given_gpus().any(|given| given.uuid == g.uuid),
        slice: g.mig.clone(),
        held_by: whole,
        shares,
        simulated: n.simulated(),
    }
}

/// `gpu_list`.
pub fn gpu_list(cluster: &Cluster, p: &GpuListParams) -> Result<GpuList, Refusal> {
    let only = p.node.as_deref().map(|text| cluster.resolve_node(text).map(|n| n.node_id)).transpose()?;
    let rows = cluster
        .nodes
        .iter()
        .filter(|n| only.is_none_or(|id| id == n.node_id))
        .flat_map(|n| {
            let given: BTreeSet<&GpuUuid> = n.given_gpus().map(|g| &g.uuid).collect();
            let rails = n.rails();
            n.gpus().iter().map(move |g| (n, (g, rails.of(g)), given.contains(&g.uuid)))
        })
        .filter(|(_, (g, _), _)| p.model.as_deref().is_none_or(|m| g.model.eq_ignore_ascii_case(m)))
        .filter(|(_, (g, _), is_given)| {
            let is_held = cluster.workloads.holders(&g.uuid).is_some();
            p.free.is_none_or(|free| if free { *is_given && !is_held } else { is_held })
        })
        .map(|(n, (g, rail), _)| (format!("{}/{:04}", n.node_id, g.index), gpu_row(cluster, n, g, rail)))
        .collect();
    let page = page(
        rows,
        &Asked {
            limit: p.limit,
            cursor: p.cursor.as_deref(),
            fields: &p.fields,
            id_field: "uuid",
            revision: cluster.revision,
        },
    )?;
    Ok(GpuList {
        gpus: page.rows,
        total: page.total,
        truncated: page.truncated,
        next_cursor: page.next_cursor,
        revision: cluster.revision,
    })
}

/// What is known of a node beside the journaled state.
#[derive(Debug, Default)]
pub struct NodeLive {
    /// Latest numbers.
    pub metrics: Option<MetricsSnapshot>,
    /// What happened to its GPUs, newest first.
    pub gpu_events: Vec<GpuEvent>,
    /// What its kernel said.
    pub kernel_log: Option<KernelHeard>,
}

/// `node_get`.
pub fn node_detail(
    cluster: &Cluster,
    text: &str,
    live: impl Fn(claw_proto::ids::NodeId) -> NodeLive,
) -> Result<NodeDetail, Refusal> {
    let n = cluster.resolve_node(text)?;
    let c = n.capabilities.as_deref();
    let workloads = n
        .usage
        .workloads
        .iter()
        .filter_map(|id| cluster.workloads.get(*id))
        .take(50)
        .map(|w| workload_row(cluster, w))
        .collect();
    let orphans = n
        .orphans
        .iter()
        .map(|(id, o)| Orphan { workload_id: *id, attempt: o.attempt, found_at: o.found_at, why: o.why.clone() })
        .collect();
    let (live, rails) = (live(n.node_id), n.rails());
    Ok(NodeDetail {
        node: node_row(n),
        hostname: c.map(|c| c.hostname.clone()).unwrap_or_default(),
        os: c.map(|c| c.os.clone()).unwrap_or_default(),
        arch: c.map(|c| c.arch.clone()).unwrap_or_default(),
        agent_version: c.map(|c| c.agent_version.clone()).unwrap_or_default(),
        gpu_driver: c.map_or(claw_proto::topology::GpuDriver::None, |c| c.gpu_driver),
        runtimes: c.map(|c| c.runtimes.clone()).unwrap_or_default(),
        findings: c.map(|c| c.findings.iter().map(shown).collect()).unwrap_or_default(),
        engine: c.and_then(|c| c.engine.clone()),
        gpus: n.gpus().iter().map(|g| gpu_row(cluster, n, g, rails.of(g))).collect(),
        workloads,
        orphans,
        settings: n.settings.clone(),
        metrics: live.metrics,
        gpu_events: live.gpu_events.iter().map(told).collect(),
        kernel_log: live.kernel_log,
        enrolled_with: Some(n.enrolled_with),
    })
}

fn told(event: &GpuEvent) -> GpuEvent {
    GpuEvent { detail: clip(&event.detail, FINDING_CHARS_MAX), ..event.clone() }
}

/// A finding without what its words could do to a reader.
fn shown(finding: &NodeFinding) -> NodeFinding {
    NodeFinding {
        code: finding.code,
        subject: clip(&finding.subject, FINDING_CHARS_MAX),
        detail: clip(&finding.detail, FINDING_CHARS_MAX),
    }
}
