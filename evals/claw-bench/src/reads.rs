//! (b) `cluster_status` over MCP, beside a bare rmcp server and FastMCP.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use claw_e2e_tests::gateway::Gateway;
use serde_json::json;

use crate::anchors::{Anchor, Anchors};
use crate::fleet::{Connected, enroll_all};
use crate::load::{Sample, abba, run};
use crate::mcp::SameCall;
use crate::stats::{ratio, spread};
use crate::submits::UNLIMITED;

/// Nodes of the fleet whose status is asked for.
const N_NODES: usize = 10;
/// Clients of a sample.
const CLIENTS: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Rmcp,
    FastMcp,
}

/// Takes all samples and returns the figure's lines.
///
/// # Errors
/// If a program does not start, or a call is not answered as it should be.
pub async fn figure(dir: &Path, anchors: &Anchors, rounds: usize, time: Duration) -> Result<Vec<String>> {
    let root = tempfile::tempdir_in(dir)?;
    let gateway = Gateway::start(root.path(), &UNLIMITED).await?;
    let key = gateway.admin_key()?;
    let enrolled = enroll_all(&gateway.mcp_url, &key, &gateway.node_url, N_NODES).await?;
    let mut nodes = Connected::all(&enrolled, &gateway.node_url).await?;
    let rmcp = Anchor::rmcp(root.path()).await?;
    let fastmcp = match &anchors.fastmcp_python {
        Some(python) => Some(Anchor::fastmcp(python, root.path()).await?),
        None => None,
    };
    let mut samples: [Vec<Sample>; 3] = Default::default();
    let sides: &[Side] =
        if fastmcp.is_some() { &[Side::Ours, Side::Rmcp, Side::FastMcp] } else { &[Side::Ours, Side::Rmcp] };
    for side in abba(sides, rounds) {
        let echo = |anchor: &Anchor| (format!("http://{}/mcp", anchor.authority), None, "echo", json!({ "text": "x" }));
        let (url, key, tool, arguments) = match (side, &fastmcp) {
            (Side::FastMcp, Some(fastmcp)) => echo(fastmcp),
            (Side::Rmcp | Side::FastMcp, _) => echo(&rmcp),
            (Side::Ours, _) => (gateway.mcp_url.clone(), Some(key.as_str()), "cluster_status", json!({})),
        };
        let clients = SameCall::clients(CLIENTS, &url, key, tool, arguments).await?;
        samples[side as usize].push(run(clients, time).await?);
    }
    nodes.still_up()?;
    Ok(lines(&samples, rounds))
}

fn lines(samples: &[Vec<Sample>; 3], rounds: usize) -> Vec<String> {
    let rates = samples.each_ref().map(|some| some.iter().map(|sample| sample.per_second).collect::<Vec<_>>());
    let p99 = samples.each_ref().map(|some| some.iter().map(|sample| sample.p99_ms).collect::<Vec<_>>());
    let mut lines = vec![format!(
        "(b) MCP calls in a second, {CLIENTS} clients; {} samples each, median [min, max]; ratios of medians [95 % interval]",
        2 * rounds
    )];
    for (side, name) in [(Side::Ours, "cluster_status"), (Side::Rmcp, "rmcp echo"), (Side::FastMcp, "FastMCP echo")] {
        let (rates, p99) = (&rates[side as usize], &p99[side as usize]);
        if !rates.is_empty() {
            lines.push(format!("{name:<15} {:<28} p99 {} ms", spread(rates, 0), spread(p99, 2)));
        }
    }
    let [ours, theirs, fast] = &rates;
    lines.push(format!("rate: ours/rmcp {}   p99: ours/rmcp {}", ratio(ours, theirs), ratio(&p99[0], &p99[1])));
    if !fast.is_empty() {
        lines.push(format!("rate: ours/FastMCP {}   p99: ours/FastMCP {}", ratio(ours, fast), ratio(&p99[0], &p99[2])));
    }
    lines
}
