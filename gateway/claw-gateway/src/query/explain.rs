//! `workload_explain`: why it is where it is, who is in its way, and what would
//! make it start, tried on a copy of the fleet before it is offered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::ids::{CountingIds, NodeId, WorkloadId};
use claw_proto::spec::{Placement, TAINT_PREFIX, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;
use claw_tools::nodes::Schedulable;
use claw_tools::quotas::Quota;
use claw_tools::refusal::{Refusal, SuggestedCall};
use claw_tools::workloads::{Blocker, PlacementReason, Remedy, WorkloadExplanation, WorkloadReason, WorkloadState};
use serde_json::json;

use super::forecast::forecast;
use super::works::workload_row;
use crate::preemption;
use crate::registry::NodeEntry;
use crate::scheduler::{Decision, apart, busy_nodes, decide, decide_for};
use crate::step::reschedule;
use crate::tenancy;
use crate::workload::WorkloadEntry;
use crate::{Caller, Cluster};

/// Most remedies that are offered.
const REMEDIES_MAX: usize = 5;
/// Most looks at the whole queue, which may be long.
const LOOKS_MAX: usize = 24;
/// Of these so many for GPUs that would be cut: others are left for what else may help.
const CUT_LOOKS_MAX: usize = 8;
/// Most of one kind.
const OF_KIND_MAX: usize = 2;
/// Most holders of what is short that are named.
const BLOCKERS_MAX: usize = 20;
/// Most workloads whose end is tried as a remedy.
const TRIED_MAX: usize = 64;

/// `workload_explain`.
pub fn explain(cluster: &Cluster, text: &str, now: Timestamp) -> Result<WorkloadExplanation, Refusal> {
    let cluster = &cluster.detached();
    let w = cluster.resolve_workload(text)?;
    let pending = w.state == WorkloadState::Pending;
    let placement = if pending { Some(report_now(cluster, w)) } else { w.report.as_deref().cloned() };
    let queue_position = if pending {
        cluster.workloads.queue().position(|id| id == w.workload_id).and_then(|p| u32::try_from(p + 1).ok())
    } else {
        None
    };
    // It waits behind another of its tenant: what it could do by itself is not what keeps it.
    let could_start = placement.as_ref().is_some_and(|report| report.chosen.is_some());
    let held_behind = pending && w.reason == WorkloadReason::QuotaExceeded && could_start;
    let behind = if held_behind { tenancy::waits_behind(cluster, w) } else { None };
    // Held back it is not started, whatever others do.
    let gate = if pending { w.held_back(now) } else { None };
    let not_before = w.not_before.filter(|at| *at > now);
    let by_itself = pending && behind.is_none() && gate.is_none();
    let placement = behind.or(placement);
    let mut blockers = if by_itself { blockers(cluster, w) } else { Vec::new() };
    let would_start_if = match gate {
        _ if by_itself => remedies(cluster, w, &blockers, now),
        Some(WorkloadReason::Gated) => opened(cluster, w, now),
        _ => Vec::new(),
    };
    blockers.truncate(BLOCKERS_MAX);
    let row = workload_row(cluster, w);
    let told = placement.as_ref().map(|p| p.summary.as_str());
    let mut summary = summary(w, row.reason, told, (would_start_if.first(), gate.map(|gate| (gate, not_before))));
    summary.push_str(&makes_room(cluster, w));
    let starts = pending.then(|| forecast(cluster, w, &blockers, now));
    if let Some(starts) = &starts {
        summary = format!("{summary}. {}", starts.summary);
    }
    let history = w.attempts.iter().rev().map(|a| line(cluster, a)).collect();
    let next = would_start_if.iter().map(|r| r.call.clone()).take(3).collect();
    Ok(WorkloadExplanation {
        summary,
        workload: row,
        placement,
        queue_position,
        blockers,
        starts,
        would_start_if,
        history,
        next,
    })
}

fn report_now(cluster: &Cluster, w: &WorkloadEntry) -> claw_tools::workloads::PlacementReport {
    match decide_for(cluster, w) {
        Decision::Place { report, .. } | Decision::Wait { report } => (*report).clone(),
    }
}

fn summary(
    w: &WorkloadEntry,
    reason: claw_tools::workloads::WorkloadReason,
    report: Option<&str>,
    (remedy, gate): (Option<&Remedy>, Option<(WorkloadReason, Option<Timestamp>)>),
) -> String {
    let mut text = format!("{} is {} ({reason})", w.name, w.state);
    if let Some(report) = report {
        // Held back it goes nowhere yet.
        let then = if gate.is_some() { "; without that: " } else { ": " };
        text = format!("{text}{then}{report}");
    }
    if let Some((WorkloadReason::Gated, not_before)) = gate {
        let then = if remedy.is_some() { "; it would start then" } else { ", and would have to wait then as well" };
        text = format!("{text}. It is not placed before its gate(s) {} are open{then}", w.gates.join(", "));
        return not_before.map_or(text.clone(), |at| format!("{text}, nor before {at}"));
    }
    if let Some((_, Some(at))) = gate {
        return format!("{text}. It is not started before {at}");
    }
    match (w.state, remedy) {
        (WorkloadState::Pending, Some(remedy)) => {
            format!("{text}. It would start if: {}", remedy.change)
        }
        (WorkloadState::Pending, None) => {
            format!("{text}. No single change that was tried would start it")
        }
        _ => text,
    }
}

/// Who leaves for it, or for whom it leaves.
fn makes_room(cluster: &Cluster, w: &WorkloadEntry) -> String {
    let name = |id: &WorkloadId| {
        cluster.workloads.get(*id).map(|w| format!("{} of {} (priority {})", w.name, w.submitted_by, w.spec.priority()))
    };
    if let Some(claim) = w.claim.as_ref().filter(|claim| claim.victims.is_empty()) {
        let nodes = claim.places.iter().filter_map(|p| cluster.nodes.get(p.node_id)).map(|n| n.name.clone()).take(5);
        return format!(
            ". It has waited long: what becomes free on {} is kept for it",
            nodes.collect::<Vec<_>>().join(", ")
        );
    }
    if let Some(claim) = &w.claim {
        let victims: Vec<String> = claim.victims.iter().filter_map(name).take(5).collect();
        let who = if claim.reclaims {
            "Work beyond what its tenant is guaranteed, or less important,"
        } else {
            "Less important work"
        };
        return format!(". {who} is told to end and leaves room for it: {}", victims.join(", "));
    }
    let leaves_for = cluster.workloads.leaves_for(w.workload_id).and_then(|other| name(&other.workload_id));
    leaves_for.map_or_else(String::new, |other| format!(". It makes room for {other}, and goes back into the queue"))
}

fn line(cluster: &Cluster, a: &crate::workload::AttemptEntry) -> String {
    let node = cluster.nodes.get(a.node_id).map_or_else(|| a.node_id.to_string(), |n| n.name.clone());
    let exit = a
        .exit_code
        .map(|c| format!(", exit code {c}"))
        .or_else(|| a.signal.map(|s| format!(", signal {s}")))
        .unwrap_or_default();
    let detail = if a.detail.is_empty() { String::new() } else { format!(": {}", a.detail) };
    format!("attempt {} on {node}: {} ({}{exit}){detail}", a.attempt.0, a.state, a.reason)
}

/// Who holds what is short on nodes that would do if it were free.
fn blockers(cluster: &Cluster, w: &WorkloadEntry) -> Vec<Blocker> {
    if let Some((bound, _)) = tenancy::bound_in_the_way(cluster, w) {
        return holders_of(cluster, &bound.name);
    }
    let demand = w.spec.demand();
    let mut held: BTreeMap<WorkloadId, (NodeId, u32)> = BTreeMap::new();
    let mut near: BTreeMap<WorkloadId, Blocker> = BTreeMap::new();
    let in_the_way: BTreeMap<NodeId, WorkloadId> = apart::left_out(cluster, &w.spec, Some(w)).into_iter().collect();
    for (node_id, short) in busy_nodes(cluster, w) {
        let Some(n) = cluster.nodes.get(node_id) else { continue };
        if short == PlacementReason::KeptApart {
            // It may stand on another node, of the same rack or zone.
            let other = in_the_way.get(&node_id).and_then(|id| cluster.workloads.get(*id));
            let holder = other.and_then(|other| super::works::holder(cluster, other));
            near.extend(holder.map(|holder| (holder.workload_id, holder)));
            continue;
        }
        if matches!(short, PlacementReason::CpuBusy | PlacementReason::MemoryBusy | PlacementReason::DiskBusy) {
            for id in &n.usage.workloads {
                let live = cluster.workloads.get(*id).and_then(|other| other.live_on(node_id));
                let gpus = live.map_or(0, |live| u32::try_from(live.gpus.len()).unwrap_or(u32::MAX));
                held.entry(*id).or_insert((node_id, 0)).1 += gpus;
            }
            continue;
        }
        let fits = |g: &&claw_proto::topology::GpuInfo| {
            g.mig.as_ref().map(|slice| &slice.profile) == demand.mig_profile.as_ref()
                && demand.takes_model(&g.model)
                && demand.takes_caps_of(g)
                && demand.memory_mib_of(g.memory_mib) >= demand.gpu_memory_mib_min
        };
        for g in n.gpus().iter().filter(fits) {
            for (id, _) in cluster.workloads.holders(&g.uuid).iter().flat_map(|holders| holders.each()) {
                held.entry(id).or_insert((node_id, 0)).1 += 1;
            }
        }
    }
    near.retain(|id, _| !held.contains_key(id));
    let mut blockers: Vec<Blocker> = held
        .into_iter()
        .filter_map(|(id, (node_id, gpus))| {
            let w = cluster.workloads.get(id)?;
            let node = cluster.nodes.get(node_id)?.name.clone();
            Some(Blocker { workload_id: id, name: w.name.clone(), owner: w.submitted_by.clone(), gpus, node })
        })
        .chain(near.into_values())
        .collect();
    blockers.sort_by_key(|b| (std::cmp::Reverse(b.gpus), b.workload_id));
    blockers
}

/// Who holds what a tenant and its parts may hold.
fn holders_of(cluster: &Cluster, tenant: &str) -> Vec<Blocker> {
    let its = |w: &&Arc<WorkloadEntry>| cluster.tenants.counts_for(w.spec.spec().tenant.as_deref(), tenant);
    let mut holders: Vec<Blocker> =
        cluster.workloads.iter().filter(its).filter_map(|w| super::works::holder(cluster, w)).collect();
    holders.sort_by_key(|b| (std::cmp::Reverse(b.gpus), b.workload_id));
    holders
}

/// It starts in this fleet, with all that wait before it: the queue is looked at as after a change.
fn starts(fork: &Cluster, w: &WorkloadEntry, now: Timestamp, offers: &mut Offers) -> bool {
    // Most changes do not help, and that is found without a look at the queue.
    if offers.looked >= LOOKS_MAX || !matches!(decide_for(fork, w), Decision::Place { .. }) {
        return false;
    }
    offers.looked += 1;
    let mut after = fork.clone();
    let _decided = reschedule(&mut after, &Caller::system(now), &mut CountingIds::new(u32::MAX));
    after.workloads.get(w.workload_id).is_some_and(|w| w.live().is_some())
}

/// What is offered so far: of each kind some, so that each has its place.
#[derive(Default)]
struct Offers {
    remedies: Vec<Remedy>,
    of_kind: usize,
    /// Looks at the whole queue.
    looked: usize,
}

impl Offers {
    fn offer(&mut self, change: String, tool: &str, args: serde_json::Value) {
        self.remedies.push(Remedy { change, call: SuggestedCall::new(tool, args), verified: true });
        self.of_kind += 1;
    }

    /// Another kind begins.
    fn next_kind(&mut self) {
        self.of_kind = 0;
    }

    fn is_enough(&self) -> bool {
        self.of_kind >= OF_KIND_MAX || self.remedies.len() >= REMEDIES_MAX
    }
}

fn remedies(cluster: &Cluster, w: &WorkloadEntry, blockers: &[Blocker], now: Timestamp) -> Vec<Remedy> {
    let mut offers = Offers::default();
    nodes_that_take_work_again(cluster, w, now, &mut offers);
    others_bounds(cluster, w, now, &mut offers);
    // Idle GPUs could be cut, which is done on their host.
    let looks_left = LOOKS_MAX.min(offers.looked + CUT_LOOKS_MAX);
    let starts_cut = |fork: &Cluster| offers.looked < looks_left && starts(fork, w, now, &mut offers);
    if let Some(cut) = super::mig::cut(cluster, w, starts_cut) {
        offers.offer(cut.change, "node_get", json!({ "node": cut.node }));
    }
    offers.next_kind();
    // It could ask for less: submitted anew, behind all that wait.
    for wishes in [bearing(cluster, w.spec.spec()), smaller(w.spec.spec())] {
        for (change, spec) in wishes {
            let starts = |valid: &ValidSpec| matches!(decide(cluster, valid), Decision::Place { .. });
            if !offers.is_enough() && ValidSpec::parse(spec.clone()).is_ok_and(|valid| starts(&valid)) {
                let spec = WorkloadSpec { name: None, ..spec };
                offers.offer(change, "workload_run", json!({ "spec": spec, "mode": "plan" }));
            }
        }
        offers.next_kind();
    }
    // One of those that hold what it needs could end: first whose end loses least.
    let policy = &cluster.policy.preemption;
    let lost = |b: &Blocker| cluster.workloads.get(b.workload_id).map(|w| preemption::lost_gpu_ms(policy, w, now));
    let mut cheapest: Vec<(Option<u64>, &Blocker)> = blockers.iter().map(|b| (lost(b), b)).collect();
    cheapest.sort_by_key(|(lost, b)| (*lost, b.workload_id));
    for (_, b) in cheapest.into_iter().take(TRIED_MAX) {
        if offers.is_enough() {
            break;
        }
        let mut fork = cluster.clone();
        preemption::free(&mut fork, b.workload_id);
        if starts(&fork, w, now, &mut offers) {
            let change = format!("{} of {} ended ({} on {})", b.name, b.owner, crate::query::gpus(b.gpus), b.node);
            offers.offer(change, "workload_stop", json!({ "workload": b.workload_id, "mode": "plan" }));
        }
    }
    offers.remedies
}

/// Its gates could be opened.
fn opened(cluster: &Cluster, w: &WorkloadEntry, now: Timestamp) -> Vec<Remedy> {
    let mut offers = Offers::default();
    let mut fork = cluster.clone();
    fork.workloads.update(w.workload_id, |w| w.gates.clear());
    if starts(&fork, w, now, &mut offers) {
        let change = format!("{} opened", w.gates.join(" and "));
        offers.offer(change, "workload_release", json!({ "workload": w.workload_id, "gates": w.gates }));
    }
    offers.remedies
}

/// A node that takes no work could take it again.
fn nodes_that_take_work_again(cluster: &Cluster, w: &WorkloadEntry, now: Timestamp, offers: &mut Offers) {
    for n in cluster.nodes.iter().filter(|n| n.schedulable != Schedulable::Active) {
        if offers.is_enough() {
            break;
        }
        let mut fork = cluster.clone();
        fork.nodes.update(n.node_id, |n| n.schedulable = Schedulable::Active);
        if starts(&fork, w, now, offers) {
            let tool = if n.schedulable == Schedulable::Cordoned { "node_uncordon" } else { "node_undrain" };
            offers.offer(format!("{} takes work again", n.name), tool, json!({ "node": n.name }));
        }
    }
    offers.next_kind();
}

/// Its tenant could have more, and nodes could be kept for others no more.
fn others_bounds(cluster: &Cluster, w: &WorkloadEntry, now: Timestamp, offers: &mut Offers) {
    if let Some((bound, most)) = tenancy::bound_in_the_way(cluster, w) {
        let mut fork = cluster.clone();
        let quota = Quota { most, ..(*bound.quota).clone() };
        fork.tenants.set(&bound.name, quota, fork.policy.half_life_s());
        if starts(&fork, w, now, offers) {
            let args = json!({ "tenant": bound.name, "most": most, "mode": "plan" });
            offers.offer(format!("{} might hold more", bound.name), "quota_set", args);
        }
    }
    for kept in cluster.reservations.iter().take(TRIED_MAX) {
        if offers.is_enough() {
            break;
        }
        let mut fork = cluster.clone();
        fork.reservations.remove(&kept.name);
        if starts(&fork, w, now, offers) {
            let change = format!("the reservation {} for {} were ended", kept.name, kept.tenant);
            offers.offer(change, "reservation_delete", json!({ "name": kept.name, "mode": "plan" }));
        }
    }
    offers.next_kind();
}

/// The same wish that bears the taints of some node as well, those with fewest first.
fn bearing(cluster: &Cluster, spec: &WorkloadSpec) -> Vec<(String, WorkloadSpec)> {
    let placement = spec.placement.clone().unwrap_or_default();
    let unborne = |node: &NodeEntry| -> Vec<String> {
        let unborne = node.taints().filter(|(label, value)| !placement.bears(label, value));
        unborne.map(|(label, value)| format!("{}={value}", label.strip_prefix(TAINT_PREFIX).unwrap_or(label))).collect()
    };
    let sets: BTreeSet<Vec<String>> =
        cluster.nodes.iter().map(|node| unborne(node)).filter(|s| !s.is_empty()).collect();
    let mut sets: Vec<Vec<String>> = sets.into_iter().collect();
    sets.sort_by_key(Vec::len);
    let with = |taints: Vec<String>| {
        let are = if taints.len() == 1 { "taint" } else { "taints" };
        let change = format!("it bore the {are} {}", taints.join(" and "));
        let mut placement = placement.clone();
        placement.tolerations.extend(taints);
        (change, WorkloadSpec { placement: Some(placement), ..spec.clone() })
    };
    sets.into_iter().take(TRIED_MAX).map(with).collect()
}

/// The same wish with one constraint less on its GPUs, or fewer of them.
fn smaller_of_gpus(spec: &WorkloadSpec) -> Vec<(String, WorkloadSpec)> {
    let mut out: Vec<(String, WorkloadSpec)> = Vec::new();
    let Some(gpu) = &spec.gpu else { return out };
    let with = |change: &dyn Fn(&mut claw_proto::spec::GpuRequest)| {
        let mut s = spec.clone();
        if let Some(g) = s.gpu.as_mut() {
            change(g);
        }
        s
    };
    let models: Vec<&str> = gpu.models().collect();
    if !models.is_empty() {
        let change = format!("it took any GPU model instead of {}", models.join(" or "));
        out.push((change, with(&|g| (g.model, g.model_fallbacks) = (None, Vec::new()))));
    }
    if gpu.interconnect == Some(claw_proto::spec::Interconnect::Nvlink) {
        out.push(("it did not need NVLink".into(), with(&|g| g.interconnect = None)));
    }
    if let Some(fraction) = gpu.fraction {
        for less in [fraction / 2.0, fraction / 4.0] {
            let change = format!("it asked for {less} of a GPU instead of {fraction}");
            out.push((change, with(&move |g| g.fraction = Some(less))));
        }
    }
    if gpu.fraction.is_some() && gpu.isolation == Some(claw_proto::spec::Isolation::Memory) {
        out.push(("it did not need its memory kept apart".into(), with(&|g| g.isolation = None)));
        out.push((
            "it took a whole GPU instead of a share".into(),
            with(&|g| (g.fraction, g.count, g.isolation) = (None, Some(1), None)),
        ));
    }
    if let Some(profile) = &gpu.mig_profile {
        out.push((
            format!("it took a whole GPU instead of a slice {profile}"),
            with(&|g| {
                (g.mig_profile, g.count) = (None, Some(g.count.unwrap_or(1)));
            }),
        ));
        for other in claw_proto::mig::larger(profile) {
            let change = format!("it took a slice {other} instead of {profile}");
            out.push((change, with(&move |g| g.mig_profile = Some(other.to_owned()))));
        }
    }
    let mut count = gpu.count.unwrap_or(0) / 2;
    while count > 0 {
        out.push((
            format!("it asked for {} instead of {}", crate::query::gpus(count), gpu.count.unwrap_or(0)),
            with(&move |g| g.count = Some(count)),
        ));
        count /= 2;
    }
    out
}

/// The same wish with one constraint less or fewer GPUs.
fn smaller(spec: &WorkloadSpec) -> Vec<(String, WorkloadSpec)> {
    let mut out = smaller_of_gpus(spec);
    if let Some(placement) = &spec.placement
        && let Some(apart) = &placement.anti_affinity
    {
        let placement = Some(Placement { anti_affinity: None, ..placement.clone() });
        let labels: Vec<String> = apart.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let change = format!("it were not kept apart from work with {}", labels.join(" and "));
        out.push((change, WorkloadSpec { placement, ..spec.clone() }));
    }
    if let Some(placement) = &spec.placement
        && (placement.node.is_some()
            || placement.zone.is_some()
            || !placement.labels.is_empty()
            || !placement.exclude_nodes.is_empty())
    {
        // Which taints it bears and whom it is kept apart from names no node.
        let anywhere = Placement {
            tolerations: placement.tolerations.clone(),
            anti_affinity: placement.anti_affinity.clone(),
            ..Placement::default()
        };
        let anywhere = (anywhere != Placement::default()).then_some(anywhere);
        out.push(("it could go to any node".into(), WorkloadSpec { placement: anywhere, ..spec.clone() }));
    }
    out
}
