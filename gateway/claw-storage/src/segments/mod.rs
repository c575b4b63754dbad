//! Durable log lines per workload, attempt and stream.
//!
//! ```text
//! <dir>/<workload>/<attempt>-<stream>-<first sequence>.log   framed lines and gaps (see `frame`)
//! <dir>/<workload>/<attempt>-<stream>.retired                how far retention has eaten
//! <dir>/logs.lock                                            one process at a time
//! ```
//!
//! Invariant: for every stream, the lines that a read finds and the gaps that it
//! names cover the sequence from 1 to [`LogSegments::last_seq`] without a hole
//! and without an overlap. The node numbers the lines; a line is acknowledged
//! after [`LogSegments::sync`], and until then the node sends it again.

mod append;
mod catalog;
mod error;
mod frame;
mod handles;
mod read;
mod retention;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::durable::{self, DirLock, LockError};

use catalog::StreamState;
pub use error::LogError;
use error::io;
use handles::Handles;

/// No line may be longer than this, whatever the limits say, bytes.
pub(crate) const LINE_BYTES_CEILING: usize = 1024 * 1024;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// The workload's standard output.
    Stdout,
    /// The workload's standard error.
    Stderr,
    /// The node, about the workload.
    System,
}

impl Stream {
    /// Every stream, in order.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::System];

    /// Stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One numbered stream of lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey {
    /// The workload's id.
    pub workload: String,
    /// Which start of the workload.
    pub attempt: u32,
    /// Which of its streams.
    pub stream: Stream,
}

/// One line as the node numbered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Position in its stream, from 1, contiguous.
    pub seq: u64,
    /// When the node read it, Unix milliseconds by the node's clock.
    pub at_ms: i64,
    /// The line without its line feed; any bytes.
    pub bytes: Vec<u8>,
}

/// Lines that the node had to drop before it could send them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// First lost line.
    pub first_seq: u64,
    /// How many are lost, at least 1.
    pub n_lost: u64,
}

impl Gap {
    /// The last lost line.
    pub fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.n_lost.saturating_sub(1))
    }

    /// Whether it is about any line, and all of its numbers, and the next, are numbers.
    pub(crate) fn is_one(&self) -> bool {
        self.first_seq > 0 && self.n_lost > 0 && self.first_seq.checked_add(self.n_lost).is_some()
    }
}

/// Every line up to here is stored or known to be lost. May be told to the node
/// once [`LogSegments::sync`] has returned; 0 = nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AckSeq(pub u64);

/// How much is kept, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLimits {
    /// A segment file is closed beyond this size, bytes.
    pub segment_bytes: u64,
    /// Longest line, bytes; at most 1 MiB.
    pub line_bytes_max: usize,
    /// Most bytes in all.
    pub total_bytes_max: u64,
    /// Most bytes of one workload.
    pub workload_bytes_max: u64,
    /// Oldest line that is kept, milliseconds; applied by [`LogSegments::retain`].
    pub age_ms_max: Option<u64>,
    /// Free space that logs leave to others on the same file system, bytes.
    pub free_bytes_min: u64,
    /// Most segment files open for writing at once.
    pub open_files_max: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 4 * 1024 * 1024,
            line_bytes_max: 64 * 1024,
            total_bytes_max: 16 * 1024 * 1024 * 1024,
            workload_bytes_max: 256 * 1024 * 1024,
            age_ms_max: Some(14 * 24 * 3_600_000),
            free_bytes_min: 256 * 1024 * 1024,
            open_files_max: 128,
        }
    }
}

/// What to read. The default reads nothing: `limit` is 0.
#[derive(Debug, Clone, Default)]
pub struct LogQuery<'a> {
    /// Of this workload; all workloads when absent.
    pub workload: Option<&'a str>,
    /// Of this attempt; all attempts when absent.
    pub attempt: Option<u32>,
    /// Of these streams; all streams when empty.
    pub streams: &'a [Stream],
    /// Lines after this sequence, in each stream.
    pub since_seq: Option<u64>,
    /// Lines of this time or later, Unix milliseconds.
    pub since_ms: Option<i64>,
    /// Only the last so many; otherwise the first `limit`.
    pub tail: Option<usize>,
    /// Most lines returned.
    pub limit: usize,
    /// Lines that contain this text, case-sensitive.
    pub grep: Option<&'a str>,
    /// Where an earlier page ended; overrides `since_seq` for the streams in it.
    pub after: &'a [LogCursor],
}

/// A position in one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCursor {
    /// The stream.
    pub key: LogKey,
    /// The last line that was seen.
    pub seq: u64,
}

