//! The steps of the demo, each checking what it shows.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::Stage;
use crate::wait::poll_until;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_mins(1);

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn node_of(detail: &Value) -> String {
    text(detail, "/workload/node").to_owned()
}

/// A real command on the real node, with its log and its exit code.
pub(super) async fn a_real_command(s: &mut Stage) -> Result<()> {
    s.screen.step("a. a real command on this machine");
    let command = json!(["sh", "-c", "echo hello from $(uname -s); echo to the other stream >&2; exit 3"]);
    let args = json!({ "spec": { "name": "hello", "command": command, "runtime": "process" }, "request_id": "demo-a", "wait_s": 20 });
    s.screen.call("workload_run", &args);
    let run = s.agent.call("workload_run", args).await?;
    s.screen.field("summary", &run["summary"]);
    let detail = s.agent.until("hello", &["failed", "completed"], PATIENCE).await?;
    let attempt = &detail["attempts"][0];
    let lines = poll_until("both lines are there", PATIENCE, || async {
        let lines = s.agent.lines("hello").await?;
        Ok((lines.len() >= 2).then_some(lines))
    })
    .await?;
    for line in &lines {
        s.screen.say(&format!("│ {line}"));
    }
    s.screen.say(&format!(
        "{} on {}, exit code {}",
        text(&detail, "/workload/state"),
        node_of(&detail),
        attempt["exit_code"]
    ));
    ensure!(lines.iter().any(|l| l == "hello from Linux"), "the log lines are {lines:?}");
    ensure!(
        attempt["exit_code"] == 3 && text(&detail, "/workload/state") == "failed",
        "exit 3 is a failure: {attempt}"
    );
    ensure!(detail["workload"]["simulated"] == false, "a real process is not simulated");
    s.screen.ok("log lines and exit code of a real process came back");
    Ok(())
}

/// Words become a spec, a plan, and four NVLink-connected (simulated) GPUs.
pub(super) async fn b_words_to_gpus(s: &mut Stage) -> Result<String> {
    s.screen.step("b. \"Run Llama 70B on 4 H100s\"");
    let words = "Run Llama 70B on 4 H100s";
    let planned = s.agent.call("workload_run", json!({ "request": words, "mode": "plan" })).await?;
    s.screen.field("spec", &planned["spec"]);
    for a in planned["assumptions"].as_array().into_iter().flatten() {
        s.screen.say(&format!("assumed {} = {}: {}", text(a, "/field"), a["value"], text(a, "/why")));
    }
    show_diff(s, &planned["plan"]);
    ensure!(planned["effect"] == "planned", "the effect is {}", planned["effect"]);
    let args = json!({ "plan_id": planned["plan"]["plan_id"], "request_id": "demo-b" });
    s.screen.call("plan_apply", &args);
    let applied = s.agent.call("plan_apply", args).await?;
    let place = &applied["placement"]["chosen"];
    s.screen.field("placement", &place["why"]);
    let id = text(&applied, "/workload_id").to_owned();
    let detail = s.agent.until(&id, &["running"], PATIENCE).await?;
    s.screen.say(&format!(
        "{} on {}, simulated: {}",
        text(&detail, "/workload/state"),
        node_of(&detail),
        detail["workload"]["simulated"]
    ));
    ensure!(place["gpus"].as_array().is_some_and(|g| g.len() == 4), "four GPUs: {place}");
    ensure!(place["nvlink_island"].is_number(), "one NVLink island: {place}");
    ensure!(detail["workload"]["simulated"] == true, "simulated is said");
    s.screen.ok("words → spec → plan → four GPUs of one NVLink island, running, simulated: true");
    Ok(id)
}

fn show_diff(s: &Stage, plan: &Value) {
    for c in plan["diff"].as_array().into_iter().flatten() {
        s.screen.say(&format!(
            "  {} {}: {:?} → {:?}",
            text(c, "/subject"),
            text(c, "/field"),
            text(c, "/from"),
            text(c, "/to")
        ));
    }
    s.screen.say(&format!(
        "  tier {}, undo: {}, plan hash {}…",
        text(plan, "/tier"),
        text(plan, "/undo"),
        text(plan, "/diff_hash").get(..8).unwrap_or_default()
    ));
}

/// A node dies; its work runs elsewhere after its partition lease, with the reason.
pub(super) async fn c_lose_a_node(s: &mut Stage, id: &str) -> Result<()> {
    s.screen.step("c. the node dies (kill -9)");
    let home = node_of(&s.agent.call("workload_get", json!({ "workload": id })).await?);
    let node = s.fleet.nodes.iter_mut().find(|n| n.name == home).context("its node is not ours")?;
    node.kill9().await?;
    s.screen.say(&format!("killed {home}; nothing is started elsewhere before its lease has run out"));
    let detail = poll_until("it runs elsewhere", PATIENCE, || async {
        let detail = s.agent.call("workload_get", json!({ "workload": id })).await?;
        let moved = node_of(&detail) != home && text(&detail, "/workload/state") == "running";
        Ok(moved.then_some(detail))
    })
    .await?;
    let why = text(&detail, "/attempts/1/reason").to_owned();
    s.screen.say(&format!(
        "attempt {} runs on {}; attempt 1 ended: {why}",
        detail["workload"]["attempt"],
        node_of(&detail)
    ));
    ensure!(why == "node_lost", "the reason of the first attempt's end is {why}");
    s.screen.ok("rescheduled on the other node, with its reason");
    for node in &mut s.fleet.nodes {
        if !node.is_up() {
            node.launch().await?;
        }
    }
    s.fleet.until_node(&home, "online", PATIENCE).await
}

