//! What of a request can back a proposed value: its own words outside of quotes,
//! what the context names, and what the catalogue calls by these words.

use std::ops::Range;

use claw_proto::spelling::slips;
use serde_json::Value;

use crate::act;
use crate::catalog::Catalog;
use crate::catalog::resolve::Resolution;
use crate::context::Context;
use crate::items::{Items, Kind};
use crate::text::Quote;

use super::unsure::means_nothing;

/// Fields that a proposal may fill in where the grammar's readers found nothing, by what has to
/// back them. Every other field is closed: only the readers fill it. What costs is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backing {
    /// Nothing: a word for what is meant, of a closed list, that costs nothing.
    Meaning,
    /// The name of a deployment that is there.
    Deployment,
    /// The name or id of a node that is there.
    Node,
    /// The name or id of a workload that is there.
    Workload,
    /// The name or id of anything that is there.
    Thing,
    /// Words of the request, as they stand.
    Words,
    /// Inference, where the words name a model.
    Inference,
    /// A word of the request that nothing here is called.
    NewName,
    /// A model that the catalogue finds by the words.
    Model,
}

impl Backing {
    /// Whether it is the name of one thing that is there.
    pub(super) fn is_name(self) -> bool {
        match self {
            Self::Deployment | Self::Node | Self::Workload => true,
            Self::Meaning | Self::Inference | Self::Thing | Self::Words | Self::NewName | Self::Model => false,
        }
    }
}

const OPEN: &[(&str, Backing)] = &[
    ("workload.kind", Backing::Inference),
    ("symptom", Backing::Meaning),
    ("subject", Backing::Meaning),
    ("target.kind", Backing::Meaning),
    ("metric", Backing::Meaning),
    ("op", Backing::Meaning),
    ("filter.metric", Backing::Meaning),
    ("deployment", Backing::Deployment),
    ("filter.deployment", Backing::Deployment),
    ("node", Backing::Node),
    ("filter.node", Backing::Node),
    ("workload_id", Backing::Workload),
    ("filter.workload_id", Backing::Workload),
    ("target.id", Backing::Thing),
    ("workload.name", Backing::Words),
    ("filter.text", Backing::Words),
    ("workload.model", Backing::Model),
    ("changes.model", Backing::Model),
];

/// What has to back a field; none if it is closed to proposals.
pub(super) fn backing(path: &str, action: &str) -> Option<Backing> {
    // The name of a new deployment is not that of one that is there.
    if (path, action) == ("deployment", "deploy") {
        return Some(Backing::NewName);
    }
    OPEN.iter().find(|(open, _)| *open == path).map(|(_, backing)| *backing)
}

/// Whether a proposal may fill in a field that the grammar asks for, or a part of it.
pub(super) fn is_open(field: &str) -> bool {
    OPEN.iter().any(|(open, _)| *open == field || open.strip_prefix(field).is_some_and(|rest| rest.starts_with('.')))
}

/// The names of one thing.
type Names = Vec<String>;

/// A request and what may be looked up for it.
#[derive(Debug)]
pub(super) struct Evidence<'a, 't, 'c> {
    pub(super) items: &'a Items<'t, 'c>,
    pub(super) context: &'a Context,
    pub(super) catalog: &'c Catalog,
}

