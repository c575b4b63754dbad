//! The shell around the pure core: one thread that decides and journals, and
//! the handle that everybody else holds.
//!
//! One owner of the state, no lock over an await. While the journal syncs, on a
//! thread of its own, the next commands are decided; the next sync commits them
//! all (group commit). Events apply in memory at once; replies, reads, streams and effects
//! wait until they are on disk. When the journal cannot be written the state
//! falls back to what is durable and the callers are told.

#[cfg(debug_assertions)]
mod audited;
mod changes;
mod clock;
mod core_thread;
mod crash;
mod janitor;
mod kernels;
mod logs;
mod metrics;
mod seal;
mod snapshots;
mod start;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claw_gateway::{Caller, Cluster, Command, Effect, EventRecord, Report};
use claw_proto::ids::{FaultId, IdSource};
use claw_proto::time::Timestamp;
use claw_tools::refusal::{ErrorCode, Fault, Refusal};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use changes::{ChangeDesk, Changed, Missing, Start, keep_changes};
pub use clock::{Clock, RandomIds, SystemClock};
pub use crash::{CrashPlan, CrashPlanError, CrashPoint};
pub use janitor::keep_house;
pub use kernels::{KernelDesk, KernelRead};
pub use logs::{LogDesk, LogDeskError, LogRead};
pub use metrics::{Boot, MetricsDesk};
pub use start::{ControlOptions, ControlTask, StartError, start};

/// Commands that may wait for the core.
const COMMANDS_WAITING_MAX: usize = 4_096;
/// Effects that may wait for the links.
const EFFECTS_WAITING_MAX: usize = 65_536;
/// Messages of events that a slow listener may fall behind.
const MESSAGES_BEHIND_MAX: usize = 1_024;
/// Events of one sync that go in one message: bounds what a slow listener keeps in memory.
const EVENTS_PER_MESSAGE: usize = 16;

/// Why a command has no report.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// Expected, for the caller.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Ours or the world's.
    #[error("{} ({})", .0.message, .0.fault_id)]
    Fault(Fault),
}

impl From<Refusal> for SubmitError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// Some events of one sync with their numbers, in order.
pub type Synced = Arc<[(u64, EventRecord)]>;

enum CoreMessage {
    Submit {
        command: Box<Command>,
        caller: Box<Caller>,
        reply: oneshot::Sender<Result<Report, SubmitError>>,
    },
    Events {
        after_seq: u64,
        limit: usize,
        reply: oneshot::Sender<Result<Vec<(u64, EventRecord)>, SubmitError>>,
    },
    Blob {
        handle: String,
        reply: oneshot::Sender<Result<Option<Vec<u8>>, SubmitError>>,
    },
    Stop,
    /// The auditor is made to find the next placement wrong.
    #[cfg(all(test, debug_assertions))]
    Doubt,
}

/// The handle: cheap to clone, safe to share.
#[derive(Clone)]
pub struct ControlPlane {
    commands: mpsc::Sender<CoreMessage>,
    durable: watch::Receiver<Arc<Cluster>>,
    bus: broadcast::Sender<Synced>,
    writable: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    logs: LogDesk,
    metrics: MetricsDesk,
    kernels: KernelDesk,
    changes: ChangeDesk,
    stopping: CancellationToken,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane").field("seq", &self.durable.borrow().seq).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// The durable state; what reads answer from.
    pub fn snapshot(&self) -> Arc<Cluster> {
        Arc::clone(&self.durable.borrow())
    }
    /// Follows the durable state.
    pub fn watch(&self) -> watch::Receiver<Arc<Cluster>> {
        self.durable.clone()
    }
    /// Decides a command; returns when its events are on disk. The instant of
    /// the decision is set by the core, whatever `caller.now` says.
    pub async fn submit(&self, command: Command, caller: Caller) -> Result<Report, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let message = CoreMessage::Submit { command: Box::new(command), caller: Box::new(caller), reply };
        self.commands.send(message).await.map_err(|_| shutting_down())?;
        answer.await.map_err(|_| shutting_down())?
    }
    /// The gateway's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
    /// The last write to the journal succeeded.
    pub fn journal_writable(&self) -> bool {
        self.writable.load(Ordering::Acquire)
    }
    /// The auditor finds the next placement wrong.
    #[cfg(all(test, debug_assertions))]
    pub(crate) async fn doubt(&self) {
        assert!(self.commands.send(CoreMessage::Doubt).await.is_ok(), "the core has ended");
    }
    /// Logs an error under a new id and makes the fault that the caller sees.
    pub fn fault(&self, message: &str, error: &dyn std::error::Error) -> Fault {
        let fault_id = FaultId::from_bits(RandomIds::new(Arc::clone(&self.clock)).next_bits());
        tracing::error!(%fault_id, error = %Chain(error), "{message}");
        Fault { fault_id, message: message.to_owned(), retryable: true }
    }
    /// Events after `after_seq`, oldest first, from the journal.
    pub async fn events(&self, after_seq: u64, limit: usize) -> Result<Vec<(u64, EventRecord)>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(CoreMessage::Events { after_seq, limit, reply }).await.map_err(|_| shutting_down())?;
        answer.await.map_err(|_| shutting_down())?
    }
    /// Events from now on, after they are on disk. A listener that falls behind is told so.
    pub fn events_live(&self) -> broadcast::Receiver<Synced> {
        self.bus.subscribe()
    }
    /// A value that is kept out of the journal.
    pub async fn blob(&self, handle: &str) -> Result<Option<Vec<u8>>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(CoreMessage::Blob { handle: handle.to_owned(), reply })
            .await
            .map_err(|_| shutting_down())?;
        answer.await.map_err(|_| shutting_down())?
    }
    /// Workload logs.
    pub fn logs(&self) -> &LogDesk {
        &self.logs
    }
    /// Latest metrics.
    pub fn metrics(&self) -> &MetricsDesk {
        &self.metrics
    }
    /// What the kernels of nodes said.
    pub fn kernels(&self) -> &KernelDesk {
        &self.kernels
    }
    /// What was done to nodes of late.
    pub fn changes(&self) -> &ChangeDesk {
        &self.changes
    }
    /// Canceled when the gateway begins to stop: whoever waits answers with what it has.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }
    /// New ids, time-ordered.
    pub fn ids(&self) -> RandomIds {
        RandomIds::new(Arc::clone(&self.clock))
    }
}

fn shutting_down() -> SubmitError {
    Refusal::new(ErrorCode::ShuttingDown, "the gateway is stopping; call again when it is back").into()
}

/// An error with its causes, in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// What is performed after the events are durable, in order.
pub type EffectQueue = mpsc::Receiver<Effect>;

#[cfg(test)]
mod tests;
