//! Performs the effects of the core that go to nodes.

use std::sync::Arc;

use claw_gateway::Effect;
use claw_proto::message::RefusalCode;
use tokio_util::sync::CancellationToken;

use super::SharedPort;
use super::links::{CloseCode, Ending, Order};
use crate::control::EffectQueue;

/// Hands each effect to the queue of its node, in order, until the gateway
/// stops. Never waits for a node.
pub(crate) async fn perform(port: SharedPort, mut effects: EffectQueue, stop: CancellationToken) {
    loop {
        let effect = tokio::select! {
            effect = effects.recv() => effect,
            () = stop.cancelled() => None,
        };
        match effect {
            None => return,
            Some(effect) => hand_over(&port, effect),
        }
    }
}

fn hand_over(port: &SharedPort, effect: Effect) {
    match &effect {
        Effect::SendDesiredSet { node_id, .. }
        | Effect::StartWorkload { node_id, .. }
        | Effect::StopWorkload { node_id, .. }
        | Effect::NoticeCheckpoint { node_id, .. }
        | Effect::SendSettings { node_id, .. } => {
            let node_id = *node_id;
            port.links.order(node_id, Order::Effect(effect));
        }
        Effect::Exec { node_id, operation_id } => {
            tokio::spawn(super::tasks::exec(Arc::clone(port), *node_id, *operation_id));
        }
        Effect::CloseLink { node_id, why } => {
            let (node_id, why) = (*node_id, (*why).to_owned());
            match port.control.snapshot().nodes.get(node_id) {
                Some(node) if !node.is_revoked() => {
                    port.links.end(node_id, Ending::Closed(CloseCode::Normal, why));
                }
                Some(_) => port.links.end(node_id, Ending::Refused(RefusalCode::UnknownNode, why)),
                None => {
                    port.links.end(node_id, Ending::Refused(RefusalCode::UnknownNode, why));
                    port.links.forget(node_id);
                }
            }
        }
        Effect::EraseBlob { handle } => {
            tracing::warn!(handle, "blobs are erased by the core; this effect came to the wrong place");
        }
    }
}
