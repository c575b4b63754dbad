//! Ranks and hosts that a workload's log names are the GPUs and nodes that it was placed on.

use claw_proto::ids::{Attempt, NodeId, WorkloadId};
use claw_proto::message::{LogChunk, LogKey, LogLine, LogStream, SystemMetrics};
use claw_proto::topology::NodeCapabilities;
use claw_tools::nodes::MetricsSnapshot;
use serde_json::{Value, json};

use super::desk::{Desk, desk, h100x8};

const ECC: &str = "RuntimeError: CUDA error: uncorrectable ECC error encountered";
const LOST: &str = "NVRM: Xid (PCI:0000:13:00): 79, pid=1, GPU has fallen off the bus.";

/// A machine with GPUs at addresses 0000:10:00.0 and on.
fn machine(name: &str) -> NodeCapabilities {
    let mut has = h100x8(name);
    for gpu in &mut has.gpus {
        gpu.pci_address = Some(format!("0000:{:02x}:00.0", 0x10 + gpu.index));
    }
    NodeCapabilities { hostname: format!("{name}.cluster.example"), ..has }
}

/// A workload over two nodes, eight GPUs each: which node each part is on, and its attempt.
struct Gang {
    desk: Desk,
    workload_id: WorkloadId,
    parts: Vec<(NodeId, String, Attempt)>,
    n_lines: u64,
}

impl Gang {
    async fn placed() -> Self {
        let desk = desk().await;
        for name in ["gpu-01", "gpu-02"] {
            desk.join_as(name, machine(name)).await;
        }
        let spec =
            json!({ "name": "gang", "runtime": "sim", "command": ["train"], "nodes": 2, "gpu": { "count": 16 } });
        let run = desk.ok("workload_run", &json!({ "spec": spec })).await;
        let state = desk.ops.control.snapshot();
        let workload_id: WorkloadId = run["workload_id"].as_str().unwrap().parse().unwrap();
        let latest = state.workloads.get(workload_id).unwrap().latest();
        let part = |part: &claw_gateway::workload::AttemptEntry| {
            (part.node_id, state.nodes.get(part.node_id).unwrap().name.clone(), part.attempt)
        };
        let parts: Vec<_> = latest.iter().map(part).collect();
        assert_eq!(parts.len(), 2, "{run}");
        Self { desk, workload_id, parts, n_lines: 0 }
    }

    async fn wrote(&mut self, part: usize, text: &str) {
        self.n_lines += 1;
        let at = self.desk.ops.control.now();
        let line = LogLine { sequence: self.n_lines, at, bytes: text.as_bytes().to_vec() };
        let key = LogKey { workload_id: self.workload_id, attempt: self.parts[part].2, stream: LogStream::Stderr };
        self.desk.ops.control.logs().append(vec![LogChunk { key, gap: None, lines: vec![line] }]).await.unwrap();
    }

    /// The root, its units, and the node that is to be looked at.
    async fn judged(&self) -> (Value, Value, Value) {
        let told = self.desk.ok("diagnose", &json!({ "workload": "gang" })).await;
        let diagnosis = &told["targets"][0]["diagnosis"];
        let remedies = diagnosis["remedies"].as_array().unwrap().iter();
        let node = remedies.filter(|remedy| remedy["call"]["tool"] == "node_get").map(|remedy| &remedy["call"]["args"]);
        let node = node.map(|args| args["node"].clone()).next().unwrap_or(Value::Null);
        (diagnosis["root"].clone(), diagnosis["units"].clone(), node)
    }

