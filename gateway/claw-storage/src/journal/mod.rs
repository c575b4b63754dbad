//! The journal: versioned records in one hash chain, erasable blobs beside it.
//!
//! ```text
//!   genesis (32 zero bytes)
//!      │ sha256(prev ‖ seq ‖ epoch ‖ at_ms ‖ kind ‖ version ‖ payload)
//!      ▼
//!   event 1 ─▶ event 2 ─▶ … ─▶ event n = head        blobs: handle → bytes | erased
//!   └── archived files ──┘└── live ──┘
//! ```
//!
//! One leader appends. The epoch rises at each gateway start, and an append
//! carries the epoch and the sequence that its writer believes in, so a deposed
//! leader is refused instead of forking history.

mod chain;
mod error;
mod fault;

use std::collections::BTreeMap;
use std::fmt;

use crate::ticket::{SnapshotTicket, WrittenSnapshot};

pub use chain::chain_hash;
pub(crate) use chain::{ChainWalk, GENESIS, from_hex, sha256, to_hex};
pub use error::{Damage, DamageKind, IoCause, JournalError};
pub use fault::{FaultHook, FaultPoint, NoFaults};

/// Longest event kind, bytes.
pub const KIND_BYTES_MAX: usize = 128;
/// Largest payload of one record, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest blob handle, bytes.
pub const HANDLE_BYTES_MAX: usize = 128;
/// Largest blob, bytes.
pub const BLOB_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Highest sequence and epoch: what a signed 64-bit column holds.
pub(crate) const COUNTER_MAX: u64 = i64::MAX as u64;

/// One versioned event on its way into the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Name of the event type, 1 to [`KIND_BYTES_MAX`] bytes.
    pub kind: String,
    /// Version of the payload's format, for upcasters.
    pub version: u16,
    /// Canonical JSON bytes; opaque here.
    pub payload: Vec<u8>,
}

/// What one decision writes: all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Events in order.
    pub records: Vec<Record>,
    /// Erasable values that the events name by handle.
    pub blobs: Vec<Blob>,
}

/// An erasable value. Not part of the hash chain: payloads carry its handle only.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    /// Unique name, 1 to [`HANDLE_BYTES_MAX`] bytes; never reused, not even after erasure.
    pub handle: String,
    /// The value, possibly secret.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Blob {
    // The value may be a secret, so it never reaches a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("handle", &self.handle).field("n_bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// One event as the journal holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Position, from 1, without holes.
    pub seq: u64,
    /// Epoch of the leader that wrote it.
    pub epoch: u64,
    /// Time of the decision, Unix milliseconds.
    pub at_ms: i64,
    /// Name of the event type.
    pub kind: String,
    /// Version of the payload's format.
    pub version: u16,
    /// The bytes that were appended.
    pub payload: Vec<u8>,
    /// Chain hash up to and including this event.
    pub hash: [u8; 32],
}

/// The end of the chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Sequence of the last event, 0 when there is none.
    pub seq: u64,
    /// Current epoch: the only one that may append.
    pub epoch: u64,
    /// Chain hash of the last event, 32 zero bytes when there is none.
    pub hash: [u8; 32],
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("seq", &self.seq)
            .field("epoch", &self.epoch)
            .field("hash", &to_hex(&self.hash))
            .finish()
    }
}

/// A saved state, so that a start need not replay from genesis.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The state is the fold of events 1 to `seq`.
    pub seq: u64,
    /// Format of `state`, chosen by the caller.
    pub format: u16,
    /// The state's bytes; opaque here.
    pub state: Vec<u8>,
    /// Chain hash at `seq`.
    pub hash: [u8; 32],
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("seq", &self.seq)
            .field("format", &self.format)
            .field("n_bytes", &self.state.len())
            .field("hash", &to_hex(&self.hash))
            .finish_non_exhaustive()
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Events moved from the live journal to archive files by this call.
    pub n_events: u64,
    /// Names of the files written, oldest first; empty for the memory journal.
    pub files: Vec<String>,
    /// Bytes of those files.
    pub bytes: u64,
    /// Every event up to here stands in the archive now.
    pub archived_through: u64,
}

