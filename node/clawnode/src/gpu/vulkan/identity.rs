//! What the devices of a probe's list are to the fleet: pure.

use std::collections::{BTreeMap, BTreeSet};

use claw_compute::report::{DeviceKind, DeviceReport};
use claw_proto::ids::GpuUuid;
use claw_proto::limits::NODE_TEXT_CHARS_MAX;
use claw_proto::spec::GpuVendor;
use claw_proto::topology::GpuInfo;

use super::super::merge::pci_address;
use super::super::models;

const MIB: u64 = 1024 * 1024;

/// `VK_DRIVER_ID_NVIDIA_PROPRIETARY`.
const NVIDIA_PROPRIETARY: u32 = 4;

/// Begins the UUID of a device that is no GPU.
const SOFTWARE_PREFIX: &str = "vk-cpu-";

/// Whether a GPU of a list is none: the host's processors do its work.
pub fn is_software(gpu: &GpuInfo) -> bool {
    gpu.uuid.0.starts_with(SOFTWARE_PREFIX)
}

/// The GPUs of a list. Software devices are left out unless they are wanted. A GPU that
/// several drivers offer is listed once, by the driver with the lowest `VkDriverId`.
pub(super) fn gpus(devices: &[DeviceReport], with_software: bool) -> Vec<GpuInfo> {
    let mut devices: Vec<&DeviceReport> =
        devices.iter().filter(|device| with_software || !is_software_device(device)).collect();
    devices.sort_by_key(|device| device.driver_id);
    let mut addresses = BTreeSet::new();
    devices.retain(|device| {
        let address = device.pci_address.as_deref().and_then(pci_address);
        address.is_none_or(|address| addresses.insert(address))
    });
    let (mut n_with_uuid, mut n_of_model) = (BTreeMap::new(), BTreeMap::new());
    for device in &devices {
        *n_with_uuid.entry(device.uuid.as_deref()).or_insert(0_u32) += 1;
    }
    let gpu = |(index, device): (u32, &DeviceReport)| {
        let address = device.pci_address.as_deref().and_then(pci_address);
        let n = n_of_model.entry((device.vendor_id, device.device_id)).or_insert(0_u32);
        *n += 1;
        // Drivers that give one UUID to all GPUs of a model do exist.
        let own = device.uuid.as_deref().filter(|uuid| n_with_uuid.get(&Some(*uuid)) == Some(&1));
        let uuid = own.map_or_else(|| by_place(device, address.as_deref(), *n), |own| uuid(device, own));
        GpuInfo {
            pci_address: address,
            driver_version: driver_version(device),
            ..GpuInfo::new(GpuUuid(uuid), index, vendor(device.vendor_id), model(device), memory_mib(device))
        }
    };
    (0..).zip(devices).map(gpu).collect()
}

fn is_software_device(device: &DeviceReport) -> bool {
    device.software || device.kind == DeviceKind::Cpu
}

/// PCI vendor ids; Vulkan's own ids of vendors without one are others.
fn vendor(id: u32) -> GpuVendor {
    match id {
        0x10de => GpuVendor::Nvidia,
        0x1002 => GpuVendor::Amd,
        0x8086 => GpuVendor::Intel,
        0x106b => GpuVendor::Apple,
        _ => GpuVendor::Other,
    }
}

/// NVIDIA's driver has one UUID of a GPU for Vulkan, CUDA and NVML: in NVML's spelling
/// it is the same GPU whichever driver sees it first, and container engines know it.
fn uuid(device: &DeviceReport, own: &str) -> String {
    if is_software_device(device) {
        return format!("{SOFTWARE_PREFIX}{own}");
    }
    if device.driver_id != NVIDIA_PROPRIETARY {
        return format!("vk-{own}");
    }
    let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)].map(|(from, to)| own.get(from..to).unwrap_or_default());
    format!("GPU-{}", parts.join("-"))
}

/// A name for a GPU whose driver gives it none, or not one of its own: its place on the
/// bus, or which one of its model it is.
fn by_place(device: &DeviceReport, address: Option<&str>, n: u32) -> String {
    let prefix = if is_software_device(device) { SOFTWARE_PREFIX } else { "vk-" };
    match address {
        Some(address) => format!("{prefix}pci-{address}"),
        None => format!("{prefix}{:04x}-{:04x}-{n}", device.vendor_id, device.device_id),
    }
}

