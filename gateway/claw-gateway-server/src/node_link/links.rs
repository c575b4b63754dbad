//! Which nodes are connected, and when each was last heard.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claw_gateway::Effect;
use claw_proto::ids::NodeId;
use claw_proto::message::{NodeSettings, RefusalCode};
use claw_proto::time::Timestamp;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::tasks::Tasks;

/// What a node is to be told, in order.
#[derive(Debug)]
pub(super) enum Order {
    /// It is registered: the answer, after which the other orders count.
    Registered {
        /// Its settings.
        settings: NodeSettings,
        /// Highest durable line per log.
        log_acks: BTreeMap<claw_proto::message::LogKey, u64>,
    },
    /// An effect of the core.
    Effect(Effect),
    /// It missed something: the full set again.
    Again,
    /// About certificates, or a question.
    Say(Box<claw_proto::message::GatewayMessage>),
}

/// How a connection ends.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    /// With a typed refusal, so that the node knows what to do.
    Refused(RefusalCode, String),
    /// With a close frame.
    Closed(CloseCode, String),
}

/// Codes of WebSocket close frames that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseCode {
    /// Done with it.
    Normal,
    /// The gateway stops.
    Away,
}

impl CloseCode {
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Normal => 1_000,
            Self::Away => 1_001,
        }
    }
}

/// One connection of a node.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) node_id: NodeId,
    /// Tells this connection from others of the same node.
    serial: u64,
    orders: mpsc::Sender<Order>,
    /// Cancelled when the connection is to end.
    pub(super) closing: CancellationToken,
    ending: Mutex<Option<Ending>>,
    /// Highest heartbeat that was sent, and highest that was answered.
    pub(super) nonce_sent: AtomicU64,
    pub(super) nonce_answered: AtomicU64,
    /// Highest status record that is durable here.
    pub(super) acked: watch::Sender<u64>,
    /// Protocol version of this connection.
    pub(super) version: u32,
    /// The answer to the registration is queued: other orders come after it.
    registered: AtomicBool,
    /// Open questions.
    pub(super) tasks: Tasks,
}

impl Link {
    /// Ends the connection; the first reason stays.
    pub(super) fn end(&self, ending: Ending) {
        let mut slot = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            tracing::debug!(node_id = %self.node_id, ?ending, "link ends");
            *slot = Some(ending);
        }
        drop(slot);
        self.closing.cancel();
        self.tasks.lost();
    }

    /// Why it ends, once it does.
    pub(super) fn ending(&self) -> Ending {
        self.ending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .unwrap_or(Ending::Closed(CloseCode::Normal, String::new()))
    }

    /// Queues an order. A node that does not keep up is cut off: when it is back
    /// it gets the full set.
    pub(super) fn order(&self, order: Order) {
        let registers = matches!(order, Order::Registered { .. });
        match self.orders.try_send(order) {
            Ok(()) if registers => self.registered.store(true, Ordering::Release),
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(node_id = %self.node_id, "the node does not take its orders fast enough; its link is closed");
                self.end(Ending::Closed(CloseCode::Normal, "orders wait for too long".into()));
            }
            Err(TrySendError::Closed(_)) => {
                tracing::debug!(node_id = %self.node_id, "the link has ended; the next desired set makes up for the order");
            }
        }
    }
}

/// What is known of one node's link.
#[derive(Debug, Default)]
struct Slot {
    link: Option<Arc<Link>>,
    last_heard: Option<Timestamp>,
    /// Its reader waits for us: silence now is our own.
    held_up: bool,
    /// When its reader last came free again.
    freed: Option<Timestamp>,
}

/// All links, and when each node was last heard. Locked for moments only.
#[derive(Debug)]
pub(crate) struct NodeLinks {
    slots: Mutex<BTreeMap<NodeId, Slot>>,
    serials: AtomicU64,
    /// Registrations share it, a judgment on silence has it alone: what was judged
    /// reaches the core before the registration that would have changed it.
    pub(super) judging: tokio::sync::RwLock<()>,
    /// Nothing was heard before this.
    started_at: Timestamp,
}

