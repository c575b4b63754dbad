//! The agent: the real [`Node`] with a disk, a link and a clock that are not real.

use claw_proto::message::{Envelope, GatewayMessage, NodeSettings};
use claw_proto::topology::GpuHealth;
use clawnode::node::{Action, DurableState, Input, Node, NodeIdentity};

use super::Machine;
use crate::agenda::{Ctx, Happening, Payload};
use crate::execution::{ExecutionLog, Truth};
use crate::net::Net;

/// First pause before another attempt to connect, milliseconds.
const BACK_OFF_MS: u64 = 200;
/// Longest.
const BACK_OFF_MS_MAX: u64 = 10_000;
/// A failed write is tried again after, milliseconds.
const DISK_RETRY_MS: u64 = 1_000;

/// One life of the agent.
#[derive(Debug)]
pub(crate) struct Agent {
    node: Node,
    pub(crate) conn: Option<u32>,
    wake_at: Option<u64>,
    back_off_ms: u64,
}

impl Machine {
    /// The machine boots; its agent starts with it.
    pub(crate) fn start_machine(&mut self, ctx: &mut Ctx, net: &mut Net) {
        if !self.is_up {
            self.is_up = true;
            self.boot += 1;
            self.clock.boot(ctx.now_ms);
            self.start_agent(ctx, net);
        }
    }

    /// The agent starts: reads its disk, looks at what runs, connects.
    pub(crate) fn start_agent(&mut self, ctx: &mut Ctx, net: &mut Net) {
        if !self.is_up || self.agent.is_some() {
            return;
        }
        self.run += 1;
        ctx.note(|| format!("m{} agent starts", self.ix));
        let identity = NodeIdentity { node_id: self.node_id, name: self.name.clone() };
        let node = Node::new(identity, self.capabilities.clone(), NodeSettings::default());
        self.agent = Some(Agent { node, conn: None, wake_at: None, back_off_ms: BACK_OFF_MS });
        self.unwritten.clear();
        self.writing = false;
        let durable = self.disk.clone();
        let known: Vec<_> = durable.attempts.values().map(|entry| std::sync::Arc::clone(&entry.workload)).collect();
        let found = self.found(&known);
        let now = self.clock.now(ctx.now_ms);
        self.feed(ctx, net, Input::Booted { now, durable: Box::new(durable), found });
        ctx.after(10, Happening::Connect { machine: self.ix, run: self.run });
    }

    /// `kill -9` of the agent: some of its last writes may have reached the disk.
    pub(crate) fn crash_agent(&mut self, ctx: &mut Ctx, net: &mut Net, log: &mut ExecutionLog) {
        let Some(agent) = self.agent.take() else {
            return;
        };
        ctx.counts.agent_crashes += 1;
        ctx.note(|| format!("m{} agent dies", self.ix));
        self.lose_writes(ctx);
        if let Some(conn) = agent.conn {
            net.close_node(ctx, conn);
        }
        self.agent_gone(ctx, log);
    }

    fn lose_writes(&mut self, ctx: &mut Ctx) {
        let n_written = if self.writing { ctx.rng.index(self.unwritten.len() + 1) } else { 0 };
        for (_, change) in self.unwritten.drain(..).take(n_written) {
            self.disk.apply(&change);
        }
        self.writing = false;
    }

    /// The machine dies with everything on it. Nobody closes its sockets.
    pub(crate) fn crash_machine(&mut self, ctx: &mut Ctx, net: &mut Net, log: &mut ExecutionLog) {
        if !self.is_up {
            return;
        }
        ctx.counts.machine_crashes += 1;
        ctx.note(|| format!("m{} MACHINE dies", self.ix));
        self.is_up = false;
        self.end_all(ctx, log, Truth::MachineDied);
        if let Some(agent) = self.agent.take() {
            self.lose_writes(ctx);
            if let Some(conn) = agent.conn {
                net.conn_mut(conn).node_open = false;
                net.cut(ctx, conn, 60_000);
            }
        }
        self.agent_gone(ctx, log);
    }

    /// The record store is made anew; with `folders`, so is the disk of the attempts.
    pub(crate) fn lose_store(&mut self, ctx: &mut Ctx, folders: bool) {
        ctx.note(|| format!("m{} loses its record store (folders too: {folders})", self.ix));
        self.disk = DurableState::new(ctx.rng.wide());
        if folders {
            self.folders.clear();
        }
    }

    /// One input of the node, and everything that follows from it.
    fn feed(&mut self, ctx: &mut Ctx, net: &mut Net, input: Input) {
        let Some(agent) = self.agent.as_mut() else {
            return;
        };
        let actions = agent.node.step(input);
        for action in actions {
            self.perform(ctx, net, action);
        }
        self.start_write(ctx);
        self.wake_later(ctx);
    }

