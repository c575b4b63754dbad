//! What a driver's events and the latest numbers of a GPU mean, and how old they may be.
//!
//! An old event tells of a machine that may have been mended since, and one
//! sample tells of one moment: neither asks for hands on the hardware.

use claw_proto::message::{GpuDetails, GpuEvent, GpuEventKind, GpuMetrics, ThrottleReason};
use claw_proto::spec::GpuVendor;
use claw_proto::time::Timestamp;

use super::code::{Action, Code};

/// Milliseconds within which an event speaks of the GPU as it is now: a day.
pub const EVENTS_MS: u64 = 24 * 3_600_000;
/// Sampling intervals that the latest numbers may be old.
pub const INTERVALS: u64 = 5;
/// Milliseconds that they may be old in any case; node's and gateway's clocks differ a little.
pub const NUMBERS_MS: u64 = 60_000;

/// What one sighting asks for by itself, instead of its code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asks {
    /// The first action.
    pub action: Action,
    /// How sure, 0 to 1.
    pub confidence: f64,
    /// Why, in words.
    pub why: &'static str,
}

/// What the latest numbers of a GPU say.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The code.
    pub code: Code,
    /// What it asks for.
    pub asks: Asks,
    /// The number, in words.
    pub words: &'static str,
}

/// Did an event happen within [`EVENTS_MS`] of `now`? The node's clock may run ahead.
pub fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    now.unix_ms().abs_diff(at.unix_ms()) <= EVENTS_MS
}

/// Are numbers of that instant still the latest, sampled every `interval_ms` milliseconds?
pub fn is_fresh(at: Timestamp, now: Timestamp, interval_ms: u64) -> bool {
    now.unix_ms().abs_diff(at.unix_ms()) <= interval_ms.saturating_mul(INTERVALS).max(NUMBERS_MS)
}

/// What a driver's event is among the codes, in the words of the GPU's vendor; none for changes of state and for an
/// Xid whose number is not known ([`is_nameless`]).
pub fn code(event: &GpuEvent, vendor: GpuVendor) -> Option<Code> {
    let named = |name: &str| Some(Code::Named(name.into()));
    match (event.kind, vendor) {
        (GpuEventKind::Xid, _) => event.code.map(Code::Xid),
        (GpuEventKind::EccDoubleBit, GpuVendor::Nvidia) => Some(Code::Xid(48)),
        (GpuEventKind::EccDoubleBit, GpuVendor::Amd) => named("amdgpu_ras_ue"),
        (GpuEventKind::EccDoubleBit, _) => named("gpu_memory_uncorrected"),
        (GpuEventKind::EccSingleBit, GpuVendor::Nvidia) => Some(Code::Xid(92)),
        (GpuEventKind::EccSingleBit, GpuVendor::Amd) => named("amdgpu_ras_ce"),
        (GpuEventKind::EccSingleBit, _) => named("gpu_memory_corrected"),
        (GpuEventKind::Lost, GpuVendor::Nvidia) => Some(Code::Xid(79)),
        (GpuEventKind::Lost, GpuVendor::Amd) => named("amdgpu_bus_lost"),
        (GpuEventKind::Lost, _) => named("gpu_lost"),
        (GpuEventKind::PowerState | GpuEventKind::Clock, _) => None,
    }
}

/// Does an event tell of a fault without saying of which?
pub fn is_nameless(event: &GpuEvent) -> bool {
    event.kind == GpuEventKind::Xid && event.code.is_none()
}

/// What the latest numbers of a GPU say by themselves; a power cap is normal.
///
/// None if its driver told none of the numbers that could show a fault: use, memory, clocks and heat
/// alone do not. That no reason of throttling is listed is not a number: a driver that could not
/// read them lists none either.
pub fn numbers(gpu: &GpuMetrics) -> Option<Vec<Sampled>> {
    let tells = |details: &GpuDetails| {
        let counts = details.remapped_rows.is_some() || details.ecc_uncorrected_total.is_some();
        counts || !details.throttle_reasons.is_empty()
    };
    let details = gpu.details.as_ref().filter(|details| tells(details))?;
    let has = |reasons: &[ThrottleReason]| details.throttle_reasons.iter().any(|reason| reasons.contains(reason));
    let said = |name: &str, asks, words| Sampled { code: Code::Named(name.into()), asks, words };
    let mut found = Vec::new();
    if has(&[ThrottleReason::HwPowerBrake]) {
        found.push(said("power_brake", ONE_SAMPLE, "throttle reason hw_power_brake"));
    }
    if has(&[ThrottleReason::HwThermal, ThrottleReason::SwThermal]) {
        found.push(said("thermal_violation", ONE_SAMPLE, "throttle reason hw_thermal or sw_thermal"));
    }
    if let Some(rows) = &details.remapped_rows {
        if rows.failed {
            found.push(said("row_remap_pending", FAILED, "the replacement of a row failed"));
        } else if rows.pending {
            found.push(said("row_remap_pending", PENDING, "remapped rows are pending"));
        }
    }
    Some(found)
}

const ONE_SAMPLE: Asks = Asks {
    action: Action::Ignore,
    confidence: 0.4,
    why: "one sample tells of one moment: look again, and at the neighbors, before hands are called",
};
const FAILED: Asks = Asks {
    action: Action::Service,
    confidence: 0.9,
    why: "the replacement of a bad row failed: no reset helps, the GPU has to be replaced",
};
const PENDING: Asks =
    Asks { action: Action::ResetGpu, confidence: 0.9, why: "the row is replaced when the GPU is reset" };
