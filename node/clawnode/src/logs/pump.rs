//! The reading side of every log of a node: what to send next, what may go.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use claw_proto::ids::{Attempt, WorkloadId};
use claw_proto::limits::{LOG_BYTES_PER_MESSAGE_MAX, LOG_LINES_PER_MESSAGE_MAX};
use claw_proto::message::{LogChunk, LogKey, LogStream};
use tracing::warn;

use super::segment::{Batch, SegmentReader};

/// Payload that may be on its way and not yet acknowledged, bytes.
const IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that a line costs on the wire beside its content.
const LINE_OVERHEAD_BYTES: usize = 32;
/// The size of the whole buffer is looked at every so many polls.
const POLLS_PER_SWEEP: u32 = 20;

/// The log of an attempt that is over is kept so long for a gateway that does
/// not acknowledge it.
const KEPT_UNACKED_MAX: Duration = Duration::from_hours(24);

#[derive(Debug)]
struct Log {
    reader: SegmentReader,
    acked: u64,
    /// (last line, payload bytes) of each chunk that is not acknowledged.
    in_flight: Vec<(u64, usize)>,
}

#[derive(Debug)]
struct AttemptLogs {
    folder: PathBuf,
    logs: BTreeMap<LogStream, Log>,
    /// Since when the attempt is over and its final record acknowledged.
    over: Option<Instant>,
    /// Somebody waits until everything that was written is read.
    draining: bool,
}

/// Reads the logs of all attempts of a node.
#[derive(Debug)]
pub struct LogPump {
    attempts: BTreeMap<(WorkloadId, Attempt), AttemptLogs>,
    bytes_max: u64,
    sending: bool,
    polls: u32,
    /// Where the next poll begins, so that no log starves the others.
    turn: usize,
}

/// What one poll found.
#[derive(Debug, Default)]
pub struct Polled {
    /// To send.
    pub chunks: Vec<LogChunk>,
    /// Attempts that are over and of which every line is acknowledged.
    pub finished: Vec<(WorkloadId, Attempt)>,
    /// Attempts of which everything that was written is read; each told once per [`LogPump::drain`].
    pub drained: Vec<(WorkloadId, Attempt)>,
}

impl LogPump {
    /// A pump without logs, for a buffer of at most `bytes_max`.
    pub fn new(bytes_max: u64) -> Self {
        Self { attempts: BTreeMap::new(), bytes_max, sending: false, polls: 0, turn: 0 }
    }

    /// Bound of the whole buffer from now on.
    pub fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Follows the logs of an attempt in `folder`.
    pub fn watch(&mut self, workload_id: WorkloadId, attempt: Attempt, folder: &Path) {
        let log = |stream: &LogStream| {
            let log = Log { reader: SegmentReader::new(folder, *stream), acked: 0, in_flight: Vec::new() };
            (*stream, log)
        };
        let logs = LogStream::ALL.iter().map(log).collect();
        let logs = AttemptLogs { folder: folder.to_path_buf(), logs, over: None, draining: false };
        self.attempts.insert((workload_id, attempt), logs);
    }

    /// The attempt is over: once everything is acknowledged it is `finished`.
    pub fn over(&mut self, workload_id: WorkloadId, attempt: Attempt) {
        if let Some(logs) = self.attempts.get_mut(&(workload_id, attempt)) {
            logs.over.get_or_insert_with(Instant::now);
        }
    }

    /// The attempt writes no more: once everything is read it is `drained`.
    pub fn drain(&mut self, workload_id: WorkloadId, attempt: Attempt) {
        if let Some(logs) = self.attempts.get_mut(&(workload_id, attempt)) {
            logs.draining = true;
        }
    }

    /// The attempt's folder is gone.
    pub fn forget(&mut self, workload_id: WorkloadId, attempt: Attempt) {
        self.attempts.remove(&(workload_id, attempt));
    }

    /// A connection begins: everything behind the acknowledged lines is sent again.
    pub fn resume(&mut self, acks: &BTreeMap<LogKey, u64>) {
        self.sending = true;
        for ((workload_id, attempt), logs) in &mut self.attempts {
            for (stream, log) in &mut logs.logs {
                let key = LogKey { workload_id: *workload_id, attempt: *attempt, stream: *stream };
                log.acked = acks.get(&key).copied().unwrap_or(0);
                log.in_flight.clear();
                log.reader.seek(log.acked.saturating_add(1));
            }
        }
    }

    /// The connection is gone.
    pub fn pause(&mut self) {
        self.sending = false;
    }

