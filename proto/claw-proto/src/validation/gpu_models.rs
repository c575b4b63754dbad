//! The GPU models that the system knows by name, and the nearest one to a typo.

use crate::spec::GpuVendor;
use crate::spelling::{COMPARED_CHARS_MAX, slips};

/// Canonical names of known GPU models. Others are allowed: a fleet may have
/// hardware that is newer than this list.
pub const KNOWN_GPU_MODELS: &[&str] = &[
    "H100", "H200", "B200", "GB200", "A100", "L40S", "L4", "A10G", "T4", "V100", "RTX4090", "RTX3090", "MI300X",
    "MI250", "M3 Ultra",
];

/// The vendor of a known model, given in canonical spelling.
pub(super) fn vendor_of(canonical: &str) -> Option<GpuVendor> {
    match canonical {
        "MI300X" | "MI250" => Some(GpuVendor::Amd),
        "M3 Ultra" => Some(GpuVendor::Apple),
        known if KNOWN_GPU_MODELS.contains(&known) => Some(GpuVendor::Nvidia),
        _ => None,
    }
}

/// Letters and digits only, in lower case: "RTX 4090", "rtx-4090" and "RTX4090" are one model.
fn folding(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase())
}

fn folded(text: &str) -> String {
    folding(text).map(char::from).collect()
}

/// The known model that this text names, whatever its case, spaces and dashes.
pub fn canonical_gpu_model(text: &str) -> Option<&'static str> {
    KNOWN_GPU_MODELS.iter().copied().find(|known| folding(known).eq(folding(text)))
}

/// The known model that is nearest to this text, if one is near enough to be
/// meant: at most a third of the longer name differs.
pub fn nearest_gpu_model(text: &str) -> Option<&'static str> {
    let wanted = folded(&text.chars().take(COMPARED_CHARS_MAX).collect::<String>());
    KNOWN_GPU_MODELS
        .iter()
        .copied()
        .map(|known| {
            let known_folded = folded(known);
            let longer = known_folded.len().max(wanted.len());
            (slips(&wanted, &known_folded), longer, known)
        })
        .filter(|(distance, longer, _)| distance * 3 <= *longer)
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, _, known)| known)
}
