//! Opening: take the lock, create if new, prove everything sound, and only then write.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

use crate::durable::{self, DirLock, LockError, UNFINISHED_SUFFIX};
use crate::journal::{Damage, DamageKind, GENESIS, IoCause, JournalError};

use super::anchor::{ANCHOR_FILE, Anchor, AnchorFault, Anchored};
use super::archive::{self, ARCHIVE_DIR, ARCHIVE_EXTENSION, ArchiveRow};
use super::db::{self, DB_FILE, WAL_FILE, file};
use super::meta::{FORMAT, Meta};
use super::migrate::Migration;
use super::reserve::Reserve;
use super::snapshot::{self, SNAPSHOT_DIR, SNAPSHOT_EXTENSION};
use super::{JournalOptions, OpenError, OpenReport, SqliteJournal, rows, verify};

const LOCK_FILE: &str = "journal.lock";
/// A SQLite database is at least its smallest page.
const DB_BYTES_MIN: u64 = 512;
/// Where its header says which file format it is written and read in (SQLite, "Database File
/// Format", 1.3.3), and what stands there when it has a write-ahead log.
const DB_VERSIONS_AT: u64 = 18;
const DB_VERSIONS_WAL: [u8; 2] = [2, 2];

pub(super) fn open(dir: &Path, options: JournalOptions) -> Result<(SqliteJournal, OpenReport), OpenError> {
    durable::private_dir(dir).map_err(file("make the journal's folder"))?;
    let lock = lock(dir)?;
    let created = is_new(dir)?;
    if created {
        db::create(dir)?;
    }
    require_database(dir)?;
    // Without a limit: what is brought over to today's format is there twice for a moment.
    let conn = db::connect(dir, None).map_err(|error| held(dir, error))?;
    db::check_pages(&conn)?;
    let found = check_format(&conn)?;
    db::check_schema(&conn, found)?;
    let migration = Migration::begin(&conn, dir, found)?;
    let meta = Meta::load(&conn)?;
    let kept = load_anchor(dir, &meta)?;
    let archives = ArchiveRow::load_all(&conn)?;
    // A journal of today's format that ends early is named as such before its chain is walked.
    verify::anchor_holds(&kept.anchored, &meta, None)?;
    let check = options.archive_check;
    let probed = verify::chain(&conn, dir, &meta, &archives, check, kept.anchored.seq)?;
    verify::anchor_holds(&kept.anchored, &meta, probed)?;
    verify::snapshot(&conn, dir, &meta)?;
    verify::blobs(&conn, &meta)?;
    let leftovers = find_leftovers(dir, &conn, &meta)?;

    // All is sound: from here on the folder may be written.
    let migrated = migration.is_some();
    if let Some(Err((error, log))) = migration.map(Migration::commit) {
        drop(conn);
        log.cut_back()?;
        return Err(error.into());
    }
    db::limit_size(&conn, options.db_bytes_max)?;
    db::allow_checkpoint_on_close(&conn)?;
    let report = OpenReport {
        created,
        head: meta.head(),
        n_unacknowledged: meta.seq - kept.anchored.seq,
        anchor_mended: kept.one_slot_bad,
        migrated,
        leftovers_removed: remove_leftovers(dir, leftovers)?,
    };
    let journal = SqliteJournal {
        dir: dir.to_owned(),
        conn: Some(conn),
        anchor: kept.renew(dir, &meta)?,
        meta,
        archives,
        cached_archive: None,
        reserve: Reserve::open(dir, options.reserve_bytes).map_err(file("make the reserve"))?,
        unsettled: None,
        unfolded_bytes: 0,
        options,
        _lock: lock,
    };
    tracing::info!(dir = %dir.display(), ?report, "journal open");
    Ok((journal, report))
}

fn lock(dir: &Path) -> Result<DirLock, OpenError> {
    DirLock::take(&dir.join(LOCK_FILE)).map_err(|error| match error {
        LockError::Held { pid } => OpenError::Locked { dir: dir.to_owned(), pid },
        LockError::Io(error) => file("lock the journal's folder")(error).into(),
    })
}

/// Some other program has the database open, without our lock file.
fn held(dir: &Path, error: JournalError) -> OpenError {
    if let JournalError::Io { source: IoCause::Sqlite(cause), .. } = &error
        && cause.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
    {
        return OpenError::Locked { dir: dir.to_owned(), pid: None };
    }
    error.into()
}

/// Whether nothing of a journal is there. Its remains without a database are damage, not a new start.
fn is_new(dir: &Path) -> Result<bool, OpenError> {
    for name in [DB_FILE, WAL_FILE, ANCHOR_FILE] {
        let exists = dir.join(name).try_exists();
        if exists.map_err(file("look at the journal's folder"))? {
            return Ok(false);
        }
    }
    let archived = names_in(dir, ARCHIVE_DIR, ARCHIVE_EXTENSION)?;
    let saved = names_in(dir, SNAPSHOT_DIR, SNAPSHOT_EXTENSION)?;
    Ok(archived.is_empty() && saved.is_empty())
}

/// SQLite would take an empty file for a new database and delete the log beside it. And while
/// there is a log it does not look whether the database asks for one; without, it does.
fn require_database(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(DB_FILE);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() >= DB_BYTES_MIN => {}
        Ok(metadata) => {
            let detail = format!("{} bytes are no database", metadata.len());
            return Err(Damage::new(DB_FILE, DamageKind::Unreadable, detail).into());
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let detail = "other files of the journal are there, its database is not";
            let damage = Damage::new(DB_FILE, DamageKind::FileMissing, detail);
            return Err(damage.beginning_at(1).into());
        }
        Err(error) => return Err(file("look at the database")(error).into()),
    }
    let mut versions = [0; 2];
    fs::File::open(&path)
        .and_then(|database| database.read_exact_at(&mut versions, DB_VERSIONS_AT))
        .map_err(file("read the database's header"))?;
    if versions != DB_VERSIONS_WAL {
        let detail = format!("file format {versions:?} in the header is not that of a write-ahead log");
        return Err(Damage::new(DB_FILE, DamageKind::Unreadable, detail).into());
    }
    Ok(())
}

