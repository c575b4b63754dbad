//! FGD's fragmentation of one machine.

use smallvec::SmallVec;

use super::machine::{GPUS_MAX, Machine};
use super::typical::Typical;

/// GPU thousandths that a typical request could not use, on average: all that is
/// free where it cannot run or wants no GPU, else what is free on GPUs that have
/// less than it needs. Counted in whole numbers, so that equal losses are equal.
pub(super) fn fragmentation(machine: &Machine, typical: &Typical) -> f64 {
    let free = machine.free_gpu_milli();
    let total = typical.n_requests();
    if free == 0 || total == 0 {
        return 0.0;
    }
    let mut least_first: SmallVec<[u16; GPUS_MAX]> = SmallVec::from_slice(machine.free());
    least_first.sort_unstable();
    // Groups stand in order of what they want of a GPU: what has too little for one has too little for the next.
    let (mut n_below, mut unusable) = (0, 0);
    let mut sum = u64::from(free) * total;
    let wanting = typical.wanting(machine.model);
    for group in wanting.groups() {
        while let Some(milli) = least_first.get(n_below).filter(|milli| **milli < group.gpu_milli) {
            unusable += u32::from(*milli);
            n_below += 1;
        }
        let n_enough = least_first.len() - n_below;
        if n_enough == 0 {
            break;
        }
        if n_enough >= usize::from(group.gpus) {
            sum -= wanting.n_within(group, machine.cpu_milli) * u64::from(free - unusable);
        }
    }
    sum as f64 / total as f64
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
