//! # claw-gateway
