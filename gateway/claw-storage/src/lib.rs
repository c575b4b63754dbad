//! # claw-storage: what the gateway keeps on disk, and proof that it is still what was written
//!
//! Two stores, both blocking (the server calls them from a thread of their own),
//! both ignorant of the control plane's types: records and log lines are bytes.
//!
//! - [`Journal`]: the hash-chained event log that is the gateway's truth.
//!   [`SqliteJournal`] is the durable one, [`MemoryJournal`] the cheap one for
//!   simulation; [`conformance`] is the one suite that both pass.
//! - [`LogSegments`]: durable log lines per workload, attempt and stream.
//!
//! Invariants, most of them absences:
//! - Nothing is acknowledged before it is on disk, and nothing acknowledged is
//!   ever dropped without a record that says so: a damaged journal refuses to
//!   open and names the [`Damage`]; missing log lines are explicit gaps.
//! - Events are never deleted, only archived; only [`Blob`]s can be erased.
//! - This crate reads no clock: times come in as arguments.

pub mod conformance;
mod durable;
mod journal;
mod memory;
mod segments;
mod sqlite;
mod state_writer;
#[cfg(test)]
mod test_disk;
mod ticket;

pub use journal::{
    BLOB_BYTES_MAX, Batch, Blob, CompactReport, Damage, DamageKind, FaultHook, FaultPoint, HANDLE_BYTES_MAX, Head,
    IoCause, Journal, JournalError, KIND_BYTES_MAX, NoFaults, PAYLOAD_BYTES_MAX, Record, Snapshot, Space, Stored,
    VerifyReport, chain_hash,
};
pub use memory::MemoryJournal;
pub use segments::{
    AckSeq, Gap, GapCause, LogCursor, LogEntry, LogError, LogGap, LogKey, LogLimits, LogLine, LogOpenReport, LogPage,
    LogQuery, LogSegments, RetentionReport, Stream,
};
pub use sqlite::{ArchiveCheck, JournalOptions, OpenError, OpenReport, SqliteJournal};
pub use state_writer::{StateWriter, Summed};
pub use ticket::{SnapshotTicket, WrittenSnapshot};
