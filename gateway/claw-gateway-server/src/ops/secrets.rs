//! Credentials that an operation makes: the secret is made here, its hash goes
//! to the core, and the text is shown once.

use claw_security::auth::ApiKey;
use claw_security::pki::JoinToken;
use claw_tools::outcome::{EffectKind, Outcome};
use claw_tools::refusal::Fault;

use super::OpsContext;

/// Stands for the id that the core will choose.
const NOT_YET: &str = "unnamed";

/// A secret without its id.
pub(super) enum Fresh {
    /// For `api_key_create`.
    Key(ApiKey),
    /// For `node_token_create`.
    Token(JoinToken),
}

impl Fresh {
    /// The secret that an operation of this name needs, if it makes a credential.
    pub(super) fn for_tool(ops: &OpsContext, tool: &str) -> Result<Option<Self>, Fault> {
        let fault = |error: &dyn std::error::Error| ops.control.fault("no secret could be made", error);
        match tool {
            "api_key_create" => ApiKey::generate(NOT_YET).map(|k| Some(Self::Key(k))).map_err(|e| fault(&e)),
            "node_token_create" => JoinToken::generate(NOT_YET, ops.authorities.server().ca_fingerprint())
                .map(|t| Some(Self::Token(t)))
                .map_err(|e| fault(&e)),
            _ => Ok(None),
        }
    }

    /// What is stored of it.
    pub(super) fn hash(&self) -> String {
        match self {
            Self::Key(key) => key.hash().to_string(),
            Self::Token(token) => token.hash_secret().to_string(),
        }
    }

    /// Puts the text into the answer, with the id that the core chose.
    pub(super) fn show(self, outcome: &mut Outcome) {
        let Some(credential) = outcome.credential.as_mut() else { return };
        let text = match self {
            Self::Key(key) => key.with_id(&credential.id).map(|k| k.to_text()).ok(),
            Self::Token(token) => token.with_id(&credential.id).map(|t| t.to_text()).ok(),
        };
        credential.secret = text.map(|t| t.to_string());
    }
}

/// A plan has no secret yet, and a repeated answer has none any more: says what to do.
pub(super) fn explain_missing(outcome: &mut Outcome) {
    let is_plan = outcome.effect == EffectKind::Planned;
    let Some(credential) = outcome.credential.as_mut().filter(|credential| credential.secret.is_none()) else { return };
    credential.usage = if is_plan {
        "the secret is made and shown when the plan is applied".into()
    } else {
        format!(
            "the secret of {} was shown once, in the first answer; if that was lost, revoke it and make another",
            credential.id
        )
    };
}
