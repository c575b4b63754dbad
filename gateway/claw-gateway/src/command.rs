//! What can be asked of the core.

use std::collections::{BTreeMap, BTreeSet};

use claw_proto::ids::{ApprovalId, KeyId, NodeId, OperationId, PlanId, TokenId, WorkloadId};
use claw_proto::message::{RunningReport, StatusRecord};
use claw_proto::spec::WorkloadSpec;
use claw_proto::time::Timestamp;
use claw_proto::topology::NodeCapabilities;
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::approvals::ApprovalDecision;
use claw_tools::outcome::{Assumption, Mutation};
use claw_tools::quotas::QuotaAmounts;
use serde::{Deserialize, Serialize};

use crate::event::ExecEnd;

/// Who asks, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Principal; `system` for the gateway itself, `node:<id>` for a node.
    pub principal: String,
    /// Who stands behind it: person or program.
    pub kind: PrincipalKind,
    /// What it may do.
    pub role: Role,
    /// Credential that it came with.
    pub key_id: Option<KeyId>,
    /// The instant of this command.
    pub now: Timestamp,
    /// Why, in the caller's words.
    pub reason: String,
}

impl Caller {
    /// The gateway itself, acting on time and nodes.
    pub fn system(now: Timestamp) -> Self {
        Self {
            principal: "system".into(),
            kind: PrincipalKind::Agent,
            role: Role::Admin,
            key_id: None,
            now,
            reason: String::new(),
        }
    }
    /// A node that reports.
    pub fn node(node_id: NodeId, now: Timestamp) -> Self {
        Self {
            principal: format!("node:{node_id}"),
            kind: PrincipalKind::Agent,
            role: Role::Viewer,
            key_id: None,
            now,
            reason: String::new(),
        }
    }
}

