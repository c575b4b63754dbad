//! Whom a full queue turns away before it has to, where more will be asked for than there is.
//!
//! Work that is placed first leaves the rest what nobody can use: GPUs without cores, pieces of GPUs. Where it is
//! known that part of all work finds no room anyway, it is better that part which costs the others most. Which order
//! suits a fleet and its work best is found by [`rehearsed`] on work that is drawn from what is typical; where none
//! does better, nobody is turned away early.

use std::sync::Arc;

use claw_proto::closed_enum;

use super::machine::{Machine, Request};
use super::replay::{Draws, Protocol, replay_order};
use super::typical::Typical;

/// Orders of work that each order of turning away is tried with.
const REHEARSALS: u64 = 2;
/// An order has to allocate so much more of the fleet than none, percent: less is chance.
const BETTER_PERCENT: f64 = 0.1;
/// Seeds of rehearsals, away from those of replays.
const SEED: u64 = 0x5eed_0000;

closed_enum! {
    /// Who is turned away early. Work without GPUs never is.
    Shed {
        /// Nobody: only what fits nowhere goes.
        Nobody = "nobody",
        /// Whose best place costs likely work most; before all who has none.
        Costliest = "costliest",
        /// The same, for each GPU that it asks for.
        CostliestForItsGpus = "costliest_for_its_gpus",
        /// Who wants most cores for each GPU.
        MostCores = "most_cores"
    }
}

impl Shed {
    /// Of these, each with what its best place is worth, the one who goes first.
    pub(super) fn first<'a, K>(
        self,
        waiting: impl Iterator<Item = &'a K>,
        told: impl Fn(&K) -> (Option<i32>, Request),
    ) -> Option<&'a K> {
        let of_gpus = waiting.filter(|one| told(one).1.gpus > 0);
        // Of two fractions the products across tell which is larger, without rounding.
        let for_its_gpus = |a: i64, a_milli: u32, b: i64, b_milli: u32| {
            (i128::from(a) * i128::from(b_milli)).cmp(&(i128::from(b) * i128::from(a_milli)))
        };
        match self {
            Self::Nobody => None,
            Self::Costliest => of_gpus.min_by_key(|one| told(one).0),
            Self::CostliestForItsGpus => of_gpus.min_by(|a, b| {
                let ((a_worth, a), (b_worth, b)) = (told(a), told(b));
                let Some((a_worth, b_worth)) = a_worth.zip(b_worth) else { return a_worth.cmp(&b_worth) };
                for_its_gpus(a_worth.into(), a.demand_milli(), b_worth.into(), b.demand_milli())
            }),
            Self::MostCores => of_gpus.min_by(|a, b| {
                let (a, b) = (told(a).1, told(b).1);
                for_its_gpus(b.cpu_milli.into(), b.demand_milli(), a.cpu_milli.into(), a.demand_milli())
            }),
        }
    }
}

/// The order that allocates most of the fleet in rehearsals of a protocol.
pub fn rehearsed(machines: &[Machine], typical: &Arc<Typical>, protocol: Protocol) -> Shed {
    if protocol.window == 0 || protocol.offered <= 1.0 {
        return Shed::Nobody;
    }
    let allocated = |shed: Shed| -> f64 {
        let of_one = |n: u64| {
            let order = likely(machines, typical, protocol.offered, &mut Draws::new(SEED + n));
            replay_order((machines, &order), typical, Protocol { shed, ..protocol }, SEED + n).allocation_percent
        };
        (0..REHEARSALS).map(of_one).sum::<f64>() / REHEARSALS as f64
    };
    let least = allocated(Shed::Nobody) + BETTER_PERCENT;
    let tried = Shed::ALL.iter().filter(|shed| **shed != Shed::Nobody).map(|shed| (allocated(*shed), *shed));
    let best = tried.filter(|(percent, _)| *percent > least).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or(Shed::Nobody, |(_, shed)| shed)
}

/// Work as it is likely to come, as much of it as is offered.
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
