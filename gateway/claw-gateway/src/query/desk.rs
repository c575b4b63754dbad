//! Operations, plans, approvals, keys and events, as views.

use claw_proto::time::Timestamp;
use claw_tools::approvals::{ApprovalList, ApprovalListParams, ApprovalState, ApprovalView};
use claw_tools::keys::{ApiKeyList, ApiKeyListParams, ApiKeyView};
use claw_tools::operations::{OperationList, OperationListParams, OperationState, OperationView};
use claw_tools::outcome::Observed;
use claw_tools::plans::PlanDetail;
use claw_tools::refusal::{ErrorCode, Refusal, SuggestedCall};
use serde_json::json;

use crate::Cluster;
use crate::cluster::{ApprovalEntry, OperationEntry, PlanEntry};
use crate::event::Event;

/// Rows of a page unless asked otherwise.
const LIMIT_DEFAULT: u32 = 20;

/// One operation.
pub fn operation_view(o: &OperationEntry) -> OperationView {
    let r = &o.record;
    let id = json!({ "operation_id": r.operation_id });
    let mut next = Vec::new();
    if o.state == OperationState::Pending {
        next.push(SuggestedCall::new("operation_wait", id.clone()));
    }
    if r.undo != claw_tools::def::UndoClass::None && o.undone_by.is_none() {
        next.push(SuggestedCall::new("undo", id));
    }
    OperationView {
        operation_id: r.operation_id,
        tool: r.tool.clone(),
        state: o.state,
        summary: r.summary.clone(),
        principal: o.principal.clone(),
        reason: o.reason.clone(),
        at: o.at,
        observed: o.observed_at.map(|at| Observed { state: o.observed.clone(), at }),
        workload_id: r.workload_id,
        node_id: r.node_id,
        undo: r.undo,
        undone_by: o.undone_by,
        simulated: r.simulated,
        next,
    }
}

/// `operation_list`, newest first.
pub fn operation_list(cluster: &Cluster, p: &OperationListParams) -> Result<OperationList, Refusal> {
    let before = match p.cursor.as_deref() {
        None => None,
        Some(text) => Some(
            text.parse::<claw_proto::ids::OperationId>()
                .map_err(|e| Refusal::new(ErrorCode::InvalidArgument, e.to_string()).with_field("cursor", text))?,
        ),
    };
    let matching = |o: &&std::sync::Arc<OperationEntry>| {
        p.state.is_none_or(|s| s == o.state) && p.principal.as_deref().is_none_or(|who| who == o.principal)
    };
    let total = cluster.operations.values().filter(matching).count();
    let limit = p.limit.unwrap_or(LIMIT_DEFAULT) as usize;
    let mut rows: Vec<OperationView> = cluster
        .operations
        .values()
        .rev()
        .filter(matching)
        .filter(|o| before.is_none_or(|b| o.record.operation_id < b))
        .take(limit + 1)
        .map(|o| operation_view(o))
        .collect();
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = if truncated { rows.last().map(|o| o.operation_id.to_string()) } else { None };
    Ok(OperationList { operations: rows, total: u32::try_from(total).unwrap_or(u32::MAX), truncated, next_cursor })
}

