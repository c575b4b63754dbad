//! Scores as numbers, so that the best of many is found by comparing them.

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
    /// The fields of a score one below the other: 1, 1, 4, 1, 20, 1, 10, 16, 16, 44 and 12 bits.
    pub(super) fn of(score: &Score) -> Self {
        let fields = [
            (u128::from(score.simulated), 1),
            (u128::from(score.unreserved), 1),
            (u128::from(score.fallback), 4),
            (u128::from(score.broken_island), 1),
            (u128::from(score.lost), LOSS_BITS),
            (u128::from(score.opened), 1),
            (u128::from(score.milli_left), 10),
            (u128::from(score.island_left), 16),
            (u128::from(score.gpus_left), 16),
            (u128::from(score.gpu_memory_over_mib), 44),
            (u128::from(score.host_left_permille), 12),
        ];
        let packed = fields.iter().fold(0, |packed, (field, bits)| packed << bits | (*field).min((1 << bits) - 1));
        Self(u128::MAX - packed)
    }
}

#[cfg(test)]
mod tests {
    use claw_proto::ids::NodeId;
    use claw_proto::validation::GPU_MILLI;
    use proptest::prelude::*;

    use super::*;
    use crate::scheduler::LEFT_MAX;

    fn scores() -> impl Strategy<Value = Score> {
        let near = prop_oneof![0_u32..3, (LEFT_MAX - 3)..=LEFT_MAX];
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0_u8..16, any::<bool>());
        (flags, (0_u32..1 << LOSS_BITS, 0_u16..GPU_MILLI), near.clone(), near, 0_u64..1 << 43, 0_u64..=2_000).prop_map(
            |(flags, (lost, milli_left), island_left, gpus_left, gpu_memory_over_mib, host_left_permille)| Score {
                simulated: flags.0,
                unreserved: flags.4,
                fallback: flags.3,
                broken_island: flags.1,
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
        }
    }
}
