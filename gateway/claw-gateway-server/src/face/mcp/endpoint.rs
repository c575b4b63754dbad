//! One MCP endpoint: lists its tools and hands calls to the dispatcher.

use claw_gateway::Caller;
use claw_proto::limits::ARGUMENT_BYTES_MAX;
use claw_tools::refusal::{ErrorCode, Refusal};
use claw_tools::registry;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, Implementation, JsonObject, ListToolsResult,
    MetaObject, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::{ErrorData, ServerHandler};
use serde_json::{Value, json};

use super::instructions;
use super::tools::{self, Scope};
use crate::ops::{OpError, OpReply, OpsContext, dispatch};

/// How long a client may keep the tool list, milliseconds: it changes with the build only.
const TOOLS_TTL_MS: u64 = 3_600_000;
/// Operations that a search shows unless told otherwise.
const SEARCH_LIMIT: usize = 8;

/// An endpoint.
#[derive(Debug)]
pub struct Endpoint {
    ops: OpsContext,
    scope: Scope,
    tools: Vec<Tool>,
}

impl Endpoint {
    /// An endpoint of this scope.
    pub fn new(ops: OpsContext, scope: Scope) -> Self {
        Self { ops, scope, tools: scope.tools() }
    }

    async fn answer(&self, caller: Caller, name: &str, args: JsonObject) -> Result<OpReply, OpError> {
        match name {
            "tool_search" => {
                let query = text_arg(&args, "query")?;
                let limit = args
                    .get("limit")
                    .and_then(Value::as_u64)
                    .and_then(|l| usize::try_from(l).ok())
                    .unwrap_or(SEARCH_LIMIT);
                Ok(plain(tools::search(self.scope, &query, limit)))
            }
            "tool_describe" => Ok(plain(tools::describe(&text_arg(&args, "name")?)?)),
            "tool_call" => {
                let inner = text_arg(&args, "name")?;
                let inner_args = args.get("args").cloned().unwrap_or_else(|| json!({}));
                self.operation(caller, &inner, inner_args).await
            }
            _ => self.operation(caller, name, Value::Object(args)).await,
        }
    }

    async fn operation(&self, caller: Caller, name: &str, args: Value) -> Result<OpReply, OpError> {
        let op = registry::find(name).ok_or_else(|| registry::unknown_tool(name))?;
        self.scope.permits(op)?;
        dispatch(&self.ops, caller, name, args).await
    }
}

const fn plain(output: Value) -> OpReply {
    OpReply { output, replayed: false }
}

fn text_arg(args: &JsonObject, field: &str) -> Result<String, Refusal> {
    match args.get(field) {
        Some(Value::String(text)) if text.len() <= ARGUMENT_BYTES_MAX => Ok(text.clone()),
        other => Err(Refusal::new(ErrorCode::InvalidArgument, format!("{field} has to be a text"))
            .with_field(field, other.map_or_else(|| "nothing".to_owned(), ToString::to_string))),
    }
}

/// What the middleware found out about the HTTP request that carries this call.
fn caller(context: &RequestContext<RoleServer>) -> Result<Caller, ErrorData> {
    context
        .extensions
        .get::<axum::http::request::Parts>()
        .and_then(|parts| parts.extensions.get::<Caller>())
        .cloned()
        .ok_or_else(|| ErrorData::internal_error("the request carries no caller", None))
}

fn result(answer: Result<OpReply, OpError>) -> CallToolResult {
    match answer {
        Ok(reply) => {
            let meta = reply.replayed.then(|| {
                let mut meta = MetaObject::new();
                meta.0.insert("claw/replayed".into(), true.into());
                meta
            });
            CallToolResult::structured(reply.output).with_meta(meta)
        }
        Err(OpError::Refused(refusal)) => {
            CallToolResult::structured_error(serde_json::to_value(&*refusal).unwrap_or_default())
        }
        Err(OpError::Fault(fault)) => {
            CallToolResult::structured_error(serde_json::to_value(&fault).unwrap_or_default())
        }
    }
}

impl ServerHandler for Endpoint {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("clawbernetes", env!("CARGO_PKG_VERSION")))
            .with_instructions(instructions::TEXT)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.clone())
            .with_ttl_ms(TOOLS_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let caller = caller(&context)?;
        let answer = self.answer(caller, &request.name, request.arguments.unwrap_or_default()).await;
        Ok(result(answer).into())
    }
}
