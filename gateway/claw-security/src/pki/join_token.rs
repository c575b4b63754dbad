//! Join tokens: what an operator hands to a new node.
//!
//! One line of text that carries everything a node needs to trust the gateway and
//! to be let in once: which token it is, its secret, and the fingerprint of the
//! authority that the gateway's certificate must come from.
//!
//! ```text
//! clawjoin.v1.<base64url without padding of>
//!   1 byte    n, the length of the token's id
//!   n bytes   the token's id, ASCII
//!   32 bytes  the secret
//!   32 bytes  SHA-256 of the authority's certificate (DER)
//!   4 bytes   checksum: the first bytes of SHA-256("clawjoin.v1." + all bytes before)
//! ```

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::digest::{Fingerprint, SecretHash};
use crate::secret::{RandomnessError, Secret};
use crate::text::{ID_CHARS_MAX, base64url_chars, excerpt, from_base64url, is_identifier, push_base64url};

/// What the text of every join token begins with; scanners for leaked secrets
/// look for it.
const PREFIX: &str = "clawjoin.v1.";
const CHECKSUM_BYTES: usize = 4;
const FINGERPRINT_BYTES: usize = 32;
const PAYLOAD_BYTES_MAX: usize = 1 + ID_CHARS_MAX + Secret::BYTES + FINGERPRINT_BYTES + CHECKSUM_BYTES;
/// Longest text of a join token.
const TEXT_CHARS_MAX: usize = PREFIX.len() + base64url_chars(PAYLOAD_BYTES_MAX);

/// Why a text is not a join token, or a token cannot be made. Never shows the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// It does not begin like one, or is too long to be one.
    #[error("not a join token: one begins with clawjoin.v1.")]
    NotToken,
    /// It begins like one but was cut, mistyped or altered.
    #[error("the join token is damaged; copy it again, whole")]
    Damaged,
    /// The id for a new token has characters that cannot stand in one.
    #[error("{got:?} is not a token id (lower-case letters, digits and _, at most 64 characters)")]
    TokenId {
        /// What was given, cut to 64 characters.
        got: String,
    },
    /// No randomness for the secret.
    #[error(transparent)]
    Randomness(#[from] RandomnessError),
}

/// A one-time permission to enroll one node. Holds a secret: wiped when dropped,
/// redacted in `Debug`, no `Display`.
pub struct JoinToken {
    token_id: String,
    secret: Secret,
    ca_fingerprint: Fingerprint,
}

impl JoinToken {
    /// Makes a token with a fresh secret. `token_id` is its public half.
    ///
    /// # Errors
    /// [`JoinTokenError::TokenId`], [`JoinTokenError::Randomness`].
    pub fn generate(token_id: &str, ca_fingerprint: Fingerprint) -> Result<Self, JoinTokenError> {
        if !is_identifier(token_id) {
            return Err(JoinTokenError::TokenId { got: excerpt(token_id) });
        }
        Ok(Self { token_id: token_id.to_owned(), secret: Secret::generate()?, ca_fingerprint })
    }

    /// The same secret under another id: the one that was chosen after the
    /// secret had to exist.
    ///
    /// # Errors
    /// [`JoinTokenError::TokenId`].
    pub fn with_id(mut self, token_id: &str) -> Result<Self, JoinTokenError> {
        if !is_identifier(token_id) {
            return Err(JoinTokenError::TokenId { got: excerpt(token_id) });
        }
        token_id.clone_into(&mut self.token_id);
        Ok(self)
    }

    /// Reads a token's text. White space around it is ignored, as it comes with
    /// copying from a terminal.
    ///
    /// # Errors
    /// [`JoinTokenError::NotToken`], [`JoinTokenError::Damaged`].
    pub fn parse(text: &str) -> Result<Self, JoinTokenError> {
        let text = text.trim_ascii();
        let encoded = text.strip_prefix(PREFIX).ok_or(JoinTokenError::NotToken)?;
        if text.len() > TEXT_CHARS_MAX {
            return Err(JoinTokenError::NotToken);
        }
        from_base64url(encoded).and_then(|payload| Self::from_payload(&payload)).ok_or(JoinTokenError::Damaged)
    }

    fn from_payload(payload: &[u8]) -> Option<Self> {
        let (body, sum) = payload.split_at_checked(payload.len().checked_sub(CHECKSUM_BYTES)?)?;
        if sum != checksum(body) {
            return None;
        }
        let (n, rest) = body.split_first()?;
        let (token_id, rest) = rest.split_at_checked(usize::from(*n))?;
        let (secret, fingerprint) = rest.split_at_checked(Secret::BYTES)?;
        let token_id = std::str::from_utf8(token_id).ok().filter(|id| is_identifier(id))?;
        Some(Self {
            token_id: token_id.to_owned(),
            secret: Secret::from_slice(secret)?,
            ca_fingerprint: Fingerprint::from_bytes(fingerprint.try_into().ok()?),
        })
    }

    /// The token's text. A secret: show it once, to the one who asked for it.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Room for the whole from the start: growing would leave copies behind.
        let mut payload = Zeroizing::new(Vec::with_capacity(PAYLOAD_BYTES_MAX));
        payload.push(u8::try_from(self.token_id.len()).expect("an identifier has at most 64 characters"));
        payload.extend_from_slice(self.token_id.as_bytes());
        payload.extend_from_slice(self.secret.expose());
        payload.extend_from_slice(self.ca_fingerprint.as_bytes());
        let sum = checksum(&payload);
        payload.extend_from_slice(&sum);
        let mut text = Zeroizing::new(String::with_capacity(TEXT_CHARS_MAX));
        text.push_str(PREFIX);
        push_base64url(&mut text, &payload);
        text
    }

    /// The token's id, its public half.
    pub fn token_id(&self) -> &str {
        &self.token_id
    }

    /// Fingerprint of the authority that the gateway's certificate must come from.
    pub fn ca_fingerprint(&self) -> Fingerprint {
        self.ca_fingerprint
    }

    /// What is stored of the secret.
    pub fn hash_secret(&self) -> SecretHash {
        self.secret.hash()
    }

    /// Whether this token's secret is the one that was stored, compared in
    /// constant time. Pass `None` for an unknown id: it takes as long to say no.
    pub fn verify(&self, stored: Option<&SecretHash>) -> bool {
        let decoy = SecretHash::from_bytes([0; 32]);
        let equal = self.hash_secret().constant_time_eq(stored.unwrap_or(&decoy));
        equal && stored.is_some()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token_id, secret, ca_fingerprint } = self;
        f.debug_struct("JoinToken")
            .field("token_id", token_id)
            .field("secret", secret)
            .field("ca_fingerprint", ca_fingerprint)
            .finish()
    }
}

/// Catches a cut or mistyped token before it is sent anywhere. It is no
/// protection against forgery: that is the secret's part.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 32] = Sha256::new().chain_update(PREFIX).chain_update(body).finalize().into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
