//! Which unit a line speaks of: PCI address, UUID, index or rank.

use super::pattern::{Pattern, regex};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

/// Names of one machine that are kept.
const NAMES: usize = 1_024;

/// A unit that a line names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// `dddd:bb:dd`, in lower case, without the function.
    Pci(String),
    /// `GPU-…` or `MIG-…`, as NVIDIA prints it.
    Uuid(String),
    /// The number of a GPU on its host.
    Index(u32),
    /// The number of a process of a job.
    Rank(u32),
    /// A server that a host depends on, by the name or address that the host prints.
    Server(String),
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => f.write_str(address),
            Self::Uuid(uuid) => f.write_str(uuid),
            Self::Index(index) => write!(f, "GPU {index}"),
            Self::Rank(rank) => write!(f, "rank {rank}"),
            Self::Server(name) => write!(f, "server {name}"),
        }
    }
}

static PCI: LazyLock<Pattern> =
    LazyLock::new(|| regex(r"(?i)(?:PCI:|GPU|\b)([0-9a-f]{4}|[0-9a-f]{8}):([0-9a-f]{2}):([0-9a-f]{2})(?:\.[0-7])?\b"));
static UUID: LazyLock<Pattern> =
    LazyLock::new(|| regex(r"\b(?:GPU|MIG)-[0-9a-f]{4,8}(?:-[0-9a-f]{4}){0,3}(?:-[0-9a-f]{12})?"));
static INDEX: LazyLock<Pattern> = LazyLock::new(|| regex(r"(?i)\bGPU[ :#]?(?:node-)?(\d{1,3})\b"));
static RANK: LazyLock<Pattern> = LazyLock::new(|| regex(r"(?i)(?:\[?\brank[ :=]?|^\[default)(\d{1,6})\b"));

/// Brings `0000:3B:00.0`, `00000000:3B:00.0` and `3b:00` to `0000:3b:00`.
///
/// None if the text has no such form.
pub fn pci(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let bare = text.split('.').next()?;
    let parts: Vec<&str> = bare.split(':').collect();
    let hex = |part: &str, len: &[usize]| len.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
    match parts.as_slice() {
        [bus, slot] if hex(bus, &[2]) && hex(slot, &[2]) => Some(format!("0000:{bus}:{slot}")),
        [domain, bus, slot] if hex(domain, &[4, 8]) && hex(bus, &[2]) && hex(slot, &[2]) => {
            Some(format!("{}:{bus}:{slot}", domain.get(domain.len() - 4..)?))
        }
        _ => None,
    }
}

/// Names of the GPUs of one machine: which of them mean the same one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<Unit, Unit>);

impl Names {
    /// Takes in a GPU: what it shall be called, and what else it is called.
    pub fn add(&mut self, name: &Unit, others: impl IntoIterator<Item = Unit>) {
        let room = NAMES.saturating_sub(self.0.len());
        self.0.extend(others.into_iter().take(room).map(|other| (other, name.clone())));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Is a unit known by this name?
    pub(super) fn knows(&self, unit: &Unit) -> bool {
        self.0.contains_key(unit)
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let text = |unit: &Unit| match unit {
            Unit::Pci(text) | Unit::Uuid(text) | Unit::Server(text) => text.capacity(),
            Unit::Index(_) | Unit::Rank(_) => 0,
        };
        self.0.iter().map(|(unit, name)| text(unit) + text(name) + 4 * size_of::<Unit>()).sum()
    }

    /// What a unit is called: the name it was given, or its own.
    pub fn of(&self, unit: Unit) -> Unit {
        self.0.get(&unit).cloned().unwrap_or(unit)
    }
}

/// The UUIDs of GPUs that a text names.
pub fn uuids(text: &str) -> BTreeSet<&str> {
    UUID.find_iter(text).map(|found| found.as_str()).take(NAMES).collect()
}

/// All names by which a line calls one GPU: address, UUID, index.
pub(super) fn all(line: &str) -> Vec<Unit> {
    let address = PCI.captures(line).and_then(|found| pci(&format!("{}:{}:{}", &found[1], &found[2], &found[3])));
    let uuid = UUID.find(line).map(|found| Unit::Uuid(found.as_str().to_owned()));
    let index = INDEX.captures(line).and_then(|found| found[1].parse().ok()).map(Unit::Index);
    address.map(Unit::Pci).into_iter().chain(uuid).chain(index).collect()
}

/// The unit a line names, the surest kind first.
pub fn find(line: &str) -> Option<Unit> {
    if let Some(found) = PCI.captures(line) {
        let address = format!("{}:{}:{}", &found[1], &found[2], &found[3]);
        return pci(&address).map(Unit::Pci);
    }
    if let Some(found) = UUID.find(line) {
        return Some(Unit::Uuid(found.as_str().to_owned()));
    }
    let number = |pattern: &Pattern| pattern.captures(line).and_then(|found| found[1].parse().ok());
    number(&INDEX).map(Unit::Index).or_else(|| number(&RANK).map(Unit::Rank))
}
