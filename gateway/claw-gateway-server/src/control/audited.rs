//! Debug builds check every decision by its events alone, as tests do: the auditor keeps books of
//! its own. A decision that it does not accept is not carried out, and nothing is decided after it.

use claw_gateway::EventRecord;
use claw_gateway::audit::{Auditor, Wrong};
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
    let (mut seq, mut decision): (u64, Vec<EventRecord>) = (0, Vec::new());
    loop {
        let chunk = journal.read(seq, READ_CHUNK)?;
        for stored in &chunk {
            let record = EventRecord::from_json(stored.version, &stored.payload)?;
            // All that one decision says has one time and one cause.
            let is_like = |last: &EventRecord| (last.at, &last.principal) == (record.at, &record.principal);
            let goes_on = decision.last().is_none_or(is_like);
            if !goes_on {
                auditor.check(&decision)?;
                decision.clear();
            }
            decision.push(record);
            seq = stored.seq;
        }
        if chunk.is_empty() {
            auditor.check(&decision)?;
            return Ok(auditor);
        }
    }
}
