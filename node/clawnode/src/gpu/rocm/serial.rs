//! The number that an AMD GPU has of its own, and the UUID that is made of it.
//!
//! The driver shows it as `unique_id` in sysfs and in KFD's topology. ROCm's
//! run time writes it as `GPU-` and sixteen hexadecimal digits (`rocminfo`, and
//! what `ROCR_VISIBLE_DEVICES` takes): that is our UUID too. `amd-smi` writes
//! another UUID that is put together from the same number and the PCI device
//! id, so one can be had from the other.

use std::fmt;

use claw_proto::ids::GpuUuid;

/// A GPU's own number; never zero, which stands for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Serial(u64);

impl Serial {
    /// From a number.
    pub(super) fn new(number: u64) -> Option<Self> {
        (number != 0 && number != u64::MAX).then_some(Self(number))
    }

    /// From hexadecimal digits, as sysfs (`unique_id`) and the tools write them.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| plain).and_then(Self::new)
    }

    /// From the UUID of `amd-smi`: byte 7 of the number, `ff`, the device id; two
    /// constant groups; the variant and byte 6; bytes 5 to 0.
    pub(super) fn from_uuid(uuid: &str) -> Option<Self> {
        let groups: Vec<&str> = uuid.trim().split('-').collect();
        let [first, _, _, fourth, last] = groups.as_slice() else { return None };
        if (first.len(), fourth.len(), last.len()) != (8, 4, 12) || !uuid.is_ascii() {
            return None;
        }
        Self::from_hex(&format!("{}{}{last}", &first[..2], &fourth[2..]))
    }

    /// Our UUID.
    pub(super) fn uuid(self) -> GpuUuid {
        GpuUuid(format!("GPU-{self}"))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The UUID of a GPU that has no number of its own (consumer cards before 2017,
/// integrated ones): it is bound to its slot.
pub(super) fn uuid_of_slot(device_id: u16, address: &str) -> GpuUuid {
    GpuUuid(format!("AMD-{device_id:04x}-{address}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What amd-smi makes of a number (amd_smi_uuid.cc).
    fn amd_smi_uuid(number: u64, device_id: u16) -> String {
        let byte = |n: u32| (number >> (8 * n)) & 0xff;
        format!("{:02x}ff{device_id:04x}-0000-1000-80{:02x}-{:012x}", byte(7), byte(6), number & 0xffff_ffff_ffff)
    }

    proptest! {
        #[test]
        fn every_source_gives_one_uuid(number in 1..u64::MAX, device_id: u16) {
            let serial = Serial::new(number);
            prop_assert_eq!(Serial::from_hex(&format!("{number:016x}\n")), serial, "sysfs");
            prop_assert_eq!(Serial::from_hex(&format!("{number:#x}")), serial, "rocm-smi, asic_serial");
            prop_assert_eq!(Serial::from_uuid(&amd_smi_uuid(number, device_id)), serial, "amd-smi list");
        }

        #[test]
        fn nonsense_is_no_serial(text in "\\PC{0,40}") {
            let _ = (Serial::from_uuid(&text), Serial::from_hex(&text));
        }
    }

    #[test]
    fn a_uuid_of_amd_smi_is_taken_apart() {
        // From ROCm/amdsmi issue 132 (MI300X).
        let serial = Serial::from_uuid("abff74a1-0000-1000-80d1-3c23a9580558").unwrap();
        assert_eq!(serial.uuid().0, "GPU-abd13c23a9580558");
        assert_eq!(Serial::from_hex("0"), None);
        assert_eq!(Serial::from_hex("+1"), None);
    }
}
