//! Variables of the environment that are said in words.

use crate::draft::Draft;
use crate::items::{Items, Kind};

/// A word written as names of variables are: LOG_LEVEL.
pub(super) fn is_variable(items: &Items<'_, '_>, i: usize) -> bool {
    let raw = items.raw(i);
    items.at(i).is_some_and(|n| n.kind == Kind::Word && n.senses.is_empty())
        && raw.contains('_')
        && raw.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
}

/// "env var LOG_LEVEL to debug", "environment variable A set to 1".
pub(super) fn read_worded(draft: &mut Draft<'_, '_, '_>, i: usize) {
    let items = draft.items;
    let key = |k: usize| {
        items.at(k).is_some_and(|n| {
            n.kind == Kind::Word && n.text.contains('_')
                || items.raw(k).len() > 1 && items.raw(k).chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        })
    };
    // "RAM to 64 GB" is a size, whatever is written in capitals.
    let sized = |k: usize| {
        let size = items.any(k, &["noun.memory", "noun.disk", "noun.shm", "noun.vram"]);
        size && (k + 1..k + 5).take_while(|m| !items.ends_clause(*m)).any(|m| items.gib(m).is_some())
    };
    let Some(k) = (i + 1..i + 3).find(|k| key(*k) && !sized(*k) && !draft.is_used(*k)) else {
        return;
    };
    let mut v = k + 1;
    // "env LOG_LEVEL of deployment chat to debug"
    let of = items.any(v, &["of", "on", "for"]) && items.any(v + 1, &["noun.deployment", "det.the"]);
    if let Some(to) = (v + 2..v + 6).find(|m| of && items.list.get(*m).is_some_and(|n| n.text == "to")) {
        v = to;
    }
    let k_end = v;
    while items.any(v, &["to", "act.update", "x", "on"]) && v < k_end + 2 {
        v += 1;
        // What follows is the value, whatever it means: "MODE to fast".
        if items.is(v - 1, "to") {
            break;
        }
    }
    if v > k + 1 && v < items.len() && !items.ends_clause(v) {
        let quoted = matches!(items.list[v].kind, Kind::Quote(_));
        let value = if quoted { items.list[v].text.clone() } else { items.raw(v).to_owned() };
        draft.entry("env", items.raw(k), &value, k..v + 1);
        // "TIMEOUT to 30 and RETRIES to 2"
        if items.is(v + 1, "and") || items.punct(v + 1, ',') {
            read_worded(draft, v + 1);
        }
    }
}
