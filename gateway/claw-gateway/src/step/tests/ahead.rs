//! Looking ahead: reservation, and what-if on copies of the fleet.

use std::sync::Arc;

use claw_proto::ids::{CountingIds, WorkloadId};
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{Priority, RestartPolicy, WorkloadSpec};
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::nodes::NodeLink;
use claw_tools::outcome::Mode;
use claw_tools::scheduling::{
    CapacityFindParams, ImaginedNodes, ImaginedWorkload, MomentKind, ScheduleSimulateParams, ScheduleSimulation,
};
use claw_tools::workloads::{WorkloadReason as R, WorkloadState as S};
use proptest::prelude::*;

use super::fleet::{Fleet, h100x8, spec, who, with_priority};
use super::properties::{moves, play};
use crate::policy::Policy;
use crate::preemption::PreemptionPolicy;
use crate::{Operation, query};

pub(super) fn lasting(gpus: u32, seconds: u64) -> WorkloadSpec {
    WorkloadSpec { max_duration_s: Some(seconds), ..spec(gpus) }
}

pub(super) fn run(f: &mut Fleet, spec: WorkloadSpec) -> WorkloadId {
    let id = f.submit(spec).workload_id.unwrap();
    f.report(id, N::Running, C::Progress, None);
    assert_eq!(f.workload(id).state, S::Running);
    id
}

fn simulate(f: &Fleet, p: &ScheduleSimulateParams) -> ScheduleSimulation {
    let caller = who("alice", Role::Viewer, PrincipalKind::Agent, f.now);
    query::simulate(&f.cluster, p, &caller, &mut CountingIds::new(u32::MAX)).unwrap()
}

fn told(s: &ScheduleSimulation) -> Vec<String> {
    s.moments.iter().map(|m| format!("{} {} {}", m.after_s, m.name, m.event)).collect()
}

#[test]
fn what_has_waited_long_is_not_passed_by_smaller_work_for_ever() {
    let mut f = Fleet::with_nodes(1);
    let mut small = vec![run(&mut f, lasting(4, 3_600)), run(&mut f, lasting(4, 3_600))];
    let large = f.submit(lasting(8, 60)).workload_id.unwrap();
    // Small ones pass it as long as it has not waited for long.
    f.report(small.remove(0), N::Completed, C::Exited, Some(0));
    small.push(run(&mut f, lasting(4, 3_600)));
    f.pass(601);
    assert_eq!((f.workload(large).state, f.workload(large).reason), (S::Pending, R::Reserved));
    let why = query::explain(&f.cluster, &large.to_string(), f.now).unwrap().summary;
    assert!(why.contains("what becomes free on n0 is kept for it"), "{why}");
    f.report(small.remove(0), N::Completed, C::Exited, Some(0));
    let late = f.submit(lasting(4, 3_600)).workload_id.unwrap();
    assert_eq!(f.workload(late).state, S::Pending, "four GPUs are free, and kept");
    let critical = f.submit(with_priority(1, Priority::Critical)).workload_id.unwrap();
    assert_eq!(f.workload(critical).state, S::Placed, "what stands before it in the queue is not kept out");
    f.report(critical, N::Completed, C::Exited, Some(0));
    f.report(small.remove(0), N::Completed, C::Exited, Some(0));
    assert_eq!((f.workload(large).state, f.workload(late).state), (S::Placed, S::Pending));
}

