//! Own cases, properties, and the catalogue's consistency.

use serde_json::{Value, json};

use super::*;

mod cases;
mod catalogue;
mod orders;
mod properties;
mod said;

fn answer(text: &str, context: &Context) -> Value {
    serde_json::to_value(parse(text, context, Catalog::builtin())).unwrap()
}

/// The named part of a value, null if it is missing.
fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, key| &value[key])
}
