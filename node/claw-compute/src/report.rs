//! What `claw-gpu-probe` says: one JSON document on standard output.
//!
//! Fields are only ever added, and each addition raises [`SCHEMA_VERSION`]; a reader
//! takes what it knows and ignores the rest, so a newer probe can be read. Whoever
//! reads is in another process and trusts nothing: sizes are limited by
//! [`Document::parse`].

use serde::{Deserialize, Serialize};

/// Version of the document that is written here.
pub const SCHEMA_VERSION: u32 = 1;
/// Name of the program.
pub const PROGRAM: &str = "claw-gpu-probe";
/// Longest document that is read, bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Most devices of one document.
pub const DEVICES_MAX: usize = 256;
/// Most memory heaps of one device (`VK_MAX_MEMORY_HEAPS`).
pub const HEAPS_MAX: usize = 16;
/// Longest text in a document, characters (`VK_MAX_DRIVER_INFO_SIZE`).
pub const TEXT_CHARS_MAX: usize = 256;

/// One document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA_VERSION`] of who wrote it.
    pub schema_version: u32,
    /// Version of the probe.
    pub probe_version: String,
    /// What came out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came out, under its own key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Of `list`.
    List(ListReport),
    /// Of `check`.
    Check(CheckReport),
    /// Of either, if it could not be done.
    Error(ProbeError),
}

/// What the Vulkan loader sees.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListReport {
    /// Version of the Vulkan API that the loader speaks, such as 1.3.239.
    pub loader_version: String,
    /// Its devices, in its order. Empty if no driver is installed or none has a device.
    pub devices: Vec<DeviceReport>,
}

/// One device of the Vulkan loader.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceReport {
    /// Name that its driver gives it.
    pub name: String,
    /// Vendor; below 0x10000 the PCI vendor id.
    pub vendor_id: u32,
    /// The vendor's number of the model; the PCI device id of a PCI device.
    pub device_id: u32,
    /// What kind of device it is.
    pub kind: DeviceKind,
    /// The host's processors do its work: it is no GPU.
    pub software: bool,
    /// Version of the Vulkan API that it speaks.
    pub api_version: String,
    /// Which driver it is (`VkDriverId`); 0 if it does not tell.
    pub driver_id: u32,
    /// The driver's name; empty if it does not tell.
    pub driver_name: String,
    /// The driver's own words about its version; empty if it does not tell.
    pub driver_info: String,
    /// Version of the driver, read as its vendor packs it.
    pub driver_version: String,
    /// `deviceUUID`, 32 hexadecimal digits: the same in every process and after a reboot.
    pub uuid: Option<String>,
    /// `domain:bus:device.function` (`VK_EXT_pci_bus_info`).
    pub pci_address: Option<String>,
    /// Its memory.
    pub heaps: Vec<HeapReport>,
}

/// One memory heap of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HeapReport {
    /// Size, bytes.
    pub size_bytes: u64,
    /// It is the device's own memory.
    pub device_local: bool,
    /// How much a process could take now, as the driver estimates it (`VK_EXT_memory_budget`), bytes.
    pub budget_bytes: Option<u64>,
}

/// `VkPhysicalDeviceType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A share of a GPU in a virtual machine.
    Virtual,
    /// The host's processors.
    Cpu,
    /// Anything else.
    #[default]
    #[serde(other)]
    Other,
}

/// What the kernels said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Every number was what it has to be.
    pub passed: bool,
    /// Numbers that were not.
    pub mismatches: u64,
    /// All kernels with their compilation and copies, milliseconds.
    pub elapsed_ms: f64,
    /// Which runtime ran them.
    pub runtime: String,
    /// The host's processors did the work: this says nothing about a GPU.
    pub software: bool,
    /// On which device.
    pub device: CheckedDevice,
    /// The kernels one by one.
    pub kernels: Vec<KernelReport>,
}

/// The device that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckedDevice {
    /// Its name.
    pub name: String,
    /// As in [`DeviceReport::uuid`].
    pub uuid: Option<String>,
    /// As in [`DeviceReport::pci_address`].
    pub pci_address: Option<String>,
}

/// One kernel that ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelReport {
    /// Which.
    pub name: String,
    /// Numbers that were compared with the CPU's.
    pub n_compared: u64,
    /// Numbers that were not the same.
    pub mismatches: u64,
    /// With compilation and copies, milliseconds.
    pub elapsed_ms: f64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ProbeError {
    /// What kind of reason.
    pub code: ErrorCode,
    /// What happened.
    pub message: String,
}

