//! The one way of every mutating operation: receipt, permission, perform, tier,
//! then plan or apply.

use std::collections::BTreeSet;
use std::sync::Arc;

use claw_proto::ids::{ApprovalId, IdSource, OperationId, PlanId, WorkloadId};
use claw_tools::access::{Permission, PrincipalKind, Tier};
use claw_tools::def::UndoClass;
use claw_tools::outcome::{EffectKind, Mode, Mutation, Outcome, PlanView};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::registry;
use serde_json::json;

use super::work::Work;
use super::{Report, diff, perform};
use crate::Cluster;
use crate::access;
use crate::cluster::KeyEntry;
use crate::command::{Caller, Operation};
use crate::event::{Event, Goal, Inverse, KeptOutcome, OperationRecord, PlanRecord, ReceiptKey};

/// What performing an operation yields, before it is accepted or planned.
pub(super) struct Performed {
    pub(super) outcome: Outcome,
    pub(super) inverse: Inverse,
    pub(super) undo: UndoClass,
    /// What an undo would not restore.
    pub(super) not_restored: &'static str,
    pub(super) goal: Goal,
    pub(super) undoes: Option<OperationId>,
}

impl Performed {
    /// At once, and taken back exactly by its inverse.
    pub(super) fn exact(outcome: Outcome, inverse: Inverse) -> Self {
        Self { outcome, inverse, undo: UndoClass::Exact, not_restored: "", goal: Goal::Immediate, undoes: None }
    }

    /// Nothing was to be changed.
    pub(super) fn unchanged(outcome: Outcome) -> Self {
        Self::exact(outcome, Inverse::Impossible { why: "nothing was changed".into() })
    }
}

/// A receipt for this request, if it was answered before.
pub fn replayed(
    cluster: &Cluster,
    caller: &Caller,
    tool: &str,
    request_id: Option<&str>,
    args_hash: &str,
) -> Result<Option<Outcome>, Refusal> {
    let Some(request_id) = request_id else {
        return Ok(None);
    };
    let key =
        ReceiptKey { principal: caller.principal.clone(), tool: tool.to_owned(), request_id: request_id.to_owned() };
    match cluster.receipts.get(&key) {
        None => Ok(None),
        Some(receipt) if receipt.args_hash == args_hash => Ok(Some(receipt.outcome.read())),
        Some(receipt) => {
            let Outcome { operation_id, effect, .. } = receipt.outcome.read();
            let text = format!(
                "request_id {request_id:?} was used at {} for {tool} with other arguments; use a new one for a new intention",
                receipt.at
            );
            Err(Refusal::new(ErrorCode::IdempotencyConflict, text)
                .with_field("request_id", request_id)
                .with_evidence(json!({ "operation_id": operation_id, "effect": effect })))
        }
    }
}

pub(super) fn operate(
    work: &mut Work<'_>,
    operation: Operation,
    mutation: &Mutation,
    args_hash: &str,
    secret_hash: Option<String>,
) -> Result<Report, Refusal> {
    let tool = operation.tool();
    key_still_valid(work)?;
    if let Some(outcome) = replayed(work.state, work.caller, tool, mutation.request_id.as_deref(), args_hash)? {
        return Ok(Report::Outcome { outcome: Box::new(outcome), replayed: true });
    }
    let def = registry::find(tool).expect("every operation's tool is in the registry; a test looks");
    access::authorize(def, work.caller)?;
    let operation = perform::move_values(work, operation)?;
    // Ids from here on are those that a plan reserves.
    work.replay_ids(Vec::new());
    let operation_id = OperationId::next(&mut work.ids);
    work.operation_id = Some(operation_id);
    let mut done = perform::perform(work, &operation, secret_hash.as_deref())?;
    let repeat =
        if mutation.request_id.is_none() { likely_repeat(work.state, work.caller, tool, args_hash) } else { None };
    done.outcome.possible_duplicate_of = repeat;
    // What was submitted takes nobody's place before it is placed, and changes no access: no need to compare.
    let tier = if work.only_submitted() {
        def.tier
    } else {
        let (before, after) = (work.before(), &*work.state);
        tier_of(def.tier, (before, after), &diff::evicted(before, after), work.caller)
    };
    let outcome = match mutation.mode {
        Mode::Plan => plan(work, operation, done, tier, args_hash, secret_hash),
        Mode::Apply => {
            let needs_plan = matches!(tier, Tier::Disruptive | Tier::Irreversible);
            if needs_plan {
                return Err(plan_required(&operation, tier, work.before(), work.state));
            }
            let accepted = accept(work, done, operation_id, tool, args_hash);
            super::follow::settle(work);
            perform::with_place(work.state, accepted)
        }
    };
    store_receipt(work, tool, mutation, args_hash, &outcome);
    Ok(Report::Outcome { outcome: Box::new(outcome), replayed: false })
}

