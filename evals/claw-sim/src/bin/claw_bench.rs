//! `claw-bench`: figures of the pure core, release build, five rounds each.
//!
//! `claw-bench [core|shapes|gangs]`: all of them, or one group.
//!
//! The figures are this machine's. What they are for is their ratio: from one
//! fleet size to the next, and from one version to the next in the same run.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claw_gateway::cluster::SNAPSHOT_FORMAT;
use claw_gateway::policy::Policy;
use claw_gateway::{Caller, Cluster, Command, EventRecord, Operation, Report, advance, query};
use claw_proto::ids::{CountingIds, GpuUuid, TokenId};
use claw_proto::message::{NodeWorkloadState, StatusCause, StatusRecord};
use claw_proto::spec::{GpuRequest, GpuVendor, Interconnect, RuntimeKind, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuDriver, GpuInfo, NodeCapabilities};
use claw_tools::access::PrincipalKind;
use claw_tools::approvals::ApprovalDecision;
use claw_tools::outcome::{Mode, Mutation};
use claw_tools::quotas::QuotaAmounts;

// The gateway's own (ADR 0008), so that what is measured is what the core costs there. It is linked as `malloc`.
use mimalloc as _;

/// Groups of figures that can be asked for alone.
const GROUPS: [&str; 3] = ["core", "shapes", "gangs"];
/// Rounds of each figure.
const ROUNDS: usize = 5;
/// Those of [`Bench::with_tenants`] that work is submitted for.
const TENANTS: [&str; 5] = ["t0a", "t3b", "t7a", "t11b", "t15a"];
/// Instant of all decisions.
const NOW: Timestamp = Timestamp::from_unix_ms(1_772_366_400_000);

fn capabilities(name: &str) -> NodeCapabilities {
    let gpu = |index: u32| GpuInfo {
        nvlink_island: Some(0),
        numa_node: Some(index / 4),
        ..GpuInfo::new(GpuUuid(format!("GPU-{name}-{index}")), index, GpuVendor::Nvidia, "H100", 81_559)
    };
    NodeCapabilities {
        hostname: name.into(),
        os: "bench".into(),
        arch: "x86_64".into(),
        agent_version: "0".into(),
        cpu_millis: 128_000,
        memory_mib: 1 << 20,
        disk_mib: 1 << 22,
        gpu_driver: GpuDriver::Sim,
        gpus: (0..8).map(gpu).collect(),
        runtimes: vec![RuntimeKind::Sim],
        simulated: true,
        labels: BTreeMap::new(),
        findings: Vec::new(),
        engine: None,
        nics: Vec::new(),
        boot_id: None,
    }
}

/// A fleet and the events that made it.
struct Bench {
    cluster: Cluster,
    ids: CountingIds,
    events: Vec<EventRecord>,
    /// Events are kept, which a gateway does not do: it journals them.
    keeps_events: bool,
}

impl Bench {
    fn fleet(n_nodes: u32) -> Self {
        let cluster = Cluster::new(Arc::new(Policy::default()));
        let mut bench = Self { cluster, ids: CountingIds::new(1), events: Vec::new(), keeps_events: false };
        bench.run(Command::GatewayStarted { epoch: 1 });
        for i in 0..n_nodes {
            let operation = Operation::NodeTokenCreate { name: None, labels: BTreeMap::new(), ttl_s: 60 };
            let Report::Outcome { outcome, .. } = bench.operate(operation) else { continue };
            let token: Option<TokenId> = outcome.credential.and_then(|c| c.id.parse().ok());
            let Some(token_id) = token else { continue };
            let name = format!("n{i:05}");
            let enroll = Command::NodeEnroll { token_id, secret_hash: "ab".repeat(32), name: name.clone() };
            if let Report::Enrolled { node_id } = bench.run(enroll) {
                let capabilities = Box::new(capabilities(&name));
                bench.run(Command::NodeRegister {
                    node_id,
                    capabilities,
                    running: Vec::new(),
                    store_id: 1,
                    epoch_seen: 0,
                });
            }
        }
        bench
    }

