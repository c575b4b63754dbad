//! (d) From submission to running, and (e) from a crash to the first answer.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::fleet::{Fleet, PROCESS_NODE};
use claw_e2e_tests::gateway::Gateway;
use serde_json::json;

use crate::fleet::{Connected, enroll_all};
use crate::mcp::McpClient;
use crate::stats::{quantile, spread};
use crate::submits::UNLIMITED;

/// Workloads that are started, one after the other.
const STARTS: usize = 200;
/// Crashes.
const CRASHES: usize = 7;

/// (d): `workload_run` with `wait_s` on a real node that runs processes.
///
/// # Errors
/// If one does not run.
pub async fn submit_to_running(dir: &Path) -> Result<Vec<String>> {
    let root = tempfile::tempdir_in(dir)?;
    let mut fleet = Fleet::start_in(root, &[]).await?;
    fleet.add_node("host", PROCESS_NODE).await?;
    let key = fleet.gateway.admin_key()?;
    let mut client = McpClient::connect(&fleet.gateway.mcp_url, Some(&key)).await?;
    let mut took_ms = Vec::with_capacity(STARTS);
    for n in 0..STARTS {
        let spec = json!({
            "command": ["sleep", "60"], "runtime": "process", "cpu_cores": 0.05, "memory_gib": 0.05, "disk_gib": 0.01,
        });
        let arguments = json!({ "spec": spec, "request_id": format!("start-{n}"), "wait_s": 20 });
        let begun = Instant::now();
        let answer = client.call("workload_run", arguments).await?;
        took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(answer["observed"]["state"] == "running", "{answer}");
        let stop = json!({ "workload": answer["workload_id"], "grace_s": 0, "wait_s": 20 });
        client.call("workload_stop", stop).await?;
    }
    Ok(vec![
        format!("(d) submit to running, host process, {STARTS} one after the other"),
        format!(
            "p50 {:.1} ms   p99 {:.1} ms   max {:.1} ms",
            quantile(&took_ms, 0.5),
            quantile(&took_ms, 0.99),
            quantile(&took_ms, 1.0)
        ),
    ])
}

/// (e): `kill -9`, start, first `cluster_status`, with so many nodes.
///
/// # Errors
/// If the gateway does not come back.
pub async fn crash_to_status(dir: &Path, n_nodes: usize) -> Result<Vec<String>> {
    let root = tempfile::tempdir_in(dir)?;
    let mut gateway = Gateway::start(root.path(), &UNLIMITED).await?;
    let key = gateway.admin_key()?;
    let enrolled = enroll_all(&gateway.mcp_url, &key, &gateway.node_url, n_nodes).await?;
    let nodes = Connected::all(&enrolled, &gateway.node_url).await?;
    let mut client = McpClient::connect(&gateway.mcp_url, Some(&key)).await?;
    for _ in 0..n_nodes {
        client.call("workload_run", json!({ "spec": { "command": ["train"], "gpu": { "count": 8 } } })).await?;
    }
    drop(nodes);
    let mut took_ms = Vec::with_capacity(CRASHES);
    for _ in 0..CRASHES {
        gateway.kill9().await?;
        let begun = Instant::now();
        gateway.launch(&[]).await?;
        let mut client = McpClient::connect(&gateway.mcp_url, Some(&key)).await?;
        let status = client.call("cluster_status", json!({})).await?;
        took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        let known =
            status.pointer("/nodes/total").or_else(|| status.pointer("/n_nodes")).and_then(serde_json::Value::as_u64);
        ensure!(known.context("no number of nodes in the status")? == n_nodes as u64, "{status}");
    }
    Ok(vec![
        format!("(e) kill -9 to the first cluster_status, {n_nodes} nodes with a workload each, {CRASHES} times"),
        format!("{} ms, median [min, max]", spread(&took_ms, 0)),
    ])
}
