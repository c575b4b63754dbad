//! Workload logs: the blocking store on a thread of its own, behind a handle.

use std::collections::BTreeMap;
use std::path::Path;

use claw_proto::ids::{Attempt, WorkloadId};
use claw_proto::message::{LogChunk, LogKey, LogStream};
use claw_proto::time::Timestamp;
use claw_storage::{
    Gap, LogCursor, LogError, LogLimits, LogLine, LogOpenReport, LogPage, LogQuery, LogSegments, Stream,
};
use tokio::sync::{mpsc, oneshot, watch};

/// Requests that may wait for the store.
const REQUESTS_WAITING_MAX: usize = 1_024;
/// How many appends one sync may cover.
const APPENDS_PER_SYNC_MAX: usize = 64;
/// How many reads appends may have to wait for before they are synced.
const READS_PER_SYNC_MAX: usize = 8;

/// Why logs were not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum LogDeskError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] LogError),
    /// The gateway is stopping.
    #[error("the log store is closed")]
    Closed,
}

/// Which lines.
#[derive(Debug, Clone, Default)]
pub struct LogRead {
    /// Of which workload.
    pub workload_id: Option<WorkloadId>,
    /// Which attempt.
    pub attempt: Option<Attempt>,
    /// Which streams; all if empty.
    pub streams: Vec<LogStream>,
    /// Only lines written at or after this instant.
    pub since: Option<Timestamp>,
    /// Only the last so many.
    pub tail: Option<usize>,
    /// At most so many.
    pub limit: usize,
    /// Only lines that contain this.
    pub grep: Option<String>,
    /// Only lines behind these: the cursors of an earlier page.
    pub after: Vec<LogCursor>,
}

type Acks = BTreeMap<LogKey, u64>;

enum Request {
    Append { chunks: Vec<LogChunk>, reply: oneshot::Sender<Result<Acks, LogDeskError>> },
    Read { read: LogRead, reply: oneshot::Sender<Result<LogPage, LogDeskError>> },
    Acks { workloads: Vec<WorkloadId>, reply: oneshot::Sender<Acks> },
    Retain { now: Timestamp },
    Seal { workload_id: WorkloadId, attempt: Attempt },
    Forget { workload_id: WorkloadId },
}

/// The handle.
#[derive(Debug, Clone)]
pub struct LogDesk {
    requests: mpsc::Sender<Request>,
    version: watch::Receiver<u64>,
}

impl LogDesk {
    /// Opens the store and starts its thread, which ends when all handles are gone.
    pub fn open(dir: &Path, limits: LogLimits) -> Result<(Self, LogOpenReport, std::thread::JoinHandle<()>), LogError> {
        let (store, report) = LogSegments::open(dir, limits)?;
        let (requests, queue) = mpsc::channel(REQUESTS_WAITING_MAX);
        let (bump, version) = watch::channel(0);
        let thread = std::thread::Builder::new()
            .name("log-store".into())
            .spawn(move || serve(store, queue, &bump))
            .map_err(|source| LogError::Io { action: "start the log thread", source })?;
        Ok((Self { requests, version }, report, thread))
    }

    /// Stores lines; returns the highest durable line per log, after the sync.
    pub async fn append(&self, chunks: Vec<LogChunk>) -> Result<BTreeMap<LogKey, u64>, LogDeskError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Append { chunks, reply }).await.map_err(|_| LogDeskError::Closed)?;
        answer.await.map_err(|_| LogDeskError::Closed)?
    }
    /// Reads lines, merged by time.
    pub async fn read(&self, read: LogRead) -> Result<LogPage, LogDeskError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Read { read, reply }).await.map_err(|_| LogDeskError::Closed)?;
        answer.await.map_err(|_| LogDeskError::Closed)?
    }
    /// Highest stored line of every log of these workloads.
    pub async fn acks(&self, workloads: Vec<WorkloadId>) -> Result<BTreeMap<LogKey, u64>, LogDeskError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Acks { workloads, reply }).await.map_err(|_| LogDeskError::Closed)?;
        answer.await.map_err(|_| LogDeskError::Closed)
    }
    /// Drops what is over size or age; called now and then.
    pub async fn retain(&self, now: Timestamp) {
        self.ask(Request::Retain { now }).await;
    }
    /// No more lines are expected of this attempt (late ones are still taken).
    pub async fn seal(&self, workload_id: WorkloadId, attempt: Attempt) {
        self.ask(Request::Seal { workload_id, attempt }).await;
    }
    /// The workload is forgotten; so are its lines.
    pub async fn forget(&self, workload_id: WorkloadId) {
        self.ask(Request::Forget { workload_id }).await;
    }
    async fn ask(&self, request: Request) {
        if self.requests.send(request).await.is_err() {
            tracing::debug!("the log store is closed");
        }
    }
    /// Changes whenever lines were stored.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.version.clone()
    }
}

