//! The answers of all nodes to one specification: what its shape knows, and what holds for who asks now.

use std::cmp::Reverse;
use std::sync::Arc;

use claw_proto::ids::NodeId;
use claw_proto::validation::ValidSpec;
use claw_tools::workloads::{PlacementReason, PlacementReport, RejectedNodes};

use super::detail;
use super::fit::{self, Claims, Fit, Miss};
use super::index::{Shape, Slot, TAKES, byte, rank};
use super::likely::Losses;
use super::rank::Rank;
use super::report::NAMES_SHOWN;
use super::view::View;
use super::{Candidate, Score};

/// Verdicts that are looked through at once.
const PAGE: usize = 64;

/// The places of the nodes that are named; [`NOWHERE`] at the end if they are few.
type Places = [usize; NAMES_SHOWN];
/// Where no node is.
const NOWHERE: usize = usize::MAX;

/// Whom the last report of a shape named for a reason, and in which words.
#[derive(Debug)]
pub(super) struct Named {
    reason: PlacementReason,
    places: Places,
    /// Among so many nodes.
    among: usize,
    /// Others may come first now.
    is_stale: bool,
    /// How often they were others or were called otherwise, all together, and the last change of the first of them.
    since: (u32, Option<u64>),
    nodes: Arc<[String]>,
    detail: Arc<str>,
}

impl Named {
    /// The node at this place has another answer than this reason now, or has it newly.
    pub(super) fn note(&mut self, at: usize, (before, now): (u8, u8)) {
        let its = self.reason as u8 + 1;
        self.is_stale |= (before == its || now == its) && self.places.last().is_none_or(|last| at <= *last);
    }

    /// Where they stand, if that is known of so many.
    fn places_among(&self, verdicts: &[u8]) -> Option<Places> {
        (!self.is_stale && self.among == verdicts.len()).then_some(self.places)
    }
}

/// The first that have this reason.
fn first_of(verdicts: &[u8], reason: PlacementReason) -> Places {
    let mut places = [NOWHERE; NAMES_SHOWN];
    for (place, at) in places.iter_mut().zip(places_of(verdicts, reason as u8 + 1)) {
        *place = at;
    }
    places
}

/// What holds for one asker alone, whoever else is of its shape.
pub(super) struct Asks<'a> {
    /// Room that is being made for others, if there is any.
    pub(super) claims: Option<Claims<'a>>,
    /// Nodes where it would not be kept apart, in order, each with the name of somebody who is in the way.
    pub(super) apart: Vec<(NodeId, &'a str)>,
}

impl Asks<'_> {
    /// It holds for everybody of the shape.
    fn is_for_all(&self) -> bool {
        self.claims.is_none() && self.apart.is_empty()
    }

    /// Nodes of which something is kept, in order.
    fn kept_nodes(&self) -> Vec<NodeId> {
        let Some(claims) = self.claims else { return Vec::new() };
        let mut nodes = claims.cluster.workloads.claimed_nodes();
        nodes.extend(claims.cluster.reservations.nodes());
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Who is in the way on a node.
    fn in_the_way(&self, node_id: NodeId) -> Option<&str> {
        let at = self.apart.binary_search_by_key(&node_id, |(node_id, _)| *node_id).ok()?;
        Some(self.apart[at].1)
    }
}

/// A node that answers to who asks now as it does not to all: room is being made there, or it is left out.
struct Claimed {
    at: usize,
    verdict: Result<Fit, Miss>,
    /// What the shape says of it for those whom no claim keeps out.
    unclaimed: (u8, Rank),
}

/// The answers of all nodes to one specification.
pub(super) struct Answers<'a> {
    slots: &'a [Slot],
    /// The number of the last change of each.
    changed: &'a [u64],
    shape: &'a mut Shape,
    losses: &'a Losses,
    spec: &'a ValidSpec,
    asks: Asks<'a>,
    n_changes: u64,
    claimed: Vec<Claimed>,
    /// Nodes.
    pub(super) considered: usize,
}

impl Drop for Answers<'_> {
    /// What holds for one asker is not kept.
    fn drop(&mut self) {
        for Claimed { at, verdict, unclaimed } in std::mem::take(&mut self.claimed) {
            self.shape.answers(at, byte(&verdict), unclaimed.0);
            self.shape.ranks.set(at, unclaimed.1);
        }
    }
}

/// Where these stand: most pages hold none, and that is found by the page.
fn places_of(verdicts: &[u8], told: u8) -> impl Iterator<Item = usize> {
    let pages = verdicts.chunks(PAGE).zip((0..).step_by(PAGE)).filter(move |(page, _)| page.contains(&told));
    pages.flat_map(move |(page, from)| {
        page.iter().zip(from..).filter(move |(verdict, _)| **verdict == told).map(|(_, at)| at)
    })
}

