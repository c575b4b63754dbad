//! # claw-tenancy: tenants and their quotas
//!
//! What each tenant is guaranteed, may have at most, holds and has had lately.
//!
//! The tree of tenants stands in the state as it was set; [`Board`] puts it before
//! [`Shares`], which decides who may have more and who is next. Work of
//! nobody's tenant is a tenant of its own without a guarantee, so that it neither
//! goes before those who have one nor is forgotten.

mod assign;
mod lent;
mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use claw_proto::time::Timestamp;
use claw_proto::validation::ValidSpec;
use claw_tools::quotas::{Quota, QuotaAmounts, TENANT_LEVELS_MAX};
use claw_tools::workloads::PlacementReport;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::Cluster;
use crate::scheduler::fairness::{Amounts, Decayed, Group, RESOURCES, Shares, Shortage};
use crate::workload::WorkloadEntry;

pub(crate) use assign::{assign, known, unknown};
pub(crate) use lent::{Lent, is_guaranteed};
pub(crate) use turns::{Turn, Turns, order, waits_behind};

/// What nobody's tenant is called where a name is needed.
pub const UNTENANTED: &str = "(no tenant)";
/// What the resources are called, in their order.
const NAMES: [&str; RESOURCES] = ["GPUs", "CPU cores", "GiB of memory"];
/// Of each resource so many units of [`Amounts`] are one of what people count in.
const UNITS: [f64; RESOURCES] = [1_000.0, 1_000.0, 1_024.0];

/// What is held, and was lately, by a tenant with those that are part of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Books {
    /// Held now (index).
    #[serde(skip)]
    pub held: Amounts,
    /// Lately.
    pub had: Decayed,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Name.
    pub name: Arc<str>,
    /// What it is guaranteed and may have.
    pub quota: Arc<Quota>,
    /// What it holds.
    pub books: Books,
}

/// All tenants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tenants {
    /// The keys are shared: a change copies a leaf of the tree with all its keys.
    by_name: OrdMap<Arc<str>, Arc<Tenant>>,
    /// Of work that is nobody's.
    untenanted: Option<Books>,
}

/// An amount as the scheduler counts; `absent` stands for what is not spoken of.
pub fn amounts(of: &QuotaAmounts, absent: u64) -> Amounts {
    let units = |count: Option<u32>, unit: u64| count.map_or(absent, |count| u64::from(count) * unit);
    Amounts([units(of.gpus, 1_000), units(of.cpu_cores, 1_000), units(of.memory_gib, 1_024)])
}

/// What one part of a workload holds.
pub fn part_amounts(spec: &ValidSpec) -> Amounts {
    let demand = spec.node_demand();
    Amounts([demand.gpu_milli_total(), demand.cpu_millis, demand.memory_mib])
}

/// What a workload holds with all its parts.
pub fn whole_amounts(spec: &ValidSpec) -> Amounts {
    Amounts(part_amounts(spec).0.map(|part| part.saturating_mul(u64::from(spec.nodes()))))
}

/// In what people count: GPUs, cores, GiB.
pub fn counted(amounts: Amounts) -> [f64; RESOURCES] {
    std::array::from_fn(|at| amounts.0[at] as f64 / UNITS[at])
}

