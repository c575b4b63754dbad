//! What the GPUs are and how they are connected.

use std::collections::BTreeMap;
use std::path::Path;

use claw_proto::ids::GpuUuid;
use claw_proto::limits::NAME_CHARS_MAX;
use claw_proto::spec::GpuVendor;
use claw_proto::topology::{GpuInfo, MigSlice};
use nvml_wrapper::enum_wrappers::device::{P2pCapabilitiesIndex, P2pStatus, TopologyLevel};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};

use super::super::merge::pci_address;
use super::super::models;
use super::super::topology::{self, Link, Place};
use super::measure::MIB;

/// Most NVLinks of one GPU (NVML_NVLINK_MAX_LINKS).
const LINKS_MAX: u32 = 18;

/// A GPU as it is, and the slices that it is partitioned into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) gpu: GpuInfo,
    pub(super) slices: Vec<GpuInfo>,
}

/// What one GPU is, apart from its connections to others.
///
/// # Errors
/// What the driver says if the GPU does not answer.
pub(super) fn identify(
    device: &Device<'_>,
    index: u32,
    driver_version: Option<&str>,
    sysfs: &Path,
    nics: &[(String, Place)],
) -> Result<Known, NvmlError> {
    let name = device.name()?;
    let memory_mib = match device.memory_info() {
        Ok(memory) => memory.total / MIB,
        // It shares the memory of the host.
        Err(NvmlError::NotSupported) => 0,
        Err(error) => return Err(error),
    };
    let address = device.pci_info().ok().and_then(|info| pci_address(&info.bus_id));
    let place = address.as_deref().map(|address| topology::place(sysfs, address)).unwrap_or_default();
    let capability = device.cuda_compute_capability().ok();
    let gpu = GpuInfo {
        pci_address: address,
        numa_node: place.numa_node.or_else(|| device.numa_node_id().ok()),
        compute_capability: capability.map(|capability| format!("{}.{}", capability.major, capability.minor)),
        driver_version: driver_version.map(str::to_owned),
        // As `nvidia-ctk` numbers them; the numbers move, so who attaches it looks what it means.
        cdi_device: Some(format!("nvidia.com/gpu={index}")),
        nics: topology::nearest(&place, nics),
        ..GpuInfo::new(GpuUuid(device.uuid()?), index, GpuVendor::Nvidia, models::short(&name), memory_mib)
    };
    let slices = slices(device, &gpu);
    Ok(Known { gpu, slices })
}

/// The slices of a GPU in MIG mode.
fn slices(device: &Device<'_>, gpu: &GpuInfo) -> Vec<GpuInfo> {
    if device.mig_mode().map_or(0, |mode| mode.current) == 0 {
        return Vec::new();
    }
    // Numbers without a slice are errors: they need not be dense.
    (0..device.mig_device_count().unwrap_or(0))
        .filter_map(|n| slice(&device.mig_device_by_index(n).ok()?, n, gpu))
        .collect()
}

fn slice(device: &Device<'_>, n: u32, gpu: &GpuInfo) -> Option<GpuInfo> {
    let attributes = device.attributes().ok();
    let memory_mib = device.memory_info().ok().map(|memory| memory.total / MIB);
    let memory_mib = memory_mib.or_else(|| attributes.as_ref().map(|attributes| attributes.memory_size_mb))?;
    let name = device.name().unwrap_or_default();
    // Drivers name a slice "NVIDIA A100-SXM4-40GB MIG 1g.5gb".
    let profile = name.rsplit_once("MIG ").map(|(_, profile)| profile.trim().to_owned());
    let profile = profile.filter(|profile| !profile.is_empty() && profile.chars().count() <= NAME_CHARS_MAX);
    let by_size = || {
        let n_slices = attributes.as_ref().map_or(1, |attributes| attributes.gpu_instance_slice_count);
        format!("{n_slices}g.{}gb", memory_mib.div_ceil(1_024))
    };
    Some(GpuInfo {
        uuid: GpuUuid(device.uuid().ok()?),
        index: n,
        memory_mib,
        nvlink_island: None,
        mig: Some(MigSlice { parent: gpu.uuid.clone(), profile: profile.unwrap_or_else(by_size) }),
        cdi_device: gpu.cdi_device.as_ref().map(|name| format!("{name}:{n}")),
        ..gpu.clone()
    })
}

