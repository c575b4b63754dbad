//! `events_list`: what happened, from the journal.

use claw_gateway::{Event, EventRecord, query};
use claw_tools::events::{EventRow, EventsList, EventsListParams};
use claw_tools::nearest::nearest;
use claw_tools::outcome::clip;
use claw_tools::refusal::{ErrorCode, Refusal};

use super::{OpError, OpsContext};

/// Rows unless asked otherwise.
const LIMIT_DEFAULT: u32 = 20;
/// Events that one question may look through: the core reads them for it.
const SCANNED_MAX: u64 = 20_000;
/// Events read at a time.
const CHUNK: u64 = 500;
/// Longest sentence about an event, characters.
const TEXT_CHARS_MAX: usize = 400;
/// Longest reason shown, characters.
const REASON_CHARS_MAX: usize = 200;

/// One journaled event, as it is shown everywhere.
pub(crate) fn row(seq: u64, record: &EventRecord) -> EventRow {
    EventRow {
        seq,
        at: record.at,
        kind: record.event.kind().to_owned(),
        subjects: query::event_subjects(&record.event),
        text: clip(&query::describe_event(&record.event), TEXT_CHARS_MAX),
        principal: record.principal.clone(),
        reason: clip(&record.reason, REASON_CHARS_MAX),
    }
}

/// The newest matching events, or those after a number.
pub(super) async fn list(ops: &OpsContext, p: &EventsListParams) -> Result<EventsList, OpError> {
    known_kinds(&p.kinds)?;
    let newest = ops.control.snapshot().seq;
    match p.after {
        Some(after) => forward(ops, p, after, newest).await,
        None => backward(ops, p, newest).await,
    }
}

fn known_kinds(kinds: &[String]) -> Result<(), Refusal> {
    let Some(unknown) = kinds.iter().find(|k| !Event::KINDS.contains(&k.as_str())) else { return Ok(()) };
    Err(Refusal::new(ErrorCode::InvalidArgument, format!("no event kind {:?}", clip(unknown, 60)))
        .with_field("kinds", unknown.clone())
        .with_allowed(Event::KINDS.iter().map(|k| (*k).to_owned()))
        .with_nearest(nearest(unknown, Event::KINDS.iter().copied())))
}

fn limit(p: &EventsListParams) -> usize {
    p.limit.unwrap_or(LIMIT_DEFAULT) as usize
}

/// Matching events with numbers in `(after, until]`, oldest first.
async fn between(ops: &OpsContext, p: &EventsListParams, after: u64, until: u64) -> Result<Vec<EventRow>, OpError> {
    let n = usize::try_from(until.saturating_sub(after)).unwrap_or(usize::MAX);
    let chunk = ops.control.events(after, n).await?;
    let rows = chunk.iter().filter(|(seq, _)| *seq <= until).map(|(seq, record)| (record, row(*seq, record)));
    let wanted = |record: &EventRecord, row: &EventRow| {
        (p.kinds.is_empty() || p.kinds.iter().any(|k| k == record.event.kind()))
            && p.subject.as_ref().is_none_or(|s| row.subjects.contains(s))
    };
    Ok(rows.filter(|(record, row)| wanted(record, row)).map(|(_, row)| row).collect())
}

async fn forward(ops: &OpsContext, p: &EventsListParams, after: u64, newest: u64) -> Result<EventsList, OpError> {
    let (mut at, mut rows) = (after.min(newest), Vec::new());
    let last = newest.min(at.saturating_add(SCANNED_MAX));
    while at < last && rows.len() <= limit(p) {
        let until = last.min(at + CHUNK);
        rows.extend(between(ops, p, at, until).await?);
        at = until;
    }
    let more = rows.len() > limit(p);
    rows.truncate(limit(p));
    let last_seq = if more { rows.last().map_or(at, |row| row.seq) } else { at };
    Ok(EventsList { events: rows, truncated: more || at < newest, last_seq })
}

async fn backward(ops: &OpsContext, p: &EventsListParams, newest: u64) -> Result<EventsList, OpError> {
    let first = newest.saturating_sub(SCANNED_MAX);
    // Without a filter every event matches: no more is read than is shown.
    let all = p.kinds.is_empty() && p.subject.is_none();
    let step = if all { limit(p) as u64 + 1 } else { CHUNK };
    let (mut until, mut rows) = (newest, Vec::new());
    while until > first && rows.len() <= limit(p) {
        let after = until.saturating_sub(step).max(first);
        let mut older = between(ops, p, after, until).await?;
        older.append(&mut rows);
        (rows, until) = (older, after);
    }
    let more = rows.len() > limit(p);
    rows.drain(..rows.len().saturating_sub(limit(p)));
    Ok(EventsList { events: rows, truncated: more || until > 0, last_seq: newest })
}
