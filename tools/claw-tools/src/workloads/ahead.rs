//! What lies ahead of a workload, and what it can begin from.

use claw_proto::ids::Attempt;
use claw_proto::time::Timestamp;

use super::Blocker;

output! {
    /// A checkpoint that a program says it has written.
    CheckpointView {
        /// By which attempt.
        attempt: Attempt,
        /// What the program calls it (untrusted text).
        label: String,
        /// When, node's clock.
        at: Timestamp,
        /// How long this one or one before was written, milliseconds; absent if its program neither said nor showed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        took_ms: Option<u32>,
    }
}
output! {
    /// When a waiting workload will start, with nothing submitted after it: the queue is run ahead on a copy of the fleet.
    StartForecast {
        /// One sentence; it says so where no time can be told, and why.
        summary: String,
        /// One in twenty starts is earlier, seconds from now; absent where nothing can be told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_s: Option<u64>,
        /// As likely earlier as later, seconds from now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        likely_s: Option<u64>,
        /// One in twenty starts is later, seconds from now; absent if more than that may not start at all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to_s: Option<u64>,
        /// Futures that were looked at: one where every end is known (if only by a limit, it may start
        /// earlier) or there is no time for more (then there is no interval), else one for each draw of run times.
        futures: u32,
        /// What holds its place and has no known end: no `max_duration_s`, and nothing alike that ended.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unknown_ends: Vec<Blocker>,
    }
}
