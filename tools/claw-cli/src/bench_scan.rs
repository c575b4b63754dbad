//! `claw bench scan`: how fast log lines are read for faults, beside ripgrep where there is one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use claw_observe::Observer;
use claw_observe::diagnose::observe::{LINE_BYTES, Observation};
use claw_observe::diagnose::rules::Rules;
use claw_observe::diagnose::series::median;
use serde_json::{Value, json};

use crate::diagnose;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;

/// Healthy lines as they stand in logs.
const HEALTHY: [&str; 6] = [
    "2026-01-02T03:04:05.123456Z stdout F step=1200 loss=2.113 grad_norm=0.42 tokens/s=181233 lr=3.0e-4 mem=71.2GB",
    "[ 4711.123456] audit: type=1400 audit(1767225845.123:42): apparmor=\"STATUS\" operation=\"profile_load\"",
    "node1:4242:4243 [3] NCCL INFO Channel 03/0 : 3[3] -> 4[4] via P2P/CUMEM/read",
    "INFO 07-10 14:48:13 [loggers.py:111] Engine 000: Avg prompt throughput: 812.4 tokens/s, Running: 31 reqs",
    "192.0.2.17 - - [02/Jan/2026:03:04:05 +0000] \"POST /v1/chat/completions HTTP/1.1\" 200 1834",
    "I0102 03:04:05.678901    1234 kubelet.go:2456] \"SyncLoop (PLEG): event for pod\" pod=\"ml/train-7\"",
];
/// Faults of several rules with their codes; every thousandth line is one of them, in turn.
const FAULTS: [(&str, &str); 5] = [
    ("xid_31", "[ 4711.654321] NVRM: Xid (PCI:0000:3b:00): 31, pid=4242, name=python3, Ch 00000008, intr 00000000"),
    (
        "amdgpu_ring_timeout",
        "[ 4021.110000] amdgpu 0000:0a:00.0: amdgpu: ring sdma0 timeout, signaled seq=88, emitted seq=90",
    ),
    (
        "host_oom",
        "[ 8000.000001] Memory cgroup out of memory: Killed process 31337 (python) total-vm:100kB, anon-rss:90kB",
    ),
    ("cuda_device_assert", "[rank3]: RuntimeError: CUDA error: device-side assert triggered"),
    ("ib_port_error", "[  931.120000] mlx5_core 0000:5e:00.0: Port module event: module 0, Cable unplugged"),
];
const EVERY: usize = 1_000;
/// Lines that hold each fault once; fewer would plant not all of them.
pub(crate) const LEAST_LINES: u64 = (EVERY * FAULTS.len()) as u64;
/// Rounds; in each, all are measured twice, there and back.
const ROUNDS: usize = 5;
/// Repeated to fill lines that nobody meant: prefixes, brackets, near matches.
const HOSTILE: [(&str, &str); 6] = [
    ("brackets", "[{("),
    ("prefixes", "NVRM: Xid (PCI:0000:3b:00"),
    ("numbers", "Xid (PCI:0000:3b:00): 79, "),
    ("exceptions", "Traceback (most recent call last) Error: "),
    ("nested JSON", "{\"log\":\"{"),
    ("near matches", "uncorrectable NCCL WARN NET/IB : out of memory GPU 0 "),
];
/// Bytes of all hostile lines of one kind.
const HOSTILE_BYTES: usize = 4 << 20;

/// One way of `rg` to search the same file, and what came of it.
struct Search {
    mode: &'static [&'static str],
    patterns: PathBuf,
    seconds: Vec<f64>,
    /// Lines that it counted.
    lines: u64,
    /// Why it could not be measured.
    failed: Option<String>,
}

/// What one run of `rg` came to.
#[derive(Debug, PartialEq)]
enum Ran {
    /// There is no such program.
    Absent,
    /// It did not search, for this reason.
    Failed(String),
    /// It took these seconds, start and compilation included, and counted these lines.
    Counted(f64, u64),
}

/// Scans `lines` generated lines, and prints what it took.
pub(crate) fn run(lines: usize, screen: &Screen) -> Result<Exit, CliError> {
    let folder = std::env::temp_dir().join(format!("claw-bench-scan-{}", std::process::id()));
    let failed = |source| CliError::File { path: folder.clone(), source };
    fs::create_dir_all(&folder).map_err(failed)?;
    let done = measure(lines, &folder, screen);
    fs::remove_dir_all(&folder).map_err(failed)?;
    done
}

