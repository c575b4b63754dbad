//! The workloads of the fleet: [`WorkloadManager`].

mod indexes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::ids::{Attempt, GpuUuid, NodeId, OperationId, WorkloadId};
use claw_proto::spec::RuntimeKind;
use claw_proto::time::Timestamp;
use claw_proto::validation::{GPU_MILLI, ValidSpec};
use claw_tools::workloads::{PlacementReport, WorkloadReason, WorkloadState};
use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdMap, OrdSet};
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use self::indexes::Keys;

/// How many tries a workload remembers; all parts of the last one that spans nodes besides.
pub const ATTEMPTS_KEPT: usize = 10;

/// Place of an attempt in a workload that spans nodes. Each node's part is an
/// attempt with a number of its own, so that status, logs and orders of one part
/// are never taken for another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number of its node among the workload's nodes, from 0.
    pub node_rank: u32,
    /// Nodes of the workload.
    pub n_nodes: u32,
    /// Attempt of rank 0; the same for all parts that were placed together.
    pub first: Attempt,
}

/// Where an attempt runs, or could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Node.
    pub node_id: NodeId,
    /// GPUs.
    pub gpus: Vec<GpuUuid>,
    /// Runtime.
    pub runtime: RuntimeKind,
}

/// Room that is being made for a waiting workload: nobody behind it in the queue gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Where it will go, one place for each of its nodes.
    pub places: Vec<Place>,
    /// Who has to leave.
    pub victims: Vec<WorkloadId>,
    /// When all that runs there will have ended at the latest, where room is kept and nobody has to
    /// leave: who is sure to have ended by then may have it meanwhile. Nobody may without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins_at: Option<Timestamp>,
    /// It takes back what its tenant is guaranteed from who borrowed it: of its own priority and below it
    /// nobody gets that room who would hold more than is guaranteed, wherever they stand in the queue.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reclaims: bool,
}

impl Claim {
    /// Room that is kept does not keep out who has ended by then.
    pub(crate) fn lets_in(&self, ends_at: Option<Timestamp>) -> bool {
        self.begins_at.zip(ends_at).is_some_and(|(begins_at, ends_at)| ends_at <= begins_at)
    }
}

/// When work that begins now has ended at the latest, with the time that it has to end; nothing if it has no limit.
pub(crate) fn ends_by(spec: &ValidSpec, now: Timestamp) -> Option<Timestamp> {
    let seconds = spec.spec().max_duration_s?.checked_add(spec.grace_s().into())?;
    i64::try_from(seconds.checked_mul(1_000)?).ok().map(|ms| now.plus_ms(ms))
}

/// A checkpoint that a program says it has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// By which attempt; of several parts that of rank 0.
    pub attempt: Attempt,
    /// What the program calls it.
    pub label: String,
    /// When, node's clock.
    pub at: Timestamp,
    /// How long this one or one before was written, milliseconds, if that is known: what was done meanwhile is
    /// not in it, and so long the next one will take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u32>,
}

/// A program was told to write a checkpoint; it is stopped when it says that one is written,
/// and at this time at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// End of its grace.
    pub until: Timestamp,
}

/// One try.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptEntry {
    /// Number.
    pub attempt: Attempt,
    /// Where.
    pub node_id: NodeId,
    /// With which GPUs.
    pub gpus: Vec<GpuUuid>,
    /// With which runtime.
    pub runtime: RuntimeKind,
    /// State it reached.
    pub state: WorkloadState,
    /// Why.
    pub reason: WorkloadReason,
    /// Detail from the node.
    pub detail: String,
    /// When it ran, node's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// It holds its place: not ended.
    pub live: bool,
    /// Nothing really runs.
    pub simulated: bool,
    /// Its place, if the workload spans nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

impl AttemptEntry {
    /// The number that all parts placed together share.
    pub fn first(&self) -> Attempt {
        self.part.map_or(self.attempt, |part| part.first)
    }
}

/// What is wanted of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Be run.
    Run,
    /// Leave its node and be run again.
    Move,
    /// End on all its nodes, since a part of it ended badly; its restart policy decides what comes next.
    Regroup,
    /// End.
    Stop,
}

