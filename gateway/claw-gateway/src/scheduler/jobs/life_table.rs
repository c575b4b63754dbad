//! How likely a job that has run so long ends soon: life tables.
//!
//! Per bin of run time: seconds that jobs have spent in it, and ends. Jobs that
//! still run count with what they have run (they are censored, not left out).

/// Bins; the last has no end.
const BINS: usize = 48;
/// The end of the first bin, seconds; each two further ends are twice as far.
const FIRST_S: u64 = 60;
/// Ends that a table has seen before it has seen any, with the rates of the table above it.
const PRIOR_ENDS: f64 = 3.0;

/// Where each bin begins, seconds.
const BEGIN_S: [u64; BINS] = {
    let mut begin = [0; BINS];
    let mut at = 1;
    while at < BINS {
        let octave = FIRST_S << ((at - 1) / 2);
        begin[at] = if at % 2 == 1 { octave } else { octave * 14_142 / 10_000 };
        at += 1;
    }
    begin
};

fn begin_s(bin: usize) -> f64 {
    BEGIN_S[bin] as f64
}

/// The bin of a run time.
fn bin(run_s: u64) -> usize {
    BEGIN_S.partition_point(|begin| *begin <= run_s) - 1
}

/// Seconds of work until the bin ends; nothing for the last.
pub(super) fn left_s(run_s: u64) -> Option<u64> {
    BEGIN_S.get(bin(run_s) + 1).map(|begin| begin - run_s)
}

/// One life table and the index made of it.
#[derive(Debug, Clone)]
pub(super) struct LifeTable {
    spent_s: [f64; BINS],
    ends: [f64; BINS],
    /// Ends per second.
    rates: [f64; BINS],
    /// Ends per second of the best stretch that begins here, binary logarithm.
    index: [f64; BINS],
}

impl LifeTable {
    /// Nothing seen: the longer a job has run, the longer it will run on.
    pub(super) fn unseen() -> Self {
        let mut table = Self { spent_s: [0.0; BINS], ends: [0.0; BINS], rates: [0.0; BINS], index: [0.0; BINS] };
        table.rates = Self::prior();
        table.count_index();
        table
    }

    fn prior() -> [f64; BINS] {
        std::array::from_fn(|bin| 0.5 / begin_s(bin).max(FIRST_S as f64 / 2.0))
    }

    /// An unseen table that takes another's rates for its own until it knows better.
    pub(super) fn below(above: &Self) -> Self {
        let mut table = Self::unseen();
        table.rates = above.rates;
        table.index = above.index;
        table
    }

    /// A job has worked from one second of its run to another.
    pub(super) fn worked(&mut self, from_s: u64, to_s: u64) {
        let (from, to) = (from_s as f64, to_s as f64);
        for at in bin(from_s)..=bin(to_s) {
            let end = if at + 1 < BINS { begin_s(at + 1) } else { f64::INFINITY };
            self.spent_s[at] += (to.min(end) - from.max(begin_s(at))).max(0.0);
        }
    }

    /// A job has ended after so much work.
    pub(super) fn ended(&mut self, after_s: u64) {
        self.ends[bin(after_s)] += 1.0;
    }

    /// New rates and index, with the rates of the table above where little was seen.
    pub(super) fn refresh(&mut self, above: Option<&Self>) {
        let prior = above.map_or_else(Self::prior, |above| above.rates);
        for (at, prior) in prior.into_iter().enumerate() {
            self.rates[at] = (self.ends[at] + PRIOR_ENDS) / (self.spent_s[at] + PRIOR_ENDS / prior);
        }
        self.count_index();
    }

    /// Counts what was seen for less, so that what comes next counts more.
    pub(super) fn fade(&mut self, keep: f64) {
        for at in 0..BINS {
            self.spent_s[at] *= keep;
            self.ends[at] *= keep;
        }
    }

    /// The Gittins index: over all stretches from here on, the most ends per second spent.
    fn count_index(&mut self) {
        for from in 0..BINS {
            let (mut alive, mut spent_s, mut best) = (1.0, 0.0, 0.0_f64);
            for at in from..BINS {
                let width = if at + 1 < BINS { begin_s(at + 1) - begin_s(at) } else { begin_s(at) };
                let survives = (-self.rates[at] * width).exp();
                spent_s += alive * (1.0 - survives) / self.rates[at];
                alive *= survives;
                best = best.max((1.0 - alive) / spent_s);
            }
            self.index[from] = best.log2();
        }
    }

    /// The index of a job that has run so long, binary logarithm of ends per second.
    pub(super) fn index(&self, run_s: u64) -> f64 {
        self.index[bin(run_s)]
    }
}
