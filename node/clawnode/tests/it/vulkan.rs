//! The Vulkan driver: with the real probe on lavapipe, and with programs in the probe's
//! place that misbehave.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use claw_compute::report::{
    DeviceKind, DeviceReport, Document, ErrorCode, HeapReport, ListReport, Outcome, ProbeError,
};
use claw_proto::message::NodeMessage;
use claw_proto::topology::{FindingCode, GpuDriver, GpuHealth};
use clawnode::gpu::vulkan::{VulkanOptions, is_software};
use clawnode::gpu::{Fleet, GpuDetector, GpuOptions, Sampling};

use crate::agent::{Agent, enrolled};
use crate::nvml::Stub;
use crate::peer::Peer;
use crate::support::{DEADLINE, runs, say};

/// Enough uptime for everything that is retried or listed again.
const LONG_MS: u64 = 3_600_000;

/// The real probe and lavapipe's manifest; nothing (loudly) without them, a failure in CI.
fn lavapipe() -> Option<(PathBuf, PathBuf)> {
    let built = std::env::current_exe().unwrap().parent().unwrap().with_file_name("claw-gpu-probe");
    let probe = std::env::var_os("CLAW_GPU_PROBE").map_or(built, PathBuf::from);
    let manifests = std::fs::read_dir("/usr/share/vulkan/icd.d").into_iter().flatten().filter_map(Result::ok);
    let manifest = manifests.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("lvp_icd"));
    let missing = match (probe.exists(), &manifest) {
        (true, Some(manifest)) => return Some((probe, manifest.clone())),
        (false, _) => "claw-gpu-probe is not built (cargo build -p claw-compute --features vulkan)",
        (true, None) => "lavapipe is not installed (mesa-vulkan-drivers)",
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "in CI: {missing}");
    say(&format!("SKIP: {missing}; the real probe is NOT tested with the agent"));
    None
}

fn variables(variables: &[(&str, &Path)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| ((*name).into(), value.as_os_str().to_owned())).collect()
}

fn detector(gpu: &str, vulkan: VulkanOptions) -> GpuDetector {
    GpuDetector::new(GpuOptions { vulkan, ..GpuOptions::new(gpu, "n1", PathBuf::new()) }).unwrap()
}

fn codes(fleet: &Fleet) -> Vec<FindingCode> {
    fleet.findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn lavapipe_is_a_gpu_only_where_it_is_asked_for() {
    let Some((probe, manifest)) = lavapipe() else { return };
    let options = |software, driver: &Path| VulkanOptions {
        probe: Some(probe.clone()),
        software,
        environment: variables(&[("VK_DRIVER_FILES", driver), ("VK_ICD_FILENAMES", driver)]),
        ..VulkanOptions::default()
    };
    for gpu in ["vulkan", "auto"] {
        let fleet = detector(gpu, options(false, &manifest)).detect(0);
        assert_eq!((fleet.driver, fleet.gpus.len(), codes(&fleet)), (GpuDriver::None, 0, vec![]), "{gpu}");
    }
    let nowhere = detector("vulkan", options(true, Path::new("/nowhere.json"))).detect(0);
    assert_eq!((nowhere.gpus.len(), codes(&nowhere)), (0, vec![]), "a loader without drivers is no finding");

    let mut detector = detector("vulkan", options(true, &manifest));
    let fleet = detector.detect(0);
    assert_eq!((fleet.driver, fleet.gpus.len(), codes(&fleet)), (GpuDriver::Vulkan, 1, vec![]));
    let gpu = &fleet.gpus[0];
    assert!(is_software(gpu) && gpu.model == "software llvmpipe", "{gpu:?}");
    assert!(gpu.memory_mib > 0 && gpu.pci_address.is_none(), "{gpu:?}");
    assert!(gpu.driver_version.as_deref().is_some_and(|version| version.starts_with("Mesa ")), "{gpu:?}");
    assert_eq!(detector.measure(&Sampling::new(0, [gpu.uuid.clone()].into())), [], "no number that nobody measured");
    assert_eq!(detector.detect(LONG_MS), fleet, "listed again, it is the same");
}

#[test]
fn what_is_not_installed_is_told_to_those_who_named_it() {
    let absent = VulkanOptions { probe: Some("/nowhere/claw-gpu-probe".into()), ..VulkanOptions::default() };
    let fleet = detector("vulkan", absent).detect(0);
    assert_eq!(codes(&fleet), [FindingCode::DriverAbsentLibrary]);
    assert!(fleet.findings[0].detail.starts_with("/nowhere/claw-gpu-probe cannot be started: "), "{fleet:?}");
    assert_eq!(codes(&detector("auto", VulkanOptions::default()).detect(0)), [], "no probe beside this program");

    let Some((probe, _)) = lavapipe() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("libvulkan.so.1"), "no library").unwrap();
    let options =
        VulkanOptions { environment: variables(&[("LD_LIBRARY_PATH", folder.path())]), ..VulkanOptions::default() };
    let fleet = detector("vulkan", VulkanOptions { probe: Some(probe.clone()), ..options.clone() }).detect(0);
    assert_eq!(codes(&fleet), [FindingCode::DriverAbsentLibrary]);
    assert!(fleet.findings[0].detail.starts_with("claw-gpu-probe: NO_LOADER: "), "{fleet:?}");
}

