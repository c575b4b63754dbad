//! Commands inside running workloads.

use claw_proto::spec::RuntimeKind;
use claw_tools::def::UndoClass;
use claw_tools::nodes::NodeLink;
use claw_tools::outcome::{EffectKind, Outcome, clip};
use claw_tools::refusal::{ErrorCode, Refusal, SuggestedCall};
use claw_tools::workloads::WorkloadState;
use serde_json::json;

use super::Performed;
use crate::effect::Effect;
use crate::event::{Event, Goal, Inverse};
use crate::step::work::Work;
use crate::workload::WorkloadEntry;

/// Characters of a command in a summary.
const COMMAND_CHARS_MAX: usize = 200;

/// Has a command run inside the running attempt. It is asked for once: whoever
/// does not hear how it ended asks anew.
pub(super) fn exec(
    work: &mut Work<'_>,
    workload: &str,
    command: &[String],
    timeout_s: u32,
) -> Result<Performed, Refusal> {
    let entry = work.state.resolve_workload(workload)?.clone();
    let refused = |why: String| {
        let next = json!({ "workload": entry.workload_id });
        Refusal::new(ErrorCode::InvalidState, format!("{}: {why}", entry.name))
            .with_field("workload", workload)
            .with_next("workload_get", next)
    };
    if command.first().is_none_or(String::is_empty) {
        return Err(Refusal::new(ErrorCode::InvalidArgument, "the command names no program").with_field("command", ""));
    }
    let Some(live) = entry.live().filter(|_| entry.state == WorkloadState::Running) else {
        return Err(refused(format!("a command runs inside what is running, and it is {}", entry.state)));
    };
    match live.runtime {
        RuntimeKind::Docker => {}
        RuntimeKind::Process => return Err(refused("a host process has no container to run a command in".into())),
        RuntimeKind::Sim => return Err(refused("nothing really runs, so nothing can be run inside it".into())),
    }
    let (attempt, node_id) = (live.attempt, live.node_id);
    let Some(node) = work.state.nodes.get(node_id).filter(|node| node.link == NodeLink::Online) else {
        return Err(refused("its node is not connected".into()).retryable());
    };
    let node_name = node.name.clone();
    let operation_id = work.operation_id.ok_or_else(|| refused("a command belongs to an operation".into()))?;
    work.emit(Event::ExecRequested {
        operation_id,
        workload_id: entry.workload_id,
        attempt,
        node_id,
        command: command.to_vec(),
        timeout_s,
    });
    work.effect(Effect::Exec { node_id, operation_id });
    Ok(accepted(&entry, command, &node_name, timeout_s))
}

fn accepted(entry: &WorkloadEntry, command: &[String], node: &str, timeout_s: u32) -> Performed {
    let workload_id = entry.workload_id;
    let shown = clip(&command.join(" "), COMMAND_CHARS_MAX);
    let summary = format!("run {shown:?} inside {} on {node}, for at most {timeout_s} s", entry.name);
    let mut outcome = Outcome::new(EffectKind::Accepted, summary);
    outcome.workload_id = Some(workload_id);
    outcome.next.push(SuggestedCall::new("workload_logs", json!({ "workload": workload_id })));
    Performed {
        outcome,
        inverse: Inverse::Impossible { why: "what a command did inside a workload is not taken back".into() },
        undo: UndoClass::None,
        not_restored: "whatever the command did",
        goal: Goal::ExecEnds { workload_id },
        undoes: None,
    }
}
