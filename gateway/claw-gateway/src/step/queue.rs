//! Trying those that wait: who gets a place, who makes room for whom, and who keeps what becomes free.

use std::collections::BTreeSet;
use std::sync::Arc;

use claw_proto::ids::WorkloadId;
use claw_tools::nodes::NodeLink;
use claw_tools::reservations::Reservation;
use claw_tools::workloads::{PlacementReport, WorkloadReason, WorkloadState};

use super::follow::partition_lease_end;
use super::notice;
use super::work::Work;
use crate::Cluster;
use crate::effect::Effect;
use crate::event::Event;
use crate::preemption;
use crate::reservations::keeps_out;
use crate::scheduler::apart::are_asked_alike;
use crate::scheduler::{self, Trial};
use crate::tenancy::{self, Turn, Turns};
use crate::workload::{Claim, WorkloadEntry, ends_by};

/// So many kinds of those that have waited long are looked at for a reservation at most.
const RESERVE_TRIED_MAX: usize = 8;

/// Tries those that wait in their turn; the same shape is tried once.
pub(super) fn schedule(work: &mut Work<'_>, queue: Vec<WorkloadId>) {
    let mut turns = Turns::of(work.state, queue, work.now());
    // Whether waiting helps them, and the highest priority for which no room could be made.
    let mut hopeless: Vec<(Arc<WorkloadEntry>, bool, u32)> = Vec::new();
    while let Some(turn) = turns.next(work.state) {
        let id = match turn {
            Turn::Try(id) => id,
            Turn::Blocked(id, report) => {
                wait_for_quota(work, id, report);
                continue;
            }
        };
        let Some(entry) = work.state.workloads.get(id).cloned() else {
            continue;
        };
        if entry.state != WorkloadState::Pending {
            continue;
        }
        if let Some(why) = entry.held_back(work.now()) {
            wait(work, &entry, why);
            continue;
        }
        let priority = entry.spec.priority().value();
        // Room that is kept from one may be another's who stands before whom it is kept for.
        let has_claims = work.state.workloads.has_claims();
        let tells = |tried: &WorkloadEntry| {
            scheduler::same_shape(&tried.spec, &entry.spec)
                && (!has_claims || tried.outranks(&entry))
                && stand_alike(work.state, tried, &entry)
        };
        let known = hopeless.iter().find(|(tried, ..)| tells(tried));
        // Another tenant may take back what it is guaranteed where this one may not.
        let has_tenants = !work.state.tenants.is_empty();
        let of_its = |tried: &WorkloadEntry| !has_tenants || tried.spec.spec().tenant == entry.spec.spec().tenant;
        let in_vain = hopeless.iter().any(|(tried, _, at)| {
            *at >= priority
                && of_its(tried)
                && scheduler::same_shape(&tried.spec, &entry.spec)
                && stand_alike(work.state, tried, &entry)
        });
        let is_told = known.is_some();
        let trial = match known {
            Some((_, waiting_helps, _)) => Trial::Wait { waiting_helps: *waiting_helps },
            None => scheduler::attempt(work.state, &entry),
        };
        match trial {
            Trial::Place((places, report)) => {
                turns.taken(&entry);
                let (id, placed) = (entry.workload_id, scheduler::placements(&entry, places, &report));
                // Nobody else holds it then, and it is changed where it lies.
                drop(entry);
                place(work, id, placed);
            }
            Trial::Wait { waiting_helps } => {
                if !in_vain && make_room(work, &entry) {
                    turns.taken(&entry);
                } else {
                    let may_help = waiting_helps || work.state.nodes.is_empty();
                    let why = if may_help { WorkloadReason::NoRoom } else { WorkloadReason::NoSuitableNode };
                    wait(work, &entry, why);
                    // Who was told by another tells no more than that one.
                    if !(is_told && in_vain) {
                        hopeless.push((entry, waiting_helps, priority));
                    }
                }
            }
        }
    }
}

/// They are of one tenant, and last as long at most.
fn have_the_same_rights(a: &WorkloadEntry, b: &WorkloadEntry) -> bool {
    let lasts = |w: &WorkloadEntry| (w.spec.spec().max_duration_s, w.spec.grace_s());
    lasts(a) == lasts(b) && a.spec.spec().tenant == b.spec.spec().tenant
}

