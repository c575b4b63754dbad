//! When a supervised program gets which signal, and why.

use claw_proto::message::StatusCause;

use crate::node::Lease;

/// A signal that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) enum Order {
    /// TERM to the group.
    Terminate(StatusCause),
    /// KILL to everything.
    Kill(StatusCause),
}

/// One reason to end: TERM from an instant on, KILL from a later one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reason {
    term_at_ms: u64,
    kill_at_ms: u64,
    cause: StatusCause,
}

/// Stop requests, lease and duration of one program. The first reason that
/// comes due names the cause; the earliest KILL of all that are due counts.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct Enforcer {
    stop: Option<Reason>,
    lease: Option<Reason>,
    duration: Option<Reason>,
    terminated: Option<StatusCause>,
    killed: bool,
}

impl Enforcer {
    pub(in crate::runtime) fn new(started_ms: u64, duration_ms: Option<u64>, grace_ms: u64) -> Self {
        let duration = duration_ms.map(|duration_ms| {
            let term_at_ms = started_ms.saturating_add(duration_ms);
            Reason { term_at_ms, kill_at_ms: term_at_ms.saturating_add(grace_ms), cause: StatusCause::MaxDuration }
        });
        Self { stop: None, lease: None, duration, terminated: None, killed: false }
    }

    /// A request to stop, from now on; a repetition may only end it earlier.
    pub(in crate::runtime) fn stop(&mut self, now_ms: u64, kill_at_ms: u64, cause: StatusCause) {
        let stop = self.stop.get_or_insert(Reason { term_at_ms: now_ms, kill_at_ms, cause });
        stop.kill_at_ms = stop.kill_at_ms.min(kill_at_ms);
    }

    /// The lease as it is now.
    pub(in crate::runtime) fn set_lease(&mut self, lease: Option<Lease>) {
        self.lease = lease.map(|Lease { term_at_ms, kill_at_ms }| Reason {
            term_at_ms,
            kill_at_ms,
            cause: StatusCause::PartitionLease,
        });
    }

    fn reasons(&self) -> impl Iterator<Item = Reason> {
        [self.stop, self.lease, self.duration].into_iter().flatten()
    }

    /// Why the program is being ended, if it is.
    pub(in crate::runtime) fn cause(&self) -> Option<StatusCause> {
        self.terminated
    }

    /// The next instant at which something is due.
    pub(in crate::runtime) fn next_ms(&self) -> Option<u64> {
        if self.killed {
            return None;
        }
        let terms = self.reasons().filter(|_| self.terminated.is_none()).map(|reason| reason.term_at_ms);
        terms.chain(self.reasons().map(|reason| reason.kill_at_ms)).min()
    }

    /// What is due now; each signal once.
    pub(in crate::runtime) fn due(&mut self, now_ms: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        let due: Vec<Reason> = self.reasons().filter(|reason| reason.term_at_ms <= now_ms).collect();
        let Some(first) = due.iter().min_by_key(|reason| reason.term_at_ms) else {
            return orders;
        };
        let kill_now = due.iter().any(|reason| reason.kill_at_ms <= now_ms);
        let cause = *self.terminated.get_or_insert_with(|| {
            if !kill_now {
                orders.push(Order::Terminate(first.cause));
            }
            first.cause
        });
        if kill_now && !self.killed {
            self.killed = true;
            orders.push(Order::Kill(cause));
        }
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_comes_once_and_the_earliest_kill_counts() {
        let mut enforcer = Enforcer::new(0, Some(10_000), 5_000);
        enforcer.set_lease(Some(Lease { term_at_ms: 7_000, kill_at_ms: 8_000 }));
        assert_eq!((enforcer.next_ms(), enforcer.due(6_999)), (Some(7_000), vec![]));
        enforcer.set_lease(Some(Lease { term_at_ms: 12_000, kill_at_ms: 13_000 }));
        assert_eq!(enforcer.due(9_000), vec![]);
        assert_eq!(enforcer.due(10_100), vec![Order::Terminate(StatusCause::MaxDuration)]);
        assert_eq!(enforcer.due(10_200), vec![]);
        enforcer.stop(10_300, 11_000, StatusCause::StopRequested);
        enforcer.stop(10_400, 99_000, StatusCause::StopRequested);
        assert_eq!((enforcer.next_ms(), enforcer.due(10_999)), (Some(11_000), vec![]));
        assert_eq!(enforcer.due(11_000), vec![Order::Kill(StatusCause::MaxDuration)]);
        assert_eq!((enforcer.next_ms(), enforcer.due(20_000)), (None, vec![]));
    }

    #[test]
    fn a_stop_without_grace_kills_at_once() {
        let mut enforcer = Enforcer::new(0, None, 5_000);
        enforcer.stop(1_000, 1_000, StatusCause::Superseded);
        assert_eq!(enforcer.due(1_000), vec![Order::Kill(StatusCause::Superseded)]);
        assert_eq!(enforcer.cause(), Some(StatusCause::Superseded));
    }
}
