//! Holds whoever has a share of a GPU to the share's memory: by the kernel's `dmem` control groups.
//!
//! The controller is part of version 2 of control groups since Linux 6.14 (cgroup-v2.rst, "DMEM"). Drivers
//! register their memory as regions: amdgpu and xe as `drm/<pci>/vram…`, NVIDIA's from 615 on as
//! `nvidia/<pci>/vidmem` (MPS v3, "Memory Partitioning"; its caution about writing these files is about the soft
//! limits, which are not set here). `dmem.capacity` of the root lists them; `<region> <bytes>` in `dmem.max` of a
//! group is a limit that its members cannot raise, whatever their environment says, unless they are root on the host
//! (a container's root is not). NVIDIA's driver refuses what goes beyond it, amdgpu moves it to the host's memory. No
//! kernel with such a region was at hand.

use std::fs;
use std::io;
use std::path::Path;

use claw_proto::message::DesiredWorkload;
use claw_proto::topology::GpuInfo;
use claw_proto::validation::{GPU_MILLI, is_capped_share, share_memory_mib, share_milli};
use serde::{Deserialize, Serialize};

use crate::gpu::merge::pci_address;

/// Where control groups are.
pub(crate) const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Name of our groups below the root.
pub(super) const PARENT: &str = "clawnode";
const CONTROLLER: &str = "dmem";
const LIMITS: &str = "dmem.max";
const SWITCH: &str = "cgroup.subtree_control";

/// Why a GPU takes no share: it does not hold them to their memory, and somebody counts on that.
pub(crate) const NOT_KEPT_APART: &str = "shares of it are not held to their memory, and one that must be is there";

/// What an attempt may have of one GPU's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemoryCap {
    /// The kernel's name of that memory.
    pub(super) region: String,
    pub(super) bytes: u64,
    /// The node says that all who share the GPU have such a limit: without it nothing is run.
    pub(super) must: bool,
}

/// The region that is the memory of this GPU; none where it has several, for one limit says nothing of their sum.
pub(crate) fn region_of(capacity: &str, gpu: &GpuInfo) -> Option<String> {
    let is_its = |region: &&str| {
        let mut parts = region.split('/').skip(1);
        let at = parts.next().and_then(pci_address);
        let memory = parts.next().unwrap_or_default();
        at.is_some()
            && at == gpu.pci_address
            && (memory.starts_with("vram") || memory == "vidmem")
            && parts.next().is_none()
    };
    let mut its = capacity.lines().filter_map(|line| line.split_whitespace().next()).filter(is_its);
    let first = its.next()?.to_owned();
    its.next().is_none().then_some(first)
}

/// The regions of this host, as the kernel lists them; nothing where this process may not limit them.
pub(crate) fn capacity(root: &Path) -> Option<String> {
    // Opened and not written: whether it may be is all that is asked.
    fs::OpenOptions::new().write(true).open(root.join(SWITCH)).ok()?;
    fs::read_to_string(root.join("dmem.capacity")).ok()
}

/// Limits a group of our own, where nothing runs, and removes it.
///
/// # Errors
/// The kernel does not take the limit.
pub(crate) fn try_out(root: &Path, region: &str) -> io::Result<()> {
    let group = root.join(PARENT).join(format!("probe.{}", std::process::id()));
    fs::create_dir_all(&group)?;
    let taken = apply(root, &group, &MemoryCap { region: region.to_owned(), bytes: 1024 * 1024, must: true });
    if let Err(error) = fs::remove_dir(&group) {
        tracing::debug!(%error, "a group that was tried out is still there");
    }
    taken
}

