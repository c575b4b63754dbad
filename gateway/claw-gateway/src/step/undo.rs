//! Undoing and canceling: new operations, with preconditions of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::{OperationId, WorkloadId};
use claw_tools::def::UndoClass;
use claw_tools::nodes::Schedulable;
use claw_tools::operations::OperationState;
use claw_tools::outcome::{EffectKind, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::registry;
use claw_tools::workloads::{WorkloadReason, WorkloadState};
use serde_json::json;

use super::operate::Performed;
use super::perform::{self, stop_workload};
use super::work::Work;
use crate::access;
use crate::cluster::OperationEntry;
use crate::event::{Event, Goal, Inverse};
use crate::registry::NodeEntry;
use crate::workload::Desired;

/// Performs the inverse of an operation, if nothing later stands in the way.
pub(super) fn undo(work: &mut Work<'_>, operation_id: OperationId) -> Result<Performed, Refusal> {
    let operation = work.state.resolve_operation(operation_id)?.clone();
    authorize_as(work, &operation)?;
    if let Some(by) = operation.undone_by {
        return Err(Refusal::new(ErrorCode::UndoImpossible, format!("{operation_id} was undone by {by} already"))
            .with_field("operation_id", operation_id.to_string())
            .with_next("operation_get", json!({ "operation_id": by })));
    }
    let mut done = invert(work, &operation)?;
    done.outcome.summary = format!("undo {} of {operation_id}: {}", operation.record.tool, done.outcome.summary);
    done.undoes = Some(operation_id);
    Ok(done)
}

/// Who may not do a thing may not take it back either. What the inverse does
/// counts as well: an undo of an undo does the thing itself again.
fn authorize_as(work: &Work<'_>, operation: &OperationEntry) -> Result<(), Refusal> {
    let inverse = match &operation.record.inverse {
        Inverse::Impossible { .. } => None,
        Inverse::StopWorkload { .. } => Some("workload_stop"),
        Inverse::SetGates { .. } => Some("workload_hold"),
        Inverse::SetSchedulable { .. } => Some("node_drain"),
        Inverse::SetLabels { .. } => Some("node_label"),
        Inverse::SetSettings { .. } => Some("node_config_set"),
        Inverse::SetQuota { .. } => Some("quota_set"),
        Inverse::SetReservation { .. } => Some("reservation_create"),
        Inverse::RevokeKey { .. } => Some("api_key_revoke"),
        Inverse::RevokeToken { .. } => Some("node_token_create"),
    };
    let tools = [Some(operation.record.tool.as_str()), inverse];
    tools.into_iter().flatten().filter_map(registry::find).try_for_each(|def| access::authorize(def, work.caller))
}

fn invert(work: &mut Work<'_>, operation: &OperationEntry) -> Result<Performed, Refusal> {
    match operation.record.inverse.clone() {
        Inverse::Impossible { why } => {
            Err(Refusal::new(ErrorCode::UndoImpossible, format!("{} cannot be undone: {why}", operation.record.tool))
                .with_field("operation_id", operation.record.operation_id.to_string()))
        }
        Inverse::StopWorkload { workload_id } => {
            let gone = work.state.workloads.get(workload_id).is_none_or(|w| w.state.is_final());
            if gone {
                return Err(conflict(work, operation, "the workload has ended already; what it did is not undone"));
            }
            let stop = crate::command::Operation::WorkloadStop { workload: workload_id.to_string(), grace_s: None };
            let mut done = perform::perform(work, &stop, None)?;
            done.not_restored = "what it did while it ran";
            Ok(done)
        }
        Inverse::SetGates { workload_id, expect, restore } => gates(work, operation, workload_id, (expect, restore)),
        Inverse::SetSchedulable { node_id, to } => {
            let node = node_of(work, operation, work.state.nodes.get(node_id))?;
            let left = expected_schedulable(&operation.record.tool, to);
            if !left.contains(&node.schedulable) {
                return Err(conflict(work, operation, &format!("{} is {} now", node.name, node.schedulable)));
            }
            match to {
                // Drained is more than a word: what came meanwhile has to leave again.
                Schedulable::Draining | Schedulable::Drained => perform::drain(work, &node.name, None),
                Schedulable::Active | Schedulable::Cordoned => Ok(perform::set_schedulable(work, &node, to, "set")),
            }
        }
        Inverse::SetLabels { node_id, expect, restore } => {
            let node = node_of(work, operation, work.state.nodes.get(node_id))?;
            let changed = expect.iter().find(|(k, v)| node.labels.get(*k) != v.as_ref());
            if let Some((key, _)) = changed {
                return Err(conflict(work, operation, &format!("label {key} of {} was changed since", node.name)));
            }
            let restore: BTreeMap<String, Option<String>> = restore;
            Ok(perform::set_labels(work, &node, restore))
        }
        Inverse::SetSettings { node_id, expect, restore } => {
            let node = node_of(work, operation, work.state.nodes.get(node_id))?;
            let is_same = node.settings == expect;
            unchanged(work, operation, is_same, &format!("the settings of {} were changed since", node.name))?;
            Ok(perform::set_settings(work, &node, restore))
        }
        Inverse::SetQuota { tenant, expect, restore } => {
            let now = work.state.tenants.get(&tenant).map(|entry| (*entry.quota).clone());
            unchanged(work, operation, now == expect, &format!("the quota of {tenant} was changed since"))?;
            perform::put_quota(work, &tenant, restore)
        }
        Inverse::SetReservation { name, expect, restore } => {
            let now = work.state.reservations.get(&name).map(|kept| (**kept).clone());
            unchanged(work, operation, now == expect, &format!("the reservation {name} is another now, or over"))?;
            perform::put_reservation(work, &name, restore)
        }
        Inverse::RevokeKey { key_id } => {
            perform::perform(work, &crate::command::Operation::ApiKeyRevoke { key_id }, None)
        }
        Inverse::RevokeToken { token_id } => {
            let used = work.state.tokens.get(&token_id).and_then(|t| t.used_by);
            if let Some(node_id) = used {
                let why = format!("the token was used by {node_id}; remove the node instead");
                return Err(conflict(work, operation, &why));
            }
            work.emit(Event::NodeTokenRevoked { token_id });
            Ok(final_step(Outcome::new(EffectKind::Accepted, format!("revoke token {token_id}"))))
        }
    }
}

/// The gates of one that still waits, as they were.
fn gates(
    work: &mut Work<'_>,
    operation: &OperationEntry,
    workload_id: WorkloadId,
    (expect, restore): (Vec<String>, Vec<String>),
) -> Result<Performed, Refusal> {
    let waits = work.state.workloads.get(workload_id).cloned().filter(|w| w.state == WorkloadState::Pending);
    let w = waits.ok_or_else(|| conflict(work, operation, "it does not wait any more; workload_stop ends it"))?;
    unchanged(work, operation, w.gates == expect, &format!("the gates of {} were changed since", w.name))?;
    Ok(perform::set_gates(work, &w, restore))
}

/// What the operation left is still so; else the undo stands in somebody's way.
fn unchanged(work: &Work<'_>, operation: &OperationEntry, is_same: bool, otherwise: &str) -> Result<(), Refusal> {
    if is_same { Ok(()) } else { Err(conflict(work, operation, otherwise)) }
}

fn final_step(outcome: Outcome) -> Performed {
    let inverse = Inverse::Impossible { why: "a revoked token stays revoked; make a new one".into() };
    Performed {
        outcome,
        inverse,
        undo: UndoClass::None,
        not_restored: "the token",
        goal: Goal::Immediate,
        undoes: None,
    }
}

/// What the operation left, so that only that is put back.
fn expected_schedulable(tool: &str, before: Schedulable) -> Vec<Schedulable> {
    match (tool, before) {
        ("node_drain", _) => vec![Schedulable::Draining, Schedulable::Drained],
        ("node_cordon", _) => vec![Schedulable::Cordoned],
        (_, Schedulable::Active) => vec![Schedulable::Cordoned, Schedulable::Draining, Schedulable::Drained],
        (_, Schedulable::Cordoned | Schedulable::Draining | Schedulable::Drained) => {
            vec![Schedulable::Active]
        }
    }
}

fn node_of(
    work: &Work<'_>,
    operation: &OperationEntry,
    node: Option<&Arc<NodeEntry>>,
) -> Result<Arc<NodeEntry>, Refusal> {
    node.cloned().ok_or_else(|| conflict(work, operation, "the node was removed"))
}

/// Names the later operations on the same thing.
fn conflict(work: &Work<'_>, operation: &OperationEntry, why: &str) -> Refusal {
    let record = &operation.record;
    let same = |o: &&Arc<OperationEntry>| {
        // By time: the id of an applied plan is as old as the plan.
        o.record.operation_id != record.operation_id
            && o.at >= operation.at
            && ((record.node_id.is_some() && o.record.node_id == record.node_id)
                || (record.workload_id.is_some() && o.record.workload_id == record.workload_id))
    };
    let later: Vec<_> = work.state.operations.values().rev().filter(same).take(10).collect();
    let list: Vec<_> = later
        .iter()
        .map(|o| json!({ "operation_id": o.record.operation_id, "summary": o.record.summary, "by": o.principal }))
        .collect();
    let mut refusal =
        Refusal::new(ErrorCode::UndoConflict, format!("{} cannot be undone now: {why}", record.operation_id))
            .with_field("operation_id", record.operation_id.to_string())
            .with_evidence(json!({ "later_operations": list }));
    for o in later.iter().filter(|o| o.undone_by.is_none()).take(3) {
        refusal = refusal.with_next("undo", json!({ "operation_id": o.record.operation_id, "mode": "plan" }));
    }
    refusal
}

/// Ends an operation whose result is not there yet.
pub(super) fn cancel(work: &mut Work<'_>, operation_id: OperationId) -> Result<Performed, Refusal> {
    let operation = work.state.resolve_operation(operation_id)?.clone();
    authorize_as(work, &operation)?;
    if operation.state != OperationState::Pending {
        return Err(Refusal::new(
            ErrorCode::InvalidState,
            format!("{operation_id} is {} already ({})", operation.state, operation.observed),
        )
        .with_field("operation_id", operation_id.to_string())
        .with_next("operation_get", json!({ "operation_id": operation_id })));
    }
    let what = match &operation.record.goal {
        Goal::WorkloadRuns { workload_id } => {
            let Some(w) = work.state.workloads.get(*workload_id).cloned() else {
                return Err(conflict(work, &operation, "the workload is gone"));
            };
            if w.desired != Desired::Stop {
                stop_workload(work, *workload_id, w.spec.grace_s(), WorkloadReason::StopRequested, false);
            }
            format!("{} is stopped before it ran", w.name)
        }
        Goal::NodeEmpty { node_id } => {
            let Some(node) = work.state.nodes.get(*node_id).cloned() else {
                return Err(conflict(work, &operation, "the node is gone"));
            };
            // A node that was cordoned before takes no work after either.
            let cordoned =
                matches!(operation.record.inverse, Inverse::SetSchedulable { to: Schedulable::Cordoned, .. });
            let to = if cordoned { Schedulable::Cordoned } else { Schedulable::Active };
            perform::set_schedulable(work, &node, to, "cancel drain of");
            format!("{} is {to} again; what was told to move, moves", node.name)
        }
        Goal::WorkloadEnds { .. } | Goal::WorkloadsMove { .. } | Goal::ExecEnds { .. } | Goal::Immediate => {
            return Err(Refusal::new(ErrorCode::InvalidState, "what is under way on the node cannot be called back")
                .with_field("operation_id", operation_id.to_string()));
        }
    };
    let still_open = work.state.operations.get(&operation_id).is_some_and(|o| o.state == OperationState::Pending);
    if still_open {
        work.emit(Event::OperationResolved {
            operation_id,
            state: OperationState::Canceled,
            observed: format!("canceled by {}", work.caller.principal),
        });
    }
    let mut outcome =
        Outcome::new(EffectKind::Accepted, format!("cancel {} of {operation_id}: {what}", operation.record.tool));
    outcome.workload_id = operation.record.workload_id;
    outcome.node_id = operation.record.node_id;
    Ok(Performed {
        outcome,
        inverse: Inverse::Impossible { why: "a cancellation cannot be called back; start it again".into() },
        undo: UndoClass::None,
        not_restored: "the operation",
        goal: Goal::Immediate,
        undoes: None,
    })
}
