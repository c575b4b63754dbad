//! The promises of the definitions: portable schemas, one style of names, tiers that fit,
//! a token budget, and refusals from which a caller can mend the call.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use claw_tools::access::Tier;
use claw_tools::def::{OpDef, UndoClass};
use claw_tools::registry::{Call, OPERATIONS, find};
use expect_test::expect_file;
use serde_json::{Value, json};

/// Tokens (o200k_base) of the names, descriptions and input schemas at `/mcp`.
const CORE_TOKENS_MAX: usize = 6_000;
/// The least number of tools at `/mcp`, the three that reach all others included.
const CORE_TOOLS_MIN: usize = 22;

/// Calls `visit` with every schema inside `schema` and the path that leads there.
fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    match schema {
        Value::Object(map) => map.iter().for_each(|(key, inner)| walk(inner, &format!("{path}/{key}"), visit)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, inner)| walk(inner, &format!("{path}/{i}"), visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// All faults found by `check` over all operations, one a line.
fn faults(check: impl Fn(&OpDef, &mut Vec<String>)) -> Vec<String> {
    let mut found = Vec::new();
    for op in OPERATIONS {
        let mut own = Vec::new();
        check(op, &mut own);
        found.extend(own.into_iter().map(|fault| format!("{}: {fault}", op.name)));
    }
    found
}

#[test]
fn every_schema_is_a_valid_2020_12_schema_of_an_object() {
    let found = faults(|op, found| {
        for (side, schema) in [("params", (op.params_schema)()), ("output", (op.output_schema)())] {
            if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
                found.push(format!("{side}: {error}"));
            }
            if schema["type"] != "object" {
                found.push(format!("{side}: the root is no object"));
            }
        }
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn schemas_are_portable() {
    let found = faults(|op, found| {
        let params = (op.params_schema)();
        if params["additionalProperties"] != json!(false) {
            found.push("unknown arguments would pass".to_owned());
        }
        for (side, schema) in [("params", params), ("output", (op.output_schema)())] {
            walk(&schema, side, &mut |path, inner| {
                let Some(map) = inner.as_object() else { return };
                // Inside `properties` the keys are names of fields, not keywords.
                if path.ends_with("/properties") {
                    return;
                }
                for keyword in ["$ref", "$defs", "$schema", "format", "default", "title", "definitions"] {
                    if map.contains_key(keyword) {
                        found.push(format!("{path}: {keyword}"));
                    }
                }
                let null = |value: &Value| value == "null" || value.is_null();
                if map.get("type").is_some_and(|t| null(t) || t.as_array().is_some_and(|list| list.iter().any(null))) {
                    found.push(format!("{path}: null type"));
                }
            });
        }
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_advertised_field_is_explained_or_obvious() {
    let found = faults(|op, found| {
        let params = (op.params_schema)();
        for (name, field) in params["properties"].as_object().into_iter().flatten() {
            if field.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
                found.push(format!("{name} has no description"));
            }
        }
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn names_and_texts_are_short_and_of_one_style() {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase());
    let found = faults(|op, found| {
        if op.name.len() > 40 || !op.name.split('_').all(word) {
            found.push("the name is not noun_verb of at most 40 characters".to_owned());
        }
        if op.doc.is_empty() || op.doc.len() > 400 || op.title.is_empty() || op.title.len() > 40 {
            found.push("the doc or the title is empty or too long".to_owned());
        }
        if op.doc.trim() != op.doc || !op.doc.ends_with(['.', '?']) {
            found.push("the doc is not whole sentences".to_owned());
        }
    });
    assert_eq!(found, Vec::<String>::new());
    let names: BTreeSet<_> = OPERATIONS.iter().map(|op| op.name).collect();
    let paths: BTreeSet<_> = OPERATIONS.iter().map(OpDef::cli_path).collect();
    assert_eq!((names.len(), paths.len()), (OPERATIONS.len(), OPERATIONS.len()), "names and command lines are unique");
}

#[test]
fn reads_and_mutations_keep_their_form() {
    const WITHOUT_MODE: [&str; 2] = ["plan_apply", "approval_decide"];
    let found = faults(|op, found| {
        let params = (op.params_schema)();
        let has = |field: &str| params["properties"].get(field).is_some();
        if op.read_only {
            if op.tier != Tier::Read || op.destructive || !op.idempotent || op.undo != UndoClass::None {
                found.push("a read is tier 0, harmless, repeatable and has nothing to undo".to_owned());
            }
            if has("mode") || has("request_id") || has("reason") {
                found.push("a read takes no mode, request_id or reason".to_owned());
            }
            return;
        }
        if op.tier == Tier::Read {
            found.push("a mutation is tier 1 at least".to_owned());
        }
        for field in ["request_id", "reason"] {
            if !has(field) {
                found.push(format!("a mutation takes {field}"));
            }
        }
        if has("mode") == WITHOUT_MODE.contains(&op.name) {
            found.push("a mutation takes a mode, save those that speak of a plan".to_owned());
        }
        if op.undo == UndoClass::Exact && op.destructive {
            found.push("what destroys cannot be undone exactly".to_owned());
        }
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_core_set_fits_its_token_budget() {
    let bpe = tiktoken_rs::o200k_base().expect("the vocabulary is part of the crate");
    let cost = |tool: &Value| bpe.encode_ordinary(&tool.to_string()).len();
    let core: Vec<&OpDef> = OPERATIONS.iter().filter(|op| op.core).collect();
    let mut costs: Vec<(usize, &str)> = core
        .iter()
        .map(|op| {
            (cost(&json!({ "name": op.name, "description": op.doc, "inputSchema": (op.params_schema)() })), op.name)
        })
        .collect();
    // The three that reach all other operations, as the MCP face lists them.
    for (name, fields) in [
        ("tool_search", json!({ "query": {}, "k": {} })),
        ("tool_describe", json!({ "name": {} })),
        ("tool_call", json!({ "name": {}, "args": {} })),
    ] {
        let text = "Find, describe or call any operation of the system, also those that are not listed here; checks and permissions are the same as for a listed one.";
        let mut schema =
            json!({ "type": "object", "additionalProperties": false, "required": ["name"], "properties": fields });
        for (_, field) in schema["properties"].as_object_mut().into_iter().flatten() {
            *field = json!({ "type": "string", "description": "Name of the operation, or its arguments, or words to look for." });
        }
        costs.push((cost(&json!({ "name": name, "description": text, "inputSchema": schema })), name));
    }
    assert!(costs.len() >= CORE_TOOLS_MIN, "{} tools", costs.len());
    let total: usize = costs.iter().map(|(tokens, _)| tokens).sum();
    costs.sort_unstable();
    costs.reverse();
    println!("{} tools, {total} tokens: {costs:?}", costs.len());
    assert!(total <= CORE_TOKENS_MAX, "{total} tokens, at most {CORE_TOKENS_MAX}: {costs:?}");
}

#[test]
fn definitions_match_their_goldens() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    for op in OPERATIONS {
        let whole = json!({
            "name": op.name,
            "title": op.title,
            "description": op.doc,
            "permission": op.permission,
            "tier": op.tier,
            "annotations": { "read_only": op.read_only, "destructive": op.destructive, "idempotent": op.idempotent },
            "toolset": op.toolset,
            "core": op.core,
            "undo": op.undo,
            "params": (op.params_schema)(),
            "output": (op.output_schema)(),
        });
        let text = serde_json::to_string_pretty(&whole).expect("a definition is JSON") + "\n";
        expect_file![folder.join(format!("{}.json", op.name))].assert_eq(&text);
    }
    let known: BTreeSet<String> = OPERATIONS.iter().map(|op| format!("{}.json", op.name)).collect();
    let files = std::fs::read_dir(&folder).expect("the folder of goldens exists");
    let stale: Vec<_> =
        files.filter_map(|f| f.ok()?.file_name().into_string().ok()).filter(|f| !known.contains(f)).collect();
    assert_eq!(stale, Vec::<String>::new(), "goldens of operations that are gone");
}

/// What a caller reads after a mistake.
fn refused(tool: &str, args: Value) -> String {
    let refusal = Call::parse(tool, args.clone()).expect_err("the arguments are wrong");
    let mut text = format!("{tool} {args}\n");
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            writeln!(text, "  {name}: {value}").expect("writing to a string");
        }
    };
    line("code", refusal.code.to_string());
    line("message", refusal.message);
    line("field", refusal.field.unwrap_or_default());
    line("got", refusal.got.unwrap_or_default());
    line("allowed", refusal.allowed.join(" | "));
    line("did_you_mean", refusal.did_you_mean.unwrap_or_default());
    line("evidence", if refusal.evidence.is_null() { String::new() } else { refusal.evidence.to_string() });
    line("next", refusal.next.iter().map(|call| format!("{} {}", call.tool, call.args)).collect::<Vec<_>>().join("; "));
    text
}

#[test]
fn refusals_name_the_path_what_was_got_and_what_is_allowed() {
    let text = [
        refused("workload_rnu", json!({})),
        refused("workload_list", json!({ "state": ["running"] })),
        refused("workload_list", json!({ "states": ["runing"] })),
        refused("workload_list", json!({ "limit": 500 })),
        refused("workload_list", json!({ "limit": "ten" })),
        refused("workload_wait", json!({})),
        refused("operation_get", json!({ "operation_id": "wl_00000000000000000000000001" })),
        refused("node_drain", json!({ "node": "gpu-1", "mode": "aply", "grace_s": 9_999 })),
        refused("workload_run", json!({ "spec": { "gpu": { "cuont": 4 } } })),
        refused("workload_run", json!({ "spec": { "gpu": { "vendor": "nvidea" } } })),
        refused("workload_run", json!({ "spec": { "ports": [80, 70_000] } })),
        refused("workload_run", json!({ "spec": { "env": { "A": 1 } } })),
        refused("workload_run", json!({ "spec": { "volumes": [{ "source": "data" }] } })),
        refused("workload_run", json!({ "spec": { "on_partition": { "stop_after": "long" } } })),
        refused("workload_run", json!({ "spec": { "not_before": "tomorrow" } })),
        refused("workload_run", json!({ "spec": { "not_before": "2026-13-45T00:00:00Z" } })),
        refused("node_label", json!({ "node": "n", "set": { "a/b": 1 } })),
        refused("cluster_status", json!([1])),
    ]
    .concat();
    expect_file!["refusals.txt"].assert_eq(&text);
}

#[test]
fn what_is_checked_is_what_is_parsed() {
    for op in OPERATIONS {
        assert_eq!(find(op.name).map(|found| found.name), Some(op.name));
    }
    let args = json!({ "spec": { "name": "a", "gpu": { "count": 4, "model": "H100" }, "command": ["true"], "on_partition": "keep" }, "mode": "plan" });
    let call = Call::parse("workload_run", args.clone()).expect("valid arguments");
    assert_eq!((call.name(), call.args()), ("workload_run", args));
    assert_eq!(Call::parse("cluster_status", Value::Null).expect("no arguments are an empty object").args(), json!({}));
}
