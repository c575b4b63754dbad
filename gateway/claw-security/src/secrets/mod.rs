//! # claw-secrets: values at rest
//!
//! A value is sealed (ChaCha20-Poly1305, RFC 8439) before it leaves the call that
//! brought it: journal, plans, snapshots and copies of the database hold only what
//! the key beside them opens. The handle is bound to the value, so that a sealed
//! value that is put in another's place does not open.
//!
//! Who may use a secret is an [`AccessPolicy`]; the core decides by it.

mod key;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
pub use claw_tools::secrets::AccessPolicy;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

pub use key::{SecretKey, SecretKeyError};

use crate::secret::{RandomnessError, fill_random};

/// Form of a sealed value: this byte, the nonce, the ciphertext with its tag.
const FORM: u8 = 1;

/// Why a value cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No nonce.
    #[error(transparent)]
    Randomness(#[from] RandomnessError),
    /// The cipher did not take it.
    #[error("the value cannot be sealed")]
    Cipher,
}

/// Why a sealed value cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not the form that this version writes.
    #[error("the sealed value has an unknown form")]
    Form,
    /// It was sealed with another key or for another handle, or was changed.
    #[error("the sealed value does not open: its key is not the one in the data folder, or it was changed")]
    Refused,
}

/// Seals and opens values with the key of this cluster.
pub struct SecretStore {
    key: LessSafeKey,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretStore([redacted])")
    }
}

impl SecretStore {
    /// A store with this key.
    ///
    /// # Panics
    /// Never: the key has the cipher's length.
    pub fn new(key: &SecretKey) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.expose()).expect("a key of the cipher's length");
        Self { key: LessSafeKey::new(key) }
    }

    /// The sealed form of a value, base64.
    ///
    /// Nonces are random: 96 bits are enough for 2³² values of one key (RFC 8439
    /// §4 and NIST SP 800-38D §8.3 bound the same construction).
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, handle: &str, value: &[u8]) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + value.len() + CHACHA20_POLY1305.tag_len());
        sealed.push(FORM);
        sealed.extend_from_slice(&nonce);
        let mut text = Zeroizing::new(value.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(handle.as_bytes()), &mut text)
            .map_err(|_| SealError::Cipher)?;
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(tag.as_ref());
        Ok(STANDARD.encode(sealed))
    }

    /// The value of a sealed form.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, handle: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let sealed = Zeroizing::new(STANDARD.decode(sealed).map_err(|_| OpenError::Form)?);
        let Some((&FORM, rest)) = sealed.split_first() else { return Err(OpenError::Form) };
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(OpenError::Form)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Form)?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = self.key.open_in_place(nonce, Aad::from(handle.as_bytes()), &mut text);
        let n_bytes = opened.map_err(|_| OpenError::Refused)?.len();
        text.truncate(n_bytes);
        Ok(text)
    }
}
