//! What is likely to come: the only prior that a policy has.

use std::collections::BTreeMap;

use super::machine::{Machine, ModelSet, Request};

/// Share of all requests that the table covers.
const COVERED: f64 = 0.95;
/// Models of GPUs that are told apart.
const MODELS: usize = 64;
/// Rounds in which the demand of those that are choosy spreads over what they allow.
const ROUNDS: usize = 200;

/// Classes of requests with their share, the most frequent first (FGD's
/// "typical pods"), and what follows from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Typical {
    classes: Vec<(Request, f64)>,
    /// How often all of them were asked for.
    n_requests: u64,
    /// Those that a GPU of a model would do for, grouped; first those that take any model.
    wanting: Vec<Wanting>,
    /// For each model, where its own stand among them.
    of_model: Vec<usize>,
    /// CPU thousandths that go with a GPU thousandth on average.
    cpu_per_gpu: f64,
    /// Demand of requests that name models, as a share of each model's GPUs.
    wanted: Vec<f64>,
}

/// Classes that want as much of as many GPUs as each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    /// Of each GPU, thousandths.
    pub(super) gpu_milli: u16,
    /// GPUs.
    pub(super) gpus: u8,
    /// Where its classes begin, and where they end.
    from: usize,
    to: usize,
}

/// Classes that want GPUs, grouped: those that want least of a GPU first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wanting {
    groups: Vec<Group>,
    /// CPU thousandths of each class of each group, the least first.
    cpu_milli: Vec<u32>,
    /// How often it and those before it in its group were asked for.
    n_upto: Vec<u64>,
}

impl Wanting {
    fn of(counts: &[(Request, usize)], takes: impl Fn(ModelSet) -> bool) -> Self {
        let of_these = |(request, _): &&(Request, usize)| request.gpus > 0 && takes(request.models);
        let mut counts: Vec<&(Request, usize)> = counts.iter().filter(of_these).collect();
        counts.sort_by_key(|(request, _)| (request.gpu_milli, request.gpus, request.cpu_milli));
        let mut wanting = Self::default();
        for alike in counts.chunk_by(|(a, _), (b, _)| (a.gpu_milli, a.gpus) == (b.gpu_milli, b.gpus)) {
            let (first, from) = (alike[0].0, wanting.cpu_milli.len());
            let mut n = 0;
            for (request, count) in alike {
                n += *count as u64;
                wanting.cpu_milli.push(request.cpu_milli);
                wanting.n_upto.push(n);
            }
            let Request { gpu_milli, gpus, .. } = first;
            wanting.groups.push(Group { gpu_milli, gpus, from, to: wanting.cpu_milli.len() });
        }
        wanting
    }

    /// In order of what they want of a GPU.
    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// How often those of a group were asked for that so much CPU will do for.
    pub(super) fn n_within(&self, group: &Group, cpu_milli: u32) -> u64 {
        let wanted = &self.cpu_milli[group.from..group.to];
        let n_classes = match wanted.last() {
            // Most machines have enough for all of them.
            Some(most) if *most <= cpu_milli => wanted.len(),
            _ => wanted.partition_point(|wanted| *wanted <= cpu_milli),
        };
        n_classes.checked_sub(1).map_or(0, |last| self.n_upto[group.from + last])
    }
}

impl Typical {
    /// Counts equal requests (memory does not count) until 95 % are covered.
    /// `machines` are the empty fleet.
    pub fn new(requests: &[Request], machines: &[Machine]) -> Self {
        let mut counts: BTreeMap<Request, usize> = BTreeMap::new();
        for request in requests {
            *counts.entry(Request { memory_mib: 0, ..*request }).or_default() += 1;
        }
        let mut capacity_milli = [0_u64; MODELS];
        for machine in machines {
            capacity_milli[usize::from(machine.model)] += u64::from(machine.free_gpu_milli());
        }
        Self::of_counts(counts, &capacity_milli)
    }

    /// The same, of requests that are counted, and a fleet with so many GPU thousandths of each model.
    pub(crate) fn of_counts(counts: BTreeMap<Request, usize>, capacity_milli: &[u64; MODELS]) -> Self {
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
            kept.iter().map(|(request, count)| (*request, *count as f64 / total as f64)).collect();
        let of_gpus = || classes.iter().filter(|(request, _)| request.gpus > 0);
        let gpu: f64 = of_gpus().map(|(request, share)| f64::from(request.demand_milli()) * share).sum();
        let cpu: f64 = of_gpus().map(|(request, share)| f64::from(request.cpu_milli) * share).sum();
        let cpu_per_gpu = if gpu > 0.0 { cpu / gpu } else { 0.0 };
        let wanted = wanted_models(&classes, gpu, capacity_milli);
        let named = kept.iter().fold(0, |named, (request, _)| named | request.models.0);
        let (mut wanting, mut of_model) = (vec![Wanting::of(&kept, |models| models.0 == 0)], vec![0; MODELS]);
        for (model, own) in (0_u8..).zip(&mut of_model).filter(|(model, _)| named >> model & 1 == 1) {
            *own = wanting.len();
            wanting.push(Wanting::of(&kept, |models| models.allows(model)));
        }
        Self { classes, n_requests: total as u64, wanting, of_model, cpu_per_gpu, wanted }
    }

    /// Classes with their share; shares add up to one.
    pub fn classes(&self) -> &[(Request, f64)] {
        &self.classes
    }

    /// How often all classes were asked for.
    pub(super) const fn n_requests(&self) -> u64 {
        self.n_requests
    }

    /// Classes that want GPUs and that those of this model would do for.
    pub(super) fn wanting(&self, model: u8) -> &Wanting {
        &self.wanting[self.of_model.get(usize::from(model)).copied().unwrap_or(0)]
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
fn wanted_models(classes: &[(Request, f64)], gpu_milli: f64, capacity_milli: &[u64; MODELS]) -> Vec<f64> {
    let capacity = capacity_milli.map(|milli| milli as f64);
    let total: f64 = capacity.iter().sum();
    let mut wanted = vec![0.0_f64; MODELS];
    if gpu_milli <= 0.0 {
        return wanted;
    }
    let choosy = classes.iter().filter(|(request, _)| request.gpus > 0 && request.models.0 != 0);
    let choosy: Vec<(f64, Vec<usize>)> = choosy
        .map(|(request, share)| {
            let demand = f64::from(request.demand_milli()) * share / gpu_milli * total;
            let allowed = |model: &usize| request.models.0 >> model & 1 == 1 && capacity[*model] > 0.0;
            (demand, (0..MODELS).filter(allowed).collect())
        })
        .collect();
    for _ in 0..ROUNDS {
        let mut next = vec![0.0_f64; MODELS];
        let pull: Vec<f64> = wanted.iter().zip(&capacity).map(|(wanted, has)| has / (0.05 + wanted).powi(2)).collect();
        for (demand, allowed) in &choosy {
            let pulls: f64 = allowed.iter().map(|model| pull[*model]).sum();
            for model in allowed {
                next[*model] += demand * pull[*model] / pulls / capacity[*model];
            }
        }
        for (now, next) in wanted.iter_mut().zip(next) {
            *now = f64::midpoint(*now, next);
        }
    }
    wanted
}
