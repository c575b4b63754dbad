//! A decision in the making.

use std::collections::BTreeSet;

use claw_proto::ids::{IdSource, NodeId, OperationId, WorkloadId};
use claw_proto::message::{StatusCause, StopOrder};
use claw_proto::time::Timestamp;

use super::{Blob, Decision, Report};
use crate::Cluster;
use crate::command::Caller;
use crate::effect::Effect;
use crate::event::{Event, EventRecord};

/// Hands out ids and remembers them, so that a plan can use the same again.
pub(super) struct Ids<'a> {
    source: &'a mut dyn IdSource,
    replay: Vec<u128>,
    next: usize,
    pub(super) used: Vec<u128>,
}

impl IdSource for Ids<'_> {
    fn next_bits(&mut self) -> u128 {
        let bits = match self.replay.get(self.next) {
            Some(bits) => *bits,
            None => self.source.next_bits(),
        };
        self.next += 1;
        self.used.push(bits);
        bits
    }
}

/// The state that a decision is made on, and what it yields.
pub(super) struct Work<'a> {
    pub(super) state: &'a mut Cluster,
    /// What it was before, if that may be asked for.
    base: Option<Cluster>,
    pub(super) caller: &'a Caller,
    pub(super) ids: Ids<'a>,
    /// Operation that the events belong to.
    pub(super) operation_id: Option<OperationId>,
    /// Something became free or new: the queue is worth a look.
    pub(super) room_changed: bool,
    /// Something was kept for somebody and is not any more.
    pub(super) gave_up_claims: bool,
    /// Submitted or released by this command: to be tried even where nothing became free.
    pub(super) submitted: Vec<WorkloadId>,
    /// Workloads whose operations may have come to their result.
    pub(super) touched: BTreeSet<WorkloadId>,
    /// The same, nodes.
    pub(super) touched_nodes: BTreeSet<NodeId>,
    events: Vec<EventRecord>,
    effects: Vec<Effect>,
    blobs: Vec<Blob>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        state: &'a mut Cluster,
        base: Option<Cluster>,
        caller: &'a Caller,
        ids: &'a mut dyn IdSource,
    ) -> Self {
        Self {
            state,
            base,
            caller,
            ids: Ids { source: ids, replay: Vec::new(), next: 0, used: Vec::new() },
            operation_id: None,
            room_changed: false,
            gave_up_claims: false,
            submitted: Vec::new(),
            touched: BTreeSet::new(),
            touched_nodes: BTreeSet::new(),
            events: Vec::new(),
            effects: Vec::new(),
            blobs: Vec::new(),
        }
    }

    /// Uses these ids first (those that a plan reserved).
    pub(super) fn replay_ids(&mut self, ids: Vec<u128>) {
        self.ids.replay = ids;
        self.ids.next = 0;
        self.ids.used.clear();
    }

    pub(super) fn now(&self) -> Timestamp {
        self.caller.now
    }

    /// Notes an event and applies it at once.
    pub(super) fn emit(&mut self, event: Event) {
        let record = EventRecord {
            at: self.caller.now,
            principal: self.caller.principal.clone(),
            reason: self.caller.reason.clone(),
            operation_id: self.operation_id,
            event,
        };
        self.state.apply(&record);
        self.note_touched(&record.event);
        self.events.push(record);
    }

    /// So far nothing happened but that workloads were submitted.
    pub(super) fn only_submitted(&self) -> bool {
        self.events.iter().all(|record| matches!(record.event, Event::WorkloadSubmitted { .. }))
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn blob(&mut self, handle: String, bytes: Vec<u8>) {
        self.blobs.push(Blob { handle, bytes });
    }

    /// What the state was before.
    ///
    /// # Panics
    /// If no copy was kept.
    pub(super) fn before(&self) -> &Cluster {
        self.base.as_ref().expect("a copy is kept for whoever asks what was before")
    }

    /// The state is as it was before.
    pub(super) fn take_back(self) {
        match self.base {
            Some(base) => *self.state = base,
            None => {
                assert!(self.events.is_empty(), "a command that is checked first was refused after its first event");
            }
        }
    }

    /// Takes back everything but blobs (to store a plan instead).
    pub(super) fn roll_back(&mut self) {
        *self.state = self.before().clone();
        self.events.clear();
        self.effects.clear();
        self.touched.clear();
        self.touched_nodes.clear();
        self.room_changed = false;
        self.gave_up_claims = false;
        self.submitted.clear();
        self.operation_id = None;
    }

    /// Tells the nodes to stop the live attempts of a workload.
    pub(super) fn order_stop(&mut self, workload_id: WorkloadId, grace_s: u32, cause: StatusCause) {
        let Some(entry) = self.state.workloads.get(workload_id).cloned() else {
            return;
        };
        for live in entry.lives() {
            let (node_id, attempt) = (live.node_id, live.attempt);
            let Some(node) = self.state.nodes.get(node_id) else {
                continue;
            };
            let generation = node.generation(self.state.epoch);
            let order = StopOrder { workload_id, attempt, grace_s, cause };
            self.effect(Effect::StopWorkload { node_id, order, generation });
        }
    }

    fn note_touched(&mut self, event: &Event) {
        match event {
            Event::WorkloadProgressed { workload_id, .. } | Event::WorkloadAdopted { workload_id, .. } => {
                self.touched.insert(*workload_id);
            }
            Event::WorkloadEnded { workload_id, .. } | Event::WorkloadRequeued { workload_id, .. } => {
                self.touched.insert(*workload_id);
                self.room_changed = true;
            }
            Event::AttemptEnded { workload_id, attempt, .. } => {
                self.touched.insert(*workload_id);
                self.room_changed = true;
                let entry = self.state.workloads.get(*workload_id);
                let ended = entry.and_then(|w| w.attempts.iter().rev().find(|a| a.attempt == *attempt));
                self.touched_nodes.extend(ended.map(|a| a.node_id));
            }
            // It takes no room before it is placed: the others need not be tried for it.
            Event::WorkloadSubmitted { workload_id, .. } => self.submitted.push(*workload_id),
            Event::WorkloadGated { workload_id, gates } => {
                self.submitted.extend(gates.is_empty().then_some(*workload_id));
            }
            // What was kept from starting may start now.
            Event::QuotaSet { .. } | Event::QuotaDeleted { .. } | Event::ReservationEnded { .. } => {
                self.room_changed = true;
            }
            Event::NodeRemoved { node_id }
            | Event::NodeSchedulableChanged { node_id, .. }
            | Event::NodeLabeled { node_id, .. }
            | Event::NodeLinkChanged { node_id, .. }
            | Event::NodeCapabilitiesReported { node_id, .. } => {
                self.room_changed = true;
                self.touched_nodes.insert(*node_id);
            }
            _ => {}
        }
    }

    pub(super) fn into_decision(self, report: Report) -> Decision {
        Decision { events: self.events, blobs: self.blobs, effects: self.effects, report }
    }
}
