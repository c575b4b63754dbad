//! What the engine may look up: a snapshot of the live cluster.
//!
//! An empty list means that nothing is known about its kind, not that there is
//! none; names are then taken as the text gives them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Now;

/// The snapshot.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Context {
    /// Nodes of the cluster.
    pub nodes: Vec<ContextNode>,
    /// Workloads that the caller may see.
    pub workloads: Vec<ContextWorkload>,
    /// Deployments that the caller may see.
    pub deployments: Vec<ContextDeployment>,
    /// The present, for times in words.
    pub now: Option<Now>,
    /// The caller's tenant.
    pub tenant: Option<String>,
}

/// A node, as far as known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ContextNode {
    /// Id, such as `node_…`.
    pub id: Option<String>,
    /// Name for people.
    pub name: String,
    /// Its GPUs.
    pub gpu: Option<ContextGpu>,
    /// State, such as ready or draining.
    pub state: Option<String>,
    /// Zone.
    pub zone: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// The GPUs of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ContextGpu {
    /// Model, such as H100.
    pub model: Option<String>,
    /// How many.
    pub count: Option<u32>,
}

/// A workload, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ContextWorkload {
    /// Id.
    pub id: String,
    /// Name for people.
    pub name: Option<String>,
    /// Kind, such as training.
    pub kind: Option<String>,
    /// Catalogue id of its model.
    pub model: Option<String>,
    /// Image.
    pub image: Option<String>,
    /// State, such as running.
    pub state: Option<String>,
    /// Name of the node that it runs on.
    pub node: Option<String>,
}

/// A deployment, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ContextDeployment {
    /// Name.
    pub name: String,
    /// Catalogue id of its model.
    pub model: Option<String>,
    /// Image.
    pub image: Option<String>,
    /// Copies.
    pub replicas: Option<u32>,
    /// Revision.
    pub revision: Option<u64>,
}
