//! What NVIDIA's GPUs can be cut into (MIG), and where the parts can stand.
//!
//! A GPU has eight memory slices; a part begins at one of them and takes some in a row. Source:
//! NVIDIA Multi-Instance GPU User Guide, "Supported MIG Profiles" of A100, H100, H200 and B200; the
//! places are those that `nvidia-smi mig -lgipp` lists. GPUs with other sizes of memory (A100 64 GB,
//! H100 94 and 96 GB) have parts of other names and stand in no table here.

/// Memory slices of a GPU.
const MEMORY_SLICES: u8 = 8;
/// MiB of a GiB.
const GIB: u64 = 1_024;

/// A part that a GPU can be cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigProfile {
    /// Its name, such as 3g.40gb.
    pub name: &'static str,
    /// Memory slices that it takes.
    pub memory_slices: u8,
    /// Memory slices that it can begin at.
    pub starts: &'static [u8],
}

/// What a GPU can be cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigGeometry {
    /// Model in short form, such as H100.
    pub model: &'static str,
    /// Memory as its maker tells it, GB.
    pub memory_gb: u32,
    /// Its parts, the smallest first.
    pub profiles: [MigProfile; 6],
}

/// Whether one more part has room beside those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigRoom {
    /// Wherever they stand.
    Sure,
    /// Only if they stand well: where they do is not known.
    Perhaps,
    /// Nowhere.
    No,
}

const fn geometry_of(model: &'static str, memory_gb: u32, names: [&'static str; 6]) -> MigGeometry {
    const fn part(name: &'static str, memory_slices: u8, starts: &'static [u8]) -> MigProfile {
        MigProfile { name, memory_slices, starts }
    }
    let [one, one_double, two, three, four, seven] = names;
    let profiles = [
        part(one, 1, &[0, 1, 2, 3, 4, 5, 6]),
        part(one_double, 2, &[0, 2, 4, 6]),
        part(two, 2, &[0, 2, 4]),
        part(three, 4, &[0, 4]),
        part(four, 4, &[0]),
        part(seven, 8, &[0]),
    ];
    MigGeometry { model, memory_gb, profiles }
}

