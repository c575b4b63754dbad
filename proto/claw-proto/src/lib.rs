//! # claw-proto: what crosses a wire
//!
//! The nouns of the system: typed ids, the workload specification, node
//! capabilities and topology, the messages between gateway and node, and the
//! limits of the protocol. Domain types are plain serde types; the protobuf
//! form is private to [`codec`]. This crate knows nobody and reads no clock.

extern crate self as claw_proto;

mod closed_enum;
pub mod codec;
pub mod ids;
pub mod limits;
pub mod message;
pub mod mig;
pub mod spec;
pub mod spelling;
#[cfg(test)]
mod strategies;
pub mod time;
pub mod topology;
pub mod validation;
mod wire;

/// What the exported macros need at their place of use.
#[doc(hidden)]
pub mod export {
    pub use schemars::{self, JsonSchema};
    pub use serde::{self, Deserialize, Serialize};
}
