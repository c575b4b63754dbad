//! What an operation says when it does not do what was asked.
//!
//! A *refusal* is expected and for the caller: code, field, what was got, what
//! is allowed, what to call next. A *fault* is ours or the world's and carries
//! an id that is found again in the gateway's log.

use claw_proto::closed_enum;
use claw_proto::ids::FaultId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

closed_enum! {
    /// Every refusal code; each has a page `tools/errors/<CODE>.md`.
    ErrorCode {
        /// Another person has to agree first.
        ApprovalRequired = "APPROVAL_REQUIRED",
        /// The plan was rejected.
        ApprovalDenied = "APPROVAL_DENIED",
        /// This principal may not approve this plan.
        ApprovalNotYours = "APPROVAL_NOT_YOURS",
        /// A name or description fits several things.
        Ambiguous = "AMBIGUOUS",
        /// The cursor's snapshot is gone.
        CursorExpired = "CURSOR_EXPIRED",
        /// The credential lacks the permission.
        Forbidden = "FORBIDDEN",
        /// The same `request_id` came with other arguments.
        IdempotencyConflict = "IDEMPOTENCY_CONFLICT",
        /// The words have more than one reading.
        IntentQuestion = "INTENT_QUESTION",
        /// The words cannot or must not be followed.
        IntentRefused = "INTENT_REFUSED",
        /// An argument does not fit its schema.
        InvalidArgument = "INVALID_ARGUMENT",
        /// The thing is not in a state in which this can be done.
        InvalidState = "INVALID_STATE",
        /// The journal cannot be written; reads go on.
        JournalUnavailable = "JOURNAL_UNAVAILABLE",
        /// The field or operation is not built.
        NotBuilt = "NOT_BUILT",
        /// No such thing.
        NotFound = "NOT_FOUND",
        /// The plan was applied already.
        PlanApplied = "PLAN_APPLIED",
        /// The plan is too old.
        PlanExpired = "PLAN_EXPIRED",
        /// The operation is tier 2 or 3 and must be planned first.
        PlanRequired = "PLAN_REQUIRED",
        /// Too many calls.
        RateLimited = "RATE_LIMITED",
        /// The gateway is stopping.
        ShuttingDown = "SHUTTING_DOWN",
        /// The specification has faults.
        SpecInvalid = "SPEC_INVALID",
        /// The fleet changed so that the plan would do something else.
        StalePlan = "STALE_PLAN",
        /// The token is unknown, used or expired.
        TokenInvalid = "TOKEN_INVALID",
        /// The input is over a limit.
        TooLarge = "TOO_LARGE",
        /// No valid credential.
        Unauthenticated = "UNAUTHENTICATED",
        /// Later operations stand in the way.
        UndoConflict = "UNDO_CONFLICT",
        /// It cannot be undone.
        UndoImpossible = "UNDO_IMPOSSIBLE",
        /// No such operation.
        UnknownTool = "UNKNOWN_TOOL"
    }
}

/// A call that makes sense next, ready to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct SuggestedCall {
    /// Name of the operation.
    pub tool: String,
    /// Its arguments.
    #[schemars(with = "serde_json::Map<String, Value>")]
    pub args: Value,
}

impl SuggestedCall {
    /// A call of `tool` with `args`.
    pub fn new(tool: &str, args: Value) -> Self {
        Self { tool: tool.to_owned(), args }
    }
}

/// An expected "no", for the caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// Which.
    pub code: ErrorCode,
    /// For people and models.
    pub message: String,
    /// Path of the argument at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
    /// What is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// Nearest name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<String>,
    /// The same call may succeed later.
    pub retryable: bool,
    /// Facts behind the refusal.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub evidence: Value,
    /// What to call next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<SuggestedCall>,
}

impl Refusal {
    /// A refusal with a message; the rest is added by the `with_…` methods.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            got: None,
            allowed: Vec::new(),
            did_you_mean: None,
            retryable: matches!(code, ErrorCode::JournalUnavailable | ErrorCode::RateLimited | ErrorCode::ShuttingDown),
            evidence: Value::Null,
            next: Vec::new(),
        }
    }
    /// Names the argument at fault and what it was; nothing was given if `got` is empty.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>, got: impl Into<String>) -> Self {
        self.field = Some(field.into());
        let got: String = got.into();
        self.got = (!got.is_empty()).then(|| crate::outcome::clip(&got, 200));
        self
    }
    /// Lists what is allowed.
    #[must_use]
    pub fn with_allowed(mut self, allowed: impl IntoIterator<Item = String>) -> Self {
        self.allowed = allowed.into_iter().collect();
        self
    }
    /// Names the nearest known thing.
    #[must_use]
    pub fn with_nearest(mut self, nearest: Option<String>) -> Self {
        self.did_you_mean = nearest;
        self
    }
    /// Adds facts.
    #[must_use]
    pub fn with_evidence(mut self, evidence: Value) -> Self {
        self.evidence = evidence;
        self
    }
    /// Adds a next call.
    #[must_use]
    pub fn with_next(mut self, tool: &str, args: Value) -> Self {
        self.next.push(SuggestedCall::new(tool, args));
        self
    }
    /// Says that the same call may succeed later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

/// A fault of ours or of the world, not of the caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// To be found in the gateway's log.
    pub fault_id: FaultId,
    /// For people and models; no internals.
    pub message: String,
    /// The same call may succeed later.
    pub retryable: bool,
}