fn measure(lines: usize, folder: &Path, screen: &Screen) -> Result<Exit, CliError> {
    let rules = Rules::built_in();
    let (log, empty) = (folder.join("log"), folder.join("empty"));
    let (literals, expressions) = (folder.join("literals"), folder.join("expressions"));
    let text = generated(lines);
    for (path, content) in [
        (&log, text.as_str()),
        (&empty, ""),
        (&literals, &rules.literals().join("\n")),
        (&expressions, &rules.expressions().join("\n")),
    ] {
        fs::write(path, content).map_err(|source| CliError::File { path: path.clone(), source })?;
    }
    let mut searches = [
        Search::new(&["-i", "-F"], literals),
        Search::new(&["--regex-size-limit=1G", "--dfa-size-limit=1G"], expressions),
    ];
    let mut own = Vec::new();
    let planted = planted(lines);
    let n_planted: u64 = planted.values().sum();
    let mut seen = ours(&log)?.1; // The rules are compiled, and the file is in memory.
    for _ in 0..ROUNDS {
        for place in [None, Some(0), Some(1), Some(1), Some(0), None] {
            if let Some(search) = place.and_then(|place: usize| searches.get_mut(place)) {
                search.run(&log, n_planted);
            } else {
                let (seconds, observation) = ours(&log)?;
                own.push(seconds);
                seen = observation;
            }
        }
    }
    let found = found(&seen);
    let [by_literals, by_expressions] = searches;
    let line = json!({
        "lines": seen.lines,
        "bytes": text.len(),
        "planted": planted,
        "found": found,
        "literals": rules.literals().len(),
        "expressions": rules.expressions().len(),
        "ms_per_10000_lines": middle(&own).map(|seconds| rounded(seconds * 1e7 / lines.max(1) as f64)),
        "lines_per_second": rate(&own, lines),
        "ripgrep_literals": by_literals.beside(&own, lines, &empty),
        "ripgrep_expressions": by_expressions.beside(&own, lines, &empty),
        "hostile_ns_per_byte": hostile(),
    });
    screen.print(&format!("{line}\n"))?;
    if found == planted { Ok(Exit::Ok) } else { Err(missed(&found, &planted)) }
}

fn generated(lines: usize) -> String {
    let mut text = String::with_capacity(lines * 110);
    for index in 0..lines {
        let line = match fault(index) {
            Some((_, line)) => line,
            None => HEALTHY[index % HEALTHY.len()],
        };
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The fault that stands at that line, from 0.
fn fault(index: usize) -> Option<(&'static str, &'static str)> {
    (index % EVERY == EVERY - 1).then(|| FAULTS[index / EVERY % FAULTS.len()])
}

/// How often each code is planted.
fn planted(lines: usize) -> BTreeMap<String, u64> {
    let mut planted = BTreeMap::new();
    for (code, _) in (0..lines).filter_map(fault) {
        *planted.entry(code.to_owned()).or_default() += 1;
    }
    planted
}

/// How often each code was found.
fn found(seen: &Observation) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for finding in &seen.findings {
        *found.entry(finding.code.to_string()).or_default() += finding.count;
    }
    found
}

fn missed(found: &BTreeMap<String, u64>, planted: &BTreeMap<String, u64>) -> CliError {
    let codes: std::collections::BTreeSet<&String> = found.keys().chain(planted.keys()).collect();
    let of = |counts: &BTreeMap<String, u64>, code: &String| counts.get(code).copied().unwrap_or_default();
    let differs = codes.into_iter().filter(|code| of(found, code) != of(planted, code));
    let what: Vec<String> =
        differs.map(|code| format!("{code} {} of {}", of(found, code), of(planted, code))).collect();
    CliError::Missed { what: what.join(", ") }
}

/// Reads a file as `claw diagnose --logs` does.
fn ours(log: &Path) -> Result<(f64, Observation), CliError> {
    let failed = |source: io::Error| CliError::File { path: log.to_owned(), source };
    let begun = Instant::now();
    let mut observer = Observer::new(Rules::built_in(), "generated");
    let file = File::open(log).map_err(failed)?;
    diagnose::read(&mut BufReader::with_capacity(1 << 16, file), &mut observer).map_err(failed)?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok((seconds, observer.finish()))
}

impl Search {
    fn new(mode: &'static [&'static str], patterns: PathBuf) -> Self {
        Self { mode, patterns, seconds: Vec::new(), lines: 0, failed: None }
    }

    /// Searches once more. Who counts fewer lines than were planted did not do the same work.
    fn run(&mut self, log: &Path, n_planted: u64) {
        match ripgrep("rg", self.mode, &self.patterns, log) {
            Ran::Absent => {}
            Ran::Failed(why) => self.failed = Some(why),
            Ran::Counted(_, lines) if lines < n_planted => {
                self.failed = Some(format!("{lines} lines match, of {n_planted} planted"));
            }
            Ran::Counted(seconds, lines) => {
                self.seconds.push(seconds);
                self.lines = lines;
            }
        }
    }

    /// Its rate, ours against it, and how long it takes to start; null without `rg`.
    fn beside(&self, own: &[f64], lines: usize, empty: &Path) -> Value {
        if let Some(why) = &self.failed {
            return json!({ "failed": why });
        }
        let (Some(theirs), Some(ours)) = (middle(&self.seconds), middle(own)) else { return Value::Null };
        let start = match ripgrep("rg", self.mode, &self.patterns, empty) {
            Ran::Counted(seconds, _) => Some(rounded(seconds * 1e3)),
            Ran::Absent | Ran::Failed(_) => None,
        };
        // Pairs of one round, in their order.
        let ratios: Vec<f64> = self.seconds.iter().zip(own).map(|(theirs, own)| theirs / own).collect();
        json!({
            "lines_per_second": rate(&self.seconds, lines),
            "lines_that_match": self.lines,
            "start_ms": start,
            "ours_against_it": { "median": rounded(theirs / ours), "min": rounded(least(&ratios)), "max": rounded(most(&ratios)) },
        })
    }
}