/// Where a plan stands. `present` is the diff that it would make now, if it can still be done.
pub fn plan_detail(
    cluster: &Cluster,
    p: &PlanEntry,
    now: Timestamp,
    present: Result<Vec<claw_tools::outcome::Change>, Refusal>,
) -> PlanDetail {
    let view = p.record.view.clone();
    let approval = view.approval_id.and_then(|id| cluster.approvals.get(&id)).map(|a| a.state);
    let status = match approval {
        _ if p.applied => "applied",
        Some(ApprovalState::Rejected) => "rejected",
        _ if view.expires_at <= now => "expired",
        Some(ApprovalState::Approved) => "approved",
        _ => "open",
    };
    let (current, drift) = match present {
        Ok(present) if present == view.diff => (true, Vec::new()),
        Ok(present) => (false, crate::step::drift(&view.diff, &present)),
        Err(_) => (false, view.diff.clone()),
    };
    let mut next = Vec::new();
    if !p.applied && view.expires_at > now {
        if approval == Some(ApprovalState::Waiting) {
            let args =
                json!({ "approval_id": view.approval_id, "decision": "approve", "diff_hash": &view.diff_hash[..8] });
            next.push(SuggestedCall::new("approval_decide", args));
        }
        next.push(SuggestedCall::new("plan_apply", json!({ "plan_id": view.plan_id })));
    }
    PlanDetail {
        plan: view,
        principal: p.record.principal.clone(),
        at: p.at,
        current: current && !p.applied,
        drift: if p.applied { Vec::new() } else { drift },
        status: status.into(),
        next,
    }
}

fn approval_state(a: &ApprovalEntry, plan: Option<&PlanEntry>, now: Timestamp) -> ApprovalState {
    let expired = plan.is_none_or(|p| p.record.view.expires_at <= now);
    match a.state {
        ApprovalState::Waiting | ApprovalState::Approved if expired => ApprovalState::Expired,
        other => other,
    }
}

/// `approval_list`, newest first.
pub fn approval_list(cluster: &Cluster, p: &ApprovalListParams, now: Timestamp) -> ApprovalList {
    let wanted = p.state.unwrap_or(ApprovalState::Waiting);
    let mut rows = Vec::new();
    let mut total = 0_u32;
    for a in cluster.approvals.values().rev() {
        let plan = cluster.plans.get(&a.plan_id);
        let state = approval_state(a, plan.map(|p| &**p), now);
        if state != wanted {
            continue;
        }
        total += 1;
        if rows.len() >= p.limit.unwrap_or(LIMIT_DEFAULT) as usize {
            continue;
        }
        let Some(plan) = plan else { continue };
        let v = &plan.record.view;
        rows.push(ApprovalView {
            approval_id: a.approval_id,
            plan_id: a.plan_id,
            diff_hash: v.diff_hash.clone(),
            summary: v.summary.clone(),
            diff: v.diff.clone(),
            tier: a.tier,
            requested_by: a.requested_by.clone(),
            at: a.at,
            expires_at: v.expires_at,
            state,
            decided_by: a.decided_by.clone(),
        });
    }
    ApprovalList { approvals: rows, total }
}

/// `api_key_list`.
pub fn key_list(cluster: &Cluster, p: &ApiKeyListParams, now: Timestamp) -> ApiKeyList {
    let keys: Vec<ApiKeyView> = cluster
        .keys
        .values()
        .filter(|k| p.all || (!k.revoked && k.expires_at.is_none_or(|t| t > now)))
        .map(|k| ApiKeyView {
            key_id: k.key_id,
            principal: k.principal.clone(),
            role: k.role,
            kind: k.kind,
            created_at: k.created_at,
            expires_at: k.expires_at,
            revoked: k.revoked,
        })
        .collect();
    let total = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    ApiKeyList { keys, total }
}

/// Ids that an event is about.
pub fn event_subjects(event: &Event) -> Vec<String> {
    let Ok(value) = serde_json::to_value(event) else {
        return Vec::new();
    };
    let mut subjects = Vec::new();
    for key in ["workload_id", "node_id", "operation_id", "plan_id", "approval_id", "key_id", "token_id"] {
        for place in [&value, &value["operation"], &value["plan"]["view"], &value["outcome"]] {
            if let Some(id) = place.get(key).and_then(serde_json::Value::as_str)
                && !subjects.iter().any(|s| s == id)
            {
                subjects.push(id.to_owned());
            }
        }
    }
    subjects
}

