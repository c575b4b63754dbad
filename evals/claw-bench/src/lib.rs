//! # claw-bench: how far we are from what others reach
//!
//! Figures of real processes, side by side with anchors on the same machine: etcd for
//! durable writes, a bare rmcp server and FastMCP for MCP. Samples of both sides are
//! taken in turn (ABBA), so that whatever else the machine does meets both alike; what
//! counts is the ratio of the medians, with a bootstrap interval around it.
//!
//! - [`stats`]: medians, ratios, intervals; [`load`]: clients that ask, one call at a time
//! - [`mcp`], [`etcd`], [`core`]: what a client asks; [`fleet`]: nodes that are only a link
//! - [`submits`], [`reads`], [`links`], [`starts`]: the figures
//! - [`intents`]: speed and memory of the intent engine, by itself

pub mod anchors;
pub mod core;
pub mod etcd;
pub mod fleet;
pub mod intents;
pub mod links;
pub mod load;
pub mod mcp;
pub mod reads;
pub mod resources;
pub mod starts;
pub mod stats;
pub mod submits;
