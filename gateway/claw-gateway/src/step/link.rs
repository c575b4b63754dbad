//! Nodes come, are heard from or not, and change.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::{KeyId, NodeId, TokenId};
use claw_proto::message::{RunningReport, StatusCause, StopOrder};
use claw_proto::time::Timestamp;
use claw_proto::topology::NodeCapabilities;
use claw_proto::validation::Validator;
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::nodes::NodeLink;
use claw_tools::outcome::clip;
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use super::Report;
use super::follow::end_lost;
use super::work::Work;
use crate::effect::Effect;
use crate::event::Event;

/// The first admin's key, only where there is none.
pub(super) fn bootstrap(
    work: &mut Work<'_>,
    key_id: KeyId,
    secret_hash: String,
    principal: String,
) -> Result<Report, Refusal> {
    if work.state.keys.values().any(|k| k.role == Role::Admin && !k.revoked) {
        return Err(Refusal::new(ErrorCode::InvalidState, "the fleet has an admin key already"));
    }
    work.emit(Event::ApiKeyCreated {
        key_id,
        subject: principal,
        role: Role::Admin,
        kind: PrincipalKind::Person,
        secret_hash,
        expires_at: None,
    });
    Ok(Report::Done)
}

/// One-time token against an identity.
pub(super) fn enroll(work: &mut Work<'_>, token_id: TokenId, secret_hash: &str, name: &str) -> Result<Report, Refusal> {
    // Unknown and wrong get the same words; used and expired are told only to who holds the secret.
    let invalid = || {
        Refusal::new(
            ErrorCode::TokenInvalid,
            "the enrollment token is not valid; make a new one with node_token_create",
        )
    };
    let token = work.state.tokens.get(&token_id).cloned().ok_or_else(invalid)?;
    if !equal_in_constant_time(&token.secret_hash, secret_hash) {
        return Err(invalid());
    }
    if token.revoked {
        return Err(Refusal::new(ErrorCode::TokenInvalid, "the enrollment token was revoked"));
    }
    if let Some(node_id) = token.used_by {
        return Err(Refusal::new(
            ErrorCode::TokenInvalid,
            format!("the enrollment token was used by {node_id}; each is good for one node"),
        ));
    }
    if token.expires_at <= work.now() {
        return Err(Refusal::new(
            ErrorCode::TokenInvalid,
            format!("the enrollment token expired at {}", token.expires_at),
        ));
    }
    let mut validator = Validator::new();
    validator.name("name", name);
    validator.finish().map_err(|e| {
        Refusal::new(ErrorCode::InvalidArgument, e.to_string())
            .with_field("name", name)
            .with_allowed(["lower-case letters, digits, dashes".to_owned()])
    })?;
    if token.name.as_deref().is_some_and(|n| n != name) {
        return Err(Refusal::new(ErrorCode::TokenInvalid, "the enrollment token is for another node name")
            .with_field("name", name)
            .with_allowed(token.name.clone()));
    }
    if let Some(other) = work.state.nodes.by_name(name).cloned() {
        // Only with a token that was made for just this name.
        if other.is_revoked() && token.name.is_some() {
            work.emit(Event::NodeReadmitted { node_id: other.node_id, token_id });
            return Ok(Report::Enrolled { node_id: other.node_id });
        }
        return Err(Refusal::new(ErrorCode::InvalidState, format!("the name is taken by {}", other.node_id))
            .with_field("name", name));
    }
    let node_id = NodeId::next(&mut work.ids);
    work.emit(Event::NodeEnrolled { node_id, name: name.to_owned(), labels: token.labels.clone(), token_id });
    Ok(Report::Enrolled { node_id })
}

/// Both are hex of a hash, so equal in length; every byte is looked at.
fn equal_in_constant_time(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0_u8, |diff, (x, y)| diff | (x ^ y)) == 0
}

/// A node connects: it is online, gets its desired set, and what it runs is judged.
pub(super) fn register(
    work: &mut Work<'_>,
    node_id: NodeId,
    capabilities: NodeCapabilities,
    running: &[RunningReport],
    store_id: u128,
    epoch_seen: u64,
) -> Result<Report, Refusal> {
    let Some(node) = work.state.nodes.get(node_id).cloned() else {
        let removed = if work.state.nodes.was_removed(node_id) { "was removed from" } else { "is not in" };
        return Err(Refusal::new(ErrorCode::NotFound, format!("node {node_id} {removed} the fleet")));
    };
    if epoch_seen > work.state.epoch {
        return Err(Refusal::new(
            ErrorCode::InvalidState,
            format!(
                "the node saw epoch {epoch_seen}, this gateway is at {}: it was restored from an old copy; restart it with --epoch-above {epoch_seen}",
                work.state.epoch
            ),
        ));
    }
    let store_text = format!("{store_id:032x}");
    let forgot = !node.store_id.is_empty() && node.store_id != store_text;
    if node.capabilities.as_deref() != Some(&capabilities) || node.store_id != store_text {
        work.emit(Event::NodeCapabilitiesReported {
            node_id,
            capabilities: Arc::new(capabilities),
            store_id: store_text,
        });
    }
    let was = node.link;
    if was != NodeLink::Online {
        work.emit(Event::NodeLinkChanged { node_id, link: NodeLink::Online, last_heard: work.now() });
    }
    if forgot {
        lose_what_it_forgot(work, node_id, running);
    }
    let also_stop = judge_running(work, node_id, running, was == NodeLink::Unreachable);
    work.effect(Effect::SendDesiredSet { node_id, also_stop });
    Ok(Report::Registered { settings: node.settings.clone() })
}

