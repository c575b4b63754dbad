//! Who is served first of a full queue, and whom it turns away before it has to where more will be asked for than
//! there is.
//!
//! Work that is placed first leaves the rest what nobody can use: GPUs without cores, pieces of GPUs. Where it is
//! known that part of all work finds no room anyway, it is better that part which costs the others most. What a place
//! is worth is the policy's own measure. Which orders suit a fleet and its work is found by [`rehearsed`] on work that
//! is drawn from what is typical; where none does better, nobody is turned away early.

use std::sync::Arc;

use claw_proto::closed_enum;

use super::machine::{Machine, Request};
use super::replay::{Draws, Protocol, replay_order};
use super::typical::Typical;

/// Orders of work that each manner is tried with.
const REHEARSALS: u64 = 2;
/// An order has to allocate so much more of the fleet than none, percent: less is chance.
const BETTER_PERCENT: f64 = 0.1;
/// Seeds of rehearsals, away from those of replays.
const SEED: u64 = 0x5eed_0000;

closed_enum! {
    /// Who goes first of those that fit somewhere.
    Serve {
        /// Whose best place is worth most.
        PacksBest = "packs_best",
        /// The same, for each GPU that it asks for.
        PacksBestForItsGpus = "packs_best_for_its_gpus"
    }
}

closed_enum! {
    /// Who is turned away early. Work without GPUs never is.
    Shed {
        /// Nobody: only what fits nowhere goes.
        Nobody = "nobody",
        /// Whose best place is worth least; before all who has none.
        Costliest = "costliest",
        /// The same, for each GPU that it asks for.
        CostliestForItsGpus = "costliest_for_its_gpus",
        /// Who wants most cores for each GPU.
        MostCores = "most_cores"
    }
}

/// How a full queue is worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Who goes first.
    pub serve: Serve,
    /// Who goes early, where more is offered than there is.
    pub shed: Shed,
}

impl Manner {
    /// Who packs best goes first, and nobody before it has to.
    pub const PLAIN: Self = Self { serve: Serve::PacksBest, shed: Shed::Nobody };
}

/// So much for each GPU that is asked for, in millionths for each thousandth of one; who asks for none counts as if it
/// were one thousandth.
fn for_its_gpus(much: i64, request: &Request) -> i64 {
    much * 1_000_000 / i64::from(request.demand_milli().max(1))
}

impl Serve {
    /// More goes first; nothing for who has no place, or of whose place that is not known.
    pub(super) fn key(self, worth: Option<i32>, request: &Request) -> Option<i64> {
        worth.map(|worth| match self {
            Self::PacksBest => worth.into(),
            Self::PacksBestForItsGpus => for_its_gpus(worth.into(), request),
        })
    }
}

impl Shed {
    /// Less goes first; nothing for who is not turned away early.
    pub(super) fn key(self, worth: Option<i32>, request: &Request) -> Option<i64> {
        // Who has no place goes before all others.
        let worth = worth.map_or(i64::from(i32::MIN), i64::from);
        let key = match self {
            Self::Nobody => return None,
            Self::Costliest => worth,
            Self::CostliestForItsGpus => for_its_gpus(worth, request),
            Self::MostCores => -for_its_gpus(request.cpu_milli.into(), request),
        };
        (request.gpus > 0).then_some(key)
    }
}

/// The manner that does best in rehearsals of a protocol: first who is served, then who goes early, each order only if
/// it allocates [`BETTER_PERCENT`] more than without it.
pub fn rehearsed(machines: &[Machine], typical: &Arc<Typical>, protocol: Protocol) -> Manner {
    if protocol.window == 0 {
        return Manner::PLAIN;
    }
    let allocated = |manner: Manner| -> f64 {
        let protocol = Protocol { manner, arrival: protocol.offered, ..protocol };
        let of_one = |n: u64| {
            let order = likely(machines, typical, protocol.offered, &mut Draws::new(SEED + n));
            replay_order((machines, &order), typical, protocol, SEED + n).allocation_percent
        };
        (0..REHEARSALS).map(of_one).sum::<f64>() / REHEARSALS as f64
    };
    let better = |plain: (f64, Manner), others: &mut dyn Iterator<Item = Manner>| {
        let tried = others.map(|manner| (allocated(manner), manner));
        let best = tried.filter(|(percent, _)| *percent > plain.0 + BETTER_PERCENT).max_by(|a, b| a.0.total_cmp(&b.0));
        best.unwrap_or(plain)
    };
    let serves = Serve::ALL.iter().map(|serve| Manner { serve: *serve, ..Manner::PLAIN });
    let plain = (allocated(Manner::PLAIN), Manner::PLAIN);
    let served = better(plain, &mut serves.filter(|manner| *manner != Manner::PLAIN));
    if protocol.offered <= 1.0 {
        return served.1;
    }
    let sheds = Shed::ALL.iter().filter(|shed| **shed != Shed::Nobody);
    better(served, &mut sheds.map(|shed| Manner { shed: *shed, ..served.1 })).1
}

/// Work as it is likely to come, as much of it as is offered. The table knows nothing of memory.
fn likely(machines: &[Machine], typical: &Typical, offered: f64, draws: &mut Draws) -> Vec<Request> {
    const OF: usize = 1 << 24;
    let capacity: f64 = machines.iter().map(|machine| f64::from(machine.free_gpu_milli())).sum();
    let mut upto = 0.0;
    let shares: Vec<(f64, Request)> = typical
        .classes()
        .iter()
        .map(|(request, share)| {
            upto += share;
            (upto, *request)
        })
        .collect();
    let asks = shares.iter().any(|(_, request)| request.demand_milli() > 0);
    let (mut order, mut demand) = (Vec::new(), 0.0);
    while asks && demand < offered * capacity {
        let drawn = draws.below(OF) as f64 / OF as f64;
        let at = shares.partition_point(|(upto, _)| *upto <= drawn).min(shares.len() - 1);
        demand += f64::from(shares[at].1.demand_milli());
        order.push(shares[at].1);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::packing::ModelSet;

    fn asks(gpus: u8, cpu_milli: u32) -> Request {
        Request { cpu_milli, memory_mib: 1, gpus, gpu_milli: 1_000, models: ModelSet(0) }
    }

    #[test]
    fn each_order_puts_another_first() {
        // What each wants, and what its best place is worth.
        let waiting = [
            (asks(1, 2_000), Some(-5)),
            (asks(8, 8_000), Some(-8)),
            (asks(4, 1_000), Some(-9)),
            (asks(2, 8_000), Some(-6)),
            (asks(0, 1), Some(-99)),
        ];
        let least = |shed: Shed| {
            let keys = waiting.iter().filter_map(|(request, worth)| shed.key(*worth, request));
            keys.enumerate().min_by_key(|(_, key)| *key).map(|(at, _)| at)
        };
        let sheds = Shed::ALL.iter().map(|shed| least(*shed)).collect::<Vec<_>>();
        assert_eq!(sheds, [None, Some(2), Some(0), Some(3)]);
        let most = |serve: Serve| {
            let keys = waiting.iter().enumerate().map(|(at, (request, worth))| (serve.key(*worth, request), at));
            keys.max().map(|(_, at)| at)
        };
        assert_eq!(Serve::ALL.iter().map(|serve| most(*serve)).collect::<Vec<_>>(), [Some(0), Some(1)]);
        assert!(Shed::Costliest.key(None, &waiting[0].0) < Shed::Costliest.key(Some(-1_000), &waiting[0].0));
    }
}
