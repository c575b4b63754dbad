//! What a query or an alert is narrowed to.

use serde_json::json;

use crate::act::Found;
use crate::draft::Draft;
use crate::items::Kind;
use crate::read::refs::{self, Thing};
use crate::text::Quote;

/// Subjects that are meant wherever they are named.
const PARTICULAR: &[&str] = &["logs", "audit", "costs", "alerts", "events", "market", "metrics"];
/// Subjects that may also be named to narrow another one.
const GENERAL: &[&str] = &["deployments", "workloads", "gpus", "nodes"];

/// What is read, and its item.
pub(super) fn subject(draft: &Draft<'_, '_, '_>, order: Found) -> Option<(&'static str, usize)> {
    let items = draft.items;
    let first = |subject: &str, free: bool| {
        let sense = format!("subj.{subject}");
        (0..items.len()).find(|i| {
            items.is(*i, &sense)
                && (*i != order.at || items.list[*i].text != "print")
                && (!free || !names_filter(draft, *i))
                && !(items.list[*i].known)
        })
    };
    let gpu = items.list.iter().any(|n| matches!(n.kind, Kind::Gpu { .. }));
    if let Some(at) =
        (0..items.len()).find(|i| items.is(*i, "market")).filter(|_| gpu || first("costs", false).is_none())
    {
        return Some(("market", at));
    }
    for subject in PARTICULAR {
        if let Some(at) = first(subject, false) {
            return Some((subject, at));
        }
    }
    if let Some(at) = measured(draft) {
        return Some(("metrics", at));
    }
    // "the last 50 lines from job x-1": what has lines is a log.
    let named = ["workload_id", "deployment"].iter().any(|f| draft.get(&format!("filter.{f}")).is_some());
    if let Some(at) = (0..items.len())
        .find(|i| items.is(*i, "noun.line") && !items.any(*i, &["subj.audit", "subj.events"]))
        .filter(|_| named)
    {
        return Some(("logs", at));
    }
    // "how many replicas does chat have": a deployment has them.
    if let Some(at) =
        (0..items.len()).find(|i| items.is(*i, "noun.replica")).filter(|_| draft.get("filter.deployment").is_some())
    {
        return Some(("deployments", at));
    }
    let plural_first =
        GENERAL.iter().filter_map(|subject| first(subject, true).map(|at| (*subject, at))).min_by_key(|(_, at)| *at);
    let status = first("status", false);
    let narrowed = ["node", "workload_id", "deployment"].iter().any(|f| draft.get(&format!("filter.{f}")).is_some());
    match (plural_first, status) {
        (Some((subject, at)), None) => Some((subject, at)),
        (Some((subject, at)), Some(_)) if !narrowed && items.list[at].text.ends_with('s') => Some((subject, at)),
        (_, Some(at)) => Some(("status", at)),
        (None, None) => by_filter(draft),
    }
}

/// A metric by its name, such as "gpu temperature".
fn measured(draft: &Draft<'_, '_, '_>) -> Option<usize> {
    const NAMED: &[&str] = &[
        "temp",
        "util",
        "usage",
        "memory use",
        "gpu memory",
        "vram",
        "power",
        "latency",
        "p99",
        "error rate",
        "queue depth",
        "queue length",
        "watt",
        "auslastung",
    ];
    let gpus = (0..draft.items.len()).any(|i| draft.items.is(i, "noun.gpu"));
    (0..draft.items.len()).find(|i| {
        draft.items.at(*i).is_some_and(|n| {
            n.kind == Kind::Word
                && n.senses.after("metric.").is_some()
                && (gpus && n.text == "memory" || NAMED.iter().any(|name| n.text.contains(name)))
        })
    })
}

