//! Replaying a trace: the protocol of the openb trace (Weng et al., USENIX ATC
//! 2023), online and with a queue, judged by a checker of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::machine::{Machine, Request};
use super::manner::Manner;
use super::packer::{Packer, Place};
use super::policy::Policy;
use super::scan::Scan;
use super::typical::Typical;

/// Demand that a trace is brought to, as a share of the fleet's GPUs, unless more is asked for.
const ARRIVAL: f64 = 1.3;

/// Random numbers (SplitMix64, Steele et al., OOPSLA 2014): the same for all
/// policies of one seed.
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)
    }

    /// A number below `n`, which is above zero.
    #[expect(clippy::cast_possible_truncation, reason = "the product's upper half is below n")]
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
    }
}

/// A fleet and what asks for it.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Empty machines, in order of their names.
    pub machines: Vec<Machine>,
    /// Requests, in order of their names.
    pub requests: Vec<Request>,
}

/// How a trace is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Protocol {
    /// Policy.
    pub policy: Policy,
    /// Where the allocation is read, as arrived demand over the fleet's GPUs.
    pub arrival: f64,
    /// So many requests may wait; none online.
    pub window: usize,
    /// What will be asked for in all, as far as the queue knows, over the fleet's GPUs; up to one nobody is turned
    /// away before he has to be.
    pub offered: f64,
    /// How the queue is worked off.
    pub manner: Manner,
}

/// What came of one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// GPU thousandths that were allocated, percent of the fleet's.
    pub allocation_percent: f64,
    /// Requests that found no place although a machine had room, or got one that had none.
    pub violations: u64,
    /// Requests that were decided on.
    pub decisions: u64,
    /// Requests without a place at the end.
    pub dropped: u64,
    /// GPUs that these asked for.
    pub dropped_gpus: f64,
    /// How long requests that were placed waited at most, but for one of a hundred: arrivals.
    pub p99_wait_arrivals: u64,
}

/// The order in which requests arrive: shuffled, and brought to the demand.
pub fn arrivals(trace: &Trace, arrival: f64, draws: &mut Draws) -> Vec<Request> {
    let mut order = trace.requests.clone();
    for last in (1..order.len()).rev() {
        order.swap(last, draws.below(last + 1));
    }
    let capacity: f64 = trace.machines.iter().map(|machine| f64::from(machine.free_gpu_milli())).sum();
    let target = capacity * arrival.max(ARRIVAL);
    let mut demand: f64 = order.iter().map(|request| f64::from(request.demand_milli())).sum();
    let n_own = order.len();
    while demand <= target && n_own > 0 {
        let more = order[draws.below(n_own)];
        let of_one = if more.gpus == 0 { 0.0 } else { f64::from(more.gpu_milli) };
        if demand + of_one > target {
            break;
        }
        demand += f64::from(more.demand_milli());
        order.push(more);
    }
    while demand > target && !order.is_empty() {
        let gone = order.remove(draws.below(order.len()));
        demand -= f64::from(gone.demand_milli());
    }
    order
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// It has a place.
    pub is_placed: bool,
    /// The place was free, or there was none: by books of the judge's own.
    pub is_sound: bool,
}

/// Decides where requests go, and is judged at each.
pub trait Placer {
    /// Places a request if anything has room for it. `draws` are for a policy that does not care where.
    fn place(&mut self, request: &Request, draws: &mut Draws) -> Placed;

    /// What its best place is worth: of those that wait, who packs best goes first. Nothing where it has no
    /// place, or where that is not known: then the largest goes first.
    fn worth(&mut self, _request: &Request) -> Option<i32> {
        None
    }
}

/// Replays a trace with one seed.
pub fn replay(trace: &Trace, typical: &Arc<Typical>, protocol: Protocol, seed: u64) -> Outcome {
    let mut draws = Draws::new(seed);
    let order = arrivals(trace, protocol.arrival, &mut draws);
    let mut packing = Judged::of(&trace.machines, typical, protocol.policy);
    run((&trace.machines, &order), protocol, draws, &mut packing)
}

/// Replays requests in this order, on these machines.
pub(super) fn replay_order(
    (machines, order): (&[Machine], &[Request]),
    typical: &Arc<Typical>,
    protocol: Protocol,
    seed: u64,
) -> Outcome {
    run((machines, order), protocol, Draws::new(seed), &mut Judged::of(machines, typical, protocol.policy))
}

