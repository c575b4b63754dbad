//! GPUs in words: "4 H100s", "a pair of 80 GB cards", "8xA100-80GB", "no GPU".

use std::ops::Range;

use claw_proto::spec::GpuVendor;

use super::measure::size_gib;
use crate::catalog::{Catalog, GpuModel};
use crate::lexicon::GPU_NOUNS;
use crate::text::Words;
use crate::words::{digits, gib_per, split_unit};

/// A value and the tokens that give it.
type At<T> = (T, Range<usize>);

/// GPUs as one phrase names them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct GpuPhrase<'c> {
    pub(super) count: Option<At<u32>>,
    /// Two counts, such as "4 or 8": a person must choose.
    pub(super) either: Option<[u32; 2]>,
    pub(super) model: Option<At<&'c GpuModel>>,
    pub(super) memory_gib: Option<At<f64>>,
    pub(super) vendor: Option<At<GpuVendor>>,
    pub(super) nvlink: Option<Range<usize>>,
    /// The place after the phrase.
    pub(super) next: usize,
}

/// A GPU model's name, with what is written together with it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GpuName<'c> {
    model: &'c GpuModel,
    count: Option<u32>,
    memory_gib: Option<f64>,
    next: usize,
}

/// Phrases that ask for no GPU at all.
const NO_GPU: &[&[&str]] = &[
    &["no", "gpu"],
    &["no", "gpus"],
    &["without", "gpu"],
    &["without", "gpus"],
    &["without", "a", "gpu"],
    &["without", "any", "gpu"],
    &["without", "any", "gpus"],
    &["zero", "gpus"],
    &["cpu", "only"],
    &["cpu-only"],
    &["ohne", "gpu"],
    &["sin", "gpu"],
    &["sans", "gpu"],
];

/// The GPUs that a phrase at this place names.
pub(super) fn phrase_at<'c>(words: &Words<'_>, i: usize, catalog: &'c Catalog) -> Option<GpuPhrase<'c>> {
    let start = words.skip_on(i);
    if let Some(next) = words.any(start, NO_GPU) {
        return Some(GpuPhrase { count: Some((0, start..next)), next, ..GpuPhrase::default() });
    }
    let mut found = GpuPhrase { next: start, ..GpuPhrase::default() };
    found.read_count(words);
    found.read_adjectives(words);
    if let Some(name) = name_at(words, found.next, catalog) {
        found.take_name(words, name);
    } else if found.count.is_some() || found.either.is_some() {
        // "4 GPUs" says how many; a bare "GPUs" says nothing.
        if !GPU_NOUNS.contains(&words.word(found.next)) {
            return None;
        }
        found.next += 1;
    } else {
        return None;
    }
    Some(found)
}

impl<'c> GpuPhrase<'c> {
    fn read_count(&mut self, words: &Words<'_>) {
        let start = self.next;
        let range = words.word(start).split_once(['-', '/']);
        let range = range.and_then(|(few, many)| Some([digits(few)?, digits(many)?]));
        if range.is_some() {
            self.either = range;
            self.next = start + 1;
            return;
        }
        let times = words.word(start).strip_suffix('x').and_then(digits);
        let (count, mut next) = match (times, words.number(start)) {
            (Some(count), _) => (count, start + 1),
            (None, Some(found)) => found,
            (None, None) if matches!(words.word(start), "a" | "an") => (1, start + 1),
            (None, None) => return,
        };
        if matches!(words.word(next), "or" | "to" | "oder")
            && let Some((other, after)) = words.number(next + 1)
        {
            self.either = Some([count, other]);
            self.next = after;
            return;
        }
        if words.word(next) == "x" || words.is_symbol(next, '×') {
            next += 1;
        }
        self.count = Some((count, start..next));
        self.next = next;
    }

    fn read_adjectives(&mut self, words: &Words<'_>) {
        loop {
            let at = self.next;
            if let Some(vendor) = GpuVendor::from_text(words.word(at)) {
                self.vendor = Some((vendor, at..at + 1));
                self.next = at + 1;
            } else if let Some(next) = words.any(at, &[&["nvlink-connected"], &["nvlink", "connected"], &["nvlink"]]) {
                self.nvlink = Some(at..next);
                self.next = next;
            } else if let (None, Some((gib, next))) = (&self.memory_gib, size_gib(words, at)) {
                self.memory_gib = Some((gib, at..next));
                self.next = next;
            } else {
                return;
            }
        }
    }

