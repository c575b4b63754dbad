//! One connection to the gateway: registration, frame order, heartbeats.

use std::collections::BTreeMap;

use claw_proto::codec::for_version;
use claw_proto::ids::{Generation, NodeId};
use claw_proto::limits::{HEARTBEAT_TIMEOUT_MS, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, WORKLOADS_PER_NODE_MAX};
use claw_proto::message::{Envelope, GatewayMessage, LogKey, NodeErrorCode, NodeMessage, NodeSettings, RunningReport};

use super::io::{Action, CloseReason};
use super::lease::Answers;
use super::{DurableChange, Node};

/// Least interval that settings may ask for, milliseconds.
const INTERVAL_MS_MIN: u64 = 100;
/// A gateway that missed so many heartbeats in a row is not there.
const HEARTBEATS_MISSED_MAX: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    /// `Register` is sent.
    Registering,
    Registered,
    /// The shell was told to close; nothing more is heard or said.
    Closing,
}

/// The parts of `Registered`.
struct Answer {
    node_id: NodeId,
    settings: NodeSettings,
    version: u32,
    log_acks: BTreeMap<LogKey, u64>,
    ack: u64,
}

/// State of the present connection.
#[derive(Debug, Clone)]
pub(super) struct Session {
    phase: Phase,
    /// Frames sent.
    sent_frames: u64,
    /// Highest frame received.
    seen_frame: u64,
    /// Protocol version in use.
    version: u32,
    /// Highest record sent on this connection.
    pub(super) sent_record: u64,
    /// When the oldest unacknowledged records are sent again.
    pub(super) resend_at_ms: Option<u64>,
    answers: Answers,
    /// When `Register` was sent: the gateway heard us no earlier.
    pub(super) register_sent_ms: u64,
    last_heard_ms: u64,
    /// What the node has changed after `Register` was sent.
    pub(super) is_changed: bool,
}

impl Session {
    pub(super) fn down() -> Self {
        Self {
            phase: Phase::Down,
            sent_frames: 0,
            seen_frame: 0,
            version: PROTOCOL_VERSION,
            sent_record: 0,
            resend_at_ms: None,
            answers: Answers::default(),
            register_sent_ms: 0,
            last_heard_ms: 0,
            is_changed: false,
        }
    }

    pub(super) fn is_registered(&self) -> bool {
        self.phase == Phase::Registered
    }
}

impl Node {
    pub(super) fn connected(&mut self) {
        let now_ms = self.now.mono_ms;
        self.session = Session {
            phase: Phase::Registering,
            register_sent_ms: now_ms,
            last_heard_ms: now_ms,
            sent_record: self.durable.acked,
            ..Session::down()
        };
        let register = NodeMessage::Register {
            name: self.identity.name.clone(),
            capabilities: self.capabilities.clone(),
            running: self.running_reports(),
            store_id: self.durable.store_id,
            versions: (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION),
            clock: self.now.wall,
        };
        self.send(register);
    }

    /// Live attempts, and ended ones whose final record is still on its way
    /// (with that final state and no GPUs), so that the gateway does not take
    /// them for missing before the record arrives.
    fn running_reports(&self) -> Vec<RunningReport> {
        let live = self.durable.attempts.iter().map(|(id, entry)| RunningReport {
            workload_id: *id,
            attempt: entry.attempt(),
            state: entry.shown_state(),
            gpus: entry.workload.gpus.clone(),
        });
        let over = self.durable.outbox.iter().filter(|record| record.state.is_final()).map(|record| RunningReport {
            workload_id: record.workload_id,
            attempt: record.attempt,
            state: record.state,
            gpus: Vec::new(),
        });
        live.chain(over).take(WORKLOADS_PER_NODE_MAX).collect()
    }

    /// Sends one message on the present connection.
    pub(super) fn send(&mut self, body: NodeMessage) {
        if matches!(self.session.phase, Phase::Down | Phase::Closing) {
            return;
        }
        let Some(body) = for_version(body, self.session.version) else { return };
        self.session.sent_frames += 1;
        let envelope = Envelope {
            version: self.session.version,
            epoch: self.durable.epoch,
            sequence: self.session.sent_frames,
            ack: self.session.seen_frame,
            generation: self.durable.generation,
            body,
        };
        self.out.push(Action::Send(Box::new(envelope)));
    }

