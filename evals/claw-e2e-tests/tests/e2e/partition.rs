//! A node is cut off: what may go on goes on, what must stop has stopped before
//! a copy of it begins elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::fleet::{Fleet, PROCESS_NODE};
use claw_e2e_tests::oracle;
use claw_e2e_tests::proxy::{Proxy, Wire};
use claw_e2e_tests::session::Session;
use claw_e2e_tests::wait::poll_until;
use claw_proto::message::StatusCause;
use serde_json::{Value, json};

use crate::support::{PATIENCE, contents, judged, on_fleet, run_of, script, spans_of, text, until_grown};

/// Shortest lease that the protocol allows, seconds.
const LEASE_S: u32 = 3;

/// Writes a line into a file, ten times a second: seen from outside of the protocol.
fn beating(name: &str, beats: &Path, on_partition: Value) -> Value {
    let mut spec = script(name, &format!("while :; do echo beat >> {}; sleep 0.1; done", beats.display()));
    spec["on_partition"] = on_partition;
    spec["grace_s"] = json!(1);
    spec
}

/// A workload that runs on a node behind a wire, and a second node without one.
struct Scene {
    agent: Session,
    wire: Proxy,
    beats: PathBuf,
}

async fn scene(fleet: &mut Fleet, on_partition: Value) -> Result<Scene> {
    let wire = Proxy::start(fleet.gateway.node_authority().to_owned()).await?;
    fleet.add_node_behind("far", PROCESS_NODE, &wire).await?;
    let agent = fleet.operator("agent").await?;
    let beats = fleet.root().join("beats");
    agent.call("workload_run", run_of(beating("beating", &beats, on_partition))).await?;
    agent.until("beating", &["running"], PATIENCE).await?;
    until_grown(&beats, 1).await?;
    fleet.add_node("near", PROCESS_NODE).await?;
    Ok(Scene { agent, wire, beats })
}

/// What ran on the cut-off node goes on untouched and is taken up again.
async fn kept(cut: Wire) -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        let scene = scene(fleet, json!("keep")).await?;
        let before = spans_of(fleet, &scene.agent.call("workload_get", json!({ "workload": "beating" })).await?)?;
        scene.wire.set(cut);
        fleet.until_node("far", "unreachable", PATIENCE).await?;
        // Longer than any lease of the fleet's default: it has none.
        until_grown(&scene.beats, 30).await?;
        let detail = scene.agent.call("workload_get", json!({ "workload": "beating" })).await?;
        ensure!(text(&detail, "/workload/state") == "running", "{detail}");
        ensure!(text(&detail, "/workload/reason") == "node_unreachable", "the cut is not told: {detail}");
        ensure!(detail["workload"]["attempt"] == 1, "it was started elsewhere: {detail}");
        scene.wire.set(Wire::Up);
        fleet.until_node("far", "online", PATIENCE).await?;
        let detail = scene.agent.until("beating", &["running"], PATIENCE).await?;
        ensure!(text(&detail, "/workload/reason") == "adopted" && detail["workload"]["attempt"] == 1, "{detail}");
        until_grown(&scene.beats, 5).await?;
        let after = spans_of(fleet, &detail)?;
        ensure!(after.len() == 1 && after[0].end.is_none(), "it was started again: {after:?}");
        ensure!(after[0].from_ms == before[0].from_ms && after[0].node == "far", "another process: {after:?}");
        let stop = json!({ "workload": "beating", "grace_s": 0, "wait_s": 20 });
        let stop = scene.agent.call("workload_stop", stop).await?;
        ensure!(text(&stop, "/observed/state") == "stopped", "the adopted one does not obey: {stop}");
        Ok(())
    })
    .await
}

/// What has a lease is over on the cut-off node before its copy begins.
async fn moved(cut: Wire, agent_dies: bool) -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        let scene = scene(fleet, json!({ "stop_after": LEASE_S })).await?;
        scene.wire.set(cut);
        if agent_dies {
            // Nobody is left on the node but the supervisor of the process.
            fleet.nodes[0].kill9().await?;
        }
        let detail = poll_until("it runs on the other node", PATIENCE, || async {
            let detail = scene.agent.call("workload_get", json!({ "workload": "beating" })).await?;
            let there = text(&detail, "/workload/node") == "near" && text(&detail, "/workload/state") == "running";
            Ok(there.then_some(detail))
        })
        .await?;
        ensure!(detail["workload"]["attempt"] == 2, "{detail}");
        ensure!(text(&detail, "/attempts/1/reason") == "node_lost", "no reason why it moved: {detail}");
        let spans = spans_of(fleet, &detail)?;
        let [first, second] = &spans[..] else { anyhow::bail!("not two executions: {spans:?}") };
        ensure!((first.node.as_str(), second.node.as_str()) == ("far", "near"), "{spans:?}");
        let (over, end) = (first.to_ms.context("it still ran")?, first.end.as_ref().context("no end")?);
        ensure!(end.cause == Some(StatusCause::PartitionLease), "the node did not stop it by itself: {end:?}");
        ensure!(over <= second.from_ms, "two copies: {spans:?}");
        let ran = Duration::from_millis(over - first.from_ms);
        ensure!(ran >= Duration::from_secs(1), "it was stopped long before its lease: {ran:?}");

        scene.wire.set(Wire::Up);
        if agent_dies {
            fleet.nodes[0].launch().await?;
        }
        fleet.until_node("far", "online", PATIENCE).await?;
        until_grown(&scene.beats, 5).await?;
        let detail = scene.agent.until("beating", &["running"], PATIENCE).await?;
        ensure!(detail["workload"]["attempt"] == 2 && text(&detail, "/workload/node") == "near", "{detail}");
        let spans = spans_of(fleet, &detail)?;
        ensure!(spans.len() == 2, "the returned node started something: {spans:?}");
        oracle::agrees(&detail, &spans)?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_goes_on_over_a_silent_wire_and_is_adopted() -> Result<()> {
    kept(Wire::Silent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_goes_on_over_a_cut_wire_and_is_adopted() -> Result<()> {
    kept(Wire::Cut).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_after_is_over_before_the_copy_begins_when_silent() -> Result<()> {
    moved(Wire::Silent, false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_after_is_over_before_the_copy_begins_when_cut() -> Result<()> {
    moved(Wire::Cut, false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_supervisor_keeps_the_lease_when_the_agent_is_dead_too() -> Result<()> {
    moved(Wire::Silent, true).await
}

/// Short cuts, shorter than the lease, move nothing and lose nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_cut_changes_nothing() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        let scene = scene(fleet, json!({ "stop_after": 30 })).await?;
        for cut in [Wire::Silent, Wire::Cut, Wire::Silent] {
            scene.wire.set(cut);
            fleet.until_node("far", "unreachable", PATIENCE).await?;
            until_grown(&scene.beats, 2).await?;
            scene.wire.set(Wire::Up);
            fleet.until_node("far", "online", PATIENCE).await?;
        }
        let detail = scene.agent.until("beating", &["running"], PATIENCE).await?;
        ensure!(detail["workload"]["attempt"] == 1, "{detail}");
        let spans = judged(fleet)?;
        ensure!(spans.len() == 1 && spans.values().all(|spans| spans.len() == 1), "{spans:?}");
        let beats = contents(&scene.beats).lines().count();
        ensure!(beats > 6, "{beats}");
        Ok(())
    })
    .await
}
