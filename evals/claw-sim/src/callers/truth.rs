//! Answers are compared with what is durable.

use std::collections::BTreeMap;

use claw_gateway::event::{EventRecord, ReceiptKey};
use claw_gateway::{Cluster, Event};
use claw_tools::outcome::{EffectKind, Outcome};

use super::{CALLERS, Callers, What};
use crate::agenda::Ctx;
use crate::gateway::SimGateway;

impl Callers {
    /// An answer shows what is on disk, whatever becomes of the gateway.
    pub(super) fn judge_answer(&self, ctx: &mut Ctx, gateway: &SimGateway, number: usize, outcome: &Outcome) {
        let Some(durable) = gateway.durable() else {
            return;
        };
        self.judge_receipt(ctx, durable, number, outcome);
    }

    fn judge_receipt(&self, ctx: &mut Ctx, durable: &Cluster, number: usize, outcome: &Outcome) {
        let request = &self.requests[number];
        let key = ReceiptKey {
            principal: CALLERS[request.caller].0.to_owned(),
            tool: request.what.tool().to_owned(),
            request_id: request.key.clone(),
        };
        let stored = durable.receipts.get(&key).map(|receipt| receipt.outcome.read());
        if stored.as_ref() != Some(outcome) {
            let detail = format!("#{number} was told {outcome:?}; on disk is {stored:?}");
            ctx.fail("R2_answers_are_durable", detail);
        }
        if let Some(operation_id) = outcome.operation_id
            && durable.operations.get(&operation_id).is_none()
        {
            ctx.fail("R2_answers_are_durable", format!("#{number}: {operation_id} is not known"));
        }
        let acts = matches!(outcome.effect, EffectKind::Accepted | EffectKind::Queued);
        if let Some(workload_id) = outcome.workload_id.filter(|_| acts)
            && durable.workloads.get(workload_id).is_none()
        {
            ctx.fail("R2_answers_are_durable", format!("#{number}: {workload_id} is not known"));
        }
    }

    /// At the end: every answer still stands, and no request had its effect twice.
    pub(crate) fn judge_end(&self, ctx: &mut Ctx, folded: &Cluster, records: &[EventRecord]) {
        for (number, request) in self.requests.iter().enumerate() {
            if let Some(outcome) = &request.outcome {
                self.judge_receipt(ctx, folded, number, outcome);
            }
        }
        let mut submitted: BTreeMap<&str, u32> = BTreeMap::new();
        for record in records {
            if let Event::WorkloadSubmitted { spec, .. } = &record.event
                && let Some(request) = spec.spec().labels.get("claw.sim/request")
            {
                *submitted.entry(request.as_str()).or_default() += 1;
            }
        }
        if let Some((request, n)) = submitted.iter().find(|(_, n)| **n > 1) {
            ctx.fail("R3_one_request_one_effect", format!("run {request} was submitted {n} times"));
        }
        for request in &self.requests {
            let What::Operate { operation: claw_gateway::Operation::WorkloadRun { spec, .. }, .. } = &request.what
            else {
                continue;
            };
            let accepted =
                request.outcome.as_ref().is_some_and(|o| matches!(o.effect, EffectKind::Accepted | EffectKind::Queued));
            let label = spec.labels.get("claw.sim/request").map_or("", String::as_str);
            if accepted && submitted.get(label) != Some(&1) {
                ctx.fail("R3_one_request_one_effect", format!("run {label} was accepted and never submitted"));
            }
        }
    }
}
