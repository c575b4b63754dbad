//! Signs in series: twelve classes of injected faults, healthy telemetry, a straggler among 64.
//!
//! The trace holds use and memory only. Every other signal is synthetic, made over the real
//! utilization by plain rules and noise; scores over it speak of that and not of recorded faults.

use std::collections::BTreeMap;

use super::draw::Draw;
use super::inject::{healthy, inject, telemetry, train, windows};
use crate::diagnose::code::Action;
use crate::diagnose::series::told::{Steps, told as of_line};
use crate::diagnose::series::{Sample, Series, Sign, analyze, bits, thresholds};

const SIGNS: [Sign; 12] = [
    Sign::Thermal,
    Sign::PowerCap,
    Sign::PowerBrake,
    Sign::PcieDowntrained,
    Sign::NvlinkFlap,
    Sign::PortFlap,
    Sign::Straggler,
    Sign::CollectiveHang,
    Sign::DataStarvation,
    Sign::NeighborOutOfMemory,
    Sign::IdleGpu,
    Sign::ClockLock,
];
const TRACES: u64 = 20;
const GROUP: usize = 8;

/// The first seed; `CLAW_SEED` gives fresh ones.
fn first_seed() -> u64 {
    std::env::var("CLAW_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4_000)
}

fn is_of_a_job(sign: Option<Sign>) -> bool {
    matches!(sign, Some(Sign::Straggler | Sign::CollectiveHang | Sign::DataStarvation))
}

/// A group of eight GPUs under real use, with one fault or none; the sign that leads on the victim.
fn told(windows: &[&[(f64, f64, f64)]], sign: Option<Sign>, seed: u64) -> Option<Sign> {
    let mut draw = Draw(seed.wrapping_mul(0x51_7c_c1) ^ sign.map_or(99, |sign| sign as u64 + 1));
    let mut group: Vec<Series> = (0..GROUP)
        .map(|gpu| {
            let window = windows[draw.below(windows.len())];
            healthy(&mut draw, gpu, window)
        })
        .collect();
    if is_of_a_job(sign) || (sign.is_none() && seed.is_multiple_of(2)) {
        train(&mut draw, &mut group);
    }
    let victim = draw.below(GROUP);
    if let Some(sign) = sign {
        inject(&mut draw, sign, &mut group, victim);
    }
    let found = analyze(&group, thresholds());
    let name = &group[victim].gpu;
    found.iter().find(|f| f.gpu == *name || f.sign == Sign::CollectiveHang).map(|f| f.sign)
}

#[test]
fn twelve_classes_of_faults_are_told_apart() {
    let Some(telemetry) = telemetry() else { return };
    let windows = windows(&telemetry);
    let (mut hits, mut wanted, mut given) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut wrong = Vec::new();
    for sign in SIGNS.map(Some).into_iter().chain([None]) {
        for seed in 0..TRACES {
            let told = told(&windows, sign, seed + first_seed());
            *wanted.entry(sign).or_insert(0_u32) += 1;
            *given.entry(told).or_insert(0_u32) += 1;
            if told == sign {
                *hits.entry(sign).or_insert(0_u32) += 1;
            } else {
                wrong.push((sign, seed, told));
            }
        }
    }
    let of = |map: &BTreeMap<Option<Sign>, u32>, sign| f64::from(map.get(&sign).copied().unwrap_or(0));
    let f1 = |sign| {
        let (hit, want, gave) = (of(&hits, sign), of(&wanted, sign), of(&given, sign));
        2.0 * hit / (want + gave).max(1.0)
    };
    let macro_f1 = SIGNS.iter().map(|sign| f1(Some(*sign))).sum::<f64>() / SIGNS.len() as f64;
    println!("macro-F1 {macro_f1:.3}, healthy F1 {:.3}; wrong: {wrong:?}", f1(None));
    assert!(macro_f1 >= 0.95, "macro-F1 {macro_f1:.3}: {wrong:?}");
    assert!(f1(None) >= 0.9, "healthy traces: {wrong:?}");
}

/// Use and memory as they were recorded, and nothing else: no signal is made up.
fn untouched(gpu: usize, real: &[(f64, f64, f64)]) -> Series {
    let sample = |(at_s, use_, held): &(f64, f64, f64)| Sample {
        at_s: *at_s,
        utilization_percent: *use_,
        memory_used_mib: *held,
        ..Sample::default()
    };
    Series {
        gpu: format!("GPU-{gpu:02}"),
        node: format!("node-{}", gpu / 8),
        memory_total_mib: super::inject::TOTAL_MIB,
        samples: real.iter().map(sample).collect(),
        ..Series::default()
    }
}

#[test]
fn untouched_telemetry_gives_no_finding_of_a_fault() {
    let Some(telemetry) = telemetry() else { return };
    let all: Vec<Series> = telemetry.iter().enumerate().map(|(gpu, real)| untouched(gpu, real)).collect();
    let samples: usize = all.iter().map(|one| one.samples.len()).sum();
    assert!(all.len() >= 10 && samples >= 10_000, "{} GPUs, {samples} samples", all.len());
    let found = analyze(&all, thresholds());
    // That a GPU holds memory and does nothing is a waste that the trace really shows, and no fault.
    let (idle, faults): (Vec<_>, Vec<_>) = found.iter().partition(|finding| finding.sign == Sign::IdleGpu);
    println!("{} GPUs, {samples} samples as recorded: {} faults, {} idle", all.len(), faults.len(), idle.len());
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(idle.iter().all(|finding| !finding.sign.action().is_hardware()));
}

#[test]
fn synthetic_signals_over_a_day_of_real_utilization_are_quiet_but_for_idle_gpus() {
    let Some(telemetry) = telemetry() else { return };
    let mut draw = Draw(1);
    let all: Vec<Series> = telemetry.iter().enumerate().map(|(gpu, real)| healthy(&mut draw, gpu, real)).collect();
    let mut counts: BTreeMap<Sign, usize> = BTreeMap::new();
    for finding in analyze(&all, thresholds()) {
        *counts.entry(finding.sign).or_default() += 1;
    }
    println!("{} GPUs over up to a day: {counts:?}", all.len());
    let idle = counts.remove(&Sign::IdleGpu).unwrap_or(0);
    let capped = counts.remove(&Sign::PowerCap).unwrap_or(0);
    assert!(counts.values().sum::<usize>() <= 2, "{counts:?}, idle {idle}, capped {capped}");
}

#[test]
fn the_straggler_among_64_ranks_is_found() {
    let Some(telemetry) = telemetry() else { return };
    let windows = windows(&telemetry);
    for seed in 0..5 {
        let mut draw = Draw(seed);
        let mut ranks: Vec<Series> = (0..64)
            .map(|gpu| {
                let window = windows[draw.below(windows.len())];
                healthy(&mut draw, gpu, window)
            })
            .collect();
        train(&mut draw, &mut ranks);
        let victim = draw.below(64);
        inject(&mut draw, Sign::Straggler, &mut ranks, victim);
        let found = analyze(&ranks, thresholds());
        let first = found.iter().find(|finding| finding.sign == Sign::Straggler).expect("no straggler");
        assert_eq!(first.rank, u32::try_from(victim).ok(), "{}", first.excerpt);
    }
}

fn steady(change: impl Fn(usize, &mut Sample)) -> Series {
    let sample = |index: usize| {
        let mut sample = Sample {
            at_s: index as f64 * 60.0,
            utilization_percent: 80.0,
            memory_used_mib: 30_000.0,
            ..Sample::default()
        };
        change(index, &mut sample);
        sample
    };
    Series {
        gpu: "GPU-0".into(),
        memory_total_mib: 80_000.0,
        samples: (0..120).map(sample).collect(),
        ..Series::default()
    }
}

fn signs(series: Series) -> Vec<Sign> {
    analyze(&[series], thresholds()).into_iter().map(|finding| finding.sign).collect()
}

#[test]
fn a_power_cap_alone_asks_for_nothing() {
    let found = analyze(&[steady(|_, sample| sample.reasons = bits::POWER_CAP)], thresholds());
    let told: Vec<(Sign, Action)> = found.iter().map(|finding| (finding.sign, finding.sign.action())).collect();
    assert_eq!(told, [(Sign::PowerCap, Action::Ignore)]);
}

#[test]
fn a_single_slowdown_is_debounced() {
    assert_eq!(signs(steady(|i, sample| sample.reasons = if i % 40 == 0 { bits::HW_THERMAL } else { 0 })), []);
    assert_eq!(signs(steady(|i, sample| sample.reasons = if i % 2 == 0 { bits::BRAKE } else { 0 })), []);
}

#[test]
fn leaks_and_memory_errors_are_trends() {
    let leak = steady(|i, sample| sample.memory_used_mib = 10_000.0 + 300.0 * i as f64);
    assert_eq!(signs(leak), [Sign::MemoryLeak]);
    let errors = steady(|i, sample| sample.ecc_corrected = Some(5 * i as u64));
    assert_eq!(signs(errors), [Sign::EccSlope]);
    let pending = steady(|i, sample| sample.remap_pending = i > 100);
    assert_eq!(signs(pending), [Sign::EccSlope]);
}

#[test]
fn steps_are_read_as_trainers_print_them() {
    let of = |line: &str| of_line(line).map(|told| (told.step, told.times_s));
    for (line, step) in [
        ("step=1200 loss=2.113 tokens/s=181233", 1_200),
        ("[rank0]: 2026-01-02 INFO global_step: 77, loss: 2.0", 77),
        (" iteration      100/  500000 | consumed samples: 25600 | elapsed time per iteration (ms): 1234.5 |", 100),
        ("Step 8/90, epoch 1", 8),
    ] {
        assert_eq!(of(line), Some((step, None)), "{line}");
    }
    let both = Some((50, Some((0.51, 0.41))));
    assert_eq!(of("Epoch(train) [1] Iter(train) [  50/9000]  lr: 1e-4  time: 0.5100  data_time: 0.4100"), both);
    assert_eq!(of("iter: 50  total_loss: 1.2  time: 510 ms  data_time: 410 ms"), both);
    // What waits for longer than it takes is no such pair.
    assert_eq!(of("iter: 50 time: 0.1 data_time: 0.4"), Some((50, None)));
    for line in ["loss=2.1", "footsteps: 12", "step by step", "two-step: 3"] {
        assert_eq!(of(line), None, "{line}");
    }
    // Two steps say nothing of how a job goes on, nor does one that is told again and again.
    let mut sample = [Sample { at_s: 100.0, ..Sample::default() }];
    for lines in [["step=1", "step=2", "step=2"], ["step=1", "step=1", "step=1"]] {
        Steps::of((0..).map(f64::from).zip(lines)).count(&mut sample);
        assert_eq!(sample[0].steps, None, "{lines:?}");
    }
    Steps::of((0..).map(f64::from).zip(["step=1", "step=2", "step=3"])).count(&mut sample);
    assert_eq!(sample[0].steps, Some(3));
}
