//! Proof that what is on disk is what was written. Used at open and on demand.

use std::path::Path;

use rusqlite::Connection;

use crate::journal::{ChainWalk, Damage, DamageKind, GENESIS, JournalError, VerifyReport};

use super::ArchiveCheck;
use super::anchor::{ANCHOR_FILE, Anchor, AnchorFault, Anchored};
use super::archive::ArchiveRow;
use super::db::{self, DB_FILE, WAL_FILE, content_damage, file};
use super::meta::{FORMAT, Meta};
use super::{rows, snapshot};

/// Walks archives and live events from genesis (with [`ArchiveCheck::Size`]: from
/// the first live event) to the head in `meta`. Returns the hash of `probe_seq`
/// where the walk came by it.
pub(crate) fn chain(
    conn: &Connection,
    dir: &Path,
    meta: &Meta,
    archives: &[ArchiveRow],
    check: ArchiveCheck,
    probe_seq: u64,
) -> Result<Option<[u8; 32]>, JournalError> {
    let listed = archives.last().map_or(0, |row| row.last_seq);
    if (archives.len() as u64, listed) != (meta.n_archives, meta.archived_seq) {
        let detail = format!("archive list ends at {listed}, not at {}", meta.archived_seq);
        let damage = Damage::new(DB_FILE, DamageKind::ArchiveContent, detail);
        return Err(damage.beginning_at(listed + 1).into());
    }
    let mut probed = (probe_seq == 0).then_some(GENESIS);
    let mut walk = ChainWalk::after(0, GENESIS);
    for row in archives {
        match check {
            ArchiveCheck::Size => check_size(dir, row)?,
            ArchiveCheck::Full => {
                for event in row.read(dir)? {
                    walk.step(&row.name(), &event)?;
                    if event.seq == probe_seq {
                        probed = Some(event.hash);
                    }
                }
            }
        }
    }
    if check == ArchiveCheck::Size {
        walk = ChainWalk::after(meta.archived_seq, meta.archived_hash);
    }
    if (walk.seq, walk.hash) != (meta.archived_seq, meta.archived_hash) {
        let detail = format!("archive ends at event {} with another hash", walk.seq);
        let damage = Damage::new(DB_FILE, DamageKind::ArchiveContent, detail);
        return Err(damage.beginning_at(walk.seq).into());
    }
    if probe_seq == walk.seq {
        probed = Some(walk.hash);
    }
    probed = rows::walk_all(conn, &mut walk, probe_seq)?.or(probed);
    if walk.seq < meta.seq {
        let detail = format!("the chain ends at event {} of {}", walk.seq, meta.seq);
        let damage = Damage::new(DB_FILE, DamageKind::TailLost, detail);
        return Err(damage.beginning_at(walk.seq + 1).into());
    }
    if (walk.seq, walk.hash) != (meta.seq, meta.hash) || walk.epoch > meta.epoch {
        let detail = format!("event {} is not the head in the summary", walk.seq);
        let damage = Damage::new(DB_FILE, DamageKind::ChainBroken, detail);
        return Err(damage.beginning_at(meta.seq).into());
    }
    Ok(probed)
}

fn check_size(dir: &Path, row: &ArchiveRow) -> Result<(), JournalError> {
    let found_bytes = match row.path(dir).metadata() {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let detail = "archive file is not there";
            let damage = Damage::new(row.name(), DamageKind::FileMissing, detail);
            return Err(damage.beginning_at(row.first_seq).into());
        }
        Err(error) => return Err(file("look at an archive file")(error)),
    };
    if found_bytes == row.bytes {
        return Ok(());
    }
    let detail = format!("{found_bytes} bytes instead of {}", row.bytes);
    let damage = Damage::new(row.name(), DamageKind::ArchiveContent, detail);
    Err(damage.beginning_at(row.first_seq).into())
}

/// The blobs are those that the summary counts.
pub(crate) fn blobs(conn: &Connection, meta: &Meta) -> Result<(), JournalError> {
    let damage = || content_damage("read blobs", DB_FILE, DamageKind::BlobContent);
    let mut statement = conn.prepare("SELECT handle, bytes FROM blobs").map_err(damage())?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<Vec<u8>>>(1)?)))
        .map_err(damage())?;
    // What is left after taking every row out of the digest must be nothing.
    let mut rest = meta.clone();
    let mut n_blobs = 0_u64;
    for row in rows {
        let (handle, bytes) = row.map_err(damage())?;
        rest.toggle_blob(&handle, bytes.as_deref());
        n_blobs += 1;
    }
    if n_blobs != meta.n_blobs || rest.blobs_digest != [0; 32] {
        let detail = format!("{n_blobs} blobs of {} or other values", meta.n_blobs);
        return Err(Damage::new(DB_FILE, DamageKind::BlobContent, detail).into());
    }
    Ok(())
}

