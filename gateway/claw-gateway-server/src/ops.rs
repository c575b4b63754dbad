//! The one dispatcher of every operation: size, schema, permission, then the
//! core or a read. Every face calls this and nothing else.

mod cap;
mod context;
mod diagnose;
pub(crate) mod events;
mod inside;
pub(crate) mod logs;
mod output;
mod reads;
mod secrets;
mod status;
mod tally;
mod words;
mod writes;

use std::sync::Arc;

use claw_gateway::{Caller, access, query};
use claw_proto::limits::ARGUMENT_BYTES_MAX;
use claw_security::pki::Authorities;
use claw_security::secrets::SecretStore;
use claw_security::to_hex;
use claw_tools::def::OpDef;
use claw_tools::outcome::Mode;
use claw_tools::refusal::{ErrorCode, Fault, Refusal};
use claw_tools::registry::{self, Call};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::control::{ControlPlane, SubmitError};
use crate::node_link::NodeLinks;

pub(crate) use inside::ExecOutput;
pub use output::Output;
pub use status::LastStatus;
pub(crate) use tally::BUCKETS_MS;
pub use tally::{Histogram, Tally};

/// What operations need besides the control plane.
#[derive(Debug, Clone)]
pub struct OpsContext {
    /// The control plane.
    pub control: ControlPlane,
    /// The authority in use is pinned in enrollment tokens.
    pub authorities: Arc<Authorities>,
    /// The connections of nodes, for what is asked of them directly.
    pub(crate) links: Arc<NodeLinks>,
    /// Seals the values of secrets.
    pub(crate) secrets: Arc<SecretStore>,
    /// What was called, how it ended, how long the core took.
    pub tally: Arc<Tally>,
    /// The last status that was asked for.
    pub status: Arc<LastStatus>,
}

impl OpsContext {
    /// A context that has counted nothing yet.
    pub(crate) fn new(
        control: ControlPlane,
        authorities: Arc<Authorities>,
        links: Arc<NodeLinks>,
        secrets: Arc<SecretStore>,
    ) -> Self {
        Self { control, authorities, links, secrets, tally: Arc::default(), status: Arc::default() }
    }
}

/// An answer and whether it was given before.
#[derive(Debug)]
pub struct OpReply {
    /// What it says.
    pub output: Output,
    /// It was given before; nothing new happened.
    pub replayed: bool,
}

/// Why there is no output.
#[derive(Debug)]
pub enum OpError {
    /// Expected, for the caller.
    Refused(Box<Refusal>),
    /// Ours or the world's.
    Fault(Fault),
}

impl From<Refusal> for OpError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<SubmitError> for OpError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(refusal) => Self::Refused(refusal),
            SubmitError::Fault(fault) => Self::Fault(fault),
        }
    }
}

/// Performs one call of one operation for a caller.
pub async fn dispatch(ops: &OpsContext, caller: Caller, tool: &str, args: Value) -> Result<OpReply, OpError> {
    let def = registry::find(tool).ok_or_else(|| registry::unknown_tool(tool))?;
    let answer = checked(ops, caller, def, args).await;
    ops.tally.count(def.name, ending(&answer));
    answer
}

async fn checked(ops: &OpsContext, caller: Caller, def: &OpDef, args: Value) -> Result<OpReply, OpError> {
    // Permission before arguments: who may not do it learns nothing about how.
    access::authorize(def, &caller)?;
    let size = output::size_of(&args);
    if size > ARGUMENT_BYTES_MAX {
        let refusal = Refusal::new(
            ErrorCode::TooLarge,
            format!("the arguments have {size} bytes, allowed are {ARGUMENT_BYTES_MAX}"),
        );
        return Err(refusal.with_field("arguments", format!("{size} bytes")).into());
    }
    let call = Call::parse(def.name, args)?;
    perform(ops, caller, call).await
}

/// How a call ended, in one word.
fn ending(answer: &Result<OpReply, OpError>) -> &'static str {
    match answer {
        Ok(reply) if reply.replayed => "replayed",
        Ok(_) => "ok",
        Err(OpError::Refused(refusal)) => refusal.code.as_str(),
        Err(OpError::Fault(_)) => "fault",
    }
}

