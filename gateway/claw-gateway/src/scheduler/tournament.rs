//! The best of many, kept up to date a change at a time.

/// What can be compared; more is better.
pub(super) trait Worth: Copy + Ord {
    /// Of what does not take part.
    const NONE: Self;
}

impl Worth for i32 {
    const NONE: Self = Self::MIN;
}

/// A tournament: each inner node holds the better worth of its two, so that the best of all is
/// known, and a change plays no more matches than the tree is high.
#[derive(Debug, Clone)]
pub(super) struct Tournament<W> {
    /// Leaves begin at `width`; the winner stands at 1.
    worth: Vec<W>,
    width: usize,
}

impl<W: Worth> Tournament<W> {
    /// Room for so many; nobody takes part so far.
    pub(super) fn new(n: usize) -> Self {
        let width = n.next_power_of_two().max(1);
        Self { worth: vec![W::NONE; 2 * width], width }
    }

    /// So many have room.
    pub(super) const fn width(&self) -> usize {
        self.width
    }

    /// What one of them is worth.
    pub(super) fn worth(&self, at: usize) -> W {
        self.worth[self.width + at]
    }

    /// Sets what one of them is worth, without telling the inner nodes.
    pub(super) fn fill(&mut self, at: usize, worth: W) {
        self.worth[self.width + at] = worth;
    }

    /// Plays all matches.
    pub(super) fn build(&mut self) {
        for node in (1..self.width).rev() {
            self.worth[node] = self.worth[2 * node].max(self.worth[2 * node + 1]);
        }
    }

    /// Sets what one of them is worth and plays its matches again.
    pub(super) fn set(&mut self, at: usize, worth: W) {
        self.fill(at, worth);
        let mut node = (self.width + at) >> 1;
        while node > 0 {
            let best = self.worth[2 * node].max(self.worth[2 * node + 1]);
            if self.worth[node] == best {
                break;
            }
            self.worth[node] = best;
            node >>= 1;
        }
    }

    /// The first of the best.
    pub(super) fn best(&self) -> Option<usize> {
        let best = self.worth[1];
        if best == W::NONE {
            return None;
        }
        let mut node = 1;
        while node < self.width {
            node = if self.worth[2 * node] == best { 2 * node } else { 2 * node + 1 };
        }
        Some(node - self.width)
    }

    /// Those that take part, in order.
    pub(super) fn present(&self) -> impl Iterator<Item = usize> {
        self.worth[self.width..].iter().enumerate().filter(|(_, worth)| **worth != W::NONE).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// After any changes the best is the first of the largest, as a list of all would tell.
        #[test]
        fn the_best_is_the_first_of_the_largest(
            begun in prop::collection::vec(prop::option::of(-3..3_i32), 1..40),
            changes in prop::collection::vec((any::<usize>(), prop::option::of(-3..3_i32)), 0..60),
        ) {
            let worth = |worth: Option<i32>| worth.unwrap_or(i32::NONE);
            let mut list = begun;
            let mut tournament = Tournament::new(list.len());
            for (at, one) in list.iter().enumerate() {
                tournament.fill(at, worth(*one));
            }
            tournament.build();
            for (at, one) in changes {
                let at = at % list.len();
                list[at] = one;
                tournament.set(at, worth(one));
                let best = list.iter().flatten().max();
                prop_assert_eq!(tournament.best(), best.and_then(|best| list.iter().position(|one| one.as_ref() == Some(best))));
                let present: Vec<usize> = (0..list.len()).filter(|at| list[*at].is_some()).collect();
                prop_assert_eq!(tournament.present().collect::<Vec<_>>(), present);
            }
        }
    }
}
