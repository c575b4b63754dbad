//! Which thing an order is about. What stands in the order's own clauses counts first, behind the
//! order; then its sentence; then the rest of the request. Two things are a question: an order
//! that stops something never takes the first one in silence.

use crate::act::{self, Act, Found};
use crate::draft::Draft;
use crate::items::{Items, Kind};
use crate::read::refs::{self, Thing};

use super::several;

/// A name in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// Its item.
    pub(super) at: usize,
    /// What the noun beside it says that it names.
    pub(super) thing: Option<Thing>,
    /// Not only a word of the language where a name may stand.
    sure: bool,
    /// Behind "on", "for" and the like: where or for whom, rather than what.
    aside: bool,
}

/// What an order is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// No name tells.
    Unnamed,
    /// This one.
    One(Name),
    /// One of these, or none of them where all but some things are meant.
    Unclear(Vec<Name>),
    /// What runs at a named place.
    Placed,
}

/// Words behind which something else is spoken of.
const TURNS: &[&str] = &[
    "because", "since", "so", "until", "which", "where", "but", "keep", "keeping", "leave", "leaving", "spare", "aber",
    "mais", "pero", "weil", "denn", "car", "porque",
];
/// Words that say something of the name before them.
const VERBS: &[&str] = &[
    "is", "are", "was", "were", "has", "have", "can", "could", "may", "will", "would", "should", "must", "needs",
    "runs", "stays", "keeps", "looks", "works", "seems", "does", "ist", "läuft", "est", "está",
];

/// What an order is about, as far as names tell.
pub(super) fn of(draft: &Draft<'_, '_, '_>, order: Found, things: &[Thing]) -> Target {
    let items = draft.items;
    let used = |k: usize| draft.is_used(k);
    let named = named(items, &used, things);
    let orders = act::find(items);
    let same = |f: &&Found| f.at != order.at && f.strength >= 3 && several::family(f.act) == several::family(order.act);
    let mut own = own(items, &used, &named, &orders, order);
    for f in orders.iter().filter(same) {
        own.extend(self::own(items, &used, &named, &orders, *f));
    }
    own.retain(|n| n.thing.is_none_or(|thing| things.contains(&thing)));
    let own = uncorrected(items, own);
    let own = first_kept(own, |n| !n.aside);
    // "stop the job on gpu-5": the node is not what is stopped.
    let placed = |n: &Name| order.act == Act::Stop && n.thing.is_none() && n.aside && place(items, n.at);
    let all_placed = !own.is_empty() && own.iter().all(placed);
    let (own, named) =
        if all_placed { (Vec::new(), named.into_iter().filter(|n| !placed(n)).collect()) } else { (own, named) };
    match distinct(draft, &own, things).as_slice() {
        [] => {}
        [one] if one.sure || !named.is_empty() => return Target::One(*one),
        [_] => return Target::Unnamed,
        several => return Target::Unclear(several.to_vec()),
    }
    if excepts(items, order.at) || order.act == Act::Stop && all_meant(items, order.at) {
        return Target::Unclear(Vec::new());
    }
    let (from, to) = sentence(items, order.at);
    // "burn-in tests": what a word of the language follows is no name far from its order.
    let named: Vec<Name> = named.into_iter().filter(|n| n.thing.is_some() || !describes_word(items, n.at)).collect();
    let near: Vec<Name> = named.iter().copied().filter(|n| (from..to).contains(&n.at)).collect();
    for pool in [near, named] {
        let pool = first_kept(uncorrected(items, pool), |n| n.thing.is_some());
        let pool = first_kept(pool, |n| !n.aside);
        match distinct(draft, &pool, things).as_slice() {
            [] => {}
            [one] => return Target::One(*one),
            several => return Target::Unclear(several.to_vec()),
        }
    }
    if all_placed { Target::Placed } else { Target::Unnamed }
}

