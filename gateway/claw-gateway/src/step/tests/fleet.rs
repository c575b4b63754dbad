//! A small fleet and the commands that drive it.

use std::collections::BTreeMap;
use std::sync::Arc;

use claw_proto::ids::{Attempt, CountingIds, GpuUuid, KeyId, NodeId, TokenId, WorkloadId};
use claw_proto::message::{NodeWorkloadState, RunningReport, StatusCause, StatusRecord};
use claw_proto::spec::{
    GpuRequest, GpuVendor, Interconnect, Isolation, OnPartition, Priority, RuntimeKind, WorkloadSpec,
};
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuDriver, GpuInfo, MigSlice, NodeCapabilities};
use claw_tools::access::{PrincipalKind, Role};
use claw_tools::approvals::ApprovalDecision;
use claw_tools::outcome::{Mode, Mutation, Outcome, PlanView};
use claw_tools::refusal::Refusal;

use crate::audit::Auditor;
use crate::event::EventRecord;
use crate::policy::Policy;
use crate::{Caller, Cluster, Command, Effect, Operation, Report, advance, invariants, step};

pub(super) const T0: i64 = 1_772_366_400_000;

pub(super) struct Fleet {
    pub(super) cluster: Cluster,
    pub(super) ids: CountingIds,
    pub(super) now: Timestamp,
    pub(super) journal: Vec<EventRecord>,
    pub(super) effects: Vec<Effect>,
    pub(super) auditor: Auditor,
}

pub(super) fn who(principal: &str, role: Role, kind: PrincipalKind, now: Timestamp) -> Caller {
    Caller { principal: principal.into(), kind, role, key_id: None, now, reason: "test".into() }
}

pub(super) fn mutation(mode: Mode, request_id: Option<&str>) -> Mutation {
    Mutation { mode, request_id: request_id.map(str::to_owned), reason: None, wait_s: 0 }
}

