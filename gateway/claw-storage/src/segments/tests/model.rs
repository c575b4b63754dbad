//! The store against a model that keeps everything.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    /// Resends the last `back` sequences, then `n_new` lines, after `n_gap` lost ones.
    Append {
        stream: usize,
        back: u64,
        n_gap: u64,
        n_new: u64,
        width: usize,
        at_ms: i64,
    },
    Sync,
    Seal {
        stream: usize,
    },
    Retain {
        now_ms: i64,
    },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let append = (0..4_usize, 0..6_u64, 0..3_u64, 0..6_u64, 0..200_usize, 0..500_i64)
        .prop_map(|(stream, back, n_gap, n_new, width, at_ms)| Op::Append { stream, back, n_gap, n_new, width, at_ms });
    prop_oneof![
        12 => append,
        2 => Just(Op::Sync),
        1 => (0..4_usize).prop_map(|stream| Op::Seal { stream }),
        1 => (0..800_i64).prop_map(|now_ms| Op::Retain { now_ms }),
        2 => Just(Op::Reopen),
    ]
}

fn key_of(stream: usize) -> LogKey {
    let stream_kind = Stream::ALL[stream % 3];
    key(["wl_a", "wl_b"][stream / 2], stream_kind)
}

/// What the node would have: every line ever numbered; `None` = lost on the node.
#[derive(Debug, Default)]
struct NodeSide {
    lines: Vec<Option<LogLine>>,
}

impl NodeSide {
    fn get(&self, seq: u64) -> Option<&LogLine> {
        self.lines[usize::try_from(seq).unwrap() - 1].as_ref()
    }
}

struct World {
    root: TempDir,
    limits: LogLimits,
    logs: Option<LogSegments>,
    nodes: BTreeMap<LogKey, NodeSide>,
}

impl World {
    fn new(limits: LogLimits) -> Self {
        let root = scratch();
        let logs = Some(open(root.path(), limits.clone()));
        Self { root, limits, logs, nodes: BTreeMap::new() }
    }

    fn logs(&mut self) -> &mut LogSegments {
        self.logs.as_mut().unwrap()
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append { stream, back, n_gap, n_new, width, at_ms } => {
                self.append(&key_of(stream), back, n_gap, n_new, width, at_ms);
            }
            Op::Sync => {
                self.logs().sync().unwrap();
                let logs = self.logs();
                assert!(logs.keys().all(|key| logs.synced_seq(key) == logs.last_seq(key)));
            }
            Op::Seal { stream } => {
                let key = key_of(stream);
                self.logs().seal(&key.workload, key.attempt).unwrap();
            }
            Op::Retain { now_ms } => {
                self.logs().retain(now_ms).unwrap();
            }
            Op::Reopen => {
                drop(self.logs.take());
                let (logs, report) = LogSegments::open(self.root.path(), self.limits.clone()).unwrap();
                assert_eq!((report.torn, report.n_bad_stretches), (Vec::new(), 0));
                self.logs = Some(logs);
            }
        }
    }

    fn append(&mut self, key: &LogKey, back: u64, n_gap: u64, n_new: u64, width: usize, at_ms: i64) {
        let node = self.nodes.entry(key.clone()).or_default();
        let end = node.lines.len() as u64;
        // What is sent again must be one run of lines, so it begins after the last loss.
        let after_loss = node.lines.iter().rposition(Option::is_none);
        let resend_from = (end - back.min(end)).max(after_loss.map_or(0, |at| at as u64 + 1));
        if n_gap > 0 {
            node.lines.extend((0..n_gap).map(|_| None));
        }
        for seq in end + n_gap + 1..=end + n_gap + n_new {
            let mut new = line(seq, at_ms);
            new.bytes.resize(width, b'.');
            node.lines.push(Some(new));
        }
        let resent: Vec<LogLine> = (resend_from + 1..=end).filter_map(|seq| node.get(seq).cloned()).collect();
        let new: Vec<LogLine> =
            (end + n_gap + 1..=end + n_gap + n_new).filter_map(|seq| node.get(seq).cloned()).collect();
        let gap = (n_gap > 0).then_some(Gap { first_seq: end + 1, n_lost: n_gap });
        let logs = self.logs.as_mut().unwrap();
        let ack = match gap {
            None => logs.append(key, &[resent, new].concat(), None).unwrap(),
            Some(gap) => {
                logs.append(key, &resent, None).unwrap();
                logs.append(key, &new, Some(gap)).unwrap();
                // The same call once more, as after a lost acknowledgement.
                logs.append(key, &new, Some(gap)).unwrap()
            }
        };
        assert_eq!(ack, AckSeq(end + n_gap + n_new));
    }

    /// Every stream is covered, and what is present is what the node sent.
    fn check(&self) {
        let logs = self.logs.as_ref().unwrap();
        for (key, node) in &self.nodes {
            let present = covered(logs, key);
            let last_seq = logs.last_seq(key).map_or(0, |ack| ack.0);
            assert_eq!(last_seq, node.lines.len() as u64);
            let query = LogQuery { workload: Some(&key.workload), streams: &[key.stream], ..EVERYTHING };
            let page = logs.read(&query).unwrap();
            for entry in &page.entries {
                assert_eq!(Some(&entry.line), node.get(entry.line.seq));
            }
            // Retention eats from the front only: what is missing behind it was lost by the node.
            let first = present.first().copied().unwrap_or(last_seq + 1);
            let expected: Vec<u64> = (first..=last_seq).filter(|seq| node.get(*seq).is_some()).collect();
            assert_eq!(present, expected);
        }
        let on_disk: u64 = logs.keys().map(|key| self.bytes_on_disk(key)).sum();
        assert_eq!(logs.bytes(), on_disk, "the count of bytes is that of the files");
    }

    fn bytes_on_disk(&self, key: &LogKey) -> u64 {
        let prefix = format!("{}-{}-", key.attempt, key.stream);
        let files = std::fs::read_dir(self.root.path().join(&key.workload)).unwrap();
        files
            .map(|file| file.unwrap())
            .filter(|file| file.file_name().to_str().unwrap().starts_with(&prefix))
            .map(|file| file.metadata().unwrap().len())
            .sum()
    }
}