/// One workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadEntry {
    /// Id.
    pub workload_id: WorkloadId,
    /// Name.
    pub name: String,
    /// What to run.
    pub spec: Arc<ValidSpec>,
    /// Handle of the environment values.
    pub env_handle: Option<String>,
    /// Who submitted it.
    pub submitted_by: String,
    /// When.
    pub submitted_at: Timestamp,
    /// Order of submission.
    pub order: u64,
    /// By which operation.
    pub operation_id: Option<OperationId>,
    /// State.
    pub state: WorkloadState,
    /// Why.
    pub reason: WorkloadReason,
    /// Since when.
    pub since: Timestamp,
    /// What is wanted.
    pub desired: Desired,
    /// Grace of a stop under way, seconds.
    pub stop_grace_s: u32,
    /// Tries, oldest first.
    pub attempts: Vec<AttemptEntry>,
    /// Restarts that count against the limit.
    pub restarts: u32,
    /// Not placed before.
    pub not_before: Option<Timestamp>,
    /// Gates that are closed: it is not placed before all are open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// The last decision about its place.
    pub report: Option<Arc<PlacementReport>>,
    /// When it was told to make room for others, or to move, as far as that limits doing so again.
    /// Its attempts do not tell: of a workload over nodes only few tries are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preempted_at: Vec<Timestamp>,
    /// The last checkpoint that its program told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// Its program has been told to write a checkpoint, and is not stopped yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Notice>,
    /// Room that is being made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Arc<Claim>>,
    /// Revision of its last change.
    pub revision: u64,
}

/// Its numbers come from checked specifications and from JSON, where none is NaN. What is shared is then equal
/// without a look (`Arc` compares pointers first), and two states that differ in one workload are compared fast.
impl Eq for WorkloadEntry {}

impl WorkloadEntry {
    /// The number of the latest attempt, 0 before the first.
    pub fn attempt(&self) -> Attempt {
        self.attempts.last().map_or(Attempt(0), |a| a.attempt)
    }
    /// The attempt that holds a place now; of several, the one of the lowest rank.
    pub fn live(&self) -> Option<&AttemptEntry> {
        self.lives().next()
    }
    /// All attempts that hold a place now: more than one if it spans nodes.
    pub fn lives(&self) -> impl Iterator<Item = &AttemptEntry> {
        self.latest().iter().filter(|a| a.live)
    }
    /// When the first part of what holds a place now began to run, if one did.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.lives().filter_map(|a| a.started_at).min()
    }
    /// The attempt that holds a place on this node.
    pub fn live_on(&self, node_id: NodeId) -> Option<&AttemptEntry> {
        self.lives().find(|a| a.node_id == node_id)
    }
    /// What was placed last: one attempt, or all parts in order of their rank.
    pub fn latest(&self) -> &[AttemptEntry] {
        let Some(last) = self.attempts.last() else {
            return &[];
        };
        let first = last.first();
        let from = self.attempts.partition_point(|a| a.attempt < first);
        &self.attempts[from..]
    }
    /// The attempt that people mean if they name none: the latest, of several parts the first.
    pub fn main_attempt(&self) -> Attempt {
        self.latest().first().map_or(Attempt(0), |a| a.attempt)
    }
    /// The last checkpoint that its program told of in what was placed last, if it did.
    pub fn checkpoint_of_latest(&self) -> Option<&Checkpoint> {
        let first = self.latest().first()?.attempt;
        self.checkpoint.as_deref().filter(|written| written.attempt == first)
    }
    /// The checkpoint that what was placed last began from, as far as its program told.
    pub fn checkpoint_before(&self) -> Option<&Checkpoint> {
        let first = self.latest().first()?.attempt;
        self.checkpoint.as_deref().filter(|written| written.attempt < first)
    }
    /// Nothing really runs, as far as is known.
    pub fn simulated(&self) -> bool {
        self.latest().iter().any(|a| a.simulated || a.runtime == RuntimeKind::Sim)
    }
    /// How what was placed last ended, or ends: of several parts, the one that ended badly
    /// counts and not those that were stopped for it.
    pub fn verdict(&self) -> Option<&AttemptEntry> {
        let bad = |a: &&AttemptEntry| !a.live && a.state != WorkloadState::Completed;
        let latest = self.latest();
        let culprit = latest.iter().filter(bad).find(|a| a.reason != WorkloadReason::PeerFailed);
        culprit.or_else(|| latest.iter().find(bad)).or_else(|| latest.last())
    }
    /// It ran once, with all of its parts.
    pub fn ever_ran(&self) -> bool {
        let together = self.attempts.chunk_by(|a, b| a.first() == b.first());
        let whole = together.filter(|parts| parts.len() >= self.spec.nodes() as usize);
        whole.into_iter().any(|parts| parts.iter().all(|a| a.started_at.is_some()))
    }
    /// It may be stopped for more important work, and is not on its way out already.
    pub fn is_preemptible(&self) -> bool {
        self.spec.spec().preemptible == Some(true) && self.desired == Desired::Run && self.live().is_some()
    }
    /// What keeps it from being placed whatever room there is: a gate, or its time.
    pub fn held_back(&self, now: Timestamp) -> Option<WorkloadReason> {
        let is_early = self.not_before.is_some_and(|at| at > now);
        if self.gates.is_empty() { is_early.then_some(WorkloadReason::NotBefore) } else { Some(WorkloadReason::Gated) }
    }
    /// What becomes free is kept for it, without anybody being stopped.
    pub fn keeps_what_becomes_free(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.victims.is_empty())
    }
    /// It stands before the other in the queue.
    pub fn outranks(&self, other: &Self) -> bool {
        self.queue_key() < other.queue_key()
    }
    /// Its place among those that wait for a quota, if it does.
    fn quota_key(&self) -> Option<(Arc<str>, Timestamp, WorkloadId)> {
        let waits = self.state == WorkloadState::Pending && self.reason == WorkloadReason::QuotaExceeded;
        let tenant = self.spec.spec().tenant.as_deref().filter(|_| waits)?;
        Some((Arc::from(tenant), self.since, self.workload_id))
    }
    fn queue_key(&self) -> QueueKey {
        (Reverse(self.spec.priority().value()), self.order, self.workload_id)
    }
}

