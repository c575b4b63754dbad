//! Which operation a request asks for.
//!
//! Every phrase that may be an order is weighed by where it stands: at the start
//! of a clause, behind "please" or "can you" it is one; behind an article or a
//! preposition it is a noun.

use crate::items::{Item, Items, Kind, Listed};

/// An operation, before its fields are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    Run,
    Train,
    Serve,
    Deploy,
    Update,
    Scale,
    Autoscale,
    Stop,
    Rollback,
    Drain,
    Undrain,
    Diagnose,
    Query,
    Alert,
    Bid,
    Offer,
    Unsupported,
}

/// An operation's phrase in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) act: Act,
    /// Its item.
    pub(crate) at: usize,
    /// How surely it is an order there: 0 to 3.
    pub(crate) strength: u32,
}

const TABLE: &[(&str, Act, u32)] = &[
    ("act.run", Act::Run, 4),
    ("act.train", Act::Train, 5),
    ("act.serve", Act::Serve, 5),
    ("act.deploy", Act::Deploy, 6),
    ("act.update", Act::Update, 5),
    ("act.scale", Act::Scale, 6),
    ("act.autoscale", Act::Autoscale, 4),
    ("act.stop", Act::Stop, 6),
    ("act.rollback", Act::Rollback, 8),
    ("act.drain", Act::Drain, 7),
    ("act.undrain", Act::Undrain, 8),
    ("act.diagnose", Act::Diagnose, 8),
    ("act.query", Act::Query, 3),
    ("act.alert", Act::Alert, 9),
    ("act.bid", Act::Bid, 7),
    ("act.offer", Act::Offer, 7),
    ("act.unsupported", Act::Unsupported, 2),
];

/// How much one operation's phrase outweighs another's where both are as sure.
pub(crate) fn weight(act: Act) -> u32 {
    TABLE.iter().find(|(_, a, _)| *a == act).map_or(0, |(.., weight)| *weight)
}

/// So many phrases that may be orders are looked at: each is weighed against the whole request, and nobody gives more.
const PHRASES_MAX: usize = 64;

/// Every phrase that may be an order, in the order of the text.
pub(crate) fn find(items: &Items<'_, '_>) -> Vec<Found> {
    let mut found = Vec::new();
    for i in 0..items.len() {
        if found.len() >= PHRASES_MAX {
            break;
        }
        let Some(item) = items.at(i) else {
            continue;
        };
        let phrase = item.text.contains(' ');
        if item.corrected && !phrase && !starts_clause(items, i) && !follows_request(items, i) {
            continue;
        }
        // Words in the middle of a number or a name are none.
        if item.kind != Kind::Word || item.known && i > 0 && !starts_clause(items, i) {
            continue;
        }
        for (sense, act, _) in TABLE {
            let item = &item.clone();
            if item.senses.has(sense) && !negated(items, i) && stands(items, i, item, *act) {
                found.push(Found { act: *act, at: i, strength: strength(items, i, item) });
            }
        }
    }
    parted(items, &mut found);
    moved_off(items, &mut found);
    in_two_parts(items, &mut found);
    caused(items, &mut found);
    found
}

/// The operation that a meaning such as `act.stop` names.
fn act_of(sense: &str) -> Option<Act> {
    TABLE.iter().find(|(name, ..)| *name == sense).map(|(_, act, _)| *act)
}

/// Phrases of the lexicon in two parts: "take gpu-3 out of rotation".
fn in_two_parts(items: &Items<'_, '_>, found: &mut Vec<Found>) {
    for i in 0..items.len() {
        if !(starts_clause(items, i) || follows_request(items, i)) || negated(items, i) {
            continue;
        }
        let acts = items.gaps(i).into_iter().filter_map(|(sense, _)| act_of(sense));
        found.extend(acts.map(|act| Found { act, at: i, strength: 3 }));
    }
}

