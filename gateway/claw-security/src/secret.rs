//! A 256-bit secret in memory: wiped when dropped, never printed.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::digest::SecretHash;

/// The operating system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no randomness: {reason}")]
pub struct RandomnessError {
    reason: getrandom::Error,
}

/// Fills `bytes` with randomness of the operating system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), RandomnessError> {
    getrandom::fill(bytes).map_err(|reason| RandomnessError { reason })
}

/// 256 random bits that nobody may see. No `Clone`, no `PartialEq`: it is
/// compared by its hash, in constant time.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret([u8; Self::BYTES]);

impl Secret {
    /// Size of a secret.
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn generate() -> Result<Self, RandomnessError> {
        let mut secret = Self([0; Self::BYTES]);
        fill_random(&mut secret.0)?;
        Ok(secret)
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// What is stored of it.
    ///
    /// One round of SHA-256 and no slow password hash: the input is 256 bits of
    /// true randomness, so there is nothing to guess, with or without a slow
    /// hash, and every request can be checked in a microsecond.
    pub(crate) fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
