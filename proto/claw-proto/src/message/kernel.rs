//! What the kernel of a node said: single lines, bounded tails of them, and which of them may tell of a fault.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::limits::{KERNEL_LINE_BYTES_MAX, KERNEL_TAIL_BYTES_MAX, KERNEL_TAIL_LINES_MAX};
use crate::time::Timestamp;

/// One message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLine {
    /// Its number since the machine started, as the kernel counts.
    pub sequence: u64,
    /// When, by the node's clock.
    pub at: Timestamp,
    /// Facility and level, as in syslog: 0 to 7 are the kernel's own levels.
    pub priority: u32,
    /// The message, cut.
    pub text: String,
}

/// Lines of a node's kernel that may tell of a fault, and how many there were since its agent started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelLog {
    /// Changes when the machine starts; numbers of lines begin anew with it.
    pub boot_id: String,
    /// Lines that this connection has not carried yet, oldest first.
    pub lines: Vec<KernelLine>,
    /// Lines that were kept.
    pub n_kept: u64,
    /// Lines that found no room in the node's tail.
    pub n_dropped: u64,
    /// Lines that the kernel had overwritten before they were read.
    pub n_missed: u64,
}

/// Words of which one stands in every message that the diagnostician's rules can read, in lower case.
///
/// A test of `claw-observe` holds rules and words together.
const TELLING: [&str; 67] = [
    "nvrm",
    "nvidia",
    "xid",
    "nvswitch",
    "nvlink",
    "nv_peer_mem",
    "amdgpu",
    "kfd",
    "xgmi",
    "gpu reset",
    "fallen off the bus",
    "pcie bus error",
    "pcie error",
    "aer:",
    "pciehp",
    "event severity",
    "hardware error",
    "machine check",
    "out of memory",
    "oom",
    "killed process",
    "soft lockup",
    "hard lockup",
    "self-detected stall",
    "detected stalls",
    "kthread starved",
    "blocked for more than",
    "blocked in i/o wait",
    "blocked on a mutex",
    "nvme",
    "ext4-fs",
    "xfs",
    "btrfs",
    "read-only",
    "readonly",
    "i/o error",
    "aborting journal",
    "filesystem",
    "corruption",
    "no space left",
    "quota exceeded",
    "nfs",
    "lustre",
    "lnet",
    "ceph",
    "not responding",
    "has not responded",
    "hunting for new mon",
    "session lost",
    "connection to service",
    "lost connection to",
    "stale file handle",
    "mlx5",
    "mlx4",
    "bnxt_en",
    "irdma",
    "ionic",
    "ice 0",
    "ena 0",
    "infiniband",
    "link down",
    "port down",
    "port module event",
    "insufficient power",
    "high temperature",
    "file-max",
    "segfault",
];

/// May the diagnostician's rules read something in a message of the kernel?
pub fn may_tell(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    TELLING.iter().any(|word| lower.contains(word))
}

/// The beginning of a text, at most [`KERNEL_LINE_BYTES_MAX`] bytes, whole characters.
pub fn cut(text: &str) -> &str {
    if text.len() <= KERNEL_LINE_BYTES_MAX {
        return text;
    }
    let end = (0..=KERNEL_LINE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// The newest lines, in bounds of number and bytes.
///
/// Where there is no room, the oldest line goes of the kind that has most: a flood of one kind pushes
/// out itself, and not the one line that tells why.
#[derive(Debug, Clone, Default)]
pub struct KernelTail {
    lines: VecDeque<(u64, KernelLine)>,
    kinds: BTreeMap<u64, usize>,
    n_bytes: usize,
}

impl KernelTail {
    /// Adds a line, cut. Returns how many went for it.
    pub fn push(&mut self, mut line: KernelLine) -> u64 {
        let len = cut(&line.text).len();
        line.text.truncate(len);
        let kind = kind(&line.text);
        self.n_bytes += line.text.len();
        *self.kinds.entry(kind).or_default() += 1;
        self.lines.push_back((kind, line));
        let mut n_gone = 0;
        while self.lines.len() > KERNEL_TAIL_LINES_MAX || self.n_bytes > KERNEL_TAIL_BYTES_MAX {
            self.let_one_go();
            n_gone += 1;
        }
        n_gone
    }

    fn let_one_go(&mut self) {
        let most = self.kinds.values().max().copied().unwrap_or(0);
        let crowd = |kind: &u64| self.kinds.get(kind).is_some_and(|n| *n == most);
        let place = self.lines.iter().position(|(kind, _)| crowd(kind)).unwrap_or(0);
        let Some((kind, line)) = self.lines.remove(place) else { return };
        self.n_bytes -= line.text.len();
        if let Some(n) = self.kinds.get_mut(&kind) {
            *n -= 1;
            if *n == 0 {
                self.kinds.remove(&kind);
            }
        }
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &KernelLine> {
        self.lines.iter().map(|(_, line)| line)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Words that are looked at to tell kinds apart.
const KIND_WORDS: usize = 8;

/// What messages that differ in numbers, addresses and names of processes alone have in common (`FNV-1a`).
fn kind(text: &str) -> u64 {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.len() > 2);
    let plain = words.filter(|word| !word.bytes().any(|byte| byte.is_ascii_digit())).take(KIND_WORDS);
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    plain.flat_map(|word| word.bytes().chain([b' '])).fold(0xcbf2_9ce4_8422_2325, hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sequence: u64, text: impl Into<String>) -> KernelLine {
        KernelLine { sequence, at: Timestamp::from_unix_ms(0), priority: 3, text: text.into() }
    }

    #[test]
    fn a_flood_pushes_out_itself() {
        let mut tail = KernelTail::default();
        let xid = "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.";
        tail.push(line(1, xid));
        let mut n_gone = 0;
        for n in 0..100_000 {
            n_gone += tail
                .push(line(n + 2, format!("pcieport 0000:{:02x}:00.0: AER: Corrected error received: {n}", n % 256)));
            assert!(tail.len() <= KERNEL_TAIL_LINES_MAX);
        }
        assert_eq!(tail.iter().next().unwrap().text, xid);
        assert_eq!(n_gone, 100_001 - tail.len() as u64);
        assert!(tail.iter().zip(tail.iter().skip(1)).all(|(a, b)| a.sequence < b.sequence), "in their order");
    }

    #[test]
    fn long_lines_are_cut_and_bytes_are_bounded() {
        let mut tail = KernelTail::default();
        for n in 0..10_000_u64 {
            tail.push(line(n, format!("{} é", "é".repeat(usize::try_from(n % 2_000).unwrap()))));
            let n_bytes: usize = tail.iter().map(|line| line.text.len()).sum();
            assert!(n_bytes <= KERNEL_TAIL_BYTES_MAX && n_bytes == tail.n_bytes);
            assert!(tail.iter().all(|line| line.text.len() <= KERNEL_LINE_BYTES_MAX));
            assert_eq!(tail.kinds.values().sum::<usize>(), tail.len());
        }
    }

    #[test]
    fn words_are_looked_for_in_any_case() {
        assert!(may_tell("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028") && may_tell("EXT4-FS error"));
        assert!(!may_tell("usb 1-1: new high-speed USB device number 2 using xhci_hcd"));
        assert!(TELLING.iter().all(|word| *word == word.to_ascii_lowercase()));
    }
}