    fn perform(&mut self, ctx: &mut Ctx, net: &mut Net, action: Action) {
        match action {
            Action::Persist { write, change } => self.unwritten.push_back((write, change)),
            Action::Send(envelope) => {
                if let Some(conn) = self.agent.as_ref().and_then(|agent| agent.conn) {
                    net.send_up(ctx, conn, envelope);
                }
            }
            Action::Start { workload, lease } => {
                let key = (workload.workload_id, workload.attempt);
                let on_disk = self.disk.entry(key.0, key.1).is_some();
                if !on_disk {
                    ctx.fail("N4_started_after_it_was_on_disk", format!("m{} {key:?}", self.ix));
                }
                self.runtime_start(ctx, workload, lease);
            }
            Action::Stop { workload_id, attempt, grace_ms, cause } => {
                self.runtime_stop(ctx, (workload_id, attempt), grace_ms, cause);
            }
            Action::NoticeCheckpoint { workload_id, attempt, grace_s } => {
                self.runtime_notice(ctx, (workload_id, attempt), grace_s);
            }
            Action::RenewLease { workload_id, attempt, lease } => {
                self.runtime_renew(ctx, (workload_id, attempt), lease);
            }
            Action::Forget { workload_id, attempt } => self.runtime_forget(ctx, (workload_id, attempt)),
            Action::LogsAcked { resume, .. } => {
                if resume && let Some(agent) = self.agent.as_mut() {
                    agent.back_off_ms = BACK_OFF_MS;
                }
            }
            Action::ApplySettings(_) | Action::Shell(_) => {}
            Action::CloseConnection { why, detail } => {
                ctx.note(|| format!("m{} closes its connection: {why:?} {detail}", self.ix));
                self.close(ctx, net);
            }
        }
    }

    /// The agent closes its connection; the node hears of it right after.
    fn close(&mut self, ctx: &mut Ctx, net: &mut Net) {
        if let Some(conn) = self.agent.as_mut().and_then(|agent| agent.conn.take()) {
            net.close_node(ctx, conn);
            ctx.after(0, Happening::NodeNotices { conn });
        }
    }

    /// A connection is gone on this side.
    pub(crate) fn disconnected(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32) {
        net.conn_mut(conn).node_open = false;
        let Some(agent) = self.agent.as_mut() else {
            return;
        };
        // Either it is the present one, or the agent has just closed it itself.
        if agent.conn.is_some_and(|present| present != conn) {
            return;
        }
        agent.conn = None;
        let now = self.clock.now(ctx.now_ms);
        self.feed(ctx, net, Input::Disconnected { now });
        self.connect_later(ctx);
    }

    fn connect_later(&mut self, ctx: &mut Ctx) {
        if let Some(agent) = self.agent.as_mut() {
            let pause_ms = agent.back_off_ms / 2 + ctx.rng.below(agent.back_off_ms);
            agent.back_off_ms = (agent.back_off_ms * 2).min(BACK_OFF_MS_MAX);
            ctx.after(pause_ms, Happening::Connect { machine: self.ix, run: self.run });
        }
    }

    /// Tries to connect.
    pub(crate) fn connect(&mut self, ctx: &mut Ctx, net: &mut Net, run: u32, gateway_up: bool) {
        let Some(agent) = self.agent.as_mut().filter(|agent| agent.conn.is_none()) else {
            return;
        };
        if run != self.run {
            return;
        }
        if !gateway_up || net.ways[self.ix].is_blocked() {
            return self.connect_later(ctx);
        }
        let conn = net.connect(self.ix);
        agent.conn = Some(conn);
        ctx.note(|| format!("m{} connects as c{conn}", self.ix));
        let now = self.clock.now(ctx.now_ms);
        self.feed(ctx, net, Input::Connected { now });
    }

    /// Something has arrived from the gateway.
    pub(crate) fn arrive(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32, payload: Payload<GatewayMessage>) {
        if self.agent.as_ref().and_then(|agent| agent.conn) != Some(conn) {
            return;
        }
        match payload {
            Payload::Close => self.disconnected(ctx, net, conn),
            Payload::Frame(envelope) => {
                self.note_frame(ctx, &envelope);
                let now = self.clock.now(ctx.now_ms);
                self.feed(ctx, net, Input::Gateway { now, envelope });
            }
        }
    }

