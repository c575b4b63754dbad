//! The words of a verdict: codes, classes and actions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a fault: a numbered code of NVIDIA, or one of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// An error of a GPU, by the number its driver printed.
    Xid(u32),
    /// An error of an `NVSwitch`, by its number.
    Sxid(u32),
    /// Any other, by the name in `rules/codes.toml`.
    Named(Arc<str>),
}

impl Code {
    /// Is it one of these Xid numbers?
    pub fn is_xid(&self, numbers: &[u32]) -> bool {
        matches!(self, Self::Xid(number) if numbers.contains(number))
    }

    /// The name, if it is no numbered code.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Xid(_) | Self::Sxid(_) => None,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xid(number) => write!(f, "xid_{number}"),
            Self::Sxid(number) => write!(f, "sxid_{number}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// A text that is no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no code: {text:?}")]
pub struct NotACode {
    /// What was given.
    pub text: String,
}

impl FromStr for Code {
    type Err = NotACode;

    fn from_str(text: &str) -> Result<Self, NotACode> {
        let refused = || NotACode { text: text.chars().take(64).collect() };
        if let Some(number) = text.strip_prefix("xid_") {
            return number.parse().map(Self::Xid).map_err(|_| refused());
        }
        if let Some(number) = text.strip_prefix("sxid_") {
            return number.parse().map(Self::Sxid).map_err(|_| refused());
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if text.is_empty() || !text.chars().all(plain) {
            return Err(refused());
        }
        Ok(Self::Named(text.into()))
    }
}

/// Where the fault lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The program.
    App,
    /// The driver or a processor of the GPU.
    Driver,
    /// The GPU's memory.
    Memory,
    /// A link between GPUs.
    Link,
    /// PCI Express.
    Bus,
    /// Cooling.
    Thermal,
    /// Power.
    Power,
    /// A switch or the network.
    Fabric,
    /// The host beside its GPUs.
    Host,
    /// The container image.
    Image,
    /// Settings.
    Config,
    /// Nothing, or nothing known.
    None,
}

impl Class {
    /// Its word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Driver => "driver",
            Self::Memory => "memory",
            Self::Link => "link",
            Self::Bus => "bus",
            Self::Thermal => "thermal",
            Self::Power => "power",
            Self::Fabric => "fabric",
            Self::Host => "host",
            Self::Image => "image",
            Self::Config => "config",
            Self::None => "none",
        }
    }
}

/// What to do first, ordered by harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing happened.
    None,
    /// Keep the record, do nothing.
    Ignore,
    /// Look at cables, modules and seating.
    CheckLink,
    /// Change the program.
    FixApp,
    /// Change a setting, an image or a version.
    FixConfig,
    /// Start the program again.
    RestartApp,
    /// Collect a report and ask the vendor.
    ContactSupport,
    /// Reset the GPU.
    ResetGpu,
    /// Take work off the GPU, then reset it.
    DrainAndReset,
    /// Restart the machine.
    RebootNode,
    /// Hands on the hardware.
    Service,
}

impl Action {
    /// Its word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ignore => "ignore",
            Self::CheckLink => "check_link",
            Self::FixApp => "fix_app",
            Self::FixConfig => "fix_config",
            Self::RestartApp => "restart_app",
            Self::ContactSupport => "contact_support",
            Self::ResetGpu => "reset_gpu",
            Self::DrainAndReset => "drain_and_reset",
            Self::RebootNode => "reboot_node",
            Self::Service => "service",
        }
    }

    /// Does it touch hardware that other work may use?
    pub fn is_hardware(self) -> bool {
        matches!(self, Self::ResetGpu | Self::DrainAndReset | Self::RebootNode | Self::Service)
    }
}
