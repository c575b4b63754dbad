//! Mutations: a command for the core, then waiting for what is observed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claw_gateway::event::{Goal, ReceiptKey};
use claw_gateway::{Caller, Cluster, Command, Operation, Report, query};
use claw_proto::limits::{REASON_CHARS_MAX, SECRET_BYTES_MAX};
use claw_proto::spec::WorkloadSpec;
use claw_security::secrets::SealError;
use claw_tools::access::PrincipalKind;
use claw_tools::inside::EXEC_TIMEOUT_S;
use claw_tools::keys::ApiKeyCreateParams;
use claw_tools::nodes::{NodeConfigSetParams, NodeTokenCreateParams};
use claw_tools::operations::OperationState;
use claw_tools::outcome::{EffectKind, Mode, Mutation, Observed, Outcome, clip};
use claw_tools::quotas::QuotaSetParams;
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::registry::Call;
use claw_tools::reservations::ReservationCreateParams;
use claw_tools::scheduling::DefragPlanParams;
use claw_tools::secrets::{SecretEncoding, SecretSetParams};
use claw_tools::workloads::{WorkloadHoldParams, WorkloadReleaseParams, WorkloadRunParams};
use zeroize::Zeroizing;

use super::secrets::{Fresh, explain_missing};
use super::{OpError, OpReply, OpsContext, Output, inside, reads, words};

/// Validity of an enrollment token unless told otherwise, seconds.
const TOKEN_TTL_S: u32 = 3_600;

pub(super) async fn perform(ops: &OpsContext, caller: Caller, call: Call, args_hash: &str) -> Result<OpReply, OpError> {
    let tool = call.name();
    let args_hash = args_hash.to_owned();
    let (command, mutation, fresh) = match call {
        Call::PlanApply(p) => {
            let made = ops.control.snapshot().plans.get(&p.plan_id).map(|plan| plan.record.operation.tool());
            let fresh = Fresh::for_tool(ops, made.unwrap_or_default()).map_err(OpError::Fault)?;
            let secret_hash = fresh.as_ref().map(Fresh::hash);
            let mutation = p.mutation();
            (
                Command::PlanApply { plan_id: p.plan_id, mutation: mutation.clone(), args_hash, secret_hash },
                mutation,
                fresh,
            )
        }
        Call::ApprovalDecide(p) => {
            let mutation = p.mutation();
            let command = Command::ApprovalDecide {
                approval_id: p.approval_id,
                decision: p.decision,
                diff_hash: p.diff_hash,
                mutation: mutation.clone(),
                args_hash,
            };
            (command, mutation, None)
        }
        other => {
            let (operation, mutation) = operation(ops, &caller, other)?;
            // A plan's credential is made when the plan is applied.
            let fresh =
                if mutation.mode == Mode::Apply { Fresh::for_tool(ops, tool).map_err(OpError::Fault)? } else { None };
            let secret_hash =
                fresh.as_ref().map(Fresh::hash).or_else(|| (mutation.mode == Mode::Plan).then(String::new));
            (Command::Operate { operation, mutation: mutation.clone(), args_hash, secret_hash }, mutation, fresh)
        }
    };
    submit(ops, caller, command, &mutation, fresh).await
}

async fn submit(
    ops: &OpsContext,
    mut caller: Caller,
    command: Command,
    mutation: &Mutation,
    fresh: Option<Fresh>,
) -> Result<OpReply, OpError> {
    caller.reason = clip(mutation.reason.as_deref().unwrap_or_default(), REASON_CHARS_MAX);
    let begun = std::time::Instant::now();
    let report = ops.control.submit(command, caller).await?;
    ops.tally.submitted(begun.elapsed());
    let Report::Outcome { outcome, replayed } = report else {
        return Err(Refusal::new(ErrorCode::InvalidState, "the core answered something else than an outcome").into());
    };
    let mut outcome = *outcome;
    match fresh {
        Some(fresh) if !replayed => fresh.show(&mut outcome),
        _ => explain_missing(&mut outcome),
    }
    if mutation.wait_s > 0 && matches!(outcome.effect, EffectKind::Accepted | EffectKind::Queued) {
        observe(ops, &mut outcome, mutation.wait_s).await;
    }
    Ok(OpReply { output: Output::of(&outcome), replayed })
}

