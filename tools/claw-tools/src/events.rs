//! Operations on the event journal.

use claw_proto::time::Timestamp;

read_params! {
    /// Which events.
    EventsListParams {
        /// Only after this event number.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// Only about this node, workload, plan, operation, key or token (id).
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// Only of these kinds.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<String>,
        /// Rows, 20 by default; the newest unless `after` is given.
        #[schemars(range(min = 1, max = 100))]
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    }
}

output! {
    /// One event.
    EventRow {
        /// Number in the journal.
        seq: u64,
        /// When.
        at: Timestamp,
        /// Kind.
        kind: String,
        /// What it is about.
        subjects: Vec<String>,
        /// One sentence.
        text: String,
        /// Who caused it.
        principal: String,
        /// Why, in their words (untrusted text).
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    }
}
output! {
    /// Events, oldest first.
    EventsList {
        /// Rows.
        events: Vec<EventRow>,
        /// More match.
        truncated: bool,
        /// Pass as `after` for what comes next.
        last_seq: u64,
    }
}
