//! The gateway's log files, forged with sound checksums.

use std::fs;
use std::path::Path;

use claw_storage::{Gap, LogKey, LogLimits, LogLine, LogQuery, LogSegments, Stream};

use crate::tape::Tape;

const MARKER: [u8; 4] = [0xC1, 0xA3, 0x0F, 0x52];
/// Kind of the frame that says what the rest of its file holds, and is believed.
const FOOTER: u8 = 3;
const WORKLOADS: [&str; 2] = ["wl_a", "wl_b"];
const EVERYTHING: LogQuery<'static> = LogQuery {
    workload: None,
    attempt: None,
    streams: &[],
    since_seq: None,
    since_ms: None,
    tail: None,
    limit: usize::MAX,
    grep: None,
    after: &[],
};

/// A file that is being forged.
struct Forged {
    key: LogKey,
    first_seq: u64,
    nonce: u64,
    content: Vec<u8>,
    /// A footer was forged in this or an earlier file.
    lies: bool,
}

impl Forged {
    fn new(tape: &mut Tape<'_>, lies: bool) -> Self {
        let key = LogKey {
            workload: WORKLOADS[tape.below(2)].to_owned(),
            attempt: u32::from(tape.byte() % 2) + 1,
            stream: Stream::ALL[tape.below(3)],
        };
        let mut forged =
            Self { key, first_seq: tape.number(), nonce: u64::from(tape.byte()), content: Vec::new(), lies };
        forged.content.extend_from_slice(b"CLAWLOG1");
        for _ in 0..3 {
            forged.content.extend_from_slice(&forged.nonce.to_be_bytes());
        }
        forged
    }

    fn frame(&mut self, kind: u8, numbers: &[u64], bytes: &[u8]) {
        self.lies |= kind == FOOTER;
        let mut body = vec![kind];
        for number in numbers {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.extend_from_slice(bytes);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        let LogKey { workload, attempt, stream } = &self.key;
        let seed = crc32fast::hash(format!("{workload}/{attempt}/{stream}/{}", self.nonce).as_bytes());
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        hasher.update(&length);
        hasher.update(&body);
        self.content.extend_from_slice(&MARKER);
        self.content.extend_from_slice(&length);
        self.content.extend_from_slice(&hasher.finalize().to_be_bytes());
        self.content.extend_from_slice(&body);
    }

    fn save(&self, dir: &Path) {
        let LogKey { workload, attempt, stream } = &self.key;
        write(dir, workload, &format!("{attempt}-{stream}-{:020}.log", self.first_seq), &self.content);
    }
}

fn write(dir: &Path, workload: &str, name: &str, content: &[u8]) {
    let folder = dir.join(workload);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), content).expect("a file");
}

/// Performs one order of the tape.
fn order(tape: &mut Tape<'_>, forged: &mut Forged, dir: &Path) {
    match tape.below(9) {
        0 => {
            forged.save(dir);
            *forged = Forged::new(tape, forged.lies);
        }
        1 => {
            // The store's own merge time never goes back in a stream; the node's time may.
            let (seq, at_ms) = (tape.number(), tape.number());
            forged.frame(1, &[seq, at_ms, seq.min(i64::MAX as u64)], tape.short());
        }
        2 => {
            let numbers = [tape.number(), tape.number()];
            forged.frame(2, &numbers, &[]);
        }
        3 => {
            let numbers = [tape.number(), tape.number(), tape.number(), tape.number()];
            forged.frame(FOOTER, &numbers, &[]);
        }
        4 => {
            let kind = tape.byte();
            forged.frame(kind, &[], tape.short());
        }
        5 => forged.content.extend_from_slice(tape.short()),
        6 => {
            let end = tape.place(forged.content.len());
            forged.content.truncate(end);
        }
        7 => {
            let body = tape.number().to_be_bytes();
            let sum = (crc32fast::hash(&body) ^ u32::from(tape.byte() % 2)).to_be_bytes();
            let LogKey { workload, attempt, stream } = &forged.key;
            write(dir, workload, &format!("{attempt}-{stream}.retired"), &[b"CLAWRET1", &body[..], &sum].concat());
        }
        _ => {
            let name: String = tape.short().iter().take(40).map(|byte| char::from(*byte)).collect();
            let is_name = !name.is_empty()
                && name.chars().all(|c| c.is_ascii_graphic() && c != '/')
                && name != "."
                && name != "..";
            if is_name {
                write(dir, &forged.key.workload, &name, &forged.content);
            }
        }
    }
}

