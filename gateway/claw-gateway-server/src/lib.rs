//! # claw-gateway-server
