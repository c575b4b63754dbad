//! What the words themselves take back: "instead of 5", "not 4 but 8", "from 2 to 4".

use serde_json::json;

use crate::draft::Draft;
use crate::items::{Items, Kind};

/// Masks what is not wanted, so that no reader sees it.
pub(crate) fn mask(items: &mut Items<'_, '_>, from_is_old: bool) {
    let mut i = 0;
    while i < items.len() {
        if items.is(i, "det.the") {
            mask_others(items, i);
        } else if items.is(i, "reference") {
            mask_reference(items, i);
        } else if items.is(i, "insteadof") {
            mask_value(items, i);
        } else if items.is(i, "except") {
            mask_unwanted_gpu(items, i);
        } else if items.is(i, "swaps") {
            mask_swapped(items, i);
        } else if items.is(i, "hearsay") {
            mask_hearsay(items, i);
        } else if items.is(i, "rejects") {
            mask_rejected(items, i);
        } else if items.is(i, "not") {
            mask_negated(items, i);
        } else if from_is_old && items.is(i, "from") {
            mask_old(items, i);
        } else if from_is_old && matches!(items.list[i].text.as_str(), "->" | "- >" | "→" | "=>" | "= >") {
            mask_arrow(items, i);
        }
        i += 1;
    }
}

/// "the other 3 L40S stay free", "the 8 H100 are for others": what is told of GPUs is no wish.
fn mask_others(items: &mut Items<'_, '_>, i: usize) {
    const TELLS: &[&str] = &["are", "is", "stay", "stays", "remain", "remains", "belong", "were", "was", "go", "have"];
    let other = items.list.get(i + 1).is_some_and(|n| n.text == "other");
    let count = i + 1 + usize::from(other);
    let gpu = matches!(items.at(count + 1).map(|n| &n.kind), Some(Kind::Gpu { .. })) || items.is(count + 1, "noun.gpu");
    let told = items.at(count + 2).is_some_and(|n| TELLS.contains(&n.text.as_str()));
    if items.num(count).is_some() && gpu && told {
        for item in &mut items.list[i..count + 2] {
            item.masked = true;
        }
    }
}

/// "ticket OPS-4412": what only tells where something was said.
fn mask_reference(items: &mut Items<'_, '_>, i: usize) {
    let at = if items.punct(i + 1, '#') || items.punct(i + 1, ':') { i + 2 } else { i + 1 };
    let referred = items.at(at).is_some_and(|n| {
        !n.known && n.text.chars().any(|c| c.is_ascii_digit()) && matches!(n.kind, Kind::Word | Kind::Num(_))
    });
    if referred {
        items.list[at].masked = true;
    }
}

/// Whether an item carries a value.
fn is_value(items: &Items<'_, '_>, i: usize) -> bool {
    let Some(item) = items.at(i) else {
        return false;
    };
    match &item.kind {
        Kind::Punct(_) => false,
        Kind::Word => {
            item.senses.iter().any(|s| {
                s.starts_with("quant.")
                    || s.starts_with("prio.")
                    || s.starts_with("level.")
                    || s.starts_with("kind.")
                    || s.starts_with("env.")
                    || s.starts_with("strategy.")
            }) || item.senses.is_empty()
        }
        _ => true,
    }
}

/// "instead of 5 replicas": the phrase, the value and the noun that follows it.
fn mask_value(items: &mut Items<'_, '_>, i: usize) {
    let Some(value) = (i + 1..(i + 5).min(items.len())).find(|k| is_value(items, *k)) else {
        return;
    };
    // "but not above 40 MOLT": a bound, and nothing that is given up.
    if (i + 1..value).any(|k| items.any(k, &["cmp.gt", "cmp.lt", "max", "min"])) {
        return;
    }
    let noun = value + 1 < items.len() && items.list[value + 1].senses.iter().any(|s| s.starts_with("noun."))
        || matches!(items.list.get(value + 1).map(|n| &n.kind), Some(Kind::Gpu { .. }))
            && matches!(items.list[value].kind, Kind::Num(_));
    for item in &mut items.list[i..=value + usize::from(noun)] {
        item.masked = true;
    }
}

