//! What executes workloads: a runtime takes starts, stops and lease renewals
//! without waiting and tells what happens through a channel.

pub(crate) mod checkpoints;
pub(crate) mod dmem;
pub mod docker;
pub mod execution_log;
pub mod folder;
mod line_log;
pub mod network;
mod ports;
pub mod process;
pub mod ranks;
#[cfg(test)]
pub(crate) mod samples;
pub mod sim;

use std::sync::Arc;

use claw_proto::ids::{Attempt, GpuUuid, WorkloadId};
use claw_proto::message::{DesiredWorkload, StatusCause, TaskErrorCode, TaskId, WorkloadMetrics};
use claw_proto::spec::RuntimeKind;
use claw_proto::topology::{EngineInfo, NodeCapabilities, NodeFinding};

pub use crate::node::{ExecOrder, ExecResult, ReadOrder, TaskFault};
use crate::node::{FoundWorkload, Lease};

/// Which attempt.
pub type Key = (WorkloadId, Attempt);

/// Whether a runtime works at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// It takes new work.
    pub works: bool,
    /// The engine behind it, if it has one and it answers.
    pub engine: Option<EngineInfo>,
    /// What is wrong with it.
    pub findings: Vec<NodeFinding>,
}

impl Availability {
    /// It works, and nothing is to be said about it.
    pub const ALWAYS: Self = Self { works: true, engine: None, findings: Vec::new() };
}

/// One way to execute workloads.
pub trait Runtime: Send {
    /// Which one it is.
    fn kind(&self) -> RuntimeKind;

    /// Takes over what is there from before, and tells about every attempt in
    /// `known` (those of this runtime that the node had when it went down) and
    /// about any other that it finds.
    fn recover(&mut self, known: &[Arc<DesiredWorkload>]) -> Vec<FoundWorkload>;

    /// Starts an attempt. What became of it comes through the channel.
    fn start(&mut self, workload: Arc<DesiredWorkload>, lease: Option<Lease>);

    /// Ends an attempt: TERM, then KILL after the grace. A repetition may only end it earlier.
    fn stop(&mut self, key: Key, grace_ms: u64, cause: StatusCause);

    /// Tells a program to write a checkpoint, where the runtime is what runs it. Others are told by
    /// the files of [`checkpoints`].
    fn notice_checkpoint(&mut self, _key: Key) {}

    /// Moves the lease of an attempt forward.
    fn renew_lease(&mut self, key: Key, lease: Lease);

    /// A GPU of the node failed. Real programs notice by themselves.
    fn gpu_failed(&mut self, gpu: &GpuUuid);

    /// Removes what is left of an attempt that is over.
    fn remove(&mut self, key: Key);

    /// Log bytes that a new attempt may hold.
    fn set_log_bytes_max(&mut self, bytes_max: u64);

    /// An attempt that the runtime found by itself belongs to the node from now on.
    fn adopted(&mut self, _workload: &Arc<DesiredWorkload>) {}

    /// What the node has now, for what is started from now on.
    fn set_capabilities(&mut self, _capabilities: &NodeCapabilities) {}

    /// Whether it works at present; asked often, answered from memory.
    fn availability(&mut self) -> Availability {
        Availability::ALWAYS
    }

    /// What its attempts use; answered from memory.
    fn measure(&mut self) -> Vec<WorkloadMetrics> {
        Vec::new()
    }

    /// Runs a command in an attempt; answered through the channel.
    ///
    /// # Errors
    /// The answer, if it is known at once.
    fn exec(&mut self, _key: Key, _task: TaskId, _order: ExecOrder) -> Result<(), TaskFault> {
        Err(unsupported(self.kind(), "run a command in a workload"))
    }

    /// Reads declared outputs of an attempt; answered through the channel.
    ///
    /// # Errors
    /// The answer, if it is known at once.
    fn read_output(&mut self, _key: Key, _task: TaskId, _order: ReadOrder) -> Result<(), TaskFault> {
        Err(unsupported(self.kind(), "read a workload's outputs"))
    }

    /// Nobody waits for a task any more.
    fn cancel_task(&mut self, _task: TaskId) {}
}

fn unsupported(kind: RuntimeKind, what: &str) -> TaskFault {
    TaskFault::new(TaskErrorCode::Unsupported, format!("the runtime {kind} of this node cannot {what}"))
}
