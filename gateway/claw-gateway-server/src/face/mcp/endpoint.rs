//! One MCP endpoint: lists its tools and hands calls to the dispatcher.

use claw_gateway::Caller;
use claw_tools::refusal::Refusal;
use claw_tools::{registry, schema};
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestMethod, CompleteRequestParams, CompleteResult,
    Implementation, JsonObject, ListPromptsRequestMethod, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
    ReadResourceResult, ResourceContents, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::{ErrorData, ServerHandler};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::result::result;
use super::tools::{self, Describe, Inner, Scope, Search};
use super::{instructions, pages};
use crate::ops::{OpError, OpReply, OpsContext, Output, dispatch};

/// How long a client may keep a list or a page, milliseconds: they change with the build only.
const LISTS_TTL_MS: u64 = 3_600_000;
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

    /// Performs one call of a tool.
    pub(super) async fn answer(&self, caller: Caller, name: &str, args: JsonObject) -> Result<OpReply, OpError> {
        match name {
            tools::SEARCH => {
                let Search { query, limit } = args_of(name, args)?;
                let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(SEARCH_LIMIT);
                Ok(plain(&tools::search(self.scope, &query, limit)))
            }
            tools::DESCRIBE => {
                let Describe { name } = args_of(name, args)?;
                Ok(plain(&tools::describe(self.scope, &name)?))
            }
            tools::CALL => {
                let Inner { name, args } = args_of(name, args)?;
                self.operation(caller, &name, args).await
            }
            _ => self.operation(caller, name, args).await,
        }
    }

    async fn operation(&self, caller: Caller, name: &str, args: JsonObject) -> Result<OpReply, OpError> {
        let op = registry::find(name).ok_or_else(|| tools::unknown(name))?;
        self.scope.permits(op)?;
        dispatch(&self.ops, caller, name, Value::Object(args)).await
    }
}

fn plain(output: &Value) -> OpReply {
    OpReply { output: Output::of(output), replayed: false }
}

/// The arguments of one of the three, checked against what is advertised.
fn args_of<P: JsonSchema + DeserializeOwned>(tool: &str, args: JsonObject) -> Result<P, Refusal> {
    schema::parse(tool, &schema::Checker::new(schema::advertised::<P>()), Value::Object(args))
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

impl ServerHandler for Endpoint {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_resources().build())
            .with_server_info(Implementation::new("clawbernetes", env!("CARGO_PKG_VERSION")))
            .with_instructions(instructions::TEXT)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.clone())
            .with_ttl_ms(LISTS_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(pages::list())
            .with_ttl_ms(LISTS_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(Vec::new())
            .with_ttl_ms(LISTS_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let page = pages::read(&request.uri).ok_or_else(|| {
            ErrorData::resource_not_found("no such resource; see resources/list", Some(json!({ "uri": request.uri })))
        })?;
        let contents = ResourceContents::text(page, request.uri).with_mime_type("text/markdown");
        let page =
            ReadResourceResult::new(vec![contents]).with_ttl_ms(LISTS_TTL_MS).with_cache_scope(CacheScope::Private);
        Ok(page.into())
    }

    // What is not declared is not answered either.
    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListPromptsRequestMethod>())
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Err(ErrorData::method_not_found::<CompleteRequestMethod>())
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
