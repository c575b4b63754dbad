//! Questions to a connected node about one attempt: a command to run, an output
//! to read. They live as long as the connection; nobody repeats them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claw_gateway::event::ExecEnd;
use claw_gateway::{Caller, Command};
use claw_proto::codec::check_version;
use claw_proto::ids::{NodeId, OperationId};
use claw_proto::limits::TASK_BYTES_MAX;
use claw_proto::message::{GatewayMessage, NodeMessage, OutputContent, TaskErrorCode, TaskId};
use tokio::sync::oneshot;

use super::SharedPort;
use super::links::{Link, NodeLinks, Order};
use crate::control::SubmitError;
use crate::ops::ExecOutput;

/// Questions that may be open on one connection.
const TASKS_OPEN_MAX: usize = 32;
/// A node answers within the time of its task and so much more, milliseconds.
const ANSWER_MARGIN_MS: u64 = 30_000;
/// Longest time for reading a piece of an output, milliseconds.
const READ_TIMEOUT_MS: u64 = 60_000;
/// Output of a command that is kept, bytes of each stream.
const EXEC_BYTES_MAX: u64 = 64 * 1024;
/// Pause before the end of a command is told again to a core that could not write it down.
const RETRY: Duration = Duration::from_secs(1);

/// What a node answered.
#[derive(Debug)]
pub(super) enum TaskAnswer {
    /// A command ended.
    Exec { exit_code: Option<i32>, timed_out: bool, stdout: Vec<u8>, stderr: Vec<u8>, truncated: bool },
    /// What stands at a path.
    Output(OutputContent),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TaskFailure {
    /// The node has no connection; it was not asked.
    #[error("the node is not connected")]
    NotConnected,
    /// Too many questions are open; it was not asked.
    #[error("the node has {TASKS_OPEN_MAX} questions open; ask again later")]
    Busy,
    /// Its agent is too old; it was not asked.
    #[error("{0}; upgrade the agent of the node")]
    TooOld(String),
    /// The connection ended before the answer.
    #[error("the connection of the node ended before its answer")]
    LinkLost,
    /// The answer did not come in time.
    #[error("the node did not answer in time")]
    Timeout,
    /// The node did not do it.
    #[error("{message}")]
    Node {
        /// What sort of reason.
        code: TaskErrorCode,
        /// Detail, untrusted.
        message: String,
    },
}

impl TaskFailure {
    /// The reason as a node would tell it.
    pub(crate) fn code(&self) -> TaskErrorCode {
        match self {
            Self::NotConnected | Self::Busy | Self::LinkLost => TaskErrorCode::Internal,
            Self::TooOld(_) => TaskErrorCode::Unsupported,
            Self::Timeout => TaskErrorCode::Timeout,
            Self::Node { code, .. } => *code,
        }
    }
}

type Answer = Result<TaskAnswer, TaskFailure>;

/// The open questions of one connection.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// Of the last question; never used again, since an old answer may still come.
    last: AtomicU64,
    open: Mutex<BTreeMap<TaskId, oneshot::Sender<Answer>>>,
}

impl Tasks {
    fn open(&self) -> MutexGuard<'_, BTreeMap<TaskId, oneshot::Sender<Answer>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new question: its number and where the answer will come.
    fn begin(&self) -> Result<(TaskId, oneshot::Receiver<Answer>), TaskFailure> {
        let mut open = self.open();
        if open.len() >= TASKS_OPEN_MAX {
            return Err(TaskFailure::Busy);
        }
        let task = TaskId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let (answered, answer) = oneshot::channel();
        open.insert(task, answered);
        Ok((task, answer))
    }

    /// Takes an answer; one that nobody waits for any more is dropped.
    pub(super) fn answered(&self, message: NodeMessage) {
        let (task, answer) = match message {
            NodeMessage::ExecDone { task, exit_code, timed_out, stdout, stderr, truncated } => {
                (task, Ok(TaskAnswer::Exec { exit_code, timed_out, stdout, stderr, truncated }))
            }
            NodeMessage::OutputRead { task, content } => (task, Ok(TaskAnswer::Output(content))),
            NodeMessage::TaskFailed { task, code, message } => (task, Err(TaskFailure::Node { code, message })),
            _ => return,
        };
        if let Some(answered) = self.open().remove(&task) {
            drop(answered.send(answer));
        }
    }

    /// The connection is gone, and with it every answer.
    pub(super) fn lost(&self) {
        self.open().clear();
    }
}

