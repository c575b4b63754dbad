//! A journal of format 1, which had a row for each event, becomes one of today's.
//!
//! It happens at open, in one transaction that is committed only after everything in it was
//! proven sound: a journal that turns out damaged is left as it was found. Chain, archives,
//! snapshots and blobs stay what they are, and so does the summary but for its format: if the
//! commit is lost, the journal is what it was and is brought over again.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, Transaction};

use crate::journal::{ChainWalk, Damage, DamageKind, JournalError, KIND_BYTES_MAX, PAYLOAD_BYTES_MAX, Stored};

use super::db::{self, DB_FILE, WAL_FILE, content_damage, counter, file, sql};
use super::meta::{FORMAT, Meta};
use super::rows::{self, HEAD_BYTES};

/// The format that has a row for each event.
const ROW_FOR_EACH_EVENT: u32 = 1;
/// Bytes of events that are packed at once.
const STEP_BYTES: usize = 256 * 1024;
const ACTION: &str = "bring the journal to today's format";

/// A journal that is being brought over: begun and not committed.
#[derive(Debug)]
pub(crate) struct Migration<'a> {
    tx: Transaction<'a>,
    wal: Wal,
}

/// The write-ahead log before it.
#[derive(Debug)]
pub(crate) struct Wal {
    path: PathBuf,
    bytes: u64,
}

impl<'a> Migration<'a> {
    /// Brings a journal of format `found` to [`FORMAT`], not yet for good; none where there is nothing to do.
    pub(crate) fn begin(conn: &'a Connection, dir: &Path, found: u32) -> Result<Option<Self>, JournalError> {
        if found != ROW_FOR_EACH_EVENT {
            return Ok(None);
        }
        let path = dir.join(WAL_FILE);
        let bytes = fs::metadata(&path).map_or(0, |log| log.len());
        // Nothing may reach the log before the commit, and the rows that go need not be written
        // over: events hold no values that could be erased.
        conn.pragma_update(None, "cache_spill", false).map_err(sql(ACTION))?;
        conn.pragma_update(None, "secure_delete", false).map_err(sql(ACTION))?;
        let tx = conn.unchecked_transaction().map_err(sql(ACTION))?;
        let mut meta = Meta::load(&tx)?;
        tx.execute_batch(db::ROUNDS_TABLE).map_err(sql(ACTION))?;
        pack_events(&tx, &meta)?;
        tx.execute_batch("DROP TABLE events").map_err(sql(ACTION))?;
        tx.pragma_update(None, "user_version", FORMAT).map_err(sql(ACTION))?;
        meta.format = FORMAT;
        meta.store(&tx)?;
        Ok(Some(Self { tx, wal: Wal { path, bytes } }))
    }

    /// Makes it so. If that fails, the log is to be cut back once the connection is gone.
    pub(crate) fn commit(self) -> Result<(), (JournalError, Wal)> {
        let Self { tx, wal } = self;
        tx.commit().map_err(|error| (sql(ACTION)(error), wal))
    }
}

impl Wal {
    /// As it was: on a full disk what was written of the commit would fill it until the next start.
    pub(crate) fn cut_back(&self) -> Result<(), JournalError> {
        let log = fs::OpenOptions::new().write(true).open(&self.path);
        log.and_then(|log| log.set_len(self.bytes)).map_err(file(ACTION))
    }
}

/// From here on the connection is like any other.
pub(crate) fn end(conn: &Connection) -> Result<(), JournalError> {
    conn.pragma_update(None, "secure_delete", true).map_err(sql(ACTION))?;
    conn.pragma_update(None, "cache_spill", true).map_err(sql(ACTION))
}

/// Packs the rows of single events, checking each against the chain.
fn pack_events(conn: &Connection, meta: &Meta) -> Result<(), JournalError> {
    let damage = || content_damage("read events", DB_FILE, DamageKind::ChainBroken);
    let mut walk = ChainWalk::after(meta.archived_seq, meta.archived_hash);
    let mut statement = conn
        .prepare("SELECT seq, epoch, at_ms, kind, version, payload, hash FROM events ORDER BY seq")
        .map_err(damage())?;
    let (mut step, mut step_bytes, mut prev_hash) = (Vec::new(), 0, walk.hash);
    let found = statement.query_map([], event_of).map_err(damage())?;
    for event in found {
        let event = event.map_err(damage()).map_err(|error| match error {
            JournalError::Damage(damage) => damage.beginning_at(walk.seq + 1).into(),
            other => other,
        })?;
        walk.step(DB_FILE, &event)?;
        if event.kind.len() > KIND_BYTES_MAX || event.payload.len() > PAYLOAD_BYTES_MAX {
            let detail = format!("event {} is larger than any that was appended", event.seq);
            return Err(Damage::new(DB_FILE, DamageKind::ChainBroken, detail).beginning_at(event.seq).into());
        }
        step_bytes += HEAD_BYTES + event.kind.len() + event.payload.len();
        step.push(event);
        if step_bytes >= STEP_BYTES {
            insert(conn, prev_hash, &step)?;
            step.clear();
            (step_bytes, prev_hash) = (0, walk.hash);
        }
    }
    insert(conn, prev_hash, &step)
}

fn insert(conn: &Connection, prev_hash: [u8; 32], events: &[Stored]) -> Result<(), JournalError> {
    rows::pack_stored(prev_hash, events).iter().try_for_each(|row| row.insert(conn)).map_err(sql(ACTION))
}

fn event_of(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        seq: counter(row, 0)?,
        epoch: counter(row, 1)?,
        at_ms: row.get(2)?,
        kind: row.get(3)?,
        version: row.get(4)?,
        payload: row.get(5)?,
        hash: row.get(6)?,
    })
}
