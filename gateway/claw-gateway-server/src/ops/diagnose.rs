//! `diagnose`: what logs, events and the latest numbers say about a fault.

use std::collections::BTreeSet;
use std::sync::Arc;

use claw_gateway::Cluster;
use claw_gateway::registry::NodeEntry;
use claw_gateway::workload::{AttemptEntry, WorkloadEntry};
use claw_observe::diagnose::analyze::History;
use claw_observe::diagnose::analyze::fleet::{self, Change, NodeFault};
use claw_observe::diagnose::device::{self, Unit};
use claw_observe::diagnose::insight::Target;
use claw_observe::diagnose::observe::Reported;
use claw_observe::diagnose::policy::Policy;
use claw_observe::diagnose::reported::{self, EVENTS_MS};
use claw_observe::diagnose::rules::Rules;
use claw_observe::{Analyzer, Insight, Observer};
use claw_proto::ids::{Attempt, GpuUuid, NodeId, WorkloadId};
use claw_proto::message::{GpuEvent, GpuMetrics, KernelLine};
use claw_proto::spec::GpuVendor;
use claw_proto::time::Timestamp;
use claw_proto::topology::GpuInfo;
use claw_tools::diagnosis::{DiagnoseParams, DiagnosedTarget, Diagnoses, FaultAction, FaultInCommon, FaultPolicy};
use claw_tools::refusal::{ErrorCode, Refusal};

use super::{OpError, OpsContext, logs};
use crate::control::LogRead;
use before::Before;
use kernel::Kernels;
use over_time::OverTime;

mod before;
mod kernel;
mod over_time;

/// Log lines that are read, the newest; several parts of one workload share them.
const LINES_MAX: usize = 10_000;
/// Log lines that are read of each part, however many there are.
const LINES_OF_A_PART: usize = 200;
/// Targets in one answer.
const TARGETS_MAX: usize = 10;
/// Milliseconds after an attempt's end within which an event of its GPUs is still its own.
const AFTER_MS: i64 = 60_000;
/// GPUs without numbers that are named; more are counted.
const GPUS_NAMED: usize = 8;
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
    let policy = policy(ops, p.policy)?;
    let desk = Desk { ops, cluster: ops.control.snapshot(), policy };
    let mut found = Vec::new();
    let (mut nodes_read, mut nodes_unread) = (0, Vec::new());
    let mut faults = Vec::new();
    let mut changes = Vec::new();
    if let Some(text) = &p.text {
        found.push(desk.text(text));
    } else if let Some(name) = &p.workload {
        let workload = Arc::clone(desk.cluster.resolve_workload(name)?);
        found.push(desk.workload(&workload).await?);
    } else if let Some(name) = &p.node {
        found.push(desk.node(&Arc::clone(desk.cluster.resolve_node(name)?), &mut faults));
    } else {
        for node in desk.cluster.nodes.iter() {
            let target = desk.node(node, &mut faults);
            changes.extend(before::changes(&desk, node));
            nodes_read += target.nodes_read.len() as u64;
            nodes_unread
                .extend(target.nodes_unread.iter().take(TARGETS_MAX.saturating_sub(nodes_unread.len())).cloned());
            // A node of which only a part was read has that to tell.
            let partly = !target.nodes_read.is_empty() && !target.diagnosis.why.is_empty();
            if target.diagnosis.action != FaultAction::None || partly {
                found.push(target);
            }
        }
    }
    if let [only] = found.as_slice()
        && (p.workload.is_some() || p.node.is_some())
    {
        nodes_read = only.nodes_read.len() as u64;
        nodes_unread.extend(only.nodes_unread.iter().take(TARGETS_MAX).cloned());
    }
    // The gravest first; the order of nodes decides between equals.
    found.sort_by_key(|target| std::cmp::Reverse(target.diagnosis.action));
    let truncated = found.len() > TARGETS_MAX;
    found.truncate(TARGETS_MAX);
    Ok(Diagnoses {
        targets: found,
        common: common(&faults, &changes),
        nodes_read,
        nodes_unread,
        truncated,
        untrusted: true,
    })
}