/// "get chat-eu stopped", "I want gpu-3 drained": what somebody wants to be done.
fn caused(items: &Items<'_, '_>, found: &mut Vec<Found>) {
    for i in 2..items.len() {
        let Some(done) = items.at(i).and_then(|n| n.senses.after("past.")) else {
            continue;
        };
        let Some(act) = TABLE.iter().find(|(sense, ..)| sense.strip_prefix("act.") == Some(done)).map(|t| t.1) else {
            continue;
        };
        // "gpu-3 should be drained", "chat is to be stopped"
        if items.list[i - 1].text == "be" || items.list[i - 1].text.ends_with(" be") {
            if !negated(items, i - 1) && !negated(items, i) {
                found.push(Found { act, at: i, strength: 2 });
            }
            continue;
        }
        // "get the stopped jobs": a thing's state.
        let state = items.any(i - 1, &["det.the", "det.a", "det.all"])
            || items.any(i + 1, &["noun.workload", "noun.deployment", "noun.node"]);
        let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
        let cause = (start..i - 1).rev().find(|k| items.is(*k, "cause") && !negated(items, *k));
        let asks = |k: usize| items.any(k, &["act.query", "act.diagnose"]) && !items.is(k, "cause");
        if let Some(cause) = cause
            && !state
            && !(start..i).any(asks)
        {
            found.push(Found { act, at: cause, strength: 3 });
        }
    }
}

/// Orders in two parts: "take X down", "put X on the market", "set X back to 3".
fn parted(items: &Items<'_, '_>, found: &mut Vec<Found>) {
    const VERBS: &[&str] = &[
        "take", "bring", "tear", "turn", "switch", "put", "list", "place", "set", "move", "get", "pull", "fahr",
        "mets", "pon", "stell", "schalte", "offering", "make",
    ];
    for i in 0..items.len() {
        let verb = items.at(i).is_some_and(|n| VERBS.contains(&n.text.as_str()));
        if !verb || !(starts_clause(items, i) || follows_request(items, i)) || negated(items, i) {
            continue;
        }
        for k in i + 1..items.len() {
            if items.ends_sentence(k) {
                break;
            }
            if let Some(act) = second_part(items, i, k) {
                found.push(Found { act, at: i, strength: 3 });
            }
        }
    }
}

/// What a verb at `i` and a word at `k` say together.
fn second_part(items: &Items<'_, '_>, i: usize, k: usize) -> Option<Act> {
    let item = items.at(k)?;
    let verb = items.list[i].text.as_str();
    let number = items.num(k + 1).is_some()
        || items.is(k + 1, "to") && items.num(k + 2).is_some()
        || is_revision(items, k + 1)
        || items.is(k + 1, "det.a") && items.is(k + 2, "noun.replica")
        || items.is(k + 1, "to") && items.is(k + 2, "det.a") && items.is(k + 3, "noun.replica");
    let work = |m: usize| {
        items.is(m, "noun.workload") && items.list[m].text.ends_with('s')
            || items.is(m, "det.all")
            || items.list[m].text == "work"
    };
    match item.text.as_str() {
        "down" | "down to" | "up" | "up to"
            if number && matches!(verb, "take" | "bring" | "get" | "turn" | "pull" | "set") =>
        {
            Some(Act::Scale)
        }
        "down" | "offline" if !number && !matches!(verb, "put" | "list" | "place" | "set" | "move" | "get") => {
            Some(Act::Stop)
        }
        "off" | "off it" | "off that" if matches!(verb, "get" | "move" | "take" | "pull") && (i..k).any(work) => {
            Some(Act::Drain)
        }
        // "switch chat off the H100s" moves it.
        "off"
            if matches!(verb, "turn" | "switch" | "take")
                && !items.any(k + 1, &["det.the", "det.a"])
                && !matches!(items.at(k + 1).map(|n| &n.kind), Some(Kind::Gpu { .. })) =>
        {
            Some(Act::Stop)
        }
        // "back to the previous revision", "back by one revision"
        "back" | "back to" | "back by" | "zurück"
            if number
                || (k + 1..k + 4)
                    .take_while(|m| !items.ends_clause(*m))
                    .any(|m| items.any(m, &["noun.revision", "noun.prev"])) =>
        {
            Some(Act::Rollback)
        }
        _ if item.senses.has("market")
            && matches!(verb, "put" | "list" | "place" | "offering" | "pon" | "mets" | "stell" | "make") =>
        {
            Some(Act::Offer)
        }
        _ => None,
    }
}

