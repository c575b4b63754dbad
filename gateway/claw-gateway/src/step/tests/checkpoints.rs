//! Programs that tell of their checkpoints: told to write one, stopped when they have, begun again from it.

use claw_proto::ids::{NodeId, WorkloadId};
use claw_proto::message::{CheckpointWritten, NodeWorkloadState as N, StatusCause as C, StatusRecord};
use claw_proto::spec::{Priority, WorkloadSpec};
use claw_tools::outcome::Mode;
use claw_tools::workloads::{WorkloadReason as R, WorkloadState as S};

use super::fleet::{Fleet, share, with_priority};
use crate::audit::{Auditor, Wrong, decisions};
use crate::effect::Effect;
use crate::event::{Event, EventRecord};
use crate::{Cluster, Command, Operation, preemption, query};

fn trainer(gpus: u32, grace_s: u32) -> WorkloadSpec {
    WorkloadSpec { preemptible: Some(true), grace_s: Some(grace_s), ..with_priority(gpus, Priority::Low) }
}

fn run(f: &mut Fleet, spec: WorkloadSpec) -> WorkloadId {
    let id = f.submit(spec).workload_id.unwrap();
    f.report_all(id, N::Running, C::Progress, None);
    id
}

/// The node of rank 0 says that a checkpoint is written.
fn written(f: &mut Fleet, id: WorkloadId, label: &str, answers_notice: bool) {
    let (node_id, record) = record(f, id, label, answers_notice);
    f.system(Command::NodeStatus { node_id, records: vec![record] });
}

fn record(f: &Fleet, id: WorkloadId, label: &str, answers_notice: bool) -> (NodeId, StatusRecord) {
    let w = f.workload(id);
    let live = w.live().unwrap();
    let record = StatusRecord {
        record: 7,
        workload_id: id,
        attempt: live.attempt,
        state: N::Running,
        cause: C::Progress,
        detail: String::new(),
        exit_code: None,
        signal: None,
        at: f.now,
        simulated: true,
        checkpoint: Some(CheckpointWritten { label: label.into(), answers_notice, took_ms: None }),
    };
    (live.node_id, record)
}

/// The same, with how long it was written.
fn took(f: &mut Fleet, id: WorkloadId, took_ms: u32) {
    let (node_id, mut record) = record(f, id, "step", false);
    record.checkpoint.as_mut().unwrap().took_ms = Some(took_ms);
    f.system(Command::NodeStatus { node_id, records: vec![record] });
}

fn n_written(f: &Fleet) -> usize {
    f.journal.iter().filter(|r| matches!(r.event, Event::CheckpointWritten { .. })).count()
}

fn stops(f: &Fleet, id: WorkloadId) -> Vec<u32> {
    let stop = |effect: &Effect| match effect {
        Effect::StopWorkload { order, .. } if order.workload_id == id => Some(order.grace_s),
        _ => None,
    };
    f.effects.iter().filter_map(stop).collect()
}

fn notices(f: &Fleet, id: WorkloadId) -> usize {
    let is_it = |effect: &&Effect| matches!(effect, Effect::NoticeCheckpoint { workload_id, .. } if *workload_id == id);
    f.effects.iter().filter(is_it).count()
}

/// One that tells of its checkpoints, for half a minute, and has just been told to leave.
fn noticed(grace_s: u32) -> (Fleet, WorkloadId, WorkloadId) {
    let mut f = Fleet::with_nodes(1);
    let low = run(&mut f, trainer(8, grace_s));
    f.pass(70);
    written(&mut f, low, "step 1", false);
    f.pass(30);
    let high = f.submit(with_priority(8, Priority::High)).workload_id.unwrap();
    assert_eq!((f.workload(low).state, f.workload(low).reason), (S::Stopping, R::Preempted));
    assert_eq!((notices(&f, low), stops(&f, low)), (1, Vec::new()), "told to write one, and not to stop");
    (f, low, high)
}

