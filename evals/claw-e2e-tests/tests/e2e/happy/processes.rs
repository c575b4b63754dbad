//! Real commands on a real node: how they end, what they write, what they are given.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use claw_e2e_tests::fleet::{Fleet, PROCESS_NODE};
use claw_e2e_tests::oracle;
use claw_e2e_tests::session::Session;
use claw_e2e_tests::wait::poll_until;
use serde_json::{Value, json};

use crate::support::{PATIENCE, contents, judged, on_fleet, run_of, script, spans_of, text};

/// The lines of one stream, once `n` are there.
async fn lines(agent: &Session, workload: &str, stream: &str, n: usize) -> Result<Vec<String>> {
    poll_until(&format!("{workload} has {n} lines on {stream}"), PATIENCE, || async {
        let logs = agent.call("workload_logs", json!({ "workload": workload, "streams": [stream] })).await?;
        ensure!(logs["untrusted"] == true, "text of a workload is not marked as such: {logs}");
        let lines: Vec<_> =
            logs["lines"].as_array().into_iter().flatten().map(|l| text(l, "/text").to_owned()).collect();
        Ok((lines.len() >= n).then_some(lines))
    })
    .await
}

/// The final detail, checked against what the node executed.
async fn end_of(fleet: &Fleet, agent: &Session, workload: &str) -> Result<Value> {
    let detail = agent.until(workload, &["completed", "failed", "stopped", "lost"], PATIENCE).await?;
    oracle::agrees(&detail, &spans_of(fleet, &detail)?)?;
    Ok(detail)
}

