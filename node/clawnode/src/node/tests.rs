//! Properties of the state machine, each with a name, over random histories of
//! duplicates, reordering, stale generations, crashes, full disks and silence.

mod examples;
mod world;

use proptest::prelude::*;

use world::{Op, World};

fn op() -> impl Strategy<Value = Op> {
    let workload = 0..4u8;
    let attempt = 1..4u32;
    prop_oneof![
        3 => Just(Op::Connect),
        1 => Just(Op::Cut),
        1 => Just(Op::CrashAgent),
        6 => (workload.clone(), attempt.clone(), 0..3u64, any::<bool>())
            .prop_map(|(workload, attempt, stale, keep)| Op::Start { workload, attempt, stale, keep }),
        3 => (workload.clone(), attempt.clone(), 0..3u64).prop_map(|(workload, attempt, stale)| Op::Stop { workload, attempt, stale }),
        2 => (prop::collection::vec((workload.clone(), attempt), 0..4), 0..3u64)
            .prop_map(|(wanted, stale)| Op::Set { wanted, stale }),
        2 => any::<prop::sample::Index>().prop_map(Op::Repeat),
        4 => (0..3_000u64).prop_map(|delay_ms| Op::Heartbeat { delay_ms }),
        6 => (0..8_000u64).prop_map(Op::Wait),
        3 => (workload, 0..3i32).prop_map(|(workload, code)| Op::Exit { workload, code }),
        2 => Just(Op::Ack),
        1 => any::<bool>().prop_map(Op::DiskFull),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// The world checks every named invariant after every step (see `world.rs`):
    /// N1 one attempt at a time, N2 no attempt twice, N3 records without gaps and
    /// durable before sent, N4 states only forward, N5 one workload per GPU,
    /// N6 generations only forward, N7 stopped within the lease; and at the end
    /// N8 what the gateway was told is what really happened.
    #[test]
    fn every_history_keeps_every_invariant(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in ops {
            world.perform(op);
        }
        world.settle();
    }

    /// Same inputs, same actions: the simulator can replay a seed.
    #[test]
    fn the_machine_is_deterministic(ops in prop::collection::vec(op(), 1..40)) {
        let run = |ops: &[Op]| {
            let mut world = World::new();
            for op in ops {
                world.perform(op.clone());
            }
            world.trace
        };
        prop_assert_eq!(run(&ops), run(&ops));
    }
}
