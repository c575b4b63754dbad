//! Tenants: who may run for them, what they may hold, whose turn it is, and the way back.

use std::collections::BTreeSet;

use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{Priority, WorkloadSpec};
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::outcome::{EffectKind, Mode, Outcome};
use claw_tools::quotas::{QuotaAmounts, QuotaGetParams};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::workloads::{WorkloadReason, WorkloadState};

use super::fleet::{Fleet, mutation, outcome, run_of, spec, who, with_priority};
use crate::{Command, Operation, query};

fn gpus(n: u32) -> QuotaAmounts {
    QuotaAmounts { gpus: Some(n), ..QuotaAmounts::default() }
}

pub(super) fn set(
    tenant: &str,
    parent: Option<&str>,
    guaranteed: Option<u32>,
    most: Option<u32>,
    members: &[&str],
) -> Operation {
    Operation::QuotaSet {
        tenant: tenant.into(),
        parent: parent.map(str::to_owned),
        guaranteed: guaranteed.map(gpus),
        most: most.map(gpus),
        lends: None,
        weight: None,
        members: (!members.is_empty()).then(|| members.iter().map(|name| (*name).to_owned()).collect()),
    }
}

fn run(f: &mut Fleet, principal: &str, spec: WorkloadSpec) -> Result<Outcome, Refusal> {
    let caller = who(principal, Role::Operator, PrincipalKind::Agent, f.now);
    let (mutation, args_hash) = (mutation(Mode::Apply, None), "h".into());
    let command = Command::Operate { operation: run_of(spec), mutation, args_hash, secret_hash: None };
    f.run(command, &caller).map(outcome)
}

fn id_of(outcome: &Outcome) -> claw_proto::ids::WorkloadId {
    outcome.workload_id.unwrap()
}

pub(super) fn of(tenant: &str, n: u32) -> WorkloadSpec {
    WorkloadSpec { tenant: Some(tenant.into()), ..spec(n) }
}

/// Two nodes of eight GPUs, tenants `lab` (with its part `vision`) and `web`.
fn shared() -> Fleet {
    let mut f = Fleet::with_nodes(2);
    for operation in [
        set("lab", None, Some(8), Some(12), &["ada"]),
        set("vision", Some("lab"), Some(4), Some(6), &["vera"]),
        set("web", None, Some(8), None, &["walt"]),
    ] {
        f.plan_and_apply(operation).unwrap();
    }
    f
}

#[test]
fn whose_work_it_is_is_said_or_known() {
    let mut f = shared();
    let own = run(&mut f, "vera", spec(1)).unwrap();
    assert_eq!(f.workload(id_of(&own)).spec.spec().tenant.as_deref(), Some("vision"));
    assert!(own.assumptions.iter().any(|a| a.field == "tenant" && a.value == "vision"));
    // Members of what is above may run for its parts, not the other way round.
    assert!(run(&mut f, "ada", of("vision", 1)).is_ok());
    let refused = run(&mut f, "vera", of("lab", 1)).unwrap_err();
    assert_eq!((refused.code, refused.allowed), (ErrorCode::Forbidden, vec!["vision".to_owned()]));
    let refused = run(&mut f, "vera", of("visoin", 1)).unwrap_err();
    assert_eq!((refused.code, refused.did_you_mean.as_deref()), (ErrorCode::NotFound, Some("vision")));
    // Nobody's member runs for nobody; who is in several has to say for which.
    let free = run(&mut f, "zoe", spec(1)).unwrap();
    assert_eq!(f.workload(id_of(&free)).spec.spec().tenant, None);
    f.plan_and_apply(set("web", None, None, None, &["walt", "vera"])).unwrap();
    let refused = run(&mut f, "vera", spec(1)).unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::SpecInvalid, Some("spec.tenant")));
    // What could never start is refused, and says against which bound.
    let refused = run(&mut f, "vera", of("vision", 7)).unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::SpecInvalid, Some("spec.gpu.count")));
    assert!(refused.message.contains("vision may hold 6 at most"), "{}", refused.message);
}

