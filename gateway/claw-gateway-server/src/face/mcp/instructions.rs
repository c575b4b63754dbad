//! What a model is told about this server, once.

/// At most 2 KB: glossary, default flow, the rule of confirmation.
pub(super) const TEXT: &str = include_str!("instructions.md");