/// The policy that was asked for, and no other.
fn policy(ops: &OpsContext, policy: Option<FaultPolicy>) -> Result<&'static Policy, OpError> {
    let Some(policy) = policy else { return Ok(Policy::ours()) };
    Policy::named(policy.as_str())
        .map_err(|error| OpError::Fault(ops.control.fault("a policy of the schema is not among the rules", &error)))
}

/// What bursts of faults over several nodes have in common.
fn common(faults: &[NodeFault], changes: &[Change]) -> Vec<FaultInCommon> {
    let bursts = fleet::bursts(faults);
    let found = bursts.iter().flat_map(|burst| fleet::common(burst, changes));
    found
        .map(|common| FaultInCommon {
            cause: common.cause,
            class: common.class,
            action: common.action,
            nodes: common.nodes,
            change: common.change,
        })
        .take(TARGETS_MAX)
        .collect()
}

/// What was read beside log lines, and what of it is simulated.
#[derive(Debug, Default)]
struct Reading {
    nodes_read: Vec<String>,
    nodes_unread: Vec<String>,
    simulated: bool,
    over_time: OverTime,
    kernels: Kernels,
    before: Before,
}

impl Reading {
    /// Notes a node: was anything of it read?
    fn node(&mut self, name: String, is_read: bool) {
        let names = if is_read { &mut self.nodes_read } else { &mut self.nodes_unread };
        if !names.contains(&name) {
            names.push(name);
        }
    }
}

struct Desk<'a> {
    ops: &'a OpsContext,
    cluster: Arc<Cluster>,
    policy: &'static Policy,
}

