//! What goes into the node's state machine and what comes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::{Attempt, NodeId, WorkloadId};
use claw_proto::message::{
    CheckpointWritten, DesiredWorkload, Envelope, GatewayMessage, GpuMetrics, LogChunk, LogKey, NodeMessage,
    NodeSettings, NodeWorkloadState, RefusalCode, StatusCause, SystemMetrics, TaskId, WorkloadMetrics,
};
use claw_proto::time::Timestamp;
use claw_proto::topology::NodeCapabilities;

use super::durable::{DurableChange, DurableState};
use super::lease::Lease;
use super::tasks::{TaskFault, TaskResult};

/// The two clocks of a node at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic clock, milliseconds. It goes on over a restart of the agent
    /// (`CLOCK_BOOTTIME`); only a restart of the host sets it back.
    pub mono_ms: u64,
    /// Wall clock, for people and records only.
    pub wall: Timestamp,
}

/// Who the node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Id from its certificate.
    pub node_id: NodeId,
    /// Name that it wishes to be listed under.
    pub name: String,
}

/// How an attempt ended, as its runtime saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadEnd {
    /// A final state.
    pub state: NodeWorkloadState,
    /// Why.
    pub cause: StatusCause,
    /// Detail for people.
    pub detail: String,
    /// Exit code, if the program ended by itself.
    pub exit_code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// When it ended; `None` = now.
    pub at: Option<Timestamp>,
}

impl WorkloadEnd {
    /// The program ended by itself: completed with code 0, failed otherwise.
    pub fn exited(exit_code: i32) -> Self {
        let state = if exit_code == 0 { NodeWorkloadState::Completed } else { NodeWorkloadState::Failed };
        Self {
            state,
            cause: StatusCause::Exited,
            detail: String::new(),
            exit_code: Some(exit_code),
            signal: None,
            at: None,
        }
    }

    /// An end without exit code or signal.
    pub fn of(state: NodeWorkloadState, cause: StatusCause, detail: impl Into<String>) -> Self {
        Self { state, cause, detail: detail.into(), exit_code: None, signal: None, at: None }
    }
}

/// What a runtime tells.
#[derive(Debug, Clone, PartialEq)]
pub enum RuntimeEvent {
    /// The attempt moved on; never a final state.
    Progress {
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// Pulling, starting or running.
        state: NodeWorkloadState,
        /// Detail for people.
        detail: String,
    },
    /// The attempt's program says that a checkpoint is written.
    Checkpoint {
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// What it is called, and whether it answers a notice.
        written: CheckpointWritten,
        /// When; not after now.
        at: Timestamp,
    },
    /// Nothing of the attempt runs any more.
    Ended {
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// How.
        end: WorkloadEnd,
    },
    /// The runtime found something of this node that nobody told it about.
    Found(FoundWorkload),
    /// A task is done, or not.
    TaskDone {
        /// Which.
        task: TaskId,
        /// The answer.
        result: Result<TaskResult, TaskFault>,
    },
}

/// What a runtime found when the agent started.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundWorkload {
    /// What it is.
    pub workload: Arc<DesiredWorkload>,
    /// What became of it.
    pub found: Found,
}

/// State of a workload that a runtime found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is there and watched again.
    Live {
        /// Starting or running.
        state: NodeWorkloadState,
        /// The lease that its supervisor enforces.
        lease: Option<Lease>,
    },
    /// It is over.
    Ended(WorkloadEnd),
    /// It was accepted, but certainly never reached the runtime.
    NeverStarted,
}