/// "how is node gpu-3?": what the filter is about.
fn by_filter(draft: &Draft<'_, '_, '_>) -> Option<(&'static str, usize)> {
    for (field, subject) in [("workload_id", "workloads"), ("deployment", "deployments"), ("node", "nodes")] {
        let path = format!("filter.{field}");
        if draft.get(&path).is_some() {
            return Some((subject, draft.given_by(&path)?.start));
        }
    }
    let gpu = (0..draft.items.len()).find(|i| matches!(draft.items.at(*i).map(|n| &n.kind), Some(Kind::Gpu { .. })))?;
    Some(("gpus", gpu))
}

/// Whether a noun stands beside a name that narrows: "node gpu-3".
fn names_filter(draft: &Draft<'_, '_, '_>, i: usize) -> bool {
    let given = ["filter.node", "filter.workload_id", "filter.deployment"]
        .iter()
        .filter_map(|f| draft.given_by(f))
        .any(|at| at.start == i + 1 || at.end == i || at.contains(&i));
    given && !draft.items.list[i].text.ends_with('s')
}

/// Names of nodes, workloads and deployments, GPU models and tenants.
pub(super) fn read_names(draft: &mut Draft<'_, '_, '_>, path: &str) {
    for (thing, field) in [(Thing::Node, "node"), (Thing::Deployment, "deployment"), (Thing::Workload, "workload_id")] {
        let path = format!("{path}.{field}");
        if let Some(k) = refs::beside_noun(draft, thing).filter(|k| !is_word_of_query(draft, *k)) {
            let name = match thing {
                Thing::Node => refs::node(draft, k, &path),
                Thing::Deployment => refs::deployment(draft, k, &path),
                Thing::Workload => refs::workload(draft, k, &path),
            };
            if let Some(name) = name {
                draft.set_at(&path, json!(name), k..k + 1);
            }
        }
    }
    if let Some((name, at)) = refs::tenant(draft.items) {
        draft.set_at(&format!("{path}.tenant"), json!(name), at..at + 1);
    } else if let Some(at) = spender(draft) {
        draft.set_at(&format!("{path}.tenant"), json!(refs::name_of(draft.items, at)), at..at + 1);
    }
    read_described(draft, path);
    read_bare_name(draft, path);
    for i in 0..draft.items.len() {
        if let Some(Kind::Gpu { id, .. }) = draft.items.at(i).map(|n| n.kind.clone()) {
            draft.set_at(&format!("{path}.gpu_model"), json!(id), i..i + 1);
        }
    }
}

/// "what did the genomics team spend", "costs of team vision": whose money it was.
fn spender(draft: &Draft<'_, '_, '_>) -> Option<usize> {
    const GROUPS: &[&str] = &["team", "group", "department", "dept", "squad"];
    let items = draft.items;
    let costs = (0..items.len()).any(|i| items.is(i, "subj.costs"));
    let name = |k: &usize| {
        items.at(*k).is_some_and(|n| n.kind == Kind::Word && n.senses.iter().all(|s| s == "n"))
            && !GROUPS.contains(&items.list[*k].text.as_str())
            && !draft.is_used(*k)
    };
    let group = |i: &usize| items.at(*i).is_some_and(|n| GROUPS.contains(&n.text.as_str()));
    let before = |i: usize| i.checked_sub(1).filter(|k| name(k) && *k > 0 && items.is(k - 1, "det.the"));
    let beside = |i: usize| before(i).or_else(|| Some(i + 1).filter(name));
    (0..items.len()).filter(|_| costs).filter(group).find_map(beside)
}

/// "the logs of the qwen job".
fn read_described(draft: &mut Draft<'_, '_, '_>, path: &str) {
    let things = [
        (Thing::Workload, "workload_id", draft.context.workloads.is_empty()),
        (Thing::Deployment, "deployment", draft.context.deployments.is_empty()),
        (Thing::Node, "node", draft.context.nodes.is_empty()),
    ];
    for (thing, field, empty) in things {
        let path = format!("{path}.{field}");
        if empty || draft.get(&path).is_some() {
            continue;
        }
        let items = draft.items;
        let noun = (1..items.len()).find(|i| {
            (items.is(*i, thing.noun()) || items.is(*i, "pron.one") && thing != Thing::Node)
                && !items.list[*i].text.ends_with('s')
                && !draft.is_used(*i)
                && (i.saturating_sub(4)..*i)
                    .any(|k| items.any(k, &["det.the", "det.that"]) && (k..*i).all(|m| !items.ends_clause(m)))
        });
        if let Some(at) = noun
            && let Some(name) = refs::described(draft, thing, &path)
        {
            draft.set_at(&path, json!(name), at..at + 1);
        }
    }
}

