//! Moves that make free GPUs of use again.

use claw_proto::ids::WorkloadId;
use claw_tools::def::UndoClass;
use claw_tools::outcome::{EffectKind, Outcome};
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::scheduling::{DEFRAG_HORIZON_S, DEFRAG_HORIZON_S_BOUNDS, DEFRAG_MOVES, DEFRAG_MOVES_BOUNDS};
use claw_tools::workloads::WorkloadReason;
use serde_json::json;

use super::Performed;
use crate::command::Operation;
use crate::event::{Goal, Inverse, Moved};
use crate::preemption::defrag::{self, Ask, Defrag};
use crate::step::notice;
use crate::step::work::Work;

/// What is asked for, if it is within bounds.
fn asked<'a>(
    work: &Work<'_>,
    (model, horizon_s, moves_max): (Option<&'a str>, Option<u64>, Option<u32>),
) -> Result<Ask<'a>, Refusal> {
    let (horizon_s, moves_max) = (horizon_s.unwrap_or(DEFRAG_HORIZON_S), moves_max.unwrap_or(DEFRAG_MOVES));
    let bounds =
        [("horizon_s", horizon_s, DEFRAG_HORIZON_S_BOUNDS), ("moves_max", moves_max.into(), DEFRAG_MOVES_BOUNDS)];
    if let Some((field, got, (least, most))) = bounds.into_iter().find(|(_, n, (least, most))| n < least || n > most) {
        return Err(Refusal::new(ErrorCode::InvalidArgument, format!("{field} is out of range"))
            .with_field(field, got.to_string())
            .with_allowed([format!("{least} to {most}")]));
    }
    if let Some(model) = model {
        let known: Vec<&str> =
            work.state.nodes.iter().flat_map(|n| n.whole_gpus()).map(|gpu| gpu.model.as_str()).collect();
        if !known.iter().any(|known| known.eq_ignore_ascii_case(model)) {
            return Err(Refusal::new(ErrorCode::NotFound, "no node has a GPU of this model")
                .with_field("model", model)
                .with_nearest(claw_tools::nearest::nearest(model, known))
                .with_next("gpu_list", json!({})));
        }
    }
    Ok(Ask { model, horizon_s, moves_max: moves_max as usize, now: work.now() })
}

/// What it would move now: a plan names them, and moves these or nothing.
pub(super) fn settled(
    work: &Work<'_>,
    model: Option<&str>,
    horizon_s: Option<u64>,
    moves_max: Option<u32>,
) -> Result<Vec<WorkloadId>, Refusal> {
    let ask = asked(work, (model, horizon_s, moves_max))?;
    Ok(defrag::plan(work.state, ask).moves.iter().map(|one| one.workload_id).collect())
}

/// Tells those that are worth moving to move.
pub(super) fn defrag(work: &mut Work<'_>, operation: &Operation) -> Result<Performed, Refusal> {
    let Operation::Defrag { model, horizon_s, moves_max, moves } = operation else {
        return Err(Refusal::new(ErrorCode::InvalidArgument, "this moves nothing"));
    };
    let ask = asked(work, (model.as_deref(), *horizon_s, *moves_max))?;
    let planned = match moves.as_deref() {
        Some(ids @ [_, ..]) => defrag::again(work.state, ask, ids).ok_or_else(|| {
            let message = "what was to be moved has ended or moved, would stay, or is not worth it any more: plan anew";
            Refusal::new(ErrorCode::InvalidState, message).with_next("defrag_plan", json!({ "mode": "plan" }))
        })?,
        _ => defrag::plan(work.state, ask),
    };
    let summary = summary(work, &planned, ask.horizon_s);
    let mut moves = Vec::new();
    for one in &planned.moves {
        if let Some(entry) = work.state.workloads.get(one.workload_id).cloned() {
            notice::send_away(work, &entry, WorkloadReason::Defragmented);
            moves.push(Moved { workload_id: one.workload_id, attempt: entry.attempt(), node_id: one.from });
        }
    }
    let effect = if planned.moves.is_empty() { EffectKind::NoChange } else { EffectKind::Accepted };
    let goal = if moves.is_empty() { Goal::Immediate } else { Goal::WorkloadsMove { moves } };
    let mut outcome = Outcome::new(effect, summary);
    outcome.next.push(claw_tools::refusal::SuggestedCall::new("fragmentation_report", json!({})));
    Ok(Performed {
        outcome,
        inverse: Inverse::Impossible {
            why: "what has moved runs on where it is; it would have to be moved again".into(),
        },
        undo: UndoClass::None,
        not_restored: "the former places, and what was done since the last checkpoints",
        goal,
        undoes: None,
    })
}

fn summary(work: &Work<'_>, planned: &Defrag, horizon_s: u64) -> String {
    let node = |id| work.state.nodes.get(id).map_or_else(String::new, |node| node.name.clone());
    let name = |id| work.state.workloads.get(id).map_or_else(String::new, |w| w.name.clone());
    if planned.moves.is_empty() {
        let why = match planned.not_worth {
            Some((gained, lost)) if gained > 0.0 => format!(
                "the best move would make {gained:.2} GPUs of use, {:.0} GPU seconds in {horizon_s} s, and lose {lost:.0}",
                gained * horizon_s as f64
            ),
            Some(_) => "no move would make more GPUs of use to typical work".to_owned(),
            None if planned.movable == 0 => {
                "no running work can be moved: it tells of no checkpoints, spans nodes, or began just now".to_owned()
            }
            None => "no GPU that is free is lost to typical work, or what is beside it finds no other place".to_owned(),
        };
        return format!("nothing is worth moving: {why}");
    }
    let moves: Vec<String> = planned
        .moves
        .iter()
        .map(|one| {
            let lost_s = one.lost_gpu_ms as f64 / 1_000.0;
            format!("{} from {} to {} (loses {lost_s:.0} GPU s)", name(one.workload_id), node(one.from), node(one.to))
        })
        .collect();
    format!(
        "move {} workload(s): {}; {:.2} more GPUs are of use to typical work, {:.0} GPU seconds in {horizon_s} s, for {:.0} lost; they go where the scheduler puts them then",
        moves.len(),
        moves.join("; "),
        planned.gained_gpus,
        planned.gained_gpus * horizon_s as f64,
        planned.lost_gpu_s(),
    )
}
