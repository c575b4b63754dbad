//! What a node has and what of it is free, in numbers: made once for each change
//! of the node, read by every decision.

use std::collections::BTreeSet;
use std::sync::Arc;

use claw_proto::ids::NodeId;
use claw_proto::spec::{GpuVendor, RuntimeKind};
use claw_proto::topology::{GpuHealth, GpuInfo, NodeCapabilities};

use super::likely::{Losses, Standing};
use crate::Cluster;
use crate::registry::NodeEntry;

/// A GPU or a MIG slice that is this node's to give.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gpu {
    /// Where it stands in the node's list.
    pub(super) at: u16,
    /// Index on the node.
    pub(super) index: u32,
    /// Memory, MiB.
    pub(super) memory_mib: u64,
    /// Its NVLink island: islands of a node are counted from 0.
    pub(super) island: Option<u16>,
    /// Its NUMA node, if that is known: those of a node are counted from 0.
    pub(super) numa: Option<u16>,
    /// Its rail, if that is known: which of the node's RDMA adapters is nearest to it.
    pub(super) rail: Option<u16>,
    /// Healthy.
    pub(super) is_healthy: bool,
    /// It is a slice.
    pub(super) is_slice: bool,
    /// What of it nobody holds, thousandths.
    pub(super) free_milli: u16,
    /// Its kind: of one kind are GPUs of one vendor and model, with as much memory, cut and shared alike.
    /// Kinds of a node are counted from 0, up to [`KINDS_MAX`], which stands for any other.
    pub(super) kind: u8,
}

/// Kinds of GPUs of one node that are told apart, at most.
pub(super) const KINDS_MAX: u8 = 64;

/// A node, as decisions see it.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The node.
    pub(super) node: Arc<NodeEntry>,
    /// Its GPUs that can be given as a whole, in the order of its list, and then its slices.
    pub(super) gpus: Vec<Gpu>,
    /// GPUs that can be given as a whole, with the ones that another node reported first.
    pub(super) n_whole: usize,
    /// For each kind, where the first of its GPUs stands in [`View::gpus`].
    pub(super) kinds: Vec<u16>,
    /// NVLink islands.
    pub(super) n_islands: usize,
    /// Its labels `zone` and `rack`; empty without one.
    pub(super) stands: [Box<str>; 2],
    /// How it stands for likely work, if that can be said.
    pub(super) standing: Option<Standing>,
}

/// All that a plain node has to give, and with what: nodes of one make differ in what is free of it, and in how they
/// are called.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Make {
    n_gpus: usize,
    n_whole: usize,
    /// Model, memory in MiB, whether they are of an NVLink island, and whether shares of them are capped.
    first: Option<(GpuVendor, String, u64, bool, bool)>,
    cpu_millis: u64,
    memory_mib: u64,
    disk_mib: u64,
    runtimes: Vec<RuntimeKind>,
    simulated: bool,
    /// Its taints, with their values.
    taints: Vec<(String, String)>,
}

/// Labels that tell where a node stands.
const STANDS: [&str; 2] = ["zone", "rack"];

/// A label of a node; empty without one.
pub(super) fn label<'a>(node: &'a NodeEntry, key: &str) -> &'a str {
    node.labels.get(key).map_or("", String::as_str)
}

impl View {
    /// The node as it is now. A GPU that another node reported first is not this node's to
    /// give; one that is listed twice is one.
    pub(super) fn of(cluster: &Cluster, node: &Arc<NodeEntry>) -> Self {
        let all = node.gpus();
        let mut seen = BTreeSet::new();
        let (mut islands, mut numas): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        let is_given = |gpu: &&GpuInfo| cluster.nodes.home_of(&gpu.uuid) == Some(node.node_id);
        let mut n_whole = 0;
        let given = node.given_gpus().inspect(|gpu| n_whole += usize::from(gpu.mig.is_none()));
        let mine: Vec<&GpuInfo> = given.filter(is_given).filter(|gpu| seen.insert(&gpu.uuid)).collect();
        let mut gpus: Vec<Gpu> = Vec::with_capacity(mine.len());
        let mut kinds: Vec<u16> = Vec::new();
        let rails = node.rails();
        for (place, gpu) in mine.iter().enumerate() {
            let at = all.iter().position(|listed| std::ptr::eq(listed, *gpu)).and_then(|at| u16::try_from(at).ok());
            gpus.push(Gpu {
                at: at.unwrap_or(u16::MAX),
                index: gpu.index,
                memory_mib: gpu.memory_mib,
                island: gpu.nvlink_island.map(|island| number(&mut islands, island)),
                numa: gpu.numa_node.map(|numa| number(&mut numas, numa)),
                rail: rails.of(gpu).and_then(|rail| u16::try_from(rail).ok()),
                is_healthy: gpu.health == GpuHealth::Healthy,
                is_slice: gpu.mig.is_some(),
                free_milli: cluster.workloads.free_milli(&gpu.uuid),
                kind: kind(&mut kinds, &mine, place),
            });
        }
        Self {
            node: Arc::clone(node),
            gpus,
            n_whole,
            kinds,
            n_islands: islands.len(),
            stands: STANDS.map(|key| label(node, key).into()),
            standing: None,
        }
    }

