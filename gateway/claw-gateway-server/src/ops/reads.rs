//! Reads, all from the durable snapshot.

use std::sync::Arc;
use std::time::Duration;

use claw_gateway::workload::WorkloadEntry;
use claw_gateway::{Caller, Cluster, query, step};
use claw_proto::ids::{CountingIds, OperationId, PlanId};
use claw_tools::approvals::ApprovalListParams;
use claw_tools::cluster::ClusterStatus;
use claw_tools::keys::{ApiKeyList, ApiKeyListParams};
use claw_tools::nodes::{GpuListParams, NodeDetail, NodeGetParams, NodeListParams};
use claw_tools::operations::{OperationListParams, OperationState, OperationView, OperationWait, OperationWaitParams};
use claw_tools::plans::PlanDetail;
use claw_tools::refusal::{ErrorCode, Refusal, SuggestedCall};
use claw_tools::scheduling::{
    CapacityFindParams, CapacityFound, QueueListParams, ScheduleSimulateParams, ScheduleSimulation,
};
use claw_tools::workloads::{
    WorkloadDetail, WorkloadExplanation, WorkloadGetParams, WorkloadListParams, WorkloadWait, WorkloadWaitParams,
};
use serde_json::json;
use tokio::time::Instant;

use super::{LastStatus, OpError, OpReply, OpsContext, cap, inside};
use crate::control::ControlPlane;

/// Lane of ids of what is only imagined: no clock gives ids so late.
const IMAGINED: u32 = u32::MAX;
/// Events of GPUs that `node_get` shows.
const GPU_EVENTS_SHOWN: usize = 20;
/// Wait unless told otherwise, seconds.
const WAIT_S_DEFAULT: u32 = 30;

/// Reads of one call: one snapshot for all of it.
pub(super) struct Reads<'a> {
    control: &'a ControlPlane,
    last_status: &'a LastStatus,
    cluster: Arc<Cluster>,
}

impl<'a> Reads<'a> {
    pub(super) fn new(ops: &'a OpsContext) -> Self {
        Self { control: &ops.control, last_status: &ops.status, cluster: ops.control.snapshot() }
    }

    pub(super) fn status(&self) -> ClusterStatus {
        self.last_status.of(&self.cluster, self.control.now(), self.control.journal_writable())
    }
    pub(super) fn node_list(&self, p: NodeListParams) -> Result<OpReply, OpError> {
        cap::page(p.limit, |limit| query::node_list(&self.cluster, &NodeListParams { limit: Some(limit), ..p.clone() }))
    }
    pub(super) fn node_get(&self, p: &NodeGetParams) -> Result<NodeDetail, Refusal> {
        let metrics = self.control.metrics();
        query::node_detail(&self.cluster, &p.node, |id| query::NodeLive {
            metrics: metrics.get(id),
            gpu_events: metrics.gpu_events(id).into_iter().map(|(event, _)| event).take(GPU_EVENTS_SHOWN).collect(),
            kernel_log: self.control.kernels().seen(id),
        })
    }
    pub(super) fn gpu_list(&self, p: GpuListParams) -> Result<OpReply, OpError> {
        cap::page(p.limit, |limit| query::gpu_list(&self.cluster, &GpuListParams { limit: Some(limit), ..p.clone() }))
    }
    pub(super) fn workload_list(&self, p: WorkloadListParams) -> Result<OpReply, OpError> {
        cap::page(p.limit, |limit| {
            query::workload_list(&self.cluster, &WorkloadListParams { limit: Some(limit), ..p.clone() })
        })
    }
    pub(super) fn workload_get(&self, p: &WorkloadGetParams) -> Result<WorkloadDetail, Refusal> {
        let usage = |w: &WorkloadEntry| {
            let live = w.live()?;
            self.control.metrics().usage(live.node_id, w.workload_id, live.attempt)
        };
        query::workload_detail(&self.cluster, &p.workload, usage)
    }
    pub(super) fn workload_explain(&self, p: &WorkloadGetParams) -> Result<WorkloadExplanation, Refusal> {
        query::explain(&self.cluster, &p.workload, self.control.now())
    }

    pub(super) fn queue_list(&self, p: QueueListParams) -> Result<OpReply, OpError> {
        cap::page(p.limit, |limit| {
            let asked = QueueListParams { limit: Some(limit), ..p.clone() };
            query::queue_list(&self.cluster, &asked, self.control.now())
        })
    }
    pub(super) fn capacity_find(&self, p: &CapacityFindParams, caller: &Caller) -> Result<CapacityFound, Refusal> {
        query::capacity_find(&self.cluster, p, caller, &mut CountingIds::new(IMAGINED))
    }
    pub(super) fn simulate(&self, p: &ScheduleSimulateParams, caller: &Caller) -> Result<ScheduleSimulation, Refusal> {
        query::simulate(&self.cluster, p, caller, &mut CountingIds::new(IMAGINED))
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

    pub(super) async fn operation(&self, id: OperationId) -> Result<OperationView, OpError> {
        let mut view = query::operation_view(&self.cluster, self.cluster.resolve_operation(id)?);
        inside::fill(self.control, &self.cluster, id, &mut view.exec).await?;
        Ok(view)
    }
    pub(super) fn operation_list(&self, p: OperationListParams) -> Result<OpReply, OpError> {
        cap::page(p.limit, |limit| {
            query::operation_list(&self.cluster, &OperationListParams { limit: Some(limit), ..p.clone() })
        })
    }
    pub(super) async fn operation_wait(&self, p: &OperationWaitParams) -> Result<OperationWait, OpError> {
        let id = p.operation_id;
        self.cluster.resolve_operation(id)?;
        let there = |c: &Cluster| c.operations.get(&id).is_none_or(|o| o.state != OperationState::Pending);
        let cluster = until(self.control, p.wait_s.unwrap_or(WAIT_S_DEFAULT), &there).await;
        let mut operation = query::operation_view(&cluster, cluster.resolve_operation(id)?);
        inside::fill(self.control, &cluster, id, &mut operation.exec).await?;
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
    pub(super) fn approvals(&self, p: ApprovalListParams) -> Result<OpReply, OpError> {
        let now = self.control.now();
        cap::page(p.limit, |limit| {
            let p = ApprovalListParams { limit: Some(limit), ..p.clone() };
            Ok::<_, OpError>(query::approval_list(&self.cluster, &p, now))
        })
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
