//! Counts without a number.

use crate::draft::Draft;
use crate::items::Kind;

/// "on a few H100s": more than one, and no number.
pub(super) fn ask(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let gpu = |i: usize| matches!(items.at(i).map(|n| &n.kind), Some(Kind::Gpu { .. })) || items.is(i, "noun.gpu");
    if draft.has("gpu.count") || draft.has("gpu.fraction") {
        return;
    }
    if let Some(i) = (1..items.len()).find(|i| gpu(*i) && items.is(i - 1, "vague.count")) {
        let path = draft.path("gpu.count");
        draft.ask(&path, format!("How many GPUs are {:?}?", items.span(&(i - 1..i + 1)).text), Vec::new());
    }
}
