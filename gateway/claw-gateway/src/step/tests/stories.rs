//! What people rely on, told with the core alone.

use claw_proto::message::{NodeWorkloadState as N, RunningReport, StatusCause as C};
use claw_proto::spec::{OnPartition, Priority, RestartPolicy, WorkloadSpec};
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::approvals::ApprovalDecision;
use claw_tools::nodes::Schedulable;
use claw_tools::outcome::{EffectKind, Mode};
use claw_tools::refusal::ErrorCode;
use claw_tools::workloads::{PlacementReason, WorkloadReason, WorkloadState};

use super::fleet::{Fleet, h100x8, key_id, mutation, nvlink, outcome, run_of, spec, who, with_priority};
use crate::{Command, Effect, Operation, query};

#[test]
fn four_gpus_come_from_one_nvlink_island_with_the_reason() {
    let mut f = Fleet::with_nodes(2);
    let out = f.submit(nvlink(4));
    assert_eq!(out.effect, EffectKind::Accepted);
    assert!(out.simulated);
    let place = out.placement.unwrap().chosen.clone().unwrap();
    assert_eq!(place.gpus.len(), 4);
    assert!(place.nvlink_island.is_some());
    assert!(place.why.contains("NVLink island"), "{}", place.why);
    // Best fit: the next two go to the broken island's sibling, not to the empty node.
    let second = f.submit(nvlink(4)).placement.unwrap().chosen.clone().unwrap();
    assert_eq!(second.node, place.node);
}

#[test]
fn what_does_not_fit_waits_with_a_reason_and_starts_when_room_is_there() {
    let mut f = Fleet::with_nodes(1);
    let first = f.submit(spec(8)).workload_id.unwrap();
    let second = f.submit(spec(2));
    assert_eq!(second.effect, EffectKind::Queued);
    let report = second.placement.unwrap();
    assert_eq!(report.rejected[0].reason, PlacementReason::GpuBusy);
    assert!(report.waiting_helps);
    let second = second.workload_id.unwrap();
    let explained = query::explain(&f.cluster, &second.to_string(), f.now).unwrap();
    assert_eq!(explained.queue_position, Some(1));
    assert_eq!(explained.blockers[0].workload_id, first);
    assert!(explained.would_start_if.iter().all(|r| r.verified) && !explained.would_start_if.is_empty());
    f.report(first, N::Running, C::Progress, None);
    f.report(first, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(first).state, WorkloadState::Completed);
    assert_eq!(f.workload(second).state, WorkloadState::Placed);
}

#[test]
fn what_can_never_fit_says_so() {
    let mut f = Fleet::with_nodes(1);
    let out = f.submit(spec(16));
    assert_eq!(out.effect, EffectKind::Queued);
    let report = out.placement.unwrap();
    assert!(!report.waiting_helps);
    assert_eq!(report.rejected[0].reason, PlacementReason::GpuCountTooSmall);
    assert_eq!(f.workload(out.workload_id.unwrap()).reason, WorkloadReason::NoSuitableNode);
}

#[test]
fn more_important_work_goes_first_and_nothing_is_stopped_for_it() {
    let mut f = Fleet::with_nodes(1);
    let running = f.submit(spec(8)).workload_id.unwrap();
    let low = f.submit(with_priority(8, Priority::Low)).workload_id.unwrap();
    let high = f.submit(with_priority(8, Priority::High)).workload_id.unwrap();
    f.report(running, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(high).state, WorkloadState::Placed);
    assert_eq!(f.workload(low).state, WorkloadState::Pending);
}

#[test]
fn a_lost_node_frees_its_work_only_after_the_lease() {
    let mut f = Fleet::with_nodes(2);
    let id = f.submit(WorkloadSpec { on_partition: Some(OnPartition::StopAfter(30)), ..spec(4) }).workload_id.unwrap();
    f.report(id, N::Running, C::Progress, None);
    let home = f.workload(id).live().unwrap().node_id;
    f.silence(home);
    f.pass(30);
    assert_eq!(f.workload(id).live().unwrap().node_id, home, "the lease has not run out with its margin");
    f.pass(3);
    let w = f.workload(id);
    assert_ne!(w.live().unwrap().node_id, home);
    assert_eq!(w.attempt().0, 2);
    assert_eq!(w.attempts[0].reason, WorkloadReason::NodeLost);
    // The old node returns with the old attempt: it is ordered to stop.
    let name = f.cluster.nodes.get(home).unwrap().name.clone();
    let running = RunningReport { workload_id: id, attempt: w.attempts[0].attempt, state: N::Running, gpus: vec![] };
    f.effects.clear();
    f.connect(home, h100x8(&name), &[running], 7);
    let Some(Effect::SendDesiredSet { also_stop, .. }) =
        f.effects.iter().find(|e| matches!(e, Effect::SendDesiredSet { .. }))
    else {
        panic!("no desired set")
    };
    assert_eq!((also_stop[0].workload_id, also_stop[0].cause), (id, C::Superseded));
}

