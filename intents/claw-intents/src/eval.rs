//! Cases and their score: the same rules as the public scorer, natively.
//!
//! A case file has one JSON object a line: a request, what the engine may look
//! up, and what it must make of it. What a case does not name is not judged.

use std::collections::{BTreeMap, BTreeSet};

use claw_proto::time::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Answer, Catalog, Context, RefusalCode, parse};

mod judge;
mod noise;

pub use judge::{Verdict as CaseVerdict, judge};
pub use noise::{Draws, Noise, check};

/// A case: a request and what is expected of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Unique.
    pub id: String,
    /// The report's row.
    pub category: String,
    /// The request.
    pub text: String,
    /// What may be looked up.
    pub context: Context,
    /// The line as it is.
    pub line: Map<String, Value>,
}

/// Why a file of cases or answers cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A line is no JSON object, or not of the expected form.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// An id occurs twice.
    #[error("line {line}: the id {id:?} occurs twice")]
    Twice {
        /// Its number, from 1.
        line: usize,
        /// The id.
        id: String,
    },
}

/// Objects of a JSON-lines file, each with its id.
pub type Lines = Vec<(String, Map<String, Value>)>;

/// What a case or an answer may come out as.
const OUTCOMES: &[&str] = &["intent", "question", "refusal"];

/// The objects of a JSON-lines file of cases or answers by their ids, in the order of the file.
///
/// # Errors
/// A line that is no JSON object with an id and a known outcome, or an id that occurs twice.
pub fn lines(text: &str) -> Result<Lines, EvalError> {
    Ok(numbered(text)?.into_iter().map(|(_, id, object)| (id, object)).collect())
}

/// An object of a file, its id, and the number of its line.
type Numbered = (usize, String, Map<String, Value>);

/// The objects with the numbers of their lines.
fn numbered(text: &str) -> Result<Vec<Numbered>, EvalError> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line_error = |why: String| EvalError::Line { line: n + 1, why };
        let value: Value = serde_json::from_str(line).map_err(|error| line_error(error.to_string()))?;
        let Value::Object(object) = value else {
            return Err(line_error("not an object".into()));
        };
        let Some(id) = object.get("id").and_then(Value::as_str).map(str::to_owned) else {
            return Err(line_error("no id".into()));
        };
        if !object.get("outcome").and_then(Value::as_str).is_some_and(|outcome| OUTCOMES.contains(&outcome)) {
            return Err(line_error(format!("the outcome is none of {}", OUTCOMES.join(", "))));
        }
        if !seen.insert(id.clone()) {
            return Err(EvalError::Twice { line: n + 1, id });
        }
        found.push((n + 1, id, object));
    }
    Ok(found)
}

/// Reads a case file.
///
/// # Errors
/// What [`lines`] refuses, and a case without a text, a category, a context of the right form, or
/// what its outcome needs: a question's `question.field`, a refusal's `refusal` code.
pub fn cases(text: &str) -> Result<Vec<Case>, EvalError> {
    let mut found = Vec::new();
    for (line_number, id, line) in numbered(text)? {
        let why = |why: String| EvalError::Line { line: line_number, why };
        let text_of = |key: &str| {
            let value = line.get(key).and_then(Value::as_str).map(str::to_owned);
            value.ok_or_else(|| why(format!("no {key}")))
        };
        if let Some(missing) = missing_field(&line) {
            return Err(why(format!("no {missing}")));
        }
        let context = line.get("context").cloned().unwrap_or_else(|| json!({}));
        found.push(Case {
            category: text_of("category")?,
            text: text_of("text")?,
            context: serde_json::from_value(context).map_err(|error| why(format!("context: {error}")))?,
            id,
            line,
        });
    }
    Ok(found)
}

/// The field that a case's outcome needs and that is not there.
fn missing_field(case: &Map<String, Value>) -> Option<&'static str> {
    match case.get("outcome").and_then(Value::as_str)? {
        "question" => case.get("question").and_then(|q| q.get("field")?.as_str()).is_none().then_some("question.field"),
        "refusal" => {
            let code = case.get("refusal").and_then(Value::as_str);
            code.and_then(RefusalCode::from_text).is_none().then_some("refusal code")
        }
        _ => None,
    }
}

/// The engine's answer to a case, as one line of an answer file.
pub fn answer(case: &Case, catalog: &Catalog) -> Map<String, Value> {
    line(case, &parse(&case.text, &case.context, catalog))
}

/// Any answer to a case, as one line of an answer file.
pub fn line(case: &Case, answer: &Answer) -> Map<String, Value> {
    let mut line = match serde_json::to_value(answer) {
        Ok(Value::Object(line)) => line,
        Ok(_) | Err(_) => Map::new(),
    };
    line.insert("id".into(), json!(case.id));
    line
}

