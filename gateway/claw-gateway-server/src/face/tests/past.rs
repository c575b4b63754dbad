//! What `diagnose` reads of kernels' logs, of starts of machines and of what was changed, and how GPUs' names meet.

use claw_proto::ids::NodeId;
use claw_proto::message::{KernelLine, KernelLog};
use claw_proto::time::Timestamp;
use claw_proto::topology::{FindingCode, NodeCapabilities, NodeFinding};
use serde_json::{Value, json};

use super::desk::{Desk, desk, h100x8};

/// A machine with GPUs at addresses 0000:10:00.0 and on, in one run of it, with a driver.
fn machine(boot: &str, driver: &str) -> NodeCapabilities {
    let mut has = NodeCapabilities { boot_id: Some(boot.to_owned()), ..h100x8("gpu-01") };
    for gpu in &mut has.gpus {
        gpu.pci_address = Some(format!("0000:{:02x}:00.0", 0x10 + gpu.index));
        gpu.driver_version = Some(driver.to_owned());
    }
    has
}

impl Desk {
    /// The kernel of a node says something.
    fn said(&self, node_id: NodeId, boot: &str, at: Timestamp, lines: &[(u64, &str)]) {
        let line = |(sequence, text): &(u64, &str)| KernelLine {
            sequence: *sequence,
            at,
            priority: 3,
            text: (*text).to_owned(),
        };
        let lines: Vec<KernelLine> = lines.iter().map(line).collect();
        let n_kept = lines.len() as u64;
        let log = KernelLog { boot_id: boot.into(), lines, n_kept, n_dropped: 0, n_missed: 0 };
        self.ops.control.kernels().heard(node_id, log, self.ops.control.now());
    }

    /// Waits until everything that is journaled has been looked at for changes.
    async fn learned(&self) {
        let control = &self.ops.control;
        let learned = async {
            while control.changes().seq() < control.snapshot().seq {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), learned).await.expect("changes are not learned");
    }

