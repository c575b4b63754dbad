//! Operations, plans, approvals, keys and events, as views.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::ids::OperationId;
use claw_proto::time::Timestamp;
use claw_tools::approvals::{ApprovalList, ApprovalListParams, ApprovalState, ApprovalView};
use claw_tools::inside::{ExecFault, ExecView};
use claw_tools::keys::{ApiKeyList, ApiKeyListParams, ApiKeyView};
use claw_tools::operations::{OperationList, OperationListParams, OperationState, OperationView};
use claw_tools::outcome::{Observed, clip};
use claw_tools::plans::PlanDetail;
use claw_tools::refusal::{ErrorCode, Refusal, SuggestedCall};
use claw_tools::secrets::{SecretList, SecretListParams, SecretView};
use serde_json::json;

use crate::Cluster;
use crate::cluster::{ApprovalEntry, OperationEntry, PlanEntry, SecretEntry};

/// Rows of a page unless asked otherwise.
const LIMIT_DEFAULT: u32 = 20;
/// Characters of one word of a command, and of a fault's text.
const WORD_CHARS_MAX: usize = 500;

/// The command of an operation, without what it wrote: that stands in a blob.
pub fn exec_view(cluster: &Cluster, operation_id: OperationId) -> Option<ExecView> {
    let exec = cluster.execs.get(&operation_id)?;
    let end = exec.end.clone().unwrap_or_default();
    Some(ExecView {
        workload_id: exec.workload_id,
        attempt: exec.attempt,
        command: exec.command.iter().map(|word| clip(word, WORD_CHARS_MAX)).collect(),
        ended: exec.end.is_some(),
        exit_code: end.exit_code,
        timed_out: end.timed_out,
        fault: end.fault.map(|fault| ExecFault { message: clip(&fault.message, WORD_CHARS_MAX), ..fault }),
        untrusted: true,
        stdout: None,
        stderr: None,
        truncated: end.truncated,
    })
}

/// One operation.
pub fn operation_view(cluster: &Cluster, o: &OperationEntry) -> OperationView {
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
        exec: exec_view(cluster, r.operation_id),
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
    let matching = |o: &&Arc<OperationEntry>| {
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
        .map(|o| operation_view(cluster, o))
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

/// Rows of secrets in one answer.
const SECRETS_ROWS_MAX: usize = 200;

/// `secret_list`.
pub fn secret_list(cluster: &Cluster, p: &SecretListParams) -> SecretList {
    let mut used: BTreeMap<&str, u32> = BTreeMap::new();
    for w in cluster.workloads.iter().filter(|w| !w.state.is_final()) {
        let handles: BTreeSet<&str> = crate::step::secret_handles(w.spec.spec()).map(|(_, handle)| handle).collect();
        for handle in handles {
            *used.entry(handle).or_default() += 1;
        }
    }
    let matching = |s: &&Arc<SecretEntry>| p.filter.as_deref().is_none_or(|text| s.handle.contains(text));
    let total = cluster.secrets.values().filter(matching).count();
    let view = |s: &Arc<SecretEntry>| SecretView {
        handle: s.handle.clone(),
        owner: s.access.owner.clone(),
        used_by: s.access.used_by.clone(),
        version: s.version,
        set_at: s.set_at,
        workloads: used.get(s.handle.as_str()).copied().unwrap_or(0),
    };
    let secrets = cluster.secrets.values().filter(matching).take(SECRETS_ROWS_MAX).map(view).collect();
    SecretList { secrets, total: u32::try_from(total).unwrap_or(u32::MAX), truncated: total > SECRETS_ROWS_MAX }
}
