//! Processor cores, memory, disk and shared memory of the host.

use serde_json::json;

use crate::draft::Draft;
use crate::items::{Items, Kind};

/// Nouns of a size and the field that they name.
const SIZES: &[(&str, &str)] = &[("noun.shm", "shm_gib"), ("noun.disk", "disk_gib"), ("noun.memory", "memory_gib")];

pub(crate) fn read(draft: &mut Draft<'_, '_, '_>) {
    read_cores(draft);
    for i in 0..draft.items.len() {
        let Some(gib) = draft.items.gib(i).filter(|_| !draft.is_used(i)) else {
            continue;
        };
        if let Some((field, end)) = named_behind(draft.items, i) {
            let field =
                if field == "memory_gib" && each_gpus(draft.items, i, end) { "gpu.memory_gib_min" } else { field };
            draft.set(field, json!(gib), i..end);
        } else if let Some((field, start)) = named_before(draft, i) {
            draft.set(field, json!(gib), start..i + 1);
        } else if beside_cores(draft.items, i) && !draft.has("memory_gib") {
            draft.set("memory_gib", json!(gib), i..i + 1);
            let path = draft.path("memory_gib");
            draft.assume(&path, json!(gib), "a size beside a number of cores is memory");
        }
    }
    read_apart(draft);
}

