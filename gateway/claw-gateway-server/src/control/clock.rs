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

/// Random bytes that are asked for at once: one call of the system for many ids.
const RANDOM_BYTES: usize = 1_024;
/// Random bytes of one id.
const ID_BYTES: usize = size_of::<u128>();

/// Random, time-ordered ids.
pub struct RandomIds {
    clock: Arc<dyn Clock>,
    last: u128,
    random: [u8; RANDOM_BYTES],
    /// Bytes of `random` that were given out.
    used: usize,
}

impl std::fmt::Debug for RandomIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RandomIds")
    }
}

impl RandomIds {
    /// Ids of this clock's time.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: 0, random: [0; RANDOM_BYTES], used: RANDOM_BYTES }
    }

    fn random_bits(&mut self) -> u128 {
        if self.used + ID_BYTES > RANDOM_BYTES {
            let filled = getrandom::fill(&mut self.random);
            filled.expect("the operating system's random source is there once the system is up");
            self.used = 0;
        }
        let mut bytes = [0; ID_BYTES];
        bytes.copy_from_slice(&self.random[self.used..self.used + ID_BYTES]);
        self.used += ID_BYTES;
        u128::from_le_bytes(bytes)
    }
}

impl IdSource for RandomIds {
    fn next_bits(&mut self) -> u128 {
        let bits = time_ordered_bits(self.clock.now().unix_ms(), self.random_bits());
        // Within one millisecond the order of making is kept: ids sort by time.
        self.last = if bits > self.last { bits } else { self.last + 1 };
        self.last
    }
}
