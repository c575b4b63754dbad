//! Numbers in digits and words, and units.

use crate::lexicon::{Lang, Lexicon, Senses};

/// A number in digits, with thousands or a fraction.
pub(super) fn digits(word: &str) -> Option<f64> {
    let plain = word.replace(',', "");
    if !plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') || plain == "." {
        return None;
    }
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, "0"));
    // A double has up to 17 digits behind its leading zeros.
    let ok = |s: &str, most: usize| !s.is_empty() && s.len() <= most && s.bytes().all(|b| b.is_ascii_digit());
    let whole_or_none = whole.is_empty() || ok(whole, 12);
    (whole_or_none && ok(fraction, 24)).then(|| format!("0{plain}").parse().ok()).flatten()
}

/// The number that a phrase says.
pub(super) fn of(senses: Senses) -> Option<f64> {
    senses.after("num.")?.parse().ok()
}

/// The share that a phrase says.
pub(super) fn share(senses: Senses) -> Option<f64> {
    senses.after("frac.")?.parse().ok()
}

/// One more word of a number in words: "ninety" then "five", "two" then "hundred".
pub(super) fn compose(so_far: f64, next: f64) -> Option<f64> {
    let tail = so_far % 100.0;
    if next >= 100.0 {
        return (so_far >= 1.0 && so_far < next).then_some(so_far * next);
    }
    let tens = tail >= 20.0 && tail % 10.0 == 0.0 && (1.0..10.0).contains(&next);
    let hundreds = so_far >= 100.0 && tail == 0.0 && next >= 1.0;
    (tens || hundreds).then_some(so_far + next)
}

/// One more character of a Chinese number: 二 then 十 then 四.
pub(super) fn compose_chinese(so_far: f64, next: f64) -> Option<f64> {
    if next >= 10.0 {
        let digit = so_far % 10.0;
        return (digit >= 1.0 && so_far < next * 10.0).then_some(so_far - digit + digit * next);
    }
    (so_far >= 10.0 && so_far % 10.0 == 0.0).then_some(so_far + next)
}

/// GiB in one of this unit; sizes are binary whatever the suffix.
pub(super) fn gib_per(senses: Senses) -> Option<f64> {
    match senses.iter().find(|s| matches!(*s, "unit.gib" | "unit.tib" | "unit.mib"))? {
        "unit.gib" => Some(1.0),
        "unit.tib" => Some(1024.0),
        _ => Some(1.0 / 1024.0),
    }
}

/// Seconds in one of this unit of time.
pub(super) fn seconds_per(senses: Senses) -> Option<f64> {
    senses.iter().find_map(|sense| match sense {
        "unit.s" => Some(1.0),
        "unit.min" => Some(60.0),
        "unit.h" => Some(3_600.0),
        "unit.d" => Some(86_400.0),
        "unit.w" => Some(604_800.0),
        "unit.fortnight" => Some(1_209_600.0),
        _ => None,
    })
}

/// Whether a phrase of money ends in "hour", so that it may be a duration as well.
pub(super) fn ends_in_hour(text: &str, lang: Lang) -> bool {
    let last = text.rsplit([' ', '/']).next().unwrap_or(text);
    let chinese = text.replace(' ', "").ends_with("小时");
    chinese || Lexicon::get().word(last, lang).is_some_and(|senses| senses.has("unit.h"))
}
