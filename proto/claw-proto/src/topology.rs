//! What a node has: GPUs and how they are connected, CPU, memory, runtimes.

use std::collections::{BTreeMap, BTreeSet};

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

/// A slice of a partitioned GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigSlice {
    /// GPU that it is a part of.
    pub parent: GpuUuid,
    /// Profile, such as 1g.10gb.
    pub profile: String,
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
    /// Set if it is a slice of another GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<MigSlice>,
    /// Driver that sees it, where a node has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<GpuDriver>,
    /// CUDA compute capability, or the architecture's name (gfx942).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<String>,
    /// Version of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// Name for container engines (CDI), such as nvidia.com/gpu=0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdi_device: Option<String>,
    /// Network interfaces nearest to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<String>,
    /// Whoever gets a share of it is held to the share's memory by the host's kernel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub caps_shares: bool,
}

impl GpuInfo {
    /// A healthy GPU of which nothing more is known.
    pub fn new(uuid: GpuUuid, index: u32, vendor: GpuVendor, model: impl Into<String>, memory_mib: u64) -> Self {
        Self {
            uuid,
            index,
            vendor,
            model: model.into(),
            memory_mib,
            pci_address: None,
            nvlink_island: None,
            numa_node: None,
            health: GpuHealth::Healthy,
            health_reason: None,
            mig: None,
            driver: None,
            compute_capability: None,
            driver_version: None,
            cdi_device: None,
            nics: Vec::new(),
            caps_shares: false,
        }
    }

    /// How much of a GPU it is, thousandths, if it is a MIG slice.
    pub fn mig_milli(&self) -> Option<u16> {
        crate::validation::mig_profile_milli(&self.mig.as_ref()?.profile)
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicInfo {
    /// Name, such as eth0.
    pub name: String,
    /// NUMA node of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// PCI address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// Speed of the link, Mbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u32>,
    /// It has an RDMA device.
    pub rdma: bool,
}

/// The container engine of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineInfo {
    /// Docker or Podman.
    pub name: String,
    /// Version of the engine.
    pub version: String,
    /// Version of the API that is spoken with it.
    pub api_version: String,
    /// It can attach devices by CDI name.
    pub cdi: bool,
}

closed_enum! {
    /// What is wrong with a node, short of not working at all.
    FindingCode {
        /// The driver's library is not on the machine.
        DriverAbsentLibrary = "driver_absent_library",
        /// The kernel driver is not loaded.
        DriverNotLoaded = "driver_not_loaded",
        /// Library and kernel driver are of different versions.
        DriverVersionMismatch = "driver_version_mismatch",
        /// The driver does not answer.
        DriverHung = "driver_hung",
        /// The driver failed.
        DriverFailed = "driver_failed",
        /// A GPU does not answer any more.
        GpuLost = "gpu_lost",
        /// A GPU has to be reset.
        GpuNeedsReset = "gpu_needs_reset",
        /// A GPU reported an error.
        GpuErrorEvent = "gpu_error_event",
        /// The container engine does not answer.
        EngineUnavailable = "engine_unavailable",
        /// The container engine cannot do something that workloads may need.
        EngineLimited = "engine_limited",
        /// The node's certificate ends soon and was not renewed.
        CertificateExpiring = "certificate_expiring",
        /// What the kernel says cannot be read.
        KernelLogUnreadable = "kernel_log_unreadable"
    }
}

/// One thing that is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeFinding {
    /// What.
    pub code: FindingCode,
    /// Driver, GPU or engine that it is about.
    pub subject: String,
    /// Detail for people.
    pub detail: String,
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
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<NodeFinding>,
    /// Its container engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineInfo>,
    /// Its network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<NicInfo>,
    /// Changes when the machine starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
}

/// The rails of a node: its RDMA adapters, in the order of their addresses. In a fabric where the first adapters of all
/// nodes meet at one switch, the second ones at another, and so on, the rail of a GPU is the number of the adapter that
/// is nearest to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rails<'a>(Vec<&'a str>);

impl Rails<'_> {
    /// How many there are. Nodes with as many number them alike; of others nobody knows which is missing.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The rail of a GPU of the node; none where the node reports no RDMA adapter near it. Of several that are equally
    /// near it is the first.
    pub fn of(&self, gpu: &GpuInfo) -> Option<u32> {
        let numbers = gpu.nics.iter().filter_map(|nic| self.0.iter().position(|adapter| adapter == nic));
        numbers.min().and_then(|rail| u32::try_from(rail).ok())
    }
}

impl NodeCapabilities {
    /// Its rails.
    pub fn rails(&self) -> Rails<'_> {
        let mut adapters: Vec<&NicInfo> = self.nics.iter().filter(|nic| nic.rdma).collect();
        adapters.sort_by_key(|nic| (nic.pci_address.is_none(), nic.pci_address.as_deref(), &nic.name));
        Rails(adapters.into_iter().map(|nic| nic.name.as_str()).collect())
    }

    /// GPUs that can be given as a whole: no slices, and none that is cut in slices.
    pub fn whole_gpus(&self) -> impl Iterator<Item = &GpuInfo> {
        let cut: BTreeSet<&GpuUuid> = self.gpus.iter().filter_map(|gpu| Some(&gpu.mig.as_ref()?.parent)).collect();
        self.gpus.iter().filter(move |gpu| gpu.mig.is_none() && !cut.contains(&gpu.uuid))
    }

    /// All that can be given: whole GPUs, and the MIG slices of those that are cut.
    pub fn given_gpus(&self) -> impl Iterator<Item = &GpuInfo> {
        self.whole_gpus().chain(self.gpus.iter().filter(|gpu| gpu.mig_milli().is_some()))
    }
}
