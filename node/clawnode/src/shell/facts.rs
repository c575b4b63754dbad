//! What the node has, put together from its parts and told when it changes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use claw_proto::ids::GpuUuid;
use claw_proto::message::DesiredWorkload;
use claw_proto::spec::RuntimeKind;
use claw_proto::topology::{FindingCode, GpuDriver, GpuInfo, NodeCapabilities, NodeFinding};
use claw_proto::validation::{GPU_MILLI, share_milli};

use super::Agent;
use super::health::Finder;
use crate::clock;
use crate::node::Input;
use crate::runtime::dmem;
use crate::runtime::folder::Folder;
use crate::runtime::{Availability, Runtime};

/// Adds what the runtimes say: which of the allowed ones work, and the engine
/// behind them. Returns what is wrong with them.
pub(super) fn add_runtimes<'a>(
    capabilities: &mut NodeCapabilities,
    allowed: &[RuntimeKind],
    runtimes: impl Iterator<Item = &'a mut Box<dyn Runtime>>,
) -> Vec<NodeFinding> {
    capabilities.runtimes.clear();
    capabilities.engine = None;
    let has_gpus = !capabilities.gpus.is_empty() && !capabilities.simulated;
    let mut all = Vec::new();
    for runtime in runtimes.filter(|runtime| allowed.contains(&runtime.kind())) {
        let Availability { works, engine, findings } = runtime.availability();
        if works {
            capabilities.runtimes.push(runtime.kind());
        }
        capabilities.engine = capabilities.engine.take().or(engine);
        // What an engine cannot do with GPUs matters where there are some.
        all.extend(findings.into_iter().filter(|finding| finding.code != FindingCode::EngineLimited || has_gpus));
    }
    all
}

/// Which of the node's GPUs hold whoever shares them to their memory.
#[derive(Debug)]
pub(super) struct ShareCaps {
    wanted: bool,
    /// Where control groups are.
    root: PathBuf,
    workloads: PathBuf,
    capped: BTreeSet<GpuUuid>,
}

impl ShareCaps {
    /// Of a node whose attempts have their folders here.
    pub(super) fn new(wanted: bool, workloads: PathBuf) -> Self {
        Self { wanted, root: dmem::CGROUP_ROOT.into(), workloads, capped: BTreeSet::new() }
    }

    /// Says it of each of these GPUs. One of which somebody has a share that began without a limit (by an agent that
    /// knew none, or under another config) keeps nobody's memory apart until that has ended.
    pub(super) fn mark<'a, H>(&mut self, driver: GpuDriver, gpus: &mut [GpuInfo], held: impl Fn() -> H)
    where
        H: Iterator<Item = &'a DesiredWorkload>,
    {
        match (self.wanted, driver) {
            (false, _) => return,
            (true, GpuDriver::Sim) => gpus.iter_mut().for_each(|gpu| gpu.caps_shares = gpu.mig.is_none()),
            (true, _) => dmem::mark(&self.root, gpus),
        }
        for gpu in gpus.iter_mut().filter(|gpu| gpu.caps_shares && !self.capped.contains(&gpu.uuid)) {
            let shares = held().filter(|w| share_milli(&w.spec) < GPU_MILLI && w.gpus.contains(&gpu.uuid));
            let folder = |w: &DesiredWorkload| Folder::of(&self.workloads, (w.workload_id, w.attempt));
            gpu.caps_shares = driver == GpuDriver::Sim || shares.map(folder).all(|folder| folder.is_capped());
        }
        self.capped = gpus.iter().filter(|gpu| gpu.caps_shares).map(|gpu| gpu.uuid.clone()).collect();
    }
}

impl Agent {
    /// Tells the gateway and the runtimes what the node has now, if that is news.
    pub(super) fn set_capabilities(&mut self, mut new: NodeCapabilities) {
        let findings = add_runtimes(&mut new, &self.allowed, self.runtimes.values_mut());
        self.findings.set(Finder::Runtimes, findings);
        new.findings = self.findings.all();
        if new == self.capabilities {
            return;
        }
        self.capabilities = new;
        let capabilities = Box::new(self.capabilities.clone());
        self.each_runtime(|runtime| runtime.set_capabilities(&capabilities));
        self.feed(Input::Capabilities { now: clock::now(), capabilities });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use claw_proto::ids::{Attempt, WorkloadId};
    use claw_proto::spec::{GpuRequest, GpuVendor, WorkloadSpec};

    use super::*;
    use crate::runtime::samples;

    #[test]
    fn a_gpu_keeps_memory_apart_once_all_who_share_it_are_held_to_theirs() {
        let root = tempfile::tempdir().unwrap();
        let wrote = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        wrote("dmem.capacity", "nvidia/0000:1b:00.0/vidmem 85520809984\n");
        wrote("cgroup.subtree_control", "");
        let uuid = GpuUuid("GPU-1".into());
        let gpu = GpuInfo::new(uuid.clone(), 0, GpuVendor::Nvidia, "H100", 81_559);
        let mut gpus = [GpuInfo { pci_address: Some("0000:1b:00.0".into()), ..gpu }];
        let spec = WorkloadSpec {
            gpu: Some(GpuRequest { fraction: Some(0.5), ..GpuRequest::default() }),
            ..WorkloadSpec::default()
        };
        let key = (WorkloadId::from_bits(1), Attempt(1));
        let share = DesiredWorkload { gpus: vec![uuid], ..samples::desired(key, RuntimeKind::Process, spec) };
        let mut caps = ShareCaps { root: root.path().into(), ..ShareCaps::new(true, root.path().join("workloads")) };
        let mut told = |held: &[DesiredWorkload]| {
            caps.mark(GpuDriver::Nvml, &mut gpus, || held.iter());
            gpus[0].caps_shares
        };
        assert!(!told(std::slice::from_ref(&share)), "one that is there began without a limit");
        assert!(told(&[]));
        assert!(told(&[share]), "what begins from now on has one, also before it is written down");
        wrote("dmem.capacity", "");
        assert!(!told(&[]), "the kernel does not know that memory any more");
    }
}
