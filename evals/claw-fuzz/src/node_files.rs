//! What a node keeps on its disk, forged with sound checksums: log segments and records.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use claw_proto::ids::{Attempt, Generation, WorkloadId};
use claw_proto::message::{LogKey, LogStream, NodeWorkloadState, StatusCause, StatusRecord};
use claw_proto::time::Timestamp;
use clawnode::logs::{LogPump, SegmentReader, SegmentWriter};
use clawnode::node::{DurableChange, DurableState, StopIntent};
use clawnode::store::{Store, StoreError};
use serde_json::{Value, json};

use crate::tape::Tape;

const WORKLOAD: WorkloadId = WorkloadId::from_bits(7);
const ATTEMPT: Attempt = Attempt(1);
/// What the writer under test adds to a log.
const ADDED: [&[u8]; 2] = [b"added one", b"added two"];

fn log_frame(tape: &mut Tape<'_>) -> Vec<u8> {
    let (sequence, at_ms) = (tape.number(), tape.number());
    let line = tape.short();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&at_ms.to_le_bytes());
    hasher.update(line);
    let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
    let parts: [&[u8]; 5] =
        [&length.to_le_bytes(), &hasher.finalize().to_le_bytes(), &sequence.to_le_bytes(), &at_ms.to_le_bytes(), line];
    parts.concat()
}

/// Forges the segments of one attempt's log, and returns the highest number in a name.
fn forge_segments(tape: &mut Tape<'_>, folder: &Path) -> u64 {
    let mut highest = 0;
    for _ in 0..8 {
        if tape.is_over() {
            break;
        }
        let stream = LogStream::ALL[tape.below(2)];
        let first = tape.number();
        highest = highest.max(first);
        let mut content = Vec::new();
        for _ in 0..tape.below(12) {
            match tape.below(6) {
                0 => content.extend_from_slice(tape.short()),
                1 => content.truncate(tape.place(content.len())),
                2 => content.resize(content.len() + tape.below(64), 0),
                _ => content.extend(log_frame(tape)),
            }
        }
        fs::write(folder.join(format!("{stream}-{first:020}.seg")), content).expect("a segment");
    }
    highest
}

/// Everything that a reader gives from its place on: numbers rise, each gap is named.
fn read_all(reader: &mut SegmentReader) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for _ in 0..4_000 {
        let due = reader.next_sequence();
        let batch = reader.read(3, 100).expect("any files are read");
        let Some(first) = batch.lines.first() else {
            assert_eq!(batch.gap, None, "a gap stands before a line");
            return lines;
        };
        match batch.gap {
            Some(gap) => assert_eq!((gap.first_sequence, gap.first_sequence + gap.n_lost), (due, first.sequence)),
            None => assert_eq!(first.sequence, due),
        }
        assert!(batch.lines.windows(2).all(|pair| pair[0].sequence + 1 == pair[1].sequence), "{batch:?}");
        lines.extend(batch.lines.into_iter().map(|line| line.bytes));
    }
    panic!("the reader does not come to an end");
}

/// What a writer adds to a log is read after whatever else is readable, in order, each gap
/// named; and the pump sends nothing twice or backwards, whatever was acknowledged.
pub(crate) fn node_log(bytes: &[u8]) {
    let root = tempfile::tempdir().expect("a folder for logs");
    let mut tape = Tape::new(bytes);
    let acks = [tape.number(), tape.number(), tape.number()];
    let bytes_max = tape.number();
    let highest = forge_segments(&mut tape, root.path());
    let stream = LogStream::Stdout;
    let mut reader = SegmentReader::new(root.path(), stream);
    let before = read_all(&mut reader);
    // The last numbers that are believed have none after them; nobody gets there by counting.
    let has_room = highest.max(reader.next_sequence()) < u64::MAX / 2 - 16;
    let mut writer = SegmentWriter::open(root.path(), stream, bytes_max).expect("any log is gone on with");
    for line in ADDED {
        writer.push(Timestamp::from_unix_ms(5), line);
    }
    writer.flush().expect("lines are written");
    let after = read_all(&mut SegmentReader::new(root.path(), stream));
    assert!(
        !has_room || after.ends_with(&ADDED.map(<[u8]>::to_vec)),
        "what was added is not read: {before:?} {after:?}"
    );

    let key = LogKey { workload_id: WORKLOAD, attempt: ATTEMPT, stream };
    let mut pump = LogPump::new(bytes_max);
    pump.watch(WORKLOAD, ATTEMPT, root.path());
    pump.resume(&BTreeMap::from([(key, acks[0])]));
    let mut sent = acks[0];
    for n in 0..24 {
        for chunk in pump.poll().chunks.into_iter().filter(|chunk| chunk.key == key) {
            for line in chunk.lines {
                assert!(line.sequence > sent, "line {} is sent after {sent}", line.sequence);
                sent = line.sequence;
            }
        }
        match n {
            2 => pump.acked(&BTreeMap::from([(key, acks[1])])),
            4 => pump.drain(WORKLOAD, ATTEMPT),
            6 => pump.over(WORKLOAD, ATTEMPT),
            8 => pump.acked(&BTreeMap::from([(key, acks[2].max(sent))])),
            _ => {}
        }
    }
}

