//! Short names of GPU models from what drivers call them.

use claw_proto::limits::NAME_CHARS_MAX;
use claw_proto::validation::canonical_gpu_model;

/// Words of a driver's name that are no part of a model.
const NOISE: &[&str] = &["nvidia", "amd", "apple", "intel", "geforce", "tesla", "quadro", "instinct", "radeon", "(r)"];
/// Words that make another model of the one before them.
const SUFFIXES: &[&str] = &["ti", "super", "laptop", "max-q", "d", "gre"];

/// The short name of a model: `NVIDIA H100 80GB HBM3` is H100, `Tesla V100-SXM2-16GB`
/// is V100, `NVIDIA GeForce RTX 4090` is RTX4090. A model that the system does not
/// know keeps its own words, without vendor, board form and memory.
pub fn short(name: &str) -> String {
    let words: Vec<&str> = name.split([' ', '-', '_', '/']).filter(|word| !word.is_empty()).collect();
    for (at, word) in words.iter().enumerate() {
        for (joined, next) in
            [(words.get(at + 1).map(|second| format!("{word}{second}")), at + 2), (Some((*word).to_owned()), at + 1)]
        {
            let another = words.get(next).is_some_and(|word| SUFFIXES.contains(&word.to_lowercase().as_str()));
            if let Some(known) = joined.as_deref().and_then(canonical_gpu_model).filter(|_| !another) {
                return known.to_owned();
            }
        }
    }
    let is_model = |word: &&&str| {
        let lower = word.to_lowercase();
        let memory = lower.strip_suffix("gb").is_some_and(|digits| digits.parse::<u32>().is_ok());
        let form = ["sxm", "pcie", "hbm", "oam"].iter().any(|form| lower.starts_with(form)) || lower == "nvl";
        !memory && !form && !NOISE.contains(&lower.as_str())
    };
    let rest = words.iter().filter(is_model).copied().collect::<Vec<_>>().join(" ");
    let rest = if rest.is_empty() { name.trim() } else { &rest };
    let cut: String = rest.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    if cut.is_empty() { "unknown".to_owned() } else { cut }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_drivers_become_short() {
        for (name, expected) in [
            ("NVIDIA H100 80GB HBM3", "H100"),
            ("NVIDIA H100 PCIe", "H100"),
            ("NVIDIA A100-SXM4-80GB", "A100"),
            ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "A100"),
            ("Tesla V100-SXM2-16GB", "V100"),
            ("Tesla T4", "T4"),
            ("NVIDIA L40S", "L40S"),
            ("NVIDIA L40", "L40"),
            ("NVIDIA GeForce RTX 4090", "RTX4090"),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop GPU"),
            ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090 Ti"),
            ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada Generation"),
            ("NVIDIA GH200 480GB", "GH200"),
            ("AMD Instinct MI300X OAM", "MI300X"),
            ("", "unknown"),
        ] {
            assert_eq!(short(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_short_name_is_never_empty_or_long(name in ".{0,200}") {
            let short = short(&name);
            prop_assert!(!short.is_empty() && short.chars().count() <= NAME_CHARS_MAX);
        }
    }
}
