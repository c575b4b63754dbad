//! # claw-tools: the verbs
//!
//! Every operation of the system, once: typed `Params → Output`, a doc, a
//! permission, a risk tier, annotations, a toolset and how it is undone. MCP,
//! CLI, REST and evals are faces generated from [`registry::OPERATIONS`]. No
//! protocol library here: definitions only. Reads no clock, does no IO.

#[macro_use]
mod macros;
pub mod access;
pub mod approvals;
pub mod cluster;
pub mod def;
pub mod diagnosis;
pub mod events;
pub mod inside;
pub mod intents;
pub mod keys;
pub mod nearest;
pub mod nodes;
pub mod operations;
pub mod outcome;
pub mod plans;
pub mod quotas;
pub mod refusal;
pub mod registry;
pub mod reservations;
pub mod scheduling;
pub mod schema;
pub mod secrets;
pub mod workloads;