fn serve(mut store: LogSegments, mut queue: mpsc::Receiver<Request>, bump: &watch::Sender<u64>) {
    while let Some(first) = queue.blocking_recv() {
        let mut appended = Vec::new();
        let mut next = Some(first);
        let mut n_reads = 0;
        while let Some(request) = next {
            match request {
                Request::Append { chunks, reply } => appended.push((append(&mut store, &chunks), reply)),
                Request::Read { read: query, reply } => {
                    n_reads += 1;
                    drop(reply.send(read(&store, &query)));
                }
                Request::Acks { workloads, reply } => drop(reply.send(acks(&store, &workloads))),
                Request::Retain { now } => {
                    if let Err(error) = store.retain(now.unix_ms()) {
                        tracing::warn!(%error, "log retention failed");
                    }
                }
                Request::Seal { workload_id, attempt } => {
                    if let Err(error) = store.seal(&workload_id.to_string(), attempt.0) {
                        tracing::debug!(%error, %workload_id, "its logs stay unsealed");
                    }
                }
                Request::Forget { workload_id } => {
                    if let Err(error) = store.forget(&workload_id.to_string()) {
                        tracing::warn!(%error, %workload_id, "its logs could not be forgotten");
                    }
                }
            }
            // Readers that never pause must not keep lines from the disk and nodes from their answers.
            let full = appended.len() >= APPENDS_PER_SYNC_MAX || n_reads >= READS_PER_SYNC_MAX;
            next = if full { None } else { queue.try_recv().ok() };
        }
        if appended.is_empty() {
            continue;
        }
        // Nothing is acknowledged before it is on disk.
        let synced = store.sync().map_err(|error| error.to_string());
        for (result, reply) in appended {
            let result = match (&synced, result) {
                (Ok(()), result) => result,
                (Err(_), Err(error)) => Err(error),
                (Err(text), Ok(_)) => Err(LogDeskError::Store(LogError::Io {
                    action: "sync logs",
                    source: std::io::Error::other(text.clone()),
                })),
            };
            drop(reply.send(result));
        }
        bump.send_modify(|version| *version += 1);
    }
}

fn store_key(key: &LogKey) -> claw_storage::LogKey {
    claw_storage::LogKey {
        workload: key.workload_id.to_string(),
        attempt: key.attempt.0,
        stream: store_stream(key.stream),
    }
}

const fn store_stream(stream: LogStream) -> Stream {
    match stream {
        LogStream::Stdout => Stream::Stdout,
        LogStream::Stderr => Stream::Stderr,
        LogStream::System => Stream::System,
    }
}

fn append(store: &mut LogSegments, chunks: &[LogChunk]) -> Result<Acks, LogDeskError> {
    let mut acks = Acks::new();
    for chunk in chunks {
        let key = store_key(&chunk.key);
        let lines: Vec<LogLine> = chunk
            .lines
            .iter()
            .map(|l| LogLine { seq: l.sequence, at_ms: l.at.unix_ms(), bytes: l.bytes.clone() })
            .collect();
        let gap = chunk.gap.map(|g| Gap { first_seq: g.first_sequence, n_lost: g.n_lost });
        let ack = match store.append(&key, &lines, gap) {
            // The node was told that the lines before were durable and has dropped
            // them; they are gone here too (a restored copy): say so in the log.
            Err(LogError::Jump { expected, got }) => {
                tracing::warn!(workload = %key.workload, expected, got, "log lines are missing; a gap is recorded");
                let end = gap.map_or(got, |g| g.last_seq() + 1);
                store.append(&key, &lines, Some(Gap { first_seq: expected, n_lost: end - expected }))?
            }
            other => other?,
        };
        acks.insert(chunk.key, ack.0);
    }
    Ok(acks)
}

fn acks(store: &LogSegments, workloads: &[WorkloadId]) -> Acks {
    let names: BTreeMap<String, WorkloadId> = workloads.iter().map(|id| (id.to_string(), *id)).collect();
    let known = |key: &claw_storage::LogKey| {
        let workload_id = *names.get(&key.workload)?;
        let stream = match key.stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
            Stream::System => LogStream::System,
        };
        Some((LogKey { workload_id, attempt: Attempt(key.attempt), stream }, store.last_seq(key)?.0))
    };
    store.keys().filter_map(known).collect()
}

fn read(store: &LogSegments, read: &LogRead) -> Result<LogPage, LogDeskError> {
    let workload = read.workload_id.map(|id| id.to_string());
    let streams: Vec<Stream> = read.streams.iter().map(|s| store_stream(*s)).collect();
    let query = LogQuery {
        workload: workload.as_deref(),
        attempt: read.attempt.map(|a| a.0),
        streams: &streams,
        since_seq: None,
        since_ms: read.since.map(Timestamp::unix_ms),
        tail: read.tail,
        limit: read.limit,
        grep: read.grep.as_deref(),
        after: &read.after,
    };
    Ok(store.read(&query)?)
}
