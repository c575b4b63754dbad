//! # claw-intents: words in, a typed intent or an honest question out
//!
//! [`parse`] turns a request such as "Run Llama 70B on 4 H100s" into an
//! [`Intent`] with the provenance of every field and every assumption stated,
//! into questions, or into a coded refusal. It never guesses: a word that it
//! does not understand becomes a question, quoted text is data and gives no
//! orders, and no number, GPU model or node is in an intent that the text or
//! the context did not give.
//!
//! ```text
//! text ─ tokens with spans ─ safety ─ action ─ clauses ─ context, catalogue, fit ─ Answer
//! ```
//!
//! Understood are: run a command, run a catalogued model on N GPUs, stop,
//! drain, undrain and queries. The crate is pure: no clock, no randomness, no
//! files; the catalogue is compiled in.

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
mod read;
mod safety;
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

#[cfg(test)]
mod tests;