/// The node's record store is new: what it does not report any more, nobody will ever report.
fn lose_what_it_forgot(work: &mut Work<'_>, node_id: NodeId, running: &[RunningReport]) {
    let held: Vec<_> =
        work.state.nodes.get(node_id).map(|n| n.usage.workloads.iter().copied().collect()).unwrap_or_default();
    for id in held {
        let live = work.state.workloads.get(id).and_then(|w| w.live_on(node_id).map(|a| a.attempt));
        // One that it reports as ended counts: the record of how it ended is on its way.
        let reported = running.iter().any(|r| r.workload_id == id && Some(r.attempt) == live);
        if !reported {
            end_lost(
                work,
                (id, node_id),
                WorkloadReason::NotOnNode,
                "its node came back with an empty record store and without it",
            );
        }
    }
}

/// Adopts the wanted, orders the superseded to stop, notes the unknown.
fn judge_running(work: &mut Work<'_>, node_id: NodeId, running: &[RunningReport], returned: bool) -> Vec<StopOrder> {
    let mut also_stop = Vec::new();
    let mut unknown = BTreeMap::new();
    for report in running.iter().filter(|r| !r.state.is_final()) {
        let Some(entry) = work.state.workloads.get(report.workload_id).cloned() else {
            unknown.insert(report.workload_id, report.attempt);
            continue;
        };
        let wanted = entry.live_on(node_id).is_some_and(|a| a.attempt == report.attempt);
        if !wanted {
            also_stop.push(StopOrder {
                workload_id: report.workload_id,
                attempt: report.attempt,
                grace_s: entry.spec.grace_s(),
                cause: StatusCause::Superseded,
            });
        } else if returned && entry.state != WorkloadState::Stopping {
            work.emit(Event::WorkloadAdopted { workload_id: report.workload_id, attempt: report.attempt });
        }
    }
    let known: Vec<_> = work
        .state
        .nodes
        .get(node_id)
        .map(|n| n.orphans.iter().map(|(id, o)| (*id, o.attempt)).collect())
        .unwrap_or_default();
    for (workload_id, attempt) in &known {
        if unknown.get(workload_id) != Some(attempt) {
            work.emit(Event::OrphanGone { node_id, workload_id: *workload_id });
        }
    }
    for (workload_id, attempt) in unknown {
        if !known.contains(&(workload_id, attempt)) {
            let why = "it runs on the node and is not known to this gateway".to_owned();
            work.emit(Event::OrphanFound { node_id, workload_id, attempt, why });
        }
    }
    also_stop
}

/// Hardware or runtimes changed while connected.
pub(super) fn capabilities(
    work: &mut Work<'_>,
    node_id: NodeId,
    capabilities: NodeCapabilities,
) -> Result<Report, Refusal> {
    let Some(node) = work.state.nodes.get(node_id).cloned() else {
        return Err(Refusal::new(
            ErrorCode::NotFound,
            format!("node {} is not in the fleet", clip(&node_id.to_string(), 60)),
        ));
    };
    if node.capabilities.as_deref() != Some(&capabilities) {
        work.emit(Event::NodeCapabilitiesReported {
            node_id,
            capabilities: Arc::new(capabilities),
            store_id: node.store_id.clone(),
        });
    }
    Ok(Report::Done)
}

/// These nodes have not answered in time.
pub(super) fn silent(work: &mut Work<'_>, nodes: &[(NodeId, Timestamp)]) -> Report {
    for (node_id, last_heard) in nodes {
        let online = work.state.nodes.get(*node_id).filter(|n| n.link == NodeLink::Online).map(|n| n.last_heard);
        if let Some(connected) = online {
            // Before this gateway started it may have been heard by the one before,
            // and a node that came back after this was noticed counts from then.
            let last_heard = (*last_heard).max(work.state.started_at).max(connected).min(work.now());
            work.emit(Event::NodeLinkChanged { node_id: *node_id, link: NodeLink::Unreachable, last_heard });
            work.effect(Effect::CloseLink { node_id: *node_id, why: "no answer to heartbeats" });
        }
    }
    Report::Done
}
