//! What else holds of decisions than their certificate: where work may go, what it gets there, and who may be
//! stopped for whom.

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

use super::Wrong;
use super::certificate::{Certificate, Work};
use super::notices::Notices;
use super::quotas::whole;
use crate::event::{Event, EventRecord};

/// A day, milliseconds.
const DAY_MS: i64 = 86_400_000;

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

/// What is known of one that has not ended, besides what its certificates say.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// A gate of it is closed.
    is_gated: bool,
    stopped_at: Vec<Timestamp>,
    /// It is stopped for somebody and still there.
    leaves: bool,
    pub(super) notices: Notices,
}

/// The books.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    nodes: BTreeMap<NodeId, Node>,
    pub(super) known: BTreeMap<WorkloadId, Known>,
    /// Those that are to be kept apart from others.
    apart: BTreeSet<WorkloadId>,
    reservations: BTreeMap<String, Arc<Reservation>>,
    /// Nobody is stopped for others more often in a day.
    per_day_max: usize,
    /// Whom this decision stops for others, with those that they leave for.
    victims: BTreeMap<WorkloadId, WorkloadId>,
}

fn three(demand: &Demand) -> [u64; 3] {
    [demand.cpu_millis, demand.memory_mib, demand.disk_mib]
}

impl Rules {
    pub(super) fn new(per_day_max: usize) -> Self {
        Self { per_day_max, ..Self::default() }
    }

    /// The decision is complete.
    pub(super) fn decided(&mut self) {
        self.victims.clear();
    }

