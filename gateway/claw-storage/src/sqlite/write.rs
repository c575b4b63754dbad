//! Every write goes one way: settle, one transaction with a new summary row,
//! commit, anchor, and only then the acknowledged state moves.

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::durable;
use crate::journal::{
    Batch, CompactReport, Damage, DamageKind, FaultPoint, Head, JournalError, admit_compaction, admit_snapshot,
    distinct_blobs,
};
use crate::ticket::{Kept, SnapshotTicket, WrittenSnapshot};

use super::anchor::Anchored;
use super::archive::{self, ARCHIVE_DIR, ArchiveRow};
use super::db::{self, DB_FILE, file, sql};
use super::meta::{Meta, SnapshotMeta};
use super::rows::{self, EventRow};
use super::snapshot::{self, SNAPSHOT_DIR};
use super::{COMMIT_BYTES, SqliteJournal};

/// What to do with a commit whose acknowledgement failed, once the disk works again.
#[derive(Debug, Clone)]
pub(super) enum Unsettled {
    /// An append: its events and these new blobs are taken back.
    TakeBack { new_handles: Vec<String> },
    /// Anything else is harmless if it happened: it is kept.
    KeepCommitted,
}

impl SqliteJournal {
    /// Runs `write`; at a full disk gives up the reserve and runs it once more.
    pub(super) fn on_reserve_if_full<T>(
        &mut self,
        mut write: impl FnMut(&mut Self) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        self.reserve.regain();
        match write(self) {
            Err(JournalError::Full) if self.reserve.release() => write(self),
            done => done,
        }
    }

