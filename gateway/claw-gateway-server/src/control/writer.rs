//! The thread that writes: while it waits for the disk, the core decides on.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use claw_gateway::step::Blob as DecidedBlob;
use claw_gateway::{EventRecord, event};
use claw_storage::{Batch, Blob, Journal, JournalError, Record, Space};

/// The journal: held by whoever writes or reads just now.
pub(super) type SharedJournal = Arc<Mutex<Box<dyn Journal>>>;

/// Takes the journal; waits while something is written.
pub(super) fn lock(journal: &SharedJournal) -> MutexGuard<'_, Box<dyn Journal>> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one command leaves in the journal: all of it or nothing.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) events: Vec<EventRecord>,
    pub(super) blobs: Vec<DecidedBlob>,
}

/// To be written with one sync.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) expected_seq: u64,
    pub(super) at_ms: i64,
    pub(super) entries: Vec<Entry>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Written {
    /// As they were given.
    pub(super) entries: Vec<Entry>,
    /// Room left and bytes of events; nothing if there was nothing to write.
    pub(super) result: Result<Option<(Space, u64)>, JournalError>,
}

/// Writes here and now.
pub(super) fn write(journal: &SharedJournal, job: Job) -> Written {
    let Job { expected_seq, at_ms, entries } = job;
    if entries.is_empty() {
        return Written { entries, result: Ok(None) };
    }
    let batches: Vec<Batch> = entries.iter().map(to_batch).collect();
    let bytes = batches.iter().flat_map(|batch| &batch.records).map(|record| record.payload.len() as u64).sum();
    let mut journal = lock(journal);
    let epoch = journal.head().epoch;
    let appended = journal.append(expected_seq, epoch, at_ms, &batches);
    let result = appended.map(|_| Some((journal.space(), bytes)));
    drop(journal);
    Written { entries, result }
}

fn to_batch(entry: &Entry) -> Batch {
    let records = entry
        .events
        .iter()
        .map(|e| Record { kind: e.event.kind().to_owned(), version: event::EVENT_VERSION, payload: e.to_json() })
        .collect();
    let blobs = entry.blobs.iter().map(|b| Blob { handle: b.handle.clone(), bytes: b.bytes.clone() }).collect();
    Batch { records, blobs }
}

/// The thread has ended, which only a panic brings about.
#[derive(Debug)]
pub(super) struct WriterGone;

/// The thread; one job at a time.
#[derive(Debug)]
pub(super) struct Writer {
    /// There until the end.
    jobs: Option<mpsc::SyncSender<Job>>,
    written: mpsc::Receiver<Written>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    /// The journal is let go of when this returns: another gateway may open it.
    fn drop(&mut self) {
        self.jobs = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes the journal panicked");
        }
    }
}

impl Writer {
    /// Starts it; it ends with this handle.
    ///
    /// # Errors
    /// If the system has no room for a thread.
    pub(super) fn start(journal: SharedJournal) -> std::io::Result<Self> {
        // One job at a time: neither side ever waits for room.
        let (jobs, queue) = mpsc::sync_channel::<Job>(1);
        let (results, written) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || {
            while let Ok(job) = queue.recv() {
                if results.send(write(&journal, job)).is_err() {
                    return;
                }
                // Meanwhile those who waited are answered.
                lock(&journal).tidy();
            }
        })?;
        Ok(Self { jobs: Some(jobs), written, thread: Some(thread) })
    }

    /// Gives it a job.
    pub(super) fn begin(&self, job: Job) -> Result<(), WriterGone> {
        self.jobs.as_ref().ok_or(WriterGone)?.send(job).map_err(|_| WriterGone)
    }

    /// What came of the job, if that is known within this time.
    pub(super) fn within(&self, wait: Duration) -> Result<Option<Written>, WriterGone> {
        match self.written.recv_timeout(wait) {
            Ok(written) => Ok(Some(written)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(WriterGone),
        }
    }
}
