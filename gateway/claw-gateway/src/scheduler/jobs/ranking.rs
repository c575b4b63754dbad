//! In which order jobs run, for policies that may stop one for another.

use super::job::Job;

/// What a policy is shown of a job when it ranks it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing<'a> {
    /// The job. A policy that is not clairvoyant looks at its owner and its GPUs alone.
    pub(super) job: &'a Job,
    /// Work done, seconds; restarts do not count.
    pub(super) attained_s: u64,
    /// What is left to pay for the last stop, seconds.
    pub(super) restart_s: u64,
}

/// A rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rank {
    /// Lower runs first, and only a lower one may stop a job. Zero is kept for
    /// those whose patience is at its end.
    pub(super) level: u64,
    /// After so many seconds of work it may be another one.
    pub(super) holds_s: Option<u64>,
}

/// How long a job may stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// After so many seconds in one stretch it goes before all others.
    pub(super) wait_s: u64,
    /// Then nobody stops it for so many seconds.
    pub(super) run_s: u64,
}

/// How a policy stops and moves jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manners {
    /// A job that has just started is left alone for so many seconds.
    pub(super) min_run_s: u64,
    /// Small jobs are moved together where that makes a place for a larger one.
    pub(super) moves: bool,
    /// Bound of waiting.
    pub(super) patience: Option<Patience>,
}

impl Manners {
    /// As the literature has it: stop whom one likes, move nobody.
    pub(super) const PLAIN: Self = Self { min_run_s: 0, moves: false, patience: None };
}

/// An order of jobs, which may change with the work they have done and with
/// what others have shown.
pub(super) trait Ranking {
    /// The rank of a job.
    fn rank(&self, standing: Standing<'_>) -> Rank;
    /// The rank of a running job changes between the times that [`Rank::holds_s`] names.
    fn drifts(&self) -> bool {
        false
    }
    /// A job has worked from one second of its run to another.
    fn worked(&mut self, _job: &Job, _from_s: u64, _to_s: u64) {}
    /// A job has come to its end after so much work.
    fn ended(&mut self, _job: &Job, _after_s: u64) {}
    /// Another number when every rank may be another one.
    fn edition(&self) -> u64 {
        0
    }
}

/// Two-dimensional least attained service (Gu et al., "Tiresias", NSDI 2019):
/// queues by GPU-seconds attained, first come first served within one.
#[derive(Debug, Clone)]
pub(super) struct LeastAttained {
    limits_gpu_s: Vec<u64>,
}

impl LeastAttained {
    /// Queues that end at these GPU-seconds, ascending; the last one has no end.
    pub(super) fn new(limits_gpu_s: Vec<u64>) -> Self {
        Self { limits_gpu_s }
    }

    /// `n` limits from `first` on, each `ratio` thousandths of the one before.
    pub(super) fn growing(first: u64, ratio_milli: u64, n: usize) -> Self {
        let next = |limit: &u64| Some(limit.saturating_mul(ratio_milli) / 1_000);
        Self::new(std::iter::successors(Some(first), next).take(n).collect())
    }
}

impl Ranking for LeastAttained {
    fn rank(&self, standing: Standing<'_>) -> Rank {
        let gpus = u64::from(standing.job.gpus);
        let attained = standing.attained_s * gpus;
        let queue = self.limits_gpu_s.partition_point(|limit| *limit <= attained);
        let holds_s = self.limits_gpu_s.get(queue).map(|limit| (limit - attained).div_ceil(gpus));
        Rank { level: 1 + queue as u64, holds_s }
    }
}

/// Shortest remaining work first, by an oracle that knows every run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShortestRemaining {
    /// Seconds.
    Time,
    /// Seconds times GPUs.
    Service,
}

impl Ranking for ShortestRemaining {
    fn rank(&self, standing: Standing<'_>) -> Rank {
        let left_s = standing.job.run_s.saturating_sub(standing.attained_s) + standing.restart_s;
        let left = match self {
            Self::Time => left_s,
            Self::Service => left_s * u64::from(standing.job.gpus),
        };
        Rank { level: 1 + left, holds_s: None }
    }

    fn drifts(&self) -> bool {
        true
    }
}