/// A mutating operation as it stands in plans and operations. Secrets are in
/// here only as hashes and handles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operation {
    /// `workload_run`.
    WorkloadRun {
        /// What to run. Environment values are moved to a blob before anything is stored.
        spec: Box<WorkloadSpec>,
        /// Handle of the erasable blob that holds the environment values.
        #[serde(default)]
        env_handle: Option<String>,
        /// What the intent engine assumed.
        assumptions: Vec<Assumption>,
    },
    /// `workload_stop`.
    WorkloadStop {
        /// Id, name or prefix.
        workload: String,
        /// Grace; its own by default.
        grace_s: Option<u32>,
    },
    /// `workload_hold`.
    WorkloadHold {
        /// Id, name or prefix.
        workload: String,
        /// Gate that is closed.
        gate: String,
    },
    /// `workload_release`.
    WorkloadRelease {
        /// Id, name or prefix.
        workload: String,
        /// Gates that are opened; all if none is named.
        gates: Vec<String>,
    },
    /// `workload_exec`.
    WorkloadExec {
        /// Id, name or prefix.
        workload: String,
        /// Program and arguments.
        command: Vec<String>,
        /// It is killed after so long, seconds.
        timeout_s: u32,
    },
    /// `node_drain`.
    NodeDrain {
        /// Id or name.
        node: String,
        /// Grace; each workload's own by default.
        grace_s: Option<u32>,
    },
    /// `node_undrain`.
    NodeUndrain {
        /// Id or name.
        node: String,
    },
    /// `node_cordon`.
    NodeCordon {
        /// Id or name.
        node: String,
    },
    /// `node_uncordon`.
    NodeUncordon {
        /// Id or name.
        node: String,
    },
    /// `node_label`.
    NodeLabel {
        /// Id or name.
        node: String,
        /// Labels to set.
        set: BTreeMap<String, String>,
        /// Labels to remove.
        remove: Vec<String>,
    },
    /// `node_remove`.
    NodeRemove {
        /// Id or name.
        node: String,
    },
    /// `node_revoke`.
    NodeRevoke {
        /// Id or name.
        node: String,
    },
    /// `ca_rotate`.
    CaRotate {},
    /// `node_config_set`.
    NodeConfigSet {
        /// Id or name.
        node: String,
        /// New metrics interval, milliseconds.
        metrics_interval_ms: Option<u64>,
        /// New log buffer, bytes.
        log_buffer_bytes: Option<u64>,
    },
    /// `node_token_create`.
    NodeTokenCreate {
        /// Only name allowed.
        name: Option<String>,
        /// Labels that the node gets.
        labels: BTreeMap<String, String>,
        /// Validity, seconds.
        ttl_s: u32,
    },
    /// `operation_cancel`.
    OperationCancel {
        /// Which.
        operation_id: OperationId,
    },
    /// `undo`.
    Undo {
        /// Which.
        operation_id: OperationId,
    },
    /// `quota_set`: what is absent stays.
    QuotaSet {
        /// Name.
        tenant: String,
        /// The tenant that a new one is a part of.
        parent: Option<String>,
        /// What it has before others.
        guaranteed: Option<QuotaAmounts>,
        /// What it can hold at most.
        most: Option<QuotaAmounts>,
        /// Others may use what it leaves.
        lends: Option<bool>,
        /// Its weight beside its siblings.
        weight: Option<u32>,
        /// Principals whose workloads count here.
        members: Option<BTreeSet<String>>,
    },
    /// `quota_delete`.
    QuotaDelete {
        /// Name.
        tenant: String,
    },
    /// `reservation_create`.
    ReservationCreate {
        /// Name.
        name: String,
        /// For whom.
        tenant: String,
        /// How many nodes.
        nodes: Option<u32>,
        /// Which nodes.
        node_names: Vec<String>,
        /// GPUs of each chosen node, at least.
        gpus: Option<u32>,
        /// Their model.
        model: Option<String>,
        /// From when on.
        starts_at: Option<Timestamp>,
        /// For how long, seconds.
        duration_s: u64,
    },
    /// `reservation_delete`.
    ReservationDelete {
        /// Name.
        name: String,
    },
    /// `defrag_plan`.
    Defrag {
        /// Only for GPUs of this model.
        model: Option<String>,
        /// How long what is gained is worth something, seconds.
        horizon_s: Option<u64>,
        /// Workloads that are moved at most.
        moves_max: Option<u32>,
        /// These, as planned; found anew if not said.
        moves: Option<Vec<WorkloadId>>,
    },
    /// `secret_set`.
    SecretSet {
        /// Handle.
        handle: String,
        /// Others whose workloads may use it.
        used_by: BTreeSet<String>,
        /// The sealed value, base64; moved to a blob before anything is stored.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sealed: Option<String>,
        /// Handle of the blob that holds the sealed value.
        #[serde(default)]
        blob: Option<String>,
    },
    /// `secret_delete`.
    SecretDelete {
        /// Handle.
        handle: String,
    },
    /// `api_key_create`.
    ApiKeyCreate {
        /// Whom it speaks for.
        principal: String,
        /// Role.
        role: Role,
        /// Person or agent.
        kind: PrincipalKind,
        /// Validity, seconds.
        ttl_s: Option<u32>,
    },
    /// `api_key_revoke`.
    ApiKeyRevoke {
        /// Which.
        key_id: KeyId,
    },
}