/// What a workload may have of the GPU that it has a share of; nothing where no kernel can limit it, or the config does
/// not want it (`limits`). It is limited also where others are not, so that in time all are.
///
/// # Errors
/// The kernel does not know the GPU's memory any more, or it is not to run without a limit and there is none.
pub(super) fn cap_of(
    root: &Path,
    workload: &DesiredWorkload,
    (gpus, limits): (&[GpuInfo], bool),
) -> io::Result<Option<MemoryCap>> {
    let milli = share_milli(&workload.spec);
    let its = |gpu: &&GpuInfo| milli < GPU_MILLI && workload.gpus.contains(&gpu.uuid);
    let Some(gpu) = gpus.iter().find(its) else { return Ok(None) };
    let region = if limits { capacity(root).and_then(|all| region_of(&all, gpu)) } else { None };
    if !gpu.caps_shares && (region.is_none() || is_capped_share(&workload.spec)) {
        // Nor does anybody come beside one that counts on it.
        let must = is_capped_share(&workload.spec) || gpu.health_reason.as_deref() == Some(NOT_KEPT_APART);
        return if must { Err(io::Error::new(io::ErrorKind::Unsupported, NOT_KEPT_APART)) } else { Ok(None) };
    }
    let gone = || io::Error::new(io::ErrorKind::NotFound, format!("the kernel lists no memory of GPU {}", gpu.uuid));
    let bytes = share_memory_mib(milli, gpu.memory_mib) * 1024 * 1024;
    Ok(Some(MemoryCap { region: region.ok_or_else(gone)?, bytes, must: gpu.caps_shares }))
}

/// Limits a group below `root` and looks whether the kernel took it.
///
/// # Errors
/// It did not: nothing may run in the group then.
pub(super) fn apply(root: &Path, group: &Path, cap: &MemoryCap) -> io::Result<()> {
    let named = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let below = group.strip_prefix(root).map_err(io::Error::other)?;
    let mut above = root.to_path_buf();
    for part in below.components() {
        let child = above.join(part);
        if !child.join(LIMITS).exists() {
            let switched = fs::write(above.join(SWITCH), format!("+{CONTROLLER}"));
            switched.map_err(|error| named("the controller cannot be switched on", error))?;
        }
        above = child;
    }
    let limits = group.join(LIMITS);
    fs::write(&limits, format!("{} {}", cap.region, cap.bytes)).map_err(|error| named(LIMITS, error))?;
    let told = fs::read_to_string(&limits).map_err(|error| named(LIMITS, error))?;
    if holds(&told, cap) { Ok(()) } else { Err(io::Error::other(format!("{LIMITS} says {:?}", told.trim()))) }
}

/// The file says that the group is held to so much, or to less than a page less.
fn holds(told: &str, cap: &MemoryCap) -> bool {
    let limit = told.lines().find_map(|line| line.strip_prefix(cap.region.as_str())?.strip_prefix(' '));
    limit.and_then(|bytes| bytes.trim().parse::<u64>().ok()).is_some_and(|bytes| bytes <= cap.bytes)
}

#[cfg(test)]
mod tests {
    use claw_proto::ids::{Attempt, GpuUuid, WorkloadId};
    use claw_proto::spec::{GpuRequest, GpuVendor, Isolation, RuntimeKind, WorkloadSpec};

    use super::*;
    use crate::runtime::samples;

    const CAPACITY: &str = "drm/0000:08:00.0/vram 17095983104\ndrm/0000:0a:00.0/vram0 4294967296\n\
                            drm/0000:0a:00.0/vram1 4294967296\ndrm/0000:08:00.0/stolen 1\n\
                            nvidia/00000000:1B:00.0/vidmem 85520809984\n";

    fn gpu(address: Option<&str>) -> GpuInfo {
        let pci_address = address.map(ToOwned::to_owned);
        GpuInfo { pci_address, ..GpuInfo::new(GpuUuid("GPU-1".into()), 0, GpuVendor::Nvidia, "H100", 81_559) }
    }

