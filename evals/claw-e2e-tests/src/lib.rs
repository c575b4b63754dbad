//! # claw-e2e-tests
