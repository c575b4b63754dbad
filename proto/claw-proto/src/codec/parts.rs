//! Parts that several messages share: ids, texts, numbers, lists, log keys.

use std::collections::BTreeMap;

use super::enums::WireEnum as _;
use super::error::{At as _, Fault, FieldProblem};
use crate::ids::{Attempt, Generation, GpuUuid, WorkloadId};
use crate::limits;
use crate::message::LogKey;
use crate::wire::node_v1 as wire;

pub(super) fn encode_bits(bits: u128) -> Vec<u8> {
    bits.to_be_bytes().to_vec()
}

/// The 128 bits of an id.
pub(super) fn decode_bits(bytes: &[u8], name: &str) -> Result<u128, Fault> {
    let bytes: [u8; 16] = bytes
        .try_into()
        .map_err(|_| Fault::new(FieldProblem::WrongLength { bytes: bytes.len(), expected: 16 }).at(name))?;
    Ok(u128::from_be_bytes(bytes))
}

pub(super) fn encode_generation(generation: Generation) -> wire::Generation {
    wire::Generation { epoch: generation.epoch, n: generation.n }
}

pub(super) fn decode_generation(generation: Option<wire::Generation>) -> Result<Generation, Fault> {
    let wire::Generation { epoch, n } = required(generation, "generation")?;
    Ok(Generation { epoch, n })
}

pub(super) fn required<T>(value: Option<T>, name: &str) -> Result<T, Fault> {
    value.ok_or_else(|| Fault::new(FieldProblem::Missing).at(name))
}

/// Decodes each entry of a list of at most `max` entries.
pub(super) fn each<T, U>(
    items: Vec<T>,
    name: &str,
    max: usize,
    decode: impl Fn(T) -> Result<U, Fault>,
) -> Result<Vec<U>, Fault> {
    at_most(items.len(), name, max)?;
    let decode_one = |(index, item)| decode(item).at(format_args!("{name}[{index}]"));
    items.into_iter().enumerate().map(decode_one).collect()
}

pub(super) fn at_most(count: usize, name: &str, max: usize) -> Result<(), Fault> {
    if count > max {
        return Err(Fault::new(FieldProblem::TooMany { count, max }).at(name));
    }
    Ok(())
}

/// A text of at most `max` characters; the caller puts the name of the field before a fault.
pub(super) fn short(text: String, max: usize) -> Result<String, Fault> {
    // A character has one byte at least: short texts need no count.
    if text.len() > max {
        let length = text.chars().count();
        if length > max {
            return Err(Fault::new(FieldProblem::TooLong { length, max }));
        }
    }
    Ok(text)
}

/// A field that is a text of at most `max` characters.
pub(super) fn chars(text: String, name: &str, max: usize) -> Result<String, Fault> {
    short(text, max).at(name)
}

pub(super) fn chars_optional(text: Option<String>, name: &str, max: usize) -> Result<Option<String>, Fault> {
    text.map(|text| chars(text, name, max)).transpose()
}

/// Any bytes, at most `max` of them.
pub(super) fn bytes_at_most(length: usize, name: &str, max: usize) -> Result<(), Fault> {
    if length > max {
        return Err(Fault::new(FieldProblem::TooLong { length, max }).at(name));
    }
    Ok(())
}

/// A detail for people as it is sent: cut to its limit at a character's end.
pub(super) fn encode_detail(text: &str) -> String {
    const MARK: &str = "…";
    if text.len() <= limits::DETAIL_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limits::DETAIL_BYTES_MAX - MARK.len());
    format!("{}{MARK}", &text[..end])
}

pub(super) fn decode_detail(text: String, name: &str) -> Result<String, Fault> {
    bytes_at_most(text.len(), name, limits::DETAIL_BYTES_MAX)?;
    Ok(text)
}

/// Labels, or another map of short texts.
pub(super) fn decode_labels(labels: BTreeMap<String, String>, name: &str) -> Result<BTreeMap<String, String>, Fault> {
    at_most(labels.len(), name, limits::LABELS_MAX)?;
    for (key, value) in &labels {
        let key_chars = key.chars().count();
        if key_chars > limits::NAME_CHARS_MAX {
            let max = limits::NAME_CHARS_MAX;
            return Err(Fault::new(FieldProblem::TooLong { length: key_chars, max }).at(name));
        }
        let length = value.chars().count();
        if length > limits::LABEL_VALUE_CHARS_MAX {
            let max = limits::LABEL_VALUE_CHARS_MAX;
            return Err(Fault::new(FieldProblem::TooLong { length, max })
                .at(format_args!("{name}[\"{}\"]", key.escape_debug())));
        }
    }
    Ok(labels)
}