impl<'a> Answers<'a> {
    /// Those of so many nodes, after so many changes, by what the shape of the specification knows of them.
    pub(super) fn of(
        ((slots, changed), shape, losses): ((&'a [Slot], &'a [u64]), &'a mut Shape, &'a Losses),
        spec: &'a ValidSpec,
        asks: Asks<'a>,
        (n_changes, considered): (u64, usize),
    ) -> Self {
        let is_for_all = asks.is_for_all();
        let mut answers =
            Self { slots, changed, shape, losses, spec, asks, n_changes, claimed: Vec::new(), considered };
        if !is_for_all {
            answers.judge_claimed();
        }
        answers
    }

    fn judge_claimed(&mut self) {
        let kept = self.asks.kept_nodes();
        let left_out = self.asks.apart.iter().map(|(node_id, _)| *node_id);
        let mut nodes: Vec<NodeId> = left_out.chain(kept.iter().copied()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node_id in nodes {
            let Ok(at) = self.slots.binary_search_by_key(&node_id, |slot| slot.node_id) else { continue };
            let Some(view) = &self.slots[at].view else { continue };
            let unclaimed = (self.shape.verdicts[at], self.shape.ranks.worth(at));
            let is_left_out = self.asks.in_the_way(node_id).is_some();
            let verdict = match kept.binary_search(&node_id) {
                Ok(_) => fit::judge(view, self.spec, self.asks.claims, self.losses),
                // Who does not take it anyway says why.
                Err(_) if unclaimed.0 != TAKES => continue,
                Err(_) => Err(fit::KEPT_APART),
            };
            let verdict = if is_left_out { verdict.and(Err(fit::KEPT_APART)) } else { verdict };
            self.shape.answers(at, unclaimed.0, byte(&verdict));
            self.shape.ranks.set(at, rank(&verdict));
            self.claimed.push(Claimed { at, verdict, unclaimed });
        }
    }

    /// Room that is being made for others, if there is any.
    pub(super) const fn claims(&self) -> Option<Claims<'a>> {
        self.asks.claims
    }

    /// Nodes that would take it, or a part of it.
    pub(super) fn n_candidates(&self) -> usize {
        self.shape.counts[usize::from(TAKES)] as usize
    }

    /// Nodes that might take it later, as they are.
    pub(super) fn n_transient(&self) -> usize {
        self.reasons().filter(|(reason, _)| reason.is_transient()).map(|(_, n)| n as usize).sum()
    }

    /// Why the others do not, with how many.
    fn reasons(&self) -> impl Iterator<Item = (PlacementReason, u32)> {
        let counts = self.shape.counts[1..].iter();
        PlacementReason::ALL.iter().copied().zip(counts.copied()).filter(|(_, n)| *n > 0)
    }