/// All that is known.
pub const GEOMETRIES: [MigGeometry; 5] = [
    geometry_of("A100", 40, ["1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"]),
    geometry_of("A100", 80, ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"]),
    geometry_of("H100", 80, ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"]),
    geometry_of("H200", 141, ["1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"]),
    geometry_of("B200", 180, ["1g.23gb", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"]),
];

/// What a GPU of this model and memory can be cut into; nothing where no table tells. Drivers report a
/// little less than a whole number of GiB, and makers count in GB: within a twentieth it is the same.
pub fn geometry(model: &str, memory_mib: u64) -> Option<&'static MigGeometry> {
    let near = |gb: u32| {
        let (least, most) = (u64::from(gb) * GIB * 93 / 100, u64::from(gb) * GIB * 105 / 100);
        (least..=most).contains(&memory_mib)
    };
    GEOMETRIES.iter().find(|known| known.model.eq_ignore_ascii_case(model) && near(known.memory_gb))
}

/// Parts of the same GPUs that have as many memory slices or more, the smallest first: what does for
/// who asks for this one.
pub fn larger(name: &str) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = Vec::new();
    for known in &GEOMETRIES {
        let from = known.profiles.iter().position(|profile| profile.name == name);
        let behind = from.map_or(&[][..], |at| &known.profiles[at + 1..]);
        found.extend(behind.iter().map(|profile| profile.name));
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|other| seen.insert(*other));
    found
}

impl MigGeometry {
    /// The part of this name. An attribute such as `+me` makes it another part, of which no table tells.
    pub fn profile(&self, name: &str) -> Option<&MigProfile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// The names of all parts, in words.
    pub fn names(&self) -> String {
        self.profiles.map(|profile| profile.name).join(", ")
    }

    /// Whether one more `wanted` has room beside parts that stand nobody knows where; nothing if some
    /// part is in no table, or if those that are said to be there do not fit together.
    pub fn room(&self, present: &[&str], wanted: &str) -> Option<MigRoom> {
        let mut parts: Vec<&MigProfile> = present.iter().map(|name| self.profile(name)).collect::<Option<_>>()?;
        let wanted = self.profile(wanted)?;
        // Equal ones stand beside each other, so that their order is tried once.
        parts.sort_unstable_by_key(|part| (std::cmp::Reverse(part.memory_slices), part.name));
        let mut seen = (0_u32, 0_u32);
        stand(&parts, 0, 0, &mut |taken| {
            seen.0 += 1;
            seen.1 += u32::from(wanted.starts.iter().any(|start| wanted.slices_from(*start) & taken == 0));
        });
        match seen {
            (0, _) => None,
            (all, fits) if all == fits => Some(MigRoom::Sure),
            (_, 0) => Some(MigRoom::No),
            _ => Some(MigRoom::Perhaps),
        }
    }

    /// How many of one part fit beside each other on a GPU that is not cut.
    pub fn most_of(&self, name: &str) -> u32 {
        let Some(part) = self.profile(name) else { return 0 };
        let mut taken = 0_u8;
        let mut most = 0;
        for start in part.starts {
            if part.slices_from(*start) & taken == 0 {
                taken |= part.slices_from(*start);
                most += 1;
            }
        }
        most
    }
}

impl MigProfile {
    /// The memory slices that it takes from a start on, as bits.
    const fn slices_from(&self, start: u8) -> u8 {
        let ones = if self.memory_slices >= MEMORY_SLICES { u8::MAX } else { (1 << self.memory_slices) - 1 };
        ones << start
    }
}

/// Tells of each way in which these parts can stand which slices are taken. Equal parts stand in order:
/// `least` is the first start that the next may have.
fn stand(parts: &[&MigProfile], taken: u8, least: u8, tell: &mut impl FnMut(u8)) {
    let [first, rest @ ..] = parts else { return tell(taken) };
    for start in first.starts.iter().filter(|start| **start >= least) {
        let slices = first.slices_from(*start);
        if slices & taken == 0 {
            let least = if rest.first().is_some_and(|next| next.name == first.name) { start + 1 } else { 0 };
            stand(rest, taken | slices, least, tell);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const H100: &MigGeometry = &GEOMETRIES[2];

    /// What NVIDIA's guide draws for A100 and H100.
    #[test]
    fn parts_fit_together_as_the_guide_draws_them() {
        let most = H100.profiles.map(|profile| H100.most_of(profile.name));
        assert_eq!(most, [7, 4, 3, 2, 1, 1]);
        for (present, wanted, room) in [
            (&["3g.40gb"][..], "4g.40gb", MigRoom::Perhaps),
            (&["4g.40gb"], "3g.40gb", MigRoom::Sure),
            (&["4g.40gb"], "4g.40gb", MigRoom::No),
            (&["3g.40gb", "3g.40gb"], "1g.10gb", MigRoom::No),
            (&["4g.40gb", "2g.20gb"], "1g.10gb", MigRoom::Sure),
            (&["1g.10gb"], "3g.40gb", MigRoom::Sure),
            (&["1g.10gb", "1g.10gb"], "3g.40gb", MigRoom::Perhaps),
            (&["1g.10gb"], "7g.80gb", MigRoom::No),
            (&[], "7g.80gb", MigRoom::Sure),
        ] {
            assert_eq!(H100.room(present, wanted), Some(room), "{wanted} beside {present:?}");
        }
        assert_eq!(H100.room(&["4g.40gb", "4g.40gb"], "1g.10gb"), None, "they cannot both be there");
        assert_eq!(H100.room(&["1g.5gb"], "1g.10gb"), None, "no part of an H100");
    }

    /// Names tell compute slices and memory: as many eighths of it as the part takes, rounded.
    #[test]
    fn every_table_is_what_its_names_say() {
        for known in GEOMETRIES {
            for profile in known.profiles {
                let (compute, memory) = profile.name.split_once("g.").unwrap();
                let (compute, gb): (u32, f64) =
                    (compute.parse().unwrap(), memory.strip_suffix("gb").unwrap().parse().unwrap());
                let eighths = f64::from(known.memory_gb) * f64::from(profile.memory_slices) / 8.0;
                assert!((eighths - gb).abs() < 1.0, "{} of {} {}", profile.name, known.model, known.memory_gb);
                assert!(
                    compute <= u32::from(profile.memory_slices)
                        && crate::validation::mig_profile_milli(profile.name).is_some()
                );
                for start in profile.starts {
                    assert!(start + profile.memory_slices <= MEMORY_SLICES);
                }
            }
        }
        let at = |model, mib| geometry(model, mib).map(|known| known.memory_gb);
        assert_eq!(
            [at("h100", 81_559), at("A100", 40_960), at("A100", 81_920), at("H200", 143_771), at("B200", 183_359)],
            [Some(80), Some(40), Some(80), Some(141), Some(180)]
        );
        assert_eq!([at("A100", 65_536), at("H100", 95_830), at("L4", 23_034)], [None; 3]);
    }

    proptest! {
        /// Parts that are put one by one where they have room: what then has room is not told to have
        /// none, and what has none is not told to have it for sure.
        #[test]
        fn room_is_what_trying_finds(
            table in 0..GEOMETRIES.len(), puts in prop::collection::vec((0_usize..6, any::<prop::sample::Index>()), 0..8),
            wanted in 0_usize..6,
        ) {
            let known = &GEOMETRIES[table];
            let (mut taken, mut present) = (0_u8, Vec::new());
            for (part, choice) in puts {
                let part = &known.profiles[part];
                let free: Vec<u8> = part.starts.iter().copied().filter(|s| part.slices_from(*s) & taken == 0).collect();
                if !free.is_empty() {
                    taken |= part.slices_from(free[choice.index(free.len())]);
                    present.push(part.name);
                }
            }
            let part = &known.profiles[wanted];
            let fits = part.starts.iter().any(|start| part.slices_from(*start) & taken == 0);
            let told = known.room(&present, part.name);
            prop_assert!(told.is_some(), "they do stand");
            let wrong = if fits { MigRoom::No } else { MigRoom::Sure };
            prop_assert_ne!(told, Some(wrong));
        }
    }
}
