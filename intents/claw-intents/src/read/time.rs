//! How long, not before when, and by when.

use claw_proto::time::Timestamp;
use serde_json::json;

use crate::answer::RefusalCode;
use crate::clock;
use crate::draft::Draft;
use crate::items::{Items, Kind};

mod duration;

/// What a day without a time lacks.
const NO_TIME: &str = "Say the time of day too.";

/// "tomorrow night at 2": the night's first hours are the next day's.
const WHICH_NIGHT: &str = "A night has two dates; say the date and the time.";

/// Hours that last.
const HOURS: &[&str] = &["hours", "hour", "hrs", "stunden", "horas", "heures", "小时"];

/// A moment in words: the instant, or why it has none.
enum Moment {
    At(Timestamp),
    /// A day without a time, or a time without the present.
    Open(&'static str),
}

pub(crate) fn read(draft: &mut Draft<'_, '_, '_>) {
    read_moments(draft);
    duration::read(draft);
    read_vague(draft);
    check(draft);
}

fn read_moments(draft: &mut Draft<'_, '_, '_>) {
    let items = draft.items;
    let mut i = 0;
    while i < items.len() {
        let Some((moment, end)) = moment(draft, i) else {
            i += 1;
            continue;
        };
        let field = role(items, i, end);
        // "they wait since Tuesday": what has been.
        let past = i > 0 && (items.is(i - 1, "since") || items.list[i - 1].text == "seit");
        if past || !concerns(items, i, field) {
            i = end;
            continue;
        }
        // "between 22:00 and 06:00"
        if let (Moment::At(from), Some((Moment::At(until), last))) = (&moment, window(draft, i, end)) {
            let until = if until <= *from { until.plus_ms(DAY_MS) } else { until };
            draft.set("not_before", json!(from.to_string()), i..end);
            draft.set("deadline", json!(until.to_string()), end + 1..last);
            i = last;
            continue;
        }
        let path = draft.path(field);
        match moment {
            Moment::At(at) => draft.set(field, json!(at.to_string()), i..end),
            // "they want it today", "the grant runs out on Friday": nothing waits for that.
            Moment::Open(NO_TIME) if field == "not_before" && loose(items, i, end) => {
                let said = items.span(&(i..end)).text;
                draft.mark(&(i..end));
                draft.assume(&path, serde_json::Value::Null, format!("{said:?} is no exact time; it is left open"));
            }
            Moment::Open(why) => {
                draft.ask(&path, format!("When exactly is {:?}? {why}", items.span(&(i..end)).text), Vec::new());
                draft.mark(&(i..end));
            }
        }
        i = end;
    }
}

const DAY_MS: i64 = 86_400_000;

/// The second moment of "between 22:00 and 06:00".
fn window(draft: &Draft<'_, '_, '_>, i: usize, end: usize) -> Option<(Moment, usize)> {
    let between = i > 0 && draft.items.is(i - 1, "between") && draft.items.list[i - 1].text.contains("between");
    (between && draft.items.is(end, "rangeand")).then(|| moment(draft, end + 1)).flatten()
}

/// A day that no word binds a start to: "today", or one in a clause that speaks of no workload.
fn loose(items: &Items<'_, '_>, i: usize, end: usize) -> bool {
    let at = |k: usize| matches!(items.list[k].text.as_str(), "at" | "on");
    let bound = i > 0 && (items.is(i - 1, "deadline") || items.is(i - 1, "notbefore") && !at(i - 1));
    let today = end == i + 1 && items.is(i, "day.today") && !items.is(i, "vague");
    let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    let stop = (i..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    let workload = (start..stop)
        .any(|k| items.at(k).is_some_and(|n| matches!(n.kind, Kind::Model(_) | Kind::Image | Kind::Gpu { .. })));
    !bound && (today || !workload)
}

/// Whether a moment speaks of the workload rather than of the world: "the client
/// calls at noon" does not. Its clause orders something, names what shall run,
/// or begins with the moment.
fn concerns(items: &Items<'_, '_>, i: usize, field: &str) -> bool {
    let start = (0..i).rev().find(|k| items.ends_clause(*k)).map_or(0, |k| k + 1);
    let end = (i..items.len()).find(|k| items.ends_clause(*k)).unwrap_or(items.len());
    let ours = (start..end).any(|k| {
        items.at(k).is_some_and(|n| {
            matches!(n.kind, Kind::Model(_) | Kind::Image | Kind::Gpu { .. } | Kind::Instant(_))
                || n.senses.iter().any(|s| {
                    s.starts_with("kind.")
                        || s.starts_with("act.") && !matches!(s, "act.query" | "act.offer" | "act.unsupported")
                        || s == "noun.workload"
                })
        })
    });
    let held = (start..i).any(|k| items.is(k, "not"))
        && i > start
        && matches!(items.list[i - 1].text.as_str(), "until" | "till" | "before");
    let filler = |k: usize| {
        items.any(
            k,
            &[
                "x",
                "polite",
                "det.the",
                "det.that",
                "and",
                "cond",
                "for",
                "notbefore",
                "deadline",
                "correct",
                "noun.limit",
                "not",
            ],
        )
    };
    let leads = (start..i).all(filler)
        && (field == "deadline"
            || i - start <= 2
                && (start..i).all(|k| items.any(k, &["notbefore", "deadline", "and", "polite", "correct", "det.the"])));
    ours || leads || held || field == "deadline" && is_due(items, start, i)
}

/// Whether the words of a clause before a moment say that the work shall be done by then.
fn is_due(items: &Items<'_, '_>, start: usize, i: usize) -> bool {
    // "has to be through by noon": what it is said of is what shall run.
    let modal = |k: usize| {
        const MODALS: &[&str] = &["must", "should", "has", "have", "needs", "need", "shall", "muss", "doit", "debe"];
        items.at(k).is_some_and(|n| MODALS.contains(&n.text.split(' ').next().unwrap_or_default()))
    };
    let subject = (start..i).find(|k| !items.any(*k, &["and", "polite", "det.the", "correct"]));
    // "I need the numbers by 10:00"
    let needs = |k: usize| {
        const NEEDS: &[&str] = &["need", "needs", "want", "wants", "expect", "expects", "i need", "we need"];
        items.at(k).is_some_and(|n| NEEDS.contains(&n.text.as_str()))
    };
    let wanted = i > start && items.is(i - 1, "deadline") && (start..i).any(needs);
    let wanted = wanted || says_end(items, start, i);
    let said_of_it = wanted
        || subject.is_some_and(|k| {
            modal(k)
                || modal(k + 1)
                    && (items.any(k, &["det.that", "noun.workload", "act.train", "det.all"])
                        || items.at(k).is_some_and(|n| n.text == "we" || n.text == "i"))
        });
    // "results must be in by 6pm"
    let due = (start..i).any(|k| {
        items.at(k).is_some_and(|n| matches!(n.text.as_str(), "results" | "result" | "output" | "it" | "this" | "they"))
    }) && (start..i).any(|k| {
        const MODALS: &[&str] = &["must", "should", "has", "have", "needs", "need"];
        items.at(k).is_some_and(|n| MODALS.contains(&n.text.split(' ').next().unwrap_or_default()))
    });
    due || said_of_it
}

/// Whether words say that something is done then.
fn says_end(items: &Items<'_, '_>, start: usize, i: usize) -> bool {
    const ENDS: &[&str] = &["finish", "finished", "done", "complete", "completed", "ready", "over", "through", "end"];
    (start..i).any(|k| items.at(k).is_some_and(|n| n.text.split(' ').any(|word| ENDS.contains(&word))))
}

/// Whether a moment is the latest end or the earliest start.
fn role(items: &Items<'_, '_>, i: usize, end: usize) -> &'static str {
    let mut k = i;
    let mut steps = 0;
    while k > 0 && steps < 6 {
        k -= 1;
        steps += 1;
        if items.is(k, "notbefore") && !items.is(k, "deadline") && !matches!(items.list[k].text.as_str(), "at" | "on") {
            return "not_before";
        }
        if items.is(k, "deadline") {
            let start = (0..k).rev().find(|m| items.ends_clause(*m)).map_or(0, |m| m + 1);
            // "don't kick it off until 11pm"
            let held = matches!(items.list[k].text.as_str(), "until" | "till")
                && (start..k).any(|m| items.is(m, "not") || waits(items, m));
            return if held { "not_before" } else { "deadline" };
        }
        if items.ends_sentence(k) || items.punct(k, ',') && steps > 1 {
            break;
        }
    }
    if items.is(end, "deadline") && items.list[end].text == "at the latest"
        || items.at(end).is_some_and(|n| matches!(n.text.as_str(), "deadline" | "spätestens" | "之前" | "前"))
    {
        return "deadline";
    }
    "not_before"
}

/// Verbs of what shall not begin yet: "hold phi-4 until …".
fn waits(items: &Items<'_, '_>, k: usize) -> bool {
    matches!(items.list[k].text.as_str(), "hold" | "wait" | "delay" | "postpone" | "park" | "defer")
}

/// A moment that begins at an item, and the item behind it.
fn moment(draft: &Draft<'_, '_, '_>, start: usize) -> Option<(Moment, usize)> {
    let items = draft.items;
    if draft.is_used(start) {
        return None;
    }
    if let Kind::Instant(at) = items.at(start)?.kind {
        return Some((Moment::At(at), start + 1));
    }
    let now = draft.context.now;
    let mut offset = now.map(|n| n.offset_minutes);
    let mut day: Option<Day> = None;
    let mut minute: Option<i64> = None;
    let mut half = None;
    let mut i = start;
    let mut end = start;
    while i < items.len() {
        if let (None, Some((found, next))) = (&day, day_at(items, i)) {
            day = Some(found);
            i = next;
            end = next;
        } else if let (None, Some((found, next))) = (minute, minute_at(items, i, start)) {
            minute = Some(found);
            i = next;
            end = next;
        } else if let (true, None, Some(found)) = (end > start, minute, half_of_day(items, i)) {
            // "tomorrow morning at 6:30"
            half = Some(found);
            i += 1;
        } else if end > start
            && is_link(items, i)
            && (day_at(items, i + 1).is_some() && day.is_none()
                || minute.is_none() && minute_at(items, i + 1, i).is_some())
        {
            i += 1;
        } else if end > start && minute.is_some() && zone_at(items, i).is_some() {
            offset = zone_at(items, i);
            i += 1;
            end = i;
        } else {
            break;
        }
    }
    if end == start {
        return None;
    }
    let stated = (start..end).any(|k| items.any(k, &["clock.am", "clock.pm"]));
    match (minute, half.filter(|_| !stated)) {
        (Some(m), Some(Half::Night)) if m < NIGHT_ENDS_MIN => return Some((Moment::Open(WHICH_NIGHT), end)),
        (Some(m), Some(Half::Night | Half::Second)) if m < 720 => minute = Some(m + 720),
        _ => {}
    }
    Some((instant_of(day, minute, now, offset), end))
}

/// Before this minute a time "at night" is the night's end, and no evening hour.
const NIGHT_ENDS_MIN: i64 = 6 * 60;

/// A part of a day, as far as it tells an hour.
#[derive(Debug, Clone, Copy)]
enum Half {
    First,
    Second,
    Night,
}

/// "morning", "evening" behind a day.
fn half_of_day(items: &Items<'_, '_>, i: usize) -> Option<Half> {
    match items.at(i)?.text.as_str() {
        "morning" => Some(Half::First),
        "afternoon" | "evening" => Some(Half::Second),
        "night" => Some(Half::Night),
        _ => None,
    }
}

fn is_link(items: &Items<'_, '_>, i: usize) -> bool {
    items.any(i, &["on", "notbefore", "det.the", "deadline"]) || items.punct(i, ',') || items.punct(i, '@')
}

fn zone_at(items: &Items<'_, '_>, i: usize) -> Option<i32> {
    items.at(i)?.senses.after("tz.")?.parse().ok()
}

#[derive(Debug, Clone, Copy)]
enum Day {
    /// Days from today.
    Ahead(i64),
    /// The next such weekday, Monday = 0.
    Weekday(i64),
    Date(Option<i32>, u32, u32),
}

fn day_at(items: &Items<'_, '_>, i: usize) -> Option<(Day, usize)> {
    let item = items.at(i)?;
    if let Kind::Date(year, month, day) = item.kind {
        return Some((Day::Date(year, month, day), i + 1));
    }
    let month = |k: usize| items.at(k)?.senses.after("month.")?.parse::<u32>().ok();
    let ordinal = |k: usize| -> Option<u32> {
        let text = items.at(k)?.text.trim_end_matches(['s', 't', 'n', 'd', 'r', 'h', '.']).to_owned();
        text.parse().ok().filter(|n| (1..=31).contains(n))
    };
    // "the 30th of April"
    let of = i + 1 + usize::from(items.is(i + 1, "of") && month(i + 2).is_some());
    let year = |k: usize| items.count(k).filter(|y| (2020..=2100).contains(y)).and_then(|y| i32::try_from(y).ok());
    if let (Some(m), Some(d)) = (month(i), ordinal(i + 1)) {
        let comma = usize::from(items.punct(i + 2, ','));
        return match year(i + 2 + comma) {
            Some(y) => Some((Day::Date(Some(y), m, d), i + 3 + comma)),
            None => Some((Day::Date(None, m, d), i + 2)),
        };
    }
    if let (Some(d), Some(m)) =
        (ordinal(i), month(of).filter(|_| items.list[of].text != "may" || items.num(i).is_some() || of > i + 1))
    {
        return match year(of + 1) {
            Some(y) => Some((Day::Date(Some(y), m, d), of + 2)),
            None => Some((Day::Date(None, m, d), of + 1)),
        };
    }
    // "from tomorrow's image on": whose it is.
    if item.text.ends_with("'s") {
        return None;
    }
    let word = match item.senses.iter().find_map(|s| s.strip_prefix("day."))? {
        "today" => Day::Ahead(0),
        "tomorrow" => Day::Ahead(1),
        "aftertomorrow" => Day::Ahead(2),
        weekday => Day::Weekday(weekday.parse().ok()?),
    };
    Some((word, i + 1))
}

/// A time of day at an item. A bare hour counts only behind "at" or a day.
fn minute_at(items: &Items<'_, '_>, i: usize, start: usize) -> Option<(i64, usize)> {
    let item = items.at(i)?;
    match item.kind {
        Kind::Clock(minutes) => return Some((i64::from(minutes), i + 1)),
        Kind::Word if item.senses.has("clock.noon") => return Some((720, i + 1)),
        Kind::Word if worded_minutes(items, i).is_some() => return worded_minutes(items, i),
        Kind::Word if item.senses.has("clock.midnight") => return Some((1_440, i + 1)),
        Kind::Word if item.senses.has("clock.am") || item.senses.has("clock.pm") => {
            // 下午3点
            let hour = items.count(i + 1).filter(|h| *h <= 12 && items.is(i + 2, "clock.oclock"))?;
            let pm = item.senses.has("clock.pm");
            return Some((i64::from(hour % 12) * 60 + if pm { 720 } else { 0 }, i + 3));
        }
        _ => {}
    }
    // "kill at 1h"
    let ended = i > 1 && items.list[i - 1].text == "at" && items.is(i - 2, "act.stop");
    let hours = match item.kind {
        Kind::Qty(_) if ended => return None,
        Kind::Num(n) => crate::items::whole(n)?,
        // "8h" may be a time of day; "after 3 hours" is none.
        Kind::Qty(n)
            if items.is(i, "unit.h") && is_at(items, i) && !HOURS.iter().any(|word| item.text.ends_with(word)) =>
        {
            crate::items::whole(n)?
        }
        _ => return None,
    };
    if hours > 24 {
        return None;
    }
    let qty = matches!(item.kind, Kind::Qty(_));
    if qty || items.is(i + 1, "clock.oclock") && !items.is(i + 1, "unit.h") {
        return Some((i64::from(hours) * 60, i + if qty { 1 } else { 2 }));
    }
    let pm = match (items.is(i + 1, "clock.am"), items.is(i + 1, "clock.pm")) {
        (false, false) => None,
        (am, _) => Some(!am),
    };
    if let Some(pm) = pm.filter(|_| (1..=12).contains(&hours)) {
        return Some((i64::from(hours % 12) * 60 + if pm { 720 } else { 0 }, i + 2));
    }
    let behind_day = i > start && (items.any(i - 1, &["notbefore"]) || day_at(items, i - 1).is_some());
    let zoned = zone_at(items, i + 1).is_some() && is_at(items, i);
    (behind_day && is_free(items, i + 1) || zoned).then_some((i64::from(hours) * 60, i + 1))
}

/// "half past six", "quarter to nine".
fn worded_minutes(items: &Items<'_, '_>, i: usize) -> Option<(i64, usize)> {
    const WORDS: &[(&str, i64)] = &[("clock.half", 30), ("clock.quarter", 15), ("clock.quarterto", -15)];
    let (_, minutes) = WORDS.iter().find(|(sense, _)| items.is(i, sense))?;
    let hour = items.count(i + 1).filter(|h| (1..=12).contains(h))?;
    let half = (items.is(i + 2, "clock.am"), items.is(i + 2, "clock.pm"));
    let hour = if half.1 { hour % 12 + 12 } else { hour };
    Some((i64::from(hour) * 60 + minutes, i + 2 + usize::from(half.0 || half.1)))
}

/// Nothing behind a number that it could count.
fn is_free(items: &Items<'_, '_>, i: usize) -> bool {
    items.ends_clause(i)
        || zone_at(items, i).is_some()
        || items.any(i, &["on", "with", "and", "act.run", "polite", "for"])
}

fn is_at(items: &Items<'_, '_>, i: usize) -> bool {
    i > 0 && (items.any(i - 1, &["notbefore", "deadline"]) || day_at(items, i - 1).is_some())
}

fn instant_of(day: Option<Day>, minute: Option<i64>, now: Option<clock::Now>, offset: Option<i32>) -> Moment {
    const NO_NOW: &str = "The present is not known here; say the date and the zone.";
    let Some(minute) = minute else {
        return Moment::Open(NO_TIME);
    };
    let Some(offset) = offset else {
        return Moment::Open(NO_NOW);
    };
    let days = match (day, now) {
        (Some(Day::Date(Some(year), month, day)), _) => match clock::day_of(year, month, day) {
            Some(day) => day,
            None => return Moment::Open("There is no such date."),
        },
        (_, None) => return Moment::Open(NO_NOW),
        (None, Some(now)) => {
            let today = now.day(offset);
            if minute > now.minute_of_day(offset) { today } else { today + 1 }
        }
        (Some(Day::Ahead(ahead)), Some(now)) => now.day(now.offset_minutes) + ahead,
        (Some(Day::Weekday(weekday)), Some(now)) => {
            let today = now.day(now.offset_minutes);
            let ahead = (weekday - clock::weekday_of(today)).rem_euclid(7);
            let passed = ahead == 0 && minute <= now.minute_of_day(now.offset_minutes);
            today + if passed { 7 } else { ahead }
        }
        (Some(Day::Date(None, month, day)), Some(now)) => {
            let today = now.day(now.offset_minutes);
            let year = clock::year_of(today);
            let this = clock::day_of(year, month, day);
            match this.filter(|d| *d >= today).or_else(|| clock::day_of(year + 1, month, day)) {
                Some(day) => day,
                None => return Moment::Open("There is no such date."),
            }
        }
    };
    Moment::At(clock::instant(days, minute, offset))
}

/// "overnight", "soon": never a number made up.
fn read_vague(draft: &mut Draft<'_, '_, '_>) {
    for i in 0..draft.items.len() {
        if draft.items.is(i, "vague") && !draft.is_used(i) {
            let said = draft.items.raw(i);
            let long = matches!(draft.items.list[i].text.as_str(), t if t.contains("while") || t.contains("bit") || t.starts_with("for ") || t.contains("hours") || t.contains("days") || t.contains("minutes"));
            let field = if long { "max_duration_s" } else { "not_before" };
            let path = draft.path(field);
            if !draft.has(field) {
                draft.assume(&path, serde_json::Value::Null, format!("{said:?} is no exact time; it is left open"));
            }
        }
    }
}

fn check(draft: &mut Draft<'_, '_, '_>) {
    let at =
        |draft: &Draft<'_, '_, '_>, field: &str| -> Option<Timestamp> { draft.field(field)?.as_str()?.parse().ok() };
    let (start, end) = (at(draft, "not_before"), at(draft, "deadline"));
    if let (Some(start), Some(end)) = (start, end)
        && end <= start
    {
        draft.refuse(RefusalCode::Contradictory, "it would have to end before it may start");
    }
    if let (Some(end), Some(now)) = (end, draft.context.now)
        && end <= now.at
    {
        draft.refuse(RefusalCode::Contradictory, "the deadline is past");
    }
}
