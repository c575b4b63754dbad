//! Where it may run: node, nodes to avoid, zone, labels, packing, tenant.

use std::collections::BTreeMap;

use crate::draft::Draft;
use crate::items::{Items, Kind};
use crate::text::Quote;

use super::refs;

pub(crate) fn read(draft: &mut Draft<'_, '_, '_>) {
    read_labels(draft);
    read_zone(draft);
    read_excluded(draft);
    read_spared(draft);
    read_node(draft);
    read_strategy(draft);
    read_tenant(draft);
}

fn read_strategy(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        let parted = || draft.items.gaps(i).into_iter().find_map(|(sense, _)| sense.strip_prefix("place."));
        if let Some(strategy) = draft.items.at(i).and_then(|item| item.senses.after("place.")).or_else(parted) {
            // "never two on the same node"
            let apart = draft.items.list[i].text.contains("same")
                && (i.saturating_sub(4)..i).any(|k| draft.items.any(k, &["not", "no"]));
            draft.set("placement.strategy", if apart { "spread" } else { strategy }, i..i + 1);
        }
    }
    if !draft.has("placement.strategy") {
        read_apart(draft);
    }
}

/// "every replica on a different node", "both on the same box": whether nodes are shared, in no set phrase.
fn read_apart(draft: &mut Draft<'_, '_, '_>) {
    const OTHERS: &[&str] = &["different", "separate", "distinct", "own", "verschiedenen", "distintos", "différents"];
    let items = draft.items;
    let says = |k: usize, words: &[&str]| items.at(k).is_some_and(|n| n.text.split(' ').any(|w| words.contains(&w)));
    for i in 1..items.len() {
        if !items.is(i, "noun.node") || items.any(i + 1, &["insteadof"]) || says(i + 1, &["than", "from"]) {
            continue;
        }
        let (start, several) = ((0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1), |k: usize| {
            items.any(k, &["noun.replica", "each", "det.all"])
                || says(k, &["both", "them", "each", "every", "two", "all"])
        });
        if !(start..i).any(several) {
            continue;
        }
        let denied = (start..i).any(|k| items.any(k, &["not", "no"]) || says(k, &["nobody", "none", "never"]));
        let strategy = if says(i - 1, OTHERS) {
            "spread"
        } else if says(i - 1, &["same", "single"]) || i > 1 && says(i - 1, &["gpu"]) && says(i - 2, &["same"]) {
            if denied { "spread" } else { "pack" }
        } else {
            continue;
        };
        draft.set("placement.strategy", strategy, i - 1..i + 1);
        return;
    }
}

/// "with label tier=gold", "on nodes labelled disk:nvme".
fn read_labels(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        let pair = matches!(items.at(i + 1).map(|n| &n.kind), Some(Kind::Pair(..)))
            || worded_label(items, i + 1).is_some_and(|_| items.list[i + 2].text == "=");
        if !(items.is(i, "noun.label") || pair && items.at(i).is_some_and(|n| n.text == "where")) {
            continue;
        }
        let mut k = i + 1;
        if items.punct(k, '{') {
            if let Some((map, end)) = super::program::json_at::<BTreeMap<String, String>>(items, k) {
                for (key, value) in map {
                    draft.entry("placement.labels", &key, &value, i..end);
                }
            }
            continue;
        }
        while k < items.len() {
            if let Some(Kind::Pair(key, value)) = items.at(k).map(|item| item.kind.clone()) {
                draft.entry("placement.labels", &key, &value, k..k + 1);
            } else if let Some((key, value)) =
                items.at(k).filter(|n| n.kind == Kind::Image).and_then(|_| items.raw(k).split_once(':'))
            {
                draft.entry("placement.labels", key, value, k..k + 1);
            } else if let Some((key, value, _)) = worded_label(items, k) {
                draft.entry("placement.labels", &key, &value, k..k + 3);
                k += 2;
            } else if !(items.any(k, &["and", "noun.label", "to", "with", "det.the", "noun.node"])
                || items.punct(k, ',')
                || items.punct(k, ':'))
            {
                break;
            }
            k += 1;
        }
    }
    // `tier=gold` in lower case behind "on nodes" is a label too.
    for i in 0..items.len() {
        let Some(Kind::Pair(key, value)) = items.at(i).map(|item| item.kind.clone()) else {
            continue;
        };
        let behind_node = i > 0
            && (items.any(i - 1, &["with", "on"]) && i > 1 && items.is(i - 2, "noun.node")
                || items.is(i - 1, "noun.node"));
        let lower = key.chars().all(|c| !c.is_uppercase());
        let place = super::program::place_key(items, i, &key);
        if (behind_node && lower || place) && !draft.is_used(i) {
            draft.entry("placement.labels", &key, &value, i..i + 1);
        }
    }
}

