use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claw_proto::ids::GpuUuid;
use claw_proto::spec::GpuVendor;
use proptest::prelude::*;

use super::super::GpuDriver;
use super::*;

fn gpu(uuid: &str, address: Option<&str>) -> GpuInfo {
    GpuInfo {
        pci_address: address.map(str::to_owned),
        ..GpuInfo::new(GpuUuid(uuid.to_owned()), 0, GpuVendor::Other, "X", 1)
    }
}

/// A driver that shows what it is told to, and misbehaves when it is told to.
#[derive(Default)]
struct Script {
    gpus: Mutex<Vec<GpuInfo>>,
    panics: AtomicBool,
    hangs: AtomicBool,
    n_made: AtomicUsize,
}

struct Scripted(GpuDriverKind, Arc<Script>);

impl GpuDriver for Scripted {
    fn kind(&self) -> GpuDriverKind {
        self.0
    }

    fn detect(&mut self, _uptime_ms: u64) -> Seen {
        assert!(!self.1.panics.load(Ordering::Acquire), "the driver is broken");
        while self.1.hangs.load(Ordering::Acquire) {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Seen { gpus: self.1.gpus.lock().unwrap().clone(), findings: Vec::new() }
    }

    fn measure(&mut self, _sampling: &Sampling) -> Vec<GpuMetrics> {
        Vec::new()
    }
}

fn driver(kind: GpuDriverKind, gpus: Vec<GpuInfo>) -> (Arc<Script>, (GpuDriverKind, MakeDriver)) {
    let script = Arc::new(Script { gpus: Mutex::new(gpus), ..Script::default() });
    let told = Arc::clone(&script);
    let make: MakeDriver = Arc::new(move |_| {
        told.n_made.fetch_add(1, Ordering::AcqRel);
        Box::new(Scripted(kind, Arc::clone(&told)))
    });
    (script, (kind, make))
}

const PATIENCE: Patience =
    Patience { first_ms: 5_000, answer_ms: 100, failed_after_ms: 60_000, retry_ms: 50, threads_max: 2 };

fn poll_until(detector: &mut GpuDetector, is: impl Fn(&Fleet) -> bool) -> Fleet {
    let began = Instant::now();
    loop {
        let fleet = detector.detect(0);
        if is(&fleet) {
            return fleet;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it did not happen: {fleet:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_vendors_driver_wins_and_another_ones_trouble_is_its_own() {
    let (vendor, nvml) = driver(GpuDriverKind::Nvml, vec![gpu("GPU-1", Some("00000000:3B:00.0"))]);
    let seen = vec![gpu("vk-9", None), gpu("vk-2", Some("3c:00.0")), gpu("vk-1", Some("0000:3b:00.0"))];
    let (other, vulkan) = driver(GpuDriverKind::Vulkan, seen);
    let mut detector = GpuDetector::with(vec![nvml, vulkan], PATIENCE);
    let names = |fleet: &Fleet| fleet.gpus.iter().map(|gpu| gpu.uuid.0.clone()).collect::<Vec<_>>();
    let before = detector.detect(0);
    assert_eq!(names(&before), ["GPU-1", "vk-2", "vk-9"]);
    assert_eq!(before.gpus.iter().map(|gpu| gpu.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((before.driver, before.gpus[1].driver), (GpuDriverKind::Nvml, Some(GpuDriverKind::Vulkan)));

    // One hangs, later panics: the other's GPUs are as before.
    other.hangs.store(true, Ordering::Release);
    let fleet = detector.detect(0);
    assert_eq!((names(&fleet), &fleet.gpus[0]), (names(&before), &before.gpus[0]));
    assert_eq!(fleet.gpus[1].health, GpuHealth::Degraded);
    assert_eq!(fleet.findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), [FindingCode::DriverHung]);
    other.hangs.store(false, Ordering::Release);
    poll_until(&mut detector, |fleet| *fleet == before);

    other.panics.store(true, Ordering::Release);
    // Printing the panic takes its time: until then it only is silent.
    let fleet = poll_until(&mut detector, |fleet| {
        fleet.findings.iter().any(|finding| finding.code == FindingCode::DriverFailed)
    });
    assert_eq!((names(&fleet), &fleet.gpus[0]), (names(&before), &before.gpus[0]));
    assert_eq!((fleet.findings[0].code, fleet.findings[0].subject.as_str()), (FindingCode::DriverFailed, "vulkan"));
    assert!(fleet.findings[0].detail.contains("the driver is broken"), "{:?}", fleet.findings);
    other.panics.store(false, Ordering::Release);
    poll_until(&mut detector, |fleet| *fleet == before);
    assert_eq!(vendor.n_made.load(Ordering::Acquire), 1, "a driver that works is made once");

    // The vendor's driver loses the GPU: it stays the vendor's.
    vendor.gpus.lock().unwrap().clear();
    let fleet = detector.detect(0);
    assert_eq!((names(&fleet), fleet.gpus[0].health), (names(&before), GpuHealth::Failed));
}

#[test]
fn who_has_failed_is_not_tried_again_by_a_measurement() {
    let (script, vendor) = driver(GpuDriverKind::Nvml, vec![gpu("GPU-1", None)]);
    let mut detector = GpuDetector::with(vec![vendor], PATIENCE);
    detector.detect(0);
    script.panics.store(true, Ordering::Release);
    let is_over = |fleet: &Fleet| fleet.findings.iter().any(|finding| finding.code == FindingCode::DriverFailed);
    let failed = poll_until(&mut detector, is_over);
    let n_made = script.n_made.load(Ordering::Acquire);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(4 * PATIENCE.retry_ms) {
        assert_eq!(detector.measure(&Sampling::new(0, BTreeSet::new())), []);
        std::thread::park_timeout(Duration::from_millis(2));
    }
    assert_eq!(script.n_made.load(Ordering::Acquire), n_made, "nothing was looked at");
    assert_eq!(detector.drivers[0].all_findings(), failed.findings, "nor does it count as an answer");
}

fn sight(kind: GpuDriverKind) -> impl Strategy<Value = Sight> {
    let prefix = kind.as_str();
    let one =
        (0..6_u32, prop::option::of(0..5_u32), prop::option::of(0..3_u32)).prop_map(move |(n, address, island)| {
            let mut gpu = gpu(&format!("{prefix}-{n}"), address.map(|n| format!("0000:{n:02x}:00.0")).as_deref());
            gpu.nvlink_island = island;
            gpu
        });
    prop::collection::vec(one, 0..6).prop_map(move |gpus| Sight { kind, gpus })
}

proptest! {
    /// One GPU is listed once, by the first driver that has its address; indexes
    /// count; islands never join GPUs of different drivers; the order of what a
    /// driver lists does not matter for who is in the list.
    #[test]
    fn merging_loses_and_doubles_nothing(a in sight(GpuDriverKind::Nvml), b in sight(GpuDriverKind::Vulkan)) {
        let merged = merge::merge(&[a.clone(), b.clone()]);
        let uuids: BTreeSet<&GpuUuid> = merged.iter().map(|gpu| &gpu.uuid).collect();
        prop_assert_eq!(uuids.len(), merged.len());
        prop_assert!(merged.iter().enumerate().all(|(n, gpu)| gpu.index as usize == n));
        let of_a: BTreeSet<&GpuUuid> = a.gpus.iter().map(|gpu| &gpu.uuid).collect();
        prop_assert!(of_a.is_subset(&uuids));
        let addresses: BTreeSet<&String> = merged.iter().filter(|gpu| of_a.contains(&gpu.uuid)).filter_map(|gpu| gpu.pci_address.as_ref()).collect();
        for gpu in merged.iter().filter(|gpu| !of_a.contains(&gpu.uuid)) {
            prop_assert!(gpu.pci_address.as_ref().is_none_or(|address| !addresses.contains(address)));
        }
        for (x, y) in merged.iter().flat_map(|x| merged.iter().map(move |y| (x, y))) {
            if of_a.contains(&x.uuid) != of_a.contains(&y.uuid) {
                prop_assert!(x.nvlink_island.is_none() || x.nvlink_island != y.nvlink_island);
            }
        }
    }

    /// Whatever spelling a driver uses, one address has one name.
    #[test]
    fn an_address_has_one_spelling(domain in 0..=0xffff_u32, bus in 0..=0xff_u32, device in 0..=0x1f_u32, function in 0..=7_u32) {
        let kernel = format!("{domain:04x}:{bus:02x}:{device:02x}.{function}");
        let nvml = format!("{domain:08X}:{bus:02X}:{device:02X}.{function}");
        prop_assert_eq!(merge::pci_address(&nvml), Some(kernel.clone()));
        prop_assert_eq!(merge::pci_address(&kernel), Some(kernel));
    }

    #[test]
    fn nonsense_is_no_address(text in ".{0,40}") {
        if let Some(address) = merge::pci_address(&text) {
            prop_assert_eq!(merge::pci_address(&address), Some(address.clone()));
        }
    }
}
