//! The indexes of all workloads: what is found without a look at each.

use std::sync::Arc;

use claw_proto::ids::{GpuUuid, WorkloadId};
use claw_proto::time::Timestamp;
use claw_tools::workloads::WorkloadState;
use imbl::OrdSet;

use super::{Claim, Holders, QueueKey, WorkloadEntry, WorkloadManager};

/// Where a workload stands in the indexes.
#[derive(Debug)]
pub(super) struct Keys {
    id: WorkloadId,
    state: WorkloadState,
    queue: Option<QueueKey>,
    quota_waiter: Option<(Arc<str>, Timestamp, WorkloadId)>,
    preemptible: Option<(u32, WorkloadId)>,
    noticed: Option<WorkloadId>,
    ended: Option<(Timestamp, WorkloadId)>,
    claim: Option<Arc<Claim>>,
    held: Vec<GpuUuid>,
}

impl Keys {
    pub(super) fn of(w: &WorkloadEntry) -> Self {
        let id = w.workload_id;
        Self {
            id,
            state: w.state,
            queue: (w.state == WorkloadState::Pending).then(|| w.queue_key()),
            quota_waiter: w.quota_key(),
            preemptible: w.is_preemptible().then(|| (w.spec.priority().value(), id)),
            noticed: w.notice.is_some().then_some(id),
            ended: w.state.is_final().then_some((w.since, id)),
            claim: w.claim.clone(),
            held: held(w).cloned().collect(),
        }
    }
}

impl WorkloadManager {
    /// Keeps the indexes for one that comes.
    pub(super) fn index(&mut self, w: &WorkloadEntry) {
        *self.counts.entry(w.state).or_insert(0) += 1;
        let keys = Keys::of(w);
        self.claim(&keys);
        exchange(&mut self.queue, None, keys.queue);
        exchange(&mut self.quota_waiters, None, keys.quota_waiter);
        exchange(&mut self.preemptible, None, keys.preemptible);
        exchange(&mut self.noticed, None, keys.noticed);
        exchange(&mut self.ended, None, keys.ended);
        if !w.state.is_final() {
            self.names.insert(Arc::from(w.name.as_str()), w.workload_id);
        }
        held(w).for_each(|gpu| self.hold(gpu, w));
    }

    /// Keeps the indexes for one that goes.
    pub(super) fn unindex(&mut self, w: &WorkloadEntry) {
        let keys = Keys::of(w);
        self.count_less(w.state);
        self.unclaim(&keys);
        exchange(&mut self.queue, keys.queue, None);
        exchange(&mut self.quota_waiters, keys.quota_waiter, None);
        exchange(&mut self.preemptible, keys.preemptible, None);
        exchange(&mut self.noticed, keys.noticed, None);
        exchange(&mut self.ended, keys.ended, None);
        self.free_name(w);
        held(w).for_each(|gpu| self.let_go(gpu, w.workload_id));
    }

    /// Keeps the indexes where one that stood so has changed: only what differs is touched.
    pub(super) fn reindex(&mut self, old: Keys, w: &WorkloadEntry) {
        let new = Keys::of(w);
        if old.state != new.state {
            self.count_less(old.state);
            *self.counts.entry(new.state).or_insert(0) += 1;
        }
        if old.claim != new.claim {
            self.unclaim(&old);
            self.claim(&new);
        }
        exchange(&mut self.queue, old.queue, new.queue);
        exchange(&mut self.quota_waiters, old.quota_waiter, new.quota_waiter);
        exchange(&mut self.preemptible, old.preemptible, new.preemptible);
        exchange(&mut self.noticed, old.noticed, new.noticed);
        exchange(&mut self.ended, old.ended, new.ended);
        match (old.state.is_final(), new.state.is_final()) {
            (false, true) => self.free_name(w),
            (true, false) => drop(self.names.insert(Arc::from(w.name.as_str()), w.workload_id)),
            _ => {}
        }
        if old.held != new.held {
            old.held.iter().for_each(|gpu| self.let_go(gpu, old.id));
            new.held.iter().for_each(|gpu| self.hold(gpu, w));
        }
    }

    fn count_less(&mut self, state: WorkloadState) {
        if let Some(count) = self.counts.get_mut(&state) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&state);
            }
        }
    }

    /// A name is that of the one that has not ended.
    fn free_name(&mut self, w: &WorkloadEntry) {
        if self.names.get(w.name.as_str()) == Some(&w.workload_id) {
            self.names.remove(w.name.as_str());
        }
    }

    fn unclaim(&mut self, keys: &Keys) {
        for place in keys.claim.iter().flat_map(|claim| &claim.places) {
            self.claimed_nodes.remove(&(place.node_id, keys.id));
            for gpu in &place.gpus {
                self.claimed.remove(&(Arc::new(gpu.clone()), keys.id));
            }
        }
    }

    fn claim(&mut self, keys: &Keys) {
        for place in keys.claim.iter().flat_map(|claim| &claim.places) {
            self.claimed_nodes.insert((place.node_id, keys.id));
            self.claimed.extend(place.gpus.iter().map(|gpu| (Arc::new(gpu.clone()), keys.id)));
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

/// The GPUs that one holds.
fn held(w: &WorkloadEntry) -> impl Iterator<Item = &GpuUuid> {
    w.lives().flat_map(|a| &a.gpus)
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
