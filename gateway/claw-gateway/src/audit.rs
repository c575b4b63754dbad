//! Decisions of the gateway, checked by their events alone: the events are the certificate.
//!
//! [`Auditor`] keeps books of its own, of nodes, GPUs, claims and what runs, and
//! shares no code with whoever decided. It accepts a decision only if each gang is
//! placed whole, where its specification allows, on GPUs that are there, healthy and
//! free, within the node's cores, memory and disk and within what its tenant and those
//! above may hold; if nothing takes room that is kept for
//! work before it, or a node that is kept for another tenant; and if nobody is stopped for others who did not agree to it, is not
//! less important, was stopped too often, or has had neither its grace nor said that its
//! checkpoint is written. The seeded simulation and the property
//! tests run it on every decision.

mod notices;
mod quotas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::ids::{Attempt, GpuUuid, NodeId, WorkloadId};
use claw_proto::spec::{AntiAffinity, TopologyDomain};
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuHealth, GpuInfo, NodeCapabilities};
use claw_proto::validation::{Demand, ValidSpec};
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::reservations::Reservation;
use claw_tools::workloads::WorkloadReason;

use self::notices::Notices;
use self::quotas::Quotas;
use crate::event::{Event, EventRecord};
use crate::workload::Part;

/// A day, milliseconds.
const DAY_MS: i64 = 86_400_000;

/// Why a decision is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Wrong {
    /// Nobody submitted it, or it has ended.
    #[error("{0} is placed and does not wait")]
    DoesNotWait(WorkloadId),
    /// The node is unknown, not heard from, or takes no work.
    #[error("{0} goes to {1}, which takes no work")]
    NoSuchNode(WorkloadId, NodeId),
    /// The specification names another node, zone or label.
    #[error("{0} goes to {1}, where its specification does not let it")]
    NotAllowed(WorkloadId, NodeId),
    /// A gate of it is closed.
    #[error("{0} is placed although a gate of it is closed")]
    Gated(WorkloadId),
    /// Work is there or near from which one of the two was to be kept apart.
    #[error("{0} is placed and not kept apart from {1}")]
    NotKeptApart(WorkloadId, WorkloadId),
    /// The node has no such GPU to give, or it is not healthy.
    #[error("{0} gets {1}, which is not there to give")]
    NoSuchGpu(WorkloadId, GpuUuid),
    /// More or fewer GPUs than it asks for, one of them twice, or others than it asks for.
    #[error("{0} gets other GPUs than it asks for")]
    OtherGpus(WorkloadId),
    /// The GPU has a user already, or less of it is left than a share needs.
    #[error("{0} gets {1}, which has a user")]
    DoubleBooked(WorkloadId, GpuUuid),
    /// Its cores, memory or disk do not suffice.
    #[error("{0} goes to {1}, which has no room for it")]
    Overcommitted(WorkloadId, NodeId),
    /// Its tenant, or one that this is a part of, has what it may have.
    #[error("{0} is placed beyond what {1} may hold")]
    OverQuota(WorkloadId, String),
    /// The node is kept for another tenant.
    #[error("{0} goes to {1}, which is kept for another tenant")]
    Reserved(WorkloadId, NodeId),
    /// Parts are missing, stand on one node, or are counted wrongly.
    #[error("{0} is not placed as a whole")]
    GangIncomplete(WorkloadId),
    /// The room is kept for work that comes before it.
    #[error("{0} takes room that is kept for {1}")]
    RoomTaken(WorkloadId, WorkloadId),
    /// Nobody needs its room, or it did not agree, or it is not less important.
    #[error("{0} is stopped for others without right")]
    StoppedWithoutRight(WorkloadId),
    /// It was stopped for others too often within a day.
    #[error("{0} is stopped for others too often")]
    StoppedTooOften(WorkloadId),
    /// It is stopped for others before it said that its checkpoint is written, and before its grace is over.
    #[error("{0} is stopped for others before its answer and its grace")]
    StoppedTooEarly(WorkloadId),
    /// It tells of its checkpoints, and is stopped for others without being told to write one.
    #[error("{0} is stopped for others without notice")]
    NotNoticed(WorkloadId),
    /// What is kept for it would begin later than it was told, though it was not given up.
    #[error("the start that is kept for {0} is put off")]
    StartPutOff(WorkloadId),
    /// Something runs there.
    #[error("{0} is removed while work runs there")]
    NodeInUse(NodeId),
}

