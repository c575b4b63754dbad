//! Frames of a segment file, each with its own checksum.
//!
//! ```text
//! file   = "CLAWLOG1" | nonce u64, three times | frame*
//! frame  = marker u32 | body length u32 | crc32 u32 | body
//! body   = 1 | seq u64 | at_ms i64 | order_ms i64 | bytes             a line
//!        | 2 | first_seq u64 | n_lost u64                             a gap that the node declared
//!        | 3 | first_seq u64 | last_seq u64 | n_lines u64 | order_ms  the footer of a sealed file
//! ```
//!
//! The checksum begins with that of the stream's name and the file's nonce, so a
//! frame in the wrong file is no frame, and a workload cannot print one: its
//! output is inside frames, and it does not know the nonce. After damage the scan goes on at the next marker whose
//! checksum holds: what is readable is read, what is missing shows as a hole in
//! the sequence.

use std::hash::{BuildHasher as _, RandomState};

use super::{Gap, LogKey, LogLine};

const FILE_MAGIC: &[u8; 8] = b"CLAWLOG1";
/// Size of what stands before the first frame.
pub(super) const FILE_HEAD_BYTES: usize = 32;
/// Most bytes of a body that a scan believes in.
pub(super) const BODY_BYTES_MAX: usize = super::LINE_BYTES_CEILING + 25;
const MARKER: [u8; 4] = [0xC1, 0xA3, 0x0F, 0x52];
const HEAD_BYTES: usize = 12;
const KIND_LINE: u8 = 1;
const KIND_GAP: u8 = 2;
const KIND_FOOTER: u8 = 3;
const FOOTER_BODY_BYTES: usize = 33;
/// Size of the footer frame at the end of a sealed file.
pub(super) const FOOTER_BYTES: usize = HEAD_BYTES + FOOTER_BODY_BYTES;

/// What a sealed file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) n_lines: u64,
    pub(super) order_ms: i64,
}

/// One decoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Line { seq: u64, at_ms: i64, order_ms: i64, bytes: &'a [u8] },
    Gap(Gap),
    Footer(Footer),
}

/// The head of a new file.
pub(super) fn file_head(nonce: u64) -> [u8; FILE_HEAD_BYTES] {
    let mut head = [0; FILE_HEAD_BYTES];
    head[..8].copy_from_slice(FILE_MAGIC);
    for copy in head[8..].chunks_exact_mut(8) {
        copy.copy_from_slice(&nonce.to_be_bytes());
    }
    head
}

/// A number that the workloads, whose output the file will hold, cannot guess.
pub(super) fn new_nonce() -> u64 {
    RandomState::new().hash_one(0)
}

/// The nonce in a file's head: what two of its three copies say.
pub(super) fn nonce_of(content: &[u8]) -> Option<u64> {
    let copies = content.get(8..FILE_HEAD_BYTES)?;
    let (first, rest) = take_u64(copies)?;
    let (second, rest) = take_u64(rest)?;
    let (third, _) = take_u64(rest)?;
    if first == second || first == third {
        return Some(first);
    }
    (second == third).then_some(second)
}

/// The checksum that every frame of a file begins with.
pub(super) fn seed(key: &LogKey, nonce: u64) -> u32 {
    let name = format!("{}/{}/{}/{nonce}", key.workload, key.attempt, key.stream);
    crc32fast::hash(name.as_bytes())
}

fn crc(seed: u32, len: [u8; 4], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&len);
    hasher.update(body);
    hasher.finalize()
}

fn push(out: &mut Vec<u8>, seed: u32, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len).expect("a body is at most BODY_BYTES_MAX bytes");
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&len.to_be_bytes());
    let crc_at = out.len();
    out.extend_from_slice(&[0; 4]);
    for part in parts {
        out.extend_from_slice(part);
    }
    let sum = crc(seed, len.to_be_bytes(), &out[crc_at + 4..]);
    out[crc_at..crc_at + 4].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn push_line(out: &mut Vec<u8>, seed: u32, line: &LogLine, order_ms: i64) {
    let parts: [&[u8]; 5] =
        [&[KIND_LINE], &line.seq.to_be_bytes(), &line.at_ms.to_be_bytes(), &order_ms.to_be_bytes(), &line.bytes];
    push(out, seed, &parts);
}

