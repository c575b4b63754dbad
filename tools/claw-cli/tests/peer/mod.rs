//! A scripted MCP peer: it answers known calls with given answers, over real HTTP and with the
//! real protocol, and keeps a record of what it was asked.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler};
use serde_json::{Value, json};

/// The key that it takes.
pub(crate) const KEY: &str = "claw_test_key";

/// How it answers: the name and arguments of an operation in, its answer out.
pub(crate) type Script = fn(&str, &Value) -> Result<Value, Value>;

/// A running peer; it ends with the runtime.
pub(crate) struct Peer {
    pub(crate) url: String,
    calls: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Handler {
    script: Script,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    pub(crate) fn start(script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let calls = Arc::default();
        let handler = Handler { script, calls: Arc::clone(&calls) };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let url = format!("http://{}/mcp", listener.local_addr().expect("its address"));
        let mut config = StreamableHttpServerConfig::default();
        config.legacy_session_mode = false;
        config.json_response = true;
        let make = move || Ok(handler.clone());
        let service = StreamableHttpService::new(make, Arc::new(LocalSessionManager::default()), config);
        let app = axum::Router::new().nest_service("/mcp", service).layer(from_fn(with_key));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            axum::serve(listener, app).await.expect("it serves");
        });
        Self { url, calls, _runtime: runtime }
    }

    /// What it was asked so far, and forgets it.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().expect("no panic"))
    }

    pub(crate) fn n_calls(&self) -> usize {
        self.calls.lock().expect("no panic").len()
    }
}

async fn with_key(request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given == Some(&format!("Bearer {KEY}")) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response()
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_instructions("Call cluster_status first.")
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({ "type": "object" }).as_object().cloned().unwrap_or_default();
        Ok(ListToolsResult::with_all_items(vec![Tool::new("cluster_status", "Start here.", Arc::new(schema))]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let outer = Value::Object(request.arguments.unwrap_or_default());
        let (name, args) = match (request.name.as_ref(), outer["name"].as_str()) {
            ("tool_call", Some(inner)) => (inner.to_owned(), outer["args"].clone()),
            (name, _) => (name.to_owned(), outer),
        };
        self.calls.lock().expect("no panic").push(format!("{name} {args}"));
        Ok(match (self.script)(&name, &args) {
            Ok(content) => CallToolResult::structured(content),
            Err(content) => CallToolResult::structured_error(content),
        }
        .into())
    }
}