/// Fills in what only shows between GPUs: NVLink islands, and the NUMA node of
/// one that the host does not tell but whose neighbor is known.
pub(super) fn connect(nvml: &Nvml, known: &mut BTreeMap<u32, Known>) {
    let devices: Vec<(u32, Device<'_>)> =
        known.keys().filter_map(|index| Some((*index, nvml.device_by_index(*index).ok()?))).collect();
    let uuids: Vec<GpuUuid> = known.values().map(|known| known.gpu.uuid.clone()).collect();
    let islands = topology::islands(&uuids, &links(&devices, known));
    for one in known.values_mut() {
        one.gpu.nvlink_island = islands.get(&one.gpu.uuid).copied();
    }
    let missing: Vec<u32> =
        known.iter().filter(|(_, one)| one.gpu.numa_node.is_none()).map(|(index, _)| *index).collect();
    for index in missing {
        let Some(node) = neighbor_node(nvml, index, known) else { continue };
        if let Some(one) = known.get_mut(&index) {
            one.gpu.numa_node = Some(node);
            for slice in &mut one.slices {
                slice.numa_node = Some(node);
            }
        }
    }
}

/// Connections as they were known; GPUs that are new have none yet.
pub(super) fn keep_connections(before: &BTreeMap<u32, Known>, known: &mut BTreeMap<u32, Known>) {
    for one in known.values_mut() {
        if let Some(old) = before.values().find(|old| old.gpu.uuid == one.gpu.uuid) {
            one.gpu.nvlink_island = old.gpu.nvlink_island;
            one.gpu.numa_node = one.gpu.numa_node.or(old.gpu.numa_node);
        }
    }
}

/// The NUMA node of a GPU at the same one.
fn neighbor_node(nvml: &Nvml, index: u32, known: &BTreeMap<u32, Known>) -> Option<u32> {
    let device = nvml.device_by_index(index).ok()?;
    known.iter().filter(|(other, _)| **other != index).find_map(|(other, neighbor)| {
        let node = neighbor.gpu.numa_node?;
        match device.topology_common_ancestor(nvml.device_by_index(*other).ok()?).ok()? {
            TopologyLevel::Internal
            | TopologyLevel::Single
            | TopologyLevel::Multiple
            | TopologyLevel::HostBridge
            | TopologyLevel::Node => Some(node),
            TopologyLevel::System => None,
        }
    })
}

fn links(devices: &[(u32, Device<'_>)], known: &BTreeMap<u32, Known>) -> Vec<(GpuUuid, Link)> {
    let uuid_at = |index: &u32| known.get(index).map(|known| known.gpu.uuid.clone());
    let by_address: BTreeMap<&str, &GpuUuid> =
        known.values().filter_map(|known| Some((known.gpu.pci_address.as_deref()?, &known.gpu.uuid))).collect();
    let mut links = Vec::new();
    let mut linked = Vec::new();
    for (index, device) in devices {
        let (Some(uuid), remotes) = (uuid_at(index), active_links(device)) else { continue };
        if !remotes.is_empty() {
            linked.push((uuid.clone(), device));
        }
        // The other end is a GPU of this host, or something that others may also
        // be linked to: an NVSwitch. Its type cannot be had: the wrapper's
        // `remote_device_type` drops what the driver answers.
        for address in remotes.into_iter().flatten() {
            let link = by_address.get(address.as_str()).map(|uuid| Link::Gpu((*uuid).clone()));
            links.push((uuid.clone(), link.unwrap_or(Link::Hub(address))));
        }
    }
    // Switches outside this host have no address here; the driver still knows who reaches whom.
    for (n, (uuid, device)) in linked.iter().enumerate() {
        for (other_uuid, other) in &linked[n + 1..] {
            if device.p2p_status(other, P2pCapabilitiesIndex::NvLink).is_ok_and(|status| status == P2pStatus::Ok) {
                links.push((uuid.clone(), Link::Gpu(other_uuid.clone())));
            }
        }
    }
    links
}

/// The active links of a GPU: the address of the other end, where the driver tells it.
fn active_links(device: &Device<'_>) -> Vec<Option<String>> {
    let mut remotes = Vec::new();
    for number in 0..LINKS_MAX {
        let link = device.link_wrapper_for(number);
        match link.is_active() {
            Ok(true) => {
                let address = link.remote_pci_info().ok().and_then(|info| pci_address(&info.bus_id));
                remotes.push(address.filter(|address| !address.starts_with("0000:00:00.")));
            }
            Ok(false) => {}
            // No such link, or no links at all.
            Err(_) => break,
        }
    }
    remotes
}
