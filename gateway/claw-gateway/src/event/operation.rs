//! Operations and plans as events carry them: what was accepted, how it is undone,
//! when its result is there.

use std::collections::BTreeMap;

use claw_proto::ids::{Attempt, KeyId, NodeId, OperationId, TokenId, WorkloadId};
use claw_proto::message::NodeSettings;
use claw_tools::access::PrincipalKind;
use claw_tools::def::UndoClass;
use claw_tools::nodes::Schedulable;
use claw_tools::outcome::PlanView;
use claw_tools::quotas::Quota;
use claw_tools::reservations::Reservation;
use serde::{Deserialize, Serialize};

use crate::command::Operation;

/// Identifies a receipt: same principal, same operation, same key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReceiptKey {
    /// Who.
    pub principal: String,
    /// Which operation.
    pub tool: String,
    /// Which intention.
    pub request_id: String,
}

/// How an operation is undone, fixed when it was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "inverse", rename_all = "snake_case")]
pub enum Inverse {
    /// It is not.
    Impossible {
        /// Why.
        why: String,
    },
    /// Stop the workload that it started.
    StopWorkload {
        /// Which.
        workload_id: WorkloadId,
    },
    /// Put the gates of a workload back.
    SetGates {
        /// Which.
        workload_id: WorkloadId,
        /// Closed gates that the operation left.
        expect: Vec<String>,
        /// What was closed before.
        restore: Vec<String>,
    },
    /// Put the node's schedulability back.
    SetSchedulable {
        /// Which node.
        node_id: NodeId,
        /// What it was before.
        to: Schedulable,
    },
    /// Put labels back.
    SetLabels {
        /// Which node.
        node_id: NodeId,
        /// What the operation left (absent = removed).
        expect: BTreeMap<String, Option<String>>,
        /// What was before (absent = was not there).
        restore: BTreeMap<String, Option<String>>,
    },
    /// Put settings back.
    SetSettings {
        /// Which node.
        node_id: NodeId,
        /// What the operation left.
        expect: NodeSettings,
        /// What was before.
        restore: NodeSettings,
    },
    /// Put a tenant's quota back.
    SetQuota {
        /// Which tenant.
        tenant: String,
        /// What the operation left; nothing if it took the tenant away.
        expect: Option<Quota>,
        /// What was before; nothing if the operation made the tenant.
        restore: Option<Quota>,
    },
    /// Put a reservation back.
    SetReservation {
        /// Name.
        name: String,
        /// What the operation left; nothing if it ended it.
        expect: Option<Reservation>,
        /// What was before; nothing if the operation made it.
        restore: Option<Reservation>,
    },
    /// Revoke the key that it made.
    RevokeKey {
        /// Which.
        key_id: KeyId,
    },
    /// Revoke the token that it made.
    RevokeToken {
        /// Which.
        token_id: TokenId,
    },
}

/// When the result of an operation is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "goal", rename_all = "snake_case")]
pub enum Goal {
    /// At once.
    Immediate,
    /// The workload runs (or has run).
    WorkloadRuns {
        /// Which.
        workload_id: WorkloadId,
    },
    /// The workload has ended.
    WorkloadEnds {
        /// Which.
        workload_id: WorkloadId,
    },
    /// A command inside a workload has ended.
    ExecEnds {
        /// Where.
        workload_id: WorkloadId,
    },
    /// Workloads run again, elsewhere.
    WorkloadsMove {
        /// Which, and where they were.
        moves: Vec<Moved>,
    },
    /// The node has no work left.
    NodeEmpty {
        /// Which.
        node_id: NodeId,
    },
}

/// A workload that was told to move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Which.
    pub workload_id: WorkloadId,
    /// What ran then.
    pub attempt: Attempt,
    /// Where.
    pub node_id: NodeId,
}

impl Goal {
    /// Workloads whose changes may bring the result.
    pub fn workloads(&self) -> Vec<WorkloadId> {
        match self {
            Self::WorkloadRuns { workload_id } | Self::WorkloadEnds { workload_id } => vec![*workload_id],
            Self::WorkloadsMove { moves } => moves.iter().map(|moved| moved.workload_id).collect(),
            // A command's end is told by itself.
            Self::Immediate | Self::ExecEnds { .. } | Self::NodeEmpty { .. } => Vec::new(),
        }
    }

    /// The node whose changes may bring the result.
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::NodeEmpty { node_id } => Some(*node_id),
            Self::Immediate
            | Self::ExecEnds { .. }
            | Self::WorkloadRuns { .. }
            | Self::WorkloadEnds { .. }
            | Self::WorkloadsMove { .. } => None,
        }
    }
}

/// An accepted operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Id.
    pub operation_id: OperationId,
    /// Which verb.
    pub tool: String,
    /// Hash of its arguments.
    pub args_hash: String,
    /// One sentence.
    pub summary: String,
    /// Workload concerned.
    pub workload_id: Option<WorkloadId>,
    /// Node concerned.
    pub node_id: Option<NodeId>,
    /// Its inverse.
    pub inverse: Inverse,
    /// How well that restores.
    pub undo: UndoClass,
    /// Nothing real was run.
    pub simulated: bool,
    /// When its result is there.
    pub goal: Goal,
    /// The operation that it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<OperationId>,
}

/// A stored plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// What was shown.
    pub view: PlanView,
    /// What would be done.
    pub operation: Operation,
    /// Ids that were used to show it and will be used to do it.
    pub ids: Vec<String>,
    /// Who made it.
    pub principal: String,
    /// Who stands behind that principal.
    pub kind: PrincipalKind,
    /// Hash of the arguments.
    pub args_hash: String,
    /// Hash of the credential's secret, where it makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hash: Option<String>,
}
