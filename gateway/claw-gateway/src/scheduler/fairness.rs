//! Who is next: quotas that nest, lend and borrow, and dominant-resource fair
//! share with decay.
//!
//! Tenants and agents are groups of one tree. A group has a guarantee, a bound
//! and a weight. What a group does not use of its guarantee others may borrow,
//! if it lends. The order of the waiting is: who stays within the guarantee
//! before who borrows (of each group only its highest priority is looked at);
//! then priority; then, from the root down, the child that
//! has had least of its dominant resource for its weight, lately and now; then
//! who came first. So fair share decides among equals of priority only, and
//! priority takes nobody's guarantee.
//!
//! Dominant-resource fairness: Ghodsi et al., NSDI 2011.

mod decay;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use decay::Decayed;

/// Resources that are shared: GPU thousandths, CPU thousandths, memory in MiB.
pub const RESOURCES: usize = 3;

/// An amount of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Amounts(pub [u64; RESOURCES]);

impl Amounts {
    /// Of each both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].saturating_add(other.0[at])))
    }

    /// Of each what is left without the other's, nothing at least.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].saturating_sub(other.0[at])))
    }

    /// Of each the larger.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].max(other.0[at])))
    }

    /// The first resource of which this is more than that.
    pub fn beyond(self, bound: Self) -> Option<usize> {
        (0..RESOURCES).find(|at| self.0[*at] > bound.0[*at])
    }

    /// The largest share of any resource of a whole, from 0.
    pub fn dominant_share(self, whole: Self) -> f64 {
        let shares = self.0.into_iter().zip(whole.0).filter(|(_, whole)| *whole > 0);
        shares.map(|(part, whole)| part as f64 / whole as f64).fold(0.0, f64::max)
    }
}

/// A tenant, a team, an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The group that it is part of; the first group of a tree has none.
    pub parent: Option<usize>,
    /// What it can have whenever it asks.
    pub guaranteed: Amounts,
    /// What it can have at most, borrowed included; nothing for no bound.
    pub most: Option<Amounts>,
    /// Others may use what it leaves of its guarantee.
    pub lends: bool,
    /// How much of what is not guaranteed to anybody falls to it, beside its siblings; at least 1.
    pub weight: u32,
}

/// Why something cannot be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// This group, or one below it, would have more of a resource than it may.
    Quota {
        /// Group.
        group: usize,
        /// Resource.
        resource: usize,
    },
    /// The whole would not suffice for what is held and what is kept for those who do not lend.
    Capacity {
        /// Resource.
        resource: usize,
    },
}

/// Something that is asked for and waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// By which group, which has no groups below it.
    pub group: usize,
    /// Higher goes first.
    pub priority: u32,
    /// Among equals, lower goes first.
    pub turn: u64,
    /// What.
    pub amounts: Amounts,
}

/// Groups and what they hold.
#[derive(Debug, Clone)]
pub struct Shares {
    groups: Vec<Group>,
    whole: Amounts,
    /// Of each group and those below it.
    held: Vec<Amounts>,
    /// Of those right below each group.
    held_below: Vec<Amounts>,
    /// What must stand ready for each: what is held, and what it and those below it do not lend.
    kept: Vec<Amounts>,
    /// Of those right below each group.
    kept_below: Vec<Amounts>,
    had: Vec<Decayed>,
    /// Whoever asks has no other judge of whether there is enough.
    is_whole_binding: bool,
}

/// Why a tree of groups is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The first group has a parent, or another has none before it.
    #[error("group {0} does not stand below a group before it")]
    Order(usize),
    /// A weight is zero.
    #[error("group {0} has no weight")]
    Weight(usize),
    /// The guarantees of the groups below exceed the group's, or the root's exceed the whole.
    #[error("group {0} guarantees more than it has")]
    Guarantee(usize),
}

impl Shares {
    /// Nothing held. `half_life_s`: after so long half of what a group has had is forgotten.
    pub fn new(groups: Vec<Group>, whole: Amounts, half_life_s: f64) -> Result<Self, TreeError> {
        for (at, group) in groups.iter().enumerate() {
            if group.parent.is_none() != (at == 0) || group.parent.is_some_and(|parent| parent >= at) {
                return Err(TreeError::Order(at));
            }
            if group.weight == 0 {
                return Err(TreeError::Weight(at));
            }
            let below = groups.iter().filter(|child| child.parent == Some(at));
            let promised = below.fold(Amounts::default(), |sum, child| sum.plus(child.guaranteed));
            let own = if at == 0 { whole } else { group.guaranteed };
            if promised.beyond(own).is_some() || group.guaranteed.beyond(own).is_some() {
                return Err(TreeError::Guarantee(at));
            }
        }
        let books = vec![(Amounts::default(), Decayed::new(half_life_s)); groups.len()];
        Ok(Self { is_whole_binding: true, ..Self::with_books(groups, whole, books) })
    }

