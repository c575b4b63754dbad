//! Diagnose, query and alert: what is, and what happens.

use serde_json::json;

use crate::act::Found;
use crate::answer::Source;
use crate::draft::Draft;
use crate::items::{Kind, looks_like_node};
use crate::lexicon::Lexicon;
use crate::read::refs::{self, Thing};
use crate::text::Words;

use super::action;

mod filter;

/// Symptoms, the most telling first.
const SYMPTOMS: &[&str] = &["oom", "overheating", "unreachable", "pending", "idle", "crash", "slow", "error"];

pub(super) fn diagnose(draft: &mut Draft<'_, '_, '_>, order: Found) {
    action(draft, "diagnose", order);
    target(draft);
    let items = draft.items;
    let said = SYMPTOMS.iter().find_map(|symptom| Some((*symptom, said_at(draft, symptom)?)));
    // "the deployment is down with crash loops": only a machine cannot be reached.
    let machine = matches!(draft.get("target.kind").and_then(serde_json::Value::as_str), Some("node" | "gpu"));
    let told = ["crash", "slow", "error"].iter().find_map(|symptom| Some((*symptom, said_at(draft, symptom)?)));
    let said = if machine { said } else { said.filter(|(s, _)| *s != "unreachable").or(told).or(said) };
    // A log tells more than "it failed".
    let vague = said.is_none_or(|(symptom, _)| matches!(symptom, "crash" | "error"));
    if let Some((symptom, i)) = quoted(draft).filter(|(symptom, _)| vague && (*symptom == "oom" || said.is_none())) {
        draft.set_at("symptom", json!(symptom), i..i + 1);
        return;
    }
    if let Some((symptom, i)) = said {
        draft.set_at("symptom", json!(symptom), i..i + 1);
        return;
    }
    if let Some(i) = (0..items.len()).find(|i| items.qty(*i, "unit.celsius").is_some_and(|c| c >= 60.0)) {
        draft.set_at("symptom", json!("overheating"), i..i + 1);
        return;
    }
    // "answers with 503": what a server says that fails.
    let fails =
        |i: &usize| items.count(*i).is_some_and(|n| (500..600).contains(&n)) && items.list[*i].senses.is_empty();
    if let Some(i) = (0..items.len()).find(fails).filter(|_| !machine) {
        draft.set_at("symptom", json!("error"), i..i + 1);
        return;
    }
    if let Some(i) = (0..items.len()).find(|i| items.qty(*i, "unit.percent") == Some(0.0)) {
        draft.set_at("symptom", json!("idle"), i..i + 1);
    }
}

/// Where a symptom is said, in one phrase or in two parts ("won't … start").
fn said_at(draft: &Draft<'_, '_, '_>, symptom: &str) -> Option<usize> {
    let items = draft.items;
    let sense = format!("sym.{symptom}");
    let whole = (0..items.len()).find(|i| items.is(*i, &sense) && !draft.is_used(*i));
    whole.or_else(|| (0..items.len()).find(|i| items.gaps(*i).iter().any(|(said, _)| *said == sense)))
}

/// The most telling symptom in quoted text, such as a log, and the quote's item.
fn quoted(draft: &Draft<'_, '_, '_>) -> Option<(&'static str, usize)> {
    let items = draft.items;
    let lexicon = Lexicon::get();
    let says = |text: &str, symptom: &str| {
        let sense = format!("sym.{symptom}");
        let tokens = Words::new(text).tokens;
        (0..tokens.len()).any(|k| lexicon.at(&tokens, k, items.lang).is_some_and(|(_, s)| s.has(&sense)))
    };
    SYMPTOMS.iter().find_map(|symptom| {
        let at = (0..items.len()).find(|i| {
            items
                .at(*i)
                .is_some_and(|n| matches!(n.kind, Kind::Quote(_)) && says(&n.text, symptom) && !draft.is_used(*i))
        })?;
        Some((*symptom, at))
    })
}

fn target(draft: &mut Draft<'_, '_, '_>) {
    if gpu_index(draft) {
        return;
    }
    for (thing, kind) in [(Thing::Deployment, "deployment"), (Thing::Workload, "workload"), (Thing::Node, "node")] {
        if let Some(k) = refs::beside_noun(draft, thing) {
            set_target(draft, thing, kind, k);
            return;
        }
    }
    if let Some(k) =
        refs::name_like(draft).or_else(|| (0..draft.items.len()).find(|i| draft.items.at(*i).is_some_and(|n| n.known)))
    {
        let (thing, kind) = kind_of_name(draft, k);
        set_target(draft, thing, kind, k);
        return;
    }
    described_target(draft);
}

