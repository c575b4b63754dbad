//! Both journals, any order of calls: the same answers.

use proptest::prelude::*;

use super::*;
use crate::journal::JournalError;

#[derive(Debug, Clone)]
enum Op {
    RaiseEpoch { seen: u64 },
    Append { expected_off: u64, epoch_off: u64, batches: Vec<Batch> },
    Read { after_seq: u64, limit: usize },
    Snapshot { seq: u64, state: Vec<u8> },
    Compact { up_to_seq: u64 },
    Erase { handle: u8 },
    Reopen,
}

fn batch() -> impl Strategy<Value = Batch> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        "\\{\"[a-z]{1,5}\":[0-9]{1,9}\\}".prop_map(String::into_bytes),
    ];
    let record = ("[a-z]{0,3}", 0..3_u16, payload).prop_map(|(kind, version, payload)| crate::journal::Record {
        kind,
        version,
        payload,
    });
    let blobs =
        (0..6_u8, 0..2_u8).prop_map(|(handle, byte)| Blob { handle: format!("blob-{handle}"), bytes: vec![byte] });
    let records = prop::collection::vec(record, 0..4);
    (records, prop::collection::vec(blobs, 0..2)).prop_map(|(records, blobs)| Batch { records, blobs })
}

fn op() -> impl Strategy<Value = Op> {
    // Mostly right, now and then one off.
    let off = prop_oneof![9 => Just(0_u64), 1 => Just(1)];
    let append = (off.clone(), off, prop::collection::vec(batch(), 0..4))
        .prop_map(|(expected_off, epoch_off, batches)| Op::Append { expected_off, epoch_off, batches });
    prop_oneof![
        1 => (0..9_u64).prop_map(|seen| Op::RaiseEpoch { seen }),
        8 => append,
        2 => (0..30_u64, 0..12_usize).prop_map(|(after_seq, limit)| Op::Read { after_seq, limit }),
        1 => (0..30_u64, prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(seq, state)| Op::Snapshot { seq, state }),
        1 => (0..30_u64).prop_map(|up_to_seq| Op::Compact { up_to_seq }),
        1 => (0..6_u8).prop_map(|handle| Op::Erase { handle }),
        1 => Just(Op::Reopen),
    ]
}

fn shown<T: std::fmt::Debug>(result: Result<T, JournalError>) -> String {
    format!("{result:?}")
}

/// The answer of one journal to one call.
fn answer(journal: &mut impl Journal, op: &Op) -> String {
    let head = journal.head();
    match op {
        Op::RaiseEpoch { seen } => shown(journal.raise_epoch_above(*seen)),
        Op::Append { expected_off, epoch_off, batches } => {
            shown(journal.append(head.seq + expected_off, head.epoch + epoch_off, 7, batches))
        }
        Op::Read { after_seq, limit } => shown(journal.read(*after_seq, *limit)),
        Op::Snapshot { seq, state } => shown(journal.put_snapshot(*seq, 1, state)),
        Op::Compact { up_to_seq } => {
            shown(journal.compact(*up_to_seq).map(|report| (report.n_events, report.archived_through)))
        }
        Op::Erase { handle } => shown(journal.erase_blob(&format!("blob-{handle}"))),
        Op::Reopen => String::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn both_journals_answer_alike(ops in prop::collection::vec(op(), 1..40)) {
        let root = scratch();
        let small_archives = || JournalOptions { archive_events_max: 4, ..options() };
        let open = || SqliteJournal::open_with(root.path(), small_archives()).unwrap().0;
        let mut model = MemoryJournal::default();
        let mut journal = Some(open());
        for op in &ops {
            if matches!(op, Op::Reopen) {
                drop(journal.take());
                journal = Some(open());
            }
            let durable = journal.as_mut().unwrap();
            prop_assert_eq!(answer(durable, op), answer(&mut model, op));
            prop_assert_eq!(content(durable), content(&mut model));
        }
        let (found, expected) = (journal.as_mut().unwrap().verify().unwrap(), model.verify().unwrap());
        prop_assert_eq!(found.head, expected.head);
        prop_assert_eq!((found.n_live, found.n_archived), (expected.n_live, expected.n_archived));
        prop_assert_eq!((found.n_blobs, found.snapshot_seq), (expected.n_blobs, expected.snapshot_seq));
    }
}
