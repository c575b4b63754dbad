//! What `diagnose` reads of nodes and workloads, and what it says of what it could not read.

use claw_proto::ids::{Attempt, GpuUuid, NodeId, WorkloadId};
use claw_proto::message::{GpuEvent, GpuEventKind, LogChunk, LogGap, LogKey, LogLine, LogStream, SystemMetrics};
use claw_proto::time::Timestamp;
use claw_tools::nodes::MetricsSnapshot;
use serde_json::{Value, json};

use super::desk::{Desk, desk};

impl Desk {
    /// A driver tells of a GPU.
    fn happened(&self, node_id: NodeId, uuid: &str, code: impl Into<Option<u32>>) {
        self.happened_at(node_id, uuid, code, self.ops.control.now());
    }

    /// The same, of a time.
    pub(super) fn happened_at(&self, node_id: NodeId, uuid: &str, code: impl Into<Option<u32>>, at: Timestamp) {
        let control = &self.ops.control;
        let event = GpuEvent {
            uuid: GpuUuid(uuid.into()),
            kind: GpuEventKind::Xid,
            code: code.into(),
            detail: "a test".into(),
            at,
            simulated: true,
        };
        let boot =
            control.snapshot().nodes.get(node_id).unwrap().capabilities.as_ref().and_then(|has| has.boot_id.clone());
        control.metrics().happened(node_id, &boot.as_deref().map(Into::into), vec![event]);
    }

    /// A node sends its numbers, all well.
    fn measured(&self, node_id: NodeId) {
        let details = json!({ "sm_clock_mhz": 1_980, "ecc_uncorrected_total": 0,
            "remapped_rows": { "correctable": 0, "uncorrectable": 0, "pending": false, "failed": false } });
        self.sent(node_id, usize::MAX, &details);
    }

    /// A node sends numbers of its first GPUs, with these details.
    fn sent(&self, node_id: NodeId, n: usize, details: &Value) {
        let control = &self.ops.control;
        let state = control.snapshot();
        let gpus = state.nodes.get(node_id).unwrap().gpus().iter().take(n);
        let numbers = |uuid: &GpuUuid| {
            let numbers = json!({ "uuid": uuid, "utilization_percent": 90.0, "memory_used_mib": 1, "memory_total_mib": 2,
                "temperature_celsius": 60.0, "power_watts": 300.0, "simulated": true, "details": details });
            serde_json::from_value(numbers).unwrap()
        };
        let gpus = gpus.map(|gpu| numbers(&gpu.uuid)).collect();
        let at = control.now();
        let snapshot = MetricsSnapshot { at, gpus, system: SystemMetrics::default(), workloads: Vec::new() };
        control.metrics().put(node_id, snapshot);
    }

    /// A node sends numbers of its GPUs for so many samples, one in ten seconds, up to now; the first has these details.
    fn sent_over_time(&self, node_id: NodeId, samples: i64, first: impl Fn(i64) -> Value) {
        let control = &self.ops.control;
        let state = control.snapshot();
        let gpus = state.nodes.get(node_id).unwrap().gpus();
        for n in 0..samples {
            let numbers = |(place, gpu): (usize, &claw_proto::topology::GpuInfo)| {
                let details = if place == 0 { first(n) } else { json!({ "ecc_uncorrected_total": 0 }) };
                let numbers = json!({ "uuid": gpu.uuid, "utilization_percent": 90.0, "memory_used_mib": 1, "memory_total_mib": 2,
                    "temperature_celsius": 60.0, "power_watts": 300.0, "simulated": true, "details": details });
                serde_json::from_value(numbers).unwrap()
            };
            let gpus = gpus.iter().enumerate().map(numbers).collect();
            let at = control.now().plus_ms((n - samples) * 10_000);
            let snapshot = MetricsSnapshot { at, gpus, system: SystemMetrics::default(), workloads: Vec::new() };
            control.metrics().put(node_id, snapshot);
        }
    }

    async fn wrote_at(&self, workload_id: WorkloadId, attempt: Attempt, text: &str) {
        let line = LogLine { sequence: 1, at: self.ops.control.now(), bytes: text.as_bytes().to_vec() };
        let key = LogKey { workload_id, attempt, stream: LogStream::Stderr };
        self.ops.control.logs().append(vec![LogChunk { key, gap: None, lines: vec![line] }]).await.unwrap();
    }
}