#[test]
fn who_is_sure_to_have_ended_uses_what_is_kept_meanwhile() {
    let mut f = Fleet::with_nodes(1);
    let first = run(&mut f, lasting(4, 3_600));
    let large = f.submit(lasting(8, 60)).workload_id.unwrap();
    f.pass(601);
    assert_eq!((f.workload(large).state, f.workload(large).reason), (S::Pending, R::Reserved));
    // It begins in 3,009 seconds at the latest, for each has ten seconds to end.
    let short = |seconds| WorkloadSpec { grace_s: Some(10), ..lasting(2, seconds) };
    let fits = f.submit(short(2_999)).workload_id.unwrap();
    let late = f.submit(short(3_000)).workload_id.unwrap();
    let endless = f.submit(spec(2)).workload_id.unwrap();
    assert_eq!([fits, late, endless].map(|id| f.workload(id).state), [S::Placed, S::Pending, S::Pending]);
    assert_eq!(f.workload(large).reason, R::Reserved, "what is kept stays kept");
    f.report(fits, N::Running, C::Progress, None);
    f.report(first, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(large).state, S::Pending, "one that was let in is still there");
    assert_eq!(f.workload(late).state, S::Pending);
    f.report(fits, N::Completed, C::Exited, Some(0));
    assert_eq!([large, late, endless].map(|id| f.workload(id).state), [S::Placed, S::Pending, S::Pending]);
}

#[test]
fn an_early_end_brings_the_reserved_start_nearer() {
    let mut f = Fleet::with_nodes(1);
    let first = run(&mut f, lasting(4, 86_400));
    let large = f.submit(lasting(8, 60)).workload_id.unwrap();
    f.pass(601);
    let short = run(&mut f, lasting(2, 3_600));
    f.report(first, N::Completed, C::Exited, Some(0));
    // Only the short one is waited for now: who would take longer is not let in any more.
    let long = f.submit(lasting(2, 40_000)).workload_id.unwrap();
    assert_eq!([large, long].map(|id| f.workload(id).state), [S::Pending, S::Pending]);
    f.report(short, N::Completed, C::Exited, Some(0));
    assert_eq!([large, long].map(|id| f.workload(id).state), [S::Placed, S::Pending]);
}

#[test]
fn nothing_is_kept_where_nobody_knows_when_it_ends() {
    let mut f = Fleet::with_nodes(1);
    run(&mut f, spec(4));
    let ends = run(&mut f, lasting(4, 3_600));
    let large = f.submit(lasting(8, 60)).workload_id.unwrap();
    f.pass(700);
    assert_eq!(f.workload(large).reason, R::NoRoom);
    f.report(ends, N::Completed, C::Exited, Some(0));
    let small = f.submit(spec(4)).workload_id.unwrap();
    assert_eq!(f.workload(small).state, S::Placed);
}

#[test]
fn capacity_is_counted_by_trying() {
    let mut f = Fleet::with_nodes(2);
    run(&mut f, spec(3));
    let caller = who("alice", Role::Viewer, PrincipalKind::Agent, f.now);
    let find = |spec: WorkloadSpec, copies_max| {
        let p = CapacityFindParams { spec, copies_max };
        query::capacity_find(&f.cluster, &p, &caller, &mut CountingIds::new(u32::MAX)).unwrap()
    };
    assert_eq!((find(spec(2), None).copies, find(spec(2), Some(2)).copies), (6, 2));
    assert_eq!(find(WorkloadSpec { nodes: Some(2), ..spec(10) }, None).copies, 1);
    let none = find(WorkloadSpec { nodes: Some(2), ..spec(16) }, None);
    assert_eq!(none.copies, 0);
    assert!(none.summary.starts_with("it would wait: it needs 2 nodes at once"), "{}", none.summary);
    assert_eq!(f.cluster.workloads.len(), 1, "nothing was submitted");
}

