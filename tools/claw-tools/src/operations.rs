//! Operations on operations: what became of a mutation, waiting, canceling, undoing.

use claw_proto::closed_enum;
use claw_proto::ids::{NodeId, OperationId, WorkloadId};
use claw_proto::time::Timestamp;

use crate::def::UndoClass;
use crate::inside::ExecView;
use crate::outcome::Observed;
use crate::refusal::SuggestedCall;

closed_enum! {
    /// Progress of an operation.
    OperationState {
        /// Decided; its result is not observed yet.
        Pending = "pending",
        /// Its result was observed.
        Succeeded = "succeeded",
        /// It did not come to its result.
        Failed = "failed",
        /// Canceled before its result.
        Canceled = "canceled"
    }
}

/// Which operation.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationGetParams {
    /// Id.
    pub operation_id: OperationId,
}

/// Wait for an operation.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationWaitParams {
    /// Id.
    pub operation_id: OperationId,
    /// At most so long, seconds; 30 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 300))]
    pub wait_s: Option<u32>,
}

read_params! {
    /// Which operations.
    OperationListParams {
        /// Only in this state.
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<OperationState>,
        /// Only of this principal.
        #[serde(skip_serializing_if = "Option::is_none")]
        principal: Option<String>,
        /// Rows, 20 by default, newest first.
        #[schemars(range(min = 1, max = 100))]
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
        /// `next_cursor` of the page before.
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
}

mutation_params! {
    /// Cancel an operation whose result is not there yet.
    OperationCancelParams {
        /// Id.
        operation_id: OperationId,
    }
}
mutation_params! {
    /// Undo an operation.
    UndoParams {
        /// Id of the operation to undo.
        operation_id: OperationId,
    }
}

output! {
    /// One operation.
    OperationView {
        /// Id.
        operation_id: OperationId,
        /// Which verb.
        tool: String,
        /// Progress.
        state: OperationState,
        /// One sentence.
        summary: String,
        /// Who.
        principal: String,
        /// Why, in their words (untrusted text).
        reason: String,
        /// When it was decided.
        at: Timestamp,
        /// What was last observed of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        observed: Option<Observed>,
        /// Workload concerned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workload_id: Option<WorkloadId>,
        /// Node concerned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node_id: Option<NodeId>,
        /// The command that it runs, and how that ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<ExecView>,
        /// How it can be undone.
        undo: UndoClass,
        /// The operation that undid it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        undone_by: Option<OperationId>,
        /// Nothing real was run.
        simulated: bool,
        /// What to call next.
        next: Vec<SuggestedCall>,
    }
}
output! {
    /// A page of operations, newest first.
    OperationList {
        /// Rows.
        operations: Vec<OperationView>,
        /// How many match in all.
        total: u32,
        /// There are more.
        truncated: bool,
        /// For the next page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
}
output! {
    /// What a wait ended with.
    OperationWait {
        /// The result is there (otherwise the time ran out).
        reached: bool,
        /// The operation.
        operation: OperationView,
    }
}
