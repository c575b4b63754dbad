//! `workload_logs`: what a workload wrote, as data.

use std::time::Duration;

use claw_proto::message::LogStream;
use claw_proto::time::Timestamp;
use claw_storage::{GapCause, LogPage, Stream};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::workloads::{LogGapView, LogLineView, WorkloadLogs, WorkloadLogsParams};
use tokio::time::Instant;

use super::{OpError, OpsContext};
use crate::control::{LogDeskError, LogRead};

/// Lines unless asked otherwise.
const TAIL_DEFAULT: usize = 100;
/// Longest text of one line in an answer, characters.
const LINE_CHARS_MAX: usize = 2_000;
/// Characters of all lines in one answer.
const ANSWER_CHARS_MAX: usize = 60_000;

pub(super) async fn read(ops: &OpsContext, p: &WorkloadLogsParams) -> Result<WorkloadLogs, OpError> {
    let workload = ops.control.snapshot().resolve_workload(&p.workload)?.clone();
    let attempt = p.attempt.unwrap_or_else(|| workload.attempt());
    let wanted = LogRead {
        workload_id: Some(workload.workload_id),
        attempt: Some(attempt),
        streams: p.streams.clone(),
        // The store's bound is inclusive, the caller's is "after".
        since: p.since.map(|instant| instant.plus_ms(1)),
        tail: Some(p.tail.map_or(TAIL_DEFAULT, |t| t as usize)),
        limit: p.tail.map_or(TAIL_DEFAULT, |t| t as usize),
        grep: p.grep.clone(),
        after: Vec::new(),
    };
    let deadline = Instant::now() + Duration::from_secs(u64::from(p.wait_s.unwrap_or(0)));
    let mut changed = ops.control.logs().changed();
    let page = loop {
        changed.mark_unchanged();
        let page = ops.control.logs().read(wanted.clone()).await.map_err(|error| fault(ops, &error))?;
        if !page.entries.is_empty() || p.wait_s.is_none() {
            break page;
        }
        tokio::select! {
            more = tokio::time::timeout_at(deadline, changed.changed()) => match more {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break page,
            },
            () = ops.control.stopping().cancelled() => break page,
        }
    };
    let state = ops.control.snapshot().workloads.get(workload.workload_id).map_or(workload.state, |w| w.state);
    let (lines, cut) = lines(&page);
    let gaps = page
        .gaps
        .iter()
        .map(|g| LogGapView {
            stream: stream(g.key.stream),
            first_sequence: g.first_seq,
            n_lost: g.n_lost,
            why: match g.cause {
                GapCause::Node => "the node had to drop them before they were acknowledged".into(),
                GapCause::Retention => "they are over the size or age that is kept".into(),
                GapCause::Damage => "they were damaged on the gateway's disk".into(),
            },
        })
        .collect();
    Ok(WorkloadLogs {
        workload_id: workload.workload_id,
        attempt,
        untrusted: true,
        lines,
        truncated: page.truncated || cut,
        gaps,
        simulated: workload.simulated(),
        state,
    })
}

/// The newest lines that fit the answer, oldest first.
fn lines(page: &LogPage) -> (Vec<LogLineView>, bool) {
    let mut lines = Vec::new();
    let mut chars = 0;
    for entry in page.entries.iter().rev() {
        let text = claw_tools::outcome::clip(
            &String::from_utf8_lossy(&entry.line.bytes).replace('\t', "    "),
            LINE_CHARS_MAX,
        );
        chars += text.len();
        if chars > ANSWER_CHARS_MAX {
            lines.reverse();
            return (lines, true);
        }
        lines.push(LogLineView {
            stream: stream(entry.key.stream),
            sequence: entry.line.seq,
            at: Timestamp::from_unix_ms(entry.line.at_ms),
            text,
        });
    }
    lines.reverse();
    (lines, false)
}

const fn stream(stream: Stream) -> LogStream {
    match stream {
        Stream::Stdout => LogStream::Stdout,
        Stream::Stderr => LogStream::Stderr,
        Stream::System => LogStream::System,
    }
}

fn fault(ops: &OpsContext, error: &LogDeskError) -> OpError {
    match error {
        LogDeskError::Closed => Refusal::new(ErrorCode::ShuttingDown, "the gateway is stopping").into(),
        LogDeskError::Store(_) => OpError::Fault(ops.control.fault("the log store could not be read", error)),
    }
}
