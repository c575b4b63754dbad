//! Corner cases that an adversary, a race or a crash finds.

use claw_proto::message::{NodeWorkloadState as N, RunningReport, StatusCause as C};
use claw_proto::spec::{OnPartition, WorkloadSpec};
use claw_tools::access::{PrincipalKind, Role, Tier};
use claw_tools::nodes::{GpuListParams, NodeLink, NodeListParams, Schedulable};
use claw_tools::operations::OperationState;
use claw_tools::outcome::{Mode, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::workloads::{PlacementReason, WorkloadReason, WorkloadState};
use serde_json::json;

use super::fleet::{self, Fleet, h100x8, key_id, mutation, outcome, run_of, spec, who};
use crate::event::Event;
use crate::{Command, Effect, Operation, invariants, query};

fn drain(node: &str) -> Operation {
    Operation::NodeDrain { node: node.into(), grace_s: None }
}

fn stop(f: &mut Fleet, principal: &str, id: claw_proto::ids::WorkloadId) -> Result<Outcome, Refusal> {
    f.operate(principal, Operation::WorkloadStop { workload: id.to_string(), grace_s: None }, Mode::Apply, None)
}

fn as_operator(f: &mut Fleet, operation: Operation) -> Result<Outcome, Refusal> {
    let caller = who("bob", Role::Operator, PrincipalKind::Agent, f.now);
    let command =
        Command::Operate { operation, mutation: mutation(Mode::Apply, None), args_hash: "h".into(), secret_hash: None };
    f.run(command, &caller).map(outcome)
}

/// Applies a tier 3 plan of root with carol's approval.
fn running(f: &mut Fleet, spec: WorkloadSpec) -> (claw_proto::ids::WorkloadId, claw_proto::ids::NodeId) {
    let id = f.submit(spec).workload_id.unwrap();
    f.report(id, N::Running, C::Progress, None);
    (id, f.workload(id).live().unwrap().node_id)
}

#[test]
fn anothers_work_that_is_being_moved_is_not_stopped_without_a_plan() {
    let mut f = Fleet::with_nodes(1);
    let (id, _) = running(&mut f, spec(1));
    f.operate("alice", drain("n0"), Mode::Apply, None).unwrap();
    assert_eq!(stop(&mut f, "bob", id).unwrap_err().code, ErrorCode::PlanRequired);
    stop(&mut f, "alice", id).unwrap();
}

#[test]
fn an_undo_of_an_undo_needs_the_right_to_the_thing_itself() {
    let mut f = Fleet::with_nodes(1);
    let set = Operation::NodeConfigSet { node: "n0".into(), metrics_interval_ms: Some(60_000), log_buffer_bytes: None };
    let first = f.operate("root", set, Mode::Apply, None).unwrap().operation_id.unwrap();
    let undone = f.operate("root", Operation::Undo { operation_id: first }, Mode::Apply, None).unwrap();
    let again = Operation::Undo { operation_id: undone.operation_id.unwrap() };
    assert_eq!(as_operator(&mut f, again).unwrap_err().code, ErrorCode::Forbidden);
}

#[test]
fn undoing_an_undrain_drains_again() {
    let mut f = Fleet::with_nodes(1);
    f.operate("alice", drain("n0"), Mode::Apply, None).unwrap();
    assert_eq!(f.node("n0").schedulable, Schedulable::Drained);
    let undrain = f.operate("alice", Operation::NodeUndrain { node: "n0".into() }, Mode::Apply, None).unwrap();
    let (id, _) = running(&mut f, spec(1));
    let undo = Operation::Undo { operation_id: undrain.operation_id.unwrap() };
    assert_eq!(
        f.operate("bob", undo.clone(), Mode::Apply, None).unwrap_err().code,
        ErrorCode::PlanRequired,
        "it evicts alice's work"
    );
    f.operate("alice", undo, Mode::Apply, None).unwrap();
    assert_eq!((f.node("n0").schedulable, f.workload(id).state), (Schedulable::Draining, WorkloadState::Stopping));
}

#[test]
fn a_canceled_drain_leaves_a_cordoned_node_cordoned() {
    let mut f = Fleet::with_nodes(1);
    running(&mut f, spec(1));
    f.operate("alice", Operation::NodeCordon { node: "n0".into() }, Mode::Apply, None).unwrap();
    let operation_id = f.operate("alice", drain("n0"), Mode::Apply, None).unwrap().operation_id.unwrap();
    f.operate("alice", Operation::OperationCancel { operation_id }, Mode::Apply, None).unwrap();
    assert_eq!(f.node("n0").schedulable, Schedulable::Cordoned);
    assert_eq!(f.cluster.operations[&operation_id].state, OperationState::Canceled);
}

#[test]
fn removing_a_cut_off_node_makes_no_copies() {
    let mut f = Fleet::with_nodes(2);
    let (leased, node) = running(&mut f, spec(8));
    let (kept, other) = running(&mut f, WorkloadSpec { on_partition: Some(OnPartition::Keep), ..spec(4) });
    let name = |f: &Fleet, id| f.cluster.nodes.get(id).unwrap().name.clone();
    f.silence(node);
    let leased_on = name(&f, node);
    let refused = f.plan_and_apply(Operation::NodeRemove { node: leased_on.clone() }).unwrap_err();
    assert_eq!((refused.code, refused.retryable), (ErrorCode::InvalidState, true), "its lease has not run out");
    f.pass(40);
    assert_ne!(f.workload(leased).attempts[0].state, WorkloadState::Running);
    f.plan_and_apply(Operation::NodeRemove { node: leased_on }).unwrap();

    f.silence(other);
    let drained = f.operate("alice", drain(&name(&f, other)), Mode::Apply, None).unwrap().operation_id.unwrap();
    let kept_on = name(&f, other);
    f.plan_and_apply(Operation::NodeRemove { node: kept_on }).unwrap();
    let w = f.workload(kept);
    assert_eq!((w.state, w.reason), (WorkloadState::Lost, WorkloadReason::NodeRemoved), "it may run there for ever");
    assert_eq!(f.cluster.operations[&drained].state, OperationState::Canceled, "an operation never hangs");
}

#[test]
fn what_a_forgetful_node_reports_as_ended_is_not_run_again() {
    let mut f = Fleet::with_nodes(2);
    let (id, node) = running(&mut f, spec(1));
    let live = f.workload(id).live().unwrap().clone();
    let name = f.cluster.nodes.get(node).unwrap().name.clone();
    let ended = RunningReport { workload_id: id, attempt: live.attempt, state: N::Completed, gpus: vec![] };
    f.connect(node, h100x8(&name), &[ended], 8);
    f.report(id, N::Completed, C::Exited, Some(0));
    let w = f.workload(id);
    assert_eq!((w.state, w.attempt()), (WorkloadState::Completed, live.attempt));
}

#[test]
fn leases_begin_anew_at_a_start_and_at_a_connection() {
    let mut f = Fleet::with_nodes(2);
    let (id, node) = running(&mut f, spec(1));
    f.silence(node);
    // The wall clock of the next start is an hour ahead: nothing was heard of, or stopped, in that hour.
    f.now = f.now.plus_ms(3_600_000);
    f.system(Command::GatewayStarted { epoch: 2 });
    f.pass(1);
    assert_eq!(f.workload(id).live().unwrap().node_id, node, "the lease counts from the start");
    // A silence that was noticed before the node connected again.
    let (stale, name) = (f.now, f.cluster.nodes.get(node).unwrap().name.clone());
    let live = f.workload(id).live().unwrap().clone();
    f.pass(20);
    let report = RunningReport { workload_id: id, attempt: live.attempt, state: N::Running, gpus: live.gpus };
    f.connect(node, h100x8(&name), &[report], 7);
    let connected = f.now;
    f.pass(20);
    f.system(Command::NodesSilent { nodes: vec![(node, stale)] });
    assert_eq!(f.cluster.nodes.get(node).unwrap().link, NodeLink::Unreachable);
    assert_eq!(f.cluster.nodes.get(node).unwrap().last_heard, connected);
    f.pass(1);
    assert_eq!(f.workload(id).attempt(), live.attempt, "the node's own lease counts from its connection");
}

#[test]
fn nodes_that_broke_one_by_one_do_not_hold_up_the_next_loss() {
    let mut f = Fleet::with_nodes(6);
    let (id, home) = running(&mut f, spec(1));
    let others: Vec<_> = f.cluster.nodes.iter().map(|n| n.node_id).filter(|n| *n != home).take(3).collect();
    for node in others {
        f.silence(node);
        f.pass(3_600);
    }
    assert_eq!(f.cluster.mass_loss, None);
    f.silence(home);
    f.pass(60);
    assert_eq!(f.workload(id).attempt().0, 2, "it was lost and runs elsewhere");
}

#[test]
fn a_mass_loss_stands_however_long_it_lasts() {
    let mut f = Fleet::with_nodes(5);
    let (id, _) = running(&mut f, spec(1));
    let nodes: Vec<_> = f.cluster.nodes.iter().map(|n| n.node_id).collect();
    for node in &nodes[..4] {
        f.silence(*node);
    }
    for _ in 0..3 {
        f.pass(86_400);
    }
    assert_eq!((f.cluster.mass_loss, f.workload(id).attempt().0), (Some((4, 5)), 1));
}

#[test]
fn a_move_does_not_run_again_what_ended_by_itself() {
    for (state, cause, exit, reason) in [
        (N::Failed, C::Exited, Some(3), WorkloadReason::ExitedNonZero),
        (N::Stopped, C::MaxDuration, None, WorkloadReason::MaxDuration),
    ] {
        let mut f = Fleet::with_nodes(2);
        let (id, node) = running(&mut f, spec(1));
        let name = f.cluster.nodes.get(node).unwrap().name.clone();
        f.operate("alice", drain(&name), Mode::Apply, None).unwrap();
        f.report(id, state, cause, exit);
        assert!(f.workload(id).state.is_final());
        assert_eq!(f.workload(id).reason, reason);
    }
}

#[test]
fn environment_values_are_checked_and_erased_when_nothing_needs_them() {
    let with_env =
        |value: &str, gpus| WorkloadSpec { env: [("TOKEN".to_owned(), value.to_owned())].into(), ..spec(gpus) };
    let mut f = Fleet::with_nodes(1);
    let refused = f.operate("alice", run_of(with_env("a\0b", 0)), Mode::Apply, None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::SpecInvalid);
    let erased = |f: &Fleet| f.effects.iter().filter(|e| matches!(e, Effect::EraseBlob { .. })).count();
    let waiting = f.submit(with_env("x", 16)).workload_id.unwrap();
    stop(&mut f, "alice", waiting).unwrap();
    assert_eq!(erased(&f), 1, "stopped while it waited");
    f.operate("alice", run_of(with_env("x", 0)), Mode::Plan, None).unwrap();
    f.pass(2 * 86_400);
    assert_eq!(erased(&f), 2, "its plan was never applied");
    assert!(f.cluster.plans.is_empty() && f.cluster.approvals.is_empty(), "plans go without receipts, too");
}

#[test]
fn a_gpu_that_two_nodes_report_has_one_home_also_after_a_restart() {
    let mut f = Fleet::with_nodes(2);
    let (a, b) = (f.node("n0"), f.node("n1"));
    let mut twin = h100x8("n1");
    twin.gpus[1] = twin.gpus[0].clone();
    // n0, the older one, claims GPUs of n1 later: they stay n1's, and one that is listed twice counts once.
    f.system(Command::NodeCapabilities { node_id: b.node_id, capabilities: Box::new(twin.clone()) });
    f.system(Command::NodeCapabilities { node_id: a.node_id, capabilities: Box::new(twin.clone()) });
    invariants::check_indexes(&f.cluster).unwrap();
    assert_eq!(f.cluster.nodes.home_of(&twin.gpus[0].uuid), Some(b.node_id));
    assert_eq!(f.submit(spec(8)).effect, claw_tools::outcome::EffectKind::Queued);
    let (seven, home) = running(&mut f, spec(7));
    assert_eq!((f.workload(seven).live().unwrap().gpus.len(), home), (7, b.node_id));
    f.report(seven, N::Completed, C::Exited, Some(0));
    f.system(Command::NodeCapabilities { node_id: b.node_id, capabilities: Box::new(h100x8("other")) });
    assert_eq!(f.cluster.nodes.home_of(&twin.gpus[0].uuid), Some(a.node_id), "given up, it goes to who has it");
    invariants::check_indexes(&f.cluster).unwrap();
}

#[test]
fn a_submission_looks_at_itself_alone() {
    let mut f = Fleet::with_nodes(1);
    f.submit(spec(8));
    for _ in 0..50 {
        f.submit(spec(8));
    }
    let n = f.journal.len();
    f.submit(spec(8));
    let waits = f.journal[n..].iter().filter(|r| matches!(r.event, Event::WorkloadWaits { .. })).count();
    assert_eq!((waits, f.cluster.workloads.queue_len()), (1, 51));
}

#[test]
fn a_second_pair_of_eyes_cannot_be_made_by_the_first() {
    let mut f = Fleet::with_nodes(0);
    f.system(Command::Bootstrap { key_id: key_id(), secret_hash: "00".into(), principal: "root".into() });
    let make = |principal: &str| Operation::ApiKeyCreate {
        principal: principal.into(),
        role: Role::Admin,
        kind: PrincipalKind::Person,
        ttl_s: None,
    };
    let tier = |f: &mut Fleet, principal: &str| {
        f.operate("root", make(principal), Mode::Plan, None).unwrap().plan.unwrap().tier
    };
    assert_eq!(tier(&mut f, "second"), Tier::Disruptive, "one person alone can let a second in");
    f.plan_and_apply(make("second")).unwrap();
    assert_eq!(tier(&mut f, "third"), Tier::Irreversible, "two have to agree on a third");
}

#[test]
fn a_lease_that_heartbeats_cannot_renew_is_refused() {
    let mut f = Fleet::with_nodes(1);
    let lease = |s| WorkloadSpec { on_partition: Some(OnPartition::StopAfter(s)), ..spec(1) };
    let refused = f.operate("alice", run_of(lease(9)), Mode::Apply, None).unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::SpecInvalid, Some("spec.on_partition")));
    f.operate("alice", run_of(lease(10)), Mode::Apply, None).unwrap();
}

