//! Why a model counts for nothing, as a code with what to do next.

use claw_proto::closed_enum;
use serde::Serialize;

closed_enum! {
    /// What went wrong.
    FailureCode {
        /// Nobody answers at the endpoint.
        Unreachable = "llm_unreachable",
        /// No answer in time.
        TimedOut = "llm_timed_out",
        /// The endpoint wants to be asked later than there is time for.
        Busy = "llm_busy",
        /// The endpoint does not take the key.
        Denied = "llm_denied",
        /// The endpoint points elsewhere; that is not followed.
        Redirected = "llm_redirected",
        /// The endpoint answers with another error.
        Failing = "llm_failing",
        /// The answer, or the request, has more bytes or tokens than is allowed.
        TooLarge = "llm_too_large",
        /// The answer broke off.
        Cut = "llm_cut",
        /// Not the answer of an OpenAI-compatible endpoint.
        Foreign = "llm_foreign",
        /// The model declines.
        Declined = "llm_declined",
        /// Nothing that the model says passes the checker.
        Rejected = "llm_rejected",
        /// The model asks back.
        Asked = "llm_asked"
    }
}

impl FailureCode {
    /// A failure with this code.
    pub fn because(self, message: impl Into<String>) -> Failure {
        Failure { code: self, message: message.into(), next: self.next() }
    }

    /// What a person can do.
    const fn next(self) -> &'static str {
        match self {
            Self::Unreachable => "check the URL and whether the endpoint runs; the grammar's answer stands",
            Self::TimedOut => "allow more time, or use a faster model; the grammar's answer stands",
            Self::Busy => "ask again later; the grammar's answer stands",
            Self::Denied => "give a key that the endpoint takes; the grammar's answer stands",
            Self::Redirected => "set the URL that it points to, if you trust it; the grammar's answer stands",
            Self::Failing => "look at the endpoint's log, and at the name of the model; the grammar's answer stands",
            Self::TooLarge => "use a model that answers briefly, or ask in fewer words; the grammar's answer stands",
            Self::Cut => "ask again; the grammar's answer stands",
            Self::Foreign => "is this the base URL of an OpenAI-compatible API (…/v1)? The grammar's answer stands",
            Self::Declined | Self::Rejected | Self::Asked => "say it in other words; the grammar's answer stands",
        }
    }
}

/// Why a model counts for nothing. The answer is the grammar's own then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{code}: {message}; {next}")]
pub struct Failure {
    /// As a code.
    pub code: FailureCode,
    /// For a person; without the key, whatever the endpoint said.
    pub message: String,
    /// What to do.
    pub next: &'static str,
}
