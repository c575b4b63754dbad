//! Messages between node and gateway: the domain form.
//!
//! The wire form (protobuf) is private to this crate; [`crate::codec`]
//! translates and checks. Delivery: status records are numbered by the node,
//! kept on its disk and sent again until the gateway has acknowledged them
//! *after* it journaled their effect; the gateway takes each effect once,
//! because a record names workload, attempt and a state that only moves forward.

pub mod kernel;
mod orders;
mod secrets;
mod tasks;
mod telemetry;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::closed_enum;
use crate::ids::{Attempt, Generation, GpuUuid, NodeId, WorkloadId};
use crate::spec::{OnPartition, RuntimeKind, WorkloadSpec};
use crate::time::Timestamp;
use crate::topology::NodeCapabilities;

pub use kernel::{KernelLine, KernelLog, KernelTail};
pub use orders::{CheckpointWritten, StopOrder};
pub use secrets::{RegistryAuth, SecretBytes, SecretFile};
pub use tasks::{OutputContent, OutputEntry, RankAssignment, TaskErrorCode, TaskId};
pub use telemetry::{GpuDetails, GpuEvent, GpuEventKind, GpuProcess, RemappedRows, ThrottleReason, WorkloadMetrics};

/// What surrounds every message.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<M> {
    /// Protocol version of the sender.
    pub version: u32,
    /// Gateway epoch that the sender knows (0 = none yet).
    pub epoch: u64,
    /// Number of this frame within the connection, from 1.
    pub sequence: u64,
    /// Gateway → node: highest status record that is durable here. Node → gateway: highest frame seen.
    pub ack: u64,
    /// Desired-state generation: the gateway's current, or the highest that the node saw.
    pub generation: Generation,
    /// The message.
    pub body: M,
}

closed_enum! {
    /// State of one attempt as the node sees it; only moves forward.
    NodeWorkloadState {
        /// Fetching image or weights.
        Pulling = "pulling",
        /// Being started.
        Starting = "starting",
        /// Runs.
        Running = "running",
        /// Asked to end.
        Stopping = "stopping",
        /// Ended by itself with exit code 0.
        Completed = "completed",
        /// Ended otherwise, or could not be started.
        Failed = "failed",
        /// Ended because it was told to.
        Stopped = "stopped",
        /// It was running, and nobody knows how it ended.
        Lost = "lost"
    }
}

impl NodeWorkloadState {
    /// Position in the life of an attempt; a record never moves it back.
    pub const fn rank(self) -> u8 {
        match self {
            Self::Pulling => 1,
            Self::Starting => 2,
            Self::Running => 3,
            Self::Stopping => 4,
            Self::Completed | Self::Failed | Self::Stopped | Self::Lost => 5,
        }
    }
    /// The attempt is over.
    pub const fn is_final(self) -> bool {
        self.rank() == 5
    }
}

closed_enum! {
    /// Why an attempt is in its state; the node's closed list of causes.
    StatusCause {
        /// Normal progress.
        Progress = "progress",
        /// The program ended.
        Exited = "exited",
        /// A signal ended it.
        Signaled = "signaled",
        /// Out of memory.
        OutOfMemory = "out_of_memory",
        /// The gateway asked.
        StopRequested = "stop_requested",
        /// Over `max_duration_s`.
        MaxDuration = "max_duration",
        /// Cut off from the gateway for longer than `stop_after`.
        PartitionLease = "partition_lease",
        /// The program could not be started.
        StartFailed = "start_failed",
        /// The node does not allow or have what the spec needs.
        Unsupported = "unsupported",
        /// A GPU that it was given is not there or not healthy.
        GpuMissing = "gpu_missing",
        /// The supervisor of the process is gone (host restart, killed from outside).
        SupervisorGone = "supervisor_gone",
        /// The agent restarted and its simulated workloads ended with it.
        AgentRestarted = "agent_restarted",
        /// A newer attempt or an unknown workload: not wanted here any more.
        Superseded = "superseded",
        /// The image could not be fetched.
        PullFailed = "pull_failed",
        /// The node's policy does not allow the image.
        ImageRefused = "image_refused",
        /// The container did not get the GPUs that it was given.
        GpuNotAttached = "gpu_not_attached",
        /// A volume is not there or not allowed.
        VolumeRefused = "volume_refused",
        /// The container engine failed or went away.
        EngineFailed = "engine_failed"
    }
}

