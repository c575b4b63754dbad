//! Settings that decisions depend on. Given by the shell at start, never journaled.

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
    /// How many ended workloads are kept in memory; older ones live in the journal only.
    pub ended_workloads_max: usize,
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
            ended_workloads_max: 50_000,
        }
    }
}
