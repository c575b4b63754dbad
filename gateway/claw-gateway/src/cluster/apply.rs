//! Applying an event. Total, deterministic, and the only place that changes a
//! [`Cluster`].

mod works;

use std::sync::Arc;

use claw_proto::ids::{NodeId, WorkloadId};
use claw_proto::message::NodeSettings;
use claw_proto::time::Timestamp;
use claw_tools::approvals::{ApprovalDecision, ApprovalState};
use claw_tools::nodes::{NodeLink, Schedulable};
use claw_tools::operations::OperationState;
use claw_tools::secrets::AccessPolicy;

use super::{
    ApprovalEntry, Cluster, ExecEntry, KeyEntry, OperationEntry, PlanEntry, ReceiptEntry, SecretEntry, TokenEntry,
};
use crate::event::{Event, EventRecord, Goal, OperationRecord};
use crate::registry::{NodeEntry, NodeUsage, OrphanEntry};
use crate::workload::WorkloadEntry;

/// How much longer than receipts operations are kept in memory: 30 days, milliseconds.
const OPERATIONS_KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1000;

impl Cluster {
    /// Applies one event.
    pub fn apply(&mut self, record: &EventRecord) {
        self.seq += 1;
        self.clock = self.clock.max(record.at);
        if changes_fleet(&record.event) {
            self.revision += 1;
        }
        self.apply_fleet(record);
        self.apply_certificates(record);
        self.apply_orphans(record);
        self.apply_workload(record);
        self.apply_access(record);
        self.apply_secrets(record);
        self.apply_tenants(record);
        self.apply_desk(record);
    }

    /// Events about the gateway and its nodes.
    fn apply_fleet(&mut self, record: &EventRecord) {
        let at = record.at;
        match &record.event {
            Event::GatewayStarted { epoch } => {
                self.epoch = *epoch;
                self.started_at = at;
            }
            Event::NodeEnrolled { node_id, name, labels, token_id } => {
                if let Some(token) = self.tokens.get_mut(token_id) {
                    Arc::make_mut(token).used_by = Some(*node_id);
                }
                self.nodes.insert(NodeEntry {
                    node_id: *node_id,
                    name: name.clone(),
                    link: NodeLink::Enrolled,
                    link_since: at,
                    last_heard: at,
                    schedulable: Schedulable::Active,
                    labels: labels.clone(),
                    capabilities: None,
                    store_id: String::new(),
                    settings: NodeSettings::default(),
                    generation_n: 0,
                    enrolled_with: *token_id,
                    revoked_at: None,
                    is_readmitted: false,
                    orphans: std::collections::BTreeMap::new(),
                    revision: self.revision,
                    usage: NodeUsage::default(),
                });
            }
            Event::NodeCapabilitiesReported { node_id, capabilities, store_id } => {
                let before = self.nodes.get(*node_id).and_then(|n| n.capabilities.clone());
                self.nodes.set_capabilities(*node_id, Arc::clone(capabilities));
                self.touch_node(*node_id, |n| {
                    n.store_id.clone_from(store_id);
                    // Only what the node's own config says anew: a label that was removed here stays removed.
                    let known = |key: &String| before.as_ref().is_some_and(|c| c.labels.contains_key(key));
                    for (key, value) in capabilities.labels.iter().filter(|(key, _)| !known(key)) {
                        n.labels.entry(key.clone()).or_insert_with(|| value.clone());
                    }
                });
            }
            Event::NodeLinkChanged { node_id, link, last_heard } => self.touch_node(*node_id, |n| {
                n.link = *link;
                n.link_since = at;
                n.last_heard = *last_heard;
            }),
            Event::NodeSchedulableChanged { node_id, to } => self.touch_node(*node_id, |n| n.schedulable = *to),
            Event::NodeLabeled { node_id, labels } => self.touch_node(*node_id, |n| {
                for (key, value) in labels {
                    match value {
                        Some(value) => n.labels.insert(key.clone(), value.clone()),
                        None => n.labels.remove(key),
                    };
                }
            }),
            Event::NodeSettingsChanged { node_id, settings } => {
                self.touch_node(*node_id, |n| n.settings = settings.clone());
            }
            Event::NodeRemoved { node_id } => self.nodes.remove(*node_id),
            Event::MassLossSuspected { silent, total } => self.mass_loss = Some((*silent, *total)),
            Event::MassLossCleared { .. } => self.mass_loss = None,
            _ => {}
        }
    }

