//! What is kept for one that has waited long is kept as long as it can have it, and as it stands in the queue.

use std::sync::Arc;

use claw_proto::ids::WorkloadId;
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{OnPartition, Placement, Priority, WorkloadSpec};
use claw_proto::topology::GpuHealth;
use claw_tools::outcome::Mode;
use claw_tools::workloads::{WorkloadExplanation, WorkloadReason as R, WorkloadState as S};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::ahead::{lasting, run};
use super::fleet::{Fleet, h100x8, spec, with_priority};
use super::properties::{Move, moves, play};
use super::tenancy::set;
use crate::policy::Policy;
use crate::{Caller, Command, Operation, query};

/// The nodes that are claimed for one.
fn claimed(f: &Fleet, id: WorkloadId) -> Vec<String> {
    let claim = f.workload(id).claim.clone();
    let places = claim.iter().flat_map(|claim| &claim.places);
    places.map(|place| f.cluster.nodes.get(place.node_id).unwrap().name.clone()).collect()
}

fn explained(f: &Fleet, id: WorkloadId) -> WorkloadExplanation {
    query::explain(&f.cluster, &id.to_string(), f.now).unwrap()
}

fn stops(told: &WorkloadExplanation) -> Vec<String> {
    let stop = told.would_start_if.iter().filter(|remedy| remedy.call.tool == "workload_stop");
    stop.map(|remedy| remedy.call.args["workload"].as_str().unwrap().to_owned()).collect()
}

/// One of eight GPUs that has waited long, for a node that is free sooner and one that is free later.
fn kept_on_the_first() -> (Fleet, [WorkloadId; 2]) {
    let mut f = Fleet::with_nodes(2);
    let sooner = run(&mut f, lasting(4, 3_600));
    let later = run(&mut f, lasting(8, 7_200));
    assert_eq!(
        [sooner, later].map(|id| f.workload(id).live().unwrap().node_id),
        ["n0", "n1"].map(|n| f.node(n).node_id)
    );
    let large = f.submit(lasting(8, 60)).workload_id.unwrap();
    f.pass(601);
    assert_eq!(claimed(&f, large), ["n0"]);
    (f, [sooner, large])
}

#[test]
fn where_its_gpus_fail_another_place_is_kept() {
    let (mut f, [_, large]) = kept_on_the_first();
    let small = f.submit(spec(4)).workload_id.unwrap();
    assert_eq!(f.workload(small).state, S::Pending, "what is free is kept");
    let mut broken = h100x8("n0");
    broken.gpus[7].health = GpuHealth::Failed;
    let command = Command::NodeCapabilities { node_id: f.node("n0").node_id, capabilities: Box::new(broken) };
    f.run(command, &Caller::system(f.now)).unwrap();
    assert_eq!(claimed(&f, large), ["n1"]);
    assert_eq!(f.workload(small).state, S::Pending, "three are left there");
    let three = f.submit(spec(3)).workload_id.unwrap();
    assert_eq!(f.workload(three).state, S::Placed, "and nobody keeps them");
}

#[test]
fn where_more_important_work_without_an_end_came_another_place_is_kept() {
    let (mut f, [_, large]) = kept_on_the_first();
    let critical = f.submit(with_priority(1, Priority::Critical)).workload_id.unwrap();
    assert_eq!(f.workload(critical).state, S::Placed);
    f.pass(1);
    assert_eq!(claimed(&f, large), ["n1"]);
}

#[test]
fn what_is_kept_no_longer_is_had_at_once() {
    let mut f = Fleet::with_nodes(2);
    run(&mut f, lasting(8, 3_600));
    let gang = f.submit(WorkloadSpec { nodes: Some(2), ..lasting(16, 60) }).workload_id.unwrap();
    f.pass(601);
    assert_eq!(claimed(&f, gang).len(), 2);
    let one = f.submit(spec(8)).workload_id.unwrap();
    assert_eq!(f.workload(one).state, S::Pending, "the idle node is kept");
    f.operate("root", Operation::NodeCordon { node: "n0".into() }, Mode::Apply, None).unwrap();
    assert_eq!((f.workload(gang).reason, f.workload(one).state), (R::NoRoom, S::Placed));
}

#[test]
fn many_alike_of_whom_nobody_knows_do_not_hide_one_that_can_be_planned() {
    let mut f = Fleet::with_nodes(2);
    run(&mut f, spec(8));
    run(&mut f, lasting(8, 3_600));
    let only_there = Some(Placement { node: Some("n0".into()), ..Placement::default() });
    for _ in 0..9 {
        f.submit(WorkloadSpec { placement: only_there.clone(), ..lasting(8, 60) });
    }
    let anywhere = f.submit(lasting(8, 60)).workload_id.unwrap();
    f.pass(601);
    assert_eq!(claimed(&f, anywhere), ["n1"]);
}

