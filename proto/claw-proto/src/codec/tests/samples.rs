//! One message of each kind with every field set, to compare recorded frames
//! with. A field that a later version adds is absent (or its default) here, for
//! these are messages of version 1.

pub(super) mod version_2;
pub(super) mod version_3;

use std::collections::BTreeMap;

use crate::ids::{Attempt, Generation, GpuUuid, NodeId, WorkloadId};
use crate::message::{
    DesiredWorkload, Envelope, GatewayMessage, GpuMetrics, LogChunk, LogGap, LogKey, LogLine, LogStream, MeshPeer,
    NodeErrorCode, NodeMessage, NodeSettings, NodeWorkloadState, RefusalCode, RunningReport, StatusCause, StatusRecord,
    StopOrder, SystemMetrics,
};
use crate::spec::{
    Autoscale, AutoscaleMetric, Budget, BudgetPer, BudgetUnit, GpuRequest, GpuVendor, Interconnect, MarketUse,
    OnPartition, Placement, PlacementStrategy, Priority, Quantization, RestartPolicy, RuntimeKind, SecretRef, Volume,
    WorkloadKind, WorkloadSpec,
};
use crate::time::Timestamp;
use crate::topology::{GpuDriver, GpuHealth, GpuInfo, NodeCapabilities};

const WORKLOAD: WorkloadId = WorkloadId::from_bits(0x0190_0000_0000_0000_0000_0000_0000_0042);
const NODE: NodeId = NodeId::from_bits(0x0190_0000_0000_0000_0000_0000_0000_0007);
const AT: Timestamp = Timestamp::from_unix_ms(1_772_366_400_123);

pub(super) fn envelope<M>(body: M) -> Envelope<M> {
    let generation = Generation { epoch: 3, n: 41 };
    Envelope { version: 1, epoch: 3, sequence: 9, ack: 17, generation, body }
}

#[expect(clippy::unnecessary_wraps, reason = "for fields that are optional")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn gpus() -> Vec<GpuUuid> {
    vec![GpuUuid("GPU-0a".to_owned()), GpuUuid("GPU-0b".to_owned())]
}

fn log_key() -> LogKey {
    LogKey { workload_id: WORKLOAD, attempt: Attempt(2), stream: LogStream::Stderr }
}

fn capabilities() -> NodeCapabilities {
    NodeCapabilities {
        hostname: "h100-07.example.com".to_owned(),
        os: "Linux 6.8".to_owned(),
        arch: "x86_64".to_owned(),
        agent_version: "0.1.0".to_owned(),
        cpu_millis: 128_000,
        memory_mib: 2_097_152,
        disk_mib: 7_340_032,
        gpu_driver: GpuDriver::Sim,
        gpus: vec![GpuInfo {
            uuid: GpuUuid("GPU-0a".to_owned()),
            index: 1,
            vendor: GpuVendor::Nvidia,
            model: "H100".to_owned(),
            memory_mib: 81_559,
            pci_address: text("0000:1b:00.0"),
            nvlink_island: Some(0),
            numa_node: Some(1),
            health: GpuHealth::Degraded,
            health_reason: text("Xid 63"),
            mig: None,
            driver: None,
            compute_capability: None,
            driver_version: None,
            cdi_device: None,
            nics: vec![],
            caps_shares: false,
        }],
        runtimes: vec![RuntimeKind::Docker, RuntimeKind::Sim],
        simulated: true,
        labels: [("zone".to_owned(), "eu-west-1a".to_owned())].into(),
        findings: vec![],
        engine: None,
        nics: vec![],
        boot_id: None,
    }
}