/// One durable fact about one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRecord {
    /// Number within this node's store, from 1, without gaps.
    pub record: u64,
    /// Workload.
    pub workload_id: WorkloadId,
    /// Attempt.
    pub attempt: Attempt,
    /// State reached.
    pub state: NodeWorkloadState,
    /// Why.
    pub cause: StatusCause,
    /// Detail for people, plain text.
    #[serde(default)]
    pub detail: String,
    /// Exit code, if the program ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal, if one ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Node's clock when it happened.
    pub at: Timestamp,
    /// Nothing really ran.
    pub simulated: bool,
    /// Its program wrote a checkpoint; the state is the one that it was in already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointWritten>,
}

/// One attempt that the node really has, reported at registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningReport {
    /// Workload.
    pub workload_id: WorkloadId,
    /// Attempt.
    pub attempt: Attempt,
    /// State.
    pub state: NodeWorkloadState,
    /// GPUs that it holds.
    pub gpus: Vec<GpuUuid>,
}

closed_enum! {
    /// Where a log line came from.
    LogStream {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
        /// The node's own notes about the workload.
        System = "system"
    }
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Number within (workload, attempt, stream), from 1.
    pub sequence: u64,
    /// Node's clock.
    pub at: Timestamp,
    /// The line without its end, as it was written (any bytes).
    pub bytes: Vec<u8>,
}

/// Lines that the node had to drop before they were acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGap {
    /// First lost line.
    pub first_sequence: u64,
    /// How many are lost.
    pub n_lost: u64,
}

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogKey {
    /// Workload.
    pub workload_id: WorkloadId,
    /// Attempt.
    pub attempt: Attempt,
    /// Stream.
    pub stream: LogStream,
}

/// A piece of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Which log.
    pub key: LogKey,
    /// Lines lost just before `lines`.
    pub gap: Option<LogGap>,
    /// Lines in order.
    pub lines: Vec<LogLine>,
}

/// One GPU's metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GpuMetrics {
    /// Which GPU.
    pub uuid: GpuUuid,
    /// Busy, percent.
    pub utilization_percent: f32,
    /// Memory in use, MiB.
    pub memory_used_mib: u64,
    /// Memory in all, MiB.
    pub memory_total_mib: u64,
    /// Temperature, °C.
    pub temperature_celsius: f32,
    /// Power, watts.
    pub power_watts: f32,
    /// The numbers come from a simulated driver.
    pub simulated: bool,
    /// Further numbers, as far as the driver tells them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<GpuDetails>>,
}

/// The host's metrics.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SystemMetrics {
    /// Busy, percent of all cores.
    pub cpu_percent: f32,
    /// Memory in use, MiB.
    pub memory_used_mib: u64,
    /// Memory in all, MiB.
    pub memory_total_mib: u64,
    /// Disk in use, MiB.
    pub disk_used_mib: u64,
    /// Disk in all, MiB.
    pub disk_total_mib: u64,
    /// One-minute load average.
    pub load_average_1m: f32,
}

closed_enum! {
    /// What went wrong on the node's side of the protocol.
    NodeErrorCode {
        /// The message or field is known but not built here.
        Unsupported = "unsupported",
        /// The generation is older than one already seen.
        StaleGeneration = "stale_generation",
        /// The node cannot keep its records (disk full).
        StorageUnavailable = "storage_unavailable",
        /// Some other fault.
        Internal = "internal"
    }
}