impl Tenants {
    /// Nobody has a quota: everybody may have what is free.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }
    /// The tenant of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.by_name.get(name)
    }
    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.by_name.values()
    }
    /// A tenant and those that it is part of, from below.
    pub fn line<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Tenant>> {
        let parent = |entry: &&'a Arc<Tenant>| entry.quota.parent.as_deref().and_then(|name| self.get(name));
        // A line is never longer; a broken one would go round for ever.
        std::iter::successors(self.get(name), parent).take(TENANT_LEVELS_MAX)
    }
    /// Work of `own` counts for `tenant`: it is that, or a part of it.
    pub fn counts_for(&self, own: Option<&str>, tenant: &str) -> bool {
        own.is_some_and(|own| self.line(own).any(|above| *above.name == *tenant))
    }
    /// The map itself, for differences between two states.
    pub(crate) fn map(&self) -> &OrdMap<Arc<str>, Arc<Tenant>> {
        &self.by_name
    }
    /// What work of nobody's tenant holds and has had.
    pub(crate) fn untenanted(&self) -> Option<Books> {
        self.untenanted
    }

    /// Somebody keeps a guarantee to themselves: what is free may not be for everybody.
    fn keeps_some(&self) -> bool {
        self.iter().any(|entry| !entry.quota.lends && amounts(&entry.quota.guaranteed, 0) != Amounts::default())
    }

    /// Some tenant is guaranteed, or may have, something else.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        // Asked for each operation: what is shared is not compared, only pointed at.
        let same = |(a, b): (&Arc<Tenant>, &Arc<Tenant>)| {
            Arc::ptr_eq(a, b) || (a.name == b.name && (Arc::ptr_eq(&a.quota, &b.quota) || a.quota == b.quota))
        };
        self.len() != other.len() || !self.iter().zip(other.iter()).all(same)
    }

    /// A tenant is made, or has another quota. It keeps its place in the tree.
    pub(crate) fn set(&mut self, name: &str, quota: Quota, half_life_s: f64) {
        let books = self.get(name).map_or_else(|| Books::new(half_life_s), |entry| entry.books);
        let name: Arc<str> = Arc::from(name);
        let entry = Tenant { name: Arc::clone(&name), quota: Arc::new(quota), books };
        self.by_name.insert(name, Arc::new(entry));
    }
    /// A tenant is gone.
    pub(crate) fn remove(&mut self, name: &str) {
        self.by_name.remove(name);
    }
    /// As they were written down (when a snapshot is read); what is held is counted after.
    /// The half-life is today's setting, whatever it was.
    pub(crate) fn restored(entries: Vec<Arc<Tenant>>, untenanted: Option<Books>, half_life_s: f64) -> Self {
        let today = |books: Books| Books { had: books.had.with_half_life(half_life_s), ..books };
        let entries =
            entries.into_iter().map(|entry| Arc::new(Tenant { books: today(entry.books), ..(*entry).clone() }));
        let untenanted = untenanted.map(today);
        Self { by_name: entries.map(|entry| (Arc::clone(&entry.name), entry)).collect(), untenanted }
    }

    /// Work of a tenant has so much more, or less, from now on.
    pub(crate) fn change(&mut self, tenant: Option<&str>, change: &dyn Fn(&mut Books), half_life_s: f64) {
        let line = tenant.into_iter().flat_map(|name| self.line(name));
        let names: Vec<Arc<str>> = line.map(|entry| Arc::clone(&entry.name)).collect();
        if names.is_empty() {
            change(self.untenanted.get_or_insert_with(|| Books::new(half_life_s)));
        }
        for name in names {
            if let Some(entry) = self.by_name.get_mut(&name) {
                change(&mut Arc::make_mut(entry).books);
            }
        }
    }
}

impl Books {
    fn new(half_life_s: f64) -> Self {
        Self { held: Amounts::default(), had: Decayed::new(half_life_s) }
    }
    /// So much more is held from now on.
    pub(crate) fn take(&mut self, more: Amounts, now: Timestamp) {
        self.held = self.held.plus(more);
        self.had.set(self.held, seconds(now));
    }
    /// So much less is held from now on.
    pub(crate) fn give(&mut self, less: Amounts, now: Timestamp) {
        self.held = self.held.minus(less);
        self.had.set(self.held, seconds(now));
    }
}

/// An instant as seconds, for means over time.
pub(crate) fn seconds(at: Timestamp) -> f64 {
    at.unix_ms() as f64 / 1_000.0
}

/// The tenants as they stand, before the one who shares out.
#[derive(Debug, Clone)]
pub struct Board {
    /// Who holds what, and who is next.
    pub shares: Shares,
    groups: BTreeMap<Arc<str>, usize>,
    names: Vec<Arc<str>>,
}

