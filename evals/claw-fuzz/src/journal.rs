//! The gateway's journal, edited by somebody else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use claw_storage::{Batch, Blob, Journal as _, JournalOptions, OpenError, Record, Snapshot, SqliteJournal, Stored};

use crate::tape::Tape;

/// File by name; the lock is none of them.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A sound journal as files, at three moments, and what it says.
struct Specimen {
    /// As left by kill -9: the write-ahead log holds the end.
    killed: Files,
    /// As left by an orderly end.
    closed: Files,
    /// Some transactions earlier, killed.
    earlier: Files,
    n_earlier: usize,
    events: Vec<Stored>,
    snapshots: [Option<Snapshot>; 2],
}

fn options() -> JournalOptions {
    JournalOptions { reserve_bytes: 0, archive_events_max: 8, ..JournalOptions::default() }
}

fn secret(n: u64) -> Vec<u8> {
    format!("secret {n} {}", "#".repeat(20)).into_bytes()
}

/// Appends `n` events, every fifth with a blob.
fn fill(journal: &mut SqliteJournal, n: u64) {
    for _ in 0..n {
        let head = journal.head();
        let payload = format!(r#"{{"workload":"wl_{}"}}"#, head.seq).into_bytes();
        let records = vec![Record { kind: "workload_placed".to_owned(), version: 1, payload }];
        let is_due = head.seq.is_multiple_of(5);
        let blobs = is_due.then(|| Blob { handle: format!("blob-{}", head.seq), bytes: secret(head.seq) });
        let at_ms = i64::try_from(head.seq).expect("the journal is short");
        let batch = Batch { records, blobs: blobs.into_iter().collect() };
        journal.append(head.seq, head.epoch, at_ms, &[batch]).expect("a sound journal takes events");
    }
}

fn read_files(dir: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("journal.lock") {
                let name = path.strip_prefix(dir).expect("it lies in the folder").to_owned();
                found.insert(name, fs::read(&path).expect("it can be read"));
            }
        }
    }
    found
}

fn specimen() -> &'static Specimen {
    static SPECIMEN: OnceLock<Specimen> = OnceLock::new();
    SPECIMEN.get_or_init(|| {
        let root = tempfile::tempdir().expect("a folder for a sample");
        let (mut journal, _) = SqliteJournal::open_with(root.path(), options()).expect("a new journal");
        journal.raise_epoch().expect("an epoch");
        fill(&mut journal, 14);
        journal.put_snapshot(12, 1, &[7; 300]).expect("a snapshot");
        journal.compact(10).expect("an archive");
        journal.erase_blob("blob-5").expect("an erased value");
        fill(&mut journal, 4);
        let earlier = read_files(root.path());
        let n_earlier = usize::try_from(journal.head().seq).expect("the journal is short");
        let before = journal.latest_snapshot().expect("a snapshot");
        journal.raise_epoch().expect("an epoch");
        fill(&mut journal, 4);
        journal.put_snapshot(20, 2, &[8; 300]).expect("a snapshot");
        journal.compact(18).expect("an archive");
        fill(&mut journal, 3);
        let events = journal.read(0, usize::MAX).expect("its events");
        let snapshots = [before, journal.latest_snapshot().expect("a snapshot")];
        let killed = read_files(root.path());
        drop(journal);
        Specimen { killed, closed: read_files(root.path()), earlier, n_earlier, events, snapshots }
    })
}

/// Performs one order of the tape on one of the files.
fn edit(tape: &mut Tape<'_>, files: &mut Files, earlier: &Files) {
    let order = tape.below(10);
    let Some(name) = files.keys().nth(tape.below(files.len())).cloned() else { return };
    let Some(bytes) = files.get_mut(&name) else { return };
    let at = tape.place(bytes.len());
    match order {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << tape.below(8);
            }
        }
        1 => {
            let piece = tape.short();
            let end = (at + piece.len()).min(bytes.len());
            bytes.splice(at..end, piece.iter().copied());
        }
        2 => drop(bytes.splice(at..at, tape.short().iter().copied())),
        3 => {
            let end = tape.place(bytes.len()).max(at);
            bytes.drain(at..end);
        }
        4 => bytes.truncate(at),
        5 => {
            let end = tape.place(bytes.len()).max(at);
            bytes[at..end].fill(0);
        }
        6 => drop(files.remove(&name)),
        7 => match earlier.get(&name) {
            Some(old) => bytes.clone_from(old),
            None => drop(files.remove(&name)),
        },
        8 => files.extend(earlier.clone()),
        _ => {
            let other = files.values().nth(at % files.len()).cloned().unwrap_or_default();
            files.insert(name, other);
        }
    }
}

/// A journal that opens says what was written, to a point that its edits explain, and is
/// fit for use; one that does not names the damage and is left as it was found.
pub(crate) fn journal(bytes: &[u8]) {
    let specimen = specimen();
    let mut tape = Tape::new(bytes);
    let mut files = if tape.byte().is_multiple_of(2) { specimen.killed.clone() } else { specimen.closed.clone() };
    for _ in 0..16 {
        if tape.is_over() {
            break;
        }
        edit(&mut tape, &mut files, &specimen.earlier);
    }
    let root = tempfile::tempdir().expect("a folder for the journal");
    for (name, content) in &files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    match SqliteJournal::open_with(root.path(), options()) {
        Ok((journal, report)) => check_open(journal, report.created, root.path(), specimen),
        Err(OpenError::Damage(damage)) => {
            assert!(!damage.to_string().is_empty());
            let mut left = read_files(root.path());
            // SQLite makes an empty log to begin with.
            let wal = Path::new("journal.db-wal");
            if !files.contains_key(wal) && left.get(wal).is_some_and(Vec::is_empty) {
                left.remove(wal);
            }
            assert!(left == files, "a refused journal was changed: {damage}");
        }
        Err(OpenError::NewerFormat { .. }) => {}
        Err(other) => panic!("neither damage nor a journal: {other:?}"),
    }
}

fn check_open(mut journal: SqliteJournal, created: bool, dir: &Path, specimen: &Specimen) {
    let events = journal.read(0, usize::MAX).expect("an open journal is read");
    let snapshot = journal.latest_snapshot().expect("an open journal has a sound snapshot");
    if created {
        assert!(events.is_empty() && snapshot.is_none());
    } else {
        assert!(events.len() >= specimen.n_earlier, "events are gone in silence: {} are left", events.len());
        assert_eq!(specimen.events.get(..events.len()), Some(&events[..]), "events are changed in silence");
        assert!(specimen.snapshots.contains(&snapshot), "a snapshot is changed in silence");
        for seq in (0..specimen.events.len() as u64).step_by(5) {
            let value = journal.blob(&format!("blob-{seq}")).expect("an open journal has sound values");
            assert!(value.is_none_or(|value| value == secret(seq)), "a value is changed in silence");
        }
    }
    fill(&mut journal, 2);
    journal.verify().expect("an open journal is sound");
    let head = journal.head();
    drop(journal);
    let (reopened, _) = SqliteJournal::open_with(dir, options()).expect("it opens again");
    assert_eq!(reopened.head(), head);
}