/// One sentence about an event.
pub fn describe_event(event: &Event) -> String {
    match event {
        Event::GatewayStarted { epoch } => format!("the gateway started (epoch {epoch})"),
        Event::ApiKeyCreated { subject, role, kind, .. } => format!("a {role} key for {subject} ({kind}) was made"),
        Event::ApiKeyRevoked { key_id } => format!("{key_id} was revoked"),
        Event::NodeTokenCreated { name, .. } => {
            format!("an enrollment token for {} was made", name.as_deref().unwrap_or("any node"))
        }
        Event::NodeTokenRevoked { .. } => "an enrollment token was revoked".into(),
        Event::NodeEnrolled { name, .. } => format!("{name} enrolled"),
        Event::NodeCapabilitiesReported { capabilities, .. } => {
            format!("the node has {} GPU(s), driver {}", capabilities.gpus.len(), capabilities.gpu_driver)
        }
        Event::NodeLinkChanged { link, last_heard, .. } => format!("the node is {link} (last heard {last_heard})"),
        Event::NodeSchedulableChanged { to, .. } => format!("the node is {to}"),
        Event::NodeLabeled { labels, .. } => format!("{} label(s) changed", labels.len()),
        Event::NodeSettingsChanged { .. } => "the node's settings changed".into(),
        Event::NodeRevoked { .. } => "the node's certificates were revoked".into(),
        Event::NodeReadmitted { .. } => "the node's machine enrolled again".into(),
        Event::CaRotationRequested { rotation } => format!("rotation {rotation} of the certificate authority begins"),
        Event::CaRotated { rotation } => format!("rotation {rotation} of the certificate authority is over"),
        Event::NodeRemoved { .. } => "the node was removed from the fleet".into(),
        Event::OrphanFound { why, .. } => format!("orphan found: {why}"),
        Event::OrphanGone { .. } => "the orphan is gone".into(),
        Event::WorkloadSubmitted { name, spec, .. } => {
            format!("{name} was submitted: {}", super::what(spec.spec()))
        }
        Event::WorkloadWaits { why, .. } => format!("it waits ({why})"),
        Event::WorkloadPlaced { attempt, report, .. } => format!("attempt {} {}", attempt.0, report.summary),
        Event::WorkloadProgressed { state, attempt, .. } => {
            format!("attempt {} is {state}", attempt.0)
        }
        Event::WorkloadStopping { why, requeue, .. } => {
            format!("it is told to stop ({why}){}", if *requeue { " and will run elsewhere" } else { "" })
        }
        Event::AttemptEnded { attempt, state, why, exit_code, .. } => {
            format!(
                "attempt {} ended: {state} ({why}{})",
                attempt.0,
                exit_code.map(|c| format!(", exit code {c}")).unwrap_or_default()
            )
        }
        Event::WorkloadRequeued { why, .. } => format!("it waits for a place again ({why})"),
        Event::WorkloadEnded { state, why, .. } => format!("it is {state} ({why})"),
        Event::WorkloadAdopted { attempt, .. } => {
            format!("its node came back with attempt {} running; it goes on", attempt.0)
        }
        Event::OperationAccepted { operation } => format!("accepted: {}", operation.summary),
        Event::OperationResolved { state, observed, .. } => format!("{state}: {observed}"),
        Event::PlanStored { plan } => format!("planned: {}", plan.view.summary),
        Event::PlanApplied { .. } => "the plan was applied".into(),
        Event::ApprovalRequested { tier, .. } => format!("an approval of tier {tier} is asked for"),
        Event::ApprovalDecided { decision, .. } => format!("decision: {decision}"),
        Event::ReceiptStored { key, .. } => format!("receipt for {} {}", key.tool, key.request_id),
        Event::HistoryPruned { workloads, .. } => {
            format!("history pruned: {} ended workload(s) live in the journal only", workloads.len())
        }
        Event::MassLossSuspected { silent, total } => {
            format!("{silent} of {total} nodes silent at once: nobody is declared lost")
        }
        Event::MassLossCleared { silent, total } => {
            format!("{silent} of {total} nodes silent: back to normal")
        }
    }
}
