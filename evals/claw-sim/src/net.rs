//! Connections between machines and the gateway.
//!
//! Like TCP: within a connection frames arrive in order, or not at all from
//! some frame on. A partition holds frames back; when it ends they arrive late,
//! if both sides still have the connection. Each side notices a break in its
//! own time. In unordered rounds frames are doubled and overtake each other.

use claw_proto::codec;
use claw_proto::message::{Envelope, GatewayMessage, NodeMessage};

use crate::agenda::{Ctx, Happening, Payload};

/// Longest time until a side notices a break, milliseconds.
const NOTICE_MS_MAX: u64 = 12_000;
/// How late a frame of an unordered round may be, milliseconds.
const STRAY_MS_MAX: u64 = 2_000;
/// So many frames to the node stray in unordered rounds, and are doubled, per mille.
const STRAY_DOWN_PERMILLE: u64 = 150;
/// The same, frames to the gateway.
const STRAY_UP_PERMILLE: u64 = 10;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    /// When the frame sent last arrives.
    last_ms: u64,
    /// Frames that arrive later than this never do.
    cut_ms: Option<u64>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) machine: usize,
    pub(crate) node_open: bool,
    pub(crate) gateway_open: bool,
    up: Pipe,
    down: Pipe,
    held_up: Vec<Payload<NodeMessage>>,
    held_down: Vec<Payload<GatewayMessage>>,
}

/// The way between one machine and the gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct Way {
    pub(crate) latency_ms: u64,
    /// Latency on top while the way is slow.
    pub(crate) slow_ms: u64,
    pub(crate) up_blocked: bool,
    pub(crate) down_blocked: bool,
}

impl Way {
    pub(crate) const fn is_blocked(&self) -> bool {
        self.up_blocked || self.down_blocked
    }
}

/// All connections of a round.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) conns: Vec<Conn>,
    pub(crate) ways: Vec<Way>,
}

fn slot(conn: u32) -> usize {
    conn as usize
}

impl Net {
    pub(crate) fn new(ways: Vec<Way>) -> Self {
        Self { conns: Vec::new(), ways }
    }

    pub(crate) fn conn(&self, conn: u32) -> &Conn {
        &self.conns[slot(conn)]
    }

    pub(crate) fn conn_mut(&mut self, conn: u32) -> &mut Conn {
        &mut self.conns[slot(conn)]
    }

    /// A new connection, open on both sides.
    pub(crate) fn connect(&mut self, machine: usize) -> u32 {
        let number = u32::try_from(self.conns.len()).expect("a round has few connections");
        self.conns.push(Conn {
            machine,
            node_open: true,
            gateway_open: true,
            up: Pipe::default(),
            down: Pipe::default(),
            held_up: Vec::new(),
            held_down: Vec::new(),
        });
        number
    }

    /// When a frame sent now arrives. Handshakes are never overtaken.
    fn arrival(ctx: &mut Ctx, way: &Way, pipe: &mut Pipe, ordered: bool, stray_permille: u64) -> u64 {
        let latency_ms = way.latency_ms + ctx.rng.below(way.latency_ms + way.slow_ms + 1);
        if ordered || !ctx.unordered || ctx.calm {
            pipe.last_ms = pipe.last_ms.max(ctx.now_ms + latency_ms);
            return pipe.last_ms;
        }
        let due_ms = pipe.last_ms.max(ctx.now_ms + latency_ms);
        if ctx.rng.chance(stray_permille) {
            return due_ms + ctx.rng.below(STRAY_MS_MAX);
        }
        pipe.last_ms = due_ms;
        due_ms
    }

    /// The node sends.
    pub(crate) fn send_up(&mut self, ctx: &mut Ctx, conn: u32, envelope: Box<Envelope<NodeMessage>>) {
        let handshake = matches!(envelope.body, NodeMessage::Register { .. });
        let envelope = if ctx.thorough { recode_node(ctx, &envelope) } else { envelope };
        self.push_up(ctx, conn, Payload::Frame(envelope), handshake);
    }

    /// The node closes its side.
    pub(crate) fn close_node(&mut self, ctx: &mut Ctx, conn: u32) {
        self.conn_mut(conn).node_open = false;
        self.push_up(ctx, conn, Payload::Close, true);
    }

    fn push_up(&mut self, ctx: &mut Ctx, conn: u32, payload: Payload<NodeMessage>, ordered: bool) {
        let it = &mut self.conns[slot(conn)];
        let way = &self.ways[it.machine];
        let at_ms = Self::arrival(ctx, way, &mut it.up, ordered, STRAY_UP_PERMILLE);
        if it.up.cut_ms.is_some_and(|cut_ms| at_ms > cut_ms) {
            return;
        }
        if ctx.unordered && !ctx.calm && !ordered && ctx.rng.chance(STRAY_UP_PERMILLE) {
            let again_ms = at_ms + ctx.rng.below(STRAY_MS_MAX);
            ctx.at(again_ms, Happening::ToGateway { conn, payload: payload.clone() });
        }
        ctx.at(at_ms, Happening::ToGateway { conn, payload });
    }

    /// The gateway sends.
    pub(crate) fn send_down(&mut self, ctx: &mut Ctx, conn: u32, envelope: Box<Envelope<GatewayMessage>>) {
        let handshake = matches!(envelope.body, GatewayMessage::Registered { .. } | GatewayMessage::Refused { .. });
        let envelope = if ctx.thorough { recode_gateway(ctx, &envelope) } else { envelope };
        self.push_down(ctx, conn, Payload::Frame(envelope), handshake);
    }

    /// The gateway closes its side.
    pub(crate) fn close_gateway(&mut self, ctx: &mut Ctx, conn: u32) {
        self.conn_mut(conn).gateway_open = false;
        self.push_down(ctx, conn, Payload::Close, true);
    }

