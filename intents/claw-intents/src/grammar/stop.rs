//! "stop job train-42, give it 60 seconds".

use super::measure::duration;
use super::notes::Notes;
use super::target::{Sort, Target, target_at};
use super::{Reading, skip};
use crate::answer::{Answer, Intent, Source, Understood};
use crate::text::Words;

/// Words by which the workload is to end by itself.
const GRACEFUL: &[&[&str]] = &[&["gracefully"], &["graceful"], &["cleanly"], &["let", "it", "finish"]];
/// Words by which it is not.
const ABRUPT: &[&[&str]] = &[
    &["no", "grace"],
    &["without", "grace"],
    &["without", "a", "grace", "period"],
    &["forcefully"],
    &["by", "force"],
    &["force"],
];
/// Words that only hurry.
const HURRY: &[&[&str]] = &[&["immediately"], &["right", "now"], &["right", "away"], &["at", "once"], &["asap"]];
/// Words before a grace period.
const GRACE_BEFORE: &[&[&str]] = &[
    &["give", "it"],
    &["with", "grace"],
    &["with", "grace", "of"],
    &["with", "a", "grace", "of"],
    &["with", "a", "grace", "period", "of"],
    &["grace"],
    &["grace", "period"],
    &["grace", "period", "of"],
];
/// Words after a grace period.
const GRACE_AFTER: &[&[&str]] =
    &[&["grace"], &["grace", "period"], &["of", "grace"], &["to", "finish"], &["to", "end"]];

#[derive(Default)]
struct Stop {
    target: Option<String>,
    graceful: Option<bool>,
    grace_s: Option<u64>,
    notes: Notes,
}

pub(super) fn read(reading: Reading<'_>) -> Answer {
    let words = reading.words;
    let mut stop = Stop::default();
    let mut i = 0;
    while i < words.len() && !stop.notes.is_lost() {
        let next = reading
            .verb
            .end_at(i)
            .or_else(|| stop.deployment(words, i))
            .or_else(|| stop.manner(words, i))
            .or_else(|| stop.grace(words, i))
            .or_else(|| stop.target(reading, i))
            .or_else(|| skip(words, i));
        i = next.unwrap_or_else(|| {
            stop.notes.not_understood(i);
            i + 1
        });
    }
    stop.finish(reading)
}

impl Stop {
    /// Deployments are not workloads: stopping one by a workload's name would be a guess.
    fn deployment(&mut self, words: &Words<'_>, i: usize) -> Option<usize> {
        let next = words.any(i, &[&["deployment"], &["deployments"]])?;
        self.notes
            .refuse(crate::RefusalCode::Unsupported, "a deployment cannot be stopped in words; name the workload");
        Some(next)
    }

    fn manner(&mut self, words: &Words<'_>, i: usize) -> Option<usize> {
        let with = words.skip(i, &[&["with"]]);
        let (graceful, next) = if let Some(next) = words.any(i, GRACEFUL) {
            (true, next)
        } else if let Some(next) = words.any(i, ABRUPT).or_else(|| words.any(with, ABRUPT)) {
            (false, next)
        } else {
            let next = words.any(i, HURRY)?;
            let why =
                format!("{:?} says when, not how: the workload gets its usual grace period", words.span(i..next).text);
            self.notes.assume("graceful", serde_json::Value::Null, why);
            return Some(next);
        };
        let source = Source::Text(words.span(i..next));
        self.notes.set(&mut self.graceful, graceful, "graceful", source);
        Some(next)
    }

    fn grace(&mut self, words: &Words<'_>, i: usize) -> Option<usize> {
        let before = words.any(i, GRACE_BEFORE).map(|at| words.skip_symbol(at, ':'));
        let finishing = i > 0 && words.word(i) == "for" && words.word(i - 1) == "finish";
        let start = before.unwrap_or_else(|| words.skip(i, &[&["with", "a"], &["with"], &["for"]]));
        let (seconds, after) = duration(words, start)?;
        let next = words.any(after, GRACE_AFTER);
        if before.is_none() && next.is_none() && !finishing {
            return None;
        }
        let source = Source::Text(words.span(start..after));
        self.notes.set(&mut self.grace_s, seconds, "grace_s", source);
        Some(next.unwrap_or(after))
    }

    fn target(&mut self, reading: Reading<'_>, i: usize) -> Option<usize> {
        let (target, next) = target_at(reading.words, i, Sort::Workload, reading.context)?;
        let span = reading.words.span(i..next);
        match target {
            Target::Named(id) => {
                let source = Source::Text(span);
                self.notes.set(&mut self.target, id, "workload_id", source);
            }
            Target::Fits(id) => {
                let why = format!("the only known workload that {:?} fits", span.text);
                self.notes.assume("workload_id", &id, why);
                self.notes.set(&mut self.target, id, "workload_id", Source::Context);
            }
            Target::Several(ids) => {
                let prompt = format!("{:?} fits several workloads; which one?", span.text);
                self.notes.ask("workload_id", prompt, ids);
            }
            Target::NoSuch(ids) => {
                let prompt = format!("No known workload is {:?}; which one is meant?", span.text);
                self.notes.ask("workload_id", prompt, ids);
            }
        }
        Some(next)
    }

    fn finish(mut self, reading: Reading<'_>) -> Answer {
        if let Some((typed, right)) = &reading.verb.corrected {
            self.notes.assume("action", "stop", format!("{typed:?} was read as {right:?}"));
        }
        if self.graceful == Some(false) && self.grace_s.is_some() {
            self.notes.refuse(crate::RefusalCode::Contradictory, "a grace period and no grace are both asked for");
        }
        if let Some(objection) = self.notes.objection(reading.words, "workload_id", "A workload is named as: job NAME.")
        {
            return objection;
        }
        let Some(workload_id) = self.target else {
            let known = reading.context.workloads.iter();
            let ids = known.map(|w| w.id.clone()).take(8).collect();
            return Answer::ask("workload_id", "Which workload shall be stopped?", ids);
        };
        let (assumptions, provenance) = self.notes.into_reasons();
        Answer::Intent(Understood {
            intent: Intent::Stop { workload_id, graceful: self.graceful, grace_s: self.grace_s },
            assumptions,
            provenance,
        })
    }
}
