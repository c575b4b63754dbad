//! A count of GPUs in a clause of its own.

use crate::draft::Draft;

use super::{Per, set_count};

/// "on any GPU with 80 GB, just one", "… on L4s. Two of them will do": a clause that only counts.
pub(super) fn read(draft: &mut Draft<'_, '_, '_>) {
    const BESIDE: &[&str] = &[
        "just", "only", "exactly", "is", "are", "enough", "will", "do", "should", "be", "of", "them", "those", "these",
        "suffice", "suffices", "fine", "plenty", "single", "one", "ones", "a", "please", "pls", "all", "we", "need",
        "it", "that's", "ok", "okay", "i", "not", "more", "and",
    ];
    let items = draft.items;
    let asked = ["gpu.count", "gpu.fraction", "gpu.mig_profile"].iter().any(|field| draft.has(field));
    let wished = ["gpu.model", "gpu.memory_gib_min", "gpu.vendor"].iter().find_map(|f| draft.given_by(&draft.path(f)));
    let Some(gpu) = wished else {
        return;
    };
    if asked {
        return;
    }
    let mut start = gpu.end;
    while start < items.len() {
        let end = (start..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
        let number = |k: usize| items.count(k).or_else(|| items.any(k, &["det.a", "pron.one"]).then_some(1));
        let plain = |k: usize| {
            items.num(k).is_some() || items.at(k).is_some_and(|n| n.text.split(' ').all(|w| BESIDE.contains(&w)))
        };
        let counted = (start..end).find_map(|k| Some((k, number(k)?)));
        if let Some((k, n)) = counted.filter(|_| (start..end).all(plain)) {
            set_count(draft, f64::from(n), k, k + 1, Per::Replica);
            return;
        }
        start = end + 1;
    }
}