/// What a verification walked over; it only exists when all of it was sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The head that the walk arrived at.
    pub head: Head,
    /// Events in the live journal.
    pub n_live: u64,
    /// Events in archive files.
    pub n_archived: u64,
    /// Archive files.
    pub n_archive_files: u64,
    /// Blob handles known, erased ones included.
    pub n_blobs: u64,
    /// Sequence of the latest snapshot.
    pub snapshot_seq: Option<u64>,
}

/// How much room the journal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// The reserve is in place (or none is configured).
    Normal,
    /// The disk was full: the reserve was given up and appends live on it.
    /// The gateway should write its closing records and go read-only.
    OnReserve,
}

/// An append-only, hash-chained, fenced event log with snapshots and erasable blobs.
///
/// After an error of an append the journal stands at its old head, reads go on,
/// and a later append is free to succeed.
pub trait Journal: Send {
    /// The acknowledged end of the chain.
    fn head(&self) -> Head;

    /// Raises the epoch by one, durably, and returns it. Called at each gateway start.
    fn raise_epoch(&mut self) -> Result<u64, JournalError> {
        self.raise_epoch_above(0)
    }

    /// Raises the epoch above both its present value and `seen`, durably, and
    /// returns it. For a restored copy whose nodes saw a higher epoch.
    /// [`JournalError::EpochOutOfRange`] when `seen` is absurd.
    fn raise_epoch_above(&mut self, seen: u64) -> Result<u64, JournalError>;

    /// Appends many batches with one sync: all of them or nothing.
    ///
    /// `expected_seq` must be the head's sequence ([`JournalError::SequenceConflict`])
    /// and `epoch` the current epoch ([`JournalError::Fenced`]). A blob whose
    /// handle exists with the same bytes is left alone, with other bytes or
    /// erased it is [`JournalError::BlobConflict`].
    fn append(&mut self, expected_seq: u64, epoch: u64, at_ms: i64, batches: &[Batch]) -> Result<Head, JournalError>;

    /// Does what is due and can wait until an append is acknowledged; takes some milliseconds
    /// where something is. Nothing that was promised depends on it.
    fn tidy(&mut self) {}

    /// Up to `limit` events after `after_seq`, oldest first, archived ones
    /// included; each is checked against the chain on its way out.
    fn read(&mut self, after_seq: u64, limit: usize) -> Result<Vec<Stored>, JournalError>;

    /// A place for the state after event `seq`; it is written without the journal, which goes
    /// on meanwhile, and counts once it is finished.
    fn begin_snapshot(&mut self, seq: u64) -> Result<SnapshotTicket, JournalError>;

    /// Names a written snapshot as the latest, durably; the previous one goes. One of another
    /// journal is [`JournalError::SequenceConflict`].
    fn finish_snapshot(&mut self, written: WrittenSnapshot) -> Result<(), JournalError>;

    /// Saves the state after event `seq`, durably; the previous snapshot goes.
    fn put_snapshot(&mut self, seq: u64, format: u16, state: &[u8]) -> Result<(), JournalError> {
        let written = self.begin_snapshot(seq)?.write(format, state)?;
        self.finish_snapshot(written)
    }

    /// The latest snapshot, its checksum verified.
    fn latest_snapshot(&mut self) -> Result<Option<Snapshot>, JournalError>;

    /// Moves events up to `up_to_seq` to the archive; needs a snapshot at or
    /// after it ([`JournalError::SnapshotRequired`]). Nothing is deleted.
    fn compact(&mut self, up_to_seq: u64) -> Result<CompactReport, JournalError>;

    /// The value of a handle; `None` when it never existed or was erased.
    fn blob(&mut self, handle: &str) -> Result<Option<Vec<u8>>, JournalError>;

    /// Erases a value for good and returns whether there was one to erase.
    fn erase_blob(&mut self, handle: &str) -> Result<bool, JournalError>;

    /// Walks the whole chain from genesis, archives included.
    fn verify(&mut self) -> Result<VerifyReport, JournalError>;

