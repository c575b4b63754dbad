//! Faults that are planted into true histories are found where they stand and for what they
//! are. That true histories are accepted is looked at by [`Fleet`] after every command.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::{GpuUuid, NodeId, WorkloadId};
use claw_proto::message::{NodeWorkloadState, StatusCause};
use claw_proto::spec::{AntiAffinity, GpuRequest, Placement, Priority, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuHealth, NodeCapabilities};
use claw_proto::validation::{GPU_MILLI, ValidSpec};
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::quotas::{Quota, QuotaAmounts};
use claw_tools::reservations::Reservation;
use claw_tools::workloads::WorkloadReason;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::fleet::{Fleet, spec, with_priority};
use super::properties::{moves, play};
use crate::audit::{Auditor, Wrong};
use crate::event::{Event, EventRecord};
use crate::workload::Claim;

/// What is planted: each changes the events of one decision that places something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Plant {
    GpuMissing,
    GpuTwice,
    GpuOfAnother,
    GpuUnknown,
    GpuTaken,
    NodeUnknown,
    NodeSilent,
    NodeCordoned,
    NodeRemoved,
    PartMissing,
    PartMisnumbered,
    PlacedTwice,
    NeverSubmitted,
    RoomKept,
    StoppedInVain,
    StoppedForLess,
    NotAllowed,
    TaintNotBorne,
    NotCapped,
    NotKeptApart,
    Gated,
    Overcommitted,
    GpuUnhealthy,
    OverQuota,
    ShareTooLarge,
    SliceOfOther,
    Reserved,
    StartPutOff,
}

const ALL: [Plant; 28] = [
    Plant::GpuMissing,
    Plant::GpuTwice,
    Plant::GpuOfAnother,
    Plant::GpuUnknown,
    Plant::GpuTaken,
    Plant::NodeUnknown,
    Plant::NodeSilent,
    Plant::NodeCordoned,
    Plant::NodeRemoved,
    Plant::PartMissing,
    Plant::PartMisnumbered,
    Plant::PlacedTwice,
    Plant::NeverSubmitted,
    Plant::RoomKept,
    Plant::StoppedInVain,
    Plant::StoppedForLess,
    Plant::NotAllowed,
    Plant::TaintNotBorne,
    Plant::NotCapped,
    Plant::NotKeptApart,
    Plant::Gated,
    Plant::Overcommitted,
    Plant::GpuUnhealthy,
    Plant::OverQuota,
    Plant::ShareTooLarge,
    Plant::SliceOfOther,
    Plant::Reserved,
    Plant::StartPutOff,
];

const NOBODY: u128 = u128::MAX;

fn like(record: &EventRecord, event: Event) -> EventRecord {
    EventRecord { event, ..record.clone() }
}