/// The first on the line of a workload's tenant that may not hold so much more, and the resource.
/// What is not asked for does not count; what room is being made for, but for `asker`'s own, does.
fn over<'a>(
    cluster: &'a Cluster,
    spec: &'a ValidSpec,
    asker: Option<&WorkloadEntry>,
) -> Option<(&'a Arc<Tenant>, usize)> {
    let (tenant, more) = (spec.spec().tenant.as_deref()?, whole_amounts(spec));
    cluster.tenants.line(tenant).find_map(|entry| {
        let with = entry.books.held.plus(claimed(cluster, &entry.name, asker)).plus(more);
        let most = amounts(&entry.quota.most, u64::MAX);
        let is_over = |at: &usize| more.0[*at] > 0 && with.0[*at] > most.0[*at];
        (0..RESOURCES).find(is_over).map(|at| (entry, at))
    })
}

/// What those of a tenant and its parts will hold for whom room is being made: it is theirs already,
/// or others would have been stopped for nothing.
fn claimed(cluster: &Cluster, tenant: &str, asker: Option<&WorkloadEntry>) -> Amounts {
    let its = |w: &&Arc<WorkloadEntry>| cluster.tenants.counts_for(w.spec.spec().tenant.as_deref(), tenant);
    let others = claimants(cluster, asker).filter(its);
    others.fold(Amounts::default(), |sum, w| sum.plus(whole_amounts(&w.spec)))
}

/// Those for whom room is being made, or kept, but for one.
fn claimants<'a>(cluster: &'a Cluster, but: Option<&WorkloadEntry>) -> impl Iterator<Item = &'a Arc<WorkloadEntry>> {
    let but = but.map(|w| w.workload_id);
    let all = if cluster.workloads.has_claims() { cluster.workloads.claimants_all() } else { Vec::new() };
    all.into_iter().filter(move |w| Some(w.workload_id) != but)
}

/// The root of all groups.
const ROOT: usize = 0;
/// The group of work that is nobody's.
const NOBODYS: usize = 1;

impl Board {
    /// The tenants of a fleet.
    pub fn of(cluster: &Cluster) -> Self {
        let half_life_s = cluster.policy.half_life_s();
        let fleet = cluster.nodes.capacity();
        let open = Group { parent: Some(ROOT), guaranteed: Amounts::default(), most: None, lends: true, weight: 1 };
        let mut groups = vec![Group { parent: None, guaranteed: fleet, ..open }, open];
        let nobodys = cluster.tenants.untenanted().unwrap_or_else(|| Books::new(half_life_s));
        let mut books = vec![(nobodys.held, Decayed::new(half_life_s)), (nobodys.held, nobodys.had)];
        let mut names: Vec<Arc<str>> = vec![Arc::from(""), Arc::from(UNTENANTED)];
        let mut index: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        let mut parts: BTreeMap<Option<&str>, Vec<&Arc<Tenant>>> = BTreeMap::new();
        for entry in cluster.tenants.iter() {
            parts.entry(entry.quota.parent.as_deref()).or_default().push(entry);
        }
        // Those on top first, so that each stands behind its parent.
        let mut open_parts = VecDeque::from([(ROOT, None)]);
        while let Some((parent, of)) = open_parts.pop_front() {
            for entry in parts.remove(&of).unwrap_or_default() {
                let quota = &entry.quota;
                if parent == ROOT {
                    books[ROOT].0 = books[ROOT].0.plus(entry.books.held);
                }
                groups.push(Group {
                    parent: Some(parent),
                    guaranteed: amounts(&quota.guaranteed, 0),
                    most: Some(amounts(&quota.most, u64::MAX)),
                    lends: quota.lends,
                    weight: quota.weight.max(1),
                });
                books.push((entry.books.held, entry.books.had));
                open_parts.push_back((names.len(), Some(&*entry.name)));
                index.insert(Arc::clone(&entry.name), names.len());
                names.push(Arc::clone(&entry.name));
            }
        }
        Self { shares: Shares::with_books(groups, fleet, books), groups: index, names }
    }

