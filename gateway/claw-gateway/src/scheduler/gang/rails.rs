//! GPUs of several nodes on the same rails: in a fabric where the first adapters of all nodes meet at one switch, the
//! second ones at another, and so on (NVIDIA calls it rail-optimized), GPUs on one rail reach each other over one
//! switch, and all others over the spine.
//!
//! A node gives the GPUs that suit it best; of choices that suit it as well, the one on the rails of the others is
//! taken here.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::validation::GPU_MILLI;

use super::Candidate;
use crate::scheduler::fit;
use crate::scheduler::view::{Gpu, View};

/// GPUs of a node among which it is chosen: of more, those that the node gives are taken.
const FREE_MAX: usize = 10;
/// GPUs of a node that can be told apart.
const GPUS_MAX: usize = 64;
/// Rails of a node, and GPUs on one of them: of more nothing is known.
const RAILS_MAX: u16 = 16;
const ON_RAIL_MAX: u32 = 4;
/// Sets of rails that are tried as those of all parts.
const TRIED_MAX: usize = 256;

/// How many GPUs are on each rail: as many bits as GPUs, in four for each rail, so that what two have in common is
/// what both have set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rails(u64);

impl Rails {
    /// Those of these GPUs; nothing if that is not known of all.
    pub(super) fn of<'a>(gpus: impl Iterator<Item = &'a Gpu>) -> Option<Self> {
        let mut rails = 0_u64;
        for gpu in gpus {
            let first = u32::from(gpu.rail.filter(|rail| *rail < RAILS_MAX)?) * ON_RAIL_MAX;
            let next = (0..ON_RAIL_MAX).find(|more| rails >> (first + more) & 1 == 0)?;
            rails |= 1 << (first + next);
        }
        Some(Self(rails))
    }

    /// How many GPUs of the one have one of the other on their rail.
    pub(super) const fn common(self, other: Self) -> u32 {
        (self.0 & other.0).count_ones()
    }
}

/// The GPUs of each part, and how many of them are not on the rails of the others.
#[derive(Debug)]
pub(super) struct Aligned {
    pub(super) chosen: Vec<Arc<[Gpu]>>,
    pub(super) off: u32,
}

/// Choices of a node's GPUs that suit it as well as the one that it gives, by their rails: places as bits.
pub(super) type Variants = BTreeMap<Rails, u64>;

