//! The gateway's side of the connections, and who was last heard when.

use std::collections::VecDeque;

use claw_gateway::{Caller, Command, Report};
use claw_proto::ids::{Generation, NodeId};
use claw_proto::limits::{HEARTBEAT_INTERVAL_MS, HEARTBEAT_TIMEOUT_MS, PROTOCOL_VERSION};
use claw_proto::message::{
    Envelope, GatewayMessage, NodeErrorCode, NodeMessage, NodeSettings, RefusalCode, StatusRecord, StopOrder,
};
use claw_proto::time::Timestamp;
use claw_proto::topology::NodeCapabilities;
use claw_tools::nodes::NodeLink;
use claw_tools::refusal::{ErrorCode, Refusal};

use super::commit::ReplyTo;
use super::orders::Order;
use super::{Process, SimGateway};
use crate::Sabotage;
use crate::agenda::{Ctx, Happening, Payload, wall_at};
use crate::net::Net;

/// Something that a node reports, on its way to the core.
#[derive(Debug)]
enum Item {
    Records(Vec<StatusRecord>),
    Capabilities(Box<NodeCapabilities>),
}

/// One connection, as the server's session, lanes, orders and writer have it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) node_id: NodeId,
    /// Its registration was taken in.
    known: bool,
    /// `Registered` was sent.
    pub(super) registered: bool,
    pub(super) orders: VecDeque<Order>,
    pub(super) orders_due: bool,
    pub(super) set_wanted: bool,
    pub(super) also_stop: Vec<StopOrder>,
    pub(super) set: Option<(Generation, u64)>,
    pub(super) again_due: bool,
    epoch: u64,
    sent: u64,
    seen: u64,
    generation: Generation,
    nonce_sent: u64,
    nonce_answered: u64,
    acked: u64,
    lane: VecDeque<Item>,
    lane_busy: bool,
    due: Option<u64>,
}

/// What is known of one node's link.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) conn: Option<u32>,
    last_heard_ms: Option<u64>,
}

impl Session {
    fn new(node_id: NodeId, epoch: u64) -> Self {
        Self {
            node_id,
            known: false,
            registered: false,
            orders: VecDeque::new(),
            orders_due: false,
            set_wanted: false,
            also_stop: Vec::new(),
            set: None,
            again_due: false,
            epoch,
            sent: 0,
            seen: 0,
            generation: Generation { epoch, n: 0 },
            nonce_sent: 0,
            nonce_answered: 0,
            acked: 0,
            lane: VecDeque::new(),
            lane_busy: false,
            due: None,
        }
    }

    /// The frame of a message, numbered unless the round is unordered.
    fn frame(&mut self, ordered: bool, body: GatewayMessage) -> Box<Envelope<GatewayMessage>> {
        if let GatewayMessage::DesiredSet { generation, .. }
        | GatewayMessage::StartWorkload { generation, .. }
        | GatewayMessage::StopWorkload { generation, .. } = &body
        {
            self.generation = self.generation.max(*generation);
        }
        self.sent += 1;
        let sequence = if ordered { self.sent } else { 0 };
        Box::new(Envelope {
            version: PROTOCOL_VERSION,
            epoch: self.epoch,
            sequence,
            ack: self.acked,
            generation: self.generation,
            body,
        })
    }
}

impl SimGateway {
    pub(super) fn session(&mut self, conn: u32) -> Option<&mut Session> {
        self.process.as_deref_mut().and_then(|process| process.sessions.get_mut(&conn))
    }

    pub(super) fn send(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32, body: GatewayMessage) {
        let ordered = !ctx.unordered;
        if let Some(session) = self.session(conn) {
            let frame = session.frame(ordered, body);
            net.send_down(ctx, conn, frame);
        }
    }

    /// Ends a connection, with a typed refusal or without a word.
    pub(super) fn end(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32, refusal: Option<(RefusalCode, String)>) {
        let Some(process) = self.process.as_deref_mut() else {
            return;
        };
        let Some(mut session) = process.sessions.remove(&conn) else {
            return;
        };
        if let Some(slot) = process.slots.get_mut(&session.node_id)
            && slot.conn == Some(conn)
        {
            slot.conn = None;
        }
        ctx.note(|| format!("gateway ends c{conn}: {refusal:?}"));
        if let Some((code, message)) = refusal {
            let refused = GatewayMessage::Refused { code, message, versions: (1, PROTOCOL_VERSION) };
            let frame = session.frame(!ctx.unordered, refused);
            net.send_down(ctx, conn, frame);
        }
        net.close_gateway(ctx, conn);
    }

