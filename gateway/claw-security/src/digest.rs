//! SHA-256 digests with a meaning: a certificate's fingerprint, a secret's hash.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::text::{excerpt, hex_to_32, write_hex};

/// What the text form of every digest begins with.
const PREFIX: &str = "sha256:";

/// The text is not `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected sha256: and 64 lower-case hex digits, got {got:?}")]
pub struct DigestParseError {
    /// What was given, cut to 64 characters.
    pub got: String,
}

/// Two kinds of digest with one form, which the compiler keeps apart.
macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The digest of these bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }
            /// A digest that was stored as bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// The digest's bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// Equality in a time that does not depend on where they differ.
            pub fn constant_time_eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PREFIX)?;
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestParseError;
            fn from_str(text: &str) -> Result<Self, DigestParseError> {
                text.strip_prefix(PREFIX)
                    .and_then(hex_to_32)
                    .map(Self)
                    .ok_or_else(|| DigestParseError { got: excerpt(text) })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

digest_type! {
    /// SHA-256 over a certificate's DER: what a join token pins. Public.
    /// Text form `sha256:<64 hex digits>`.
    Fingerprint
}

digest_type! {
    /// SHA-256 over a 256-bit random secret: what is stored of an API key or a
    /// join token. Not secret in the strict sense (it cannot be turned back), but
    /// there is no reason to show it. Text form `sha256:<64 hex digits>`.
    SecretHash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_form_is_that_of_sha256sum() {
        assert_eq!(
            Fingerprint::of(b"abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    proptest! {
        #[test]
        fn text_form_roundtrips(bytes: [u8; 32]) {
            let digest = SecretHash::from_bytes(bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }

        #[test]
        fn parsing_never_panics_and_accepts_the_canonical_form_only(text in "(sha256:)?[0-9a-fA-Fé]{0,70}") {
            if let Ok(digest) = text.parse::<Fingerprint>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
