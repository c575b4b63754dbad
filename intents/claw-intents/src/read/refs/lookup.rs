//! Names and descriptions against the lists of the context.

use crate::catalog::resolve::Resolution;
use crate::draft::Draft;
use crate::items::{Items, Kind};

use super::{Thing, can_name, is_name_like, name_of};

/// An entry of a list: what it is called in an answer, and the words that describe it.
#[derive(Debug, Clone, Default)]
struct Entry {
    answer: String,
    names: Vec<String>,
    model: String,
    words: Vec<String>,
}

fn entries(draft: &Draft<'_, '_, '_>, thing: Thing) -> Vec<Entry> {
    let context = draft.context;
    match thing {
        Thing::Node => context
            .nodes
            .iter()
            .map(|n| Entry {
                answer: n.name.clone(),
                names: [Some(n.name.clone()), n.id.clone()].into_iter().flatten().collect(),
                model: String::new(),
                words: n
                    .gpu
                    .iter()
                    .filter_map(|g| g.model.clone())
                    .chain(n.state.clone())
                    .chain(n.zone.clone())
                    .chain(n.labels.iter().flat_map(|(k, v)| [k.clone(), v.clone()]))
                    // "the node that runs lm-pretrain"
                    .chain(context.workloads.iter().filter(|w| w.node.as_deref() == Some(&n.name)).flat_map(|w| {
                        [Some(w.id.clone()), w.name.clone(), w.kind.clone(), w.model.clone()].into_iter().flatten()
                    }))
                    .collect(),
            })
            .collect(),
        Thing::Deployment => context
            .deployments
            .iter()
            .map(|d| Entry {
                answer: d.name.clone(),
                names: vec![d.name.clone()],
                model: d.model.clone().unwrap_or_default(),
                words: d
                    .image
                    .clone()
                    .into_iter()
                    .chain(d.model.clone())
                    .chain(tasks(draft, d.model.as_deref()))
                    .collect(),
            })
            .collect(),
        Thing::Workload => context
            .workloads
            .iter()
            .map(|w| Entry {
                answer: w.id.clone(),
                names: [Some(w.id.clone()), w.name.clone()].into_iter().flatten().collect(),
                model: w.model.clone().unwrap_or_default(),
                words: [w.kind.clone(), w.model.clone(), w.image.clone(), w.state.clone(), w.node.clone()]
                    .into_iter()
                    .flatten()
                    // "the job on the L4 node", "the one in fra"
                    .chain(context.nodes.iter().filter(|n| w.node.as_deref() == Some(&n.name)).flat_map(|n| {
                        [n.gpu.as_ref().and_then(|g| g.model.clone()), n.zone.clone()].into_iter().flatten()
                    }))
                    .chain(tasks(draft, w.model.as_deref()))
                    .collect(),
            })
            .collect(),
    }
}

/// What a model of the catalogue is for.
fn tasks(draft: &Draft<'_, '_, '_>, model: Option<&str>) -> Vec<String> {
    model.and_then(|id| draft.catalog.model(id)).map(|m| m.tasks.clone()).unwrap_or_default()
}

/// The node that the item at a place names; a question if it is none or several.
pub(crate) fn node(draft: &mut Draft<'_, '_, '_>, i: usize, field: &str) -> Option<String> {
    let path = draft.path(field);
    named(draft, Thing::Node, i, &path)
}

/// The deployment that the item at a place names.
pub(crate) fn deployment(draft: &mut Draft<'_, '_, '_>, i: usize, path: &str) -> Option<String> {
    named(draft, Thing::Deployment, i, path)
}

/// The workload that the item at a place names.
pub(crate) fn workload(draft: &mut Draft<'_, '_, '_>, i: usize, path: &str) -> Option<String> {
    named(draft, Thing::Workload, i, path)
}

/// What tells the thing that an item names from others: the entry of the context, else the name.
pub(crate) fn key(draft: &Draft<'_, '_, '_>, i: usize, things: &[Thing]) -> String {
    let name = name_of(draft.items, i);
    let entry = things.iter().find_map(|thing| {
        let all = entries(draft, *thing);
        match by_name(&all, &name).as_slice() {
            [one] => Some(all[*one].answer.to_lowercase()),
            _ => None,
        }
    });
    entry.unwrap_or_else(|| name.to_lowercase())
}

