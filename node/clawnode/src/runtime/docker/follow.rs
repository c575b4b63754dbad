//! A container's output, from the engine into the log: each line once, however
//! often the engine or its connection breaks off.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as EngineFault;
use bollard::query_parameters::LogsOptionsBuilder;
use claw_proto::message::LogStream;
use claw_proto::time::Timestamp;
use futures_util::{Stream, StreamExt as _};

use super::engine;
use crate::runtime::line_log::LineLog;

/// Most pieces of output that are written at once.
const PIECES_MAX: usize = 512;
/// A stream that broke off is opened again after, milliseconds.
const REOPEN_MS: u64 = 300;
/// A log is read again from so long before its last line, seconds.
const OVERLAP_S: i64 = 2;
/// An engine that says nothing more of an ended container's log for so long is given up, milliseconds.
const SILENCE_MS: u64 = 15_000;
/// How often the rest of a log is asked for.
const REST_TRIES: u32 = 60;
/// And in which distance, milliseconds.
const REST_PAUSE_MS: u64 = 100;

type Pieces = Pin<Box<dyn Stream<Item = Vec<Result<LogOutput, EngineFault>>> + Send>>;

/// The logs of one container.
pub(super) struct Follower {
    docker: Option<Docker>,
    name: String,
    stdout: LineLog,
    stderr: LineLog,
    system: LineLog,
    pieces: Option<Pieces>,
    /// From where on the rest is read, so that one reading can be compared with the next.
    rest_since_s: Option<i64>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Follower {
    pub(super) fn open(name: &str, logs: &Path, bytes_max: u64) -> io::Result<Self> {
        Ok(Self {
            docker: None,
            name: name.to_owned(),
            stdout: LineLog::open(logs, LogStream::Stdout, bytes_max)?,
            stderr: LineLog::open(logs, LogStream::Stderr, bytes_max)?,
            system: LineLog::open(logs, LogStream::System, bytes_max)?,
            pieces: None,
            rest_since_s: None,
        })
    }

    /// The engine to read from, once the container is there.
    pub(super) fn connect(&mut self, docker: Docker) {
        self.docker = Some(docker);
    }

    /// Adds a note of the supervisor.
    pub(super) fn note(&mut self, text: &str) {
        self.system.note(text);
    }

    /// From where on the log is read again.
    fn since_s(&self) -> i64 {
        // Only with lines in both is it known from where on both are complete.
        let last = self.stdout.last_at().zip(self.stderr.last_at()).map(|(out, err)| out.min(err));
        last.map_or(0, |at| at.unix_ms().div_euclid(1_000) - OVERLAP_S)
    }

    fn begin(&mut self, docker: &Docker, follow: bool, since_s: i64) -> Pieces {
        self.stdout.reread();
        self.stderr.reread();
        let options = LogsOptionsBuilder::default()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(i32::try_from(since_s).unwrap_or(0).max(0))
            .build();
        Box::pin(docker.logs(&self.name, Some(options)).ready_chunks(PIECES_MAX))
    }

    /// Takes the next output; dropping the future loses nothing.
    pub(super) async fn pump(&mut self) {
        let Some(docker) = self.docker.clone() else {
            return std::future::pending().await;
        };
        if self.pieces.is_none() {
            tokio::time::sleep(Duration::from_millis(REOPEN_MS)).await;
            self.pieces = Some(self.begin(&docker, true, self.since_s()));
        }
        let Some(pieces) = self.pieces.as_mut() else { return };
        match pieces.next().await {
            Some(pieces) => {
                if self.take(pieces).is_err() {
                    self.pieces = None;
                }
            }
            None => self.pieces = None,
        }
    }

    /// Begins to follow at once.
    pub(super) fn follow(&mut self) {
        if let Some(docker) = self.docker.clone() {
            self.pieces = Some(self.begin(&docker, true, self.since_s()));
        }
    }

    fn take(&mut self, pieces: Vec<Result<LogOutput, EngineFault>>) -> Result<(), EngineFault> {
        let mut result = Ok(());
        for piece in pieces {
            match piece {
                Ok(LogOutput::StdOut { message }) => take_entry(&mut self.stdout, &message),
                Ok(LogOutput::StdErr { message }) => take_entry(&mut self.stderr, &message),
                // Without a terminal there are only the two.
                Ok(LogOutput::StdIn { .. } | LogOutput::Console { .. }) => {}
                Err(error) => result = Err(error),
            }
        }
        self.stdout.flush();
        self.stderr.flush();
        for (name, lost) in [("stdout", self.stdout.take_lost()), ("stderr", self.stderr.take_lost())] {
            if let Some(at) = lost {
                self.note(&format!(
                    "lines of {name} before {at} may be missing, nobody knows how many: the engine has the last line \
                     that was read no more"
                ));
            }
        }
        result
    }

    /// Reads what an ended container's log still has, to its end. Followers are
    /// cut off at the end of a container, sometimes before its last line, and
    /// an engine may call it ended a moment before its log is complete: so it
    /// is read until twice in a row the same is there.
    pub(super) async fn rest(&mut self, socket: &Path) {
        self.pieces = None;
        let mut before = None;
        for _ in 0..REST_TRIES {
            match self.read_rest(socket).await {
                Ok(n_bytes) if before == Some(n_bytes) => return,
                Ok(n_bytes) => before = Some(n_bytes),
                Err(error) => tracing::warn!(error, "the rest of a container's log could not be read"),
            }
            tokio::time::sleep(Duration::from_millis(REST_PAUSE_MS)).await;
        }
        self.note("the last lines may be missing: the engine does not give its log");
    }

    /// Reads from the overlap to the end; returns how many bytes there were.
    async fn read_rest(&mut self, socket: &Path) -> Result<usize, String> {
        let (docker, _) = engine::connect(socket).await.map_err(|error| error.to_string())?;
        let since_s = self.rest_since_s.unwrap_or_else(|| self.since_s());
        self.rest_since_s = Some(since_s);
        let mut pieces = self.begin(&docker, false, since_s);
        let mut n_bytes = 0;
        loop {
            match tokio::time::timeout(Duration::from_millis(SILENCE_MS), pieces.next()).await {
                Ok(Some(pieces)) => {
                    n_bytes += pieces.iter().flatten().map(|piece| piece.as_ref().len()).sum::<usize>();
                    self.take(pieces).map_err(|error| error.to_string())?;
                }
                Ok(None) => return Ok(n_bytes),
                Err(_) => return Err("the engine is silent".to_owned()),
            }
        }
    }

    /// Writes lines that have no end.
    pub(super) fn finish(&mut self) {
        self.stdout.finish_stamped();
        self.stderr.finish_stamped();
        self.system.flush();
    }
}

/// One entry: `2026-03-01T12:00:00.123456789Z text`. The text has its line end
/// unless it is a piece of a long line.
fn take_entry(log: &mut LineLog, entry: &[u8]) {
    let end = entry.iter().position(|byte| *byte == b' ');
    let stamped = end.and_then(|end| {
        let at: Timestamp = std::str::from_utf8(&entry[..end]).ok()?.parse().ok()?;
        Some((at, &entry[end + 1..]))
    });
    match stamped {
        Some((at, text)) => log.take_stamped(at, text),
        // No engine writes such an entry; its text is worth more than its time.
        None => log.take_stamped(crate::clock::wall(), entry),
    }
}
