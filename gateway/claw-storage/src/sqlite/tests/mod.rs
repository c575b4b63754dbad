//! What only the durable journal can show: damage, crashes, full disks, locks.

mod crash;
mod damage;
mod formats;
mod model;
mod packed;
mod space;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{JournalOptions, OpenError, SqliteJournal};
use crate::conformance::{self, append_at_head, one, read_all};
use crate::journal::{Batch, Blob, Head, Journal, Snapshot, Stored};
use crate::memory::MemoryJournal;
use crate::test_disk::scratch;

/// Small archives and no ballast.
fn options() -> JournalOptions {
    JournalOptions { reserve_bytes: 0, archive_events_max: 40, ..JournalOptions::default() }
}

fn open(dir: &Path) -> SqliteJournal {
    SqliteJournal::open_with(dir, options()).unwrap().0
}

/// A JSON text of `n` letters without repetitions: LZ4 makes it no shorter.
fn noise(n: usize) -> Vec<u8> {
    let mut dice = Dice(u64::try_from(n).unwrap());
    let letters =
        (0..n).map(|_| b'0' + u8::try_from(dice.roll(10)).unwrap() + 32 * u8::try_from(dice.roll(2)).unwrap());
    std::iter::once(b'"').chain(letters).chain(std::iter::once(b'"')).collect()
}

/// splitmix64: seeded, so a failure replays.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let sides = u64::try_from(sides.max(1)).unwrap();
        usize::try_from((mixed ^ (mixed >> 31)) % sides).unwrap()
    }

    /// A place in `len` bytes, the beginning more often than the rest.
    fn place(&mut self, len: usize) -> usize {
        match self.roll(4) {
            0 => self.roll(len.min(128)),
            _ => self.roll(len),
        }
    }
}

fn blob(handle: &str, bytes: &[u8]) -> Batch {
    Batch { records: Vec::new(), blobs: vec![Blob { handle: handle.to_owned(), bytes: bytes.to_vec() }] }
}

/// Everything that a journal promises to give back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    head: Head,
    events: Vec<Stored>,
    snapshot: Option<Snapshot>,
    blobs: BTreeMap<String, Option<Vec<u8>>>,
}

/// Reads everything; the blobs are those that [`fill`] makes.
fn content(journal: &mut impl Journal) -> Content {
    let handles = (0..24).map(|n| format!("blob-{n}"));
    Content {
        head: journal.head(),
        events: read_all(journal),
        snapshot: journal.latest_snapshot().unwrap(),
        blobs: handles
            .map(|handle| {
                let bytes = journal.blob(&handle).unwrap();
                (handle, bytes)
            })
            .collect(),
    }
}

/// Appends `n` events, now and then with a blob, in groups of one to three batches.
fn fill(journal: &mut impl Journal, n: u64) {
    let end = journal.head().seq + n;
    while journal.head().seq < end {
        let seq = journal.head().seq;
        let payload = format!(r#"{{"workload":"wl_{seq}","state":"{}"}}"#, "run ".repeat(9));
        let mut batches = vec![one("workload_placed", payload.as_bytes())];
        if seq.is_multiple_of(16) && seq / 16 < 24 {
            let secret = format!("secret of event {seq} {}", "#".repeat(90));
            batches.push(blob(&format!("blob-{}", seq / 16), secret.as_bytes()));
        }
        if seq.is_multiple_of(5) {
            batches.push(one("node_seen", b"{\"n\":1}"));
        }
        append_at_head(journal, i64::try_from(seq).unwrap(), &batches);
    }
}

#[test]
fn both_journals_conform() {
    conformance::run(MemoryJournal::default);
    let root = scratch();
    let mut n = 0;
    conformance::run(|| {
        n += 1;
        open(&root.path().join(n.to_string()))
    });
}

#[test]
fn a_second_gateway_is_told_who_holds_the_journal() {
    let root = scratch();
    let first = open(root.path());
    let refused = SqliteJournal::open(root.path()).unwrap_err();
    let expected = format!("journal {} is in use by process {}", root.path().display(), std::process::id());
    assert_eq!(refused.to_string(), expected);
    assert!(matches!(refused, OpenError::Locked { pid: Some(_), .. }));
    drop(first);
    open(root.path());
}

#[test]
fn only_the_owner_may_read_the_journal() {
    let root = scratch();
    let dir = root.path().join("data").join("journal");
    let mut journal = SqliteJournal::open(&dir).unwrap().0;
    fill(&mut journal, 20);
    journal.put_snapshot(20, 1, b"state").unwrap();
    journal.compact(20).unwrap();
    let mut n_files = 0;
    let mut folders = vec![dir];
    while let Some(folder) = folders.pop() {
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
            n_files += 1;
        }
    }
    assert_eq!(n_files, 7, "database, log, head, lock, reserve, archive, snapshot");
}

