//! Reads, all from the durable snapshot.

use std::sync::Arc;
use std::time::Duration;

use claw_gateway::{Caller, Cluster, query, step};
use claw_proto::ids::{OperationId, PlanId};
use claw_tools::approvals::{ApprovalList, ApprovalListParams};
use claw_tools::cluster::ClusterStatus;
use claw_tools::events::{EventRow, EventsList, EventsListParams};
use claw_tools::keys::{ApiKeyList, ApiKeyListParams};
use claw_tools::nodes::{GpuList, GpuListParams, NodeDetail, NodeGetParams, NodeList, NodeListParams};
use claw_tools::operations::{
    OperationList, OperationListParams, OperationState, OperationView, OperationWait, OperationWaitParams,
};
use claw_tools::outcome::clip;
use claw_tools::plans::PlanDetail;
use claw_tools::refusal::{ErrorCode, Refusal, SuggestedCall};
use claw_tools::workloads::{
    WorkloadDetail, WorkloadExplanation, WorkloadGetParams, WorkloadList, WorkloadListParams, WorkloadWait,
    WorkloadWaitParams,
};
use serde_json::json;
use tokio::time::Instant;

use super::{OpError, OpsContext};
use crate::control::ControlPlane;

/// Wait unless told otherwise, seconds.
const WAIT_S_DEFAULT: u32 = 30;
/// Events that one question may look through.
const EVENTS_SCANNED_MAX: u64 = 20_000;
/// Events read at a time.
const EVENTS_CHUNK: usize = 1_000;

/// Reads of one call: one snapshot for all of it.
pub(super) struct Reads<'a> {
    control: &'a ControlPlane,
    cluster: Arc<Cluster>,
}

impl<'a> Reads<'a> {
    pub(super) fn new(ops: &'a OpsContext) -> Self {
        Self { control: &ops.control, cluster: ops.control.snapshot() }
    }

    pub(super) fn status(&self) -> ClusterStatus {
        query::status(&self.cluster, self.control.now(), self.control.journal_writable())
    }
    pub(super) fn node_list(&self, p: &NodeListParams) -> Result<NodeList, Refusal> {
        query::node_list(&self.cluster, p)
    }
    pub(super) fn node_get(&self, p: &NodeGetParams) -> Result<NodeDetail, Refusal> {
        query::node_detail(&self.cluster, &p.node, |id| self.control.metrics().get(id))
    }
    pub(super) fn gpu_list(&self, p: &GpuListParams) -> Result<GpuList, Refusal> {
        query::gpu_list(&self.cluster, p)
    }
    pub(super) fn workload_list(&self, p: &WorkloadListParams) -> Result<WorkloadList, Refusal> {
        query::workload_list(&self.cluster, p)
    }
    pub(super) fn workload_get(&self, p: &WorkloadGetParams) -> Result<WorkloadDetail, Refusal> {
        query::workload_detail(&self.cluster, &p.workload)
    }
    pub(super) fn workload_explain(&self, p: &WorkloadGetParams) -> Result<WorkloadExplanation, Refusal> {
        query::explain(&self.cluster, &p.workload)
    }

    pub(super) async fn workload_wait(&self, p: &WorkloadWaitParams) -> Result<WorkloadWait, OpError> {
        let id = self.cluster.resolve_workload(&p.workload)?.workload_id;
        let seconds = p.wait_s.unwrap_or(WAIT_S_DEFAULT);
        let states = p.states.clone();
        let there = |c: &Cluster| c.workloads.get(id).is_none_or(|w| w.state.is_final() || states.contains(&w.state));
        let cluster = until(self.control, seconds, &there).await;
        let Some(w) = cluster.workloads.get(id) else {
            return Err(Refusal::new(
                ErrorCode::NotFound,
                "the workload is not kept in memory any more; see events_list",
            )
            .into());
        };
        let reached = if p.states.is_empty() { w.state.is_final() } else { p.states.contains(&w.state) };
        let args = json!({ "workload": id });
        let next = match (reached, w.state.is_final()) {
            (_, true) => vec![SuggestedCall::new("workload_logs", args)],
            (true, false) => {
                vec![SuggestedCall::new("workload_logs", args.clone()), SuggestedCall::new("workload_wait", args)]
            }
            (false, false) => {
                vec![SuggestedCall::new("workload_explain", args.clone()), SuggestedCall::new("workload_wait", args)]
            }
        };
        Ok(WorkloadWait { reached, workload: query::workload_row(&cluster, w), next })
    }