    pub(super) fn error(&mut self, code: NodeErrorCode, message: impl Into<String>) {
        self.send(NodeMessage::Error { code, message: message.into() });
    }

    pub(super) fn close(&mut self, why: CloseReason, detail: impl Into<String>) {
        if matches!(self.session.phase, Phase::Down | Phase::Closing) {
            return;
        }
        self.session.phase = Phase::Closing;
        self.out.push(Action::CloseConnection { why, detail: detail.into() });
    }

    /// A frame that could not be read: an unknown kind is answered, since a
    /// newer gateway may know more; a malformed one ends the connection.
    pub(super) fn unreadable(&mut self, unknown_kind: bool, detail: String) {
        if unknown_kind {
            self.session.last_heard_ms = self.now.mono_ms;
            self.session.seen_frame += 1;
            self.error(NodeErrorCode::Unsupported, detail);
        } else {
            self.error(NodeErrorCode::Internal, detail.clone());
            self.close(CloseReason::Protocol, detail);
        }
    }

    /// The frame's place in the order: `true` if it is to be read. TLS keeps
    /// order, so a gap means a broken peer; the next connection starts clean.
    fn frame_in_order(&mut self, sequence: u64) -> bool {
        if sequence == 0 {
            return true;
        }
        if sequence <= self.session.seen_frame {
            return false;
        }
        if sequence != self.session.seen_frame + 1 {
            let detail = format!("frame {sequence} came after frame {}", self.session.seen_frame);
            self.close(CloseReason::Protocol, detail);
            return false;
        }
        self.session.seen_frame = sequence;
        true
    }

    pub(super) fn gateway(&mut self, envelope: Envelope<GatewayMessage>) {
        let open = !matches!(self.session.phase, Phase::Down | Phase::Closing);
        if !open || !self.frame_in_order(envelope.sequence) {
            return;
        }
        self.session.last_heard_ms = self.now.mono_ms;
        let Envelope { epoch, ack, body, .. } = envelope;
        if let GatewayMessage::Refused { code, message, versions } = body {
            let (oldest, newest) = versions;
            let detail = format!("{message} (gateway speaks versions {oldest} to {newest})");
            self.close(CloseReason::Refused(code), detail);
            return;
        }
        if epoch < self.durable.epoch {
            let seen = self.durable.epoch;
            let detail = format!("epoch {epoch} is older than {seen}, which this node saw");
            self.error(NodeErrorCode::StaleGeneration, detail.clone());
            self.close(CloseReason::StaleEpoch, detail);
            return;
        }
        let is_answer = matches!(body, GatewayMessage::Registered { .. });
        if self.session.phase == Phase::Registering && !is_answer {
            let detail = "a message came before the answer to the registration";
            self.close(CloseReason::Protocol, detail);
            return;
        }
        self.see(epoch, self.durable.generation);
        if self.session.phase == Phase::Registered {
            self.records_acked(ack);
        }
        self.message(body, ack);
    }