pub(super) fn h100x8(name: &str) -> NodeCapabilities {
    let gpu = |i: u32| GpuInfo {
        nvlink_island: Some(i / 4),
        numa_node: Some(i / 4),
        ..GpuInfo::new(GpuUuid(format!("GPU-{name}-{i}")), i, GpuVendor::Nvidia, "H100", 81_559)
    };
    NodeCapabilities {
        hostname: name.into(),
        os: "Debian 12".into(),
        arch: "x86_64".into(),
        agent_version: "0.1.0".into(),
        cpu_millis: 64_000,
        memory_mib: 512 * 1024,
        disk_mib: 1024 * 1024,
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

/// The last GPU is cut into slices: two of 3g.40gb and one of 1g.10gb.
pub(super) fn sliced(name: &str) -> NodeCapabilities {
    let mut machine = h100x8(name);
    let parent = machine.gpus[7].uuid.clone();
    for (at, (profile, memory_mib)) in [("3g.40gb", 40_448), ("3g.40gb", 40_448), ("1g.10gb", 9_984)].iter().enumerate()
    {
        let mut slice = GpuInfo::new(GpuUuid(format!("MIG-{name}-{at}")), 7, GpuVendor::Nvidia, "H100", *memory_mib);
        slice.mig = Some(MigSlice { parent: parent.clone(), profile: (*profile).to_owned() });
        machine.gpus.push(slice);
    }
    // Whoever shares the first four is held to their memory.
    for gpu in &mut machine.gpus[..4] {
        gpu.caps_shares = true;
    }
    machine
}

/// What a node of that name has in fleets of [`Fleet::with_slices`].
pub(super) fn machine_of(name: &str) -> NodeCapabilities {
    match name {
        "n1" => sliced(name),
        "n2" => of_model(name, "A100"),
        _ => h100x8(name),
    }
}

/// Eight GPUs of another model.
pub(super) fn of_model(name: &str, model: &str) -> NodeCapabilities {
    let mut machine = h100x8(name);
    for gpu in &mut machine.gpus {
        model.clone_into(&mut gpu.model);
    }
    machine
}

/// So many GPUs of `first`, else of one of these.
pub(super) fn choice(gpus: u32, first: Option<&str>, fallbacks: &[&str]) -> WorkloadSpec {
    let gpu = GpuRequest {
        count: Some(gpus),
        model: first.map(str::to_owned),
        model_fallbacks: fallbacks.iter().map(ToString::to_string).collect(),
        ..GpuRequest::default()
    };
    WorkloadSpec { gpu: Some(gpu), ..spec(0) }
}

pub(super) fn share(fraction: f64) -> WorkloadSpec {
    let gpu = Some(GpuRequest { fraction: Some(fraction), ..GpuRequest::default() });
    WorkloadSpec { gpu, ..spec(0) }
}

/// The same, where its memory is kept apart from others'.
pub(super) fn capped(spec: WorkloadSpec) -> WorkloadSpec {
    let gpu = spec.gpu.map(|gpu| GpuRequest { isolation: Some(Isolation::Memory), ..gpu });
    WorkloadSpec { gpu, ..spec }
}

pub(super) fn slice(profile: &str) -> WorkloadSpec {
    let gpu = Some(GpuRequest { mig_profile: Some(profile.to_owned()), count: Some(1), ..GpuRequest::default() });
    WorkloadSpec { gpu, ..spec(0) }
}

pub(super) fn spec(gpus: u32) -> WorkloadSpec {
    WorkloadSpec {
        command: Some(vec!["train".into()]),
        gpu: (gpus > 0).then(|| GpuRequest { count: Some(gpus), ..GpuRequest::default() }),
        on_partition: Some(OnPartition::StopAfter(30)),
        ..WorkloadSpec::default()
    }
}

pub(super) fn nvlink(gpus: u32) -> WorkloadSpec {
    let mut s = spec(gpus);
    if let Some(gpu) = s.gpu.as_mut() {
        gpu.interconnect = Some(Interconnect::Nvlink);
    }
    s
}

pub(super) fn with_priority(gpus: u32, priority: Priority) -> WorkloadSpec {
    WorkloadSpec { priority: Some(priority), ..spec(gpus) }
}

impl Fleet {
    pub(super) fn new() -> Self {
        let cluster = Cluster::new(Arc::new(Policy::default()));
        Self {
            cluster,
            ids: CountingIds::new(1),
            now: Timestamp::from_unix_ms(T0),
            journal: Vec::new(),
            effects: Vec::new(),
            auditor: Auditor::new(Policy::default().preemption.per_day_max),
        }
    }

    /// A fleet of 8×H100 nodes called n0, n1, …
    pub(super) fn with_nodes(n: u32) -> Self {
        let mut fleet = Self::new();
        fleet.system(Command::GatewayStarted { epoch: 1 });
        for i in 0..n {
            fleet.join(&format!("n{i}"));
        }
        fleet
    }

    /// The same, and a GPU of n1 is cut into slices.
    pub(super) fn with_slices(n: u32) -> Self {
        // What is likely is learned early, so that histories of tests have it.
        // Nor does anybody wait long before room is kept.
        let policy = Policy { learn_after: 3, reserve_after_ms: 30_000, ..Policy::default() };
        let mut fleet = Self { cluster: Cluster::new(Arc::new(policy)), ..Self::new() };
        fleet.system(Command::GatewayStarted { epoch: 1 });
        for name in (0..n).map(|i| format!("n{i}")) {
            fleet.join_as(&name, machine_of(&name));
        }
        fleet
    }

    /// Decides, checks every invariant and the decision itself, keeps the journal.
    pub(super) fn run(&mut self, command: Command, caller: &Caller) -> Result<Report, Refusal> {
        let before = self.cluster.to_snapshot();
        let told = step(&self.cluster, command.clone(), caller, &mut self.ids.clone()).map(|(decision, after)| {
            let mut replayed = self.cluster.clone();
            for record in &decision.events {
                let stored = EventRecord::from_json(crate::event::EVENT_VERSION, &record.to_json()).unwrap();
                assert_eq!(&stored, record, "an event survives the journal");
                replayed.apply(record);
            }
            assert_eq!(replayed.to_snapshot(), after.to_snapshot(), "applying the events gives the state after");
            (decision, after.to_snapshot())
        });
        // Nobody else holds this state now: what is decided on it changes it in place.
        let decided = advance(&mut self.cluster, command, caller, &mut self.ids);
        let after = told.as_ref().map_or(&before, |(_, after)| after);
        assert_eq!(&self.cluster.to_snapshot(), after, "in place it comes to the same, and what is refused to nothing");
        assert_eq!(decided.as_ref(), told.as_ref().map(|(decision, _)| decision), "and is decided alike");
        let decision = decided?;
        invariants::check(&self.cluster).unwrap();
        self.auditor.check(&decision.events).unwrap();
        self.journal.extend(decision.events);
        self.effects.extend(decision.effects);
        Ok(decision.report)
    }

    pub(super) fn system(&mut self, command: Command) -> Report {
        let caller = Caller::system(self.now);
        self.run(command, &caller).unwrap()
    }

    pub(super) fn operate(
        &mut self,
        principal: &str,
        operation: Operation,
        mode: Mode,
        request_id: Option<&str>,
    ) -> Result<Outcome, Refusal> {
        let caller = who(principal, Role::Admin, PrincipalKind::Person, self.now);
        let args_hash = hash_of(&format!("{operation:?}{mode}"));
        let command = Command::Operate {
            operation,
            mutation: mutation(mode, request_id),
            args_hash,
            secret_hash: Some("ab".repeat(32)),
        };
        self.run(command, &caller).map(outcome)
    }

    /// The long way, which every operation may take; another admin approves it where that is needed.
    pub(super) fn plan_and_apply(&mut self, operation: Operation) -> Result<Outcome, Refusal> {
        let planned = self.operate("root", operation, Mode::Plan, None)?;
        match planned.plan.clone() {
            Some(plan) => self.approve_and_apply(&plan),
            None => Ok(planned),
        }
    }

    /// Applies a plan; another admin approves it where that is needed.
    pub(super) fn approve_and_apply(&mut self, plan: &PlanView) -> Result<Outcome, Refusal> {
        if let Some(approval_id) = plan.approval_id {
            let carol = who("carol", Role::Admin, PrincipalKind::Person, self.now);
            let decide = Command::ApprovalDecide {
                approval_id,
                decision: ApprovalDecision::Approve,
                diff_hash: plan.diff_hash.clone(),
                mutation: mutation(Mode::Apply, None),
                args_hash: "h".into(),
            };
            self.run(decide, &carol)?;
        }
        let root = who("root", Role::Admin, PrincipalKind::Person, self.now);
        let apply = Command::PlanApply {
            plan_id: plan.plan_id,
            mutation: mutation(Mode::Apply, None),
            args_hash: "h".into(),
            secret_hash: Some("ab".repeat(32)),
        };
        self.run(apply, &root).map(outcome)
    }

    pub(super) fn submit(&mut self, spec: WorkloadSpec) -> Outcome {
        self.operate("alice", run_of(spec), Mode::Apply, None).unwrap()
    }

    pub(super) fn join(&mut self, name: &str) -> NodeId {
        self.join_as(name, h100x8(name))
    }

    pub(super) fn join_as(&mut self, name: &str, machine: NodeCapabilities) -> NodeId {
        let token = self
            .operate(
                "root",
                Operation::NodeTokenCreate { name: None, labels: BTreeMap::new(), ttl_s: 600 },
                Mode::Apply,
                None,
            )
            .unwrap();
        let token_id: TokenId = token.credential.unwrap().id.parse().unwrap();
        let Report::Enrolled { node_id } =
            self.system(Command::NodeEnroll { token_id, secret_hash: "ab".repeat(32), name: name.into() })
        else {
            panic!("not enrolled")
        };
        self.connect(node_id, machine, &[], 7);
        node_id
    }

    pub(super) fn connect(
        &mut self,
        node_id: NodeId,
        capabilities: NodeCapabilities,
        running: &[RunningReport],
        store_id: u128,
    ) {
        self.system(Command::NodeRegister {
            node_id,
            capabilities: Box::new(capabilities),
            running: running.to_vec(),
            store_id,
            epoch_seen: 0,
        });
    }

    pub(super) fn node(&self, name: &str) -> Arc<crate::registry::NodeEntry> {
        self.cluster.nodes.by_name(name).unwrap().clone()
    }

    pub(super) fn workload(&self, id: WorkloadId) -> Arc<crate::workload::WorkloadEntry> {
        self.cluster.workloads.get(id).unwrap().clone()
    }

    /// The node that has it reports.
    pub(super) fn report(
        &mut self,
        id: WorkloadId,
        state: NodeWorkloadState,
        cause: StatusCause,
        exit_code: Option<i32>,
    ) {
        let w = self.workload(id);
        let Some(live) = w.live() else { return };
        self.report_as(live.node_id, id, live.attempt, state, cause, exit_code);
    }

    /// All nodes that have it report the same.
    pub(super) fn report_all(
        &mut self,
        id: WorkloadId,
        state: NodeWorkloadState,
        cause: StatusCause,
        exit: Option<i32>,
    ) {
        for a in self.workload(id).lives().cloned().collect::<Vec<_>>() {
            self.report_as(a.node_id, id, a.attempt, state, cause, exit);
        }
    }

    /// One of the nodes that have it reports.
    pub(super) fn report_part(
        &mut self,
        id: WorkloadId,
        part: usize,
        told: (NodeWorkloadState, StatusCause, Option<i32>),
    ) {
        let lives: Vec<_> = self.workload(id).lives().map(|a| (a.node_id, a.attempt)).collect();
        if let Some((node_id, attempt)) = lives.get(part % lives.len().max(1)) {
            self.report_as(*node_id, id, *attempt, told.0, told.1, told.2);
        }
    }

    pub(super) fn report_as(
        &mut self,
        node_id: NodeId,
        id: WorkloadId,
        attempt: Attempt,
        state: NodeWorkloadState,
        cause: StatusCause,
        exit_code: Option<i32>,
    ) {
        let record = StatusRecord {
            record: 1,
            workload_id: id,
            attempt,
            state,
            cause,
            detail: String::new(),
            exit_code,
            signal: None,
            at: self.now,
            simulated: true,
            checkpoint: None,
        };
        self.system(Command::NodeStatus { node_id, records: vec![record] });
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.now = self.now.plus_ms(seconds * 1000);
        self.system(Command::Tick);
    }

    pub(super) fn silence(&mut self, node_id: NodeId) {
        let last = self.now;
        self.system(Command::NodesSilent { nodes: vec![(node_id, last)] });
    }
}

pub(super) fn run_of(spec: WorkloadSpec) -> Operation {
    Operation::WorkloadRun { spec: Box::new(spec), env_handle: None, assumptions: Vec::new() }
}

pub(super) fn outcome(report: Report) -> Outcome {
    match report {
        Report::Outcome { outcome, .. } => *outcome,
        other => panic!("expected an outcome, got {other:?}"),
    }
}

pub(super) fn key_id() -> KeyId {
    KeyId::from_bits(99)
}

/// The server uses SHA-256 here; any digest tells arguments apart.
fn hash_of(text: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
