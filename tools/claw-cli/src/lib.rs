//! # claw-cli
