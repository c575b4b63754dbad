//! The shell: performs what the state machine asks for.
//!
//! One task owns the machine. Everything slow (flushing records, reading logs,
//! measuring) runs as a job that takes its object along and brings it back, so
//! nothing is shared and nothing waits. Whatever happens becomes an input.

mod alive;
mod boot;
mod certificates;
mod checkpoints;
mod ends;
mod facts;
mod health;
mod jobs;
mod kernel;
mod tasks;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use claw_proto::codec::{CodecError, encode_node};
use claw_proto::ids::NodeId;
use claw_proto::message::{NodeSettings, TaskId};
use claw_proto::spec::RuntimeKind;
use claw_proto::topology::NodeCapabilities;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock;
use crate::link::{Connection, Link, LinkError, LinkEvent, Received};
use crate::logs::LogPump;
use crate::node::{Action, CloseReason, DurableChange, Input, Node, RuntimeEvent};
use crate::runtime::folder::Folder;
use crate::runtime::{Key, Runtime};
use crate::store::Store;
use certificates::Renewal;
use ends::HeldEnd;
use jobs::{Job, Probe, PumpCommand};

pub use boot::{AgentError, AgentOptions, status_text};

/// How often logs are looked for, milliseconds.
const LOGS_INTERVAL_MS: u64 = 100;
/// How often the GPUs' health is looked at, milliseconds.
const HEALTH_INTERVAL_MS: u64 = 1_000;
/// Without a deadline the machine is woken this often, milliseconds.
const TICK_INTERVAL_MS: u64 = 1_000;
/// A failed write is tried again after, milliseconds.
const STORE_RETRY_MS: u64 = 1_000;
/// Records that are still on their way to the disk at the end get so long, milliseconds.
const LAST_WRITES_MS: u64 = 2_000;
/// Events of runtimes that may wait.
const RUNTIME_EVENTS_MAX: usize = 1_024;

/// What a running agent tells its starter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentEvent {
    /// The gateway took the node in (again).
    Registered {
        /// The node's id.
        node_id: NodeId,
    },
}

/// A node's agent.
pub struct Agent {
    node: Node,
    node_id: NodeId,
    runtimes: BTreeMap<RuntimeKind, Box<dyn Runtime>>,
    runtime_events: mpsc::Receiver<RuntimeEvent>,
    workloads: std::path::PathBuf,
    alive: std::path::PathBuf,
    link: Link,
    renewal: Renewal,
    connection: Option<Connection>,
    /// Rises with each registration: what was read for an older one is not sent.
    session: u64,
    jobs: JoinSet<Job>,
    store: Option<Store>,
    store_retry_at: Option<Instant>,
    unwritten: VecDeque<(u64, DurableChange)>,
    pump: Option<LogPump>,
    pump_commands: Vec<PumpCommand>,
    probe: Option<Probe>,
    capabilities: NodeCapabilities,
    findings: health::Findings,
    share_caps: facts::ShareCaps,
    /// Runtimes that the config allows.
    allowed: Vec<RuntimeKind>,
    /// Tasks under way, with the runtime that does them.
    tasks: BTreeMap<TaskId, RuntimeKind>,
    checkpoints: checkpoints::Checkpoints,
    /// Ends that wait for their last lines.
    held_ends: Vec<HeldEnd>,
    gpu_events: health::EventQueue,
    kernel: kernel::Kernel,
    metrics_at: Instant,
    /// Held for life: one agent per data folder.
    lock: std::fs::File,
    news: mpsc::Sender<AgentEvent>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("node_id", &self.node_id).field("lock", &self.lock).finish_non_exhaustive()
    }
}

