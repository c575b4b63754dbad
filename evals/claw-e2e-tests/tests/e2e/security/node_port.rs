//! The node port: certificates and join tokens.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use claw_e2e_tests::fleet::{Fleet, H100_NODE};
use claw_e2e_tests::gateway::Gateway;
use claw_e2e_tests::process::program;
use claw_e2e_tests::wait::poll_until;
use reqwest::{Certificate, Client, Identity, StatusCode};
use serde_json::{Value, json};

use crate::support::{PATIENCE, contents, on_fleet, output, second_admin, text};

/// How soon a removed node must be off.
const REMOVED_WITHIN: Duration = Duration::from_secs(2);

/// A client that trusts the authority of `trusting` and shows the certificate of `showing`.
fn client(trusting: &Path, showing: Option<&Path>) -> Result<Client> {
    let authority = Certificate::from_pem(contents(&trusting.join("ca.pem")).as_bytes())?;
    let mut builder = Client::builder().no_proxy().tls_certs_only([authority]);
    if let Some(folder) = showing {
        let pem = format!("{}{}", contents(&folder.join("node.key")), contents(&folder.join("node.pem")));
        builder = builder.identity(Identity::from_pem(pem.as_bytes())?);
    }
    Ok(builder.build()?)
}

async fn join(fleet: &Fleet, name: &str, token: &str) -> Result<Output> {
    let mut command = tokio::process::Command::new(program("clawnode")?);
    command.args(["join", &fleet.gateway.node_url, "--token", token, "--name", name, "--data-dir"]);
    output(command.arg(fleet.root().join(name))).await
}

