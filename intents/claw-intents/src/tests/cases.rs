//! The two halves of the case table, and one answer in full.

use std::fmt::Write as _;

use expect_test::expect;

use super::*;

#[derive(serde::Deserialize)]
struct Case {
    id: String,
    text: String,
    #[serde(default)]
    context: Context,
    outcome: String,
    #[serde(default)]
    expect: Value,
    #[serde(default)]
    absent: Vec<String>,
    #[serde(default)]
    assumes: Vec<String>,
    #[serde(default)]
    question: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

/// Whether every leaf of `want` is equal in `got`.
fn holds(want: &Value, got: &Value) -> bool {
    match (want, got) {
        (Value::Object(fields), _) => fields.iter().all(|(key, value)| holds(value, &got[key])),
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => want == got,
    }
}

fn failures(cases: &str) -> Vec<String> {
    cases
        .lines()
        .filter_map(|line| {
            let case: Case = serde_json::from_str(line).unwrap();
            let got = answer(&case.text, &case.context);
            let assumed = |field: &String| {
                let assumptions = got["assumptions"].as_array().unwrap();
                assumptions.iter().any(|a| a["field"] == **field)
            };
            let met = got["outcome"] == *case.outcome
                && holds(&case.expect, &got["intent"])
                && case.absent.iter().all(|path| at(&got["intent"], path).is_null())
                && case.assumes.iter().all(assumed)
                && case.question.is_none_or(|field| got["questions"][0]["field"] == *field)
                && case.refusal.is_none_or(|code| got["code"] == *code);
            (!met).then(|| format!("{}: {:?} -> {got}", case.id, case.text))
        })
        .collect()
}

#[test]
fn tuning_half_is_met() {
    assert_eq!(failures(TUNING), Vec::<String>::new());
}

#[test]
fn validation_half_is_met() {
    assert_eq!(failures(VALIDATION), Vec::<String>::new());
}

/// The answer as a person reads it: the intent, then why.
#[test]
fn an_answer_in_full() {
    let got = parse("Run Llama 70B on 4 H100s", &Context::default(), Catalog::builtin());
    let Answer::Intent(understood) = got else {
        panic!("not understood: {got:?}");
    };
    let mut text = format!("{}\n", serde_json::to_string(&understood.intent).unwrap());
    for Assumption { field, why, .. } in &understood.assumptions {
        writeln!(text, "assumed {field}: {why}").unwrap();
    }
    for Provenance { field, source } in &understood.provenance {
        writeln!(text, "{field} from {}", serde_json::to_string(source).unwrap()).unwrap();
    }
    expect![[r#"
        {"action":"run","workload":{"kind":"inference","model":"llama-3.1-70b-instruct","image":"vllm/vllm-openai:v0.11.0","command":["vllm","serve","meta-llama/Llama-3.1-70B-Instruct","--tensor-parallel-size","4"],"gpu":{"count":4,"model":"H100"}}}
        assumed workload.model: "Llama 70B" without a version; also known: llama-3.3-70b-instruct
        assumed workload.quantization: no precision was named, so the published weights are taken: 131.5 GiB of the 320 GiB of 4 × H100
        assumed workload.kind: a model by its name is run to serve it
        assumed workload.image: the catalogue serves llama-3.1-70b-instruct with vllm
        assumed workload.command: the catalogue's command; license: Llama 3.1 Community License: gated download, use restrictions, a notice to keep
        workload.model from {"kind":"text","start":4,"end":13,"text":"Llama 70B"}
        workload.gpu.count from {"kind":"text","start":17,"end":18,"text":"4"}
        workload.gpu.model from {"kind":"text","start":19,"end":24,"text":"H100s"}
        workload.kind from {"kind":"default"}
        workload.model from {"kind":"catalogue"}
        workload.image from {"kind":"catalogue"}
        workload.command from {"kind":"catalogue"}
    "#]].assert_eq(&text);
}

/// A long text that nobody understands is a question, and is not read to its end.
#[test]
fn a_long_senseless_text_is_a_question() {
    let long = format!("drain {}", "zzz1 ".repeat(1_500));
    let got = answer(&long, &Context::default());
    assert_eq!(got["outcome"], "question", "{got}");
    assert!(got.to_string().len() < 1_000);
}
