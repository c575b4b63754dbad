//! What work is likely to come, learned from what was submitted ([`LikelyWork`]), and
//! what a placement takes from it.
//!
//! The measure is that of [`packing`]: free GPUs that typical work could not use (FGD,
//! Weng et al., USENIX ATC'23), free GPUs that a node's cores will not suffice for, a
//! price on nodes that are still whole, and one on models that others cannot do without.
//! It is learned anew as the history grows by four, so that a submission pays for it once.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use claw_proto::validation::Demand;
use serde::{Deserialize, Serialize};

use super::packing::{self, GPU_BITS, GPUS_MAX, KIND_BITS, Machine, ModelSet, Request, Typical};
use super::view::{Gpu, View};
use crate::Cluster;

/// It is learned anew when there are four times as many, and at last after so many again, or
/// four for each node.
const SUBMISSIONS_FULL: u64 = 4_096;
/// Models of GPUs that are told apart, at most.
const MODELS_MAX: usize = 63;
/// States of nodes that are remembered, at most.
const REMEMBERED_MAX: usize = 1 << 17;
/// Kinds of work that are told apart, at most: the most frequent.
const KINDS_MAX: usize = 256;
/// A loss of nothing; more is worse. All losses stay within [`LOSS_BITS`].
const NO_LOSS: u32 = 1 << 19;
/// Bits of a loss: GPU thousandths of a node, with a price on a model that few have.
pub(super) const LOSS_BITS: u32 = 20;

/// Work that was submitted, by kind, and the GPUs that there were for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LikelyWork {
    /// Submissions when it was learned.
    learned_at: u64,
    /// Kinds with how often each was asked for, one for each node of a workload.
    kinds: Vec<(LikelyKind, u32)>,
    /// GPU thousandths of each model.
    models: BTreeMap<String, u64>,
}

/// What a kind of work takes of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct LikelyKind {
    gpus: u32,
    gpu_milli: u16,
    cpu_millis: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    models: Vec<String>,
}

/// The same, ready to be asked.
#[derive(Debug, Default)]
pub struct Likely {
    work: LikelyWork,
    models: Vec<String>,
    typical: Option<Typical>,
}

impl PartialEq for Likely {
    fn eq(&self, other: &Self) -> bool {
        self.work == other.work
    }
}

impl From<LikelyWork> for Likely {
    fn from(work: LikelyWork) -> Self {
        let models: Vec<String> = work.models.keys().take(MODELS_MAX).cloned().collect();
        let at = |name: &str| models.iter().position(|model| model == name);
        let mut capacity_milli = [0_u64; 64];
        for (name, milli) in &work.models {
            if let Some(at) = at(name) {
                capacity_milli[at] = *milli;
            }
        }
        let request = |kind: &LikelyKind| {
            // Of a model that is not there nothing is lost.
            let bits = kind.models.iter().map(|model| 1 << at(model).unwrap_or(MODELS_MAX));
            let models = bits.reduce(|all, bit: u64| all | bit).map_or_else(ModelSet::default, ModelSet);
            Request {
                cpu_milli: u32::try_from(kind.cpu_millis).unwrap_or(u32::MAX),
                memory_mib: 0,
                gpus: u8::try_from(kind.gpus).unwrap_or(u8::MAX),
                gpu_milli: kind.gpu_milli,
                models,
            }
        };
        let mut counts: BTreeMap<Request, usize> = BTreeMap::new();
        for (kind, n) in &work.kinds {
            *counts.entry(request(kind)).or_default() += *n as usize;
        }
        let typical = (!counts.is_empty()).then(|| Typical::of_counts(counts, &capacity_milli));
        Self { work, models, typical }
    }
}

impl Likely {
    /// What it was learned from.
    pub fn work(&self) -> &LikelyWork {
        &self.work
    }

    /// It is time to learn anew.
    pub(crate) fn is_due(&self, cluster: &Cluster) -> bool {
        let (submitted, n_nodes) = (cluster.workloads.submitted(), cluster.nodes.len() as u64);
        // Each time every known shape looks at every node: what is between pays for that.
        let enough = match self.work.learned_at {
            0 => cluster.policy.learn_after,
            at => (3 * at).min(SUBMISSIONS_FULL.max(4 * n_nodes)),
        };
        submitted.saturating_sub(self.work.learned_at) >= enough
    }