#[test]
fn with_tenants_as_without_the_more_important_goes_first() {
    for tenants in [false, true] {
        let mut f = Fleet::with_nodes(1);
        if tenants {
            f.plan_and_apply(set("lab", None, None, None, &[])).unwrap();
        }
        let first = run(&mut f, lasting(8, 3_600));
        let waited = f.submit(lasting(8, 60)).workload_id.unwrap();
        f.pass(601);
        assert_eq!(f.workload(waited).reason, R::Reserved);
        let critical = WorkloadSpec { priority: Some(Priority::Critical), ..lasting(8, 60) };
        let critical = f.submit(critical).workload_id.unwrap();
        f.report(first, N::Completed, C::Exited, Some(0));
        assert_eq!([critical, waited].map(|id| f.workload(id).state), [S::Placed, S::Pending], "tenants: {tenants}");
    }
}

#[test]
fn what_leaves_in_time_is_not_counted_beside_what_is_kept() {
    let mut f = Fleet::with_nodes(1);
    let cores = |cores, spec| WorkloadSpec { cpu_cores: Some(cores), ..spec };
    run(&mut f, cores(32.0, lasting(4, 3_600)));
    let large = f.submit(cores(32.0, lasting(8, 60))).workload_id.unwrap();
    f.pass(601);
    assert_eq!(f.workload(large).reason, R::Reserved);
    let beside = f.submit(cores(32.0, spec(0))).workload_id.unwrap();
    assert_eq!(f.workload(beside).state, S::Placed, "the node has 64 cores: 32 for each of the two that will be there");
    f.pass(1);
    let more = f.submit(cores(0.5, spec(0))).workload_id.unwrap();
    assert_eq!(f.workload(more).state, S::Pending, "there are none left");
}

#[test]
fn a_place_is_not_kept_for_ever_for_who_cannot_leave() {
    let mut f = Fleet::with_nodes(2);
    let keeps_running = WorkloadSpec {
        nodes: Some(2),
        preemptible: Some(true),
        priority: Some(Priority::Low),
        on_partition: Some(OnPartition::Keep),
        ..spec(16)
    };
    let low = f.submit(keeps_running).workload_id.unwrap();
    f.report_all(low, N::Running, C::Progress, None);
    f.pass(120);
    let large = f.submit(WorkloadSpec { nodes: Some(2), ..with_priority(16, Priority::High) }).workload_id.unwrap();
    assert_eq!((f.workload(large).reason, claimed(&f, large).len()), (R::MakingRoom, 2));
    let (n0, attempt) = f.workload(low).lives().map(|a| (a.node_id, a.attempt)).next().unwrap();
    f.report_as(n0, low, attempt, N::Stopped, C::StopRequested, None);
    let other = f.workload(low).lives().map(|a| a.node_id).next().unwrap();
    f.silence(other);
    let small = f.submit(spec(8)).workload_id.unwrap();
    f.pass(1);
    assert_eq!((claimed(&f, large).len(), f.workload(small).state), (0, S::Placed), "who is cut off may run for ever");
}

#[test]
fn what_is_offered_starts_this_one_and_not_another_before_it() {
    let mut f = Fleet::with_nodes(1);
    let holder = run(&mut f, spec(8));
    let [first, second] = [(); 2].map(|()| f.submit(spec(8)).workload_id.unwrap());
    assert_eq!(stops(&explained(&f, first)), [holder.to_string()]);
    assert!(stops(&explained(&f, second)).is_empty(), "the first would take it");
    let gated = WorkloadSpec { not_before: Some(f.now.plus_ms(3_600_000)), ..spec(8) };
    let gated = f.submit(gated).workload_id.unwrap();
    let told = explained(&f, gated);
    assert!(told.would_start_if.is_empty() && told.blockers.is_empty(), "{told:?}");
    assert!(told.summary.contains("It is not started before 2026-"), "{}", told.summary);
}