#[test]
fn an_answer_stops_it_at_once_and_the_next_attempt_begins_from_it() {
    let (mut f, low, high) = noticed(60);
    let lost = f.journal.iter().rev().find_map(|r| match &r.event {
        Event::RoomClaimed { lost_gpu_ms, .. } => Some(lost_gpu_ms.clone()),
        _ => None,
    });
    assert_eq!(lost, Some(vec![240_000]), "thirty seconds since its last checkpoint, on eight GPUs");
    let node_id = f.node("n0").node_id;
    let (_, wanted, stop) = query::desired_set(&f.cluster, node_id);
    assert_eq!((wanted.len(), stop.len()), (1, 0), "it runs until it is stopped");
    assert_eq!(query::notices(&f.cluster, node_id, f.now.plus_ms(5_000)).len(), 1);
    f.pass(2);
    written(&mut f, low, "by itself", false);
    assert_eq!(stops(&f, low), Vec::<u32>::new(), "one that it wrote anyway is no answer");
    written(&mut f, low, "step 2", true);
    assert_eq!(stops(&f, low), [5], "at once, with a little time to put its things in order");
    written(&mut f, low, "step 3", true);
    assert_eq!(stops(&f, low).len(), 1, "once");
    f.report(low, N::Stopped, C::StopRequested, None);
    assert_eq!((f.workload(high).state, f.workload(low).state), (S::Placed, S::Pending));
    f.report(high, N::Completed, C::Exited, Some(0));
    let again = query::desired_set(&f.cluster, node_id).1.remove(0).0;
    assert_eq!((again.workload_id, again.checkpoint_last.as_deref()), (low, Some("step 2")));
    // It survives a restart of the gateway, by events and by snapshot.
    let mut folded = Cluster::new(f.cluster.policy.clone());
    f.journal.iter().for_each(|record| folded.apply(record));
    assert_eq!(folded.to_snapshot(), f.cluster.to_snapshot());
    let read = Cluster::from_snapshot(1, &f.cluster.to_snapshot(), f.cluster.policy.clone()).unwrap();
    assert_eq!(read.workloads, f.cluster.workloads);
    assert_eq!(read.workloads.get(low).unwrap().checkpoint.as_ref().unwrap().label, "step 2");
}

#[test]
fn without_an_answer_it_has_all_of_its_grace() {
    let (mut f, low, high) = noticed(20);
    f.pass(19);
    assert_eq!(stops(&f, low), Vec::<u32>::new());
    assert_eq!(f.workload(high).state, S::Pending);
    f.pass(1);
    assert_eq!(stops(&f, low), [5], "its grace is over: TERM, and a little time before KILL");
    written(&mut f, low, "too late", true);
    f.pass(1);
    assert_eq!(stops(&f, low), [5]);
    f.report(low, N::Stopped, C::StopRequested, None);
    assert_eq!(f.workload(high).state, S::Placed);
}

#[test]
fn a_notice_survives_a_snapshot_and_ends_with_the_attempt() {
    let (mut f, low, _) = noticed(20);
    f.cluster = Cluster::from_snapshot(1, &f.cluster.to_snapshot(), f.cluster.policy.clone()).unwrap();
    assert_eq!(f.cluster.workloads.noticed().count(), 1);
    // It ended well by itself before it was stopped.
    f.report(low, N::Completed, C::Exited, Some(0));
    assert_eq!((f.workload(low).state, f.cluster.workloads.noticed().count()), (S::Completed, 0));
    let (mut f, low, _) = noticed(20);
    let stop = Operation::WorkloadStop { workload: low.to_string(), grace_s: Some(3) };
    f.operate("alice", stop, Mode::Apply, None).unwrap();
    assert_eq!((stops(&f, low), f.cluster.workloads.noticed().count()), (vec![3], 0), "a person stops it");
    written(&mut f, low, "step 9", true);
    assert_eq!(stops(&f, low).len(), 1);
}

#[test]
fn who_never_told_of_a_checkpoint_gets_term_and_its_grace() {
    let mut f = Fleet::with_nodes(1);
    let low = run(&mut f, trainer(8, 33));
    f.pass(70);
    f.submit(with_priority(8, Priority::High));
    assert_eq!((notices(&f, low), stops(&f, low)), (0, vec![33]));
    // Its last word, written in the grace, is kept all the same.
    written(&mut f, low, "step 4", false);
    assert_eq!(f.workload(low).checkpoint.as_ref().unwrap().label, "step 4");
}

