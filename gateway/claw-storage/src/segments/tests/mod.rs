//! Every test holds the one invariant: what is read and what is named as missing
//! cover a stream from 1 to its end, once each.

mod damage;
mod model;

use std::path::Path;

use super::*;
use crate::test_disk::scratch;

fn key(workload: &str, stream: Stream) -> LogKey {
    LogKey { workload: workload.to_owned(), attempt: 1, stream }
}

fn line(seq: u64, at_ms: i64) -> LogLine {
    LogLine { seq, at_ms, bytes: format!("line {seq}").into_bytes() }
}

fn lines(seqs: std::ops::RangeInclusive<u64>) -> Vec<LogLine> {
    seqs.map(|seq| line(seq, i64::try_from(seq).unwrap())).collect()
}

/// No limit that a small test could meet.
fn roomy() -> LogLimits {
    LogLimits { free_bytes_min: 0, age_ms_max: None, ..LogLimits::default() }
}

fn open(dir: &Path, limits: LogLimits) -> LogSegments {
    LogSegments::open(dir, limits).unwrap().0
}

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

/// Checks the invariant for `key` and returns the sequences of the lines present.
fn covered(logs: &LogSegments, key: &LogKey) -> Vec<u64> {
    let query =
        LogQuery { workload: Some(&key.workload), attempt: Some(key.attempt), streams: &[key.stream], ..EVERYTHING };
    let page = logs.read(&query).unwrap();
    let present: Vec<u64> = page.entries.iter().map(|entry| entry.line.seq).collect();
    let of_lines = present.iter().map(|seq| (*seq, *seq));
    let of_gaps = page.gaps.iter().map(|gap| (gap.first_seq, gap.first_seq + gap.n_lost - 1));
    let mut ranges: Vec<(u64, u64)> = of_lines.chain(of_gaps).collect();
    ranges.sort_unstable();
    let mut due = 1;
    for (first, last) in ranges {
        assert_eq!(first, due, "a hole or an overlap in {page:?}");
        due = last + 1;
    }
    let last_seq = logs.last_seq(key).map_or(0, |ack| ack.0);
    assert_eq!(due, last_seq + 1, "lines and gaps end at the last sequence");
    assert!(present.is_sorted());
    present
}

#[test]
fn refusals_name_what_was_due_and_store_nothing() {
    let root = scratch();
    let mut logs = open(root.path(), roomy());
    let out = key("wl_1", Stream::Stdout);
    logs.append(&out, &lines(1..=3), None).unwrap();
    let gap = |first_seq, n_lost| Some(Gap { first_seq, n_lost });
    let long = LogLine { seq: 4, at_ms: 0, bytes: vec![b'x'; 64 * 1024 + 1] };
    let cases = [
        (lines(5..=6), None, "log jumps to 5, stored is all before 4"),
        (lines(9..=9), gap(6, 3), "log jumps to 6, stored is all before 4"),
        (lines(9..=9), gap(4, 3), "log line 9 follows where 7 was due"),
        (vec![line(4, 0), line(6, 0)], None, "log line 6 follows where 5 was due"),
        (lines(4..=4), gap(4, 0), "gap of 0 lines from 4 is not one"),
        (Vec::new(), gap(4, u64::MAX), "gap of 18446744073709551615 lines from 4 is not one"),
        (lines(0..=1), None, "log sequence 0 does not exist, sequences begin at 1"),
        (vec![long], None, "log line 4 has 65537 bytes, allowed are 65536"),
    ];
    for (lines, gap, expected) in cases {
        let refused = logs.append(&out, &lines, gap).unwrap_err();
        assert_eq!(refused.to_string(), expected);
    }
    for workload in ["", "..", "a/b", "w\u{e9}", &"w".repeat(129)] {
        let bad = key(workload, Stream::Stdout);
        let refused = logs.append(&bad, &lines(1..=1), None);
        assert!(matches!(refused, Err(LogError::BadKey { .. })));
    }
    assert_eq!(covered(&logs, &out), [1, 2, 3]);
    assert_eq!(logs.keys().count(), 1, "a refused call leaves no stream");
}

#[test]
fn a_page_merges_streams_by_time_and_keeps_each_in_order() {
    let root = scratch();
    let mut logs = open(root.path(), roomy());
    let (out, err) = (key("wl_1", Stream::Stdout), key("wl_1", Stream::Stderr));
    // The clock of this stream goes back at line 3; the line stays behind line 2.
    let backwards = [line(1, 10), line(2, 40), line(3, 20), line(4, 50)];
    logs.append(&out, &backwards, None).unwrap();
    logs.append(&err, &[line(1, 30), line(2, 45)], None).unwrap();
    let other = key("wl_2", Stream::Stdout);
    logs.append(&other, &[line(1, 0)], None).unwrap();
    let show = |query: &LogQuery<'_>| -> Vec<String> {
        let page = logs.read(query).unwrap();
        let shown =
            page.entries.iter().map(|entry| format!("{} {} {}", entry.key.stream, entry.line.seq, entry.line.at_ms));
        shown.collect()
    };
    let of_one = LogQuery { workload: Some("wl_1"), ..EVERYTHING };
    let merged = ["stdout 1 10", "stderr 1 30", "stdout 2 40", "stdout 3 20", "stderr 2 45", "stdout 4 50"];
    assert_eq!(show(&of_one), merged);
    let tail = LogQuery { tail: Some(2), ..of_one.clone() };
    assert_eq!(show(&tail), merged[4..]);
    let since = LogQuery { since_ms: Some(40), ..of_one.clone() };
    assert_eq!(show(&since), ["stdout 2 40", "stderr 2 45", "stdout 4 50"]);
    let grep = LogQuery { grep: Some("line 1"), ..of_one.clone() };
    assert_eq!(show(&grep), merged[..2]);
    let errors = LogQuery { streams: &[Stream::Stderr], since_seq: Some(1), ..of_one };
    assert_eq!(show(&errors), ["stderr 2 45"]);
    assert_eq!(show(&EVERYTHING).len(), 7, "without a workload all are read");
}

