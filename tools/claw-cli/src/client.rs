//! The way to the gateway: an MCP client over Streamable HTTP.

#[cfg(test)]
mod tests;

use std::time::Duration;

use claw_tools::refusal::{Fault, Refusal};
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, Implementation, JsonObject,
    ProtocolVersion, Tool,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt, Peer, RoleClient, RunningService, ServiceError,
};
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};
use rmcp::transport::{DynamicTransportError, StreamableHttpClientTransport};
use serde_json::Value;

use crate::credentials::{Endpoint, Secret};
use crate::error::CliError;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The HTTP status of a rate limit.
const TOO_MANY_REQUESTS: u16 = 429;
/// How often a call is made again that the gateway had no time for; nothing was done with it.
const BUSY_RETRIES: u32 = 3;
/// The longest pause before such a call, seconds.
const BUSY_PAUSE_S_MAX: u64 = 5;
/// How long an answer may take beyond the longest wait that an operation can be asked for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(claw_proto::limits::WAIT_S_MAX as u64 + 60);

/// A connection to one gateway with one key.
#[derive(Debug)]
pub struct GatewayClient {
    service: RunningService<RoleClient, ClientConfig>,
    url: String,
}

/// What an operation answered.
#[derive(Debug, Clone, PartialEq)]
pub struct CallReply {
    /// The structured content, exactly as sent.
    pub content: Value,
}

impl GatewayClient {
    /// Connects to the MCP endpoint at `url` with the API key `key`.
    pub async fn connect(url: &str, key: Option<&str>) -> Result<Self, CliError> {
        Self::connect_to(&Endpoint { url: url.to_owned(), key: key.map(Secret::new), ca_pem: None }).await
    }

    /// Connects to an endpoint. Discovers what the gateway speaks: the stateless revision
    /// first, the handshake of older ones otherwise.
    pub async fn connect_to(endpoint: &Endpoint) -> Result<Self, CliError> {
        let config = StreamableHttpClientTransportConfig::with_uri(endpoint.url.as_str());
        let config = match &endpoint.key {
            Some(key) => config.auth_header(key.expose()),
            None => config,
        };
        let http = http_client(endpoint)?;
        let mut retries = BUSY_RETRIES;
        let service = loop {
            let transport = StreamableHttpClientTransport::with_client(http.clone(), config.clone());
            let implementation = Implementation::new("claw", env!("CARGO_PKG_VERSION"));
            let lifecycle = ClientLifecycleMode::Auto {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
                legacy_version: Some(ProtocolVersion::V_2025_11_25),
            };
            let service = ClientConfig::new(ClientCapabilities::default(), implementation)
                .serve_with_lifecycle(transport, lifecycle)
                .await;
            match service.map_err(|error| initialize_error(&endpoint.url, &error)) {
                Err(CliError::Busy { retry_after_s, .. }) if retries > 0 => pause(&mut retries, retry_after_s).await,
                other => break other?,
            }
        };
        Ok(Self { service, url: endpoint.url.clone() })
    }

    /// Where it is connected to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The connection itself, for what is forwarded as it is.
    pub fn peer(&self) -> &Peer<RoleClient> {
        self.service.peer()
    }

    /// Makes one call. An operation that is not listed at the endpoint itself is reached
    /// through `tool_call`, which checks and records the inner name.
    pub async fn call(&self, tool: &str, args: JsonObject) -> Result<CallReply, CliError> {
        let listed = claw_tools::registry::find(tool).is_none_or(|op| op.core);
        let params = if listed {
            CallToolRequestParams::new(tool.to_owned()).with_arguments(args)
        } else {
            let mut outer = JsonObject::new();
            outer.insert("name".into(), tool.into());
            outer.insert("args".into(), Value::Object(args));
            CallToolRequestParams::new("tool_call").with_arguments(outer)
        };
        let mut retries = BUSY_RETRIES;
        let result = loop {
            let result = self.service.call_tool(params.clone()).await;
            match result.map_err(|error| service_error(&self.url, &error)) {
                Err(CliError::Busy { retry_after_s, .. }) if retries > 0 => pause(&mut retries, retry_after_s).await,
                other => break other?,
            }
        };
        reply(&self.url, result)
    }

    /// All tools that the endpoint lists.
    pub async fn tools(&self) -> Result<Vec<Tool>, CliError> {
        let tools = self.service.list_all_tools().await;
        tools.map_err(|error| service_error(&self.url, &error))
    }

    /// Ends the connection.
    pub async fn close(self) {
        if let Err(error) = self.service.cancel().await {
            tracing::debug!(%error, "the connection did not end cleanly");
        }
    }
}

/// The pause before a call that the gateway had no time for is made again.
async fn pause(retries: &mut u32, retry_after_s: u64) {
    *retries -= 1;
    tokio::time::sleep(Duration::from_secs(retry_after_s.clamp(1, BUSY_PAUSE_S_MAX))).await;
}