/// The decision with the fault, if it can stand there.
fn planted(plant: Plant, decision: &[EventRecord], before: &[EventRecord]) -> Option<Vec<EventRecord>> {
    let at = decision.iter().position(|r| matches!(r.event, Event::WorkloadPlaced { .. }))?;
    let mut bad = decision.to_vec();
    let first = decision[at].clone();
    let Event::WorkloadPlaced { workload_id: id, node_id: home, gpus: held, .. } = &first.event else { return None };
    let Event::WorkloadPlaced { workload_id, node_id, gpus, part, .. } = &mut bad[at].event else { return None };
    match plant {
        Plant::GpuMissing => drop(gpus.pop()?),
        Plant::GpuTwice => gpus.push(gpus.first()?.clone()),
        Plant::GpuOfAnother => {
            let other = if held.first()?.0.contains("-n0-") { "n1" } else { "n0" };
            *gpus.first_mut()? = GpuUuid(format!("GPU-{other}-0"));
        }
        Plant::GpuUnknown => *gpus.first_mut()? = GpuUuid("GPU-none".into()),
        // Somebody else has it too, or so much of it that the two are more than there is.
        Plant::GpuTaken | Plant::ShareTooLarge => {
            gpus.first()?;
            let spec = submitted_spec(before, decision, *id)?;
            let larger = with_gpu(&spec, |gpu| match (plant, gpu.fraction) {
                (Plant::GpuTaken, _) => gpu.fraction = None,
                (_, Some(_)) => gpu.fraction = Some(0.999),
                (_, None) => gpu.count = Some(0),
            })?;
            bad.extend(twin(&first, &beside_anybody(&larger))?);
        }
        Plant::NodeUnknown => *node_id = NodeId::from_bits(NOBODY),
        Plant::NodeSilent => bad.insert(at, like(&first, silent(*home, first.at))),
        Plant::NodeCordoned => {
            let event = Event::NodeSchedulableChanged { node_id: *home, to: Schedulable::Cordoned };
            bad.insert(at, like(&first, event));
        }
        Plant::TaintNotBorne => bad.insert(at, like(&first, tainted(*home))),
        Plant::NotKeptApart => {
            let [labeled, apart] = beside(&*submitted_spec(before, decision, *id)?)?;
            bad.insert(at, like(&first, submission(*id, &labeled)));
            bad.extend(twin(&first, &apart)?);
        }
        Plant::Gated => bad.insert(at, like(&first, gated(*id))),
        Plant::Reserved => bad.insert(at, like(&first, kept_for_another(*home, &first))),
        Plant::StartPutOff => drop(bad.splice(at..at, [1_000, 1_001].map(|in_ms| kept_until(&first, *id, in_ms)))),
        Plant::NodeRemoved => bad.push(like(&first, Event::NodeRemoved { node_id: *home })),
        Plant::PartMissing => {
            part.as_ref()?;
            bad.remove(at);
        }
        Plant::PartMisnumbered => part.as_mut()?.node_rank += 1,
        Plant::PlacedTwice => return Some([decision, std::slice::from_ref(&first)].concat()),
        Plant::NeverSubmitted => *workload_id = WorkloadId::from_bits(NOBODY),
        Plant::RoomKept => bad.insert(at, like(&first, room_kept(&first, &decision[..at], before)?)),
        Plant::StoppedInVain | Plant::StoppedForLess => bad.extend(stopped(plant, &first, *id)),
        Plant::NotAllowed
        | Plant::NotCapped
        | Plant::Overcommitted
        | Plant::GpuUnhealthy
        | Plant::OverQuota
        | Plant::SliceOfOther => {
            bad.insert(at, like(&first, told_otherwise(plant, (*id, *home, held.first()), decision, before)?));
        }
    }
    Some(bad)
}

/// It is stopped for somebody: for nobody, or for one who is not more important.
fn stopped(plant: Plant, first: &EventRecord, id: WorkloadId) -> Vec<EventRecord> {
    let claimed = (plant == Plant::StoppedForLess).then(|| {
        let claim = Claim { places: Vec::new(), victims: vec![id], begins_at: None, reclaims: false };
        Event::RoomClaimed { workload_id: id, claim: Some(Arc::new(claim)), lost_gpu_ms: Vec::new() }
    });
    let (why, grace_s, requeue, regroup) = (WorkloadReason::Preempted, 30, true, false);
    let stopping = Event::WorkloadStopping { workload_id: id, why, grace_s, requeue, regroup, notice: false };
    claimed.into_iter().chain([stopping]).map(|event| like(first, event)).collect()
}

fn silent(node_id: NodeId, last_heard: Timestamp) -> Event {
    Event::NodeLinkChanged { node_id, link: NodeLink::Unreachable, last_heard }
}

fn gated(workload_id: WorkloadId) -> Event {
    Event::WorkloadGated { workload_id, gates: vec!["planted".to_owned()] }
}

/// The node is kept for a tenant that nobody is of.
fn kept_for_another(home: NodeId, first: &EventRecord) -> Event {
    let reservation = Reservation {
        name: "planted".into(),
        tenant: "somebody".into(),
        nodes: vec![home],
        starts_at: first.at,
        ends_at: first.at.plus_ms(1),
        by: "root".into(),
    };
    Event::ReservationSet { reservation: Arc::new(reservation) }
}

/// The node has a taint that nobody bears.
fn tainted(node_id: NodeId) -> Event {
    Event::NodeLabeled { node_id, labels: [("taint/planted".to_owned(), Some("x".to_owned()))].into() }
}

