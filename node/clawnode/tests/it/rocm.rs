//! The ROCm driver through the real detector: a sysfs as the kernel makes it, and
//! programs that stand in for amd-smi and rocm-smi.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claw_proto::ids::WorkloadId;
use claw_proto::message::{GpuEventKind, GpuMetrics, ThrottleReason};
use claw_proto::topology::{FindingCode, GpuDriver, GpuHealth, GpuInfo};
use clawnode::gpu::rocm::ToolOptions;
use clawnode::gpu::worker::Patience;
use clawnode::gpu::{Fleet, GpuDetector, GpuOptions, Sampling};
use expect_test::expect;

use crate::amdgpu::{Board, KfdNode, Tree};
use crate::support::DEADLINE;

/// Enough uptime for everything that is read again.
const LONG_MS: u64 = 3_600_000;

const fn mi300x(card: u32, path: &'static str, serial: u64, numa_node: i32) -> Board {
    Board { card, path, device: 0x74a1, revision: 0, serial: Some(serial), vram_gib: 192, numa_node }
}

/// A usual server: two sockets, four switches, eight GPUs in one hive.
const MI300X: [Board; 8] = [
    mi300x(1, "pci0000:00/0000:00:01.1/0000:05:00.0", 0xabd1_3c23_a958_0558, 0),
    mi300x(9, "pci0000:20/0000:20:01.1/0000:26:00.0", 0x7709_1c46_7da3_3121, 0),
    mi300x(17, "pci0000:40/0000:40:01.1/0000:46:00.0", 0x0a00_0000_0000_0003, 0),
    mi300x(25, "pci0000:60/0000:60:01.1/0000:65:00.0", 0x0a00_0000_0000_0004, 0),
    mi300x(33, "pci0000:80/0000:80:01.1/0000:85:00.0", 0x0a00_0000_0000_0005, 1),
    mi300x(41, "pci0000:a0/0000:a0:01.1/0000:a6:00.0", 0x0a00_0000_0000_0006, 1),
    mi300x(49, "pci0000:c0/0000:c0:01.1/0000:c6:00.0", 0x0a00_0000_0000_0007, 1),
    mi300x(57, "pci0000:e0/0000:e0:01.1/0000:e5:00.0", 0x0a00_0000_0000_0008, 1),
];
const W7900: Board = Board {
    card: 65,
    path: "pci0000:e0/0000:e0:03.1/0000:e9:00.0",
    device: 0x7448,
    revision: 0,
    serial: None,
    vram_gib: 45,
    numa_node: 1,
};
/// A GPU that only the tools have a name for.
const W7700: Board = Board {
    card: 0,
    path: "pci0000:c0/0000:c0:03.1/0000:c3:00.0",
    device: 0x7470,
    revision: 0,
    serial: Some(0x7709_1c46_7da3_3120),
    vram_gib: 16,
    numa_node: -1,
};

fn node(number: u32, board: &Board, gfx: u32) -> KfdNode<'_> {
    let render = board.render();
    KfdNode { number, board, gfx, hive: 0, render, partition: 0, memory_gib: board.vram_gib, linked: &[] }
}

/// The server with two kinds of GPUs, and things that are none.
fn server() -> Tree {
    let tree = Tree::new();
    for (number, board) in (2..).zip(&MI300X) {
        tree.gpu(board);
        tree.kfd(KfdNode { hive: 0x6161_0000_0000_0001, ..node(number, board, 90_402) });
    }
    tree.gpu(&W7900);
    tree.kfd(node(10, &W7900, 110_000));
    tree.interface("ib0", "pci0000:00/0000:00:01.1/0000:06:00.0", 0);
    tree.interface("eth0", "pci0000:80/0000:81:00.0", 1);
    // Another vendor's, an integrated one, and what the driver keeps for partitions.
    tree.pci("pci0000:00/0000:00:02.0", "0x8086", "0x030000", Some("i915"), 0);
    tree.card(70, "pci0000:00/0000:00:02.0", 198);
    let integrated = Board { card: 71, path: "pci0000:00/0000:00:08.1/0000:0c:00.0", vram_gib: 0, ..W7900 };
    tree.gpu(&integrated);
    tree.card(72, "platform/amdgpu_xcp.0", 200);
    tree
}

