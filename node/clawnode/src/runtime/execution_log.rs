//! What really ran on this machine: one JSON line per start and per end,
//! written by whoever supervises the workload, outside of the protocol. Tests
//! and auditors compare it with what the gateway believes.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use claw_proto::closed_enum;
use claw_proto::ids::{Attempt, WorkloadId};
use claw_proto::message::{NodeWorkloadState, StatusCause};
use claw_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::folder::ExitFile;

closed_enum! {
    /// What happened.
    ExecutionEvent {
        /// It runs.
        Started = "started",
        /// Nothing of it runs any more.
        Ended = "ended"
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionEntry {
    /// Node's name.
    pub node: String,
    /// Workload.
    pub workload_id: WorkloadId,
    /// Attempt.
    pub attempt: Attempt,
    /// What happened.
    pub event: ExecutionEvent,
    /// Wall clock, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Milliseconds since the host booted.
    pub boot_ms: u64,
    /// Process, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<i32>,
    /// Final state, at the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<NodeWorkloadState>,
    /// Exit code, if it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_code: Option<i32>,
    /// Signal, if one ended it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<i32>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<StatusCause>,
    /// Nothing really ran.
    pub simulated: bool,
}

impl ExecutionEntry {
    /// The start of an attempt.
    pub fn started(node: &str, key: super::Key, at: Timestamp, boot_ms: u64) -> Self {
        Self {
            node: node.to_owned(),
            workload_id: key.0,
            attempt: key.1,
            event: ExecutionEvent::Started,
            at_ms: at.unix_ms(),
            boot_ms,
            pid: None,
            state: None,
            exit_code: None,
            signal: None,
            cause: None,
            simulated: false,
        }
    }

    /// The end of an attempt.
    pub(super) fn ended(node: &str, key: super::Key, exit: &ExitFile, boot_ms: u64) -> Self {
        Self {
            event: ExecutionEvent::Ended,
            state: Some(exit.state),
            exit_code: exit.exit_code,
            signal: exit.signal,
            cause: Some(exit.cause),
            ..Self::started(node, key, exit.at, boot_ms)
        }
    }
}

/// Appends one line in one write and flushes it to disk.
///
/// # Errors
/// What the file system says.
pub fn append(path: &Path, entry: &ExecutionEntry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(&line)?;
    file.sync_data()
}
