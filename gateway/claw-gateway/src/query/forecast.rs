//! When a waiting workload will start: the fleet's own decisions, run ahead on a copy.
//!
//! How long programs run is known as far as they say so (`max_duration_s` ends them) and as far as
//! work that ended tells: of an owner who says limits, which part of them was used; of one who
//! says none, how long the same took before. Without such history one future is lived through,
//! and its start is exact where the limits are the run times. With it many are, each with run
//! times drawn from the history (of what runs, beyond what it has run already), and the interval
//! holds nine of ten of the starts.
//!
//! The work is bounded: so many ended workloads are looked at, so many moments lived through, and
//! fewer the longer the queue is.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::WorkloadId;
use claw_proto::time::Timestamp;
use claw_tools::workloads::{Blocker, StartForecast, WorkloadReason, WorkloadState};

use super::simulate::{Runs, not_ended, run_ahead};
use crate::Cluster;
use crate::scheduler::jobs::eta::{Interval, nine_of_ten};
use crate::scheduler::packing::replay::Draws;
use crate::workload::WorkloadEntry;

/// How far ahead, seconds.
const HORIZON_S: u64 = 90 * 24 * 60 * 60;
/// Futures that are looked at where run times are not certain.
const FUTURES: usize = 60;
/// With fewer no interval is told.
const FUTURES_MIN: usize = 20;
/// Moments that are lived through in one future at most.
const STEPS_MAX: usize = 4_000;
/// Moments of all futures, each times the queue that it looks at.
const LOOKS_MAX: usize = 500_000;
/// What a moment costs besides the queue.
const LOOKS_PER_STEP: usize = 50;
/// So many ended workloads are looked at, newest first.
const ENDED_MAX: usize = 10_000;
/// So many of one kind are remembered.
const ALIKE_MAX: usize = 100;
/// Fewer tell nothing.
const ALIKE_MIN: usize = 8;
/// Holders without a known end that are named.
const UNKNOWN_MAX: usize = 5;

/// Whom a workload resembles.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Work of an owner who says a limit: which part of it was used, per mille.
    Limited(String),
    /// The same work of an owner who says none: how long it ran, seconds.
    Same(String, String),
}

fn kind(w: &WorkloadEntry) -> Kind {
    match w.spec.spec().max_duration_s {
        Some(_) => Kind::Limited(w.submitted_by.clone()),
        None => Kind::Same(w.submitted_by.clone(), super::what(w.spec.spec())),
    }
}

/// What ended tells of what has not.
#[derive(Debug, Default)]
struct Learned {
    known: BTreeMap<Kind, Vec<u64>>,
}

impl Learned {
    /// From the newest that ended by themselves or by their limit, of the kinds that are asked for.
    fn of(cluster: &Cluster, open: &[Arc<WorkloadEntry>]) -> Self {
        let mut known: BTreeMap<Kind, Vec<u64>> = open.iter().map(|w| (kind(w), Vec::new())).collect();
        for w in cluster.workloads.ended_newest_first().take(ENDED_MAX) {
            let by_itself = w.state == WorkloadState::Completed || w.reason == WorkloadReason::MaxDuration;
            let Some(samples) = known.get_mut(&kind(w)).filter(|samples| by_itself && samples.len() < ALIKE_MAX) else {
                continue;
            };
            let ran = w.latest().first().and_then(|a| Some(a.ended_at?.ms_since(a.started_at?)));
            let Some(ran_ms) = ran.and_then(|ms| u64::try_from(ms).ok()) else {
                continue;
            };
            match w.spec.spec().max_duration_s {
                Some(limit_s) => samples.extend(ran_ms.checked_div(limit_s).map(|permille| permille.min(1_000))),
                None => samples.push(ran_ms.div_ceil(1_000)),
            }
        }
        known.retain(|_, samples| samples.len() >= ALIKE_MIN);
        for samples in known.values_mut() {
            samples.sort_unstable();
        }
        Self { known }
    }

    /// All that resembles it ran equally long, or nothing is known but its limit.
    fn is_certain(&self, w: &WorkloadEntry) -> bool {
        self.known.get(&kind(w)).is_none_or(|samples| samples.first() == samples.last())
    }

