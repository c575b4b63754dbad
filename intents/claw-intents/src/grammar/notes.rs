//! What a reading of a request gathers beside the intent: where fields come
//! from, what was assumed, what contradicts, what was not understood.

use std::ops::Range;

use serde::Serialize;

use crate::answer::{Answer, Assumption, Provenance, Question, RefusalCode, Source};
use crate::text::Words;

/// A question names at most so many fields.
const QUESTIONS_MAX: usize = 2;

/// So much of what was not understood is shown.
const SHOWN_CHARS_MAX: usize = 300;

/// After so many tokens that were not understood, reading on is of no use.
const LEFTOVERS_MAX: usize = 40;

/// Two values for one field.
#[derive(Debug, Clone, PartialEq)]
struct Conflict {
    field: String,
    values: [serde_json::Value; 2],
}

/// The notes of one reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Notes {
    assumptions: Vec<Assumption>,
    provenance: Vec<Provenance>,
    questions: Vec<Question>,
    conflicts: Vec<Conflict>,
    refusal: Option<Answer>,
    leftovers: Vec<usize>,
}

impl Notes {
    /// Sets a field that the words give; a second, different value is a conflict.
    pub(crate) fn set<T: PartialEq + Serialize>(
        &mut self,
        slot: &mut Option<T>,
        value: T,
        field: &str,
        source: Source,
    ) {
        match slot {
            None => {
                *slot = Some(value);
                self.came_from(field, source);
            }
            Some(old) if *old == value => {}
            Some(old) => self.conflicts.push(Conflict { field: field.into(), values: [json(old), json(&value)] }),
        }
    }

    /// Notes where a field comes from.
    pub(crate) fn came_from(&mut self, field: &str, source: Source) {
        self.provenance.push(Provenance { field: field.into(), source });
    }

    /// States an assumption.
    pub(crate) fn assume(&mut self, field: &str, value: impl Serialize, why: impl Into<String>) {
        self.assumptions.push(Assumption { field: field.into(), value: json(&value), why: why.into() });
    }

    /// Asks a question.
    pub(crate) fn ask(&mut self, field: &str, prompt: impl Into<String>, options: Vec<String>) {
        self.questions.push(Question { field: field.into(), prompt: prompt.into(), options });
    }

    /// Refuses the request, whatever else it says.
    pub(crate) fn refuse(&mut self, code: RefusalCode, message: impl Into<String>) {
        self.refusal.get_or_insert_with(|| Answer::refusal(code, message));
    }

    /// Notes a token that was not understood.
    pub(crate) fn not_understood(&mut self, token: usize) {
        self.leftovers.push(token);
    }

    /// Whether so much was not understood that the answer is a question whatever
    /// follows; bounds the time that a long, senseless text takes.
    pub(crate) fn is_lost(&self) -> bool {
        self.leftovers.len() >= LEFTOVERS_MAX
    }

    /// What was not understood, as written; neighbors stand together.
    pub(crate) fn leftovers(&self, words: &Words<'_>) -> Vec<String> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for token in &self.leftovers {
            match ranges.last_mut() {
                Some(last) if last.end == *token => last.end += 1,
                _ => ranges.push(*token..*token + 1),
            }
        }
        ranges.into_iter().map(|r| words.span(r).text).collect()
    }

    /// The answer that stands against an intent, if there is one. What was not
    /// understood is asked about as `field`, with a hint how to say it.
    pub(crate) fn objection(&mut self, words: &Words<'_>, field: &str, hint: &str) -> Option<Answer> {
        if let Some(refusal) = self.refusal.take() {
            return Some(refusal);
        }
        for conflict in std::mem::take(&mut self.conflicts) {
            let [first, second] = conflict.values.each_ref().map(plain);
            let prompt = format!("Both {first} and {second} are asked for; which is meant?");
            self.ask(&conflict.field, prompt, vec![first, second]);
        }
        let unknown = self.leftovers(words);
        if !unknown.is_empty() {
            let quoted: Vec<String> = unknown.iter().map(|t| format!("{t:?}")).collect();
            let shown: String = quoted.join(", ").chars().take(SHOWN_CHARS_MAX).collect();
            let prompt = format!("I did not understand {shown}. Leave it out, or say it another way? {hint}");
            self.ask(field, prompt.trim_end(), Vec::new());
        }
        if self.questions.is_empty() {
            return None;
        }
        let mut questions = std::mem::take(&mut self.questions);
        questions.truncate(QUESTIONS_MAX);
        Some(Answer::Question(questions))
    }

    /// The assumptions and the provenance.
    pub(crate) fn into_reasons(self) -> (Vec<Assumption>, Vec<Provenance>) {
        (self.assumptions, self.provenance)
    }
}

/// A value as JSON. The values here are plain data, whose conversion cannot fail.
fn json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or(serde_json::Value::Null)
}

/// A value as a person writes it.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
