//! Operations on the queue and on capacity: what waits, what would fit, and
//! what would happen.

use claw_proto::closed_enum;
use claw_proto::ids::WorkloadId;
use claw_proto::spec::{Priority, WorkloadSpec};
use claw_proto::time::Timestamp;

use crate::outcome::Assumption;
use crate::refusal::SuggestedCall;
use crate::workloads::{Blocker, PlacementReport, WorkloadReason};

read_params! {
    /// Which part of the queue.
    QueueListParams {
        /// Only of this principal.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// Only these fields of each row.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        fields: Vec<String>,
        /// Rows per page, 20 by default.
        #[schemars(range(min = 1, max = 100))]
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
        /// `next_cursor` of the page before.
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
}

output! {
    /// One workload that waits.
    QueueRow {
        /// Place in the queue by priority and age, from 1.
        position: u32,
        /// Whose turn it is, from 1: in this order they are tried, between tenants by fair share; absent while its
        /// tenant's quota keeps it from starting, or a gate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        turn: Option<u32>,
        /// The tenant that it counts for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tenant: Option<String>,
        /// Who.
        workload_id: WorkloadId,
        /// Its name (untrusted text).
        name: String,
        /// Who submitted it.
        owner: String,
        /// Order in the queue.
        priority: Priority,
        /// What it runs, in short.
        what: String,
        /// GPUs it wants in all.
        gpus: u32,
        /// Nodes it wants.
        nodes: u32,
        /// Why it waits.
        reason: WorkloadReason,
        /// Since when.
        since: Timestamp,
        /// How many workloads are told to end to make room for it.
        room_from: u32,
    }
}
output! {
    /// A page of the queue, by priority and age; `turn` is the order in which they are tried.
    QueueList {
        /// Rows; only the asked fields if `fields` was given.
        #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
        queue: Vec<serde_json::Value>,
        /// How many wait in all.
        total: u32,
        /// GPUs that they want in all.
        gpus_wanted: u32,
        /// There are more.
        truncated: bool,
        /// For the next page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
        /// Revision of the snapshot.
        revision: u64,
    }
}

/// How long what a defragmentation gains is worth something, if not said, seconds.
pub const DEFRAG_HORIZON_S: u64 = 3_600;
/// Workloads that one defragmentation moves at most, if not said.
pub const DEFRAG_MOVES: u32 = 8;
/// The least and the most that the horizon may be, as the schema says it, seconds.
pub const DEFRAG_HORIZON_S_BOUNDS: (u64, u64) = (60, 604_800);
/// The same of the moves.
pub const DEFRAG_MOVES_BOUNDS: (u64, u64) = (1, 64);

mutation_params! {
    /// Move running work so that free GPUs are of use again.
    DefragPlanParams {
        /// Only for GPUs of this model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(max = 63))]
        model: Option<String>,
        /// How long what is gained is worth something, seconds; an hour, if not said. What is gained in that
        /// time has to be more than what the moved lose.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 60, max = 604_800))]
        horizon_s: Option<u64>,
        /// Workloads that are moved at most; 8, if not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 64))]
        moves_max: Option<u32>,
    }
}
read_params! {
    /// Of which GPUs.
    FragmentationReportParams {
        /// Only of this model.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    }
}
output! {
    /// One kind of work among those that the report takes as typical.
    TypicalWork {
        /// GPUs on one node.
        gpus: u32,
        /// How much of its GPU it takes, if it takes a share.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        share: Option<f64>,
        /// Their model, if it asks for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// Cores on one node.
        cpu_cores: f64,
        /// Memory on one node, GiB.
        memory_gib: f64,
        /// How much of the work that is known is of this kind, percent.
        percent: f64,
    }
}
output! {
    /// How many nodes have so many GPUs free.
    FreeOnNodes {
        /// Free GPUs of the model on each.
        free: u32,
        /// Nodes.
        nodes: u32,
    }
}
output! {
    /// How many more would fit of one size.
    MoreWouldFit {
        /// GPUs on one node.
        gpus: u32,
        /// Workloads of that size with default cores and memory that would fit now.
        workloads: u32,
    }
}
output! {
    /// A node whose free GPUs are of little use.
    FragmentedNode {
        /// Node.
        node: String,
        /// GPUs of the model that are free as a whole.
        free: u32,
        /// What is free of GPUs that others have shares of, in GPUs.
        free_in_part: f64,
        /// Of both, how many typical work cannot use, in the mean.
        lost: f64,
        /// Why.
        why: String,
    }
}
output! {
    /// One model of GPUs.
    FragmentedModel {
        /// Model.
        model: String,
        /// GPUs that are healthy, on nodes that answer and take work.
        gpus: u32,
        /// Of those, how many nobody has a part of, and none are kept for work that waits.
        free: u32,
        /// What is free of GPUs that are shared, in GPUs.
        free_in_part: f64,
        /// Of what is free, how many typical work cannot use where they are, in the mean (FGD, USENIX ATC'23).
        lost: f64,
        /// The same, percent of what is free.
        lost_percent: f64,
        /// Most free GPUs on one node.
        largest: u32,
        /// Nodes by how many GPUs are free on them.
        by_free: Vec<FreeOnNodes>,
        /// How many more would fit of the sizes 1, 2, 4 and 8, each by itself.
        more: Vec<MoreWouldFit>,
        /// Nodes that lose most, at most ten.
        worst: Vec<FragmentedNode>,
        /// GPUs that are not counted: on nodes that take no work, do not answer, are kept for a tenant or have a taint, or not healthy.
        left_out: u32,
    }
}
output! {
    /// How much of what is free is of use.
    FragmentationReport {
        /// One sentence.
        summary: String,
        /// By model.
        models: Vec<FragmentedModel>,
        /// What is taken as typical: the shapes of the workloads that are known, most frequent first.
        typical: Vec<TypicalWork>,
        /// No workload is known: sizes 1, 2, 4 and 8 are taken as equally frequent.
        assumed: bool,
        /// Revision of the snapshot.
        revision: u64,
        /// What to call next.
        next: Vec<SuggestedCall>,
    }
}

/// What capacity is looked for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CapacityFindParams {
    /// What would be run.
    pub spec: WorkloadSpec,
    /// Count at most so many copies; 8 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub copies_max: Option<u32>,
}

output! {
    /// Where and how often something would fit now.
    CapacityFound {
        /// One sentence.
        summary: String,
        /// Copies that could start now, at most `copies_max`, behind all that waits.
        copies: u32,
        /// Where the first would go, or why it would not.
        placement: PlacementReport,
        /// Who would be told to end for it, if that is how it would get its place.
        leaves: Vec<Blocker>,
        /// It would go to simulated hardware.
        simulated: bool,
        /// What to call next.
        next: Vec<SuggestedCall>,
    }
}

/// A workload that is imagined.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImaginedWorkload {
    /// What.
    pub spec: WorkloadSpec,
    /// It runs so long, seconds; by default its `max_duration_s`, else beyond the horizon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_s: Option<u64>,
    /// It is submitted so much later, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_s: Option<u64>,
}

