//! The present as a place in a time zone, and calendar arithmetic.

use claw_proto::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: i64 = 1_440;

/// The present, with the zone in which clock times without one are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The instant.
    pub at: Timestamp,
    /// Minutes east of Greenwich.
    pub offset_minutes: i32,
}

impl Now {
    /// The present in UTC.
    pub const fn utc(at: Timestamp) -> Self {
        Self { at, offset_minutes: 0 }
    }

    /// Minutes since the epoch on the wall clock of a zone.
    pub(crate) fn wall_minutes(self, offset_minutes: i32) -> i64 {
        self.at.unix_ms().div_euclid(MINUTE_MS) + i64::from(offset_minutes)
    }

    /// The day, as days since the epoch, in a zone.
    pub(crate) fn day(self, offset_minutes: i32) -> i64 {
        self.wall_minutes(offset_minutes).div_euclid(DAY_MINUTES)
    }

    /// Minutes of the day in a zone.
    pub(crate) fn minute_of_day(self, offset_minutes: i32) -> i64 {
        self.wall_minutes(offset_minutes).rem_euclid(DAY_MINUTES)
    }
}

impl std::str::FromStr for Now {
    type Err = claw_proto::time::TimestampError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at: Timestamp = text.parse()?;
        Ok(Self { at, offset_minutes: offset_of(text) })
    }
}

/// The offset that an RFC 3339 text ends in; 0 for `Z`.
fn offset_of(text: &str) -> i32 {
    let Some((sign_at, zone)) = text.len().checked_sub(6).and_then(|at| text.get(at..).map(|zone| (at, zone))) else {
        return 0;
    };
    let sign = match text.as_bytes().get(sign_at) {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => return 0,
    };
    let (hours, minutes) = (zone.get(1..3), zone.get(4..6));
    let number = |part: Option<&str>| part.and_then(|p| p.parse::<i32>().ok()).unwrap_or(0);
    sign * (number(hours) * 60 + number(minutes))
}

impl<'de> Deserialize<'de> for Now {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Now {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&rfc3339(self.at, self.offset_minutes))
    }
}

impl JsonSchema for Now {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Now".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Timestamp::json_schema(generator)
    }
}

/// An instant on the wall clock of a zone.
fn rfc3339(at: Timestamp, offset_minutes: i32) -> String {
    if offset_minutes == 0 {
        return at.to_string();
    }
    let text = at.plus_ms(i64::from(offset_minutes) * MINUTE_MS).to_string();
    let sign = if offset_minutes < 0 { '-' } else { '+' };
    let minutes = offset_minutes.abs();
    format!("{}{sign}{:02}:{:02}", text.trim_end_matches('Z'), minutes / 60, minutes % 60)
}

/// The instant of a wall-clock minute in a zone.
pub(crate) fn instant(day: i64, minute: i64, offset_minutes: i32) -> Timestamp {
    let minutes = day.saturating_mul(DAY_MINUTES).saturating_add(minute).saturating_sub(i64::from(offset_minutes));
    Timestamp::from_unix_ms(minutes.saturating_mul(MINUTE_MS))
}

/// Days since the epoch of a date; none if there is no such date.
pub(crate) fn day_of(year: i32, month: u32, day: u32) -> Option<i64> {
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    if day == 0 || day > length {
        return None;
    }
    // Years that begin in March, so that the leap day is the last.
    let y = i64::from(year) - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let month_from_march = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// The year of a day.
pub(crate) fn year_of(day: i64) -> i32 {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let year = year_of_era + era * 400 + i64::from(day_of_year >= 306);
    i32::try_from(year).unwrap_or(1970)
}

/// Monday is 0.
pub(crate) fn weekday_of(day: i64) -> i64 {
    (day + 3).rem_euclid(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_agree_with_the_calendar() {
        assert_eq!(day_of(1970, 1, 1), Some(0));
        assert_eq!(day_of(2026, 3, 10), Some(20_522));
        assert_eq!(day_of(2026, 2, 29), None);
        assert_eq!((weekday_of(20_522), year_of(20_522)), (1, 2026));
        for day in [-1, 0, 58, 59, 60, 364, 365, 20_000, 20_522, 30_000] {
            let year = year_of(day);
            assert!(day_of(year, 1, 1) <= Some(day) && Some(day) < day_of(year + 1, 1, 1), "{day} {year}");
        }
    }

    #[test]
    fn the_zone_of_now_is_kept() {
        let now: Now = "2026-03-10T14:00:00+01:00".parse().unwrap();
        assert_eq!((now.offset_minutes, now.minute_of_day(60)), (60, 840));
        assert_eq!(serde_json::to_string(&now).unwrap(), "\"2026-03-10T14:00:00.000+01:00\"");
    }
}
