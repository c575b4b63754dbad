//! What nodes are told: effects become messages, looked up in the durable state
//! at the moment of sending.

use claw_gateway::workload::Desired;
use claw_gateway::{Effect, query};
use claw_proto::codec::desired_set_messages;
use claw_proto::ids::{Attempt, Generation, NodeId, WorkloadId};
use claw_proto::message::{DesiredWorkload, GatewayMessage, NodeSettings, RefusalCode, StopOrder};

use super::SimGateway;
use crate::agenda::{Ctx, Happening};
use crate::net::Net;

/// Sets that are sent because a node asks are at least so far apart, milliseconds.
const RESEND_SET_MS: u64 = 1_000;

/// One order for a node, in order.
#[derive(Debug)]
pub(super) enum Order {
    Registered { settings: NodeSettings },
    Effect(Effect),
    Again,
}

impl SimGateway {
    /// Hands an effect to the queue of its node.
    pub(super) fn perform(&mut self, ctx: &mut Ctx, net: &mut Net, effect: Effect) {
        match &effect {
            Effect::SendDesiredSet { node_id, .. }
            | Effect::StartWorkload { node_id, .. }
            | Effect::StopWorkload { node_id, .. }
            | Effect::NoticeCheckpoint { node_id, .. }
            | Effect::SendSettings { node_id, .. } => {
                if let Some(conn) = self.conn_of(*node_id) {
                    self.order(ctx, conn, Order::Effect(effect));
                }
            }
            Effect::CloseLink { node_id, why } => {
                let known = self.durable().is_some_and(|c| c.nodes.get(*node_id).is_some());
                let refusal = (!known).then(|| (RefusalCode::UnknownNode, (*why).to_owned()));
                if let Some(conn) = self.conn_of(*node_id) {
                    self.end(ctx, net, conn, refusal);
                }
            }
            // Nobody runs commands inside simulated work, and blobs are the core's.
            Effect::Exec { .. } | Effect::EraseBlob { .. } => {}
        }
    }

    /// An effect at once, without a queue (a broken gateway).
    pub(super) fn perform_now(&mut self, ctx: &mut Ctx, net: &mut Net, effect: Effect) {
        let node_id = match &effect {
            Effect::StartWorkload { node_id, .. } | Effect::StopWorkload { node_id, .. } => *node_id,
            Effect::SendDesiredSet { .. }
            | Effect::SendSettings { .. }
            | Effect::NoticeCheckpoint { .. }
            | Effect::Exec { .. }
            | Effect::CloseLink { .. }
            | Effect::EraseBlob { .. } => return self.perform(ctx, net, effect),
        };
        if let Some(conn) = self.conn_of(node_id) {
            self.take(ctx, net, conn, Order::Effect(effect));
        }
    }

    fn conn_of(&self, node_id: NodeId) -> Option<u32> {
        self.process.as_ref()?.slots.get(&node_id)?.conn
    }

    pub(super) fn order(&mut self, ctx: &mut Ctx, conn: u32, order: Order) {
        let Some(session) = self.session(conn) else {
            return;
        };
        session.orders.push_back(order);
        if !session.orders_due {
            session.orders_due = true;
            let delay_ms = if ctx.rng.chance(50) { ctx.rng.below(400) } else { ctx.rng.below(4) };
            ctx.after(delay_ms, Happening::Orders { conn });
        }
    }

    /// Works off what waits for one node.
    pub(crate) fn work_orders(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32) {
        let Some(session) = self.session(conn) else {
            return;
        };
        session.orders_due = false;
        for order in std::mem::take(&mut session.orders) {
            self.take(ctx, net, conn, order);
        }
    }

