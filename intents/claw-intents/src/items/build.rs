//! From tokens to items, left to right; at each place the longest and most
//! particular reading is taken.

use std::ops::Range;

use crate::catalog::Catalog;
use crate::catalog::resolve::Resolution;
use crate::context::Context;
use crate::lexicon::{Lang, Lexicon, Senses};
use crate::text::{Kind as TokenKind, Token};

use super::quantity::{finer, fraction, half_day, is_currency, long_unit, two_numbers, unit};
use super::respell::{NAMING, respell};
use super::split::Part;
use super::{Item, Kind, Listed, number, shape, sized};

/// Most words of a model's name.
const MODEL_WORDS_MAX: usize = 8;

struct Builder<'t, 'c, 'b> {
    source: &'t str,
    parts: &'b [Part],
    tokens: &'b [Token],
    /// Tokens that are read as another word than is written.
    respelled: Vec<bool>,
    lang: Lang,
    context: &'b Context,
    catalog: &'c Catalog,
    list: Vec<Item<'c>>,
}

pub(super) fn build<'c>(
    source: &str,
    parts: &[Part],
    tokens: &[Token],
    lang: Lang,
    context: &Context,
    catalog: &'c Catalog,
) -> Vec<Item<'c>> {
    let (tokens, respelled) = respell(tokens, lang, context);
    let tokens = tokens.as_slice();
    let mut builder =
        Builder { respelled, source, parts, tokens, lang, context, catalog, list: Vec::with_capacity(tokens.len()) };
    let mut i = 0;
    while i < tokens.len() {
        builder.line_break(i);
        let before = builder.list.len();
        let len = builder.next(i).max(1);
        i += len;
        if builder.list.len() > before {
            builder.join();
        }
    }
    sized::join(&mut builder.list, catalog);
    builder.list
}

impl<'c> Builder<'_, 'c, '_> {
    /// A line break is a sign of its own: it ends a clause.
    fn line_break(&mut self, i: usize) {
        let from = i.checked_sub(1).map_or(0, |k| self.tokens[k].span.end);
        let to = self.tokens[i].span.start;
        if i > 0 && self.source[from..to].contains('\n') {
            self.list.push(item(Kind::Punct('\n'), "\n".into(), from..to, Senses::default(), false));
        }
    }

    fn push(&mut self, kind: Kind<'c>, from: usize, len: usize, senses: Senses) {
        let span = self.tokens[from].span.start..self.tokens[from + len - 1].span.end;
        let text = match len {
            1 => self.tokens[from].text.clone(),
            _ => self.tokens[from..from + len].iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join(" "),
        };
        let mut new = item(kind, text, span, senses, self.parts[from].glued);
        new.corrected = self.respelled[from..from + len].contains(&true);
        new.listed = self.listed(&new.text);
        new.known = new.listed.is_some();
        new.node_like = match new.listed {
            Some(listed) => listed == Listed::Node,
            None => new.kind == Kind::Word && senses.is_empty() && shape::looks_like_node(self.catalog, &new.text),
        };
        self.list.push(new);
    }

    /// Of which list of the context this is a name or id.
    fn listed(&self, name: &str) -> Option<Listed> {
        let name = name.strip_suffix("'s").unwrap_or(name);
        let same = |other: &str| other.eq_ignore_ascii_case(name);
        if self.context.nodes.iter().any(|n| same(&n.name) || n.id.as_deref().is_some_and(same)) {
            return Some(Listed::Node);
        }
        if self.context.deployments.iter().any(|d| same(&d.name)) {
            return Some(Listed::Deployment);
        }
        let workload = self.context.workloads.iter().any(|w| same(&w.id) || w.name.as_deref().is_some_and(same));
        workload.then_some(Listed::Workload)
    }

    /// Reads the item that begins at a token and says how many tokens it takes.
    fn next(&mut self, i: usize) -> usize {
        let token = &self.tokens[i];
        match token.kind {
            TokenKind::Quote(quote) => {
                self.push(Kind::Quote(quote), i, 1, Senses::default());
                1
            }
            TokenKind::Symbol('.') if self.abbreviates(i) => 1,
            TokenKind::Symbol(sign) => match Lexicon::get().at(self.tokens, i, self.lang) {
                Some((len, senses)) if len > 1 || !matches!(sign, '-' | ',' | '.' | '、') => {
                    self.phrase(i, len, senses);
                    len
                }
                _ => {
                    self.push(Kind::Punct(sign), i, 1, Senses::default());
                    1
                }
            },
            TokenKind::Word => self.word(i),
        }
    }