/// Takes a question back if nobody waits for it any more.
struct Withdraw<'a> {
    link: &'a Link,
    task: TaskId,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        if self.link.tasks.open().remove(&self.task).is_some() {
            self.link.order(Order::Say(Box::new(GatewayMessage::CancelTask { task: self.task })));
        }
    }
}

impl NodeLinks {
    /// Asks a node and waits for its answer.
    async fn ask(&self, node_id: NodeId, timeout_ms: u64, question: impl FnOnce(TaskId) -> GatewayMessage) -> Answer {
        let link: Arc<Link> = self.registered(node_id).ok_or(TaskFailure::NotConnected)?;
        let (task, answer) = link.tasks.begin()?;
        let withdraw = Withdraw { link: &link, task };
        let message = question(task);
        check_version(&message, link.version).map_err(|lacking| {
            link.tasks.open().remove(&task);
            TaskFailure::TooOld(lacking.to_string())
        })?;
        link.order(Order::Say(Box::new(message)));
        // Between the look at the link and the question it may have ended.
        if link.closing.is_cancelled() {
            link.tasks.lost();
        }
        let limit = Duration::from_millis(timeout_ms.saturating_add(ANSWER_MARGIN_MS));
        let answer = match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(TaskFailure::LinkLost),
            Err(_) => Err(TaskFailure::Timeout),
        };
        drop(withdraw);
        answer
    }

    /// What stands at a path of an attempt's declared outputs.
    pub(crate) async fn read_output(
        &self,
        node_id: NodeId,
        key: (claw_proto::ids::WorkloadId, claw_proto::ids::Attempt),
        path: String,
        offset: u64,
        bytes_max: u32,
    ) -> Result<OutputContent, TaskFailure> {
        let bytes_max = u64::from(bytes_max).min(TASK_BYTES_MAX as u64);
        let (workload_id, attempt) = key;
        let question = |task| GatewayMessage::ReadOutput { task, workload_id, attempt, path, offset, bytes_max };
        match self.ask(node_id, READ_TIMEOUT_MS, question).await? {
            TaskAnswer::Output(content) => Ok(content),
            TaskAnswer::Exec { .. } => Err(other_answer()),
        }
    }
}

fn other_answer() -> TaskFailure {
    TaskFailure::Node { code: TaskErrorCode::Internal, message: "the node answered something else".to_owned() }
}

/// Has a node run the command of an operation, and tells the core how it ended.
/// Whatever happens here the operation comes to a result: nobody waits for ever.
pub(super) async fn exec(port: SharedPort, node_id: NodeId, operation_id: OperationId) {
    let Some(exec) = port.control.snapshot().execs.get(&operation_id).cloned() else { return };
    let timeout_ms = u64::from(exec.timeout_s) * 1_000;
    let question = |task| GatewayMessage::Exec {
        task,
        workload_id: exec.workload_id,
        attempt: exec.attempt,
        command: exec.command.clone(),
        timeout_ms,
        output_bytes_max: EXEC_BYTES_MAX,
    };
    let (end, output) = match port.links.ask(node_id, timeout_ms, question).await {
        Ok(TaskAnswer::Exec { exit_code, timed_out, stdout, stderr, truncated }) => {
            let output = ExecOutput { stdout, stderr }.to_bytes();
            (ExecEnd { exit_code, timed_out, truncated, fault: None }, Some(output))
        }
        Ok(TaskAnswer::Output(_)) => (failed(&other_answer()), None),
        Err(failure) => (failed(&failure), None),
    };
    loop {
        let command = Command::ExecEnded { operation_id, end: end.clone(), output: output.clone() };
        match port.control.submit(command, Caller::node(node_id, port.control.now())).await {
            Ok(_) => return,
            Err(SubmitError::Refused(refusal)) if !refusal.retryable => {
                tracing::warn!(%operation_id, %refusal, "the end of a command is not taken");
                return;
            }
            Err(error) => tracing::warn!(%operation_id, %error, "the end of a command waits to be written down"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            // After the next start it counts as unheard of.
            () = port.stop.cancelled() => return,
        }
    }
}

fn failed(failure: &TaskFailure) -> ExecEnd {
    let asked = match failure {
        TaskFailure::NotConnected | TaskFailure::Busy | TaskFailure::TooOld(_) => "; it was not run",
        TaskFailure::LinkLost | TaskFailure::Timeout => "; it may have run",
        TaskFailure::Node { .. } => "",
    };
    ExecEnd::failed(failure.code(), format!("{failure}{asked}"))
}
