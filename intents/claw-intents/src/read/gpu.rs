//! GPUs and nodes: how many, which, how much memory, how connected.

use serde_json::json;

use crate::answer::RefusalCode;
use crate::draft::Draft;
use crate::items::{Items, Kind, whole};

mod apart;
mod nodes;
mod settings;
mod vague;
mod vram;

/// How a count of GPUs is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Per {
    Replica,
    Node,
}

pub(crate) fn read(draft: &mut Draft<'_, '_, '_>) {
    settings::read(draft);
    read_none(draft);
    read_shares(draft);
    let mut per = Per::Replica;
    for i in 0..draft.items.len() {
        match &draft.items.at(i).map(|item| item.kind.clone()) {
            Some(Kind::Gpu { id, memory_gib, plural }) => {
                draft.set("gpu.model", *id, i..i + 1);
                if let Some(gib) = memory_gib {
                    draft.set("gpu.memory_gib_min", json!(*gib), i..i + 1);
                }
                read_memory(draft, i);
                per = read_count(draft, i, *plural, per);
            }
            Some(Kind::Word) if draft.items.any(i, &["noun.gpu", "noun.gpucount"]) => {
                per = read_noun(draft, i, per);
                if draft.items.list[i].text.ends_with("per node") {
                    per = Per::Node;
                }
            }
            Some(Kind::Mig) => {
                let profile = draft.items.list[i].text.clone();
                // "two 1g.10gb slices", "2x 1g.10gb"
                let at = i.checked_sub(1).map(|k| if draft.items.is(k, "times") { k.saturating_sub(1) } else { k });
                if let Some((k, n)) = at.and_then(|k| Some((k, draft.items.count(k)?))).filter(|(_, n)| *n > 1) {
                    draft.set("gpu.count", json!(n), k..i);
                }
                draft.set("gpu.mig_profile", profile, i..i + 1);
            }
            _ => {}
        }
    }
    nodes::read(draft, per);
    vram::read(draft);
    apart::read(draft);
    vague::ask(draft);
}

fn read_none(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        let said = draft.items.is(i, "gpu.none")
            || draft.items.is(i, "no") && draft.items.is(i + 1, "noun.gpu")
            || draft.items.is(i, "no")
                && draft.items.any(i + 1, &["det.all", "det.a"])
                && draft.items.is(i + 2, "noun.gpu");
        // "cpu only is not ok"
        let denied = draft.items.list.get(i + 1).is_some_and(|n| matches!(n.text.as_str(), "is not" | "isn't"))
            || draft.items.list.get(i + 1).is_some_and(|n| n.text == "is") && draft.items.is(i + 2, "not");
        if said && !denied {
            draft.set("gpu.count", json!(0), i..i + 1);
        }
    }
}

/// "half a GPU", "30% of an A100", "0.25 GPU".
fn read_shares(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        let share = match draft.items.at(i).map(|item| &item.kind) {
            Some(Kind::Share(share)) => *share,
            Some(Kind::Num(n)) if *n < 1.0 && *n > 0.0 => *n,
            Some(Kind::Qty(n)) if draft.items.is(i, "unit.percent") => *n / 100.0,
            _ => continue,
        };
        let mut k = i + 1;
        while draft.items.any(k, &["of", "det.a", "det.the", "on"])
            || draft.items.num(k) == Some(1.0)
            || draft.items.any(k, &["vendor.nvidia", "vendor.amd"])
        {
            k += 1;
        }
        let direct = k == i + 1 && matches!(draft.items.at(i).map(|item| &item.kind), Some(Kind::Qty(_)));
        if is_gpu(draft.items, k) && !direct {
            if share > 1.0 {
                draft.refuse(RefusalCode::Contradictory, "a share of one GPU is at most the whole of it");
                return;
            }
            // Marked first, so that "a" and "an" count nothing.
            draft.set("gpu.fraction", json!(share), i..k);
        }
    }
}

fn is_gpu(items: &Items<'_, '_>, i: usize) -> bool {
    items.is(i, "noun.gpu") || matches!(items.at(i).map(|item| &item.kind), Some(Kind::Gpu { .. }))
}