/// `AMD Radeon RX 7900 XTX (RADV NAVI31)` is RX 7900 XTX: what stands in parentheses is
/// about the driver.
fn model(device: &DeviceReport) -> String {
    let name = ["(R)", "(r)", "(TM)", "(tm)"].iter().fold(device.name.clone(), |name, mark| name.replace(mark, ""));
    let name = name.split(" (").next().unwrap_or_default();
    if is_software_device(device) { format!("software {}", models::short(name)) } else { models::short(name) }
}

/// The largest heap that is the device's own. Drivers list a window into the same
/// memory as a further heap, so their sum may be more than there is.
fn memory_mib(device: &DeviceReport) -> u64 {
    let own = device.heaps.iter().filter(|heap| heap.device_local);
    own.map(|heap| heap.size_bytes / MIB).max().unwrap_or_default()
}

fn driver_version(device: &DeviceReport) -> Option<String> {
    let told = [&device.driver_info, &device.driver_version].into_iter().find(|text| !text.is_empty())?;
    Some(told.chars().take(NODE_TEXT_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use claw_compute::report::HeapReport;
    use expect_test::expect;

    use super::*;

    fn device(name: &str, vendor_id: u32, driver_id: u32, uuid: &str, address: Option<&str>) -> DeviceReport {
        let heap = |mib: u64, device_local| HeapReport { size_bytes: mib * MIB, device_local, budget_bytes: None };
        DeviceReport {
            name: name.to_owned(),
            vendor_id,
            device_id: 7,
            kind: DeviceKind::Discrete,
            driver_id,
            driver_info: "v1".to_owned(),
            uuid: (!uuid.is_empty()).then(|| uuid.repeat(16)),
            pci_address: address.map(str::to_owned),
            heaps: vec![heap(24_320, true), heap(64_000, false), heap(256, true)],
            ..DeviceReport::default()
        }
    }

    fn rows(gpus: &[GpuInfo]) -> String {
        let row = |gpu: &GpuInfo| {
            let address = gpu.pci_address.as_deref().unwrap_or("-");
            format!("{} {} {} {} {} MiB at {address}\n", gpu.index, gpu.uuid, gpu.vendor, gpu.model, gpu.memory_mib)
        };
        gpus.iter().map(row).collect()
    }

    #[test]
    fn devices_become_gpus_once_each() {
        let llvmpipe = DeviceReport {
            kind: DeviceKind::Cpu,
            ..device("llvmpipe (LLVM 15.0.6, 256 bits)", 0x1_0005, 13, "6d", None)
        };
        let devices = [
            llvmpipe,
            device("AMD Radeon RX 7900 XTX (RADV NAVI31)", 0x1002, 3, "a1", Some("0000:C1:00.0")),
            device("AMD Radeon RX 7900 XTX", 0x1002, 2, "a2", Some("0000:c1:00.0")),
            device("NVIDIA H100 80GB HBM3", 0x10de, 4, "1b", Some("0000:1b:00.0")),
            device("Intel(R) Arc(tm) A770 Graphics (DG2)", 0x8086, 6, "8d", Some("0000:03:00.0")),
            device("Intel(R) Arc(tm) A770 Graphics (DG2)", 0x8086, 6, "8d", Some("0000:04:00.0")),
            device("Apple M2 Ultra (G14D)", 0x106b, 24, "ab", None),
            device("Thing", 0x1_0003, 9, "", None),
            device("Thing", 0x1_0003, 9, "", None),
        ];
        expect![[r"
            0 vk-a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2 amd RX 7900 XTX 24320 MiB at 0000:c1:00.0
            1 GPU-1b1b1b1b-1b1b-1b1b-1b1b-1b1b1b1b1b1b nvidia H100 24320 MiB at 0000:1b:00.0
            2 vk-pci-0000:03:00.0 intel Arc A770 Graphics 24320 MiB at 0000:03:00.0
            3 vk-pci-0000:04:00.0 intel Arc A770 Graphics 24320 MiB at 0000:04:00.0
            4 vk-10003-0007-1 other Thing 24320 MiB at -
            5 vk-10003-0007-2 other Thing 24320 MiB at -
            6 vk-abababababababababababababababab apple M2 Ultra 24320 MiB at -
        "]]
        .assert_eq(&rows(&gpus(&devices, false)));
        let all = gpus(&devices, true);
        let software: Vec<&GpuInfo> = all.iter().filter(|gpu| is_software(gpu)).collect();
        assert_eq!((all.len(), software.len()), (8, 1));
        assert_eq!(software[0].uuid.0, format!("vk-cpu-{}", "6d".repeat(16)));
        assert_eq!((software[0].model.as_str(), software[0].vendor), ("software llvmpipe", GpuVendor::Other));
        assert_eq!(software[0].driver_version.as_deref(), Some("v1"));
    }
}
