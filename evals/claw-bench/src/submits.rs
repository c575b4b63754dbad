//! (a) Durable submissions in a second, beside etcd's puts on the same disk.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use claw_e2e_tests::gateway::Gateway;
use serde_json::json;

use crate::anchors::{Anchor, Anchors};
use crate::core::{CoreUnderTest, GPU_COUNTS};
use crate::etcd::EtcdClient;
use crate::fleet::{Connected, enroll_all};
use crate::load::{Client, Sample, abba, run};
use crate::mcp::{McpClient, ensure_result};
use crate::stats::{ratio, spread};

/// Nodes of the fleet that is full.
const N_NODES: u32 = 10;
/// Settings of a gateway that limits no bench.
pub const UNLIMITED: [&str; 3] =
    ["limits.requests_per_s=1000000", "limits.requests_burst=1000000", "node.enrollments_per_minute=1000000"];

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Through `step` and the journal.
    Core,
    /// Through a gateway of its own, over MCP.
    Mcp,
    /// Puts of etcd.
    Etcd,
}

impl Side {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Core, Self::Mcp, Self::Etcd];

    /// Reads a name.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "core" => Ok(Self::Core),
            "mcp" => Ok(Self::Mcp),
            "etcd" => Ok(Self::Etcd),
            other => bail!("{other} is none of core, mcp, etcd"),
        }
    }
}

/// How it is measured.
#[derive(Debug)]
pub struct Load<'a> {
    /// Rounds, of two samples of each side.
    pub rounds: usize,
    /// How long a sample takes.
    pub time: Duration,
    /// Clients at once.
    pub clients: &'a [usize],
    /// Sides.
    pub sides: &'a [Side],
}

/// Takes all samples and returns the figure's lines.
///
/// # Errors
/// If a program does not start, or a call is not answered as it should be.
pub async fn figure(dir: &Path, anchors: &Anchors, load: &Load<'_>) -> Result<Vec<String>> {
    let Load { rounds, time, .. } = *load;
    let mut lines = vec![format!(
        "(a) durable writes in a second; {} samples each, median [min, max]; ratios of medians [95 % interval]",
        2 * rounds
    )];
    let can = |side: &Side| *side != Side::Etcd || anchors.etcd.is_some();
    let sides: Vec<Side> = load.sides.iter().copied().filter(can).collect();
    for &n in load.clients {
        let mut samples: [Vec<Sample>; 3] = Default::default();
        for side in abba(&sides, rounds) {
            let root = tempfile::tempdir_in(dir)?;
            let sample = match side {
                Side::Core => core(root.path(), n, time).await?,
                Side::Mcp => mcp(root.path(), n, time).await?,
                Side::Etcd => etcd(root.path(), anchors, n, time).await?,
            };
            samples[side as usize].push(sample);
        }
        let rates = samples.each_ref().map(|some| some.iter().map(|sample| sample.per_second).collect::<Vec<_>>());
        let p99 = samples.each_ref().map(|some| some.iter().map(|sample| sample.p99_ms).collect::<Vec<_>>());
        for (side, name) in [(Side::Core, "core"), (Side::Mcp, "MCP"), (Side::Etcd, "etcd")] {
            let (rates, p99) = (&rates[side as usize], &p99[side as usize]);
            if !rates.is_empty() {
                lines.push(format!("{n:>4} clients  {name:<5} {:<24} p99 {} ms", spread(rates, 0), spread(p99, 2)));
            }
        }
        if rates.iter().all(|some| !some.is_empty()) {
            let [core, mcp, etcd] = &rates;
            lines.push(format!("{n:>4} clients  core/etcd {}   MCP/etcd {}", ratio(core, etcd), ratio(mcp, etcd)));
        }
    }
    Ok(lines)
}

async fn core(dir: &Path, n: usize, time: Duration) -> Result<Sample> {
    let core = CoreUnderTest::start(dir, N_NODES).await?;
    let sample = run(core.clients(n), time).await;
    core.stop().await;
    sample
}

async fn etcd(dir: &Path, anchors: &Anchors, n: usize, time: Duration) -> Result<Sample> {
    let program = anchors.etcd.as_deref().unwrap_or(Path::new("etcd"));
    let etcd = Anchor::etcd(program, dir).await?;
    run(EtcdClient::clients(n, &etcd.authority).await?, time).await
}

async fn mcp(dir: &Path, n: usize, time: Duration) -> Result<Sample> {
    let gateway = Gateway::start(dir, &UNLIMITED).await?;
    let key = gateway.admin_key()?;
    let enrolled = enroll_all(&gateway.mcp_url, &key, &gateway.node_url, N_NODES as usize).await?;
    let mut nodes = Connected::all(&enrolled, &gateway.node_url).await?;
    let mut filler = McpClient::connect(&gateway.mcp_url, Some(&key)).await?;
    for _ in 0..N_NODES {
        filler.call("workload_run", json!({ "spec": { "command": ["train"], "gpu": { "count": 8 } } })).await?;
    }
    let mut clients = Vec::with_capacity(n);
    for number in 0..n {
        clients.push(Submitter { client: McpClient::connect(&gateway.mcp_url, Some(&key)).await?, number });
    }
    let sample = run(clients, time).await?;
    nodes.still_up()?;
    Ok(sample)
}

/// Submits a workload with each call, under a key of its own.
#[derive(Debug)]
struct Submitter {
    client: McpClient,
    number: usize,
}

impl Client for Submitter {
    async fn ask(&mut self, n: u64) -> Result<()> {
        let gpus = GPU_COUNTS[usize::try_from(n)? % GPU_COUNTS.len()];
        let arguments = json!({
            "spec": { "command": ["train"], "gpu": { "count": gpus } },
            "request_id": format!("c{}-{n}", self.number),
        });
        let params = json!({ "name": "workload_run", "arguments": arguments });
        let body = json!({ "jsonrpc": "2.0", "id": n, "method": "tools/call", "params": params });
        let answer = self.client.post(Bytes::from(body.to_string())).await?;
        ensure_result(&answer)
    }
}
