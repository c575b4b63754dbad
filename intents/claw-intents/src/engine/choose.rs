//! Which of the orders in a request is the one.

use crate::act::{self, Act, Found};
use crate::items::{Items, Kind};

/// Whether any item has a meaning.
pub(super) fn says(items: &Items<'_, '_>, sense: &str) -> bool {
    (0..items.len()).any(|i| items.is(i, sense))
}

fn says_any(items: &Items<'_, '_>, prefix: &str) -> bool {
    items.list.iter().any(|item| !item.masked && item.senses.iter().any(|s| s.starts_with(prefix)))
}

/// What a request speaks of.
struct Topic {
    model: bool,
    image: bool,
    gpu: bool,
    kind: bool,
    code: bool,
}

impl Topic {
    fn of(items: &Items<'_, '_>) -> Self {
        let has = |fits: &dyn Fn(&Kind<'_>) -> bool| items.list.iter().any(|item| !item.masked && fits(&item.kind));
        Self {
            model: has(&|k| matches!(k, Kind::Model(_))),
            image: has(&|k| matches!(k, Kind::Image)),
            gpu: has(&|k| matches!(k, Kind::Gpu { .. } | Kind::Mig)),
            kind: says_any(items, "kind."),
            code: has(&|k| matches!(k, Kind::Quote(crate::text::Quote::Code))),
        }
    }

    fn workload(&self) -> bool {
        self.model || self.image || self.kind
    }
}

/// The phrases that are orders in a request that speaks of what it does.
pub(super) fn real(items: &Items<'_, '_>, found: &[Found]) -> Vec<Found> {
    let topic = Topic::of(items);
    found.iter().copied().filter(|f| holds(items, *f, &topic)).collect()
}

/// The order that a request gives.
pub(super) fn order(items: &Items<'_, '_>, found: &[Found]) -> Option<Found> {
    let topic = Topic::of(items);
    let real = real(items, found);
    if let Some(at) = crate::read::refs::modal_subject(items)
        && act::best(&real).is_none_or(|best| best.strength < 3 || matches!(best.act, Act::Query))
        && (setting(items) || says(items, "noun.replica") || topic.model)
    {
        let act = if says(items, "noun.replica") { Act::Scale } else { Act::Update };
        return Some(Found { act, at, strength: 2 });
    }
    match act::best(&real).map(|best| corrected(items, best, &real)) {
        Some(best)
            if says(items, "noun.unsupported")
                && !topic.workload()
                && matches!(best.act, Act::Update | Act::Run | Act::Stop | Act::Deploy | Act::Scale | Act::Serve) =>
        {
            Some(Found { act: Act::Unsupported, ..best })
        }
        // "what is the capital of France": nothing of this system is named.
        Some(best) if best.act == Act::Query && !ours(items, &topic) => Some(Found { act: Act::Unsupported, ..best }),
        Some(best) => Some(amend(items, best, &real, &topic)),
        None => fallback(items, &topic, found),
    }
}

/// "scale search to 2, no wait, scale chat to 2": the order that a correction put in place of one of its sort.
fn corrected(items: &Items<'_, '_>, best: Found, real: &[Found]) -> Found {
    let later = |f: &&Found| f.act == best.act && f.at > best.at && f.strength == best.strength;
    real.iter().rfind(|f| later(f) && items.corrects_between(best.at, f.at)).copied().unwrap_or(best)
}

/// Whether a phrase is an order in a request that speaks of this.
fn holds(items: &Items<'_, '_>, f: Found, topic: &Topic) -> bool {
    let text = items.list[f.at].text.as_str();
    match f.act {
        Act::Alert => {
            let conditional = says(items, "cond") || says_any(items, "cmp.");
            let clear =
                text.contains("alert") || text.contains("alarm") || text.contains("notif") || text.contains("warn");
            if clear { conditional || says_any(items, "metric.") } else { conditional && says_any(items, "metric.") }
        }
        Act::Query => query_holds(items, f, topic),
        Act::Diagnose => {
            !(text == "what happened" || text == "examine" || text == "find out")
                || says_any(items, "sym.")
                || named(items) && text != "what happened"
        }
        Act::Drain => {
            let weak = matches!(text, "clear" | "empty" | "for maintenance" | "draining" | "wartung" | "leer" | "nimm");
            !weak
                || f.strength == 3 && text != "draining" && text != "for maintenance"
                || text == "for maintenance" && !topic.workload() && !asks(items)
        }
        Act::Undrain => true,
        Act::Update
            if text == "give"
                && topic.workload()
                && (is_person(items, f.at + 1)
                    || matches!(items.at(f.at + 1).map(|n| &n.kind), Some(Kind::Model(_)))) =>
        {
            false
        }
        Act::Update => {
            let added = text == "add" && topic.workload() && f.strength < 3;
            let weak = matches!(text, "give" | "set" | "move" | "lower" | "raise" | "replace") && f.strength < 2;
            !added && !weak
        }
        Act::Autoscale => f.strength > 0,
        Act::Bid => !(matches!(text, "lease" | "acquire" | "hire") && f.strength < 2),
        Act::Offer => text != "an" || items.ends_clause(f.at + 1),
        Act::Train => !(topic.image && says(items, "act.deploy")) || f.strength == 3,
        Act::Stop => f.strength > 0 && !is_limit(items, f, topic),
        Act::Run | Act::Serve | Act::Deploy | Act::Scale | Act::Rollback | Act::Unsupported => f.strength > 0,
    }
}

/// Words that ask for something to read only where it is named.
pub(super) const VAGUE: &[&str] = &[
    "get", "give me", "any", "see", "check", "find", "report", "when", "count", "where", "search", "read", "what",
    "which", "describe", "who",
];

/// A word such as "get" or "report" is a query only where something to read is named.
fn query_holds(items: &Items<'_, '_>, f: Found, topic: &Topic) -> bool {
    let text = items.list[f.at].text.as_str();
    if f.strength < 3 && (topic.model || topic.image || text == "when") {
        return false;
    }
    !(VAGUE.contains(&text) && topic.workload() && !says_any(items, "subj."))
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

fn asks(items: &Items<'_, '_>) -> bool {
    items.list.iter().any(|item| item.kind == Kind::Punct('?'))
}

/// Amends the strongest order by what else is said.
fn amend(items: &Items<'_, '_>, best: Found, all: &[Found], topic: &Topic) -> Found {
    let has = |act: Act| all.iter().copied().find(|f| f.act == act && f.strength >= 2);
    let text = items.list[best.at].text.as_str();
    let replicas = says(items, "noun.replica");
    match best.act {
        // "autoscale" beside "deploy" is a setting.
        Act::Autoscale => has(Act::Deploy)
            .or_else(|| {
                topic
                    .workload()
                    .then(|| has(Act::Run).or_else(|| has(Act::Serve)).or_else(|| has(Act::Train)))
                    .flatten()
            })
            .unwrap_or(best),
        Act::Run | Act::Serve
            if !topic.model && !topic.image && !topic.code && replicas && says(items, "noun.deployment") =>
        {
            Found { act: Act::Scale, ..best }
        }
        Act::Run if topic.workload() || topic.gpu || topic.code => {
            has(Act::Train).map_or(best, |f| Found { at: best.at, ..f })
        }
        Act::Query | Act::Run if prices(items) && says(items, "market") && topic.gpu && !topic.workload() => {
            Found { act: Act::Bid, ..best }
        }
        Act::Query if prices(items) && (named(items) || topic.gpu) => {
            Found { act: if topic.gpu && !lists(text) { Act::Bid } else { Act::Offer }, ..best }
        }
        Act::Query if text != "show" && (topic.gpu && !says_any(items, "subj.") && !says(items, "market")) => {
            Found { act: Act::Run, ..best }
        }
        Act::Query
            if topic.workload()
                && [Act::Deploy, Act::Run, Act::Serve, Act::Train].iter().any(|act| has(*act).is_some())
                && matches!(text, "get" | "see" | "give me" | "check") =>
        {
            [Act::Deploy, Act::Train, Act::Serve, Act::Run].into_iter().find_map(has).unwrap_or(best)
        }
        Act::Run if !topic.workload() && !topic.code && says(items, "act.diagnose") => {
            Found { act: Act::Diagnose, ..best }
        }
        Act::Update | Act::Query | Act::Run | Act::Stop if says_back(items, best.at) && !topic.workload() => {
            Found { act: Act::Rollback, ..best }
        }
        Act::Rollback if taken_back(items, best.at).is_some_and(|k| items.is(k, "act.drain")) => {
            Found { act: Act::Undrain, ..best }
        }
        Act::Query if has(Act::Diagnose).is_some() => has(Act::Diagnose).unwrap_or(best),
        Act::Update if replicas && !setting(items) && !changes_more(items) && says_any(items, "noun.replica") => {
            Found { act: Act::Scale, ..best }
        }
        Act::Bid | Act::Offer
            if topic.workload()
                && [Act::Run, Act::Train, Act::Serve, Act::Deploy].iter().any(|act| has(*act).is_some()) =>
        {
            [Act::Deploy, Act::Train, Act::Serve, Act::Run].into_iter().find_map(has).unwrap_or(best)
        }
        Act::Update | Act::Stop
            if matches!(text, "add" | "remove" | "drop" | "reduce" | "increase" | "decrease" | "lower" | "raise")
                && replicas
                && !topic.workload() =>
        {
            Found { act: Act::Scale, ..best }
        }
        Act::Update if matches!(text, "give" | "set" | "move" | "add") && !topic.image && has(Act::Scale).is_some() => {
            has(Act::Scale).unwrap_or(best)
        }
        Act::Unsupported => best,
        _ => best,
    }
}

fn prices(items: &Items<'_, '_>) -> bool {
    items.list.iter().any(|n| matches!(n.kind, Kind::Money(_)))
}

fn lists(text: &str) -> bool {
    matches!(text, "list" | "show" | "display" | "report")
}

/// "undo the drain", "revert the stop": the order that is taken back, which is no deployment's.
pub(super) fn taken_back(items: &Items<'_, '_>, at: usize) -> Option<usize> {
    let k = (at + 1..items.len()).find(|k| !items.any(*k, &["det.the", "noun.prev"]))?;
    let other = items.any(k, &["act.drain", "act.undrain", "act.stop"]);
    let noun = k > at + 1 || items.any(k + 1, &["of", "on"]);
    (other && noun).then_some(k)
}

/// "roll chat back to 3", "bring api back to the previous revision".
fn says_back(items: &Items<'_, '_>, at: usize) -> bool {
    let text = items.list[at].text.as_str();
    let back = (at + 1..items.len()).take_while(|k| !items.ends_sentence(*k)).any(|k| {
        items.at(k).is_some_and(|n| {
            n.text == "back" || n.text == "back to" || n.text == "zurück" || n.text.starts_with("back to ")
        })
    });
    let earlier = says(items, "noun.revision") || says(items, "noun.prev");
    back && (text == "roll" || earlier)
}

/// No phrase gives an order: what is named tells what is wanted.
fn fallback(items: &Items<'_, '_>, topic: &Topic, found: &[Found]) -> Option<Found> {
    let at = found.first().map_or(0, |f| f.at);
    let money = items.list.iter().any(|n| matches!(n.kind, Kind::Money(_)));
    let act = if topic.gpu && !topic.workload() && (asks(items) || says(items, "state.idle")) {
        Act::Query
    } else if money && (says(items, "act.bid") || says(items, "market") && topic.gpu && !topic.workload()) {
        Act::Bid
    } else if money && says(items, "act.offer") {
        Act::Offer
    } else if topic.model || topic.image || topic.code || topic.kind && !says_any(items, "sym.") {
        Act::Run
    } else if says(items, "noun.deployment") && !says(items, "noun.replica") && setting(items) {
        Act::Update
    } else if symptom(items) && (named(items) || says(items, "noun.cluster")) {
        Act::Diagnose
    } else if says(items, "noun.replica") && named(items) {
        Act::Scale
    } else if says_any(items, "subj.") {
        Act::Query
    } else if topic.gpu {
        Act::Run
    } else {
        return None;
    };
    Some(Found { act, at, strength: 1 })
}

/// Whether something is said to be wrong; "temperature" alone is a thing to read.
fn symptom(items: &Items<'_, '_>) -> bool {
    items
        .list
        .iter()
        .any(|n| !n.masked && !n.senses.has("subj.metrics") && n.senses.iter().any(|s| s.starts_with("sym.")))
}

/// Whether anything of this system is named.
fn ours(items: &Items<'_, '_>, topic: &Topic) -> bool {
    topic.workload()
        || topic.gpu
        || named(items)
        || ["subj.", "metric.", "noun.cluster", "sym.", "state.", "noun.tenant", "act.stop", "market"]
            .iter()
            .any(|p| says_any(items, p))
}

/// Whether a setting of a workload is named.
fn setting(items: &Items<'_, '_>) -> bool {
    let prefixes = ["quant.", "prio.", "preempt.", "market.", "restart.", "link.", "place."];
    prefixes.iter().any(|p| says_any(items, p))
        || (0..items.len()).any(|i| {
            items.gib(i).is_some()
                || items.is(i, "noun.core")
                || items.num(i).is_some() && items.is(i + 1, "noun.gpu")
                || items.is(i, "noun.port")
                || items.at(i).is_some_and(|n| matches!(n.kind, Kind::Pair(..) | Kind::Image | Kind::Gpu { .. }))
        })
}

/// Whether a change is of more than the number of replicas.
fn changes_more(items: &Items<'_, '_>) -> bool {
    const MORE: &[&str] = &[
        "noun.image",
        "noun.model",
        "noun.command",
        "noun.env",
        "noun.volume",
        "noun.checkpoint",
        "noun.zone",
        "noun.label",
        "noun.tenant",
        "noun.name",
        "limit.time",
        "budget",
        "except",
    ];
    MORE.iter().any(|sense| says(items, sense))
        || says_any(items, "kind.")
        || items.list.iter().any(|n| matches!(n.kind, Kind::Instant(_) | Kind::Mig))
        || (0..items.len()).any(|i| items.num(i).is_some() && items.is(i + 1, "noun.node"))
}

fn named(items: &Items<'_, '_>) -> bool {
    items.list.iter().any(|item| {
        item.known
            || item.kind == Kind::Word && item.senses.is_empty() && crate::items::is_name_like(&item.text)
            || item.senses.iter().any(|s| matches!(s, "noun.node" | "noun.deployment" | "noun.workload" | "noun.gpu"))
    })
}
