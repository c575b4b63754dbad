//! The native scorer and the public one, held equal on made-up answers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use claw_intents::eval::{self, Draws};
use serde_json::{Map, Value, json};

/// Cases whose expected answers are mutated.
const TUNING: &str = include_str!("../../../evals/cases/intents/tuning.jsonl");

/// The answer that a case wants.
fn wanted(case: &Map<String, Value>) -> Map<String, Value> {
    let answer = match case["outcome"].as_str().unwrap() {
        "intent" => json!({ "outcome": "intent", "intent": case["expect"] }),
        "question" => json!({ "outcome": "question", "questions": [{ "field": case["question"]["field"] }] }),
        _ => json!({ "outcome": "refusal", "code": case["refusal"] }),
    };
    let Value::Object(mut answer) = answer else { panic!("{answer}") };
    answer.insert("id".into(), case["id"].clone());
    answer
}

/// Paths of everything that is no object, and of lists as a whole.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                leaves(field, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            found.push(path.to_owned());
            for (i, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}/{i}"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

/// Another value in place of one.
fn other(value: &Value, random: &mut Draws) -> Value {
    match (value, random.below(6)) {
        (_, 0) => Value::Null,
        (Value::Number(n), 1) => json!(n.to_string()),
        (Value::Number(n), 2) => json!(n.as_f64().unwrap() + 5e-7),
        (Value::Number(n), 3) => json!(n.as_f64().unwrap() + 2e-6),
        (Value::Number(n), 4) => json!(n.as_f64().unwrap()),
        (Value::Number(n), _) => json!(n.as_f64().unwrap() + 1.0),
        (Value::String(s), 1) => json!(s.to_uppercase()),
        (Value::String(s), 2) => json!(s.to_lowercase()),
        (Value::String(s), 3) => json!(s.replace('Z', "+00:00").replace('T', " ")),
        (Value::String(s), 4) => s.parse::<u64>().map_or(json!(true), |n| json!(n)),
        (Value::String(s), _) => json!(format!("{s}x")),
        (Value::Bool(b), 1 | 2) => json!(!b),
        (Value::Bool(b), 3) => json!(u8::from(*b)),
        (Value::Bool(b), _) => json!(b.to_string()),
        (Value::Array(items), 1 | 2) => items.iter().rev().cloned().collect(),
        (Value::Array(items), 3) => items.iter().skip(1).cloned().collect(),
        (Value::Array(items), _) => items.iter().cloned().chain([json!("more")]).collect(),
        (Value::Object(_) | Value::Null, _) => json!({}),
    }
}

fn mutate_leaf(answer: &mut Value, random: &mut Draws) {
    let mut paths = Vec::new();
    leaves(&answer["intent"], "/intent", &mut paths);
    if let Some(place) = paths.get(random.below(paths.len())).and_then(|path| answer.pointer_mut(path)) {
        *place = other(place, random);
    }
}

fn drop_leaf(answer: &mut Value, random: &mut Draws) {
    let mut paths = Vec::new();
    leaves(&answer["intent"], "/intent", &mut paths);
    let Some((parent, key)) = paths.get(random.below(paths.len())).and_then(|path| path.rsplit_once('/')) else {
        return;
    };
    if let Some(Value::Object(fields)) = answer.pointer_mut(parent) {
        fields.remove(key);
    }
}

/// Sets what the case says must be absent, or a field that nobody asked for.
fn invent(answer: &mut Value, case: &Map<String, Value>, random: &mut Draws) {
    let absent: Vec<&str> =
        case.get("absent").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let path = absent.get(random.below(absent.len())).copied().unwrap_or("workload.replicas");
    let value = [json!(7), json!("x"), json!(false), Value::Null, json!([1]), json!({})][random.below(6)].clone();
    let mut at = &mut answer["intent"];
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
        if parts.peek().is_none() {
            *at = value.clone();
        }
    }
}

/// Another question, or no proper one.
fn ask_otherwise(answer: &mut Value, random: &mut Draws) {
    let field = answer["questions"][0]["field"].as_str().unwrap_or_default().to_owned();
    let parent = field.rsplit_once('.').map_or("", |(parent, _)| parent);
    answer["questions"] = match random.below(7) {
        0 => json!([{ "field": format!("{field}.part") }]),
        1 => json!([{ "field": parent }]),
        2 => json!([{ "field": format!("{field}s") }]),
        3 => json!([{ "field": "node" }, { "field": field }]),
        4 => json!([7, { "field": 7 }]),
        5 => json!("which?"),
        _ => json!([]),
    };
}