    fn take(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32, order: Order) {
        let now_ms = ctx.now_ms;
        let Some(session) = self.session(conn) else {
            return;
        };
        // Newer than the last set; before the first set nothing is, it will show all.
        let is_news = |generation: Generation| session.set.is_some_and(|(seen, _)| generation > seen);
        match order {
            Order::Registered { settings } => {
                self.welcome(ctx, net, conn, settings);
                if self.session(conn).is_some_and(|session| session.set_wanted) {
                    self.send_set(ctx, net, conn);
                }
            }
            Order::Again => {
                if let Some((_, at_ms)) = session.set
                    && !session.again_due
                {
                    session.again_due = true;
                    let at_ms = (at_ms + RESEND_SET_MS).max(now_ms);
                    ctx.at(at_ms, Happening::SetAgain { conn });
                }
            }
            Order::Effect(Effect::SendDesiredSet { also_stop, .. }) => {
                session.set_wanted = true;
                session.also_stop.extend(also_stop);
                if session.registered {
                    self.send_set(ctx, net, conn);
                }
            }
            Order::Effect(Effect::StartWorkload { workload_id, attempt, generation, .. }) if is_news(generation) => {
                if let Some(workload) = self.wanted(conn, workload_id, attempt) {
                    self.send(ctx, net, conn, GatewayMessage::StartWorkload { generation, workload });
                }
            }
            Order::Effect(Effect::StopWorkload { order, generation, .. }) if is_news(generation) => {
                self.send(ctx, net, conn, GatewayMessage::StopWorkload { generation, order });
            }
            Order::Effect(Effect::NoticeCheckpoint { workload_id, .. }) if session.set.is_some() => {
                self.send_notices(ctx, net, conn, Some(workload_id));
            }
            Order::Effect(Effect::SendSettings { settings, .. }) if session.registered => {
                self.send(ctx, net, conn, GatewayMessage::UpdateConfig { settings });
            }
            Order::Effect(
                Effect::StartWorkload { .. }
                | Effect::StopWorkload { .. }
                | Effect::SendSettings { .. }
                | Effect::NoticeCheckpoint { .. }
                | Effect::Exec { .. }
                | Effect::CloseLink { .. }
                | Effect::EraseBlob { .. },
            ) => {}
        }
    }

    pub(crate) fn set_again(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32) {
        if self.session(conn).is_some_and(|session| session.again_due) {
            self.send_set(ctx, net, conn);
        }
    }

    fn send_set(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32) {
        let now_ms = ctx.now_ms;
        let Some(process) = self.process.as_deref_mut() else {
            return;
        };
        let Some(session) = process.sessions.get_mut(&conn) else {
            return;
        };
        let (generation, wanted, mut stop) = query::desired_set(&process.durable, session.node_id);
        let workloads: Vec<DesiredWorkload> = wanted.into_iter().map(|(workload, _)| workload).collect();
        for order in std::mem::take(&mut session.also_stop) {
            let same = |known: &StopOrder| (known.workload_id, known.attempt) == (order.workload_id, order.attempt);
            let is_wanted = workloads.iter().any(|w| (w.workload_id, w.attempt) == (order.workload_id, order.attempt));
            if !is_wanted && !stop.iter().any(same) {
                stop.push(order);
            }
        }
        session.set = Some((generation, now_ms));
        session.again_due = false;
        let (n_wanted, n_stop) = (workloads.len(), stop.len());
        ctx.note(|| format!("gateway sends c{conn} the set {generation}: {n_wanted} wanted, {n_stop} to stop"));
        for message in desired_set_messages(generation, workloads, stop) {
            self.send(ctx, net, conn, message);
        }
        self.send_notices(ctx, net, conn, None);
    }

    /// Who on this node shall write a checkpoint now, or this one.
    fn send_notices(&mut self, ctx: &mut Ctx, net: &mut Net, conn: u32, only: Option<WorkloadId>) {
        let Some(process) = self.process.as_deref() else {
            return;
        };
        let Some(node_id) = process.sessions.get(&conn).map(|session| session.node_id) else {
            return;
        };
        let all = query::notices(&process.durable, node_id, ctx.wall());
        for (workload_id, attempt, grace_s) in all.into_iter().filter(|(id, ..)| only.is_none_or(|only| only == *id)) {
            self.send(ctx, net, conn, GatewayMessage::CheckpointNotice { workload_id, attempt, grace_s });
        }
    }

    fn wanted(&self, conn: u32, workload_id: WorkloadId, attempt: Attempt) -> Option<DesiredWorkload> {
        let process = self.process.as_ref()?;
        let node_id = process.sessions.get(&conn)?.node_id;
        let entry = process.durable.workloads.get(workload_id)?;
        let live = entry.live_on(node_id)?;
        let current = live.attempt == attempt && entry.desired == Desired::Run;
        if current { query::desired(&process.durable, entry, node_id) } else { None }
    }
}