/// A node whose clock is slow by the tolerated drift has stopped the longest lease, too.
#[test]
fn a_lease_of_a_week_outlasts_the_drift() {
    use claw_proto::limits::{LEASE_DRIFT_PERMILLE, LEASE_MARGIN_MS, STOP_AFTER_S_MAX};
    let end = crate::step::follow::lease_end(claw_proto::time::Timestamp::from_unix_ms(0), STOP_AFTER_S_MAX);
    let counted_ms = u64::try_from(end.unix_ms()).unwrap() - LEASE_MARGIN_MS;
    assert!(counted_ms * (1_000 - LEASE_DRIFT_PERMILLE) / 1_000 >= u64::from(STOP_AFTER_S_MAX) * 1_000);
}

/// Two ids that end alike do not make two workloads of one name.
#[test]
fn made_names_are_unique() {
    use claw_proto::ids::CountingIds;
    let mut f = Fleet::with_nodes(1);
    f.ids = CountingIds::new(2);
    let first = f.submit(spec(0)).workload_id.unwrap();
    f.ids = CountingIds::new(3);
    let second = f.submit(spec(0)).workload_id.unwrap();
    assert_ne!(f.workload(first).name, f.workload(second).name);
    invariants::check_indexes(&f.cluster).unwrap();
}

