//! The best of many, kept up to date a change at a time.

use std::cmp::Reverse;

use smallvec::SmallVec;

/// What can be compared; more is better.
pub(super) trait Worth: Copy + Ord {
    /// Of what does not take part.
    const NONE: Self;
}

impl Worth for i32 {
    const NONE: Self = Self::MIN;
}

/// So many play each match: their worths lie side by side, and there are few rounds.
const FAN: usize = 16;

/// A tournament: who wins a match plays the next round for all of it, so that the best of all is
/// known, and a change plays no more matches than there are rounds.
#[derive(Debug, Clone)]
pub(super) struct Tournament<W> {
    /// Those that take part, then the winners of each round; the last one has won.
    worth: Vec<W>,
    /// Where the worths of each round begin: of all that have room, of the winners of the first round, and so on.
    rounds: SmallVec<[usize; 8]>,
}

impl<W: Worth> Tournament<W> {
    /// Room for so many and some more; nobody takes part so far.
    pub(super) fn new(n: usize) -> Self {
        let mut wide = (n + n / 8).next_multiple_of(FAN).max(FAN);
        let (mut rounds, mut len) = (SmallVec::new(), 0);
        loop {
            rounds.push(len);
            len += wide;
            if wide == 1 {
                break;
            }
            wide = wide.div_ceil(FAN);
        }
        Self { worth: vec![W::NONE; len], rounds }
    }

    /// So many have room.
    pub(super) fn width(&self) -> usize {
        self.rounds[1]
    }

    /// What one of them is worth.
    pub(super) fn worth(&self, at: usize) -> W {
        self.worth[at]
    }

    /// Sets what one of them is worth, without playing.
    pub(super) fn fill(&mut self, at: usize, worth: W) {
        self.worth[at] = worth;
    }

    /// Plays all matches.
    pub(super) fn build(&mut self) {
        for round in 1..self.rounds.len() {
            let (from, to) = (self.rounds[round - 1], self.rounds[round]);
            let (before, winners) = self.worth.split_at_mut(to);
            for (winner, players) in winners.iter_mut().zip(before[from..].chunks(FAN)) {
                *winner = players.iter().copied().max().unwrap_or(W::NONE);
            }
        }
    }

    /// Sets what one of them is worth and plays its matches again.
    pub(super) fn set(&mut self, at: usize, worth: W) {
        let (mut place, mut now) = (at, worth);
        for round in 1..self.rounds.len() {
            let before = std::mem::replace(&mut self.worth[self.rounds[round - 1] + place], now);
            let winner = self.worth[self.rounds[round] + place / FAN];
            if now < winner {
                if before < winner {
                    return;
                }
                // Who has won is worth less now.
                now = self.players(round, place / FAN).iter().copied().max().unwrap_or(W::NONE);
            }
            if now == winner {
                return;
            }
            place /= FAN;
        }
        let last = self.worth.len() - 1;
        self.worth[last] = now;
    }

    /// Who plays this match of a round.
    fn players(&self, round: usize, place: usize) -> &[W] {
        let first = self.rounds[round - 1] + place * FAN;
        &self.worth[first..self.rounds[round].min(first + FAN)]
    }

    /// The first of the best.
    pub(super) fn best(&self) -> Option<usize> {
        self.first_of(self.rounds.len() - 1, 0)
    }

    /// The first of those that have won this place of a round.
    fn first_of(&self, round: usize, mut place: usize) -> Option<usize> {
        let best = self.worth[self.rounds[round] + place];
        if best == W::NONE {
            return None;
        }
        for round in (1..=round).rev() {
            place = place * FAN + self.players(round, place).iter().position(|worth| *worth == best)?;
        }
        Some(place)
    }

    /// The first of the best, and the first of the best of the others.
    pub(super) fn best_two(&self) -> Option<(usize, Option<usize>)> {
        let best = self.best()?;
        // Whoever is second lost to the best, or to who did, in some round: where it stood then, with its worth, of
        // equals the first.
        let mut second: Option<(usize, usize)> = None;
        let mut most = (W::NONE, Reverse(0));
        let (mut place, mut size) = (best, 1);
        for round in 1..self.rounds.len() {
            let first = place / FAN * FAN;
            for (other, worth) in (first..).zip(self.players(round, place / FAN)) {
                let order = (*worth, Reverse(other * size));
                if other != place && *worth != W::NONE && order > most {
                    (most, second) = (order, Some((round - 1, other)));
                }
            }
            (place, size) = (place / FAN, size * FAN);
        }
        Some((best, second.and_then(|(round, place)| self.first_of(round, place))))
    }

    /// Those that take part, in order.
    pub(super) fn present(&self) -> impl Iterator<Item = usize> {
        self.worth[..self.width()].iter().enumerate().filter(|(_, worth)| **worth != W::NONE).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// After any changes the best is the first of the largest, as a list of all would tell, and the second
        /// the first of the largest of the others.
        #[test]
        fn the_best_is_the_first_of_the_largest(
            begun in prop_oneof![
                prop::collection::vec(prop::option::of(-3..3_i32), 1..40),
                prop::collection::vec(prop::option::of(0..900_i32), 200..700),
            ],
            changes in prop::collection::vec((any::<usize>(), prop::option::of(-3..900_i32)), 0..60),
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
                let first_of = |list: &[Option<i32>]| {
                    let best = list.iter().flatten().max()?;
                    list.iter().position(|one| one.as_ref() == Some(best))
                };
                let best = first_of(&list);
                prop_assert_eq!(tournament.best(), best);
                let mut others = list.clone();
                if let Some(best) = best {
                    others[best] = None;
                }
                prop_assert_eq!(tournament.best_two(), best.map(|best| (best, first_of(&others))));
                let present: Vec<usize> = (0..list.len()).filter(|at| list[*at].is_some()).collect();
                prop_assert_eq!(tournament.present().collect::<Vec<_>>(), present);
            }
        }
    }
}
