//! What the node has, put together from its parts and told when it changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use claw_proto::message::DesiredWorkload;
use claw_proto::spec::RuntimeKind;
use claw_proto::topology::{FindingCode, GpuDriver, GpuHealth, GpuInfo, NodeCapabilities, NodeFinding};
use claw_proto::validation::{GPU_MILLI, is_capped_share, share_milli};
use tracing::warn;

use super::Agent;
use super::health::Finder;
use crate::clock;
use crate::gpu::merge;
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

/// A trial tells for so many looks at the GPUs.
const LOOKS_PER_TRIAL: u32 = 60;

/// What came of a trial.
#[derive(Debug)]
struct Tried {
    taken: bool,
    looks_left: u32,
}

/// Which of the node's GPUs hold whoever shares them to their memory.
#[derive(Debug)]
pub(super) struct ShareCaps {
    wanted: bool,
    /// Where control groups are.
    root: PathBuf,
    workloads: PathBuf,
    /// Whether a limit of this region was taken by the kernel when it was tried.
    tried: BTreeMap<String, Tried>,
}

impl ShareCaps {
    /// Of a node whose attempts have their folders here.
    pub(super) fn new(wanted: bool, workloads: PathBuf) -> Self {
        let root = dmem::CGROUP_ROOT.into();
        Self { wanted, root, workloads, tried: BTreeMap::new() }
    }

    /// Says it of each of these GPUs. One of which somebody has a share that began without a limit (by an agent that
    /// knew none, or under another config) keeps nobody's memory apart until that has ended; where somebody runs who
    /// counts on it, it takes nothing new.
    pub(super) fn mark(&mut self, driver: GpuDriver, gpus: &mut [GpuInfo], held: &[&DesiredWorkload]) {
        let capacity = if self.wanted && driver != GpuDriver::Sim { dmem::capacity(&self.root) } else { None };
        for gpu in gpus {
            let on_it = |w: &&&DesiredWorkload| share_milli(&w.spec) < GPU_MILLI && w.gpus.contains(&gpu.uuid);
            let shares: Vec<&DesiredWorkload> = held.iter().filter(on_it).copied().collect();
            let is_held = |caps: &mut Self| {
                let region = capacity.as_deref().and_then(|capacity| dmem::region_of(capacity, gpu));
                region.is_some_and(|region| caps.is_taken(region)) && shares.iter().all(|w| caps.is_limited(w))
            };
            let is_simulated = driver == GpuDriver::Sim;
            gpu.caps_shares = gpu.mig.is_none() && if is_simulated { self.wanted } else { is_held(self) };
            let counts_on_it = |w: &&DesiredWorkload| is_capped_share(&w.spec);
            if !gpu.caps_shares && !is_simulated && shares.iter().any(counts_on_it) {
                merge::at_least(gpu, GpuHealth::Degraded, dmem::NOT_KEPT_APART);
            }
        }
    }

    /// The kernel takes limits of this region: tried on a group of our own, and again after a while.
    fn is_taken(&mut self, region: String) -> bool {
        let tried = self.tried.entry(region.clone()).or_insert(Tried { taken: false, looks_left: 0 });
        if tried.looks_left > 0 {
            tried.looks_left -= 1;
            return tried.taken;
        }
        let result = dmem::try_out(&self.root, &region);
        if let Err(error) = &result {
            warn!(%error, region, "shares of a GPU cannot be held to their memory");
        }
        *tried = Tried { taken: result.is_ok(), looks_left: LOOKS_PER_TRIAL };
        tried.taken
    }