/// A folder that tells the program in the probe's place what to do.
struct World(tempfile::TempDir);

impl World {
    fn new(devices: Vec<DeviceReport>) -> Self {
        let list = Document::new(Outcome::List(ListReport { loader_version: "1.3.0".to_owned(), devices }));
        let world = Self(tempfile::tempdir().unwrap());
        world.write("list", &serde_json::to_string(&list).unwrap());
        world.write("mode", "list\n");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Process numbers of the programs that were started, and their arguments.
    fn starts(&self) -> Vec<(i32, String)> {
        let text = std::fs::read_to_string(self.path("starts")).unwrap_or_default();
        let start =
            |line: &str| line.split_once(' ').map(|(pid, rest)| (pid.parse().unwrap(), rest.to_owned())).unwrap();
        text.lines().map(start).collect()
    }

    fn options(&self) -> VulkanOptions {
        VulkanOptions {
            probe: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fake_probe").into()),
            environment: variables(&[("WORLD", self.0.path())]),
            ..VulkanOptions::default()
        }
    }
}

fn device(name: &str, vendor_id: u32, uuid: &str, address: &str) -> DeviceReport {
    DeviceReport {
        name: name.to_owned(),
        vendor_id,
        kind: DeviceKind::Discrete,
        uuid: Some(uuid.repeat(16)),
        pci_address: Some(address.to_owned()),
        heaps: vec![HeapReport { size_bytes: 16 << 30, device_local: true, budget_bytes: None }],
        ..DeviceReport::default()
    }
}

fn radeon() -> DeviceReport {
    device("AMD Radeon RX 7800 XT (RADV NAVI32)", 0x1002, "c1", "0000:c1:00.0")
}

#[test]
fn a_probe_that_misbehaves_is_a_finding_and_gpus_keep_their_identity() {
    let world = World::new(vec![radeon()]);
    let options = VulkanOptions { timeout_ms: 1_500, wait_ms: 3_000, ..world.options() };
    let mut detector = detector("vulkan", options);
    let before = detector.detect(0);
    assert_eq!((before.gpus[0].model.as_str(), before.gpus[0].memory_mib), ("RX 7800 XT", 16_384));
    assert_eq!((before.gpus[0].health, codes(&before)), (GpuHealth::Healthy, vec![]));

    let error = Document::new(Outcome::Error(ProbeError::new(ErrorCode::DriverFailed, "vkCreateInstance: OOM")));
    world.write("error", &serde_json::to_string(&error).unwrap());
    let failed = FindingCode::DriverFailed;
    let stories = [
        ("segv", failed, "was ended by SIGSEGV: a Vulkan driver crashed; it said: driver:; page fault"),
        ("abort", failed, "was ended by SIGABRT: a Vulkan driver crashed"),
        ("garbage", failed, "gave no list (exit status: 0, expected value at line 1 column 1): \"vk:; [31mhello\""),
        ("loud", failed, "it wrote more than 1048576 bytes and was killed"),
        ("hang", FindingCode::DriverHung, "it did not end within 1500 ms and was killed"),
    ];
    for (n, (mode, code, detail)) in (1..).zip(stories) {
        world.write("mode", &format!("{mode}\n"));
        let fleet = detector.detect(n * LONG_MS);
        assert_eq!(codes(&fleet), [code], "{mode}: {fleet:?}");
        assert_eq!(fleet.findings[0].subject, "vulkan");
        assert!(fleet.findings[0].detail.contains(detail), "{mode}: {}", fleet.findings[0].detail);
        let gpu = &fleet.gpus[0];
        assert_eq!((&gpu.uuid, gpu.health), (&before.gpus[0].uuid, GpuHealth::Degraded), "{mode}");
    }
    let helper = std::fs::read_to_string(world.path("helper")).unwrap().trim().parse().unwrap();
    poll_until_gone(helper);
    for (pid, arguments) in world.starts() {
        assert_eq!(arguments, "list --timeout-ms 1500");
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is not even a zombie");
    }
    world.write("mode", "error\n");
    std::fs::rename(world.path("list"), world.path("good")).unwrap();
    std::fs::rename(world.path("error"), world.path("list")).unwrap();
    let fleet = detector.detect(7 * LONG_MS);
    assert_eq!(fleet.findings[0].detail, "claw-gpu-probe: DRIVER_FAILED: vkCreateInstance: OOM");

    world.write("mode", "list\n");
    std::fs::rename(world.path("good"), world.path("list")).unwrap();
    assert_eq!(detector.detect(8 * LONG_MS), before, "it is as it was");
}

/// A process of the probe's group; somebody else reaps it.
fn poll_until_gone(pid: i32) {
    let from = Instant::now();
    while runs(pid) {
        assert!(from.elapsed() < DEADLINE, "process {pid} lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_list_is_kept_and_what_it_leaves_behind_is_not() {
    let world = World::new(vec![radeon()]);
    world.write("mode", "heir\n");
    let mut detector = detector("vulkan", world.options());
    let fleet = detector.detect(0);
    let helper = std::fs::read_to_string(world.path("helper")).unwrap().trim().parse().unwrap();
    poll_until_gone(helper);
    world.write("mode", "chatty\n");
    assert_eq!(detector.detect(299_999), fleet);
    assert_eq!(world.starts().len(), 1, "a list is kept for five minutes");
    assert_eq!(detector.detect(300_000), fleet, "whatever a driver says on standard error");
    assert_eq!(world.starts().len(), 2);

    let empty = Document::new(Outcome::List(ListReport::default()));
    world.write("list", &serde_json::to_string(&empty).unwrap());
    let gone = detector.detect(LONG_MS);
    assert_eq!((gone.gpus[0].health, codes(&gone)), (GpuHealth::Failed, vec![FindingCode::GpuLost]));
}

#[test]
fn a_slow_probe_is_no_broken_one() {
    let world = World::new(Vec::new());
    let newer = r#"{"schema_version": 7, "probe_version": "9.9.9", "weather": "fine", "list": {"queues": 3, "devices": [
        {"name": "Intel(R) Arc(tm) B580 Graphics (BMG G21)", "kind": "discrete", "vendor_id": 32902, "rays": [1],
         "uuid": "8680e20b00000000030000000000000f", "heaps": [{"size_bytes": 12884901888, "device_local": true}]}]}}"#;
    world.write("list", newer);
    world.write("mode", "slow\n");
    let mut detector = detector("vulkan", VulkanOptions { first_wait_ms: 50, wait_ms: 20, ..world.options() });
    for uptime_ms in [0, 1_000, 2_000] {
        let fleet = detector.detect(uptime_ms);
        assert_eq!((fleet.gpus.len(), codes(&fleet)), (0, vec![]));
    }
    world.write("go", "");
    let from = Instant::now();
    let fleet = loop {
        let fleet = detector.detect(3_000);
        if !fleet.gpus.is_empty() {
            break fleet;
        }
        assert!(from.elapsed() < DEADLINE, "it was not listed: {fleet:?}");
    };
    assert_eq!((fleet.gpus[0].model.as_str(), fleet.gpus[0].memory_mib), ("Arc B580 Graphics", 12_288));
    assert_eq!((fleet.gpus[0].uuid.0.as_str(), codes(&fleet)), ("vk-8680e20b00000000030000000000000f", vec![]));
    assert_eq!(world.starts().len(), 1);
}