/// Order in the queue: higher priority first, then first come.
type QueueKey = (Reverse<u32>, u64, WorkloadId);

/// A label as one text.
fn label_key(key: &str, value: &str) -> Arc<str> {
    [key, "=", value].concat().into()
}

/// Who has a GPU or a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holders {
    /// One, and all of it.
    Whole(WorkloadId),
    /// Some, each a share, in thousandths; by id.
    Shares(Arc<[(WorkloadId, u16)]>),
}

impl Holders {
    /// Each with its thousandths.
    pub fn each(&self) -> impl Iterator<Item = (WorkloadId, u16)> + '_ {
        let (whole, shares) = match self {
            Self::Whole(id) => (Some((*id, GPU_MILLI)), &[][..]),
            Self::Shares(shares) => (None, &shares[..]),
        };
        whole.into_iter().chain(shares.iter().copied())
    }
    /// Thousandths that are taken.
    pub fn taken_milli(&self) -> u16 {
        self.each().fold(0, |sum, (_, milli)| sum.saturating_add(milli))
    }
    /// Those and one more.
    fn with(holders: Option<&Self>, id: WorkloadId, milli: u16) -> Self {
        if milli >= GPU_MILLI {
            return Self::Whole(id);
        }
        let others = holders.iter().flat_map(|h| h.each()).filter(|(other, _)| *other != id);
        let mut shares: Vec<(WorkloadId, u16)> = others.chain([(id, milli)]).collect();
        shares.sort_unstable();
        Self::Shares(shares.into())
    }
    /// Those without one; nothing if nobody is left.
    fn without(&self, id: WorkloadId) -> Option<Self> {
        let Self::Shares(shares) = self else { return (*self != Self::Whole(id)).then(|| self.clone()) };
        let left: Vec<(WorkloadId, u16)> = shares.iter().copied().filter(|(other, _)| *other != id).collect();
        (!left.is_empty()).then(|| Self::Shares(left.into()))
    }
}

