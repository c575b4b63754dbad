//! Reads one connection: signs of life are taken at once, the rest goes to the
//! lanes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use claw_proto::message::{Envelope, NodeErrorCode, NodeMessage, RefusalCode};
use claw_tools::nodes::MetricsSnapshot;

use super::SharedPort;
use super::frames::{self, Incoming, Stream};
use super::lanes::{Lanes, StatusItem};
use super::links::{CloseCode, Ending, Link, Order};
use crate::control::Boot;

/// The reading half of a connection, after registration.
pub(super) struct Reader {
    pub(super) port: SharedPort,
    pub(super) link: Arc<Link>,
    pub(super) lanes: Lanes,
    pub(super) version: u32,
    /// Number of the last frame.
    pub(super) sequence: u64,
    /// The run of the node's machine.
    pub(super) boot: Boot,
}

impl Reader {
    /// Reads until the link ends.
    pub(super) async fn run(mut self, stream: &mut Stream) {
        loop {
            let incoming = tokio::select! {
                () = self.link.closing.cancelled() => return,
                incoming = frames::next(stream) => incoming,
            };
            let taken = match incoming {
                Incoming::Message(envelope) => self.take(*envelope).await,
                Incoming::Bad(why) => Err(protocol(why.to_string())),
                Incoming::End => Err(Ending::Closed(CloseCode::Normal, String::new())),
            };
            if let Err(ending) = taken {
                self.link.end(ending);
                return;
            }
        }
    }

    async fn take(&mut self, envelope: Envelope<NodeMessage>) -> Result<(), Ending> {
        self.sequence += 1;
        if envelope.sequence != self.sequence {
            return Err(protocol(format!("frame {} came where frame {} was due", envelope.sequence, self.sequence)));
        }
        if envelope.version != self.version {
            return Err(protocol(format!(
                "frame of version {} on a connection of version {}",
                envelope.version, self.version
            )));
        }
        match envelope.body {
            NodeMessage::HeartbeatAck { nonce } => self.heartbeat_answered(nonce),
            NodeMessage::WorkloadStatus { records } => self.status(StatusItem::Records(records)).await,
            NodeMessage::CapabilitiesChanged { capabilities } => {
                self.status(StatusItem::Capabilities(Box::new(capabilities))).await
            }
            NodeMessage::Logs { chunks } => self.waiting_for_us(self.lanes.logs.offer(chunks)).await,
            NodeMessage::Metrics { at, gpus, system, workloads } => {
                let snapshot = MetricsSnapshot { at, gpus, system, workloads };
                self.port.control.metrics().put(self.link.node_id, snapshot);
                Ok(())
            }
            NodeMessage::Error { code, message } => {
                self.error(code, &message);
                Ok(())
            }
            NodeMessage::RenewCertificate { csr_der } => {
                super::certificates::renew(&self.port, &self.link, csr_der);
                Ok(())
            }
            NodeMessage::GpuEvents { events } => {
                self.port.control.metrics().happened(self.link.node_id, &self.boot, events);
                Ok(())
            }
            NodeMessage::KernelLog(log) => {
                self.port.control.kernels().heard(self.link.node_id, log, self.port.control.now());
                Ok(())
            }
            answer @ (NodeMessage::ExecDone { .. }
            | NodeMessage::OutputRead { .. }
            | NodeMessage::TaskFailed { .. }) => {
                self.link.tasks.answered(answer);
                Ok(())
            }
            NodeMessage::Register { .. } => Err(protocol("a connection is registered once".into())),
        }
    }

    /// The only frame that renews what the gateway counts partition leases from.
    fn heartbeat_answered(&self, nonce: u64) -> Result<(), Ending> {
        if nonce == 0 || nonce > self.link.nonce_sent.load(Ordering::Acquire) {
            return Err(protocol(format!("an answer to heartbeat {nonce}, which was not sent")));
        }
        // First it counts here, then the node may learn that it does.
        let news = nonce > self.link.nonce_answered.load(Ordering::Acquire);
        if news && self.port.links.answered(&self.link, self.port.control.now()) {
            self.link.nonce_answered.fetch_max(nonce, Ordering::AcqRel);
        }
        Ok(())
    }

    async fn status(&self, item: StatusItem) -> Result<(), Ending> {
        self.waiting_for_us(self.lanes.status.offer(item)).await
    }

    /// Waits for room in a lane; meanwhile the node's silence is our own doing.
    async fn waiting_for_us(&self, room: impl Future<Output = Result<(), Ending>>) -> Result<(), Ending> {
        let mut room = std::pin::pin!(room);
        // Mostly there is room at once.
        if let std::task::Poll::Ready(taken) = futures_util::poll!(room.as_mut()) {
            return taken;
        }
        let links = &self.port.links;
        links.held_up(&self.link, true, self.port.control.now());
        let taken = tokio::select! {
            taken = room => taken,
            () = self.link.closing.cancelled() => Ok(()),
        };
        links.held_up(&self.link, false, self.port.control.now());
        taken
    }

    fn error(&self, code: NodeErrorCode, message: &str) {
        tracing::warn!(node_id = %self.link.node_id, %code, message, "the node reports an error");
        if code == NodeErrorCode::StaleGeneration {
            // It knows more than the order it got: the full set settles it.
            self.link.order(Order::Again);
        }
    }
}

pub(super) fn protocol(message: String) -> Ending {
    Ending::Refused(RefusalCode::Protocol, message)
}