fn metrics() -> NodeMessage {
    NodeMessage::Metrics {
        at: AT,
        gpus: vec![GpuMetrics {
            uuid: GpuUuid("GPU-0a".to_owned()),
            utilization_percent: 97.5,
            memory_used_mib: 70_000,
            memory_total_mib: 81_559,
            temperature_celsius: 64.0,
            power_watts: 688.25,
            simulated: true,
            details: None,
        }],
        system: SystemMetrics {
            cpu_percent: 12.5,
            memory_used_mib: 1,
            memory_total_mib: 2,
            disk_used_mib: 3,
            disk_total_mib: 4,
            load_average_1m: 0.75,
        },
        workloads: vec![],
    }
}

fn logs() -> NodeMessage {
    let line = LogLine { sequence: 6, at: AT, bytes: vec![b'o', b'k', 0xff, 0x00] };
    let gap = Some(LogGap { first_sequence: 4, n_lost: 2 });
    NodeMessage::Logs { chunks: vec![LogChunk { key: log_key(), gap, lines: vec![line] }] }
}

fn record() -> StatusRecord {
    StatusRecord {
        record: 18,
        workload_id: WORKLOAD,
        attempt: Attempt(2),
        state: NodeWorkloadState::Failed,
        cause: StatusCause::Signaled,
        detail: "killed".to_owned(),
        exit_code: Some(-1),
        signal: Some(9),
        at: AT,
        simulated: true,
        checkpoint: None,
    }
}

pub(super) fn of_nodes() -> Vec<(&'static str, NodeMessage)> {
    let running =
        RunningReport { workload_id: WORKLOAD, attempt: Attempt(2), state: NodeWorkloadState::Running, gpus: gpus() };
    let register = NodeMessage::Register {
        name: "h100-07".to_owned(),
        capabilities: capabilities(),
        running: vec![running],
        store_id: 0xfeed,
        versions: (1, 2),
        clock: AT,
    };
    let code = NodeErrorCode::StaleGeneration;
    vec![
        ("register", register),
        ("workload_status", NodeMessage::WorkloadStatus { records: vec![record()] }),
        ("metrics", metrics()),
        ("logs", logs()),
        ("heartbeat_ack", NodeMessage::HeartbeatAck { nonce: 5 }),
        ("capabilities_changed", NodeMessage::CapabilitiesChanged { capabilities: capabilities() }),
        ("error", NodeMessage::Error { code, message: "3.40 is older than 3.41".to_owned() }),
    ]
}

fn gpu_request() -> GpuRequest {
    GpuRequest {
        count: Some(4),
        model: text("H100"),
        vendor: Some(GpuVendor::Nvidia),
        memory_gib_min: Some(80.0),
        interconnect: Some(Interconnect::Nvlink),
        fraction: Some(0.5),
        mig_profile: text("1g.10gb"),
        // Later than the recorded frames.
        model_fallbacks: Vec::new(),
        isolation: None,
    }
}

fn placement() -> Placement {
    Placement {
        node: text("h100-07"),
        exclude_nodes: vec!["h100-01".to_owned()],
        zone: text("eu-west-1a"),
        labels: [("rack".to_owned(), "3".to_owned())].into(),
        strategy: Some(PlacementStrategy::Pack),
        // Later than the recorded frames.
        tolerations: Vec::new(),
        anti_affinity: None,
    }
}

