//! The decision in words and numbers.

use std::collections::BTreeMap;

use claw_proto::validation::ValidSpec;
use claw_tools::workloads::{ChosenPlace, PlacementReason, PlacementReport, RejectedNodes, RunnerUp};

use super::{Candidate, Rejection};

/// How many node names one reason lists.
const NAMES_SHOWN: usize = 5;

pub(super) fn build(
    considered: usize,
    candidates: &[Candidate],
    rejections: &[Rejection],
    spec: &ValidSpec,
) -> PlacementReport {
    let rejected = group(rejections);
    let waiting_helps = rejections.iter().any(|r| r.reason.is_transient());
    let chosen = candidates.first().map(|best| chosen(best, why(best, candidates.len(), spec)));
    let runner_up = match candidates {
        [best, second, ..] => Some(RunnerUp { node: second.node.name.clone(), why_not: why_not(best, second) }),
        _ => None,
    };
    let summary = match &chosen {
        Some(place) => format!("goes to {}: {}", place.node, place.why),
        None => nowhere(considered, &rejected, waiting_helps),
    };
    PlacementReport {
        summary,
        considered: u32::try_from(considered).unwrap_or(u32::MAX),
        chosen,
        rejected,
        runner_up,
        waiting_helps,
    }
}

pub(super) fn chosen(best: &Candidate, why: String) -> ChosenPlace {
    ChosenPlace {
        node_id: best.node.node_id,
        node: best.node.name.clone(),
        gpus: best.gpus.clone(),
        nvlink_island: best.island,
        others: Vec::new(),
        why,
    }
}

fn nowhere(considered: usize, rejected: &[RejectedNodes], waiting_helps: bool) -> String {
    if considered == 0 {
        return "the fleet has no nodes; enroll one with node_token_create".into();
    }
    format!("no node can take it now: {}; {}", reasons(rejected), outlook(waiting_helps))
}

/// Why nodes were not taken, and on how many.
pub(super) fn reasons(rejected: &[RejectedNodes]) -> String {
    let why: Vec<String> =
        rejected.iter().map(|r| format!("{} on {} ({})", r.reason, count(r.count), r.detail)).collect();
    why.join("; ")
}

/// Whether waiting helps, in words.
pub(super) const fn outlook(waiting_helps: bool) -> &'static str {
    if waiting_helps { "it waits for room" } else { "waiting will not help: the fleet or the spec has to change" }
}

pub(super) fn count(n: u32) -> String {
    if n == 1 { "1 node".into() } else { format!("{n} nodes") }
}

pub(super) fn group(rejections: &[Rejection]) -> Vec<RejectedNodes> {
    let mut groups: BTreeMap<PlacementReason, RejectedNodes> = BTreeMap::new();
    for r in rejections {
        let entry = groups.entry(r.reason).or_insert_with(|| RejectedNodes {
            reason: r.reason,
            count: 0,
            nodes: Vec::new(),
            detail: r.detail.clone(),
        });
        entry.count += 1;
        if entry.nodes.len() < NAMES_SHOWN {
            entry.nodes.push(r.name.clone());
        }
    }
    groups.into_values().collect()
}

fn why(best: &Candidate, n_candidates: usize, spec: &ValidSpec) -> String {
    let demand = spec.demand();
    let mut parts = Vec::new();
    if n_candidates == 1 {
        parts.push("the only node that fits".to_owned());
    } else {
        parts.push(format!("best fit of {n_candidates} nodes"));
    }
    if demand.gpus > 1 {
        match best.island {
            Some(island) => parts.push(format!("{} GPUs in NVLink island {island}", demand.gpus)),
            None => parts.push(format!("{} GPUs without a common NVLink island", demand.gpus)),
        }
    }
    if demand.gpus > 0 {
        let left = best.score.gpus_left.min(u32::MAX - best.score.gpus_left);
        parts.push(format!("{} left free there", crate::query::gpus(left)));
    }
    if best.score.simulated {
        parts.push("simulated".to_owned());
    }
    parts.join(", ")
}

fn why_not(best: &Candidate, second: &Candidate) -> String {
    let (a, b) = (&best.score, &second.score);
    if a.simulated != b.simulated {
        "it is simulated".into()
    } else if a.broken_island != b.broken_island {
        "its free GPUs are not in one NVLink island".into()
    } else if a.island_left != b.island_left {
        format!("it would break a larger free island ({} left instead of {})", b.island_left, a.island_left)
    } else if a.gpus_left != b.gpus_left {
        format!("it has more free GPUs to keep together ({} left instead of {})", b.gpus_left, a.gpus_left)
    } else if a.gpu_memory_over_mib != b.gpu_memory_over_mib {
        "its GPUs are larger than wanted".into()
    } else if a.host_left_permille != b.host_left_permille {
        "its CPU and memory fit less well".into()
    } else {
        "it is equal; the lower node id wins".into()
    }
}
