//! The nodes of the fleet: [`NodeRegistry`].

pub(crate) mod trail;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use claw_proto::ids::{Attempt, Generation, GpuUuid, NodeId, TokenId, WorkloadId};
use claw_proto::message::NodeSettings;
use claw_proto::spec::TAINT_PREFIX;
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuInfo, NodeCapabilities, Rails};
use claw_proto::validation::{Demand, GPU_MILLI};
use claw_tools::nodes::{NodeLink, Schedulable};
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::registry::trail::Trail;
use crate::scheduler::fairness::Amounts;

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Id.
    pub node_id: NodeId,
    /// Name, unique.
    pub name: String,
    /// Heard from?
    pub link: NodeLink,
    /// Since when.
    pub link_since: Timestamp,
    /// When it was last heard, as of the last change of link.
    pub last_heard: Timestamp,
    /// Takes new work?
    pub schedulable: Schedulable,
    /// Labels: those of the node's own config, the token's, and those set here.
    pub labels: BTreeMap<String, String>,
    /// What it has; absent until it first connected.
    pub capabilities: Option<Arc<NodeCapabilities>>,
    /// Its record store, to notice a node that lost its memory.
    pub store_id: String,
    /// Settings.
    pub settings: NodeSettings,
    /// Changes of its desired state.
    pub generation_n: u64,
    /// Token that it enrolled with.
    pub enrolled_with: TokenId,
    /// Certificates that it got up to then are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// It enrolled again after its certificates were revoked.
    #[serde(default)]
    pub is_readmitted: bool,
    /// Running there, unknown here.
    pub orphans: BTreeMap<WorkloadId, OrphanEntry>,
    /// Revision of its last change.
    pub revision: u64,
    /// What its workloads hold (index, kept by `apply`).
    #[serde(skip)]
    pub usage: NodeUsage,
}

/// What is held on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeUsage {
    /// CPU, thousandths of a core.
    pub cpu_millis: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Disk, MiB.
    pub disk_mib: u64,
    /// GPUs and slices that somebody has, whole or in part.
    pub gpus: u32,
    /// Workloads with a live attempt there.
    pub workloads: OrdSet<WorkloadId>,
}

impl NodeUsage {
    /// Counts an attempt that takes so much there, and so many GPUs that nobody else has a part of.
    pub(crate) fn take(&mut self, id: WorkloadId, demand: &Demand, gpus: usize) {
        self.cpu_millis += demand.cpu_millis;
        self.memory_mib += demand.memory_mib;
        self.disk_mib += demand.disk_mib;
        self.gpus += u32::try_from(gpus).unwrap_or(u32::MAX);
        self.workloads.insert(id);
    }
    /// Counts it no more.
    pub(crate) fn give_back(&mut self, id: WorkloadId, demand: &Demand, gpus: usize) {
        self.cpu_millis = self.cpu_millis.saturating_sub(demand.cpu_millis);
        self.memory_mib = self.memory_mib.saturating_sub(demand.memory_mib);
        self.disk_mib = self.disk_mib.saturating_sub(demand.disk_mib);
        self.gpus = self.gpus.saturating_sub(u32::try_from(gpus).unwrap_or(u32::MAX));
        self.workloads.remove(&id);
    }
}

/// An attempt that runs where it is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanEntry {
    /// Attempt it says it is.
    pub attempt: Attempt,
    /// Since when it is known.
    pub found_at: Timestamp,
    /// Why it is one.
    pub why: String,
}

impl NodeEntry {
    /// Version of the node's desired state under `epoch`.
    pub const fn generation(&self, epoch: u64) -> Generation {
        Generation { epoch, n: self.generation_n }
    }
    /// Its GPUs.
    pub fn gpus(&self) -> &[GpuInfo] {
        self.capabilities.as_ref().map_or(&[], |c| &c.gpus)
    }
    /// Its rails.
    pub fn rails(&self) -> Rails<'_> {
        self.capabilities.as_ref().map(|c| c.rails()).unwrap_or_default()
    }
    /// Labels that keep away who does not bear them, see [`TAINT_PREFIX`].
    pub fn taints(&self) -> impl Iterator<Item = (&str, &str)> {
        let from = self.labels.range::<str, _>((Bound::Included(TAINT_PREFIX), Bound::Unbounded));
        from.map(|(label, value)| (&**label, &**value)).take_while(|(label, _)| label.starts_with(TAINT_PREFIX))
    }
    /// Those that can be given as a whole, see [`NodeCapabilities::whole_gpus`].
    pub fn whole_gpus(&self) -> impl Iterator<Item = &GpuInfo> {
        self.capabilities.iter().flat_map(|capabilities| capabilities.whole_gpus())
    }
    /// Those and the MIG slices of others: all that can be given.
    pub fn given_gpus(&self) -> impl Iterator<Item = &GpuInfo> {
        self.capabilities.iter().flat_map(|capabilities| capabilities.given_gpus())
    }
    /// Its certificates are revoked, and it has not enrolled again.
    pub fn is_revoked(&self) -> bool {
        self.revoked_at.is_some() && !self.is_readmitted
    }
    /// A certificate that it got then (in whole seconds, as certificates state it) is refused.
    pub fn refuses_certificate_of(&self, issued_at: Timestamp) -> bool {
        self.is_revoked() || self.revoked_at.is_some_and(|at| issued_at.unix_ms() < at.unix_ms())
    }
    /// Its GPUs or runtime are simulated.
    pub fn simulated(&self) -> bool {
        self.capabilities.as_ref().is_some_and(|c| c.simulated)
    }
}