    /// "min. 40 GB": a full stop that shortens a word ends nothing.
    fn abbreviates(&self, i: usize) -> bool {
        const SHORT: &[&str] = &["min", "max", "approx", "ca", "nr", "no", "rev", "mind", "vers"];
        let short = self.parts[i].glued && self.list.last().is_some_and(|n| SHORT.contains(&n.text.as_str()));
        short && self.tokens.get(i + 1).is_some_and(|t| t.text.starts_with(|c: char| c.is_ascii_digit() || c == '$'))
    }

    fn word(&mut self, i: usize) -> usize {
        let text = self.tokens[i].text.as_str();
        if self.listed(text).is_some() && shape::is_name_like(text) {
            self.push(Kind::Word, i, 1, Senses::default());
            return 1;
        }
        if let Some(len) = self.fixed(i) {
            return len;
        }
        if let Some(len) = self.gpu(i) {
            return len;
        }
        if let Some(len) = self.model(i, false) {
            return len;
        }
        let phrase = Lexicon::get().at(self.tokens, i, self.lang);
        if let Some((len, senses)) = phrase.filter(|(len, _)| *len > 1) {
            self.phrase(i, len, senses);
            return len;
        }
        if let Some(n) = number::digits(text) {
            self.push(Kind::Num(n), i, 1, Senses::default());
            return 1;
        }
        if let Some((len, senses)) = phrase {
            self.phrase(i, len, senses);
            return len;
        }
        if shape::is_image(text) {
            self.push(Kind::Image, i, 1, Senses::default());
            return 1;
        }
        // "the deployment's p99"
        let owner = text.strip_suffix("'s").and_then(|stem| Lexicon::get().word(stem, self.lang));
        if let Some(senses) = owner.filter(|senses| senses.iter().any(|s| s.starts_with("noun."))) {
            let stem = text.strip_suffix("'s").unwrap_or(text).to_owned();
            self.push(Kind::Word, i, 1, senses);
            if let Some(last) = self.list.last_mut() {
                last.text = stem;
            }
            return 1;
        }
        if let Some(senses) = self.elided(text) {
            self.push(Kind::Word, i, 1, senses);
            return 1;
        }
        if let Some(len) = self.model(i, true) {
            return len;
        }
        self.misspelled(i);
        1
    }

    /// What is known by its form alone.
    fn fixed(&mut self, i: usize) -> Option<usize> {
        let text = self.tokens[i].text.as_str();
        let span: Range<usize> = self.tokens[i].span.clone();
        let raw = &self.source[span];
        let none = Senses::default();
        if let Some(at) = shape::instant(raw) {
            self.push(Kind::Instant(at), i, 1, none);
        } else if let Some((day, minutes)) = shape::local_instant(text) {
            self.push(day, i, 1, none);
            self.push(Kind::Clock(minutes), i, 1, none);
        } else if let Some(day) = shape::date(text) {
            self.push(day, i, 1, none);
        } else if let Some(minutes) = shape::is_clock(text).then(|| shape::clock_minutes(text)).flatten() {
            self.push(Kind::Clock(minutes), i, 1, none);
        } else if shape::is_mig(text) {
            self.push(Kind::Mig, i, 1, none);
        } else if let Some((key, value)) = shape::pair(raw) {
            self.push(Kind::Pair(key, value), i, 1, none);
        } else if let Some((a, b, crossed)) = two_numbers(text) {
            self.push(if crossed { Kind::Cross(a, b) } else { Kind::Range(a, b) }, i, 1, none);
        } else if let Some(share) = fraction(text) {
            self.push(Kind::Share(share), i, 1, none);
        } else if shape::is_verbatim(text) && Lexicon::get().at(self.tokens, i, self.lang).is_none() {
            self.push(Kind::Path, i, 1, none);
        } else {
            return None;
        }
        Some(1)
    }

