//! Journals of older formats, recorded when they were today's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::{Connection, params};

use super::damage::{files, write_files};
use super::*;
use crate::journal::{DamageKind, JournalError, sha256};
use crate::sqlite::db::EVENTS_TABLE;
use crate::sqlite::rows::EventRow;
use crate::test_disk::TinyDisk;

/// As the last build that wrote format 1 left it: `recorded` on its journal, the files copied
/// before it was dropped ("killed") and after ("closed"); the locks were taken away.
const FORMAT_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sqlite/tests/golden/format-1");

/// What was done to the recorded journal, in order.
fn recorded(journal: &mut impl Journal) {
    journal.raise_epoch().unwrap();
    fill(journal, 60);
    journal.put_snapshot(40, 1, b"state").unwrap();
    journal.compact(30).unwrap();
    journal.erase_blob("blob-1").unwrap();
    journal.raise_epoch().unwrap();
    fill(journal, 20);
    // Closed and opened again here, so that the log of the killed one is short.
    fill(journal, 4);
}

/// A copy of a recorded journal.
fn copy_of(state: &str) -> tempfile::TempDir {
    let root = scratch();
    let mut folders = vec![Path::new(FORMAT_1).join(state)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let to = root.path().join(path.strip_prefix(Path::new(FORMAT_1).join(state)).unwrap());
            if path.is_dir() {
                fs::create_dir(to).unwrap();
                folders.push(path);
            } else {
                fs::copy(path, to).unwrap();
            }
        }
    }
    root
}

