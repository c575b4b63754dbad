//! Replicas and autoscaling.

use serde_json::json;

use crate::answer::RefusalCode;
use crate::draft::Draft;
use crate::items::{Items, Kind, whole};

/// "3 replicas", "replicas: 3", "three copies of it".
pub(crate) fn read_replicas(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    // "deploy 3x phi-4"
    for i in 2..items.len() {
        let program = matches!(items.at(i).map(|n| &n.kind), Some(Kind::Model(_) | Kind::Image));
        let times = items.is(i - 1, "times") && matches!(items.list[i - 1].text.as_str(), "x" | "×" | "times");
        if let Some(n) = items.count(i - 2).filter(|_| program && times && !draft.is_used(i - 2)) {
            draft.set("replicas", json!(n), i - 2..i);
        }
    }
    for i in 0..items.len() {
        if !items.is(i, "noun.replica") || items.list[i].text == "count" {
            continue;
        }
        if let Some((at, n)) = count_before(draft, i) {
            if !present(items, at, i) {
                draft.set("replicas", json!(n), at..i + 1);
            }
            continue;
        }
        let mut k = i + 1;
        let limit = i + 10;
        while k < limit
            && (items.any(k, &["to", "of", "on", "noun.deployment", "det.the", "max", "min"]) && items.num(k).is_none()
                || items.punct(k, ':')
                || items.punct(k, '=')
                || items.at(k).is_some_and(|n| {
                    n.kind == Kind::Word
                        && (n.known || n.senses.is_empty() || n.text == "count" || n.senses.has("subj.workloads"))
                })
                || k < items.len() && (items.list[k].masked || draft.is_used(k)))
        {
            k += 1;
        }
        let signed = (i + 1..k)
            .any(|at| items.is(at, "to") || items.punct(at, ':') || items.punct(at, '=') || items.is(at, "of"));
        let unit = matches!(items.at(k + 1).map(|n| &n.kind), Some(Kind::Gpu { .. }))
            || items.any(k + 1, &["noun.gpu", "times", "noun.core"]);
        if signed
            && !unit
            && let Some(n) = items.count(k).filter(|_| !draft.is_used(k))
        {
            draft.set("replicas", json!(n), i..k + 1);
        }
    }
}

/// "we have 6 replicas of search and that is too many, go to 4": what is there now, where another number is wanted.
fn present(items: &Items<'_, '_>, at: usize, noun: usize) -> bool {
    const HAS: &[&str] = &["have", "has", "are", "currently", "there are", "runs", "now", "got", "i have", "we have"];
    let start = (0..at).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    let has = (start..at).any(|k| HAS.contains(&items.list[k].text.as_str()))
        && !(start..at).any(|k| items.any(k, &["to", "polite"]) || items.at(k).is_some_and(|n| n.text == "should"));
    let wanted = |k: usize| items.count(k).is_some() && items.is(k - 1, "to");
    has && (noun + 1..items.len()).any(wanted)
}

fn count_before(draft: &mut Draft<'_, '_, '_>, i: usize) -> Option<(usize, u32)> {
    let items = draft.items;
    let mut k = i;
    while k > 0
        && (items.any(k - 1, &["of", "times", "pron.one"]) && items.num(k - 1).is_none()
            || items.at(k - 1).is_some_and(|n| {
                n.kind == Kind::Word
                    && matches!(
                        n.text.as_str(),
                        "more" | "identical" | "running" | "total" | "live" | "separate" | "parallel"
                    )
            }))
    {
        k -= 1;
    }
    let at = k.checked_sub(1)?;
    if draft.is_used(at) {
        return None;
    }
    if let Some(Kind::Range(low, high)) = items.at(at).map(|n| n.kind.clone()) {
        let path = draft.path("replicas");
        draft.ask(&path, format!("How many replicas: {low} or {high}?"), vec![low.to_string(), high.to_string()]);
        return None;
    }
    // "2 more replicas" is no number of replicas.
    if (at + 1..i).any(|m| items.list[m].text == "more") {
        return None;
    }
    if items.is(at, "det.a") && items.num(at).is_none() && items.list[i].text != "replicas" && at + 1 == i {
        // "à un réplica", "to a single copy"
        let one = items.list[at].text.contains("single") || at > 0 && items.is(at - 1, "to");
        return one.then_some((at, 1));
    }
    let n = items.count(at)?;
    if let Some(other) = at.checked_sub(2).filter(|_| items.is(at - 1, "or")).and_then(|o| items.count(o)) {
        let path = draft.path("replicas");
        draft.ask(&path, format!("How many replicas: {other} or {n}?"), vec![other.to_string(), n.to_string()]);
        draft.mark(&(at - 2..i + 1));
        return None;
    }
    Some((at, n))
}

