//! The words of a verdict: codes, classes and actions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use claw_tools::diagnosis::{FaultAction as Action, FaultClass as Class};

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
