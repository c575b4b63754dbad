//! Stored plans: approval by a person, and applying exactly what was shown.

use claw_proto::ids::{ApprovalId, OperationId, PlanId};
use claw_tools::access::{PrincipalKind, Tier};
use claw_tools::approvals::{ApprovalDecision, ApprovalState};
use claw_tools::outcome::{Change, EffectKind, Mutation, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::registry;
use serde_json::json;

use super::operate::{accept, key_still_valid, replayed, store_receipt, tier_of};
use super::work::Work;
use super::{Report, diff, perform};
use crate::Cluster;
use crate::access;
use crate::cluster::PlanEntry;
use crate::event::Event;

/// So much of the hash has to be typed, so that it shows which plan was looked at.
const HASH_TYPED_MIN: usize = 8;

/// Does what the plan showed, or refuses.
pub(super) fn apply_plan(
    work: &mut Work<'_>,
    plan_id: PlanId,
    mutation: &Mutation,
    args_hash: &str,
    secret_hash: Option<String>,
) -> Result<Report, Refusal> {
    const TOOL: &str = "plan_apply";
    key_still_valid(work)?;
    if let Some(outcome) = replayed(work.state, work.caller, TOOL, mutation.request_id.as_deref(), args_hash)? {
        return Ok(Report::Outcome { outcome: Box::new(outcome), replayed: true });
    }
    let plan = find(work.state, plan_id)?;
    let def = registry::find(plan.record.operation.tool()).expect("a stored plan names an operation of the registry");
    access::authorize(def, work.caller)?;
    ready(work, &plan)?;
    work.replay_ids(plan.record.ids.iter().filter_map(|text| u128::from_str_radix(text, 16).ok()).collect());
    let operation_id = OperationId::next(&mut work.ids);
    work.operation_id = Some(operation_id);
    let secret_hash = secret_hash.or_else(|| plan.record.secret_hash.clone());
    let done = perform::perform(work, &plan.record.operation, secret_hash.as_deref())
        .map_err(|r| if r.code == ErrorCode::Forbidden { r } else { stale(&plan, r.message, Vec::new()) })?;
    let evicted = diff::evicted(work.before(), work.state);
    let tier = tier_of(def.tier, (work.before(), work.state), &evicted, work.caller).max(plan.record.view.tier);
    let goal_outcome = accept(work, done, operation_id, plan.record.operation.tool(), &plan.record.args_hash);
    super::follow::settle(work);
    let now_diff = diff::diff(work.before(), work.state);
    if diff::hash(&now_diff) != plan.record.view.diff_hash || tier != plan.record.view.tier {
        return Err(stale(&plan, "the fleet has changed since".into(), drift(&plan.record.view.diff, &now_diff)));
    }
    work.emit(Event::PlanApplied { plan_id });
    let outcome = perform::with_place(work.state, goal_outcome);
    store_receipt(work, TOOL, mutation, args_hash, &outcome);
    Ok(Report::Outcome { outcome: Box::new(outcome), replayed: false })
}

fn find(cluster: &Cluster, plan_id: PlanId) -> Result<std::sync::Arc<PlanEntry>, Refusal> {
    cluster.plans.get(&plan_id).cloned().ok_or_else(|| {
        Refusal::new(ErrorCode::NotFound, format!("no plan {plan_id}; plans are kept for a day"))
            .with_field("plan_id", plan_id.to_string())
    })
}

/// Not applied, not expired, and approved where its tier needs that.
fn ready(work: &Work<'_>, plan: &PlanEntry) -> Result<(), Refusal> {
    let view = &plan.record.view;
    if plan.applied {
        return Err(Refusal::new(ErrorCode::PlanApplied, format!("{} was applied already", view.plan_id))
            .with_next("plan_get", json!({ "plan_id": view.plan_id })));
    }
    if view.expires_at <= work.now() {
        return Err(Refusal::new(
            ErrorCode::PlanExpired,
            format!("{} expired at {}; make a new one", view.plan_id, view.expires_at),
        ));
    }
    let Some(approval_id) = view.approval_id else {
        return Ok(());
    };
    let state = work.state.approvals.get(&approval_id).map(|a| a.state);
    match state {
        Some(ApprovalState::Approved) => Ok(()),
        Some(ApprovalState::Rejected) => {
            Err(Refusal::new(ErrorCode::ApprovalDenied, format!("{} was rejected", view.plan_id)))
        }
        Some(ApprovalState::Waiting | ApprovalState::Expired | ApprovalState::Used) | None => Err(Refusal::new(
            ErrorCode::ApprovalRequired,
            format!("this plan is tier {}: a person has to approve {approval_id} first", view.tier),
        )
        .retryable()
        .with_evidence(
            json!({ "approval_id": approval_id, "diff_hash": view.diff_hash, "who": who_may(view.tier, work.state) }),
        )
        .with_next(
            "approval_decide",
            json!({ "approval_id": approval_id, "decision": "approve", "diff_hash": &view.diff_hash[..8] }),
        )),
    }
}

fn who_may(tier: Tier, cluster: &Cluster) -> &'static str {
    match tier {
        Tier::Irreversible if !cluster.policy.tier3_self_confirm => {
            "a person with the approve permission who is not the one that asked"
        }
        Tier::Disruptive if !cluster.policy.tier2_self_confirm => {
            "a person with the approve permission who is not the one that asked"
        }
        Tier::Read | Tier::Reversible | Tier::Disruptive | Tier::Irreversible => "a person with the approve permission",
    }
}

