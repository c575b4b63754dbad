//! A snapshot is made of a copy of the state, which shares its structure, and written
//! on a thread of its own: the core decides and journals on meanwhile.

use std::sync::mpsc::{self, TryRecvError};
use std::thread::JoinHandle;

use claw_gateway::Cluster;
use claw_gateway::cluster::SNAPSHOT_FORMAT;
use claw_storage::{JournalError, SnapshotTicket, WrittenSnapshot};

/// What came of it.
type Made = Result<WrittenSnapshot, JournalError>;

/// How far the thread stands back (`nice`). Only on Linux it is the thread's own.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// A snapshot under way.
#[derive(Debug)]
pub(super) struct Underway {
    /// Number of the last event in it.
    pub(super) seq: u64,
    /// Payload of the events since the one before it, bytes, when it was begun.
    pub(super) bytes_before: u64,
    made: mpsc::Receiver<Made>,
    thread: JoinHandle<()>,
}

impl Underway {
    /// Begins one.
    ///
    /// # Errors
    /// If the system has no room for a thread.
    pub(super) fn begin(state: Cluster, ticket: SnapshotTicket, bytes_before: u64) -> std::io::Result<Self> {
        let seq = state.seq;
        let (tell, made) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
            // Whoever waits for a decision comes first; they wait for nothing that is held here.
            #[cfg(target_os = "linux")]
            if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                tracing::debug!(%error, "a snapshot is made at the priority of all else");
            }
            let written = ticket.write_with(SNAPSHOT_FORMAT, |out| state.write_snapshot(out));
            drop(state);
            // Nobody listens: the core is gone, and a file that nothing names goes at the next open.
            drop(tell.send(written));
        })?;
        Ok(Self { seq, bytes_before, made, thread })
    }

    /// It has come to its end.
    pub(super) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end. Nothing came of it if the thread panicked.
    pub(super) fn end(self) -> Option<Made> {
        let joined = self.thread.join();
        match self.made.try_recv() {
            Ok(made) if joined.is_ok() => Some(made),
            Ok(_) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}
