//! Full disks: the journal stands at its old head, reads go on, and it recovers by itself.

use super::*;
use crate::journal::{JournalError, Space};
use crate::test_disk::TinyDisk;

/// Appends until the journal refuses, checks that the refusal is `Full`, and
/// returns what the journal held before it.
fn fill_up(journal: &mut SqliteJournal) -> Content {
    let payload = noise(3_000);
    loop {
        let head = journal.head();
        match journal.append(head.seq, head.epoch, 1, &[one("wide", &payload)]) {
            Ok(_) => {}
            Err(JournalError::Full) => {
                assert_eq!(journal.head(), head, "a refused append moves nothing");
                return content(journal);
            }
            Err(other) => panic!("a full disk must be told, got {other:?}"),
        }
    }
}

#[test]
fn a_full_database_refuses_reads_on_and_recovers() {
    let root = scratch();
    let mut journal = open(root.path());
    fill(&mut journal, 50);
    journal.set_db_bytes_max(Some(400_000)).unwrap();
    let before = fill_up(&mut journal);
    assert!(before.head.seq > 60);
    assert_eq!(fill_up(&mut journal), before, "still full, still whole");
    journal.set_db_bytes_max(None).unwrap();
    append_at_head(&mut journal, 2, &[one("small", b"{}")]);
    journal.verify().unwrap();
    drop(journal);
    let mut journal = open(root.path());
    assert_eq!(journal.head().seq, before.head.seq + 1);
    assert_eq!(read_all(&mut journal)[..before.events.len()], before.events);
}

#[test]
fn a_full_disk_refuses_reads_on_and_recovers_without_a_restart() {
    let Some(disk) = TinyDisk::mount("the journal") else {
        return;
    };
    let dir = disk.path().join("journal");
    let mut journal = open(&dir);
    fill(&mut journal, 50);
    let filler = disk.fill_leaving(100_000);
    let before = fill_up(&mut journal);
    for _ in 0..3 {
        assert_eq!(fill_up(&mut journal), before, "still full, still whole");
    }
    let snapshot = journal.put_snapshot(before.head.seq, 1, &vec![1; 60_000]);
    assert!(matches!(snapshot, Err(JournalError::Full)), "{snapshot:?}");
    assert_eq!(content(&mut journal), before, "a failed snapshot leaves the old one");
    fs::remove_file(filler).unwrap();
    append_at_head(&mut journal, 2, &[one("small", b"{}")]);
    journal.put_snapshot(before.head.seq, 1, &vec![1; 60_000]).unwrap();
    journal.compact(before.head.seq).unwrap();
    journal.verify().unwrap();
    drop(journal);
    let mut journal = open(&dir);
    assert_eq!(journal.head().seq, before.head.seq + 1);
    assert_eq!(read_all(&mut journal)[..before.events.len()], before.events);
}

#[test]
fn killed_on_a_full_disk_it_opens_again_on_the_full_disk() {
    let Some(disk) = TinyDisk::mount("the journal") else {
        return;
    };
    let dir = disk.path().join("journal");
    let mut journal = open(&dir);
    fill(&mut journal, 20);
    let filler = disk.fill_leaving(60_000);
    let before = fill_up(&mut journal);
    drop(journal);
    let mut journal = open(&dir);
    assert_eq!(content(&mut journal), before);
    fs::remove_file(filler).unwrap();
    append_at_head(&mut journal, 2, &[one("small", b"{}")]);
    journal.verify().unwrap();
}

#[test]
fn the_reserve_carries_the_closing_records_and_comes_back() {
    let Some(disk) = TinyDisk::mount("the journal's reserve") else {
        return;
    };
    let dir = disk.path().join("journal");
    let with_reserve = || JournalOptions { reserve_bytes: 200_000, ..options() };
    let mut journal = SqliteJournal::open_with(&dir, with_reserve()).unwrap().0;
    fill(&mut journal, 20);
    assert_eq!(fs::metadata(dir.join("reserve.bin")).unwrap().len(), 200_000);
    let filler = disk.fill_leaving(30_000);
    // Appends go on over the full disk, and the journal says what they stand on.
    let mut n_on_reserve = 0;
    let payload = noise(3_000);
    while n_on_reserve < 8 {
        append_at_head(&mut journal, 1, &[one("closing", &payload)]);
        n_on_reserve += u32::from(journal.space() == Space::OnReserve);
    }
    assert!(!dir.join("reserve.bin").exists());
    let before = fill_up(&mut journal);
    fs::remove_file(filler).unwrap();
    // A gateway on its reserve refuses changes, so nothing may come to be appended.
    journal.put_snapshot(before.head.seq, 1, b"state").unwrap();
    assert_eq!(journal.space(), Space::Normal, "the reserve is made again once there is room");
    append_at_head(&mut journal, 2, &[one("small", b"{}")]);
    assert_eq!(fs::metadata(dir.join("reserve.bin")).unwrap().len(), 200_000);
    assert_eq!(read_all(&mut journal)[..before.events.len()], before.events);
    journal.verify().unwrap();
}
