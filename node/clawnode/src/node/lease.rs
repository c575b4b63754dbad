//! The partition lease: when a cut-off node must have stopped a workload.
//!
//! The node remembers when it **sent** the answer to each heartbeat. Once a
//! later heartbeat says that this answer arrived, the send time is the base of
//! every lease: the gateway counts from the *receipt* of the same answer, which
//! is later, so the node always stops first. A workload that starts before any
//! answer was confirmed on this connection takes the send time of `Register` as
//! its base: the gateway sent the start after it had received that message, so
//! its own count begins no earlier. Receipt of the start would be no safe base:
//! the start may have traveled for long.

use std::collections::BTreeMap;

use claw_proto::message::DesiredWorkload;
use claw_proto::spec::OnPartition;
use serde::{Deserialize, Serialize};

/// Answers to heartbeats that are remembered until confirmed.
const UNCONFIRMED_ANSWERS_MAX: usize = 256;

/// When a workload must end unless the gateway is heard again; the node's
/// monotonic clock, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// TERM is sent.
    pub term_at_ms: u64,
    /// KILL is sent: nothing runs any more after this instant.
    pub kill_at_ms: u64,
}

impl Lease {
    /// The lease of a workload counted from `base_ms`; none if it keeps running.
    pub fn of(workload: &DesiredWorkload, base_ms: u64) -> Option<Self> {
        match workload.on_partition {
            OnPartition::Keep => None,
            OnPartition::StopAfter(seconds) => {
                let length_ms = u64::from(seconds) * 1_000;
                let grace_ms = (u64::from(workload.grace_s) * 1_000).min(length_ms / 2);
                let kill_at_ms = base_ms.saturating_add(length_ms);
                Some(Self { term_at_ms: kill_at_ms - grace_ms, kill_at_ms })
            }
        }
    }
}

/// Send times of answers to heartbeats on one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    sent_ms: BTreeMap<u64, u64>,
    highest_nonce: u64,
}

impl Answers {
    /// Notes that the answer to `nonce` is sent now. Only the first answer to a
    /// nonce counts, and only rising nonces: a repeated heartbeat must not make
    /// an early answer look late.
    pub(super) fn sent(&mut self, nonce: u64, now_ms: u64) {
        if nonce <= self.highest_nonce {
            return;
        }
        self.highest_nonce = nonce;
        self.sent_ms.insert(nonce, now_ms);
        if self.sent_ms.len() > UNCONFIRMED_ANSWERS_MAX {
            self.sent_ms.pop_first();
        }
    }

    /// Send time of the latest answer that has arrived, if it is news.
    pub(super) fn confirmed(&mut self, nonce: u64) -> Option<u64> {
        let base = self.sent_ms.range(..=nonce).next_back().map(|(_, sent_ms)| *sent_ms);
        self.sent_ms.retain(|sent, _| *sent > nonce);
        base
    }
}
