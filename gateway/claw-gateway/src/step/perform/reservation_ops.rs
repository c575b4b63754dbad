//! Reservations: nodes that are kept for a tenant for a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use claw_proto::ids::NodeId;
use claw_proto::validation::Validator;
use claw_tools::def::UndoClass;
use claw_tools::outcome::{EffectKind, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::reservations::{
    RESERVATIONS_MAX, RESERVED_AHEAD_S_MAX, RESERVED_NODES_MAX, RESERVED_S_MAX, Reservation,
};
use serde_json::json;

use super::Performed;
use crate::command::Operation;
use crate::event::{Event, Goal, Inverse};
use crate::query::{self, first_names};
use crate::registry::NodeEntry;
use crate::reservations::obstacle;
use crate::step::work::Work;
use crate::tenancy::unknown;

/// Nodes that stand in the way and are told of by name at most.
const NAMED_MAX: usize = 5;

/// What is wished of nodes that are to be chosen.
struct Wish<'a> {
    count: u32,
    gpus: u32,
    model: Option<&'a str>,
}

/// Keeps nodes for a tenant.
pub(super) fn create(work: &mut Work<'_>, operation: &Operation) -> Result<Performed, Refusal> {
    let Operation::ReservationCreate { name, tenant, nodes, node_names, gpus, model, starts_at, duration_s } =
        operation
    else {
        return Err(invalid("name", "", "this makes no reservation"));
    };
    named(name)?;
    if work.state.reservations.get(name).is_some() {
        let message = format!("there is a reservation {name} already: end it first, or give this one another name");
        return Err(Refusal::new(ErrorCode::InvalidState, message)
            .with_field("name", name.clone())
            .with_next("reservation_list", json!({})));
    }
    let now = work.now();
    let starts_at = starts_at.unwrap_or(now);
    let ahead_ms = i64::try_from(RESERVED_AHEAD_S_MAX * 1_000).unwrap_or(i64::MAX);
    if starts_at.ms_since(now) > ahead_ms {
        return Err(invalid("starts_at", starts_at, "is more than a year ahead")
            .with_allowed([format!("{now} to {}", now.plus_ms(ahead_ms))]));
    }
    if *duration_s == 0 || *duration_s > RESERVED_S_MAX {
        return Err(
            invalid("duration_s", duration_s, "is out of range").with_allowed([format!("1 to {RESERVED_S_MAX}")])
        );
    }
    let ends_at = starts_at.plus_ms(i64::try_from(duration_s * 1_000).unwrap_or(i64::MAX / 4));
    let (name, tenant, by) = (name.clone(), tenant.clone(), work.caller.principal.clone());
    let mut wanted = Reservation { name, tenant, nodes: Vec::new(), starts_at, ends_at, by };
    sound(work, &wanted)?;
    wanted.nodes = match (nodes, &node_names[..]) {
        (Some(0), []) => {
            return Err(invalid("nodes", 0, "keeps nothing").with_allowed([format!("1 to {RESERVED_NODES_MAX}")]));
        }
        (Some(count), []) => {
            chosen(work, &wanted, &Wish { count: *count, gpus: gpus.unwrap_or(0), model: model.as_deref() })?
        }
        (None, [_, ..]) if gpus.is_none() && model.is_none() => these(work, &wanted, node_names)?,
        (None, [_, ..]) => {
            return Err(invalid(
                "node_names",
                node_names.join(", "),
                "gpus and model choose nodes; these are named: leave one of them out",
            ));
        }
        (got, _) => {
            let got = got.map_or_else(String::new, |n| n.to_string());
            return Err(invalid("nodes", got, "say either how many nodes (nodes) or which (node_names)"));
        }
    };
    Ok(set(work, wanted, None))
}

/// Ends a reservation.
pub(super) fn delete(work: &mut Work<'_>, name: &str) -> Result<Performed, Refusal> {
    if work.state.reservations.get(name).is_none() {
        let known = work.state.reservations.iter().map(|kept| kept.name.as_str());
        return Err(Refusal::new(ErrorCode::NotFound, format!("there is no reservation {name}"))
            .with_field("name", name)
            .with_nearest(claw_tools::nearest::nearest(name, known))
            .with_next("reservation_list", json!({})));
    }
    put(work, name, None)
}

/// A reservation is as it was, or is gone; the way back is what is now.
pub(in crate::step) fn put(work: &mut Work<'_>, name: &str, wanted: Option<Reservation>) -> Result<Performed, Refusal> {
    let former = work.state.reservations.get(name).map(|kept| (**kept).clone());
    let Some(wanted) = wanted else {
        work.emit(Event::ReservationEnded { name: name.to_owned() });
        let inverse = Inverse::SetReservation { name: name.to_owned(), expect: None, restore: former };
        let not_restored = "its nodes, where others' work has started there meanwhile";
        return Ok(done(format!("end reservation {name}"), inverse, not_restored));
    };
    sound(work, &wanted)?;
    for node in wanted.nodes.iter().filter_map(|id| work.state.nodes.get(*id)) {
        free(work, node, &wanted)?;
    }
    Ok(set(work, wanted, former))
}