    /// The gateway has these lines.
    pub fn acked(&mut self, acks: &BTreeMap<LogKey, u64>) {
        for (key, acked) in acks {
            let attempt = self.attempts.get_mut(&(key.workload_id, key.attempt));
            let Some(log) = attempt.and_then(|logs| logs.logs.get_mut(&key.stream)) else {
                continue;
            };
            log.acked = log.acked.max(*acked);
            log.in_flight.retain(|(last, _)| *last > log.acked);
            if let Err(error) = log.reader.delete_through(log.acked) {
                warn!(%error, ?key, "acknowledged log segments could not be deleted");
            }
        }
    }

    /// Reads what can be sent now.
    pub fn poll(&mut self) -> Polled {
        self.polls += 1;
        if self.polls.is_multiple_of(POLLS_PER_SWEEP)
            && let Err(error) = self.sweep()
        {
            warn!(%error, "the log buffer could not be measured");
        }
        let mut polled = Polled::default();
        if !self.sending {
            return polled;
        }
        let in_flight = self.attempts.values().flat_map(|logs| logs.logs.values());
        let in_flight: usize = in_flight.flat_map(|log| &log.in_flight).map(|(_, bytes)| bytes).sum();
        let mut room = IN_FLIGHT_BYTES_MAX.saturating_sub(in_flight).min(LOG_BYTES_PER_MESSAGE_MAX);
        let mut lines_left = LOG_LINES_PER_MESSAGE_MAX;
        let keys: Vec<(WorkloadId, Attempt)> = self.attempts.keys().copied().collect();
        self.turn = self.turn.wrapping_add(1);
        for n in 0..keys.len() {
            let key = keys[(n + self.turn) % keys.len()];
            let Some(logs) = self.attempts.get_mut(&key) else {
                continue;
            };
            let (mut complete, mut at_end) = (true, true);
            for (stream, log) in &mut logs.logs {
                if room > LINE_OVERHEAD_BYTES && lines_left > 0 {
                    let n_lines = lines_left.min(room / LINE_OVERHEAD_BYTES);
                    match log.reader.read(n_lines, room) {
                        Ok(batch) => {
                            let bytes = payload_bytes(&batch);
                            at_end &= batch.lines.is_empty();
                            room = room.saturating_sub(bytes);
                            lines_left -= batch.lines.len();
                            take(&mut polled, log, key, *stream, batch, bytes);
                        }
                        Err(error) => warn!(%error, ?key, "a log could not be read"),
                    }
                } else {
                    complete = false;
                    at_end = false;
                }
                complete &= log.reader.next_sequence() == log.acked.saturating_add(1);
            }
            if at_end && std::mem::take(&mut logs.draining) {
                polled.drained.push(key);
            }
            let given_up = logs.over.is_some_and(|since| since.elapsed() > KEPT_UNACKED_MAX);
            if given_up && !complete {
                warn!(?key, "nobody acknowledged the rest of a log; it is removed");
            }
            if given_up || (logs.over.is_some() && complete) {
                polled.finished.push(key);
            }
        }
        polled
    }

    /// Drops the oldest segments while the whole buffer is too large.
    fn sweep(&mut self) -> io::Result<()> {
        let mut segments: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for logs in self.attempts.values() {
            let entries = match fs::read_dir(&logs.folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                // A segment that was deleted meanwhile needs no room.
                if let Ok(metadata) = entry.metadata() {
                    segments.push((metadata.modified()?, metadata.len(), entry.path()));
                }
            }
        }
        let mut total: u64 = segments.iter().map(|(_, bytes, _)| bytes).sum();
        if total <= self.bytes_max {
            return Ok(());
        }
        segments.sort();
        for (_, bytes, path) in segments {
            if total <= self.bytes_max {
                break;
            }
            fs::remove_file(&path)?;
            total -= bytes;
            warn!(path = %path.display(), bytes, "the log buffer is full; the oldest lines are dropped");
        }
        Ok(())
    }
}

fn payload_bytes(batch: &Batch) -> usize {
    batch.lines.iter().map(|line| line.bytes.len() + LINE_OVERHEAD_BYTES).sum()
}

fn take(
    polled: &mut Polled,
    log: &mut Log,
    (workload_id, attempt): (WorkloadId, Attempt),
    stream: LogStream,
    batch: Batch,
    bytes: usize,
) {
    if let Some(last) = batch.lines.last() {
        log.in_flight.push((last.sequence, bytes));
        let key = LogKey { workload_id, attempt, stream };
        polled.chunks.push(LogChunk { key, gap: batch.gap, lines: batch.lines });
    }
}
