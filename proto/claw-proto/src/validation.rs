//! # claw-validation: parse, don't validate