    /// From all workloads that are known, ended ones as well.
    pub(crate) fn learn(cluster: &Cluster) -> Self {
        let mut kinds: BTreeMap<LikelyKind, u32> = BTreeMap::new();
        for w in cluster.workloads.iter().filter(|w| w.spec.demand().mig_profile.is_none()) {
            let demand = w.spec.node_demand();
            let kind = LikelyKind {
                gpus: demand.gpus,
                gpu_milli: demand.gpu_milli,
                cpu_millis: demand.cpu_millis,
                models: demand.gpu_models.iter().map(|model| model.to_ascii_lowercase()).collect(),
            };
            *kinds.entry(kind).or_default() += w.spec.nodes();
        }
        let models = cluster.nodes.capacity_by_model();
        let mut kinds: Vec<(LikelyKind, u32)> = kinds.into_iter().collect();
        kinds.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        kinds.truncate(KINDS_MAX);
        Self::from(LikelyWork { learned_at: cluster.workloads.submitted(), kinds, models })
    }

    fn model(&self, name: &str) -> u8 {
        let at = self.models.iter().position(|model| model.eq_ignore_ascii_case(name));
        u8::try_from(at.unwrap_or(MODELS_MAX)).unwrap_or(u8::MAX)
    }
}

/// How a node stands for likely work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    machine: Machine,
    /// See [`Machine::state`].
    state: u128,
    is_untouched: bool,
    /// How much its model is wanted by those who can take no other.
    wanted: f64,
    /// What likely work could not use of it, GPU thousandths.
    lost: f64,
}

impl Standing {
    /// The state of the machine, on which all the rest depends.
    pub(super) const fn state(&self) -> u128 {
        self.state
    }
}

/// What a placement takes of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Its GPUs, by their places among those that are no slices, as bits.
    pub(super) gpus: u8,
    /// Of each of them, thousandths.
    pub(super) gpu_milli: u16,
    /// Of GPUs in all, thousandths.
    pub(super) gpu_milli_total: u32,
    /// CPU, thousandths of a core.
    pub(super) cpu_millis: u64,
}

/// What placements would take from likely work, with what was counted before.
#[derive(Debug, Default)]
pub(super) struct Losses {
    likely: Arc<Likely>,
    known: RefCell<HashMap<u128, f64, BuildHasherDefault<Mixed>>>,
}

