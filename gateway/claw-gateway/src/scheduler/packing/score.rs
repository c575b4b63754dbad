//! What a placement is worth under each policy: higher is better, and of equals
//! the machine that stands first is taken.

use super::fragmentation::{fragmentation, stranded};
use super::machine::{GPU_MILLI, Kind, Machine, Request};
use super::policy::Policy;
use super::typical::Typical;

/// Differences of less are none to ours, so that the first machine that is good
/// enough is taken and others stay whole: GPU thousandths.
const QUANTUM_MILLI: f64 = 6.0;
/// A machine without any work is worth as much more if it stays so.
const UNTOUCHED_MILLI: f64 = 48.0;
/// A GPU of a model that is wanted by those who can take no other, as often as there are.
const WANTED_MILLI: f64 = 1_800.0;
/// Largest machine of the published weights: CPU thousandths and GPU thousandths.
const CPU_SCALE: f64 = 128_000.0;
const GPU_SCALE: f64 = 8_000.0;

/// A score and the GPU that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scored {
    pub(super) score: i32,
    pub(super) gpu: u8,
}

/// What a policy measures a machine by: the same for all requests, so that it can be remembered. Neither what it
/// holds nor its memory counts.
pub(super) fn measure(policy: Policy, machine: &Machine, typical: &Typical) -> f64 {
    match policy {
        Policy::Ours => lost(machine, typical),
        Policy::Fgd => fragmentation(machine, typical),
        Policy::BestFit | Policy::GpuPacking | Policy::GpuClustering | Policy::DotProd | Policy::Random => 0.0,
    }
}

/// The best that a machine offers a request, by the policy's [`measure`]; nothing if it cannot take it.
pub(super) fn score(
    policy: Policy,
    machine: &Machine,
    request: &Request,
    typical: &Typical,
    measure: impl FnMut(&Machine) -> f64,
) -> Option<Scored> {
    if !machine.fits(request) {
        return None;
    }
    match policy {
        Policy::Ours => ours(machine, request, typical, measure),
        Policy::Fgd => fgd(machine, request, measure),
        Policy::BestFit => Some(with_fullest_gpu(machine, request, best_fit(machine, request))),
        Policy::GpuPacking => Some(with_fullest_gpu(machine, request, gpu_packing(machine, request))),
        Policy::GpuClustering => Some(with_fullest_gpu(machine, request, gpu_clustering(machine, request))),
        Policy::DotProd => Some(with_fullest_gpu(machine, request, dot_product(machine, request))),
        Policy::Random => Some(Scored { score: 0, gpu: machine.choices(request).next().unwrap_or(0) }),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "scores are small")]
fn floor(value: f64) -> i32 {
    value.floor() as i32
}

/// Each choice of a GPU with what is left after it; the best one, the first of equals.
fn best_choice(machine: &Machine, request: &Request, mut worth: impl FnMut(&Machine) -> i32) -> Option<Scored> {
    let mut best: Option<Scored> = None;
    for gpu in machine.choices(request) {
        let Some(left) = machine.after(request, gpu) else { continue };
        let score = worth(&left);
        if best.is_none_or(|best| score > best.score) {
            best = Some(Scored { score, gpu });
        }
    }
    best
}

fn ours(
    machine: &Machine,
    request: &Request,
    typical: &Typical,
    mut lost: impl FnMut(&Machine) -> f64,
) -> Option<Scored> {
    let (before, price) = (lost(machine), price(machine, request.demand_milli(), typical));
    best_choice(machine, request, |left| worth(before, lost(left), price))
}

/// Free GPU thousandths of a machine that are of no use to what is typical: see [`fragmentation`] and [`stranded`].
pub(crate) fn lost(machine: &Machine, typical: &Typical) -> f64 {
    fragmentation(machine, typical) + stranded(machine, typical)
}