/// "deepseek-v3 wouldn't fit, run llama": what is told to be no choice, beside another of its sort.
fn mask_rejected(items: &mut Items<'_, '_>, i: usize) {
    let chosen =
        |k: usize| matches!(items.at(k).map(|n| &n.kind), Some(Kind::Model(_) | Kind::Gpu { .. } | Kind::Image));
    let start = (0..i).rev().find(|k| items.ends_clause(*k) || items.is(*k, "and")).map_or(0, |k| k + 1);
    let Some(old) = (start..i).rev().find(|k| chosen(*k)) else {
        return;
    };
    let sort = std::mem::discriminant(&items.list[old].kind);
    let other = |k: &usize| chosen(*k) && std::mem::discriminant(&items.list[*k].kind) == sort;
    if (0..start).chain(i..items.len()).any(|k| other(&k)) {
        let count = old > start && items.num(old - 1).is_some();
        for item in &mut items.list[old - usize::from(count)..=old] {
            item.masked = true;
        }
    }
}

/// "I was told three H100 but it is two": numbers and things that were only said.
fn mask_hearsay(items: &mut Items<'_, '_>, i: usize) {
    let end = (i..items.len()).find(|k| items.ends_sentence(*k) || items.list[*k].text == "but").unwrap_or(items.len());
    // Only where something else is said then.
    if items.list.get(end).is_none_or(|n| n.text != "but") {
        return;
    }
    for item in &mut items.list[i..end] {
        item.masked = true;
    }
}

