//! The indexes of all workloads: what is found without a look at each.

use std::sync::Arc;

use claw_proto::ids::{GpuUuid, WorkloadId};
use claw_proto::time::Timestamp;
use claw_tools::workloads::WorkloadState;
use imbl::OrdSet;

use super::{Claim, Holders, QueueKey, WorkloadEntry, WorkloadManager, label_key};

/// Where a workload stands in the indexes; nowhere by default.
#[derive(Debug, Default)]
pub(super) struct Keys {
    state: Option<WorkloadState>,
    queue: Option<QueueKey>,
    quota_waiter: Option<(Arc<str>, Timestamp, WorkloadId)>,
    preemptible: Option<(u32, WorkloadId)>,
    noticed: Option<WorkloadId>,
    ended: Option<(Timestamp, WorkloadId)>,
    claim: Option<Arc<Claim>>,
    held: Vec<GpuUuid>,
    /// It holds a place, and has labels.
    is_labeled: bool,
    /// It holds a place, and is kept apart from others.
    apart: Option<WorkloadId>,
}

impl Keys {
    pub(super) fn of(w: &WorkloadEntry) -> Self {
        let id = w.workload_id;
        let (spec, is_placed) = (w.spec.spec(), w.live().is_some());
        let is_apart = spec.placement.as_ref().is_some_and(|placement| placement.anti_affinity.is_some());
        Self {
            state: Some(w.state),
            queue: (w.state == WorkloadState::Pending).then(|| w.queue_key()),
            quota_waiter: w.quota_key(),
            preemptible: w.is_preemptible().then(|| (w.spec.priority().value(), id)),
            noticed: w.notice.is_some().then_some(id),
            ended: w.state.is_final().then_some((w.since, id)),
            claim: w.claim.clone(),
            held: w.lives().flat_map(|a| &a.gpus).cloned().collect(),
            is_labeled: is_placed && !spec.labels.is_empty(),
            apart: (is_placed && is_apart).then_some(id),
        }
    }

    /// A name is that of the one that has not ended.
    fn has_name(&self) -> bool {
        self.state.is_some_and(|state| !state.is_final())
    }
}

impl WorkloadManager {
    /// Keeps the indexes for a workload that stood there and stands here now: only what differs is touched.
    pub(super) fn reindex(&mut self, old: Keys, new: Keys, w: &WorkloadEntry) {
        if old.state != new.state {
            self.recount(old.state, new.state);
        }
        if old.claim != new.claim {
            self.unclaim(old.claim.as_deref(), w.workload_id);
            self.claim(new.claim.as_deref(), w.workload_id);
        }
        match (old.has_name(), new.has_name()) {
            (true, false) => self.free_name(w),
            (false, true) => drop(self.names.insert(Arc::from(w.name.as_str()), w.workload_id)),
            _ => {}
        }
        exchange(&mut self.queue, old.queue, new.queue);
        exchange(&mut self.quota_waiters, old.quota_waiter, new.quota_waiter);
        exchange(&mut self.preemptible, old.preemptible, new.preemptible);
        exchange(&mut self.noticed, old.noticed, new.noticed);
        exchange(&mut self.ended, old.ended, new.ended);
        if old.apart != new.apart {
            let asked = w.spec.spec().placement.iter().filter_map(|placement| placement.anti_affinity.as_ref());
            note(&mut self.asked, asked.flat_map(|asked| &asked.labels), w.workload_id, new.apart.is_some());
        }
        exchange(&mut self.apart, old.apart, new.apart);
        if old.is_labeled != new.is_labeled {
            note(&mut self.labels, &w.spec.spec().labels, w.workload_id, new.is_labeled);
        }
        if old.held != new.held {
            old.held.iter().for_each(|gpu| self.let_go(gpu, w.workload_id));
            new.held.iter().for_each(|gpu| self.hold(gpu, w));
        }
    }

    fn recount(&mut self, old: Option<WorkloadState>, new: Option<WorkloadState>) {
        if let Some(state) = old
            && let Some(count) = self.counts.get_mut(&state)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&state);
            }
        }
        if let Some(state) = new {
            *self.counts.entry(state).or_insert(0) += 1;
        }
    }

    fn free_name(&mut self, w: &WorkloadEntry) {
        if self.names.get(w.name.as_str()) == Some(&w.workload_id) {
            self.names.remove(w.name.as_str());
        }
    }

    fn unclaim(&mut self, claim: Option<&Claim>, id: WorkloadId) {
        for place in claim.iter().flat_map(|claim| &claim.places) {
            self.claimed_nodes.remove(&(place.node_id, id));
            for gpu in &place.gpus {
                self.claimed.remove(&(Arc::new(gpu.clone()), id));
            }
        }
    }

    fn claim(&mut self, claim: Option<&Claim>, id: WorkloadId) {
        for place in claim.iter().flat_map(|claim| &claim.places) {
            self.claimed_nodes.insert((place.node_id, id));
            self.claimed.extend(place.gpus.iter().map(|gpu| (Arc::new(gpu.clone()), id)));
        }
    }

    fn hold(&mut self, gpu: &GpuUuid, by: &WorkloadEntry) {
        let holders = Holders::with(self.held.get(gpu), by.workload_id, by.spec.demand().gpu_milli);
        self.held.insert(Arc::new(gpu.clone()), holders);
    }

    fn let_go(&mut self, gpu: &GpuUuid, by: WorkloadId) {
        match self.held.get(gpu).map(|holders| holders.without(by)) {
            Some(Some(others)) => self.held.insert(Arc::new(gpu.clone()), others),
            Some(None) => self.held.remove(gpu),
            None => None,
        };
    }
}

/// In a set, the new key for the old one.
fn exchange<K: Ord + Clone>(set: &mut OrdSet<K>, old: Option<K>, new: Option<K>) {
    if old == new {
        return;
    }
    if let Some(old) = old {
        set.remove(&old);
    }
    if let Some(new) = new {
        set.insert(new);
    }
}

/// Puts labels into an index, or takes them out.
fn note<'a>(
    index: &mut OrdSet<(Arc<str>, WorkloadId)>,
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    id: WorkloadId,
    is_there: bool,
) {
    for label in labels.into_iter().map(|(key, value)| (label_key(key, value), id)) {
        if is_there {
            index.insert(label)
        } else {
            index.remove(&label)
        };
    }
}
