//! Files that a crash or a disk changed.

use std::fs;

use super::*;
use crate::segments::catalog::segment_path;

/// A stream in two files: 1 to 8 sealed, 9 to 14 with a gap (11, 12) not sealed.
fn two_files(dir: &Path) -> (LogKey, [PathBuf; 2]) {
    let mut logs = open(dir, roomy());
    let out = key("wl_1", Stream::Stdout);
    logs.append(&out, &lines(1..=8), None).unwrap();
    logs.seal("wl_1", 1).unwrap();
    logs.append(&out, &lines(9..=10), None).unwrap();
    let gap = Gap { first_seq: 11, n_lost: 2 };
    logs.append(&out, &lines(13..=14), Some(gap)).unwrap();
    logs.sync().unwrap();
    let paths = [1, 9].map(|first_seq| segment_path(dir, &out, first_seq));
    (out, paths)
}

fn assert_only_true_lines(logs: &LogSegments) {
    for entry in logs.read(&EVERYTHING).unwrap().entries {
        let at_ms = i64::try_from(entry.line.seq).unwrap();
        assert_eq!(entry.line, line(entry.line.seq, at_ms));
    }
}

#[test]
fn a_torn_end_is_cut_reported_and_sent_again() {
    let root = scratch();
    let (out, [_, active]) = two_files(root.path());
    let whole = fs::read(&active).unwrap();
    for len in 0..whole.len() {
        fs::write(&active, &whole[..len]).unwrap();
        let (mut logs, report) = LogSegments::open(root.path(), roomy()).unwrap();
        let last_seq = logs.last_seq(&out).unwrap().0;
        covered(&logs, &out);
        assert_only_true_lines(&logs);
        assert!(report.torn.len() <= 1 && report.n_bad_stretches <= 1, "{report:?}");
        // The node sends again from where the store says that it ends.
        let gap = (last_seq < 12).then_some(Gap { first_seq: 11, n_lost: 2 });
        if last_seq < 10 {
            logs.append(&out, &lines(last_seq + 1..=10), None).unwrap();
        }
        logs.append(&out, &lines(13..=14), gap).unwrap();
        assert_eq!(covered(&logs, &out), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14]);
        drop(logs);
        fs::write(&active, &whole).unwrap();
    }
}

#[test]
fn a_changed_byte_costs_at_most_the_lines_it_hit_and_shows_as_a_gap() {
    let root = scratch();
    let (out, paths) = two_files(root.path());
    let mut n_hurt = 0;
    for path in &paths {
        let whole = fs::read(path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x41;
            fs::write(path, &changed).unwrap();
            let logs = open(root.path(), roomy());
            let present = covered(&logs, &out);
            assert_only_true_lines(&logs);
            assert!(present.len() + 1 >= 12 || path == &paths[1], "one byte, one line");
            n_hurt += usize::from(present.len() < 12);
            drop(logs);
            fs::write(path, &whole).unwrap();
        }
    }
    assert!(n_hurt > 500, "frames are nearly all of a file, {n_hurt} flips hurt");
}

#[test]
fn a_file_that_is_gone_shows_as_a_gap() {
    let root = scratch();
    let (out, [sealed, _]) = two_files(root.path());
    fs::remove_file(sealed).unwrap();
    let logs = open(root.path(), roomy());
    assert_eq!(covered(&logs, &out), [9, 10, 13, 14]);
    let page = logs.read(&EVERYTHING).unwrap();
    let causes: Vec<GapCause> = page.gaps.iter().map(|gap| gap.cause).collect();
    assert_eq!(causes, [GapCause::Damage, GapCause::Node]);
}

#[test]
fn a_file_that_is_there_twice_is_read_once() {
    let root = scratch();
    let (out, [sealed, active]) = two_files(root.path());
    // A restore that mixed the names up.
    fs::copy(&active, &sealed).unwrap();
    let (logs, report) = LogSegments::open(root.path(), roomy()).unwrap();
    assert_eq!(covered(&logs, &out), [9, 10, 13, 14]);
    assert_eq!(report.foreign_files, [active]);
}

