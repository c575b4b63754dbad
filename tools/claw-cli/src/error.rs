//! Why a command did not come to its end.

use std::io;
use std::path::PathBuf;

use claw_tools::refusal::{ErrorCode, Fault, Refusal};
use serde_json::Value;

use crate::exit::Exit;

/// An error of the CLI. The gateway's own words (refusals and faults) are kept whole.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The gateway refused.
    #[error("{refusal}")]
    Refused {
        /// What it said.
        refusal: Box<Refusal>,
        /// The same, exactly as sent.
        content: Value,
    },
    /// A fault of the gateway.
    #[error("{} ({})", fault.message, fault.fault_id)]
    Fault {
        /// What it said.
        fault: Fault,
        /// The same, exactly as sent.
        content: Value,
    },
    /// The gateway does not know the key.
    #[error("the gateway at {url} does not take this key")]
    Unauthenticated {
        /// Where.
        url: String,
    },
    /// The key may not talk to this endpoint at all.
    #[error("this key may not use {url}")]
    Forbidden {
        /// Where.
        url: String,
    },
    /// Nobody answers.
    #[error("the gateway at {url} does not answer: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// What the network said.
        why: String,
    },
    /// The key has made too many calls.
    #[error("the gateway at {url} takes no more calls of this key for the moment")]
    Busy {
        /// Where.
        url: String,
        /// When it may take one again, seconds.
        retry_after_s: u64,
    },
    /// Somebody answers, but not as a gateway does.
    #[error("the answer of {url} cannot be used: {why}")]
    Protocol {
        /// Where.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The URL, the key or a certificate of the gateway cannot be used.
    #[error("{what} cannot be used: {why}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An argument that should be JSON (or TOML) is not.
    #[error("{what} is not valid {form}: {why}")]
    Malformed {
        /// Which argument.
        what: String,
        /// `JSON` or `TOML`.
        form: &'static str,
        /// Where it breaks.
        why: String,
    },
    /// Arguments that exclude each other, or miss each other.
    #[error("{0}")]
    Usage(&'static str),
    /// A name that nothing here has.
    #[error("there is no {what} called {name:?}{near}")]
    NotKnown {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
        /// Names that are like it, in words; may be empty.
        near: String,
    },
    /// A benchmark found something else than it planted.
    #[error("found and planted differ: {what}")]
    Missed {
        /// The codes that differ, each with how often it was found and planted.
        what: String,
    },
    /// A program that `claw up` needs is not there.
    #[error("the program {name} stands neither beside claw nor in PATH")]
    ProgramMissing {
        /// Its name.
        name: &'static str,
    },
    /// A program that `claw up` started did not do what it should.
    #[error("{name} {why}")]
    Child {
        /// Its name.
        name: &'static str,
        /// What happened.
        why: String,
        /// The last lines that it wrote.
        log: Vec<String>,
    },
    /// A person was asked and did not agree.
    #[error("not confirmed: nothing was changed")]
    NotConfirmed,
    /// The plan that was confirmed is not the plan that would be applied.
    #[error("no waiting plan of {tool} has a hash that begins with {wanted}; now it would be {now}")]
    HashDiffers {
        /// Which operation.
        tool: String,
        /// What was confirmed.
        wanted: String,
        /// What the fleet of this moment gives.
        now: String,
    },
    /// Text could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl CliError {
    /// The exit code for it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused { refusal, .. } => match refusal.code {
                ErrorCode::Unauthenticated | ErrorCode::Forbidden => Exit::Denied,
                _ => Exit::Refused,
            },
            Self::Unauthenticated { .. } | Self::Forbidden { .. } => Exit::Denied,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Fault { .. }
            | Self::Protocol { .. }
            | Self::Child { .. }
            | Self::ProgramMissing { .. }
            | Self::Missed { .. }
            | Self::Io(_) => Exit::Fault,
            Self::Setting { .. }
            | Self::File { .. }
            | Self::Malformed { .. }
            | Self::Usage(_)
            | Self::NotKnown { .. } => Exit::Usage,
            Self::NotConfirmed | Self::HashDiffers { .. } | Self::Busy { .. } => Exit::Refused,
        }
    }

    /// What a person can do about it; empty if the error says it itself.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unauthenticated { .. } => {
                "give a key by CLAW_API_KEY, --key-file or --data-dir; `claw doctor` shows which one is used"
            }
            Self::Forbidden { .. } => "ask an admin for a key with a role that may do this",
            Self::Unreachable { .. } => {
                "is it running? `claw up` starts one here; CLAW_GATEWAY or --gateway names another"
            }
            Self::Busy { .. } => "the same call may succeed later; limits.requests_per_s is the gateway's setting",
            Self::Protocol { .. } => "is this the URL of a gateway's MCP endpoint (…/mcp)?",
            Self::ProgramMissing { .. } => "build the workspace, or put the program beside claw or into PATH",
            Self::HashDiffers { .. } => "look at the plan again: the same command with --mode plan",
            Self::Refused { .. }
            | Self::Fault { .. }
            | Self::Setting { .. }
            | Self::File { .. }
            | Self::Malformed { .. }
            | Self::Usage(_)
            | Self::NotKnown { .. }
            | Self::Missed { .. }
            | Self::Child { .. }
            | Self::NotConfirmed
            | Self::Io(_) => "",
        }
    }

    /// A file error.
    pub fn file(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { path: path.into(), source }
    }
}
