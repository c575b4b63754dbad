//! # claw-e2e-tests: the whole system as real processes
//!
//! A harness that starts a real gateway and real nodes, each a process of its
//! own over mTLS, drives them over MCP, cuts and kills them, and judges by the
//! nodes' execution logs, which stand outside the protocol. The demo and the
//! end-to-end tests are made of it.

pub mod demo;
pub mod fleet;
pub mod gateway;
pub mod node;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod session;
pub mod wait;