#[test]
fn a_number_without_a_next_one_is_no_frame() {
    let root = scratch();
    let (out, [_, active]) = two_files(root.path());
    let mut content = fs::read(&active).unwrap();
    let seed = crate::segments::frame::seed(&out, crate::segments::frame::nonce_of(&content).unwrap());
    crate::segments::frame::push_line(&mut content, seed, &line(u64::MAX, 0), 0);
    crate::segments::frame::push_gap(&mut content, seed, Gap { first_seq: 15, n_lost: u64::MAX });
    fs::write(&active, &content).unwrap();
    let logs = open(root.path(), roomy());
    assert_eq!(logs.last_seq(&out), Some(AckSeq(14)));
    assert_eq!(covered(&logs, &out).len(), 12);
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let root = scratch();
    let mut logs = open(root.path(), roomy());
    let out = key("wl_1", Stream::Stdout);
    logs.append(&out, &lines(1..=3), None).unwrap();
    let path = segment_path(root.path(), &out, 1);
    // Half a frame reached the disk before the write failed.
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], &whole[32..50]].concat()).unwrap();
    // A descriptor that cannot be written stands for a disk that fails.
    logs.handles.replace(&out, fs::File::open(&path).unwrap());
    let before = (logs.bytes(), fs::read(&path).unwrap().len());
    let failed = logs.append(&out, &lines(4..=5), None);
    assert!(matches!(failed, Err(LogError::Io { .. })), "{failed:?}");
    assert_eq!((logs.bytes(), whole.len() + 18), before);
    assert_eq!(covered(&logs, &out), [1, 2, 3]);
    assert_eq!(fs::read(&path).unwrap(), whole, "cut back to what is known");
    logs.append(&out, &lines(4..=6), None).unwrap();
    logs.sync().unwrap();
    drop(logs);
    let (logs, report) = LogSegments::open(root.path(), roomy()).unwrap();
    assert_eq!((report.torn, report.n_bad_stretches), (Vec::new(), 0));
    assert_eq!(covered(&logs, &out), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_could_not_be_synced_is_taken_back() {
    let root = scratch();
    let mut logs = open(root.path(), roomy());
    let out = key("wl_1", Stream::Stdout);
    logs.append(&out, &lines(1..=3), None).unwrap();
    logs.sync().unwrap();
    logs.append(&out, &lines(4..=6), None).unwrap();
    assert_eq!(logs.synced_seq(&out), Some(AckSeq(3)));
    assert_eq!(logs.last_seq(&out), Some(AckSeq(6)));
    // The folder that must be synced is not there: the sync of its names fails.
    logs.unsynced_dirs.insert(root.path().join("gone"));
    assert!(logs.sync().is_err());
    assert_eq!(covered(&logs, &out), [1, 2, 3], "not synced, not there");
    logs.unsynced_dirs.clear();
    logs.append(&out, &lines(4..=7), None).unwrap();
    logs.sync().unwrap();
    drop(logs);
    let logs = open(root.path(), roomy());
    assert_eq!(covered(&logs, &out), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_workload_cannot_print_a_frame() {
    let root = scratch();
    let mut logs = open(root.path(), roomy());
    let out = key("wl_1", Stream::Stdout);
    // The best that a workload can know: its own name. The nonce it has to guess.
    let mut forged = b"harmless".to_vec();
    let footer = crate::segments::frame::Footer { first_seq: 1, last_seq: u64::MAX / 2, n_lines: 1, order_ms: 0 };
    let seed = crate::segments::frame::seed(&out, 0);
    crate::segments::frame::push_footer(&mut forged, seed, footer);
    let said = LogLine { seq: 1, at_ms: 1, bytes: forged };
    logs.append(&out, &[said], None).unwrap();
    logs.sync().unwrap();
    drop(logs);
    let mut logs = open(root.path(), roomy());
    assert_eq!(logs.last_seq(&out), Some(AckSeq(1)));
    logs.append(&out, &lines(2..=3), None).unwrap();
    assert_eq!(covered(&logs, &out), [1, 2, 3]);
}

#[test]
fn a_retention_cut_short_is_finished() {
    let root = scratch();
    let (out, [sealed, _]) = two_files(root.path());
    let gone = fs::read(&sealed).unwrap();
    let limits = LogLimits { workload_bytes_max: 600, ..roomy() };
    let mut logs = open(root.path(), limits);
    assert_eq!(logs.retain(0).unwrap().n_lines, 8);
    drop(logs);
    // A crash between the record and the removal leaves the file.
    fs::write(&sealed, gone).unwrap();
    let logs = open(root.path(), roomy());
    assert!(!sealed.exists());
    assert_eq!(covered(&logs, &out), [9, 10, 13, 14]);
}
