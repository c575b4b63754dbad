//! Draining, cordoning, labeling, configuring and removing nodes.

use std::collections::BTreeMap;

use claw_proto::ids::{NodeId, WorkloadId};
use claw_proto::message::NodeSettings;
use claw_proto::time::Timestamp;
use claw_proto::validation::Validator;
use claw_tools::def::UndoClass;
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::outcome::{EffectKind, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal, SuggestedCall};
use claw_tools::workloads::WorkloadReason;
use serde_json::json;

use super::{Performed, stop_workload};
use crate::effect::Effect;
use crate::event::{Event, Goal, Inverse};
use crate::registry::NodeEntry;
use crate::step::follow::{end_lost, partition_lease_end};
use crate::step::work::Work;

fn outcome(node: &NodeEntry, effect: EffectKind, summary: String) -> Outcome {
    let mut outcome = Outcome::new(effect, summary);
    outcome.node_id = Some(node.node_id);
    outcome.simulated = node.simulated();
    outcome
}

fn unchanged(node: &NodeEntry, summary: String) -> Performed {
    Performed::unchanged(outcome(node, EffectKind::NoChange, summary))
}

pub(in crate::step) fn drain(work: &mut Work<'_>, node: &str, grace_s: Option<u32>) -> Result<Performed, Refusal> {
    let node = work.state.resolve_node(node)?.clone();
    let node_id = node.node_id;
    if matches!(node.schedulable, Schedulable::Draining | Schedulable::Drained) {
        return Ok(unchanged(&node, format!("{} is {} already", node.name, node.schedulable)));
    }
    work.emit(Event::NodeSchedulableChanged { node_id, to: Schedulable::Draining });
    let moved: Vec<WorkloadId> = node.usage.workloads.iter().copied().collect();
    for id in &moved {
        let Some(w) = work.state.workloads.get(*id).cloned() else {
            continue;
        };
        if w.desired == crate::workload::Desired::Run {
            stop_workload(work, *id, grace_s.unwrap_or_else(|| w.spec.grace_s()), WorkloadReason::NodeDrained, true);
        }
    }
    let n = moved.len();
    let mut out = outcome(
        &node,
        EffectKind::Accepted,
        format!("drain {}: no new work, {n} workload(s) are moved away", node.name),
    );
    out.next.push(SuggestedCall::new("node_undrain", json!({ "node": node.name })));
    Ok(Performed {
        outcome: out,
        inverse: Inverse::SetSchedulable { node_id, to: node.schedulable },
        undo: UndoClass::Compensating,
        not_restored: if n > 0 { "the workloads' former place; they run where they were moved to" } else { "" },
        goal: Goal::NodeEmpty { node_id },
        undoes: None,
    })
}

/// Lets a node take work again; [`undrain`] and undo share it.
pub(in crate::step) fn set_schedulable(
    work: &mut Work<'_>,
    node: &NodeEntry,
    to: Schedulable,
    verb: &str,
) -> Performed {
    let from = node.schedulable;
    work.emit(Event::NodeSchedulableChanged { node_id: node.node_id, to });
    let out = outcome(node, EffectKind::Accepted, format!("{verb} {}: {from} → {to}", node.name));
    Performed::exact(out, Inverse::SetSchedulable { node_id: node.node_id, to: from })
}

pub(super) fn undrain(work: &mut Work<'_>, node: &str) -> Result<Performed, Refusal> {
    let node = work.state.resolve_node(node)?.clone();
    match node.schedulable {
        Schedulable::Draining | Schedulable::Drained => {
            Ok(set_schedulable(work, &node, Schedulable::Active, "undrain"))
        }
        Schedulable::Active => Ok(unchanged(&node, format!("{} takes work already", node.name))),
        Schedulable::Cordoned => Err(wrong_state(&node, "cordoned, not drained", "node_uncordon")),
    }
}