/// The figures of one category, or of all.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Score {
    /// Cases.
    pub cases: u32,
    /// Cases that are right in everything that is judged.
    pub exact: u32,
    /// Judged fields that are right.
    pub right: u32,
    /// Fields that are there and wrong, and inventions.
    pub wrong: u32,
    /// Judged fields that are missing or wrong.
    pub missed: u32,
    /// Fields that must be absent and are there.
    pub inventions: u32,
}

impl Score {
    fn add(&mut self, verdict: &CaseVerdict) {
        self.cases += 1;
        self.exact += u32::from(verdict.reasons.is_empty());
        self.right += verdict.right;
        self.wrong += verdict.wrong;
        self.missed += verdict.missed;
        self.inventions += verdict.invented;
    }

    /// Share of exact cases, 0 to 1.
    pub fn rate(&self) -> f64 {
        f64::from(self.exact) / f64::from(self.cases.max(1))
    }

    /// F1 over the judged fields; none if no field was judged.
    pub fn f1(&self) -> Option<f64> {
        let both = 2.0 * f64::from(self.right);
        let all = both + f64::from(self.wrong) + f64::from(self.missed);
        (self.right + self.missed > 0).then(|| both / all.max(1.0))
    }
}

/// The score of an answer file.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// By category.
    pub categories: BTreeMap<String, Score>,
    /// Of all cases.
    pub all: Score,
    /// Answers with another outcome than wanted.
    pub wrong_outcomes: u32,
    /// Cases without an answer.
    pub unanswered: u32,
    /// Answers to no case.
    pub unknown_answers: u32,
    /// The failing cases and why, in the order of the file.
    pub failing: Vec<(String, String)>,
}

/// Scores answers against cases.
pub fn score(cases: &[(String, Map<String, Value>)], answers: &BTreeMap<String, Map<String, Value>>) -> Report {
    let known: BTreeSet<&str> = cases.iter().map(|(id, _)| id.as_str()).collect();
    let unknown = answers.keys().filter(|id| !known.contains(id.as_str())).count();
    let mut report = Report { unknown_answers: u32::try_from(unknown).unwrap_or(u32::MAX), ..Report::default() };
    for (id, case) in cases {
        let given = answers.get(id);
        let verdict = judge(case, given);
        let category = case.get("category").and_then(Value::as_str).unwrap_or_default().to_owned();
        report.categories.entry(category).or_default().add(&verdict);
        report.all.add(&verdict);
        report.unanswered += u32::from(given.is_none());
        report.wrong_outcomes += u32::from(given.is_some_and(|a| a.get("outcome") != case.get("outcome")));
        if !verdict.reasons.is_empty() {
            report.failing.push((id.clone(), verdict.reasons.join("; ")));
        }
    }
    report
}

impl Report {
    /// The report as a table for people.
    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut out = format!("{:<20}{:>6}{:>7}{:>8}{:>8}{:>5}\n", "category", "cases", "exact", "rate", "F1", "inv");
        let all = std::iter::once(("all", &self.all));
        for (name, s) in self.categories.iter().map(|(name, s)| (name.as_str(), s)).chain(all) {
            let f1 = s.f1().map_or_else(|| format!("{:>8}", "-"), |f1| format!("{f1:>8.3}"));
            let rate = s.rate() * 100.0;
            // A String takes every write.
            writeln!(out, "{name:<20}{:>6}{:>7}{rate:>7.1}%{f1}{:>5}", s.cases, s.exact, s.inventions).unwrap_or(());
        }
        let (wrong, open, invented) = (self.wrong_outcomes, self.unanswered, self.all.inventions);
        let unknown = self.unknown_answers;
        writeln!(out, "wrong outcomes {wrong}, unanswered {open}, inventions {invented}, unknown answer ids {unknown}")
            .unwrap_or(());
        for (id, why) in &self.failing {
            writeln!(out, "FAIL {id}: {why}").unwrap_or(());
        }
        out
    }
}

/// Whether two texts are the same point in time; texts that are none must be equal.
fn same_instant(a: &str, b: &str) -> bool {
    match (instant(a), instant(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// RFC 3339 in any case, with or without seconds.
fn instant(text: &str) -> Option<Timestamp> {
    let upper = text.to_uppercase();
    let with_seconds = || {
        let (head, zone) = upper.split_at_checked(16)?;
        format!("{head}:00{zone}").parse().ok()
    };
    upper.parse().ok().or_else(with_seconds)
}

#[cfg(test)]
mod tests;
