//! Models on simulated GPUs, words, and what a node tells of itself.

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::fleet::H100_NODE;
use claw_e2e_tests::wait::poll_until;
use claw_tools::refusal::ErrorCode;
use serde_json::json;

use crate::support::{PATIENCE, on_fleet, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_become_four_gpus_of_one_island_and_say_simulated() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        fleet.add_node("sim-1", H100_NODE).await?;
        let agent = fleet.operator("agent").await?;
        let args = json!({ "request": "Run Llama 70B on 4 H100s", "request_id": "words", "wait_s": 20 });
        let run = agent.call("workload_run", args.clone()).await?;
        ensure!(run["simulated"] == true && text(&run, "/observed/state") == "running", "{run}");
        ensure!(run["spec"]["gpu"] == json!({ "count": 4, "model": "H100" }), "{run}");
        ensure!(run["assumptions"].as_array().is_some_and(|a| !a.is_empty()), "nothing was assumed: {run}");
        let place = &run["placement"]["chosen"];
        ensure!(place["gpus"].as_array().is_some_and(|g| g.len() == 4), "{place}");
        let island = place["nvlink_island"].as_u64().context("the GPUs share no island")?;
        let held = agent.call("gpu_list", json!({ "free": false })).await?;
        let held = held["gpus"].as_array().context("gpus")?;
        let fine = |gpu: &&serde_json::Value| {
            gpu["nvlink_island"].as_u64() == Some(island)
                && gpu["held_by"] == run["workload_id"]
                && gpu["simulated"] == true
        };
        ensure!(held.len() == 4 && held.iter().all(|gpu| fine(&gpu)), "{held:?}");
        let id = text(&run, "/workload_id");
        let detail = agent.call("workload_get", json!({ "workload": id })).await?;
        ensure!(detail["workload"]["simulated"] == true && text(&detail, "/runtime") == "sim", "{detail}");
        let logs = poll_until("a simulated line is there", PATIENCE, || async {
            let logs = agent.call("workload_logs", json!({ "workload": id, "streams": ["stdout"] })).await?;
            Ok((logs["lines"] != json!([])).then_some(logs))
        })
        .await?;
        ensure!(logs["simulated"] == true && text(&logs, "/lines/0/text").starts_with("[simulated]"), "{logs}");
        let again = agent.call("workload_run", args).await?;
        ensure!(again["workload_id"] == run["workload_id"], "the same request ran twice: {again}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_clear_is_asked_and_nothing_runs() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        fleet.add_node("sim-1", H100_NODE).await?;
        let agent = fleet.operator("agent").await?;
        let question = agent.refused("workload_run", json!({ "request": "Run the thing we talked about" })).await?;
        ensure!(question.code == ErrorCode::IntentQuestion, "{question:?}");
        ensure!(!question.evidence.is_null(), "a question without the question: {question:?}");
        let other = agent.refused("workload_run", json!({ "request": "drain sim-1" })).await?;
        ensure!(other.code == ErrorCode::IntentQuestion, "{other:?}");
        ensure!(other.next.iter().any(|call| call.tool == "node_drain"), "it does not say what to call: {other:?}");
        let node = agent.call("node_get", json!({ "node": "sim-1" })).await?;
        ensure!(text(&node, "/node/schedulable") == "active", "words in workload_run drained a node: {node}");
        let both = json!({ "request": "Run Llama 70B on 4 H100s", "spec": { "command": ["true"] } });
        let both = agent.refused("workload_run", both).await?;
        ensure!(both.code == ErrorCode::InvalidArgument, "{both:?}");
        let list = agent.call("workload_list", json!({})).await?;
        ensure!(list["total"] == 0, "something runs: {list}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_signs_of_life_arrive() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        fleet.add_node("sim-1", H100_NODE).await?;
        let settings = json!({ "node": "sim-1", "metrics_interval_ms": 500 });
        fleet.admin.call("node_config_set", settings).await?;
        let admin = &fleet.admin;
        let at = |later_than: String| async move {
            poll_until("newer metrics are there", PATIENCE, || async {
                let node = admin.call("node_get", json!({ "node": "sim-1" })).await?;
                let at = text(&node, "/metrics/at").to_owned();
                ensure!(at > later_than, "the last are of {at:?}");
                Ok(Some(node))
            })
            .await
        };
        let first = at(String::new()).await?;
        let second = at(text(&first, "/metrics/at").to_owned()).await?;
        ensure!(second["metrics"]["gpus"].as_array().is_some_and(|gpus| gpus.len() == 8), "{second}");
        ensure!(text(&second, "/node/link") == "online" && second["node"]["simulated"] == true, "{second}");
        // The timeout is five heartbeats: whoever stays online over it answers them.
        let since = text(&second, "/node/link_since").to_owned();
        let third = at(text(&second, "/metrics/at").to_owned()).await?;
        ensure!(text(&third, "/node/link_since") == since, "the link was lost and found: {since} {third}");
        // The same numbers over REST.
        let url = format!("{}/api/nodes/sim-1/metrics", fleet.gateway.http_url());
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
        let reply = client.get(url).bearer_auth(fleet.gateway.admin_key()?).send().await?;
        ensure!(reply.status() == 200, "{}", reply.status());
        let metrics: serde_json::Value = reply.json().await?;
        ensure!(metrics["gpus"].as_array().is_some_and(|gpus| gpus.len() == 8), "{metrics}");
        Ok(())
    })
    .await
}