/// "swap the L4 for an L40S": what is given away for another thing of its sort.
fn mask_swapped(items: &mut Items<'_, '_>, i: usize) {
    let end = (i..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    let value =
        |from: usize| (from..end.min(from + 5)).find(|k| is_value(items, *k) && items.list[*k].kind != Kind::Word);
    let Some(old) = value(i + 1) else {
        return;
    };
    let link = |k: &usize| {
        matches!(
            items.list[*k].text.as_str(),
            "for" | "with" | "by" | "against" | "gegen" | "durch" | "por" | "par" | "contre"
        )
    };
    let new = (old + 1..end.min(old + 6)).find(link).and_then(|k| value(k + 1));
    let sort = |k: usize| std::mem::discriminant(&items.list[k].kind);
    // "swap the 2 L4 for 2 L40S": the number goes with what it counts.
    let gpu = |k: usize| matches!(items.list.get(k).map(|n| &n.kind), Some(Kind::Gpu { .. }));
    let counted = gpu(old + 1) && !gpu(old);
    if new.is_some_and(|new| sort(new) == sort(old) || counted && gpu(new)) {
        for item in &mut items.list[old..=old + usize::from(counted)] {
            item.masked = true;
        }
    }
}

/// "Don't stop train-41, stop train-43": an order that is not wanted beside one of the same sort that is.
fn orders_elsewhere(items: &Items<'_, '_>, i: usize) -> bool {
    let Some(next) = items.at(i + 1) else {
        return false;
    };
    let orders = ["act.stop", "act.drain", "act.scale", "act.rollback", "act.deploy", "act.update", "act.undrain"];
    orders.iter().any(|sense| {
        next.senses.has(sense)
            && items
                .list
                .iter()
                .enumerate()
                .any(|(k, n)| k != i + 1 && !n.masked && n.senses.has(sense) && !(k > 0 && items.is(k - 1, "not")))
    })
}

/// "not on a T4".
fn mask_unwanted_gpu(items: &mut Items<'_, '_>, i: usize) {
    let at = if items.any(i + 1, &["det.a", "det.the"]) { i + 2 } else { i + 1 };
    if matches!(items.at(at).map(|n| &n.kind), Some(Kind::Gpu { .. })) {
        for item in &mut items.list[i..=at] {
            item.masked = true;
        }
    }
}

/// "not inference, we train"; "not 4 but 8".
fn mask_negated(items: &mut Items<'_, '_>, i: usize) {
    if orders_elsewhere(items, i) {
        let end =
            (i..items.len()).find(|k| items.ends_clause(*k) || items.list[*k].text == "but").unwrap_or(items.len());
        for item in &mut items.list[i..end] {
            item.masked = true;
        }
        return;
    }
    let Some(next) = items.at(i + 1) else {
        return;
    };
    // "dev first (not prod)"
    let environment = next.senses.iter().any(|s| s.starts_with("env."));
    let kind = next.senses.iter().any(|s| s.starts_with("kind."));
    // "why won't x-12 start?": what something does not do is no name that is taken back.
    let auxiliary = matches!(items.list[i].text.as_str(), "wont" | "cannot") || items.list[i].text.ends_with("n't");
    let named = !auxiliary
        && next.kind == Kind::Word
        && (next.known || next.senses.is_empty() && crate::items::is_name_like(&next.text));
    let value = matches!(next.kind, Kind::Num(_) | Kind::Gpu { .. } | Kind::Model(_)) || named;
    let verb = next.senses.iter().any(|s| s.starts_with("act."));
    // "we're not training", "not 4"; but "do not run it on gpu-1" is no value.
    let contrast = (i + 2..(i + 7).min(items.len()))
        .any(|k| items.list[k].text == "but" || items.ends_clause(k) || items.is(k, "correct"));
    let environment = environment && items.punct(i + 2, ')');
    if value && contrast || kind && !verb || kind && contrast || environment {
        for item in &mut items.list[i..=i + 1] {
            item.masked = true;
        }
    }
}

/// "from 2 to 4": the old value.
fn mask_old(items: &mut Items<'_, '_>, i: usize) {
    // "from port 8000 to port 9000"
    let noun = |k: usize| items.at(k).is_some_and(|n| n.senses.iter().any(|s| s.starts_with("noun.")));
    let same = items.list.get(i + 1).zip(items.list.get(i + 4)).is_some_and(|(a, b)| a.text == b.text);
    if noun(i + 1) && same && items.num(i + 2).is_some() && items.is(i + 3, "to") && items.num(i + 5).is_some() {
        items.list[i + 1].masked = true;
        items.list[i + 2].masked = true;
        return;
    }
    if !is_value(items, i + 1) || matches!(items.list[i + 1].kind, Kind::Clock(_) | Kind::Date(..) | Kind::Instant(_)) {
        return;
    }
    // "cambia la imagen de chat-eu a …": what is changed is no old value.
    if items.list[i + 1].known {
        return;
    }
    // 从 2 个副本扩到 5 个
    let reach = if items.lang == crate::lexicon::Lang::Chinese { 8 } else { 5 };
    let Some(to) = (i + 2..(i + reach).min(items.len())).find(|k| items.any(*k, &["to"])) else {
        return;
    };
    if is_value(items, to + 1) {
        // "from 4 gpus to 2": the new value counts the same.
        let noun = |n: &crate::items::Item<'_>| n.senses.iter().any(|s| s.starts_with("noun."));
        let counted = items.list.get(to + 2).is_some_and(noun);
        for item in &mut items.list[i..to] {
            item.masked = counted || !noun(item);
        }
    }
}

/// "gpus 4 -> 2": the value before an arrow is the old one of what stands behind it.
fn mask_arrow(items: &mut Items<'_, '_>, i: usize) {
    let Some(before) = i.checked_sub(1) else {
        return;
    };
    let same = items.at(i + 1).is_some_and(|new| {
        std::mem::discriminant(&new.kind) == std::mem::discriminant(&items.list[before].kind) && new.kind != Kind::Word
    });
    if same && is_value(items, before) {
        items.list[before].masked = true;
    }
}

/// "over 5%, no, 2%": a quantity behind a correction replaces the last one of its unit.
fn replace_quantity(draft: &mut Draft<'_, '_, '_>, correction: usize, k: usize) -> bool {
    if draft.is_used(k) {
        return false;
    }
    let items = draft.items;
    let (value, suffixes): (serde_json::Value, &[&str]) = if let Some(gib) = items.gib(k) {
        (json!(gib), &["_gib", "_gib_min"])
    } else if let Some(n) = items
        .qty(k, "unit.percent")
        .or_else(|| items.qty(k, "unit.celsius"))
        .or_else(|| items.qty(k, "unit.ms"))
        .or_else(|| items.qty(k, "unit.watt"))
    {
        (json!(n), &["threshold", "canary_percent", "target"])
    } else if let Some(seconds) = items.seconds(k) {
        (json!(seconds), &["_s"])
    } else {
        return false;
    };
    let Some(path) = draft.last_number_before(correction, |path| suffixes.iter().any(|s| path.ends_with(s))) else {
        return false;
    };
    draft.replace(&path, value, k..k + 1);
    true
}

/// "a third of an L40S... make that a quarter": a share behind a correction replaces the share.
fn replace_share(draft: &mut Draft<'_, '_, '_>, correction: usize) {
    let path = draft.path("gpu.fraction");
    let before = draft.given_by(&path).is_some_and(|at| at.end <= correction);
    let end = draft.items.len().min(correction + 4);
    let share = (correction + 1..end).find_map(|k| match draft.items.at(k)?.kind {
        Kind::Share(share) if !draft.is_used(k) => Some((k, share)),
        // "or no, 40 % of one"
        Kind::Qty(percent)
            if draft.items.qty(k, "unit.percent").is_some() && draft.items.is(k + 1, "of") && !draft.is_used(k) =>
        {
            Some((k, percent / 100.0)).filter(|(_, share)| *share > 0.0 && *share < 1.0)
        }
        _ => None,
    });
    if let Some((k, share)) = share.filter(|_| before) {
        draft.replace(&path, json!(share), k..k + 1);
    }
}

/// Fields that a bare number after a correction may mean.
fn is_count_field(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path);
    matches!(
        last,
        "count"
            | "replicas"
            | "nodes"
            | "min"
            | "max"
            | "target"
            | "cpu_cores"
            | "memory_gib"
            | "to_revision"
            | "limit"
            | "threshold"
            | "max_restarts"
            | "shm_gib"
            | "disk_gib"
            | "amount"
            | "canary_percent"
    )
}