fn calls(target: &Value) -> Vec<&str> {
    let remedies = target["diagnosis"]["remedies"].as_array().unwrap();
    remedies.iter().filter_map(|remedy| remedy["call"]["tool"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_read_is_said_and_what_to_call() {
    let desk = desk().await;
    let node_id = desk.join("gpu-01").await;
    let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
    let target = &told["targets"][0];
    assert_eq!((&target["nodes_read"], &target["nodes_unread"]), (&json!([]), &json!(["gpu-01"])), "{told}");
    assert!(target["diagnosis"]["confidence"].as_f64().unwrap() <= 0.1, "{told}");
    assert!(target["diagnosis"]["cause"].as_str().unwrap().contains("nothing was read"), "{told}");
    assert_eq!(calls(target), ["node_get"]);
    let fleet = desk.ok("diagnose", &json!({})).await;
    assert_eq!((&fleet["nodes_read"], &fleet["nodes_unread"]), (&json!(0), &json!(["gpu-01"])), "{fleet}");
    desk.ok("workload_run", &json!({ "spec": { "name": "w", "command": ["true"] } })).await;
    let told = desk.ok("diagnose", &json!({ "workload": "w" })).await;
    assert!(told["targets"][0]["diagnosis"]["confidence"].as_f64().unwrap() <= 0.1, "{told}");
    assert_eq!(calls(&told["targets"][0])[..2], ["workload_get", "workload_explain"], "{told}");

    desk.measured(node_id);
    let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
    let target = &told["targets"][0];
    assert_eq!((&target["nodes_read"], &target["records"]), (&json!(["gpu-01"]), &json!(8)), "{told}");
    assert_eq!((&target["diagnosis"]["root"], &target["simulated"]), (&json!("none"), &json!(true)), "{told}");
    assert!(target["diagnosis"]["confidence"].as_f64().unwrap() >= 0.9, "{told}");
    let fleet = desk.ok("diagnose", &json!({})).await;
    assert_eq!((&fleet["nodes_read"], &fleet["nodes_unread"]), (&json!(1), &json!([])), "{fleet}");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_not_there_are_not_healthy() {
    let desk = desk().await;
    let node_id = desk.join("gpu-01").await;
    let nothing: (usize, Value) = (usize::MAX, json!({}));
    let clocks = (usize::MAX, json!({ "sm_clock_mhz": 1_980 }));
    for (n, details) in [(usize::MAX, Value::Null), nothing, clocks, (0, json!({ "ecc_uncorrected_total": 0 }))] {
        desk.sent(node_id, n, &details);
        let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
        let target = &told["targets"][0];
        assert_eq!((&target["nodes_unread"], &target["records"]), (&json!(["gpu-01"]), &json!(0)), "{told}");
        assert!(target["diagnosis"]["confidence"].as_f64().unwrap() <= 0.1, "{told}");
        let fleet = desk.ok("diagnose", &json!({})).await;
        assert_eq!((&fleet["nodes_read"], &fleet["nodes_unread"]), (&json!(0), &json!(["gpu-01"])), "{fleet}");
    }
    // One GPU of several did not answer: it is named, and nobody is sure.
    desk.sent(node_id, 7, &json!({ "ecc_uncorrected_total": 0 }));
    let last = desk.ops.control.snapshot().nodes.get(node_id).unwrap().gpus()[7].uuid.to_string();
    for asked in [json!({ "node": "gpu-01" }), json!({})] {
        let told = desk.ok("diagnose", &asked).await;
        let target = &told["targets"][0];
        assert_eq!((&target["diagnosis"]["root"], &target["records"]), (&json!("none"), &json!(7)), "{told}");
        assert!(target["diagnosis"]["confidence"].as_f64().unwrap() <= 0.5, "{told}");
        assert_eq!(target["diagnosis"]["why"], json!([format!("no fresh numbers of health of {last}")]), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_xid_without_its_number_is_not_health() {
    let desk = desk().await;
    let node_id = desk.join("gpu-01").await;
    let uuid = desk.ops.control.snapshot().nodes.get(node_id).unwrap().gpus()[2].uuid.to_string();
    desk.happened(node_id, &uuid, None);
    let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
    assert_eq!(told["targets"][0]["nodes_unread"], json!(["gpu-01"]), "{told}");
    desk.measured(node_id);
    let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
    let diagnosis = &told["targets"][0]["diagnosis"];
    assert_eq!((&diagnosis["root"], &diagnosis["confidence"]), (&json!("none"), &json!(0.5)), "{told}");
    assert_eq!(diagnosis["why"], json!([format!("an Xid of {uuid} came without its number")]), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_missing_are_said() {
    let desk = desk().await;
    desk.join("gpu-01").await;
    let spec = json!({ "name": "w", "runtime": "sim", "command": ["train"] });
    let run = desk.ok("workload_run", &json!({ "spec": spec })).await;
    let workload_id: WorkloadId = run["workload_id"].as_str().unwrap().parse().unwrap();
    let attempt = desk.ops.control.snapshot().workloads.get(workload_id).unwrap().attempt();
    let diagnosed = || async {
        let told = desk.ok("diagnose", &json!({ "workload": "w" })).await;
        let diagnosis = &told["targets"][0]["diagnosis"];
        let why = diagnosis["why"].as_array().unwrap().iter().map(|why| why.as_str().unwrap()).collect::<Vec<_>>();
        (diagnosis["confidence"].as_f64().unwrap(), why.join("; "))
    };
    let (confidence, why) = diagnosed().await;
    assert!(confidence <= 0.1 && why.contains("has written no line"), "{why}");
    desk.wrote_at(workload_id, attempt, "step=1 loss=2.0").await;
    assert_eq!(diagnosed().await, (0.9, String::new()));
    // Lines 2 to 4 never came.
    let line = |sequence| LogLine { sequence, at: desk.ops.control.now(), bytes: b"step=2 loss=1.9".to_vec() };
    let key = LogKey { workload_id, attempt, stream: LogStream::Stderr };
    let gap = Some(LogGap { first_sequence: 2, n_lost: 3 });
    desk.ops.control.logs().append(vec![LogChunk { key, gap, lines: vec![line(5)] }]).await.unwrap();
    let (confidence, why) = diagnosed().await;
    assert!(confidence <= 0.5 && why.contains("3 lines of attempt"), "{confidence} {why}");
    let many = (6..=10_100).map(line).collect();
    desk.ops.control.logs().append(vec![LogChunk { key, gap: None, lines: many }]).await.unwrap();
    let (confidence, why) = diagnosed().await;
    assert!(confidence <= 0.5 && why.contains("only the newest 10000 lines"), "{confidence} {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_parts_of_a_workload_over_nodes_are_read() {
    let desk = desk().await;
    let mut ids = Vec::new();
    for name in ["gpu-01", "gpu-02", "gpu-03"] {
        ids.push(desk.join(name).await);
    }
    let spec = json!({ "name": "gang", "runtime": "sim", "command": ["train"], "nodes": 2, "gpu": { "count": 16 } });
    let run = desk.ok("workload_run", &json!({ "spec": spec })).await;
    let state = desk.ops.control.snapshot();
    let workload_id: WorkloadId = run["workload_id"].as_str().unwrap().parse().unwrap();
    let parts = state.workloads.get(workload_id).unwrap().latest().to_vec();
    assert_eq!(parts.len(), 2, "{run}");
    let name = |node: NodeId| state.nodes.get(node).unwrap().name.clone();
    // The fault is in the first part, which is not the attempt that was made last.
    desk.happened(parts[0].node_id, &parts[0].gpus[3].0, 79);
    desk.wrote_at(workload_id, parts[0].attempt, "step=1 loss=2.0").await;
    desk.wrote_at(workload_id, parts[1].attempt, "[rank9]: [Rank 9] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2, OpType=ALLREDUCE) ran for 600012 milliseconds before timing out.").await;
    let told = desk.ok("diagnose", &json!({ "workload": "gang" })).await;
    let target = &told["targets"][0];
    assert_eq!(target["diagnosis"]["root"], "xid_79", "{told}");
    assert_eq!(target["diagnosis"]["follows"], json!(["nccl_timeout"]), "{told}");
    assert_eq!(target["lines"], 2, "{told}");
    assert_eq!(target["nodes_read"], json!([name(parts[0].node_id)]), "{told}");
    assert_eq!(target["nodes_unread"], json!([name(parts[1].node_id)]), "{told}");
    assert_eq!(target["simulated"], json!(true));
    let source = target["diagnosis"]["evidence"][0]["source"].as_str().unwrap();
    assert_eq!(source, format!("GPU events of {}", name(parts[0].node_id)));
    desk.measured(parts[1].node_id);
    let told = desk.ok("diagnose", &json!({ "workload": "gang" })).await;
    let names: Vec<String> = parts.iter().map(|part| name(part.node_id)).collect();
    assert_eq!((&told["targets"][0]["nodes_read"], &told["nodes_read"]), (&json!(names), &json!(2)), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_of_the_schema_is_one_of_the_rules() {
    let desk = desk().await;
    for policy in claw_tools::diagnosis::FaultPolicy::ALL {
        let text = "amdgpu 0000:c1:00.0: amdgpu: device lost from bus!";
        let told = desk.ok("diagnose", &json!({ "text": text, "policy": policy })).await;
        let diagnosis = &told["targets"][0]["diagnosis"];
        // The published ones speak of Xids only.
        assert_eq!(
            (&diagnosis["policy"], &diagnosis["chosen_by"]),
            (&json!(policy.as_str()), &json!("claw")),
            "{told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_tells_what_a_code_means_on_this_gpu() {
    let desk = desk().await;
    let node_id = desk.join("gpu-01").await;
    let uuid = desk.ops.control.snapshot().nodes.get(node_id).unwrap().gpus()[2].uuid.to_string();
    desk.measured(node_id);
    // Codes of NVLink5 on a GPU of NVLink4.
    desk.happened(node_id, &uuid, 149);
    let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
    let diagnosis = &told["targets"][0]["diagnosis"];
    assert_eq!((&diagnosis["root"], &diagnosis["action"]), (&json!("xid_149"), &json!("contact_support")), "{told}");
    assert!(diagnosis["why"][0].as_str().unwrap().starts_with("the GPU is of Hopper: "), "{told}");
    assert!(diagnosis["confidence"].as_f64().unwrap() <= 0.3, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gpus_did_over_time_is_read_and_said() {
    let desk = desk().await;
    let node_id = desk.join("gpu-01").await;
    let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
    let series = &told["targets"][0]["series"];
    assert_eq!((&series["gpus"], &series["samples"]), (&json!(0), &json!(0)), "{told}");
    assert_eq!(series["unread"].as_array().unwrap().len(), 8, "that none was read is said: {told}");

    let brake = json!({ "ecc_uncorrected_total": 0, "throttle_reasons": ["hw_power_brake"] });
    let well = json!({ "ecc_uncorrected_total": 0, "throttle_reasons": ["sw_power_cap"] });
    // A brake of one sample is not one over time.
    desk.sent_over_time(node_id, 60, |n| if n == 40 { brake.clone() } else { well.clone() });
    let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
    let target = &told["targets"][0];
    assert_eq!(target["diagnosis"]["root"], "none", "{told}");
    let series = &target["series"];
    assert_eq!((&series["gpus"], &series["samples"], &series["unread"]), (&json!(8), &json!(480), &json!([])));
    assert_eq!(series["at_power_limit"], 1, "which is normal: {told}");

    let uuid = desk.ops.control.snapshot().nodes.get(node_id).unwrap().gpus()[0].uuid.to_string();
    desk.ops.control.metrics().forget(node_id);
    desk.sent_over_time(node_id, 120, |n| if n > 110 { brake.clone() } else { well.clone() });
    for asked in [json!({ "node": "gpu-01" }), json!({})] {
        let told = desk.ok("diagnose", &asked).await;
        let target = &told["targets"][0];
        let diagnosis = &target["diagnosis"];
        assert_eq!((&diagnosis["root"], &diagnosis["action"]), (&json!("power_brake"), &json!("service")), "{told}");
        assert_eq!(diagnosis["units"], json!([uuid]), "{told}");
        let evidence = &diagnosis["evidence"][0];
        assert!(evidence["excerpt"].as_str().unwrap().contains("hw_power_brake"), "the latest numbers: {told}");
        assert_eq!((&target["series"]["at_power_limit"], &target["simulated"]), (&json!(1), &json!(true)), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_of_a_workload_begins_with_the_workload() {
    let desk = desk().await;
    let node_id = desk.join("gpu-01").await;
    let hot = json!({ "ecc_uncorrected_total": 0, "throttle_reasons": ["hw_thermal"] });
    desk.sent_over_time(node_id, 120, |_| hot.clone());
    let spec = json!({ "name": "w", "runtime": "sim", "command": ["train"], "gpu": { "count": 8 } });
    desk.ok("workload_run", &json!({ "spec": spec })).await;
    let told = desk.ok("diagnose", &json!({ "node": "gpu-01" })).await;
    assert_eq!(told["targets"][0]["series"]["gpus"], 0, "what was before it is not of it: {told}");
    desk.runs(node_id, "w").await;
    desk.measured(node_id);
    let told = desk.ok("diagnose", &json!({ "workload": "w" })).await;
    let series = &told["targets"][0]["series"];
    assert_eq!((&series["gpus"], &series["samples"]), (&json!(8), &json!(8)), "{told}");
}
