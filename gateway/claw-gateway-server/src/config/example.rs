//! The schema of the configuration, and an example with every key and its default.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::{GatewayConfig, KEYS};

/// Columns of the example's comments.
const COLUMNS: usize = 100;

/// JSON schema of the configuration file.
pub fn schema() -> String {
    let schema = schemars::schema_for!(GatewayConfig);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}

/// A configuration file with every key, its meaning and its default, all
/// commented out.
pub fn example() -> String {
    let schema = serde_json::to_value(schemars::schema_for!(GatewayConfig)).expect("a schema is JSON");
    let defaults = Table::try_from(GatewayConfig::default()).expect("the defaults are TOML");
    let mut text = String::from(
        "# Configuration of claw-gateway. Every key may be left out; what stands here is the default.\n\
         # A key can also be set by the environment (CLAW_GATEWAY__HTTP__LISTEN for http.listen) and by\n\
         # --set http.listen=127.0.0.1:7700, which comes before the environment, which comes before this file.\n",
    );
    let mut section = "";
    for key in &KEYS {
        let (parents, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if parents != section {
            section = parents;
            let comment = comment_unless_default(&defaults, parents);
            text.extend(["\n", comment, "[", parents, "]\n"]);
        }
        text.push('\n');
        for line in wrapped(&doc(&schema, key.path)) {
            text.extend(["# ", &line, "\n"]);
        }
        let shown = match look_up(&defaults, key.path) {
            Some(value) => value.to_string(),
            None => "\"\"".to_owned(),
        };
        text.extend(["# ", name, " = ", &shown, "\n"]);
    }
    text
}

/// A table that is there by default may stand in the file; one that is not would have to be filled.
fn comment_unless_default(defaults: &Table, path: &str) -> &'static str {
    if look_up(defaults, path).is_some() { "" } else { "# " }
}

fn look_up<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = table.get(first)?;
    match (value, rest) {
        (value, "") => Some(value),
        (Value::Table(inner), rest) => look_up(inner, rest),
        _ => None,
    }
}

/// The description of a key in the schema.
fn doc(schema: &Json, path: &str) -> String {
    let mut at = schema;
    for part in path.split('.') {
        at = &resolve(schema, at)["properties"][part];
    }
    at["description"].as_str().unwrap_or_default().replace('\n', " ")
}

/// Follows a reference, also one that may be null.
fn resolve<'a>(root: &'a Json, at: &'a Json) -> &'a Json {
    let target =
        at["$ref"].as_str().or_else(|| at["anyOf"].as_array()?.iter().find_map(|option| option["$ref"].as_str()));
    match target.and_then(|target| target.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap_or(at),
        None => at,
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > COLUMNS {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}
