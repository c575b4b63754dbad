//! The database itself: creation, connection settings, schema, rows, errors.

use std::fs;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, Row};

use crate::durable;
use crate::journal::{COUNTER_MAX, Damage, DamageKind, IoCause, JournalError};

use super::meta::{FORMAT, Meta};
use super::migrate::ROW_FOR_EACH_EVENT;

pub(crate) const DB_FILE: &str = "journal.db";
pub(crate) const WAL_FILE: &str = "journal.db-wal";

/// "CLAW", in the database header.
const APPLICATION_ID: i32 = 0x434C_4157;
/// Pages after which SQLite itself moves the write-ahead log into the database, in the midst
/// of a commit: only where nobody asks for it before (see [`fold_log`]).
const CHECKPOINT_PAGES: u32 = 4_000;
/// Size to which the write-ahead log is cut back after a burst, bytes.
const WAL_LIMIT_BYTES: u32 = 16 * 1024 * 1024;

// The text of every table, exactly as SQLite stores it.
const ARCHIVES_TABLE: &str = "CREATE TABLE archives(idx INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL, \
                              last_seq INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 BLOB NOT NULL)";
const BLOBS_TABLE: &str = "CREATE TABLE blobs(handle TEXT PRIMARY KEY, bytes BLOB) WITHOUT ROWID";
const META_TABLE: &str = "CREATE TABLE meta(id INTEGER PRIMARY KEY, body BLOB NOT NULL, sha256 BLOB NOT NULL)";
/// Live events, packed (see `rows`).
pub(super) const ROUNDS_TABLE: &str = "CREATE TABLE rounds(first_seq INTEGER PRIMARY KEY, n_events INTEGER NOT NULL, \
                                       epoch INTEGER NOT NULL, at_ms INTEGER NOT NULL, prev_hash BLOB NOT NULL, \
                                       hash BLOB NOT NULL, unpacked_bytes INTEGER NOT NULL, body BLOB NOT NULL)";
/// Live events of format 1.
pub(super) const EVENTS_TABLE: &str = "CREATE TABLE events(seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, \
                            at_ms INTEGER NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL, \
                            payload BLOB NOT NULL, hash BLOB NOT NULL)";

/// Name and text of every table of a format, by name.
const fn schema(format: u32) -> [(&'static str, &'static str); 4] {
    let [archives, blobs, meta] = [("archives", ARCHIVES_TABLE), ("blobs", BLOBS_TABLE), ("meta", META_TABLE)];
    match format {
        ROW_FOR_EACH_EVENT => [archives, blobs, ("events", EVENTS_TABLE), meta],
        _ => [archives, blobs, meta, ("rounds", ROUNDS_TABLE)],
    }
}

/// Creates an empty journal database: complete or not there at all.
pub(crate) fn create(dir: &Path) -> Result<(), JournalError> {
    let path = dir.join(DB_FILE);
    let unfinished = durable::unfinished_path(&path);
    for suffix in ["", "-wal", "-journal", "-shm"] {
        let mut name = unfinished.as_os_str().to_owned();
        name.push(suffix);
        durable::remove_if_there(Path::new(&name)).map_err(file("clear an unfinished database"))?;
    }
    durable::private_file().write(true).create_new(true).open(&unfinished).map_err(file("create the database"))?;
    fill_new(&unfinished).map_err(sql("create the database"))?;
    fs::File::open(&unfinished)
        .and_then(|created| created.sync_all())
        .and_then(|()| fs::rename(&unfinished, &path))
        .and_then(|()| durable::sync_dir(dir))
        .map_err(file("create the database"))
}

fn fill_new(path: &Path) -> rusqlite::Result<()> {
    let mut conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.pragma_update(None, "page_size", 4096)?;
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    let tx = conn.transaction()?;
    for (_, create_table) in schema(FORMAT) {
        tx.execute_batch(create_table)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", FORMAT)?;
    match Meta::genesis().store(&tx) {
        Ok(()) => tx.commit()?,
        Err(JournalError::Io { source: IoCause::Sqlite(error), .. }) => return Err(error),
        Err(_) => return Err(rusqlite::Error::InvalidQuery),
    }
    conn.close().map_err(|(_, error)| error)
}

/// Opens the one connection. It writes nothing until [`allow_checkpoint_on_close`]:
/// a journal that turns out damaged is left exactly as it was found.
pub(crate) fn connect(dir: &Path, bytes_max: Option<u64>) -> Result<Connection, JournalError> {
    let path = dir.join(DB_FILE);
    let conn =
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sql("open the database"))?;
    // Every statement below is right in itself: if SQLite calls it wrong, the header is.
    let damage = |action| content_damage(action, DB_FILE, DamageKind::Unreadable);
    configure(&conn).map_err(damage("configure the database"))?;
    let mode: String =
        conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(damage("read the database header"))?;
    if mode != "wal" {
        let detail = format!("journal mode {mode} instead of wal");
        return Err(Damage::new(DB_FILE, DamageKind::Unreadable, detail).into());
    }
    // The first read takes the lock and recovers the log.
    conn.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())).map_err(damage("read the schema"))?;
    let is_readonly = conn.is_readonly(MAIN_DB);
    if is_readonly.map_err(damage("read the database header"))? {
        let detail = "the header forbids writing";
        return Err(Damage::new(DB_FILE, DamageKind::Unreadable, detail).into());
    }
    limit_size(&conn, bytes_max)?;
    Ok(conn)
}

fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.busy_timeout(std::time::Duration::ZERO)?;
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "secure_delete", true)?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)
}

/// From here on closing the connection folds the write-ahead log into the database.
pub(crate) fn allow_checkpoint_on_close(conn: &Connection) -> Result<(), JournalError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map(|_| ())
        .map_err(sql("configure the database"))
}

/// The reverse: the connection goes without touching the files.
pub(crate) fn forbid_checkpoint_on_close(conn: &Connection) -> Result<(), JournalError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map(|_| ())
        .map_err(sql("configure the database"))
}

/// Moves the write-ahead log into the database.
pub(crate) fn fold_log(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Sets the largest size of the database, or lifts the limit.
pub(crate) fn limit_size(conn: &Connection, bytes_max: Option<u64>) -> Result<(), JournalError> {
    // SQLite's own ceiling stands for "no limit".
    let pages = bytes_max.map_or(0xFFFF_FFFE, |bytes| (bytes / 4096).clamp(1, 0xFFFF_FFFE));
    let query = format!("PRAGMA max_page_count = {pages}");
    conn.query_row(&query, [], |_| Ok(())).map_err(sql("limit the database"))
}

/// SQLite's own structure check.
pub(crate) fn check_pages(conn: &Connection) -> Result<(), JournalError> {
    let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(content_damage(
        "check the database",
        DB_FILE,
        DamageKind::PageStructure,
    ))?;
    if verdict != "ok" {
        return Err(Damage::new(DB_FILE, DamageKind::PageStructure, verdict).into());
    }
    Ok(())
}

/// Identification and the exact schema of `format`.
pub(crate) fn check_schema(conn: &Connection, format: u32) -> Result<(), JournalError> {
    let damage = || content_damage("read the schema", DB_FILE, DamageKind::SchemaChanged);
    let application_id: i32 = conn.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(damage())?;
    let mut statement =
        conn.prepare("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").map_err(damage())?;
    let found: Vec<(String, String)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect).map_err(damage())?;
    let expected = schema(format).map(|(name, text)| (name.to_owned(), text.to_owned()));
    if application_id != APPLICATION_ID || found != expected {
        let detail = "tables or identification are not those of a journal";
        return Err(Damage::new(DB_FILE, DamageKind::SchemaChanged, detail).into());
    }
    Ok(())
}

/// The format number in the header.
pub(crate) fn header_format(conn: &Connection) -> Result<u32, JournalError> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(content_damage(
        "read the format",
        DB_FILE,
        DamageKind::SchemaChanged,
    ))
}

/// A sequence, epoch or size as a column value.
pub(crate) fn column(counter: u64) -> i64 {
    i64::try_from(counter.min(COUNTER_MAX)).expect("capped to the range")
}

/// The reverse of [`column`].
pub(crate) fn counter(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(index)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, value))
}

/// Names what was attempted when a file operation fails.
pub(crate) fn file(action: &'static str) -> impl FnOnce(std::io::Error) -> JournalError {
    move |error| {
        if durable::is_no_space(&error) {
            return JournalError::Full;
        }
        JournalError::Io { action, source: IoCause::File(error) }
    }
}

/// Tells a full disk and a damaged database apart from other failures of SQLite.
pub(crate) fn sql(action: &'static str) -> impl FnOnce(rusqlite::Error) -> JournalError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalError::Full,
        Some(ErrorCode::DatabaseCorrupt) => Damage::new(DB_FILE, DamageKind::PageStructure, error).into(),
        Some(ErrorCode::NotADatabase) => Damage::new(DB_FILE, DamageKind::Unreadable, error).into(),
        Some(_) | None => JournalError::Io { action, source: IoCause::Sqlite(error) },
    }
}

/// Like [`sql`], for reads whose statement is known to be right: a value of the
/// wrong type, out of range or not there is damage, and so is a missing column.
pub(crate) fn content_damage(
    action: &'static str,
    file_name: &'static str,
    what: DamageKind,
) -> impl FnOnce(rusqlite::Error) -> JournalError {
    move |error| match error.sqlite_error_code() {
        None | Some(ErrorCode::Unknown | ErrorCode::TooBig) => Damage::new(file_name, what, error).into(),
        Some(_) => sql(action)(error),
    }
}