#[test]
fn a_kept_workload_is_never_copied_and_is_adopted() {
    let mut f = Fleet::with_nodes(2);
    let id = f.submit(WorkloadSpec { on_partition: Some(OnPartition::Keep), ..spec(4) }).workload_id.unwrap();
    f.report(id, N::Running, C::Progress, None);
    let live = f.workload(id).live().unwrap().clone();
    f.silence(live.node_id);
    f.pass(1_000_000);
    assert_eq!(f.workload(id).live().unwrap().attempt, live.attempt);
    assert_eq!(query::workload_row(&f.cluster, &f.workload(id)).reason, WorkloadReason::NodeUnreachable);
    let name = f.cluster.nodes.get(live.node_id).unwrap().name.clone();
    let running = RunningReport { workload_id: id, attempt: live.attempt, state: N::Running, gpus: live.gpus.clone() };
    f.connect(live.node_id, h100x8(&name), &[running], 7);
    assert_eq!((f.workload(id).state, f.workload(id).reason), (WorkloadState::Running, WorkloadReason::Adopted));
}

#[test]
fn if_many_nodes_fall_silent_at_once_nobody_is_declared_lost() {
    let mut f = Fleet::with_nodes(5);
    let id = f.submit(spec(4)).workload_id.unwrap();
    let nodes: Vec<_> = f.cluster.nodes.iter().map(|n| n.node_id).collect();
    for node in &nodes[..4] {
        f.silence(*node);
    }
    f.pass(10_000);
    assert_eq!(f.workload(id).attempt().0, 1);
    assert!(query::status(&f.cluster, f.now, true).problems.iter().any(|p| p.code == "MASS_LOSS_SUSPECTED"));
}

#[test]
fn a_drain_of_others_work_needs_a_plan_an_approval_and_can_be_undone() {
    let mut f = Fleet::with_nodes(2);
    let id = f.submit(spec(4)).workload_id.unwrap();
    f.report(id, N::Running, C::Progress, None);
    let home = f.cluster.nodes.get(f.workload(id).live().unwrap().node_id).unwrap().name.clone();
    let drain = || Operation::NodeDrain { node: home.clone(), grace_s: None };
    let before = f.cluster.to_snapshot();
    let refused = f.operate("bob", drain(), Mode::Apply, None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::PlanRequired);
    assert_eq!(f.cluster.to_snapshot(), before, "a refusal changes nothing");

    let revision = f.cluster.revision;
    let planned = f.operate("bob", drain(), Mode::Plan, None).unwrap();
    assert_eq!(f.cluster.revision, revision, "a plan does not raise the fleet's revision");
    let plan = planned.plan.unwrap();
    assert_eq!(plan.evicts, vec![id]);
    let apply = |f: &mut Fleet| {
        let caller = who("bob", Role::Admin, PrincipalKind::Agent, f.now);
        f.run(
            Command::PlanApply {
                plan_id: plan.plan_id,
                mutation: mutation(Mode::Apply, Some("r1")),
                args_hash: "h".into(),
                secret_hash: None,
            },
            &caller,
        )
    };
    assert_eq!(apply(&mut f).unwrap_err().code, ErrorCode::ApprovalRequired);
    let decide = |f: &mut Fleet, principal: &str, kind, hash: &str| {
        let caller = who(principal, Role::Admin, kind, f.now);
        let command = Command::ApprovalDecide {
            approval_id: plan.approval_id.unwrap(),
            decision: ApprovalDecision::Approve,
            diff_hash: hash.to_owned(),
            mutation: mutation(Mode::Apply, None),
            args_hash: "h".into(),
        };
        f.run(command, &caller)
    };
    let hash = plan.diff_hash[..8].to_owned();
    assert_eq!(decide(&mut f, "carol", PrincipalKind::Agent, &hash).unwrap_err().code, ErrorCode::ApprovalNotYours);
    assert_eq!(
        decide(&mut f, "carol", PrincipalKind::Person, "00000000").unwrap_err().code,
        ErrorCode::InvalidArgument
    );
    decide(&mut f, "carol", PrincipalKind::Person, &hash).unwrap();
    let applied = outcome(apply(&mut f).unwrap());
    assert_eq!(f.node(&home).schedulable, Schedulable::Draining);
    assert_eq!(outcome(apply(&mut f).unwrap()), applied, "the same request has the same receipt");

    f.report(id, N::Stopped, C::StopRequested, None);
    assert_eq!(f.node(&home).schedulable, Schedulable::Drained);
    assert_ne!(f.workload(id).live().unwrap().node_id, f.node(&home).node_id, "it runs elsewhere");
    f.operate("bob", Operation::Undo { operation_id: applied.operation_id.unwrap() }, Mode::Apply, None).unwrap();
    assert_eq!(f.node(&home).schedulable, Schedulable::Active);
}

