//! Nodes that are kept for a tenant for a time.

use claw_proto::ids::WorkloadId;
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::WorkloadSpec;
use claw_tools::outcome::Mode;
use claw_tools::refusal::ErrorCode;
use claw_tools::reservations::ReservationListParams;
use claw_tools::workloads::{PlacementReason, WorkloadState};

use super::fleet::{Fleet, of_model, spec};
use crate::{Operation, query};

fn tenant(f: &mut Fleet, name: &str, parent: Option<&str>) {
    let (tenant, parent) = (name.to_owned(), parent.map(str::to_owned));
    let (guaranteed, most, lends, weight, members) = (None, None, None, None, None);
    f.plan_and_apply(Operation::QuotaSet { tenant, parent, guaranteed, most, lends, weight, members }).unwrap();
}

fn fleet(nodes: u32) -> Fleet {
    let mut f = Fleet::with_nodes(nodes);
    tenant(&mut f, "lab", None);
    tenant(&mut f, "vision", Some("lab"));
    tenant(&mut f, "web", None);
    f
}

/// So many nodes for the lab, in so many seconds, for so long.
fn keep(f: &Fleet, nodes: u32, in_s: i64, duration_s: u64) -> Operation {
    Operation::ReservationCreate {
        name: "week".into(),
        tenant: "lab".into(),
        nodes: Some(nodes),
        node_names: Vec::new(),
        gpus: None,
        model: None,
        starts_at: Some(f.now.plus_ms(in_s * 1_000)),
        duration_s,
    }
}

fn of(tenant: Option<&str>, gpus: u32, max_duration_s: Option<u64>) -> WorkloadSpec {
    WorkloadSpec { tenant: tenant.map(str::to_owned), max_duration_s, ..spec(gpus) }
}

fn on(f: &Fleet, id: WorkloadId) -> Option<String> {
    f.workload(id).live().map(|part| f.cluster.nodes.get(part.node_id).unwrap().name.clone())
}

#[test]
fn only_its_tenant_and_what_ends_before_goes_there() {
    let mut f = fleet(1);
    let plan = f.operate("root", keep(&f, 1, 3_600, 7_200), Mode::Plan, None).unwrap();
    assert_eq!(plan.plan.unwrap().diff.len(), 3, "for whom, which nodes and when");
    f.plan_and_apply(keep(&f, 1, 3_600, 7_200)).unwrap();
    let mut submit = |spec| f.submit(spec).workload_id.unwrap();
    // An hour ahead: what says that it ends before, with its ten seconds of grace, may go there; others'
    // endless work may not.
    let short = submit(of(Some("web"), 1, Some(3_590)));
    let long = submit(of(Some("web"), 1, Some(3_591)));
    let endless = submit(of(None, 1, None));
    let own = submit(of(Some("vision"), 1, None));
    let state = |f: &Fleet, id| f.workload(id).state;
    assert_eq!((state(&f, short), state(&f, own)), (WorkloadState::Placed, WorkloadState::Placed));
    for id in [long, endless] {
        let report = f.workload(id).report.clone().unwrap();
        assert_eq!(report.rejected[0].reason, PlacementReason::NodeReserved, "{report:?}");
        assert!(report.waiting_helps, "it ends some time");
        let told = query::explain(&f.cluster, &id.to_string(), f.now).unwrap();
        let change = told.would_start_if.iter().find(|r| r.call.tool == "reservation_delete");
        assert_eq!(change.unwrap().change, "the reservation week for lab were ended");
    }
    // When it has begun nothing short goes there either, and what runs is told of.
    f.pass(3_600);
    let late = f.submit(of(Some("web"), 1, Some(1))).workload_id.unwrap();
    assert_eq!(state(&f, late), WorkloadState::Pending);
    let list = query::reservation_list(&f.cluster, &ReservationListParams::default(), f.now).unwrap();
    let kept = &list.reservations[0];
    assert_eq!((kept.active, kept.own_workloads, &kept.others[..], kept.gpus), (true, 1, &[short][..], 8));
    let own = f.submit(of(Some("lab"), 1, None)).workload_id.unwrap();
    assert!(f.workload(own).report.clone().unwrap().summary.contains("kept for its tenant"));
    // Its time is over: who waited starts.
    f.pass(7_200);
    assert!(f.cluster.reservations.is_empty());
    for id in [long, endless, late] {
        assert_eq!(state(&f, id), WorkloadState::Placed);
    }
}

#[test]
fn its_tenant_goes_to_what_is_kept_for_it_first() {
    let mut f = fleet(2);
    f.submit(of(None, 4, None));
    f.plan_and_apply(keep(&f, 1, 0, 600)).unwrap();
    let kept = query::reservation_list(&f.cluster, &ReservationListParams::default(), f.now).unwrap();
    assert_eq!(kept.reservations[0].nodes, ["n1"], "n0 runs what says no end");
    let own = f.submit(of(Some("lab"), 4, None)).workload_id.unwrap();
    assert_eq!(on(&f, own).as_deref(), Some("n1"), "best fit would have been n0");
    let other = f.submit(of(Some("web"), 4, None)).workload_id.unwrap();
    assert_eq!(on(&f, other).as_deref(), Some("n0"));
}