/// Memory that stands beside a GPU's name: "A100 80GB", "80 GB A100", "A100s with 80 gigs".
fn read_memory(draft: &mut Draft<'_, '_, '_>, i: usize) {
    let items = draft.items;
    if let Some(k) = i.checked_sub(1)
        && let Some(gib) = items.gib(k)
        && !draft.is_used(k)
    {
        draft.set("gpu.memory_gib_min", json!(gib), k..i);
        return;
    }
    // "A100 80", "A100 80s": one of the sizes that exist.
    if let (Some(Kind::Gpu { id, .. }), Some(Kind::Num(n) | Kind::Qty(n))) =
        (items.at(i).map(|n| &n.kind), items.at(i + 1).map(|n| &n.kind))
    {
        let exists = draft
            .catalog
            .gpu(id)
            .is_some_and(|g| g.memory_gib.len() > 1 && g.memory_gib.iter().any(|m| (m - n).abs() < 0.5));
        let bare = matches!(items.list[i + 1].kind, Kind::Num(_))
            || items.list[i + 1].text.ends_with('s') && items.is(i + 1, "unit.s");
        let counts = items.any(i + 2, &["noun.gpu", "noun.replica", "noun.node", "noun.core", "times"]);
        if exists && bare && !counts && !draft.is_used(i + 1) {
            draft.set("gpu.memory_gib_min", json!(n), i + 1..i + 2);
            return;
        }
    }
    let mut k = i + 1;
    while k < i + 4
        && (items.punct(k, '(')
            || items.punct(k, ',') && items.gib(k + 1).is_some()
            || items.any(k, &["with", "noun.gpu", "min"]))
    {
        k += 1;
    }
    let Some(gib) = items.gib(k) else {
        return;
    };
    let host = items.any(k + 1, &["noun.memory", "noun.disk", "noun.shm"])
        || items.is(k + 1, "of") && items.any(k + 2, &["noun.memory", "noun.disk", "noun.shm"]);
    let direct = k == i + 1
        || items.punct(k - 1, '(')
        || items.any(k + 1, &["noun.vram", "each"])
        || items.is(k - 1, "noun.gpu");
    if !host && (direct || items.is(k - 1, "with")) && !draft.is_used(k) {
        draft.set("gpu.memory_gib_min", json!(gib), k..k + 1);
    }
}

/// Words between a count and the GPUs that it counts.
fn between(draft: &Draft<'_, '_, '_>, k: usize) -> bool {
    let items = draft.items;
    if items.num(k).is_some() {
        return false;
    }
    items.any(k, &["times", "of", "link.nvlink", "vendor.nvidia", "vendor.amd", "vendor.apple", "pron.one", "noun.gpu"])
        || items.gib(k).is_some()
        || items.at(k).is_some_and(|item| item.kind == Kind::Punct('-') || item.kind == Kind::Punct('×'))
        || items.at(k).is_some_and(|item| {
            matches!(
                item.text.as_str(),
                "more"
                    | "fresh"
                    | "new"
                    | "big"
                    | "whole"
                    | "full"
                    | "entire"
                    | "identical"
                    | "piece"
                    | "pieces"
                    | "unit"
                    | "units"
                    | "physical"
                    | "dedicated"
                    | "idle"
                    | "free"
                    | "spare"
                    | "separate"
                    | "different"
                    | "extra"
                    | "nvidia"
                    | "available"
                    | "cheap"
                    | "fast"
                    | "sxm"
                    | "pcie"
                    | "shiny"
                    | "its"
                    | "their"
                    | "good"
            )
        })
}

/// The count of the GPUs at an item, left or right of it.
fn read_count(draft: &mut Draft<'_, '_, '_>, i: usize, plural: bool, per: Per) -> Per {
    let items = draft.items;
    let mut k = i;
    while k > 0 && between(draft, k - 1) {
        k -= 1;
    }
    if let Some(at) = k.checked_sub(1).filter(|at| !draft.is_used(*at)) {
        match items.at(at).map(|item| item.kind.clone()) {
            Some(Kind::Num(n)) => {
                // "2 x 8 H100"
                if at > 1
                    && items.is(at - 1, "times")
                    && !draft.is_used(at - 2)
                    && let Some(nodes) = items.count(at - 2)
                {
                    draft.set("nodes", json!(nodes), at - 2..at);
                    set_count(draft, n, at, i + 1, per);
                    return Per::Node;
                }
                // "3 x (4x A100)"
                if at > 2
                    && items.punct(at - 1, '(')
                    && items.is(at - 2, "times")
                    && let Some(nodes) = items.count(at - 3)
                {
                    draft.set("nodes", json!(nodes), at - 3..at);
                    set_count(draft, n, at, i + 1, per);
                    return Per::Node;
                }
                // "4 of the 8 H100"
                let part = items.is(at.wrapping_sub(1), "of").then(|| at.checked_sub(2)).flatten();
                if let Some((k, some)) = part.and_then(|k| Some((k, items.num(k)?))) {
                    draft.mark(&(at..at + 1));
                    return set_count(draft, some, k, i + 1, per);
                }
                return set_count(draft, n, at, i + 1, per);
            }
            Some(Kind::Cross(nodes, each)) => {
                draft.set("nodes", json!(whole(nodes)), at..at + 1);
                return set_count(draft, each, at, i + 1, Per::Node);
            }
            Some(Kind::Range(low, high)) => {
                ask_count(draft, low, high);
                draft.mark(&(at..i + 1));
                return per;
            }
            _ => {}
        }
        // "2 replicas, each one T4"
        let each_one = items.is(at, "each") && items.list[at].text.ends_with(" one");
        // "on my RTX 4090"
        let mine = items.list[at].text == "my";
        if (items.is(at, "det.a") || each_one || mine) && !plural {
            return set_count(draft, 1.0, at, i + 1, per);
        }
    }
    read_count_behind(draft, i, per)
}

