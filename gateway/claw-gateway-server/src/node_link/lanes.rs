//! What a node reports on its way to the disk: one lane for facts about
//! attempts, one for log lines, so that neither waits for the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claw_gateway::{Caller, Cluster, Command};
use claw_proto::message::{GatewayMessage, LogChunk, LogKey, RefusalCode, StatusRecord};
use claw_proto::topology::NodeCapabilities;
use claw_storage::LogError;
use claw_tools::refusal::ErrorCode;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::links::{CloseCode, Ending, Link};
use super::reader::protocol;
use super::{LOG_RETRY_MS, SharedPort};
use crate::control::{LogDeskError, SubmitError};

/// The entrances.
pub(super) struct Lanes {
    pub(super) status: StatusLane,
    pub(super) logs: LogLane,
}

/// Something for the core.
#[derive(Debug)]
pub(super) enum StatusItem {
    /// Facts about attempts.
    Records(Vec<StatusRecord>),
    /// What the node has now.
    Capabilities(Box<NodeCapabilities>),
}

/// A lane whose worker has ended: so does the connection.
fn lane_closed() -> Ending {
    Ending::Closed(CloseCode::Normal, "the gateway stopped taking reports".into())
}

/// Entrance to the core.
pub(super) struct StatusLane(pub(super) mpsc::Sender<StatusItem>);

impl StatusLane {
    /// Waits for room.
    pub(super) async fn offer(&self, item: StatusItem) -> Result<(), Ending> {
        self.0.send(item).await.map_err(|_| lane_closed())
    }
}

/// Entrance to the log store.
pub(super) struct LogLane {
    pub(super) chunks: mpsc::Sender<Vec<LogChunk>>,
    /// The store does not take lines now.
    pub(super) stalled: watch::Receiver<bool>,
    /// Lines were passed over: the node has to send from where the store ends, on a new connection.
    pub(super) passed_over: Arc<AtomicBool>,
}

impl LogLane {
    /// Waits for room, but not for a store that takes nothing: the node keeps
    /// what is not acknowledged, and its signs of life must come through.
    pub(super) async fn offer(&self, chunks: Vec<LogChunk>) -> Result<(), Ending> {
        if self.passed_over.load(Ordering::Acquire) {
            return Ok(());
        }
        let chunks = match self.chunks.try_send(chunks) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(lane_closed()),
            Err(TrySendError::Full(chunks)) => chunks,
        };
        let mut stalled = self.stalled.clone();
        tokio::select! {
            biased;
            sent = self.chunks.send(chunks) => sent.map_err(|_| lane_closed()),
            Ok(_) = stalled.wait_for(|stalled| *stalled) => {
                self.passed_over.store(true, Ordering::Release);
                Ok(())
            }
        }
    }
}

/// Takes facts to the core, in order, and acknowledges what is durable.
pub(super) struct StatusWorker {
    pub(super) port: SharedPort,
    pub(super) link: Arc<Link>,
    /// Number of the record that is due; the node's first on this connection sets it.
    pub(super) due: Option<u64>,
}

impl StatusWorker {
    pub(super) async fn run(mut self, mut items: mpsc::Receiver<StatusItem>) {
        while let Some(item) = items.recv().await {
            let done = match item {
                StatusItem::Records(records) => self.records(records).await,
                StatusItem::Capabilities(capabilities) => self.capabilities(capabilities).await,
            };
            if let Err(ending) = done {
                self.link.end(ending);
                return;
            }
        }
    }

    async fn records(&mut self, mut records: Vec<StatusRecord>) -> Result<(), Ending> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(());
        };
        let (first, last) = (first.record, last.record);
        if records.windows(2).any(|w| w[1].record != w[0].record + 1) {
            return Err(protocol("status records are not in order".into()));
        }
        let due = *self.due.get_or_insert(first);
        if first > due {
            // Those between were not journaled and not acknowledged: the node sends them again.
            tracing::debug!(node_id = %self.link.node_id, first, due, "status records wait for those before them");
            return Ok(());
        }
        if last < due {
            // Sent again before our acknowledgment arrived.
            self.link.acked.send_replace(due - 1);
            return Ok(());
        }
        records.retain(|record| record.record >= due);
        let command = Command::NodeStatus { node_id: self.link.node_id, records };
        match self.submit(command).await {
            Ok(()) => {
                self.due = Some(last + 1);
                self.link.acked.send_replace(last);
                Ok(())
            }
            Err(SubmitError::Refused(refusal)) if refusal.code == ErrorCode::NotFound => {
                Err(Ending::Refused(RefusalCode::UnknownNode, refusal.message))
            }
            Err(error) => {
                tracing::warn!(node_id = %self.link.node_id, %error, "status records are not durable and stay unacknowledged");
                Ok(())
            }
        }
    }

    /// Nodes say this once, so it is tried until it is written down.
    async fn capabilities(&self, capabilities: Box<NodeCapabilities>) -> Result<(), Ending> {
        loop {
            let command = Command::NodeCapabilities { node_id: self.link.node_id, capabilities: capabilities.clone() };
            match self.submit(command).await {
                Ok(()) => return Ok(()),
                Err(SubmitError::Refused(refusal)) if !refusal.retryable => {
                    return Err(Ending::Refused(RefusalCode::UnknownNode, refusal.message));
                }
                Err(error) => {
                    tracing::warn!(node_id = %self.link.node_id, %error, "changed capabilities wait to be written down");
                    tokio::time::sleep(Duration::from_millis(LOG_RETRY_MS)).await;
                }
            }
        }
    }

    async fn submit(&self, command: Command) -> Result<(), SubmitError> {
        let caller = Caller::node(self.link.node_id, self.port.control.now());
        self.port.control.submit(command, caller).await.map(drop)
    }
}

