//! What the scheduler knows of the fleet for each shape of work: which nodes take
//! it, how well, and why the others do not. It follows the fleet a changed node at
//! a time, so a decision costs what has changed, not what there is.
//!
//! It decides nothing by itself: every answer is the one that asking all nodes
//! would give, and an empty index gives the same. Copies of a fleet share one;
//! they share most of their nodes as well. Which nodes are others the fleet's trail
//! tells ([`Trail`]), and where it does not, comparing the trees that hold them.

use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, TryLockError};

use claw_proto::ids::{GpuUuid, NodeId};
use claw_proto::validation::ValidSpec;
use claw_tools::workloads::{PlacementReason, PlacementReport};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use rustc_hash::{FxHashMap, FxHasher};

use super::answers::{Answers, Asks, Named};
use super::fit::{self, Fit, Fixed, Found, Miss};
use super::likely::Losses;
use super::likes::{Likes, Numbered, Told};
use super::rank::Rank;
use super::recent::Recent;
use super::row::{Row, Wish, takes_twins};
use super::same_kind;
use super::tournament::{Tournament, Worth};
use super::view::{Make, View};
use crate::Cluster;
use crate::registry::NodeEntry;
use crate::registry::trail::Trail;

/// What shapes weigh at most, times nodes: a plain one takes some 20 bytes for each node, so five hundred of them a
/// gigabyte on a hundred thousand nodes, which take as much themselves. With less room the kinds of work of a real
/// trace (150 to 460) ask every node of such a fleet again and again.
const KNOWN_MAX: usize = if cfg!(test) { 2_000 } else { 50_000_000 };
/// What a shape weighs that keeps what it found for each node: nodes are chosen by name or label, or it is not plain.
const NAMED_WEIGHT: usize = 3;
/// What one of gangs weighs, which remembers the GPUs that each node would give.
const GANG_WEIGHT: usize = 20;
/// A shape that is more changes than so many for each node behind looks at all nodes.
const CHANGES_SEEN_MAX: u64 = 4;
/// Shapes at most, however small the fleet.
const SHAPES_MAX: usize = 1_024;
/// What stands where no node is any more.
const GONE: u8 = u8::MAX;
/// What stands where a node would take it; reasons are counted from 1.
pub(super) const TAKES: u8 = 0;
/// Reasons, and the place for those that would take it.
const REASONS: usize = PlacementReason::ALL.len() + 1;

/// A place in the order of node ids. What a removed node leaves stays empty.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) node_id: NodeId,
    pub(super) view: Option<View>,
    /// The same in numbers, if the node is plain.
    row: Option<Row>,
    /// The number of its [`Make`], if the node is plain.
    make: Option<u32>,
    /// Counts up when the node has something else or is called otherwise.
    pub(super) generation: u32,
}

impl Slot {
    const fn empty(node_id: NodeId) -> Self {
        Self { node_id, view: None, row: None, make: None, generation: 0 }
    }

    /// The node is as its view says now.
    fn measure(&mut self, losses: &Losses) {
        if let Some(view) = &mut self.view {
            view.measure(losses);
        }
        self.row = self.view.as_ref().and_then(Row::of);
    }
}

