//! The NVML driver against a library that answers from a file: what is tested is
//! the real driver code, the real wrapper and a real `dlopen`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claw_proto::ids::WorkloadId;
use claw_proto::message::{GpuEvent, GpuEventKind, NodeMessage};
use claw_proto::topology::{FindingCode, GpuDriver, GpuHealth, GpuInfo, NodeCapabilities};
use clawnode::gpu::worker::Patience;
use clawnode::gpu::{Fleet, GpuDetector, GpuOptions, Sampling};
use expect_test::expect;

use crate::agent::{Agent, enrolled};
use crate::peer::{Peer, Session};
use crate::support::DEADLINE;

/// Enough uptime for everything that is retried, read again or forgiven.
const LONG_MS: u64 = 3_600_000;

/// The stub library in a folder of its own, with its scenario.
pub(crate) struct Stub {
    folder: tempfile::TempDir,
}

impl Stub {
    /// Compiles the stub; nothing (loudly) without a C compiler, a failure in CI.
    #[expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
    pub(crate) fn build(scenario: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libnvidia-ml.so.1");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/nvml_stub.c");
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
        match compiled {
            Ok(status) => assert!(status.success(), "the stub does not compile"),
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "no C compiler in CI: {error}");
                eprintln!("SKIP: there is no C compiler (cc), so the NVML driver is NOT tested: {error}");
                return None;
            }
        }
        let stub = Self { folder };
        stub.scenario(scenario);
        Some(stub)
    }

    /// Changes the world. In one step: the library may be reading.
    pub(crate) fn scenario(&self, text: &str) {
        let new = self.folder.path().join("scenario.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.path().join("scenario")).unwrap();
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    pub(crate) fn options(&self, gpu: &str) -> GpuOptions {
        GpuOptions {
            nvml_library: Some(self.library()),
            nvml_program: Some(env!("CARGO_BIN_EXE_clawnode").into()),
            sysfs_root: self.folder.path().join("sys"),
            ..GpuOptions::new(gpu, "n1", PathBuf::new())
        }
    }

    fn detector(&self) -> GpuDetector {
        GpuDetector::new(self.options("nvml")).unwrap()
    }

    /// A PCI device of a sysfs that the driver looks at.
    fn device(&self, path: &str, numa_node: u32) {
        let sysfs = self.folder.path().join("sys");
        let real = sysfs.join("devices").join(path);
        std::fs::create_dir_all(&real).unwrap();
        std::fs::write(real.join("numa_node"), format!("{numa_node}\n")).unwrap();
        let bus = sysfs.join("bus/pci/devices");
        std::fs::create_dir_all(&bus).unwrap();
        symlink(&real, bus.join(real.file_name().unwrap())).unwrap();
    }

    fn interface(&self, name: &str, device: &str) {
        let sysfs = self.folder.path().join("sys");
        let real = sysfs.join("devices").join(device).join("net").join(name);
        std::fs::create_dir_all(&real).unwrap();
        symlink(sysfs.join("devices").join(device), real.join("device")).unwrap();
        std::fs::create_dir_all(sysfs.join("class/net")).unwrap();
        symlink(real, sysfs.join("class/net").join(name)).unwrap();
    }
}

/// An agent that works through the stub, registered.
pub(crate) async fn agent_with(stub: &Stub, peer: &Peer, folder: &Path) -> (Agent, Session, NodeCapabilities) {
    let library = stub.library();
    let environment = [("CLAWNODE_GPU", "nvml".as_ref()), ("CLAWNODE_GPU_NVML_LIBRARY", library.as_os_str())];
    let agent = Agent::start_with(folder, &environment);
    let (session, register) = peer.register_as(2, 0, BTreeMap::new()).await;
    let NodeMessage::Register { capabilities, .. } = register else { panic!("{register:?}") };
    (agent, session, capabilities)
}

/// GPUs of one model, with their addresses.
pub(crate) fn gpus(n: usize, model: &str) -> String {
    let mut text = format!("gpus {n}\n");
    for gpu in 0..n {
        writeln!(text, "gpu {gpu} name NVIDIA {model}\ngpu {gpu} pci 00000000:{:02X}:00.0", 0x1a + gpu).unwrap();
    }
    text
}

fn row(gpu: &GpuInfo) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let slice = gpu.mig.as_ref().map(|mig| format!(" slice {} of {}", mig.profile, mig.parent));
    format!(
        "{} {} {} {} MiB at {} island {} numa {} nics {:?} cdi {}{}",
        gpu.index,
        gpu.uuid,
        gpu.model,
        gpu.memory_mib,
        or_dash(gpu.pci_address.clone()),
        or_dash(gpu.nvlink_island.map(|n| n.to_string())),
        or_dash(gpu.numa_node.map(|n| n.to_string())),
        gpu.nics,
        or_dash(gpu.cdi_device.clone()),
        slice.unwrap_or_default(),
    )
}

