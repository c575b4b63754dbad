//! The state of the fleet, and the only way it changes.
//!
//! All maps share structure: a clone costs a few pointers, so that a plan, a
//! fork or a reader has a whole fleet of its own. `apply` is total: it accepts
//! what was journaled, whatever it is, and keeps the indexes.

mod apply;
mod resolve;
mod snapshot;

use std::sync::Arc;

use claw_proto::ids::{ApprovalId, Attempt, KeyId, NodeId, OperationId, PlanId, TokenId, WorkloadId};
use claw_proto::time::Timestamp;
use claw_tools::access::{PrincipalKind, Role, Tier};
use claw_tools::approvals::ApprovalState;
use claw_tools::operations::OperationState;
use claw_tools::secrets::AccessPolicy;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::event::{ExecEnd, KeptOutcome, OperationRecord, PlanRecord, ReceiptKey};
use crate::policy::Policy;
use crate::registry::NodeRegistry;
use crate::reservations::Reservations;
use crate::scheduler::{IndexHandle, Likely};
use crate::tenancy::Tenants;
use crate::workload::WorkloadManager;

pub use snapshot::{SNAPSHOT_FORMAT, SnapshotError};

/// An accepted operation and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationEntry {
    /// As accepted.
    pub record: Arc<OperationRecord>,
    /// Who.
    pub principal: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// Progress.
    pub state: OperationState,
    /// What was observed of its result.
    pub observed: String,
    /// When.
    pub observed_at: Option<Timestamp>,
    /// The operation that undid it.
    pub undone_by: Option<OperationId>,
}

/// A stored plan and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// As stored.
    pub record: PlanRecord,
    /// When.
    pub at: Timestamp,
    /// Applied by this operation.
    pub applied: bool,
}

/// An approval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalEntry {
    /// Id.
    pub approval_id: ApprovalId,
    /// Plan.
    pub plan_id: PlanId,
    /// Harm.
    pub tier: Tier,
    /// Who asked.
    pub requested_by: String,
    /// When.
    pub at: Timestamp,
    /// Where it stands (expiry is judged by the plan's time).
    pub state: ApprovalState,
    /// Who decided.
    pub decided_by: Option<String>,
}

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// Id.
    pub key_id: KeyId,
    /// Whom it speaks for.
    pub principal: String,
    /// Role.
    pub role: Role,
    /// Person or agent.
    pub kind: PrincipalKind,
    /// SHA-256 of the secret, hex.
    pub secret_hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Not valid after.
    pub expires_at: Option<Timestamp>,
    /// Revoked.
    pub revoked: bool,
}

/// Replacements of the certificate authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CaRotations {
    /// Number of the last one asked for.
    pub requested: u64,
    /// Number of the last one that is over.
    pub finished: u64,
}

/// An enrollment token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// Id.
    pub token_id: TokenId,
    /// SHA-256 of the secret, hex.
    pub secret_hash: String,
    /// Only name allowed.
    pub name: Option<String>,
    /// Labels that the node gets.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Not valid after.
    pub expires_at: Timestamp,
    /// The node that used it.
    pub used_by: Option<NodeId>,
    /// Revoked.
    pub revoked: bool,
}

/// An answer kept for retries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiptEntry {
    /// Hash of the arguments.
    pub args_hash: String,
    /// When.
    pub at: Timestamp,
    /// The answer.
    pub outcome: KeptOutcome,
}

/// A secret: who may use it and where its sealed value stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEntry {
    /// Handle.
    pub handle: String,
    /// Who may have it.
    pub access: AccessPolicy,
    /// How often its value was set.
    pub version: u32,
    /// Handle of the blob that holds the sealed value.
    pub blob: String,
    /// When its value was last set.
    pub set_at: Timestamp,
}

/// A command inside a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecEntry {
    /// The operation that asked for it.
    pub operation_id: OperationId,
    /// Where.
    pub workload_id: WorkloadId,
    /// In which attempt.
    pub attempt: Attempt,
    /// On which node.
    pub node_id: NodeId,
    /// Program and arguments.
    pub command: Vec<String>,
    /// It is killed after so long, seconds.
    pub timeout_s: u32,
    /// When it was asked for.
    pub at: Timestamp,
    /// How it ended.
    pub end: Option<ExecEnd>,
    /// Handle of what it wrote.
    pub output: Option<String>,
}

/// The whole state. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Number of the last event applied.
    pub seq: u64,
    /// Version of the desired state; plans and receipts do not raise it.
    pub revision: u64,
    /// Epoch of the gateway.
    pub epoch: u64,
    /// When this gateway started.
    pub started_at: Timestamp,
    /// Nodes.
    pub nodes: NodeRegistry,
    /// Workloads, queue, ledger.
    pub workloads: WorkloadManager,
    /// Operations, by id (which is by time).
    pub operations: OrdMap<OperationId, Arc<OperationEntry>>,
    /// Operations whose result is not there yet (index).
    pub open_by_workload: OrdSet<(WorkloadId, OperationId)>,
    /// The same, of nodes (index).
    pub open_by_node: OrdSet<(NodeId, OperationId)>,
    /// Commands inside workloads, as long as what they wrote is kept.
    pub execs: OrdMap<OperationId, Arc<ExecEntry>>,
    /// Plans.
    pub plans: OrdMap<PlanId, Arc<PlanEntry>>,
    /// Approvals.
    pub approvals: OrdMap<ApprovalId, Arc<ApprovalEntry>>,
    /// Tenants, with what they hold.
    pub tenants: Tenants,
    /// Nodes that are kept for tenants.
    pub reservations: Reservations,
    /// When the last command came, or the last event was made: what a reservation keeps out depends on it. Not journaled.
    pub clock: Timestamp,
    /// Secrets, by handle.
    pub secrets: OrdMap<String, Arc<SecretEntry>>,
    /// API keys.
    pub keys: OrdMap<KeyId, Arc<KeyEntry>>,
    /// Enrollment tokens.
    pub tokens: OrdMap<TokenId, Arc<TokenEntry>>,
    /// Receipts. The keys are shared: a change copies a leaf of the tree with all its keys.
    pub receipts: OrdMap<Arc<ReceiptKey>, Arc<ReceiptEntry>>,
    /// Receipts in order of time (index).
    pub receipts_by_time: OrdSet<(Timestamp, Arc<ReceiptKey>)>,
    /// What work is likely to come.
    pub likely: Arc<Likely>,
    /// What the scheduler knows of the nodes (index; shared with the copies).
    pub scheduler: IndexHandle,
    /// Nobody is declared lost while this stands: (silent, total).
    pub mass_loss: Option<(u32, u32)>,
    /// Replacements of the certificate authority.
    pub ca: CaRotations,
    /// Settings; not part of the journaled state.
    pub policy: Arc<Policy>,
}

impl Cluster {
    /// An empty fleet.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { policy, ..Self::default() }
    }

    /// A copy that knows the same and whose scheduler remembers on its own: for what is tried
    /// beside the fleet, so that the two do not take turns in one memory.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { scheduler: IndexHandle::default(), ..self.clone() }
    }
}