#[test]
fn a_journal_of_format_1_becomes_todays_and_loses_nothing() {
    let mut model = MemoryJournal::default();
    recorded(&mut model);
    for state in ["killed", "closed"] {
        let root = copy_of(state);
        let (mut journal, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
        assert_eq!((report.created, report.migrated, report.n_unacknowledged), (false, true, 0), "{state}");
        assert_eq!(content(&mut journal), content(&mut model), "{state}");
        journal.verify().unwrap();
        fill(&mut journal, 5);
        let grown = content(&mut journal);
        drop(journal);
        let (mut journal, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
        assert!(!report.migrated, "{state}: it is of today's format now");
        assert_eq!(content(&mut journal), grown, "{state}");
    }
}

/// Makes a closed journal one of format 1: what is tested is the way back.
fn make_format_1(dir: &Path) {
    let conn = Connection::open(dir.join("journal.db")).unwrap();
    let rows: Vec<EventRow> = conn
        .prepare("SELECT * FROM rounds ORDER BY first_seq")
        .unwrap()
        .query_map([], EventRow::of)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    conn.execute_batch("DROP TABLE rounds; PRAGMA user_version = 1").unwrap();
    conn.execute_batch(EVENTS_TABLE).unwrap();
    for event in rows.iter().flat_map(|row| row.events().unwrap()) {
        let seq_and_epoch = [event.seq, event.epoch].map(|n| i64::try_from(n).unwrap());
        let values = params![
            seq_and_epoch[0],
            seq_and_epoch[1],
            event.at_ms,
            event.kind,
            event.version,
            event.payload,
            event.hash
        ];
        conn.execute("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", values).unwrap();
    }
    let body: Vec<u8> = conn.query_row("SELECT body FROM meta", [], |row| row.get(0)).unwrap();
    let body = String::from_utf8(body).unwrap().replace(r#""format":2"#, r#""format":1"#).into_bytes();
    conn.execute("UPDATE meta SET body = ?1, sha256 = ?2", params![body, sha256(&[&body])]).unwrap();
}

/// What an open says that refuses, having changed nothing.
fn refused(root: &Path) -> OpenError {
    let mut before = files(root);
    let error = SqliteJournal::open_with(root, options()).unwrap_err();
    let mut after = files(root);
    // SQLite makes an empty log to begin with.
    for files in [&mut before, &mut after] {
        files.retain(|name, bytes| !(name.ends_with("journal.db-wal") && bytes.is_empty()));
    }
    let names =
        |files: &BTreeMap<PathBuf, Vec<u8>>| files.iter().map(|(n, b)| (n.clone(), b.len())).collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before), "{error}");
    assert!(after == before, "a refused journal was changed: {error}");
    error
}

#[test]
fn a_damaged_journal_of_format_1_is_named_and_left_as_it_was() {
    let changes: [(&str, Option<u64>, DamageKind); 3] = [
        ("UPDATE events SET payload = x'7b7d' WHERE seq = 50", Some(50), DamageKind::ChainBroken),
        ("DELETE FROM events WHERE seq = 45", Some(45), DamageKind::SequenceGap),
        ("UPDATE blobs SET bytes = x'00' WHERE handle = 'blob-2'", None, DamageKind::BlobContent),
    ];
    for state in ["closed", "killed"] {
        for (change, first_bad_seq, what) in changes {
            let root = copy_of(state);
            let conn = Connection::open(root.path().join("journal.db")).unwrap();
            conn.execute(change, []).unwrap();
            drop(conn);
            let OpenError::Damage(damage) = refused(root.path()) else { panic!("{change}") };
            assert_eq!((damage.what, damage.first_bad_seq), (what, first_bad_seq), "{state}: {change}");
        }
    }
}

/// More than SQLite's cache holds: it must not begin to write before all was looked at.
#[test]
fn a_large_damaged_journal_of_format_1_is_left_as_it_was() {
    let root = scratch();
    let mut journal = open(root.path());
    let wide = noise(100_000);
    for n in 0..60 {
        append_at_head(&mut journal, n, &[one("wide", &wide)]);
    }
    append_at_head(&mut journal, 60, &[blob("last", b"value")]);
    drop(journal);
    make_format_1(root.path());
    let whole = files(root.path());
    let conn = Connection::open(root.path().join("journal.db")).unwrap();
    conn.execute("UPDATE blobs SET bytes = x'00'", []).unwrap();
    drop(conn);
    let OpenError::Damage(damage) = refused(root.path()) else { panic!("a blob was changed") };
    assert_eq!(damage.what, DamageKind::BlobContent);
    let root = scratch();
    write_files(root.path(), &whole);
    let (mut journal, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
    assert!(report.migrated);
    assert_eq!(journal.read(0, 100).unwrap().len(), 60);
    assert_eq!(journal.verify().unwrap().n_blobs, 1);
}

#[test]
fn what_a_journal_of_format_1_has_lost_is_missed() {
    let root = scratch();
    let mut journal = open(root.path());
    fill(&mut journal, 10);
    drop(journal);
    let earlier = fs::read(root.path().join("journal.db")).unwrap();
    let mut journal = open(root.path());
    // The last transaction adds no event.
    append_at_head(&mut journal, 1, &[blob("h", b"value")]);
    drop(journal);
    fs::write(root.path().join("journal.db"), earlier).unwrap();
    make_format_1(root.path());
    let OpenError::Damage(damage) = refused(root.path()) else { panic!("a blob is gone") };
    assert_eq!(damage.what, DamageKind::TailLost);
}

#[test]
fn a_creation_of_format_1_cut_short_is_finished() {
    let root = scratch();
    drop(open(root.path()));
    make_format_1(root.path());
    fs::remove_file(root.path().join("journal.head")).unwrap();
    let (mut journal, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
    assert!(report.migrated);
    fill(&mut journal, 3);
    drop(journal);
    assert_eq!(open(root.path()).head().seq, 3);
}

#[test]
fn a_journal_of_format_1_waits_for_room_on_a_full_disk() {
    let Some(disk) = TinyDisk::mount("a journal of format 1") else {
        return;
    };
    let dir = disk.path().join("journal");
    let mut journal = open(&dir);
    let wide = noise(40_000);
    for n in 0..8 {
        append_at_head(&mut journal, n, &[one("wide", &wide)]);
    }
    drop(journal);
    make_format_1(&dir);
    let filler = disk.fill_leaving(100_000);
    for _ in 0..2 {
        let error = refused(&dir);
        assert!(matches!(error, OpenError::Journal(JournalError::Full)), "{error:?}");
    }
    fs::remove_file(filler).unwrap();
    let (mut journal, report) = SqliteJournal::open_with(&dir, options()).unwrap();
    assert!(report.migrated);
    assert_eq!(journal.read(0, 100).unwrap().len(), 8);
}