    /// Events about certificates of nodes and their authority.
    fn apply_certificates(&mut self, record: &EventRecord) {
        match &record.event {
            Event::NodeRevoked { node_id } => self.touch_node(*node_id, |n| {
                n.revoked_at = Some(record.at);
                n.is_readmitted = false;
            }),
            Event::NodeReadmitted { node_id, token_id } => {
                if let Some(token) = self.tokens.get_mut(token_id) {
                    Arc::make_mut(token).used_by = Some(*node_id);
                }
                self.touch_node(*node_id, |n| n.is_readmitted = true);
            }
            Event::CaRotationRequested { rotation } => self.ca.requested = *rotation,
            Event::CaRotated { rotation } => self.ca.finished = *rotation,
            _ => {}
        }
    }

    /// Events about what runs where nobody wants it.
    fn apply_orphans(&mut self, record: &EventRecord) {
        match &record.event {
            Event::OrphanFound { node_id, workload_id, attempt, why } => self.touch_node(*node_id, |n| {
                n.orphans
                    .insert(*workload_id, OrphanEntry { attempt: *attempt, found_at: record.at, why: why.clone() });
            }),
            Event::OrphanGone { node_id, workload_id } => self.touch_node(*node_id, |n| {
                n.orphans.remove(workload_id);
            }),
            _ => {}
        }
    }

    /// Events about secrets.
    fn apply_secrets(&mut self, record: &EventRecord) {
        match &record.event {
            Event::SecretSet { handle, owner, used_by, blob } => {
                let version = self.secrets.get(handle).map_or(0, |secret| secret.version).saturating_add(1);
                let entry = SecretEntry {
                    handle: handle.clone(),
                    access: AccessPolicy { owner: owner.clone(), used_by: used_by.clone() },
                    version,
                    blob: blob.clone(),
                    set_at: record.at,
                };
                self.secrets.insert(handle.clone(), Arc::new(entry));
            }
            Event::SecretDeleted { handle } => {
                self.secrets.remove(handle);
            }
            _ => {}
        }
    }

    /// Events about tenants and what is kept for them.
    fn apply_tenants(&mut self, record: &EventRecord) {
        match &record.event {
            Event::QuotaSet { tenant, quota } => self.tenants.set(tenant, quota.clone(), self.policy.half_life_s()),
            Event::QuotaDeleted { tenant } => self.tenants.remove(tenant),
            Event::ReservationSet { reservation } => self.reservations.set(Arc::clone(reservation)),
            Event::ReservationEnded { name } => self.reservations.remove(name),
            _ => {}
        }
    }

    /// Events about keys and tokens.
    fn apply_access(&mut self, record: &EventRecord) {
        let at = record.at;
        match &record.event {
            Event::ApiKeyCreated { key_id, subject, role, kind, secret_hash, expires_at } => {
                let entry = KeyEntry {
                    key_id: *key_id,
                    principal: subject.clone(),
                    role: *role,
                    kind: *kind,
                    secret_hash: secret_hash.clone(),
                    created_at: at,
                    expires_at: *expires_at,
                    revoked: false,
                };
                self.keys.insert(*key_id, Arc::new(entry));
            }
            Event::ApiKeyRevoked { key_id } => {
                if let Some(key) = self.keys.get_mut(key_id) {
                    Arc::make_mut(key).revoked = true;
                }
            }
            Event::NodeTokenCreated { token_id, secret_hash, name, labels, expires_at } => {
                let entry = TokenEntry {
                    token_id: *token_id,
                    secret_hash: secret_hash.clone(),
                    name: name.clone(),
                    labels: labels.clone(),
                    expires_at: *expires_at,
                    used_by: None,
                    revoked: false,
                };
                self.tokens.insert(*token_id, Arc::new(entry));
            }
            Event::NodeTokenRevoked { token_id } => {
                if let Some(token) = self.tokens.get_mut(token_id) {
                    Arc::make_mut(token).revoked = true;
                }
            }
            _ => {}
        }
    }

