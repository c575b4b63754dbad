//! The hash chain: every event commits to all before it.

use sha2::{Digest, Sha256};

use super::{Damage, DamageKind, Stored};

/// The hash before the first event.
pub(crate) const GENESIS: [u8; 32] = [0; 32];

/// Chain hash of one event on top of `prev`.
///
/// `sha256(prev ‖ seq ‖ epoch ‖ at_ms ‖ kind length ‖ kind ‖ version ‖ payload)`,
/// integers big-endian, the kind's length 32 bits wide, the version 16. The
/// payload stands last, so no two events share an encoding.
pub fn chain_hash(
    prev: &[u8; 32],
    seq: u64,
    epoch: u64,
    at_ms: i64,
    kind: &str,
    version: u16,
    payload: &[u8],
) -> [u8; 32] {
    let kind_len = u32::try_from(kind.len()).expect("a kind is at most KIND_BYTES_MAX bytes");
    Sha256::new()
        .chain_update(prev)
        .chain_update(seq.to_be_bytes())
        .chain_update(epoch.to_be_bytes())
        .chain_update(at_ms.to_be_bytes())
        .chain_update(kind_len.to_be_bytes())
        .chain_update(kind)
        .chain_update(version.to_be_bytes())
        .chain_update(payload)
        .finalize()
        .into()
}

/// Plain SHA-256 of the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Lowercase hexadecimal.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// The bytes of lowercase hexadecimal; `None` for anything else.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

/// Walks events in order and checks each against the chain.
#[derive(Debug, Clone)]
pub(crate) struct ChainWalk {
    /// Sequence of the last event walked over.
    pub(crate) seq: u64,
    /// Its chain hash.
    pub(crate) hash: [u8; 32],
    /// Its epoch.
    pub(crate) epoch: u64,
}

impl ChainWalk {
    /// Begins after event `seq` with chain hash `hash`.
    pub(crate) fn after(seq: u64, hash: [u8; 32]) -> Self {
        Self { seq, hash, epoch: 0 }
    }

    /// Takes the next event; the damage is named as one of `file`.
    pub(crate) fn step(&mut self, file: &str, event: &Stored) -> Result<(), Damage> {
        let seq = self.seq + 1;
        if event.seq != seq {
            let detail = format!("event {seq} should come next, event {} stands there", event.seq);
            return Err(Damage::new(file, DamageKind::SequenceGap, detail).beginning_at(seq));
        }
        let hash = chain_hash(&self.hash, seq, event.epoch, event.at_ms, &event.kind, event.version, &event.payload);
        if hash != event.hash {
            let detail = format!("event {seq} does not hash to what is stored with it");
            return Err(Damage::new(file, DamageKind::ChainBroken, detail).beginning_at(seq));
        }
        if event.epoch < self.epoch {
            let detail = format!("event {seq} of epoch {} follows epoch {}", event.epoch, self.epoch);
            return Err(Damage::new(file, DamageKind::ChainBroken, detail).beginning_at(seq));
        }
        *self = Self { seq, hash, epoch: event.epoch };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{GENESIS, chain_hash, to_hex};

    /// Values computed by another implementation: the chain is a format, not an accident.
    #[test]
    fn the_chain_hash_is_what_its_documentation_says() {
        let payload = br#"{"node":"node_1"}"#;
        let first = chain_hash(&GENESIS, 1, 3, 1_700_000_000_000, "node_registered", 1, payload);
        let second = chain_hash(&first, 2, 4, -5, "x", 300, b"");
        let expected = [
            "e5ffac78622ae564f27d590c8ea84ebbb958b726b8fa63fea9372ae65e25457f",
            "537ec98bda594738f24922392cacf5eb16853002f6d1b36ab1d741b59a31aba6",
        ];
        assert_eq!([first, second].map(|hash| to_hex(&hash)), expected);
    }
}