/// Words that say what is read rather than name a thing.
fn is_word_of_query(draft: &Draft<'_, '_, '_>, k: usize) -> bool {
    let item = &draft.items.list[k];
    // "logs of deployment search"
    let named = item.text == "search" && k > 0 && draft.items.is(k - 1, "noun.deployment");
    !item.known
        && !named
        && item.senses.iter().any(|s| {
            s.starts_with("subj.") || s.starts_with("metric.") || s.starts_with("noun.") || s.starts_with("act.")
        })
}

/// A name without a noun: "logs of train-7", "error rate on api".
fn read_bare_name(draft: &mut Draft<'_, '_, '_>, path: &str) {
    let items = draft.items;
    let Some(k) = refs::name_like(draft).or_else(|| plain_name(draft)) else {
        return;
    };
    let name = refs::name_of(items, k).to_lowercase();
    // "hx-22's gpus", "gpu utilization on hx-22": what has GPUs is a machine, where nothing else is known.
    let unknown = draft.context.workloads.is_empty() && draft.context.deployments.is_empty();
    let gpus = items.any(k + 1, &["noun.gpu"]) || items.at(k + 1).is_some_and(|n| n.text.starts_with("gpu "));
    let on = k > 0 && items.list[k - 1].text == "on";
    // "which workloads run on ix-3": a place.
    let runs = on && k > 1 && items.any(k - 2, &["act.run", "state.running", "noun.workload"]);
    let metric = refs::metric(items, 0).is_some_and(|(_, metric)| metric.starts_with("gpu_"));
    // "a GPU on r4-07"
    let gpu_on = on && k > 1 && items.is(k - 2, "noun.gpu");
    if unknown && (metric && (gpus || on) || runs || gpu_on) && refs::is_name_like(&items.list[k].text) {
        let path = format!("{path}.node");
        if let Some(value) = refs::node(draft, k, &path) {
            draft.set_at(&path, json!(value), k..k + 1);
        }
        return;
    }
    let begins = |other: &str| other.to_lowercase().starts_with(&name);
    let (field, value) = if draft.context.deployments.iter().any(|d| begins(&d.name)) {
        ("deployment", refs::deployment(draft, k, &format!("{path}.deployment")))
    } else if draft.context.workloads.iter().any(|w| begins(&w.id) || w.name.as_deref().is_some_and(begins)) {
        ("workload_id", refs::workload(draft, k, &format!("{path}.workload_id")))
    } else if draft.context.nodes.iter().any(|n| begins(&n.name)) || crate::items::looks_like_node(draft.catalog, &name)
    {
        ("node", refs::node(draft, k, &format!("{path}.node")))
    } else if items.list[k].senses.is_empty() && !refs::is_name_like(&items.list[k].text) {
        // Where workloads are known and no deployment is, it is none of what there is.
        if draft.context.deployments.is_empty() && !draft.context.workloads.is_empty() {
            ("workload_id", refs::workload(draft, k, &format!("{path}.workload_id")))
        } else {
            ("deployment", refs::deployment(draft, k, &format!("{path}.deployment")))
        }
    } else {
        ("workload_id", refs::workload(draft, k, &format!("{path}.workload_id")))
    };
    if let Some(value) = value {
        draft.set_at(&format!("{path}.{field}"), json!(value), k..k + 1);
    }
}