/// GPUs for these parts that are on the same rails, as many as can be; nothing where rails are not known, or nodes
/// have one for all. `is_free` says that a GPU that nobody holds is kept for nobody.
pub(super) fn align(parts: &[&Candidate<'_>], is_free: impl Fn(&View, &Gpu) -> bool) -> Option<Aligned> {
    let has_rails = |part: &&Candidate<'_>| part.view.gpus.iter().any(|gpu| gpu.rail.is_some_and(|rail| rail > 0));
    if parts.len() < 2 || !parts.iter().any(has_rails) || parts.iter().any(|part| part.view.gpus.len() > GPUS_MAX) {
        return None;
    }
    // A node that lacks an adapter numbers the others differently, and nobody knows which it lacks.
    let mut n_rails = parts.iter().map(|part| part.view.node.rails().count());
    let first = n_rails.next();
    if n_rails.any(|n| Some(n) != first) {
        return None;
    }
    let own: Vec<Rails> = parts.iter().map(|part| Rails::of(part.chosen.iter())).collect::<Option<_>>()?;
    if own.windows(2).all(|pair| pair[0] == pair[1]) {
        return Some(Aligned { chosen: parts.iter().map(|part| Arc::clone(&part.chosen)).collect(), off: 0 });
    }
    let variants: Vec<Variants> = parts.iter().map(|part| variants(part, &is_free)).collect();
    let (places, common) = nearest(&own, &variants);
    let chosen = parts.iter().zip(places).map(|(part, places)| taken(part.view, places)).collect();
    let wanted: usize = parts.iter().map(|part| part.chosen.len()).sum();
    Some(Aligned { chosen, off: u32::try_from(wanted).unwrap_or(u32::MAX).saturating_sub(common) })
}

/// Of each part the variant that has most in common with one of them, which is that with which all together have
/// most; and how much that is. Those that the nodes give come first.
pub(super) fn nearest(own: &[Rails], variants: &[Variants]) -> (Vec<u64>, u32) {
    let of_each = |to: Rails| {
        variants.iter().map(move |all| {
            let most = all.iter().map(|(rails, places)| (rails.common(to), Reverse(*places))).max();
            most.map_or((0, 0), |(common, Reverse(places))| (common, places))
        })
    };
    let mut tried: Vec<Rails> = own.to_vec();
    tried.extend(variants.iter().flat_map(BTreeMap::keys));
    tried.sort_unstable();
    tried.dedup();
    // In a large gang of nodes that are all different not all can be tried.
    tried.sort_by_key(|rails| !own.contains(rails));
    tried.truncate(TRIED_MAX);
    let common = |to: Rails| of_each(to).map(|(common, _)| common).sum::<u32>();
    let best = tried.into_iter().rev().max_by_key(|rails| common(*rails));
    best.map_or((Vec::new(), 0), |best| (of_each(best).map(|(_, places)| places).collect(), common(best)))
}

/// The GPUs at these places, in order of their index.
fn taken(view: &View, places: u64) -> Arc<[Gpu]> {
    let all = view.gpus.iter().enumerate();
    let mut taken: Vec<Gpu> = all.filter(|(at, _)| places >> at & 1 == 1).map(|(_, gpu)| *gpu).collect();
    taken.sort_by_key(|gpu| gpu.index);
    taken.into()
}

/// How a choice suits its node, as far as another one of as many GPUs of the same kind can suit it less: without a
/// common island, on several NUMA nodes, and how many GPUs are free in the islands that it touches.
fn suits(free: &[Gpu], chosen: &[Gpu]) -> (bool, bool, usize) {
    let touched = free.iter().filter(|gpu| chosen.iter().any(|one| one.island == gpu.island)).count();
    (chosen.len() > 1 && fit::common_island(chosen).is_none(), fit::splits_numa(chosen), touched)
}

fn variants(part: &Candidate<'_>, is_free: &impl Fn(&View, &Gpu) -> bool) -> Variants {
    let is_given = |gpu: &Gpu| part.chosen.iter().any(|one| one.at == gpu.at);
    let kind = part.chosen.first().map(|gpu| gpu.kind);
    let could = |gpu: &Gpu| {
        gpu.is_healthy && !gpu.is_slice && gpu.free_milli == GPU_MILLI && Some(gpu.kind) == kind && gpu.rail.is_some()
    };
    let (mut free, mut at, mut given) = (Vec::new(), Vec::new(), 0_u64);
    for (place, gpu) in part.view.gpus.iter().enumerate() {
        given |= u64::from(is_given(gpu)) << place;
        if could(gpu) && is_free(part.view, gpu) {
            free.push(*gpu);
            at.push(place);
        }
    }
    let n_wanted = part.chosen.len();
    let own = Rails::of(part.chosen.iter()).map(|rails| (rails, given));
    let mut variants: Variants = own.into_iter().collect();
    let may_choose = n_wanted < free.len() && free.len() <= FREE_MAX;
    if !may_choose || free.iter().filter(|gpu| is_given(gpu)).count() < n_wanted {
        return variants;
    }
    let wanted = suits(&free, &part.chosen);
    for pick in (0_u32..1 << free.len()).filter(|pick| pick.count_ones() as usize == n_wanted) {
        let picked = || (0..free.len()).filter(move |n| pick >> n & 1 == 1);
        let chosen: Vec<Gpu> = picked().map(|n| free[n]).collect();
        if let Some(rails) = Rails::of(chosen.iter())
            && suits(&free, &chosen) <= wanted
        {
            variants.entry(rails).or_insert_with(|| picked().fold(0, |places, n| places | 1 << at[n]));
        }
    }
    variants
}

#[cfg(test)]
mod tests;
