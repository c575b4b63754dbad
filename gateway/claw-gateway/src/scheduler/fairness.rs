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

pub use decay::Decayed;

/// Resources that are shared: GPU thousandths, CPU thousandths, memory in MiB.
pub const RESOURCES: usize = 3;

/// An amount of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    held: Vec<Amounts>,
    had: Vec<Decayed>,
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
        let n = groups.len();
        Ok(Self { groups, whole, held: vec![Amounts::default(); n], had: vec![Decayed::new(half_life_s); n] })
    }

    /// A group and those above it.
    fn line(&self, group: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(group), |group| self.groups[*group].parent)
    }

    /// What a group and those below it hold.
    pub fn held(&self, group: usize) -> Amounts {
        self.held[group]
    }

    /// What must stand ready for a group: what is held below it, and what it does not lend.
    fn kept(&self, group: usize, asked: &[usize], more: Amounts) -> Amounts {
        let below: Vec<usize> =
            (group + 1..self.groups.len()).filter(|at| self.groups[*at].parent == Some(group)).collect();
        let own = if asked.contains(&group) { self.held[group].plus(more) } else { self.held[group] };
        let sum = below.into_iter().fold(Amounts::default(), |sum, child| sum.plus(self.kept(child, asked, more)));
        let used = own.or(sum);
        if self.groups[group].lends || group == 0 { used } else { used.or(self.groups[group].guaranteed) }
    }

    /// Whether a group can have more now, or what is short.
    pub fn admits(&self, group: usize, more: Amounts) -> Result<(), Shortage> {
        for above in self.line(group) {
            let bound = self.groups[above].most;
            let over = bound.and_then(|most| self.held[above].plus(more).beyond(most));
            if let Some(resource) = over {
                return Err(Shortage::Quota { group: above, resource });
            }
        }
        let line: Vec<usize> = self.line(group).collect();
        let needed = self.kept(0, &line, more);
        needed.beyond(self.whole).map_or(Ok(()), |resource| Err(Shortage::Capacity { resource }))
    }

    /// A group with so much more would be within its guarantee, and so would those above it.
    fn within_guarantee(&self, group: usize, more: Amounts) -> bool {
        self.line(group)
            .filter(|at| *at != 0)
            .all(|at| self.held[at].plus(more).beyond(self.groups[at].guaranteed).is_none())
    }

    /// What a group has of its dominant resource, for its weight, lately and now.
    pub fn score(&self, group: usize, now_s: f64) -> f64 {
        let now = self.held[group].dominant_share(self.whole);
        (now + self.had[group].mean(now_s)) / f64::from(self.groups[group].weight)
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

    /// Which of two groups has had less, at the first level where they part.
    fn compare(&self, a: usize, b: usize, now_s: f64) -> std::cmp::Ordering {
        let (a, b) = (self.standing(a, now_s), self.standing(b, now_s));
        let part = a.iter().zip(&b).find(|(a, b)| a.1 != b.1);
        part.map_or(std::cmp::Ordering::Equal, |(a, b)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
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
        let line: Vec<usize> = self.line(group).collect();
        for at in line {
            self.held[at] = change(self.held[at]);
            self.had[at].set(self.held[at].dominant_share(self.whole), now_s);
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
