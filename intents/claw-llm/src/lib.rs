//! # claw-llm: a language model as the proposer of intents
//!
//! Talks to any OpenAI-compatible endpoint (`/chat/completions` with a strict JSON
//! schema) through async-openai, and is asked only where the grammar of
//! `claw-intents` is unsure. The model proposes; the checker there decides by the
//! words of the request. Whatever the endpoint does, the result is an intent that
//! the words allow, a question, or a refusal, and within bounds of time, calls,
//! bytes and tokens.
//!
//! ```text
//! Llm::parse ─ claw_intents::proposer ─► Session::propose ─ async-openai ─ Wire ─ HTTP
//!                                          time, calls, tokens      bytes, status, redirects
//! ```
//!
//! The key is in one place, is overwritten when it is dropped, and is taken out of
//! everything that an endpoint says before anybody sees it. Whoever makes the
//! first client of a process installs the crypto provider of rustls (ring).

mod failure;
mod session;
mod settings;
mod transcript;
mod wire;

use claw_intents::proposer::{Ended, parse_with};
use claw_intents::{Answer, Catalog, Context};

pub use failure::{Failure, FailureCode};
pub use settings::{KEY_BYTES_MAX, Limits, Settings, SettingsError, key_from, key_of};
pub use transcript::{PromptUsed, Transcript};

use session::Session;

/// A language model behind an endpoint.
#[derive(Debug)]
pub struct Llm {
    settings: Settings,
    client: wire::Client,
}

/// What a request means, and how that came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The answer.
    pub answer: Answer,
    /// Why the model counts for nothing; none if it was not asked, or its answer passed.
    pub failure: Option<Failure>,
    /// All that was said.
    pub transcript: Transcript,
}

impl Llm {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let client = wire::client(&settings)?;
        Ok(Self { settings, client })
    }

    /// What a request in words means; the model is asked where the grammar is unsure.
    pub async fn parse(&self, text: &str, context: &Context, catalog: &Catalog) -> Parsed {
        let mut session = Session::new(&self.settings, &self.client, catalog);
        let outcome = parse_with(text, context, catalog, &mut session).await;
        let failure = outcome.ended.map(|ended| match ended {
            Ended::Failed(failure) => failure,
            Ended::Rejected => FailureCode::Rejected.because(rejected(&outcome.rounds)),
            Ended::Asked => FailureCode::Asked.because("it asks for more, as the grammar does"),
        });
        let transcript = Transcript {
            request: text.to_owned(),
            context: context.clone(),
            unsure: outcome.unsure,
            prompts: session.prompts(),
            model: self.settings.model.clone(),
            rounds: outcome.rounds,
            calls: session.calls(),
            tokens: session.tokens(),
            failure: failure.clone(),
            answer: outcome.answer.clone(),
        };
        Parsed { answer: outcome.answer, failure, transcript }
    }
}

/// What the checker said last.
fn rejected(rounds: &[claw_intents::proposer::Round]) -> String {
    let last = rounds.last().and_then(|round| round.faults.first());
    last.map_or_else(|| "its answers do not pass".to_owned(), |fault| format!("its answers do not pass: {fault}"))
}
