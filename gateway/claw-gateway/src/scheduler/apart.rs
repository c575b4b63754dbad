//! Work that is kept apart: which nodes that leaves out for who asks.
//!
//! It goes both ways. Who asks to be kept apart is, and so is who would come beside somebody
//! that asked for it before. What it leaves out depends on the labels of who asks, which no
//! shape knows: it is found for each that asks, and only where somebody is to be kept apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::{NodeId, WorkloadId};
use claw_proto::spec::{AntiAffinity, TopologyDomain};
use claw_proto::validation::ValidSpec;

use crate::Cluster;
use crate::registry::NodeEntry;
use crate::workload::WorkloadEntry;

/// Nodes that belong together, as one sees them who is kept apart within them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Domain<'a> {
    Node(NodeId),
    /// Zone and rack: racks of two zones can be called alike.
    Rack(&'a str, &'a str),
    Zone(&'a str),
}

impl<'a> Domain<'a> {
    /// The one that this node belongs to; a node of no rack or zone is one of its own.
    fn of(node: &'a NodeEntry, within: TopologyDomain) -> Self {
        let label = |key: &str| node.labels.get(key).map(String::as_str);
        match within {
            TopologyDomain::Node => None,
            TopologyDomain::Rack => label("rack").map(|rack| Self::Rack(label("zone").unwrap_or_default(), rack)),
            TopologyDomain::Zone => label("zone").map(Self::Zone),
        }
        .unwrap_or(Self::Node(node.node_id))
    }
}

/// What a workload says of whom it is kept apart from.
pub(crate) fn wanted(spec: &ValidSpec) -> Option<&AntiAffinity> {
    spec.spec().placement.as_ref()?.anti_affinity.as_ref()
}

/// Its own labels have all that are asked for.
fn has(spec: &ValidSpec, asked: &AntiAffinity) -> bool {
    asked.labels.iter().all(|(key, value)| spec.spec().labels.get(key) == Some(value))
}

/// One of these two is to be kept apart from the other: within what.
fn between<'a>(one: &'a ValidSpec, other: &'a ValidSpec) -> impl Iterator<Item = TopologyDomain> + 'a {
    let asked = [(one, other), (other, one)];
    asked.into_iter().filter_map(|(who, from)| wanted(who).filter(|asked| has(from, asked))).map(within)
}

fn within(asked: &AntiAffinity) -> TopologyDomain {
    asked.within.unwrap_or(TopologyDomain::Node)
}

/// Nodes on which work of this specification would not be kept apart, each with somebody who is in the way; in order.
/// The asker's own parts are no others.
pub(crate) fn left_out(
    cluster: &Cluster,
    spec: &ValidSpec,
    asker: Option<&WorkloadEntry>,
) -> Vec<(NodeId, WorkloadId)> {
    let workloads = &cluster.workloads;
    let asked = wanted(spec);
    let may_be_asked = workloads.keeps_some_apart() && !spec.spec().labels.is_empty();
    if asked.is_none() && !may_be_asked {
        return Vec::new();
    }
    let own = asked.map(|asked| workloads.placed_with(&asked.labels)).unwrap_or_default();
    let others = if may_be_asked { workloads.kept_apart() } else { Vec::new() };
    let mut domains: BTreeMap<Domain<'_>, WorkloadId> = BTreeMap::new();
    let is_other = |w: &&Arc<WorkloadEntry>| asker.is_none_or(|asker| asker.workload_id != w.workload_id);
    for w in own.into_iter().chain(others).filter(is_other) {
        let nodes = || w.lives().filter_map(|live| cluster.nodes.get(live.node_id));
        for within in between(spec, &w.spec) {
            for node in nodes() {
                domains.entry(Domain::of(node, within)).or_insert(w.workload_id);
            }
        }
    }
    nodes_of(cluster, &domains)
}

fn nodes_of(cluster: &Cluster, domains: &BTreeMap<Domain<'_>, WorkloadId>) -> Vec<(NodeId, WorkloadId)> {
    let alone = domains.iter().map(|(domain, id)| match domain {
        Domain::Node(node_id) => Some((*node_id, *id)),
        Domain::Rack(..) | Domain::Zone(_) => None,
    });
    if let Some(alone) = alone.collect() {
        return alone;
    }
    let nodes = cluster.nodes.iter().filter_map(|node| {
        let mut each = TopologyDomain::ALL.iter().map(|within| Domain::of(node, *within));
        each.find_map(|domain| domains.get(&domain)).map(|id| (node.node_id, *id))
    });
    nodes.collect()
}