/// What is known about one shape.
#[derive(Debug)]
pub(super) struct Shape {
    spec: Arc<ValidSpec>,
    /// What it asks for, if that is a plain thing.
    wish: Option<Wish>,
    /// See [`takes_twins`].
    twins: bool,
    /// It is for several nodes.
    several: bool,
    pub(super) ranks: Tournament<Rank>,
    /// For each slot.
    pub(super) verdicts: Vec<u8>,
    /// What it found on nodes, as long as that holds.
    found: Found,
    /// How each slot would take a part, if it is for several nodes: all of them are weighed then.
    pub(super) fits: Vec<Option<Fit>>,
    pub(super) counts: [u32; REASONS],
    /// Changes of slots that it has seen.
    seen: u64,
    /// The lesson that its scores are by.
    lesson: u64,
    /// Why it fits nowhere, and after which changes that was told.
    pub(super) told: Option<(u64, Arc<PlacementReport>)>,
    /// Whom the last report named for each reason.
    pub(super) named: RefCell<Vec<Named>>,
    /// When it was last asked for.
    asked: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index {
    nodes: OrdMap<NodeId, Arc<NodeEntry>>,
    homes: OrdMap<GpuUuid, NodeId>,
    /// Where the trail of that fleet ended.
    trail: Trail,
    slots: Vec<Slot>,
    /// The number of the last change of each; the largest of all before the first. Beside them, for every shape
    /// looks through many.
    changed: Vec<u64>,
    /// The number of those that are like it for each, once somebody asked for it; beside them for the same reason.
    like: Numbered,
    /// Their makes, numbered.
    makes: FxHashMap<Make, u32>,
    /// Nodes that are alike, numbered.
    likes: Likes,
    /// Slots in order of their last change.
    recent: Recent,
    n_changes: u64,
    shapes: Vec<Shape>,
    by_hash: FxHashMap<u64, Vec<usize>>,
    asked: u64,
    losses: Losses,
    /// Counts what was learned about likely work.
    lesson: u64,
}

/// The index of a fleet and its copies.
#[derive(Clone, Default)]
pub struct Handle(Arc<Mutex<Index>>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(..)")
    }
}

impl Handle {
    /// Asks the index about this fleet. Somebody else asks just now: an index of one's own answers.
    pub(super) fn ask<T>(&self, cluster: &Cluster, question: impl FnOnce(&mut Index) -> T) -> T {
        let mut own;
        let mut held;
        let index = match self.0.try_lock() {
            Ok(guard) => {
                held = guard;
                &mut *held
            }
            Err(TryLockError::Poisoned(poisoned)) => {
                // Whoever died may have left it half changed.
                held = poisoned.into_inner();
                *held = Index::default();
                self.0.clear_poison();
                &mut *held
            }
            Err(TryLockError::WouldBlock) => {
                own = Index::default();
                &mut own
            }
        };
        index.follow(cluster);
        question(index)
    }
}

impl Index {
    /// Brings the views up to this fleet.
    fn follow(&mut self, cluster: &Cluster) {
        if !self.losses.is_of(cluster) {
            self.losses = Losses::of(cluster);
            for slot in &mut self.slots {
                slot.measure(&self.losses);
            }
            self.like.touch_all();
            // What is known of scores holds no longer.
            self.lesson += 1;
        }
        let (nodes, homes) = (cluster.nodes.map().clone(), cluster.nodes.homes().clone());
        let mut changed: Vec<NodeId> = Vec::new();
        if !self.homes.ptr_eq(&homes) {
            for item in self.homes.diff(&homes) {
                match item {
                    DiffItem::Add(_, id) | DiffItem::Remove(_, id) => changed.push(*id),
                    DiffItem::Update { old: (_, old), new: (_, new) } => changed.extend([*old, *new]),
                }
            }
        }
        let homes_changed = !changed.is_empty();
        if !self.nodes.ptr_eq(&nodes) {
            changed.extend(self.changed_nodes(cluster));
        }
        (self.nodes, self.homes, self.trail) = (nodes, homes, cluster.nodes.trail().clone());
        changed.sort_unstable();
        changed.dedup();
        let is_new_between =
            |id: &NodeId| cluster.nodes.get(*id).is_some() && self.slot(*id).is_err_and(|at| at < self.slots.len());
        let mostly_gone = self.slots.len() > 2 * self.nodes.len() + 64;
        let too_many_makes = self.makes.len() > 2 * self.slots.len() + 64;
        if mostly_gone || too_many_makes || changed.iter().any(is_new_between) {
            return self.start_over(cluster);
        }
        let n_slots = self.slots.len();
        for id in changed {
            self.look_at(cluster, id, homes_changed);
        }
        if self.slots.len() > n_slots {
            // Each shape takes more now.
            self.make_room(0);
        }
    }

