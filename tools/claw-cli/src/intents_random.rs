//! `claw eval intents CASES --random N`: made-up requests against the intent
//! engine. No panic, every answer of the schema, and how long each takes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use claw_intents::eval::{self, Noise};
use claw_intents::{Catalog, Context};
use serde_json::json;

use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;

/// A request takes at most so long.
const LONG: Duration = Duration::from_millis(5);
/// How often a request that took long is tried again, so that the machine's other work is not counted.
const AGAIN: u32 = 4;
/// Characters of a request that are shown.
const SHOWN_CHARS_MAX: usize = 200;

/// What became of the made-up requests.
#[derive(Debug, Default)]
struct Findings {
    times: Vec<Duration>,
    long: u32,
    panics: Vec<String>,
    bad: Vec<String>,
    slowest: (Duration, String),
}

/// Tries so many requests that are made from the cases.
pub(crate) fn run(cases: &[eval::Case], count: u32, seed: u64, screen: &Screen) -> Result<Exit, CliError> {
    let texts = cases.iter().map(|case| case.text.clone()).collect();
    let found = try_out(&mut Noise::new(seed, texts), count);
    if screen.is_json() {
        screen.print(&format!("{}\n", found.json(seed)))?;
    } else {
        screen.print(&found.table(seed))?;
    }
    Ok(if found.panics.is_empty() && found.bad.is_empty() { Exit::Ok } else { Exit::NotReached })
}

fn try_out(noise: &mut Noise, count: u32) -> Findings {
    let mut found = Findings::default();
    let context = Context::default();
    let catalog = Catalog::builtin();
    for _ in 0..count {
        let text = noise.request();
        let mut start = Instant::now();
        let Ok(answer) = catch_unwind(AssertUnwindSafe(|| claw_intents::parse(&text, &context, catalog))) else {
            found.panics.push(shown(&text));
            continue;
        };
        let mut took = start.elapsed();
        for _ in 0..AGAIN {
            if took <= LONG {
                break;
            }
            start = Instant::now();
            std::hint::black_box(claw_intents::parse(&text, &context, catalog));
            took = took.min(start.elapsed());
        }
        if let Err(why) = eval::check(&text, &answer) {
            found.bad.push(format!("{why}: {}", shown(&text)));
        }
        found.long += u32::from(took > LONG);
        if took > found.slowest.0 {
            found.slowest = (took, shown(&text));
        }
        found.times.push(took);
    }
    found.times.sort_unstable();
    found
}

fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    format!("{cut:?} ({} characters)", text.chars().count())
}

impl Findings {
    /// The time that so many of a thousand do not exceed, microseconds.
    fn quantile(&self, permille: usize) -> f64 {
        let at = (self.times.len() * permille / 1_000).min(self.times.len().saturating_sub(1));
        self.times.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e6)
    }

    fn table(&self, seed: u64) -> String {
        let (panics, bad) = (self.panics.len(), self.bad.len());
        let tried = self.times.len() + panics;
        let (median, p99, slowest) = (self.quantile(500), self.quantile(990), self.slowest.0.as_secs_f64() * 1e6);
        let (long, most) = (self.long, LONG.as_millis());
        let head = [
            format!("seed {seed}: {tried} requests, {panics} panics, {bad} ill-formed answers"),
            format!("median {median:.0} us, p99 {p99:.0} us, slowest {slowest:.0} us, {long} over {most} ms"),
            format!("slowest: {}", self.slowest.1),
        ];
        let panics = self.panics.iter().map(|text| format!("PANIC {text}"));
        let bad = self.bad.iter().map(|text| format!("BAD {text}"));
        head.into_iter().chain(panics).chain(bad).map(|line| line + "\n").collect()
    }

    fn json(&self, seed: u64) -> serde_json::Value {
        json!({
            "seed": seed, "requests": self.times.len() + self.panics.len(), "panics": self.panics, "ill_formed": self.bad,
            "median_us": self.quantile(500), "p99_us": self.quantile(990),
            "slowest_us": self.slowest.0.as_secs_f64() * 1e6, "slowest": self.slowest.1, "long": self.long,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_tries_the_same_requests() {
        let texts = || vec!["run llama 70b on 4 H100".to_owned(), "drain node gpu-1".to_owned()];
        let found = try_out(&mut Noise::new(7, texts()), 50);
        assert_eq!((found.times.len(), found.panics.len(), found.bad.len()), (50, 0, 0));
        assert!(found.times.is_sorted() && found.quantile(500) <= found.quantile(990));
        assert!(found.table(7).starts_with("seed 7: 50 requests, 0 panics, 0 ill-formed answers\nmedian "));
        assert_eq!(found.json(7)["requests"], 50);
        let (mut one, mut two) = (Noise::new(7, texts()), Noise::new(7, texts()));
        assert!((0..50).all(|_| one.request() == two.request()));
    }
}
