//! # claw-intents
