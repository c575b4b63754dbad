//! What tests start from.

use claw_proto::message::DesiredWorkload;
use claw_proto::spec::{OnPartition, RuntimeKind, WorkloadSpec};

use super::Key;
use super::dmem::MemoryCap;
use super::folder::SpecFile;

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

/// What a supervisor of it starts from.
pub(super) fn spec_file(workload: DesiredWorkload) -> SpecFile {
    SpecFile {
        node: "n1".into(),
        workload,
        execution_log: "/nowhere".into(),
        log_bytes_max: 0,
        default_user: None,
        cgroups: false,
        pids_max: 1,
        env: std::collections::BTreeMap::new(),
        gpu_memory: None,
        container: None,
    }
}

/// The same as it is written down, with a limit of its GPU's memory or without.
pub(crate) fn spec_json(workload: &DesiredWorkload, limited: bool) -> String {
    let limit = || MemoryCap { region: "nvidia/0000:1b:00.0/vidmem".into(), bytes: 4096, must: true };
    let spec = SpecFile { gpu_memory: limited.then(limit), ..spec_file(workload.clone()) };
    serde_json::to_string(&spec).unwrap()
}
