//! What can go wrong with a journal, each kind told apart.

use std::fmt;

use thiserror::Error;

/// What is wrong with a stored file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DamageKind {
    /// A file that the rest of the journal relies on is not there.
    FileMissing,
    /// The file is not what its name says: wrong magic, size or structure.
    Unreadable,
    /// The database's own structure check failed.
    PageStructure,
    /// Tables, versions or identification differ from what this journal creates.
    SchemaChanged,
    /// The journal's own summary row fails its checksum.
    MetaChecksum,
    /// An event does not hash to what the chain says.
    ChainBroken,
    /// Events are missing between two others.
    SequenceGap,
    /// The journal ends before what was acknowledged.
    TailLost,
    /// The head anchor names an event that this chain does not have.
    AnchorOffChain,
    /// Neither copy of the head anchor is readable.
    AnchorUnreadable,
    /// An archive file differs from what was archived.
    ArchiveContent,
    /// The snapshot differs from what was saved.
    SnapshotContent,
    /// Blobs differ from what was saved.
    BlobContent,
}

impl DamageKind {
    /// Stable name for logs and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FileMissing => "file missing",
            Self::Unreadable => "unreadable",
            Self::PageStructure => "page structure damaged",
            Self::SchemaChanged => "schema changed",
            Self::MetaChecksum => "summary checksum mismatch",
            Self::ChainBroken => "hash chain broken",
            Self::SequenceGap => "events missing",
            Self::TailLost => "acknowledged tail lost",
            Self::AnchorOffChain => "head anchor not on the chain",
            Self::AnchorUnreadable => "head anchor unreadable",
            Self::ArchiveContent => "archive content changed",
            Self::SnapshotContent => "snapshot content changed",
            Self::BlobContent => "blob content changed",
        }
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Stored data that is not what was written. Never repaired in silence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} in {file}: {detail}")]
pub struct Damage {
    /// File, relative to the journal's folder.
    pub file: String,
    /// What is wrong.
    pub what: DamageKind,
    /// First event that is lost or wrong, when it is known.
    pub first_bad_seq: Option<u64>,
    /// Values seen and expected.
    pub detail: String,
}

impl Damage {
    pub(crate) fn new(file: impl Into<String>, what: DamageKind, detail: impl fmt::Display) -> Self {
        Self { file: file.into(), what, first_bad_seq: None, detail: detail.to_string() }
    }

    pub(crate) fn beginning_at(mut self, seq: u64) -> Self {
        self.first_bad_seq = Some(seq);
        self
    }
}

/// Where an input or output error came from.
#[derive(Debug, Error)]
pub enum IoCause {
    /// The operating system, on a plain file.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// Why a journal operation did not happen.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The writer's epoch is not the current one: it was deposed.
    #[error("fenced: epoch {given} is not the current epoch {current}")]
    Fenced {
        /// Epoch of the caller.
        given: u64,
        /// Epoch of the journal.
        current: u64,
    },
    /// The writer's idea of the head is not the journal's.
    #[error("sequence conflict: expected head {expected}, the journal is at {actual}")]
    SequenceConflict {
        /// Sequence that the caller expected.
        expected: u64,
        /// Sequence of the head.
        actual: u64,
    },
    /// A field is too small or too large; nothing was written.
    #[error("{field} has {bytes} bytes, allowed are {bytes_min} to {bytes_max}")]
    BadSize {
        /// Which field.
        field: &'static str,
        /// Its size.
        bytes: usize,
        /// Smallest allowed.
        bytes_min: usize,
        /// Largest allowed.
        bytes_max: usize,
    },
    /// The handle is taken by other bytes or was erased.
    #[error("blob handle {handle} is taken")]
    BlobConflict {
        /// The handle.
        handle: String,
    },
    /// An epoch that no honest node can have seen.
    #[error("epoch {seen} is out of range")]
    EpochOutOfRange {
        /// The epoch given.
        seen: u64,
    },
    /// The sequence lies beyond the head.
    #[error("sequence {seq} is beyond the head {head_seq}")]
    BeyondHead {
        /// Sequence given.
        seq: u64,
        /// Sequence of the head.
        head_seq: u64,
    },
    /// A later snapshot exists.
    #[error("snapshot at {seq} is older than the latest at {latest_seq}")]
    StaleSnapshot {
        /// Sequence given.
        seq: u64,
        /// Sequence of the latest snapshot.
        latest_seq: u64,
    },
    /// Compaction would archive events that no snapshot covers.
    #[error("compaction to {up_to_seq} needs a snapshot at or after it")]
    SnapshotRequired {
        /// Sequence given.
        up_to_seq: u64,
        /// Sequence of the latest snapshot.
        snapshot_seq: Option<u64>,
    },
    /// The disk (or the configured size limit) is full. The head did not move.
    #[error("journal storage is full")]
    Full,
    /// The disk or the database failed. The head did not move.
    #[error("journal storage failed to {action}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        #[source]
        source: IoCause,
    },
    /// Stored data is not what was written.
    #[error(transparent)]
    Damage(#[from] Damage),
}
