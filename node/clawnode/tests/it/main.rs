//! The node end to end: real processes under real supervisors, and a real agent
//! that talks TLS to a peer of the protocol.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod agent;
mod amdgpu;
mod caches;
mod chaos;
mod checkpoints;
mod docker;
mod ends;
mod images;
mod nvml;
mod nvml_process;
mod peer;
mod process;
mod rocm;
mod support;
mod upgrade;
mod vulkan;
