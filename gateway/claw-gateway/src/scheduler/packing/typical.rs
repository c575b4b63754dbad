//! What is likely to come: the only prior that a policy has.

use std::collections::BTreeMap;

use super::machine::{Machine, Request};

/// Share of all requests that the table covers.
const COVERED: f64 = 0.95;
/// Rounds in which the demand of those that are choosy spreads over what they allow.
const ROUNDS: usize = 200;

/// Classes of requests with their share, the most frequent first (FGD's
/// "typical pods"), and what follows from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Typical {
    classes: Vec<(Request, f64)>,
    /// What classes ask for of a GPU, thousandths, each once.
    parts_milli: Vec<u16>,
    /// For each class, where its part stands among them.
    parts: Vec<usize>,
    /// CPU thousandths that go with a GPU thousandth on average.
    cpu_per_gpu: f64,
    /// Demand of requests that name models, as a share of each model's GPUs.
    wanted: Vec<f64>,
}

impl Typical {
    /// Counts equal requests (memory does not count) until 95 % are covered.
    /// `machines` are the empty fleet.
    pub fn new(requests: &[Request], machines: &[Machine]) -> Self {
        let mut counts: BTreeMap<Request, usize> = BTreeMap::new();
        for request in requests {
            *counts.entry(Request { memory_mib: 0, ..*request }).or_default() += 1;
        }
        let mut capacity_milli = [0_u64; 64];
        for machine in machines {
            capacity_milli[usize::from(machine.model)] += u64::from(machine.free_gpu_milli());
        }
        Self::of_counts(counts, &capacity_milli)
    }

    /// The same, of requests that are counted, and a fleet with so many GPU thousandths of each model.
    pub(crate) fn of_counts(counts: BTreeMap<Request, usize>, capacity_milli: &[u64; 64]) -> Self {
        let n_requests: usize = counts.values().sum();
        let mut counts: Vec<(Request, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(request, count)| (std::cmp::Reverse(*count), *request));
        let (mut covered, wanted) = (0_usize, COVERED * n_requests as f64);
        let kept: Vec<(Request, usize)> = counts
            .into_iter()
            .take_while(|(_, count)| {
                let more = (covered as f64) < wanted;
                covered += count;
                more
            })
            .collect();
        let total: usize = kept.iter().map(|(_, count)| count).sum();
        let classes: Vec<(Request, f64)> =
            kept.into_iter().map(|(request, count)| (request, count as f64 / total as f64)).collect();
        let of_gpus = || classes.iter().filter(|(request, _)| request.gpus > 0);
        let gpu: f64 = of_gpus().map(|(request, share)| f64::from(request.demand_milli()) * share).sum();
        let cpu: f64 = of_gpus().map(|(request, share)| f64::from(request.cpu_milli) * share).sum();
        let cpu_per_gpu = if gpu > 0.0 { cpu / gpu } else { 0.0 };
        let wanted = wanted_models(&classes, gpu, capacity_milli);
        let mut parts_milli: Vec<u16> = classes.iter().map(|(request, _)| request.gpu_milli).collect();
        parts_milli.sort_unstable();
        parts_milli.dedup();
        let part = |(request, _): &(Request, f64)| parts_milli.partition_point(|part| *part < request.gpu_milli);
        let parts = classes.iter().map(part).collect();
        Self { classes, parts_milli, parts, cpu_per_gpu, wanted }
    }

    /// Classes with their share; shares add up to one.
    pub fn classes(&self) -> &[(Request, f64)] {
        &self.classes
    }

    /// What classes ask for of a GPU, thousandths, each once.
    pub(super) fn parts_milli(&self) -> &[u16] {
        &self.parts_milli
    }

    /// Classes with their share, and where what they ask for of a GPU stands in [`Self::parts_milli`].
    pub(super) fn parted_classes(&self) -> impl Iterator<Item = (&Request, f64, usize)> {
        self.classes.iter().zip(&self.parts).map(|((request, share), part)| (request, *share, *part))
    }

    /// CPU thousandths that go with a GPU thousandth on average.
    pub fn cpu_per_gpu(&self) -> f64 {
        self.cpu_per_gpu
    }

    /// How much of a model's GPUs those will ask for who cannot take others, if the
    /// fleet is asked for as much as it has. Above one they will not all get it.
    pub fn wanted(&self, model: u8) -> f64 {
        self.wanted.get(usize::from(model)).copied().unwrap_or(0.0)
    }
}

/// Spreads the demand of each choosy class over the models that it allows, away
/// from those that are wanted already, until it rests.
fn wanted_models(classes: &[(Request, f64)], gpu_milli: f64, capacity_milli: &[u64; 64]) -> Vec<f64> {
    let capacity = capacity_milli.map(|milli| milli as f64);
    let total: f64 = capacity.iter().sum();
    let mut wanted = vec![0.0_f64; 64];
    if gpu_milli <= 0.0 {
        return wanted;
    }
    for _ in 0..ROUNDS {
        let mut next = vec![0.0_f64; 64];
        for (request, share) in classes.iter().filter(|(request, _)| request.gpus > 0 && request.models.0 != 0) {
            let demand = f64::from(request.demand_milli()) * share / gpu_milli * total;
            let allowed = |model: &usize| request.models.0 >> model & 1 == 1 && capacity[*model] > 0.0;
            let pull = |model: usize| capacity[model] / (0.05 + wanted[model]).powi(2);
            let pulls: f64 = (0..64).filter(allowed).map(pull).sum();
            for model in (0..64).filter(allowed) {
                next[model] += demand * pull(model) / pulls / capacity[model];
            }
        }
        for (now, next) in wanted.iter_mut().zip(next) {
            *now = f64::midpoint(*now, next);
        }
    }
    wanted
}