async fn perform(ops: &OpsContext, caller: Caller, call: Call) -> Result<OpReply, OpError> {
    let reads = reads::Reads::new(ops);
    let answer = match call {
        Call::ClusterStatus(_) => reply(&reads.status()),
        Call::NodeList(p) => reads.node_list(p)?,
        Call::NodeGet(p) => reply(&reads.node_get(&p)?),
        Call::GpuList(p) => reads.gpu_list(p)?,
        Call::WorkloadList(p) => reads.workload_list(p)?,
        Call::WorkloadGet(p) => reply(&reads.workload_get(&p)?),
        Call::WorkloadExplain(p) => reply(&reads.workload_explain(&p)?),
        Call::QueueList(p) => reads.queue_list(p)?,
        Call::CapacityFind(p) => reply(&reads.capacity_find(&p, &caller)?),
        Call::FragmentationReport(p) => reply(&query::fragmentation(&ops.control.snapshot(), &p)?),
        Call::ScheduleSimulate(p) => reply(&reads.simulate(&p, &caller)?),
        Call::WorkloadWait(p) => reply(&reads.workload_wait(&p).await?),
        // Cuts its lines itself: the newest are the ones wanted.
        Call::WorkloadLogs(p) => return Ok(reply(&logs::read(ops, &p).await?)),
        // So does this: pieces have the size that was asked for.
        Call::WorkloadCopy(p) => return Ok(reply(&inside::copy(ops, &p).await?)),
        // So does this: it holds ten verdicts of bounded length.
        Call::Diagnose(p) => return Ok(reply(&diagnose::targets(ops, &p).await?)),
        Call::IntentParse(p) => reply(&words::understand(ops, &p.text)),
        Call::EventsList(p) => reply(&events::list(ops, &p).await?),
        Call::OperationGet(p) => reply(&reads.operation(p.operation_id).await?),
        Call::OperationList(p) => reads.operation_list(p)?,
        Call::OperationWait(p) => reply(&reads.operation_wait(&p).await?),
        Call::PlanGet(p) => reply(&reads.plan(p.plan_id, &caller)?),
        Call::ApprovalList(p) => reads.approvals(p)?,
        Call::QuotaGet(p) => reply(&query::quota_list(&ops.control.snapshot(), &p, ops.control.now())?),
        Call::ReservationList(p) => reply(&query::reservation_list(&ops.control.snapshot(), &p, ops.control.now())?),
        Call::SecretList(p) => reply(&query::secret_list(&ops.control.snapshot(), &p)),
        Call::ApiKeyList(p) => reply(&reads.keys(&p)),
        call @ (Call::WorkloadRun(_)
        | Call::WorkloadStop(_)
        | Call::WorkloadHold(_)
        | Call::WorkloadRelease(_)
        | Call::WorkloadExec(_)
        | Call::NodeDrain(_)
        | Call::NodeUndrain(_)
        | Call::NodeCordon(_)
        | Call::NodeUncordon(_)
        | Call::NodeLabel(_)
        | Call::NodeRemove(_)
        | Call::NodeRevoke(_)
        | Call::CaRotate(_)
        | Call::NodeTokenCreate(_)
        | Call::NodeConfigSet(_)
        | Call::OperationCancel(_)
        | Call::PlanApply(_)
        | Call::ApprovalDecide(_)
        | Call::Undo(_)
        | Call::QuotaSet(_)
        | Call::QuotaDelete(_)
        | Call::ReservationCreate(_)
        | Call::DefragPlan(_)
        | Call::ReservationDelete(_)
        | Call::SecretSet(_)
        | Call::SecretDelete(_)
        | Call::ApiKeyCreate(_)
        | Call::ApiKeyRevoke(_)) => {
            let args_hash = args_hash(&call);
            writes::perform(ops, caller, call, &args_hash).await?
        }
    };
    Ok(OpReply { output: cap::fit(answer.output, cap::ANSWER_BYTES_MAX), ..answer })
}

fn reply<T: Serialize>(output: &T) -> OpReply {
    OpReply { output: Output::of(output), replayed: false }
}

/// SHA-256 of the arguments that make the intention, in canonical form: not the key
/// that names it, not how long to wait, not why; and what is the default anyway is
/// the same whether it is said or not.
fn args_hash(call: &Call) -> String {
    let mut args = call.args();
    if let Value::Object(map) = &mut args {
        for noise in ["request_id", "wait_s", "reason"] {
            map.remove(noise);
        }
        if map.get("mode").is_some_and(|mode| mode == Mode::Apply.as_str()) {
            map.remove("mode");
        }
    }
    to_hex(&Sha256::digest(args.to_string().as_bytes()))
}
