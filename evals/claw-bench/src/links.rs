//! (c) What an idle node connection costs the gateway, and a metrics frame.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use claw_e2e_tests::gateway::Gateway;
use claw_e2e_tests::wait::poll_until;

use crate::fleet::{Connected, enroll_all};
use crate::resources::{cpu_seconds, resident_kib};
use crate::stats::spread;
use crate::submits::UNLIMITED;

/// Time for buffers of handshakes to be given back.
const SETTLE: Duration = Duration::from_secs(5);
/// Time over which the idle use of the processor is taken.
const IDLE: Duration = Duration::from_secs(5);
/// Metrics frames of each node in one round.
const FRAMES_EACH: u32 = 20;
/// Rounds of metrics frames.
const ROUNDS: usize = 5;

/// Takes the figure at each of these numbers of nodes and returns its lines.
///
/// # Errors
/// If the gateway does not start, or loses a node.
pub async fn figure(dir: &Path, sizes: &[usize]) -> Result<Vec<String>> {
    let mut lines = vec![
        "(c) the gateway's memory for an idle mTLS node connection; processor time for a metrics frame of 8 GPUs, \
         and for one that adds nothing to their windows"
            .to_owned(),
    ];
    for n in sizes {
        lines.push(of_size(dir, *n).await?);
    }
    Ok(lines)
}

async fn of_size(dir: &Path, n: usize) -> Result<String> {
    let root = tempfile::tempdir_in(dir)?;
    let mut gateway = Gateway::start(root.path(), &UNLIMITED).await?;
    let key = gateway.admin_key()?;
    let enrolled = enroll_all(&gateway.mcp_url, &key, &gateway.node_url, n).await?;
    // What enrolling left behind is not what a connection costs: once all have been there,
    // a fresh process knows them without being connected.
    let mut nodes = Connected::all(&enrolled, &gateway.node_url).await?;
    nodes.still_up()?;
    drop(nodes);
    gateway.terminate().await?;
    gateway.launch(&[]).await?;
    let pid = gateway.pid().context("the gateway is not up")?;
    tokio::time::sleep(SETTLE).await;
    let before_kib = resident_kib(pid)?;
    let mut nodes = Connected::all(&enrolled, &gateway.node_url).await?;
    tokio::time::sleep(SETTLE).await;
    let each_kib = (resident_kib(pid)? - before_kib) / n as f64;
    let idle_from = cpu_seconds(pid)?;
    tokio::time::sleep(IDLE).await;
    let idle_share = (cpu_seconds(pid)? - idle_from) / IDLE.as_secs_f64();
    // In turn, so that both meet the same machine.
    let (mut kept_us, mut old_us) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (is_newer, frame_us) in [(true, &mut kept_us), (false, &mut old_us)] {
            let (from, begun) = (cpu_seconds(pid)?, std::time::Instant::now());
            let n_frames = nodes.send_metrics(FRAMES_EACH, is_newer).await?;
            until_quiet(pid, idle_share).await?;
            let used = cpu_seconds(pid)? - from - idle_share * begun.elapsed().as_secs_f64();
            frame_us.push(used / n_frames as f64 * 1e6);
        }
    }
    nodes.still_up()?;
    Ok(format!(
        "{n:>6} nodes  {each_kib:.1} KiB for each connection   {} us for each frame, {} without windows   idle {:.1} % of a core",
        spread(&kept_us, 1),
        spread(&old_us, 1),
        idle_share * 100.0
    ))
}

/// Waits until the process does no more than it does idle.
async fn until_quiet(pid: u32, idle_share: f64) -> Result<()> {
    const WINDOW: Duration = Duration::from_millis(500);
    poll_until("the gateway is quiet", Duration::from_mins(1), || async {
        let from = cpu_seconds(pid)?;
        tokio::time::sleep(WINDOW).await;
        let busy = (cpu_seconds(pid)? - from) / WINDOW.as_secs_f64();
        if busy <= idle_share + 0.04 { Ok(Some(())) } else { Err(anyhow::anyhow!("busy {busy:.2}")) }
    })
    .await
}