    /// It has a limit, or has not begun and will have one.
    fn is_limited(&self, workload: &DesiredWorkload) -> bool {
        Folder::of(&self.workloads, (workload.workload_id, workload.attempt)).has_gpu_limit().unwrap_or(true)
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
    use std::path::Path;

    use claw_proto::ids::{Attempt, GpuUuid, WorkloadId};
    use claw_proto::spec::{GpuRequest, GpuVendor, Isolation, WorkloadSpec};

    use super::*;
    use crate::runtime::samples;

    const UUID: &str = "GPU-1";

    fn share(n: u128, isolation: Option<Isolation>) -> DesiredWorkload {
        let gpu = Some(GpuRequest { fraction: Some(0.5), isolation, ..GpuRequest::default() });
        let spec = WorkloadSpec { gpu, ..WorkloadSpec::default() };
        let key = (WorkloadId::from_bits(n), Attempt(1));
        DesiredWorkload { gpus: vec![GpuUuid(UUID.into())], ..samples::desired(key, RuntimeKind::Process, spec) }
    }

    /// A host whose kernel knows the memory of one GPU, and where its attempts have their folders.
    fn host(root: &Path) -> (ShareCaps, impl Fn(&mut ShareCaps, &[&DesiredWorkload]) -> GpuInfo) {
        fs::write(root.join("dmem.capacity"), "nvidia/0000:1b:00.0/vidmem 85520809984\n").unwrap();
        fs::write(root.join("cgroup.subtree_control"), "").unwrap();
        let gpu = GpuInfo::new(GpuUuid(UUID.into()), 0, GpuVendor::Nvidia, "H100", 81_559);
        let gpu = GpuInfo { pci_address: Some("0000:1b:00.0".into()), ..gpu };
        let look = move |caps: &mut ShareCaps, held: &[&DesiredWorkload]| {
            let mut gpus = [gpu.clone()];
            caps.mark(GpuDriver::Nvml, &mut gpus, held);
            gpus[0].clone()
        };
        (ShareCaps { root: root.into(), ..ShareCaps::new(true, root.join("workloads")) }, look)
    }

    fn began(caps: &ShareCaps, w: &DesiredWorkload, spec: &str) {
        let folder = Folder::of(&caps.workloads, (w.workload_id, w.attempt));
        fs::create_dir_all(folder.root()).unwrap();
        fs::write(folder.root().join("spec.json"), spec).unwrap();
    }

    #[test]
    fn a_gpu_keeps_memory_apart_once_all_who_share_it_are_held_to_theirs() {
        let root = tempfile::tempdir().unwrap();
        let (mut caps, look) = host(root.path());
        let [old, new, pulls] = [share(1, None), share(2, None), share(3, None)];
        began(&caps, &old, &samples::spec_json(&old, false));
        began(&caps, &new, &samples::spec_json(&new, true));
        let of_new = Folder::of(&caps.workloads, (new.workload_id, new.attempt));
        fs::write(of_new.root().join("gpu-limited"), "").unwrap();
        fs::write(of_new.root().join("started.json"), "{}").unwrap();
        assert!(!look(&mut caps, &[&old, &new]).caps_shares, "one that is there began without a limit");
        assert!(look(&mut caps, &[&new, &pulls]).caps_shares, "who has not begun will have one");
        // The agent begins anew, and finds what it had.
        let (mut again, _) = host(root.path());
        assert!(look(&mut again, &[&new, &pulls]).caps_shares);
        assert!(!look(&mut again, &[&new, &old]).caps_shares, "one that was found is looked at as well");
        began(&caps, &pulls, "no JSON");
        assert!(!look(&mut caps, &[&pulls]).caps_shares, "of what cannot be read nothing is known");
        fs::remove_file(of_new.root().join("gpu-limited")).unwrap();
        assert!(!look(&mut caps, &[&new]).caps_shares, "it runs, and the kernel took no limit");
        fs::write(root.path().join("dmem.capacity"), "").unwrap();
        assert!(!look(&mut caps, &[]).caps_shares, "the kernel does not know that memory any more");
    }

    #[test]
    fn where_somebody_counts_on_it_and_it_is_not_so_any_more_nothing_new_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let (mut caps, look) = host(root.path());
        let (counts, other) = (share(1, Some(Isolation::Memory)), share(2, None));
        began(&caps, &counts, &samples::spec_json(&counts, true));
        began(&caps, &other, &samples::spec_json(&other, true));
        assert_eq!(look(&mut caps, &[&counts]).health, GpuHealth::Healthy);
        caps.wanted = false;
        let told = look(&mut caps, &[&counts, &other]);
        assert_eq!((told.caps_shares, told.health), (false, GpuHealth::Degraded));
        assert_eq!(told.health_reason.as_deref(), Some(dmem::NOT_KEPT_APART));
        assert_eq!(look(&mut caps, &[&other]).health, GpuHealth::Healthy);
    }

    #[test]
    fn where_the_kernel_takes_no_limit_it_is_not_said() {
        let root = tempfile::tempdir().unwrap();
        let (mut caps, look) = host(root.path());
        // A file stands where the group would be.
        fs::write(root.path().join("clawnode"), "").unwrap();
        assert!(!look(&mut caps, &[]).caps_shares);
    }
}
