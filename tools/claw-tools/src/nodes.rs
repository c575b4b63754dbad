//! Operations on nodes and GPUs.

use std::collections::BTreeMap;

use claw_proto::closed_enum;
use claw_proto::ids::{GpuUuid, NodeId, TokenId, WorkloadId};
use claw_proto::message::NodeSettings;
use claw_proto::spec::RuntimeKind;
use claw_proto::time::Timestamp;
use claw_proto::topology::{EngineInfo, GpuDriver, GpuHealth, MigSlice, NodeFinding};

closed_enum! {
    /// Whether the gateway hears from a node.
    NodeLink {
        /// Enrolled, never connected.
        Enrolled = "enrolled",
        /// Connected.
        Online = "online",
        /// Not heard from.
        Unreachable = "unreachable"
    }
}
closed_enum! {
    /// Whether a node takes new work.
    Schedulable {
        /// Takes work.
        Active = "active",
        /// Takes no new work; what runs goes on.
        Cordoned = "cordoned",
        /// Takes no new work; what runs is moved away.
        Draining = "draining",
        /// Takes no new work and has none.
        Drained = "drained"
    }
}

read_params! {
    /// Which nodes.
    NodeListParams {
        /// Only in this link state.
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<NodeLink>,
        /// Only with this GPU model.
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu_model: Option<String>,
        /// Only with these labels.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// Only these fields of each row.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        fields: Vec<String>,
        /// Only what changed after this revision.
        #[serde(skip_serializing_if = "Option::is_none")]
        since_revision: Option<u64>,
        /// Rows per page, 20 by default.
        #[schemars(range(min = 1, max = 100))]
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
        /// `next_cursor` of the page before.
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
}
read_params! {
    /// Which GPUs.
    GpuListParams {
        /// Only on this node (name or id).
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<String>,
        /// Only of this model.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// Only free ones, or only held ones.
        #[serde(skip_serializing_if = "Option::is_none")]
        free: Option<bool>,
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

/// Which node.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeGetParams {
    /// Name or id.
    pub node: String,
}

mutation_params! {
    /// Drain: move the work away and take no new work.
    NodeDrainParams {
        /// Name or id.
        node: String,
        /// Grace of each workload, seconds; by default its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 3600))]
        grace_s: Option<u32>,
    }
}
mutation_params! {
    /// Name one node.
    NodeActParams {
        /// Name or id.
        node: String,
    }
}
mutation_params! {
    /// Replace the certificate authority.
    CaRotateParams {}
}
mutation_params! {
    /// Set and remove labels.
    NodeLabelParams {
        /// Name or id.
        node: String,
        /// Labels to set.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        set: BTreeMap<String, String>,
        /// Labels to remove.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remove: Vec<String>,
    }
}
mutation_params! {
    /// Make a one-time enrollment token.
    NodeTokenCreateParams {
        /// The only name that a node may enroll under with it; any if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Labels that the node gets.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// Valid for so many seconds, 3600 by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 604_800))]
        ttl_s: Option<u32>,
    }
}
mutation_params! {
    /// Change settings of a node.
    NodeConfigSetParams {
        /// Name or id.
        node: String,
        /// How often metrics are sent, milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 500, max = 3_600_000))]
        metrics_interval_ms: Option<u64>,
        /// Log bytes that the node may hold until acknowledged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 65_536, max = 17_179_869_184_u64))]
        log_buffer_bytes: Option<u64>,
    }
}

output! {
    /// One node, in a row.
    NodeRow {
        /// Id.
        node_id: NodeId,
        /// Name.
        name: String,
        /// Heard from?
        link: NodeLink,
        /// Since when.
        link_since: Timestamp,
        /// Takes new work?
        schedulable: Schedulable,
        /// GPUs in short, such as `8×H100`.
        gpus: String,
        /// GPUs and MIG slices that can be given, in all: none that is cut in slices.
        gpus_total: u32,
        /// Those of which nobody has a part.
        gpus_free: u32,
        /// CPU cores free and in all.
        cpu_cores_free: f64,
        /// Memory free, GiB.
        memory_gib_free: f64,
        /// Workloads on it.
        workloads: u32,
        /// Its GPUs or runtime are simulated.
        simulated: bool,
        /// Labels (untrusted text).
        labels: BTreeMap<String, String>,
        /// Revision of its last change.
        revision: u64,
    }
}
output! {
    /// A page of nodes.
    NodeList {
        /// Rows; only the asked fields if `fields` was given.
        #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
        nodes: Vec<serde_json::Value>,
        /// How many match in all.
        total: u32,
        /// There are more.
        truncated: bool,
        /// For the next page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
        /// Revision of the snapshot.
        revision: u64,
    }
}
output! {
    /// Who has a part of a GPU.
    GpuShare {
        /// Who.
        workload_id: WorkloadId,
        /// How much of it, over 0 and below 1.
        share: f64,
    }
}
output! {
    /// One GPU, in a row.
    GpuRow {
        /// UUID, the unit of allocation.
        uuid: GpuUuid,
        /// Node.
        node_id: NodeId,
        /// Node's name.
        node: String,
        /// Index on the node.
        index: u32,
        /// Model.
        model: String,
        /// Memory, GiB.
        memory_gib: f64,
        /// Health.
        health: GpuHealth,
        /// NVLink island on its node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nvlink_island: Option<u32>,
        /// Its rail: which of the node's RDMA adapters is nearest to it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rail: Option<u32>,
        /// Whoever shares it is held to the share's memory by the node's kernel.
        memory_capped: bool,
        /// Set if it is a slice of another GPU, which is not given to workloads itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slice: Option<MigSlice>,
        /// Who holds it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held_by: Option<WorkloadId>,
        /// Who has shares of it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shares: Vec<GpuShare>,
        /// It is simulated.
        simulated: bool,
    }
}
output! {
    /// A page of GPUs.
    GpuList {
        /// Rows; only the asked fields if `fields` was given.
        #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
        gpus: Vec<serde_json::Value>,
        /// How many match in all.
        total: u32,
        /// There are more.
        truncated: bool,
        /// For the next page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
        /// Revision of the snapshot.
        revision: u64,
    }
}
output! {
    /// One node, whole.
    NodeDetail {
        /// The row.
        node: NodeRow,
        /// Host name.
        hostname: String,
        /// Operating system.
        os: String,
        /// CPU architecture.
        arch: String,
        /// Agent's version.
        agent_version: String,
        /// GPU driver.
        gpu_driver: GpuDriver,
        /// Runtimes.
        runtimes: Vec<RuntimeKind>,
        /// What is wrong with it, as it says itself (untrusted text).
        findings: Vec<NodeFinding>,
        /// Its container engine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        engine: Option<EngineInfo>,
        /// GPUs.
        gpus: Vec<GpuRow>,
        /// Workloads on it.
        workloads: Vec<crate::workloads::WorkloadRow>,
        /// Running there without being known here.
        orphans: Vec<Orphan>,
        /// Settings.
        settings: NodeSettings,
        /// Last metrics, if it sent some since the gateway started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metrics: Option<MetricsSnapshot>,
        /// What its drivers reported of its GPUs since the gateway started, newest first, at most twenty (untrusted text).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gpu_events: Vec<claw_proto::message::GpuEvent>,
        /// What its kernel said that may tell of a fault; absent if it sends none. `diagnose` reads it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kernel_log: Option<KernelHeard>,
        /// Enrolled with this token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enrolled_with: Option<TokenId>,
    }
}
output! {
    /// Lines of a node's kernel that may tell of a fault.
    KernelHeard {
        /// Kept by the node since its agent started.
        kept: u64,
        /// Held here, the newest.
        held: u64,
        /// Found no room, there or here.
        dropped: u64,
        /// Overwritten by the kernel before they were read.
        missed: u64,
        /// When the node told of it last.
        heard_at: Timestamp,
    }
}
output! {
    /// A node's latest numbers.
    MetricsSnapshot {
        /// Node's clock.
        at: Timestamp,
        /// GPUs.
        gpus: Vec<claw_proto::message::GpuMetrics>,
        /// Host.
        system: claw_proto::message::SystemMetrics,
        /// What the attempts on it use.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        workloads: Vec<claw_proto::message::WorkloadMetrics>,
    }
}
output! {
    /// An attempt that runs on a node and is not wanted there; found, not killed.
    Orphan {
        /// Workload it says it is.
        workload_id: WorkloadId,
        /// Attempt it says it is.
        attempt: claw_proto::ids::Attempt,
        /// Since when it is known.
        found_at: Timestamp,
        /// Why it is an orphan.
        why: String,
    }
}
