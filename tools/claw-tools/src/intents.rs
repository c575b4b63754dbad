//! Requests in words: what they mean, before anything is done.

use claw_proto::closed_enum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::outcome::Assumption;
use crate::refusal::SuggestedCall;

closed_enum! {
    /// What became of a request in words.
    IntentOutcome {
        /// Understood in full.
        Intent = "intent",
        /// A person must choose.
        Question = "question",
        /// Must not or cannot be done.
        Refusal = "refusal"
    }
}
closed_enum! {
    /// Where a field of an intent comes from.
    IntentSourceKind {
        /// The request's own words.
        Text = "text",
        /// The catalogue of models.
        Catalogue = "catalogue",
        /// The live fleet.
        Context = "context",
        /// A default, also stated as an assumption.
        Default = "default",
        /// A language model proposed it and the checker let it pass; also stated as an assumption.
        Model = "model"
    }
}

/// Understand a request in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntentParseParams {
    /// The request, such as "Run Llama 70B on 4 H100s".
    pub text: String,
}

/// Where one field comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct IntentSource {
    /// Dotted field of the intent.
    pub field: String,
    /// Its source.
    pub source: IntentSourceKind,
    /// The words that gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
}

/// Something that a person must decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct IntentQuestion {
    /// Dotted field that is unclear.
    pub field: String,
    /// The question.
    pub prompt: String,
    /// Answers to choose from; empty if any answer will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// What a request in words means. Nothing was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IntentParsed {
    /// Intent, question or refusal.
    pub outcome: IntentOutcome,
    /// What is to be done: an action and its fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, Value>>")]
    pub intent: Option<Value>,
    /// The intent in one English sentence, for a person to approve: it is read as the same intent. Absent where no
    /// words say every field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said_back: Option<String>,
    /// What was assumed because the words do not say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumptions: Vec<Assumption>,
    /// Where each field comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provenance: Vec<IntentSource>,
    /// Fields of the intent that cost money or hold capacity: read these before you approve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub costs: Vec<String>,
    /// What a person must decide first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<IntentQuestion>,
    /// Why it is refused, as a code: `does_not_fit`, `contradictory`, `unsupported`, `unsafe` or `empty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The calls that carry it out, ready to be made; none if no operation does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<SuggestedCall>,
}