    fn gpu(&mut self, i: usize) -> Option<usize> {
        // A bare number such as 4090 behind "port" is a port.
        let behind_port = self.list.last().is_some_and(|item| item.senses.has("noun.port"));
        for len in (1..=3).rev() {
            let Some(tokens) = self.tokens.get(i..i + len).map(<[Token]>::iter) else {
                continue;
            };
            if tokens.clone().any(|t| t.kind != TokenKind::Word) {
                continue;
            }
            // "with a 10 percent canary": an article and a number are no A10.
            if len > 1 && self.tokens[i].text.chars().count() < 2 {
                continue;
            }
            let name = tokens.map(|t| t.text.as_str()).collect::<Vec<_>>().join(" ");
            // Two tokens that a number parts ("A100 80GB") are a name and a size.
            let sized =
                len > 1 && name.rsplit(' ').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()));
            let Some(kind) = shape::gpu(self.catalog, &name) else {
                continue;
            };
            if matches!(kind, Kind::Gpu { memory_gib: Some(_), .. }) && sized || behind_port {
                continue;
            }
            self.push(kind, i, len, Senses::default());
            return Some(len);
        }
        None
    }

    fn model(&mut self, i: usize, misspelled: bool) -> Option<usize> {
        let end = (i + MODEL_WORDS_MAX).min(self.tokens.len());
        let words: Vec<&str> = self.tokens[i..end]
            .iter()
            .take_while(|t| t.kind == TokenKind::Word)
            .map(|t| t.text.strip_suffix("'s").unwrap_or(&t.text))
            .collect();
        let words = &words[..self.before_count(i, words.len())];
        let found = self.catalog.name_at(words, misspelled)?;
        if let Resolution::NoSuch(_) = found.resolution
            && misspelled
        {
            return None;
        }
        self.push(Kind::Model(found.resolution), i, found.words, Senses::default());
        if let Some(last) = self.list.last_mut() {
            last.corrected = found.corrected.is_some();
        }
        Some(found.words)
    }

    /// How many of the words may belong to a model's name: a number that counts GPUs does not.
    fn before_count(&self, i: usize, len: usize) -> usize {
        (1..len)
            .find(|k| {
                let number = number::digits(&self.tokens[i + k].text).is_some();
                let next = self.tokens.get(i + k + 1).map_or("", |t| t.text.as_str());
                let counted = next == "x"
                    || next == "×"
                    || shape::gpu(self.catalog, next).is_some()
                    || Lexicon::get().word(next, self.lang).is_some_and(|s| {
                        s.iter().any(|s| matches!(s, "noun.gpu" | "noun.replica" | "noun.node" | "noun.core"))
                    });
                number && counted
            })
            .unwrap_or(len)
    }

    fn phrase(&mut self, i: usize, len: usize, senses: Senses) {
        if let Some(n) = number::of(senses) {
            self.push(Kind::Num(n), i, len, senses);
        } else if let Some(share) = number::share(senses) {
            self.push(Kind::Share(share), i, len, senses);
        } else {
            self.push(Kind::Word, i, len, senses);
        }
    }

    /// A French word behind an article that has lost its vowel.
    fn elided(&self, text: &str) -> Option<Senses> {
        // "plante-t-elle", "est-il": the verb before its pronoun.
        let verb = ["-t-elle", "-t-il", "-t-on", "-elle", "-il"].iter().find_map(|end| text.strip_suffix(end));
        if let Some(verb) = verb.filter(|_| self.lang == Lang::French) {
            return Lexicon::get().word(verb, self.lang);
        }
        let (article, rest) = text.split_once('\'')?;
        (article.len() <= 2 && self.lang == Lang::French).then(|| Lexicon::get().word(rest, self.lang)).flatten()
    }

    fn misspelled(&mut self, i: usize) {
        let text = self.tokens[i].text.clone();
        let lexicon = Lexicon::get();
        let plain = text.chars().all(char::is_alphabetic);
        // What stands where a name stands is not corrected.
        let named = self
            .list
            .last()
            .is_some_and(|n| NAMING.iter().any(|s| n.senses.has(s)) && !n.text.ends_with('s') || n.senses.has("as"));
        let mut spelled = text.clone();
        // "node ecxept gpu-3": the name comes next.
        let named = named && !self.tokens.get(i + 1).is_some_and(|t| shape::is_name_like(&t.text));
        let right = if named {
            None
        } else if plain {
            drawn_out(&text).into_iter().find_map(|word| lexicon.word(&word, self.lang)).or_else(|| {
                let expected = match self.list.last().map(|n| &n.kind) {
                    Some(Kind::Num(_)) => "unit.",
                    None | Some(Kind::Punct(_)) => "act.",
                    _ => "",
                };
                let word = lexicon.corrected(&text, self.lang, expected)?;
                word.clone_into(&mut spelled);
                lexicon.word(word, self.lang)
            })
        } else {
            hyphened_number(&text, self.lang)
        };
        match right {
            Some(senses) => {
                self.phrase(i, 1, senses);
                if let Some(last) = self.list.last_mut() {
                    last.corrected = plain;
                    last.text = spelled;
                }
                if let (false, Some(last)) = (plain, self.list.last_mut()) {
                    last.kind = hyphened_value(&text, self.lang).map_or(Kind::Word, Kind::Num);
                }
            }
            None => self.push(Kind::Word, i, 1, Senses::default()),
        }
    }

    /// Joins the last item with those before it: numbers in several words, a
    /// number with its unit, a sum of money, a time of day.
    fn join(&mut self) {
        while self.join_once() {}
    }

    fn join_once(&mut self) -> bool {
        let n = self.list.len();
        let (Some(last), Some(before)) = (self.list.last(), n.checked_sub(2).and_then(|k| self.list.get(k))) else {
            return false;
        };
        let joined = match (&before.kind, &last.kind) {
            (Kind::Num(a), Kind::Num(b)) => self.numbers(before, last, *a, *b),
            (Kind::Num(a), Kind::Word) => unit(last, *a),
            (Kind::Qty(a), Kind::Word) if before.senses.has("unit.celsius") && last.text == "c" => {
                Some((Kind::Qty(*a), before.senses))
            }
            (Kind::Share(a), Kind::Word)
                if number::seconds_per(last.senses).is_some() || number::gib_per(last.senses).is_some() =>
            {
                Some((Kind::Qty(*a), last.senses))
            }
            // "a second model": one more, and no time that anything takes.
            (Kind::Word, Kind::Word) if before.senses.has("det.a") && long_unit(last) && last.text != "second" => {
                Some((Kind::Qty(1.0), last.senses))
            }
            (Kind::Word, Kind::Num(b)) if is_currency(before.senses) && before.text != "molt" => {
                Some((Kind::Money(*b), before.senses))
            }
            (Kind::Word, Kind::Num(b)) if before.senses.has("unit.percent") && self.lang == Lang::Chinese => {
                Some((Kind::Qty(*b), before.senses))
            }
            // "2h30"
            (Kind::Qty(a), Kind::Num(b))
                if before.senses.has("unit.h") && last.glued && last.text.len() == 2 && *b < 60.0 =>
            {
                Some((Kind::Qty(a * 60.0 + b), Lexicon::get().word("min", Lang::English).unwrap_or_default()))
            }
            (Kind::Qty(a), Kind::Qty(b)) => finer(before, last, *a, *b),
            (Kind::Clock(minutes), Kind::Word) => half_day(*minutes, last).map(|m| (Kind::Clock(m), Senses::default())),
            (Kind::Money(a), Kind::Word) if last.text == "k" && last.glued => {
                Some((Kind::Money(a * 1_000.0), before.senses))
            }
            _ => None,
        };
        if let Some((kind, senses)) = joined {
            self.merge(2, kind, senses);
            return true;
        }
        self.join_three() || self.join_said_twice()
    }

    fn numbers(&self, before: &Item<'c>, last: &Item<'c>, a: f64, b: f64) -> Option<(Kind<'c>, Senses)> {
        number::of(last.senses)?;
        let worded = number::of(before.senses).is_some();
        // Digits take "hundred" or 万 after them, and nothing smaller.
        let n = match self.lang {
            _ if !worded && b < 100.0 => None,
            Lang::Chinese => number::compose_chinese(a, b),
            _ => number::compose(a, b),
        };
        n.map(|n| (Kind::Num(n), last.senses))
    }

    /// "two (2)": a number that is said twice counts once.
    fn join_said_twice(&mut self) -> bool {
        let Some([first, open, last, close]) = self.list.len().checked_sub(4).and_then(|from| self.list.get(from..))
        else {
            return false;
        };
        let (Kind::Num(a), Kind::Num(b)) = (&first.kind, &last.kind) else {
            return false;
        };
        let signs = open.kind == Kind::Punct('(') && close.kind == Kind::Punct(')');
        let same = signs && (a - b).abs() < f64::EPSILON;
        if same {
            let (kind, senses) = (first.kind.clone(), first.senses);
            self.merge(4, kind, senses);
        }
        same
    }

    /// "0,5" in languages with a decimal comma, and "an hour and a half".
    fn join_three(&mut self) -> bool {
        let Some([first, mid, last]) = self.list.len().checked_sub(3).and_then(|from| self.list.get(from..)) else {
            return false;
        };
        let joined = match (&first.kind, &mid.kind, &last.kind) {
            (Kind::Num(x), Kind::Punct(','), Kind::Num(_))
                if mid.glued
                    && last.glued
                    && !matches!(self.lang, Lang::English | Lang::Chinese)
                    && last.text.len() <= 2 =>
            {
                format!("{x}.{}", last.text).parse().ok().map(|n| (Kind::Num(n), Senses::default()))
            }
            // "0,5 MOLT", "1,5 h": in any language where the amount has a unit.
            (Kind::Num(x), Kind::Punct(','), Kind::Money(y) | Kind::Qty(y)) if mid.glued && last.glued => {
                let digits: String = last.text.chars().take_while(char::is_ascii_digit).collect();
                let whole: f64 = digits.parse().ok().filter(|n| *n > 0.0 && digits.len() <= 2).unwrap_or(f64::NAN);
                let n = format!("{x}.{digits}").parse::<f64>().ok().map(|n| n * y / whole).filter(|n| n.is_finite());
                n.map(|n| {
                    (if matches!(last.kind, Kind::Money(_)) { Kind::Money(n) } else { Kind::Qty(n) }, last.senses)
                })
            }
            (Kind::Num(x), Kind::Punct('.'), Kind::Num(_)) if mid.glued && last.glued => {
                format!("{x}.{}", last.text).parse().ok().map(|n| (Kind::Num(n), Senses::default()))
            }
            // "les 30 dernières minutes"
            (Kind::Num(n), Kind::Word, Kind::Word)
                if mid.text.starts_with("dernièr") || mid.text.starts_with("dernier") || mid.text == "prochaines" =>
            {
                number::seconds_per(last.senses).map(|_| (Kind::Qty(*n), last.senses))
            }
            (Kind::Word, Kind::Word, Kind::Word)
                if first.senses.has("det.a")
                    && matches!(mid.text.as_str(), "full" | "whole" | "entire" | "solid")
                    && long_unit(last) =>
            {
                Some((Kind::Qty(1.0), last.senses))
            }
            (Kind::Qty(x), Kind::Word, Kind::Share(half)) if mid.senses.has("and") => {
                Some((Kind::Qty(x + half), first.senses))
            }
            (Kind::Word, Kind::Word, Kind::Share(half)) if first.senses.has("per.hour") && mid.senses.has("and") => {
                Lexicon::get().word("hours", Lang::English).map(|senses| (Kind::Qty(1.0 + half), senses))
            }
            (Kind::Num(x), Kind::Word, Kind::Share(half)) if mid.senses.has("and") => {
                Some((Kind::Num(x + half), Senses::default()))
            }
            // "2 dollars and 40 cents"
            (Kind::Money(x), Kind::Word, Kind::Money(y))
                if mid.senses.has("and") && last.senses.has("money.cent") && first.senses.has("money.usd") =>
            {
                Some((Kind::Money(x + y), first.senses))
            }
            (Kind::Qty(x), Kind::Word, Kind::Qty(y)) if mid.senses.has("and") => finer(first, last, *x, *y),
            // "6-hour", "80-gb"
            (Kind::Num(x), Kind::Punct('-'), Kind::Word) if mid.glued && last.glued => unit(last, *x),
            (Kind::Num(x), Kind::Punct('-' | '–'), Kind::Num(y)) if x < y => {
                Some((Kind::Range(*x, *y), Senses::default()))
            }
            _ => None,
        };
        let Some((kind, senses)) = joined else {
            return false;
        };
        self.merge(3, kind, senses);
        true
    }

    fn merge(&mut self, count: usize, kind: Kind<'c>, senses: Senses) {
        let from = self.list.len() - count;
        let span = self.list[from].span.start..self.list[from + count - 1].span.end;
        let glued = self.list[from].glued;
        self.list.truncate(from);
        let text = self.source[span.clone()].to_lowercase();
        self.list.push(item(kind, text, span, senses, glued));
    }
}

