//! Faults, planted into a history of good decisions: what the checker must find.
//!
//! Given a history, a kind and a seed, [`plant`] makes the same history with one
//! decision falsified, or says that the history offers no place for it. The
//! places are drawn from the seed, so that fresh seeds are fresh faults.

use std::collections::BTreeMap;

use claw_proto::closed_enum;

use super::{Checker, Claim, Fault, Part, Quota, Share, Stop, Subject};
use crate::scheduler::packing::replay::Draws;

closed_enum! {
    /// What is falsified.
    Kind {
        /// A gang starts with one GPU too few.
        GpuMissing = "gpu_missing",
        /// A gang starts with one GPU too many.
        GpuExtra = "gpu_extra",
        /// A gang over several nodes starts without one of them.
        PartMissing = "part_missing",
        /// A node is named twice.
        NodeTwice = "node_twice",
        /// A gang starts on a node that is not there.
        NodeUnknown = "node_unknown",
        /// A gang starts on a GPU that its node does not have.
        GpuUnknown = "gpu_unknown",
        /// A gang starts on a GPU that another job uses.
        GpuTaken = "gpu_taken",
        /// A gang that would fit on one node is spread over two.
        Scattered = "scattered",
        /// A running job starts again.
        StartedTwice = "started_twice",
        /// A job that has ended starts again.
        StartedAgain = "started_again",
        /// A job starts before it was submitted.
        StartedEarly = "started_early",
        /// A decision is dated before the one before it.
        TimeBackwards = "time_backwards",
        /// A job ends twice.
        HaltedTwice = "halted_twice",
        /// A job starts that nobody submitted.
        JobUnknown = "job_unknown",
        /// A waiting job starts although its owner's quota is used up.
        QuotaExceeded = "quota_exceeded",
        /// A promise is moved to a later time.
        PromiseLater = "promise_later",
        /// A promise is given with one GPU too few.
        PromiseShort = "promise_short",
        /// A promised job does not start.
        PromiseBroken = "promise_broken",
        /// A promise is given for a time at which its GPUs are not free.
        PromiseOverlaps = "promise_overlaps",
        /// A job ahead of its turn runs into a promise.
        BackfillDelays = "backfill_delays"
    }
}

impl Kind {
    /// What the checker has to say of it.
    pub const fn fault(self) -> Fault {
        match self {
            Self::GpuMissing | Self::GpuExtra | Self::PartMissing | Self::PromiseShort => Fault::GangIncomplete,
            Self::NodeTwice => Fault::NodeTwice,
            Self::NodeUnknown | Self::GpuUnknown => Fault::NoSuchGpu,
            Self::GpuTaken => Fault::DoubleBooked,
            Self::Scattered => Fault::Scattered,
            Self::StartedTwice => Fault::RunsAlready,
            Self::StartedAgain | Self::HaltedTwice => Fault::HasEnded,
            Self::StartedEarly => Fault::NotSubmitted,
            Self::TimeBackwards => Fault::TimeBackwards,
            Self::JobUnknown => Fault::UnknownJob,
            Self::QuotaExceeded => Fault::QuotaExceeded,
            Self::PromiseLater => Fault::PromiseMoved,
            Self::PromiseBroken => Fault::PromiseBroken,
            Self::PromiseOverlaps | Self::BackfillDelays => Fault::PromiseDelayed,
        }
    }
}

/// The checker accepts all that stands before the fault, and finds it where it stands and for
/// what it is; that a promised job does not start shows when its time is past.
pub fn is_found(kind: Kind, history: &[Claim], at: usize, checker: &mut Checker) -> bool {
    let mut answers = history.iter().enumerate().map(|(n, claim)| (n, checker.check(claim)));
    match answers.find_map(|(n, answer)| answer.err().map(|fault| (n, fault))) {
        Some((n, fault)) => fault == kind.fault() && (n == at || (kind == Kind::PromiseBroken && n > at)),
        None => false,
    }
}

/// Where the history took place.
#[derive(Debug, Clone)]
pub struct World {
    /// Nodes.
    pub n_nodes: u32,
    /// GPUs of each.
    pub per_node: u32,
    /// Jobs by their numbers.
    pub subjects: Vec<Subject>,
    /// Quotas by the numbers of owners.
    pub quotas: Vec<Quota>,
}

