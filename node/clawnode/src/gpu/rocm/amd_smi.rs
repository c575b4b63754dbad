//! What `amd-smi` prints with `--json`: pure.
//!
//! Forms, after AMD's command-line documentation and the tool's own sources: up to
//! version 25 (ROCm 6) each command prints a list with one object for each GPU;
//! from 26 on (ROCm 7) `static` and `metric` print an object whose `gpu_data` is
//! that list. `gpu` numbers the GPUs; only `list` and `static --bus` tell which
//! PCI address a number is.

use std::collections::BTreeMap;

use claw_proto::message::ThrottleReason;
use serde_json::Value;

use super::super::loose::{below, get, text, whole};
use super::super::merge::pci_address;
use super::serial::Serial;

/// What a GPU is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Facts {
    /// PCI address in the kernel's spelling.
    pub(super) address: Option<String>,
    /// The ASIC's own number.
    pub(super) serial: Option<Serial>,
    /// Marketing name.
    pub(super) name: Option<String>,
    /// Architecture, such as gfx942.
    pub(super) architecture: Option<String>,
}

impl Facts {
    /// What one source does not tell is taken from another.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            address: self.address.or(other.address),
            serial: self.serial.or(other.serial),
            name: self.name.or(other.name),
            architecture: self.architecture.or(other.architecture),
        }
    }
}

/// How a GPU is now, as far as sysfs does not tell it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reading {
    /// Why its clocks are lower than they could be.
    pub(super) throttle_reasons: Vec<ThrottleReason>,
    /// Errors that were corrected, of all blocks.
    pub(super) ecc_corrected: Option<u64>,
    /// Errors that were not.
    pub(super) ecc_uncorrected: Option<u64>,
}

/// Objects of the GPUs, by number; nothing if the form is unknown.
fn gpus(output: &Value) -> Option<BTreeMap<u64, &Value>> {
    let list = match output {
        Value::Array(list) => list,
        Value::Object(_) => get(output, &["gpu_data"])?.as_array()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    // An entry of a CPU has no `gpu`.
    let gpus: BTreeMap<u64, &Value> = list.iter().filter_map(|one| Some((whole(get(one, &["gpu"])?)?, one))).collect();
    (!gpus.is_empty()).then_some(gpus)
}

/// `amd-smi list --json`.
pub(super) fn list(output: &Value) -> Option<BTreeMap<u64, Facts>> {
    let facts = |gpu: &Value| Facts {
        address: get(gpu, &["bdf", "gpu_bdf"]).and_then(text).and_then(|text| pci_address(&text)),
        serial: get(gpu, &["uuid", "gpu_uuid"]).and_then(text).and_then(|text| Serial::from_uuid(&text)),
        ..Facts::default()
    };
    Some(gpus(output)?.into_iter().map(|(n, gpu)| (n, facts(gpu))).collect())
}

/// `amd-smi static --asic --bus --json`.
pub(super) fn facts(output: &Value) -> Option<BTreeMap<u64, Facts>> {
    let facts = |gpu: &Value| {
        let asic = |key| below(gpu, &["asic", key]).and_then(text);
        let name = asic("market_name").or_else(|| below(gpu, &["board", "product_name"]).and_then(text));
        Facts {
            address: below(gpu, &["bus", "bdf"]).and_then(text).and_then(|text| pci_address(&text)),
            serial: asic("asic_serial").and_then(|text| Serial::from_hex(&text)),
            // Where the tool has no name it puts the number of the device there.
            name: name.filter(|name| !name.starts_with("0x")),
            architecture: asic("target_graphics_version").filter(|name| name.starts_with("gfx")),
        }
    };
    Some(gpus(output)?.into_iter().map(|(n, gpu)| (n, facts(gpu))).collect())
}

/// `amd-smi metric --power --ecc --throttle --json`.
pub(super) fn readings(output: &Value) -> Option<BTreeMap<u64, Reading>> {
    let reading = |gpu: &Value| {
        let ecc = |key| below(gpu, &["ecc", key]).and_then(whole);
        Reading {
            throttle_reasons: throttle_reasons(gpu),
            ecc_corrected: ecc("total_correctable_count"),
            ecc_uncorrected: ecc("total_uncorrectable_count"),
        }
    };
    Some(gpus(output)?.into_iter().map(|(n, gpu)| (n, reading(gpu))).collect())
}

/// MI300 and newer tell which limit is violated; others only that one is.
fn throttle_reasons(gpu: &Value) -> Vec<ThrottleReason> {
    let table = [
        ("ppt_violation_status", ThrottleReason::SwPowerCap),
        ("prochot_violation_status", ThrottleReason::HwSlowdown),
        ("socket_thermal_violation_status", ThrottleReason::HwThermal),
        ("vr_thermal_violation_status", ThrottleReason::HwThermal),
        ("hbm_thermal_violation_status", ThrottleReason::HwThermal),
    ];
    let active = |key: &str| {
        let status = below(gpu, &["throttle", key]);
        status.is_some_and(|status| *status == Value::Bool(true) || text(status).as_deref() == Some("ACTIVE"))
    };
    let mut reasons: Vec<ThrottleReason> =
        table.iter().filter(|(key, _)| active(key)).map(|(_, reason)| *reason).collect();
    reasons.dedup();
    let throttled = below(gpu, &["power", "throttle_status"]).and_then(text).is_some_and(|text| text == "THROTTLED");
    if reasons.is_empty() && throttled {
        reasons.push(ThrottleReason::HwSlowdown);
    }
    reasons
}

/// ROCm's version from `amd-smi version --json`.
pub(super) fn rocm_version(output: &Value) -> Option<String> {
    let one = output.as_array().and_then(|list| list.first()).unwrap_or(output);
    get(one, &["rocm_version"]).and_then(text).filter(|text| text.starts_with(|c: char| c.is_ascii_digit()))
}
