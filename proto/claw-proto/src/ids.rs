//! Typed, prefixed, time-ordered ids.
//!
//! An id is a prefix that names its kind and 128 bits in lower-case Crockford
//! base32 (26 characters). A mix-up therefore says "expected wl_…, got node_…"
//! instead of "not found". The 128 bits come from an injected [`IdSource`].

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters that 128 bits take in base32.
const ID_CHARS: usize = 26;

/// Where new ids come from. The server's source is time-ordered and random,
/// a test's is a counter; the core never makes one up by itself.
pub trait IdSource {
    /// The next 128 bits, never twice the same.
    fn next_bits(&mut self) -> u128;
}

/// A counting source for tests and simulation: same seed, same ids.
#[derive(Debug, Clone)]
pub struct CountingIds {
    next: u128,
}

impl CountingIds {
    /// Starts a sequence; sources with different `lane`s never collide.
    pub fn new(lane: u32) -> Self {
        Self { next: (u128::from(lane) << 96) | 1 }
    }
}

impl IdSource for CountingIds {
    fn next_bits(&mut self) -> u128 {
        let bits = self.next;
        self.next += 1;
        bits
    }
}

/// Builds 128 time-ordered bits: 48 bits of milliseconds, 80 bits of randomness.
pub fn time_ordered_bits(unix_ms: i64, random: u128) -> u128 {
    let time = u128::from(unix_ms.max(0).unsigned_abs()) & 0xffff_ffff_ffff;
    (time << 80) | (random & ((1 << 80) - 1))
}

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The prefix is that of another kind, or none.
    #[error("expected an id like {expected}…, got {got:?}")]
    WrongPrefix {
        /// Prefix of the wanted kind.
        expected: &'static str,
        /// What was given, cut to 64 characters.
        got: String,
    },
    /// The part after the prefix is not 26 base32 characters of 128 bits.
    #[error("{got:?} is not a complete id: 26 characters of 0-9 a-z (without i, l, o, u) follow {expected}")]
    Malformed {
        /// Prefix of the wanted kind.
        expected: &'static str,
        /// What was given, cut to 64 characters.
        got: String,
    },
}

/// Longest id: a prefix and the characters of its bits.
const ID_TEXT_MAX: usize = 32;

/// An id as text, written into `text`.
fn encode<'a>(prefix: &str, bits: u128, text: &'a mut [u8; ID_TEXT_MAX]) -> &'a str {
    let (start, end) = (prefix.len(), prefix.len() + ID_CHARS);
    text[..start].copy_from_slice(prefix.as_bytes());
    let mut rest = bits;
    for place in text[start..end].iter_mut().rev() {
        *place = ALPHABET[(rest & 31) as usize];
        rest >>= 5;
    }
    std::str::from_utf8(&text[..end]).unwrap_or_default()
}

fn decode(prefix: &'static str, text: &str) -> Result<u128, IdError> {
    let cut = || text.chars().take(64).collect::<String>();
    let Some(rest) = text.strip_prefix(prefix) else {
        return Err(IdError::WrongPrefix { expected: prefix, got: cut() });
    };
    let malformed = || IdError::Malformed { expected: prefix, got: cut() };
    if rest.len() != ID_CHARS {
        return Err(malformed());
    }
    let mut bits: u128 = 0;
    for (place, byte) in rest.bytes().enumerate() {
        let digit = ALPHABET.iter().position(|c| *c == byte).ok_or_else(malformed)?;
        // 26 × 5 = 130 bits: the first character may carry three only.
        if place == 0 && digit > 7 {
            return Err(malformed());
        }
        bits = (bits << 5) | digit as u128;
    }
    Ok(bits)
}

/// Declares id kinds; alphabetical and append-only.
macro_rules! typed_ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        // Two words and not one number: what holds a number of 128 bits is aligned to 16 bytes, which
        // costs room in every map and every entry.
        pub struct $name { upper: u64, lower: u64 }

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = {
                assert!($prefix.len() + ID_CHARS <= ID_TEXT_MAX, "a prefix is too long");
                $prefix
            };
            /// Makes the next id of this kind.
            pub fn next(source: &mut dyn IdSource) -> Self { Self::from_bits(source.next_bits()) }
            /// The id of these bits.
            #[expect(clippy::cast_possible_truncation, reason = "each takes its half")]
            pub const fn from_bits(bits: u128) -> Self { Self { upper: (bits >> 64) as u64, lower: bits as u64 } }
            /// The bits of this id.
            pub const fn bits(self) -> u128 { (self.upper as u128) << 64 | self.lower as u128 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(encode(Self::PREFIX, self.bits(), &mut [0; ID_TEXT_MAX]))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(encode(Self::PREFIX, self.bits(), &mut [0; ID_TEXT_MAX]))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> { decode($prefix, text).map(Self::from_bits) }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(encode(Self::PREFIX, self.bits(), &mut [0; ID_TEXT_MAX]))
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $name {
            fn inline_schema() -> bool { true }
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": concat!("^", $prefix, "[0-9a-hjkmnp-tv-z]{26}$") })
            }
        }
    )*};
}

typed_ids! {
    /// A request for somebody's approval of a plan.
    ApprovalId = "apr_";
    /// One fault of ours, to be found again in the gateway's log.
    FaultId = "fault_";
    /// An API key (its public half).
    KeyId = "key_";
    /// A node of the fleet.
    NodeId = "node_";
    /// One accepted mutation and what became of it.
    OperationId = "op_";
    /// A stored plan.
    PlanId = "plan_";
    /// A tenant.
    TenantId = "ten_";
    /// An enrolment token (its public half).
    TokenId = "tok_";
    /// A workload.
    WorkloadId = "wl_";
}

/// A GPU's UUID as its driver reports it (`GPU-…`); the ledger's unit of allocation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct GpuUuid(pub String);

impl fmt::Display for GpuUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which try at running a workload: 1 for the first, and so on. Only the
/// current attempt of a workload is adopted; any other is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Attempt(pub u32);

/// The version of a node's desired state. The epoch rises durably at each
/// gateway start, `n` with each change; a node refuses what is older than it saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Generation {
    /// The gateway's epoch.
    pub epoch: u64,
    /// Count of changes within the epoch.
    pub n: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_form_roundtrips_and_keeps_order(a: u128, b: u128) {
            let (ia, ib) = (WorkloadId::from_bits(a), WorkloadId::from_bits(b));
            prop_assert_eq!(ia.to_string().parse::<WorkloadId>().unwrap(), ia);
            prop_assert_eq!(ia.to_string().cmp(&ib.to_string()), a.cmp(&b));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,80}") {
            let _ = text.parse::<NodeId>();
        }
    }

    #[test]
    fn a_mix_up_names_both_kinds() {
        let node = NodeId::from_bits(7).to_string();
        let error = node.parse::<WorkloadId>().unwrap_err().to_string();
        assert_eq!(error, "expected an id like wl_…, got \"node_00000000000000000000000007\"");
    }
}
