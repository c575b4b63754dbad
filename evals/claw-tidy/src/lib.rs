//! Rules about the repository itself, run as ordinary tests.
//!
//! Every rule is a pure function `check_*(input) -> Vec<Finding>`: the tests in
//! `tests/repository.rs` feed it the real tree, the tests beside it feed it a bad
//! sample and show that it fires. A rule that cannot fail guards nothing.
//!
//! A finding names the file, the line and the way out, because the person who reads it
//! broke the rule by accident and wants to get on.

pub mod components;
pub mod docs;
pub mod errors;
pub mod layers;
pub mod manifests;
pub mod metadata;
pub mod purity;
pub mod repo;
pub mod scan;
pub mod scripts;
pub mod sizes;
pub mod words;

use std::fmt;

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path from the root of the repository, with `/`.
    pub path: String,
    /// Line in that file, from 1; 0 where the finding is about the whole file.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl Finding {
    /// Builds a finding at `path:line`.
    pub fn new(path: &str, line: usize, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, problem: problem.into(), fix: fix.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, problem, fix } = self;
        write!(f, "{path}:{line}: {problem}\n      fix: {fix}")
    }
}

/// All findings of a broken rule at once, so that one run shows all the work.
///
/// A test returns it as its error; the test harness prints it by `Debug`, which is why
/// that form is the readable one.
pub struct Broken(Vec<Finding>);

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} finding(s)", self.0.len())?;
        for finding in &self.0 {
            writeln!(f, "  {finding}")?;
        }
        Ok(())
    }
}

/// A rule holds when nothing was found.
pub fn holds(findings: Vec<Finding>) -> Result<(), Broken> {
    if findings.is_empty() { Ok(()) } else { Err(Broken(findings)) }
}
