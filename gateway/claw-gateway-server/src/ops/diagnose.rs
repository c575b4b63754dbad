//! `diagnose`: what logs, events and the latest numbers say about a fault.

use std::sync::Arc;

use claw_gateway::Cluster;
use claw_gateway::registry::NodeEntry;
use claw_gateway::workload::WorkloadEntry;
use claw_observe::diagnose::analyze::fleet::{self, NodeFault};
use claw_observe::diagnose::code::Code;
use claw_observe::diagnose::insight::Target;
use claw_observe::diagnose::observe::Reported;
use claw_observe::diagnose::policy::Policy;
use claw_observe::diagnose::rules::Rules;
use claw_observe::{Analyzer, Insight, Observer};
use claw_proto::ids::{GpuUuid, NodeId};
use claw_proto::message::{GpuEvent, GpuEventKind, GpuMetrics, ThrottleReason};
use claw_proto::time::Timestamp;
use claw_tools::diagnosis::{DiagnoseParams, DiagnosedTarget, Diagnoses, FaultAction, FaultInCommon, FaultPolicy};
use claw_tools::refusal::{ErrorCode, Refusal};

use super::{OpError, OpsContext, logs};
use crate::control::LogRead;

/// Log lines of an attempt that are read, the newest.
const LINES_MAX: usize = 10_000;
/// Targets in one answer.
const TARGETS_MAX: usize = 10;
/// The node's label that names its rack.
const RACK_LABEL: &str = "rack";

/// Verdicts about what was asked for.
pub(super) async fn targets(ops: &OpsContext, p: &DiagnoseParams) -> Result<Diagnoses, OpError> {
    let asked = [("workload", &p.workload), ("node", &p.node), ("text", &p.text)];
    let mut given = asked.iter().filter(|(_, value)| value.is_some());
    if let (Some(_), Some((field, _))) = (given.next(), given.next()) {
        let refusal = Refusal::new(ErrorCode::InvalidArgument, "a diagnosis has one target: workload, node or text");
        return Err(refusal.with_field(*field, "a second target").into());
    }
    let desk = Desk { ops, cluster: ops.control.snapshot(), analyzer: analyzer(p.policy) };
    let mut found = Vec::new();
    let mut nodes_read = 0;
    let mut faults = Vec::new();
    if let Some(text) = &p.text {
        let mut observer = Observer::new(Rules::built_in(), "text");
        observer.text(text);
        found.push(desk.verdict("text".to_owned(), observer, &Target::default(), false));
    } else if let Some(name) = &p.workload {
        let workload = Arc::clone(desk.cluster.resolve_workload(name)?);
        found.push(desk.workload(&workload).await?);
    } else if let Some(name) = &p.node {
        nodes_read = 1;
        found.push(desk.node(&Arc::clone(desk.cluster.resolve_node(name)?), &mut faults));
    } else {
        for node in desk.cluster.nodes.iter() {
            nodes_read += 1;
            let target = desk.node(node, &mut faults);
            if target.diagnosis.action != FaultAction::None {
                found.push(target);
            }
        }
    }
    // The gravest first; the order of nodes decides between equals.
    found.sort_by_key(|target| std::cmp::Reverse(target.diagnosis.action));
    let truncated = found.len() > TARGETS_MAX;
    found.truncate(TARGETS_MAX);
    Ok(Diagnoses { targets: found, common: common(&faults), nodes_read, truncated, untrusted: true })
}

fn analyzer(policy: Option<FaultPolicy>) -> Analyzer {
    let named = policy.map(|policy| Policy::named(policy.as_str()));
    let policy = named.and_then(Result::ok).unwrap_or_else(Policy::ours);
    Analyzer::new(Rules::built_in(), policy)
}

/// What bursts of faults over several nodes have in common.
fn common(faults: &[NodeFault]) -> Vec<FaultInCommon> {
    let bursts = fleet::bursts(faults);
    let found = bursts.iter().flat_map(|burst| fleet::common(burst, &[]));
    found
        .map(|common| FaultInCommon {
            cause: common.cause,
            class: common.class,
            action: common.action,
            nodes: common.nodes,
        })
        .take(TARGETS_MAX)
        .collect()
}

struct Desk<'a> {
    ops: &'a OpsContext,
    cluster: Arc<Cluster>,
    analyzer: Analyzer,
}

