use claw_proto::message::ThrottleReason;
use proptest::prelude::*;

use super::amd_smi::{Facts, Reading};
use super::serial::Serial;
use super::{amd_smi, kfd, rocm_smi, sysfs};
use crate::gpu::loose;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rocm/", $name))
    };
}

/// Every output that a tool may print; see the README beside them.
const FIXTURES: [&str; 9] = [
    fixture!("amd-smi-24.list.json"),
    fixture!("amd-smi-24.static.json"),
    fixture!("amd-smi-24.metric.json"),
    fixture!("amd-smi-24.version.json"),
    fixture!("amd-smi-26.list.json"),
    fixture!("amd-smi-26.static.json"),
    fixture!("amd-smi-26.metric.json"),
    fixture!("rocm-smi-5.json"),
    fixture!("rocm-smi-6.json"),
];

fn facts(address: Option<&str>, serial: &str, name: Option<&str>, architecture: Option<&str>) -> Facts {
    Facts {
        address: address.map(str::to_owned),
        serial: Serial::from_hex(serial),
        name: name.map(str::to_owned),
        architecture: architecture.map(str::to_owned),
    }
}

#[test]
fn both_generations_of_amd_smi_are_understood() {
    let [list, facts_24, metric, version, list_26, facts_26, metric_26, ..] =
        FIXTURES.map(|fixture| loose::first(fixture).unwrap());
    let named = |n: u64, facts: &Facts| (n, facts.clone());
    let mi300x = facts(Some("0000:05:00.0"), "abd13c23a9580558", Some("AMD Instinct MI300X"), Some("gfx942"));
    let w7700 = facts(Some("0000:c3:00.0"), "77091c467da33120", Some("AMD Radeon PRO W7700"), Some("gfx1101"));
    let both = [named(0, &mi300x), named(1, &w7700)].into();
    assert_eq!(amd_smi::facts(&facts_24), Some(both));
    let without_name = |facts: &Facts| Facts { name: None, architecture: None, ..facts.clone() };
    let both = [named(0, &without_name(&mi300x)), named(1, &without_name(&w7700))].into();
    assert_eq!(amd_smi::list(&list), Some(both), "the UUID of amd-smi and its serial are one number");
    let mi355x = facts(Some("0000:75:00.0"), "1032547698badcfe", Some("AMD Instinct MI355X"), Some("gfx950"));
    assert_eq!(amd_smi::facts(&facts_26), Some([named(0, &mi355x)].into()));
    assert_eq!(amd_smi::list(&list_26), Some([named(0, &without_name(&mi355x))].into()));
    assert_eq!(amd_smi::rocm_version(&version).as_deref(), Some("6.3.1"));
    let reading = |reasons: &[ThrottleReason], corrected, uncorrected| Reading {
        throttle_reasons: reasons.to_vec(),
        ecc_corrected: corrected,
        ecc_uncorrected: uncorrected,
    };
    let throttled = [ThrottleReason::SwPowerCap, ThrottleReason::HwThermal];
    let expected =
        [(0, reading(&throttled, Some(3), Some(0))), (1, reading(&[ThrottleReason::HwSlowdown], None, None))];
    assert_eq!(amd_smi::readings(&metric), Some(expected.into()));
    let expected = [(0, reading(&[ThrottleReason::HwSlowdown], Some(12), Some(1)))];
    assert_eq!(amd_smi::readings(&metric_26), Some(expected.into()));
    for other in ["{}", "[]", "[1, null]", "{\"gpu_data\": {}}", "{\"card0\": {}}", "[{\"cpu\": 0}]"] {
        let other = loose::first(other).unwrap();
        assert_eq!((amd_smi::list(&other), amd_smi::facts(&other), amd_smi::readings(&other)), (None, None, None));
    }
}

