//! Cases, properties and the catalogue's own consistency.

use serde_json::Value;

use super::*;

/// Sentences with the answer they must have; the first half was looked at while
/// the grammar was made, the second was written down before it was run.
const TUNING: &str = include_str!("tests/tuning.jsonl");
const VALIDATION: &str = include_str!("tests/validation.jsonl");

mod cases;
mod catalogue;
mod properties;

fn answer(text: &str, context: &Context) -> Value {
    serde_json::to_value(parse(text, context, Catalog::builtin())).unwrap()
}

/// The named part of a value, null if it is missing.
fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, key| &value[key])
}
