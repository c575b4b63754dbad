//! The generator of faulty series: real telemetry with a fault put in, from a seed.
//!
//! Use of GPU and memory come from the shared trace of a serving cluster; what that trace
//! does not hold (power, clocks, links, steps) follows from the use by plain rules and noise.

use super::tables::{shared_path, skip};
use std::collections::BTreeMap;

use super::draw::Draw;
use crate::diagnose::series::{Sample, Series, Sign, bits};

/// Memory of a GPU, MiB.
pub(super) const TOTAL_MIB: f64 = 81_920.0;
/// Samples of a trace, 57 s apart.
const SAMPLES: usize = 240;

/// Use in percent and memory in MiB of one container, over time.
pub(super) type Real = Vec<(f64, f64, f64)>;

fn rows(name: &str) -> Option<BTreeMap<String, BTreeMap<i64, f64>>> {
    let path = shared_path("data/telemetry").join(name);
    let unpacked = std::process::Command::new("gzip").arg("-dc").arg(path).output();
    let Some(unpacked) = unpacked.ok().filter(|output| output.status.success()) else {
        skip(name);
        return None;
    };
    let text = String::from_utf8(unpacked.stdout).unwrap();
    let mut all: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let mut cells = line.split(',');
        let (container, at, value) = (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
        all.entry(container.to_owned()).or_default().insert(at.parse().unwrap(), value.parse().unwrap());
    }
    Some(all)
}

/// All containers that have both series.
pub(super) fn telemetry() -> Option<Vec<Real>> {
    let (duty, memory) = (rows("gpu_duty_cycle.csv.gz")?, rows("gpu_memory_used_bytes.csv.gz")?);
    let mut all = Vec::new();
    for (container, uses) in duty {
        let Some(bytes) = memory.get(&container) else { continue };
        let held = |at: &i64| bytes.range(..=at).next_back().map_or(0.0, |(_, bytes)| bytes / 1_048_576.0);
        all.push(uses.iter().map(|(at, use_)| (*at as f64, *use_, held(at))).collect());
    }
    Some(all)
}

/// Windows in which the GPU works enough for a fault to show.
pub(super) fn windows(telemetry: &[Real]) -> Vec<&[(f64, f64, f64)]> {
    let works = |window: &&[(f64, f64, f64)]| {
        let mean = window.iter().map(|(_, use_, _)| use_).sum::<f64>() / window.len() as f64;
        let loaded = window.iter().filter(|(_, use_, _)| *use_ >= 30.0).count();
        let late = window[SAMPLES - 60..].iter().any(|(_, use_, _)| *use_ > 30.0);
        mean >= 15.0 && loaded >= 60 && late
    };
    let starts = telemetry
        .iter()
        .flat_map(|real| (0..real.len().saturating_sub(SAMPLES)).step_by(40).map(move |i| &real[i..i + SAMPLES]));
    starts.filter(works).collect()
}

fn noise(draw: &mut Draw, width: f64) -> f64 {
    (draw.below(20_001) as f64 / 10_000.0 - 1.0) * width
}

/// What a healthy GPU under this use measures; counters carry on.
pub(super) fn healthy(draw: &mut Draw, gpu: usize, real: &[(f64, f64, f64)]) -> Series {
    let (mut nvlink, mut ecc) = (0_u64, 0_u64);
    let mut samples = Vec::new();
    for (at, use_, held) in real {
        nvlink += u64::from(draw.below(900) == 0);
        ecc += u64::from(draw.below(400) == 0);
        let rests = *use_ < 1.0;
        let capped = *use_ > 97.0 && draw.below(12) == 0;
        samples.push(Sample {
            at_s: *at,
            utilization_percent: *use_,
            memory_used_mib: *held,
            own_memory_mib: Some(held * 0.98),
            power_watts: Some(85.0 + 5.5 * use_ + noise(draw, 15.0)),
            clock_mhz: Some(if rests { 345.0 } else { 1_950.0 + noise(draw, 30.0) }),
            reasons: if rests {
                0x01
            } else if capped {
                bits::POWER_CAP
            } else {
                0
            },
            // At rest the link goes down by itself.
            pcie_generation: Some(if rests { 1 } else { 5 }),
            pcie_width: Some(16),
            nvlink_errors: Some(nvlink),
            port_downs: Some(0),
            ecc_corrected: Some(ecc),
            ..Sample::default()
        });
    }
    Series {
        gpu: format!("GPU-{gpu:02}"),
        node: format!("node-{}", gpu / 8),
        rank: None,
        memory_total_mib: TOTAL_MIB,
        samples,
    }
}

