//! Rails, against every possible choice on small gangs.

use claw_proto::validation::GPU_MILLI;
use proptest::prelude::*;

use super::{Rails, Variants, align, nearest};
use crate::scheduler::gang::tests::{candidate, view};
use crate::scheduler::view::{Gpu, View};

/// GPUs of one node: the rail of each, and whether it is free.
type Node = Vec<(u16, bool)>;

fn node(n: u32, gpus: &[(u16, bool)]) -> View {
    let gpu = |(at, (rail, is_free)): (u16, &(u16, bool))| Gpu {
        at,
        index: at.into(),
        memory_mib: 80_000,
        island: Some(at / 4),
        numa: None,
        rail: Some(*rail),
        is_healthy: true,
        is_slice: false,
        free_milli: if *is_free { GPU_MILLI } else { 0 },
        kind: 0,
    };
    View { gpus: (0..).zip(gpus).map(gpu).collect(), n_islands: 2, ..view(n, 0, 0) }
}

/// All choices of so many free GPUs of a node that suit it as well as its first ones do, as their rails.
fn as_good(view: &View, wanted: usize) -> Vec<Vec<u16>> {
    let free: Vec<Gpu> = view.gpus.iter().filter(|gpu| gpu.free_milli == GPU_MILLI).copied().collect();
    let picks = (0_u32..1 << free.len()).filter(|pick| pick.count_ones() as usize == wanted);
    let of = |pick: u32| (0..free.len()).filter(|n| pick >> n & 1 == 1).map(|n| free[n]).collect::<Vec<_>>();
    let suits = |gpus: &[Gpu]| {
        let is_broken = gpus.len() > 1 && gpus.iter().any(|gpu| gpu.island != gpus[0].island);
        let touched = free.iter().filter(|gpu| gpus.iter().any(|one| one.island == gpu.island)).count();
        (is_broken, touched)
    };
    let first = suits(&free[..wanted]);
    let good = picks.map(of).filter(|gpus| suits(gpus) <= first);
    good.map(|gpus| gpus.iter().filter_map(|gpu| gpu.rail).collect()).collect()
}

/// How many of the one have one of the other on their rail, by sorting.
fn in_common(a: &[u16], b: &[u16]) -> usize {
    let mut left = b.to_vec();
    let is_there = |rail: &&u16| left.iter().position(|other| other == *rail).map(|at| left.swap_remove(at)).is_some();
    a.iter().filter(is_there).count()
}

fn nodes() -> impl Strategy<Value = (Vec<Node>, usize)> {
    let gpu = (0_u16..5, prop::bool::weighted(0.7));
    (prop::collection::vec(prop::collection::vec(gpu, 8), 2..4), 1_usize..4)
}

proptest! {
    /// No other choice of GPUs that suits each node as well has fewer of them off the rails of one of the parts, as
    /// trying all tells; what is chosen is free, is as many, and suits as well.
    #[test]
    fn no_choice_has_fewer_gpus_off_the_rails_of_the_others((nodes, wanted) in nodes()) {
        let views: Vec<View> = (0..).zip(&nodes).map(|(n, gpus)| node(n, gpus)).collect();
        let free = |view: &View| view.gpus.iter().filter(|gpu| gpu.free_milli == GPU_MILLI).copied().collect::<Vec<_>>();
        prop_assume!(views.iter().all(|view| free(view).len() >= wanted));
        let mut candidates: Vec<_> = views.iter().map(candidate).collect();
        for (candidate, view) in candidates.iter_mut().zip(&views) {
            candidate.chosen = free(view)[..wanted].into();
        }
        let is_known = |view: &View| free(view).windows(wanted).all(|gpus| Rails::of(gpus.iter()).is_some());
        prop_assume!(views.iter().all(is_known));
        let Some(aligned) = align(&candidates.iter().collect::<Vec<_>>(), |_, _| true) else {
            prop_assert!(views.iter().all(|view| view.gpus.iter().all(|gpu| gpu.rail == Some(0))));
            return Ok(());
        };
        let all: Vec<Vec<Vec<u16>>> = views.iter().map(|view| as_good(view, wanted)).collect();
        let rails_of = |gpus: &[Gpu]| gpus.iter().filter_map(|gpu| gpu.rail).collect::<Vec<_>>();
        for ((chosen, view), all) in aligned.chosen.iter().zip(&views).zip(&all) {
            let rails = rails_of(chosen);
            prop_assert_eq!(rails.len(), wanted);
            prop_assert!(chosen.iter().all(|gpu| free(view).iter().any(|one| one.at == gpu.at)));
            prop_assert!(all.contains(&rails), "{:?} is not among {:?}", rails, all);
        }
        let off = |all: &Vec<Vec<u16>>, to: &[u16]| all.iter().map(|rails| wanted - in_common(rails, to)).min();
        let least = all.iter().flatten().map(|to| all.iter().filter_map(|all| off(all, to)).sum::<usize>());
        prop_assert_eq!(Some(aligned.off as usize), least.min());
        let chosen: Vec<Vec<u16>> = aligned.chosen.iter().map(|gpus| rails_of(gpus)).collect();
        let told = chosen.iter().map(|to| chosen.iter().map(|rails| wanted - in_common(rails, to)).sum::<usize>()).min();
        prop_assert_eq!(told, Some(aligned.off as usize), "and it is what is told");
    }
}

#[test]
fn what_nodes_give_is_kept_where_no_choice_is_better() {
    let of = |rails: &[u16]| {
        let gpu = |rail: &u16| node(0, &[(*rail, true)]).gpus[0];
        Rails::of(rails.iter().map(gpu).collect::<Vec<_>>().iter()).unwrap()
    };
    let variants = |all: &[(&[u16], u64)]| all.iter().map(|(rails, places)| (of(rails), *places)).collect::<Variants>();
    let own = [of(&[3, 4]), of(&[3, 5])];
    let each = [variants(&[(&[3, 4], 0b1), (&[0, 1], 0b10)]), variants(&[(&[3, 5], 0b1), (&[1, 2], 0b10)])];
    assert_eq!(nearest(&own, &each), (vec![0b1, 0b1], 3));
    // Five on one rail are more than are told apart.
    assert!(Rails::of(node(0, &[(7, true); 5]).gpus.iter()).is_none());
}
