//! Whether a phrase that could be an order is one, in a request that speaks of this.

use crate::act::{Act, Found};
use crate::items::{Items, Kind, Listed};

use super::{
    Topic, asks, clause_says, measured, named, prices, query_holds, reads, says, says_any, share_fails, symptom,
};

/// Whether a phrase is an order in a request that speaks of this.
pub(super) fn holds(items: &Items<'_, '_>, f: Found, topic: &Topic) -> bool {
    let text = items.list[f.at].text.as_str();
    match f.act {
        Act::Alert => alerts(items, f),
        Act::Query => query_holds(items, f, topic),
        // "take a look at the logs of job x-1"
        Act::Diagnose if looks(text) && !symptom(items) && (reads(items) || says(items, "subj.metrics")) => false,
        Act::Diagnose => {
            !(matches!(text, "what happened" | "examine" | "find out") || text.starts_with("any "))
                || says_any(items, "sym.")
                || named(items) && text != "what happened"
        }
        Act::Drain if aims_elsewhere(items, f.at) => false,
        // "free gpu-3"; "free GPUs?" asks.
        Act::Drain if text == "free" => {
            let node = items.is(f.at + 1, "noun.node") && !items.list[f.at + 1].text.ends_with('s')
                || items.at(f.at + 1).is_some_and(|n| n.node_like)
                || items.is(f.at + 1, "det.the") && items.is(f.at + 2, "noun.node");
            f.strength == 3 && node && !asks(items)
        }
        Act::Drain => {
            let weak = matches!(text, "clear" | "empty" | "for maintenance" | "draining" | "wartung" | "leer" | "nimm");
            !weak
                || f.strength == 3 && text != "draining" && text != "for maintenance"
                || text == "for maintenance" && !topic.workload() && !asks(items)
        }
        Act::Undrain => !aims_elsewhere(items, f.at),
        Act::Update
            if text == "give"
                && topic.workload()
                && (is_person(items, f.at + 1)
                    || items.is(f.at + 1, "noun.image")
                    || matches!(items.at(f.at + 1).map(|n| &n.kind), Some(Kind::Model(_) | Kind::Image))) =>
        {
            false
        }
        // "we have to swap the NIC of gpu-3": work of hands.
        Act::Update if clause_says(items, f.at, "noun.hardware") => false,
        Act::Update => {
            let added = text == "add" && topic.workload() && f.strength < 3;
            let weak = matches!(text, "give" | "set" | "move" | "lower" | "raise" | "replace") && f.strength < 2;
            !added && !weak
        }
        // "never restart it automatically"
        Act::Autoscale => f.strength > 0 && (text != "automatically" || says(items, "act.scale")),
        // "buy me a coffee": nothing that the market has.
        Act::Bid => {
            let sold = topic.gpu
                || prices(items)
                || ["market", "noun.gpu", "noun.node"].iter().any(|noun| says(items, noun))
                || says_any(items, "unit.");
            sold && !(matches!(text, "lease" | "acquire" | "hire") && f.strength < 2)
        }
        Act::Offer => text != "an" || items.ends_clause(f.at + 1),
        Act::Train => !(topic.image && says(items, "act.deploy")) || f.strength == 3,
        Act::Stop if ends_in_go(text) && !ends_there(items, f.at + 1) => false,
        Act::Stop => f.strength > 0 && !is_limit(items, f, topic),
        // "which deployments do we run": a verb of a question.
        Act::Run | Act::Serve if in_question(items, f.at) || starts_share(items, f.at) => false,
        Act::Unsupported if is_ours(items, f) => false,
        Act::Run | Act::Serve | Act::Deploy | Act::Scale | Act::Rollback | Act::Unsupported => f.strength > 0,
    }
}

/// Words that look at something, whatever is wrong with it.
fn looks(text: &str) -> bool {
    text.contains("look at") || text.contains("peek at") || matches!(text, "inspect" | "examine" | "check on")
}

