//! Budgets, prices and the use of the market.

use serde_json::json;

use crate::draft::Draft;
use crate::items::{Items, Kind};

/// The currency of a sum, as the format names it; none if it knows it not.
fn unit(items: &Items<'_, '_>, i: usize) -> Option<&'static str> {
    if items.is(i, "money.molt") {
        Some("molt")
    } else if items.any(i, &["money.usd", "money.cent"]) {
        Some("usd")
    } else {
        None
    }
}

/// What a sum is per, and the end of the words that say so.
fn per(items: &Items<'_, '_>, i: usize) -> Option<(&'static str, usize)> {
    const SENSES: &[(&str, &str)] = &[("per.gpu_hour", "gpu_hour"), ("per.hour", "hour"), ("per.total", "total")];
    let mut k = i;
    // "3 MOLT max per GPU-hour", "(in total)"
    while k < i + 3
        && (items.any(k, &["max", "min"]) && !items.is(k, "per.total")
            || items.punct(k, '(')
            || items.punct(k, ',')
            || items.is(k, "budget"))
    {
        k += 1;
    }
    SENSES.iter().find(|(sense, _)| items.is(k, sense)).map(|(_, per)| (*per, k + 1))
}

/// "total budget", "hourly budget", "per gpu hour max $2": what a sum is per, said before it.
fn per_before(items: &Items<'_, '_>, i: usize) -> Option<&'static str> {
    let from = i.saturating_sub(5);
    let start = (from..i).rev().find(|k| items.ends_sentence(*k)).map_or(from, |k| k + 1);
    (start..i).rev().find_map(|k| {
        [("per.gpu_hour", "gpu_hour"), ("per.hour", "hour"), ("per.total", "total")]
            .into_iter()
            .find(|(sense, _)| items.is(k, sense))
            .map(|(_, per)| per)
    })
}

/// "150 usd left, that's the total": what the rest of a sentence says of its only sum.
fn total_behind(items: &Items<'_, '_>, i: usize) -> Option<&'static str> {
    let end = (i..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    let counts = |k: usize| {
        items.any(k, &["noun.gpu", "noun.node", "noun.replica"]) || matches!(items.list[k].kind, Kind::Gpu { .. })
    };
    // "spend 30 USD at most": what is spent is all of it.
    let spends = i > 0 && matches!(items.list[i - 1].text.as_str(), "spend" | "spending" | "spend up to" | "pay");
    if spends && !(i + 1..end).any(|k| items.any(k, &["per.hour", "per.gpu_hour"])) {
        return Some("total");
    }
    let total = (i + 1..end).find(|k| items.is(*k, "per.total"))?;
    (!(i + 1..total).any(counts) && !(i + 1..end).any(|k| matches!(items.list[k].kind, Kind::Money(_))))
        .then_some("total")
}

/// "a budget of MOLT 80": a number behind its currency that counts nothing else.
fn behind_currency(draft: &Draft<'_, '_, '_>, i: usize) -> Option<f64> {
    let items = draft.items;
    let molt = items.at(i).is_some_and(|n| n.kind == Kind::Word && n.text == "molt" && n.senses.has("money.molt"));
    let alone = items.ends_clause(i + 2) || per(items, i + 2).is_some() || items.any(i + 2, &["and", "max", "polite"]);
    items.num(i + 1).filter(|_| molt && alone && !draft.is_used(i + 1))
}

pub(crate) fn read_budget(draft: &mut Draft<'_, '_, '_>) {
    let path = draft.path("budget");
    read_budget_at(draft, &path);
}

/// Reads a budget into a path.
pub(crate) fn read_budget_at(draft: &mut Draft<'_, '_, '_>, path: &str) {
    let items = draft.items;
    for i in 0..items.len() {
        let amount = match items.at(i).map(|item| item.kind.clone()) {
            Some(Kind::Money(amount)) => Some(amount),
            _ => behind_currency(draft, i),
        };
        let Some(amount) = amount else {
            continue;
        };
        let Some(unit) = unit(items, i) else {
            let asked = format!("{path}.unit");
            let options = vec!["usd".into(), "molt".into()];
            draft.ask(
                &asked,
                format!("{:?} is no currency here: how much is it in USD or MOLT?", items.raw(i)),
                options,
            );
            draft.mark(&(i..i + 1));
            continue;
        };
        draft.set_at(&format!("{path}.amount"), json!(amount), i..i + 1);
        draft.set_at(&format!("{path}.unit"), json!(unit), i..i + 1);
        let end = if matches!(items.list[i].kind, Kind::Money(_)) { i + 1 } else { i + 2 };
        draft.mark(&(i..end));
        let behind = per(items, end);
        if let Some((per, last)) = behind {
            draft.set_at(&format!("{path}.per"), json!(per), end..last);
        } else if let Some(per) = per_before(items, i).or_else(|| total_behind(items, i)) {
            draft.set_at(&format!("{path}.per"), json!(per), i..i + 1);
        }
    }
    read_unnamed(draft, path);
}

