//! The MCP face, in both revisions.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use claw_tools::access::Role;
use expect_test::expect_file;
use serde_json::{Value, json};

use super::desk::{Desk, desk};
use crate::face::mcp::Scope;

/// Names, descriptions and input schemas of `/mcp`, tokens.
const CORE_TOKENS_MAX: usize = 6_000;
pub(super) const LEGACY: &str = "2025-11-25";
pub(super) const MODERN: &str = "2026-07-28";

impl Desk {
    /// One request and its answer, as HTTP clients of that revision send it.
    async fn mcp(&self, key: &str, path: &str, revision: &str, method: &str, params: Value) -> Value {
        let mut params = params;
        let mut request = Request::post(path)
            .header(header::HOST, "127.0.0.1")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header(header::CONTENT_TYPE, "application/json");
        if method != "initialize" {
            request = request.header("mcp-protocol-version", revision);
        }
        if revision == MODERN {
            let name = params.get("name").or(params.get("uri")).and_then(Value::as_str);
            request = request.header("mcp-method", method);
            if let Some(name) = name {
                request = request.header("mcp-name", name);
            }
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": revision,
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let request = request.header(header::CONTENT_LENGTH, body.len());
        let (status, answer) = self.send(request.body(Body::from(body)).unwrap()).await;
        assert!(status == StatusCode::OK || answer.get("error").is_some(), "{method}: {status} {answer}");
        answer
    }

    /// The result of a tool.
    async fn tool(&self, key: &str, path: &str, name: &str, args: Value) -> Value {
        let params = json!({ "name": name, "arguments": args });
        let result = self.mcp(key, path, LEGACY, "tools/call", params).await["result"].clone();
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"], "text and structure say the same");
        result
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_revisions_are_served() {
    let desk = desk().await;
    let key = desk.admin.clone();
    let hello = json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let hello = desk.mcp(&key, "/mcp", LEGACY, "initialize", hello).await;
    assert_eq!(hello["result"]["protocolVersion"], LEGACY, "{hello}");
    assert!(hello["result"]["instructions"].as_str().unwrap().len() <= 2_048);
    let discovered = desk.mcp(&key, "/mcp", MODERN, "server/discover", json!({})).await;
    assert!(discovered.to_string().contains(MODERN), "{discovered}");
    for revision in [LEGACY, MODERN] {
        let ask = async |method: &str, params: Value| desk.mcp(&key, "/mcp", revision, method, params).await;
        let list = ask("tools/list", json!({})).await;
        assert_eq!(list["result"]["tools"].as_array().map(Vec::len), Some(Scope::Core.tools().len()), "{revision}");
        assert_eq!((&list["result"]["cacheScope"], &list["result"]["ttlMs"]), (&json!("private"), &json!(3_600_000)));
        let status = ask("tools/call", json!({ "name": "cluster_status", "arguments": {} })).await;
        assert_eq!(status["result"]["isError"], false, "{status}");
        let pages = ask("resources/list", json!({})).await;
        let uri = pages["result"]["resources"][0]["uri"].clone();
        let page = ask("resources/read", json!({ "uri": uri })).await;
        assert!(page["result"]["contents"][0]["text"].as_str().unwrap().starts_with("# "), "{page}");
        let none = ask("resources/read", json!({ "uri": "claw://errors/NOTHING" })).await;
        assert_eq!(none["error"]["code"], if revision == MODERN { -32_602 } else { -32_002 }, "{none}");
        let prompts = ask("prompts/list", json!({})).await;
        assert_eq!(prompts["error"]["code"], -32_601, "what is not declared is not served: {prompts}");
    }
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_says_that_it_is_one() {
    let desk = desk().await;
    let run = json!({ "spec": { "command": ["true"] }, "request_id": "r" });
    let first = desk.tool(&desk.admin, "/mcp", "workload_run", run.clone()).await;
    let inner = json!({ "name": "workload_run", "args": run });
    let again = desk.tool(&desk.admin, "/mcp", "tool_call", inner).await;
    assert_eq!(first["structuredContent"], again["structuredContent"]);
    assert_eq!((&first["_meta"], &again["_meta"]), (&Value::Null, &json!({ "claw/replayed": true })));
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_only_endpoint_changes_nothing_by_any_way() {
    let desk = desk().await;
    let seq = |desk: &Desk| desk.ops.control.snapshot().seq;
    let before = seq(&desk);
    for op in claw_tools::registry::OPERATIONS.iter().filter(|op| !op.read_only) {
        let calls = [
            (op.name, json!({})),
            ("tool_call", json!({ "name": op.name, "args": {} })),
            ("tool_describe", json!({ "name": op.name })),
        ];
        for (tool, args) in calls {
            let result = desk.tool(&desk.admin, "/mcp/readonly", tool, args).await;
            assert_eq!(result["structuredContent"]["code"], "FORBIDDEN", "{} by {tool}", op.name);
        }
    }
    let found = desk.tool(&desk.admin, "/mcp/readonly", "tool_search", json!({ "query": "drain a node" })).await;
    assert!(!found.to_string().contains("node_drain"), "{found}");
    let status = desk.tool(&desk.admin, "/mcp/readonly", "tool_call", json!({ "name": "cluster_status" })).await;
    assert_eq!(status["isError"], false);
    assert_eq!(seq(&desk), before);
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inner_operation_needs_its_own_permission() {
    let desk = desk().await;
    let viewer = desk.key("looker", Role::Viewer).await;
    for path in Scope::all().into_iter().map(Scope::path) {
        for op in claw_tools::registry::OPERATIONS.iter().filter(|op| !Role::Viewer.allows(op.permission)) {
            let result = desk.tool(&viewer, &path, "tool_call", json!({ "name": op.name, "args": {} })).await;
            assert_eq!(result["structuredContent"]["code"], "FORBIDDEN", "{} at {path}", op.name);
        }
    }
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_answered_with_the_way_out() {
    let desk = desk().await;
    desk.join("gpu-07").await;
    let trainer = desk.ok("workload_run", &json!({ "spec": { "name": "trainer", "command": ["true"] } })).await;
    let mut said = String::new();
    for (tool, args) in [
        ("node_lst", json!({})),
        ("tool_serch", json!({ "query": "drain" })),
        ("tool_search", json!({ "query": "drain", "limit": 0 })),
        ("tool_call", json!({ "nam": "node_list" })),
        ("tool_call", json!({ "name": "node_drian", "args": {} })),
        ("node_drain", json!({ "node": "gpu-7" })),
        ("workload_logs", json!({ "workload": "trianer" })),
        ("workload_run", json!({})),
        ("workload_run", json!({ "request": "run true", "spec": { "command": ["true"] } })),
        ("workload_run", json!({ "spec": { "name": "trainer", "command": ["true"] } })),
        ("workload_run", json!({ "spec": { "command": ["true"], "replicas": 3 } })),
        ("workload_run", json!({ "request": "drain gpu-07" })),
        ("events_list", json!({ "kinds": ["WorkloadPlacd"] })),
        ("api_key_create", json!({ "principal": "bot", "role": "viewer" })),
        ("plan_apply", json!({ "plan_id": "plan_00000000000000000000000001" })),
    ] {
        let result = desk.tool(&desk.admin, "/mcp", tool, args.clone()).await;
        let refusal = &result["structuredContent"];
        assert_eq!(result["isError"], true, "{tool}: {result}");
        writeln!(said, "{tool} {args}\n  {}: {}", refusal["code"].as_str().unwrap(), refusal["message"]).unwrap();
        for field in ["field", "got", "did_you_mean"] {
            if let Some(text) = refusal[field].as_str() {
                writeln!(said, "  {field}: {text}").unwrap();
            }
        }
        for call in refusal["next"].as_array().into_iter().flatten() {
            writeln!(said, "  next: {} {}", call["tool"].as_str().unwrap(), call["args"]).unwrap();
        }
    }
    let said = said.replace(trainer["workload_id"].as_str().unwrap(), "wl_(its id)");
    expect_file!["../../../golden/refusals.txt"].assert_eq(&said);
    // What is suggested about the three themselves can be called, too.
    let about = desk.tool(&desk.admin, "/mcp", "tool_describe", json!({ "name": "tool_search" })).await;
    assert_eq!(about["structuredContent"]["input_schema"]["required"], json!(["query"]), "{about}");
    desk.task.stop().await;
}

#[test]
fn the_lists_of_all_endpoints_are_these() {
    let mut lists = String::new();
    for scope in Scope::all() {
        writeln!(lists, "{}", scope.path()).unwrap();
        for tool in scope.tools() {
            let hints = tool.annotations.unwrap();
            let mark = |is: Option<bool>, word: &'static str| if is == Some(true) { word } else { "" };
            let marks = [
                mark(hints.read_only_hint, " reads"),
                mark(hints.destructive_hint, " destructive"),
                mark(hints.idempotent_hint, " idempotent"),
            ];
            writeln!(lists, "  {}{}", tool.name, marks.concat()).unwrap();
        }
    }
    expect_file!["../../../golden/tools.txt"].assert_eq(&lists);
}

#[test]
fn the_core_list_fits_its_token_budget() {
    let bpe = tiktoken_rs::o200k_base().expect("the vocabulary is part of the crate");
    let cost = |tool: &rmcp::model::Tool| {
        let schema = Value::Object((*tool.input_schema).clone());
        let text = format!("{}\n{}\n{schema}", tool.name, tool.description.as_deref().unwrap_or_default());
        bpe.encode_ordinary(&text).len()
    };
    let total: usize = Scope::Core.tools().iter().map(cost).sum();
    assert!(total <= CORE_TOKENS_MAX, "{total} tokens, at most {CORE_TOKENS_MAX}");
}
