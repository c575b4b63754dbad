//! What a node has: GPUs and how they are connected, CPU, memory, runtimes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::closed_enum;
use crate::ids::GpuUuid;
use crate::spec::{GpuVendor, RuntimeKind};

closed_enum! {
    /// Which driver reported the GPUs.
    GpuDriver { None = "none", Sim = "sim", Nvml = "nvml", Rocm = "rocm", Metal = "metal", Vulkan = "vulkan" }
}
closed_enum! {
    /// Health of one GPU as its node sees it.
    GpuHealth { Healthy = "healthy", Degraded = "degraded", Failed = "failed" }
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuInfo {
    /// UUID from the driver; the unit of allocation.
    pub uuid: GpuUuid,
    /// Index on its node; may change over a reboot.
    pub index: u32,
    /// Vendor.
    pub vendor: GpuVendor,
    /// Model in short form, such as H100.
    pub model: String,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// PCI address (domain:bus:device.function), if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// Which NVLink (or xGMI) island it belongs to; GPUs with the same number reach each other by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlink_island: Option<u32>,
    /// NUMA node of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Health.
    pub health: GpuHealth,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_reason: Option<String>,
}

/// What a node can do, as it reports at registration and on change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeCapabilities {
    /// Host name.
    pub hostname: String,
    /// Operating system and version.
    pub os: String,
    /// CPU architecture, such as x86_64.
    pub arch: String,
    /// Version of the agent.
    pub agent_version: String,
    /// CPU, thousandths of a core.
    pub cpu_millis: u64,
    /// Host memory, MiB.
    pub memory_mib: u64,
    /// Scratch disk, MiB.
    pub disk_mib: u64,
    /// Driver that reported the GPUs.
    pub gpu_driver: GpuDriver,
    /// GPUs.
    pub gpus: Vec<GpuInfo>,
    /// Runtimes that the node's config allows and that work.
    pub runtimes: Vec<RuntimeKind>,
    /// The node's GPUs or its only runtime are simulated.
    pub simulated: bool,
    /// Labels from the node's own config.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}
