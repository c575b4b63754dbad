//! The fleet's status, made once for each durable state: it counts every node and
//! every GPU, and most callers ask about a state that was asked about a moment ago.

use std::sync::{Mutex, PoisonError};

use claw_gateway::{Cluster, query};
use claw_proto::time::Timestamp;
use claw_tools::cluster::ClusterStatus;

/// The last status.
#[derive(Debug, Default)]
pub struct LastStatus(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    seq: u64,
    journal_writable: bool,
    status: ClusterStatus,
}

impl LastStatus {
    /// The status of this durable state. It follows from the state and from whether
    /// the journal can be written; only the instant at which it is told does not.
    pub(super) fn of(&self, cluster: &Cluster, now: Timestamp, journal_writable: bool) -> ClusterStatus {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref().filter(|k| (k.seq, k.journal_writable) == (cluster.seq, journal_writable)) {
            return ClusterStatus { at: now, ..known.status.clone() };
        }
        let status = query::status(cluster, now, journal_writable);
        *last = Some(Known { seq: cluster.seq, journal_writable, status: status.clone() });
        status
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use claw_gateway::policy::Policy;
    use claw_gateway::{Caller, Command, step};
    use claw_proto::ids::CountingIds;

    use super::*;

    #[test]
    fn a_status_is_that_of_its_state_and_of_its_moment() {
        let at = Timestamp::from_unix_ms;
        let caller = Caller::system(at(1_000));
        let first = Cluster::new(Arc::new(Policy::default()));
        let started = Command::GatewayStarted { epoch: 7 };
        let (_, later) = step(&first, started, &caller, &mut CountingIds::new(1)).unwrap();
        assert!(later.seq > first.seq);
        let last = LastStatus::default();
        for (cluster, now, writable) in [
            (&first, 1_000, true),
            (&first, 2_000, true),
            (&first, 3_000, false),
            (&later, 4_000, false),
            (&first, 5_000, true),
        ] {
            let json = |status| serde_json::to_value::<ClusterStatus>(status).unwrap();
            let fresh = query::status(cluster, at(now), writable);
            assert_eq!(json(last.of(cluster, at(now), writable)), json(fresh), "{now}");
        }
    }
}
