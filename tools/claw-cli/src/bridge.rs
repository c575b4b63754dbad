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

use crate::client::GatewayClient;
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
        Ok(client) => Some(client),
        // A host starts its servers once: it is better to be there and say what is missing.
        Err(error @ CliError::Unreachable { .. }) => {
            tracing::warn!(%error, "the bridge starts without a gateway");
            None
        }
        Err(error) => return Err(error),
    };
    let bridge = Bridge {
        endpoint: endpoint.clone(),
        config: config_like(first.as_ref()),
        client: Mutex::new(first.map(Arc::new)),
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

/// Shows itself as the gateway does: the same instructions, and resources and prompts if it has some.
fn config_like(client: Option<&GatewayClient>) -> ServerConfig {
    let known = client.and_then(|client| client.peer().peer_info());
    let mut capabilities = ServerCapabilities::builder().enable_tools().build();
    let mut instructions = AWAY.to_owned();
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
        client.map_err(|error| ErrorData::internal_error(format!("{error}. {AWAY}"), None))
    }
}

/// The gateway's own errors pass through; what happened on the way is told in words.
fn passed_on(error: ServiceError) -> ErrorData {
    match error {
        ServiceError::McpError(error) => error,
        other => ErrorData::internal_error(format!("{other}. {AWAY}"), None),
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
        self.reached().await?.peer().list_tools(unmarked(request)).await.map_err(passed_on)
    }

    async fn call_tool(
        &self,
        mut request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        request.meta = None;
        // A model reads results, not protocol errors: the gateway's absence is a result.
        let away = |text: String| CallToolResult::error(vec![ContentBlock::text(text)]).into();
        let client = match self.client().await {
            Ok(client) => client,
            Err(error) => return Ok(away(format!("{error}. {AWAY}"))),
        };
        match client.peer().call_tool_once(request).await {
            Ok(response) => Ok(response),
            Err(ServiceError::McpError(error)) => Err(error),
            Err(error) => Ok(away(format!("{error}. {AWAY}"))),
        }
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        self.reached().await?.peer().list_resources(unmarked(request)).await.map_err(passed_on)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let client = self.reached().await?;
        client.peer().list_resource_templates(unmarked(request)).await.map_err(passed_on)
    }

    async fn read_resource(
        &self,
        mut request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        request.meta = None;
        self.reached().await?.peer().read_resource_once(request).await.map_err(passed_on)
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        self.reached().await?.peer().list_prompts(unmarked(request)).await.map_err(passed_on)
    }

    async fn get_prompt(
        &self,
        mut request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        request.meta = None;
        self.reached().await?.peer().get_prompt_once(request).await.map_err(passed_on)
    }
}

/// Metadata belongs to one connection; the bridge's own is put in its place.
fn unmarked(request: Option<PaginatedRequestParams>) -> Option<PaginatedRequestParams> {
    request.map(|mut request| {
        request.meta = None;
        request
    })
}
