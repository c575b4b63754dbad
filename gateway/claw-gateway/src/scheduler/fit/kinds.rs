//! Which of a node's GPUs are of the kind that is asked for, whoever holds them.

use super::Ask;
use crate::scheduler::view::{Gpu, KINDS_MAX, View};

/// Those of the node's kinds of GPUs that are wanted.
pub(super) fn kinds(view: &View, demand: Ask<'_>) -> u64 {
    if demand.gpus == 0 {
        return 0;
    }
    let of_each = view.kinds.iter().enumerate().filter_map(|(kind, first)| {
        let gpu = view.gpus.get(usize::from(*first))?;
        is_of_wanted_kind(view, gpu, demand).then_some(1 << kind)
    });
    of_each.fold(0, |all, bit: u64| all | bit)
}

/// It is of the right model, vendor and memory.
pub(super) fn is_wanted(view: &View, gpu: &Gpu, demand: Ask<'_>) -> bool {
    if gpu.kind < KINDS_MAX { demand.kinds >> gpu.kind & 1 == 1 } else { is_of_wanted_kind(view, gpu, demand) }
}

fn is_of_wanted_kind(view: &View, gpu: &Gpu, demand: Ask<'_>) -> bool {
    is_of_kind(view, gpu, demand)
        && (demand.gpu_memory_mib_min == 0 || demand.memory_mib_of(gpu.memory_mib) >= demand.gpu_memory_mib_min)
        && is_of_model(view, gpu, demand)
        && caps(view, gpu, demand)
}

/// Its shares are held to their memory, where that is asked for.
pub(super) fn caps(view: &View, gpu: &Gpu, demand: Ask<'_>) -> bool {
    view.info(gpu).is_some_and(|info| demand.takes_caps_of(info))
}

/// A GPU for who wants GPUs or shares of them, a slice of the profile for who wants slices.
pub(super) fn is_of_kind(view: &View, gpu: &Gpu, demand: Ask<'_>) -> bool {
    let profile = || view.info(gpu).and_then(|info| info.mig.as_ref()).map(|slice| &slice.profile);
    match &demand.mig_profile {
        None => !gpu.is_slice,
        Some(wanted) => gpu.is_slice && profile() == Some(wanted),
    }
}

pub(super) fn is_of_vendor(view: &View, gpu: &Gpu, demand: Ask<'_>) -> bool {
    demand.gpu_vendor.is_none_or(|vendor| view.info(gpu).is_some_and(|info| info.vendor == vendor))
}

pub(super) fn is_of_model(view: &View, gpu: &Gpu, demand: Ask<'_>) -> bool {
    let is = |model: &str| view.info(gpu).is_some_and(|info| info.model.eq_ignore_ascii_case(model));
    is_of_vendor(view, gpu, demand) && demand.model.is_none_or(is)
}
