//! What has happened: closed, versioned, in the past tense.
//!
//! Events are the only thing that changes a [`crate::Cluster`], and the only
//! thing that is journaled. A record says when, who, why and by which operation.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::{ApprovalId, Attempt, GpuUuid, KeyId, NodeId, OperationId, PlanId, TokenId, WorkloadId};
use claw_proto::message::NodeSettings;
use claw_proto::spec::RuntimeKind;
use claw_proto::time::Timestamp;
use claw_proto::topology::NodeCapabilities;
use claw_proto::validation::ValidSpec;
use claw_tools::access::{PrincipalKind, Role, Tier};
use claw_tools::approvals::ApprovalDecision;
use claw_tools::def::UndoClass;
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::operations::OperationState;
use claw_tools::outcome::{Outcome, PlanView};
use claw_tools::workloads::{PlacementReport, WorkloadReason, WorkloadState};
use serde::{Deserialize, Serialize};

use crate::command::Operation;

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
        serde_json::to_vec(self).expect("an event holds only maps with string keys and finite numbers")
    }
}

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
    /// The node has no work left.
    NodeEmpty {
        /// Which.
        node_id: NodeId,
    },
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
    /// An operation was accepted.
    OperationAccepted {
        /// It.
        operation: Box<OperationRecord>,
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
        outcome: Box<Outcome>,
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