    /// Nodes that are others than when it looked last: by the trail of the fleet, if it comes from the one that it
    /// saw then, and else by comparing.
    fn changed_nodes(&self, cluster: &Cluster) -> Vec<NodeId> {
        let compare = || {
            let id_of = |item: DiffItem<'_, '_, NodeId, _>| match item {
                DiffItem::Add(id, _) | DiffItem::Remove(id, _) | DiffItem::Update { new: (id, _), .. } => *id,
            };
            self.nodes.diff(cluster.nodes.map()).map(id_of).collect()
        };
        let Some(trailed) = cluster.nodes.trail().since(&self.trail) else { return compare() };
        debug_assert!(compare().iter().all(|id| trailed.contains(id)), "a trail tells all that changed");
        trailed
    }

    fn slot(&self, id: NodeId) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&id, |slot| slot.node_id)
    }

    fn start_over(&mut self, cluster: &Cluster) {
        let (nodes, homes) = (std::mem::take(&mut self.nodes), std::mem::take(&mut self.homes));
        let trail = std::mem::take(&mut self.trail);
        *self = Self { nodes, homes, trail, losses: Losses::of(cluster), ..Self::default() };
        for node in cluster.nodes.iter() {
            let mut slot = Slot::empty(node.node_id);
            slot.view = Some(View::of(cluster, node));
            slot.measure(&self.losses);
            slot.make = number(&mut self.makes, &slot);
            self.slots.push(slot);
            self.changed.push(u64::MAX);
            self.like.add();
        }
    }

    fn look_at(&mut self, cluster: &Cluster, id: NodeId, anew: bool) {
        let node = cluster.nodes.get(id);
        let at = match (self.slot(id), node) {
            (Ok(at), _) => at,
            (Err(_), None) => return,
            (Err(at), Some(_)) => {
                self.slots.push(Slot::empty(id));
                self.changed.push(u64::MAX);
                self.like.add();
                at
            }
        };
        let slot = &mut self.slots[at];
        let stays = !anew && slot.view.as_ref().zip(node).is_some_and(|(view, node)| view.has_the_same(node));
        match (node, &mut slot.view) {
            (Some(node), Some(view)) if !anew => view.refresh(cluster, node),
            (node, view) => *view = node.map(|node| View::of(cluster, node)),
        }
        slot.measure(&self.losses);
        if !stays {
            slot.generation = slot.generation.wrapping_add(1);
            slot.make = number(&mut self.makes, slot);
        }
        self.like.touch(at);
        self.changed[at] = self.n_changes;
        self.recent.touch(at);
        self.n_changes += 1;
    }

    /// The number of this shape, up to date.
    fn shape(&mut self, spec: &ValidSpec) -> usize {
        self.asked += 1;
        let hash = hash_of(spec);
        let known = self
            .by_hash
            .get(&hash)
            .and_then(|same| same.iter().copied().find(|at| same_kind(&self.shapes[*at].spec, spec)));
        let at = known.unwrap_or_else(|| self.learn(spec, hash));
        let (n_changes, n_slots) = (self.n_changes, self.slots.len());
        let shape = &mut self.shapes[at];
        shape.asked = self.asked;
        let is_far_behind = n_changes - shape.seen > CHANGES_SEEN_MAX * n_slots as u64 + 256;
        let looks_at_all = is_far_behind || shape.ranks.width() < n_slots;
        if looks_at_all || shape.lesson != self.lesson {
            number_likes((&mut self.like, &mut self.likes), &self.slots);
        }
        if looks_at_all {
            shape.look_at_all((&self.slots, &self.like.of), &mut self.likes.told, &self.losses);
        } else {
            let (seen, changed) = (shape.seen, &self.changed);
            let since = self.recent.newest_first().take_while(|at| changed[*at] >= seen);
            shape.catch_up(&self.slots, since, &self.losses);
            if shape.lesson != self.lesson {
                shape.rank_anew((&self.slots, &self.like.of), &mut self.likes.told, &self.losses);
            }
        }
        shape.lesson = self.lesson;
        shape.seen = n_changes;
        at
    }

    fn learn(&mut self, spec: &ValidSpec, hash: u64) -> usize {
        let wish = Wish::of(spec);
        let (twins, several) = (takes_twins(spec, wish.as_ref()), spec.nodes() > 1);
        self.make_room(weight(several, twins));
        number_likes((&mut self.like, &mut self.likes), &self.slots);
        let mut shape = Shape {
            spec: Arc::new(spec.clone()),
            wish,
            twins,
            several,
            ranks: Tournament::new(0),
            verdicts: Vec::new(),
            found: Found::default(),
            fits: Vec::new(),
            counts: [0; REASONS],
            seen: self.n_changes,
            lesson: self.lesson,
            told: None,
            named: RefCell::default(),
            asked: self.asked,
        };
        shape.look_at_all((&self.slots, &self.like.of), &mut self.likes.told, &self.losses);
        self.shapes.push(shape);
        debug_assert!(self.shapes.len() == 1 || self.has_room(0), "what is known is bounded");
        self.by_hash.entry(hash).or_default().push(self.shapes.len() - 1);
        self.shapes.len() - 1
    }

    /// For one more shape of this weight, if it has any.
    fn has_room(&self, more: usize) -> bool {
        let most = (KNOWN_MAX / self.slots.len().max(1)).max(2 * GANG_WEIGHT);
        let known: usize = self.shapes.iter().map(|shape| weight(shape.several, shape.twins)).sum();
        known + more <= most && self.shapes.len() + usize::from(more > 0) <= SHAPES_MAX
    }

    /// Forgets the shapes that nobody asked for longest, a quarter at a time, so that this is rare.
    fn make_room(&mut self, more: usize) {
        if self.has_room(more) {
            return;
        }
        while !self.shapes.is_empty() && !self.has_room(more) {
            let mut asked: Vec<u64> = self.shapes.iter().map(|shape| shape.asked).collect();
            asked.sort_unstable();
            let until = asked[self.shapes.len() / 4];
            self.shapes.retain(|shape| shape.asked > until);
        }
        self.by_hash.clear();
        for (at, shape) in self.shapes.iter().enumerate() {
            self.by_hash.entry(hash_of(&shape.spec)).or_default().push(at);
        }
    }

    /// How nodes answer to this specification.
    pub(super) fn answers<'a>(&'a mut self, spec: &'a ValidSpec, asks: Asks<'a>) -> Answers<'a> {
        let at = self.shape(spec);
        let n_changes = self.n_changes;
        let (slots, shape, losses) = ((&self.slots[..], &self.changed[..]), &mut self.shapes[at], &self.losses);
        Answers::of((slots, shape, losses), spec, asks, (n_changes, self.nodes.len()))
    }

    /// The shapes that are known, for a check of what is known about them.
    pub(super) fn known(&self) -> Vec<Arc<ValidSpec>> {
        self.shapes.iter().map(|shape| Arc::clone(&shape.spec)).collect()
    }
}