/// "tier is gold", "tier = gold".
fn worded_label(items: &Items<'_, '_>, k: usize) -> Option<(String, String, usize)> {
    let name = |k: usize| {
        items.at(k).filter(|n| n.kind == Kind::Word && !n.text.contains(' ')).map(|_| items.raw(k).to_owned())
    };
    let equals = items.punct(k + 1, '=')
        || items.punct(k + 1, ':')
        || items.is(k + 1, "to") && items.list[k + 1].text == "="
        || items.at(k + 1).is_some_and(|n| n.text == "is");
    equals.then_some(())?;
    let value = items.at(k + 2).filter(|n| matches!(n.kind, Kind::Word)).map(|_| items.raw(k + 2).to_owned())?;
    Some((name(k)?, value, k + 3))
}

/// How names of regions begin.
const REGIONS: &[&str] = &[
    "eu",
    "us",
    "ap",
    "asia",
    "europe",
    "af",
    "me",
    "sa",
    "ca",
    "cn",
    "uk",
    "northamerica",
    "australia",
    "africa",
    "southamerica",
];

/// "in zone eu-west", "region us-east-1".
fn read_zone(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        // "nodes with labels fabric=ib and site=basel"
        if !items.is(i, "noun.zone") || draft.is_used(i) {
            continue;
        }
        let mut k = i + 1;
        while items.any(k, &["to", "x"]) || items.punct(k, ':') || items.punct(k, '=') {
            k += 1;
        }
        let named = |k: usize| {
            items.at(k).is_some_and(|n| {
                matches!(n.kind, Kind::Word | Kind::Num(_) | Kind::Quote(_))
                    && (n.senses.is_empty() || n.known || refs::is_name_like(&n.text))
            })
        };
        if named(k) {
            draft.set("placement.zone", refs::name_of(items, k), i..k + 1);
        } else if let Some(before) = i.checked_sub(1).filter(|k| named(*k)) {
            draft.set("placement.zone", refs::name_of(items, before), before..i + 1);
        }
    }
    // "in eu-west-1": a name as regions have it.
    for i in 1..items.len() {
        let region = items.at(i).is_some_and(|n| {
            n.kind == Kind::Word && !n.known && n.text.split_once('-').is_some_and(|(head, _)| REGIONS.contains(&head))
        });
        if region && items.is(i - 1, "on") && !draft.is_used(i) && !draft.has("placement.zone") {
            draft.set("placement.zone", items.raw(i), i..i + 1);
        }
    }
    // "in fra": a zone that nodes of the context have.
    for i in 1..items.len() {
        let Some(item) = items.at(i) else {
            continue;
        };
        let zone =
            draft.context.nodes.iter().filter_map(|n| n.zone.as_deref()).find(|z| z.eq_ignore_ascii_case(&item.text));
        let describes = i > 2 && items.is(i - 2, "noun.node") && items.any(i - 3, &["det.the", "det.that"]);
        if let Some(zone) = zone
            && items.is(i - 1, "on")
            && !describes
            && !draft.is_used(i)
            && !item.known
        {
            draft.set("placement.zone", zone, i..i + 1);
        }
    }
}

/// "not on gpu-1 and gpu-2", "avoid node x".
fn read_excluded(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        if !items.is(i, "except") {
            continue;
        }
        let mut k = i + 1;
        let mut found = false;
        while k < items.len() {
            let skip = items.any(k, &["noun.node", "det.the", "and", "or", "on", "det.that", "each"])
                || items.punct(k, ',')
                || items.punct(k, '/')
                || items.punct(k, '&');
            let Some(item) = items.at(k) else { break };
            // "avoid zone-less node x-9": what a noun and a name follow describes.
            let describes =
                items.is(k + 1, "noun.node") && items.at(k + 2).is_some_and(|n| refs::is_name_like(&n.text));
            if describes && !items.is(k, "noun.node") {
                k += 1;
                continue;
            }
            let named = matches!(item.kind, Kind::Quote(Quote::Marks)) && refs::can_name(items, k)
                || item.kind == Kind::Word
                    && (item.known
                        || refs::is_name_like(&item.text)
                        || items.is(k - 1, "noun.node") && item.senses.is_empty());
            if named {
                found = true;
                match refs::node(draft, k, "placement.exclude_nodes") {
                    Some(name) => draft.add("placement.exclude_nodes", name, k..k + 1),
                    None => draft.mark(&(k..k + 1)),
                }
            } else if !skip || found && items.is(k, "on") {
                break;
            }
            k += 1;
        }
        if found {
            draft.mark(&(i..i + 1));
        }
    }
}

