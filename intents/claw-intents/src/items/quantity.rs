//! Numbers and the words behind them: units, currencies, halves of the day.

use crate::lexicon::{Lang, Lexicon, Senses};

use super::{Item, Kind, number};

/// A number and the word behind it, if that is a unit.
pub(super) fn unit<'c>(last: &Item<'c>, n: f64) -> Option<(Kind<'c>, Senses)> {
    let glued = last.glued;
    match last.text.as_str() {
        "m" if glued => return Lexicon::get().word("minutes", Lang::English).map(|s| (Kind::Qty(n), s)),
        "k" if glued => return Some((Kind::Num(n * 1_000.0), Senses::default())),
        // One letter apart from its number is a word.
        "t" | "d" if !glued => return None,
        _ => {}
    }
    let senses = last.senses;
    if is_currency(senses) {
        let cents = senses.has("money.cent");
        return Some((Kind::Money(if cents { n / 100.0 } else { n }), senses));
    }
    if let Some(pm) = half_day_of(senses)
        && (1.0..=12.0).contains(&n)
        && n.fract() == 0.0
        && (glued || matches!(last.text.as_str(), "am" | "pm" | "a.m" | "p.m"))
    {
        let hour = super::whole(n)? % 12 + if pm { 12 } else { 0 };
        return Some((Kind::Clock(hour * 60), Senses::default()));
    }
    senses.iter().any(|s| s.starts_with("unit.")).then_some((Kind::Qty(n), senses))
}

pub(super) fn is_currency(senses: Senses) -> bool {
    senses.iter().any(|s| s.starts_with("money."))
}

/// Whether a phrase says the second half of the day; none if neither.
fn half_day_of(senses: Senses) -> Option<bool> {
    match (senses.has("clock.am"), senses.has("clock.pm")) {
        (true, _) => Some(false),
        (_, true) => Some(true),
        _ => None,
    }
}

pub(super) fn half_day(minutes: u32, last: &Item<'_>) -> Option<u32> {
    let pm = half_day_of(last.senses)?;
    match (pm, minutes / 60) {
        (true, hour) if hour < 12 => Some(minutes + 720),
        (false, 12) => Some(minutes - 720),
        (true, _) => Some(minutes),
        (false, hour) if hour < 12 => Some(minutes),
        _ => None,
    }
}

/// Two quantities of time, the second of a finer unit: they add up, in the finer unit's terms.
pub(super) fn finer<'c>(a: &Item<'c>, b: &Item<'c>, x: f64, y: f64) -> Option<(Kind<'c>, Senses)> {
    let (big, small) = (number::seconds_per(a.senses)?, number::seconds_per(b.senses)?);
    (small < big).then_some((Kind::Qty(x * big / small + y), b.senses))
}

/// A unit of time or size that is written out, so that "a" before it counts as one.
pub(super) fn long_unit(item: &Item<'_>) -> bool {
    (number::seconds_per(item.senses).is_some() || number::gib_per(item.senses).is_some())
        && item.text.chars().count() > 2
}

/// "4-8", "1..5" and "2x8".
pub(super) fn two_numbers(text: &str) -> Option<(f64, f64, bool)> {
    for (sign, crossed) in [("..", false), ("-", false), ("–", false), ("x", true), ("×", true)] {
        if let Some((a, b)) = text.split_once(sign)
            && let (Some(a), Some(b)) = (number::digits(a), number::digits(b))
            && (crossed || a < b)
        {
            return Some((a, b, crossed));
        }
    }
    None
}

/// "1/2".
pub(super) fn fraction(text: &str) -> Option<f64> {
    let (a, b) = text.split_once('/')?;
    let (a, b) = (number::digits(a)?, number::digits(b)?);
    (a > 0.0 && a < b && b <= 16.0).then_some(a / b)
}