type Ledger = GenericHashMap<Arc<GpuUuid>, Holders, FxBuildHasher, DefaultSharedPtr>;

/// All workloads, with the queue and the GPU ledger as indexes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkloadManager {
    workloads: OrdMap<WorkloadId, Arc<WorkloadEntry>>,
    /// Waiting, in order.
    queue: OrdSet<QueueKey>,
    /// The ledger: who holds a GPU. Keys that own memory are shared, here and in
    /// `names`: a change copies a leaf of the tree with all its keys. Each change of a node asks it for all
    /// its GPUs, so it is found by hash and not by comparing texts.
    held: Ledger,
    /// GPUs that room is being made on, with those that wait for them.
    claimed: OrdSet<(Arc<GpuUuid>, WorkloadId)>,
    /// The same, nodes.
    claimed_nodes: OrdSet<(NodeId, WorkloadId)>,
    /// Those that may be stopped for others, by their priority.
    preemptible: OrdSet<(u32, WorkloadId)>,
    /// Those that were told to write a checkpoint and are not stopped yet.
    noticed: OrdSet<WorkloadId>,
    /// Those that wait for their tenant's quota, by tenant and since when.
    quota_waiters: OrdSet<(Arc<str>, Timestamp, WorkloadId)>,
    /// Names of those that have not ended. Found by hash: a look goes through fewer texts.
    names: imbl::HashMap<Arc<str>, WorkloadId>,
    /// Labels of those that hold a place, as `key=value` (no key has that sign), with who has them.
    labels: OrdSet<(Arc<str>, WorkloadId)>,
    /// Those that hold a place and are kept apart from others.
    apart: OrdSet<WorkloadId>,
    /// The labels that they ask about, as above.
    asked: OrdSet<(Arc<str>, WorkloadId)>,
    /// Ended ones, in order of their end.
    ended: OrdSet<(Timestamp, WorkloadId)>,
    /// How many per state.
    counts: BTreeMap<WorkloadState, u32>,
    /// Submissions so far.
    submitted: u64,
}

