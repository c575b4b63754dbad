//! Moves against fragmentation: what is moved, what for, and what is left alone.

use claw_proto::ids::WorkloadId;
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{Priority, WorkloadSpec};
use claw_tools::outcome::{EffectKind, Mode};
use claw_tools::refusal::ErrorCode;
use claw_tools::workloads::{WorkloadReason, WorkloadState};
use proptest::prelude::*;

use super::fleet::{Fleet, spec};
use super::properties::{moves, play};
use crate::preemption::defrag;
use crate::{Effect, Operation};

fn ask(horizon_s: u64) -> Operation {
    Operation::Defrag { model: None, horizon_s: Some(horizon_s), moves_max: None, moves: None }
}

/// Eight GPUs are what most asks for; n0 has but a trainer of one GPU, n1 has room for it.
fn scattered(trainer: WorkloadSpec) -> (Fleet, WorkloadId) {
    let mut f = Fleet::with_nodes(2);
    let done = |f: &mut Fleet, id: WorkloadId| f.report(id, N::Completed, C::Exited, Some(0));
    for _ in 0..8 {
        let large = f.submit(spec(8)).workload_id.unwrap();
        done(&mut f, large);
    }
    f.submit(spec(6));
    let filler = f.submit(spec(2)).workload_id.unwrap();
    let id = f.submit(trainer).workload_id.unwrap();
    f.report(id, N::Running, C::Progress, None);
    done(&mut f, filler);
    f.pass(660);
    (f, id)
}

fn trainer() -> WorkloadSpec {
    WorkloadSpec { checkpoint_interval_s: Some(600), ..spec(1) }
}

fn node_of(f: &Fleet, id: WorkloadId) -> String {
    f.cluster.nodes.get(f.workload(id).live().unwrap().node_id).unwrap().name.clone()
}

#[test]
fn what_is_gained_is_more_than_what_is_lost_and_moves_as_planned() {
    let (mut f, id) = scattered(trainer());
    let from = node_of(&f, id);
    let planned = f.operate("root", ask(3_600), Mode::Plan, None).unwrap();
    let plan = planned.plan.unwrap();
    assert_eq!(plan.evicts.len(), 1);
    assert!(planned.summary.contains("(loses 60 GPU s)"), "since its checkpoint: {}", planned.summary);
    let done = f.plan_and_apply(ask(3_600)).unwrap();
    assert_eq!(done.effect, EffectKind::Accepted);
    assert_eq!((f.workload(id).state, f.workload(id).reason), (WorkloadState::Stopping, WorkloadReason::Defragmented));
    assert!(f.effects.iter().any(|e| matches!(e, Effect::StopWorkload { order, .. } if order.workload_id == id)));
    f.report(id, N::Stopped, C::StopRequested, None);
    assert_ne!(node_of(&f, id), from);
    let large = f.submit(spec(8)).workload_id.unwrap();
    assert_eq!(node_of(&f, large), from, "that is what it was for");
    // Once more there is nothing to gain.
    let again = f.operate("root", ask(3_600), Mode::Plan, None).unwrap();
    assert_eq!(again.effect, EffectKind::NoChange, "{}", again.summary);
}

#[test]
fn nothing_moves_that_cannot_begin_again_or_loses_more_than_is_gained() {
    // It says nothing of checkpoints.
    let (mut f, _) = scattered(spec(1));
    let told = f.operate("root", ask(3_600), Mode::Plan, None).unwrap();
    assert!(told.summary.contains("no running work can be moved"), "{}", told.summary);
    // Seven GPUs for a minute are less than what it would lose since its start.
    let (mut f, _) = scattered(WorkloadSpec { checkpoint_interval_s: Some(6_000), ..trainer() });
    let told = f.operate("root", ask(60), Mode::Plan, None).unwrap();
    assert!(told.summary.contains("nothing is worth moving: the best move would make"), "{}", told.summary);
    // What was planned and is gone is not replaced by something else.
    let (mut f, id) = scattered(trainer());
    let plan = f.operate("root", ask(3_600), Mode::Plan, None).unwrap().plan.unwrap();
    f.report(id, N::Completed, C::Exited, Some(0));
    let apply = crate::Command::PlanApply {
        plan_id: plan.plan_id,
        mutation: super::fleet::mutation(Mode::Apply, None),
        args_hash: "h".into(),
        secret_hash: None,
    };
    let root =
        super::fleet::who("root", claw_tools::access::Role::Admin, claw_tools::access::PrincipalKind::Person, f.now);
    let refused = f.run(apply, &root).unwrap_err();
    assert!(
        matches!(refused.code, ErrorCode::InvalidState | ErrorCode::StalePlan | ErrorCode::ApprovalRequired),
        "{refused}"
    );
}

