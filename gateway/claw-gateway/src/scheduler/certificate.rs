//! What a decision claims, in words that a checker understands who knows nothing
//! of how it was made.
//!
//! Every decision of a scheduler is one of [`Claim`]'s three: a gang starts, a
//! gang stops, a start is promised. The checker keeps its
//! own books of GPUs, owners and promises and accepts a claim only if four
//! things hold: the gang is complete, no GPU has two users, no quota is
//! exceeded, and nothing that was promised comes later.

mod checker;
pub mod faults;
#[cfg(test)]
mod tests;

pub use checker::{Checker, Fault};

/// Part of a gang: GPUs of one node, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Node, from 0.
    pub node: u32,
    /// Its GPUs.
    pub gpus: u64,
}

/// GPUs of one node, whichever they will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Node, from 0.
    pub node: u32,
    /// How many.
    pub gpus: u32,
}

/// What the checker is told about a job beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// GPUs, all or nothing.
    pub gpus: u32,
    /// Who asks.
    pub owner: u32,
    /// When it was submitted, seconds.
    pub submit_s: u64,
}

/// What an owner may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// The group that it counts in too.
    pub parent: Option<u32>,
    /// GPUs at once; nothing for no bound.
    pub most: Option<u32>,
}

/// Why a gang stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Its work is done.
    Ended,
    /// It makes room and waits again.
    Preempted,
}

/// The certificate of one decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A gang starts.
    Start {
        /// When, seconds.
        at_s: u64,
        /// Job.
        job: u32,
        /// Where.
        gang: Vec<Part>,
        /// When it ends at the latest; [`u64::MAX`] where nobody knows.
        until_s: u64,
    },
    /// A gang stops.
    Halt {
        /// When, seconds.
        at_s: u64,
        /// Job.
        job: u32,
        /// Why.
        why: Stop,
    },
    /// A start is promised, in place of an earlier promise to the same job.
    Promise {
        /// When, seconds.
        at_s: u64,
        /// Job.
        job: u32,
        /// When it will start at the latest.
        start_s: u64,
        /// When it will then end at the latest.
        until_s: u64,
        /// Where.
        shares: Vec<Share>,
    },
}
