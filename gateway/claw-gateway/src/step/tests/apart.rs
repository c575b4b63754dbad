//! Taints that are borne or not, and work that is kept apart.

use std::collections::BTreeMap;

use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{AntiAffinity, Placement, Priority, TopologyDomain, WorkloadSpec};
use claw_tools::outcome::{EffectKind, Mode};
use claw_tools::scheduling::FragmentationReportParams;
use claw_tools::workloads::{PlacementReason as R, PlacementReport, WorkloadState};

use super::fleet::{Fleet, run_of, spec};
use super::properties::apart_from_db;
use crate::scheduler::{Decision, decide_for};
use crate::{Operation, query};

fn label(f: &mut Fleet, node: &str, key: &str, value: &str) {
    let set = [(key.to_owned(), value.to_owned())].into();
    f.operate("root", Operation::NodeLabel { node: node.into(), set, remove: Vec::new() }, Mode::Apply, None).unwrap();
}

fn unlabel(f: &mut Fleet, node: &str, key: &str) {
    let remove = vec![key.to_owned()];
    let unlabel = Operation::NodeLabel { node: node.into(), set: BTreeMap::new(), remove };
    f.operate("root", unlabel, Mode::Apply, None).unwrap();
}

fn tenant(f: &mut Fleet, name: &str) {
    let (tenant, parent, guaranteed, most) = (name.to_owned(), None, None, None);
    let set = Operation::QuotaSet { tenant, parent, guaranteed, most, lends: None, weight: None, members: None };
    f.plan_and_apply(set).unwrap();
}

fn bearing(borne: &[&str]) -> WorkloadSpec {
    let tolerations = borne.iter().map(ToString::to_string).collect();
    WorkloadSpec { placement: Some(Placement { tolerations, ..Placement::default() }), ..spec(1) }
}

fn db(gpus: u32) -> WorkloadSpec {
    WorkloadSpec { labels: [("app".to_owned(), "db".to_owned())].into(), ..spec(gpus) }
}

fn apart(gpus: u32, within: TopologyDomain) -> WorkloadSpec {
    WorkloadSpec { placement: Some(apart_from_db(within)), ..spec(gpus) }
}

/// The node that a submission got, or why none.
fn goes(f: &mut Fleet, spec: WorkloadSpec) -> Result<String, PlacementReport> {
    let report = (*f.submit(spec).placement.unwrap()).clone();
    report.chosen.clone().map(|chosen| chosen.node).ok_or(report)
}

#[test]
fn a_taint_keeps_away_who_does_not_bear_it_and_nobody_else() {
    let mut f = Fleet::with_nodes(1);
    label(&mut f, "n0", "taint/dedicated", "lab");
    // A label that only looks like one is none.
    label(&mut f, "n0", "tainted", "yes");
    let report = goes(&mut f, spec(1)).unwrap_err();
    assert_eq!((report.rejected[0].reason, report.waiting_helps), (R::TaintNotTolerated, false));
    assert!(report.summary.contains("taint/dedicated=lab"), "{}", report.summary);
    assert!(goes(&mut f, bearing(&["dedicated=other", "lab"])).is_err());
    for borne in [&["dedicated"][..], &["dedicated=lab"], &["taint/dedicated=lab"]] {
        assert_eq!(goes(&mut f, bearing(borne)).as_deref(), Ok("n0"));
    }
    // With two, both have to be borne.
    label(&mut f, "n0", "taint/gpu", "flaky");
    assert!(goes(&mut f, bearing(&["dedicated"])).is_err());
    assert_eq!(goes(&mut f, bearing(&["gpu=flaky", "dedicated"])).as_deref(), Ok("n0"));
}

