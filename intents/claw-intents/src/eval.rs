//! Cases and their score: the same rules as the public scorer, natively.
//!
//! A case file has one JSON object a line: a request, what the engine may look
//! up, and what it must make of it. What a case does not name is not judged.

use std::collections::{BTreeMap, BTreeSet};

use claw_proto::time::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Catalog, Context, parse};

mod judge;

pub use judge::{Verdict as CaseVerdict, judge};

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

/// The objects of a JSON-lines file by their ids, in the order of the file.
pub fn lines(text: &str) -> Result<Lines, EvalError> {
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
        if !seen.insert(id.clone()) {
            return Err(EvalError::Twice { line: n + 1, id });
        }
        found.push((id, object));
    }
    Ok(found)
}

/// Reads a case file.
pub fn cases(text: &str) -> Result<Vec<Case>, EvalError> {
    let mut found = Vec::new();
    for (n, (id, line)) in lines(text)?.into_iter().enumerate() {
        let why = |why: &str| EvalError::Line { line: n + 1, why: why.into() };
        let text_of = |key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
        let context = line.get("context").cloned().unwrap_or_else(|| json!({}));
        found.push(Case {
            category: text_of("category").unwrap_or_default(),
            text: text_of("text").ok_or_else(|| why("no text"))?,
            context: serde_json::from_value(context).map_err(|error| why(&format!("context: {error}")))?,
            id,
            line,
        });
    }
    Ok(found)
}

/// The engine's answer to a case, as one line of an answer file.
pub fn answer(case: &Case, catalog: &Catalog) -> Map<String, Value> {
    let answer = parse(&case.text, &case.context, catalog);
    let mut line = match serde_json::to_value(&answer) {
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
    /// The failing cases and why, in the order of the file.
    pub failing: Vec<(String, String)>,
}

/// Scores answers against cases.
pub fn score(cases: &[(String, Map<String, Value>)], answers: &BTreeMap<String, Map<String, Value>>) -> Report {
    let mut report = Report::default();
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
        writeln!(out, "wrong outcomes {wrong}, unanswered {open}, inventions {invented}").unwrap_or(());
        for (id, why) in &self.failing {
            writeln!(out, "FAIL {id}: {why}").unwrap_or(());
        }
        out
    }
}

/// Whether two texts are the same point in time; texts that are none must be equal.
fn same_instant(a: &str, b: &str) -> bool {
    match (a.parse::<Timestamp>(), b.parse::<Timestamp>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
