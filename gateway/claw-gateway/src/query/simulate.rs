//! `schedule_simulate`: what would happen, on a copy of the fleet. The copy is
//! driven by the same decisions as the fleet itself; only what programs and
//! nodes would do is imagined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::ids::{GpuUuid, IdSource, NodeId, WorkloadId};
use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::outcome::Assumption;
use claw_tools::refusal::Refusal;
use claw_tools::scheduling::{
    ImaginedNodes, ImaginedWorkload, Moment, MomentKind, ScheduleSimulateParams, ScheduleSimulation, StillWaits,
};
use claw_tools::workloads::{WorkloadReason, WorkloadState};
use serde_json::json;

use super::queue::apply;
use crate::Cluster;
use crate::command::Caller;
use crate::event::Event;
use crate::registry::{NodeEntry, NodeUsage};
use crate::scheduler::nowhere::Nowhere;
use crate::scheduler::{Decision, decide_for};
use crate::step::{checked_spec, reschedule};

/// How far ahead unless asked otherwise, seconds.
const HORIZON_S_DEFAULT: u64 = 24 * 60 * 60;
/// Most moments that are told.
const MOMENTS_MAX: usize = 200;
/// Most moments that are lived through.
const STEPS_MAX: usize = 20_000;
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
}

struct World<'a> {
    cluster: Cluster,
    caller: Caller,
    from: Timestamp,
    ids: &'a mut dyn IdSource,
    due: BTreeSet<(Timestamp, Due)>,
    /// Specifications that are yet to be submitted, with how long they run.
    imagined: Vec<(Arc<ValidSpec>, Option<u64>)>,
    /// How long a workload runs from its start, seconds.
    run_s: BTreeMap<WorkloadId, u64>,
    added: BTreeSet<WorkloadId>,
    moments: Vec<Moment>,
    assumptions: Vec<Assumption>,
}