fn row(gpu: &GpuInfo) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let slice = gpu.mig.as_ref().map(|mig| format!(" slice {} of {}", mig.profile, mig.parent));
    format!(
        "{} {} {} {} {} MiB at {} island {} numa {} nics {:?} cdi {}{}",
        gpu.index,
        gpu.uuid,
        gpu.model,
        or_dash(gpu.compute_capability.clone()),
        gpu.memory_mib,
        or_dash(gpu.pci_address.clone()),
        or_dash(gpu.nvlink_island.map(|n| n.to_string())),
        or_dash(gpu.numa_node.map(|n| n.to_string())),
        gpu.nics,
        or_dash(gpu.cdi_device.clone()),
        slice.unwrap_or_default(),
    )
}

fn rows(fleet: &Fleet) -> String {
    fleet.gpus.iter().map(row).collect::<Vec<_>>().join("\n")
}

fn findings(fleet: &Fleet) -> String {
    let told = fleet.findings.iter().map(|finding| format!("{} {}: {}", finding.code, finding.subject, finding.detail));
    told.collect::<Vec<_>>().join("\n")
}

fn health(fleet: &Fleet) -> Vec<GpuHealth> {
    fleet.gpus.iter().map(|gpu| gpu.health).collect()
}

fn poll_until(detector: &mut GpuDetector, what: &str, is: impl Fn(&Fleet) -> bool) -> Fleet {
    let began = Instant::now();
    loop {
        let fleet = detector.detect(LONG_MS);
        if is(&fleet) {
            return fleet;
        }
        assert!(began.elapsed() < DEADLINE, "{what} did not happen: {fleet:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn poll_true(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < DEADLINE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_server_is_seen_without_any_tool() {
    let tree = server();
    let mut detector = tree.detector();
    let fleet = detector.detect(0);
    expect![[r#"
        0 GPU-abd13c23a9580558 MI300X gfx942 196608 MiB at 0000:05:00.0 island 0 numa 0 nics ["ib0"] cdi amd.com/gpu=0
        1 GPU-77091c467da33121 MI300X gfx942 196608 MiB at 0000:26:00.0 island 0 numa 0 nics ["ib0"] cdi amd.com/gpu=1
        2 GPU-0a00000000000003 MI300X gfx942 196608 MiB at 0000:46:00.0 island 0 numa 0 nics ["ib0"] cdi amd.com/gpu=2
        3 GPU-0a00000000000004 MI300X gfx942 196608 MiB at 0000:65:00.0 island 0 numa 0 nics ["ib0"] cdi amd.com/gpu=3
        4 GPU-0a00000000000005 MI300X gfx942 196608 MiB at 0000:85:00.0 island 0 numa 1 nics ["eth0"] cdi amd.com/gpu=4
        5 GPU-0a00000000000006 MI300X gfx942 196608 MiB at 0000:a6:00.0 island 0 numa 1 nics ["eth0"] cdi amd.com/gpu=5
        6 GPU-0a00000000000007 MI300X gfx942 196608 MiB at 0000:c6:00.0 island 0 numa 1 nics ["eth0"] cdi amd.com/gpu=6
        7 GPU-0a00000000000008 MI300X gfx942 196608 MiB at 0000:e5:00.0 island 0 numa 1 nics ["eth0"] cdi amd.com/gpu=7
        8 AMD-7448-0000:e9:00.0 W7900 gfx1100 46080 MiB at 0000:e9:00.0 island - numa 1 nics ["eth0"] cdi amd.com/gpu=8"#]].assert_eq(&rows(&fleet));
    assert_eq!((fleet.driver, findings(&fleet).as_str()), (GpuDriver::Rocm, ""));
    assert!(fleet.gpus.iter().all(|gpu| gpu.driver_version.as_deref() == Some("6.10.5")));
    assert_eq!(detector.detect(LONG_MS), fleet, "reading it again changes nothing");
    // An older kernel tells no hive, only links: a pair, and the others alone.
    for (number, board) in (2..).zip(&MI300X) {
        let linked: &[u32] = if number == 3 { &[4] } else { &[] };
        tree.kfd(KfdNode { linked, ..node(number, board, 90_402) });
    }
    let islands: Vec<Option<u32>> = detector.detect(2 * LONG_MS).gpus.iter().map(|gpu| gpu.nvlink_island).collect();
    assert_eq!(islands[..4], [None, Some(0), Some(0), None]);
}

/// Two GPUs with the sensors of their kind, and processes.
fn measured() -> Tree {
    let tree = Tree::new();
    tree.gpu(&MI300X[0]);
    tree.kfd(node(2, &MI300X[0], 90_402));
    tree.gpu(&W7900);
    tree.kfd(node(3, &W7900, 110_000));
    tree.files(
        &MI300X[0],
        &[
            ("mem_busy_percent", "12\n"),
            ("hwmon/hwmon7/temp2_input", "54000\n"),
            ("hwmon/hwmon7/temp2_label", "junction\n"),
            ("hwmon/hwmon7/temp3_input", "61000\n"),
            ("hwmon/hwmon7/temp3_label", "mem\n"),
            ("hwmon/hwmon7/power1_input", "139500000\n"),
            ("hwmon/hwmon7/power1_cap", "750000000\n"),
            ("pp_dpm_sclk", "0: 500Mhz\n1: 2100Mhz *\n"),
            ("pp_dpm_mclk", "0: 900Mhz *\n1: 1300Mhz\n"),
            ("current_link_speed", "32.0 GT/s PCIe\n"),
            ("current_link_width", "16\n"),
            ("pcie_replay_count", "4\n"),
            ("ras/umc_err_count", "ue: 0\nce: 3\n"),
            ("ras/gfx_err_count", "ue: 0\nce: 1\nde: 0\n"),
            ("ras/features", "feature mask: 0x5fffff\n"),
        ],
    );
    tree.files(
        &W7900,
        &[
            ("hwmon/hwmon3/temp1_input", "41000\n"),
            ("hwmon/hwmon3/temp1_label", "edge\n"),
            ("hwmon/hwmon3/power1_average", "22000000\n"),
            ("hwmon/hwmon3/freq1_input", "1855000000\n"),
            ("hwmon/hwmon3/freq1_label", "sclk\n"),
            ("hwmon/hwmon3/pwm1", "51\n"),
        ],
    );
    // One that only opened the device is listed with nothing.
    for (pid, vram) in [(4_711, 1_073_741_824_u64), (4_712, 0), (4_713, 5_242_880)] {
        tree.write(&format!("class/kfd/kfd/proc/{pid}/vram_50002"), &format!("{vram}\n"));
        tree.write(&format!("class/kfd/kfd/proc/{pid}/vram_50003"), "0\n");
    }
    tree
}

#[test]
fn what_is_measured_is_what_the_kernel_tells() {
    let tree = measured();
    let mut detector = tree.detector();
    detector.detect(0);
    let workload = WorkloadId::from_bits(7);
    let owner_of = Arc::new(move |pid| (pid == 4_711).then_some(workload));
    let sampling = Sampling { owner_of, ..Sampling::new(0, BTreeSet::new()) };
    let metrics = detector.measure(&sampling);
    expect![[r#"
        [
          {
            "uuid": "GPU-abd13c23a9580558",
            "utilization_percent": 37.0,
            "memory_used_mib": 283,
            "memory_total_mib": 196608,
            "temperature_celsius": 54.0,
            "power_watts": 139.5,
            "simulated": false,
            "details": {
              "memory_utilization_percent": 12.0,
              "sm_clock_mhz": 2100,
              "memory_clock_mhz": 900,
              "power_limit_watts": 750.0,
              "ecc_corrected_total": 4,
              "ecc_uncorrected_total": 0,
              "pcie_generation": 5,
              "pcie_width": 16,
              "pcie_replays": 4,
              "processes": [
                {
                  "pid": 4711,
                  "memory_used_mib": 1024,
                  "workload_id": "wl_00000000000000000000000007"
                },
                {
                  "pid": 4713,
                  "memory_used_mib": 5
                }
              ]
            }
          },
          {
            "uuid": "AMD-7448-0000:e9:00.0",
            "utilization_percent": 37.0,
            "memory_used_mib": 283,
            "memory_total_mib": 46080,
            "temperature_celsius": 41.0,
            "power_watts": 22.0,
            "simulated": false,
            "details": {
              "sm_clock_mhz": 1855,
              "fan_percent": 20
            }
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&metrics).unwrap());
    // A GPU that the kernel has suspended is not woken up to be asked.
    tree.files(&W7900, &[("power/runtime_status", "suspended\n")]);
    tree.make_unreadable(&format!("devices/{}/gpu_busy_percent", W7900.path));
    assert_eq!(health(&detector.detect(1_000)), [GpuHealth::Healthy; 2]);
    let uuids: Vec<String> = detector.measure(&sampling).into_iter().map(|gpu: GpuMetrics| gpu.uuid.0).collect();
    assert_eq!(uuids, ["GPU-abd13c23a9580558"]);
}

#[test]
fn a_gpu_that_does_not_answer_has_failed_and_keeps_its_name() {
    use GpuHealth::{Failed, Healthy};
    let tree = server();
    let mut detector = tree.detector();
    let before = detector.detect(0);
    let lost = MI300X[2];
    let busy = format!("devices/{}/gpu_busy_percent", lost.path);
    let total = format!("devices/{}/mem_info_vram_total", lost.path);
    for path in [&busy, &total, &format!("devices/{}/unique_id", lost.path)] {
        tree.make_unreadable(path);
    }
    let expected = [Healthy, Healthy, Failed, Healthy, Healthy, Healthy, Healthy, Healthy, Healthy];
    for uptime_ms in [1_000, LONG_MS] {
        let fleet = detector.detect(uptime_ms);
        let why =
            "it does not answer (Input/output error (os error 5)); it hangs or has fallen off the bus: look at dmesg";
        assert_eq!(findings(&fleet), format!("gpu_lost GPU-0a00000000000003: {why}"));
        assert_eq!(health(&fleet), expected);
        assert_eq!(rows(&fleet), rows(&before), "it keeps its name and place");
    }
    let events = detector.events();
    let told: Vec<_> = events.iter().map(|event| (event.kind, event.uuid.0.as_str(), event.simulated)).collect();
    assert_eq!(told, [(GpuEventKind::Lost, "GPU-0a00000000000003", false)]);
    tree.gpu_files_back(&lost);
    assert_eq!(detector.detect(2 * LONG_MS), before);
    // It is gone from the bus: the detector remembers it.
    tree.remove(&format!("class/drm/card{}", lost.card));
    let fleet = detector.detect(2 * LONG_MS + 1);
    let uuids = |fleet: &Fleet| fleet.gpus.iter().map(|gpu| gpu.uuid.clone()).collect::<Vec<_>>();
    assert_eq!((health(&fleet), uuids(&fleet)), (expected.to_vec(), uuids(&before)));
}

#[test]
fn errors_that_were_not_corrected_mark_their_gpu() {
    let tree = Tree::new();
    for (number, board) in (2..).zip(&MI300X[..2]) {
        tree.gpu(board);
        tree.kfd(node(number, board, 90_402));
        tree.files(board, &[("ras/umc_err_count", "ue: 0\nce: 2\n"), ("ras/sdma_err_count", "ue: 0\nce: 0\n")]);
    }
    let mut detector = tree.detector();
    assert_eq!(health(&detector.detect(0)), [GpuHealth::Healthy; 2]);
    tree.files(&MI300X[1], &[("ras/umc_err_count", "ue: 1\nce: 5\n")]);
    assert_eq!(health(&detector.detect(1_000)), [GpuHealth::Healthy; 2], "blocks are not asked at every look");
    let fleet = detector.detect(31_000);
    assert_eq!(health(&fleet), [GpuHealth::Healthy, GpuHealth::Degraded]);
    expect!["gpu_error_event GPU-77091c467da33121: 1 errors were not corrected since the driver was loaded (RAS): drain it, then reset it or reboot"].assert_eq(&findings(&fleet));
    let told: Vec<_> = detector.events().into_iter().map(|event| (event.kind, event.uuid.0, event.detail)).collect();
    let uuid = "GPU-77091c467da33121".to_owned();
    let expected = [
        (GpuEventKind::EccDoubleBit, uuid.clone(), "1 errors that were not corrected".to_owned()),
        (GpuEventKind::EccSingleBit, uuid, "3 errors that were corrected".to_owned()),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_missing_kernel_driver_matters_if_there_is_a_gpu() {
    let tree = Tree::new();
    let rocm = |gpu: &str| {
        let fleet = GpuDetector::new(tree.options(gpu)).unwrap().detect(0);
        fleet.findings.into_iter().filter(|f| f.subject == "rocm").map(|f| (f.code, f.detail)).collect::<Vec<_>>()
    };
    assert_eq!(rocm("auto"), []);
    let none = (FindingCode::DriverNotLoaded, "there is no AMD GPU that the amdgpu driver has".to_owned());
    assert_eq!(rocm("rocm"), [none]);
    tree.pci("pci0000:00/0000:00:01.1/0000:05:00.0", "0x1002", "0x120000", None, 0);
    tree.pci("pci0000:00/0000:00:01.1/0000:06:00.0", "0x1002", "0x038000", None, 0);
    // Sound of a graphics card, and one that a virtual machine has.
    tree.pci("pci0000:00/0000:00:01.1/0000:06:00.1", "0x1002", "0x040300", None, 0);
    tree.pci("pci0000:00/0000:00:01.1/0000:07:00.0", "0x1002", "0x030000", Some("vfio-pci"), 0);
    let taken = "the amdgpu driver did not take 0000:05:00.0, 0000:06:00.0: look at dmesg";
    assert_eq!(rocm("auto"), [(FindingCode::DriverFailed, taken.to_owned())]);
    tree.remove("module/amdgpu");
    let detail =
        "the amdgpu driver is not loaded for 0000:05:00.0, 0000:06:00.0; load it (modprobe amdgpu) or look at dmesg";
    for gpu in ["auto", "rocm"] {
        assert_eq!(rocm(gpu), [(FindingCode::DriverNotLoaded, detail.to_owned())]);
    }
}

#[test]
fn partitions_are_slices_of_one_gpu() {
    let tree = Tree::new();
    let [cut, whole, ..] = &MI300X;
    for board in [cut, whole] {
        tree.gpu(board);
    }
    tree.files(cut, &[("current_compute_partition", "DPX\n"), ("current_memory_partition", "NPS2\n")]);
    tree.files(whole, &[("current_compute_partition", "SPX\n"), ("current_memory_partition", "NPS1\n")]);
    tree.card(2, "platform/amdgpu_xcp.0", 190);
    let half = KfdNode { memory_gib: 96, ..node(2, cut, 90_402) };
    tree.kfd(half);
    tree.kfd(KfdNode { number: 3, partition: 1, render: 190, ..half });
    tree.kfd(node(4, whole, 90_402));
    tree.write("class/kfd/kfd/proc/77/vram_50003", "1073741824\n");
    let mut detector = tree.detector();
    let fleet = detector.detect(0);
    expect![[r"
        0 GPU-abd13c23a9580558 MI300X gfx942 196608 MiB at 0000:05:00.0 island - numa 0 nics [] cdi -
        1 GPU-abd13c23a9580558-0 MI300X gfx942 98304 MiB at 0000:05:00.0 island - numa 0 nics [] cdi amd.com/gpu=0 slice DPX-NPS2 of GPU-abd13c23a9580558
        2 GPU-abd13c23a9580558-1 MI300X gfx942 98304 MiB at 0000:05:00.0 island - numa 0 nics [] cdi amd.com/gpu=1 slice DPX-NPS2 of GPU-abd13c23a9580558
        3 GPU-77091c467da33121 MI300X gfx942 196608 MiB at 0000:26:00.0 island - numa 0 nics [] cdi amd.com/gpu=2"]].assert_eq(&rows(&fleet));
    let metrics = detector.measure(&Sampling::new(0, BTreeSet::new()));
    let pids =
        metrics.iter().map(|gpu| gpu.details.as_ref().unwrap().processes.iter().map(|p| p.pid).collect::<Vec<_>>());
    assert_eq!(pids.collect::<Vec<_>>(), [vec![77], vec![]], "numbers are of whole GPUs");
    // It is made one again, on purpose: its slices go without a word.
    tree.remove("class/kfd/kfd/topology/nodes/3");
    tree.kfd(node(2, cut, 90_402));
    let fleet = detector.detect(LONG_MS);
    assert_eq!((fleet.gpus.len(), findings(&fleet).as_str()), (2, ""));
    assert_eq!(fleet.gpus[0].cdi_device.as_deref(), Some("amd.com/gpu=0"));
}

/// A GPU that is known and one that is not, without names in sysfs.
fn two() -> Tree {
    let tree = Tree::new();
    for board in [&MI300X[0], &W7700] {
        tree.gpu(board);
    }
    tree
}

const AMD_SMI: [(&str, &str); 4] = [
    ("list", "amd-smi-24.list.json"),
    ("static", "amd-smi-24.static.json"),
    ("metric", "amd-smi-24.metric.json"),
    ("version", "amd-smi-24.version.json"),
];

#[test]
fn amd_smi_fills_in_what_sysfs_does_not_have() {
    for old in [false, true] {
        let tree = two();
        tree.tool("amd-smi", &AMD_SMI);
        if old {
            tree.misbehave("amd-smi.old", "");
        }
        let mut detector = tree.detector();
        let fleet = detector.detect(0);
        let named: Vec<_> =
            fleet.gpus.iter().map(|gpu| (gpu.model.as_str(), gpu.compute_capability.as_deref())).collect();
        assert_eq!(named, [("MI300X", Some("gfx942")), ("W7700", Some("gfx1101"))]);
        assert_eq!(fleet.gpus[0].driver_version.as_deref(), Some("6.10.5 (ROCm 6.3.1)"));
        assert_eq!(findings(&fleet), "");
        let mut reasons = Vec::new();
        poll_true("reasons", || {
            let metrics = detector.measure(&Sampling::new(0, BTreeSet::new()));
            reasons = metrics.iter().map(|m| m.details.as_ref().unwrap().throttle_reasons.clone()).collect();
            reasons.iter().all(|reasons| !reasons.is_empty())
        });
        let limits = vec![ThrottleReason::SwPowerCap, ThrottleReason::HwThermal];
        assert_eq!(reasons, [limits, vec![ThrottleReason::HwSlowdown]]);
    }
}

#[test]
fn rocm_smi_stands_in_for_amd_smi() {
    let tree = two();
    tree.tool("amd-smi", &[]);
    tree.misbehave("amd-smi.broken", "Traceback (most recent call last):\n  ModuleNotFoundError: yaml\n");
    tree.tool("rocm-smi", &[("--showproductname", "rocm-smi-6.json")]);
    let mut detector = tree.detector();
    let fleet = detector.detect(0);
    assert_eq!(fleet.gpus.iter().map(|gpu| gpu.model.as_str()).collect::<Vec<_>>(), ["MI300X", "W7700"]);
    assert_eq!(health(&fleet), [GpuHealth::Healthy; 2]);
    expect!["driver_failed rocm amd-smi: list --json printed no JSON (exit 1): Traceback (most recent call last): ModuleNotFoundError: yaml; what sysfs tells goes on"].assert_eq(&findings(&fleet));
}

/// Whatever a tool does, the GPUs are there, soon, and a finding says what it did.
#[test]
fn a_tool_that_misbehaves_is_a_finding_and_no_more() {
    let cases = [
        ("amd-smi.hang", FindingCode::DriverHung, "did not end within 300 ms"),
        ("amd-smi.flood", FindingCode::DriverFailed, "printed more than"),
        ("amd-smi.broken", FindingCode::DriverFailed, "no JSON (exit 1): something"),
        ("amd-smi.list", FindingCode::DriverFailed, "unknown form"),
    ];
    for (file, code, words) in cases {
        let tree = two();
        tree.tool("amd-smi", &[]);
        tree.misbehave(file, if file == "amd-smi.list" { "{\"gpus\": []}" } else { "something\n" });
        let options = tree.options("rocm");
        let rocm_tools = ToolOptions {
            deadline_ms: if code == FindingCode::DriverHung { 300 } else { 20_000 },
            first_wait_ms: 50,
            ..options.rocm_tools.clone()
        };
        let mut detector = GpuDetector::new(GpuOptions { rocm_tools, ..options }).unwrap();
        let began = Instant::now();
        let fleet = detector.detect(0);
        assert!(began.elapsed() < Duration::from_secs(3), "{file}: {:?}", began.elapsed());
        assert_eq!((fleet.gpus.len(), health(&fleet)), (2, vec![GpuHealth::Healthy; 2]), "{file}");
        let fleet = poll_until(&mut detector, file, |fleet| !fleet.findings.is_empty());
        let [finding] = fleet.findings.as_slice() else { panic!("{file}: {fleet:#?}") };
        assert_eq!((finding.code, finding.subject.as_str()), (code, "rocm amd-smi"), "{file}");
        assert!(finding.detail.contains(words) && finding.detail.contains("sysfs"), "{file}: {}", finding.detail);
        assert_eq!(health(&fleet), [GpuHealth::Healthy; 2], "{file}");
        // Nothing of it is left, no zombie either; its child may be init's for a moment.
        let pids = tree.pids();
        assert!(!pids.is_empty(), "{file}");
        let lives = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
        };
        poll_true(file, || !pids.iter().any(lives));
        assert!(!std::path::Path::new(&format!("/proc/{}", pids[0])).exists(), "{file}: a zombie is left");
    }
}

/// The kernel itself may hang when a GPU does: reading a file does not come back.
#[test]
fn a_file_that_hangs_holds_up_nobody() {
    let tree = two();
    let patience =
        Patience { first_ms: 5_000, answer_ms: 150, failed_after_ms: 60_000, retry_ms: 60_000, threads_max: 2 };
    let mut detector = GpuDetector::new(GpuOptions { patience, ..tree.options("rocm") }).unwrap();
    let before = detector.detect(0);
    assert_eq!(health(&before), [GpuHealth::Healthy; 2]);
    let busy = tree.sysfs().join("devices").join(W7700.path).join("gpu_busy_percent");
    std::fs::remove_file(&busy).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&busy).status().unwrap();
    assert!(made.success());
    let fleet = detector.detect(1_000);
    assert_eq!(health(&fleet), [GpuHealth::Degraded; 2]);
    assert_eq!(fleet.findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), [FindingCode::DriverHung]);
    // The answer comes at last.
    std::fs::write(&busy, "0\n").unwrap();
    tree.files(&W7700, &[("gpu_busy_percent", "0\n")]);
    poll_until(&mut detector, "the answer", |fleet| *fleet == before);
}
