//! A JSON argument: the text itself, `@FILE` (JSON, or TOML if it ends so), or `-` for standard input.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::CliError;

const FORM: &str = "JSON";
/// How `toml` shows a date to a reader that knows no dates.
const TOML_DATE_KEY: &str = "$__toml_private_datetime";

/// The value that an argument stands for; `what` names the argument in an error.
pub(crate) fn read(what: &str, text: &str) -> Result<Value, CliError> {
    match text.strip_prefix('@') {
        Some(path) => {
            let path = Path::new(path);
            let content = fs::read_to_string(path).map_err(|error| CliError::file(path, error))?;
            if path.extension().is_some_and(|end| end == "toml") { toml(what, &content) } else { json(what, &content) }
        }
        None if text == "-" => {
            let mut content = String::new();
            std::io::stdin().read_to_string(&mut content)?;
            json(what, &content)
        }
        None => json(what, text),
    }
}

/// The same, where only an object makes sense; an empty text is an empty object.
pub(crate) fn read_object(what: &str, text: &str) -> Result<Map<String, Value>, CliError> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    match read(what, text)? {
        Value::Object(map) => Ok(map),
        other => Err(CliError::Malformed {
            what: what.to_owned(),
            form: FORM,
            why: format!("expected an object, got {}", claw_tools::outcome::clip(&other.to_string(), 60)),
        }),
    }
}

fn json(what: &str, text: &str) -> Result<Value, CliError> {
    serde_json::from_str(text).map_err(|error| CliError::Malformed {
        what: what.to_owned(),
        form: FORM,
        why: error.to_string(),
    })
}

fn toml(what: &str, text: &str) -> Result<Value, CliError> {
    let mut value: Value = ::toml::from_str(text).map_err(|error| CliError::Malformed {
        what: what.to_owned(),
        form: "TOML",
        why: error.to_string(),
    })?;
    dates_as_text(&mut value);
    Ok(value)
}

fn dates_as_text(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let (1, Some(Value::String(date))) = (map.len(), map.get(TOML_DATE_KEY)) {
                *value = Value::from(date.as_str());
                return;
            }
            map.values_mut().for_each(dates_as_text);
        }
        Value::Array(list) => list.iter_mut().for_each(dates_as_text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
