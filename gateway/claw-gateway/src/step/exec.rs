//! What becomes of commands inside workloads.

use claw_proto::ids::OperationId;
use claw_proto::message::TaskErrorCode;
use claw_tools::operations::OperationState;
use claw_tools::refusal::{ErrorCode, Refusal};

use super::Report;
use super::work::Work;
use crate::event::{Event, ExecEnd};

/// Notes how a command ended; the first word counts.
pub(super) fn ended(
    work: &mut Work<'_>,
    operation_id: OperationId,
    end: ExecEnd,
    output: Option<Vec<u8>>,
) -> Result<Report, Refusal> {
    let Some(exec) = work.state.execs.get(&operation_id) else {
        return Err(Refusal::new(ErrorCode::NotFound, format!("{operation_id} runs no command")));
    };
    if exec.end.is_none() {
        conclude(work, operation_id, end, output);
    }
    Ok(Report::Done)
}

fn conclude(work: &mut Work<'_>, operation_id: OperationId, end: ExecEnd, output: Option<Vec<u8>>) {
    let handle = output.map(|bytes| {
        let handle = format!("exec_{operation_id}");
        work.blob(handle.clone(), bytes);
        handle
    });
    let state = if end.exit_code == Some(0) { OperationState::Succeeded } else { OperationState::Failed };
    let observed = end.words();
    work.emit(Event::ExecEnded { operation_id, end, output: handle });
    work.emit(Event::OperationResolved { operation_id, state, observed });
}

/// Commands that were under way when the gateway ended: whether they ran is not
/// known, and they are not asked for again.
pub(super) fn forget_unheard(work: &mut Work<'_>) {
    let open = work.state.execs.values().filter(|exec| exec.end.is_none());
    let open: Vec<OperationId> = open.map(|exec| exec.operation_id).collect();
    let why = "the gateway restarted before it heard how the command ended; it may have run";
    for operation_id in open {
        conclude(work, operation_id, ExecEnd::failed(TaskErrorCode::Internal, why), None);
    }
}