/// One input of the state machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// First input of all: what the disk and the runtimes know.
    Booted {
        /// Now.
        now: Now,
        /// Fold of everything on disk.
        durable: Box<DurableState>,
        /// One entry per attempt in `durable`, and any other that is there.
        found: Vec<FoundWorkload>,
    },
    /// A connection to the gateway is up.
    Connected {
        /// Now.
        now: Now,
    },
    /// The connection is gone.
    Disconnected {
        /// Now.
        now: Now,
    },
    /// A message of the present connection.
    Gateway {
        /// Now.
        now: Now,
        /// The message. `sequence` 0 means that the sender does not number its
        /// frames; otherwise a repeated frame is dropped and a gap ends the
        /// connection.
        envelope: Box<Envelope<GatewayMessage>>,
    },
    /// A frame of the present connection that could not be read.
    Unreadable {
        /// Now.
        now: Now,
        /// The message kind is unknown (else: the frame is malformed).
        unknown_kind: bool,
        /// Detail for people.
        detail: String,
    },
    /// A runtime has news.
    Runtime {
        /// Now.
        now: Now,
        /// The news.
        event: RuntimeEvent,
    },
    /// Log lines to send; dropped unless the node is registered (they stay in
    /// the buffer on disk until acknowledged).
    Logs {
        /// Now.
        now: Now,
        /// Pieces of logs.
        chunks: Vec<LogChunk>,
    },
    /// Numbers to send; dropped unless the node is registered.
    Sample {
        /// Now.
        now: Now,
        /// GPUs.
        gpus: Vec<GpuMetrics>,
        /// Host.
        system: SystemMetrics,
        /// Attempts that run.
        workloads: Vec<WorkloadMetrics>,
    },
    /// The shell has something for the gateway: an answer to a task, events of
    /// GPUs, a request for a certificate. Lost if no gateway is there.
    Say {
        /// Now.
        now: Now,
        /// What.
        message: Box<NodeMessage>,
    },
    /// What the node has changed.
    Capabilities {
        /// Now.
        now: Now,
        /// What it has.
        capabilities: Box<NodeCapabilities>,
    },
    /// Every [`Action::Persist`] up to this number is on disk.
    Persisted {
        /// Now.
        now: Now,
        /// Highest number.
        through: u64,
    },
    /// A write failed. The shell keeps it and tries again; nothing is lost, but
    /// no new workload is accepted until a `Persisted` covers every write.
    StorageFailed {
        /// Now.
        now: Now,
        /// Detail for people.
        detail: String,
    },
    /// Time passes; see [`super::Node::next_wake_ms`].
    Tick {
        /// Now.
        now: Now,
    },
}

impl Input {
    /// When it happened.
    pub fn now(&self) -> Now {
        match self {
            Self::Booted { now, .. }
            | Self::Connected { now }
            | Self::Disconnected { now }
            | Self::Gateway { now, .. }
            | Self::Unreadable { now, .. }
            | Self::Runtime { now, .. }
            | Self::Logs { now, .. }
            | Self::Sample { now, .. }
            | Self::Say { now, .. }
            | Self::Capabilities { now, .. }
            | Self::Persisted { now, .. }
            | Self::StorageFailed { now, .. }
            | Self::Tick { now } => *now,
        }
    }
}

/// Why the node ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Nothing was heard for too long.
    Silent,
    /// The gateway's epoch is older than one already seen.
    StaleEpoch,
    /// The gateway does not want to talk.
    Refused(RefusalCode),
    /// A frame was missing, unreadable or out of place.
    Protocol,
}

/// One thing that the shell shall do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make durable, in order of number, and answer with [`Input::Persisted`].
    /// The node holds back what depends on it; nothing else waits.
    Persist {
        /// Number, from 1 in each run of the agent, without gaps.
        write: u64,
        /// What to write.
        change: DurableChange,
    },
    /// Send on the present connection.
    Send(Box<Envelope<NodeMessage>>),
    /// Hand to its runtime. Given once per attempt.
    Start {
        /// What.
        workload: Arc<DesiredWorkload>,
        /// The lease that its supervisor enforces from the first moment.
        lease: Option<Lease>,
    },
    /// End an attempt: TERM, then KILL after the grace. May come again with a
    /// shorter grace; the earlier end counts, the first cause stays.
    Stop {
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// Between TERM and KILL, milliseconds; 0 kills at once.
        grace_ms: u64,
        /// Why.
        cause: StatusCause,
    },
    /// Tell a live attempt's program to write a checkpoint. May come again.
    NoticeCheckpoint {
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// It is stopped after so long, seconds.
        grace_s: u32,
    },
    /// The lease of a live attempt is now this; it never moves back.
    RenewLease {
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// New lease.
        lease: Lease,
    },
    /// The gateway has the final record: the runtime's files may go once the
    /// logs are acknowledged too.
    Forget {
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
    },
    /// The gateway has these log lines.
    LogsAcked {
        /// Highest line per log.
        acks: BTreeMap<LogKey, u64>,
        /// The list is complete: a new connection begins, what is not acknowledged is sent again.
        resume: bool,
    },
    /// A task or a certificate: no part of the desired state, so the shell's own.
    Shell(Box<GatewayMessage>),
    /// Settings from now on.
    ApplySettings(NodeSettings),
    /// End the connection; answered by [`Input::Disconnected`].
    CloseConnection {
        /// Why.
        why: CloseReason,
        /// Detail for people.
        detail: String,
    },
}