/// "gpu-1 is off limits", "leave gpu-1 alone".
fn read_spared(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        let spared = items.gaps(i).into_iter().find(|(sense, _)| *sense == "except");
        let named =
            |k: &usize| items.at(*k).is_some_and(|n| n.kind == Kind::Word && (n.known || refs::is_name_like(&n.text)));
        let found: Vec<usize> = match spared {
            Some((_, end)) => (i + 1..end).filter(named).collect(),
            None if items.is(i, "spared") => {
                // "nodes n-1 and n-2 are off limits": a list.
                let listed = |k: &usize| {
                    named(k)
                        || items.any(*k, &["and", "or", "noun.node", "det.the"])
                        || items.punct(*k, ',')
                        || matches!(items.list[*k].text.as_str(), "is" | "are" | "both")
                };
                (0..i).rev().take_while(listed).filter(named).collect()
            }
            // "the node must not be gpu-1"
            None if items.is(i, "not")
                && (i + 1..i + 3).any(|k| named(&k))
                && i > 0
                && {
                    let modal = items.at(i - 1).is_some_and(|n| n.kind == Kind::Word && !items.is(i - 1, "noun.node"));
                    items.is(if modal { i.saturating_sub(2) } else { i - 1 }, "noun.node")
                }
                && (named(&(i + 1)) || items.list.get(i + 1).is_some_and(|n| n.text == "be")) =>
            {
                (i + 1..i + 3).filter(named).take(1).collect()
            }
            None => continue,
        };
        for k in found {
            if !draft.is_used(k)
                && let Some(name) = refs::node(draft, k, "placement.exclude_nodes")
            {
                draft.add("placement.exclude_nodes", name, k..k + 1);
            }
        }
    }
}

/// "on node gpu-07", "pin it to gpu-07", "on the H100 node".
fn read_node(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        let Some(item) = items.at(i) else {
            continue;
        };
        let behind_noun = i > 0 && items.is(i - 1, "noun.node") && !draft.is_used(i - 1)
            || must_be(items, i) && refs::is_name_like(&item.text);
        let quoted = behind_noun && matches!(item.kind, Kind::Quote(Quote::Marks)) && refs::can_name(items, i);
        if draft.is_used(i) || item.kind != Kind::Word && !quoted {
            continue;
        }
        let placed = i > 0 && items.any(i - 1, &["on", "to"]) && !items.any(i - 1, &["per.hour"]);
        let in_context = draft.context.nodes.iter().any(|n| {
            n.name.eq_ignore_ascii_case(&item.text)
                || n.id.as_deref().is_some_and(|id| id.eq_ignore_ascii_case(&item.text))
        });
        let begins = (refs::is_name_like(&item.text) || item.senses.is_empty() && item.text.len() > 1)
            && draft.context.nodes.iter().any(|n| n.name.to_lowercase().starts_with(&item.text));
        let before_noun = refs::is_name_like(&item.text) && items.is(i + 1, "noun.node") && item.senses.is_empty();
        // "pin acme/x:1 to box-17"
        let pinned = i > 0
            && items.is(i - 1, "to")
            && (0..i).rev().take_while(|k| !items.ends_clause(*k)).any(|k| items.is(k, "pins"))
            && refs::is_name_like(&item.text)
            && item.senses.is_empty();
        let named = !ruled_out(items, i)
            && (quoted
                || pinned
                || behind_noun
                    && (item.senses.is_empty() || refs::is_name_like(&item.text))
                    && !plural_before(items, i)
                || placed && (in_context || begins)
                || before_noun
                || placed
                    && refs::is_name_like(&item.text)
                    && item.senses.is_empty()
                    && !behind_preposition_of_name(draft, i));
        if named && let Some(name) = refs::node(draft, i, "placement.node") {
            draft.set("placement.node", name, i..i + 1);
        }
    }
    if !draft.has("placement.node") {
        read_described(draft);
    }
}

