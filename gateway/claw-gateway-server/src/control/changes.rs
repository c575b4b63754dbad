//! What was done to nodes of late, from the journal: a bounded list for each, in memory. `diagnose` names what
//! came just before a fault, and counts how often a machine was started anew.
//!
//! At its start a gateway reads the end of the journal; what is older is not known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use claw_gateway::{Event, EventRecord};
use claw_proto::ids::{Attempt, NodeId, WorkloadId};
use claw_proto::time::Timestamp;
use claw_proto::topology::NodeCapabilities;
use claw_tools::outcome::clip;
use tokio::sync::broadcast::error::RecvError;

use super::ControlPlane;

/// Changes that are kept of each node, and of the fleet as a whole.
const CHANGES_MAX: usize = 32;
/// Starts of its machine that are kept of each node.
const STARTS_MAX: usize = 16;
/// Places of attempts that are remembered.
const PLACES_MAX: usize = 65_536;
/// Events that are read of the journal when the gateway starts.
const READ_AT_START: u64 = 4_096;
/// Events that are read at a time.
const PAGE: usize = 256;
/// A node is heard again so long after its agent came up at most, milliseconds: what the agent tells of before that
/// is of the machine's present run.
const HEARD_AFTER_MS: i64 = 5_000;
/// Characters of a version or a name.
const WORDS_MAX: usize = 60;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// When it was decided or heard of, by the gateway's clock.
    pub at: Timestamp,
    /// The node; none for the whole fleet.
    pub node: Option<NodeId>,
    /// What it was.
    pub what: String,
}

/// What of a node may change under its work.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    boot_id: Option<String>,
    versions: [(&'static str, String); 4],
    gpus: BTreeSet<String>,
}

impl Facts {
    fn of(has: &NodeCapabilities) -> Self {
        let drivers: BTreeSet<&str> = has.gpus.iter().filter_map(|gpu| gpu.driver_version.as_deref()).collect();
        let drivers = drivers.into_iter().collect::<Vec<_>>().join(", ");
        let engine = has.engine.as_ref().map(|engine| format!("{} {}", engine.name, engine.version));
        Self {
            boot_id: has.boot_id.clone(),
            versions: [
                ("the GPU driver", clip(&drivers, WORDS_MAX)),
                ("the agent", clip(&has.agent_version, WORDS_MAX)),
                ("the system", clip(&has.os, WORDS_MAX)),
                ("the container engine", clip(&engine.unwrap_or_default(), WORDS_MAX)),
            ],
            gpus: has.gpus.iter().map(|gpu| gpu.uuid.to_string()).collect(),
        }
    }

    /// What is different now, in words, and was the machine started anew?
    fn to(&self, now: &Self) -> (Vec<String>, bool) {
        let mut words = Vec::new();
        // Of an agent that does not tell it, nothing follows.
        let restarted = matches!((&self.boot_id, &now.boot_id), (Some(old), Some(new)) if old != new);
        if restarted {
            words.push("the machine was started anew".to_owned());
        }
        for ((what, old), (_, new)) in self.versions.iter().zip(&now.versions) {
            if old != new && !old.is_empty() && !new.is_empty() {
                words.push(format!("{what} went from {old} to {new}"));
            }
        }
        for (gpus, what) in [(self.gpus.difference(&now.gpus), "gone"), (now.gpus.difference(&self.gpus), "new")] {
            let gpus: Vec<&String> = gpus.collect();
            if let Some(first) = gpus.first() {
                words.push(format!("{} GPU(s) {what}, such as {}", gpus.len(), clip(first, WORDS_MAX)));
            }
        }
        (words, restarted)
    }
}

/// What is known of one node.
#[derive(Debug, Default)]
struct Known {
    facts: Option<Facts>,
    changes: VecDeque<Changed>,
    starts: VecDeque<Timestamp>,
}

#[derive(Debug, Default)]
struct All {
    seq: u64,
    nodes: BTreeMap<NodeId, Known>,
    fleet: VecDeque<Changed>,
    places: BTreeMap<(WorkloadId, Attempt), NodeId>,
}

/// The changes of all nodes.
#[derive(Debug, Clone, Default)]
pub struct ChangeDesk(Arc<RwLock<All>>);

impl ChangeDesk {
    /// The last event that was looked at.
    pub fn seq(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).seq
    }

    /// What was done to a node and to the fleet, as far as it is kept, oldest first.
    pub fn of(&self, node_id: NodeId) -> Vec<Changed> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let own = all.nodes.get(&node_id).into_iter().flat_map(|known| &known.changes);
        let mut changes: Vec<Changed> = own.chain(&all.fleet).cloned().collect();
        changes.sort_by_key(|change| change.at);
        changes
    }

    /// When the machine of a node was started anew, oldest first, as far as it is kept.
    pub fn starts(&self, node_id: NodeId) -> Vec<Timestamp> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.nodes.get(&node_id).map(|known| known.starts.iter().copied().collect()).unwrap_or_default()
    }

    /// Looks at one event; `name` tells the name of a workload.
    pub(super) fn learn(&self, seq: u64, record: &EventRecord, name: impl Fn(WorkloadId) -> String) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if seq <= all.seq {
            return;
        }
        all.seq = seq;
        let at = record.at;
        match &record.event {
            Event::GatewayStarted { epoch } => {
                keep(&mut all.fleet, at, None, format!("the gateway started (epoch {epoch})"));
            }
            Event::NodeEnrolled { node_id, .. } => all.note(at, *node_id, "it joined the fleet".to_owned()),
            Event::NodeReadmitted { node_id, .. } => all.note(at, *node_id, "its machine enrolled again".to_owned()),
            Event::NodeLinkChanged { node_id, link, .. } => all.note(at, *node_id, format!("its link is {link}")),
            Event::NodeSchedulableChanged { node_id, to } => all.note(at, *node_id, format!("it was made {to}")),
            Event::NodeSettingsChanged { node_id, .. } => {
                all.note(at, *node_id, "its settings were changed".to_owned());
            }
            Event::NodeCapabilitiesReported { node_id, capabilities, .. } => {
                all.reported(at, *node_id, Facts::of(capabilities));
            }
            Event::NodeRemoved { node_id } => drop(all.nodes.remove(node_id)),
            Event::WorkloadPlaced { workload_id, attempt, node_id, gpus, .. } => {
                if all.places.len() < PLACES_MAX {
                    all.places.insert((*workload_id, *attempt), *node_id);
                }
                let name = clip(&name(*workload_id), WORDS_MAX);
                let what = format!("attempt {} of {name} was placed there, on {} GPU(s)", attempt.0, gpus.len());
                all.note(at, *node_id, what);
            }
            Event::WorkloadStopping { workload_id, why, requeue, .. } => {
                let its = all.places.range((*workload_id, Attempt(0))..=(*workload_id, Attempt(u32::MAX)));
                let nodes: BTreeSet<NodeId> = its.map(|(_, node)| *node).collect();
                let elsewhere = if *requeue { ", to run elsewhere" } else { "" };
                let what = format!("{} was told to stop ({why}){elsewhere}", clip(&name(*workload_id), WORDS_MAX));
                for node in nodes {
                    all.note(at, node, what.clone());
                }
            }
            Event::AttemptEnded { workload_id, attempt, .. } => drop(all.places.remove(&(*workload_id, *attempt))),
            Event::ExecRequested { workload_id, node_id, .. } => {
                all.note(at, *node_id, format!("a command was run inside {}", clip(&name(*workload_id), WORDS_MAX)));
            }
            _ => {}
        }
    }

    /// What a node has, where the events that were read do not tell it.
    fn has(&self, node_id: NodeId, capabilities: &NodeCapabilities) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.nodes.entry(node_id).or_default().facts.get_or_insert_with(|| Facts::of(capabilities));
    }
}

