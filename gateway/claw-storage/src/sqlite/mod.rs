//! The journal on SQLite and files.
//!
//! ```text
//! journal.db, -wal     live events, blobs, the summary row          one transaction per append (see `rows`)
//! journal.head         what was acknowledged (see `anchor`)         after each commit
//! archive/NNNNNN.jsonl events that compaction moved out             before they leave the database
//! snapshot/*.snap      the latest saved state                       before the summary names it
//! reserve.bin          ballast against a full disk (see `reserve`)
//! journal.lock         one process at a time, with its id
//! ```
//!
//! An error between a commit and its acknowledgement leaves the outcome open on
//! disk. The journal then counts as *unsettled*: before the next write it reopens
//! the database and takes back what was never acknowledged. Should the process
//! die first, the next open finds those events on the chain and keeps them, which
//! is why the layer above carries a request id in every batch.

mod anchor;
mod archive;
mod db;
mod meta;
mod migrate;
mod open;
mod reserve;
mod rows;
mod snapshot;
#[cfg(test)]
mod tests;
mod verify;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _};
use thiserror::Error;

use crate::durable::DirLock;
use crate::journal::{
    Batch, CompactReport, Damage, FaultHook, Head, Journal, JournalError, NoFaults, Snapshot, Space, Stored,
    VerifyReport, admit, next_epoch,
};
use crate::ticket::{SnapshotTicket, WrittenSnapshot};

use anchor::Anchor;
use archive::ArchiveRow;
pub(crate) use db::file as file_error;
use db::sql;
use meta::Meta;
pub(crate) use meta::SnapshotMeta;
use reserve::Reserve;
pub(crate) use snapshot::{Header, write as write_snapshot};
use write::Unsettled;

/// Bytes in the write-ahead log, about, after which it is folded into the database.
const FOLD_BYTES: usize = 4 << 20;
/// What a commit writes besides what it is for: the summary, and inner pages of the tables.
const COMMIT_BYTES: usize = 3 * 4_096;

/// How much of the archive an open reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ArchiveCheck {
    /// Every byte: the whole chain from genesis is proven.
    #[default]
    Full,
    /// Presence and size only, for very long histories. A damaged archive is
    /// then named by the read (or `verify`) that touches it.
    Size,
}

/// How a journal is opened.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Ballast freed at the first full disk, bytes; 0 = none.
    pub reserve_bytes: u64,
    /// Largest size of the live database, bytes; beyond it appends are [`JournalError::Full`].
    pub db_bytes_max: Option<u64>,
    /// Most events in one archive file.
    pub archive_events_max: usize,
    /// How much of the archive is read at open.
    pub archive_check: ArchiveCheck,
    /// Called in each append.
    pub faults: Arc<dyn FaultHook>,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            reserve_bytes: 4 * 1024 * 1024,
            db_bytes_max: None,
            archive_events_max: 10_000,
            archive_check: ArchiveCheck::Full,
            faults: Arc::new(NoFaults),
        }
    }
}

/// What an open found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// The journal was created by this open.
    pub created: bool,
    /// Where the chain stands.
    pub head: Head,
    /// Events that were committed but not acknowledged when the last process died; they are kept.
    pub n_unacknowledged: u64,
    /// One copy of the head anchor was unreadable (a torn write) and was written again.
    pub anchor_mended: bool,
    /// It was of an older format and is of today's now.
    pub migrated: bool,
    /// Unfinished or unreferenced files of an interrupted write, removed.
    pub leftovers_removed: Vec<String>,
}

/// Why a journal did not open. Its files are as they were found (an empty
/// write-ahead log may have appeared).
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("journal {} is in use by {}", .dir.display(), match .pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    })]
    Locked {
        /// The journal's folder.
        dir: PathBuf,
        /// The holder, where known.
        pid: Option<u32>,
    },
    /// A newer build wrote it.
    #[error("journal format {found} is newer than {supported}, the newest this build reads")]
    NewerFormat {
        /// Format found.
        found: u32,
        /// Newest format of this build.
        supported: u32,
    },
    /// Stored data is not what was written.
    #[error(transparent)]
    Damage(Damage),
    /// Reading or writing failed.
    #[error(transparent)]
    Journal(JournalError),
}

impl From<JournalError> for OpenError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Damage(damage) => Self::Damage(damage),
            other => Self::Journal(other),
        }
    }
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

/// The durable [`Journal`].
#[derive(Debug)]
pub struct SqliteJournal {
    dir: PathBuf,
    options: JournalOptions,
    /// `None` only when a reopening failed; every use tries again.
    conn: Option<Connection>,
    /// The acknowledged state.
    meta: Meta,
    anchor: Anchor,
    archives: Vec<ArchiveRow>,
    /// The archive file read last: reads come in sequence.
    cached_archive: Option<(u64, Vec<Stored>)>,
    reserve: Reserve,
    unsettled: Option<Unsettled>,
    /// Bytes that were written since the write-ahead log was folded, about.
    unfolded_bytes: usize,
    // Last, so that the folder is free only after the database is closed.
    _lock: DirLock,
}