#[test]
fn an_overtaken_snapshot_leaves_no_file() {
    let root = scratch();
    let mut journal = open(root.path());
    fill(&mut journal, 20);
    let slow = journal.begin_snapshot(10).unwrap().write(1, &"state".repeat(10_000).into_bytes()).unwrap();
    journal.put_snapshot(20, 1, b"quick").unwrap();
    assert!(matches!(
        journal.finish_snapshot(slow),
        Err(crate::JournalError::StaleSnapshot { seq: 10, latest_seq: 20 })
    ));
    assert_eq!(fs::read_dir(root.path().join("snapshot")).unwrap().count(), 1);
    drop(journal);
    assert_eq!(open(root.path()).latest_snapshot().unwrap().unwrap().state, b"quick");
}

#[test]
fn the_log_is_folded_when_nobody_waits_for_it() {
    let root = scratch();
    let mut journal = open(root.path());
    let bytes = |name: &str| fs::metadata(root.path().join(name)).unwrap().len();
    let large = noise(1 << 20);
    for _ in 0..12 {
        append_at_head(&mut journal, 0, &[one("a", &large)]);
        journal.tidy();
    }
    // Four rounds fill it, then it is written from its beginning; the database has what was folded.
    assert!(bytes("journal.db-wal") < 6 << 20, "{}", bytes("journal.db-wal"));
    assert!(bytes("journal.db") > 7 << 20, "{}", bytes("journal.db"));
    assert_eq!(journal.read(0, 100).unwrap().len(), 12);
}

#[test]
fn an_erased_value_is_gone_from_the_disk() {
    let root = scratch();
    let mut journal = open(root.path());
    let needle = b"hunter2-hunter2-hunter2";
    let large = needle.repeat(900);
    let batches = [one("a", b"{}"), blob("small", needle), blob("large", &large)];
    append_at_head(&mut journal, 0, &batches);
    fill(&mut journal, 30);
    let on_disk = |name: &str| {
        let bytes = fs::read(root.path().join(name)).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    };
    assert!(on_disk("journal.db-wal"));
    assert!(journal.erase_blob("small").unwrap() && journal.erase_blob("large").unwrap());
    assert!(!on_disk("journal.db") && !on_disk("journal.db-wal"));
    assert_eq!(journal.verify().unwrap().head, journal.head());
}

#[test]
fn a_reopened_journal_is_the_same_and_a_restored_one_goes_above() {
    let root = scratch();
    let (mut journal, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
    assert!(report.created);
    assert_eq!(journal.raise_epoch().unwrap(), 1);
    fill(&mut journal, 130);
    journal.put_snapshot(90, 3, b"state").unwrap();
    let compacted = journal.compact(90).unwrap();
    let files = ["archive/000001.jsonl", "archive/000002.jsonl", "archive/000003.jsonl"];
    assert_eq!((compacted.n_events, &compacted.files[..]), (90, &files.map(str::to_owned)[..]));
    let before = content(&mut journal);
    drop(journal);
    let (mut journal, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
    assert_eq!((report.created, report.n_unacknowledged, report.anchor_mended), (false, 0, false));
    assert_eq!(content(&mut journal), before);
    assert_eq!(journal.raise_epoch_above(40).unwrap(), 41);
    drop(journal);
    assert_eq!(open(root.path()).head().epoch, 41, "a raised epoch is durable");
}