    /// The gateway's side of a broken connection has noticed.
    pub(crate) fn notices(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32) {
        if net.conn(conn).gateway_open {
            self.end(ctx, net, conn, None);
            net.conn_mut(conn).gateway_open = false;
        }
    }

    /// Something has arrived from a node.
    pub(crate) fn arrive(
        &mut self,
        ctx: &mut Ctx,
        net: &mut Net,
        conn: u32,
        node_id: NodeId,
        payload: Payload<NodeMessage>,
    ) {
        if !self.is_up() {
            return;
        }
        match payload {
            Payload::Close => self.notices(ctx, net, conn),
            Payload::Frame(envelope) => match self.session(conn) {
                Some(_) => self.read(ctx, net, conn, *envelope),
                None => self.first(ctx, net, conn, node_id, *envelope),
            },
        }
    }

    /// The first frame of a connection: a registration.
    fn first(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32, node_id: NodeId, envelope: Envelope<NodeMessage>) {
        let Some(process) = self.process.as_deref_mut() else {
            return;
        };
        let epoch = process.durable.epoch;
        process.sessions.insert(conn, Session::new(node_id, epoch));
        let Envelope { epoch, generation, sequence, body, .. } = envelope;
        let NodeMessage::Register { capabilities, running, store_id, .. } = body else {
            return self.end(ctx, net, conn, Some(protocol("the first message is not a registration")));
        };
        if process.durable.nodes.get(node_id).is_none() {
            return self.end(ctx, net, conn, Some((RefusalCode::UnknownNode, "not in the fleet".to_owned())));
        }
        if let Some(session) = process.sessions.get_mut(&conn) {
            session.seen = sequence;
        }
        let slot = process.slots.entry(node_id).or_default();
        if let Some(older) = slot.conn.replace(conn) {
            let why = "a newer connection of this node took over".to_owned();
            self.end(ctx, net, older, Some((RefusalCode::Replaced, why)));
            // Ending the older must not forget the newer.
            if let Some(slot) = self.process.as_deref_mut().and_then(|p| p.slots.get_mut(&node_id)) {
                slot.conn = Some(conn);
            }
        }
        let command = Command::NodeRegister {
            node_id,
            capabilities: Box::new(capabilities),
            running,
            store_id,
            epoch_seen: epoch.max(generation.epoch),
        };
        let registration = Registration { conn, node_id, received_ms: ctx.now_ms, command };
        if let Some(process) = self.process.as_deref_mut().filter(|process| process.judging) {
            process.after_judgment.push(registration);
        } else {
            self.register(ctx, net, registration);
        }
    }

    /// Takes a registration to the core: never while a judgment on silence is on its way there.
    fn register(&mut self, ctx: &mut Ctx, net: &mut Net, registration: Registration) {
        let Registration { conn, node_id, received_ms, command } = registration;
        let Some(process) = self.process.as_deref_mut().filter(|process| process.sessions.contains_key(&conn)) else {
            return;
        };
        process.registering += 1;
        let slot = process.slots.entry(node_id).or_default();
        slot.last_heard_ms = slot.last_heard_ms.max(Some(received_ms));
        self.submit(ctx, net, command, Caller::node(node_id, ctx.wall()), ReplyTo::Registered { conn });
    }

    /// What was judged is with the core: those who came meanwhile may register.
    pub(super) fn judged(&mut self, ctx: &mut Ctx, net: &mut Net) {
        let Some(process) = self.process.as_deref_mut() else {
            return;
        };
        process.judging = false;
        for registration in std::mem::take(&mut process.after_judgment) {
            self.register(ctx, net, registration);
        }
    }

    pub(super) fn registered(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32, result: Result<Report, Refusal>) {
        if let Some(process) = self.process.as_deref_mut() {
            process.registering -= 1;
        }
        match result {
            Ok(Report::Registered { settings }) => {
                if let Some(session) = self.session(conn) {
                    session.known = true;
                }
                self.order(ctx, conn, Order::Registered { settings });
            }
            Ok(_) => ctx.fail("G1_reports_fit_their_commands", "a registration got another report"),
            Err(refusal) => {
                let code = match refusal.code {
                    ErrorCode::NotFound => RefusalCode::UnknownNode,
                    ErrorCode::InvalidState => RefusalCode::StaleGateway,
                    _ => RefusalCode::Unavailable,
                };
                self.end(ctx, net, conn, Some((code, refusal.message)));
            }
        }
    }

