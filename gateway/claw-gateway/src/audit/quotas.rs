//! What tenants may hold and do, as their events tell it.

use std::collections::BTreeMap;

use claw_proto::validation::{Demand, ValidSpec};
use claw_tools::quotas::Quota;

use crate::event::Event;

/// Thousandths of GPUs and of cores, MiB of memory.
type Held = [u64; 3];

#[derive(Debug, Clone, Default)]
pub(super) struct Quotas {
    tenants: BTreeMap<String, (Quota, Held)>,
}

fn most(quota: &Quota) -> [Option<u64>; 3] {
    let most = &quota.most;
    let times = |count: Option<u32>, unit: u64| count.map(|count| u64::from(count) * unit);
    [times(most.gpus, 1_000), times(most.cpu_cores, 1_000), times(most.memory_gib, 1_024)]
}

fn guaranteed(quota: &Quota) -> [Option<u64>; 3] {
    most(&Quota { most: quota.guaranteed, ..quota.clone() })
}

fn asked(demand: &Demand) -> Held {
    [demand.gpu_milli_total(), demand.cpu_millis, demand.memory_mib]
}

/// What it holds with all its parts.
fn whole(spec: &ValidSpec) -> Held {
    asked(spec.node_demand()).map(|part| part * u64::from(spec.nodes()))
}

impl Quotas {
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::QuotaSet { tenant, quota } => {
                let held = self.tenants.get(tenant).map_or([0; 3], |(_, held)| *held);
                self.tenants.insert(tenant.clone(), (quota.clone(), held));
            }
            Event::QuotaDeleted { tenant } => drop(self.tenants.remove(tenant)),
            _ => {}
        }
    }

    /// `tenant` is `of`, or a part of it.
    pub(super) fn is_part(&self, tenant: Option<&str>, of: &str) -> bool {
        let mut at = tenant;
        for _ in 0..self.tenants.len() {
            let Some((name, (quota, _))) = at.and_then(|name| self.tenants.get_key_value(name)) else { return false };
            if name == of {
                return true;
            }
            at = quota.parent.as_deref();
        }
        false
    }

    /// Counts a part; the tenant that has more than it may have with it. Of what a part does not
    /// ask for, a tenant may hold too much already: a bound that is lowered stops nobody.
    pub(super) fn take(&mut self, tenant: Option<&str>, demand: &Demand) -> Option<String> {
        let mut over = None;
        self.along(tenant, |name, quota, held| {
            for ((held, more), most) in held.iter_mut().zip(asked(demand)).zip(most(quota)) {
                *held += more;
                if more > 0 && most.is_some_and(|most| *held > most) {
                    over.get_or_insert_with(|| name.to_owned());
                }
            }
        });
        over
    }

    fn is_of(&self, spec: &ValidSpec, name: &str) -> bool {
        self.is_part(spec.spec().tenant.as_deref(), name)
    }

    /// The tenants that `wanted` is part of that hold, with it, no more than they are guaranteed.
    fn within<'a>(&'a self, wanted: &'a ValidSpec) -> impl Iterator<Item = &'a String> {
        let more = whole(wanted);
        let is_within = move |(name, (quota, held)): &(&String, &(Quota, Held))| {
            let stated = guaranteed(quota);
            let of_it = || (0..3).filter(|at| more[*at] > 0).map(|at| (stated[at], held[at] + more[at]));
            let speaks = if more[0] > 0 { stated[0].is_some() } else { of_it().any(|(most, _)| most.is_some()) };
            self.is_of(wanted, name) && speaks && of_it().all(|(most, with)| most.is_none_or(|most| with <= most))
        };
        self.tenants.iter().filter(is_within).map(|(name, _)| name)
    }

    pub(super) fn is_within(&self, wanted: &ValidSpec) -> bool {
        self.within(wanted).next().is_some()
    }

    /// Some tenant that `wanted` is part of holds no more than it is guaranteed with it, and each that `less` is
    /// part of, and that one is not, still what it is guaranteed without that and without those that leave.
    pub(super) fn takes_back(&self, wanted: &ValidSpec, less: &ValidSpec, leaving: &[&ValidSpec]) -> bool {
        let gone = whole(less);
        let own = less.spec().tenant.as_deref();
        self.within(wanted).any(|of| {
            let keeps = |(name, (quota, held)): (&String, &(Quota, Held))| {
                let left = leaving.iter().filter(|spec| self.is_of(spec, name)).map(|spec| whole(spec));
                let left = left.fold(gone, |sum, one| std::array::from_fn(|at| sum[at] + one[at]));
                let is_kept = |at: usize| guaranteed(quota)[at].is_none_or(|most| held[at] >= most + left[at]);
                // Of what it is not asked for, it may hold less than it is guaranteed already.
                !self.is_of(less, name) || self.is_part(Some(of), name) || (0..3).all(|at| gone[at] == 0 || is_kept(at))
            };
            let is_kin = self.is_of(less, of) || own.is_some_and(|own| self.is_part(Some(of), own));
            !is_kin && self.tenants.iter().all(keeps)
        })
    }

    /// Counts a part no more.
    pub(super) fn give(&mut self, tenant: Option<&str>, demand: &Demand) {
        self.along(tenant, |_, _, held| {
            for (held, less) in held.iter_mut().zip(asked(demand)) {
                *held = held.saturating_sub(less);
            }
        });
    }

    /// A tenant and those that it is a part of. Deeper than all tenants are many nobody goes.
    fn along(&mut self, tenant: Option<&str>, mut each: impl FnMut(&str, &Quota, &mut Held)) {
        let mut at = tenant.map(str::to_owned);
        for _ in 0..self.tenants.len() {
            let Some(name) = &at else { return };
            let Some((quota, held)) = self.tenants.get_mut(name) else { return };
            each(name, quota, held);
            at = quota.parent.clone();
        }
    }
}
