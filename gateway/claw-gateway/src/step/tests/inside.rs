//! Commands inside workloads, and the secrets that workloads name.

use std::collections::BTreeSet;

use claw_proto::ids::{OperationId, WorkloadId};
use claw_proto::message::{NodeWorkloadState, StatusCause, TaskErrorCode};
use claw_proto::spec::{RuntimeKind, SecretRef, WorkloadSpec};
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::operations::OperationState;
use claw_tools::outcome::{Mode, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::secrets::SecretListParams;

use super::fleet::{Fleet, h100x8, mutation, outcome, run_of, who};
use crate::event::{Event, ExecEnd};
use crate::{Caller, Command, Effect, Operation, query};

/// A fleet with one node that has containers, and a container that runs on it.
fn with_container() -> (Fleet, WorkloadId) {
    let mut f = Fleet::with_nodes(1);
    let node = f.node("n0").node_id;
    let mut has = h100x8("n0");
    has.runtimes = vec![RuntimeKind::Docker, RuntimeKind::Process];
    f.connect(node, has, &[], 7);
    let id = f.submit(contained()).workload_id.unwrap();
    f.report(id, NodeWorkloadState::Running, StatusCause::Progress, None);
    (f, id)
}

fn contained() -> WorkloadSpec {
    WorkloadSpec { image: Some("registry.example/app:1".into()), ..WorkloadSpec::default() }
}

fn exec_of(id: WorkloadId) -> Operation {
    Operation::WorkloadExec { workload: id.to_string(), command: vec!["cat".into(), "/x".into()], timeout_s: 5 }
}

fn ended(f: &mut Fleet, operation_id: OperationId, end: ExecEnd) {
    let output = Some(b"written".to_vec());
    f.system(Command::ExecEnded { operation_id, end, output });
}

#[test]
fn a_command_needs_a_person_runs_once_and_tells_how_it_ended() {
    let (mut f, id) = with_container();
    let refused = f.operate("alice", exec_of(id), Mode::Apply, None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::PlanRequired);
    assert!(f.cluster.execs.is_empty(), "a refusal runs nothing");
    let accepted = f.plan_and_apply(exec_of(id)).unwrap();
    let operation_id = accepted.operation_id.unwrap();
    let asked = f.effects.iter().filter(|e| matches!(e, Effect::Exec { .. })).count();
    assert_eq!(asked, 1);
    assert_eq!(f.cluster.operations[&operation_id].state, OperationState::Pending);
    ended(&mut f, operation_id, ExecEnd { exit_code: Some(0), ..ExecEnd::default() });
    // The first word counts.
    ended(&mut f, operation_id, ExecEnd::failed(TaskErrorCode::Internal, "late"));
    let view = query::operation_view(&f.cluster, &f.cluster.operations[&operation_id]);
    let exec = view.exec.unwrap();
    assert_eq!((view.state, exec.exit_code, exec.ended), (OperationState::Succeeded, Some(0), true));
    assert_eq!(view.observed.unwrap().state, "exit code 0");
    // What it did is not taken back.
    let undo = f.operate("root", Operation::Undo { operation_id }, Mode::Plan, None).unwrap_err();
    assert_eq!(undo.code, ErrorCode::UndoImpossible);
    // What it wrote is kept for a day and then erased.
    let handle = f.cluster.execs[&operation_id].output.clone().unwrap();
    f.pass(2 * 24 * 3600);
    assert!(f.effects.contains(&Effect::EraseBlob { handle }));
    assert!(f.cluster.execs.is_empty());
}

#[test]
fn a_command_that_failed_or_was_not_heard_of_is_no_success() {
    let (mut f, id) = with_container();
    let ends = [
        ExecEnd { exit_code: Some(3), ..ExecEnd::default() },
        ExecEnd { timed_out: true, ..ExecEnd::default() },
        ExecEnd::failed(TaskErrorCode::NotRunning, "its container does not run"),
    ];
    for end in ends {
        let operation_id = f.plan_and_apply(exec_of(id)).unwrap().operation_id.unwrap();
        ended(&mut f, operation_id, end);
        assert_eq!(f.cluster.operations[&operation_id].state, OperationState::Failed);
    }
    let operation_id = f.plan_and_apply(exec_of(id)).unwrap().operation_id.unwrap();
    f.system(Command::GatewayStarted { epoch: 2 });
    let operation = &f.cluster.operations[&operation_id];
    assert_eq!(operation.state, OperationState::Failed);
    assert!(operation.observed.contains("may have run"), "{}", operation.observed);
}

#[test]
fn a_command_runs_only_inside_a_running_container_of_a_connected_node() {
    let (mut f, id) = with_container();
    let on_host = WorkloadSpec { command: Some(vec!["true".into()]), ..WorkloadSpec::default() };
    let process = f.submit(on_host).workload_id.unwrap();
    let waiting = f.operate("alice", exec_of(process), Mode::Plan, None).unwrap_err();
    assert_eq!(waiting.code, ErrorCode::InvalidState, "it does not run yet");
    f.report(process, NodeWorkloadState::Running, StatusCause::Progress, None);
    let host = f.operate("alice", exec_of(process), Mode::Plan, None).unwrap_err();
    assert!(host.message.contains("host process"), "{}", host.message);
    let plan = f.operate("root", exec_of(id), Mode::Plan, None).unwrap().plan.unwrap();
    assert!(plan.diff.iter().any(|c| c.field == "exec" && c.to.contains("cat")), "{:?}", plan.diff);
    f.silence(f.node("n0").node_id);
    let away = f.operate("alice", exec_of(id), Mode::Plan, None).unwrap_err();
    assert!(away.retryable && away.message.contains("not connected"), "{away:?}");
}

fn set(handle: &str, used_by: &[&str], value: &str) -> Operation {
    Operation::SecretSet {
        handle: handle.into(),
        used_by: used_by.iter().map(|p| (*p).to_owned()).collect::<BTreeSet<_>>(),
        sealed: Some(value.into()),
        blob: None,
    }
}

fn operator(f: &mut Fleet, principal: &str, operation: Operation, mode: Mode) -> Result<Outcome, Refusal> {
    let caller: Caller = who(principal, Role::Operator, PrincipalKind::Agent, f.now);
    let command =
        Command::Operate { operation, mutation: mutation(mode, None), args_hash: "h".into(), secret_hash: None };
    f.run(command, &caller).map(outcome)
}

fn with_secret(handle: &str) -> WorkloadSpec {
    let secrets = vec![SecretRef { handle: handle.into(), target: "token".into() }];
    WorkloadSpec { secrets, ..contained() }
}

#[test]
fn a_secret_is_for_those_that_it_is_for_and_never_in_the_journal() {
    let (mut f, _) = with_container();
    f.plan_and_apply(set("hf/token", &["alice"], "SEALED-VALUE")).unwrap();
    let written = f.journal.iter().any(|record| String::from_utf8(record.to_json()).unwrap().contains("SEALED"));
    assert!(!written, "not even sealed");
    let mut run = |who: &str, handle: &str| operator(&mut f, who, run_of(with_secret(handle)), Mode::Apply);
    run("alice", "hf/token").unwrap();
    let foreign = run("bob", "hf/token").unwrap_err();
    assert_eq!((foreign.code, foreign.field.as_deref()), (ErrorCode::Forbidden, Some("spec.secrets[0].handle")));
    let unknown = run("alice", "hf/tokem").unwrap_err();
    assert_eq!((unknown.code, unknown.did_you_mean.as_deref()), (ErrorCode::NotFound, Some("hf/token")));
    let taken = operator(&mut f, "bob", set("hf/token", &[], "other"), Mode::Plan).unwrap_err();
    assert_eq!(taken.code, ErrorCode::Forbidden, "not his");
    let rows = query::secret_list(&f.cluster, &SecretListParams::default());
    assert_eq!((rows.total, rows.secrets[0].workloads, rows.secrets[0].owner.as_str()), (1, 1, "root"));
}

#[test]
fn what_was_replaced_or_deleted_is_erased_and_what_is_used_stays() {
    let (mut f, _) = with_container();
    f.plan_and_apply(set("a", &["alice"], "one")).unwrap();
    let first = f.cluster.secrets["a"].blob.clone();
    f.plan_and_apply(set("a", &["alice"], "two")).unwrap();
    assert_eq!(f.cluster.secrets["a"].version, 2);
    assert!(f.effects.contains(&Effect::EraseBlob { handle: first }));
    let id = f.submit(with_secret("a")).workload_id.unwrap();
    let delete = || Operation::SecretDelete { handle: "a".into() };
    assert_eq!(f.plan_and_apply(delete()).unwrap_err().code, ErrorCode::InvalidState);
    f.report(id, NodeWorkloadState::Completed, StatusCause::Exited, Some(0));
    let second = f.cluster.secrets["a"].blob.clone();
    f.plan_and_apply(delete()).unwrap();
    assert!(f.cluster.secrets.is_empty());
    assert!(f.effects.contains(&Effect::EraseBlob { handle: second }));
    // A plan that nobody applied leaves no value behind.
    f.operate("root", set("b", &[], "three"), Mode::Plan, None).unwrap();
    let planned = f.cluster.plans.values().find_map(|plan| match &plan.record.operation {
        Operation::SecretSet { blob, .. } if !plan.applied => blob.clone(),
        _ => None,
    });
    f.pass(2 * 24 * 3600);
    assert!(f.effects.contains(&Effect::EraseBlob { handle: planned.unwrap() }));
    assert!(!f.journal.iter().any(|r| matches!(&r.event, Event::SecretSet { handle, .. } if handle == "b")));
}
