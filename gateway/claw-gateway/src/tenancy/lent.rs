//! What a tenant may take back: what it is guaranteed and others borrowed.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::validation::ValidSpec;

use super::{Tenant, amounts, claimants, claimed, whole_amounts};
use crate::Cluster;
use crate::scheduler::fairness::{Amounts, RESOURCES};
use crate::workload::WorkloadEntry;

/// What a tenant is guaranteed, and nothing where it says nothing of a resource.
fn guaranteed(cluster: &Cluster, tenant: &str) -> [Option<u64>; RESOURCES] {
    let stated = cluster.tenants.get(tenant).map(|entry| amounts(&entry.quota.guaranteed, u64::MAX));
    stated.map_or([None; RESOURCES], |stated| stated.0.map(|of| Some(of).filter(|of| *of != u64::MAX)))
}

/// Whether a tenant on its line, with this and all that it holds and is about to get, holds no more than it
/// is guaranteed: the lowest. Of what is asked for, something has to be guaranteed.
fn within<'a>(cluster: &'a Cluster, spec: &'a ValidSpec, asker: Option<&WorkloadEntry>) -> Option<&'a Arc<str>> {
    let more = whole_amounts(spec);
    let asked = || (0..RESOURCES).filter(|at| more.0[*at] > 0);
    let line = spec.spec().tenant.as_deref().into_iter().flat_map(|name| cluster.tenants.line(name));
    let is_within = |entry: &&Arc<Tenant>| {
        let stated = guaranteed(cluster, &entry.name);
        let with = || entry.books.held.plus(claimed(cluster, &entry.name, asker)).plus(more);
        asked().any(|at| stated[at].is_some()) && {
            let with = with();
            asked().all(|at| stated[at].is_none_or(|most| with.0[at] <= most))
        }
    };
    line.into_iter().find(is_within).map(|entry| &entry.name)
}

/// Some tenant on its line holds no more than it is guaranteed, with this.
pub(crate) fn is_guaranteed(cluster: &Cluster, spec: &ValidSpec, asker: Option<&WorkloadEntry>) -> bool {
    within(cluster, spec, asker).is_some()
}

/// What tenants hold beyond what they are guaranteed, as it is taken back piece by piece.
pub(crate) struct Lent<'a> {
    cluster: &'a Cluster,
    /// Whose guarantee it is.
    of: &'a str,
    left: BTreeMap<Arc<str>, Amounts>,
}

impl<'a> Lent<'a> {
    /// For who is within the guarantee of a tenant on its line.
    pub(crate) fn to_take_back(cluster: &'a Cluster, entry: &'a WorkloadEntry) -> Option<Self> {
        let of = within(cluster, &entry.spec, Some(entry))?;
        Some(Self { cluster, of, left: BTreeMap::new() })
    }

    /// Whether this may be stopped for it: it is no part of that tenant, and each tenant on its line that has
    /// no part in both holds without it, and without those that were taken before it, what it is guaranteed.
    pub(crate) fn takes(&mut self, w: &WorkloadEntry) -> bool {
        let cluster = self.cluster;
        let own = w.spec.spec().tenant.as_deref();
        if cluster.tenants.counts_for(own, self.of) {
            return false;
        }
        let line = own.into_iter().flat_map(|name| cluster.tenants.line(name));
        let apart: Vec<&Arc<Tenant>> =
            line.filter(|entry| !cluster.tenants.counts_for(Some(self.of), &entry.name)).collect();
        let less = whole_amounts(&w.spec);
        let fits = apart.iter().all(|entry| {
            let left = self.left.entry(Arc::clone(&entry.name)).or_insert_with(|| beyond(cluster, entry));
            (0..RESOURCES).all(|at| less.0[at] <= left.0[at])
        });
        if fits {
            for entry in apart {
                self.left.entry(Arc::clone(&entry.name)).and_modify(|left| *left = left.minus(less));
            }
        }
        fits
    }
}

/// What a tenant with its parts holds beyond its guarantee, without those that are told to end already. Of
/// what it is not guaranteed, all.
fn beyond(cluster: &Cluster, entry: &Arc<Tenant>) -> Amounts {
    let victims = claimants(cluster, None).filter_map(|w| w.claim.as_ref()).flat_map(|claim| &claim.victims);
    let leaving = victims.filter_map(|id| cluster.workloads.get(*id)).filter(|w| w.live().is_some());
    let its = leaving.filter(|w| cluster.tenants.counts_for(w.spec.spec().tenant.as_deref(), &entry.name));
    let held = its.fold(entry.books.held, |held, w| held.minus(whole_amounts(&w.spec)));
    let stated = guaranteed(cluster, &entry.name);
    Amounts(std::array::from_fn(|at| stated[at].map_or(u64::MAX, |most| held.0[at].saturating_sub(most))))
}
