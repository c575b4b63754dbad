//! What the engine answers: an intent, questions, or a refusal.

use claw_proto::closed_enum;
use claw_proto::spec::{Autoscale, AutoscaleMetric, Budget, GpuRequest, WorkloadSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

closed_enum! {
    /// Why a request is refused.
    RefusalCode {
        /// The model's weights cannot fit the GPUs asked for.
        DoesNotFit = "does_not_fit",
        /// The request contradicts itself.
        Contradictory = "contradictory",
        /// Not an operation that can be asked for in words.
        Unsupported = "unsupported",
        /// Asks to get round approval, audit, isolation or tenancy.
        Unsafe = "unsafe",
        /// Blank, or only punctuation, emoji or a greeting.
        Empty = "empty"
    }
}
closed_enum! {
    /// What a query is about.
    QuerySubject {
        Status = "status", Nodes = "nodes", Gpus = "gpus", Workloads = "workloads", Deployments = "deployments", Logs = "logs",
        Metrics = "metrics", Alerts = "alerts", Costs = "costs", Events = "events", Market = "market", Audit = "audit"
    }
}

/// The answer to one request.
///
/// As JSON it is one object with an `outcome` of `intent`, `question` or
/// `refusal`, the form of the intent cases.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one answer lives at a time, and a box would be one more thing to match through"
)]
pub enum Answer {
    /// Understood in full.
    Intent(Understood),
    /// A person must choose: one or two questions.
    Question(Vec<Question>),
    /// Must not or cannot be done.
    Refusal {
        /// Why, as a code.
        code: RefusalCode,
        /// Why, for a person.
        message: String,
    },
}

/// An intent with its reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Understood {
    /// What is to be done.
    pub intent: Intent,
    /// What was assumed because the words do not say it.
    pub assumptions: Vec<Assumption>,
    /// Where each field of the intent comes from.
    pub provenance: Vec<Provenance>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Intent {
    /// Start a new workload.
    Run {
        /// What to run.
        workload: Box<WorkloadSpec>,
    },
    /// Start a deployment.
    Deploy {
        /// What to run.
        workload: Box<WorkloadSpec>,
        /// Its name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deployment: Option<String>,
        /// How it replaces what runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strategy: Option<Rollout>,
        /// Share of the traffic that a canary gets, percent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        canary_percent: Option<f64>,
        /// Where it goes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<Environment>,
    },
    /// Change a deployment.
    Update {
        /// Its name.
        deployment: String,
        /// The fields that change.
        changes: Box<WorkloadSpec>,
        /// How it replaces what runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strategy: Option<Rollout>,
        /// Share of the traffic that a canary gets, percent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        canary_percent: Option<f64>,
    },
    /// Change how many copies run.
    Scale {
        /// The deployment's name.
        deployment: String,
        /// Copies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replicas: Option<u32>,
        /// Scaling rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        autoscale: Option<Autoscale>,
    },
    /// Stop a workload or a deployment.
    Stop {
        /// The workload's id or name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workload_id: Option<String>,
        /// The deployment's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deployment: Option<String>,
        /// Whether it may end by itself; missing = not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        graceful: Option<bool>,
        /// Time to end by itself, seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_s: Option<u64>,
    },
    /// Return a deployment to an earlier revision.
    Rollback {
        /// Its name.
        deployment: String,
        /// The revision; missing = the one before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to_revision: Option<u64>,
    },
    /// Move all work off a node.
    Drain {
        /// Its name or id.
        node: String,
        /// Whether work that does not leave is stopped; missing = not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
        /// Time for the drain, seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_s: Option<u64>,
    },
    /// Let a drained node take work again.
    Undrain {
        /// Its name or id.
        node: String,
    },
    /// Find out what is wrong.
    Diagnose {
        /// With what.
        target: Target,
        /// What is seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        symptom: Option<Symptom>,
    },
    /// Read something.
    Query {
        /// What is read.
        subject: QuerySubject,
        /// What is left out.
        #[serde(default, skip_serializing_if = "QueryFilter::is_empty")]
        filter: QueryFilter,
        /// Most entries.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// Be told when something happens.
    Alert {
        /// What is watched.
        metric: AutoscaleMetric,
        /// Whether above or below the threshold.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        op: Option<Comparison>,
        /// The threshold, in the metric's unit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<f64>,
        /// For so long, seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_s: Option<u64>,
        /// Where.
        #[serde(default, skip_serializing_if = "QueryFilter::is_empty")]
        filter: QueryFilter,
    },
    /// Buy capacity on the market.
    Bid {
        /// The GPUs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<GpuRequest>,
        /// For so long, seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_s: Option<u64>,
        /// What may be spent.
        budget: Budget,
        /// What runs there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workload: Option<Box<WorkloadSpec>>,
    },
    /// Sell capacity on the market.
    Offer {
        /// The node's name or id.
        node: String,
        /// The GPUs; missing = all of the node's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<GpuRequest>,
        /// The least price.
        budget: Budget,
        /// For so long, seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_s: Option<u64>,
    },
}

closed_enum! {
    /// How a new revision replaces the old one.
    Rollout { Rolling = "rolling", Canary = "canary", BlueGreen = "blue_green" }
}
closed_enum! {
    /// Where a deployment goes.
    Environment { Dev = "dev", Staging = "staging", Production = "production" }
}
closed_enum! {
    /// What is seen when something is wrong.
    Symptom {
        Slow = "slow", Pending = "pending", Crash = "crash", Oom = "oom", Error = "error", Overheating = "overheating",
        Unreachable = "unreachable", Idle = "idle"
    }
}
closed_enum! {
    /// What sort of thing a diagnosis is about.
    TargetKind { Cluster = "cluster", Node = "node", Gpu = "gpu", Workload = "workload", Deployment = "deployment" }
}
closed_enum! {
    /// On which side of a threshold.
    Comparison { Above = ">", Below = "<" }
}

/// What a diagnosis is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What sort of thing.
    pub kind: TargetKind,
    /// Its name or id; of a GPU, its node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Number of the GPU on its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
}

