//! # claw-tools