/// One line and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The stream.
    pub key: LogKey,
    /// The line.
    pub line: LogLine,
}

/// Why lines are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapCause {
    /// The node dropped them before they were sent.
    Node,
    /// Retention removed them (and any earlier gap among them).
    Retention,
    /// The stored file is damaged or was removed.
    Damage,
}

/// Lines that are missing from a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGap {
    /// The stream.
    pub key: LogKey,
    /// First missing line.
    pub first_seq: u64,
    /// How many are missing.
    pub n_lost: u64,
    /// Why.
    pub cause: GapCause,
}

/// The answer to a [`LogQuery`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPage {
    /// Lines by time; lines of one stream always in their own order, even when
    /// the node's clock went back.
    pub entries: Vec<LogEntry>,
    /// What is missing in the range that the page covers, by stream and sequence.
    pub gaps: Vec<LogGap>,
    /// Lines were left out: more match than `limit` (a tail does not look whether what it left out matches).
    pub truncated: bool,
    /// Where this page ends in each stream; the `after` of the next.
    pub cursors: Vec<LogCursor>,
}

/// What an open found and mended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOpenReport {
    /// Streams found.
    pub n_streams: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Streams whose last write was torn; the rest of it was cut off. It was
    /// never acknowledged, so the node sends it again.
    pub torn: Vec<LogCursor>,
    /// Stretches inside files that are not readable; reads show them as gaps.
    pub n_bad_stretches: u64,
    /// Files whose name or content makes no sense here; left alone.
    pub foreign_files: Vec<PathBuf>,
}

/// What retention removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Segment files removed.
    pub n_segments: u64,
    /// Lines in them.
    pub n_lines: u64,
    /// Their size.
    pub bytes: u64,
}

/// The log store. One writer; reads see every appended line at once.
#[derive(Debug)]
pub struct LogSegments {
    dir: PathBuf,
    limits: LogLimits,
    streams: BTreeMap<LogKey, StreamState>,
    bytes: u64,
    handles: Handles,
    /// Streams with lines that were not synced.
    unsynced: BTreeSet<LogKey>,
    /// Workload folders with new names that were not synced.
    unsynced_dirs: BTreeSet<PathBuf>,
    _lock: DirLock,
}

impl LogSegments {
    /// Opens the logs in `dir`, creating it if absent. Torn ends of the last
    /// writes are cut off and reported; anything else stays and reads as a gap.
    pub fn open(dir: &Path, limits: LogLimits) -> Result<(Self, LogOpenReport), LogError> {
        durable::private_dir(dir).map_err(io("make the log folder"))?;
        let lock = DirLock::take(&dir.join("logs.lock")).map_err(|error| match error {
            LockError::Held { pid } => LogError::Locked { pid },
            LockError::Io(error) => io("lock the log folder")(error),
        })?;
        let (streams, mut report) = catalog::load(dir)?;
        report.n_streams = streams.len() as u64;
        report.bytes = streams.values().map(StreamState::bytes).sum();
        let handles = Handles::new(limits.open_files_max);
        let segments = Self {
            dir: dir.to_owned(),
            limits,
            bytes: report.bytes,
            streams,
            handles,
            unsynced: BTreeSet::new(),
            unsynced_dirs: BTreeSet::new(),
            _lock: lock,
        };
        tracing::info!(
            dir = %dir.display(),
            n_streams = report.n_streams,
            bytes = report.bytes,
            n_torn = report.torn.len(),
            n_bad_stretches = report.n_bad_stretches,
            "logs open"
        );
        Ok((segments, report))
    }

    /// The last line that is stored or known to be lost; `None` for a stream never heard of.
    pub fn last_seq(&self, key: &LogKey) -> Option<AckSeq> {
        self.streams.get(key).map(|state| AckSeq(state.last_seq()))
    }

    /// The part of [`LogSegments::last_seq`] that is on disk: what may be told to
    /// the node at any time, also between an append and its sync.
    pub fn synced_seq(&self, key: &LogKey) -> Option<AckSeq> {
        let state = self.streams.get(key)?;
        if self.unsynced.contains(key) {
            return Some(AckSeq(state.synced_seq()));
        }
        Some(AckSeq(state.last_seq()))
    }

    /// Streams known, in order.
    pub fn keys(&self) -> impl Iterator<Item = &LogKey> {
        self.streams.keys()
    }

    /// Bytes stored.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Segment files open for writing now.
    pub fn n_open_files(&self) -> usize {
        self.handles.len()
    }
}