/// "H100 x 4", "H100s: 4", "H100, just one", "H100s, four of them".
fn read_count_behind(draft: &mut Draft<'_, '_, '_>, i: usize, per: Per) -> Per {
    let items = draft.items;
    let mut k = i + 1;
    if items.is(k, "noun.gpu") {
        k += 1;
    }
    // "gpu=L4 count=1"
    if items.at(k).is_some_and(|n| n.text == "count") {
        k += 1;
    }
    if (items.any(k, &["times"])
        || items.punct(k, '×')
        || items.punct(k, ':')
        || items.at(k).is_some_and(|n| n.text == "="))
        && let Some(n) = items.num(k + 1).filter(|_| !draft.is_used(k + 1))
    {
        return set_count(draft, n, i, k + 2, per);
    }
    if items.punct(k, '(') {
        k += 1;
        if items.is(k, "det.a") && items.list[k].text.ends_with("one") {
            return set_count(draft, 1.0, i, k + 1, per);
        }
        if let Some(n) = items.num(k).filter(|_| items.punct(k + 1, ')') || items.any(k + 1, &["of", "x"])) {
            return set_count(draft, n, i, k + 1, per);
        }
    }
    // "4 replicas, T4 each"
    let each = items.is(k, "each") && items.num(k).is_none();
    if each && !matches!(items.at(i).map(|n| &n.kind), Some(Kind::Gpu { plural: true, .. })) && !draft.has("gpu.count")
    {
        return set_count(draft, 1.0, i, k + 1, per);
    }
    if items.is(k, "or")
        && let Some(at) = (k + 1..k + 3).find(|at| items.num(*at).is_some())
        && !matches!(items.at(at + 1).map(|n| &n.kind), Some(Kind::Gpu { .. }))
    {
        let n = items.num(at).unwrap_or_default();
        let first = draft.field("gpu.count").and_then(serde_json::Value::as_f64).unwrap_or(n);
        ask_count(draft, first, n);
        draft.mark(&(at..at + 1));
        return per;
    }
    // "A100s please, two of them"
    let of = |k: usize| items.is(k + 1, "of") || items.list.get(k).is_some_and(|n| n.text.ends_with(" of"));
    if items.is(k, "polite") && items.punct(k + 1, ',') && items.num(k + 2).is_some() && of(k + 2) {
        k += 1;
    }
    let comma = items.punct(k, ',') || items.punct(k, '-') || items.punct(k, '—') || items.punct(k, '–');
    if comma {
        k += 1;
    }
    let just = items.at(k).is_some_and(|item| {
        matches!(item.text.as_str(), "just" | "only" | "exactly" | "but only" | "just a" | "nur" | "solo" | "seulement")
    }) || items.any(k, &["noun.limit", "polite"]) && items.num(k + 1).is_some();
    if items.any(k, &["det.a"]) && items.at(k).is_some_and(|item| item.text.contains("one")) && comma {
        return set_count(draft, 1.0, i, k + 1, per);
    }
    if just {
        k += 1;
    }
    if let Some(n) = items.num(k).filter(|_| !draft.is_used(k)) {
        let of_them = items.any(k + 1, &["of", "each", "pernode"]) || of(k);
        let ends = items.ends_clause(k + 1) || items.is(k + 1, "correct");
        if of_them || just && (ends || items.is(k + 1, "polite")) {
            return set_count(draft, n, i, k + 1, per);
        }
    }
    per
}