/// What is kept keeps both of them out, or neither: by their tenants, and by when they will have ended.
fn stand_alike(state: &Cluster, a: &WorkloadEntry, b: &WorkloadEntry) -> bool {
    if !are_asked_alike(state, a, b) {
        return false;
    }
    let is_kept = state.workloads.has_claims() || !state.reservations.is_empty();
    if !is_kept || have_the_same_rights(a, b) {
        return true;
    }
    let is_its =
        |w: &WorkloadEntry, kept: &Reservation| state.tenants.counts_for(w.spec.spec().tenant.as_deref(), &kept.tenant);
    let kept_alike = |kept: &Arc<Reservation>| {
        is_its(a, kept) == is_its(b, kept) && keeps_out(state, kept, &a.spec) == keeps_out(state, kept, &b.spec)
    };
    if !state.reservations.iter().all(kept_alike) {
        return false;
    }
    let is_one_tenant = a.spec.spec().tenant == b.spec.spec().tenant;
    let (a, b) = (ends_by(&a.spec, state.clock), ends_by(&b.spec, state.clock));
    let alike = |claim: &Arc<Claim>| (is_one_tenant || !claim.reclaims) && claim.lets_in(a) == claim.lets_in(b);
    state.workloads.claimants_all().into_iter().filter_map(|w| w.claim.as_ref()).all(alike)
}

/// Stops less important work for it, if that makes all of its place; or keeps
/// the room that is being made already.
fn make_room(work: &mut Work<'_>, entry: &WorkloadEntry) -> bool {
    if let Some(claim) = &entry.claim {
        let mut leaving =
            claim.victims.iter().filter_map(|id| work.state.workloads.get(*id)).filter(|w| w.live().is_some());
        let is_waited_for = leaving.clone().next().is_some() && leaving.all(|w| will_have_ended(work.state, w));
        if is_waited_for {
            return true;
        }
        if !claim.victims.is_empty() {
            // They have left and still it does not fit, for a node went away or somebody before it came; or
            // one of them is cut off and keeps running, for nobody knows how long.
            give_up_claim(work, entry.workload_id);
        }
    }
    let Some((claim, victims)) = preemption::plan(work.state, entry, work.now()) else {
        return work.state.workloads.get(entry.workload_id).is_some_and(|w| w.claim.is_some());
    };
    let lost_gpu_ms = victims.iter().map(|victim| victim.lost_gpu_ms).collect();
    let workload_id = entry.workload_id;
    work.emit(Event::RoomClaimed { workload_id, claim: Some(Arc::new(claim)), lost_gpu_ms });
    for victim in victims {
        let Some(w) = work.state.workloads.get(victim.workload_id).cloned() else {
            continue;
        };
        notice::send_away(work, &w, WorkloadReason::Preempted);
    }
    true
}

/// Who is told to end will be known to have ended: each of its nodes answers, or stops it when cut off.
fn will_have_ended(state: &Cluster, w: &WorkloadEntry) -> bool {
    let nodes = w.lives().filter_map(|live| state.nodes.get(live.node_id));
    nodes.into_iter().all(|node| node.link == NodeLink::Online || partition_lease_end(state, node, w).is_some())
}

fn give_up_claim(work: &mut Work<'_>, workload_id: WorkloadId) {
    work.gave_up_claims = true;
    work.emit(Event::RoomClaimed { workload_id, claim: None, lost_gpu_ms: Vec::new() });
}

/// What was kept and cannot be had any more is given up; what begins earlier is told so.
pub(super) fn look_at_reserved(work: &mut Work<'_>) {
    let now = work.now();
    for kept in work.state.workloads.reserved() {
        let stands = |claim: &Arc<Claim>| scheduler::reserve::stands(work.state, &kept, claim, now);
        if kept.claim.as_ref().is_some_and(stands) {
            begins_earlier(work, &kept);
        } else {
            give_up_claim(work, kept.workload_id);
        }
    }
}