/// All nodes, with the indexes that make looking up cheap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeRegistry {
    nodes: OrdMap<NodeId, Arc<NodeEntry>>,
    /// Which of them changed last.
    trail: Trail,
    by_name: OrdMap<String, NodeId>,
    /// Which node a GPU belongs to: the first that reported it.
    gpu_home: OrdMap<GpuUuid, NodeId>,
    removed: OrdSet<NodeId>,
    /// Those that are being drained (index).
    draining: OrdSet<NodeId>,
    /// What all nodes have: GPU and CPU thousandths, memory in MiB (index).
    capacity: Amounts,
    /// Whole GPUs of all nodes, thousandths by model in small letters (index).
    by_model: OrdMap<String, u64>,
}

impl NodeRegistry {
    /// The node with this id.
    pub fn get(&self, id: NodeId) -> Option<&Arc<NodeEntry>> {
        self.nodes.get(&id)
    }
    /// The node with this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<NodeEntry>> {
        self.by_name.get(name).and_then(|id| self.nodes.get(id))
    }
    /// All nodes, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<NodeEntry>> {
        self.nodes.values()
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
    /// It was a node once and was removed.
    pub fn was_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id)
    }
    /// The node that a GPU belongs to.
    pub fn home_of(&self, gpu: &GpuUuid) -> Option<NodeId> {
        self.gpu_home.get(gpu).copied()
    }
    /// Where its trail ends: for [`Trail::since`] of a later one.
    pub(crate) fn trail(&self) -> &Trail {
        &self.trail
    }
    /// The map itself, for differences between two states.
    pub(crate) fn map(&self) -> &OrdMap<NodeId, Arc<NodeEntry>> {
        &self.nodes
    }
    /// The homes of all GPUs, for differences between two states.
    pub(crate) fn homes(&self) -> &OrdMap<GpuUuid, NodeId> {
        &self.gpu_home
    }
    /// Ids of removed nodes.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &NodeId> {
        self.removed.iter()
    }
    /// Marks an id as removed (when a snapshot is read).
    pub(crate) fn restore_removed(&mut self, id: NodeId) {
        self.removed.insert(id);
    }
    /// Changes one node in place, but not what it has: see [`Self::set_capabilities`].
    pub(crate) fn update(&mut self, id: NodeId, change: impl FnOnce(&mut NodeEntry)) {
        if let Some(entry) = self.nodes.get_mut(&id) {
            self.trail.add(id);
            let before = entry.schedulable;
            change(Arc::make_mut(entry));
            let now = entry.schedulable;
            if now != before {
                self.note_draining(id, now);
            }
        }
    }
    /// What all nodes have, whether they answer or not: GPUs and slices that can be given, and CPU,
    /// in thousandths, memory in MiB.
    pub fn capacity(&self) -> Amounts {
        self.capacity
    }
    /// Whole GPUs of all nodes, thousandths by model in small letters.
    pub(crate) fn capacity_by_model(&self) -> BTreeMap<String, u64> {
        self.by_model.iter().map(|(model, milli)| (model.clone(), *milli)).collect()
    }
    /// A node has something else now.
    fn count(&mut self, had: Option<&NodeCapabilities>, has: Option<&NodeCapabilities>) {
        self.capacity = self.capacity.minus(capacity(had)).plus(capacity(has));
        let models = |of: Option<&NodeCapabilities>| -> Vec<String> {
            of.iter().flat_map(|of| of.whole_gpus()).map(|gpu| gpu.model.to_ascii_lowercase()).collect()
        };
        for model in models(had) {
            let left = self.by_model.get(&model).map_or(0, |milli| milli.saturating_sub(u64::from(GPU_MILLI)));
            if left == 0 {
                self.by_model.remove(&model);
            } else {
                self.by_model.insert(model, left);
            }
        }
        for model in models(has) {
            *self.by_model.entry(model).or_insert(0) += u64::from(GPU_MILLI);
        }
    }
    /// Those that are being drained.
    pub fn draining(&self) -> impl Iterator<Item = &Arc<NodeEntry>> {
        self.draining.iter().filter_map(|id| self.nodes.get(id))
    }
    fn note_draining(&mut self, id: NodeId, now: Schedulable) {
        if now == Schedulable::Draining {
            self.draining.insert(id);
        } else {
            self.draining.remove(&id);
        }
    }
    /// Adds a node.
    pub(crate) fn insert(&mut self, entry: NodeEntry) {
        self.by_name.insert(entry.name.clone(), entry.node_id);
        for gpu in entry.gpus() {
            self.gpu_home.entry(gpu.uuid.clone()).or_insert(entry.node_id);
        }
        self.note_draining(entry.node_id, entry.schedulable);
        self.trail.add(entry.node_id);
        self.count(None, entry.capabilities.as_deref());
        self.nodes.insert(entry.node_id, Arc::new(entry));
    }
    /// Takes a node out.
    pub(crate) fn remove(&mut self, id: NodeId) {
        if let Some(entry) = self.nodes.remove(&id) {
            self.trail.add(id);
            self.by_name.remove(&entry.name);
            self.count(entry.capabilities.as_deref(), None);
            self.release_gpus(id, &entry.gpus().iter().collect::<Vec<_>>());
        }
        self.draining.remove(&id);
        self.removed.insert(id);
    }
    /// Replaces what a node has.
    pub(crate) fn set_capabilities(&mut self, id: NodeId, capabilities: Arc<NodeCapabilities>) {
        let Some(old) = self.nodes.get(&id).cloned() else {
            return;
        };
        for gpu in &capabilities.gpus {
            self.gpu_home.entry(gpu.uuid.clone()).or_insert(id);
        }
        self.update(id, |n| n.capabilities = Some(Arc::clone(&capabilities)));
        self.count(old.capabilities.as_deref(), Some(&capabilities));
        let gone = |g: &&GpuInfo| !capabilities.gpus.iter().any(|new| new.uuid == g.uuid);
        let gone: Vec<&GpuInfo> = old.gpus().iter().filter(gone).collect();
        self.release_gpus(id, &gone);
    }
    /// Where GPUs belong, for those that several nodes report (history decides, not the entries).
    pub(crate) fn contested(&self) -> Vec<(GpuUuid, NodeId)> {
        let mut seen = BTreeSet::new();
        let reported = self.nodes.values().flat_map(|n| n.gpus().iter().map(|g| (&g.uuid, n.node_id)));
        let twice: BTreeSet<&GpuUuid> =
            reported.filter(|(uuid, _)| !seen.insert(*uuid)).map(|(uuid, _)| uuid).collect();
        twice.into_iter().filter_map(|uuid| Some((uuid.clone(), self.home_of(uuid)?))).collect()
    }
    /// Gives a GPU its home before nodes are added (when a snapshot is read).
    pub(crate) fn restore_home(&mut self, gpu: GpuUuid, id: NodeId) {
        self.gpu_home.insert(gpu, id);
    }

    /// GPUs that a node has no more go to the next one that reports them.
    fn release_gpus(&mut self, id: NodeId, gpus: &[&GpuInfo]) {
        for gpu in gpus.iter().filter(|g| self.gpu_home.get(&g.uuid) == Some(&id)).collect::<Vec<_>>() {
            let has = |n: &&Arc<NodeEntry>| n.gpus().iter().any(|g| g.uuid == gpu.uuid);
            match self.nodes.values().find(has).map(|n| n.node_id) {
                Some(next) => self.gpu_home.insert(gpu.uuid.clone(), next),
                None => self.gpu_home.remove(&gpu.uuid),
            };
        }
    }
}

/// What a node has, as quotas count.
fn capacity(has: Option<&NodeCapabilities>) -> Amounts {
    let of = |has: &NodeCapabilities| {
        let gpus = has.given_gpus().map(|gpu| u64::from(gpu.mig_milli().unwrap_or(GPU_MILLI))).sum();
        Amounts([gpus, has.cpu_millis, has.memory_mib])
    };
    has.map_or_else(Amounts::default, of)
}
