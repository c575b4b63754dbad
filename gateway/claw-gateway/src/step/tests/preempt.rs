//! More important work makes room for itself: who has to leave, in which order,
//! and that nobody behind it gets the room.

use claw_proto::ids::WorkloadId;
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C};
use claw_proto::spec::{Priority, WorkloadSpec};
use claw_tools::outcome::{EffectKind, Mode};
use claw_tools::workloads::{PlacementReason, WorkloadReason as R, WorkloadState as S};

use super::fleet::{Fleet, run_of, spec, with_priority};
use crate::event::Event;
use crate::query;

fn offered(gpus: u32, checkpoint_interval_s: Option<u64>) -> WorkloadSpec {
    WorkloadSpec { preemptible: Some(true), checkpoint_interval_s, ..with_priority(gpus, Priority::Low) }
}

fn run(f: &mut Fleet, spec: WorkloadSpec) -> WorkloadId {
    let id = f.submit(spec).workload_id.unwrap();
    f.report_all(id, N::Running, C::Progress, None);
    assert!(f.workload(id).live().is_some());
    id
}

fn leave(f: &mut Fleet, id: WorkloadId) {
    f.report_all(id, N::Stopped, C::StopRequested, None);
}

#[test]
fn the_set_that_loses_least_leaves_and_comes_back_later() {
    let mut f = Fleet::with_nodes(2);
    // One node: four that lose much. The other: one that has just written a checkpoint.
    let dear: Vec<_> = (0..4).map(|_| run(&mut f, offered(2, None))).collect();
    let cheap = run(&mut f, offered(8, Some(100)));
    f.pass(1_001);
    let out = f.submit(with_priority(8, Priority::High));
    assert_eq!(out.effect, EffectKind::Queued);
    let id = out.workload_id.unwrap();
    assert_eq!((f.workload(id).state, f.workload(id).reason), (S::Pending, R::MakingRoom));
    assert_eq!((f.workload(cheap).state, f.workload(cheap).reason), (S::Stopping, R::Preempted));
    assert!(dear.iter().all(|id| f.workload(*id).state == S::Running));
    let claimed = f.journal.iter().find_map(|r| match &r.event {
        Event::RoomClaimed { lost_gpu_ms, .. } => Some(lost_gpu_ms.clone()),
        _ => None,
    });
    assert_eq!(claimed, Some(vec![8_000]), "one second since its checkpoint, on eight GPUs");
    let told = query::explain(&f.cluster, &id.to_string(), f.now).unwrap().summary;
    assert!(told.contains("told to end and leaves room for it"), "{told}");
    let told = query::explain(&f.cluster, &cheap.to_string(), f.now).unwrap().summary;
    assert!(told.contains("It makes room for"), "{told}");
    // Nothing starts before it has left.
    f.pass(5);
    assert_eq!(f.workload(id).state, S::Pending);
    leave(&mut f, cheap);
    assert_eq!(f.workload(id).state, S::Placed);
    let w = f.workload(cheap);
    assert_eq!((w.state, w.attempts[0].reason, w.restarts), (S::Pending, R::Preempted, 0));
    assert!(w.attempts[0].detail.contains("made room for"), "{}", w.attempts[0].detail);
    f.report(id, N::Completed, C::Exited, Some(0));
    assert_eq!(f.workload(cheap).state, S::Placed, "it comes back once there is room");
}

#[test]
fn nobody_is_stopped_in_vain_or_who_did_not_offer_it() {
    let mut f = Fleet::with_nodes(2);
    run(&mut f, with_priority(5, Priority::Low));
    run(&mut f, spec(5));
    let offered_one = run(&mut f, offered(3, None));
    f.pass(100);
    for (gpus, priority) in [(8, Priority::Critical), (3, Priority::Low), (3, Priority::BestEffort)] {
        let out = f.submit(with_priority(gpus, priority));
        let id = out.workload_id.unwrap();
        let taken = f.workload(id).live().is_some() || f.workload(offered_one).state != S::Running;
        assert_eq!(
            taken,
            gpus == 3 && priority == Priority::Low,
            "{gpus} at {priority}: three GPUs are free on the other node"
        );
    }
    assert_eq!(f.workload(offered_one).state, S::Running);
}

