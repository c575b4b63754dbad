//! `claw bench scan`: how fast log lines are read for faults, beside ripgrep where there is one.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use claw_observe::Observer;
use claw_observe::diagnose::rules::Rules;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;

/// Healthy lines as they stand in logs; every thousandth is a fault.
const HEALTHY: [&str; 6] = [
    "2026-01-02T03:04:05.123456Z stdout F step=1200 loss=2.113 grad_norm=0.42 tokens/s=181233 lr=3.0e-4 mem=71.2GB",
    "[ 4711.123456] audit: type=1400 audit(1767225845.123:42): apparmor=\"STATUS\" operation=\"profile_load\"",
    "node1:4242:4243 [3] NCCL INFO Channel 03/0 : 3[3] -> 4[4] via P2P/CUMEM/read",
    "INFO 07-10 14:48:13 [loggers.py:111] Engine 000: Avg prompt throughput: 812.4 tokens/s, Running: 31 reqs",
    "192.0.2.17 - - [02/Jan/2026:03:04:05 +0000] \"POST /v1/chat/completions HTTP/1.1\" 200 1834",
    "I0102 03:04:05.678901    1234 kubelet.go:2456] \"SyncLoop (PLEG): event for pod\" pod=\"ml/train-7\"",
];
const FAULT: &str = "[ 4711.654321] NVRM: Xid (PCI:0000:3b:00): 31, pid=4242, name=python3, Ch 00000008, intr 00000000";

/// Scans `lines` generated lines, and prints what it took.
pub(crate) fn run(lines: usize, screen: &Screen) -> Result<Exit, CliError> {
    let mut text = String::with_capacity(lines * 110);
    for index in 0..lines {
        let healthy = HEALTHY.get(index % HEALTHY.len()).copied().unwrap_or_default();
        text.push_str(if index % 1_000 == 999 { FAULT } else { healthy });
        text.push('\n');
    }
    let rules = Rules::built_in();
    // The rules are compiled before the clock starts.
    let mut warm = Observer::new(rules, "warm");
    warm.text(FAULT);
    let begun = Instant::now();
    let mut observer = Observer::new(rules, "generated");
    observer.text(&text);
    let seconds = begun.elapsed().as_secs_f64();
    let seen = observer.finish();
    let per_second = |seconds: f64| (lines as f64 / seconds.max(1e-9)).round();
    let mut line = json!({
        "lines": seen.lines,
        "bytes": text.len(),
        "found": seen.findings.iter().map(|finding| finding.count).sum::<u64>(),
        "ms_per_10000_lines": (seconds * 1e4 / lines.max(1) as f64 * 1e3 * 1e3).round() / 1e3,
        "lines_per_second": per_second(seconds),
        "literals": rules.literals().len(),
    });
    line["ripgrep"] =
        ripgrep(&text, &rules.literals())?.map_or(Value::Null, |took| json!({ "lines_per_second": per_second(took) }));
    screen.print(&format!("{line}\n"))?;
    Ok(Exit::Ok)
}

/// Seconds that `rg` takes to count the lines with any of the same texts; none without `rg`.
fn ripgrep(text: &str, literals: &[String]) -> Result<Option<f64>, CliError> {
    let folder = std::env::temp_dir().join(format!("claw-bench-scan-{}", std::process::id()));
    let failed = |path: PathBuf| move |source: io::Error| CliError::File { path, source };
    fs::create_dir_all(&folder).map_err(failed(folder.clone()))?;
    let (log, patterns) = (folder.join("log"), folder.join("patterns"));
    fs::write(&log, text).map_err(failed(log.clone()))?;
    fs::write(&patterns, literals.join("\n")).map_err(failed(patterns.clone()))?;
    let begun = Instant::now();
    let ran = Command::new("rg")
        .args(["--no-config", "--threads=1", "-c", "-i", "-F", "-f"])
        .arg(&patterns)
        .arg(&log)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let took = begun.elapsed().as_secs_f64();
    fs::remove_dir_all(&folder).map_err(failed(folder.clone()))?;
    Ok(ran.is_ok_and(|status| status.success()).then_some(took))
}
