//! Whom to stop, and whom to move, so that a gang has a place.

use std::cmp::Reverse;

use super::preemptive::Replay;
use super::ranking::Ranking;

/// Jobs stopped for one move at most; beyond, a place is too dear.
const STOPS_FOR_A_MOVE_MAX: usize = 24;
/// Nodes that are looked at for a move: those with most room.
const NODES_FOR_A_MOVE: usize = 4;

impl<R: Ranking> Replay<'_, R> {
    /// Makes room for a gang of this level, by stopping worse-ranked jobs and, where
    /// the policy does so, by moving others together. All or nothing: if it says
    /// no, nobody was stopped.
    pub(super) fn make_room(&mut self, gpus: u32, level: u64) -> bool {
        let worse = self.worse_than(level);
        let theirs: u32 = worse.iter().map(|job| self.jobs[*job as usize].gpus).sum();
        if self.nodes.free() + theirs < gpus {
            return false;
        }
        let victims = if gpus <= self.nodes.per_node() {
            self.victims_on_one_node(gpus, &worse)
        } else {
            self.victims(gpus, &worse)
        };
        if let Some(victims) = victims {
            for job in victims {
                self.preempt(job);
            }
            return true;
        }
        self.manners.moves && gpus <= self.nodes.per_node() && self.make_room_by_moves(gpus, &worse)
    }

    /// Running jobs that may be stopped for this level, the worst first.
    fn worse_than(&self, level: u64) -> Vec<u32> {
        let free_to_stop = self.running.iter().filter(|job| self.live[**job as usize].held_until_s <= self.now_s);
        let ranked = free_to_stop.map(|job| (self.level_now(*job), self.live[*job as usize].turn, *job));
        let mut worse: Vec<_> = ranked.filter(|(theirs, ..)| *theirs > level).collect();
        worse.sort_unstable_by_key(|entry| Reverse(*entry));
        worse.into_iter().map(|(_, _, job)| job).collect()
    }

    /// GPUs of a job on a node.
    fn on_node(&self, job: u32, node: u32) -> u32 {
        let parts = self.live[job as usize].gang.iter().filter(|part| part.node == node);
        parts.map(|part| part.gpus.count_ones()).sum()
    }

    /// The worst of them until one node has room; then those on that node alone, the best spared.
    fn victims_on_one_node(&self, gpus: u32, worse: &[u32]) -> Option<Vec<u32>> {
        let mut counts = self.nodes.counts().to_vec();
        for (at, job) in worse.iter().enumerate() {
            let mut room = None;
            for part in &self.live[*job as usize].gang {
                let count = &mut counts[part.node as usize];
                *count += part.gpus.count_ones();
                room = room.or((*count >= gpus).then_some(part.node));
            }
            let Some(node) = room else { continue };
            let mut have = counts[node as usize];
            let mut needed = |job: &u32| {
                let theirs = self.on_node(*job, node);
                let spare = have - theirs >= gpus;
                have -= if spare { theirs } else { 0 };
                theirs > 0 && !spare
            };
            return Some(worse[..=at].iter().rev().copied().filter(|job| needed(job)).collect());
        }
        None
    }

    /// The same for a gang over several nodes.
    fn victims(&self, gpus: u32, worse: &[u32]) -> Option<Vec<u32>> {
        let mut counts = self.nodes.counts().to_vec();
        let gang =
            |job: u32| self.live[job as usize].gang.iter().map(|part| (part.node as usize, part.gpus.count_ones()));
        let enough = worse.iter().position(|job| {
            gang(*job).for_each(|(node, n)| counts[node] += n);
            self.nodes.fits_on(&counts, gpus)
        })?;
        let mut needed = Vec::new();
        for job in worse[..=enough].iter().rev() {
            gang(*job).for_each(|(node, n)| counts[node] -= n);
            if !self.nodes.fits_on(&counts, gpus) {
                gang(*job).for_each(|(node, n)| counts[node] += n);
                needed.push(*job);
            }
        }
        Some(needed)
    }

    /// Stops the fewest of the worst and moves others off one node.
    fn make_room_by_moves(&mut self, gpus: u32, worse: &[u32]) -> bool {
        let mut counts = self.nodes.counts().to_vec();
        let mut sum = self.nodes.free();
        for n_stopped in 0..=worse.len().min(STOPS_FOR_A_MOVE_MAX) {
            if let Some(job) = n_stopped.checked_sub(1).map(|last| worse[last]) {
                for part in &self.live[job as usize].gang {
                    counts[part.node as usize] += part.gpus.count_ones();
                    sum += part.gpus.count_ones();
                }
            }
            let stopped = &worse[..n_stopped];
            if sum < gpus {
                continue;
            }
            if let Some(moves) = self.moves_for(gpus, &counts, stopped) {
                for job in stopped {
                    self.preempt(*job);
                }
                for (job, node) in moves {
                    self.move_to(job, node);
                }
                return true;
            }
        }
        false
    }

    /// Which jobs to move where, so that one node has room; only jobs that stand on one node.
    fn moves_for(&self, gpus: u32, counts: &[u32], stopped: &[u32]) -> Option<Vec<(u32, u32)>> {
        let mut nodes: Vec<u32> = (0_u32..).zip(counts).filter(|(_, free)| **free > 0).map(|(node, _)| node).collect();
        nodes.sort_by_key(|node| Reverse(counts[*node as usize]));
        nodes.into_iter().take(NODES_FOR_A_MOVE).find_map(|node| self.moves_off(node, gpus, counts, stopped))
    }

    fn moves_off(&self, node: u32, gpus: u32, counts: &[u32], stopped: &[u32]) -> Option<Vec<(u32, u32)>> {
        let stay = self.running.iter().copied().filter(|job| !stopped.contains(job));
        let movable = |job: &u32| {
            let live = &self.live[*job as usize];
            live.gang.len() == 1 && live.gang[0].node == node && live.held_until_s <= self.now_s
        };
        let mut there: Vec<u32> = stay.filter(movable).collect();
        there.sort_by_key(|job| self.jobs[*job as usize].gpus);
        let mut room = counts.to_vec();
        let mut have = std::mem::take(&mut room[node as usize]);
        let mut moves = Vec::new();
        for job in there {
            if have >= gpus {
                break;
            }
            let size = self.jobs[job as usize].gpus;
            let to = (0_u32..).zip(&room).filter(|(_, free)| **free >= size).min_by_key(|(_, free)| **free)?.0;
            room[to as usize] -= size;
            have += size;
            moves.push((job, to));
        }
        (have >= gpus).then_some(moves)
    }
}
