//! # claw-gateway-server: the shell around the pure core
//!
//! - [`app`]: [`app::GatewayServer`], the gateway put together; [`cli`]: its command line
//! - [`config`]: [`config::GatewayConfig`], its settings
//! - [`control`]: one thread decides and journals; the handle that all others hold
//! - `node_link`, `enroll`: the port that nodes connect to
//! - [`ops`]: the one dispatcher of every operation; [`face`]: MCP, REST, health
//! - `secrets`: the admin's key; `serve`: sockets, TLS, stopping

pub mod app;
pub mod cli;
pub mod config;
pub mod control;
mod enroll;
pub mod face;
mod node_link;
pub mod ops;
mod secrets;
mod serve;

pub use app::{GatewayServer, Running};
pub use config::GatewayConfig;
