//! What a tenant may take back: what it is guaranteed and others borrowed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::ids::WorkloadId;
use claw_proto::validation::ValidSpec;

use super::{Tenant, amounts, claimed, whole_amounts};
use crate::Cluster;
use crate::scheduler::fairness::{Amounts, RESOURCES};
use crate::workload::{Desired, WorkloadEntry};

/// What a tenant is guaranteed, and nothing where it says nothing of a resource.
fn guaranteed(tenant: &Tenant) -> [Option<u64>; RESOURCES] {
    amounts(&tenant.quota.guaranteed, u64::MAX).0.map(|of| Some(of).filter(|of| *of != u64::MAX))
}

/// Whether a tenant on its line, with this and all that it holds and is about to get, holds no more than it
/// is guaranteed: the lowest. GPUs have to be guaranteed where GPUs are asked for, else something that is.
fn within<'a>(cluster: &'a Cluster, spec: &'a ValidSpec, asker: Option<&WorkloadEntry>) -> Option<&'a Arc<str>> {
    let more = whole_amounts(spec);
    let asked = || (0..RESOURCES).filter(|at| more.0[*at] > 0);
    let line = spec.spec().tenant.as_deref().into_iter().flat_map(|name| cluster.tenants.line(name));
    let is_within = |entry: &&Arc<Tenant>| {
        let stated = guaranteed(entry);
        let speaks = if more.0[0] > 0 { stated[0].is_some() } else { asked().any(|at| stated[at].is_some()) };
        if !speaks {
            return false;
        }
        let with = entry.books.held.plus(claimed(cluster, &entry.name, asker)).plus(more);
        asked().all(|at| stated[at].is_none_or(|most| with.0[at] <= most))
    };
    line.into_iter().find(is_within).map(|entry| &entry.name)
}

/// Some tenant on its line holds no more than it is guaranteed, with this.
pub(crate) fn is_guaranteed(cluster: &Cluster, spec: &ValidSpec, asker: Option<&WorkloadEntry>) -> bool {
    within(cluster, spec, asker).is_some()
}

/// What tenants hold beyond what they are guaranteed, as it is taken back piece by piece.
#[derive(Clone)]
pub(crate) struct Lent<'a> {
    cluster: &'a Cluster,
    /// Whose guarantee it is.
    of: &'a str,
    left: BTreeMap<Arc<str>, Amounts>,
    /// What runs and is told to end already, whoever told it.
    leaving: Vec<Arc<WorkloadEntry>>,
}

impl<'a> Lent<'a> {
    /// For who is within the guarantee of a tenant on its line.
    pub(crate) fn to_take_back(cluster: &'a Cluster, entry: &'a WorkloadEntry) -> Option<Self> {
        let of = within(cluster, &entry.spec, Some(entry))?;
        let running: BTreeSet<WorkloadId> =
            cluster.nodes.iter().flat_map(|node| node.usage.workloads.iter().copied()).collect();
        let running = running.into_iter().filter_map(|id| cluster.workloads.get(id));
        let leaving = running.filter(|w| w.desired != Desired::Run).cloned().collect();
        Some(Self { cluster, of, left: BTreeMap::new(), leaving })
    }

    /// Whether this may be stopped for it: its tenant has no part in that tenant, nor that in it, and each on its
    /// line that has no part in both holds without it, and without those that were taken before it, what it is
    /// guaranteed.
    pub(crate) fn takes(&mut self, w: &WorkloadEntry) -> bool {
        let own = w.spec.spec().tenant.as_deref();
        let tenants = &self.cluster.tenants;
        if own.is_some_and(|own| tenants.counts_for(Some(own), self.of) || tenants.counts_for(Some(self.of), own)) {
            return false;
        }
        let less = whole_amounts(&w.spec);
        let apart = self.apart(own);
        let fits = apart.iter().all(|entry| {
            let left = self.left(entry);
            (0..RESOURCES).all(|at| less.0[at] <= left.0[at])
        });
        if fits {
            self.debit(w);
        }
        fits
    }

    /// It leaves, whatever for.
    pub(crate) fn debit(&mut self, w: &WorkloadEntry) {
        let less = whole_amounts(&w.spec);
        for entry in self.apart(w.spec.spec().tenant.as_deref()) {
            let left = self.left(entry).minus(less);
            self.left.insert(Arc::clone(&entry.name), left);
        }
    }

    /// The tenants on a line that the one who takes back is no part of.
    fn apart(&self, own: Option<&str>) -> Vec<&'a Arc<Tenant>> {
        let Some(own) = own.and_then(|own| self.cluster.tenants.get(own)) else { return Vec::new() };
        let line = self.cluster.tenants.line(&own.name);
        line.filter(|entry| !self.cluster.tenants.counts_for(Some(self.of), &entry.name)).collect()
    }

    /// What a tenant with its parts still holds beyond its guarantee. Of what it is not guaranteed, all.
    fn left(&mut self, entry: &Arc<Tenant>) -> Amounts {
        if let Some(left) = self.left.get(&entry.name) {
            return *left;
        }
        let its =
            |w: &&Arc<WorkloadEntry>| self.cluster.tenants.counts_for(w.spec.spec().tenant.as_deref(), &entry.name);
        let leaving = self.leaving.iter().filter(its);
        let held = leaving.fold(entry.books.held, |held, w| held.minus(whole_amounts(&w.spec)));
        let stated = guaranteed(entry);
        let left =
            Amounts(std::array::from_fn(|at| stated[at].map_or(u64::MAX, |most| held.0[at].saturating_sub(most))));
        self.left.insert(Arc::clone(&entry.name), left);
        left
    }
}