/// Notes the operation, if anything changed.
pub(super) fn accept(
    work: &mut Work<'_>,
    done: Performed,
    operation_id: OperationId,
    tool: &str,
    args_hash: &str,
) -> Outcome {
    let mut outcome = done.outcome;
    if outcome.effect == EffectKind::NoChange {
        return outcome;
    }
    outcome.operation_id = Some(operation_id);
    let record = OperationRecord {
        operation_id,
        tool: tool.to_owned(),
        args_hash: args_hash.to_owned(),
        summary: outcome.summary.clone(),
        workload_id: outcome.workload_id,
        node_id: outcome.node_id,
        inverse: done.inverse,
        undo: done.undo,
        simulated: outcome.simulated,
        goal: done.goal,
        undoes: done.undoes,
    };
    work.emit(Event::OperationAccepted { operation: Arc::new(record) });
    outcome
}

/// Takes back what was performed and stores it as a plan.
fn plan(
    work: &mut Work<'_>,
    operation: Operation,
    done: Performed,
    tier: Tier,
    args_hash: &str,
    secret_hash: Option<String>,
) -> Outcome {
    // The queue's answer belongs to the plan: a run that finds a place shows it.
    super::follow::settle(work);
    let changes = diff::diff(work.before(), work.state);
    let performed = perform::with_place(work.state, done.outcome);
    let evicts = diff::evicted(work.before(), work.state);
    let ids: Vec<String> = work.ids.used.iter().map(|bits| format!("{bits:032x}")).collect();
    work.roll_back();
    if performed.effect == EffectKind::NoChange {
        return performed;
    }
    let plan_id = PlanId::from_bits(work.ids.next_bits());
    let needs_approval = matches!(tier, Tier::Disruptive | Tier::Irreversible);
    let approval_id = needs_approval.then(|| ApprovalId::from_bits(work.ids.next_bits()));
    let view = PlanView {
        plan_id,
        tool: operation.tool().to_owned(),
        diff_hash: diff::hash(&changes),
        diff: changes,
        evicts: evicts.into_iter().collect(),
        tier,
        undo: done.undo,
        not_restored: done.not_restored.to_owned(),
        expires_at: work.now().plus_ms(work.state.policy.plan_ttl_ms),
        approval_id,
        summary: performed.summary.clone(),
    };
    let record = PlanRecord {
        view: view.clone(),
        operation,
        ids,
        principal: work.caller.principal.clone(),
        kind: work.caller.kind,
        args_hash: args_hash.to_owned(),
        secret_hash,
    };
    work.emit(Event::PlanStored { plan: Box::new(record) });
    if let Some(approval_id) = approval_id {
        work.emit(Event::ApprovalRequested { approval_id, plan_id, tier });
    }
    let mut outcome =
        Outcome { effect: EffectKind::Planned, operation_id: None, observed: None, next: Vec::new(), ..performed };
    outcome.summary = format!("would: {}; nothing was changed", outcome.summary);
    outcome.next = next_of_plan(&view);
    outcome.plan = Some(view);
    outcome
}

fn next_of_plan(view: &PlanView) -> Vec<claw_tools::refusal::SuggestedCall> {
    let mut next = Vec::new();
    if let Some(approval_id) = view.approval_id {
        let args = json!({ "approval_id": approval_id, "decision": "approve", "diff_hash": &view.diff_hash[..8] });
        next.push(claw_tools::refusal::SuggestedCall::new("approval_decide", args));
    }
    next.push(claw_tools::refusal::SuggestedCall::new("plan_apply", json!({ "plan_id": view.plan_id })));
    next
}

