//! The decision in words and numbers.

use claw_proto::validation::ValidSpec;
use claw_tools::workloads::{ChosenPlace, PlacementReport, RejectedNodes, RunnerUp};

use super::view::View;
use super::{Candidate, LEFT_MAX, Score};
use crate::query::gpus;

/// Room that most reasons fit in, bytes.
const WHY_BYTES: usize = 160;
/// How many node names one reason lists.
pub(super) const NAMES_SHOWN: usize = 5;

/// Of a workload that goes to `best`, one of so many nodes that fit.
pub(super) fn placed(
    (considered, n_candidates): (usize, usize),
    best: &Candidate<'_>,
    second: Option<(&View, Score)>,
    rejected: Vec<RejectedNodes>,
    spec: &ValidSpec,
) -> PlacementReport {
    let chosen = chosen(best, why(best, n_candidates, spec));
    PlacementReport {
        summary: ["goes to ", &chosen.node, ": ", &chosen.why].concat(),
        considered: u32::try_from(considered).unwrap_or(u32::MAX),
        chosen: Some(chosen),
        waiting_helps: rejected.iter().any(|r| r.reason.is_transient()),
        rejected,
        runner_up: second
            .map(|(view, score)| RunnerUp { node: view.node.name.clone(), why_not: why_not(&best.score, &score) }),
    }
}

/// Of a workload that fits on no node.
pub(super) fn waits(considered: usize, rejected: Vec<RejectedNodes>) -> PlacementReport {
    let waiting_helps = rejected.iter().any(|r| r.reason.is_transient());
    PlacementReport {
        summary: nowhere(considered, &rejected, waiting_helps),
        considered: u32::try_from(considered).unwrap_or(u32::MAX),
        chosen: None,
        rejected,
        runner_up: None,
        waiting_helps,
    }
}

pub(super) fn chosen(best: &Candidate<'_>, why: String) -> ChosenPlace {
    ChosenPlace {
        node_id: best.node().node_id,
        node: best.node().name.clone(),
        gpus: best.gpus(),
        nvlink_island: best.island(),
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
    let why = |r: &RejectedNodes| format!("{} on {} ({})", r.reason, crate::query::nodes(r.count as usize), r.detail);
    rejected.iter().map(why).collect::<Vec<_>>().join("; ")
}

/// Whether waiting helps, in words.
pub(super) const fn outlook(waiting_helps: bool) -> &'static str {
    if waiting_helps { "it waits for room" } else { "waiting will not help: the fleet or the spec has to change" }
}

fn why(best: &Candidate<'_>, n_candidates: usize, spec: &ValidSpec) -> String {
    let demand = spec.demand();
    let mut words = String::with_capacity(WHY_BYTES);
    let mut part = |told: &[&str]| {
        let between = if words.is_empty() { "" } else { ", " };
        words.push_str(between);
        for told in told {
            words.push_str(told);
        }
    };
    if n_candidates == 1 {
        part(&["the only node that fits"]);
    } else {
        part(&["best fit of ", &n_candidates.to_string(), " nodes"]);
    }
    if demand.is_share() {
        let milli = |milli: u16| super::detail::permille(milli.into());
        let shared = best.chosen.first().map_or(0, |gpu| gpu.free_milli.saturating_sub(demand.gpu_milli));
        let left = milli(shared);
        let how = if best.caps_shares() {
            "its memory capped by the node's kernel, its time shared"
        } else {
            "shared by time and not kept apart"
        };
        part(&[&milli(demand.gpu_milli), " of a GPU, ", how, "; ", &left, " of it left"]);
    } else if let Some(profile) = &demand.mig_profile {
        part(&[&demand.gpus.to_string(), " of the GPUs' slices ", profile]);
    } else if demand.gpus > 1 {
        match best.island() {
            Some(island) => part(&[&gpus(demand.gpus), " in NVLink island ", &island.to_string()]),
            None => part(&[&gpus(demand.gpus), " without a common NVLink island"]),
        }
    }
    if let Some(choice) = of_choice(best, spec) {
        part(&[&choice]);
    }
    if !best.score.unreserved {
        part(&["kept for its tenant"]);
    }
    if demand.gpus > 0 && demand.mig_profile.is_none() {
        let left = best.score.gpus_left.min(LEFT_MAX - best.score.gpus_left);
        part(&[&gpus(left), " left free there"]);
    }
    if best.score.simulated {
        part(&["simulated"]);
    }
    words
}

/// Which of several models it gets.
pub(super) fn of_choice(best: &Candidate<'_>, spec: &ValidSpec) -> Option<String> {
    let demand = spec.demand();
    let model = best.model().filter(|_| demand.gpu_models.len() > 1)?;
    Some(match best.score.fallback {
        0 if demand.gpu_models_ranked => format!("{model}, its first choice"),
        0 => format!("{model}, of {}", demand.models_in_words()),
        n => format!("{model}, its choice {} of {}", n + 1, demand.gpu_models.len()),
    })
}

fn why_not(a: &Score, b: &Score) -> String {
    if a.simulated != b.simulated {
        "it is simulated".into()
    } else if a.unreserved != b.unreserved {
        "it is not kept for its tenant".into()
    } else if a.fallback != b.fallback {
        "its GPUs are of a model that is a later choice".into()
    } else if a.broken_island != b.broken_island {
        "its free GPUs are not in one NVLink island".into()
    } else if a.split_numa != b.split_numa {
        "its free GPUs are on several NUMA nodes".into()
    } else if a.lost != b.lost {
        "it would take more from work as it was submitted so far: GPUs left of no use to it, whole nodes, wanted models"
            .into()
    } else if a.opened != b.opened {
        "its shared GPUs suit it less".into()
    } else if a.milli_left != b.milli_left {
        "the GPU that it would share fits it less well".into()
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
