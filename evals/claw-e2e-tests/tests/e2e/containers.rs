//! Containers on real engines, the whole way: a secret as a file, commands inside,
//! an agent that is killed under them, and results that are read afterwards.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use claw_e2e_tests::fleet::Fleet;
use claw_e2e_tests::process::program;
use claw_e2e_tests::wait::poll_until;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{PATIENCE, is_ci, on_fleet, output, run_of, say, text, words};

/// Writes its results, then counts until it is told to go on.
const PROGRAM: &str = "wc -c < /run/secrets/token; mkdir -p /tmp/out/deep; echo result > /tmp/out/result.txt
head -c 700000 /dev/urandom > /tmp/out/deep/blob; i=0
while [ ! -e /tmp/go ]; do echo tick $i; i=$((i+1)); sleep 0.1; done; echo over";
const SECRET: &str = "hunter2-of-the-e2e-test";

/// The engines of this run: name, socket; without any a loud skip, in CI a failure.
fn engines() -> Result<Vec<(&'static str, String)>> {
    let names = [("docker", "CLAW_DOCKER_SOCKET"), ("podman", "CLAW_PODMAN_SOCKET")];
    let found: Vec<_> =
        names.into_iter().filter_map(|(name, variable)| Some((name, std::env::var(variable).ok()?))).collect();
    ensure!(!is_ci() || found.len() == names.len(), "CI needs CLAW_DOCKER_SOCKET and CLAW_PODMAN_SOCKET");
    if found.is_empty() {
        say("SKIP: no container engine; containers are NOT tested the whole way (evals/scripts/engines up)");
    }
    Ok(found)
}

/// Runs a command inside a workload as an agent does: a plan, somebody's approval, the wait.
async fn exec(fleet: &Fleet, workload: &str, command: &[&str]) -> Result<Value> {
    let args = json!({ "workload": workload, "command": command });
    let (_, applied) = fleet.admin.plan_and_apply("workload_exec", args, &fleet.admin).await?;
    let operation = json!({ "operation_id": applied["operation_id"], "wait_s": 30 });
    let waited = fleet.admin.call("operation_wait", operation).await?;
    ensure!(waited["reached"] == true, "{waited}");
    Ok(waited["operation"].clone())
}

/// What `claw` prints of one command line.
async fn claw(fleet: &Fleet, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program("claw")?);
    command.args(args).args(["--gateway", &fleet.gateway.mcp_url]).env("CLAW_API_KEY", fleet.gateway.admin_key()?);
    let said = output(&mut command).await?;
    ensure!(said.status.success(), "{args:?}: {}", words(&said));
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

async fn secret(fleet: &Fleet) -> Result<()> {
    let file = fleet.root().join("value");
    std::fs::write(&file, format!("{SECRET}\n"))?;
    let file = file.to_str().context("a path of text")?;
    let set = ["secret", "set", "e2e/token", "--value", file];
    let planned = claw(fleet, &[&set[..], &["--mode", "plan", "--json"]].concat()).await?;
    ensure!(!planned.contains(SECRET), "a plan shows the value");
    let planned: Value = serde_json::from_str(&planned)?;
    let hash = &text(&planned, "/plan/diff_hash")[..8];
    claw(fleet, &[&set[..], &["--confirm", hash]].concat()).await?;
    Ok(())
}

