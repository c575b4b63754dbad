//! A node as one row of numbers: what a shape that asks for a plain thing needs to know of it. A request of one
//! of many shapes looks again at every node that changed since its shape was last asked for; most nodes and most
//! shapes are plain, and then a look reads this row and nothing else.
//!
//! It decides nothing of its own: the answer is that of [`fit`](super::fit), which debug builds compare at each look.

use std::cmp::Reverse;
use std::hash::{Hash, Hasher};

use claw_proto::ids::NodeId;
use claw_proto::spec::{Placement, RuntimeKind};
use claw_proto::validation::{GPU_MILLI, ValidSpec};
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::workloads::PlacementReason as R;
use rustc_hash::FxHasher;

use super::likely::{Losses, Standing, Taken};
use super::rank::Rank;
use super::view::{Gpu, View};
use super::{Score, spreads};

/// GPUs of a row at most.
const GPUS_MAX: usize = 8;

/// What stands where a NUMA node is not known.
const NO_NUMA: u8 = u8::MAX;

/// A node whose GPUs are all of one kind and of one island or none, none of them cut.
#[derive(Debug, Clone)]
pub(super) struct Row {
    node_id: NodeId,
    /// Why it takes nothing.
    closed: Option<R>,
    simulated: bool,
    /// Its GPUs are of one NVLink island.
    linked: bool,
    /// GPUs that are healthy, by their place, as bits.
    healthy: u8,
    /// GPUs of which nobody has a part, healthy or not, as bits.
    whole: u8,
    /// How many of these there are: counting bits is a dozen steps where the processor is not known to do it.
    n_healthy: u32,
    n_whole: u32,
    n_whole_healthy: u32,
    /// Of the GPU of which most is free, thousandths.
    most_free_milli: u16,
    /// Free thousandths of each GPU, none of those that are not healthy.
    free_milli: [u16; GPUS_MAX],
    /// The NUMA node of each GPU, as the node counts them; [`NO_NUMA`] where that is not known.
    numa: [u8; GPUS_MAX],
    /// Memory of each GPU, MiB.
    gpu_memory_mib: u64,
    cpu_millis: u64,
    memory_mib: u64,
    cpu_left_millis: u64,
    memory_left_mib: u64,
    disk_left_mib: u64,
    standing: Option<Standing>,
    likeness: u32,
}

/// What a plain shape asks for, on one node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    gpus: u32,
    gpu_milli: u16,
    is_share: bool,
    /// An earlier one of its models comes before a later one.
    pub(super) is_ranked: bool,
    gpu_memory_mib_min: u64,
    cpu_millis: u64,
    memory_mib: u64,
    disk_mib: u64,
    /// Of GPUs in all, thousandths.
    gpu_milli_total: u32,
}

impl Wish {
    /// Of a specification that is for one node, asks for no slice and does not want to be spread.
    pub(super) fn of(spec: &ValidSpec) -> Option<Self> {
        let demand = spec.node_demand();
        let is_plain = spec.nodes() == 1 && demand.mig_profile.is_none();
        (is_plain && !spreads(spec)).then(|| Self {
            gpus: demand.gpus,
            gpu_milli: demand.gpu_milli,
            is_share: demand.is_share(),
            is_ranked: demand.gpu_models_ranked,
            gpu_memory_mib_min: demand.gpu_memory_mib_min,
            cpu_millis: demand.cpu_millis,
            memory_mib: demand.memory_mib,
            disk_mib: demand.disk_mib,
            gpu_milli_total: u32::try_from(demand.gpu_milli_total()).unwrap_or(u32::MAX),
        })
    }
}

/// Two nodes that have and had the same answer it alike: it asks for a plain thing, wherever that is.
pub(super) fn takes_twins(spec: &ValidSpec, wish: Option<&Wish>) -> bool {
    let names_nodes = |placement: &Placement| {
        // Taints are part of a make, who wants to be spread wishes for nothing plain, and whom it is kept apart from
        // no node knows.
        let Placement { node, exclude_nodes, zone, labels, strategy: _, tolerations: _, anti_affinity: _ } = placement;
        node.is_some() || zone.is_some() || !exclude_nodes.is_empty() || !labels.is_empty()
    };
    wish.is_some() && !spec.spec().placement.as_ref().is_some_and(names_nodes)
}

