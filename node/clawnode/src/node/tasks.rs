//! Short requests about one attempt, as its runtime takes and answers them.
//! They are no part of the desired state: the shell passes them on, and the
//! answer goes to whoever is connected.

use claw_proto::message::{NodeMessage, OutputContent, TaskErrorCode, TaskId};

use super::Node;

/// A command to run inside an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOrder {
    /// Program and arguments.
    pub command: Vec<String>,
    /// It is killed after so long, milliseconds.
    pub timeout_ms: u64,
    /// Most bytes of each output stream that are told.
    pub output_bytes_max: u64,
}

/// A path to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOrder {
    /// Path inside the attempt.
    pub path: String,
    /// Where to begin in a file, bytes.
    pub offset: u64,
    /// Most bytes of a file.
    pub bytes_max: u64,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// Exit code; none if it was killed for its time.
    pub exit_code: Option<i32>,
    /// It was killed for its time.
    pub timed_out: bool,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// It wrote more than is told.
    pub truncated: bool,
}

/// What a runtime answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskResult {
    /// The command ended.
    Exec(ExecResult),
    /// What stands at the path.
    Output(OutputContent),
}

/// Why a task was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFault {
    /// What sort of reason.
    pub code: TaskErrorCode,
    /// Detail for people.
    pub message: String,
}

impl TaskFault {
    /// A fault with its reason.
    pub fn new(code: TaskErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Node {
    /// Answers a task to whoever is connected; nobody repeats tasks.
    pub(super) fn task_done(&mut self, task: TaskId, result: Result<TaskResult, TaskFault>) {
        if !self.session.is_registered() {
            return;
        }
        let message = match result {
            Ok(TaskResult::Exec(ExecResult { exit_code, timed_out, stdout, stderr, truncated })) => {
                NodeMessage::ExecDone { task, exit_code, timed_out, stdout, stderr, truncated }
            }
            Ok(TaskResult::Output(content)) => NodeMessage::OutputRead { task, content },
            Err(TaskFault { code, message }) => NodeMessage::TaskFailed { task, code, message },
        };
        self.send(message);
    }
}