/// Lines and gaps cover each stream from 1 to its end once each, in one read and in pages;
/// it takes more lines, and another start finds the same. Where a footer lies, which nobody
/// can forge who does not know the file's nonce, all of it is at least read.
pub(crate) fn log_segments(bytes: &[u8]) {
    let root = tempfile::tempdir().expect("a folder for logs");
    let mut tape = Tape::new(bytes);
    let settings = tape.byte();
    let mut forged = Forged::new(&mut tape, false);
    for _ in 0..64 {
        if tape.is_over() {
            break;
        }
        order(&mut tape, &mut forged, root.path());
    }
    forged.save(root.path());
    let limits = LogLimits {
        free_bytes_min: 0,
        age_ms_max: (settings & 1 == 1).then_some(1),
        segment_bytes: if settings & 2 == 2 { 200 } else { 4 * 1024 * 1024 },
        workload_bytes_max: if settings & 4 == 4 { 300 } else { 1024 * 1024 },
        ..LogLimits::default()
    };
    let open = || LogSegments::open(root.path(), limits.clone()).expect("any files are opened").0;
    let mut logs = open();
    let keys: Vec<LogKey> = logs.keys().cloned().collect();
    for key in &keys {
        covered(&logs, key, forged.lies);
        let due = logs.last_seq(key).map_or(0, |last| last.0).saturating_add(1);
        // The last numbers there are have none after them; nobody gets there by counting.
        if due < u64::MAX / 2 {
            let lines = [due, due + 1].map(|seq| LogLine { seq, at_ms: 5, bytes: b"more".to_vec() });
            logs.append(key, &lines, None).expect("the next lines are taken");
            let gap = Gap { first_seq: due + 2, n_lost: 3 };
            logs.append(key, &[], Some(gap)).expect("the next gap is taken");
        }
    }
    logs.sync().expect("lines are synced");
    logs.retain(i64::MAX / 2).expect("old lines go");
    let ends: Vec<_> = keys.iter().map(|key| logs.last_seq(key)).collect();
    for key in &keys {
        covered(&logs, key, forged.lies);
    }
    drop(logs);
    let mut logs = open();
    let again: Vec<_> = keys.iter().map(|key| logs.last_seq(key)).collect();
    assert!(forged.lies || again == ends, "{again:?} after {ends:?}");
    for key in &keys {
        covered(&logs, key, forged.lies);
        logs.seal(&key.workload, key.attempt).expect("it is sealed");
    }
    logs.forget(WORKLOADS[0]).expect("it is forgotten");
    assert!(logs.keys().all(|key| key.workload != WORKLOADS[0]));
}

/// Checks the one promise of the log store; of files with a lying footer, that they are read.
fn covered(logs: &LogSegments, key: &LogKey, lies: bool) {
    let query =
        LogQuery { workload: Some(&key.workload), attempt: Some(key.attempt), streams: &[key.stream], ..EVERYTHING };
    let page = logs.read(&query).expect("logs are read");
    if lies {
        return;
    }
    let seqs = page.entries.iter().map(|entry| (entry.line.seq, entry.line.seq));
    let gaps = page.gaps.iter().map(|gap| (gap.first_seq, gap.first_seq + (gap.n_lost - 1)));
    let mut ranges: Vec<(u64, u64)> = seqs.chain(gaps).collect();
    ranges.sort_unstable();
    let mut due = 1;
    for (first, last) in ranges {
        assert_eq!(first, due, "a hole or an overlap in {page:?}");
        due = last + 1;
    }
    assert_eq!(due, logs.last_seq(key).map_or(0, |last| last.0) + 1, "lines and gaps end at the last sequence");
    let mut paged = Vec::new();
    let mut after = Vec::new();
    loop {
        let next = logs.read(&LogQuery { limit: 2, after: &after, ..query.clone() }).expect("a page is read");
        let is_end = next.entries.is_empty() && !next.truncated;
        paged.extend(next.entries);
        if is_end || paged.len() > page.entries.len() {
            break;
        }
        after = next.cursors;
    }
    assert_eq!(paged, page.entries, "pages say what one read says");
}
