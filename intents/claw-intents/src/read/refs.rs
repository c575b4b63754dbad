//! What a request refers to: nodes, deployments, workloads, tenants, metrics.

use crate::draft::Draft;
use crate::items::{Items, Kind};
use crate::text::Quote;

mod lookup;

pub(crate) use crate::items::is_name_like;
pub(crate) use lookup::{deployment, described, described_node, key, node, workload};

/// What sort of thing a reference is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thing {
    Node,
    Deployment,
    Workload,
}

impl Thing {
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Node => "noun.node",
            Self::Deployment => "noun.deployment",
            Self::Workload => "noun.workload",
        }
    }
}

/// Words that never name anything where they stand behind a noun.
const FUNCTION: &[&str] = &[
    "on",
    "to",
    "from",
    "of",
    "with",
    "and",
    "or",
    "as",
    "det.a",
    "det.the",
    "det.all",
    "x",
    "not",
    "no",
    "max",
    "min",
    "cond",
    "deadline",
    "notbefore",
    "for",
    "polite",
    "every",
    "each",
    "since",
    "correct",
    "except",
    "insteadof",
    "instead",
    "noun.node",
    "noun.deployment",
    "noun.workload",
    "noun.replica",
    "noun.gpu",
    "times",
    "between",
    "pron.one",
    "force",
    "grace.no",
    "grace.yes",
    "noun.revision",
    "ago",
    "vague",
    "noun.image",
    "noun.label",
    "noun.priority",
    "det.that",
    "cmp.gt",
    "cmp.lt",
    "noun.port",
    "noun.grace",
    "act.autoscale",
    "strategy.rolling",
    "strategy.canary",
];

/// Verbs of looking, which name nothing where they are no orders: "we see much load on chat".
pub(crate) const LOOKS: &[&str] = &["see", "show", "list", "get", "give", "view", "display", "tell", "fetch", "find"];

/// Whether the item at a place can be a name.
pub(crate) fn can_name(items: &Items<'_, '_>, i: usize) -> bool {
    let Some(item) = items.at(i) else {
        return false;
    };
    match item.kind {
        Kind::Word => {
            if item.known || is_name_like(&item.text) && !item.text.contains(' ') {
                return true;
            }
            let function = LOOKS.contains(&item.text.as_str())
                || item.senses.iter().any(|s| {
                    // "tagger" is no slip of "tagged" where a name stands.
                    FUNCTION.contains(&s) && !(item.corrected && s == "noun.label")
                        || s.starts_with("sym.")
                        || s.starts_with("state.")
                        || s.starts_with("day.")
                        || s.starts_with("env.")
                        || s.starts_with("quant.")
                });
            !function && !item.text.contains(' ') && item.text.chars().any(char::is_alphabetic)
        }
        Kind::Quote(Quote::Marks | Quote::Code) => {
            !item.text.trim().is_empty() && !item.text.trim().contains(char::is_whitespace)
        }
        _ => false,
    }
}

/// The name at a place as written.
pub(crate) fn name_of(items: &Items<'_, '_>, i: usize) -> String {
    let item = &items.list[i];
    if let Kind::Quote(_) = item.kind {
        return item.text.trim().to_owned();
    }
    let raw = items.raw(i);
    raw.strip_suffix("'s").or_else(|| raw.strip_suffix("’s")).unwrap_or(raw).to_owned()
}

/// The item that names a thing beside its noun: "node gpu-1", "the chat deployment".
pub(crate) fn beside_noun(draft: &Draft<'_, '_, '_>, thing: Thing) -> Option<usize> {
    let all = beside_nouns(draft.items, &|k| draft.is_used(k), thing);
    all.into_iter().fold(None, |found, k| Some(prefer(draft.items, found, k)))
}

