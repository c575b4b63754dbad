//! Tokens that are written together and mean several things, such as `4xH100`.

use std::ops::Range;

use crate::catalog::Catalog;
use crate::lexicon::{Lang, Lexicon, Senses};
use crate::text::{Kind, Token, Words};

use super::shape;

/// A token and whether it stands right behind the one before it.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) token: Token,
    pub(super) glued: bool,
}

/// The tokens of a request, parted where several are written as one.
pub(super) fn split(words: &Words<'_>, catalog: &Catalog) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(words.tokens.len() + 8);
    for token in &words.tokens {
        let glued = parts.last().is_some_and(|last| last.token.span.end == token.span.start);
        if token.kind != Kind::Word {
            parts.push(Part { token: token.clone(), glued });
            continue;
        }
        // `-e mode=fast` and `label tier=gold` are pairs of the workload's own.
        let paired = parts.last().is_some_and(|last| {
            last.token.text == "-e" || known(&last.token.text).is_some_and(|s| s.has("noun.env") || s.has("noun.label"))
        });
        let pair = paired && token.text.contains('=');
        let cuts = if pair { Vec::new() } else { cuts_of(&token.text, words.raw_span(&token.span), catalog) };
        // Cuts are places in the lower-case text; they hold for the written text only if that has the same length.
        if token.text.len() != token.span.len() {
            parts.push(Part { token: token.clone(), glued });
            continue;
        }
        push(&mut parts, token, &cuts, glued);
    }
    parts
}

fn push(parts: &mut Vec<Part>, token: &Token, cuts: &[usize], glued: bool) {
    let mut from = 0;
    for to in cuts.iter().copied().chain([token.text.len()]) {
        let span: Range<usize> = token.span.start + from..token.span.start + to;
        let text = token.text[from..to].to_owned();
        let kind = match text.as_str() {
            ":" => Kind::Symbol(':'),
            "=" => Kind::Symbol('='),
            "/" => Kind::Symbol('/'),
            "-" | "--" => Kind::Symbol('-'),
            _ => Kind::Word,
        };
        parts.push(Part { token: Token { kind, span, text }, glued: glued || from > 0 });
        from = to;
    }
}

/// Where a word is to be cut.
fn cuts_of(word: &str, raw: &str, catalog: &Catalog) -> Vec<usize> {
    let gpu = |name: &str| shape::gpu(catalog, name).is_some();
    if known(word).is_some() {
        return Vec::new();
    }
    if gpu(word) || shape::is_mig(word) || shape::is_verbatim(word) && !word.contains('=') {
        return Vec::new();
    }
    // "H200:2"
    if let Some((name, count)) = word.split_once(':')
        && gpu(name)
        && count.bytes().all(|b| b.is_ascii_digit())
        && !count.is_empty()
    {
        return vec![name.len(), name.len() + 1];
    }
    if let Some((key, value)) = word.split_once(['=', ':']) {
        let lower_key = raw.starts_with(key);
        if splits_key(key, value, &word[key.len()..=key.len()], lower_key) {
            return with_value(vec![key.len(), key.len() + 1], value, raw, catalog);
        }
        // "--replicas=5"
        let flag = key.trim_start_matches('-');
        let dashes = key.len() - flag.len();
        if dashes > 0 && word.as_bytes()[key.len()] == b'=' && is_field(flag) {
            return with_value(vec![dashes, key.len(), key.len() + 1], value, raw, catalog);
        }
    }
    // "two-hour"
    if let Some((head, tail)) = word.split_once('-')
        && known(head).is_some_and(|s| s.after("num.").is_some())
        && matches!(tail, "hour" | "hours" | "day" | "minute" | "week")
    {
        return vec![head.len(), head.len() + 1];
    }
    if let Some((head, tail)) = word.split_once('-')
        && gpu(head)
        && is_gpu_noun(tail)
    {
        return vec![head.len(), head.len() + 1];
    }
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    if let Some(tail) = word[digits..].strip_prefix('x').filter(|_| digits > 0) {
        if tail.is_empty() || gpu(tail) || noun(tail) {
            return [digits].into_iter().chain((!tail.is_empty()).then_some(digits + 1)).collect();
        }
        return Vec::new();
    }
    if let Some(tail) = word.strip_prefix('x').filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit())) {
        return vec![word.len() - tail.len()];
    }
    if let Some((name, tail)) = word.rsplit_once('x')
        && gpu(name)
        && !tail.is_empty()
        && tail.bytes().all(|b| b.is_ascii_digit())
    {
        return vec![name.len(), name.len() + 1];
    }
    if let Some(slash) = word.find('/').filter(|at| *at > 0)
        // "3 MOLT/gpu hour"
        && (known(&word[slash..]).is_some() || matches!(&word[slash..], "/gpu" | "/card"))
        && word[..slash].chars().all(|c| c.is_alphanumeric() || c == '.')
    {
        let mut cuts = number_cuts(&word[..slash]);
        cuts.push(slash);
        return cuts;
    }
    noun_and_number(word).unwrap_or_else(|| number_cuts(word))
}

