//! A request as tokens with spans: words, symbols, and quotes kept apart.
//!
//! What stands in quotes, code fences or pasted lines (`> …`) is one token that
//! carries its text; nothing in it is ever read as an order.

use std::ops::Range;

use crate::answer::Span;

/// What sort of token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A word, number or name.
    Word,
    /// A single character that is no word.
    Symbol(char),
    /// Quoted text.
    Quote(Quote),
}

/// What sort of quote it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quote {
    /// Marked as code: a fence or backquotes.
    Code,
    /// In quotation marks.
    Marks,
    /// Pasted: lines that begin with `>`.
    Pasted,
    /// A quote that never ends.
    Open,
}

/// A piece of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its bytes in the request, with the quotes.
    pub(crate) span: Range<usize>,
    /// A word in lower case, or the text inside a quote as it is.
    pub(crate) text: String,
}

/// A request, cut into tokens.
#[derive(Debug, Clone)]
pub(crate) struct Words<'t> {
    /// The request.
    pub(crate) source: &'t str,
    /// Its tokens.
    pub(crate) tokens: Vec<Token>,
}

/// Characters inside a word besides letters and digits.
const JOINERS: &[char] = &['-', '_', '.', '/', ':', '=', '@', '+', '\'', '%'];
/// Pairs of quotation marks.
const MARKS: &[(char, char)] = &[('"', '"'), ('“', '”'), ('„', '“'), ('«', '»'), ('‘', '’')];

impl<'t> Words<'t> {
    /// Cuts a request into tokens.
    pub(crate) fn new(source: &'t str) -> Self {
        let mut words = Self { source, tokens: Vec::new() };
        let mut at = 0;
        while at < source.len() {
            at = words.next_token(at);
        }
        words
    }

    /// Reads the token at a byte and says where the next one begins.
    fn next_token(&mut self, at: usize) -> usize {
        let rest = &self.source[at..];
        let Some(c) = rest.chars().next() else {
            return self.source.len();
        };
        if c.is_whitespace() {
            return at + c.len_utf8();
        }
        if let Some((quote, inner, len)) = quote_at(self.source, at) {
            let text = self.source[inner].to_owned();
            self.push(Kind::Quote(quote), at..at + len, text);
            return at + len;
        }
        let len = word_len(rest);
        if len == 0 {
            let end = at + c.len_utf8();
            self.push(Kind::Symbol(c), at..end, c.to_string());
            return end;
        }
        let lower = rest[..len].to_lowercase().replace('’', "'");
        self.push(Kind::Word, at..at + len, lower);
        at + len
    }

    fn push(&mut self, kind: Kind, span: Range<usize>, text: String) {
        self.tokens.push(Token { kind, span, text });
    }

    /// Part of the request, as it is written.
    pub(crate) fn raw_span(&self, span: &Range<usize>) -> &'t str {
        &self.source[span.clone()]
    }

    /// The word at a place in lower case, or "" if there is none.
    pub(crate) fn word(&self, i: usize) -> &str {
        match self.tokens.get(i) {
            Some(token) if token.kind == Kind::Word => &token.text,
            _ => "",
        }
    }

    /// The word at a place as it is written, or "" if there is none.
    pub(crate) fn raw(&self, i: usize) -> &'t str {
        match self.tokens.get(i) {
            Some(token) if token.kind == Kind::Word => &self.source[token.span.clone()],
            _ => "",
        }
    }

    /// Whether this symbol stands at a place.
    pub(crate) fn is_symbol(&self, i: usize, symbol: char) -> bool {
        self.tokens.get(i).is_some_and(|t| t.kind == Kind::Symbol(symbol))
    }

    /// The place after these words, if they stand here.
    pub(crate) fn phrase(&self, i: usize, phrase: &[&str]) -> Option<usize> {
        let same = phrase.iter().enumerate().all(|(k, word)| self.word(i + k) == *word);
        (same && !phrase.is_empty()).then_some(i + phrase.len())
    }

    /// The place after the longest of these phrases that stands here.
    pub(crate) fn any(&self, i: usize, phrases: &[&[&str]]) -> Option<usize> {
        phrases.iter().filter_map(|p| self.phrase(i, p)).max()
    }

    /// The part of the request that these tokens take.
    pub(crate) fn span(&self, tokens: Range<usize>) -> Span {
        let start = self.tokens.get(tokens.start).map_or(self.source.len(), |t| t.span.start);
        let end =
            tokens.end.checked_sub(1).and_then(|last| self.tokens.get(last)).map_or(start, |t| t.span.end.max(start));
        Span { start, end, text: self.source[start..end].to_owned() }
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }
}

/// The quote that begins at a byte: its sort, the bytes inside, its length.
fn quote_at(source: &str, at: usize) -> Option<(Quote, Range<usize>, usize)> {
    let rest = &source[at..];
    let before = source[..at].chars().next_back();
    if let Some(body) = rest.strip_prefix("```") {
        return Some(fence(at, body));
    }
    let first = rest.chars().next()?;
    let width = first.len_utf8();
    if first == '`' {
        return Some(closed_by(source, at, width, '`', Quote::Code));
    }
    let line = source[..at].rsplit('\n').next().unwrap_or_default();
    if first == '>' && line.trim().is_empty() {
        let len = pasted_len(rest);
        return Some((Quote::Pasted, at + width..at + len, len));
    }
    if first == '\'' {
        return apostrophe_quote(rest, before).map(|end| (Quote::Marks, at + 1..at + end, end + 1));
    }
    let (_, close) = MARKS.iter().find(|(open, _)| *open == first)?;
    Some(closed_by(source, at, width, *close, Quote::Marks))
}

