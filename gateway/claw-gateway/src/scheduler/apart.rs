//! Work that is kept apart: which nodes that leaves out for who asks.
//!
//! It goes both ways. Who asks to be kept apart is, and so is who would come beside somebody
//! of the same tenant that asked for it before. What it leaves out depends on the labels of who asks, which no
//! shape knows: it is found for each that asks, and only where somebody is to be kept apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::{NodeId, WorkloadId};
use claw_proto::spec::{AntiAffinity, TopologyDomain};
use claw_proto::validation::ValidSpec;

use super::view::label;
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
        let (zone, rack) = (label(node, "zone"), label(node, "rack"));
        match within {
            TopologyDomain::Rack if !rack.is_empty() => Self::Rack(zone, rack),
            TopologyDomain::Zone if !zone.is_empty() => Self::Zone(zone),
            TopologyDomain::Node | TopologyDomain::Rack | TopologyDomain::Zone => Self::Node(node.node_id),
        }
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

/// How far work of the one specification is to be kept apart from that of the other, which is there: because it asks, or
/// because the other asked. What is asked binds others of the same tenant alone: nobody keeps others' work out.
fn between<'a>(one: &'a ValidSpec, there: &'a ValidSpec) -> impl Iterator<Item = TopologyDomain> + 'a {
    let is_one_tenant = one.spec().tenant == there.spec().tenant;
    let asks = wanted(one).filter(|asked| has(there, asked));
    let is_asked = wanted(there).filter(|asked| is_one_tenant && has(one, asked));
    asks.into_iter().chain(is_asked).map(|asked| asked.within.unwrap_or(TopologyDomain::Node))
}

/// Who holds a place and is to be kept apart from work of this specification, and how far. The asker's own parts are no
/// others.
fn in_the_way<'a>(
    cluster: &'a Cluster,
    spec: &'a ValidSpec,
    asker: Option<&WorkloadEntry>,
) -> Vec<(&'a Arc<WorkloadEntry>, TopologyDomain)> {
    let workloads = &cluster.workloads;
    let asked = wanted(spec);
    let is_asked_about = workloads.are_asked_about(&spec.spec().labels);
    if asked.is_none() && !is_asked_about {
        return Vec::new();
    }
    let own = asked.map(|asked| workloads.placed_with(&asked.labels)).unwrap_or_default();
    let others = if is_asked_about { workloads.kept_apart() } else { Vec::new() };
    let is_other = |w: &&Arc<WorkloadEntry>| asker.is_none_or(|asker| asker.workload_id != w.workload_id);
    let each = own.into_iter().chain(others).filter(is_other);
    each.flat_map(|w| between(spec, &w.spec).map(move |within| (w, within))).collect()
}

/// Nodes on which work of this specification would not be kept apart, each with somebody who is in the way; in order.
pub(crate) fn left_out(
    cluster: &Cluster,
    spec: &ValidSpec,
    asker: Option<&WorkloadEntry>,
) -> Vec<(NodeId, WorkloadId)> {
    let mut domains: BTreeMap<Domain<'_>, WorkloadId> = BTreeMap::new();
    for (w, within) in in_the_way(cluster, spec, asker) {
        for node in w.lives().filter_map(|live| cluster.nodes.get(live.node_id)) {
            domains.entry(Domain::of(node, within)).or_insert(w.workload_id);
        }
    }
    if domains.is_empty() { Vec::new() } else { nodes_of(cluster, &domains) }
}

/// Whether a workload would not be kept apart on this node, once those have ended that `leaves` names.
pub(crate) fn is_left_out(
    cluster: &Cluster,
    entry: &WorkloadEntry,
    node: &NodeEntry,
    leaves: impl Fn(&WorkloadEntry) -> bool,
) -> bool {
    let is_near = |w: &WorkloadEntry, within: TopologyDomain| {
        let domain = Domain::of(node, within);
        let mut nodes = w.lives().filter_map(|live| cluster.nodes.get(live.node_id));
        nodes.any(|there| Domain::of(there, within) == domain)
    };
    let others = in_the_way(cluster, &entry.spec, Some(entry));
    others.into_iter().any(|(w, within)| !leaves(w) && is_near(w, within))
}

/// Who is there asks to be kept apart from both of them, or from neither.
pub(crate) fn are_asked_alike(cluster: &Cluster, a: &WorkloadEntry, b: &WorkloadEntry) -> bool {
    let workloads = &cluster.workloads;
    if !workloads.keeps_some_apart() {
        return true;
    }
    let (a, b) = (a.spec.spec(), b.spec.spec());
    let named = |labels| workloads.asked_about(labels);
    let of_a: Vec<_> = named(&a.labels).collect();
    of_a.iter().copied().eq(named(&b.labels)) && (of_a.is_empty() || a.tenant == b.tenant)
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