    /// Says anew how it stands for likely work.
    pub(super) fn measure(&mut self, losses: &Losses) {
        self.standing = losses.standing(self);
    }

    /// The node, as it is now, has what it had and is called as it was: what does not depend on who
    /// runs there is as before.
    pub(super) fn has_the_same(&self, node: &NodeEntry) -> bool {
        self.has_same_capabilities(node) && self.node.name == node.name && self.node.labels == node.labels
    }

    /// It reported nothing since.
    fn has_same_capabilities(&self, node: &NodeEntry) -> bool {
        match (&self.node.capabilities, &node.capabilities) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        }
    }

    /// The node is as this says now.
    pub(super) fn refresh(&mut self, cluster: &Cluster, node: &Arc<NodeEntry>) {
        if !self.has_same_capabilities(node) {
            *self = Self::of(cluster, node);
            return;
        }
        for gpu in &mut self.gpus {
            let uuid = node.gpus().get(usize::from(gpu.at)).map(|listed| &listed.uuid);
            gpu.free_milli = uuid.map_or(0, |uuid| cluster.workloads.free_milli(uuid));
        }
        for (known, key) in self.stands.iter_mut().zip(STANDS) {
            if **known != *label(node, key) {
                *known = label(node, key).into();
            }
        }
        self.node = Arc::clone(node);
    }

    /// See [`Make`], of a plain node; nothing of one that never connected.
    pub(super) fn make(&self) -> Option<Make> {
        let capabilities = self.capabilities()?;
        let first = self.gpus.first().and_then(|gpu| {
            let info = self.info(gpu)?;
            Some((info.vendor, info.model.clone(), gpu.memory_mib, gpu.island.is_some(), info.caps_shares))
        });
        Some(Make {
            n_gpus: self.gpus.len(),
            n_whole: self.n_whole,
            first,
            cpu_millis: capabilities.cpu_millis,
            memory_mib: capabilities.memory_mib,
            disk_mib: capabilities.disk_mib,
            runtimes: capabilities.runtimes.clone(),
            simulated: capabilities.simulated,
            taints: self.node.taints().map(|(label, value)| (label.to_owned(), value.to_owned())).collect(),
        })
    }

    /// Its id.
    pub(super) fn node_id(&self) -> NodeId {
        self.node.node_id
    }

    /// What it reported; absent until it first connected.
    pub(super) fn capabilities(&self) -> Option<&NodeCapabilities> {
        self.node.capabilities.as_deref()
    }

    /// All that it said about this GPU.
    pub(super) fn info(&self, gpu: &Gpu) -> Option<&GpuInfo> {
        self.node.gpus().get(usize::from(gpu.at))
    }
}

/// The number of an island or a NUMA node: a new one gets the next.
fn number(numbers: &mut Vec<u32>, of: u32) -> u16 {
    let at = numbers.iter().position(|known| *known == of).unwrap_or_else(|| {
        numbers.push(of);
        numbers.len() - 1
    });
    u16::try_from(at).unwrap_or(u16::MAX)
}

/// The kind of the GPU at `place`: a new one gets the next number.
fn kind(kinds: &mut Vec<u16>, gpus: &[&GpuInfo], place: usize) -> u8 {
    let of = |gpu: &GpuInfo| (gpu.vendor, gpu.memory_mib, gpu.caps_shares);
    let profile = |gpu: &GpuInfo| gpu.mig.as_ref().map(|slice| slice.profile.clone());
    let is_alike = |first: &u16| {
        let first = gpus[usize::from(*first)];
        let gpu = gpus[place];
        of(first) == of(gpu) && first.model == gpu.model && profile(first) == profile(gpu)
    };
    if let Some(known) = kinds.iter().position(is_alike) {
        return u8::try_from(known).unwrap_or(KINDS_MAX);
    }
    match (u8::try_from(kinds.len()), u16::try_from(place)) {
        (Ok(next), Ok(place)) if next < KINDS_MAX => {
            kinds.push(place);
            next
        }
        _ => KINDS_MAX,
    }
}
