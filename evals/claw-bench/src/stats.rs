//! Medians, percentiles, ratios and how sure they are.

/// Resamples of a bootstrap.
const RESAMPLES: usize = 10_000;

/// The value below which `share` (0 to 1) of the values lie; 0 of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = (share.clamp(0.0, 1.0) * last as f64).round();
    // In bounds: at most `last`, and never negative.
    let at = (0..last).find(|index| *index as f64 >= at).unwrap_or(last);
    sorted[at]
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// A ratio of medians with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Median of ours by median of theirs.
    pub at: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} [{:.2}, {:.2}]", self.at, self.low, self.high)
    }
}

/// `ours` by `theirs`: the ratio of the medians; the interval by resampling the samples of
/// both, seeded, so that the same samples give the same interval.
pub fn ratio(ours: &[f64], theirs: &[f64]) -> Ratio {
    let mut dice = Dice(0x00C1_A3BE_4C40);
    let mut ratios = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        ratios.push(median(&dice.resample(ours)) / median(&dice.resample(theirs)));
    }
    Ratio { at: median(ours) / median(theirs), low: quantile(&ratios, 0.025), high: quantile(&ratios, 0.975) }
}

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap_or(0)
    }

    fn resample(&mut self, values: &[f64]) -> Vec<f64> {
        (0..values.len()).map(|_| values[self.roll(values.len())]).collect()
    }
}

/// Minimum, median and maximum as text, with `digits` behind the point.
pub fn spread(values: &[f64], digits: usize) -> String {
    let (low, high) = (quantile(values, 0.0), quantile(values, 1.0));
    format!("{:.digits$} [{low:.digits$}, {high:.digits$}]", median(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_values() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[1.0, 2.0])), (2.0, 1.5));
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((quantile(&values, 0.0), quantile(&values, 0.99), quantile(&values, 1.0)), (1.0, 99.0, 100.0));
        assert_eq!((median(&[]), quantile(&[], 0.5)), (0.0, 0.0));
        assert_eq!((quantile(&[5.0], 0.99),), (5.0,));
    }

    #[test]
    fn an_interval_holds_its_ratio_and_is_narrow_where_samples_agree() {
        let ours = [200.0, 202.0, 198.0, 201.0, 199.0, 200.0];
        let theirs = [100.0, 101.0, 99.0, 100.0, 100.0, 102.0];
        let Ratio { at, low, high } = ratio(&ours, &theirs);
        assert_eq!((at,), (2.0,));
        assert!(low <= at && at <= high && high - low < 0.1, "{low} {high}");
        let wild = ratio(&[100.0, 300.0, 50.0, 400.0], &theirs);
        assert!(wild.high - wild.low > 1.0, "{wild}");
        assert_eq!(ratio(&ours, &theirs), Ratio { at, low, high }, "the same samples, the same interval");
    }
}
