//! What the kernels of the nodes said that may tell of a fault: a bounded tail of each, in memory; gone with
//! the process. A node sends what it holds again when it connects.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use claw_proto::ids::NodeId;
use claw_proto::message::{KernelLine, KernelLog, KernelTail};
use claw_proto::time::Timestamp;
use claw_tools::nodes::KernelHeard;

/// What is known of one node's kernel.
#[derive(Debug, Default)]
struct Known {
    boot_id: String,
    /// Of the present boot.
    last_sequence: Option<u64>,
    tail: KernelTail,
    /// Of the boot before.
    before: KernelTail,
    told: (u64, u64, u64),
    /// Lines that found no room here.
    n_pushed_out: u64,
    /// When lines were lost last, there or here.
    lost_at: Option<Timestamp>,
    heard_at: Timestamp,
}

/// The tails of all nodes.
#[derive(Debug, Clone, Default)]
pub struct KernelDesk(Arc<RwLock<BTreeMap<NodeId, Known>>>);

/// What can be read of one node's kernel.
#[derive(Debug, Clone)]
pub struct KernelRead {
    /// Lines of the machine's run before this one that are held, oldest first.
    pub before: Vec<KernelLine>,
    /// Lines since it was started.
    pub lines: Vec<KernelLine>,
    /// Lines that were lost in all.
    pub n_lost: u64,
    /// When lines were lost last.
    pub lost_at: Option<Timestamp>,
}

impl KernelDesk {
    /// Takes in what a node sent. What is known already is left out.
    pub fn heard(&self, node_id: NodeId, log: KernelLog, now: Timestamp) {
        let KernelLog { boot_id, lines, n_kept, n_dropped, n_missed } = log;
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(node_id).or_default();
        if known.boot_id != boot_id {
            known.boot_id = boot_id;
            known.last_sequence = None;
            if !known.tail.is_empty() {
                known.before = std::mem::take(&mut known.tail);
            }
        }
        let mut n_lost = (n_dropped.saturating_add(n_missed)).saturating_sub(known.told.1.saturating_add(known.told.2));
        for line in lines {
            if known.last_sequence.is_none_or(|last| line.sequence > last) {
                known.last_sequence = Some(line.sequence);
                let n_gone = known.tail.push(line);
                known.n_pushed_out += n_gone;
                n_lost = n_lost.saturating_add(n_gone);
            }
        }
        known.told = (n_kept, n_dropped, n_missed);
        known.heard_at = now;
        if n_lost > 0 {
            known.lost_at = Some(now);
        }
    }

    /// What is held of a node; none if it never told of its kernel.
    pub fn read(&self, node_id: NodeId) -> Option<KernelRead> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&node_id)?;
        let (_, n_dropped, n_missed) = known.told;
        Some(KernelRead {
            before: known.before.iter().cloned().collect(),
            lines: known.tail.iter().cloned().collect(),
            n_lost: n_dropped.saturating_add(n_missed).saturating_add(known.n_pushed_out),
            lost_at: known.lost_at,
        })
    }

    /// How much there was and how much is held, for people.
    pub fn seen(&self, node_id: NodeId) -> Option<KernelHeard> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&node_id)?;
        let (kept, dropped, missed) = known.told;
        let held = (known.before.len() + known.tail.len()) as u64;
        let dropped = dropped.saturating_add(known.n_pushed_out);
        Some(KernelHeard { kept, held, dropped, missed, heard_at: known.heard_at })
    }

    /// Forgets a node.
    pub fn forget(&self, node_id: NodeId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&node_id);
    }
}

#[cfg(test)]
mod tests {
    use claw_proto::limits::KERNEL_TAIL_LINES_MAX;

    use super::*;

    fn log(boot: &str, numbers: std::ops::Range<u64>, n: (u64, u64, u64)) -> KernelLog {
        let line = |sequence| KernelLine {
            sequence,
            at: Timestamp::from_unix_ms(0),
            priority: 3,
            text: format!("nvme nvme0: I/O {sequence} QID 4 timeout, aborting"),
        };
        let lines = numbers.map(line).collect();
        KernelLog { boot_id: boot.into(), lines, n_kept: n.0, n_dropped: n.1, n_missed: n.2 }
    }

    #[test]
    fn lines_that_come_again_are_known_and_a_new_boot_counts_anew() {
        let (desk, node, now) = (KernelDesk::default(), NodeId::from_bits(1), Timestamp::from_unix_ms(7));
        assert!(desk.read(node).is_none() && desk.seen(node).is_none());
        desk.heard(node, log("a", 10..14, (4, 0, 0)), now);
        desk.heard(node, log("a", 10..16, (6, 0, 0)), now);
        let read = desk.read(node).unwrap();
        assert_eq!((read.lines.len(), read.n_lost, read.lost_at), (6, 0, None));
        desk.heard(node, log("b", 0..3, (3, 2, 1)), now);
        let numbers = |lines: &[KernelLine]| lines.iter().map(|line| line.sequence).collect::<Vec<u64>>();
        let read = desk.read(node).unwrap();
        assert_eq!((numbers(&read.before), numbers(&read.lines)), ((10..16).collect(), vec![0, 1, 2]));
        let seen = KernelHeard { kept: 3, held: 9, dropped: 2, missed: 1, heard_at: now };
        assert_eq!((desk.seen(node), desk.read(node).unwrap().lost_at), (Some(seen), Some(now)));
        desk.forget(node);
        assert!(desk.read(node).is_none());
    }

    #[test]
    fn a_tail_is_bounded_and_what_goes_is_counted() {
        let (desk, node) = (KernelDesk::default(), NodeId::from_bits(1));
        desk.heard(node, log("a", 0..1_000, (1_000, 0, 0)), Timestamp::from_unix_ms(7));
        let read = desk.read(node).unwrap();
        assert_eq!((read.lines.len(), read.n_lost), (KERNEL_TAIL_LINES_MAX, 1_000 - KERNEL_TAIL_LINES_MAX as u64));
    }
}
