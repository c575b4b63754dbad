//! The proposer: where the grammar is unsure, somebody else may propose what a
//! request means. What is proposed counts only as far as the words allow it.
//!
//! ```text
//! look ─ sure ────────────────────────────────► the grammar's answer
//!      └ unsure ─ propose ─ check ─ passes ───► an intent, marked as proposed
//!                    ▲        │
//!                    └ faults ┘ at most twice, then the grammar's answer stands
//! ```
//!
//! The proposer chooses what is meant; the grammar's own readers say which values
//! the words hold. A proposal can fill in what is open to it ([`check`]), and
//! never a value that costs. It is given back only as an intent that passes, or
//! as a question where the grammar understood nothing.

use std::future::Future;

use serde::Serialize;
use serde_json::Value;

use crate::answer::Answer;
use crate::catalog::Catalog;
use crate::context::Context;

pub mod check;
mod evidence;
pub mod reply;
pub mod schema;
mod unsure;

pub use unsure::{Look, Unsure, look};

/// How often a proposer may mend an answer that did not pass.
pub const REPAIRS_MAX: usize = 2;

/// Why an answer of a proposer does not pass, in the proposer's own terms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fault {
    /// Dotted field; empty where it is about the whole answer.
    pub field: String,
    /// What the answer says; null where it says nothing.
    pub got: Value,
    /// What it may say; empty where nothing is.
    pub allowed: Vec<Value>,
    /// Why.
    pub why: String,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, got: Value, allowed: Vec<Value>, why: impl Into<String>) -> Self {
        Self { field: field.into(), got, allowed, why: why.into() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", clip(&self.field))?;
        }
        if !self.got.is_null() {
            write!(f, "got {}, ", clip(&self.got.to_string()))?;
        }
        if !self.allowed.is_empty() {
            let allowed: Vec<String> = self.allowed.iter().map(Value::to_string).collect();
            write!(f, "allowed is {}; ", allowed.join(" or "))?;
        }
        f.write_str(&self.why)
    }
}

/// Most characters of an answer's own text that a fault repeats.
const TOLD_CHARS_MAX: usize = 200;

fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(TOLD_CHARS_MAX).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

/// What a proposer is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inputs<'a> {
    /// The request, verbatim.
    pub request: &'a str,
    /// What the engine may look up.
    pub context: &'a Context,
    /// The grammar's own answer.
    pub answer: &'a Answer,
    /// Why it is unsure.
    pub unsure: &'a Unsure,
}

/// One answer of a proposer that did not pass, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Round {
    /// The answer, as it came.
    pub answer: String,
    /// What the checker said of it; empty if it passed.
    pub faults: Vec<Fault>,
}

/// Somebody who proposes what a request means.
pub trait Proposer {
    /// Why no answer came.
    type Error: Send;

    /// Proposes an answer, as JSON text of [`schema::of_replies`]; `before` are the answers that did
    /// not pass, in order. It bounds its own time, calls and bytes.
    ///
    /// # Errors
    /// No answer came. The grammar's own answer stands then.
    fn propose(
        &mut self,
        inputs: &Inputs<'_>,
        before: &[Round],
    ) -> impl Future<Output = Result<String, Self::Error>> + Send;
}

/// What became of a request that a proposer was there for.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<E> {
    /// The answer.
    pub answer: Answer,
    /// Why the proposer was asked; none if it was not.
    pub unsure: Option<Unsure>,
    /// What it answered, in order.
    pub rounds: Vec<Round>,
    /// Why it counts for nothing; none if it was not asked, or its answer passed.
    pub ended: Option<Ended<E>>,
}

/// Why a proposer counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended<E> {
    /// No answer came.
    Failed(E),
    /// None of its answers passed the checker.
    Rejected,
    /// It asks back, and the grammar's own answer is as good.
    Asked,
}

/// What a request in words means, with a proposer for where the grammar is unsure.
///
/// The grammar's answer stands unless it is unsure and a proposal passes the checker.
pub async fn parse_with<P: Proposer>(
    text: &str,
    context: &Context,
    catalog: &Catalog,
    proposer: &mut P,
) -> Outcome<P::Error> {
    let Look { answer, unsure } = look(text, context, catalog);
    let Some(why) = unsure else {
        return Outcome { answer, unsure: None, rounds: Vec::new(), ended: None };
    };
    let mut rounds: Vec<Round> = Vec::new();
    let (answer, ended) = loop {
        let inputs = Inputs { request: text, context, answer: &answer, unsure: &why };
        let said = match proposer.propose(&inputs, &rounds).await {
            Ok(said) => said,
            Err(error) => break (answer, Some(Ended::Failed(error))),
        };
        match check::check(&inputs, catalog, &said) {
            Ok(better) => {
                rounds.push(Round { answer: said, faults: Vec::new() });
                break better.map_or((answer, Some(Ended::Asked)), |better| (better, None));
            }
            Err(faults) => rounds.push(Round { answer: said, faults }),
        }
        if rounds.len() > REPAIRS_MAX {
            break (answer, Some(Ended::Rejected));
        }
    };
    Outcome { answer, unsure: Some(why), rounds, ended }
}

#[cfg(test)]
mod tests;
