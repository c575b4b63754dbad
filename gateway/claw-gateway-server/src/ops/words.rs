//! A request in words becomes a specification, a question or a refusal.

use claw_intents::{Answer, Catalog, Intent, RefusalCode};
use claw_proto::spec::WorkloadSpec;
use claw_tools::outcome::Assumption;
use claw_tools::refusal::{ErrorCode, Refusal};
use serde_json::{Value, json};

use super::{OpsContext, context};

/// The specification that the words mean, and what was assumed.
pub(super) fn to_spec(ops: &OpsContext, text: &str) -> Result<(WorkloadSpec, Vec<Assumption>), Refusal> {
    let context = context::of(&ops.control.snapshot(), ops.control.now());
    match claw_intents::parse(text, &context, Catalog::builtin()) {
        Answer::Intent(understood) => {
            let assumptions = understood
                .assumptions
                .into_iter()
                .map(|a| Assumption { field: a.field, value: a.value, why: a.why })
                .collect();
            match understood.intent {
                Intent::Run { workload } => Ok((*workload, assumptions)),
                other => Err(other_operation(text, &other)),
            }
        }
        Answer::Question(questions) => {
            let first =
                questions.first().map_or_else(|| "say more exactly what to run".to_owned(), |q| q.prompt.clone());
            let field = questions.first().map(|q| q.field.clone()).unwrap_or_default();
            Err(Refusal::new(ErrorCode::IntentQuestion, first)
                .with_field("request", text)
                .with_evidence(json!({ "field": field, "questions": questions })))
        }
        Answer::Refusal { code, message } => {
            let what = match code {
                RefusalCode::DoesNotFit => "the model does not fit",
                RefusalCode::Contradictory => "the request contradicts itself",
                RefusalCode::Unsupported => "this cannot be asked for in words",
                RefusalCode::Unsafe => "this is not done",
                RefusalCode::Empty => "there is no request",
            };
            Err(Refusal::new(ErrorCode::IntentRefused, format!("{what}: {message}"))
                .with_field("request", text)
                .with_evidence(json!({ "code": code })))
        }
    }
}

/// The words ask for something else than to run: the right call, ready to be made.
fn other_operation(text: &str, intent: &Intent) -> Refusal {
    let (tool, args): (&str, Value) = match intent {
        Intent::Run { .. } => ("workload_run", json!({ "request": text })),
        Intent::Stop { workload_id, grace_s, .. } => {
            ("workload_stop", without_nulls(json!({ "workload": workload_id, "grace_s": grace_s })))
        }
        Intent::Drain { node, .. } => ("node_drain", json!({ "node": node, "mode": "plan" })),
        Intent::Undrain { node } => ("node_undrain", json!({ "node": node })),
        Intent::Query { .. } => ("cluster_status", json!({})),
    };
    Refusal::new(ErrorCode::IntentQuestion, format!("this reads as {tool}, not as something to run; call that"))
        .with_field("request", text)
        .with_next(tool, args)
}

fn without_nulls(mut args: Value) -> Value {
    if let Value::Object(map) = &mut args {
        map.retain(|_, value| !value.is_null());
    }
    args
}