/// "shift all jobs away from gpu-3", "kick everybody off the node": work that is taken from a node.
fn moved_off(items: &Items<'_, '_>, found: &mut Vec<Found>) {
    const AWAY: &[&str] = &["off", "off of", "away", "away from", "from", "out", "out of", "elsewhere"];
    for i in 0..items.len() {
        let Some((work, end)) = moved_work(items, i).filter(|(work, end)| !moved_to(items, work + 1, *end)) else {
            continue;
        };
        // "get all jobs on gpu-3" looks; to evict them is to take them from there, whatever follows.
        let says = |k: usize| items.at(k).is_some_and(|n| AWAY.contains(&n.text.as_str()));
        let heading =
            i > 1 && items.punct(i - 1, ':') && matches!(items.list[i].text.as_str(), "remove" | "clear" | "move");
        if items.is(i, "moves.away") || heading || (work + 1..end).any(says) {
            found.push(Found { act: Act::Drain, at: i, strength: 3 });
        }
    }
}

/// Whether a request moves work to a node of its choice: "move all jobs on gpu-3 to gpu-4".
pub(crate) fn moves_to_node(items: &Items<'_, '_>) -> bool {
    (0..items.len()).any(|i| moved_work(items, i).is_some_and(|(work, end)| moved_to(items, work + 1, end)))
}

