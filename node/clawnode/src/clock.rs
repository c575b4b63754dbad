//! The node's clocks. Everything but the shell takes time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use claw_proto::time::Timestamp;
use rustix::time::clock_gettime;

use crate::node::Now;
use crate::platform;

/// Milliseconds since the host booted, sleep included: it goes on while the
/// agent is down, so deadlines written to disk stay true.
pub fn boot_ms() -> u64 {
    let time = clock_gettime(platform::CLOCK_BOOT);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The wall clock.
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Both clocks at once.
pub fn now() -> Now {
    Now { mono_ms: boot_ms(), wall: wall() }
}

/// Names one boot of the host: a process of another boot cannot be alive.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