/// "error rate on api": an unknown word behind a preposition; "portal's p99": before its metric.
fn plain_name(draft: &Draft<'_, '_, '_>) -> Option<usize> {
    let items = draft.items;
    let owns = |k: &usize| {
        let metric = items
            .at(k + 1)
            .is_some_and(|n| n.senses.iter().any(|s| s.starts_with("metric.") || s.starts_with("subj.")));
        metric
            && !draft.is_used(*k)
            && items.at(*k).is_some_and(|n| n.kind == Kind::Word && n.senses.is_empty() && n.text.ends_with("'s"))
    };
    // "how many replicas does oracle have"
    let asked = |k: &usize| {
        *k > 0
            && items.list[*k - 1].text == "does"
            && items.at(*k).is_some_and(|n| n.kind == Kind::Word && n.senses.iter().all(|s| s == "n"))
            && !draft.is_used(*k)
    };
    if let Some(k) = (0..items.len()).find(owns).or_else(|| (0..items.len()).find(asked)) {
        return Some(k);
    }
    (1..items.len()).find(|k| {
        items.at(*k).is_some_and(|n| {
            n.kind == Kind::Word
                && (n.senses.is_empty() || n.corrected)
                && n.text.chars().all(char::is_alphanumeric)
                && n.text.len() > 1
        }) && (items.is(k - 1, "of") || items.is(k - 1, "on"))
            && !draft.is_used(*k)
    })
}

/// Words that logs must contain.
pub(super) fn read_text(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        let item = &draft.items.list[i];
        if let Kind::Quote(Quote::Marks | Quote::Code) = item.kind {
            let text = item.text.trim().to_owned();
            let names =
                i > 0 && draft.items.any(i - 1, &["noun.node", "noun.workload", "noun.deployment", "noun.tenant"]);
            if !names && !text.is_empty() {
                draft.set_at("filter.text", json!(text), i..i + 1);
            }
        }
    }
    if draft.get("filter.text").is_some() {
        return;
    }
    let items = draft.items;
    let marker = |k: usize| {
        items.at(k).is_some_and(|n| {
            matches!(
                n.text.as_str(),
                "containing"
                    | "contain"
                    | "contains"
                    | "mentioning"
                    | "mention"
                    | "mentions"
                    | "matching"
                    | "match"
                    | "grep"
                    | "including"
                    | "enthalten"
                    | "with the word"
                    | "with the text"
                    | "that say"
                    | "saying"
            )
        })
    };
    if let Some(k) = (0..items.len()).find(|k| marker(*k)) {
        let mut from = k + 1;
        while items.any(from, &["for", "det.the"]) {
            from += 1;
        }
        if from < items.len() && !items.ends_clause(from) && !items.any(from, &["on", "of"]) {
            let text = items.raw(from).to_owned();
            draft.set_at("filter.text", json!(text), from..from + 1);
        }
    }
}

/// "in the last 24 hours", "since 2h", "of the last hour", "today".
pub(super) fn read_since(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        if draft.is_used(i) {
            continue;
        }
        if let Some(seconds) = items.seconds(i) {
            draft.set_at("filter.since_s", json!(seconds), i..i + 1);
            return;
        }
        if items.is(i, "since") || items.is(i, "det.the") && i > 0 && items.is(i - 1, "since") {
            let unit = items.at(i + 1).filter(|n| n.kind == Kind::Word).and_then(|n| unit_seconds(n.senses, &n.text));
            if let Some(seconds) = unit {
                draft.set_at("filter.since_s", json!(seconds), i..i + 2);
                return;
            }
        }
    }
    since_named_day(draft);
}

fn unit_seconds(senses: crate::lexicon::Senses, text: &str) -> Option<u64> {
    [("unit.min", 60), ("unit.h", 3_600), ("unit.d", 86_400), ("unit.w", 604_800)]
        .into_iter()
        .find(|(sense, _)| senses.has(sense) && text.chars().count() > 1)
        .map(|(_, seconds)| seconds)
}

