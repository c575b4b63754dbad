//! Signs of a GPU's memory: errors, leaks, neighbors.

use super::robust::{median, rise, slope};
use super::{Finding, Sample, Series, Sign, Thresholds};

/// Corrected errors an hour.
fn corrected_per_hour(series: &Series) -> f64 {
    let known: Vec<&Sample> = series.samples.iter().filter(|sample| sample.ecc_corrected.is_some()).collect();
    let (Some(first), Some(last)) = (known.first(), known.last()) else { return 0.0 };
    let grown = last.ecc_corrected.unwrap_or(0).saturating_sub(first.ecc_corrected.unwrap_or(0));
    let hours = ((last.at_s - first.at_s) / 3_600.0).max(1.0 / 60.0);
    grown as f64 / hours
}

pub(super) fn ecc(series: &Series, peers: &[&Series], t: &Thresholds) -> Option<Finding> {
    let ends = (series.samples.first()?.at_s, series.samples.last()?.at_s);
    if series.samples.last()?.remap_pending {
        let words = "rows wait for their replacement at the next reset".to_owned();
        return Some(Finding::of(series, Sign::EccSlope, ends, words));
    }
    let own = corrected_per_hour(series);
    let usual = median(peers.iter().map(|peer| corrected_per_hour(peer))).unwrap_or(0.0);
    (own >= t.ecc.corrected_per_hour && own > usual * t.ecc.peers_factor).then(|| {
        let words = format!("{own:.0} corrected errors an hour, peers' median {usual:.0}");
        Finding::of(series, Sign::EccSlope, ends, words)
    })
}

/// Memory rises steadily over the last half and will be used up soon.
pub(super) fn leak(series: &Series, t: &Thresholds) -> Option<Finding> {
    let late = series.samples.get(series.samples.len() / 2..)?;
    let (first, last) = (late.first()?, late.last()?);
    let points: Vec<(f64, f64)> = late.iter().map(|sample| (sample.at_s, sample.memory_used_mib)).collect();
    let values: Vec<f64> = points.iter().map(|(_, mib)| *mib).collect();
    let per_second = slope(&points);
    let grown = per_second * (last.at_s - first.at_s);
    let left_s = (series.memory_total_mib - last.memory_used_mib).max(0.0) / per_second.max(1e-12);
    let steady = rise(&values) >= t.leak.correlation;
    let much = grown >= series.memory_total_mib * t.leak.growth_share;
    (steady && much && left_s <= t.leak.hours_left * 3_600.0).then(|| {
        let words = format!("grows by {:.0} MiB an hour; full in {:.1} h", per_second * 3_600.0, left_s / 3_600.0);
        Finding::of(series, Sign::MemoryLeak, (first.at_s, last.at_s), words)
    })
}

/// Others took memory until none was free, and then the job's own process was gone.
pub(super) fn neighbor(series: &Series, t: &Thresholds) -> Option<Finding> {
    let total = series.memory_total_mib;
    let others = |sample: &Sample| sample.own_memory_mib.map(|own| (sample.memory_used_mib - own).max(0.0));
    let mut least = f64::INFINITY;
    let mut full: Option<(f64, f64)> = None;
    for sample in &series.samples {
        let Some(foreign) = others(sample) else { continue };
        least = least.min(foreign);
        let own = sample.own_memory_mib.unwrap_or(0.0);
        let taken = foreign - least;
        if own > total * 0.01 && total - sample.memory_used_mib <= total * t.neighbor.free_share {
            full = full.or(Some((sample.at_s, taken)));
        }
        if let Some((at, took)) = full
            && own <= total * 0.01
            && took.max(taken) >= total * t.neighbor.others_share
        {
            let words =
                format!("other processes took {took:.0} MiB more, nothing was free, then the job's memory was gone");
            return Some(Finding::of(series, Sign::NeighborOutOfMemory, (at, sample.at_s), words));
        }
    }
    None
}
