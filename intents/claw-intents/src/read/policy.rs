//! Priority, preemption, restarts and checkpoints.

use serde_json::json;

use crate::draft::Draft;
use crate::items::Items;

pub(crate) fn read(draft: &mut Draft<'_, '_, '_>) {
    read_priority(draft);
    read_level_apart(draft);
    read_preemptible(draft);
    read_restart(draft);
    read_checkpoint(draft);
}

fn read_priority(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        let Some(item) = items.at(i) else {
            continue;
        };
        if let Some(old) = item.senses.after("prio.") {
            // "prio normal → low"
            let new = items.is(i + 1, "to").then(|| level(items, i + 2)).flatten();
            let end = if new.is_some() { i + 3 } else { i + 1 };
            draft.set("priority", new.unwrap_or(old), i..end);
        } else if items.is(i, "noun.priority") {
            let mut k = i + 1;
            while k < i + 7
                && (items.any(k, &["to", "of", "on", "as", "x", "noun.deployment"])
                    || items.punct(k, ':')
                    || items.punct(k, '=')
                    || items
                        .at(k)
                        .is_some_and(|n| n.known || n.senses.is_empty() && n.kind == crate::items::Kind::Word))
                && level(items, k).is_none()
            {
                k += 1;
            }
            if let Some(level) = level(items, k) {
                draft.set("priority", level, i..k + 1);
            } else if let Some(level) = i.checked_sub(1).and_then(|k| level(items, k)) {
                draft.set("priority", level, i - 1..i + 1);
            }
        }
    }
}

/// "lower the priority of chat, low is enough": a level that stands elsewhere than its noun.
fn read_level_apart(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    if draft.has("priority") || !(0..items.len()).any(|i| items.is(i, "noun.priority")) {
        return;
    }
    let verb = |i: usize| items.is(i, "act.update") && items.any(i + 1, &["det.the", "noun.priority"]);
    let free = |i: &usize| !draft.is_used(*i) && !verb(*i) && !items.any(*i, &["min", "max"]);
    if let Some((i, level)) = (0..items.len()).filter(free).find_map(|i| Some((i, level(items, i)?))) {
        draft.set("priority", level, i..i + 1);
    }
}

fn level(items: &Items<'_, '_>, i: usize) -> Option<&'static str> {
    items.at(i)?.senses.after("level.").or_else(|| items.at(i)?.senses.after("prio."))
}

fn read_preemptible(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        if draft.items.is(i, "preempt.no") {
            draft.set("preemptible", json!(false), i..i + 1);
        } else if draft.items.is(i, "preempt.yes") {
            // "don't let chat be preempted"
            let start = (0..i).rev().find(|k| draft.items.ends_clause(*k)).map_or(0, |k| k + 1);
            let negated = (start..i).any(|k| draft.items.any(k, &["not", "no"]));
            draft.set("preemptible", json!(!negated), i..i + 1);
        }
    }
    if !draft.has("preemptible") {
        read_preempted(draft);
    }
}

/// "don't let anybody preempt it", "it may make room for others": a verb of giving way, and whether
/// its clause allows it.
fn read_preempted(draft: &mut Draft<'_, '_, '_>) {
    const NEVER: &[&str] = &["nobody", "nothing", "none", "noone", "niemand", "nadie", "personne"];
    const MAY: &[&str] = &[
        "may", "can", "could", "ok", "okay", "fine", "allowed", "let", "happy", "willing", "free", "darf", "kann",
        "puede", "peut",
    ];
    let items = draft.items;
    let says = |k: usize, words: &[&str]| items.at(k).is_some_and(|n| n.text.split(' ').any(|w| words.contains(&w)));
    for i in 0..items.len() {
        if !items.is(i, "preempt.verb") || draft.is_used(i) {
            continue;
        }
        let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
        let end = (i..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
        if (start..i).any(|k| items.any(k, &["not", "no"]) || says(k, NEVER)) {
            draft.set("preemptible", json!(false), i..i + 1);
        } else if (start..end).any(|k| says(k, MAY)) {
            draft.set("preemptible", json!(true), i..i + 1);
        }
    }
}

fn read_restart(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        let Some(item) = items.at(i) else {
            continue;
        };
        if let Some(policy) = item.senses.after("restart.") {
            // "on failure" by itself belongs to a restart.
            let bare = !item.text.contains("restart")
                && !item.text.contains("retr")
                && !item.text.contains("neu")
                && policy == "on_failure";
            let near = (i.saturating_sub(8)..i + 8).find(|k| items.is(*k, "noun.restart"));
            let meant =
                !bare || near.is_some() || item.text == "on_failure" || items.lang != crate::lexicon::Lang::English;
            let at = near.filter(|_| bare).unwrap_or(i);
            if meant && !by_hand(items, at) {
                let never = policy == "on_failure" && forbidden(items, at);
                draft.set("restart", if never { "never" } else { policy }, i..i + 1);
            }
        }
    }
    if !draft.has("restart") {
        read_policy(draft);
    }
    if !draft.has("restart") {
        read_condition(draft);
    }
    read_max_restarts(draft);
}

