//! Lines of logs and gaps in them, as answers show them.

use claw_proto::message::LogStream;
use claw_proto::time::Timestamp;

output! {
    /// One line.
    LogLineView {
        /// Stream.
        stream: LogStream,
        /// Number in its stream.
        sequence: u64,
        /// Node's clock.
        at: Timestamp,
        /// Text; control characters are neutralized.
        text: String,
    }
}
output! {
    /// Lines that are gone.
    LogGapView {
        /// Stream.
        stream: LogStream,
        /// First lost line.
        first_sequence: u64,
        /// How many.
        n_lost: u64,
        /// Why.
        why: String,
    }
}
