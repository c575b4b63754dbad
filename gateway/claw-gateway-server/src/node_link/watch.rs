//! Notices nodes that are silent for too long.

use std::time::Duration;

use claw_gateway::{Caller, Command};
use claw_proto::ids::NodeId;
use claw_proto::time::Timestamp;
use claw_tools::nodes::NodeLink;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::SharedPort;

/// Looks several times per timeout and tells the core about those that are online
/// in the state and silent here, connected or not.
pub(crate) async fn watch_silence(port: SharedPort, stop: CancellationToken) {
    let timeout_ms = port.settings.heartbeat_timeout_ms;
    let every = Duration::from_millis(u64::try_from(timeout_ms / 10).unwrap_or(1_000).clamp(50, 1_000));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = port.control.now();
        if silent_nodes(&port, |id| port.links.silent(id, now, timeout_ms)).is_empty() {
            continue;
        }
        let _alone = port.links.judging.write().await;
        let now = port.control.now();
        let nodes = silent_nodes(&port, |id| port.links.give_up(id, now, timeout_ms));
        if nodes.is_empty() {
            continue;
        }
        tracing::warn!(?nodes, "nodes are silent");
        let told = port.control.submit(Command::NodesSilent { nodes }, Caller::system(now)).await;
        if let Err(error) = told {
            // Nothing is lost: they are silent at the next look too.
            tracing::warn!(%error, "silent nodes could not be written down");
        }
    }
}

fn silent_nodes(port: &SharedPort, silent_since: impl Fn(NodeId) -> Option<Timestamp>) -> Vec<(NodeId, Timestamp)> {
    port.control
        .snapshot()
        .nodes
        .iter()
        .filter(|node| node.link == NodeLink::Online)
        .filter_map(|node| {
            let heard = silent_since(node.node_id)?;
            Some((node.node_id, heard))
        })
        .collect()
}