/// The same with a label, and kept apart from that label: it was placed with the one, and somebody comes with the other.
fn beside(spec: &ValidSpec) -> Option<[Arc<ValidSpec>; 2]> {
    let labels = BTreeMap::from([("planted".to_owned(), "x".to_owned())]);
    let anti_affinity = Some(AntiAffinity { labels: labels.clone(), within: None });
    let placement = Some(Placement { anti_affinity, ..Placement::default() });
    let labeled = WorkloadSpec { labels, ..spec.spec().clone() };
    let apart = WorkloadSpec { placement, ..spec.spec().clone() };
    Some([Arc::new(ValidSpec::parse(labeled).ok()?), Arc::new(ValidSpec::parse(apart).ok()?)])
}

/// The same, with no labels and kept apart from nobody.
fn beside_anybody(spec: &Arc<ValidSpec>) -> Arc<ValidSpec> {
    let mut spec = spec.spec().clone();
    spec.labels.clear();
    if let Some(placement) = &mut spec.placement {
        placement.anti_affinity = None;
    }
    Arc::new(ValidSpec::parse(spec).expect("it asks for less"))
}

/// The same placement for somebody else with this specification.
fn twin(first: &EventRecord, spec: &Arc<ValidSpec>) -> Option<[EventRecord; 2]> {
    let mut twin = first.clone();
    let Event::WorkloadPlaced { workload_id, .. } = &mut twin.event else { return None };
    *workload_id = WorkloadId::from_bits(NOBODY);
    Some([like(first, submission(*workload_id, spec)), twin])
}

/// Room there is kept for somebody who comes before.
fn room_kept(first: &EventRecord, decided: &[EventRecord], before: &[EventRecord]) -> Option<Event> {
    let Event::WorkloadPlaced { workload_id: id, node_id, gpus, runtime, .. } = &first.event else { return None };
    gpus.first()?;
    let place = crate::scheduler::Place { node_id: *node_id, gpus: gpus.clone(), runtime: *runtime };
    // When it begins, who runs then may still be there: nobody is let in whose end is not known.
    let begins_at = submitted_spec(before, decided, *id)?
        .spec()
        .max_duration_s
        .is_none()
        .then_some(Timestamp::from_unix_ms(i64::MAX / 4));
    let claim = Claim { places: vec![place], victims: Vec::new(), begins_at, reclaims: false };
    let keeper = more_important(&[before, decided].concat(), *id)?;
    // What two shares leave each other is nobody's loss.
    let milli = |id| Some(submitted_spec(before, decided, id)?.demand().gpu_milli);
    let is_loss = milli(keeper)? + milli(*id)? > GPU_MILLI;
    let (claim, lost_gpu_ms) = (Some(Arc::new(claim)), Vec::new());
    is_loss.then_some(Event::RoomClaimed { workload_id: keeper, claim, lost_gpu_ms })
}

/// Something is kept for one, and begins in so long.
fn kept_until(record: &EventRecord, workload_id: WorkloadId, in_ms: i64) -> EventRecord {
    let begins_at = Some(record.at.plus_ms(in_ms));
    let claim = Claim { places: Vec::new(), victims: Vec::new(), begins_at, reclaims: false };
    like(record, Event::RoomClaimed { workload_id, claim: Some(Arc::new(claim)), lost_gpu_ms: Vec::new() })
}

