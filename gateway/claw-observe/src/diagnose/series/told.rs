//! What a program itself tells of its steps, in its log: no node measures them.

use std::sync::LazyLock;

use super::Sample;
use crate::diagnose::observe::cut;
use crate::diagnose::pattern::{Pattern, regex};

/// Bytes of a line that are looked at.
const LINE_BYTES: usize = 1_024;
/// Steps that must be told before a silence of them means anything.
const STEPS: usize = 3;
/// Seconds that a told time speaks for.
const SPEAKS_S: f64 = 120.0;

static STEP: LazyLock<Pattern> = LazyLock::new(|| {
    regex(
        r"(?i)(?:^|[^\w-])(?:global_?step|step|iter(?:ation)?)s?(?:\(train\))?[ \t]*(?:[=:#]|\[)?[ \t]*\[?[ \t]*(\d{1,10})\b",
    )
});
static TIME: LazyLock<Pattern> = LazyLock::new(|| {
    regex(r"(?i)(?:^|[\s,|{(])(?:step_?time|iter_?time|batch_?time|time)[=: ]+(\d{1,6}(?:\.\d+)?)[ ]?(ms|s)?\b")
});
static DATA: LazyLock<Pattern> = LazyLock::new(|| {
    regex(r"(?i)(?:^|[\s,|{(])(?:data_?time|data_?wait|data_?loader_?time|data)[=: ]+(\d{1,6}(?:\.\d+)?)[ ]?(ms|s)?\b")
});

/// What one line tells of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// Its number.
    pub step: u64,
    /// How long it took, and how long of that it waited for its data, seconds; if the line tells both.
    pub times_s: Option<(f64, f64)>,
}

/// What a log line tells of a step: of trainers that print `step=12 loss=2.1`, `iteration 100/ 500`, or
/// `Iter(train) [50/900] time: 0.51 data_time: 0.4`.
pub fn told(line: &str) -> Option<Told> {
    let line = cut(line, LINE_BYTES);
    let step = STEP.captures(line)?[1].parse().ok()?;
    let seconds = |pattern: &Pattern| {
        let found = pattern.captures(line)?;
        let value: f64 = found[1].parse().ok()?;
        Some(if found.get(2).is_some_and(|unit| unit.as_str().eq_ignore_ascii_case("ms")) {
            value / 1e3
        } else {
            value
        })
    };
    let times_s = seconds(&TIME).zip(seconds(&DATA)).filter(|(all, data)| *all > 0.0 && data <= all);
    Some(Told { step, times_s })
}

/// The steps of one log, oldest first: each with its time, seconds.
#[derive(Clone, Debug, Default)]
pub struct Steps(Vec<(f64, Told)>);

impl Steps {
    /// Of lines with their times; nothing if they tell of too few steps to say how a job goes on.
    pub fn of<'a>(lines: impl IntoIterator<Item = (f64, &'a str)>) -> Self {
        let mut steps: Vec<(f64, Told)> = Vec::new();
        for (at_s, line) in lines {
            // Another number is a step, whichever: what is no step only makes a job look alive.
            if let Some(told) = told(line)
                && steps.last().is_none_or(|(_, last)| last.step != told.step)
            {
                steps.push((at_s, told));
            }
        }
        if steps.len() < STEPS {
            steps.clear();
        }
        Self(steps)
    }

    /// Steps that any of several logs tells.
    pub fn and(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    }

    /// Puts how many steps there were into samples of a GPU of the job; nothing where no step was told.
    pub fn count(&self, samples: &mut [Sample]) {
        for sample in samples.iter_mut().filter(|_| !self.0.is_empty()) {
            sample.steps = Some(self.0.partition_point(|(at_s, _)| *at_s <= sample.at_s) as u64);
        }
    }

    /// Puts told times into samples: of one GPU, for they are the job's. A rank that waits for others tells the same.
    pub fn times(&self, samples: &mut [Sample]) {
        for sample in samples {
            let before = self.0.get(..self.0.partition_point(|(at_s, _)| *at_s <= sample.at_s)).unwrap_or_default();
            let last = before.last().filter(|(at_s, _)| sample.at_s - at_s <= SPEAKS_S);
            if let Some((own, data)) = last.and_then(|(_, told)| told.times_s) {
                (sample.step_own_s, sample.step_data_s) = (Some(own), Some(data));
            }
        }
    }
}
