//! Moves against fragmentation: what is moved, what for, and what is left alone.

use claw_proto::ids::WorkloadId;
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{Priority, WorkloadSpec};
use claw_tools::operations::OperationState;
use claw_tools::outcome::{EffectKind, Mode};
use claw_tools::quotas::QuotaAmounts;
use claw_tools::refusal::ErrorCode;
use claw_tools::workloads::{WorkloadReason, WorkloadState};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::fleet::{Fleet, spec};
use crate::preemption::defrag;
use crate::{Effect, Operation};

fn ask(horizon_s: u64) -> Operation {
    Operation::Defrag { model: None, horizon_s: Some(horizon_s), moves_max: None, moves: None }
}

/// Eight GPUs are what most asks for; n0 has but a trainer of one GPU, n1 has room for it.
fn scattered(trainer: WorkloadSpec) -> (Fleet, WorkloadId) {
    let mut f = Fleet::with_nodes(2);
    if let Some(tenant) = trainer.tenant.clone() {
        // It may hold what it will, and no more.
        let most = Some(QuotaAmounts { gpus: Some(7), ..QuotaAmounts::default() });
        let (parent, guaranteed, lends, weight, members) = (None, None, None, None, None);
        f.plan_and_apply(Operation::QuotaSet { tenant, parent, guaranteed, most, lends, weight, members }).unwrap();
    }
    let done = |f: &mut Fleet, id: WorkloadId| f.report(id, N::Completed, C::Exited, Some(0));
    for _ in 0..8 {
        let large = f.submit(spec(8)).workload_id.unwrap();
        done(&mut f, large);
    }
    f.submit(WorkloadSpec { tenant: trainer.tenant.clone(), ..spec(6) });
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
    // It is done when it runs again, and not before.
    let operation_id = done.operation_id.unwrap();
    let state = |f: &Fleet| {
        let entry = f.cluster.operations.get(&operation_id).unwrap();
        (entry.state, entry.observed.clone())
    };
    assert_eq!(state(&f), (OperationState::Pending, String::new()));
    f.report(id, N::Stopped, C::StopRequested, None);
    assert_ne!(node_of(&f, id), from);
    assert_eq!(state(&f).0, OperationState::Pending, "it has a place and does not run yet");
    f.report(id, N::Running, C::Progress, None);
    let name = &f.workload(id).name;
    assert_eq!(state(&f), (OperationState::Succeeded, format!("{name} runs on {}", node_of(&f, id))));
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
    let refused = f.approve_and_apply(&plan).unwrap_err();
    assert_eq!(refused.code, ErrorCode::StalePlan, "{refused}");
    assert!(refused.to_string().contains("has ended or moved, would stay, or is not worth it any more"), "{refused}");
}

/// Who ends instead of running again has not moved, and the operation says so.
#[test]
fn a_move_that_came_to_nothing_is_no_success() {
    let (mut f, id) = scattered(trainer());
    let operation_id = f.plan_and_apply(ask(3_600)).unwrap().operation_id.unwrap();
    f.report(id, N::Completed, C::Exited, Some(0));
    let entry = f.cluster.operations.get(&operation_id).unwrap();
    assert_eq!(entry.state, OperationState::Failed);
    assert!(entry.observed.ends_with("is completed"), "{}", entry.observed);
}

#[test]
fn who_asks_to_apply_at_once_is_told_how_in_a_call_that_can_be_made() {
    let (mut f, _) = scattered(trainer());
    let refused = f.operate("root", ask(3_600), Mode::Apply, None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::PlanRequired);
    assert_eq!(refused.next[0].args, serde_json::json!({ "horizon_s": 3_600, "mode": "plan" }));
}

/// Somebody of its tenant waits before it for the quota that it holds: once it has stopped it would wait itself.
#[test]
fn nothing_moves_whose_place_somebody_who_waits_would_take() {
    let of_lab = |spec: WorkloadSpec| WorkloadSpec { tenant: Some("lab".into()), ..spec };
    let (mut f, id) = scattered(of_lab(trainer()));
    let could = f.operate("root", ask(3_600), Mode::Plan, None).unwrap();
    assert_eq!(could.effect, EffectKind::Planned, "nobody waits: {}", could.summary);
    let before = f.submit(of_lab(WorkloadSpec { priority: Some(Priority::High), ..spec(1) })).workload_id.unwrap();
    assert_eq!(f.workload(before).reason, WorkloadReason::QuotaExceeded);
    let told = f.operate("root", ask(3_600), Mode::Plan, None).unwrap();
    assert_eq!(told.effect, EffectKind::NoChange, "{}", told.summary);
    assert_eq!(f.workload(id).state, WorkloadState::Running);
}

/// Whatever was left of fleets that were full: what is to be moved can begin again and runs, each once and not to
/// where it is; what is gained over the horizon is more than what is lost; and it is found again in its own order.
#[test]
fn moves_are_worth_it() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let works = prop::collection::vec((1_u32..9, prop::bool::weighted(0.35), prop::bool::weighted(0.7)), 15..40);
    let mut n_with_moves = 0;
    for _ in 0..64 {
        let (works, horizon_s) = (&works, 60_u64..10_000).new_tree(&mut runner).unwrap().current();
        let mut f = Fleet::with_nodes(4);
        let mut left = Vec::new();
        for (gpus, stays, resumes) in works {
            let spec = WorkloadSpec { checkpoint_interval_s: resumes.then_some(30), ..spec(gpus) };
            let id = f.submit(spec).workload_id.unwrap();
            f.report(id, N::Running, C::Progress, None);
            left.extend((!stays).then_some(id));
        }
        for id in left {
            f.report(id, N::Completed, C::Exited, Some(0));
        }
        f.pass(61);
        let asked = defrag::Ask { model: None, horizon_s, moves_max: 8, now: f.now };
        let plan = defrag::plan(&f.cluster, asked);
        let mut seen = std::collections::BTreeSet::new();
        for one in &plan.moves {
            let w = f.workload(one.workload_id);
            assert!(seen.insert(one.workload_id) && one.from != one.to);
            assert_eq!((w.state, w.spec.spec().checkpoint_interval_s), (WorkloadState::Running, Some(30)));
            assert_eq!(w.live().unwrap().node_id, one.from);
        }
        assert!(plan.moves.len() <= 8);
        assert_eq!(defrag::plan(&f.cluster, asked), plan, "the same again, and the fleet as it was");
        if plan.moves.is_empty() {
            continue;
        }
        n_with_moves += 1;
        assert!(plan.gained_gpus * horizon_s as f64 > plan.lost_gpu_s());
        let ids: Vec<_> = plan.moves.iter().map(|one| one.workload_id).collect();
        assert_eq!(defrag::again(&f.cluster, asked, &ids).map(|again| again.moves), Some(plan.moves));
    }
    assert!(n_with_moves >= 16, "{n_with_moves} of 64 have something to move");
}
