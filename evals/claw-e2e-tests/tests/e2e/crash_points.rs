//! The gateway dies by SIGKILL at each named point of a commit, and whoever
//! tries again with the same `request_id` gets one effect and one receipt.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use claw_e2e_tests::fleet::{Fleet, H100_NODE};
use claw_e2e_tests::session::{Answer, Session};
use serde_json::{Value, json};

use crate::support::{PATIENCE, copies, judged, on_fleet, text};

/// How often each point is hit.
const HITS: usize = 10;

/// A short simulated workload on one GPU: that it runs is an effect that the
/// node's own execution log counts.
fn spec(name: &str) -> Value {
    let labels = json!({ "claw.sim/run-for-ms": "100", "claw.sim/log-lines": "1" });
    json!({ "name": name, "command": ["work"], "runtime": "sim", "labels": labels, "gpu": { "count": 1 }, "cpu_cores": 0.1, "memory_gib": 0.1 })
}

/// One death at the point: the first answer never comes, the second is the only one.
async fn die_once(fleet: &mut Fleet, agent: &Session, point: &str, round: usize) -> Result<()> {
    let name = format!("{}-{round}", point.replace('_', "-"));
    let args = json!({ "spec": spec(&name), "request_id": name, "reason": "a test of crashes" });
    fleet.gateway.kill9().await?;
    fleet.gateway.launch(&[("CLAW_GATEWAY_CRASH_AT", &format!("{point}@1"))]).await?;
    // Reads are no mutations: they do not come to the point.
    agent.call("cluster_status", json!({})).await?;
    match agent.ask("workload_run", args.clone()).await {
        Answer::Silence(_) => {}
        answer => bail!("{name}: the gateway was to die before it answered {answer:?}"),
    }
    let status = fleet.gateway.ended(PATIENCE).await?.context("the gateway did not run")?;
    ensure!(status.signal() == Some(9), "{name}: it ended with {status} and not by its crash point");

    fleet.gateway.launch(&[]).await?;
    let before = copies(agent, &name).await?;
    let decided = match point {
        "before_append" | "after_append" => 0,
        _ => 1,
    };
    ensure!(before == decided, "{name}: {before} workload(s) survived the crash, not {decided}");
    let Answer::Ok(receipt) = agent.insist("workload_run", args.clone(), PATIENCE).await? else {
        bail!("{name}: the same request was refused");
    };
    ensure!(
        (receipt["effect"] == "accepted" || receipt["effect"] == "queued") && !receipt["workload_id"].is_null(),
        "{name}: {receipt}"
    );
    ensure!(copies(agent, &name).await? == 1, "{name}: there is not exactly one workload");
    let again = agent.call("workload_run", args).await?;
    ensure!(again == receipt, "{name}: the receipts differ:\n{receipt}\n{again}");
    let detail = agent.call("workload_get", json!({ "workload": name })).await?;
    ensure!(detail["workload"]["workload_id"] == receipt["workload_id"], "{name}: the receipt names another: {detail}");
    Ok(())
}

/// All deaths of one point on one data folder, then the judgment of the node.
async fn die_often(point: &str) -> Result<()> {
    on_fleet(150, &[], async |fleet| {
        fleet.add_node("sim-1", H100_NODE).await?;
        let agent = fleet.operator("agent").await?;
        for round in 0..HITS {
            die_once(fleet, &agent, point, round).await?;
        }
        for round in 0..HITS {
            let name = format!("{}-{round}", point.replace('_', "-"));
            let detail = agent.until(&name, &["completed"], Duration::from_secs(20)).await?;
            ensure!(detail["workload"]["attempt"] == 1, "{name} was started more than once: {detail}");
        }
        let spans = judged(fleet)?;
        ensure!(spans.len() == HITS, "{} workloads ran, {HITS} were asked for", spans.len());
        let twice = spans.iter().find(|(_, spans)| spans.len() != 1);
        ensure!(twice.is_none(), "not one execution: {twice:?}");
        let list = agent.call("workload_list", json!({ "limit": 1 })).await?;
        ensure!(list["total"] == HITS, "{}", text(&list, "/total"));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_append() -> Result<()> {
    die_often("before_append").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_append() -> Result<()> {
    die_often("after_append").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_fsync() -> Result<()> {
    die_often("after_fsync").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_effect() -> Result<()> {
    die_often("before_effect").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_effect() -> Result<()> {
    die_often("after_effect").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_reply() -> Result<()> {
    die_often("before_reply").await
}