impl All {
    fn note(&mut self, at: Timestamp, node_id: NodeId, what: String) {
        keep(&mut self.nodes.entry(node_id).or_default().changes, at, Some(node_id), what);
    }

    fn reported(&mut self, at: Timestamp, node_id: NodeId, now: Facts) {
        let known = self.nodes.entry(node_id).or_default();
        let (words, restarted) = known.facts.as_ref().map(|facts| facts.to(&now)).unwrap_or_default();
        known.facts = Some(now);
        if restarted {
            if known.starts.len() >= STARTS_MAX {
                known.starts.pop_front();
            }
            known.starts.push_back(at.plus_ms(-HEARD_AFTER_MS));
        }
        for what in words {
            self.note(at, node_id, what);
        }
    }
}

fn keep(changes: &mut VecDeque<Changed>, at: Timestamp, node: Option<NodeId>, what: String) {
    if changes.len() >= CHANGES_MAX {
        changes.pop_front();
    }
    changes.push_back(Changed { at, node, what });
}

/// Follows the journal until the gateway stops.
pub async fn keep_changes(control: ControlPlane) {
    let mut events = control.events_live();
    let head = control.snapshot().seq;
    catch_up(&control, head.saturating_sub(READ_AT_START)).await;
    for node in control.snapshot().nodes.iter() {
        if let Some(capabilities) = &node.capabilities {
            control.changes().has(node.node_id, capabilities);
        }
    }
    loop {
        match events.recv().await {
            Ok(numbered) => learn(&control, numbered.0, &numbered.1),
            Err(RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "changes are read from the journal");
                catch_up(&control, control.changes().seq()).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Reads on from the journal, to its present end.
async fn catch_up(control: &ControlPlane, mut after: u64) {
    loop {
        let page = match control.events(after, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "what was changed of late cannot be read");
                return;
            }
        };
        let Some((last, _)) = page.last() else { return };
        after = *last;
        for (seq, record) in &page {
            learn(control, *seq, record);
        }
    }
}

fn learn(control: &ControlPlane, seq: u64, record: &EventRecord) {
    let name = |id: WorkloadId| {
        let cluster = control.snapshot();
        cluster.workloads.get(id).map_or_else(|| id.to_string(), |entry| entry.name.clone())
    };
    control.changes().learn(seq, record, name);
}

#[cfg(test)]
mod tests;