/// "above 2 seconds, make that 2.5": in the unit of what it replaces.
fn in_unit_of(draft: &Draft<'_, '_, '_>, path: &str, n: f64) -> f64 {
    let items = draft.items;
    let at = draft.given_by(path).into_iter().flatten();
    let said = at.filter_map(|k| Some((k, items.at(k)?))).find_map(|(k, item)| match item.kind {
        Kind::Qty(said) if said > 0.0 => Some((k, said)),
        _ => None,
    });
    match (said, draft.get(path).and_then(serde_json::Value::as_f64)) {
        (Some((k, _)), _) if items.is(k, "unit.fahrenheit") => (n - 32.0) * 5.0 / 9.0,
        (Some((_, said)), Some(old)) => n * (old / said),
        _ => n,
    }
}

/// "4 H100s, no wait, make it 8": a bare number behind a correction replaces the
/// last number before it.
pub(crate) fn read_bare_corrections(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        if !draft.items.corrects(i) {
            continue;
        }
        replace_share(draft, i);
        let mut k = i + 1;
        while k < draft.items.len() && k < i + 6 && draft.free_number(k).is_none() {
            if replace_quantity(draft, i, k) {
                break;
            }
            k += 1;
        }
        let Some(n) = draft.free_number(k) else {
            continue;
        };
        let Some(path) = draft.last_number_before(i, is_count_field) else {
            continue;
        };
        let n = in_unit_of(draft, &path, n);
        let value = if n.fract() == 0.0 { crate::items::whole(n).map_or(json!(n), |n| json!(n)) } else { json!(n) };
        draft.replace(&path, value, k..k + 1);
    }
}
