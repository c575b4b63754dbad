//! The nearest known name to one that is not known.

/// The candidate with the smallest edit distance to `wanted`, if it is near
/// enough (a third of the longer name's length) to be worth offering.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let wanted = wanted.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(d, candidate)| *d * 3 <= wanted.chars().count().max(candidate.chars().count()))
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Edits between two texts, over at most 64 characters of each: a letter put in, left out,
/// changed, or swapped with its neighbor (the most common slip of a keyboard) is one edit.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut next = vec![i + 1];
        for j in 0..b.len() {
            let changed = row[j] + usize::from(a[i] != b[j]);
            let mut least = changed.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let names = ["gpu-07", "gpu-12", "storage"];
        assert_eq!(nearest("gpu-7", names).as_deref(), Some("gpu-07"));
        assert_eq!(nearest("Storag", names).as_deref(), Some("storage"));
        assert_eq!(nearest("banana", names), None);
        assert_eq!(nearest("cuont", ["count", "model"]).as_deref(), Some("count"), "two letters swapped are one slip");
    }
}
