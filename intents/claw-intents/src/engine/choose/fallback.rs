//! What is wanted where no phrase gives an order: what is named tells.

use crate::act::{self, Act, Found};
use crate::items::{Items, Kind};

use super::deployment::{counts_replicas, names_deployment, revision};
use super::{Topic, asks, changes_more, counts_gpus, named, reads, says, says_any, setting, symptom};

/// No phrase gives an order: what is named tells what is wanted.
pub(super) fn fallback(items: &Items<'_, '_>, topic: &Topic, found: &[Found]) -> Option<Found> {
    let at = found.first().map_or(0, |f| f.at);
    let money = items.list.iter().any(|n| matches!(n.kind, Kind::Money(_)));
    let changes = names_deployment(items) && !says_any(items, "env.") && !asks(items);
    let previous = (0..items.len()).any(|i| wants_previous(items, i)) && !asks(items);
    let act = if (wants_revision(items) || previous)
        && (named(items) || unknown_name(items))
        && (!topic.workload() || previous && says(items, "noun.deployment"))
    {
        let verb = (0..items.len()).find(|i| items.any(*i, &["restores.firm", "restores"]));
        return Some(Found { act: Act::Rollback, at: verb.unwrap_or(at), strength: 1 });
    } else if (names_deployment(items) || named(items) && lowers_to(items))
        && to_number(items)
        && !revision(items)
        && !topic.workload()
        && !setting(items)
        && !says(items, "noun.gpu")
    {
        Act::Scale
    } else if changes && (topic.image || topic.model || sets_gpus(items)) {
        Act::Update
    } else if says(items, "market") && counts_gpus(items) && !topic.workload() && !asks(items) {
        Act::Bid
    } else if (reads(items) || counts_lines(items) && named(items)) && !topic.image && !topic.gpu {
        Act::Query
    } else if says(items, "noun.replica") && says(items, "noun.deployment") && !topic.image && !topic.gpu {
        Act::Scale
    } else if names_deployment(items) && changes_setting(items) {
        Act::Update
    } else if topic.gpu && !topic.workload() && (asks(items) || says(items, "state.idle")) {
        Act::Query
    } else if money && (says(items, "act.bid") || says(items, "market") && topic.gpu && !topic.workload()) {
        Act::Bid
    } else if money && says(items, "act.offer") {
        Act::Offer
    } else if (topic.model || topic.image) && rolls_out(items) {
        Act::Deploy
    } else if topic.model || topic.image || topic.code || topic.kind && !says_any(items, "sym.") {
        Act::Run
    } else if says(items, "noun.deployment") && !says(items, "noun.replica") && setting(items) {
        Act::Update
    } else if lists_some(items) {
        Act::Query
    } else if symptom(items) && (named(items) || says(items, "noun.cluster")) {
        Act::Diagnose
    } else if says(items, "noun.replica") && (named(items) || counts_replicas(items)) {
        Act::Scale
    } else if worsens(items) && named(items) {
        Act::Diagnose
    } else if unknown_verb(items) {
        return None;
    } else if says_any(items, "subj.") || says_any(items, "metric.") && named(items) {
        Act::Query
    } else if topic.gpu {
        Act::Run
    } else {
        return None;
    };
    Some(Found { act, at, strength: 1 })
}

/// Words of a program that broke, which nobody writes who wants something changed.
pub(super) fn trace(items: &Items<'_, '_>) -> bool {
    items.list.iter().any(|n| {
        !n.masked && ["outofmemory", "cuda out of memory", "cuda error", "traceback"].iter().any(|w| n.text.contains(w))
    })
}

/// "latency of chat doubled overnight": a number that became worse is a complaint.
fn worsens(items: &Items<'_, '_>) -> bool {
    const WORSE: &[&str] = &[
        "doubled",
        "tripled",
        "quadrupled",
        "exploded",
        "spiked",
        "jumped",
        "skyrocketed",
        "climbs",
        "climbed",
        "degraded",
        "deteriorated",
        "worsened",
        "soared",
        "rose",
        "risen",
        "went up",
        "gone up",
        "got worse",
        "keeps rising",
    ];
    says_any(items, "metric.") && items.list.iter().any(|n| !n.masked && WORSE.contains(&n.text.as_str()))
}