    /// Looks at an event that is not in the books of certificates yet.
    pub(super) fn before(&mut self, record: &EventRecord, books: &Certificate) -> Result<(), Wrong> {
        self.node_event(&record.event)?;
        self.notice_event(record, books)?;
        match &record.event {
            Event::ReservationSet { reservation } => {
                self.reservations.insert(reservation.name.clone(), Arc::clone(reservation));
            }
            Event::ReservationEnded { name } => drop(self.reservations.remove(name)),
            Event::WorkloadSubmitted { workload_id, spec, .. } => {
                self.known.insert(*workload_id, Known { is_gated: !spec.spec().gates.is_empty(), ..Known::default() });
                if asks(spec).is_some() {
                    self.apart.insert(*workload_id);
                }
            }
            Event::WorkloadGated { workload_id, gates } => {
                if let Some(known) = self.known.get_mut(workload_id) {
                    known.is_gated = !gates.is_empty();
                }
            }
            Event::WorkloadPlaced { workload_id, node_id, gpus, .. } => {
                self.goes(books, *workload_id, *node_id, gpus)?;
            }
            Event::AttemptEnded { workload_id, attempt, .. } => self.end(books, *workload_id, *attempt),
            Event::WorkloadEnded { workload_id, .. } => {
                self.known.remove(workload_id);
                self.apart.remove(workload_id);
            }
            Event::RoomClaimed { workload_id, claim, .. } if books.works.contains_key(workload_id) => {
                let victims = claim.iter().flat_map(|claim| &claim.victims);
                self.victims.extend(victims.map(|victim| (*victim, *workload_id)));
            }
            Event::WorkloadStopping { workload_id, why: WorkloadReason::Preempted, .. } => {
                self.preempted(books, *workload_id, record.at)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks at an event whose certificate is accepted.
    pub(super) fn after(&mut self, record: &EventRecord, books: &Certificate) -> Result<(), Wrong> {
        match &record.event {
            Event::WorkloadPlaced { workload_id, node_id, gpus, .. } => self.fits(books, *workload_id, *node_id, gpus),
            _ => Ok(()),
        }
    }

    /// Nobody else has a right to this node while the work may last.
    fn is_reserved(&self, books: &Certificate, node_id: NodeId, spec: &ValidSpec) -> bool {
        let (tenant, at) = (spec.spec().tenant.as_deref(), books.clock);
        // A program has its grace after its limit.
        let limit_s = spec.spec().max_duration_s.map(|limit_s| i128::from(limit_s) + i128::from(spec.grace_s()));
        self.reservations.values().any(|kept| {
            let is_over = at >= kept.ends_at;
            let room_ms = kept.starts_at.ms_since(at);
            let ends_before = limit_s.is_some_and(|s| s * 1_000 <= i128::from(room_ms));
            kept.nodes.contains(&node_id) && !is_over && !ends_before && !books.quotas.is_part(tenant, &kept.tenant)
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

    /// It may go there, and the GPUs are there to give.
    fn goes(&self, books: &Certificate, id: WorkloadId, node_id: NodeId, gpus: &[GpuUuid]) -> Result<(), Wrong> {
        // Of one that does not wait the certificate says so.
        let Some((work, known)) = books.works.get(&id).zip(self.known.get(&id)) else { return Ok(()) };
        if self.is_reserved(books, node_id, &work.spec) {
            return Err(Wrong::Reserved(id, node_id));
        }
        if known.is_gated {
            return Err(Wrong::Gated(id));
        }
        let takes = |node: &&Node| node.is_online && node.is_active;
        let node = self.nodes.get(&node_id).filter(takes).ok_or(Wrong::NoSuchNode(id, node_id))?;
        if !is_allowed(&work.spec, node_id, node) {
            return Err(Wrong::NotAllowed(id, node_id));
        }
        if let Some(near) = self.near(books, id, node) {
            return Err(Wrong::NotKeptApart(id, near));
        }
        let has = node.capabilities.as_deref().ok_or(Wrong::NoSuchNode(id, node_id))?;
        let unknown = gpus.iter().find(|gpu| given(has, gpu).is_none());
        unknown.map_or(Ok(()), |gpu| Err(Wrong::NoSuchGpu(id, gpu.clone())))
    }

    /// It gets what it asks for, and the node has room for it.
    fn fits(&mut self, books: &Certificate, id: WorkloadId, node_id: NodeId, gpus: &[GpuUuid]) -> Result<(), Wrong> {
        let work = books.works.get(&id).ok_or(Wrong::DoesNotWait(id))?;
        let demand = work.spec.node_demand();
        let has = self.nodes.get(&node_id).and_then(|node| node.capabilities.clone());
        let has = has.ok_or(Wrong::NoSuchNode(id, node_id))?;
        let taken: Vec<&GpuInfo> = gpus.iter().filter_map(|gpu| given(&has, gpu)).collect();
        if !are_asked_for(demand, &taken) {
            return Err(Wrong::OtherGpus(id));
        }
        self.count(node_id, &three(demand), true);
        let used = self.nodes.get(&node_id).map_or([0; 3], |node| node.used);
        let most = [has.cpu_millis, has.memory_mib, has.disk_mib];
        let is_over = used.iter().zip(most).any(|(used, most)| *used > most);
        if is_over { Err(Wrong::Overcommitted(id, node_id)) } else { Ok(()) }
    }

    /// Somebody on this node, or in its rack or zone, that this work is to be kept apart from there, or who is from it.
    fn near(&self, books: &Certificate, id: WorkloadId, node: &Node) -> Option<WorkloadId> {
        let work = books.works.get(&id)?;
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
        let mut works: Box<dyn Iterator<Item = (&WorkloadId, &Work)>> = match asks(&work.spec) {
            Some(_) => Box::new(books.works.iter()),
            None => Box::new(self.apart.iter().filter_map(|id| books.works.get_key_value(id))),
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

    /// The attempt holds nothing any more, if it held something.
    fn end(&mut self, books: &Certificate, id: WorkloadId, attempt: Attempt) {
        let Some(work) = books.works.get(&id) else { return };
        let Some((node_id, _)) = work.parts.get(&attempt) else { return };
        if let Some(known) = self.known.get_mut(&id) {
            known.leaves &= work.parts.len() > 1;
        }
        self.count(*node_id, &three(work.spec.node_demand()), false);
    }

    /// More important work may, and of the same priority who takes back what it is guaranteed.
    fn may_stop(&self, books: &Certificate, claimant: WorkloadId, id: WorkloadId) -> bool {
        let (Some(claimant), Some(work)) = (books.works.get(&claimant), books.works.get(&id)) else { return false };
        let agreed = work.spec.spec().preemptible == Some(true);
        let (wanted, has) = (claimant.spec.priority().value(), work.spec.priority().value());
        agreed && (has < wanted || has == wanted && self.takes_back(books, &claimant.spec, &work.spec))
    }

    /// Some tenant that `wanted` is part of holds no more than it is guaranteed with it, and each that `less` is
    /// part of, and that one is not, still what it is guaranteed without that and without those that leave.
    fn takes_back(&self, books: &Certificate, wanted: &ValidSpec, less: &ValidSpec) -> bool {
        let quotas = &books.quotas;
        let (gone, own) = (whole(less), less.spec().tenant.as_deref());
        let is_of = |spec: &ValidSpec, name: &str| quotas.is_part(spec.spec().tenant.as_deref(), name);
        let leaving = || {
            let leave = self.known.iter().filter(|(_, known)| known.leaves);
            leave.filter_map(|(id, _)| books.works.get(id)).map(|work| &*work.spec)
        };
        quotas.within(wanted).any(|of| {
            let keeps = |(name, guaranteed, held): (&String, [Option<u64>; 3], [u64; 3])| {
                let left = leaving().filter(|spec| is_of(spec, name)).map(whole);
                let left = left.fold(gone, |sum, one| std::array::from_fn(|at| sum[at] + one[at]));
                let is_kept = |at: usize| guaranteed[at].is_none_or(|most| held[at] >= most + left[at]);
                // Of what it is not asked for, it may hold less than it is guaranteed already.
                !is_of(less, name) || quotas.is_part(Some(of), name) || (0..3).all(|at| gone[at] == 0 || is_kept(at))
            };
            let is_kin = is_of(less, of) || own.is_some_and(|own| quotas.is_part(Some(of), own));
            !is_kin && quotas.each().all(keeps)
        })
    }

    fn preempted(&mut self, books: &Certificate, id: WorkloadId, at: Timestamp) -> Result<(), Wrong> {
        if !self.victims.get(&id).is_some_and(|claimant| self.may_stop(books, *claimant, id)) {
            return Err(Wrong::StoppedWithoutRight(id));
        }
        let Some(known) = self.known.get_mut(&id) else { return Err(Wrong::StoppedWithoutRight(id)) };
        known.leaves = true;
        known.stopped_at.retain(|earlier| at.ms_since(*earlier) < DAY_MS);
        known.stopped_at.push(at);
        if known.stopped_at.len() > self.per_day_max { Err(Wrong::StoppedTooOften(id)) } else { Ok(()) }
    }
}

/// A GPU or slice of the node that is healthy and can be given.
fn given<'a>(has: &'a NodeCapabilities, gpu: &GpuUuid) -> Option<&'a GpuInfo> {
    has.given_gpus().find(|listed| listed.uuid == *gpu && listed.health == GpuHealth::Healthy)
}

/// What it says of whom it is to be kept apart from.
fn asks(spec: &ValidSpec) -> Option<&AntiAffinity> {
    spec.spec().placement.as_ref()?.anti_affinity.as_ref()
}

/// How far one is to be kept apart from the other, if it asked.
fn asked(who: &Work, from: &Work) -> Option<TopologyDomain> {
    let (asked, labels) = (asks(&who.spec)?, &from.spec.spec().labels);
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
            && (!demand.capped || gpu.caps_shares)
    };
    let islands: BTreeSet<Option<u32>> = gpus.iter().map(|gpu| gpu.nvlink_island).collect();
    let is_linked = !demand.nvlink || (islands.len() == 1 && !islands.contains(&None));
    different.len() == gpus.len() && gpus.len() == demand.gpus as usize && gpus.iter().all(is_right) && is_linked
}
