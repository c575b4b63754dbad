//! What a node measures of its GPUs and workloads beyond the few numbers of
//! [`super::GpuMetrics`], and what its drivers report as events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::closed_enum;
use crate::ids::{Attempt, GpuUuid, WorkloadId};
use crate::time::Timestamp;

closed_enum! {
    /// Why a GPU's clocks are lower than they could be (NVML clocks event reasons).
    ThrottleReason {
        /// Nothing runs.
        GpuIdle = "gpu_idle",
        /// Clocks were set so.
        ApplicationsClocks = "applications_clocks",
        /// Software power cap.
        SwPowerCap = "sw_power_cap",
        /// Hardware slowdown: too hot, power brake or too much current.
        HwSlowdown = "hw_slowdown",
        /// Held to the clocks of its sync boost group.
        SyncBoost = "sync_boost",
        /// Software thermal slowdown.
        SwThermal = "sw_thermal",
        /// Hardware thermal slowdown.
        HwThermal = "hw_thermal",
        /// External power brake.
        HwPowerBrake = "hw_power_brake",
        /// Display clocks.
        DisplayClocks = "display_clocks"
    }
}

/// Rows of GPU memory that were replaced because of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemappedRows {
    /// After correctable errors.
    pub correctable: u32,
    /// After uncorrectable errors.
    pub uncorrectable: u32,
    /// A remapping waits for a reset of the GPU.
    pub pending: bool,
    /// A remapping failed: the GPU has to be replaced.
    pub failed: bool,
}

/// A process that uses a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuProcess {
    /// Process id on the host.
    pub pid: u32,
    /// GPU memory that it uses, MiB.
    pub memory_used_mib: u64,
    /// Workload that it belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_id: Option<WorkloadId>,
}

/// Further numbers of one GPU; what its driver does not tell is absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GpuDetails {
    /// Memory bus busy, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_utilization_percent: Option<f32>,
    /// Clock of the multiprocessors, MHz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sm_clock_mhz: Option<u32>,
    /// Clock of the memory, MHz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_clock_mhz: Option<u32>,
    /// Power limit in force, watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_limit_watts: Option<f32>,
    /// Fan, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fan_percent: Option<u32>,
    /// Why its clocks are lower than they could be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub throttle_reasons: Vec<ThrottleReason>,
    /// Memory errors corrected since it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_corrected_total: Option<u64>,
    /// Memory errors not corrected since it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_uncorrected_total: Option<u64>,
    /// Replaced rows of its memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remapped_rows: Option<RemappedRows>,
    /// PCIe generation of the link now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie_generation: Option<u32>,
    /// PCIe lanes of the link now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie_width: Option<u32>,
    /// PCIe packets sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pcie_replays: Option<u32>,
    /// Errors of all NVLinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlink_errors_total: Option<u64>,
    /// Processes that use it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<GpuProcess>,
}

/// What one attempt uses of its node. Totals count from its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadMetrics {
    /// Workload.
    pub workload_id: WorkloadId,
    /// Attempt.
    pub attempt: Attempt,
    /// CPU, percent of one core.
    pub cpu_percent: f32,
    /// Memory in use, MiB.
    pub memory_used_mib: u64,
    /// Memory that it may use, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_mib: Option<u64>,
    /// Processes and threads.
    pub n_pids: u32,
    /// Received over its network, bytes.
    pub network_rx_bytes: u64,
    /// Sent over its network, bytes.
    pub network_tx_bytes: u64,
    /// Read from disks, bytes.
    pub disk_read_bytes: u64,
    /// Written to disks, bytes.
    pub disk_write_bytes: u64,
    /// Nothing really ran.
    pub simulated: bool,
}

closed_enum! {
    /// What a driver reported of a GPU.
    GpuEventKind {
        /// An Xid of the NVIDIA driver; `code` is its number.
        Xid = "xid",
        /// A memory error that was not corrected.
        EccDoubleBit = "ecc_double_bit",
        /// A memory error that was corrected.
        EccSingleBit = "ecc_single_bit",
        /// Its power state changed.
        PowerState = "power_state",
        /// Its clocks changed.
        Clock = "clock",
        /// It does not answer any more.
        Lost = "lost"
    }
}

/// One event of one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuEvent {
    /// Which GPU.
    pub uuid: GpuUuid,
    /// What.
    pub kind: GpuEventKind,
    /// Number of the driver, such as an Xid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// Detail for people.
    pub detail: String,
    /// Node's clock.
    pub at: Timestamp,
    /// A simulated driver made it.
    pub simulated: bool,
}