/// `schedule_simulate`.
pub fn simulate(
    cluster: &Cluster,
    p: &ScheduleSimulateParams,
    caller: &Caller,
    ids: &mut dyn IdSource,
) -> Result<ScheduleSimulation, Refusal> {
    let horizon_s = p.horizon_s.unwrap_or(HORIZON_S_DEFAULT);
    let mut world = World {
        cluster: cluster.clone(),
        caller: caller.clone(),
        from: caller.now,
        ids,
        due: BTreeSet::new(),
        imagined: Vec::new(),
        run_s: BTreeMap::new(),
        added: BTreeSet::new(),
        moments: Vec::new(),
        assumptions: Vec::new(),
    };
    world.known_ends();
    for text in &p.stop {
        let id = cluster.resolve_workload(text)?.workload_id;
        world.end(id, WorkloadState::Stopped, WorkloadReason::StopRequested);
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
    world.run(caller.now.plus_ms(i64::try_from(horizon_s.saturating_mul(1_000)).unwrap_or(i64::MAX)));
    Ok(world.told(cluster.revision, horizon_s))
}

impl World<'_> {
    /// When what runs now will end, as far as it says.
    fn known_ends(&mut self) {
        let mut open = Vec::new();
        for w in self.cluster.workloads.iter().filter(|w| !w.state.is_final()) {
            let started = w.lives().filter_map(|a| a.started_at).min();
            match w.spec.spec().max_duration_s {
                Some(seconds) => {
                    self.run_s.insert(w.workload_id, seconds);
                    if w.live().is_some() {
                        let end = started.unwrap_or(self.from).plus_ms(ms(seconds)).max(self.from);
                        self.due.insert((end, Due::End(w.workload_id)));
                    }
                }
                None if w.live().is_some() => open.push(w.name.clone()),
                None => {}
            }
        }
        let told = open.len().min(TOLD_MAX);
        if !open.is_empty() {
            self.assumptions.push(Assumption {
                field: "max_duration_s".into(),
                value: json!(open[..told]),
                why: format!(
                    "{} running workload(s) say no max_duration_s and are taken to run on beyond the horizon",
                    open.len()
                ),
            });
        }
    }

    fn imagine(&mut self, wish: &ImaginedWorkload) -> Result<(), Refusal> {
        let spec = Arc::new(checked_spec(&self.cluster, wish.spec.clone())?);
        let run_s = wish.run_s.or(spec.spec().max_duration_s);
        if run_s.is_none() {
            self.assumptions.push(Assumption {
                field: format!("add[{}].run_s", self.imagined.len()),
                value: json!(null),
                why: "not said: it runs on beyond the horizon".into(),
            });
        }
        let at = self.from.plus_ms(ms(wish.after_s.unwrap_or(0)));
        self.due.insert((at, Due::Submit(self.imagined.len())));
        self.imagined.push((spec, run_s));
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

    /// It is gone at once with what runs there; what may be run again waits for a place.
    fn lose_node(&mut self, node_id: NodeId) {
        let held: Vec<WorkloadId> =
            self.cluster.nodes.get(node_id).map(|n| n.usage.workloads.iter().copied().collect()).unwrap_or_default();
        for id in held {
            self.note(id, MomentKind::Lost);
            self.end_parts(id, WorkloadState::Lost, WorkloadReason::NodeLost);
            self.requeue(id, WorkloadReason::NodeLost);
        }
        self.cluster.nodes.update(node_id, |n| n.link = NodeLink::Unreachable);
    }

    fn run(&mut self, horizon: Timestamp) {
        self.decide();
        let mut steps = 0;
        while let Some((at, due)) = self.due.pop_first() {
            steps += 1;
            if at > horizon || steps > STEPS_MAX {
                self.due.insert((at, due));
                break;
            }
            self.caller.now = at.max(self.caller.now);
            match due {
                Due::End(id) => self.end(id, WorkloadState::Completed, WorkloadReason::ExitedZero),
                Due::Gone(id) => {
                    self.end_parts(id, WorkloadState::Stopped, WorkloadReason::Preempted);
                    self.requeue(id, WorkloadReason::Preempted);
                }
                Due::Submit(n) => self.submit(n),
            }
            // What is due at the same instant is seen together.
            if self.due.first().is_none_or(|(next, _)| *next > at) {
                self.decide();
            }
        }
    }

    /// The fleet's own decision on what waits.
    fn decide(&mut self) {
        // The copy is changed in ways that no event tells.
        self.cluster.nowhere = Nowhere::default();
        let decision = reschedule(&self.cluster, &self.caller, self.ids);
        self.cluster = decision.after;
        for record in decision.events {
            match record.event {
                Event::WorkloadPlaced { workload_id, attempt, part, .. } => {
                    let last_part = part.is_none_or(|part| part.node_rank + 1 == part.n_nodes);
                    let running = Event::WorkloadProgressed {
                        workload_id,
                        attempt,
                        state: WorkloadState::Running,
                        detail: String::new(),
                        node_at: self.caller.now,
                        simulated: false,
                    };
                    apply(&mut self.cluster, &self.caller, running);
                    if last_part {
                        self.note(workload_id, MomentKind::Starts);
                        if let Some(seconds) = self.run_s.get(&workload_id) {
                            self.due.insert((self.caller.now.plus_ms(ms(*seconds)), Due::End(workload_id)));
                        }
                    }
                }
                Event::WorkloadStopping { workload_id, grace_s, .. } => {
                    self.note(workload_id, MomentKind::MakesRoom);
                    self.due.retain(|(_, due)| *due != Due::End(workload_id));
                    self.due.insert((self.caller.now.plus_ms(ms(u64::from(grace_s))), Due::Gone(workload_id)));
                }
                _ => {}
            }
        }
    }

    fn submit(&mut self, n: usize) {
        let (spec, run_s) = self.imagined[n].clone();
        let workload_id = WorkloadId::next(self.ids);
        let name = spec.spec().name.clone().unwrap_or_else(|| format!("imagined-{}", n + 1));
        self.added.insert(workload_id);
        run_s.map(|seconds| self.run_s.insert(workload_id, seconds));
        apply(&mut self.cluster, &self.caller, Event::WorkloadSubmitted { workload_id, name, spec, env_handle: None });
    }

    fn end(&mut self, id: WorkloadId, state: WorkloadState, why: WorkloadReason) {
        self.note(id, MomentKind::Ends);
        self.end_parts(id, state, why);
        apply(&mut self.cluster, &self.caller, Event::WorkloadEnded { workload_id: id, state, why });
    }

    fn end_parts(&mut self, id: WorkloadId, state: WorkloadState, why: WorkloadReason) {
        self.due.retain(|(_, due)| *due != Due::End(id) && *due != Due::Gone(id));
        let Some(entry) = self.cluster.workloads.get(id).cloned() else { return };
        for part in entry.lives() {
            let ended = Event::AttemptEnded {
                workload_id: id,
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
    }

    fn requeue(&mut self, id: WorkloadId, why: WorkloadReason) {
        let requeued = Event::WorkloadRequeued { workload_id: id, why, not_before: None, counts: false };
        apply(&mut self.cluster, &self.caller, requeued);
    }

    fn note(&mut self, id: WorkloadId, event: MomentKind) {
        let Some(w) = self.cluster.workloads.get(id) else { return };
        let nodes = w.lives().filter_map(|a| self.cluster.nodes.get(a.node_id)).map(|n| n.name.clone()).take(16);
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
        let waiting: Vec<StillWaits> = self
            .cluster
            .workloads
            .queue()
            .filter_map(|id| self.cluster.workloads.get(id))
            .take(TOLD_MAX)
            .map(|w| {
                let why = match decide_for(&self.cluster, w) {
                    Decision::Place { report, .. } | Decision::Wait { report } => report.summary.clone(),
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

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX / 4)
}
