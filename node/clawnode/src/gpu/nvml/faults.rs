//! What NVML's errors mean: for the driver as a whole, and for one GPU.

use claw_proto::topology::{FindingCode, GpuHealth, NodeFinding};
use nvml_wrapper::error::NvmlError;

/// Name of this driver in findings.
pub(super) const SUBJECT: &str = "nvml";

/// Something that is wrong, and how bad it makes a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: FindingCode,
    pub(super) health: GpuHealth,
    pub(super) reason: String,
}

impl Fault {
    fn new(code: FindingCode, health: GpuHealth, reason: impl Into<String>) -> Self {
        Self { code, health, reason: reason.into() }
    }

    pub(super) fn finding(&self, subject: &str) -> NodeFinding {
        NodeFinding { code: self.code, subject: subject.to_owned(), detail: self.reason.clone() }
    }
}

/// Why nothing can be asked at all, and what that means for the GPUs that are known.
pub(super) fn of_driver(error: &NvmlError) -> Fault {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => {
            let reason = format!("libnvidia-ml.so.1 cannot be loaded: {}", innermost(error));
            Fault::new(FindingCode::DriverAbsentLibrary, GpuHealth::Degraded, reason)
        }
        NvmlError::FailedToLoadSymbol(what) => {
            let reason = format!("libnvidia-ml.so.1 is no management library, or too old: {what}");
            Fault::new(FindingCode::DriverAbsentLibrary, GpuHealth::Degraded, reason)
        }
        NvmlError::DriverNotLoaded => Fault::new(
            FindingCode::DriverNotLoaded,
            GpuHealth::Failed,
            "the NVIDIA kernel driver is not loaded; load it (modprobe nvidia) or look at dmesg",
        ),
        // What runs goes on with the old library; nothing new can start.
        NvmlError::LibRmVersionMismatch => Fault::new(
            FindingCode::DriverVersionMismatch,
            GpuHealth::Degraded,
            "library and kernel driver differ in version; reload the driver or reboot",
        ),
        NvmlError::NoPermission => Fault::new(
            FindingCode::DriverFailed,
            GpuHealth::Degraded,
            "no permission to talk to the driver; look at /dev/nvidia* and the agent's user",
        ),
        error => Fault::new(FindingCode::DriverFailed, GpuHealth::Degraded, error.to_string()),
    }
}

/// An error that is about the driver as a whole, whichever call it came from.
pub(super) fn is_of_driver(error: &NvmlError) -> bool {
    matches!(error, NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch | NvmlError::Uninitialized)
}

/// What an error says about one GPU; nothing if it only says that a number is not available.
pub(super) fn of_gpu(error: &NvmlError) -> Option<Fault> {
    let (code, health, reason) = match error {
        NvmlError::GpuLost => (FindingCode::GpuLost, GpuHealth::Failed, "it has fallen off the bus or does not answer"),
        NvmlError::ResetRequired => (FindingCode::GpuNeedsReset, GpuHealth::Failed, "it has to be reset"),
        NvmlError::NoPermission => (FindingCode::DriverFailed, GpuHealth::Degraded, "no permission to use it"),
        NvmlError::OperatingSystem => {
            (FindingCode::DriverFailed, GpuHealth::Degraded, "the system (a control group) blocks it")
        }
        NvmlError::InsufficientPower => {
            (FindingCode::DriverFailed, GpuHealth::Failed, "its power cables are not properly attached")
        }
        NvmlError::IrqIssue => (FindingCode::DriverFailed, GpuHealth::Degraded, "its interrupts do not arrive"),
        NvmlError::Unknown => (FindingCode::DriverFailed, GpuHealth::Degraded, "the driver reports an internal error"),
        _ => return None,
    };
    Some(Fault::new(code, health, reason))
}

/// The loader's own words: the wrapper's say only that loading failed.
fn innermost(error: &NvmlError) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}