fn stale(plan: &PlanEntry, why: String, drift: Vec<Change>) -> Refusal {
    Refusal::new(
        ErrorCode::StalePlan,
        format!("{} would do something else now: {why}; nothing was changed", plan.record.view.plan_id),
    )
    .with_evidence(json!({ "difference": drift }))
    .with_next("plan_get", json!({ "plan_id": plan.record.view.plan_id }))
}

/// What one diff has and the other has not.
pub(crate) fn drift(planned: &[Change], present: &[Change]) -> Vec<Change> {
    let gone = planned.iter().filter(|c| !present.contains(c)).map(|c| Change {
        from: c.to.clone(),
        to: String::new(),
        ..c.clone()
    });
    let new = present.iter().filter(|c| !planned.contains(c)).cloned();
    gone.chain(new).take(20).collect()
}

/// A person decides on exactly one plan.
pub(super) fn decide(
    work: &mut Work<'_>,
    approval_id: ApprovalId,
    decision: ApprovalDecision,
    diff_hash: &str,
    mutation: &Mutation,
    args_hash: &str,
) -> Result<Report, Refusal> {
    const TOOL: &str = "approval_decide";
    key_still_valid(work)?;
    if let Some(outcome) = replayed(work.state, work.caller, TOOL, mutation.request_id.as_deref(), args_hash)? {
        return Ok(Report::Outcome { outcome: Box::new(outcome), replayed: true });
    }
    access::authorize(registry::find(TOOL).expect("in the registry"), work.caller)?;
    let approval = work.state.approvals.get(&approval_id).cloned().ok_or_else(|| {
        Refusal::new(ErrorCode::NotFound, format!("no approval {approval_id}"))
            .with_field("approval_id", approval_id.to_string())
            .with_next("approval_list", json!({}))
    })?;
    let plan = find(work.state, approval.plan_id)?;
    if approval.state != ApprovalState::Waiting {
        return Err(Refusal::new(ErrorCode::InvalidState, format!("{approval_id} is {} already", approval.state)));
    }
    if plan.record.view.expires_at <= work.now() {
        return Err(Refusal::new(
            ErrorCode::PlanExpired,
            format!("its plan expired at {}", plan.record.view.expires_at),
        ));
    }
    let typed = diff_hash.to_ascii_lowercase();
    if typed.len() < HASH_TYPED_MIN || !plan.record.view.diff_hash.starts_with(&typed) {
        return Err(Refusal::new(
            ErrorCode::InvalidArgument,
            "the hash is not that of this plan: look at its diff again",
        )
        .with_field("diff_hash", diff_hash)
        .with_next("plan_get", json!({ "plan_id": approval.plan_id })));
    }
    if decision == ApprovalDecision::Approve {
        may_approve(work, &plan, approval.tier)?;
    }
    work.emit(Event::ApprovalDecided { approval_id, decision });
    let (word, next) = match decision {
        ApprovalDecision::Approve => (
            "approved",
            Some(claw_tools::refusal::SuggestedCall::new("plan_apply", json!({ "plan_id": approval.plan_id }))),
        ),
        ApprovalDecision::Reject => ("rejected", None),
    };
    let mut outcome = Outcome::new(EffectKind::Accepted, format!("{approval_id} {word}: {}", plan.record.view.summary));
    outcome.next.extend(next);
    store_receipt(work, TOOL, mutation, args_hash, &outcome);
    Ok(Report::Outcome { outcome: Box::new(outcome), replayed: false })
}

/// Programs never approve; one's own plan only as far as the policy says.
fn may_approve(work: &Work<'_>, plan: &PlanEntry, tier: Tier) -> Result<(), Refusal> {
    let not_yours = |why: &str| {
        Refusal::new(ErrorCode::ApprovalNotYours, why.to_owned())
            .with_evidence(json!({ "who": who_may(tier, work.state) }))
    };
    if work.caller.kind != PrincipalKind::Person {
        return Err(not_yours("this credential is held by an agent; a person has to approve"));
    }
    let own = plan.record.principal == work.caller.principal;
    let self_allowed = match tier {
        Tier::Irreversible => work.state.policy.tier3_self_confirm,
        Tier::Read | Tier::Reversible | Tier::Disruptive => work.state.policy.tier2_self_confirm,
    };
    if own && !self_allowed {
        return Err(not_yours("one cannot approve one's own plan of this tier; another person has to"));
    }
    Ok(())
}