/// What would have to be known before the placement for it to be wrong.
fn told_otherwise(
    plant: Plant,
    (id, home, held): (WorkloadId, NodeId, Option<&GpuUuid>),
    decision: &[EventRecord],
    before: &[EventRecord],
) -> Option<Event> {
    let spec = submitted_spec(before, decision, id)?;
    match plant {
        Plant::NotAllowed => {
            let placement = Some(Placement { node: Some("elsewhere".into()), ..Placement::default() });
            let wish = ValidSpec::parse(WorkloadSpec { placement, ..spec.spec().clone() }).ok()?;
            Some(submission(id, &Arc::new(wish)))
        }
        Plant::SliceOfOther => {
            let other = with_gpu(&spec, |gpu| match gpu.mig_profile {
                Some(_) => gpu.mig_profile = Some("7g.80gb".into()),
                None => gpu.count = Some(0),
            })?;
            Some(submission(id, &other))
        }
        Plant::NotCapped => {
            spec.demand().capped.then_some(())?;
            reported(before, home, |has| has.gpus.iter_mut().for_each(|gpu| gpu.caps_shares = false))
        }
        Plant::Overcommitted => reported(before, home, |has| has.cpu_millis = 0),
        Plant::GpuUnhealthy => {
            let uuid = held?;
            reported(before, home, |has| {
                if let Some(gpu) = has.gpus.iter_mut().find(|gpu| gpu.uuid == *uuid) {
                    gpu.health = GpuHealth::Failed;
                }
            })
        }
        Plant::OverQuota => {
            held?;
            let most = QuotaAmounts { gpus: Some(0), ..QuotaAmounts::default() };
            Some(Event::QuotaSet { tenant: spec.spec().tenant.clone()?, quota: Quota { most, ..Quota::default() } })
        }
        _ => None,
    }
}

/// What was submitted under this id.
fn submitted_spec(before: &[EventRecord], decision: &[EventRecord], id: WorkloadId) -> Option<Arc<ValidSpec>> {
    before.iter().chain(decision).find_map(|record| match &record.event {
        Event::WorkloadSubmitted { workload_id, spec, .. } if *workload_id == id => Some(Arc::clone(spec)),
        _ => None,
    })
}

fn submission(workload_id: WorkloadId, spec: &Arc<ValidSpec>) -> Event {
    let spec = Arc::clone(spec);
    Event::WorkloadSubmitted { workload_id, name: "planted".into(), spec, env_handle: None }
}

/// The same, with other GPUs; nothing where that is no specification.
fn with_gpu(spec: &Arc<ValidSpec>, change: impl FnOnce(&mut GpuRequest)) -> Option<Arc<ValidSpec>> {
    let mut spec = spec.spec().clone();
    change(spec.gpu.as_mut()?);
    ValidSpec::parse(spec).ok().filter(|valid| valid.demand().gpus > 0).map(Arc::new)
}

/// The node reports something else than it did.
fn reported(before: &[EventRecord], home: NodeId, change: impl FnOnce(&mut NodeCapabilities)) -> Option<Event> {
    let last = before.iter().rev().find_map(|record| match &record.event {
        Event::NodeCapabilitiesReported { node_id, capabilities, .. } if *node_id == home => Some(capabilities),
        _ => None,
    })?;
    let mut capabilities = (**last).clone();
    change(&mut capabilities);
    Some(Event::NodeCapabilitiesReported {
        node_id: home,
        capabilities: Arc::new(capabilities),
        store_id: String::new(),
    })
}

/// Somebody who stands before it in the queue.
fn more_important(before: &[EventRecord], id: WorkloadId) -> Option<WorkloadId> {
    let mut open: BTreeMap<WorkloadId, u32> = BTreeMap::new();
    for record in before {
        match &record.event {
            Event::WorkloadSubmitted { workload_id, spec, .. } => {
                open.insert(*workload_id, spec.priority().value());
            }
            Event::WorkloadEnded { workload_id, .. } => drop(open.remove(workload_id)),
            _ => {}
        }
    }
    let own = open.get(&id).copied();
    open.into_iter().find(|(other, priority)| *other != id && own.is_some_and(|own| *priority > own)).map(|(id, _)| id)
}