pub(super) fn push_gap(out: &mut Vec<u8>, seed: u32, gap: Gap) {
    let parts: [&[u8]; 3] = [&[KIND_GAP], &gap.first_seq.to_be_bytes(), &gap.n_lost.to_be_bytes()];
    push(out, seed, &parts);
}

pub(super) fn push_footer(out: &mut Vec<u8>, seed: u32, footer: Footer) {
    let parts: [&[u8]; 5] = [
        &[KIND_FOOTER],
        &footer.first_seq.to_be_bytes(),
        &footer.last_seq.to_be_bytes(),
        &footer.n_lines.to_be_bytes(),
        &footer.order_ms.to_be_bytes(),
    ];
    push(out, seed, &parts);
}

/// The frame at the beginning of `bytes` and its size; `None` when there is no sound one.
fn decode(seed: u32, bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let rest = bytes.strip_prefix(&MARKER)?;
    let (len_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len_bytes)).ok()?;
    if len > BODY_BYTES_MAX {
        return None;
    }
    let body = rest.get(..len)?;
    if u32::from_be_bytes(*sum) != crc(seed, *len_bytes, body) {
        return None;
    }
    Some((decode_body(body)?, HEAD_BYTES + len))
}

fn decode_body(body: &[u8]) -> Option<Frame<'_>> {
    let (kind, rest) = body.split_first()?;
    let (first, rest) = take_u64(rest)?;
    let (second, rest) = take_u64(rest)?;
    if !is_sequence(first) {
        return None;
    }
    match *kind {
        KIND_LINE => {
            let (order_ms, bytes) = take_u64(rest)?;
            Some(Frame::Line { seq: first, at_ms: second.cast_signed(), order_ms: order_ms.cast_signed(), bytes })
        }
        KIND_GAP if rest.is_empty() => {
            let gap = Gap { first_seq: first, n_lost: second };
            gap.is_one().then_some(Frame::Gap(gap))
        }
        KIND_FOOTER if second >= first && is_sequence(second) => {
            let (n_lines, rest) = take_u64(rest)?;
            let (order_ms, rest) = take_u64(rest)?;
            rest.is_empty().then_some(Frame::Footer(Footer {
                first_seq: first,
                last_seq: second,
                n_lines,
                order_ms: order_ms.cast_signed(),
            }))
        }
        _ => None,
    }
}

/// Whether a line may have this number: from 1, and the one after it is a number too.
pub(super) fn is_sequence(seq: u64) -> bool {
    (1..u64::MAX).contains(&seq)
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// The footer, when `tail` (the last [`FOOTER_BYTES`] of a file) is one.
pub(super) fn decode_footer(seed: u32, tail: &[u8]) -> Option<Footer> {
    match decode(seed, tail)? {
        (Frame::Footer(footer), FOOTER_BYTES) => Some(footer),
        _ => None,
    }
}

/// Sound frames of a buffer in order, skipping over damage.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    seed: u32,
    bytes: &'a [u8],
    offset: usize,
    /// End of the last sound frame.
    pub(super) good_end: usize,
    /// Unsound stretches that a sound frame follows.
    pub(super) n_bad_stretches: u64,
}

impl<'a> Frames<'a> {
    pub(super) fn new(seed: u32, bytes: &'a [u8], offset: usize) -> Self {
        Self { seed, bytes, offset, good_end: offset.min(bytes.len()), n_bad_stretches: 0 }
    }
}

impl<'a> Iterator for Frames<'a> {
    /// Offset of the frame, and the frame.
    type Item = (usize, Frame<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.offset;
        let mut at = start;
        loop {
            let rest = self.bytes.get(at..)?;
            if let Some((frame, size)) = decode(self.seed, rest) {
                if at > start {
                    self.n_bad_stretches += 1;
                }
                self.offset = at + size;
                self.good_end = self.offset;
                return Some((at, frame));
            }
            let ahead = rest.get(1..)?;
            let next = ahead.iter().position(|byte| *byte == MARKER[0])?;
            at += 1 + next;
        }
    }
}
