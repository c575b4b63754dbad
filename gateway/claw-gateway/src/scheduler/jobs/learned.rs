//! Ours: who is likely to end soonest for the GPUs it holds, as far as the jobs
//! that ran before tell.
//!
//! No run time is known beforehand. Each owner's jobs of like size have a life
//! table, with that of all jobs of that size, and that of all jobs, behind it.
//! The rank is the Gittins index of what a job has run, per GPU: where all jobs
//! were alike and their run times had a Pareto law it would be least attained
//! service itself.

use std::collections::BTreeMap;

use super::job::Job;
use super::life_table::{LifeTable, left_s};
use super::ranking::{Manners, Patience, Rank, Ranking, Standing};

/// Sizes that are told apart: 1, up to 4, up to 8 GPUs, and more.
const SIZES: usize = 4;
/// Ends between two refreshes of the tables.
const REFRESH_ENDS: u64 = 200;
/// What is kept of what was seen, at each refresh.
const KEEP: f64 = 0.998;
/// Ranks in one octave of the index: jobs that differ by less do not stop each other.
const RANKS_PER_OCTAVE: f64 = 2.0;
/// One hour.
const HOUR_S: u64 = 3_600;

/// The manners of ours: a quarter of an hour to each start, and after a week of
/// standing still two hours that nobody interrupts.
pub(super) const MANNERS: Manners = Manners {
    min_run_s: HOUR_S / 4,
    moves: true,
    patience: Some(Patience { wait_s: 7 * 24 * HOUR_S, run_s: 2 * HOUR_S }),
};

/// The tables and the ranks made of them.
#[derive(Debug, Clone)]
pub(super) struct Learned {
    all: LifeTable,
    by_size: [LifeTable; SIZES],
    by_owner: BTreeMap<(u32, usize), LifeTable>,
    n_ended: u64,
    edition: u64,
}

fn size(gpus: u32) -> usize {
    match gpus {
        0..=1 => 0,
        2..=4 => 1,
        5..=8 => 2,
        _ => 3,
    }
}

impl Learned {
    /// Nothing learned yet.
    pub(super) fn new() -> Self {
        let unseen = LifeTable::unseen();
        Self {
            by_size: std::array::from_fn(|_| unseen.clone()),
            all: unseen,
            by_owner: BTreeMap::new(),
            n_ended: 0,
            edition: 0,
        }
    }

    /// The three tables that a job is counted in.
    fn each(&mut self, job: &Job, mut count: impl FnMut(&mut LifeTable)) {
        let size = size(job.gpus);
        count(&mut self.all);
        count(&mut self.by_size[size]);
        let own = self.by_owner.entry((job.owner, size));
        count(own.or_insert_with(|| LifeTable::below(&self.by_size[size])));
    }

    fn refresh(&mut self) {
        self.all.refresh(None);
        for table in &mut self.by_size {
            table.refresh(Some(&self.all));
        }
        for ((_, size), table) in &mut self.by_owner {
            table.refresh(Some(&self.by_size[*size]));
            table.fade(KEEP);
        }
        self.by_size.iter_mut().for_each(|table| table.fade(KEEP));
        self.all.fade(KEEP);
        self.edition += 1;
    }
}

impl Ranking for Learned {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and some hundred")]
    fn rank(&self, standing: Standing<'_>) -> Rank {
        let size = size(standing.job.gpus);
        let table = self.by_owner.get(&(standing.job.owner, size)).unwrap_or(&self.by_size[size]);
        let price = f64::from(standing.job.gpus).log2() - table.index(standing.attained_s);
        let level = 1 + (price.max(0.0) * RANKS_PER_OCTAVE) as u64;
        Rank { level, holds_s: left_s(standing.attained_s) }
    }

    fn worked(&mut self, job: &Job, from_s: u64, to_s: u64) {
        self.each(job, |table| table.worked(from_s, to_s));
    }

    fn ended(&mut self, job: &Job, after_s: u64) {
        self.each(job, |table| table.ended(after_s));
        self.n_ended += 1;
        if self.n_ended.is_multiple_of(REFRESH_ENDS) {
            self.refresh();
        }
    }

    fn edition(&self) -> u64 {
        self.edition
    }
}