/// Replays a trace with one seed through FGD without an index: every machine is asked at every decision.
pub fn replay_scanning(trace: &Trace, typical: &Arc<Typical>, protocol: Protocol, seed: u64) -> Outcome {
    let mut scanning = Judged {
        decider: Scan::new(trace.machines.clone(), Arc::clone(typical)),
        checker: Checker { machines: trace.machines.clone() },
    };
    replay_with(trace, protocol, seed, &mut scanning)
}

/// Replays a trace with one seed through somebody who decides; the policy of `protocol` does not count.
pub fn replay_with(trace: &Trace, protocol: Protocol, seed: u64, placer: &mut dyn Placer) -> Outcome {
    let mut draws = Draws::new(seed);
    let order = arrivals(trace, protocol.arrival, &mut draws);
    run((&trace.machines, &order), protocol, draws, placer)
}

fn run(
    (machines, order): (&[Machine], &[Request]),
    protocol: Protocol,
    draws: Draws,
    placer: &mut dyn Placer,
) -> Outcome {
    let mut run = Run {
        placer,
        draws,
        allocated_milli: 0,
        outcome: Outcome {
            allocation_percent: 0.0,
            violations: 0,
            decisions: 0,
            dropped: 0,
            dropped_gpus: 0.0,
            p99_wait_arrivals: 0,
        },
        waits: Vec::new(),
    };
    let capacity: f64 = machines.iter().map(|machine| f64::from(machine.free_gpu_milli())).sum();
    if protocol.window == 0 {
        run.online(order, capacity, protocol.arrival);
    } else {
        run.queued(order, capacity, protocol);
    }
    run.waits.sort_unstable();
    let p99 = run.waits.len().saturating_mul(99) / 100;
    run.outcome.p99_wait_arrivals = run.waits.get(p99).copied().unwrap_or(0);
    run.outcome
}

struct Run<'a> {
    placer: &'a mut dyn Placer,
    draws: Draws,
    allocated_milli: u64,
    outcome: Outcome,
    waits: Vec<u64>,
}

impl Run<'_> {
    fn place(&mut self, request: &Request) -> bool {
        let Placed { is_placed, is_sound } = self.placer.place(request, &mut self.draws);
        self.outcome.decisions += 1;
        self.outcome.violations += u64::from(!is_sound);
        self.allocated_milli += if is_placed { u64::from(request.demand_milli()) } else { 0 };
        is_placed
    }

    fn drop(&mut self, request: &Request) {
        self.outcome.dropped += 1;
        self.outcome.dropped_gpus += f64::from(request.demand_milli()) / 1_000.0;
    }

    /// One at a time; what finds no place is gone. The allocation is the mean over
    /// the arrivals at which the arrived demand rounds to the wanted percent.
    fn online(&mut self, order: &[Request], capacity: f64, arrival: f64) {
        let wanted = (arrival * 100.0).round();
        let (mut arrived, mut sum, mut n) = (0.0, 0.0, 0_u32);
        for request in order {
            arrived += f64::from(request.demand_milli());
            if !self.place(request) {
                self.drop(request);
            }
            let percent = (100.0 * arrived / capacity).round();
            if percent > wanted {
                break;
            }
            if percent >= wanted {
                sum += 100.0 * self.allocated_milli as f64 / capacity;
                n += 1;
            }
        }
        self.outcome.allocation_percent = if n > 0 { sum / f64::from(n) } else { 0.0 };
    }

    /// At most `window` requests wait. One more, and of those that fit anywhere the one
    /// that packs best is placed (see [`Serve`](super::Serve)), of equals the largest; if none fits, the largest is
    /// dropped. Where more is offered than there is, some are dropped in place of that, as long as they are no
    /// larger a part of what was decided on than has to be dropped of all. At the end all are placed or dropped, and
    /// the allocation is what stands then.
    fn queued(&mut self, order: &[Request], capacity: f64, protocol: Protocol) {
        let mut queue: BTreeMap<Waiting, Request> = BTreeMap::new();
        let (mut arrived, mut now) = (0.0, 0);
        for (at, request) in (0_u64..).zip(order) {
            arrived += f64::from(request.demand_milli());
            if arrived > capacity * protocol.arrival {
                break;
            }
            now = at;
            queue.insert(Waiting::new(request, at), *request);
            if queue.len() > protocol.window {
                self.serve(&mut queue, at, protocol);
            }
        }
        // Nothing comes any more: who fits is placed.
        let rest = Protocol { offered: 1.0, ..protocol };
        while !queue.is_empty() {
            self.serve(&mut queue, now, rest);
        }
        self.outcome.allocation_percent = 100.0 * self.allocated_milli as f64 / capacity;
    }

    /// Less of what was decided on was dropped than has to be of all that is offered.
    fn may_turn_away(&self, offered: f64) -> bool {
        let (placed, dropped) = (self.allocated_milli as f64, self.outcome.dropped_gpus * 1_000.0);
        offered > 1.0 && dropped < (1.0 - 1.0 / offered) * (placed + dropped)
    }

    /// Places one or drops one.
    fn serve(&mut self, queue: &mut BTreeMap<Waiting, Request>, now: u64, protocol: Protocol) {
        // Of equal requests, which stand together, the first stands for all.
        let mut kinds: Vec<(Option<i32>, Waiting, Request)> = Vec::new();
        for (waiting, request) in queue.iter() {
            if kinds.last().is_none_or(|(.., last)| last != request) {
                kinds.push((self.placer.worth(request), *waiting, *request));
            }
        }
        let Manner { serve, shed } = protocol.manner;
        if self.may_turn_away(protocol.offered) {
            let costs =
                |(worth, waiting, asks): &(_, Waiting, Request)| Some((shed.key(*worth, asks)?, *waiting, *asks));
            if let Some((_, waiting, request)) = kinds.iter().filter_map(costs).min_by_key(|(key, ..)| *key) {
                queue.remove(&waiting);
                return self.drop(&request);
            }
        }
        kinds.sort_by_key(|(worth, waiting, asks)| (std::cmp::Reverse(serve.key(*worth, asks)), *waiting));
        let placed = kinds.into_iter().find(|(.., request)| self.place(request)).map(|(_, waiting, _)| waiting);
        if let Some(waiting) = placed {
            queue.remove(&waiting);
            self.waits.push(now.saturating_sub(waiting.since));
        } else if let Some((_, request)) = queue.pop_first() {
            self.drop(&request);
        }
    }
}

