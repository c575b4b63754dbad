//! GPUs of several drivers as one list: pure.
//!
//! Two drivers may see one GPU (Vulkan sees what NVML sees). They are joined by
//! PCI address; the driver that stands first wins, and the vendors' own stand
//! before Vulkan. The order is stable: by driver, then address, then UUID, and
//! the slices of a GPU behind it.

use std::collections::{BTreeMap, BTreeSet};

use claw_proto::ids::GpuUuid;
use claw_proto::limits::GPUS_PER_NODE_MAX;
use claw_proto::topology::{FindingCode, GpuDriver as GpuDriverKind, GpuHealth, GpuInfo, NodeFinding};

/// `domain:bus:device.function` in the kernel's spelling: NVML writes a domain of
/// eight digits and upper case, others leave the domain out.
pub fn pci_address(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let (rest, function) = text.rsplit_once('.').unwrap_or((&text, "0"));
    let mut parts = rest.rsplit(':');
    let (device, bus) = (parts.next()?, parts.next()?);
    let domain = parts.next().unwrap_or("0");
    if parts.next().is_some() {
        return None;
    }
    let number = |digits: &str, max: u32| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|n| plain && *n <= max)
    };
    let (domain, bus) = (number(domain, u32::MAX)?, number(bus, 0xff)?);
    let (device, function) = (number(device, 0x1f)?, number(function, 7)?);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

/// What one driver sees, by rank.
#[derive(Debug, Clone)]
pub struct Sight {
    /// Which driver.
    pub kind: GpuDriverKind,
    /// Its GPUs.
    pub gpus: Vec<GpuInfo>,
}

/// One list of what all drivers see, the first ones first.
pub fn merge(sights: &[Sight]) -> Vec<GpuInfo> {
    let (mut merged, mut uuids, mut addresses) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut next_island = 0;
    let several = sights.iter().filter(|sight| !sight.gpus.is_empty()).count() > 1;
    for sight in sights {
        let mut gpus: Vec<GpuInfo> = sight.gpus.clone();
        for gpu in &mut gpus {
            if let Some(address) = gpu.pci_address.as_deref().and_then(pci_address) {
                gpu.pci_address = Some(address);
            }
            gpu.driver = if several { Some(sight.kind) } else { gpu.driver };
        }
        // What a driver before this one has is left to it.
        gpus.retain(|gpu| gpu.pci_address.as_ref().is_none_or(|address| !addresses.contains(address)));
        gpus.retain(|gpu| uuids.insert(gpu.uuid.clone()));
        addresses.extend(gpus.iter().filter_map(|gpu| gpu.pci_address.clone()));
        gpus.sort_by(|a, b| (a.pci_address.is_none(), order(a)).cmp(&(b.pci_address.is_none(), order(b))));
        next_island = renumber_islands(&mut gpus, next_island);
        merged.extend(gpus);
    }
    merged.truncate(GPUS_PER_NODE_MAX);
    for (index, gpu) in (0..).zip(&mut merged) {
        gpu.index = index;
    }
    merged
}

/// Islands of different drivers are different islands.
fn renumber_islands(gpus: &mut [GpuInfo], first: u32) -> u32 {
    let mut names = BTreeMap::new();
    for gpu in gpus.iter_mut() {
        if let Some(island) = gpu.nvlink_island {
            let next = first.saturating_add(u32::try_from(names.len()).unwrap_or(u32::MAX));
            gpu.nvlink_island = Some(*names.entry(island).or_insert(next));
        }
    }
    first.saturating_add(u32::try_from(names.len()).unwrap_or(u32::MAX))
}

fn order(gpu: &GpuInfo) -> (&str, bool, u32, &str) {
    (gpu.pci_address.as_deref().unwrap_or_default(), is_slice(gpu), gpu.index, &gpu.uuid.0)
}

fn is_slice(gpu: &GpuInfo) -> bool {
    gpu.mig.is_some()
}

/// Adds the GPUs that a driver listed before and lists no more: they keep their
/// identity and have failed. A slice that is gone is kept only as long as its
/// GPU is gone too, since slices are also made and removed on purpose.
pub fn remember(known: &[GpuInfo], kind: GpuDriverKind, gpus: &mut Vec<GpuInfo>) -> Vec<NodeFinding> {
    let listed: BTreeSet<GpuUuid> = gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    let there: BTreeSet<String> = gpus.iter().filter_map(|gpu| gpu.pci_address.clone()).collect();
    let mut findings = Vec::new();
    for gpu in known.iter().filter(|gpu| !listed.contains(&gpu.uuid)) {
        if is_slice(gpu) && gpu.pci_address.as_ref().is_none_or(|address| there.contains(address)) {
            continue;
        }
        let detail = format!("the {kind} driver listed it before and does not any more");
        if !is_slice(gpu) {
            let subject = gpu.uuid.0.clone();
            findings.push(NodeFinding { code: FindingCode::GpuLost, subject, detail: detail.clone() });
        }
        gpus.push(GpuInfo { health: GpuHealth::Failed, health_reason: Some(detail), ..gpu.clone() });
    }
    findings
}

/// At least this bad, for this reason; what is worse already keeps its own.
pub fn at_least(gpu: &mut GpuInfo, health: GpuHealth, reason: &str) {
    if gpu.health < health {
        (gpu.health, gpu.health_reason) = (health, Some(reason.to_owned()));
    }
}
