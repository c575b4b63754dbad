//! What is replayed, and what came of it.

use super::nodes::Nodes;
use crate::scheduler::certificate::Subject;

/// One gang job of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// When it was submitted, seconds.
    pub submit_s: u64,
    /// How long it runs with all its GPUs, seconds; at least 1. Only the
    /// simulator knows it, and policies that say so.
    pub run_s: u64,
    /// The longest that it may run, seconds, as told at submission; at least `run_s`.
    pub limit_s: u64,
    /// GPUs, all or nothing; at least 1.
    pub gpus: u32,
    /// Who asks: a tenant, a virtual cluster.
    pub owner: u32,
}

impl Job {
    /// What a checker of certificates is told about it.
    pub fn subject(&self) -> Subject {
        Subject { gpus: self.gpus, owner: self.owner, submit_s: self.submit_s }
    }
}

/// What jobs are replayed on.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// Equal nodes.
    pub nodes: Nodes,
    /// What a stop costs whom it stops, seconds: with its next start it holds its
    /// GPUs so long before it works on. The same for every policy.
    pub restart_s: u64,
    /// GPUs that an owner may hold at once; nothing for no bound. Honored by the
    /// policies that do not preempt.
    pub quotas: Vec<Option<u32>>,
}

/// What came of one replay. Lists are in order of the jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// When each job first had its GPUs, seconds.
    pub start_s: Vec<u64>,
    /// When each job ended, seconds.
    pub end_s: Vec<u64>,
    /// Each job's longest stretch without GPUs, seconds.
    pub stretch_s: Vec<u64>,
    /// Stops that made room for others, of each job.
    pub stops: Vec<u32>,
    /// Moves of running jobs to other nodes, which cost a restart each.
    pub moves: u64,
    /// GPU-seconds lost with restarts.
    pub lost_gpu_s: u64,
    /// The first start promised to each job that ever had a promise, seconds.
    pub promised_s: Vec<Option<u64>>,
}

impl Outcome {
    pub(super) fn of(n: usize) -> Self {
        Self {
            start_s: vec![0; n],
            end_s: vec![0; n],
            stretch_s: vec![0; n],
            stops: vec![0; n],
            promised_s: vec![None; n],
            ..Self::default()
        }
    }
}

/// Figures of a replay; times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// From submission to end, mean.
    pub mean_jct_s: f64,
    /// The same, the middle job.
    pub median_jct_s: u64,
    /// The same, exceeded by one job of a hundred.
    pub p99_jct_s: u64,
    /// From the first submission to the last end.
    pub makespan_s: u64,
    /// From submission to end without the run time, mean.
    pub mean_wait_s: f64,
    /// The same, the worst job.
    pub max_wait_s: u64,
    /// The longest that any job stood still in one stretch.
    pub max_stretch_s: u64,
    /// Jobs that were stopped for others, each time.
    pub preemptions: u64,
    /// Stops of the job that was stopped most.
    pub max_preemptions: u32,
    /// Moves to other nodes.
    pub moves: u64,
    /// GPU time lost with restarts, percent of the work.
    pub lost_percent: f64,
}

impl Outcome {
    /// The figures; nothing for no jobs.
    pub fn summary(&self, jobs: &[Job]) -> Option<Summary> {
        let first = jobs.iter().map(|job| job.submit_s).min()?;
        let mut jct: Vec<u64> = jobs.iter().zip(&self.end_s).map(|(job, end)| end - job.submit_s).collect();
        let n = jct.len();
        let waits = || jobs.iter().zip(&jct).map(|(job, jct)| jct - job.run_s);
        let (wait_sum, max_wait_s) = (waits().sum::<u64>(), waits().max()?);
        let mean_jct_s = jct.iter().sum::<u64>() as f64 / n as f64;
        jct.sort_unstable();
        let work: u64 = jobs.iter().map(|job| job.run_s * u64::from(job.gpus)).sum();
        Some(Summary {
            mean_jct_s,
            median_jct_s: jct[n / 2],
            p99_jct_s: jct[(n * 99 / 100).min(n - 1)],
            makespan_s: self.end_s.iter().max()? - first,
            mean_wait_s: wait_sum as f64 / n as f64,
            max_wait_s,
            max_stretch_s: self.stretch_s.iter().copied().max()?,
            preemptions: self.stops.iter().map(|stops| u64::from(*stops)).sum(),
            max_preemptions: self.stops.iter().copied().max()?,
            moves: self.moves,
            lost_percent: self.lost_gpu_s as f64 * 100.0 / work.max(1) as f64,
        })
    }

    /// Work done from the first to the last submission over what so many GPUs
    /// could do meanwhile, percent. For replays without preemption.
    pub fn utilization_percent(&self, jobs: &[Job], capacity: u32) -> f64 {
        let first = jobs.iter().map(|job| job.submit_s).min().unwrap_or(0);
        let last = jobs.iter().map(|job| job.submit_s).max().unwrap_or(0);
        let spans = self.start_s.iter().zip(&self.end_s).zip(jobs);
        let done: u64 = spans.map(|((from, to), job)| (to.min(&last) - from.min(&last)) * u64::from(job.gpus)).sum();
        done as f64 * 100.0 / ((last - first).max(1) as f64 * f64::from(capacity.max(1)))
    }
}