/// Names in the clauses of one order; for orders that are compared.
pub(super) fn of_order(items: &Items<'_, '_>, orders: &[Found], order: Found, things: &[Thing]) -> Vec<Name> {
    let unused = |_: usize| false;
    let named = named(items, &unused, things);
    let own = uncorrected(items, own(items, &unused, &named, orders, order));
    first_kept(own, |n| !n.aside)
}

/// Asks which of several things is meant.
pub(super) fn ask(draft: &mut Draft<'_, '_, '_>, path: &str, names: &[Name]) {
    let options: Vec<String> = names.iter().map(|n| refs::name_of(draft.items, n.at)).collect();
    let prompt = match options.as_slice() {
        [] => "A request is one order to one thing, not to all but some. Which comes first?".to_owned(),
        [rest @ .., last] => {
            format!("A request is one order to one thing. Which comes first: {} or {last}?", rest.join(", "))
        }
    };
    draft.ask(path, prompt, options);
}

/// Every name of things of these sorts, or of no stated sort, in the order of the text.
fn named(items: &Items<'_, '_>, used: &dyn Fn(usize) -> bool, things: &[Thing]) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    for thing in [Thing::Workload, Thing::Deployment, Thing::Node] {
        for at in refs::beside_nouns(items, used, thing) {
            if names.iter().all(|n| n.at != at) {
                names.push(Name { at, thing: Some(thing), sure: true, aside: false });
            }
        }
    }
    for at in 0..items.len() {
        let likely = items.at(at).is_some_and(|n| match n.kind {
            Kind::Word => n.known || n.senses.is_empty() && refs::is_name_like(&n.text),
            Kind::Quote(_) => refs::can_name(items, at) && refs::is_name_like(n.text.trim()),
            _ => false,
        });
        if likely && !used(at) && names.iter().all(|n| n.at != at) {
            names.push(Name { at, thing: None, sure: true, aside: false });
        }
    }
    names.retain(|n| n.thing.is_none_or(|thing| things.contains(&thing)) && !spared(items, n.at));
    for name in &mut names {
        name.aside = aside(items, name.at);
    }
    names.sort_by_key(|n| n.at);
    names
}

/// Whether the word before a name says where.
fn place(items: &Items<'_, '_>, at: usize) -> bool {
    const PLACES: &[&str] = &["on", "at", "in", "inside", "across", "from", "auf", "in", "sur", "en", "dans", "von"];
    let before = phrase_start(items, at).checked_sub(1).and_then(|k| items.at(k));
    before.is_some_and(|n| PLACES.contains(&n.text.as_str()))
}

fn describes_word(items: &Items<'_, '_>, at: usize) -> bool {
    let item = &items.list[at];
    !item.known && !item.text.chars().any(|c| c.is_ascii_digit()) && items.is(at + 1, "n")
}

/// Where the words before a name begin that belong to it: "the", and its noun.
fn phrase_start(items: &Items<'_, '_>, at: usize) -> usize {
    let mut k = at;
    while k > 0
        && (items.any(k - 1, &["det.the", "noun.node", "noun.deployment", "noun.workload"])
            || items.punct(k - 1, ':')
            || items.punct(k - 1, '('))
    {
        k -= 1;
    }
    k
}

fn aside(items: &Items<'_, '_>, at: usize) -> bool {
    let order = |k: usize| items.list[k].senses.iter().any(|s| s.starts_with("act."));
    phrase_start(items, at)
        .checked_sub(1)
        .is_some_and(|k| items.any(k, &["on", "for", "from", "with", "to", "of"]) && !order(k))
}

/// "except gpu-1", "do not touch gpu-1", "everything but gpu-1".
fn spared(items: &Items<'_, '_>, at: usize) -> bool {
    let start = phrase_start(items, at);
    (start.saturating_sub(2)..start).rev().take_while(|k| !items.ends_clause(*k)).any(|k| {
        (excludes(items, k) || items.is(k, "not")) && !items.is(k, "correct")
            || items.at(k).is_some_and(|n| n.text == "but") && k > 0 && items.any(k - 1, &["det.all", "noun.cluster"])
    })
}

