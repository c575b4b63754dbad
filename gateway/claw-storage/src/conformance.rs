//! The one suite that every [`Journal`] passes, whatever it stands on.
//!
//! Test support that ships: whoever writes a further journal (or wraps one) calls
//! [`run`] from a test. A broken promise is a panic that names it.

use crate::journal::{
    BLOB_BYTES_MAX, Batch, Blob, HANDLE_BYTES_MAX, Head, Journal, JournalError, KIND_BYTES_MAX, PAYLOAD_BYTES_MAX,
    Record, Stored, chain_hash,
};

/// Runs every case, each on a fresh, empty journal from `make`.
pub fn run<J: Journal>(mut make: impl FnMut() -> J) {
    starts_at_genesis(&mut make());
    chains_what_it_appends(&mut make());
    commits_a_group_whole_or_not(&mut make());
    fences_the_deposed_and_the_stale(&mut make());
    raises_the_epoch_above_what_was_seen(&mut make());
    reads_pages_without_holes(&mut make());
    keeps_the_latest_snapshot(&mut make());
    writes_a_snapshot_beside_appends(&mut make());
    keeps_two_snapshots_of_one_place_apart(&mut make());
    refuses_a_snapshot_of_another_chain(&mut make(), &mut make());
    compacts_without_losing_an_event(&mut make());
    keeps_and_erases_blobs(&mut make());
    refuses_sizes_out_of_bounds(&mut make());
    stores_any_bytes(&mut make());
}

/// A batch of one record.
pub fn one(kind: &str, payload: &[u8]) -> Batch {
    Batch { records: vec![Record { kind: kind.to_owned(), version: 1, payload: payload.to_vec() }], blobs: Vec::new() }
}

/// Appends `batches` at the present head, which must succeed.
pub fn append_at_head<J: Journal>(journal: &mut J, at_ms: i64, batches: &[Batch]) -> Head {
    let head = journal.head();
    journal.append(head.seq, head.epoch, at_ms, batches).expect("an append at the head succeeds")
}

