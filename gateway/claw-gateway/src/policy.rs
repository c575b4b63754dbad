//! Settings that decisions depend on. Given by the shell at start, never journaled.

use claw_proto::limits::STOP_AFTER_S_MIN;

use crate::preemption::PreemptionPolicy;

/// Heartbeats that a partition lease lasts at least. While all is well a node's
/// lease is up to two intervals old when it is renewed, and its second half may
/// be the program's grace: with less than this it would end on a connected node.
const HEARTBEATS_PER_LEASE_MIN: u64 = 5;

/// Who confirms and how long things are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// A person may confirm their own tier 2 plan (by typing its hash).
    pub tier2_self_confirm: bool,
    /// A single-person installation: a person may also confirm their own tier 3 plan.
    pub tier3_self_confirm: bool,
    /// How long a plan can be applied, milliseconds.
    pub plan_ttl_ms: i64,
    /// How long receipts are kept, milliseconds; at least 24 hours.
    pub receipt_ttl_ms: i64,
    /// Without a `request_id`, the same call within this time is flagged as a possible repeat, milliseconds.
    pub repeat_window_ms: i64,
    /// `stop_after` of a workload that does not say, seconds.
    pub default_stop_after_s: u32,
    /// How often nodes are sent a heartbeat, milliseconds.
    pub heartbeat_interval_ms: u64,
    /// How many ended workloads are kept in memory; older ones live in the journal only.
    pub ended_workloads_max: usize,
    /// What has waited for room so long keeps what becomes free, milliseconds.
    pub reserve_after_ms: i64,
    /// So many of those keep what becomes free at a time.
    pub reservations_max: usize,
    /// After so long half of what a tenant has had is forgotten, seconds.
    pub fair_share_half_life_s: u32,
    /// After so many submissions it is learned for the first time which work is likely.
    pub learn_after: u64,
    /// Whom more important work may stop.
    pub preemption: PreemptionPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tier2_self_confirm: true,
            tier3_self_confirm: false,
            plan_ttl_ms: 10 * 60 * 1000,
            receipt_ttl_ms: 24 * 60 * 60 * 1000,
            repeat_window_ms: 60 * 1000,
            default_stop_after_s: claw_proto::limits::STOP_AFTER_S_DEFAULT,
            heartbeat_interval_ms: claw_proto::limits::HEARTBEAT_INTERVAL_MS,
            ended_workloads_max: 50_000,
            reserve_after_ms: 10 * 60 * 1000,
            reservations_max: 4,
            fair_share_half_life_s: 24 * 60 * 60,
            learn_after: 64,
            preemption: PreemptionPolicy::default(),
        }
    }
}

impl Policy {
    /// [`Self::fair_share_half_life_s`], as means over time take it.
    pub fn half_life_s(&self) -> f64 {
        f64::from(self.fair_share_half_life_s)
    }

    /// Shortest `stop_after` that does not run out while its node is connected, seconds.
    pub fn stop_after_s_min(&self) -> u32 {
        let lease_ms = self.heartbeat_interval_ms.saturating_mul(HEARTBEATS_PER_LEASE_MIN);
        u32::try_from(lease_ms.div_ceil(1_000)).unwrap_or(u32::MAX).max(STOP_AFTER_S_MIN)
    }
}
