//! Commands inside workloads.

use claw_proto::message::TaskErrorCode;
use claw_tools::inside::ExecFault;
use claw_tools::outcome::clip;
use serde::{Deserialize, Serialize};

/// Characters of a fault that a node tells.
const FAULT_CHARS_MAX: usize = 500;

/// How a command inside a workload ended.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ExecEnd {
    /// Exit code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// It was killed for its time.
    pub timed_out: bool,
    /// It wrote more than is told.
    pub truncated: bool,
    /// Why it is not known how it ended, or why it was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<ExecFault>,
}

impl ExecEnd {
    /// It did not run, or nobody knows how it ended.
    pub fn failed(code: TaskErrorCode, message: impl Into<String>) -> Self {
        Self { fault: Some(ExecFault { code, message: message.into() }), ..Self::default() }
    }

    /// The result in a few words; the text of a fault comes from outside.
    pub fn words(&self) -> String {
        match (&self.fault, self.exit_code) {
            (Some(fault), _) => clip(&format!("{}: {}", fault.code, fault.message), FAULT_CHARS_MAX),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) if self.timed_out => "killed for its time".to_owned(),
            (None, None) => "ended without an exit code".to_owned(),
        }
    }
}
