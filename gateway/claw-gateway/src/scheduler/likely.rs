//! What work is likely to come, learned from what was submitted ([`LikelyWork`]), and
//! what a placement takes from it.
//!
//! The measure is that of [`packing`]: free GPUs that typical work could not use (FGD,
//! Weng et al., USENIX ATC'23), free GPUs that a node's cores will not suffice for, a
//! price on nodes that are still whole, and one on models that others cannot do without.
//! It is learned anew as the history doubles, so that a submission pays for it once.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use claw_proto::validation::Demand;
use serde::{Deserialize, Serialize};

use super::packing::{self, GPUS_MAX, Machine, ModelSet, Request, Typical};
use super::view::{Gpu, View};
use crate::Cluster;

/// Nothing is learned from less.
const SUBMISSIONS_MIN: u64 = 64;
/// From so many on it is learned anew after as many again, or four for each node.
const SUBMISSIONS_FULL: u64 = 4_096;
/// Models of GPUs that are told apart, at most.
const MODELS_MAX: usize = 63;
/// States of nodes that are remembered, at most.
const REMEMBERED_MAX: usize = 1 << 17;
/// A loss of nothing; more is worse. Within 13 bits for any node of [`GPUS_MAX`] GPUs.
const NO_LOSS: i32 = 4_096;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
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
            let models = match kind.model.as_deref().map(at) {
                None => ModelSet::default(),
                // Of a model that is not there nothing is lost.
                Some(at) => ModelSet(1 << at.unwrap_or(MODELS_MAX)),
            };
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
    pub(crate) fn is_due(&self, submitted: u64, n_nodes: usize) -> bool {
        let since = submitted.saturating_sub(self.work.learned_at);
        let enough = match self.work.learned_at {
            0 => SUBMISSIONS_MIN,
            at if at < SUBMISSIONS_FULL => at,
            _ => SUBMISSIONS_FULL.max(4 * n_nodes as u64),
        };
        since >= enough
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
                model: demand.gpu_model.as_deref().map(str::to_ascii_lowercase),
            };
            *kinds.entry(kind).or_default() += w.spec.nodes();
        }
        let models = cluster.nodes.capacity_by_model();
        Self::from(LikelyWork { learned_at: cluster.workloads.submitted(), kinds: kinds.into_iter().collect(), models })
    }

    fn model(&self, name: &str) -> u8 {
        let at = self.models.iter().position(|model| model.eq_ignore_ascii_case(name));
        u8::try_from(at.unwrap_or(MODELS_MAX)).unwrap_or(u8::MAX)
    }
}

/// What placements would take from likely work, with what was counted before.
#[derive(Debug, Default)]
pub(super) struct Losses {
    likely: Arc<Likely>,
    known: RefCell<HashMap<Machine, f64, BuildHasherDefault<DefaultHasher>>>,
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
    pub(super) fn machine(&self, view: &View, cpu_free_millis: u64) -> Option<Machine> {
        self.likely.typical.as_ref()?;
        let mut machine = Machine {
            cpu_milli: u32::try_from(cpu_free_millis).unwrap_or(u32::MAX),
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
        Some(machine)
    }

    /// What it costs that so much is taken of these GPUs: less is better, and what differs by
    /// little is equal.
    pub(super) fn loss(&self, view: &View, machine: &Machine, demand: &Demand, chosen: &[Gpu]) -> u16 {
        let Some(cpu_milli) = u32::try_from(demand.cpu_millis).ok().and_then(|cpu| machine.cpu_milli.checked_sub(cpu))
        else {
            return 0;
        };
        let mut after = Machine { cpu_milli, ..*machine };
        let whole = view.gpus.iter().filter(|gpu| !gpu.is_slice);
        for (free, gpu) in after.free_milli.iter_mut().zip(whole) {
            if chosen.iter().any(|taken| taken.at == gpu.at) {
                *free = free.saturating_sub(demand.gpu_milli);
            }
        }
        let Some(typical) = &self.likely.typical else { return 0 };
        let taken_milli = if demand.mig_profile.is_some() { 0 } else { demand.gpu_milli_total() };
        let price = packing::price(machine, u32::try_from(taken_milli).unwrap_or(u32::MAX), typical);
        let worth = packing::worth(self.lost(machine, typical), self.lost(&after, typical), price);
        u16::try_from((NO_LOSS - worth).clamp(0, 2 * NO_LOSS - 1)).unwrap_or(0)
    }

    fn lost(&self, machine: &Machine, typical: &Typical) -> f64 {
        let mut known = self.known.borrow_mut();
        if let Some(lost) = known.get(machine) {
            return *lost;
        }
        let lost = packing::lost(machine, typical);
        if known.len() < REMEMBERED_MAX {
            known.insert(*machine, lost);
        }
        lost
    }
}
