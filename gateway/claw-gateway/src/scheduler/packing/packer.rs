//! Decides where a request goes.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::machine::{Kind, Machine, Request};
use super::policy::Policy;
use super::score::{Scored, measure, score};
use super::typical::Typical;
use crate::scheduler::tournament::{Tournament, Worth};

/// States of machines that one class remembers the score of.
const REMEMBERED_MAX: usize = 1 << 16;

/// States of machines whose measure is remembered, at most.
const MEASURED_MAX: usize = 1 << 20;

/// What a policy measures machines by, each state once.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured(FxHashMap<u128, f64>);

impl Measured {
    /// Of one machine.
    pub(super) fn of(&mut self, policy: Policy, machine: &Machine, typical: &Typical) -> f64 {
        if self.0.len() >= MEASURED_MAX {
            self.0.clear();
        }
        let state = Machine { holds: Kind::CPU, ..*machine }.state();
        *self.0.entry(state).or_insert_with(|| measure(policy, machine, typical))
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the machine.
    pub machine: usize,
    /// Number of the GPU that is shared; without meaning for others.
    pub gpu: u8,
}

/// One class of equal requests.
#[derive(Debug, Clone)]
struct Class {
    request: Request,
    tournament: Tournament<i32>,
    /// The GPU that goes with each machine's score.
    gpus: Vec<u8>,
    /// Changes of machines that it has seen.
    seen: usize,
    /// Scores of states that it met.
    known: FxHashMap<u128, Option<Scored>>,
}

/// A fleet and its best machines. A decision looks again only at machines that
/// changed since its class was last asked: its cost does not grow with the fleet
/// but by the logarithm of a tournament.
#[derive(Debug, Clone)]
pub struct Packer {
    policy: Policy,
    typical: Arc<Typical>,
    machines: Vec<Machine>,
    /// The state of each.
    states: Vec<u128>,
    classes: Vec<Class>,
    by_request: FxHashMap<Request, usize>,
    /// Machines that changed, in order.
    changes: Vec<u32>,
    measured: Measured,
}

impl Packer {
    /// A packer for these machines.
    ///
    /// # Panics
    /// With more than 2³² machines.
    pub fn new(policy: Policy, machines: Vec<Machine>, typical: Arc<Typical>) -> Self {
        assert!(u32::try_from(machines.len()).is_ok(), "a fleet of more than 2^32 machines");
        let states = machines.iter().map(Machine::state).collect();
        let (classes, by_request, changes, measured) =
            (Vec::new(), FxHashMap::default(), Vec::new(), Measured::default());
        Self { policy, typical, machines, states, classes, by_request, changes, measured }
    }

    /// What is free.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The place that the policy chooses; nothing if no machine has room. `draw`
    /// chooses a number below its argument, for a policy that does not care.
    pub fn decide(&mut self, request: &Request, draw: impl FnOnce(usize) -> usize) -> Option<Place> {
        let class = self.class(request);
        self.catch_up(class);
        let tournament = &self.classes[class].tournament;
        let best = if self.policy == Policy::Random {
            let feasible: Vec<usize> = tournament.present().collect();
            (!feasible.is_empty()).then(|| feasible[draw(feasible.len())])
        } else {
            tournament.best()
        };
        best.map(|machine| Place { machine, gpu: self.classes[class].gpus[machine] })
    }

    /// What the best place is worth to the policy: more is better, and nothing if no machine has room. Of two
    /// that wait, the one whose place is worth more leaves more to those that are likely to come.
    pub fn worth(&mut self, request: &Request) -> Option<i32> {
        let class = self.class(request);
        self.catch_up(class);
        let tournament = &self.classes[class].tournament;
        tournament.best().map(|best| tournament.worth(best))
    }

    /// Takes the place. Nothing happens and `false` comes back if it is not free.
    pub fn take(&mut self, request: &Request, place: Place) -> bool {
        let left = self.machines.get(place.machine).and_then(|machine| machine.after(request, place.gpu));
        left.is_some_and(|left| self.set(place.machine, left))
    }

    /// A machine has changed: work ended, or it is another one now.
    pub fn set(&mut self, machine: usize, now: Machine) -> bool {
        let Some(slot) = self.machines.get_mut(machine) else { return false };
        *slot = now;
        self.states[machine] = now.state();
        // At most 2^32 machines: `new` looked.
        self.changes.push(u32::try_from(machine).unwrap_or(u32::MAX));
        true
    }

    fn class(&mut self, request: &Request) -> usize {
        if let Some(class) = self.by_request.get(request) {
            return *class;
        }
        let mut class = Class {
            request: *request,
            tournament: Tournament::new(self.machines.len()),
            gpus: vec![0; self.machines.len()],
            seen: self.changes.len(),
            known: FxHashMap::default(),
        };
        for (at, machine) in self.machines.iter().zip(&self.states).enumerate() {
            let scored = class.scored(self.policy, machine, &self.typical, &mut self.measured);
            class.gpus[at] = scored.map_or(0, |scored| scored.gpu);
            class.tournament.fill(at, scored.map_or(i32::NONE, |scored| scored.score));
        }
        class.tournament.build();
        self.classes.push(class);
        self.by_request.insert(*request, self.classes.len() - 1);
        self.classes.len() - 1
    }

    fn catch_up(&mut self, class: usize) {
        let class = &mut self.classes[class];
        let news = &self.changes[class.seen..];
        for (at, changed) in news.iter().enumerate() {
            // Only how it is now counts, and one look is enough.
            if news[at + 1..].iter().take(64).any(|later| later == changed) {
                continue;
            }
            let machine = *changed as usize;
            let now = (&self.machines[machine], &self.states[machine]);
            let scored = class.scored(self.policy, now, &self.typical, &mut self.measured);
            class.gpus[machine] = scored.map_or(0, |scored| scored.gpu);
            class.tournament.set(machine, scored.map_or(i32::NONE, |scored| scored.score));
        }
        class.seen = self.changes.len();
    }
}

impl Class {
    fn scored(
        &mut self,
        policy: Policy,
        (machine, state): (&Machine, &u128),
        typical: &Typical,
        measured: &mut Measured,
    ) -> Option<Scored> {
        // What does not fit is found out faster than it is looked up.
        if !machine.fits(&self.request) {
            return None;
        }
        if let Some(scored) = self.known.get(state) {
            return *scored;
        }
        let by = |machine: &Machine| measured.of(policy, machine, typical);
        let scored = score(policy, machine, &self.request, typical, by);
        if self.known.len() < REMEMBERED_MAX {
            self.known.insert(*state, scored);
        }
        scored
    }
}