/// A drain is planned, approved by a person, applied and undone.
pub(super) async fn d_drain_and_undo(s: &mut Stage, id: &str) -> Result<()> {
    s.screen.step("d. drain: plan, diff, approval, apply, undo");
    let home = node_of(&s.agent.call("workload_get", json!({ "workload": id })).await?);
    // Somebody else's work makes it disruptive: tier 2.
    let args = json!({ "node": home, "mode": "plan", "reason": "demo: maintenance" });
    s.screen.call("node_drain", &args);
    let operator = s.fleet.operator("maintenance-agent").await?;
    let refused = operator.refused("node_drain", json!({ "node": home })).await?;
    s.screen.say(&format!("without a plan: {} ({})", refused.code, refused.message));
    let (plan, applied) = operator.plan_and_apply("node_drain", args, &s.fleet.admin).await?;
    show_diff(s, &plan);
    s.screen.say("approved by the person with the admin key, bound to the plan's hash");
    let operation = text(&applied, "/operation_id").to_owned();
    operator.call("operation_wait", json!({ "operation_id": operation, "wait_s": 30 })).await?;
    let node = s.agent.call("node_get", json!({ "node": home })).await?;
    ensure!(text(&node, "/node/schedulable") == "drained", "the node is {}", node["node"]["schedulable"]);
    let detail = s.agent.until(id, &["running"], PATIENCE).await?;
    ensure!(node_of(&detail) != home, "the work is still on {home}");
    s.screen.ok(&format!("{home} is drained, the work runs on {}", node_of(&detail)));
    let undone = operator.call("undo", json!({ "operation_id": operation })).await?;
    s.screen.field("undo", &undone["summary"]);
    let node = s.agent.call("node_get", json!({ "node": home })).await?;
    ensure!(text(&node, "/node/schedulable") == "active", "after the undo the node is {}", node["node"]["schedulable"]);
    s.screen.ok("undone: the node takes work again");
    Ok(())
}

/// The gateway dies and comes back: nothing was lost.
pub(super) async fn e_kill_the_gateway(s: &mut Stage, id: &str) -> Result<()> {
    s.screen.step("e. the gateway dies (kill -9) and comes back");
    let long = json!({ "spec": { "name": "survivor", "command": ["sh", "-c", "echo begun; sleep 5; echo done"], "runtime": "process" }, "request_id": "demo-e" });
    let receipt = s.agent.call("workload_run", long.clone()).await?;
    s.agent.until("survivor", &["running"], PATIENCE).await?;
    let before = s.agent.call("workload_list", json!({ "fields": ["name", "attempt"] })).await?;
    s.fleet.gateway.kill9().await?;
    s.fleet.gateway.launch(&[]).await?;
    let after = s.agent.call("workload_list", json!({ "fields": ["name", "attempt"] })).await?;
    ensure!(before["workloads"] == after["workloads"], "before {} after {}", before["workloads"], after["workloads"]);
    let again = s.agent.call("workload_run", long).await?;
    ensure!(again["operation_id"] == receipt["operation_id"], "the receipt differs: {again}");
    s.screen.say("the same request again gives the same receipt; nothing ran twice");
    s.agent.until("survivor", &["completed"], PATIENCE).await?;
    // The last lines may arrive a moment after the end that they belong to.
    let lines = poll_until("all lines are there", PATIENCE, || async {
        let lines = s.agent.lines("survivor").await?;
        Ok((lines.len() >= 2).then_some(lines))
    })
    .await?;
    ensure!(lines == ["begun", "done"], "the log is {lines:?}");
    s.agent.until(id, &["running"], PATIENCE).await?;
    s.screen.ok("workloads, receipts and log lines survived; the process went on meanwhile");
    Ok(())
}

/// More than fits waits, and says what would make it start.
pub(super) async fn f_more_than_fits(s: &mut Stage) -> Result<()> {
    s.screen.step("f. more than fits, and why it waits");
    let spec = |name: &str| json!({ "spec": { "name": name, "command": ["train"], "runtime": "sim", "gpu": { "count": 8, "model": "H100" } } });
    for name in ["train-1", "train-2", "train-3"] {
        s.agent.call("workload_run", spec(name)).await?;
    }
    let waiting = s.agent.call("workload_list", json!({ "states": ["pending"] })).await?;
    let name = text(&waiting, "/workloads/0/name").to_owned();
    if name.is_empty() {
        bail!("nothing waits: {waiting}");
    }
    let explained = s.agent.call("workload_explain", json!({ "workload": name })).await?;
    s.screen.field("workload_explain", &explained["summary"]);
    for remedy in explained["would_start_if"].as_array().into_iter().flatten() {
        s.screen.say(&format!("would start if {} (tried on a copy: {})", text(remedy, "/change"), remedy["verified"]));
    }
    ensure!(explained["would_start_if"].as_array().is_some_and(|r| !r.is_empty()), "no remedy: {explained}");
    ensure!(explained["blockers"].as_array().is_some_and(|b| !b.is_empty()), "no blockers: {explained}");
    s.screen.ok("it says who holds what it needs and what would make it start");
    Ok(())
}
