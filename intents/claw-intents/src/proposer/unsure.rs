//! Whether the grammar is sure of its answer.

use serde::Serialize;

use crate::answer::{Answer, Intent, Source, Span, Understood};
use crate::catalog::Catalog;
use crate::context::Context;
use crate::engine::held::Orders;
use crate::items::{Items, Kind};
use crate::text::Words;

use super::evidence;

/// Why the grammar is unsure. It is so in these three cases and in no other:
///
/// - it found no order in words that speak of this system, and asks what is to be done;
/// - it found the order and asks, without a choice of readings, for something that costs nothing,
///   such as a name or what is to be shown;
/// - it understood a run, a deployment or an update, and words that no lexicon has stand in the
///   same sentence.
///
/// It is sure of a refusal, of any other intent, of a question between two readings (to choose is a
/// person's business), and of a question for a value that costs: only a person's words can give it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Unsure {
    /// Nothing was understood as an order.
    NoOrder,
    /// Too little was understood.
    TooLittle {
        /// Dotted fields that are missing.
        fields: Vec<String>,
    },
    /// Words beside the order are not known.
    UnknownWords {
        /// The words.
        words: Vec<Span>,
    },
}

/// The grammar's answer, and whether it is unsure.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// The answer.
    pub answer: Answer,
    /// Why it is unsure; none if it is not.
    pub unsure: Option<Unsure>,
}

/// Parses a request with the grammar and tells whether it is unsure of the answer.
pub fn look(text: &str, context: &Context, catalog: &Catalog) -> Look {
    let answer = crate::parse(text, context, catalog);
    let unsure = match &answer {
        Answer::Refusal { .. } => None,
        Answer::Question(questions) => {
            let words = Words::new(text);
            let orders = Orders::of(&Items::new(&words, context, catalog));
            if orders.order.is_none() {
                Some(Unsure::NoOrder)
            } else if questions.iter().all(|q| q.options.is_empty() && evidence::is_open(&q.field)) {
                Some(Unsure::TooLittle { fields: questions.iter().map(|q| q.field.clone()).collect() })
            } else {
                None
            }
        }
        Answer::Intent(understood) => {
            let words = unknown_words(text, context, catalog, understood);
            (!words.is_empty()).then_some(Unsure::UnknownWords { words })
        }
    };
    Look { answer, unsure }
}

/// Fewest letters of an unknown word that counts.
const LETTERS_MIN: usize = 3;

/// Words that no lexicon has, that no field was read from, in the sentence of an order to start or
/// change work.
fn unknown_words(text: &str, context: &Context, catalog: &Catalog, understood: &Understood) -> Vec<Span> {
    if !matches!(understood.intent, Intent::Run { .. } | Intent::Deploy { .. } | Intent::Update { .. }) {
        return Vec::new();
    }
    let words = Words::new(text);
    let items = Items::new(&words, context, catalog);
    let read: Vec<&Span> = understood
        .provenance
        .iter()
        .filter_map(|p| match &p.source {
            Source::Text(span) => Some((p, span)),
            Source::Catalogue | Source::Context | Source::Default | Source::Model => None,
        })
        .map(|(_, span)| span)
        .collect();
    let order = understood.provenance.iter().find(|p| p.field == "action");
    let Some(Source::Text(order)) = order.map(|p| &p.source) else {
        return Vec::new();
    };
    let Some(at) = items.list.iter().position(|item| item.span.end > order.start) else {
        return Vec::new();
    };
    let start = (0..at).rev().find(|k| items.ends_sentence(*k)).map_or(0, |k| k + 1);
    let end = (at..items.len()).find(|k| items.ends_sentence(*k)).unwrap_or(items.len());
    (start..end)
        .filter(|k| means_nothing(&items, *k))
        .filter(|k| items.list[*k].text.chars().filter(|c| c.is_alphabetic()).count() >= LETTERS_MIN)
        .filter(|k| {
            let own = &items.list[*k].span;
            !read.iter().any(|span| span.start < own.end && own.start < span.end)
        })
        .map(|k| items.span(&(k..k + 1)))
        .collect()
}

/// Whether an item is a word that means nothing to the grammar.
pub(super) fn means_nothing(items: &Items<'_, '_>, i: usize) -> bool {
    items.list.get(i).is_some_and(|item| {
        item.kind == Kind::Word && item.senses.is_empty() && !item.known && !item.corrected && !item.masked
    })
}
