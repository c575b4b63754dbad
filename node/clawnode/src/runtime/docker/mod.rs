//! Containers on a Docker or Podman engine of this machine.

pub mod config;
pub mod engine;
