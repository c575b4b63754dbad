//! Gates: what is held back, who may open and close, and what comes of it.

use claw_proto::ids::CountingIds;
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::WorkloadSpec;
use claw_tools::access::{PrincipalKind, Role, Tier};
use claw_tools::outcome::{EffectKind, Mode, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::scheduling::{QueueListParams, ScheduleSimulateParams};
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use serde_json::json;

use super::fleet::{Fleet, run_of, spec, who};
use crate::{Operation, query};

fn gated(gpus: u32, gates: &[&str]) -> WorkloadSpec {
    WorkloadSpec { gates: gates.iter().map(ToString::to_string).collect(), ..spec(gpus) }
}

fn hold(f: &mut Fleet, who: &str, workload: &str, gate: &str) -> Result<Outcome, Refusal> {
    let hold = Operation::WorkloadHold { workload: workload.into(), gate: gate.into() };
    f.operate(who, hold, Mode::Apply, None)
}

fn release(f: &mut Fleet, workload: &str, gates: &[&str]) -> Result<Outcome, Refusal> {
    let gates = gates.iter().map(ToString::to_string).collect();
    f.operate("bob", Operation::WorkloadRelease { workload: workload.into(), gates }, Mode::Apply, None)
}

fn reason(f: &Fleet, out: &Outcome) -> (WorkloadState, WorkloadReason) {
    let w = f.workload(out.workload_id.unwrap());
    (w.state, w.reason)
}

const HELD: (WorkloadState, WorkloadReason) = (WorkloadState::Pending, WorkloadReason::Gated);
const PLACED: (WorkloadState, WorkloadReason) = (WorkloadState::Placed, WorkloadReason::Scheduled);

#[test]
fn a_workload_starts_when_its_last_gate_is_open_and_holds_nobody_back_before() {
    let mut f = Fleet::with_nodes(1);
    let first = f.submit(gated(8, &["dataset-ready", "budget"]));
    assert_eq!((first.effect, reason(&f, &first)), (EffectKind::Queued, HELD));
    // It stands first and has waited long; what is free goes to who can start.
    f.pass(100_000);
    let second = f.submit(spec(8));
    assert_eq!(reason(&f, &second), PLACED);
    f.report(second.workload_id.unwrap(), N::Completed, C::Exited, Some(0));
    let name = f.workload(first.workload_id.unwrap()).name.clone();
    let told = query::explain(&f.cluster, &name, f.now).unwrap();
    assert!(
        told.summary.ends_with(
            "It is not placed before its gate(s) dataset-ready, budget are open; it would start then. When it \
             starts cannot be told: nobody knows when dataset-ready, budget are opened"
        ),
        "{}",
        told.summary
    );
    assert_eq!((told.would_start_if[0].call.tool.as_str(), told.blockers.len()), ("workload_release", 0));
    // A look ahead opens no gates, and says so.
    let caller = who("alice", Role::Viewer, PrincipalKind::Agent, f.now);
    let p = ScheduleSimulateParams::default();
    let ahead = query::simulate(&f.cluster, &p, &caller, &mut CountingIds::new(u32::MAX)).unwrap();
    let closed: Vec<_> = ahead.assumptions.iter().map(|a| (a.field.as_str(), &a.value, a.why.as_str())).collect();
    let why = "1 workload(s) wait behind gates, which are taken to stay closed";
    assert_eq!(closed, [("gates", &json!([name]), why)]);
    let one = release(&mut f, &name, &["budget"]).unwrap();
    let words = format!(
        "release {name}: closed gates dataset-ready, budget → dataset-ready; it waits for its gates: dataset-ready"
    );
    assert_eq!((one.effect, one.summary), (EffectKind::Queued, words));
    assert_eq!(reason(&f, &first), HELD);
    assert_eq!(release(&mut f, &name, &["budget"]).unwrap().effect, EffectKind::NoChange, "told twice");
    let last = release(&mut f, &name, &[]).unwrap();
    assert!(last.summary.contains("→ none; goes to n0"), "{}", last.summary);
    assert_eq!((last.effect, reason(&f, &first)), (EffectKind::Accepted, PLACED));
}

#[test]
fn who_is_released_into_a_full_fleet_waits_with_its_reason() {
    let mut f = Fleet::with_nodes(1);
    f.submit(spec(8));
    let waits = f.submit(gated(1, &["data"]));
    let name = f.workload(waits.workload_id.unwrap()).name.clone();
    let told = query::explain(&f.cluster, &name, f.now).unwrap();
    assert!(told.would_start_if.is_empty() && told.summary.contains("would have to wait then as well"), "{told:?}");
    release(&mut f, &name, &[]).unwrap();
    assert_eq!(reason(&f, &waits), (WorkloadState::Pending, WorkloadReason::NoRoom));
}

#[test]
fn a_gate_that_is_closed_gives_up_what_was_kept() {
    let mut f = Fleet::with_nodes(1);
    let lasting = f.submit(WorkloadSpec { max_duration_s: Some(10_000), ..spec(4) });
    f.report(lasting.workload_id.unwrap(), N::Running, C::Progress, None);
    let large = f.submit(spec(8));
    let small = |f: &mut Fleet| f.submit(WorkloadSpec { max_duration_s: Some(20_000), ..spec(4) });
    f.pass(1_000);
    assert_eq!(reason(&f, &large).1, WorkloadReason::Reserved);
    // What would end too late is not let in; once the large one is held, it is.
    let late = small(&mut f);
    assert_eq!(reason(&f, &late).0, WorkloadState::Pending);
    let name = f.workload(large.workload_id.unwrap()).name.clone();
    let held = hold(&mut f, "alice", &name, "hold").unwrap();
    assert_eq!(reason(&f, &large), HELD);
    assert_eq!(reason(&f, &late), PLACED);
    // Undone, it waits as before, and what started meanwhile goes on.
    let undo = Operation::Undo { operation_id: held.operation_id.unwrap() };
    f.operate("alice", undo, Mode::Apply, None).unwrap();
    assert_eq!((reason(&f, &large).0, reason(&f, &late)), (WorkloadState::Pending, PLACED));
    assert!(f.workload(large.workload_id.unwrap()).gates.is_empty());
}

#[test]
fn who_is_held_has_no_turn_and_others_are_told_that_it_is_taken_to_stay_held() {
    let mut f = Fleet::with_nodes(1);
    let runs = f.submit(WorkloadSpec { max_duration_s: Some(600), ..spec(8) });
    f.report(runs.workload_id.unwrap(), N::Running, C::Progress, None);
    f.submit(gated(8, &["data"]));
    let waits = f.submit(spec(8)).workload_id.unwrap();
    let rows = query::queue_list(&f.cluster, &QueueListParams::default(), f.now).unwrap().queue;
    assert_eq!((&rows[0]["turn"], &rows[1]["turn"]), (&json!(null), &json!(1)), "{rows:?}");
    let told = query::explain(&f.cluster, &waits.to_string(), f.now).unwrap();
    let words =
        "It starts in 10 min, if what runs uses its time, as long as one that comes before it stays held behind gates";
    assert!(told.summary.ends_with(words), "{}", told.summary);
}

#[test]
fn work_of_others_is_held_by_a_plan_and_what_runs_is_not_held() {
    let mut f = Fleet::with_nodes(1);
    let runs = f.submit(spec(8));
    let waits = f.submit(spec(8));
    let (running, waiting) = [&runs, &waits].map(|out| f.workload(out.workload_id.unwrap()).name.clone()).into();
    let refused = hold(&mut f, "alice", &running, "hold").unwrap_err();
    assert_eq!((refused.code, refused.next[0].tool.as_str()), (ErrorCode::InvalidState, "workload_stop"));
    let refused = hold(&mut f, "alice", &waiting, "Not A Name").unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some("gate")));
    let refused = release(&mut f, &waiting, &["unheard-of"]).unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some("gates")));
    assert_eq!(hold(&mut f, "mallory", &waiting, "hold").unwrap_err().code, ErrorCode::PlanRequired);
    let of_others = Operation::WorkloadHold { workload: waiting.clone(), gate: "hold".into() };
    let planned = f.operate("mallory", of_others.clone(), Mode::Plan, None).unwrap().plan.unwrap();
    assert_eq!(planned.tier, Tier::Disruptive);
    assert!(planned.diff.iter().any(|change| (change.field.as_str(), change.to.as_str()) == ("gates", "hold")));
    f.plan_and_apply(of_others).unwrap();
    assert_eq!(reason(&f, &waits), HELD);
    release(&mut f, &waiting, &["hold"]).unwrap();
    assert_eq!(reason(&f, &waits), (WorkloadState::Pending, WorkloadReason::NoRoom));
    assert_eq!(hold(&mut f, "alice", &waiting, "hold").unwrap().effect, EffectKind::Queued);
    assert_eq!(hold(&mut f, "alice", &waiting, "hold").unwrap().effect, EffectKind::NoChange);
    f.report(runs.workload_id.unwrap(), N::Completed, C::Exited, Some(0));
    assert_eq!(reason(&f, &waits), HELD);
    let over = release(&mut f, &running, &[]).unwrap_err();
    assert_eq!((over.code, over.next[0].tool.as_str()), (ErrorCode::InvalidState, "workload_get"));
}

#[test]
fn faulty_gates_are_named() {
    let mut f = Fleet::with_nodes(1);
    for (gates, field) in
        [(vec!["a", "a"], "spec.gates[1]"), (vec!["A"], "spec.gates[0]"), (vec!["a"; 9], "spec.gates")]
    {
        let refused = f.operate("alice", run_of(gated(1, &gates)), Mode::Apply, None).unwrap_err();
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::SpecInvalid, Some(field)));
    }
}
