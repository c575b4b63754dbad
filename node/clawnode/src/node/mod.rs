//! The node's state machine: pure, deterministic, cheap.
//!
//! `step(input) -> actions`. No clock, randomness, files or network: the shell
//! brings time and events in and performs the actions in order. The promises:
//!
//! - **One at a time.** A workload has at most one live attempt here; a newer
//!   one starts when the older is really gone. An attempt that ended, or that is
//!   older than one that ended, never starts again. A GPU serves one workload.
//! - **Only forward.** A set, start or stop older than the highest generation
//!   seen is not applied; a lower epoch is refused and ends the connection.
//! - **Nothing is lost.** Records are numbered without gaps, durable before they
//!   are sent, and sent again until acknowledged. A state never moves back.
//! - **Cut off, it stops in time** (see [`lease`]), or runs on if told to.
//! - **No silence.** What is not built or not possible is answered.
//!
//! The shell's part: feed [`Input::Booted`] first; give every
//! [`Action::Persist`] to the disk in order and report [`Input::Persisted`];
//! feed [`Input::Tick`] no later than [`Node::next_wake_ms`].

mod checkpoints;
mod desired;
pub mod durable;
mod io;
pub mod lease;
mod session;
mod status;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use claw_proto::ids::{Attempt, Generation, GpuUuid, WorkloadId};
use claw_proto::message::{DesiredWorkload, NodeMessage, NodeSettings, NodeWorkloadState, StatusCause};
use claw_proto::topology::NodeCapabilities;
use claw_proto::validation::share_milli;

pub use durable::{AttemptEntry, DurableChange, DurableState, StopIntent};
pub use io::{Action, CloseReason, Found, FoundWorkload, Input, NodeIdentity, Now, RuntimeEvent, WorkloadEnd};
pub use lease::Lease;
use session::Session;
pub use tasks::{ExecOrder, ExecResult, ReadOrder, TaskFault, TaskResult};

/// The part of a live attempt that a restart rebuilds.
#[derive(Debug, Clone)]
struct Live {
    /// The start was given to the runtime.
    started: bool,
    /// Renewed lease.
    lease: Option<Lease>,
}

/// An attempt that the gateway asked for.
#[derive(Debug, Clone)]
struct Wanted {
    workload: Arc<DesiredWorkload>,
    /// When `Register` was sent on the connection that asked for it: the
    /// gateway's count of its lease begins no earlier.
    base_ms: u64,
}

impl Wanted {
    fn attempt(&self) -> Attempt {
        self.workload.attempt
    }
}

/// Which writes are on disk.
#[derive(Debug, Clone, Default)]
struct Writes {
    issued: u64,
    durable: u64,
    /// (write, record) not yet durable.
    records: VecDeque<(u64, u64)>,
    durable_record: u64,
    /// (write, workload, attempt) accepted and waiting for the disk.
    starts: VecDeque<(u64, WorkloadId, Attempt)>,
    failed: bool,
}

/// The node's state machine.
#[derive(Debug, Clone)]
pub struct Node {
    identity: NodeIdentity,
    capabilities: NodeCapabilities,
    settings: NodeSettings,
    /// Ahead of the disk by the writes that are not yet durable.
    durable: DurableState,
    /// Same keys as `durable.attempts`.
    live: BTreeMap<WorkloadId, Live>,
    /// Attempts that wait until the older one is gone, or until the disk takes records.
    waiting: BTreeMap<WorkloadId, Wanted>,
    writes: Writes,
    /// Newest checkpoint of each live attempt that is not a record yet.
    untold: BTreeMap<WorkloadId, checkpoints::Untold>,
    session: Session,
    /// Send time of the latest answer that the gateway confirmed.
    lease_base_ms: Option<u64>,
    now: Now,
    out: Vec<Action>,
}

impl Node {
    /// A node before its first input, [`Input::Booted`].
    pub fn new(identity: NodeIdentity, capabilities: NodeCapabilities, settings: NodeSettings) -> Self {
        Self {
            identity,
            capabilities,
            settings,
            durable: DurableState::new(0),
            live: BTreeMap::new(),
            waiting: BTreeMap::new(),
            writes: Writes::default(),
            untold: BTreeMap::new(),
            session: Session::down(),
            lease_base_ms: None,
            now: Now::default(),
            out: Vec::new(),
        }
    }

