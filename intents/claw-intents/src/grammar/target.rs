//! Which node or workload is meant: by id, name, unique prefix or description.

use crate::context::{Context, ContextNode, ContextWorkload};
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

/// Something that can be meant. Large fleets are looked through for every
/// request, so it borrows and builds nothing.
#[derive(Debug, Clone, Copy)]
enum Candidate<'c> {
    Node(&'c ContextNode),
    Workload(&'c ContextWorkload),
}

impl<'c> Candidate<'c> {
    /// What an intent calls it.
    fn id(self) -> &'c str {
        match self {
            Self::Node(node) => &node.name,
            Self::Workload(workload) => &workload.id,
        }
    }

    /// Its names: the name or id, and the other one if there is one.
    fn names(self) -> impl Iterator<Item = &'c str> {
        let other = match self {
            Self::Node(node) => node.id.as_deref(),
            Self::Workload(workload) => workload.name.as_deref(),
        };
        std::iter::once(self.id()).chain(other)
    }

    /// Whether an adjective describes it: its state, zone or GPU model; its
    /// kind, state or model, or a part of its name or model.
    fn is(self, adjective: &str) -> bool {
        let same = |text: &str| text.eq_ignore_ascii_case(adjective);
        let part = |text: &str| same(text) || text.split(['-', '_', '.']).any(same);
        match self {
            Self::Node(node) => {
                let gpu = node.gpu.as_ref().and_then(|gpu| gpu.model.as_deref());
                [node.state.as_deref(), node.zone.as_deref(), gpu].into_iter().flatten().any(same)
            }
            Self::Workload(workload) => {
                let plain = [workload.kind.as_deref(), workload.state.as_deref()];
                let parts = [workload.model.as_deref(), workload.name.as_deref()];
                plain.into_iter().flatten().any(same) || parts.into_iter().flatten().any(part)
            }
        }
    }
}

impl Sort {
    pub(super) const fn nouns(self) -> &'static [&'static str] {
        match self {
            Self::Node => NODE_NOUNS,
            Self::Workload => WORKLOAD_NOUNS,
        }
    }

    /// All of this sort that the context knows.
    fn known(self, context: &Context) -> impl Iterator<Item = Candidate<'_>> + Clone {
        let (nodes, workloads) = match self {
            Self::Node => (context.nodes.as_slice(), [].as_slice()),
            Self::Workload => ([].as_slice(), context.workloads.as_slice()),
        };
        let workloads = workloads.iter().map(Candidate::Workload);
        nodes.iter().map(Candidate::Node).chain(workloads)
    }
}

/// The target that stands here, and the place after it.
///
/// "node X" and "job X" name one; a bare name counts only if the context knows
/// it, or if it is a full id of the right sort; "the training job" describes one.
pub(super) fn target_at(words: &Words<'_>, i: usize, sort: Sort, context: &Context) -> Option<(Target, usize)> {
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
    let found = find(name, sort, context);
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
            let other = SUBJECTS.iter().any(|(phrase, _)| *phrase == [words.word(i)]);
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
    if sort.known(context).next().is_none() {
        return Target::Named(name.to_owned());
    }
    find(name, sort, context).unwrap_or_else(|| Target::NoSuch(nearest(name, sort, context)))
}

/// The one of this name, or of whose name it is the beginning.
fn find(name: &str, sort: Sort, context: &Context) -> Option<Target> {
    if name.is_empty() {
        return None;
    }
    let known = sort.known(context);
    let is_called = |c: &Candidate<'_>| c.names().any(|known| known.eq_ignore_ascii_case(name));
    let exact = one_of(known.clone().filter(is_called), Target::Named);
    if exact.is_some() || name.chars().count() < PREFIX_CHARS_MIN {
        return exact;
    }
    let begins = |known: &str| known.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name));
    one_of(known.filter(|c| c.names().any(begins)), Target::Fits)
}

/// The only one of these, or the first of them as a choice.
fn one_of<'c>(found: impl Iterator<Item = Candidate<'c>>, only: fn(String) -> Target) -> Option<Target> {
    let mut ids: Vec<String> = found.take(NAMES_MAX).map(|c| c.id().to_owned()).collect();
    match ids.len() {
        0 => None,
        1 => ids.pop().map(only),
        _ => Some(Target::Several(ids)),
    }
}

/// The names that are most like this one.
pub(super) fn nearest(name: &str, sort: Sort, context: &Context) -> Vec<String> {
    let mut ids: Vec<&str> = sort.known(context).map(Candidate::id).collect();
    ids.sort_by_key(|id| (std::cmp::Reverse(common_prefix(id, name)), *id));
    ids.truncate(NAMES_MAX);
    ids.into_iter().map(str::to_owned).collect()
}

/// "training job", "failed one": adjectives, then a noun of the sort.
fn described(words: &Words<'_>, i: usize, sort: Sort, context: &Context) -> Option<(Target, usize)> {
    let noun =
        (i + 1..=i + ADJECTIVES_MAX).find(|at| sort.nouns().contains(&words.word(*at)) || words.word(*at) == "one")?;
    let adjectives: Vec<&str> = (i..noun).map(|at| words.word(at)).collect();
    let mut known = sort.known(context).peekable();
    if known.peek().is_none() || adjectives.contains(&"") {
        return None;
    }
    let fits = |c: &Candidate<'_>| adjectives.iter().all(|adjective| c.is(adjective));
    let target = one_of(known.filter(fits), Target::Fits).unwrap_or_else(|| Target::NoSuch(nearest("", sort, context)));
    Some((target, noun + 1))
}
