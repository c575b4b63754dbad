//! What has happened: closed, versioned, in the past tense.
//!
//! Events are the only thing that changes a [`crate::Cluster`], and the only
//! thing that is journaled. A record says when, who, why and by which operation.

mod exec;
mod kept;
mod operation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::ids::{ApprovalId, Attempt, GpuUuid, KeyId, NodeId, OperationId, PlanId, TokenId, WorkloadId};
use claw_proto::message::NodeSettings;
use claw_proto::spec::RuntimeKind;
use claw_proto::time::Timestamp;
use claw_proto::topology::NodeCapabilities;
use claw_proto::validation::ValidSpec;
use claw_tools::access::{PrincipalKind, Role, Tier};
use claw_tools::approvals::ApprovalDecision;
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::operations::OperationState;
use claw_tools::quotas::Quota;
use claw_tools::reservations::Reservation;
use claw_tools::workloads::{PlacementReport, WorkloadReason, WorkloadState};
use serde::{Deserialize, Serialize};

use crate::workload::{Claim, Part};

pub use self::exec::ExecEnd;
pub use self::kept::KeptOutcome;
pub use self::operation::{Goal, Inverse, Moved, OperationRecord, PlanRecord, ReceiptKey};

/// Version of the event format; older versions are lifted by [`EventRecord::from_json`].
pub const EVENT_VERSION: u16 = 1;

/// One event with its circumstances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When it was decided.
    pub at: Timestamp,
    /// Who caused it.
    pub principal: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Operation that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
    /// What happened.
    pub event: Event,
}

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Written by a newer gateway.
    #[error("event version {got} is newer than {newest}; upgrade the gateway")]
    Newer {
        /// Version of the stored event.
        got: u16,
        /// Newest that this build reads.
        newest: u16,
    },
    /// Not the JSON of an event.
    #[error("event of version {version} does not parse")]
    Malformed {
        /// Version of the stored event.
        version: u16,
        /// Parser's words.
        #[source]
        source: serde_json::Error,
    },
}

/// Room that most events fit in, bytes of JSON.
const JSON_BYTES: usize = 1_024;

impl EventRecord {
    /// Reads a stored event, lifting old versions.
    pub fn from_json(version: u16, payload: &[u8]) -> Result<Self, EventError> {
        match version {
            EVENT_VERSION => {
                serde_json::from_slice(payload).map_err(|source| EventError::Malformed { version, source })
            }
            got => Err(EventError::Newer { got, newest: EVENT_VERSION }),
        }
    }
    /// Canonical JSON for the journal.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(JSON_BYTES);
        serde_json::to_writer(&mut json, self).expect("an event holds only maps with string keys and finite numbers");
        json
    }
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? })*) => {
        /// What happened.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        pub enum Event { $($(#[$doc])* $name { $($(#[$fdoc])* $field: $ty),* }),* }

        impl Event {
            /// Name of the kind, as in JSON and in the journal's column.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$name { .. } => stringify!($name)),* }
            }
            /// All kinds.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($name)),*];
        }
    };
}