    /// How long it may run in all, of those times beyond what it has run already, shortest first.
    fn run_times(&self, w: &WorkloadEntry, has_run_s: u64) -> Vec<u64> {
        let samples = self.known.get(&kind(w)).into_iter().flatten();
        let in_all = samples.map(|sample| match w.spec.spec().max_duration_s {
            Some(limit_s) => limit_s.saturating_mul(*sample).div_ceil(1_000).max(1),
            None => (*sample).max(1),
        });
        in_all.filter(|seconds| *seconds > has_run_s).collect()
    }
}

/// One that has not ended, and how long it may run.
struct Open {
    id: WorkloadId,
    limit_s: Option<u64>,
    /// None: not known beyond its limit.
    may_run_s: Vec<u64>,
    /// All that resembles it ran equally long, also what it has outlived.
    is_certain: bool,
}

impl Open {
    /// What ends it after so long; at the limit it is ended.
    fn runs(&self, seconds: u64) -> Runs {
        if self.limit_s.is_some_and(|limit_s| seconds >= limit_s) { Runs::UpTo(seconds) } else { Runs::For(seconds) }
    }
}

/// When a waiting workload will start, and whom it takes to stay held: who comes before it by priority and age (between
/// tenants whose turn it is can be another's). `blockers` are those that hold what it needs.
pub(super) fn forecast(cluster: &Cluster, w: &WorkloadEntry, blockers: &[Blocker], now: Timestamp) -> StartForecast {
    let mut told = as_it_is(cluster, w, blockers, now);
    let before = cluster.workloads.queue().map_while(|id| cluster.workloads.get(id).filter(|other| other.outranks(w)));
    let n_held = before.filter(|other| !other.gates.is_empty()).count();
    if n_held > 0 && (told.from_s.is_some() || told.likely_s.is_some()) {
        let who = if n_held == 1 {
            "one that comes before it stays".to_owned()
        } else {
            format!("{n_held} that come before it stay")
        };
        told.summary = format!("{}, as long as {who} held behind gates", told.summary);
    }
    told
}

/// The same, with all gates as they are.
fn as_it_is(cluster: &Cluster, w: &WorkloadEntry, blockers: &[Blocker], now: Timestamp) -> StartForecast {
    if !w.gates.is_empty() {
        let summary = format!("When it starts cannot be told: nobody knows when {} opened", opens(&w.gates));
        return StartForecast {
            summary,
            from_s: None,
            likely_s: None,
            to_s: None,
            futures: 0,
            unknown_ends: Vec::new(),
        };
    }
    let open_now = not_ended(cluster);
    let learned = Learned::of(cluster, &open_now);
    let has_run_s =
        |w: &WorkloadEntry| w.started_at().map_or(0, |at| u64::try_from(now.ms_since(at)).unwrap_or(0) / 1_000);
    let open = |w: &Arc<WorkloadEntry>| Open {
        id: w.workload_id,
        limit_s: w.spec.spec().max_duration_s,
        may_run_s: learned.run_times(w, has_run_s(w)),
        is_certain: learned.is_certain(w),
    };
    let all: Vec<Open> = open_now.iter().map(open).collect();
    let future = |pick: &mut dyn FnMut(&[u64]) -> usize| {
        let told = all.iter().filter(|open| !open.may_run_s.is_empty());
        let drawn = told.map(|open| {
            let seconds = open.may_run_s[pick(&open.may_run_s)];
            (open.id, open.runs(seconds))
        });
        drawn.collect::<BTreeMap<WorkloadId, Runs>>()
    };
    let per_step = LOOKS_PER_STEP + cluster.workloads.queue_len();
    let steps_all = LOOKS_MAX / per_step;
    let ahead = |runs, steps_max: usize| run_ahead(cluster, now, runs, w.workload_id, (HORIZON_S, steps_max));
    let in_s = |at: Timestamp| u64::try_from(at.ms_since(now)).unwrap_or(0).div_ceil(1_000);

    let first = ahead(future(&mut |times| times.len() / 2), STEPS_MAX.min(steps_all));
    let certain = all.iter().all(|open| open.is_certain);
    let n_futures = (steps_all / first.steps.max(1)).min(FUTURES);
    let Some(first_at) = first.starts_at else {
        return no_time(cluster, blockers, &all, first.steps >= STEPS_MAX.min(steps_all));
    };
    if certain || n_futures < FUTURES_MIN {
        let likely_s = in_s(first_at);
        // Of one future among many nothing is known but itself.
        let bound = if certain { likely_s } else { u64::MAX };
        return told(Interval { from_s: bound, likely_s, to_s: bound }, 1, certain);
    }
    let mut draws = Draws::new(w.order);
    let starts: Vec<Option<u64>> = (0..n_futures)
        .map(|_| {
            let runs = future(&mut |times| draws.below(times.len()));
            ahead(runs, STEPS_MAX.min(2 * steps_all / n_futures)).starts_at.map(in_s)
        })
        .collect();
    // One that does not start is later than any other.
    let starts = starts.into_iter().map(|start| start.unwrap_or(u64::MAX)).collect();
    let interval = nine_of_ten(starts).unwrap_or(Interval { from_s: 0, likely_s: 0, to_s: u64::MAX });
    told(interval, u32::try_from(n_futures).unwrap_or(u32::MAX), true)
}