pub(super) fn cordon(work: &mut Work<'_>, node: &str) -> Result<Performed, Refusal> {
    let node = work.state.resolve_node(node)?.clone();
    match node.schedulable {
        Schedulable::Active => Ok(set_schedulable(work, &node, Schedulable::Cordoned, "cordon")),
        Schedulable::Cordoned => Ok(unchanged(&node, format!("{} is cordoned already", node.name))),
        Schedulable::Draining | Schedulable::Drained => {
            Ok(unchanged(&node, format!("{} is {} and takes no new work already", node.name, node.schedulable)))
        }
    }
}

pub(super) fn uncordon(work: &mut Work<'_>, node: &str) -> Result<Performed, Refusal> {
    let node = work.state.resolve_node(node)?.clone();
    match node.schedulable {
        Schedulable::Cordoned => Ok(set_schedulable(work, &node, Schedulable::Active, "uncordon")),
        Schedulable::Active => Ok(unchanged(&node, format!("{} takes work already", node.name))),
        Schedulable::Draining | Schedulable::Drained => {
            Err(wrong_state(&node, "draining, not only cordoned", "node_undrain"))
        }
    }
}

fn wrong_state(node: &NodeEntry, is: &str, tool: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidState, format!("{} is {is}", node.name))
        .with_field("node", node.name.clone())
        .with_next(tool, json!({ "node": node.name }))
}

pub(super) fn label(
    work: &mut Work<'_>,
    node: &str,
    set: &BTreeMap<String, String>,
    remove: &[String],
) -> Result<Performed, Refusal> {
    let node = work.state.resolve_node(node)?.clone();
    let mut validator = Validator::new();
    validator.labels("set", set);
    for key in remove {
        validator.label_key("remove", key);
    }
    validator
        .finish()
        .map_err(|e| Refusal::new(ErrorCode::InvalidArgument, e.to_string()).with_field("set", format!("{set:?}")))?;
    if set.is_empty() && remove.is_empty() {
        return Err(
            Refusal::new(ErrorCode::InvalidArgument, "nothing to set and nothing to remove").with_field("set", "{}")
        );
    }
    if let Some(key) = remove.iter().find(|k| set.contains_key(*k)) {
        return Err(Refusal::new(ErrorCode::InvalidArgument, format!("{key:?} is both set and removed"))
            .with_field("remove", key.clone()));
    }
    let wanted = set.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).chain(remove.iter().map(|k| (k.clone(), None)));
    let labels: BTreeMap<String, Option<String>> = wanted.filter(|(k, v)| node.labels.get(k) != v.as_ref()).collect();
    if labels.is_empty() {
        return Ok(unchanged(&node, format!("{} has these labels already", node.name)));
    }
    Ok(set_labels(work, &node, labels))
}

/// Changes labels and remembers what was; undo uses it too.
pub(in crate::step) fn set_labels(
    work: &mut Work<'_>,
    node: &NodeEntry,
    labels: BTreeMap<String, Option<String>>,
) -> Performed {
    let restore = labels.keys().map(|k| (k.clone(), node.labels.get(k).cloned())).collect();
    work.emit(Event::NodeLabeled { node_id: node.node_id, labels: labels.clone() });
    let words: Vec<String> =
        labels.iter().map(|(k, v)| v.as_ref().map_or_else(|| format!("-{k}"), |v| format!("{k}={v}"))).collect();
    let out = outcome(node, EffectKind::Accepted, format!("label {}: {}", node.name, words.join(" ")));
    Performed::exact(out, Inverse::SetLabels { node_id: node.node_id, expect: labels, restore })
}

pub(super) fn configure(
    work: &mut Work<'_>,
    node: &str,
    metrics_interval_ms: Option<u64>,
    log_buffer_bytes: Option<u64>,
) -> Result<Performed, Refusal> {
    let node = work.state.resolve_node(node)?.clone();
    let settings = NodeSettings {
        metrics_interval_ms: metrics_interval_ms.unwrap_or(node.settings.metrics_interval_ms),
        log_buffer_bytes: log_buffer_bytes.unwrap_or(node.settings.log_buffer_bytes),
        heartbeat_interval_ms: node.settings.heartbeat_interval_ms,
    };
    if settings == node.settings {
        return Ok(unchanged(&node, format!("{} has these settings already", node.name)));
    }
    Ok(set_settings(work, &node, settings))
}

