//! The faces: MCP, REST and health, all made from the same operations.

mod auth;
mod body;
pub mod mcp;
mod metrics;
mod rest;
mod stream;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;

use crate::ops::OpsContext;

pub use auth::Guard;
pub(crate) use mcp::{Answered, Direct};
pub use stream::LiveUpdate;

/// What the faces need to know besides the operations.
#[derive(Debug, Clone)]
pub struct FaceConfig {
    /// Values of the Host header that are accepted besides the loopback names.
    pub allowed_hosts: Vec<String>,
    /// Values of the Origin header that are accepted.
    pub allowed_origins: Vec<String>,
    /// Calls of one principal, per second on average.
    pub requests_per_s: u32,
    /// Calls that one principal may make at once.
    pub requests_burst: u32,
    /// Largest request body, bytes.
    pub body_bytes_max: usize,
}

/// Everything that is served on the HTTP port: what answers plain calls of tools, and
/// what answers everything.
pub(crate) fn faces(ops: OpsContext, config: &FaceConfig) -> (Direct, Router) {
    let guard = Guard::new(ops.control.clone(), config);
    let endpoints = mcp::endpoints(&ops);
    let router = router(ops, config, &guard, &endpoints);
    (Direct::new(guard, endpoints, config.body_bytes_max), router)
}

fn router(ops: OpsContext, config: &FaceConfig, guard: &Guard, endpoints: &mcp::Endpoints) -> Router {
    let guarded = mcp::router(endpoints, config)
        .merge(rest::router())
        .merge(stream::router())
        .route("/metrics", get(metrics::prometheus))
        .fallback(rest::no_such_path)
        .layer(from_fn_with_state(config.body_bytes_max, body::read_whole))
        .layer(from_fn_with_state(guard.clone(), auth::authenticate));
    Router::new()
        .route("/healthz", get(rest::healthz))
        .route("/readyz", get(rest::readyz))
        .merge(guarded)
        .layer(from_fn_with_state(guard.clone(), auth::check_host_and_origin))
        .layer(DefaultBodyLimit::max(config.body_bytes_max))
        .with_state(ops)
}

#[cfg(test)]
mod tests;