/// Mixes a key that is one number: what is remembered is asked for many times in a decision.
#[derive(Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u128(u128::from(*byte));
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    fn write_u128(&mut self, key: u128) {
        let (low, high) = (key as u64 ^ self.0 ^ 0x9e37_79b9_7f4a_7c15, (key >> 64) as u64 ^ 0xbf58_476d_1ce4_e5b9);
        let product = u128::from(low) * u128::from(high);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

/// The state of a machine of which this was taken; it was there.
fn state_after(state: u128, taken: Taken) -> u128 {
    let mut milli = 0;
    let mut places = taken.gpus;
    while places != 0 {
        let shift = GPU_BITS * (GPUS_MAX - 1 - places.trailing_zeros() as usize);
        milli |= u128::from(taken.gpu_milli) << shift;
        places &= places - 1;
    }
    state - ((milli << 32 | u128::from(taken.cpu_millis)) << KIND_BITS)
}

impl Losses {
    pub(super) fn of(cluster: &Cluster) -> Self {
        Self { likely: Arc::clone(&cluster.likely), known: RefCell::default() }
    }

    /// It counts by what this fleet has learned.
    pub(super) fn is_of(&self, cluster: &Cluster) -> bool {
        Arc::ptr_eq(&self.likely, &cluster.likely)
    }

    /// How the node stands, if that can be said: it has not too many GPUs, and something was learned.
    pub(super) fn standing(&self, view: &View) -> Option<Standing> {
        let typical = self.likely.typical.as_ref()?;
        let cpu_millis = view.capabilities()?.cpu_millis.saturating_sub(view.node.usage.cpu_millis);
        let mut machine = Machine {
            cpu_milli: u32::try_from(cpu_millis).unwrap_or(u32::MAX),
            memory_mib: 0,
            free_milli: [0; GPUS_MAX],
            gpus: 0,
            model: 0,
            holds: packing::Kind::CPU,
        };
        for gpu in view.gpus.iter().filter(|gpu| !gpu.is_slice) {
            let slot = machine.free_milli.get_mut(usize::from(machine.gpus))?;
            *slot = if gpu.is_healthy { gpu.free_milli } else { 0 };
            machine.gpus += 1;
        }
        let first = view.gpus.first().and_then(|gpu| view.info(gpu));
        machine.model = first.map_or(0, |info| self.likely.model(&info.model));
        let (state, is_untouched, wanted) = (machine.state(), machine.is_untouched(), typical.wanted(machine.model));
        Some(Standing { machine, state, is_untouched, wanted, lost: self.lost(state, || machine, typical) })
    }

    /// What it costs that so much is taken of these GPUs: see [`Self::loss_of`].
    pub(super) fn loss(&self, view: &View, demand: &Demand, chosen: &[Gpu]) -> u32 {
        let whole = view.gpus.iter().filter(|gpu| !gpu.is_slice).take(GPUS_MAX).enumerate();
        let is_taken = |gpu: &Gpu| chosen.iter().any(|taken| taken.at == gpu.at);
        let gpus = whole.fold(0_u8, |bits, (place, gpu)| bits | u8::from(is_taken(gpu)) << place);
        let in_all = if demand.mig_profile.is_some() { 0 } else { demand.gpu_milli_total() };
        let gpu_milli_total = u32::try_from(in_all).unwrap_or(u32::MAX);
        let taken = Taken { gpus, gpu_milli: demand.gpu_milli, gpu_milli_total, cpu_millis: demand.cpu_millis };
        self.loss_of(view.standing.as_ref(), taken)
    }

    /// What it costs that so much is taken of a node: less is better, what differs by little is equal, and
    /// nothing where nothing can be said.
    pub(super) fn loss_of(&self, standing: Option<&Standing>, taken: Taken) -> u32 {
        let Some(typical) = &self.likely.typical else { return 0 };
        let worth = standing.and_then(|standing| self.worth(standing, taken, typical)).unwrap_or(0);
        NO_LOSS.saturating_add_signed(worth.saturating_neg()).min((1 << LOSS_BITS) - 1)
    }

    /// Nothing for a node that has not so many cores.
    fn worth(&self, standing: &Standing, taken: Taken, typical: &Typical) -> Option<i32> {
        let cpu_milli = standing.machine.cpu_milli.checked_sub(u32::try_from(taken.cpu_millis).ok()?)?;
        let after = || {
            let mut after = Machine { cpu_milli, ..standing.machine };
            for (place, free) in after.free_milli.iter_mut().enumerate() {
                *free -= if taken.gpus >> place & 1 == 1 { taken.gpu_milli } else { 0 };
            }
            after
        };
        let lost = self.lost(state_after(standing.state, taken), after, typical);
        let price = packing::price_of(standing.is_untouched, standing.wanted, taken.gpu_milli_total);
        Some(packing::worth(standing.lost, lost, price))
    }

    /// What likely work could not use of the machine in this state.
    fn lost(&self, state: u128, machine: impl FnOnce() -> Machine, typical: &Typical) -> f64 {
        let mut known = self.known.borrow_mut();
        if let Some(lost) = known.get(&state) {
            return *lost;
        }
        let lost = packing::lost(&machine(), typical);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(state, lost);
        lost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No two states of machines are taken for each other.
        #[test]
        fn a_state_tells_machines_apart(
            a in prop::collection::vec(0_u16..=1_000, 8), b in prop::collection::vec(0_u16..=1_000, 8),
            cpu in prop::collection::vec(any::<u32>(), 2), kinds in prop::collection::vec((0_u8..=8, 0_u8..64), 2),
        ) {
            let machine = |free: &[u16], at: usize| Machine {
                cpu_milli: cpu[at],
                memory_mib: 0,
                free_milli: std::array::from_fn(|gpu| free[gpu]),
                gpus: kinds[at].0,
                model: kinds[at].1,
                holds: packing::Kind::CPU,
            };
            for (a, b) in [(machine(&a, 0), machine(&b, 1)), (machine(&a, 0), machine(&a, 1)), (machine(&a, 0), machine(&b, 0))] {
                prop_assert_eq!(a.state() == b.state(), a == b);
            }
        }

        /// What is left is in the state that is counted for it.
        #[test]
        fn a_state_follows_what_is_taken(
            free in prop::collection::vec(0_u16..=1_000, 8), cpu in prop::collection::vec(0_u32..1 << 20, 2),
            gpus in any::<u8>(), gpu_milli in 0_u16..=1_000, model in 0_u8..64,
        ) {
            let free: Vec<u16> = free.into_iter().map(|free| free.max(gpu_milli)).collect();
            let (free_milli, holds) = (std::array::from_fn(|gpu| free[gpu]), packing::Kind::CPU);
            let machine = Machine { cpu_milli: cpu[0] + cpu[1], memory_mib: 0, free_milli, gpus: 8, model, holds };
            let left = |place: usize| free[place] - if gpus >> place & 1 == 1 { gpu_milli } else { 0 };
            let after = Machine { cpu_milli: cpu[0], free_milli: std::array::from_fn(left), ..machine };
            let taken = Taken { gpus, gpu_milli, gpu_milli_total: 0, cpu_millis: cpu[1].into() };
            prop_assert_eq!(state_after(machine.state(), taken), after.state());
        }
    }
}
