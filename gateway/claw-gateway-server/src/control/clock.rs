//! Time and ids, injected at the edge.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use claw_proto::ids::{IdSource, time_ordered_bits};
use claw_proto::time::Timestamp;

/// The gateway's clock.
pub trait Clock: Send + Sync {
    /// Now; never goes back.
    fn now(&self) -> Timestamp;
}

/// Wall clock at start plus monotonic time since: a jump of the wall clock
/// moves no lease.
#[derive(Debug)]
pub struct SystemClock {
    wall_at_start: i64,
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        Self { wall_at_start: since_epoch, start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_unix_ms(self.wall_at_start.saturating_add(elapsed))
    }
}

/// Random, time-ordered ids.
#[derive(Clone)]
pub struct RandomIds {
    clock: Arc<dyn Clock>,
    last: u128,
}

impl std::fmt::Debug for RandomIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RandomIds")
    }
}

impl RandomIds {
    /// Ids of this clock's time.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: 0 }
    }
}

impl IdSource for RandomIds {
    fn next_bits(&mut self) -> u128 {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).expect("the operating system's random source is there once the system is up");
        let bits = time_ordered_bits(self.clock.now().unix_ms(), u128::from_le_bytes(random));
        // Within one millisecond the order of making is kept: ids sort by time.
        self.last = if bits > self.last { bits } else { self.last + 1 };
        self.last
    }
}
