//! Correlation over GPUs, nodes and racks, and with what was changed just before.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnose::code::{Action, Class, Code};

/// Seconds of silence that end a burst.
pub const SILENCE_S: f64 = 180.0;
/// Nodes of one rack that must show a power brake before the facility is to blame.
pub const RACK_NODES: usize = 3;
/// GPUs of one node that must lose links before the switch is to blame.
pub const SWITCH_GPUS: usize = 3;
/// Seconds before a fault within which a change is worth naming.
pub const CHANGE_S: f64 = 3_600.0;

/// One fault of one node, as its own diagnosis says.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeFault {
    /// The node.
    pub node: String,
    /// Its rack, if known.
    pub rack: Option<String>,
    /// The unit, if known.
    pub unit: Option<String>,
    /// The cause.
    pub code: Code,
    /// Seconds, on one clock for all nodes.
    pub at_s: f64,
}

/// Something that people or the gateway did.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The node it was done to; none for the whole fleet.
    pub node: Option<String>,
    /// What it was.
    pub what: String,
    /// Seconds, on the same clock.
    pub at_s: f64,
    /// It reaches what work runs on; a cordon does not.
    pub may_cause: bool,
}

/// What several faults have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// What is to blame, in words.
    pub cause: String,
    /// Where the fault lies.
    pub class: Class,
    /// What to do first; a reboot of a node is none of it.
    pub action: Action,
    /// The nodes hit, in order.
    pub nodes: Vec<String>,
    /// The change that came just before, if any.
    pub change: Option<String>,
}

/// Splits faults into bursts: three minutes of silence end one.
pub fn bursts(faults: &[NodeFault]) -> Vec<Vec<&NodeFault>> {
    let mut sorted: Vec<&NodeFault> = faults.iter().collect();
    sorted.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    let mut bursts: Vec<Vec<&NodeFault>> = Vec::new();
    for fault in sorted {
        match bursts.last_mut() {
            Some(burst) if burst.last().is_some_and(|last| fault.at_s - last.at_s <= SILENCE_S) => burst.push(fault),
            _ => bursts.push(vec![fault]),
        }
    }
    bursts
}

/// What the faults of one burst have in common; several answers are possible.
pub fn common(burst: &[&NodeFault], changes: &[Change]) -> Vec<Common> {
    let mut found = Vec::new();
    found.extend(facility(burst));
    found.extend(switch(burst));
    found.extend(file_server(burst));
    for common in &mut found {
        let first = burst.iter().map(|fault| fault.at_s).fold(f64::INFINITY, f64::min);
        common.change = change_before(&common.nodes, first, changes);
    }
    found
}

/// The change to one of the nodes within an hour before that most likely has to do with it.
pub fn change_before(nodes: &[String], at_s: f64, changes: &[Change]) -> Option<String> {
    changes_before(nodes, at_s, changes).first().map(|change| change.what.clone())
}

/// What was done to the nodes or to the whole fleet within an hour before: first what a fault can come from, the
/// newest first. Of one time the later in the list is the newer.
pub fn changes_before<'a>(nodes: &[String], at_s: f64, changes: &'a [Change]) -> Vec<&'a Change> {
    let touches = |change: &&Change| {
        let age = at_s - change.at_s;
        (0.0..=CHANGE_S).contains(&age) && change.node.as_ref().is_none_or(|node| nodes.contains(node))
    };
    let mut found: Vec<&Change> = changes.iter().filter(touches).collect();
    found.reverse();
    found.sort_by(|a, b| b.may_cause.cmp(&a.may_cause).then(b.at_s.total_cmp(&a.at_s)));
    found
}

/// A power brake on several nodes of a rack comes from the rack's power.
fn facility(burst: &[&NodeFault]) -> Vec<Common> {
    let brake = |fault: &&&NodeFault| fault.code.name() == Some("power_brake");
    let mut racks: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for fault in burst.iter().filter(brake) {
        if let Some(rack) = &fault.rack {
            racks.entry(rack).or_default().insert(fault.node.clone());
        }
    }
    let hit = racks.into_iter().filter(|(_, nodes)| nodes.len() >= RACK_NODES);
    hit.map(|(rack, nodes)| Common {
        cause: format!("the power of rack {rack}: {} nodes are braked at once", nodes.len()),
        class: Class::Power,
        action: Action::Service,
        nodes: nodes.into_iter().collect(),
        change: None,
    })
    .collect()
}

/// Links lost on many GPUs of one node at once point to the switch between them.
fn switch(burst: &[&NodeFault]) -> Vec<Common> {
    let mut nodes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for fault in burst.iter().filter(|fault| fault.code.is_xid(&[74])) {
        nodes.entry(&fault.node).or_default().insert(fault.unit.as_deref().unwrap_or_default());
    }
    let gone = |node: &str| burst.iter().any(|fault| fault.node == node && fault.code.is_xid(&[79]));
    let hit = nodes.into_iter().filter(|(node, units)| units.len() >= SWITCH_GPUS && !gone(node));
    hit.map(|(node, units)| Common {
        cause: format!("a switch of {node}: {} GPUs lost links at once", units.len()),
        class: Class::Fabric,
        action: Action::ContactSupport,
        nodes: vec![node.to_owned()],
        change: None,
    })
    .collect()
}

/// A file server that several nodes miss is the server's or the network's.
fn file_server(burst: &[&NodeFault]) -> Option<Common> {
    let hit = burst.iter().filter(|fault| fault.code.name() == Some("nfs_unresponsive"));
    let nodes: BTreeSet<String> = hit.map(|fault| fault.node.clone()).collect();
    (nodes.len() > 1).then(|| Common {
        cause: format!("a file server: {} nodes miss it at once", nodes.len()),
        class: Class::Host,
        action: Action::ContactSupport,
        nodes: nodes.into_iter().collect(),
        change: None,
    })
}