/// Every event from genesis, read in small pages.
pub fn read_all<J: Journal>(journal: &mut J) -> Vec<Stored> {
    let mut events: Vec<Stored> = Vec::new();
    loop {
        let after_seq = events.last().map_or(0, |event| event.seq);
        let page = journal.read(after_seq, 7).expect("a read succeeds");
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

fn append_n<J: Journal>(journal: &mut J, n: u64) {
    for at_ms in 0..n {
        let at_ms = i64::try_from(at_ms).expect("a small count");
        append_at_head(journal, at_ms, &[one("tick", br#"{"n":1}"#)]);
    }
}

fn starts_at_genesis<J: Journal>(journal: &mut J) {
    let head = Head { seq: 0, epoch: 0, hash: [0; 32] };
    assert_eq!(journal.head(), head, "an empty journal stands at genesis");
    assert_eq!(read_all(journal), [], "an empty journal has no events");
    let snapshot = journal.latest_snapshot().expect("readable");
    assert_eq!(snapshot, None, "an empty journal has no snapshot");
    let verified = journal.verify().expect("an empty journal is sound");
    assert_eq!(verified.head, head);
}

fn chains_what_it_appends<J: Journal>(journal: &mut J) {
    let epoch = journal.raise_epoch().expect("the epoch rises");
    append_at_head(journal, 5, &[one("a", b"{}")]);
    let head = append_at_head(journal, 6, &[one("b", b"[1]")]);
    let first = chain_hash(&[0; 32], 1, epoch, 5, "a", 1, b"{}");
    let second = chain_hash(&first, 2, epoch, 6, "b", 1, b"[1]");
    let expected = [(1, 5, "a", first), (2, 6, "b", second)];
    let found = read_all(journal);
    for (event, (seq, at_ms, kind, hash)) in found.iter().zip(expected) {
        let shown = (event.seq, event.at_ms, event.kind.as_str(), event.hash);
        assert_eq!(shown, (seq, at_ms, kind, hash));
        assert_eq!(event.epoch, epoch, "an event carries its writer's epoch");
    }
    assert_eq!((found.len(), head.hash), (2, second));
    assert_eq!(journal.head(), head, "append returns the head");
    assert_eq!(journal.verify().expect("sound").head, head);
}

fn commits_a_group_whole_or_not<J: Journal>(journal: &mut J) {
    let group = [one("a", b"1"), Batch::default(), one("b", b"2")];
    let head = append_at_head(journal, 0, &group);
    assert_eq!(head.seq, 2, "a group is appended in order");
    let before = read_all(journal);
    let oversized = one("", b"3");
    let refused = journal.append(2, head.epoch, 1, &[one("c", b"3"), oversized]);
    assert!(refused.is_err(), "one bad batch refuses the whole group");
    assert_eq!(journal.head(), head, "a refused group moves nothing");
    assert_eq!(read_all(journal), before, "a refused group leaves no event");
    let same = append_at_head(journal, 2, &[]);
    assert_eq!(same, head, "nothing to append is no change");
}

fn fences_the_deposed_and_the_stale<J: Journal>(journal: &mut J) {
    let deposed = journal.raise_epoch().expect("the epoch rises");
    append_n(journal, 3);
    let current = journal.raise_epoch().expect("the epoch rises");
    let batch = [one("late", b"{}")];
    for given in [deposed, current + 1] {
        // The epoch speaks first: a deposed leader's sequence means nothing.
        match journal.append(99, given, 0, &batch) {
            Err(JournalError::Fenced { given: named, current: at }) => assert_eq!((named, at), (given, current)),
            other => panic!("epoch {given} must be fenced, got {other:?}"),
        }
    }
    for expected in [2, 4] {
        match journal.append(expected, current, 0, &batch) {
            Err(JournalError::SequenceConflict { expected: named, actual }) => {
                assert_eq!((named, actual), (expected, 3));
            }
            other => panic!("sequence {expected} must conflict, got {other:?}"),
        }
    }
    assert_eq!(read_all(journal).len(), 3, "a fenced append leaves nothing");
    append_at_head(journal, 0, &batch);
}

fn raises_the_epoch_above_what_was_seen<J: Journal>(journal: &mut J) {
    assert_eq!(journal.raise_epoch().expect("rises"), 1);
    assert_eq!(journal.raise_epoch_above(7).expect("rises"), 8);
    assert_eq!(journal.raise_epoch_above(3).expect("rises"), 9, "never down");
    match journal.raise_epoch_above(u64::MAX) {
        Err(JournalError::EpochOutOfRange { seen }) => assert_eq!(seen, u64::MAX),
        other => panic!("an absurd epoch must be refused, got {other:?}"),
    }
    assert_eq!(journal.head().epoch, 9, "a refused epoch changes nothing");
}

fn reads_pages_without_holes<J: Journal>(journal: &mut J) {
    append_n(journal, 20);
    let all = read_all(journal);
    let seqs: Vec<u64> = all.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=20).collect::<Vec<u64>>());
    assert_eq!(journal.read(4, 3).expect("readable"), all[4..7]);
    assert_eq!(journal.read(18, 9).expect("readable"), all[18..]);
    for (after_seq, limit) in [(20, 1), (21, 1), (u64::MAX, 1), (0, 0)] {
        assert_eq!(journal.read(after_seq, limit).expect("readable"), []);
    }
}

fn keeps_the_latest_snapshot<J: Journal>(journal: &mut J) {
    append_n(journal, 4);
    let hashes: Vec<[u8; 32]> = read_all(journal).iter().map(|event| event.hash).collect();
    for (seq, format, state) in [(2, 1, &b"two"[..]), (4, 2, b"four"), (4, 3, b"")] {
        journal.put_snapshot(seq, format, state).expect("saved");
        let latest = journal.latest_snapshot().expect("readable").expect("there");
        assert_eq!((latest.seq, latest.format, &latest.state[..]), (seq, format, state));
        let at = usize::try_from(seq).expect("a small count") - 1;
        assert_eq!(latest.hash, hashes[at], "a snapshot names its place on the chain");
    }
    match journal.put_snapshot(3, 1, b"old") {
        Err(JournalError::StaleSnapshot { seq: 3, latest_seq: 4 }) => {}
        other => panic!("an older snapshot must be refused, got {other:?}"),
    }
    match journal.put_snapshot(5, 1, b"future") {
        Err(JournalError::BeyondHead { seq: 5, head_seq: 4 }) => {}
        other => panic!("a snapshot beyond the head must be refused, got {other:?}"),
    }
    assert_eq!(journal.verify().expect("sound").snapshot_seq, Some(4));
}

fn writes_a_snapshot_beside_appends<J: Journal>(journal: &mut J) {
    append_n(journal, 4);
    let (early, late) = (journal.begin_snapshot(2).expect("a place"), journal.begin_snapshot(4).expect("a place"));
    append_n(journal, 3);
    assert_eq!(journal.latest_snapshot().expect("readable"), None, "it counts once it is finished");
    let (early, late) = (early.write(1, b"two").expect("written"), late.write(1, b"four"));
    append_n(journal, 1);
    journal.finish_snapshot(late.expect("written")).expect("named");
    let hash = read_all(journal)[3].hash;
    let latest = journal.latest_snapshot().expect("readable").expect("there");
    assert_eq!((latest.seq, &latest.state[..], latest.hash), (4, &b"four"[..], hash));
    match journal.finish_snapshot(early) {
        Err(JournalError::StaleSnapshot { seq: 2, latest_seq: 4 }) => {}
        other => panic!("one that was overtaken must be refused, got {other:?}"),
    }
    assert_eq!(journal.verify().expect("sound").snapshot_seq, Some(4));
    assert_eq!(journal.head().seq, 8);
}

/// One that is begun while another of the same event is on its way has a file of its own.
fn keeps_two_snapshots_of_one_place_apart<J: Journal>(journal: &mut J) {
    append_n(journal, 4);
    let slow = journal.begin_snapshot(4).expect("a place");
    journal.put_snapshot(4, 1, b"quick").expect("saved");
    let slow = slow.write(1, b"slow").expect("written");
    let state = |journal: &mut J| journal.latest_snapshot().expect("readable").map(|latest| latest.state);
    assert_eq!(state(journal), Some(b"quick".to_vec()), "what is written and not finished changes nothing");
    journal.finish_snapshot(slow).expect("named");
    assert_eq!(state(journal), Some(b"slow".to_vec()));
}

fn refuses_a_snapshot_of_another_chain<J: Journal>(journal: &mut J, other: &mut J) {
    append_n(journal, 3);
    append_at_head(other, 7, &[one("other", b"1"), one("other", b"2"), one("other", b"3")]);
    let foreign = other.begin_snapshot(3).expect("a place").write(1, b"theirs").expect("written");
    match journal.finish_snapshot(foreign) {
        Err(JournalError::SequenceConflict { expected: 3, actual: 3 }) => {}
        other => panic!("a snapshot of another journal must be refused, got {other:?}"),
    }
    assert_eq!(journal.latest_snapshot().expect("readable"), None);
}

fn compacts_without_losing_an_event<J: Journal>(journal: &mut J) {
    append_n(journal, 12);
    let before = read_all(journal);
    match journal.compact(5) {
        Err(JournalError::SnapshotRequired { up_to_seq: 5, snapshot_seq: None }) => {}
        other => panic!("compaction without a snapshot must be refused, got {other:?}"),
    }
    journal.put_snapshot(10, 1, b"state").expect("saved");
    assert!(journal.compact(11).is_err(), "compaction beyond the snapshot");
    for (up_to_seq, n_events) in [(5, 5), (5, 0), (3, 0), (10, 5)] {
        let report = journal.compact(up_to_seq).expect("compacts");
        assert_eq!(report.n_events, n_events);
        assert_eq!(report.archived_through, up_to_seq.max(5));
        assert_eq!(read_all(journal), before, "archived events are read like live ones");
        assert_eq!(journal.read(2, 6).expect("readable"), before[2..8]);
    }
    append_n(journal, 2);
    let verified = journal.verify().expect("sound");
    assert_eq!((verified.n_archived, verified.n_live), (10, 4));
    assert_eq!(read_all(journal)[..12], before);
}

fn blob(handle: &str, bytes: &[u8]) -> Batch {
    Batch { records: Vec::new(), blobs: vec![Blob { handle: handle.to_owned(), bytes: bytes.to_vec() }] }
}

fn keeps_and_erases_blobs<J: Journal>(journal: &mut J) {
    append_at_head(journal, 0, &[one("a", b"{}"), blob("h1", b"secret"), blob("h2", b"")]);
    append_at_head(journal, 1, &[blob("h1", b"secret")]);
    assert_eq!(journal.head().seq, 1, "blobs are no part of the chain and may be repeated");
    assert_eq!(journal.blob("h1").expect("readable").as_deref(), Some(&b"secret"[..]));
    assert_eq!(journal.blob("h2").expect("readable").as_deref(), Some(&b""[..]));
    assert_eq!(journal.blob("h3").expect("readable"), None);
    let head = journal.head();
    let mut conflicts = |batches: &[Batch]| {
        let refused = journal.append(head.seq, head.epoch, 2, batches);
        assert!(
            matches!(refused, Err(JournalError::BlobConflict { .. })),
            "a handle means one value for ever, got {refused:?}"
        );
    };
    conflicts(&[one("b", b"{}"), blob("h1", b"other")]);
    conflicts(&[blob("h3", b"1"), blob("h3", b"2")]);
    assert!(journal.erase_blob("h1").expect("erases"));
    assert!(!journal.erase_blob("h1").expect("erases"), "there is nothing left to erase");
    assert!(!journal.erase_blob("h3").expect("erases"));
    assert_eq!(journal.blob("h1").expect("readable"), None);
    let refused = journal.append(head.seq, head.epoch, 3, &[blob("h1", b"secret")]);
    assert!(matches!(refused, Err(JournalError::BlobConflict { .. })), "erased stays erased");
    assert_eq!(journal.verify().expect("sound").n_blobs, 2, "an erased handle is remembered");
    assert_eq!(journal.head(), head);
}

fn refuses_sizes_out_of_bounds<J: Journal>(journal: &mut J) {
    let long_kind = "k".repeat(KIND_BYTES_MAX + 1);
    let long_handle = "h".repeat(HANDLE_BYTES_MAX + 1);
    let cases = [
        one("", b"{}"),
        one(&long_kind, b"{}"),
        one("a", &vec![b'0'; PAYLOAD_BYTES_MAX + 1]),
        blob("", b"1"),
        blob(&long_handle, b"1"),
        blob("h", &vec![0; BLOB_BYTES_MAX + 1]),
    ];
    for batch in cases {
        let refused = journal.append(0, 0, 0, &[batch]);
        assert!(matches!(refused, Err(JournalError::BadSize { .. })), "got {refused:?}");
    }
    assert_eq!(journal.head().seq, 0);
}

fn stores_any_bytes<J: Journal>(journal: &mut J) {
    let payloads: [&[u8]; 9] = [
        b"",
        b"null",
        b"{\"a\":[1,2.50,\"\xc3\xa9\"]}",
        b" {\"padded\": true} ",
        b"{\"two\":\n\"lines\"}",
        b"\xff\xfe\x00",
        b"not json",
        b"{\"a\":1,\"a\":2}",
        b"1e400",
    ];
    for (payload, at_ms) in payloads.iter().zip([0, -1, i64::MIN, i64::MAX, 4, 5, 6, 7, 8]) {
        append_at_head(journal, at_ms, &[one("kind \u{e9}\n\"\0", payload)]);
    }
    let before = read_all(journal);
    journal.put_snapshot(9, 0, b"\0\xff").expect("saved");
    journal.compact(9).expect("compacts");
    assert_eq!(read_all(journal), before, "the archive keeps every byte of a payload");
    let found: Vec<&[u8]> = before.iter().map(|event| &event.payload[..]).collect();
    assert_eq!(found, payloads);
    journal.verify().expect("sound");
}
