//! Amounts in words: durations and sizes.

use crate::text::Words;
use crate::words::{decimal, gib_per, split_unit, whole_seconds};

/// The duration that stands here, in seconds, and the place after it.
pub(super) fn duration(words: &Words<'_>, i: usize) -> Option<(u64, usize)> {
    if let Some((amount, unit)) = split_unit(words.word(i)).filter(|(_, unit)| !unit.is_empty()) {
        return Some((whole_seconds(amount, unit)?, i + 1));
    }
    let (amount, next) = match (decimal(words.word(i)), words.number(i)) {
        (Some(amount), _) => (amount, i + 1),
        (None, Some((number, next))) => (f64::from(number), next),
        (None, None) if matches!(words.word(i), "a" | "an") => (1.0, i + 1),
        (None, None) => return None,
    };
    Some((whole_seconds(amount, words.word(next))?, next + 1))
}

/// The size that stands here, in GiB, and the place after it.
pub(super) fn size_gib(words: &Words<'_>, i: usize) -> Option<(f64, usize)> {
    let (amount, unit) = split_unit(words.word(i))?;
    let (unit, next) = if unit.is_empty() { (words.word(i + 1), i + 2) } else { (unit, i + 1) };
    let gib = amount * gib_per(unit)?;
    (gib > 0.0).then_some((gib, next))
}
