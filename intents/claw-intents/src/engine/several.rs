//! Several orders in one request. An intent is one order: a second one with an
//! object of its own is a question, and none is left out in silence.

use serde_json::json;

use crate::act::{self, Act, Found};
use crate::answer::{Answer, Assumption};
use crate::items::{Items, Kind};
use crate::read::refs::{self, Thing};

use super::{choose, target};

/// Orders that ask for the same sort of thing; their words stand beside each other in one order.
pub(super) fn family(act: Act) -> &'static str {
    match act {
        Act::Run | Act::Train | Act::Serve => "run",
        Act::Deploy => "deploy",
        Act::Update | Act::Autoscale => "update",
        Act::Scale => "scale",
        Act::Stop => "stop",
        Act::Rollback => "rollback",
        Act::Drain => "drain",
        Act::Undrain => "undrain",
        Act::Diagnose => "diagnose",
        Act::Query => "query",
        Act::Alert => "alert",
        Act::Bid => "bid",
        Act::Offer => "offer",
        Act::Unsupported => "",
    }
}

/// Whether two orders can be one: a workload is started in many words, a change names what it
/// changes, a look is a look.
fn same(a: Act, b: Act) -> bool {
    let group = |act: Act| match family(act) {
        "deploy" => "run",
        "scale" => "update",
        "diagnose" => "query",
        other => other,
    };
    group(a) == group(b)
}

/// The other orders of a request that stand in a clause of their own.
pub(super) fn others(items: &Items<'_, '_>, found: &[Found], order: Found) -> Vec<Found> {
    let real = choose::real(items, found);
    let clause_end = |f: &Found| end(items, &[order], f.at);
    found
        .iter()
        .copied()
        .filter(|f| real.contains(f) || stops_another(items, *f, clause_end(f)))
        .filter(|f| items.at(f.at).is_some() && f.at != order.at)
        // "keep an eye on … and tell me if …": a phrase that may say the same is no other order.
        .filter(|f| !found.iter().any(|g| g.at == f.at && g.act == order.act && f.act != order.act))
        .filter(|f| {
            f.act != Act::Unsupported || items.is(f.at, "verb.thing") || has_object(items, f.at, clause_end(f), f.act)
        })
        .filter(|f| !same(f.act, order.act) || other_name(items, *f, order))
        .filter(|f| !part_of(items, *f, order))
        .filter(|f| f.strength >= 3 && begins(items, f.at) || f.strength == 2 && NAMING.contains(&f.act))
        .filter(|f| apart(items, f.at.min(order.at), f.at.max(order.at)))
        .filter(|f| f.strength >= 3 || has_object(items, f.at, end(items, &[order], f.at), f.act))
        .collect()
}

/// "run X and stop the rest": to stop something else than what is started. "Stop it after 6h" and
/// "kill the job after 6h" are limits of that.
fn stops_another(items: &Items<'_, '_>, f: Found, end: usize) -> bool {
    if f.act != Act::Stop || f.strength < 3 || (f.at + 1..end).any(|k| items.seconds(k).is_some()) {
        return false;
    }
    let article = items.is(f.at + 1, "det.the");
    let thing = f.at + 1 + usize::from(article);
    let word = items.at(thing).is_some_and(|n| n.kind == Kind::Word);
    items.any(f.at + 1, &["det.all", "noun.cluster"])
        || thing < end && article && word && !items.any(thing, &["noun.workload", "det.that", "pron.one"])
}

/// Orders that say what they are about.
const NAMING: &[Act] = &[Act::Stop, Act::Drain, Act::Undrain, Act::Rollback, Act::Scale];

fn begins(items: &Items<'_, '_>, at: usize) -> bool {
    act::starts_clause(items, at) || at > 0 && (items.any(at - 1, &["and", "polite"]) || joins(items, at - 1))
}