/// The GPUs that would be taken, by their places as bits, and what that costs likely work.
struct Chosen {
    taken: u8,
    lost: u32,
}

/// The lowest so many of these bits.
fn lowest(bits: u8, n: u32) -> u8 {
    let (mut taken, mut left) = (0_u8, bits);
    for _ in 0..n {
        taken |= left & left.wrapping_neg();
        left &= left.wrapping_sub(1);
    }
    taken
}

impl Row {
    /// The row of a node, if it is plain.
    pub(super) fn of(view: &View) -> Option<Self> {
        let (capabilities, node, first) = (view.capabilities()?, &*view.node, view.gpus.first());
        let is_like_the_first = |pair: &[Gpu]| {
            let [a, b] = pair else { return true };
            a.island == b.island && a.index < b.index
        };
        let is_plain = view.gpus.len() <= GPUS_MAX
            && view.gpus.iter().all(|gpu| !gpu.is_slice && gpu.kind == 0)
            && view.gpus.windows(2).all(is_like_the_first);
        if !is_plain {
            return None;
        }
        let closed = match (node.link, node.schedulable) {
            (NodeLink::Online, Schedulable::Active) => None,
            (NodeLink::Online, _) => Some(R::NodeUnschedulable),
            _ => Some(R::NodeUnreachable),
        };
        let bits = |has: &dyn Fn(&Gpu) -> bool| {
            let each = view.gpus.iter().enumerate().filter(|(_, gpu)| has(gpu));
            each.fold(0_u8, |bits, (at, _)| bits | 1 << at)
        };
        let (mut free_milli, mut numa) = ([0; GPUS_MAX], [NO_NUMA; GPUS_MAX]);
        for ((free, numa), gpu) in free_milli.iter_mut().zip(&mut numa).zip(&view.gpus) {
            *free = if gpu.is_healthy { gpu.free_milli } else { 0 };
            *numa = gpu.numa.and_then(|numa| u8::try_from(numa).ok()).unwrap_or(NO_NUMA);
        }
        let usage = &node.usage;
        let (healthy, whole) = (bits(&|gpu| gpu.is_healthy), bits(&|gpu| gpu.free_milli == GPU_MILLI));
        let mut row = Self {
            node_id: node.node_id,
            closed,
            simulated: capabilities.simulated,
            linked: first.is_some_and(|gpu| gpu.island.is_some()),
            healthy,
            whole,
            n_healthy: healthy.count_ones(),
            n_whole: whole.count_ones(),
            n_whole_healthy: (whole & healthy).count_ones(),
            most_free_milli: free_milli.into_iter().max().unwrap_or(0),
            free_milli,
            numa,
            gpu_memory_mib: first.map_or(0, |gpu| gpu.memory_mib),
            cpu_millis: capabilities.cpu_millis,
            memory_mib: capabilities.memory_mib,
            cpu_left_millis: capabilities.cpu_millis.saturating_sub(usage.cpu_millis),
            memory_left_mib: capabilities.memory_mib.saturating_sub(usage.memory_mib),
            disk_left_mib: capabilities.disk_mib.saturating_sub(usage.disk_mib),
            standing: view.standing,
            likeness: 0,
        };
        row.likeness = row.hashed();
        Some(row)
    }

    /// By the lower half of the hash: its upper one knows little of large numbers.
    #[expect(clippy::cast_possible_truncation, reason = "half of it is enough")]
    fn hashed(&self) -> u32 {
        let mut hasher = FxHasher::default();
        (self.free_milli, self.whole, self.gpu_memory_mib, self.cpu_left_millis, self.memory_left_mib)
            .hash(&mut hasher);
        hasher.finish() as u32
    }

    /// A number that rows share that are alike, and few others.
    pub(super) const fn likeness(&self) -> u32 {
        self.likeness
    }

