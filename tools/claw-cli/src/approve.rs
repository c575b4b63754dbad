//! Plan, look, confirm by hash, apply: how a person does what no program may do alone.

use claw_tools::approvals::{ApprovalDecision, ApprovalList, ApprovalState};
use claw_tools::def::OpDef;
use claw_tools::outcome::{Outcome, PlanView};
use claw_tools::plans::PlanDetail;
use claw_tools::refusal::ErrorCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::cli::{HASH_CHARS_MIN, confirmable};
use crate::client::CallReply;
use crate::error::CliError;
use crate::run::{Session, asks_for_plan};
use crate::{generate, render};

/// Most approvals that one page can hold.
const APPROVALS_MAX: u32 = 100;

/// The refusal can be answered by planning and confirming.
pub(crate) fn can_mend(op: &OpDef, args: &Map<String, Value>, error: &CliError) -> bool {
    let planned_only = args.get("mode").is_some_and(|mode| mode == "plan");
    (asks_for_plan(error) && confirmable(op) && !planned_only) || is_unapproved_plan(op, error)
}

/// A plan was applied that somebody has to approve first.
fn is_unapproved_plan(op: &OpDef, error: &CliError) -> bool {
    op.name == "plan_apply"
        && matches!(error, CliError::Refused { refusal, .. } if refusal.code == ErrorCode::ApprovalRequired)
}

/// Makes the plan, shows it, and asks for its hash. Where nobody can be asked, it says how to
/// go on and ends with the refusal.
pub(crate) async fn plan_and_ask(
    session: &Session<'_>,
    op: &'static OpDef,
    args: &Map<String, Value>,
    refusal: CliError,
) -> Result<CallReply, CliError> {
    let plan = if op.name == "plan_apply" {
        stored_plan(session, args.get("plan_id").cloned().unwrap_or_default()).await?
    } else {
        make_plan(session, op, args).await?
    };
    let screen = session.screen;
    screen.note(&render::plan(&plan, screen.note_style()))?;
    if !screen.is_interactive() {
        screen.note(&how_to_go_on(&plan))?;
        return Err(refusal);
    }
    let hash = short_hash(&plan.diff_hash);
    let typed = screen.ask(&format!(
        "\nThis is tier {}. To go ahead, type the first {HASH_CHARS_MIN} characters of the hash ({hash}): ",
        plan.tier
    ))?;
    if typed.len() < HASH_CHARS_MIN || !plan.diff_hash.starts_with(&typed) {
        return Err(CliError::NotConfirmed);
    }
    apply(session, &plan, args).await
}

/// The same without a question: the hash was given with the command. The plan that waits for
/// it is applied; if none waits, a new one is made and must come to the same hash.
pub(crate) async fn confirmed(
    session: &Session<'_>,
    op: &'static OpDef,
    args: &Map<String, Value>,
    hash: &str,
) -> Result<CallReply, CliError> {
    let waiting = json!({ "state": ApprovalState::Waiting, "limit": APPROVALS_MAX });
    let list: ApprovalList = ask(session, "approval_list", waiting).await?;
    for approval in list.approvals.iter().filter(|view| view.diff_hash.starts_with(hash)) {
        let plan = stored_plan(session, json!(approval.plan_id)).await?;
        if plan.tool == op.name {
            return apply(session, &plan, args).await;
        }
    }
    let plan = make_plan(session, op, args).await?;
    if !plan.diff_hash.starts_with(hash) {
        session.screen.note(&render::plan(&plan, session.screen.note_style()))?;
        return Err(CliError::HashDiffers {
            tool: op.name.to_owned(),
            wanted: hash.to_owned(),
            now: short_hash(&plan.diff_hash).to_owned(),
        });
    }
    apply(session, &plan, args).await
}

/// Approves a plan where that is needed, and applies it.
pub(crate) async fn apply(
    session: &Session<'_>,
    plan: &PlanView,
    args: &Map<String, Value>,
) -> Result<CallReply, CliError> {
    if let Some(approval_id) = plan.approval_id {
        let mut decide = Map::new();
        decide.insert("approval_id".into(), json!(approval_id));
        decide.insert("decision".into(), json!(ApprovalDecision::Approve));
        decide.insert("diff_hash".into(), json!(plan.diff_hash));
        copy(args, &["reason"], &mut decide);
        session.call("approval_decide", decide).await?;
    }
    let mut apply = Map::new();
    apply.insert("plan_id".into(), json!(plan.plan_id));
    copy(args, &["request_id", "reason", "wait_s"], &mut apply);
    session.call("plan_apply", apply).await
}

/// As much of a hash as confirms a plan.
pub(crate) fn short_hash(hash: &str) -> &str {
    hash.get(..HASH_CHARS_MIN).unwrap_or(hash)
}

async fn make_plan(session: &Session<'_>, op: &'static OpDef, args: &Map<String, Value>) -> Result<PlanView, CliError> {
    let mut args = args.clone();
    args.insert("mode".into(), json!("plan"));
    args.remove("wait_s");
    // The key of the intention belongs to the change, not to the look at it.
    args.remove("request_id");
    let outcome: Outcome = ask(session, op.name, Value::Object(args)).await?;
    outcome.plan.ok_or_else(|| CliError::Protocol {
        url: session.client.url().to_owned(),
        why: format!("{} was asked for a plan and made none", op.name),
    })
}

async fn stored_plan(session: &Session<'_>, plan_id: Value) -> Result<PlanView, CliError> {
    let detail: PlanDetail = ask(session, "plan_get", json!({ "plan_id": plan_id })).await?;
    Ok(detail.plan)
}

/// A call whose answer is read, not shown.
pub(crate) async fn ask<T: DeserializeOwned>(session: &Session<'_>, tool: &str, args: Value) -> Result<T, CliError> {
    let Value::Object(args) = args else {
        return Err(CliError::Usage("arguments are an object"));
    };
    let reply = session.call(tool, args).await?;
    serde_json::from_value(reply.content).map_err(|error| CliError::Protocol {
        url: session.client.url().to_owned(),
        why: format!("the answer of {tool} has another form: {error}"),
    })
}

fn how_to_go_on(plan: &PlanView) -> String {
    let apply = generate::command_line("plan_apply", &json!({ "plan_id": plan.plan_id }));
    let line = match plan.approval_id {
        Some(approval_id) => {
            let decide =
                json!({ "approval_id": approval_id, "decision": "approve", "diff_hash": short_hash(&plan.diff_hash) });
            format!("{} && {apply}", generate::command_line("approval_decide", &decide))
        }
        None => apply,
    };
    format!("\nNobody can be asked here. To go ahead with this plan:\n  {line}\n\n")
}

fn copy(from: &Map<String, Value>, names: &[&str], to: &mut Map<String, Value>) {
    for name in names {
        if let Some(value) = from.get(*name) {
            to.insert((*name).to_owned(), value.clone());
        }
    }
}
