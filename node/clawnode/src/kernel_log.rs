//! What the kernel says, as far as it may tell of a fault: read from `/dev/kmsg` and held in bounds.
//!
//! The device gives one record for each read: `priority,number,microseconds,flags;message`, and indented
//! lines with the properties of a device, which are left out. A pipe or a file with such records does as well.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use claw_proto::limits::KERNEL_LINES_AT_A_TIME;
use claw_proto::message::kernel::may_tell;
use claw_proto::message::{KernelLine, KernelLog as Told, KernelTail};
use claw_proto::topology::{FindingCode, NodeFinding};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::node::Now;

/// Where the kernel's log is.
pub const KMSG: &str = "/dev/kmsg";
/// Bytes of a record that are looked at.
const RECORD_BYTES_MAX: usize = 8 * 1024;
/// Records that are looked at in one poll; what comes faster waits in the kernel, which overwrites its oldest.
const RECORDS_PER_POLL_MAX: usize = 5_000;
/// Reads of one poll.
const READS_PER_POLL_MAX: usize = 5_000;
/// The facility of what the kernel itself says; anybody with the right may write the others.
const FACILITY_KERNEL: u32 = 0;

/// Lines since the agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    kept: u64,
    dropped: u64,
    missed: u64,
}

/// The kernel's log of this machine.
#[derive(Debug)]
pub struct KernelLog {
    path: PathBuf,
    boot_id: String,
    source: Option<File>,
    /// The beginning of a record whose end has not come yet.
    partial: Vec<u8>,
    last_sequence: Option<u64>,
    tail: KernelTail,
    counts: Counts,
    /// What this connection has been told.
    told: Option<(u64, Counts)>,
    trouble: Option<String>,
}

impl KernelLog {
    /// The log at this path; it is opened when it is polled.
    pub fn new(path: &Path, boot_id: String) -> Self {
        Self {
            path: path.to_owned(),
            boot_id,
            source: None,
            partial: Vec::new(),
            last_sequence: None,
            tail: KernelTail::default(),
            counts: Counts::default(),
            told: None,
            trouble: None,
        }
    }

    /// Reads what is new, within bounds of one poll.
    pub fn poll(&mut self, now: Now) {
        if self.source.is_none() {
            // A pipe is opened without waiting for somebody who writes.
            let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
            match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
                Ok(file) => self.source = Some(file),
                Err(error) => {
                    self.trouble = Some(error.to_string());
                    return;
                }
            }
        }
        self.trouble = None;
        let mut buffer = [0; RECORD_BYTES_MAX];
        let mut n_records = 0;
        for _ in 0..READS_PER_POLL_MAX {
            let Some(source) = &mut self.source else { return };
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => n_records += self.take(buffer.get(..n).unwrap_or_default(), now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Records were overwritten before they were read (the numbers tell how many), or one is longer
                // than the kernel itself makes them.
                Err(error) if [Errno::PIPE, Errno::INVAL].iter().any(|known| is(&error, *known)) => {}
                Err(error) => {
                    self.trouble = Some(error.to_string());
                    self.source = None;
                    return;
                }
            }
            if n_records >= RECORDS_PER_POLL_MAX {
                return;
            }
        }
    }

    /// Takes bytes in; returns how many lines ended in them.
    fn take(&mut self, bytes: &[u8], now: Now) -> usize {
        let mut n_ended = 0;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = RECORD_BYTES_MAX.saturating_sub(self.partial.len());
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            self.partial.extend_from_slice(text.get(..room).unwrap_or(text));
            if ended {
                n_ended += 1;
                let record = std::mem::take(&mut self.partial);
                self.record(&record, now);
                self.partial = record;
                self.partial.clear();
            }
        }
        n_ended
    }

    /// Keeps a record, if it is one, is the kernel's own, and may tell of a fault.
    fn record(&mut self, record: &[u8], now: Now) {
        let Some(Record { priority, sequence, at_us, text }) = parse(record) else { return };
        match self.last_sequence {
            Some(last) if sequence <= last => return,
            Some(last) => self.counts.missed = self.counts.missed.saturating_add(sequence - last - 1),
            None => {}
        }
        self.last_sequence = Some(sequence);
        let text = String::from_utf8_lossy(text);
        if priority >> 3 != FACILITY_KERNEL || !may_tell(&text) {
            return;
        }
        self.counts.kept += 1;
        let ago_ms = i64::try_from(now.mono_ms.saturating_sub(at_us / 1_000)).unwrap_or(i64::MAX);
        let at = now.wall.plus_ms(ago_ms.saturating_neg());
        self.counts.dropped += self.tail.push(KernelLine { sequence, at, priority, text: text.into_owned() });
    }

    /// What the gateway is to be told now: lines that this connection has not carried, and counts that changed.
    pub fn news(&mut self) -> Option<Told> {
        let (through, counts) = self.told.map_or((None, None), |(through, counts)| (Some(through), Some(counts)));
        let fresh = self.tail.iter().filter(|line| through.is_none_or(|through| line.sequence > through));
        let lines: Vec<KernelLine> = fresh.take(KERNEL_LINES_AT_A_TIME).cloned().collect();
        if lines.is_empty() && (counts == Some(self.counts) || self.last_sequence.is_none()) {
            return None;
        }
        let through = lines.last().map(|line| line.sequence).or(through).unwrap_or(0);
        self.told = Some((through, self.counts));
        let Counts { kept: n_kept, dropped: n_dropped, missed: n_missed } = self.counts;
        Some(Told { boot_id: self.boot_id.clone(), lines, n_kept, n_dropped, n_missed })
    }

    /// A new connection has been told nothing yet.
    pub fn reconnected(&mut self) {
        self.told = None;
    }

    /// Why it cannot be read, if so.
    pub fn finding(&self) -> Option<NodeFinding> {
        let detail = self.trouble.as_ref()?;
        let detail = format!("{detail}; faults that only the kernel tells are not seen (it takes CAP_SYSLOG, or root)");
        Some(NodeFinding { code: FindingCode::KernelLogUnreadable, subject: self.path.display().to_string(), detail })
    }
}

fn is(error: &std::io::Error, known: Errno) -> bool {
    error.raw_os_error() == Some(known.raw_os_error())
}

/// One record of the kernel's log.
#[derive(Debug, PartialEq)]
struct Record<'a> {
    priority: u32,
    sequence: u64,
    /// Since the machine started.
    at_us: u64,
    text: &'a [u8],
}

/// Reads one record; none of a line that is none, such as a property of a device.
fn parse(record: &[u8]) -> Option<Record<'_>> {
    let place = record.iter().position(|byte| *byte == b';')?;
    let (head, text) = (record.get(..place)?, record.get(place + 1..)?);
    let mut fields = std::str::from_utf8(head).ok()?.split(',');
    let priority = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let at_us = fields.next()?.parse().ok()?;
    fields.next()?;
    Some(Record { priority, sequence, at_us, text })
}

#[cfg(test)]
mod tests;
