//! A seeded trace of gang jobs with time limits, for measuring reservation and backfill.

use super::job::{Fleet, Job};
use super::nodes::Nodes;
use super::{Policy, replay};
use crate::scheduler::certificate::faults::World;
use crate::scheduler::certificate::{Claim, Quota};
use crate::scheduler::packing::replay::Draws;

/// Sizes and how often they come, of a hundred: most jobs are small, most GPU time is not.
const SIZES: [(u32, usize); 9] = [(1, 40), (2, 15), (4, 14), (8, 14), (16, 8), (32, 5), (64, 2), (128, 1), (256, 1)];
/// The shortest and the longest run time, seconds.
const RUN_S: (u64, u64) = (60, 36 * 3_600);
/// What a limit is of the run time: people leave room.
const ROOM: [(u64, u64); 5] = [(1, 1), (5, 4), (3, 2), (2, 1), (4, 1)];
/// Owners.
const OWNERS: usize = 8;

/// A history of decisions with quotas that bind, promises, and work ahead of its turn: 160 jobs
/// on eight nodes of eight GPUs. Faults are planted into it.
pub fn sample_history(seed: u64) -> (World, Vec<Claim>) {
    let jobs = sample(160, 64, 130, seed);
    let quotas = vec![Some(16), Some(16), Some(24), None, None, Some(16), Some(32), None];
    let fleet = Fleet { nodes: Nodes::new(64, 8), restart_s: 60, quotas };
    let mut claims = Vec::new();
    replay(&jobs, &fleet, Policy::Reserve, Some(&mut |claim| claims.push(claim)));
    let quotas = fleet.quotas.iter().map(|most| Quota { parent: None, most: *most }).collect();
    (World { n_nodes: 8, per_node: 8, subjects: jobs.iter().map(Job::subject).collect(), quotas }, claims)
}

/// `n` jobs that offer `load_percent` of so many GPUs on average, in order of
/// submission. Nobody asks for more than a quarter of the GPUs.
pub fn sample(n: usize, gpus: u32, load_percent: u64, seed: u64) -> Vec<Job> {
    let mut draws = Draws::new(seed);
    let mut jobs: Vec<Job> = (0..n).map(|_| one(gpus, &mut draws)).collect();
    let work: u64 = jobs.iter().map(|job| job.run_s * u64::from(job.gpus)).sum();
    let span_s = work * 100 / (u64::from(gpus.max(1)) * load_percent.max(1));
    for job in &mut jobs {
        job.submit_s = draws.below(usize::try_from(span_s).unwrap_or(usize::MAX).max(1)) as u64;
    }
    jobs.sort_by_key(|job| job.submit_s);
    jobs
}

fn one(gpus: u32, draws: &mut Draws) -> Job {
    let mut at = draws.below(SIZES.iter().map(|(_, share)| share).sum());
    let size = SIZES.iter().find(|(_, share)| {
        let here = at < *share;
        at = at.saturating_sub(*share);
        here
    });
    // As many in each doubling of the run time.
    let doublings = (RUN_S.1 / RUN_S.0).ilog2() as usize;
    let shortest = RUN_S.0 << draws.below(doublings + 1);
    let run_s = (shortest + draws.below(usize::try_from(shortest).unwrap_or(1)) as u64).min(RUN_S.1);
    let (times, of) = ROOM[draws.below(ROOM.len())];
    let owner = u32::try_from(draws.below(OWNERS)).unwrap_or(0);
    let size = size.map_or(1, |(size, _)| *size).min((gpus / 4).max(1));
    Job { submit_s: 0, run_s, limit_s: run_s * times / of, gpus: size, owner }
}
