//! Counts for operators: what was called, how it ended, how long the core took.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram's buckets, milliseconds.
pub(crate) const BUCKETS_MS: [u64; 11] = [1, 2, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000];

/// How often something took how long.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Per bucket of [`BUCKETS_MS`], not cumulated.
    pub buckets: [u64; BUCKETS_MS.len()],
    /// How often in all.
    pub count: u64,
    /// Seconds in all.
    pub sum_s: f64,
}

impl Histogram {
    fn note(&mut self, took: Duration) {
        self.count += 1;
        self.sum_s += took.as_secs_f64();
        let bound = |ms: &u64| took <= Duration::from_millis(*ms);
        if let Some(bucket) = BUCKETS_MS.iter().position(bound) {
            self.buckets[bucket] += 1;
        }
    }
}

/// The counts, since this process started.
#[derive(Debug, Default)]
pub struct Tally {
    calls: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    submits: Mutex<Histogram>,
}

impl Tally {
    pub(super) fn count(&self, tool: &'static str, ending: &'static str) {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry((tool, ending)).or_insert(0) += 1;
    }
    pub(super) fn submitted(&self, took: Duration) {
        self.submits.lock().unwrap_or_else(PoisonError::into_inner).note(took);
    }
    /// Calls by operation and ending (`ok`, `replayed`, `fault` or the code of the refusal).
    pub fn calls(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// How long changes took from the caller's words to the disk.
    pub fn submits(&self) -> Histogram {
        self.submits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
