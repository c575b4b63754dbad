//! The process that NVIDIA's library is loaded into: what goes wrong in it is a finding,
//! and the agent goes on.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use claw_proto::message::NodeMessage;
use claw_proto::topology::{FindingCode, GpuHealth, NodeCapabilities};
use clawnode::gpu::worker::Patience;
use clawnode::gpu::{Fleet, GpuDetector, GpuOptions, Sampling};

use crate::agent::{Agent, enrolled};
use crate::nvml::{Stub, agent_with, codes, gpus, health, poll_until};
use crate::peer::Peer;
use crate::support::{self, kill_9, runs};

const PATIENCE: Patience =
    Patience { first_ms: 10_000, answer_ms: 10_000, failed_after_ms: 60_000, retry_ms: 50, threads_max: 3 };

#[test]
fn a_library_that_crashes_takes_its_own_process_and_no_more() {
    use GpuHealth::{Degraded, Failed, Healthy};
    let scenario = gpus(3, "L40S");
    let Some(stub) = Stub::build(&(scenario.clone() + "xid 1 1 79\n")) else { return };
    let mut detector = GpuDetector::new(GpuOptions { patience: PATIENCE, ..stub.options("nvml") }).unwrap();
    let marked = poll_until(&mut detector, 1_000, "the Xid", |fleet| health(fleet) == [Healthy, Failed, Healthy]);
    // The stub tells an Xid once to each process.
    stub.scenario(&scenario);
    for function in ["nvmlDeviceGetTemperature", "nvmlDeviceGetCount_v2", "nvmlEventSetWait_v2"] {
        stub.scenario(&format!("{scenario}crash {function}\n"));
        let is_over = |fleet: &Fleet| codes(fleet).contains(&FindingCode::DriverFailed);
        let fleet = poll_until(&mut detector, 1_000, function, is_over);
        assert_eq!(health(&fleet), [Degraded, Failed, Degraded], "{function}");
        assert_eq!(fleet.findings[0].subject, "nvml");
        assert!(fleet.findings[0].detail.contains("SIGSEGV"), "{:?}", fleet.findings);
        let names = |fleet: &Fleet| fleet.gpus.iter().map(|gpu| gpu.uuid.clone()).collect::<Vec<_>>();
        assert_eq!(names(&fleet), names(&marked), "they keep their names");
        assert_eq!(detector.measure(&Sampling::new(1_000, BTreeSet::new())), [], "no old numbers");
        stub.scenario(&scenario);
        // Another process, and it knows of the Xid that only the first was told.
        poll_until(&mut detector, 1_000, "the return of the driver", |fleet| *fleet == marked);
    }
    // A GPU that is lost when its process goes is still the same GPU, and its loss is no news.
    detector.events();
    stub.scenario(&(scenario.clone() + "gpu 2 state 15\n"));
    let lost = detector.detect(1_000);
    assert_eq!((health(&lost), detector.events().len()), (vec![Healthy, Failed, Failed], 1));
    stub.scenario(&(scenario.clone() + "gpu 2 state 15\ncrash nvmlDeviceGetCount_v2\n"));
    poll_until(&mut detector, 1_000, "the crash", |fleet| codes(fleet).contains(&FindingCode::DriverFailed));
    stub.scenario(&(scenario + "gpu 2 state 15\n"));
    poll_until(&mut detector, 1_000, "the return of the driver", |fleet| *fleet == lost);
    assert_eq!(detector.events(), []);
    // One that crashes before anything is known.
    stub.scenario("crash nvmlInit_v2\n");
    let fleet = GpuDetector::new(stub.options("nvml")).unwrap().detect(0);
    assert_eq!((fleet.gpus.len(), codes(&fleet)), (0, vec![FindingCode::DriverFailed]));
}

#[test]
fn what_a_library_prints_is_no_answer() {
    let scenario = gpus(2, "L40S");
    let Some(stub) = Stub::build(&format!("{scenario}print nvmlInit_v2\nprint nvmlDeviceGetTemperature\n")) else {
        return;
    };
    let mut detector = GpuDetector::new(stub.options("nvml")).unwrap();
    let fleet = detector.detect(0);
    assert_eq!((fleet.gpus.len(), codes(&fleet)), (2, vec![]));
    assert_eq!(detector.measure(&Sampling::new(0, BTreeSet::new())).len(), 2);
}

