//! The link to the nodes: one WebSocket per node, protobuf frames, TLS with
//! client certificates.
//!
//! ```text
//!   port ──► session ──► reader ──► lanes (status, logs) ──► core, log store
//!            (one per     │ heartbeat answers are taken at once
//!             connection) └─► last heard ◄── watch: silent nodes ──► core
//!   core ──► effects ──► orders (one queue per node) ──► writer ──► node
//! ```
//!
//! Invariants:
//! - A status record is acknowledged after its effect is on disk, log lines after
//!   they are; whatever fails is not acknowledged and the node sends it again.
//! - *Last heard* moves at the receipt of an answer to a heartbeat and of a
//!   registration, and of nothing else: partition leases are counted from it.
//! - A node gets `Registered`, then its desired set, then changes in the order of
//!   their generation. Whatever is dropped is made up for by the next desired set.
//! - One connection per node: a newer one ends the older.

mod certificates;
mod effects;
mod fill;
mod frames;
mod lanes;
mod links;
mod orders;
mod port;
mod reader;
mod session;
mod tasks;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use claw_security::secrets::SecretStore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control::ControlPlane;
use crate::enroll::Enrollment;

pub(crate) use certificates::{CertificateKeeper, keep as keep_certificates};
pub(crate) use effects::perform;
pub(crate) use links::NodeLinks;
pub(crate) use port::router;
pub(crate) use tasks::TaskFailure;
pub(crate) use watch::watch_silence;

/// A connection whose first message is not there by then is closed, milliseconds.
const REGISTER_DEADLINE_MS: u64 = 10_000;
/// How long a closing connection may take to take our last word, milliseconds.
const CLOSE_DEADLINE_MS: u64 = 2_000;
/// Orders that may wait for one node; a node with more is too slow and is cut off.
const ORDERS_WAITING_MAX: usize = 1_024;
/// Frames that may wait to be written to one node.
const FRAMES_WAITING_MAX: usize = 64;
/// Frames of one kind that may wait to be stored, per node.
const LANE_FRAMES_MAX: usize = 8;
/// Pause before lines that the log store did not take are offered again, milliseconds.
const LOG_RETRY_MS: u64 = 1_000;
/// Full desired sets that are sent because a node asks are at least so far apart, milliseconds.
const RESEND_SET_MS: u64 = 1_000;
/// A node's clock that is off by more is mentioned, milliseconds.
const CLOCK_SKEW_MS: u64 = 30_000;

/// How the link behaves.
#[derive(Debug, Clone)]
pub(crate) struct LinkSettings {
    /// How often a heartbeat goes out.
    pub(crate) heartbeat_interval: Duration,
    /// Silence after which a node counts as unreachable, milliseconds.
    pub(crate) heartbeat_timeout_ms: i64,
}

/// What every connection of a node shares.
#[derive(Debug)]
pub(crate) struct NodePort {
    pub(crate) control: ControlPlane,
    pub(crate) links: Arc<NodeLinks>,
    /// Opens the secrets that workloads name.
    pub(crate) secrets: Arc<SecretStore>,
    pub(crate) enrollment: Enrollment,
    pub(crate) certificates: CertificateKeeper,
    pub(crate) settings: LinkSettings,
    /// Cancelled when the gateway stops.
    pub(crate) stop: CancellationToken,
    /// Sessions that still run, to be waited for.
    pub(crate) sessions: TaskTracker,
}

pub(crate) type SharedPort = Arc<NodePort>;
