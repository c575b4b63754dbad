//! Memory of GPUs that does not stand right beside them.

use serde_json::json;

use crate::draft::Draft;
use crate::items::{Items, Kind};

use super::is_gpu;

/// "GPUs with at least 24 GB", "2 GPUs, whichever, as long as they have 48 gigs": a size that only
/// words without a meaning of their own part from the GPUs before it.
fn told_of_gpu(items: &Items<'_, '_>, i: usize) -> bool {
    const HAS: &[&str] = &["has", "have", "takes", "needs", "is", "are", "was", "weighs", "hat", "tiene", "fait"];
    const GPUS: &[&str] = &["they", "each", "that", "which", "it", "these", "those", "with", "must", "should", "to"];
    const OWN: &[&str] = &["noun.", "kind.", "num.", "day.", "unit.", "budget", "limit.time"];
    let links = |m: usize| {
        items.any(m, &["with", "min", "of", "det.a", "x", "noun.gpu", "on", "cmp.gt"])
            || ['≥', '>', '(', ',', ':'].iter().any(|sign| items.punct(m, *sign))
            || items.list[m].text == "="
            || items.at(m).is_some_and(|n| {
                n.kind == Kind::Word && !n.senses.iter().any(|s| OWN.iter().any(|own| s.starts_with(own)))
            })
    };
    // "2 GPUs, the dataset has 500 GB": what has that is neither the GPUs nor a word for them.
    let owner = |m: usize| {
        is_gpu(items, m - 1)
            || items.any(m - 1, &["pron.one", "each", "with"])
            || GPUS.contains(&items.list[m - 1].text.rsplit(' ').next().unwrap_or_default())
    };
    let Some(at) = (0..i).rev().find(|at| is_gpu(items, *at) || !links(*at)).filter(|at| is_gpu(items, *at)) else {
        return false;
    };
    if (at + 1..i).any(|m| HAS.contains(&items.list[m].text.as_str()) && !owner(m)) {
        return false;
    }
    // A list goes on behind a comma: "2 GPUs, 40 GB" leaves open of what.
    let plural = (at + 1..i).any(|m| items.list[m].text == "they" || items.list[m].text == "each");
    let comma = (at + 1..i).any(|m| items.punct(m, ','));
    !comma || plural
}

/// "at least 24 GB each", "40 gigs of vram".
pub(super) fn read(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    // "no GPU, 4 GB memory each": of what has none.
    if draft.field("gpu.count").and_then(serde_json::Value::as_u64) == Some(0) {
        return;
    }
    for i in 0..items.len() {
        let Some(gib) = items.gib(i).filter(|_| !draft.is_used(i)) else {
            continue;
        };
        let mut k = i + 1;
        while items.punct(k, '+') || items.any(k, &["of", "min"]) && !items.is(k, "noun.vram") {
            k += 1;
        }
        let vram = items.is(k, "noun.vram")
            || items.is(k, "pron.one") && draft.has("gpu.model")
            || items.any(k, &["each"])
            || items.is(k, "pernode")
                && !items.is(k, "noun.node")
                && items.list[k].text != "each node"
                && items.list[k].text != "per node";
        let left_vram = i > 0
            && (items.is(i - 1, "noun.vram")
                || i > 1 && items.is(i - 2, "noun.vram") && items.any(i - 1, &["min", "of", "to", "with"])
                || i > 1 && items.is(i - 2, "noun.vram") && items.punct(i - 1, ':'));
        let host = items.any(k, &["noun.memory", "noun.disk", "noun.shm"]);
        let near_gpu = told_of_gpu(items, i);
        let before_gpu = is_gpu(items, k) && !host;
        if vram || left_vram || (near_gpu || before_gpu) && !host {
            draft.set("gpu.memory_gib_min", json!(gib), i..k);
        }
    }
}
