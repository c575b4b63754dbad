//! Which node or workload is meant: by id, name, unique prefix or description.

use crate::context::Context;
use crate::lexicon::{NODE_NOUNS, SUBJECTS, WORKLOAD_NOUNS};
use crate::text::{Quote, Words};
use crate::words::common_prefix;

/// A prefix of a name counts from so many characters on.
const PREFIX_CHARS_MIN: usize = 3;
/// So many names are offered when none or several match.
const NAMES_MAX: usize = 8;
/// Adjectives in a description.
const ADJECTIVES_MAX: usize = 2;

/// What a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// A node.
    Node,
    /// A workload.
    Workload,
}

/// A target that the words name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Exactly this one, as the text gives it; known to the context, or nothing is known.
    Named(String),
    /// The one that a prefix or a description fits.
    Fits(String),
    /// Several fit.
    Several(Vec<String>),
    /// None fits; the nearest names.
    NoSuch(Vec<String>),
}

/// Something that can be meant.
#[derive(Debug)]
struct Candidate<'c> {
    id: &'c str,
    names: Vec<&'c str>,
    traits: Vec<String>,
}

impl Sort {
    pub(super) const fn nouns(self) -> &'static [&'static str] {
        match self {
            Self::Node => NODE_NOUNS,
            Self::Workload => WORKLOAD_NOUNS,
        }
    }

    fn candidates(self, context: &Context) -> Vec<Candidate<'_>> {
        match self {
            Self::Node => nodes(context),
            Self::Workload => workloads(context),
        }
    }
}

fn nodes(context: &Context) -> Vec<Candidate<'_>> {
    let one = |node: &'_ crate::ContextNode| {
        let gpu = node.gpu.as_ref().and_then(|gpu| gpu.model.as_deref());
        [node.state.as_deref(), node.zone.as_deref(), gpu]
            .into_iter()
            .flatten()
            .map(str::to_lowercase)
            .collect()
    };
    let known = context.nodes.iter();
    known
        .map(|node| Candidate {
            id: &node.name,
            names: std::iter::once(node.name.as_str())
                .chain(node.id.as_deref())
                .collect(),
            traits: one(node),
        })
        .collect()
}

fn workloads(context: &Context) -> Vec<Candidate<'_>> {
    let one = |workload: &'_ crate::ContextWorkload| {
        let plain = [
            workload.kind.as_deref(),
            workload.state.as_deref(),
            workload.model.as_deref(),
        ];
        let pieces = [workload.model.as_deref(), workload.name.as_deref()];
        let pieces = pieces
            .into_iter()
            .flatten()
            .flat_map(|text| text.split(['-', '_', '.']));
        plain
            .into_iter()
            .flatten()
            .chain(pieces)
            .map(str::to_lowercase)
            .collect()
    };
    let known = context.workloads.iter();
    known
        .map(|workload| Candidate {
            id: &workload.id,
            names: std::iter::once(workload.id.as_str())
                .chain(workload.name.as_deref())
                .collect(),
            traits: one(workload),
        })
        .collect()
}

/// The target that stands here, and the place after it.
///
/// "node X" and "job X" name one; a bare name counts only if the context knows
/// it, or if it is a full id of the right sort; "the training job" describes one.
pub(super) fn target_at(
    words: &Words<'_>,
    i: usize,
    sort: Sort,
    context: &Context,
) -> Option<(Target, usize)> {
    let at = words.skip_article(i);
    if sort.nouns().contains(&words.word(at)) {
        let at = words.skip(at + 1, &[&["id"], &["named"], &["called"]]);
        let at = words.skip_symbol(at, ':');
        if let Some(name) = name_text(words, at) {
            return Some((match_name(name, sort, context), at + 1));
        }
        return None;
    }
    let name = words.raw(at);
    if is_id(name, sort) {
        return Some((match_name(name, sort, context), at + 1));
    }
    let found = find(name, &sort.candidates(context));
    if let Some(named @ Target::Named(_)) = found {
        let noun_follows = sort.nouns().contains(&words.word(at + 1));
        return Some((named, at + 1 + usize::from(noun_follows)));
    }
    described(words, at, sort, context).or_else(|| Some((found?, at + 1)))
}