#[test]
fn who_asks_to_apply_at_once_is_told_how_in_a_call_that_can_be_made() {
    let (mut f, _) = scattered(trainer());
    let refused = f.operate("root", ask(3_600), Mode::Apply, None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::PlanRequired);
    assert_eq!(refused.next[0].args, serde_json::json!({ "horizon_s": 3_600, "mode": "plan" }));
}

/// Its place would be taken by somebody who waits: then it would have none, and stays.
#[test]
fn nothing_moves_whose_place_somebody_who_waits_would_take() {
    let (mut f, _) = scattered(trainer());
    let wide = WorkloadSpec { cpu_cores: Some(60.0), priority: Some(Priority::High), ..spec(2) };
    let pair = WorkloadSpec { nodes: Some(2), ..WorkloadSpec { gpu: spec(16).gpu, ..wide.clone() } };
    f.submit(pair);
    let told = f.operate("root", ask(3_600), Mode::Plan, None).unwrap();
    let free = f.submit(wide).workload_id.unwrap();
    assert_eq!(f.workload(free).state, WorkloadState::Placed, "{}", told.summary);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, .. ProptestConfig::default() })]

    /// Whatever the history: what is to be moved can begin again and runs, each once and not to where it is, and
    /// what is gained over the horizon is more than what is lost.
    #[test]
    fn moves_are_worth_it(history in prop::collection::vec(moves(), 1..60), interval in prop::collection::vec(any::<bool>(), 6), horizon_s in 60_u64..10_000) {
        let mut f = Fleet::with_slices(3);
        for (at, m) in history.iter().enumerate() {
            play(&mut f, m);
            // Among them trainers that can be moved.
            if at % 7 == 0 {
                let checkpoint_interval_s = interval[at % 6].then_some(30);
                let id = f.submit(WorkloadSpec { checkpoint_interval_s, ..spec(1 + u32::from(interval[at % 5])) }).workload_id.unwrap();
                f.report(id, N::Running, C::Progress, None);
            }
        }
        f.pass(61);
        let asked = defrag::Ask { model: None, horizon_s, moves_max: 8, now: f.now };
        let plan = defrag::plan(&f.cluster, asked);
        let mut seen = std::collections::BTreeSet::new();
        for one in &plan.moves {
            let w = f.workload(one.workload_id);
            prop_assert!(seen.insert(one.workload_id) && one.from != one.to);
            prop_assert_eq!((w.state, w.spec.spec().checkpoint_interval_s), (WorkloadState::Running, Some(30)));
            prop_assert_eq!(w.live().unwrap().node_id, one.from);
        }
        prop_assert!(plan.moves.is_empty() || plan.gained_gpus * horizon_s as f64 > plan.lost_gpu_s());
        prop_assert!(plan.moves.len() <= 8);
        // What was planned is found worth it again, in its own order.
        if !plan.moves.is_empty() {
            let ids: Vec<_> = plan.moves.iter().map(|one| one.workload_id).collect();
            let again = defrag::again(&f.cluster, asked, &ids);
            prop_assert_eq!(again.map(|again| again.moves), Some(plan.moves.clone()));
        }
        // The same again, and the fleet as it was.
        prop_assert_eq!(defrag::plan(&f.cluster, asked), plan);
    }
}
