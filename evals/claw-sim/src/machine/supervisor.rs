//! Virtual processes under supervisors of their own.
//!
//! As with the real supervisor: it is there before the program, outlives the
//! agent, keeps the lease, performs stops, ends what runs too long, and writes
//! down how the program ended. On a machine that only simulates, a process ends
//! with the agent.

use std::str::FromStr;
use std::sync::Arc;

use claw_proto::message::{DesiredWorkload, NodeWorkloadState, StatusCause};
use claw_proto::spec::RuntimeKind;
use clawnode::node::{Found, FoundWorkload, Lease, RuntimeEvent, WorkloadEnd};

use super::Machine;
use crate::Sabotage;
use crate::agenda::{Ctx, Happening};
use crate::execution::{ExecutionLog, Key, Truth};

/// Longest time from the supervisor to the program, milliseconds.
const BEGIN_MS_MAX: u64 = 400;

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Known to the agent only: with the agent it is gone.
    Announced,
    /// The supervisor is there.
    Prepared,
    /// The program runs.
    Running,
    /// It is over, and how.
    Over(WorkloadEnd),
}

/// TERM from an instant on, KILL from a later one on; the machine's clock.
#[derive(Debug, Clone, Copy)]
struct Reason {
    term_ms: u64,
    kill_ms: u64,
    cause: StatusCause,
}

/// What the program does of itself.
#[derive(Debug, Clone, Copy)]
struct Program {
    runs_ms: Option<u64>,
    exit: Truth,
    /// From TERM to its end; none if it ignores TERM.
    yields_ms: Option<u64>,
    cannot_start: bool,
}

/// The folder of one attempt.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(super) workload: Arc<DesiredWorkload>,
    pub(crate) phase: Phase,
    lease: Option<Lease>,
    stop: Option<Reason>,
    program: Program,
    began_ms: u64,
    due_at: Option<u64>,
}

fn label<T: FromStr>(workload: &DesiredWorkload, name: &str) -> Option<T> {
    workload.spec.labels.get(name).and_then(|text| text.parse().ok())
}

impl Program {
    fn of(workload: &DesiredWorkload) -> Self {
        let fails_first: u32 = label(workload, "claw.sim/fail-attempts").unwrap_or(0);
        let code =
            if workload.attempt.0 <= fails_first { 1 } else { label(workload, "claw.sim/exit-code").unwrap_or(0) };
        let exit = label(workload, "claw.sim/signal").map_or(Truth::Exited(code), Truth::Signaled);
        Self {
            runs_ms: label(workload, "claw.sim/run-for-ms"),
            exit,
            yields_ms: label(workload, "claw.sim/term-ms"),
            cannot_start: workload.spec.labels.contains_key("claw.sim/start-error"),
        }
    }
}

impl Folder {
    fn duration(&self) -> Option<Reason> {
        if self.workload.runtime == RuntimeKind::Sim {
            return None;
        }
        let limit_ms = self.workload.max_duration_s?.saturating_mul(1_000);
        let term_ms = self.began_ms + limit_ms;
        let kill_ms = term_ms + u64::from(self.workload.grace_s) * 1_000;
        Some(Reason { term_ms, kill_ms, cause: StatusCause::MaxDuration })
    }

    /// When the program ends as things stand, on the machine's clock, and how.
    fn next_end(&self) -> Option<(u64, Truth)> {
        let lease = self.lease.map(|l| Reason {
            term_ms: l.term_at_ms,
            kill_ms: l.kill_at_ms,
            cause: StatusCause::PartitionLease,
        });
        let reasons = || [self.stop, lease, self.duration()].into_iter().flatten();
        let forced = reasons()
            .map(|r| {
                let term_ms = r.term_ms.max(self.began_ms);
                self.program.yields_ms.map_or(r.kill_ms, |ms| r.kill_ms.min(term_ms + ms)).max(self.began_ms)
            })
            .min();
        let own = self.program.runs_ms.map(|ms| self.began_ms + ms);
        match (own, forced) {
            (Some(own), forced) if forced.is_none_or(|f| own <= f) => {
                // A program that ends after TERM was sent counts as ended by it.
                let told = reasons().filter(|r| r.term_ms < own).min_by_key(|r| r.term_ms);
                Some((own, told.map_or(self.program.exit, |r| Truth::Stopped(r.cause))))
            }
            (_, Some(forced)) => {
                let told = reasons().filter(|r| r.term_ms <= forced).min_by_key(|r| r.term_ms);
                Some((forced, Truth::Stopped(told.map_or(StatusCause::StopRequested, |r| r.cause))))
            }
            (_, None) => None,
        }
    }
}

