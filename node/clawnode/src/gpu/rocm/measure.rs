//! The numbers of one GPU. What the kernel does not tell is absent.

use std::collections::BTreeMap;
use std::path::Path;

use claw_proto::limits::PROCESSES_PER_GPU_MAX;
use claw_proto::message::{GpuDetails, GpuMetrics, GpuProcess};

use super::super::OwnerOf;
use super::amd_smi::Reading;
use super::identity::{Known, MIB};
use super::kfd;
use super::sysfs::{self, Errors};

/// Sensors of a kind that hwmon may have.
const SENSORS_MAX: u32 = 16;
const MILLIDEGREES_PER_DEGREE: f32 = 1_000.0;
const MICROWATTS_PER_WATT: f32 = 1_000_000.0;
const HERTZ_PER_MEGAHERTZ: u64 = 1_000_000;
/// Full speed of a fan in hwmon's `pwm1`.
const PWM_FULL: u64 = 255;

/// Measures a GPU; nothing if it does not answer.
pub(super) fn measure(
    sysfs: &Path,
    known: &Known,
    reading: Option<&Reading>,
    errors: Option<Errors>,
    owner_of: &OwnerOf,
) -> Option<GpuMetrics> {
    let device = &known.card.device;
    let number = |file: &str| sysfs::number(&device.join(file));
    // Without its memory nothing can be said of it; a busy GPU may not tell how busy.
    let used = number("mem_info_vram_used")?;
    let hwmon = sysfs::hwmon(device).map(|folder| Hwmon::read(&folder)).unwrap_or_default();
    let errors = errors.or_else(|| {
        let reading = reading?;
        Some(Errors { corrected: reading.ecc_corrected?, uncorrected: reading.ecc_uncorrected? })
    });
    let clock = |label: &str, table: &str| {
        let of_table = || sysfs::text(&device.join(table)).and_then(|table| sysfs::clock_of(&table));
        hwmon.clock_mhz(label).or_else(of_table)
    };
    Some(GpuMetrics {
        uuid: known.gpu.uuid.clone(),
        utilization_percent: number("gpu_busy_percent").map_or(0.0, percent),
        memory_used_mib: used / MIB,
        memory_total_mib: known.gpu.memory_mib,
        temperature_celsius: hwmon.temperature_celsius().unwrap_or(0.0),
        power_watts: hwmon.power_watts.unwrap_or(0.0),
        simulated: false,
        details: Some(Box::new(GpuDetails {
            memory_utilization_percent: number("mem_busy_percent").map(percent),
            sm_clock_mhz: clock("sclk", "pp_dpm_sclk"),
            memory_clock_mhz: clock("mclk", "pp_dpm_mclk"),
            power_limit_watts: hwmon.power_limit_watts,
            fan_percent: hwmon.fan_percent,
            throttle_reasons: reading.map(|reading| reading.throttle_reasons.clone()).unwrap_or_default(),
            ecc_corrected_total: errors.map(|errors| errors.corrected),
            ecc_uncorrected_total: errors.map(|errors| errors.uncorrected),
            remapped_rows: None,
            pcie_generation: sysfs::text(&device.join("current_link_speed"))
                .and_then(|speed| sysfs::generation_of(&speed)),
            pcie_width: number("current_link_width").and_then(|width| u32::try_from(width).ok()),
            pcie_replays: number("pcie_replay_count").and_then(|count| u32::try_from(count).ok()),
            // Reading the counter of XGMI errors would reset it.
            nvlink_errors_total: None,
            processes: processes(sysfs, known, owner_of),
        })),
    })
}

fn percent(number: u64) -> f32 {
    number.min(100) as f32
}

fn processes(sysfs: &Path, known: &Known, owner_of: &OwnerOf) -> Vec<GpuProcess> {
    let processes = kfd::processes(sysfs, &known.gpu_ids, PROCESSES_PER_GPU_MAX);
    let process =
        |(pid, bytes): (u32, u64)| GpuProcess { pid, memory_used_mib: bytes / MIB, workload_id: owner_of(pid) };
    processes.into_iter().map(process).collect()
}

/// What the sensors of a GPU say.
#[derive(Debug, Clone, PartialEq, Default)]
struct Hwmon {
    /// By label: `edge`, `junction`, `mem`.
    temperatures: BTreeMap<String, f32>,
    /// By label: `sclk`, `mclk`; MHz.
    clocks: BTreeMap<String, u32>,
    power_watts: Option<f32>,
    power_limit_watts: Option<f32>,
    fan_percent: Option<u32>,
}

impl Hwmon {
    fn read(folder: &Path) -> Self {
        let number = |file: &str| sysfs::number(&folder.join(file));
        let sensors = |kind: &str| -> BTreeMap<String, u64> {
            let sensor = |n: u32| {
                let value = number(&format!("{kind}{n}_input"))?;
                let label = sysfs::text(&folder.join(format!("{kind}{n}_label")));
                Some((label.unwrap_or_else(|| format!("{kind}{n}")), value))
            };
            (1..=SENSORS_MAX).filter_map(sensor).collect()
        };
        let watts = |file: &str| number(file).map(|microwatts| microwatts as f32 / MICROWATTS_PER_WATT);
        let megahertz = |hertz: u64| u32::try_from(hertz / HERTZ_PER_MEGAHERTZ).unwrap_or(u32::MAX);
        let degrees = |milli: u64| milli as f32 / MILLIDEGREES_PER_DEGREE;
        Self {
            temperatures: sensors("temp").into_iter().map(|(label, value)| (label, degrees(value))).collect(),
            clocks: sensors("freq").into_iter().map(|(label, value)| (label, megahertz(value))).collect(),
            // The average, or what newer GPUs tell: the power now.
            power_watts: watts("power1_average").or_else(|| watts("power1_input")),
            power_limit_watts: watts("power1_cap"),
            fan_percent: number("pwm1").and_then(|pwm| u32::try_from(pwm.min(PWM_FULL) * 100 / PWM_FULL).ok()),
        }
    }

    /// The hottest place of the chip, which its clocks go by; else what there is.
    fn temperature_celsius(&self) -> Option<f32> {
        let labelled = |label: &str| self.temperatures.get(label).copied();
        labelled("junction").or_else(|| labelled("edge")).or_else(|| self.temperatures.values().copied().next())
    }

    fn clock_mhz(&self, label: &str) -> Option<u32> {
        self.clocks.get(label).copied()
    }
}