#[test]
fn a_plan_that_would_do_something_else_now_is_stale() {
    let mut f = Fleet::with_nodes(1);
    let planned = f.operate("alice", run_of(spec(4)), Mode::Plan, None).unwrap();
    let plan = planned.plan.unwrap();
    assert!(plan.diff.iter().any(|c| c.field == "place" && c.to.contains("n0")), "{:?}", plan.diff);
    f.submit(spec(8));
    let caller = who("alice", Role::Operator, PrincipalKind::Agent, f.now);
    let before = f.cluster.to_snapshot();
    let command = Command::PlanApply {
        plan_id: plan.plan_id,
        mutation: mutation(Mode::Apply, None),
        args_hash: "h".into(),
        secret_hash: None,
    };
    let refused = f.run(command, &caller).unwrap_err();
    assert_eq!(refused.code, ErrorCode::StalePlan);
    assert!(refused.evidence["difference"].as_array().is_some_and(|d| !d.is_empty()));
    assert_eq!(f.cluster.to_snapshot(), before);
}

#[test]
fn a_plan_that_is_current_does_exactly_what_it_showed() {
    let mut f = Fleet::with_nodes(2);
    let plan = f.operate("alice", run_of(spec(4)), Mode::Plan, None).unwrap().plan.unwrap();
    let caller = who("alice", Role::Operator, PrincipalKind::Agent, f.now);
    let command = Command::PlanApply {
        plan_id: plan.plan_id,
        mutation: mutation(Mode::Apply, None),
        args_hash: "h".into(),
        secret_hash: None,
    };
    let out = outcome(f.run(command, &caller).unwrap());
    let subject = format!("workload {}", out.workload_id.unwrap());
    assert!(plan.diff.iter().all(|c| c.subject == subject), "the ids were reserved when it was planned");
    let again = Command::PlanApply {
        plan_id: plan.plan_id,
        mutation: mutation(Mode::Apply, None),
        args_hash: "h".into(),
        secret_hash: None,
    };
    assert_eq!(f.run(again, &caller).unwrap_err().code, ErrorCode::PlanApplied);
}

#[test]
fn one_intention_has_one_effect_and_another_meaning_is_a_conflict() {
    let mut f = Fleet::with_nodes(1);
    let first = f.operate("alice", run_of(spec(1)), Mode::Apply, Some("k")).unwrap();
    let again = f.operate("alice", run_of(spec(1)), Mode::Apply, Some("k")).unwrap();
    assert_eq!(first, again);
    assert_eq!(f.cluster.workloads.len(), 1);
    assert_eq!(
        f.operate("alice", run_of(spec(2)), Mode::Apply, Some("k")).unwrap_err().code,
        ErrorCode::IdempotencyConflict
    );
    assert_eq!(
        f.operate("bob", run_of(spec(2)), Mode::Apply, Some("k")).unwrap().effect,
        EffectKind::Accepted,
        "keys are the principal's own"
    );
    let once = f.operate("alice", run_of(spec(1)), Mode::Apply, None).unwrap();
    let twice = f.operate("alice", run_of(spec(1)), Mode::Apply, None).unwrap();
    assert_eq!(twice.possible_duplicate_of, once.operation_id);
}

