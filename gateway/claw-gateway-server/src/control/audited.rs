//! Debug builds check every decision by its events alone, as tests do: the auditor keeps books of
//! its own. A decision that it does not accept is not carried out, and nothing is decided after it.

use claw_gateway::EventRecord;
use claw_gateway::audit::{Auditor, Wrong, decisions};
use claw_gateway::event::EventError;
use claw_storage::{Journal, JournalError};

/// Events that are read in one go.
const READ_CHUNK: usize = 2_000;

/// The auditor and whether it may be believed.
#[derive(Debug)]
pub(super) struct Watch {
    per_day_max: usize,
    books: Books,
}

#[derive(Debug)]
enum Books {
    /// They agree with all that was decided.
    Open(Box<Auditor>),
    /// The journal holds what they do not accept, from other settings or another build: nothing is checked.
    Closed,
    /// A decision was wrong: nothing more is decided.
    Found(Wrong),
}

/// Why the journal cannot be taken into the books.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

impl Watch {
    /// Books of all that was ever decided.
    pub(super) fn over(journal: &mut dyn Journal, per_day_max: usize) -> Self {
        let mut watch = Self { per_day_max, books: Books::Closed };
        watch.read_again(journal);
        watch
    }

    /// What was decided last did not come to be: the books are made anew from what did.
    pub(super) fn read_again(&mut self, journal: &mut dyn Journal) {
        if let Books::Found(_) = self.books {
            return;
        }
        self.books = match read(journal, self.per_day_max) {
            Ok(auditor) => Books::Open(Box::new(auditor)),
            Err(error) => {
                tracing::warn!(%error, "the auditor does not accept the journal; decisions are not checked");
                Books::Closed
            }
        };
    }

    /// Was a decision wrong? Then nothing more is decided.
    pub(super) fn is_found(&self) -> bool {
        matches!(self.books, Books::Found(_))
    }

    /// Books of an empty fleet: they accept nothing that is placed.
    #[cfg(test)]
    pub(super) fn doubt(&mut self) {
        self.books = Books::Open(Box::new(Auditor::new(self.per_day_max)));
    }

    /// Takes a decision into the books.
    ///
    /// # Errors
    /// What is wrong with it, or with an earlier one.
    pub(super) fn check(&mut self, decision: &[EventRecord]) -> Result<(), Wrong> {
        match &mut self.books {
            Books::Closed => Ok(()),
            Books::Found(wrong) => Err(wrong.clone()),
            Books::Open(auditor) => auditor.check(decision).inspect_err(|wrong| {
                tracing::error!(%wrong, ?decision, "the auditor refuses a decision; nothing more is decided");
                self.books = Books::Found(wrong.clone());
            }),
        }
    }
}

fn read(journal: &mut dyn Journal, per_day_max: usize) -> Result<Auditor, ReadError> {
    let mut auditor = Auditor::new(per_day_max);
    each_decision(journal, READ_CHUNK, |decision| auditor.check(decision))?;
    Ok(auditor)
}

/// Reads a journal through, decision by decision.
fn each_decision(
    journal: &mut dyn Journal,
    chunk: usize,
    mut look: impl FnMut(&[EventRecord]) -> Result<(), Wrong>,
) -> Result<(), ReadError> {
    let (mut seq, mut records): (u64, Vec<EventRecord>) = (0, Vec::new());
    loop {
        let stored = journal.read(seq, chunk)?;
        let is_end = stored.is_empty();
        for event in stored {
            seq = event.seq;
            records.push(EventRecord::from_json(event.version, &event.payload)?);
        }
        // The last decision may go on in the next chunk.
        let n_open = if is_end { 0 } else { decisions(&records).last().map_or(0, <[EventRecord]>::len) };
        let (whole, open) = records.split_at(records.len() - n_open);
        decisions(whole).try_for_each(&mut look)?;
        records = open.to_vec();
        if is_end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use claw_gateway::Event;
    use claw_gateway::event::EVENT_VERSION;
    use claw_proto::ids::{NodeId, WorkloadId};
    use claw_proto::time::Timestamp;
    use claw_storage::{Batch, MemoryJournal, Record};
    use serde_json::json;

    use super::*;

    fn at(at_ms: i64, principal: &str, event: Event) -> EventRecord {
        let at = Timestamp::from_unix_ms(at_ms);
        EventRecord { at, principal: principal.into(), reason: String::new(), operation_id: None, event }
    }

    fn started(at_ms: i64, principal: &str) -> EventRecord {
        at(at_ms, principal, Event::GatewayStarted { epoch: 1 })
    }

    /// Something that nobody submitted is placed.
    fn placed(at_ms: i64) -> EventRecord {
        let report = json!({ "summary": "", "considered": 1, "rejected": [], "waiting_helps": false });
        let event = json!({ "type": "workload_placed", "workload_id": WorkloadId::from_bits(1), "attempt": 1,
            "node_id": NodeId::from_bits(1), "gpus": [], "runtime": "sim", "report": report });
        at(at_ms, "system", serde_json::from_value(event).unwrap())
    }

    fn journal(records: &[EventRecord]) -> MemoryJournal {
        let mut journal = MemoryJournal::default();
        let stored =
            |e: &EventRecord| Record { kind: e.event.kind().to_owned(), version: EVENT_VERSION, payload: e.to_json() };
        let epoch = journal.head().epoch;
        let batch = Batch { records: records.iter().map(stored).collect(), blobs: Vec::new() };
        journal.append(0, epoch, 0, &[batch]).unwrap();
        journal
    }

    #[test]
    fn a_decision_is_whole_wherever_the_journal_is_cut_into_chunks() {
        let of = [(1, "a"), (2, "a"), (2, "a"), (2, "b"), (3, "b"), (3, "b"), (3, "b"), (3, "a")];
        let records: Vec<EventRecord> = of.iter().map(|(at_ms, who)| started(*at_ms, who)).collect();
        let mut journal = journal(&records);
        for chunk in 1..=records.len() + 1 {
            let mut lengths = Vec::new();
            let look = |decision: &[EventRecord]| {
                lengths.push(decision.len());
                Ok(())
            };
            each_decision(&mut journal, chunk, look).unwrap();
            assert_eq!(lengths, [1, 2, 1, 3, 1], "{chunk} at a time");
        }
    }

    #[test]
    fn after_a_wrong_decision_nothing_is_decided_and_no_journal_makes_it_right() {
        let mut sound = journal(&[started(1, "system")]);
        let mut watch = Watch::over(&mut sound, 3);
        assert_eq!((watch.check(&[started(2, "system")]), watch.is_found()), (Ok(()), false));
        let wrong = watch.check(&[placed(3)]).unwrap_err();
        watch.read_again(&mut sound);
        assert_eq!((watch.check(&[started(4, "system")]), watch.is_found()), (Err(wrong), true));
    }

    #[test]
    fn a_journal_that_is_not_accepted_is_not_checked_on() {
        let mut watch = Watch::over(&mut journal(&[placed(1)]), 3);
        assert_eq!((watch.check(&[placed(2)]), watch.is_found()), (Ok(()), false));
        // What did not come to be is not in the books: they are made anew from what did.
        watch.read_again(&mut journal(&[started(1, "system")]));
        assert!(watch.check(&[placed(2)]).is_err());
    }
}
