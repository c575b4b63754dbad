//! An answer as it is kept for retries.

use std::sync::Arc;

use claw_tools::outcome::Outcome;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// The JSON text of an outcome: written once, then shared by its event, the state and
/// snapshots, of which most answers are never read again.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct KeptOutcome(Arc<RawValue>);

impl KeptOutcome {
    /// Keeps an outcome.
    pub fn of(outcome: &Outcome) -> Self {
        let text = serde_json::value::to_raw_value(outcome);
        Self(text.expect("an outcome holds only maps with string keys and finite numbers").into())
    }

    /// The outcome.
    pub fn read(&self) -> Outcome {
        serde_json::from_str(self.0.get()).expect("it was an outcome when it was kept")
    }
}

impl PartialEq for KeptOutcome {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl<'de> Deserialize<'de> for KeptOutcome {
    /// Only what reads as an outcome is one, and its text is the one that this build writes.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Outcome::deserialize(from).map(|outcome| Self::of(&outcome))
    }
}