    /// Takes one input and says what to do, in order.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        let now = input.now();
        self.now = Now { mono_ms: now.mono_ms.max(self.now.mono_ms), wall: now.wall };
        match input {
            Input::Booted { durable, found, .. } => self.boot(*durable, found),
            Input::Connected { .. } => self.connected(),
            Input::Disconnected { .. } => self.session = Session::down(),
            Input::Gateway { envelope, .. } => self.gateway(*envelope),
            Input::Unreadable { unknown_kind, detail, .. } => self.unreadable(unknown_kind, detail),
            Input::Runtime { event, .. } => self.runtime(event),
            Input::Logs { chunks, .. } => {
                if self.session.is_registered() && !chunks.is_empty() {
                    self.send(NodeMessage::Logs { chunks });
                }
            }
            Input::Sample { gpus, system, workloads, .. } => {
                if self.session.is_registered() {
                    let at = self.now.wall;
                    self.send(NodeMessage::Metrics { at, gpus, system, workloads });
                }
            }
            Input::Say { message, .. } => {
                if self.session.is_registered() {
                    self.send(*message);
                }
            }
            Input::Capabilities { capabilities, .. } => self.capabilities_changed(*capabilities),
            Input::Persisted { through, .. } => self.persisted(through),
            Input::StorageFailed { detail, .. } => self.storage_failed(&detail),
            Input::Tick { .. } => {
                self.enforce_deadlines();
                self.watch_session();
            }
        }
        self.send_statuses();
        std::mem::take(&mut self.out)
    }

    /// Monotonic time of the next deadline, milliseconds; a `Tick` then is enough.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let attempts = self.live.keys().filter_map(|id| self.attempt_wake_ms(*id));
        attempts.chain(self.session_wake_ms()).min()
    }

    /// The gateway answered `Register` on the present connection.
    pub fn is_registered(&self) -> bool {
        self.session.is_registered()
    }

    /// Settings in force.
    pub fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// Everything that a restart would know, as decided so far (the disk may be behind).
    pub fn durable(&self) -> &DurableState {
        &self.durable
    }

    /// Highest desired-state generation seen.
    pub fn generation(&self) -> Generation {
        self.durable.generation
    }

    /// GPUs that live attempts hold, whole or in part, with who holds them.
    pub fn held_gpus(&self) -> impl Iterator<Item = (&GpuUuid, WorkloadId)> {
        self.durable.attempts.iter().flat_map(|(id, entry)| entry.workload.gpus.iter().map(|gpu| (gpu, *id)))
    }

    /// What it has to do with, from the order to start it until it is forgotten.
    pub fn attempts(&self) -> impl Iterator<Item = &DesiredWorkload> {
        self.durable.attempts.values().map(|entry| &*entry.workload)
    }

    /// Who has a part of a GPU, with how much of it, thousandths.
    fn holders_of<'a>(&'a self, gpu: &'a GpuUuid) -> impl Iterator<Item = (WorkloadId, u16)> + 'a {
        let attempts = self.durable.attempts.iter().filter(|(_, entry)| entry.workload.gpus.contains(gpu));
        attempts.map(|(id, entry)| (*id, share_milli(&entry.workload.spec)))
    }

    fn boot(&mut self, durable: DurableState, found: Vec<FoundWorkload>) {
        self.writes.durable_record = durable.last_record;
        self.durable = durable;
        self.live.clear();
        let mut verdicts: BTreeMap<(WorkloadId, Attempt), Found> = BTreeMap::new();
        let mut unknown = Vec::new();
        for FoundWorkload { workload, found } in found {
            let key = (workload.workload_id, workload.attempt);
            if self.durable.entry(key.0, key.1).is_none() {
                unknown.push((workload, found.clone()));
            }
            verdicts.insert(key, found);
        }
        let known: Vec<(WorkloadId, Attempt, Option<Lease>)> =
            self.durable.attempts.iter().map(|(id, entry)| (*id, entry.attempt(), entry.lease)).collect();
        for (id, attempt, first_lease) in known {
            self.live.insert(id, Live { started: true, lease: first_lease });
            let verdict = verdicts.remove(&(id, attempt)).unwrap_or_else(|| {
                let detail = "no trace of it was left when the agent started";
                Found::Ended(WorkloadEnd::of(NodeWorkloadState::Lost, StatusCause::SupervisorGone, detail))
            });
            self.take_found(id, attempt, verdict);
        }
        for (workload, found) in unknown {
            self.adopt_unknown(workload, found);
        }
        self.enforce_deadlines();
    }

    /// What a known attempt turned out to be after a restart of the agent.
    fn take_found(&mut self, id: WorkloadId, attempt: Attempt, found: Found) {
        match found {
            Found::Live { state, lease } => {
                if let Some(live) = self.live.get_mut(&id)
                    && lease.is_some()
                {
                    live.lease = lease;
                }
                self.progress(id, attempt, state, String::new());
                // The stop may have been decided but not performed before the crash.
                if let Some(stop) = self.durable.entry(id, attempt).and_then(|entry| entry.stop) {
                    let grace_ms = stop.kill_at_ms.saturating_sub(self.now.mono_ms);
                    self.out.push(Action::Stop { workload_id: id, attempt, grace_ms, cause: stop.cause });
                }
            }
            Found::Ended(end) => self.ended(id, attempt, end),
            Found::NeverStarted => {
                if let Some(stop) = self.durable.entry(id, attempt).and_then(|entry| entry.stop) {
                    self.ended(id, attempt, never_started(stop.cause));
                } else {
                    self.live.remove(&id);
                    self.commit(DurableChange::Abandoned { workload_id: id, attempt });
                }
            }
        }
    }

    /// Something is there that the disk does not know: its record store was
    /// lost. It is taken over and reported; the gateway decides about it.
    pub(super) fn adopt_unknown(&mut self, workload: Arc<DesiredWorkload>, found: Found) {
        let (id, attempt) = (workload.workload_id, workload.attempt);
        let is_over = self.durable.highest_ended(id) >= Some(attempt);
        let other = self.durable.attempts.contains_key(&id);
        match found {
            Found::NeverStarted => {}
            Found::Ended(_) if is_over => self.out.push(Action::Forget { workload_id: id, attempt }),
            Found::Live { .. } if is_over || other => {
                self.out.push(Action::Stop { workload_id: id, attempt, grace_ms: 0, cause: StatusCause::Superseded });
            }
            Found::Ended(_) if other => self.out.push(Action::Forget { workload_id: id, attempt }),
            Found::Live { .. } | Found::Ended(_) => {
                let lease = match &found {
                    Found::Live { lease, .. } => *lease,
                    Found::Ended(_) | Found::NeverStarted => None,
                };
                self.commit(DurableChange::Accepted { workload, lease });
                self.live.insert(id, Live { started: true, lease });
                self.take_found(id, attempt, found);
            }
        }
    }

    /// Applies a change in memory and asks for it to be written.
    fn commit(&mut self, change: DurableChange) -> u64 {
        self.durable.apply(&change);
        self.writes.issued += 1;
        let write = self.writes.issued;
        self.out.push(Action::Persist { write, change });
        write
    }

    fn persisted(&mut self, through: u64) {
        self.writes.durable = self.writes.durable.max(through.min(self.writes.issued));
        if self.writes.durable == self.writes.issued {
            self.writes.failed = false;
            self.begin_waiting();
        }
        while let Some((write, record)) = self.writes.records.front().copied() {
            if write > self.writes.durable {
                break;
            }
            self.writes.durable_record = record;
            self.writes.records.pop_front();
        }
        while let Some((write, id, attempt)) = self.writes.starts.front().copied() {
            if write > self.writes.durable {
                break;
            }
            self.writes.starts.pop_front();
            self.start_now(id, attempt);
        }
    }

    fn storage_failed(&mut self, detail: &str) {
        if !self.writes.failed {
            self.writes.failed = true;
            self.refuse_for_storage(detail);
        }
    }

    fn capabilities_changed(&mut self, capabilities: NodeCapabilities) {
        if capabilities == self.capabilities {
            return;
        }
        self.capabilities = capabilities;
        if self.session.is_registered() {
            let capabilities = self.capabilities.clone();
            self.send(NodeMessage::CapabilitiesChanged { capabilities });
        } else {
            // A registration that is on its way does not tell of it.
            self.session.is_changed = true;
        }
    }
}

/// The end of an attempt that was stopped before anything of it ran.
fn never_started(cause: StatusCause) -> WorkloadEnd {
    WorkloadEnd::of(NodeWorkloadState::Stopped, cause, "stopped before it was started")
}
