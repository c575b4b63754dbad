//! The nearest known name to one that is not known.

use claw_proto::spelling::slips;

/// The candidate with the smallest edit distance to `wanted`, if it is near
/// enough (a third of the longer name's length) to be worth offering.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let wanted = wanted.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (slips(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(d, candidate)| *d * 3 <= wanted.chars().count().max(candidate.chars().count()))
        .min()
        .map(|(_, candidate)| candidate.to_owned())
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
