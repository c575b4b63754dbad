//! `claw bench jct`: replays a trace of gang jobs with one policy of the queue.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use claw_gateway::scheduler::jobs::{Fleet, Job, Policy, Summary, replay};
use flate2::read::GzDecoder;
use jiff::civil::DateTime;
use serde_json::{Value, json};

use super::{FleetOptions, rounded};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;

/// What is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JctOptions {
    /// Policy.
    pub policy: Policy,
    /// Jobs, with a header: `timestamp,duration,num_gpus`, and `cluster` and `limit` if there are.
    pub trace: PathBuf,
    /// What they run on.
    pub fleet: FleetOptions,
}

/// Replays and prints one line.
pub(crate) fn jct(options: &JctOptions, screen: &Screen) -> Result<Exit, CliError> {
    let fleet = options.fleet.build();
    let jobs = jobs(&options.trace, &fleet)?;
    let begun = Instant::now();
    let outcome = replay(&jobs, &fleet, options.policy, None);
    let seconds = begun.elapsed().as_secs_f64();
    let summary = outcome.summary(&jobs).ok_or(CliError::Usage("the trace needs at least one row below its header"))?;
    let line = line(options, &fleet, jobs.len(), &summary, seconds);
    if screen.is_json() {
        screen.print(&format!("{line}\n"))?;
    } else {
        screen.print(&words(&line))?;
    }
    Ok(Exit::Ok)
}

fn line(options: &JctOptions, fleet: &Fleet, n_jobs: usize, summary: &Summary, seconds: f64) -> Value {
    json!({
        "policy": options.policy,
        "knows": options.policy.knows(),
        "trace": options.trace.file_name().map(|name| name.to_string_lossy()),
        "gpus": fleet.nodes.capacity(),
        "gpus_per_node": options.fleet.gpus_per_node,
        "restart_s": fleet.restart_s,
        "jobs": n_jobs,
        "mean_jct_s": rounded(summary.mean_jct_s),
        "median_jct_s": summary.median_jct_s,
        "p99_jct_s": summary.p99_jct_s,
        "makespan_s": summary.makespan_s,
        "mean_wait_s": rounded(summary.mean_wait_s),
        "max_wait_s": summary.max_wait_s,
        "max_stretch_s": summary.max_stretch_s,
        "preemptions": summary.preemptions,
        "max_preemptions": summary.max_preemptions,
        "moves": summary.moves,
        "lost_percent": rounded(summary.lost_percent),
        "replay_seconds": rounded(seconds),
    })
}

fn words(line: &Value) -> String {
    format!(
        "{} on {} jobs and {} GPUs: {} s from submission to end (half within {}, 99 of 100 within {}), \
         all done after {} s; waits of {} s at most, {} in one stretch; {} stops and {} moves at {} s each; \
         knows {}; replayed in {} s\n",
        line["policy"].as_str().unwrap_or_default(),
        line["jobs"],
        line["gpus"],
        line["mean_jct_s"],
        line["median_jct_s"],
        line["p99_jct_s"],
        line["makespan_s"],
        line["max_wait_s"],
        line["max_stretch_s"],
        line["preemptions"],
        line["moves"],
        line["restart_s"],
        line["knows"].as_str().unwrap_or_default(),
        line["replay_seconds"],
    )
}

/// Reads a trace, packed or not, into the order of submission.
fn jobs(path: &Path, fleet: &Fleet) -> Result<Vec<Job>, CliError> {
    let text = text(path)?;
    let mut lines = (1_usize..).zip(text.lines());
    let header: Vec<&str> = lines.next().map_or_else(Vec::new, |(_, line)| line.split(',').map(str::trim).collect());
    let column = |name: &str| header.iter().position(|column| *column == name);
    let needed = |name: &'static str| {
        column(name).ok_or_else(|| wrong(path, 1, &format!("no column {name}"), "timestamp, duration and num_gpus"))
    };
    let (submit, duration, gpus) = (needed("timestamp")?, needed("duration")?, needed("num_gpus")?);
    let (owner, limit) = (column("cluster"), column("limit"));
    let mut owners: BTreeMap<&str, u32> = BTreeMap::new();
    let mut jobs = Vec::new();
    for (at, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let field = |column: usize| fields.get(column).copied().unwrap_or_default();
        let run_s = seconds(path, at, field(duration))?.max(1);
        let gpus: Option<u32> = field(gpus).parse().ok().filter(|gpus| fleet.nodes.could_hold(*gpus));
        let most = fleet.nodes.capacity();
        let n_owners = u32::try_from(owners.len()).unwrap_or(u32::MAX);
        jobs.push(Job {
            submit_s: time(path, at, field(submit))?,
            run_s,
            limit_s: limit.map_or(Ok(run_s), |column| seconds(path, at, field(column)))?.max(run_s),
            gpus: gpus.ok_or_else(|| wrong(path, at, "num_gpus", &format!("a whole number from 1 to {most}")))?,
            owner: *owners.entry(owner.map_or("", field)).or_insert(n_owners),
        });
    }
    jobs.sort_by_key(|job| job.submit_s);
    Ok(jobs)
}