    fn run(&mut self, command: Command) -> Report {
        self.run_as(command, &Caller::system(NOW))
    }

    fn run_as(&mut self, command: Command, caller: &Caller) -> Report {
        let decision =
            advance(&mut self.cluster, command, caller, &mut self.ids).expect("the bench asks for what is possible");
        if self.keeps_events {
            self.events.extend(decision.events);
        }
        decision.report
    }

    fn operate(&mut self, operation: Operation) -> Report {
        let mutation = Mutation { mode: Mode::Apply, request_id: None, reason: None, wait_s: 0 };
        let secret_hash = Some("ab".repeat(32));
        self.run(Command::Operate { operation, mutation, args_hash: String::new(), secret_hash })
    }

    /// An operation of tier 2, by way of its plan and a person's approval.
    fn plan_and_apply(&mut self, operation: Operation) {
        let mutation = |mode| Mutation { mode, request_id: None, reason: None, wait_s: 0 };
        let (args_hash, secret_hash) = (String::new(), None);
        let plan = Command::Operate { operation, mutation: mutation(Mode::Plan), args_hash, secret_hash };
        let Report::Outcome { outcome, .. } = self.run(plan) else { panic!("a plan has an outcome") };
        let plan = outcome.plan.expect("it changes something");
        let person = Caller { principal: "person".into(), kind: PrincipalKind::Person, ..Caller::system(NOW) };
        let (mutation, args_hash) = (mutation(Mode::Apply), String::new());
        if let Some(approval_id) = plan.approval_id {
            let (decision, diff_hash) = (ApprovalDecision::Approve, plan.diff_hash);
            let (mutation, args_hash) = (mutation.clone(), args_hash.clone());
            self.run_as(Command::ApprovalDecide { approval_id, decision, diff_hash, mutation, args_hash }, &person);
        }
        self.run_as(Command::PlanApply { plan_id: plan.plan_id, mutation, args_hash, secret_hash: None }, &person);
    }

    /// Sixteen tenants, each with two parts, all guaranteed something and bounded.
    fn with_tenants(mut self) -> Self {
        let gpus = |gpus| Some(QuotaAmounts { gpus: Some(gpus), ..QuotaAmounts::default() });
        let set = |tenant: String, parent: Option<String>, guaranteed| Operation::QuotaSet {
            tenant,
            parent,
            guaranteed: gpus(guaranteed),
            most: gpus(100_000),
            lends: None,
            weight: None,
            members: None,
        };
        for n in 0..16 {
            self.plan_and_apply(set(format!("t{n}"), None, 64));
            for part in ["a", "b"] {
                self.plan_and_apply(set(format!("t{n}{part}"), Some(format!("t{n}")), 32));
            }
        }
        assert_eq!(self.cluster.tenants.len(), 48, "the rows name so many");
        self
    }

    fn submit(&mut self, gpus: u32) {
        self.submit_spec(linked(gpus));
    }

    fn submit_spec(&mut self, spec: WorkloadSpec) {
        self.operate(Operation::WorkloadRun { spec: Box::new(spec), env_handle: None, assumptions: Vec::new() });
    }

    /// The same fleet, to go on apart.
    fn fork(&self) -> Self {
        Self { cluster: self.cluster.clone(), ids: self.ids.clone(), events: Vec::new(), keeps_events: false }
    }

    fn complete_all(&mut self) {
        let live: Vec<_> = self
            .cluster
            .workloads
            .iter()
            .filter_map(|w| w.live().map(|a| (w.workload_id, a.attempt, a.node_id)))
            .collect();
        for (workload_id, attempt, node_id) in live {
            let record = StatusRecord {
                record: 1,
                workload_id,
                attempt,
                state: NodeWorkloadState::Completed,
                cause: StatusCause::Exited,
                detail: String::new(),
                exit_code: Some(0),
                signal: None,
                at: NOW,
                simulated: true,
                checkpoint: None,
            };
            self.run(Command::NodeStatus { node_id, records: vec![record] });
        }
    }
}