#[test]
fn who_waits_for_a_taint_is_told_what_to_bear_and_starts_when_it_is_gone() {
    let mut f = Fleet::with_nodes(1);
    label(&mut f, "n0", "taint/dedicated", "lab");
    let out = f.submit(spec(1));
    assert_eq!(out.effect, EffectKind::Queued);
    let id = out.workload_id.unwrap();
    let told = query::explain(&f.cluster, &id.to_string(), f.now).unwrap();
    let offered = &told.would_start_if[0];
    assert_eq!((offered.change.as_str(), offered.verified), ("it bore the taint dedicated=lab", true));
    let smaller = serde_json::from_value(offered.call.args["spec"].clone()).unwrap();
    assert!(goes(&mut f, smaller).is_ok());
    unlabel(&mut f, "n0", "taint/dedicated");
    assert_eq!(f.workload(id).state, WorkloadState::Placed);
}

/// Nobody is told of room, or gets nodes kept, that only who bears a taint can use.
#[test]
fn tainted_nodes_are_not_counted_as_free_for_all_and_are_kept_last() {
    let mut f = Fleet::with_nodes(2);
    label(&mut f, "n0", "taint/dedicated", "lab");
    let told = query::fragmentation(&f.cluster, &FragmentationReportParams::default()).unwrap();
    let h100 = &told.models[0];
    assert_eq!((h100.free, h100.left_out, h100.more[3].workloads), (8, 8, 1), "{told:?}");
    tenant(&mut f, "lab");
    let keep = |name: &str| Operation::ReservationCreate {
        name: name.into(),
        tenant: "lab".into(),
        nodes: Some(1),
        node_names: Vec::new(),
        gpus: None,
        model: None,
        starts_at: None,
        duration_s: 60,
    };
    for (name, node) in [("first", "n1"), ("second", "n0")] {
        f.plan_and_apply(keep(name)).unwrap();
        let kept = f.cluster.reservations.get(name).unwrap().nodes.clone();
        assert_eq!(kept, [f.node(node).node_id]);
    }
}

#[test]
fn a_taint_stops_nobody_who_is_there() {
    let mut f = Fleet::with_nodes(1);
    let id = f.submit(spec(1)).workload_id.unwrap();
    label(&mut f, "n0", "taint/dedicated", "lab");
    assert_eq!(f.workload(id).state, WorkloadState::Placed);
    assert!(goes(&mut f, spec(1)).is_err());
}

/// n0 and n1 stand in one rack, n2 in another of the same name in another zone, n3 in none, n4 in another one of the
/// same zone.
fn racks() -> Fleet {
    let mut f = Fleet::with_nodes(5);
    for (node, rack, zone) in [("n0", "r1", "a"), ("n1", "r1", "a"), ("n2", "r1", "b"), ("n4", "r2", "a")] {
        label(&mut f, node, "rack", rack);
        label(&mut f, node, "zone", zone);
    }
    f
}

#[test]
fn work_is_kept_apart_within_its_node_rack_or_zone() {
    use TopologyDomain::{Node, Rack, Zone};
    for (within, left_out) in [(Node, &["n0"][..]), (Rack, &["n0", "n1"]), (Zone, &["n0", "n1", "n4"])] {
        let mut f = racks();
        let on_n0 = Some(Placement { node: Some("n0".into()), ..Placement::default() });
        f.submit(WorkloadSpec { placement: on_n0, ..db(1) });
        let mut got: Vec<String> = (0..40).map_while(|_| goes(&mut f, apart(1, within)).ok()).collect();
        got.sort_unstable();
        got.dedup();
        let rest: Vec<&str> = ["n0", "n1", "n2", "n3", "n4"].into_iter().filter(|n| !left_out.contains(n)).collect();
        assert_eq!(got, rest, "{within}");
        let report = goes(&mut f, apart(1, within)).unwrap_err();
        let kept = report.rejected.iter().find(|r| r.reason == R::KeptApart).unwrap();
        assert_eq!(kept.count as usize, left_out.len(), "{report:?}");
        assert!(kept.detail.contains("train-"), "who is in the way is named: {}", kept.detail);
    }
}