#[test]
fn a_gpu_that_nvml_sees_too_is_one() {
    let Some(stub) = Stub::build("gpus 1\ngpu 0 name NVIDIA L4\ngpu 0 pci 00000000:1A:00.0\n") else { return };
    let world = World::new(vec![radeon(), device("NVIDIA L4", 0x10de, "1a", "0000:1a:00.0")]);
    let options = GpuOptions {
        nvml_library: Some(stub.library()),
        nvml_program: Some(env!("CARGO_BIN_EXE_clawnode").into()),
        vulkan: world.options(),
        ..GpuOptions::new("vulkan, nvml", "n1", PathBuf::new())
    };
    let fleet = GpuDetector::new(options).unwrap().detect(0);
    let rows: Vec<_> = fleet.gpus.iter().map(|gpu| (gpu.model.as_str(), gpu.driver)).collect();
    assert_eq!(rows, [("L4", Some(GpuDriver::Nvml)), ("RX 7800 XT", Some(GpuDriver::Vulkan))]);
    assert_eq!((fleet.driver, codes(&fleet)), (GpuDriver::Nvml, vec![]));
}

/// Through the whole agent: a node with software in a GPU's place says so.
#[tokio::test]
async fn a_node_that_computes_in_software_says_so() {
    let Some((probe, manifest)) = lavapipe() else { return };
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let environment = [
        ("CLAWNODE_GPU", "vulkan".as_ref()),
        ("CLAWNODE_GPU_VULKAN_PROBE", probe.as_os_str()),
        ("CLAWNODE_GPU_VULKAN_SOFTWARE", "true".as_ref()),
        ("VK_DRIVER_FILES", manifest.as_os_str()),
        ("VK_ICD_FILENAMES", manifest.as_os_str()),
    ];
    let _agent = Agent::start_with(folder.path(), &environment);
    let (_session, register) = peer.register_as(2, 0, BTreeMap::new()).await;
    let NodeMessage::Register { capabilities, .. } = register else { panic!("{register:?}") };
    let models: Vec<&str> = capabilities.gpus.iter().map(|gpu| gpu.model.as_str()).collect();
    assert_eq!((capabilities.gpu_driver, models.as_slice()), (GpuDriver::Vulkan, &["software llvmpipe"][..]));
    assert!(capabilities.simulated);
}