/// Every item that names a thing beside its noun.
pub(crate) fn beside_nouns(items: &Items<'_, '_>, used: &dyn Fn(usize) -> bool, thing: Thing) -> Vec<usize> {
    let mut found = Vec::new();
    for i in 0..items.len() {
        if !items.is(i, thing.noun()) {
            continue;
        }
        let mut k = i + 1;
        while items.punct(k, ':')
            || items.punct(k, '#')
            || items.at(k).is_some_and(|n| {
                matches!(n.text.as_str(), "id" | "named" | "called" | "with id" | "name")
                    || n.kind == Kind::Word && n.senses.has("as") && n.text != "as"
            })
        {
            k += 1;
        }
        let metric = items.at(k).is_some_and(|n| !n.known && n.senses.iter().any(|s| s.starts_with("metric.")));
        // "deployment quick to low": a word that means little elsewhere, where only a name can stand.
        let small = items.list[i].text == "deployment" && k == i + 1 && headed(items, k) && is_small(items, k);
        let named = (can_name(items, k) || small) && !metric
            || matches!(items.at(k).map(|n| &n.kind), Some(Kind::Model(_) | Kind::Gpu { .. } | Kind::Image))
                && k == i + 1
                && !items.list[i].text.ends_with('s');
        let plural = items.list[i].text.ends_with('s') && items.list[i].text != "process" && thing != Thing::Node;
        let word = items.at(k).map_or("", |n| n.text.as_str());
        // Behind a plural, or a noun that ends its phrase, only what looks like a name is one.
        let sure = named
            && (is_name_like(word)
                || items.at(k).is_some_and(|n| {
                    n.known
                        || n.senses.is_empty()
                        || matches!(n.kind, Kind::Model(_) | Kind::Quote(_))
                        || !plural && (!verb_like(items, k) || k == i + 1 && headed(items, k))
                }));
        // "stop deployment staging": the name of a place where one runs, if nothing else names it.
        let sure = sure
            || thing == Thing::Deployment
                && !plural
                && k == i + 1
                && items.at(k).is_some_and(|n| n.kind == Kind::Word && n.senses.after("env.").is_some())
                && (items.ends_clause(k + 1) || items.any(k + 1, &["to", "polite", "now"]))
                && !(i > 0 && items.any(i - 1, &["to", "on"]));
        // A plain word of the language is a name only of a deployment.
        let plain = items.at(k).is_some_and(|n| !n.known && n.senses.has("n") && !is_name_like(word));
        let inflected = ["ed", "ing", "s", "ly"].iter().any(|end| word.ends_with(end));
        let sure = sure && !(plain && (thing != Thing::Deployment || inflected || k != i + 1));
        // "chat-eu deployment: set …": what stands before the noun is more of a name.
        let order = items.at(k).is_some_and(|n| !n.known && n.senses.iter().any(|s| s.starts_with("act.")));
        let before = i > 0 && order && !is_name_like(word) && before_noun(items, used, i, thing).is_some();
        if sure && !before && (!plural || is_name_like(word)) && !used(k) {
            found.push(k);
            continue;
        }
        if let Some(before) = before_noun(items, used, i, thing) {
            found.push(before);
        }
    }
    found
}

/// "deployment billing to acme/b:2", "deployment metrics: 3 replicas": what is ordered of it follows.
fn headed(items: &Items<'_, '_>, k: usize) -> bool {
    let arrow = matches!(items.list.get(k + 1).map(|n| n.text.as_str()), Some("to" | "from" | "→" | "->" | "onto"));
    arrow
        || items.punct(k + 1, ':')
        || items.at(k + 1).is_some_and(|n| matches!(n.text.as_str(), "needs" | "gets" | "must" | "has" | "should"))
}

/// A word such as "quick", that is none of those that go with a verb.
fn is_small(items: &Items<'_, '_>, k: usize) -> bool {
    const NONE: &[&str] = &[
        "back",
        "again",
        "also",
        "still",
        "now",
        "over",
        "just",
        "only",
        "that",
        "this",
        "then",
        "already",
        "currently",
        "really",
        "always",
        "together",
        "instead",
        "once",
        "even",
        "ever",
    ];
    items.at(k).is_some_and(|n| {
        let plain = n.kind == Kind::Word && n.text.len() > 3 && n.text.chars().all(char::is_alphabetic);
        plain
            && n.senses.iter().all(|s| s == "x" || s == "n")
            && !NONE.contains(&n.text.as_str())
            && !n.text.ends_with("ly")
    })
}