/// Runs the program on one engine through everything.
async fn whole_way(fleet: &mut Fleet, engine: &str, place: usize, image: &str) -> Result<()> {
    let name = format!("job-{engine}");
    let spec = json!({
        "name": name, "image": image, "command": ["/bin/sh", "-c", PROGRAM], "pull": "never",
        "secrets": [{ "handle": "e2e/token", "target": "token" }], "outputs": ["/tmp/out"],
        "placement": { "node": format!("node-{engine}") }, "cpu_cores": 0.1, "memory_gib": 0.1, "disk_gib": 0.01,
        "on_partition": "keep",
    });
    fleet.admin.call("workload_run", run_of(spec)).await?;
    fleet.admin.until(&name, &["running"], PATIENCE).await?;
    until_line(fleet, &name, "tick 3").await?;
    let first = fleet.admin.lines(&name).await?[0].trim().to_owned();
    ensure!(first == SECRET.len().to_string(), "the secret file has {first} bytes: the line end is not part of it");

    let read = exec(fleet, &name, &["cat", "/run/secrets/token"]).await?;
    ensure!(read["state"] == "succeeded" && text(&read, "/exec/stdout") == SECRET, "{read}");
    let failed = exec(fleet, &name, &["sh", "-c", "echo no >&2; exit 3"]).await?;
    ensure!(failed["state"] == "failed" && failed["exec"]["exit_code"] == 3, "{failed}");
    ensure!(text(&failed, "/exec/stderr").trim() == "no", "{failed}");

    // The agent is killed; the container is not, and goes on under the next agent.
    exec(fleet, &name, &["touch", "/tmp/before"]).await?;
    fleet.nodes[place].kill9().await?;
    fleet.nodes[place].launch().await?;
    fleet.until_node(&format!("node-{engine}"), "online", PATIENCE).await?;
    let same = poll_until("the container takes commands again", PATIENCE, || async {
        let seen = exec(fleet, &name, &["ls", "/tmp/before"]).await?;
        if seen["state"] == "succeeded" { Ok(Some(seen)) } else { Err(anyhow!("{seen}")) }
    });
    same.await?;
    let detail = fleet.admin.call("workload_get", json!({ "workload": name })).await?;
    ensure!(detail["workload"]["attempt"] == 1 && detail["workload"]["state"] == "running", "{detail}");

    // Results, while it runs and when it is over.
    let live = fleet.admin.call("workload_copy", json!({ "workload": name, "path": "/tmp/out/result.txt" })).await?;
    ensure!(text(&live, "/text") == "result\n" && live["untrusted"] == true, "{live}");
    exec(fleet, &name, &["touch", "/tmp/go"]).await?;
    fleet.admin.until(&name, &["completed"], PATIENCE).await?;
    until_line(fleet, &name, "over").await?;
    let ticks = fleet.admin.lines(&name).await?;
    let ticks: Vec<&str> = ticks.iter().filter_map(|line| line.strip_prefix("tick ")).collect();
    let counted = ticks.iter().enumerate().all(|(n, tick)| *tick == n.to_string());
    ensure!(counted && ticks.len() < 1_000, "lines are lost or doubled: {ticks:?}");
    let saved = fleet.root().join(&name);
    claw(fleet, &["workload", "copy", &name, "--path", "/tmp/out", "--to", saved.to_str().context("text")?]).await?;
    ensure!(std::fs::read_to_string(saved.join("result.txt"))? == "result\n");
    ensure!(saved.join("deep/blob").metadata()?.len() == 700_000);
    let refused = fleet.admin.refused("workload_copy", json!({ "workload": name, "path": "/etc/passwd" })).await?;
    ensure!(refused.code.as_str() == "NOT_FOUND" && refused.allowed == ["/tmp/out"], "{refused:?}");
    Ok(())
}

async fn until_line(fleet: &Fleet, workload: &str, line: &str) -> Result<()> {
    poll_until(&format!("{workload} writes {line:?}"), PATIENCE, || async {
        let lines = fleet.admin.lines(workload).await?;
        if lines.iter().any(|l| l.trim() == line) { Ok(Some(())) } else { Err(anyhow!("{lines:?}")) }
    })
    .await
}

/// No file below this folder holds the value.
fn holds_no_value(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            holds_no_value(&path)?;
        } else if path.is_file() {
            let bytes = std::fs::read(&path)?;
            let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            ensure!(!found, "{} holds the value", path.display());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_container_has_its_secret_takes_commands_outlives_its_agent_and_leaves_results() -> Result<()> {
    let engines = engines()?;
    if engines.is_empty() {
        return Ok(());
    }
    let image = std::env::var("CLAW_TEST_IMAGE").context("CLAW_TEST_IMAGE")?;
    on_fleet(300, &[], async |fleet| {
        secret(fleet).await?;
        for (place, (engine, socket)) in engines.iter().enumerate() {
            let secrets = tempfile::Builder::new().prefix("claw-e2e-").tempdir_in("/dev/shm")?;
            let settings = [
                format!("runtime.docker.socket={socket}"),
                "runtime.docker.enabled=true".to_owned(),
                format!("runtime.docker.secrets_dir={}", secrets.path().display()),
                "link.reconnect_max_ms=500".to_owned(),
            ];
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            fleet.add_node(&format!("node-{engine}"), &settings).await?;
            whole_way(fleet, engine, place, &image).await.with_context(|| (*engine).to_owned())?;
            holds_no_value(fleet.nodes[place].data_dir())?;
        }
        std::fs::remove_file(fleet.root().join("value"))?;
        // What a command printed is kept beside the journal for a day: that is not the store's doing.
        let deleted = json!({ "handle": "e2e/token" });
        fleet.admin.plan_and_apply("secret_delete", deleted, &fleet.admin).await?;
        let list = fleet.admin.call("secret_list", json!({})).await?;
        ensure!(list["total"] == 0, "{list}");
        Ok(())
    })
    .await
}