impl Evidence<'_, '_, '_> {
    /// Whether a value is backed as its field needs; else what would be.
    pub(super) fn backs(&self, backing: Backing, value: &Value) -> Result<(), Vec<Value>> {
        let text = value.as_str().unwrap_or_default();
        let known = match backing {
            Backing::Meaning => return Ok(()),
            Backing::Model => return self.has_model(text),
            Backing::Words if self.stands(text) || self.stands_in_marks(text) => return Ok(()),
            Backing::Inference if text == "inference" && !self.models().is_empty() => return Ok(()),
            Backing::NewName if self.stands(text) && !self.is_known(text) => return Ok(()),
            Backing::Words | Backing::NewName | Backing::Inference => return Err(Vec::new()),
            Backing::Deployment => self.deployments(),
            Backing::Node => self.nodes(),
            Backing::Workload => self.workloads(),
            Backing::Thing => [self.deployments(), self.nodes(), self.workloads()].concat(),
        };
        self.is_named(&known, text, backing)
    }

    /// Whether the words name this thing, and no other of its sort: between two a person chooses.
    /// Where nothing is known of such things, the words alone count.
    fn is_named(&self, known: &[Names], text: &str, backing: Backing) -> Result<(), Vec<Value>> {
        let of = |names: &Names| names.iter().any(|name| name.eq_ignore_ascii_case(text));
        let said: Vec<&Names> = known.iter().filter(|names| names.iter().any(|name| self.stands(name))).collect();
        let alone = said.len() <= 1 || backing == Backing::Thing;
        if self.stands(text) && (known.is_empty() || alone && said.iter().any(|names| of(names))) {
            return Ok(());
        }
        let name = |names: &&Names| names.iter().find(|name| self.stands(name)).cloned().map(Value::from);
        Err(said.iter().filter_map(name).collect())
    }

    fn deployments(&self) -> Vec<Names> {
        self.context.deployments.iter().map(|d| vec![d.name.clone()]).collect()
    }

    fn nodes(&self) -> Vec<Names> {
        self.context.nodes.iter().map(|n| n.id.clone().into_iter().chain([n.name.clone()]).collect()).collect()
    }

    fn workloads(&self) -> Vec<Names> {
        self.context.workloads.iter().map(|w| w.name.clone().into_iter().chain([w.id.clone()]).collect()).collect()
    }

    /// Whether a name stands in the request as words of their own, outside of quotes, and is not
    /// taken back there.
    fn stands(&self, name: &str) -> bool {
        let source = self.items.source.to_ascii_lowercase();
        let name = name.trim().to_ascii_lowercase();
        let part_of_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '/' | ':' | '@');
        !name.is_empty()
            && source.match_indices(&name).any(|(at, _)| {
                let end = at + name.len();
                let before = source[..at].chars().next_back();
                let mut behind = source[end..].chars();
                let cut = match behind.next() {
                    // A full stop behind a name ends the sentence; one inside of it does not.
                    Some('.') => behind.next().is_some_and(char::is_alphanumeric),
                    next => next.is_some_and(part_of_name),
                };
                !cut && !before.is_some_and(|c| part_of_name(c) || c == '.') && self.plain(&(at..end))
            })
    }

    /// Whether these bytes stand in plain words that nothing takes back.
    fn plain(&self, bytes: &Range<usize>) -> bool {
        let touched = |item: &crate::items::Item<'_>| item.span.start < bytes.end && bytes.start < item.span.end;
        let Some(first) = self.items.list.iter().position(touched) else {
            return false;
        };
        let own = self.items.list.iter().filter(|item| touched(item));
        let taken_back = (first.saturating_sub(3)..first)
            .rev()
            .take_while(|k| !self.items.ends_clause(*k))
            .any(|k| self.items.any(k, &["not", "no", "except", "insteadof"]));
        own.into_iter().all(|item| !matches!(item.kind, Kind::Quote(_)) && !item.masked) && !taken_back
    }

    /// Whether a quote is this text and nothing else, as a name in quotation marks is.
    fn stands_in_marks(&self, text: &str) -> bool {
        self.items.list.iter().any(|item| {
            matches!(item.kind, Kind::Quote(Quote::Marks | Quote::Code)) && item.text.trim() == text && !text.is_empty()
        })
    }

    /// The things here that the words name, each by the name that is said.
    pub(super) fn said(&self) -> Vec<String> {
        let all = [self.deployments(), self.nodes(), self.workloads()].concat();
        all.into_iter().filter_map(|names| names.into_iter().find(|name| self.stands(name))).collect()
    }

    /// Something here is called so.
    fn is_known(&self, text: &str) -> bool {
        let all = [self.deployments(), self.nodes(), self.workloads()].concat();
        all.iter().flatten().any(|name| name.eq_ignore_ascii_case(text))
    }

    /// Whether the catalogue finds this model by words of the request, once a family's name that
    /// is misspelled by two slips at most is put right.
    fn has_model(&self, id: &str) -> Result<(), Vec<Value>> {
        let found = self.models();
        if found.iter().any(|model| *model == id) { Ok(()) } else { Err(found.into_iter().map(Value::from).collect()) }
    }

    fn models(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (i, item) in self.items.list.iter().enumerate().filter(|(i, _)| means_nothing(self.items, *i)) {
            let head = item.text.split(['-', '_']).next().unwrap_or(&item.text);
            let families = self.catalog.family_names().iter().filter(|family| !family.contains(' '));
            for family in families.filter(|family| near(head, family)) {
                let right = format!("{family}{}", &item.text[head.len()..]);
                found.extend(self.model_at(i, right));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The one model that these words name: a family's name in place of the item, and as many items
    /// behind it as the catalogue takes.
    fn model_at(&self, i: usize, right: String) -> Option<String> {
        let behind = |k: &usize| matches!(self.items.at(*k).map(|n| &n.kind), Some(Kind::Word | Kind::Num(_)));
        let end = (i + 1..(i + MODEL_ITEMS_MAX).min(self.items.len())).take_while(behind).last().unwrap_or(i) + 1;
        let longest = (i + 1..=end).rev().find_map(|end| {
            let rest = self.items.list[i + 1..end].iter().map(|n| n.text.as_str());
            let name = std::iter::once(right.as_str()).chain(rest).collect::<Vec<_>>().join(" ");
            match self.catalog.resolve(&name) {
                Resolution::Unknown => None,
                known @ (Resolution::One { .. } | Resolution::Several(_) | Resolution::NoSuch(_)) => Some(known),
            }
        });
        match longest {
            Some(Resolution::One { model, .. }) => Some(model.id.clone()),
            _ => None,
        }
    }

    /// Where an order may stand that the lexicon does not know: a word that means nothing to the
    /// grammar, where a clause begins or behind a "please". None where the words are quoted in part, negated, conditional or a question, since
    /// then such a word need not be an order of the one who asks. What it is about follows at once:
    /// a cheer, a prefix of a log line or the beginning of a sentence about something is none.
    pub(super) fn unknown_order(&self) -> Option<usize> {
        let items = self.items;
        let bars = ["not", "no", "except", "insteadof", "cond", "unsure", "ask.advice"];
        let barred = (0..items.len()).any(|k| items.any(k, &bars));
        let asks = items.list.iter().any(|item| item.kind == Kind::Punct('?'));
        let polite = (0..items.len()).any(|k| items.is(k, "polite"));
        let parting = |kind: &Kind<'_>| matches!(kind, Kind::Quote(_) | Kind::Punct('\n' | ':' | '[' | ']'));
        let parted = items.list.iter().any(|item| parting(&item.kind) || item.senses.has("spares"));
        if barred || parted || asks && !polite {
            return None;
        }
        let stands = |k: usize| act::starts_clause(items, k) || k > 0 && items.any(k - 1, &["polite", "greeting"]);
        let plain = |k: usize| items.list[k].text.chars().all(char::is_alphabetic);
        let about = |k: usize| {
            let at = if items.is(k + 1, "det.the") { k + 2 } else { k + 1 };
            items
                .list
                .get(at)
                .is_some_and(|item| self.is_known(&item.text) || self.knows_nothing() && item.kind == Kind::Word)
        };
        (0..items.len()).find(|k| means_nothing(items, *k) && plain(*k) && stands(*k) && about(*k))
    }

    fn knows_nothing(&self) -> bool {
        self.deployments().is_empty() && self.nodes().is_empty() && self.workloads().is_empty()
    }
}

/// Most items of a model's name.
const MODEL_ITEMS_MAX: usize = 6;
/// Fewest letters of a family's name that two slips may be in.
const TWO_SLIPS_LETTERS_MIN: usize = 5;

/// Whether two words are the same but for a slip, or two in a long one.
fn near(a: &str, b: &str) -> bool {
    let most = match b.chars().count() {
        0..=3 => 0,
        4 => 1,
        TWO_SLIPS_LETTERS_MIN.. => 2,
    };
    a.chars().next() == b.chars().next() && slips(a, b) <= most
}