impl Desk<'_> {
    fn verdict(&self, name: String, observer: Observer, target: &Target, reading: Reading) -> DiagnosedTarget {
        let seen = observer.finish();
        let (analyzer, now) = (Analyzer::new(Rules::built_in(), self.policy), self.ops.control.now());
        let mut verdict = analyzer.judge(&seen);
        let history = reading.before.history(&verdict, self.policy, now);
        if history != History::default() {
            verdict = analyzer.with_history(history).judge(&seen);
        }
        let changed = reading.before.changes(&verdict, now);
        let insight = Insight::new(Rules::built_in(), &verdict, target).with_changes(changed);
        DiagnosedTarget {
            target: name,
            diagnosis: insight.diagnosis,
            lines: seen.lines,
            records: seen.records,
            series: reading.over_time.read,
            kernel_log: reading.kernels.read,
            nodes_read: reading.nodes_read,
            nodes_unread: reading.nodes_unread,
            simulated: reading.simulated || reading.over_time.simulated,
        }
    }

    /// The lines of what was placed last, of all its parts, and what happened to their GPUs meanwhile.
    async fn workload(&self, workload: &WorkloadEntry) -> Result<DiagnosedTarget, OpError> {
        let mut observer = Observer::new(Rules::built_in(), "logs");
        let mut reading = Reading { simulated: workload.simulated(), ..Reading::default() };
        let parts = workload.latest();
        let lines = (LINES_MAX / parts.len().max(1)).max(LINES_OF_A_PART);
        if parts.is_empty() {
            self.logs(&mut observer, workload.workload_id, workload.attempt(), lines).await?;
        }
        for part in parts {
            // Addresses and numbers of several nodes are the same; a UUID is one GPU's.
            let node = self.cluster.nodes.get(part.node_id);
            observer.machine(node.map(|node| kernel::names(node, Some(&part.gpus))).unwrap_or_default());
            self.logs(&mut observer, workload.workload_id, part.attempt, lines).await?;
            let its = |gpu: &&GpuInfo| part.gpus.contains(&gpu.uuid);
            for gpu in node.iter().flat_map(|node| node.gpus()).filter(its) {
                inventory(&mut observer, gpu);
            }
            let before = observer.records();
            let during @ (from, to) = span(part, self.ops.control.now());
            let n_lines = node.map_or(0, |node| self.kernel_of(&mut observer, node, part, during, &mut reading));
            let its = |event: &GpuEvent| part.gpus.contains(&event.uuid) && (from..=to).contains(&event.at);
            observer.next_source(&format!("GPU events of {}", self.name(part.node_id)));
            let events = self.events(&mut observer, part.node_id, its);
            // The latest numbers speak of what runs now.
            let mut gpus = Vec::new();
            if part.live {
                let (at, all) = self.latest(part.node_id).unwrap_or((self.ops.control.now(), Vec::new()));
                gpus.extend(all.into_iter().filter(|gpu| part.gpus.contains(&gpu.uuid)));
                observer.next_source(&format!("latest metrics of {}", self.name(part.node_id)));
                sampled(&mut observer, at, &gpus, part.gpus.iter());
                reading.over_time.part(self, part);
            }
            reading.simulated |= events.iter().any(|event| event.simulated) || gpus.iter().any(|gpu| gpu.simulated);
            reading.simulated |= self.cluster.nodes.get(part.node_id).is_some_and(|node| node.simulated());
            reading.node(self.name(part.node_id), observer.records() > before || n_lines > 0);
        }
        reading.over_time.tell(&mut observer);
        // The culprit of several parts, or the part that ran last.
        let node = workload.verdict().map(|part| part.node_id.to_string());
        let target = Target { node, workload: Some(workload.workload_id.to_string()) };
        Ok(self.verdict(format!("workload:{}", workload.name), observer, &target, reading))
    }

    /// Feeds the newest lines of one attempt.
    async fn logs(
        &self,
        observer: &mut Observer,
        id: WorkloadId,
        attempt: Attempt,
        lines: usize,
    ) -> Result<(), OpError> {
        let wanted = LogRead {
            workload_id: Some(id),
            attempt: Some(attempt),
            tail: Some(lines),
            limit: lines,
            ..LogRead::default()
        };
        let page = self.ops.control.logs().read(wanted).await.map_err(|error| logs::fault(self.ops, &error))?;
        observer.next_source(&format!("logs of attempt {}", attempt.0));
        for entry in &page.entries {
            observer.line(&String::from_utf8_lossy(&entry.line.bytes));
        }
        if observer.source_lines() == 0 {
            observer.unread(format!("attempt {} has written no line that can be read", attempt.0));
        }
        if page.truncated {
            observer.unread(format!("of attempt {} only the newest {lines} lines were read", attempt.0));
        }
        let lost: u64 = page.gaps.iter().map(|gap| gap.n_lost).sum();
        if lost > 0 {
            observer.unread(format!("{lost} lines of attempt {} are lost", attempt.0));
        }
        Ok(())
    }

    /// What happened to a node's GPUs, and what their latest numbers say.
    fn node(&self, node: &NodeEntry, faults: &mut Vec<NodeFault>) -> DiagnosedTarget {
        let mut observer = Observer::new(Rules::built_in(), "GPU events");
        let now = self.ops.control.now();
        let mut reading = Reading::default();
        observer.machine(kernel::names(node, None));
        for gpu in node.gpus() {
            inventory(&mut observer, gpu);
        }
        let (events, n_lines) = self.runs(&mut observer, node, &mut reading);
        let fault = |uuid: &GpuUuid, code, at| NodeFault {
            node: node.name.clone(),
            rack: node.labels.get(RACK_LABEL).cloned(),
            unit: Some(uuid.to_string()),
            code,
            at_s: seconds(at),
        };
        for event in &events {
            let code = reported::code(event, self.vendor(node.node_id, &event.uuid));
            faults.extend(code.map(|code| fault(&event.uuid, code, event.at)));
        }
        let latest = self.latest(node.node_id);
        observer.next_source("latest metrics");
        let (at, gpus) = latest.as_ref().map_or((now, &[][..]), |(at, gpus)| (*at, gpus.as_slice()));
        sampled(&mut observer, at, gpus, node.gpus().iter().map(|gpu| &gpu.uuid));
        for gpu in gpus {
            let told = reported::numbers(gpu).unwrap_or_default();
            faults.extend(told.into_iter().map(|told| fault(&gpu.uuid, told.code, at)));
        }
        let of_gpus = gpus.iter().any(|gpu| gpu.simulated);
        reading.simulated = node.simulated() || of_gpus || events.iter().any(|event| event.simulated);
        reading.over_time.node(self, node);
        for (uuid, code, at_s) in reading.over_time.tell(&mut observer) {
            faults.push(NodeFault { at_s, ..fault(&uuid, code, now) });
        }
        reading.node(node.name.clone(), observer.records() > 0 || n_lines > 0);
        reading.before.node(self, node);
        let target = Target { node: Some(node.node_id.to_string()), workload: None };
        self.verdict(format!("node:{}", node.name), observer, &target, reading)
    }

    /// What happened to a node's GPUs and what its kernel said, within a day: first what was before its machine was
    /// started anew, then what came since. Returns the events, and how many lines there were.
    fn runs(&self, observer: &mut Observer, node: &NodeEntry, reading: &mut Reading) -> (Vec<GpuEvent>, u64) {
        let now = self.ops.control.now();
        let recent = |at: Timestamp| reported::is_recent(at, now);
        let start = self.ops.control.changes().starts(node.node_id).last().copied().filter(|at| recent(*at));
        let kernel = reading.kernels.open(self, node, observer);
        let (before, lines) = kernel.map(|read| (read.before, read.lines)).unwrap_or_default();
        let mut events = Vec::new();
        let mut n_lines = 0;
        let before: Vec<_> = before.iter().filter(|line| recent(line.at)).collect();
        if start.is_some() || !before.is_empty() {
            let until = start.unwrap_or(Timestamp::from_unix_ms(i64::MIN));
            observer.next_source("GPU events before its last start");
            self.events(observer, node.node_id, |event| recent(event.at) && event.at < until);
            n_lines += reading.kernels.feed(observer, "kernel log before its last start", before.into_iter());
            observer.restarted();
        }
        observer.next_source("GPU events");
        let since = |event: &GpuEvent| recent(event.at) && start.is_none_or(|start| event.at >= start);
        events.extend(self.events(observer, node.node_id, since));
        let lines = lines.iter().filter(|line| recent(line.at));
        n_lines += reading.kernels.feed(observer, "kernel log", lines);
        (events, n_lines)
    }

    /// What the kernel of a part's node said of its GPUs while it had them. Returns how many lines there were.
    fn kernel_of(
        &self,
        observer: &mut Observer,
        node: &NodeEntry,
        part: &AttemptEntry,
        during: (Timestamp, Timestamp),
        reading: &mut Reading,
    ) -> u64 {
        reading.before.node(self, node);
        let Some(read) = reading.kernels.open(self, node, observer) else { return 0 };
        let names = kernel::names(node, None);
        let its = |line: &&KernelLine| kernel::is_within(line, during) && kernel::may_be_of(line, &names, &part.gpus);
        observer.machine(names.clone());
        let lines = read.before.iter().chain(&read.lines).filter(its);
        reading.kernels.feed(observer, &format!("kernel log of {}", node.name), lines)
    }

    /// A pasted text. Where it names GPUs of one of our nodes, it is that node's.
    fn text(&self, text: &str) -> DiagnosedTarget {
        let mut observer = Observer::new(Rules::built_in(), "text");
        let homes =
            device::uuids(text).into_iter().filter_map(|uuid| self.cluster.nodes.home_of(&GpuUuid(uuid.into())));
        let homes: BTreeSet<NodeId> = homes.collect();
        let home = homes.first().filter(|_| homes.len() == 1).and_then(|id| self.cluster.nodes.get(*id));
        let mut reading = Reading::default();
        if let Some(node) = home {
            observer.machine(kernel::names(node, None));
            for gpu in node.gpus() {
                inventory(&mut observer, gpu);
            }
            reading.before.node(self, node);
        }
        observer.text(text);
        let target = Target { node: home.map(|node| node.node_id.to_string()), workload: None };
        self.verdict("text".to_owned(), observer, &target, reading)
    }

    /// Feeds the events of a node that count, oldest first.
    fn events(&self, observer: &mut Observer, node: NodeId, counts: impl Fn(&GpuEvent) -> bool) -> Vec<GpuEvent> {
        let mut events = self.ops.control.metrics().gpu_events(node);
        events.reverse();
        events.retain(|event| counts(event));
        for event in &events {
            if reported::is_nameless(event) {
                observer.unread(format!("an Xid of {} came without its number", event.uuid));
                continue;
            }
            let Some(code) = reported::code(event, self.vendor(node, &event.uuid)) else {
                observer.healthy(1);
                continue;
            };
            let (uuid, words) = (event.uuid.to_string(), event.detail.as_str());
            let (at_s, rule) = (seconds(event.at), "event.driver");
            observer.event(&Reported { code, uuid: &uuid, at_s, rule, words, asks: None });
        }
        events
    }

    /// The numbers of a node's GPUs, if they are still the latest.
    fn latest(&self, node: NodeId) -> Option<(Timestamp, Vec<GpuMetrics>)> {
        let interval_ms = self.cluster.nodes.get(node)?.settings.metrics_interval_ms;
        let latest = self.ops.control.metrics().get(node)?;
        let fresh = reported::is_fresh(latest.at, self.ops.control.now(), interval_ms);
        fresh.then_some((latest.at, latest.gpus))
    }

    /// Who made a GPU; of one that is gone, who made its neighbors.
    fn vendor(&self, node: NodeId, uuid: &GpuUuid) -> GpuVendor {
        let gpus = self.cluster.nodes.get(node).map_or(&[][..], |node| node.gpus());
        let known = gpus.iter().find(|gpu| gpu.uuid == *uuid).or_else(|| gpus.first());
        known.map_or(GpuVendor::Other, |gpu| gpu.vendor)
    }

    /// A node's name; of one that was removed, its id.
    fn name(&self, node: NodeId) -> String {
        self.cluster.nodes.get(node).map_or_else(|| node.to_string(), |node| node.name.clone())
    }
}