/// The latest snapshot is what was saved, and it belongs to this chain.
pub(crate) fn snapshot(conn: &Connection, dir: &Path, meta: &Meta) -> Result<(), JournalError> {
    let Some(saved) = &meta.snapshot else {
        return Ok(());
    };
    let snapshot = snapshot::read(dir, saved)?;
    if snapshot.seq < meta.archived_seq {
        // Its event is in the archive, whose own walk vouches for the rest.
        return Ok(());
    }
    let hash =
        if snapshot.seq == meta.archived_seq { meta.archived_hash } else { rows::live_hash(conn, snapshot.seq)? };
    if hash != snapshot.hash {
        let detail = format!("taken at another event {}", snapshot.seq);
        let name = snapshot::name_of(saved);
        return Err(Damage::new(name, DamageKind::SnapshotContent, detail).into());
    }
    Ok(())
}

/// Nothing that was acknowledged is missing: the anchor is the journal's present or its past.
pub(crate) fn anchor_holds(anchored: &Anchored, meta: &Meta, hash_at_anchor: Option<[u8; 32]>) -> Result<(), Damage> {
    let detail = format!(
        "acknowledged up to transaction {} (event {}, epoch {}), found transaction {} (event {}, epoch {})",
        anchored.generation, anchored.seq, anchored.epoch, meta.generation, meta.seq, meta.epoch
    );
    let is_behind = meta.generation < anchored.generation || meta.epoch < anchored.epoch;
    if is_behind || meta.seq < anchored.seq {
        let damage = Damage::new(WAL_FILE, DamageKind::TailLost, detail);
        return Err(if meta.seq < anchored.seq { damage.beginning_at(meta.seq + 1) } else { damage });
    }
    let is_same_transaction = meta.generation == anchored.generation;
    if is_same_transaction && Anchored::from(meta) != *anchored {
        return Err(Damage::new(ANCHOR_FILE, DamageKind::AnchorOffChain, detail));
    }
    // Without a hash the anchor lies in an archive that was not read; its file vouches for it.
    if hash_at_anchor.is_some_and(|hash| hash != anchored.hash) {
        let damage = Damage::new(ANCHOR_FILE, DamageKind::AnchorOffChain, detail);
        return Err(damage.beginning_at(anchored.seq));
    }
    Ok(())
}

/// While the journal is open the anchor on disk is exactly the acknowledged state.
pub(crate) fn anchor_is_current(dir: &Path, meta: &Meta) -> Result<(), JournalError> {
    match Anchor::load(dir) {
        Ok(Some(loaded)) if loaded.anchored == Anchored::from(meta) => Ok(()),
        Ok(Some(loaded)) => {
            anchor_holds(&loaded.anchored, meta, None)?;
            let detail = "the anchor on disk is older than what was acknowledged";
            Err(Damage::new(ANCHOR_FILE, DamageKind::AnchorOffChain, detail).into())
        }
        Ok(None) => {
            let detail = "the head anchor is not there";
            Err(Damage::new(ANCHOR_FILE, DamageKind::FileMissing, detail).into())
        }
        Err(AnchorFault::Damage(damage)) => Err(damage.into()),
        Err(AnchorFault::Io(error)) => Err(file("read the head anchor")(error)),
    }
}

/// Structure, summary, whole chain, snapshot and blobs.
pub(crate) fn everything(conn: &Connection, dir: &Path, expected: &Meta) -> Result<VerifyReport, JournalError> {
    db::check_pages(conn)?;
    db::check_schema(conn, FORMAT)?;
    let meta = Meta::load(conn)?;
    if meta != *expected {
        let detail = "the summary row is not the one written last";
        return Err(Damage::new(DB_FILE, DamageKind::MetaChecksum, detail).into());
    }
    let archives = ArchiveRow::load_all(conn)?;
    chain(conn, dir, &meta, &archives, ArchiveCheck::Full, 0)?;
    snapshot(conn, dir, &meta)?;
    blobs(conn, &meta)?;
    Ok(VerifyReport {
        head: meta.head(),
        n_live: meta.seq - meta.archived_seq,
        n_archived: meta.archived_seq,
        n_archive_files: meta.n_archives,
        n_blobs: meta.n_blobs,
        snapshot_seq: meta.snapshot_seq(),
    })
}