fn ended(detail: &Value) -> (&str, &str, Option<i64>, Option<i64>) {
    let last = &detail["attempts"][0];
    (
        text(detail, "/workload/state"),
        text(detail, "/workload/reason"),
        last["exit_code"].as_i64(),
        last["signal"].as_i64(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_and_its_end_is_told_exactly() -> Result<()> {
    on_fleet(90, &[], async |fleet| {
        fleet.add_node("box", PROCESS_NODE).await?;
        let agent = fleet.operator("agent").await?;
        for (name, what) in [
            ("fine", "echo to stdout; echo to stderr >&2; exit 0"),
            ("three", "echo before; exit 3"),
            ("signaled", "kill -SEGV $$"),
        ] {
            let run = agent.call("workload_run", run_of(script(name, what))).await?;
            ensure!(run["effect"] == "accepted" && run["simulated"] == false, "{run}");
        }
        let fine = end_of(fleet, &agent, "fine").await?;
        ensure!(ended(&fine) == ("completed", "exited_zero", Some(0), None), "{fine}");
        ensure!(fine["workload"]["simulated"] == false && text(&fine, "/runtime") == "process", "{fine}");
        ensure!(text(&fine, "/isolation").starts_with("none"), "a host process is called isolated: {fine}");
        ensure!(lines(&agent, "fine", "stdout", 1).await? == ["to stdout"]);
        ensure!(lines(&agent, "fine", "stderr", 1).await? == ["to stderr"]);
        let three = end_of(fleet, &agent, "three").await?;
        ensure!(ended(&three) == ("failed", "exited_non_zero", Some(3), None), "{three}");
        let signaled = end_of(fleet, &agent, "signaled").await?;
        ensure!(ended(&signaled) == ("failed", "signaled", None, Some(11)), "{signaled}");
        let absent = json!({ "name": "absent", "command": ["/no/such/program"], "runtime": "process" });
        agent.call("workload_run", run_of(absent)).await?;
        let absent = end_of(fleet, &agent, "absent").await?;
        ensure!(ended(&absent) == ("failed", "start_failed", None, None), "{absent}");
        let why = text(&absent, "/attempts/0/detail");
        ensure!(why.contains("/no/such/program"), "the reason does not say what is missing: {why}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environment_arrives_and_is_nowhere_else() -> Result<()> {
    const SECRET: &str = "hunter2-6f1c0d9a-and-nobody-else-says-this";
    on_fleet(90, &[], async |fleet| {
        fleet.add_node("box", PROCESS_NODE).await?;
        let agent = fleet.operator("agent").await?;
        let folder = fleet.root().join("place");
        std::fs::create_dir(&folder)?;
        let mut spec = script("given", "pwd > where; printf %s \"$PASSWORD\" > what; printf %s \"$HOME\" > home");
        spec["env"] = json!({ "PASSWORD": SECRET, "HOME": "/nowhere" });
        spec["working_dir"] = json!(folder);
        let mut answers = vec![agent.call("workload_run", run_of(spec)).await?];
        end_of(fleet, &agent, "given").await?;
        ensure!(contents(&folder.join("what")) == SECRET, "got {:?}", contents(&folder.join("what")));
        ensure!(contents(&folder.join("home")) == "/nowhere");
        ensure!(Path::new(contents(&folder.join("where")).trim_end()) == folder.canonicalize()?);
        for (tool, args) in [
            ("workload_get", json!({ "workload": "given" })),
            ("workload_explain", json!({ "workload": "given" })),
            ("workload_logs", json!({ "workload": "given" })),
            ("workload_list", json!({})),
            ("events_list", json!({ "limit": 100 })),
            ("operation_list", json!({})),
        ] {
            answers.push(agent.call(tool, args).await?);
        }
        let told = answers.iter().find(|answer| answer.to_string().contains(SECRET));
        ensure!(told.is_none(), "an answer holds the value: {told:?}");
        fleet.gateway.terminate().await?;
        let found = files_with(fleet.gateway.data_dir(), SECRET.as_bytes())?;
        ensure!(found.is_empty(), "the value of an ended workload is still in {found:?}");
        ensure!(!contents(&fleet.gateway.log()).contains(SECRET), "the gateway's log holds the value");
        Ok(())
    })
    .await
}

/// Files below a folder that hold these bytes.
fn files_with(folder: &Path, bytes: &[u8]) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes)?);
        } else if std::fs::read(&path)?.windows(bytes.len()).any(|window| window == bytes) {
            found.push(path);
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_term_then_grace_then_kill() -> Result<()> {
    on_fleet(90, &[], async |fleet| {
        fleet.add_node("box", PROCESS_NODE).await?;
        let agent = fleet.operator("agent").await?;
        let wait = "echo ready; while :; do sleep 0.05; done";
        let polite = script("polite", &format!("trap 'echo bye; exit 7' TERM; {wait}"));
        let stubborn = script("stubborn", &format!("trap '' TERM; {wait}"));
        let mut short = script("short", wait);
        short["max_duration_s"] = json!(1);
        for spec in [polite, stubborn, short] {
            agent.call("workload_run", run_of(spec)).await?;
        }
        for name in ["polite", "stubborn"] {
            lines(&agent, name, "stdout", 1).await?;
        }
        let args = json!({ "workload": "polite", "grace_s": 20, "request_id": "stop-polite", "wait_s": 20 });
        let stop = agent.call("workload_stop", args).await?;
        ensure!(stop["effect"] == "accepted" && text(&stop, "/observed/state") == "stopped", "{stop}");
        let polite = end_of(fleet, &agent, "polite").await?;
        ensure!(ended(&polite) == ("stopped", "stop_requested", Some(7), None), "{polite}");
        ensure!(lines(&agent, "polite", "stdout", 2).await? == ["ready", "bye"]);

        let asked = Instant::now();
        let args = json!({ "workload": "stubborn", "grace_s": 1, "request_id": "stop-stubborn" });
        agent.call("workload_stop", args).await?;
        let stubborn = end_of(fleet, &agent, "stubborn").await?;
        ensure!(ended(&stubborn) == ("stopped", "stop_requested", None, Some(9)), "{stubborn}");
        ensure!(asked.elapsed() >= Duration::from_secs(1), "killed within the grace: {:?}", asked.elapsed());

        let short = end_of(fleet, &agent, "short").await?;
        ensure!(text(&short, "/workload/reason") == "max_duration", "{short}");
        ensure!(text(&short, "/workload/state") == "stopped", "{short}");

        // What waits for room is stopped at once, and nothing of it ever ran.
        let mut waiting = script("waiting", "echo never");
        waiting["cpu_cores"] = json!(4_000);
        let run = agent.call("workload_run", run_of(waiting)).await?;
        ensure!(run["effect"] == "queued", "{run}");
        let stop = agent.call("workload_stop", json!({ "workload": "waiting" })).await?;
        ensure!(text(&stop, "/observed/state") == "stopped", "{stop}");
        let waiting = end_of(fleet, &agent, "waiting").await?;
        ensure!(waiting["attempts"] == json!([]) && spans_of(fleet, &waiting)?.is_empty(), "{waiting}");
        ensure!(judged(fleet)?.len() == 3, "more ran than was asked for");
        Ok(())
    })
    .await
}