#[test]
fn what_was_given_up_ends_as_its_node_says_when_it_is_back() {
    let mut f = Fleet::with_nodes(2);
    let once = WorkloadSpec { restart: Some(claw_proto::spec::RestartPolicy::Never), ..spec(1) };
    let (id, node) = running(&mut f, once);
    let attempt = f.workload(id).attempt();
    f.silence(node);
    f.pass(60);
    assert_eq!((f.workload(id).state, f.workload(id).reason), (WorkloadState::Lost, WorkloadReason::NodeLost));
    let name = f.cluster.nodes.get(node).unwrap().name.clone();
    let ended = RunningReport { workload_id: id, attempt, state: N::Completed, gpus: vec![] };
    f.connect(node, h100x8(&name), &[ended], 7);
    for _ in 0..2 {
        f.report_as(node, id, attempt, N::Completed, C::Exited, Some(0));
        let w = f.workload(id);
        assert_eq!((w.state, w.reason), (WorkloadState::Completed, WorkloadReason::ExitedZero));
        assert_eq!((w.attempts[0].state, w.attempts[0].exit_code), (WorkloadState::Completed, Some(0)));
        invariants::check_indexes(&f.cluster).unwrap();
    }
    f.report_as(node, id, attempt, N::Failed, C::Exited, Some(1));
    assert_eq!(f.workload(id).state, WorkloadState::Completed, "an end is told once");
}