#[test]
fn what_has_just_begun_or_was_stopped_three_times_today_is_left_alone() {
    // Of four nodes: more parts than tries are kept.
    three_times_a_day(1);
    three_times_a_day(4);
}

fn three_times_a_day(nodes: u32) {
    let mut f = Fleet::with_nodes(nodes);
    let over = |spec: WorkloadSpec| WorkloadSpec { nodes: Some(nodes), ..spec };
    let low = run(&mut f, over(offered(8 * nodes, None)));
    for round in 0..4 {
        let high = f.submit(over(with_priority(8 * nodes, Priority::High))).workload_id.unwrap();
        assert_eq!(
            (f.workload(low).state, f.workload(high).state),
            (S::Running, S::Pending),
            "round {round}: too young"
        );
        f.pass(61);
        if round == 3 {
            assert_eq!(f.workload(low).state, S::Running, "three times a day are enough");
            assert_eq!(f.workload(high).reason, R::NoRoom);
            break;
        }
        assert_eq!((f.workload(low).state, f.workload(high).reason), (S::Stopping, R::MakingRoom), "round {round}");
        leave(&mut f, low);
        assert_eq!(f.workload(high).state, S::Placed);
        f.report_all(high, N::Completed, C::Exited, Some(0));
        f.report_all(low, N::Running, C::Progress, None);
    }
    f.pass(24 * 60 * 60);
    assert_eq!(f.workload(low).state, S::Stopping, "the next day it may be asked again");
}

#[test]
fn room_that_is_being_made_is_not_given_to_those_behind() {
    let mut f = Fleet::with_nodes(2);
    let first = run(&mut f, offered(8, None));
    let second = run(&mut f, offered(8, None));
    f.pass(100);
    let gang = WorkloadSpec { nodes: Some(2), ..with_priority(16, Priority::High) };
    let gang = f.submit(gang).workload_id.unwrap();
    assert_eq!((f.workload(first).state, f.workload(second).state), (S::Stopping, S::Stopping));
    leave(&mut f, first);
    // Eight GPUs are free, and wait for the rest.
    let small = f.submit(spec(1));
    let report = small.placement.unwrap();
    assert!(report.rejected.iter().any(|r| r.reason == PlacementReason::RoomClaimed), "{report:?}");
    assert_eq!((f.workload(gang).state, f.workload(first).state), (S::Pending, S::Pending));
    // More important work is not kept out, and then the gang waits on.
    let critical = f.submit(with_priority(1, Priority::Critical)).workload_id.unwrap();
    assert_eq!(f.workload(critical).state, S::Placed);
    leave(&mut f, second);
    assert_eq!((f.workload(gang).state, f.workload(gang).reason), (S::Pending, R::NoRoom));
    f.report(critical, N::Completed, C::Exited, Some(0));
    let small = small.workload_id.unwrap();
    let lives = f.workload(gang).lives().count();
    assert!(lives == 2 || f.workload(small).live().is_some(), "whoever is first in the queue and fits goes");
}

#[test]
fn a_plan_shows_who_would_have_to_leave() {
    let mut f = Fleet::with_nodes(1);
    let low = run(&mut f, offered(8, None));
    f.pass(100);
    let planned = f.operate("alice", run_of(with_priority(8, Priority::High)), Mode::Plan, None).unwrap();
    let diff = planned.plan.unwrap().diff;
    assert!(diff.iter().any(|c| c.subject.contains(&low.to_string()) && c.to == "to be moved"), "{diff:?}");
    assert_eq!(f.workload(low).state, S::Running, "a plan stops nobody");
}