/// Nodes that are imagined.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImaginedNodes {
    /// An empty node like this one (name or id).
    pub like: String,
    /// How many.
    #[schemars(range(min = 1, max = 256))]
    pub count: u32,
}

read_params! {
    /// What is imagined, on a copy of the fleet.
    ScheduleSimulateParams {
        /// Workloads that are submitted.
        #[schemars(length(max = 64))]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        add: Vec<ImaginedWorkload>,
        /// Workloads that end at once (id, name or prefix).
        #[schemars(length(max = 64))]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        stop: Vec<String>,
        /// Nodes that join.
        #[schemars(length(max = 16))]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        add_nodes: Vec<ImaginedNodes>,
        /// Nodes that are lost with what runs there (name or id).
        #[schemars(length(max = 64))]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        lose_nodes: Vec<String>,
        /// Look so far ahead, seconds; a day by default.
        #[schemars(range(min = 1, max = 2_592_000))]
        #[serde(skip_serializing_if = "Option::is_none")]
        horizon_s: Option<u64>,
    }
}

closed_enum! {
    /// What happens to a workload.
    MomentKind {
        /// It starts.
        Starts = "starts",
        /// It ends.
        Ends = "ends",
        /// It is told to end for more important work.
        MakesRoom = "makes_room",
        /// It has lost its node.
        Lost = "lost"
    }
}
output! {
    /// Something that would happen.
    Moment {
        /// Seconds from now.
        after_s: u64,
        /// To whom.
        workload_id: WorkloadId,
        /// Its name (untrusted text).
        name: String,
        /// What.
        event: MomentKind,
        /// On which nodes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        nodes: Vec<String>,
        /// It is one of those that were imagined.
        imagined: bool,
    }
}
output! {
    /// What still waits at the end.
    StillWaits {
        /// Who.
        workload_id: WorkloadId,
        /// Its name (untrusted text).
        name: String,
        /// Why.
        why: String,
    }
}
output! {
    /// What would happen. Nothing of it has: it was tried on a copy of the fleet.
    ScheduleSimulation {
        /// One sentence.
        summary: String,
        /// In order of time, at most 200.
        moments: Vec<Moment>,
        /// There were more moments.
        truncated: bool,
        /// What waits at the end, at most 50.
        waiting: Vec<StillWaits>,
        /// What had to be taken for granted.
        assumptions: Vec<Assumption>,
        /// Revision of the fleet that was copied.
        revision: u64,
    }
}