#[test]
fn a_node_that_loses_work_at_once_does_not_get_it_back_at_once_for_ever() {
    let mut f = Fleet::with_nodes(1);
    let id = f.submit(spec(1)).workload_id.unwrap();
    f.report(id, N::Lost, C::SupervisorGone, None);
    assert_eq!(f.workload(id).attempts.len(), 2, "the first loss moves it at once");
    for pause_ms in [1_000, 2_000, 4_000] {
        f.report(id, N::Lost, C::SupervisorGone, None);
        let w = f.workload(id);
        assert_eq!(w.state, WorkloadState::Pending);
        assert_eq!(w.not_before, Some(f.now.plus_ms(pause_ms)));
        f.pass(pause_ms / 1_000);
        assert!(f.workload(id).live().is_some(), "after the pause it is tried again");
    }
}

#[test]
fn a_gpu_that_died_before_the_start_is_not_the_workloads_failure() {
    let mut f = Fleet::with_nodes(2);
    let id = f.submit(spec(1)).workload_id.unwrap();
    f.report(id, N::Failed, C::GpuMissing, None);
    let w = f.workload(id);
    assert_eq!((w.attempts.len(), w.attempts[0].reason, w.restarts), (2, WorkloadReason::GpuMissing, 0));
    assert!(w.live().is_some(), "it is placed again, and its own restarts are not touched");
}

