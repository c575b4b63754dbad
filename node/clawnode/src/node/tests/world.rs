//! A gateway, a disk and a runtime around one node, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claw_proto::ids::{Attempt, Generation, GpuUuid, NodeId, WorkloadId};
use claw_proto::message::{
    DesiredWorkload, Envelope, GatewayMessage, NodeMessage, NodeSettings, NodeWorkloadState, StatusCause, StatusRecord,
    StopOrder,
};
use claw_proto::spec::{GpuVendor, OnPartition, RuntimeKind, WorkloadSpec};
use claw_proto::time::Timestamp;
use claw_proto::topology::{GpuDriver, GpuInfo, NodeCapabilities};

use crate::node::{
    Action, DurableChange, DurableState, Found, FoundWorkload, Input, Lease, Node, NodeIdentity, Now, RuntimeEvent,
    WorkloadEnd,
};

/// One random happening.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Connect,
    Cut,
    CrashAgent,
    Start { workload: u8, attempt: u32, stale: u64, keep: bool },
    Stop { workload: u8, attempt: u32, stale: u64 },
    Set { wanted: Vec<(u8, u32)>, stale: u64 },
    Repeat(proptest::sample::Index),
    Heartbeat { delay_ms: u64 },
    Wait(u64),
    Exit { workload: u8, code: i32 },
    Ack,
    DiskFull(bool),
}

/// A process of the model runtime.
#[derive(Debug, Clone)]
struct Process {
    workload: Arc<DesiredWorkload>,
    lease: Option<Lease>,
    stop: Option<(u64, StatusCause)>,
}

pub(super) struct World {
    node: Node,
    pub(super) trace: Vec<Action>,
    now_ms: u64,
    connected: bool,
    generation: Generation,
    sent: Vec<GatewayMessage>,
    disk: DurableState,
    unwritten: Vec<(u64, DurableChange)>,
    disk_full: bool,
    processes: BTreeMap<(WorkloadId, Attempt), Process>,
    started: BTreeSet<(WorkloadId, Attempt)>,
    really_ended: BTreeMap<(WorkloadId, Attempt), NodeWorkloadState>,
    received: BTreeMap<u64, StatusRecord>,
    nonce: u64,
    confirmed: u64,
    /// When the gateway's count of each attempt's lease began: the latest answer received, or the start.
    gateway_heard_ms: u64,
    start_sent_ms: BTreeMap<(WorkloadId, Attempt), u64>,
    seen: Generation,
}

pub(super) fn workload_id(n: u8) -> WorkloadId {
    WorkloadId::from_bits(u128::from(n) + 1)
}

pub(super) fn gpu(n: u8) -> GpuUuid {
    GpuUuid(format!("GPU-{n}"))
}

pub(super) fn desired(workload: u8, attempt: u32, on_partition: OnPartition) -> DesiredWorkload {
    DesiredWorkload {
        workload_id: workload_id(workload),
        attempt: Attempt(attempt),
        spec: WorkloadSpec::default(),
        // Two workloads share a GPU, so that conflicts happen.
        gpus: vec![gpu(workload / 2)],
        runtime: RuntimeKind::Process,
        on_partition,
        grace_s: 2,
        max_duration_s: Some(60),
        secrets: Vec::new(),
        registry_auth: None,
        ranks: None,
        checkpoint_last: None,
    }
}

pub(super) fn capabilities() -> NodeCapabilities {
    let gpus = (0..2u8)
        .map(|n| GpuInfo {
            nvlink_island: Some(0),
            numa_node: Some(0),
            ..GpuInfo::new(gpu(n), u32::from(n), GpuVendor::Nvidia, "H100", 81_559)
        })
        .collect();
    NodeCapabilities {
        hostname: "host".into(),
        os: "linux".into(),
        arch: "x86_64".into(),
        agent_version: "0".into(),
        cpu_millis: 8_000,
        memory_mib: 16_384,
        disk_mib: 100_000,
        gpu_driver: GpuDriver::Sim,
        gpus,
        runtimes: vec![RuntimeKind::Process, RuntimeKind::Sim],
        simulated: true,
        labels: BTreeMap::new(),
        findings: Vec::new(),
        engine: None,
        nics: Vec::new(),
        boot_id: None,
    }
}

