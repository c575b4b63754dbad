//! Replays a trace through the gateway's core: every request is a `workload_run` that goes
//! through `step`, is answered with its report and audited by its events.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use claw_gateway::audit::Auditor;
use claw_gateway::policy::Policy;
use claw_gateway::scheduler::packing::replay::{Draws, Placed, Placer, Trace};
use claw_gateway::scheduler::packing::{Machine, Request};
use claw_gateway::{Caller, Cluster, Command, Event, EventRecord, Operation, Report, advance};
use claw_proto::ids::{CountingIds, GpuUuid, TokenId, WorkloadId};
use claw_proto::limits;
use claw_proto::spec::{GpuRequest, GpuVendor, RuntimeKind, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuDriver, GpuInfo, NodeCapabilities};
use claw_tools::outcome::{Mode, Mutation};

use crate::error::CliError;

/// Instant of all decisions.
const NOW: Timestamp = Timestamp::from_unix_ms(1_772_366_400_000);
/// Memory of the trace's GPUs, MiB; it tells none, and asks for none.
const GPU_MEMORY_MIB: u64 = 16_384;
/// So many decisions the gateway writes with one sync where as many callers wait; before them it keeps a copy of the
/// state, to fall back to if they cannot be written. So does the replay, and its time counts.
const DECISIONS_PER_SYNC: u32 = 64;
/// Disk of the trace's machines, MiB; it tells none.
const DISK_MIB: u64 = 1 << 30;

/// A fleet in the core, with books of its own beside it.
#[derive(Debug, Clone)]
pub(super) struct CoreFleet {
    cluster: Cluster,
    /// What it was before the decisions that are written next, and how many more are written with them.
    durable: (Cluster, u32),
    ids: CountingIds,
    auditor: Auditor,
    /// What is free, by the events.
    machines: Vec<Machine>,
    /// Machine and place in it.
    gpus: HashMap<GpuUuid, (usize, usize)>,
    nodes: HashMap<claw_proto::ids::NodeId, usize>,
    models: Vec<String>,
    /// Time in which requests were decided, without their ends.
    pub(super) deciding: Duration,
}

impl CoreFleet {
    /// The trace's machines, empty.
    pub(super) fn new(trace: &Trace, models: &[String]) -> Result<Self, CliError> {
        let n_models = |request: &Request| request.models.0.count_ones() as usize;
        if trace.requests.iter().any(|request| n_models(request) > limits::MODEL_FALLBACKS_MAX) {
            return Err(CliError::Usage(
                "a request of this trace names more models than a specification can; leave --core out",
            ));
        }
        let policy = Policy::default();
        let mut fleet = Self {
            auditor: Auditor::new(policy.preemption.per_day_max),
            cluster: Cluster::new(Arc::new(policy)),
            durable: (Cluster::default(), 0),
            ids: CountingIds::new(1),
            machines: trace.machines.clone(),
            gpus: HashMap::new(),
            nodes: HashMap::new(),
            models: models.to_vec(),
            deciding: Duration::ZERO,
        };
        fleet.run(Command::GatewayStarted { epoch: 1 });
        for (at, machine) in trace.machines.iter().enumerate() {
            fleet.join(at, machine);
        }
        Ok(fleet)
    }

    /// A copy whose scheduler knows nothing yet.
    pub(super) fn fresh(&self) -> Self {
        Self { cluster: self.cluster.detached(), ..self.clone() }
    }

    fn join(&mut self, at: usize, machine: &Machine) {
        let create = Operation::NodeTokenCreate { name: None, labels: BTreeMap::new(), ttl_s: 60 };
        let (Report::Outcome { outcome, .. }, _) = self.operate(create) else { return };
        let token: Option<TokenId> = outcome.credential.and_then(|credential| credential.id.parse().ok());
        let Some(token_id) = token else { return };
        let name = format!("m{at:05}");
        let enroll = Command::NodeEnroll { token_id, secret_hash: "ab".repeat(32), name: name.clone() };
        let (Report::Enrolled { node_id }, _) = self.run(enroll) else { return };
        self.nodes.insert(node_id, at);
        let model = self.models.get(usize::from(machine.model)).cloned().unwrap_or_default();
        let gpu = |index: u32| {
            let uuid = GpuUuid(format!("GPU-{name}-{index}"));
            GpuInfo::new(uuid, index, GpuVendor::Nvidia, &model, GPU_MEMORY_MIB)
        };
        let gpus: Vec<GpuInfo> = (0..u32::from(machine.gpus)).map(gpu).collect();
        self.gpus.extend(gpus.iter().enumerate().map(|(place, gpu)| (gpu.uuid.clone(), (at, place))));
        let capabilities = Box::new(NodeCapabilities {
            hostname: name,
            os: "trace".into(),
            arch: "x86_64".into(),
            agent_version: "0".into(),
            cpu_millis: machine.cpu_milli.into(),
            memory_mib: machine.memory_mib.into(),
            disk_mib: DISK_MIB,
            gpu_driver: GpuDriver::Sim,
            gpus,
            runtimes: vec![RuntimeKind::Sim],
            simulated: true,
            labels: BTreeMap::new(),
            findings: Vec::new(),
            engine: None,
            nics: Vec::new(),
            boot_id: None,
        });
        self.run(Command::NodeRegister { node_id, capabilities, running: Vec::new(), store_id: 1, epoch_seen: 0 });
    }