fn named(draft: &mut Draft<'_, '_, '_>, thing: Thing, i: usize, path: &str) -> Option<String> {
    let name = name_of(draft.items, i);
    let all = entries(draft, thing);
    draft.mark(&(i..i + 1));
    if all.is_empty() {
        return Some(name);
    }
    let mut found = by_name(&all, &name);
    if found.is_empty() {
        found = (0..all.len()).filter(|k| describes(draft, i, &all[*k])).collect();
    }
    // "the fraudnet training": of several with that name, the one of the sort that is said behind it.
    if found.len() > 1
        && i + 1 < draft.items.len()
        && let [one] = found.iter().copied().filter(|k| describes(draft, i + 1, &all[*k])).collect::<Vec<_>>()[..]
    {
        found = vec![one];
    }
    one_of(draft, &all, found, path, &name)
}

/// Entries with this name, else those that begin with it, else those that contain it as a part.
fn by_name(all: &[Entry], name: &str) -> Vec<usize> {
    let name = name.to_lowercase();
    let with = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..all.len()).filter(|k| all[*k].names.iter().any(|n| fits(&n.to_lowercase()))).collect()
    };
    let exact = with(&|n| n == name);
    if !exact.is_empty() {
        return exact;
    }
    let begins = with(&|n| n.starts_with(&name));
    if !begins.is_empty() {
        return begins;
    }
    with(&|n| n.split(['-', '_', '.']).any(|part| part == name) || n.ends_with(&format!("-{name}")))
}

fn one_of(draft: &mut Draft<'_, '_, '_>, all: &[Entry], found: Vec<usize>, path: &str, said: &str) -> Option<String> {
    match found.as_slice() {
        [one] => Some(all[*one].answer.clone()),
        [] => {
            let mut near: Vec<&Entry> = all.iter().collect();
            near.sort_by_key(|e| std::cmp::Reverse(e.names.iter().map(|n| common_prefix(n, said)).max()));
            let options: Vec<String> = near.iter().take(5).map(|e| e.answer.clone()).collect();
            draft.ask(path, format!("There is no {said:?}. Which is meant: {}?", options.join(", ")), options);
            None
        }
        several => {
            let options: Vec<String> = several.iter().take(8).map(|k| all[*k].answer.clone()).collect();
            draft.ask(path, format!("Which is meant by {said:?}: {}?", options.join(", ")), options);
            None
        }
    }
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(x, y)| x.eq_ignore_ascii_case(y)).count()
}

/// What the words around an order describe: "the vllm one", "the pending job",
/// "that node". None without a question if nothing is described.
pub(crate) fn described(draft: &mut Draft<'_, '_, '_>, thing: Thing, path: &str) -> Option<String> {
    let items = draft.items;
    let all = entries(draft, thing);
    // "one replica" counts.
    let one = |i: usize| items.is(i, "pron.one") && !items.any(i + 1, &["noun.replica", "noun.gpu", "noun.core"]);
    let noun = (0..items.len()).find(|i| (one(*i) || items.is(*i, thing.noun())) && !draft.is_used(*i));
    if all.is_empty() {
        return None;
    }
    let (words, said) = match noun {
        Some(at) => describing(draft, at),
        None => describing_all(draft),
    };
    let counted = counted(draft, thing, noun);
    if words.is_empty() && counted.as_ref().is_some_and(|found| !found.is_empty()) {
        return one_of(draft, &all, counted.unwrap_or_default(), path, &said);
    }
    if words.is_empty() {
        // "it", "that node": sure only where there is one.
        let options: Vec<String> = all.iter().take(8).map(|e| e.answer.clone()).collect();
        if let ([only], true) = (all.as_slice(), noun.is_some() || items.list.iter().any(|n| n.senses.has("det.that")))
        {
            return Some(only.answer.clone());
        }
        draft.ask(path, format!("Which is meant: {}?", options.join(", ")), options);
        return None;
    }
    let found: Vec<usize> = (0..all.len()).filter(|k| words.iter().all(|w| describes(draft, *w, &all[*k]))).collect();
    let found = if found.is_empty() && noun.is_none() { by_word(draft, &all, &words) } else { found };
    let found = by_size(draft, &all, found);
    let found = match counted {
        Some(counted) if found.len() > 1 => found.into_iter().filter(|k| counted.contains(k)).collect(),
        _ => found,
    };
    one_of(draft, &all, found, path, &said)
}

