//! `workload_logs`: what a workload wrote, as data.

use std::time::Duration;

use claw_proto::message::LogStream;
use claw_proto::time::Timestamp;
use claw_storage::{GapCause, LogEntry, LogGap, LogPage, Stream};
use claw_tools::outcome::clip;
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::workloads::{LogGapView, LogLineView, WorkloadLogs, WorkloadLogsParams};
use tokio::time::Instant;

use super::{OpError, OpsContext};
use crate::control::{LogDeskError, LogRead};

/// Lines unless asked otherwise.
const TAIL_DEFAULT: usize = 100;
/// Longest text of one line in an answer, characters.
const LINE_CHARS_MAX: usize = 2_000;
/// Bytes of text in one answer: with what stands around each line about 20 KB.
const TEXT_BYTES_MAX: usize = 10_000;
/// The same if the caller says how many lines are wanted.
const ASKED_TEXT_BYTES_MAX: usize = 60_000;
/// Most gaps in one answer; the newest are named.
const GAPS_MAX: usize = 50;

pub(super) async fn read(ops: &OpsContext, p: &WorkloadLogsParams) -> Result<WorkloadLogs, OpError> {
    let workload = ops.control.snapshot().resolve_workload(&p.workload)?.clone();
    let attempt = p.attempt.unwrap_or_else(|| workload.main_attempt());
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
    let (lines, cut) = lines(&page, if p.tail.is_some() { ASKED_TEXT_BYTES_MAX } else { TEXT_BYTES_MAX });
    let unnamed = page.gaps.len().saturating_sub(GAPS_MAX);
    let gaps = page.gaps.iter().skip(unnamed).map(gap_view).collect();
    Ok(WorkloadLogs {
        workload_id: workload.workload_id,
        attempt,
        untrusted: true,
        lines,
        truncated: page.truncated || cut || unnamed > 0,
        gaps,
        simulated: workload.simulated(),
        state,
    })
}

/// The newest lines that fit the answer, oldest first, and whether some did not.
fn lines(page: &LogPage, text_bytes_max: usize) -> (Vec<LogLineView>, bool) {
    let mut bytes = 0;
    let mut lines: Vec<LogLineView> = page
        .entries
        .iter()
        .rev()
        .map(line_view)
        .take_while(|line| {
            bytes += line.text.len();
            bytes <= text_bytes_max
        })
        .collect();
    lines.reverse();
    let cut = lines.len() < page.entries.len();
    (lines, cut)
}

/// One line as it is shown everywhere: data, cut and without control characters.
pub(crate) fn line_view(entry: &LogEntry) -> LogLineView {
    let text = String::from_utf8_lossy(&entry.line.bytes).replace('\t', "    ");
    LogLineView {
        stream: stream(entry.key.stream),
        sequence: entry.line.seq,
        at: Timestamp::from_unix_ms(entry.line.at_ms),
        text: clip(&text, LINE_CHARS_MAX),
    }
}

/// Lines that are gone, with why.
pub(crate) fn gap_view(gap: &LogGap) -> LogGapView {
    let why = match gap.cause {
        GapCause::Node => "the node had to drop them before they were acknowledged",
        GapCause::Retention => "they are over the size or age that is kept",
        GapCause::Damage => "they were damaged on the gateway's disk",
    };
    LogGapView { stream: stream(gap.key.stream), first_sequence: gap.first_seq, n_lost: gap.n_lost, why: why.into() }
}

const fn stream(stream: Stream) -> LogStream {
    match stream {
        Stream::Stdout => LogStream::Stdout,
        Stream::Stderr => LogStream::Stderr,
        Stream::System => LogStream::System,
    }
}

pub(super) fn fault(ops: &OpsContext, error: &LogDeskError) -> OpError {
    match error {
        LogDeskError::Closed => Refusal::new(ErrorCode::ShuttingDown, "the gateway is stopping").into(),
        LogDeskError::Store(_) => OpError::Fault(ops.control.fault("the log store could not be read", error)),
    }
}
