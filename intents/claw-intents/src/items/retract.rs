//! What is taken back whatever the order is: before an order is looked for.

use super::{Items, Kind};

/// Puts corrected names in place and masks what changes nothing.
pub(super) fn retract(items: &mut Items<'_, '_>) {
    replace_names(items);
    for i in 0..items.len() {
        mask_out(items, i);
        mask_unchanged(items, i);
    }
}

/// "on node a-5, no wait, a-6": the name behind a correction takes the place of the one before it.
fn replace_names(items: &mut Items<'_, '_>) {
    let named = |items: &Items<'_, '_>, k: usize| {
        items
            .at(k)
            .is_some_and(|n| n.kind == Kind::Word && (n.known || n.senses.is_empty() && super::is_name_like(&n.text)))
    };
    let passed = |items: &Items<'_, '_>, k: usize| {
        matches!(items.list[k].kind, Kind::Punct('.' | ',' | '!' | '-' | '—' | '–' | '…' | '('))
    };
    for i in 1..items.len() {
        if !items.corrects(i) {
            continue;
        }
        let Some(nearest) = (0..i).rev().find(|k| !passed(items, *k) && !items.corrects(*k)) else { continue };
        let Some(new) = (i + 1..items.len()).find(|k| !passed(items, *k) && !items.corrects(*k)) else { continue };
        // "stop train-4 on node a-7, sorry, train-5": the name of its kind is corrected, not the nearest.
        let of_kind = |k: &usize| named(items, *k) && stem(&items.list[*k].text) == stem(&items.list[new].text);
        let sentence = (0..=nearest).rev().take_while(|k| !items.ends_sentence(*k));
        let old = sentence.into_iter().find(of_kind).unwrap_or(nearest);
        // What follows the new name may say more of it; what else it begins is not for here.
        let alone = items.ends_clause(new + 1) || items.punct(new + 1, ')');
        let sort = |k: usize| (items.list[k].node_like, items.list[k].listed);
        let alike = sort(old) == sort(new) && items.list[old].text != items.list[new].text;
        if named(items, old) && named(items, new) && alone && alike {
            items.list[old] = items.list[new].clone();
            items.list[new].masked = true;
        }
    }
}

/// What names of one kind begin with: "train" of "train-4".
fn stem(name: &str) -> &str {
    name.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default()
}

/// "mistral 7b out, qwen 7b in": what goes out beside what comes in.
fn mask_out(items: &mut Items<'_, '_>, i: usize) {
    let model =
        |k: usize| matches!(items.at(k).map(|n| &n.kind), Some(Kind::Model(_) | Kind::Gpu { .. } | Kind::Image));
    let said = |k: usize, word: &str| items.list.get(k).is_some_and(|n| n.text == word);
    let out = model(i) && said(i + 1, "out");
    if out && (0..items.len()).any(|k| k != i && model(k) && said(k + 1, "in")) {
        items.list[i].masked = true;
        items.list[i + 1].masked = true;
    }
}

/// "The number of replicas stays as it is.": a sentence of its own that changes nothing.
fn mask_unchanged(items: &mut Items<'_, '_>, i: usize) {
    const STAYS: &[&str] = &["stays", "stay", "remains", "remain", "bleibt", "bleiben", "reste", "restent"];
    const SAME: &[&str] = &["as", "unchanged", "same", "is", "are", "wie", "gleich", "it", "untouched"];
    if !STAYS.contains(&items.list[i].text.as_str()) {
        return;
    }
    let start = (0..i).rev().find(|k| items.ends_sentence(*k)).map_or(0, |k| k + 1);
    let end = (i..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    let same = (i + 1..end).all(|k| {
        items.list[k].text.split(' ').all(|word| SAME.contains(&word)) || items.is(k, "det.the") || items.is(k, "x")
    });
    // Something else is ordered in another sentence.
    if same && i + 1 < end && start > 0 && !(start..i).any(|k| items.ends_clause(k)) {
        for item in &mut items.list[start..end] {
            item.masked = true;
        }
    }
}
