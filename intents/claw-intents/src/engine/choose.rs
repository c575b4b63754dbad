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

/// The order that a request gives.
pub(super) fn order(items: &Items<'_, '_>, found: &[Found]) -> Option<Found> {
    let topic = Topic::of(items);
    let real: Vec<Found> = found.iter().copied().filter(|f| holds(items, *f, &topic)).collect();
    match act::best(&real) {
        Some(best)
            if says(items, "noun.unsupported")
                && !topic.workload()
                && matches!(best.act, Act::Update | Act::Run | Act::Stop | Act::Deploy | Act::Scale | Act::Serve) =>
        {
            Some(Found { act: Act::Unsupported, ..best })
        }
        Some(best) => Some(amend(items, best, &real, &topic)),
        None => fallback(items, &topic, found),
    }
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
        Act::Query => {
            let vague = matches!(
                text,
                "get"
                    | "give me"
                    | "any"
                    | "see"
                    | "check"
                    | "find"
                    | "report"
                    | "when"
                    | "count"
                    | "where"
                    | "search"
                    | "read"
                    | "what"
                    | "which"
                    | "describe"
                    | "who"
            );
            !(vague && topic.workload() && !says_any(items, "subj.") || text == "when" && f.strength < 3)
        }
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
        Act::Update => {
            !(text == "add" && topic.workload() && f.strength < 3)
                && !(matches!(text, "give" | "set" | "move" | "lower" | "raise" | "replace") && f.strength < 2)
        }
        Act::Autoscale => f.strength > 0,
        Act::Bid => !(matches!(text, "lease" | "acquire" | "hire") && f.strength < 2),
        Act::Offer => text != "an" || items.ends_clause(f.at + 1),
        Act::Train => !(topic.image && says(items, "act.deploy")) || f.strength == 3,
        // "kill it if it takes longer than 45 min" beside a workload is a limit.
        Act::Stop
            if topic.workload()
                && (says(items, "cond") || says(items, "limit.time"))
                && items.is(f.at + 1, "det.that") =>
        {
            false
        }
        Act::Run | Act::Serve | Act::Deploy | Act::Scale | Act::Stop | Act::Rollback | Act::Unsupported => {
            f.strength > 0
        }
    }
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
        Act::Query if text != "show" && (topic.gpu && !says_any(items, "subj.")) => Found { act: Act::Run, ..best },
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
        Act::Query if has(Act::Diagnose).is_some() => has(Act::Diagnose).unwrap_or(best),
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
    let act = if money && says(items, "act.bid") {
        Act::Bid
    } else if money && says(items, "act.offer") {
        Act::Offer
    } else if topic.model || topic.image || topic.code || topic.kind && !says_any(items, "sym.") {
        Act::Run
    } else if says(items, "noun.deployment") && !says(items, "noun.replica") && setting(items) {
        Act::Update
    } else if says_any(items, "sym.") && (named(items) || says(items, "noun.cluster")) {
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

/// Whether a setting of a workload is named.
fn setting(items: &Items<'_, '_>) -> bool {
    let prefixes = ["quant.", "prio.", "preempt.", "market.", "restart.", "link.", "place."];
    prefixes.iter().any(|p| says_any(items, p))
        || (0..items.len()).any(|i| {
            items.gib(i).is_some()
                || items.is(i, "noun.core")
                || items.is(i, "noun.port")
                || items.at(i).is_some_and(|n| matches!(n.kind, Kind::Pair(..) | Kind::Image | Kind::Gpu { .. }))
        })
}

fn named(items: &Items<'_, '_>) -> bool {
    items.list.iter().any(|item| {
        item.known
            || item.kind == Kind::Word && item.senses.is_empty() && crate::items::is_name_like(&item.text)
            || item.senses.iter().any(|s| matches!(s, "noun.node" | "noun.deployment" | "noun.workload" | "noun.gpu"))
    })
}
