//! Properties of decisions over random histories, and the stories that people rely on.

mod ahead;
mod annotations;
mod apart;
mod audited;
mod checkpoints;
mod choices;
mod contention;
mod defrag;
mod explained;
mod fleet;
mod forecasts;
mod fragments;
mod gang;
mod gates;
mod inside;
mod kept;
mod lent;
mod preempt;
mod properties;
mod remembered;
mod reservations;
mod review;
mod shares;
mod stories;
mod tenancy;
