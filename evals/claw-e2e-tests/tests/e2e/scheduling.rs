//! What the scheduler does for people, through a real gateway and real nodes:
//! a workload over four nodes, and room for more important work.

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::fleet::{Fleet, H100_NODE};
use claw_e2e_tests::session::Session;
use claw_e2e_tests::wait::poll_until;
use clawnode::runtime::execution_log::ExecutionEvent;
use serde_json::{Value, json};

use crate::support::{PATIENCE, executions, on_fleet, run_of, script, text};

/// A node of one simulated GPU that runs host processes.
const SHARED_NODE: &[&str] =
    &["gpu=sim:h100x1", "runtime.process.enabled=true", "runtime.process.cgroups=false", "link.reconnect_max_ms=500"];
/// Nobody need run long before it can be asked to leave.
const SETTINGS: &[&str] = &["preemption.min_run_s=0"];
/// Nodes of the fleet.
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

async fn racks(fleet: &mut Fleet) -> Result<()> {
    for name in NODES {
        fleet.add_node(name, H100_NODE).await?;
        let labels = json!({ "node": name, "set": { "zone": "z", "rack": "r" } });
        fleet.admin.call("node_label", labels).await?;
    }
    Ok(())
}

/// Simulated training that runs until it is told to end.
fn training(name: &str, nodes: u32, gpus: u32, more: &Value) -> Value {
    let mut spec = json!({
        "name": name, "runtime": "sim", "command": ["train"], "nodes": nodes, "gpu": { "count": gpus, "model": "H100" },
        "labels": { "claw.sim/term-ms": "50" },
    });
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

async fn started(agent: &Session, spec: Value) -> Result<String> {
    let run = agent.call("workload_run", run_of(spec)).await?;
    let id = text(&run, "/workload_id").to_owned();
    agent.until(&id, &["running"], PATIENCE).await?;
    Ok(id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_over_four_nodes_waits_with_a_reason_lands_whole_and_ends_whole() -> Result<()> {
    on_fleet(120, SETTINGS, async |fleet| {
        racks(fleet).await?;
        let agent = fleet.operator("agent").await?;
        let small = started(&agent, training("small", 1, 1, &json!({}))).await?;

        let waits = agent.call("workload_run", run_of(training("gang", 4, 32, &json!({})))).await?;
        ensure!(text(&waits, "/effect") == "queued", "{waits}");
        let gang = text(&waits, "/workload_id").to_owned();
        let why = agent.call("workload_explain", json!({ "workload": gang })).await?;
        ensure!(text(&why, "/summary").contains("needs 4 nodes at once and 3 nodes can take a part now"), "{why}");
        ensure!(text(&why, "/placement/rejected/0/reason") == "gpu_busy", "{why}");
        let remedies = why["would_start_if"].as_array().context("remedies")?;
        let remedy = remedies.iter().find(|r| text(r, "/call/args/workload") == small).context("not offered")?;
        ensure!(remedy["verified"] == true && text(remedy, "/call/tool") == "workload_stop", "{remedy}");

        // What it offers is what helps.
        agent.call("workload_stop", json!({ "workload": small })).await?;
        let row = agent.until(&gang, &["running"], PATIENCE).await?;
        ensure!(row["workload"]["nodes"].as_array().is_some_and(|n| n.len() == 4), "{row}");
        ensure!(row["workload"]["gpus"] == 32 && row["workload"]["simulated"] == true, "{row}");
        ensure!(
            text(&row, "/placement/summary").contains("one rack of one zone, 8 GPUs each, on the same rails"),
            "{row}"
        );
        let ranks: Vec<_> =
            row["attempts"].as_array().context("attempts")?.iter().map(|a| a["node_rank"].as_u64()).collect();
        ensure!(ranks == [Some(3), Some(2), Some(1), Some(0)], "{ranks:?}");

        // One of its nodes dies: the whole of it ends, and waits until four are there.
        let at = fleet.nodes.iter().position(|n| n.name == "n3").context("n3")?;
        fleet.nodes[at].kill9().await?;
        fleet.nodes[at].launch().await?;
        let row = agent.until(&gang, &["running"], PATIENCE).await?;
        ensure!(row["workload"]["gpus"] == 32, "{row}");
        agent.call("workload_stop", json!({ "workload": gang })).await?;
        agent.until(&gang, &["stopped"], PATIENCE).await?;
        let free = agent.call("gpu_list", json!({ "free": true, "limit": 100 })).await?;
        ensure!(free["total"] == 32, "{free}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn important_work_takes_the_room_of_what_offered_it_and_gives_it_back() -> Result<()> {
    on_fleet(120, SETTINGS, async |fleet| {
        racks(fleet).await?;
        let agent = fleet.operator("agent").await?;
        let offered = json!({ "preemptible": true, "priority": "low", "checkpoint_interval_s": 1 });
        let low = started(&agent, training("low", 2, 16, &offered)).await?;
        let other = started(&agent, training("other", 1, 1, &json!({}))).await?;

        // Three nodes: one is free, and the least that helps is the gang of two.
        let wanted = training("important", 3, 24, &json!({ "priority": "high" }));
        let planned = agent.call("workload_run", json!({ "spec": wanted, "mode": "plan" })).await?;
        let diff = planned["plan"]["diff"].as_array().context("diff")?;
        ensure!(diff.iter().any(|c| text(c, "/subject").contains(&low) && text(c, "/to") == "to be moved"), "{diff:?}");
        let important = started(&agent, wanted).await?;
        let left = agent.call("workload_get", json!({ "workload": low })).await?;
        ensure!(text(&left, "/workload/state") == "pending", "{left}");
        let attempts = left["attempts"].as_array().context("attempts")?;
        ensure!(attempts.len() == 2 && attempts.iter().all(|a| text(a, "/reason") == "preempted"), "{left}");
        ensure!(text(&left, "/attempts/0/detail").contains("made room for important"), "{left}");
        let untouched = agent.call("workload_get", json!({ "workload": other })).await?;
        ensure!(
            text(&untouched, "/workload/state") == "running" && untouched["workload"]["attempt"] == 1,
            "{untouched}"
        );

        agent.call("workload_stop", json!({ "workload": important })).await?;
        let back = agent.until(&low, &["running"], PATIENCE).await?;
        ensure!(back["workload"]["attempt"] == 3, "both parts have begun anew: {back}");
        // No part ran while another generation of its workload did.
        let of_low: Vec<_> = executions(fleet)?.into_iter().filter(|e| e.workload_id.to_string() == low).collect();
        let at = |event: ExecutionEvent, attempts: std::ops::RangeInclusive<u32>| -> Vec<u64> {
            let of_them = of_low.iter().filter(|e| e.event == event && attempts.contains(&e.attempt.0));
            of_them.map(|e| e.boot_ms).collect()
        };
        let (ended, began) = (at(ExecutionEvent::Ended, 1..=2), at(ExecutionEvent::Started, 3..=4));
        ensure!((ended.len(), began.len()) == (2, 2), "{of_low:?}");
        ensure!(ended.iter().max() <= began.iter().min(), "generations overlap: {of_low:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_binds_says_so_and_gives_way_when_it_is_raised_even_after_a_crash() -> Result<()> {
    on_fleet(120, SETTINGS, async |fleet| {
        fleet.add_node("n1", H100_NODE).await?;
        let agent = fleet.operator("agent").await?;
        let quota =
            json!({ "tenant": "lab", "guaranteed": { "gpus": 2 }, "most": { "gpus": 4 }, "members": ["agent"] });
        let refused = agent.refused("quota_set", quota.clone()).await?;
        ensure!(refused.code.as_str() == "FORBIDDEN", "{refused:?}");
        fleet.admin.plan_and_apply("quota_set", quota, &fleet.admin).await?;

        let first = started(&agent, training("first", 1, 3, &json!({}))).await?;
        let waits = agent.call("workload_run", run_of(training("second", 1, 2, &json!({})))).await?;
        ensure!(text(&waits, "/effect") == "queued", "{waits}");
        let second = text(&waits, "/workload_id").to_owned();
        let told = agent.call("quota_get", json!({ "tenant": "lab" })).await?;
        let row = &told["tenants"][0];
        ensure!(row["held"]["gpus"] == 3 && row["borrows"] == true && row["waiting_for_quota"] == 1, "{told}");

        // What was had and who waits stand in the journal: a killed gateway knows them again.
        fleet.gateway.kill9().await?;
        fleet.gateway.launch(&[]).await?;
        fleet.until_node("n1", "online", PATIENCE).await?;
        let why = agent.call("workload_explain", json!({ "workload": second })).await?;
        ensure!(text(&why, "/workload/reason") == "quota_exceeded", "{why}");
        ensure!(text(&why, "/summary").contains("lab may hold 4 GPUs at most and holds 3"), "{why}");
        ensure!(text(&why, "/blockers/0/workload_id") == first, "{why}");
        let remedies = why["would_start_if"].as_array().context("remedies")?;
        let raise = remedies.iter().find(|r| text(r, "/call/tool") == "quota_set").context("not offered")?;
        let mut args = raise["call"]["args"].clone();
        args.as_object_mut().context("arguments")?.remove("mode");
        fleet.admin.plan_and_apply("quota_set", args, &fleet.admin).await?;
        agent.until(&second, &["running"], PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_of_a_gpu_run_side_by_side_are_told_what_they_have_and_outlive_both_agents() -> Result<()> {
    on_fleet(120, SETTINGS, async |fleet| {
        fleet.add_node("n1", SHARED_NODE).await?;
        let agent = fleet.operator("agent").await?;
        let told = "echo share $CLAW_GPU_SHARE memory $CLAW_GPU_MEMORY_MIB; exec sleep 300";
        let part = |name: &str, fraction: f64| {
            let mut spec = script(name, told);
            spec["gpu"] = json!({ "fraction": fraction, "model": "H100" });
            spec
        };
        let (first, second) = (started(&agent, part("a", 0.5)).await?, started(&agent, part("b", 0.25)).await?);
        // A quarter of what the driver leaves of 81,559 MiB.
        poll_until("the second is told what it has", PATIENCE, || async {
            let logs = agent.call("workload_logs", json!({ "workload": second, "streams": ["stdout"] })).await?;
            Ok(logs.to_string().contains("share 0.25 memory 19778").then_some(()))
        })
        .await?;
        let row = agent.call("workload_get", json!({ "workload": second })).await?;
        ensure!(text(&row, "/isolation").contains("its GPU is shared by time"), "{row}");
        let waits = agent.call("workload_run", run_of(part("c", 0.5))).await?;
        let third = text(&waits, "/workload_id").to_owned();
        let why = agent.call("workload_explain", json!({ "workload": third })).await?;
        ensure!(
            text(&why, "/placement/rejected/0/detail") == "wanted 0.5 of a GPU, at most 0.25 of one is free",
            "{why}"
        );
        let remedies = why["would_start_if"].as_array().context("remedies")?;
        let smaller = remedies.iter().find(|r| r["call"]["args"]["spec"]["gpu"]["fraction"] == 0.25);
        ensure!(smaller.is_some_and(|r| r["verified"] == true), "{why}");

        // Both agents die: what shares the GPU goes on sharing it, and nothing comes between.
        fleet.nodes[0].kill9().await?;
        fleet.gateway.kill9().await?;
        fleet.gateway.launch(&[]).await?;
        fleet.nodes[0].launch().await?;
        fleet.until_node("n1", "online", PATIENCE).await?;
        for id in [&first, &second] {
            let row = agent.until(id, &["running"], PATIENCE).await?;
            ensure!(row["workload"]["attempt"] == 1, "{row}");
        }
        let shares = agent.call("gpu_list", json!({})).await?["gpus"][0]["shares"].clone();
        ensure!(shares.as_array().is_some_and(|shares| shares.len() == 2), "{shares}");
        agent.call("workload_stop", json!({ "workload": first })).await?;
        agent.until(&third, &["running"], PATIENCE).await?;
        Ok(())
    })
    .await
}

/// The kernel's part of it has no test with a kernel: the node is a simulated one, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_must_have_its_memory_to_itself_waits_for_a_node_that_holds_shares_to_theirs() -> Result<()> {
    on_fleet(120, SETTINGS, async |fleet| {
        fleet.add_node("n1", &["gpu=sim:h100x1", "link.reconnect_max_ms=500"]).await?;
        let agent = fleet.operator("agent").await?;
        let share = |name: &str, isolation: &str| {
            let mut spec = training(name, 1, 1, &json!({}));
            spec["gpu"] = json!({ "fraction": 0.5, "isolation": isolation });
            spec
        };
        let refused = agent.refused("workload_run", run_of(share("never", "hardware"))).await?;
        ensure!(format!("{refused:?}").contains("none, memory, or gpu.mig_profile"), "{refused:?}");
        let waits = agent.call("workload_run", run_of(share("apart", "memory"))).await?;
        let apart = text(&waits, "/workload_id").to_owned();
        let why = agent.call("workload_explain", json!({ "workload": apart })).await?;
        ensure!(text(&why, "/placement/rejected/0/reason") == "gpu_memory_uncapped", "{why}");
        let remedies = why["would_start_if"].as_array().context("remedies")?;
        let does_without = remedies.iter().find(|r| text(r, "/change") == "it did not need its memory kept apart");
        ensure!(does_without.is_some_and(|r| r["verified"] == true), "{why}");

        fleet.add_node("n2", &["gpu=sim:h100x1", "gpu_caps_shares=true", "link.reconnect_max_ms=500"]).await?;
        let row = agent.until(&apart, &["running"], PATIENCE).await?;
        ensure!(text(&row, "/attempts/0/node") == "n2", "{row}");
        ensure!(text(&row, "/isolation").contains("holds each who shares it to the memory of the share"), "{row}");
        ensure!(text(&row, "/isolation").starts_with("simulated"), "{row}");
        let gpus = agent.call("gpu_list", json!({})).await?;
        let capped: Vec<&Value> =
            gpus["gpus"].as_array().context("gpus")?.iter().map(|g| &g["memory_capped"]).collect();
        ensure!(capped.iter().filter(|capped| **capped == true).count() == 1, "{gpus}");
        Ok(())
    })
    .await
}