fn fence(at: usize, body: &str) -> (Quote, Range<usize>, usize) {
    let start = at + 3;
    let (inner, quote, len) = match body.find("```") {
        Some(end) => (&body[..end], Quote::Code, 3 + end + 3),
        None => (body, Quote::Open, 3 + body.len()),
    };
    // The first line may name the language of the code.
    let tag = match inner.split_once('\n') {
        Some((tag, _)) if !tag.trim().contains(char::is_whitespace) => tag.len(),
        _ => 0,
    };
    (quote, start + tag..start + inner.len(), len)
}

fn closed_by(source: &str, at: usize, width: usize, close: char, quote: Quote) -> (Quote, Range<usize>, usize) {
    let start = at + width;
    match source[start..].find(close) {
        Some(len) => (quote, start..start + len, width + len + close.len_utf8()),
        None => (Quote::Open, start..source.len(), source.len() - at),
    }
}

/// Length of the lines that begin with `>`.
fn pasted_len(rest: &str) -> usize {
    let mut len = 0;
    for line in rest.split_inclusive('\n') {
        if !line.trim_start().starts_with('>') {
            break;
        }
        len += line.len();
    }
    rest[..len].trim_end().len().max(1)
}

/// Where a quote in apostrophes ends; an apostrophe inside a word is none.
fn apostrophe_quote(rest: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(char::is_alphanumeric) {
        return None;
    }
    let line = rest.split('\n').next().unwrap_or(rest);
    line.match_indices('\'')
        .skip(1)
        .find(|(end, _)| {
            let after = line[end + 1..].chars().next();
            !after.is_some_and(char::is_alphanumeric)
        })
        .map(|(end, _)| end)
}

/// Length of the word at the start of a text, 0 if there is none.
fn word_len(rest: &str) -> usize {
    let mut end = 0;
    let mut last = ' ';
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, n)| *n);
        if is_ideograph(c) {
            // A script without spaces: every character is a token of its own.
            return if at == 0 { c.len_utf8() } else { trimmed(&rest[..at]) };
        }
        let inside = c.is_alphanumeric()
            || JOINERS.contains(&c)
            || (c == '’' && last.is_alphanumeric() && next.is_some_and(char::is_alphanumeric))
            || (c == ',' && last.is_ascii_digit() && groups_thousands(&rest[..at], &rest[at + 1..]));
        if !inside {
            break;
        }
        end = at + c.len_utf8();
        last = c;
    }
    trimmed(&rest[..end])
}

/// Length of a word without the joiners that it ends in, 0 if nothing is left.
fn trimmed(word: &str) -> usize {
    if !word.chars().any(char::is_alphanumeric) {
        return 0;
    }
    if word.eq_ignore_ascii_case("w/") {
        return word.len();
    }
    word.trim_end_matches(['.', ':', '\'', '-', '/', '=', '@', '+']).len()
}

/// Chinese, Japanese and Korean characters.
pub(crate) fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c), 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xac00..=0xd7af | 0xf900..=0xfaff)
}

/// Whether a comma between digits groups thousands: three digits and no more follow.
fn groups_thousands(before: &str, after: &str) -> bool {
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let head = before.bytes().rev().take_while(u8::is_ascii_digit).count();
    digits == 3 && (1..=3).contains(&head) && !before.starts_with('0')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(text: &str) -> Vec<String> {
        Words::new(text)
            .tokens
            .into_iter()
            .map(|t| match t.kind {
                Kind::Word => t.text,
                Kind::Symbol(c) => format!("<{c}>"),
                Kind::Quote(q) => format!("{q:?}[{}]", t.text),
            })
            .collect()
    }

    #[test]
    fn words_symbols_and_quotes_are_told_apart() {
        let cases: &[(&str, &[&str])] = &[
            ("Run 4x H100s, don't!", &["run", "4x", "h100s", "<,>", "don't", "<!>"]),
            ("w/ 2,000 GPUs - A=1 ./x", &["w/", "2,000", "gpus", "<->", "a=1", "./x"]),
            ("run `a 'b' c` now", &["run", "Code[a 'b' c]", "now"]),
            ("```sh\necho hi\n```", &["Code[\necho hi\n]"]),
            ("log:\n> stop all\n> now\nok", &["log", "<:>", "Pasted[ stop all\n> now]", "ok"]),
            ("call it 'a b' \"open", &["call", "it", "Marks[a b]", "Open[open]"]),
            ("rate > 5", &["rate", "<>>", "5"]),
        ];
        for (text, tokens) in cases {
            assert_eq!(show(text), *tokens, "{text}");
        }
    }

    proptest! {
        #[test]
        fn tokens_never_overlap_and_lose_no_letter(text in ".{0,80}") {
            let words = Words::new(&text);
            let mut at = 0;
            for token in &words.tokens {
                prop_assert!(token.span.start >= at && token.span.end > token.span.start);
                prop_assert!(text[at..token.span.start].chars().all(char::is_whitespace));
                at = token.span.end;
            }
            prop_assert!(text[at..].chars().all(char::is_whitespace));
        }
    }
}
