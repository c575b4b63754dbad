//! What was said: for a file of JSON lines, and for whoever replays it.

use claw_intents::proposer::{Round, Unsure};
use claw_intents::{Answer, Context};
use claw_prompts::Prompt;
use serde::Serialize;

use crate::failure::Failure;

/// A prompt, so that its very text can be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PromptUsed {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: u32,
    /// SHA-256 of its file.
    pub sha256: String,
}

impl From<Prompt> for PromptUsed {
    fn from(prompt: Prompt) -> Self {
        Self { name: prompt.name, version: prompt.version(), sha256: prompt.sha256() }
    }
}

/// One request and all that was said about it. The key is in none of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transcript {
    /// The request.
    pub request: String,
    /// What the engine could look up.
    pub context: Context,
    /// Why the model was asked; null if it was not.
    pub unsure: Option<Unsure>,
    /// The prompts that were used.
    pub prompts: Vec<PromptUsed>,
    /// The model's name.
    pub model: String,
    /// Its answers and what the checker said of each.
    pub rounds: Vec<Round>,
    /// How many calls were made.
    pub calls: u32,
    /// Tokens of all calls, as the endpoint counts them.
    pub tokens: u64,
    /// Why the model counts for nothing; null if its answer passed.
    pub failure: Option<Failure>,
    /// The answer that was given.
    pub answer: Answer,
}

impl Transcript {
    /// The transcript as one line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and lists are JSON") + "\n"
    }
}
