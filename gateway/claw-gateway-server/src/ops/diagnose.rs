//! `diagnose`: what logs, events and the latest numbers say about a fault.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use claw_gateway::Cluster;
use claw_gateway::registry::NodeEntry;
use claw_gateway::workload::{AttemptEntry, WorkloadEntry};
use claw_observe::diagnose::analyze::fleet::{self, Change, NodeFault};
use claw_observe::diagnose::analyze::{History, Verdict};
use claw_observe::diagnose::device::{self, Names, Unit};
use claw_observe::diagnose::insight::Target;
use claw_observe::diagnose::observe::{Home, Reported};
use claw_observe::diagnose::policy::Policy;
use claw_observe::diagnose::reported::{self, EVENTS_MS};
use claw_observe::diagnose::rules::Rules;
use claw_observe::diagnose::series::told::Steps;
use claw_observe::{Analyzer, Insight, Observer};
use claw_proto::ids::{GpuUuid, NodeId};
use claw_proto::message::{GpuEvent, GpuMetrics, KernelLine};
use claw_proto::spec::GpuVendor;
use claw_proto::time::Timestamp;
use claw_proto::topology::GpuInfo;
use claw_tools::diagnosis::{DiagnoseParams, DiagnosedTarget, Diagnoses, FaultAction, FaultInCommon, FaultPolicy};
use claw_tools::refusal::{ErrorCode, Refusal};

use super::{OpError, OpsContext};
use crate::control::Boot;
use before::Before;
use kernel::Kernels;
use over_time::OverTime;
use written::Written;

mod before;
mod kernel;
mod over_time;
mod written;

/// Targets in one answer.
const TARGETS_MAX: usize = 10;
/// Milliseconds after an attempt's end within which an event of its GPUs is still its own.
const AFTER_MS: i64 = 60_000;
/// GPUs without numbers that are named; more are counted.
const GPUS_NAMED: usize = 8;
/// Nodes of which a pasted text may be, by the names of their hosts.
const HOSTS_OF_A_TEXT: usize = 64;
/// The node's label that names its rack.
const RACK_LABEL: &str = "rack";

/// What is to be diagnosed.
enum Asked {
    Text(String),
    Workload(Arc<WorkloadEntry>, Vec<Written>),
    Node(Arc<NodeEntry>),
    Fleet,
}

