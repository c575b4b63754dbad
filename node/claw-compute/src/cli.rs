//! The arguments of `claw-gpu-probe`, and what it does about them.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::device::ComputeDevice;
use crate::report::{self, DeviceReport, Document, ErrorCode, Outcome, ProbeError};
use crate::{check, vulkan};

/// Exit code of a check that found wrong numbers.
pub const EXIT_MISMATCHES: u8 = 1;

const EXIT_CODES: &str = "\
Standard output holds one JSON document with schema_version and one of list, check and error.
What drivers print goes to standard error.

Exit codes:
  0  done; a check passed
  1  a check found wrong numbers
  2  wrong arguments (no document)
  3  NO_LOADER, NO_RUNTIME: the library of the runtime is not on this machine
  4  NO_DEVICE, WRONG_DEVICE
  5  DEVICE_LOST
  6  TIMEOUT
  7  DRIVER_FAILED, RUNTIME_FAILED
  8  NOT_BUILT: the runtime is not in this build";

/// Lists GPUs through Vulkan and proves that they compute.
#[derive(Debug, Parser)]
#[command(name = report::PROGRAM, version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the devices of the Vulkan loader, software ones too.
    List {
        /// Give up after so many milliseconds.
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
        timeout_ms: u64,
    },
    /// Run kernels on a device and compare every number with the CPU's.
    Check {
        /// With vulkan: UUID or PCI address, as `list` shows them. With cuda and hip: the runtime's number of the
        /// device.
        #[arg(long)]
        device: String,
        /// Who runs the kernels.
        #[arg(long, value_enum, default_value_t = RuntimeName::Vulkan)]
        runtime: RuntimeName,
        /// Give up after so many milliseconds.
        #[arg(long, default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(1..))]
        timeout_ms: u64,
    },
}

/// Who runs kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeName {
    /// Any device of the Vulkan loader.
    Vulkan,
    /// NVIDIA's, in a build with the feature cuda; untested on hardware.
    Cuda,
    /// AMD's, in a build with the feature hip; untested on hardware.
    Hip,
}

impl RuntimeName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
            Self::Hip => "hip",
        }
    }
}

impl Command {
    /// How long it may take.
    pub fn timeout(&self) -> Duration {
        let (Self::List { timeout_ms } | Self::Check { timeout_ms, .. }) = self;
        Duration::from_millis(*timeout_ms)
    }

    /// Does it.
    pub fn run(&self) -> Document {
        let outcome = match self {
            Self::List { .. } => vulkan::list().map(Outcome::List),
            Self::Check { device, runtime, .. } => check_device(device, *runtime).map(Outcome::Check),
        };
        Document::new(outcome.unwrap_or_else(Outcome::Error))
    }
}

/// Exit code that goes with a document.
pub fn exit_code(document: &Document) -> ExitCode {
    ExitCode::from(match &document.outcome {
        Outcome::List(_) => 0,
        Outcome::Check(check) if check.passed => 0,
        Outcome::Check(_) => EXIT_MISMATCHES,
        Outcome::Error(error) => error.code.exit_code(),
    })
}

fn check_device(name: &str, runtime: RuntimeName) -> Result<report::CheckReport, ProbeError> {
    if runtime == RuntimeName::Vulkan {
        let devices = vulkan::list()?.devices;
        let index = find(&devices, name)?;
        let device = ComputeDevice::open_vulkan(&devices, index)?;
        return check::run(&device, runtime.as_str(), devices.get(index));
    }
    let index: usize = name.parse().map_err(|_| {
        let message = format!("{name:?} is no number of a device of {}", runtime.as_str());
        ProbeError::new(ErrorCode::NoDevice, message)
    })?;
    check::run(&open_numbered(runtime, index)?, runtime.as_str(), None)
}

fn open_numbered(runtime: RuntimeName, index: usize) -> Result<ComputeDevice, ProbeError> {
    match runtime {
        #[cfg(feature = "cuda")]
        RuntimeName::Cuda => ComputeDevice::open_cuda(index),
        #[cfg(feature = "hip")]
        RuntimeName::Hip => ComputeDevice::open_hip(index),
        runtime => {
            let message = format!("device {index}: {} is not in this build", runtime.as_str());
            Err(ProbeError::new(ErrorCode::NotBuilt, message))
        }
    }
}

/// The device of a UUID or a PCI address.
fn find(devices: &[DeviceReport], name: &str) -> Result<usize, ProbeError> {
    let uuid = report::canonical_uuid(name);
    let address = name.to_ascii_lowercase();
    let is_it = |device: &DeviceReport| {
        (uuid.is_some() && device.uuid == uuid) || device.pci_address.as_deref() == Some(address.as_str())
    };
    let known = || {
        let name = |device: &DeviceReport| device.uuid.clone().or_else(|| device.pci_address.clone());
        let names = devices.iter().filter_map(name).collect::<Vec<_>>().join(", ");
        if names.is_empty() { "none".to_owned() } else { names }
    };
    devices.iter().position(is_it).ok_or_else(|| {
        let message = format!("no device {name}; there are: {}", known());
        ProbeError::new(ErrorCode::NoDevice, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_uuid_or_address() {
        let device = |uuid: &str, address: Option<&str>| DeviceReport {
            uuid: Some(uuid.repeat(16)),
            pci_address: address.map(str::to_owned),
            ..DeviceReport::default()
        };
        let devices = [device("a1", None), device("b2", Some("0000:c1:00.0"))];
        assert_eq!(find(&devices, &"A1".repeat(16)), Ok(0));
        assert_eq!(find(&devices, "0000:C1:00.0"), Ok(1));
        let error = find(&devices, "0000:c2:00.0").unwrap_err();
        assert_eq!(error.code, ErrorCode::NoDevice);
        assert!(error.message.contains(&"a1".repeat(16)), "{error}");
        assert_eq!(find(&[DeviceReport::default()], "").unwrap_err().code, ErrorCode::NoDevice);
    }

    #[test]
    fn the_help_tells_every_exit_code() {
        let codes = [
            ErrorCode::NoLoader,
            ErrorCode::NoRuntime,
            ErrorCode::NotBuilt,
            ErrorCode::NoDevice,
            ErrorCode::WrongDevice,
            ErrorCode::DeviceLost,
            ErrorCode::Timeout,
            ErrorCode::DriverFailed,
            ErrorCode::RuntimeFailed,
        ];
        for code in codes {
            let of_its_number = format!("  {}  ", code.exit_code());
            let line = EXIT_CODES.lines().find(|line| line.starts_with(&of_its_number));
            assert!(line.is_some_and(|line| line.contains(&code.to_string())), "{code}");
        }
    }
}
