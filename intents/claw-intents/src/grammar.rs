//! The grammar: which operation a request asks for, and its reading by clauses.

use std::collections::BTreeSet;
use std::ops::Range;

use claw_proto::limits::REQUEST_TEXT_CHARS_MAX;

use crate::answer::{Answer, RefusalCode};
use crate::catalog::Catalog;
use crate::context::Context;
use crate::lexicon::{Act, GPU_NOUNS, Lang, NODE_NOUNS, POLITE, STATES, SUBJECTS, VERBS, WORKLOAD_NOUNS};
use crate::safety;
use crate::text::{Kind, Words};
use crate::words::near;

mod clause;
mod command;
mod gpu;
mod measure;
mod model;
mod node;
mod notes;
mod query;
mod run;
mod serve;
mod stop;
mod target;

/// What can be asked for in words.
const CAN: &str = "in words I can run a command or a catalogued model, stop a workload, drain or undrain a node, and show status, nodes, GPUs, workloads, logs and events";

/// The verbs of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verb {
    act: Act,
    /// Tokens that belong to the verb.
    tokens: Vec<Range<usize>>,
    /// A misspelled verb and what it was read as.
    corrected: Option<(String, &'static str)>,
    lang: Lang,
}

impl Verb {
    /// The end of the verb's part that begins at this token.
    fn end_at(&self, token: usize) -> Option<usize> {
        self.tokens.iter().find(|range| range.start == token).map(|range| range.end)
    }
}

/// What is needed to read a request.
#[derive(Debug, Clone, Copy)]
struct Reading<'a> {
    words: &'a Words<'a>,
    verb: &'a Verb,
    context: &'a Context,
    catalog: &'a Catalog,
}

pub(crate) fn parse(text: &str, context: &Context, catalog: &Catalog) -> Answer {
    if text.chars().count() > REQUEST_TEXT_CHARS_MAX {
        return Answer::refusal(
            RefusalCode::Unsupported,
            format!("a request in words has at most {REQUEST_TEXT_CHARS_MAX} characters"),
        );
    }
    let mut words = Words::new(text);
    if let Some(message) = safety::objection(&words, context) {
        return Answer::refusal(RefusalCode::Unsafe, message);
    }
    if is_empty(&words) {
        return Answer::refusal(RefusalCode::Empty, format!("there is no request; {CAN}"));
    }
    let verb = match find_verb(&words) {
        Ok(Some(verb)) => verb,
        Ok(None) => return no_verb(&words, catalog),
        Err(answer) => return answer,
    };
    words.lang = verb.lang;
    let reading = Reading { words: &words, verb: &verb, context, catalog };
    if verb.act != Act::Query && is_doubtful(&words) {
        return Answer::ask(
            "action",
            "Is this a question, or shall it be done? Say it without the question mark to have it done.",
            Vec::new(),
        );
    }
    match verb.act {
        Act::Run | Act::Serve => run::read(reading),
        Act::Stop => stop::read(reading),
        Act::Drain => node::read_drain(reading),
        Act::Undrain => node::read_undrain(reading),
        Act::Query => query::read(reading),
        Act::Other(name) => {
            Answer::refusal(RefusalCode::Unsupported, format!("{name:?} cannot be asked for in words; {CAN}"))
        }
    }
}

/// Whether nothing but fillers and symbols is there.
fn is_empty(words: &Words<'_>) -> bool {
    let mut i = 0;
    while i < words.len() {
        match words.tokens[i].kind {
            Kind::Symbol(_) => i += 1,
            Kind::Quote(_) if words.tokens[i].text.trim().is_empty() => i += 1,
            Kind::Quote(_) => return false,
            Kind::Word => match words.filler(i) {
                Some(next) => i = next,
                None => return false,
            },
        }
    }
    true
}

/// The place after a filler or a symbol that means nothing.
fn skip(words: &Words<'_>, i: usize) -> Option<usize> {
    match words.tokens.get(i)?.kind {
        Kind::Symbol(symbol) => is_harmless(symbol).then_some(i + 1),
        Kind::Word => words.filler(i),
        Kind::Quote(_) => None,
    }
}

/// Punctuation that ends or parts sentences, and emoji. Signs that compare,
/// calculate or connect are not harmless: dropping one would change the meaning.
fn is_harmless(symbol: char) -> bool {
    matches!(symbol, ',' | '.' | ';' | ':' | '!' | '?' | '(' | ')' | '-' | '–' | '—' | '…' | '¿' | '¡' | '。' | '，')
        || matches!(u32::from(symbol), 0x2600..=0x27bf | 0xfe0f | 0x1f000..=0x1faff)
}

