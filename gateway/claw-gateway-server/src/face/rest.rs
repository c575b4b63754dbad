//! REST: reads by path, every operation by `POST /api/ops/{tool}`, health.

use std::collections::BTreeMap;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use claw_gateway::Caller;
use claw_tools::def::OpDef;
use claw_tools::refusal::{ErrorCode, Fault, Refusal};
use claw_tools::registry::{self, OPERATIONS};
use claw_tools::schema::advertised;
use serde_json::{Map, Value, json};

use crate::ops::{OpError, OpsContext, dispatch};

pub(super) fn router() -> Router<OpsContext> {
    Router::new()
        .route("/api/status", get(status))
        .route("/api/nodes", get(nodes))
        .route("/api/nodes/{id}", get(node))
        .route("/api/nodes/{id}/metrics", get(node_metrics))
        .route("/api/workloads", get(workloads))
        .route("/api/workloads/{id}", get(workload))
        .route("/api/ops/{tool}", post(operation))
        .route("/openapi.json", get(openapi))
}

/// A refusal as a response.
pub(super) fn refusal_response(status: StatusCode, refusal: &Refusal) -> Response {
    (status, Json(refusal)).into_response()
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden | ErrorCode::ApprovalNotYours | ErrorCode::ApprovalDenied => StatusCode::FORBIDDEN,
        ErrorCode::NotFound | ErrorCode::UnknownTool => StatusCode::NOT_FOUND,
        ErrorCode::InvalidArgument
        | ErrorCode::SpecInvalid
        | ErrorCode::Ambiguous
        | ErrorCode::IntentQuestion
        | ErrorCode::IntentRefused => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::JournalUnavailable | ErrorCode::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::NotBuilt => StatusCode::NOT_IMPLEMENTED,
        ErrorCode::CursorExpired | ErrorCode::PlanExpired => StatusCode::GONE,
        ErrorCode::ApprovalRequired
        | ErrorCode::IdempotencyConflict
        | ErrorCode::InvalidState
        | ErrorCode::PlanApplied
        | ErrorCode::PlanRequired
        | ErrorCode::StalePlan
        | ErrorCode::TokenInvalid
        | ErrorCode::UndoConflict
        | ErrorCode::UndoImpossible => StatusCode::CONFLICT,
    }
}

pub(super) fn error_response(error: OpError) -> Response {
    match error {
        OpError::Refused(refusal) => refusal_response(status_of(refusal.code), &refusal),
        OpError::Fault(fault) => (StatusCode::INTERNAL_SERVER_ERROR, Json(fault)).into_response(),
    }
}

async fn call(ops: &OpsContext, caller: Caller, tool: &str, args: Value) -> Response {
    match dispatch(ops, caller, tool, args).await {
        Ok(reply) => {
            let mut response = Response::new(Body::from(reply.output.into_text()));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if reply.replayed {
                response.headers_mut().insert("claw-replayed", HeaderValue::from_static("true"));
            }
            response
        }
        Err(error) => error_response(error),
    }
}

async fn status(State(ops): State<OpsContext>, Extension(caller): Extension<Caller>) -> Response {
    call(&ops, caller, "cluster_status", json!({})).await
}

async fn nodes(
    State(ops): State<OpsContext>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    call(&ops, caller, "node_list", typed("node_list", query)).await
}

async fn workloads(
    State(ops): State<OpsContext>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    call(&ops, caller, "workload_list", typed("workload_list", query)).await
}

/// Query values are text; the operation's schema says what each is meant as. Lists come
/// with commas, maps as `key=value` with commas. What does not fit stays text, and the
/// schema's check says so.
fn typed(tool: &str, query: BTreeMap<String, String>) -> Value {
    let schema = registry::find(tool).map(|op| (op.params_schema)()).unwrap_or_default();
    let value = |key: &str, text: String| match schema["properties"][key]["type"].as_str() {
        Some("integer") => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
        Some("boolean") => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
        Some("array") => text.split(',').map(Value::from).collect(),
        Some("object") => text.split(',').filter_map(|pair| pair.split_once('=')).collect(),
        _ => Value::from(text),
    };
    Value::Object(query.into_iter().map(|(key, text)| (key.clone(), value(&key, text))).collect())
}

async fn node(State(ops): State<OpsContext>, Extension(caller): Extension<Caller>, Path(id): Path<String>) -> Response {
    call(&ops, caller, "node_get", json!({ "node": id })).await
}

