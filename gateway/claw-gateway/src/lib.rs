//! # claw-gateway: the pure core
//!
//! `step(&Cluster, Command, &Caller, ids) → Decision {events, effects, report}`, and
//! the state after; `advance(&mut Cluster, …)` brings a state there in place (ADR 0020).
//! No clock, no randomness, no IO, no async in here: the shell journals the
//! events, then performs the effects. Restart, replay, undo, what-if and
//! simulation fall out of this one shape.
//!
//! - [`cluster`]: the state, and [`cluster::Cluster::apply`], the only way it changes
//! - [`command`], [`event`], [`effect`]: closed vocabularies
//! - [`step`]: one command, decided
//! - [`registry`]: nodes ([`registry::NodeRegistry`]); [`workload`]: workloads ([`workload::WorkloadManager`])
//! - [`scheduler`]: where a workload goes, and why not elsewhere
//! - [`preemption`]: who makes room for more important work ([`preemption::PreemptionPolicy`], [`preemption::Victim`])
//! - [`tenancy`]: what tenants are guaranteed, may have at most and hold ([`tenancy::Tenants`], [`tenancy::Board`])
//! - [`query`]: reads, over a snapshot
//! - [`invariants`]: what is always true, each with a name; [`audit`]: decisions checked by their events alone

pub mod access;
pub mod audit;
pub mod cluster;
pub mod command;
pub mod effect;
pub mod event;
pub mod invariants;
pub mod policy;
pub mod preemption;
pub mod query;
pub mod registry;
pub mod reservations;
pub mod scheduler;
pub mod step;
pub mod tenancy;
pub mod workload;

pub use cluster::Cluster;
pub use command::{Caller, Command, Operation};
pub use effect::Effect;
pub use event::{Event, EventRecord};
pub use step::{Decision, Report, advance, step};
