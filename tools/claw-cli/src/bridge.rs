//! `claw mcp`: an MCP server on standard input and output that hands everything on to the
//! gateway, with the caller's own key. It adds nothing and may do nothing that the key may not.

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, GetPromptRequestParams, GetPromptResponse,
    Implementation, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
};
use rmcp::service::{RequestContext, RoleServer, ServiceError, ServiceExt as _};
use rmcp::{ErrorData, ServerHandler};
use tokio::sync::Mutex;

use crate::client::{GatewayClient, service_error};
use crate::credentials::Endpoint;
use crate::error::CliError;
use crate::exit::Exit;

/// What a client is told while the gateway does not answer.
const AWAY: &str =
    "The Clawbernetes gateway does not answer. Start it (`claw up`) or look with `claw doctor`, then call again.";

/// One bridge; it connects when it is first needed, and again when the gateway was away.
#[derive(Debug)]
struct Bridge {
    endpoint: Endpoint,
    config: ServerConfig,
    client: Mutex<Option<Arc<GatewayClient>>>,
}

/// Serves until standard input ends.
pub(crate) async fn serve(endpoint: &Endpoint) -> Result<Exit, CliError> {
    let first = match GatewayClient::connect_to(endpoint).await {
        // A host starts its servers once: it is better to be there and say what is missing.
        Err(error @ (CliError::Unreachable { .. } | CliError::Busy { .. })) => {
            tracing::warn!(%error, "the bridge starts without a gateway");
            Err(error)
        }
        other => Ok(other?),
    };
    let bridge = Bridge {
        endpoint: endpoint.clone(),
        config: config_like(first.as_ref()),
        client: Mutex::new(first.ok().map(Arc::new)),
    };
    let (input, output) = rmcp::transport::stdio();
    let failed = |why: String| CliError::Protocol { url: "standard input".to_owned(), why };
    let service = match bridge.serve((input, output)).await {
        Ok(service) => service,
        Err(rmcp::service::ServerInitializeError::ConnectionClosed(_)) => return Ok(Exit::Ok),
        Err(error) => return Err(failed(error.to_string())),
    };
    match service.waiting().await {
        Ok(_) => Ok(Exit::Ok),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Shows itself as the gateway does: the same instructions, and resources and prompts if it has some. Without it, says
/// why it is not there.
fn config_like(client: Result<&GatewayClient, &CliError>) -> ServerConfig {
    let mut capabilities = ServerCapabilities::builder().enable_tools().build();
    let (known, mut instructions) = match client {
        Ok(client) => (client.peer().peer_info(), String::new()),
        Err(error) => (None, told(error)),
    };
    if let Some(known) = known {
        if known.capabilities.resources.is_some() {
            capabilities.resources = Some(rmcp::model::ResourcesCapability::default());
        }
        if known.capabilities.prompts.is_some() {
            capabilities.prompts = Some(rmcp::model::PromptsCapability::default());
        }
        instructions = known.instructions.clone().unwrap_or_default();
    }
    ServerConfig::new(capabilities)
        .with_server_info(Implementation::new("clawbernetes", env!("CARGO_PKG_VERSION")))
        .with_instructions(instructions)
}

impl Bridge {
    async fn client(&self) -> Result<Arc<GatewayClient>, CliError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = &*slot
            && !client.peer().is_transport_closed()
        {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(GatewayClient::connect_to(&self.endpoint).await?);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn reached(&self) -> Result<Arc<GatewayClient>, ErrorData> {
        let client = self.client().await;
        client.map_err(|error| ErrorData::internal_error(told(&error), None))
    }

    /// The gateway's own errors pass through; what happened on the way is told in words.
    fn passed_on(&self, error: ServiceError) -> ErrorData {
        match error {
            ServiceError::McpError(error) => error,
            other => ErrorData::internal_error(told(&service_error(&self.endpoint.url, &other)), None),
        }
    }
}

/// What went wrong on the way, and what to do about it: a gateway that is busy is not away.
fn told(error: &CliError) -> String {
    match error {
        CliError::Unreachable { .. } => format!("{error}. {AWAY}"),
        CliError::Busy { retry_after_s, .. } => format!("{error}. Call again in {retry_after_s} s."),
        other => format!("{other}. {}", other.hint()).trim_end().to_owned(),
    }
}

impl ServerHandler for Bridge {
    fn get_info(&self) -> ServerConfig {
        self.config.clone()
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.reached().await?.peer().list_tools(unmarked(request)).await.map_err(|error| self.passed_on(error))
    }

    async fn call_tool(
        &self,
        mut request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        request.meta = None;
        // A model reads results, not protocol errors: that the gateway is away or busy is a result.
        let away = |text: String| CallToolResult::error(vec![ContentBlock::text(text)]).into();
        let client = match self.client().await {
            Ok(client) => client,
            Err(error) => return Ok(away(told(&error))),
        };
        match client.peer().call_tool_once(request).await {
            Ok(response) => Ok(response),
            Err(ServiceError::McpError(error)) => Err(error),
            Err(error) => Ok(away(told(&service_error(&self.endpoint.url, &error)))),
        }
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        self.reached().await?.peer().list_resources(unmarked(request)).await.map_err(|error| self.passed_on(error))
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let client = self.reached().await?;
        client.peer().list_resource_templates(unmarked(request)).await.map_err(|error| self.passed_on(error))
    }

    async fn read_resource(
        &self,
        mut request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        request.meta = None;
        self.reached().await?.peer().read_resource_once(request).await.map_err(|error| self.passed_on(error))
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        self.reached().await?.peer().list_prompts(unmarked(request)).await.map_err(|error| self.passed_on(error))
    }

    async fn get_prompt(
        &self,
        mut request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        request.meta = None;
        self.reached().await?.peer().get_prompt_once(request).await.map_err(|error| self.passed_on(error))
    }
}

/// Metadata belongs to one connection; the bridge's own is put in its place.
fn unmarked(request: Option<PaginatedRequestParams>) -> Option<PaginatedRequestParams> {
    request.map(|mut request| {
        request.meta = None;
        request
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gateway_that_is_away_is_to_be_started() {
        let url = "http://127.0.0.1:7700/mcp".to_owned();
        let busy = told(&CliError::Busy { url: url.clone(), retry_after_s: 2 });
        assert_eq!(
            busy,
            "the gateway at http://127.0.0.1:7700/mcp takes no more calls of this key for the moment. Call again in 2 s."
        );
        let away = told(&CliError::Unreachable { url: url.clone(), why: "connection refused".to_owned() });
        assert!(away.ends_with(AWAY), "{away}");
        let denied = told(&CliError::Unauthenticated { url });
        assert!(denied.contains("claw doctor") && !denied.contains("does not answer"), "{denied}");
    }
}
