//! What `rocm-smi` prints with `--json`: pure.
//!
//! Form, after the tool's own sources (5.2 to 7): an object with one object for
//! each GPU, named `card<n>`, whose keys are words for people that changed
//! ("Card series" became "Card Series"). All values are strings.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::loose::{get, text};
use super::super::merge::pci_address;
use super::amd_smi::Facts;
use super::serial::Serial;

/// `rocm-smi --showproductname --showuniqueid --showbus --json`.
pub(super) fn facts(output: &Value) -> Option<BTreeMap<u64, Facts>> {
    let facts = |card: &Value| {
        let value = |names: &[&str]| get(card, names).and_then(text);
        Facts {
            address: value(&["PCI Bus"]).and_then(|text| pci_address(&text)),
            serial: value(&["Unique ID"]).and_then(|text| Serial::from_hex(&text)),
            name: value(&["Card Series", "Device Name"]).filter(|name| !name.starts_with("0x")),
            architecture: value(&["GFX Version"]).filter(|name| name.starts_with("gfx")),
        }
    };
    let cards: BTreeMap<u64, Facts> = output
        .as_object()?
        .iter()
        .filter_map(|(name, card)| Some((name.strip_prefix("card")?.parse().ok()?, facts(card))))
        .collect();
    (!cards.is_empty()).then_some(cards)
}
