//! A look at the raw frame before it is decoded.
//!
//! An empty repeated message takes two bytes of a frame and hundreds of bytes
//! of memory; a frame of 4 MiB could thus cost a gigabyte. So the entries of
//! repeated messages are counted first, and a frame that has too many is
//! refused before anything is built from it.

use super::error::{CodecError, Fault, FieldProblem};
use crate::limits;

/// Field numbers of an envelope's bodies.
const BODY_FIELDS: std::ops::RangeInclusive<u32> = 16..=127;

/// Repeated messages: name, way through field numbers, most entries in one frame.
const COUNTED: &[(&str, &[u32], usize)] = &[
    ("register.capabilities.gpus", &[16, 2, 9], limits::GPUS_PER_NODE_MAX),
    ("register.running", &[16, 3], limits::WORKLOADS_PER_NODE_MAX),
    ("workload_status.records", &[17, 1], limits::STATUS_RECORDS_PER_MESSAGE_MAX),
    ("metrics.gpus", &[18, 2], limits::GPUS_PER_NODE_MAX),
    ("logs.chunks", &[19, 1], limits::LOG_LINES_PER_MESSAGE_MAX),
    ("logs.chunks.lines", &[19, 1, 3], limits::LOG_LINES_PER_MESSAGE_MAX),
    ("capabilities_changed.capabilities.gpus", &[21, 1, 9], limits::GPUS_PER_NODE_MAX),
    ("register.capabilities.findings", &[16, 2, 13], limits::FINDINGS_PER_NODE_MAX),
    ("register.capabilities.nics", &[16, 2, 15], limits::NICS_PER_NODE_MAX),
    ("register.capabilities.newer_gpus", &[16, 2, 16], limits::GPUS_PER_NODE_MAX),
    ("capabilities_changed.capabilities.newer_gpus", &[21, 1, 16], limits::GPUS_PER_NODE_MAX),
    ("capabilities_changed.capabilities.findings", &[21, 1, 13], limits::FINDINGS_PER_NODE_MAX),
    ("capabilities_changed.capabilities.nics", &[21, 1, 15], limits::NICS_PER_NODE_MAX),
    ("metrics.gpus.details.processes", &[18, 2, 8, 14], limits::GPUS_PER_NODE_MAX * limits::PROCESSES_PER_GPU_MAX),
    ("metrics.workloads", &[18, 4], limits::WORKLOADS_PER_NODE_MAX),
    ("gpu_events.events", &[23, 1], limits::GPU_EVENTS_PER_MESSAGE_MAX),
    ("kernel_log.lines", &[28, 2], limits::KERNEL_LINES_PER_MESSAGE_MAX),
    ("output_read.folder.entries", &[26, 2, 1], limits::OUTPUT_ENTRIES_MAX),
    ("desired_set.workloads", &[65, 2], limits::WORKLOADS_PER_NODE_MAX),
];

/// Refuses a frame with too many entries of a repeated message.
pub(super) fn check_counts(frame: &[u8]) -> Result<(), CodecError> {
    for (name, way, max) in COUNTED {
        let count = count(frame, way);
        if count > *max {
            return Err(Fault::new(FieldProblem::TooMany { count, max: *max }).at(name).into());
        }
    }
    Ok(())
}

/// The field number of a body that this build does not know.
pub(super) fn unknown_body(frame: &[u8]) -> Option<u32> {
    Fields { rest: frame }.map(|field| field.number).find(|number| BODY_FIELDS.contains(number))
}

fn count(message: &[u8], way: &[u32]) -> usize {
    let Some((first, further)) = way.split_first() else {
        return 1;
    };
    Fields { rest: message }.filter(|field| field.number == *first).map(|field| count(field.payload, further)).sum()
}

/// One field of a raw message; `payload` is empty unless it is length-delimited.
struct Field<'a> {
    number: u32,
    payload: &'a [u8],
}

/// Walks the fields of a raw message; ends where it is not well-formed, which
/// the decoder then reports.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Passes over the inside of a group, other groups in it included. The protocol has none, but
    /// the decoder skips unknown ones: what stands behind them counts all the same.
    fn skip_group(&mut self) -> Option<()> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.varint()? & 7 {
                0 => {
                    self.varint()?;
                }
                1 => {
                    self.take(8)?;
                }
                2 => {
                    let n_bytes = self.varint()?;
                    self.take(n_bytes)?;
                }
                3 => depth += 1,
                4 => depth -= 1,
                5 => {
                    self.take(4)?;
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn take(&mut self, n_bytes: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(n_bytes).ok()?)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let key = self.varint()?;
        let payload: &[u8] = match key & 7 {
            0 => self.varint().map(|_| [].as_slice())?,
            1 => self.take(8).map(|_| [].as_slice())?,
            2 => {
                let n_bytes = self.varint()?;
                self.take(n_bytes)?
            }
            3 => self.skip_group().map(|()| [].as_slice())?,
            5 => self.take(4).map(|_| [].as_slice())?,
            _ => return None,
        };
        Some(Field { number: u32::try_from(key >> 3).ok()?, payload })
    }
}
