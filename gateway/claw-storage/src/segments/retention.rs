//! Retention: whole files, oldest first, never without a record of what went.

use std::collections::BTreeMap;

use crate::durable;

use super::catalog::{self, Segment, segment_path};
use super::error::io as failed_to;
use super::{LogError, LogKey, LogSegments, RetentionReport, Stream};

/// Removing goes on a little below the limit, so that not every append removes.
const SLACK_DIVISOR: u64 = 64;

impl LogSegments {
    /// Applies age, then size limits. The server calls it now and then; sizes are
    /// kept by every append as well.
    pub fn retain(&mut self, now_ms: i64) -> Result<RetentionReport, LogError> {
        let mut report = RetentionReport::default();
        if let Some(age_ms_max) = self.limits.age_ms_max {
            let age_ms_max = i64::try_from(age_ms_max).unwrap_or(i64::MAX);
            let oldest_ms = now_ms.saturating_sub(age_ms_max);
            let mut doomed = Doomed::default();
            for (key, state) in &self.streams {
                let too_old = |segment: &&Segment| segment.order_ms < oldest_ms;
                let n_old = state.segments.iter().take_while(too_old).count();
                doomed.add(key, n_old);
            }
            report.add(&self.remove(doomed)?);
        }
        let workloads: Vec<String> = self.keys().map(|key| key.workload.clone()).collect();
        let mut previous = None;
        for workload in &workloads {
            if previous != Some(workload) {
                report.add(&self.shrink_workload(workload, None)?);
            }
            previous = Some(workload);
        }
        report.add(&self.shrink_all(None)?);
        Ok(report)
    }

    /// Keeps the size limits after an append to `key`, whose last file stays.
    pub(super) fn enforce_bytes(&mut self, key: &LogKey) -> Result<(), LogError> {
        self.shrink_workload(&key.workload, Some(key))?;
        self.shrink_all(Some(key))?;
        Ok(())
    }

    pub(super) fn keys_of(&self, workload: &str) -> impl Iterator<Item = &LogKey> {
        let first = LogKey { workload: workload.to_owned(), attempt: 0, stream: Stream::Stdout };
        let from_first = self.streams.range(first..);
        from_first.map(|(key, _)| key).take_while(move |key| key.workload == workload)
    }

    fn shrink_workload(&mut self, workload: &str, spared: Option<&LogKey>) -> Result<RetentionReport, LogError> {
        let keys: Vec<LogKey> = self.keys_of(workload).cloned().collect();
        let bytes: u64 = keys.iter().map(|key| self.streams[key].bytes()).sum();
        let bytes_max = self.limits.workload_bytes_max;
        let doomed = self.oldest(&keys, bytes, bytes_max, spared);
        self.remove(doomed)
    }

    fn shrink_all(&mut self, spared: Option<&LogKey>) -> Result<RetentionReport, LogError> {
        let (bytes, bytes_max) = (self.bytes, self.limits.total_bytes_max);
        if bytes <= bytes_max {
            return Ok(RetentionReport::default());
        }
        let keys: Vec<LogKey> = self.keys().cloned().collect();
        let doomed = self.oldest(&keys, bytes, bytes_max, spared);
        self.remove(doomed)
    }

    /// The oldest files of `keys` that bring `bytes` below `bytes_max`.
    fn oldest(&self, keys: &[LogKey], bytes: u64, bytes_max: u64, spared: Option<&LogKey>) -> Doomed {
        let mut doomed = Doomed::default();
        if bytes <= bytes_max {
            return doomed;
        }
        let mut candidates = Vec::new();
        for key in keys {
            let segments = &self.streams[key].segments;
            let n_kept = usize::from(spared == Some(key));
            let n_removable = segments.len().saturating_sub(n_kept);
            let removable = segments[..n_removable].iter();
            candidates.extend(removable.zip(1..).map(|(segment, n)| {
                // Time never goes back inside a stream, so this order takes files from its front.
                (segment.order_ms, key, n, segment.bytes)
            }));
        }
        candidates.sort_unstable();
        let mut left_bytes = bytes;
        for (_, key, n, bytes) in candidates {
            if left_bytes <= bytes_max - bytes_max / SLACK_DIVISOR {
                break;
            }
            left_bytes -= bytes;
            doomed.add(key, n);
        }
        doomed
    }

    /// Records what goes, then removes it.
    fn remove(&mut self, doomed: Doomed) -> Result<RetentionReport, LogError> {
        let mut report = RetentionReport::default();
        for (key, n_front) in doomed.0 {
            let Some(state) = self.streams.get_mut(&key) else {
                continue;
            };
            let Some(last) = n_front.checked_sub(1).map(|at| &state.segments[at]) else {
                continue;
            };
            let through = last.last_seq;
            catalog::write_retired(&self.dir, &key, through).map_err(failed_to("record retired logs"))?;
            state.retired_through = through;
            let removed: Vec<Segment> = state.segments.drain(..n_front).collect();
            if state.segments.is_empty() {
                state.must_cut = false;
                state.synced = None;
                self.handles.close(&key);
                self.unsynced.remove(&key);
            }
            for segment in &removed {
                report.n_segments += 1;
                report.n_lines += segment.n_lines;
                report.bytes += segment.bytes;
                self.bytes -= segment.bytes;
                let path = segment_path(&self.dir, &key, segment.first_seq);
                // A file that stays behind is removed by the next open, which reads the record.
                durable::remove_if_there(&path).map_err(failed_to("remove retired logs"))?;
            }
        }
        if report.n_segments > 0 {
            tracing::info!(
                n_segments = report.n_segments,
                n_lines = report.n_lines,
                bytes = report.bytes,
                "logs retired"
            );
        }
        Ok(report)
    }
}

impl RetentionReport {
    fn add(&mut self, other: &Self) {
        self.n_segments += other.n_segments;
        self.n_lines += other.n_lines;
        self.bytes += other.bytes;
    }
}

/// How many files at the front of each stream go.
#[derive(Debug, Default)]
struct Doomed(BTreeMap<LogKey, usize>);

impl Doomed {
    fn add(&mut self, key: &LogKey, n_front: usize) {
        if n_front > 0 {
            self.0.insert(key.clone(), n_front);
        }
    }
}
