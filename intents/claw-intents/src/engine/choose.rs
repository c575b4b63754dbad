//! Which of the orders in a request is the one.

use crate::act::{self, Act, Found};
use crate::items::{Items, Kind};
use crate::read::refs;

mod deployment;
mod fallback;
mod holds;
mod implied;

use self::deployment::of_deployment;
use self::fallback::fallback;
use self::holds::holds;
use self::implied::{alert_rule, returns};

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

/// "was deployment chat rolled back?": a question about what has been done.
fn asks_whether(items: &Items<'_, '_>, at: usize) -> bool {
    const HEADS: &[&str] = &["is", "was", "were", "are", "has", "had", "did"];
    let start = (0..at).rev().find(|k| items.ends_sentence(*k)).map_or(0, |k| k + 1);
    let end = (at..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    let thing = |k: usize| {
        items.any(k, &["noun.deployment", "noun.workload", "noun.node"])
            || items.at(k).is_some_and(|n| n.known || n.senses.is_empty() && crate::items::is_name_like(&n.text))
    };
    let named = thing(start + 1) || items.is(start + 1, "det.the") && (thing(start + 2) || thing(start + 3));
    start < at && items.at(start).is_some_and(|n| HEADS.contains(&n.text.as_str())) && named && items.punct(end, '?')
}

/// Whether the clause around a place has a meaning.
fn clause_says(items: &Items<'_, '_>, at: usize, sense: &str) -> bool {
    let from = (0..at).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    let to = (at..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    (from..to).any(|k| items.is(k, sense))
}

/// The order that a request gives.
pub(super) fn order(items: &Items<'_, '_>, found: &[Found]) -> Option<Found> {
    let topic = Topic::of(items);
    let real = real(items, found);
    let heading = |at: usize| {
        // "batch-7: acme/x:1 on two L4": a heading, not a deployment that is changed.
        items.punct(at + 1, ':')
            && (topic.image || topic.model)
            && topic.gpu
            && !items.list[at].known
            && !(at > 0 && items.is(at - 1, "noun.deployment"))
    };
    // "x-3: CUDA out of memory. Tried to allocate 2 GiB": what a program said is no size that is wanted.
    if act::best(&real).is_none() && fallback::trace(items) && named(items) {
        return Some(Found { act: Act::Diagnose, at: 0, strength: 1 });
    }
    // "radiology wants phi-4 on an L4": somebody, and no deployment that is changed.
    let somebody = |at: usize| {
        const WISHES: &[&str] = &["wants", "want", "would like", "asks for", "asked for", "wishes", "begs for"];
        items.list.get(at + 1).is_some_and(|n| WISHES.contains(&n.text.as_str()))
            && (topic.image || topic.model)
            && !items.list[at].known
            && !says(items, "noun.deployment")
    };
    if let Some(at) = refs::modal_subject(items).filter(|at| !heading(*at) && !somebody(*at))
        && act::best(&real).is_none_or(|best| best.strength < 3 || matches!(best.act, Act::Query))
        && (setting(items) || says(items, "noun.replica") || topic.model || sized(items, at))
    {
        let act = if says(items, "noun.replica") { Act::Scale } else { Act::Update };
        return Some(Found { act, at, strength: 2 });
    }
    // "the mistral deployment should use fp8": said of a deployment by its noun.
    if let Some(at) = refs::modal_noun(items).filter(|_| setting(items) && act::best(&real).is_none()) {
        return Some(Found { act: Act::Update, at, strength: 2 });
    }
    match act::best(&real).map(|best| corrected(items, best, &real)) {
        Some(best)
            if clause_says(items, best.at, "noun.unsupported")
                && !topic.workload()
                && matches!(best.act, Act::Update | Act::Run | Act::Stop | Act::Deploy | Act::Scale | Act::Serve) =>
        {
            Some(Found { act: Act::Unsupported, ..best })
        }
        // "what is the capital of France": nothing of this system is named.
        Some(best) if best.act == Act::Query && !ours(items, &topic, Some(best.at)) => {
            Some(Found { act: Act::Unsupported, ..best })
        }
        // "convert this pdf to word"
        Some(best) if best.act == Act::Update && foreign(items, best.at, &topic) => {
            Some(Found { act: Act::Unsupported, ..best })
        }
        Some(best) if asks_whether(items, best.at) && !matches!(best.act, Act::Diagnose | Act::Alert) => {
            Some(Found { act: Act::Query, ..best })
        }
        Some(best) if best.act == Act::Query && alert_rule(items).is_some() => {
            Some(Found { act: Act::Alert, at: alert_rule(items).unwrap_or(best.at), strength: 2 })
        }
        Some(best) if returns(items, &topic, Some(best)) => Some(Found { act: Act::Undrain, ..best }),
        None if returns(items, &topic, None) => Some(Found { act: Act::Undrain, at: 0, strength: 1 }),
        Some(best) => Some(amend(items, best, &real, &topic)),
        None if alert_rule(items).is_some() => {
            Some(Found { act: Act::Alert, at: alert_rule(items).unwrap_or_default(), strength: 2 })
        }
        None if asks_whether(items, items.len().saturating_sub(2)) => {
            Some(Found { act: Act::Query, at: 0, strength: 1 })
        }
        None => fallback(items, &topic, found),
    }
}

/// "chat needs more memory": a size behind its subject, whatever it shall be.
fn sized(items: &Items<'_, '_>, at: usize) -> bool {
    let end = (at..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    (at..end).any(|k| items.any(k, &["noun.memory", "noun.disk", "noun.shm", "noun.vram"])) && !asks(items)
}

/// "scale search to 2, no wait, scale chat to 2": the order that a correction put in place of one of its sort.
fn corrected(items: &Items<'_, '_>, best: Found, real: &[Found]) -> Found {
    let later = |f: &&Found| f.act == best.act && f.at > best.at && f.strength == best.strength;
    real.iter().rfind(|f| later(f) && items.corrects_between(best.at, f.at)).copied().unwrap_or(best)
}

/// What is only ever read, beside metrics.
const READ: &[&str] = &["subj.logs", "subj.costs", "subj.audit", "subj.events", "subj.alerts"];

/// "logs of the finance training": whether something that is only ever read is named.
fn reads(items: &Items<'_, '_>) -> bool {
    READ.iter().any(|subject| says(items, subject))
}

/// Whether an amount stands in a unit that only a metric has.
fn measured(items: &Items<'_, '_>) -> bool {
    const UNITS: &[&str] = &["unit.celsius", "unit.fahrenheit", "unit.ms", "unit.kilowatt"];
    (0..items.len()).any(|i| UNITS.iter().any(|unit| items.qty(i, unit).is_some()))
}

/// "more than 4 percent of the requests fail".
pub(super) fn share_fails(items: &Items<'_, '_>) -> bool {
    says(items, "sym.error") && (0..items.len()).any(|i| items.qty(i, "unit.percent").is_some())
}

/// Whether replicas shall follow a load, of nothing that is started here.
fn scales_itself(items: &Items<'_, '_>, topic: &Topic) -> bool {
    let word = || items.list.iter().any(|n| !n.masked && n.senses.has("act.autoscale") && n.text.contains("scal"));
    let started = topic.workload() || topic.code || says(items, "noun.workload") || says(items, "noun.image");
    !started && !asks(items) && (word() || crate::read::scale::holds_metric(items))
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
    // "mixtral on 8 GPUs, any model"
    let any = text == "any" && topic.model && !items.is(f.at + 1, "subj.logs");
    !(any || VAGUE.contains(&text) && topic.workload() && !says_any(items, "subj."))
}

fn asks(items: &Items<'_, '_>) -> bool {
    items.list.iter().any(|item| item.kind == Kind::Punct('?'))
}

/// Amends the strongest order by what else is said.
fn amend(items: &Items<'_, '_>, best: Found, all: &[Found], topic: &Topic) -> Found {
    let has = |act: Act| all.iter().copied().find(|f| f.act == act && f.strength >= 2);
    let text = items.list[best.at].text.as_str();
    let replicas = says(items, "noun.replica");
    if let Some(act) = of_deployment(items, best, topic) {
        return Found { act, ..best };
    }
    if let Some(found) = of_look(items, best, all, topic).or_else(|| of_scale(items, best, all, topic)) {
        return found;
    }
    match best.act {
        Act::Run if topic.workload() || topic.gpu || topic.code => {
            has(Act::Train).map_or(best, |f| Found { at: best.at, ..f })
        }
        Act::Run if !topic.workload() && !topic.code && says(items, "act.diagnose") => {
            Found { act: Act::Diagnose, ..best }
        }
        Act::Update | Act::Query | Act::Run | Act::Stop if says_back(items, best.at) && !topic.workload() => {
            Found { act: Act::Rollback, ..best }
        }
        // "put chat back to the previous revision"
        Act::Undrain
            if has(Act::Rollback).is_some() && !says(items, "noun.node") && !items.list.iter().any(|n| n.node_like) =>
        {
            has(Act::Rollback).unwrap_or(best)
        }
        Act::Rollback if taken_back(items, best.at).is_some_and(|k| items.is(k, "act.drain")) => {
            Found { act: Act::Undrain, ..best }
        }
        // "when the error rate is above 2 % notify me"
        Act::Query if matches!(text, "when" | "if") && has(Act::Alert).is_some() => has(Act::Alert).unwrap_or(best),
        // "部署 chat 为什么这么慢": what the verb names is a deployment, and why is asked.
        Act::Deploy if !topic.workload() && !topic.gpu && !topic.code => {
            let other = [Act::Diagnose, Act::Autoscale, Act::Scale, Act::Update].into_iter().find_map(has);
            // 部署 is the noun, too.
            let noun = text.chars().any(crate::text::is_ideograph);
            other.filter(|f| f.act == Act::Diagnose || noun).unwrap_or(best)
        }
        Act::Query => has(Act::Diagnose)
            .filter(|f| !(best.at.min(f.at)..best.at.max(f.at)).any(|k| items.ends_sentence(k)))
            .unwrap_or(best),
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
        _ => best,
    }
}

/// What is wanted where the words speak of replicas or of a load that they follow.
fn of_scale(items: &Items<'_, '_>, best: Found, all: &[Found], topic: &Topic) -> Option<Found> {
    let has = |act: Act| all.iter().copied().find(|f| f.act == act && f.strength >= 2);
    let replicas = says(items, "noun.replica");
    Some(match best.act {
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
        // "put gemma live in production on three replicas"
        Act::Scale if topic.workload() && has(Act::Deploy).is_some() => has(Act::Deploy).unwrap_or(best),
        // "run phi-4 on 1 H100 with 2 replicas"
        Act::Scale if (topic.model || topic.image) && topic.gpu => {
            *all.iter().find(|f| f.at == best.at && matches!(f.act, Act::Run | Act::Serve | Act::Train))?
        }
        // "set up an autoscaler for chat", "hold the utilization at 70 % with 2 to 6 replicas"
        Act::Run | Act::Update | Act::Query | Act::Scale
            if scales_itself(items, topic) && !(best.act == Act::Update && (setting(items) || changes_more(items))) =>
        {
            Found { act: Act::Autoscale, ..best }
        }
        _ => return None,
    })
}

/// What is wanted of what somebody asks to get or to see, where more than a look is.
fn of_look(items: &Items<'_, '_>, best: Found, all: &[Found], topic: &Topic) -> Option<Found> {
    let started = || {
        let has = |act: Act| all.iter().copied().find(|f| f.act == act && f.strength >= 2);
        [Act::Deploy, Act::Train, Act::Serve, Act::Run].into_iter().find_map(has)
    };
    let text = items.list[best.at].text.as_str();
    let market = says(items, "market");
    let index = (1..items.len()).any(|i| items.is(i - 1, "noun.gpu") && items.count(i).is_some());
    let act = match best.act {
        // "what is card 5 of gpu-3 doing, it is at 96 degrees": a reading that somebody worries about.
        Act::Query if text.starts_with("what") && index && measured(items) => Act::Diagnose,
        Act::Query if asks_of_symptom(items, text) => Act::Diagnose,
        Act::Query | Act::Run if prices(items) && market && topic.gpu && !topic.workload() => Act::Bid,
        Act::Query if prices(items) && (named(items) || topic.gpu) => {
            if topic.gpu && !lists(text) {
                Act::Bid
            } else {
                Act::Offer
            }
        }
        // "get 4 H100 from the market": what is bought has a number.
        Act::Query if obtains(text) && market && !topic.workload() && counts_gpus(items) => Act::Bid,
        Act::Query if obtains(text) && topic.gpu && !says_any(items, "subj.") && !market => Act::Run,
        Act::Query if topic.workload() && matches!(text, "get" | "see" | "give me" | "check") => return started(),
        _ => return None,
    };
    Some(Found { act, ..best })
}

/// "job x-1 is taking forever, what's up there?": a question about something that is said to go wrong.
fn asks_of_symptom(items: &Items<'_, '_>, text: &str) -> bool {
    const WRONG: &[&str] = &["sym.slow", "sym.crash", "sym.oom", "sym.overheating", "sym.unreachable"];
    const THINGS: &[&str] = &["subj.workloads", "subj.deployments", "subj.nodes", "subj.gpus"];
    let reads = |n: &crate::items::Item<'_>| {
        n.senses.iter().any(|s| s.starts_with("metric.") || s.starts_with("subj.") && !THINGS.contains(&s))
    };
    let wrong = |n: &crate::items::Item<'_>| {
        WRONG.iter().any(|s| n.senses.has(s)) && !n.senses.iter().any(|s| s.starts_with("state."))
    };
    let unmasked = || items.list.iter().filter(|n| !n.masked);
    let hot = text == "check" && measured(items) && unmasked().all(|n| n.senses.after("cmp.").is_none());
    (text.starts_with("what") || text == "check")
        && named(items)
        && (unmasked().any(wrong) && !unmasked().any(reads) || hot)
}

fn prices(items: &Items<'_, '_>) -> bool {
    items.list.iter().any(|n| matches!(n.kind, Kind::Money(_)))
}

/// Words that ask for a thing rather than for a look at it.
fn obtains(text: &str) -> bool {
    matches!(text, "get" | "give me" | "give us" | "fetch")
}

/// "4 A100", "two H100s".
fn counts_gpus(items: &Items<'_, '_>) -> bool {
    (1..items.len()).any(|i| {
        matches!(items.at(i).map(|n| &n.kind), Some(Kind::Gpu { .. }))
            && (items.num(i - 1).is_some() || items.is(i - 1, "times"))
    })
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

/// Whether something is said to be wrong; "temperature" alone is a thing to read.
fn symptom(items: &Items<'_, '_>) -> bool {
    items
        .list
        .iter()
        .any(|n| !n.masked && !n.senses.has("subj.metrics") && n.senses.iter().any(|s| s.starts_with("sym.")))
}

/// Whether anything of this system is named, beside a verb of one word such as "print".
fn ours(items: &Items<'_, '_>, topic: &Topic, verb: Option<usize>) -> bool {
    const OURS: &[&str] = &["subj.", "metric.", "noun.cluster", "sym.", "state.", "noun.tenant", "act.stop", "market"];
    let told = items.list.iter().enumerate().any(|(k, n)| {
        let own = verb == Some(k) && !n.text.contains(' ') && n.senses.has("act.query");
        !n.masked && !own && n.senses.iter().any(|s| OURS.iter().any(|p| s.starts_with(p)))
    });
    // "how many replicas does chat have"
    let counts = verb.is_some_and(|k| items.list[k].text == "how many") && says(items, "noun.replica");
    topic.workload() || topic.gpu || named(items) || told || counts
}

/// Whether a change is of something that is nothing here: an unknown word, and no setting or name beside it.
fn foreign(items: &Items<'_, '_>, at: usize, topic: &Topic) -> bool {
    let object = (at + 1..at + 4).take_while(|k| !items.ends_clause(*k)).find(|k| {
        items.at(*k).is_some_and(|n| n.kind == Kind::Word && (n.senses.is_empty() || n.senses.has("n")) && !n.corrected)
    });
    let article = object.is_some_and(|k| items.any(k - 1, &["det.a", "det.the", "det.that"]));
    article && !ours(items, topic, None) && !setting(items) && !changes_more(items) && !says(items, "noun.replica")
}

/// Whether a setting of a workload is named.
fn setting(items: &Items<'_, '_>) -> bool {
    let prefixes = ["quant.", "prio.", "preempt.", "market.", "restart.", "link.", "place."];
    prefixes.iter().any(|p| says_any(items, p))
        || says(items, "market")
        || says(items, "noun.priority") && says_any(items, "level.")
        || (0..items.len()).any(|i| {
            items.gib(i).is_some()
                || items.any(i, &["noun.core", "noun.gpucount"])
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
        // "the whisper service" is no kind.
        || items.list.iter().any(|n| {
            !n.masked && n.senses.iter().any(|s| s.starts_with("kind.")) && !n.senses.has("noun.deployment")
        })
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
