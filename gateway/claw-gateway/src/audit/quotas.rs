//! What tenants hold and may hold, as their events tell it.

use std::collections::BTreeMap;

use claw_proto::validation::{Demand, ValidSpec};
use claw_tools::quotas::{Quota, QuotaAmounts};

use crate::event::Event;

/// Thousandths of GPUs and of cores, MiB of memory.
pub(super) type Held = [u64; 3];

#[derive(Debug, Clone, Default)]
pub(super) struct Quotas {
    tenants: BTreeMap<String, (Quota, Held)>,
}

fn amounts(of: &QuotaAmounts) -> [Option<u64>; 3] {
    let times = |count: Option<u32>, unit: u64| count.map(|count| u64::from(count) * unit);
    [times(of.gpus, 1_000), times(of.cpu_cores, 1_000), times(of.memory_gib, 1_024)]
}

fn asked(demand: &Demand) -> Held {
    [demand.gpu_milli_total(), demand.cpu_millis, demand.memory_mib]
}

/// What it holds with all its parts.
pub(super) fn whole(spec: &ValidSpec) -> Held {
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

    /// All tenants: name, what it is guaranteed, what it holds.
    pub(super) fn each(&self) -> impl Iterator<Item = (&String, [Option<u64>; 3], Held)> {
        self.tenants.iter().map(|(name, (quota, held))| (name, amounts(&quota.guaranteed), *held))
    }

    /// A tenant and those that it is a part of. Deeper than all tenants are many nobody goes.
    fn line(&self, tenant: Option<&str>) -> Vec<String> {
        let known = |name: &str| self.tenants.get_key_value(name);
        let first = tenant.and_then(known);
        let line = std::iter::successors(first, |(_, (quota, _))| quota.parent.as_deref().and_then(known));
        line.take(self.tenants.len()).map(|(name, _)| name.clone()).collect()
    }

    /// `tenant` is `of`, or a part of it.
    pub(super) fn is_part(&self, tenant: Option<&str>, of: &str) -> bool {
        self.line(tenant).iter().any(|name| name == of)
    }

    /// Counts a part; the tenant that has more than it may have with it. Of what a part does not
    /// ask for, a tenant may hold too much already: a bound that is lowered stops nobody.
    pub(super) fn take(&mut self, tenant: Option<&str>, demand: &Demand) -> Option<String> {
        let mut over = None;
        for name in self.line(tenant) {
            let Some((quota, held)) = self.tenants.get_mut(&name) else { continue };
            for ((held, more), most) in held.iter_mut().zip(asked(demand)).zip(amounts(&quota.most)) {
                *held += more;
                if more > 0 && most.is_some_and(|most| *held > most) {
                    over.get_or_insert_with(|| name.clone());
                }
            }
        }
        over
    }

    /// Counts a part no more.
    pub(super) fn give(&mut self, tenant: Option<&str>, demand: &Demand) {
        for name in self.line(tenant) {
            let held = self.tenants.get_mut(&name).into_iter().flat_map(|(_, held)| held);
            held.zip(asked(demand)).for_each(|(held, less)| *held = held.saturating_sub(less));
        }
    }

    /// The tenants that `wanted` is part of that hold, with it, no more than they are guaranteed.
    pub(super) fn within<'a>(&'a self, wanted: &'a ValidSpec) -> impl Iterator<Item = &'a String> {
        let more = whole(wanted);
        let is_within = move |(name, stated, held): &(&String, [Option<u64>; 3], Held)| {
            let of_it = || (0..3).filter(|at| more[*at] > 0).map(|at| (stated[at], held[at] + more[at]));
            let speaks = if more[0] > 0 { stated[0].is_some() } else { of_it().any(|(most, _)| most.is_some()) };
            let is_of_it = self.is_part(wanted.spec().tenant.as_deref(), name);
            is_of_it && speaks && of_it().all(|(most, with)| most.is_none_or(|most| with <= most))
        };
        self.each().filter(is_within).map(|(name, ..)| name)
    }
}
