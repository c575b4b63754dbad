//! Gates of workloads that wait: what has to be opened before they are placed.

use std::sync::Arc;

use claw_proto::limits::GATES_MAX;
use claw_proto::validation::Validator;
use claw_tools::outcome::{EffectKind, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::workloads::WorkloadState;
use serde_json::json;

use super::Performed;
use crate::event::{Event, Inverse};
use crate::step::work::Work;
use crate::workload::WorkloadEntry;

/// One that waits; what has its place is not held.
fn waiting(work: &Work<'_>, workload: &str) -> Result<Arc<WorkloadEntry>, Refusal> {
    let entry = Arc::clone(work.state.resolve_workload(workload)?);
    if entry.state == WorkloadState::Pending {
        return Ok(entry);
    }
    let why = format!("{} is {} ({}): gates keep only what waits", entry.name, entry.state, entry.reason);
    let refusal = Refusal::new(ErrorCode::InvalidState, why).with_field("workload", workload);
    let id = entry.workload_id;
    Err(if entry.state.is_final() {
        refusal.with_next("workload_get", json!({ "workload": id }))
    } else {
        refusal.with_next("workload_stop", json!({ "workload": id, "mode": "plan" }))
    })
}

fn outcome(entry: &WorkloadEntry, effect: EffectKind, summary: String) -> Outcome {
    let mut outcome = Outcome::new(effect, summary);
    outcome.workload_id = Some(entry.workload_id);
    outcome.simulated = entry.simulated();
    outcome
}

fn unchanged(entry: &WorkloadEntry, summary: String) -> Performed {
    Performed::unchanged(outcome(entry, EffectKind::NoChange, summary))
}

/// Closes exactly these gates and remembers which were closed; undo uses it too.
pub(in crate::step) fn set_gates(work: &mut Work<'_>, entry: &WorkloadEntry, gates: Vec<String>) -> Performed {
    let workload_id = entry.workload_id;
    let of = |gates: &[String]| if gates.is_empty() { "none".to_owned() } else { gates.join(", ") };
    let verb = if gates.len() > entry.gates.len() { "hold" } else { "release" };
    let summary = format!("{verb} {}: closed gates {} → {}", entry.name, of(&entry.gates), of(&gates));
    // Room may have been kept for one that is held only now, and others may have waited behind it.
    work.room_changed |= entry.gates.is_empty() && !gates.is_empty();
    work.emit(Event::WorkloadGated { workload_id, gates: gates.clone() });
    let inverse = Inverse::SetGates { workload_id, expect: gates, restore: entry.gates.clone() };
    Performed::exact(outcome(entry, EffectKind::Accepted, summary), inverse)
}

pub(super) fn hold(work: &mut Work<'_>, workload: &str, gate: &String) -> Result<Performed, Refusal> {
    let mut validator = Validator::new();
    validator.name("gate", gate);
    validator
        .finish()
        .map_err(|e| Refusal::new(ErrorCode::InvalidArgument, e.to_string()).with_field("gate", gate.clone()))?;
    let entry = waiting(work, workload)?;
    if entry.gates.contains(gate) {
        return Ok(unchanged(&entry, format!("{} waits for {gate} already", entry.name)));
    }
    if entry.gates.len() >= GATES_MAX {
        let why = format!("{} has {} closed gates, which is the most", entry.name, entry.gates.len());
        return Err(Refusal::new(ErrorCode::InvalidState, why)
            .with_field("gate", gate.clone())
            .with_allowed(entry.gates.clone())
            .with_next("workload_release", json!({ "workload": entry.workload_id, "gates": [&entry.gates[0]] })));
    }
    let mut gates = entry.gates.clone();
    gates.push(gate.clone());
    Ok(set_gates(work, &entry, gates))
}

pub(super) fn release(work: &mut Work<'_>, workload: &str, gates: &[String]) -> Result<Performed, Refusal> {
    let entry = Arc::clone(work.state.resolve_workload(workload)?);
    // Told again after it was placed, it is as it is to be.
    if entry.live().is_some() && entry.gates.is_empty() {
        return Ok(unchanged(
            &entry,
            format!("the gates of {} are open, and it is {} already", entry.name, entry.state),
        ));
    }
    let entry = waiting(work, workload).map(|_| entry)?;
    // One that was opened before, by whomever, is open: telling it again changes nothing.
    let stated = |gate: &String| entry.gates.contains(gate) || entry.spec.spec().gates.contains(gate);
    if let Some(unknown) = gates.iter().find(|gate| !stated(gate)) {
        let why = format!("{} has no gate {unknown:?}", entry.name);
        return Err(Refusal::new(ErrorCode::InvalidArgument, why)
            .with_field("gates", unknown.clone())
            .with_allowed(entry.gates.clone())
            .with_next("workload_get", json!({ "workload": entry.workload_id })));
    }
    let is_left = |gate: &&String| !gates.is_empty() && !gates.contains(gate);
    let left: Vec<String> = entry.gates.iter().filter(is_left).cloned().collect();
    if left.len() == entry.gates.len() {
        let which = if gates.is_empty() { "its gates are".to_owned() } else { format!("{} is", gates.join(", ")) };
        return Ok(unchanged(&entry, format!("{which} open already for {}", entry.name)));
    }
    Ok(set_gates(work, &entry, left))
}
