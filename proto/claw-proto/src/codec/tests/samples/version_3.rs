//! One message of each kind that version 3 added to.

use super::{WORKLOAD, desired, record, text};
use crate::ids::{Attempt, Generation};
use crate::message::{CheckpointWritten, DesiredWorkload, GatewayMessage, NodeMessage, StatusCause, StatusRecord};

pub(in super::super) fn of_nodes() -> Vec<(&'static str, NodeMessage)> {
    // `took_ms` is later than the recorded frames.
    let label = "step 1200, /data/ckpt/1200".to_owned();
    let checkpoint = CheckpointWritten { label, answers_notice: true, took_ms: None };
    let cause = StatusCause::Progress;
    let written = StatusRecord { cause, checkpoint: Some(checkpoint), exit_code: None, signal: None, ..record() };
    vec![("workload_status", NodeMessage::WorkloadStatus { records: vec![written] })]
}

pub(in super::super) fn of_gateways() -> Vec<(&'static str, GatewayMessage)> {
    let workload = DesiredWorkload { checkpoint_last: text("step 1200"), ..desired() };
    vec![
        (
            "checkpoint_notice",
            GatewayMessage::CheckpointNotice { workload_id: WORKLOAD, attempt: Attempt(2), grace_s: 30 },
        ),
        ("start_workload", GatewayMessage::StartWorkload { generation: Generation { epoch: 3, n: 41 }, workload }),
    ]
}