/// The operation that the words ask for; two different ones are a question.
fn find_verb(words: &Words<'_>) -> Result<Option<Verb>, Answer> {
    let mut found: Vec<(Range<usize>, Act, Lang)> = Vec::new();
    let mut i = 0;
    while i < words.len() {
        match words.verb(i).filter(|_| !is_noun(words, i)) {
            Some((len, act, lang)) => {
                found.push((i..i + len, act, lang));
                i += len;
            }
            None if !found.is_empty() && command::keyword(words, i).is_some() => break,
            None => i += 1,
        }
    }
    let Some((_, act, lang)) = found.first().cloned() else {
        return Ok(put_back(words).or_else(|| misspelled(words)).or_else(|| bare_query(words)));
    };
    let groups: BTreeSet<&str> = found.iter().map(|(_, act, _)| group(*act)).collect();
    if groups.len() > 1 {
        let options = groups.into_iter().map(str::to_owned).collect();
        return Err(Answer::ask("action", "One thing at a time, please: which of these is meant?", options));
    }
    let serves = found.iter().any(|(_, act, _)| *act == Act::Serve);
    Ok(Some(Verb {
        act: if serves { Act::Serve } else { act },
        tokens: found.into_iter().map(|(range, ..)| range).collect(),
        corrected: None,
        lang,
    }))
}

/// The name of what a verb asks for; equal for verbs that ask for the same.
fn group(act: Act) -> &'static str {
    match act {
        Act::Run | Act::Serve => "run",
        Act::Stop => "stop",
        Act::Drain => "drain",
        Act::Undrain => "undrain",
        Act::Query => "query",
        Act::Other(name) => name,
    }
}

/// Whether a word that could be a verb stands where only a noun or a name can.
fn is_noun(words: &Words<'_>, i: usize) -> bool {
    const BEFORE: &[&str] = &[
        "the", "a", "an", "this", "that", "on", "of", "from", "to", "in", "named", "called", "node", "job", "workload",
    ];
    let before = i.checked_sub(1).map_or("", |k| words.word(k));
    let wants_to = i >= 2 && before == "to" && matches!(words.word(i - 2), "want" | "like" | "need" | "you");
    BEFORE.contains(&before) && !wants_to
}

/// "put X back in service".
fn put_back(words: &Words<'_>) -> Option<Verb> {
    const TAILS: &[&[&str]] = &[
        &["back", "in", "service"],
        &["back", "into", "service"],
        &["back", "in", "rotation"],
        &["back", "into", "rotation"],
    ];
    let first = first_word(words)?;
    if !matches!(words.word(first), "put" | "bring" | "take") {
        return None;
    }
    let (tail, end) = (first..words.len()).find_map(|i| Some((i, words.any(i, TAILS)?)))?;
    Some(Verb { act: Act::Undrain, tokens: vec![first..first + 1, tail..end], corrected: None, lang: Lang::English })
}

/// A misspelled verb; only where the request begins.
fn misspelled(words: &Words<'_>) -> Option<Verb> {
    let first = first_word(words)?;
    let typed = words.word(first);
    let single = VERBS.iter().filter(|(_, phrase, _)| phrase.len() == 1);
    let right = near(typed, single.map(|(_, phrase, _)| phrase[0]))?;
    let (lang, _, act) = VERBS.iter().find(|(_, phrase, _)| *phrase == [right])?;
    let tokens = std::iter::once(first..first + 1).collect();
    Some(Verb { act: *act, tokens, corrected: Some((typed.to_owned(), right)), lang: *lang })
}

/// A request without a verb that names what it wants to see, such as "cluster status".
fn bare_query(words: &Words<'_>) -> Option<Verb> {
    const FIRST: &[&[&str]] = &[&["cluster"], &["fleet"], &["all"], &["last"]];
    let subject_at = |i: usize| SUBJECTS.iter().any(|(s, _)| words.phrase(i, s).is_some());
    let first = first_word(words)?;
    let names_subject = (first..words.len()).any(subject_at);
    let leads = subject_at(first)
        || words.any(first, FIRST).is_some()
        || STATES.contains(&words.word(first))
        || NODE_NOUNS.contains(&words.word(first))
        || WORKLOAD_NOUNS.contains(&words.word(first));
    (names_subject && leads).then(|| Verb { act: Act::Query, tokens: Vec::new(), corrected: None, lang: Lang::English })
}

/// The first token that is a word and no filler.
fn first_word(words: &Words<'_>) -> Option<usize> {
    let mut i = 0;
    while let Some(next) = skip(words, i) {
        i = next;
    }
    (!words.word(i).is_empty()).then_some(i)
}

/// Whether a change is asked for with a question mark and no word of request.
fn is_doubtful(words: &Words<'_>) -> bool {
    let asks = words.tokens.iter().any(|token| token.kind == Kind::Symbol('?'));
    asks && !(0..words.len()).any(|i| words.any(i, POLITE).is_some())
}

/// Nothing says what to do: a question if it is about this system at all.
fn no_verb(words: &Words<'_>, catalog: &Catalog) -> Answer {
    let ours = (0..words.len()).any(|i| {
        let word = words.word(i);
        gpu::name_at(words, i, catalog).is_some()
            || GPU_NOUNS.contains(&word)
            || NODE_NOUNS.contains(&word)
            || WORKLOAD_NOUNS.contains(&word)
            || catalog.name_at(&[word], false).is_some_and(|m| m.corrected.is_none())
    });
    if !ours {
        return Answer::refusal(RefusalCode::Unsupported, format!("that is no operation of this system; {CAN}"));
    }
    let options = ["run", "stop", "drain", "undrain", "query"];
    Answer::ask("action", format!("What is to be done? {CAN}."), options.map(str::to_owned).to_vec())
}
