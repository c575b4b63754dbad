//! What the Vulkan loader sees, asked directly: an instance, no device, no queue.
//!
//! The loader is opened at run time. Names and numbers are those of the Vulkan
//! specification 1.3 (physical devices, `VK_EXT_pci_bus_info`, `VK_EXT_memory_budget`).
#![expect(unsafe_code, reason = "every call of the Vulkan API is a foreign call")]

use std::ffi::CStr;

use ash::ext::{memory_budget, pci_bus_info};
use ash::khr::portability_enumeration;
use ash::vk;

use crate::report::{DeviceKind, DeviceReport, ErrorCode, HeapReport, ListReport, ProbeError};

/// Lists the loader's devices, in its order. A loader without a driver has none.
///
/// # Errors
/// [`ErrorCode::NoLoader`], [`ErrorCode::DriverFailed`].
pub fn list() -> Result<ListReport, ProbeError> {
    // SAFETY: the loader's initializers are trusted as those of every library of the system.
    let entry = unsafe { ash::Entry::load() }.map_err(|error| {
        let message = format!("the Vulkan loader cannot be opened: {error}");
        ProbeError::new(ErrorCode::NoLoader, message)
    })?;
    // SAFETY: no argument.
    let version = unsafe { entry.try_enumerate_instance_version() }.map_err(failed("vkEnumerateInstanceVersion"))?;
    let loader_version = version.unwrap_or(vk::API_VERSION_1_0);
    let mut report = ListReport { loader_version: version_text(loader_version), devices: Vec::new() };
    if loader_version < vk::API_VERSION_1_1 {
        let message = format!("the loader speaks Vulkan {}, at least 1.1 is needed", report.loader_version);
        return Err(ProbeError::new(ErrorCode::DriverFailed, message));
    }
    let Some(instance) = Instance::new(&entry)? else { return Ok(report) };
    // SAFETY: the instance lives.
    let devices = unsafe { instance.0.enumerate_physical_devices() };
    // A driver that cannot start its devices answers so; the loader has none then.
    let devices = match devices {
        Err(vk::Result::ERROR_INITIALIZATION_FAILED) => Vec::new(),
        devices => devices.map_err(failed("vkEnumeratePhysicalDevices"))?,
    };
    for device in devices {
        report.devices.push(instance.describe(device)?);
    }
    Ok(report)
}

fn failed(call: &'static str) -> impl Fn(vk::Result) -> ProbeError {
    move |result| {
        let code = match result {
            vk::Result::ERROR_DEVICE_LOST => ErrorCode::DeviceLost,
            _ => ErrorCode::DriverFailed,
        };
        ProbeError::new(code, format!("{call}: {result:?}"))
    }
}

/// An instance that is destroyed at the end.
struct Instance(ash::Instance);

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: nothing that was made from it is used any more.
        unsafe { self.0.destroy_instance(None) };
    }
}

impl Instance {
    /// An instance; none if no driver is installed.
    fn new(entry: &ash::Entry) -> Result<Option<Self>, ProbeError> {
        // SAFETY: no layer is named.
        let known = unsafe { entry.enumerate_instance_extension_properties(None) };
        let known = known.map_err(failed("vkEnumerateInstanceExtensionProperties"))?;
        let has = |name: &CStr| known.iter().any(|one| one.extension_name_as_c_str() == Ok(name));
        // Drivers on top of another API, such as MoltenVK, are shown on request only.
        let (mut flags, mut extensions) = (vk::InstanceCreateFlags::empty(), Vec::new());
        if has(portability_enumeration::NAME) {
            flags |= vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR;
            extensions.push(portability_enumeration::NAME.as_ptr());
        }
        let application =
            vk::ApplicationInfo::default().application_name(c"claw-gpu-probe").api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default()
            .flags(flags)
            .application_info(&application)
            .enabled_extension_names(&extensions);
        // SAFETY: all that the structure points to lives until the call returns.
        match unsafe { entry.create_instance(&info, None) } {
            Ok(instance) => Ok(Some(Self(instance))),
            Err(vk::Result::ERROR_INCOMPATIBLE_DRIVER) => Ok(None),
            Err(result) => Err(failed("vkCreateInstance")(result)),
        }
    }

