//! The one thread that owns the state and decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claw_gateway::cluster::SNAPSHOT_FORMAT;
use claw_gateway::{Caller, Cluster, Command, Decision, Effect, EventRecord, Report, advance};
use claw_storage::{JournalError, Space, WrittenSnapshot};
use claw_tools::refusal::{ErrorCode, Refusal};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::clock::{Clock, RandomIds};
use super::crash::{CrashPlan, CrashPoint};
use super::seal::Seal;
use super::snapshots::Underway;
use super::writer::{Entry, Job, SharedJournal, Writer, WriterGone, Written, lock, write};
use super::{Chain, CoreMessage, EVENTS_PER_MESSAGE, SubmitError, Synced};

/// Commands that one sync may cover.
const BATCH_COMMANDS_MAX: usize = 512;
/// Reads that commands of one sync may have to wait for.
const BATCH_READS_MAX: usize = 16;
/// Pause between two looks for commands while something is written and none wait.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Events that are read from the journal in one go.
const EVENTS_READ_MAX: usize = 1_000;

/// Events that one archiving step moves at most.
const ARCHIVE_STEP_EVENTS: u64 = 10_000;
/// A snapshot or an archiving step that is due waits for a second without commands, for
/// they take of the processors and of the disk what decisions need; but no longer than
/// until so many of them are due.
const OVERDUE: u64 = 10;
/// Ticks (seconds) between tries to write to a journal that could not be written.
const PROBE_EVERY_TICKS: u32 = 3;

type ReplyTo = oneshot::Sender<Result<Report, SubmitError>>;

pub(super) struct Core {
    pub(super) journal: SharedJournal,
    pub(super) writer: Writer,
    /// Room on the disk after the last write.
    pub(super) space: Space,
    pub(super) live: Cluster,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: RandomIds,
    pub(super) writable: Arc<AtomicBool>,
    pub(super) durable: watch::Sender<Arc<Cluster>>,
    pub(super) bus: broadcast::Sender<Synced>,
    pub(super) effects: mpsc::Sender<Effect>,
    pub(super) crash: Arc<CrashPlan>,
    pub(super) seal: Seal,
    /// Ticks since the last try to write again.
    pub(super) probes_waited: u32,
    /// Commands since the last tick.
    pub(super) commands_since_tick: u64,
    pub(super) snapshot_every: u64,
    pub(super) keep_events: u64,
    pub(super) snapshot_seq: u64,
    /// Size of the last snapshot of this process, bytes; 0 before the first.
    pub(super) snapshot_bytes: u64,
    /// Payload of the events since, bytes.
    pub(super) bytes_since_snapshot: u64,
    /// A snapshot that is being written.
    pub(super) underway: Option<Underway>,
    /// Events up to here are archived, as far as this process knows.
    pub(super) archived_seq: u64,
    /// Checks every decision.
    #[cfg(debug_assertions)]
    pub(super) audit: super::audited::Watch,
}

/// One command that was decided and waits for the disk.
struct Waiting {
    reply: ReplyTo,
    result: Result<(Report, Vec<Effect>), Refusal>,
    n_events: usize,
}

/// Commands that one sync covers.
struct Round {
    /// The state before the first of them.
    before: Cluster,
    waiting: Vec<Waiting>,
    entries: Vec<Entry>,
    n_reads: usize,
    /// One of them is a caller's mutation.
    armed: bool,
    /// One of them is the tick: what is looked at once a second is due after it.
    probe: bool,
    /// Nothing comes after it.
    stop: bool,
}

impl Round {
    fn on(before: &Cluster) -> Self {
        Self {
            before: before.clone(),
            waiting: Vec::new(),
            entries: Vec::new(),
            n_reads: 0,
            armed: false,
            probe: false,
            stop: false,
        }
    }

    /// Readers that never pause must not keep decided commands from the disk.
    fn is_full(&self) -> bool {
        self.stop || self.waiting.len() >= BATCH_COMMANDS_MAX || self.n_reads >= BATCH_READS_MAX
    }

    /// Writing it on another thread is worth the way there: more commands wait, and
    /// nothing is to be done in between.
    fn may_overlap(&self) -> bool {
        self.waiting.len() > 1 && !self.probe && !self.stop
    }
}

/// The journal is lost to this process.
struct Lost;