/// Tells of which architecture a GPU is, if its driver or its model tells it.
fn inventory(observer: &mut Observer, gpu: &GpuInfo) {
    let known = &Rules::built_in().architectures;
    let by_capability = gpu.compute_capability.as_deref().and_then(|capability| known.of_capability(capability));
    let architecture = by_capability.or_else(|| known.of_model(&gpu.model));
    if let Some(architecture) = architecture.filter(|_| gpu.vendor == GpuVendor::Nvidia) {
        observer.gpu(architecture, [Unit::Uuid(gpu.uuid.to_string())]);
    }
}

/// Feeds what the latest numbers say by themselves, and notes of which of the `wanted` GPUs there are none.
fn sampled<'a>(observer: &mut Observer, at: Timestamp, gpus: &[GpuMetrics], wanted: impl Iterator<Item = &'a GpuUuid>) {
    let mut read = BTreeSet::new();
    for gpu in gpus {
        let Some(told) = reported::numbers(gpu) else { continue };
        read.insert(&gpu.uuid);
        if told.is_empty() {
            observer.healthy(1);
        }
        let uuid = gpu.uuid.to_string();
        for one in told {
            let (words, asks, rule) = (one.words, Some(one.asks), "metrics.latest");
            observer.event(&Reported { code: one.code, uuid: &uuid, at_s: seconds(at), rule, words, asks });
        }
    }
    let unread: Vec<String> = wanted.filter(|uuid| !read.contains(uuid)).map(ToString::to_string).collect();
    if let [first, rest @ ..] = unread.as_slice() {
        let named = rest.iter().take(GPUS_NAMED - 1).fold(first.clone(), |all, uuid| all + ", " + uuid);
        let more = match unread.len().saturating_sub(GPUS_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        observer.unread(format!("no fresh numbers of health of {named}{more}"));
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