/// Who asked first is not joined by who did not ask.
#[test]
fn it_goes_both_ways_and_ends_with_the_other() {
    let mut f = Fleet::with_nodes(1);
    let first = f.submit(apart(1, TopologyDomain::Node)).workload_id.unwrap();
    // It is no database itself, and so does not mind another of its own kind.
    assert!(goes(&mut f, apart(1, TopologyDomain::Node)).is_ok());
    assert!(goes(&mut f, spec(1)).is_ok());
    let waits = f.submit(db(1)).workload_id.unwrap();
    assert_eq!(f.workload(waits).state, WorkloadState::Pending);
    let told = query::explain(&f.cluster, &waits.to_string(), f.now).unwrap();
    assert_eq!(told.placement.unwrap().rejected[0].reason, R::KeptApart);
    assert_eq!(told.blockers[0].workload_id, first);
    for id in f.cluster.workloads.iter().map(|w| w.workload_id).filter(|id| *id != waits).collect::<Vec<_>>() {
        f.operate("alice", Operation::WorkloadStop { workload: id.to_string(), grace_s: None }, Mode::Apply, None)
            .unwrap();
        f.report(id, N::Stopped, C::StopRequested, None);
    }
    assert_eq!(f.workload(waits).state, WorkloadState::Placed);
}

#[test]
fn copies_that_are_kept_apart_take_a_node_each() {
    let mut f = Fleet::with_nodes(3);
    let copy = || WorkloadSpec { labels: db(1).labels, ..apart(1, TopologyDomain::Node) };
    let mut nodes: Vec<String> = (0..3).map(|_| goes(&mut f, copy()).unwrap()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["n0", "n1", "n2"]);
    let report = goes(&mut f, copy()).unwrap_err();
    assert!(report.waiting_helps);
    // One's own parts are no others: not those of a gang, and not what would be moved.
    let mut f = Fleet::with_nodes(2);
    let gang = WorkloadSpec { nodes: Some(2), ..WorkloadSpec { gpu: spec(2).gpu, ..copy() } };
    let id = f.submit(gang).workload_id.unwrap();
    assert_eq!(f.workload(id).state, WorkloadState::Placed);
    assert!(matches!(decide_for(&f.cluster, &f.workload(id)), Decision::Place { .. }));
}

/// What a tenant asks binds its own work: nobody keeps others' work out.
#[test]
fn what_is_asked_binds_work_of_the_same_tenant_alone() {
    let mut f = Fleet::with_nodes(1);
    for name in ["lab", "web"] {
        tenant(&mut f, name);
    }
    let of = |tenant: &str, spec: WorkloadSpec| WorkloadSpec { tenant: Some(tenant.to_owned()), ..spec };
    let run = |f: &mut Fleet, spec| f.operate("root", run_of(spec), Mode::Apply, None).unwrap().effect;
    assert_eq!(run(&mut f, of("lab", apart(1, TopologyDomain::Zone))), EffectKind::Accepted);
    assert_eq!(run(&mut f, of("lab", db(1))), EffectKind::Queued);
    assert_eq!(run(&mut f, of("web", db(1))), EffectKind::Accepted);
    // Who asks is kept apart from whomever.
    assert_eq!(run(&mut f, of("lab", apart(1, TopologyDomain::Node))), EffectKind::Queued);
}

/// As for room, less important work on the same node leaves that said it may be stopped.
#[test]
fn more_important_work_takes_the_node_of_who_is_in_its_way() {
    let mut f = Fleet::with_nodes(1);
    let cheap = WorkloadSpec { preemptible: Some(true), priority: Some(Priority::Low), ..db(1) };
    let victim = f.submit(cheap).workload_id.unwrap();
    f.report(victim, N::Running, C::Progress, None);
    f.pass(61);
    let important = WorkloadSpec { priority: Some(Priority::High), ..apart(1, TopologyDomain::Node) };
    let id = f.submit(important).workload_id.unwrap();
    assert_eq!(f.workload(victim).state, WorkloadState::Stopping);
    f.report(victim, N::Stopped, C::StopRequested, None);
    assert_eq!(f.workload(id).state, WorkloadState::Placed);
    assert_eq!(f.workload(victim).state, WorkloadState::Pending);
}