#[test]
fn what_if_tells_starts_and_ends_by_the_fleets_own_decisions() {
    let mut f = Fleet::with_nodes(1);
    let first = run(&mut f, lasting(8, 100));
    f.pass(40);
    let waits = f.submit(lasting(8, 50)).workload_id.unwrap();
    let names = [f.workload(first).name.clone(), f.workload(waits).name.clone()];
    let imagined =
        ImaginedWorkload { spec: WorkloadSpec { name: Some("mine".into()), ..spec(8) }, run_s: Some(7), after_s: None };
    let p = ScheduleSimulateParams { add: vec![imagined.clone()], ..Default::default() };
    assert_eq!(
        told(&simulate(&f, &p)),
        [
            format!("60 {} ends", names[0]),
            format!("60 {} starts", names[1]),
            format!("110 {} ends", names[1]),
            "110 mine starts".into(),
            "117 mine ends".into(),
        ]
    );
    // One node more, and nobody waits.
    let more = ImaginedNodes { like: "n0".into(), count: 2 };
    let with = simulate(&f, &ScheduleSimulateParams { add_nodes: vec![more], ..p.clone() });
    let starts: Vec<u64> = with.moments.iter().filter(|m| m.event == MomentKind::Starts).map(|m| m.after_s).collect();
    assert_eq!((starts, with.waiting.len()), (vec![0, 0], 0));
    // Without the node nobody runs.
    let without = simulate(&f, &ScheduleSimulateParams { lose_nodes: vec!["n0".into()], ..p });
    assert_eq!((without.moments[0].event, without.waiting.len()), (MomentKind::Lost, 3));
    assert_eq!(f.workload(first).state, S::Running, "nothing of it has happened");
}

#[test]
fn what_if_restarts_only_what_the_fleet_would_restart() {
    let mut f = Fleet::with_nodes(2);
    let never = WorkloadSpec { restart: Some(RestartPolicy::Never), name: Some("never".into()), ..spec(8) };
    let moves = WorkloadSpec { name: Some("moves".into()), ..lasting(8, 900) };
    run(&mut f, never);
    let leaving = run(&mut f, moves);
    let home = |f: &Fleet, name: &str| {
        let w = f.cluster.workloads.by_name(name).unwrap();
        f.cluster.nodes.get(w.live().unwrap().node_id).unwrap().name.clone()
    };
    // Lost with its node, and its owner said never.
    let lost = ScheduleSimulateParams { lose_nodes: vec![home(&f, "never")], ..Default::default() };
    let told_of = |s: &ScheduleSimulation, name: &str| -> Vec<String> {
        told(s).into_iter().filter(|t| t.contains(name)).collect()
    };
    let s = simulate(&f, &lost);
    assert_eq!((told_of(&s, "never"), s.waiting.len()), (vec!["0 never lost".into(), "0 never ends".into()], 0));
    // The other one would wait for its place, and get it on a new node.
    let more = vec![ImaginedNodes { like: "n0".into(), count: 1 }];
    let lost = ScheduleSimulateParams { lose_nodes: vec![home(&f, "moves")], add_nodes: more, ..Default::default() };
    assert_eq!(told_of(&simulate(&f, &lost), "moves"), ["0 moves lost", "0 moves starts", "900 moves ends"]);
    // What is on its way out is gone after its grace, and its room is free.
    let stop = Operation::WorkloadStop { workload: leaving.to_string(), grace_s: Some(30) };
    f.operate("alice", stop, Mode::Apply, None).unwrap();
    let next =
        ImaginedWorkload { spec: WorkloadSpec { name: Some("next".into()), ..spec(8) }, run_s: Some(5), after_s: None };
    let s = simulate(&f, &ScheduleSimulateParams { add: vec![next], ..Default::default() });
    assert_eq!(told(&s), ["30 moves ends", "30 next starts", "35 next ends"]);
    f.report(leaving, N::Stopped, C::StopRequested, None);
    let again = ScheduleSimulateParams { stop: vec![leaving.to_string()], ..Default::default() };
    let caller = who("alice", Role::Viewer, PrincipalKind::Agent, f.now);
    let refused = query::simulate(&f.cluster, &again, &caller, &mut CountingIds::new(u32::MAX)).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("stop"), "what has ended does not end again");
}