/// A name here: a word that is no filler, or quoted text.
fn name_text<'w>(words: &'w Words<'_>, i: usize) -> Option<&'w str> {
    match words.quote(i) {
        Some((Quote::Code | Quote::Marks, text)) if !text.trim().is_empty() => Some(text.trim()),
        Some(_) => None,
        None => {
            let raw = words.raw(i);
            let other = SUBJECTS
                .iter()
                .any(|(phrase, _)| *phrase == [words.word(i)]);
            (!raw.is_empty() && !other && words.filler(i).is_none()).then_some(raw)
        }
    }
}

/// Whether a text is an id of this sort by its prefix.
fn is_id(text: &str, sort: Sort) -> bool {
    match sort {
        Sort::Node => text.parse::<claw_proto::ids::NodeId>().is_ok(),
        Sort::Workload => text.parse::<claw_proto::ids::WorkloadId>().is_ok(),
    }
}

/// What a name means; taken as it is if nothing of its sort is known.
pub(super) fn match_name(name: &str, sort: Sort, context: &Context) -> Target {
    let candidates = sort.candidates(context);
    if candidates.is_empty() {
        return Target::Named(name.to_owned());
    }
    find(name, &candidates).unwrap_or_else(|| Target::NoSuch(nearest(name, &candidates)))
}

/// The candidate of this name, or of which it is a prefix.
fn find(name: &str, candidates: &[Candidate<'_>]) -> Option<Target> {
    if name.is_empty() {
        return None;
    }
    let exact = candidates
        .iter()
        .filter(|c| c.names.iter().any(|known| known.eq_ignore_ascii_case(name)));
    if let Some(target) = one_of(exact, Target::Named) {
        return Some(target);
    }
    if name.chars().count() < PREFIX_CHARS_MIN {
        return None;
    }
    let starts = |known: &&str| {
        known
            .get(..name.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(name))
    };
    let prefixed = candidates
        .iter()
        .filter(|c| c.names.iter().any(|n| starts(&n)));
    one_of(prefixed, Target::Fits)
}

/// The only one of these, or all of them as a choice.
fn one_of<'c>(
    found: impl Iterator<Item = &'c Candidate<'c>>,
    only: fn(String) -> Target,
) -> Option<Target> {
    let mut ids: Vec<String> = found.map(|c| c.id.to_owned()).collect();
    match ids.len() {
        0 => None,
        1 => ids.pop().map(only),
        _ => {
            ids.truncate(NAMES_MAX);
            Some(Target::Several(ids))
        }
    }
}

/// The names that are most like this one.
fn nearest(name: &str, candidates: &[Candidate<'_>]) -> Vec<String> {
    let mut ids: Vec<&str> = candidates.iter().map(|c| c.id).collect();
    ids.sort_by_key(|id| (std::cmp::Reverse(common_prefix(id, name)), *id));
    ids.truncate(NAMES_MAX);
    ids.into_iter().map(str::to_owned).collect()
}

/// "training job", "failed one": adjectives, then a noun of the sort.
fn described(
    words: &Words<'_>,
    i: usize,
    sort: Sort,
    context: &Context,
) -> Option<(Target, usize)> {
    let noun = (i + 1..=i + ADJECTIVES_MAX)
        .find(|at| sort.nouns().contains(&words.word(*at)) || words.word(*at) == "one")?;
    let adjectives: Vec<&str> = (i..noun).map(|at| words.word(at)).collect();
    let candidates = sort.candidates(context);
    if candidates.is_empty() || adjectives.contains(&"") {
        return None;
    }
    let fits = |c: &&Candidate<'_>| adjectives.iter().all(|a| c.traits.iter().any(|t| t == a));
    let target = one_of(candidates.iter().filter(fits), Target::Fits)
        .unwrap_or_else(|| Target::NoSuch(nearest("", &candidates)));
    Some((target, noun + 1))
}