    fn verdict(&self, at: usize) -> Option<Result<Candidate<'a>, Miss>> {
        let slots: &'a [Slot] = self.slots;
        let view = slots.get(at)?.view.as_ref()?;
        // They stand in order of their places.
        let found = self.claimed.binary_search_by_key(&at, |claimed| claimed.at).ok();
        let claimed = found.map(|found| self.claimed[found].verdict.clone());
        let known = claimed.or_else(|| self.shape.fits.get(at).cloned().flatten().map(Ok));
        let verdict = known.unwrap_or_else(|| self.judge(at, view));
        Some(verdict.map(|fit| fit.candidate(view)))
    }

    /// With what the shape has found of the node already, if it takes it.
    fn judge(&self, at: usize, view: &View) -> Result<Fit, Miss> {
        let slot = self.slots.get(at);
        let is_taker = self.shape.verdicts.get(at) == Some(&TAKES);
        if let Some(fit) = slot.filter(|_| is_taker).and_then(|slot| self.shape.fit_on(at, (view, slot), self.losses)) {
            debug_assert_eq!(Ok(fit.named()), fit::judge(view, self.spec, None, self.losses).as_ref().map(Fit::named));
            return Ok(fit);
        }
        let fixed = slot.and_then(|slot| self.shape.found_on(at, slot));
        fixed
            .and_then(|fixed| fit::judge_fixed(view, self.spec, fixed, self.losses))
            .unwrap_or_else(|| fit::judge(view, self.spec, None, self.losses))
    }

    fn candidate(&self, at: usize) -> Option<Candidate<'a>> {
        self.verdict(at)?.ok()
    }

    /// The best, and the next best with its score.
    pub(super) fn best_two(&self) -> Option<(Candidate<'a>, Option<(&'a View, Score)>)> {
        let (best, second) = self.shape.ranks.best_two()?;
        let slots: &'a [Slot] = self.slots;
        let scored = |at: usize| {
            let view = slots.get(at)?.view.as_ref()?;
            Some((view, self.shape.ranks.worth(at).score(view.node_id())))
        };
        Some((self.candidate(best)?, second.and_then(scored)))
    }

    /// All that would take it, the best first.
    pub(super) fn candidates(&self) -> Vec<Candidate<'a>> {
        let present = self.shape.ranks.present();
        let mut order: Vec<(Reverse<Rank>, usize)> =
            present.map(|at| (Reverse(self.shape.ranks.worth(at)), at)).collect();
        order.sort_unstable();
        order.into_iter().filter_map(|(_, at)| self.candidate(at)).collect()
    }

    /// Why the others do not: their number, and the first of each kind among the first so many nodes.
    pub(super) fn rejected(&self, among: usize) -> Vec<RejectedNodes> {
        let verdicts = &self.shape.verdicts[..among.min(self.shape.verdicts.len())];
        self.reasons().map(|(reason, count)| self.rejected_for(reason, count, verdicts)).collect()
    }

    /// Most reports name whom the last one named, in the same words: these are shared.
    fn rejected_for(&self, reason: PlacementReason, count: u32, verdicts: &[u8]) -> RejectedNodes {
        let mut told = self.shape.named.borrow_mut();
        let known = told.iter().position(|known| known.reason == reason);
        let earlier = known.map(|known| &told[known]);
        let places =
            earlier.and_then(|known| known.places_among(verdicts)).unwrap_or_else(|| first_of(verdicts, reason));
        debug_assert_eq!(places, first_of(verdicts, reason), "who is named first is known");
        let views = || places.iter().filter_map(|at| self.slots.get(*at));
        let generations = views().map(|slot| slot.generation).fold(0, u32::wrapping_add);
        let since = (generations, self.changed.get(places[0]).copied());
        let is_claimed = |at: usize| self.claimed.binary_search_by_key(&at, |claimed| claimed.at).is_ok();
        // What holds for one asker is not kept.
        let lasts = !is_claimed(places[0]);
        let nodes = match earlier.filter(|known| (known.places, known.since.0) == (places, since.0)) {
            Some(known) => Arc::clone(&known.nodes),
            None => views().filter_map(|slot| Some(slot.view.as_ref()?.node.name.clone())).collect(),
        };
        let worded = || -> Arc<str> { self.worded(places[0]).into() };
        let detail = match earlier.filter(|known| lasts && (known.places[0], known.since.1) == (places[0], since.1)) {
            Some(known) => Arc::clone(&known.detail),
            None => worded(),
        };
        debug_assert_eq!(detail, worded(), "words last as long as their node is as it was");
        if lasts {
            let (nodes, detail) = (Arc::clone(&nodes), Arc::clone(&detail));
            let now = Named { reason, places, among: verdicts.len(), is_stale: false, since, nodes, detail };
            match known {
                Some(known) => told[known] = now,
                None => told.push(now),
            }
        }
        RejectedNodes { reason, count, nodes, detail }
    }

    /// Nodes on which others have too much.
    pub(super) fn busy(&self) -> Vec<(NodeId, PlacementReason)> {
        use PlacementReason::{CpuBusy, DiskBusy, GpuBusy, KeptApart, MemoryBusy, NvlinkIslandBusy, RoomClaimed};
        let reason = |verdict: u8| usize::from(verdict).checked_sub(1).and_then(|at| PlacementReason::ALL.get(at));
        let is_busy = |reason: &PlacementReason| {
            matches!(reason, CpuBusy | DiskBusy | GpuBusy | KeptApart | MemoryBusy | NvlinkIslandBusy | RoomClaimed)
        };
        let told = self.slots.iter().zip(&self.shape.verdicts);
        told.filter_map(|(slot, verdict)| Some((slot.node_id, *reason(*verdict).filter(|r| is_busy(r))?))).collect()
    }

    fn worded(&self, at: usize) -> String {
        let view = self.slots.get(at).and_then(|slot| slot.view.as_ref());
        match (self.verdict(at), view) {
            (Some(Err(miss)), Some(view)) => {
                let in_the_way = self.asks.in_the_way(view.node_id()).unwrap_or_default();
                detail::detail(miss, view, self.spec, in_the_way)
            }
            _ => String::new(),
        }
    }

    /// What was told of this shape since anything changed.
    pub(super) fn told(&self) -> Option<Arc<PlacementReport>> {
        let told = self.shape.told.as_ref().filter(|(at, _)| *at == self.n_changes && self.asks.is_for_all());
        told.map(|(_, report)| Arc::clone(report))
    }

    /// Remembers what is told of it.
    pub(super) fn tell(&mut self, report: &Arc<PlacementReport>) {
        if self.asks.is_for_all() {
            self.shape.told = Some((self.n_changes, Arc::clone(report)));
        }
    }
}
