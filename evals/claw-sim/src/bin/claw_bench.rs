//! `claw-bench`: figures of the pure core, release build, five rounds each.
//!
//! The figures are this machine's. What they are for is their ratio: from one
//! fleet size to the next, and from one version to the next in the same run.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claw_gateway::cluster::SNAPSHOT_FORMAT;
use claw_gateway::policy::Policy;
use claw_gateway::{Caller, Cluster, Command, EventRecord, Operation, Report, query, step};
use claw_proto::ids::{CountingIds, GpuUuid, TokenId};
use claw_proto::message::{NodeWorkloadState, StatusCause, StatusRecord};
use claw_proto::spec::{GpuRequest, GpuVendor, Interconnect, RuntimeKind, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuDriver, GpuInfo, NodeCapabilities};
use claw_tools::outcome::{Mode, Mutation};

/// Rounds of each figure.
const ROUNDS: usize = 5;
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
    }
}

/// A fleet and the events that made it.
struct Bench {
    cluster: Cluster,
    ids: CountingIds,
    events: Vec<EventRecord>,
}

impl Bench {
    fn fleet(n_nodes: u32) -> Self {
        let mut bench =
            Self { cluster: Cluster::new(Arc::new(Policy::default())), ids: CountingIds::new(1), events: Vec::new() };
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
        let decision = step(&self.cluster, command, &Caller::system(NOW), &mut self.ids)
            .expect("the bench asks for what is possible");
        self.cluster = decision.after;
        self.events.extend(decision.events);
        decision.report
    }

    fn operate(&mut self, operation: Operation) -> Report {
        let mutation = Mutation { mode: Mode::Apply, request_id: None, reason: None, wait_s: 0 };
        let secret_hash = Some("ab".repeat(32));
        self.run(Command::Operate { operation, mutation, args_hash: String::new(), secret_hash })
    }

    fn submit(&mut self, gpus: u32) {
        let gpu = GpuRequest { count: Some(gpus), interconnect: Some(Interconnect::Nvlink), ..GpuRequest::default() };
        let spec = WorkloadSpec { command: Some(vec!["train".into()]), gpu: Some(gpu), ..WorkloadSpec::default() };
        self.operate(Operation::WorkloadRun { spec: Box::new(spec), env_handle: None, assumptions: Vec::new() });
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
            };
            self.run(Command::NodeStatus { node_id, records: vec![record] });
        }
    }
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
    let fork = || Bench { cluster: empty.cluster.clone(), ids: empty.ids.clone(), events: Vec::new() };
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
    let mut full = fork();
    (0..n_nodes).for_each(|_| full.submit(8));
    full.submit(8);
    let waiting = full.cluster.workloads.queue().next().map(|id| id.to_string()).unwrap_or_default();
    rows.push(measure(&format!("{n_nodes} nodes: explain a waiting workload"), 1, || {
        timed(|| drop(std::hint::black_box(query::explain(&full.cluster, &waiting))))
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

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let (min, median, max, rate) = ("min us", "median us", "max us", "per second");
    writeln!(out, "{:<46} {min:>10} {median:>10} {max:>10} {rate:>12}", "figure")?;
    for n_nodes in [10, 100, 1_000] {
        for row in core_rows(n_nodes) {
            writeln!(out, "{row}")?;
        }
    }
    Ok(())
}