/// "if it falls over try again": what is done over after a failure.
fn read_condition(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let fails = |k: usize| items.any(k, &["sym.crash", "sym.error", "sym.oom"]);
    let condition = |i: &usize| items.is(*i, "cond") && (i + 1..i + 4).any(fails);
    let near = |i: usize| {
        let again = |k: &usize| items.is(*k, "noun.restart");
        (i.saturating_sub(5)..i).find(again).or_else(|| (i + 1..(i + 10).min(items.len())).find(again))
    };
    let found = (0..items.len()).filter(condition).find_map(near);
    if let Some(k) = found.filter(|k| !by_hand(items, *k)) {
        draft.set("restart", if forbidden(items, k) { "never" } else { "on_failure" }, k..k + 1);
    }
}

/// The words of a clause before a place.
fn clause_before<'i>(items: &'i Items<'_, '_>, at: usize) -> impl DoubleEndedIterator<Item = usize> + use<'i> {
    let start = (0..at).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    start..at
}

/// "do not ever try again": what a clause denies before it names it.
fn forbidden(items: &Items<'_, '_>, at: usize) -> bool {
    // "if it does not finish, try again": the condition's own denial.
    clause_before(items, at).rev().take_while(|k| !items.is(*k, "cond")).take(4).any(|k| items.any(k, &["not", "no"]))
}