/// One mutated answer; none = not answered.
fn mutated(case: &Map<String, Value>, random: &mut Draws) -> Option<Map<String, Value>> {
    let mut answer = Value::Object(wanted(case));
    for _ in 0..=random.below(3) {
        match random.below(12) {
            0 => return None,
            1 => answer["outcome"] = json!(["intent", "question", "refusal"][random.below(3)]),
            2 => answer["intent"]["action"] = json!(["run", "stop", "DEPLOY"][random.below(3)]),
            3 => answer["code"] = json!(["unsafe", "empty", "Unsafe"][random.below(3)]),
            4 => ask_otherwise(&mut answer, random),
            5 | 6 => invent(&mut answer, case, random),
            7 => drop_leaf(&mut answer, random),
            8 => {}
            _ => mutate_leaf(&mut answer, random),
        }
    }
    let Value::Object(answer) = answer else { panic!("{answer}") };
    Some(answer)
}

/// What both scorers say of a category or of all: whole counts, and ratios.
fn figures(score: &eval::Score) -> Vec<f64> {
    let (right, wrong, missed) = (f64::from(score.right), f64::from(score.wrong), f64::from(score.missed));
    vec![
        f64::from(score.cases),
        f64::from(score.exact),
        right + missed,
        right / (right + wrong).max(1.0),
        right / (right + missed).max(1.0),
        2.0 * right / (2.0 * right + wrong + missed).max(1.0),
        f64::from(score.inventions),
    ]
}

fn assert_same(name: &str, native: &eval::Score, public: &Value) {
    let keys = ["cases", "exact", "fields", "precision", "recall", "f1", "inventions"];
    for (key, native) in keys.iter().zip(figures(native)) {
        let public = public[*key].as_f64().unwrap();
        assert!((native - public).abs() < 1e-9, "{name}.{key}: native {native}, public {public}");
    }
}

#[test]
fn both_scorers_agree_on_made_up_answers() {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let script = Path::new(&here).join("../../../shared/intents/score.py");
    let python = Command::new("python3").arg("--version").output();
    if !script.exists() || python.is_err() {
        let seen = std::env::var_os("CLAW_SHARED").is_some() && python.is_ok();
        assert!(!seen, "no {}, and the shared data are here", script.display());
        eprintln!("SKIPPED: no python3 or no {}: the two scorers were not compared", script.display());
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let cases = eval::lines(TUNING).unwrap();
    let cases_file = folder.join("scorers-cases.jsonl");
    std::fs::write(&cases_file, TUNING).unwrap();
    let (mut compared, mut failing, mut inventions) = (0, 0, 0);
    for seed in 1..=4 {
        let mut random = Draws::new(seed);
        let mut answers: BTreeMap<String, Map<String, Value>> =
            cases.iter().filter_map(|(id, case)| Some((id.clone(), mutated(case, &mut random)?))).collect();
        answers.insert("nobody".into(), wanted(&cases[0].1));
        answers.get_mut("nobody").unwrap().insert("id".into(), json!("nobody"));
        let answers_file = folder.join(format!("scorers-answers-{seed}.jsonl"));
        let text: Vec<String> = answers.values().map(|answer| Value::Object(answer.clone()).to_string()).collect();
        std::fs::write(&answers_file, text.join("\n")).unwrap();
        let output =
            Command::new("python3").arg(&script).args([&cases_file, &answers_file]).arg("--json").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let public: Value = serde_json::from_slice(&output.stdout).unwrap();
        let native = eval::score(&cases, &answers);
        assert_same("all", &native.all, &public);
        assert_eq!(native.categories.len(), public["categories"].as_object().unwrap().len());
        for (name, score) in &native.categories {
            assert_same(name, score, &public["categories"][name]);
        }
        assert_eq!(json!(native.wrong_outcomes), public["wrong_outcomes"], "seed {seed}");
        assert_eq!(json!(native.unanswered), public["unanswered"], "seed {seed}");
        assert_eq!(json!(native.unknown_answers), public["unknown_answers"], "seed {seed}");
        let ids: Vec<Value> = native.failing.iter().map(|(id, _)| json!(id)).collect();
        let theirs: Vec<Value> = public["failing"].as_array().unwrap().iter().map(|f| f["id"].clone()).collect();
        assert_eq!(ids, theirs, "seed {seed}");
        compared += answers.len();
        failing += ids.len();
        inventions += native.all.inventions;
    }
    // The mutations reach what is to be compared.
    assert!(compared > 2_000 && failing > 1_000 && failing < compared, "{failing} of {compared} fail");
    assert!(inventions > 20, "{inventions}");
}
