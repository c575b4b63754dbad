//! Items: tokens put together to what the grammar works on, such as a number
//! with its unit, a GPU's name, a model's name, a phrase of the lexicon.

use std::ops::Range;

use claw_proto::time::Timestamp;

use crate::answer::Span;
use crate::catalog::Catalog;
use crate::catalog::resolve::Resolution;
use crate::context::Context;
use crate::lexicon::{Lang, Lexicon, Senses};
use crate::text::{Quote, Token, Words};

mod build;
mod number;
mod quantity;
mod respell;
mod retract;
mod shape;
mod sized;
mod split;

pub(crate) use shape::{is_name_like, looks_like_node};

/// What an item is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind<'c> {
    /// A word, a phrase of the lexicon, or a name.
    Word,
    /// A number.
    Num(f64),
    /// Two numbers as a range, such as 4-8.
    Range(f64, f64),
    /// Two numbers multiplied, such as 2x8.
    Cross(f64, f64),
    /// A share, such as half.
    Share(f64),
    /// A number with a unit; the unit's meanings are the item's senses.
    Qty(f64),
    /// A sum of money; the currency is the item's sense.
    Money(f64),
    /// A time of day in minutes.
    Clock(u32),
    /// A day: year, month, day.
    Date(Option<i32>, u32, u32),
    /// A point in time.
    Instant(Timestamp),
    /// A GPU model, by its id, with the memory that is part of the name (GiB); whether it is a plural.
    Gpu { id: &'c str, memory_gib: Option<f64>, plural: bool },
    /// A model of the catalogue.
    Model(Resolution<'c>),
    /// A MIG profile.
    Mig,
    /// A container image.
    Image,
    /// `KEY=value`, as written.
    Pair(String, String),
    /// A path or an address.
    Path,
    /// Quoted text.
    Quote(Quote),
    /// A sign.
    Punct(char),
}

/// Most items that a phrase in two parts takes, with what is between them.
const GAP_ITEMS_MAX: usize = 16;

/// A list of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    /// Nodes.
    Node,
    /// Deployments.
    Deployment,
    /// Workloads.
    Workload,
}

/// A piece of a request with its meaning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item<'c> {
    /// What it is.
    pub(crate) kind: Kind<'c>,
    /// Its text in lower case; of a quote, the text inside as it is.
    pub(crate) text: String,
    /// Its bytes in the request.
    pub(crate) span: Range<usize>,
    /// What it may mean.
    pub(crate) senses: Senses,
    /// A misspelled word that was read as another one.
    pub(crate) corrected: bool,
    /// No space before it.
    pub(crate) glued: bool,
    /// Whether it is the name of something in the context.
    pub(crate) known: bool,
    /// Of which list of the context it is a name.
    pub(crate) listed: Option<Listed>,
    /// Looks like the name of a machine, such as gpu-07 or h100-2.
    pub(crate) node_like: bool,
    /// Not to be read: what the words themselves take back.
    pub(crate) masked: bool,
}

/// A request as items.
#[derive(Debug, Clone)]
pub(crate) struct Items<'t, 'c> {
    /// The request.
    pub(crate) source: &'t str,
    /// Its items.
    pub(crate) list: Vec<Item<'c>>,
    /// The language beside English.
    pub(crate) lang: Lang,
}

impl<'t, 'c> Items<'t, 'c> {
    /// Reads a request.
    pub(crate) fn new(words: &Words<'t>, context: &Context, catalog: &'c Catalog) -> Self {
        let tokens = split::split(words, catalog);
        let plain: Vec<Token> = tokens.iter().map(|t| t.token.clone()).collect();
        let lang = Lexicon::get().language(&plain);
        let list = build::build(words.source, &tokens, &plain, lang, context, catalog);
        let mut items = Self { source: words.source, list, lang };
        retract::retract(&mut items);
        items
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The item at a place that is not masked.
    pub(crate) fn at(&self, i: usize) -> Option<&Item<'c>> {
        self.list.get(i).filter(|item| !item.masked)
    }

    /// Whether the item at a place has a meaning.
    pub(crate) fn is(&self, i: usize, sense: &str) -> bool {
        self.at(i).is_some_and(|item| item.senses.has(sense))
    }

    /// Whether the item at a place has one of these meanings.
    pub(crate) fn any(&self, i: usize, senses: &[&str]) -> bool {
        senses.iter().any(|sense| self.is(i, sense))
    }

    /// Whether this sign stands at a place.
    pub(crate) fn punct(&self, i: usize, sign: char) -> bool {
        self.at(i).is_some_and(|item| item.kind == Kind::Punct(sign))
    }

    /// The number at a place.
    pub(crate) fn num(&self, i: usize) -> Option<f64> {
        match self.at(i)?.kind {
            Kind::Num(n) => Some(n),
            _ => None,
        }
    }

    /// The whole number at a place.
    pub(crate) fn count(&self, i: usize) -> Option<u32> {
        whole(self.num(i)?)
    }

    /// The duration at a place, seconds.
    pub(crate) fn seconds(&self, i: usize) -> Option<u64> {
        let item = self.at(i)?;
        let amount = match item.kind {
            Kind::Qty(n) => n,
            // "an hour" is a phrase of its own, of money.
            Kind::Word if item.senses.has("per.hour") && number::ends_in_hour(&item.text, self.lang) => 1.0,
            Kind::Word if item.senses.has("hourly") => 1.0,
            Kind::Word if item.senses.has("halfhourly") => 0.5,
            Kind::Word if item.senses.has("daily") => 24.0,
            _ => return None,
        };
        let per = if item.kind == Kind::Word { 3_600.0 } else { number::seconds_per(item.senses)? };
        let seconds = (amount * per).round();
        ((amount * per - seconds).abs() < 1e-6 && (0.0..=3.2e9).contains(&seconds)).then_some(as_u64(seconds))
    }

