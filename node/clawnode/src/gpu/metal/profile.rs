//! What macOS prints about its GPUs: pure.

use claw_proto::limits::NAME_CHARS_MAX;
use claw_proto::spec::GpuVendor;

use super::super::loose::{self, get, text, whole};
use super::super::models;

const MIB: u64 = 1024 * 1024;
const MIB_PER_GB: u64 = 1_024;

/// One GPU of a Mac.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacGpu {
    /// Short name of the model.
    pub model: String,
    /// Who made it.
    pub vendor: GpuVendor,
    /// Number of its cores, if it is told.
    pub cores: Option<u64>,
    /// Family of Metal that it supports, such as metal3.
    pub family: Option<String>,
    /// Memory of its own, MiB; none if it uses the host's.
    pub memory_mib: Option<u64>,
}

/// The GPUs in the output of `system_profiler SPDisplaysDataType -json`; nothing if
/// it has another form. A display without a GPU of its own is left out.
pub fn gpus(output: &str) -> Option<Vec<MacGpu>> {
    let output = loose::first(output)?;
    let entries = get(&output, &["SPDisplaysDataType"])?.as_array()?;
    let gpu = |entry: &serde_json::Value| {
        let value = |names: &[&str]| get(entry, names).and_then(text);
        let name = value(&["sppci_model", "_name"])?;
        let vendor = value(&["spdisplays_vendor"]).unwrap_or_default().to_ascii_lowercase();
        let is = |word: &str| vendor.contains(word) || (vendor.is_empty() && name.to_ascii_lowercase().contains(word));
        let vendors = [("apple", GpuVendor::Apple), ("amd", GpuVendor::Amd), ("intel", GpuVendor::Intel)];
        let vendor = vendors.iter().find(|(word, _)| is(word)).map_or(GpuVendor::Other, |(_, vendor)| *vendor);
        let family = value(&["spdisplays_mtlgpufamilysupport", "spdisplays_metal"]);
        let family = family.and_then(|family| family.strip_prefix("spdisplays_").map(str::to_owned));
        let vram = get(entry, &["spdisplays_vram"]).filter(|_| vendor != GpuVendor::Apple);
        Some(MacGpu {
            model: models::short(&name),
            vendor,
            cores: get(entry, &["sppci_cores"]).and_then(whole),
            family: family.filter(|family| family.starts_with("metal") && family.chars().count() <= NAME_CHARS_MAX),
            memory_mib: vram.and_then(memory_mib),
        })
    };
    Some(entries.iter().filter_map(gpu).collect())
}

/// `8 GB` or `1536 MB`.
fn memory_mib(value: &serde_json::Value) -> Option<u64> {
    let unit = if text(value)?.ends_with("GB") { MIB_PER_GB } else { 1 };
    whole(value)?.checked_mul(unit).filter(|mib| *mib > 0)
}

/// Memory of the machine from `sysctl -n hw.memsize`, MiB.
pub fn host_memory_mib(output: &str) -> Option<u64> {
    output.trim().parse::<u64>().ok().map(|bytes| bytes / MIB)
}

/// The machine's own UUID, from `ioreg -rd1 -c IOPlatformExpertDevice`.
pub fn platform_uuid(output: &str) -> Option<String> {
    let line =
        output.lines().find_map(|line| line.trim_start_matches([' ', '|']).strip_prefix("\"IOPlatformUUID\""))?;
    let uuid = line.trim_start().strip_prefix('=')?.trim().trim_matches('"');
    let plain = uuid.len() == 36 && uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    plain.then(|| uuid.to_ascii_lowercase())
}

/// How busy a GPU is, and what it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Busy, percent.
    pub utilization_percent: u8,
    /// Of the host's memory, MiB.
    pub memory_used_mib: u64,
}