    fn operate(&mut self, operation: Operation) -> (Report, Vec<EventRecord>) {
        let mutation = Mutation { mode: Mode::Apply, request_id: None, reason: None, wait_s: 0 };
        let secret_hash = Some("ab".repeat(32));
        self.run(Command::Operate { operation, mutation, args_hash: String::new(), secret_hash })
    }

    /// Keeps a copy of the state, if a sync begins.
    fn keep(&mut self) {
        if self.durable.1 == 0 {
            self.durable = (self.cluster.clone(), DECISIONS_PER_SYNC);
        }
        self.durable.1 -= 1;
    }

    fn run(&mut self, command: Command) -> (Report, Vec<EventRecord>) {
        let decision = advance(&mut self.cluster, command, &Caller::system(NOW), &mut self.ids)
            .expect("the replay asks for what the core can do");
        self.auditor.check(&decision.events).expect("the auditor accepts every decision");
        (decision.report, decision.events)
    }

    fn spec(&self, request: &Request) -> WorkloadSpec {
        // What asks for nothing of a kind takes the least that can be said.
        let at_least = |units: u32, unit: f64| Some((f64::from(units) / unit).max(0.001));
        let wanted = (0..u64::BITS as usize).filter(|at| request.models.0 >> at & 1 == 1);
        let named = |at: usize| self.models.get(at).cloned().unwrap_or_else(|| "absent".to_owned());
        let gpu = GpuRequest {
            count: Some(u32::from(request.gpus)),
            // All that it names are equally good.
            model_fallbacks: wanted.map(named).collect(),
            fraction: request.is_shared().then(|| f64::from(request.gpu_milli) / 1_000.0),
            ..GpuRequest::default()
        };
        WorkloadSpec {
            command: Some(vec!["true".to_owned()]),
            gpu: (request.gpus > 0).then_some(gpu),
            cpu_cores: at_least(request.cpu_milli, 1_000.0),
            memory_gib: at_least(request.memory_mib, 1_024.0),
            ..WorkloadSpec::default()
        }
    }

    /// Takes what the events say was taken; whether it was there.
    fn take(&mut self, request: &Request, node: usize, gpus: &[GpuUuid]) -> bool {
        let places: Vec<(usize, usize)> = gpus.iter().filter_map(|gpu| self.gpus.get(gpu).copied()).collect();
        let Some(machine) = self.machines.get_mut(node) else { return false };
        let (cpu, memory) =
            (machine.cpu_milli.checked_sub(request.cpu_milli), machine.memory_mib.checked_sub(request.memory_mib));
        let (Some(cpu_milli), Some(memory_mib)) = (cpu, memory) else { return false };
        (machine.cpu_milli, machine.memory_mib) = (cpu_milli, memory_mib);
        let mut is_there = places.len() == usize::from(request.gpus) && request.models.allows(machine.model);
        for (at, place) in places {
            let left = machine.free_milli[place].checked_sub(request.gpu_milli);
            is_there &= at == node && left.is_some();
            machine.free_milli[place] = left.unwrap_or(0);
        }
        is_there
    }

    fn stop(&mut self, workload: WorkloadId) {
        self.operate(Operation::WorkloadStop { workload: workload.to_string(), grace_s: None });
    }
}

impl Placer for CoreFleet {
    fn place(&mut self, request: &Request, _draws: &mut Draws) -> Placed {
        let spec = Box::new(self.spec(request));
        let operation = Operation::WorkloadRun { spec, env_handle: None, assumptions: Vec::new() };
        let mutation = Mutation { mode: Mode::Apply, request_id: None, reason: None, wait_s: 0 };
        let command = Command::Operate { operation, mutation, args_hash: String::new(), secret_hash: None };
        let begun = Instant::now();
        self.keep();
        let decision = advance(&mut self.cluster, command, &Caller::system(NOW), &mut self.ids)
            .expect("the replay asks for what the core can do");
        self.deciding += begun.elapsed();
        let is_accepted = self.auditor.check(&decision.events).is_ok();
        let placed = decision.events.iter().find_map(|record| match &record.event {
            Event::WorkloadPlaced { node_id, gpus, .. } => Some((*node_id, gpus.clone())),
            _ => None,
        });
        if let Some((node_id, gpus)) = placed {
            let node = self.nodes.get(&node_id).copied().unwrap_or(usize::MAX);
            let is_there = self.take(request, node, &gpus);
            return Placed { is_placed: true, is_sound: is_accepted && is_there };
        }
        let fits = self.machines.iter().any(|machine| machine.fits(request));
        if let Report::Outcome { outcome, .. } = &decision.report
            && let Some(id) = outcome.workload_id
        {
            self.stop(id);
        }
        Placed { is_placed: false, is_sound: is_accepted && !fits }
    }
}