#[test]
fn what_if_sees_what_time_alone_brings() {
    let mut f = Fleet::with_nodes(1);
    run(&mut f, lasting(4, 2_000));
    run(&mut f, lasting(4, 1_000));
    let large = f.submit(WorkloadSpec { name: Some("large".into()), ..lasting(8, 60) });
    assert_eq!(f.workload(large.workload_id.unwrap()).state, S::Pending);
    // Reserved after 600 s, so what comes later does not pass it.
    let small = ImaginedWorkload {
        spec: WorkloadSpec { name: Some("small".into()), ..spec(4) },
        run_s: Some(9_000),
        after_s: Some(700),
    };
    let s = simulate(&f, &ScheduleSimulateParams { add: vec![small], ..Default::default() });
    let of: Vec<String> = told(&s).into_iter().filter(|t| t.contains("starts")).collect();
    assert_eq!(of, ["2000 large starts", "2060 small starts"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, .. ProptestConfig::default() })]

    /// What is foretold comes, up to where work is stopped for other work (when a program that was told to end is
    /// gone is imagined): the fleet itself, driven through the same ends, starts the same work at the same times.
    #[test]
    fn the_fleet_does_what_the_simulation_told(history in prop::collection::vec(moves(), 1..25), sizes in prop::collection::vec((1_u32..9, 1_u64..400), 1..10)) {
        let mut f = Fleet::with_nodes(2);
        // What time alone brings is seen by the fleet at a tick, by the simulation when something ends.
        let preemption = PreemptionPolicy { per_day_max: 0, ..PreemptionPolicy::default() };
        f.cluster.policy = Arc::new(Policy { reserve_after_ms: i64::MAX, preemption, ..Policy::default() });
        for m in &history {
            play(&mut f, m);
        }
        for (gpus, seconds) in sizes {
            let _ = f.submit(lasting(gpus, seconds));
        }
        for name in ["n0", "n1"] {
            if let Some(id) = f.cluster.nodes.by_name(name).map(|n| n.node_id) {
                f.connect(id, h100x8(name), &[], 7);
            }
        }
        // Everything that has a place runs from now on.
        let placed: Vec<_> = f.cluster.workloads.iter().filter(|w| w.live().is_some() && w.state != S::Stopping).map(|w| w.workload_id).collect();
        for id in placed {
            while f.workload(id).lives().any(|a| a.state < S::Running) {
                let at = f.workload(id).lives().position(|a| a.state < S::Running).unwrap();
                f.report_part(id, at, (N::Running, C::Progress, None));
            }
        }
        prop_assume!(f.cluster.workloads.iter().all(|w| w.state != S::Stopping && w.claim.is_none()));
        // No lease that runs out and no pause that ends meanwhile: those come by time alone, too.
        prop_assume!(f.cluster.nodes.iter().all(|n| n.link == NodeLink::Online));
        prop_assume!(f.cluster.workloads.iter().all(|w| w.held_back(f.now).is_none()));
        let foretold = simulate(&f, &ScheduleSimulateParams { horizon_s: Some(500), ..Default::default() });
        let from = f.now;
        for m in foretold.moments.iter().take_while(|m| m.event != MomentKind::MakesRoom) {
            let wait = i64::try_from(m.after_s).unwrap() - f.now.ms_since(from) / 1_000;
            if wait > 0 {
                f.pass(wait);
            }
            match m.event {
                MomentKind::Ends => {
                    while f.workload(m.workload_id).live().is_some() {
                        f.report(m.workload_id, N::Completed, C::Exited, Some(0));
                    }
                }
                MomentKind::Starts => {
                    prop_assert!(f.workload(m.workload_id).live().is_some(), "{} at {} s: {:?}", m.name, m.after_s, told(&foretold));
                    for at in 0..f.workload(m.workload_id).lives().count() {
                        f.report_part(m.workload_id, at, (N::Running, C::Progress, None));
                    }
                }
                MomentKind::MakesRoom | MomentKind::Lost => prop_assume!(false),
            }
        }
    }
}