impl World {
    /// Empty books for it.
    pub fn checker(&self) -> Checker {
        Checker::new(self.n_nodes as usize, self.per_node, self.subjects.clone(), self.quotas.clone())
    }
}

/// What runs and is promised before some decision.
#[derive(Debug, Clone, Default)]
struct State {
    running: BTreeMap<u32, (Vec<Part>, u64)>,
    promised: BTreeMap<u32, (u64, u64, Vec<Share>)>,
}

impl State {
    fn before(history: &[Claim], at: usize) -> Self {
        let mut state = Self::default();
        for claim in &history[..at] {
            match claim {
                Claim::Start { job, gang, until_s, .. } => {
                    state.promised.remove(job);
                    state.running.insert(*job, (gang.clone(), *until_s));
                }
                Claim::Halt { job, .. } => {
                    state.running.remove(job);
                }
                Claim::Promise { job, start_s, until_s, shares, .. } => {
                    state.promised.insert(*job, (*start_s, *until_s, shares.clone()));
                }
            }
        }
        state
    }

    /// GPUs of a node that are in use.
    fn used(&self, node: u32) -> u64 {
        let parts = self.running.values().flat_map(|(gang, _)| gang).filter(|part| part.node == node);
        parts.fold(0, |used, part| used | part.gpus)
    }

    /// GPUs of a node that are taken at a later time.
    fn taken_at(&self, node: u32, time_s: u64) -> u32 {
        let running = self.running.values().filter(|(_, until_s)| *until_s > time_s).flat_map(|(gang, _)| gang);
        let promised = self.promised.values().filter(|(from, until, _)| (*from..*until).contains(&time_s));
        let here = running.filter(|part| part.node == node).map(|part| part.gpus.count_ones()).sum::<u32>();
        here + promised.flat_map(|(.., shares)| shares).filter(|s| s.node == node).map(|s| s.gpus).sum::<u32>()
    }
}

/// Falsifies one decision; the number is that of the first one that is no longer
/// true. Nothing if no place was found.
pub fn plant(kind: Kind, history: &[Claim], world: &World, seed: u64) -> Option<(Vec<Claim>, usize)> {
    let mut draws = Draws::new(seed);
    // A place is looked for from a drawn one on, once around.
    let first = if history.is_empty() { return None } else { draws.below(history.len()) };
    (0..history.len()).map(|step| (first + step) % history.len()).find_map(|at| {
        let claims = falsify(kind, history, world, at, &mut draws)?;
        let mut false_history = history[..at].to_vec();
        let n_replaced = claims.n_replaced;
        false_history.extend(claims.with.iter().cloned());
        false_history.extend_from_slice(&history[at + n_replaced..]);
        if kind == Kind::PromiseBroken {
            let Claim::Start { job: gone, .. } = &history[at] else { return None };
            false_history.retain(|claim| !matches!(claim, Claim::Halt { job, .. } if job == gone));
        }
        Some((false_history, at + claims.n_true))
    })
}

/// What stands in the place of how many decisions.
struct Falsified {
    with: Vec<Claim>,
    n_replaced: usize,
    /// So many of them are true.
    n_true: usize,
}

fn instead(claim: Claim) -> Falsified {
    Falsified { with: vec![claim], n_replaced: 1, n_true: 0 }
}

fn before(claim: Claim) -> Falsified {
    Falsified { with: vec![claim], n_replaced: 0, n_true: 0 }
}

/// The true one, and a false one after it.
fn after(good: &Claim, claim: Claim) -> Falsified {
    Falsified { with: vec![good.clone(), claim], n_replaced: 1, n_true: 1 }
}