impl SqliteJournal {
    /// Opens the journal in `dir`, creating it if absent, and proves it sound:
    /// structure, the whole hash chain, archives, snapshot, blobs, and that
    /// nothing acknowledged is missing.
    pub fn open(dir: &Path) -> Result<(Self, OpenReport), OpenError> {
        Self::open_with(dir, JournalOptions::default())
    }

    /// [`SqliteJournal::open`] with options.
    pub fn open_with(dir: &Path, options: JournalOptions) -> Result<(Self, OpenReport), OpenError> {
        open::open(dir, options)
    }

    /// Sets or lifts the limit on the live database's size, bytes.
    pub fn set_db_bytes_max(&mut self, bytes_max: Option<u64>) -> Result<(), JournalError> {
        self.options.db_bytes_max = bytes_max;
        db::limit_size(self.connection()?, bytes_max)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The connection, opened again if an earlier reopening failed.
    fn connection(&mut self) -> Result<&mut Connection, JournalError> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => db::connect(&self.dir, self.options.db_bytes_max)?,
        };
        Ok(self.conn.insert(conn))
    }

    /// The archive file that holds event `seq`.
    fn archived(&mut self, seq: u64) -> Result<&[Stored], JournalError> {
        let at = self.archives.partition_point(|row| row.last_seq < seq);
        let row = &self.archives[at];
        let cached = self.cached_archive.take();
        let entry = match cached.filter(|(index, _)| *index == row.index) {
            Some(entry) => entry,
            None => (row.index, row.read(&self.dir)?),
        };
        Ok(&self.cached_archive.insert(entry).1)
    }
}

impl Journal for SqliteJournal {
    fn head(&self) -> Head {
        self.meta.head()
    }

    fn raise_epoch_above(&mut self, seen: u64) -> Result<u64, JournalError> {
        self.on_reserve_if_full(|journal| {
            let mut next = journal.meta.clone();
            next.epoch = next_epoch(next.epoch, seen)?;
            journal.commit(next, Unsettled::KeepCommitted, |_| Ok(()))?;
            Ok(journal.meta.epoch)
        })
    }

    fn append(&mut self, expected_seq: u64, epoch: u64, at_ms: i64, batches: &[Batch]) -> Result<Head, JournalError> {
        self.on_reserve_if_full(|journal| {
            admit(&journal.meta.head(), expected_seq, epoch, batches)?;
            journal.append_once(at_ms, batches)
        })
    }

    fn tidy(&mut self) {
        // A connection that failed to commit is not to touch the files.
        if self.unfolded_bytes < FOLD_BYTES || self.unsettled.is_some() {
            return;
        }
        self.unfolded_bytes = 0;
        let folded = self.connection().and_then(|conn| db::fold_log(conn).map_err(sql("fold the log")));
        if let Err(error) = folded {
            tracing::warn!(%error, "the write-ahead log grows until it can be folded");
        }
    }

    fn read(&mut self, after_seq: u64, limit: usize) -> Result<Vec<Stored>, JournalError> {
        let mut events: Vec<Stored> = Vec::new();
        let mut after_seq = after_seq;
        while events.len() < limit && after_seq < self.meta.archived_seq {
            let archived = self.archived(after_seq + 1)?;
            let rest = archived.iter().filter(|event| event.seq > after_seq);
            events.extend(rest.take(limit - events.len()).cloned());
            after_seq = events.last().map_or(after_seq, |event| event.seq);
        }
        if events.len() < limit && after_seq < self.meta.seq {
            let meta = self.meta.clone();
            events.append(&mut rows::read(self.connection()?, &meta, after_seq, limit - events.len())?);
        }
        Ok(events)
    }

    fn begin_snapshot(&mut self, seq: u64) -> Result<SnapshotTicket, JournalError> {
        self.place_snapshot(seq)
    }

    fn finish_snapshot(&mut self, written: WrittenSnapshot) -> Result<(), JournalError> {
        self.name_snapshot(written)
    }

    fn latest_snapshot(&mut self) -> Result<Option<Snapshot>, JournalError> {
        let saved = self.meta.snapshot.as_ref();
        saved.map(|meta| snapshot::read(&self.dir, meta)).transpose()
    }

    fn compact(&mut self, up_to_seq: u64) -> Result<CompactReport, JournalError> {
        self.archive_through(up_to_seq)
    }

    fn blob(&mut self, handle: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let bytes: Option<Option<Vec<u8>>> = self
            .connection()?
            .prepare_cached("SELECT bytes FROM blobs WHERE handle = ?1")
            .and_then(|mut statement| statement.query_row([handle], |row| row.get(0)).optional())
            .map_err(sql("read a blob"))?;
        Ok(bytes.flatten())
    }

    fn erase_blob(&mut self, handle: &str) -> Result<bool, JournalError> {
        self.on_reserve_if_full(|journal| journal.erase(handle))
    }

    fn verify(&mut self) -> Result<VerifyReport, JournalError> {
        self.settle()?;
        verify::anchor_is_current(&self.dir, &self.meta)?;
        let (dir, expected) = (self.dir.clone(), self.meta.clone());
        verify::everything(self.connection()?, &dir, &expected)
    }

    fn space(&self) -> Space {
        self.reserve.space()
    }
}