pub(super) fn finite(value: f64, name: &str) -> Result<f64, Fault> {
    if value.is_finite() { Ok(value) } else { Err(Fault::new(FieldProblem::NotFinite).at(name)) }
}

pub(super) fn finite_optional(value: Option<f64>, name: &str) -> Result<Option<f64>, Fault> {
    value.map(|value| finite(value, name)).transpose()
}

pub(super) fn finite_f32(value: f32, name: &str) -> Result<f32, Fault> {
    if value.is_finite() { Ok(value) } else { Err(Fault::new(FieldProblem::NotFinite).at(name)) }
}

pub(super) fn finite_f32_optional(value: Option<f32>, name: &str) -> Result<Option<f32>, Fault> {
    value.map(|value| finite_f32(value, name)).transpose()
}

pub(super) fn encode_gpus(gpus: &[GpuUuid]) -> Vec<String> {
    gpus.iter().map(|gpu| gpu.0.clone()).collect()
}

pub(super) fn decode_gpus(gpus: Vec<String>) -> Result<Vec<GpuUuid>, Fault> {
    let decode = |uuid: String| decode_gpu(uuid);
    each(gpus, "gpus", limits::GPUS_PER_NODE_MAX, decode)
}

/// A GPU's UUID; the caller puts the name of the field before a fault.
pub(super) fn decode_gpu(uuid: String) -> Result<GpuUuid, Fault> {
    if uuid.is_empty() {
        return Err(Fault::new(FieldProblem::Empty));
    }
    let length = uuid.chars().count();
    if length > limits::GPU_UUID_CHARS_MAX {
        return Err(Fault::new(FieldProblem::TooLong { length, max: limits::GPU_UUID_CHARS_MAX }));
    }
    Ok(GpuUuid(uuid))
}

/// Oldest and newest protocol version of a peer.
pub(super) fn decode_versions(min: u32, max: u32) -> Result<(u32, u32), Fault> {
    if min == 0 {
        return Err(Fault::new(FieldProblem::Missing).at("version_min"));
    }
    if max < min {
        let problem = FieldProblem::OutOfRange { value: u64::from(max), min: u64::from(min), max: u64::from(u32::MAX) };
        return Err(Fault::new(problem).at("version_max"));
    }
    Ok((min, max))
}

pub(super) fn encode_log_key(key: LogKey) -> wire::LogKey {
    wire::LogKey {
        workload_id: encode_bits(key.workload_id.bits()),
        attempt: key.attempt.0,
        stream: key.stream.encode(),
    }
}

pub(super) fn decode_log_key(key: Option<wire::LogKey>) -> Result<LogKey, Fault> {
    let wire::LogKey { workload_id, attempt, stream } = required(key, "key")?;
    let decode = || {
        Ok(LogKey {
            workload_id: WorkloadId::from_bits(decode_bits(&workload_id, "workload_id")?),
            attempt: Attempt(attempt),
            stream: crate::message::LogStream::decode(stream).at("stream")?,
        })
    };
    decode().at("key")
}

pub(super) fn encode_log_acks(acks: &BTreeMap<LogKey, u64>) -> Vec<wire::LogAck> {
    acks.iter().map(|(key, sequence)| wire::LogAck { key: Some(encode_log_key(*key)), sequence: *sequence }).collect()
}

pub(super) fn decode_log_acks(acks: Vec<wire::LogAck>, name: &str) -> Result<BTreeMap<LogKey, u64>, Fault> {
    let mut decoded = BTreeMap::new();
    for (index, wire::LogAck { key, sequence }) in acks.into_iter().enumerate() {
        let key = decode_log_key(key).at(format_args!("{name}[{index}]"))?;
        if decoded.insert(key, sequence).is_some() {
            let duplicate = Fault::new(FieldProblem::Duplicate);
            return Err(duplicate.at(format_args!("{name}[{index}]")));
        }
    }
    Ok(decoded)
}