#[test]
fn a_bound_holds_on_every_level_and_gives_way_when_something_ends() {
    let mut f = shared();
    let first = run(&mut f, "vera", of("vision", 4)).unwrap();
    let waits = run(&mut f, "vera", of("vision", 4)).unwrap();
    assert_eq!(waits.effect, EffectKind::Queued);
    let report = f.workload(id_of(&waits)).report.clone().unwrap();
    assert!(
        report.summary.contains("vision may hold 6 GPUs at most and holds 4; 4 more are asked for"),
        "{}",
        report.summary
    );
    assert_eq!(f.workload(id_of(&waits)).reason, WorkloadReason::QuotaExceeded);
    // The level above: lab has 12, of which vision holds 4.
    let above = run(&mut f, "ada", of("lab", 8)).unwrap();
    assert_eq!(f.workload(id_of(&above)).state, WorkloadState::Placed);
    let beyond = run(&mut f, "ada", of("lab", 1)).unwrap();
    assert_eq!(f.workload(id_of(&beyond)).reason, WorkloadReason::QuotaExceeded);
    // Another tenant is not held up by it.
    let other = run(&mut f, "walt", of("web", 4)).unwrap();
    assert_eq!(f.workload(id_of(&other)).state, WorkloadState::Placed);
    f.report(id_of(&first), N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(id_of(&waits)).state, WorkloadState::Placed);
    assert_eq!(f.workload(id_of(&beyond)).reason, WorkloadReason::QuotaExceeded);
}

#[test]
fn why_a_quota_keeps_it_waiting_is_explained_and_every_change_that_is_offered_helps() {
    let mut f = shared();
    let first = run(&mut f, "vera", of("vision", 4)).unwrap();
    let waits = run(&mut f, "vera", of("vision", 4)).unwrap();
    let told = query::explain(&f.cluster, &id_of(&waits).to_string(), f.now).unwrap();
    assert!(told.summary.contains("it waits for its quota and not for room"), "{}", told.summary);
    assert_eq!(told.blockers.iter().map(|b| b.workload_id).collect::<Vec<_>>(), [id_of(&first)]);
    let tools: BTreeSet<&str> = told.would_start_if.iter().map(|r| r.call.tool.as_str()).collect();
    assert_eq!(tools, BTreeSet::from(["quota_set", "workload_run", "workload_stop"]));
    let raise = told.would_start_if.iter().find(|r| r.call.tool == "quota_set").unwrap();
    let most: QuotaAmounts = serde_json::from_value(raise.call.args["most"].clone()).unwrap();
    assert_eq!(most, gpus(8));
    f.plan_and_apply(set("vision", None, None, most.gpus, &[])).unwrap();
    assert_eq!(f.workload(id_of(&waits)).state, WorkloadState::Placed);
}

#[test]
fn between_tenants_the_guarantee_goes_first_then_priority_then_who_has_had_less() {
    let mut f = shared();
    // All GPUs are taken by nobody's work.
    let all: Vec<_> = (0..2).map(|_| id_of(&run(&mut f, "zoe", spec(8)).unwrap())).collect();
    let nobodys = id_of(&run(&mut f, "zoe", with_priority(8, Priority::Critical)).unwrap());
    let first = id_of(&run(&mut f, "ada", of("lab", 8)).unwrap());
    let second = id_of(&run(&mut f, "walt", of("web", 8)).unwrap());
    f.report(all[0], N::Completed, C::Exited, Some(0));
    // Nobody's critical work is guaranteed nothing: it comes after both who are.
    assert_eq!(f.workload(first).state, WorkloadState::Placed);
    f.pass(3_600);
    f.report(all[1], N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(second).state, WorkloadState::Placed);
    // Beyond the guarantees: priority, then who has had less.
    let lab = id_of(&run(&mut f, "ada", of("lab", 4)).unwrap());
    let web = id_of(&run(&mut f, "walt", of("web", 4)).unwrap());
    f.pass(3_600);
    f.report(second, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(web).state, WorkloadState::Placed, "web is within its guarantee");
    // Of those who borrow the more important would come first, but does not fit into what is left.
    assert_eq!((f.workload(lab).state, f.workload(nobodys).state), (WorkloadState::Placed, WorkloadState::Pending));
}