/// The bounds of the sentence around a place.
fn sentence(items: &Items<'_, '_>, at: usize) -> (usize, usize) {
    let from = (0..at).rev().find(|k| items.ends_sentence(*k)).map_or(0, |k| k + 1);
    let to = (at..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    (from, to)
}

/// Whether an order is to all things but some.
fn excepts(items: &Items<'_, '_>, at: usize) -> bool {
    let (_, to) = sentence(items, at);
    let but = |k: usize| items.list[k].text == "but" && items.any(k - 1, &["det.all", "noun.cluster", "noun.node"]);
    (at + 1..to).any(|k| excludes(items, k) || but(k))
}

/// Whether what follows is spared. "Take two replicas away from chat", "shift all jobs away from gpu-3":
/// what something is taken from is not.
fn excludes(items: &Items<'_, '_>, k: usize) -> bool {
    let taken = || {
        let start = (0..k).rev().find(|m| items.ends_clause(*m)).map_or(0, |m| m + 1);
        (start..k).any(|m| items.any(m, &["noun.replica", "moves"]))
    };
    items.is(k, "except") && !(items.list[k].text == "away from" && taken())
}

/// Whether an order is to all things of a sort: "stop all jobs on gpu-1" names none of them.
fn all_meant(items: &Items<'_, '_>, at: usize) -> bool {
    items.is(at + 1, "det.all")
}

/// The names that an order's own clauses give, a list as a whole.
fn own(
    items: &Items<'_, '_>,
    used: &dyn Fn(usize) -> bool,
    named: &[Name],
    orders: &[Found],
    order: Found,
) -> Vec<Name> {
    let mut found: Vec<Name> = Vec::new();
    let mut from = order.at + 1;
    // A word of the language is a name as the object of the order, or in a list.
    let mut object = true;
    loop {
        let (to, next) = part(items, used, named, orders, order, from);
        let mut sure: Vec<Name> = named.iter().copied().filter(|n| (from..to).contains(&n.at)).collect();
        // "on gpu-1 and gpu-2": what is joined to a place is one too.
        if let (Some(last), Some(first)) = (found.last(), sure.first_mut())
            && first.at == from
        {
            first.aside |= last.aside && first.thing.is_none();
        }
        if !sure.is_empty() {
            found.extend(sure);
        } else if object && let Some(at) = first_word(items, from, to).filter(|k| plain(items, *k, order) && !used(*k))
        {
            found.push(Name { at, thing: None, sure: false, aside: false });
        }
        let Some(next) = next else {
            break;
        };
        from = next;
        object = true;
    }
    if !matches!(order.act, Act::Stop | Act::Drain | Act::Undrain) {
        return found;
    }
    // "x-1 to x-9": several, where nothing is moved anywhere.
    for pair in 1..found.len() {
        let (a, b) = (found[pair - 1].at, found[pair].at);
        found[pair].aside &= !(b == a + 2 && items.is(a + 1, "to"));
    }
    found
}

/// Where a part of an order's clause ends, and where the next one of a list begins.
fn part(
    items: &Items<'_, '_>,
    used: &dyn Fn(usize) -> bool,
    named: &[Name],
    orders: &[Found],
    order: Found,
    from: usize,
) -> (usize, Option<usize>) {
    let mut k = from;
    while k < items.len() {
        let corrects = items.corrects(k);
        if items.ends_clause(k) || several::joins(items, k) || items.is(k, "or") || corrects {
            let sentence = items.ends_sentence(k) && !items.corrects(k + 1);
            let next = (!sentence).then(|| listed(items, used, named, order, k)).flatten();
            return (k, next);
        }
        let turns = items.is(k, "cond")
            || excludes(items, k)
            || items.at(k).is_some_and(|n| TURNS.contains(&n.text.as_str()))
            || k > from && orders.iter().any(|f| f.at == k && f.strength >= 3);
        if turns {
            return (k, None);
        }
        k += 1;
    }
    (k, None)
}

/// Where a list goes on behind a comma, "and", or a correction.
fn listed(
    items: &Items<'_, '_>,
    used: &dyn Fn(usize) -> bool,
    named: &[Name],
    order: Found,
    from: usize,
) -> Option<usize> {
    let mut k = from;
    let mut joined = false;
    while k < items.len() {
        let joins = several::joins(items, k) || items.is(k, "or") || items.corrects(k);
        joined |= joins;
        let sign = matches!(items.list[k].kind, Kind::Punct(',' | '—' | '–' | '-' | '(' | ':' | '.' | '、' | '，'));
        let only =
            items.at(k).is_some_and(|n| matches!(n.text.as_str(), "only" | "just" | "nur" | "solo" | "seulement"));
        let passed = only || items.any(k, &["det.the", "noun.node", "noun.deployment", "noun.workload"]);
        if !(joins || sign || passed) || named.iter().any(|n| n.at == k) {
            break;
        }
        k += 1;
    }
    let says = items.at(k + 1).is_some_and(|n| {
        VERBS.contains(&n.text.as_str()) || n.senses.iter().any(|s| s.starts_with("sym.") || s.starts_with("state."))
    });
    let sure = named.iter().any(|n| n.at == k);
    // "chat, search": a word of the language behind another one, not behind a name or a number.
    let joined = joined
        || from.checked_sub(1).is_some_and(|k| {
            plain(items, k, order) && named.iter().all(|n| n.at != k || !refs::is_name_like(&items.list[k].text))
        }) && items.punct(from, ',');
    // "and enjoy your weekend": no article stands behind a name.
    let verb = items.any(k + 1, &["det.the", "det.a", "det.that"]);
    let word = joined && !verb && plain(items, k, order) && !used(k);
    ((sure || word) && !says).then_some(k)
}

/// The first item of a part that is no article or noun.
fn first_word(items: &Items<'_, '_>, from: usize, to: usize) -> Option<usize> {
    (from..to).find(|k| !items.any(*k, &["det.the", "noun.node", "noun.deployment", "noun.workload"]))
}

/// A word of the language, or an unknown one, that a name can be.
fn plain(items: &Items<'_, '_>, k: usize, order: Found) -> bool {
    let Some(item) = items.at(k).filter(|n| n.kind == Kind::Word && !n.text.contains(' ')) else {
        return false;
    };
    let letters = item.text.chars().any(char::is_alphabetic) && !item.text.contains('\'');
    // "search" and "chat" are names of deployments; "and report" is none.
    let deployment = matches!(order.act, Act::Scale | Act::Update | Act::Autoscale | Act::Rollback)
        || items.is(k.saturating_sub(1), "noun.deployment")
        || (order.at + 1..k).any(|m| items.is(m, "noun.deployment"));
    letters
        && !refs::LOOKS.contains(&item.text.as_str())
        && (item.senses.is_empty()
            || deployment && item.senses.iter().all(|s| matches!(s, "n" | "act.query" | "act.unsupported")))
}

/// Names without those that a correction takes back.
fn uncorrected(items: &Items<'_, '_>, mut names: Vec<Name>) -> Vec<Name> {
    names.sort_by_key(|n| n.at);
    names.dedup_by_key(|n| n.at);
    let Some(last) = names.last().map(|n| n.at) else { return names };
    // What stands between a name and a later one stands between it and the last: one look is enough.
    let corrected = (0..last).rev().find(|k| items.corrects(*k));
    names.retain(|n| n.at == last || corrected.is_none_or(|at| at < n.at));
    names
}

/// The names for which something holds, or all if it holds for none.
fn first_kept(names: Vec<Name>, holds: impl Fn(&Name) -> bool) -> Vec<Name> {
    let kept: Vec<Name> = names.iter().copied().filter(holds).collect();
    if kept.is_empty() { names } else { kept }
}

/// Names of different things.
fn distinct(draft: &Draft<'_, '_, '_>, names: &[Name], things: &[Thing]) -> Vec<Name> {
    let mut seen: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for name in names {
        let key = refs::key(draft, name.at, things);
        if !seen.contains(&key) {
            seen.push(key);
            found.push(*name);
        }
    }
    found
}
