//! `schedule_simulate`: what would happen, on a copy of the fleet. The copy is
//! driven by the same decisions as the fleet itself; only what programs and
//! nodes would do is imagined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::ids::{Attempt, CountingIds, GpuUuid, IdSource, NodeId, WorkloadId};
use claw_proto::message::{NodeWorkloadState, StatusCause, StatusRecord};
use claw_proto::spec::OnPartition;
use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::outcome::Assumption;
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::scheduling::{
    ImaginedNodes, ImaginedWorkload, Moment, MomentKind, ScheduleSimulateParams, ScheduleSimulation, StillWaits,
};
use claw_tools::workloads::{WorkloadReason, WorkloadState};
use serde_json::json;

use super::queue::apply;
use crate::Cluster;
use crate::command::{Caller, Command};
use crate::event::Event;
use crate::registry::{NodeEntry, NodeUsage};
use crate::scheduler::{Decision, decide_for};
use crate::step::{advance, checked_spec, lose_node, partition_lease_end, reschedule};
use crate::workload::WorkloadEntry;

/// How far ahead unless asked otherwise, seconds.
const HORIZON_S_DEFAULT: u64 = 24 * 60 * 60;
/// Most moments that are told.
const MOMENTS_MAX: usize = 200;
/// Most moments that are lived through.
const STEPS_MAX: usize = 20_000;
/// How often a gateway looks at its clock, milliseconds.
const TICK_MS: i64 = 1_000;
/// Most workloads that are told to wait at the end, or assumed to run on.
const TOLD_MAX: usize = 50;

/// What is due, in order of time and then of this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// It has run to its end.
    End(WorkloadId),
    /// It has used up its grace.
    Gone(WorkloadId),
    /// It is submitted.
    Submit(usize),
    /// A pause, a lease or a time of waiting is over: the fleet looks at its queue.
    Look,
}

/// How long a program runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Runs {
    /// It ends by itself, well, after so many seconds.
    For(u64),
    /// It is ended by its limit, seconds.
    UpTo(u64),
}

impl Runs {
    const fn seconds(self) -> u64 {
        match self {
            Self::For(seconds) | Self::UpTo(seconds) => seconds,
        }
    }
}

/// What became of one workload in a future.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    /// When it started, if it did.
    pub(super) starts_at: Option<Timestamp>,
    /// Moments that were lived through.
    pub(super) steps: usize,
}

struct World<'a> {
    cluster: Cluster,
    caller: Caller,
    from: Timestamp,
    ids: &'a mut dyn IdSource,
    due: BTreeSet<(Timestamp, Due)>,
    /// Specifications that are yet to be submitted, with how long they run.
    imagined: Vec<(Arc<ValidSpec>, Option<Runs>)>,
    /// How long a workload runs from each start.
    runs: BTreeMap<WorkloadId, Runs>,
    added: BTreeSet<WorkloadId>,
    moments: Vec<Moment>,
    assumptions: Vec<Assumption>,
    /// The one whose start is waited for, and when it has started.
    awaited: Option<(WorkloadId, Option<Timestamp>)>,
}

/// `schedule_simulate`.
pub fn simulate(
    cluster: &Cluster,
    p: &ScheduleSimulateParams,
    caller: &Caller,
    ids: &mut dyn IdSource,
) -> Result<ScheduleSimulation, Refusal> {
    let horizon_s = p.horizon_s.unwrap_or(HORIZON_S_DEFAULT);
    let mut world = World::of(cluster.detached(), caller.clone(), ids);
    world.known_ends();
    world.known_pauses();
    for text in &p.stop {
        world.stop(text)?;
    }
    for text in &p.lose_nodes {
        let id = cluster.resolve_node(text)?.node_id;
        world.lose_node(id);
    }
    for nodes in &p.add_nodes {
        world.add_nodes(nodes)?;
    }
    for wish in &p.add {
        world.imagine(wish)?;
    }
    world.run(after(caller.now, horizon_s), STEPS_MAX);
    Ok(world.told(cluster.revision, horizon_s))
}

