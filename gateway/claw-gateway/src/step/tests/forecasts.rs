//! When a waiting workload will start: what is told comes true.

use std::collections::{BTreeMap, BTreeSet};

use claw_proto::ids::{Attempt, CountingIds, NodeId, WorkloadId};
use claw_proto::message::{NodeWorkloadState as N, StatusCause as C, StatusRecord};
use claw_proto::spec::{Priority, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_tools::outcome::Mode;
use claw_tools::workloads::{StartForecast, WorkloadState as S};

use super::fleet::{Fleet, mutation, run_of, spec, who};
use crate::scheduler::packing::replay::Draws;
use crate::{Caller, Cluster, Command, advance, query};

/// A fleet that is lived through second by second, as a gateway does, without the checks of [`Fleet`].
struct Course {
    cluster: Cluster,
    ids: CountingIds,
    now: Timestamp,
    /// How long each runs, from its start.
    run_s: BTreeMap<WorkloadId, u64>,
    /// When each first started.
    started: BTreeMap<WorkloadId, Timestamp>,
    /// Told to end: gone by then.
    leaving: BTreeMap<WorkloadId, Timestamp>,
}

impl Course {
    fn new(nodes: u32) -> Self {
        let f = Fleet::with_nodes(nodes);
        Self {
            cluster: f.cluster,
            ids: f.ids,
            now: f.now,
            run_s: BTreeMap::new(),
            started: BTreeMap::new(),
            leaving: BTreeMap::new(),
        }
    }

    fn run(&mut self, command: Command, caller: &Caller) -> Option<WorkloadId> {
        let told = self.decide(command, caller);
        self.begin_and_leave();
        told
    }

    fn decide(&mut self, command: Command, caller: &Caller) -> Option<WorkloadId> {
        let decision = advance(&mut self.cluster, command, caller, &mut self.ids).unwrap();
        match decision.report {
            crate::Report::Outcome { outcome, .. } => outcome.workload_id,
            _ => None,
        }
    }

    /// What was placed runs at once; what was told to end uses all of its grace.
    fn begin_and_leave(&mut self) {
        let placed: Vec<_> = self.in_state(S::Placed);
        for id in placed {
            self.started.entry(id).or_insert(self.now);
            let parts = self.parts(id);
            self.tell(id, &parts, (N::Running, C::Progress, None));
        }
        for id in self.in_state(S::Stopping) {
            let grace_s = i64::from(self.cluster.workloads.get(id).unwrap().stop_grace_s);
            let gone = self.now.plus_ms(grace_s * 1_000);
            self.leaving.entry(id).or_insert(gone);
        }
    }

    fn in_state(&self, state: S) -> Vec<WorkloadId> {
        let held: BTreeSet<WorkloadId> =
            self.cluster.nodes.iter().flat_map(|n| n.usage.workloads.iter().copied()).collect();
        let is_it = |id: &WorkloadId| self.cluster.workloads.get(*id).is_some_and(|w| w.state == state);
        held.into_iter().filter(is_it).collect()
    }

    /// Every node that has a part of it says so, one after the other; what is placed in between begins.
    fn report(&mut self, id: WorkloadId, told: (N, C, Option<i32>)) {
        for part in self.parts(id) {
            self.tell(id, &[part], told);
            self.begin_and_leave();
        }
    }

    fn parts(&self, id: WorkloadId) -> Vec<(NodeId, Attempt)> {
        self.cluster.workloads.get(id).unwrap().lives().map(|a| (a.node_id, a.attempt)).collect()
    }

    fn tell(&mut self, id: WorkloadId, parts: &[(NodeId, Attempt)], (state, cause, exit_code): (N, C, Option<i32>)) {
        for (node_id, attempt) in parts.iter().copied() {
            let record = StatusRecord {
                record: 1,
                workload_id: id,
                attempt,
                state,
                cause,
                detail: String::new(),
                exit_code,
                signal: None,
                at: self.now,
                simulated: true,
                checkpoint: None,
            };
            let caller = Caller::node(node_id, self.now);
            self.decide(Command::NodeStatus { node_id, records: vec![record] }, &caller);
        }
    }

    fn submit(&mut self, spec: WorkloadSpec, run_s: u64) -> WorkloadId {
        let caller =
            who("alice", claw_tools::access::Role::Operator, claw_tools::access::PrincipalKind::Agent, self.now);
        let command = Command::Operate {
            operation: run_of(spec),
            mutation: mutation(Mode::Apply, None),
            args_hash: self.now.unix_ms().to_string(),
            secret_hash: None,
        };
        let id = self.run(command, &caller).unwrap();
        self.run_s.insert(id, run_s);
        id
    }

    /// One second passes: programs end, then the gateway looks at its clock.
    fn second(&mut self) {
        self.now = self.now.plus_ms(1_000);
        let due = |w: &std::sync::Arc<crate::workload::WorkloadEntry>| {
            let started = w.started_at()?;
            let run_s = *self.run_s.get(&w.workload_id)?;
            let is_over = self.now.ms_since(started) >= i64::try_from(run_s).unwrap() * 1_000;
            (is_over && w.state == S::Running).then_some(w.workload_id)
        };
        let over: Vec<WorkloadId> =
            self.in_state(S::Running).iter().filter_map(|id| due(self.cluster.workloads.get(*id)?)).collect();
        let gone: Vec<WorkloadId> = self.leaving.iter().filter(|(_, at)| **at <= self.now).map(|(id, _)| *id).collect();
        for id in over {
            // One that ended just before made room by telling this one to leave: it is on its way out.
            if self.cluster.workloads.get(id).unwrap().state != S::Running {
                continue;
            }
            let limit = self.cluster.workloads.get(id).unwrap().spec.spec().max_duration_s;
            let at_limit = limit.is_some_and(|limit_s| self.run_s[&id] >= limit_s);
            let told = if at_limit { (N::Stopped, C::MaxDuration, None) } else { (N::Completed, C::Exited, Some(0)) };
            self.report(id, told);
        }
        for id in gone {
            self.leaving.remove(&id);
            self.report(id, (N::Stopped, C::StopRequested, None));
        }
        let caller = Caller::system(self.now);
        self.run(Command::Tick, &caller);
    }

    fn waiting(&self) -> Vec<WorkloadId> {
        self.cluster.workloads.queue().collect()
    }

    fn starts(&self, id: WorkloadId) -> StartForecast {
        query::explain(&self.cluster, &id.to_string(), self.now).unwrap().starts.unwrap()
    }
}

/// Work of many sizes, some important, some that may be stopped, some over two nodes.
fn drawn(draws: &mut Draws, limit_s: u64) -> WorkloadSpec {
    let gpus = [1, 1, 2, 2, 4, 8][draws.below(6)];
    let nodes = (draws.below(8) == 0).then_some(2);
    let priority = [Priority::Low, Priority::Normal, Priority::Normal, Priority::High][draws.below(4)];
    WorkloadSpec {
        nodes,
        priority: Some(priority),
        preemptible: (draws.below(3) == 0).then_some(true),
        grace_s: Some(5),
        max_duration_s: Some(limit_s),
        ..spec(if nodes.is_some() { gpus.max(2) } else { gpus })
    }
}

/// Two hours of submissions, more than the fleet can take; then nobody comes any more.
fn history(draws: &mut Draws, run_s_of: impl Fn(&mut Draws, u64) -> u64) -> Course {
    let mut course = Course::new(3);
    let now = 2_000 + draws.below(3_000);
    let mut next = 0;
    for second in 0..now {
        if second == next {
            let limit_s = 60 + draws.below(1_800) as u64;
            let run_s = run_s_of(draws, limit_s);
            let spec = drawn(draws, limit_s);
            course.submit(spec, run_s);
            next = second + 20 + draws.below(110);
        }
        course.second();
    }
    course
}

/// Lives on until these have started; when they did, seconds from now.
fn come_true(course: &mut Course, awaited: &[WorkloadId]) -> BTreeMap<WorkloadId, u64> {
    let from = course.now;
    // Some have run before and were stopped for others: the next start counts.
    course.started.retain(|id, _| !awaited.contains(id));
    for _ in 0..200_000 {
        if awaited.iter().all(|id| course.started.contains_key(id)) {
            break;
        }
        course.second();
    }
    let in_s = |id: &WorkloadId| Some((*id, u64::try_from(course.started.get(id)?.ms_since(from)).unwrap() / 1_000));
    awaited.iter().filter_map(in_s).collect()
}

#[test]
fn with_known_run_times_the_start_that_is_told_is_the_start() {
    let (mut n, mut longest) = (0, 0);
    for seed in 0..40 {
        let mut draws = Draws::new(seed);
        let mut course = history(&mut draws, |_, limit_s| limit_s);
        let mut waiting = course.waiting();
        let told: BTreeMap<WorkloadId, StartForecast> = waiting.iter().map(|id| (*id, course.starts(*id))).collect();
        waiting.retain(|id| told[id].likely_s.is_some());
        assert_eq!(waiting.len(), told.len(), "seed {seed}: everything has a known end: {told:?}");
        let came = come_true(&mut course, &waiting);
        for id in waiting {
            let told = &told[&id];
            assert_eq!(
                (told.from_s, told.likely_s, told.to_s, told.futures),
                (Some(came[&id]), Some(came[&id]), Some(came[&id]), 1),
                "seed {seed}, {id}: {}",
                told.summary
            );
            (n, longest) = (n + 1, longest.max(came[&id]));
        }
    }
    println!("{n} starts told exactly, the latest {longest} s ahead");
    assert!(n >= 400, "{n}");
}

/// Run times are within a fifth of what is expected, anywhere; limits are what the longest needs.
/// What the fleet knows of that is what ended before.
#[test]
fn nine_of_ten_starts_are_in_the_interval_with_a_fifth_of_noise() {
    let (mut inside, mut n, mut widths) = (0_u32, 0_u32, Vec::new());
    for seed in 0..60 {
        let mut draws = Draws::new(1_000 + seed);
        let noisy = |draws: &mut Draws, limit_s: u64| {
            let expected_s = limit_s * 10 / 12;
            let spread_s = usize::try_from(expected_s * 4 / 10).unwrap();
            (expected_s * 8 / 10 + draws.below(spread_s + 1) as u64).clamp(1, limit_s)
        };
        let mut course = history(&mut draws, noisy);
        let mut waiting = course.waiting();
        waiting.truncate(5);
        let told: BTreeMap<WorkloadId, StartForecast> = waiting.iter().map(|id| (*id, course.starts(*id))).collect();
        waiting.retain(|id| told[id].futures > 1);
        let came = come_true(&mut course, &waiting);
        for id in waiting {
            let (told, came) = (&told[&id], came[&id]);
            n += 1;
            // An interval without an end holds anything, and counts for nothing.
            let (Some(from_s), Some(to_s)) = (told.from_s, told.to_s) else { continue };
            inside += u32::from((from_s..=to_s).contains(&came));
            widths.push((to_s - from_s) * 100 / came.max(1));
        }
    }
    widths.sort_unstable();
    let covered = f64::from(inside) / f64::from(n);
    let median = widths[widths.len() / 2];
    println!("{inside} of {n} starts inside: {covered:.3}; the median interval is {median} % of the wait");
    assert!(n >= 270 && median <= 70, "{n}, {median}");
    assert!((0.85..=0.95).contains(&covered), "{inside} of {n}: {covered}");
}

#[test]
fn who_holds_the_place_without_an_end_is_named_and_what_was_alike_tells() {
    let mut course = Course::new(1);
    let train = |name: &str| WorkloadSpec { name: Some(name.into()), ..spec(8) };
    let first = course.submit(train("endless"), 1_000_000);
    let waits = course.submit(train("waits"), 100);
    let told = course.starts(waits);
    assert_eq!((told.from_s, told.to_s), (None, None));
    assert_eq!(told.unknown_ends.iter().map(|b| b.workload_id).collect::<Vec<_>>(), [first]);
    assert!(
        told.summary.contains("endless of alice on n0 holds what it needs and has no known end"),
        "{}",
        told.summary
    );
    let all = query::explain(&course.cluster, &waits.to_string(), course.now).unwrap();
    assert!(all.summary.ends_with(&told.summary), "{}", all.summary);
    // Nobody waits for what no node could take.
    let never = course.submit(WorkloadSpec { max_duration_s: Some(10), ..spec(64) }, 10);
    assert!(course.starts(never).summary.contains("cannot be told"), "{}", course.starts(never).summary);

    // The same program ended eight times, after a minute each: so will this one.
    let mut course = Course::new(1);
    for n in 0..9 {
        course.submit(train(&format!("run-{n}")), 60);
        (0..70).for_each(|_| course.second());
    }
    course.submit(train("run"), 60);
    (0..20).for_each(|_| course.second());
    let waits = course.submit(train("next"), 60);
    let told = course.starts(waits);
    assert_eq!((told.from_s, told.to_s, told.futures), (Some(40), Some(40), 1), "{}", told.summary);
}

/// A queue of thousands costs no more than is allowed, and says so rather than guess.
#[test]
fn a_long_queue_is_not_run_ahead_for_ever() {
    let mut course = Course::new(1);
    for n in 0..3_000 {
        course.submit(WorkloadSpec { max_duration_s: Some(60 + n % 7), ..spec(8) }, 60 + n % 7);
    }
    let waiting = course.waiting();
    let told = course.starts(*waiting.last().unwrap());
    assert_eq!((told.likely_s, told.unknown_ends.len()), (None, 0), "{}", told.summary);
    assert!(told.summary.contains("too much happens before"), "{}", told.summary);
    assert_eq!(course.starts(waiting[0]).likely_s, Some(60));
}
