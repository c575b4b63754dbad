//! Signs of a job over its ranks: hangs, stragglers, waiting for data.

use std::collections::BTreeMap;

use super::robust::{deviation, median};
use super::{Finding, Sample, Series, Sign, Thresholds};

/// All ranks spin at full use and low power while no step ends, to the end of the series.
pub(super) fn hang(series: &[Series], t: &Thresholds) -> Option<Finding> {
    let ranks: Vec<&Series> = series.iter().filter(|one| one.rank.is_some()).collect();
    let first = ranks.first()?;
    let since = ranks
        .iter()
        .map(|one| stuck_since(one, t))
        .try_fold(f64::NEG_INFINITY, |latest, since| since.map(|since| latest.max(since)))?;
    let until = first.samples.last()?.at_s;
    (until - since >= t.hang.for_s).then(|| {
        let words = format!("{} ranks at full use and low power, no step for {:.0} s", ranks.len(), until - since);
        Finding::of(first, Sign::CollectiveHang, (since, until), words)
    })
}

/// Since when one rank has been stuck; none if it is not.
fn stuck_since(series: &Series, t: &Thresholds) -> Option<f64> {
    let last = series.samples.last()?;
    let steps = last.steps?;
    let tail: Vec<&Sample> = series.samples.iter().rev().take_while(|sample| sample.steps == Some(steps)).collect();
    let busy = tail.iter().filter(|sample| sample.utilization_percent >= t.hang.utilization_percent).count();
    let head = series.samples.get(..series.samples.len() - tail.len())?;
    let before = median(head.iter().filter(|s| s.utilization_percent > 50.0).filter_map(|s| s.power_watts));
    let now = median(tail.iter().filter_map(|sample| sample.power_watts))?;
    let low = before.is_none_or(|before| now < before * t.hang.power_share);
    let mostly = busy * 10 >= tail.len() * 9;
    (mostly && low && tail.len() > 1).then(|| tail.last().map_or(last.at_s, |sample| sample.at_s))
}

/// The rank whose own time is above the others', persistently.
pub(super) fn straggler(series: &[Series], t: &Thresholds) -> Option<Finding> {
    let ranks: Vec<&Series> = series.iter().filter(|one| one.rank.is_some()).collect();
    if ranks.len() < 3 {
        return None;
    }
    let mut by_time: BTreeMap<i64, Vec<(usize, f64)>> = BTreeMap::new();
    for (index, one) in ranks.iter().enumerate() {
        for sample in &one.samples {
            if let Some(own) = sample.step_own_s {
                #[expect(clippy::cast_possible_truncation, reason = "whole seconds of a clock")]
                let at = sample.at_s.round() as i64;
                // A rank that waits for its data is starved, not slow.
                by_time.entry(at).or_default().push((index, own - sample.step_data_s.unwrap_or(0.0)));
            }
        }
    }
    let mut slow = vec![0_usize; ranks.len()];
    let mut excess = vec![Vec::new(); ranks.len()];
    let mut compared = 0;
    for times in by_time.values().filter(|times| times.len() >= 3) {
        compared += 1;
        let values: Vec<f64> = times.iter().map(|(_, own)| *own).collect();
        let Some(middle) = median(values.iter().copied()) else { continue };
        let bound = middle + (t.straggler.deviations * deviation(&values)).max(t.straggler.share * middle);
        for (index, own) in times.iter().filter(|(_, own)| *own > bound) {
            if let (Some(n), Some(over)) = (slow.get_mut(*index), excess.get_mut(*index)) {
                *n += 1;
                over.push(own / middle);
            }
        }
    }
    let (index, n) = slow.iter().enumerate().max_by_key(|(_, n)| **n)?;
    let persistent = compared >= 5 && *n as f64 >= f64::from(compared) * t.straggler.steps_share;
    let one = ranks.get(index).filter(|_| persistent)?;
    let times = median(excess.get(index)?.iter().copied()).unwrap_or(1.0);
    let words = format!("{:.0} % slower than the median rank in {n} of {compared} samples", (times - 1.0) * 100.0);
    let span = (one.samples.first()?.at_s, one.samples.last()?.at_s);
    Some(Finding::of(one, Sign::Straggler, span, words))
}

/// A large part of most steps is spent waiting for data.
pub(super) fn starvation(series: &Series, t: &Thresholds) -> Option<Finding> {
    let told: Vec<(f64, f64)> = series
        .samples
        .iter()
        .filter_map(|sample| {
            let (own, data) = (sample.step_own_s?, sample.step_data_s?);
            (own > 0.0).then_some((sample.at_s, data / own))
        })
        .collect();
    let late = told.get(told.len() / 2..)?;
    let starved = late.iter().filter(|(_, share)| *share >= t.starvation.wait_share).count();
    let (first, last) = (late.first()?, late.last()?);
    (late.len() >= 5 && starved as f64 >= late.len() as f64 * t.starvation.samples_share).then(|| {
        let share = median(late.iter().map(|(_, share)| *share)).unwrap_or(0.0);
        let words = format!("{:.0} % of a step waits for data", share * 100.0);
        Finding::of(series, Sign::DataStarvation, (first.0, last.0), words)
    })
}
