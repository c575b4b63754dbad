//! Deciding, group commit, and what comes after it.

use claw_gateway::{Caller, Cluster, Command, Decision, Effect, EventRecord, Report, advance, invariants};
use claw_proto::topology::NodeCapabilities;
use claw_tools::outcome::Outcome;
use claw_tools::refusal::{ErrorCode, Refusal};

use super::{Process, SimGateway, audited};
use crate::agenda::{Ctx, Happening};
use crate::net::Net;
use crate::{Sabotage, agenda};

/// Where a gateway dies; the named crash points of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    BeforeAppend,
    AfterAppend,
    AfterFsync,
    BeforeEffect,
    AfterEffect,
    BeforeReply,
}

impl CrashPoint {
    pub(crate) const ALL: [Self; 6] = [
        Self::BeforeAppend,
        Self::AfterAppend,
        Self::AfterFsync,
        Self::BeforeEffect,
        Self::AfterEffect,
        Self::BeforeReply,
    ];
}

/// Who waits for the report of a command.
#[derive(Debug)]
pub(super) enum ReplyTo {
    Nobody,
    Started,
    Judged,
    Registered { conn: u32 },
    Status { conn: u32, last: u64 },
    Capabilities { conn: u32, capabilities: Box<NodeCapabilities> },
    Request(usize),
}

/// A command that waits for the core.
#[derive(Debug)]
pub(super) struct Submission {
    command: Command,
    caller: Caller,
    reply: ReplyTo,
}

type Result<T> = std::result::Result<T, Refusal>;

#[derive(Debug)]
struct Waiting {
    reply: ReplyTo,
    result: Result<(Report, Vec<Effect>)>,
    n_events: usize,
    /// Effects and reply were given out already (a broken gateway).
    early: bool,
}

/// Decided, on its way to the disk.
#[derive(Debug)]
pub(super) struct Batch {
    before: Cluster,
    records: Vec<EventRecord>,
    waiting: Vec<Waiting>,
    has_mutation: bool,
}

const fn is_mutation(command: &Command) -> bool {
    matches!(command, Command::Operate { .. } | Command::PlanApply { .. } | Command::ApprovalDecide { .. })
}

fn unavailable() -> Refusal {
    Refusal::new(ErrorCode::JournalUnavailable, "the journal cannot be written; nothing was changed").retryable()
}

impl SimGateway {
    /// A caller's request.
    pub(crate) fn request(&mut self, ctx: &mut Ctx, net: &mut Net, command: Command, caller: Caller, request: usize) {
        self.submit(ctx, net, command, caller, ReplyTo::Request(request));
    }

    pub(super) fn submit(&mut self, ctx: &mut Ctx, net: &mut Net, command: Command, caller: Caller, reply: ReplyTo) {
        let Some(process) = self.process.as_deref_mut() else {
            return;
        };
        process.inbox.push(Submission { command, caller, reply });
        self.decide(ctx, net);
    }

    /// Decides all that waits, unless the disk is being waited for.
    fn decide(&mut self, ctx: &mut Ctx, net: &mut Net) {
        let on_reserve = ctx.now_ms < self.reserve_until_ms;
        let Some(process) = self.process.as_deref_mut() else {
            return;
        };
        if process.committing.is_some() || process.inbox.is_empty() {
            return;
        }
        let mut batch =
            Batch { before: process.live.clone(), records: Vec::new(), waiting: Vec::new(), has_mutation: false };
        process.ids.now_ms = ctx.wall().unix_ms();
        for Submission { command, mut caller, reply } in std::mem::take(&mut process.inbox) {
            caller.now = ctx.wall();
            let mutation = is_mutation(&command);
            batch.has_mutation |= mutation;
            let result =
                if mutation && on_reserve { Err(unavailable()) } else { process.decide_one(ctx, command, &caller) };
            let (result, events) = match result {
                Ok((events, effects, report)) => (Ok((report, effects)), events),
                Err(refusal) => (Err(refusal), Vec::new()),
            };
            let n_events = events.len();
            batch.records.extend(events);
            batch.waiting.push(Waiting { reply, result, n_events, early: false });
        }
        let writes = !batch.records.is_empty();
        process.committing = Some(batch);
        if ctx.sabotage == Some(Sabotage::EffectsBeforeDurability) {
            self.give_early(ctx, net, false);
        } else if ctx.sabotage == Some(Sabotage::AnswersBeforeDurability) {
            self.give_early(ctx, net, true);
        }
        if writes {
            let sync_ms = if ctx.rng.chance(30) { ctx.rng.between(200, 1_500) } else { ctx.rng.between(1, 12) };
            ctx.after(sync_ms, Happening::Synced { run: self.run });
        } else {
            self.committed(ctx, net);
        }
    }

