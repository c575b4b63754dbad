//! "drain node gpu-1 within 10 minutes", "undrain gpu-1".

use super::measure::duration;
use super::notes::Notes;
use super::target::{Sort, Target, target_at};
use super::{Reading, skip};
use crate::answer::{Answer, Intent, Source, Understood};
use crate::text::Words;

/// Words by which work that does not leave is stopped.
const FORCE: &[&[&str]] =
    &[&["by", "force"], &["with", "force"], &["forcefully"], &["forcibly"], &["force"], &["--force"]];

#[derive(Default)]
struct Drain {
    node: Option<String>,
    force: Option<bool>,
    deadline_s: Option<u64>,
    notes: Notes,
}

pub(super) fn read_drain(reading: Reading<'_>) -> Answer {
    let drain = Drain::read(reading, true);
    drain.finish(reading, |node, force, deadline_s| Intent::Drain { node, force, deadline_s })
}

pub(super) fn read_undrain(reading: Reading<'_>) -> Answer {
    let drain = Drain::read(reading, false);
    drain.finish(reading, |node, _, _| Intent::Undrain { node })
}

impl Drain {
    fn read(reading: Reading<'_>, with_manner: bool) -> Self {
        let words = reading.words;
        let mut drain = Self::default();
        let mut i = 0;
        while i < words.len() && !drain.notes.is_lost() {
            let manner = with_manner.then(|| drain.manner(words, i)).flatten();
            let next =
                reading.verb.end_at(i).or(manner).or_else(|| drain.target(reading, i)).or_else(|| skip(words, i));
            i = next.unwrap_or_else(|| {
                drain.notes.not_understood(i);
                i + 1
            });
        }
        drain
    }

    fn manner(&mut self, words: &Words<'_>, i: usize) -> Option<usize> {
        if let Some(next) = words.any(i, FORCE) {
            let source = Source::Text(words.span(i..next));
            self.notes.set(&mut self.force, true, "force", source);
            return Some(next);
        }
        let start = words.any(i, &[&["within"], &["deadline"], &["deadline", "of"]])?;
        let (seconds, next) = duration(words, words.skip_symbol(start, ':'))?;
        let source = Source::Text(words.span(i..next));
        self.notes.set(&mut self.deadline_s, seconds, "deadline_s", source);
        Some(next)
    }

    fn target(&mut self, reading: Reading<'_>, i: usize) -> Option<usize> {
        let words = reading.words;
        let known = target_at(words, i, Sort::Node, reading.context);
        let (target, next) = known.or_else(|| self.bare_name(reading, i))?;
        let span = words.span(i..next);
        match target {
            Target::Named(name) => {
                self.notes.set(&mut self.node, name, "node", Source::Text(span));
            }
            Target::Fits(name) => {
                let why = format!("the only known node that {:?} fits", span.text);
                self.notes.assume("node", &name, why);
                self.notes.set(&mut self.node, name, "node", Source::Context);
            }
            Target::Several(names) => {
                let prompt = format!("{:?} fits several nodes; which one?", span.text);
                self.notes.ask("node", prompt, names);
            }
            Target::NoSuch(names) => {
                let prompt = format!("No known node is {:?}; which one is meant?", span.text);
                self.notes.ask("node", prompt, names);
            }
        }
        Some(next)
    }

    /// Right after the verb only a node can stand: a word with a digit in it is
    /// its name, whether or not the word "node" is said.
    fn bare_name(&self, reading: Reading<'_>, i: usize) -> Option<(Target, usize)> {
        let words = reading.words;
        let after_verb = reading.verb.tokens.iter().any(|range| range.end == i);
        let name = words.raw(i);
        let looks_like_one =
            name.contains(|c: char| c.is_ascii_digit()) && name.starts_with(|c: char| c.is_alphabetic());
        if !after_verb || !looks_like_one || self.node.is_some() {
            return None;
        }
        Some((super::target::match_name(name, Sort::Node, reading.context), i + 1))
    }

    fn finish(mut self, reading: Reading<'_>, intent: impl Fn(String, Option<bool>, Option<u64>) -> Intent) -> Answer {
        if let Some((typed, right)) = &reading.verb.corrected {
            let why = format!("{typed:?} was read as {right:?}");
            self.notes.assume("action", *right, why);
        }
        if let Some(objection) = self.notes.objection(reading.words, "node", "A node is named as: node NAME.") {
            return objection;
        }
        let Some(node) = self.node else {
            let known = reading.context.nodes.iter();
            let names = known.map(|node| node.name.clone()).take(8).collect();
            return Answer::ask("node", "Which node?", names);
        };
        let (assumptions, provenance) = self.notes.into_reasons();
        Answer::Intent(Understood { intent: intent(node, self.force, self.deadline_s), assumptions, provenance })
    }
}
