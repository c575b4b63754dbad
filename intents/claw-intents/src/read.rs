//! Readers: each finds the words of one group of fields and sets them.

pub(crate) mod gpu;
pub(crate) mod kind;
pub(crate) mod mask;
pub(crate) mod model;
pub(crate) mod money;
pub(crate) mod place;
pub(crate) mod policy;
pub(crate) mod program;
pub(crate) mod refs;
pub(crate) mod reorder;
pub(crate) mod scale;
pub(crate) mod size;
pub(crate) mod time;

use crate::draft::Draft;

/// Reads every field of a workload.
pub(crate) fn workload(draft: &mut Draft<'_, '_, '_>) {
    program::read(draft);
    time::read(draft);
    money::read_budget(draft);
    money::read_market(draft);
    policy::read(draft);
    scale::read_autoscale(draft);
    scale::read_replicas(draft);
    size::read(draft);
    gpu::read(draft);
    place::read(draft);
    model::read(draft);
    kind::read(draft);
    mask::read_bare_corrections(draft);
}
