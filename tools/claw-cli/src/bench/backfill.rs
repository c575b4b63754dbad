//! `claw bench backfill`: promised starts and backfill on a seeded trace, each decision checked.

use std::time::Instant;

use claw_gateway::scheduler::certificate::faults::{Kind, is_found, plant};
use claw_gateway::scheduler::certificate::{Checker, Claim, Quota};
use claw_gateway::scheduler::jobs::{Fleet, Job, Outcome, Policy, replay, sample, sample_history};
use serde_json::{Value, json};

use super::{FleetOptions, rounded};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Screen;

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillOptions {
    /// Jobs of the trace.
    pub jobs: usize,
    /// What they offer of the fleet on average, percent.
    pub load_percent: u64,
    /// Of the trace and of the faults.
    pub seed: u64,
    /// Faults that are planted, of each kind.
    pub faults: u64,
    /// What jobs run on.
    pub fleet: FleetOptions,
}

/// What the checker counted.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    decisions: u64,
    rejected: u64,
    partial_gangs: u64,
    delayed: u64,
}

/// Replays and prints one line.
pub(crate) fn backfill(options: &BackfillOptions, screen: &Screen) -> Result<Exit, CliError> {
    let fleet = options.fleet.build();
    let jobs = sample(options.jobs, fleet.nodes.capacity(), options.load_percent, options.seed);
    let policies = [Policy::Reserve, Policy::Easy, Policy::Fifo, Policy::Greedy];
    let lines: Vec<(Value, f64)> = policies.iter().map(|policy| one(*policy, &jobs, &fleet, options)).collect();
    let (planted, missed) = faults(options);
    let below_easy = (lines[1].1 - lines[0].1) * 100.0 / lines[1].1.max(1e-9);
    let line = json!({
        "jobs": options.jobs,
        "gpus": fleet.nodes.capacity(),
        "gpus_per_node": options.fleet.gpus_per_node,
        "load_percent": options.load_percent,
        "seed": options.seed,
        "reserve": lines[0].0,
        "easy": lines[1].0,
        "fifo": lines[2].0,
        "greedy": lines[3].0,
        "utilization_below_easy_percent": rounded(below_easy),
        "fault_kinds": Kind::ALL.len(),
        "faults_planted": planted,
        "faults_missed": missed,
    });
    if screen.is_json() {
        screen.print(&format!("{line}\n"))?;
    } else {
        screen.print(&words(&line))?;
    }
    let bad = |name: &str| ["rejected", "partial_gangs", "delayed_starts"].iter().any(|what| line[name][what] != 0);
    let all_good = !["reserve", "easy", "fifo", "greedy"].into_iter().any(bad);
    let all_planted = planted == options.faults * Kind::ALL.len() as u64;
    Ok(if missed == 0 && all_planted && all_good { Exit::Ok } else { Exit::Fault })
}

fn one(policy: Policy, jobs: &[Job], fleet: &Fleet, options: &BackfillOptions) -> (Value, f64) {
    let begun = Instant::now();
    let outcome = replay(jobs, fleet, policy, None);
    let seconds = begun.elapsed().as_secs_f64();
    let mut checker = checker(jobs, fleet, options.fleet.gpus_per_node);
    let mut count = Count::default();
    let mut see = |claim: Claim| judge(&mut checker, jobs, &claim, &mut count);
    let again = replay(jobs, fleet, policy, Some(&mut see));
    count.delayed = late(&again);
    let utilization = outcome.utilization_percent(jobs, fleet.nodes.capacity());
    let summary = outcome.summary(jobs);
    let line = json!({
        "utilization_percent": rounded(utilization),
        "large_mean_wait_s": large_wait(jobs, &outcome),
        "mean_jct_s": summary.map(|summary| rounded(summary.mean_jct_s)),
        "max_wait_s": summary.map(|summary| summary.max_wait_s),
        "promised": outcome.promised_s.iter().flatten().count(),
        "delayed_starts": count.delayed,
        "partial_gangs": count.partial_gangs,
        "decisions": count.decisions,
        "rejected": count.rejected,
        "replay_seconds": rounded(seconds),
    });
    (line, utilization)
}

fn checker(jobs: &[Job], fleet: &Fleet, per_node: u32) -> Checker {
    let n_nodes = (fleet.nodes.capacity() / per_node.max(1)) as usize;
    let quotas = fleet.quotas.iter().map(|most| Quota { parent: None, most: *most }).collect();
    Checker::new(n_nodes, per_node, jobs.iter().map(Job::subject).collect(), quotas)
}

fn judge(checker: &mut Checker, jobs: &[Job], claim: &Claim, count: &mut Count) {
    count.decisions += 1;
    count.rejected += u64::from(checker.check(claim).is_err());
    if let Claim::Start { job, gang, .. } = claim {
        let has: u32 = gang.iter().map(|part| part.gpus.count_ones()).sum();
        count.partial_gangs += u64::from(jobs.get(*job as usize).is_none_or(|job| job.gpus != has));
    }
}

/// How long the jobs of the largest size waited, mean, seconds.
fn large_wait(jobs: &[Job], outcome: &Outcome) -> Option<f64> {
    let size = jobs.iter().map(|job| job.gpus).max()?;
    let large = jobs.iter().zip(&outcome.start_s).filter(|(job, _)| job.gpus == size);
    let waits: Vec<u64> = large.map(|(job, start)| start - job.submit_s).collect();
    Some(rounded(waits.iter().sum::<u64>() as f64 / waits.len().max(1) as f64))
}

/// Jobs that started after they were first promised to.
fn late(outcome: &Outcome) -> u64 {
    let both = outcome.promised_s.iter().zip(&outcome.start_s);
    both.filter(|(promised, start)| promised.is_some_and(|promised| **start > promised)).count() as u64
}

/// Plants faults of every kind into histories of their own; how many, and how many of them were
/// not found where they stand and for what they are.
fn faults(options: &BackfillOptions) -> (u64, u64) {
    let (mut planted, mut missed) = (0, 0);
    for round in 0..options.faults {
        let seed = options.seed.wrapping_mul(1_000).wrapping_add(round);
        let (world, history) = sample_history(seed);
        for kind in Kind::ALL {
            let Some((bad, at)) = plant(*kind, &history, &world, seed) else { continue };
            planted += 1;
            missed += u64::from(!is_found(*kind, &bad, at, &mut world.checker()));
        }
    }
    (planted, missed)
}

fn words(line: &Value) -> String {
    let of = |name: &str| {
        let one = &line[name];
        format!(
            "{name}: {} % in use, {} s from submission to end, waits of {} s at most; {} starts promised, {} late; \
             {} decisions, {} rejected; {} s\n",
            one["utilization_percent"],
            one["mean_jct_s"],
            one["max_wait_s"],
            one["promised"],
            one["delayed_starts"],
            one["decisions"],
            one["rejected"],
            one["replay_seconds"],
        )
    };
    let faults = format!(
        "{} faults of {} kinds planted, {} missed; {} % of utilization below EASY\n",
        line["faults_planted"], line["fault_kinds"], line["faults_missed"], line["utilization_below_easy_percent"]
    );
    of("reserve") + &of("easy") + &of("fifo") + &of("greedy") + &faults
}