impl ProbeError {
    /// An error of a kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Kinds of errors, each with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The Vulkan loader (`libvulkan.so.1`) is not on the machine.
    NoLoader,
    /// The library of another runtime (`libcuda.so.1`, `libamdhip64.so`) is not on the machine.
    NoRuntime,
    /// The runtime is not in this build.
    NotBuilt,
    /// No such device.
    NoDevice,
    /// The runtime took another device than the one that was asked for.
    WrongDevice,
    /// The device was lost while it worked.
    DeviceLost,
    /// It took too long.
    Timeout,
    /// The loader or a driver refused a call.
    DriverFailed,
    /// The compute runtime failed.
    RuntimeFailed,
    /// A kind that this reader does not know.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// Exit code of a probe that fails so. 0 and 1 are those of a check that passed
    /// and of one that did not, 2 is that of wrong arguments.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::NoLoader | Self::NoRuntime => 3,
            Self::NoDevice | Self::WrongDevice => 4,
            Self::DeviceLost => 5,
            Self::Timeout => 6,
            Self::DriverFailed | Self::RuntimeFailed | Self::Unknown => 7,
            Self::NotBuilt => 8,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::NoLoader => "NO_LOADER",
            Self::NoRuntime => "NO_RUNTIME",
            Self::NotBuilt => "NOT_BUILT",
            Self::NoDevice => "NO_DEVICE",
            Self::WrongDevice => "WRONG_DEVICE",
            Self::DeviceLost => "DEVICE_LOST",
            Self::Timeout => "TIMEOUT",
            Self::DriverFailed => "DRIVER_FAILED",
            Self::RuntimeFailed => "RUNTIME_FAILED",
            Self::Unknown => "UNKNOWN",
        };
        f.write_str(text)
    }
}

/// Why something is no document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is too long.
    #[error("{n_bytes} bytes, at most {DOCUMENT_BYTES_MAX} are read")]
    TooLong {
        /// Its length.
        n_bytes: usize,
    },
    /// It is not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// No probe writes this version.
    #[error("schema_version {got}")]
    Version {
        /// What was given.
        got: u32,
    },
    /// It lists too much.
    #[error("{got} {what}, at most {max} are read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        got: usize,
        /// How many are read.
        max: usize,
    },
}

impl Document {
    /// A document of this version.
    pub fn new(outcome: Outcome) -> Self {
        Self { schema_version: SCHEMA_VERSION, probe_version: env!("CARGO_PKG_VERSION").to_owned(), outcome }
    }

    /// Reads what a probe wrote, of this version or a newer one. Texts come out without
    /// control characters and cut at [`TEXT_CHARS_MAX`].
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError::TooLong { n_bytes: bytes.len() });
        }
        let mut document: Self = serde_json::from_slice(bytes)?;
        if document.schema_version == 0 {
            return Err(DocumentError::Version { got: 0 });
        }
        clean(&mut document.probe_version);
        match &mut document.outcome {
            Outcome::List(list) => list.limit()?,
            Outcome::Check(check) => check.limit(),
            Outcome::Error(error) => clean(&mut error.message),
        }
        Ok(document)
    }
}

impl ListReport {
    fn limit(&mut self) -> Result<(), DocumentError> {
        let few = |what, got: usize, max: usize| {
            if got > max { Err(DocumentError::TooMany { what, got, max }) } else { Ok(()) }
        };
        few("devices", self.devices.len(), DEVICES_MAX)?;
        clean(&mut self.loader_version);
        for device in &mut self.devices {
            few("heaps", device.heaps.len(), HEAPS_MAX)?;
            device.uuid = device.uuid.take().and_then(|uuid| canonical_uuid(&uuid));
            for text in [
                &mut device.name,
                &mut device.api_version,
                &mut device.driver_name,
                &mut device.driver_info,
                &mut device.driver_version,
            ] {
                clean(text);
            }
            if let Some(address) = &mut device.pci_address {
                clean(address);
            }
        }
        Ok(())
    }
}

impl CheckReport {
    fn limit(&mut self) {
        clean(&mut self.runtime);
        clean(&mut self.device.name);
        for kernel in &mut self.kernels {
            clean(&mut kernel.name);
        }
    }
}

/// 32 hexadecimal digits, however they were grouped and whatever their case.
pub fn canonical_uuid(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    (digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(digits)
}

fn clean(text: &mut String) {
    if text.chars().any(char::is_control) || text.chars().count() > TEXT_CHARS_MAX {
        *text = text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect();
    }
}

#[cfg(test)]
mod tests;