/// "deployment chat → revision 4", "revision 6 of chat, please", "chat should be on revision 3 again".
fn wants_revision(items: &Items<'_, '_>) -> bool {
    let numbered = |i: usize| items.is(i, "noun.revision") && items.num(i + 1).is_some() && !told(items, i);
    let restored = |sense: &str| (0..items.len()).any(|i| items.is(i, sense) && !told(items, i));
    let to = |i: usize| i > 0 && items.is(i - 1, "to") || i > 1 && items.is(i - 1, "det.the") && items.is(i - 2, "to");
    let of = |i: usize| items.is(i + 2, "of");
    // "rev 12 -> 11"
    let arrow = |i: usize| matches!(items.list.get(i + 2).map(|n| n.text.as_str()), Some("->" | "- >" | "→" | "=>"));
    // "the new build of front is broken, back to 31"
    let back = |i: usize| items.list[i].text == "back to" && items.count(i + 1).is_some() && items.ends_clause(i + 2);
    (0..items.len()).any(back) && says(items, "noun.revision") && !says(items, "noun.replica")
        || revision(items) && restored("restores")
        || (0..items.len()).any(numbered) && restored("restores.firm")
        || (0..items.len()).any(|i| numbered(i) && (to(i) || of(i) || arrow(i))) && !asks(items)
}

/// "the previous revision of chat", "the version before this one".
fn wants_previous(items: &Items<'_, '_>, i: usize) -> bool {
    const REVISIONS: &[&str] = &["version", "revision", "release", "build"];
    let whole = items.at(i).is_some_and(|n| n.text.split(' ').any(|word| REVISIONS.contains(&word)));
    items.is(i, "noun.prev") && (whole || items.is(i + 1, "noun.revision")) && !told(items, i)
}

