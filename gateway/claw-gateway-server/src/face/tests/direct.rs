//! Plain calls of tools: answered without rmcp, as rmcp answers them.

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use claw_tools::access::Role;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::desk::{Desk, desk, desk_with};
use super::mcp::{LEGACY, MODERN};
use crate::face::Answered;

/// A request before it is one.
#[derive(Debug, Clone)]
struct Shape {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    message: Value,
    /// Follows the message.
    tail: &'static str,
}

impl Shape {
    /// A plain call.
    fn plain(key: &str, revision: &str, name: &str, args: &Value) -> Self {
        let mut headers = vec![
            ("host", "127.0.0.1:7700".to_owned()),
            ("authorization", format!("Bearer {key}")),
            ("accept", "application/json, text/event-stream".to_owned()),
            ("content-type", "application/json".to_owned()),
            ("mcp-protocol-version", revision.to_owned()),
        ];
        let mut params = json!({ "name": name, "arguments": args });
        if revision == MODERN {
            headers.extend([("mcp-method", "tools/call".to_owned()), ("mcp-name", name.to_owned())]);
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": revision,
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        Self { method: "POST", path: "/mcp".into(), headers, message, tail: "" }
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
    }

    fn request(&self) -> Request<Body> {
        let body = format!("{}{}", self.message, self.tail);
        let mut request = Request::builder().method(self.method).uri(&self.path);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if !self.headers.iter().any(|(name, _)| *name == "content-length" || *name == "transfer-encoding") {
            request = request.header(header::CONTENT_LENGTH, body.len());
        }
        request.body(Body::from(body)).unwrap()
    }
}

/// Status, type, body as JSON if it is JSON.
type Reply = (StatusCode, Option<HeaderValue>, Value);

async fn read(response: Response) -> Reply {
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 22).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    (head.status, head.headers.get(header::CONTENT_TYPE).cloned(), serde_json::from_str(&text).unwrap_or(text.into()))
}

