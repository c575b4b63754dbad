//! Certificates rotate under load: short lives, cut wires, restarts of the
//! gateway and two changes of the authority lose and double nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use claw_e2e_tests::fleet::{Fleet, PROCESS_NODE};
use claw_e2e_tests::process::program;
use claw_e2e_tests::proxy::{Proxy, Wire};
use claw_e2e_tests::session::{Answer, Session};
use claw_e2e_tests::wait::poll_until;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{PATIENCE, on_fleet, script, second_admin};

const NODES: usize = 20;
const TRAFFIC: Duration = Duration::from_mins(1);
/// Certificates are renewed after two thirds of it.
const SETTINGS: &[&str] = &["node.certificate_ttl_s=9", "node.heartbeat_timeout_ms=3000"];
/// One wire in so many is cut in each round.
const CUT_ONE_IN: usize = 10;
const ROUND: Duration = Duration::from_millis(500);

/// All events of one kind, oldest first.
async fn events(admin: &Session, kind: &str) -> Result<Vec<Value>> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let page = admin.call("events_list", json!({ "kinds": [kind], "after": after, "limit": 100 })).await?;
        let list = page["events"].as_array().cloned().unwrap_or_default();
        let Some(last) = list.last() else { return Ok(found) };
        after = last["seq"].as_u64().context("seq")?;
        found.extend(list);
    }
}

async fn until_rotated(admin: &Session, rotation: usize) -> Result<()> {
    poll_until(&format!("rotation {rotation} of the authority is over"), PATIENCE * 2, || async {
        let n = events(admin, "CaRotated").await?.len();
        if n >= rotation { Ok(Some(())) } else { Err(anyhow!("{n} are over")) }
    })
    .await
}

async fn rotate(fleet: &Fleet, approver: &Session) -> Result<()> {
    fleet.admin.plan_and_apply("ca_rotate", json!({ "reason": "test" }), approver).await.map(drop)
}

/// Submits work on every node in turn until told to end; returns the names.
async fn traffic(admin: &Session, until: Instant) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while Instant::now() < until {
        pace.tick().await;
        let name = format!("job-{}", names.len());
        let mut spec = script(&name, "echo one; echo two; echo three >&2");
        spec["placement"] = json!({ "node": format!("n{}", names.len() % NODES) });
        let args = json!({ "spec": spec, "request_id": format!("key-{name}") });
        match admin.insist("workload_run", args, PATIENCE).await? {
            Answer::Ok(_) => names.push(name),
            Answer::Refused(refusal) => anyhow::bail!("{name}: {refusal}"),
            Answer::Silence(_) => {}
        }
    }
    Ok(names)
}

/// Cuts wires, each for a round, until told to end.
async fn cuts(wires: &[Proxy], until: Instant) -> usize {
    let (mut n, mut round) = (0, 0);
    let mut rounds = tokio::time::interval(ROUND);
    rounds.tick().await;
    while Instant::now() < until {
        let cut: Vec<&Proxy> = wires.iter().skip(round % CUT_ONE_IN).step_by(CUT_ONE_IN).collect();
        for wire in &cut {
            wire.set(Wire::Cut);
        }
        rounds.tick().await;
        for wire in &cut {
            wire.set(Wire::Up);
        }
        (n, round) = (n + cut.len(), round + 1);
    }
    n
}

/// Every record that a node made is acknowledged, by its own store.
async fn check_stores(fleet: &mut Fleet) -> Result<u64> {
    let mut total = 0;
    for node in &mut fleet.nodes {
        node.terminate().await?;
        let mut status = Command::new(program("clawnode")?);
        let output = status.arg("status").arg("--data-dir").arg(node.data_dir()).output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with("records")).context(text.clone())?;
        let numbers: Vec<u64> = line.split(|c: char| !c.is_ascii_digit()).filter_map(|w| w.parse().ok()).collect();
        ensure!(numbers.len() >= 2 && numbers[0] == numbers[1], "{}: {line}", node.name);
        total += numbers[0];
    }
    Ok(total)
}