/// Node → gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeMessage {
    /// First message of a connection.
    Register {
        /// Name that the node wishes to be listed under.
        name: String,
        /// What it has.
        capabilities: NodeCapabilities,
        /// What really runs.
        running: Vec<RunningReport>,
        /// Changes when the node's record store is made anew.
        store_id: u128,
        /// Oldest and newest protocol version that the node speaks.
        versions: (u32, u32),
        /// The node's clock.
        clock: Timestamp,
    },
    /// Facts about attempts, in order.
    WorkloadStatus {
        /// Records in order of number.
        records: Vec<StatusRecord>,
    },
    /// Numbers, every ten seconds by default.
    Metrics {
        /// Node's clock.
        at: Timestamp,
        /// GPUs.
        gpus: Vec<GpuMetrics>,
        /// Host.
        system: SystemMetrics,
        /// Attempts that run.
        workloads: Vec<WorkloadMetrics>,
    },
    /// What drivers reported of GPUs.
    GpuEvents {
        /// Events, oldest first.
        events: Vec<GpuEvent>,
    },
    /// What the kernel said that may tell of a fault.
    KernelLog(KernelLog),
    /// Log lines.
    Logs {
        /// Pieces of logs.
        chunks: Vec<LogChunk>,
    },
    /// Answer to a heartbeat; its arrival renews the partition lease.
    HeartbeatAck {
        /// Number of the heartbeat.
        nonce: u64,
    },
    /// GPUs or runtimes changed.
    CapabilitiesChanged {
        /// What it has now.
        capabilities: NodeCapabilities,
    },
    /// The node asks for a new certificate.
    RenewCertificate {
        /// PKCS #10 request, DER, signed by its new key.
        csr_der: Vec<u8>,
    },
    /// A command in a workload has ended.
    ExecDone {
        /// Which task.
        task: TaskId,
        /// Exit code; none if it was ended for its time.
        exit_code: Option<i32>,
        /// It was ended because it took too long.
        timed_out: bool,
        /// What it wrote to standard output.
        stdout: Vec<u8>,
        /// What it wrote to standard error.
        stderr: Vec<u8>,
        /// It wrote more than is told.
        truncated: bool,
    },
    /// What stands at a path of an attempt's outputs.
    OutputRead {
        /// Which task.
        task: TaskId,
        /// What.
        content: OutputContent,
    },
    /// A task was not done.
    TaskFailed {
        /// Which task.
        task: TaskId,
        /// Why.
        code: TaskErrorCode,
        /// Detail for people.
        message: String,
    },
    /// Something went wrong.
    Error {
        /// What.
        code: NodeErrorCode,
        /// Detail for people.
        message: String,
    },
}

/// One workload that a node shall have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredWorkload {
    /// Workload.
    pub workload_id: WorkloadId,
    /// Attempt; any other attempt of it is stopped.
    pub attempt: Attempt,
    /// What to run; environment values are filled in by the gateway's shell.
    pub spec: WorkloadSpec,
    /// GPUs it gets, by UUID.
    pub gpus: Vec<GpuUuid>,
    /// Which runtime.
    pub runtime: RuntimeKind,
    /// What to do when cut off.
    pub on_partition: OnPartition,
    /// Between TERM and KILL, seconds.
    pub grace_s: u32,
    /// Stop it after so long, seconds.
    pub max_duration_s: Option<u64>,
    /// Secrets that it gets as files; never written to a disk of the node.
    #[serde(skip)]
    pub secrets: Vec<SecretFile>,
    /// What its registry asks for; never written to a disk of the node.
    #[serde(skip)]
    pub registry_auth: Option<RegistryAuth>,
    /// Its place among several nodes; one node alone without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RankAssignment>,
    /// What its program called its last checkpoint, in an earlier attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_last: Option<String>,
}

/// Settings that the gateway gives a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// How often metrics are sent, milliseconds.
    pub metrics_interval_ms: u64,
    /// How often the gateway sends a heartbeat, milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Log bytes that the node may hold until acknowledged.
    pub log_buffer_bytes: u64,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            metrics_interval_ms: crate::limits::METRICS_INTERVAL_MS,
            heartbeat_interval_ms: crate::limits::HEARTBEAT_INTERVAL_MS,
            log_buffer_bytes: 64 * 1024 * 1024,
        }
    }
}

closed_enum! {
    /// Why a gateway does not talk to a node.
    RefusalCode {
        /// No common protocol version.
        VersionMismatch = "version_mismatch",
        /// The certificate is not (or no longer) that of a known node.
        UnknownNode = "unknown_node",
        /// The node saw a higher epoch than this gateway's: this is a restored or deposed gateway.
        StaleGateway = "stale_gateway",
        /// A newer connection of the same node took over.
        Replaced = "replaced",
        /// The gateway cannot write its journal.
        Unavailable = "unavailable",
        /// The message broke the protocol.
        Protocol = "protocol"
    }
}

