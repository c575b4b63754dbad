//! The indexes of all workloads: what is found without a look at each.

use std::sync::Arc;

use claw_proto::ids::GpuUuid;
use claw_tools::workloads::WorkloadState;
use imbl::OrdSet;

use super::{Holders, Place, WorkloadEntry, WorkloadManager};

impl WorkloadManager {
    /// Keeps the indexes where one was and another is: only what differs is touched.
    pub(super) fn reindex(&mut self, old: Option<&WorkloadEntry>, new: Option<&WorkloadEntry>) {
        self.recount(old.map(|w| w.state), new.map(|w| w.state));
        exchange(&mut self.queue, old, new, |w| (w.state == WorkloadState::Pending).then(|| w.queue_key()));
        exchange(&mut self.quota_waiters, old, new, WorkloadEntry::quota_key);
        let preemptible = |w: &WorkloadEntry| (w.spec.priority().value(), w.workload_id);
        exchange(&mut self.preemptible, old, new, |w| w.is_preemptible().then(|| preemptible(w)));
        exchange(&mut self.noticed, old, new, |w| w.notice.is_some().then_some(w.workload_id));
        exchange(&mut self.ended, old, new, |w| w.state.is_final().then_some((w.since, w.workload_id)));
        self.rename(old, new);
        if old.and_then(|w| w.claim.as_ref()) != new.and_then(|w| w.claim.as_ref()) {
            self.reclaim(old, new);
        }
        if !held(old).eq(held(new)) {
            held(old).for_each(|gpu| self.let_go(gpu, old));
            held(new).for_each(|gpu| self.hold(gpu, new));
        }
    }

    fn recount(&mut self, old: Option<WorkloadState>, new: Option<WorkloadState>) {
        if old == new {
            return;
        }
        if let Some(count) = old.and_then(|state| self.counts.get_mut(&state)) {
            *count -= 1;
        }
        if let Some(state) = old.filter(|state| self.counts.get(state) == Some(&0)) {
            self.counts.remove(&state);
        }
        if let Some(state) = new {
            *self.counts.entry(state).or_insert(0) += 1;
        }
    }

    /// A name is that of the one that has not ended.
    fn rename(&mut self, old: Option<&WorkloadEntry>, new: Option<&WorkloadEntry>) {
        let named = |w: &&WorkloadEntry| !w.state.is_final();
        let (old, new) = (old.filter(named), new.filter(named));
        if old.map(|w| &w.name) == new.map(|w| &w.name) {
            return;
        }
        if let Some(w) = old.filter(|w| self.names.get(w.name.as_str()) == Some(&w.workload_id)) {
            self.names.remove(w.name.as_str());
        }
        if let Some(w) = new {
            self.names.insert(Arc::from(w.name.as_str()), w.workload_id);
        }
    }

    fn reclaim(&mut self, old: Option<&WorkloadEntry>, new: Option<&WorkloadEntry>) {
        for (w, place) in claimed(old) {
            self.claimed_nodes.remove(&(place.node_id, w.workload_id));
            for gpu in &place.gpus {
                self.claimed.remove(&(Arc::new(gpu.clone()), w.workload_id));
            }
        }
        for (w, place) in claimed(new) {
            self.claimed_nodes.insert((place.node_id, w.workload_id));
            self.claimed.extend(place.gpus.iter().map(|gpu| (Arc::new(gpu.clone()), w.workload_id)));
        }
    }

    fn hold(&mut self, gpu: &GpuUuid, by: Option<&WorkloadEntry>) {
        let Some(by) = by else { return };
        let holders = Holders::with(self.held.get(gpu), by.workload_id, by.spec.demand().gpu_milli);
        self.held.insert(Arc::new(gpu.clone()), holders);
    }

    fn let_go(&mut self, gpu: &GpuUuid, by: Option<&WorkloadEntry>) {
        let Some(by) = by else { return };
        match self.held.get(gpu).map(|holders| holders.without(by.workload_id)) {
            Some(Some(others)) => self.held.insert(Arc::new(gpu.clone()), others),
            Some(None) => self.held.remove(gpu),
            None => None,
        };
    }
}

/// The places that are claimed for one.
fn claimed(w: Option<&WorkloadEntry>) -> impl Iterator<Item = (&WorkloadEntry, &Place)> {
    w.into_iter().flat_map(|w| w.claim.iter().flat_map(move |claim| claim.places.iter().map(move |place| (w, place))))
}

/// The GPUs that one holds.
fn held(w: Option<&WorkloadEntry>) -> impl Iterator<Item = &GpuUuid> {
    w.into_iter().flat_map(WorkloadEntry::lives).flat_map(|a| &a.gpus)
}

/// In a set by a key, the new one for the old one.
fn exchange<K: Ord + Clone>(
    set: &mut OrdSet<K>,
    old: Option<&WorkloadEntry>,
    new: Option<&WorkloadEntry>,
    key: impl Fn(&WorkloadEntry) -> Option<K>,
) {
    let (old, new) = (old.and_then(&key), new.and_then(&key));
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
