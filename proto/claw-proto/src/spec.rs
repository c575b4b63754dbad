//! The workload specification: what a caller wants to run.
//!
//! The fields, names and units are those of the intent format (units last,
//! `gpu.count` = all GPUs of one replica), plus what running needs: arguments,
//! working directory, user, secrets by handle, grace period, labels, partition
//! behavior, outputs. All fields are optional here; [`crate::validation`] turns
//! a specification into a [`crate::validation::ValidSpec`], which is all that the
//! core accepts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::closed_enum;
use crate::time::Timestamp;

/// How a node's label begins that keeps away who does not bear it: the label `taint/<key>` is the taint `<key>`.
pub const TAINT_PREFIX: &str = "taint/";

closed_enum! {
    /// What sort of work it is.
    WorkloadKind { Inference = "inference", Training = "training", Batch = "batch", Interactive = "interactive", Service = "service" }
}
closed_enum! {
    /// Precision of a model's weights.
    Quantization { Fp32 = "fp32", Fp16 = "fp16", Bf16 = "bf16", Fp8 = "fp8", Int8 = "int8", Int4 = "int4" }
}
closed_enum! {
    /// Who made a GPU.
    GpuVendor {
        Nvidia = "nvidia", Amd = "amd", Apple = "apple", Intel = "intel",
        /// Any other, such as what only Vulkan sees.
        Other = "other"
    }
}
closed_enum! {
    /// How the GPUs of one replica must be connected.
    Interconnect { Nvlink = "nvlink", Any = "any" }
}
closed_enum! {
    /// What keeps a workload's GPUs apart from others' work.
    Isolation {
        /// Nothing need: a share of a GPU will do. The default.
        None = "none",
        /// Memory: as `none`, but of a share only where every program that shares the GPU is held to its memory.
        Memory = "memory",
        /// Hardware: whole GPUs, or MIG slices.
        Hardware = "hardware"
    }
}
closed_enum! {
    /// Order in the queue.
    Priority {
        /// Value 1000.
        Critical = "critical",
        /// Value 750.
        High = "high",
        /// Value 500, the default.
        Normal = "normal",
        /// Value 100.
        Low = "low",
        /// Value 0.
        BestEffort = "best_effort"
    }
}
closed_enum! {
    /// When an ended workload is started again.
    RestartPolicy { Never = "never", OnFailure = "on_failure", Always = "always" }
}
closed_enum! {
    /// When an image is fetched from its registry.
    PullPolicy {
        /// At each start.
        Always = "always",
        /// If the node does not have it; the default, save for a tag `latest` or none.
        IfMissing = "if_missing",
        /// Never: the node has to have it.
        Never = "never"
    }
}
closed_enum! {
    /// How workloads spread over nodes.
    PlacementStrategy { Pack = "pack", Spread = "spread" }
}
closed_enum! {
    /// Nodes that belong together.
    TopologyDomain {
        /// A node, alone.
        Node = "node",
        /// Nodes of one rack, by the node label `rack`.
        Rack = "rack",
        /// Nodes of one zone, by the node label `zone`.
        Zone = "zone"
    }
}
closed_enum! {
    /// Whether capacity may be bought on the market.
    MarketUse { Never = "never", Overflow = "overflow", Only = "only" }
}
closed_enum! {
    /// Currency of a budget.
    BudgetUnit { Molt = "molt", Usd = "usd" }
}
closed_enum! {
    /// What a budget's amount is per.
    BudgetPer { GpuHour = "gpu_hour", Hour = "hour", Total = "total" }
}
closed_enum! {
    /// Metric of an autoscale rule.
    AutoscaleMetric {
        GpuTemperature = "gpu_temperature_celsius", GpuUtilization = "gpu_utilization_percent", GpuMemoryUsed = "gpu_memory_used_percent",
        GpuPower = "gpu_power_watts", NodeUnreachable = "node_unreachable", QueueDepth = "queue_depth", ErrorRate = "error_rate_percent",
        LatencyP99 = "latency_p99_ms"
    }
}

impl Priority {
    /// The number that the queue orders by; higher goes first.
    pub const fn value(self) -> u32 {
        match self {
            Self::Critical => 1000,
            Self::High => 750,
            Self::Normal => 500,
            Self::Low => 100,
            Self::BestEffort => 0,
        }
    }
}

/// GPUs that one replica needs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GpuRequest {
    /// All GPUs of one replica; 0 = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Model, such as H100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Models that will do where `model` has no room, most wanted first; without `model`, any of
    /// these, whichever fits best. One replica gets GPUs of one model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub model_fallbacks: Vec<String>,
    /// Vendor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<GpuVendor>,
    /// Least memory per GPU, GiB; of a share or a slice, what that has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gib_min: Option<f64>,
    /// Wanted connection between the GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interconnect: Option<Interconnect>,
    /// Share of one GPU, over 0 and up to 1. Others get the rest. Nothing keeps their time apart,
    /// and their memory only where the node's kernel does (`isolation` `memory` asks for it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// MIG profile, such as 1g.10gb: a slice that the node has cut, kept apart by hardware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_profile: Option<String>,
    /// What has to keep them apart from others' work, at least; what offers less is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
}

