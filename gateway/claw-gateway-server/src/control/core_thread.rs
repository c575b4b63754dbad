//! The one thread that owns the state and the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claw_gateway::cluster::SNAPSHOT_FORMAT;
use claw_gateway::{Caller, Cluster, Command, Decision, Effect, EventRecord, Report, event, step};
use claw_storage::{Batch, Blob, Journal, JournalError, Record, Space};
use claw_tools::refusal::{ErrorCode, Refusal};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::clock::{Clock, RandomIds};
use super::crash::{CrashPlan, CrashPoint};
use super::seal::Seal;
use super::{Chain, CoreMessage, Numbered, SubmitError};

/// Commands that one sync may cover.
const BATCH_COMMANDS_MAX: usize = 512;
/// Reads that commands of one sync may have to wait for.
const BATCH_READS_MAX: usize = 16;
/// Events that are read from the journal in one go.
const EVENTS_READ_MAX: usize = 1_000;

/// Events that one archiving step moves at most.
const ARCHIVE_STEP_EVENTS: u64 = 10_000;
/// Ticks (seconds) between tries to write to a journal that could not be written.
const PROBE_EVERY_TICKS: u32 = 3;

type ReplyTo = oneshot::Sender<Result<Report, SubmitError>>;

pub(super) struct Core {
    pub(super) journal: Box<dyn Journal>,
    pub(super) live: Cluster,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: RandomIds,
    pub(super) writable: Arc<AtomicBool>,
    pub(super) durable: watch::Sender<Arc<Cluster>>,
    pub(super) bus: broadcast::Sender<Numbered>,
    pub(super) effects: mpsc::Sender<Effect>,
    pub(super) crash: Arc<CrashPlan>,
    pub(super) seal: Seal,
    /// Ticks since the last try to write again.
    pub(super) probes_waited: u32,
    pub(super) snapshot_every: u64,
    pub(super) keep_events: u64,
    pub(super) snapshot_seq: u64,
    /// Events up to here are archived, as far as this process knows.
    pub(super) archived_seq: u64,
}

/// One command that was decided and waits for the disk.
struct Waiting {
    reply: ReplyTo,
    result: Result<(Report, Vec<Effect>), Refusal>,
    n_events: usize,
}