/// "budget 100": a sum without a currency is a question.
fn read_unnamed(draft: &mut Draft<'_, '_, '_>, path: &str) {
    let items = draft.items;
    if draft.get(&format!("{path}.amount")).is_some() {
        return;
    }
    for i in 0..items.len() {
        if !items.is(i, "budget")
            || items.list[i].text.starts_with("for")
            || items.list[i].text.starts_with("not")
            || items.list[i].text.starts_with("at")
        {
            continue;
        }
        let mut k = i + 1;
        while k < i + 4 && (items.any(k, &["of", "to", "max", "min"]) || items.punct(k, ':') || items.punct(k, '=')) {
            k += 1;
        }
        if let Some(n) = items.num(k).filter(|_| !draft.is_used(k)) {
            let plain = items.ends_clause(k + 1) || per(items, k + 1).is_some() || items.is(k + 1, "per.total");
            if plain {
                let asked = format!("{path}.unit");
                draft.ask(&asked, format!("{n} of which currency: USD or MOLT?"), vec!["usd".into(), "molt".into()]);
                draft.mark(&(k..k + 1));
            }
        }
    }
}

pub(crate) fn read_market(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        let Some(item) = draft.items.at(i) else {
            continue;
        };
        if let Some(market) = item.senses.after("market.") {
            draft.set("market", market, i..i + 1);
        }
    }
    // "on the market only"
    let only = |i: usize| {
        let word = draft.items.list.get(i + 1).is_some_and(|n| n.text == "only");
        draft.items.is(i, "market") && word && (draft.items.ends_clause(i + 2) || draft.items.is(i + 2, "and"))
    };
    if let Some(i) = (0..draft.items.len()).find(|i| only(*i)) {
        draft.set("market", "only", i..i + 2);
    }
    if !draft.has("market") {
        read_worded_market(draft);
    }
}

/// "switch off market use", "stop buying on the market".
fn ends_use(items: &Items<'_, '_>, k: usize) -> bool {
    const ENDS: &[&str] = &["off", "switch off", "turn off", "disable", "stop", "quit", "forbid", "deny", "cancel"];
    items.at(k).is_some_and(|n| ENDS.contains(&n.text.as_str()))
}

/// "only on the MOLT marketplace", "never touch the market".
fn read_worded_market(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        if !items.is(i, "market") {
            continue;
        }
        let from = i.saturating_sub(8);
        let start = (from..i).rev().find(|k| items.ends_clause(*k)).map_or(from, |k| k + 1);
        let end = (i + 1..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
        let only = |k: usize| {
            items.at(k).is_some_and(|n| {
                matches!(
                    n.text.as_str(),
                    "only"
                        | "exclusively"
                        | "solely"
                        | "purely"
                        | "nur"
                        | "solo"
                        | "seulement"
                        | "uniquement"
                        | "只"
                        | "just"
                        | "strictly"
                )
            })
        };
        let spare = |k: usize| {
            items.is(k, "cond") && items.list[k].text != "should"
                || items.at(k).is_some_and(|n| {
                    matches!(
                        n.text.as_str(),
                        "needed" | "necessary" | "fallback" | "overflow" | "burst" | "spill" | "otherwise"
                    )
                })
        };
        // "if we have no room buy on the market": what there is none of is the condition.
        let lacks = (start..i).any(|k| items.is(k, "cond") && (k + 1..i).any(|m| items.any(m, &["no", "not"])));
        let value = if lacks {
            "overflow"
        } else if (start..end).any(|k| items.any(k, &["not", "no", "except"]) || ends_use(items, k)) {
            "never"
        } else if (start..end).any(spare) {
            "overflow"
        } else if (start..end).any(only) || (0..items.len()).any(|k| items.is(k, "nowhere.else")) {
            "only"
        } else {
            continue;
        };
        draft.set("market", value, i..i + 1);
        return;
    }
}