    /// A folder with the files that the kernel would have.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("dmem.capacity"), CAPACITY).unwrap();
        fs::write(root.path().join(SWITCH), "").unwrap();
        root
    }

    #[test]
    fn memory_of_a_gpu_is_known_by_its_address_where_it_is_one_region() {
        let root = tree();
        let told = |address| capacity(root.path()).and_then(|all| region_of(&all, &gpu(address))).is_some();
        assert!(told(Some("0000:08:00.0")) && told(Some("0000:1b:00.0")));
        assert!(!told(Some("0000:0a:00.0")), "two regions are not one limit");
        assert!(!told(Some("0000:09:00.0")) && !told(None));
        fs::remove_file(root.path().join(SWITCH)).unwrap();
        assert!(!told(Some("0000:08:00.0")), "who may not limit it does not say so");
    }

    #[test]
    fn a_share_has_its_part_of_what_the_driver_leaves_and_the_kernel_is_asked_whether_it_took_it() {
        let root = tree();
        let mut gpus = vec![gpu(Some("0000:1b:00.0"))];
        gpus[0].caps_shares = true;
        let key = (WorkloadId::from_bits(1), Attempt(1));
        let desired = |fraction: f64| {
            let spec = WorkloadSpec {
                gpu: Some(GpuRequest { fraction: Some(fraction), ..GpuRequest::default() }),
                ..WorkloadSpec::default()
            };
            let gpus = vec![GpuUuid("GPU-1".into())];
            DesiredWorkload { gpus, ..samples::desired(key, RuntimeKind::Process, spec) }
        };
        let cap = cap_of(root.path(), &desired(0.5), (&gpus, true)).unwrap().unwrap();
        // 3 % of 81,559 MiB is the driver's.
        assert_eq!((cap.region.as_str(), cap.bytes), ("nvidia/00000000:1B:00.0/vidmem", 39_556 * 1024 * 1024));
        assert_eq!(cap_of(root.path(), &desired(1.0), (&gpus, true)).unwrap(), None, "a whole one is its own");

        let group = root.path().join("clawnode/wl.1");
        fs::create_dir_all(&group).unwrap();
        apply(root.path(), &group, &cap).unwrap();
        let wrote = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(wrote("clawnode/wl.1/dmem.max"), format!("{} {}", cap.region, cap.bytes));
        assert_eq!((wrote(SWITCH).as_str(), wrote("clawnode/cgroup.subtree_control").as_str()), ("+dmem", "+dmem"));
        assert!(holds(&format!("drm/other max\n{} 4096\n", cap.region), &cap));
        assert!(!holds(&format!("{} max\n", cap.region), &cap) && !holds("", &cap), "it is not held");

        // Who must have it is not run without.
        gpus[0].caps_shares = false;
        let beside = cap_of(root.path(), &desired(0.5), (&gpus, true)).unwrap().unwrap();
        assert_eq!(
            (beside.bytes, beside.must),
            (cap.bytes, false),
            "it is limited where it can be, also beside others"
        );
        assert_eq!(cap_of(root.path(), &desired(0.5), (&gpus, false)).unwrap(), None);
        let mut must = desired(0.5);
        must.spec.gpu.as_mut().unwrap().isolation = Some(Isolation::Memory);
        assert_eq!(cap_of(root.path(), &must, (&gpus, true)).unwrap_err().kind(), io::ErrorKind::Unsupported);
        gpus[0].health_reason = Some(NOT_KEPT_APART.into());
        let beside = cap_of(root.path(), &desired(0.5), (&gpus, false)).unwrap_err();
        assert_eq!(beside.to_string(), NOT_KEPT_APART, "nor is anybody run beside one that counts on it");
        gpus[0].caps_shares = true;
        try_out(root.path(), &cap.region).unwrap();
        fs::write(root.path().join("dmem.capacity"), "").unwrap();
        let gone = cap_of(root.path(), &desired(0.5), (&gpus, true)).unwrap_err();
        assert_eq!(gone.to_string(), "the kernel lists no memory of GPU GPU-1");
    }
}
