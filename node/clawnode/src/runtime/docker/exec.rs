//! A command inside a running container.

use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ExecInspectResponse;
use claw_proto::message::TaskErrorCode;
use futures_util::StreamExt as _;

use super::container::{Seen, holds, see, status_of};
use crate::runtime::folder::ContainerFile;
use crate::runtime::process::proc_table;
use crate::runtime::{ExecOrder, ExecResult, TaskFault};

/// A command that was killed is gone within this time, milliseconds.
const EXIT_WAIT_MS: u64 = 5_000;
const EXIT_LOOK_MS: u64 = 20;
/// Capacity for one piece of output, bytes.
const PIECE_BYTES: usize = 64 * 1024;

fn internal(error: &bollard::errors::Error) -> TaskFault {
    let message = match status_of(error) {
        Some((_, message)) => message.trim().to_owned(),
        None => format!("the engine failed: {error}"),
    };
    TaskFault { code: TaskErrorCode::Internal, message }
}

fn not_running() -> TaskFault {
    TaskFault { code: TaskErrorCode::NotRunning, message: "its container does not run".to_owned() }
}

/// Output within its limit; what is over is read and dropped.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Kept {
    fn take(&mut self, piece: &[u8], bytes_max: u64) {
        let room = usize::try_from(bytes_max).unwrap_or(usize::MAX).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        self.is_cut |= piece.len() > room;
    }
}

/// Runs a command and waits for it; it is killed when its time is over.
pub(super) async fn exec(
    docker: &Docker,
    container: &ContainerFile,
    order: ExecOrder,
) -> Result<ExecResult, TaskFault> {
    let container_id = match see(docker, container).await.map_err(|error| internal(&error))? {
        Seen::Running { id, .. } => id,
        Seen::Absent | Seen::Created | Seen::Ended(_) | Seen::Foreign => return Err(not_running()),
    };
    let options = CreateExecOptions {
        cmd: Some(order.command),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    };
    let created = docker.create_exec(&container.name, options).await;
    let id = created.map_err(|error| match status_of(&error) {
        Some((409, _)) => not_running(),
        Some(_) | None => internal(&error),
    })?;
    let start = StartExecOptions { output_capacity: Some(PIECE_BYTES), ..StartExecOptions::default() };
    let started = docker.start_exec(&id.id, Some(start)).await.map_err(|error| internal(&error))?;
    let StartExecResults::Attached { mut output, input: _input } = started else {
        return Err(TaskFault { code: TaskErrorCode::Internal, message: "the engine did not attach".to_owned() });
    };
    let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
    let mut is_broken = false;
    let over = async {
        while let Some(piece) = output.next().await {
            match piece {
                Ok(LogOutput::StdErr { message }) => stderr.take(&message, order.output_bytes_max),
                Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                    stdout.take(&message, order.output_bytes_max);
                }
                Ok(LogOutput::StdIn { .. }) => {}
                Err(error) => {
                    tracing::debug!(%error, "the output of a command broke off");
                    is_broken = true;
                    break;
                }
            }
        }
        // A command may close its output and run on.
        exit_code(docker, &id.id).await
    };
    let over = tokio::time::timeout(Duration::from_millis(order.timeout_ms), over).await;
    let timed_out = over.is_err();
    let exit_code = if let Ok(exit_code) = over {
        exit_code?
    } else {
        kill(docker, &id.id, &container_id).await;
        let gone = tokio::time::timeout(Duration::from_millis(EXIT_WAIT_MS), exit_code(docker, &id.id)).await;
        gone.map_err(|_| runs_on())??;
        None
    };
    let truncated = is_broken || stdout.is_cut || stderr.is_cut;
    Ok(ExecResult { exit_code, timed_out, stdout: stdout.bytes, stderr: stderr.bytes, truncated })
}

async fn inspect(docker: &Docker, id: &str) -> Result<ExecInspectResponse, TaskFault> {
    docker.inspect_exec(id).await.map_err(|error| internal(&error))
}

fn runs_on() -> TaskFault {
    let message = "its time is over, and it could not be ended: it may run on".to_owned();
    TaskFault { code: TaskErrorCode::Internal, message }
}

/// Waits until it is over; the exit code, if the engine tells one.
async fn exit_code(docker: &Docker, id: &str) -> Result<Option<i32>, TaskFault> {
    loop {
        let state = inspect(docker, id).await?;
        if state.running != Some(true) {
            return Ok(state.exit_code.and_then(|code| i32::try_from(code).ok()));
        }
        tokio::time::sleep(Duration::from_millis(EXIT_LOOK_MS)).await;
    }
}

/// No engine ends a command by itself; its process and what it started are
/// killed by the kernel, if they are this container's and ours to see.
async fn kill(docker: &Docker, id: &str, container_id: &str) {
    let pid = match inspect(docker, id).await {
        Ok(state) => state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0),
        Err(fault) => {
            tracing::warn!(fault.message, "a command that took too long was not found");
            None
        }
    };
    let Some(pid) = pid.filter(|pid| holds(*pid, container_id)) else {
        tracing::warn!("a command that took too long could not be ended: its process is not visible here");
        return;
    };
    let mut all = proc_table::descendants(pid);
    all.push(pid);
    proc_table::kill_all(&all);
}
