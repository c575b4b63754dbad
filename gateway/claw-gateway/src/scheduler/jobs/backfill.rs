//! The replay of policies that stop nobody: first come first served, alone or
//! with promised starts and backfill around them.
//!
//! The first jobs of the queue, as many as the policy promises to, each have a
//! start, nodes and an end by their limit. Whoever stands behind them starts
//! now if that leaves every promise untouched. When a job ends before its limit
//! the promises are made again in the order of the queue, each not later than it
//! was: its old place is still there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::job::{Fleet, Job, Outcome};
use super::nodes::{Gang, Nodes};
use super::timeline::{Span, Starts, Timeline, earliest_common};
use crate::scheduler::certificate::{Claim, Part, Share, Stop};

/// Rules of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// So many jobs at the head of the queue have a promised start.
    pub promises: usize,
    /// Jobs behind them may start before them.
    pub backfill: bool,
}

impl Rules {
    /// Everybody who waits has a promised start.
    pub const CONSERVATIVE: Self = Self { promises: usize::MAX, backfill: true };
}

/// What runs, waits and is promised at some time. Jobs are by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// Now, seconds.
    pub now_s: u64,
    /// Jobs that have been submitted, the first of the trace.
    pub n_submitted: usize,
    /// What runs, since when, where.
    pub running: Vec<(u32, u64, Gang)>,
    /// Who waits with a promise: the promised start and where.
    pub promised: Vec<(u32, u64, Vec<Share>)>,
    /// Who waits without one.
    pub waiting: Vec<u32>,
}

/// A promised start.
#[derive(Debug, Clone)]
struct Promise {
    start_s: u64,
    shares: Vec<Share>,
}

struct Replay<'a> {
    jobs: &'a [Job],
    /// The next that is submitted.
    next: usize,
    rules: Rules,
    nodes: Nodes,
    /// What is taken of each node, by running jobs and promises.
    lines: Vec<Timeline>,
    /// The same of each owner's quota, if it has one.
    quotas: Vec<Option<Timeline>>,
    promised: BTreeMap<u32, Promise>,
    waiting: BTreeSet<u32>,
    /// Those of each size, with their limits.
    by_size: BTreeMap<u32, BTreeMap<u32, u64>>,
    gangs: BTreeMap<u32, Gang>,
    due: BinaryHeap<Reverse<(u64, Option<u32>)>>,
    now_s: u64,
    outcome: Outcome,
    observer: Option<&'a mut dyn FnMut(Claim)>,
}

/// Replays jobs, which are in order of submission and each fit on the fleet and in their owner's quota.
pub(super) fn replay<'a>(
    jobs: &'a [Job],
    fleet: &Fleet,
    rules: Rules,
    observer: Option<&'a mut dyn FnMut(Claim)>,
) -> Outcome {
    let mut replay = Replay::new(jobs, fleet, rules, observer);
    replay.run(u64::MAX);
    replay.outcome
}

/// Replays jobs up to a time, that second included.
pub(super) fn present(jobs: &[Job], fleet: &Fleet, rules: Rules, at_s: u64) -> Present {
    let mut replay = Replay::new(jobs, fleet, rules, None);
    replay.run(at_s);
    let since = |job: u32| replay.outcome.start_s[job as usize];
    Present {
        now_s: at_s,
        n_submitted: replay.next,
        running: replay.gangs.iter().map(|(job, gang)| (*job, since(*job), gang.clone())).collect(),
        promised: replay.promised.iter().map(|(job, made)| (*job, made.start_s, made.shares.clone())).collect(),
        waiting: replay.waiting.into_iter().collect(),
    }
}

