//! What a workload wrote, and which of its GPUs wrote it.

use std::collections::BTreeSet;

use claw_gateway::Cluster;
use claw_gateway::workload::{AttemptEntry, WorkloadEntry};
use claw_observe::Observer;
use claw_observe::diagnose::device::Unit;
use claw_observe::diagnose::observe::writer;
use claw_observe::diagnose::series::told::Steps;
use claw_proto::ids::{Attempt, GpuUuid};

use super::super::{OpError, OpsContext, logs};
use super::kernel;
use crate::control::LogRead;

/// Log lines that are read, the newest; several parts of one workload share them.
const LINES_MAX: usize = 10_000;
/// Log lines that are read of each part, however many there are.
const LINES_OF_A_PART: usize = 200;

/// The newest lines of one attempt.
#[derive(Debug)]
pub(super) struct Written {
    attempt: Attempt,
    /// With their times, seconds.
    lines: Vec<(f64, String)>,
    /// So many were asked for, and there are more.
    cut_at: Option<usize>,
    n_lost: u64,
}

/// Reads the newest lines of what was placed last, of all its parts.
pub(super) async fn of(ops: &OpsContext, workload: &WorkloadEntry) -> Result<Vec<Written>, OpError> {
    let mut attempts: Vec<Attempt> = workload.latest().iter().map(|part| part.attempt).collect();
    if attempts.is_empty() {
        attempts.push(workload.attempt());
    }
    let lines = (LINES_MAX / attempts.len()).max(LINES_OF_A_PART);
    let mut written = Vec::new();
    for attempt in attempts {
        let wanted = LogRead {
            workload_id: Some(workload.workload_id),
            attempt: Some(attempt),
            tail: Some(lines),
            limit: lines,
            ..LogRead::default()
        };
        let page = ops.control.logs().read(wanted).await.map_err(|error| logs::fault(ops, &error))?;
        written.push(Written {
            attempt,
            cut_at: page.truncated.then_some(lines),
            n_lost: page.gaps.iter().map(|gap| gap.n_lost).sum(),
            lines: page
                .entries
                .iter()
                .map(|entry| (entry.line.at_ms as f64 / 1e3, String::from_utf8_lossy(&entry.line.bytes).into_owned()))
                .collect(),
        });
    }
    Ok(written)
}

impl Written {
    /// Feeds the lines, and what of them is missing.
    pub(super) fn feed(&self, observer: &mut Observer) {
        let Self { attempt: Attempt(attempt), lines, cut_at, n_lost } = self;
        observer.next_source(&format!("logs of attempt {attempt}"));
        for (_, line) in lines {
            observer.line(line);
        }
        if observer.source_lines() == 0 {
            observer.unread(format!("attempt {attempt} has written no line that can be read"));
        }
        if let Some(lines) = cut_at {
            observer.unread(format!("of attempt {attempt} only the newest {lines} lines were read"));
        }
        if *n_lost > 0 {
            observer.unread(format!("{n_lost} lines of attempt {attempt} are lost"));
        }
    }

    /// Steps that the lines tell of. Where lines are missing their silence says nothing.
    pub(super) fn steps(&self) -> Steps {
        let lines = self.lines.iter().filter(|_| self.n_lost == 0);
        Steps::of(lines.map(|(at_s, line)| (*at_s, line.as_str())))
    }

    /// Numbers of the processes that say who they are.
    fn writers(&self) -> BTreeSet<u32> {
        self.lines.iter().filter_map(|(_, line)| writer(line)).collect()
    }
}

/// Which GPU each rank has, if there is one process for each GPU; nothing where that is not sure.
///
/// Ranks are counted through the parts, as nodes give them out. A single process of a node may use all GPUs there:
/// only where a part's log shows others than its first rank, and none of another part's, does a rank name a GPU.
pub(super) fn ranks(cluster: &Cluster, parts: &[AttemptEntry], written: &[Written]) -> Vec<(Unit, GpuUuid)> {
    let mut ranks = Vec::new();
    let mut is_sure = parts.iter().all(|part| part.gpus.len() == 1);
    for part in parts {
        let first = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
        let own = cluster.nodes.get(part.node_id).map(|node| kernel::own(node, &part.gpus)).unwrap_or_default();
        let end = first.saturating_add(u32::try_from(own.len()).unwrap_or(u32::MAX));
        let writers = written.iter().find(|written| written.attempt == part.attempt).map(Written::writers);
        let writers = writers.unwrap_or_default();
        if own.len() != part.gpus.len() || writers.iter().any(|rank| !(first..end).contains(rank)) {
            return Vec::new();
        }
        is_sure |= writers.iter().any(|rank| *rank != first);
        ranks.extend((first..end).map(Unit::Rank).zip(own));
    }
    if is_sure { ranks } else { Vec::new() }
}
