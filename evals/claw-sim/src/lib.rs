//! # claw-sim: core and node in virtual time
//!
//! A seed draws a round: machines with GPUs, callers with wishes, and faults of
//! every kind. The real [`claw_gateway::step`] decides and the real
//! [`clawnode::Node`] acts; what is simulated is everything around them: disks,
//! connections, clocks, supervisors of processes, and death at any moment.
//!
//! ```text
//!   callers ──► gateway (core, journal, links) ◄── net ──► machines (node, disk)
//!                                                             │ supervisors
//!                                                             ▼
//!              finale, oracles ◄──────────────────────── execution log
//! ```
//!
//! The judge is the execution log: what really ran, with true times, which the
//! protocol never sees. While a round runs: no two processes of one workload at
//! one instant, no GPU used twice, every named invariant of the core, answers
//! that are durable. At the end, when all is healed: every attempt ended as the
//! log shows, everything that should run runs, and a restart finds the same
//! state. Each rule has a name; a broken one prints its seed.
//!
//! A failing seed replays with a readable trace:
//! `CLAW_SIM_SEED=17 cargo nextest run -p claw-sim replay --no-capture`.

mod agenda;
mod callers;
mod execution;
mod finale;
mod gateway;
mod machine;
mod net;
mod rng;
mod scenario;
mod world;

pub use agenda::Counts;

/// A deliberately broken part, to see that the judges notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Nodes and supervisors let workloads run on, however long they are cut off.
    NodesIgnoreLeases,
    /// The gateway starts a copy elsewhere without waiting for the lease.
    GatewayIgnoresLeases,
    /// The gateway tells nodes before the journal has it.
    EffectsBeforeDurability,
    /// The gateway answers callers before the journal has it.
    AnswersBeforeDurability,
    /// The gateway acknowledges status records before the journal has them.
    AcksBeforeDurability,
}

impl Sabotage {
    /// Every one.
    pub const ALL: &[Self] = &[
        Self::NodesIgnoreLeases,
        Self::GatewayIgnoresLeases,
        Self::EffectsBeforeDurability,
        Self::AnswersBeforeDurability,
        Self::AcksBeforeDurability,
    ];
}

/// How a round is played.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What is deliberately broken.
    pub sabotage: Option<Sabotage>,
    /// Keep a readable trace.
    pub trace: bool,
}

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Name of the rule.
    pub oracle: &'static str,
    /// By what.
    pub detail: String,
    /// When, milliseconds since the round began.
    pub at_ms: u64,
}

/// A failed round, with how to see it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "seed {seed}: {} is broken at {} ms: {}\nreplay with a trace: CLAW_SIM_SEED={seed} cargo nextest run -p claw-sim replay --no-capture",
    .broken.oracle, .broken.at_ms, .broken.detail
)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The rule.
    pub broken: Broken,
    /// What happened, if a trace was asked for.
    pub trace: Vec<String>,
}

/// Plays one round.
///
/// # Errors
/// [`Failure`] if a rule did not hold; the same seed fails the same way again.
pub fn run_round(seed: u64, options: Options) -> Result<(Counts, Vec<String>), Box<Failure>> {
    let played = world::play(seed, options);
    match played.broken {
        None => Ok((played.counts, played.trace)),
        Some(broken) => Err(Box::new(Failure { seed, broken, trace: played.trace })),
    }
}
