//! The faces over a real control plane: REST here, the others below.

mod desk;
mod diagnosis;
mod direct;
mod mcp;
mod outputs;
mod past;
mod placed;
mod streams;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use claw_tools::access::Role;
use claw_tools::registry::OPERATIONS;
use serde_json::json;

use self::desk::{desk, desk_with};

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_refused_to_whom_it_is_not_for() {
    let desk = desk().await;
    let keys = [
        (Role::Viewer, desk.key("v", Role::Viewer).await),
        (Role::Operator, desk.key("o", Role::Operator).await),
        (Role::Admin, desk.admin.clone()),
    ];
    let wrong = format!("{}x", &desk.admin[..desk.admin.len() - 1]);
    for op in OPERATIONS {
        for key in [None, Some("nonsense"), Some(wrong.as_str())] {
            let (status, body) = desk.op(key, op.name, &json!({})).await;
            assert_eq!(
                (status, body["code"].as_str()),
                (StatusCode::UNAUTHORIZED, Some("UNAUTHENTICATED")),
                "{} {key:?}",
                op.name
            );
        }
        for (role, key) in &keys {
            // Arguments that no operation takes: nothing happens, and permission comes first.
            let (_, body) = desk.op(Some(key), op.name, &json!({ "no_such_field": 1 })).await;
            let expected = if role.allows(op.permission) { "INVALID_ARGUMENT" } else { "FORBIDDEN" };
            assert_eq!(body["code"], expected, "{} as {role}", op.name);
        }
    }
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_hosts_and_origins_are_refused_before_anything() {
    let desk = desk().await;
    let request = |host: &str, origin: Option<&str>| {
        let mut request = Request::get("/healthz").header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(desk.send(request("127.0.0.1:7700", None)).await.0, StatusCode::OK);
    assert_eq!(desk.send(request("evil.example", None)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(desk.send(request("127.0.0.1", Some("https://evil.example"))).await.0, StatusCode::FORBIDDEN);
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_too_often_or_says_too_much_is_told_so() {
    let desk = desk_with(|config| {
        (config.requests_per_s, config.requests_burst, config.body_bytes_max) = (1, 3, 1_000);
    })
    .await;
    let long = json!({ "filter": "x".repeat(2_000) });
    let (status, body) = desk.op(Some(&desk.admin), "workload_list", &long).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("TOO_LARGE")));
    let mut codes = Vec::new();
    for _ in 0..5 {
        let (status, body) = desk.op(Some(&desk.admin), "cluster_status", &json!({})).await;
        codes.push((status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned(), body["retryable"] == true));
    }
    assert_eq!(codes[0].0, 200);
    assert!(codes.contains(&(429, "RATE_LIMITED".to_owned(), true)), "{codes:?}");
    // Without a key nothing is said about rates.
    assert_eq!(desk.op(None, "cluster_status", &json!({})).await.0, StatusCode::UNAUTHORIZED);
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_read_what_operations_say() {
    let desk = desk().await;
    desk.join("gpu-01").await;
    let same = [
        ("/api/status", "cluster_status", json!({})),
        ("/api/nodes?limit=1&fields=name,link", "node_list", json!({ "limit": 1, "fields": ["name", "link"] })),
        ("/api/nodes?labels=zone=a", "node_list", json!({ "labels": { "zone": "a" } })),
        ("/api/nodes/gpu-01", "node_get", json!({ "node": "gpu-01" })),
        ("/api/workloads?states=running,failed", "workload_list", json!({ "states": ["running", "failed"] })),
        ("/api/nodes?limit=many", "node_list", json!({ "limit": "many" })),
        ("/api/nodes?color=red", "node_list", json!({ "color": "red" })),
        ("/api/workloads/none", "workload_get", json!({ "workload": "none" })),
    ];
    for (path, tool, args) in same {
        let (status, mut body) = desk.get(path).await;
        let (wanted_status, mut wanted) = desk.op(Some(&desk.admin), tool, &args).await;
        for body in [&mut body, &mut wanted] {
            if let Some(map) = body.as_object_mut() {
                map.remove("at");
            }
        }
        assert_eq!((status, body), (wanted_status, wanted), "{path}");
    }
    assert_eq!(desk.get("/api/nodes/gpu-01/metrics").await.0, StatusCode::NOT_FOUND, "it sent none");
    assert_eq!(desk.get("/no/such/path").await.1["code"], "NOT_FOUND");
    let text = desk.text("/metrics").await;
    for line in ["claw_nodes{link=\"online\"} 1", "claw_gpus{use=\"free\"} 8", "claw_journal_writable 1"] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    assert!(text.contains("claw_calls_total{tool=\"node_get\",ending=\"ok\"} 3"), "{text}");
    let (_, document) = desk.get("/openapi.json").await;
    for op in OPERATIONS {
        let path = format!("/api/ops/{}", op.name);
        assert_eq!(document["paths"][&path]["post"]["operationId"], op.name);
    }
    desk.task.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_means_that_changes_are_taken() {
    let desk = desk().await;
    assert_eq!(desk.get("/readyz").await.0, StatusCode::OK);
    desk.ops.control.stopping().cancel();
    assert_eq!(desk.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(desk.get("/healthz").await.0, StatusCode::OK);
    desk.task.stop().await;
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_auditor_refused_a_decision_is_not_ready() {
    let desk = desk().await;
    desk.join("gpu-01").await;
    desk.ops.control.doubt().await;
    let spec = json!({ "spec": { "name": "w", "runtime": "sim", "command": ["train"], "gpu": { "count": 1 } } });
    let (_, refused) = desk.op(Some(&desk.admin), "workload_run", &spec).await;
    assert_eq!(refused["code"], "JOURNAL_UNAVAILABLE", "{refused}");
    // Seconds go by in which the journal is tried: it can be written, and still nothing is decided.
    for _ in 0..8 {
        let control = &desk.ops.control;
        drop(control.submit(claw_gateway::Command::Tick, claw_gateway::Caller::system(control.now())).await);
        let (status, body) = desk.get("/readyz").await;
        assert_eq!((status, &body["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
    }
    assert_eq!(desk.get("/healthz").await.0, StatusCode::OK);
    desk.task.stop().await;
}