/// Goes on from a time with the jobs submitted by then, and no others.
pub(super) fn go_on(jobs: &[Job], fleet: &Fleet, rules: Rules, present: &Present) -> Outcome {
    let mut replay = Replay::new(&jobs[..present.n_submitted], fleet, rules, None);
    replay.next = present.n_submitted;
    for (job, since_s, gang) in &present.running {
        replay.now_s = *since_s;
        let taken = replay.nodes.take_these(gang);
        let shares: Vec<Share> =
            gang.iter().map(|part| Share { node: part.node, gpus: part.gpus.count_ones() }).collect();
        replay.occupy(*job, &shares, *since_s);
        replay.run_on(*job, taken);
    }
    replay.now_s = present.now_s;
    for (job, start_s, shares) in &present.promised {
        replay.promise(*job, *start_s, shares.clone());
    }
    for job in &present.waiting {
        replay.join_queue(*job);
    }
    replay.run(u64::MAX);
    replay.outcome
}

impl<'a> Replay<'a> {
    fn new(jobs: &'a [Job], fleet: &Fleet, rules: Rules, observer: Option<&'a mut dyn FnMut(Claim)>) -> Self {
        Self {
            jobs,
            next: 0,
            rules,
            nodes: fleet.nodes.clone(),
            lines: fleet.nodes.counts().iter().map(|free| Timeline::new(*free)).collect(),
            quotas: fleet.quotas.iter().map(|quota| quota.map(Timeline::new)).collect(),
            promised: BTreeMap::new(),
            waiting: BTreeSet::new(),
            by_size: BTreeMap::new(),
            gangs: BTreeMap::new(),
            due: BinaryHeap::new(),
            now_s: 0,
            outcome: Outcome::of(jobs.len()),
            observer,
        }
    }

    /// Goes on to the end, or through the last event up to a time.
    fn run(&mut self, until_s: u64) {
        loop {
            let comes = self.jobs.get(self.next).map(|job| job.submit_s);
            let falls_due = self.due.peek().map(|Reverse((at, _))| *at);
            let Some(next) = comes.into_iter().chain(falls_due).min().filter(|next| *next <= until_s) else { return };
            self.now_s = next;
            let mut early = false;
            while let Some(Reverse((_, ended))) = self.due.pop_if_due(next) {
                if let Some(job) = ended {
                    early |= self.end(job);
                }
            }
            while self.jobs.get(self.next).is_some_and(|job| job.submit_s == next) {
                self.join_queue(u32::try_from(self.next).expect("jobs are counted with 32 bits"));
                self.next += 1;
            }
            self.keep_promises(early);
            self.serve_in_order();
            if self.rules.backfill {
                self.backfill();
            }
        }
    }

    fn join_queue(&mut self, job: u32) {
        let of = &self.jobs[job as usize];
        self.waiting.insert(job);
        self.by_size.entry(of.gpus).or_default().insert(job, of.limit_s);
    }

    fn claim(&mut self, claim: impl FnOnce() -> Claim) {
        if let Some(observer) = &mut self.observer {
            observer(claim());
        }
    }

    /// A job has ended; whether that was before its limit.
    fn end(&mut self, job: u32) -> bool {
        let at_s = self.now_s;
        let gang = self.gangs.remove(&job).unwrap_or_default();
        self.nodes.give(&gang);
        for part in &gang {
            self.lines[part.node as usize].remove(job);
        }
        if let Some(quota) = self.quota(job) {
            quota.remove(job);
        }
        self.outcome.end_s[job as usize] = at_s;
        self.claim(|| Claim::Halt { at_s, job, why: Stop::Ended });
        let of = &self.jobs[job as usize];
        of.run_s < of.limit_s
    }

    fn quota(&mut self, job: u32) -> Option<&mut Timeline> {
        self.quotas.get_mut(self.jobs[job as usize].owner as usize)?.as_mut()
    }

    /// Starts what is promised for now; if something ended early, promises anew before.
    fn keep_promises(&mut self, early: bool) {
        let promised: Vec<u32> = self.promised.keys().copied().collect();
        for job in promised {
            if early {
                let before = self.take_back(job);
                let now = self.earliest(job).filter(|(start_s, _)| *start_s < before.start_s);
                let (start_s, shares) = now.unwrap_or((before.start_s, before.shares));
                self.promise(job, start_s, shares);
            }
            if self.promised[&job].start_s == self.now_s {
                let promise = self.take_back(job);
                self.start(job, &promise.shares);
            }
        }
    }

