//! Text forms of bytes, and which characters an identifier may have.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// Longest identifier accepted (an X.509 common name has at most 64 characters).
pub(crate) const ID_CHARS_MAX: usize = 64;

/// Whether `text` is an identifier such as `node_0c4…`: 1 to 64 characters of
/// `a`–`z`, `0`–`9` and `_`. Nothing in it needs escaping in a URI, a name of a
/// certificate or a key's text form.
pub(crate) fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ID_CHARS_MAX
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// `text` cut to a length that is fit for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(ID_CHARS_MAX).collect()
}

/// Writes bytes as lower-case hex.
pub(crate) fn write_hex(out: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

/// Bytes as lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    text
}

/// Exactly 32 bytes from exactly 64 characters of lower-case hex.
pub(crate) fn hex_to_32(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = (hex_digit(pair[0])? << 4) | hex_digit(pair[1])?;
    }
    Some(bytes)
}

fn hex_digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

/// Appends secret bytes as base64url without padding. `out` must have the room
/// already: a growing string would leave a copy of the secret behind.
pub(crate) fn push_base64url(out: &mut Zeroizing<String>, bytes: &[u8]) {
    debug_assert!(out.capacity() - out.len() >= base64url_chars(bytes.len()));
    URL_SAFE_NO_PAD.encode_string(bytes, out);
}

/// Characters that `n` bytes take in base64url without padding.
pub(crate) const fn base64url_chars(n: usize) -> usize {
    (n * 4).div_ceil(3)
}

/// Decodes base64url without padding, canonical form only (the unused bits of
/// the last character are zero), so that one secret has one text.
pub(crate) fn from_base64url(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    // decode_slice wants room for its estimate, which may exceed the result.
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let n = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(n);
    Some(bytes)
}