/// What it costs beside, GPU thousandths, to take so many of a machine: that it is no longer
/// whole, and that others cannot do without its model.
pub(crate) fn price(machine: &Machine, demand_milli: u32, typical: &Typical) -> f64 {
    price_of(machine.is_untouched(), typical.wanted(machine.model), demand_milli)
}

/// The same, of a machine that is untouched or not, with GPUs of a model that is wanted so much.
pub(crate) fn price_of(is_untouched: bool, wanted: f64, demand_milli: u32) -> f64 {
    let opened = if demand_milli > 0 && is_untouched { UNTOUCHED_MILLI } else { 0.0 };
    let share = f64::from(demand_milli.min(u32::from(GPU_MILLI))) / f64::from(GPU_MILLI);
    opened + WANTED_MILLI * wanted * share
}

/// What a placement is worth that loses so much before and so much after it; what differs by little is equal.
pub(crate) fn worth(before: f64, after: f64, price: f64) -> i32 {
    floor((before - after - price) / QUANTUM_MILLI)
}

/// FGD's score, by its measure of a machine.
pub(super) fn fgd(
    machine: &Machine,
    request: &Request,
    mut fragmentation: impl FnMut(&Machine) -> f64,
) -> Option<Scored> {
    let before = fragmentation(machine);
    best_choice(machine, request, |left| {
        let gain = (before - fragmentation(left)) / f64::from(GPU_MILLI);
        floor(100.0 / (1.0 + (-gain).exp()))
    })
}

/// A shared request takes the fullest GPU that has room.
fn with_fullest_gpu(machine: &Machine, request: &Request, score: i32) -> Scored {
    let gpu = machine.choices(request).min_by_key(|gpu| machine.free_milli[usize::from(*gpu)]);
    Scored { score, gpu: gpu.unwrap_or(0) }
}

fn best_fit(machine: &Machine, request: &Request) -> i32 {
    let cpu = f64::from(machine.cpu_milli - request.cpu_milli) / CPU_SCALE;
    let gpu = (f64::from(machine.free_gpu_milli()) - f64::from(request.demand_milli())) / GPU_SCALE;
    floor(100.0 * (1.0 - 0.5 * cpu - 0.5 * gpu))
}

fn dot_product(machine: &Machine, request: &Request) -> i32 {
    let cpu = f64::from(machine.cpu_milli) / CPU_SCALE * f64::from(request.cpu_milli) / CPU_SCALE;
    let gpu = f64::from(machine.free_gpu_milli()) / GPU_SCALE * f64::from(request.demand_milli()) / GPU_SCALE;
    floor(100.0 * (1.0 - cpu - gpu))
}

fn gpu_packing(machine: &Machine, request: &Request) -> i32 {
    if request.gpus == 0 {
        return 0;
    }
    if machine.is_untouched() {
        return 33_i32.saturating_sub(i32::from(request.gpus)).max(0);
    }
    let mut free: Vec<u16> = machine.free().iter().copied().filter(|free| *free >= request.gpu_milli).collect();
    free.sort_unstable();
    free.truncate(usize::from(request.gpus));
    let n_whole = free.iter().filter(|free| **free == GPU_MILLI).count();
    if n_whole == 0 {
        let percent: u32 = free.iter().map(|free| u32::from(*free) / 10).sum();
        return (100 - i32::try_from(percent / 10).unwrap_or(100)).max(50);
    }
    (50 - i32::try_from(n_whole).unwrap_or(50)).max(33)
}

fn gpu_clustering(machine: &Machine, request: &Request) -> i32 {
    if request.gpus == 0 {
        return 0;
    }
    let own = request.kind();
    let lowest = match machine.holds {
        holds if holds == own => 75.0,
        Kind(holds) if holds & own.0 != 0 => 50.0,
        Kind::CPU => 25.0,
        _ => 0.0,
    };
    let capacity = f64::from(machine.gpus) * f64::from(GPU_MILLI);
    let full = 1.0 - f64::from(machine.free_gpu_milli()) / capacity.max(1.0);
    floor(lowest + 25.0 * full)
}
