use std::collections::BTreeSet;
use std::path::PathBuf;

use claw_proto::message::{GpuEvent, GpuEventKind, ThrottleReason};
use claw_proto::topology::{GpuHealth, GpuInfo};
use expect_test::expect;

use super::*;

fn detector(gpu: &str, faults: &str) -> (GpuDetector, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("faults.toml");
    std::fs::write(&path, faults).unwrap();
    (GpuDetector::new(GpuOptions::new(gpu, "n1", path)).unwrap(), folder)
}

fn shape(gpus: &[GpuInfo]) -> String {
    let one = |gpu: &GpuInfo| {
        let island = gpu.nvlink_island.map_or("-".into(), |island| island.to_string());
        format!("{}:{island}/{}", gpu.index, gpu.numa_node.unwrap())
    };
    gpus.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn islands_and_numa_nodes_follow_the_model() {
    let shape_of = |gpu: &str| shape(&detector(gpu, "").0.detect(0).gpus);
    expect!["0:0/0 1:0/0 2:0/0 3:0/0 4:0/1 5:0/1 6:0/1 7:0/1"].assert_eq(&shape_of("sim:h100x8"));
    expect!["0:-/0 1:-/0 2:-/1 3:-/1"].assert_eq(&shape_of("sim:l4x4"));
    expect!["0:0/0 1:0/0 2:-/1"].assert_eq(&shape_of("sim:rtx3090x3"));
    expect!["0:0/0 1:0/1"].assert_eq(&shape_of("sim:mi300xx2"));
    let (mut first, _one) = detector("sim:a100-80gx2", "");
    let (mut again, _two) = detector("sim:a100-80gx2", "");
    let gpus = first.detect(0).gpus;
    assert_eq!(gpus, again.detect(9_999).gpus);
    expect!["GPU-ef4da194-19e9-8549-6a3d-96bad3ead1b4"].assert_eq(&gpus[0].uuid.0);
}

#[test]
fn what_is_not_built_or_not_simulated_is_named() {
    let error = |gpu: &str| GpuDetector::new(GpuOptions::new(gpu, "n1", PathBuf::new())).unwrap_err().to_string();
    expect![[r#"gpu "cuda" is not a driver: use "auto", "none", "sim:<model>x<count>" such as sim:h100x8, or some of nvml, rocm, vulkan, and metal on macOS"#]]
    .assert_eq(&error("cuda"));
    expect![[r#""h100" is no <model>x<count> with a count from 1 to 256"#]].assert_eq(&error("sim:h100"));
    assert_eq!(error("nvml, nvml"), "gpu names nvml twice");
    assert!(error("sim:h1000x8").contains("there are h100, h200"));
    assert_eq!(GpuDetector::new(GpuOptions::new("none", "n1", PathBuf::new())).unwrap().detect(0).gpus, Vec::new());
}

#[test]
fn faults_begin_end_and_are_read_again() {
    let script = "[[fault]]\nat_s = 10\ngpu = 1\nkind = \"xid\"\nxid = 79\nuntil_s = 20\n\n[[fault]]\nat_s = 0\ngpu = 2\nkind = \"degraded\"\n";
    let (mut gpus, folder) = detector("sim:h100x4", script);
    let health = |gpus: &mut GpuDetector, uptime_ms| {
        gpus.detect(uptime_ms).gpus.into_iter().map(|gpu| gpu.health).collect::<Vec<_>>()
    };
    let (ok, bad, worse) = (GpuHealth::Healthy, GpuHealth::Degraded, GpuHealth::Failed);
    assert_eq!(health(&mut gpus, 9_999), [ok, ok, bad, ok]);
    assert_eq!(health(&mut gpus, 10_000), [ok, worse, bad, ok]);
    let held = gpus.detect(0).gpus.into_iter().map(|gpu| gpu.uuid).take(1).collect::<BTreeSet<_>>();
    let metrics = gpus.measure(&Sampling::new(10_000, held));
    assert_eq!(metrics.len(), 3, "a lost GPU does not answer");
    assert!(metrics[0].utilization_percent >= 80.0 && metrics[1].utilization_percent < 1.0);
    assert!(metrics.iter().all(|gpu| gpu.simulated));
    assert_eq!(health(&mut gpus, 20_000), [ok, ok, bad, ok]);
    let path = folder.path().join("faults.toml");
    std::fs::write(&path, "nonsense").unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    std::fs::File::open(&path).unwrap().set_modified(later).unwrap();
    assert_eq!(health(&mut gpus, 20_000), [ok, ok, bad, ok], "a broken file changes nothing");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(health(&mut gpus, 20_000), [ok; 4]);
}

#[test]
fn scripted_faults_show_in_events_and_numbers() {
    let fault = |gpu: u32, rest: &str| format!("[[fault]]\nat_s = 1\ngpu = {gpu}\n{rest}\n");
    let script = fault(0, "kind = \"xid\"\nxid = 31")
        + &fault(1, "kind = \"xid\"\nxid = 48\nuntil_s = 5")
        + &fault(2, "kind = \"hot\"")
        + &fault(3, "kind = \"lost\"");
    let (mut gpus, _folder) = detector("sim:h100x4", &script);
    gpus.detect(0);
    assert_eq!(gpus.events(), Vec::new());
    let health: Vec<GpuHealth> = gpus.detect(1_000).gpus.iter().map(|gpu| gpu.health).collect();
    assert_eq!(health, [GpuHealth::Healthy, GpuHealth::Failed, GpuHealth::Healthy, GpuHealth::Failed]);
    gpus.detect(2_000);
    let events = gpus.events();
    let told = |event: &GpuEvent| (event.kind, event.code, event.simulated);
    let expected =
        [(GpuEventKind::Xid, Some(31), true), (GpuEventKind::Xid, Some(48), true), (GpuEventKind::Lost, None, true)];
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), expected, "each is told once");
    let held = gpus.detect(2_000).gpus.into_iter().map(|gpu| gpu.uuid).collect();
    let metrics = gpus.measure(&Sampling::new(2_000, held));
    let hot = metrics[1].details.as_deref().unwrap();
    assert_eq!(hot.throttle_reasons, [ThrottleReason::HwSlowdown, ThrottleReason::HwThermal]);
    assert!(hot.sm_clock_mhz < metrics[0].details.as_deref().unwrap().sm_clock_mhz);
}
