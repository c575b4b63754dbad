//! Operations on the fleet as a whole.

use claw_proto::ids::WorkloadId;
use claw_proto::time::Timestamp;

use crate::refusal::SuggestedCall;

read_params! {
    /// `cluster_status` takes nothing.
    ClusterStatusParams {}
}

output! {
    /// Health first: totals, then only what is wrong.
    ClusterStatus {
        /// One sentence.
        summary: String,
        /// Desired-state revision of this answer; pass it as `since_revision` later.
        revision: u64,
        /// Gateway's clock.
        at: Timestamp,
        /// The journal can be written.
        journal_writable: bool,
        /// Nodes by state.
        nodes: NodeCounts,
        /// GPUs by use.
        gpus: GpuCounts,
        /// Workloads by state.
        workloads: WorkloadCounts,
        /// Some nodes are simulated.
        simulated: bool,
        /// What needs attention, worst first, at most 20.
        problems: Vec<Problem>,
        /// What to call next.
        next: Vec<SuggestedCall>,
    }
}
output! {
    /// Nodes by state.
    NodeCounts {
        /// All.
        total: u32,
        /// Connected.
        online: u32,
        /// Not heard from.
        unreachable: u32,
        /// Not taking new work.
        unschedulable: u32,
    }
}
output! {
    /// GPUs by use.
    GpuCounts {
        /// All.
        total: u32,
        /// Free on schedulable nodes.
        free: u32,
        /// Held by a workload.
        held: u32,
        /// Not healthy.
        unhealthy: u32,
    }
}
output! {
    /// Workloads by state.
    WorkloadCounts {
        /// Waiting for room.
        pending: u32,
        /// Placed, pulling or starting.
        starting: u32,
        /// Running.
        running: u32,
        /// Being stopped.
        stopping: u32,
        /// Ended well.
        completed: u32,
        /// Ended badly.
        failed: u32,
        /// Stopped on request.
        stopped: u32,
        /// Nobody knows how they ended.
        lost: u32,
    }
}
output! {
    /// Something that needs attention.
    Problem {
        /// Short code.
        code: String,
        /// One sentence.
        message: String,
        /// Concerned workloads, at most five.
        workloads: Vec<WorkloadId>,
        /// What to call about it.
        next: Vec<SuggestedCall>,
    }
}