impl Core {
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<CoreMessage>) {
        while let Some(first) = queue.blocking_recv() {
            let mut commands = Vec::new();
            let mut next = Some(first);
            let mut n_reads = 0;
            let mut stop = false;
            while let Some(message) = next {
                match message {
                    CoreMessage::Submit { command, caller, reply } => commands.push((command, caller, reply)),
                    CoreMessage::Events { after_seq, limit, reply } => {
                        n_reads += 1;
                        drop(reply.send(self.read_events(after_seq, limit)));
                    }
                    CoreMessage::Blob { handle, reply } => {
                        n_reads += 1;
                        drop(reply.send(self.journal.blob(&handle).map_err(|e| journal_fault(&e))));
                    }
                    CoreMessage::Stop => stop = true,
                }
                // Readers that never pause must not keep decided commands from the disk.
                let full = commands.len() >= BATCH_COMMANDS_MAX || n_reads >= BATCH_READS_MAX;
                next = if full || stop { None } else { queue.try_recv().ok() };
            }
            if !commands.is_empty() && !self.commit(commands) {
                tracing::error!("the journal is lost to this process; the gateway stops deciding");
                return;
            }
            if stop {
                break;
            }
        }
        self.snapshot("stopping");
    }

    /// Decides all, syncs once, publishes, performs, replies. False: this process may not go on.
    fn commit(&mut self, commands: Vec<(Box<Command>, Box<Caller>, ReplyTo)>) -> bool {
        let before = self.live.clone();
        let mut waiting = Vec::with_capacity(commands.len());
        let mut batches = Vec::new();
        let mut records = Vec::new();
        let mut probe = false;
        let on_reserve = self.journal.space() == Space::OnReserve;
        let mut armed = false;
        for (mut command, mut caller, reply) in commands {
            caller.now = self.clock.now();
            self.seal.seal(&mut command);
            probe |= matches!(*command, Command::Tick);
            let is_mutation = matches!(
                *command,
                Command::Operate { .. } | Command::PlanApply { .. } | Command::ApprovalDecide { .. }
            );
            armed |= is_mutation;
            if is_mutation && on_reserve && !was_answered(&self.live, &command, &caller) {
                // What is left of the disk is for what nodes report.
                waiting.push(Waiting { reply, result: Err(unavailable(&JournalError::Full)), n_events: 0 });
                continue;
            }
            match step(&self.live, *command, &caller, &mut self.ids) {
                Ok(decision) => {
                    let Decision { events, blobs, effects, report, after } = decision;
                    self.live = after;
                    let n_events = events.len();
                    if n_events > 0 || !blobs.is_empty() {
                        batches.push(to_batch(&events, blobs));
                    }
                    records.extend(events);
                    waiting.push(Waiting { reply, result: Ok((report, effects)), n_events });
                }
                Err(refusal) => waiting.push(Waiting { reply, result: Err(refusal), n_events: 0 }),
            }
        }
        self.crash.arm(armed);
        let going_on = match self.append(&before, &batches) {
            Ok(()) => {
                self.publish(before.seq, records);
                self.finish(waiting);
                true
            }
            Err(error) => self.fall_back(before, waiting, &error),
        };
        self.crash.arm(false);
        if going_on && probe {
            self.probe_and_snapshot();
        }
        going_on
    }

    fn append(&mut self, before: &Cluster, batches: &[Batch]) -> Result<(), JournalError> {
        if batches.is_empty() {
            return Ok(());
        }
        let epoch = self.journal.head().epoch;
        self.journal.append(before.seq, epoch, self.clock.now().unix_ms(), batches)?;
        self.writable.store(self.journal.space() == Space::Normal, Ordering::Release);
        Ok(())
    }

    fn publish(&mut self, seq_before: u64, records: Vec<EventRecord>) {
        if records.is_empty() {
            return;
        }
        #[cfg(debug_assertions)]
        if let Err(broken) = claw_gateway::invariants::check(&self.live) {
            tracing::error!(%broken, "an invariant does not hold after this commit");
        }
        self.durable.send_replace(Arc::new(self.live.clone()));
        for (seq, record) in (seq_before + 1..).zip(records) {
            // No listener is no error.
            drop(self.bus.send(Arc::new((seq, record))));
        }
    }

    fn finish(&mut self, waiting: Vec<Waiting>) {
        let mut replies = Vec::with_capacity(waiting.len());
        self.crash.reach(CrashPoint::BeforeEffect);
        for Waiting { reply, result, .. } in waiting {
            match result {
                Ok((report, effects)) => {
                    for effect in effects {
                        self.perform(effect);
                    }
                    replies.push((reply, Ok(report)));
                }
                Err(refusal) => replies.push((reply, Err(refusal.into()))),
            }
        }
        self.crash.reach(CrashPoint::AfterEffect);
        self.crash.reach(CrashPoint::BeforeReply);
        for (reply, result) in replies {
            // A caller that went away needs no answer; its receipt is stored.
            drop(reply.send(result));
        }
    }

    fn perform(&mut self, effect: Effect) {
        if let Effect::EraseBlob { handle } = &effect {
            if let Err(error) = self.journal.erase_blob(handle) {
                tracing::warn!(%error, handle, "a blob could not be erased; it is tried again when its workload is pruned");
            }
            return;
        }
        if self.effects.blocking_send(effect).is_err() {
            tracing::debug!("no executor is left; nodes get their desired set when they reconnect");
        }
    }

    /// Back to what is durable; those who waited are told.
    fn fall_back(&mut self, before: Cluster, waiting: Vec<Waiting>, error: &JournalError) -> bool {
        let mut ahead = false;
        self.live = before;
        let full = matches!(error, JournalError::Full | JournalError::Io { .. });
        if self.writable.swap(false, Ordering::AcqRel) {
            tracing::error!(error = %Chain(error), "the journal cannot be written: reads go on, changes are refused");
        }
        for Waiting { reply, result, n_events } in waiting {
            ahead |= n_events > 0;
            let answer = match result {
                // Decided on nothing but durable state: still true.
                Err(refusal) if !ahead => Err(refusal.into()),
                Ok((report, effects)) if !ahead => {
                    for effect in effects {
                        self.perform(effect);
                    }
                    Ok(report)
                }
                Ok(_) | Err(_) => Err(unavailable(error).into()),
            };
            drop(reply.send(answer));
        }
        full || matches!(error, JournalError::BadSize { .. } | JournalError::BlobConflict { .. })
    }

    /// Once a second: is the disk back, and is a snapshot due?
    fn probe_and_snapshot(&mut self) {
        // An erasure may have taken the reserve, too.
        if !self.writable.load(Ordering::Acquire) || self.journal.space() == Space::OnReserve {
            self.writable.store(false, Ordering::Release);
            // A try costs a whole snapshot, and this thread decides, too.
            self.probes_waited += 1;
            if self.probes_waited < PROBE_EVERY_TICKS {
                return;
            }
            self.probes_waited = 0;
            let state = self.live.to_snapshot();
            match self.journal.put_snapshot(self.live.seq, SNAPSHOT_FORMAT, &state) {
                Ok(()) => {
                    self.snapshot_seq = self.live.seq;
                    let back = self.journal.space() == Space::Normal;
                    self.writable.store(back, Ordering::Release);
                    if back {
                        tracing::info!("the journal can be written again");
                    }
                }
                Err(error) => tracing::warn!(error = %Chain(&error), "the journal still cannot be written"),
            }
            return;
        }
        if self.live.seq >= self.snapshot_seq + self.snapshot_every {
            self.snapshot("due");
        } else {
            self.archive();
        }
    }

    fn snapshot(&mut self, why: &str) {
        if self.live.seq == self.snapshot_seq {
            return;
        }
        let state = self.live.to_snapshot();
        match self.journal.put_snapshot(self.live.seq, SNAPSHOT_FORMAT, &state) {
            Ok(()) => {
                self.snapshot_seq = self.live.seq;
                tracing::info!(seq = self.live.seq, bytes = state.len(), why, "snapshot written");
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "snapshot failed; events are folded at the next start");
            }
        }
        self.archive();
    }

    /// Moves old events to the archive, a bounded step at a time: this thread decides, too.
    fn archive(&mut self) {
        let due = self.snapshot_seq.saturating_sub(self.keep_events);
        let up_to = due.min(self.archived_seq + ARCHIVE_STEP_EVENTS);
        if up_to <= self.archived_seq {
            return;
        }
        match self.journal.compact(up_to) {
            Ok(_) => self.archived_seq = up_to,
            Err(error) => tracing::warn!(error = %Chain(&error), "compaction failed"),
        }
    }

    fn read_events(&mut self, after_seq: u64, limit: usize) -> Result<Vec<(u64, EventRecord)>, SubmitError> {
        let stored = self.journal.read(after_seq, limit.min(EVENTS_READ_MAX)).map_err(|e| journal_fault(&e))?;
        let mut events = Vec::with_capacity(stored.len());
        for s in stored {
            match EventRecord::from_json(s.version, &s.payload) {
                Ok(record) => events.push((s.seq, record)),
                Err(error) => tracing::error!(seq = s.seq, %error, "a stored event does not parse"),
            }
        }
        Ok(events)
    }
}