    /// A gateway that does not wait for its disk.
    fn give_early(&mut self, ctx: &mut Ctx, net: &mut Net, answers: bool) {
        let Some(process) = self.process.as_deref_mut() else {
            return;
        };
        let Some(batch) = &mut process.committing else {
            return;
        };
        let mut early = Vec::new();
        for waiting in batch.waiting.iter_mut().filter(|w| w.n_events > 0) {
            let request = matches!(waiting.reply, ReplyTo::Request(_));
            if let (true, true, Ok((report, _))) = (answers, request, &waiting.result) {
                early.push((std::mem::replace(&mut waiting.reply, ReplyTo::Nobody), Ok(report.clone())));
            }
            waiting.early = !answers;
        }
        let effects: Vec<Effect> = if answers {
            Vec::new()
        } else {
            batch
                .waiting
                .iter_mut()
                .filter_map(|w| w.result.as_mut().ok())
                .flat_map(|r| std::mem::take(&mut r.1))
                .collect()
        };
        let shown = process.live.clone();
        let durable = std::mem::replace(&mut process.durable, shown);
        for effect in effects {
            self.perform_now(ctx, net, effect);
        }
        if let Some(process) = self.process.as_deref_mut() {
            process.durable = durable;
        }
        for (reply, result) in early {
            self.answer(ctx, net, reply, result);
        }
    }

    /// The disk has answered.
    pub(crate) fn synced(&mut self, ctx: &mut Ctx, net: &mut Net, run: u32) {
        if run == self.run && self.process.is_some() {
            self.committed(ctx, net);
        }
    }

    /// Comes to a named point; true if the gateway dies there.
    fn dies_at(&mut self, ctx: &mut Ctx, net: &mut Net, point: CrashPoint, armed: bool) -> bool {
        if !armed || self.crash_at != Some(point) {
            return false;
        }
        self.crash_at = None;
        ctx.note(|| format!("GATEWAY at its crash point {point:?}"));
        self.crash(ctx, net);
        true
    }

    fn committed(&mut self, ctx: &mut Ctx, net: &mut Net) {
        let Some(batch) = self.process.as_deref_mut().and_then(|process| process.committing.take()) else {
            return;
        };
        let Batch { before, records, waiting, has_mutation: armed } = batch;
        if self.dies_at(ctx, net, CrashPoint::BeforeAppend, armed)
            || self.dies_at(ctx, net, CrashPoint::AfterAppend, armed)
        {
            return;
        }
        if !records.is_empty() {
            if ctx.now_ms < self.fails_until_ms {
                self.fall_back(ctx, net, before, waiting);
                self.decide(ctx, net);
                return;
            }
            let mut rest = &records[..];
            for Waiting { n_events, .. } in &waiting {
                let (decision, later) = rest.split_at(*n_events);
                audited(ctx, &mut self.auditor, decision);
                rest = later;
            }
            self.journal.extend(ctx, records);
            if self.dies_at(ctx, net, CrashPoint::AfterFsync, armed) {
                return;
            }
            if let Some(process) = self.process.as_deref_mut() {
                process.durable = process.live.clone();
                process.writable = true;
            }
        }
        self.finish(ctx, net, waiting, armed);
        self.decide(ctx, net);
    }

    /// Effects, then answers.
    fn finish(&mut self, ctx: &mut Ctx, net: &mut Net, waiting: Vec<Waiting>, armed: bool) {
        if self.dies_at(ctx, net, CrashPoint::BeforeEffect, armed) {
            return;
        }
        let mut replies = Vec::with_capacity(waiting.len());
        for Waiting { reply, result, .. } in waiting {
            let result = result.map(|(report, effects)| {
                for effect in effects {
                    self.perform(ctx, net, effect);
                }
                report
            });
            replies.push((reply, result));
        }
        if self.dies_at(ctx, net, CrashPoint::AfterEffect, armed)
            || self.dies_at(ctx, net, CrashPoint::BeforeReply, armed)
        {
            return;
        }
        for (reply, result) in replies {
            self.answer(ctx, net, reply, result);
        }
    }