/// Waits for the operation's result and says what is known then.
async fn observe(ops: &OpsContext, outcome: &mut Outcome, wait_s: u32) {
    let Some(id) = outcome.operation_id else { return };
    let there = |c: &Cluster| c.operations.get(&id).is_none_or(|o| o.state != OperationState::Pending);
    let cluster = reads::until(&ops.control, wait_s, &there).await;
    let Some(operation) = cluster.operations.get(&id) else { return };
    let of_workload = |id| cluster.workloads.get(id).map(|w| Observed { state: w.state.to_string(), at: w.since });
    let seen = match &operation.record.goal {
        Goal::WorkloadRuns { workload_id } | Goal::WorkloadEnds { workload_id } => of_workload(*workload_id),
        Goal::ExecEnds { .. } | Goal::WorkloadsMove { .. } | Goal::Immediate => {
            operation.observed_at.map(|at| Observed { state: operation.observed.clone(), at })
        }
        Goal::NodeEmpty { node_id } => cluster.nodes.get(*node_id).map(|n| Observed {
            state: n.schedulable.to_string(),
            at: operation.observed_at.unwrap_or_else(|| ops.control.now()),
        }),
    };
    outcome.observed = seen.or_else(|| outcome.observed.take());
    outcome.exec = query::exec_view(&cluster, id);
    if let Err(error) = inside::fill(&ops.control, &cluster, id, &mut outcome.exec).await {
        tracing::warn!(operation_id = %id, ?error, "what the command wrote cannot be read now");
    }
    if let Some(workload) = outcome.workload_id.and_then(|id| cluster.workloads.get(id)) {
        outcome.simulated = workload.simulated();
    }
}

fn operation(ops: &OpsContext, caller: &Caller, call: Call) -> Result<(Operation, Mutation), OpError> {
    Ok(match call {
        Call::WorkloadRun(p) => {
            let mutation = p.mutation();
            (run(ops, caller, p)?, mutation)
        }
        Call::WorkloadStop(p) => {
            (Operation::WorkloadStop { workload: p.workload.clone(), grace_s: p.grace_s }, p.mutation())
        }
        Call::WorkloadHold(p) => hold(p),
        Call::WorkloadRelease(p) => release(p),
        Call::WorkloadExec(p) => {
            let (mutation, timeout_s) = (p.mutation(), p.timeout_s.unwrap_or(EXEC_TIMEOUT_S));
            (Operation::WorkloadExec { workload: p.workload, command: p.command, timeout_s }, mutation)
        }
        Call::NodeDrain(p) => (Operation::NodeDrain { node: p.node.clone(), grace_s: p.grace_s }, p.mutation()),
        Call::NodeUndrain(p) => (Operation::NodeUndrain { node: p.node.clone() }, p.mutation()),
        Call::NodeCordon(p) => (Operation::NodeCordon { node: p.node.clone() }, p.mutation()),
        Call::NodeUncordon(p) => (Operation::NodeUncordon { node: p.node.clone() }, p.mutation()),
        Call::NodeLabel(p) => {
            (Operation::NodeLabel { node: p.node.clone(), set: p.set.clone(), remove: p.remove.clone() }, p.mutation())
        }
        Call::NodeRemove(p) => (Operation::NodeRemove { node: p.node.clone() }, p.mutation()),
        Call::NodeRevoke(p) => (Operation::NodeRevoke { node: p.node.clone() }, p.mutation()),
        Call::CaRotate(p) => (Operation::CaRotate {}, p.mutation()),
        Call::NodeConfigSet(p) => (config_set(&p), p.mutation()),
        Call::NodeTokenCreate(p) => token_create(p),
        Call::OperationCancel(p) => (Operation::OperationCancel { operation_id: p.operation_id }, p.mutation()),
        Call::Undo(p) => (Operation::Undo { operation_id: p.operation_id }, p.mutation()),
        Call::QuotaSet(p) => quota_set(p),
        Call::QuotaDelete(p) => (Operation::QuotaDelete { tenant: p.tenant.clone() }, p.mutation()),
        Call::ReservationCreate(p) => reservation_create(p),
        Call::ReservationDelete(p) => (Operation::ReservationDelete { name: p.name.clone() }, p.mutation()),
        Call::DefragPlan(p) => defrag(p),
        Call::SecretSet(p) => (sealed(ops, &p)?, p.mutation()),
        Call::SecretDelete(p) => (Operation::SecretDelete { handle: p.handle.clone() }, p.mutation()),
        Call::ApiKeyCreate(p) => key_create(p),
        Call::ApiKeyRevoke(p) => (Operation::ApiKeyRevoke { key_id: p.key_id }, p.mutation()),
        Call::PlanApply(_)
        | Call::ApprovalDecide(_)
        | Call::ClusterStatus(_)
        | Call::NodeList(_)
        | Call::NodeGet(_)
        | Call::GpuList(_)
        | Call::WorkloadList(_)
        | Call::WorkloadGet(_)
        | Call::WorkloadLogs(_)
        | Call::Diagnose(_)
        | Call::WorkloadCopy(_)
        | Call::WorkloadWait(_)
        | Call::WorkloadExplain(_)
        | Call::QueueList(_)
        | Call::CapacityFind(_)
        | Call::FragmentationReport(_)
        | Call::ScheduleSimulate(_)
        | Call::IntentParse(_)
        | Call::EventsList(_)
        | Call::OperationGet(_)
        | Call::OperationList(_)
        | Call::OperationWait(_)
        | Call::PlanGet(_)
        | Call::ApprovalList(_)
        | Call::QuotaGet(_)
        | Call::ReservationList(_)
        | Call::SecretList(_)
        | Call::ApiKeyList(_) => {
            return Err(Refusal::new(ErrorCode::InvalidState, "this is not a mutation").into());
        }
    })
}