/// "the bigger llama", "the small one": of several models the one with the most or the fewest parameters.
fn by_size(draft: &Draft<'_, '_, '_>, all: &[Entry], found: Vec<usize>) -> Vec<usize> {
    let says = |words: &[&str]| draft.items.list.iter().any(|n| !n.masked && words.contains(&n.text.as_str()));
    let big = says(&["big", "bigger", "biggest", "large", "larger", "largest"]);
    let small = says(&["small", "smaller", "smallest", "little", "tiny"]);
    if found.len() < 2 || big == small {
        return found;
    }
    let size = |k: usize| draft.catalog.model(&all[k].model).map(|m| m.params_b);
    let sizes: Vec<f64> = found.iter().filter_map(|k| size(*k)).collect();
    if sizes.len() < found.len() {
        return found;
    }
    let wanted =
        if big { sizes.iter().copied().fold(0.0, f64::max) } else { sizes.iter().copied().fold(f64::MAX, f64::min) };
    found.into_iter().filter(|k| size(*k).is_some_and(|s| (s - wanted).abs() < 1e-9)).collect()
}

/// "the node with 8 H100", "the one with 6 replicas": the entries that have so many, if a number tells.
fn counted(draft: &mut Draft<'_, '_, '_>, thing: Thing, noun: Option<usize>) -> Option<Vec<usize>> {
    let items = draft.items;
    let noun = noun?;
    let end = (noun..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len()).min(noun + 6);
    // "the chat one gets 3 replicas": what it shall have describes nothing.
    let has = |k: usize| items.is(k, "with") && !items.list[k].text.starts_with("get");
    let at = (noun + 2..end).find(|k| items.count(*k).is_some() && has(k - 1))?;
    let n = items.count(at)?;
    let gpu = matches!(items.at(at + 1).map(|n| &n.kind), Some(Kind::Gpu { .. })) || items.is(at + 1, "noun.gpu");
    let context = draft.context;
    let found = match thing {
        Thing::Node if gpu => {
            let has = |k: &usize| context.nodes[*k].gpu.as_ref().and_then(|g| g.count) == Some(n);
            (0..context.nodes.len()).filter(has).collect()
        }
        Thing::Deployment if items.is(at + 1, "noun.replica") => {
            (0..context.deployments.len()).filter(|k| context.deployments[*k].replicas == Some(n)).collect()
        }
        _ => return None,
    };
    draft.mark(&(at..at + 2));
    Some(found)
}