/// Of [`KNOWN_MAX`], for each node.
const fn weight(several: bool, twins: bool) -> usize {
    match (several, twins) {
        (true, _) => GANG_WEIGHT,
        (false, false) => NAMED_WEIGHT,
        (false, true) => 1,
    }
}

/// The number of a plain node's make: a new one gets the next.
fn number(makes: &mut FxHashMap<Make, u32>, slot: &Slot) -> Option<u32> {
    let make = slot.view.as_ref().filter(|_| slot.row.is_some())?.make()?;
    let next = u32::try_from(makes.len()).ok()?;
    Some(*makes.entry(make).or_insert(next))
}

/// Numbers those that are alike, where that is not known.
fn number_likes((like, likes): (&mut Numbered, &mut Likes), slots: &[Slot]) {
    like.number(likes, |at| slots[at].row.as_ref().zip(slots[at].make));
}

fn hash_of(spec: &ValidSpec) -> u64 {
    let mut hasher = FxHasher::default();
    let demand = spec.demand();
    (demand.gpus, demand.cpu_millis, demand.memory_mib, demand.disk_mib, demand.gpu_memory_mib_min).hash(&mut hasher);
    (demand.gpu_milli, &demand.mig_profile, &demand.gpu_models, demand.gpu_models_ranked).hash(&mut hasher);
    (demand.nvlink, demand.capped).hash(&mut hasher);
    (spec.nodes(), super::needs(spec)).hash(&mut hasher);
    hasher.finish()
}