/// Gate that is closed where none is named.
const HOLD: &str = "hold";

fn hold(p: WorkloadHoldParams) -> (Operation, Mutation) {
    let (mutation, gate) = (p.mutation(), p.gate.unwrap_or_else(|| HOLD.to_owned()));
    (Operation::WorkloadHold { workload: p.workload, gate }, mutation)
}

fn release(p: WorkloadReleaseParams) -> (Operation, Mutation) {
    let mutation = p.mutation();
    (Operation::WorkloadRelease { workload: p.workload, gates: p.gates }, mutation)
}

fn quota_set(p: QuotaSetParams) -> (Operation, Mutation) {
    let mutation = p.mutation();
    let QuotaSetParams { tenant, parent, guaranteed, most, lends, weight, members, .. } = p;
    (Operation::QuotaSet { tenant, parent, guaranteed, most, lends, weight, members }, mutation)
}

fn token_create(p: NodeTokenCreateParams) -> (Operation, Mutation) {
    let (mutation, ttl_s) = (p.mutation(), p.ttl_s.unwrap_or(TOKEN_TTL_S));
    (Operation::NodeTokenCreate { name: p.name, labels: p.labels, ttl_s }, mutation)
}

fn defrag(p: DefragPlanParams) -> (Operation, Mutation) {
    let mutation = p.mutation();
    let DefragPlanParams { model, horizon_s, moves_max, .. } = p;
    (Operation::Defrag { model, horizon_s, moves_max, moves: None }, mutation)
}

fn reservation_create(p: ReservationCreateParams) -> (Operation, Mutation) {
    let mutation = p.mutation();
    let ReservationCreateParams { name, tenant, nodes, node_names, gpus, model, starts_at, duration_s, .. } = p;
    let operation =
        Operation::ReservationCreate { name, tenant, nodes, node_names, gpus, model, starts_at, duration_s };
    (operation, mutation)
}

fn key_create(p: ApiKeyCreateParams) -> (Operation, Mutation) {
    let (mutation, kind) = (p.mutation(), p.kind.unwrap_or(PrincipalKind::Agent));
    (Operation::ApiKeyCreate { principal: p.principal, role: p.role, kind, ttl_s: p.ttl_s }, mutation)
}

fn config_set(p: &NodeConfigSetParams) -> Operation {
    Operation::NodeConfigSet {
        node: p.node.clone(),
        metrics_interval_ms: p.metrics_interval_ms,
        log_buffer_bytes: p.log_buffer_bytes,
    }
}

/// The value as it is kept: nothing after this sees it in the clear.
fn sealed(ops: &OpsContext, p: &SecretSetParams) -> Result<Operation, OpError> {
    let refused = |message: String| Refusal::new(ErrorCode::InvalidArgument, message).with_field("value", "");
    let value = match p.encoding.unwrap_or(SecretEncoding::Text) {
        SecretEncoding::Text => Zeroizing::new(p.value.expose().as_bytes().to_vec()),
        SecretEncoding::Base64 => {
            let decoded = STANDARD.decode(p.value.expose());
            Zeroizing::new(decoded.map_err(|_| refused("the value is not base64, as encoding says".into()))?)
        }
    };
    if value.is_empty() || value.len() > SECRET_BYTES_MAX {
        return Err(refused(format!("the value has {} bytes, allowed are 1 to {SECRET_BYTES_MAX}", value.len())).into());
    }
    let fault = |error: SealError| OpError::Fault(ops.control.fault("the value could not be sealed", &error));
    let sealed = Some(ops.secrets.seal(&p.handle, &value).map_err(fault)?);
    Ok(Operation::SecretSet { handle: p.handle.clone(), used_by: p.used_by.clone(), sealed, blob: None })
}

fn run(ops: &OpsContext, caller: &Caller, p: WorkloadRunParams) -> Result<Operation, Refusal> {
    let one_of = |got: &str| {
        Refusal::new(ErrorCode::InvalidArgument, "give exactly one of request and spec")
            .with_field("request", got)
            .with_allowed(["request: what to run in words".to_owned(), "spec: what to run exactly".to_owned()])
    };
    let (spec, assumptions) = match (p.request, p.spec) {
        // Words that were answered before are not read again: today's fleet could make
        // something else of them. The core answers from the receipt, or names the conflict.
        (Some(_), None) if has_receipt(ops, caller, p.request_id) => (WorkloadSpec::default(), Vec::new()),
        (Some(text), None) => words::to_spec(ops, &text)?,
        (None, Some(spec)) => (spec, Vec::new()),
        (Some(_), Some(_)) => return Err(one_of("both")),
        (None, None) => return Err(one_of("neither")),
    };
    Ok(Operation::WorkloadRun { spec: Box::new(spec), env_handle: None, assumptions })
}

fn has_receipt(ops: &OpsContext, caller: &Caller, request_id: Option<String>) -> bool {
    let Some(request_id) = request_id else { return false };
    let key = ReceiptKey { principal: caller.principal.clone(), tool: "workload_run".into(), request_id };
    ops.control.snapshot().receipts.contains_key(&key)
}
