//! What was done to nodes of late, from the journal: a bounded list for each, in memory. `diagnose` names what
//! came just before a fault, and counts how often a machine was started anew.
//!
//! At its start a gateway reads the end of the journal; what is older is not known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use claw_gateway::{Event, EventRecord};
use claw_proto::ids::{Attempt, GpuUuid, NodeId, WorkloadId};
use claw_proto::limits::GPUS_PER_NODE_MAX;
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
/// Pause before the journal is tried again that could not be read.
const TRY_AGAIN: Duration = Duration::from_secs(1);
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
    /// It reaches what work runs on. A cordon or a link that comes back does not.
    pub may_cause: bool,
}

/// A start of a node's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// When the gateway heard of it, by its own clock.
    pub at: Timestamp,
    /// The run of the machine that began with it.
    pub boot_id: String,
}

/// A GPU that a node had and has not any more, nor another in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub uuid: GpuUuid,
    /// Where it was.
    pub pci_address: Option<String>,
}

/// What of a node may change under its work.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    boot_id: Option<String>,
    versions: [(&'static str, String); 4],
    /// With their addresses.
    gpus: BTreeMap<GpuUuid, Option<String>>,
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
            gpus: has.gpus.iter().map(|gpu| (gpu.uuid.clone(), gpu.pci_address.clone())).collect(),
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
        for (these, others, what) in [(self, now, "gone"), (now, self, "new")] {
            let gpus: Vec<&GpuUuid> = these.gpus.keys().filter(|gpu| !others.gpus.contains_key(gpu)).collect();
            if let Some(first) = gpus.first() {
                words.push(format!("{} GPU(s) {what}, such as {}", gpus.len(), clip(&first.0, WORDS_MAX)));
            }
        }
        (words, restarted)
    }

    /// Is a GPU there, or another one in its place?
    fn fills(&self, uuid: &GpuUuid, address: Option<&String>) -> bool {
        let in_its_place = || self.gpus.values().any(|other| other.as_ref() == address);
        self.gpus.contains_key(uuid) || address.is_some() && in_its_place()
    }
}

/// What is known of one node.
#[derive(Debug, Default)]
struct Known {
    facts: Option<Facts>,
    changes: VecDeque<Changed>,
    starts: VecDeque<Start>,
    /// With their addresses.
    missing: BTreeMap<GpuUuid, Option<String>>,
}

impl Known {
    /// What the node had before and has not now is missing until it is back or replaced.
    fn counts(&mut self, now: &Facts) {
        let before = self.facts.iter().flat_map(|facts| &facts.gpus);
        let n_before = before.clone().count();
        for (uuid, address) in before {
            // Where no address tells it, as many GPUs as before are taken for a replacement.
            let is_told = address.is_some() || now.gpus.len() < n_before;
            if is_told && !now.fills(uuid, address.as_ref()) && self.missing.len() < GPUS_PER_NODE_MAX {
                self.missing.insert(uuid.clone(), address.clone());
            }
        }
        self.missing.retain(|uuid, address| !now.fills(uuid, address.as_ref()));
    }
}

#[derive(Debug, Default)]
struct All {
    seq: u64,
    /// The journal could not be read further than that.
    is_behind: bool,
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

    /// Is there something in the journal that could not be read?
    pub fn is_behind(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_behind
    }

