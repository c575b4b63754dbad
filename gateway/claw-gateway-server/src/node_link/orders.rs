//! What one node is told, in order: effects become messages here.
//!
//! An effect names what it is about; what is sent is looked up in the durable
//! state at the moment of sending. Effects that the last desired set already
//! shows are left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claw_gateway::{Caller, Cluster, Command, Effect, query};
use claw_proto::codec::{check_version, desired_set_messages};
use claw_proto::ids::{Attempt, Generation, WorkloadId};
use claw_proto::message::{
    DesiredWorkload, GatewayMessage, LogKey, NodeSettings, NodeWorkloadState, RefusalCode, StatusCause, StatusRecord,
    StopOrder,
};
use claw_proto::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::fill::{self, FillError};
use super::links::{CloseCode, Ending, Link, Order};
use super::{RESEND_SET_MS, SharedPort};
use crate::control::SubmitError;

/// The writer is gone: the connection ends.
struct Gone;

/// The queue of one connection.
pub(super) struct Orders {
    port: SharedPort,
    link: Arc<Link>,
    version: u32,
    frames: mpsc::Sender<Box<GatewayMessage>>,
    progress: Progress,
}

/// How far this connection is.
#[derive(Default)]
struct Progress {
    registered: bool,
    /// The core wants the node to have its set.
    set_wanted: bool,
    /// Orders of the core beyond the state, not sent so far.
    also_stop: Vec<StopOrder>,
    /// Generation of the last set, and when it was sent.
    set: Option<(Generation, Instant)>,
    /// The node missed something: when it gets the set again.
    again_at: Option<Instant>,
}

impl Orders {
    pub(super) fn new(
        port: SharedPort,
        link: Arc<Link>,
        version: u32,
        frames: mpsc::Sender<Box<GatewayMessage>>,
    ) -> Self {
        Self { port, link, version, frames, progress: Progress::default() }
    }

