//! A snapshot that is written beside the journal, which goes on taking events meanwhile.

use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::journal::{JournalError, Snapshot};
use crate::sqlite::{Header, SnapshotMeta, file_error, write_snapshot};
use crate::state_writer::{StateWriter, write_summed};

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

impl WrittenSnapshot {
    /// Size of what was written, bytes.
    pub fn bytes(&self) -> u64 {
        match &self.kept {
            Kept::Memory(snapshot) => snapshot.state.len() as u64,
            Kept::File(meta) => meta.bytes,
        }
    }
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
    pub fn write(self, format: u16, state: &[u8]) -> Result<WrittenSnapshot, JournalError> {
        self.write_with(format, |out| out.write_all(state))
    }

    /// Writes what `state` writes, durably, as it comes: a file is never in memory as a whole.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_with(
        self,
        format: u16,
        state: impl FnOnce(&mut StateWriter<'_>) -> io::Result<()>,
    ) -> Result<WrittenSnapshot, JournalError> {
        let Self { seq, hash, file } = self;
        let kept = if let Some((dir, number)) = file {
            Kept::File(write_snapshot(&dir, number, &Header { seq, format, hash }, state)?)
        } else {
            let mut bytes = Vec::new();
            write_summed(&mut bytes, state).map_err(file_error("write a snapshot"))?;
            Kept::Memory(Snapshot { seq, format, state: bytes, hash })
        };
        Ok(WrittenSnapshot { seq, hash, kept })
    }
}
