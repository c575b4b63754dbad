//! What keeps work from starting though there is room, through a real gateway and real nodes: gates, taints,
//! and work that is to be kept apart.

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::fleet::H100_NODE;
use claw_e2e_tests::session::Session;
use serde_json::{Value, json};

use crate::support::{PATIENCE, on_fleet, run_of, text};

fn work(name: &str, more: &Value) -> Value {
    let mut spec = json!({
        "name": name, "runtime": "sim", "command": ["serve"], "gpu": { "count": 1 },
        "labels": { "claw.sim/term-ms": "50" },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        match (spec.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
            (Some(known), Some(more)) => known.extend(more.clone()),
            _ => spec[key] = value.clone(),
        }
    }
    spec
}

async fn waits(agent: &Session, spec: Value) -> Result<String> {
    let run = agent.call("workload_run", run_of(spec)).await?;
    ensure!(text(&run, "/effect") == "queued", "{run}");
    Ok(text(&run, "/workload_id").to_owned())
}

async fn offered(agent: &Session, workload: &str, tool: &str) -> Result<(Value, Value)> {
    let why = agent.call("workload_explain", json!({ "workload": workload })).await?;
    let remedies = why["would_start_if"].as_array().context("remedies")?;
    let remedy = remedies.iter().find(|r| text(r, "/call/tool") == tool && r["verified"] == true);
    Ok((why.clone(), remedy.with_context(|| format!("{tool} is not offered: {why}"))?["call"]["args"].clone()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_is_opened_by_another_even_after_a_crash_and_holds_what_waits() -> Result<()> {
    on_fleet(120, &[], async |fleet| {
        fleet.add_node("n1", H100_NODE).await?;
        let (agent, feeder) = (fleet.operator("agent").await?, fleet.operator("feeder").await?);
        let train = waits(&agent, work("train", &json!({ "gates": ["dataset-ready"] }))).await?;
        let (why, release) = offered(&agent, &train, "workload_release").await?;
        ensure!(text(&why, "/workload/reason") == "gated", "{why}");

        fleet.gateway.kill9().await?;
        fleet.gateway.launch(&[]).await?;
        fleet.until_node("n1", "online", PATIENCE).await?;
        let row = agent.call("workload_get", json!({ "workload": train })).await?;
        ensure!(row["closed_gates"] == json!(["dataset-ready"]), "{row}");
        // Work of others is held by a plan only, one's own at once.
        let hold = json!({ "workload": train, "gate": "budget" });
        let refused = feeder.refused("workload_hold", hold.clone()).await?;
        ensure!(refused.code.as_str() == "PLAN_REQUIRED", "{refused:?}");
        let held = agent.call("workload_hold", hold).await?;
        // What was offered names the gates of then, and opens no other.
        feeder.call("workload_release", release).await?;
        let row = agent.call("workload_get", json!({ "workload": train })).await?;
        ensure!(row["closed_gates"] == json!(["budget"]) && text(&row, "/workload/state") == "pending", "{row}");
        // It was changed since: the hold alone is not taken back.
        let undone = agent.refused("undo", json!({ "operation_id": held["operation_id"] })).await?;
        ensure!(undone.code.as_str() == "UNDO_CONFLICT", "{undone:?}");
        feeder.call("workload_release", json!({ "workload": train })).await?;
        agent.until(&train, &["running"], PATIENCE).await?;
        let refused = agent.refused("workload_hold", json!({ "workload": train })).await?;
        ensure!(refused.code.as_str() == "INVALID_STATE", "{refused:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taints_are_borne_and_work_is_kept_apart() -> Result<()> {
    on_fleet(120, &[], async |fleet| {
        for name in ["n1", "n2"] {
            fleet.add_node(name, H100_NODE).await?;
        }
        fleet.admin.call("node_label", json!({ "node": "n2", "set": { "taint/dedicated": "lab" } })).await?;
        let agent = fleet.operator("agent").await?;
        let db = agent.call("workload_run", run_of(work("db", &json!({ "labels": { "app": "db" } })))).await?;
        let row = agent.until(text(&db, "/workload_id"), &["running"], PATIENCE).await?;
        ensure!(text(&row, "/workload/node") == "n1", "nobody bears the taint: {row}");

        let apart = json!({ "placement": { "anti_affinity": { "labels": { "app": "db" } } } });
        let web = waits(&agent, work("web", &apart)).await?;
        let (why, bearing) = offered(&agent, &web, "workload_run").await?;
        let reasons: Vec<&str> = why["placement"]["rejected"]
            .as_array()
            .context("reasons")?
            .iter()
            .map(|rejected| text(rejected, "/reason"))
            .collect();
        ensure!(reasons.contains(&"kept_apart") && reasons.contains(&"taint_not_tolerated"), "{why}");
        ensure!(text(&why, "/blockers/0/name") == "db", "{why}");
        // What it offers is what helps: the same that bears the taint.
        ensure!(bearing["spec"]["placement"]["tolerations"] == json!(["dedicated=lab"]), "{bearing}");
        let borne = agent.call("workload_run", run_of(bearing["spec"].clone())).await?;
        let row = agent.until(text(&borne, "/workload_id"), &["running"], PATIENCE).await?;
        ensure!(text(&row, "/workload/node") == "n2", "{row}");
        // It holds both ways: another database finds no room near it, and the first that waits has it when db ends.
        agent.call("workload_stop", json!({ "workload": text(&db, "/workload_id") })).await?;
        let row = agent.until(&web, &["running"], PATIENCE).await?;
        ensure!(text(&row, "/workload/node") == "n1", "{row}");
        let second = waits(&agent, work("db-2", &json!({ "labels": { "app": "db" } }))).await?;
        let why = agent.call("workload_explain", json!({ "workload": second })).await?;
        ensure!(text(&why, "/summary").contains("kept_apart"), "{why}");
        Ok(())
    })
    .await
}
