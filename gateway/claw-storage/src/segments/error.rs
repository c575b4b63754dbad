//! Why log lines were not stored or not read.

use thiserror::Error;

/// Why a log operation did not happen.
#[derive(Debug, Error)]
pub enum LogError {
    /// The workload's id cannot be a folder name: 1 to 128 of `A–Z a–z 0–9 _ -`.
    #[error("workload id {workload:?} is not usable as a log key")]
    BadKey {
        /// The id given.
        workload: String,
    },
    /// Sequences begin at 1.
    #[error("log sequence 0 does not exist, sequences begin at 1")]
    ZeroSequence,
    /// The lines of one call do not follow each other.
    #[error("log line {got} follows where {expected} was due")]
    NotContiguous {
        /// Sequence that was due.
        expected: u64,
        /// Sequence that stands there.
        got: u64,
    },
    /// Lines between what is stored and what was sent are missing, and no gap says so.
    #[error("log jumps to {got}, stored is all before {expected}")]
    Jump {
        /// Sequence that was due: the node sends from here, or a gap.
        expected: u64,
        /// First sequence sent.
        got: u64,
    },
    /// The gap is empty or does not fit the number range.
    #[error("gap of {n_lost} lines from {first_seq} is not one")]
    BadGap {
        /// First lost sequence given.
        first_seq: u64,
        /// Lines lost as given.
        n_lost: u64,
    },
    /// One line is too long; the node cuts lines before it sends them.
    #[error("log line {seq} has {bytes} bytes, allowed are {bytes_max}")]
    LineTooLong {
        /// The line.
        seq: u64,
        /// Its size.
        bytes: usize,
        /// Largest allowed.
        bytes_max: usize,
    },
    /// The disk is so full that logs must leave the rest to the journal.
    #[error("{free_bytes} bytes free, logs stop below {free_bytes_min}")]
    LowSpace {
        /// Bytes free now.
        free_bytes: u64,
        /// Bytes that stay free.
        free_bytes_min: u64,
    },
    /// The disk is full.
    #[error("log storage is full")]
    Full,
    /// Another process writes these logs.
    #[error("log storage is in use by another process")]
    Locked {
        /// The holder, where known.
        pid: Option<u32>,
    },
    /// The disk failed. Unacknowledged lines may have to be sent again.
    #[error("log storage failed to {action}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Names what was attempted when a file operation fails.
pub(super) fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> LogError {
    move |source| {
        if crate::durable::is_no_space(&source) {
            return LogError::Full;
        }
        LogError::Io { action, source }
    }
}