fn item(kind: Kind<'_>, text: String, span: Range<usize>, senses: Senses, glued: bool) -> Item<'_> {
    Item {
        kind,
        text,
        span,
        senses,
        corrected: false,
        glued,
        known: false,
        listed: None,
        node_like: false,
        masked: false,
    }
}

/// A word without the letters that were drawn out: "suuuper", "pleeease".
fn drawn_out(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    if !letters.windows(3).any(|w| w[0] == w[1] && w[1] == w[2]) {
        return Vec::new();
    }
    let keep = |most: usize| {
        let mut out = String::new();
        let mut run = 0;
        let mut last = None;
        for c in &letters {
            run = if last == Some(*c) { run + 1 } else { 1 };
            last = Some(*c);
            if run <= most {
                out.push(*c);
            }
        }
        out
    };
    vec![keep(1), keep(2)]
}

fn hyphened_number(text: &str, lang: Lang) -> Option<Senses> {
    hyphened_value(text, lang)?;
    Lexicon::get().word(text.split('-').next()?, lang)
}

/// "ninety-five".
fn hyphened_value(text: &str, lang: Lang) -> Option<f64> {
    let (a, b) = text.split_once('-')?;
    let value = |word: &str| Lexicon::get().word(word, lang).and_then(number::of);
    number::compose(value(a)?, value(b)?)
}