fn end_of(truth: Truth) -> WorkloadEnd {
    match truth {
        Truth::Exited(code) => WorkloadEnd::exited(code),
        Truth::Signaled(signal) => WorkloadEnd {
            signal: Some(signal),
            ..WorkloadEnd::of(NodeWorkloadState::Failed, StatusCause::Signaled, "")
        },
        Truth::Stopped(cause) => WorkloadEnd::of(NodeWorkloadState::Stopped, cause, ""),
        Truth::MachineDied | Truth::SupervisorDied => {
            WorkloadEnd::of(NodeWorkloadState::Lost, StatusCause::SupervisorGone, "")
        }
        Truth::AgentDied => WorkloadEnd::of(NodeWorkloadState::Lost, StatusCause::AgentRestarted, ""),
    }
}

impl Machine {
    /// What simulates has no supervisors: there the agent alone ends leases.
    fn keeps_leases(&self, ctx: &Ctx) -> bool {
        self.kind == RuntimeKind::Process && ctx.sabotage != Some(Sabotage::NodesIgnoreLeases)
    }

    fn mono(&self, ctx: &Ctx) -> u64 {
        self.clock.mono_ms(ctx.now_ms)
    }

    /// The agent hands an attempt to the runtime.
    pub(super) fn runtime_start(&mut self, ctx: &mut Ctx, workload: Arc<DesiredWorkload>, lease: Option<Lease>) {
        let key = (workload.workload_id, workload.attempt);
        let lease = lease.filter(|_| self.keeps_leases(ctx));
        let program = Program::of(&workload);
        let folder =
            Folder { workload, phase: Phase::Announced, lease, stop: None, program, began_ms: 0, due_at: None };
        if self.folders.insert(key, folder).is_some() {
            ctx.fail("N1_an_attempt_is_handed_over_once", format!("m{} {key:?}", self.ix));
        }
        let delay_ms = ctx.rng.below(self.sluggish_ms + 1);
        ctx.after(delay_ms, Happening::Prepare { machine: self.ix, run: self.run, key });
    }

    /// The supervisor is there; from now on the agent may die.
    pub(crate) fn prepare(&mut self, ctx: &mut Ctx, run: u32, key: Key) {
        if run != self.run || self.agent.is_none() {
            return;
        }
        let Some(folder) = self.folders.get_mut(&key).filter(|folder| folder.phase == Phase::Announced) else {
            return;
        };
        folder.phase = Phase::Prepared;
        self.tell_progress(ctx, key, NodeWorkloadState::Starting);
        let delay_ms = ctx.rng.below(BEGIN_MS_MAX);
        ctx.after(delay_ms, Happening::Begin { machine: self.ix, boot: self.boot, key });
    }

    /// The supervisor starts the program.
    pub(crate) fn begin(&mut self, ctx: &mut Ctx, log: &mut ExecutionLog, boot: u32, key: Key) {
        if boot != self.boot || !self.is_up {
            return;
        }
        let now_ms = self.mono(ctx);
        let Some(folder) = self.folders.get_mut(&key).filter(|folder| folder.phase == Phase::Prepared) else {
            return;
        };
        if folder.program.cannot_start {
            let end = WorkloadEnd::of(NodeWorkloadState::Failed, StatusCause::StartFailed, "no such program");
            folder.phase = Phase::Over(end.clone());
            self.tell_end(ctx, key, end);
            return;
        }
        folder.phase = Phase::Running;
        folder.began_ms = now_ms;
        log.started(ctx, self.ix, &folder.workload);
        self.tell_progress(ctx, key, NodeWorkloadState::Running);
        self.begin_checkpoints(ctx, key);
        self.watch(ctx, key);
    }