#[test]
fn of_two_that_have_no_guarantee_the_one_goes_first_that_has_had_less() {
    let mut f = Fleet::with_nodes(1);
    for (tenant, member) in [("lab", "ada"), ("web", "walt")] {
        f.plan_and_apply(set(tenant, None, None, None, &[member])).unwrap();
    }
    let had = id_of(&run(&mut f, "ada", spec(8)).unwrap());
    f.pass(3_600);
    let again = id_of(&run(&mut f, "ada", spec(8)).unwrap());
    let other = id_of(&run(&mut f, "walt", spec(8)).unwrap());
    let asked = claw_tools::scheduling::QueueListParams { owner: None, fields: vec![], limit: None, cursor: None };
    let queue = query::queue_list(&f.cluster, &asked, f.now).unwrap().queue;
    let told: Vec<_> = queue.iter().map(|row| (&row["position"], &row["turn"], &row["tenant"])).collect();
    let (one, two) = (serde_json::json!(1), serde_json::json!(2));
    assert_eq!(told, [(&one, &two, &serde_json::json!("lab")), (&two, &one, &serde_json::json!("web"))]);
    f.report(had, N::Completed, C::Exited, Some(0));
    assert_eq!((f.workload(other).state, f.workload(again).state), (WorkloadState::Placed, WorkloadState::Pending));
}

#[test]
fn what_is_not_lent_is_kept_and_what_is_lent_is_not() {
    for (lends, starts) in [(true, true), (false, false)] {
        let mut f = Fleet::with_nodes(1);
        let Operation::QuotaSet { tenant, parent, guaranteed, most, weight, members, .. } =
            set("lab", None, Some(6), None, &["ada"])
        else {
            panic!("it sets a quota")
        };
        let lends = Some(lends);
        f.plan_and_apply(Operation::QuotaSet { tenant, parent, guaranteed, most, lends, weight, members }).unwrap();
        let borrows = id_of(&run(&mut f, "zoe", spec(4)).unwrap());
        assert_eq!(f.workload(borrows).state == WorkloadState::Placed, starts, "{lends:?}");
        let own = id_of(&run(&mut f, "ada", of("lab", 4)).unwrap());
        assert_eq!(f.workload(own).state, WorkloadState::Placed);
    }
}

#[test]
fn want_of_room_is_no_quota_and_room_is_made_as_without_tenants() {
    let mut f = shared();
    let cheap = WorkloadSpec { preemptible: Some(true), priority: Some(Priority::Low), ..spec(8) };
    let low = id_of(&run(&mut f, "zoe", cheap).unwrap());
    run(&mut f, "zoe", spec(8)).unwrap();
    f.report(low, N::Running, C::Progress, None);
    let waits = id_of(&run(&mut f, "zoe", with_priority(2, Priority::Low)).unwrap());
    assert_eq!(f.workload(waits).reason, WorkloadReason::NoRoom, "nothing is kept from it");
    f.pass(61);
    let high = id_of(&run(&mut f, "walt", WorkloadSpec { priority: Some(Priority::High), ..of("web", 4) }).unwrap());
    assert_eq!(f.workload(high).reason, WorkloadReason::MakingRoom);
    f.report(low, N::Stopped, C::StopRequested, None);
    assert_eq!(f.workload(high).state, WorkloadState::Placed);
}

