//! Exit codes of `claw`, as `claw --help` and the guide state them.

use std::process::ExitCode;

/// How a run of `claw` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// It was done.
    Ok = 0,
    /// The command line makes no sense.
    Usage = 1,
    /// The gateway refused, with a reason.
    Refused = 2,
    /// No valid key, or one that may not do this.
    Denied = 3,
    /// The gateway does not answer.
    Unreachable = 4,
    /// A fault of the gateway or of this machine.
    Fault = 5,
    /// Waited, but the result did not come, or the workload failed.
    NotReached = 6,
}

impl Exit {
    /// All codes, in order.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Usage, Self::Refused, Self::Denied, Self::Unreachable, Self::Fault, Self::NotReached];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means, for the help text.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Usage => "the command line makes no sense",
            Self::Refused => "refused, with a reason and what to do next",
            Self::Denied => "no valid key, or one that may not do this",
            Self::Unreachable => "the gateway does not answer",
            Self::Fault => "a fault of the gateway or of this machine",
            Self::NotReached => "waited, but the result did not come, or the workload or operation failed",
        }
    }

    /// The table of the help text.
    pub fn table() -> String {
        let line = |exit: &Self| format!("  {}  {}", exit.code(), exit.meaning());
        Self::ALL.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