/// "I will restart it", "we restart it by hand": what people do themselves.
fn by_hand(items: &Items<'_, '_>, at: usize) -> bool {
    const WHO: &[&str] = &["i", "we", "i'll", "we'll", "i'd", "ich", "wir", "je", "nous", "yo", "我", "我们"];
    let end = (at..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    let person = |k: usize| items.at(k).is_some_and(|n| WHO.contains(&n.text.split(' ').next().unwrap_or_default()));
    let wish = |k: usize| items.is(k, "polite") || items.at(k).is_some_and(|n| n.senses.has("cause"));
    clause_before(items, at).rev().take(3).any(|k| person(k) && !wish(k))
        || (at + 1..end).any(|k| items.is(k, "by.hand"))
}

/// "restart policy of chat to always".
fn read_policy(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let set = |i: usize| items.punct(i + 1, '=') || items.punct(i + 1, ':') || items.is(i + 1, "to");
    let named = |i: &usize| items.is(*i, "noun.restart") && (items.list[*i].text.contains("policy") || set(*i));
    let Some(i) = (0..items.len()).find(named) else {
        return;
    };
    for k in i + 1..(i + 8).min(items.len()) {
        let policy = match items.list[k].text.as_str() {
            "always" => "always",
            "never" | "no" => "never",
            "on failure" | "on_failure" | "on-failure" | "onfailure" => "on_failure",
            _ => continue,
        };
        draft.set("restart", policy, k..k + 1);
        return;
    }
}

/// "max 5 times", "up to 3 retries", "retry twice".
fn read_max_restarts(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let about = (0..items.len()).any(|i| {
        items.is(i, "noun.restart") || items.at(i).is_some_and(|item| item.senses.after("restart.").is_some())
    });
    if !about {
        return;
    }
    for i in 0..items.len() {
        let Some(n) = items.count(i).filter(|_| !draft.is_used(i)) else {
            continue;
        };
        // "(5x max)"
        let multiplied = items.list.get(i + 1).is_some_and(|n| n.text == "x")
            && (items.is(i + 2, "max") || items.ends_clause(i + 2) || items.punct(i + 2, ')'));
        // "cores=1 restart=never"
        let equals = i > 1 && (items.punct(i - 1, '=') || items.list[i - 1].text == "=");
        let other = equals && !items.is(i - 2, "noun.restart");
        let times = multiplied
            || !other && items.any(i + 1, &["times", "noun.restart"]) && items.list[i + 1].text != "x"
            || items.at(i + 1).is_some_and(|item| {
                matches!(item.text.as_str(), "mal" | "veces" | "fois" | "次" | "times" | "attempts" | "tries" | "time")
            });
        let worded = matches!(items.list[i].text.as_str(), "twice" | "once" | "thrice" | "zweimal" | "dreimal");
        let left = (i.saturating_sub(3)..i).any(|k| items.is(k, "noun.restart"))
            && (i == 0
                || items.any(i - 1, &["max", "noun.restart", "to", "limit.time"])
                || items.punct(i - 1, ':')
                || items.punct(i - 1, '='));
        let other_unit = items.any(i + 1, &["noun.gpu", "noun.replica", "noun.core", "noun.node"])
            || matches!(items.at(i + 1).map(|n| &n.kind), Some(crate::items::Kind::Gpu { .. }));
        let near = (i.saturating_sub(8)..(i + 6)).any(|k| {
            items.is(k, "noun.restart") || items.at(k).is_some_and(|item| item.senses.after("restart.").is_some())
        });
        if (times || worded || left) && near && !other_unit {
            draft.set("max_restarts", json!(n), i..i + 1);
            let unstated = (0..items.len()).any(|k| items.is(k, "nopolicy"));
            if !draft.has("restart") && !unstated {
                let path = draft.path("restart");
                draft.derive(&path, json!("on_failure"), crate::answer::Source::Default);
                draft.assume(&path, json!("on_failure"), "a number of restarts means that failures are retried");
            }
            return;
        }
    }
}

/// "checkpoint every 30 minutes", "hourly checkpoints".
fn read_checkpoint(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        if !items.is(i, "noun.checkpoint") {
            continue;
        }
        let behind = (i + 1..(i + 7).min(items.len())).find(|k| items.seconds(*k).is_some() && !draft.is_used(*k));
        let before = (i.saturating_sub(4)..i).rev().find(|k| items.seconds(*k).is_some() && !draft.is_used(*k));
        let every = |k: usize| {
            items.any(k, &["hourly", "halfhourly", "daily", "per.hour"])
                || k > 0
                    && (items.any(k - 1, &["every", "each", "to", "of"])
                        || items.punct(k - 1, ':')
                        || k > i && k - i <= 2)
        };
        if let Some(k) = behind.filter(|k| every(*k)).or_else(|| before.filter(|k| every(*k) || i - k == 1)) {
            let seconds = items.seconds(k).unwrap_or_default();
            let (from, to) = (i.min(k), i.max(k) + 1);
            draft.set("checkpoint_interval_s", json!(seconds), from..to);
            continue;
        }
        // "every hour": the unit alone.
        let unit = (i + 1..(i + 6).min(items.len())).find(|k| {
            items.is(*k, "every")
                && items.at(k + 1).is_some_and(|n| {
                    n.kind == crate::items::Kind::Word && n.senses.iter().any(|s| s.starts_with("unit."))
                })
        });
        if let Some(k) = unit {
            let per = match () {
                () if items.is(k + 1, "unit.min") => 60,
                () if items.is(k + 1, "unit.h") => 3_600,
                () if items.is(k + 1, "unit.d") => 86_400,
                () => continue,
            };
            draft.set("checkpoint_interval_s", json!(per), i..k + 2);
        }
    }
}