    /// The answer to `Register`; a second one on the same connection says nothing new.
    fn registered(&mut self, answer: Answer) {
        if self.session.phase != Phase::Registering {
            return;
        }
        let Answer { node_id, settings, version, log_acks, ack } = answer;
        if node_id != self.identity.node_id {
            let detail = format!("the gateway takes this node for {node_id}");
            self.close(CloseReason::Protocol, detail);
        } else if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&version) {
            let detail = format!("the gateway chose version {version}, unknown to this node");
            self.close(CloseReason::Protocol, detail);
        } else {
            self.session.phase = Phase::Registered;
            self.session.version = version;
            self.records_acked(ack);
            self.apply_settings(settings);
            self.out.push(Action::LogsAcked { acks: log_acks, resume: true });
            self.tell_checkpoints();
            if std::mem::take(&mut self.session.is_changed) {
                let capabilities = self.capabilities.clone();
                self.send(NodeMessage::CapabilitiesChanged { capabilities });
            }
            if self.writes.failed {
                self.refuse_for_storage("writes are waiting for the disk");
            }
        }
    }

    fn message(&mut self, body: GatewayMessage, ack: u64) {
        match body {
            GatewayMessage::Registered { node_id, settings, version, log_acks } => {
                self.registered(Answer { node_id, settings, version, log_acks, ack });
            }
            GatewayMessage::DesiredSet { generation, workloads, stop } => self.desired_set(generation, workloads, stop),
            GatewayMessage::StartWorkload { generation, workload } => self.start_workload(generation, workload),
            GatewayMessage::StopWorkload { generation, order } => {
                self.stop_workload(generation, order);
            }
            GatewayMessage::UpdateConfig { settings } => self.apply_settings(settings),
            GatewayMessage::Heartbeat { nonce, confirmed } => self.heartbeat(nonce, confirmed),
            GatewayMessage::LogsAck { acks } => self.out.push(Action::LogsAcked { acks, resume: false }),
            GatewayMessage::MeshPeers { peers } => {
                let message =
                    format!("mesh networks are not built on this node; {} peers were not applied", peers.len());
                self.error(NodeErrorCode::Unsupported, message);
            }
            // What it is about is outside of the desired state: the shell's.
            message @ (GatewayMessage::CertificateRenewed { .. }
            | GatewayMessage::CertificateRefused { .. }
            | GatewayMessage::TrustBundle { .. }
            | GatewayMessage::Exec { .. }
            | GatewayMessage::ReadOutput { .. }
            | GatewayMessage::CancelTask { .. }) => self.out.push(Action::Shell(Box::new(message))),
            GatewayMessage::CheckpointNotice { workload_id, attempt, grace_s } => {
                // One that is over has nothing more to write, and its end is told.
                if self.durable.entry(workload_id, attempt).is_some() {
                    self.out.push(Action::NoticeCheckpoint { workload_id, attempt, grace_s });
                }
            }
            GatewayMessage::Ack => {}
            // Handled by the caller: it may come at any time.
            GatewayMessage::Refused { .. } => {}
        }
    }

    fn apply_settings(&mut self, settings: NodeSettings) {
        if settings.metrics_interval_ms < INTERVAL_MS_MIN || settings.heartbeat_interval_ms < INTERVAL_MS_MIN {
            let message = format!("intervals under {INTERVAL_MS_MIN} ms are not supported: {settings:?}");
            self.error(NodeErrorCode::Unsupported, message);
            return;
        }
        if settings != self.settings {
            self.settings = settings;
            self.out.push(Action::ApplySettings(self.settings.clone()));
        }
    }

    fn heartbeat(&mut self, nonce: u64, confirmed: u64) {
        if let Some(base_ms) = self.session.answers.confirmed(confirmed) {
            self.renew_leases(base_ms);
        }
        self.session.answers.sent(nonce, self.now.mono_ms);
        self.send(NodeMessage::HeartbeatAck { nonce });
    }

    /// Notes a higher epoch or generation; never goes back.
    pub(super) fn see(&mut self, epoch: u64, generation: Generation) {
        let epoch = epoch.max(generation.epoch);
        if epoch > self.durable.epoch || generation > self.durable.generation {
            self.commit(DurableChange::Seen { epoch, generation });
        }
    }

    fn silence_limit_ms(&self) -> u64 {
        HEARTBEAT_TIMEOUT_MS.max(self.settings.heartbeat_interval_ms.saturating_mul(HEARTBEATS_MISSED_MAX))
    }

    pub(super) fn session_wake_ms(&self) -> Option<u64> {
        match self.session.phase {
            Phase::Down | Phase::Closing => None,
            Phase::Registering | Phase::Registered => {
                let silent_ms = self.session.last_heard_ms.saturating_add(self.silence_limit_ms());
                Some(self.session.resend_at_ms.map_or(silent_ms, |resend_ms| resend_ms.min(silent_ms)))
            }
        }
    }

    /// Ends a silent connection; sends again what was not acknowledged.
    pub(super) fn watch_session(&mut self) {
        if matches!(self.session.phase, Phase::Down | Phase::Closing) {
            return;
        }
        let silent_ms = self.now.mono_ms.saturating_sub(self.session.last_heard_ms);
        if silent_ms >= self.silence_limit_ms() {
            self.close(CloseReason::Silent, format!("nothing was heard from the gateway for {silent_ms} ms"));
        } else if self.session.is_registered()
            && self.session.resend_at_ms.is_some_and(|at_ms| at_ms <= self.now.mono_ms)
        {
            self.resend_statuses();
        }
    }
}