events! {
    /// The gateway started.
    GatewayStarted {
        /// Its epoch.
        epoch: u64,
    }
    /// An API key was made.
    ApiKeyCreated {
        /// Id.
        key_id: KeyId,
        /// Whom it speaks for.
        subject: String,
        /// Role.
        role: Role,
        /// Person or agent.
        kind: PrincipalKind,
        /// SHA-256 of the secret, hex.
        secret_hash: String,
        /// Not valid after.
        expires_at: Option<Timestamp>,
    }
    /// An API key was revoked.
    ApiKeyRevoked {
        /// Id.
        key_id: KeyId,
    }
    /// An enrollment token was made.
    NodeTokenCreated {
        /// Id.
        token_id: TokenId,
        /// SHA-256 of the secret, hex.
        secret_hash: String,
        /// Only name allowed.
        name: Option<String>,
        /// Labels that the node gets.
        labels: BTreeMap<String, String>,
        /// Not valid after.
        expires_at: Timestamp,
    }
    /// An enrollment token was revoked before it was used.
    NodeTokenRevoked {
        /// Id.
        token_id: TokenId,
    }
    /// A machine enrolled.
    NodeEnrolled {
        /// Id.
        node_id: NodeId,
        /// Name.
        name: String,
        /// Labels from the token.
        labels: BTreeMap<String, String>,
        /// Token, used up now.
        token_id: TokenId,
    }
    /// A node connected, with capabilities that differ from those known.
    NodeCapabilitiesReported {
        /// Id.
        node_id: NodeId,
        /// What it has.
        capabilities: Arc<NodeCapabilities>,
        /// Its record store.
        store_id: String,
    }
    /// A node is heard from again, or not any more.
    NodeLinkChanged {
        /// Id.
        node_id: NodeId,
        /// How it is now.
        link: NodeLink,
        /// When it was last heard.
        last_heard: Timestamp,
    }
    /// A node takes new work, or not any more.
    NodeSchedulableChanged {
        /// Id.
        node_id: NodeId,
        /// How it is now.
        to: Schedulable,
    }
    /// Labels of a node changed.
    NodeLabeled {
        /// Id.
        node_id: NodeId,
        /// New values; absent = removed.
        labels: BTreeMap<String, Option<String>>,
    }
    /// Settings of a node changed.
    NodeSettingsChanged {
        /// Id.
        node_id: NodeId,
        /// New settings.
        settings: NodeSettings,
    }
    /// A node left the fleet for good.
    NodeRemoved {
        /// Id.
        node_id: NodeId,
    }
    /// Every certificate that the node has is refused from now on.
    NodeRevoked {
        /// Id.
        node_id: NodeId,
    }
    /// The machine of a revoked node enrolled anew.
    NodeReadmitted {
        /// Id.
        node_id: NodeId,
        /// Token, used up now.
        token_id: TokenId,
    }
    /// The certificate authority is to be replaced.
    CaRotationRequested {
        /// Number of the rotation, from 1.
        rotation: u64,
    }
    /// The old certificate authority is gone.
    CaRotated {
        /// Number of the rotation.
        rotation: u64,
    }
    /// A node runs something that is not known here; it is reported, not killed.
    OrphanFound {
        /// Node.
        node_id: NodeId,
        /// What it says it is.
        workload_id: WorkloadId,
        /// Attempt it says it is.
        attempt: Attempt,
        /// Why it is an orphan.
        why: String,
    }
    /// An orphan is gone.
    OrphanGone {
        /// Node.
        node_id: NodeId,
        /// What it said it is.
        workload_id: WorkloadId,
    }
    /// Somebody wants something run.
    WorkloadSubmitted {
        /// Id.
        workload_id: WorkloadId,
        /// Name, unique among those that have not ended.
        name: String,
        /// What; environment values are in the blob.
        spec: Arc<ValidSpec>,
        /// Handle of the environment values.
        env_handle: Option<String>,
    }
    /// It has to wait, for another reason than before.
    WorkloadWaits {
        /// Id.
        workload_id: WorkloadId,
        /// Why.
        why: WorkloadReason,
        /// The decision with its reasons.
        report: Option<Arc<PlacementReport>>,
    }
    /// Gates of it were opened or closed.
    WorkloadGated {
        /// Id.
        workload_id: WorkloadId,
        /// Those that are closed now.
        gates: Vec<String>,
    }
    /// It has a place.
    WorkloadPlaced {
        /// Id.
        workload_id: WorkloadId,
        /// Attempt that begins.
        attempt: Attempt,
        /// Node.
        node_id: NodeId,
        /// GPUs, held from now until the attempt ends.
        gpus: Vec<GpuUuid>,
        /// Runtime.
        runtime: RuntimeKind,
        /// Which part of it this is, if it spans nodes. All parts are placed by one command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        /// The decision with its reasons.
        report: Arc<PlacementReport>,
    }
    /// Its node reports progress.
    WorkloadProgressed {
        /// Id.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// State reached.
        state: WorkloadState,
        /// Detail from the node.
        detail: String,
        /// Node's clock.
        node_at: Timestamp,
        /// Nothing really runs.
        simulated: bool,
    }
    /// Less important work makes room for it; nobody behind it in the queue gets that room.
    RoomClaimed {
        /// Who waits for it.
        workload_id: WorkloadId,
        /// Where it will go and who leaves; none: it is given up.
        claim: Option<Arc<Claim>>,
        /// What the others lose, thousandths of GPU seconds, in order of the victims.
        lost_gpu_ms: Vec<u64>,
    }
    /// It is to end, or to leave its node.
    WorkloadStopping {
        /// Id.
        workload_id: WorkloadId,
        /// Why.
        why: WorkloadReason,
        /// Grace, seconds.
        grace_s: u32,
        /// It is wanted elsewhere after.
        requeue: bool,
        /// A part of it ended badly and the others follow; its restart policy decides what comes next.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        regroup: bool,
        /// Its program is told to write a checkpoint first; the stop comes with [`Event::NoticeEnded`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        notice: bool,
    }
    /// Its program says that a checkpoint is written.
    CheckpointWritten {
        /// Id.
        workload_id: WorkloadId,
        /// Attempt; of several parts that of rank 0.
        attempt: Attempt,
        /// What the program calls it.
        label: String,
        /// Node's clock, not after this gateway's.
        node_at: Timestamp,
        /// It is the answer to a notice.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        answers_notice: bool,
        /// How long it was written, milliseconds, as its program said or as its answer took.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        took_ms: Option<u32>,
    }
    /// It was told to write a checkpoint, and is stopped now.
    NoticeEnded {
        /// Id.
        workload_id: WorkloadId,
        /// It said that the checkpoint is written; else its grace is over.
        acked: bool,
        /// Between TERM and KILL, seconds.
        grace_s: u32,
    }
    /// Its attempt has ended; what it held is free.
    AttemptEnded {
        /// Id.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// How.
        state: WorkloadState,
        /// Why.
        why: WorkloadReason,
        /// Detail from the node.
        detail: String,
        /// Exit code.
        exit_code: Option<i32>,
        /// Signal.
        signal: Option<i32>,
        /// Node's clock, if the node reported it.
        node_at: Option<Timestamp>,
    }
    /// It waits for a place again.
    WorkloadRequeued {
        /// Id.
        workload_id: WorkloadId,
        /// Why.
        why: WorkloadReason,
        /// Not placed before.
        not_before: Option<Timestamp>,
        /// It counts against `max_restarts`.
        counts: bool,
    }
    /// It has ended for good.
    WorkloadEnded {
        /// Id.
        workload_id: WorkloadId,
        /// How.
        state: WorkloadState,
        /// Why.
        why: WorkloadReason,
    }
    /// Its node came back with it running.
    WorkloadAdopted {
        /// Id.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
    }
    /// A command is to be run inside a workload.
    ExecRequested {
        /// The operation that asked for it.
        operation_id: OperationId,
        /// Where.
        workload_id: WorkloadId,
        /// In which attempt.
        attempt: Attempt,
        /// On which node.
        node_id: NodeId,
        /// Program and arguments.
        command: Vec<String>,
        /// It is killed after so long, seconds.
        timeout_s: u32,
    }
    /// A command inside a workload has ended, or will never be heard of again.
    ExecEnded {
        /// The operation that asked for it.
        operation_id: OperationId,
        /// How.
        end: ExecEnd,
        /// Handle of what it wrote.
        output: Option<String>,
    }
    /// A tenant is made, or has another quota.
    QuotaSet {
        /// Name.
        tenant: String,
        /// What it is guaranteed and may have.
        quota: Quota,
    }
    /// A tenant is gone.
    QuotaDeleted {
        /// Name.
        tenant: String,
    }
    /// Nodes are kept for a tenant.
    ReservationSet {
        /// Which, for whom and when.
        reservation: Arc<Reservation>,
    }
    /// A reservation is over, or was taken back.
    ReservationEnded {
        /// Name.
        name: String,
    }
    /// A secret has a value, or a new one.
    SecretSet {
        /// Handle.
        handle: String,
        /// Whose it is; the one who first set it.
        owner: String,
        /// Others whose workloads may use it.
        used_by: BTreeSet<String>,
        /// Handle of the blob that holds the sealed value.
        blob: String,
    }
    /// A secret was erased.
    SecretDeleted {
        /// Handle.
        handle: String,
    }
    /// An operation was accepted.
    OperationAccepted {
        /// It.
        operation: Arc<OperationRecord>,
    }
    /// The result of an operation is there, or will never be.
    OperationResolved {
        /// Id.
        operation_id: OperationId,
        /// How.
        state: OperationState,
        /// What was observed.
        observed: String,
    }
    /// A plan was stored.
    PlanStored {
        /// It.
        plan: Box<PlanRecord>,
    }
    /// A plan was applied.
    PlanApplied {
        /// Id.
        plan_id: PlanId,
    }
    /// An approval is asked for.
    ApprovalRequested {
        /// Id.
        approval_id: ApprovalId,
        /// Plan.
        plan_id: PlanId,
        /// Harm.
        tier: Tier,
    }
    /// An approval was decided.
    ApprovalDecided {
        /// Id.
        approval_id: ApprovalId,
        /// How.
        decision: ApprovalDecision,
    }
    /// The answer to a request, for its retries.
    ReceiptStored {
        /// Which request.
        key: ReceiptKey,
        /// Hash of its arguments.
        args_hash: String,
        /// The answer, without any secret.
        outcome: KeptOutcome,
    }
    /// Receipts and ended workloads up to this instant are not kept in memory any more.
    HistoryPruned {
        /// Receipts stored before are gone.
        receipts_before: Timestamp,
        /// Ended workloads that are gone from memory (the journal keeps them).
        workloads: Vec<WorkloadId>,
    }
    /// So many nodes fell silent at once that the fault is probably ours: nobody is declared lost.
    MassLossSuspected {
        /// How many are silent.
        silent: u32,
        /// Of how many.
        total: u32,
    }
    /// Enough nodes are heard from again.
    MassLossCleared {
        /// How many are silent.
        silent: u32,
        /// Of how many.
        total: u32,
    }
}
