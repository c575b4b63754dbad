//! What each decision certifies by its events: every gang is complete, no GPU has two users, no quota is exceeded,
//! and nothing that is kept for somebody is taken or comes later than was told.
//!
//! Books of its own, of GPUs, parts, claims and quotas ([`quotas`](super::quotas)), and no code of whoever decided.
//! It knows nothing of nodes, of what specifications allow, and of who may be stopped: those are [`rules`](super::rules).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::ids::{Attempt, GpuUuid, NodeId, WorkloadId};
use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;

use super::Wrong;
use super::quotas::Quotas;
use crate::event::{Event, EventRecord};
use crate::workload::{Claim, Part};

/// Thousandths of a GPU.
const WHOLE_MILLI: u32 = 1_000;

/// One that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) spec: Arc<ValidSpec>,
    order: usize,
    /// What holds a place now.
    pub(super) parts: BTreeMap<Attempt, (NodeId, Vec<GpuUuid>)>,
    claimed: BTreeSet<GpuUuid>,
    /// Until then who has ended may have what is claimed.
    begins_at: Option<Timestamp>,
    /// It takes back what its tenant is guaranteed.
    reclaims: bool,
}

impl Work {
    fn new(spec: &Arc<ValidSpec>, order: usize) -> Self {
        let (parts, claimed) = (BTreeMap::new(), BTreeSet::new());
        Self { spec: Arc::clone(spec), order, parts, claimed, begins_at: None, reclaims: false }
    }

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

    fn gpu_milli(&self) -> u32 {
        self.spec.demand().gpu_milli.into()
    }

    /// What is kept for it from now on.
    fn keep(&mut self, claim: Option<&Claim>) {
        let places = claim.into_iter().flat_map(|claim| &claim.places);
        self.claimed = places.flat_map(|place| place.gpus.iter().cloned()).collect();
        self.begins_at = claim.and_then(|claim| claim.begins_at);
        self.reclaims = claim.is_some_and(|claim| claim.reclaims);
    }
}

/// The books.
#[derive(Debug, Clone, Default)]
pub(super) struct Certificate {
    pub(super) works: BTreeMap<WorkloadId, Work>,
    /// Who has how much of each GPU, thousandths.
    holders: BTreeMap<GpuUuid, BTreeMap<WorkloadId, u32>>,
    n_submitted: usize,
    /// Those for whom room is kept.
    claimants: BTreeSet<WorkloadId>,
    pub(super) quotas: Quotas,
    /// The latest instant of all events: a wall clock may go back.
    pub(super) clock: Timestamp,
    /// Parts that this decision places.
    placed: BTreeMap<WorkloadId, Vec<(NodeId, Option<Part>)>>,
}

impl Certificate {
    /// This decision places a part of it already.
    pub(super) fn places(&self, id: WorkloadId) -> bool {
        self.placed.contains_key(&id)
    }

    /// Takes the next event of a decision into the books.
    pub(super) fn event(&mut self, record: &EventRecord) -> Result<(), Wrong> {
        self.quotas.event(&record.event);
        match &record.event {
            Event::WorkloadSubmitted { workload_id, spec, .. } => {
                self.works.insert(*workload_id, Work::new(spec, self.n_submitted));
                self.n_submitted += 1;
            }
            Event::WorkloadPlaced { workload_id, attempt, node_id, gpus, part, .. } => {
                self.place(*workload_id, *attempt, (*node_id, gpus))?;
                self.placed.entry(*workload_id).or_default().push((*node_id, *part));
            }
            Event::AttemptEnded { workload_id, attempt, .. } => self.end(*workload_id, *attempt),
            Event::WorkloadEnded { workload_id, .. } => {
                self.works.remove(workload_id);
                self.claimants.remove(workload_id);
            }
            // Who is held gives up what was kept for it.
            Event::WorkloadGated { workload_id, gates } if !gates.is_empty() => self.give_up(*workload_id),
            Event::RoomClaimed { workload_id, claim, .. } => {
                let Some(work) = self.works.get_mut(workload_id) else { return Ok(()) };
                let told = work.begins_at;
                work.keep(claim.as_deref());
                if told.zip(work.begins_at).is_some_and(|(told, now)| now > told) {
                    return Err(Wrong::StartPutOff(*workload_id));
                }
                self.claimants.insert(*workload_id);
            }
            _ => {}
        }
        Ok(())
    }

    /// The decision is complete: so is each gang that it places.
    pub(super) fn decided(&mut self) -> Result<(), Wrong> {
        let placed = std::mem::take(&mut self.placed);
        placed.iter().try_for_each(|(id, parts)| self.whole(*id, parts))
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

    fn place(&mut self, id: WorkloadId, attempt: Attempt, at: (NodeId, &[GpuUuid])) -> Result<(), Wrong> {
        let work = self.works.get(&id).ok_or(Wrong::DoesNotWait(id))?;
        if !self.places(id) && !work.parts.is_empty() {
            return Err(Wrong::DoesNotWait(id));
        }
        at.1.iter().try_for_each(|gpu| self.is_free(id, work, gpu))?;
        let (milli, spec) = (work.gpu_milli(), Arc::clone(&work.spec));
        if let Some(over) = self.quotas.take(spec.spec().tenant.as_deref(), spec.node_demand()) {
            return Err(Wrong::OverQuota(id, over));
        }
        for gpu in at.1 {
            self.holders.entry(gpu.clone()).or_default().insert(id, milli);
        }
        self.claimants.remove(&id);
        if let Some(work) = self.works.get_mut(&id) {
            work.keep(None);
            work.parts.insert(attempt, (at.0, at.1.to_vec()));
        }
        Ok(())
    }

    /// So much of the GPU is nobody's, and not kept for who comes before.
    fn is_free(&self, id: WorkloadId, work: &Work, gpu: &GpuUuid) -> Result<(), Wrong> {
        let used: u32 = self.holders.get(gpu).map_or(0, |holders| holders.values().sum());
        let left = WHOLE_MILLI.saturating_sub(used);
        if work.gpu_milli() > left {
            return Err(Wrong::DoubleBooked(id, gpu.clone()));
        }
        let borrows = |kept: &Work| {
            let is_less = work.spec.priority().value() <= kept.spec.priority().value();
            kept.reclaims && is_less && self.quotas.within(&work.spec).next().is_none()
        };
        let keeps = |(other, kept): &(&WorkloadId, &Work)| {
            let before = kept.comes_before(work) || borrows(kept);
            **other != id && kept.claimed.contains(gpu) && before && !kept.begins_after(work, self.clock)
        };
        let claimants = || self.claimants.iter().filter_map(|id| self.works.get_key_value(id));
        let kept = || claimants().filter(keeps);
        let kept_milli: u32 = kept().map(|(_, kept)| kept.gpu_milli()).sum();
        match kept().next() {
            Some((other, _)) if work.gpu_milli() + kept_milli > left => Err(Wrong::RoomTaken(id, *other)),
            _ => Ok(()),
        }
    }

    fn give_up(&mut self, id: WorkloadId) {
        if let Some(work) = self.works.get_mut(&id) {
            work.keep(None);
        }
    }

    fn end(&mut self, id: WorkloadId, attempt: Attempt) {
        // How one that was given up really ended is told, too: it holds nothing any more.
        let Some(work) = self.works.get_mut(&id) else { return };
        let Some((_, gpus)) = work.parts.remove(&attempt) else { return };
        self.quotas.give(work.spec.spec().tenant.as_deref(), work.spec.node_demand());
        for gpu in gpus {
            if let Some(holders) = self.holders.get_mut(&gpu) {
                holders.remove(&id);
            }
        }
    }
}