/// All the work that an order at `i` moves, beside a machine, and the end of its sentence.
fn moved_work(items: &Items<'_, '_>, i: usize) -> Option<(usize, usize)> {
    let verb = items.is(i, "moves") && (starts_clause(items, i) || follows_request(items, i));
    if !verb || negated(items, i) {
        return None;
    }
    let end = (i..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    let work = |k: usize| {
        items.is(k, "noun.workload") && items.list[k].text.ends_with('s')
            || items.is(k, "det.all") && items.list[k].text.starts_with("every")
            || matches!(items.list[k].text.as_str(), "work" | "everybody" | "everyone")
    };
    let work = (i + 1..end.min(i + 6)).find(|k| work(*k))?;
    // "migrate everything away from q-1": what work is taken from is a machine.
    let left = |k: usize| {
        matches!(items.list[k].text.as_str(), "from" | "away from" | "off" | "off of")
            && items
                .at(k + 1)
                .is_some_and(|n| n.kind == Kind::Word && n.senses.is_empty() && crate::items::is_name_like(&n.text))
    };
    // "ws-9: remove all workloads"
    let heading = i > 1 && items.punct(i - 1, ':') && is_machine(items, i - 2);
    (heading || (work + 1..end).any(|k| is_machine(items, k) || left(k))).then_some((work, end))
}

/// Whether a named node stands behind "to" in a part of a request.
fn moved_to(items: &Items<'_, '_>, from: usize, end: usize) -> bool {
    (from..end).any(|k| {
        let to = matches!(items.list[k].text.as_str(), "to" | "onto" | "into" | "over to");
        let at = if items.is(k + 1, "det.the") { k + 2 } else { k + 1 };
        to && is_machine(items, at) && !(items.is(at, "noun.node") && items.list[at].text.ends_with('s'))
    })
}

/// Whether a node's noun or name stands at a place.
fn is_machine(items: &Items<'_, '_>, k: usize) -> bool {
    items.is(k, "noun.node") || items.at(k).is_some_and(|n| n.node_like || n.listed == Some(Listed::Node))
}

/// "r14", "v3", "rev7".
fn is_revision(items: &Items<'_, '_>, i: usize) -> bool {
    items.at(i).is_some_and(|n| {
        !n.known
            && ["rev", "r", "v"].iter().any(|head| {
                n.text.strip_prefix(head).is_some_and(|no| !no.is_empty() && no.bytes().all(|b| b.is_ascii_digit()))
            })
    })
}

/// The strongest phrase for an operation.
pub(crate) fn best(found: &[Found]) -> Option<Found> {
    found
        .iter()
        .copied()
        .filter(|f| f.strength > 0)
        .max_by_key(|f| (f.strength, weight(f.act), std::cmp::Reverse(f.at)))
}

/// Whether an item begins a clause.
pub(crate) fn starts_clause(items: &Items<'_, '_>, i: usize) -> bool {
    let Some(k) = i.checked_sub(1) else {
        return true;
    };
    items.ends_clause(k)
        || matches!(items.list[k].kind, Kind::Punct('-' | '(' | '…' | '>' | '*' | '•' | '🙏'))
        || matches!(items.list[k].text.as_str(), "→" | "->" | "=>")
        || matches!(items.list[k].kind, Kind::Quote(_))
        || is_emoji(&items.list[k])
}

fn is_emoji(item: &Item<'_>) -> bool {
    matches!(item.kind, Kind::Punct(c) if u32::from(c) >= 0x2600)
}

/// Whether a phrase can be an order at all where it stands.
fn stands(items: &Items<'_, '_>, i: usize, item: &Item<'_>, act: Act) -> bool {
    match act {
        // "ship it", "end", "spot": one short word that is more often a noun.
        // "restart on failure" is a setting; "restart the api deployment" is an order.
        Act::Unsupported if item.senses.has("verb.thing") => {
            let first = starts_clause(items, i) || follows_request(items, i) || items.list[i - 1].text == "also";
            first && restarts_a_thing(items, i + 1)
        }
        // "deployment paint", "paint: 3 replicas": a name.
        Act::Unsupported
            if i > 0 && items.any(i - 1, &["noun.deployment", "noun.workload", "noun.node"])
                || items.punct(i + 1, ':') =>
        {
            false
        }
        Act::Unsupported => starts_clause(items, i) || follows_request(items, i) || i <= 3,
        // "deployment search": a name.
        Act::Query if i > 0 && items.is(i - 1, "noun.deployment") && !items.list[i - 1].text.ends_with('s') => false,
        // "search went bad": a name, of which something is told.
        Act::Query
            if matches!(item.text.as_str(), "search" | "report" | "count")
                && items.at(i + 1).is_some_and(|n| {
                    matches!(
                        n.text.as_str(),
                        "is" | "was" | "went" | "has" | "needs" | "keeps" | "should" | "does" | "can" | "gets"
                    )
                }) =>
        {
            false
        }
        // "we see much load": what somebody sees is no order.
        Act::Query if item.text == "see" && told_by(items, i) => false,
        Act::Query | Act::Run => !item.text.contains('?'),
        _ => true,
    }
}

/// Whether a verb is said of people rather than asked for: "we see", but not "can we see".
fn told_by(items: &Items<'_, '_>, i: usize) -> bool {
    let text = |k: Option<usize>| k.and_then(|k| items.at(k)).map_or("", |n| n.text.as_str());
    let who = matches!(text(i.checked_sub(1)), "i" | "we" | "they" | "you" | "people" | "users");
    who && !matches!(text(i.checked_sub(2)), "can" | "could" | "may" | "let" | "should" | "shall" | "so")
}

/// Whether the name of a thing, or the noun of one, stands here.
fn restarts_a_thing(items: &Items<'_, '_>, i: usize) -> bool {
    const NOUNS: &[&str] = &["noun.deployment", "noun.workload", "noun.node"];
    let i = if items.is(i, "det.the") { i + 1 } else { i };
    let named = |k: usize| {
        items.at(k).is_some_and(|n| {
            n.known
                || n.kind == Kind::Word
                    && n.senses.is_empty()
                    && n.text.chars().all(|c| c.is_alphanumeric() || c == '-')
        })
    };
    items.any(i, NOUNS) || named(i) || items.at(i).is_some_and(|n| n.kind == Kind::Word) && items.any(i + 1, NOUNS)
}

/// Whether an order is one not to do what it says.
pub(crate) fn negated(items: &Items<'_, '_>, i: usize) -> bool {
    if items.is(i, "act.diagnose") {
        return false;
    }
    (1..=2).any(|back| {
        i.checked_sub(back).is_some_and(|k| {
            items.is(k, "not") && (k + 1..i).all(|between| !items.ends_clause(between) && !items.is(between, "correct"))
        })
    }) || negated_behind(items, i)
}

/// "stoppe nicht job x-1", "leere gpu-1 nicht", "n'arrête pas": behind the verb, or last in its clause.
fn negated_behind(items: &Items<'_, '_>, i: usize) -> bool {
    let not = |k: usize| {
        items.at(k).is_some_and(|n| {
            matches!(n.text.as_str(), "nicht" | "nie" | "niemals" | "pas" | "jamais") && n.senses.has("not")
        })
    };
    let end = (i + 1..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    not(i + 1) || end > i + 1 && not(end - 1)
}

/// Whether a word of request stands before an item: "please", "can you", "and".
fn follows_request(items: &Items<'_, '_>, i: usize) -> bool {
    let Some(k) = i.checked_sub(1) else {
        return true;
    };
    items.any(k, &["polite", "and", "greeting", "correct", "cond"])
        || items.is(k, "x") && is_pronoun(&items.list[k].text)
}

fn is_pronoun(word: &str) -> bool {
    matches!(
        word,
        "i" | "we"
            | "you"
            | "i'll"
            | "we'll"
            | "they"
            | "it"
            | "do"
            | "should"
            | "must"
            | "will"
            | "shall"
            | "i've"
            | "we've"
            | "let"
            | "wir"
            | "ich"
            | "yeah"
            | "yes"
            | "well"
            | "always"
            | "really"
    )
}

fn strength(items: &Items<'_, '_>, i: usize, item: &Item<'_>) -> u32 {
    // "search auf Revision 7": a name that the context knows is a verb only where nothing else is one.
    if item.known && !item.text.contains(' ') {
        return 1;
    }
    let firm = item.senses.iter().any(|s| matches!(s, "act.drain" | "act.undrain" | "act.rollback"));
    if firm && item.text.contains(' ') && item.text != "for maintenance" {
        return 3;
    }
    if starts_clause(items, i) || follows_request(items, i) {
        return 3;
    }
    // "with autoscaling on", "the autoscaler of chat": it says what is wanted wherever it stands.
    if item.senses.has("act.autoscale") && item.text.contains("scal") {
        return 2;
    }
    let k = i - 1;
    // "we are ready to release …": a verb; "to release 5" is said of a revision.
    if items.list[k].text == "to" && items.num(i + 1).is_none() && k > 0 && !items.any(k - 1, &["act.rollback"]) {
        return 2;
    }
    if items.any(k, &["det.the", "det.a", "each", "of", "as", "with"])
        || items.any(k, &["on", "for", "no", "from", "every"])
    {
        // "the release", "on release": a noun; several words are rarely one.
        return u32::from(item.text.contains(' '));
    }
    if items.list[k].senses.iter().any(|s| s.starts_with("act.")) && !items.any(k, &["polite"]) {
        return 1;
    }
    if item.text.contains(' ') {
        return 2;
    }
    // Languages that put the verb last, or names before it.
    2
}