async fn workload(
    State(ops): State<OpsContext>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Response {
    call(&ops, caller, "workload_get", json!({ "workload": id })).await
}

async fn node_metrics(
    State(ops): State<OpsContext>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Response {
    match dispatch(&ops, caller, "node_get", json!({ "node": id })).await {
        Ok(reply) => {
            let node = reply.output.value();
            if let Some(metrics) = node.get("metrics").filter(|m| !m.is_null()) {
                return Json(metrics).into_response();
            }
            let refusal = Refusal::new(ErrorCode::NotFound, "the node has sent no metrics since the gateway started");
            refusal_response(StatusCode::NOT_FOUND, &refusal.with_field("node", id).retryable())
        }
        Err(error) => error_response(error),
    }
}

async fn operation(
    State(ops): State<OpsContext>,
    Extension(caller): Extension<Caller>,
    Path(tool): Path<String>,
    // It is whole and within its limit (`face::body`).
    body: Bytes,
) -> Response {
    let args = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice::<Value>(&body) };
    match args {
        Ok(args) => call(&ops, caller, &tool, args).await,
        Err(error) => {
            let refusal = Refusal::new(ErrorCode::InvalidArgument, format!("the body is not JSON: {error}"))
                .with_field("body", "");
            refusal_response(StatusCode::BAD_REQUEST, &refusal)
        }
    }
}

pub(super) async fn healthz() -> Response {
    Json(json!({ "status": "alive" })).into_response()
}

/// Ready means that changes are taken.
pub(super) async fn readyz(State(ops): State<OpsContext>) -> Response {
    let journal_writable = ops.control.journal_writable();
    let ready = journal_writable && !ops.control.stopping().is_cancelled();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "journal_writable": journal_writable }))).into_response()
}

pub(super) async fn no_such_path(uri: axum::http::Uri) -> Response {
    let refusal =
        Refusal::new(ErrorCode::NotFound, "no such path; see /openapi.json and /mcp").with_field("path", uri.path());
    refusal_response(StatusCode::NOT_FOUND, &refusal)
}

/// Paths that read, and the operation whose output (or part of it) each answers.
const READS: [(&str, &str); 5] = [
    ("/api/status", "cluster_status"),
    ("/api/nodes", "node_list"),
    ("/api/nodes/{id}", "node_get"),
    ("/api/workloads", "workload_list"),
    ("/api/workloads/{id}", "workload_get"),
];

/// OpenAPI 3.1 of every operation, from the same definitions.
async fn openapi() -> Response {
    Json(openapi_document()).into_response()
}

pub(super) fn openapi_document() -> Value {
    let mut paths = Map::new();
    for (path, tool) in READS {
        let op = registry::find(tool).expect("a read is an operation of the registry");
        let id = json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } });
        let parameters = if path.contains("{id}") { vec![id] } else { query_parameters(op) };
        let get = json!({ "get": { "summary": op.title, "description": op.doc, "parameters": parameters, "responses": responses(op), "security": [{ "apiKey": [] }] } });
        paths.insert(path.to_owned(), get);
    }
    for op in OPERATIONS {
        let post = json!({ "post": {
            "operationId": op.name,
            "summary": op.title,
            "description": op.doc,
            "requestBody": { "content": { "application/json": { "schema": (op.params_schema)() } } },
            "responses": responses(op),
            "security": [{ "apiKey": [] }],
        } });
        paths.insert(format!("/api/ops/{}", op.name), post);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Clawbernetes", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": { "Refusal": advertised::<Refusal>(), "Fault": advertised::<Fault>() },
            "securitySchemes": { "apiKey": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn query_parameters(op: &OpDef) -> Vec<Value> {
    let schema = (op.params_schema)();
    let fields = schema["properties"].as_object().cloned().unwrap_or_default();
    fields.into_iter().map(|(name, schema)| json!({ "name": name, "in": "query", "schema": schema })).collect()
}

fn responses(op: &OpDef) -> Value {
    let either =
        json!({ "oneOf": [{ "$ref": "#/components/schemas/Refusal" }, { "$ref": "#/components/schemas/Fault" }] });
    json!({
        "200": { "description": "The output.", "content": { "application/json": { "schema": (op.output_schema)() } } },
        "default": { "description": "A refusal or a fault.", "content": { "application/json": { "schema": either } } },
    })
}