    /// The group of a workload's tenant.
    pub fn group(&self, spec: &ValidSpec) -> usize {
        spec.spec().tenant.as_deref().and_then(|name| self.groups.get(name)).copied().unwrap_or(NOBODYS)
    }

    /// The group of a tenant.
    pub fn group_of(&self, tenant: &str) -> Option<usize> {
        self.groups.get(tenant).copied()
    }

    /// What is short, in a sentence.
    pub fn told(&self, spec: &ValidSpec, shortage: Shortage) -> String {
        let wanted = counted(whole_amounts(spec));
        match shortage {
            Shortage::Quota { group, resource } => {
                bound_told(&self.names[group], resource, self.shares.most(group), self.shares.held(group), spec)
            }
            Shortage::Capacity { resource } => {
                let what = NAMES[resource];
                format!("{} {what} would be taken from what is kept for tenants that do not lend", wanted[resource])
            }
        }
    }
}

/// The tenant whose bound keeps a workload of this specification from starting now, and that bound
/// with what would have to be added to it.
pub(crate) fn bound_in_the_way(cluster: &Cluster, w: &WorkloadEntry) -> Option<(Arc<Tenant>, QuotaAmounts)> {
    let (entry, _) = over(cluster, &w.spec, Some(w))?;
    let others = claimed(cluster, &entry.name, Some(w));
    let needed = counted(entry.books.held.plus(others).plus(whole_amounts(&w.spec)));
    // Only what is bounded has to be more; what people count in is whole.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded by the count it is compared with"
    )]
    let raised =
        |bound: Option<u32>, at: usize| bound.map(|bound| bound.max(needed[at].ceil().min(f64::from(u32::MAX)) as u32));
    let most = &entry.quota.most;
    let most = QuotaAmounts {
        gpus: raised(most.gpus, 0),
        cpu_cores: raised(most.cpu_cores, 1),
        memory_gib: raised(most.memory_gib, 2),
    };
    Some((Arc::clone(entry), most))
}

fn bound_told(name: &str, resource: usize, most: Amounts, held: Amounts, spec: &ValidSpec) -> String {
    let (most, held, wanted) =
        (counted(most)[resource], counted(held)[resource], counted(whole_amounts(spec))[resource]);
    let what = NAMES[resource];
    format!("{name} may hold {most} {what} at most and holds {held}; {wanted} more are asked for")
}

/// Why a workload of this specification may not start now, whatever room there is; nothing if it may.
pub(crate) fn blocked(cluster: &Cluster, spec: &ValidSpec, asker: Option<&WorkloadEntry>) -> Option<PlacementReport> {
    if cluster.tenants.is_empty() {
        return None;
    }
    // Most often this is all there is to know, and it asks one line and not all tenants.
    if let Some((entry, resource)) = over(cluster, spec, asker) {
        let most = amounts(&entry.quota.most, u64::MAX);
        let held = entry.books.held.plus(claimed(cluster, &entry.name, asker));
        return Some(waits(&bound_told(&entry.name, resource, most, held, spec)));
    }
    if !cluster.tenants.keeps_some() {
        return None;
    }
    let mut board = Board::of(cluster);
    for other in claimants(cluster, asker) {
        // Where it does not fit any more, its claim is given up when its turn comes.
        let _ = board.shares.take(board.group(&other.spec), whole_amounts(&other.spec), 0.0);
    }
    let shortage = board.shares.admits(board.group(spec), whole_amounts(spec)).err()?;
    Some(report(&board, spec, shortage))
}

/// The decision that a quota makes, as a report.
pub(crate) fn report(board: &Board, spec: &ValidSpec, shortage: Shortage) -> PlacementReport {
    waits(&board.told(spec, shortage))
}

fn waits(told: &str) -> PlacementReport {
    PlacementReport {
        summary: format!("it waits for its quota and not for room: {told}"),
        considered: 0,
        chosen: None,
        rejected: Vec::new(),
        runner_up: None,
        waiting_helps: true,
    }
}
