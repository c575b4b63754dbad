//! What every mutating operation takes and answers.

use std::sync::Arc;

use claw_proto::closed_enum;
use claw_proto::ids::{ApprovalId, NodeId, OperationId, PlanId, WorkloadId};
use claw_proto::time::Timestamp;
use claw_proto::validation::is_unprintable;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::Tier;
use crate::def::UndoClass;
use crate::refusal::SuggestedCall;

closed_enum! {
    /// Show or do.
    Mode { Plan = "plan", Apply = "apply" }
}

closed_enum! {
    /// What became of a request. `accepted` means durably decided, not done:
    /// `observed` says what is known to have happened.
    EffectKind {
        /// Durably decided.
        Accepted = "accepted",
        /// Stored as a plan; nothing was changed.
        Planned = "planned",
        /// Not done.
        Refused = "refused",
        /// Durably decided; it waits, for room or for what holds it back.
        Queued = "queued",
        /// It already was so.
        NoChange = "no_change"
    }
}

/// The common fields of a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Show or do.
    pub mode: Mode,
    /// The caller's idempotency key.
    pub request_id: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// How long to wait for the observed result, seconds.
    pub wait_s: u32,
}

/// What is known to have happened, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Observed {
    /// State, in the words of the thing changed.
    pub state: String,
    /// Since when.
    pub at: Timestamp,
}

/// A value that was not given and had to be chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Assumption {
    /// Path of the field.
    pub field: String,
    /// The value.
    #[schemars(schema_with = "crate::schema::any_json")]
    pub value: Value,
    /// Why this one.
    pub why: String,
}

/// One change of desired state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Change {
    /// What is changed: `workload wl_…`, `node node_…`.
    pub subject: String,
    /// Which field.
    pub field: String,
    /// Value before; empty if it was not there.
    pub from: String,
    /// Value after; empty if it is gone.
    pub to: String,
}

/// What a plan would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PlanView {
    /// Handle for `plan_apply`; valid until `expires_at`.
    pub plan_id: PlanId,
    /// Which operation it would be.
    pub tool: String,
    /// Changes of desired state, in canonical order.
    pub diff: Vec<Change>,
    /// SHA-256 of the canonical diff: what an approval is bound to.
    pub diff_hash: String,
    /// Workloads that would be stopped or moved.
    pub evicts: Vec<WorkloadId>,
    /// How much harm it can do, 0 to 3.
    pub tier: Tier,
    /// How it is undone.
    pub undo: UndoClass,
    /// What an undo would not restore.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub not_restored: String,
    /// Not applied after.
    pub expires_at: Timestamp,
    /// Approval that it waits for, if its tier needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_id: Option<ApprovalId>,
    /// What would be said on applying it.
    pub summary: String,
}

/// The answer of every mutating operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// What became of it.
    pub effect: EffectKind,
    /// One or two sentences.
    pub summary: String,
    /// Handle for `operation_get`, `operation_wait`, `undo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
    /// Workload concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_id: Option<WorkloadId>,
    /// Node concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// What is known to have happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// Nothing real was or will be run.
    pub simulated: bool,
    /// The plan, if one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanView>,
    /// Why here and not elsewhere, or why not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Arc<crate::workloads::PlacementReport>>,
    /// The command that it runs, and how that ended as far as it was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<crate::inside::ExecView>,
    /// The specification as understood, where words were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Arc<claw_proto::spec::WorkloadSpec>>,
    /// What was assumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumptions: Vec<Assumption>,
    /// An earlier operation that looks the same (no `request_id` was given).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possible_duplicate_of: Option<OperationId>,
    /// A new credential; shown this once and never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// What to call next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<SuggestedCall>,
}

impl Outcome {
    /// An outcome with a summary and nothing else.
    pub fn new(effect: EffectKind, summary: impl Into<String>) -> Self {
        Self {
            effect,
            summary: summary.into(),
            operation_id: None,
            workload_id: None,
            node_id: None,
            observed: None,
            simulated: false,
            plan: None,
            placement: None,
            exec: None,
            spec: None,
            assumptions: Vec::new(),
            possible_duplicate_of: None,
            credential: None,
            next: Vec::new(),
        }
    }
}

/// A credential that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Credential {
    /// Public half: id of the key or token.
    pub id: String,
    /// The text to hand over. Absent when an answer is repeated: it is shown only once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// How to use it.
    pub usage: String,
}

/// Cuts a text to so many characters and neutralizes control characters and those
/// that hide or reorder text, for text that came from outside.
pub fn clip(text: &str, chars_max: usize) -> String {
    // Most texts are short and plain: ASCII, and letters and signs up to U+00FF, whose first byte is this one.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | 0x80..=0xbf | 0xc3);
    // All are looked at, which is faster than to stop at one that is not.
    if text.len() <= chars_max && text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        return text.to_owned();
    }
    let plain = |c: char| if is_unprintable(c) { '\u{fffd}' } else { c };
    let mut out: String = text.chars().take(chars_max).map(plain).collect();
    if text.chars().nth(chars_max).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{clip, is_unprintable};

    #[test]
    fn what_hides_or_reorders_text_is_neutralized_and_long_text_is_cut() {
        assert_eq!(clip("a\u{202e}b\u{1b}[31m\u{200b}", 20), "a\u{fffd}b\u{fffd}[31m\u{fffd}");
        assert_eq!(clip("abcd", 3), "abc…");
        for c in '\0'..='\u{3000}' {
            let alone = if is_unprintable(c) { '\u{fffd}' } else { c };
            assert_eq!(clip(&c.to_string(), 9), alone.to_string());
        }
    }
}
