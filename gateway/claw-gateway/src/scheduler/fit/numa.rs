//! GPUs of one NUMA node rather than of several.

use std::cmp::Reverse;

use smallvec::SmallVec;

use super::{Gpu, common_island};

/// The NUMA nodes of these GPUs: how many are on each, the lowest index, and its number. Nothing if that is not known
/// of all.
fn groups(gpus: &[Gpu]) -> Option<SmallVec<[(usize, u32, u16); 4]>> {
    let mut groups: SmallVec<[(usize, u32, u16); 4]> = SmallVec::new();
    for gpu in gpus {
        let numa = gpu.numa?;
        match groups.iter_mut().find(|(.., known)| *known == numa) {
            Some((n, first, _)) => (*n, *first) = (*n + 1, gpu.index.min(*first)),
            None => groups.push((1, gpu.index, numa)),
        }
    }
    Some(groups)
}

/// They have no NVLink island in common and are on several NUMA nodes.
pub(in crate::scheduler) fn splits(chosen: &[Gpu]) -> bool {
    chosen.len() > 1 && common_island(chosen).is_none() && groups(chosen).is_some_and(|groups| groups.len() > 1)
}

/// Puts first those that are to be taken of GPUs that are all as large: all of one NUMA node, the smallest that has so
/// many; else of the fewest. Others stay as they are, for large ones are kept for who needs them.
pub(super) fn nearest_first(gpus: &mut [Gpu], wanted: usize) {
    let is_free_to_choose = wanted > 1 && wanted < gpus.len();
    if !is_free_to_choose || gpus.windows(2).any(|pair| pair[0].memory_mib != pair[1].memory_mib) {
        return;
    }
    let Some(groups) = groups(gpus).filter(|groups| groups.len() > 1) else { return };
    let enough = groups.iter().filter(|(n, ..)| *n >= wanted).min();
    let order = |gpu: &Gpu| match (enough, groups.iter().find(|(.., numa)| Some(*numa) == gpu.numa)) {
        (Some((.., best)), _) => (Reverse(usize::from(gpu.numa == Some(*best))), 0, gpu.index),
        (None, Some((n, first, _))) => (Reverse(*n), *first, gpu.index),
        (None, None) => (Reverse(0), 0, gpu.index),
    };
    gpus.sort_by_key(order);
}

#[cfg(test)]
mod tests {
    use claw_proto::validation::GPU_MILLI;
    use proptest::prelude::*;

    use super::*;

    fn gpu(at: usize, numa: Option<u16>) -> Gpu {
        let index = u32::try_from(at).unwrap();
        Gpu {
            at: u16::try_from(at).unwrap(),
            index,
            memory_mib: 80_000,
            island: None,
            numa,
            rail: None,
            is_healthy: true,
            is_slice: false,
            free_milli: GPU_MILLI,
            kind: 0,
        }
    }

    fn n_numas(gpus: &[Gpu]) -> usize {
        let mut numas: Vec<_> = gpus.iter().map(|gpu| gpu.numa).collect();
        numas.sort_unstable();
        numas.dedup();
        numas.len()
    }

    proptest! {
        /// No other choice of so many is on fewer NUMA nodes, as trying all of them tells; and where one node suffices,
        /// none that suffices has fewer.
        #[test]
        fn no_choice_is_on_fewer_numa_nodes(numas in prop::collection::vec(0_u16..4, 2..9), wanted in 2_usize..9) {
            prop_assume!(wanted <= numas.len());
            let all: Vec<Gpu> = numas.iter().enumerate().map(|(at, numa)| gpu(at, Some(*numa))).collect();
            let mut chosen = all.clone();
            nearest_first(&mut chosen, wanted);
            chosen.truncate(wanted);
            let picks = (0_u32..1 << all.len()).filter(|pick| pick.count_ones() as usize == wanted);
            let of = |pick: u32| all.iter().filter(|gpu| pick >> gpu.at & 1 == 1).copied().collect::<Vec<_>>();
            let fewest = picks.map(|pick| n_numas(&of(pick))).min().unwrap();
            prop_assert_eq!(n_numas(&chosen), fewest);
            if fewest == 1 {
                let size = |numa: Option<u16>| all.iter().filter(|gpu| gpu.numa == numa).count();
                let least = all.iter().map(|gpu| size(gpu.numa)).filter(|n| *n >= wanted).min().unwrap();
                prop_assert_eq!(size(chosen[0].numa), least);
            }
        }

        /// Where it is not known of one, the lowest are taken as before.
        #[test]
        fn what_is_not_known_changes_nothing(unknown in 0_usize..6, wanted in 1_usize..6) {
            let numa = |at: usize| (at != unknown).then_some(u16::try_from(at % 2).unwrap());
            let mut gpus: Vec<Gpu> = (0..6).map(|at| gpu(at, numa(at))).collect();
            nearest_first(&mut gpus, wanted);
            prop_assert!(gpus.iter().enumerate().all(|(at, gpu)| usize::from(gpu.at) == at));
        }
    }
}
