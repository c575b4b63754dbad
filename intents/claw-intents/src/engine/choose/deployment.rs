//! Orders that are about a deployment or a node, whatever their verb says first.

use crate::act::{Act, Found};
use crate::items::{Items, Kind, Listed};
use crate::read::refs;

use super::{Topic, obtains, says, setting};

/// What an order does to a deployment that is named, where its verb alone says something else:
/// "run chat-eu with five replicas", "drop chat-eu's priority to low".
pub(super) fn of_deployment(items: &Items<'_, '_>, best: Found, topic: &Topic) -> Option<Act> {
    let deployment = names_deployment(items);
    let revision = revision(items);
    match best.act {
        Act::Run | Act::Serve | Act::Undrain | Act::Update | Act::Deploy | Act::Query
            if revision && !topic.workload() && !topic.gpu && restores(items, best) =>
        {
            Some(Act::Rollback)
        }
        Act::Run if !topic.workload() && items.is(best.at + 1, "act.autoscale") => Some(Act::Autoscale),
        // "promote acme/s:2 on deployment search"
        Act::Deploy if items.list[best.at].text == "promote" && topic.image && on_deployment(items, best.at) => {
            Some(Act::Update)
        }
        Act::Run | Act::Serve if deployment && should_run(items, best, topic) => Some(Act::Update),
        // "run 6 replicas of shop"
        Act::Run | Act::Serve
            if !topic.model
                && !topic.image
                && !topic.code
                && !topic.gpu
                && counts_replicas(items)
                && replicas_of(items) =>
        {
            Some(Act::Scale)
        }
        Act::Run | Act::Serve if deployment && !topic.model && !topic.image && !topic.code => {
            if says(items, "noun.replica") { Some(Act::Scale) } else { setting(items).then_some(Act::Update) }
        }
        // "image acme/x:1, 1 L4, set the priority to low": a setting of what is started.
        Act::Update
            if !deployment && (topic.image || topic.model) && topic.gpu && best.at > 0 && !names_thing(items) =>
        {
            Some(Act::Run)
        }
        // "can chat get 3 additional replicas?"
        Act::Query if deployment && obtains(items.list[best.at].text.as_str()) && counts_replicas(items) => {
            Some(Act::Scale)
        }
        // "reduce chat by half", "raise chat by two"
        Act::Update
            if !setting(items)
                && !topic.workload()
                && (says(items, "frac.0.5") || deployment && by(items) || by_percent(items)) =>
        {
            Some(Act::Scale)
        }
        Act::Stop if withdraws(items, best.at) => Some(Act::Drain),
        // "switch off market use for deployment chat"
        Act::Stop if deployment && ends_setting(items, best.at) => Some(Act::Update),
        // "cancel the latest rollout of chat": what it would put in place ends, and not chat.
        Act::Stop if !topic.workload() && ends_rollout(items, best.at) => Some(Act::Rollback),
        Act::Undrain if says(items, "noun.prev") && !says(items, "noun.node") && items.is(best.at, "restores") => {
            Some(Act::Rollback)
        }
        Act::Stop if deployment && items.list[best.at].text != "stop" && lowers(items, best.at) => Some(Act::Update),
        Act::Scale if !says(items, "noun.replica") && lowers(items, best.at) => Some(Act::Update),
        // "double … well, set it to 48 GB": a size is no number of replicas.
        Act::Scale if !says(items, "noun.replica") && sets_size(items, best.at) => Some(Act::Update),
        _ => None,
    }
}

/// "increase chat by 50 %": of its replicas, where nothing else is named.
fn by_percent(items: &Items<'_, '_>) -> bool {
    (1..items.len()).any(|i| {
        items.qty(i, "unit.percent").is_some()
            && matches!(items.list[i - 1].text.as_str(), "by" | "um")
            && items.ends_clause(i + 1)
    }) && !items.list.iter().any(|n| !n.masked && !n.known && n.senses.has("noun.traffic"))
        && !items.list.iter().any(|n| n.senses.after("metric.").is_some())
}

/// "by two", where nothing follows that it counts.
fn by(items: &Items<'_, '_>) -> bool {
    (1..items.len()).any(|i| {
        items.count(i).is_some()
            && matches!(items.list[i - 1].text.as_str(), "by" | "um" | "de" | "en")
            && (items.ends_clause(i + 1) || items.any(i + 1, &["noun.replica", "polite"]))
    })
}

/// "take gpu-07 offline", "decommission node a-3": a node leaves the pool, it does not end.
fn withdraws(items: &Items<'_, '_>, at: usize) -> bool {
    let unknown = |n: &crate::items::Item<'_>| n.kind == Kind::Word && n.senses.is_empty() && !n.known;
    let machine = items.list.iter().any(|n| n.node_like && !n.masked)
        // Only machines are decommissioned.
        || items.list[at].text == "decommission" && items.at(at + 1).is_some_and(unknown)
        || !refs::beside_nouns(items, &|_| false, refs::Thing::Node).is_empty();
    // "remove label a=b from gpu-1" takes something else away.
    let object = (at + 1..items.len()).find(|k| !items.any(*k, &["det.the", "noun.node"]));
    let direct = object.and_then(|k| items.at(k)).is_some_and(|n| {
        n.node_like || n.kind == Kind::Word && (n.senses.is_empty() || n.known) || n.senses.has("det.that")
    });
    items.is(at, "withdraws") && machine && direct && !says(items, "noun.workload") && !names_deployment(items)
}

