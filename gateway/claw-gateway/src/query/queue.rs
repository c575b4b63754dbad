//! `queue_list`, `capacity_find`.

use std::sync::Arc;

use claw_proto::ids::{IdSource, WorkloadId};
use claw_proto::spec::RuntimeKind;
use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;
use claw_tools::refusal::{Refusal, SuggestedCall};
use claw_tools::scheduling::{CapacityFindParams, CapacityFound, QueueList, QueueListParams, QueueRow};
use claw_tools::workloads::{Blocker, PlacementReport};
use serde_json::json;

use super::page::{Asked, page};
use crate::Cluster;
use crate::command::Caller;
use crate::event::{Event, EventRecord};
use crate::preemption;
use crate::scheduler::{Decision, Place, decide_for, placements};
use crate::step::checked_spec;
use crate::tenancy;
use crate::workload::WorkloadEntry;

/// Copies that are counted unless asked otherwise.
const COPIES_DEFAULT: u32 = 8;

/// `queue_list`.
pub fn queue_list(cluster: &Cluster, p: &QueueListParams, now: Timestamp) -> Result<QueueList, Refusal> {
    let turns = tenancy::order(cluster, now);
    let waiting = cluster.workloads.queue().filter_map(|id| cluster.workloads.get(id));
    let rows: Vec<QueueRow> = (1..)
        .zip(waiting)
        .filter(|(_, w)| p.owner.as_ref().is_none_or(|owner| *owner == w.submitted_by))
        .map(|(position, w)| row(position, turns.get(&w.workload_id).copied(), w))
        .collect();
    let gpus_wanted = rows.iter().map(|row| row.gpus).fold(0, u32::saturating_add);
    let keyed = rows.into_iter().map(|row| (format!("{:010}", row.position), row)).collect();
    let asked = Asked {
        limit: p.limit,
        cursor: p.cursor.as_deref(),
        fields: &p.fields,
        id_field: "workload_id",
        revision: cluster.revision,
    };
    let page = page(keyed, &asked)?;
    Ok(QueueList {
        queue: page.rows,
        total: page.total,
        gpus_wanted,
        truncated: page.truncated,
        next_cursor: page.next_cursor,
        revision: cluster.revision,
    })
}

fn row(position: u32, turn: Option<u32>, w: &WorkloadEntry) -> QueueRow {
    let leaving = w.claim.as_ref().map_or(0, |claim| claim.victims.len());
    QueueRow {
        position,
        turn,
        tenant: w.spec.spec().tenant.clone(),
        workload_id: w.workload_id,
        name: w.name.clone(),
        owner: w.submitted_by.clone(),
        priority: w.spec.priority(),
        what: super::what(w.spec.spec()),
        gpus: w.spec.demand().gpus,
        nodes: w.spec.nodes(),
        reason: w.reason,
        since: w.since,
        room_from: u32::try_from(leaving).unwrap_or(u32::MAX),
    }
}

/// `capacity_find`: as if it were submitted now, again and again.
pub fn capacity_find(
    cluster: &Cluster,
    p: &CapacityFindParams,
    caller: &Caller,
    ids: &mut dyn IdSource,
) -> Result<CapacityFound, Refusal> {
    let spec = Arc::new(checked_spec(cluster, caller, p.spec.clone())?);
    let copies_max = p.copies_max.unwrap_or(COPIES_DEFAULT).max(1);
    let mut fork = cluster.detached();
    let entry = submit(&mut fork, caller, ids, &spec);
    let decision = decide_for(&fork, &entry);
    let (Decision::Place { report, .. } | Decision::Wait { report }) = &decision;
    let placement = (**report).clone();
    let leaves = match &decision {
        Decision::Place { .. } => Vec::new(),
        Decision::Wait { .. } => would_leave(&fork, &entry, caller),
    };
    let (mut copies, mut simulated) = (0, false);
    let mut next_copy = (entry, decision);
    while let (entry, Decision::Place { places, report }) = next_copy {
        simulated |= places.iter().any(|place| is_simulated(&fork, place));
        for placed in placements(&entry, places, &report) {
            apply(&mut fork, caller, placed);
        }
        copies += 1;
        if copies == copies_max {
            break;
        }
        let entry = submit(&mut fork, caller, ids, &spec);
        let decision = decide_for(&fork, &entry);
        next_copy = (entry, decision);
    }
    let mut summary = summary(copies, copies_max, &leaves, &placement);
    if !spec.spec().gates.is_empty() {
        summary = format!("once its gates {} are open: {summary}", spec.spec().gates.join(", "));
    }
    let run = json!({ "spec": p.spec, "mode": "plan" });
    let mut next = vec![SuggestedCall::new("workload_run", run)];
    if copies == 0 {
        next.push(SuggestedCall::new("queue_list", json!({})));
    }
    Ok(CapacityFound { summary, copies, placement, leaves, simulated, next })
}

fn summary(copies: u32, copies_max: u32, leaves: &[Blocker], placement: &PlacementReport) -> String {
    match (copies, leaves) {
        (0, []) => format!("it would wait: {}", placement.summary),
        (0, leaves) => format!("it would wait until {} workload(s) have made room", leaves.len()),
        (1, _) if copies_max == 1 => format!("it would start now: {}", placement.summary),
        (1, _) => format!("one copy would start now: {}", placement.summary),
        (n, _) if n == copies_max => format!("{n} copies or more would start now; the first {}", placement.summary),
        (n, _) => format!("{n} copies would start now; the first {}", placement.summary),
    }
}

/// A copy more in the queue of a copy of the fleet.
fn submit(fork: &mut Cluster, caller: &Caller, ids: &mut dyn IdSource, spec: &Arc<ValidSpec>) -> Arc<WorkloadEntry> {
    let workload_id = WorkloadId::next(ids);
    let (name, spec) = (workload_id.to_string(), Arc::clone(spec));
    apply(fork, caller, Event::WorkloadSubmitted { workload_id, name, spec, env_handle: None });
    fork.workloads.get(workload_id).cloned().expect("it was submitted by the event before")
}

fn would_leave(fork: &Cluster, entry: &WorkloadEntry, caller: &Caller) -> Vec<Blocker> {
    let Some((claim, _)) = preemption::plan(fork, entry, caller.now) else {
        return Vec::new();
    };
    let victims = claim.victims.iter().filter_map(|id| fork.workloads.get(*id));
    victims.filter_map(|w| super::works::holder(fork, w)).collect()
}

fn is_simulated(fork: &Cluster, place: &Place) -> bool {
    place.runtime == RuntimeKind::Sim || fork.nodes.get(place.node_id).is_some_and(|n| n.simulated())
}

/// Applies an event to a copy of the fleet.
pub(super) fn apply(fork: &mut Cluster, caller: &Caller, event: Event) {
    let record = EventRecord {
        at: caller.now,
        principal: caller.principal.clone(),
        reason: String::new(),
        operation_id: None,
        event,
    };
    fork.apply(&record);
}