    fn gpu(&self, part: usize, index: u32) -> Value {
        json!([format!("GPU-{}-{index}", self.parts[part].1)])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_is_the_gpu_that_it_was_placed_on() {
    let mut gang = Gang::placed().await;
    gang.wrote(0, "[rank0]: step=1 loss=2.0").await;
    gang.wrote(1, &format!("[rank8]: {ECC}")).await;
    let node = json!(gang.parts[1].0);
    // One process may use all GPUs of its node: then a rank is none of them, but the node is known.
    assert_eq!(gang.judged().await, (json!("cuda_ecc_uncorrectable"), json!(["rank 8"]), node.clone()));
    gang.wrote(1, &format!("[rank13]: {ECC}")).await;
    let (root, units, on) = gang.judged().await;
    let mut both = [gang.gpu(1, 0)[0].clone(), gang.gpu(1, 5)[0].clone()];
    both.sort_by_key(|unit| unit.as_str().unwrap().to_owned());
    assert_eq!((root, units, on), (json!("cuda_ecc_uncorrectable"), json!(both), node));
    // A log with a rank of another part is counted in a way that nobody here knows.
    gang.wrote(0, "[rank9]: step=1 loss=2.0").await;
    assert_eq!(gang.judged().await.1, json!(["rank 8", "rank 13"]));
    // What was done to the whole fleet is named once, however many nodes there are.
    let told = gang.desk.ok("diagnose", &json!({ "workload": "gang" })).await;
    let changed = told["targets"][0]["diagnosis"]["changed"].to_string();
    assert!(changed.matches("the gateway started").count() <= 1, "{changed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_a_line_names_is_the_node_with_that_name() {
    for line in [
        format!("Mar  4 05:06:07 {{host}} kernel: [ 4711.654321] {LOST}"),
        format!("2026-03-04T05:06:07Z {{host}}.cluster.example kernel: {LOST}"),
        format!("{{\"_HOSTNAME\":\"{{host}}\",\"_TRANSPORT\":\"kernel\",\"MESSAGE\":\"{LOST}\"}}"),
    ] {
        let mut gang = Gang::placed().await;
        // The log of one part tells what the kernel of the other's machine said.
        gang.wrote(0, &line.replace("{host}", &gang.parts[1].1)).await;
        assert_eq!(gang.judged().await, (json!("xid_79"), gang.gpu(1, 3), json!(gang.parts[1].0)), "{line}");
        // A text that is pasted names the same node.
        let text = line.replace("{host}", &gang.parts[1].1);
        let told = gang.desk.ok("diagnose", &json!({ "text": text })).await;
        let diagnosis = &told["targets"][0]["diagnosis"];
        assert_eq!((&diagnosis["root"], &diagnosis["units"]), (&json!("xid_79"), &gang.gpu(1, 3)), "{told}");
        let text = line.replace("{host}", "gpu-77");
        let told = gang.desk.ok("diagnose", &json!({ "text": text })).await;
        assert_eq!(told["targets"][0]["diagnosis"]["units"], json!(["0000:13:00"]), "it is none of ours: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_a_program_writes_before_its_message_is_a_gpu_there() {
    let refused = "NCCL WARN Connect to 192.0.2.247<56821> failed : Connection refused";
    for (line, root) in [
        (format!("[{{host}}:3]: {ECC}"), "cuda_ecc_uncorrectable"),
        (format!("{{host}}:486514:486651 [3] include/socket.h:403 {refused}"), "nccl_net_error"),
    ] {
        let mut gang = Gang::placed().await;
        gang.wrote(0, &line.replace("{host}", &gang.parts[1].1)).await;
        assert_eq!(gang.judged().await, (json!(root), gang.gpu(1, 3), json!(gang.parts[1].0)), "{line}");
    }
}

/// Seconds between two samples, and between two lines.
const PERIOD_S: i64 = 10;
const SAMPLES: i64 = 150;

/// A workload that has run for long on all GPUs of a node: what they draw, and what it writes at each sample.
async fn trained(watts: impl Fn(i64) -> f64, wrote: impl Fn(i64) -> Option<String>) -> Value {
    let desk = desk().await;
    let node_id = desk.join_as("gpu-01", machine("gpu-01")).await;
    let spec = json!({ "name": "w", "runtime": "sim", "command": ["train"], "gpu": { "count": 8 } });
    let run = desk.ok("workload_run", &json!({ "spec": spec })).await;
    let workload_id: WorkloadId = run["workload_id"].as_str().unwrap().parse().unwrap();
    let control = &desk.ops.control;
    let now = control.now();
    desk.runs_since(node_id, "w", now.plus_ms(-PERIOD_S * 1_000 * (SAMPLES + 1))).await;
    let uuids: Vec<_> = (0..8).map(|gpu| format!("GPU-gpu-01-{gpu}")).collect();
    let mut lines = Vec::new();
    for n in 0..SAMPLES {
        let at = now.plus_ms((n - SAMPLES) * PERIOD_S * 1_000);
        let gpu = |uuid: &String| {
            let numbers = json!({ "uuid": uuid, "utilization_percent": 99.0, "memory_used_mib": 60_000,
                "memory_total_mib": 81_559, "temperature_celsius": 60.0, "power_watts": watts(n), "simulated": true,
                "details": { "ecc_uncorrected_total": 0 } });
            serde_json::from_value(numbers).unwrap()
        };
        let gpus = uuids.iter().map(gpu).collect();
        let snapshot = MetricsSnapshot { at, gpus, system: SystemMetrics::default(), workloads: Vec::new() };
        control.metrics().put(node_id, snapshot);
        if let Some(text) = wrote(n) {
            let sequence = lines.len() as u64 + 1;
            lines.push(LogLine { sequence, at, bytes: text.into_bytes() });
        }
    }
    let attempt = control.snapshot().workloads.get(workload_id).unwrap().attempt();
    let key = LogKey { workload_id, attempt, stream: LogStream::Stdout };
    control.logs().append(vec![LogChunk { key, gap: None, lines }]).await.unwrap();
    let told = desk.ok("diagnose", &json!({ "workload": "w" })).await;
    told["targets"][0]["diagnosis"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_spins_while_its_log_tells_no_more_steps_hangs() {
    let spins = |n: i64| if n < 60 { 640.0 } else { 210.0 };
    let step = |n: i64| Some(format!("step={n} loss=2.1"));
    let told = trained(spins, |n| step(n).filter(|_| n < 60)).await;
    assert_eq!((&told["root"], &told["action"]), (&json!("collective_hang"), &json!("restart_app")), "{told}");
    assert!(told["evidence"][0]["excerpt"].as_str().unwrap().contains("no step"), "{told}");
    // Steps go on; or none was ever told, and then nobody can say.
    assert_eq!(trained(spins, step).await["root"], "none");
    assert_eq!(trained(spins, |n| Some(format!("epoch begins at {n}"))).await["root"], "none");
    assert_eq!(trained(|_| 640.0, |n| step(n).filter(|_| n < 60)).await["root"], "none", "at full power it works");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_log_tells_that_it_waits_for_data_does() {
    let line = |data: &str| {
        let data = data.to_owned();
        move |n: i64| Some(format!("Iter(train) [{n}/9000]  lr: 1.0e-04  time: 0.5000  data_time: {data}  loss: 1.2"))
    };
    let told = trained(|_| 640.0, line("0.2900")).await;
    assert_eq!((&told["root"], &told["action"]), (&json!("data_starved"), &json!("fix_app")), "{told}");
    assert_eq!(trained(|_| 640.0, line("0.0200")).await["root"], "none");
}
