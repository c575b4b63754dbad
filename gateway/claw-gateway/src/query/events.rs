//! Events in words, and what they are about.

use claw_tools::outcome::clip;
use claw_tools::reservations::Reservation;
use claw_tools::workloads::WorkloadReason;

use crate::event::Event;
use crate::workload::Claim;

/// Characters of a command.
const COMMAND_CHARS_MAX: usize = 500;

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
        Event::WorkloadSubmitted { name, spec, .. } => format!("{name} was submitted: {}", super::what(spec.spec())),
        Event::WorkloadWaits { why, .. } => format!("it waits ({why})"),
        Event::WorkloadGated { gates, .. } if gates.is_empty() => "its gates are open".into(),
        Event::WorkloadGated { gates, .. } => format!("it waits for its gate(s) {}", gates.join(", ")),
        Event::WorkloadPlaced { attempt, report, .. } => format!("attempt {} {}", attempt.0, report.summary),
        Event::WorkloadProgressed { state, attempt, .. } => format!("attempt {} is {state}", attempt.0),
        Event::WorkloadStopping { why, grace_s, requeue, notice, .. } => stopping(*why, *grace_s, *requeue, *notice),
        Event::CheckpointWritten { label, answers_notice, .. } => checkpoint(label, *answers_notice),
        Event::NoticeEnded { acked, .. } => notice_ended(*acked).into(),
        Event::AttemptEnded { attempt, state, why, exit_code, .. } => {
            let code = exit_code.map(|c| format!(", exit code {c}")).unwrap_or_default();
            format!("attempt {} ended: {state} ({why}{code})", attempt.0)
        }
        Event::RoomClaimed { claim, lost_gpu_ms, .. } => describe_claim(claim.as_deref(), lost_gpu_ms),
        Event::WorkloadRequeued { why, .. } => format!("it waits for a place again ({why})"),
        Event::WorkloadEnded { state, why, .. } => format!("it is {state} ({why})"),
        Event::WorkloadAdopted { attempt, .. } => {
            format!("its node came back with attempt {} running; it goes on", attempt.0)
        }
        Event::ExecRequested { command, attempt, timeout_s, .. } => {
            let command = clip(&command.join(" "), COMMAND_CHARS_MAX);
            format!("{command:?} is run inside attempt {}, for at most {timeout_s} s", attempt.0)
        }
        Event::ExecEnded { end, .. } => format!("the command ended: {}", end.words()),
        Event::QuotaSet { tenant, .. } => format!("the quota of tenant {tenant} was set"),
        Event::QuotaDeleted { tenant } => format!("the tenant {tenant} was removed"),
        Event::ReservationSet { reservation } => kept(reservation),
        Event::ReservationEnded { name } => format!("the reservation {name} has ended"),
        Event::SecretSet { handle, owner, .. } => format!("the secret {handle} of {owner} has a new value"),
        Event::SecretDeleted { handle } => format!("the secret {handle} was erased"),
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
        Event::MassLossCleared { silent, total } => format!("{silent} of {total} nodes silent: back to normal"),
    }
}

fn kept(reservation: &Reservation) -> String {
    let Reservation { name, tenant, nodes, starts_at, ends_at, .. } = reservation;
    format!(
        "{} node(s) are kept for tenant {tenant} from {starts_at} until {ends_at} (reservation {name})",
        nodes.len()
    )
}

fn stopping(why: WorkloadReason, grace_s: u32, requeue: bool, notice: bool) -> String {
    let elsewhere = if requeue { " and will run elsewhere" } else { "" };
    if notice {
        return format!("it is told to write a checkpoint within {grace_s} s{elsewhere} ({why})");
    }
    format!("it is told to stop ({why}){elsewhere}")
}

fn checkpoint(label: &str, answers_notice: bool) -> String {
    format!("a checkpoint is written{}: {label}", if answers_notice { ", as it was told to" } else { "" })
}

const fn notice_ended(acked: bool) -> &'static str {
    if acked { "its checkpoint is written: it is stopped" } else { "no checkpoint within its grace: it is stopped" }
}

fn describe_claim(claim: Option<&Claim>, lost_gpu_ms: &[u64]) -> String {
    let Some(claim) = claim else {
        return "the room that was made for it is not there".into();
    };
    if claim.victims.is_empty() {
        return format!("it has waited long: what becomes free on {} node(s) is kept for it", claim.places.len());
    }
    let lost_s = lost_gpu_ms.iter().sum::<u64>() / 1_000;
    let who =
        if claim.reclaims { "workload(s) that borrow or are less important" } else { "less important workload(s)" };
    format!("{} {who} are stopped for it, losing {lost_s} GPU seconds", claim.victims.len())
}