/// Verdicts about what was asked for.
pub(super) async fn targets(ops: &OpsContext, p: &DiagnoseParams) -> Result<Diagnoses, OpError> {
    let asked = [("workload", &p.workload), ("node", &p.node), ("text", &p.text)];
    let mut given = asked.iter().filter(|(_, value)| value.is_some());
    if let (Some(_), Some((field, _))) = (given.next(), given.next()) {
        let refusal = Refusal::new(ErrorCode::InvalidArgument, "a diagnosis has one target: workload, node or text");
        return Err(refusal.with_field(*field, "a second target").into());
    }
    let desk = Desk { ops: ops.clone(), cluster: ops.control.snapshot(), policy: policy(ops, p.policy)? };
    let asked = if let Some(text) = &p.text {
        Asked::Text(text.clone())
    } else if let Some(name) = &p.workload {
        let workload = Arc::clone(desk.cluster.resolve_workload(name)?);
        let written = written::of(ops, &workload).await?;
        Asked::Workload(workload, written)
    } else if let Some(name) = &p.node {
        Asked::Node(Arc::clone(desk.cluster.resolve_node(name)?))
    } else {
        Asked::Fleet
    };
    // Thousands of lines are matched: that is no work for the threads that serve connections.
    let answer = tokio::task::spawn_blocking(move || desk.answer(&asked)).await;
    answer.map_err(|error| OpError::Fault(ops.control.fault("a diagnosis broke off", &error)))
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

struct Desk {
    ops: OpsContext,
    cluster: Arc<Cluster>,
    policy: &'static Policy,
}

impl Desk {
    fn answer(&self, asked: &Asked) -> Diagnoses {
        let mut faults = Vec::new();
        let only = match asked {
            Asked::Text(text) => self.text(text),
            Asked::Workload(workload, written) => self.workload(workload, written),
            Asked::Node(node) => self.node(node, &mut faults),
            Asked::Fleet => return self.fleet(),
        };
        let is_text = matches!(asked, Asked::Text(_));
        Diagnoses {
            nodes_read: if is_text { 0 } else { only.nodes_read.len() as u64 },
            nodes_unread: only.nodes_unread.iter().take(TARGETS_MAX).cloned().collect(),
            targets: vec![only],
            common: common(&faults, &[]),
            truncated: false,
            untrusted: true,
        }
    }

    /// Every node of which there is something to tell.
    fn fleet(&self) -> Diagnoses {
        let (mut found, mut faults) = (Vec::new(), Vec::new());
        let mut changes = before::of_fleet(self);
        let (mut nodes_read, mut nodes_unread) = (0, Vec::new());
        for node in self.cluster.nodes.iter() {
            let target = self.node(node, &mut faults);
            changes.extend(before::of_node(self, node));
            nodes_read += target.nodes_read.len() as u64;
            let room = TARGETS_MAX.saturating_sub(nodes_unread.len());
            nodes_unread.extend(target.nodes_unread.iter().take(room).cloned());
            // A node of which only a part was read has that to tell.
            let partly = !target.nodes_read.is_empty() && !target.diagnosis.why.is_empty();
            if target.diagnosis.action != FaultAction::None || partly {
                found.push(target);
            }
        }
        // The gravest first; the order of nodes decides between equals.
        found.sort_by_key(|target| std::cmp::Reverse(target.diagnosis.action));
        let truncated = found.len() > TARGETS_MAX;
        found.truncate(TARGETS_MAX);
        let common = common(&faults, &changes);
        Diagnoses { targets: found, common, nodes_read, nodes_unread, truncated, untrusted: true }
    }

    fn verdict(&self, name: String, observer: Observer, mut target: Target, reading: Reading) -> DiagnosedTarget {
        let seen = observer.finish();
        let (analyzer, now) = (Analyzer::new(Rules::built_in(), self.policy), self.ops.control.now());
        let mut verdict = analyzer.judge(&seen);
        let history = reading.before.history(&verdict, self.policy, now);
        if history != History::default() {
            verdict = analyzer.with_history(history).judge(&seen);
        }
        let changed = reading.before.changes(&verdict, now);
        target.node = self.home(&verdict).or(target.node);
        let insight = Insight::new(Rules::built_in(), &verdict, &target).with_changes(changed);
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

    /// The node that the root was found on, if it is one and known.
    fn home(&self, verdict: &Verdict) -> Option<String> {
        let root = verdict.root_index.and_then(|index| verdict.findings.get(index))?;
        if let Some(Unit::Uuid(uuid)) = &root.unit
            && let Some(node) = self.cluster.nodes.home_of(&GpuUuid(uuid.clone()))
        {
            return Some(node.to_string());
        }
        match &root.home {
            Home::Node(node) => Some(node.to_string()),
            Home::Unknown | Home::Several => None,
        }
    }

    /// What GPUs are called on a node, those that it has not any more among them; see [`kernel::names`].
    fn names(&self, node: &NodeEntry, own: Option<&[GpuUuid]>) -> Names {
        kernel::names(node, &self.ops.control.changes().missing(node.node_id), own)
    }

    /// The lines of what was placed last, of all its parts, and what happened to their GPUs meanwhile.
    fn workload(&self, workload: &WorkloadEntry, written: &[Written]) -> DiagnosedTarget {
        let mut observer = Observer::new(Rules::built_in(), "logs");
        let mut reading = Reading { simulated: workload.simulated(), ..Reading::default() };
        let parts = workload.latest();
        let ranks = written::ranks(&self.cluster, parts, written);
        let names = |node: &NodeEntry, part: &AttemptEntry| {
            let mut names = self.names(node, Some(&part.gpus));
            for (rank, uuid) in &ranks {
                names.add(&Unit::Uuid(uuid.to_string()), [rank.clone()]);
            }
            names
        };
        for part in parts {
            if let Some(node) = self.cluster.nodes.get(part.node_id) {
                host(&mut observer, node, &self.names(node, Some(&part.gpus)));
            }
        }
        for (place, written) in written.iter().enumerate() {
            let part = parts.get(place);
            // Addresses and numbers of several nodes are the same; a UUID is one GPU's.
            let node = part.and_then(|part| Some((self.cluster.nodes.get(part.node_id)?, part)));
            if let Some((node, part)) = node {
                observer.machine(&node.node_id.to_string(), names(node, part));
            }
            written.feed(&mut observer);
            if let Some(part) = part {
                self.part(&mut observer, part, &mut reading);
            }
        }
        let mut steps = Steps::default();
        for written in written {
            steps.and(written.steps());
        }
        reading.over_time.steps(&steps);
        reading.over_time.tell(&mut observer);
        // The culprit of several parts, or the part that ran last, if the root itself tells no node.
        let node = workload.verdict().map(|part| part.node_id.to_string());
        let target = Target { node, workload: Some(workload.workload_id.to_string()) };
        self.verdict(format!("workload:{}", workload.name), observer, target, reading)
    }

    /// What happened to the GPUs of a part, and what its node's kernel said of them, while it had them.
    fn part(&self, observer: &mut Observer, part: &AttemptEntry, reading: &mut Reading) {
        let node = self.cluster.nodes.get(part.node_id);
        let its = |gpu: &&GpuInfo| part.gpus.contains(&gpu.uuid);
        for gpu in node.iter().flat_map(|node| node.gpus()).filter(its) {
            inventory(observer, gpu);
        }
        let before = observer.records();
        let during @ (from, to) = span(part, self.ops.control.now());
        let n_lines = node.map_or(0, |node| self.kernel_of(observer, node, part, during, reading));
        let its = |event: &GpuEvent, _: &Boot| part.gpus.contains(&event.uuid) && (from..=to).contains(&event.at);
        observer.next_source(&format!("GPU events of {}", self.name(part.node_id)));
        let events = self.events(observer, part.node_id, its);
        // The latest numbers speak of what runs now.
        let mut gpus = Vec::new();
        if part.live {
            let (at, all) = self.latest(part.node_id).unwrap_or((self.ops.control.now(), Vec::new()));
            gpus.extend(all.into_iter().filter(|gpu| part.gpus.contains(&gpu.uuid)));
            observer.next_source(&format!("latest metrics of {}", self.name(part.node_id)));
            sampled(observer, at, &gpus, part.gpus.iter());
            reading.over_time.part(self, part);
        }
        reading.simulated |= events.iter().any(|event| event.simulated) || gpus.iter().any(|gpu| gpu.simulated);
        reading.simulated |= node.is_some_and(|node| node.simulated());
        reading.node(self.name(part.node_id), observer.records() > before || n_lines > 0);
    }

    /// What happened to a node's GPUs, and what their latest numbers say.
    fn node(&self, node: &NodeEntry, faults: &mut Vec<NodeFault>) -> DiagnosedTarget {
        let mut observer = Observer::new(Rules::built_in(), "GPU events");
        let now = self.ops.control.now();
        let mut reading = Reading::default();
        observer.machine(&node.node_id.to_string(), self.names(node, None));
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
        reading.before.node(self, node, &mut observer);
        let target = Target { node: Some(node.node_id.to_string()), workload: None };
        self.verdict(format!("node:{}", node.name), observer, target, reading)
    }

    /// What happened to a node's GPUs and what its kernel said, within a day: first what was before its machine was
    /// started anew, then what came since. Returns the events, and how many lines there were.
    ///
    /// Which run of the machine something was told in says what came before, and no clock: the node's and the
    /// gateway's differ, and the tail of a kernel's log may still be that of the run before.
    fn runs(&self, observer: &mut Observer, node: &NodeEntry, reading: &mut Reading) -> (Vec<GpuEvent>, u64) {
        let now = self.ops.control.now();
        let recent = |at: Timestamp| reported::is_recent(at, now);
        let present = node.capabilities.as_ref().and_then(|has| has.boot_id.as_deref());
        let is_over = |boot: Option<&str>| boot.is_some() && present.is_some() && boot != present;
        let (mut before, mut lines) = (Vec::new(), Vec::new());
        if let Some(read) = reading.kernels.open(self, node, observer) {
            before = read.before;
            lines = read.lines;
            if is_over(Some(read.boot_id.as_str())) {
                before.append(&mut lines);
            }
        }
        before.retain(|line| recent(line.at));
        let mut n_lines = 0;
        observer.next_source("GPU events before its last start");
        let old = |event: &GpuEvent, boot: &Boot| recent(event.at) && is_over(boot.as_deref());
        let n_old = self.events(observer, node.node_id, old).len();
        if n_old > 0 || !before.is_empty() {
            n_lines += reading.kernels.feed(observer, "kernel log before its last start", before.iter());
            let missing = self.ops.control.changes().missing(node.node_id);
            observer.restarted(&missing.iter().map(|gpu| Unit::Uuid(gpu.uuid.to_string())).collect::<Vec<_>>());
        }
        observer.next_source("GPU events");
        let since = |event: &GpuEvent, boot: &Boot| recent(event.at) && !is_over(boot.as_deref());
        let events = self.events(observer, node.node_id, since);
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
        reading.before.node(self, node, observer);
        let Some(read) = reading.kernels.open(self, node, observer) else { return 0 };
        let names = self.names(node, None);
        let its = |line: &&KernelLine| kernel::is_within(line, during) && kernel::may_be_of(line, &names, &part.gpus);
        observer.machine(&node.node_id.to_string(), names.clone());
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
            observer.machine(&node.node_id.to_string(), self.names(node, None));
            for gpu in node.gpus() {
                inventory(&mut observer, gpu);
            }
            reading.before.node(self, node, &mut observer);
        }
        let words: HashSet<&str> = text.split(|c: char| !is_of_host(c)).map(first_label).collect();
        let is_named = |node: &&Arc<NodeEntry>| hosts(node).any(|host| words.contains(first_label(host)));
        for node in self.cluster.nodes.iter().filter(is_named).take(HOSTS_OF_A_TEXT) {
            host(&mut observer, node, &self.names(node, None));
        }
        observer.text(text);
        let target = Target { node: home.map(|node| node.node_id.to_string()), workload: None };
        self.verdict("text".to_owned(), observer, target, reading)
    }

    /// Feeds the events of a node that count, oldest first.
    fn events(
        &self,
        observer: &mut Observer,
        node: NodeId,
        counts: impl Fn(&GpuEvent, &Boot) -> bool,
    ) -> Vec<GpuEvent> {
        let mut events = self.ops.control.metrics().gpu_events(node);
        events.retain(|(event, boot)| counts(event, boot));
        let mut events: Vec<GpuEvent> = events.into_iter().map(|(event, _)| event).collect();
        events.reverse();
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

/// A character that names of machines are made of.
fn is_of_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// A machine's name without its domain.
fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

/// What a node's machine is called: by itself, and here.
fn hosts(node: &NodeEntry) -> impl Iterator<Item = &str> {
    let hostname = node.capabilities.as_ref().map(|has| has.hostname.as_str());
    hostname.into_iter().chain([node.name.as_str()])
}

/// Lines that name a node's machine are of that node.
fn host(observer: &mut Observer, node: &NodeEntry, names: &Names) {
    let id = node.node_id.to_string();
    for host in hosts(node) {
        observer.host(host, &id, names.clone());
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