impl WorkloadManager {
    /// The workload with this id.
    pub fn get(&self, id: WorkloadId) -> Option<&Arc<WorkloadEntry>> {
        self.workloads.get(&id)
    }
    /// All, by id (which is by time of submission).
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<WorkloadEntry>> {
        self.workloads.values()
    }
    /// How many are known.
    pub fn len(&self) -> usize {
        self.workloads.len()
    }
    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.workloads.is_empty()
    }
    /// The one of this name that has not ended.
    pub fn by_name(&self, name: &str) -> Option<&Arc<WorkloadEntry>> {
        self.names.get(name).and_then(|id| self.workloads.get(id))
    }
    /// Waiting ones, in the order in which they are tried.
    pub fn queue(&self) -> impl Iterator<Item = WorkloadId> + '_ {
        self.queue.iter().map(|(_, _, id)| *id)
    }
    /// How many wait.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }
    /// Who holds a GPU, or shares of it; nothing if nobody does.
    pub fn holders(&self, gpu: &GpuUuid) -> Option<&Holders> {
        self.held.get(gpu)
    }
    /// What of a GPU nobody has, thousandths.
    pub fn free_milli(&self, gpu: &GpuUuid) -> u16 {
        self.held.get(gpu).map_or(GPU_MILLI, |holders| GPU_MILLI.saturating_sub(holders.taken_milli()))
    }
    /// How many of these nobody but this workload has a part of on this node. Two nodes may have
    /// reported the same GPU, one after the other.
    pub(crate) fn n_alone(&self, id: WorkloadId, node_id: NodeId, gpus: &[GpuUuid]) -> usize {
        let is_there = |other| self.get(other).is_some_and(|w| w.live_on(node_id).is_some());
        let is_shared = |gpu: &GpuUuid| {
            let holders = self.held.get(gpu);
            holders.is_some_and(|holders| holders.each().any(|(other, _)| other != id && is_there(other)))
        };
        gpus.iter().filter(|gpu| !is_shared(gpu)).count()
    }
    /// Who waits for a GPU that room is being made on.
    pub fn claimants(&self, gpu: &GpuUuid) -> impl Iterator<Item = &Arc<WorkloadEntry>> {
        let from = (Arc::new(gpu.clone()), WorkloadId::from_bits(0));
        let gpu = Arc::clone(&from.0);
        let of_it = self.claimed.range(from..).take_while(move |(g, _)| *g == gpu);
        of_it.filter_map(|(_, id)| self.workloads.get(id))
    }
    /// Who waits for room that is being made on a node.
    pub fn claimants_on(&self, node_id: NodeId) -> impl Iterator<Item = &Arc<WorkloadEntry>> {
        let of_it = self.claimed_nodes.range((node_id, WorkloadId::from_bits(0))..);
        of_it.take_while(move |(n, _)| *n == node_id).filter_map(|(_, id)| self.workloads.get(id))
    }
    /// Nodes on which room is being made.
    pub fn claimed_nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.claimed_nodes.iter().map(|(node_id, _)| *node_id).collect();
        nodes.dedup();
        nodes
    }
    /// Those that wait for room that is being made, or kept, for them.
    pub fn claimants_all(&self) -> Vec<&Arc<WorkloadEntry>> {
        let ids: BTreeSet<WorkloadId> = self.claimed_nodes.iter().map(|(_, id)| *id).collect();
        let mut claimants: Vec<_> = ids.iter().filter_map(|id| self.workloads.get(id)).collect();
        claimants.sort_by_key(|w| w.queue_key());
        claimants
    }
    /// Room is being made for somebody.
    pub fn has_claims(&self) -> bool {
        !self.claimed_nodes.is_empty()
    }
    /// Those that keep what becomes free, without anybody being stopped for it, in the order of the queue.
    pub fn reserved(&self) -> Vec<Arc<WorkloadEntry>> {
        self.claimants_all().into_iter().filter(|w| w.keeps_what_becomes_free()).cloned().collect()
    }
    /// For whom a workload leaves.
    pub fn leaves_for(&self, victim: WorkloadId) -> Option<&Arc<WorkloadEntry>> {
        let claimants = self.claimed_nodes.iter().filter_map(|(_, id)| self.workloads.get(id));
        claimants.into_iter().find(|w| w.claim.as_ref().is_some_and(|c| c.victims.contains(&victim)))
    }
    /// Those that may be stopped for work of this priority, the least important first.
    pub fn preemptible_below(&self, priority: u32) -> impl Iterator<Item = &Arc<WorkloadEntry>> {
        let below = self.preemptible.iter().take_while(move |(p, _)| *p < priority);
        below.filter_map(|(_, id)| self.workloads.get(id))
    }
    /// Those that were told to write a checkpoint and are not stopped yet.
    pub fn noticed(&self) -> impl Iterator<Item = &Arc<WorkloadEntry>> {
        self.noticed.iter().filter_map(|id| self.workloads.get(id))
    }
    /// Those that hold a place and carry all of these labels; nobody without labels.
    pub(crate) fn placed_with(&self, labels: &BTreeMap<String, String>) -> Vec<&Arc<WorkloadEntry>> {
        let Some((key, value)) = labels.first_key_value() else { return Vec::new() };
        let first: Arc<str> = label_key(key, value);
        let of_it = self.labels.range((Arc::clone(&first), WorkloadId::from_bits(0))..);
        let ids = of_it.take_while(|(label, _)| *label == first).map(|(_, id)| id);
        let has_all = |w: &&Arc<WorkloadEntry>| labels.iter().all(|(k, v)| w.spec.spec().labels.get(k) == Some(v));
        ids.filter_map(|id| self.workloads.get(id)).filter(has_all).collect()
    }
    /// Those that hold a place and are kept apart from others.
    pub(crate) fn kept_apart(&self) -> Vec<&Arc<WorkloadEntry>> {
        self.apart.iter().filter_map(|id| self.workloads.get(id)).collect()
    }
    /// Somebody who holds a place is kept apart from others.
    pub(crate) fn keeps_some_apart(&self) -> bool {
        !self.apart.is_empty()
    }
    /// Those of these labels that somebody who holds a place asks to be kept apart from.
    pub(crate) fn asked_about<'a>(
        &'a self,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = (&'a String, &'a String)> {
        let is_asked = |label: Arc<str>| {
            let mut from = self.asked.range((Arc::clone(&label), WorkloadId::from_bits(0))..);
            from.next().is_some_and(|(first, _)| *first == label)
        };
        labels.iter().filter(move |(key, value)| is_asked(label_key(key, value)))
    }
    /// Somebody who holds a place may ask to be kept apart from who carries these.
    pub(crate) fn are_asked_about(&self, labels: &BTreeMap<String, String>) -> bool {
        self.keeps_some_apart() && self.asked_about(labels).next().is_some()
    }
    /// Those of a tenant that wait for its quota, who has waited longest first.
    pub fn quota_waiters(&self, tenant: &str) -> impl Iterator<Item = &Arc<WorkloadEntry>> {
        let from = (Arc::<str>::from(tenant), Timestamp::from_unix_ms(i64::MIN), WorkloadId::from_bits(0));
        let tenant = Arc::clone(&from.0);
        let of_it = self.quota_waiters.range(from..).take_while(move |(t, ..)| *t == tenant);
        of_it.filter_map(|(_, _, id)| self.workloads.get(id))
    }
    /// All held GPUs, in no order.
    pub fn held(&self) -> impl Iterator<Item = (&GpuUuid, &Holders)> {
        self.held.iter().map(|(gpu, holders)| (&**gpu, holders))
    }
    /// How many are in a state.
    pub fn count(&self, state: WorkloadState) -> u32 {
        self.counts.get(&state).copied().unwrap_or(0)
    }
    /// Ended ones beyond the newest `keep`, oldest first.
    pub fn ended_beyond(&self, keep: usize) -> Vec<WorkloadId> {
        let excess = self.ended.len().saturating_sub(keep);
        self.ended.iter().take(excess).map(|(_, id)| *id).collect()
    }
    /// Ended ones, the newest end first.
    pub fn ended_newest_first(&self) -> impl Iterator<Item = &Arc<WorkloadEntry>> {
        self.ended.iter().rev().filter_map(|(_, id)| self.workloads.get(id))
    }
    /// Submissions so far.
    pub const fn submitted(&self) -> u64 {
        self.submitted
    }
    /// The map itself, for differences between two states.
    pub(crate) fn map(&self) -> &OrdMap<WorkloadId, Arc<WorkloadEntry>> {
        &self.workloads
    }
    /// Continues the count of submissions (when a snapshot is read).
    pub(crate) fn restore_submitted(&mut self, submitted: u64) {
        self.submitted = self.submitted.max(submitted);
    }

    /// Adds one and keeps the indexes.
    pub(crate) fn insert(&mut self, entry: WorkloadEntry) {
        self.submitted = self.submitted.max(entry.order + 1);
        // One of that id is replaced; what it held is nobody's any more.
        if let Some(old) = self.workloads.get(&entry.workload_id).cloned() {
            self.reindex(Keys::of(&old), Keys::default(), &old);
        }
        self.reindex(Keys::default(), Keys::of(&entry), &entry);
        self.workloads.insert(entry.workload_id, Arc::new(entry));
    }
    /// Changes one and keeps the indexes; its id and its name stay.
    pub(crate) fn update(&mut self, id: WorkloadId, change: impl FnOnce(&mut WorkloadEntry)) {
        let Some(entry) = self.workloads.get_mut(&id) else {
            return;
        };
        let old = Keys::of(entry);
        change(Arc::make_mut(entry));
        let entry = Arc::clone(entry);
        self.reindex(old, Keys::of(&entry), &entry);
    }
    /// Forgets one (its events stay in the journal).
    pub(crate) fn forget(&mut self, id: WorkloadId) {
        if let Some(old) = self.workloads.remove(&id) {
            self.reindex(Keys::of(&old), Keys::default(), &old);
        }
    }
}