/// A peer of the mesh network (the mesh is not built yet; nodes answer `unsupported`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshPeer {
    /// Peer.
    pub node_id: NodeId,
    /// Public key, base64.
    pub public_key: String,
    /// Endpoint host:port.
    pub endpoint: String,
    /// Networks reached through it.
    pub allowed_ips: Vec<String>,
}

/// Gateway → node.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a message is made, encoded and dropped; none is kept in bulk")]
pub enum GatewayMessage {
    /// Answer to `Register`; the full desired set follows.
    Registered {
        /// Who the node is.
        node_id: NodeId,
        /// Its settings.
        settings: NodeSettings,
        /// Protocol version for this connection.
        version: u32,
        /// Highest line that the gateway has, per log.
        log_acks: BTreeMap<LogKey, u64>,
    },
    /// All that the node shall have; what it runs beyond is reported, not killed, unless listed as to stop.
    DesiredSet {
        /// Version of the set.
        generation: Generation,
        /// Wanted workloads.
        workloads: Vec<DesiredWorkload>,
        /// Attempts that must not go on.
        stop: Vec<StopOrder>,
    },
    /// One more wanted workload.
    StartWorkload {
        /// Version after this change.
        generation: Generation,
        /// What.
        workload: DesiredWorkload,
    },
    /// One workload to end.
    StopWorkload {
        /// Version after this change.
        generation: Generation,
        /// Which.
        order: StopOrder,
    },
    /// New settings.
    UpdateConfig {
        /// Settings.
        settings: NodeSettings,
    },
    /// Are you there? Renews the partition lease.
    Heartbeat {
        /// Number of this heartbeat on this connection, from 1.
        nonce: u64,
        /// Highest nonce whose answer has arrived.
        confirmed: u64,
    },
    /// Log lines that are durable here.
    LogsAck {
        /// Highest line per log.
        acks: BTreeMap<LogKey, u64>,
    },
    /// Peers of the mesh.
    MeshPeers {
        /// Peers.
        peers: Vec<MeshPeer>,
    },
    /// The new certificate that the node asked for.
    CertificateRenewed {
        /// Certificate chain, DER, the node's own first.
        chain_der: Vec<Vec<u8>>,
    },
    /// The node gets no new certificate.
    CertificateRefused {
        /// Why, for people.
        message: String,
    },
    /// Authorities that the node shall trust from now on.
    TrustBundle {
        /// Their certificates, DER.
        cas_der: Vec<Vec<u8>>,
        /// Ask for a new certificate now: the authority changes.
        renew: bool,
    },
    /// Run a command in a workload.
    Exec {
        /// Number of this task.
        task: TaskId,
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// Program and arguments.
        command: Vec<String>,
        /// It is ended after so long, milliseconds.
        timeout_ms: u64,
        /// Most bytes of its output, each stream.
        output_bytes_max: u64,
    },
    /// Tell what stands at a path of an attempt's declared outputs.
    ReadOutput {
        /// Number of this task.
        task: TaskId,
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// Path inside the workload.
        path: String,
        /// Where to begin in a file.
        offset: u64,
        /// Most bytes of a file.
        bytes_max: u64,
    },
    /// An attempt will be stopped: its program shall write a checkpoint now.
    CheckpointNotice {
        /// Workload.
        workload_id: WorkloadId,
        /// Attempt.
        attempt: Attempt,
        /// It is stopped after so long, whatever it says, seconds.
        grace_s: u32,
    },
    /// Nobody waits for this task any more.
    CancelTask {
        /// Which.
        task: TaskId,
    },
    /// Status records up to the envelope's `ack` are durable; nothing else.
    Ack,
    /// The gateway does not go on with this connection.
    Refused {
        /// Why.
        code: RefusalCode,
        /// Detail for people.
        message: String,
        /// Oldest and newest protocol version that the gateway speaks.
        versions: (u32, u32),
    },
}