#[test]
fn a_slice_is_no_gpu_and_a_gpu_in_slices_is_none_any_more() {
    let mut f = Fleet::with_nodes(1);
    let node = f.node("n0").node_id;
    let mut has = h100x8("n0");
    has.gpus.truncate(2);
    let parent = has.gpus[1].uuid.clone();
    let slice = |n: u32| claw_proto::topology::GpuInfo {
        uuid: claw_proto::ids::GpuUuid(format!("MIG-{n}")),
        index: 2 + n,
        mig: Some(claw_proto::topology::MigSlice { parent: parent.clone(), profile: "3g.40gb".into() }),
        ..has.gpus[1].clone()
    };
    let slices = [slice(0), slice(1)];
    has.gpus.extend(slices);
    let whole = has.gpus[0].uuid.clone();
    f.connect(node, has, &[], 7);
    let (first, second) = (f.submit(spec(1)).workload_id.unwrap(), f.submit(spec(1)).workload_id.unwrap());
    assert_eq!(f.workload(first).live().unwrap().gpus, [whole]);
    assert!(f.workload(second).live().is_none(), "the rest is slices");
    let counts = query::status(&f.cluster, f.now, true).gpus;
    assert_eq!((counts.total, counts.free, counts.held), (3, 2, 1), "what is cut is not counted");
    let free = GpuListParams { free: Some(true), ..GpuListParams::default() };
    assert_eq!(query::gpu_list(&f.cluster, &free).unwrap().total, 2);
    assert_eq!(query::gpu_list(&f.cluster, &GpuListParams::default()).unwrap().total, 4);
    let row = query::node_list(&f.cluster, &NodeListParams::default()).unwrap().nodes.remove(0);
    assert_eq!(
        (&row["gpus"], &row["gpus_total"], &row["gpus_free"]),
        (&json!("1×H100 2×H100 3g.40gb"), &json!(3), &json!(2))
    );
    // A slice is for who asks for one, and as many as there are.
    let slices: Vec<_> = (0..3).map(|_| f.submit(fleet::slice("3g.40gb")).workload_id.unwrap()).collect();
    assert_eq!(f.workload(slices[0]).live().unwrap().gpus, [claw_proto::ids::GpuUuid("MIG-0".into())]);
    let detail = query::workload_detail(&f.cluster, &slices[1].to_string(), |_| None).unwrap();
    assert_eq!(detail.isolation, "simulated: nothing really runs", "no hardware keeps apart what is simulated");
    let report = f.workload(slices[2]).report.clone().unwrap();
    assert_eq!(report.rejected[0].reason, PlacementReason::GpuBusy, "{report:?}");
    let none = f.submit(fleet::slice("1g.10gb")).workload_id.unwrap();
    let report = f.workload(none).report.clone().unwrap();
    assert_eq!((report.rejected[0].reason, report.waiting_helps), (PlacementReason::MigProfileMissing, false));
}