    /// Commits `fill` together with the summary `next` and acknowledges it.
    pub(super) fn commit(
        &mut self,
        mut next: Meta,
        if_unsettled: Unsettled,
        fill: impl FnOnce(&Connection) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        self.settle()?;
        self.unfolded_bytes += COMMIT_BYTES;
        next.generation = self.meta.generation + 1;
        let acknowledged = self.meta.clone();
        let conn = self.connection()?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql("begin a transaction"))?;
        fence(&Meta::load(&tx)?, &acknowledged)?;
        fill(&tx)?;
        next.store(&tx)?;
        let committed = tx.commit().map_err(sql("commit"));
        let anchored =
            committed.and_then(|()| self.anchor.write(&Anchored::from(&next)).map_err(file("write the head anchor")));
        if let Err(error) = anchored {
            self.unsettled = Some(if_unsettled);
            return Err(error);
        }
        self.meta = next;
        Ok(())
    }

    /// Makes disk and acknowledged state agree again after a failed commit.
    pub(super) fn settle(&mut self) -> Result<(), JournalError> {
        let Some(unsettled) = self.unsettled.clone() else {
            return Ok(());
        };
        // A connection that failed to commit may see what is not on disk, so it
        // goes, without touching the files, and a new one reads what is there.
        if let Some(conn) = self.conn.take() {
            db::forbid_checkpoint_on_close(&conn)?;
        }
        let acknowledged = self.meta.clone();
        let conn = self.connection()?;
        db::allow_checkpoint_on_close(conn)?;
        let found = Meta::load(conn)?;
        let mut settled = acknowledged.clone();
        if found.generation != acknowledged.generation {
            match unsettled {
                Unsettled::KeepCommitted => settled = found,
                Unsettled::TakeBack { new_handles } => {
                    settled.generation = found.generation + 1;
                    take_back(conn, &settled, &new_handles)?;
                }
            }
        }
        let archives = ArchiveRow::load_all(conn)?;
        self.anchor.write(&Anchored::from(&settled)).map_err(file("write the head anchor"))?;
        self.archives = archives;
        self.meta = settled;
        self.unsettled = None;
        tracing::info!(seq = self.meta.seq, "journal settled after a failed write");
        Ok(())
    }

    pub(super) fn append_once(&mut self, at_ms: i64, batches: &[Batch]) -> Result<Head, JournalError> {
        let faults = self.options.faults.clone();
        faults.at(FaultPoint::BeforeAppend);
        self.settle()?;
        let blobs = distinct_blobs(batches)?;
        let mut new_blobs = Vec::new();
        let mut next = self.meta.clone();
        for (handle, bytes) in blobs {
            match blob_state(self.connection()?, handle)? {
                BlobState::Unknown => {
                    next.toggle_blob(handle, Some(bytes));
                    next.n_blobs += 1;
                    new_blobs.push((handle, bytes));
                }
                BlobState::Held(held) if held == bytes => {}
                BlobState::Held(_) | BlobState::Erased => {
                    return Err(JournalError::BlobConflict { handle: handle.to_owned() });
                }
            }
        }
        let n_blob_bytes: usize = new_blobs.iter().map(|(_, bytes)| bytes.len()).sum();
        let (new_rows, head) = rows::pack(&self.meta.head(), at_ms, batches);
        if new_rows.is_empty() && new_blobs.is_empty() {
            return Ok(self.meta.head());
        }
        (next.seq, next.hash) = (head.seq, head.hash);
        let new_handles = new_blobs.iter().map(|(handle, _)| (*handle).to_owned());
        let if_unsettled = Unsettled::TakeBack { new_handles: new_handles.collect() };
        self.commit(next, if_unsettled, |conn| {
            insert_all(conn, &new_rows, &new_blobs).map_err(sql("append events"))?;
            faults.at(FaultPoint::AfterAppend);
            Ok(())
        })?;
        faults.at(FaultPoint::AfterFsync);
        self.unfolded_bytes += n_blob_bytes + new_rows.iter().map(EventRow::bytes).sum::<usize>();
        Ok(self.meta.head())
    }

    pub(super) fn erase(&mut self, handle: &str) -> Result<bool, JournalError> {
        self.settle()?;
        let BlobState::Held(bytes) = blob_state(self.connection()?, handle)? else {
            return Ok(false);
        };
        let mut next = self.meta.clone();
        next.toggle_blob(handle, Some(&bytes));
        next.toggle_blob(handle, None);
        self.commit(next, Unsettled::KeepCommitted, |conn| {
            conn.execute("UPDATE blobs SET bytes = NULL WHERE handle = ?1", [handle])
                .map(|_| ())
                .map_err(sql("erase a blob"))
        })?;
        // Old pages with the value stand in the write-ahead log until it is folded
        // into the database; erased must mean gone from the disk.
        let folded = self.connection()?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = folded {
            tracing::warn!(%error, "erased value leaves the write-ahead log at the next checkpoint");
        }
        Ok(true)
    }

    pub(super) fn place_snapshot(&mut self, seq: u64) -> Result<SnapshotTicket, JournalError> {
        // Whoever stands on the reserve appends little: a snapshot has to notice that there is room again.
        self.reserve.regain();
        self.settle()?;
        admit_snapshot(&self.meta.head(), self.meta.snapshot_seq(), seq)?;
        let hash = self.hash_at(seq)?;
        durable::private_dir(&self.dir.join(SNAPSHOT_DIR)).map_err(file("make a folder"))?;
        // Takes a number that no other file has: several may be on their way at once, of one event, too.
        self.commit(self.meta.clone(), Unsettled::KeepCommitted, |_| Ok(()))?;
        Ok(SnapshotTicket { seq, hash, file: Some((self.dir.clone(), self.meta.generation)) })
    }

    pub(super) fn name_snapshot(&mut self, written: WrittenSnapshot) -> Result<(), JournalError> {
        self.settle()?;
        let WrittenSnapshot { seq, hash, kept } = written;
        let head = self.meta.head();
        let saved = match kept {
            Kept::File(saved) if seq <= head.seq && hash == self.hash_at(seq)? => saved,
            _ => return Err(JournalError::SequenceConflict { expected: seq, actual: head.seq }),
        };
        if let Err(overtaken) = admit_snapshot(&head, self.meta.snapshot_seq(), seq) {
            self.remove_snapshot(&saved);
            return Err(overtaken);
        }
        let mut next = self.meta.clone();
        let previous = next.snapshot.replace(saved);
        self.commit(next, Unsettled::KeepCommitted, |_| Ok(()))?;
        if let Some(previous) = previous {
            self.remove_snapshot(&previous);
        }
        Ok(())
    }

    /// Removes the file of a snapshot that nothing names any more.
    fn remove_snapshot(&self, unnamed: &SnapshotMeta) {
        let removed = durable::remove_if_there(&self.dir.join(snapshot::name_of(unnamed)));
        if let Err(error) = removed {
            tracing::warn!(%error, file = unnamed.file, "a snapshot that nothing names goes at the next open");
        }
    }

    pub(super) fn archive_through(&mut self, up_to_seq: u64) -> Result<CompactReport, JournalError> {
        self.settle()?;
        admit_compaction(self.meta.snapshot_seq(), up_to_seq)?;
        let mut report = CompactReport::default();
        while self.meta.archived_seq < up_to_seq {
            let row = self.archive_next(up_to_seq)?;
            report.n_events += row.last_seq + 1 - row.first_seq;
            report.bytes += row.bytes;
            report.files.push(row.name());
            self.archives.push(row);
        }
        report.archived_through = self.meta.archived_seq;
        Ok(report)
    }

    /// Moves the oldest live events into one archive file.
    fn archive_next(&mut self, up_to_seq: u64) -> Result<ArchiveRow, JournalError> {
        let archived_seq = self.meta.archived_seq;
        let left = usize::try_from(up_to_seq - archived_seq).unwrap_or(usize::MAX);
        let n_events = left.min(self.options.archive_events_max.max(1));
        let meta = self.meta.clone();
        let events = rows::read(self.connection()?, &meta, archived_seq, n_events)?;
        durable::private_dir(&self.dir.join(ARCHIVE_DIR)).map_err(file("make a folder"))?;
        let index = self.meta.n_archives + 1;
        let row = archive::write(&self.dir, index, &self.meta.archived_hash, &events)?;
        let mut next = self.meta.clone();
        next.n_archives = index;
        next.archived_seq = row.last_seq;
        next.archived_hash = events.last().map_or(next.archived_hash, |event| event.hash);
        self.commit(next, Unsettled::KeepCommitted, |conn| {
            row.insert(conn)?;
            rows::remove_through(conn, row.last_seq)
        })?;
        Ok(row)
    }

    /// Chain hash of event `seq`, which is at or before the head.
    pub(super) fn hash_at(&mut self, seq: u64) -> Result<[u8; 32], JournalError> {
        if seq == self.meta.archived_seq {
            return Ok(self.meta.archived_hash);
        }
        if seq > self.meta.archived_seq {
            return rows::live_hash(self.connection()?, seq);
        }
        if seq == 0 {
            return Ok(crate::journal::GENESIS);
        }
        let archived = self.archived(seq)?;
        let event = archived.iter().find(|event| event.seq == seq);
        event.map(|event| event.hash).ok_or_else(|| {
            let detail = format!("event {seq} is not where the archive list says");
            Damage::new(DB_FILE, DamageKind::SequenceGap, detail).beginning_at(seq).into()
        })
    }
}

