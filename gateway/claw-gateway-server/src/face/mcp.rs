//! MCP over Streamable HTTP: stateless, both revisions, JSON responses.
//!
//! The tool list is static per endpoint: the core set at `/mcp`, one endpoint
//! per toolset at `/mcp/x/<toolset>`, reads only at `/mcp/readonly`. Three small
//! tools reach every other operation, through the same checks. The page of every
//! error code is a resource, `claw://errors/<CODE>`.

mod direct;
mod endpoint;
mod instructions;
mod pages;
mod result;
mod tools;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use super::FaceConfig;
use crate::ops::OpsContext;

pub(crate) use direct::{Answered, Direct};
pub use endpoint::Endpoint;
pub use tools::Scope;

/// Every endpoint, by where it is served.
pub(super) type Endpoints = BTreeMap<String, Arc<Endpoint>>;

pub(super) fn endpoints(ops: &OpsContext) -> Endpoints {
    let endpoint = |scope: Scope| (scope.path(), Arc::new(Endpoint::new(ops.clone(), scope)));
    Scope::all().into_iter().map(endpoint).collect()
}

pub(super) fn router(endpoints: &Endpoints, config: &FaceConfig) -> Router<OpsContext> {
    let mut router = Router::new();
    for (path, endpoint) in endpoints {
        let endpoint = Arc::clone(endpoint);
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
        router = router.route_service(path, service);
    }
    router
}