#[test]
fn restart_policies_are_kept_and_bounded() {
    let mut f = Fleet::with_nodes(1);
    let always = WorkloadSpec { restart: Some(RestartPolicy::OnFailure), max_restarts: Some(1), ..spec(1) };
    let id = f.submit(always).workload_id.unwrap();
    f.report(id, N::Running, C::Progress, None);
    f.report(id, N::Failed, C::Exited, Some(3));
    assert_eq!((f.workload(id).state, f.workload(id).reason), (WorkloadState::Pending, WorkloadReason::NotBefore));
    f.pass(2);
    assert_eq!(f.workload(id).attempt().0, 2);
    f.report(id, N::Failed, C::Exited, Some(3));
    let w = f.workload(id);
    assert_eq!(
        (w.state, w.reason, w.attempts.last().unwrap().exit_code),
        (WorkloadState::Failed, WorkloadReason::ExitedNonZero, Some(3))
    );
}

#[test]
fn undo_refuses_when_something_later_stands_in_the_way() {
    let mut f = Fleet::with_nodes(1);
    let label = |v: &str| Operation::NodeLabel {
        node: "n0".into(),
        set: [("rack".to_owned(), v.to_owned())].into(),
        remove: vec![],
    };
    let first = f.operate("alice", label("a"), Mode::Apply, None).unwrap().operation_id.unwrap();
    let second = f.operate("bob", label("b"), Mode::Apply, None).unwrap().operation_id.unwrap();
    let refused = f.operate("alice", Operation::Undo { operation_id: first }, Mode::Apply, None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::UndoConflict);
    assert_eq!(refused.evidence["later_operations"][0]["operation_id"], second.to_string());
    f.operate("bob", Operation::Undo { operation_id: second }, Mode::Apply, None).unwrap();
    f.operate("alice", Operation::Undo { operation_id: first }, Mode::Apply, None).unwrap();
    assert!(f.node("n0").labels.is_empty());
}

#[test]
fn environment_values_never_stand_in_an_event() {
    let mut f = Fleet::with_nodes(1);
    let with_env = WorkloadSpec { env: [("TOKEN".to_owned(), "hunter2".to_owned())].into(), ..spec(0) };
    f.operate("alice", run_of(with_env.clone()), Mode::Plan, Some("p")).unwrap();
    f.submit(with_env);
    for record in &f.journal {
        assert!(!String::from_utf8(record.to_json()).unwrap().contains("hunter2"));
    }
}

#[test]
fn keys_are_tier_two_and_the_last_admin_cannot_be_revoked() {
    let mut f = Fleet::with_nodes(0);
    f.system(Command::Bootstrap { key_id: key_id(), secret_hash: "00".into(), principal: "root".into() });
    let refused = f.operate("root", Operation::ApiKeyRevoke { key_id: key_id() }, Mode::Apply, None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidState);
    let make = Operation::ApiKeyCreate {
        principal: "bot".into(),
        role: Role::Operator,
        kind: PrincipalKind::Agent,
        ttl_s: None,
    };
    assert_eq!(f.operate("root", make, Mode::Apply, None).unwrap_err().code, ErrorCode::PlanRequired);
}

#[test]
fn what_is_not_built_is_refused_and_named() {
    let mut f = Fleet::with_nodes(1);
    let refused =
        f.operate("alice", run_of(WorkloadSpec { replicas: Some(3), ..spec(1) }), Mode::Apply, None).unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::NotBuilt, Some("spec.replicas")));
}

#[test]
fn a_snapshot_and_the_events_after_it_give_the_same_state() {
    let mut f = Fleet::with_nodes(2);
    let id = f.submit(spec(4)).workload_id.unwrap();
    f.report(id, N::Running, C::Progress, None);
    let bytes = f.cluster.to_snapshot();
    let restored =
        crate::Cluster::from_snapshot(crate::cluster::SNAPSHOT_FORMAT, &bytes, f.cluster.policy.clone()).unwrap();
    assert_eq!(restored.to_snapshot(), bytes);
    crate::invariants::check_indexes(&f.cluster).unwrap();
}