/// A request in the queue, the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    size: std::cmp::Reverse<(u32, u32)>,
    class: Request,
    since: u64,
}

impl Waiting {
    fn new(request: &Request, since: u64) -> Self {
        Self { size: std::cmp::Reverse((request.demand_milli(), request.cpu_milli)), class: *request, since }
    }
}

/// A fleet that decides by a policy alone.
trait Decider {
    fn worth(&mut self, request: &Request) -> Option<i32>;
    fn decide(&mut self, request: &Request, draws: &mut Draws) -> Option<Place>;
    fn take(&mut self, request: &Request, place: Place) -> bool;
}

impl Decider for Packer {
    fn worth(&mut self, request: &Request) -> Option<i32> {
        self.worth(request)
    }

    fn decide(&mut self, request: &Request, draws: &mut Draws) -> Option<Place> {
        self.decide(request, |n| draws.below(n))
    }

    fn take(&mut self, request: &Request, place: Place) -> bool {
        self.take(request, place)
    }
}

impl Decider for Scan {
    fn worth(&mut self, request: &Request) -> Option<i32> {
        self.worth(request)
    }

    fn decide(&mut self, request: &Request, _draws: &mut Draws) -> Option<Place> {
        self.decide(request)
    }

    fn take(&mut self, request: &Request, place: Place) -> bool {
        self.take(request, place)
    }
}

/// A policy alone, with its judge.
struct Judged<D> {
    decider: D,
    checker: Checker,
}

impl Judged<Packer> {
    fn of(machines: &[Machine], typical: &Arc<Typical>, policy: Policy) -> Self {
        let machines = machines.to_vec();
        let decider = Packer::new(policy, machines.clone(), Arc::clone(typical));
        Self { decider, checker: Checker { machines } }
    }
}

impl<D: Decider> Placer for Judged<D> {
    fn worth(&mut self, request: &Request) -> Option<i32> {
        self.decider.worth(request)
    }

    fn place(&mut self, request: &Request, draws: &mut Draws) -> Placed {
        let place = self.decider.decide(request, draws);
        let is_sound = self.checker.is_sound(request, place);
        let is_placed = place.is_some_and(|place| self.decider.take(request, place));
        Placed { is_placed, is_sound }
    }
}

/// Follows each decision on machines of its own, by brute force.
struct Checker {
    machines: Vec<Machine>,
}

impl Checker {
    fn is_sound(&mut self, request: &Request, place: Option<Place>) -> bool {
        let Some(place) = place else { return !self.machines.iter().any(|machine| machine.fits(request)) };
        let left = self.machines.get(place.machine).and_then(|machine| machine.after(request, place.gpu));
        left.is_some_and(|left| {
            self.machines[place.machine] = left;
            true
        })
    }
}