/// Those of the queue that have waited long keep what becomes free next, in its order, each on nodes of its own and
/// only so many.
pub(super) fn reserve(work: &mut Work<'_>) {
    let (now, after_ms) = (work.now(), work.state.policy.reserve_after_ms);
    let most = work.state.policy.reservations_max;
    let waits_long = |w: &Arc<WorkloadEntry>| {
        w.reason == WorkloadReason::NoRoom && w.claim.is_none() && now.ms_since(w.since) >= after_ms
    };
    let mut tried = Vec::<Arc<WorkloadEntry>>::new();
    let mut reserved = work.state.workloads.reserved();
    let queue: Vec<WorkloadId> = if most > 0 { work.state.workloads.queue().collect() } else { Vec::new() };
    for id in queue {
        let Some(entry) = work.state.workloads.get(id).cloned().filter(waits_long) else { continue };
        let last = reserved.last().filter(|_| reserved.len() >= most);
        // Where so many have theirs, the last of them gives way to one before it.
        if tried.len() >= RESERVE_TRIED_MAX || last.is_some_and(|last| !entry.outranks(last)) {
            break;
        }
        let alike = |earlier: &Arc<WorkloadEntry>| {
            scheduler::same_shape(&earlier.spec, &entry.spec)
                && have_the_same_rights(earlier, &entry)
                && are_asked_alike(work.state, earlier, &entry)
        };
        // What its tenant may not have is kept in vain.
        if tried.iter().any(alike) || tenancy::blocked(work.state, &entry.spec, Some(&entry)).is_some() {
            continue;
        }
        let Some(claim) = scheduler::reserve::plan(work.state, &entry, now) else {
            // Of one it is not known when it fits: then the next, who goes behind it all the same.
            tried.push(entry);
            continue;
        };
        // Who stands behind it has to look for another place; its turn comes below.
        let mut behind = scheduler::reserve::kept_behind(work.state, &entry, &claim);
        if behind.is_empty() {
            behind.extend(last.map(|last| last.workload_id));
        }
        for id in behind {
            give_up_claim(work, id);
        }
        work.emit(Event::RoomClaimed { workload_id: id, claim: Some(Arc::new(claim)), lost_gpu_ms: Vec::new() });
        reserved = work.state.workloads.reserved();
    }
}

/// What ran where room is kept has ended early: who is let in until it begins has to end earlier as well.
fn begins_earlier(work: &mut Work<'_>, kept: &WorkloadEntry) {
    let Some(claim) = &kept.claim else { return };
    let begins_at = scheduler::reserve::begins_at(work.state, claim, work.now());
    if begins_at.zip(claim.begins_at).is_some_and(|(now, told)| now < told) {
        let claim = Some(Arc::new(Claim { begins_at, ..(**claim).clone() }));
        work.emit(Event::RoomClaimed { workload_id: kept.workload_id, claim, lost_gpu_ms: Vec::new() });
    }
}

/// All parts at once: the events of one command are journaled together or not at all.
fn place(work: &mut Work<'_>, workload_id: WorkloadId, placements: Vec<Event>) {
    for placed in placements {
        work.emit(placed);
    }
    let Some(placed) = work.state.workloads.get(workload_id).cloned() else {
        return;
    };
    for part in placed.lives() {
        let (node_id, attempt) = (part.node_id, part.attempt);
        let generation = work.state.nodes.get(node_id).map(|n| n.generation(work.state.epoch)).unwrap_or_default();
        work.effect(Effect::StartWorkload { node_id, workload_id, attempt, generation });
    }
    if work.state.workloads.has_claims() {
        give_up_what_begins_later(work, &placed);
    }
}

/// Who went before others onto what is kept for them, and may be there still when these were to begin: that would be
/// kept for a time that nobody told.
fn give_up_what_begins_later(work: &mut Work<'_>, placed: &WorkloadEntry) {
    let now = work.now();
    let claimants = placed.lives().flat_map(|part| work.state.workloads.claimants_on(part.node_id));
    let is_late = |w: &&Arc<WorkloadEntry>| scheduler::reserve::is_put_off(work.state, w, placed, now);
    let late: BTreeSet<WorkloadId> = claimants.filter(is_late).map(|w| w.workload_id).collect();
    for id in late {
        give_up_claim(work, id);
    }
}

/// Its tenant has what it may have: it waits, and keeps no room from others.
fn wait_for_quota(work: &mut Work<'_>, id: WorkloadId, report: Arc<PlacementReport>) {
    let Some(entry) = work.state.workloads.get(id).cloned().filter(|w| w.state == WorkloadState::Pending) else {
        return;
    };
    if entry.claim.is_some() {
        give_up_claim(work, id);
    }
    let why = WorkloadReason::QuotaExceeded;
    if entry.reason != why || entry.claim.is_some() {
        work.emit(Event::WorkloadWaits { workload_id: id, why, report: Some(report) });
    }
}

fn wait(work: &mut Work<'_>, entry: &WorkloadEntry, why: WorkloadReason) {
    // Only a change of reason is an event: the numbers are asked for with `workload_explain`.
    if entry.reason != why {
        let is_held_back = matches!(why, WorkloadReason::NotBefore | WorkloadReason::Gated);
        let report = (!is_held_back).then(|| scheduler::why_it_waits(work.state, entry));
        work.emit(Event::WorkloadWaits { workload_id: entry.workload_id, why, report });
    }
}