    fn note_frame(&self, ctx: &mut Ctx, envelope: &Envelope<GatewayMessage>) {
        let ix = self.ix;
        match &envelope.body {
            GatewayMessage::Heartbeat { .. } | GatewayMessage::Ack => {}
            GatewayMessage::StartWorkload { generation, workload } => ctx.note(|| {
                let id = crate::execution::short(workload.workload_id);
                format!("m{ix} is told to start {id} attempt {} ({generation})", workload.attempt.0)
            }),
            GatewayMessage::StopWorkload { generation, order } => ctx.note(|| {
                let id = crate::execution::short(order.workload_id);
                format!("m{ix} is told to stop {id} attempt {} ({generation})", order.attempt.0)
            }),
            GatewayMessage::DesiredSet { generation, workloads, stop } => {
                ctx.note(|| {
                    format!("m{ix} gets the set {generation}: {} wanted, {} to stop", workloads.len(), stop.len())
                });
            }
            GatewayMessage::Registered { .. }
            | GatewayMessage::UpdateConfig { .. }
            | GatewayMessage::LogsAck { .. }
            | GatewayMessage::MeshPeers { .. }
            | GatewayMessage::CertificateRenewed { .. }
            | GatewayMessage::CertificateRefused { .. }
            | GatewayMessage::TrustBundle { .. }
            | GatewayMessage::Exec { .. }
            | GatewayMessage::ReadOutput { .. }
            | GatewayMessage::CancelTask { .. }
            | GatewayMessage::CheckpointNotice { .. }
            | GatewayMessage::Refused { .. } => {}
        }
    }

    /// News from a supervisor.
    pub(crate) fn told(&mut self, ctx: &mut Ctx, net: &mut Net, run: u32, event: clawnode::node::RuntimeEvent) {
        if run == self.run {
            let now = self.clock.now(ctx.now_ms);
            self.feed(ctx, net, Input::Runtime { now, event });
        }
    }

    /// A GPU's health changes, or is well again.
    pub(crate) fn gpu_health(&mut self, ctx: &mut Ctx, net: &mut Net, index: usize, health: GpuHealth) {
        let Some(gpu) = self.capabilities.gpus.get_mut(index) else {
            return;
        };
        gpu.health = health;
        gpu.health_reason = (health != GpuHealth::Healthy).then(|| "scripted".to_owned());
        let now = self.clock.now(ctx.now_ms);
        let capabilities = Box::new(self.capabilities.clone());
        self.feed(ctx, net, Input::Capabilities { now, capabilities });
    }

    /// Gives what is unwritten to the disk.
    fn start_write(&mut self, ctx: &mut Ctx) {
        if !self.writing && !self.unwritten.is_empty() {
            self.writing = true;
            let delay_ms = if ctx.rng.chance(20) { ctx.rng.between(100, 900) } else { ctx.rng.between(1, 8) };
            ctx.after(delay_ms, Happening::Written { machine: self.ix, run: self.run });
        }
    }

    /// The disk is done, or full.
    pub(crate) fn written(&mut self, ctx: &mut Ctx, net: &mut Net, run: u32) {
        if run != self.run || self.agent.is_none() || !self.writing {
            return;
        }
        let now = self.clock.now(ctx.now_ms);
        if self.disk_full {
            ctx.after(DISK_RETRY_MS, Happening::DiskRetry { machine: self.ix, run });
            return self.feed(ctx, net, Input::StorageFailed { now, detail: "no space left".to_owned() });
        }
        // One flush covers some of what waits; the rest goes with the next.
        let n = 1 + ctx.rng.index(self.unwritten.len());
        let mut through = 0;
        for (write, change) in self.unwritten.drain(..n) {
            self.disk.apply(&change);
            through = write;
        }
        self.writing = false;
        self.feed(ctx, net, Input::Persisted { now, through });
    }

    pub(crate) fn disk_retry(&mut self, ctx: &mut Ctx, run: u32) {
        if run == self.run && self.agent.is_some() {
            self.writing = false;
            self.start_write(ctx);
        }
    }

    fn wake_later(&mut self, ctx: &mut Ctx) {
        let Some(agent) = self.agent.as_mut() else {
            return;
        };
        let Some(wake_ms) = agent.node.next_wake_ms() else {
            return;
        };
        let at_ms = self.clock.true_ms(wake_ms).max(ctx.now_ms + 1);
        if agent.wake_at.is_none_or(|known| at_ms < known || known <= ctx.now_ms) {
            agent.wake_at = Some(at_ms);
            ctx.at(at_ms, Happening::Wake { machine: self.ix, run: self.run });
        }
    }

    /// A deadline of the node may be due.
    pub(crate) fn wake(&mut self, ctx: &mut Ctx, net: &mut Net, run: u32) {
        if run != self.run {
            return;
        }
        let now = self.clock.now(ctx.now_ms);
        let Some(agent) = self.agent.as_mut().filter(|agent| agent.wake_at == Some(ctx.now_ms)) else {
            return;
        };
        agent.wake_at = None;
        if agent.node.next_wake_ms().is_some_and(|at_ms| at_ms <= now.mono_ms) {
            self.feed(ctx, net, Input::Tick { now });
        } else {
            self.wake_later(ctx);
        }
    }

    /// The node answers to the gateway of this connection.
    pub(crate) fn is_registered(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.node.is_registered())
    }
}