impl Agent {
    /// Runs until `stop`. Host processes and containers go on running afterwards.
    pub async fn run(mut self, stop: CancellationToken) {
        let (events, mut link_events) = Link::channel();
        let link_stop = stop.child_token();
        let mut link = JoinSet::new();
        link.spawn(self.link.clone().run(events, link_stop.clone()));
        let mut logs = tokio::time::interval(Duration::from_millis(LOGS_INTERVAL_MS));
        logs.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut health = tokio::time::interval(Duration::from_millis(HEALTH_INTERVAL_MS));
        health.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.start_write();
            let wake = tokio::time::sleep(self.until_wake());
            let ends_due_at = self.ends_due_at();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(event) = link_events.recv() => self.link_event(event),
                Some(event) = self.runtime_events.recv() => self.runtime_event(event),
                Some(job) = self.jobs.join_next(), if !self.jobs.is_empty() => self.job_done(job),
                _ = logs.tick() => {
                    self.start_pump();
                    self.look_for_checkpoints();
                }
                _ = health.tick() => {
                    alive::note(&self.alive);
                    self.renew_if_due();
                    self.start_health();
                    self.start_kernel();
                }
                () = tokio::time::sleep_until(self.metrics_at), if self.node.is_registered() && self.probe.is_some() => {
                    self.start_metrics();
                }
                () = tokio::time::sleep_until(ends_due_at.unwrap_or_else(Instant::now)), if ends_due_at.is_some() => {
                    self.release_late_ends();
                }
                () = wake => self.feed(Input::Tick { now: clock::now() }),
            }
        }
        self.wind_up(link_stop, link).await;
    }

    /// Ends politely: the link is closed, records reach the disk, and whoever
    /// reads the log knows what goes on running.
    async fn wind_up(mut self, link_stop: CancellationToken, mut link: JoinSet<()>) {
        link_stop.cancel();
        while link.join_next().await.is_some() {}
        self.release_all_ends();
        let last_writes = async {
            while !self.unwritten.is_empty() || self.store.is_none() {
                self.start_write();
                match self.jobs.join_next().await {
                    Some(job) => self.job_done(job),
                    None => break,
                }
            }
        };
        if tokio::time::timeout(Duration::from_millis(LAST_WRITES_MS), last_writes).await.is_err() {
            warn!(n = self.unwritten.len(), "records could not be written before the end");
        }
        let kinds: Vec<RuntimeKind> =
            self.node.durable().attempts.values().map(|entry| entry.workload.runtime).collect();
        let count = |wanted| kinds.iter().filter(|kind| **kind == wanted).count();
        info!(
            processes_left_running = count(RuntimeKind::Process),
            containers_left_running = count(RuntimeKind::Docker),
            simulated_ended = count(RuntimeKind::Sim),
            "the agent ends; processes and containers run on under their supervisors"
        );
        self.jobs.shutdown().await;
    }

    fn until_wake(&self) -> Duration {
        let now_ms = clock::boot_ms();
        let deadline_ms = self.node.next_wake_ms().map_or(TICK_INTERVAL_MS, |at_ms| at_ms.saturating_sub(now_ms));
        Duration::from_millis(deadline_ms.min(TICK_INTERVAL_MS))
    }

    /// One input, and everything that follows from it.
    fn feed(&mut self, input: Input) {
        for action in self.node.step(input) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Persist { write, change } => self.unwritten.push_back((write, change)),
            Action::Send(envelope) => self.send(encode_node(&envelope)),
            Action::Start { workload, lease } => {
                let key = (workload.workload_id, workload.attempt);
                info!(workload_id = %key.0, attempt = key.1.0, runtime = %workload.runtime, "start");
                let folder = Folder::of(&self.workloads, key).logs();
                self.pump_commands.push(PumpCommand::Watch { key, folder });
                if let Some(runtime) = self.runtimes.get_mut(&workload.runtime) {
                    runtime.start(workload, lease);
                }
            }
            Action::Stop { workload_id, attempt, grace_ms, cause } => {
                info!(%workload_id, attempt = attempt.0, grace_ms, %cause, "stop");
                self.each_runtime(|runtime| runtime.stop((workload_id, attempt), grace_ms, cause));
            }
            Action::NoticeCheckpoint { workload_id, attempt, grace_s } => {
                self.notice_checkpoint((workload_id, attempt), grace_s);
            }
            Action::RenewLease { workload_id, attempt, lease } => {
                self.each_runtime(|runtime| runtime.renew_lease((workload_id, attempt), lease));
            }
            Action::Forget { workload_id, attempt } => {
                self.pump_commands.push(PumpCommand::Over { key: (workload_id, attempt) });
            }
            Action::LogsAcked { acks, resume: true } => self.registered(acks),
            Action::LogsAcked { acks, resume: false } => self.pump_commands.push(PumpCommand::Acked { acks }),
            Action::Shell(message) => self.shell_message(*message),
            Action::ApplySettings(settings) => self.apply_settings(&settings),
            Action::CloseConnection { why, detail } => self.close(why, &detail),
        }
    }

    /// An attempt belongs to one runtime; the others do not know it.
    fn each_runtime(&mut self, mut tell: impl FnMut(&mut dyn Runtime)) {
        for runtime in self.runtimes.values_mut() {
            tell(runtime.as_mut());
        }
    }

    fn send(&mut self, frame: Vec<u8>) {
        let sent = self.connection.as_ref().is_some_and(|connection| connection.send(frame));
        if !sent && let Some(connection) = self.connection.take() {
            warn!("the gateway reads too slowly; the connection is ended");
            connection.close();
        }
    }

    fn registered(&mut self, acks: BTreeMap<claw_proto::message::LogKey, u64>) {
        self.session += 1;
        self.renewal.reconnected();
        self.pump_commands.push(PumpCommand::Resume { acks });
        self.metrics_at = Instant::now();
        if let Some(connection) = &self.connection {
            connection.set_registered();
        }
        let node_id = self.node_id;
        info!(%node_id, "registered");
        self.send_gpu_events();
        self.kernel_anew();
        if self.news.try_send(AgentEvent::Registered { node_id }).is_err() {
            tracing::debug!("nobody listens to the agent's news");
        }
    }

    fn apply_settings(&mut self, settings: &NodeSettings) {
        info!(?settings, "settings");
        let bytes_max = settings.log_buffer_bytes;
        self.each_runtime(|runtime| runtime.set_log_bytes_max(bytes_max));
        self.pump_commands.push(PumpCommand::SetBytesMax { bytes_max });
        self.metrics_at = Instant::now();
    }

    fn close(&mut self, why: CloseReason, detail: &str) {
        match why {
            CloseReason::Refused(code) => error!(%code, detail, "the gateway refuses this node"),
            CloseReason::Silent | CloseReason::StaleEpoch | CloseReason::Protocol => {
                warn!(?why, detail, "the connection is ended");
            }
        }
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(connection) => {
                self.connection = Some(connection);
                self.feed(Input::Connected { now: clock::now() });
            }
            LinkEvent::Frame(received) => self.frame(*received),
            LinkEvent::Down(error) => {
                match error {
                    LinkError::ClosedHere => info!("disconnected"),
                    LinkError::Io(_)
                    | LinkError::WebSocket(_)
                    | LinkError::Timeout { .. }
                    | LinkError::Closed { .. } => {
                        warn!(%error, "disconnected; workloads run on");
                    }
                }
                self.connection = None;
                self.session += 1;
                self.pump_commands.push(PumpCommand::Pause);
                self.cancel_tasks();
                self.release_all_ends();
                self.feed(Input::Disconnected { now: clock::now() });
            }
        }
    }

    fn frame(&mut self, received: Received) {
        let now = clock::now();
        match received {
            Ok(envelope) => self.feed(Input::Gateway { now, envelope: Box::new(envelope) }),
            Err(error) => {
                let unknown_kind = matches!(error, CodecError::UnknownMessage { .. });
                warn!(%error, "a frame could not be read");
                self.feed(Input::Unreadable { now, unknown_kind, detail: error.to_string() });
            }
        }
    }

    /// Removes an attempt of which the gateway has every record and line.
    fn remove(&mut self, key: Key) {
        info!(workload_id = %key.0, attempt = key.1.0, "everything is delivered; its folder is removed");
        self.each_runtime(|runtime| runtime.remove(key));
        self.pump_commands.push(PumpCommand::Forget { key });
    }

    fn storage_failed(&mut self, error: &io::Error) {
        error!(%error, "the record store cannot be written; no new workload is accepted");
        self.store_retry_at = Some(Instant::now() + Duration::from_millis(STORE_RETRY_MS));
        self.feed(Input::StorageFailed { now: clock::now(), detail: error.to_string() });
    }

    /// Known workloads of one runtime, as of the last run.
    fn known(node: &crate::node::DurableState, kind: RuntimeKind) -> Vec<Arc<claw_proto::message::DesiredWorkload>> {
        let entries = node.attempts.values().map(|entry| &entry.workload);
        entries.filter(|workload| workload.runtime == kind).cloned().collect()
    }
}
