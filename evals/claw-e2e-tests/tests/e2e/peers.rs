//! Clients that others wrote talk to the gateway without a complaint: the Python
//! `mcp` package and the MCP Inspector. `./dev test` installs them.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::fleet::{Fleet, PROCESS_NODE};
use claw_e2e_tests::process::program;
use claw_tools::registry::OPERATIONS;
use serde_json::Value;
use tokio::process::Command;

use crate::support::{is_ci, on_fleet, output, say, text, words};

/// Where the peers are installed; none if this is not CI and they are not.
fn peers() -> Result<Option<PathBuf>> {
    match std::env::var_os("CLAW_PEERS") {
        Some(folder) => Ok(Some(PathBuf::from(folder))),
        None if is_ci() => {
            anyhow::bail!("CLAW_PEERS is not set: CI has to have the MCP test peers")
        }
        None => {
            say("SKIP: CLAW_PEERS is not set; foreign MCP clients are NOT tested (./dev test installs them)");
            Ok(None)
        }
    }
}

/// What the Python client saw, if it had nothing to complain about.
fn seen(output: &Output) -> Result<Value> {
    ensure!(output.status.success(), "the Python client failed: {}", words(output));
    ensure!(output.stderr.is_empty(), "the Python client complains: {}", words(output));
    let seen: Value = serde_json::from_slice(&output.stdout)?;
    let names: Vec<&str> = seen["tools"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for op in OPERATIONS.iter().filter(|op| op.core) {
        ensure!(names.contains(&op.name), "{} is not listed: {names:?}", op.name);
    }
    ensure!(names.contains(&"tool_search") && names.contains(&"tool_call"), "{names:?}");
    ensure!(text(&seen, "/protocol") == "2026-07-28", "auto mode came to {}", seen["protocol"]);
    for (name, is_error) in [("status", false), ("refused", true), ("planned", false), ("inner", false)] {
        let result = &seen["results"][name];
        ensure!(result["is_error"].as_bool().unwrap_or(false) == is_error, "{name}: {result}");
        ensure!(result["structured"].is_object() && result["text_is_the_same"] == true, "{name}: {result}");
    }
    ensure!(text(&seen, "/results/refused/structured/code") == "NOT_FOUND", "{seen}");
    ensure!(text(&seen, "/results/planned/structured/effect") == "planned", "{seen}");
    Ok(seen)
}

fn python(peers: &std::path::Path) -> Command {
    let mut command = Command::new(peers.join("py/bin/python"));
    command.arg("-W").arg("always");
    command.arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/peers/client.py"));
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_over_http_and_over_the_bridge() -> Result<()> {
    let Some(peers) = peers()? else { return Ok(()) };
    on_fleet(120, &[], async |fleet| {
        fleet.add_node("box", PROCESS_NODE).await?;
        let (url, key) = (fleet.gateway.mcp_url.clone(), fleet.gateway.admin_key()?);
        let direct = seen(&output(python(&peers).args(["http", &url, &key])).await?)?;
        let claw = program("claw")?.to_string_lossy().into_owned();
        let key_file = fleet.gateway.data_dir().join("admin.key").to_string_lossy().into_owned();
        let bridge = ["stdio", &claw, "mcp", "--gateway", &url, "--key-file", &key_file];
        let bridged = seen(&output(python(&peers).args(bridge)).await?)?;
        ensure!(direct["tools"] == bridged["tools"], "the bridge shows other tools: {direct} {bridged}");
        Ok(())
    })
    .await
}

struct Inspector<'a> {
    peers: &'a std::path::Path,
    url: String,
}

impl Inspector<'_> {
    async fn says(&self, key: Option<&str>, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.peers.join("node_modules/.bin/mcp-inspector"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.peers.join("bin").display())).env("HOME", self.peers);
        command.args(["--cli", "--server-url", &self.url, "--transport", "http", "-q", "--stored-auth-only"]);
        if let Some(key) = key {
            command.args(["--header", &format!("Authorization: Bearer {key}")]);
        }
        output(command.args(args)).await
    }

    /// The answer, if it came without a complaint.
    async fn asks(&self, key: &str, era: &str, args: &[&str]) -> Result<Value> {
        let args = [&["--protocol-era", era, "--format", "json"], args].concat();
        let output = self.says(Some(key), &args).await?;
        ensure!(output.status.code() == Some(0), "{args:?} ended with {}: {}", output.status, words(&output));
        let complaints = String::from_utf8_lossy(&output.stderr);
        ensure!(!complaints.to_lowercase().contains("warn"), "{args:?} complains: {complaints}");
        serde_json::from_slice(&output.stdout).with_context(|| words(&output))
    }
}

async fn era(fleet: &Fleet, inspector: &Inspector<'_>, era: &str) -> Result<()> {
    let key = fleet.gateway.admin_key()?;
    let hello = inspector.asks(&key, era, &["--method", "initialize"]).await?;
    ensure!(hello.is_object(), "{era}: {hello}");
    let list = inspector.asks(&key, era, &["--method", "tools/list", "--strict"]).await?;
    let tools = list["tools"].as_array().or(list["result"]["tools"].as_array()).context("no tools")?;
    ensure!(tools.len() > 20, "{era}: only {} tools", tools.len());
    let args = ["--method", "tools/call", "--tool-name", "node_list", "--tool-args-json", "{\"limit\":5}"];
    let call = inspector.asks(&key, era, &args).await?;
    ensure!(call.to_string().contains("box"), "{era}: the node is not in the answer: {call}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inspector_in_all_eras() -> Result<()> {
    let Some(peers) = peers()? else { return Ok(()) };
    on_fleet(180, &[], async |fleet| {
        fleet.add_node("box", PROCESS_NODE).await?;
        let inspector = Inspector { peers: &peers, url: fleet.gateway.mcp_url.clone() };
        for name in ["legacy", "auto", "modern"] {
            era(fleet, &inspector, name).await?;
        }
        let nobody = inspector.says(None, &["--method", "tools/list"]).await?;
        ensure!(nobody.status.code() == Some(3), "without a key it ended with {}: {}", nobody.status, words(&nobody));
        Ok(())
    })
    .await
}
