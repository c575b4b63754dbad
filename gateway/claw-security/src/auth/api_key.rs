//! API keys: `clawkey_<key id>_<43 characters of base64url>`.

use std::fmt;

use zeroize::Zeroizing;

use crate::digest::SecretHash;
use crate::secret::{RandomnessError, Secret};
use crate::text::{ID_CHARS_MAX, base64url_chars, excerpt, from_base64url, is_identifier, push_base64url};

/// What the text of every API key begins with; scanners for leaked secrets look for it.
const PREFIX: &str = "clawkey_";
const SECRET_CHARS: usize = base64url_chars(Secret::BYTES);
/// Longest text of an API key.
const TEXT_CHARS_MAX: usize = PREFIX.len() + ID_CHARS_MAX + 1 + SECRET_CHARS;

/// Why a text is not an API key, or a key cannot be made. Never shows the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// It does not have the form of a key.
    #[error("not an API key: one has the form clawkey_<id>_<43 characters>")]
    Malformed,
    /// The id for a new key has characters that cannot stand in one.
    #[error("{got:?} is not a key id (lower-case letters, digits and _, at most 64 characters)")]
    KeyId {
        /// What was given, cut to 64 characters.
        got: String,
    },
    /// No randomness for the secret.
    #[error(transparent)]
    Randomness(#[from] RandomnessError),
}

/// An API key with its secret: wiped when dropped, redacted in `Debug`, no `Display`.
pub struct ApiKey {
    key_id: String,
    secret: Secret,
}

impl ApiKey {
    /// Makes a key with a fresh secret. `key_id` is its public half.
    ///
    /// # Errors
    /// [`ApiKeyError::KeyId`], [`ApiKeyError::Randomness`].
    pub fn generate(key_id: &str) -> Result<Self, ApiKeyError> {
        if !is_identifier(key_id) {
            return Err(ApiKeyError::KeyId { got: excerpt(key_id) });
        }
        Ok(Self { key_id: key_id.to_owned(), secret: Secret::generate()? })
    }

    /// The same secret under another id: the one that was chosen after the
    /// secret had to exist.
    ///
    /// # Errors
    /// As [`ApiKey::generate`].
    pub fn with_id(mut self, key_id: &str) -> Result<Self, ApiKeyError> {
        if !is_identifier(key_id) {
            return Err(ApiKeyError::KeyId { got: excerpt(key_id) });
        }
        key_id.clone_into(&mut self.key_id);
        Ok(self)
    }

    /// Reads a key's text.
    ///
    /// # Errors
    /// [`ApiKeyError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, ApiKeyError> {
        Self::parse_form(text).ok_or(ApiKeyError::Malformed)
    }

    fn parse_form(text: &str) -> Option<Self> {
        if text.len() > TEXT_CHARS_MAX {
            return None;
        }
        let rest = text.strip_prefix(PREFIX)?;
        // The secret may contain `_` too, so it is found by its length, not by a search.
        let (head, secret) = rest.split_at_checked(rest.len().checked_sub(SECRET_CHARS)?)?;
        let key_id = head.strip_suffix('_').filter(|id| is_identifier(id))?;
        Some(Self { key_id: key_id.to_owned(), secret: Secret::from_slice(&from_base64url(secret)?)? })
    }

    /// The key's text. A secret: show it once, to the one who asked for it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_CHARS_MAX));
        text.push_str(PREFIX);
        text.push_str(&self.key_id);
        text.push('_');
        push_base64url(&mut text, self.secret.expose());
        text
    }

    /// The key's id, its public half.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// What is stored of the key.
    pub fn hash(&self) -> SecretHash {
        self.secret.hash()
    }

    /// Whether this key is the one that was stored, compared in constant time.
    pub fn verify(&self, stored: &SecretHash) -> bool {
        self.hash().constant_time_eq(stored)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key_id, secret } = self;
        f.debug_struct("ApiKey").field("key_id", key_id).field("secret", secret).finish()
    }
}
