//! Numbers, sizes, durations and spelling: what single words mean.

/// Whether two words differ by one slip at most: a letter wrong, missing, too
/// many, or two neighbors swapped.
fn one_slip(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let prefix = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[..a.len() - suffix], &b[..b.len() - suffix]);
    match (a, b) {
        ([] | [_], [] | [_]) => true,
        ([a1, a2], [b1, b2]) => a1 == b2 && a2 == b1,
        _ => false,
    }
}

/// The one known word that a misspelled word means: known words of five or more
/// letters, one slip, the same first letter, and never if two known words are as near.
pub(crate) fn near<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    const LETTERS_MIN: usize = 5;
    let mut found: Option<&str> = None;
    for candidate in known {
        if candidate == word {
            return None;
        }
        let near = candidate.chars().count() >= LETTERS_MIN
            && word.chars().count() + 1 >= LETTERS_MIN
            && candidate.chars().next() == word.chars().next()
            && one_slip(word, candidate);
        if near {
            if found.is_some_and(|old| old != candidate) {
                return None;
            }
            found = Some(candidate);
        }
    }
    found
}

/// How alike two names are, for "did you mean": the longest common prefix.
pub(crate) fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(x, y)| x.eq_ignore_ascii_case(y)).count()
}

/// A whole number in plain digits, without sign, separators or leading zeros.
pub(crate) fn digits(word: &str) -> Option<u32> {
    let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = word.len() > 1 && word.starts_with('0');
    (plain && !leading_zero).then(|| word.parse().ok()).flatten()
}

/// A number in digits with an optional fraction, without sign or separators.
pub(crate) fn decimal(word: &str) -> Option<f64> {
    let (whole, fraction) = word.split_once('.').unwrap_or((word, "0"));
    let plain = |s: &str| !s.is_empty() && s.len() <= 9 && s.bytes().all(|b| b.is_ascii_digit());
    (plain(whole) && plain(fraction)).then(|| word.parse().ok()).flatten()
}

/// A number and the unit written right behind it, such as `80gb`.
pub(crate) fn split_unit(word: &str) -> Option<(f64, &str)> {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, unit) = word.split_at(end);
    Some((decimal(number)?, unit))
}

/// GiB in one of this unit; sizes are binary whatever the suffix.
pub(crate) fn gib_per(unit: &str) -> Option<f64> {
    match unit {
        "g" | "gb" | "gib" | "gig" | "gigs" | "gigabyte" | "gigabytes" => Some(1.0),
        "t" | "tb" | "tib" | "terabyte" | "terabytes" => Some(1024.0),
        "m" | "mb" | "mib" | "megabyte" | "megabytes" => Some(1.0 / 1024.0),
        _ => None,
    }
}

/// Seconds in one of this unit of time.
pub(crate) fn seconds_per(unit: &str) -> Option<u32> {
    match unit {
        "s" | "sec" | "secs" | "second" | "seconds" | "sekunde" | "sekunden" | "segundos" | "secondes" => Some(1),
        "m" | "min" | "mins" | "minute" | "minutes" | "minuten" | "minuto" | "minutos" => Some(60),
        "h" | "hr" | "hrs" | "hour" | "hours" | "stunde" | "stunden" | "hora" | "horas" | "heure" | "heures" => {
            Some(3_600)
        }
        "d" | "day" | "days" | "tag" | "tage" | "tagen" | "día" | "días" | "jour" | "jours" => Some(86_400),
        _ => None,
    }
}

/// Whole seconds of so many of a unit; none if it is no whole number of seconds.
pub(crate) fn whole_seconds(amount: f64, unit: &str) -> Option<u64> {
    let seconds = amount * f64::from(seconds_per(unit)?);
    let whole = seconds.round();
    if (seconds - whole).abs() > 1e-6 || !(1.0..=3.2e9).contains(&whole) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number from 1 to 3.2e9, checked above"
    )]
    Some(whole as u64)
}