/// "four 80 gig cards", "an 80 GB GPU".
fn set_size_between(draft: &mut Draft<'_, '_, '_>, count: usize, noun: usize) {
    let items = draft.items;
    if let Some(gib) = (count + 1..noun).find_map(|m| items.gib(m)) {
        draft.set("gpu.memory_gib_min", json!(gib), count + 1..noun);
    }
}

/// A count beside the word "GPU".
fn read_noun(draft: &mut Draft<'_, '_, '_>, i: usize, per: Per) -> Per {
    let items = draft.items;
    if draft.is_used(i) {
        return per;
    }
    let named = matches!(items.at(i + 1).map(|n| &n.kind), Some(Kind::Gpu { .. }));
    let behind_name = i > 0 && matches!(items.at(i - 1).map(|n| &n.kind), Some(Kind::Gpu { .. }));
    // Part of "4 H100 GPUs".
    if named || behind_name {
        return per;
    }
    let mut k = i;
    while k > 0
        && (between(draft, k - 1) && !items.is(k - 1, "noun.gpu")
            || items.any(k - 1, &["act.bid", "det.the"]) && k == i)
    {
        k -= 1;
    }
    if let Some(at) = k.checked_sub(1).filter(|at| !draft.is_used(*at)) {
        match items.at(at).map(|item| item.kind.clone()) {
            Some(Kind::Num(n)) if !(n < 1.0 && n > 0.0) => {
                set_size_between(draft, at, i);
                return set_count(draft, n, at, i + 1, per);
            }
            Some(Kind::Cross(nodes, each)) => {
                draft.set("nodes", json!(whole(nodes)), at..at + 1);
                return set_count(draft, each, at, i + 1, Per::Node);
            }
            Some(Kind::Range(low, high)) => {
                ask_count(draft, low, high);
                draft.mark(&(at..i + 1));
                return per;
            }
            _ => {}
        }
        if items.is(at, "det.a") && items.list[i].text != "gpus" && !items.is(at, "det.that") {
            set_size_between(draft, at, i);
            return set_count(draft, 1.0, at, i + 1, per);
        }
    }
    // "gpus: 4", "gpu count 4", "gpu count of search from 1 to 2".
    let mut k = i + 1;
    let limit = i + 10;
    while k < limit
        && (items.any(k, &["to", "of", "on", "noun.deployment", "det.the", "pron.one"])
            || items.punct(k, ':')
            || items.punct(k, '=')
            || items.at(k).is_some_and(|item| {
                item.kind == Kind::Word
                    && (item.senses.is_empty() || item.known || item.text == "count" || item.text == "number")
            })
            || skippable(draft, k))
    {
        k += 1;
    }
    let direct = k == i + 1;
    // "gpus=0 cores=1": the noun behind the number has one of its own.
    let unit_behind =
        items.any(k + 1, &["noun.replica", "noun.node", "noun.core", "noun.port"]) && !items.equals(k + 2);
    if let Some(n) = items.num(k).filter(|_| !draft.is_used(k) && !unit_behind) {
        let signed = (i + 1..k)
            .any(|at| items.is(at, "to") && !draft.is_used(at) || items.punct(at, ':') || items.punct(at, '='));
        if signed || direct && (items.is(i, "noun.gpucount") || items.list[i].text == "gpus") {
            return set_count(draft, n, i, k + 1, per);
        }
    }
    per
}

/// Whether an item is masked, or gave another field, such as a name.
fn skippable(draft: &Draft<'_, '_, '_>, k: usize) -> bool {
    k < draft.items.len() && (draft.items.list[k].masked || draft.is_used(k))
}

fn ask_count(draft: &mut Draft<'_, '_, '_>, low: f64, high: f64) {
    let path = draft.path("gpu.count");
    draft.ask(&path, format!("How many GPUs: {low} or {high}?"), vec![low.to_string(), high.to_string()]);
}