    /// `Registered` goes out, and heartbeats begin.
    pub(super) fn welcome(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32, settings: NodeSettings) {
        let Some(session) = self.session(conn) else {
            return;
        };
        session.registered = true;
        let node_id = session.node_id;
        let answer = GatewayMessage::Registered {
            node_id,
            settings,
            version: PROTOCOL_VERSION,
            log_acks: std::collections::BTreeMap::new(),
        };
        self.send(ctx, net, conn, answer);
        self.beat(ctx, net, conn);
    }

    pub(crate) fn beat(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32) {
        let Some(session) = self.session(conn) else {
            return;
        };
        session.nonce_sent += 1;
        let (nonce, confirmed) = (session.nonce_sent, session.nonce_answered);
        self.send(ctx, net, conn, GatewayMessage::Heartbeat { nonce, confirmed });
        ctx.after(HEARTBEAT_INTERVAL_MS, Happening::Beat { conn });
    }

    fn read(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32, envelope: Envelope<NodeMessage>) {
        let Some(session) = self.session(conn) else {
            return;
        };
        session.seen += 1;
        if envelope.sequence != session.seen {
            let why = format!("frame {} came where frame {} was due", envelope.sequence, session.seen);
            return self.end(ctx, net, conn, Some(protocol(&why)));
        }
        match envelope.body {
            NodeMessage::HeartbeatAck { nonce } => self.heartbeat_answered(ctx, net, conn, nonce),
            NodeMessage::WorkloadStatus { records } => {
                session.lane.push_back(Item::Records(records));
                self.work_lane(ctx, net, conn);
            }
            NodeMessage::CapabilitiesChanged { capabilities } => {
                session.lane.push_back(Item::Capabilities(Box::new(capabilities)));
                self.work_lane(ctx, net, conn);
            }
            NodeMessage::Error { code, message } => {
                ctx.note(|| format!("c{conn} node says {code}: {message}"));
                if code == NodeErrorCode::StaleGeneration {
                    self.order(ctx, conn, Order::Again);
                }
            }
            // Not simulated.
            NodeMessage::Logs { .. }
            | NodeMessage::Metrics { .. }
            | NodeMessage::GpuEvents { .. }
            | NodeMessage::KernelLog(_)
            | NodeMessage::RenewCertificate { .. }
            | NodeMessage::ExecDone { .. }
            | NodeMessage::OutputRead { .. }
            | NodeMessage::TaskFailed { .. } => {}
            NodeMessage::Register { .. } => self.end(ctx, net, conn, Some(protocol("a connection is registered once"))),
        }
    }

    fn heartbeat_answered(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32, nonce: u64) {
        let Some(session) = self.session(conn) else {
            return;
        };
        if nonce == 0 || nonce > session.nonce_sent {
            return self.end(ctx, net, conn, Some(protocol("an answer to a heartbeat that was not sent")));
        }
        let node_id = session.node_id;
        if nonce > session.nonce_answered {
            // First it counts here, then the node may learn that it does.
            session.nonce_answered = nonce;
            if let Some(slot) = self.process.as_deref_mut().and_then(|p| p.slots.get_mut(&node_id)) {
                slot.last_heard_ms = slot.last_heard_ms.max(Some(ctx.now_ms));
            }
        }
    }

    /// Takes the next report to the core; one at a time, in order.
    fn work_lane(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32) {
        loop {
            let Some(session) = self.session(conn).filter(|session| !session.lane_busy) else {
                return;
            };
            let node_id = session.node_id;
            let (command, reply, early) = match session.lane.pop_front() {
                None => return,
                Some(Item::Records(records)) => match session.due_records(records) {
                    Lane::Submit { records, last } => {
                        (Command::NodeStatus { node_id, records }, ReplyTo::Status { conn, last }, Some(last))
                    }
                    Lane::AckAgain => {
                        self.send(ctx, net, conn, GatewayMessage::Ack);
                        continue;
                    }
                    Lane::Skip => continue,
                    Lane::Disorder => {
                        return self.end(ctx, net, conn, Some(protocol("status records are not in order")));
                    }
                },
                Some(Item::Capabilities(capabilities)) => (
                    Command::NodeCapabilities { node_id, capabilities: capabilities.clone() },
                    ReplyTo::Capabilities { conn, capabilities },
                    None,
                ),
            };
            session.lane_busy = true;
            if let (Some(last), Some(Sabotage::AcksBeforeDurability)) = (early, ctx.sabotage) {
                session.acked = last;
                self.send(ctx, net, conn, GatewayMessage::Ack);
            }
            self.submit(ctx, net, command, Caller::node(node_id, ctx.wall()), reply);
        }
    }

