//! The checker: its own books, and none of the decider's code.

use std::collections::{BTreeMap, BTreeSet};

use super::{Claim, Part, Quota, Share, Stop, Subject};

/// Why a claim is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    /// It is dated before an earlier one.
    #[error("time runs backwards")]
    TimeBackwards,
    /// Nobody submitted this job.
    #[error("the job is unknown")]
    UnknownJob,
    /// The job starts before it was submitted.
    #[error("the job was not submitted yet")]
    NotSubmitted,
    /// The job runs already.
    #[error("the job runs already")]
    RunsAlready,
    /// The job has ended before.
    #[error("the job has ended")]
    HasEnded,
    /// The job does not run.
    #[error("the job does not run")]
    NotRunning,
    /// There is no such node, or no such GPU on it.
    #[error("there is no such GPU")]
    NoSuchGpu,
    /// A node is named twice in one gang.
    #[error("a node is named twice")]
    NodeTwice,
    /// The gang has fewer or more GPUs than the job asks for.
    #[error("the gang is not what the job asks for")]
    GangIncomplete,
    /// The gang stands on more nodes than it needs.
    #[error("the gang is scattered")]
    Scattered,
    /// A GPU has a user already.
    #[error("a GPU has two users")]
    DoubleBooked,
    /// An owner, or one above it, would hold more than it may.
    #[error("a quota is exceeded")]
    QuotaExceeded,
    /// What is promised would not have its GPUs, or its quota, at its time.
    #[error("a promise could not be kept")]
    PromiseDelayed,
    /// A promise moves to a later time, or into the past.
    #[error("a promise moves to a later time or into the past")]
    PromiseMoved,
    /// The promised time is past and the job has not started.
    #[error("a promise was not kept")]
    PromiseBroken,
    /// A job runs longer than it was said, or is said to end before it starts.
    #[error("a job runs longer than was said")]
    Overrun,
}

#[derive(Debug, Clone)]
struct Run {
    gang: Vec<Part>,
    until_s: u64,
}

#[derive(Debug, Clone)]
struct Promise {
    start_s: u64,
    until_s: u64,
    shares: Vec<Share>,
}

/// The books.
#[derive(Debug, Clone)]
pub struct Checker {
    per_node: u32,
    subjects: Vec<Subject>,
    quotas: Vec<Quota>,
    now_s: u64,
    used: Vec<u64>,
    running: BTreeMap<u32, Run>,
    ended: BTreeSet<u32>,
    promises: BTreeMap<u32, Promise>,
}

impl Checker {
    /// Empty nodes of so many GPUs (64 at most), the jobs by their numbers, and
    /// quotas by the numbers of owners; who has none there has no bound.
    pub fn new(n_nodes: usize, per_node: u32, subjects: Vec<Subject>, quotas: Vec<Quota>) -> Self {
        Self {
            per_node,
            subjects,
            quotas,
            now_s: 0,
            used: vec![0; n_nodes],
            running: BTreeMap::new(),
            ended: BTreeSet::new(),
            promises: BTreeMap::new(),
        }
    }

    /// Accepts a claim into the books, or says what is wrong with it; then the
    /// books are as before.
    pub fn check(&mut self, claim: &Claim) -> Result<(), Fault> {
        let (at_s, job) = match claim {
            Claim::Start { at_s, job, .. } | Claim::Halt { at_s, job, .. } | Claim::Promise { at_s, job, .. } => {
                (*at_s, *job)
            }
        };
        self.at(at_s)?;
        let subject = *self.subjects.get(job as usize).ok_or(Fault::UnknownJob)?;
        if self.ended.contains(&job) {
            return Err(Fault::HasEnded);
        }
        match claim {
            Claim::Start { gang, until_s, .. } => self.start(job, subject, gang, at_s, *until_s)?,
            Claim::Halt { why, .. } => self.halt(job, *why)?,
            Claim::Promise { start_s, until_s, shares, .. } => {
                let promise = Promise { start_s: *start_s, until_s: *until_s, shares: shares.clone() };
                self.promise(job, subject, at_s, promise)?;
            }
        }
        self.now_s = at_s;
        Ok(())
    }

    /// Nothing is overdue at this time, and time does not run backwards.
    pub fn at(&self, at_s: u64) -> Result<(), Fault> {
        if at_s < self.now_s {
            return Err(Fault::TimeBackwards);
        }
        if self.promises.values().any(|promise| promise.start_s < at_s) {
            return Err(Fault::PromiseBroken);
        }
        if self.running.values().any(|run| run.until_s < at_s) {
            return Err(Fault::Overrun);
        }
        Ok(())
    }

    /// GPUs in use.
    pub fn in_use(&self) -> u32 {
        self.used.iter().map(|used| used.count_ones()).sum()
    }

    fn start(&mut self, job: u32, subject: Subject, gang: &[Part], at_s: u64, until_s: u64) -> Result<(), Fault> {
        if at_s < subject.submit_s {
            return Err(Fault::NotSubmitted);
        }
        if self.running.contains_key(&job) {
            return Err(Fault::RunsAlready);
        }
        if until_s <= at_s {
            return Err(Fault::Overrun);
        }
        let per_node = self.per_node;
        if gang.iter().any(|part| per_node < 64 && part.gpus >> per_node != 0) {
            return Err(Fault::NoSuchGpu);
        }
        let shares: Vec<Share> =
            gang.iter().map(|part| Share { node: part.node, gpus: part.gpus.count_ones() }).collect();
        self.complete(subject, &shares)?;
        if gang.iter().any(|part| self.used[part.node as usize] & part.gpus != 0) {
            return Err(Fault::DoubleBooked);
        }
        if self.held(subject.owner, at_s, subject.gpus, None) {
            return Err(Fault::QuotaExceeded);
        }
        let promise = self.promises.remove(&job);
        self.running.insert(job, Run { gang: gang.to_vec(), until_s });
        let kept = self.kept(subject.owner, gang.iter().map(|part| part.node));
        if let Err(fault) = kept {
            self.running.remove(&job);
            self.promises.extend(promise.map(|promise| (job, promise)));
            return Err(fault);
        }
        for part in gang {
            self.used[part.node as usize] |= part.gpus;
        }
        Ok(())
    }