/// "chat can go", "it has to go": only where nothing follows that it goes to.
fn ends_in_go(text: &str) -> bool {
    text.ends_with(" go")
}

/// Whether a clause ends here, or the next one begins.
fn ends_there(items: &Items<'_, '_>, i: usize) -> bool {
    items.ends_clause(i) || items.any(i, &["polite", "and", "grace.no", "grace.yes"])
}

/// "canary update of chat, start with 15 %": a share, and nothing that is started.
fn starts_share(items: &Items<'_, '_>, at: usize) -> bool {
    items.list[at].text.starts_with("start") && (at + 1..at + 4).any(|k| items.qty(k, "unit.percent").is_some())
}

/// Whether a clause that a question word begins holds this place.
fn in_question(items: &Items<'_, '_>, at: usize) -> bool {
    let start = (0..at).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    start < at && items.is(start, "ask.what")
}

/// "put deployment chat back on 2 L4", "evict job x-1": what is no node is not drained, nor put back
/// in service.
fn aims_elsewhere(items: &Items<'_, '_>, at: usize) -> bool {
    let from = (0..at).rev().find(|k| items.ends_sentence(*k)).map_or(0, |k| k + 1);
    let to = (at..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    let node = |k: usize| items.is(k, "noun.node") || items.at(k).is_some_and(|n| n.node_like);
    let other = |k: usize| {
        items.any(k, &["noun.deployment", "noun.label", "act.autoscale"])
            || items.is(k, "noun.workload") && !items.list[k].text.ends_with('s')
            || items.at(k).is_some_and(|n| {
                matches!(n.kind, Kind::Model(_) | Kind::Image)
                    || matches!(n.listed, Some(Listed::Deployment | Listed::Workload))
            })
    };
    (from..to).any(other) && !(from..to).any(node)
}

/// "then it must stop", "kill it if it takes longer than 45 min": about the
/// workload that is started.
fn is_limit(items: &Items<'_, '_>, f: Found, topic: &Topic) -> bool {
    let launched = (topic.model || topic.image) && topic.gpu;
    let target =
        says(items, "noun.deployment") || items.list.iter().any(|n| n.known) || items.is(f.at + 1, "noun.workload");
    let conditional = says(items, "cond") || says(items, "limit.time");
    launched && !target || topic.workload() && conditional && items.is(f.at + 1, "det.that")
}

/// "give him 4 GPUs": the words are about a person.
fn is_person(items: &Items<'_, '_>, i: usize) -> bool {
    items.at(i).is_some_and(|n| matches!(n.text.as_str(), "him" | "her" | "them" | "me" | "us" | "it" | "everyone"))
}

/// Whether a word for an alert is one: a rule, a metric, or nothing else at all.
fn alerts(items: &Items<'_, '_>, f: Found) -> bool {
    let text = items.list[f.at].text.as_str();
    let conditional = says(items, "cond") || says_any(items, "cmp.");
    let metric = says_any(items, "metric.") || measured(items) || share_fails(items);
    let clear = ["alert", "alarm", "notif", "warn"].iter().any(|word| text.contains(word));
    // "alert me about the gpus": what begins so is nothing else.
    let whole = matches!(text, "alert me" | "notify me" | "warn me" | "page me")
        && (0..f.at).all(|k| items.any(k, &["polite", "greeting"]))
        && !(f.at..items.len()).any(|k| items.is(k, "and"));
    if clear { conditional || metric || whole } else { conditional && metric }
}

/// Whether a verb that is nothing here is part of something that is: "write checkpoints every half hour",
/// "when power on any GPU goes beyond 650 W".
fn is_ours(items: &Items<'_, '_>, f: Found) -> bool {
    let rule = says(items, "cond") && says_any(items, "cmp.") && (says_any(items, "metric.") || measured(items));
    rule || (f.at + 1..f.at + 4).any(|k| items.is(k, "noun.checkpoint"))
}
