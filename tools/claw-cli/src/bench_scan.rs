//! `claw bench scan`: how fast log lines are read for faults, beside ripgrep where there is one.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use claw_observe::Observer;
use claw_observe::diagnose::observe::{LINE_BYTES, Observation};
use claw_observe::diagnose::rules::Rules;
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
/// Faults of several rules; every thousandth line is one of them, in turn.
const FAULTS: [&str; 5] = [
    "[ 4711.654321] NVRM: Xid (PCI:0000:3b:00): 31, pid=4242, name=python3, Ch 00000008, intr 00000000",
    "[ 4021.110000] amdgpu 0000:0a:00.0: amdgpu: ring sdma0 timeout, signaled seq=88, emitted seq=90",
    "[ 8000.000001] Memory cgroup out of memory: Killed process 31337 (python) total-vm:100kB, anon-rss:90kB",
    "[rank3]: RuntimeError: CUDA error: device-side assert triggered",
    "[  931.120000] mlx5_core 0000:5e:00.0: Port module event: module 0, Cable unplugged",
];
const EVERY: usize = 1_000;
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

/// What is measured beside each other.
enum Contender {
    Ours,
    /// `rg` with the texts of the one pass.
    Literals(PathBuf),
    /// `rg` with the expressions of all rules.
    Expressions(PathBuf),
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
    let contenders = [Contender::Ours, Contender::Literals(literals), Contender::Expressions(expressions)];
    let mut took: [Vec<f64>; 3] = Default::default();
    let mut seen = ours(&log)?.1; // The rules are compiled, and the file is in memory.
    for _ in 0..ROUNDS {
        for index in [0, 1, 2, 2, 1, 0] {
            let (Some(contender), Some(times)) = (contenders.get(index), took.get_mut(index)) else { continue };
            match contender {
                Contender::Ours => {
                    let (seconds, observation) = ours(&log)?;
                    times.push(seconds);
                    seen = observation;
                }
                Contender::Literals(_) | Contender::Expressions(_) => times.extend(ripgrep(contender, &log)),
            }
        }
    }
    let found: u64 = seen.findings.iter().map(|finding| finding.count).sum();
    let planted = (lines / EVERY) as u64;
    let [own, by_literals, by_expressions] = took;
    let [_, with_literals, with_expressions] = &contenders;
    let line = json!({
        "lines": seen.lines,
        "bytes": text.len(),
        "planted": planted,
        "found": found,
        "literals": rules.literals().len(),
        "expressions": rules.expressions().len(),
        "ms_per_10000_lines": median(&own).map(|seconds| rounded(seconds * 1e7 / lines.max(1) as f64)),
        "lines_per_second": rate(&own, lines),
        "ripgrep_literals": beside(&by_literals, &own, lines, ripgrep(with_literals, &empty)),
        "ripgrep_expressions": beside(&by_expressions, &own, lines, ripgrep(with_expressions, &empty)),
        "hostile_ns_per_byte": hostile(),
    });
    screen.print(&format!("{line}\n"))?;
    if found == planted { Ok(Exit::Ok) } else { Err(CliError::Missed { found, planted }) }
}

fn generated(lines: usize) -> String {
    let mut text = String::with_capacity(lines * 110);
    for index in 0..lines {
        let (from, turn) =
            if index % EVERY == EVERY - 1 { (&FAULTS[..], index / EVERY) } else { (&HEALTHY[..], index) };
        text.push_str(from.get(turn % from.len()).copied().unwrap_or_default());
        text.push('\n');
    }
    text
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

/// Seconds that `rg` takes to count the lines that match, start and compilation included; none without `rg`.
fn ripgrep(how: &Contender, log: &Path) -> Option<f64> {
    let (mode, patterns): (&[&str], _) = match how {
        Contender::Ours => return None,
        Contender::Literals(patterns) => (&["-i", "-F"], patterns),
        Contender::Expressions(patterns) => (&["--regex-size-limit=1G", "--dfa-size-limit=1G"], patterns),
    };
    let begun = Instant::now();
    let ran = Command::new("rg")
        .args(["--no-config", "--threads=1", "-c"])
        .args(mode)
        .arg("-f")
        .arg(patterns)
        .arg(log)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let took = begun.elapsed().as_secs_f64();
    // 1 is no match, which is no failure.
    ran.ok().filter(|status| matches!(status.code(), Some(0 | 1))).map(|_| took)
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
        median(&times).map_or(0.0, rounded)
    };
    let row = |(name, piece): &(&str, &str)| {
        let (short, long) = (of(piece, LINE_BYTES / 4), of(piece, LINE_BYTES));
        ((*name).to_owned(), json!({ "n": short, "4n": long, "ratio": rounded(long / short.max(1e-9)) }))
    };
    HOSTILE.iter().map(row).collect::<serde_json::Map<_, _>>().into()
}

/// A contender's rate, ours against it, and how long it takes to start.
fn beside(times: &[f64], own: &[f64], lines: usize, start: Option<f64>) -> Value {
    let (Some(theirs), Some(ours)) = (median(times), median(own)) else { return Value::Null };
    // Pairs of one round, in their order.
    let ratios: Vec<f64> = times.iter().zip(own).map(|(theirs, own)| theirs / own).collect();
    json!({
        "lines_per_second": rate(times, lines),
        "start_ms": start.map(|seconds| rounded(seconds * 1e3)),
        "ours_against_it": { "median": rounded(theirs / ours), "min": rounded(least(&ratios)), "max": rounded(most(&ratios)) },
    })
}

fn rate(times: &[f64], lines: usize) -> Value {
    let per_second = |seconds: f64| (lines as f64 / seconds.max(1e-9)).round();
    json!({ "median": median(times).map(per_second), "min": per_second(most(times)), "max": per_second(least(times)) })
}

fn median(times: &[f64]) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
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
        let counts: Vec<u64> = seen.findings.iter().map(|finding| finding.count).collect();
        assert_eq!(counts, [2, 2, 2, 2, 2], "{:?}", seen.findings);
    }

    #[test]
    fn what_is_planted_and_not_found_is_a_fault() {
        assert_eq!(CliError::Missed { found: 0, planted: 5 }.exit(), Exit::Fault);
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!((median(&[]), median(&[3.0, 1.0, 2.0]), median(&[1.0, 2.0])), (None, Some(2.0), Some(1.5)));
    }
}