/// Runs the queue of a copy ahead until one workload starts, with nothing else submitted: `runs` is
/// how long programs run that say so, or of which it is expected; `horizon_s` and `steps_max`
/// bound the look.
pub(super) fn run_ahead(
    cluster: &Cluster,
    now: Timestamp,
    runs: BTreeMap<WorkloadId, Runs>,
    awaited: WorkloadId,
    (horizon_s, steps_max): (u64, usize),
) -> Ahead {
    let mut ids = CountingIds::new(u32::MAX);
    let mut world = World::of(cluster.clone(), Caller::system(now), &mut ids);
    world.runs = runs;
    world.awaited = Some((awaited, None));
    world.known_ends();
    world.known_pauses();
    let steps = world.run(after(now, horizon_s), steps_max);
    Ahead { starts_at: world.awaited.and_then(|(_, at)| at), steps }
}

/// What has not ended, in order of ids.
pub(super) fn not_ended(cluster: &Cluster) -> Vec<Arc<WorkloadEntry>> {
    let held = cluster.nodes.iter().flat_map(|node| node.usage.workloads.iter().copied());
    let ids: BTreeSet<WorkloadId> = cluster.workloads.queue().chain(held).collect();
    ids.iter().filter_map(|id| cluster.workloads.get(*id).cloned()).collect()
}

impl<'a> World<'a> {
    /// As the fleet stands, with nothing due yet.
    fn of(cluster: Cluster, caller: Caller, ids: &'a mut dyn IdSource) -> Self {
        Self {
            cluster,
            from: caller.now,
            caller,
            ids,
            due: BTreeSet::new(),
            imagined: Vec::new(),
            runs: BTreeMap::new(),
            added: BTreeSet::new(),
            moments: Vec::new(),
            assumptions: Vec::new(),
            awaited: None,
        }
    }
}

