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

/// AMD's GPUs by PCI device id, and revision where that decides (libdrm's
/// `amdgpu.ids`). What a board calls itself is often the name of its form only.
const AMD: &[(u16, Option<u8>, &str)] = &[
    (0x738c, None, "MI100"),
    (0x738e, None, "MI100"),
    (0x7408, None, "MI250X"),
    (0x740f, None, "MI210"),
    (0x74a0, None, "MI300A"),
    (0x74a1, None, "MI300X"),
    (0x74a2, None, "MI308X"),
    (0x74a5, None, "MI325X"),
    (0x74a8, None, "MI308X HF"),
    (0x74a9, None, "MI300X HF"),
    (0x74b5, None, "MI300X"),
    (0x74bd, None, "MI300X HF"),
    (0x75a0, None, "MI350X"),
    (0x75a3, None, "MI355X"),
    (0x75b0, None, "MI350X"),
    (0x75b3, None, "MI355X"),
    (0x7448, None, "W7900"),
    (0x7449, None, "W7800 48GB"),
    (0x744a, None, "W7900"),
    (0x744b, None, "W7900D"),
    (0x745e, None, "W7800"),
    (0x744c, Some(0xc8), "RX 7900 XTX"),
    (0x744c, Some(0xcc), "RX 7900 XT"),
    (0x744c, Some(0xce), "RX 7900 GRE"),
    (0x744c, Some(0xcf), "RX 7900M"),
    (0x7551, Some(0xc0), "R9700"),
];

/// The short name of a GPU of AMD: by its number, else by the first of the names
/// that others have for it, else its number itself.
pub fn amd(device_id: u16, revision: u8, names: &[Option<&str>]) -> String {
    let known = AMD.iter().find(|(id, of, _)| *id == device_id && of.is_none_or(|of| of == revision));
    if let Some((_, _, name)) = known {
        return (*name).to_owned();
    }
    let named = names.iter().flatten().map(|name| name.trim()).find(|name| !name.is_empty());
    match named {
        // "Radeon Pro" is one word for what "Radeon" is.
        Some(name) => short(&name.replace("Radeon Pro ", "Radeon ").replace("Radeon PRO ", "Radeon ")),
        None => format!("AMD 0x{device_id:04x}"),
    }
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

    #[test]
    fn amd_gpus_are_named_by_number_or_honestly_not_at_all() {
        for (id, revision, names, expected) in [
            (0x74a1, 0, [None, Some("AMD Instinct MI300X OAM")], "MI300X"),
            (0x7408, 0, [None, Some("AMD INSTINCT MI200 (MCM) OAM LC MBA HPE C2")], "MI250X"),
            (0x740c, 1, [None, Some("AMD INSTINCT MI250 (MCM) OAM AC MBA")], "MI250"),
            (0x744c, 0xc8, [None, None], "RX 7900 XTX"),
            (0x744c, 0x01, [Some("AMD Radeon RX 7900 XT/7900 XTX"), None], "RX 7900 XT 7900 XTX"),
            (0x7470, 0, [Some("AMD Radeon PRO W7700"), None], "W7700"),
            (0x1586, 0, [None, Some("  ")], "AMD 0x1586"),
        ] {
            assert_eq!(amd(id, revision, &names), expected, "{id:#x} {names:?}");
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