/// A verb or a thing to read that stands behind a noun and is no name.
fn verb_like(items: &Items<'_, '_>, k: usize) -> bool {
    let item = &items.list[k];
    let strong = item.senses.iter().any(|s| {
        matches!(s, "act.scale" | "act.drain" | "act.diagnose" | "act.alert" | "act.rollback" | "act.stop")
            || s.starts_with("subj.") && s != "subj.workloads"
    });
    strong || item.corrected
}

/// Of two names the one that a correction put last, else the first.
fn prefer(items: &Items<'_, '_>, old: Option<usize>, new: usize) -> usize {
    match old {
        Some(old) if !items.corrects_between(old, new) => old,
        _ => new,
    }
}

/// "the chat deployment": a name before its noun.
fn before_noun(items: &Items<'_, '_>, used: &dyn Fn(usize) -> bool, i: usize, thing: Thing) -> Option<usize> {
    let k = i.checked_sub(1)?;
    // "kiwi-bot (deployment)"
    let k = if items.punct(k, '(') && items.punct(i + 1, ')') { k.checked_sub(1)? } else { k };
    let item = items.at(k)?;
    if used(k) || item.text.contains(' ') || item.corrected {
        return None;
    }
    let raw_word = item.kind == Kind::Word && (item.known || is_name_like(&item.text));
    let article = k > 0 && (items.any(k - 1, &["det.the", "on", "of"]) || items.list[k - 1].text.ends_with(" the"));
    // "parser deployment wants a larger disk": an unknown word that begins a clause or is an order's object.
    let heads = k == 0
        || items.ends_clause(k - 1)
        || items.at(k - 1).is_some_and(|n| n.senses.iter().any(|s| s.starts_with("act.") || s == "polite"));
    let plain_word = item.senses.iter().all(|s| matches!(s, "n" | "act.query"));
    let article = article || heads && plain_word && items.list[i].text == "deployment" && k == i - 1;
    let plain = item.kind == Kind::Word
        && article
        && thing != Thing::Node
        && item.senses.iter().all(|s| matches!(s, "act.query" | "subj.workloads" | "act.unsupported" | "act.update"))
        && !matches!(item.text.as_str(), "running" | "last" | "new");
    (raw_word || plain).then_some(k)
}

/// Words by which something is said to have to be otherwise.
const MODALS: &[&str] = &[
    "should",
    "needs",
    "must",
    "has to",
    "ought",
    "shall",
    "wants",
    "soll",
    "braucht",
    "muss",
    "necesita",
    "debe",
    "doit",
    "需要",
    "gets",
    "needs to",
    "should now",
    "gotta",
];

/// "the mistral deployment should …": a deployment that is said by its noun, and not by its name.
pub(crate) fn modal_noun(items: &Items<'_, '_>) -> Option<usize> {
    (1..items.len())
        .find(|i| items.is(*i, "noun.deployment") && items.at(i + 1).is_some_and(|n| MODALS.contains(&n.text.as_str())))
}

/// "chat should use …", "search needs …": the name that a wish begins with.
pub(crate) fn modal_subject(items: &Items<'_, '_>) -> Option<usize> {
    (0..items.len()).find(|i| {
        let named = items.at(*i).is_some_and(|n| {
            n.kind == Kind::Word
                && !n.text.contains(' ')
                && (n.known
                    || n.senses.is_empty() && is_name_like(&n.text)
                    || n.senses.iter().all(|s| matches!(s, "act.query" | "act.unsupported")))
                && n.text.chars().any(char::is_alphabetic)
        });
        let starts =
            *i == 0 || items.ends_clause(i - 1) || items.any(i - 1, &["noun.deployment", "polite", "greeting"]);
        // "brain: 3 replicas": a word of the language too, as a heading.
        let heading = items.punct(i + 1, ':')
            && items.at(*i).is_some_and(|n| {
                n.kind == Kind::Word && n.senses.iter().all(|s| s == "n") && n.text.chars().all(char::is_alphabetic)
            });
        (named || heading)
            && starts
            && (items.punct(i + 1, ':') || items.at(i + 1).is_some_and(|n| MODALS.contains(&n.text.as_str())))
    })
}