    /// Makes sure that the supervisor looks again when something is due.
    fn watch(&mut self, ctx: &mut Ctx, key: Key) {
        let clock = self.clock;
        let Some(folder) = self.folders.get_mut(&key).filter(|folder| folder.phase == Phase::Running) else {
            return;
        };
        let Some((end_ms, _)) = folder.next_end() else {
            return;
        };
        let late_ms = ctx.rng.below(self.sluggish_ms + 1);
        let at_ms = clock.true_ms(end_ms).max(ctx.now_ms) + late_ms;
        if folder.due_at.is_none_or(|known| at_ms < known) {
            folder.due_at = Some(at_ms);
            ctx.at(at_ms, Happening::Due { machine: self.ix, boot: self.boot, key });
        }
    }

    /// Something may be due: the program ends, or has been given more time.
    pub(crate) fn due(&mut self, ctx: &mut Ctx, log: &mut ExecutionLog, boot: u32, key: Key) {
        if boot != self.boot || !self.is_up {
            return;
        }
        let now_ms = self.mono(ctx);
        let Some(folder) = self.folders.get_mut(&key).filter(|folder| folder.phase == Phase::Running) else {
            return;
        };
        if folder.due_at != Some(ctx.now_ms) {
            return;
        }
        folder.due_at = None;
        match folder.next_end() {
            Some((end_ms, truth)) if end_ms <= now_ms => self.end(ctx, log, key, truth),
            Some(_) => self.watch(ctx, key),
            None => {}
        }
    }

    fn end(&mut self, ctx: &mut Ctx, log: &mut ExecutionLog, key: Key, truth: Truth) {
        let Some(folder) = self.folders.get_mut(&key) else {
            return;
        };
        let end = end_of(truth);
        folder.phase = Phase::Over(end.clone());
        let on_partition = folder.workload.on_partition;
        log.ended(ctx, key, truth);
        if truth == Truth::Stopped(StatusCause::PartitionLease) {
            ctx.counts.lease_ends += 1;
            self.judge_lease_end(ctx, key, on_partition);
        }
        self.tell_end(ctx, key, end);
    }

    /// A lease ends only for want of the gateway.
    fn judge_lease_end(&self, ctx: &mut Ctx, key: Key, on_partition: claw_proto::spec::OnPartition) {
        use claw_proto::spec::OnPartition;
        let OnPartition::StopAfter(seconds) = on_partition else {
            let detail = format!("m{} {key:?} keeps running by its spec and was ended for its lease", self.ix);
            return ctx.fail("L1_keep_is_kept", detail);
        };
        let allowed_ms = ctx.trouble_until_ms[self.ix] + u64::from(seconds) * 1_020 + 6_000;
        if !ctx.unordered && ctx.now_ms > allowed_ms {
            let detail = format!(
                "m{} {key:?} (stop_after {seconds} s) was ended for its lease at {} ms; its way was last disturbed until {} ms",
                self.ix, ctx.now_ms, ctx.trouble_until_ms[self.ix]
            );
            ctx.fail("L2_no_lease_ends_without_a_partition", detail);
        }
    }

    fn tell_progress(&mut self, ctx: &mut Ctx, key: Key, state: NodeWorkloadState) {
        let (workload_id, attempt) = key;
        let event = RuntimeEvent::Progress { workload_id, attempt, state, detail: String::new() };
        self.tell(ctx, event);
    }

    fn tell_end(&mut self, ctx: &mut Ctx, key: Key, end: WorkloadEnd) {
        let (workload_id, attempt) = key;
        self.tell(ctx, RuntimeEvent::Ended { workload_id, attempt, end });
    }

    /// News for the agent of this moment. What it does not live to hear it finds at its next start.
    pub(super) fn tell(&mut self, ctx: &mut Ctx, event: RuntimeEvent) {
        if self.agent.is_some() {
            ctx.after(1, Happening::Told { machine: self.ix, run: self.run, event });
        }
    }

