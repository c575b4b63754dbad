//! What is kept of a GPU's samples, in how many bytes, and what it still shows.

use claw_proto::ids::{GpuUuid, WorkloadId};
use claw_proto::message::{GpuDetails, GpuMetrics, GpuProcess, RemappedRows, ThrottleReason};
use claw_proto::time::Timestamp;

use crate::diagnose::series::window::{FRESH, THINNED, THINNED_MS, WINDOW_BYTES, Window};
use crate::diagnose::series::{Sample, Series, Sign, analyze, bits, thresholds};

const START_MS: i64 = 1_800_000_000_000;
const GAP_MS: i64 = 600_000;

fn at(s: i64) -> Timestamp {
    Timestamp::from_unix_ms(START_MS + s * 1_000)
}

fn gpu(details: Option<GpuDetails>) -> GpuMetrics {
    GpuMetrics {
        uuid: GpuUuid("GPU-1".into()),
        utilization_percent: 90.0,
        memory_used_mib: 40_000,
        memory_total_mib: 81_559,
        temperature_celsius: 60.0,
        power_watts: 300.0,
        simulated: false,
        details: details.map(Box::new),
    }
}

fn all(window: &Window) -> Vec<Sample> {
    window.samples(Timestamp::from_unix_ms(0), GAP_MS)
}

#[test]
fn an_endless_series_takes_a_stated_number_of_bytes() {
    let mut window = Window::default();
    assert!(window.bytes() < 200, "nothing is held in reserve");
    for n in 0..20_000 {
        window.push(at(10 * n), &gpu(None));
        assert!(window.bytes() <= WINDOW_BYTES, "{} bytes after {n} samples", window.bytes());
    }
    let samples = all(&window);
    assert_eq!(samples.len(), FRESH + THINNED);
    let steps: Vec<f64> = samples.windows(2).map(|pair| pair[1].at_s - pair[0].at_s).collect();
    assert!(steps.iter().rev().take(FRESH - 1).all(|step| (step - 10.0).abs() < 1e-6), "the newest as they came");
    let thinned = THINNED_MS as f64 / 1e3;
    // The last of them still grows.
    assert!(steps.iter().take(THINNED - 2).all(|step| (step - thinned).abs() < 1e-6), "the older thinned: {steps:?}");
    assert_eq!(window.last(), Some(at(199_990)));
}

#[test]
fn numbers_are_kept_as_told_and_what_is_not_told_is_absent() {
    let details = GpuDetails {
        sm_clock_mhz: Some(1_410),
        throttle_reasons: vec![ThrottleReason::HwPowerBrake, ThrottleReason::GpuIdle, ThrottleReason::SwPowerCap],
        ecc_corrected_total: Some(7),
        remapped_rows: Some(RemappedRows { correctable: 1, uncorrectable: 0, pending: true, failed: false }),
        pcie_generation: Some(5),
        pcie_width: Some(16),
        nvlink_errors_total: Some(u64::MAX),
        processes: vec![
            GpuProcess { pid: 1, memory_used_mib: 30_000, workload_id: Some(WorkloadId::from_bits(1)) },
            GpuProcess { pid: 2, memory_used_mib: 9_000, workload_id: None },
        ],
        ..GpuDetails::default()
    };
    let mut window = Window::default();
    window.push(at(0), &gpu(Some(details)));
    let blind = GpuMetrics { power_watts: 0.0, temperature_celsius: 0.0, ..gpu(Some(GpuDetails::default())) };
    window.push(at(10), &blind);
    window.push(at(20), &GpuMetrics { memory_used_mib: u64::MAX, ..gpu(None) });
    let known = Sample { utilization_percent: 90.0, memory_used_mib: 40_000.0, ..Sample::default() };
    let at_s = START_MS as f64 / 1e3;
    let told = Sample {
        at_s,
        own_memory_mib: Some(30_000.0),
        power_watts: Some(300.0),
        temperature_celsius: Some(60.0),
        clock_mhz: Some(1_410.0),
        reasons: bits::BRAKE | bits::POWER_CAP,
        pcie_generation: Some(5),
        pcie_width: Some(16),
        nvlink_errors: Some(u64::MAX),
        ecc_corrected: Some(7),
        remap_pending: true,
        ..known
    };
    let samples = all(&window);
    assert_eq!(samples[0], told);
    assert_eq!(samples[1], Sample { at_s: at_s + 10.0, ..known });
    assert!(samples[2].memory_used_mib >= f64::from(u32::MAX), "what does not fit is not less");
}

#[test]
fn a_silence_ends_what_a_series_knows_and_a_clock_that_was_set_back_begins_anew() {
    let mut window = Window::default();
    for s in [0, 10, 10, 5, 20, 700, 710] {
        window.push(at(s), &gpu(None));
    }
    let times = |window: &Window| -> Vec<f64> {
        all(window).iter().map(|sample| sample.at_s - START_MS as f64 / 1e3).collect()
    };
    assert_eq!(times(&window), [700.0, 710.0], "of what was before the silence nothing is known to go on");
    assert_eq!(window.samples(at(0), 700_000).len(), 5, "doubled and late ones are left out");
    assert_eq!(window.samples(at(20), 700_000).len(), 3);
    window.push(at(-5_000), &gpu(None));
    assert_eq!(times(&window), [-5_000.0]);
}

#[test]
fn what_a_series_shows_it_shows_from_its_window_too() {
    let brake = GpuDetails { throttle_reasons: vec![ThrottleReason::HwPowerBrake], ..GpuDetails::default() };
    let capped = GpuDetails { throttle_reasons: vec![ThrottleReason::SwPowerCap], ..GpuDetails::default() };
    let signs = |details: &dyn Fn(i64) -> GpuDetails| -> Vec<Sign> {
        let mut window = Window::default();
        for n in 0..1_000 {
            window.push(at(10 * n), &gpu(Some(details(n))));
        }
        let series = Series { samples: all(&window), memory_total_mib: 81_559.0, ..Series::default() };
        analyze(&[series], thresholds()).into_iter().map(|finding| finding.sign).collect()
    };
    assert_eq!(signs(&|n| if n >= 990 { brake.clone() } else { GpuDetails::default() }), [Sign::PowerBrake]);
    assert_eq!(signs(&|_| capped.clone()), [Sign::PowerCap]);
    // In each of the samples that thinning alone would keep, and in no other.
    assert_eq!(signs(&|n| if n % 2 == 0 { brake.clone() } else { GpuDetails::default() }), []);
    assert_eq!(signs(&|n| if n % 12 == 0 { brake.clone() } else { GpuDetails::default() }), []);
    let width = |n| GpuDetails {
        pcie_width: Some(if n < 900 { 16 } else { 4 }),
        pcie_generation: Some(5),
        ..GpuDetails::default()
    };
    assert_eq!(signs(&width), [Sign::PcieDowntrained]);
    assert_eq!(
        signs(&|n| GpuDetails { ecc_corrected_total: Some(n.unsigned_abs()), ..GpuDetails::default() }),
        [Sign::EccSlope]
    );
}

#[test]
fn every_sign_that_is_no_normal_thing_has_a_code_with_its_action() {
    for sign in Sign::ALL {
        assert_eq!(sign.code().is_none(), sign == Sign::PowerCap, "{sign:?}");
        assert_eq!(sign.asks().action, sign.action());
    }
}