    /// It differs from the other in nothing but whose it is.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self { node_id: _, closed, simulated, linked, healthy, whole, free_milli, numa, .. } = *self;
        let Self { gpu_memory_mib, cpu_millis, memory_mib, cpu_left_millis, memory_left_mib, disk_left_mib, .. } =
            *self;
        (closed, simulated, linked) == (other.closed, other.simulated, other.linked)
            && (healthy, whole, free_milli, numa) == (other.healthy, other.whole, other.free_milli, other.numa)
            && (gpu_memory_mib, cpu_millis, memory_mib) == (other.gpu_memory_mib, other.cpu_millis, other.memory_mib)
            && (cpu_left_millis, memory_left_mib, disk_left_mib)
                == (other.cpu_left_millis, other.memory_left_mib, other.disk_left_mib)
            && self.standing.as_ref().map(Standing::state) == other.standing.as_ref().map(Standing::state)
    }

    /// How well the node takes it with this runtime and a model of this number among its choices, or the most severe
    /// reason why not, where nothing that does not change keeps it out.
    pub(super) fn judge(&self, wish: &Wish, with: (RuntimeKind, u8), losses: &Losses) -> Result<Rank, R> {
        if let Some(closed) = self.closed {
            return Err(closed);
        }
        if self.n_healthy < wish.gpus {
            return Err(R::GpuUnhealthy);
        }
        if !self.has_free(wish) {
            return Err(R::GpuBusy);
        }
        if self.cpu_left_millis < wish.cpu_millis {
            return Err(R::CpuBusy);
        }
        if self.memory_left_mib < wish.memory_mib {
            return Err(R::MemoryBusy);
        }
        if self.disk_left_mib < wish.disk_mib {
            return Err(R::DiskBusy);
        }
        let chosen = self.choose(self.free(wish), wish, losses);
        Ok(self.rank(&chosen, wish, with))
    }

    /// The GPUs that a wish would get of a node that takes it, by their places as bits.
    pub(super) fn taken(&self, wish: &Wish, losses: &Losses) -> Option<u8> {
        self.has_free(wish).then(|| self.choose(self.free(wish), wish, losses).taken)
    }

    /// It has as many free GPUs, or one of which so much is free, as is wished for.
    const fn has_free(&self, wish: &Wish) -> bool {
        if wish.is_share { self.most_free_milli >= wish.gpu_milli } else { self.n_whole_healthy >= wish.gpus }
    }

    fn choose(&self, free: u8, wish: &Wish, losses: &Losses) -> Chosen {
        if wish.is_share { self.share(free, wish, losses) } else { self.first(free, wish, losses) }
    }

    /// GPUs that could be given, as bits.
    fn free(&self, wish: &Wish) -> u8 {
        if wish.gpus == 0 {
            return 0;
        }
        if wish.gpu_milli == GPU_MILLI {
            return self.whole & self.healthy;
        }
        let each = self.free_milli.iter().enumerate();
        let free = each.fold(0_u8, |free, (at, milli)| free | u8::from(*milli >= wish.gpu_milli) << at);
        free & self.healthy
    }

    /// The first of those that are free, of as few NUMA nodes as can be.
    fn first(&self, free: u8, wish: &Wish, losses: &Losses) -> Chosen {
        let may_choose = wish.gpus > 1 && self.n_whole_healthy > wish.gpus;
        let near = if may_choose { self.nearest(free, wish.gpus) } else { None };
        let taken = near.unwrap_or_else(|| lowest(free, wish.gpus));
        Chosen { taken, lost: self.lost(taken, wish, losses) }
    }

    /// The GPUs of each NUMA node among these, as bits; nothing if that is not known of all.
    fn numas(&self, gpus: u8) -> Option<[u8; GPUS_MAX]> {
        let mut masks = [0_u8; GPUS_MAX];
        for at in (0..GPUS_MAX).filter(|at| gpus >> at & 1 == 1) {
            *masks.get_mut(usize::from(self.numa[at]))? |= 1 << at;
        }
        Some(masks)
    }

    /// See [`nearest_first`](super::fit); nothing where all are of one NUMA node, or that is not known.
    fn nearest(&self, free: u8, wanted: u32) -> Option<u8> {
        let mut masks = self.numas(free).filter(|masks| masks.iter().filter(|mask| **mask != 0).count() > 1)?;
        let order = |mask: &u8| (mask.count_ones(), mask.trailing_zeros());
        if let Some(mask) = masks.iter().copied().filter(|mask| mask.count_ones() >= wanted).min_by_key(order) {
            return Some(lowest(mask, wanted));
        }
        masks.sort_unstable_by_key(|mask| (Reverse(mask.count_ones()), mask.trailing_zeros()));
        let more = |taken: u8, mask: &u8| taken | lowest(*mask, wanted - taken.count_ones());
        Some(masks.iter().fold(0, more))
    }

    /// The one that costs likely work least, and of equals the fullest.
    fn share(&self, free: u8, wish: &Wish, losses: &Losses) -> Chosen {
        let mut best: Option<(u32, u16, u8)> = None;
        for at in (0..GPUS_MAX).filter(|at| free >> at & 1 == 1) {
            let milli = self.free_milli[at];
            // Of equally free ones the first stands for all.
            if (0..at).any(|first| free >> first & 1 == 1 && self.free_milli[first] == milli) {
                continue;
            }
            let lost = self.lost(1 << at, wish, losses);
            if best.is_none_or(|(least, left, _)| (lost, milli) < (least, left)) {
                best = Some((lost, milli, 1 << at));
            }
        }
        best.map_or(Chosen { taken: 0, lost: 0 }, |(lost, _, taken)| Chosen { taken, lost })
    }

    fn lost(&self, taken: u8, wish: &Wish, losses: &Losses) -> u32 {
        let taken = Taken {
            gpus: taken,
            gpu_milli: wish.gpu_milli,
            gpu_milli_total: wish.gpu_milli_total,
            cpu_millis: wish.cpu_millis,
        };
        losses.loss_of(self.standing.as_ref(), taken)
    }

    /// They are on several NUMA nodes, if that is known of all.
    fn splits(&self, taken: u8) -> bool {
        self.numas(taken).is_some_and(|masks| masks.iter().filter(|mask| **mask != 0).count() > 1)
    }

    /// See [`Score`].
    fn rank(&self, chosen: &Chosen, wish: &Wish, (runtime, fallback): (RuntimeKind, u8)) -> Rank {
        let (taken, n_taken) = (chosen.taken, wish.gpus);
        debug_assert_eq!(taken.count_ones(), n_taken, "as many as are wished for");
        let left = |left: u64, wanted: u64, total: u64| (left - wanted) * 1000 / total.max(1);
        let shared = if wish.is_share { self.free_milli.get(taken.trailing_zeros() as usize) } else { None };
        let shared = shared.copied();
        // Whole ones are taken where whole ones are wished for, and one may be where a share is.
        let n_opened = if wish.is_share { u32::from(shared == Some(GPU_MILLI)) } else { n_taken };
        let touched = if n_taken == 0 { 0 } else { self.n_whole_healthy };
        let over_mib = self.gpu_memory_mib.saturating_sub(wish.gpu_memory_mib_min);
        Rank::of(&Score {
            simulated: runtime == RuntimeKind::Sim || (self.simulated && wish.gpus > 0),
            unreserved: true,
            fallback,
            broken_island: n_taken > 1 && !self.linked,
            split_numa: n_taken > 1 && !self.linked && self.splits(taken),
            lost: chosen.lost,
            opened: shared == Some(GPU_MILLI),
            milli_left: shared.map_or(0, |free| free - wish.gpu_milli),
            island_left: touched - n_opened,
            gpus_left: self.n_whole - n_opened,
            gpu_memory_over_mib: over_mib * u64::from(n_taken),
            host_left_permille: left(self.cpu_left_millis, wish.cpu_millis, self.cpu_millis)
                + left(self.memory_left_mib, wish.memory_mib, self.memory_mib),
            node_id: self.node_id,
        })
    }
}
