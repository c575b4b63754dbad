//! Log lines: what the workload wrote, and what is missing of it.

use claw_proto::message::LogStream;
use claw_tools::workloads::WorkloadLogs;

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
        let text = format!("({} lines of {} are gone: {})", gap.n_lost, gap.stream, safe(&gap.why));
        page.line(&style.toned(Tone::Warn, &text));
    }
    for line in &logs.lines {
        let at = style.dim(&short_time(&line.at.to_string()));
        let mark = match line.stream {
            LogStream::Stdout => " ".to_owned(),
            LogStream::Stderr => style.toned(Tone::Bad, "!"),
            LogStream::System => style.toned(Tone::Warn, "*"),
        };
        page.line(&format!("{at} {mark} {}", safe(&line.text)));
    }
    let simulated = if logs.simulated { ", simulated" } else { "" };
    let end = format!("{} attempt {}: {}{simulated}", logs.workload_id, logs.attempt.0, logs.state);
    page.line(&style.dim(&end));
    page.finish()
}