fn text(path: &Path) -> Result<String, CliError> {
    let bytes = std::fs::read(path).map_err(|error| CliError::file(path, error))?;
    let mut text = String::new();
    let packed = bytes.starts_with(&[0x1f, 0x8b]);
    let read =
        if packed { GzDecoder::new(&*bytes).read_to_string(&mut text) } else { (&*bytes).read_to_string(&mut text) };
    read.map_err(|error| CliError::file(path, error))?;
    Ok(text)
}

/// Seconds as a whole number or with a fraction, which is cut.
fn seconds(path: &Path, line: usize, text: &str) -> Result<u64, CliError> {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    let seconds = whole.parse::<u64>().ok().filter(|seconds| u32::try_from(*seconds).is_ok());
    seconds.ok_or_else(|| wrong(path, line, &format!("{text:?}"), "seconds from 0 to 4294967295"))
}

/// A date and time without a zone, or seconds.
fn time(path: &Path, line: usize, text: &str) -> Result<u64, CliError> {
    if !text.contains('-') {
        return seconds(path, line, text);
    }
    let since_1970 = text.parse::<DateTime>().ok().and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC).ok());
    let since_1970 = since_1970.and_then(|at| u64::try_from(at.timestamp().as_second()).ok());
    since_1970.ok_or_else(|| wrong(path, line, &format!("{text:?}"), "YYYY-MM-DD HH:MM:SS from 1970 on, or seconds"))
}

fn wrong(path: &Path, line: usize, what: &str, allowed: &str) -> CliError {
    CliError::Malformed {
        what: path.display().to_string(),
        form: "CSV",
        why: format!("line {line}: {what}, allowed is {allowed}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use claw_gateway::scheduler::jobs::Nodes;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const TRACE: &str = "timestamp,duration,num_gpus,gpu_time,cluster\n\
                         2017-10-09 07:01:55,66.0,1,66.0,b\n\
                         2017-10-09 07:00:55,30.5,16,488.0,a\n";

    fn read(bytes: &[u8]) -> Result<Vec<Job>, CliError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.csv.gz");
        std::fs::write(&path, bytes).unwrap();
        jobs(&path, &Fleet { nodes: Nodes::new(16, 8), restart_s: 60, quotas: Vec::new() })
    }

    #[test]
    fn a_trace_is_sorted_packed_or_not() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(TRACE.as_bytes()).unwrap();
        let packed = read(&packer.finish().unwrap()).unwrap();
        assert_eq!(packed, read(TRACE.as_bytes()).unwrap());
        let submit_s = 1_507_532_455;
        let first = Job { submit_s, run_s: 30, limit_s: 30, gpus: 16, owner: 1 };
        let second = Job { submit_s: submit_s + 60, run_s: 66, limit_s: 66, gpus: 1, owner: 0 };
        assert_eq!(packed, [first, second]);
    }

    /// The hard line: at most nine tenths of least attained service, whose queues
    /// are the best that we found, and nobody stands still much longer than a week.
    #[test]
    fn ours_needs_nine_tenths_of_least_attained_service_at_most() {
        let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
        let path = Path::new(&here).join("../../../shared/data/jobtraces/philly.csv.gz");
        if !path.exists() {
            assert!(std::env::var_os("CLAW_SHARED").is_none(), "no {}, and the shared data are here", path.display());
            eprintln!("SKIPPED: no trace at {}", path.display());
            return;
        }
        for gpus in [480, 416] {
            let fleet = Fleet { nodes: Nodes::new(gpus, 8), restart_s: 60, quotas: Vec::new() };
            let jobs = jobs(&path, &fleet).unwrap();
            assert_eq!(jobs.len(), 82_247);
            let figures = |policy| replay(&jobs, &fleet, policy, None).summary(&jobs).unwrap();
            let (ours, las) = (figures(Policy::Ours), figures(Policy::Las));
            assert!(ours.mean_jct_s <= 0.9 * las.mean_jct_s, "{ours:?} {las:?}");
            assert!(ours.max_stretch_s <= 8 * 86_400, "{ours:?}");
        }
    }

    #[test]
    fn a_wrong_row_is_named() {
        for (text, what) in [
            ("timestamp,duration\n0,1\n", "no column num_gpus"),
            ("timestamp,duration,num_gpus\n0,1,17\n", "line 2: num_gpus, allowed is a whole number from 1 to 16"),
            ("timestamp,duration,num_gpus\nyesterday,1,1\n", "line 2: \"yesterday\""),
            ("timestamp,duration,num_gpus\n0,1,1\n2017-13-01 00:00:00,1,1\n", "line 3"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