    fn describe(&self, device: vk::PhysicalDevice) -> Result<DeviceReport, ProbeError> {
        // SAFETY: the device belongs to this instance, here and below.
        let basic = unsafe { self.0.get_physical_device_properties(device) };
        // SAFETY: as above.
        let known = unsafe { self.0.enumerate_device_extension_properties(device) };
        let known = known.map_err(failed("vkEnumerateDeviceExtensionProperties"))?;
        let has = |name: &CStr| known.iter().any(|one| one.extension_name_as_c_str() == Ok(name));
        let modern = basic.api_version >= vk::API_VERSION_1_1;
        let has_driver = basic.api_version >= vk::API_VERSION_1_2 || has(ash::khr::driver_properties::NAME);
        let has_address = has(pci_bus_info::NAME);

        let mut ids = vk::PhysicalDeviceIDProperties::default();
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut address = vk::PhysicalDevicePCIBusInfoPropertiesEXT::default();
        if modern {
            let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut ids);
            if has_driver {
                all = all.push_next(&mut driver);
            }
            if has_address {
                all = all.push_next(&mut address);
            }
            // SAFETY: only structures that this device knows are in the chain.
            unsafe { self.0.get_physical_device_properties2(device, &mut all) };
        }
        let kind = kind(basic.device_type);
        Ok(DeviceReport {
            name: text(basic.device_name_as_c_str().ok()),
            vendor_id: basic.vendor_id,
            device_id: basic.device_id,
            kind,
            software: kind == DeviceKind::Cpu,
            api_version: version_text(basic.api_version),
            driver_id: u32::try_from(driver.driver_id.as_raw()).unwrap_or_default(),
            driver_name: text(driver.driver_name_as_c_str().ok()),
            driver_info: text(driver.driver_info_as_c_str().ok()),
            driver_version: driver_version(driver.driver_id, basic.vendor_id, basic.driver_version),
            uuid: (modern && ids.device_uuid != [0; vk::UUID_SIZE]).then(|| hex(&ids.device_uuid)),
            pci_address: (modern && has_address).then(|| pci_address(&address)),
            heaps: self.heaps(device, modern && has(memory_budget::NAME)),
        })
    }

    fn heaps(&self, device: vk::PhysicalDevice, has_budget: bool) -> Vec<HeapReport> {
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let memory = if has_budget {
            let mut all = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
            // SAFETY: the device belongs to this instance and knows the structure in the chain.
            unsafe { self.0.get_physical_device_memory_properties2(device, &mut all) };
            all.memory_properties
        } else {
            // SAFETY: the device belongs to this instance.
            unsafe { self.0.get_physical_device_memory_properties(device) }
        };
        let heap = |(heap, budget): (&vk::MemoryHeap, &u64)| HeapReport {
            size_bytes: heap.size,
            device_local: heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL),
            budget_bytes: has_budget.then_some(*budget),
        };
        memory.memory_heaps_as_slice().iter().zip(&budget.heap_budget).map(heap).collect()
    }
}

fn kind(kind: vk::PhysicalDeviceType) -> DeviceKind {
    match kind {
        vk::PhysicalDeviceType::DISCRETE_GPU => DeviceKind::Discrete,
        vk::PhysicalDeviceType::INTEGRATED_GPU => DeviceKind::Integrated,
        vk::PhysicalDeviceType::VIRTUAL_GPU => DeviceKind::Virtual,
        vk::PhysicalDeviceType::CPU => DeviceKind::Cpu,
        _ => DeviceKind::Other,
    }
}

fn text(bytes: Option<&CStr>) -> String {
    bytes.map(|bytes| bytes.to_string_lossy().into_owned()).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

fn pci_address(info: &vk::PhysicalDevicePCIBusInfoPropertiesEXT<'_>) -> String {
    format!("{:04x}:{:02x}:{:02x}.{:x}", info.pci_domain, info.pci_bus, info.pci_device, info.pci_function)
}

fn version_text(version: u32) -> String {
    let (major, minor) = (vk::api_version_major(version), vk::api_version_minor(version));
    format!("{major}.{minor}.{}", vk::api_version_patch(version))
}

/// NVIDIA's own driver packs its version in 10, 8, 8 and 6 bits; others as Vulkan does.
fn driver_version(driver: vk::DriverId, vendor_id: u32, version: u32) -> String {
    const NVIDIA: u32 = 0x10de;
    let untold = driver == vk::DriverId::default() && vendor_id == NVIDIA;
    if driver != vk::DriverId::NVIDIA_PROPRIETARY && !untold {
        return version_text(version);
    }
    let parts = [version >> 22, (version >> 14) & 0xff, (version >> 6) & 0xff, version & 0x3f];
    let shown = if parts[3] == 0 { &parts[..3] } else { &parts[..] };
    shown.iter().map(|part| format!("{part:02}")).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_their_vendors_pack_them() {
        let packed = (550 << 22) | (54 << 14) | (15 << 6);
        assert_eq!(driver_version(vk::DriverId::NVIDIA_PROPRIETARY, 0x10de, packed), "550.54.15");
        assert_eq!(driver_version(vk::DriverId::default(), 0x10de, packed | 1), "550.54.15.01");
        let mesa = vk::make_api_version(0, 22, 3, 6);
        assert_eq!(driver_version(vk::DriverId::MESA_RADV, 0x1002, mesa), "22.3.6");
        assert_eq!(driver_version(vk::DriverId::MESA_NVK, 0x10de, mesa), "22.3.6");
    }

    #[test]
    fn addresses_are_spelled_as_the_kernel_does() {
        let info = vk::PhysicalDevicePCIBusInfoPropertiesEXT::default()
            .pci_domain(0)
            .pci_bus(0xc1)
            .pci_device(0x1f)
            .pci_function(7);
        assert_eq!(pci_address(&info), "0000:c1:1f.7");
    }
}
