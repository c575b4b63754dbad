//! Events and numbers of drivers: how old they may be, and what they ask for.

use claw_proto::ids::GpuUuid;
use claw_proto::message::{GpuDetails, GpuEvent, GpuEventKind, GpuMetrics, RemappedRows, ThrottleReason};
use claw_proto::spec::GpuVendor;
use claw_proto::time::Timestamp;

use crate::diagnose::analyze::{Analyzer, Verdict};
use crate::diagnose::code::{Action, Class};
use crate::diagnose::insight::{Insight, Target};
use crate::diagnose::observe::{Observer, Reported};
use crate::diagnose::policy::all;
use crate::diagnose::reported::{EVENTS_MS, Sampled, code, is_fresh, is_recent, numbers};
use crate::diagnose::rules::Rules;

fn gpu(details: GpuDetails) -> GpuMetrics {
    GpuMetrics {
        uuid: GpuUuid("GPU-1".into()),
        utilization_percent: 90.0,
        memory_used_mib: 1,
        memory_total_mib: 2,
        temperature_celsius: 60.0,
        power_watts: 300.0,
        simulated: false,
        details: Some(Box::new(details)),
    }
}

fn throttled(reason: ThrottleReason) -> Vec<Sampled> {
    numbers(&gpu(GpuDetails { throttle_reasons: vec![reason], ..GpuDetails::default() })).unwrap()
}

fn remapped(pending: bool, failed: bool) -> Vec<Sampled> {
    let rows = RemappedRows { correctable: 0, uncorrectable: 1, pending, failed };
    numbers(&gpu(GpuDetails { remapped_rows: Some(rows), ..GpuDetails::default() })).unwrap()
}

fn judge(sampled: &[Sampled], policy: usize) -> Verdict {
    let mut observer = Observer::new(Rules::built_in(), "latest metrics");
    for one in sampled {
        let (code, asks) = (one.code.clone(), Some(one.asks));
        let (uuid, rule) = ("GPU-1", "metrics.latest");
        observer.event(&Reported { code, uuid, at_s: 0.0, rule, words: one.words, asks });
    }
    Analyzer::new(Rules::built_in(), &all()[policy]).judge(&observer.finish())
}

#[test]
fn one_sample_of_heat_or_brake_is_told_and_calls_no_hands() {
    let reasons = [ThrottleReason::SwThermal, ThrottleReason::HwThermal, ThrottleReason::HwPowerBrake];
    for (policy, reason) in (0..all().len()).flat_map(|policy| reasons.map(|reason| (policy, reason))) {
        let verdict = judge(&throttled(reason), policy);
        assert!(verdict.root.is_some() && !verdict.action.is_hardware(), "{reason:?}: {verdict:?}");
        let target = Target { node: Some("node_1".into()), workload: None };
        let insight = Insight::new(Rules::built_in(), &verdict, &target);
        let calls: Vec<_> = insight.diagnosis.remedies.iter().filter_map(|remedy| remedy.call.as_ref()).collect();
        assert!(calls.iter().all(|call| call.tool == "node_get"), "{calls:?}");
    }
    assert_eq!(throttled(ThrottleReason::SwPowerCap), []);
}

#[test]
fn a_failed_replacement_of_a_row_is_for_hands_and_a_pending_one_for_a_reset() {
    assert_eq!(judge(&remapped(true, false), 0).action, Action::ResetGpu);
    assert_eq!(judge(&remapped(false, true), 0).action, Action::Service);
    assert_eq!(judge(&remapped(true, true), 0).action, Action::Service);
    assert_eq!(remapped(false, false), []);
}

#[test]
fn numbers_that_no_driver_told_are_not_healthy_ones() {
    let told = gpu(GpuDetails { ecc_uncorrected_total: Some(0), ..GpuDetails::default() });
    assert_eq!(numbers(&told), Some(Vec::new()));
    assert_eq!(
        numbers(&gpu(GpuDetails { sm_clock_mhz: Some(1_980), ..GpuDetails::default() })),
        None,
        "a clock is no health"
    );
    assert_eq!(numbers(&gpu(GpuDetails::default())), None);
    assert_eq!(numbers(&GpuMetrics { details: None, ..told }), None);
}

#[test]
fn what_is_old_is_not_the_latest() {
    let now = Timestamp::from_unix_ms(2_000_000_000_000);
    let ago = |ms: u64| Timestamp::from_unix_ms(now.unix_ms() - i64::try_from(ms).unwrap());
    assert!(is_recent(ago(EVENTS_MS), now) && !is_recent(ago(EVENTS_MS + 1), now));
    assert!(is_fresh(ago(60_000), now, 10_000) && !is_fresh(ago(60_001), now, 10_000));
    assert!(is_fresh(ago(300_000), now, 60_000) && !is_fresh(ago(300_001), now, 60_000));
}

#[test]
fn an_event_is_told_in_the_words_of_its_gpus_vendor() {
    let kinds = [GpuEventKind::EccDoubleBit, GpuEventKind::EccSingleBit, GpuEventKind::Lost];
    let rules = Rules::built_in();
    for vendor in [GpuVendor::Nvidia, GpuVendor::Amd, GpuVendor::Apple, GpuVendor::Intel, GpuVendor::Other] {
        for kind in kinds {
            let (uuid, at) = (GpuUuid("GPU-1".into()), Timestamp::from_unix_ms(0));
            let event = GpuEvent { uuid, kind, code: None, detail: String::new(), at, simulated: false };
            let code = code(&event, vendor).unwrap();
            let name = code.to_string();
            assert_eq!(name.starts_with("xid_"), vendor == GpuVendor::Nvidia, "{vendor:?} {kind:?}: {name}");
            assert_eq!(name.starts_with("amdgpu_"), vendor == GpuVendor::Amd, "{vendor:?} {kind:?}: {name}");
            let mut observer = Observer::new(rules, "GPU events");
            observer.event(&Reported { code, uuid: "GPU-1", at_s: 0.0, rule: "event.driver", words: "", asks: None });
            let verdict = Analyzer::new(rules, &all()[0]).judge(&observer.finish());
            let class = if kind == GpuEventKind::Lost { Class::Bus } else { Class::Memory };
            assert_eq!(verdict.class, class, "{name} is known to the rules");
            assert!(kind != GpuEventKind::EccSingleBit || !verdict.action.is_hardware(), "{name}");
        }
    }
}