    fn take_name(&mut self, words: &Words<'_>, name: GpuName<'c>) {
        let at = self.next..name.next;
        self.next = name.next;
        self.model = Some((name.model, at.clone()));
        if let Some(count) = name.count {
            self.count = Some((count, at.clone()));
        }
        if let Some(gib) = name.memory_gib {
            self.memory_gib = Some((gib, at));
        }
        self.read_memory_behind(words, name.model);
        if self.count.is_none() {
            self.read_count_behind(words);
        }
        if GPU_NOUNS.contains(&words.word(self.next)) {
            self.next += 1;
        }
    }

    /// "A100 80GB", "A100 (80 GB)"; only a size that the model really has, and
    /// not the start of another amount such as "64 GB RAM".
    fn read_memory_behind(&mut self, words: &Words<'_>, model: &GpuModel) {
        let inside = words.skip_symbol(self.next, '(');
        let Some((gib, after)) = size_gib(words, inside) else {
            return;
        };
        let closed = words.skip_symbol(after, ')');
        let exists = model.memory_gib.iter().any(|known| (known - gib).abs() < 1e-6);
        let other = matches!(words.word(after), "ram" | "memory" | "mem" | "disk" | "shm" | "of");
        if exists && !other && (closed > after) == (inside > self.next) {
            self.memory_gib = Some((gib, inside..after));
            self.next = closed;
        }
    }

    /// "H100 x4", "H100 x 4".
    fn read_count_behind(&mut self, words: &Words<'_>) {
        let at = self.next;
        if let Some(count) = words.word(at).strip_prefix('x').and_then(digits) {
            self.count = Some((count, at..at + 1));
            self.next = at + 1;
        } else if (words.word(at) == "x" || words.is_symbol(at, '×'))
            && let Some((count, next)) = words.number(at + 1)
        {
            self.count = Some((count, at + 1..next));
            self.next = next;
        }
    }
}

/// The GPU model's name that stands here.
pub(super) fn name_at<'c>(words: &Words<'_>, i: usize, catalog: &'c Catalog) -> Option<GpuName<'c>> {
    let word = words.word(i);
    let two = format!("{word} {}", words.word(i + 1));
    if let Some(model) = named(&two, catalog) {
        return Some(GpuName { model, count: None, memory_gib: None, next: i + 2 });
    }
    in_one_word(word, catalog).map(|mut name| {
        name.next = i + 1;
        name
    })
}

/// "H100s", "4xH100", "H100x4", "A100-80GB", "L4-Karten", "RTX-4090".
fn in_one_word<'c>(word: &str, catalog: &'c Catalog) -> Option<GpuName<'c>> {
    let before =
        word.split_once('x').and_then(|(n, rest)| Some((digits(n)?, rest))).filter(|(_, rest)| !rest.is_empty());
    let behind = word.rsplit_once('x').and_then(|(rest, n)| Some((digits(n)?, rest)));
    let (count, body) = match (before, behind) {
        (Some(_), Some(_)) => return None,
        (Some((n, rest)), None) | (None, Some((n, rest))) => (Some(n), rest),
        (None, None) => (None, word),
    };
    let parts: Vec<&str> = body.split('-').collect();
    (1..=parts.len().min(2)).rev().find_map(|taken| {
        let model = named(&parts[..taken].join(" "), catalog)?;
        let mut memory_gib = None;
        for part in &parts[taken..] {
            match split_unit(part) {
                Some((amount, unit)) if memory_gib.is_none() => {
                    memory_gib = Some(amount * gib_per(unit)?);
                }
                _ if GPU_NOUNS.contains(part) => {}
                _ => return None,
            }
        }
        Some(GpuName { model, count, memory_gib, next: 0 })
    })
}

/// The GPU model of this name, in the singular or plural.
fn named<'c>(name: &str, catalog: &'c Catalog) -> Option<&'c GpuModel> {
    let find = |name: &str| catalog.gpus().iter().find(|gpu| gpu.names.iter().any(|known| known == name));
    let singular = name.strip_suffix("'s").or_else(|| name.strip_suffix('s'));
    find(name).or_else(|| singular.and_then(find))
}
