//! The parameters of an operation as fields of a command line, read from its schema.

use claw_tools::def::OpDef;
use serde_json::Value;

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    /// Its name in the schema.
    pub(crate) name: String,
    /// What stands in its place.
    pub(crate) kind: Kind,
    /// The operation does not go without it.
    pub(crate) required: bool,
    /// Given without its flag's name: the first required scalar.
    pub(crate) positional: bool,
    /// Its description.
    pub(crate) help: String,
}

/// What a parameter takes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// One of these.
    Choice(Vec<String>),
    /// A whole number between two bounds.
    Integer(i64, i64),
    /// A number.
    Number,
    /// Yes or no.
    Boolean,
    /// Several of one kind.
    List(Box<Kind>),
    /// Several `KEY=VALUE`.
    Map,
    /// A value of its own, as JSON.
    Json,
    /// A text that must not stand on the command line: the content of a file.
    Secret,
    /// A program and its arguments, after `--`.
    Argv,
}

impl Kind {
    /// The kind that a schema describes.
    pub(crate) fn of(schema: &Value) -> Self {
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            let texts: Option<Vec<String>> = values.iter().map(|v| v.as_str().map(str::to_owned)).collect();
            return texts.map_or(Self::Json, Self::Choice);
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("string") if schema["writeOnly"] == true => Self::Secret,
            Some("string") => Self::Text,
            Some("integer") => {
                let bound = |name: &str, open: i64| schema.get(name).and_then(Value::as_i64).unwrap_or(open);
                Self::Integer(bound("minimum", i64::MIN), bound("maximum", i64::MAX))
            }
            Some("number") => Self::Number,
            Some("boolean") => Self::Boolean,
            Some("array") => match schema.get("items").map(Self::of) {
                Some(item) if item.is_scalar() => Self::List(Box::new(item)),
                _ => Self::Json,
            },
            Some("object") => {
                let texts = |values: &Value| values["type"] == "string";
                let open = schema.get("additionalProperties").is_some_and(texts);
                if open && schema.get("properties").is_none() { Self::Map } else { Self::Json }
            }
            _ => Self::Json,
        }
    }

    /// One word on the command line.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Text | Self::Choice(_) | Self::Integer(..) | Self::Number | Self::Boolean => true,
            Self::List(_) | Self::Map | Self::Json | Self::Secret | Self::Argv => false,
        }
    }
}

impl Field {
    /// Its flag, without the dashes in front.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// What stands for its value in a usage line.
    pub(crate) fn value_name(&self) -> String {
        match &self.kind {
            Kind::Map => "KEY=VALUE".to_owned(),
            Kind::Json => "JSON|@FILE|-".to_owned(),
            Kind::Secret => "FILE|-".to_owned(),
            Kind::Argv => "COMMAND".to_owned(),
            Kind::Text | Kind::Choice(_) | Kind::Integer(..) | Kind::Number | Kind::Boolean | Kind::List(_) => {
                self.flag().to_uppercase()
            }
        }
    }
}

/// The four fields that every change takes, at the end of every help text.
pub(crate) const COMMON: [&str; 4] = ["mode", "request_id", "reason", "wait_s"];

/// The parameters of an operation: required ones first, the common ones last.
pub(crate) fn of(op: &OpDef) -> Vec<Field> {
    let schema = (op.params_schema)();
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let mut fields: Vec<Field> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, inner)| Field {
            name: name.clone(),
            kind: kind_of(op, name, inner),
            required: required.contains(&name.as_str()),
            positional: false,
            help: help(inner),
        })
        .collect();
    let rank = |field: &Field| {
        let place = required.iter().position(|name| *name == field.name);
        let common = COMMON.iter().position(|name| *name == field.name);
        (common.map_or(0, |at| at + 1), place.unwrap_or(usize::MAX))
    };
    fields.sort_by_key(rank);
    if let Some(first) = fields.iter_mut().find(|field| field.required && field.kind.is_scalar()) {
        first.positional = true;
    }
    fields
}

/// A whole command is what stands at the end of the line.
fn kind_of(op: &OpDef, name: &str, schema: &Value) -> Kind {
    if op.name == "workload_exec" && name == "command" { Kind::Argv } else { Kind::of(schema) }
}

/// A description as clap wants it: no full stop at the end.
pub(crate) fn help(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str);
    let text = text.unwrap_or_default().trim_end_matches('.');
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
