//! What the shell does after the events are durable. Every effect but one can be
//! derived again from the state: a node that reconnects gets its full desired
//! set, so an effect that a crash swallowed is made up for. A command inside a
//! workload is never repeated: one that a crash swallowed has failed.

use claw_proto::ids::{Attempt, Generation, NodeId, OperationId, WorkloadId};
use claw_proto::message::{NodeSettings, StopOrder};

/// One effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send the full desired set (after registration).
    SendDesiredSet {
        /// To whom.
        node_id: NodeId,
        /// Attempts that it reported and must not go on, beyond those in the state.
        also_stop: Vec<StopOrder>,
    },
    /// Tell a node to start a workload (looked up in the durable state).
    StartWorkload {
        /// To whom.
        node_id: NodeId,
        /// Which.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// Generation after this change.
        generation: Generation,
    },
    /// Tell a node to stop a workload.
    StopWorkload {
        /// To whom.
        node_id: NodeId,
        /// Which.
        order: StopOrder,
        /// Generation after this change.
        generation: Generation,
    },
    /// Tell a node that a program shall write a checkpoint. One that is lost costs the rest of
    /// the grace: the stop comes all the same.
    NoticeCheckpoint {
        /// To whom.
        node_id: NodeId,
        /// Which.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
    },
    /// Have a node run a command inside a workload; looked up in the durable state.
    Exec {
        /// To whom.
        node_id: NodeId,
        /// The operation that asked for it.
        operation_id: OperationId,
    },
    /// Give a node new settings.
    SendSettings {
        /// To whom.
        node_id: NodeId,
        /// Settings.
        settings: NodeSettings,
    },
    /// Cut a node's connection.
    CloseLink {
        /// Whose.
        node_id: NodeId,
        /// Why.
        why: &'static str,
    },
    /// The environment values of a workload are not needed any more.
    EraseBlob {
        /// Handle.
        handle: String,
    },
}