/// "cores/4" of "2 cores/4 GB".
fn noun_and_number(word: &str) -> Option<Vec<usize>> {
    let (head, tail) = word.split_once('/')?;
    let from = head.len() + 1;
    let cuts = || [head.len(), from].into_iter().chain(number_cuts(tail).into_iter().map(|cut| cut + from)).collect();
    (noun(head) && tail.starts_with(|c: char| c.is_ascii_digit())).then(cuts)
}

/// Cuts between numbers and the units or nouns that are written right behind them.
fn number_cuts(word: &str) -> Vec<usize> {
    if !word.starts_with(|c: char| c.is_ascii_digit()) || shape::is_clock(word) {
        return Vec::new();
    }
    let mut cuts = Vec::new();
    let mut at = 0;
    while at < word.len() {
        let number =
            word[at..].find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ',')).unwrap_or(word.len() - at);
        if number == 0 {
            return Vec::new();
        }
        at += number;
        if at == word.len() {
            break;
        }
        let tail_len = word[at..].find(|c: char| c.is_ascii_digit()).unwrap_or(word.len() - at);
        let tail = &word[at..at + tail_len];
        let bare = tail.trim_matches('-');
        if !(unit(bare) || (noun(bare) && at + tail_len == word.len())) {
            return Vec::new();
        }
        let dash = tail.len() - tail.trim_start_matches('-').len();
        if dash > 1 || tail.ends_with('-') {
            return Vec::new();
        }
        cuts.push(at);
        if dash == 1 {
            cuts.push(at + 1);
        }
        at += tail_len;
        if at < word.len() {
            cuts.push(at);
        }
    }
    cuts
}

/// The cuts of a key, and those of its value: "duration=24h".
fn with_value(mut cuts: Vec<usize>, value: &str, raw: &str, catalog: &Catalog) -> Vec<usize> {
    let from = cuts.last().copied().unwrap_or_default();
    let raw = raw.get(from..).unwrap_or_default();
    cuts.extend(cuts_of(value, raw, catalog).into_iter().map(|cut| cut + from));
    cuts
}

/// Names of fields, as `field=value` has them.
const FIELDS: &[&str] = &[
    "model",
    "gpu",
    "gpus",
    "count",
    "port",
    "replicas",
    "duration",
    "price",
    "strategy",
    "zone",
    "node",
    "nodes",
    "image",
    "name",
    "priority",
    "budget",
    "deadline",
    "tail",
    "limit",
    "quantization",
    "metric",
    "target",
    "threshold",
    "tenant",
    "state",
    "since",
    "deployment",
    "workload",
    "job",
    "action",
    "kind",
    "memory",
    "cpu",
    "cores",
    "disk",
    "shm",
    "environment",
    "symptom",
    "market",
    "revision",
    "grace",
    "min",
    "max",
    "restart",
    "ram",
    "mem",
    "cpus",
    "vcpus",
    "storage",
    "prio",
];

fn is_field(key: &str) -> bool {
    FIELDS.contains(&key)
}

fn splits_key(key: &str, value: &str, sign: &str, lower_key: bool) -> bool {
    if value.is_empty() || !lower_key || !key.chars().all(|c| c.is_ascii_alphabetic() || c == '_') {
        return false;
    }
    if sign == "=" && is_field(key) {
        return true;
    }
    let Some(senses) = known(key) else {
        return false;
    };
    let named =
        senses.iter().any(|s| s.starts_with("noun.") || s.starts_with("subj.") || matches!(s, "as" | "min" | "max"));
    // `node:20` is an image, and `tier=gold` a label.
    let digits = value.starts_with(|c: char| c.is_ascii_digit());
    let counts =
        senses.iter().any(|s| matches!(s, "noun.port" | "noun.replica" | "noun.gpu" | "noun.core" | "min" | "max"));
    named && !value.starts_with('/') && (sign == "=" || !digits || counts)
}

fn known(word: &str) -> Option<Senses> {
    Lexicon::get().word(word, Lang::English)
}

/// "L4-Karten", "H100-GPUs": in any language.
fn is_gpu_noun(tail: &str) -> bool {
    [Lang::English, Lang::German, Lang::Spanish, Lang::French]
        .into_iter()
        .any(|lang| Lexicon::get().word(tail, lang).is_some_and(|senses| senses.has("noun.gpu")))
}

fn unit(tail: &str) -> bool {
    const MORE: &[&str] = &["m", "k", "u", "x"];
    MORE.contains(&tail)
        || Lexicon::get().word(tail, Lang::French).is_some_and(|s| {
            s.iter().any(|s| s.starts_with("unit.") || s.starts_with("money.") || matches!(s, "clock.am" | "clock.pm"))
        })
}

fn noun(tail: &str) -> bool {
    known(tail).is_some_and(|s| {
        s.iter().any(|s| matches!(s, "noun.gpu" | "noun.node" | "noun.replica" | "noun.core" | "noun.port"))
    })
}