/// The row must be the one this process wrote last; any other writer wins over us.
fn fence(found: &Meta, acknowledged: &Meta) -> Result<(), JournalError> {
    if found.epoch != acknowledged.epoch {
        return Err(JournalError::Fenced { given: acknowledged.epoch, current: found.epoch });
    }
    if found.generation != acknowledged.generation {
        return Err(JournalError::SequenceConflict { expected: acknowledged.seq, actual: found.seq });
    }
    Ok(())
}

fn insert_all(conn: &Connection, new_rows: &[EventRow], new_blobs: &[(&str, &[u8])]) -> rusqlite::Result<()> {
    for row in new_rows {
        row.insert(conn)?;
    }
    for (handle, bytes) in new_blobs {
        conn.prepare_cached("INSERT INTO blobs VALUES (?1, ?2)")?.execute(params![handle, bytes])?;
    }
    Ok(())
}

/// Removes what an append committed but never acknowledged.
fn take_back(conn: &mut Connection, settled: &Meta, new_handles: &[String]) -> Result<(), JournalError> {
    let action = "take back an unacknowledged append";
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql(action))?;
    rows::remove_after(&tx, settled.seq).map_err(sql(action))?;
    for handle in new_handles {
        tx.execute("DELETE FROM blobs WHERE handle = ?1", [handle]).map_err(sql(action))?;
    }
    settled.store(&tx)?;
    tx.commit().map_err(sql(action))
}

enum BlobState {
    Unknown,
    Held(Vec<u8>),
    Erased,
}

fn blob_state(conn: &Connection, handle: &str) -> Result<BlobState, JournalError> {
    let found: Option<Option<Vec<u8>>> = conn
        .prepare_cached("SELECT bytes FROM blobs WHERE handle = ?1")
        .and_then(|mut statement| statement.query_row([handle], |row| row.get(0)).optional())
        .map_err(sql("read a blob"))?;
    Ok(match found {
        None => BlobState::Unknown,
        Some(None) => BlobState::Erased,
        Some(Some(bytes)) => BlobState::Held(bytes),
    })
}