    /// Works off the queue until the connection ends.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            let again_at = self.progress.again_at;
            let done = tokio::select! {
                order = orders.recv() => match order {
                    // Boxed, as all that is rare: what is not under way takes no memory of an idle link.
                    Some(order) => Box::pin(self.take(order)).await,
                    None => break,
                },
                () = tokio::time::sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {
                    Box::pin(self.send_set()).await
                }
            };
            if done.is_err() {
                break;
            }
        }
        // Without orders a connection is of no use; a new one gets the full set.
        self.link.end(Ending::Closed(CloseCode::Normal, String::new()));
    }

    async fn take(&mut self, order: Order) -> Result<(), Gone> {
        match order {
            Order::Registered { settings, log_acks } => self.registered(settings, log_acks).await,
            Order::Again => {
                // However often it asks: one set, a while after the last.
                let pause = Duration::from_millis(RESEND_SET_MS);
                self.progress.again_at = self.progress.set.map(|(_, at)| at + pause);
                Ok(())
            }
            // An old node has no words for it, and nothing to do about it.
            Order::Say(message) if check_version(&message, self.version).is_ok() => self.send(*message).await,
            Order::Say(_) => Ok(()),
            Order::Effect(Effect::SendDesiredSet { also_stop, .. }) => {
                self.progress.set_wanted = true;
                self.progress.also_stop.extend(also_stop);
                if self.progress.registered { self.send_set().await } else { Ok(()) }
            }
            Order::Effect(Effect::StartWorkload { workload_id, attempt, generation, .. })
                if self.is_news(generation) =>
            {
                self.start(workload_id, attempt, generation).await
            }
            Order::Effect(Effect::StopWorkload { order, generation, .. }) if self.is_news(generation) => {
                self.send(GatewayMessage::StopWorkload { generation, order }).await
            }
            // Before the first set: that tells of all of them.
            Order::Effect(Effect::NoticeCheckpoint { workload_id, .. }) if self.progress.set.is_some() => {
                self.send_notices(Some(workload_id)).await
            }
            Order::Effect(Effect::SendSettings { settings, .. }) if self.progress.registered => {
                let settings = self.with_interval(settings);
                self.send(GatewayMessage::UpdateConfig { settings }).await
            }
            // In the last set, or in the next; the rest does not go to nodes.
            Order::Effect(
                Effect::StartWorkload { .. }
                | Effect::StopWorkload { .. }
                | Effect::SendSettings { .. }
                | Effect::NoticeCheckpoint { .. }
                | Effect::Exec { .. }
                | Effect::CloseLink { .. }
                | Effect::EraseBlob { .. },
            ) => Ok(()),
        }
    }

    /// The change is newer than the last set. Before the first set nothing is: it will show all.
    fn is_news(&self, generation: Generation) -> bool {
        self.progress.set.is_some_and(|(seen, _)| generation > seen)
    }

    async fn registered(&mut self, settings: NodeSettings, log_acks: BTreeMap<LogKey, u64>) -> Result<(), Gone> {
        let settings = self.with_interval(settings);
        self.send(GatewayMessage::Registered { node_id: self.link.node_id, settings, version: self.version, log_acks })
            .await?;
        self.progress.registered = true;
        if self.progress.set_wanted {
            self.send_set().await?;
        }
        Ok(())
    }

    /// How often this gateway sends heartbeats is its own setting.
    fn with_interval(&self, settings: NodeSettings) -> NodeSettings {
        let interval = self.port.settings.heartbeat_interval;
        NodeSettings { heartbeat_interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), ..settings }
    }

    async fn send_set(&mut self) -> Result<(), Gone> {
        let cluster = self.port.control.snapshot();
        let (generation, wanted, mut stop) = query::desired_set(&cluster, self.link.node_id);
        let mut workloads = Vec::with_capacity(wanted.len());
        for (workload, env_handle) in wanted {
            workloads.extend(self.filled(workload, env_handle).await?);
        }
        let workloads = self.understood(generation, workloads).await?;
        for order in std::mem::take(&mut self.progress.also_stop) {
            let same = |known: &StopOrder| (known.workload_id, known.attempt) == (order.workload_id, order.attempt);
            let is_wanted = workloads.iter().any(|w| (w.workload_id, w.attempt) == (order.workload_id, order.attempt));
            if !is_wanted && !stop.iter().any(same) {
                stop.push(order);
            }
        }
        tracing::debug!(node_id = %self.link.node_id, %generation, wanted = workloads.len(), stop = stop.len(), "desired set");
        self.progress.set = Some((generation, Instant::now()));
        self.progress.again_at = None;
        for message in desired_set_messages(generation, workloads, stop) {
            self.send(message).await?;
        }
        self.send_notices(None).await
    }

    /// Who on this node shall write a checkpoint now, or this one. A node that does not know the
    /// word is not told; the grace passes, and the stop comes.
    async fn send_notices(&self, only: Option<WorkloadId>) -> Result<(), Gone> {
        let now = self.port.control.now();
        let all = query::notices(&self.port.control.snapshot(), self.link.node_id, now);
        for (workload_id, attempt, grace_s) in all.into_iter().filter(|(id, ..)| only.is_none_or(|only| only == *id)) {
            let notice = GatewayMessage::CheckpointNotice { workload_id, attempt, grace_s };
            if check_version(&notice, self.version).is_ok() {
                self.send(notice).await?;
            }
        }
        Ok(())
    }

    async fn start(&self, workload_id: WorkloadId, attempt: Attempt, generation: Generation) -> Result<(), Gone> {
        let cluster = self.port.control.snapshot();
        let Some((workload, env_handle)) = self.wanted(&cluster, workload_id, attempt) else {
            tracing::debug!(%workload_id, ?attempt, "not wanted any more when its start was due");
            return Ok(());
        };
        match self.filled(workload, env_handle).await? {
            Some(workload) => {
                for workload in self.understood(generation, vec![workload]).await? {
                    self.send(GatewayMessage::StartWorkload { generation, workload }).await?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Leaves out what a node of an older protocol version would only half follow;
    /// such an attempt ends here as one that its node does not support.
    async fn understood(
        &self,
        generation: Generation,
        workloads: Vec<DesiredWorkload>,
    ) -> Result<Vec<DesiredWorkload>, Gone> {
        let mut understood = Vec::with_capacity(workloads.len());
        let mut records = Vec::new();
        for workload in workloads {
            let message = GatewayMessage::StartWorkload { generation, workload };
            let checked = check_version(&message, self.version);
            let GatewayMessage::StartWorkload { workload, .. } = message else { continue };
            match checked {
                Ok(()) => understood.push(workload),
                Err(lacking) => {
                    let key = (workload.workload_id, workload.attempt);
                    let now = self.port.control.now();
                    records.push(not_started(key, StatusCause::Unsupported, lacking.to_string(), now));
                }
            }
        }
        if !records.is_empty() {
            tracing::warn!(node_id = %self.link.node_id, version = self.version, n = records.len(), "the node's agent is too old for what it was given");
        }
        self.failed(records).await?;
        Ok(understood)
    }

    fn wanted(
        &self,
        cluster: &Cluster,
        workload_id: WorkloadId,
        attempt: Attempt,
    ) -> Option<(DesiredWorkload, Option<String>)> {
        let entry = cluster.workloads.get(workload_id)?;
        let live = entry.live_on(self.link.node_id)?;
        let current = live.attempt == attempt && entry.desired == claw_gateway::workload::Desired::Run;
        if !current {
            return None;
        }
        Some((query::desired(cluster, entry, self.link.node_id)?, entry.env_handle.clone()))
    }

    /// Puts in what the state holds only by handle; what cannot be filled in ends here.
    async fn filled(
        &self,
        workload: DesiredWorkload,
        env_handle: Option<String>,
    ) -> Result<Option<DesiredWorkload>, Gone> {
        let (key, port) = ((workload.workload_id, workload.attempt), &self.port);
        match fill::filled(port, workload, env_handle).await {
            Ok(workload) => Ok(Some(workload)),
            Err(FillError::Missing(detail)) => {
                tracing::error!(workload_id = %key.0, detail, "the workload is not started");
                self.failed(vec![not_started(key, StatusCause::StartFailed, detail, port.control.now())]).await?;
                Ok(None)
            }
            Err(FillError::Submit(SubmitError::Refused(_))) => Err(Gone),
            Err(FillError::Submit(SubmitError::Fault(fault))) => {
                self.link
                    .end(Ending::Refused(RefusalCode::Unavailable, format!("{} ({})", fault.message, fault.fault_id)));
                Err(Gone)
            }
        }
    }

    /// Tells the core of attempts that the node is not even told of.
    async fn failed(&self, records: Vec<StatusRecord>) -> Result<(), Gone> {
        if records.is_empty() {
            return Ok(());
        }
        let report = Command::NodeStatus { node_id: self.link.node_id, records };
        let caller = Caller::system(self.port.control.now());
        // Without a journal nothing goes on with this node either.
        self.port.control.submit(report, caller).await.map_err(|_| Gone).map(drop)
    }

    async fn send(&self, message: GatewayMessage) -> Result<(), Gone> {
        self.frames.send(Box::new(message)).await.map_err(|_| Gone)
    }
}

/// An attempt that ended before its node was told of it.
fn not_started(
    (workload_id, attempt): (WorkloadId, Attempt),
    cause: StatusCause,
    detail: String,
    at: Timestamp,
) -> StatusRecord {
    StatusRecord {
        // Not of the node's own records: those begin at 1.
        record: 0,
        workload_id,
        attempt,
        state: NodeWorkloadState::Failed,
        cause,
        detail,
        exit_code: None,
        signal: None,
        at,
        simulated: false,
        checkpoint: None,
    }
}