/// "nodes n-1 and n-2 must not be used", "nothing may land on n-1": a clause that says no puts nothing there.
fn ruled_out(items: &Items<'_, '_>, i: usize) -> bool {
    let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    let end = (i..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    // "do not restart it and run it on n-1" says no to something else.
    let turns = |k: usize| items.list[k].text == "but" || items.any(k, &["and", "insteadof"]) || items.corrects(k);
    let no = |k: usize| items.any(k, &["not", "except"]) && !items.is(k, "correct");
    let told = |k: usize| {
        const MODALS: &[&str] =
            &["must", "mustn't", "may", "should", "shouldn't", "shall", "can't", "cannot", "is", "are"];
        let modal = items.list[k].text.split(' ').next().is_some_and(|word| MODALS.contains(&word));
        items.is(k, "spared") || items.is(k, "not") && modal
    };
    let list =
        |k: usize| items.any(k, &["and", "or"]) || items.punct(k, ',') || refs::is_name_like(&items.list[k].text);
    (start..i).rev().take_while(|k| !turns(*k)).any(no) || (i + 1..end).find(|k| !list(*k)).is_some_and(told)
}

/// "the node must be gpu-7", "node: gpu-7".
fn must_be(items: &Items<'_, '_>, i: usize) -> bool {
    const COPULAS: &[&str] = &["be", "is", "must", "should", "shall", "to", "has", "has to", "needs", "needs to", "="];
    let is = |k: usize| items.punct(k, ':') || items.at(k).is_some_and(|n| COPULAS.contains(&n.text.as_str()));
    let start = (0..i).rev().find(|k| !is(*k)).map_or(0, |k| k + 1);
    start > 0 && start < i && items.is(start - 1, "noun.node") && !items.list[start - 1].text.ends_with('s')
}

fn plural_before(items: &Items<'_, '_>, i: usize) -> bool {
    items.list[i - 1].text.ends_with('s') && items.any(i, &["with", "of"])
}

/// "for team-a", "to web-1": names behind these are no nodes.
fn behind_preposition_of_name(draft: &Draft<'_, '_, '_>, i: usize) -> bool {
    let word = draft.items.list[i - 1].text.as_str();
    let places = matches!(word, "on" | "onto" | "at" | "auf" | "en" | "sur" | "在" | "an" | "bei");
    let pins = word == "to"
        && i > 1
        && draft.items.at(i - 2).is_some_and(|n| {
            matches!(
                n.text.as_str(),
                "pin"
                    | "stuck"
                    | "nail"
                    | "it"
                    | "pinned"
                    | "stick"
                    | "bind"
                    | "bound"
                    | "goes"
                    | "go"
                    | "fixed"
                    | "tied"
            )
        });
    !places && !pins
}

/// "the H100 node", "that node", "the node in fra".
fn read_described(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        let single = items.is(i, "noun.node") && !items.list[i].text.ends_with('s') && !draft.is_used(i);
        if !single {
            continue;
        }
        let article = (i.saturating_sub(4)..i).rev().find(|k| items.any(*k, &["det.the", "det.that"]));
        let Some(from) = article.filter(|k| *k > 0 && items.any(k - 1, &["on", "to"])) else {
            continue;
        };
        if (from..i).any(|k| items.ends_clause(k)) {
            continue;
        }
        if let Some(name) = refs::described_node(draft, from, i, "workload.placement.node") {
            let gpu_words: Vec<usize> =
                (from..i).filter(|k| matches!(items.at(*k).map(|n| &n.kind), Some(Kind::Gpu { .. }))).collect();
            draft.set("placement.node", name, from..i + 1);
            // The GPU's name described the node; it is no wish of its own.
            if !gpu_words.is_empty()
                && draft.given_by(&draft.path("gpu.model")).is_some_and(|at| gpu_words.contains(&at.start))
            {
                let path = draft.path("gpu.model");
                draft.forget(&path);
            }
        }
    }
}

fn read_tenant(draft: &mut Draft<'_, '_, '_>) {
    if let Some((name, at)) = refs::tenant(draft.items) {
        draft.set("tenant", name, at..at + 1);
    }
}