/// Lets `rg` count the lines that match, in one thread.
fn ripgrep(program: &str, mode: &[&str], patterns: &Path, log: &Path) -> Ran {
    let begun = Instant::now();
    let ran = Command::new(program)
        .args(["--no-config", "--threads=1", "-c"])
        .args(mode)
        .arg("-f")
        .arg(patterns)
        .arg(log)
        .output();
    let took = begun.elapsed().as_secs_f64();
    let out = match ran {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ran::Absent,
        Err(error) => return Ran::Failed(error.to_string()),
        Ok(out) => out,
    };
    let counted = String::from_utf8_lossy(&out.stdout).trim().parse();
    match (out.status.code(), counted) {
        (Some(0), Ok(lines)) => Ran::Counted(took, lines),
        // No match is no failure; of that nothing is said.
        (Some(1), _) if out.stderr.is_empty() => Ran::Counted(took, 0),
        _ => {
            let said = String::from_utf8_lossy(&out.stderr);
            Ran::Failed(format!("{}: {}", out.status, said.lines().next().unwrap_or_default()))
        }
    }
}

/// Nanoseconds a byte over lines of a quarter of the bound and of the whole: equal, if time is linear.
fn hostile() -> Value {
    let of = |piece: &str, bytes: usize| {
        let line = piece.repeat(bytes / piece.len());
        let n = HOSTILE_BYTES / bytes;
        let mut times = Vec::new();
        for _ in 0..3 {
            let begun = Instant::now();
            let mut observer = Observer::new(Rules::built_in(), "hostile");
            (0..n).for_each(|_| observer.line(&line));
            drop(observer.finish());
            times.push(begun.elapsed().as_secs_f64() * 1e9 / (n * line.len()) as f64);
        }
        middle(&times).map_or(0.0, rounded)
    };
    let row = |(name, piece): &(&str, &str)| {
        let (short, long) = (of(piece, LINE_BYTES / 4), of(piece, LINE_BYTES));
        ((*name).to_owned(), json!({ "n": short, "4n": long, "ratio": rounded(long / short.max(1e-9)) }))
    };
    HOSTILE.iter().map(row).collect::<serde_json::Map<_, _>>().into()
}

fn rate(times: &[f64], lines: usize) -> Value {
    let per_second = |seconds: f64| (lines as f64 / seconds.max(1e-9)).round();
    json!({ "median": middle(times).map(per_second), "min": per_second(most(times)), "max": per_second(least(times)) })
}

fn middle(times: &[f64]) -> Option<f64> {
    median(times.iter().copied())
}

fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(times: &[f64]) -> f64 {
    times.iter().copied().fold(0.0, f64::max)
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_fault_is_found_once_and_nothing_else() {
        let mut observer = Observer::new(Rules::built_in(), "generated");
        observer.text(&generated(10_500));
        let seen = observer.finish();
        assert_eq!(found(&seen).into_values().collect::<Vec<_>>(), [2; FAULTS.len()], "{:?}", seen.findings);
        assert_eq!(found(&seen), planted(10_500));
    }

    #[test]
    fn the_fewest_lines_plant_every_fault() {
        let least = usize::try_from(LEAST_LINES).unwrap();
        assert_eq!(planted(least).into_values().collect::<Vec<_>>(), [1; FAULTS.len()]);
        assert_eq!(planted(least - 1).len(), FAULTS.len() - 1);
        let mut observer = Observer::new(Rules::built_in(), "generated");
        observer.text(&generated(least));
        assert_eq!(found(&observer.finish()), planted(least));
    }

    #[test]
    fn another_fault_than_was_planted_is_no_hit() {
        let counts = |codes: &[(&str, u64)]| codes.iter().map(|(code, n)| ((*code).to_owned(), *n)).collect();
        let error = missed(&counts(&[("xid_31", 1), ("xid_79", 1)]), &counts(&[("xid_31", 1), ("host_oom", 1)]));
        assert_eq!(error.exit(), Exit::Fault);
        assert!(error.to_string().ends_with("host_oom 0 of 1, xid_79 1 of 0"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_not_one_that_fails() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(ripgrep("there-is-no-such-program", &[], file.path(), file.path()), Ran::Absent);
        // It does not know these arguments.
        let Ran::Failed(why) = ripgrep("cargo", &[], file.path(), file.path()) else { panic!("it failed") };
        assert!(why.contains("exit status") && why.contains("--no-config"), "{why}");
    }
}
