//! The latest numbers of each node; not journaled, gone with the process.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use claw_proto::ids::NodeId;
use claw_tools::nodes::MetricsSnapshot;

/// Latest metrics per node.
#[derive(Debug, Clone, Default)]
pub struct MetricsDesk(Arc<RwLock<BTreeMap<NodeId, MetricsSnapshot>>>);

impl MetricsDesk {
    /// Replaces a node's numbers.
    pub fn put(&self, node_id: NodeId, snapshot: MetricsSnapshot) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(node_id, snapshot);
    }
    /// A node's numbers, if it sent some since the gateway started.
    pub fn get(&self, node_id: NodeId) -> Option<MetricsSnapshot> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&node_id).cloned()
    }
    /// Forgets a node.
    pub fn forget(&self, node_id: NodeId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&node_id);
    }
}