/// The first item that looks like a name, or is one of the context, and gave nothing yet.
pub(crate) fn name_like(draft: &Draft<'_, '_, '_>) -> Option<usize> {
    let items = draft.items;
    let mut found: Option<usize> = None;
    for i in 0..items.len() {
        let Some(item) = items.at(i) else {
            continue;
        };
        let likely = item.kind == Kind::Word && (item.known || item.senses.is_empty() && is_name_like(&item.text));
        if likely && !draft.is_used(i) {
            found = Some(prefer(items, found, i));
        }
    }
    found
}

/// The object of an order: the first plain word behind it that can be a name.
pub(crate) fn object(draft: &Draft<'_, '_, '_>, verb: usize) -> Option<usize> {
    let items = draft.items;
    let free = |k: usize| !draft.is_used(k);
    let mut k = verb + 1;
    while k < items.len()
        && items.any(k, &["det.the", "det.a", "polite", "x", "of", "on", "as"])
        && !items.list[k].known
    {
        k += 1;
    }
    // "portal is overloaded, scale it": what "it" stands for was named first.
    if items.is(verb + 1, "det.that")
        && let Some(named) = (0..verb).find(|k| {
            items.at(*k).is_some_and(|n| {
                n.known || n.kind == Kind::Word && n.senses.is_empty() && n.text.chars().any(char::is_alphabetic)
            }) && free(*k)
        })
    {
        return Some(named);
    }
    // "how it was before the update": what was done names nothing.
    let done = |k: usize| {
        items.at(k).is_some_and(|n| {
            matches!(
                n.text.as_str(),
                "update" | "release" | "rollout" | "deploy" | "upgrade" | "change" | "version" | "build"
            )
        })
    };
    if can_name(items, k) && free(k) && !(done(k) && k > verb + 1) {
        return Some(k);
    }
    // Any unknown word of the clause behind the order, then before it.
    let unknown = |k: &usize| {
        items.at(*k).is_some_and(|n| {
            n.kind == Kind::Word && (n.senses.is_empty() || n.corrected) && n.text.chars().any(char::is_alphabetic)
        }) && free(*k)
    };
    (verb + 1..items.len())
        .take_while(|k| !items.ends_sentence(*k))
        .find(unknown)
        // "helpdesk answers in klingon, go back to the previous revision": what a sentence begins with.
        .or_else(|| (0..verb).find(|k| (*k == 0 || items.ends_clause(k - 1)) && unknown(k)))
        .or_else(|| (0..=verb.min(items.len().saturating_sub(1))).rev().find(unknown))
        .or_else(|| (0..items.len()).find(|k| *k != verb && plain_name(items, *k) && free(*k)))
}

/// "roll back to rev 40 on writer", "writer, rev 40": a plain noun where only a name can stand.
fn plain_name(items: &Items<'_, '_>, k: usize) -> bool {
    let noun =
        items.at(k).is_some_and(|n| n.kind == Kind::Word && n.senses.has("n") && n.senses.iter().all(|s| s == "n"));
    let measured = k > 1 && items.at(k - 2).is_some_and(|n| n.senses.after("metric.").is_some());
    let alone = items.ends_clause(k + 1) || items.is(k + 1, "noun.revision") || measured;
    let placed = k > 0 && items.any(k - 1, &["on", "of", "for"]) || k == 0 || items.ends_clause(k - 1);
    noun && alone && placed
}