impl Core {
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<CoreMessage>) {
        while let Some(first) = queue.blocking_recv() {
            let mut round = Round::on(&self.live);
            self.take(&mut round, first);
            while !round.is_full()
                && let Ok(message) = queue.try_recv()
            {
                self.take(&mut round, message);
            }
            let mut stop = round.stop;
            // While one round is written the next is decided.
            while !round.waiting.is_empty() {
                let Ok(next) = self.commit(round, &mut queue) else {
                    tracing::error!("the journal is lost to this process; the gateway stops deciding");
                    return;
                };
                stop |= next.stop;
                round = next;
            }
            if stop {
                break;
            }
        }
        self.snapshot("stopping");
    }

    /// Does what a message asks for; what it decides waits in the round.
    fn take(&mut self, round: &mut Round, message: CoreMessage) {
        match message {
            CoreMessage::Submit { command, caller, reply } => self.decide(round, *command, *caller, reply),
            CoreMessage::Events { after_seq, limit, reply } => {
                round.n_reads += 1;
                drop(reply.send(self.read_events(after_seq, limit)));
            }
            CoreMessage::Blob { handle, reply } => {
                round.n_reads += 1;
                drop(reply.send(lock(&self.journal).blob(&handle).map_err(|e| journal_fault(&e))));
            }
            CoreMessage::Stop => round.stop = true,
            #[cfg(all(test, debug_assertions))]
            CoreMessage::Doubt => self.audit.doubt(),
        }
    }

    fn decide(&mut self, round: &mut Round, mut command: Command, mut caller: Caller, reply: ReplyTo) {
        caller.now = self.clock.now();
        self.seal.seal(&mut command);
        let is_tick = matches!(command, Command::Tick);
        round.probe |= is_tick;
        self.commands_since_tick += u64::from(!is_tick);
        let is_mutation =
            matches!(command, Command::Operate { .. } | Command::PlanApply { .. } | Command::ApprovalDecide { .. });
        round.armed |= is_mutation;
        if is_mutation && self.space == Space::OnReserve && !was_answered(&self.live, &command, &caller) {
            // What is left of the disk is for what nodes report.
            round.waiting.push(Waiting { reply, result: Err(unavailable(&JournalError::Full)), n_events: 0 });
            return;
        }
        #[cfg(debug_assertions)]
        let before = self.live.clone();
        match advance(&mut self.live, command, &caller, &mut self.ids) {
            Ok(decision) => {
                let Decision { events, blobs, effects, report } = decision;
                #[cfg(debug_assertions)]
                if let Err(wrong) = self.audit.check(&events) {
                    self.live = before;
                    self.say_writable(false);
                    round.waiting.push(Waiting { reply, result: Err(found_wrong(&wrong)), n_events: 0 });
                    return;
                }
                let n_events = events.len();
                if n_events > 0 || !blobs.is_empty() {
                    round.entries.push(Entry { events, blobs });
                }
                round.waiting.push(Waiting { reply, result: Ok((report, effects)), n_events });
            }
            Err(refusal) => round.waiting.push(Waiting { reply, result: Err(refusal), n_events: 0 }),
        }
    }

    /// Syncs once, publishes, performs, replies; returns what was decided meanwhile.
    fn commit(&mut self, mut round: Round, queue: &mut mpsc::Receiver<CoreMessage>) -> Result<Round, Lost> {
        let after = self.live.clone();
        let mut next = Round::on(&after);
        let entries = std::mem::take(&mut round.entries);
        let job = Job { expected_seq: round.before.seq, at_ms: self.clock.now().unix_ms(), entries };
        self.crash.arm(round.armed);
        let elsewhere = round.may_overlap() && !job.entries.is_empty();
        let written = if elsewhere {
            self.write_and_decide(job, &mut next, queue).map_err(|WriterGone| Lost)?
        } else {
            write(&self.journal, job)
        };
        let Written { entries, result } = written;
        let outcome = match result {
            Ok(done) => {
                if let Some((space, bytes)) = done {
                    self.space = space;
                    self.bytes_since_snapshot += bytes;
                    self.say_writable(space == Space::Normal);
                }
                self.publish(round.before.seq, after, entries);
                self.finish(round.waiting);
                if !elsewhere {
                    lock(&self.journal).tidy();
                }
                Ok(next)
            }
            Err(error) => {
                let stop = next.stop;
                self.space = lock(&self.journal).space();
                let going_on = self.fall_back(round.before, round.waiting, next.waiting, &error);
                let empty = Round { stop, ..Round::on(&self.live) };
                if going_on { Ok(empty) } else { Err(Lost) }
            }
        };
        self.crash.arm(false);
        if outcome.is_ok() && round.probe {
            self.probe_and_snapshot();
        }
        outcome
    }

    /// Lets the other thread write, and decides what comes until it is done. All of
    /// that waits for the next sync, and for this one to succeed.
    fn write_and_decide(
        &mut self,
        job: Job,
        next: &mut Round,
        queue: &mut mpsc::Receiver<CoreMessage>,
    ) -> Result<Written, WriterGone> {
        self.writer.begin(job)?;
        let mut wait = Duration::ZERO;
        loop {
            if let Some(written) = self.writer.within(wait)? {
                return Ok(written);
            }
            let message = if next.is_full() { None } else { queue.try_recv().ok() };
            wait = if message.is_some() { Duration::ZERO } else { LOOK_EVERY };
            if let Some(message) = message {
                self.take(next, message);
            }
        }
    }

    /// Says whether changes are taken: the journal can be written, and no decision was found wrong. Returns it.
    fn say_writable(&self, is_writable: bool) -> bool {
        #[cfg(debug_assertions)]
        let is_writable = is_writable && !self.audit.is_found();
        self.writable.store(is_writable, Ordering::Release);
        is_writable
    }

    fn publish(&mut self, seq_before: u64, after: Cluster, entries: Vec<Entry>) {
        if entries.iter().all(|entry| entry.events.is_empty()) {
            return;
        }
        #[cfg(debug_assertions)]
        if let Err(broken) = claw_gateway::invariants::check(&after) {
            tracing::error!(%broken, "an invariant does not hold after this commit");
        }
        self.durable.send_replace(Arc::new(after));
        let records = entries.into_iter().flat_map(|entry| entry.events);
        let mut numbered = (seq_before + 1..).zip(records).peekable();
        while numbered.peek().is_some() {
            // No listener is no error.
            drop(self.bus.send(numbered.by_ref().take(EVENTS_PER_MESSAGE).collect()));
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
            if let Err(error) = lock(&self.journal).erase_blob(handle) {
                tracing::warn!(%error, handle, "a blob could not be erased; it is tried again when its workload is pruned");
            }
            return;
        }
        if self.effects.blocking_send(effect).is_err() {
            tracing::debug!("no executor is left; nodes get their desired set when they reconnect");
        }
    }

    /// Back to what is durable; those who waited are told. What was decided on top of
    /// it meanwhile was decided on what never came to be. False: this process may not go on.
    fn fall_back(
        &mut self,
        before: Cluster,
        waiting: Vec<Waiting>,
        on_top: Vec<Waiting>,
        error: &JournalError,
    ) -> bool {
        let mut ahead = false;
        self.live = before;
        #[cfg(debug_assertions)]
        self.audit.read_again(&mut **lock(&self.journal));
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
        for Waiting { reply, .. } in on_top {
            drop(reply.send(Err(unavailable(error).into())));
        }
        full || matches!(error, JournalError::BadSize { .. } | JournalError::BlobConflict { .. })
    }

    /// Once a second: is the disk back, and is a snapshot due?
    fn probe_and_snapshot(&mut self) {
        let is_idle = std::mem::take(&mut self.commands_since_tick) == 0;
        // An erasure may have taken the reserve, too.
        self.space = lock(&self.journal).space();
        if !self.writable.load(Ordering::Acquire) || self.space == Space::OnReserve {
            self.say_writable(false);
            // A try costs a whole snapshot, and this thread decides, too.
            self.probes_waited += 1;
            if self.probes_waited < PROBE_EVERY_TICKS {
                return;
            }
            self.probes_waited = 0;
            match self.save() {
                Ok(_) => {
                    self.snapshot_seq = self.live.seq;
                    self.space = lock(&self.journal).space();
                    let back = self.space == Space::Normal;
                    if self.say_writable(back) {
                        tracing::info!("the journal can be written again");
                    }
                }
                Err(error) => tracing::warn!(error = %Chain(&error), "the journal still cannot be written"),
            }
            return;
        }
        if self.underway.as_ref().is_some_and(Underway::is_over) {
            self.finish_snapshot("due");
        }
        // A snapshot writes the whole state. Where that is larger than what was journaled
        // since the last, the machine would soon do nothing else; folding as many bytes
        // at a start takes no longer than reading the snapshot.
        let is_worth_it = self.bytes_since_snapshot >= self.snapshot_bytes;
        let n_events = self.live.seq.saturating_sub(self.snapshot_seq);
        let may_snapshot = is_idle || n_events >= self.snapshot_every.saturating_mul(OVERDUE);
        let n_archivable = self.snapshot_seq.saturating_sub(self.keep_events.saturating_add(self.archived_seq));
        if n_events >= self.snapshot_every && is_worth_it && may_snapshot && self.underway.is_none() {
            self.begin_snapshot();
        } else if is_idle || n_archivable >= ARCHIVE_STEP_EVENTS * OVERDUE {
            self.archive();
        }
    }

    /// Writes one beside what goes on. All that is decided is on the disk: a round with a tick is
    /// written before anything is decided on top of it.
    fn begin_snapshot(&mut self) {
        let ticket = lock(&self.journal).begin_snapshot(self.live.seq);
        let begun = ticket.map(|ticket| Underway::begin(self.live.clone(), ticket, self.bytes_since_snapshot));
        match begun {
            Ok(Ok(underway)) => self.underway = Some(underway),
            Ok(Err(error)) => tracing::warn!(%error, "no thread for a snapshot; it is tried again"),
            Err(error) => tracing::warn!(error = %Chain(&error), "no snapshot can be begun; it is tried again"),
        }
    }

    fn finish_snapshot(&mut self, why: &str) {
        let Some(underway) = self.underway.take() else { return };
        let (seq, bytes_before) = (underway.seq, underway.bytes_before);
        let made = underway.end();
        let named = made.map(|made| made.and_then(|written| self.name(written)));
        match named {
            Some(Ok(bytes)) => {
                self.snapshot_seq = seq;
                self.snapshot_bytes = bytes;
                self.bytes_since_snapshot = self.bytes_since_snapshot.saturating_sub(bytes_before);
                tracing::info!(seq, bytes, why, "snapshot written");
            }
            Some(Err(error)) => {
                tracing::warn!(error = %Chain(&error), "snapshot failed; events are folded at the next start");
            }
            None => tracing::error!("the thread that wrote a snapshot panicked; events are folded at the next start"),
        }
    }

    /// Names a written one as the latest; returns its size in bytes.
    fn name(&self, written: WrittenSnapshot) -> Result<u64, JournalError> {
        let bytes = written.bytes();
        lock(&self.journal).finish_snapshot(written).map(|()| bytes)
    }

    /// Saves the state; returns its size in bytes.
    fn save(&self) -> Result<u64, JournalError> {
        let ticket = lock(&self.journal).begin_snapshot(self.live.seq)?;
        self.name(ticket.write_with(SNAPSHOT_FORMAT, |out| self.live.write_snapshot(out))?)
    }

    /// Writes one here and now.
    fn snapshot(&mut self, why: &str) {
        self.finish_snapshot(why);
        if self.live.seq == self.snapshot_seq {
            return;
        }
        match self.save() {
            Ok(bytes) => {
                self.snapshot_seq = self.live.seq;
                self.snapshot_bytes = bytes;
                self.bytes_since_snapshot = 0;
                tracing::info!(seq = self.live.seq, bytes, why, "snapshot written");
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
        let compacted = lock(&self.journal).compact(up_to);
        match compacted {
            Ok(_) => self.archived_seq = up_to,
            Err(error) => tracing::warn!(error = %Chain(&error), "compaction failed"),
        }
    }

    fn read_events(&mut self, after_seq: u64, limit: usize) -> Result<Vec<(u64, EventRecord)>, SubmitError> {
        let read = lock(&self.journal).read(after_seq, limit.min(EVENTS_READ_MAX));
        let stored = read.map_err(|e| journal_fault(&e))?;
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

fn unavailable(error: &JournalError) -> Refusal {
    Refusal::new(
        ErrorCode::JournalUnavailable,
        format!("the journal cannot be written ({error}); nothing was changed, reads go on"),
    )
    .with_evidence(serde_json::json!({ "retry_after_s": Duration::from_secs(5).as_secs() }))
    .retryable()
}

/// A debug build found that the core decided what it may not.
#[cfg(debug_assertions)]
fn found_wrong(wrong: &claw_gateway::audit::Wrong) -> Refusal {
    let text =
        format!("the auditor refuses a decision ({wrong}); this is a fault of ours, and nothing more is decided");
    Refusal::new(ErrorCode::JournalUnavailable, text)
}

fn journal_fault(error: &JournalError) -> SubmitError {
    unavailable(error).into()
}
