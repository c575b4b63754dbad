//! FGD's fragmentation of one machine.

use super::machine::Machine;
use super::typical::Typical;

/// GPU thousandths that a typical request could not use, on average: all that is
/// free where it cannot run or wants no GPU, else what is free on GPUs that have
/// less than it needs.
pub(super) fn fragmentation(machine: &Machine, typical: &Typical) -> f64 {
    let free = machine.free_gpu_milli();
    if free == 0 {
        return 0.0;
    }
    let mut sum = 0.0;
    for (request, share) in typical.classes() {
        let unusable = if request.gpus == 0 || !machine.fits_without_memory(request) {
            free
        } else {
            machine.free().iter().filter(|free| **free < request.gpu_milli).map(|free| u32::from(*free)).sum()
        };
        sum += share * f64::from(unusable);
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
