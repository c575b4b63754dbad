//! The state as one document, for a quick start; indexes are rebuilt.

use std::io::{self, Write};
use std::sync::Arc;

use claw_proto::ids::{GpuUuid, NodeId};
use claw_proto::time::Timestamp;
use claw_tools::operations::OperationState;
use claw_tools::reservations::Reservation;
use serde::{Deserialize, Serialize};

use super::{
    ApprovalEntry, CaRotations, Cluster, ExecEntry, KeyEntry, OperationEntry, PlanEntry, ReceiptEntry, SecretEntry,
    TokenEntry,
};
use crate::event::ReceiptKey;
use crate::policy::Policy;
use crate::registry::NodeEntry;
use crate::scheduler::LikelyWork;
use crate::tenancy::{Books, Tenant, Tenants, part_amounts};
use crate::workload::WorkloadEntry;

/// Version of the snapshot's form.
pub const SNAPSHOT_FORMAT: u16 = 1;

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Another form; the events are folded instead.
    #[error("snapshot format {got} is not {SNAPSHOT_FORMAT}")]
    Format {
        /// Format of the stored snapshot.
        got: u16,
    },
    /// Not the JSON of a snapshot.
    #[error("snapshot does not parse")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Document {
    seq: u64,
    revision: u64,
    epoch: u64,
    started_at: Timestamp,
    nodes: Vec<Arc<NodeEntry>>,
    removed_nodes: Vec<NodeId>,
    workloads: Vec<Arc<WorkloadEntry>>,
    submitted: u64,
    operations: Vec<Arc<OperationEntry>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    execs: Vec<Arc<ExecEntry>>,
    plans: Vec<Arc<PlanEntry>>,
    approvals: Vec<Arc<ApprovalEntry>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tenants: Vec<Arc<Tenant>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    untenanted: Option<Books>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reservations: Vec<Arc<Reservation>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Arc<SecretEntry>>,
    keys: Vec<Arc<KeyEntry>>,
    tokens: Vec<Arc<TokenEntry>>,
    receipts: Vec<(Arc<ReceiptKey>, Arc<ReceiptEntry>)>,
    mass_loss: Option<(u32, u32)>,
    #[serde(default)]
    ca: CaRotations,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    contested_gpus: Vec<(GpuUuid, NodeId)>,
    #[serde(default)]
    likely_work: LikelyWork,
}

/// The entries themselves, not copies: a fleet's history is large.
fn share_all<'a, T: 'a>(entries: impl Iterator<Item = &'a Arc<T>>) -> Vec<Arc<T>> {
    entries.cloned().collect()
}

impl Cluster {
    /// The state as JSON.
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_snapshot(&mut bytes).expect("memory takes all of it");
        bytes
    }

    /// Writes the same, piece by piece: the state of a large fleet is some hundred megabytes.
    ///
    /// # Errors
    /// What `to` refuses.
    pub fn write_snapshot(&self, to: impl Write) -> io::Result<()> {
        let document = Document {
            seq: self.seq,
            revision: self.revision,
            epoch: self.epoch,
            started_at: self.started_at,
            nodes: share_all(self.nodes.iter()),
            removed_nodes: self.nodes.removed().copied().collect(),
            workloads: share_all(self.workloads.iter()),
            submitted: self.workloads.submitted(),
            operations: share_all(self.operations.values()),
            execs: share_all(self.execs.values()),
            plans: share_all(self.plans.values()),
            approvals: share_all(self.approvals.values()),
            tenants: share_all(self.tenants.iter()),
            untenanted: self.tenants.untenanted(),
            reservations: share_all(self.reservations.iter()),
            secrets: share_all(self.secrets.values()),
            keys: share_all(self.keys.values()),
            tokens: share_all(self.tokens.values()),
            receipts: self.receipts.iter().map(|(k, v)| (Arc::clone(k), Arc::clone(v))).collect(),
            mass_loss: self.mass_loss,
            ca: self.ca,
            contested_gpus: self.nodes.contested(),
            likely_work: self.likely.work().clone(),
        };
        // It holds only maps with string keys and finite numbers: nothing but `to` can fail.
        serde_json::to_writer(to, &document).map_err(io::Error::from)
    }

    /// Reads a snapshot and rebuilds the indexes.
    pub fn from_snapshot(format: u16, bytes: &[u8], policy: Arc<Policy>) -> Result<Self, SnapshotError> {
        if format != SNAPSHOT_FORMAT {
            return Err(SnapshotError::Format { got: format });
        }
        let d: Document = serde_json::from_slice(bytes)?;
        let mut cluster = Self {
            seq: d.seq,
            revision: d.revision,
            epoch: d.epoch,
            started_at: d.started_at,
            mass_loss: d.mass_loss,
            ca: d.ca,
            likely: Arc::new(d.likely_work.into()),
            ..Self::new(policy)
        };
        for (gpu, home) in d.contested_gpus {
            cluster.nodes.restore_home(gpu, home);
        }
        for node in d.nodes {
            cluster.nodes.insert(Arc::unwrap_or_clone(node));
        }
        for id in d.removed_nodes {
            cluster.nodes.restore_removed(id);
        }
        cluster.tenants = Tenants::restored(d.tenants, d.untenanted, cluster.policy.half_life_s());
        for reservation in d.reservations {
            cluster.reservations.set(reservation);
        }
        for workload in d.workloads {
            cluster.count_usage(&workload);
            cluster.workloads.insert(Arc::unwrap_or_clone(workload));
        }
        cluster.workloads.restore_submitted(d.submitted);
        for entry in d.operations {
            cluster.index_operation(&entry);
            cluster.operations.insert(entry.record.operation_id, entry);
        }
        cluster.execs = d.execs.into_iter().map(|e| (e.operation_id, e)).collect();
        cluster.plans = d.plans.into_iter().map(|p| (p.record.view.plan_id, p)).collect();
        cluster.approvals = d.approvals.into_iter().map(|a| (a.approval_id, a)).collect();
        cluster.secrets = d.secrets.into_iter().map(|s| (s.handle.clone(), s)).collect();
        cluster.keys = d.keys.into_iter().map(|k| (k.key_id, k)).collect();
        cluster.tokens = d.tokens.into_iter().map(|t| (t.token_id, t)).collect();
        for (key, receipt) in d.receipts {
            cluster.receipts_by_time.insert((receipt.at, Arc::clone(&key)));
            cluster.receipts.insert(key, receipt);
        }
        Ok(cluster)
    }

    fn count_usage(&mut self, workload: &WorkloadEntry) {
        let (id, demand) = (workload.workload_id, workload.spec.node_demand());
        let (tenant, half_life_s) = (workload.spec.spec().tenant.as_deref(), self.policy.half_life_s());
        for live in workload.lives() {
            // Those that somebody has a part of already are counted.
            let n_gpus = self.workloads.n_alone(id, live.node_id, &live.gpus);
            self.nodes.update(live.node_id, |n| n.usage.take(id, demand, n_gpus));
            // What was had lately stands in the snapshot itself.
            let more = part_amounts(&workload.spec);
            self.tenants.change(tenant, &|books| books.held = books.held.plus(more), half_life_s);
        }
    }

    fn index_operation(&mut self, entry: &OperationEntry) {
        if entry.state == OperationState::Pending {
            self.open_goal(&entry.record);
        }
    }
}
