//! The diagnostician: verdicts on GPU faults, with their evidence.
//!
//! ```text
//! lines ─ envelope ─ one pass for literals ─ rules ─ findings ─ bursts, ranks, cancels ─ verdict ─ Insight
//!          (host, time, kernel or program)   (data)            (root against sympathetic)
//! ```
//!
//! Rules are data (`rules/*.toml`); each names its source and carries lines
//! that it must find. What is quoted, typed or told in prose is no fault:
//! [`envelope`] and the guard in [`observe`] see to that. An unknown code is
//! `contact_support`, never a guess.

pub mod analyze;
pub mod architecture;
pub mod cases;
pub mod code;
pub mod device;
pub mod envelope;
mod guard;
pub mod insight;
mod legible;
pub mod memory;
mod nvidia;
mod nvlink5;
pub mod observe;
mod pattern;
pub mod policy;
pub mod reported;
pub mod rules;
pub mod series;
mod traceback;

#[cfg(test)]
mod tests;