impl Desk<'_> {
    fn verdict(&self, name: String, observer: Observer, target: &Target, simulated: bool) -> DiagnosedTarget {
        let seen = observer.finish();
        let verdict = self.analyzer.judge(&seen);
        let insight = Insight::new(Rules::built_in(), &verdict, target);
        DiagnosedTarget { target: name, diagnosis: insight.diagnosis, lines: seen.lines, simulated }
    }

    /// Its latest attempt's lines, and what happened to its GPUs since that attempt began.
    async fn workload(&self, workload: &WorkloadEntry) -> Result<DiagnosedTarget, OpError> {
        let wanted = LogRead {
            workload_id: Some(workload.workload_id),
            attempt: Some(workload.attempt()),
            tail: Some(LINES_MAX),
            limit: LINES_MAX,
            ..LogRead::default()
        };
        let page = self.ops.control.logs().read(wanted).await.map_err(|error| logs::fault(self.ops, &error))?;
        let mut observer = Observer::new(Rules::built_in(), &format!("logs of attempt {}", workload.attempt().0));
        for entry in &page.entries {
            observer.line(&String::from_utf8_lossy(&entry.line.bytes));
        }
        if let Some(attempt) = workload.attempts.last() {
            observer.next_source("GPU events");
            let since = attempt.started_at.unwrap_or(Timestamp::from_unix_ms(0));
            self.events(&mut observer, attempt.node_id, Some((&attempt.gpus, since)));
        }
        let node = workload.attempts.last().map(|attempt| attempt.node_id.to_string());
        let target = Target { node, workload: Some(workload.workload_id.to_string()) };
        Ok(self.verdict(format!("workload:{}", workload.name), observer, &target, workload.simulated()))
    }

    /// What happened to a node's GPUs, and what their latest numbers say.
    fn node(&self, node: &NodeEntry, faults: &mut Vec<NodeFault>) -> DiagnosedTarget {
        let mut observer = Observer::new(Rules::built_in(), "GPU events");
        let events = self.events(&mut observer, node.node_id, None);
        let simulated = events.iter().any(|event| event.simulated);
        for event in &events {
            faults.extend(code(event).map(|code| NodeFault {
                node: node.name.clone(),
                rack: node.labels.get(RACK_LABEL).cloned(),
                unit: Some(event.uuid.to_string()),
                code,
                at_s: seconds(event.at),
            }));
        }
        if let Some(latest) = self.ops.control.metrics().get(node.node_id) {
            observer.next_source("latest metrics");
            for gpu in &latest.gpus {
                for (name, words) in numbers(gpu) {
                    let code = Code::Named(name.into());
                    faults.push(NodeFault {
                        node: node.name.clone(),
                        rack: node.labels.get(RACK_LABEL).cloned(),
                        unit: Some(gpu.uuid.to_string()),
                        code: code.clone(),
                        at_s: seconds(latest.at),
                    });
                    let uuid = gpu.uuid.to_string();
                    let rule = "metrics.latest";
                    observer.event(&Reported { code, uuid: &uuid, at_s: seconds(latest.at), rule, words });
                }
            }
        }
        let target = Target { node: Some(node.node_id.to_string()), workload: None };
        self.verdict(format!("node:{}", node.name), observer, &target, simulated)
    }

    /// Feeds events, oldest first: all of a node, or those of some GPUs since an instant.
    fn events(&self, observer: &mut Observer, node: NodeId, of: Option<(&[GpuUuid], Timestamp)>) -> Vec<GpuEvent> {
        let mut events = self.ops.control.metrics().gpu_events(node);
        events.reverse();
        events.retain(|event| of.is_none_or(|(gpus, since)| gpus.contains(&event.uuid) && event.at >= since));
        for event in &events {
            let Some(code) = code(event) else { continue };
            let (uuid, words) = (event.uuid.to_string(), event.detail.as_str());
            observer.event(&Reported { code, uuid: &uuid, at_s: seconds(event.at), rule: "event.driver", words });
        }
        events
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.unix_ms() as f64 / 1e3
}

/// What a driver's event is among the codes; none for changes of state.
fn code(event: &GpuEvent) -> Option<Code> {
    match event.kind {
        GpuEventKind::Xid => event.code.map(Code::Xid),
        GpuEventKind::EccDoubleBit => Some(Code::Xid(48)),
        GpuEventKind::Lost => Some(Code::Xid(79)),
        GpuEventKind::EccSingleBit => Some(Code::Xid(92)),
        GpuEventKind::PowerState | GpuEventKind::Clock => None,
    }
}

/// What the latest numbers of a GPU say by themselves; a power cap is normal.
fn numbers(gpu: &GpuMetrics) -> Vec<(&'static str, &'static str)> {
    let Some(details) = &gpu.details else { return Vec::new() };
    let mut found = Vec::new();
    if details.throttle_reasons.contains(&ThrottleReason::HwPowerBrake) {
        found.push(("power_brake", "throttle reason hw_power_brake"));
    }
    if details.throttle_reasons.iter().any(|r| matches!(r, ThrottleReason::HwThermal | ThrottleReason::SwThermal)) {
        found.push(("thermal_violation", "throttle reason hw_thermal or sw_thermal"));
    }
    if details.remapped_rows.as_ref().is_some_and(|rows| rows.pending || rows.failed) {
        found.push(("row_remap_pending", "remapped rows are pending, or their replacement failed"));
    }
    found
}
