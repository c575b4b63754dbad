//! Which architecture a GPU of NVIDIA is of, and what some codes are bound to.
//!
//! A log, a table of `nvidia-smi` or an inventory tells the model; `rules/architecture.toml` tells what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;

use super::device::{self, Unit};
use super::pattern::{Pattern, regex};

/// GPUs whose architecture is kept; of more, only which architectures there are.
const UNITS: usize = 256;

/// An architecture of NVIDIA's GPUs, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Compute capability 3.
    Kepler,
    /// 5.
    Maxwell,
    /// 6.
    Pascal,
    /// 7.0 and 7.2.
    Volta,
    /// 7.5.
    Turing,
    /// 8.0 to 8.7.
    Ampere,
    /// 8.9.
    Ada,
    /// 9.
    Hopper,
    /// 10 to 12.
    Blackwell,
}

impl Architecture {
    const ALL: [Self; 9] = [
        Self::Kepler,
        Self::Maxwell,
        Self::Pascal,
        Self::Volta,
        Self::Turing,
        Self::Ampere,
        Self::Ada,
        Self::Hopper,
        Self::Blackwell,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Kepler => "Kepler",
            Self::Maxwell => "Maxwell",
            Self::Pascal => "Pascal",
            Self::Volta => "Volta",
            Self::Turing => "Turing",
            Self::Ampere => "Ampere",
            Self::Ada => "Ada",
            Self::Hopper => "Hopper",
            Self::Blackwell => "Blackwell",
        }
    }
}

impl Architecture {
    /// The one that a text names as a word.
    fn named(text: &str) -> Option<Self> {
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        words.find_map(|word| Self::ALL.into_iter().find(|one| word.eq_ignore_ascii_case(one.name())))
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The models of one architecture.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// The architecture.
    pub architecture: Architecture,
    /// Words of which one stands in the name of a model.
    pub names: Vec<String>,
    /// What the number of a `GeForce` begins with, before its last two digits.
    pub geforce: Vec<String>,
    /// Compute capabilities; one that ends with a dot stands for any that begins so.
    pub capability: Vec<String>,
    /// Where it is written, with date.
    pub source: String,
}

/// Architectures on which numbered codes mean what the tables say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Its name.
    pub id: String,
    /// The Xids.
    pub xids: Vec<u32>,
    /// The architectures.
    pub architectures: Vec<Architecture>,
    /// What to know on one of them.
    #[serde(default)]
    pub here: Option<String>,
    /// Why the tables do not speak of a GPU of another; without it they do.
    #[serde(default)]
    pub elsewhere: Option<String>,
    /// Where it is written, with date.
    pub source: String,
}

/// What `rules/architecture.toml` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architectures {
    /// Models.
    #[serde(rename = "model")]
    pub models: Vec<Models>,
    /// Bounds of codes.
    #[serde(rename = "bound")]
    pub bounds: Vec<Bound>,
}

impl Architectures {
    /// The architecture of a model, such as `NVIDIA H100 80GB HBM3` or `Tesla V100-SXM2-32GB`; none if it is not known.
    pub fn of_model(&self, model: &str) -> Option<Architecture> {
        Architecture::named(model).or_else(|| self.of_number(model))
    }

    /// The same of its number or letters alone, such as `H100`, not of an architecture's name.
    fn of_number(&self, model: &str) -> Option<Architecture> {
        let upper = model.to_ascii_uppercase();
        let words: Vec<&str> =
            upper.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let geforce = words.windows(2).find_map(|pair| match pair {
            ["RTX" | "GTX", number] => self.of_geforce(number),
            _ => None,
        });
        let by_name = |row: &&Models| words.iter().any(|word| row.names.iter().any(|name| name == word));
        geforce.or_else(|| self.models.iter().find(by_name).map(|row| row.architecture))
    }

    /// `4090` and `980`; 4000 is the number of a card for workstations, of which each architecture has one.
    fn of_geforce(&self, number: &str) -> Option<Architecture> {
        let (series, place) = number.split_at_checked(number.len().checked_sub(2)?)?;
        let is_card = place.bytes().all(|digit| digit.is_ascii_digit()) && place >= "50";
        let row = self.models.iter().find(|row| row.geforce.iter().any(|known| known == series))?;
        is_card.then_some(row.architecture)
    }

    /// The architecture of a compute capability, such as `9.0`; none if it is not known.
    pub fn of_capability(&self, capability: &str) -> Option<Architecture> {
        let fits =
            |known: &String| known == capability || known.ends_with('.') && capability.starts_with(known.as_str());
        self.models.iter().find(|row| row.capability.iter().any(fits)).map(|row| row.architecture)
    }

    /// The architecture and the units that a line tells of.
    pub(super) fn of_line(&self, line: &str) -> Option<(Architecture, Vec<Unit>)> {
        let told = TOLD.captures(line)?;
        let text = |name: &str| told.name(name).map(|found| found.as_str());
        let by_capability = text("capability").and_then(|capability| self.of_capability(capability));
        if let Some(architecture) = by_capability.or_else(|| self.of_model(text("field")?)) {
            return Some((architecture, device::all(line)));
        }
        let name = text("model")?;
        let architecture = self.of_model(name)?;
        let units = device::all(line);
        // Of GPUs that the line does not name it tells only as a product's name that stands alone.
        if units.is_empty() && (!is_name(name) || self.of_number(name).is_none()) {
            return None;
        }
        Some((architecture, units))
    }
}

/// Texts of which one stands in a line that tells a model.
pub(super) const LITERALS: [&str; 5] =
    ["NVIDIA ", "Tesla ", "Product Name", "Product Architecture", "compute capability"];

static TOLD: LazyLock<Pattern> = LazyLock::new(|| {
    regex(concat!(
        r"(?i)(?:compute capability:? (?P<capability>\d{1,2}\.\d)\b",
        r"|\bProduct (?:Name|Architecture)\s*:\s*(?P<field>[\w.\-]+(?: [\w.\-]+)*)",
        r"|\b(?:NVIDIA |Tesla )(?P<model>[\w.\-]+(?: [\w.\-]+)*))",
    ))
});

/// Is it the name of a product and nothing else? Prose goes on in small letters ("H100 GPUs need a newer driver").
fn is_name(words: &str) -> bool {
    words.split(' ').all(|word| !word.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// What was told of GPUs' architectures.
#[derive(Clone, Debug, Default)]
pub struct Known {
    by_unit: BTreeMap<Unit, Architecture>,
    all: BTreeSet<Architecture>,
}

impl Known {
    /// Keeps what was told of some units, or of none that is named.
    pub fn tell(&mut self, architecture: Architecture, units: impl IntoIterator<Item = Unit>) {
        self.all.insert(architecture);
        for unit in units {
            if self.by_unit.len() < UNITS {
                self.by_unit.insert(unit, architecture);
            }
        }
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let text = |unit: &Unit| match unit {
            Unit::Pci(text) | Unit::Uuid(text) | Unit::Server(text) => text.capacity(),
            Unit::Index(_) | Unit::Rank(_) => 0,
        };
        self.by_unit.keys().map(|unit| text(unit) + 3 * size_of::<(Unit, Architecture)>()).sum::<usize>() + 256
    }

    /// The architecture of a unit: its own, or the only one that was told of any.
    pub fn of(&self, unit: Option<&Unit>) -> Option<Architecture> {
        let own = unit.and_then(|unit| self.by_unit.get(unit)).copied();
        own.or_else(|| self.all.first().copied().filter(|_| self.all.len() == 1))
    }
}
