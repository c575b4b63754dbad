//! What the kernels of the nodes said that may tell of a fault: a bounded tail of each, in memory; gone with
//! the process. A node sends what it holds again when it connects.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use claw_proto::ids::NodeId;
use claw_proto::limits::KERNEL_LINES_AT_A_TIME;
use claw_proto::message::{KernelLine, KernelLog, KernelTail};
use claw_proto::time::Timestamp;
use claw_tools::nodes::KernelHeard;

/// Lines that a node has of one run of its machine, as it counts them since its agent started.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    kept: u64,
    dropped: u64,
    missed: u64,
}

impl Told {
    /// Counts that go back are another agent's, which began anew.
    fn is_before(self, later: Self) -> bool {
        self.kept <= later.kept && self.dropped <= later.dropped && self.missed <= later.missed
    }
}

/// What is known of one node's kernel.
#[derive(Debug, Default)]
struct Known {
    boot_id: String,
    /// Of the present run of the machine.
    last_sequence: Option<u64>,
    tail: KernelTail,
    /// Of the run before that said something.
    before: KernelTail,
    boot_before: String,
    told: Told,
    /// The last line that this agent sent, and how many it sent.
    sent: (Option<u64>, u64),
    /// Lines that the node kept and that never came here.
    n_never_came: u64,
    /// Lines that found no room here.
    n_pushed_out: u64,
    /// When lines were lost last, there or here.
    lost_at: Option<Timestamp>,
    heard_at: Timestamp,
}

impl Known {
    /// Begins a run of the machine; its lines and counts are its own.
    fn begin(&mut self, boot_id: String) {
        let known = std::mem::take(self);
        let (before, boot_before) =
            if known.tail.is_empty() { (known.before, known.boot_before) } else { (known.tail, known.boot_id) };
        *self = Self { boot_id, before, boot_before, lost_at: known.lost_at, ..Self::default() };
    }

    /// A line that was sent and then found no room on its node is no loss: it is held here, or was pushed out here.
    fn n_lost(&self) -> u64 {
        self.n_never_came.saturating_add(self.n_pushed_out).saturating_add(self.told.missed)
    }
}

/// The tails of all nodes.
#[derive(Debug, Clone, Default)]
pub struct KernelDesk(Arc<RwLock<BTreeMap<NodeId, Known>>>);

/// What can be read of one node's kernel.
#[derive(Debug, Clone)]
pub struct KernelRead {
    /// Lines of a run of the machine before that of `lines` that are held, oldest first.
    pub before: Vec<KernelLine>,
    /// Which run that was.
    pub boot_before: String,
    /// Lines of the last run that told something.
    pub lines: Vec<KernelLine>,
    /// Which run that is; the machine may have been started anew since.
    pub boot_id: String,
    /// Lines that were lost in all.
    pub n_lost: u64,
    /// When lines were lost last.
    pub lost_at: Option<Timestamp>,
}

impl KernelDesk {
    /// Takes in what a node sent. What is known already is left out.
    pub fn heard(&self, node_id: NodeId, log: KernelLog, now: Timestamp) {
        let KernelLog { boot_id, lines, n_kept, n_dropped, n_missed } = log;
        let told = Told { kept: n_kept, dropped: n_dropped, missed: n_missed };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(node_id).or_default();
        if known.boot_id != boot_id {
            known.begin(boot_id);
        }
        if !known.told.is_before(told) {
            (known.sent, known.n_never_came) = ((None, 0), 0);
        }
        let n_lost = known.n_lost();
        let is_all = lines.len() < KERNEL_LINES_AT_A_TIME;
        for line in lines {
            let (through, n) = &mut known.sent;
            if through.is_none_or(|through| line.sequence > through) {
                (*through, *n) = (Some(line.sequence), *n + 1);
            }
            if known.last_sequence.is_none_or(|last| line.sequence > last) {
                known.last_sequence = Some(line.sequence);
                known.n_pushed_out += known.tail.push(line);
            }
        }
        // While a node still has lines to send, all that it holds may be on its way.
        let n_on_their_way = if is_all { 0 } else { n_kept.saturating_sub(n_dropped) };
        let n_came = known.sent.1.saturating_add(n_on_their_way);
        known.n_never_came = known.n_never_came.max(n_kept.saturating_sub(n_came));
        known.told = told;
        known.heard_at = now;
        if known.n_lost() > n_lost {
            known.lost_at = Some(now);
        }
    }