    /// How much room there is.
    fn space(&self) -> Space {
        Space::Normal
    }
}

/// Fences a deposed leader, then a stale one, then checks every size.
pub(crate) fn admit(head: &Head, expected_seq: u64, epoch: u64, batches: &[Batch]) -> Result<(), JournalError> {
    if epoch != head.epoch {
        return Err(JournalError::Fenced { given: epoch, current: head.epoch });
    }
    if expected_seq != head.seq {
        return Err(JournalError::SequenceConflict { expected: expected_seq, actual: head.seq });
    }
    for batch in batches {
        for record in &batch.records {
            bounded("kind", record.kind.len(), 1, KIND_BYTES_MAX)?;
            bounded("payload", record.payload.len(), 0, PAYLOAD_BYTES_MAX)?;
        }
        for blob in &batch.blobs {
            bounded("blob handle", blob.handle.len(), 1, HANDLE_BYTES_MAX)?;
            bounded("blob", blob.bytes.len(), 0, BLOB_BYTES_MAX)?;
        }
    }
    Ok(())
}

fn bounded(field: &'static str, bytes: usize, bytes_min: usize, bytes_max: usize) -> Result<(), JournalError> {
    if (bytes_min..=bytes_max).contains(&bytes) {
        return Ok(());
    }
    Err(JournalError::BadSize { field, bytes, bytes_min, bytes_max })
}

/// The events that `batches` become on top of `head`, and the head after them.
pub(crate) fn extend_chain(head: &Head, at_ms: i64, batches: &[Batch]) -> (Vec<Stored>, Head) {
    let mut next = *head;
    let records = batches.iter().flat_map(|batch| &batch.records);
    let stored = records
        .map(|record| {
            next.seq += 1;
            next.hash =
                chain_hash(&next.hash, next.seq, next.epoch, at_ms, &record.kind, record.version, &record.payload);
            Stored {
                seq: next.seq,
                epoch: next.epoch,
                at_ms,
                kind: record.kind.clone(),
                version: record.version,
                payload: record.payload.clone(),
                hash: next.hash,
            }
        })
        .collect();
    (stored, next)
}

/// The distinct blobs of `batches`; two values for one handle are a conflict.
pub(crate) fn distinct_blobs(batches: &[Batch]) -> Result<BTreeMap<&str, &[u8]>, JournalError> {
    let mut distinct = BTreeMap::new();
    for blob in batches.iter().flat_map(|batch| &batch.blobs) {
        let previous = distinct.insert(blob.handle.as_str(), blob.bytes.as_slice());
        if previous.is_some_and(|bytes| bytes != blob.bytes) {
            return Err(JournalError::BlobConflict { handle: blob.handle.clone() });
        }
    }
    Ok(distinct)
}

/// The epoch above both `current` and `seen`.
pub(crate) fn next_epoch(current: u64, seen: u64) -> Result<u64, JournalError> {
    // Half the range is kept free, so that one lying node cannot use up the epochs.
    if seen > COUNTER_MAX / 2 {
        return Err(JournalError::EpochOutOfRange { seen });
    }
    Ok(current.max(seen) + 1)
}

/// Whether a snapshot may be put at `seq`.
pub(crate) fn admit_snapshot(head: &Head, latest_seq: Option<u64>, seq: u64) -> Result<(), JournalError> {
    if seq > head.seq {
        return Err(JournalError::BeyondHead { seq, head_seq: head.seq });
    }
    match latest_seq {
        Some(latest_seq) if latest_seq > seq => Err(JournalError::StaleSnapshot { seq, latest_seq }),
        Some(_) | None => Ok(()),
    }
}

/// Whether events up to `up_to_seq` may leave the live journal.
pub(crate) fn admit_compaction(snapshot_seq: Option<u64>, up_to_seq: u64) -> Result<(), JournalError> {
    if snapshot_seq.is_some_and(|seq| seq >= up_to_seq) {
        return Ok(());
    }
    Err(JournalError::SnapshotRequired { up_to_seq, snapshot_seq })
}