    fn push_down(&mut self, ctx: &mut Ctx, conn: u32, payload: Payload<GatewayMessage>, ordered: bool) {
        let it = &mut self.conns[slot(conn)];
        let way = &self.ways[it.machine];
        let at_ms = Self::arrival(ctx, way, &mut it.down, ordered, STRAY_DOWN_PERMILLE);
        if it.down.cut_ms.is_some_and(|cut_ms| at_ms > cut_ms) {
            return;
        }
        if ctx.unordered && !ctx.calm && !ordered && ctx.rng.chance(STRAY_DOWN_PERMILLE) {
            let again_ms = at_ms + ctx.rng.below(STRAY_MS_MAX);
            ctx.at(again_ms, Happening::ToNode { conn, payload: payload.clone() });
        }
        ctx.at(at_ms, Happening::ToNode { conn, payload });
    }

    /// A frame has come to the gateway's side, unless something holds or drops it.
    pub(crate) fn arrive_up(
        &mut self,
        ctx: &Ctx,
        conn: u32,
        payload: Payload<NodeMessage>,
    ) -> Option<Payload<NodeMessage>> {
        let it = &mut self.conns[slot(conn)];
        if it.up.cut_ms.is_some_and(|cut_ms| ctx.now_ms > cut_ms) || !it.gateway_open {
            return None;
        }
        if self.ways[it.machine].up_blocked {
            it.held_up.push(payload);
            return None;
        }
        Some(payload)
    }

    /// The same on the node's side.
    pub(crate) fn arrive_down(
        &mut self,
        ctx: &Ctx,
        conn: u32,
        payload: Payload<GatewayMessage>,
    ) -> Option<Payload<GatewayMessage>> {
        let it = &mut self.conns[slot(conn)];
        if it.down.cut_ms.is_some_and(|cut_ms| ctx.now_ms > cut_ms) || !it.node_open {
            return None;
        }
        if self.ways[it.machine].down_blocked {
            it.held_down.push(payload);
            return None;
        }
        Some(payload)
    }

    /// Breaks a connection: in each direction the frames from some point on are
    /// lost, and each side notices by itself.
    pub(crate) fn cut(&mut self, ctx: &mut Ctx, conn: u32, notice_ms_max: u64) {
        let it = &mut self.conns[slot(conn)];
        for pipe in [&mut it.up, &mut it.down] {
            let in_flight_ms = pipe.last_ms.saturating_sub(ctx.now_ms);
            let cut_ms = ctx.now_ms + ctx.rng.below(in_flight_ms + 1);
            pipe.cut_ms = Some(pipe.cut_ms.map_or(cut_ms, |known| known.min(cut_ms)));
        }
        it.held_up.clear();
        it.held_down.clear();
        let (node_ms, gateway_ms) = (ctx.rng.below(notice_ms_max + 1), ctx.rng.below(notice_ms_max + 1));
        ctx.after(node_ms, Happening::NodeNotices { conn });
        ctx.after(gateway_ms, Happening::GatewayNotices { conn });
    }

    /// Breaks every open connection of a machine.
    pub(crate) fn cut_all_of(&mut self, ctx: &mut Ctx, machine: usize) {
        for conn in self.open_of(machine) {
            self.cut(ctx, conn, NOTICE_MS_MAX);
        }
    }

    /// Connections of a machine that at least one side still has.
    pub(crate) fn open_of(&self, machine: usize) -> Vec<u32> {
        let is_open = |c: &&Conn| c.machine == machine && (c.node_open || c.gateway_open);
        let numbers = (0_u32..).zip(&self.conns).filter(|(_, c)| is_open(c));
        numbers.map(|(number, _)| number).collect()
    }

    /// The way is free again: what was held back arrives now, before anything that is still in flight.
    pub(crate) fn unblock(&mut self, machine: usize) -> Held {
        let way = &mut self.ways[machine];
        way.up_blocked = false;
        way.down_blocked = false;
        let mut held = Held::default();
        for conn in self.open_of(machine) {
            let it = &mut self.conns[slot(conn)];
            held.up.extend(std::mem::take(&mut it.held_up).into_iter().map(|payload| (conn, payload)));
            held.down.extend(std::mem::take(&mut it.held_down).into_iter().map(|payload| (conn, payload)));
        }
        held
    }
}

/// Frames that a partition held back.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) up: Vec<(u32, Payload<NodeMessage>)>,
    pub(crate) down: Vec<(u32, Payload<GatewayMessage>)>,
}

fn recode_node(ctx: &mut Ctx, envelope: &Envelope<NodeMessage>) -> Box<Envelope<NodeMessage>> {
    match codec::decode_node(&codec::encode_node(envelope)) {
        Ok(read) if read == *envelope => Box::new(read),
        Ok(read) => {
            ctx.fail("C1_frames_survive_the_codec", format!("{envelope:?} became {read:?}"));
            Box::new(envelope.clone())
        }
        Err(error) => {
            ctx.fail("C1_frames_survive_the_codec", format!("{envelope:?}: {error}"));
            Box::new(envelope.clone())
        }
    }
}

fn recode_gateway(ctx: &mut Ctx, envelope: &Envelope<GatewayMessage>) -> Box<Envelope<GatewayMessage>> {
    match codec::decode_gateway(&codec::encode_gateway(envelope)) {
        Ok(read) if read == *envelope => Box::new(read),
        Ok(read) => {
            ctx.fail("C1_frames_survive_the_codec", format!("{envelope:?} became {read:?}"));
            Box::new(envelope.clone())
        }
        Err(error) => {
            ctx.fail("C1_frames_survive_the_codec", format!("{envelope:?}: {error}"));
            Box::new(envelope.clone())
        }
    }
}