/// Whether the object of an order to stop is a setting of something.
fn ends_setting(items: &Items<'_, '_>, at: usize) -> bool {
    const SETTINGS: &[&str] = &[
        "market",
        "act.autoscale",
        "noun.checkpoint",
        "noun.port",
        "noun.restart",
        "noun.volume",
        "noun.env",
        "noun.label",
    ];
    let object = (at + 1..items.len()).find(|k| !items.any(*k, &["det.the", "det.a", "det.all"]));
    object.is_some_and(|k| {
        let own = items.at(k).is_some_and(|n| {
            matches!(n.kind, Kind::Pair(..))
                || n.senses.iter().any(|s| ["preempt.", "link.", "market."].iter().any(|p| s.starts_with(p)))
        });
        (own || items.any(k, SETTINGS))
            && !items.list[k].known
            && !items.any(k + 1, &["noun.deployment", "noun.workload"])
    })
}

/// Whether the object of an order to stop is a rollout.
fn ends_rollout(items: &Items<'_, '_>, at: usize) -> bool {
    const ROLLOUTS: &[&str] = &["rollout", "roll-out", "update", "upgrade", "release", "deploy", "canary", "push"];
    let passed =
        |k: usize| items.any(k, &["det.the", "noun.prev", "since", "noun.limit"]) || items.list[k].text == "new";
    let object = (at + 1..items.len()).find(|k| !passed(*k));
    object.is_some_and(|k| {
        ROLLOUTS.contains(&items.list[k].text.split(' ').next().unwrap_or_default())
            && !items.list[k].known
            && (items.any(k + 1, &["of", "for", "on"]) || items.list[k].text.ends_with(" of"))
    })
}

/// Whether anything that is there can be meant: a word that looks like a name, and is no node's.
fn names_thing(items: &Items<'_, '_>) -> bool {
    items.list.iter().enumerate().any(|(k, n)| {
        // "set env LOG_LEVEL to debug": a variable.
        let variable = k > 0 && items.is(k - 1, "noun.env");
        !n.masked
            && !variable
            && (n.known || n.kind == Kind::Word && n.senses.is_empty() && crate::items::is_name_like(&n.text))
            && !n.node_like
    })
}

/// "replicas of shop": of what is there.
fn replicas_of(items: &Items<'_, '_>) -> bool {
    (0..items.len()).any(|i| {
        let of = items.is(i + 1, "of") || items.list[i].text.ends_with(" of");
        let at = i + 1 + usize::from(items.is(i + 1, "of"));
        items.is(i, "noun.replica") && of && refs::can_name(items, at)
    })
}

/// "… on deployment search": what is there gets it.
fn on_deployment(items: &Items<'_, '_>, at: usize) -> bool {
    (at + 1..items.len()).any(|k| {
        let deployment = items.list[k].text == "deployment" || items.list[k].text == "the deployment";
        let on = if items.is(k - 1, "det.the") { k.checked_sub(2) } else { k.checked_sub(1) };
        deployment && on.is_some_and(|m| m > at && matches!(items.list[m].text.as_str(), "on" | "onto" | "for"))
    })
}

/// "3 replicas", "two more replicas".
pub(super) fn counts_replicas(items: &Items<'_, '_>) -> bool {
    (1..items.len()).any(|i| items.is(i, "noun.replica") && (i.saturating_sub(2)..i).any(|k| items.count(k).is_some()))
}

/// "shop should run image acme/shop:2": what a deployment of the list shall run.
fn should_run(items: &Items<'_, '_>, best: Found, topic: &Topic) -> bool {
    const MODALS: &[&str] = &["should", "must", "shall", "has to", "needs to"];
    let listed = |k: usize| {
        items.at(k).is_some_and(|n| n.listed == Some(Listed::Deployment))
            || k > 0 && items.is(k - 1, "noun.deployment") && refs::can_name(items, k)
    };
    (topic.image || topic.model)
        && best.at > 1
        && MODALS.contains(&items.list[best.at - 1].text.as_str())
        && listed(best.at - 2)
}

/// Whether a deployment is named: by its noun, or as the context knows it.
pub(super) fn names_deployment(items: &Items<'_, '_>) -> bool {
    let listed = |n: &crate::items::Item<'_>| n.listed == Some(Listed::Deployment) && !n.masked;
    let named = |k: &usize| !matches!(items.list[*k].kind, Kind::Model(_) | Kind::Gpu { .. } | Kind::Image);
    items.list.iter().any(listed) || refs::beside_nouns(items, &|_| false, refs::Thing::Deployment).iter().any(named)
}

/// Whether a numbered revision is named.
pub(super) fn revision(items: &Items<'_, '_>) -> bool {
    (0..items.len()).any(|i| {
        let word = items.list[i].text.rsplit(' ').next().unwrap_or_default();
        matches!(word, "revision" | "rev" | "r" | "révision" | "revisión")
            && (items.num(i + 1).is_some() || items.punct(i + 1, '#'))
    })
}

/// Whether a verb puts something in place again.
fn restores(items: &Items<'_, '_>, best: Found) -> bool {
    best.strength >= 2 && items.is(best.at, "restores")
}

/// Whether a size is set behind a place.
fn sets_size(items: &Items<'_, '_>, at: usize) -> bool {
    (at + 1..items.len()).any(|k| items.gib(k).is_some() && items.any(k - 1, &["to", "with"]))
}

/// "… priority to low", "… memory to 32 GB": what is set to something lower is no thing that ends.
fn lowers(items: &Items<'_, '_>, at: usize) -> bool {
    const SET: &[&str] =
        &["noun.priority", "noun.memory", "noun.core", "noun.gpu", "noun.gpucount", "noun.disk", "noun.shm"];
    let end = (at..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    (at..end).any(|k| items.any(k, SET)) && (at..end).any(|k| items.any(k, &["to", "from"]))
}
