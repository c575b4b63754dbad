//! Statistics that a few wild values do not move.

/// The middle value; none of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2).copied().unwrap_or(upper);
    Some(f64::midpoint(lower, upper))
}

/// The median distance from the median, scaled to a standard deviation.
pub(super) fn deviation(values: &[f64]) -> f64 {
    let Some(middle) = median(values.iter().copied()) else { return 0.0 };
    1.482_6 * median(values.iter().map(|value| (value - middle).abs())).unwrap_or(0.0)
}

/// The median slope over pairs that lie half the series apart; for any number of points.
pub(super) fn slope(points: &[(f64, f64)]) -> f64 {
    let half = points.len() / 2;
    let pairs = points.iter().zip(points.iter().skip(half));
    median(pairs.filter(|(a, b)| b.0 > a.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0))).unwrap_or(0.0)
}

/// How steadily values rise: the share of ordered neighbors at several distances, from -1 to 1.
pub(super) fn rise(values: &[f64]) -> f64 {
    let (mut up, mut down) = (0_u32, 0_u32);
    for distance in [values.len() / 8, values.len() / 4, values.len() / 2] {
        for (a, b) in values.iter().zip(values.iter().skip(distance.max(1))) {
            up += u32::from(b > a);
            down += u32::from(b < a);
        }
    }
    let all = f64::from(up + down);
    if all == 0.0 { 0.0 } else { (f64::from(up) - f64::from(down)) / all }
}

/// The longest run of neighbors that all fit: first and last index, and how long.
pub(super) fn longest_run<T>(items: &[T], fits: impl Fn(&T) -> bool) -> Option<(usize, usize, usize)> {
    let mut best: Option<(usize, usize, usize)> = None;
    let mut begun = None;
    for (index, item) in items.iter().enumerate() {
        if !fits(item) {
            begun = None;
            continue;
        }
        let first = *begun.get_or_insert(index);
        let length = index - first + 1;
        if best.is_none_or(|(_, _, longest)| length > longest) {
            best = Some((first, index, length));
        }
    }
    best
}