    pub(super) async fn events(&self, p: &EventsListParams) -> Result<EventsList, OpError> {
        if let Some(unknown) = p.kinds.iter().find(|k| !claw_gateway::Event::KINDS.contains(&k.as_str())) {
            let nearest = claw_tools::nearest::nearest(unknown, claw_gateway::Event::KINDS.iter().copied());
            return Err(Refusal::new(ErrorCode::InvalidArgument, format!("no event kind {:?}", clip(unknown, 60)))
                .with_field("kinds", unknown.clone())
                .with_allowed(claw_gateway::Event::KINDS.iter().map(|k| (*k).to_owned()))
                .with_nearest(nearest)
                .into());
        }
        let limit = p.limit.unwrap_or(20) as usize;
        let newest = self.cluster.seq;
        let first = p.after.unwrap_or_else(|| newest.saturating_sub(EVENTS_SCANNED_MAX));
        let (mut rows, mut truncated, mut after) = (Vec::new(), false, first);
        'scan: while after < newest {
            let chunk = self.control.events(after, EVENTS_CHUNK).await?;
            let Some((last, _)) = chunk.last() else { break };
            let end = *last;
            for (seq, record) in chunk.into_iter().filter(|(seq, _)| *seq <= newest) {
                let subjects = query::event_subjects(&record.event);
                let wanted = (p.kinds.is_empty() || p.kinds.iter().any(|k| k == record.event.kind()))
                    && p.subject.as_ref().is_none_or(|s| subjects.contains(s));
                if !wanted {
                    continue;
                }
                if p.after.is_some() && rows.len() == limit {
                    truncated = true;
                    break 'scan;
                }
                rows.push(EventRow {
                    seq,
                    at: record.at,
                    kind: record.event.kind().to_owned(),
                    subjects,
                    text: clip(&query::describe_event(&record.event), 400),
                    principal: record.principal,
                    reason: clip(&record.reason, 200),
                });
            }
            after = end;
        }
        if rows.len() > limit {
            truncated = true;
            rows.drain(..rows.len() - limit);
        }
        let last_seq = rows.last().map_or(if truncated { first } else { newest }, |r| r.seq);
        Ok(EventsList { events: rows, truncated: truncated || (p.after.is_none() && first > 0), last_seq })
    }

    pub(super) fn operation(&self, id: OperationId) -> Result<OperationView, Refusal> {
        self.cluster.resolve_operation(id).map(|o| query::operation_view(o))
    }
    pub(super) fn operation_list(&self, p: &OperationListParams) -> Result<OperationList, Refusal> {
        query::operation_list(&self.cluster, p)
    }
    pub(super) async fn operation_wait(&self, p: &OperationWaitParams) -> Result<OperationWait, OpError> {
        let id = p.operation_id;
        self.cluster.resolve_operation(id)?;
        let there = |c: &Cluster| c.operations.get(&id).is_none_or(|o| o.state != OperationState::Pending);
        let cluster = until(self.control, p.wait_s.unwrap_or(WAIT_S_DEFAULT), &there).await;
        let operation = query::operation_view(cluster.resolve_operation(id)?);
        Ok(OperationWait { reached: operation.state != OperationState::Pending, operation })
    }

    pub(super) fn plan(&self, plan_id: PlanId, caller: &Caller) -> Result<PlanDetail, Refusal> {
        let Some(plan) = self.cluster.plans.get(&plan_id) else {
            return Err(Refusal::new(ErrorCode::NotFound, format!("no plan {plan_id}; plans are kept for a day"))
                .with_field("plan_id", plan_id.to_string()));
        };
        let present = step::preview(&self.cluster, plan, caller, &mut self.control.ids());
        Ok(query::plan_detail(&self.cluster, plan, self.control.now(), present))
    }
    pub(super) fn approvals(&self, p: &ApprovalListParams) -> ApprovalList {
        query::approval_list(&self.cluster, p, self.control.now())
    }
    pub(super) fn keys(&self, p: &ApiKeyListParams) -> ApiKeyList {
        query::key_list(&self.cluster, p, self.control.now())
    }
}

/// Follows the durable state until the condition holds or the time is out.
pub(super) async fn until(
    control: &ControlPlane,
    seconds: u32,
    there: &(dyn Fn(&Cluster) -> bool + Sync),
) -> Arc<Cluster> {
    let deadline = Instant::now() + Duration::from_secs(u64::from(seconds));
    let mut watch = control.watch();
    loop {
        let cluster = Arc::clone(&watch.borrow_and_update());
        if there(&cluster) {
            return cluster;
        }
        tokio::select! {
            changed = tokio::time::timeout_at(deadline, watch.changed()) => match changed {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return control.snapshot(),
            },
            () = control.stopping().cancelled() => return control.snapshot(),
        }
    }
}
