//! The faces over a real control plane, without a socket.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use claw_gateway::policy::Policy;
use claw_gateway::{Caller, Command};
use claw_proto::ids::KeyId;
use claw_security::Fingerprint;
use claw_security::auth::ApiKey;
use claw_storage::LogLimits;
use claw_tools::access::Role;
use claw_tools::registry::OPERATIONS;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{FaceConfig, router};
use crate::control::{ControlOptions, ControlTask, CrashPlan, SystemClock, start};
use crate::ops::OpsContext;

struct Desk {
    router: Router,
    admin: String,
    task: ControlTask,
    _dir: tempfile::TempDir,
}

async fn desk() -> Desk {
    let dir = tempfile::tempdir().unwrap();
    let options = ControlOptions {
        data_dir: dir.path().to_path_buf(),
        policy: Policy::default(),
        clock: Arc::new(SystemClock::default()),
        log_limits: LogLimits::default(),
        reserve_bytes: 0,
        snapshot_every: 1_000,
        keep_events: 1_000,
        epoch_above: 0,
        crash: Arc::new(CrashPlan::none()),
    };
    let (control, mut effects, task) = start(options).await.unwrap();
    tokio::spawn(async move { while effects.recv().await.is_some() {} });
    let key_id = KeyId::from_bits(7);
    let key = ApiKey::generate(&key_id.to_string()).unwrap();
    let command = Command::Bootstrap { key_id, secret_hash: key.hash().to_string(), principal: "root".into() };
    control.submit(command, Caller::system(control.now())).await.unwrap();
    let config = FaceConfig {
        allowed_hosts: Vec::new(),
        allowed_origins: Vec::new(),
        requests_per_s: 10_000,
        requests_burst: 10_000,
        body_bytes_max: 1 << 20,
    };
    let ops = OpsContext::new(control, Fingerprint::of(b"a certificate"));
    Desk { router: router(ops, &config), admin: key.to_text().to_string(), task, _dir: dir }
}

impl Desk {
    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn op(&self, key: Option<&str>, tool: &str, args: &Value) -> (StatusCode, Value) {
        let mut request = Request::post(format!("/api/ops/{tool}")).header(header::HOST, "127.0.0.1");
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        self.send(request.body(Body::from(args.to_string())).unwrap()).await
    }

    async fn key(&self, principal: &str, role: Role) -> String {
        let args = json!({ "principal": principal, "role": role, "mode": "plan" });
        let (_, planned) = self.op(Some(&self.admin), "api_key_create", &args).await;
        let approval = json!({ "approval_id": planned["plan"]["approval_id"], "decision": "approve", "diff_hash": planned["plan"]["diff_hash"] });
        let (status, _) = self.op(Some(&self.admin), "approval_decide", &approval).await;
        assert_eq!(status, StatusCode::OK);
        let (status, applied) =
            self.op(Some(&self.admin), "plan_apply", &json!({ "plan_id": planned["plan"]["plan_id"] })).await;
        assert_eq!(status, StatusCode::OK, "{applied}");
        applied["credential"]["secret"].as_str().unwrap().to_owned()
    }
}

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
async fn outputs_are_what_their_schema_says() {
    let desk = desk().await;
    let run = json!({ "spec": { "name": "w", "command": ["true"], "env": { "TOKEN": "hunter2" } }, "request_id": "r" });
    let (status, first) = desk.op(Some(&desk.admin), "workload_run", &run).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    assert_eq!(first["effect"], "queued", "there are no nodes");
    let (_, again) = desk.op(Some(&desk.admin), "workload_run", &run).await;
    assert_eq!(first, again, "identical receipt");
    let (_, other) = desk
        .op(Some(&desk.admin), "workload_run", &json!({ "spec": { "command": ["false"] }, "request_id": "r" }))
        .await;
    assert_eq!(other["code"], "IDEMPOTENCY_CONFLICT");
    let operation = json!({ "operation_id": first["operation_id"] });
    let reads = [
        ("cluster_status", json!({})),
        ("node_list", json!({})),
        ("gpu_list", json!({})),
        ("workload_list", json!({})),
        ("workload_get", json!({ "workload": "w" })),
        ("workload_explain", json!({ "workload": "w" })),
        ("workload_logs", json!({ "workload": "w" })),
        ("workload_wait", json!({ "workload": "w", "wait_s": 0 })),
        ("events_list", json!({})),
        ("operation_get", operation.clone()),
        ("operation_wait", json!({ "operation_id": first["operation_id"], "wait_s": 0 })),
        ("operation_list", json!({})),
        ("approval_list", json!({ "state": "used" })),
        ("api_key_list", json!({})),
        ("workload_stop", json!({ "workload": "w", "mode": "plan" })),
        ("workload_stop", json!({ "workload": "w" })),
    ];
    for (tool, args) in reads {
        let (status, body) = desk.op(Some(&desk.admin), tool, &args).await;
        assert_eq!(status, StatusCode::OK, "{tool}: {body}");
        assert!(!body.to_string().contains("hunter2"), "{tool} shows an environment value");
        let op = claw_tools::registry::find(tool).unwrap();
        let checker = claw_tools::schema::Checker::new((op.output_schema)());
        assert_eq!(checker.check(tool, &body), Ok(()), "{tool}: {body}");
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

#[test]
fn every_endpoint_lists_the_same_tools_in_the_same_order() {
    let names = |scope: super::mcp::Scope| scope.tools().iter().map(|t| t.name.to_string()).collect::<Vec<_>>();
    for scope in super::mcp::Scope::all() {
        let listed = names(scope);
        assert_eq!(listed, names(scope), "{}", scope.path());
        assert_eq!(&listed[listed.len() - 3..], ["tool_search", "tool_describe", "tool_call"]);
    }
    let core = names(super::mcp::Scope::Core);
    assert!((22..=28).contains(&core.len()), "{core:?}");
    let readonly = names(super::mcp::Scope::ReadOnly);
    assert!(!readonly.iter().any(|n| n == "workload_run"));
}
