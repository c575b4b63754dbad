//! Schemas as they are advertised, and arguments checked against them.
//!
//! What schemars makes is correct but long and not portable: references,
//! nullable unions, number formats. [`advertised`] inlines, drops and sorts so
//! that strict clients take it and it costs few tokens. [`check`] validates the
//! caller's arguments against exactly what was advertised and answers with the
//! path, what was got, what is allowed and the nearest name.

use std::sync::OnceLock;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::nearest::nearest;
use crate::refusal::{ErrorCode, Refusal};

/// The advertised schema of a type.
pub fn advertised<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut value = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut value);
    if let Value::Object(map) = &mut value {
        map.remove("title");
        map.remove("description");
        map.entry("type").or_insert_with(|| "object".into());
        map.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    }
    value
}

fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("format");
            map.remove("default");
            drop_null(map);
            for inner in map.values_mut() {
                tidy(inner);
            }
            one_of_constants(map);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `T | null` becomes `T`: an absent field says the same in fewer tokens.
fn drop_null(map: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|t| t != "null");
        if types.len() == 1 {
            let only = types.remove(0);
            map.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(list)) = map.get_mut("enum") {
        list.retain(|v| !v.is_null());
    }
    if let Some(Value::Array(list)) = map.get_mut("anyOf") {
        list.retain(|v| v.get("type") != Some(&Value::from("null")));
        if list.len() == 1
            && let Value::Object(only) = list.remove(0)
        {
            map.remove("anyOf");
            for (key, inner) in only {
                map.entry(key).or_insert(inner);
            }
        }
    }
}

/// `oneOf` of documented constants becomes a plain `enum`.
fn one_of_constants(map: &mut Map<String, Value>) {
    let Some(Value::Array(list)) = map.get("oneOf") else { return };
    let constants: Option<Vec<Value>> = list
        .iter()
        .map(|v| v.get("const").cloned().map(|c| vec![c]).or_else(|| v.get("enum").and_then(Value::as_array).cloned()))
        .collect::<Option<Vec<_>>>()
        .map(|groups| groups.into_iter().flatten().collect());
    if let Some(constants) = constants {
        map.remove("oneOf");
        map.insert("type".into(), "string".into());
        map.insert("enum".into(), Value::Array(constants));
    }
}

/// A schema compiled for checking.
#[derive(Debug)]
pub struct Checker {
    validator: jsonschema::Validator,
    schema: Value,
}

impl Checker {
    /// Compiles an advertised schema.
    pub fn new(schema: Value) -> Self {
        let validator = jsonschema::validator_for(&schema).expect("an advertised schema is a valid JSON Schema; a test checks all of them");
        Self { validator, schema }
    }

    /// All faults of `args`, the first as the refusal's field and the others in its evidence.
    pub fn check(&self, tool: &str, args: &Value) -> Result<(), Refusal> {
        let mut faults: Vec<(String, String, Value)> = Vec::new();
        for error in self.validator.iter_errors(args).take(20) {
            let path = dotted(&error.instance_path().to_string());
            faults.push((path, crate::outcome::clip(&error.to_string(), 300), error.instance().clone().into_owned()));
        }
        let Some((path, message, instance)) = faults.first().cloned() else { return Ok(()) };
        let (path, message, got, near) = self.name_unknown(&path, message, &instance);
        let allowed = self.allowed_at(&path);
        let list: Vec<String> = faults.iter().map(|(p, m, _)| format!("{}: {m}", if p.is_empty() { "arguments" } else { p })).collect();
        let mut refusal = Refusal::new(ErrorCode::InvalidArgument, format!("{tool}: {message}"))
            .with_field(if path.is_empty() { "arguments" } else { &path }, got)
            .with_allowed(allowed)
            .with_nearest(near);
        if list.len() > 1 {
            refusal = refusal.with_evidence(Value::from(list));
        }
        Err(refusal.with_next("tool_describe", serde_json::json!({ "name": tool })))
    }

    /// For an unknown property: its own path and the nearest known one.
    fn name_unknown(&self, path: &str, message: String, instance: &Value) -> (String, String, String, Option<String>) {
        let known = self.properties_at(path);
        let unknown = instance.as_object().and_then(|o| o.keys().find(|k| !known.is_empty() && !known.contains(k)));
        match unknown {
            Some(key) if message.contains("dditional properties") => {
                let near = nearest(key, known.iter().map(String::as_str));
                let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                (full, format!("unknown field {key:?}"), key.clone(), near)
            }
            _ => {
                let got = instance.to_string();
                let near = instance.as_str().and_then(|text| {
                    let allowed = self.allowed_at(path);
                    nearest(text, allowed.iter().map(String::as_str))
                });
                (path.to_owned(), message, got, near)
            }
        }
    }

    fn node_at(&self, path: &str) -> Option<&Value> {
        let mut node = &self.schema;
        for part in path.split('.').filter(|p| !p.is_empty()) {
            node = match node.get("properties").and_then(|p| p.get(part)) {
                Some(next) => next,
                None if part.parse::<usize>().is_ok() => node.get("items")?,
                None => node.get("additionalProperties")?,
            };
        }
        Some(node)
    }

    fn properties_at(&self, path: &str) -> Vec<String> {
        self.node_at(path)
            .and_then(|n| n.get("properties"))
            .and_then(Value::as_object)
            .map(|p| p.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Enum values, or field names, or the bounds at this place of the schema.
    fn allowed_at(&self, path: &str) -> Vec<String> {
        let Some(node) = self.node_at(path) else {
            let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
            return self.properties_at(parent);
        };
        if let Some(values) = node.get("enum").and_then(Value::as_array) {
            return values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        }
        ["type", "pattern", "minimum", "maximum", "minLength", "maxLength"]
            .iter()
            .filter_map(|key| node.get(*key).map(|v| format!("{key} {}", v.as_str().map_or_else(|| v.to_string(), str::to_owned))))
            .chain(self.properties_at(path))
            .collect()
    }
}

fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~")
}

/// Checks arguments against the schema and turns them into their type.
pub fn parse<T: DeserializeOwned>(tool: &str, checker: &Checker, args: Value) -> Result<T, Refusal> {
    let args = if args.is_null() { Value::Object(Map::new()) } else { args };
    checker.check(tool, &args)?;
    serde_path_to_error::deserialize(args).map_err(|error| {
        let path = error.path().to_string();
        Refusal::new(ErrorCode::InvalidArgument, format!("{tool}: {}", error.inner()))
            .with_field(if path == "." { "arguments" } else { &path }, "")
            .with_next("tool_describe", serde_json::json!({ "name": tool }))
    })
}

/// A lazily compiled checker, one per operation.
#[derive(Debug)]
pub struct LazyChecker(OnceLock<Checker>);

impl Default for LazyChecker {
    fn default() -> Self {
        Self::new()
    }
}

impl LazyChecker {
    /// Not compiled yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }
    /// The checker of `schema`, compiled at the first use.
    pub fn get(&self, schema: fn() -> Value) -> &Checker {
        self.0.get_or_init(|| Checker::new(schema()))
    }
}