    pub(super) fn runtime_stop(&mut self, ctx: &mut Ctx, key: Key, grace_ms: u64, cause: StatusCause) {
        if ctx.sabotage == Some(Sabotage::NodesIgnoreLeases) && cause == StatusCause::PartitionLease {
            return;
        }
        let now_ms = self.mono(ctx);
        if let Some(folder) = self.folders.get_mut(&key) {
            let stop = folder.stop.get_or_insert(Reason { term_ms: now_ms, kill_ms: now_ms + grace_ms, cause });
            stop.kill_ms = stop.kill_ms.min(now_ms + grace_ms);
            self.watch(ctx, key);
        }
    }

    pub(super) fn runtime_renew(&mut self, ctx: &mut Ctx, key: Key, lease: Lease) {
        let keeps = self.keeps_leases(ctx);
        if let Some(folder) = self.folders.get_mut(&key).filter(|_| keeps) {
            if folder.lease.is_some_and(|known| known.kill_at_ms > lease.kill_at_ms) {
                ctx.fail("N2_a_lease_never_moves_back", format!("m{} {key:?}", self.ix));
            }
            folder.lease = Some(lease);
        }
    }

    /// The gateway has the final record: the folder goes.
    pub(super) fn runtime_forget(&mut self, ctx: &mut Ctx, key: Key) {
        if self.folders.get(&key).is_some_and(|folder| matches!(folder.phase, Phase::Prepared | Phase::Running)) {
            ctx.fail("N3_what_runs_is_not_forgotten", format!("m{} {key:?}", self.ix));
        }
        self.folders.remove(&key);
    }

    /// What an agent finds when it starts.
    pub(super) fn found(&self, known: &[Arc<DesiredWorkload>]) -> Vec<FoundWorkload> {
        let mut found: Vec<FoundWorkload> = self
            .folders
            .values()
            .filter_map(|folder| {
                let state = match &folder.phase {
                    Phase::Announced => return None,
                    Phase::Prepared => Found::Live { state: NodeWorkloadState::Starting, lease: folder.lease },
                    Phase::Running => Found::Live { state: NodeWorkloadState::Running, lease: folder.lease },
                    Phase::Over(end) => Found::Ended(end.clone()),
                };
                Some(FoundWorkload { workload: Arc::clone(&folder.workload), found: state })
            })
            .collect();
        for workload in known {
            if !self.folders.contains_key(&(workload.workload_id, workload.attempt)) {
                found.push(FoundWorkload { workload: Arc::clone(workload), found: Found::NeverStarted });
            }
        }
        found
    }

    /// The agent is gone: what only it knew is gone too, and what it simulated.
    pub(super) fn agent_gone(&mut self, ctx: &mut Ctx, log: &mut ExecutionLog) {
        self.folders.retain(|_, folder| folder.phase != Phase::Announced);
        if self.kind == RuntimeKind::Sim {
            self.end_all(ctx, log, Truth::AgentDied);
        }
    }

    /// Everything that runs here ends without anybody to tell.
    pub(super) fn end_all(&mut self, ctx: &mut Ctx, log: &mut ExecutionLog, truth: Truth) {
        for (key, folder) in &mut self.folders {
            if matches!(folder.phase, Phase::Prepared | Phase::Running) {
                if folder.phase == Phase::Running {
                    log.ended(ctx, *key, truth);
                }
                folder.phase = Phase::Over(end_of(truth));
            }
        }
    }

    /// Somebody kills a supervisor; the program dies with it, and the agent, if
    /// there is one, sees that.
    pub(crate) fn kill_a_supervisor(&mut self, ctx: &mut Ctx, log: &mut ExecutionLog) {
        let running: Vec<Key> =
            self.folders.iter().filter(|(_, f)| f.phase == Phase::Running).map(|(key, _)| *key).collect();
        if !running.is_empty() && self.kind == RuntimeKind::Process {
            let key = running[ctx.rng.index(running.len())];
            self.end(ctx, log, key, Truth::SupervisorDied);
        }
    }
}