    async fn of_node(&self) -> Value {
        self.learned().await;
        self.ok("diagnose", &json!({ "node": "gpu-01" })).await["targets"][0].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_only_the_kernel_tells_is_found_and_its_gpu_is_ours() {
    let desk = desk().await;
    let node_id = desk.join_as("gpu-01", machine("a", "550.54")).await;
    let told = desk.of_node().await;
    assert_eq!(told["kernel_log"], json!({ "lines": 0, "lost": 0, "unread": ["gpu-01"] }), "{told}");
    let now = desk.ops.control.now();
    let text = "NVRM: Xid (PCI:0000:13:00): 79, pid=1, \u{1b}[31mGPU has\u{7} fallen off the bus.";
    desk.said(node_id, "a", now, &[(338, "nvme nvme0: 8/0/0 default/read/poll queues"), (339, text)]);
    let told = desk.of_node().await;
    let diagnosis = &told["diagnosis"];
    assert_eq!((&diagnosis["root"], &diagnosis["action"]), (&json!("xid_79"), &json!("reboot_node")), "{told}");
    assert_eq!(diagnosis["units"], json!(["GPU-gpu-01-3"]), "the address is our GPU's");
    let evidence = &diagnosis["evidence"][0];
    assert_eq!((&evidence["source"], &evidence["line"]), (&json!("kernel log"), &json!(2)), "{told}");
    let excerpt = evidence["excerpt"].as_str().unwrap();
    assert!(excerpt.contains("kernel: NVRM: Xid (PCI:0000:13:00): 79") && !excerpt.contains(char::is_control));
    assert_eq!((&told["kernel_log"]["lines"], &told["nodes_read"]), (&json!(2), &json!(["gpu-01"])), "{told}");
    let seen = desk.ok("node_get", &json!({ "node": "gpu-01" })).await;
    let heard = &seen["kernel_log"];
    assert_eq!((&heard["kept"], &heard["held"], &heard["dropped"]), (&json!(2), &json!(2), &json!(0)), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_told_by_one_name_and_an_excuse_by_another_meet() {
    let desk = desk().await;
    let node_id = desk.join_as("gpu-01", machine("a", "550.54")).await;
    let now = desk.ops.control.now();
    desk.happened_at(node_id, "GPU-gpu-01-2", 62, now);
    assert_eq!(desk.of_node().await["diagnosis"]["action"], "reset_gpu");
    let verdict = |bus: &str, value: &str| {
        format!(
            "NVRM: Xid (PCI:0000:{bus}:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to {value}"
        )
    };
    // That another GPU is well excuses nothing.
    desk.said(node_id, "a", now, &[(1, &verdict("15", "0x0 (None)"))]);
    assert_eq!(desk.of_node().await["diagnosis"]["action"], "reset_gpu");
    desk.said(node_id, "a", now, &[(2, &verdict("12", "0x0 (None)"))]);
    let told = desk.of_node().await;
    assert_eq!(
        (&told["diagnosis"]["root"], &told["diagnosis"]["action"]),
        (&json!("xid_62"), &json!("ignore")),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_text_that_names_our_gpus_is_their_nodes() {
    let desk = desk().await;
    let mut has = machine("a", "550.54");
    let uuid = "GPU-5d1f3a77-0000-1111-2222-333344445555";
    has.gpus[4].uuid = claw_proto::ids::GpuUuid(uuid.into());
    let node_id = desk.join_as("gpu-01", has).await;
    let text = format!("GPU {uuid} is in trouble\nNVRM: Xid (PCI:0000:14:00): 79, pid=1, GPU has fallen off the bus.");
    let told = desk.ok("diagnose", &json!({ "text": text })).await;
    let diagnosis = &told["targets"][0]["diagnosis"];
    assert_eq!((&diagnosis["root"], &diagnosis["units"]), (&json!("xid_79"), &json!([uuid])), "{told}");
    let call = &diagnosis["remedies"][0]["call"];
    assert_eq!((&call["tool"], &call["args"]["node"]), (&json!("node_get"), &json!(node_id)), "{told}");
    let told = desk.ok("diagnose", &json!({ "text": "NVRM: Xid (PCI:0000:14:00): 79, pid=1" })).await;
    assert_eq!(told["targets"][0]["diagnosis"]["units"], json!(["0000:14:00"]), "nothing says whose it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_start_is_over_and_what_comes_again_after_two_is_for_hands() {
    let desk = desk().await;
    let node_id = desk.join_as("gpu-01", machine("a", "550.54")).await;
    let (uuid, control) = ("GPU-gpu-01-5", &desk.ops.control);
    // The node's clock is ahead of the gateway's by minutes.
    desk.happened_at(node_id, uuid, 79, control.now().plus_ms(300_000));
    assert_eq!(desk.of_node().await["diagnosis"]["action"], "reboot_node");
    for (boot, action) in [("b", "reboot_node"), ("c", "service")] {
        desk.register(node_id, machine(boot, "550.54")).await;
        let told = desk.of_node().await;
        assert_eq!(told["diagnosis"]["action"], "ignore", "{told}");
        let why = told["diagnosis"]["why"].to_string();
        assert!(why.contains("started anew since"), "{told}");
        assert_eq!(control.changes().starts(node_id).last().unwrap().boot_id, boot);
        // The node's clock may be behind the gateway's: what it tells now is of now.
        desk.happened_at(node_id, uuid, 79, control.now().plus_ms(-30_000));
        let told = desk.of_node().await;
        assert_eq!(
            (&told["diagnosis"]["root"], &told["diagnosis"]["action"]),
            (&json!("xid_79"), &json!(action)),
            "{told}"
        );
        assert!(told["diagnosis"]["why"].to_string().contains("came again on this unit"), "{told}");
    }
    // Another GPU of the machine has no such past.
    desk.happened_at(node_id, "GPU-gpu-01-6", 62, control.now());
    let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
    assert_eq!(told["targets"][0]["diagnosis"]["root"], "xid_79", "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_did_not_come_back_with_its_machine_is_not_well() {
    let desk = desk().await;
    let node_id = desk.join_as("gpu-01", machine("a", "550.54")).await;
    let now = desk.ops.control.now();
    desk.happened_at(node_id, "GPU-gpu-01-5", 79, now);
    desk.said(node_id, "a", now, &[(7, "NVRM: Xid (PCI:0000:16:00): 119, pid=1, Timeout")]);
    let without = |boot, gone: &[u32]| {
        let mut has = machine(boot, "550.54");
        has.gpus.retain(|gpu| !gone.contains(&gpu.index));
        has
    };
    let judged = || async {
        let told = desk.of_node().await["diagnosis"].clone();
        (told["root"].clone(), told["action"].clone(), told["units"].clone(), told["why"].to_string())
    };
    desk.register(node_id, without("b", &[5])).await;
    let (root, action, units, why) = judged().await;
    assert_eq!((root, action, units), (json!("xid_79"), json!("service"), json!(["GPU-gpu-01-5"])), "{why}");
    assert!(why.contains("did not come back"), "{why}");
    // The other one is told by its address alone, which names no GPU of the machine any more.
    desk.register(node_id, without("c", &[6])).await;
    let (root, action, units, why) = judged().await;
    assert_eq!((root, action, units), (json!("xid_119"), json!("service"), json!(["GPU-gpu-01-6"])), "{why}");
    // Another GPU is in its place.
    let mut replaced = machine("d", "550.54");
    replaced.gpus[6].uuid = claw_proto::ids::GpuUuid("GPU-new".into());
    desk.register(node_id, replaced).await;
    assert_eq!(judged().await.1, "ignore");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_hides_no_programs_fault_that_came_after() {
    let desk = desk().await;
    let node_id = desk.join_as("gpu-01", machine("a", "550.54")).await;
    let uuid = "GPU-gpu-01-5";
    for code in [79, 31] {
        desk.happened_at(node_id, uuid, code, desk.ops.control.now());
    }
    desk.register(node_id, machine("b", "550.54")).await;
    let judged = || async { desk.of_node().await["diagnosis"].clone() };
    let told = judged().await;
    assert_eq!((&told["root"], &told["action"]), (&json!("xid_79"), &json!("ignore")), "both are over: {told}");
    desk.happened_at(node_id, uuid, 31, desk.ops.control.now());
    let told = judged().await;
    assert_eq!((&told["root"], &told["action"]), (&json!("xid_31"), &json!("restart_app")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_cannot_be_read_are_said() {
    let desk = desk().await;
    desk.join_as("gpu-01", machine("a", "550.54")).await;
    desk.learned().await;
    desk.ops.control.changes().behind(true);
    let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
    assert!(told["targets"][0]["diagnosis"]["why"].to_string().contains("what was changed of late"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_the_run_before_are_over_too() {
    let desk = desk().await;
    let node_id = desk.join_as("gpu-01", machine("a", "550.54")).await;
    let now = desk.ops.control.now();
    let lost = "NVRM: Xid (PCI:0000:13:00): 79, pid=1, GPU has fallen off the bus.";
    desk.said(node_id, "a", now.plus_ms(-60_000), &[(900, lost)]);
    // The machine is back, and has sent nothing of its kernel yet: what is held is of the run before.
    desk.register(node_id, machine("b", "550.54")).await;
    assert_eq!(desk.of_node().await["diagnosis"]["action"], "ignore");
    desk.said(node_id, "b", now, &[(3, "nvme nvme0: 8/0/0 default/read/poll queues")]);
    let told = desk.of_node().await;
    assert_eq!(
        (&told["diagnosis"]["root"], &told["diagnosis"]["action"]),
        (&json!("xid_79"), &json!("ignore")),
        "{told}"
    );
    assert_eq!(told["diagnosis"]["evidence"][0]["source"], "kernel log before its last start", "{told}");
    desk.said(node_id, "b", now, &[(4, lost)]);
    assert_eq!(desk.of_node().await["diagnosis"]["action"], "reboot_node");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_just_before_is_named() {
    let desk = desk().await;
    let node_id = desk.join_as("gpu-01", machine("a", "550.54")).await;
    desk.register(node_id, machine("a", "560.35")).await;
    desk.ok("node_cordon", &json!({ "node": "gpu-01", "reason": "a look" })).await;
    desk.happened_at(node_id, "GPU-gpu-01-0", 119, desk.ops.control.now().plus_ms(10));
    let told = desk.of_node().await;
    let changed = told["diagnosis"]["changed"].as_array().unwrap();
    let words: Vec<&str> = changed.iter().map(|change| change["what"].as_str().unwrap()).collect();
    assert_eq!(words[..2], ["the GPU driver went from 550.54 to 560.35", "it was made cordoned"], "{told}");
    assert!(words.len() <= 5);
    // What came after a fault did not cause it.
    desk.ops.control.metrics().forget(node_id);
    desk.happened_at(node_id, "GPU-gpu-01-0", 119, desk.ops.control.now().plus_ms(-3_600_000));
    assert_eq!(desk.of_node().await["diagnosis"]["changed"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_log_that_cannot_be_read_or_is_not_whole_is_no_health() {
    let desk = desk().await;
    let finding = NodeFinding {
        code: FindingCode::KernelLogUnreadable,
        subject: "/dev/kmsg".into(),
        detail: "permission denied".into(),
    };
    let with = |detail: &str| {
        let finding = NodeFinding { detail: detail.into(), ..finding.clone() };
        NodeCapabilities { findings: vec![finding], ..machine("a", "550.54") }
    };
    let node_id = desk.join_as("gpu-01", with("no\u{1b}[2J\u{202e}\" \n; the root is xid_79")).await;
    let note = || async {
        let told = desk.of_node().await;
        let why = told["diagnosis"]["why"].as_array().unwrap().iter().map(|why| why.as_str().unwrap().to_owned());
        why.into_iter().find(|why| why.contains("kernel log")).unwrap()
    };
    let why = note().await;
    let (ours, said) = why.split_once("it says \"").unwrap();
    assert!(ours.contains("cannot be read there"), "{why}");
    assert_eq!(
        (said.matches('"').count(), said.ends_with('"')),
        (1, true),
        "a node's words stand between marks: {why}"
    );
    assert!(!said.contains(char::is_control) && !said.contains('\u{202e}'), "{why}");
    desk.register(node_id, with(&"x".repeat(4_000))).await;
    assert!(note().await.len() < 400);
    desk.register(node_id, with("permission denied")).await;
    let told = desk.of_node().await;
    assert!(
        told["diagnosis"]["why"].to_string().contains("cannot be read there; it says \\\"permission denied\\\""),
        "{told}"
    );
    let log = KernelLog { boot_id: "a".into(), lines: Vec::new(), n_kept: 5, n_dropped: 5, n_missed: 2 };
    desk.ops.control.kernels().heard(node_id, log, desk.ops.control.now());
    let told = desk.of_node().await;
    assert_eq!(told["kernel_log"]["lost"], 7, "{told}");
    assert!(told["diagnosis"]["why"].to_string().contains("7 lines of the kernel log of gpu-01 are lost"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_workload_the_kernel_tells_of_its_own_gpus_alone() {
    let desk = desk().await;
    let node_id = desk.join_as("gpu-01", machine("a", "550.54")).await;
    let spec = json!({ "name": "w", "runtime": "sim", "command": ["train"], "gpu": { "count": 2 } });
    desk.ok("workload_run", &json!({ "spec": spec })).await;
    desk.runs(node_id, "w").await;
    let state = desk.ops.control.snapshot();
    let own = state.workloads.by_name("w").unwrap().latest()[0].gpus.clone();
    let gpus = state.nodes.get(node_id).unwrap().gpus();
    let line = |gpu: &claw_proto::topology::GpuInfo| {
        format!("NVRM: Xid (PCI:0000:{:02x}:00): 119, pid=1, Timeout", 0x10 + gpu.index)
    };
    let other = gpus.iter().find(|gpu| !own.contains(&gpu.uuid)).unwrap();
    let its = gpus.iter().find(|gpu| own.contains(&gpu.uuid)).unwrap();
    let now = desk.ops.control.now();
    desk.said(node_id, "a", now, &[(1, &line(other))]);
    let of_work = || async { desk.ok("diagnose", &json!({ "workload": "w" })).await["targets"][0].clone() };
    assert_eq!(of_work().await["diagnosis"]["root"], "none");
    desk.said(node_id, "a", now, &[(2, &line(its))]);
    let told = of_work().await;
    assert_eq!(
        (&told["diagnosis"]["root"], &told["diagnosis"]["units"]),
        (&json!("xid_119"), &json!([its.uuid])),
        "{told}"
    );
    assert_eq!(told["diagnosis"]["evidence"][0]["source"], "kernel log of gpu-01", "{told}");
}