#[derive(Debug, Clone, Default)]
struct Node {
    name: String,
    labels: BTreeMap<String, String>,
    capabilities: Option<Arc<NodeCapabilities>>,
    is_online: bool,
    is_active: bool,
    /// Cores in thousandths, memory and disk in MiB.
    used: [u64; 3],
    n_parts: usize,
}

#[derive(Debug, Clone)]
struct Work {
    spec: Arc<ValidSpec>,
    /// A gate of it is closed.
    is_gated: bool,
    order: usize,
    parts: BTreeMap<Attempt, (NodeId, Vec<GpuUuid>)>,
    claimed: BTreeSet<GpuUuid>,
    /// Until then who has ended may have what is claimed.
    begins_at: Option<Timestamp>,
    /// It takes back what its tenant is guaranteed.
    reclaims: bool,
    stopped_at: Vec<Timestamp>,
    /// It is stopped for somebody and still there.
    leaves: bool,
    notices: Notices,
}

impl Work {
    /// Work that begins now will have ended when this one begins, whatever comes.
    fn begins_after(&self, other: &Self, now: Timestamp) -> bool {
        let lasts_s = other.spec.spec().max_duration_s.map(|s| s.saturating_add(other.spec.grace_s().into()));
        let lasts_ms = lasts_s.and_then(|s| i64::try_from(s.saturating_mul(1_000)).ok());
        self.begins_at.zip(lasts_ms).is_some_and(|(at, ms)| at.ms_since(now) >= ms)
    }

    fn comes_before(&self, other: &Self) -> bool {
        let place = |work: &Self| (std::cmp::Reverse(work.spec.priority().value()), work.order);
        place(self) < place(other)
    }
}

/// The books. After a decision that is wrong they are of no more use.
#[derive(Debug, Clone, Default)]
pub struct Auditor {
    nodes: BTreeMap<NodeId, Node>,
    works: BTreeMap<WorkloadId, Work>,
    /// Who has how much of each GPU, thousandths.
    holders: BTreeMap<GpuUuid, BTreeMap<WorkloadId, u32>>,
    n_submitted: usize,
    /// Those that are to be kept apart from others.
    apart: BTreeSet<WorkloadId>,
    /// Those for whom room is kept.
    claimants: BTreeSet<WorkloadId>,
    quotas: Quotas,
    reservations: BTreeMap<String, Arc<Reservation>>,
    /// The latest instant of all events: a wall clock may go back.
    clock: Timestamp,
    /// Nobody is stopped for others more often in a day.
    per_day_max: usize,
}

/// What one decision places, and for whom it stops others.
#[derive(Debug, Default)]
struct Decided {
    placed: BTreeMap<WorkloadId, Vec<(NodeId, Option<Part>)>>,
    /// Victims, with those that they leave for.
    victims: BTreeMap<WorkloadId, WorkloadId>,
}

fn three(demand: &Demand) -> [u64; 3] {
    [demand.cpu_millis, demand.memory_mib, demand.disk_mib]
}

/// Journaled events by the decisions that they are of: all that one decision says has one time and one cause. Two
/// decisions of one caller within a millisecond are not told apart.
pub fn decisions(records: &[EventRecord]) -> impl Iterator<Item = &[EventRecord]> {
    records.chunk_by(|a, b| (a.at, &a.principal) == (b.at, &b.principal))
}

impl Auditor {
    /// Empty books of a fleet where nobody is stopped for others more often than so in a day.
    pub fn new(per_day_max: usize) -> Self {
        Self { per_day_max, ..Self::default() }
    }

