//! # claw-observe: what logs and series say, and what it means
//!
//! Pure analysis over what nodes deliver. [`diagnose`] turns log lines into
//! findings ([`Observer`]), findings into a verdict ([`Analyzer`]), and a
//! verdict into words with evidence and ready calls ([`Insight`]).
//!
//! The crate reads no clock, no file and no network: lines and times come in as
//! arguments, and the same lines give the same verdict.

pub mod diagnose;

pub use diagnose::analyze::Analyzer;
pub use diagnose::insight::Insight;
pub use diagnose::observe::Observer;