#[test]
fn nobody_is_stopped_and_what_cannot_be_kept_says_why() {
    let mut f = fleet(2);
    f.submit(of(None, 8, None));
    let refused = f.plan_and_apply(keep(&f, 2, 60, 60)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidState);
    let text = refused.to_string();
    assert!(text.contains("2 nodes are of this kind, and 1 node can be kept then"), "{text}");
    assert!(text.contains("which says no max_duration_s"), "{text}");
    f.plan_and_apply(keep(&f, 1, 60, 60)).unwrap();
    let again = f.plan_and_apply(keep(&f, 1, 600, 60)).unwrap_err();
    assert!(again.to_string().contains("there is a reservation week already"), "{again}");
    let mut wrong = |change: &dyn Fn(&mut Operation)| {
        let mut other = keep(&f, 1, 60, 60);
        if let Operation::ReservationCreate { name, .. } = &mut other {
            *name = "other".into();
        }
        change(&mut other);
        f.plan_and_apply(other).unwrap_err().to_string()
    };
    let overlaps = wrong(&|op| {
        if let Operation::ReservationCreate { nodes, node_names, .. } = op {
            (*nodes, *node_names) = (None, vec!["n1".into()]);
        }
    });
    assert!(overlaps.contains("n1 is kept by week for lab then"), "{overlaps}");
    let both = wrong(&|op| {
        if let Operation::ReservationCreate { node_names, .. } = op {
            *node_names = vec!["n1".into()];
        }
    });
    assert!(both.contains("either how many nodes (nodes) or which (node_names)"), "{both}");
    let nobody = wrong(&|op| {
        if let Operation::ReservationCreate { tenant, .. } = op {
            *tenant = "wed".into();
        }
    });
    assert!(nobody.contains("there is no tenant of this name"), "{nobody}");
    // A tenant that something is kept for does not go.
    let gone = f.plan_and_apply(Operation::QuotaDelete { tenant: "lab".into() }).unwrap_err();
    assert_eq!(gone.code, ErrorCode::InvalidState);
}

#[test]
fn a_reservation_chooses_by_model_and_is_undone() {
    let mut f = fleet(1);
    f.join_as("a0", of_model("a0", "A100"));
    let mut wish = keep(&f, 1, 60, 60);
    if let Operation::ReservationCreate { model, gpus, .. } = &mut wish {
        (*model, *gpus) = (Some("a100".into()), Some(8));
    }
    let made = f.plan_and_apply(wish).unwrap();
    assert!(made.summary.contains("a0"), "{}", made.summary);
    let operation_id = made.operation_id.unwrap();
    let unplanned = f.operate("root", Operation::Undo { operation_id }, Mode::Apply, None).unwrap_err();
    assert_eq!(unplanned.code, ErrorCode::PlanRequired, "an undo is as harmful as what it does");
    f.plan_and_apply(Operation::Undo { operation_id }).unwrap();
    assert!(f.cluster.reservations.is_empty());
    // To undo the end of one is to keep its nodes again, where nobody has come in between.
    f.plan_and_apply(keep(&f, 2, 600, 600)).unwrap();
    let ended = f.plan_and_apply(Operation::ReservationDelete { name: "week".into() }).unwrap().operation_id.unwrap();
    let mut twin = Fleet { cluster: f.cluster.clone(), ids: f.ids.clone(), auditor: f.auditor.clone(), ..Fleet::new() };
    f.plan_and_apply(Operation::Undo { operation_id: ended }).unwrap();
    assert_eq!(f.cluster.reservations.len(), 1);
    twin.submit(of(None, 8, None));
    let late = twin.plan_and_apply(Operation::Undo { operation_id: ended }).unwrap_err();
    assert!(late.to_string().contains("which says no max_duration_s"), "{late}");
}

/// A claim for who has waited long does not outlast the moment from which a reservation keeps it out.
#[test]
fn what_is_kept_for_a_long_wait_gives_way_to_a_reservation() {
    let mut f = fleet(1);
    let running = f.submit(of(None, 8, Some(5_400))).workload_id.unwrap();
    f.report(running, N::Running, C::Progress, None);
    f.plan_and_apply(keep(&f, 1, 7_200, 7_200)).unwrap();
    let waits = f.submit(of(Some("web"), 8, Some(3_600))).workload_id.unwrap();
    f.pass(700);
    assert!(f.workload(waits).claim.is_none(), "when the node is free it is too late");
    let short = f.submit(of(Some("web"), 8, Some(600))).workload_id.unwrap();
    f.pass(700);
    assert!(f.workload(short).claim.is_some(), "this one will have ended");
    // It is free later than it was thought.
    f.pass(5_300);
    f.report(running, N::Completed, C::Exited, Some(0));
    let own = f.submit(of(Some("lab"), 8, None)).workload_id.unwrap();
    assert_eq!(f.workload(own).state, WorkloadState::Placed);
    f.pass(1);
    assert!(f.workload(short).claim.is_none());
}
