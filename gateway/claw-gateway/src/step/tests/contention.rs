//! What preemption loses on full fleets of simulated trainers, beside stopping the newest first.

use claw_proto::ids::WorkloadId;
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{Priority, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;
use claw_tools::outcome::Mode;
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use super::fleet::{Fleet, with_priority};
use crate::effect::Effect;
use crate::preemption::{self, free};
use crate::scheduler::packing::replay::Draws;
use crate::scheduler::{Decision, decide};
use crate::workload::WorkloadEntry;
use crate::{Cluster, Operation};

const CONTENTIONS: u64 = 200;

/// GPU milliseconds since a trainer's last checkpoint; all of them for one that writes none.
fn lost(w: &WorkloadEntry, now: Timestamp) -> i64 {
    let ran_ms = w.live().and_then(|a| a.started_at).map_or(0, |at| now.ms_since(at));
    let interval_ms = w.spec.spec().checkpoint_interval_s.map(|s| i64::try_from(s).unwrap() * 1_000);
    interval_ms.map_or(ran_ms, |interval_ms| ran_ms % interval_ms) * i64::from(w.spec.demand().gpus)
}

/// Nodes full of trainers that began at different times.
fn full(draws: &mut Draws, nodes: u32) -> Fleet {
    let mut f = Fleet::with_nodes(nodes);
    loop {
        let gpus = [1, 2, 4, 8][draws.below(4)];
        let checkpoint_interval_s = [None, Some(300), Some(900), Some(1_800)][draws.below(4)];
        let spec =
            WorkloadSpec { preemptible: Some(true), checkpoint_interval_s, ..with_priority(gpus, Priority::Low) };
        let Some(id) = f.submit(spec).workload_id else { return f };
        if f.workload(id).live().is_none() {
            let stop = Operation::WorkloadStop { workload: id.to_string(), grace_s: None };
            f.operate("alice", stop, Mode::Apply, None).unwrap();
            if gpus == 1 {
                return f;
            }
            continue;
        }
        f.report(id, N::Running, C::Progress, None);
        f.pass(60 + i64::try_from(draws.below(1_200)).unwrap());
    }
}

/// The newest of one node leave until it fits there; on the node where the fewest have to.
fn newest_first(cluster: &Cluster, spec: &ValidSpec, now: Timestamp) -> i64 {
    let of_node = |node_id| {
        let mut here: Vec<_> = cluster.workloads.iter().filter(|w| w.live_on(node_id).is_some()).cloned().collect();
        here.sort_by_key(|w| std::cmp::Reverse(w.live().and_then(|a| a.started_at)));
        let mut fork = cluster.detached();
        let mut gone = Vec::new();
        for w in here {
            free(&mut fork, w.workload_id);
            gone.push(w);
            if matches!(decide(&fork, spec), Decision::Place { .. }) {
                break;
            }
        }
        gone
    };
    let sets = cluster.nodes.iter().map(|node| of_node(node.node_id));
    let fewest = sets.min_by_key(Vec::len).unwrap();
    fewest.iter().map(|w| lost(w, now)).sum()
}

/// Of 200 contentions: half of what the newest would lose, at most. Each victim is told once,
/// with its grace, and whoever asked gets the room once all have left.
#[test]
fn preemption_loses_at_most_half_of_what_the_newest_would() {
    let (mut ours, mut newest) = (0, 0);
    for seed in 0..CONTENTIONS {
        let mut draws = Draws::new(seed);
        let mut f = full(&mut draws, 4);
        f.pass(61 + i64::try_from(draws.below(900)).unwrap());
        let (before, now) = (f.cluster.clone(), f.now);
        let wanted = with_priority([2, 4, 8][draws.below(3)], Priority::High);
        let n_effects = f.effects.len();
        let id = f.submit(wanted.clone()).workload_id.unwrap();
        assert_eq!(f.workload(id).reason, WorkloadReason::MakingRoom, "seed {seed}");
        let victims: Vec<WorkloadId> = f.workload(id).claim.as_ref().unwrap().victims.clone();
        ours += victims.iter().map(|victim| lost(before.workloads.get(*victim).unwrap(), now)).sum::<i64>();
        newest += newest_first(&before, &ValidSpec::parse(wanted).unwrap(), now);
        let orders = f.effects[n_effects..].iter().filter_map(|effect| match effect {
            Effect::StopWorkload { order, .. } => Some((order.workload_id, order.grace_s)),
            _ => None,
        });
        let told: Vec<_> = victims.iter().map(|victim| (*victim, f.workload(*victim).spec.grace_s())).collect();
        assert_eq!(orders.collect::<Vec<_>>(), told, "seed {seed}: each is told once, with its grace");
        for victim in victims {
            assert_eq!(
                f.workload(id).state,
                WorkloadState::Pending,
                "seed {seed}: nothing starts before all have left"
            );
            f.report(victim, N::Stopped, C::StopRequested, None);
        }
        assert_eq!(f.workload(id).state, WorkloadState::Placed, "seed {seed}");
    }
    println!("lost: {} % of what the newest would lose", 100 * ours / newest);
    assert!(2 * ours <= newest, "{ours} of {newest} GPU milliseconds");
}

/// What the cheapest of all sets of one node's workloads that make room would lose, by trying every one.
fn cheapest(cluster: &Cluster, spec: &ValidSpec, now: Timestamp) -> u64 {
    let here: Vec<_> = cluster.workloads.iter().filter(|w| w.live().is_some()).cloned().collect();
    let lost = |w: &WorkloadEntry| preemption::lost_gpu_ms(&cluster.policy.preemption, w, now);
    let of_set = |set: u32| {
        let mut fork = cluster.detached();
        let leaves = here.iter().enumerate().filter(|(place, _)| set & (1 << place) != 0);
        let all = leaves.inspect(|(_, w)| free(&mut fork, w.workload_id)).map(|(_, w)| lost(w)).sum();
        matches!(decide(&fork, spec), Decision::Place { .. }).then_some(all)
    };
    (1..1_u32 << here.len()).filter_map(of_set).min().unwrap()
}

#[test]
fn of_all_sets_on_a_node_the_one_that_loses_least_leaves() {
    for seed in 0..40 {
        let mut draws = Draws::new(seed);
        let mut f = full(&mut draws, 1);
        f.pass(61 + i64::try_from(draws.below(900)).unwrap());
        let (before, now) = (f.cluster.clone(), f.now);
        let wanted = with_priority([1, 2, 4, 6][draws.below(4)], Priority::High);
        let id = f.submit(wanted.clone()).workload_id.unwrap();
        let victims = f.workload(id).claim.as_ref().unwrap().victims.clone();
        let lost = |id: &WorkloadId| {
            preemption::lost_gpu_ms(&before.policy.preemption, before.workloads.get(*id).unwrap(), now)
        };
        let ours: u64 = victims.iter().map(lost).sum();
        assert_eq!(ours, cheapest(&before, &ValidSpec::parse(wanted).unwrap(), now), "seed {seed}");
    }
}