/// An HTTP client that follows no redirect (the key must not travel), trusts the gateway's own
/// authority if one is given, and needs no certificates of this machine for a plain loopback.
fn http_client(endpoint: &Endpoint) -> Result<reqwest::Client, CliError> {
    let url = reqwest::Url::parse(&endpoint.url)
        .map_err(|error| CliError::Setting { what: "the gateway's URL", why: format!("{error} ({})", endpoint.url) })?;
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("claw/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(ANSWER_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if url.host_str().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]")) {
        builder = builder.no_proxy();
    }
    if let Some(pem) = &endpoint.ca_pem {
        let authorities = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
        builder = builder.tls_certs_only(authorities.map_err(|error| CliError::Setting {
            what: "the gateway's certificate authority",
            why: error.to_string(),
        })?);
    } else if url.scheme() == "http" {
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| CliError::Setting { what: "the HTTP client", why: chain(&error) })
}

/// The answer of a call, or what was said instead.
fn reply(url: &str, result: CallToolResult) -> Result<CallReply, CliError> {
    let content = match result.structured_content {
        Some(content) => content,
        None => text_as_json(&result.content),
    };
    if result.is_error != Some(true) {
        return Ok(CallReply { content });
    }
    if let Ok(refusal) = serde_json::from_value::<Refusal>(content.clone()) {
        let refusal = Box::new(refusal);
        return Err(CliError::Refused { refusal, content });
    }
    if let Ok(fault) = serde_json::from_value::<Fault>(content.clone()) {
        return Err(CliError::Fault { fault, content });
    }
    Err(CliError::Protocol {
        url: url.to_owned(),
        why: format!("an error without a code: {}", brief(&content.to_string())),
    })
}

/// For a peer that sends no structured content: its text, as JSON if it is.
fn text_as_json(content: &[rmcp::model::ContentBlock]) -> Value {
    let text: Vec<&str> = content.iter().filter_map(|block| block.as_text().map(|text| text.text.as_str())).collect();
    let text = text.join("\n");
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn initialize_error(url: &str, error: &ClientInitializeError) -> CliError {
    match error {
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => initialize_error(url, fallback),
        ClientInitializeError::TransportError { error, .. } => transport_error(url, error),
        other => protocol_error(url, &other.to_string()),
    }
}

/// What a call met on its way.
pub(crate) fn service_error(url: &str, error: &ServiceError) -> CliError {
    match error {
        ServiceError::McpError(inner) => protocol_error(url, &format!("{} ({})", inner.message, inner.code.0)),
        ServiceError::TransportSend(error) => transport_error(url, error),
        ServiceError::TransportClosed => {
            CliError::Unreachable { url: url.to_owned(), why: "the connection was closed".to_owned() }
        }
        other => protocol_error(url, &other.to_string()),
    }
}

fn protocol_error(url: &str, why: &str) -> CliError {
    CliError::Protocol { url: url.to_owned(), why: brief(why) }
}

/// What the HTTP transport met: no key, a key that may not, nobody, or somebody else.
fn transport_error(url: &str, error: &DynamicTransportError) -> CliError {
    let cause = error.error.as_ref();
    let Some(http) = cause.downcast_ref::<StreamableHttpError<reqwest::Error>>() else {
        return protocol_error(url, &chain(cause));
    };
    let url = url.to_owned();
    match http {
        StreamableHttpError::AuthRequired(_) => CliError::Unauthenticated { url },
        StreamableHttpError::InsufficientScope(_) => CliError::Forbidden { url },
        StreamableHttpError::UnexpectedServerResponse(text) if text.starts_with("HTTP 401") => {
            CliError::Unauthenticated { url }
        }
        StreamableHttpError::UnexpectedServerResponse(text) if text.starts_with("HTTP 403") => {
            CliError::Forbidden { url }
        }
        StreamableHttpError::Client(error) => {
            let why = root(error);
            CliError::Unreachable { url, why }
        }
        StreamableHttpError::HttpStatus(status) if status.status == TOO_MANY_REQUESTS => {
            let retry_after = status.retry_after.as_deref().and_then(|text| text.parse().ok());
            CliError::Busy { url, retry_after_s: retry_after.unwrap_or(1).max(1) }
        }
        StreamableHttpError::HttpStatus(_)
        | StreamableHttpError::Io(_)
        | StreamableHttpError::TransportChannelClosed => {
            let why = chain(http);
            CliError::Unreachable { url, why }
        }
        other => protocol_error(&url, &chain(other)),
    }
}

/// The first cause of an error: what the network said, not who heard it.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut current = error;
    while let Some(cause) = current.source() {
        current = cause;
    }
    current.to_string()
}

/// An error with all its causes, each said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let more = current.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = current.source();
    }
    text
}

fn brief(text: &str) -> String {
    claw_tools::outcome::clip(text, 400)
}
