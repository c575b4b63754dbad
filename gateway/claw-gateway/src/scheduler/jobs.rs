//! Replaying a trace of gang jobs: who waits, who runs, who is stopped for whom.
//!
//! A model of its own, apart from the fleet: equal nodes with numbered GPUs, jobs
//! with a size and a run time, seconds as whole numbers. One simulator for all
//! policies, so that what a policy gains is the policy's: gangs start whole or
//! not at all, a gang of at most one node's GPUs stands on one node, and whoever
//! is stopped or moved pays the same restart with its next start.
//!
//! What each policy knows stands at [`Policy`]. Only those that say so know run
//! times or limits.

mod backfill;
pub mod eta;
mod job;
mod learned;
mod life_table;
mod nodes;
mod preemptive;
mod ranking;
mod room;
mod sample;
#[cfg(test)]
mod tests;
mod timeline;

use claw_proto::closed_enum;

use crate::scheduler::certificate::Claim;
pub use backfill::{Present, Rules};
pub use job::{Fleet, Job, Outcome, Summary};
use learned::Learned;
pub use nodes::{GPUS_PER_NODE_MAX, Gang, Nodes};
use ranking::{LeastAttained, Manners, ShortestRemaining};
pub use sample::{sample, sample_history};

/// Jobs at the head of the queue that have a promised start.
const PROMISES: usize = 8;

closed_enum! {
    /// Who runs first.
    Policy {
        /// Ours: an index over what each job has run, learned from the jobs of its
        /// owner and size that ran before; moves small jobs together for larger
        /// ones; stops nobody in the first quarter of an hour, and lets nobody
        /// stand still much longer than a week. Knows no run time and no limit.
        Ours = "ours",
        /// Two-dimensional least attained service (Tiresias) with fine queues: from
        /// 600 GPU-seconds on, each 1.3 times the one before; the best we found.
        /// Knows no run time and no limit.
        Las = "las",
        /// The same with two queues, up to 16 GPU-hours and above. Knows no run time and no limit.
        LasTwoQueues = "las_two_queues",
        /// As `las`, and moves jobs together as ours does, without its other manners.
        LasMoving = "las_moving",
        /// First come first served, nobody before his turn. Knows nothing.
        Fifo = "fifo",
        /// First come first served as far as there is room, and whoever fits goes
        /// ahead: nothing is kept for anybody. Knows nothing.
        Greedy = "greedy",
        /// First come first served with EASY backfill (Lifka, 1995): the head of the queue has a
        /// promised start, others go ahead if they do not delay it. Knows every
        /// limit; in a trace without limits these are the run times.
        Easy = "easy",
        /// The first 8 of the queue have promised starts. Knows every limit.
        Reserve = "reserve",
        /// Clairvoyant: shortest remaining time first. Knows every run time.
        Srpt = "srpt",
        /// Clairvoyant: least remaining time times GPUs first. Knows every run time.
        Srsf = "srsf",
        /// As `srsf`, and moves jobs together as ours does: the nearest to a bound that is simulated.
        SrsfMoving = "srsf_moving"
    }
}

impl Policy {
    /// What it knows of a job beyond its owner, its GPUs and what it has run so far.
    pub const fn knows(self) -> &'static str {
        match self {
            Self::Ours => "the run times of jobs that have ended",
            Self::Las | Self::LasTwoQueues | Self::LasMoving | Self::Fifo | Self::Greedy => "nothing",
            Self::Easy | Self::Reserve => "every limit (the run time in a trace without limits)",
            Self::Srpt | Self::Srsf | Self::SrsfMoving => "every run time",
        }
    }
}

/// Replays jobs, which are in order of submission. `observer` is told of every decision.
///
/// # Panics
///
/// If a job asks for no GPU or for more than the fleet has: it would wait for ever.
pub fn replay<'a>(
    jobs: &'a [Job],
    fleet: &Fleet,
    policy: Policy,
    observer: Option<&'a mut dyn FnMut(Claim)>,
) -> Outcome {
    assert!(jobs.iter().all(|job| fleet.nodes.could_hold(job.gpus) && job.run_s >= 1), "every job fits and runs");
    assert!(jobs.is_sorted_by_key(|job| job.submit_s), "jobs are in order of submission");
    let moving = Manners { moves: true, ..Manners::PLAIN };
    let fine = || LeastAttained::growing(600, 1_300, 50);
    match policy {
        Policy::Ours => preemptive::replay(jobs, fleet, learned::MANNERS, Learned::new(), observer),
        Policy::Las => preemptive::replay(jobs, fleet, Manners::PLAIN, fine(), observer),
        Policy::LasTwoQueues => {
            preemptive::replay(jobs, fleet, Manners::PLAIN, LeastAttained::new(vec![16 * 3_600]), observer)
        }
        Policy::LasMoving => preemptive::replay(jobs, fleet, moving, fine(), observer),
        Policy::Fifo => backfill::replay(jobs, fleet, Rules { promises: 0, backfill: false }, observer),
        Policy::Greedy => backfill::replay(jobs, fleet, Rules { promises: 0, backfill: true }, observer),
        Policy::Easy => backfill::replay(jobs, fleet, Rules { promises: 1, backfill: true }, observer),
        Policy::Reserve => backfill::replay(jobs, fleet, Rules { promises: PROMISES, backfill: true }, observer),
        Policy::Srpt => preemptive::replay(jobs, fleet, Manners::PLAIN, ShortestRemaining::Time, observer),
        Policy::Srsf => preemptive::replay(jobs, fleet, Manners::PLAIN, ShortestRemaining::Service, observer),
        Policy::SrsfMoving => preemptive::replay(jobs, fleet, moving, ShortestRemaining::Service, observer),
    }
}