/// "autoscale between 1 and 6 at 70% utilization".
pub(crate) fn read_autoscale(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let at = (0..items.len()).find(|i| {
        let parted = || items.gaps(*i).iter().any(|(sense, _)| *sense == "act.autoscale");
        items.is(*i, "act.autoscale") || scales_by_itself(items, *i) || parted()
    });
    // "deploy it and let it scale from 1 to 3": of what is started, a range and no step.
    let ranged = |i: usize| {
        let from = (i + 1..(i + 4).min(items.len())).find(|k| items.num(*k).is_some());
        items.is(i, "act.scale") && from.is_some_and(|k| items.is(k + 1, "rangeand") && items.num(k + 2).is_some())
    };
    let at = at.or_else(|| (0..items.len()).find(|i| draft.root == "workload" && ranged(*i)));
    let Some(at) = at.or_else(|| (holds_metric(items) || bounds_both(items)).then_some(0)) else {
        return;
    };
    read_bounds(draft, at);
    read_target(draft);
    let bound = |draft: &Draft<'_, '_, '_>, field: &str| draft.field(field).and_then(serde_json::Value::as_u64);
    if let (Some(min), Some(max)) = (bound(draft, "autoscale.min"), bound(draft, "autoscale.max"))
        && min > max
    {
        draft.refuse(
            RefusalCode::Contradictory,
            format!("at least {min} and at most {max} replicas contradict each other"),
        );
    }
}

/// "min 2, max 5 replicas": both bounds of a number of replicas.
fn bounds_both(items: &Items<'_, '_>) -> bool {
    let bound = |k: usize| bound_of(items, k).filter(|_| items.count(k).is_some());
    let both = |field: &str| (0..items.len()).any(|k| bound(k) == Some(field));
    (0..items.len()).any(|i| items.is(i, "noun.replica")) && both("autoscale.min") && both("autoscale.max")
}

/// "hold the utilization of chat at 70 % with 2 to 6 replicas": a metric, its value, and a range of replicas.
pub(crate) fn holds_metric(items: &Items<'_, '_>) -> bool {
    let Some((_, metric)) = super::refs::metric(items, 0) else {
        return false;
    };
    let range = (1..items.len()).any(|i| {
        let words = i > 2 && items.num(i - 1).is_some() && items.is(i - 2, "rangeand") && items.num(i - 3).is_some();
        let range = matches!(items.at(i - 1).map(|n| &n.kind), Some(Kind::Range(..)));
        items.is(i, "noun.replica") && (words || range)
    });
    // "2 to 6 replicas by queue depth 20", "hold the utilization at 70 %"
    let held = |i: usize| {
        matches!(items.list[i].text.as_str(), "hold" | "keep" | "maintain" | "keeping" | "holding")
            || items.any(i, &["to", "on", "times", "noun.target", "with"])
                && (i + 1..i + 4).any(|k| items.at(k).is_some_and(|n| n.senses.after("metric.").is_some()))
    };
    range && (0..items.len()).any(held) && (0..items.len()).any(|i| super::refs::threshold(items, i, metric).is_some())
}