/// A tenant that the words name, and its item.
pub(crate) fn tenant(items: &Items<'_, '_>) -> Option<(String, usize)> {
    const NO_NAMES: &[&str] = &["my", "our", "own", "quota", "usage", "id", "status", "logs", "costs", "data"];
    for i in 0..items.len() {
        if !items.is(i, "noun.tenant") || items.list[i].text.ends_with('s') {
            continue;
        }
        let mut k = i + 1;
        while items.punct(k, ':') || items.punct(k, '=') || items.at(k).is_some_and(|n| n.text == "id") {
            k += 1;
        }
        // "the tenant is ledgerline"; but not "is over its quota".
        let is = items.at(k).is_some_and(|n| matches!(n.text.as_str(), "is" | "ist" | "es" | "est"));
        if is && items.at(k + 1).is_some_and(|n| n.senses.is_empty() || n.known) && items.ends_clause(k + 2) {
            k += 1;
        }
        let quoted = |k: usize| matches!(items.list[k].kind, Kind::Quote(_));
        let named = |k: usize| can_name(items, k) && (quoted(k) || !NO_NAMES.contains(&items.list[k].text.as_str()));
        if named(k) {
            return Some((name_of(items, k), k));
        }
        if let Some(before) = i
            .checked_sub(1)
            .filter(|k| named(*k) && (items.list[*k].senses.is_empty() || *k > 0 && items.is(k - 1, "det.the")))
        {
            return Some((name_of(items, before), before));
        }
    }
    None
}

/// The metric that the words name, and its item: the longest phrase that names one.
pub(crate) fn metric(items: &Items<'_, '_>, from: usize) -> Option<(usize, &'static str)> {
    let mut best: Option<(usize, usize, &'static str)> = None;
    for i in from..items.len() {
        let Some(item) = items.at(i).filter(|item| item.kind == Kind::Word) else {
            continue;
        };
        let Some(metric) = item.senses.after("metric.") else {
            continue;
        };
        let len = item.text.chars().count();
        let weak = matches!(
            item.text.as_str(),
            "memory"
                | "mem"
                | "load"
                | "queue"
                | "errors"
                | "error"
                | "down"
                | "silent"
                | "degrees"
                | "celsius"
                | "dies"
                | "idle"
                | "missing"
                | "lost"
                | "usage"
                | "busy"
                | "500s"
                | "hot"
                | "power"
                | "watts"
                | "watt"
        );
        let score = if weak { len } else { len + 40 };
        if best.is_none_or(|(_, old, _)| score > old) {
            best = Some((i, score, metric));
        }
    }
    let (at, _, metric) = best?;
    // "GPU memory" in two items.
    Some((at, metric))
}

/// A threshold of a metric at an item, in the metric's unit.
pub(crate) fn threshold(items: &Items<'_, '_>, k: usize, metric: &str) -> Option<f64> {
    let item = items.at(k)?;
    let plain = items.num(k);
    match metric {
        "gpu_temperature_celsius" => {
            let fahrenheit = items.qty(k, "unit.fahrenheit").map(|f| (f - 32.0) * 5.0 / 9.0);
            fahrenheit.or_else(|| items.qty(k, "unit.celsius")).or(plain)
        }
        "gpu_power_watts" => {
            items.qty(k, "unit.watt").or_else(|| items.qty(k, "unit.kilowatt").map(|kw| kw * 1_000.0)).or(plain)
        }
        "latency_p99_ms" => match item.kind {
            Kind::Qty(n) if items.is(k, "unit.ms") => Some(n),
            Kind::Qty(n) if items.is(k, "unit.s") => Some(n * 1_000.0),
            _ => plain,
        },
        "queue_depth" => plain,
        "node_unreachable" => None,
        _ => {
            let share = match item.kind {
                Kind::Share(share) => Some(share * 100.0),
                _ => None,
            };
            items.qty(k, "unit.percent").or(plain).or(share)
        }
    }
}
