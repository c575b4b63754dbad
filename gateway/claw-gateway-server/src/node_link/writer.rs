//! Writes one connection: messages in order, heartbeats, acknowledgments, and
//! the last word.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use claw_proto::message::GatewayMessage;
use futures_util::SinkExt as _;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::frames::{self, Outgoing, Sink};
use super::links::{CloseCode, Ending, Link};

/// The writing half of a connection.
pub(super) struct Writer {
    pub(super) sink: Sink,
    pub(super) out: Outgoing,
    pub(super) link: Arc<Link>,
    /// Boxed: a channel takes memory for 32 of its items at once, and a message is large.
    pub(super) frames: mpsc::Receiver<Box<GatewayMessage>>,
    pub(super) heartbeat_interval: Duration,
}

impl Writer {
    /// Writes until the link ends, then says the last word.
    pub(super) async fn run(mut self) {
        let mut acked = self.link.acked.subscribe();
        let mut beat = tokio::time::interval(self.heartbeat_interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Nothing but the answer to the registration may come first.
        let mut registered = false;
        loop {
            let message = tokio::select! {
                biased;
                () = self.link.closing.cancelled() => break,
                _ = beat.tick(), if registered => Box::new(self.heartbeat()),
                Ok(()) = acked.changed(), if registered => Box::new(GatewayMessage::Ack),
                message = self.frames.recv() => match message {
                    Some(message) => message,
                    None => break,
                },
            };
            if let GatewayMessage::Registered { version, .. } = *message {
                registered = true;
                self.out.speak(version);
                beat.reset_immediately();
            }
            let ack = *acked.borrow_and_update();
            let frame = self.out.frame(ack, *message);
            let sent = tokio::select! {
                sent = self.sink.send(frame) => sent,
                // A peer that does not read holds nobody up.
                () = self.link.closing.cancelled() => break,
            };
            if let Err(error) = sent {
                tracing::debug!(node_id = %self.link.node_id, %error, "cannot write to the node");
                break;
            }
        }
        // If nobody else ended it: without a writer there is no connection.
        self.link.end(Ending::Closed(CloseCode::Normal, String::new()));
        let ack = *acked.borrow();
        let ending = self.link.ending();
        Box::pin(frames::close(&mut self.sink, &mut self.out, ack, ending)).await;
    }

    fn heartbeat(&self) -> GatewayMessage {
        // Counted before it is sent: its answer can only come later.
        let nonce = self.link.nonce_sent.fetch_add(1, Ordering::AcqRel) + 1;
        GatewayMessage::Heartbeat { nonce, confirmed: self.link.nonce_answered.load(Ordering::Acquire) }
    }
}
