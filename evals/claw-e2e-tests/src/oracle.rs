//! The judge: what really ran, by the nodes' own execution logs, against what
//! the gateway says.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use claw_proto::ids::{Attempt, WorkloadId};
use clawnode::runtime::execution_log::{ExecutionEntry, ExecutionEvent};
use serde_json::Value;

/// One execution of one attempt on one node.
#[derive(Debug, Clone)]
pub struct Span {
    /// Node's name.
    pub node: String,
    /// Attempt.
    pub attempt: Attempt,
    /// When it began, milliseconds since boot.
    pub from_ms: u64,
    /// When it was over; absent if it still runs, as far as the log knows.
    pub to_ms: Option<u64>,
    /// Its end.
    pub end: Option<ExecutionEntry>,
}

/// All executions of each workload, in order of their begin.
pub fn spans(entries: &[ExecutionEntry]) -> Result<BTreeMap<WorkloadId, Vec<Span>>> {
    let mut spans: BTreeMap<WorkloadId, Vec<Span>> = BTreeMap::new();
    for entry in entries {
        let of_workload = spans.entry(entry.workload_id).or_default();
        match entry.event {
            ExecutionEvent::Started => of_workload.push(Span {
                node: entry.node.clone(),
                attempt: entry.attempt,
                from_ms: entry.boot_ms,
                to_ms: None,
                end: None,
            }),
            ExecutionEvent::Ended => {
                let open = of_workload
                    .iter_mut()
                    .rev()
                    .find(|s| s.node == entry.node && s.attempt == entry.attempt && s.end.is_none());
                match open {
                    Some(span) => {
                        span.to_ms = Some(entry.boot_ms);
                        span.end = Some(entry.clone());
                    }
                    // It could not be started: an end without a begin.
                    None if entry.exit_code.is_none() => {}
                    None => bail!(
                        "{} attempt {} ended on {} without having begun",
                        entry.workload_id,
                        entry.attempt.0,
                        entry.node
                    ),
                }
            }
        }
    }
    for of_workload in spans.values_mut() {
        of_workload.sort_by_key(|s| s.from_ms);
    }
    Ok(spans)
}

/// Never two executions of one workload at the same time, and no attempt twice.
pub fn never_two(spans: &BTreeMap<WorkloadId, Vec<Span>>) -> Result<()> {
    for (id, of_workload) in spans {
        for pair in of_workload.windows(2) {
            let [first, second] = pair else { continue };
            let Some(over) = first.to_ms else {
                bail!(
                    "{id}: attempt {} on {} never ended and attempt {} began on {}",
                    first.attempt.0,
                    first.node,
                    second.attempt.0,
                    second.node
                );
            };
            if second.from_ms < over {
                bail!(
                    "{id}: attempt {} on {} and attempt {} on {} overlap by {} ms",
                    first.attempt.0,
                    first.node,
                    second.attempt.0,
                    second.node,
                    over - second.from_ms
                );
            }
            if second.attempt <= first.attempt {
                bail!("{id}: attempt {} began after attempt {}", second.attempt.0, first.attempt.0);
            }
        }
    }
    Ok(())
}

/// The gateway's final word agrees with the last execution.
pub fn agrees(detail: &Value, of_workload: &[Span]) -> Result<()> {
    let row = &detail["workload"];
    let (name, state) = (row["name"].as_str().unwrap_or("?"), row["state"].as_str().unwrap_or("?"));
    let last = of_workload.last();
    let end = last.and_then(|s| s.end.as_ref());
    let shown = end.map(|e| (e.exit_code, e.signal));
    let fine = match state {
        "completed" => end.is_some_and(|e| e.exit_code == Some(0)),
        "failed" => end.is_none_or(|e| e.exit_code != Some(0)),
        // Told to end: it may still have ended by itself just before.
        "stopped" => last.is_none() || end.is_some(),
        "lost" => true,
        "running" => last.is_some_and(|s| s.end.is_none()),
        _ => true,
    };
    if !fine {
        bail!("{name} is {state} by the gateway; its last execution ended with {shown:?}: {last:?}");
    }
    let code = row["exit_code"].as_i64();
    if state == "completed" && code != Some(0) {
        bail!("{name} is completed and its exit code is {code:?}");
    }
    Ok(())
}