impl Operation {
    /// Name of the operation's definition.
    pub const fn tool(&self) -> &'static str {
        match self {
            Self::WorkloadRun { .. } => "workload_run",
            Self::WorkloadStop { .. } => "workload_stop",
            Self::WorkloadHold { .. } => "workload_hold",
            Self::WorkloadRelease { .. } => "workload_release",
            Self::WorkloadExec { .. } => "workload_exec",
            Self::NodeDrain { .. } => "node_drain",
            Self::NodeUndrain { .. } => "node_undrain",
            Self::NodeCordon { .. } => "node_cordon",
            Self::NodeUncordon { .. } => "node_uncordon",
            Self::NodeLabel { .. } => "node_label",
            Self::NodeRemove { .. } => "node_remove",
            Self::NodeRevoke { .. } => "node_revoke",
            Self::CaRotate {} => "ca_rotate",
            Self::NodeConfigSet { .. } => "node_config_set",
            Self::NodeTokenCreate { .. } => "node_token_create",
            Self::OperationCancel { .. } => "operation_cancel",
            Self::Undo { .. } => "undo",
            Self::QuotaSet { .. } => "quota_set",
            Self::QuotaDelete { .. } => "quota_delete",
            Self::ReservationCreate { .. } => "reservation_create",
            Self::ReservationDelete { .. } => "reservation_delete",
            Self::Defrag { .. } => "defrag_plan",
            Self::SecretSet { .. } => "secret_set",
            Self::SecretDelete { .. } => "secret_delete",
            Self::ApiKeyCreate { .. } => "api_key_create",
            Self::ApiKeyRevoke { .. } => "api_key_revoke",
        }
    }
}

/// One command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A mutating operation.
    Operate {
        /// Which.
        operation: Operation,
        /// Mode, idempotency key, reason, wait.
        mutation: Mutation,
        /// SHA-256 of the caller's canonical arguments (without `mode`-independent noise), hex.
        args_hash: String,
        /// Hash of a secret that the shell made for `api_key_create` or `node_token_create`, hex.
        secret_hash: Option<String>,
    },
    /// `plan_apply`.
    PlanApply {
        /// Which plan.
        plan_id: PlanId,
        /// Idempotency key, reason, wait.
        mutation: Mutation,
        /// As in `Operate`.
        args_hash: String,
        /// As in `Operate`, for plans that make a credential.
        secret_hash: Option<String>,
    },
    /// `approval_decide`.
    ApprovalDecide {
        /// Which approval.
        approval_id: ApprovalId,
        /// Yes or no.
        decision: ApprovalDecision,
        /// Beginning of the plan's hash, as typed.
        diff_hash: String,
        /// Idempotency key, reason.
        mutation: Mutation,
        /// As in `Operate`.
        args_hash: String,
    },
    /// Every node has a certificate of the new authority; the old one is gone.
    CaRotated {
        /// Number of the rotation.
        rotation: u64,
    },
    /// The gateway has started with this epoch.
    GatewayStarted {
        /// Risen durably.
        epoch: u64,
    },
    /// Makes the first admin's key known; only on a fleet without keys.
    Bootstrap {
        /// Id of the key.
        key_id: KeyId,
        /// SHA-256 of its secret, hex.
        secret_hash: String,
        /// Principal.
        principal: String,
    },
    /// A machine presents an enrollment token.
    NodeEnroll {
        /// Public half of the token.
        token_id: TokenId,
        /// SHA-256 of the presented secret, hex; compared in constant time.
        secret_hash: String,
        /// Wished name.
        name: String,
    },
    /// A node has connected.
    NodeRegister {
        /// Who, from its certificate.
        node_id: NodeId,
        /// What it has.
        capabilities: Box<NodeCapabilities>,
        /// What really runs.
        running: Vec<RunningReport>,
        /// Its record store.
        store_id: u128,
        /// Highest epoch it saw.
        epoch_seen: u64,
    },
    /// A node's hardware or runtimes changed.
    NodeCapabilities {
        /// Who.
        node_id: NodeId,
        /// What it has now.
        capabilities: Box<NodeCapabilities>,
    },
    /// Facts about attempts.
    NodeStatus {
        /// Who.
        node_id: NodeId,
        /// In order.
        records: Vec<StatusRecord>,
    },
    /// What became of a command inside a workload.
    ExecEnded {
        /// The operation that asked for it.
        operation_id: OperationId,
        /// How it ended.
        end: ExecEnd,
        /// What it wrote, in the shell's own form; kept beside the journal.
        output: Option<Vec<u8>>,
    },
    /// These nodes have not answered in time.
    NodesSilent {
        /// Who, and when each was last heard.
        nodes: Vec<(NodeId, Timestamp)>,
    },
    /// Time has passed (in `Caller::now`).
    Tick,
}
