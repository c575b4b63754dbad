//! # claw-cli: the command line of a fleet
//!
//! Thin on purpose: every operation of `claw-tools` becomes `claw <noun> <verb>` at run time,
//! made from its schema, and is one MCP call to the gateway. This crate decides nothing; it
//! knows how to read a command line, to show an answer, to let a person confirm a plan by its
//! hash, and to start the sibling programs.

mod approve;
mod bench;
mod bench_scan;
mod bridge;
pub mod cli;
pub mod client;
pub mod credentials;
mod diagnose;
mod doctor;
pub mod error;
pub mod exit;
mod fields;
mod follow;
mod generate;
mod intents;
mod intents_random;
mod json_input;
mod llm;
mod models;
mod output;
#[cfg(test)]
mod reference;
mod render;
mod run;
mod run_flags;
mod save;
mod secret_input;
mod up;

pub use cli::{Cli, Commands};
pub use client::{CallReply, GatewayClient};
pub use run::run;
