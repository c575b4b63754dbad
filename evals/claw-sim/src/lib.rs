//! # claw-sim