/// Every field is set; whether they go together is not the wire's concern.
fn spec() -> WorkloadSpec {
    WorkloadSpec {
        name: text("llama-chat"),
        kind: Some(WorkloadKind::Inference),
        model: text("llama-3.1-70b-instruct"),
        quantization: Some(Quantization::Fp8),
        image: text("vllm/vllm-openai:v0.6.3"),
        command: Some(vec!["serve".to_owned()]),
        args: vec!["--tp".to_owned(), "4".to_owned()],
        env: [("HF_HOME".to_owned(), "/cache".to_owned())].into(),
        ports: vec![8000, 9090],
        gpu: Some(gpu_request()),
        nodes: Some(1),
        cpu_cores: Some(8.5),
        memory_gib: Some(256.0),
        disk_gib: Some(100.0),
        shm_gib: Some(64.0),
        replicas: Some(2),
        autoscale: Some(Autoscale { min: 1, max: 4, metric: Some(AutoscaleMetric::LatencyP99), target: Some(250.0) }),
        priority: Some(Priority::BestEffort),
        preemptible: Some(false),
        max_duration_s: Some(21_600),
        not_before: Some(AT),
        deadline: Some(AT.plus_ms(1)),
        restart: Some(RestartPolicy::OnFailure),
        max_restarts: Some(0),
        placement: Some(placement()),
        tenant: text("support"),
        checkpoint_interval_s: Some(600),
        volumes: vec![Volume { source: "cache".to_owned(), target: "/cache".to_owned(), read_only: true }],
        market: Some(MarketUse::Overflow),
        budget: Some(Budget { amount: 1.8, unit: BudgetUnit::Usd, per: Some(BudgetPer::GpuHour) }),
        working_dir: text("/data"),
        user: text("1000:1000"),
        secrets: vec![SecretRef { handle: "hf/token".to_owned(), target: "hf".to_owned() }],
        grace_s: Some(30),
        labels: [("team".to_owned(), "agents".to_owned())].into(),
        on_partition: Some(OnPartition::Keep),
        outputs: vec!["/data/out".to_owned()],
        runtime: Some(RuntimeKind::Docker),
        pull: None,
        pull_secret: None,
        read_only_root: None,
        gates: Vec::new(),
    }
}

fn desired() -> DesiredWorkload {
    DesiredWorkload {
        workload_id: WORKLOAD,
        attempt: Attempt(2),
        spec: spec(),
        gpus: gpus(),
        runtime: RuntimeKind::Sim,
        on_partition: OnPartition::StopAfter(120),
        grace_s: 30,
        max_duration_s: Some(21_600),
        secrets: vec![],
        registry_auth: None,
        ranks: None,
        checkpoint_last: None,
    }
}

fn stop_order() -> StopOrder {
    let cause = StatusCause::Superseded;
    StopOrder { workload_id: WORKLOAD, attempt: Attempt(1), grace_s: 10, cause }
}

fn settings() -> NodeSettings {
    NodeSettings { metrics_interval_ms: 10_000, heartbeat_interval_ms: 2_000, log_buffer_bytes: 67_108_864 }
}

pub(super) fn of_gateways() -> Vec<(&'static str, GatewayMessage)> {
    let settings = settings();
    let generation = Generation { epoch: 3, n: 42 };
    let acks: BTreeMap<LogKey, u64> = [(log_key(), 6)].into();
    let peer = MeshPeer {
        node_id: NODE,
        public_key: "AAAA".to_owned(),
        endpoint: "10.0.0.7:51820".to_owned(),
        allowed_ips: vec!["10.9.0.7/32".to_owned()],
    };
    let set = GatewayMessage::DesiredSet {
        generation,
        // The second one is all absent: absent is not the same as a default.
        workloads: vec![desired(), DesiredWorkload { spec: WorkloadSpec::default(), ..desired() }],
        stop: vec![stop_order()],
    };
    let registered =
        GatewayMessage::Registered { node_id: NODE, settings: settings.clone(), version: 1, log_acks: acks.clone() };
    let refused = GatewayMessage::Refused {
        code: RefusalCode::VersionMismatch,
        message: "upgrade the node".to_owned(),
        versions: (2, 3),
    };
    vec![
        ("registered", registered),
        ("desired_set", set),
        ("start_workload", GatewayMessage::StartWorkload { generation, workload: desired() }),
        ("stop_workload", GatewayMessage::StopWorkload { generation, order: stop_order() }),
        ("update_config", GatewayMessage::UpdateConfig { settings }),
        ("heartbeat", GatewayMessage::Heartbeat { nonce: 5, confirmed: 4 }),
        ("logs_ack", GatewayMessage::LogsAck { acks }),
        ("mesh_peers", GatewayMessage::MeshPeers { peers: vec![peer] }),
        ("acknowledged", GatewayMessage::Ack),
        ("refused", refused),
    ]
}
