//! Cases in, answers out, one JSON object a line: the form of the shared diagnosis corpus.

use serde::{Deserialize, Serialize};

use super::analyze::Analyzer;
use super::observe::Observer;
use super::policy::Policy;
use super::rules::Rules;

/// What a case holds for the engine; what is expected of it is not read.
#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    lines: Vec<String>,
}

/// One answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// The case's id.
    pub id: String,
    /// The code of the cause, or `none`.
    pub root: String,
    /// Where the fault lies.
    pub class: &'static str,
    /// What to do first.
    pub action: &'static str,
    /// How sure, 0 to 1.
    pub confidence: f64,
    /// Why, in words; also what could not be read.
    pub why: Vec<String>,
    /// All codes found.
    pub findings: Vec<String>,
    /// The rules that found the root.
    pub rules: Vec<String>,
    /// The root's first line, from 1.
    pub line: Option<u64>,
}

/// A line that is no case.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is no case: {source}")]
pub struct NotACase {
    /// The line, from 1.
    pub line: usize,
    /// What the parser says.
    pub source: serde_json::Error,
}

/// Answers one case, given as a line of JSON; the line's number is for the error.
///
/// # Errors
/// [`NotACase`] if the line is no JSON object with `id` and `lines`.
pub fn answer(json: &str, line: usize, policy: &'static Policy) -> Result<Answer, NotACase> {
    let case: Case = serde_json::from_str(json).map_err(|source| NotACase { line, source })?;
    Ok(judge(case.id, case.lines.iter().map(String::as_str), policy))
}

/// The answer to some lines.
pub fn judge<'a>(id: String, lines: impl Iterator<Item = &'a str>, policy: &'static Policy) -> Answer {
    let rules = Rules::built_in();
    let mut observer = Observer::new(rules, "case");
    for line in lines {
        observer.text(line);
    }
    let verdict = Analyzer::new(rules, policy).judge(&observer.finish());
    let mut findings: Vec<String> = Vec::new();
    for finding in &verdict.findings {
        let code = finding.code.to_string();
        if !findings.contains(&code) {
            findings.push(code);
        }
    }
    let root = verdict.root_index.and_then(|index| verdict.findings.get(index));
    Answer {
        id,
        root: verdict.root.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
        class: verdict.class.as_str(),
        action: verdict.action.as_str(),
        confidence: verdict.confidence,
        why: verdict.why.clone(),
        findings,
        rules: root.map(|finding| finding.rules.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        line: root.map(|finding| finding.first.line),
    }
}