/// Each job ended once, and each of its three lines is there, once.
async fn check_jobs(admin: &Session, names: &[String]) -> Result<()> {
    let mut ended: BTreeMap<String, usize> = BTreeMap::new();
    for event in events(admin, "AttemptEnded").await? {
        let id = event["subjects"].to_string();
        *ended.entry(id).or_default() += 1;
    }
    let doubled: Vec<&String> = ended.iter().filter(|(_, n)| **n != 1).map(|(id, _)| id).collect();
    ensure!(doubled.is_empty(), "ended more than once: {doubled:?}");
    ensure!(ended.len() == names.len(), "{} of {} ended", ended.len(), names.len());
    for name in names {
        let lines = poll_until("its lines are there", PATIENCE, || async {
            let lines = admin.lines(name).await?;
            if lines.len() >= 3 { Ok(Some(lines)) } else { Err(anyhow!("{name}: {lines:?}")) }
        });
        let mut lines = lines.await?;
        // Between the two streams there is no order.
        lines.sort_unstable();
        ensure!(lines == ["one", "three", "two"], "{name}: {lines:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_under_load_and_nothing_is_lost_or_doubled() -> Result<()> {
    on_fleet(420, SETTINGS, async |fleet| {
        let mut wires = Vec::new();
        for n in 0..NODES {
            let wire = Proxy::start(fleet.gateway.node_authority().to_owned()).await?;
            fleet.add_node_behind(&format!("n{n}"), PROCESS_NODE, &wire).await?;
            wires.push(wire);
        }
        let approver = second_admin(fleet).await?;
        let admin = Session::new(&fleet.gateway.mcp_url, &fleet.gateway.admin_key()?);
        let until = Instant::now() + TRAFFIC;
        let submitting = tokio::spawn(async move { traffic(&admin, until).await });
        // The wires come back: without them no node could tell its last records.
        let cutting = tokio::spawn(async move {
            let n = cuts(&wires, until).await;
            (wires, n)
        });
        // Two changes of the authority, a restart in the middle of each.
        for rotation in 1..=2 {
            rotate(fleet, &approver).await?;
            fleet.gateway.kill9().await?;
            fleet.gateway.launch(&[]).await?;
            until_rotated(&fleet.admin, rotation).await?;
        }
        let names = submitting.await??;
        let (wires, n_cuts) = cutting.await?;
        ensure!(n_cuts > 0 && names.len() > 50, "{n_cuts} cuts, {} jobs", names.len());
        for name in &names {
            fleet.admin.until(name, &["completed"], PATIENCE).await?;
        }
        check_jobs(&fleet.admin, &names).await?;
        let renewed = std::fs::read_to_string(fleet.gateway.log())?.matches("certificate renewed").count();
        ensure!(renewed >= 2 * NODES, "only {renewed} renewals");
        let records = check_stores(fleet).await?;
        crate::support::say(&format!(
            "rotation: {} jobs, {records} records, {n_cuts} cut wires, {renewed} renewals, 2 new authorities, 2 restarts",
            names.len()
        ));
        drop(wires);
        Ok(())
    })
    .await
}

/// A revoked node's link is cut, its certificate refused, and the machine comes back only with a new token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_is_cut_off_at_once_and_can_be_enrolled_again() -> Result<()> {
    on_fleet(90, &[], async |fleet| {
        fleet.add_node("leaky", PROCESS_NODE).await?;
        let before = fleet.nodes[0].node_id.clone();
        let revoked_at = Instant::now();
        fleet.admin.plan_and_apply("node_revoke", json!({ "node": "leaky" }), &fleet.admin).await?;
        fleet.until_node("leaky", "unreachable", Duration::from_secs(2)).await?;
        ensure!(revoked_at.elapsed() < Duration::from_secs(2), "cut after {:?}", revoked_at.elapsed());
        poll_until("its certificate is refused", PATIENCE, || async {
            let log = std::fs::read_to_string(fleet.nodes[0].log())?;
            Ok(log.contains("revoked").then_some(()))
        })
        .await?;
        fleet.nodes[0].terminate().await?;
        let token = fleet.admin.call("node_token_create", json!({ "name": "leaky" })).await?;
        let secret = token["credential"]["secret"].as_str().context("no secret")?;
        let mut join = Command::new(program("clawnode")?);
        join.args(["join", &fleet.gateway.node_url, "--token", secret, "--again", "--data-dir"]);
        let joined = join.arg(fleet.nodes[0].data_dir()).output().await?;
        ensure!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        fleet.nodes[0].launch().await?;
        ensure!(fleet.nodes[0].node_id == before, "it is another node: {}", fleet.nodes[0].node_id);
        fleet.until_node("leaky", "online", PATIENCE).await
    })
    .await
}