pub(super) fn new_node() -> Node {
    let identity = NodeIdentity { node_id: NodeId::from_bits(1), name: "n1".into() };
    Node::new(identity, capabilities(), NodeSettings::default())
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            node: new_node(),
            trace: Vec::new(),
            now_ms: 1_000,
            connected: false,
            generation: Generation { epoch: 1, n: 0 },
            sent: Vec::new(),
            disk: DurableState::new(7),
            unwritten: Vec::new(),
            disk_full: false,
            processes: BTreeMap::new(),
            started: BTreeSet::new(),
            really_ended: BTreeMap::new(),
            received: BTreeMap::new(),
            nonce: 0,
            confirmed: 0,
            gateway_heard_ms: 0,
            start_sent_ms: BTreeMap::new(),
            seen: Generation::default(),
        };
        world.boot();
        world
    }

    fn now(&self) -> Now {
        let wall = Timestamp::from_unix_ms(i64::try_from(self.now_ms).unwrap());
        Now { mono_ms: self.now_ms, wall }
    }

    fn boot(&mut self) {
        let mut found = Vec::new();
        for entry in self.disk.attempts.values() {
            let key = (entry.workload.workload_id, entry.attempt());
            let state = if let Some(process) = self.processes.get(&key) {
                Found::Live { state: NodeWorkloadState::Running, lease: process.lease }
            } else if let Some(state) = self.really_ended.get(&key) {
                Found::Ended(end_of(*state))
            } else {
                Found::NeverStarted
            };
            found.push(FoundWorkload { workload: Arc::clone(&entry.workload), found: state });
        }
        self.step(Input::Booted { now: self.now(), durable: Box::new(self.disk.clone()), found });
    }

    fn step(&mut self, input: Input) {
        let actions = self.node.step(input);
        for action in actions {
            self.trace.push(action.clone());
            self.act(action);
        }
        // N6: what was seen never goes back.
        assert!(self.node.generation() >= self.seen, "N6 the generation went back");
        self.seen = self.node.generation();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Persist { write, change } => self.unwritten.push((write, change)),
            Action::Send(envelope) => self.receive(*envelope),
            Action::Start { workload, lease } => self.start(workload, lease),
            Action::Stop { workload_id, attempt, grace_ms, cause } => {
                let kill_at_ms = self.now_ms + grace_ms;
                if let Some(process) = self.processes.get_mut(&(workload_id, attempt)) {
                    let (old_ms, first) = process.stop.unwrap_or((u64::MAX, cause));
                    process.stop = Some((old_ms.min(kill_at_ms), first));
                }
            }
            Action::RenewLease { workload_id, attempt, lease } => {
                if let Some(process) = self.processes.get_mut(&(workload_id, attempt)) {
                    let known = process.lease.map_or(0, |old| old.kill_at_ms);
                    assert!(known < lease.kill_at_ms, "a lease moved back");
                    process.lease = Some(lease);
                }
            }
            Action::Forget { workload_id, attempt } => {
                let key = (workload_id, attempt);
                assert!(!self.processes.contains_key(&key), "forgot a running attempt");
            }
            Action::CloseConnection { .. } => self.connected = false,
            // Its word is a record like any other; the simulation of the fleet plays that.
            Action::NoticeCheckpoint { .. }
            | Action::LogsAcked { .. }
            | Action::ApplySettings(_)
            | Action::Shell(_) => {}
        }
    }

    fn start(&mut self, workload: Arc<DesiredWorkload>, lease: Option<Lease>) {
        let key = (workload.workload_id, workload.attempt);
        assert!(self.disk.entry(key.0, key.1).is_some(), "started before it was on disk");
        let other = self.processes.keys().any(|(id, _)| *id == key.0);
        assert!(!other, "N1 two attempts of {} at once", key.0);
        assert!(self.started.insert(key), "N2 {key:?} started twice");
        let older = self.really_ended.keys().any(|(id, n)| *id == key.0 && *n >= key.1);
        assert!(!older, "N2 {key:?} started after a newer one ended");
        let shared = self.processes.values().any(|p| p.workload.gpus == workload.gpus);
        assert!(!shared, "N5 a GPU given to two workloads");
        self.processes.insert(key, Process { workload, lease, stop: None });
    }

    fn receive(&mut self, envelope: Envelope<NodeMessage>) {
        let NodeMessage::WorkloadStatus { records } = envelope.body else {
            return;
        };
        for record in records {
            assert!(record.record <= self.disk.last_record, "N3 sent before it was durable");
            let expected = self.received.last_key_value().map_or(1, |(n, _)| n + 1);
            assert!(record.record <= expected, "N3 record {} skips {expected}", record.record);
            if let Some(known) = self.received.get(&record.record) {
                assert_eq!(*known, record, "N3 a record changed");
                continue;
            }
            let same = |r: &&StatusRecord| (r.workload_id, r.attempt) == (record.workload_id, record.attempt);
            if let Some(before) = self.received.values().rev().find(same) {
                let forward = before.state.rank() < record.state.rank();
                let again = before.state.is_final() && before.state == record.state;
                assert!(forward || again, "N4 {before:?} then {record:?}");
            }
            self.received.insert(record.record, record);
        }
    }

    fn gateway(&mut self, body: GatewayMessage) {
        if !self.connected {
            return;
        }
        let ack = 0;
        let generation = self.generation;
        let envelope = Envelope { version: 1, epoch: generation.epoch, sequence: 0, ack, generation, body };
        self.step(Input::Gateway { now: self.now(), envelope: Box::new(envelope) });
    }

    fn next_generation(&mut self, stale: u64) -> Generation {
        if stale == 0 {
            self.generation.n += 1;
        }
        Generation { epoch: self.generation.epoch, n: self.generation.n.saturating_sub(stale) }
    }

    fn send(&mut self, body: GatewayMessage) {
        self.sent.push(body.clone());
        self.gateway(body);
    }

    /// The gateway counts a lease from the latest time it asked for the attempt, too.
    fn note_sent(&mut self, body: &GatewayMessage) {
        let wanted = match body {
            GatewayMessage::StartWorkload { workload, .. } => std::slice::from_ref(workload),
            GatewayMessage::DesiredSet { workloads, .. } => workloads,
            GatewayMessage::Registered { .. }
            | GatewayMessage::StopWorkload { .. }
            | GatewayMessage::UpdateConfig { .. }
            | GatewayMessage::Heartbeat { .. }
            | GatewayMessage::LogsAck { .. }
            | GatewayMessage::MeshPeers { .. }
            | GatewayMessage::CertificateRenewed { .. }
            | GatewayMessage::CertificateRefused { .. }
            | GatewayMessage::TrustBundle { .. }
            | GatewayMessage::Exec { .. }
            | GatewayMessage::ReadOutput { .. }
            | GatewayMessage::CancelTask { .. }
            | GatewayMessage::CheckpointNotice { .. }
            | GatewayMessage::Ack
            | GatewayMessage::Refused { .. } => &[],
        };
        for w in wanted {
            self.start_sent_ms.insert((w.workload_id, w.attempt), self.now_ms);
        }
    }

    /// Everything the runtime and the disk owe at this instant.
    fn run_world(&mut self) {
        if !self.disk_full && !self.unwritten.is_empty() {
            let through = self.unwritten.last().map_or(0, |(write, _)| *write);
            for (_, change) in std::mem::take(&mut self.unwritten) {
                self.disk.apply(&change);
            }
            self.step(Input::Persisted { now: self.now(), through });
        }
        let due: Vec<((WorkloadId, Attempt), WorkloadEnd)> = self
            .processes
            .iter()
            .filter_map(|(key, process)| {
                let stopped = process.stop.filter(|(at_ms, _)| *at_ms <= self.now_ms);
                // The supervisor enforces the lease even without the agent.
                let cut_off = process.lease.is_some_and(|lease| lease.kill_at_ms <= self.now_ms);
                let cause = stopped.map(|(_, cause)| cause).or(cut_off.then_some(StatusCause::PartitionLease))?;
                Some((*key, WorkloadEnd::of(NodeWorkloadState::Stopped, cause, "")))
            })
            .collect();
        for (key, end) in due {
            self.end(key, end);
        }
        self.check_leases();
    }

    /// N7: nothing runs here once the gateway may start a copy elsewhere.
    fn check_leases(&self) {
        for (key, process) in &self.processes {
            if let OnPartition::StopAfter(s) = process.workload.on_partition {
                let heard = self.gateway_heard_ms.max(self.start_sent_ms[key]);
                let limit = heard + u64::from(s) * 1_000;
                assert!(self.now_ms <= limit, "N7 {key:?} runs at {} past {limit}", self.now_ms);
            }
        }
    }

    fn end(&mut self, key: (WorkloadId, Attempt), end: WorkloadEnd) {
        self.processes.remove(&key);
        self.really_ended.insert(key, end.state);
        let event = RuntimeEvent::Ended { workload_id: key.0, attempt: key.1, end };
        self.step(Input::Runtime { now: self.now(), event });
    }

    pub(super) fn perform(&mut self, op: Op) {
        match op {
            Op::Connect => self.connect(),
            Op::Cut => self.cut(),
            Op::CrashAgent => self.crash_agent(),
            Op::Start { workload, attempt, stale, keep } => {
                self.send_start(workload, attempt, stale, keep);
            }
            Op::Stop { workload, attempt, stale } => {
                let generation = self.next_generation(stale);
                let order = stop_order(workload, attempt);
                self.send(GatewayMessage::StopWorkload { generation, order });
            }
            Op::Set { wanted, stale } => self.send_set(wanted, stale),
            Op::Repeat(index) => {
                if !self.sent.is_empty() {
                    let body = index.get(&self.sent).clone();
                    if self.connected {
                        self.note_sent(&body);
                    }
                    self.gateway(body);
                }
            }
            Op::Heartbeat { delay_ms } => self.heartbeat(delay_ms),
            Op::Wait(ms) => self.wait(ms),
            Op::Exit { workload, code } => {
                let id = workload_id(workload);
                let key = self.processes.keys().find(|(w, _)| *w == id).copied();
                if let Some(key) = key {
                    self.end(key, WorkloadEnd::exited(code));
                }
            }
            Op::Ack => self.ack(),
            Op::DiskFull(full) => {
                self.disk_full = full;
                if full && !self.unwritten.is_empty() {
                    self.step(Input::StorageFailed { now: self.now(), detail: "full".into() });
                }
            }
        }
        self.run_world();
    }

    fn send_start(&mut self, workload: u8, attempt: u32, stale: u64, keep: bool) {
        let generation = self.next_generation(stale);
        let on_partition = if keep { OnPartition::Keep } else { OnPartition::StopAfter(6) };
        let workload = desired(workload, attempt, on_partition);
        if self.connected {
            let body = GatewayMessage::StartWorkload { generation, workload };
            self.note_sent(&body);
            self.send(body);
        }
    }

    fn crash_agent(&mut self) {
        self.connected = false;
        self.unwritten.clear();
        self.node = new_node();
        self.seen = Generation::default();
        self.boot();
    }

    fn connect(&mut self) {
        self.cut();
        self.connected = true;
        (self.nonce, self.confirmed) = (0, 0);
        self.step(Input::Connected { now: self.now() });
        let registered = GatewayMessage::Registered {
            node_id: NodeId::from_bits(1),
            settings: NodeSettings::default(),
            version: 1,
            log_acks: BTreeMap::new(),
        };
        self.gateway(registered);
    }

    fn cut(&mut self) {
        self.connected = false;
        self.step(Input::Disconnected { now: self.now() });
    }

    fn send_set(&mut self, wanted: Vec<(u8, u32)>, stale: u64) {
        if !self.connected {
            return;
        }
        let generation = self.next_generation(stale);
        let wanted: BTreeMap<u8, u32> = wanted.into_iter().collect();
        let workloads: Vec<_> = wanted.into_iter().map(|(w, a)| desired(w, a, OnPartition::StopAfter(6))).collect();
        for w in &workloads {
            self.start_sent_ms.insert((w.workload_id, w.attempt), self.now_ms);
        }
        self.send(GatewayMessage::DesiredSet { generation, workloads, stop: Vec::new() });
    }

    /// A heartbeat whose answer takes `delay_ms` back to the gateway.
    fn heartbeat(&mut self, delay_ms: u64) {
        if !self.connected {
            return;
        }
        self.nonce += 1;
        let (nonce, confirmed) = (self.nonce, self.confirmed);
        self.gateway(GatewayMessage::Heartbeat { nonce, confirmed });
        self.wait(delay_ms);
        if self.connected {
            self.gateway_heard_ms = self.now_ms;
            self.confirmed = nonce;
        }
    }

    /// Time passes in small steps, with ticks.
    fn wait(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.run_world();
            let next_ms = self.node.next_wake_ms().unwrap_or(u64::MAX).max(self.now_ms + 1);
            self.now_ms = next_ms.min(self.now_ms + 250).min(until_ms);
            self.run_world();
            self.step(Input::Tick { now: self.now() });
        }
    }

    fn ack(&mut self) {
        if !self.connected {
            return;
        }
        let ack = self.received.last_key_value().map_or(0, |(n, _)| *n);
        let generation = self.generation;
        let body = GatewayMessage::Ack;
        let envelope = Envelope { version: 1, epoch: generation.epoch, sequence: 0, ack, generation, body };
        self.step(Input::Gateway { now: self.now(), envelope: Box::new(envelope) });
    }

    /// Lets everything finish and compares what was told with what happened.
    pub(super) fn settle(&mut self) {
        self.disk_full = false;
        self.run_world();
        self.connect();
        // What waited for an older attempt, or for the disk, begins now and ends, too.
        for _ in 0..SETTLE_ROUNDS {
            for key in self.processes.keys().copied().collect::<Vec<_>>() {
                self.end(key, WorkloadEnd::exited(0));
                self.run_world();
            }
            self.ack();
            self.run_world();
        }
        assert!(self.node.durable().outbox.is_empty(), "N3 acknowledged records stayed");
        assert_eq!(*self.node.durable(), self.disk, "the disk is not the fold of the changes");
        for (key, state) in &self.really_ended {
            let same = |r: &&StatusRecord| (r.workload_id, r.attempt) == *key && r.state.is_final();
            let told = self.received.values().find(same).map(|r| r.state);
            assert_eq!(told, Some(*state), "N8 {key:?} ended otherwise than told");
        }
    }
}

/// Starts that may follow each other when everything settles: no workload has more attempts waiting.
const SETTLE_ROUNDS: usize = 4;

fn stop_order(workload: u8, attempt: u32) -> StopOrder {
    StopOrder {
        workload_id: workload_id(workload),
        attempt: Attempt(attempt),
        grace_s: 1,
        cause: StatusCause::StopRequested,
    }
}

fn end_of(state: NodeWorkloadState) -> WorkloadEnd {
    match state {
        NodeWorkloadState::Completed => WorkloadEnd::exited(0),
        NodeWorkloadState::Failed => WorkloadEnd::exited(1),
        NodeWorkloadState::Stopped => WorkloadEnd::of(NodeWorkloadState::Stopped, StatusCause::StopRequested, ""),
        NodeWorkloadState::Lost
        | NodeWorkloadState::Pulling
        | NodeWorkloadState::Starting
        | NodeWorkloadState::Running
        | NodeWorkloadState::Stopping => WorkloadEnd::of(NodeWorkloadState::Lost, StatusCause::SupervisorGone, ""),
    }
}
