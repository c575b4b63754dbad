//! Scores as numbers, so that the best of many is found by comparing them.

use claw_proto::ids::NodeId;

use super::Score;
use super::likely::LOSS_BITS;
use super::tournament::Worth;

/// A score as a number: more is better, ties go to the lower node id by the order of the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u128);

impl Worth for Rank {
    const NONE: Self = Self(0);
}

impl Rank {
    /// The fields of a score one below the other: 1, 1, 4, 1, 1, 20, 1, 10, 16, 16, 44 and 12 bits.
    pub(super) fn of(score: &Score) -> Self {
        // The upper ones fill 55 bits, the lower ones 72: numbers of one machine word are faster.
        let with = |packed: u64, field: u64, bits: u32| packed << bits | field.min((1 << bits) - 1);
        let upper = with(0, score.simulated.into(), 1);
        let upper = with(upper, score.unreserved.into(), 1);
        let upper = with(upper, score.fallback.into(), 4);
        let upper = with(upper, score.broken_island.into(), 1);
        let upper = with(upper, score.split_numa.into(), 1);
        let upper = with(upper, score.lost.into(), LOSS_BITS);
        let upper = with(upper, score.opened.into(), 1);
        let upper = with(upper, score.milli_left.into(), 10);
        let upper = with(upper, score.island_left.into(), 16);
        let lower = with(0, score.gpu_memory_over_mib, 44);
        let lower = with(lower, score.host_left_permille, 12);
        let packed = (u128::from(upper) << 16 | u128::from(with(0, score.gpus_left.into(), 16))) << 56;
        Self(u128::MAX - (packed | u128::from(lower)))
    }

    /// The score of this node that has this rank, as far as ranks tell scores apart.
    #[expect(clippy::cast_possible_truncation, reason = "each field is as wide as its bits")]
    pub(super) fn score(self, node_id: NodeId) -> Score {
        let packed = u128::MAX - self.0;
        let field = |from: u32, bits: u32| (packed >> from) as u64 & ((1 << bits) - 1);
        Score {
            simulated: field(126, 1) == 1,
            unreserved: field(125, 1) == 1,
            fallback: field(121, 4) as u8,
            broken_island: field(120, 1) == 1,
            split_numa: field(119, 1) == 1,
            lost: field(119 - LOSS_BITS, LOSS_BITS) as u32,
            opened: field(98, 1) == 1,
            milli_left: field(88, 10) as u16,
            island_left: field(72, 16) as u32,
            gpus_left: field(56, 16) as u32,
            gpu_memory_over_mib: field(12, 44),
            host_left_permille: field(0, 12),
            node_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use claw_proto::validation::GPU_MILLI;
    use proptest::prelude::*;

    use super::*;
    use crate::scheduler::LEFT_MAX;

    fn scores() -> impl Strategy<Value = Score> {
        let near = prop_oneof![0_u32..3, (LEFT_MAX - 3)..=LEFT_MAX];
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0_u8..16, any::<bool>(), any::<bool>());
        (flags, (0_u32..1 << LOSS_BITS, 0_u16..GPU_MILLI), near.clone(), near, 0_u64..1 << 43, 0_u64..=2_000).prop_map(
            |(flags, (lost, milli_left), island_left, gpus_left, gpu_memory_over_mib, host_left_permille)| Score {
                simulated: flags.0,
                unreserved: flags.4,
                fallback: flags.3,
                broken_island: flags.1,
                split_numa: flags.5,
                lost,
                opened: flags.2,
                milli_left,
                island_left,
                gpus_left,
                gpu_memory_over_mib,
                host_left_permille,
                node_id: NodeId::from_bits(1),
            },
        )
    }

    proptest! {
        /// The number stands for the score, field by field.
        #[test]
        fn a_rank_orders_as_its_score(a in scores(), b in scores()) {
            prop_assert_eq!(Rank::of(&a).cmp(&Rank::of(&b)), b.cmp(&a));
            prop_assert!(Rank::of(&a) > Rank::NONE);
            prop_assert_eq!(Rank::of(&a).score(a.node_id), a);
        }
    }
}
