//! Log lines: what the workload wrote, and what is missing of it.

use claw_proto::message::LogStream;
use claw_tools::workloads::{LogGapView, LogLineView, WorkloadLogs};

use super::detail::short_time;
use super::page::Page;
use super::safe;
use super::style::{Style, Tone};

/// Lines with their time; those of the error stream and the node's notes are marked.
pub(super) fn logs(logs: &WorkloadLogs, style: Style) -> String {
    let mut page = Page::new(style);
    if logs.truncated {
        page.line(&style.dim("(earlier lines match too: --tail N)"));
    }
    for gap in &logs.gaps {
        page.line(&log_gap(gap, style));
    }
    for line in &logs.lines {
        page.line(&log_line(line, style));
    }
    page.line(&log_end(logs, style));
    page.finish()
}

/// One line.
pub(crate) fn log_line(line: &LogLineView, style: Style) -> String {
    let at = style.dim(&short_time(&line.at.to_string()));
    let mark = match line.stream {
        LogStream::Stdout => " ".to_owned(),
        LogStream::Stderr => style.toned(Tone::Bad, "!"),
        LogStream::System => style.toned(Tone::Warn, "*"),
    };
    format!("{at} {mark} {}", safe(&line.text))
}

/// What is missing.
pub(crate) fn log_gap(gap: &LogGapView, style: Style) -> String {
    let text = format!("({} lines of {} are gone: {})", gap.n_lost, gap.stream, safe(&gap.why));
    style.toned(Tone::Warn, &text)
}

/// Whose lines these are, and how it stands with it.
pub(crate) fn log_end(logs: &WorkloadLogs, style: Style) -> String {
    let simulated = if logs.simulated { ", simulated" } else { "" };
    let attempt = logs.attempt.0;
    style.dim(&format!("{} attempt {attempt}: {}{simulated}", logs.workload_id, logs.state))
}