    /// Events about operations, plans, approvals and receipts.
    fn apply_desk(&mut self, record: &EventRecord) {
        let at = record.at;
        match &record.event {
            Event::ExecRequested { operation_id, workload_id, attempt, node_id, command, timeout_s } => {
                let entry = ExecEntry {
                    operation_id: *operation_id,
                    workload_id: *workload_id,
                    attempt: *attempt,
                    node_id: *node_id,
                    command: command.clone(),
                    timeout_s: *timeout_s,
                    at: record.at,
                    end: None,
                    output: None,
                };
                self.execs.insert(*operation_id, Arc::new(entry));
            }
            Event::ExecEnded { operation_id, end, output } => {
                if let Some(entry) = self.execs.get_mut(operation_id) {
                    let entry = Arc::make_mut(entry);
                    (entry.end, entry.output) = (Some(end.clone()), output.clone());
                }
            }
            Event::OperationAccepted { operation } => self.accept(operation, record),
            Event::OperationResolved { operation_id, state, observed } => {
                if let Some(entry) = self.operations.get_mut(operation_id) {
                    let entry = Arc::make_mut(entry);
                    entry.state = *state;
                    entry.observed.clone_from(observed);
                    entry.observed_at = Some(at);
                    close_goal(&mut self.open_by_workload, &mut self.open_by_node, &entry.record);
                }
            }
            Event::PlanStored { plan } => {
                let entry = PlanEntry { record: (**plan).clone(), at, applied: false };
                self.plans.insert(plan.view.plan_id, Arc::new(entry));
            }
            Event::PlanApplied { plan_id } => self.mark_applied(*plan_id),
            Event::ApprovalRequested { approval_id, plan_id, tier } => {
                let entry = ApprovalEntry {
                    approval_id: *approval_id,
                    plan_id: *plan_id,
                    tier: *tier,
                    requested_by: record.principal.clone(),
                    at,
                    state: ApprovalState::Waiting,
                    decided_by: None,
                };
                self.approvals.insert(*approval_id, Arc::new(entry));
            }
            Event::ApprovalDecided { approval_id, decision } => {
                if let Some(entry) = self.approvals.get_mut(approval_id) {
                    let entry = Arc::make_mut(entry);
                    entry.state = match decision {
                        ApprovalDecision::Approve => ApprovalState::Approved,
                        ApprovalDecision::Reject => ApprovalState::Rejected,
                    };
                    entry.decided_by = Some(record.principal.clone());
                }
            }
            Event::ReceiptStored { key, args_hash, outcome } => {
                let entry = ReceiptEntry { args_hash: args_hash.clone(), at, outcome: outcome.clone() };
                let key = Arc::new(key.clone());
                self.receipts_by_time.insert((at, Arc::clone(&key)));
                self.receipts.insert(key, Arc::new(entry));
            }
            Event::HistoryPruned { receipts_before, workloads } => self.prune(*receipts_before, workloads),
            _ => {}
        }
    }

    fn accept(&mut self, operation: &Arc<OperationRecord>, record: &EventRecord) {
        let immediate = operation.goal == Goal::Immediate;
        let entry = OperationEntry {
            record: Arc::clone(operation),
            principal: record.principal.clone(),
            reason: record.reason.clone(),
            at: record.at,
            state: if immediate { OperationState::Succeeded } else { OperationState::Pending },
            observed: if immediate { "done".to_owned() } else { String::new() },
            observed_at: immediate.then_some(record.at),
            undone_by: None,
        };
        self.open_goal(operation);
        if let Some(undone) = operation.undoes
            && let Some(entry) = self.operations.get_mut(&undone)
        {
            Arc::make_mut(entry).undone_by = Some(operation.operation_id);
        }
        self.operations.insert(operation.operation_id, Arc::new(entry));
    }

    /// Notes whose changes may bring the result of an operation.
    pub(super) fn open_goal(&mut self, operation: &OperationRecord) {
        let id = operation.operation_id;
        self.open_by_workload.extend(operation.goal.workloads().into_iter().map(|workload_id| (workload_id, id)));
        self.open_by_node.extend(operation.goal.node().map(|node_id| (node_id, id)));
    }