pub(super) fn byte<T>(verdict: &Result<T, Miss>) -> u8 {
    match verdict {
        Ok(_) => TAKES,
        Err(miss) => miss.reason as u8 + 1,
    }
}

pub(super) fn rank(verdict: &Result<Fit, Miss>) -> Rank {
    verdict.as_ref().map_or(Rank::NONE, |fit| Rank::of(&fit.score))
}

impl Shape {
    /// The node at this place answered so before and answers so now.
    pub(super) fn answers(&mut self, at: usize, before: u8, now: u8) {
        if before == now {
            return;
        }
        self.verdicts[at] = now;
        for (verdict, change) in [(before, -1), (now, 1)] {
            if let Some(count) = self.counts.get_mut(usize::from(verdict)) {
                *count = count.saturating_add_signed(change);
            }
        }
        self.named.get_mut().iter_mut().for_each(|named| named.note(at, (before, now)));
    }

    fn look_at_all(&mut self, (slots, like): (&[Slot], &[Option<u32>]), told: &mut Told, losses: &Losses) {
        self.named.get_mut().clear();
        self.ranks = Tournament::new(slots.len());
        self.verdicts = vec![GONE; slots.len()];
        self.fits = if self.several { vec![None; slots.len()] } else { Vec::new() };
        self.counts = [0; REASONS];
        told.forget();
        for (at, (like, slot)) in like.iter().zip(slots).enumerate() {
            let Some((verdict, rank)) = self.told_or_judge(at, *like, told, slot, losses) else { continue };
            self.verdicts[at] = verdict;
            self.counts[usize::from(verdict)] += 1;
            if verdict == TAKES {
                self.ranks.fill(at, rank);
            }
        }
        self.ranks.build();
    }

    /// What the node at this place answers, if there is one; if one that is like it has answered, the same.
    #[inline]
    fn told_or_judge(
        &mut self,
        at: usize,
        like: Option<u32>,
        told: &mut Told,
        slot: &Slot,
        losses: &Losses,
    ) -> Option<(u8, Rank)> {
        let like = like.filter(|_| self.twins);
        match like.and_then(|like| told.of(like)) {
            Some(known) => {
                debug_assert_eq!(
                    Some(known),
                    self.judge_and_tell((at, None), told, slot, losses),
                    "who is alike answers alike"
                );
                Some(known)
            }
            None => self.judge_and_tell((at, like), told, slot, losses),
        }
    }

    /// What the node at this place answers, kept for those that are like it.
    #[inline(never)]
    fn judge_and_tell(
        &mut self,
        (at, like): (usize, Option<u32>),
        told: &mut Told,
        slot: &Slot,
        losses: &Losses,
    ) -> Option<(u8, Rank)> {
        let answer = self.judge(at, (slot.view.as_ref()?, slot), losses);
        if let Some(like) = like {
            told.tell(like, answer);
        }
        Some(answer)
    }

    /// Something was learned about likely work: who takes it is as before, how well is not.
    fn rank_anew(&mut self, (slots, like): (&[Slot], &[Option<u32>]), told: &mut Told, losses: &Losses) {
        told.forget();
        for (at, (like, slot)) in like.iter().zip(slots).enumerate() {
            if self.verdicts[at] == TAKES
                && let Some((_, rank)) = self.told_or_judge(at, *like, told, slot, losses)
            {
                self.ranks.fill(at, rank);
            }
        }
        self.ranks.build();
    }

