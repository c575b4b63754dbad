//! Events packed in rows come out as they went in, and only as they went in.

use proptest::prelude::*;

use super::*;
use crate::journal::{ChainWalk, Damage, DamageKind, GENESIS, PAYLOAD_BYTES_MAX, Record, extend_chain};
use crate::sqlite::rows::{self, EventRow};

fn unpacked(rows: &[EventRow]) -> Result<Vec<Stored>, Damage> {
    let mut walk = ChainWalk::after(0, GENESIS);
    let events: Result<Vec<_>, Damage> = rows.iter().map(|row| row.walk(&mut walk)).collect();
    events.map(|events| events.concat())
}

fn record() -> impl Strategy<Value = Record> {
    let payload = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (0..3_usize).prop_map(|n| noise(100_000 * n)),
    ];
    ("[a-z_]{1,128}", any::<u16>(), payload).prop_map(|(kind, version, payload)| Record { kind, version, payload })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_is_the_chain(
        records in prop::collection::vec(record(), 0..12),
        at_ms in any::<i64>(),
        cut in 0..12_usize,
    ) {
        let start = Head { seq: 0, epoch: 7, hash: GENESIS };
        let batches = [Batch { records, blobs: Vec::new() }];
        let (expected, expected_head) = extend_chain(&start, at_ms, &batches);
        let (rows, head) = rows::pack(&start, at_ms, &batches);
        prop_assert_eq!(head, expected_head);
        prop_assert_eq!(unpacked(&rows).unwrap(), expected.clone());
        prop_assert_eq!(&rows::pack_stored(GENESIS, &expected), &rows);
        // Whatever stays behind when the first of them are archived goes on from there.
        let (gone, rest) = expected.split_at(cut.min(expected.len()));
        let prev_hash = gone.last().map_or(GENESIS, |event| event.hash);
        let kept: Vec<Stored> =
            rows::pack_stored(prev_hash, rest).iter().flat_map(|row| row.events().unwrap()).collect();
        prop_assert_eq!(kept, rest);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Bytes of somebody else are no events, packed or not.
    #[test]
    fn a_row_of_other_bytes_is_damage(
        unpacked in prop::collection::vec(any::<u8>(), 0..300),
        raw in prop::collection::vec(any::<u8>(), 0..60),
        claim in prop_oneof![Just(None), (0..1_000_usize).prop_map(Some), any::<usize>().prop_map(Some)],
        is_packed in any::<bool>(),
    ) {
        let start = Head { seq: 0, epoch: 7, hash: GENESIS };
        let (mut rows, _) = rows::pack(&start, 1, &[one("a", b"{}"), one("b", b"{}")]);
        let body = if is_packed { lz4_flex::block::compress(&unpacked) } else { raw };
        let row = rows.remove(0).with(claim.unwrap_or(unpacked.len()), body);
        let damage = row.events().unwrap_err();
        prop_assert_eq!((damage.what, damage.first_bad_seq), (DamageKind::ChainBroken, Some(1)));
    }
}

#[test]
fn the_largest_event_fits_and_rows_are_bounded() {
    let root = scratch();
    let mut journal = open(root.path());
    let largest = noise(PAYLOAD_BYTES_MAX - 2);
    let wide = noise(100_000);
    let kind = "k".repeat(crate::journal::KIND_BYTES_MAX);
    append_at_head(&mut journal, 1, &[one("a", &wide), one("b", &wide), one(&kind, &largest), one("c", &wide)]);
    let expected = read_all(&mut journal);
    assert_eq!(expected.iter().map(|event| event.payload.len()).max(), Some(PAYLOAD_BYTES_MAX));
    drop(journal);
    let conn = rusqlite::Connection::open(root.path().join("journal.db")).unwrap();
    let n_events: Vec<i64> = conn
        .prepare("SELECT n_events FROM rounds ORDER BY first_seq")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(n_events, [2, 1, 1], "a large event has a row of its own");
    drop(conn);
    assert_eq!(read_all(&mut open(root.path())), expected);
}

/// A block that says it unpacks to more than any row has is not believed.
#[test]
fn a_row_that_claims_too_much_is_damage() {
    let root = scratch();
    let mut journal = open(root.path());
    fill(&mut journal, 5);
    drop(journal);
    for claim in [0, 1, 1 << 20, 1 << 30, i64::MAX] {
        let conn = rusqlite::Connection::open(root.path().join("journal.db")).unwrap();
        conn.execute("UPDATE rounds SET unpacked_bytes = ?1 WHERE first_seq = 1", [claim]).unwrap();
        drop(conn);
        match SqliteJournal::open_with(root.path(), options()) {
            Err(OpenError::Damage(damage)) => assert_eq!(damage.first_bad_seq, Some(1), "{claim}"),
            other => panic!("{claim}: {other:?}"),
        }
    }
}