/// Entries that the first telling word describes.
fn by_word(draft: &Draft<'_, '_, '_>, all: &[Entry], words: &[usize]) -> Vec<usize> {
    words
        .iter()
        .map(|w| (0..all.len()).filter(|k| describes(draft, *w, &all[*k])).collect::<Vec<_>>())
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// The node that "the H100 node", "the node in fra" describes.
pub(crate) fn described_node(draft: &mut Draft<'_, '_, '_>, from: usize, noun: usize, path: &str) -> Option<String> {
    let all = entries(draft, Thing::Node);
    let _ = from;
    if all.is_empty() {
        return None;
    }
    let (words, said) = describing(draft, noun);
    if words.is_empty() {
        if let [only] = all.as_slice() {
            return Some(only.answer.clone());
        }
        let options: Vec<String> = all.iter().take(8).map(|e| e.answer.clone()).collect();
        draft.ask(path, format!("Which node is meant: {}?", options.join(", ")), options);
        return None;
    }
    let found: Vec<usize> = (0..all.len()).filter(|k| words.iter().all(|w| describes(draft, *w, &all[*k]))).collect();
    one_of(draft, &all, found, path, &said)
}

/// Words behind a noun that say more of it: "the node where …", "the job of …".
const LINKS: &[&str] = &[
    "that",
    "which",
    "that's",
    "running",
    "serving",
    "using",
    "where",
    "whose",
    "hosting",
    "holding",
    "by",
    "for",
    "owned by",
    "started by",
    "belonging to",
    "who",
];

/// Whether what stands behind a noun describes it.
fn is_linked(items: &Items<'_, '_>, noun: usize) -> bool {
    // "la tâche en attente"
    let state = items.at(noun + 1).is_some_and(|n| n.senses.iter().any(|s| s.starts_with("state.")));
    // "the node the ocr job sits on"
    let relative = items.is(noun + 1, "det.the") && items.is(noun, "noun.node");
    state
        || relative
        || items.any(noun + 1, &["on", "with", "of", "x", "cond", "as", "noun.label"])
        || items.at(noun + 1).is_some_and(|n| LINKS.contains(&n.text.split(' ').next().unwrap_or_default()))
}

/// The telling words before and behind a noun.
fn describing(draft: &Draft<'_, '_, '_>, noun: usize) -> (Vec<usize>, String) {
    let items = draft.items;
    let mut words = Vec::new();
    // "the training job" is of a kind; "the llama service" is a deployment like any other.
    if items.list[noun].senses.iter().any(|s| s.starts_with("kind.")) && !items.is(noun, "noun.deployment") {
        words.push(noun);
    }
    let mut k = noun;
    while k > 0 && !items.ends_clause(k - 1) {
        k -= 1;
        if items.any(k, &["det.the", "det.that"]) && !tells(items, k)
            || items.is(k, "act.stop")
            || items.num(k).is_some() && !items.list[k].known
        {
            break;
        }
        // "the image deployment": what it is for.
        if tells(items, k) || k + 1 == noun && items.is(k, "noun.image") {
            words.push(k);
        }
        if words.is_empty() && noun - k > 3 {
            break;
        }
    }
    let from = words.last().copied().unwrap_or(noun);
    // "the node in fra", "the job on gpu-1", "the deployment that serves whisper"
    let mut end = noun + 1;
    let linked = is_linked(items, noun);
    // "the training job on h100-2": the kind alone does not tell.
    let place = |k: usize| items.at(k).is_some_and(|n| n.node_like || n.known || in_zone(draft, &n.text));
    let told = !words.is_empty();
    // "the notebook of anna": whose it is.
    let owned = items.is(noun + 1, "of") || items.at(noun + 1).is_some_and(|n| matches!(n.text.as_str(), "for" | "by"));
    // "the training that is running"
    let relative =
        items.at(noun + 1).is_some_and(|n| matches!(n.text.split(' ').next(), Some("that" | "which" | "that's")));
    let state = |k: usize| {
        relative
            && items.at(k).is_some_and(|n| n.senses.iter().any(|s| s.starts_with("state.") || s.starts_with("sym.")))
    };
    if linked && (words.is_empty() || items.is(noun + 1, "on") || owned || relative) {
        let mut k = noun + 1;
        while k < items.len()
            && k < noun + 6
            && !items.ends_clause(k)
            && !(items.is(k, "to") && (items.num(k + 1).is_some() || items.list[k].text == "to"))
        {
            let owner = |k: usize| owned && items.at(k).is_some_and(|n| n.senses.is_empty() || n.senses.has("n"));
            if tells(items, k) && !draft.is_used(k) && (!told || place(k) || owner(k) || state(k)) {
                words.push(k);
                end = k + 1;
            }
            k += 1;
        }
    }
    // "the node where the notebook runs", "the one running acme/api": the verb tells nothing beside what runs.
    if words.len() > 1 {
        let thing = |k: usize| matches!(items.at(k).map(|n| &n.kind), Some(Kind::Model(_) | Kind::Image));
        words.retain(|k| items.list[*k].text != "runs" && !(items.list[*k].text == "running" && thing(k + 1)));
    }
    (words, items.span(&(from..end)).text)
}

/// Whether a word is where nodes are, by their zone or a label.
fn in_zone(draft: &Draft<'_, '_, '_>, word: &str) -> bool {
    draft.context.nodes.iter().any(|n| {
        n.zone
            .iter()
            .chain(n.labels.values())
            .any(|place| place.eq_ignore_ascii_case(word) || word.len() > 2 && place.to_lowercase().starts_with(word))
    })
}

fn describing_all(draft: &Draft<'_, '_, '_>) -> (Vec<usize>, String) {
    let items = draft.items;
    let words: Vec<usize> = (0..items.len())
        .filter(|k| {
            tells(items, *k) && !draft.is_used(*k) && !items.list[*k].senses.iter().any(|s| s.starts_with("act."))
        })
        .collect();
    let said = words.first().map_or_else(String::new, |k| items.raw(*k).to_owned());
    (words, said)
}

/// Whether a word tells one thing from another.
fn tells(items: &Items<'_, '_>, k: usize) -> bool {
    let Some(item) = items.at(k) else {
        return false;
    };
    match &item.kind {
        Kind::Model(_) | Kind::Gpu { .. } | Kind::Image => true,
        // "the node labelled rack=r7"
        Kind::Pair(..) => true,
        Kind::Word if item.senses.has("noun.label") || matches!(item.text.as_str(), "state" | "status") => false,
        Kind::Word => {
            item.known
                || is_name_like(&item.text)
                || item.senses.is_empty() && item.text.chars().any(char::is_alphabetic)
                || item.senses.iter().any(|s| {
                    s.starts_with("state.")
                        || s.starts_with("sym.")
                        || s.starts_with("kind.")
                        || s.starts_with("vendor.")
                        || s.starts_with("env.")
                })
                || item.senses.iter().all(|s| s == "act.query" || s == "n" || s == "x" && item.text.len() > 4)
                    && can_name(items, k)
        }
        _ => false,
    }
}

/// What happened to a thing, and the states in which it is since: "the node that went offline".
const EVENTS: &[(&str, &[&str])] = &[
    ("sym.unreachable", &["offline", "unreachable", "lost", "down", "unhealthy", "not_ready"]),
    ("sym.pending", &["pending", "queued", "waiting"]),
    ("sym.crash", &["failed", "crashed", "crash_loop", "unhealthy", "offline", "unreachable", "down", "lost"]),
    ("sym.error", &["failed", "error", "unhealthy", "degraded"]),
    ("sym.oom", &["failed", "oom", "crashed"]),
    ("sym.idle", &["idle"]),
    ("state.drained", &["drained", "draining", "cordoned", "maintenance", "unschedulable", "in_maintenance"]),
    ("state.draining", &["draining"]),
    ("state.failed", &["failed", "crashed", "error", "errored"]),
    ("state.pending", &["pending", "queued", "waiting"]),
    ("state.offline", &["offline", "unreachable", "lost", "down", "not_ready"]),
    ("state.unhealthy", &["unhealthy", "degraded", "faulty"]),
    ("state.completed", &["completed", "finished", "succeeded", "done"]),
    ("state.stopped", &["stopped", "cancelled"]),
    ("state.ready", &["ready", "online", "healthy"]),
    ("past.drain", &["drained", "draining", "cordoned"]),
    ("past.stop", &["stopped", "cancelled"]),
];

/// Whether a word describes an entry.
fn describes(draft: &Draft<'_, '_, '_>, word: usize, entry: &Entry) -> bool {
    let item = &draft.items.list[word];
    match &item.kind {
        Kind::Model(resolution) => {
            let models = match resolution {
                Resolution::One { model, alternatives } => {
                    std::iter::once(*model).chain(alternatives.iter().copied()).collect()
                }
                Resolution::Several(models) | Resolution::NoSuch(models) => models.clone(),
                Resolution::Unknown => Vec::new(),
            };
            models.iter().any(|m| m.id.eq_ignore_ascii_case(&entry.model)) || entry.says(&item.text)
        }
        Kind::Gpu { id, .. } => {
            entry.words.iter().any(|w| w.eq_ignore_ascii_case(id))
                || entry.says(&item.text)
                || entry.says(&id.to_lowercase())
        }
        Kind::Pair(key, value) => entry.says(key) && entry.says(value),
        _ => {
            let state = item.senses.iter().find_map(|s| s.strip_prefix("state.").or_else(|| s.strip_prefix("kind.")));
            let state_fits = item
                .senses
                .iter()
                .filter_map(|s| s.strip_prefix("state.").or_else(|| s.strip_prefix("kind.")))
                .any(|s| entry.words.iter().any(|w| w.eq_ignore_ascii_case(s)));
            let happened = EVENTS.iter().any(|(sense, states)| {
                item.senses.has(sense) && states.iter().any(|s| entry.words.iter().any(|w| w.eq_ignore_ascii_case(s)))
            });
            state_fits || happened || entry.says(&item.text) || state.is_some_and(|s| entry.says(s))
        }
    }
}

impl Entry {
    /// Whether a word is a part of its names or attributes, or grows from the same stem.
    fn says(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let word = word.strip_suffix("'s").unwrap_or(&word);
        let same = |part: &str| {
            let part = part.to_lowercase();
            part == word
                || word.len() >= 3 && (part.starts_with(word) || stem(&part, word))
                || part.len() >= 4 && word.starts_with(&part) && word.chars().all(char::is_alphabetic)
        };
        self.names.iter().chain(&self.words).any(|text| {
            text.eq_ignore_ascii_case(word)
                // "the one running acme/api"
                || word.contains('/') && text.to_lowercase().split(':').next() == Some(word)
                || text.split(|c: char| !c.is_alphanumeric()).filter(|p| !p.is_empty()).any(same)
        })
    }
}

/// "embedding" and "embedder" share a stem.
fn stem(a: &str, b: &str) -> bool {
    let shared = common_prefix(a, b);
    shared >= 5 && shared + 4 >= a.len().min(b.len())
}