impl NodeLinks {
    pub(crate) fn new(started_at: Timestamp) -> Self {
        Self {
            slots: Mutex::default(),
            serials: AtomicU64::new(0),
            judging: tokio::sync::RwLock::default(),
            started_at,
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<NodeId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every registered node the same.
    pub(super) fn say_to_all(&self, message: &claw_proto::message::GatewayMessage) {
        // Who is about to register is told then.
        let registered = |link: &&Arc<Link>| link.registered.load(Ordering::Acquire);
        for link in self.slots().values().filter_map(|slot| slot.link.as_ref()).filter(registered) {
            link.order(Order::Say(Box::new(message.clone())));
        }
    }

    /// Takes in a connection; an older one of the same node ends.
    pub(super) fn connect(
        &self,
        node_id: NodeId,
        version: u32,
        orders: mpsc::Sender<Order>,
        closing: CancellationToken,
    ) -> Arc<Link> {
        let link = Arc::new(Link {
            node_id,
            serial: self.serials.fetch_add(1, Ordering::Relaxed),
            orders,
            closing,
            ending: Mutex::default(),
            nonce_sent: AtomicU64::new(0),
            nonce_answered: AtomicU64::new(0),
            acked: watch::Sender::new(0),
            version,
            registered: AtomicBool::new(false),
            tasks: Tasks::default(),
        });
        let older = {
            let mut slots = self.slots();
            let slot = slots.entry(node_id).or_default();
            slot.held_up = false;
            slot.link.replace(Arc::clone(&link))
        };
        if let Some(older) = older {
            tracing::info!(%node_id, "a newer connection takes over");
            older.end(Ending::Refused(RefusalCode::Replaced, "a newer connection of this node took over".into()));
        }
        link
    }

    /// Forgets a connection, unless a newer one has taken its place.
    pub(super) fn disconnect(&self, link: &Link) {
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(&link.node_id)
            && slot.link.as_ref().is_some_and(|current| current.serial == link.serial)
        {
            slot.link = None;
            slot.held_up = false;
        }
    }

    /// The node answered a heartbeat on this connection. Not if it was given up
    /// meanwhile: what the core was told of its silence must stay true, so the
    /// node must not learn that this answer came.
    pub(super) fn answered(&self, link: &Link, at: Timestamp) -> bool {
        let mut slots = self.slots();
        let current = |slot: &&mut Slot| slot.link.as_ref().is_some_and(|current| current.serial == link.serial);
        let slot = slots.get_mut(&link.node_id).filter(current);
        slot.map(|slot| slot.last_heard = slot.last_heard.max(Some(at))).is_some()
    }

    /// A silent node's connection ends before the core is told of its silence.
    pub(super) fn give_up(&self, node_id: NodeId, now: Timestamp, timeout_ms: i64) -> Option<Timestamp> {
        let mut slots = self.slots();
        let heard = Self::silence(slots.get(&node_id), self.started_at, now, timeout_ms)?;
        if let Some(link) = slots.get_mut(&node_id).and_then(|slot| slot.link.take()) {
            link.end(Ending::Closed(CloseCode::Normal, "no answer to heartbeats".into()));
        }
        Some(heard)
    }

    /// The node was heard: it registered.
    pub(super) fn heard(&self, node_id: NodeId, at: Timestamp) {
        if let Some(slot) = self.slots().get_mut(&node_id) {
            slot.last_heard = slot.last_heard.max(Some(at));
        }
    }

    /// The reader of this connection waits for our disk, or does so no more.
    pub(super) fn held_up(&self, link: &Link, waits: bool, now: Timestamp) {
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(&link.node_id)
            && slot.link.as_ref().is_some_and(|current| current.serial == link.serial)
        {
            slot.held_up = waits;
            slot.freed = slot.freed.max((!waits).then_some(now));
        }
    }

    /// When the node was last heard, if it is silent for longer than `timeout_ms`.
    /// Nobody is silent within the first two timeouts of a gateway: nodes that the
    /// one before had need time to come back.
    pub(super) fn silent(&self, node_id: NodeId, now: Timestamp, timeout_ms: i64) -> Option<Timestamp> {
        Self::silence(self.slots().get(&node_id), self.started_at, now, timeout_ms)
    }

    fn silence(slot: Option<&Slot>, started_at: Timestamp, now: Timestamp, timeout_ms: i64) -> Option<Timestamp> {
        let heard = slot.and_then(|slot| slot.last_heard);
        let since = match heard {
            Some(at) => slot.and_then(|slot| slot.freed).map_or(at, |freed| freed.max(at)),
            None => started_at.plus_ms(timeout_ms),
        };
        let held_up = slot.is_some_and(|slot| slot.held_up);
        (!held_up && now.ms_since(since) > timeout_ms).then(|| heard.unwrap_or(started_at))
    }

    /// Queues an order for a node; without a connection it is dropped.
    pub(super) fn order(&self, node_id: NodeId, order: Order) {
        let link = self.slots().get(&node_id).and_then(|slot| slot.link.clone());
        if let Some(link) = link {
            link.order(order);
        } else {
            tracing::debug!(%node_id, "not connected; the next desired set makes up for the order");
        }
    }

    /// The connection of a node that is past its registration.
    pub(super) fn registered(&self, node_id: NodeId) -> Option<Arc<Link>> {
        let link = self.slots().get(&node_id).and_then(|slot| slot.link.clone())?;
        (link.registered.load(Ordering::Acquire) && !link.closing.is_cancelled()).then_some(link)
    }

    /// Ends a node's connection, if it has one.
    pub(super) fn end(&self, node_id: NodeId, ending: Ending) {
        let link = self.slots().get(&node_id).and_then(|slot| slot.link.clone());
        if let Some(link) = link {
            link.end(ending);
        }
    }

    /// Forgets a node that left the fleet.
    pub(super) fn forget(&self, node_id: NodeId) {
        self.slots().remove(&node_id);
    }

    /// Nodes with a connection.
    pub(super) fn connected(&self) -> usize {
        self.slots().values().filter(|slot| slot.link.is_some()).count()
    }
}