#[test]
fn room_that_is_made_for_one_is_its_own_whoever_has_the_next_turn() {
    // Whose victims have left gets the room before another tenant that has had less, and of the same shape.
    let mut f = shared();
    let cheap = WorkloadSpec { preemptible: Some(true), priority: Some(Priority::Low), ..spec(8) };
    let low = id_of(&run(&mut f, "zoe", cheap).unwrap());
    f.report(low, N::Running, C::Progress, None);
    run(&mut f, "zoe", spec(8)).unwrap();
    f.pass(61);
    let high = |tenant: &str| WorkloadSpec { priority: Some(Priority::High), ..of(tenant, 8) };
    let first = id_of(&run(&mut f, "ada", high("lab")).unwrap());
    assert_eq!(f.workload(first).reason, WorkloadReason::MakingRoom);
    let second = id_of(&run(&mut f, "walt", high("web")).unwrap());
    f.report(low, N::Stopped, C::StopRequested, None);
    assert_eq!((f.workload(first).state, f.workload(second).state), (WorkloadState::Placed, WorkloadState::Pending));
}

#[test]
fn what_room_is_made_for_counts_against_the_quota_from_then_on() {
    // Else small work would take the quota meanwhile, and the others would have been stopped for nothing.
    let mut f = Fleet::with_nodes(2);
    f.plan_and_apply(set("lab", None, None, Some(8), &["ada"])).unwrap();
    let cheap = WorkloadSpec { preemptible: Some(true), priority: Some(Priority::Low), ..spec(8) };
    let low = id_of(&run(&mut f, "zoe", cheap).unwrap());
    f.report(low, N::Running, C::Progress, None);
    run(&mut f, "zoe", spec(4)).unwrap();
    f.pass(61);
    let large = WorkloadSpec { priority: Some(Priority::High), ..of("lab", 8) };
    let large = id_of(&run(&mut f, "ada", large).unwrap());
    assert_eq!(f.workload(large).reason, WorkloadReason::MakingRoom);
    let small = id_of(&run(&mut f, "ada", of("lab", 2)).unwrap());
    assert_eq!(f.workload(small).reason, WorkloadReason::QuotaExceeded, "there is room, but the quota is promised");
    f.report(low, N::Stopped, C::StopRequested, None);
    assert_eq!((f.workload(large).state, f.workload(small).state), (WorkloadState::Placed, WorkloadState::Pending));
}

#[test]
fn who_has_waited_long_for_the_quota_is_not_passed_by_smaller_work_of_the_same_tenant() {
    let mut f = shared();
    let held = id_of(&run(&mut f, "vera", of("vision", 4)).unwrap());
    let large = id_of(&run(&mut f, "vera", of("vision", 6)).unwrap());
    // At first small work passes.
    let small = id_of(&run(&mut f, "vera", of("vision", 1)).unwrap());
    assert_eq!(f.workload(small).state, WorkloadState::Placed);
    f.pass(601);
    let late = id_of(&run(&mut f, "vera", of("vision", 1)).unwrap());
    assert_eq!(f.workload(late).reason, WorkloadReason::QuotaExceeded);
    assert!(f.workload(late).report.as_ref().unwrap().summary.contains("waits behind"));
    let told = query::explain(&f.cluster, &late.to_string(), f.now).unwrap();
    assert!(told.summary.contains("waits behind") && told.would_start_if.is_empty(), "{}", told.summary);
    f.report(small, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(late).state, WorkloadState::Pending);
    f.report(held, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(large).state, WorkloadState::Placed);
    // One that can never start any more holds nobody back.
    f.report(large, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(late).state, WorkloadState::Placed);
    let stuck = id_of(&run(&mut f, "vera", of("vision", 6)).unwrap());
    f.plan_and_apply(set("vision", None, None, Some(5), &[])).unwrap();
    f.pass(601);
    let passes = id_of(&run(&mut f, "vera", of("vision", 1)).unwrap());
    assert_eq!((f.workload(passes).state, f.workload(stuck).state), (WorkloadState::Placed, WorkloadState::Pending));
}

