//! Whole nodes that are kept for a tenant for a time.
//!
//! From its making on a reservation keeps work off its nodes that is not its
//! tenant's and is not sure to have ended when it begins (`max_duration_s`). It
//! stops nobody: nodes are taken only where that is so already.

use std::sync::Arc;

use claw_proto::ids::NodeId;
use claw_proto::validation::ValidSpec;
use claw_tools::reservations::Reservation;
use imbl::{OrdMap, OrdSet};

use crate::Cluster;
use crate::registry::NodeEntry;
use crate::workload::{WorkloadEntry, ends_by};

/// All reservations, by name and by node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reservations {
    by_name: OrdMap<String, Arc<Reservation>>,
    /// Index.
    by_node: OrdSet<(NodeId, String)>,
}

impl Reservations {
    /// Nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }
    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Reservation>> {
        self.by_name.get(name)
    }
    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Reservation>> {
        self.by_name.values()
    }
    /// Those that keep a node.
    pub fn of_node(&self, node_id: NodeId) -> impl Iterator<Item = &Arc<Reservation>> {
        let of_it = self.by_node.range((node_id, String::new())..).take_while(move |(of, _)| *of == node_id);
        of_it.filter_map(|(_, name)| self.by_name.get(name))
    }
    /// Nodes that are kept by some.
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.by_node.iter().map(|(node_id, _)| *node_id).collect();
        nodes.dedup();
        nodes
    }
    /// The map itself, for differences between two states.
    pub(crate) fn map(&self) -> &OrdMap<String, Arc<Reservation>> {
        &self.by_name
    }
    /// One more, or another one of that name.
    pub(crate) fn set(&mut self, reservation: Arc<Reservation>) {
        self.remove(&reservation.name);
        self.by_node.extend(reservation.nodes.iter().map(|node_id| (*node_id, reservation.name.clone())));
        self.by_name.insert(reservation.name.clone(), reservation);
    }
    /// It is gone.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(gone) = self.by_name.remove(name) {
            for node_id in &gone.nodes {
                self.by_node.remove(&(*node_id, gone.name.clone()));
            }
        }
    }
}

/// The reservation of a node that keeps out work that would begin now.
pub(crate) fn keeping_out<'a>(cluster: &'a Cluster, node_id: NodeId, spec: &ValidSpec) -> Option<&'a Arc<Reservation>> {
    cluster.reservations.of_node(node_id).find(|kept| keeps_out(cluster, kept, spec))
}

/// It is kept from this work, on any of its nodes: for another tenant, and the work is not sure to have ended
/// when it begins, with the time that it has to end.
pub(crate) fn keeps_out(cluster: &Cluster, kept: &Reservation, spec: &ValidSpec) -> bool {
    let now = cluster.clock;
    kept.ends_at > now
        && !cluster.tenants.counts_for(spec.spec().tenant.as_deref(), &kept.tenant)
        && ends_by(spec, now).is_none_or(|ends_at| ends_at > kept.starts_at)
}

/// A node is kept for this tenant now.
pub(crate) fn is_kept_for(cluster: &Cluster, node_id: NodeId, tenant: Option<&str>) -> bool {
    let now = cluster.clock;
    let is_its = |kept: &Arc<Reservation>| {
        kept.starts_at <= now && now < kept.ends_at && cluster.tenants.counts_for(tenant, &kept.tenant)
    };
    tenant.is_some() && cluster.reservations.of_node(node_id).any(is_its)
}

/// Why a node cannot be kept for a tenant, if it cannot.
pub(crate) fn obstacle(cluster: &Cluster, node: &NodeEntry, wanted: &Reservation) -> Option<String> {
    use claw_tools::nodes::{NodeLink, Schedulable};
    if node.link != NodeLink::Online || node.schedulable != Schedulable::Active {
        let state = if node.link == NodeLink::Online { node.schedulable.to_string() } else { node.link.to_string() };
        return Some(format!("is {state}"));
    }
    let overlaps = |kept: &&Arc<Reservation>| {
        kept.starts_at < wanted.ends_at && wanted.starts_at < kept.ends_at && kept.name != wanted.name
    };
    if let Some(kept) = cluster.reservations.of_node(node.node_id).find(overlaps) {
        return Some(format!("is kept by {} for {} then", kept.name, kept.tenant));
    }
    let is_its = |w: &WorkloadEntry| cluster.tenants.counts_for(w.spec.spec().tenant.as_deref(), &wanted.tenant);
    let held = node.usage.workloads.iter().filter_map(|id| cluster.workloads.get(*id)).filter(|w| !is_its(w));
    for w in held {
        let since = w.live_on(node.node_id).and_then(|a| a.started_at).unwrap_or(cluster.clock);
        match ends_by(&w.spec, since) {
            None => return Some(format!("runs {}, which says no max_duration_s", w.name)),
            Some(ends_at) if ends_at > wanted.starts_at => {
                return Some(format!("runs {}, which may take until {ends_at}", w.name));
            }
            Some(_) => {}
        }
    }
    let claimant = cluster.workloads.claimants_on(node.node_id).find(|w| !is_its(w));
    claimant.map(|w| format!("is being made free for {}", w.name))
}
