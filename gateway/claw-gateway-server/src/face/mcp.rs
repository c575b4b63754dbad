//! MCP over Streamable HTTP: stateless, both revisions, JSON responses.
//!
//! The tool list is static per endpoint: the core set at `/mcp`, one endpoint
//! per toolset at `/mcp/x/<toolset>`, reads only at `/mcp/readonly`. Three small
//! tools reach every other operation, through the same checks. The page of every
//! error code is a resource, `claw://errors/<CODE>`.

mod endpoint;
mod instructions;
mod pages;
mod tools;

use std::sync::Arc;

use axum::Router;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use super::FaceConfig;
use crate::ops::OpsContext;

pub use endpoint::Endpoint;
pub use tools::Scope;

pub(super) fn router(ops: &OpsContext, config: &FaceConfig) -> Router<OpsContext> {
    let mut router = Router::new();
    for scope in Scope::all() {
        let endpoint = Arc::new(Endpoint::new(ops.clone(), scope));
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        hosts.extend(config.allowed_hosts.iter().cloned());
        let settings = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_allowed_hosts(hosts)
            .with_allowed_origins(config.allowed_origins.clone())
            .enforce_origin_validation()
            .with_max_request_body_bytes(config.body_bytes_max);
        let service = StreamableHttpService::new(
            move || Ok(Arc::clone(&endpoint)),
            Arc::new(LocalSessionManager::default()),
            settings,
        );
        router = router.route_service(&scope.path(), service);
    }
    router
}
