//! Interconnect and vendor.

use crate::answer::RefusalCode;
use crate::draft::Draft;
use crate::items::{Items, Kind};

use super::is_gpu;

/// Interconnect and vendor.
pub(super) fn read(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        let Some(item) = draft.items.at(i) else {
            continue;
        };
        if let Some(link) = item.senses.after("link.") {
            draft.set("gpu.interconnect", link, i..i + 1);
        } else if let Some(vendor) = item.senses.after("vendor.") {
            // "2 AMD GPUs", "an 80 GB GPU, nvidia please"
            let near_gpu = (i + 1..i + 4).any(|k| draft.items.is(k, "noun.gpu"))
                || i > 1 && draft.items.punct(i - 1, ',') && draft.items.is(i - 2, "noun.gpu");
            let named = match draft.items.at(i + 1).map(|n| &n.kind) {
                Some(Kind::Gpu { id, .. }) => {
                    if let Some(gpu) = draft.catalog.gpu(id).filter(|gpu| gpu.vendor.as_str() != vendor) {
                        let message = format!("{} is made by {}, not by {vendor}", gpu.id, gpu.vendor);
                        draft.refuse(RefusalCode::Contradictory, message);
                    }
                    true
                }
                _ => false,
            };
            let alone = vendor == "apple"
                || item.text.contains("rocm")
                || item.text.contains("cuda")
                || item.text.starts_with("made by");
            if (near_gpu || alone || only_vendor(draft, i) || own_clause(draft.items, i)) && !named {
                draft.set("gpu.vendor", vendor, i..i + 1);
            }
        }
    }
}

/// "…, nvidia please": a clause that says nothing else.
fn own_clause(items: &Items<'_, '_>, i: usize) -> bool {
    const BESIDE: &[&str] =
        &["ideally", "preferably", "only", "must", "be", "it", "should", "they", "made", "by", "if", "possible"];
    let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    let end = (i..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    let gpu = (0..start).any(|k| is_gpu(items, k));
    let plain = |k: usize| {
        k == i || items.is(k, "polite") || items.at(k).is_some_and(|n| n.text.split(' ').all(|w| BESIDE.contains(&w)))
    };
    gpu && (start..end).all(plain)
}

/// "on AMD": a vendor behind a preposition, with nothing behind it.
fn only_vendor(draft: &Draft<'_, '_, '_>, i: usize) -> bool {
    let before = i
        .checked_sub(1)
        .is_some_and(|k| draft.items.any(k, &["on", "det.a", "det.all", "with", "of"]) || draft.items.num(k).is_some());
    before && draft.items.at(i + 1).is_none_or(|next| !matches!(next.kind, Kind::Image | Kind::Path))
}