/// Words that join one order to the next.
pub(super) fn joins(items: &Items<'_, '_>, k: usize) -> bool {
    let then = |text: &str| matches!(text.rsplit(' ').next(), Some("then" | "also" | "afterwards"));
    items.is(k, "and") || items.at(k).is_some_and(|n| n.kind == Kind::Word && then(&n.text))
}

/// Whether two places stand in clauses of their own, and the second does not correct the first.
fn apart(items: &Items<'_, '_>, first: usize, second: usize) -> bool {
    (first + 1..second).any(|k| items.ends_clause(k) || joins(items, k)) && !items.corrects_between(first, second)
}

/// Words that order nothing of their own beside another order: a look around, a setting of
/// what is started, "move its jobs" beside a drain.
fn part_of(items: &Items<'_, '_>, f: Found, order: Found) -> bool {
    let text = items.list[f.at].text.as_str();
    match f.act {
        Act::Query => choose::VAGUE.contains(&text) && text != "check",
        Act::Autoscale | Act::Scale | Act::Bid => {
            let to = end(items, &[order], f.at);
            // "scale between 1 and 4 on p99 of 300 ms": a metric is no thing of its own.
            let metric = |k: usize| items.at(k).is_some_and(|n| n.senses.after("metric.").is_some());
            let from = (f.at + 1..to).rev().find(|k| metric(*k)).unwrap_or(f.at);
            same(order.act, Act::Run)
                && !has_object(items, f.at, from.max(f.at + 1), f.act)
                && !has_object(items, from, to, f.act)
        }
        // "alert me: queue above 15"
        Act::Run => order.act == Act::Alert && !has_object(items, f.at, end(items, &[order], f.at), f.act),
        // "take a-4 off the scheduler and evict its jobs"
        Act::Stop if order.act == Act::Drain => items.is(f.at, "withdraws"),
        // "drain a-4, give the jobs 30 minutes"
        Act::Update
            if matches!(order.act, Act::Drain | Act::Stop)
                && matches!(text, "give" | "gib" | "dale" | "dales" | "donne" | "laisse" | "deja" | "给") =>
        {
            (f.at + 1..end(items, &[order], f.at)).any(|k| items.seconds(k).is_some())
        }
        // "run acme/x:1 and set env A to 1": a setting of what is started.
        Act::Update if same(order.act, Act::Run) => {
            let end = end(items, &[order], f.at);
            let named = |k: usize| items.is(k, "noun.deployment") || items.at(k).is_some_and(|n| n.known);
            let set = if items.is(f.at + 1, "det.the") { f.at + 2 } else { f.at + 1 };
            items.any(set, &["noun.env", "noun.port", "noun.priority", "noun.memory", "noun.restart", "noun.shm"])
                && !(f.at + 1..end).any(named)
        }
        Act::Update => {
            matches!(order.act, Act::Drain | Act::Undrain)
                && text == "move"
                && (f.at + 1..end(items, &[order], f.at)).all(|k| !is_name(items, k))
        }
        _ => false,
    }
}

/// "if it hangs, stop it": what is to be done later is no order now.
fn conditional(items: &Items<'_, '_>, all: &[Found], at: usize) -> bool {
    (0..at).rev().take_while(|k| !items.ends_sentence(*k)).any(|k| items.is(k, "cond"))
        || (at + 1..next(items, all, at)).take_while(|k| !items.ends_clause(*k)).any(|k| items.is(k, "cond"))
}

/// Where the next order begins.
fn next(items: &Items<'_, '_>, all: &[Found], at: usize) -> usize {
    all.iter().map(|f| f.at).filter(|other| *other > at).min().unwrap_or(items.len())
}

/// Where the clause of an order ends: at a sign, or at the next order.
fn end(items: &Items<'_, '_>, all: &[Found], at: usize) -> usize {
    let next = next(items, all, at);
    let mut end = (at + 1..next).find(|k| items.ends_clause(*k)).unwrap_or(next);
    while end > at + 1 && (items.any(end - 1, &["polite", "cond"]) || joins(items, end - 1)) {
        end -= 1;
    }
    end
}

