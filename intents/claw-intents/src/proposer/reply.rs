//! The form of a proposer's answer: JSON text, read strictly.

use serde_json::{Map, Value};

use super::Fault;

/// A proposer's answer, before anything of it is believed.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// An intent, without what is null or empty.
    Intent(Map<String, Value>),
    /// Dotted fields that a person should be asked about.
    Question(Vec<String>),
}

/// Most fields that a question may be about.
pub const QUESTIONS_MAX: usize = 2;

/// Reads an answer.
///
/// # Errors
/// What is wrong with its form.
pub fn read(text: &str) -> Result<Reply, Fault> {
    let whole = |why: String| Fault::new("", Value::Null, Vec::new(), why);
    let value: Value =
        serde_json::from_str(text).map_err(|error| whole(format!("the answer is not one JSON object: {error}")))?;
    let Value::Object(mut object) = value else {
        return Err(whole("the answer is JSON, but not an object".into()));
    };
    let outcome = object.remove("outcome").unwrap_or_default();
    let (intent, questions) = (object.remove("intent"), object.remove("questions"));
    if let Some((key, value)) = object.into_iter().next() {
        let allowed = ["outcome", "intent", "questions"].map(Value::from).to_vec();
        return Err(Fault::new(key, value, allowed, "the answer has no such field"));
    }
    match outcome.as_str() {
        Some("intent") => match intent.and_then(without_empty) {
            Some(Value::Object(intent)) => Ok(Reply::Intent(intent)),
            other => Err(Fault::new("intent", other.unwrap_or_default(), Vec::new(), "an intent is an object")),
        },
        Some("question") => asked(questions.unwrap_or_default()).map(Reply::Question),
        _ => {
            let allowed = ["intent", "question"].map(Value::from).to_vec();
            Err(Fault::new("outcome", outcome, allowed, "an answer is an intent or a question"))
        }
    }
}

fn asked(questions: Value) -> Result<Vec<String>, Fault> {
    let fields: Option<Vec<String>> =
        questions.as_array().and_then(|all| all.iter().map(|q| q.as_str().map(str::to_owned)).collect());
    match fields {
        Some(fields) if (1..=QUESTIONS_MAX).contains(&fields.len()) => Ok(fields),
        _ => {
            let why = format!("a question is about one to {QUESTIONS_MAX} fields, by their names");
            Err(Fault::new("questions", questions, Vec::new(), why))
        }
    }
}

/// A value without what is null, an empty text, list or object: a strict schema makes a model write
/// out what it leaves open.
fn without_empty(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(list) => {
            let list: Vec<Value> = list.into_iter().filter_map(without_empty).collect();
            (!list.is_empty()).then_some(Value::Array(list))
        }
        Value::Object(map) => {
            let map: Map<String, Value> =
                map.into_iter().filter_map(|(key, value)| Some((key, without_empty(value)?))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        other @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => Some(other),
    }
}
