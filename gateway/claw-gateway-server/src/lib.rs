//! # claw-gateway-server
pub mod control;