    /// Goes on with books that were kept elsewhere: what each group with those below it holds
    /// and has had. Each group stands behind its parent; more may be promised than there is,
    /// as when nodes have left. Whether there is room is somebody else's to say, who may make
    /// some: here only what is kept for others is denied.
    pub fn with_books(groups: Vec<Group>, whole: Amounts, books: Vec<(Amounts, Decayed)>) -> Self {
        let nothing = vec![Amounts::default(); groups.len()];
        let (held, had) = books.into_iter().unzip();
        let (held_below, kept, kept_below) = (nothing.clone(), nothing.clone(), nothing);
        let is_whole_binding = false;
        let mut shares = Self { groups, whole, held, held_below, kept, kept_below, had, is_whole_binding };
        for at in (0..shares.groups.len()).rev() {
            let kept = shares.kept_of(at, shares.held[at].minus(shares.held_below[at]), shares.kept_below[at]);
            shares.kept[at] = kept;
            if let Some(parent) = shares.groups[at].parent {
                shares.held_below[parent] = shares.held_below[parent].plus(shares.held[at]);
                shares.kept_below[parent] = shares.kept_below[parent].plus(kept);
            }
        }
        shares
    }

    /// A group and those above it.
    fn line(&self, group: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(group), |group| self.groups[*group].parent)
    }

    /// What a group and those below it hold.
    pub fn held(&self, group: usize) -> Amounts {
        self.held[group]
    }

    /// What must stand ready for a group that itself holds so much, and those below it need so much.
    fn kept_of(&self, group: usize, own: Amounts, below: Amounts) -> Amounts {
        let used = own.plus(below);
        if self.groups[group].lends || group == 0 { used } else { used.or(self.groups[group].guaranteed) }
    }

    /// What must stand ready in all once a group has more.
    fn needed(&self, group: usize, more: Amounts) -> Amounts {
        let mut own = self.held[group].minus(self.held_below[group]).plus(more);
        let mut below = self.kept_below[group];
        let mut at = group;
        loop {
            let kept = self.kept_of(at, own, below);
            let Some(parent) = self.groups[at].parent else { return kept };
            below = self.kept_below[parent].minus(self.kept[at]).plus(kept);
            own = self.held[parent].minus(self.held_below[parent]);
            at = parent;
        }
    }

    /// What is shared.
    pub fn whole(&self) -> Amounts {
        self.whole
    }

    /// What a group can have at most.
    pub fn most(&self, group: usize) -> Amounts {
        self.groups[group].most.unwrap_or(Amounts([u64::MAX; RESOURCES]))
    }

    /// Whether a group can have more now, or what is short. What stands ready for it anyway it can
    /// have, even if more is promised than there is.
    pub fn admits(&self, group: usize, more: Amounts) -> Result<(), Shortage> {
        for above in self.line(group) {
            let Some(most) = self.groups[above].most else { continue };
            let with = self.held[above].plus(more);
            // What it does not ask for it need not give back first.
            let is_over = |at: &usize| more.0[*at] > 0 && with.0[*at] > most.0[*at];
            if let Some(resource) = (0..RESOURCES).find(is_over) {
                return Err(Shortage::Quota { group: above, resource });
            }
        }
        let (before, needed) = (self.kept[0], self.needed(group, more));
        let taken = self.held[0].plus(more);
        let is_short = |at: &usize| {
            let is_kept = taken.0[*at] <= self.whole.0[*at];
            needed.0[*at] > self.whole.0[*at] && needed.0[*at] > before.0[*at] && (is_kept || self.is_whole_binding)
        };
        (0..RESOURCES).find(is_short).map_or(Ok(()), |resource| Err(Shortage::Capacity { resource }))
    }

    /// A group with so much more would be within its guarantee, and so would those above it. Of what
    /// is asked for, only resources count of which something is guaranteed: who is guaranteed GPUs
    /// alone is within it for work that needs cores, too.
    pub fn within_guarantee(&self, group: usize, more: Amounts) -> bool {
        self.line(group).filter(|at| *at != 0).all(|at| {
            let (guaranteed, with) = (self.groups[at].guaranteed, self.held[at].plus(more));
            let mut spoken = (0..RESOURCES).filter(|at| more.0[*at] > 0 && guaranteed.0[*at] > 0).peekable();
            spoken.peek().is_some() && spoken.all(|at| with.0[at] <= guaranteed.0[at])
        })
    }

    /// What a group has of its dominant resource, for its weight, lately and now.
    pub fn score(&self, group: usize, now_s: f64) -> f64 {
        let now = self.held[group].dominant_share(self.whole);
        (now + self.lately(group, now_s)) / f64::from(self.groups[group].weight)
    }

    /// What a group has had of its dominant resource lately, as a share of the whole.
    pub fn lately(&self, group: usize, now_s: f64) -> f64 {
        self.had[group].dominant_share(self.whole, now_s)
    }

    /// The standing of a group against others: its scores from below the root down to it.
    fn standing(&self, group: usize, now_s: f64) -> Vec<(f64, usize)> {
        let mut line: Vec<(f64, usize)> =
            self.line(group).filter(|at| *at != 0).map(|at| (self.score(at, now_s), at)).collect();
        line.reverse();
        line
    }

    /// Who is next of those that can have what they ask for; nothing if none can.
    /// For each group that is its highest priority, whatever the group borrows for it.
    pub fn next(&self, asks: &[Ask], now_s: f64) -> Option<usize> {
        let open = (0..asks.len()).filter(|at| self.admits(asks[*at].group, asks[*at].amounts).is_ok());
        let mut first: BTreeMap<usize, usize> = BTreeMap::new();
        for at in open {
            let own = |at: usize| (Reverse(asks[at].priority), asks[at].turn, at);
            let best = first.entry(asks[at].group).or_insert(at);
            *best = if own(at) < own(*best) { at } else { *best };
        }
        first.into_values().min_by(|a, b| {
            let (a, b) = (&asks[*a], &asks[*b]);
            let borrows = |ask: &Ask| !self.within_guarantee(ask.group, ask.amounts);
            let fair = || self.compare(a.group, b.group, now_s);
            borrows(a).cmp(&borrows(b)).then(b.priority.cmp(&a.priority)).then_with(fair).then(a.turn.cmp(&b.turn))
        })
    }

    /// Which of two groups has had less, at the first level where they part; they are equal where
    /// both have had as much, and then who came first goes first.
    fn compare(&self, a: usize, b: usize, now_s: f64) -> std::cmp::Ordering {
        let (a, b) = (self.standing(a, now_s), self.standing(b, now_s));
        let part = a.iter().zip(&b).find(|(a, b)| a.1 != b.1);
        part.map_or(std::cmp::Ordering::Equal, |(a, b)| a.0.total_cmp(&b.0))
    }

    /// A group has more from now on; nothing changes if it cannot have it.
    pub fn take(&mut self, group: usize, more: Amounts, now_s: f64) -> Result<(), Shortage> {
        self.admits(group, more)?;
        self.change(group, now_s, |held| held.plus(more));
        Ok(())
    }

    /// A group gives back what it holds of this.
    pub fn give(&mut self, group: usize, less: Amounts, now_s: f64) {
        self.change(group, now_s, |held| held.minus(less));
    }

    fn change(&mut self, group: usize, now_s: f64, change: impl Fn(Amounts) -> Amounts) {
        let mut at = group;
        loop {
            let (held, kept) = (self.held[at], self.kept[at]);
            self.held[at] = change(held);
            self.had[at].set(self.held[at], now_s);
            self.kept[at] = self.kept_of(at, self.held[at].minus(self.held_below[at]), self.kept_below[at]);
            let Some(parent) = self.groups[at].parent else { return };
            self.held_below[parent] = self.held_below[parent].minus(held).plus(self.held[at]);
            self.kept_below[parent] = self.kept_below[parent].minus(kept).plus(self.kept[at]);
            at = parent;
        }
    }

    /// Groups at the ends of the tree that hold more than is guaranteed to them, those
    /// that hold most beyond it for their weight first: who gives back when a lender asks.
    pub fn borrowers(&self) -> Vec<usize> {
        let is_parent = |at: usize| self.groups.iter().any(|group| group.parent == Some(at));
        let over = |at: usize| self.held[at].minus(self.groups[at].guaranteed).dominant_share(self.whole);
        let mut borrowers: Vec<usize> =
            (0..self.groups.len()).filter(|at| !is_parent(*at) && over(*at) > 0.0).collect();
        let for_weight = |at: usize| over(at) / f64::from(self.groups[at].weight);
        borrowers.sort_by(|a, b| for_weight(*b).total_cmp(&for_weight(*a)).then(a.cmp(b)));
        borrowers
    }
}