    fn mark_applied(&mut self, plan_id: claw_proto::ids::PlanId) {
        let Some(entry) = self.plans.get_mut(&plan_id) else {
            return;
        };
        let entry = Arc::make_mut(entry);
        entry.applied = true;
        if let Some(approval_id) = entry.record.view.approval_id
            && let Some(approval) = self.approvals.get_mut(&approval_id)
        {
            Arc::make_mut(approval).state = ApprovalState::Used;
        }
    }

    fn prune(&mut self, receipts_before: Timestamp, workloads: &[WorkloadId]) {
        while let Some((at, key)) = self.receipts_by_time.get_min().cloned() {
            if at >= receipts_before {
                break;
            }
            self.receipts.remove(&key);
            self.receipts_by_time.remove(&(at, key));
        }
        for id in workloads {
            self.workloads.forget(*id);
        }
        // Operations are undone and asked about for longer than requests are retried.
        let forgotten = receipts_before.plus_ms(-OPERATIONS_KEPT_MS);
        let is_old = |(_, o): &(&claw_proto::ids::OperationId, &Arc<OperationEntry>)| o.at < forgotten;
        let over = self.operations.iter().take_while(is_old).filter(|(_, o)| o.state != OperationState::Pending);
        for id in over.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.operations.remove(&id);
        }
        let is_over = |e: &&Arc<ExecEntry>| e.at < receipts_before && e.end.is_some();
        for id in self.execs.values().filter(is_over).map(|e| e.operation_id).collect::<Vec<_>>() {
            self.execs.remove(&id);
        }
        let old: Vec<_> = self
            .plans
            .iter()
            .filter(|(_, p)| p.at < receipts_before)
            .map(|(id, p)| (*id, p.record.view.approval_id))
            .collect();
        for (plan_id, approval_id) in old {
            self.plans.remove(&plan_id);
            if let Some(approval_id) = approval_id {
                self.approvals.remove(&approval_id);
            }
        }
    }

    fn touch(&mut self, id: WorkloadId, change: impl FnOnce(&mut WorkloadEntry)) {
        let revision = self.revision;
        self.workloads.update(id, |w| {
            change(w);
            w.revision = revision;
        });
    }
    fn touch_node(&mut self, id: NodeId, change: impl FnOnce(&mut NodeEntry)) {
        let revision = self.revision;
        self.nodes.update(id, |n| {
            change(n);
            n.revision = revision;
        });
    }
    /// The desired state of a node has changed.
    fn bump(&mut self, id: NodeId) {
        self.touch_node(id, |n| n.generation_n += 1);
    }
    fn bump_nodes_of(&mut self, id: WorkloadId) {
        if let Some(w) = self.workloads.get(id).cloned() {
            for live in w.lives() {
                self.bump(live.node_id);
            }
        }
    }
}

/// Takes an operation out of the indexes of open ones.
fn close_goal(
    by_workload: &mut imbl::OrdSet<(WorkloadId, claw_proto::ids::OperationId)>,
    by_node: &mut imbl::OrdSet<(NodeId, claw_proto::ids::OperationId)>,
    record: &OperationRecord,
) {
    for workload_id in record.goal.workloads() {
        by_workload.remove(&(workload_id, record.operation_id));
    }
    if let Some(node_id) = record.goal.node() {
        by_node.remove(&(node_id, record.operation_id));
    }
}

/// Stored plans, receipts and operations do not change the fleet.
fn changes_fleet(event: &Event) -> bool {
    !matches!(
        event,
        Event::PlanStored { .. }
            | Event::PlanApplied { .. }
            | Event::ApprovalRequested { .. }
            | Event::ApprovalDecided { .. }
            | Event::ReceiptStored { .. }
            | Event::ExecRequested { .. }
            | Event::ExecEnded { .. }
            | Event::CheckpointWritten { .. }
            | Event::OperationAccepted { .. }
            | Event::OperationResolved { .. }
            | Event::HistoryPruned { .. }
    )
}
