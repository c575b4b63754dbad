//! The gateway's disk: full, free again, stopped in order, damaged.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::fleet::{Fleet, PROCESS_NODE};
use claw_e2e_tests::process::program;
use claw_e2e_tests::session::Session;
use claw_e2e_tests::wait::poll_until;
use claw_tools::refusal::ErrorCode;
use serde_json::{Value, json};

use crate::support::{PATIENCE, contents, on_fleet, run_of, say, script, text, until_grown};

/// A small file system of its own, where the system lets us mount one.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn mount(at: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(at)?;
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m,mode=0700", "small"]).arg(at).output();
        Ok(done.is_ok_and(|output| output.status.success()).then(|| Self { at: at.to_path_buf() }))
    }

    /// Takes every last byte; returns the file to delete later.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.at.join("filler");
        let mut file = std::fs::File::create(&path)?;
        for bytes in [1 << 20, 4096, 1] {
            let piece = vec![b'x'; bytes];
            while std::io::Write::write_all(&mut file, &piece).is_ok() {}
        }
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.at).output());
    }
}

async fn ready(fleet: &Fleet) -> Result<u16> {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
    Ok(client.get(format!("{}/readyz", fleet.gateway.http_url())).send().await?.status().as_u16())
}

async fn full_and_free_again(fleet: &mut Fleet, disk: &SmallDisk) -> Result<()> {
    fleet.add_node("box", PROCESS_NODE).await?;
    let agent = fleet.operator("agent").await?;
    let (beats, gate) = (fleet.root().join("beats"), fleet.root().join("gate"));
    let beat = format!("while :; do echo beat >> {}; sleep 0.1; done", beats.display());
    let gated = format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done; echo done; exit 3", gate.display());
    agent.call("workload_run", run_of(script("beating", &beat))).await?;
    agent.call("workload_run", run_of(script("gated", &gated))).await?;
    agent.until("beating", &["running"], PATIENCE).await?;
    agent.until("gated", &["running"], PATIENCE).await?;
    ensure!(ready(fleet).await? == 200);

    let filler = disk.fill()?;
    let mut tries = 0;
    let refusal = poll_until("a change is refused", PATIENCE, || {
        tries += 1;
        let args = run_of(script(&format!("try-{tries}"), "exit 0"));
        let agent = agent.clone();
        async move { Ok(agent.refused("workload_run", args).await.ok()) }
    })
    .await?;
    ensure!(refusal.code == ErrorCode::JournalUnavailable && refusal.retryable, "{refusal:?}");
    poll_until("/readyz says 503", PATIENCE, || async { Ok((ready(fleet).await? == 503).then_some(())) }).await?;
    let status = agent.call("cluster_status", json!({})).await?;
    ensure!(status["journal_writable"] == false, "{status}");
    let list = agent.call("workload_list", json!({ "limit": 100 })).await?;
    ensure!(list["total"].as_u64().is_some_and(|total| total >= 2), "{list}");
    agent.call("workload_get", json!({ "workload": "beating" })).await?;
    agent.call("events_list", json!({})).await?;
    // What runs is not touched, and what ends now is not forgotten.
    until_grown(&beats, 10).await?;
    std::fs::write(&gate, "")?;
    until_grown(&beats, 10).await?;

    std::fs::remove_file(filler)?;
    let args = run_of(script("after", "echo after"));
    poll_until("changes are taken again", PATIENCE, || async {
        agent.call("workload_run", args.clone()).await.map(Some)
    })
    .await?;
    agent.until("after", &["completed"], PATIENCE).await?;
    let gated = agent.until("gated", &["failed"], PATIENCE).await?;
    ensure!(gated["workload"]["exit_code"] == 3 && gated["workload"]["attempt"] == 1, "{gated}");
    poll_until("/readyz says 200", PATIENCE, || async { Ok((ready(fleet).await? == 200).then_some(())) }).await?;
    for tried in 1..=tries {
        let found = agent.ask("workload_get", json!({ "workload": format!("try-{tried}") })).await;
        let claw_e2e_tests::session::Answer::Ok(detail) = found else { continue };
        let state = text(&detail, "/workload/state").to_owned();
        ensure!(tried < tries, "what was refused is there ({state})");
    }
    let beating = agent.call("workload_get", json!({ "workload": "beating" })).await?;
    ensure!(text(&beating, "/workload/state") == "running" && beating["workload"]["attempt"] == 1, "{beating}");
    // What was written around the full disk is whole.
    ensure!(fleet.gateway.terminate().await? == Some(0));
    let verified = gateway(&["verify"], fleet.gateway.data_dir()).await?;
    ensure!(verified.status.success(), "{verified:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_changes_and_nothing_else() -> Result<()> {
    let root = tempfile::Builder::new().prefix("claw-").tempdir()?;
    let Some(disk) = SmallDisk::mount(&root.path().join("gateway"))? else {
        say("SKIP: this system does not let the test mount a small disk; a full disk is NOT tested");
        return Ok(());
    };
    let mut fleet = Fleet::start_in(root, &["logs.min_free_bytes=1048576"]).await?;
    let told = tokio::time::timeout(Duration::from_mins(2), full_and_free_again(&mut fleet, &disk)).await;
    told.context("not over in time").and_then(|result| result).with_context(|| fleet.last_words())
}

/// What a client can see of the fleet, without the instants of reading.
async fn everything(session: &Session) -> Result<Value> {
    let mut seen = serde_json::Map::new();
    for (tool, args) in [
        ("workload_list", json!({ "limit": 100 })),
        ("node_list", json!({ "fields": ["node_id", "name", "schedulable", "labels", "gpus_free"] })),
        ("operation_list", json!({ "limit": 100 })),
        ("api_key_list", json!({})),
        ("approval_list", json!({ "state": "used" })),
    ] {
        let mut answer = session.call(tool, args).await?;
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("revision");
        }
        seen.insert(tool.to_owned(), answer);
    }
    Ok(Value::Object(seen))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_order_loses_nothing() -> Result<()> {
    on_fleet(90, &[], async |fleet| {
        fleet.add_node("box", PROCESS_NODE).await?;
        let agent = fleet.operator("agent").await?;
        let lines = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo line $i; done; exec sleep 600";
        let mut spec = script("long", lines);
        spec["on_partition"] = json!("keep");
        agent.call("workload_run", run_of(spec)).await?;
        agent.call("workload_run", run_of(script("short", "echo short"))).await?;
        agent.until("long", &["running"], PATIENCE).await?;
        agent.until("short", &["completed"], PATIENCE).await?;
        let stdout = json!({ "workload": "long", "streams": ["stdout"], "tail": 1000 });
        let all_lines = poll_until("all lines are there", PATIENCE, || async {
            let logs = agent.call("workload_logs", stdout.clone()).await?;
            Ok((logs["lines"].as_array().map_or(0, Vec::len) == 200).then(|| logs["lines"].clone()))
        })
        .await?;
        fleet.admin.call("node_cordon", json!({ "node": "box", "reason": "to be remembered" })).await?;
        let before = everything(&fleet.admin).await?;

        let code = fleet.gateway.terminate().await?;
        ensure!(code == Some(0), "SIGTERM ended it with {code:?}");
        let verified = gateway(&["verify"], fleet.gateway.data_dir()).await?;
        ensure!(verified.status.success(), "{verified:?}");
        fleet.gateway.launch(&[]).await?;
        let after = everything(&fleet.admin).await?;
        ensure!(before == after, "before {before}\nafter {after}");
        fleet.until_node("box", "online", PATIENCE).await?;
        let logs = agent.call("workload_logs", stdout).await?;
        ensure!(logs["lines"] == all_lines, "lines were lost or doubled by the restart");
        let long = agent.until("long", &["running"], PATIENCE).await?;
        ensure!(long["workload"]["attempt"] == 1, "{long}");
        Ok(())
    })
    .await
}

/// Runs `claw-gateway` with these words on a data folder until it ends.
async fn gateway(words: &[&str], data_dir: &Path) -> Result<Output> {
    let mut command = tokio::process::Command::new(program("claw-gateway")?);
    command.args(words).arg("--data-dir").arg(data_dir).env("NO_COLOR", "1").kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output()).await.context("it does not end")?.context("claw-gateway")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// The journal's file and the place in it at which these bytes stand.
fn place_of(folder: &Path, marker: &[u8]) -> Result<(PathBuf, usize)> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path)?;
        if let Some(at) = bytes.windows(marker.len()).position(|window| window == marker) {
            return Ok((path, at));
        }
    }
    anyhow::bail!("the marker stands in no file of {}", folder.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_is_named_and_not_started() -> Result<()> {
    // Nothing in it repeats anything, so that it stands in the packed events as it is.
    const MARKER: &str = "qk7vzj3wxh9pdy5bnf";
    on_fleet(90, &[], async |fleet| {
        let agent = fleet.operator("agent").await?;
        for n in 0..5 {
            agent.call("workload_run", run_of(script(&format!("before-{n}"), "exit 0"))).await?;
        }
        let mut marked = run_of(script("marked", "exit 0"));
        marked["reason"] = json!(MARKER);
        agent.call("workload_run", marked).await?;
        agent.call("workload_run", run_of(script("after", "exit 0"))).await?;
        let events = agent.call("events_list", json!({ "limit": 100 })).await?;
        let seqs: Vec<u64> = events["events"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|e| text(e, "/reason") == MARKER)
            .filter_map(|e| e["seq"].as_u64())
            .collect();
        ensure!(!seqs.is_empty(), "no event carries the reason: {events}");
        ensure!(fleet.gateway.terminate().await? == Some(0));

        let damaged = fleet.root().join("damaged");
        copy(fleet.gateway.data_dir(), &damaged)?;
        let (file, at) = place_of(&damaged.join("journal"), MARKER.as_bytes())?;
        let mut bytes = std::fs::read(&file)?;
        bytes[at] ^= 0x01;
        std::fs::write(&file, &bytes)?;
        let name = file.file_name().context("file name")?.to_string_lossy().into_owned();
        for words in [&["run", "--http", "127.0.0.1:0", "--node", "127.0.0.1:0"][..], &["verify"]] {
            let output = gateway(words, &damaged).await?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(3), "{words:?} ended with {}: {said}", output.status);
            ensure!(output.stdout.is_empty(), "{words:?} said on stdout: {output:?}");
            ensure!(said.contains(&name), "{words:?} does not name {name}: {said}");
            // Events that were written together are packed together: damage is named of all of them.
            let named = said.split("events ").skip(1).any(|told| {
                let Some((from, rest)) = told.split_once(" to ") else { return false };
                let ends = [from, rest.split(' ').next().unwrap_or_default()].map(str::parse::<u64>);
                matches!(ends, [Ok(from), Ok(to)] if seqs.iter().any(|seq| (from..=to).contains(seq)))
            });
            ensure!(named, "{words:?} does not name one of the events {seqs:?}: {said}");
        }
        ensure!(std::fs::read(&file)? == bytes, "the damaged file was changed");
        // The original is untouched and starts.
        fleet.gateway.launch(&[]).await?;
        let list = agent.call("workload_list", json!({})).await?;
        ensure!(list["total"] == 7, "{list}");
        ensure!(!contents(&fleet.gateway.log()).contains("damage"), "the healthy one speaks of damage");
        Ok(())
    })
    .await
}