    /// Back to what is durable; whoever was decided on nothing but that is told so.
    fn fall_back(&mut self, ctx: &mut Ctx, net: &mut Net, before: Cluster, waiting: Vec<Waiting>) {
        ctx.counts.journal_failures += 1;
        ctx.note(|| "JOURNAL cannot be written: back to the durable state".to_owned());
        if let Some(process) = self.process.as_deref_mut() {
            process.live = before;
            process.writable = false;
        }
        let mut ahead = false;
        for Waiting { reply, result, n_events, early } in waiting {
            ahead |= n_events > 0;
            let answer = match result {
                Err(refusal) if !ahead => Err(refusal),
                Ok((report, effects)) if !ahead && !early => {
                    for effect in effects {
                        self.perform(ctx, net, effect);
                    }
                    Ok(report)
                }
                Ok(_) | Err(_) => Err(unavailable()),
            };
            self.answer(ctx, net, reply, answer);
        }
    }

    fn answer(&mut self, ctx: &mut Ctx, net: &mut Net, reply: ReplyTo, result: Result<Report>) {
        match reply {
            ReplyTo::Nobody => {}
            ReplyTo::Started => self.begun(ctx, result.is_ok()),
            ReplyTo::Judged => self.judged(ctx, net),
            ReplyTo::Registered { conn } => self.registered(ctx, net, conn, result),
            ReplyTo::Status { conn, last } => self.status_done(ctx, net, conn, last, result.map(drop)),
            ReplyTo::Capabilities { conn, capabilities } => {
                self.capabilities_done(ctx, net, conn, capabilities, result.map(drop));
            }
            ReplyTo::Request(request) => {
                let answer = result.map(|report| match report {
                    Report::Outcome { outcome, replayed } => {
                        ctx.counts.replays += u64::from(replayed);
                        *outcome
                    }
                    other => Outcome::new(claw_tools::outcome::EffectKind::NoChange, format!("{other:?}")),
                });
                send_answer(ctx, request, answer);
            }
        }
    }

    /// The first command is durable: the gateway serves.
    fn begun(&mut self, ctx: &mut Ctx, durable: bool) {
        if !durable {
            // The server does not start on a journal that it cannot write; it is started again.
            self.expected = self.process.take().map(|process| process.durable);
            ctx.note(|| "GATEWAY cannot start: its journal cannot be written".to_owned());
            ctx.disturb_all(ctx.now_ms + 20_000);
            ctx.after(2_000, Happening::GatewayStart);
            return;
        }
        if let Some(process) = self.process.as_deref_mut() {
            process.ready = true;
            process.started_ms = ctx.now_ms.min(agenda::since_start(process.durable.started_at));
        }
        ctx.after(1_000, Happening::GatewaySecond { run: self.run });
    }
}

impl Process {
    fn decide_one(
        &mut self,
        ctx: &mut Ctx,
        command: Command,
        caller: &Caller,
    ) -> Result<(Vec<EventRecord>, Vec<Effect>, Report)> {
        let decided = advance(&mut self.live, command, caller, &mut self.ids);
        let Decision { events, effects, report, .. } = decided?;
        if !events.is_empty() {
            if let Err(broken) = invariants::check(&self.live) {
                ctx.fail(broken.name, broken.detail);
            }
            if ctx.thorough
                && let Err(broken) = invariants::check_indexes(&self.live)
            {
                ctx.fail(broken.name, broken.detail);
            }
        }
        for record in &events {
            note_event(ctx, record);
        }
        Ok((events, effects, report))
    }
}

fn note_event(ctx: &mut Ctx, record: &EventRecord) {
    use claw_gateway::Event;
    use claw_tools::workloads::WorkloadReason;
    match &record.event {
        Event::AttemptEnded { why: WorkloadReason::NodeLost, .. } => ctx.counts.given_up += 1,
        Event::CheckpointWritten { .. } => ctx.counts.checkpoints += 1,
        Event::WorkloadStopping { notice: true, .. } => ctx.counts.notices += 1,
        Event::NoticeEnded { acked: true, .. } => ctx.counts.notices_answered += 1,
        Event::WorkloadAdopted { .. } => ctx.counts.adopted += 1,
        Event::WorkloadSubmitted { .. } => ctx.counts.workloads += 1,
        _ => {}
    }
    if ctx.is_traced() && !matches!(record.event, Event::ReceiptStored { .. }) {
        ctx.note(|| format!("  event {}", claw_gateway::query::describe_event(&record.event)));
    }
}

/// An answer to a caller travels, and may be lost.
fn send_answer(ctx: &mut Ctx, request: usize, answer: Result<Outcome>) {
    if !ctx.calm && ctx.rng.chance(60) {
        ctx.note(|| format!("the answer to request {request} is lost"));
        return;
    }
    let delay_ms = ctx.rng.between(1, 15);
    ctx.after(delay_ms, Happening::Answer { request, answer: Box::new(answer) });
}
