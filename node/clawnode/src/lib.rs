//! # clawnode: the hands of the fleet
//!
//! The agent that runs on every machine. [`node`] decides: a pure state
//! machine without clock, files or network, so the simulator runs the same
//! code in virtual time. The rest is the shell around it, which performs what
//! the machine asks for.

pub mod node;

pub use node::Node;