fn is_right(plant: Plant, wrong: &Wrong) -> bool {
    match plant {
        Plant::GpuMissing | Plant::GpuTwice | Plant::SliceOfOther | Plant::NotCapped => {
            matches!(wrong, Wrong::OtherGpus(_))
        }
        Plant::GpuOfAnother | Plant::GpuUnknown | Plant::GpuUnhealthy => matches!(wrong, Wrong::NoSuchGpu(..)),
        Plant::GpuTaken | Plant::ShareTooLarge => matches!(wrong, Wrong::DoubleBooked(..)),
        Plant::NodeUnknown | Plant::NodeSilent | Plant::NodeCordoned => matches!(wrong, Wrong::NoSuchNode(..)),
        Plant::NodeRemoved => matches!(wrong, Wrong::NodeInUse(_)),
        Plant::PartMissing | Plant::PartMisnumbered => matches!(wrong, Wrong::GangIncomplete(_)),
        // The same GPUs again; without GPUs it is one part too many.
        Plant::PlacedTwice => matches!(wrong, Wrong::DoubleBooked(..) | Wrong::GangIncomplete(_)),
        Plant::NeverSubmitted => matches!(wrong, Wrong::DoesNotWait(_)),
        Plant::RoomKept => matches!(wrong, Wrong::RoomTaken(..)),
        Plant::StoppedInVain | Plant::StoppedForLess => matches!(wrong, Wrong::StoppedWithoutRight(_)),
        Plant::NotAllowed | Plant::TaintNotBorne => matches!(wrong, Wrong::NotAllowed(..)),
        Plant::NotKeptApart => matches!(wrong, Wrong::NotKeptApart(..)),
        Plant::Gated => matches!(wrong, Wrong::Gated(_)),
        Plant::Overcommitted => matches!(wrong, Wrong::Overcommitted(..)),
        Plant::OverQuota => matches!(wrong, Wrong::OverQuota(..)),
        Plant::Reserved => matches!(wrong, Wrong::Reserved(..)),
        Plant::StartPutOff => matches!(wrong, Wrong::StartPutOff(_)),
    }
}

#[test]
fn kinds_of_planted_faults_are_all_found() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let mut n_found: BTreeMap<Plant, u32> = BTreeMap::new();
    for _ in 0..60 {
        let history = prop::collection::vec(moves(), 30..50).new_tree(&mut runner).unwrap().current();
        let mut f = Fleet::with_slices(2);
        let mut auditor = f.auditor.clone();
        for m in &history {
            let n_before = f.journal.len();
            play(&mut f, m);
            let (before, news) = f.journal.split_at(n_before);
            // A move may be several decisions; only those that are one are planted into.
            if auditor.clone().check(news).is_ok() {
                for plant in ALL {
                    let Some(bad) = planted(plant, news, before) else { continue };
                    let wrong = auditor.clone().check(&bad).expect_err(&format!("{plant:?} in {news:?}"));
                    assert!(is_right(plant, &wrong), "{plant:?} is taken for {wrong}");
                    *n_found.entry(plant).or_default() += 1;
                }
            }
            auditor = f.auditor.clone();
        }
    }
    assert!(ALL.iter().all(|plant| n_found.get(plant).is_some_and(|n| *n >= 5)), "{n_found:?}");
}

/// Where nobody may be stopped more often than never, the first stop is one too many.
#[test]
fn a_stop_too_many_is_found() {
    let mut f = Fleet::with_nodes(1);
    let cheap = WorkloadSpec { preemptible: Some(true), priority: Some(Priority::Low), ..spec(8) };
    let id = f.submit(cheap).workload_id.unwrap();
    f.report(id, NodeWorkloadState::Running, StatusCause::Progress, None);
    f.pass(61);
    let n_before = f.journal.len();
    f.submit(with_priority(8, Priority::Critical));
    let (before, news) = f.journal.split_at(n_before);
    let judged = |per_day_max| {
        let mut auditor = Auditor::new(per_day_max);
        auditor.check(before).and_then(|()| auditor.check(news))
    };
    assert_eq!((judged(1), judged(0)), (Ok(()), Err(Wrong::StoppedTooOften(id))));
}

/// What is to be trusted is read before it is: each checker of certificates, with all that it counts, has three
/// hundred lines at most.
#[test]
fn checkers_of_certificates_are_short() {
    let of_events = [include_str!("../../audit/certificate.rs"), include_str!("../../audit/quotas.rs")];
    let of_jobs = [include_str!("../../scheduler/certificate/checker.rs")];
    for parts in [&of_events[..], &of_jobs[..]] {
        let n_lines: usize = parts.iter().map(|part| part.lines().count()).sum();
        assert!(n_lines <= 300, "{n_lines} lines");
    }
}
