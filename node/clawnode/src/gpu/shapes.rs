//! Findings and events of GPUs as the node reports them.

use claw_proto::ids::GpuUuid;
use claw_proto::time::Timestamp;

/// What is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFinding {
    /// What kind.
    pub code: FindingCode,
    /// Which part.
    pub subject: String,
    /// Detail for people.
    pub detail: String,
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingCode {
    DriverAbsentLibrary,
    DriverNotLoaded,
    DriverVersionMismatch,
    DriverHung,
    DriverFailed,
    GpuLost,
    GpuNeedsReset,
    GpuErrorEvent,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuEventKind {
    Xid,
    EccDoubleBit,
    EccSingleBit,
    PowerState,
    Clock,
    Lost,
}

/// Something that happened to a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuEvent {
    /// Which GPU.
    pub uuid: GpuUuid,
    /// What kind.
    pub kind: GpuEventKind,
    /// Its number, for an Xid.
    pub code: Option<u32>,
    /// Detail for people.
    pub detail: String,
    /// When.
    pub at: Timestamp,
    /// Nothing really happened.
    pub simulated: bool,
}

/// Most events of one message.
pub const GPU_EVENTS_PER_MESSAGE_MAX: usize = 256;
