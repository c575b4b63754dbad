//! The replay of policies that may stop one job for another.
//!
//! Event by event: jobs end, ranks change, patience ends, jobs come; then the
//! best-ranked waiting job of each size is given a place, by room that is free
//! or that worse-ranked ones make, until none can be helped. Of two jobs of one
//! size the better ranked is tried first, so a size whose best job finds no
//! place needs no further look.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::job::{Fleet, Job, Outcome};
use super::nodes::{Gang, Nodes};
use super::ranking::{Manners, Rank, Ranking, Standing};
use crate::scheduler::certificate::{Claim, Stop};

/// What falls due; ends come before all else of the same second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    End,
    Rank,
    Patience,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Still,
    Running,
}

/// A place in a queue: level, turn, job.
type Place = (u64, (bool, u64), u32);

/// What is known of one job.
#[derive(Debug, Clone)]
pub(super) struct Live {
    phase: Phase,
    /// Work done up to `since_s`, seconds.
    attained_s: u64,
    /// Restart to be paid from `since_s` on, seconds.
    debt_s: u64,
    since_s: u64,
    /// Work that the ranking was told of.
    told_s: u64,
    pub(super) level: u64,
    /// Among equals: the first start, or behind all that have started, the submission.
    pub(super) turn: (bool, u64),
    pub(super) gang: Gang,
    /// What fell due for an earlier one is void.
    version: u32,
    rank_due_s: u64,
    pub(super) held_until_s: u64,
}

/// One replay.
pub(super) struct Replay<'a, R> {
    pub(super) jobs: &'a [Job],
    ranking: R,
    pub(super) manners: Manners,
    restart_s: u64,
    pub(super) nodes: Nodes,
    pub(super) live: Vec<Live>,
    /// The sizes there are, ascending, and who of each waits.
    sizes: Vec<u32>,
    waiting: Vec<BTreeSet<Place>>,
    pub(super) running: Vec<u32>,
    due: BinaryHeap<Reverse<(u64, Due, u32, u32)>>,
    pub(super) now_s: u64,
    edition: u64,
    outcome: Outcome,
    observer: Option<&'a mut dyn FnMut(Claim)>,
}

/// Replays jobs, which are in order of submission and each fit on the fleet.
pub(super) fn replay<'a, R: Ranking>(
    jobs: &'a [Job],
    fleet: &Fleet,
    manners: Manners,
    ranking: R,
    observer: Option<&'a mut dyn FnMut(Claim)>,
) -> Outcome {
    let mut sizes: Vec<u32> = jobs.iter().map(|job| job.gpus).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let fresh = |job: &Job| Live {
        phase: Phase::Still,
        attained_s: 0,
        debt_s: 0,
        since_s: job.submit_s,
        told_s: 0,
        level: 0,
        turn: (true, job.submit_s),
        gang: Gang::new(),
        version: 0,
        rank_due_s: u64::MAX,
        held_until_s: 0,
    };
    let replay = Replay {
        jobs,
        edition: ranking.edition(),
        ranking,
        manners,
        restart_s: fleet.restart_s,
        nodes: fleet.nodes.clone(),
        live: jobs.iter().map(fresh).collect(),
        waiting: vec![BTreeSet::new(); sizes.len()],
        sizes,
        running: Vec::new(),
        due: BinaryHeap::new(),
        now_s: 0,
        outcome: Outcome::of(jobs.len()),
        observer,
    };
    replay.run()
}