/// The answer to this request is known already: repeating it writes nothing.
fn was_answered(cluster: &Cluster, command: &Command, caller: &Caller) -> bool {
    let (tool, mutation, args_hash) = match command {
        Command::Operate { operation, mutation, args_hash, .. } => (operation.tool(), mutation, args_hash),
        Command::PlanApply { mutation, args_hash, .. } => ("plan_apply", mutation, args_hash),
        Command::ApprovalDecide { mutation, args_hash, .. } => ("approval_decide", mutation, args_hash),
        _ => return false,
    };
    let known = claw_gateway::step::replayed(cluster, caller, tool, mutation.request_id.as_deref(), args_hash);
    !matches!(known, Ok(None))
}

fn to_batch(events: &[EventRecord], blobs: Vec<claw_gateway::step::Blob>) -> Batch {
    let records = events
        .iter()
        .map(|e| Record { kind: e.event.kind().to_owned(), version: event::EVENT_VERSION, payload: e.to_json() })
        .collect();
    let blobs = blobs.into_iter().map(|b| Blob { handle: b.handle, bytes: b.bytes }).collect();
    Batch { records, blobs }
}

fn unavailable(error: &JournalError) -> Refusal {
    Refusal::new(
        ErrorCode::JournalUnavailable,
        format!("the journal cannot be written ({error}); nothing was changed, reads go on"),
    )
    .with_evidence(serde_json::json!({ "retry_after_s": Duration::from_secs(5).as_secs() }))
    .retryable()
}

fn journal_fault(error: &JournalError) -> SubmitError {
    unavailable(error).into()
}
