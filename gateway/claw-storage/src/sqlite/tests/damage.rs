//! Whatever happens to the files: the damage is named, or the content is what it was.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::journal::{Damage, DamageKind};
use crate::sqlite::ArchiveCheck;

/// Every file below `dir` but the lock, by relative name.
pub(super) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("journal.lock") {
                let name = path.strip_prefix(dir).unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

pub(super) fn write_files(dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A journal with everything in it, as files at two moments and as content.
struct Specimen {
    /// As left by kill -9: the write-ahead log holds the end.
    live: BTreeMap<PathBuf, Vec<u8>>,
    /// Some thirty transactions earlier.
    earlier: BTreeMap<PathBuf, Vec<u8>>,
    /// As left by an orderly end.
    closed: BTreeMap<PathBuf, Vec<u8>>,
    content: Content,
}

impl Specimen {
    fn new() -> Self {
        let root = scratch();
        let mut journal = open(root.path());
        journal.raise_epoch().unwrap();
        fill(&mut journal, 200);
        journal.put_snapshot(110, 1, &[7; 9_000]).unwrap();
        journal.compact(100).unwrap();
        journal.erase_blob("blob-3").unwrap();
        journal.raise_epoch().unwrap();
        fill(&mut journal, 120);
        journal.put_snapshot(300, 2, &[8; 9_000]).unwrap();
        fill(&mut journal, 40);
        let earlier = files(root.path());
        fill(&mut journal, 40);
        journal.erase_blob("blob-5").unwrap();
        fill(&mut journal, 20);
        let content = content(&mut journal);
        let live = files(root.path());
        drop(journal);
        Self { live, earlier, closed: files(root.path()), content }
    }
}

/// What an open of `files` says: the damage, or the content.
fn reopened(files_given: &BTreeMap<PathBuf, Vec<u8>>) -> Result<Content, Damage> {
    let root = scratch();
    write_files(root.path(), files_given);
    match SqliteJournal::open_with(root.path(), options()) {
        Ok((mut journal, _)) => {
            let found = content(&mut journal);
            journal.verify().unwrap();
            // It must also be fit for use, and sound after that.
            fill(&mut journal, 3);
            let head = journal.head();
            drop(journal);
            assert_eq!(open(root.path()).head(), head);
            Ok(found)
        }
        Err(OpenError::Damage(damage)) => {
            let mut left = files(root.path());
            // SQLite makes an empty log to begin with; nothing else may appear or change.
            let wal = Path::new("journal.db-wal");
            if !files_given.contains_key(wal) && left.get(wal).is_some_and(Vec::is_empty) {
                left.remove(wal);
            }
            assert!(left == *files_given, "a refused journal was changed: {damage}");
            Err(damage)
        }
        Err(other) => panic!("neither damage nor content: {other:?}"),
    }
}

/// Changes one file in one way and says what it did.
fn mutate(dice: &mut Dice, files: &mut BTreeMap<PathBuf, Vec<u8>>, earlier: &BTreeMap<PathBuf, Vec<u8>>) -> String {
    let name = files.keys().nth(dice.roll(files.len())).unwrap().clone();
    let bytes = files.get_mut(&name).unwrap();
    let len = bytes.len();
    let at = dice.place(len);
    let n_max = [16, 6_000][dice.roll(2)];
    let n = 1 + dice.roll(n_max);
    let end = (at + n).min(len);
    let done = match dice.roll(9) {
        0..3 if len > 0 => {
            bytes[at] ^= 1 << dice.roll(8);
            format!("flip a bit at {at}")
        }
        3 => {
            bytes.drain(at..end);
            format!("delete {at}..{end}")
        }
        4 => {
            bytes.truncate(at);
            format!("truncate to {at}")
        }
        5 => {
            bytes[at..end].fill(0);
            format!("zero {at}..{end}")
        }
        6 => {
            for byte in &mut bytes[at..end] {
                *byte = u8::try_from(dice.roll(256)).unwrap();
            }
            format!("scramble {at}..{end}")
        }
        7 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
            format!("double {at}..{end}")
        }
        _ => match earlier.get(&name) {
            Some(old) => {
                *bytes = old.clone();
                "put an earlier version back".to_owned()
            }
            None => "nothing".to_owned(),
        },
    };
    format!("{}: {done}", name.display())
}

#[test]
fn any_change_of_any_file_is_named_or_harmless() {
    let n_rounds = std::env::var("CLAW_STORAGE_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(300_u64);
    let specimen = Specimen::new();
    let mut named: BTreeMap<(String, DamageKind), u64> = BTreeMap::new();
    let mut n_harmless = 0_u64;
    for state in [&specimen.live, &specimen.closed] {
        assert_eq!(reopened(state), Ok(specimen.content.clone()));
        for seed in 0..n_rounds {
            let mut changed = state.clone();
            let what = mutate(&mut Dice(seed), &mut changed, &specimen.earlier);
            match reopened(&changed) {
                Ok(found) => {
                    assert!(found == specimen.content, "silent change, seed {seed}: {what}");
                    n_harmless += 1;
                }
                Err(damage) => *named.entry((damage.file, damage.what)).or_default() += 1,
            }
        }
    }
    println!("{n_harmless} harmless, named: {named:#?}");
    let n_named: u64 = named.values().sum();
    assert!(n_named > n_rounds / 2, "most changes hurt, {n_named} were named");
}

#[test]
fn every_bit_of_the_headers_is_guarded_or_harmless() {
    let specimen = Specimen::new();
    let cases = [
        (&specimen.closed, "journal.db", 0..100),
        // While there is a log, SQLite looks at less of the header.
        (&specimen.live, "journal.db", 0..100),
        (&specimen.live, "journal.db-wal", 0..56),
    ];
    for (state, name, bytes) in cases {
        for at in bytes {
            for bit in 0..8 {
                let mut changed = state.clone();
                changed.get_mut(Path::new(name)).unwrap()[at] ^= 1 << bit;
                if let Ok(found) = reopened(&changed) {
                    assert!(found == specimen.content, "silent change: {name} {at}.{bit}");
                }
            }
        }
    }
}

#[test]
fn every_file_that_is_gone_is_missed() {
    let specimen = Specimen::new();
    let mut verdicts = String::new();
    for (state_name, state) in [("killed", &specimen.live), ("closed", &specimen.closed)] {
        for name in state.keys() {
            let mut rest = state.clone();
            rest.remove(name);
            let verdict = match reopened(&rest) {
                Ok(found) => {
                    assert!(found == specimen.content, "{} is gone in silence", name.display());
                    "nothing lost".to_owned()
                }
                Err(damage) => format!("{} in {}", damage.what, damage.file),
            };
            let line = format!("{state_name} {}: {verdict}\n", name.display());
            verdicts.push_str(&line);
        }
    }
    let expected = "\
killed archive/000001.jsonl: file missing in archive/000001.jsonl
killed archive/000002.jsonl: file missing in archive/000002.jsonl
killed archive/000003.jsonl: file missing in archive/000003.jsonl
killed journal.db: file missing in journal.db
killed journal.db-wal: acknowledged tail lost in journal.db-wal
killed journal.head: file missing in journal.head
killed snapshot/000000000300-000000000265.snap: file missing in snapshot/000000000300-000000000265.snap
closed archive/000001.jsonl: file missing in archive/000001.jsonl
closed archive/000002.jsonl: file missing in archive/000002.jsonl
closed archive/000003.jsonl: file missing in archive/000003.jsonl
closed journal.db: file missing in journal.db
closed journal.head: file missing in journal.head
closed snapshot/000000000300-000000000265.snap: file missing in snapshot/000000000300-000000000265.snap
";
    assert_eq!(verdicts, expected);
}

#[test]
fn damage_says_where_the_first_bad_event_is() {
    let specimen = Specimen::new();
    let replaced = |name: &str, from: &str, to: &str| {
        let mut changed = specimen.closed.clone();
        let bytes = changed.get_mut(Path::new(name)).unwrap();
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        reopened(&changed).unwrap_err()
    };
    let damage = replaced("archive/000002.jsonl", "wl_70", "wl_71");
    assert_eq!((damage.what, damage.file.as_str()), (DamageKind::ChainBroken, "archive/000002.jsonl"));
    let event = specimen.content.events.iter().find(|event| event.payload.starts_with(br#"{"workload":"wl_70""#));
    assert_eq!(damage.first_bad_seq, event.map(|event| event.seq));
    let damage = replaced("journal.db", "secret of event 32", "secret of event 33");
    assert_eq!((damage.what, damage.first_bad_seq), (DamageKind::BlobContent, None));
    // Live events are packed: what is named is where their row begins.
    let body: Vec<u8> = edited(&specimen, |conn| {
        conn.query_row("SELECT body FROM rounds WHERE first_seq = 301", [], |row| row.get(0)).unwrap()
    })
    .0;
    let mut n_named = 0;
    for n in 0..body.len() {
        let mut other = body.clone();
        other[n] ^= 1;
        let update = "UPDATE rounds SET body = ?1 WHERE first_seq = 301";
        let (_, changed) = edited(&specimen, |conn| conn.execute(update, [other]).unwrap());
        match reopened(&changed) {
            // A repetition that is copied from elsewhere.
            Ok(found) => assert!(found == specimen.content, "silent change of byte {n}"),
            Err(damage) => {
                assert_eq!((damage.what, damage.first_bad_seq), (DamageKind::ChainBroken, Some(301)), "byte {n}");
                n_named += 1;
            }
        }
    }
    assert!(n_named > body.len() / 2, "{n_named} of {}", body.len());
}

/// Lets `act` at a copy of the closed specimen's database; the files after that.
fn edited<T>(specimen: &Specimen, act: impl FnOnce(&rusqlite::Connection) -> T) -> (T, BTreeMap<PathBuf, Vec<u8>>) {
    let root = scratch();
    write_files(root.path(), &specimen.closed);
    let conn = rusqlite::Connection::open(root.path().join("journal.db")).unwrap();
    let done = act(&conn);
    drop(conn);
    (done, files(root.path()))
}

#[test]
fn a_log_cut_between_transactions_is_a_lost_tail() {
    let root = scratch();
    let mut journal = open(root.path());
    fill(&mut journal, 10);
    // The last transactions add no event: their loss must show all the same.
    journal.raise_epoch().unwrap();
    journal.put_snapshot(10, 1, b"state").unwrap();
    journal.compact(10).unwrap();
    append_at_head(&mut journal, 1, &[blob("h", b"value")]);
    let whole = files(root.path());
    let wal = Path::new("journal.db-wal");
    let frame_bytes = 24 + 4096;
    let n_frames = (whole[wal].len() - 32) / frame_bytes;
    assert!(n_frames > 20);
    for n in 0..n_frames {
        let mut shorter = whole.clone();
        shorter.get_mut(wal).unwrap().truncate(32 + n * frame_bytes);
        let damage = reopened(&shorter).unwrap_err();
        assert_eq!(damage.what, DamageKind::TailLost, "{n} frames: {damage}");
    }
    reopened(&whole).unwrap();
}

#[test]
fn the_head_of_another_journal_is_not_this_ones_past() {
    let (one_root, other_root) = (scratch(), scratch());
    let (mut journal, mut other) = (open(one_root.path()), open(other_root.path()));
    fill(&mut journal, 10);
    fill(&mut other, 10);
    append_at_head(&mut journal, 1, &[one("this", b"1")]);
    append_at_head(&mut other, 1, &[one("that", b"2")]);
    let head = fs::read(other_root.path().join("journal.head")).unwrap();
    let mut same_transaction = files(one_root.path());
    same_transaction.insert("journal.head".into(), head.clone());
    append_at_head(&mut journal, 2, &[one("later", b"3")]);
    let mut behind = files(one_root.path());
    behind.insert("journal.head".into(), head);
    for mixed in [same_transaction, behind] {
        assert_eq!(reopened(&mixed).unwrap_err().what, DamageKind::AnchorOffChain);
    }
}

#[test]
fn a_journal_restored_beside_a_newer_archive_does_not_eat_it() {
    let root = scratch();
    let mut journal = open(root.path());
    fill(&mut journal, 30);
    let earlier = files(root.path());
    fill(&mut journal, 30);
    journal.put_snapshot(60, 1, b"state").unwrap();
    journal.compact(60).unwrap();
    let mut restored = earlier;
    let newer = files(root.path());
    let archived = |name: &PathBuf| name.starts_with("archive");
    restored.extend(newer.into_iter().filter(|(name, _)| archived(name)));
    let damage = reopened(&restored).unwrap_err();
    let expected = ("archive/000001.jsonl", DamageKind::TailLost);
    assert_eq!((damage.file.as_str(), damage.what), expected);
}

#[test]
fn a_journal_restored_without_its_tail_is_not_taken_for_whole() {
    let specimen = Specimen::new();
    let mut restored = specimen.earlier.clone();
    restored.insert("journal.head".into(), specimen.live[Path::new("journal.head")].clone());
    let damage = reopened(&restored).unwrap_err();
    assert_eq!(damage.what, DamageKind::TailLost);
    assert!(damage.first_bad_seq.is_some_and(|seq| seq > 300), "{damage:?}");
    // The whole earlier copy is sound in itself: only the nodes know of later epochs.
    let root = scratch();
    write_files(root.path(), &specimen.earlier);
    open(root.path()).raise_epoch_above(9).unwrap();
}

#[test]
fn a_quick_open_leaves_archive_damage_to_the_read_that_meets_it() {
    let specimen = Specimen::new();
    let root = scratch();
    write_files(root.path(), &specimen.closed);
    let path = root.path().join("archive/000002.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let quick = JournalOptions { archive_check: ArchiveCheck::Size, ..options() };
    let (mut journal, _) = SqliteJournal::open_with(root.path(), quick).unwrap();
    assert_eq!(journal.read(0, 40).unwrap(), specimen.content.events[..40]);
    assert!(journal.read(40, 1).is_err(), "a damaged archive is never served");
    assert_eq!(journal.read(100, 999).unwrap(), specimen.content.events[100..]);
    assert!(journal.verify().is_err());
}

#[test]
fn a_newer_format_is_not_called_damage() {
    let root = scratch();
    drop(open(root.path()));
    let conn = rusqlite::Connection::open(root.path().join("journal.db")).unwrap();
    let body = br#"{"format":3,"shape":"unknown"}"#;
    let sum = crate::journal::sha256(&[body]);
    conn.execute("UPDATE meta SET body = ?1, sha256 = ?2", rusqlite::params![body, sum]).unwrap();
    drop(conn);
    match SqliteJournal::open(root.path()) {
        Err(OpenError::NewerFormat { found, supported }) => assert_eq!((found, supported), (3, 2)),
        other => panic!("a newer format must be told, got {other:?}"),
    }
}