fn falsify(kind: Kind, history: &[Claim], world: &World, at: usize, draws: &mut Draws) -> Option<Falsified> {
    match (&history[at], kind) {
        (Claim::Start { .. }, Kind::TimeBackwards) => time_backwards(history, at),
        (Claim::Start { .. }, Kind::StartedTwice) => Some(after(&history[at], history[at].clone())),
        (Claim::Start { at_s, job, .. }, Kind::PromiseBroken) => {
            let promised = State::before(history, at).promised.contains_key(job);
            let goes_on = time_of(history.last()?) > *at_s;
            (promised && goes_on).then_some(Falsified { with: Vec::new(), n_replaced: 1, n_true: 0 })
        }
        (Claim::Start { .. }, Kind::QuotaExceeded) => quota_exceeded(history, world, at),
        (Claim::Start { .. }, Kind::BackfillDelays) => backfill_delays(history, world, at),
        (Claim::Start { at_s, job, gang, until_s }, _) => {
            let submit_s = world.subjects[*job as usize].submit_s;
            let (mut at_s, mut job, mut gang) = (*at_s, *job, gang.clone());
            match kind {
                // Late enough that time does not run backwards as well.
                Kind::StartedEarly => {
                    at_s = submit_s.checked_sub(1)?;
                    at.checked_sub(1).is_none_or(|last| time_of(&history[last]) <= at_s).then_some(())?;
                }
                Kind::JobUnknown => job = u32::try_from(world.subjects.len() + draws.below(9)).ok()?,
                _ => gang = false_gang(kind, &gang, &State::before(history, at), world, draws)?,
            }
            Some(instead(Claim::Start { at_s, job, gang, until_s: *until_s }))
        }
        (Claim::Halt { why: Stop::Ended, .. }, Kind::HaltedTwice) => Some(after(&history[at], history[at].clone())),
        (Claim::Halt { at_s, job, why: Stop::Ended }, Kind::StartedAgain) => {
            let started = history[..at].iter().rev().find_map(|claim| match claim {
                Claim::Start { job: other, gang, .. } if other == job => Some(gang.clone()),
                _ => None,
            })?;
            let again = Claim::Start { at_s: *at_s, job: *job, gang: started, until_s: at_s + 1_000 };
            Some(after(&history[at], again))
        }
        (Claim::Promise { at_s, job, start_s, until_s, shares }, kind) => {
            let (length_s, mut start_s, mut shares) = (until_s - start_s, *start_s, shares.clone());
            match kind {
                Kind::PromiseLater => start_s += 1 + draws.below(1_000) as u64,
                Kind::PromiseShort => shares.first_mut()?.gpus -= 1,
                Kind::PromiseOverlaps if start_s > *at_s && is_taken(history, world, at, *job, &shares, *at_s) => {
                    start_s = *at_s;
                }
                _ => return None,
            }
            let claim = Claim::Promise { at_s: *at_s, job: *job, start_s, until_s: start_s + length_s, shares };
            if kind == Kind::PromiseLater {
                // after the true one, so that it is a second promise
                return Some(after(&history[at], claim));
            }
            Some(instead(claim))
        }
        (Claim::Halt { .. }, _) => None,
    }
}

fn time_of(claim: &Claim) -> u64 {
    match claim {
        Claim::Start { at_s, .. } | Claim::Halt { at_s, .. } | Claim::Promise { at_s, .. } => *at_s,
    }
}

/// Some of these GPUs are taken at that time, by others than the job itself.
fn is_taken(history: &[Claim], world: &World, at: usize, job: u32, shares: &[Share], time_s: u64) -> bool {
    let mut state = State::before(history, at);
    state.promised.remove(&job);
    shares.iter().any(|share| state.taken_at(share.node, time_s) + share.gpus > world.per_node)
}

fn time_backwards(history: &[Claim], at: usize) -> Option<Falsified> {
    let earlier = time_of(&history[at.checked_sub(1)?]).checked_sub(1)?;
    let Claim::Start { job, gang, until_s, .. } = &history[at] else { return None };
    Some(instead(Claim::Start { at_s: earlier, job: *job, gang: gang.clone(), until_s: *until_s }))
}

/// One bit of a set, drawn.
fn one_of(set: u64, draws: &mut Draws) -> Option<u64> {
    let bits: Vec<u64> = (0..64).map(|at| 1_u64 << at).filter(|bit| set & bit != 0).collect();
    if bits.is_empty() { None } else { Some(bits[draws.below(bits.len())]) }
}