#[test]
fn a_rotation_is_seen_until_it_is_over_and_so_is_a_revoked_node() {
    let mut f = Fleet::with_nodes(1);
    let is_seen = |f: &Fleet| query::status(&f.cluster, f.now, true).problems.iter().any(|p| p.code == "CA_ROTATION");
    assert!(!is_seen(&f));
    f.plan_and_apply(Operation::CaRotate {}).unwrap();
    assert!(is_seen(&f));
    let refused = f.plan_and_apply(Operation::CaRotate {}).unwrap_err();
    assert_eq!(refused.next[0].tool, "cluster_status", "it leads to where the rotation is seen");
    f.system(Command::CaRotated { rotation: 1 });
    assert!(!is_seen(&f));
    f.plan_and_apply(Operation::NodeRevoke { node: "n0".into() }).unwrap();
    assert!(query::status(&f.cluster, f.now, true).problems.iter().any(|p| p.code == "NODE_REVOKED"));
}

#[test]
fn what_a_container_has_is_not_asked_of_a_host_process() {
    let mut f = Fleet::with_nodes(1);
    let volumes = vec![claw_proto::spec::Volume { source: "data".into(), target: "/data".into(), read_only: false }];
    let on_host =
        WorkloadSpec { volumes: volumes.clone(), command: Some(vec!["true".into()]), ..WorkloadSpec::default() };
    let refused = f.operate("alice", run_of(on_host), Mode::Apply, None).unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::NotBuilt, Some("spec.volumes")));
    let contained = WorkloadSpec { volumes, image: Some("registry.example/app:1".into()), ..WorkloadSpec::default() };
    f.operate("alice", run_of(contained), Mode::Apply, None).unwrap();
}