/// Makes a training job of them: high use with the real jitter, steps, own times.
pub(super) fn train(draw: &mut Draw, ranks: &mut [Series]) {
    for (rank, one) in ranks.iter_mut().enumerate() {
        one.rank = u32::try_from(rank).ok();
        let mean = one.samples.iter().map(|s| s.utilization_percent).sum::<f64>() / one.samples.len() as f64;
        let mut steps = 1_000;
        for (index, sample) in one.samples.iter_mut().enumerate() {
            let jitter = (sample.utilization_percent - mean) / 100.0;
            sample.at_s = index as f64 * 57.0;
            sample.utilization_percent = (93.0 + 6.0 * jitter).clamp(0.0, 100.0);
            sample.power_watts = Some(590.0 + noise(draw, 20.0));
            sample.clock_mhz = Some(1_950.0 + noise(draw, 30.0));
            sample.memory_used_mib = 60_000.0 + noise(draw, 50.0);
            sample.own_memory_mib = Some(sample.memory_used_mib - 400.0);
            sample.reasons = 0;
            sample.pcie_generation = Some(5);
            steps += 50;
            sample.steps = Some(steps);
            let own = 1.0 + 0.01 * jitter + noise(draw, 0.015);
            sample.step_own_s = Some(own);
            sample.step_data_s = Some(own * (0.04 + noise(draw, 0.02).abs()));
        }
    }
}

/// Puts a fault into the series of one GPU of a group.
pub(super) fn inject(draw: &mut Draw, sign: Sign, group: &mut [Series], victim: usize) {
    if sign == Sign::CollectiveHang {
        let from = 120 + draw.below(60);
        for one in group.iter_mut() {
            let held = one.samples[from].steps;
            for sample in &mut one.samples[from..] {
                sample.steps = held;
                sample.utilization_percent = 100.0;
                sample.power_watts = Some(sample.power_watts.unwrap() * 0.4);
                sample.step_own_s = None;
                sample.step_data_s = None;
            }
        }
        return;
    }
    let from = 60 + draw.below(60);
    let length = 40 + draw.below(60);
    let one = &mut group[victim];
    let (mut extra, factor) = (0_u64, 0.4 + noise(draw, 0.1));
    let slower = 1.12 + draw.below(30) as f64 / 100.0;
    for (index, sample) in one.samples.iter_mut().enumerate().skip(from) {
        let within = index < from + length;
        match sign {
            Sign::PowerBrake if within && draw.below(10) < 9 => sample.reasons = bits::BRAKE | bits::SLOWDOWN,
            Sign::Thermal if within && draw.below(10) < 8 => sample.reasons = bits::HW_THERMAL | bits::SLOWDOWN,
            Sign::PowerCap if within => sample.reasons = bits::POWER_CAP,
            Sign::PcieDowntrained => {
                sample.pcie_generation = sample.pcie_generation.map(|generation| generation.min(3));
                sample.pcie_width = if victim.is_multiple_of(2) { Some(8) } else { sample.pcie_width };
            }
            Sign::NvlinkFlap if within => {
                extra += if draw.below(3) == 0 { 20 + draw.below(200) as u64 } else { 0 };
            }
            Sign::PortFlap if within => extra += u64::from(draw.below(4) == 0),
            Sign::ClockLock => sample.clock_mhz = sample.clock_mhz.map(|mhz| mhz.min(1_950.0 * (0.3 + factor))),
            Sign::IdleGpu => {
                sample.utilization_percent = 0.0;
                sample.memory_used_mib = sample.memory_used_mib.max(20_000.0);
            }
            Sign::Straggler => sample.step_own_s = sample.step_own_s.map(|own| own * slower),
            Sign::DataStarvation => {
                let own = sample.step_own_s.unwrap_or(1.0);
                let wait = own * (0.7 + noise(draw, 0.3));
                sample.step_own_s = Some(own + wait);
                sample.step_data_s = Some(wait);
                sample.utilization_percent *= own / (own + wait);
            }
            Sign::NeighborOutOfMemory => {
                let taken = (1_500.0 * (index - from) as f64).min(TOTAL_MIB - 22_000.0);
                let own = if taken < TOTAL_MIB - 22_000.0 { 22_000.0 } else { 0.0 };
                let last_gasp = (index - from) as f64 * 1_500.0 - (TOTAL_MIB - 22_000.0) < 1_500.0;
                sample.own_memory_mib = Some(if last_gasp { 22_000.0 } else { own });
                sample.memory_used_mib = taken + sample.own_memory_mib.unwrap();
            }
            _ => {}
        }
        let add = |counter: Option<u64>| counter.map(|n| n + extra);
        match sign {
            Sign::NvlinkFlap => sample.nvlink_errors = add(sample.nvlink_errors),
            Sign::PortFlap => sample.port_downs = add(sample.port_downs),
            _ => {}
        }
    }
    // Steps from the start, as a straggler that was always slow.
    if sign == Sign::Straggler {
        for sample in &mut one.samples[..from] {
            sample.step_own_s = sample.step_own_s.map(|own| own * slower);
        }
    }
}
