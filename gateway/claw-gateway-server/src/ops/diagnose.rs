//! `diagnose`: what logs, events and the latest numbers say about a fault.

use std::sync::Arc;

use claw_gateway::Cluster;
use claw_gateway::registry::NodeEntry;
use claw_gateway::workload::{AttemptEntry, WorkloadEntry};
use claw_observe::diagnose::analyze::fleet::{self, NodeFault};
use claw_observe::diagnose::insight::Target;
use claw_observe::diagnose::observe::Reported;
use claw_observe::diagnose::policy::Policy;
use claw_observe::diagnose::reported::{self, EVENTS_MS};
use claw_observe::diagnose::rules::Rules;
use claw_observe::{Analyzer, Insight, Observer};
use claw_proto::ids::NodeId;
use claw_proto::message::GpuEvent;
use claw_proto::time::Timestamp;
use claw_tools::diagnosis::{DiagnoseParams, DiagnosedTarget, Diagnoses, FaultAction, FaultInCommon, FaultPolicy};
use claw_tools::refusal::{ErrorCode, Refusal};

use super::{OpError, OpsContext, logs};
use crate::control::LogRead;

/// Log lines of an attempt that are read, the newest.
const LINES_MAX: usize = 10_000;
/// Targets in one answer.
const TARGETS_MAX: usize = 10;
/// Milliseconds after an attempt's end within which an event of its GPUs is still its own.
const AFTER_MS: i64 = 60_000;
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
            let (from, to) = span(attempt, self.ops.control.now());
            let its = |event: &GpuEvent| attempt.gpus.contains(&event.uuid) && (from..=to).contains(&event.at);
            self.events(&mut observer, attempt.node_id, its);
        }
        let node = workload.attempts.last().map(|attempt| attempt.node_id.to_string());
        let target = Target { node, workload: Some(workload.workload_id.to_string()) };
        Ok(self.verdict(format!("workload:{}", workload.name), observer, &target, workload.simulated()))
    }

    /// What happened to a node's GPUs, and what their latest numbers say.
    fn node(&self, node: &NodeEntry, faults: &mut Vec<NodeFault>) -> DiagnosedTarget {
        let mut observer = Observer::new(Rules::built_in(), "GPU events");
        let now = self.ops.control.now();
        let events = self.events(&mut observer, node.node_id, |event| reported::is_recent(event.at, now));
        let simulated = events.iter().any(|event| event.simulated);
        for event in &events {
            faults.extend(reported::code(event).map(|code| NodeFault {
                node: node.name.clone(),
                rack: node.labels.get(RACK_LABEL).cloned(),
                unit: Some(event.uuid.to_string()),
                code,
                at_s: seconds(event.at),
            }));
        }
        let latest = self.ops.control.metrics().get(node.node_id);
        let fresh = |at| reported::is_fresh(at, now, node.settings.metrics_interval_ms);
        if let Some(latest) = latest.filter(|latest| fresh(latest.at)) {
            observer.next_source("latest metrics");
            for gpu in &latest.gpus {
                for sampled in reported::numbers(gpu) {
                    faults.push(NodeFault {
                        node: node.name.clone(),
                        rack: node.labels.get(RACK_LABEL).cloned(),
                        unit: Some(gpu.uuid.to_string()),
                        code: sampled.code.clone(),
                        at_s: seconds(latest.at),
                    });
                    let uuid = gpu.uuid.to_string();
                    observer.event(&Reported {
                        code: sampled.code,
                        uuid: &uuid,
                        at_s: seconds(latest.at),
                        rule: "metrics.latest",
                        words: sampled.words,
                        asks: Some(sampled.asks),
                    });
                }
            }
        }
        let target = Target { node: Some(node.node_id.to_string()), workload: None };
        self.verdict(format!("node:{}", node.name), observer, &target, simulated)
    }

    /// Feeds the events of a node that count, oldest first.
    fn events(&self, observer: &mut Observer, node: NodeId, counts: impl Fn(&GpuEvent) -> bool) -> Vec<GpuEvent> {
        let mut events = self.ops.control.metrics().gpu_events(node);
        events.reverse();
        events.retain(|event| counts(event));
        for event in &events {
            let Some(code) = reported::code(event) else { continue };
            let (uuid, words) = (event.uuid.to_string(), event.detail.as_str());
            let (at_s, rule) = (seconds(event.at), "event.driver");
            observer.event(&Reported { code, uuid: &uuid, at_s, rule, words, asks: None });
        }
        events
    }
}

/// When events of an attempt's GPUs speak of the attempt: while it held them, at most a day back.
fn span(attempt: &AttemptEntry, now: Timestamp) -> (Timestamp, Timestamp) {
    let to = attempt.ended_at.unwrap_or(now).plus_ms(AFTER_MS);
    let a_day = Timestamp::from_unix_ms(to.unix_ms().saturating_sub_unsigned(EVENTS_MS));
    (attempt.started_at.map_or(a_day, |started| started.max(a_day)), to)
}

fn seconds(at: Timestamp) -> f64 {
    at.unix_ms() as f64 / 1e3
}
