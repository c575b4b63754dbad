//! When a waiting job will start: the queue, run ahead.
//!
//! With run times that are known the forecast is the future: where everybody
//! who waits has a promised start nobody who comes later can change it. With
//! run times that are known within a margin the queue is run ahead many times,
//! each with run times drawn within the margin (and, for what runs, beyond what
//! it has run already); the interval holds nine of ten of the starts.

use super::backfill::{self, Present, Rules};
use super::job::{Fleet, Job};
use crate::scheduler::packing::replay::Draws;

/// How well run times are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Margin {
    /// A run time lies within so many percent of what is expected, anywhere.
    pub percent: u64,
    /// Futures that are looked at; one is enough without a margin.
    pub futures: u32,
    /// Of the draws.
    pub seed: u64,
}

impl Margin {
    /// Run times are known.
    pub const NONE: Self = Self { percent: 0, futures: 1, seed: 0 };
}

/// When a job will start, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eta {
    /// Job, by its number.
    pub job: u32,
    /// As likely earlier as later.
    pub likely_s: u64,
    /// One in twenty starts is earlier.
    pub from_s: u64,
    /// One in twenty starts is later.
    pub to_s: u64,
}

/// Nine of ten of some starts, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// One in twenty is earlier.
    pub from_s: u64,
    /// As many are earlier as later.
    pub likely_s: u64,
    /// One in twenty is later.
    pub to_s: u64,
}

/// What holds nine of ten of these starts; nothing of none.
pub fn nine_of_ten(mut starts: Vec<u64>) -> Option<Interval> {
    starts.sort_unstable();
    let last = starts.len().checked_sub(1)?;
    let at = |percent: usize| starts[last * percent / 100];
    // The upper end is rounded outward, as the lower one is.
    Some(Interval { from_s: at(5), likely_s: at(50), to_s: starts[last - last * 5 / 100] })
}

/// What runs and waits at a time of a trace.
pub fn present(jobs: &[Job], fleet: &Fleet, rules: Rules, at_s: u64) -> Present {
    backfill::present(jobs, fleet, rules, at_s)
}

/// When each waiting job will start. `jobs` are those of the trace, each with the
/// run time that is expected of it.
pub fn forecast(jobs: &[Job], fleet: &Fleet, rules: Rules, present: &Present, margin: Margin) -> Vec<Eta> {
    let promised = present.promised.iter().map(|(job, ..)| *job);
    let waiting: Vec<u32> = promised.chain(present.waiting.iter().copied()).collect();
    let mut draws = Draws::new(margin.seed);
    let mut starts: Vec<Vec<u64>> = vec![Vec::new(); waiting.len()];
    for _ in 0..margin.futures.max(1) {
        let future = drawn(jobs, present, margin.percent, &mut draws);
        let outcome = backfill::go_on(&future, fleet, rules, present);
        for (job, starts) in waiting.iter().zip(&mut starts) {
            starts.push(outcome.start_s[*job as usize]);
        }
    }
    let eta = |(job, starts): (&u32, Vec<u64>)| {
        let Interval { from_s, likely_s, to_s } = nine_of_ten(starts)?;
        Some(Eta { job: *job, likely_s, from_s, to_s })
    };
    waiting.iter().zip(starts).filter_map(eta).collect()
}

/// The jobs with run times drawn within the margin.
fn drawn(jobs: &[Job], present: &Present, percent: u64, draws: &mut Draws) -> Vec<Job> {
    let mut future = jobs.to_vec();
    let mut has_run = vec![0; jobs.len()];
    for (job, since_s, _) in &present.running {
        has_run[*job as usize] = present.now_s - since_s;
    }
    for (job, has_run_s) in future.iter_mut().zip(has_run) {
        let spread_s = job.run_s * percent / 100;
        let longest_s = (job.run_s + spread_s).min(job.limit_s).max(has_run_s + 1);
        let shortest_s = (job.run_s - spread_s).max(has_run_s + 1).max(1);
        let width = usize::try_from(longest_s - shortest_s.min(longest_s)).unwrap_or(usize::MAX - 1);
        job.run_s = shortest_s.min(longest_s) + draws.below(width + 1) as u64;
    }
    future
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::jobs::{Nodes, sample};

    fn fleet() -> Fleet {
        Fleet { nodes: Nodes::new(64, 8), restart_s: 60, quotas: Vec::new() }
    }

    /// What came of all of them where everybody who waits has a promised start.
    fn actual(jobs: &[Job]) -> Vec<u64> {
        backfill::replay(jobs, &fleet(), Rules::CONSERVATIVE, None).start_s
    }

    #[test]
    fn known_run_times_give_the_exact_start_of_500_jobs() {
        let mut jobs = sample(500, 64, 110, 3);
        for job in &mut jobs {
            job.limit_s = job.run_s;
        }
        let starts = actual(&jobs);
        let mut waited = 0;
        for (at, job) in (0_u32..).zip(&jobs) {
            // as it was submitted, knowing nothing of who comes later
            let now = present(&jobs[..=at as usize], &fleet(), Rules::CONSERVATIVE, job.submit_s);
            let etas = forecast(&jobs[..=at as usize], &fleet(), Rules::CONSERVATIVE, &now, Margin::NONE);
            match etas.iter().find(|eta| eta.job == at) {
                Some(eta) => {
                    waited += 1;
                    assert_eq!(
                        (eta.from_s, eta.likely_s, eta.to_s),
                        (starts[at as usize], starts[at as usize], starts[at as usize])
                    );
                }
                None => assert_eq!(starts[at as usize], job.submit_s),
            }
        }
        assert!(waited > 250, "{waited}");
    }

    #[test]
    fn nine_of_ten_starts_are_in_the_interval_with_a_fifth_of_noise() {
        let (mut inside, mut n) = (0_u32, 0_u32);
        for seed in 0..40 {
            // what is expected of 500 jobs, and limits that the noise stays within
            let mut expected = sample(500, 64, 105, 100 + seed);
            let mut draws = Draws::new(seed);
            for job in &mut expected {
                job.run_s = job.run_s.max(50);
                job.limit_s = job.run_s * 12 / 10;
            }
            let mut real = expected.clone();
            for job in &mut real {
                job.run_s = job.run_s * 8 / 10 + draws.below(usize::try_from(job.run_s * 4 / 10).unwrap() + 1) as u64;
                job.run_s = job.run_s.min(job.limit_s);
            }
            let starts = actual(&real);
            let now_s = real[150 + draws.below(300)].submit_s;
            let now = present(&real, &fleet(), Rules::CONSERVATIVE, now_s);
            let margin = Margin { percent: 20, futures: 80, seed };
            for eta in forecast(&expected, &fleet(), Rules::CONSERVATIVE, &now, margin) {
                n += 1;
                inside += u32::from((eta.from_s..=eta.to_s).contains(&starts[eta.job as usize]));
            }
        }
        let covered = f64::from(inside) / f64::from(n);
        println!("{inside} of {n} starts inside: {covered:.3}");
        assert!(n >= 500, "{n}");
        assert!((0.85..=0.95).contains(&covered), "{inside} of {n}: {covered}");
    }
}