/// "more memory for deployment chat, 96 gigs": a size whose noun stands elsewhere, where there is one such
/// size and one such noun, and its sentence speaks of no GPU.
fn read_apart(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let free = |k: &usize| items.gib(*k).is_some() && !draft.is_used(*k);
    let mut sizes = (0..items.len()).filter(free);
    let (Some(i), None) = (sizes.next(), sizes.next()) else {
        return;
    };
    let start = (0..i).rev().find(|k| items.ends_sentence(*k)).map_or(0, |k| k + 1);
    let end = (i..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    let gpu = |k: usize| items.is(k, "noun.gpu") || matches!(items.at(k).map(|n| &n.kind), Some(Kind::Gpu { .. }));
    if (start..end).any(gpu) || (0..items.len()).any(|k| items.is(k, "noun.vram") && !items.is(k, "noun.memory")) {
        return;
    }
    // "chat runs out of memory, set it to 48 GB"
    let lacks = |k: usize| draft.root == "changes" && items.is(k, "sym.oom");
    let noun = |k: &usize| (names_size(items, *k) || lacks(*k)) && !draft.is_used(*k);
    let mut nouns = (0..items.len()).filter(noun);
    let (Some(k), None) = (nouns.next(), nouns.next()) else {
        return;
    };
    let memory = lacks(k).then_some(&SIZES[2]);
    let named = SIZES.iter().find(|(noun, _)| items.is(k, noun)).or(memory);
    if let Some((_, field)) = named.filter(|(_, f)| !draft.has(f)) {
        let gib = items.gib(i).unwrap_or_default();
        draft.set(field, json!(gib), i..i + 1);
    }
}

/// "2 cards with 40 gigs of memory each".
fn each_gpus(items: &Items<'_, '_>, i: usize, end: usize) -> bool {
    let gpu = |k: usize| items.is(k, "noun.gpu") || matches!(items.at(k).map(|n| &n.kind), Some(Kind::Gpu { .. }));
    let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    // "2 GPUs, 24 GB memory each", "2 GPUs, each with 24 GB memory"
    let behind = |k: usize| k > 1 && items.punct(k - 1, ',') && gpu(k - 2) && !items.is(k - 2, "gpu.none");
    let each = i > 1 && items.is(i - 1, "with") && items.is(i - 2, "each");
    items.is(end, "each") && ((start..i).any(|k| items.is(k, "noun.gpu")) || behind(i))
        || each && (behind(i - 2) || i > 2 && gpu(i - 3))
}

/// "64 GB of RAM".
fn named_behind(items: &Items<'_, '_>, i: usize) -> Option<(&'static str, usize)> {
    let mut k = i + 1;
    while items.any(k, &["of", "det.the", "x"]) && !names_size(items, k) || items.punct(k, '+') {
        k += 1;
    }
    if items.is(k, "noun.vram") && !items.is(k, "noun.memory") {
        return None;
    }
    SIZES.iter().find(|(noun, _)| items.is(k, noun)).map(|(_, field)| (*field, k + 1))
}

/// "2 cores and 4 gigs", "8 vcpu / 32 GB".
fn beside_cores(items: &Items<'_, '_>, i: usize) -> bool {
    let joint = |k: usize| items.is(k, "and") || items.punct(k, ',') || items.punct(k, '/') || items.punct(k, '+');
    let free = items.ends_clause(i + 1) || items.any(i + 1, &["and", "on", "with", "no", "each"]);
    let before = i.checked_sub(1).is_some_and(|k| {
        items.is(k, "noun.core") || joint(k) && k.checked_sub(1).is_some_and(|k| items.is(k, "noun.core"))
    });
    before && free
}

fn names_size(items: &Items<'_, '_>, k: usize) -> bool {
    SIZES.iter().any(|(noun, _)| items.is(k, noun)) || items.is(k, "noun.vram")
}

/// "RAM: 64 GB", "memory to 32 GB", "shm size 16g".
fn named_before(draft: &Draft<'_, '_, '_>, i: usize) -> Option<(&'static str, usize)> {
    let items = draft.items;
    let mut k = i;
    while k > 0
        && (items.any(k - 1, &["to", "of", "with", "min", "max", "on", "noun.deployment"])
            || items.punct(k - 1, ':')
            || items.punct(k - 1, '=')
            || items.at(k - 1).is_some_and(|item| item.known || item.text == "size" || item.text.starts_with("limit"))
            || draft.is_used(k - 1)
            || items.list[k - 1].masked)
        && !names_size(items, k - 1)
        && i - k < 7
    {
        k -= 1;
    }
    let at = k.checked_sub(1)?;
    if items.is(at, "noun.vram") && !items.is(at, "noun.memory") {
        return None;
    }
    SIZES.iter().find(|(noun, _)| items.is(at, noun)).map(|(_, field)| (*field, at))
}

fn read_cores(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        if !items.is(i, "noun.core") {
            continue;
        }
        let mut k = i;
        while k > 0
            && (items.any(k - 1, &["of", "noun.core"])
                || items
                    .at(k - 1)
                    .is_some_and(|item| matches!(item.text.as_str(), "physical" | "virtual" | "dedicated")))
        {
            k -= 1;
        }
        if let Some(at) = k.checked_sub(1)
            && !items.equals(i + 1)
            && let Some(n) =
                items.num(at).or_else(|| half(items, at)).or_else(|| one(items, at, i)).filter(|_| !draft.is_used(at))
        {
            draft.set("cpu_cores", json!(n), at..i + 1);
            continue;
        }
        let mut k = i + 1;
        while k < items.len()
            && (items.any(k, &["of", "noun.deployment"]) && items.num(k).is_none()
                || draft.is_used(k) && items.num(k).is_none()
                || items.list[k].masked)
        {
            k += 1;
        }
        while items.any(k, &["to", "noun.core"]) || items.punct(k, ':') || items.punct(k, '=') {
            k += 1;
        }
        let counted_else = items.any(k + 1, &["noun.gpu", "noun.replica", "noun.node"])
            || matches!(items.at(k + 1).map(|n| &n.kind), Some(Kind::Gpu { .. }));
        // "cpu 8, mem 32Gi"
        let direct = k == i + 1 && items.list[i].text.starts_with("cpu") && items.ends_clause(k + 1);
        if (k > i + 1 || direct)
            && let Some(n) = items.num(k).filter(|_| !draft.is_used(k) && !counted_else)
        {
            draft.set("cpu_cores", json!(n), i..k + 1);
        }
    }
}

/// "ein Kern", "a single core".
fn one(items: &Items<'_, '_>, at: usize, noun: usize) -> Option<f64> {
    let single = matches!(items.list[noun].text.as_str(), "core" | "cpu" | "vcpu" | "kern" | "núcleo" | "cœur");
    (single && at + 1 == noun && items.is(at, "det.a")).then_some(1.0)
}

/// "half a core", "500m" of one.
fn half(items: &Items<'_, '_>, at: usize) -> Option<f64> {
    match items.at(at)?.kind {
        Kind::Share(share) => Some(share),
        // "500m cpu"
        Kind::Qty(n) if items.is(at, "unit.min") && items.list[at].text.ends_with('m') => Some(n / 1_000.0),
        _ => None,
    }
}