/// Takes log lines to the store and acknowledges what is durable.
pub(super) struct LogWorker {
    pub(super) port: SharedPort,
    pub(super) link: Arc<Link>,
    pub(super) frames: mpsc::Sender<Box<GatewayMessage>>,
    pub(super) stalled: watch::Sender<bool>,
    pub(super) passed_over: Arc<AtomicBool>,
}

impl LogWorker {
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Vec<LogChunk>>) {
        while let Some(chunks) = queue.recv().await {
            let acks = match self.store(chunks).await {
                Ok(acks) => acks,
                Err(ending) => return self.link.end(ending),
            };
            if self.frames.send(Box::new(GatewayMessage::LogsAck { acks })).await.is_err() {
                return;
            }
            if self.passed_over.load(Ordering::Acquire) {
                let why = "the log store is back; send again what was not acknowledged";
                return self.link.end(Ending::Closed(CloseCode::Normal, why.into()));
            }
        }
    }

    /// Stores the lines of this node's own attempts, as soon as the store takes them.
    async fn store(&self, chunks: Vec<LogChunk>) -> Result<BTreeMap<LogKey, u64>, Ending> {
        let (own, mut acks) = self.own(chunks);
        if own.is_empty() {
            return Ok(acks);
        }
        loop {
            match self.port.control.logs().append(own.clone()).await {
                Ok(stored) => {
                    self.stalled.send_replace(false);
                    acks.extend(stored);
                    return Ok(acks);
                }
                Err(LogDeskError::Closed) => return Err(lane_closed()),
                Err(LogDeskError::Store(error)) if is_against_protocol(&error) => {
                    return Err(protocol(error.to_string()));
                }
                Err(error) => {
                    if !self.stalled.send_replace(true) {
                        tracing::error!(node_id = %self.link.node_id, %error, "log lines cannot be stored; the node keeps them");
                    }
                    tokio::time::sleep(Duration::from_millis(LOG_RETRY_MS)).await;
                }
            }
        }
    }

    /// A node writes the logs of what was placed on it and of nothing else. Other
    /// lines are passed over and acknowledged, since nobody could ever read them.
    fn own(&self, chunks: Vec<LogChunk>) -> (Vec<LogChunk>, BTreeMap<LogKey, u64>) {
        let cluster = self.port.control.snapshot();
        let (own, foreign): (Vec<_>, Vec<_>) = chunks.into_iter().partition(|chunk| self.is_own(&cluster, &chunk.key));
        let mut acks = BTreeMap::new();
        for chunk in foreign {
            let lost = chunk.gap.map(|gap| gap.first_sequence.saturating_add(gap.n_lost.saturating_sub(1)));
            let last = chunk.lines.last().map(|line| line.sequence).max(lost);
            tracing::warn!(node_id = %self.link.node_id, key = ?chunk.key, lines = chunk.lines.len(), "log lines of an attempt that is not this node's are not stored");
            acks.insert(chunk.key, last.unwrap_or(0));
        }
        (own, acks)
    }

    fn is_own(&self, cluster: &Cluster, key: &LogKey) -> bool {
        cluster.workloads.get(key.workload_id).is_some_and(|entry| {
            entry.attempts.iter().any(|a| a.attempt == key.attempt && a.node_id == self.link.node_id)
        })
    }
}

/// The store will never take these lines; anything else may pass.
const fn is_against_protocol(error: &LogError) -> bool {
    match error {
        LogError::BadKey { .. }
        | LogError::ZeroSequence
        | LogError::NotContiguous { .. }
        | LogError::Jump { .. }
        | LogError::BadGap { .. }
        | LogError::LineTooLong { .. } => true,
        LogError::LowSpace { .. } | LogError::Full | LogError::Locked { .. } | LogError::Io { .. } => false,
    }
}