/// "the llama deployment", "that job"; else the whole cluster.
fn described_target(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let says = |sense: &str| (0..items.len()).find(|i| items.is(*i, sense));
    for (thing, kind) in [(Thing::Deployment, "deployment"), (Thing::Workload, "workload"), (Thing::Node, "node")] {
        let Some(at) = says(thing.noun()).filter(|i| !items.list[*i].text.ends_with('s')) else {
            continue;
        };
        let empty = match thing {
            Thing::Deployment => draft.context.deployments.is_empty(),
            Thing::Workload => draft.context.workloads.is_empty(),
            Thing::Node => draft.context.nodes.is_empty(),
        };
        if !empty {
            if let Some(name) = refs::described(draft, thing, "target.id") {
                draft.set_at("target.kind", json!(kind), at..at + 1);
                draft.set_at("target.id", json!(name), at..at + 1);
            }
            return;
        }
        // "portal gives 503s, why? (deployment)": the noun stands by itself, the name begins the request.
        let alone = at > 0
            && items.ends_clause(at - 1) | items.punct(at - 1, '(')
            && (items.ends_clause(at + 1) || items.punct(at + 1, ')'));
        let head = (0..at).find(|k| !items.any(*k, &["polite", "greeting"]) && !items.ends_clause(*k));
        if let Some(k) =
            head.filter(|k| alone && items.at(*k).is_some_and(|n| n.kind == Kind::Word && n.senses.is_empty()))
        {
            set_target(draft, thing, kind, k);
            return;
        }
        if at > 0 && items.any(at - 1, &["det.the", "det.a"]) || at > 1 && items.any(at - 2, &["det.the", "det.that"]) {
            draft.ask("target.id", format!("Which {kind} is meant?"), Vec::new());
            return;
        }
    }
    if says("noun.cluster").is_none() && says("pron.one").is_some() && described_one(draft) {
        return;
    }
    if let Some(at) = says("noun.cluster") {
        draft.set_unmarked("target.kind", json!("cluster"), at..at + 1);
    } else {
        draft.derive("target.kind", json!("cluster"), Source::Default);
        draft.assume("target.kind", json!("cluster"), "nothing in particular is named: the whole cluster is meant");
    }
}

/// "the failed one": of the lists that are known, the one in which it is found.
fn described_one(draft: &mut Draft<'_, '_, '_>) -> bool {
    for (thing, kind) in [(Thing::Workload, "workload"), (Thing::Deployment, "deployment"), (Thing::Node, "node")] {
        let asked = draft.questions.len();
        if let Some(name) = refs::described(draft, thing, "target.id") {
            draft.questions.truncate(asked);
            draft.derive("target.kind", json!(kind), Source::Context);
            draft.derive("target.id", json!(name), Source::Context);
            return true;
        }
    }
    !draft.questions.is_empty()
}

fn set_target(draft: &mut Draft<'_, '_, '_>, thing: Thing, kind: &str, k: usize) {
    let name = match thing {
        Thing::Node => refs::node(draft, k, "target.id"),
        Thing::Deployment => refs::deployment(draft, k, "target.id"),
        Thing::Workload => refs::workload(draft, k, "target.id"),
    };
    if let Some(name) = name {
        draft.set_at("target.kind", json!(kind), k..k + 1);
        draft.set_at("target.id", json!(name), k..k + 1);
    }
}

/// What a bare name is the name of: what the context says, else what it looks like.
fn kind_of_name(draft: &Draft<'_, '_, '_>, k: usize) -> (Thing, &'static str) {
    let name = refs::name_of(draft.items, k).to_lowercase();
    let begins = |other: &str| other.to_lowercase().starts_with(&name);
    if draft.context.deployments.iter().any(|d| begins(&d.name)) {
        return (Thing::Deployment, "deployment");
    }
    if draft.context.workloads.iter().any(|w| begins(&w.id) || w.name.as_deref().is_some_and(begins)) {
        return (Thing::Workload, "workload");
    }
    if draft.context.nodes.iter().any(|n| begins(&n.name)) || looks_like_node(draft.catalog, &name) {
        return (Thing::Node, "node");
    }
    // Only a deployment has revisions.
    let revised = |i: usize| draft.items.is(i, "noun.revision") && draft.items.count(i + 1).is_some();
    if (0..draft.items.len()).any(revised) && !(0..draft.items.len()).any(|i| draft.items.is(i, "noun.workload")) {
        return (Thing::Deployment, "deployment");
    }
    (Thing::Workload, "workload")
}