    /// Starts or promises from the head of the queue on, as far as the rules promise.
    fn serve_in_order(&mut self) {
        while let Some(job) = self.waiting.first().copied() {
            let may_promise = self.promised.len() < self.rules.promises;
            if !may_promise && (self.rules.promises > 0 || !self.could_start_now(job)) {
                return;
            }
            let Some((start_s, shares)) = self.earliest(job) else { return };
            if start_s == self.now_s {
                self.leave_queue(job);
                self.start(job, &shares);
            } else if may_promise {
                self.leave_queue(job);
                self.promise(job, start_s, shares);
            } else {
                return;
            }
        }
    }

    fn could_start_now(&self, job: u32) -> bool {
        self.nodes.fits(self.jobs[job as usize].gpus)
    }

    fn leave_queue(&mut self, job: u32) {
        self.waiting.remove(&job);
        if let Some(queue) = self.by_size.get_mut(&self.jobs[job as usize].gpus) {
            queue.remove(&job);
        }
    }

    /// Starts, in order of the queue, whoever ends before any promise would be touched.
    fn backfill(&mut self) {
        loop {
            let sizes: Vec<u32> =
                self.by_size.iter().filter(|(_, queue)| !queue.is_empty()).map(|(gpus, _)| *gpus).collect();
            let next = sizes
                .into_iter()
                .filter(|gpus| self.nodes.fits(*gpus))
                .filter_map(|gpus| self.first_that_fits(gpus))
                .min();
            let Some(job) = next else { return };
            let Some((start_s, shares)) = self.earliest(job) else { return };
            if start_s != self.now_s {
                return;
            }
            self.leave_queue(job);
            self.start(job, &shares);
        }
    }

    /// The first waiting job of a size that can start now.
    fn first_that_fits(&self, gpus: u32) -> Option<u32> {
        let room_s = self.free_for_s(gpus);
        let queue = self.by_size.get(&gpus)?;
        let fits = |job: u32, limit_s: u64| {
            let quota = self.quotas.get(self.jobs[job as usize].owner as usize).and_then(Option::as_ref);
            limit_s <= room_s && quota.is_none_or(|quota| limit_s <= quota.free_for_s(gpus, self.now_s))
        };
        queue.iter().find(|(job, limit_s)| fits(**job, **limit_s)).map(|(job, _)| *job)
    }

    /// How long a gang of this size could run from now on, seconds.
    fn free_for_s(&self, gpus: u32) -> u64 {
        let longest = |gpus: u32| {
            let mut free: Vec<u64> = self.lines.iter().map(|line| line.free_for_s(gpus, self.now_s)).collect();
            free.sort_unstable_by_key(|free_s| Reverse(*free_s));
            free
        };
        let per_node = self.nodes.per_node();
        if gpus <= per_node {
            return self.lines.iter().map(|line| line.free_for_s(gpus, self.now_s)).max().unwrap_or(0);
        }
        let (whole, rest) = ((gpus / per_node) as usize, gpus % per_node);
        let last_whole = longest(per_node).get(whole - 1).copied().unwrap_or(0);
        if rest == 0 {
            return last_whole;
        }
        last_whole.min(longest(rest).get(whole).copied().unwrap_or(0))
    }

