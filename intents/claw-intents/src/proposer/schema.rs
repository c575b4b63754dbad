//! The schema of a proposer's answer, made from the types of the answer itself.
//!
//! It is in the subset that strict structured outputs take: every property is
//! required, none is added, what may be missing may be null, and there are no
//! open maps. Fields of a specification that requests in words do not know are
//! not in it, nor are maps (`env`, labels): only the grammar reads those.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::answer::Intent;

/// Fields of a workload that a request in words can be about, maps left out.
const WORKLOAD: &[&str] = &[
    "name",
    "kind",
    "model",
    "quantization",
    "image",
    "command",
    "ports",
    "gpu",
    "nodes",
    "cpu_cores",
    "memory_gib",
    "disk_gib",
    "shm_gib",
    "replicas",
    "autoscale",
    "priority",
    "preemptible",
    "max_duration_s",
    "not_before",
    "deadline",
    "restart",
    "max_restarts",
    "placement",
    "tenant",
    "checkpoint_interval_s",
    "volumes",
    "market",
    "budget",
];

/// What the words of a placement can say. Taints and who is kept apart are said in specifications alone.
const PLACEMENT: &[&str] = &["node", "exclude_nodes", "zone", "labels", "strategy"];

/// Words of a schema that strict structured outputs take.
const KEPT: &[&str] = &["type", "enum", "const", "properties", "items", "anyOf", "$ref", "$defs", "description"];

/// The schema of an answer.
pub fn of_replies() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(make)
}

fn make() -> Value {
    let mut intent = schemars::schema_for!(Intent).to_value();
    let mut defs = intent.as_object_mut().and_then(|o| o.remove("$defs")).unwrap_or_else(|| json!({}));
    if let Some(workload) = defs.pointer_mut("/WorkloadSpec/properties").and_then(Value::as_object_mut) {
        workload.retain(|name, _| WORKLOAD.contains(&name.as_str()));
    }
    if let Some(placement) = defs.pointer_mut("/Placement/properties").and_then(Value::as_object_mut) {
        placement.retain(|name, _| PLACEMENT.contains(&name.as_str()));
    }
    strict(&mut intent);
    if let Some(all) = defs.as_object_mut() {
        all.values_mut().for_each(strict);
        keep_reached(all, &intent);
    }
    let actions = intent.get("anyOf").cloned().unwrap_or_else(|| json!([]));
    let intent: Vec<Value> =
        actions.as_array().into_iter().flatten().cloned().chain([json!({"type": "null"})]).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["intent", "outcome", "questions"],
        "properties": {
            "outcome": { "type": "string", "enum": ["intent", "question"] },
            "intent": { "anyOf": intent },
            "questions": { "anyOf": [{ "type": "array", "items": { "type": "string" } }, { "type": "null" }] },
        },
        "$defs": defs,
    })
}

/// Brings a schema into the strict subset.
fn strict(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(all) = object.remove("oneOf") {
        object.insert("anyOf".into(), all);
    }
    if let Some(value) = object.remove("const") {
        object.insert("enum".into(), json!([value]));
        object.insert("type".into(), json!("string"));
    }
    object.retain(|word, _| KEPT.contains(&word.as_str()) || word == "required");
    strict_object(object);
    for word in ["anyOf", "items"] {
        match object.get_mut(word) {
            Some(Value::Array(all)) => all.iter_mut().for_each(strict),
            Some(one) => strict(one),
            None => {}
        }
    }
    // One description would stand in for the type that is referred to.
    if object.contains_key("$ref") {
        object.retain(|word, _| word == "$ref");
    }
}

fn strict_object(object: &mut Map<String, Value>) {
    let required: BTreeSet<String> = object
        .remove("required")
        .and_then(|all| Some(all.as_array()?.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect()))
        .unwrap_or_default();
    if !object.contains_key("properties") {
        return;
    }
    let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) else { return };
    properties.retain(|_, property| !is_map(property));
    for (name, property) in properties.iter_mut() {
        strict(property);
        if !required.contains(name) && !takes_null(property) {
            *property = json!({ "anyOf": [property.take(), { "type": "null" }] });
        }
    }
    let names: Vec<Value> = properties.keys().cloned().map(Value::from).collect();
    object.insert("required".into(), names.into());
    object.insert("additionalProperties".into(), json!(false));
}

/// Whether a property is an object with any keys.
fn is_map(property: &Value) -> bool {
    property.get("additionalProperties").is_some_and(|value| *value != json!(false))
        && property.get("properties").is_none()
}

fn takes_null(property: &Value) -> bool {
    let null = |value: &Value| value == "null";
    match property.get("type") {
        Some(Value::Array(all)) => all.iter().any(null),
        Some(one) => null(one),
        None => property.get("anyOf").and_then(Value::as_array).is_some_and(|all| all.iter().any(takes_null)),
    }
}

/// Drops definitions that nothing refers to any more.
fn keep_reached(defs: &mut Map<String, Value>, root: &Value) {
    let mut reached = BTreeSet::new();
    let mut open = references(root);
    while let Some(name) = open.pop() {
        if reached.insert(name.clone()) {
            open.extend(defs.get(&name).map(references).unwrap_or_default());
        }
    }
    defs.retain(|name, _| reached.contains(name));
}

fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(object) => object
            .iter()
            .flat_map(|(word, value)| match (word.as_str(), value.as_str()) {
                ("$ref", Some(target)) => vec![target.trim_start_matches("#/$defs/").to_owned()],
                _ => references(value),
            })
            .collect(),
        Value::Array(all) => all.iter().flat_map(references).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// The names of all actions.
pub(super) fn actions() -> Vec<&'static str> {
    let branches = of_replies().pointer("/properties/intent/anyOf").and_then(Value::as_array);
    branches.into_iter().flatten().filter_map(|branch| branch.pointer("/properties/action/enum/0")?.as_str()).collect()
}

/// Whether an intent of any action has this dotted field.
pub(super) fn is_field(path: &str) -> bool {
    static FIELDS: OnceLock<BTreeSet<String>> = OnceLock::new();
    let fields = FIELDS.get_or_init(|| {
        let mut fields = BTreeSet::new();
        if let Some(intent) = of_replies().pointer("/properties/intent") {
            collect(intent, "", &mut fields);
        }
        fields
    });
    fields.contains(path)
}

fn collect(schema: &Value, prefix: &str, fields: &mut BTreeSet<String>) {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        if let Some(definition) = of_replies().pointer(target.trim_start_matches('#')) {
            collect(definition, prefix, fields);
        }
        return;
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        collect(property, &path, fields);
        fields.insert(path);
    }
    for branch in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        collect(branch, prefix, fields);
    }
}

/// Fields of a specification that the schema leaves out.
#[cfg(test)]
pub(super) fn left_out() -> BTreeSet<String> {
    let all = schemars::schema_for!(claw_proto::spec::WorkloadSpec).to_value();
    let all = all.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    all.into_iter().map(|(name, _)| name).filter(|name| !is_field(&format!("workload.{name}"))).collect()
}
