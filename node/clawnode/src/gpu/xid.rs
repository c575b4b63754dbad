//! What an Xid of the NVIDIA driver means for the GPU that reported it.
//!
//! The node asks one question only: may work go on here? Finding the cause is
//! the gateway's business. The table follows NVIDIA's Xid catalog for Ampere and
//! newer as of 2025-10-29 (<https://docs.nvidia.com/deploy/xid-errors>): what
//! asks for a reset or a reboot has failed; what asks for a look or may hurt the
//! next workload is degraded; faults of applications, and what the driver mends
//! by itself, are only noted. A code that the catalog does not have is noted
//! too: nothing is guessed.

use claw_proto::topology::GpuHealth;

/// What to do about a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is an event; the GPU stays healthy.
    Noted,
    /// No new work; what runs goes on.
    Degraded,
    /// Unusable until it is reset or replaced.
    Failed,
}

impl Severity {
    /// Health of a GPU with such an Xid.
    pub const fn health(self) -> GpuHealth {
        match self {
            Self::Noted => GpuHealth::Healthy,
            Self::Degraded => GpuHealth::Degraded,
            Self::Failed => GpuHealth::Failed,
        }
    }
}

/// Highest code of the catalog.
const CODE_MAX: u32 = 173;

/// Codes that are more than noted.
#[rustfmt::skip]
const TABLE: &[(u32, Severity, &str)] = &[
    (46, Severity::Failed, "the GPU stopped processing"),
    (48, Severity::Failed, "uncorrectable memory error"),
    (54, Severity::Degraded, "auxiliary power is missing"),
    (62, Severity::Failed, "its micro-controller halted"),
    (64, Severity::Failed, "a memory row could not be remapped"),
    (74, Severity::Degraded, "NVLink error"),
    (79, Severity::Failed, "the GPU has fallen off the bus"),
    (95, Severity::Failed, "uncontained memory error"),
    (109, Severity::Degraded, "timeout of a context switch"),
    (110, Severity::Failed, "security fault"),
    (119, Severity::Failed, "its system processor does not answer"),
    (120, Severity::Failed, "error of its system processor"),
    (123, Severity::Degraded, "its flash cannot be written"),
    (136, Severity::Failed, "training of an NVLink failed"),
    (140, Severity::Failed, "memory error that escaped correction"),
    (142, Severity::Degraded, "error of a video encoder"),
    (143, Severity::Failed, "the driver cannot start the GPU"),
    (144, Severity::Degraded, "NVLink error (SAW)"),
    (145, Severity::Degraded, "NVLink error (RLW)"),
    (146, Severity::Degraded, "NVLink error (TLW)"),
    (147, Severity::Degraded, "NVLink error (TREX)"),
    (148, Severity::Degraded, "NVLink error (NVLPW)"),
    (149, Severity::Degraded, "NVLink error (NETIR)"),
    (150, Severity::Degraded, "NVLink error (MSE)"),
    (151, Severity::Degraded, "key rotation failed"),
    (154, Severity::Degraded, "the driver asks for a recovery action"),
    (155, Severity::Failed, "NVLink error found by software"),
    (156, Severity::Failed, "a resource was retired"),
    (157, Severity::Degraded, "a resource could not be retired"),
    (158, Severity::Failed, "fatal timeout inside the GPU"),
    (167, Severity::Failed, "fatal PCIe timeout"),
    (168, Severity::Degraded, "less memory than it should have"),
    (169, Severity::Failed, "its security processor halted"),
    (173, Severity::Failed, "the link between chips failed"),
];

/// The verdict about one Xid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What to do about the GPU.
    pub severity: Severity,
    /// What happened, in words.
    pub meaning: &'static str,
}

/// What an Xid means.
pub fn judge(code: u32) -> Verdict {
    if let Some((_, severity, meaning)) = TABLE.iter().find(|(known, _, _)| *known == code) {
        return Verdict { severity: *severity, meaning };
    }
    let meaning = match code {
        13 | 31 | 43 | 45 | 69 => "fault of an application, which was stopped",
        63 => "a memory row will be remapped at the next reset",
        92 => "many corrected memory errors",
        94 => "memory error that hit one application only",
        1..=CODE_MAX => "not serious for the GPU",
        0 | 174.. => "a code that is not in the catalog; collect a bug report",
    };
    Verdict { severity: Severity::Noted, meaning }
}

/// What the driver wants done with a GPU (its recovery action, as in Xid 154).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing: what happened before is mended.
    None,
    /// A reset or a reboot; nothing can run until then.
    Needed(&'static str),
    /// To be drained: what runs may end first.
    Drain(&'static str),
}

impl Recovery {
    /// From the number that NVML gives; an unknown one says nothing.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Needed("reset the GPU")),
            2 => Some(Self::Needed("reboot the node")),
            3 => Some(Self::Drain("drain peer-to-peer work")),
            4 => Some(Self::Drain("drain the GPU, then reset it")),
            5 => Some(Self::Drain("recover the IMEX domain")),
            6 => Some(Self::Needed("reset the PCIe bus")),
            7 => Some(Self::Needed("reboot the system")),
            8.. => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn every_code_has_one_verdict() {
        assert!(TABLE.is_sorted_by(|(a, _, _), (b, _, _)| a < b));
        let codes = |severity: Severity| {
            let of = (0..=u32::from(u8::MAX)).filter(|code| judge(*code).severity == severity);
            of.map(|code| code.to_string()).collect::<Vec<_>>().join(" ")
        };
        expect!["46 48 62 64 79 95 110 119 120 136 140 143 155 156 158 167 169 173"]
            .assert_eq(&codes(Severity::Failed));
        expect!["54 74 109 123 142 144 145 146 147 148 149 150 151 154 157 168"].assert_eq(&codes(Severity::Degraded));
        assert!(judge(999).meaning.contains("not in the catalog"));
        assert_eq!(judge(31).severity.health(), GpuHealth::Healthy);
    }
}