/// A number before a count that counts the same GPUs: "4 or 8", "4 to 8", "between 4 and 8", "two, maybe four".
fn other_count(draft: &Draft<'_, '_, '_>, from: usize) -> Option<(usize, f64)> {
    let items = draft.items;
    let free = |k: usize| items.num(k).filter(|_| !draft.is_used(k));
    let doubt = from.checked_sub(1).filter(|k| items.any(*k, &["unsure", "or"]));
    let comma = doubt.and_then(|k| k.checked_sub(1)).filter(|k| items.punct(*k, ','));
    if let Some(k) = comma.and_then(|k| k.checked_sub(1))
        && let Some(other) = free(k)
    {
        return Some((k, other));
    }
    let k = from.checked_sub(2)?;
    let slash = items.at(k + 1).is_some_and(|item| item.kind == Kind::Punct('/'));
    if let Some(other) = items.num(k).filter(|_| items.is(k + 1, "or") || slash) {
        return Some((k, other));
    }
    // "the flux one to 2 L40S": which, and not how many.
    let which = items.list[k].text == "one"
        && (1..3).any(|back| {
            k.checked_sub(back)
                .is_some_and(|m| items.is(m, "det.the") || matches!(items.at(m).map(|n| &n.kind), Some(Kind::Model(_))))
        });
    let to = items.is(k + 1, "rangeand") && items.list[k + 1].text == "to" && !which;
    if let Some(other) = free(k).filter(|_| to) {
        return Some((k, other));
    }
    let k = from.checked_sub(3)?;
    let other = items.num(k + 1).filter(|_| items.is(k, "between") && items.is(k + 2, "rangeand"))?;
    Some((k, other))
}

/// Sets a count and says whether it is meant for each node.
fn set_count(draft: &mut Draft<'_, '_, '_>, n: f64, from: usize, to: usize, per: Per) -> Per {
    let items = draft.items;
    let Some(count) = whole(n) else {
        return per;
    };
    if let Some((k, other)) = other_count(draft, from) {
        ask_count(draft, other, n);
        draft.mark(&(k..to));
        return per;
    }
    let each = (to..to + 3).find(|k| items.is(*k, "each")).filter(|k| (to..*k).all(|m| !items.ends_clause(m)));
    if let (Some(_), Some(all), Some(replicas)) = (each, number(draft, "gpu.count"), number(draft, "replicas"))
        && all == replicas.saturating_mul(u64::from(count))
    {
        // "two L4s with 2 replicas, one each": the field is of one replica.
        let path = draft.path("gpu.count");
        draft.replace(&path, json!(count), from..to);
        return per;
    }
    draft.set("gpu.count", json!(count), from..to);
    // "a couple of L40S or maybe just one"
    if items.is(to, "or") && items.is(to + 1, "det.a") && items.list[to + 1].text.ends_with(" one") {
        ask_count(draft, n, 1.0);
    }
    if items.is(to, "or")
        && let Some(at) = (to + 1..to + 3).find(|at| items.num(*at).is_some())
    {
        let other = items.num(at).unwrap_or_default();
        ask_count(draft, n, other);
        draft.mark(&(at..at + 1));
    }
    // "per node 8 H100"; or what follows says that it is meant for each node.
    let nodes_before = || {
        let start = (0..from).rev().find(|k| items.ends_sentence(*k)).map_or(0, |k| k + 1);
        (start..from).any(|k| items.is(k, "noun.node"))
    };
    if from > 0 && (items.is(from - 1, "pernode") || items.is(from - 1, "each") && nodes_before()) {
        return Per::Node;
    }
    let mut k = to;
    while k < to + 4 && !items.ends_sentence(k) && !items.punct(k, ',') {
        if items.is(k, "pernode")
            || items.is(k, "each") && items.is(k + 1, "of") && (k + 2..k + 5).any(|at| items.is(at, "noun.node"))
        {
            return Per::Node;
        }
        if items.is(k, "each") && items.is(k + 1, "noun.node") {
            return Per::Node;
        }
        if items.is(k, "each") {
            return if draft.has("replicas") || replicas_said(items) { Per::Replica } else { Per::Node };
        }
        k += 1;
    }
    per
}

fn replicas_said(items: &Items<'_, '_>) -> bool {
    (0..items.len()).any(|i| items.is(i, "noun.replica"))
}

/// The count was each node's: the field says all GPUs of a replica.
fn multiply(draft: &mut Draft<'_, '_, '_>) {
    let (Some(nodes), Some(count)) = (number(draft, "nodes"), number(draft, "gpu.count")) else {
        return;
    };
    let path = draft.path("gpu.count");
    let all = nodes.saturating_mul(count);
    if nodes > 1
        && let Some(at) = draft.given_by(&path)
    {
        draft.replace(&path, json!(all), at);
        draft.assume(
            &path,
            json!(all),
            format!("{nodes} nodes with {count} GPUs each; the field says all GPUs of a replica"),
        );
    }
}

fn number(draft: &Draft<'_, '_, '_>, field: &str) -> Option<u64> {
    draft.field(field)?.as_u64()
}
