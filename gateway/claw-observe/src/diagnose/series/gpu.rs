//! Signs of one GPU against its own past and its peers: slowdowns, links, clocks, idleness.

use super::robust::{longest_run, median};
use super::{Finding, Sample, Series, Sign, Thresholds, bits};

fn span(samples: &[Sample], first: usize, last: usize) -> (f64, f64) {
    let at = |index: usize| samples.get(index).map_or(0.0, |sample| sample.at_s);
    (at(first), at(last))
}

/// The window with most samples that fit: when, and how many.
fn densest(samples: &[Sample], window_s: f64, fits: impl Fn(&Sample) -> bool) -> Option<(f64, f64, usize)> {
    let hits: Vec<f64> = samples.iter().filter(|sample| fits(sample)).map(|sample| sample.at_s).collect();
    let mut best: Option<(f64, f64, usize)> = None;
    let mut first = 0;
    for (last, at) in hits.iter().enumerate() {
        while hits.get(first).is_some_and(|begin| at - begin >= window_s) {
            first += 1;
        }
        let n = last + 1 - first;
        if best.is_none_or(|(_, _, most)| n > most) {
            best = Some((hits.get(first).copied().unwrap_or(*at), *at, n));
        }
    }
    best
}

/// Seconds between two samples, as they mostly are.
fn period(samples: &[Sample]) -> f64 {
    let gaps = samples.iter().zip(samples.iter().skip(1)).map(|(a, b)| b.at_s - a.at_s);
    median(gaps).unwrap_or(60.0).max(0.001)
}

pub(super) fn brake(series: &Series, t: &Thresholds) -> Option<Finding> {
    let (first, last, n) = longest_run(&series.samples, |sample| sample.reasons & bits::BRAKE != 0)?;
    (n >= t.brake.polls).then(|| {
        let words = format!("{n} samples in a row with reason 0x80");
        Finding::of(series, Sign::PowerBrake, span(&series.samples, first, last), words)
    })
}

/// Enough samples with a reason in one window. Faster sampling does not make more events.
fn throttled(series: &Series, t: &Thresholds, fits: impl Fn(&Sample) -> bool) -> Option<(f64, f64, usize)> {
    let (from, to, n) = densest(&series.samples, t.throttle.window_s, fits)?;
    let events = n as f64 * (period(&series.samples) / 60.0).min(1.0);
    (events >= t.throttle.events_per_minute * t.throttle.window_s / 60.0).then_some((from, to, n))
}

pub(super) fn thermal(series: &Series, t: &Thresholds) -> Option<Finding> {
    let hot = |sample: &Sample| {
        let heat = sample.reasons & (bits::SW_THERMAL | bits::HW_THERMAL) != 0;
        heat || (sample.reasons & bits::SLOWDOWN != 0 && sample.reasons & bits::BRAKE == 0)
    };
    let (from, to, n) = throttled(series, t, hot)?;
    let inside = series.samples.iter().filter(|sample| (from..=to).contains(&sample.at_s));
    let hottest = inside.filter_map(|sample| sample.temperature_celsius).max_by(f64::total_cmp);
    let heat = hottest.map(|degrees| format!(", up to {degrees:.0} °C")).unwrap_or_default();
    let words = format!("{n} samples with a thermal reason within {:.0} s{heat}", t.throttle.window_s);
    Some(Finding::of(series, Sign::Thermal, (from, to), words))
}

pub(super) fn power_cap(series: &Series, t: &Thresholds) -> Option<Finding> {
    let (from, to, n) = throttled(series, t, |sample| sample.reasons & bits::POWER_CAP != 0)?;
    Some(Finding::of(series, Sign::PowerCap, (from, to), format!("{n} samples at the power limit: normal")))
}

/// Under load the link is slower or narrower than the same GPU had it before.
pub(super) fn downtrained(series: &Series, t: &Thresholds) -> Option<Finding> {
    let (mut best_generation, mut best_width) = (0, 0);
    let mut below = Vec::new();
    for sample in &series.samples {
        let loaded = sample.utilization_percent >= t.load.utilization_percent;
        let generation = sample.pcie_generation.unwrap_or(best_generation);
        let width = sample.pcie_width.unwrap_or(best_width);
        if loaded {
            best_generation = best_generation.max(generation);
            best_width = best_width.max(width);
        }
        // The width holds at rest, too; the generation only under load.
        below.push((loaded, width < best_width || (loaded && generation < best_generation)));
    }
    // Samples at rest neither confirm nor end a run.
    let told: Vec<(usize, bool)> =
        below.iter().enumerate().filter(|(_, (loaded, low))| *loaded || *low).map(|(i, (_, low))| (i, *low)).collect();
    let (first, last, n) = longest_run(&told, |(_, low)| *low)?;
    let at = |place: usize| told.get(place).map_or(0, |(index, _)| *index);
    let now = series.samples.get(at(last))?;
    (n >= t.downtrain.samples).then(|| {
        let (generation, width) = (now.pcie_generation.unwrap_or(0), now.pcie_width.unwrap_or(0));
        let words = format!("generation {generation} x{width}, was {best_generation} x{best_width}, in {n} samples");
        Finding::of(series, Sign::PcieDowntrained, span(&series.samples, at(first), at(last)), words)
    })
}