    /// What is held of a node; none if it never told of its kernel.
    pub fn read(&self, node_id: NodeId) -> Option<KernelRead> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&node_id)?;
        Some(KernelRead {
            before: known.before.iter().cloned().collect(),
            boot_before: known.boot_before.clone(),
            lines: known.tail.iter().cloned().collect(),
            boot_id: known.boot_id.clone(),
            n_lost: known.n_lost(),
            lost_at: known.lost_at,
        })
    }

    /// How much there was and how much is held, for people.
    pub fn seen(&self, node_id: NodeId) -> Option<KernelHeard> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&node_id)?;
        let held = (known.before.len() + known.tail.len()) as u64;
        let dropped = known.n_never_came.saturating_add(known.n_pushed_out);
        // An agent that was started again counts from the oldest line that the kernel still has.
        let kept = known.told.kept.max(dropped.saturating_add(known.tail.len() as u64));
        Some(KernelHeard { kept, held, dropped, missed: known.told.missed, heard_at: known.heard_at })
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
        desk.heard(node, log("b", 0..3, (5, 2, 1)), now);
        let numbers = |lines: &[KernelLine]| lines.iter().map(|line| line.sequence).collect::<Vec<u64>>();
        let read = desk.read(node).unwrap();
        assert_eq!((numbers(&read.before), numbers(&read.lines)), ((10..16).collect(), vec![0, 1, 2]));
        assert_eq!((read.boot_before.as_str(), read.boot_id.as_str()), ("a", "b"));
        let seen = KernelHeard { kept: 5, held: 9, dropped: 2, missed: 1, heard_at: now };
        assert_eq!((desk.seen(node), desk.read(node).unwrap().lost_at), (Some(seen), Some(now)));
        desk.forget(node);
        assert!(desk.read(node).is_none());
    }

    #[test]
    fn losses_of_a_run_that_are_fewer_than_those_before_are_losses() {
        let (desk, node) = (KernelDesk::default(), NodeId::from_bits(1));
        let at = Timestamp::from_unix_ms;
        desk.heard(node, log("a", 0..1, (9, 8, 50)), at(1));
        assert_eq!((desk.read(node).unwrap().n_lost, desk.read(node).unwrap().lost_at), (58, Some(at(1))));
        desk.heard(node, log("b", 0..1, (2, 1, 2)), at(2));
        assert_eq!((desk.read(node).unwrap().n_lost, desk.read(node).unwrap().lost_at), (3, Some(at(2))));
        // Another agent of the same run counts anew, and sends again what is held here.
        desk.heard(node, log("b", 0..1, (1, 0, 2)), at(3));
        assert_eq!((desk.read(node).unwrap().n_lost, desk.read(node).unwrap().lost_at), (2, Some(at(2))));
    }

    #[test]
    fn a_line_is_lost_once() {
        let (desk, node) = (KernelDesk::default(), NodeId::from_bits(1));
        let held = KERNEL_TAIL_LINES_MAX as u64;
        let room = KERNEL_LINES_AT_A_TIME as u64;
        // Every line comes, and finds no room here when it has none on its node any more.
        let mut next = 0;
        while next < 4 * held {
            next += room;
            desk.heard(
                node,
                log("a", next - room..next, (next, next.saturating_sub(held), 0)),
                Timestamp::from_unix_ms(7),
            );
            let seen = desk.seen(node).unwrap();
            assert_eq!((seen.held, seen.dropped), (next.min(held), next.saturating_sub(held)), "after {next} lines");
            assert!(seen.dropped <= seen.kept);
        }
        // A flood that the node drops before it can send it.
        desk.heard(
            node,
            log("a", next + 500..next + 501, (next + 501, next + 501 - held, 0)),
            Timestamp::from_unix_ms(7),
        );
        let seen = desk.seen(node).unwrap();
        assert_eq!((seen.kept, seen.dropped), (next + 501, next + 501 - held));
    }

    #[test]
    fn a_tail_is_bounded_and_what_goes_is_counted() {
        let (desk, node) = (KernelDesk::default(), NodeId::from_bits(1));
        desk.heard(node, log("a", 0..1_000, (1_000, 0, 0)), Timestamp::from_unix_ms(7));
        let read = desk.read(node).unwrap();
        assert_eq!((read.lines.len(), read.n_lost), (KERNEL_TAIL_LINES_MAX, 1_000 - KERNEL_TAIL_LINES_MAX as u64));
    }
}