fn program(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_process_that_does_not_do_its_work_is_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    for (script, words) in [
        ("echo nonsense; exec /bin/sleep 100", "what it answered cannot be read: expected"),
        ("exec /bin/cat", "what it answered cannot be read: unknown variant `begin`"),
        ("echo '{\"measured\":{\"gpus\":[]}}'; exec /bin/sleep 100", "its process answered something else"),
        ("exec /bin/cat /dev/zero", "a line of more than 8388608 bytes came back"),
        ("exec >/dev/null 2>&1; exec /bin/sleep 100", "it ended its output"),
        ("printf '{\"measured\":'", "its process ended by itself (exit status: 0)"),
        ("exit 3", "its process ended by itself (exit status: 3)"),
        ("kill -ABRT $$", "its process was ended by SIGABRT"),
    ] {
        let nvml_program = Some(program(folder.path(), script));
        let options = GpuOptions { nvml_program, patience: PATIENCE, ..GpuOptions::new("nvml", "n1", PathBuf::new()) };
        let fleet = GpuDetector::new(options).unwrap().detect(0);
        assert_eq!((fleet.gpus.len(), codes(&fleet)), (0, vec![FindingCode::DriverFailed]), "{script}");
        assert!(fleet.findings[0].detail.contains(words), "{script}: {:?}", fleet.findings);
    }
    let nvml_program = Some(folder.path().join("no-such-program"));
    let options = GpuOptions { nvml_program, ..GpuOptions::new("nvml", "n1", PathBuf::new()) };
    let fleet = GpuDetector::new(options).unwrap().detect(0);
    assert!(fleet.findings[0].detail.contains("cannot be started: No such file"), "{:?}", fleet.findings);
}

#[test]
fn without_a_library_no_process_waits_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let script = format!("echo $$ >>{}; exec {} \"$@\"", pids.display(), env!("CARGO_BIN_EXE_clawnode"));
    let options = GpuOptions {
        nvml_library: Some(folder.path().join("no-such-library.so")),
        nvml_program: Some(program(folder.path(), &script)),
        sysfs_root: folder.path().to_path_buf(),
        patience: PATIENCE,
        ..GpuOptions::new("nvml", "n1", PathBuf::new())
    };
    let mut detector = GpuDetector::new(options).unwrap();
    let started = |detector: &mut GpuDetector, uptime_ms| {
        let fleet = detector.detect(uptime_ms);
        assert_eq!(codes(&fleet), [FindingCode::DriverAbsentLibrary]);
        let pids = std::fs::read_to_string(&pids).unwrap();
        let pids: Vec<i32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
        assert!(pids.iter().all(|pid| !runs(*pid)), "{pids:?}");
        pids.len()
    };
    assert_eq!([0, 1_000, 59_999, 60_000, 61_000].map(|uptime_ms| started(&mut detector, uptime_ms)), [1, 1, 1, 2, 2]);
}

/// The process below the agent that has the library.
fn driver_of(agent: &Agent) -> Option<i32> {
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent: i32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let is = parent == agent.pid() && command.split(|byte| *byte == 0).any(|word| word == b"gpu-driver");
        is.then_some(pid)
    })
}

/// Through the whole agent: the process ends and the agent tells so; the agent ends in
/// whatever way, and its process does not stay, not even one that hangs.
#[tokio::test]
async fn neither_ends_with_the_other_but_the_process_with_the_agent() {
    let scenario = gpus(2, "H100 80GB HBM3");
    let Some(stub) = Stub::build(&scenario) else { return };
    let peer = Peer::new().await;
    let folder = enrolled(&peer).await;
    let (agent, mut session, capabilities) = agent_with(&stub, &peer, folder.path()).await;
    assert_eq!(capabilities.gpus.len(), 2);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", agent.pid())).unwrap();
    assert!(!maps.contains("libnvidia-ml"), "the agent itself has not loaded it");

    kill_9(driver_of(&agent).unwrap());
    let is_told = |has: &NodeCapabilities| {
        let all = has.gpus.iter().all(|gpu| gpu.health == GpuHealth::Degraded) && has.gpus.len() == 2;
        all && has
            .findings
            .iter()
            .any(|finding| finding.code == FindingCode::DriverFailed && finding.detail.contains("SIGKILL"))
    };
    session
        .wait_for(|message| match message {
            NodeMessage::CapabilitiesChanged { capabilities } => is_told(capabilities).then_some(()),
            _ => None,
        })
        .await;
    kill_9(agent.pid());
    drop(agent);

    let (agent, mut session, _) = agent_with(&stub, &peer, folder.path()).await;
    let driver = driver_of(&agent).unwrap();
    stub.scenario(&format!("{scenario}hang nvmlDeviceGetTemperature\n"));
    session
        .wait_for(|message| match message {
            NodeMessage::CapabilitiesChanged { capabilities } => {
                capabilities.findings.iter().any(|finding| finding.code == FindingCode::DriverHung).then_some(())
            }
            _ => None,
        })
        .await;
    assert!(runs(driver), "it hangs");
    kill_9(agent.pid());
    support::poll_until("the end of the process", || (!runs(driver)).then_some(())).await;
}
