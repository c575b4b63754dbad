//! The best machine of one class of requests, kept up to date a change at a time.

use super::score::Scored;

/// What no machine scores.
const NONE: i32 = i32::MIN;

/// A tournament over all machines: each inner node holds the better of its two.
#[derive(Debug, Clone)]
pub(super) struct Tournament {
    /// Leaves begin at `width`; the winner stands at 1.
    scores: Vec<i32>,
    gpus: Vec<u8>,
    width: usize,
}

impl Tournament {
    /// Nobody scores so far.
    pub(super) fn new(n: usize) -> Self {
        let width = n.next_power_of_two().max(1);
        Self { scores: vec![NONE; 2 * width], gpus: vec![0; width], width }
    }

    /// Sets what a machine scores, without telling the inner nodes.
    pub(super) fn fill(&mut self, machine: usize, scored: Option<Scored>) {
        self.scores[self.width + machine] = scored.map_or(NONE, |scored| scored.score);
        self.gpus[machine] = scored.map_or(0, |scored| scored.gpu);
    }

    /// Plays all matches.
    pub(super) fn build(&mut self) {
        for node in (1..self.width).rev() {
            self.scores[node] = self.scores[2 * node].max(self.scores[2 * node + 1]);
        }
    }

    /// Sets what a machine scores and plays its matches again.
    pub(super) fn set(&mut self, machine: usize, scored: Option<Scored>) {
        self.fill(machine, scored);
        let mut node = (self.width + machine) >> 1;
        while node > 0 {
            let best = self.scores[2 * node].max(self.scores[2 * node + 1]);
            if self.scores[node] == best {
                break;
            }
            self.scores[node] = best;
            node >>= 1;
        }
    }

    /// The first of the best machines, and its GPU.
    pub(super) fn best(&self) -> Option<(usize, u8)> {
        let best = self.scores[1];
        if best == NONE {
            return None;
        }
        let mut node = 1;
        while node < self.width {
            node = if self.scores[2 * node] == best { 2 * node } else { 2 * node + 1 };
        }
        let machine = node - self.width;
        Some((machine, self.gpus[machine]))
    }

    /// Machines that can take it, and their GPU.
    pub(super) fn feasible(&self) -> impl Iterator<Item = (usize, u8)> {
        let scores = self.scores[self.width..].iter();
        scores.zip(&self.gpus).enumerate().filter(|(_, (score, _))| **score != NONE).map(|(at, (_, gpu))| (at, *gpu))
    }
}