    /// When and where a job can start at the earliest, beside all that runs and is promised.
    fn earliest(&self, job: u32) -> Option<(u64, Vec<Share>)> {
        let of = &self.jobs[job as usize];
        let (gpus, for_s, now_s, per_node) = (of.gpus, of.limit_s, self.now_s, self.nodes.per_node());
        let quota = self.quotas.get(of.owner as usize).and_then(Option::as_ref);
        let quota = quota.map_or_else(|| vec![(now_s, u64::MAX)], |quota| quota.starts(gpus, for_s, now_s));
        let starts =
            |gpus: u32| -> Vec<Vec<Starts>> { self.lines.iter().map(|line| line.starts(gpus, for_s, now_s)).collect() };
        let (whole, rest) = if gpus <= per_node { (0, gpus) } else { (gpus / per_node, gpus % per_node) };
        let whole_starts = if whole > 0 { starts(per_node) } else { Vec::new() };
        let rest_starts = if rest > 0 { starts(rest) } else { Vec::new() };
        let n_any = if rest > 0 { whole as usize + 1 } else { 0 };
        let start_s = earliest_common((&whole_starts, whole as usize), (&rest_starts, n_any), &quota)?;
        // Whole nodes first, then the fullest that has the rest.
        let holds = |starts: &[Starts]| starts.iter().any(|(from, to)| (*from..=*to).contains(&start_s));
        let nodes_of = |list: &[Vec<Starts>]| -> Vec<u32> {
            (0_u32..).zip(list).filter(|(_, starts)| holds(starts)).map(|(node, _)| node).collect()
        };
        let mut shares: Vec<Share> = nodes_of(&whole_starts)
            .into_iter()
            .take(whole as usize)
            .map(|node| Share { node, gpus: per_node })
            .collect();
        if rest > 0 {
            let left = nodes_of(&rest_starts).into_iter().filter(|node| shares.iter().all(|share| share.node != *node));
            let node = left.min_by_key(|node| self.lines[*node as usize].free_at(start_s))?;
            shares.push(Share { node, gpus: rest });
        }
        Some((start_s, shares))
    }

    fn occupy(&mut self, job: u32, shares: &[Share], from_s: u64) {
        let of = &self.jobs[job as usize];
        let span = |gpus| Span { job, gpus, from_s, until_s: from_s.saturating_add(of.limit_s) };
        for share in shares {
            self.lines[share.node as usize].add(span(share.gpus));
        }
        let whole = span(of.gpus);
        if let Some(quota) = self.quota(job) {
            quota.add(whole);
        }
    }

    fn promise(&mut self, job: u32, start_s: u64, shares: Vec<Share>) {
        let (at_s, until_s) = (self.now_s, start_s.saturating_add(self.jobs[job as usize].limit_s));
        self.occupy(job, &shares, start_s);
        self.due.push(Reverse((start_s, None)));
        self.outcome.promised_s[job as usize].get_or_insert(start_s);
        let claimed = shares.clone();
        self.promised.insert(job, Promise { start_s, shares });
        self.claim(|| Claim::Promise { at_s, job, start_s, until_s, shares: claimed });
    }

    fn take_back(&mut self, job: u32) -> Promise {
        let promise = self.promised.remove(&job).expect("only what is promised is taken back");
        for share in &promise.shares {
            self.lines[share.node as usize].remove(job);
        }
        if let Some(quota) = self.quota(job) {
            quota.remove(job);
        }
        promise
    }

    /// A job starts now on these nodes.
    fn start(&mut self, job: u32, shares: &[Share]) {
        let (of, at_s) = (self.jobs[job as usize], self.now_s);
        self.occupy(job, shares, at_s);
        let gang: Vec<Part> = shares.iter().map(|share| self.nodes.take_on(share.node as usize, share.gpus)).collect();
        let claimed = gang.clone();
        self.run_on(job, gang);
        self.claim(|| Claim::Start { at_s, job, gang: claimed, until_s: at_s.saturating_add(of.limit_s) });
    }

    /// A job has these GPUs from now on.
    fn run_on(&mut self, job: u32, gang: Gang) {
        let (of, at_s) = (&self.jobs[job as usize], self.now_s);
        self.outcome.start_s[job as usize] = at_s;
        self.outcome.stretch_s[job as usize] = at_s - of.submit_s;
        self.due.push(Reverse((at_s + of.run_s, Some(job))));
        self.gangs.insert(job, gang);
    }
}

/// The next of a heap that is due.
trait PopIfDue {
    fn pop_if_due(&mut self, now_s: u64) -> Option<Reverse<(u64, Option<u32>)>>;
}

impl PopIfDue for BinaryHeap<Reverse<(u64, Option<u32>)>> {
    fn pop_if_due(&mut self, now_s: u64) -> Option<Reverse<(u64, Option<u32>)>> {
        if self.peek()?.0.0 > now_s { None } else { self.pop() }
    }
}
