//! A snapshot that is written beside the journal, which goes on taking events meanwhile.

use std::path::PathBuf;

use crate::journal::{JournalError, Snapshot};
use crate::sqlite::{SnapshotMeta, write_snapshot};

/// A place on the chain for a snapshot, from [`crate::Journal::begin_snapshot`]. It needs no
/// journal to be written, so another thread may do that.
#[derive(Debug)]
pub struct SnapshotTicket {
    pub(crate) seq: u64,
    pub(crate) hash: [u8; 32],
    /// Folder and a number that no earlier file has; none in memory.
    pub(crate) file: Option<(PathBuf, u64)>,
}

/// A snapshot that is written and not named yet, for [`crate::Journal::finish_snapshot`].
#[derive(Debug)]
pub struct WrittenSnapshot {
    pub(crate) seq: u64,
    pub(crate) hash: [u8; 32],
    pub(crate) kept: Kept,
}

/// Where it is.
#[derive(Debug)]
pub(crate) enum Kept {
    Memory(Snapshot),
    File(SnapshotMeta),
}

impl SnapshotTicket {
    /// Writes the state, durably.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(self, format: u16, state: Vec<u8>) -> Result<WrittenSnapshot, JournalError> {
        let Self { seq, hash, file } = self;
        let snapshot = Snapshot { seq, format, state, hash };
        let kept = match file {
            Some((dir, number)) => Kept::File(write_snapshot(&dir, number, &snapshot)?),
            None => Kept::Memory(snapshot),
        };
        Ok(WrittenSnapshot { seq, hash, kept })
    }
}
