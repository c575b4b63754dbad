//! To how many replicas: a number, a difference from those that are there, or a multiple of them.

use serde_json::json;

use crate::act::Found;
use crate::draft::Draft;
use crate::items::{Items, Kind};

/// Words by which a number of replicas is added.
const ADDS: &[&str] = &[
    "add",
    "more",
    "additional",
    "extra",
    "another",
    "further",
    "mehr",
    "weitere",
    "más",
    "plus",
    "añade",
    "agrega",
    "ajoute",
    "ajouter",
    "füge",
    "增加",
    "添加",
];
/// Words by which a number of replicas is taken away.
const TAKES: &[&str] = &[
    "fewer",
    "less",
    "remove",
    "weniger",
    "menos",
    "moins",
    "drop",
    "lose",
    "away",
    "away from",
    "shed",
    "off",
    "quita",
    "elimina",
    "retire",
    "enlève",
    "entferne",
    "减少",
];
/// Words that take away.
const DOWN: &[&str] = &["down", "reduce", "decrease", "shrink", "scale down", "lower", "scale in", "downscale"];

/// A word that says that a number is a difference, and whether it adds or takes away.
fn difference(draft: &Draft<'_, '_, '_>) -> Option<(i64, usize)> {
    let items = draft.items;
    let word = |words: &[&str]| {
        (0..items.len()).find(|i| items.at(*i).is_some_and(|n| words.contains(&n.text.as_str())) && !draft.is_used(*i))
    };
    let counted = |at: usize| {
        (at.saturating_sub(2)..at + 3).any(|k| k != at && items.count(k).is_some())
            || (at + 1..at + 3).any(|k| items.is(k, "noun.replica"))
    };
    let more = word(ADDS).filter(|at| counted(*at)).map(|at| (1_i64, at));
    let counted_anywhere = (0..items.len()).any(|k| items.is(k, "noun.replica"));
    let fewer = word(TAKES)
        .filter(|at| counted(*at) || items.list[*at].text.starts_with("away") && counted_anywhere)
        .map(|at| (-1_i64, at))
        .or_else(|| word(&["minus"]).filter(|at| items.count(at + 1).is_some()).map(|at| (-1_i64, at)));
    let minus = |at: usize| items.list.get(at + 1).is_some_and(|n| n.text == "minus" || n.kind == Kind::Punct('-'));
    let down = |at: usize| minus(at) || items.list.iter().any(|n| DOWN.contains(&n.text.as_str()));
    let by = word(&["by", "um"]).filter(|at| items.count(at + 1).is_some() || items.count(at + 2).is_some());
    by.map(|at| (if down(at) { -1_i64 } else { 1 }, at)).or(more).or(fewer)
}

/// "double chat, it has 3 replicas now": how many there are, as the words tell, and the number's item.
fn told_replicas(items: &Items<'_, '_>) -> Option<(usize, u32)> {
    const HAS: &[&str] = &["has", "has got", "runs", "hat", "läuft mit", "tiene", "a", "tourne avec"];
    const ARE: &[&str] = &["are", "is at", "at", "with", "have", "on"];
    const NOW: &[&str] = &["currently", "right now", "today", "at the moment", "now", "as of now", "so far", "already"];
    let text = |k: usize| items.at(k).map_or("", |n| n.text.as_str());
    let now = |k: usize| NOW.contains(&text(k)) || items.is(k, "by.now");
    (1..items.len()).find_map(|k| {
        let n = items.count(k)?;
        let counts = items.is(k + 1, "noun.replica") || items.ends_clause(k + 1) || now(k + 1);
        let tells = HAS.contains(&text(k - 1)) && !items.any(k.saturating_sub(2), &["act.update", "polite"])
            || now(k - 1) && k > 1
            // "we have 3 replicas now", "there are 3 right now"
            || ARE.contains(&text(k - 1)) && (k + 1..k + 3).any(now);
        (counts && tells).then_some((k, n))
    })
}

/// "by a factor of three", "x3", "by 50 %": a multiple of what is there.
fn multiple(items: &Items<'_, '_>) -> Option<(f64, usize)> {
    let text = |k: usize| items.at(k).map_or("", |n| n.text.as_str());
    let ends = |k: usize| items.ends_clause(k) || items.is(k, "polite");
    (1..items.len()).find_map(|k| {
        if let Some(percent) = items.qty(k, "unit.percent").filter(|_| matches!(text(k - 1), "by" | "um")) {
            let down = items.list.iter().any(|n| DOWN.contains(&n.text.as_str()));
            return Some((1.0 + if down { -percent } else { percent } / 100.0, k));
        }
        let n = items.num(k)?;
        let factor =
            (k.saturating_sub(3)..k).any(|m| text(m).split(' ').any(|word| word == "factor" || word == "faktor"));
        let times = items.is(k - 1, "times") && text(k - 1) != "by" && ends(k + 1)
            || items.is(k + 1, "times") && text(k + 1) != "by" && ends(k + 2);
        (factor || times).then_some((n, k))
    })
}

/// "add one replica, no, two": the number behind a correction.
fn corrected(items: &Items<'_, '_>, from: usize) -> Option<usize> {
    let at = (from + 1..items.len()).find(|k| items.corrects(*k))?;
    (at + 1..at + 4).find(|k| items.count(*k).is_some())
}

