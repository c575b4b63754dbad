//! FGD's fragmentation of one machine.

use smallvec::SmallVec;

use super::machine::{GPUS_MAX, Machine};
use super::typical::Typical;

/// GPU thousandths that a typical request could not use, on average: all that is
/// free where it cannot run or wants no GPU, else what is free on GPUs that have
/// less than it needs.
pub(super) fn fragmentation(machine: &Machine, typical: &Typical) -> f64 {
    let free = machine.free_gpu_milli();
    if free == 0 {
        return 0.0;
    }
    // Many classes want as much of a GPU as each other: GPUs that have so much free, and what is free on the others,
    // are counted once.
    let mut counted: SmallVec<[(usize, u32); 32]> = SmallVec::new();
    let mut least_first: SmallVec<[u16; GPUS_MAX]> = SmallVec::from_slice(machine.free());
    least_first.sort_unstable();
    let (mut n_below, mut unusable) = (0, 0);
    // Parts stand in order: what has too little for one has too little for the next.
    counted.extend(typical.parts_milli().iter().map(|part| {
        while let Some(free) = least_first.get(n_below).filter(|free| *free < part) {
            unusable += u32::from(*free);
            n_below += 1;
        }
        (least_first.len() - n_below, unusable)
    }));
    let mut sum = 0.0;
    for (request, share, part) in typical.parted_classes() {
        let (n_enough, unusable) = counted[part];
        let runs = request.gpus > 0 && machine.fits_with(request, || n_enough);
        sum += share * f64::from(if runs { unusable } else { free });
    }
    sum
}

/// GPU thousandths that are free and that the machine's CPU will not suffice for,
/// if what comes asks for CPU as what is typical.
pub(super) fn stranded(machine: &Machine, typical: &Typical) -> f64 {
    let free = f64::from(machine.free_gpu_milli());
    if typical.cpu_per_gpu() <= 0.0 {
        return 0.0;
    }
    (free - f64::from(machine.cpu_milli) / typical.cpu_per_gpu()).max(0.0)
}
