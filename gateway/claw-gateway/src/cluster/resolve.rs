//! From what a caller wrote to the thing meant: id, name or unique prefix.

use std::sync::Arc;

use claw_proto::ids::{NodeId, OperationId, WorkloadId};
use claw_tools::nearest::nearest;
use claw_tools::outcome::clip;
use claw_tools::refusal::{ErrorCode, Refusal};
use serde_json::json;

use super::{Cluster, OperationEntry};
use crate::registry::NodeEntry;
use crate::workload::WorkloadEntry;

impl Cluster {
    /// The node of this id or name.
    pub fn resolve_node(&self, text: &str) -> Result<&Arc<NodeEntry>, Refusal> {
        if text.starts_with(NodeId::PREFIX)
            && let Ok(id) = text.parse::<NodeId>()
        {
            return self.nodes.get(id).ok_or_else(|| {
                let removed = if self.nodes.was_removed(id) { "; it was removed from the fleet" } else { "" };
                self.no_node(text, removed)
            });
        }
        if let Some(node) = self.nodes.by_name(text) {
            return Ok(node);
        }
        let matches: Vec<_> = self.nodes.iter().filter(|n| !text.is_empty() && n.name.starts_with(text)).collect();
        match matches.as_slice() {
            [one] => Ok(one),
            [] => Err(self.no_node(text, "")),
            many => {
                Err(Refusal::new(ErrorCode::Ambiguous, format!("{} nodes begin with {:?}", many.len(), clip(text, 60)))
                    .with_field("node", text)
                    .with_allowed(many.iter().take(10).map(|n| n.name.clone())))
            }
        }
    }

    fn no_node(&self, text: &str, more: &str) -> Refusal {
        Refusal::new(ErrorCode::NotFound, format!("no node {:?}{more}", clip(text, 60)))
            .with_field("node", text)
            .with_nearest(nearest(text, self.nodes.iter().map(|n| n.name.as_str())))
            .with_next("node_list", json!({}))
    }

    /// The workload of this id, name or unique prefix of either.
    pub fn resolve_workload(&self, text: &str) -> Result<&Arc<WorkloadEntry>, Refusal> {
        if let Ok(id) = text.parse::<WorkloadId>()
            && let Some(workload) = self.workloads.get(id)
        {
            return Ok(workload);
        }
        if let Some(workload) = self.workloads.by_name(text) {
            return Ok(workload);
        }
        let is_match = |w: &&Arc<WorkloadEntry>| {
            w.name.starts_with(text)
                || (text.len() > WorkloadId::PREFIX.len() && w.workload_id.to_string().starts_with(text))
        };
        // A whole name of an ended workload: the newest of that name.
        if let Some(workload) = self.workloads.iter().rev().find(|w| w.name == text) {
            return Ok(workload);
        }
        let live: Vec<_> = self
            .workloads
            .iter()
            .filter(|w| !text.is_empty() && !w.state.is_final())
            .filter(is_match)
            .take(11)
            .collect();
        let matches = if live.is_empty() && !text.is_empty() {
            self.workloads.iter().filter(is_match).take(11).collect()
        } else {
            live
        };
        match matches.as_slice() {
            [one] => Ok(one),
            [] => Err(Refusal::new(ErrorCode::NotFound, format!("no workload {:?}", clip(text, 60)))
                .with_field("workload", text)
                .with_nearest(nearest(text, self.workloads.iter().rev().take(1000).map(|w| w.name.as_str())))
                .with_next("workload_list", json!({}))),
            many => Err(Refusal::new(
                ErrorCode::Ambiguous,
                format!("{} workloads begin with {:?}", many.len(), clip(text, 60)),
            )
            .with_field("workload", text)
            .with_allowed(many.iter().take(10).map(|w| format!("{} ({})", w.workload_id, w.name)))),
        }
    }

    /// The operation of this id.
    pub fn resolve_operation(&self, id: OperationId) -> Result<&Arc<OperationEntry>, Refusal> {
        self.operations.get(&id).ok_or_else(|| {
            Refusal::new(ErrorCode::NotFound, format!("no operation {id}"))
                .with_field("operation_id", id.to_string())
                .with_next("operation_list", json!({}))
        })
    }
}