/// "revision 6 of chat is slow", "chat went to revision 7 and crashes": a clause that tells what is.
fn told(items: &Items<'_, '_>, at: usize) -> bool {
    let from = (0..at).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    let to = (at..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    (from..to).any(|k| {
        items.is(k, "tells")
            || items
                .at(k)
                .is_some_and(|n| !n.senses.has("subj.metrics") && n.senses.iter().any(|s| s.starts_with("sym.")))
    })
}

/// "mixtral, 8 H100, rolling, deployment name oracle": what only a deployment has.
fn rolls_out(items: &Items<'_, '_>) -> bool {
    says_any(items, "strategy.") || items.list.iter().any(|n| n.senses.has("as") && n.text.contains("deployment"))
}

/// "portal should be on revision 3 again": a word that nobody knows names something, and so does a
/// plain noun where a name stands.
fn unknown_name(items: &Items<'_, '_>) -> bool {
    (0..items.len()).any(|k| {
        items.at(k).is_some_and(|n| {
            let placed = k > 0 && items.any(k - 1, &["of", "on", "for"]) || items.punct(k + 1, ':');
            let noun = n.senses.iter().all(|s| matches!(s, "n" | "act.query"));
            let plain = n.senses.is_empty() || (placed || k == 0) && noun;
            n.kind == Kind::Word && plain && !n.corrected && n.text.chars().all(char::is_alphabetic)
        })
    })
}

/// "frobnicate everything on node gpu-1": a clause that begins with a word that nobody knows, right
/// before what it would be done to. What it asks for is not known, and no look.
fn unknown_verb(items: &Items<'_, '_>) -> bool {
    const OBJECTS: &[&str] = &["det.the", "det.all", "det.a", "noun.deployment", "noun.workload", "noun.node"];
    (0..items.len()).any(|i| {
        let strange = items.at(i).is_some_and(|n| {
            n.kind == Kind::Word
                && n.senses.is_empty()
                && !n.known
                && !crate::items::is_name_like(&n.text)
                && n.text.chars().all(char::is_alphabetic)
        });
        let begins = act::starts_clause(items, i) || items.any(i - 1, &["polite", "greeting"]);
        let next = items.at(i + 1).is_some_and(|n| n.known || n.node_like) || items.any(i + 1, OBJECTS);
        strange && begins && next
    })
}

/// "chat with 24 cores instead of 12", "pin deployment chat to zone b": a setting, and nothing to read.
fn changes_setting(items: &Items<'_, '_>) -> bool {
    let thing = |s: &str| matches!(s, "subj.deployments" | "subj.workloads");
    let placed = places(items);
    let place = |s: &str| placed && matches!(s, "subj.nodes" | "subj.gpus");
    let looks = items
        .list
        .iter()
        .any(|n| !n.masked && n.senses.iter().any(|s| s.starts_with("subj.") && !thing(s) && !place(s)));
    (setting(items) || changes_more(items) || placed)
        && !says(items, "noun.replica")
        && !looks
        && !asks(items)
        && !symptom(items)
}

/// "top 10 workloads in state pending": so many of what is listed.
fn lists_some(items: &Items<'_, '_>) -> bool {
    (1..items.len()).any(|i| {
        items.is(i - 1, "noun.limit")
            && items.count(i).is_some()
            && items.at(i + 1).is_some_and(|n| n.senses.iter().any(|s| s.starts_with("subj.")))
    })
}

/// "last 20 lines of x-1": what has lines is a log.
fn counts_lines(items: &Items<'_, '_>) -> bool {
    (1..items.len()).any(|i| items.is(i, "noun.line") && items.count(i - 1).is_some())
}

/// "pin chat to node gpu-3", "chat must not run on gpu-3", "half a GPU for chat": where it runs, or on what.
fn places(items: &Items<'_, '_>) -> bool {
    const MODALS: &[&str] = &["must", "mustn't", "should", "shouldn't", "may", "can't", "cannot", "shall"];
    let machine = |k: usize| items.is(k, "noun.node") || items.at(k).is_some_and(|n| n.node_like);
    let bound = |i: usize| {
        let modal = items.at(i).is_some_and(|n| MODALS.contains(&n.text.split(' ').next().unwrap_or_default()));
        items.any(i, &["pins", "except"]) || modal
    };
    let share = |i: usize| {
        matches!(items.list[i].kind, Kind::Share(_))
            && (i + 1..i + 4)
                .any(|k| items.is(k, "noun.gpu") || matches!(items.at(k).map(|n| &n.kind), Some(Kind::Gpu { .. })))
    };
    (0..items.len()).any(|i| share(i) || bound(i) && (i + 1..items.len()).any(machine))
}

/// "chat down to 1", "chat to 12", where nothing else is said.
fn to_number(items: &Items<'_, '_>) -> bool {
    (1..items.len()).any(|i| {
        let word = items.list[i - 1].text.as_str();
        let known = i > 1 && items.at(i - 2).is_some_and(|n| n.listed == Some(crate::items::Listed::Deployment));
        (matches!(word, "down to" | "up to" | "→" | "- >" | "->") || word == "to" && known)
            && items.count(i).is_some()
            && (items.ends_clause(i + 1) || items.any(i + 1, &["noun.replica", "polite"]))
    })
}

/// "down to", "up to": a number that is said in full.
fn lowers_to(items: &Items<'_, '_>) -> bool {
    items.list.iter().any(|n| matches!(n.text.as_str(), "down to" | "up to"))
}

/// "gpus 4 -> 2", "only needs 2 gpus".
fn sets_gpus(items: &Items<'_, '_>) -> bool {
    (0..items.len()).any(|i| {
        let behind = (i + 1..i + 5)
            .take_while(|k| !items.ends_sentence(*k))
            .any(|k| items.is(k, "to") && items.num(k + 1).is_some());
        items.any(i, &["noun.gpu", "noun.gpucount"]) && (behind || i > 0 && items.num(i - 1).is_some())
    }) && !asks(items)
}
