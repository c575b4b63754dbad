//! What each mutating operation does to the state.

mod access_ops;
mod defrag_ops;
mod gate_ops;
mod inside_ops;
mod node_ops;
mod quota_ops;
mod reservation_ops;
mod secret_ops;
mod workload_ops;

use claw_proto::ids::IdSource;
use claw_tools::outcome::{EffectKind, Outcome};
use claw_tools::refusal::{Refusal, SuggestedCall};
use claw_tools::workloads::{WorkloadReason, WorkloadState};
use serde_json::{Map, Value};

use super::operate::Performed;
use super::undo;
use super::work::Work;
use crate::Cluster;
use crate::command::Operation;
use crate::workload::Desired;

/// Performs one operation on the state.
pub(super) fn perform(
    work: &mut Work<'_>,
    operation: &Operation,
    secret_hash: Option<&str>,
) -> Result<Performed, Refusal> {
    match operation {
        Operation::WorkloadRun { spec, env_handle, assumptions } => {
            workload_ops::run(work, spec, env_handle.as_deref(), assumptions)
        }
        Operation::WorkloadStop { workload, grace_s } => workload_ops::stop(work, workload, *grace_s),
        Operation::WorkloadHold { workload, gate } => gate_ops::hold(work, workload, gate),
        Operation::WorkloadRelease { workload, gates } => gate_ops::release(work, workload, gates),
        Operation::WorkloadExec { workload, command, timeout_s } => {
            inside_ops::exec(work, workload, command, *timeout_s)
        }
        Operation::NodeDrain { node, grace_s } => node_ops::drain(work, node, *grace_s),
        Operation::NodeUndrain { node } => node_ops::undrain(work, node),
        Operation::NodeCordon { node } => node_ops::cordon(work, node),
        Operation::NodeUncordon { node } => node_ops::uncordon(work, node),
        Operation::NodeLabel { node, set, remove } => node_ops::label(work, node, set, remove),
        Operation::NodeRemove { node } => node_ops::remove(work, node),
        Operation::NodeRevoke { node } => node_ops::revoke(work, node),
        Operation::CaRotate {} => access_ops::rotate_authority(work),
        Operation::NodeConfigSet { node, metrics_interval_ms, log_buffer_bytes } => {
            node_ops::configure(work, node, *metrics_interval_ms, *log_buffer_bytes)
        }
        Operation::NodeTokenCreate { name, labels, ttl_s } => {
            access_ops::token(work, name.as_deref(), labels, *ttl_s, secret_hash)
        }
        Operation::OperationCancel { operation_id } => undo::cancel(work, *operation_id),
        Operation::Undo { operation_id } => undo::undo(work, *operation_id),
        Operation::QuotaSet { .. } => quota_ops::set(work, operation),
        Operation::QuotaDelete { tenant } => quota_ops::delete(work, tenant),
        Operation::ReservationCreate { .. } => reservation_ops::create(work, operation),
        Operation::ReservationDelete { name } => reservation_ops::delete(work, name),
        Operation::Defrag { .. } => defrag_ops::defrag(work, operation),
        Operation::SecretSet { handle, used_by, sealed: _, blob } => {
            secret_ops::set(work, handle, used_by, blob.as_deref())
        }
        Operation::SecretDelete { handle } => secret_ops::delete(work, handle),
        Operation::ApiKeyCreate { principal, role, kind, ttl_s } => {
            access_ops::key(work, principal, *role, *kind, *ttl_s, secret_hash)
        }
        Operation::ApiKeyRevoke { key_id } => access_ops::revoke_key(work, *key_id),
    }
}

pub(super) use gate_ops::set_gates;
pub(super) use node_ops::{drain, set_labels, set_schedulable, set_settings};
pub(super) use quota_ops::put as put_quota;
pub(super) use reservation_ops::put as put_reservation;
pub(crate) use secret_ops::handles as secret_handles;
pub(super) use workload_ops::{checked, stop_workload};

/// Environment values may be secret or personal, and secrets are: they go to an
/// erasable blob, the journal sees only the names.
pub(super) fn move_values(work: &mut Work<'_>, operation: Operation) -> Result<Operation, Refusal> {
    Ok(match operation {
        Operation::WorkloadRun { mut spec, env_handle: None, assumptions } if !spec.env.is_empty() => {
            // Once they are moved nobody looks at the values again; a fault never repeats them.
            workload_ops::valid((*spec).clone())?;
            let handle = format!("env_{:032x}", work.ids.next_bits());
            let values = serde_json::to_vec(&spec.env).expect("a map of strings");
            work.blob(handle.clone(), values);
            for value in spec.env.values_mut() {
                value.clear();
            }
            Operation::WorkloadRun { spec, env_handle: Some(handle), assumptions }
        }
        Operation::SecretSet { handle, used_by, sealed: Some(sealed), blob: None } => {
            let blob = format!("sec_{:032x}", work.ids.next_bits());
            work.blob(blob.clone(), sealed.into_bytes());
            Operation::SecretSet { handle, used_by, sealed: None, blob: Some(blob) }
        }
        Operation::Defrag { model, horizon_s, moves_max, moves: None } => {
            let moves = Some(defrag_ops::settled(work, model.as_deref(), horizon_s, moves_max)?);
            Operation::Defrag { model, horizon_s, moves_max, moves }
        }
        // Now is when it was planned, not when it is applied: a plan shows what it does.
        Operation::ReservationCreate { name, tenant, nodes, node_names, gpus, model, starts_at: None, duration_s } => {
            let starts_at = Some(work.now());
            Operation::ReservationCreate { name, tenant, nodes, node_names, gpus, model, starts_at, duration_s }
        }
        other => other,
    })
}

/// Adds to the outcome of a run where it goes, or why it waits.
pub(super) fn with_place(cluster: &Cluster, mut outcome: Outcome) -> Outcome {
    let Some(w) = outcome.workload_id.and_then(|id| cluster.workloads.get(id)) else {
        return outcome;
    };
    if w.desired != Desired::Run
        || outcome.effect != EffectKind::Accepted
        || !matches!(w.state, WorkloadState::Pending | WorkloadState::Placed)
    {
        return outcome;
    }
    let report = w.report.clone();
    if w.reason == WorkloadReason::Gated {
        outcome.summary.push_str("; it waits for its gates: ");
        outcome.summary.push_str(&w.gates.join(", "));
    }
    outcome.simulated = w.simulated();
    let id = w.workload_id.to_string();
    let about = |id: String| Map::from_iter([("workload".to_owned(), Value::String(id))]);
    let next = if w.state == WorkloadState::Pending {
        outcome.effect = EffectKind::Queued;
        vec![SuggestedCall::new("workload_explain", Value::Object(about(id)))]
    } else {
        let mut wait = about(id.clone());
        wait.insert("states".to_owned(), Value::Array(vec![Value::String("running".to_owned())]));
        let wait = SuggestedCall::new("workload_wait", Value::Object(wait));
        vec![wait, SuggestedCall::new("workload_logs", Value::Object(about(id)))]
    };
    outcome.next.splice(0..0, next);
    if let Some(report) = report {
        outcome.summary.reserve_exact("; ".len() + report.summary.len());
        outcome.summary.push_str("; ");
        outcome.summary.push_str(&report.summary);
        outcome.placement = Some(report);
    }
    outcome
}