impl World<'_> {
    /// Nobody opens a gate here: of those who wait at the end behind one it is said.
    fn assume_gates(&mut self) {
        let workloads = &self.cluster.workloads;
        let held: Vec<&str> = workloads
            .queue()
            .filter_map(|id| workloads.get(id))
            .filter(|w| !w.gates.is_empty())
            .map(|w| w.name.as_str())
            .collect();
        if !held.is_empty() {
            let why = format!("{} workload(s) wait behind gates, which are taken to stay closed", held.len());
            let value = json!(held[..held.len().min(TOLD_MAX)]);
            self.assumptions.push(Assumption { field: "gates".into(), value, why });
        }
    }

    /// When what runs now will end, as far as it says.
    fn known_ends(&mut self) {
        let mut open = Vec::new();
        for w in not_ended(&self.cluster) {
            let limit = w.spec.spec().max_duration_s;
            if let Some(seconds) = limit {
                self.runs.entry(w.workload_id).or_insert(Runs::UpTo(seconds));
            }
            let runs = self.runs.get(&w.workload_id).map(|runs| runs.seconds());
            if w.state == WorkloadState::Stopping {
                // It was told then; what is left of its grace is what counts.
                let gone = after(w.since, u64::from(w.stop_grace_s)).max(self.from);
                self.due.insert((gone, Due::Gone(w.workload_id)));
            } else if w.live().is_some() {
                let started = w.started_at().unwrap_or(self.from);
                match runs {
                    Some(seconds) => {
                        let end = after(started, seconds).max(self.from);
                        self.due.insert((end, Due::End(w.workload_id)));
                    }
                    None => open.push(w.name.clone()),
                }
            }
        }
        let n_open = open.len();
        open.truncate(TOLD_MAX);
        if n_open > 0 {
            self.assumptions.push(Assumption {
                field: "max_duration_s".into(),
                value: json!(open),
                why: format!(
                    "{n_open} running workload(s) say no max_duration_s and are taken to run on beyond the horizon"
                ),
            });
        }
    }

    /// When time alone may change what waits: pauses end, leases run out, long waits are noticed, work may be stopped.
    fn known_pauses(&mut self) {
        let policy = Arc::clone(&self.cluster.policy);
        let mut looks: Vec<Timestamp> = self.cluster.reservations.iter().map(|kept| kept.ends_at).collect();
        for w in not_ended(&self.cluster) {
            looks.extend(w.not_before);
            looks.push(w.since.plus_ms(policy.reserve_after_ms));
            for part in w.lives() {
                looks.extend(part.started_at.map(|at| at.plus_ms(policy.preemption.min_run_ms)));
                let node = self.cluster.nodes.get(part.node_id).filter(|n| n.link == NodeLink::Unreachable);
                looks.extend(node.and_then(|node| partition_lease_end(&self.cluster, node, &w)));
            }
        }
        for at in looks {
            self.look(at);
        }
    }

    fn look(&mut self, at: Timestamp) {
        if at > self.caller.now {
            self.due.insert((at, Due::Look));
        }
    }

    /// It ends at once.
    fn stop(&mut self, text: &str) -> Result<(), Refusal> {
        let w = Arc::clone(self.cluster.resolve_workload(text)?);
        if w.state.is_final() {
            let why = format!("{} has ended already ({}, {})", w.name, w.state, w.reason);
            return Err(Refusal::new(ErrorCode::InvalidState, why).with_field("stop", text));
        }
        let (workload_id, state, why) = (w.workload_id, WorkloadState::Stopped, WorkloadReason::StopRequested);
        self.note(workload_id, MomentKind::Ends);
        self.forget(workload_id);
        for part in w.lives() {
            let ended = Event::AttemptEnded {
                workload_id,
                attempt: part.attempt,
                state,
                why,
                detail: String::new(),
                exit_code: None,
                signal: None,
                node_at: None,
            };
            apply(&mut self.cluster, &self.caller, ended);
        }
        apply(&mut self.cluster, &self.caller, Event::WorkloadEnded { workload_id, state, why });
        Ok(())
    }

    fn imagine(&mut self, wish: &ImaginedWorkload) -> Result<(), Refusal> {
        let spec = Arc::new(checked_spec(&self.cluster, &self.caller, wish.spec.clone())?);
        let runs = wish.run_s.map(Runs::For).or(spec.spec().max_duration_s.map(Runs::UpTo));
        if runs.is_none() {
            self.assumptions.push(Assumption {
                field: format!("add[{}].run_s", self.imagined.len()),
                value: json!(null),
                why: "not said: it runs on beyond the horizon".into(),
            });
        }
        let at = after(self.from, wish.after_s.unwrap_or(0));
        self.due.insert((at, Due::Submit(self.imagined.len())));
        self.imagined.push((spec, runs));
        Ok(())
    }

    fn add_nodes(&mut self, nodes: &ImaginedNodes) -> Result<(), Refusal> {
        let like = self.cluster.resolve_node(&nodes.like)?.clone();
        for n in 1..=nodes.count {
            let node_id = NodeId::next(self.ids);
            let name = format!("{}-imagined-{n}", like.name);
            let mut capabilities = like.capabilities.as_deref().cloned();
            for gpu in capabilities.iter_mut().flat_map(|c| &mut c.gpus) {
                gpu.uuid = GpuUuid(format!("{}-{name}", gpu.uuid));
                if let Some(slice) = &mut gpu.mig {
                    slice.parent = GpuUuid(format!("{}-{name}", slice.parent));
                }
            }
            let entry = NodeEntry {
                node_id,
                name,
                link: NodeLink::Online,
                schedulable: Schedulable::Active,
                capabilities: capabilities.map(Arc::new),
                orphans: BTreeMap::new(),
                usage: NodeUsage::default(),
                ..(*like).clone()
            };
            self.cluster.nodes.insert(entry);
        }
        Ok(())
    }

    /// It is gone at once with what runs there, without waiting for leases; what becomes
    /// of its work is decided as after a lease. Work that keeps running when cut off is not lost.
    fn lose_node(&mut self, node_id: NodeId) {
        self.cluster.nodes.update(node_id, |n| n.link = NodeLink::Unreachable);
        let held = self.cluster.nodes.get(node_id).map(|n| n.usage.workloads.clone()).unwrap_or_default();
        let keeps = |id: &WorkloadId| {
            let w = self.cluster.workloads.get(*id)?;
            (w.spec.on_partition() == OnPartition::Keep).then(|| w.name.clone())
        };
        let kept: Vec<String> = held.iter().filter_map(keeps).take(TOLD_MAX).collect();
        if !kept.is_empty() {
            self.assumptions.push(Assumption {
                field: "lose_nodes".into(),
                value: json!(kept),
                why: "on_partition is keep: cut off it runs on, and is never started elsewhere".into(),
            });
        }
        let decision = lose_node(&mut self.cluster, &self.caller, self.ids, node_id);
        self.take(decision);
    }

    /// Lives through what is due, until the horizon or the awaited start; how many moments that were.
    fn run(&mut self, horizon: Timestamp, steps_max: usize) -> usize {
        self.decide();
        self.look(self.caller.now.plus_ms(TICK_MS));
        let mut steps = 0;
        while let Some((at, due)) = self.due.pop_first() {
            let is_there = self.awaited.is_some_and(|(_, started)| started.is_some());
            if at > horizon || steps >= steps_max || is_there {
                break;
            }
            steps += 1;
            self.caller.now = at.max(self.caller.now);
            let seq = self.cluster.seq;
            match due {
                Due::End(id) => self.program_ends(id),
                Due::Gone(id) => self.report(id, (NodeWorkloadState::Stopped, StatusCause::StopRequested, None)),
                Due::Submit(n) => self.submit(n),
                Due::Look => self.command(Command::Tick),
            }
            // Something has changed: the next look at the clock comes soon, and may find more.
            if self.cluster.seq != seq {
                self.look(self.caller.now.plus_ms(TICK_MS));
            }
        }
        steps
    }

    /// Looks at the whole queue; the copy was changed in ways that no event tells.
    fn decide(&mut self) {
        let decision = reschedule(&mut self.cluster, &self.caller, self.ids);
        self.take(decision);
    }

    fn program_ends(&mut self, id: WorkloadId) {
        match self.runs.get(&id) {
            Some(Runs::UpTo(_)) => self.report(id, (NodeWorkloadState::Stopped, StatusCause::MaxDuration, None)),
            Some(Runs::For(_)) | None => self.report(id, (NodeWorkloadState::Completed, StatusCause::Exited, Some(0))),
        }
    }

    /// Every node that has a part of it says so.
    fn report(&mut self, workload_id: WorkloadId, told: (NodeWorkloadState, StatusCause, Option<i32>)) {
        let Some(entry) = self.cluster.workloads.get(workload_id).cloned() else { return };
        for part in entry.lives() {
            let record = StatusRecord {
                record: 0,
                workload_id,
                attempt: part.attempt,
                state: told.0,
                cause: told.1,
                detail: String::new(),
                exit_code: told.2,
                signal: None,
                at: self.caller.now,
                simulated: part.simulated,
                checkpoint: None,
            };
            self.command(Command::NodeStatus { node_id: part.node_id, records: vec![record] });
        }
    }

    /// A command, decided as on the fleet. None of those that are given here can be refused
    /// but for a node that is not there any more.
    fn command(&mut self, command: Command) {
        if let Ok(decision) = advance(&mut self.cluster, command, &self.caller, self.ids) {
            self.take(decision);
        }
    }

    /// What was decided happens: what is placed runs, what was told to end is gone after its grace.
    fn take(&mut self, decision: crate::step::Decision) {
        for record in decision.events {
            match record.event {
                Event::WorkloadPlaced { workload_id, attempt, part, .. } => {
                    let is_last = part.is_none_or(|part| part.node_rank + 1 == part.n_nodes);
                    self.part_runs(workload_id, attempt, is_last);
                }
                Event::WorkloadStopping { workload_id, grace_s, why, .. } => {
                    if why == WorkloadReason::Preempted {
                        self.note(workload_id, MomentKind::MakesRoom);
                    }
                    self.forget(workload_id);
                    let gone = after(self.caller.now, u64::from(grace_s));
                    self.due.insert((gone, Due::Gone(workload_id)));
                }
                Event::AttemptEnded { workload_id, state: WorkloadState::Lost, .. } => {
                    self.note(workload_id, MomentKind::Lost);
                    self.forget(workload_id);
                }
                Event::WorkloadEnded { workload_id, .. } => {
                    self.note(workload_id, MomentKind::Ends);
                    self.forget(workload_id);
                }
                Event::WorkloadRequeued { workload_id, not_before, counts, .. } => {
                    // Its program ended, and is started again.
                    if counts {
                        self.note(workload_id, MomentKind::Ends);
                    }
                    self.forget(workload_id);
                    self.look(not_before.unwrap_or(self.caller.now));
                    self.look(self.caller.now.plus_ms(self.cluster.policy.reserve_after_ms));
                }
                _ => {}
            }
        }
    }

    fn part_runs(&mut self, workload_id: WorkloadId, attempt: Attempt, is_last: bool) {
        let running = Event::WorkloadProgressed {
            workload_id,
            attempt,
            state: WorkloadState::Running,
            detail: String::new(),
            node_at: self.caller.now,
            simulated: false,
        };
        apply(&mut self.cluster, &self.caller, running);
        if is_last {
            self.note(workload_id, MomentKind::Starts);
            if let Some((awaited, at @ None)) = &mut self.awaited
                && *awaited == workload_id
            {
                *at = Some(self.caller.now);
            }
            self.look(self.caller.now.plus_ms(self.cluster.policy.preemption.min_run_ms));
            if let Some(runs) = self.runs.get(&workload_id) {
                self.due.insert((after(self.caller.now, runs.seconds()), Due::End(workload_id)));
            }
        }
    }

    /// What was due of it is not any more.
    fn forget(&mut self, id: WorkloadId) {
        self.due.retain(|(_, due)| *due != Due::End(id) && *due != Due::Gone(id));
    }

    fn submit(&mut self, n: usize) {
        let (spec, runs) = self.imagined[n].clone();
        let workload_id = WorkloadId::next(self.ids);
        let name = spec.spec().name.clone().unwrap_or_else(|| format!("imagined-{}", n + 1));
        self.added.insert(workload_id);
        if let Some(runs) = runs {
            self.runs.insert(workload_id, runs);
        }
        let not_before = spec.spec().not_before;
        apply(&mut self.cluster, &self.caller, Event::WorkloadSubmitted { workload_id, name, spec, env_handle: None });
        self.look(not_before.unwrap_or(self.caller.now));
        self.look(self.caller.now.plus_ms(self.cluster.policy.reserve_after_ms));
        self.decide();
    }

    fn note(&mut self, id: WorkloadId, event: MomentKind) {
        let Some(w) = self.cluster.workloads.get(id) else { return };
        let nodes =
            w.latest().iter().filter_map(|a| self.cluster.nodes.get(a.node_id)).map(|n| n.name.clone()).take(16);
        let after_ms = u64::try_from(self.caller.now.ms_since(self.from)).unwrap_or(0);
        self.moments.push(Moment {
            after_s: after_ms / 1_000,
            workload_id: id,
            name: w.name.clone(),
            event,
            nodes: nodes.collect(),
            imagined: self.added.contains(&id),
        });
    }

    fn told(mut self, revision: u64, horizon_s: u64) -> ScheduleSimulation {
        self.assume_gates();
        let waiting: Vec<StillWaits> = self
            .cluster
            .workloads
            .queue()
            .filter_map(|id| self.cluster.workloads.get(id))
            .take(TOLD_MAX)
            .map(|w| {
                let why = match (w.held_back(self.caller.now), decide_for(&self.cluster, w)) {
                    (Some(WorkloadReason::Gated), _) => format!("it waits for its gates: {}", w.gates.join(", ")),
                    (Some(why), _) => format!("it is held back ({why})"),
                    (None, Decision::Place { report, .. } | Decision::Wait { report }) => report.summary.clone(),
                };
                StillWaits { workload_id: w.workload_id, name: w.name.clone(), why }
            })
            .collect();
        let count = |kind: MomentKind| self.moments.iter().filter(|m| m.event == kind).count();
        let summary = format!(
            "within {horizon_s} s {} start, {} end, {} make room and {} wait at the end; nothing of it has happened",
            count(MomentKind::Starts),
            count(MomentKind::Ends),
            count(MomentKind::MakesRoom),
            self.cluster.workloads.queue_len(),
        );
        let truncated = self.moments.len() > MOMENTS_MAX;
        self.moments.truncate(MOMENTS_MAX);
        ScheduleSimulation {
            summary,
            moments: self.moments,
            truncated,
            waiting,
            assumptions: self.assumptions,
            revision,
        }
    }
}

fn after(at: Timestamp, seconds: u64) -> Timestamp {
    at.plus_ms(i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX / 4))
}