    /// The size at a place, GiB.
    pub(crate) fn gib(&self, i: usize) -> Option<f64> {
        let item = self.at(i)?;
        match item.kind {
            Kind::Qty(n) => Some(n * number::gib_per(item.senses)?),
            _ => None,
        }
    }

    /// The quantity at a place in this unit.
    pub(crate) fn qty(&self, i: usize, unit: &str) -> Option<f64> {
        let item = self.at(i)?;
        match item.kind {
            Kind::Qty(n) if item.senses.has(unit) => Some(n),
            _ => None,
        }
    }

    /// The text at a place as written.
    pub(crate) fn raw(&self, i: usize) -> &'t str {
        self.list.get(i).map_or("", |item| &self.source[item.span.clone()])
    }

    /// The part of the request that these items take.
    pub(crate) fn span(&self, range: &Range<usize>) -> Span {
        // Items do not always stand in the order of the text: a correction and a reordering move some.
        let spans = || self.list.iter().take(range.end).skip(range.start).map(|item| &item.span);
        let start = spans().map(|span| span.start).min().unwrap_or(self.source.len());
        let end = spans().map(|span| span.end).max().unwrap_or(start);
        Span { start, end, text: self.source[start..end].to_owned() }
    }

    /// What the phrases in two parts say that begin at an item and end in its sentence, and the
    /// item where the second part begins.
    pub(crate) fn gaps(&self, i: usize) -> Vec<(&'static str, usize)> {
        let first = self.at(i).filter(|n| n.kind == Kind::Word).and_then(|n| n.text.split(' ').next());
        if !first.is_some_and(|word| Lexicon::get().begins_gap(word)) {
            return Vec::new();
        }
        let mut words: Vec<&str> = Vec::new();
        let mut of: Vec<usize> = Vec::new();
        for k in (i..self.len()).take_while(|k| !self.ends_sentence(*k)).take(GAP_ITEMS_MAX) {
            let item = &self.list[k];
            match item.kind {
                Kind::Num(_) => words.push("#"),
                Kind::Word if !item.masked => words.extend(item.text.split(' ')),
                _ => words.push(""),
            }
            of.resize(words.len(), k);
        }
        Lexicon::get().gaps_at(&words, self.lang).into_iter().map(|(sense, at)| (sense, of[at])).collect()
    }

    /// Whether "=" stands at a place: what is before it is a field, what is behind it its value.
    pub(crate) fn equals(&self, i: usize) -> bool {
        self.punct(i, '=') || self.at(i).is_some_and(|item| item.text == "=")
    }

    /// Whether a clause ends at this item.
    pub(crate) fn ends_clause(&self, i: usize) -> bool {
        match self.list.get(i) {
            None => true,
            Some(item) => {
                matches!(
                    item.kind,
                    Kind::Punct(
                        '.' | ',' | ';' | '!' | '?' | '\n' | ':' | '—' | '–' | '。' | '，' | '！' | '？' | '；'
                    )
                )
            }
        }
    }

    /// Whether a sentence ends at this item.
    pub(crate) fn ends_sentence(&self, i: usize) -> bool {
        match self.list.get(i) {
            None => true,
            Some(item) => matches!(item.kind, Kind::Punct('.' | ';' | '!' | '?' | '\n' | '。' | '！' | '？' | '；')),
        }
    }

    /// Whether a correction ("no wait", "I mean") stands between two places.
    pub(crate) fn corrects_between(&self, from: usize, to: usize) -> bool {
        (from..to).any(|i| self.corrects(i))
    }

    /// Whether an item takes back what was said: "no wait", or a "no" of its own.
    pub(crate) fn corrects(&self, i: usize) -> bool {
        let alone = |i: usize| {
            let starts = i == 0 || self.ends_clause(i - 1) || matches!(self.list[i - 1].kind, Kind::Punct('-' | '…'));
            let sign = |k: usize| {
                matches!(self.list.get(k).map(|n| &n.kind), Some(Kind::Punct(',' | ':' | '-' | '—' | '–' | '.' | '!')))
            };
            // "to 5 replicas, no 4"
            let value = self.num(i + 1).is_some() && (self.ends_clause(i + 2) || self.is(i + 2, "noun.replica"));
            starts && i > 0 && (sign(i + 1) || value)
        };
        // "rev 20, er, 21"
        let hums = |k: usize| {
            const HUMS: &[&str] = &["er", "uh", "um", "uhm", "äh", "ähm", "euh"];
            HUMS.contains(&self.list[k].text.as_str()) && k > 0 && self.punct(k - 1, ',') && self.punct(k + 1, ',')
        };
        self.is(i, "correct")
            || i < self.len() && hums(i)
            || self.at(i).is_some_and(|n| matches!(n.text.as_str(), "no" | "nope" | "nein" | "non" | "nah" | "不"))
                && alone(i)
    }
}

/// A number as a whole one.
pub(crate) fn whole(n: f64) -> Option<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number from 0 to 4e9, checked before"
    )]
    (n.fract() == 0.0 && (0.0..=4e9).contains(&n)).then_some(n as u32)
}

fn as_u64(n: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "callers check that it is from 0 to 3.2e9"
    )]
    let whole = n as u64;
    whole
}