/// The summary row says which format it is, under its checksum; the header must agree.
fn check_format(conn: &Connection) -> Result<u32, OpenError> {
    let found = Meta::load_format(conn)?;
    if found > FORMAT {
        return Err(OpenError::NewerFormat { found, supported: FORMAT });
    }
    let header = db::header_format(conn)?;
    if found > 0 && found == header {
        return Ok(found);
    }
    let detail = format!("format {found} in the summary, {header} in the header");
    Err(Damage::new(DB_FILE, DamageKind::SchemaChanged, detail).into())
}

/// The anchor as found; `anchor` is absent only beside a journal that never wrote.
struct KeptAnchor {
    anchor: Option<Anchor>,
    anchored: Anchored,
    one_slot_bad: bool,
}

fn load_anchor(dir: &Path, meta: &Meta) -> Result<KeptAnchor, OpenError> {
    match Anchor::load(dir) {
        Ok(Some(loaded)) => {
            Ok(KeptAnchor { anchor: Some(loaded.anchor), anchored: loaded.anchored, one_slot_bad: loaded.one_slot_bad })
        }
        // The creation was cut short between the two files.
        Ok(None) if *meta == Meta::genesis() => {
            Ok(KeptAnchor { anchor: None, anchored: Anchored::from(meta), one_slot_bad: false })
        }
        Ok(None) => {
            let detail = "without it a lost tail cannot be told from a crash";
            Err(Damage::new(ANCHOR_FILE, DamageKind::FileMissing, detail).into())
        }
        Err(AnchorFault::Damage(damage)) => Err(damage.into()),
        Err(AnchorFault::Io(error)) => Err(file("read the head anchor")(error).into()),
    }
}

impl KeptAnchor {
    /// Brings the anchor up to the journal and makes both slots readable.
    fn renew(self, dir: &Path, meta: &Meta) -> Result<Anchor, OpenError> {
        let present = Anchored::from(meta);
        let Some(mut anchor) = self.anchor else {
            return Ok(Anchor::create(dir, &present).map_err(file("create the head anchor"))?);
        };
        if self.one_slot_bad || self.anchored != present {
            anchor.write(&present).map_err(file("write the head anchor"))?;
        }
        Ok(anchor)
    }
}

/// Files that an interrupted write left: unfinished ones, snapshots that nothing
/// names, archives whose events are still live.
fn find_leftovers(dir: &Path, conn: &Connection, meta: &Meta) -> Result<Vec<String>, OpenError> {
    let mut leftovers = Vec::new();
    for folder in ["", ARCHIVE_DIR, SNAPSHOT_DIR] {
        leftovers.extend(names_in(dir, folder, &UNFINISHED_SUFFIX[1..])?);
    }
    let latest = meta.snapshot.as_ref().map(snapshot::name_of);
    let saved = names_in(dir, SNAPSHOT_DIR, SNAPSHOT_EXTENSION)?;
    leftovers.extend(saved.into_iter().filter(|name| Some(name) != latest.as_ref()));
    let listed: BTreeSet<String> = (1..=meta.n_archives).map(archive::name_of).collect();
    for name in names_in(dir, ARCHIVE_DIR, ARCHIVE_EXTENSION)? {
        if !listed.contains(&name) {
            require_live_copy(dir, conn, meta, &name)?;
            leftovers.push(name);
        }
    }
    Ok(leftovers)
}

/// An archive that the database does not list may go only if its events are on
/// the live chain; otherwise this is a journal restored beside a newer archive.
fn require_live_copy(dir: &Path, conn: &Connection, meta: &Meta, name: &str) -> Result<(), OpenError> {
    let content = fs::read(dir.join(name)).map_err(file("read an archive file"))?;
    let events = archive::decode(name, &content)?;
    let (seq, hash) = events.last().map_or((0, GENESIS), |event| (event.seq, event.hash));
    if seq <= meta.archived_seq || seq > meta.seq || rows::live_hash(conn, seq)? != hash {
        let detail = format!("holds events up to {seq} that the journal does not have");
        return Err(Damage::new(name, DamageKind::TailLost, detail).into());
    }
    Ok(())
}

fn remove_leftovers(dir: &Path, leftovers: Vec<String>) -> Result<Vec<String>, OpenError> {
    for name in &leftovers {
        fs::remove_file(dir.join(name)).map_err(file("remove a leftover"))?;
    }
    Ok(leftovers)
}

/// Names (relative to `dir`) of the files in `dir/folder` with this extension, sorted.
fn names_in(dir: &Path, folder: &str, extension: &str) -> Result<Vec<String>, OpenError> {
    let action = "list the journal's folder";
    let path: PathBuf = dir.join(folder);
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).map_err(file(action))? {
        let name = entry.map_err(file(action))?.file_name();
        let matching = Path::new(&name).extension().is_some_and(|found| found == extension);
        if let (true, Some(name)) = (matching, name.to_str()) {
            let prefix = if folder.is_empty() { "" } else { "/" };
            names.push(format!("{folder}{prefix}{name}"));
        }
    }
    names.sort_unstable();
    Ok(names)
}
