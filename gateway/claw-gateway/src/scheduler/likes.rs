//! Nodes that are alike in all that a plain shape can see have one number, so that what
//! one of them answers need not be asked of the others.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHashMap;

use super::rank::Rank;
use super::row::Row;

/// So many numbers of nodes that are alike may there be beyond a quarter more than nodes; each takes some 220 bytes.
const LIKES_MORE: usize = if cfg!(test) { 2 } else { 64 };

/// Numbers of nodes that are alike, and what those were told who asked last.
#[derive(Debug, Default)]
pub(super) struct Likes {
    numbers: FxHashMap<Like, u32>,
    pub(super) told: Told,
}

/// What a node is and has, whose ever it is.
#[derive(Debug)]
struct Like {
    make: u32,
    row: Row,
}

impl PartialEq for Like {
    fn eq(&self, other: &Self) -> bool {
        self.make == other.make && self.row.is_like(&other.row)
    }
}

impl Eq for Like {}

impl Hash for Like {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.make, self.row.likeness()).hash(state);
    }
}

impl Likes {
    /// The number of those that are like a node of this make with this row.
    pub(super) fn number(&mut self, make: u32, row: &Row) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(Like { make, row: row.clone() }).or_insert(next)
    }

    /// Numbers so far.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

/// The number of each slot, among those that are like it.
#[derive(Debug, Default)]
pub(super) struct Numbered {
    /// None for what is like nothing (it is not plain, or nobody is there), and what changed since it was numbered.
    pub(super) of: Vec<Option<u32>>,
    /// What changed since, each once.
    changed: Vec<usize>,
    has_changed: Vec<bool>,
}

impl Numbered {
    /// One slot more.
    pub(super) fn add(&mut self) {
        let at = self.of.len();
        self.of.push(None);
        self.has_changed.push(false);
        self.touch(at);
    }

    /// The slot at this place is another.
    pub(super) fn touch(&mut self, at: usize) {
        self.of[at] = None;
        if !std::mem::replace(&mut self.has_changed[at], true) {
            self.changed.push(at);
        }
    }

    /// All are.
    pub(super) fn touch_all(&mut self) {
        (0..self.of.len()).for_each(|at| self.touch(at));
    }

    /// Numbers what changed.
    pub(super) fn number<'a>(&mut self, likes: &mut Likes, slot: impl Fn(usize) -> Option<(&'a Row, u32)>) {
        if likes.len() > self.of.len() + self.of.len() / 4 + LIKES_MORE {
            // Most of what they were like nobody is like any more.
            *likes = Likes::default();
            self.touch_all();
        }
        for at in self.changed.drain(..) {
            self.of[at] = slot(at).map(|(row, make)| likes.number(make, row));
            self.has_changed[at] = false;
        }
        let is_numbered = |(at, like): (usize, &Option<u32>)| like.is_some() == slot(at).is_some();
        debug_assert!(self.of.iter().enumerate().all(is_numbered), "what is plain has a number");
    }
}

/// What one of those that are alike has answered, to one shape.
#[derive(Debug, Default)]
pub(super) struct Told {
    answers: Vec<Answer>,
    /// Counts the shapes that asked: what an earlier one was told counts no more.
    asked: u64,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    asked: u64,
    verdict: u8,
    rank: Rank,
}

impl Told {
    /// Another shape asks, or the same one anew.
    pub(super) fn forget(&mut self) {
        self.asked += 1;
    }

    #[inline]
    pub(super) fn of(&self, like: u32) -> Option<(u8, Rank)> {
        let answer = self.answers.get(like as usize).filter(|answer| answer.asked == self.asked)?;
        Some((answer.verdict, answer.rank))
    }

    pub(super) fn tell(&mut self, like: u32, (verdict, rank): (u8, Rank)) {
        let at = like as usize;
        if self.answers.len() <= at {
            self.answers.resize(at + 1, Answer { asked: 0, verdict, rank });
        }
        self.answers[at] = Answer { asked: self.asked, verdict, rank };
    }
}