fn false_gang(kind: Kind, gang: &[Part], state: &State, world: &World, draws: &mut Draws) -> Option<Vec<Part>> {
    let mut gang = gang.to_vec();
    let drawn = draws.below(gang.len());
    let all = u64::MAX >> (64 - world.per_node);
    let Part { node, gpus } = gang[drawn];
    let own = one_of(gpus, draws)?;
    match kind {
        Kind::GpuMissing => gang[drawn].gpus &= !own,
        Kind::GpuExtra => gang[drawn].gpus |= one_of(all & !gpus, draws)?,
        Kind::PartMissing => {
            if gang.len() < 2 {
                return None;
            }
            gang.remove(drawn);
        }
        Kind::NodeTwice => {
            if gpus.count_ones() < 2 {
                return None;
            }
            gang[drawn].gpus &= !own;
            gang.push(Part { node, gpus: own });
        }
        Kind::NodeUnknown => gang[drawn].node += world.n_nodes,
        Kind::GpuUnknown => {
            let beyond = 1_u64.checked_shl(world.per_node)?;
            gang[drawn].gpus = gpus & !own | beyond;
        }
        Kind::GpuTaken => gang[drawn].gpus = gpus & !own | one_of(state.used(node), draws)?,
        Kind::Scattered => {
            if gang.len() > 1 || gpus.count_ones() < 2 {
                return None;
            }
            let other = (0..world.n_nodes).find(|other| *other != node && all & !state.used(*other) != 0)?;
            gang[drawn].gpus &= !own;
            gang.push(Part { node: other, gpus: one_of(all & !state.used(other), draws)? });
        }
        _ => return None,
    }
    Some(gang)
}

/// A waiting job of an owner whose quota has no room starts on GPUs that are free.
fn quota_exceeded(history: &[Claim], world: &World, at: usize) -> Option<Falsified> {
    let (state, now_s) = (State::before(history, at), time_of(&history[at]));
    let ended = |job: u32| history[..at].iter().any(|c| matches!(c, Claim::Halt { job: other, .. } if *other == job));
    let held = |owner: u32| -> u32 {
        let theirs = state.running.keys().map(|job| world.subjects[*job as usize]).filter(|s| s.owner == owner);
        theirs.map(|subject| subject.gpus).sum()
    };
    let all = u64::MAX >> (64 - world.per_node);
    let (job, subject) = (0_u32..).zip(&world.subjects).find(|(job, subject)| {
        let most = world.quotas.get(subject.owner as usize).and_then(|quota| quota.most);
        let waits = subject.submit_s <= now_s && !state.running.contains_key(job) && !ended(*job);
        waits && subject.gpus <= world.per_node && most.is_some_and(|most| held(subject.owner) + subject.gpus > most)
    })?;
    let room = |node: &u32| (all & !state.used(*node)).count_ones() >= subject.gpus;
    let node = (0..world.n_nodes).find(room)?;
    let free = all & !state.used(node);
    let gpus = (0..64).map(|at| 1_u64 << at).filter(|bit| free & bit != 0).take(subject.gpus as usize).sum();
    Some(before(Claim::Start { at_s: now_s, job, gang: vec![Part { node, gpus }], until_s: now_s + 1_000 }))
}

/// A start whose end moves behind the beginning of a promise that needs its GPUs.
fn backfill_delays(history: &[Claim], world: &World, at: usize) -> Option<Falsified> {
    let Claim::Start { at_s, job, gang, until_s } = &history[at] else { return None };
    let mut state = State::before(history, at);
    state.promised.remove(job);
    let needs_it = |(start_s, _, shares): &&(u64, u64, Vec<Share>)| {
        *start_s >= *until_s
            && shares.iter().any(|share| {
                let own = gang.iter().filter(|part| part.node == share.node).map(|part| part.gpus.count_ones());
                let own = own.sum::<u32>();
                own > 0 && state.taken_at(share.node, *start_s) + own > world.per_node
            })
    };
    let start_s = state.promised.values().find(needs_it)?.0;
    Some(instead(Claim::Start { at_s: *at_s, job: *job, gang: gang.clone(), until_s: start_s + 1 }))
}
