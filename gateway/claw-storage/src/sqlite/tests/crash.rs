//! The process dies, or the disk fails, at each point of an append.

use std::fs::File;
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::*;
use crate::journal::{FaultHook, FaultPoint, JournalError};
use crate::sqlite::anchor::ANCHOR_FILE;

const CHILD_DIR: &str = "CLAW_STORAGE_CRASH_DIR";
const CHILD_POINT: &str = "CLAW_STORAGE_CRASH_POINT";
const POINTS: [FaultPoint; 3] = [FaultPoint::BeforeAppend, FaultPoint::AfterAppend, FaultPoint::AfterFsync];

/// Dies by signal 9 at the second append that comes to its point.
#[derive(Debug)]
struct Killer {
    point: FaultPoint,
    n_seen: Mutex<u32>,
}

impl FaultHook for Killer {
    fn at(&self, point: FaultPoint) {
        if point != self.point {
            return;
        }
        let mut n_seen = self.n_seen.lock().unwrap();
        *n_seen += 1;
        if *n_seen == 2 {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
        }
    }
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn crash_child() {
    let (Ok(dir), Ok(point)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_POINT)) else {
        return;
    };
    let point = POINTS[point.parse::<usize>().unwrap()];
    let faults = Arc::new(Killer { point, n_seen: Mutex::new(0) });
    let options = JournalOptions { faults, ..options() };
    let mut journal = SqliteJournal::open_with(Path::new(&dir), options).unwrap().0;
    append_at_head(&mut journal, 1, &[one("acknowledged", b"1")]);
    append_at_head(&mut journal, 2, &[one("cut_short", b"2"), blob("h", b"2")]);
    panic!("the killer did not strike");
}

#[test]
fn kill_9_at_each_point_loses_nothing_acknowledged_and_halves_nothing() {
    for (n, point) in POINTS.iter().enumerate() {
        let root = scratch();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite::tests::crash::crash_child", "--nocapture"])
            .env(CHILD_DIR, root.path())
            .env(CHILD_POINT, n.to_string())
            .output()
            .unwrap();
        assert!(!child.status.success(), "{point:?}: {child:?}");
        let (mut journal, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
        let kinds: Vec<String> = read_all(&mut journal).into_iter().map(|event| event.kind).collect();
        let found = (kinds.len(), journal.blob("h").unwrap().is_some());
        let expected = match point {
            FaultPoint::BeforeAppend | FaultPoint::AfterAppend => (1, false),
            FaultPoint::AfterFsync => (2, true),
        };
        assert_eq!(found, expected, "{point:?}");
        assert_eq!((report.created, report.n_unacknowledged), (false, 0));
        append_at_head(&mut journal, 3, &[one("after", b"3")]);
        journal.verify().unwrap();
    }
}

#[test]
fn a_crash_between_commit_and_anchor_keeps_the_commit() {
    let root = scratch();
    let mut journal = open(root.path());
    fill(&mut journal, 10);
    let anchor = fs::read(root.path().join(ANCHOR_FILE)).unwrap();
    append_at_head(&mut journal, 1, &[one("a", b"1"), one("b", b"2")]);
    let before = content(&mut journal);
    drop(journal);
    fs::write(root.path().join(ANCHOR_FILE), &anchor).unwrap();
    let (mut journal, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
    assert_eq!(report.n_unacknowledged, 2);
    assert_eq!(content(&mut journal), before);
    drop(journal);
    let (_, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
    assert_eq!(report.n_unacknowledged, 0, "the anchor was brought up to the journal");
}

#[test]
fn an_append_that_could_not_be_anchored_is_taken_back() {
    let root = scratch();
    let mut journal = open(root.path());
    fill(&mut journal, 40);
    append_at_head(&mut journal, 1, &[blob("blob-20", b"old")]);
    let before = content(&mut journal);
    let head = journal.head();
    // A descriptor that cannot be written stands for a disk that fails at that very moment.
    let broken = File::open(root.path().join(ANCHOR_FILE)).unwrap();
    let sound = std::mem::replace(&mut journal.anchor.file, broken);
    let batches = [one("a", b"1"), blob("blob-20", b"old"), blob("blob-21", b"new")];
    for _ in 0..2 {
        let failed = journal.append(head.seq, head.epoch, 1, &batches);
        assert!(matches!(failed, Err(JournalError::Io { .. })), "{failed:?}");
        assert_eq!(journal.head(), head);
        assert_eq!(journal.read(0, 999).unwrap(), before.events);
    }
    journal.anchor.file = sound;
    assert_eq!(journal.raise_epoch().unwrap(), before.head.epoch + 1);
    assert_eq!(journal.blob("blob-21").unwrap(), None, "its blob is taken back too");
    assert_eq!(journal.blob("blob-20").unwrap().as_deref(), Some(&b"old"[..]));
    let other = append_at_head(&mut journal, 2, &[one("b", b"2")]);
    assert_eq!(other.seq, head.seq + 1);
    journal.verify().unwrap();
    drop(journal);
    let mut journal = open(root.path());
    assert_eq!(journal.head(), other);
    assert_eq!(read_all(&mut journal)[..40], before.events[..40]);
}

#[test]
fn a_snapshot_or_archive_cut_short_is_cleared_away() {
    let root = scratch();
    let mut journal = open(root.path());
    fill(&mut journal, 50);
    journal.put_snapshot(50, 1, b"first").unwrap();
    let before = content(&mut journal);
    // A crash after the archive file, before the transaction that lists it.
    let events = journal.read(0, 40).unwrap();
    fs::create_dir_all(root.path().join("archive")).unwrap();
    super::super::archive::write(root.path(), 1, &[0; 32], &events).unwrap();
    fs::write(root.path().join("snapshot/000000000051-000000000099.snap"), b"half").unwrap();
    fs::write(root.path().join("archive/000001.jsonl.new"), b"half").unwrap();
    fs::write(root.path().join("journal.head.new"), b"half").unwrap();
    drop(journal);
    let (mut journal, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
    let removed = [
        "archive/000001.jsonl",
        "archive/000001.jsonl.new",
        "journal.head.new",
        "snapshot/000000000051-000000000099.snap",
    ];
    let mut found = report.leftovers_removed;
    found.sort_unstable();
    assert_eq!(found, removed);
    assert_eq!(content(&mut journal), before);
    journal.compact(50).unwrap();
    assert_eq!(content(&mut journal), before);
}

#[test]
fn a_creation_cut_short_is_finished() {
    let root = scratch();
    fs::write(root.path().join("journal.db.new"), b"half").unwrap();
    let (journal, report) = SqliteJournal::open_with(root.path(), options()).unwrap();
    assert!(report.created);
    drop(journal);
    fs::remove_file(root.path().join(ANCHOR_FILE)).unwrap();
    let mut journal = open(root.path());
    fill(&mut journal, 3);
    drop(journal);
    assert_eq!(open(root.path()).head().seq, 3);
}