/// Whether what an order is about stands in its clause.
fn has_object(items: &Items<'_, '_>, from: usize, to: usize, act: Act) -> bool {
    (from + 1..to).filter_map(|k| items.at(k).map(|n| (k, n))).any(|(k, n)| {
        n.known
            || matches!(n.kind, Kind::Model(_) | Kind::Image)
            || n.kind == Kind::Word && crate::items::is_name_like(&n.text)
            || items.any(k, &["noun.deployment", "noun.workload", "noun.node"])
                && (k + 1 < to && refs::can_name(items, k + 1) || plain_name(items, k - 1))
            || NAMING.contains(&act) && plain_name(items, k) && (from + 1..k).all(|m| items.is(m, "det.the"))
            || act == Act::Query && n.senses.iter().any(|s| s.starts_with("subj."))
    })
}

/// "update chat to 4 replicas, scale search to 2": orders of the same sort to things of two names.
fn other_name(items: &Items<'_, '_>, f: Found, order: Found) -> bool {
    let changes = |act: Act| matches!(act, Act::Update | Act::Scale | Act::Autoscale);
    let first = |order: Found| {
        let names = target::of_order(items, &[f, order], order, &[Thing::Deployment]);
        names.first().map(|name| refs::name_of(items, name.at))
    };
    changes(f.act)
        && changes(order.act)
        && matches!((first(f), first(order)), (Some(a), Some(b)) if !a.eq_ignore_ascii_case(&b))
}

/// What is known by name, or looks like a name.
fn is_name(items: &Items<'_, '_>, k: usize) -> bool {
    items.at(k).is_some_and(|n| n.known || n.kind == Kind::Word && crate::items::is_name_like(&n.text))
}

/// A word that means nothing else: a name, where a noun of what it names follows.
fn plain_name(items: &Items<'_, '_>, k: usize) -> bool {
    items.at(k).is_some_and(|n| n.kind == Kind::Word && n.senses.is_empty())
}

/// The question that two orders in one request are.
pub(super) fn question(items: &Items<'_, '_>, others: &[Found], order: Found) -> Option<Answer> {
    let all: Vec<Found> = others.iter().copied().chain([order]).collect();
    let object = |f: &Found| has_object(items, f.at, end(items, &all, f.at), f.act) || other_name(items, *f, order);
    let other = others.iter().copied().filter(|f| object(f) && !conditional(items, &all, f.at)).min_by_key(|f| f.at)?;
    let said = |f: Found| items.span(&(f.at..end(items, &all, f.at))).text;
    let (first, second) = if order.at < other.at { (order, other) } else { (other, order) };
    let prompt = format!(
        "These are two orders, and a request is one: {:?} and {:?}. Which is meant? Ask for the other by itself.",
        said(first),
        said(second)
    );
    let options = [first, second].into_iter().filter(|f| f.act != Act::Unsupported).map(|f| family(f.act).to_owned());
    Some(Answer::ask("action", prompt, options.collect()))
}

/// Takes the words of an order that is left out from the readers: what it is about is not the
/// other order's.
pub(super) fn mask(items: &mut Items<'_, '_>, others: &[Found], order: Found) {
    let all: Vec<Found> = others.iter().copied().chain([order]).collect();
    for f in others {
        let end = end(items, &all, f.at);
        for item in &mut items.list[f.at..end] {
            item.masked = true;
        }
    }
}

/// Says which order was left out.
pub(super) fn left_out(items: &Items<'_, '_>, others: &[Found], order: Found) -> Vec<Assumption> {
    let all: Vec<Found> = others.iter().copied().chain([order]).collect();
    others
        .iter()
        .map(|f| Assumption {
            field: "action".into(),
            value: json!(family(order.act)),
            why: format!(
                "{:?} is a further order and is left out; ask for it by itself",
                items.span(&(f.at..end(items, &all, f.at))).text
            ),
        })
        .collect()
}