    fn halt(&mut self, job: u32, why: Stop) -> Result<(), Fault> {
        let run = self.running.remove(&job).ok_or(Fault::NotRunning)?;
        for part in &run.gang {
            self.used[part.node as usize] &= !part.gpus;
        }
        if why == Stop::Ended {
            self.ended.insert(job);
        }
        Ok(())
    }

    fn promise(&mut self, job: u32, subject: Subject, at_s: u64, promise: Promise) -> Result<(), Fault> {
        if self.running.contains_key(&job) {
            return Err(Fault::RunsAlready);
        }
        if at_s < subject.submit_s {
            return Err(Fault::NotSubmitted);
        }
        let before = self.promises.get(&job).cloned();
        if promise.start_s < at_s || before.as_ref().is_some_and(|before| before.start_s < promise.start_s) {
            return Err(Fault::PromiseMoved);
        }
        if promise.until_s <= promise.start_s {
            return Err(Fault::Overrun);
        }
        self.complete(subject, &promise.shares)?;
        let nodes: Vec<u32> = promise.shares.iter().map(|share| share.node).collect();
        self.promises.insert(job, promise);
        let kept = self.kept(subject.owner, nodes.into_iter());
        if kept.is_err() {
            self.promises.remove(&job);
            self.promises.extend(before.map(|before| (job, before)));
        }
        kept
    }

    /// All of the gang, on real nodes, none named twice, no more nodes than it needs.
    fn complete(&self, subject: Subject, shares: &[Share]) -> Result<(), Fault> {
        if shares.iter().any(|share| share.node as usize >= self.used.len() || share.gpus > self.per_node) {
            return Err(Fault::NoSuchGpu);
        }
        let nodes: BTreeSet<u32> = shares.iter().map(|share| share.node).collect();
        if nodes.len() != shares.len() {
            return Err(Fault::NodeTwice);
        }
        if shares.iter().map(|share| share.gpus).sum::<u32>() != subject.gpus || shares.iter().any(|s| s.gpus == 0) {
            return Err(Fault::GangIncomplete);
        }
        if shares.len() > subject.gpus.div_ceil(self.per_node) as usize {
            return Err(Fault::Scattered);
        }
        Ok(())
    }

    /// Everything that is promised on these nodes, and to whoever shares a quota
    /// with this owner, would have its GPUs. What is taken grows only where a
    /// promise begins, so these times are all there is to look at.
    fn kept(&self, owner: u32, nodes: impl Iterator<Item = u32>) -> Result<(), Fault> {
        for node in nodes {
            let there = |shares: &[Share]| -> u32 { shares.iter().filter(|s| s.node == node).map(|s| s.gpus).sum() };
            for begins in self.promises.values().filter(|promise| there(&promise.shares) > 0) {
                let time_s = begins.start_s;
                let running = self.running.values().filter(|run| run.until_s > time_s);
                let held: u32 = running
                    .flat_map(|run| run.gang.iter().filter(|part| part.node == node).map(|part| part.gpus.count_ones()))
                    .sum();
                let promised = self.promises.values().filter(|p| p.start_s <= time_s && time_s < p.until_s);
                if held + promised.map(|promise| there(&promise.shares)).sum::<u32>() > self.per_node {
                    return Err(Fault::PromiseDelayed);
                }
            }
        }
        let times = self.promises.values().map(|promise| promise.start_s);
        let over = times.into_iter().any(|time_s| self.held(owner, time_s, 0, Some(time_s)));
        if over { Err(Fault::PromiseDelayed) } else { Ok(()) }
    }

    /// Whether this owner or one above it holds more than it may at a time, with so
    /// many GPUs more; with what is promised for that time, if it is asked for.
    fn held(&self, owner: u32, time_s: u64, more: u32, promised_at_s: Option<u64>) -> bool {
        self.above(owner).any(|group| {
            let Some(most) = self.quotas.get(group as usize).and_then(|quota| quota.most) else { return false };
            let counts = |job: u32| {
                let subject = self.subjects[job as usize];
                if self.above(subject.owner).any(|other| other == group) { subject.gpus } else { 0 }
            };
            let running = self.running.iter().filter(|(_, run)| run.until_s > time_s).map(|(job, _)| counts(*job));
            let promised = self.promises.iter().filter(|(_, promise)| {
                promised_at_s.is_some_and(|at_s| promise.start_s <= at_s && at_s < promise.until_s)
            });
            running.chain(promised.map(|(job, _)| counts(*job))).sum::<u32>() + more > most
        })
    }

    /// An owner and those above it.
    fn above(&self, owner: u32) -> impl Iterator<Item = u32> + '_ {
        let next = |owner: &u32| self.quotas.get(*owner as usize).and_then(|quota| quota.parent);
        std::iter::successors(Some(owner), next).take(self.quotas.len() + 1)
    }
}
