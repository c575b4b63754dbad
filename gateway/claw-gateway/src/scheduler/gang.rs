//! Workloads that span nodes: all parts get their places at once, or none does.
//!
//! The parts talk to each other all the time, so what counts first is how far
//! apart they are: one rack before several, one zone before several. Nodes say
//! where they stand by their labels `zone` and `rack`. Among domains of the same
//! distance the tightest fit is taken, so that large ones stay whole; and of the GPUs that
//! suit each node as well, those on the rails of the others ([`rails`]).

mod rails;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use claw_proto::spec::RuntimeKind;
use claw_proto::validation::ValidSpec;
use claw_tools::workloads::{PlacedPart, PlacementReport, RejectedNodes, RunnerUp};

use self::rails::{Aligned, align};
use super::report;
use super::view::{Gpu, View};
use super::{Candidate, Placed, Score};

/// Sets of so many zones are tried one by one; of more, the largest are taken.
const ZONES_TRIED_MAX: usize = 10;

/// So many equally good choices are looked at for one whose GPUs are on the same rails.
const RAILS_TRIED: usize = 8;

/// What all parts must have in common: a run is real or simulated as a whole, by
/// one runtime, on one model of GPU.
type Class<'a> = (bool, RuntimeKind, Option<&'a str>);

/// How far apart parts are; lower is better, compared field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spread {
    /// Zones that they stand in.
    pub(super) zones: usize,
    /// Racks that they stand in.
    pub(super) racks: usize,
}

/// Parts that could be placed together.
struct Choice<'a> {
    parts: Vec<&'a Candidate<'a>>,
    spread: Spread,
    /// Candidates of the domain that are left over: a tight fit leaves few.
    left: usize,
}

impl Choice<'_> {
    /// How many of its nodes are not kept for its tenant.
    fn n_unreserved(&self) -> usize {
        self.parts.iter().filter(|part| part.score.unreserved).count()
    }
}

