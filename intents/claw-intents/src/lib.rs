//! # claw-intents: words in, a typed intent or an honest question out
//!
//! [`parse`] turns a request such as "Run Llama 70B on 4 H100s" into an
//! [`Intent`] with the provenance of every field and every assumption stated,
//! into questions, or into a coded refusal. It never guesses: what has two
//! readings that differ in cost or effect becomes a question, quoted text is
//! data and gives no orders, and no number, GPU model or node is in an intent
//! that the text or the context did not give. Words that it does not know are
//! passed over; the provenance tells which ones were read.
//!
//! ```text
//! text ─ tokens with spans ─ safety ─ action ─ clauses ─ context, catalogue, fit ─ Answer
//! ```
//!
//! Understood are all actions of [`Intent`]: run, deploy, update, scale, stop,
//! roll back, drain, undrain, diagnose, query, alert, bid and offer. The crate
//! is pure: no clock, no randomness, no files; the catalogue and the lexicon
//! are compiled in.

mod act;
mod answer;
mod catalog;
mod clock;
mod context;
mod draft;
mod engine;
pub mod eval;
mod items;
mod lexicon;
pub mod proposer;
mod read;
mod safety;
mod say;
mod shell;
mod text;

pub use answer::{
    Answer, Assumption, Comparison, Environment, Intent, Provenance, QueryFilter, QuerySubject, Question, RefusalCode,
    Rollout, Source, Span, Symptom, Target, TargetKind, Understood,
};
pub use catalog::estimate::{Estimate, Load, Proposal, RUNTIME_GIB, USABLE_SHARE};
pub use catalog::fit::{Fit, GpuShape, Verdict, catalog_fit};
pub use catalog::resolve::Resolution;
pub use catalog::{Catalog, CatalogError, GpuModel, Model, Server};
pub use clock::Now;
pub use context::{Context, ContextDeployment, ContextGpu, ContextNode, ContextWorkload};

/// What a request in words means, judged against what the engine may look up.
///
/// Total: any text gives an answer. The same text, context and catalogue give
/// the same answer.
pub fn parse(text: &str, context: &Context, catalog: &Catalog) -> Answer {
    engine::parse(text, context, catalog)
}

/// What an intent is in one English sentence, so that a person approves what the machine understood.
///
/// The engine reads the sentence as the same intent, with the same context and
/// catalogue; this was tried. None where it would not: a field that no words of
/// the grammar say, or one that the context contradicts.
pub fn say(intent: &Intent, context: &Context, catalog: &Catalog) -> Option<String> {
    say::say(intent, context, catalog)
}

#[cfg(test)]
mod tests;