/// Times at which a counter rose, and by how much in all; a counter that was reset begins anew.
fn rises(samples: &[Sample], counter: Counter) -> (Vec<f64>, u64) {
    let known: Vec<(f64, u64)> = samples.iter().filter_map(|s| counter(s).map(|n| (s.at_s, n))).collect();
    let steps = known.iter().zip(known.iter().skip(1)).filter(|(a, b)| b.1 > a.1);
    let all: Vec<(f64, u64)> = steps.map(|(a, b)| (b.0, b.1 - a.1)).collect();
    (all.iter().map(|(at, _)| *at).collect(), all.iter().map(|(_, n)| n).sum())
}

/// What a counter of a sample stands at.
type Counter = fn(&Sample) -> Option<u64>;

pub(super) fn flaps(series: &Series, peers: &[&Series], t: &Thresholds) -> Vec<Finding> {
    let counters: [(Sign, Counter, &str); 2] = [
        (Sign::NvlinkFlap, |sample| sample.nvlink_errors, "NVLink errors"),
        (Sign::PortFlap, |sample| sample.port_downs, "port downs"),
    ];
    let mut found = Vec::new();
    for (sign, counter, name) in counters {
        let (times, total) = rises(&series.samples, counter);
        let window = times.windows(t.link.intervals).find(|w| match (w.first(), w.last()) {
            (Some(first), Some(last)) => last - first <= t.link.window_s,
            _ => false,
        });
        let usual = median(peers.iter().map(|peer| rises(&peer.samples, counter).1 as f64)).unwrap_or(0.0);
        if let Some([first, .., last]) = window
            && total as f64 > usual * t.link.peers_factor
        {
            let words = format!("{total} {name} in {} intervals; peers' median {usual:.0}", times.len());
            found.push(Finding::of(series, sign, (*first, *last), words));
        }
    }
    found
}

/// Loaded, without a reason bit, and well below the peers' clock.
pub(super) fn clock_lock(series: &Series, peers: &[&Series], t: &Thresholds) -> Option<Finding> {
    let loaded = |sample: &&Sample| sample.utilization_percent >= t.load.utilization_percent;
    let clocks = peers.iter().flat_map(|peer| peer.samples.iter().filter(loaded).filter_map(|s| s.clock_mhz));
    let usual = median(clocks)?;
    let busy: Vec<&Sample> = series.samples.iter().filter(loaded).collect();
    let slowed = bits::POWER_CAP | bits::SLOWDOWN | bits::SW_THERMAL | bits::HW_THERMAL | bits::BRAKE;
    let low = |s: &&Sample| s.reasons & slowed == 0 && s.clock_mhz.is_some_and(|mhz| mhz < usual * t.clock.share);
    let (first, last, n) = longest_run(&busy, low)?;
    let at = |index: usize| busy.get(index).map_or(0.0, |sample| sample.at_s);
    (n >= t.clock.samples).then(|| {
        let now = busy.get(last).and_then(|sample| sample.clock_mhz).unwrap_or(0.0);
        let words = format!("{now:.0} MHz under load in {n} samples, peers {usual:.0} MHz, no reason bit");
        Finding::of(series, Sign::ClockLock, (at(first), at(last)), words)
    })
}

/// Memory is held and nothing runs, to the end of the series.
pub(super) fn idle(series: &Series, t: &Thresholds) -> Option<Finding> {
    let rests = |sample: &Sample| {
        sample.utilization_percent <= t.idle.utilization_percent
            && sample.memory_used_mib >= series.memory_total_mib * t.idle.memory_share
    };
    let tail = series.samples.iter().rev().take_while(|sample| rests(sample)).count();
    let first = series.samples.len() - tail;
    let (from, to) = span(&series.samples, first, series.samples.len().saturating_sub(1));
    (tail > 1 && to - from >= t.idle.for_s).then(|| {
        let words = format!("nothing ran for {:.0} min while memory was held", (to - from) / 60.0);
        Finding::of(series, Sign::IdleGpu, (from, to), words)
    })
}