pub(crate) fn health(fleet: &Fleet) -> Vec<GpuHealth> {
    fleet.gpus.iter().map(|gpu| gpu.health).collect()
}

pub(crate) fn codes(fleet: &Fleet) -> Vec<FindingCode> {
    fleet.findings.iter().map(|finding| finding.code).collect()
}

/// Looks again and again, until it is as it should be.
pub(crate) fn poll_until(detector: &mut GpuDetector, uptime_ms: u64, what: &str, is: impl Fn(&Fleet) -> bool) -> Fleet {
    let began = Instant::now();
    loop {
        let fleet = detector.detect(uptime_ms);
        if is(&fleet) {
            return fleet;
        }
        assert!(began.elapsed() < DEADLINE, "{what} did not happen: {fleet:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn models_slices_links_and_places_are_seen() {
    let mut scenario = String::from("gpus 8\n");
    let models = [
        "H100 80GB HBM3",
        "H100 80GB HBM3",
        "H100 80GB HBM3",
        "A100-SXM4-80GB",
        "L40S",
        "GeForce RTX 3090",
        "GeForce RTX 3090",
        "GB200",
    ];
    for (gpu, model) in models.iter().enumerate() {
        writeln!(scenario, "gpu {gpu} name NVIDIA {model}\ngpu {gpu} pci 00000000:{:02X}:00.0", 0x1a + gpu).unwrap();
    }
    // Three GPUs at two switches; a pair over a bridge, told by one side only; and one
    // whose switches are not on this host.
    scenario +=
        "link 0 0 00000000:05:00.0\nlink 0 3 00000000:06:00.0\nlink 1 0 00000000:05:00.0\nlink 2 1 00000000:06:00.0\n";
    scenario += "link 5 0 00000000:20:00.0\nlink 7 0 -\nlink 6 0 -\np2p 5 6\nslice 3 0 1g.10gb\nslice 3 2 3g.40gb\n";
    let Some(stub) = Stub::build(&scenario) else { return };
    stub.device("pci0000:15/0000:15:01.0/0000:16:00.0/0000:1a:00.0", 0);
    stub.device("pci0000:15/0000:15:01.0/0000:16:00.0/0000:19:00.0", 0);
    stub.device("pci0000:80/0000:1d:00.0", 1);
    stub.interface("ib0", "pci0000:15/0000:15:01.0/0000:16:00.0/0000:19:00.0");
    let mut detector = stub.detector();
    let fleet = detector.detect(0);
    let rows: Vec<String> = fleet.gpus.iter().map(row).collect();
    expect![[r#"
        0 GPU-00000000 H100 81559 MiB at 0000:1a:00.0 island 0 numa 0 nics ["ib0"] cdi nvidia.com/gpu=0
        1 GPU-00000001 H100 81559 MiB at 0000:1b:00.0 island 0 numa 0 nics [] cdi nvidia.com/gpu=1
        2 GPU-00000002 H100 81559 MiB at 0000:1c:00.0 island 0 numa 1 nics [] cdi nvidia.com/gpu=2
        3 GPU-00000003 A100 81559 MiB at 0000:1d:00.0 island - numa 1 nics [] cdi nvidia.com/gpu=3
        4 MIG-00000003-0 A100 9728 MiB at 0000:1d:00.0 island - numa 1 nics [] cdi nvidia.com/gpu=3:0 slice 1g.10gb of GPU-00000003
        5 MIG-00000003-2 A100 9728 MiB at 0000:1d:00.0 island - numa 1 nics [] cdi nvidia.com/gpu=3:2 slice 3g.40gb of GPU-00000003
        6 GPU-00000004 L40S 81559 MiB at 0000:1e:00.0 island - numa - nics [] cdi nvidia.com/gpu=4
        7 GPU-00000005 RTX3090 81559 MiB at 0000:1f:00.0 island 1 numa - nics [] cdi nvidia.com/gpu=5
        8 GPU-00000006 RTX3090 81559 MiB at 0000:20:00.0 island 1 numa - nics [] cdi nvidia.com/gpu=6
        9 GPU-00000007 GB200 81559 MiB at 0000:21:00.0 island - numa - nics [] cdi nvidia.com/gpu=7"#]]
    .assert_eq(&rows.join("\n"));
    assert_eq!((fleet.driver, fleet.findings.as_slice()), (GpuDriver::Nvml, &[][..]));
    let gpu = &fleet.gpus[0];
    assert_eq!((gpu.compute_capability.as_deref(), gpu.driver_version.as_deref()), (Some("9.0"), Some("570.86.16")));
    // A slice that is removed on purpose is not a fault; a new one is found.
    stub.scenario(&scenario.replace("slice 3 2 3g.40gb", "slice 3 1 2g.20gb"));
    let fleet = detector.detect(LONG_MS);
    let profiles: Vec<&str> = fleet.gpus.iter().filter_map(|gpu| Some(gpu.mig.as_ref()?.profile.as_str())).collect();
    assert_eq!((profiles.as_slice(), fleet.findings.as_slice()), (&["1g.10gb", "2g.20gb"][..], &[][..]));
}

#[test]
fn what_is_measured_is_what_the_driver_tells() {
    let scenario = gpus(2, "H100 80GB HBM3")
        + "gpu 0 throttle 68\nprocess 0 4711 1024\nprocess 0 4712 512\nwithout nvmlDeviceGetFieldValues\n";
    let Some(stub) = Stub::build(&scenario) else { return };
    let mut detector = stub.detector();
    detector.detect(0);
    let workload = WorkloadId::from_bits(7);
    let owner_of = Arc::new(move |pid| (pid == 4_711).then_some(workload));
    let sampling = Sampling { owner_of, ..Sampling::new(0, std::collections::BTreeSet::new()) };
    let old = detector.measure(&sampling);
    let details = old[0].details.as_deref().unwrap();
    assert_eq!((details.remapped_rows, details.nvlink_errors_total), (None, None), "an old driver has no such numbers");
    stub.scenario(&scenario.replace("without nvmlDeviceGetFieldValues\n", "gpu 1 state 15\n"));
    let metrics = detector.measure(&sampling);
    assert_eq!(metrics.len(), 1, "a lost GPU has no numbers");
    expect![[r#"
        {
          "uuid": "GPU-00000000",
          "utilization_percent": 50.0,
          "memory_used_mib": 1024,
          "memory_total_mib": 81559,
          "temperature_celsius": 55.0,
          "power_watts": 350.5,
          "simulated": false,
          "details": {
            "memory_utilization_percent": 20.0,
            "sm_clock_mhz": 1980,
            "memory_clock_mhz": 2619,
            "power_limit_watts": 700.0,
            "throttle_reasons": [
              "sw_power_cap",
              "hw_thermal"
            ],
            "ecc_corrected_total": 7,
            "ecc_uncorrected_total": 1,
            "remapped_rows": {
              "correctable": 3,
              "uncorrectable": 0,
              "pending": false,
              "failed": false
            },
            "pcie_generation": 5,
            "pcie_width": 16,
            "pcie_replays": 2,
            "nvlink_errors_total": 8,
            "processes": [
              {
                "pid": 4711,
                "memory_used_mib": 1024,
                "workload_id": "wl_00000000000000000000000007"
              },
              {
                "pid": 4712,
                "memory_used_mib": 512
              }
            ]
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&metrics[0]).unwrap());
}

#[test]
fn a_gpu_that_goes_keeps_its_name_and_comes_back() {
    use GpuHealth::{Degraded, Failed, Healthy};
    let scenario = gpus(3, "L40S") + "link 0 0 00000000:1b:00.0\nlink 1 0 00000000:1a:00.0\n";
    let Some(stub) = Stub::build(&scenario) else { return };
    let mut detector = stub.detector();
    let before = detector.detect(0);
    let strip = |fleet: &Fleet| {
        let without = |gpu: &GpuInfo| GpuInfo { health: Healthy, health_reason: None, ..gpu.clone() };
        fleet.gpus.iter().map(without).collect::<Vec<_>>()
    };
    for (state, code, bad) in [
        (15, FindingCode::GpuLost, Failed),
        (16, FindingCode::GpuNeedsReset, Failed),
        (4, FindingCode::DriverFailed, Degraded),
        (999, FindingCode::DriverFailed, Degraded),
    ] {
        stub.scenario(&format!("{scenario}gpu 1 state {state}\n"));
        for uptime_ms in [1_000, 16_000, 17_000] {
            let fleet = detector.detect(uptime_ms);
            assert_eq!((health(&fleet), codes(&fleet)), (vec![Healthy, bad, Healthy], vec![code]), "state {state}");
            assert_eq!(strip(&fleet), before.gpus, "it keeps its name and place");
            assert!(fleet.gpus[1].health_reason.is_some());
        }
        stub.scenario(&scenario);
        assert_eq!(detector.detect(1_000), before, "after state {state}");
    }
    let lost: Vec<GpuEvent> = detector.events();
    assert_eq!(
        lost.iter().map(|event| (event.kind, event.uuid.0.as_str())).collect::<Vec<_>>(),
        [(GpuEventKind::Lost, "GPU-00000001")]
    );
    // The list itself gets shorter: the last GPU is not forgotten.
    stub.scenario(&scenario.replace("gpus 3", "gpus 2"));
    let fleet = detector.detect(LONG_MS);
    assert_eq!((health(&fleet), codes(&fleet)), (vec![Healthy, Healthy, Failed], vec![FindingCode::GpuLost]));
    assert_eq!(strip(&fleet), before.gpus);
    // With a GPU out, the library is opened anew, and what is told stays the same meanwhile.
    stub.scenario(&(scenario.clone() + "gpu 1 state 15\n"));
    let out = detector.detect(2 * LONG_MS);
    assert_eq!(detector.detect(2 * LONG_MS).gpus, out.gpus);
    stub.scenario(&scenario);
    poll_until(&mut detector, 2 * LONG_MS, "the return of the GPU", |fleet| *fleet == before);
}

#[test]
fn a_driver_that_cannot_be_used_is_a_finding() {
    use GpuHealth::{Degraded, Failed, Healthy};
    let scenario = gpus(2, "L40S");
    let Some(stub) = Stub::build(&scenario) else { return };
    for (answer, code, known) in [
        (9, FindingCode::DriverNotLoaded, Failed),
        (18, FindingCode::DriverVersionMismatch, Degraded),
        (4, FindingCode::DriverFailed, Degraded),
        (999, FindingCode::DriverFailed, Degraded),
    ] {
        let broken = format!("driver {answer}\n{scenario}");
        stub.scenario(&broken);
        let mut detector = stub.detector();
        let fleet = detector.detect(0);
        assert_eq!(
            (fleet.gpus.len(), codes(&fleet), fleet.driver),
            (0, vec![code], GpuDriver::None),
            "answer {answer}"
        );
        stub.scenario(&scenario);
        assert_eq!(detector.detect(1_000), fleet, "it is tried again after a pause only");
        assert_eq!(health(&detector.detect(LONG_MS)), [Healthy, Healthy]);
        stub.scenario(&broken);
        let fleet = detector.detect(LONG_MS + 1);
        assert_eq!((health(&fleet), codes(&fleet)), (vec![known; 2], vec![code]), "answer {answer} in the middle");
        stub.scenario(&scenario);
        poll_until(&mut detector, 3 * LONG_MS, "the return of the driver", |fleet| health(fleet) == [Healthy, Healthy]);
    }
}

/// No library at all: a host without NVIDIA is silent about it, unless the config
/// asks for the driver or the bus has such a GPU.
#[test]
fn an_absent_library_matters_only_if_it_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let options = |gpu: &str| GpuOptions {
        nvml_library: Some(folder.path().join("no-such-library.so")),
        nvml_program: Some(env!("CARGO_BIN_EXE_clawnode").into()),
        sysfs_root: folder.path().to_path_buf(),
        ..GpuOptions::new(gpu, "n1", PathBuf::new())
    };
    let wanted = GpuDetector::new(options("nvml")).unwrap().detect(0);
    assert_eq!((codes(&wanted), wanted.gpus.len()), (vec![FindingCode::DriverAbsentLibrary], 0));
    assert!(wanted.findings[0].detail.contains("no-such-library.so"), "{:?}", wanted.findings);
    let nvml_findings = |detector: &mut GpuDetector| {
        let findings = detector.detect(0).findings;
        findings.into_iter().filter(|finding| finding.subject == "nvml").map(|finding| finding.code).collect::<Vec<_>>()
    };
    assert_eq!(nvml_findings(&mut GpuDetector::new(options("auto")).unwrap()), []);
    let device = folder.path().join("bus/pci/devices/0000:1a:00.0");
    std::fs::create_dir_all(&device).unwrap();
    std::fs::write(device.join("vendor"), "0x10de\n").unwrap();
    std::fs::write(device.join("class"), "0x030200\n").unwrap();
    let missed = nvml_findings(&mut GpuDetector::new(options("auto")).unwrap());
    assert_eq!(missed, [FindingCode::DriverAbsentLibrary]);
    // A library that is something else.
    let other = folder.path().join("no-such-library.so");
    std::fs::write(&other, "no library").unwrap();
    assert_eq!(codes(&GpuDetector::new(options("nvml")).unwrap().detect(0)), [FindingCode::DriverAbsentLibrary]);
}

#[test]
fn an_xid_marks_its_gpu_as_far_as_it_is_serious() {
    use GpuHealth::{Degraded, Failed, Healthy};
    let mut scenario = gpus(3, "H100 PCIe");
    let Some(stub) = Stub::build(&scenario) else { return };
    let mut detector = stub.detector();
    detector.detect(0);
    let mut events: Vec<GpuEvent> = Vec::new();
    for (serial, gpu, code, expected) in [
        (1, 0, 31, [Healthy, Healthy, Healthy]),
        (2, 1, 74, [Healthy, Degraded, Healthy]),
        (3, 2, 79, [Healthy, Degraded, Failed]),
    ] {
        writeln!(scenario, "xid {serial} {gpu} {code}").unwrap();
        stub.scenario(&scenario);
        let began = Instant::now();
        while !events.iter().any(|event| event.code == Some(code)) {
            assert!(began.elapsed() < DEADLINE, "Xid {code} did not come");
            detector.detect(1_000);
            events.extend(detector.events());
        }
        assert_eq!(health(&detector.detect(1_000)), expected, "after Xid {code}");
    }
    // A lesser one does not hide what is worse.
    scenario += "xid 4 2 13\n";
    stub.scenario(&scenario);
    // It comes when the driver's thread gives it: a mark counts from then on.
    let began = Instant::now();
    while !events.iter().any(|event| event.code == Some(13)) {
        assert!(began.elapsed() < DEADLINE, "Xid 13 did not come");
        detector.detect(2_000);
        events.extend(detector.events());
    }
    let fleet = detector.detect(2_000);
    assert_eq!(fleet.gpus[2].health_reason.as_deref(), Some("Xid 79: the GPU has fallen off the bus"));
    let rows: Vec<String> = fleet.findings.iter().map(|f| format!("{} {}: {}", f.code, f.subject, f.detail)).collect();
    expect![[r"
        gpu_error_event GPU-00000001: Xid 74: NVLink error
        gpu_error_event GPU-00000002: Xid 79: the GPU has fallen off the bus"]]
    .assert_eq(&rows.join("\n"));
    let told: BTreeMap<u32, (&str, bool)> =
        events.iter().filter_map(|event| Some((event.code?, (event.uuid.0.as_str(), event.simulated)))).collect();
    assert_eq!(
        told,
        BTreeMap::from([
            (13, ("GPU-00000002", false)),
            (31, ("GPU-00000000", false)),
            (74, ("GPU-00000001", false)),
            (79, ("GPU-00000002", false))
        ])
    );
    // The driver's own verdict: a drain, a reset, and in the end nothing any more.
    stub.scenario(&(scenario.clone() + "gpu 0 recovery 4\ngpu 1 recovery 0\ngpu 2 recovery 1\n"));
    let fleet = detector.detect(10_000);
    assert_eq!(health(&fleet), [Degraded, Degraded, Failed]);
    assert_eq!(fleet.gpus[0].health_reason.as_deref(), Some("the driver says: drain the GPU, then reset it"));
    stub.scenario(&(scenario + "gpu 0 recovery 0\ngpu 1 recovery 0\ngpu 2 recovery 0\n"));
    poll_until(&mut detector, LONG_MS, "forgiveness", |fleet| {
        health(fleet) == [Healthy; 3] && fleet.findings.is_empty()
    });
}

#[test]
fn a_call_that_hangs_holds_up_nobody() {
    use GpuHealth::{Degraded, Failed, Healthy};
    let scenario = gpus(2, "L40S");
    let Some(stub) = Stub::build(&scenario) else { return };
    let patience = Patience { first_ms: 5_000, answer_ms: 150, failed_after_ms: 900, retry_ms: 100, threads_max: 3 };
    let mut detector = GpuDetector::new(GpuOptions { patience, ..stub.options("nvml") }).unwrap();
    let before = detector.detect(0);
    assert_eq!(health(&before), [Healthy, Healthy]);

    // The wait for events may hang without anybody noticing.
    stub.scenario(&format!("{scenario}hang nvmlEventSetWait_v2\n"));
    assert_eq!(detector.detect(1_000), before);
    assert_eq!(detector.measure(&Sampling::new(1_000, std::collections::BTreeSet::new())).len(), 2);

    stub.scenario(&format!("{scenario}hang nvmlDeviceGetTemperature\n"));
    let began = Instant::now();
    let fleet = detector.detect(2_000);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!((health(&fleet), codes(&fleet)), (vec![Degraded; 2], vec![FindingCode::DriverHung]));
    let began = Instant::now();
    for _ in 0..20 {
        detector.detect(3_000);
        detector.measure(&Sampling::new(3_000, std::collections::BTreeSet::new()));
    }
    let waited_for_all = Duration::from_millis(20 * 2 * patience.answer_ms);
    assert!(began.elapsed() < waited_for_all / 2, "who is known to hang is not waited for");
    let fleet = poll_until(&mut detector, 4_000, "the end of patience", |fleet| health(fleet) == [Failed; 2]);
    assert_eq!(codes(&fleet), [FindingCode::DriverHung]);
    let names = |fleet: &Fleet| fleet.gpus.iter().map(|gpu| gpu.uuid.clone()).collect::<Vec<_>>();
    assert_eq!(names(&fleet), names(&before), "they keep their names");
    let waiting = fleet.findings[0].detail.split(' ').find_map(|word| word.parse::<usize>().ok()).unwrap();
    assert!((1..=patience.threads_max).contains(&waiting), "threads that are left behind are bounded: {waiting}");

    stub.scenario(&scenario);
    poll_until(&mut detector, 5_000, "the answer", |fleet| *fleet == before);
}

/// Through the whole agent: what the driver finds reaches the gateway.
#[tokio::test]
async fn the_gateway_is_told_what_happens_to_a_gpu() {
    let scenario = gpus(2, "H100 80GB HBM3");
    let Some(stub) = Stub::build(&scenario) else { return };
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let (_agent, mut session, capabilities) = agent_with(&stub, &peer, folder.path()).await;
    let models: Vec<&str> = capabilities.gpus.iter().map(|gpu| gpu.model.as_str()).collect();
    assert_eq!((capabilities.gpu_driver, models.as_slice()), (GpuDriver::Nvml, &["H100", "H100"][..]));
    assert!(!capabilities.simulated);
    let details = session.wait_for(|message| match message {
        NodeMessage::Metrics { gpus, .. } => gpus.first().and_then(|gpu| gpu.details.clone()),
        _ => None,
    });
    assert_eq!(details.await.pcie_generation, Some(5));

    stub.scenario(&(scenario + "xid 1 1 79\n"));
    let (mut told, mut changed) = (None, None);
    session
        .wait_for(|message| {
            match message {
                NodeMessage::GpuEvents { events } => told = events.first().cloned(),
                NodeMessage::CapabilitiesChanged { capabilities } => changed = Some(capabilities.clone()),
                _ => {}
            }
            let failed = |has: &NodeCapabilities| has.gpus.iter().any(|gpu| gpu.health == GpuHealth::Failed);
            (told.is_some() && changed.as_ref().is_some_and(failed)).then_some(())
        })
        .await;
    let (told, changed) = (told.unwrap(), changed.unwrap());
    assert_eq!((told.kind, told.code, told.uuid.0.as_str()), (GpuEventKind::Xid, Some(79), "GPU-00000001"));
    assert_eq!(changed.gpus[1].health_reason.as_deref(), Some("Xid 79: the GPU has fallen off the bus"));
    let codes: Vec<FindingCode> = changed.findings.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&FindingCode::GpuErrorEvent), "{codes:?}");
}