/// "today", "since yesterday", "since 14:00": counted from the present.
fn since_named_day(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let Some(now) = draft.context.now else {
        return;
    };
    let minute = now.minute_of_day(now.offset_minutes);
    for i in 0..items.len() {
        let Some(item) = items.at(i) else {
            continue;
        };
        let seconds = if item.senses.has("day.today") {
            Some(minute * 60)
        } else if item.text == "yesterday" {
            Some((minute + 1_440) * 60)
        } else if let Kind::Clock(at) = item.kind {
            let ago = (minute - i64::from(at)).rem_euclid(1_440);
            (i > 0 && items.any(i - 1, &["since", "notbefore"])).then_some(ago * 60)
        } else {
            None
        };
        if let Some(seconds) = seconds.filter(|s| *s > 0) {
            draft.set_at("filter.since_s", json!(seconds), i..i + 1);
            return;
        }
    }
}

/// "the last 100 lines", "top 5", "only 10".
pub(super) fn read_limit(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    for i in 0..items.len() {
        let Some(n) = items.count(i).filter(|n| *n > 0 && !draft.is_used(i)) else {
            continue;
        };
        let counted = items.any(i + 1, &["noun.line"])
            || items.is(i + 1, "noun.limit")
                && items
                    .at(i + 2)
                    .is_some_and(|n| n.senses.has("noun.line") || n.senses.iter().any(|s| s.starts_with("subj.")))
            || items.is(i + 1, "subj.logs")
            || items.at(i + 1).is_some_and(|n| n.senses.iter().any(|s| s.starts_with("subj.")))
            // "20 failed workloads"
            || items.at(i + 1).is_some_and(|n| n.senses.iter().any(|s| s.starts_with("state.")))
                && items.at(i + 2).is_some_and(|n| n.senses.iter().any(|s| s.starts_with("subj.")));
        let led = i > 0
            && (items.any(i - 1, &["noun.limit", "since"])
                || items.punct(i - 1, ':')
                || items.list[i - 1].text == "="
                    && i > 1
                    && matches!(items.list[i - 2].text.as_str(), "tail" | "limit" | "lines")
                || matches!(items.list[i - 1].text.as_str(), "tail" | "head" | "-n" | "first" | "limit"));
        // "audit entries, 50 max"
        let counted =
            counted || items.is(i + 1, "max") && items.ends_clause(i + 2) && (i == 0 || items.ends_clause(i - 1));
        let index = i > 0 && items.any(i - 1, &["noun.gpu", "noun.node"]);
        if (counted || led) && !index {
            draft.set_at("limit", json!(n), i..i + 1);
            return;
        }
    }
}

pub(super) fn read_state(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let subject = draft.get("subject").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let fits: &[&str] = match subject.as_str() {
        "nodes" => &["idle", "ready", "draining", "drained", "offline", "unhealthy", "busy"],
        "gpus" => &["idle", "busy", "unhealthy", "offline"],
        "workloads" => &["running", "pending", "failed", "completed", "stopped", "idle", "paused"],
        "deployments" => &["running", "failed", "paused", "unhealthy", "pending"],
        "alerts" => &["firing"],
        _ => return,
    };
    for state in fits {
        let sense = format!("state.{state}");
        let found = (0..items.len()).find(|i| {
            items.is(*i, &sense)
                && !draft.is_used(*i)
                && !(items.is(*i, "act.run") && i + 1 < items.len() && items.is(i + 1, "on"))
        });
        if let Some(i) = found {
            let negated = i > 0 && items.any(i - 1, &["not", "no"]);
            if !negated {
                draft.set_at("filter.state", json!(state), i..i + 1);
            }
            return;
        }
    }
}

pub(super) fn read_metric(draft: &mut Draft<'_, '_, '_>) {
    if draft.get("subject").and_then(serde_json::Value::as_str) != Some("metrics") {
        return;
    }
    if let Some((at, metric)) = refs::metric(draft.items, 0) {
        draft.set_at("filter.metric", json!(metric), at..at + 1);
    }
}
