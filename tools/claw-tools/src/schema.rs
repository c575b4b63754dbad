//! Schemas as they are advertised, and arguments checked against them.
//!
//! What schemars makes is correct but long and not portable: references,
//! nullable unions, number formats. [`advertised`] inlines, drops and sorts so
//! that strict clients take it and it costs few tokens. [`check`] validates the
//! caller's arguments against exactly what was advertised and answers with the
//! path, what was got, what is allowed and the nearest name.

use std::sync::OnceLock;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
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
            for (key, inner) in map.iter_mut() {
                match (key.as_str(), inner) {
                    // Its keys are names of fields, not keywords: one may be called `format`.
                    ("properties", Value::Object(fields)) => fields.values_mut().for_each(tidy),
                    ("enum" | "const" | "required", _) => {}
                    (_, inner) => tidy(inner),
                }
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

/// A JSON value of any kind but null, said so that strict clients take it: a
/// schema without any keyword is an error to some.
pub fn any_json(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "anyOf": [
            { "type": "string" },
            { "type": "number" },
            { "type": "boolean" },
            { "type": "array", "items": { "type": "string" } },
            { "type": "object", "additionalProperties": true },
        ]
    })
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
        let validator = jsonschema::validator_for(&schema)
            .expect("an advertised schema is a valid JSON Schema; a test checks all of them");
        Self { validator, schema }
    }

    /// All faults of `args`, the first as the refusal's field and the others in its evidence.
    pub fn check(&self, tool: &str, args: &Value) -> Result<(), Refusal> {
        // Where there is none, nothing is made to tell of one.
        if self.validator.is_valid(args) {
            return Ok(());
        }
        let faults: Vec<ArgumentFault> =
            self.validator.iter_errors(args).take(20).map(|error| self.fault(&error)).collect();
        let Some(first) = faults.first() else { return Ok(()) };
        let mut refusal = Refusal::new(ErrorCode::InvalidArgument, format!("{tool}: {}", first.message))
            .with_field(first.field(), first.got.clone())
            .with_allowed(self.allowed_at(&first.path))
            .with_nearest(first.near.clone());
        if faults.len() > 1 {
            refusal = refusal
                .with_evidence(faults.iter().map(|fault| format!("{}: {}", fault.field(), fault.message)).collect());
        }
        Err(refusal.with_next("tool_describe", serde_json::json!({ "name": tool })))
    }

    /// One fault in the caller's words: the path of the very field, not of the object around it.
    fn fault(&self, error: &ValidationError<'_>) -> ArgumentFault {
        let path = dotted(&error.instance_path().to_string());
        let inside = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        // What the whole is or holds is not repeated where a part of it is secret.
        let is_secret = self.is_write_only(&path);
        let message = if is_secret { error.masked().to_string() } else { error.to_string() };
        let message = crate::outcome::clip(&message, 300);
        let got = if is_secret { String::new() } else { plain(error.instance()) };
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } if !unexpected.is_empty() => {
                let key = &unexpected[0];
                let near = nearest(key, self.properties_at(&path).iter().map(String::as_str));
                ArgumentFault { path: inside(key), message: format!("unknown field {key:?}"), got: key.clone(), near }
            }
            ValidationErrorKind::Required { property } => {
                let field = plain(property);
                ArgumentFault {
                    path: inside(&field),
                    message: format!("missing field {field:?}"),
                    got: String::new(),
                    near: None,
                }
            }
            ValidationErrorKind::Pattern { pattern } if id_prefix(pattern).is_some() => {
                let prefix = id_prefix(pattern).unwrap_or_default();
                ArgumentFault {
                    message: format!("expected an id like {prefix}…, got {got:?}"), path, got, near: None
                }
            }
            ValidationErrorKind::Pattern { pattern } if is_instant(pattern) => {
                ArgumentFault { message: format!("{got:?} is not an {INSTANT}"), path, got, near: None }
            }
            _ => {
                // Only of a list of values can one be meant; a bound is not a word.
                let values = self.node_at(&path).and_then(|node| node.get("enum")).and_then(Value::as_array);
                let values: Vec<String> = values.into_iter().flatten().map(plain).collect();
                let near = error.instance().as_str().and_then(|text| nearest(text, values.iter().map(String::as_str)));
                ArgumentFault { path, message, got, near }
            }
        }
    }

    fn node_at(&self, path: &str) -> Option<&Value> {
        let mut node = &self.schema;
        for part in path.split('.').filter(|p| !p.is_empty()) {
            node = match node.get("properties").and_then(|p| p.get(part)) {
                Some(next) => next,
                None if part.parse::<usize>().is_ok() && node.get("items").is_some() => node.get("items")?,
                None => node.get("additionalProperties").filter(|schema| schema.is_object())?,
            };
        }
        Some(node)
    }

    fn is_write_only(&self, path: &str) -> bool {
        let says_so = |node: &Value| node.get("writeOnly").and_then(Value::as_bool) == Some(true);
        let Some(node) = self.node_at(path) else { return false };
        let parts = node.get("properties").and_then(Value::as_object);
        says_so(node) || parts.is_some_and(|parts| parts.values().any(says_so))
    }

    fn properties_at(&self, path: &str) -> Vec<String> {
        self.node_at(path)
            .and_then(|n| n.get("properties"))
            .and_then(Value::as_object)
            .map(|p| p.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Enum values, field names, alternatives or bounds at this place of the schema; around it
    /// if the place does not exist.
    fn allowed_at(&self, path: &str) -> Vec<String> {
        let Some(node) = self.node_at(path) else {
            return self.properties_at(path.rsplit_once('.').map_or("", |(parent, _)| parent));
        };
        if let Some(values) = node.get("enum").and_then(Value::as_array) {
            return values.iter().map(plain).collect();
        }
        if let Some(choices) = node.get("oneOf").or_else(|| node.get("anyOf")).and_then(Value::as_array) {
            return choices.iter().map(form).collect();
        }
        let pattern = node.get("pattern").and_then(Value::as_str);
        if let Some(prefix) = pattern.and_then(id_prefix) {
            return vec![format!("{prefix} and 26 characters")];
        }
        if pattern.is_some_and(is_instant) {
            return vec![INSTANT.to_owned()];
        }
        ["type", "minimum", "maximum", "minLength", "maxLength"]
            .iter()
            .filter_map(|key| node.get(*key).map(|v| format!("{key} {}", plain(v))))
            .chain(pattern.map(|p| format!("pattern {p}")))
            .chain(self.properties_at(path))
            .collect()
    }
}

/// One fault of the caller's arguments.
struct ArgumentFault {
    path: String,
    message: String,
    got: String,
    near: Option<String>,
}

impl ArgumentFault {
    fn field(&self) -> &str {
        if self.path.is_empty() { "arguments" } else { &self.path }
    }
}

/// A text as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The prefix of an id's pattern, such as `wl_`.
fn id_prefix(pattern: &str) -> Option<&str> {
    let (prefix, rest) = pattern.strip_prefix('^')?.split_once('[')?;
    (prefix.ends_with('_') && rest.ends_with("]{26}$")).then_some(prefix)
}

/// What a timestamp looks like, for people.
const INSTANT: &str = "RFC 3339 instant such as 2026-03-01T12:00:00Z";

/// The pattern is that of a timestamp.
fn is_instant(pattern: &str) -> bool {
    pattern.starts_with(r"^\d{4}-\d{2}-\d{2}[Tt ]")
}

/// What one alternative looks like: its constant, or its fields with their types.
fn form(schema: &Value) -> String {
    if let Some(constant) = schema.get("const") {
        return constant.to_string();
    }
    let kind = |schema: &Value| schema.get("type").map_or_else(|| "any".to_owned(), plain);
    match schema.get("properties").and_then(Value::as_object) {
        Some(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, field)| format!("{name:?}: {}", kind(field))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        None => kind(schema),
    }
}

fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~")
}

/// Checks arguments against the schema and turns them into their type.
pub fn parse<T: DeserializeOwned>(tool: &str, checker: &Checker, args: Value) -> Result<T, Refusal> {
    let args = if args.is_null() { Value::Object(Map::new()) } else { args };
    checker.check(tool, &args)?;
    // The place of a fault is looked for where there is one.
    T::deserialize(&args).or_else(|_| serde_path_to_error::deserialize(&args)).map_err(|error| {
        let path = error.path().to_string();
        let mut pointer = String::new();
        for segment in error.path() {
            pointer.push('/');
            pointer.push_str(&segment.to_string());
        }
        Refusal::new(ErrorCode::InvalidArgument, format!("{tool}: {}", error.inner()))
            .with_field(
                if path == "." { "arguments" } else { &path },
                args.pointer(&pointer).map(plain).unwrap_or_default(),
            )
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
