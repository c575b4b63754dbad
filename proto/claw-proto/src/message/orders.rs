//! How an attempt ends: what it says of its checkpoint, and the order to stop.

use serde::{Deserialize, Serialize};

use super::StatusCause;
use crate::ids::{Attempt, WorkloadId};

/// A program's word that a checkpoint is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointWritten {
    /// What the program calls it, one line of [`crate::limits::CHECKPOINT_LABEL_CHARS_MAX`] characters at most.
    pub label: String,
    /// It was written after the node passed on a notice of the gateway.
    pub answers_notice: bool,
    /// How long it was written, milliseconds, if the program said: what it did meanwhile is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u32>,
}

/// An attempt that shall end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// Workload.
    pub workload_id: WorkloadId,
    /// Attempt.
    pub attempt: Attempt,
    /// Between TERM and KILL, seconds; 0 kills at once.
    pub grace_s: u32,
    /// Why, for the status record.
    pub cause: StatusCause,
}