/// "add two replicas", "double it": from the replicas that the context tells, else a question.
pub(super) fn relative(draft: &mut Draft<'_, '_, '_>) -> bool {
    let items = draft.items;
    let word = |words: &[&str]| {
        (0..items.len()).find(|i| items.at(*i).is_some_and(|n| words.contains(&n.text.as_str())) && !draft.is_used(*i))
    };
    let factor = [
        (2.0, ["double", "twice", "verdopple", "duplica", "double the"].as_slice()),
        (3.0, ["triple", "thrice"].as_slice()),
        (4.0, ["quadruple"].as_slice()),
        (0.5, ["halve", "half", "halbiere", "in half"].as_slice()),
    ]
    .into_iter()
    .find_map(|(f, words)| word(words).map(|at| (f, at)))
    .or_else(|| (0..items.len()).find(|i| items.is(*i, "frac.0.5")).map(|at| (0.5, at)))
    .or_else(|| multiple(items).filter(|(_, at)| !draft.is_used(*at)));
    let told = told_replicas(items);
    // What is told counts nothing that is wanted.
    if let Some((k, _)) = told.filter(|_| factor.is_some() || difference(draft).is_some()) {
        draft.mark(&(k..k + 1));
    }
    let number = |at: usize| {
        (at.saturating_sub(3)..(at + 4).min(items.len())).find(|k| items.count(*k).is_some() && !draft.is_used(*k))
    };
    let difference = difference(draft);
    let name = draft.get("deployment").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let known = draft.context.deployments.iter().find(|d| d.name == name).and_then(|d| d.replicas);
    let told = told.map(|(_, n)| n);
    // Two different numbers of replicas: neither is sure.
    let present = if known.is_some() && told.is_some() && known != told { None } else { known.or(told) };
    // "double … no, put it at 5": what a correction takes back.
    let factor = factor.filter(|(_, at)| {
        !(at + 1..items.len()).any(|k| items.corrects(k) && (k..items.len()).any(|m| items.count(m).is_some()))
    });
    // "marketing expects triple traffic, let's have it at 9 replicas": what is counted is wanted.
    let counted = (1..items.len()).any(|k| {
        let of = k > 1 && items.is(k - 2, "det.the");
        items.is(k, "noun.replica") && items.count(k - 1).is_some() && !of && !draft.is_used(k - 1)
    });
    let factor = factor.filter(|_| !counted);
    let wanted = if let Some((f, at)) = factor {
        present.map(|n| (f64::from(n) * f, at))
    } else if let Some((sign, at)) = difference {
        let one = items.list[at].text == "another"
            || (at..items.len()).any(|k| items.is(k, "noun.replica") && items.list[k].text.starts_with('a'));
        let to = (0..items.len()).any(|k| items.is(k, "to") && items.num(k + 1).is_some());
        if to {
            return false;
        }
        let by = matches!(items.list[at].text.as_str(), "by" | "um");
        let behind = || (at + 1..at + 3).find(|k| by && items.count(*k).is_some() && !draft.is_used(*k));
        let far = || (0..items.len()).find(|k| items.count(*k).is_some() && !draft.is_used(*k));
        let number =
            behind().or_else(|| number(at)).or_else(|| items.list[at].text.starts_with("away").then(far).flatten());
        let again = number.and_then(|from| corrected(items, from));
        match again.or(number).and_then(|k| items.count(k)).or(one.then_some(1)) {
            Some(n) => present.map(|p| (f64::from(p) + if sign < 0 { -f64::from(n) } else { f64::from(n) }, at)),
            None => None,
        }
    } else {
        return false;
    };
    match wanted.and_then(|(n, at)| crate::items::whole(n).map(|n| (n, at))) {
        Some((n, at)) => {
            draft.set_at("replicas", json!(n), at..at + 1);
            draft.assume("replicas", json!(n), format!("{name} has {} replicas now", present.unwrap_or_default()));
        }
        None => draft.ask("replicas", "To how many replicas?", Vec::new()),
    }
    true
}

/// "scale X to 5": a number that counts nothing else.
pub(super) fn read_count(draft: &mut Draft<'_, '_, '_>, order: Found) {
    let items = draft.items;
    let free = |k: usize| items.count(k).filter(|_| !draft.is_used(k));
    let to = (0..items.len()).find(|k| *k > 0 && free(*k).is_some() && items.is(k - 1, "to"));
    let any = (order.at + 1..items.len()).find(|k| free(*k).is_some());
    if let Some(Kind::Range(low, high)) =
        (0..items.len()).find_map(|k| items.at(k).map(|n| n.kind.clone()).filter(|n| matches!(n, Kind::Range(..))))
    {
        draft.ask("replicas", format!("How many replicas: {low} or {high}?"), vec![low.to_string(), high.to_string()]);
        return;
    }
    let Some(k) = to.or(any) else {
        return;
    };
    let n = free(k).unwrap_or_default();
    // "by 2", "2 more": a difference, not a number of replicas.
    let relative = k > 0 && (items.list[k - 1].text == "by" || items.list[k - 1].text == "um")
        || items
            .at(k + 1)
            .is_some_and(|m| matches!(m.text.as_str(), "more" | "fewer" | "less" | "extra" | "weitere" | "mehr"));
    if relative {
        return;
    }
    if items.is(k + 1, "or")
        && let Some(other) = free(k + 2)
    {
        draft.ask("replicas", format!("How many replicas: {n} or {other}?"), vec![n.to_string(), other.to_string()]);
        return;
    }
    draft.set_at("replicas", json!(n), k..k + 1);
}