/// The pages of `query`, one after the other.
fn paged(logs: &LogSegments, limit: usize) -> (Vec<LogEntry>, Vec<LogGap>) {
    let (mut entries, mut gaps) = (Vec::new(), Vec::new());
    let mut after = Vec::new();
    loop {
        let query = LogQuery { limit, after: &after, ..EVERYTHING };
        let page = logs.read(&query).unwrap();
        entries.extend(page.entries);
        gaps.extend(page.gaps);
        after = page.cursors;
        if !page.truncated {
            return (entries, gaps);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Resending never doubles, and nothing is lost without limits.
    #[test]
    fn resending_is_idempotent(ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(LogLimits { segment_bytes: 600, ..roomy() });
        for op in &ops {
            world.apply(op);
        }
        world.check();
        let sent: usize = world.nodes.values().map(|node| node.lines.iter().flatten().count()).sum();
        let whole = world.logs().read(&EVERYTHING).unwrap();
        prop_assert_eq!(whole.entries.len(), sent);
        for limit in [1, 3] {
            let (entries, mut gaps) = paged(world.logs(), limit);
            prop_assert_eq!(&entries, &whole.entries, "pages follow each other without a seam");
            gaps.sort_by_key(|gap| (gap.key.clone(), gap.first_seq));
            prop_assert_eq!(&gaps, &whole.gaps);
        }
        for n in [0, 1, 5] {
            let tail = LogQuery { tail: Some(n), ..EVERYTHING };
            let page = world.logs().read(&tail).unwrap();
            let from = whole.entries.len().saturating_sub(n);
            prop_assert_eq!(&page.entries[..], &whole.entries[from..]);
        }
    }

    /// Retention by size and age leaves a record of all that it removes.
    #[test]
    fn retention_never_loses_in_silence(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new(LogLimits {
            segment_bytes: 500,
            workload_bytes_max: 2_400,
            total_bytes_max: 4_000,
            age_ms_max: Some(200),
            ..roomy()
        });
        for op in &ops {
            world.apply(op);
            world.check();
        }
    }
}