#[test]
fn who_holds_the_cores_is_in_the_way_and_whose_end_loses_least_comes_first() {
    let mut f = Fleet::with_nodes(1);
    let cores = |cores, gpus| WorkloadSpec { cpu_cores: Some(cores), ..spec(gpus) };
    let older = run(&mut f, cores(4.0, 4));
    f.pass(60);
    let hog = run(&mut f, cores(56.0, 0));
    f.pass(60);
    let waits = f.submit(cores(8.0, 1)).workload_id.unwrap();
    let told = explained(&f, waits);
    let mut in_the_way: Vec<WorkloadId> = told.blockers.iter().map(|b| b.workload_id).collect();
    in_the_way.sort_unstable();
    assert_eq!(in_the_way, [older, hog], "both have cores");
    assert_eq!(stops(&told), [hog, older].map(|id| id.to_string()));
}

#[test]
fn each_that_has_waited_long_keeps_a_node_of_its_own() {
    let (mut f, [sooner, first]) = kept_on_the_first();
    let later = f.cluster.workloads.iter().find(|w| w.live().is_some() && w.workload_id != sooner).unwrap().workload_id;
    let [second, third] = [60, 60].map(|s| f.submit(lasting(8, s)).workload_id.unwrap());
    f.pass(601);
    assert_eq!(
        [first, second, third].map(|id| claimed(&f, id)),
        [vec!["n0".to_owned()], vec!["n1".to_owned()], vec![]]
    );
    // Who would still be there when the first begins is not let in, and who is gone by then is.
    let [late, early] = [7_200, 600].map(|s| f.submit(lasting(4, s)).workload_id.unwrap());
    assert_eq!([late, early].map(|id| f.workload(id).state), [S::Pending, S::Placed]);
    let stop = Operation::WorkloadStop { workload: late.to_string(), grace_s: None };
    f.operate("alice", stop, Mode::Apply, None).unwrap();
    f.report(early, N::Completed, C::Exited, Some(0));
    f.report(later, N::Completed, C::Exited, Some(0));
    assert_eq!(
        [first, second].map(|id| f.workload(id).state),
        [S::Placed, S::Pending],
        "the first starts where it can"
    );
    f.report(sooner, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(second).state, S::Placed);
    // What was kept for the two is the third's next.
    f.pass(1);
    assert_eq!((claimed(&f, third).len(), f.workload(third).reason), (1, R::Reserved));
}

#[test]
fn no_more_than_the_policy_allows_keep_room() {
    let (mut f, [_, first]) = kept_on_the_first();
    f.cluster.policy = Arc::new(Policy { reservations_max: 1, ..Policy::default() });
    let second = f.submit(lasting(8, 60)).workload_id.unwrap();
    f.pass(601);
    assert_eq!([first, second].map(|id| claimed(&f, id).len()), [1, 0]);
    // The last of those that have theirs gives way to one before it.
    let important = f.submit(WorkloadSpec { priority: Some(Priority::High), ..lasting(8, 60) }).workload_id.unwrap();
    f.pass(601);
    assert_eq!([first, second, important].map(|id| claimed(&f, id).len()), [0, 0, 1]);
    f.cluster.policy = Arc::new(Policy { reservations_max: 0, ..Policy::default() });
    f.pass(1);
    assert_eq!(claimed(&f, important).len(), 1, "what is kept stays kept");
}

#[test]
fn one_behind_gives_way_to_one_before_it() {
    let mut f = Fleet::with_nodes(2);
    run(&mut f, lasting(8, 3_600));
    let endless = run(&mut f, spec(8));
    let gang = f.submit(WorkloadSpec { nodes: Some(2), ..lasting(16, 60) }).workload_id.unwrap();
    let on_the_first = Some(Placement { node: Some("n0".into()), ..Placement::default() });
    let behind = f.submit(WorkloadSpec { placement: on_the_first, ..lasting(8, 60) }).workload_id.unwrap();
    f.pass(601);
    assert_eq!([gang, behind].map(|id| claimed(&f, id).len()), [0, 1], "when the gang fits is not known");
    f.report(endless, N::Completed, C::Exited, Some(0));
    f.pass(1);
    assert_eq!([gang, behind].map(|id| claimed(&f, id).len()), [2, 0]);
    assert_eq!([gang, behind].map(|id| f.workload(id).reason), [R::Reserved, R::NoRoom]);
}