/// Work on GPUs that reach each other by NVLink.
fn linked(gpus: u32) -> WorkloadSpec {
    let gpu = GpuRequest { count: Some(gpus), interconnect: Some(Interconnect::Nvlink), ..GpuRequest::default() };
    WorkloadSpec { command: Some(vec!["train".into()]), gpu: Some(gpu), ..WorkloadSpec::default() }
}

/// Time of one of `n` things, microseconds: minimum, median, maximum over the
/// rounds, and how many that is in a second at the median.
fn measure(name: &str, n: u32, mut round: impl FnMut() -> Duration) -> String {
    let mut each: Vec<f64> = (0..ROUNDS).map(|_| round().as_secs_f64() * 1e6 / f64::from(n)).collect();
    each.sort_by(f64::total_cmp);
    let median = each[ROUNDS / 2];
    format!("{name:<46} {:>10.2} {median:>10.2} {:>10.2} {:>12.0}", each[0], each[ROUNDS - 1], 1e6 / median)
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn core_rows(n_nodes: u32) -> Vec<String> {
    let empty = Bench::fleet(n_nodes);
    let n = 500_u32.min(n_nodes * 2);
    let fork = || empty.fork();
    let mut rows = vec![
        measure(&format!("{n_nodes} nodes: submit and place 4 GPUs"), n, || {
            let mut bench = fork();
            timed(|| (0..n).for_each(|_| bench.submit(4)))
        }),
        measure(&format!("{n_nodes} nodes: a final status record"), n, || {
            let mut bench = fork();
            (0..n).for_each(|_| bench.submit(4));
            timed(|| bench.complete_all())
        }),
        measure(&format!("{n_nodes} nodes: a copy of the state (clone)"), 10_000, || {
            timed(|| (0..10_000).for_each(|_| drop(std::hint::black_box(empty.cluster.clone()))))
        }),
    ];
    let mut full = Bench { keeps_events: true, ..fork() };
    (0..n_nodes).for_each(|_| full.submit(8));
    full.submit(8);
    let waiting = full.cluster.workloads.queue().next().map(|id| id.to_string()).unwrap_or_default();
    rows.push(measure(&format!("{n_nodes} nodes: explain a waiting workload"), 1, || {
        timed(|| drop(std::hint::black_box(query::explain(&full.cluster, &waiting, NOW))))
    }));
    let n_events = u32::try_from(full.events.len()).unwrap_or(u32::MAX);
    rows.push(measure(&format!("{n_nodes} nodes: apply an event (replay)"), n_events, || {
        let mut state = empty.cluster.clone();
        timed(|| full.events.iter().for_each(|event| state.apply(event)))
    }));
    rows.push(measure(&format!("{n_nodes} nodes: encode a snapshot for the disk"), 1, || {
        timed(|| drop(std::hint::black_box(full.cluster.to_snapshot())))
    }));
    let bytes = full.cluster.to_snapshot();
    rows.push(measure(&format!("{n_nodes} nodes: decode one, {} KiB", bytes.len() / 1_024), 1, || {
        let policy = Arc::clone(&full.cluster.policy);
        timed(|| drop(std::hint::black_box(Cluster::from_snapshot(SNAPSHOT_FORMAT, &bytes, policy))))
    }));
    rows
}

/// Eight shapes in turn, one decision each, on a fleet whose size should not matter.
fn shapes_row(empty: &Bench, name: &str, tenants: &[&str]) -> String {
    let shapes = [1, 2, 4, 8]
        .into_iter()
        .flat_map(|gpus| [1.0, 4.0].map(|cpu_cores| WorkloadSpec { cpu_cores: Some(cpu_cores), ..linked(gpus) }));
    let of = |(at, spec): (usize, WorkloadSpec)| WorkloadSpec { tenant: tenant(tenants, at), ..spec };
    let shapes: Vec<WorkloadSpec> = shapes.enumerate().map(of).collect();
    // Known before: a shape that nobody asked for yet asks every node once.
    let mut known = empty.fork();
    // And what is typical is learned: until then a placement costs less and counts less. The
    // lesson after this one comes when all is measured.
    for shape in shapes.iter().cycle().take(1_100) {
        known.submit_spec(shape.clone());
    }
    measure(name, 1_000, || {
        let mut bench = known.fork();
        timed(|| shapes.iter().cycle().take(1_000).for_each(|shape| bench.submit_spec(shape.clone())))
    })
}

fn tenant(tenants: &[&str], at: usize) -> Option<String> {
    (!tenants.is_empty()).then(|| tenants[at % tenants.len()].to_owned())
}

/// Gangs of four whole nodes in one rack: 10,000 GPUs, racks of eight nodes, ten zones. Median
/// and 99th percentile of single decisions, microseconds.
fn gang_row(name: &str, tenants: &[&str]) -> String {
    let mut fleet = Bench::fleet(1_250);
    let names: Vec<String> = fleet.cluster.nodes.iter().map(|node| node.name.clone()).collect();
    for (at, node) in names.into_iter().enumerate() {
        let (rack, zone) = (format!("r{}", at / 8), format!("z{}", at / 125));
        let set = BTreeMap::from([("rack".to_owned(), rack), ("zone".to_owned(), zone)]);
        fleet.operate(Operation::NodeLabel { node, set, remove: Vec::new() });
    }
    if !tenants.is_empty() {
        fleet = fleet.with_tenants();
    }
    let gang = |at: usize| WorkloadSpec { nodes: Some(4), tenant: tenant(tenants, at), ..linked(32) };
    let mut each: Vec<f64> = Vec::new();
    let mut bench = fleet.fork();
    for n in 0..2_400 {
        if n % 300 == 0 {
            bench = fleet.fork();
            bench.submit_spec(gang(n));
        }
        let spec = gang(n);
        each.push(timed(|| bench.submit_spec(spec)).as_secs_f64() * 1e6);
    }
    each.sort_by(f64::total_cmp);
    let at = |percent: usize| each[(each.len() - 1) * percent / 100];
    format!("{name:<46} {:>10.2} {:>10.2} {:>10.2} {:>12.0}", at(0), at(50), at(99), 1e6 / at(50))
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let (min, median, max, rate) = ("min us", "median us", "max us", "per second");
    writeln!(out, "{:<46} {min:>10} {median:>10} {max:>10} {rate:>12}", "figure")?;
    let only = std::env::args().nth(1);
    if let Some(word) = only.as_deref().filter(|word| !GROUPS.contains(word)) {
        return Err(std::io::Error::other(format!(
            "no figures are called {word:?}: one of {}, or none for all",
            GROUPS.join(", ")
        )));
    }
    let wanted = |group: &str| only.as_deref().is_none_or(|only| only == group);
    for n_nodes in [10, 100, 1_000].into_iter().filter(|_| wanted("core")) {
        for row in core_rows(n_nodes) {
            writeln!(out, "{row}")?;
        }
    }
    for n_nodes in [1_213, 100_000].into_iter().filter(|_| wanted("shapes")) {
        let fleet = Bench::fleet(n_nodes);
        writeln!(out, "{}", shapes_row(&fleet, &format!("{n_nodes} nodes: submit and place, 8 shapes in turn"), &[]))?;
        let fleet = fleet.with_tenants();
        writeln!(out, "{}", shapes_row(&fleet, &format!("{n_nodes} nodes: the same, with 48 tenants"), &TENANTS))?;
    }
    if wanted("gangs") {
        writeln!(out, "{} (max us: p99)", gang_row("1250 nodes: a gang of 4 nodes, p50 and p99", &[]))?;
        writeln!(out, "{} (max us: p99)", gang_row("1250 nodes: the same, with 48 tenants", &TENANTS))?;
    }
    Ok(())
}