#[test]
fn both_generations_of_rocm_smi_are_understood() {
    let [.., old, new] = FIXTURES.map(|fixture| loose::first(fixture).unwrap());
    let name = "AMD INSTINCT MI200 (MCM) OAM LC MBA HPE C2";
    let first = facts(Some("0000:c9:00.0"), "5d1e9f30c72a4b86", Some(name), None);
    let second = facts(Some("0000:d1:00.0"), "", None, None);
    assert_eq!(rocm_smi::facts(&old), Some([(0, first), (1, second)].into()));
    let w7700 = facts(Some("0000:c3:00.0"), "77091c467da33120", Some("AMD Radeon PRO W7700"), Some("gfx1101"));
    assert_eq!(rocm_smi::facts(&new), Some([(0, w7700)].into()));
    assert_eq!(rocm_smi::facts(&loose::first("{\"system\": {}}").unwrap()), None);
}

#[test]
fn files_of_the_kernel_are_understood() {
    let table = "0: 500Mhz\n1: 2100Mhz *\n";
    assert_eq!(
        [table, "S: 19Mhz *\n0: 500Mhz\n", "0: 500Mhz\n", "*"].map(sysfs::clock_of),
        [Some(2_100), Some(19), None, None]
    );
    let speeds = ["32.0 GT/s PCIe", "2.5 GT/s", "16 GT/s", "Unknown", "1.0 GT/s"];
    assert_eq!(speeds.map(sysfs::generation_of), [Some(5), Some(1), Some(4), None, None]);
    let errors = |corrected, uncorrected| Some(sysfs::Errors { corrected, uncorrected });
    let files = ["ue: 1\nce: 20\n", "ue: 0\nce: 3\nde: 2\n", "Query currently inaccessible\n", "ce: 4"];
    assert_eq!(files.map(sysfs::errors_of), [errors(20, 1), errors(3, 0), None, errors(4, 0)]);
    let versions = [90_402, 90_010, 110_000, 120_001, 90_500, 0];
    let names = ["gfx942", "gfx90a", "gfx1100", "gfx1201", "gfx950"].map(|name| Some(name.to_owned()));
    assert_eq!(versions.map(kfd::architecture)[..5], names);
    assert_eq!(kfd::architecture(0), None, "a CPU");
    let properties = kfd::properties("simd_count 1216\nunique_id 12380493840000943448\nbroken\nname x\n");
    assert_eq!(
        properties.into_iter().collect::<Vec<_>>(),
        [("simd_count", 1_216), ("unique_id", 12_380_493_840_000_943_448)]
    );
}

/// A fixture with a piece of it replaced by something else.
fn damaged() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![Just(String::new()), "\\PC{0,12}", "[\\[\\]{}\":,0-9eE.N/A-]{0,12}", Just("1e999".to_owned())];
    (0..FIXTURES.len(), 0..3_000_usize, 0..60_usize, piece).prop_map(|(which, at, length, piece)| {
        let text = FIXTURES[which];
        let at = text.floor_char_boundary(at.min(text.len()));
        let end = text.floor_char_boundary((at + length).min(text.len()));
        format!("{}{piece}{}", &text[..at], &text[end..])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever a tool prints, reading it ends and panics nowhere; what is read is usable.
    #[test]
    fn damaged_outputs_are_survived(text in damaged()) {
        if let Some(output) = loose::first(&text) {
            let told = [amd_smi::list(&output), amd_smi::facts(&output), rocm_smi::facts(&output)];
            for facts in told.into_iter().flatten().flat_map(std::collections::BTreeMap::into_values) {
                prop_assert!(facts.serial.is_none_or(|serial| serial.uuid().0.len() == 20));
                prop_assert!(facts.address.is_none_or(|address| crate::gpu::merge::pci_address(&address) == Some(address.clone())));
            }
            for reading in amd_smi::readings(&output).into_iter().flat_map(std::collections::BTreeMap::into_values) {
                prop_assert!(reading.throttle_reasons.len() <= 3);
            }
            let _ = amd_smi::rocm_version(&output);
        }
    }

    #[test]
    fn damaged_files_are_survived(text in "[0-9a-zA-Z:*. \\n-]{0,80}") {
        let _ = (sysfs::clock_of(&text), sysfs::generation_of(&text), sysfs::errors_of(&text), kfd::properties(&text));
    }
}