#[test]
fn a_checkpoint_counts_once_and_not_too_often() {
    let mut f = Fleet::with_nodes(1);
    let low = run(&mut f, trainer(8, 20));
    let (node_id, first) = record(&f, low, "1", false);
    let many: Vec<StatusRecord> = (0..500).map(|n| StatusRecord { at: f.now.plus_ms(n), ..first.clone() }).collect();
    f.system(Command::NodeStatus { node_id, records: many.clone() });
    assert_eq!(n_written(&f), 1, "of many at once the last");
    f.system(Command::NodeStatus { node_id, records: many });
    assert_eq!(n_written(&f), 1, "sent again");
    f.pass(1);
    written(&mut f, low, "2", false);
    assert_eq!(n_written(&f), 2);
    f.now = f.now.plus_ms(500);
    written(&mut f, low, "3", false);
    assert_eq!(n_written(&f), 2, "too soon");
    // A clock that is ahead makes it no younger than now; another attempt's word is nobody's.
    f.pass(10);
    let (_, ahead) = record(&f, low, "4\u{202e}", false);
    let other = StatusRecord { attempt: claw_proto::ids::Attempt(9), ..ahead.clone() };
    let ahead = StatusRecord { at: f.now.plus_ms(1_000_000), ..ahead };
    f.system(Command::NodeStatus { node_id, records: vec![ahead, other] });
    let w = f.workload(low);
    let known = w.checkpoint.as_ref().unwrap();
    assert_eq!((known.label.as_str(), known.at, n_written(&f)), ("4\u{fffd}", f.now, 3));
}

/// Telling of a checkpoint makes a victim dear only by what it did since.
#[test]
fn what_was_told_counts_before_what_the_interval_says() {
    let policy = crate::preemption::PreemptionPolicy::default();
    let mut f = Fleet::with_nodes(1);
    let spec = WorkloadSpec { checkpoint_interval_s: Some(100), ..trainer(2, 20) };
    let id = run(&mut f, spec);
    f.pass(250);
    let lost = |f: &Fleet| crate::preemption::lost_gpu_ms(&policy, &f.workload(id), f.now);
    assert_eq!(lost(&f), 2 * 50_000, "as its interval says");
    written(&mut f, id, "step 1", false);
    f.pass(130);
    assert_eq!(lost(&f), 2 * 130_000, "as it told");
    f.pass(10_000);
    assert_eq!(lost(&f), 2 * 1_800_000, "falling silent is no shield");
}

/// What was done while a checkpoint was written is not in it; who writes one within its grace loses no more than that.
#[test]
fn who_writes_quickly_loses_what_it_does_while_it_writes() {
    let mut f = Fleet::with_nodes(1);
    let id = run(&mut f, trainer(2, 20));
    let lost = |f: &Fleet| preemption::lost_gpu_ms(&f.cluster.policy.preemption, &f.workload(id), f.now);
    f.pass(250);
    took(&mut f, id, 25_000);
    f.pass(100);
    assert_eq!(lost(&f), 2 * 125_000, "longer than its grace: asked in vain");
    took(&mut f, id, 20_000);
    assert_eq!(lost(&f), 2 * 20_000, "it has just written one, which holds what was done when that began");
    f.pass(100);
    assert_eq!(lost(&f), 2 * 20_000, "the next one takes as long");
    f.pass(10_000);
    took(&mut f, id, u32::MAX);
    assert_eq!(lost(&f), 2 * 1_800_000, "a word is no shield");
}

/// Where no checkpoint can be written within the grace, nobody waits for one: TERM, and all of its grace.
#[test]
fn who_needs_longer_than_its_grace_is_not_asked_in_vain() {
    for (took_ms, asked) in [(20_000, 1), (20_001, 0)] {
        let mut f = Fleet::with_nodes(1);
        let low = run(&mut f, trainer(8, 20));
        f.pass(70);
        took(&mut f, low, took_ms);
        f.pass(30);
        f.submit(with_priority(8, Priority::High));
        let told = if asked == 1 { Vec::new() } else { vec![20] };
        assert_eq!((notices(&f, low), stops(&f, low)), (asked, told), "{took_ms} ms");
        let mut auditor = Auditor::new(3);
        decisions(&f.journal).for_each(|decision| auditor.check(decision).unwrap());
    }
}