/// What is kept for who has waited long is given up where it would not be let in when it begins.
#[test]
fn a_start_is_not_kept_where_it_could_not_be() {
    let bounded = |spec: WorkloadSpec| WorkloadSpec { max_duration_s: Some(3_600), ..spec };
    let still_there =
        |f: &Fleet, id, node| f.workload(id).claim.as_ref().is_some_and(|claim| claim.places[0].node_id == node);
    let waiting = |spec: WorkloadSpec| {
        let mut f = racks();
        for _ in 0..5 {
            f.submit(bounded(super::fleet::spec(7)));
        }
        let id = f.submit(bounded(spec)).workload_id.unwrap();
        f.pass(601);
        let node = f.workload(id).claim.as_ref().unwrap().places[0].node_id;
        f.pass(1);
        assert!(still_there(&f, id, node), "by itself it stays");
        (f, id, node)
    };
    let (mut f, id, node) = waiting(spec(8));
    let name = f.cluster.nodes.get(node).unwrap().name.clone();
    label(&mut f, &name, "taint/dedicated", "lab");
    f.pass(1);
    assert!(!still_there(&f, id, node), "a taint keeps it out");
    // Somebody without an end comes near.
    let (mut f, id, node) = waiting(WorkloadSpec { placement: Some(apart_from_db(TopologyDomain::Zone)), ..spec(8) });
    let zone = f.cluster.nodes.get(node).unwrap().labels.get("zone").cloned();
    let near =
        f.cluster.nodes.iter().find(|n| n.node_id != node && zone.is_some() && n.labels.get("zone") == zone.as_ref());
    let Some(near) = near.map(|n| n.name.clone()) else { panic!("the first node stands in a zone with others") };
    let there = Some(Placement { node: Some(near), ..Placement::default() });
    let out = f.submit(WorkloadSpec { placement: there, ..db(1) });
    assert_eq!(out.effect, EffectKind::Accepted);
    f.pass(1);
    assert!(!still_there(&f, id, node), "it would not be kept apart");
}

#[test]
fn all_taints_of_a_node_are_offered_together() {
    let mut f = Fleet::with_nodes(3);
    for (node, key) in [("n0", "taint/a"), ("n0", "taint/b"), ("n1", "taint/c"), ("n2", "taint/d"), ("n2", "taint/e")] {
        label(&mut f, node, key, "1");
    }
    let on_n0 = Placement { node: Some("n0".into()), ..Placement::default() };
    let id = f.submit(WorkloadSpec { placement: Some(on_n0), ..spec(1) }).workload_id.unwrap();
    let told = query::explain(&f.cluster, &id.to_string(), f.now).unwrap();
    assert_eq!(told.would_start_if[0].change, "it bore the taints a=1 and b=1");
}

/// One that is told to wait for who is there tells nothing of others with other labels.
#[test]
fn those_of_one_shape_with_other_labels_are_tried_each() {
    let mut f = Fleet::with_nodes(1);
    f.submit(apart(7, TopologyDomain::Node));
    let full = f.submit(spec(1)).workload_id.unwrap();
    let kept = f.submit(WorkloadSpec { priority: Some(Priority::High), ..db(1) }).workload_id.unwrap();
    let free = f.submit(spec(1)).workload_id.unwrap();
    assert_eq!(f.workload(free).state, WorkloadState::Pending);
    f.report(full, N::Running, C::Progress, None);
    f.report(full, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(kept).state, WorkloadState::Pending);
    assert_eq!(f.workload(free).state, WorkloadState::Placed);
}

#[test]
fn a_specification_says_from_whom_and_what_it_bears() {
    let mut f = Fleet::with_nodes(1);
    let nobody = Placement { anti_affinity: Some(AntiAffinity::default()), ..Placement::default() };
    for (placement, field) in [
        (nobody, "spec.placement.anti_affinity.labels"),
        (
            Placement { tolerations: vec!["ok".into(), "not ok".into()], ..Placement::default() },
            "spec.placement.tolerations[1]",
        ),
    ] {
        let run = run_of(WorkloadSpec { placement: Some(placement), ..spec(1) });
        let refusal = f.operate("alice", run, Mode::Apply, None).unwrap_err();
        assert_eq!(refusal.field.as_deref(), Some(field));
    }
}
