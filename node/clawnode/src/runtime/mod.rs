//! What executes workloads: a runtime takes starts, stops and lease renewals
//! without waiting and tells what happens through a channel.

pub mod execution_log;
pub mod docker;
pub mod folder;
mod line_log;
pub mod process;
pub mod sim;

use std::sync::Arc;

use claw_proto::ids::{Attempt, GpuUuid, WorkloadId};
use claw_proto::message::{DesiredWorkload, StatusCause};
use claw_proto::spec::RuntimeKind;

use crate::node::{FoundWorkload, Lease};

/// Which attempt.
pub type Key = (WorkloadId, Attempt);

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

    /// Moves the lease of an attempt forward.
    fn renew_lease(&mut self, key: Key, lease: Lease);

    /// A GPU of the node failed. Real programs notice by themselves.
    fn gpu_failed(&mut self, gpu: &GpuUuid);

    /// Removes what is left of an attempt that is over.
    fn remove(&mut self, key: Key);

    /// Log bytes that a new attempt may hold.
    fn set_log_bytes_max(&mut self, bytes_max: u64);
}
