use std::sync::Arc;

use claw_proto::ids::{Attempt, Generation, WorkloadId};
use claw_proto::message::{DesiredWorkload, NodeWorkloadState, StatusCause, StatusRecord};
use claw_proto::spec::{OnPartition, RuntimeKind, WorkloadSpec};
use claw_proto::time::Timestamp;
use proptest::prelude::*;

use super::*;

fn change(n: u64) -> DurableChange {
    let workload_id = WorkloadId::from_bits(u128::from(n % 5));
    match n % 3 {
        0 => DurableChange::Seen { epoch: n, generation: Generation { epoch: n, n } },
        1 => DurableChange::Accepted {
            workload: Arc::new(DesiredWorkload {
                workload_id,
                attempt: Attempt(1),
                spec: WorkloadSpec { command: Some(vec!["true".into(); 3]), ..WorkloadSpec::default() },
                gpus: Vec::new(),
                runtime: RuntimeKind::Process,
                on_partition: OnPartition::Keep,
                grace_s: 1,
                max_duration_s: None,
                secrets: Vec::new(),
                registry_auth: None,
                ranks: None,
                checkpoint_last: None,
            }),
            lease: None,
        },
        _ => DurableChange::Recorded {
            record: StatusRecord {
                record: n,
                workload_id,
                attempt: Attempt(1),
                state: NodeWorkloadState::ALL[usize::try_from(n % 8).unwrap()],
                cause: StatusCause::Progress,
                detail: "detail".into(),
                exit_code: None,
                signal: None,
                at: Timestamp::from_unix_ms(1),
                simulated: false,
                checkpoint: None,
            },
            mono_ms: n,
        },
    }
}

fn folded(n_changes: u64) -> DurableState {
    let mut state = DurableState::new(9);
    for n in 0..n_changes {
        state.apply(&change(n));
    }
    state
}

proptest! {
    /// Cut anywhere, as a crash does: a start finds every batch that was
    /// reported as written before the cut, whole, and goes on from there.
    #[test]
    fn a_torn_tail_costs_only_what_was_never_reported(sizes in prop::collection::vec(1..4u64, 1..8), cut in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.log");
        let mut store = Store::open(folder.path(), 9).unwrap();
        let mut ends = vec![(fs::metadata(&path).unwrap().len(), 0)];
        let mut n = 0;
        for size in sizes {
            let batch: Vec<_> = (n..n + size).map(change).collect();
            store.append(&batch).unwrap();
            n += size;
            ends.push((fs::metadata(&path).unwrap().len(), n));
        }
        prop_assert_eq!(store.state(), &folded(n));
        drop(store);
        let bytes = fs::read(&path).unwrap();
        let first = usize::try_from(ends[0].0).unwrap();
        let length = first + cut.index(bytes.len() - first + 1);
        fs::write(&path, &bytes[..length]).unwrap();
        let reported = ends.iter().rev().find(|(end, _)| *end <= length as u64).unwrap().1;
        let mut again = Store::open(folder.path(), 1).unwrap();
        let kept = (reported..=n).find(|kept| *again.state() == folded(*kept));
        prop_assert!(kept.is_some(), "the state is no prefix of what was written");
        again.append(&[change(0)]).unwrap();
        let state = again.state().clone();
        let third = Store::open(folder.path(), 1).unwrap();
        prop_assert_eq!(third.state(), &state);
    }

    /// A flipped bit before the last frame is named, never skipped.
    #[test]
    fn damage_before_the_end_is_an_error(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.log");
        let mut store = Store::open(folder.path(), 9).unwrap();
        store.append(&(0..4).map(change).collect::<Vec<_>>()).unwrap();
        let good = usize::try_from(store.length).unwrap();
        store.append(&[change(5)]).unwrap();
        drop(store);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at.index(good)] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        let error = Store::open(folder.path(), 1).unwrap_err();
        prop_assert!(matches!(error, StoreError::Damaged { .. }), "{}", error);
        prop_assert_eq!(fs::read(&path).unwrap(), bytes, "the evidence was changed");
    }
}

/// A file may have grown before its blocks were written: what was never written is zeros.
#[test]
fn a_tail_of_zeros_is_torn_wherever_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.log");
    let mut store = Store::open(folder.path(), 9).unwrap();
    let first = usize::try_from(store.length).unwrap();
    store.append(&[change(2)]).unwrap();
    let second = usize::try_from(store.length).unwrap();
    store.append(&[change(5)]).unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    for at in first..whole.len() {
        let mut bytes = whole.clone();
        bytes[at..].fill(0);
        fs::write(&path, &bytes).unwrap();
        let mut state = DurableState::new(9);
        if at >= second {
            state.apply(&change(2));
        }
        assert_eq!(Store::open(folder.path(), 1).unwrap().state(), &state, "zeros from byte {at}");
    }
}

/// Found by fuzzing: the count of ended attempts overflowed at the next end.
#[test]
fn a_count_that_was_read_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.log");
    let mut state = serde_json::to_value(DurableState::new(9)).unwrap();
    state["n_ended"] = u64::MAX.into();
    let json = serde_json::json!({ "state": state }).to_string().into_bytes();
    let head = [u32::try_from(json.len()).unwrap().to_le_bytes(), crc32fast::hash(&json).to_le_bytes()].concat();
    fs::write(&path, [head, json].concat()).unwrap();
    let mut store = Store::open(folder.path(), 1).unwrap();
    assert_eq!(store.state(), &DurableState::new(9));
    store.append(&[change(5)]).unwrap();
    assert_eq!(store.state().ended.len(), 1);
}

#[test]
fn a_grown_file_is_replaced_by_its_fold() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), 9).unwrap();
    store.compact_bytes_min = 10_000;
    let mut last = 0;
    for n in 0..200u64 {
        store.append(&[change(3 * n + 2), DurableChange::Acked { through: 3 * n + 2 }]).unwrap();
        last = last.max(store.length);
    }
    assert!(store.length < last, "never compacted");
    let state = store.state().clone();
    drop(store);
    assert_eq!(Store::open(folder.path(), 1).unwrap().state(), &state);
}