/// "scale between 2 and 8", "scale from 1 to 5 on p99 latency".
fn scales_by_itself(items: &Items<'_, '_>, i: usize) -> bool {
    if !items.is(i, "act.scale") {
        return false;
    }
    let start = (0..i).rev().find(|k| items.ends_sentence(*k)).map_or(0, |k| k + 1);
    let end = (i..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    let i = start;
    let range = (i..end).any(|k| {
        items.is(k, "between")
            && items.list[k].text != "from"
            && items.num(k + 1).is_some()
            && items.is(k + 2, "rangeand")
            && items.num(k + 3).is_some()
    });
    let metric = (i..end).any(|k| items.at(k).is_some_and(|n| n.senses.after("metric.").is_some()))
        && (i..end).any(|k| {
            let to = items.num(k).is_some() && items.is(k + 1, "rangeand") && items.num(k + 2).is_some();
            matches!(items.at(k).map(|n| &n.kind), Some(Kind::Range(..))) || items.is(k, "between") || to
        });
    range || metric
}

fn read_bounds(draft: &mut Draft<'_, '_, '_>, at: usize) {
    let items = draft.items;
    for k in 0..items.len() {
        if draft.is_used(k) {
            continue;
        }
        let metric_unit = items.any(k + 1, &["unit.percent", "unit.ms"]);
        match items.at(k).map(|n| n.kind.clone()) {
            Some(Kind::Range(low, high)) if !metric_unit && k + 8 > at => {
                draft.set("autoscale.min", json!(whole(low)), k..k + 1);
                draft.set("autoscale.max", json!(whole(high)), k..k + 1);
            }
            // "1 min 6 max" is no minute.
            Some(Kind::Qty(low))
                if items.is(k, "unit.min")
                    && items.list[k].text.ends_with("min")
                    && items.num(k + 1).is_some()
                    && items.is(k + 2, "max") =>
            {
                draft.set("autoscale.min", json!(whole(low)), k..k + 1);
            }
            Some(Kind::Num(low)) => {
                let between = k > 0 && items.any(k - 1, &["between", "from", "to"]) || k > 1;
                let high = items.num(k + 2).filter(|_| items.is(k + 1, "rangeand") && between && !draft.is_used(k + 2));
                let gpu =
                    matches!(items.at(k + 3).map(|n| &n.kind), Some(Kind::Gpu { .. })) || items.is(k + 3, "noun.gpu");
                if let Some(high) =
                    high.filter(|_| !gpu && !items.is(k + 1, "and") || k > 0 && items.is(k - 1, "between") && !gpu)
                {
                    draft.set("autoscale.min", json!(whole(low)), k..k + 1);
                    draft.set("autoscale.max", json!(whole(high)), k + 2..k + 3);
                } else if let Some(field) = bound_of(items, k) {
                    draft.set(field, json!(whole(low)), k..k + 1);
                }
            }
            _ => {}
        }
    }
}

/// Whether a number is said to be the least or the most.
fn bound_of(items: &Items<'_, '_>, k: usize) -> Option<&'static str> {
    if matches!(items.at(k + 1).map(|n| &n.kind), Some(Kind::Gpu { .. }))
        || items.any(k + 1, &["noun.gpu", "times", "noun.core", "noun.port", "unit.percent"])
    {
        return None;
    }
    let mut j = k;
    while j > 0
        && (items.punct(j - 1, ':') || items.list[j - 1].text == "=" || items.any(j - 1, &["noun.replica", "of"]))
    {
        j -= 1;
    }
    let before = j.checked_sub(1)?;
    // "keep the queue below 10": a bound of the metric.
    let metric = |m: usize| items.at(m).is_some_and(|n| n.senses.after("metric.").is_some());
    if items.any(before, &["cmp.lt", "cmp.gt"]) && (before.saturating_sub(5)..before).any(metric) {
        return None;
    }
    let worded = items.list[before].kind == Kind::Word;
    if worded && items.is(before, "min") && !items.is(before, "max") {
        return Some("autoscale.min");
    }
    if items.is(before, "max") {
        return Some("autoscale.max");
    }
    if items.is(k + 1, "min") && items.list[k + 1].text.starts_with("min") {
        return Some("autoscale.min");
    }
    // "2 at least, 6 at most"
    let after = k + 1 + usize::from(items.is(k + 1, "noun.replica"));
    let behind = |sense: &str, words: &[&str]| {
        items.is(after, sense) && words.contains(&items.list[after].text.as_str()) && items.num(after + 1).is_none()
    };
    if behind("min", &["at least", "at the least", "at minimum", "or more", "minimally", "at a minimum"]) {
        return Some("autoscale.min");
    }
    let most = behind("max", &["at most", "at the most", "at maximum", "tops", "maximally", "at a maximum", "or less"]);
    (most || items.is(k + 1, "max") && items.list[k + 1].text.starts_with("max")).then_some("autoscale.max")
}

/// "at 70% gpu utilization", "target queue depth 20", "on p99 latency of 400 ms".
fn read_target(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let Some((at, metric)) = super::refs::metric(items, 0) else {
        // "at a target of 70": of a metric that is not said.
        let target = (0..items.len()).find(|k| items.is(*k, "noun.target"));
        if let Some((k, n)) = target.and_then(|k| Some((k, items.num(k + 1)?))) {
            draft.set("autoscale.target", json!(n), k..k + 2);
        }
        return;
    };
    draft.set("autoscale.metric", metric, at..at + 1);
    // The nearest free number: behind the metric first, then before it.
    let value = |k: usize| -> Option<f64> {
        // "at 70% utilization, 1 T4 each": a number of something else.
        let counts = matches!(items.at(k + 1).map(|n| &n.kind), Some(Kind::Gpu { .. }))
            || items.any(k + 1, &["noun.gpu", "noun.replica", "noun.core", "times"]);
        if draft.is_used(k) || counts {
            return None;
        }
        super::refs::threshold(items, k, metric)
    };
    let behind = (at + 1..(at + 6).min(items.len())).find(|k| value(*k).is_some());
    let before = (at.saturating_sub(5)..at).rev().find(|k| value(*k).is_some());
    if let Some(k) = behind.or(before)
        && let Some(n) = value(k)
    {
        draft.set("autoscale.target", json!(n), k..k + 1);
    }
}