/// "GPU 3 on node gpu-02".
fn gpu_index(draft: &mut Draft<'_, '_, '_>) -> bool {
    let items = draft.items;
    for i in 0..items.len() {
        if !items.is(i, "noun.gpu") {
            continue;
        }
        let mut k = i + 1;
        while items.punct(k, '#')
            || items.punct(k, ':')
            || items.at(k).is_some_and(|n| matches!(n.text.as_str(), "number" | "nr" | "no" | "index"))
        {
            k += 1;
        }
        let at = items.count(k).map(|n| (k, n));
        let Some((k, index)) =
            at.or_else(|| i.checked_sub(1).and_then(|k| ordinal(&items.list[k].text).map(|n| (k, n))))
        else {
            continue;
        };
        draft.set_at("target.kind", json!("gpu"), i..i + 1);
        draft.set_at("target.index", json!(index), k..k + 1);
        let node = refs::beside_noun(draft, Thing::Node).or_else(|| refs::name_like(draft));
        match node.and_then(|n| refs::node(draft, n, "target.id").map(|name| (n, name))) {
            Some((n, name)) => draft.set_at("target.id", json!(name), n..n + 1),
            None if draft.questions.is_empty() => draft.ask("target.id", "On which node is that GPU?", Vec::new()),
            None => {}
        }
        return true;
    }
    false
}

/// "the third GPU" is number 2: GPUs count from 0; only the figure form is read.
fn ordinal(_text: &str) -> Option<u32> {
    None
}

pub(super) fn query(draft: &mut Draft<'_, '_, '_>, order: Found) {
    action(draft, "query", order);
    filter::read_text(draft);
    filter::read_since(draft);
    filter::read_limit(draft);
    filter::read_names(draft, "filter");
    let subject = filter::subject(draft, order);
    match subject {
        Some((subject, at)) => draft.set_unmarked("subject", json!(subject), at..at + 1),
        None => draft.ask("subject", "What shall be shown?", Vec::new()),
    }
    filter::read_state(draft);
    filter::read_metric(draft);
}

pub(super) fn alert(draft: &mut Draft<'_, '_, '_>, order: Found) {
    action(draft, "alert", order);
    filter::read_names(draft, "filter");
    let items = draft.items;
    let failing = || (0..items.len()).find(|i| items.is(*i, "sym.error")).filter(|_| super::choose::share_fails(items));
    let found = refs::metric(items, 0)
        .filter(|(at, _)| !draft.is_used(*at))
        .or_else(|| metric_by_unit(draft))
        .or_else(|| failing().map(|at| (at, "error_rate_percent")));
    let Some((at, metric)) = found else {
        draft.ask("metric", "Which metric shall be watched?", Vec::new());
        return;
    };
    draft.set_unmarked("metric", json!(metric), at..at + 1);
    if metric == "node_unreachable" {
        name_is_node(draft);
        read_for(draft);
        return;
    }
    let op = |sense: &str| (0..items.len()).filter(|i| items.is(*i, sense)).max_by_key(|i| strength(draft, *i, metric));
    let (above, below) = (op("cmp.gt"), op("cmp.lt"));
    let comparison = match (above, below) {
        (Some(a), Some(b)) if strength(draft, b, metric) > strength(draft, a, metric) => Some((b, "<")),
        (Some(a), _) => Some((a, ">")),
        (None, Some(b)) => Some((b, "<")),
        (None, None) => None,
    };
    let from = comparison.map_or(at, |(k, _)| k);
    // "p99 over 2 seconds": what is compared, and not how long it lasts.
    let compared = |k: usize| metric == "latency_p99_ms" && k > 0 && items.any(k - 1, &["cmp.gt", "cmp.lt"]);
    let value = |k: &usize| {
        !draft.is_used(*k) && refs::threshold(items, *k, metric).is_some() && (compared(*k) || !is_for(draft, *k))
    };
    // "warn me at 83 degrees": the value's own unit named the metric.
    let behind = comparison.is_none().then_some(at).filter(value).or_else(|| (from + 1..items.len()).find(value));
    let Some(k) = behind.or_else(|| (0..from).rev().find(value)) else {
        draft.ask("threshold", format!("At which value of {metric}?"), Vec::new());
        return;
    };
    let n = refs::threshold(items, k, metric).unwrap_or_default();
    draft.set_at("threshold", json!(n), k..k + 1);
    // "p99 must stay under 800 ms, alert otherwise": the rule is broken on the other side.
    let comparison = comparison.map(|(at, op)| match op {
        "<" if broken_otherwise(draft, at) => (at, ">"),
        ">" if broken_otherwise(draft, at) => (at, "<"),
        op => (at, op),
    });
    match comparison {
        Some((at, op)) => draft.set_at("op", json!(op), at..at + 1),
        None if items.list[k].text.ends_with('+') => draft.set_at("op", json!(">"), k..k + 1),
        None => draft.set_at("op", json!(if is_low(draft) { "<" } else { ">" }), at..at + 1),
    }
    crate::read::mask::read_bare_corrections(draft);
    read_for(draft);
    // "for 2 minutes, no, 3 minutes"
    crate::read::mask::read_bare_corrections(draft);
}