#[test]
fn logs_leave_the_last_space_to_the_journal() {
    let root = scratch();
    let limits = LogLimits { free_bytes_min: u64::MAX, ..roomy() };
    let mut logs = open(root.path(), limits);
    let out = key("wl_1", Stream::Stdout);
    let refused = logs.append(&out, &lines(1..=1), None);
    assert!(matches!(refused, Err(LogError::LowSpace { .. })));
    assert_eq!(logs.last_seq(&out), None);
}

#[test]
fn a_full_disk_tears_nothing_and_goes_on_when_there_is_room() {
    let Some(disk) = crate::test_disk::TinyDisk::mount("logs") else {
        return;
    };
    let mut logs = open(&disk.path().join("logs"), roomy());
    let out = key("wl_1", Stream::Stdout);
    let filler = disk.fill_leaving(64 * 1024);
    let mut next = 1;
    let refused = loop {
        let wide = LogLine { seq: next, at_ms: 0, bytes: vec![b'x'; 5_000] };
        match logs.append(&out, &[wide], None).and_then(|_| logs.sync()) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LogError::Full | LogError::LowSpace { .. }), "got {refused:?}");
    assert_eq!(covered(&logs, &out).len() as u64, next - 1);
    std::fs::remove_file(filler).unwrap();
    logs.append(&out, &lines(next..=next + 9), None).unwrap();
    logs.sync().unwrap();
    drop(logs);
    let (logs, report) = LogSegments::open(&disk.path().join("logs"), roomy()).unwrap();
    assert_eq!((report.torn, report.n_bad_stretches), (Vec::new(), 0));
    assert_eq!(covered(&logs, &out).len() as u64, next + 9);
}

#[test]
fn one_process_at_a_time_and_few_files_open() {
    let root = scratch();
    let limits = LogLimits { open_files_max: 4, ..roomy() };
    let mut logs = open(root.path(), limits.clone());
    for round in 0..3 {
        for n in 0..20 {
            let out = key(&format!("wl_{n}"), Stream::Stdout);
            let seq = round + 1;
            logs.append(&out, &lines(seq..=seq), None).unwrap();
            assert!(logs.n_open_files() <= 4);
        }
        logs.sync().unwrap();
    }
    match LogSegments::open(root.path(), limits.clone()) {
        Err(LogError::Locked { pid }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("a second open must be refused, got {other:?}"),
    }
    drop(logs);
    let mut logs = open(root.path(), limits);
    for n in 0..20 {
        assert_eq!(covered(&logs, &key(&format!("wl_{n}"), Stream::Stdout)), [1, 2, 3]);
    }
    let before = logs.bytes();
    let freed = logs.forget("wl_7").unwrap();
    assert_eq!((logs.bytes(), logs.keys().count()), (before - freed, 19));
    assert!(!root.path().join("wl_7").exists());
}

#[test]
fn age_and_size_remove_whole_files_and_leave_a_record() {
    let root = scratch();
    let limits = LogLimits { segment_bytes: 400, age_ms_max: Some(1_000), ..roomy() };
    let mut logs = open(root.path(), limits.clone());
    let out = key("wl_1", Stream::Stdout);
    for seq in 1..=40 {
        logs.append(&out, &lines(seq..=seq), None).unwrap();
    }
    let report = logs.retain(1_020).unwrap();
    let kept = covered(&logs, &out);
    assert!(report.n_segments > 0 && kept.len() as u64 == 40 - report.n_lines);
    assert!(kept[0] <= 20, "only files whose last line is older than 20 ms go");
    let report = logs.retain(1_000_000).unwrap();
    assert_eq!(report.n_lines, kept.len() as u64);
    assert_eq!(covered(&logs, &out), [] as [u64; 0], "an idle stream ages out whole");
    drop(logs);
    let mut logs = open(root.path(), limits);
    assert_eq!(logs.last_seq(&out), Some(AckSeq(40)), "how far it was is remembered");
    assert_eq!(logs.append(&out, &lines(39..=41), None).unwrap(), AckSeq(41));
    assert_eq!(covered(&logs, &out), [41], "a resent line does not come back");
}