    pub(super) fn status_done(
        &mut self,
        ctx: &mut Ctx,
        net: &mut Net,
        conn: u32,
        last: u64,
        result: Result<(), Refusal>,
    ) {
        let Some(session) = self.session(conn) else {
            return;
        };
        session.lane_busy = false;
        match result {
            Ok(()) => {
                session.due = Some(last + 1);
                session.acked = last;
                self.send(ctx, net, conn, GatewayMessage::Ack);
            }
            Err(refusal) if refusal.code == ErrorCode::NotFound => {
                return self.end(ctx, net, conn, Some((RefusalCode::UnknownNode, refusal.message)));
            }
            Err(_) => {}
        }
        self.work_lane(ctx, net, conn);
    }

    pub(super) fn capabilities_done(
        &mut self,
        ctx: &mut Ctx,
        net: &mut Net,
        conn: u32,
        capabilities: Box<NodeCapabilities>,
        result: Result<(), Refusal>,
    ) {
        let Some(session) = self.session(conn) else {
            return;
        };
        session.lane_busy = false;
        match result {
            Ok(()) => self.work_lane(ctx, net, conn),
            // Nodes say this once: it waits its turn again, a moment later.
            Err(refusal) if refusal.retryable => {
                session.lane.push_front(Item::Capabilities(capabilities));
                session.lane_busy = true;
                ctx.after(1_000, Happening::LaneRetry { conn });
            }
            Err(refusal) => self.end(ctx, net, conn, Some((RefusalCode::UnknownNode, refusal.message))),
        }
    }

    pub(crate) fn lane_retry(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32) {
        if let Some(session) = self.session(conn) {
            session.lane_busy = false;
            self.work_lane(ctx, net, conn);
        }
    }

    /// Gives up who is online in the state and silent here, and tells the core.
    pub(super) fn watch_silence(&mut self, ctx: &mut Ctx, net: &mut Net) {
        let Some(process) = self.process.as_deref_mut().filter(|p| !p.judging && p.registering == 0) else {
            return;
        };
        let (nodes, conns) = process.silent(ctx);
        if nodes.is_empty() {
            return;
        }
        process.judging = true;
        // Before the core judges: an answer that arrives later must not renew a lease.
        for conn in conns {
            self.end(ctx, net, conn, None);
        }
        let caller = Caller::system(ctx.wall());
        self.submit(ctx, net, Command::NodesSilent { nodes }, caller, ReplyTo::Judged);
    }
}

impl Process {
    /// Who is silent since when, and their connections.
    fn silent(&self, ctx: &Ctx) -> (Vec<(NodeId, Timestamp)>, Vec<u32>) {
        let timeout_ms = HEARTBEAT_TIMEOUT_MS;
        let (mut nodes, mut conns) = (Vec::new(), Vec::new());
        for node in self.durable.nodes.iter().filter(|n| n.link == NodeLink::Online) {
            let slot = self.slots.get(&node.node_id);
            let heard_ms = slot.and_then(|slot| slot.last_heard_ms);
            let since_ms = heard_ms.unwrap_or(self.started_ms + timeout_ms);
            if ctx.now_ms > since_ms + timeout_ms {
                let lies = ctx.sabotage == Some(Sabotage::GatewayIgnoresLeases);
                let told_ms = if lies { 0 } else { heard_ms.unwrap_or(self.started_ms) };
                nodes.push((node.node_id, wall_at(told_ms)));
                conns.extend(slot.and_then(|slot| slot.conn));
            }
        }
        (nodes, conns)
    }
}

/// A registration on its way to the core.
#[derive(Debug)]
pub(super) struct Registration {
    conn: u32,
    node_id: NodeId,
    received_ms: u64,
    command: Command,
}

/// What to do with status records.
enum Lane {
    Submit { records: Vec<StatusRecord>, last: u64 },
    AckAgain,
    Skip,
    Disorder,
}

impl Session {
    fn due_records(&mut self, mut records: Vec<StatusRecord>) -> Lane {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Lane::Skip;
        };
        let (first, last) = (first.record, last.record);
        if records.windows(2).any(|w| w[1].record != w[0].record + 1) {
            return Lane::Disorder;
        }
        let due = *self.due.get_or_insert(first);
        if first > due {
            return Lane::Skip;
        }
        if last < due {
            self.acked = due - 1;
            return Lane::AckAgain;
        }
        records.retain(|record| record.record >= due);
        Lane::Submit { records, last }
    }
}

fn protocol(why: &str) -> (RefusalCode, String) {
    (RefusalCode::Protocol, why.to_owned())
}
