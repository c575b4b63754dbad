//! One case: every field that it names must be right, every field that it
//! forbids must be missing.

use serde_json::{Map, Value};

/// What is wrong with one answer, and its fields counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What is wrong; nothing means exact.
    pub reasons: Vec<String>,
    /// Judged fields that are right.
    pub right: u32,
    /// Fields that are there and wrong, and inventions.
    pub wrong: u32,
    /// Judged fields that are missing or wrong.
    pub missed: u32,
    /// Fields that must be absent and are there.
    pub invented: u32,
}

/// A step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    /// The length of a list.
    Length,
}

type Path = Vec<Step>;

/// Judges an answer (none = not answered) against a case.
pub fn judge(case: &Map<String, Value>, answer: Option<&Map<String, Value>>) -> Verdict {
    let mut wanted: Vec<(Path, Value)> = Vec::new();
    if let Some(expect) = case.get("expect") {
        leaves(expect, &mut Vec::new(), &mut wanted);
    }
    let mut verdict = Verdict::default();
    let outcome = case.get("outcome").and_then(Value::as_str).unwrap_or_default();
    let Some(answer) = answer.filter(|a| a.get("outcome").and_then(Value::as_str) == Some(outcome)) else {
        verdict.reasons.push(match answer.and_then(|a| a.get("outcome")?.as_str()) {
            Some(got) => format!("outcome {got}, wanted {outcome}"),
            None => "no answer".into(),
        });
        verdict.missed = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        return verdict;
    };
    match outcome {
        "question" => judge_question(case, answer, &mut verdict),
        "refusal" if answer.get("code") != case.get("refusal") => {
            let (got, want) = (show(answer.get("code")), show(case.get("refusal")));
            verdict.reasons.push(format!("refusal {got}, wanted {want}"));
        }
        _ => {}
    }
    let intent = answer.get("intent").unwrap_or(&Value::Null);
    for (path, value) in &wanted {
        let got = get(intent, path);
        if got.as_ref().is_some_and(|got| equal(value, got, path)) {
            verdict.right += 1;
        } else {
            verdict.wrong += u32::from(got.is_some());
            verdict.missed += 1;
            let got = got.as_ref().map_or_else(|| "missing".to_owned(), Value::to_string);
            verdict.reasons.push(format!("{} = {got}, wanted {value}", dotted(path)));
        }
    }
    for absent in case.get("absent").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let path: Path = absent.split('.').map(|part| Step::Key(part.to_owned())).collect();
        if let Some(got) = get(intent, &path) {
            verdict.invented += 1;
            verdict.wrong += 1;
            verdict.reasons.push(format!("invented {absent} = {got}"));
        }
    }
    verdict
}

fn judge_question(case: &Map<String, Value>, answer: &Map<String, Value>, verdict: &mut Verdict) {
    let field = case.get("question").and_then(|q| q.get("field")?.as_str()).unwrap_or_default();
    let asked: Vec<&str> = answer
        .get("questions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|q| q.get("field")?.as_str())
        .collect();
    let under = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
    if !asked.iter().any(|a| *a == field || under(a, field) || under(field, a)) {
        let asked = if asked.is_empty() { "nothing".to_owned() } else { asked.join(", ") };
        verdict.reasons.push(format!("asked about {asked}, wanted {field}"));
    }
}

/// Every leaf: lists of plain values are one, lists of objects are walked.
fn leaves(value: &Value, path: &mut Path, found: &mut Vec<(Path, Value)>) {
    match value {
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let mut length = path.clone();
            length.push(Step::Length);
            found.push((length, Value::from(items.len())));
            for (i, item) in items.iter().enumerate() {
                path.push(Step::Index(i));
                leaves(item, path, found);
                path.pop();
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            for (key, field) in fields {
                path.push(Step::Key(key.clone()));
                leaves(field, path, found);
                path.pop();
            }
        }
        leaf => found.push((path.clone(), leaf.clone())),
    }
}

/// The value at a path; null and missing are the same.
fn get(value: &Value, path: &Path) -> Option<Value> {
    let mut at = value;
    for step in path {
        at = match (step, at) {
            (Step::Key(key), Value::Object(fields)) => fields.get(key)?,
            (Step::Index(i), Value::Array(items)) => items.get(*i)?,
            (Step::Length, Value::Array(items)) => return Some(Value::from(items.len())),
            (Step::Key(key), Value::Array(items)) if key == "#" => return Some(Value::from(items.len())),
            _ => return None,
        };
    }
    (!at.is_null()).then(|| at.clone())
}

fn in_path(path: &Path, name: &str) -> bool {
    path.iter().any(|step| matches!(step, Step::Key(key) if key == name))
}

fn equal(want: &Value, got: &Value, path: &Path) -> bool {
    let last = path.last().and_then(|step| if let Step::Key(key) = step { Some(key.as_str()) } else { None });
    match (want, got) {
        (Value::Bool(_), _) | (_, Value::Bool(_)) => want == got || in_path(path, "env") && text(want) == text(got),
        _ if in_path(path, "env") => text(want) == text(got),
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-6,
            _ => false,
        },
        (Value::Array(a), Value::Array(b)) => {
            let sorted = |list: &[Value]| {
                let mut list = list.to_vec();
                list.sort_by_key(text);
                list
            };
            let any_order = matches!(last, Some("ports" | "exclude_nodes"));
            let (a, b) = if any_order { (sorted(a), sorted(b)) } else { (a.clone(), b.clone()) };
            a.len() == b.len() && a.iter().zip(&b).all(|(x, y)| equal(x, y, path))
        }
        (Value::String(a), Value::String(b)) => {
            if matches!(last, Some("not_before" | "deadline")) {
                return super::same_instant(a, b);
            }
            if ["image", "command", "env"].iter().any(|name| in_path(path, name)) {
                return a == b;
            }
            folded(a) == folded(b)
        }
        _ => want == got,
    }
}

/// Without regard to case; letters that have no capital of their own fold as the public scorer does.
fn folded(text: &str) -> String {
    text.to_lowercase().replace('ß', "ss").replace('ς', "σ").replace('ſ', "s")
}

/// A plain value as text, in the public scorer's spelling.
fn text(value: &Value) -> String {
    if let Value::Bool(truth) = value {
        return if *truth { "True".into() } else { "False".into() };
    }
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn show(value: Option<&Value>) -> String {
    value.map_or_else(|| "none".to_owned(), text)
}

fn dotted(path: &Path) -> String {
    let part = |step: &Step| match step {
        Step::Key(key) => key.clone(),
        Step::Index(i) => i.to_string(),
        Step::Length => "#".to_owned(),
    };
    path.iter().map(part).collect::<Vec<_>>().join(".")
}