fn told(interval: Interval, futures: u32, certain: bool) -> StartForecast {
    let Interval { from_s, likely_s, to_s } = interval;
    let known = |seconds: u64| (seconds < u64::MAX).then_some(seconds);
    let summary = match (futures, known(to_s)) {
        (1, _) if likely_s == 0 => "It starts at the next look at the queue".to_owned(),
        (1, _) if certain => format!("It starts in {}, if what runs uses its time", words(likely_s)),
        (1, _) => format!("It starts in about {}; the queue is too long to tell how sure that is", words(likely_s)),
        (_, Some(to_s)) => format!(
            "It starts in about {}, nine times of ten between {} and {}",
            words(likely_s),
            words(from_s),
            words(to_s)
        ),
        (_, None) => format!("It starts in {} or later; how late cannot be told", words(from_s)),
    };
    StartForecast {
        summary,
        from_s: known(from_s),
        likely_s: known(likely_s),
        to_s: known(to_s),
        futures,
        unknown_ends: Vec::new(),
    }
}

/// Why no time can be told.
fn no_time(cluster: &Cluster, blockers: &[Blocker], all: &[Open], too_far: bool) -> StartForecast {
    let tells = |open: &Open| open.limit_s.is_some() || !open.may_run_s.is_empty();
    let is_unknown = |id: &WorkloadId| !all.iter().any(|open| open.id == *id && tells(open));
    let mut unknown_ends: Vec<Blocker> = blockers.iter().filter(|b| is_unknown(&b.workload_id)).cloned().collect();
    unknown_ends.truncate(UNKNOWN_MAX);
    let summary = match unknown_ends.first() {
        _ if too_far => "When it starts cannot be told: too much happens before".to_owned(),
        Some(first) => {
            let others = match unknown_ends.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            format!(
                "When it starts cannot be told: {} of {} on {}{others} holds what it needs and has no known end (no max_duration_s, and too little like it has ended)",
                first.name, first.owner, first.node
            )
        }
        None if cluster.workloads.queue_len() > 1 => {
            "When it starts cannot be told: it does not start with what runs now and what waits before it".to_owned()
        }
        None => "When it starts cannot be told: nothing that is known to end makes room for it".to_owned(),
    };
    StartForecast { summary, from_s: None, likely_s: None, to_s: None, futures: 1, unknown_ends }
}

/// "a, b are"
fn opens(gates: &[String]) -> String {
    format!("{} {}", gates.join(", "), if gates.len() == 1 { "is" } else { "are" })
}

/// A time in words that people read at a glance.
fn words(seconds: u64) -> String {
    match seconds {
        0..=120 => format!("{seconds} s"),
        121..=7_200 => format!("{} min", seconds.div_ceil(60)),
        7_201..=172_800 => format!("{} h", seconds.div_ceil(3_600)),
        _ => format!("{} days", seconds.div_ceil(86_400)),
    }
}
