//! From a request's `Authorization` header to its caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::time::Timestamp;
use claw_tools::access::{PrincipalKind, Role};

use super::{ApiKey, AuthContext};
use crate::digest::SecretHash;

/// Longest `Authorization` header looked at.
pub const HEADER_BYTES_MAX: usize = 256;

/// The scheme of the header, in any case (RFC 9110).
const SCHEME: &[u8] = b"Bearer ";

/// What is stored of an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Hash of the secret.
    pub hash: SecretHash,
    /// What the key may do.
    pub role: Role,
    /// A person's key or a program's.
    pub kind: PrincipalKind,
    /// Whom the key was made for.
    pub principal: String,
    /// Whether the key was taken back.
    pub revoked: bool,
    /// From when on the key counts no more; `None` is never.
    pub expires_at: Option<Timestamp>,
}

/// Why a request has no caller. The answer to all of them is 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No header, or an empty one.
    #[error("no credentials; send the header Authorization: Bearer <api key>")]
    Missing,
    /// The header does not have the form of one with an API key.
    #[error("the credentials are not an API key; send the header Authorization: Bearer clawkey_…")]
    Malformed,
    /// There is no such key, or its secret is another. Deliberately not told apart.
    #[error("the API key is not valid")]
    Invalid,
    /// The key is right but was taken back. Told only to who holds its secret.
    #[error("the API key {key_id} was revoked")]
    Revoked {
        /// The key's id.
        key_id: String,
    },
    /// The key is right but its time is over. Told only to who holds its secret.
    #[error("the API key {key_id} expired at {at}")]
    Expired {
        /// The key's id.
        key_id: String,
        /// When it did.
        at: Timestamp,
    },
}

/// Checks API keys against a snapshot of the stored ones. A value, cheap to clone;
/// when keys change, the caller makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Authenticator {
    keys: Arc<BTreeMap<String, StoredKey>>,
}

impl Authenticator {
    /// An authenticator over these keys, by key id.
    pub fn new(keys: impl Into<Arc<BTreeMap<String, StoredKey>>>) -> Self {
        Self { keys: keys.into() }
    }

    /// The caller of a request. `header_value` is the value of its `Authorization`
    /// header, empty if there is none.
    ///
    /// # Errors
    /// [`AuthError`]; none of them says whether a key id exists to someone who does
    /// not hold its secret.
    pub fn authenticate(&self, header_value: &[u8], now: Timestamp) -> Result<AuthContext, AuthError> {
        let key = key_in_header(header_value);
        let stored = key.as_ref().ok().and_then(|key| self.keys.get(key.key_id()));
        // One hash and one comparison on every path: how long the answer takes
        // does not say how far the check came. Nothing hashes to the decoy.
        let decoy = SecretHash::from_bytes([0; 32]);
        let presented = key.as_ref().map_or_else(|_| SecretHash::of(&[0; 32]), ApiKey::hash);
        let equal = presented.constant_time_eq(stored.map_or(&decoy, |stored| &stored.hash));

        let key = key?;
        let stored = stored.filter(|_| equal).ok_or(AuthError::Invalid)?;
        let key_id = key.key_id().to_owned();
        if stored.revoked {
            return Err(AuthError::Revoked { key_id });
        }
        if let Some(at) = stored.expires_at.filter(|at| *at <= now) {
            return Err(AuthError::Expired { key_id, at });
        }
        Ok(AuthContext { principal: stored.principal.clone(), key_id, role: stored.role, kind: stored.kind })
    }
}

fn key_in_header(header_value: &[u8]) -> Result<ApiKey, AuthError> {
    if header_value.is_empty() {
        return Err(AuthError::Missing);
    }
    if header_value.len() > HEADER_BYTES_MAX {
        return Err(AuthError::Malformed);
    }
    let (scheme, text) = header_value.split_at_checked(SCHEME.len()).ok_or(AuthError::Malformed)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(AuthError::Malformed);
    }
    let text = std::str::from_utf8(text.trim_ascii()).map_err(|_| AuthError::Malformed)?;
    ApiKey::parse(text).map_err(|_| AuthError::Malformed)
}