/// Whether a comparison tells what must be, and the alert is for when it is not.
fn broken_otherwise(draft: &Draft<'_, '_, '_>, at: usize) -> bool {
    const MUST: &[&str] = &["must", "should", "has to", "needs to", "shall", "stay", "stays", "remain", "keep"];
    const ELSE: &[&str] =
        &["otherwise", "if not", "else", "or else", "if it isn't", "if it doesn't", "when it doesn't"];
    let items = draft.items;
    let says = |k: usize, words: &[&str]| items.list.get(k).is_some_and(|n| words.contains(&n.text.as_str()));
    (at.saturating_sub(3)..at).any(|k| says(k, MUST)) && (at + 1..items.len()).any(|k| says(k, ELSE))
}

/// What cannot be reached is a node, whatever its name looks like.
fn name_is_node(draft: &mut Draft<'_, '_, '_>) {
    let noun = (0..draft.items.len()).any(|i| draft.items.is(i, "noun.workload"));
    let named = draft.get("filter.workload_id").cloned().zip(draft.given_by("filter.workload_id"));
    if let Some((name, at)) = named.filter(|_| !noun && draft.context.workloads.is_empty()) {
        draft.forget("filter.workload_id");
        draft.replace("filter.node", name, at);
    }
}

/// A comparison right before a value counts most.
fn strength(draft: &Draft<'_, '_, '_>, i: usize, metric: &str) -> u32 {
    let items = draft.items;
    let next = (i + 1..i + 4).find(|k| refs::threshold(items, *k, metric).is_some());
    match next {
        Some(k) => 10 - u32::try_from(k - i).unwrap_or(0),
        None => u32::from(items.list[i].text.contains(' ')),
    }
}

/// "idle at 10%": watched from below.
fn is_low(draft: &Draft<'_, '_, '_>) -> bool {
    draft.items.list.iter().any(|n| {
        matches!(
            n.text.as_str(),
            "drops" | "falls" | "idle" | "idles" | "low" | "drop" | "fall" | "underutilized" | "sinks"
        )
    })
}

fn metric_by_unit(draft: &Draft<'_, '_, '_>) -> Option<(usize, &'static str)> {
    let items = draft.items;
    (0..items.len()).find_map(|k| {
        if items.qty(k, "unit.celsius").is_some() || items.qty(k, "unit.fahrenheit").is_some() {
            Some((k, "gpu_temperature_celsius"))
        } else if items.qty(k, "unit.watt").is_some() && !items.is(k, "unit.w")
            || items.qty(k, "unit.kilowatt").is_some()
        {
            Some((k, "gpu_power_watts"))
        } else if items.qty(k, "unit.ms").is_some() {
            Some((k, "latency_p99_ms"))
        } else {
            None
        }
    })
}

/// Whether an amount is how long it must last.
fn is_for(draft: &Draft<'_, '_, '_>, k: usize) -> bool {
    let items = draft.items;
    items.seconds(k).is_some()
        && !items.is(k, "unit.watt")
        && k > 0
        && (items.any(k - 1, &["for", "since"]) || items.list[k - 1].text == "than" || items.is(k - 1, "min"))
}

fn read_for(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    if let Some((k, seconds)) =
        (0..items.len()).filter(|k| !draft.is_used(*k)).find_map(|k| items.seconds(k).map(|s| (k, s)))
    {
        draft.set_at("for_s", json!(seconds), k..k + 1);
    }
}