#[test]
fn a_quota_is_planned_applied_undone_and_refused_with_the_way_out() {
    let mut f = shared();
    let asked = f.operate("root", set("lab", None, Some(9), None, &[]), Mode::Apply, None).unwrap_err();
    assert_eq!(asked.code, ErrorCode::PlanRequired);
    let before = f.cluster.tenants.get("lab").unwrap().quota.clone();
    let done = f.plan_and_apply(set("lab", None, Some(9), None, &["ada", "bob"])).unwrap();
    assert_eq!(f.cluster.tenants.get("lab").unwrap().quota.guaranteed, gpus(9));
    f.plan_and_apply(Operation::Undo { operation_id: done.operation_id.unwrap() }).unwrap();
    assert_eq!(f.cluster.tenants.get("lab").unwrap().quota, before);
    // A tenant that is made is unmade; one that is deleted comes back whole.
    let made = f.plan_and_apply(set("ops", None, Some(1), None, &["olga"])).unwrap();
    let gone = f.plan_and_apply(Operation::QuotaDelete { tenant: "ops".into() }).unwrap();
    f.plan_and_apply(Operation::Undo { operation_id: gone.operation_id.unwrap() }).unwrap();
    assert!(f.cluster.tenants.get("ops").unwrap().quota.members.contains("olga"));
    f.plan_and_apply(Operation::Undo { operation_id: made.operation_id.unwrap() }).unwrap();
    assert!(f.cluster.tenants.get("ops").is_none());
    let refused = |f: &mut Fleet, operation: Operation| {
        let refused = f.operate("root", operation, Mode::Plan, None).unwrap_err();
        (refused.code, refused.field.unwrap_or_default())
    };
    run(&mut f, "walt", of("web", 1)).unwrap();
    for (operation, code, field) in [
        (Operation::QuotaDelete { tenant: "lab".into() }, ErrorCode::InvalidState, "tenant"),
        (Operation::QuotaDelete { tenant: "web".into() }, ErrorCode::InvalidState, "tenant"),
        (Operation::QuotaDelete { tenant: "wed".into() }, ErrorCode::NotFound, "tenant"),
        (set("vision", Some("web"), None, None, &[]), ErrorCode::InvalidState, "parent"),
        (set("audio", Some("labs"), None, None, &[]), ErrorCode::NotFound, "parent"),
        (set("audio", Some("lab"), Some(5), None, &[]), ErrorCode::InvalidArgument, "guaranteed.gpus"),
        (set("lab", None, Some(3), None, &[]), ErrorCode::InvalidArgument, "guaranteed.gpus"),
        (set("lab", None, Some(13), None, &[]), ErrorCode::InvalidArgument, "guaranteed.gpus"),
        (set("La b", None, None, None, &[]), ErrorCode::InvalidArgument, "tenant"),
        (set("audio", None, None, None, &["a b"]), ErrorCode::InvalidArgument, "members"),
    ] {
        assert_eq!(refused(&mut f, operation.clone()), (code, field.to_owned()), "{operation:?}");
    }
}

#[test]
fn what_is_held_borrowed_and_waited_for_is_told() {
    let mut f = shared();
    run(&mut f, "vera", of("vision", 4)).unwrap();
    run(&mut f, "vera", of("vision", 4)).unwrap();
    run(&mut f, "walt", of("web", 8)).unwrap();
    f.pass(24 * 3_600);
    let list = query::quota_list(&f.cluster, &QuotaGetParams::default(), f.now).unwrap();
    assert_eq!((list.fleet.gpus, list.overpromised), (16, false));
    let row = |name: &str| list.tenants.iter().find(|row| row.tenant == name).unwrap();
    let told = |name: &str| {
        let row = row(name);
        (row.held.gpus, row.borrows, row.running, row.waiting, row.waiting_for_quota)
    };
    assert_eq!(told("vision"), (4, false, 1, 1, 1));
    assert_eq!(told("lab"), (4, false, 0, 0, 0));
    assert_eq!(told("web"), (8, false, 1, 0, 0));
    // Held for one half-life: half of what it is.
    assert!((row("web").lately_percent - 25.0).abs() < 0.1, "{}", row("web").lately_percent);
    let part = query::quota_list(&f.cluster, &QuotaGetParams { tenant: Some("lab".into()) }, f.now).unwrap();
    assert_eq!(part.tenants.iter().map(|row| row.tenant.as_str()).collect::<Vec<_>>(), ["lab", "vision"]);
}