/// A program that does not say how long it writes shows it when it answers, and that is known of its next attempts.
#[test]
fn an_answer_shows_how_long_it_takes_to_write_one() {
    let (mut f, low, high) = noticed(20);
    f.pass(3);
    written(&mut f, low, "step 2", true);
    f.report(low, N::Stopped, C::StopRequested, None);
    f.report(high, N::Running, C::Progress, None);
    let stop = Operation::WorkloadStop { workload: high.to_string(), grace_s: None };
    f.operate("alice", stop, Mode::Apply, None).unwrap();
    f.report(high, N::Stopped, C::StopRequested, None);
    f.report(low, N::Running, C::Progress, None);
    f.pass(100);
    written(&mut f, low, "step 3", false);
    f.pass(100);
    let w = f.workload(low);
    assert_eq!(w.checkpoint_of_latest().and_then(|written| written.took_ms), Some(3_000));
    let gpus = u64::from(w.spec.demand().gpus);
    assert_eq!(preemption::lost_gpu_ms(&f.cluster.policy.preemption, &w, f.now), gpus * 3_000);
}

/// Decisions that stop somebody before its word or its time are found.
#[test]
fn the_auditor_finds_who_had_neither_answer_nor_grace() {
    let (mut f, low, _) = noticed(60);
    let before = f.journal.clone();
    let mut auditor = Auditor::new(3);
    let at = before.iter().position(|r| matches!(r.event, Event::RoomClaimed { .. })).unwrap();
    before[..at].iter().for_each(|record| auditor.check(std::slice::from_ref(record)).unwrap());
    let claimed = &before[at..];
    let unasked: Vec<EventRecord> = claimed
        .iter()
        .cloned()
        .map(|mut r| {
            if let Event::WorkloadStopping { notice, .. } = &mut r.event {
                *notice = false;
            }
            r
        })
        .collect();
    assert_eq!(auditor.clone().check(&unasked), Err(Wrong::NotNoticed(low)));
    let short: Vec<EventRecord> = claimed
        .iter()
        .cloned()
        .map(|mut r| {
            if let Event::WorkloadStopping { grace_s, .. } = &mut r.event {
                *grace_s = 59;
            }
            r
        })
        .collect();
    assert_eq!(auditor.clone().check(&short), Err(Wrong::StoppedTooEarly(low)));
    auditor.check(claimed).unwrap();
    f.pass(3);
    let n_before = f.journal.len();
    written(&mut f, low, "step 2", true);
    f.report(low, N::Stopped, C::StopRequested, None);
    let news = f.journal[n_before..].to_vec();
    let without = |is_left_out: fn(&Event) -> bool| {
        let kept: Vec<EventRecord> = news.iter().filter(|r| !is_left_out(&r.event)).cloned().collect();
        auditor.clone().check(&kept)
    };
    assert_eq!(without(|_| false), Ok(()));
    assert_eq!(without(|e| matches!(e, Event::CheckpointWritten { .. })), Err(Wrong::StoppedTooEarly(low)));
    assert_eq!(without(|e| matches!(e, Event::NoticeEnded { .. })), Err(Wrong::StoppedTooEarly(low)));
}

#[test]
fn who_is_not_heard_from_has_all_of_its_grace_once_the_stop_comes() {
    let (mut f, low, _) = noticed(20);
    let node_id = f.node("n0").node_id;
    f.silence(node_id);
    f.pass(20);
    assert_eq!(stops(&f, low), [20], "nobody knows whether its notice came");
}

#[test]
fn a_share_that_tells_of_its_checkpoints_is_weighed_as_a_share() {
    let mut f = Fleet::with_nodes(1);
    let spec = WorkloadSpec { preemptible: Some(true), ..share(0.25) };
    let low = run(&mut f, spec);
    f.pass(60);
    let lost = |f: &Fleet| preemption::lost_gpu_ms(&f.cluster.policy.preemption, &f.workload(low), f.now);
    let silent = lost(&f);
    written(&mut f, low, "step 1", false);
    f.pass(60);
    assert_eq!((silent, lost(&f)), (15_000, 15_000), "a minute of a quarter, told or not");
}

#[test]
fn a_last_word_that_comes_with_the_end_counts_however_soon_it_comes() {
    let mut f = Fleet::with_nodes(1);
    let low = run(&mut f, trainer(8, 20));
    written(&mut f, low, "almost", false);
    f.now = f.now.plus_ms(700);
    written(&mut f, low, "too soon", false);
    assert_eq!(f.workload(low).checkpoint.as_ref().unwrap().label, "almost");
    let (node_id, last) = record(&f, low, "last", false);
    let end = StatusRecord { state: N::Failed, cause: C::Exited, exit_code: Some(1), checkpoint: None, ..last.clone() };
    f.system(Command::NodeStatus { node_id, records: vec![last, end] });
    assert_eq!(f.workload(low).checkpoint.as_ref().unwrap().label, "last");
}