impl GpuRequest {
    /// All models that do, most wanted first; none for any.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.model.iter().chain(&self.model_fallbacks).map(String::as_str)
    }
}

/// Scaling rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Autoscale {
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
    /// What is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<AutoscaleMetric>,
    /// The value it is held at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
}

/// Which other work it is kept apart from, and how far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AntiAffinity {
    /// Work whose own labels (`labels` of its spec) have all of these.
    pub labels: BTreeMap<String, String>,
    /// Not on the same node (the default), in the same rack or in the same zone. A node without the label `rack` or
    /// `zone` is one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<TopologyDomain>,
}

/// Where it may run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Placement {
    /// Node name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Nodes to avoid, names or ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_nodes: Vec<String>,
    /// Zone (node label `zone`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Labels that the node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Pack or spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<PlacementStrategy>,
    /// Taints that it bears, as `key` or `key=value`. A node's label `taint/<key>` keeps away who does not; it may be
    /// written in full.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<String>,
    /// Work that it is kept apart from; that of its own tenant is kept apart from it, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anti_affinity: Option<AntiAffinity>,
}

impl Placement {
    /// It bears the taint that this label of a node is; whatever is no taint keeps nobody away.
    pub fn bears(&self, label: &str, value: &str) -> bool {
        let Some(taint) = label.strip_prefix(TAINT_PREFIX) else { return true };
        self.tolerations.iter().any(|borne| {
            let borne = borne.strip_prefix(TAINT_PREFIX).unwrap_or(borne);
            borne.split_once('=').map_or(borne == taint, |(key, only)| (key, only) == (taint, value))
        })
    }
}

/// A mounted volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Named volume, `cache:<name>` of the node's weights cache, or a path under a host root that the node's own config allows.
    pub source: String,
    /// Path inside the workload.
    pub target: String,
    /// Mounted read-only.
    #[serde(default)]
    pub read_only: bool,
}

/// What may be spent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Amount in `unit`.
    pub amount: f64,
    /// Currency.
    pub unit: BudgetUnit,
    /// What the amount is per.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<BudgetPer>,
}

/// A secret, by handle only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Handle in the secret store.
    pub handle: String,
    /// File name under the secrets folder inside the workload.
    pub target: String,
}

/// What a node that lost its gateway does with the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnPartition {
    /// Runs on; it is not started elsewhere, and adopted when the node is back.
    Keep,
    /// Stops itself after so many seconds without the gateway; only then may a copy start elsewhere.
    StopAfter(u32),
}

impl Default for OnPartition {
    fn default() -> Self {
        Self::StopAfter(crate::limits::STOP_AFTER_S_DEFAULT)
    }
}

/// What to run, as wished. Every field is optional; a missing one has a stated default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Name for people: lower-case letters, digits, dashes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What sort of work it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<WorkloadKind>,
    /// Catalogue id of a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Precision of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// Container image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Program and its arguments (argv).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Arguments after the image's own entry point, or after `command`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Ports that the workload listens on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// GPUs of one replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuRequest>,
    /// Nodes that one replica spans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// CPU cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// Host memory, GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gib: Option<f64>,
    /// Scratch disk, GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<f64>,
    /// Shared memory, GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_gib: Option<f64>,
    /// Copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Scaling rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
    /// Order in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// May be stopped for more important work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemptible: Option<bool>,
    /// Stopped after running so long, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration_s: Option<u64>,
    /// Not started before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Not started before each of these is opened (`workload_release`), such as `dataset-ready`: who waits for it
    /// names it here, and who knows that it is there opens it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
    /// To be done by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// When it is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// Most restarts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// Where it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Tenant that it runs for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// How often it saves its state, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_interval_s: Option<u64>,
    /// Mounted volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Whether capacity may be bought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub market: Option<MarketUse>,
    /// What may be spent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Working directory of the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// User that it runs as: a name, uid or uid:gid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Secrets, by handle.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretRef>,
    /// Between TERM and KILL, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u32>,
    /// Labels of the workload.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What a cut-off node does with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_partition: Option<OnPartition>,
    /// Paths whose content is its result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// When the image is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullPolicy>,
    /// Handle of the secret (`username:password`) for the image's registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_secret: Option<String>,
    /// The container's own file system is read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only_root: Option<bool>,
    /// Which runtime executes it; by default a container, or the simulator on a simulated node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeKind>,
}

closed_enum! {
    /// What executes a workload on a node.
    RuntimeKind {
        /// A container engine.
        Docker = "docker",
        /// A host process without isolation; only where the node's config allows it.
        Process = "process",
        /// The simulator: nothing really runs, and every answer says so.
        Sim = "sim"
    }
}
