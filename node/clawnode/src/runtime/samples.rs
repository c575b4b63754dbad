//! What tests start from.

use claw_proto::message::DesiredWorkload;
use claw_proto::spec::{OnPartition, RuntimeKind, WorkloadSpec};

use super::Key;

/// A workload that asks for nothing but what its specification says.
pub(crate) fn desired(key: Key, runtime: RuntimeKind, spec: WorkloadSpec) -> DesiredWorkload {
    DesiredWorkload {
        workload_id: key.0,
        attempt: key.1,
        spec,
        gpus: Vec::new(),
        runtime,
        on_partition: OnPartition::Keep,
        grace_s: 5,
        max_duration_s: None,
        secrets: Vec::new(),
        registry_auth: None,
        ranks: None,
        checkpoint_last: None,
    }
}