impl<R: Ranking> Replay<'_, R> {
    fn run(mut self) -> Outcome {
        let mut arrivals = (0_u32..).zip(self.jobs).peekable();
        loop {
            let comes = arrivals.peek().map(|(_, job)| job.submit_s);
            let falls_due = self.due.peek().map(|Reverse((at, ..))| *at);
            let Some(next) = comes.into_iter().chain(falls_due).min() else { return self.outcome };
            self.now_s = next;
            let mut touched = false;
            while let Some(Reverse((_, due, job, version))) = self.due.pop_if_due(next) {
                if self.live[job as usize].version != version {
                    continue;
                }
                touched = true;
                match due {
                    Due::End => self.end(job),
                    Due::Rank if self.live[job as usize].rank_due_s == next => self.look_again(job),
                    Due::Rank => {}
                    Due::Patience => self.lose_patience(job),
                }
            }
            while let Some((job, _)) = arrivals.next_if(|(_, job)| job.submit_s == next) {
                touched = true;
                self.wait(job);
            }
            if touched {
                self.follow_edition();
                self.place();
            }
        }
    }

    fn claim(&mut self, claim: impl FnOnce() -> Claim) {
        if let Some(observer) = &mut self.observer {
            observer(claim());
        }
    }

    fn size_of(&self, job: u32) -> usize {
        self.sizes.partition_point(|size| *size < self.jobs[job as usize].gpus)
    }

    /// Work done by now and restart still to be paid.
    fn progress(&self, job: u32) -> (u64, u64) {
        let live = &self.live[job as usize];
        match live.phase {
            Phase::Still => (live.attained_s, live.debt_s),
            Phase::Running => {
                let held = self.now_s - live.since_s;
                let paid = held.min(live.debt_s);
                (live.attained_s + held - paid, live.debt_s - paid)
            }
        }
    }

    fn rank(&self, job: u32) -> Rank {
        let (attained_s, restart_s) = self.progress(job);
        self.ranking.rank(Standing { job: &self.jobs[job as usize], attained_s, restart_s })
    }

    /// The level of a running job, now.
    pub(super) fn level_now(&self, job: u32) -> u64 {
        if self.ranking.drifts() { self.rank(job).level } else { self.live[job as usize].level }
    }

    /// Puts a job that stands still into its queue.
    fn wait(&mut self, job: u32) {
        let (level, size, now) = (self.rank(job).level, self.size_of(job), self.now_s);
        let live = &mut self.live[job as usize];
        live.level = level;
        live.since_s = now;
        live.version += 1;
        self.waiting[size].insert((level, live.turn, job));
        if let Some(patience) = self.manners.patience {
            self.due.push(Reverse((now + patience.wait_s, Due::Patience, job, live.version)));
        }
    }

    fn requeue(&mut self, job: u32, level: u64) {
        let size = self.size_of(job);
        let live = &mut self.live[job as usize];
        self.waiting[size].remove(&(live.level, live.turn, job));
        live.level = level;
        self.waiting[size].insert((level, live.turn, job));
    }

    fn lose_patience(&mut self, job: u32) {
        self.requeue(job, 0);
    }

    /// Asks for every rank again if the policy says so.
    fn follow_edition(&mut self) {
        if self.edition == self.ranking.edition() {
            return;
        }
        self.edition = self.ranking.edition();
        let waiting: Vec<u32> = self.waiting.iter().flatten().map(|(_, _, job)| *job).collect();
        for job in waiting {
            let level = self.rank(job).level;
            let before = self.live[job as usize].level;
            if before != 0 && before != level {
                self.requeue(job, level);
            }
        }
        for at in 0..self.running.len() {
            let job = self.running[at];
            self.live[job as usize].level = self.rank(job).level;
        }
    }

    /// A running job's rank may have changed.
    fn look_again(&mut self, job: u32) {
        self.tell_work(job);
        let rank = self.rank(job);
        let (now, debt_s) = (self.now_s, self.progress(job).1);
        let live = &mut self.live[job as usize];
        live.level = rank.level;
        if let Some(holds_s) = rank.holds_s {
            live.rank_due_s = now + debt_s + holds_s;
            self.due.push(Reverse((live.rank_due_s, Due::Rank, job, live.version)));
        }
    }

    fn tell_work(&mut self, job: u32) {
        let to_s = self.progress(job).0;
        let from_s = std::mem::replace(&mut self.live[job as usize].told_s, to_s);
        if from_s < to_s {
            self.ranking.worked(&self.jobs[job as usize], from_s, to_s);
        }
    }

    /// Gives a waiting job these GPUs.
    fn start(&mut self, job: u32, gang: Gang) {
        let (size, now) = (self.size_of(job), self.now_s);
        let live = &mut self.live[job as usize];
        self.waiting[size].remove(&(live.level, live.turn, job));
        let stretch = &mut self.outcome.stretch_s[job as usize];
        *stretch = (*stretch).max(now - live.since_s);
        let held_s = self.manners.patience.filter(|_| live.level == 0).map_or(0, |patience| patience.run_s);
        if live.turn.0 {
            live.turn = (false, now);
            self.outcome.start_s[job as usize] = now;
        }
        self.run_on(job, gang, held_s);
    }

    /// A job that stands still runs here from now on.
    fn run_on(&mut self, job: u32, gang: Gang, held_s: u64) {
        let now = self.now_s;
        let claimed = gang.clone();
        let live = &mut self.live[job as usize];
        live.phase = Phase::Running;
        live.since_s = now;
        live.gang = gang;
        live.version += 1;
        live.held_until_s = now + held_s.max(self.manners.min_run_s);
        let left_s = live.debt_s + self.jobs[job as usize].run_s - live.attained_s;
        self.due.push(Reverse((now + left_s, Due::End, job, live.version)));
        self.running.push(job);
        self.look_again(job);
        self.claim(|| Claim::Start { at_s: now, job, gang: claimed, until_s: u64::MAX });
    }

    /// Takes a running job off its GPUs.
    fn halt(&mut self, job: u32, why: Stop) {
        self.tell_work(job);
        let (attained_s, debt_s) = self.progress(job);
        let at_s = self.now_s;
        let live = &mut self.live[job as usize];
        self.outcome.lost_gpu_s += (live.debt_s - debt_s) * u64::from(self.jobs[job as usize].gpus);
        (live.phase, live.attained_s, live.debt_s) = (Phase::Still, attained_s, debt_s);
        live.version += 1;
        let gang = std::mem::take(&mut live.gang);
        self.nodes.give(&gang);
        self.running.retain(|other| *other != job);
        self.claim(|| Claim::Halt { at_s, job, why });
    }

    fn end(&mut self, job: u32) {
        self.halt(job, Stop::Ended);
        self.outcome.end_s[job as usize] = self.now_s;
        self.ranking.ended(&self.jobs[job as usize], self.live[job as usize].attained_s);
    }

    pub(super) fn preempt(&mut self, job: u32) {
        self.halt(job, Stop::Preempted);
        self.live[job as usize].debt_s = self.restart_s;
        self.outcome.stops[job as usize] += 1;
        self.wait(job);
    }

    /// Restarts a running job on another node, which has room for it.
    pub(super) fn move_to(&mut self, job: u32, node: u32) {
        self.halt(job, Stop::Preempted);
        self.live[job as usize].debt_s = self.restart_s;
        self.outcome.moves += 1;
        let part = self.nodes.take_on(node as usize, self.jobs[job as usize].gpus);
        self.run_on(job, vec![part], 0);
    }

    /// Places whom it can, best rank first.
    fn place(&mut self) {
        let mut hopeless = vec![false; self.sizes.len()];
        loop {
            let open = (0..self.sizes.len()).filter(|size| !hopeless[*size]);
            let heads = open.filter_map(|size| self.waiting[size].first().map(|head| (*head, size)));
            let Some(((level, _, job), size)) = heads.min() else { return };
            let gpus = self.sizes[size];
            if !self.nodes.fits(gpus) && !self.make_room(gpus, level) {
                hopeless[size] = true;
                continue;
            }
            match self.nodes.take(gpus) {
                Some(gang) => self.start(job, gang),
                None => hopeless[size] = true,
            }
        }
    }
}

/// The next of a heap that is due.
trait PopIfDue {
    fn pop_if_due(&mut self, now_s: u64) -> Option<Reverse<(u64, Due, u32, u32)>>;
}

impl PopIfDue for BinaryHeap<Reverse<(u64, Due, u32, u32)>> {
    fn pop_if_due(&mut self, now_s: u64) -> Option<Reverse<(u64, Due, u32, u32)>> {
        if self.peek()?.0.0 > now_s { None } else { self.pop() }
    }
}