    /// Takes the events of one decision into the books.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&mut self, decision: &[EventRecord]) -> Result<(), Wrong> {
        let mut decided = Decided::default();
        for record in decision {
            self.node_event(&record.event)?;
            self.clock = self.clock.max(record.at);
            self.quotas.event(&record.event);
            self.reservation_event(&record.event);
            self.notice_event(record)?;
            self.work_event(record, &mut decided)?;
        }
        decided.placed.iter().try_for_each(|(id, parts)| self.whole(*id, parts))
    }

    fn reservation_event(&mut self, event: &Event) {
        match event {
            Event::ReservationSet { reservation } => {
                self.reservations.insert(reservation.name.clone(), Arc::clone(reservation));
            }
            Event::ReservationEnded { name } => drop(self.reservations.remove(name)),
            _ => {}
        }
    }

    /// Nobody else has a right to this node while the work may last.
    fn is_reserved(&self, node_id: NodeId, spec: &ValidSpec, at: Timestamp) -> bool {
        let tenant = spec.spec().tenant.as_deref();
        // A program has its grace after its limit.
        let limit_s = spec.spec().max_duration_s.map(|limit_s| i128::from(limit_s) + i128::from(spec.grace_s()));
        self.reservations.values().any(|kept| {
            let is_over = at >= kept.ends_at;
            let room_ms = kept.starts_at.ms_since(at);
            let ends_before = limit_s.is_some_and(|s| s * 1_000 <= i128::from(room_ms));
            kept.nodes.contains(&node_id) && !is_over && !ends_before && !self.quotas.is_part(tenant, &kept.tenant)
        })
    }

    fn node_event(&mut self, event: &Event) -> Result<(), Wrong> {
        match event {
            Event::NodeEnrolled { node_id, name, labels, .. } => {
                let node = Node { name: name.clone(), labels: labels.clone(), is_active: true, ..Node::default() };
                self.nodes.insert(*node_id, node);
            }
            Event::NodeCapabilitiesReported { node_id, capabilities, .. } => {
                let Some(node) = self.nodes.get_mut(node_id) else { return Ok(()) };
                let before = node.capabilities.replace(Arc::clone(capabilities));
                for (key, value) in &capabilities.labels {
                    // What was said before may have been changed here since.
                    if before.as_ref().is_none_or(|before| !before.labels.contains_key(key)) {
                        node.labels.entry(key.clone()).or_insert_with(|| value.clone());
                    }
                }
            }
            Event::NodeLinkChanged { node_id, link, .. } => {
                if let Some(node) = self.nodes.get_mut(node_id) {
                    node.is_online = *link == NodeLink::Online;
                }
            }
            Event::NodeSchedulableChanged { node_id, to } => {
                if let Some(node) = self.nodes.get_mut(node_id) {
                    node.is_active = *to == Schedulable::Active;
                }
            }
            Event::NodeLabeled { node_id, labels } => {
                let Some(node) = self.nodes.get_mut(node_id) else { return Ok(()) };
                for (key, value) in labels {
                    match value {
                        Some(value) => node.labels.insert(key.clone(), value.clone()),
                        None => node.labels.remove(key),
                    };
                }
            }
            Event::NodeRemoved { node_id } => {
                let gone = self.nodes.remove(node_id);
                if gone.is_some_and(|node| node.n_parts > 0) {
                    return Err(Wrong::NodeInUse(*node_id));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn work_event(&mut self, record: &EventRecord, decided: &mut Decided) -> Result<(), Wrong> {
        match &record.event {
            Event::WorkloadSubmitted { workload_id, spec, .. } => {
                let (parts, claimed, stopped_at) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
                let (begins_at, reclaims, leaves) = (None, false, false);
                let is_gated = !spec.spec().gates.is_empty();
                let (notices, order) = (Notices::default(), self.n_submitted);
                let spec = Arc::clone(spec);
                let work =
                    Work { spec, is_gated, order, parts, claimed, begins_at, reclaims, stopped_at, leaves, notices };
                self.n_submitted += 1;
                if asks(&work).is_some() {
                    self.apart.insert(*workload_id);
                }
                self.works.insert(*workload_id, work);
            }
            Event::WorkloadGated { workload_id, gates } => {
                let Some(work) = self.works.get_mut(workload_id) else { return Ok(()) };
                work.is_gated = !gates.is_empty();
                if work.is_gated {
                    (work.claimed, work.begins_at, work.reclaims) = (BTreeSet::new(), None, false);
                }
            }
            Event::WorkloadPlaced { workload_id, attempt, node_id, gpus, part, .. } => {
                let earlier = decided.placed.entry(*workload_id).or_default();
                let spec = self.works.get(workload_id).map(|work| &work.spec);
                if spec.is_some_and(|spec| self.is_reserved(*node_id, spec, self.clock)) {
                    return Err(Wrong::Reserved(*workload_id, *node_id));
                }
                self.place(*workload_id, *attempt, (*node_id, gpus), earlier.is_empty())?;
                earlier.push((*node_id, *part));
            }
            Event::AttemptEnded { workload_id, attempt, .. } => self.end(*workload_id, *attempt),
            Event::WorkloadEnded { workload_id, .. } => {
                self.works.remove(workload_id);
                self.apart.remove(workload_id);
                self.claimants.remove(workload_id);
            }
            Event::RoomClaimed { workload_id, claim, .. } => {
                let Some(work) = self.works.get_mut(workload_id) else { return Ok(()) };
                let places = claim.iter().flat_map(|claim| &claim.places);
                work.claimed = places.flat_map(|place| place.gpus.iter().cloned()).collect();
                let told = std::mem::replace(&mut work.begins_at, claim.as_ref().and_then(|claim| claim.begins_at));
                if told.zip(work.begins_at).is_some_and(|(told, now)| now > told) {
                    return Err(Wrong::StartPutOff(*workload_id));
                }
                work.reclaims = claim.as_ref().is_some_and(|claim| claim.reclaims);
                self.claimants.insert(*workload_id);
                let victims = claim.iter().flat_map(|claim| &claim.victims);
                decided.victims.extend(victims.map(|victim| (*victim, *workload_id)));
            }
            Event::WorkloadStopping { workload_id, why: WorkloadReason::Preempted, .. } => {
                self.preempted(*workload_id, decided.victims.get(workload_id), record.at)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn place(&mut self, id: WorkloadId, attempt: Attempt, at: (NodeId, &[GpuUuid]), first: bool) -> Result<(), Wrong> {
        let (node_id, gpus) = at;
        let waits = |work: &&Work| !first || work.parts.is_empty();
        let work = self.works.get(&id).filter(waits).ok_or(Wrong::DoesNotWait(id))?;
        if work.is_gated {
            return Err(Wrong::Gated(id));
        }
        let takes = |node: &&Node| node.is_online && node.is_active;
        let node = self.nodes.get(&node_id).filter(takes).ok_or(Wrong::NoSuchNode(id, node_id))?;
        if !is_allowed(&work.spec, node_id, node) {
            return Err(Wrong::NotAllowed(id, node_id));
        }
        if let Some(near) = self.near(id, work, node) {
            return Err(Wrong::NotKeptApart(id, near));
        }
        let capabilities = node.capabilities.as_deref().ok_or(Wrong::NoSuchNode(id, node_id))?;
        let demand = work.spec.node_demand();
        let mut taken: Vec<&GpuInfo> = Vec::new();
        for gpu in gpus {
            let is_it = |listed: &&GpuInfo| listed.uuid == *gpu && listed.health == GpuHealth::Healthy;
            taken.push(capabilities.given_gpus().find(is_it).ok_or_else(|| Wrong::NoSuchGpu(id, gpu.clone()))?);
            let used: u32 = self.holders.get(gpu).map_or(0, |holders| holders.values().sum());
            let left = 1_000_u32.saturating_sub(used);
            if u32::from(demand.gpu_milli) > left {
                return Err(Wrong::DoubleBooked(id, gpu.clone()));
            }
            let borrows = |kept: &Work| {
                let is_less = work.spec.priority().value() <= kept.spec.priority().value();
                kept.reclaims && is_less && !self.quotas.is_within(&work.spec)
            };
            let keeps = |(other, kept): &(&WorkloadId, &Work)| {
                let before = kept.comes_before(work) || borrows(kept);
                **other != id && kept.claimed.contains(gpu) && before && !kept.begins_after(work, self.clock)
            };
            let claimants = || self.claimants.iter().filter_map(|id| self.works.get_key_value(id));
            let kept = || claimants().filter(keeps);
            let kept_milli: u32 = kept().map(|(_, kept)| u32::from(kept.spec.demand().gpu_milli)).sum();
            if let Some((other, _)) = kept().next()
                && u32::from(demand.gpu_milli) + kept_milli > left
            {
                return Err(Wrong::RoomTaken(id, *other));
            }
        }
        if !are_asked_for(demand, &taken) {
            return Err(Wrong::OtherGpus(id));
        }
        let used: Vec<u64> = node.used.iter().zip(three(demand)).map(|(used, more)| used + more).collect();
        let has = [capabilities.cpu_millis, capabilities.memory_mib, capabilities.disk_mib];
        if used.iter().zip(has).any(|(used, has)| *used > has) {
            return Err(Wrong::Overcommitted(id, node_id));
        }
        let tenant = work.spec.spec().tenant.clone();
        if let Some(over) = self.quotas.take(tenant.as_deref(), demand) {
            return Err(Wrong::OverQuota(id, over));
        }
        let milli = u32::from(demand.gpu_milli);
        self.count(node_id, &three(demand), true);
        for gpu in gpus {
            self.holders.entry(gpu.clone()).or_default().insert(id, milli);
        }
        self.claimants.remove(&id);
        if let Some(work) = self.works.get_mut(&id) {
            work.claimed.clear();
            work.parts.insert(attempt, (node_id, gpus.to_vec()));
        }
        Ok(())
    }

    /// Somebody on this node, or in its rack or zone, that this work is to be kept apart from there, or who is from it.
    fn near(&self, id: WorkloadId, work: &Work, node: &Node) -> Option<WorkloadId> {
        let is_near = |other: &Work, within: TopologyDomain| {
            let mut nodes = other.parts.values().filter_map(|(node_id, _)| self.nodes.get(node_id));
            nodes.any(|there| are_near(node, there, within))
        };
        let in_the_way = |other: &Work| {
            let is_one_tenant = work.spec.spec().tenant == other.spec.spec().tenant;
            let mut asked = [asked(work, other), asked(other, work).filter(|_| is_one_tenant)].into_iter().flatten();
            asked.any(|within| is_near(other, within))
        };
        // Who asks nothing is kept apart from those alone that do.
        let mut works: Box<dyn Iterator<Item = (&WorkloadId, &Work)>> = match asks(work) {
            Some(_) => Box::new(self.works.iter()),
            None => Box::new(self.apart.iter().filter_map(|id| self.works.get_key_value(id))),
        };
        works.find(|(other, there)| **other != id && in_the_way(there)).map(|(other, _)| *other)
    }

    fn count(&mut self, node_id: NodeId, demand: &[u64; 3], more: bool) {
        let Some(node) = self.nodes.get_mut(&node_id) else { return };
        for (used, demand) in node.used.iter_mut().zip(demand) {
            *used = if more { *used + demand } else { used.saturating_sub(*demand) };
        }
        node.n_parts = if more { node.n_parts + 1 } else { node.n_parts.saturating_sub(1) };
    }

    fn end(&mut self, id: WorkloadId, attempt: Attempt) {
        // How one that was given up really ended is told, too: it holds nothing any more.
        let Some(work) = self.works.get_mut(&id) else { return };
        let Some((node_id, gpus)) = work.parts.remove(&attempt) else { return };
        work.leaves &= !work.parts.is_empty();
        let demand = three(work.spec.node_demand());
        self.quotas.give(work.spec.spec().tenant.as_deref(), work.spec.node_demand());
        self.count(node_id, &demand, false);
        for gpu in gpus {
            if let Some(holders) = self.holders.get_mut(&gpu) {
                holders.remove(&id);
            }
        }
    }

    fn whole(&self, id: WorkloadId, parts: &[(NodeId, Option<Part>)]) -> Result<(), Wrong> {
        let n_nodes = self.works.get(&id).map_or(0, |work| work.spec.nodes());
        let nodes: BTreeSet<NodeId> = parts.iter().map(|(node_id, _)| *node_id).collect();
        let is_whole = nodes.len() == parts.len() && parts.len() == n_nodes as usize;
        let is_in_order = (0..).zip(parts).all(|(rank, (_, part))| match part {
            Some(part) => n_nodes > 1 && (part.node_rank, part.n_nodes) == (rank, n_nodes),
            None => n_nodes == 1,
        });
        if is_whole && is_in_order { Ok(()) } else { Err(Wrong::GangIncomplete(id)) }
    }

    /// More important work may, and of the same priority who takes back what it is guaranteed.
    fn may_stop(&self, claimant: WorkloadId, id: WorkloadId) -> bool {
        let (Some(claimant), Some(work)) = (self.works.get(&claimant), self.works.get(&id)) else { return false };
        let agreed = work.spec.spec().preemptible == Some(true);
        let (wanted, has) = (claimant.spec.priority().value(), work.spec.priority().value());
        let leaving = || self.works.values().filter(|other| other.leaves).map(|other| &*other.spec).collect::<Vec<_>>();
        agreed && (has < wanted || has == wanted && self.quotas.takes_back(&claimant.spec, &work.spec, &leaving()))
    }

    fn preempted(&mut self, id: WorkloadId, stopped_for: Option<&WorkloadId>, at: Timestamp) -> Result<(), Wrong> {
        if !stopped_for.is_some_and(|claimant| self.may_stop(*claimant, id)) {
            return Err(Wrong::StoppedWithoutRight(id));
        }
        let Some(work) = self.works.get_mut(&id) else { return Err(Wrong::StoppedWithoutRight(id)) };
        work.leaves = true;
        work.stopped_at.retain(|earlier| at.ms_since(*earlier) < DAY_MS);
        work.stopped_at.push(at);
        if work.stopped_at.len() > self.per_day_max { Err(Wrong::StoppedTooOften(id)) } else { Ok(()) }
    }
}

/// What it says of whom it is to be kept apart from.
fn asks(work: &Work) -> Option<&AntiAffinity> {
    work.spec.spec().placement.as_ref()?.anti_affinity.as_ref()
}

/// How far one is to be kept apart from the other, if it asked.
fn asked(who: &Work, from: &Work) -> Option<TopologyDomain> {
    let (asked, labels) = (asks(who)?, &from.spec.spec().labels);
    let is_meant = asked.labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    is_meant.then_some(asked.within.unwrap_or(TopologyDomain::Node))
}

fn are_near(a: &Node, b: &Node, within: TopologyDomain) -> bool {
    let is_one =
        |key: &str| a.labels.get(key).is_some_and(|value| !value.is_empty() && b.labels.get(key) == Some(value));
    a.name == b.name
        || match within {
            TopologyDomain::Node => false,
            TopologyDomain::Rack => is_one("rack") && a.labels.get("zone") == b.labels.get("zone"),
            TopologyDomain::Zone => is_one("zone"),
        }
}

/// The specification lets it go there.
fn is_allowed(spec: &ValidSpec, node_id: NodeId, node: &Node) -> bool {
    let placement = spec.spec().placement.as_ref();
    let borne = |(label, value): (&String, &String)| {
        let Some(taint) = label.strip_prefix("taint/") else { return true };
        let with_value = format!("{taint}={value}");
        let is_it = |borne: &String| {
            let borne = borne.strip_prefix("taint/").unwrap_or(borne);
            borne == taint || borne == with_value
        };
        placement.is_some_and(|placement| placement.tolerations.iter().any(is_it))
    };
    if !node.labels.iter().all(borne) {
        return false;
    }
    let Some(placement) = placement else { return true };
    let is_named = |text: &String| *text == node.name || *text == node_id.to_string();
    placement.node.as_ref().is_none_or(is_named)
        && !placement.exclude_nodes.iter().any(is_named)
        && placement.zone.as_ref().is_none_or(|zone| node.labels.get("zone") == Some(zone))
        && placement.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
}

/// So many, each once, of the right kind, and linked if they have to be.
fn are_asked_for(demand: &Demand, gpus: &[&GpuInfo]) -> bool {
    let different: BTreeSet<&GpuUuid> = gpus.iter().map(|gpu| &gpu.uuid).collect();
    let is_right = |gpu: &&GpuInfo| {
        demand.memory_mib_of(gpu.memory_mib) >= demand.gpu_memory_mib_min
            && gpu.mig.as_ref().map(|slice| &slice.profile) == demand.mig_profile.as_ref()
            && demand.takes_model(&gpu.model)
            && (demand.gpu_models.is_empty() || gpu.model.eq_ignore_ascii_case(&gpus[0].model))
            && demand.gpu_vendor.is_none_or(|vendor| vendor == gpu.vendor)
    };
    let islands: BTreeSet<Option<u32>> = gpus.iter().map(|gpu| gpu.nvlink_island).collect();
    let is_linked = !demand.nvlink || (islands.len() == 1 && !islands.contains(&None));
    different.len() == gpus.len() && gpus.len() == demand.gpus as usize && gpus.iter().all(is_right) && is_linked
}