    /// What was done to a node, as far as it is kept, oldest first.
    pub fn of_node(&self, node_id: NodeId) -> Vec<Changed> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.nodes.get(&node_id).map(|known| known.changes.iter().cloned().collect()).unwrap_or_default()
    }

    /// What was done to the fleet as a whole, as far as it is kept, oldest first.
    pub fn of_fleet(&self) -> Vec<Changed> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).fleet.iter().cloned().collect()
    }

    /// When the machine of a node was started anew, oldest first, as far as it is kept.
    pub fn starts(&self, node_id: NodeId) -> Vec<Start> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.nodes.get(&node_id).map(|known| known.starts.iter().cloned().collect()).unwrap_or_default()
    }

    /// GPUs that a node had and that are neither there now nor replaced.
    pub fn missing(&self, node_id: NodeId) -> Vec<Missing> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let missing = all.nodes.get(&node_id).into_iter().flat_map(|known| &known.missing);
        missing.map(|(uuid, address)| Missing { uuid: uuid.clone(), pci_address: address.clone() }).collect()
    }

    pub(crate) fn behind(&self, is_behind: bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).is_behind = is_behind;
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
                keep(
                    &mut all.fleet,
                    Changed { at, node: None, what: format!("the gateway started (epoch {epoch})"), may_cause: false },
                );
            }
            Event::NodeEnrolled { node_id, .. } => all.aside(at, *node_id, "it joined the fleet".to_owned()),
            Event::NodeReadmitted { node_id, .. } => all.note(at, *node_id, "its machine enrolled again".to_owned()),
            Event::NodeLinkChanged { node_id, link, .. } => all.aside(at, *node_id, format!("its link is {link}")),
            Event::NodeSchedulableChanged { node_id, to } => all.aside(at, *node_id, format!("it was made {to}")),
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
    /// Notes what reaches what work runs on.
    fn note(&mut self, at: Timestamp, node_id: NodeId, what: String) {
        let changed = Changed { at, node: Some(node_id), what, may_cause: true };
        keep(&mut self.nodes.entry(node_id).or_default().changes, changed);
    }

    /// Notes what no fault comes from.
    fn aside(&mut self, at: Timestamp, node_id: NodeId, what: String) {
        let changed = Changed { at, node: Some(node_id), what, may_cause: false };
        keep(&mut self.nodes.entry(node_id).or_default().changes, changed);
    }

    fn reported(&mut self, at: Timestamp, node_id: NodeId, now: Facts) {
        let known = self.nodes.entry(node_id).or_default();
        let (words, restarted) = known.facts.as_ref().map(|facts| facts.to(&now)).unwrap_or_default();
        known.counts(&now);
        if let Some(boot_id) = now.boot_id.clone().filter(|_| restarted) {
            if known.starts.len() >= STARTS_MAX {
                known.starts.pop_front();
            }
            known.starts.push_back(Start { at, boot_id });
        }
        known.facts = Some(now);
        for what in words {
            self.note(at, node_id, what);
        }
    }
}

/// Keeps a change; what no fault comes from goes first where there is no room.
fn keep(changes: &mut VecDeque<Changed>, changed: Changed) {
    if changes.len() >= CHANGES_MAX {
        let place = changes.iter().position(|known| !known.may_cause).unwrap_or(0);
        changes.remove(place);
    }
    changes.push_back(changed);
}

/// Follows the journal until the gateway stops.
pub async fn keep_changes(control: ControlPlane) {
    let mut events = control.events_live();
    let head = control.snapshot().seq;
    if !catch_up(&control, head.saturating_sub(READ_AT_START)).await {
        return;
    }
    for node in control.snapshot().nodes.iter() {
        if let Some(capabilities) = &node.capabilities {
            control.changes().has(node.node_id, capabilities);
        }
    }
    loop {
        match events.recv().await {
            Ok(synced) => synced.iter().for_each(|(seq, record)| learn(&control, *seq, record)),
            Err(RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "changes are read from the journal");
                if !catch_up(&control, control.changes().seq()).await {
                    return;
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Reads on from the journal, to its present end. A journal that cannot be read is tried again, for what is
/// passed over once is never told; meanwhile a diagnosis says so. False: the gateway stops.
async fn catch_up(control: &ControlPlane, mut after: u64) -> bool {
    loop {
        match control.events(after, PAGE).await {
            Ok(page) => {
                control.changes().behind(false);
                let Some((last, _)) = page.last() else { return true };
                after = *last;
                for (seq, record) in &page {
                    learn(control, *seq, record);
                }
            }
            Err(error) => {
                if !control.changes().is_behind() {
                    tracing::warn!(%error, "what was changed of late cannot be read; it is tried again");
                }
                control.changes().behind(true);
                tokio::select! {
                    () = control.stopping().cancelled() => return false,
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                }
            }
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
