//! The numbers of one GPU. What a GPU or its driver does not tell is absent.

use claw_proto::ids::GpuUuid;
use claw_proto::limits::PROCESSES_PER_GPU_MAX;
use claw_proto::message::{GpuDetails, GpuMetrics, GpuProcess, RemappedRows, ThrottleReason};
use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id;

use super::super::OwnerOf;

pub(super) const MIB: u64 = 1024 * 1024;
const MILLIWATTS_PER_WATT: f32 = 1_000.0;

/// The driver's own verdict on what to do with a GPU (NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, driver 570 and newer).
const RECOVERY_ACTION: u32 = 230;

/// Measures a GPU.
///
/// # Errors
/// What the driver says if not even its memory can be read.
pub(super) fn measure(device: &Device<'_>, uuid: &GpuUuid, owner_of: &OwnerOf) -> Result<GpuMetrics, NvmlError> {
    let memory = device.memory_info()?;
    // A partitioned GPU has no utilization as a whole.
    let utilization = device.utilization_rates().ok();
    Ok(GpuMetrics {
        uuid: uuid.clone(),
        utilization_percent: utilization.as_ref().map_or(0.0, |rates| rates.gpu as f32),
        memory_used_mib: memory.used / MIB,
        memory_total_mib: memory.total / MIB,
        temperature_celsius: device.temperature(TemperatureSensor::Gpu).map_or(0.0, |celsius| celsius as f32),
        power_watts: device.power_usage().map_or(0.0, watts),
        simulated: false,
        details: Some(Box::new(GpuDetails {
            memory_utilization_percent: utilization.map(|rates| rates.memory as f32),
            sm_clock_mhz: device.clock_info(Clock::SM).ok(),
            memory_clock_mhz: device.clock_info(Clock::Memory).ok(),
            power_limit_watts: device.enforced_power_limit().ok().map(watts),
            fan_percent: device.fan_speed(0).ok(),
            throttle_reasons: device.current_throttle_reasons().map(throttle_reasons).unwrap_or_default(),
            ecc_corrected_total: device.total_ecc_errors(MemoryError::Corrected, EccCounter::Aggregate).ok(),
            ecc_uncorrected_total: device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Aggregate).ok(),
            remapped_rows: remapped_rows(device),
            pcie_generation: device.current_pcie_link_gen().ok(),
            pcie_width: device.current_pcie_link_width().ok(),
            pcie_replays: device.pcie_replay_counter().ok(),
            nvlink_errors_total: nvlink_errors(device),
            processes: processes(device, owner_of),
        })),
    })
}

fn watts(milliwatts: u32) -> f32 {
    milliwatts as f32 / MILLIWATTS_PER_WATT
}

fn throttle_reasons(reasons: ThrottleReasons) -> Vec<ThrottleReason> {
    let table = [
        (ThrottleReasons::GPU_IDLE, ThrottleReason::GpuIdle),
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, ThrottleReason::ApplicationsClocks),
        (ThrottleReasons::SW_POWER_CAP, ThrottleReason::SwPowerCap),
        (ThrottleReasons::HW_SLOWDOWN, ThrottleReason::HwSlowdown),
        (ThrottleReasons::SYNC_BOOST, ThrottleReason::SyncBoost),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, ThrottleReason::SwThermal),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, ThrottleReason::HwThermal),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, ThrottleReason::HwPowerBrake),
        (ThrottleReasons::DISPLAY_CLOCK_SETTING, ThrottleReason::DisplayClocks),
    ];
    table.into_iter().filter(|(bit, _)| reasons.contains(*bit)).map(|(_, reason)| reason).collect()
}

/// Field values in the order asked for; absent where the driver has none.
fn fields<const N: usize>(device: &Device<'_>, ids: [u32; N]) -> [Option<u64>; N] {
    let values = device.field_values_for(&ids.map(FieldId)).unwrap_or_default();
    let mut numbers = [None; N];
    for (number, value) in numbers.iter_mut().zip(values) {
        *number = value.ok().and_then(|sample| sample.value.ok()).and_then(number_of);
    }
    numbers
}

fn number_of(value: SampleValue) -> Option<u64> {
    match value {
        SampleValue::U32(number) => Some(u64::from(number)),
        SampleValue::U64(number) => Some(number),
        SampleValue::I64(number) => u64::try_from(number).ok(),
        SampleValue::F64(_) => None,
    }
}

/// Rows of memory that were replaced; absent on GPUs that cannot.
pub(super) fn remapped_rows(device: &Device<'_>) -> Option<RemappedRows> {
    let ids = [
        field_id::NVML_FI_DEV_REMAPPED_COR,
        field_id::NVML_FI_DEV_REMAPPED_UNC,
        field_id::NVML_FI_DEV_REMAPPED_PENDING,
        field_id::NVML_FI_DEV_REMAPPED_FAILURE,
    ];
    let [correctable, uncorrectable, pending, failed] = fields(device, ids);
    let count = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    Some(RemappedRows {
        correctable: count(correctable)?,
        uncorrectable: count(uncorrectable)?,
        pending: pending? != 0,
        failed: failed? != 0,
    })
}

/// The number of the recovery action that the driver asks for.
pub(super) fn recovery_action(device: &Device<'_>) -> Option<u64> {
    let [action] = fields(device, [RECOVERY_ACTION]);
    action
}

fn nvlink_errors(device: &Device<'_>) -> Option<u64> {
    let ids = [
        field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
        field_id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
        field_id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
        field_id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
    ];
    let counts = fields(device, ids);
    let told = counts.iter().flatten();
    told.clone().next()?;
    Some(told.fold(0, |sum: u64, count| sum.saturating_add(*count)))
}

fn processes(device: &Device<'_>, owner_of: &OwnerOf) -> Vec<GpuProcess> {
    let process = |process: nvml_wrapper::struct_wrappers::device::ProcessInfo| GpuProcess {
        pid: process.pid,
        memory_used_mib: match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => bytes / MIB,
            UsedGpuMemory::Unavailable => 0,
        },
        workload_id: owner_of(process.pid),
    };
    let processes = device.running_compute_processes().unwrap_or_default();
    processes.into_iter().take(PROCESSES_PER_GPU_MAX).map(process).collect()
}