#[test]
fn one_that_goes_before_onto_what_is_kept_takes_no_promise_with_it() {
    let (mut f, [sooner, first]) = kept_on_the_first();
    let later = f.cluster.workloads.iter().find(|w| w.live().is_some() && w.workload_id != sooner).unwrap().workload_id;
    f.operate("alice", Operation::WorkloadStop { workload: first.to_string(), grace_s: None }, Mode::Apply, None)
        .unwrap();
    let [long, second] = [36_000, 60].map(|s| f.submit(lasting(8, s)).workload_id.unwrap());
    f.pass(601);
    assert_eq!([long, second].map(|id| claimed(&f, id)), [["n0"], ["n1"]]);
    let promised = f.workload(second).claim.as_ref().unwrap().begins_at;
    // The first starts on what is kept for the second, and would be there for hours beyond its promise.
    f.report(later, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(long).live().unwrap().node_id, f.node("n1").node_id);
    f.pass(1);
    assert_eq!(claimed(&f, second), ["n0"]);
    assert!(f.workload(second).claim.as_ref().unwrap().begins_at <= promised);
    let endless = f.submit(spec(4)).workload_id.unwrap();
    assert_eq!(f.workload(endless).state, S::Pending, "what is free there is kept now");
}

#[test]
fn a_start_that_is_promised_anew_after_it_was_had_is_no_delay() {
    let (mut f, [sooner, large]) = kept_on_the_first();
    f.report(sooner, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(large).state, S::Placed);
    let node = f.workload(large).live().unwrap().node_id;
    f.silence(node);
    f.pass(700);
    assert_eq!(f.workload(large).state, S::Pending);
    // The auditor of the fleet sees the second promise, later than the first.
    f.pass(700);
    assert_eq!(claimed(&f, large), ["n1"]);
}

#[test]
fn those_that_leave_too_few_cores_withdraw_a_promise_too() {
    let mut f = Fleet::with_nodes(2);
    for (gpus, seconds) in [(4, 3_600), (8, 7_200)] {
        run(&mut f, lasting(gpus, seconds));
    }
    let large = f.submit(WorkloadSpec { cpu_cores: Some(40.0), ..lasting(8, 60) }).workload_id.unwrap();
    f.pass(601);
    let passes = WorkloadSpec {
        gpu: None,
        cpu_cores: Some(20.0),
        max_duration_s: Some(36_000),
        placement: Some(Placement { node: Some("n0".into()), ..Placement::default() }),
        ..with_priority(1, Priority::Critical)
    };
    // Of 64 cores one of them leaves enough, two do not.
    for kept in ["n0", "n1"] {
        let passed = f.submit(passes.clone()).workload_id.unwrap();
        assert_eq!((f.workload(passed).state, claimed(&f, large)), (S::Placed, vec![kept.to_owned()]));
    }
}

/// Work of which it is known when it ends, for nodes that are full of it, and what happens to them.
fn crowded() -> impl Strategy<Value = Move> {
    let submit =
        (3_u32..9, 0_usize..5, prop::option::weighted(0.2, 0_usize..3)).prop_map(|(gpus, priority, tenant)| {
            let (part, apart) = (None, None);
            Move::Submit {
                gpus,
                nvlink: false,
                nodes: 1,
                priority,
                keep: true,
                restart: false,
                apply: true,
                tenant,
                part,
                apart,
            }
        });
    prop_oneof![
        8 => submit,
        // Running, and completed.
        8 => (any::<usize>(), 2_usize..4).prop_map(|(pick, state)| Move::Report { pick, part: 0, state }),
        4 => (5_i64..40).prop_map(|seconds| Move::Pass { seconds }),
        2 => moves(),
    ]
}

/// Over histories of a crowded fleet the invariants hold and the auditor accepts each decision ([`Fleet::run`] looks
/// after every one); and these histories are such that several have a promise at a time, that promises come true, and
/// that some are withdrawn.
#[test]
fn promises_are_kept_or_withdrawn_over_histories_of_a_crowded_fleet() {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (mut together, mut came_true, mut withdrawn) = (0, 0, 0);
    for _ in 0..60 {
        let history = prop::collection::vec(crowded(), 40..80).new_tree(&mut runner).unwrap().current();
        let mut f = Fleet::with_slices(3);
        let mut most = 0;
        for m in &history {
            let before = f.cluster.workloads.reserved();
            play(&mut f, m);
            most = most.max(f.cluster.workloads.reserved().len());
            for kept in before {
                let Some(now) = f.cluster.workloads.get(kept.workload_id) else { continue };
                came_true += u32::from(now.live().is_some());
                withdrawn += u32::from(now.state == S::Pending && now.claim.is_none());
            }
        }
        together += u32::from(most > 1);
    }
    println!(
        "{together} of 60 histories with several promises at once; {came_true} came true, {withdrawn} were withdrawn"
    );
    assert!(together >= 20 && came_true >= 20 && withdrawn >= 20, "{together}, {came_true}, {withdrawn}");
}
