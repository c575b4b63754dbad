//! A machine's clocks: a monotonic one that drifts and begins anew with each
//! boot, and a wall clock that is somewhere else.

use claw_proto::time::Timestamp;
use clawnode::node::Now;

use crate::agenda::wall_at;

const MILLION: i64 = 1_000_000;

/// Reads true time as this machine shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeClock {
    boot_at_ms: u64,
    drift_ppm: i64,
    wall_offset_ms: i64,
}

fn to_i64(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

impl NodeClock {
    pub(crate) const fn new(drift_ppm: i64, wall_offset_ms: i64) -> Self {
        Self { boot_at_ms: 0, drift_ppm, wall_offset_ms }
    }

    /// The machine boots: its monotonic clock begins anew.
    pub(crate) const fn boot(&mut self, now_ms: u64) {
        self.boot_at_ms = now_ms;
    }

    /// The monotonic clock at a true instant.
    pub(crate) fn mono_ms(&self, now_ms: u64) -> u64 {
        let elapsed = to_i64(now_ms.saturating_sub(self.boot_at_ms));
        // A second after boot nobody has looked at the clock yet.
        1_000 + u64::try_from(elapsed * (MILLION + self.drift_ppm) / MILLION).unwrap_or(0)
    }

    /// The first true instant at which the monotonic clock shows this, or more.
    pub(crate) fn true_ms(&self, mono_ms: u64) -> u64 {
        let ticks = to_i64(mono_ms.saturating_sub(1_000).min(1 << 40));
        let rate = MILLION + self.drift_ppm;
        let elapsed = (ticks * MILLION + rate - 1) / rate;
        self.boot_at_ms + u64::try_from(elapsed).unwrap_or(0)
    }

    pub(crate) fn now(&self, now_ms: u64) -> Now {
        let wall: Timestamp = wall_at(now_ms).plus_ms(self.wall_offset_ms);
        Now { mono_ms: self.mono_ms(now_ms), wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_its_instant_and_not_before() {
        for drift_ppm in [-10_000, -1, 0, 3, 9_999] {
            let mut clock = NodeClock::new(drift_ppm, 0);
            clock.boot(77);
            for mono_ms in (1_000..200_000).step_by(977) {
                let at_ms = clock.true_ms(mono_ms);
                assert!(clock.mono_ms(at_ms) >= mono_ms);
                assert!(at_ms == 77 || clock.mono_ms(at_ms - 1) < mono_ms);
            }
        }
    }
}
