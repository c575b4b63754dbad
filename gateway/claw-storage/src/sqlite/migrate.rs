//! A journal of format 1, which had a row for each event, becomes one of today's.
//!
//! It happens at open, in one transaction that is committed only after everything in it was
//! proven sound: a journal that turns out damaged is left as it was found. Chain, archives,
//! snapshots and blobs stay what they are, and so does the summary but for its format: if the
//! commit is lost, the journal is what it was and is brought over again.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, Transaction};

use crate::journal::{ChainWalk, Damage, DamageKind, Head, JournalError, KIND_BYTES_MAX, PAYLOAD_BYTES_MAX, Stored};

use super::db::{self, DB_FILE, WAL_FILE, content_damage, counter, file, sql};
use super::meta::{FORMAT, Meta};
use super::rows::{EventRow, Packer};

/// The format that has a row for each event.
pub(super) const ROW_FOR_EACH_EVENT: u32 = 1;
const ACTION: &str = "bring the journal to today's format";

/// A journal that is being brought over: begun and not committed.
#[derive(Debug)]
pub(crate) struct Migration<'a> {
    conn: &'a Connection,
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
        Ok(Some(Self { conn, tx, wal: Wal { path, bytes } }))
    }

    /// Makes it so; from here on the connection is like any other. If that fails, the log is to be cut back once
    /// the connection is gone.
    pub(crate) fn commit(self) -> Result<(), (JournalError, Wal)> {
        let Self { conn, tx, wal } = self;
        tx.commit()
            .and_then(|()| conn.pragma_update(None, "secure_delete", true))
            .and_then(|()| conn.pragma_update(None, "cache_spill", true))
            .map_err(|error| (sql(ACTION)(error), wal))
    }
}

impl Wal {
    /// As it was: on a full disk what was written of the commit would fill it until the next start.
    pub(crate) fn cut_back(&self) -> Result<(), JournalError> {
        let log = fs::OpenOptions::new().write(true).open(&self.path);
        log.and_then(|log| log.set_len(self.bytes)).map_err(file(ACTION))
    }
}

/// Packs the rows of single events, checking each against the chain.
fn pack_events(conn: &Connection, meta: &Meta) -> Result<(), JournalError> {
    let damage = || content_damage("read events", DB_FILE, DamageKind::ChainBroken);
    let mut walk = ChainWalk::after(meta.archived_seq, meta.archived_hash);
    let mut statement = conn
        .prepare("SELECT seq, epoch, at_ms, kind, version, payload, hash FROM events ORDER BY seq")
        .map_err(damage())?;
    let mut packer = Packer::after(Head { seq: walk.seq, epoch: walk.epoch, hash: walk.hash });
    let insert = |rows: Vec<EventRow>| rows.iter().try_for_each(|row| row.insert(conn)).map_err(sql(ACTION));
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
        packer.push_stored(&event);
        insert(packer.take_full())?;
    }
    insert(packer.rows())
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