/// The usage of each GPU, from `ioreg -r -d 1 -w 0 -c IOAccelerator`.
pub fn usages(output: &str) -> Vec<Usage> {
    let statistics =
        output.lines().filter_map(|line| line.split_once("\"PerformanceStatistics\"").map(|(_, rest)| rest));
    let value = |statistics: &str, key: &str| -> Option<u64> {
        // With its closing quote: there is "In use system memory (driver)" too.
        let (_, rest) = statistics.split_once(&format!("\"{key}\"="))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let usage = |statistics: &str| {
        let busy = value(statistics, "Device Utilization %").filter(|percent| *percent <= 100)?;
        Some(Usage {
            utilization_percent: u8::try_from(busy).ok()?,
            memory_used_mib: value(statistics, "In use system memory")? / MIB,
        })
    };
    statistics.filter_map(usage).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Recorded form, written after outputs in public issues and tests (macOS 13 to 26).
    const M3_ULTRA: &str = r#"{
  "SPDisplaysDataType" : [
    {
      "_name" : "Apple M3 Ultra",
      "spdisplays_mtlgpufamilysupport" : "spdisplays_metal3",
      "spdisplays_ndrvs" : [{"_name" : "Color LCD", "spdisplays_main" : "spdisplays_yes"}],
      "spdisplays_vendor" : "sppci_vendor_Apple",
      "sppci_bus" : "spdisplays_builtin",
      "sppci_cores" : "80",
      "sppci_device_type" : "spdisplays_gpu",
      "sppci_model" : "Apple M3 Ultra"
    }
  ]
}"#;
    /// Recorded form of an Intel Mac with two GPUs.
    const INTEL: &str = r#"{"SPDisplaysDataType": [
        {"_name": "kHW_IntelUHDGraphics630Item", "spdisplays_vendor": "Intel", "sppci_model": "Intel UHD Graphics 630",
         "spdisplays_vram": "1536 MB", "spdisplays_metal": "spdisplays_supported"},
        {"sppci_model": "AMD Radeon Pro 5500M", "spdisplays_vendor": "sppci_vendor_amd", "spdisplays_vram": "8 GB"},
        {"spdisplays_ndrvs": []}]}"#;
    /// Recorded form.
    const IOREG: &str = "+-o AGXAcceleratorG15X  <class AGXAcceleratorG15X, id 0x1, registered, matched>\n    {\n      \
        \"PerformanceStatistics\" = {\"In use system memory (driver)\"=0,\"Alloc system memory\"=52967440384,\
        \"Tiler Utilization %\"=10,\"recoveryCount\"=0,\"Device Utilization %\"=16,\
        \"In use system memory\"=2363801600}\n    }\n";

    #[test]
    fn gpus_of_macs_are_read() {
        let gpu = |model: &str, vendor, cores, family: Option<&str>, memory_mib| MacGpu {
            model: model.to_owned(),
            vendor,
            cores,
            family: family.map(str::to_owned),
            memory_mib,
        };
        let expected = [gpu("M3 Ultra", GpuVendor::Apple, Some(80), Some("metal3"), None)];
        assert_eq!(gpus(M3_ULTRA).as_deref(), Some(&expected[..]));
        let expected = [
            gpu("UHD Graphics 630", GpuVendor::Intel, None, None, Some(1_536)),
            gpu("Pro 5500M", GpuVendor::Amd, None, None, Some(8_192)),
        ];
        assert_eq!(gpus(INTEL).as_deref(), Some(&expected[..]));
        assert_eq!(gpus("{\"SPDisplaysDataType\": []}"), Some(Vec::new()), "a Mac without a screen or GPU");
        assert_eq!(gpus("system_profiler: error"), None);
        assert_eq!(usages(IOREG), [Usage { utilization_percent: 16, memory_used_mib: 2_254 }]);
        assert_eq!(host_memory_mib("549755813888\n"), Some(524_288));
        let ioreg = "  |   \"IOPlatformUUID\" = \"0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9\"\n";
        assert_eq!(platform_uuid(ioreg).as_deref(), Some("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"));
    }

    proptest! {
        /// Whatever is cut off or overwritten, nothing panics.
        #[test]
        fn damaged_outputs_are_survived(at in 0..400_usize, with in "\\PC{0,20}") {
            for good in [M3_ULTRA, INTEL, IOREG] {
                let end = good.floor_char_boundary(at);
                let damaged = [&good[..end], &with, good.get(end + with.len()..).unwrap_or_default()].concat();
                let _ = (gpus(&damaged), gpus(&good[..end]), usages(&damaged), platform_uuid(&damaged));
            }
        }
    }
}
