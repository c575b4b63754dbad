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

/// Levenshtein distance, over at most 64 characters of each.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
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
    }
}