/// Places for a workload of several nodes. `candidates` are in order of their scores; why the
/// others are none is asked for if there is a place. `is_free`: a GPU that nobody holds is kept for nobody.
pub(super) fn place(
    considered: usize,
    candidates: &[Candidate<'_>],
    rejected: impl FnOnce() -> Vec<RejectedNodes>,
    spec: &ValidSpec,
    is_free: impl Fn(&View, &Gpu) -> bool,
) -> Option<Placed> {
    let n_nodes = spec.nodes() as usize;
    let classes = classes(candidates);
    let mut choices: Vec<Choice<'_>> = classes.values().flat_map(|class| choices(class, n_nodes)).collect();
    choices.sort_by_cached_key(|c| {
        (
            c.parts[0].score.simulated,
            c.n_unreserved(),
            c.parts[0].score.fallback,
            c.spread,
            c.left,
            c.parts[0].score.clone(),
        )
    });
    let (at, aligned) = on_the_same_rails(&choices, spec, is_free);
    let best = choices.get(at)?;
    let why = why(best, aligned.as_ref(), candidates.len(), spec);
    let summary = format!("goes to {}: {why}", names(&best.parts));
    let mut parts: Vec<Candidate<'_>> = best.parts.iter().map(|&part| part.clone()).collect();
    for (part, chosen) in parts.iter_mut().zip(aligned.iter().flat_map(|aligned| &aligned.chosen)) {
        part.chosen = Arc::clone(chosen);
    }
    let mut chosen = report::chosen(&parts[0], why);
    chosen.others = (1..).zip(&parts[1..]).map(|(rank, part)| placed(rank, part)).collect();
    // One that came first but for its rails was second.
    let second = choices.get(usize::from(at == 0));
    let report = PlacementReport {
        summary,
        considered: u32::try_from(considered).unwrap_or(u32::MAX),
        chosen: Some(chosen),
        rejected: rejected(),
        runner_up: second.map(|second| RunnerUp {
            node: names(&second.parts),
            why_not: if at > 0 { OFF_RAILS.into() } else { why_not(best, second) },
        }),
        waiting_helps: true,
    };
    let places = parts.iter().map(Candidate::place).collect();
    Some((places, Arc::new(report)))
}

const OFF_RAILS: &str = "more of its GPUs are off the rails of the others";

/// Of the first choices, which are in order, those that are as near, as tight and as well linked as the first: the one
/// with fewest GPUs off the rails of the others.
fn on_the_same_rails(
    choices: &[Choice<'_>],
    spec: &ValidSpec,
    is_free: impl Fn(&View, &Gpu) -> bool,
) -> (usize, Option<Aligned>) {
    let demand = spec.node_demand();
    let Some(first) = choices.first().filter(|_| demand.gpus > 0 && demand.mig_profile.is_none()) else {
        return (0, None);
    };
    let order = |choice: &Choice<'_>| {
        let score = &choice.parts[0].score;
        let n_with = |is: fn(&Score) -> bool| choice.parts.iter().filter(|part| is(&part.score)).count();
        let linked = (n_with(|score| score.broken_island), n_with(|score| score.split_numa));
        (score.simulated, choice.n_unreserved(), score.fallback, choice.spread, choice.left, linked)
    };
    let mut best: Option<(usize, Aligned)> = None;
    let as_good = choices.iter().take(RAILS_TRIED).take_while(|choice| order(choice) == order(first));
    for (at, choice) in as_good.enumerate() {
        // Where rails are not known of one, the first stays.
        let Some(aligned) = align(&choice.parts, &is_free) else { break };
        if best.as_ref().is_none_or(|(_, known)| aligned.off < known.off) {
            best = Some((at, aligned));
        }
        if best.as_ref().is_some_and(|(_, known)| known.off == 0) {
            break;
        }
    }
    best.map_or((0, None), |(at, aligned)| (at, Some(aligned)))
}

/// Why a workload of several nodes finds no place.
pub(super) fn waits(
    considered: usize,
    candidates: &[Candidate<'_>],
    rejected: Vec<RejectedNodes>,
    spec: &ValidSpec,
) -> PlacementReport {
    let n_nodes = spec.nodes() as usize;
    let transient: u32 = rejected.iter().filter(|r| r.reason.is_transient()).map(|r| r.count).sum();
    let mut report = PlacementReport {
        summary: String::new(),
        considered: u32::try_from(considered).unwrap_or(u32::MAX),
        chosen: None,
        rejected,
        runner_up: None,
        waiting_helps: candidates.len() + transient as usize >= n_nodes,
    };
    let most = classes(candidates).values().map(Vec::len).max().unwrap_or(0);
    report.summary = nowhere(&report, most, n_nodes);
    report
}

/// Candidates that could stand together, by what they have in common.
fn classes<'a>(candidates: &'a [Candidate<'a>]) -> BTreeMap<Class<'a>, Vec<&'a Candidate<'a>>> {
    let mut classes: BTreeMap<Class<'_>, Vec<&Candidate<'_>>> = BTreeMap::new();
    for candidate in candidates {
        let class = (candidate.score.simulated, candidate.runtime, candidate.model());
        classes.entry(class).or_default().push(candidate);
    }
    classes
}

/// The best choice within each of the smallest domains that are large enough: racks, else
/// zones, else all. Where a rack is large enough, a zone offers nothing nearer.
fn choices<'a>(class: &[&'a Candidate<'a>], n_nodes: usize) -> Vec<Choice<'a>> {
    // Without a label nobody knows how near it is: no domain but the fleet.
    let domains = |name: fn(Stands<'a>) -> Option<Stands<'a>>| {
        let mut domains: HashMap<Stands<'_>, Vec<&'a Candidate<'a>>> = HashMap::new();
        for candidate in class {
            if let Some(name) = name(stands(candidate)) {
                domains.entry(name).or_default().push(candidate);
            }
        }
        // In no order: choices are told apart by their scores.
        domains.into_values().filter(|domain| domain.len() >= n_nodes)
    };
    // Within a rack the best are the first.
    let of_rack = |domain: Vec<&'a Candidate<'a>>| Choice {
        parts: domain[..n_nodes].to_vec(),
        spread: Spread { zones: 1, racks: 1 },
        left: domain.len() - n_nodes,
    };
    let racks: Vec<_> = domains(|(zone, rack)| (!rack.is_empty()).then_some((zone, rack))).map(of_rack).collect();
    if !racks.is_empty() {
        return racks;
    }
    let zones = domains(|(zone, _)| (!zone.is_empty()).then_some((zone, "")));
    let zones: Vec<_> = zones.map(|domain| choose(&domain, n_nodes)).collect();
    if !zones.is_empty() {
        return zones;
    }
    if class.len() >= n_nodes { vec![choose(class, n_nodes)] } else { Vec::new() }
}

/// As few zones, then as few racks as possible. Which zones is tried out, where
/// there are not too many.
fn choose<'a>(domain: &[&'a Candidate<'a>], n_nodes: usize) -> Choice<'a> {
    let mut zones: BTreeMap<&str, BTreeMap<&str, Vec<&Candidate<'_>>>> = BTreeMap::new();
    for candidate in domain {
        let (zone, rack) = stands(candidate);
        zones.entry(zone).or_default().entry(rack).or_default().push(candidate);
    }
    let mut zones: Vec<Vec<Vec<&Candidate<'_>>>> =
        zones.into_values().map(|racks| racks.into_values().collect()).collect();
    let size = |racks: &Vec<Vec<&Candidate<'_>>>| racks.iter().map(Vec::len).sum::<usize>();
    zones.sort_by_key(|racks| Reverse(size(racks)));
    let mut n_zones = 0;
    let mut held = 0;
    while held < n_nodes && n_zones < zones.len() {
        held += size(&zones[n_zones]);
        n_zones += 1;
    }
    let of_set = |set: &[usize]| -> Vec<Vec<&Candidate<'_>>> { set.iter().flat_map(|at| zones[*at].clone()).collect() };
    let parts = zone_sets(zones.len(), n_zones)
        .iter()
        .map(|set| of_set(set))
        .filter(|racks| size(racks) >= n_nodes)
        .map(|racks| from_racks(racks, n_nodes))
        .min_by_key(|parts| spread(parts))
        .unwrap_or_default();
    let touched: BTreeSet<_> = parts.iter().map(|part| stands(part)).collect();
    let left = domain.iter().filter(|c| touched.contains(&stands(c))).count() - parts.len();
    Choice { spread: spread(&parts), parts, left }
}

/// All sets of `wanted` zones; of too many zones, the largest alone. They are in order of size.
fn zone_sets(n_zones: usize, wanted: usize) -> Vec<Vec<usize>> {
    if n_zones > ZONES_TRIED_MAX {
        return vec![(0..wanted).collect()];
    }
    let all = (0_u32..1 << n_zones).filter(|set| set.count_ones() as usize == wanted);
    all.map(|set| (0..n_zones).filter(|at| set & (1 << at) != 0).collect()).collect()
}

/// From as few racks as possible: the fullest whole, the rest from the smallest that is large enough.
fn from_racks<'a>(mut racks: Vec<Vec<&'a Candidate<'a>>>, n_nodes: usize) -> Vec<&'a Candidate<'a>> {
    let mut parts = Vec::with_capacity(n_nodes);
    while parts.len() < n_nodes && !racks.is_empty() {
        let missing = n_nodes - parts.len();
        let mut rack = racks.swap_remove(fitting(&racks, missing));
        rack.truncate(missing);
        parts.append(&mut rack);
    }
    parts
}

/// Index of the smallest that holds `wanted`, or of the largest if none does.
fn fitting(groups: &[Vec<&Candidate<'_>>], wanted: usize) -> usize {
    let enough = groups.iter().enumerate().filter(|(_, g)| g.len() >= wanted).min_by_key(|(at, g)| (g.len(), *at));
    let largest = || groups.iter().enumerate().min_by_key(|(at, g)| (Reverse(g.len()), *at));
    enough.or_else(largest).map_or(0, |(at, _)| at)
}

/// How far apart these are. What has no label stands alone.
pub(super) fn spread(parts: &[&Candidate<'_>]) -> Spread {
    let zones: BTreeSet<&str> = parts.iter().map(|part| stands(part).0).collect();
    let named = parts.iter().map(|part| stands(part)).filter(|(_, rack)| !rack.is_empty());
    let unnamed = parts.iter().filter(|part| stands(part).1.is_empty()).count();
    Spread { zones: zones.len(), racks: named.collect::<BTreeSet<_>>().len() + unnamed }
}

/// Zone and rack.
type Stands<'a> = (&'a str, &'a str);

fn stands<'a>(candidate: &'a Candidate<'_>) -> Stands<'a> {
    let [zone, rack] = &candidate.view.stands;
    (zone, rack)
}

fn placed(node_rank: u32, part: &Candidate<'_>) -> PlacedPart {
    PlacedPart { node_rank, node_id: part.node().node_id, node: part.node().name.clone(), gpus: part.gpus() }
}

/// The nodes, by name; of many the first.
fn names(parts: &[&Candidate<'_>]) -> String {
    const SHOWN: usize = 8;
    crate::query::first_names(&parts.iter().map(|part| part.node().name.as_str()).collect::<Vec<_>>(), SHOWN)
}

fn distance(spread: Spread) -> String {
    let several = |n: usize, one: &str, many: &str| if n == 1 { format!("one {one}") } else { format!("{n} {many}") };
    format!("{} of {}", several(spread.racks, "rack", "racks"), several(spread.zones, "zone", "zones"))
}

fn why(best: &Choice<'_>, aligned: Option<&Aligned>, n_candidates: usize, spec: &ValidSpec) -> String {
    let labeled = best.parts.iter().all(|part| !stands(part).1.is_empty());
    let mut parts = vec![format!("{} of {n_candidates} nodes that fit", best.parts.len())];
    if labeled {
        parts.push(distance(best.spread));
    } else {
        parts.push("how near they are is not known (no label rack)".to_owned());
    }
    let gpus = spec.node_demand().gpus;
    if gpus > 0 {
        parts.push(format!("{} each", crate::query::gpus(gpus)));
    }
    match aligned.map(|aligned| aligned.off) {
        Some(0) => parts.push("on the same rails".to_owned()),
        Some(off) => parts.push(format!("{} off the rails of the others", crate::query::gpus(off))),
        None => {}
    }
    parts.extend(report::of_choice(best.parts[0], spec));
    if best.parts[0].score.simulated {
        parts.push("simulated".to_owned());
    }
    parts.join(", ")
}

fn why_not(best: &Choice<'_>, second: &Choice<'_>) -> String {
    if best.parts[0].score.simulated != second.parts[0].score.simulated {
        "they are simulated".into()
    } else if best.n_unreserved() != second.n_unreserved() {
        "more of them are not kept for its tenant".into()
    } else if best.parts[0].score.fallback != second.parts[0].score.fallback {
        "their model is a later choice".into()
    } else if best.spread != second.spread {
        format!("they stand in {} instead of {}", distance(second.spread), distance(best.spread))
    } else if best.left != second.left {
        format!("it would break a larger free domain ({} nodes left instead of {})", second.left, best.left)
    } else {
        "they fit less well".into()
    }
}

fn nowhere(report: &PlacementReport, most: usize, n_nodes: usize) -> String {
    let outlook = report::outlook(report.waiting_helps);
    if report.considered == 0 {
        return "the fleet has no nodes; enroll one with node_token_create".into();
    }
    let can = if most == 1 { "1 node can".to_owned() } else { format!("{most} nodes can") };
    let why =
        if report.rejected.is_empty() { String::new() } else { format!(": {}", report::reasons(&report.rejected)) };
    format!("it needs {n_nodes} nodes at once and {can} take a part now{why}; {outlook}")
}

#[cfg(test)]
mod tests;