pub(super) fn store_receipt(work: &mut Work<'_>, tool: &str, mutation: &Mutation, args_hash: &str, outcome: &Outcome) {
    // A caller without a key cannot retry by it: nothing to remember.
    let Some(request_id) = mutation.request_id.clone() else {
        return;
    };
    let key = ReceiptKey { principal: work.caller.principal.clone(), tool: tool.to_owned(), request_id };
    let outcome = KeptOutcome::of(outcome);
    work.emit(Event::ReceiptStored { key, args_hash: args_hash.to_owned(), outcome });
}

/// The newest operation that looks the same, within the window.
fn likely_repeat(cluster: &Cluster, caller: &Caller, tool: &str, args_hash: &str) -> Option<OperationId> {
    let since = caller.now.plus_ms(-cluster.policy.repeat_window_ms);
    cluster
        .operations
        .values()
        .rev()
        .take_while(|o| o.at >= since)
        .take(200)
        .find(|o| o.principal == caller.principal && o.record.tool == tool && o.record.args_hash == args_hash)
        .map(|o| o.record.operation_id)
}

/// The operation's own tier, raised by what it does to others: these lose their places.
pub(super) fn tier_of(
    base: Tier,
    (before, after): (&Cluster, &Cluster),
    evicted: &BTreeSet<WorkloadId>,
    caller: &Caller,
) -> Tier {
    let of_others =
        evicted.iter().filter_map(|id| before.workloads.get(*id)).any(|w| w.submitted_by != caller.principal);
    let of_others = of_others || diff::holds_others(before, after, &caller.principal);
    // Whoever changes keys changes access, by whichever operation.
    let access = !before.keys.ptr_eq(&after.keys) && before.keys != after.keys;
    let quotas = before.tenants.differs(&after.tenants);
    let kept = !before.reservations.map().ptr_eq(after.reservations.map()) && before.reservations != after.reservations;
    let tier = if of_others || access || quotas || kept { base.max(Tier::Disruptive) } else { base };
    if access && makes_approver(before, after) { tier.max(Tier::Irreversible) } else { tier }
}

/// A new approver could approve for the one that made it. Where there are two
/// already, the other has to agree; where there is one, nobody else could.
fn makes_approver(before: &Cluster, after: &Cluster) -> bool {
    let approves = |k: &KeyEntry| !k.revoked && k.kind == PrincipalKind::Person && k.role.allows(Permission::Approve);
    let approvers: BTreeSet<&str> =
        before.keys.values().filter(|k| approves(k)).map(|k| k.principal.as_str()).collect();
    let is_new = |k: &KeyEntry| approves(k) && before.keys.get(&k.key_id).is_none();
    approvers.len() >= 2 && after.keys.values().any(|k| is_new(k))
}

/// The key that a caller came with may have been revoked since it was checked.
pub(super) fn key_still_valid(work: &Work<'_>) -> Result<(), Refusal> {
    let key = work.caller.key_id.and_then(|id| work.state.keys.get(&id));
    let over = key.is_some_and(|k| k.revoked || k.expires_at.is_some_and(|t| t <= work.now()));
    if over { Err(Refusal::new(ErrorCode::Unauthenticated, "the API key is not valid any more")) } else { Ok(()) }
}

/// The same call as a plan, ready to be made.
fn as_plan(operation: &Operation) -> serde_json::Value {
    let mut args = serde_json::to_value(operation).unwrap_or_default();
    if let serde_json::Value::Object(map) = &mut args {
        // The value of a secret is the caller's own; its blob was not stored. What is moved is found anew.
        for inner in ["op", "blob", "moves"] {
            map.remove(inner);
        }
        map.retain(|_, value| !value.is_null());
        map.insert("mode".into(), "plan".into());
    }
    args
}

fn plan_required(operation: &Operation, tier: Tier, before: &Cluster, after: &Cluster) -> Refusal {
    let tool = operation.tool();
    let evicts: Vec<String> = diff::evicted(before, after).iter().take(10).map(ToString::to_string).collect();
    let changes = diff::diff(before, after);
    Refusal::new(
        ErrorCode::PlanRequired,
        format!("this is tier {tier}: call {tool} with mode \"plan\", have the plan approved, then plan_apply it; nothing was changed"),
    )
    .with_field("mode", "apply")
    .with_allowed(["plan".to_owned()])
    .with_evidence(json!({ "tier": tier, "evicts": evicts, "diff": changes.iter().take(20).collect::<Vec<_>>() }))
    .with_next(tool, as_plan(operation))
}
