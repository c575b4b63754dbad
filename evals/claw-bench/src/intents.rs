//! The intent engine: how long a request takes on one core, and what its tables take.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use claw_intents::{Catalog, Context, eval, parse};
use serde::Serialize;

use crate::resources::anonymous_kib;
use crate::stats::{median, quantile};

/// What was measured, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IntentFigure {
    /// Requests in the file.
    pub requests: usize,
    /// How often each was parsed.
    pub rounds: usize,
    /// Median time of a request, microseconds.
    pub median_us: f64,
    /// Time that 99 of a hundred do not exceed, microseconds.
    pub p99_us: f64,
    /// Anonymous memory that came with the first request: lexicon, catalogue and their indexes, KiB.
    pub tables_kib: f64,
    /// Anonymous memory that came with all further requests, KiB.
    pub grown_kib: f64,
}

/// Parses every request of a case file so many times, on the thread that calls.
///
/// The memory of the tables is right only in a process that has parsed nothing before.
///
/// # Errors
/// If there are no cases, or the system does not tell its memory.
pub fn figure(cases: &str, rounds: usize) -> Result<IntentFigure> {
    let cases = eval::cases(cases).context("the cases")?;
    ensure!(!cases.is_empty() && rounds > 0, "there is nothing to parse");
    let mut times = Vec::with_capacity(cases.len() * rounds);
    let own = std::process::id();
    // Touched now, so that it is not counted later.
    times.resize(cases.len() * rounds, 0.0);
    let before = anonymous_kib(own)?;
    black_box(parse("run phi-4 on 2 L4", &Context::default(), Catalog::builtin()));
    let first = anonymous_kib(own)?;
    for (n, time) in times.iter_mut().enumerate() {
        let case = &cases[n % cases.len()];
        let start = Instant::now();
        black_box(parse(&case.text, &case.context, Catalog::builtin()));
        *time = start.elapsed().as_secs_f64() * 1e6;
    }
    let after = anonymous_kib(own)?;
    Ok(IntentFigure {
        requests: cases.len(),
        rounds,
        median_us: median(&times),
        p99_us: quantile(&times, 0.99),
        tables_kib: first - before,
        grown_kib: after - first,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_of_the_cases_it_was_given() {
        let case = |id: &str, text: &str| {
            format!("{{\"id\":\"{id}\",\"category\":\"x\",\"text\":\"{text}\",\"outcome\":\"intent\"}}\n")
        };
        let cases = case("a", "drain gpu-1") + &case("b", "run llama 70b on 4 H100");
        let figure = figure(&cases, 5).unwrap();
        assert_eq!((figure.requests, figure.rounds), (2, 5));
        assert!(figure.median_us > 0.0 && figure.median_us <= figure.p99_us, "{figure:?}");
        // Lexicon and catalogue are some hundred kilobytes of text, and more as tables.
        assert!((100.0..50_000.0).contains(&figure.tables_kib), "{figure:?}");
        assert!(super::figure("", 5).is_err() && super::figure(&cases, 0).is_err());
    }
}