fn record_frame(json: &[u8], crc_mask: u32) -> Vec<u8> {
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    let crc = crc32fast::hash(json) ^ crc_mask;
    [&length.to_le_bytes(), &crc.to_le_bytes(), json].concat()
}

fn change(tape: &mut Tape<'_>) -> DurableChange {
    let workload_id = WorkloadId::from_bits(u128::from(tape.byte() % 3));
    let attempt = Attempt(u32::from(tape.byte() % 3));
    match tape.below(5) {
        0 => {
            let generation = Generation { epoch: tape.number(), n: tape.number() };
            DurableChange::Seen { epoch: tape.number(), generation }
        }
        1 => DurableChange::Acked { through: tape.number() },
        2 => DurableChange::Abandoned { workload_id, attempt },
        3 => {
            let stop = StopIntent { cause: StatusCause::StopRequested, kill_at_ms: tape.number() };
            DurableChange::StopDecided { workload_id, attempt, stop }
        }
        _ => {
            let record = StatusRecord {
                record: tape.number(),
                workload_id,
                attempt,
                state: NodeWorkloadState::ALL[tape.below(NodeWorkloadState::ALL.len())],
                cause: StatusCause::ALL[tape.below(StatusCause::ALL.len())],
                detail: String::from_utf8_lossy(tape.short()).into_owned(),
                exit_code: None,
                signal: None,
                at: Timestamp::from_unix_ms(i64::from(tape.byte())),
                simulated: true,
                checkpoint: None,
            };
            DurableChange::Recorded { record, mono_ms: tape.number() }
        }
    }
}

/// A whole state with one of its fields put elsewhere.
fn state(tape: &mut Tape<'_>) -> Value {
    let mut state = serde_json::to_value(DurableState::new(1)).expect("a state is JSON");
    let field = ["epoch", "last_record", "acked", "n_ended"][tape.below(4)];
    state[field] = json!(tape.number());
    state
}

/// A store that opens takes changes, and another start finds the same; one that does not
/// is left as it was found.
pub(crate) fn node_store(bytes: &[u8]) {
    let root = tempfile::tempdir().expect("a folder for records");
    let mut tape = Tape::new(bytes);
    let mut content = Vec::new();
    for _ in 0..64 {
        if tape.is_over() {
            break;
        }
        match tape.below(8) {
            0 => content.extend_from_slice(tape.short()),
            1 => content.truncate(tape.place(content.len())),
            2 => content.resize(content.len() + tape.below(64), 0),
            3 => content.extend(record_frame(tape.short(), u32::from(tape.byte() % 2))),
            4 => content.extend(record_frame(json!({ "state": state(&mut tape) }).to_string().as_bytes(), 0)),
            _ => content.extend(record_frame(json!({ "change": change(&mut tape) }).to_string().as_bytes(), 0)),
        }
    }
    let path = root.path().join("records.log");
    fs::write(&path, &content).expect("a store");
    let peeked = Store::peek(root.path());
    let mut store = match Store::open(root.path(), 9) {
        Ok(store) => store,
        Err(StoreError::Damaged { .. }) => {
            assert!(peeked.is_err());
            assert_eq!(fs::read(&path).expect("it is still there"), content, "a damaged store was changed");
            return;
        }
        Err(other) => panic!("neither damage nor a store: {other}"),
    };
    if let Some(state) = peeked.expect("what opens can be looked at") {
        assert_eq!(&state, store.state());
    }
    let changes = [change(&mut Tape::new(&[1, 1, 1, 3])), change(&mut Tape::new(&[1, 1, 4, 9, 2]))];
    store.append(&changes).expect("changes are written");
    let left = store.state().clone();
    drop(store);
    assert_eq!(Store::open(root.path(), 9).expect("it opens again").state(), &left);
}