impl Desk {
    /// The short way's answer, and that of the router, which is rmcp's.
    async fn both(&self, shape: &Shape) -> (Option<Reply>, Reply) {
        let short = match self.direct.answer(shape.request()).await {
            Answered::Here(response) => Some(read(response).await),
            Answered::Elsewhere(given_back) => {
                let body = axum::body::to_bytes(given_back.into_body(), 1 << 22).await.unwrap();
                assert_eq!(body, format!("{}{}", shape.message, shape.tail), "what is given back is whole");
                None
            }
        };
        (short, read(self.router.clone().oneshot(shape.request()).await.unwrap()).await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_call_is_answered_as_rmcp_answers_it() {
    let desk = desk().await;
    desk.join("gpu-01").await;
    let viewer = desk.key("v", Role::Viewer).await;
    let run = json!({ "spec": { "command": ["train"], "runtime": "sim" }, "request_id": "once" });
    let calls = [
        ("/mcp", "node_list", json!({})),
        ("/mcp", "workload_get", json!({ "workload": "nonexistent \"é\"\n" })),
        ("/mcp", "node_list", json!({ "limit": "many", "colour": 1 })),
        ("/mcp", "nodelist", json!({})),
        ("/mcp", "tool_search", json!({ "query": "gpu" })),
        ("/mcp", "tool_call", json!({ "name": "gpu_list", "args": {} })),
        ("/mcp/readonly", "workload_run", run.clone()),
        ("/mcp/x/fleet", "gpu_list", json!({ "limit": 3 })),
        // Its second answer, and every further one, is the kept one.
        ("/mcp", "workload_run", run.clone()),
        ("/mcp", "workload_run", json!({ "spec": { "command": ["other"] }, "request_id": "once" })),
    ];
    let kept = desk.ok("workload_run", &run).await;
    for revision in [LEGACY, MODERN] {
        for key in [&desk.admin, &viewer] {
            for (path, tool, args) in &calls {
                let mut shape = Shape::plain(key, revision, tool, args);
                (*path).clone_into(&mut shape.path);
                let (short, long) = desk.both(&shape).await;
                assert_eq!(short.as_ref(), Some(&long), "{revision} {path} {tool}");
                if *path == "/mcp" && *args == run && *key == desk.admin {
                    let result = &long.2["result"];
                    assert_eq!(
                        (&result["structuredContent"], &result["_meta"]["claw/replayed"]),
                        (&kept, &json!(true))
                    );
                }
            }
        }
    }
    let workloads = desk.ok("workload_list", &json!({})).await;
    assert_eq!(workloads["workloads"].as_array().map(Vec::len), Some(1), "{workloads}");
    desk.task.stop().await;
}

/// One thing about a call that is not plain, or that is another plain way to say it.
type Change = (&'static str, fn(&mut Shape));

const CHANGES: [Change; 45] = [
    ("get", |s| s.method = "GET"),
    ("path", |s| s.path = "/mcp/nowhere".into()),
    ("query", |s| s.path.push_str("?a=1")),
    ("foreign host", |s| s.set("host", "evil.example")),
    ("odd port", |s| s.set("host", "127.0.0.1:port")),
    ("two hosts", |s| s.headers.push(("host", "evil.example".into()))),
    ("ipv6 host", |s| s.set("host", "[::1]:7700")),
    ("origin", |s| s.set("origin", "https://evil.example")),
    ("no key", |s| s.headers.retain(|(name, _)| *name != "authorization")),
    ("wrong key", |s| s.set("authorization", "Bearer clawkey_x")),
    ("no length", |s| s.set("transfer-encoding", "chunked")),
    ("type", |s| s.set("content-type", "text/plain")),
    ("type with charset", |s| s.set("content-type", "application/json; charset=utf-8")),
    ("accepts json", |s| s.set("accept", "application/json")),
    ("accepts with weights", |s| s.set("accept", "application/json;q=0, text/event-stream")),
    ("accepts in quotes", |s| s.set("accept", "a/b;c=\", application/json\", text/event-stream")),
    ("accepts in turn", |s| s.set("accept", "text/event-stream,application/json")),
    ("two accepts", |s| s.headers.push(("accept", "text/html".into()))),
    ("compressed", |s| s.set("content-encoding", "gzip")),
    ("no revision", |s| s.headers.retain(|(name, _)| *name != "mcp-protocol-version")),
    ("old revision", |s| s.set("mcp-protocol-version", "2024-11-05")),
    ("unknown revision", |s| s.set("mcp-protocol-version", "2031-01-01")),
    ("new revision in the head", |s| s.set("mcp-protocol-version", MODERN)),
    ("two revisions", |s| s.headers.push(("mcp-protocol-version", "2031-01-01".into()))),
    ("other method in the head", |s| s.set("mcp-method", "tools/list")),
    ("other name in the head", |s| s.set("mcp-name", "gpu_list")),
    ("session", |s| s.set("mcp-session-id", "1")),
    ("text id", |s| s.message["id"] = "a\"é".into()),
    ("null id", |s| s.message["id"] = Value::Null),
    ("float id", |s| s.message["id"] = 1.5.into()),
    ("no id", |s| drop(s.message.as_object_mut().unwrap().remove("id"))),
    ("json-rpc 1", |s| s.message["jsonrpc"] = "1.0".into()),
    ("list", |s| s.message["method"] = "tools/list".into()),
    ("unknown field", |s| s.message["extra"] = 1.into()),
    ("unknown parameter", |s| s.message["params"]["task"] = json!({ "ttl": 1 })),
    ("name in base64", |s| {
        s.message["params"]["name"] = "=?base64?Zm9v?=".into();
        s.set("mcp-name", "=?base64?Zm9v?=");
    }),
    ("hidden text", |s| s.message["params"]["arguments"]["a"] = json!({ "$serde_json::private::RawValue": "[1]" })),
    ("no arguments", |s| drop(s.message["params"].as_object_mut().unwrap().remove("arguments"))),
    ("null arguments", |s| s.message["params"]["arguments"] = Value::Null),
    ("arguments in a list", |s| s.message["params"]["arguments"] = json!([])),
    ("other metadata", |s| s.message["params"]["_meta"] = json!({ "progressToken": 3, "x": [1] })),
    ("half the metadata", |s| {
        s.message["params"]["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": MODERN });
    }),
    ("parameters in a list", |s| s.message["params"] = json!([null, "node_list", {}])),
    ("message in a list", |s| {
        let Value::Object(message) = s.message.take() else { return };
        s.message = message.into_iter().rev().map(|(_, value)| value).collect();
    }),
    ("no json", |s| s.tail = "}"),
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_short_way_answers_rmcp_answers_the_same() {
    let desk = desk().await;
    let mut plain = std::collections::BTreeSet::new();
    for revision in [LEGACY, MODERN] {
        let base = Shape::plain(&desk.admin, revision, "node_list", &json!({}));
        assert!(desk.both(&base).await.0.is_some());
        for (index, (name, change)) in CHANGES.iter().enumerate() {
            for (other, and) in &CHANGES[index..] {
                let mut shape = base.clone();
                change(&mut shape);
                and(&mut shape);
                let (short, long) = desk.both(&shape).await;
                if name == other && short.is_some() {
                    plain.insert((revision, *name));
                }
                if let Some(short) = short {
                    assert_eq!(short, long, "{revision}: {name}, {other}");
                }
            }
        }
    }
    // What has another way to be plain, and nothing else.
    let both = ["ipv6 host", "odd port", "accepts in turn", "session", "text id", "no arguments", "null arguments"];
    let legacy =
        ["no revision", "old revision", "other method in the head", "other name in the head", "other metadata"];
    let expected =
        both.iter().flat_map(|name| [(LEGACY, *name), (MODERN, *name)]).chain(legacy.map(|name| (LEGACY, name)));
    let expected = expected.chain([(MODERN, "new revision in the head")]);
    assert_eq!(plain, expected.collect());
    desk.task.stop().await;
}

/// JSON within a text within JSON, and so on, each in `lists` lists: serde_json reads all of it at once.
fn texts_in_texts(depth: usize, lists: usize) -> String {
    let quote = |level: usize| match level {
        0 => "\"".to_owned(),
        _ => format!("\\{}u0022", "u005c".repeat(level - 1)),
    };
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    for level in 0..depth {
        let quote = quote(level);
        head.push(format!("{}{{{quote}$serde_json::private::RawValue{quote}:{quote}", "[".repeat(lists)));
        tail.push(format!("{quote}}}{}", "]".repeat(lists)));
    }
    tail.reverse();
    format!("{}1{}", head.concat(), tail.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_hidden_in_texts_are_refused_before_they_are_read() {
    let desk = desk().await;
    // That this reads as lists in lists, without the limit of a depth, is serde_json's way.
    assert_eq!(serde_json::from_str::<Value>(&texts_in_texts(3, 1)).unwrap(), json!([[[1]]]));
    let deep = texts_in_texts(250, 120);
    for (path, body) in [
        ("/api/ops/cluster_status", deep.clone()),
        (
            "/mcp",
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments":{{"a":{deep}}}}}}}"#
            ),
        ),
        ("/mcp", format!(r#"{{"jsonrpc":"2.0","id":{deep},"method":"ping"}}"#)),
    ] {
        let plain = Shape::plain(&desk.admin, LEGACY, "x", &json!({}));
        let mut request = Request::post(path);
        for (name, value) in &plain.headers {
            request = request.header(*name, value);
        }
        let request = request.header(header::CONTENT_LENGTH, body.len()).body(Body::from(body)).unwrap();
        let (status, answer) = desk.send(request).await;
        assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_ARGUMENT")), "{path}");
    }
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_judged_as_the_others_judge_it() {
    let known = ["fleet", "other:7700", "fd00::1", "[fd00::2]"];
    let desk = desk_with(|config| config.allowed_hosts = known.map(str::to_owned).to_vec()).await;
    let mut here = Vec::new();
    for host in [
        "fleet",
        "fleet:80",
        "FLEET",
        "fleet:port",
        "fleet:99999",
        "user@fleet",
        "other",
        "other:7700",
        "other:7700:80",
        "other:80",
        "fd00::1",
        "[fd00::1]:1",
        "[fd00::2]",
        "[fd00::2]:80",
        "fd00::2",
        "127.0.0.1",
        "[::1]:7",
        "[::1",
        "",
        "evil.example",
        "fleet.evil.example",
    ] {
        let mut shape = Shape::plain(&desk.admin, LEGACY, "node_list", &json!({}));
        shape.set("host", host);
        let (short, long) = desk.both(&shape).await;
        if let Some(short) = short {
            assert_eq!(short, long, "{host}");
            here.push(host);
        }
    }
    for plain in ["fleet", "fleet:80", "other:7700", "127.0.0.1", "[::1]:7"] {
        assert!(here.contains(&plain), "{plain} is not in {here:?}");
    }
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_short_way_has_the_limits_of_the_others() {
    let desk = desk_with(|config| {
        (config.requests_per_s, config.requests_burst, config.body_bytes_max) = (1, 8, 1_000);
    })
    .await;
    let large = Shape::plain(&desk.admin, LEGACY, "tool_search", &json!({ "query": "x".repeat(2_000) }));
    assert!(matches!(desk.direct.answer(large.request()).await, Answered::Elsewhere(_)));
    let plain = Shape::plain(&desk.admin, LEGACY, "node_list", &json!({}));
    let mut given_back = plain.clone();
    given_back.message["method"] = "tools/list".into();
    let mut statuses = Vec::new();
    for turn in 0..24 {
        let shape = if turn % 2 == 0 { &plain } else { &given_back };
        let is_here = matches!(desk.direct.answer(shape.request()).await, Answered::Here(_));
        assert!(is_here || turn % 2 == 1, "it is plain");
        statuses.push(desk.send(shape.request()).await.0);
    }
    // Each turn is two calls: four turns are the eight that may come at once, if each counts once,
    // whoever answers it.
    assert_eq!(statuses[..4], [StatusCode::OK; 4]);
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
    // Those of the other faces count with them.
    let mut codes = Vec::new();
    for _ in 0..20 {
        codes.push(desk.op(Some(&desk.admin), "node_list", &json!({})).await.1["code"].clone());
    }
    assert!(codes.contains(&json!("RATE_LIMITED")), "{codes:?}");
    desk.task.stop().await;
}
