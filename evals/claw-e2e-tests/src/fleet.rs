//! A gateway and its nodes in one temporary folder.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::json;

use crate::gateway::Gateway;
use crate::node::NodeProcess;
use crate::process::tail_of;
use crate::proxy::Proxy;
use crate::session::Session;
use crate::wait::poll_until;

/// Heartbeats fast enough that a test need not wait long, and no rate that polling would meet.
pub const FAST: &[&str] = &[
    "node.heartbeat_interval_ms=200",
    "node.heartbeat_timeout_ms=1000",
    "limits.requests_per_s=1000",
    "limits.requests_burst=2000",
];

/// Settings of a node that runs host processes.
pub const PROCESS_NODE: &[&str] =
    &["runtime.process.enabled=true", "runtime.process.cgroups=false", "link.reconnect_max_ms=500"];

/// Settings of a simulated 8×H100 node.
pub const H100_NODE: &[&str] =
    &["gpu=sim:h100x8", "runtime.sim.pull_ms=100", "runtime.sim.start_ms=50", "link.reconnect_max_ms=500"];

/// A fleet of processes.
#[derive(Debug)]
pub struct Fleet {
    /// The gateway.
    pub gateway: Gateway,
    /// The nodes.
    pub nodes: Vec<NodeProcess>,
    /// The first admin, a person.
    pub admin: Session,
    /// Last, so that the folder goes when nobody writes to it any more.
    root: tempfile::TempDir,
}

impl Fleet {
    /// A gateway with fast heartbeats and no nodes.
    pub async fn start(more: &[&str]) -> Result<Self> {
        Self::start_in(tempfile::Builder::new().prefix("claw-").tempdir()?, more).await
    }

    /// The same in this folder: its data folder may stand there already.
    pub async fn start_in(root: tempfile::TempDir, more: &[&str]) -> Result<Self> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let settings: Vec<&str> = FAST.iter().chain(more).copied().collect();
        let gateway = Gateway::start(root.path(), &settings).await?;
        let admin = Session::new(&gateway.mcp_url, &gateway.admin_key()?);
        Ok(Self { gateway, nodes: Vec::new(), admin, root })
    }

    /// The folder of everything.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The last words of every process, for a failure message.
    pub fn last_words(&self) -> String {
        let of_node = |node: &NodeProcess| format!("{}:\n{}\n", node.name, tail_of(&node.log()));
        let nodes: String = self.nodes.iter().map(of_node).collect();
        format!("gateway:\n{}\n{nodes}", tail_of(&self.gateway.log()))
    }

    /// Enrolls and starts a node; returns its place in `nodes`.
    pub async fn add_node(&mut self, name: &str, settings: &[&str]) -> Result<usize> {
        let authority = self.gateway.node_authority().to_owned();
        self.add_node_at(name, settings, &authority).await
    }

    /// The same, connecting through a wire that can be cut.
    pub async fn add_node_behind(&mut self, name: &str, settings: &[&str], proxy: &Proxy) -> Result<usize> {
        self.add_node_at(name, settings, &proxy.addr.to_string()).await
    }

    async fn add_node_at(&mut self, name: &str, settings: &[&str], authority: &str) -> Result<usize> {
        let token = self.admin.call("node_token_create", json!({ "name": name })).await?;
        let secret = token["credential"]["secret"].as_str().context("no secret in the answer")?.to_owned();
        let link = format!("gateway_url=wss://{authority}/node");
        let settings: Vec<&str> = settings.iter().copied().chain([link.as_str()]).collect();
        let mut node = NodeProcess::join(self.root.path(), name, &self.gateway.node_url, &secret, &settings).await?;
        node.launch().await?;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// An agent's key with the operator's role, made as a person would.
    pub async fn operator(&self, principal: &str) -> Result<Session> {
        let args = json!({ "principal": principal, "role": "operator", "kind": "agent" });
        let (_, applied) = self.admin.plan_and_apply("api_key_create", args, &self.admin).await?;
        let secret = applied["credential"]["secret"].as_str().context("no secret in the answer")?;
        Ok(Session::new(&self.gateway.mcp_url, secret))
    }

    /// Waits until a node is in this link state.
    pub async fn until_node(&self, name: &str, link: &str, deadline: Duration) -> Result<()> {
        poll_until(&format!("{name} is {link}"), deadline, || async {
            let detail = self.admin.call("node_get", json!({ "node": name })).await?;
            let now = detail["node"]["link"].as_str().unwrap_or_default().to_owned();
            if now == link { Ok(Some(())) } else { Err(anyhow!("it is {now}")) }
        })
        .await
    }
}
