//! The one dispatcher of every operation: size, schema, permission, then the
//! core or a read. Every face calls this and nothing else.

mod context;
mod logs;
mod reads;
mod secrets;
mod words;
mod writes;

use std::fmt::Write as _;

use claw_gateway::{Caller, access};
use claw_proto::limits::ARGUMENT_BYTES_MAX;
use claw_security::Fingerprint;
use claw_tools::refusal::{ErrorCode, Fault, Refusal};
use claw_tools::registry::{self, Call};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::control::{ControlPlane, SubmitError};

/// What operations need besides the control plane.
#[derive(Debug, Clone)]
pub struct OpsContext {
    /// The control plane.
    pub control: ControlPlane,
    /// Pinned in enrollment tokens.
    pub ca_fingerprint: Fingerprint,
}

/// An answer and whether it was given before.
#[derive(Debug)]
pub struct OpReply {
    /// The structured output.
    pub output: Value,
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
    // Permission before arguments: who may not do it learns nothing about how.
    access::authorize(def, &caller)?;
    let size = args.to_string().len();
    if size > ARGUMENT_BYTES_MAX {
        let refusal = Refusal::new(
            ErrorCode::TooLarge,
            format!("the arguments have {size} bytes, allowed are {ARGUMENT_BYTES_MAX}"),
        );
        return Err(refusal.with_field("arguments", format!("{size} bytes")).into());
    }
    let args_hash = args_hash(&args);
    let call = Call::parse(tool, args)?;
    perform(ops, caller, call, &args_hash).await
}

async fn perform(ops: &OpsContext, caller: Caller, call: Call, args_hash: &str) -> Result<OpReply, OpError> {
    let reads = reads::Reads::new(ops);
    match call {
        Call::ClusterStatus(_) => Ok(reply(&reads.status())),
        Call::NodeList(p) => Ok(reply(&reads.node_list(&p)?)),
        Call::NodeGet(p) => Ok(reply(&reads.node_get(&p)?)),
        Call::GpuList(p) => Ok(reply(&reads.gpu_list(&p)?)),
        Call::WorkloadList(p) => Ok(reply(&reads.workload_list(&p)?)),
        Call::WorkloadGet(p) => Ok(reply(&reads.workload_get(&p)?)),
        Call::WorkloadExplain(p) => Ok(reply(&reads.workload_explain(&p)?)),
        Call::WorkloadWait(p) => Ok(reply(&reads.workload_wait(&p).await?)),
        Call::WorkloadLogs(p) => Ok(reply(&logs::read(ops, &p).await?)),
        Call::EventsList(p) => Ok(reply(&reads.events(&p).await?)),
        Call::OperationGet(p) => Ok(reply(&reads.operation(p.operation_id)?)),
        Call::OperationList(p) => Ok(reply(&reads.operation_list(&p)?)),
        Call::OperationWait(p) => Ok(reply(&reads.operation_wait(&p).await?)),
        Call::PlanGet(p) => Ok(reply(&reads.plan(p.plan_id, &caller)?)),
        Call::ApprovalList(p) => Ok(reply(&reads.approvals(&p))),
        Call::ApiKeyList(p) => Ok(reply(&reads.keys(&p))),
        call @ (Call::WorkloadRun(_)
        | Call::WorkloadStop(_)
        | Call::NodeDrain(_)
        | Call::NodeUndrain(_)
        | Call::NodeCordon(_)
        | Call::NodeUncordon(_)
        | Call::NodeLabel(_)
        | Call::NodeRemove(_)
        | Call::NodeTokenCreate(_)
        | Call::NodeConfigSet(_)
        | Call::OperationCancel(_)
        | Call::PlanApply(_)
        | Call::ApprovalDecide(_)
        | Call::Undo(_)
        | Call::ApiKeyCreate(_)
        | Call::ApiKeyRevoke(_)) => writes::perform(ops, caller, call, args_hash).await,
    }
}

fn reply<T: Serialize>(output: &T) -> OpReply {
    let output = serde_json::to_value(output).expect("outputs are plain data with string keys");
    OpReply { output, replayed: false }
}

/// SHA-256 of the arguments that make the intention: not the key that names it,
/// not how long to wait, not why.
fn args_hash(args: &Value) -> String {
    let mut args = args.clone();
    if let Value::Object(map) = &mut args {
        for noise in ["request_id", "wait_s", "reason"] {
            map.remove(noise);
        }
    }
    let digest = Sha256::digest(args.to_string().as_bytes());
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string succeeds");
        hex
    })
}
