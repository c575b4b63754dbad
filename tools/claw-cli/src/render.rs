//! Answers as people read them. Pure: a JSON answer in, a text out.
//!
//! Text that came from workloads, labels and logs is data: control characters in it are
//! neutralized before a terminal sees them.

mod detail;
mod inside;
mod logs;
mod outcome;
mod page;
mod refusal;
mod style;
mod table;
#[cfg(test)]
mod tests;

use claw_tools::def::OpDef;
use claw_tools::inside::WorkloadCopy;
use claw_tools::outcome::Outcome;
use claw_tools::refusal::SuggestedCall;
use claw_tools::workloads::WorkloadLogs;
use serde_json::{Map, Value};

pub(crate) use logs::{log_end, log_gap, log_line};
pub(crate) use outcome::plan;
pub(crate) use refusal::error;
pub(crate) use style::Style;
pub(crate) use table::grid;

/// The answer of an operation that was called with `args`.
pub(crate) fn answer(op: Option<&OpDef>, args: &Map<String, Value>, content: &Value, style: Style) -> String {
    if op.is_some_and(|op| !op.read_only)
        && let Ok(outcome) = serde_json::from_value::<Outcome>(content.clone())
    {
        return outcome::outcome(&outcome, style);
    }
    if op.is_some_and(|op| op.name == "workload_logs")
        && let Ok(logs) = serde_json::from_value::<WorkloadLogs>(content.clone())
    {
        return logs::logs(&logs, style);
    }
    if op.is_some_and(|op| op.name == "workload_copy")
        && let Ok(copy) = serde_json::from_value::<WorkloadCopy>(content.clone())
    {
        return inside::copy(&copy, style);
    }
    detail::answer(op.map_or("", |op| op.name), args, content, style)
}

/// Text from elsewhere, without what a terminal would obey.
pub(crate) fn safe(text: &str) -> String {
    let clean = |c: char| if claw_proto::validation::is_unprintable(c) { '\u{fffd}' } else { c };
    text.chars().map(clean).collect()
}

/// Calls that make sense next, as command lines.
fn next_calls(next: &[SuggestedCall], page: &mut page::Page) {
    if next.is_empty() {
        return;
    }
    page.section("Next");
    for call in next {
        let line = crate::generate::command_line(&call.tool, &call.args);
        page.line(&format!("  {}", safe(&line)));
    }
}