async fn token(fleet: &Fleet, args: Value) -> Result<String> {
    let made = fleet.admin.call("node_token_create", args).await?;
    Ok(made["credential"]["secret"].as_str().context("no secret in the answer")?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_certificate_of_this_fleet_opens_the_node_port() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        fleet.add_node("ours", H100_NODE).await?;
        let mut foreign = Fleet::start(&[]).await?;
        foreign.add_node("theirs", H100_NODE).await?;
        let (ours, theirs) = (fleet.nodes[0].data_dir(), foreign.nodes[0].data_dir());
        let port = fleet.gateway.node_url.clone();

        let nobody = client(ours, None)?;
        let said = nobody.get(format!("{port}/node")).send().await?.status();
        ensure!(said == StatusCode::UNAUTHORIZED, "/node without a certificate: {said}");
        for path in ["/", "/mcp", "/api/status", "/metrics"] {
            let said = nobody.get(format!("{port}{path}")).send().await?.status();
            ensure!(said == StatusCode::NOT_FOUND, "{path} on the node port: {said}");
        }
        for body in ["", "{}", "{\"token_id\":\"token_1\",\"secret\":\"AA\",\"csr_pem\":\"x\",\"name\":\"n\"}"] {
            let request = nobody.post(format!("{port}/enroll")).header("content-type", "application/json");
            let said = request.body(body).send().await?.status();
            ensure!(said.is_client_error(), "/enroll with {body:?}: {said}");
        }
        // The right certificate gets as far as the WebSocket handshake, which this is not.
        let said = client(ours, Some(ours))?.get(format!("{port}/node")).send().await?.status();
        ensure!(said.is_client_error() && said != StatusCode::UNAUTHORIZED, "our own node: {said}");
        let answer = client(ours, Some(theirs))?.get(format!("{port}/node")).send().await;
        ensure!(answer.is_err(), "a certificate of another authority got through TLS: {answer:?}");
        let answer = client(theirs, None)?.get(format!("{port}/node")).send().await;
        ensure!(answer.is_err(), "a node of another fleet trusts this gateway: {answer:?}");
        let plain = nobody.get(port.replace("https://", "http://")).send().await;
        ensure!(plain.is_err() || plain.is_ok_and(|r| r.status().is_client_error()), "plain HTTP is served");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_once_in_its_time_and_for_its_name() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        let once = token(fleet, json!({ "name": "one" })).await?;
        let refused = join(fleet, "other", &once).await?;
        ensure!(refused.status.code() == Some(5), "another name: {refused:?}");
        let joined = join(fleet, "one", &once).await?;
        ensure!(joined.status.success(), "{joined:?}");
        std::fs::rename(fleet.root().join("one"), fleet.root().join("kept"))?;
        let again = join(fleet, "one", &once).await?;
        ensure!(again.status.code() == Some(5), "a used token: {again:?}");
        ensure!(!fleet.root().join("one").join("node.pem").exists(), "a refused machine has a certificate");

        let (short, made) = (token(fleet, json!({ "ttl_s": 1 })).await?, Instant::now());
        poll_until("the token is too old", PATIENCE, || async {
            Ok((made.elapsed() > Duration::from_millis(1_100)).then_some(()))
        })
        .await?;
        let late = join(fleet, "late", &short).await?;
        ensure!(late.status.code() == Some(5), "an expired token: {late:?}");

        let mut letters: Vec<char> = token(fleet, json!({})).await?.chars().collect();
        let middle = letters.len() / 2;
        letters[middle] = if letters[middle] == 'A' { 'B' } else { 'A' };
        let damaged = join(fleet, "damaged", &letters.into_iter().collect::<String>()).await?;
        ensure!(damaged.status.code() == Some(2), "a damaged token: {damaged:?}");

        // The token of one cluster says nothing to another, and is not sent to it.
        let folder = tempfile::tempdir()?;
        let other = Gateway::start(folder.path(), &[]).await?;
        let ours = token(fleet, json!({})).await?;
        let mut command = tokio::process::Command::new(program("clawnode")?);
        command.args(["join", &other.node_url, "--token", &ours, "--name", "lost", "--data-dir"]);
        let lost = command.arg(fleet.root().join("lost")).kill_on_drop(true).output().await?;
        ensure!(!lost.status.success(), "joined a cluster that the token does not name: {lost:?}");
        ensure!(!contents(&other.log()).contains("enrollment refused"), "the secret went to a stranger");
        let nodes = fleet.admin.call("node_list", json!({ "fields": ["name"] })).await?;
        ensure!(nodes["total"] == 1, "{nodes}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_off_at_once_and_stays_off() -> Result<()> {
    on_fleet(60, &[], async |fleet| {
        fleet.add_node("gone", H100_NODE).await?;
        let other = second_admin(fleet).await?;
        let own = fleet.admin.plan_and_apply("node_remove", json!({ "node": "gone" }), &fleet.admin).await;
        ensure!(own.is_err(), "tier 3 was approved by whoever asked for it: {own:?}");
        let before = contents(&fleet.nodes[0].log()).len();
        fleet.admin.plan_and_apply("node_remove", json!({ "node": "gone" }), &other).await?;
        let log = fleet.nodes[0].log();
        poll_until("the removed node is refused", REMOVED_WITHIN, || async {
            let words = contents(&log);
            let news = words.get(before..).unwrap_or_default();
            ensure!(news.contains("the fleet"), "its log says {news:?}");
            Ok(Some(()))
        })
        .await?;
        let gone = fleet.admin.refused("node_get", json!({ "node": "gone" })).await?;
        ensure!(gone.code == claw_tools::refusal::ErrorCode::NotFound, "{gone:?}");
        // Its certificate is good for another month, and it may not even say hello.
        fleet.nodes[0].kill9().await?;
        fleet.nodes[0].launch_unheard()?;
        let gateway = fleet.gateway.log();
        let refusals = contents(&gateway).matches("connection refused").count();
        poll_until("it is refused again", PATIENCE, || async {
            let now = contents(&gateway).matches("connection refused").count();
            Ok((now > refusals).then_some(()))
        })
        .await?;
        let list = fleet.admin.call("node_list", json!({})).await?;
        ensure!(list["total"] == 0 && text(&list, "/nodes/0/name").is_empty(), "it is back: {list}");
        ensure!(fleet.nodes[0].is_alive(), "the agent gave up; what still runs on the node has nobody");
        Ok(())
    })
    .await
}
