//! How long work lasts, and moments that are said as a time from now.

use serde_json::json;

use crate::draft::Draft;
use crate::items::{Items, Kind};

use super::says_end;

pub(super) fn read(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 1..items.len() {
        let before = if items.punct(i - 1, ':') || items.equals(i - 1) { i.saturating_sub(2) } else { i - 1 };
        if let Some(seconds) = hours_minutes_seconds(items.raw(i)).filter(|_| items.is(before, "limit.time")) {
            draft.set("max_duration_s", json!(seconds), i..i + 1);
        }
    }
    for i in 0..items.len() {
        let Some(seconds) = items.seconds(i).filter(|_| !draft.is_used(i)) else {
            continue;
        };
        // "500m cpu": thousandths of a core.
        if items.is(i + 1, "noun.core") {
            continue;
        }
        let plain_word = items.list[i].kind == Kind::Word;
        let before = |sense: &str| i > 0 && items.is(i - 1, sense);
        let before2 = |sense: &str| {
            i > 1
                && items.any(i - 1, &["noun.limit", "x", "of", "to", "max", "for", "det.the", "since"])
                && items.is(i - 2, sense)
        };
        if plain_word && !before("for") && !before("limit.time") {
            continue;
        }
        if i > 0 && items.any(i - 1, &["every"]) && !before("for") || near_checkpoint(draft, i) {
            continue;
        }
        // "A100 80s" are sizes.
        let behind_gpu = i > 0 && matches!(items.list[i - 1].kind, Kind::Gpu { .. }) && items.is(i, "unit.s");
        if behind_gpu || !lasts(items, i) {
            continue;
        }
        let limit = before("limit.time")
            || before("for")
            || before2("limit.time")
            || before2("for")
            || items.is(i + 1, "max")
            || i > 1 && items.list[i - 1].text == "at" && items.is(i - 2, "act.stop")
            || i > 0 && items.punct(i - 1, ':');
        let limit = limit || is_given(items, i);
        let starts =
            i == 1 || i > 1 && (items.any(i - 2, &["act.run", "notbefore", "det.that"]) || items.ends_clause(i - 2));
        let ahead = items.is(i + 1, "fromnow")
            // "she reads 300 reports in a week": what somebody does, and no start.
            || before("notbefore.in") && !before("limit.time") && (items.list[i - 1].text != "in" || starts || super::concerns(items, i, "not_before"))
            || i > 1 && items.is(i - 1, "x") && items.is(i - 2, "notbefore.in");
        // "it has to be finished in 12 hours"
        let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
        let due = i > 0 && items.list[i - 1].text == "in" && says_end(items, start, i);
        if due
            || before("deadline.in")
            || before2("deadline.in")
            || (before("deadline") || i > 0 && items.list[i - 1].text == "within") && !limit_word(items, i)
        {
            ahead_of_now(draft, "deadline", seconds, i);
        } else if ahead {
            ahead_of_now(draft, "not_before", seconds, i);
        } else if limit || is_bare(items, i) {
            draft.set("max_duration_s", json!(seconds), i..i + 1);
        }
    }
}

/// Whether a duration is how long the work lasts, and not how long somebody has
/// been waiting for it.
fn lasts(items: &Items<'_, '_>, i: usize) -> bool {
    let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    let past = (start..i).any(|k| {
        items.at(k).is_some_and(|n| {
            matches!(
                n.text.as_str(),
                "been"
                    | "was"
                    | "were"
                    | "has"
                    | "have"
                    | "had"
                    | "took"
                    | "since"
                    | "seit"
                    | "waiting"
                    | "waited"
                    | "asked"
                    | "asking"
            )
        })
    });
    let ours = (start..i).any(|k| {
        items.at(k).is_some_and(|n| {
            matches!(n.kind, Kind::Model(_) | Kind::Image | Kind::Gpu { .. })
                || n.senses.iter().any(|s| s == "limit.time" || s == "noun.gpu")
        })
    });
    let end = (i..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    let past = past
        || (i..end).any(|k| {
            items.at(k).is_some_and(|n| {
                matches!(n.text.as_str(), "waiting" | "waited" | "ago" | "finally" | "already" | "later")
            })
        });
    let has_to =
        (start..i).any(|k| items.at(k).is_some_and(|n| n.senses.has("deadline") || n.senses.has("deadline.in")));
    (!past || ours || has_to || is_given(items, i) || says_end(items, start, i)) && !items.is(i + 1, "ago")
}

/// "it has 20 minutes".
fn is_given(items: &Items<'_, '_>, i: usize) -> bool {
    i > 0 && items.list[i - 1].text.split(' ').any(|w| w == "has" || w == "gets") && items.ends_clause(i + 1)
}

fn limit_word(items: &Items<'_, '_>, i: usize) -> bool {
    i > 0 && matches!(items.list[i - 1].text.as_str(), "max" | "at most" | "up to" | "for")
}

fn near_checkpoint(draft: &Draft<'_, '_, '_>, i: usize) -> bool {
    (i.saturating_sub(3)..i).any(|k| draft.items.is(k, "noun.checkpoint"))
        && i > 0
        && (draft.items.any(i - 1, &["every", "to"])
            || draft.items.punct(i - 1, ':')
            || draft.items.is(i - 1, "noun.checkpoint"))
        || draft.items.any(i + 1, &["noun.checkpoint"])
        || draft.items.is(i + 1, "noun.grace")
}

/// A duration that stands alone in its clause, or at the end of the request.
fn is_bare(items: &Items<'_, '_>, i: usize) -> bool {
    let before = i == 0 || !items.any(i - 1, &["every", "since", "ago", "notbefore"]);
    before && !items.any(i + 1, &["ago"])
}

fn ahead_of_now(draft: &mut Draft<'_, '_, '_>, field: &str, seconds: u64, i: usize) {
    if let (Some(now), Some(ms)) = (draft.context.now, i64::try_from(seconds).ok().and_then(|s| s.checked_mul(1_000))) {
        draft.set(field, json!(now.at.plus_ms(ms).to_string()), i..i + 1);
    } else {
        let path = draft.path(field);
        draft.ask(&path, "The present is not known here; at what time exactly?", Vec::new());
        draft.mark(&(i..i + 1));
    }
}

/// "12:00:00" behind a limit of time.
fn hours_minutes_seconds(text: &str) -> Option<u64> {
    let parts: Vec<u64> = text.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    match parts.as_slice() {
        [hours, minutes @ 0..60, seconds @ 0..60] if *hours < 10_000 => Some(hours * 3_600 + minutes * 60 + seconds),
        _ => None,
    }
}