/// Changes settings and remembers what was; undo uses it too.
pub(in crate::step) fn set_settings(work: &mut Work<'_>, node: &NodeEntry, settings: NodeSettings) -> Performed {
    work.emit(Event::NodeSettingsChanged { node_id: node.node_id, settings: settings.clone() });
    work.effect(Effect::SendSettings { node_id: node.node_id, settings: settings.clone() });
    let text = format!(
        "configure {}: metrics every {} ms, log buffer {} bytes",
        node.name, settings.metrics_interval_ms, settings.log_buffer_bytes
    );
    let out = outcome(node, EffectKind::Accepted, text);
    Performed::exact(
        out,
        Inverse::SetSettings { node_id: node.node_id, expect: settings, restore: node.settings.clone() },
    )
}

/// When a cut-off node will have stopped a workload by itself, if that is still
/// to come. What keeps running has no such instant; it is never started again.
fn lease_left(work: &Work<'_>, node: &NodeEntry, id: WorkloadId) -> Option<Timestamp> {
    let end = partition_lease_end(work.state, node, work.state.workloads.get(id)?)?;
    (end > work.now()).then_some(end)
}

pub(super) fn remove(work: &mut Work<'_>, node: &str) -> Result<Performed, Refusal> {
    let node = work.state.resolve_node(node)?.clone();
    let node_id: NodeId = node.node_id;
    let held: Vec<WorkloadId> = node.usage.workloads.iter().copied().collect();
    if node.link == NodeLink::Online && !held.is_empty() {
        return Err(Refusal::new(
            ErrorCode::InvalidState,
            format!("{} is online with {} workload(s); drain it first", node.name, held.len()),
        )
        .with_field("node", node.name.clone())
        .with_next("node_drain", json!({ "node": node.name, "mode": "plan" })));
    }
    if let Some(until) = held.iter().filter_map(|id| lease_left(work, &node, *id)).max() {
        return Err(Refusal::new(
            ErrorCode::InvalidState,
            format!("{} is cut off and may run its work until {until}; remove it then", node.name),
        )
        .with_field("node", node.name.clone())
        .with_evidence(json!({ "workloads": held, "until": until }))
        .retryable());
    }
    // Its certificate is refused from now on, so nothing of it will ever be adopted.
    for id in held {
        end_lost(work, (id, node_id), WorkloadReason::NodeRemoved, "its node was removed from the fleet");
    }
    work.emit(Event::NodeRemoved { node_id });
    work.effect(Effect::CloseLink { node_id, why: "removed from the fleet" });
    let out =
        outcome(&node, EffectKind::Accepted, format!("remove {}: its certificate is refused from now on", node.name));
    Ok(Performed {
        outcome: out,
        inverse: Inverse::Impossible { why: "a removed node has to enroll again".into() },
        undo: UndoClass::None,
        not_restored: "its membership",
        goal: Goal::Immediate,
        undoes: None,
    })
}

/// Whoever has a copy of the node's key is out; the machine itself enrolls again.
pub(super) fn revoke(work: &mut Work<'_>, node: &str) -> Result<Performed, Refusal> {
    let node = work.state.resolve_node(node)?.clone();
    let node_id = node.node_id;
    if node.is_revoked() {
        return Ok(unchanged(&node, format!("the certificates of {} are revoked already", node.name)));
    }
    work.emit(Event::NodeRevoked { node_id });
    work.effect(Effect::CloseLink { node_id, why: "its certificates are revoked" });
    let summary = format!(
        "revoke {}: its certificates are refused from now on; what runs there goes by its partition rule until the machine enrolls again",
        node.name
    );
    let mut out = outcome(&node, EffectKind::Accepted, summary);
    out.next.push(SuggestedCall::new("node_token_create", json!({ "name": node.name })));
    Ok(Performed {
        outcome: out,
        inverse: Inverse::Impossible {
            why: "a revoked certificate does not come back; enroll the machine again".into(),
        },
        undo: UndoClass::None,
        not_restored: "its certificates",
        goal: Goal::Immediate,
        undoes: None,
    })
}
