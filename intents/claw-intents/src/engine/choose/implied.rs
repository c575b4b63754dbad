//! Orders in words of which none is an order: a machine that works again, a rule that warns.

use crate::act::{Act, Found};
use crate::items::{Items, Kind};

use super::{Topic, asks, measured, prices, reads, says, says_any, symptom};

/// "node gpu-3 can be used again", "gpu-3 is fixed, bring it back": a machine that takes work again.
pub(super) fn returns(items: &Items<'_, '_>, topic: &Topic, best: Option<Found>) -> bool {
    let looks = |f: Found| match f.act {
        Act::Query => f.strength < 3 || matches!(items.list[f.at].text.as_str(), "get" | "any"),
        Act::Run | Act::Update | Act::Rollback | Act::Serve | Act::Offer => true,
        _ => false,
    };
    let again = |n: &crate::items::Item<'_>| {
        !n.masked && (n.text == "again" || n.text == "back" || n.text.starts_with("back ") || n.text.ends_with(" back"))
    };
    // "let jobs run on kiwi-3 again"
    let place = |k: usize| {
        let named = items
            .at(k)
            .is_some_and(|n| n.kind == Kind::Word && n.senses.is_empty() && crate::items::is_name_like(&n.text));
        named
            && items.list[k - 1].text == "on"
            && (0..k).any(|m| items.is(m, "noun.workload") && items.list[m].text.ends_with('s'))
    };
    let node =
        items.list.iter().any(|n| !n.masked && n.node_like) || says(items, "noun.node") || (1..items.len()).any(place);
    let other = says(items, "noun.deployment") || says(items, "noun.revision") || prices(items) || topic.workload();
    // "get the logs of node gpu-3 again", "run job x-1 on gpu-3 again": something else is there again.
    let job = |k: usize| items.is(k, "noun.workload") && !items.list[k].text.ends_with('s');
    let other = other || reads(items) || says(items, "subj.metrics") || (0..items.len()).any(job);
    best.is_none_or(looks)
        && node
        && !other
        && !symptom(items)
        && !asks(items)
        && items.list.iter().any(again)
        && !(0..items.len()).any(|i| items.is(i, "not"))
}

/// "need something that warns when …": a rule in words of which none is an order.
pub(super) fn alert_rule(items: &Items<'_, '_>) -> Option<usize> {
    let word = |i: &usize| {
        items.at(*i).is_some_and(|n| {
            n.kind == Kind::Word && ["alert", "alarm", "warning", "notification"].iter().any(|w| n.text.contains(w))
        })
    };
    let compares = says_any(items, "cmp.") && (says_any(items, "metric.") || measured(items));
    (compares && says(items, "cond")).then(|| (0..items.len()).find(word)).flatten()
}