/// Narrows a query; a missing field does not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueryFilter {
    /// Name or id of a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Id or name of a workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_id: Option<String>,
    /// Name of a deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// GPU model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_model: Option<String>,
    /// State of a node or workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// A metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<AutoscaleMetric>,
    /// Not older than so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_s: Option<u64>,
    /// Tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Text that must occur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl QueryFilter {
    /// Whether nothing is narrowed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Something that the words do not say and the engine assumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Assumption {
    /// Dotted field of the intent.
    pub field: String,
    /// The assumed value; null where the field is deliberately left open.
    pub value: serde_json::Value,
    /// Why.
    pub why: String,
}

/// Where a field of an intent comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    /// Dotted field of the intent.
    pub field: String,
    /// Its source.
    pub source: Source,
}

/// A source of a field's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// The request's own words.
    Text(Span),
    /// The model catalogue.
    Catalogue,
    /// The live cluster.
    Context,
    /// A default, also stated as an assumption.
    Default,
    /// A language model proposed it and the checker let it pass; also stated as an assumption.
    Model,
}

/// A part of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
    /// The text between.
    pub text: String,
}

/// Something that a person must decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// Dotted field of the intent that is unclear.
    pub field: String,
    /// The question.
    pub prompt: String,
    /// Answers to choose from; empty if any answer will do.
    pub options: Vec<String>,
}

#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Line<'a> {
    Intent(&'a Understood),
    Question { questions: &'a [Question] },
    Refusal { code: RefusalCode, message: &'a str },
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Intent(understood) => Line::Intent(understood),
            Self::Question(questions) => Line::Question { questions },
            Self::Refusal { code, message } => Line::Refusal { code: *code, message },
        }
        .serialize(serializer)
    }
}

impl Answer {
    /// A refusal with this code.
    pub(crate) fn refusal(code: RefusalCode, message: impl Into<String>) -> Self {
        Self::Refusal { code, message: message.into() }
    }

    /// One question.
    pub(crate) fn ask(field: &str, prompt: impl Into<String>, options: Vec<String>) -> Self {
        Self::Question(vec![Question { field: field.into(), prompt: prompt.into(), options }])
    }
}