    /// Looks at the slots that changed since it has seen them.
    fn catch_up(&mut self, slots: &[Slot], since: impl Iterator<Item = usize>, losses: &Losses) {
        if self.verdicts.len() < slots.len() {
            self.verdicts.resize(slots.len(), GONE);
        }
        for at in since {
            let (slot, before) = (&slots[at], self.verdicts[at]);
            let Some(view) = &slot.view else {
                self.answers(at, before, GONE);
                self.ranks.set(at, Rank::NONE);
                self.remember(at, None);
                continue;
            };
            let (verdict, rank) = self.judge(at, (view, slot), losses);
            self.answers(at, before, verdict);
            // Who does not take it has no rank.
            if before == TAKES || verdict == TAKES {
                self.ranks.set(at, rank);
            }
        }
    }

    /// What a node answers, with which GPUs only where that is asked for later.
    #[inline]
    fn judge(&mut self, at: usize, (view, slot): (&View, &Slot), losses: &Losses) -> (u8, Rank) {
        let (Some(row), Some(wish)) = (&slot.row, &self.wish) else { return self.judge_view(at, (view, slot), losses) };
        let make = self.shared_make(slot);
        let fixed = self.found.on(make, (at, slot.generation));
        let known = fixed.get_or_insert_with(|| Fixed::of(view, &self.spec));
        debug_assert_eq!(*known, Fixed::of(view, &self.spec), "nodes of one make are alike in what is fixed");
        let answer = match known.answer {
            Ok(runtime) => row.judge(wish, (runtime, known.fallback(wish.is_ranked)), losses),
            Err(reason) => Err(reason),
        };
        debug_assert_eq!(
            answer,
            fit::score_of(view, &self.spec, losses, fixed).map(|score| Rank::of(&score)),
            "a row says what its node says"
        );
        answer.map_or_else(|reason| (reason as u8 + 1, Rank::NONE), |rank| (TAKES, rank))
    }

    /// The same, of a node or a shape that is not plain.
    fn judge_view(&mut self, at: usize, (view, slot): (&View, &Slot), losses: &Losses) -> (u8, Rank) {
        if self.several {
            let verdict = fit::judge(view, &self.spec, None, losses);
            let told = (byte(&verdict), rank(&verdict));
            self.remember(at, verdict.ok());
            return told;
        }
        let make = self.shared_make(slot);
        let fixed = self.found.on(make, (at, slot.generation));
        let score = fit::score_of(view, &self.spec, losses, fixed).map(|score| Rank::of(&score));
        score.map_or_else(|reason| (reason as u8 + 1, Rank::NONE), |rank| (TAKES, rank))
    }

    /// With which GPUs a plain node that takes it would, where it asks for a plain thing.
    pub(super) fn fit_on(&self, at: usize, (view, slot): (&View, &Slot), losses: &Losses) -> Option<Fit> {
        let (row, wish) = slot.row.as_ref().zip(self.wish.as_ref())?;
        let runtime = self.found_on(at, slot)?.answer.ok()?;
        let taken = row.taken(wish, losses)?;
        let chosen = view.gpus.iter().enumerate().filter(|(place, _)| taken >> place & 1 == 1).map(|(_, gpu)| *gpu);
        Some(Fit::new(chosen.collect(), runtime, self.ranks.worth(at).score(view.node_id())))
    }

    /// What it has found on the node at this place, if it has looked.
    pub(super) fn found_on(&self, at: usize, slot: &Slot) -> Option<&Fixed> {
        self.found.known(self.shared_make(slot), (at, slot.generation))
    }

    /// The make with which the node shares what was found, if it does.
    fn shared_make(&self, slot: &Slot) -> Option<u32> {
        slot.make.filter(|_| self.twins)
    }

    fn remember(&mut self, at: usize, fit: Option<Fit>) {
        if self.several {
            if self.fits.len() <= at {
                self.fits.resize(at + 1, None);
            }
            self.fits[at] = fit;
        }
    }
}