/// It is as said from now on.
fn set(work: &mut Work<'_>, wanted: Reservation, former: Option<Reservation>) -> Performed {
    let nodes = wanted.nodes.iter().filter_map(|id| work.state.nodes.get(*id)).map(|node| node.name.as_str());
    let summary = format!(
        "keep {} for {} from {} until {}: {}",
        query::nodes(wanted.nodes.len()),
        wanted.tenant,
        wanted.starts_at,
        wanted.ends_at,
        first_names(&nodes.collect::<Vec<_>>(), NAMED_MAX)
    );
    work.emit(Event::ReservationSet { reservation: Arc::new(wanted.clone()) });
    let inverse = Inverse::SetReservation { name: wanted.name.clone(), expect: Some(wanted), restore: former };
    done(summary, inverse, "what could not start on its nodes meanwhile")
}

fn done(summary: String, inverse: Inverse, not_restored: &'static str) -> Performed {
    Performed {
        outcome: Outcome::new(EffectKind::Accepted, summary),
        inverse,
        undo: UndoClass::Compensating,
        not_restored,
        goal: Goal::Immediate,
        undoes: None,
    }
}

/// A node can be kept then.
fn free(work: &Work<'_>, node: &NodeEntry, wanted: &Reservation) -> Result<(), Refusal> {
    match obstacle(work.state, node, wanted) {
        Some(why) => Err(in_the_way(&format!("{} {why}", node.name)).with_field("node_names", node.name.clone())),
        None => Ok(()),
    }
}

/// It is for somebody, not over, and not one too many.
fn sound(work: &Work<'_>, wanted: &Reservation) -> Result<(), Refusal> {
    let (tenant, now) = (&wanted.tenant, work.now());
    if work.state.tenants.get(tenant).is_none() {
        return Err(unknown(work.state, tenant).with_field("tenant", tenant.clone()));
    }
    if wanted.ends_at <= now {
        return Err(invalid(
            "starts_at",
            wanted.starts_at,
            &format!("it would have ended at {}, and it is {now}", wanted.ends_at),
        ));
    }
    if work.state.reservations.len() >= RESERVATIONS_MAX {
        let message = format!("there are {RESERVATIONS_MAX} reservations already");
        return Err(Refusal::new(ErrorCode::TooLarge, message).with_next("reservation_list", json!({})));
    }
    Ok(())
}

/// Those that are named, if all of them can be kept.
fn these(work: &Work<'_>, wanted: &Reservation, named: &[String]) -> Result<Vec<NodeId>, Refusal> {
    if named.len() > RESERVED_NODES_MAX {
        return Err(invalid("node_names", named.len(), "names too many nodes")
            .with_allowed([format!("1 to {RESERVED_NODES_MAX}")]));
    }
    let mut nodes = BTreeSet::new();
    for text in named {
        let node = work.state.resolve_node(text)?;
        free(work, node, wanted)?;
        nodes.insert(node.node_id);
    }
    Ok(nodes.into_iter().collect())
}

/// So many of those that can be kept: rather where the tenant's work runs already, then what stands
/// together, the fewest GPUs first so that larger nodes stay for others.
fn chosen(work: &Work<'_>, wanted: &Reservation, wish: &Wish<'_>) -> Result<Vec<NodeId>, Refusal> {
    let is_right = |node: &NodeEntry| {
        let of_model = |model: &str| wish.model.is_none_or(|wanted| wanted.eq_ignore_ascii_case(model));
        let n = node.whole_gpus().filter(|gpu| of_model(&gpu.model)).count();
        n >= wish.gpus.max(u32::from(wish.model.is_some())) as usize
    };
    let right: Vec<&Arc<NodeEntry>> = work.state.nodes.iter().filter(|node| is_right(node)).collect();
    let mut obstacles: Vec<String> = Vec::new();
    let mut free: Vec<&Arc<NodeEntry>> = Vec::new();
    for node in &right {
        match obstacle(work.state, node, wanted) {
            Some(why) => obstacles.push(format!("{} {why}", node.name)),
            None => free.push(node),
        }
    }
    if free.len() < wish.count as usize {
        let n_more = obstacles.len().saturating_sub(NAMED_MAX);
        obstacles.truncate(NAMED_MAX);
        if n_more > 0 {
            obstacles.push(format!("{n_more} more"));
        }
        let why = if obstacles.is_empty() { String::new() } else { format!(": {}", obstacles.join("; ")) };
        let is = if right.len() == 1 { "is" } else { "are" };
        let message = format!(
            "{} {is} of this kind, and {} can be kept then{why}",
            query::nodes(right.len()),
            query::nodes(free.len())
        );
        let refusal = in_the_way(&message).with_field("nodes", wish.count.to_string());
        return Err(if free.is_empty() { refusal } else { refusal.with_allowed([format!("1 to {}", free.len())]) });
    }
    let place = |node: &NodeEntry| ["zone", "rack"].map(|key| node.labels.get(key).cloned().unwrap_or_default());
    free.sort_by_cached_key(|node| {
        let is_empty = node.usage.workloads.is_empty();
        // Where the tenant's work may not bear the taint, the node would be kept for nobody.
        let is_tainted = node.taints().next().is_some();
        (is_tainted, is_empty, node.whole_gpus().count(), place(node), node.name.clone())
    });
    let mut nodes: Vec<NodeId> = free.iter().take(wish.count as usize).map(|node| node.node_id).collect();
    nodes.sort_unstable();
    Ok(nodes)
}

fn named(name: &str) -> Result<(), Refusal> {
    let mut validator = Validator::new();
    validator.name("name", name);
    validator.finish().map_err(|error| invalid("name", name, &error.to_string()))
}

fn invalid(field: &str, got: impl ToString, message: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidArgument, format!("{field}: {message}")).with_field(field, got.to_string())
}

fn in_the_way(message: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidState, message.to_owned()).with_next("reservation_list", json!({}))
}
