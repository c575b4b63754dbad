//! What agents say: arguments of operations, and requests in words.

use std::sync::OnceLock;

use claw_intents::{Answer, Catalog, Context, ContextGpu, ContextNode, ContextWorkload, Intent, Source};
use claw_proto::validation::ValidSpec;
use claw_tools::registry::{Call, find};

/// The first line names the operation, the rest is its arguments as JSON. A call that is
/// understood says the same again; a refusal can be told and points at operations that exist.
pub(crate) fn tool_arguments(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (name, args) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(args) = serde_json::from_str(args) else { return };
    match Call::parse(name, args) {
        Ok(call) => {
            assert_eq!(call.name(), name);
            assert_eq!(Call::parse(name, call.args()).as_ref(), Ok(&call));
        }
        Err(refusal) => {
            let told = serde_json::to_value(&refusal).expect("a refusal can be told");
            assert!(told["code"].is_string());
            for next in told["next"].as_array().into_iter().flatten() {
                let tool = next["tool"].as_str().unwrap_or_default();
                // Three tools of the MCP face are no operations.
                assert!(find(tool).is_some() || tool.starts_with("tool_"), "{told}");
            }
        }
    }
}

fn fleet() -> &'static Context {
    static FLEET: OnceLock<Context> = OnceLock::new();
    FLEET.get_or_init(|| {
        let node = |name: &str, model: &str| ContextNode {
            name: name.to_owned(),
            gpu: Some(ContextGpu { model: Some(model.to_owned()), count: Some(8) }),
            ..ContextNode::default()
        };
        let workload = |id: &str, name: &str| ContextWorkload {
            id: id.to_owned(),
            name: Some(name.to_owned()),
            ..ContextWorkload::default()
        };
        Context {
            nodes: vec![node("gpu-1", "H100"), node("gpu-2", "A100-80GB"), node("edge", "L4")],
            workloads: vec![workload("wl_a", "train-42"), workload("wl_b", "train"), workload("wl_c", "api")],
            ..Context::default()
        }
    })
}

/// The same words mean the same; what is quoted from them stands in them; there are one or
/// two questions; the specification is checked without a panic.
pub(crate) fn workload_request(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let empty = Context::default();
    for context in [&empty, fleet()] {
        let answer = claw_intents::parse(text, context, Catalog::builtin());
        assert_eq!(claw_intents::parse(text, context, Catalog::builtin()), answer);
        serde_json::to_value(&answer).expect("an answer can be told");
        match answer {
            Answer::Intent(understood) => {
                for provenance in &understood.provenance {
                    if let Source::Text(span) = &provenance.source {
                        assert_eq!(text.get(span.start..span.end), Some(span.text.as_str()), "{provenance:?}");
                    }
                }
                if let Intent::Run { workload } = understood.intent {
                    let spec = *workload;
                    if let Ok(valid) = ValidSpec::parse(spec.clone()) {
                        assert_eq!(ValidSpec::parse(valid.into_spec()).map(ValidSpec::into_spec).as_ref(), Ok(&spec));
                    }
                }
            }
            Answer::Question(questions) => assert!((1..=2).contains(&questions.len()), "{questions:?}"),
            Answer::Refusal { message, .. } => assert!(!message.is_empty()),
        }
    }
}
