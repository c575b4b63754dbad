//! One message of each kind that version 2 added to, with every field set.

use super::{AT, WORKLOAD, capabilities, desired, metrics, record, spec, text};
use crate::ids::{Attempt, Generation, GpuUuid};
use crate::message::{
    DesiredWorkload, GatewayMessage, GpuDetails, GpuEvent, GpuEventKind, GpuProcess, KernelLine, KernelLog,
    NodeMessage, OutputContent, OutputEntry, RankAssignment, RegistryAuth, RemappedRows, SecretBytes, SecretFile,
    StatusCause, StatusRecord, TaskErrorCode, TaskId, ThrottleReason, WorkloadMetrics,
};
use crate::spec::{GpuRequest, GpuVendor, PullPolicy, WorkloadSpec};
use crate::topology::{EngineInfo, FindingCode, GpuDriver, GpuInfo, MigSlice, NicInfo, NodeCapabilities, NodeFinding};

fn capabilities_2() -> NodeCapabilities {
    let mut has = capabilities();
    let gpu = has.gpus.pop();
    has.gpus.extend(gpu.map(|gpu| GpuInfo {
        vendor: GpuVendor::Intel,
        mig: Some(MigSlice { parent: GpuUuid("GPU-0b".to_owned()), profile: "1g.10gb".to_owned() }),
        driver: Some(GpuDriver::Vulkan),
        compute_capability: text("9.0"),
        driver_version: text("550.54.15"),
        cdi_device: text("nvidia.com/gpu=1:0"),
        nics: vec!["mlx5_0".to_owned()],
        ..gpu
    }));
    let detail = "no answer for 5 s".to_owned();
    NodeCapabilities {
        findings: vec![NodeFinding { code: FindingCode::DriverHung, subject: "nvml".to_owned(), detail }],
        engine: Some(EngineInfo {
            name: "docker".to_owned(),
            version: "26.1.5".to_owned(),
            api_version: "1.45".to_owned(),
            cdi: true,
        }),
        nics: vec![NicInfo {
            name: "eth0".to_owned(),
            numa_node: Some(1),
            pci_address: text("0000:41:00.0"),
            speed_mbps: Some(400_000),
            rdma: true,
        }],
        ..has
    }
}

fn details() -> GpuDetails {
    GpuDetails {
        memory_utilization_percent: Some(44.5),
        sm_clock_mhz: Some(1_980),
        memory_clock_mhz: Some(2_619),
        power_limit_watts: Some(700.0),
        fan_percent: Some(30),
        throttle_reasons: vec![ThrottleReason::SwPowerCap, ThrottleReason::HwThermal],
        ecc_corrected_total: Some(3),
        ecc_uncorrected_total: Some(1),
        remapped_rows: Some(RemappedRows { correctable: 1, uncorrectable: 2, pending: true, failed: true }),
        pcie_generation: Some(5),
        pcie_width: Some(16),
        pcie_replays: Some(7),
        nvlink_errors_total: Some(9),
        processes: vec![GpuProcess { pid: 4_242, memory_used_mib: 70_000, workload_id: Some(WORKLOAD) }],
    }
}

fn kernel_log() -> KernelLog {
    let text = "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.".to_owned();
    KernelLog {
        boot_id: "6ec1b2d0-0f5e-4b0b-9f0a-1f1d0a3f9c77".to_owned(),
        lines: vec![KernelLine { sequence: 339, at: AT, priority: 3, text }],
        n_kept: 4,
        n_dropped: 5,
        n_missed: 6,
    }
}

fn metrics_2() -> NodeMessage {
    let NodeMessage::Metrics { at, mut gpus, system, .. } = metrics() else { unreachable!("metrics are metrics") };
    for gpu in &mut gpus {
        gpu.details = Some(Box::new(details()));
    }
    let workloads = vec![WorkloadMetrics {
        workload_id: WORKLOAD,
        attempt: Attempt(2),
        cpu_percent: 312.5,
        memory_used_mib: 1_024,
        memory_limit_mib: Some(2_048),
        n_pids: 33,
        network_rx_bytes: 1,
        network_tx_bytes: 2,
        disk_read_bytes: 3,
        disk_write_bytes: 4,
        simulated: true,
    }];
    NodeMessage::Metrics { at, gpus, system, workloads }
}

pub(in super::super) fn of_nodes() -> Vec<(&'static str, NodeMessage)> {
    let event = GpuEvent {
        uuid: GpuUuid("GPU-0a".to_owned()),
        kind: GpuEventKind::Xid,
        code: Some(79),
        detail: "fallen off the bus".to_owned(),
        at: AT,
        simulated: true,
    };
    let folder = OutputContent::Folder {
        entries: vec![OutputEntry { name: "model.safetensors".to_owned(), bytes: 12, is_folder: true }],
        truncated: true,
    };
    let file = OutputContent::File { bytes: vec![1, 2], offset: 3, total_bytes: 5, sha256: Some("ab".repeat(32)) };
    let task = TaskId(8);
    let refused = StatusRecord { cause: StatusCause::PullFailed, ..record() };
    let register = NodeMessage::Register {
        name: "h100-07".to_owned(),
        capabilities: capabilities_2(),
        running: vec![],
        store_id: 0xfeed,
        versions: (1, 2),
        clock: AT,
    };
    let booted = NodeCapabilities { boot_id: text("6ec1b2d0-0f5e-4b0b-9f0a-1f1d0a3f9c77"), ..capabilities_2() };
    vec![
        ("register", register),
        ("workload_status", NodeMessage::WorkloadStatus { records: vec![refused] }),
        ("metrics", metrics_2()),
        ("capabilities_changed", NodeMessage::CapabilitiesChanged { capabilities: capabilities_2() }),
        ("gpu_events", NodeMessage::GpuEvents { events: vec![event] }),
        ("kernel_log", NodeMessage::KernelLog(kernel_log())),
        ("capabilities_with_boot", NodeMessage::CapabilitiesChanged { capabilities: booted }),
        ("renew_certificate", NodeMessage::RenewCertificate { csr_der: vec![0x30, 0x00] }),
        (
            "exec_done",
            NodeMessage::ExecDone {
                task,
                exit_code: Some(3),
                timed_out: true,
                stdout: b"out".to_vec(),
                stderr: b"err".to_vec(),
                truncated: true,
            },
        ),
        ("output_folder", NodeMessage::OutputRead { task, content: folder }),
        ("output_file", NodeMessage::OutputRead { task, content: file }),
        (
            "task_failed",
            NodeMessage::TaskFailed { task, code: TaskErrorCode::NotRunning, message: "it has ended".to_owned() },
        ),
    ]
}

fn desired_2() -> DesiredWorkload {
    let gpu = Some(GpuRequest { vendor: Some(GpuVendor::Other), ..GpuRequest::default() });
    DesiredWorkload {
        spec: WorkloadSpec {
            gpu,
            pull: Some(PullPolicy::Always),
            pull_secret: text("registry"),
            read_only_root: Some(true),
            ..spec()
        },
        secrets: vec![SecretFile { target: "hf".to_owned(), value: SecretBytes::new(b"hf_x".to_vec()) }],
        registry_auth: Some(RegistryAuth {
            username: "puller".to_owned(),
            password: SecretBytes::new(b"secret".to_vec()),
        }),
        ranks: Some(RankAssignment {
            node_rank: 1,
            n_nodes: 2,
            first_rank: 8,
            world_size: 16,
            master_address: "10.0.0.7".to_owned(),
            master_port: 29_500,
        }),
        ..desired()
    }
}

pub(in super::super) fn of_gateways() -> Vec<(&'static str, GatewayMessage)> {
    let generation = Generation { epoch: 3, n: 42 };
    let (task, workload_id, attempt) = (TaskId(8), WORKLOAD, Attempt(2));
    let certificates = vec![vec![0x30, 0x00], vec![0x30, 0x01]];
    vec![
        ("start_workload", GatewayMessage::StartWorkload { generation, workload: desired_2() }),
        ("certificate_renewed", GatewayMessage::CertificateRenewed { chain_der: certificates.clone() }),
        ("certificate_refused", GatewayMessage::CertificateRefused { message: "revoked".to_owned() }),
        ("trust_bundle", GatewayMessage::TrustBundle { cas_der: certificates, renew: true }),
        (
            "exec",
            GatewayMessage::Exec {
                task,
                workload_id,
                attempt,
                command: vec!["nvidia-smi".to_owned()],
                timeout_ms: 30_000,
                output_bytes_max: 65_536,
            },
        ),
        (
            "read_output",
            GatewayMessage::ReadOutput {
                task,
                workload_id,
                attempt,
                path: "/data/out".to_owned(),
                offset: 4,
                bytes_max: 1_024,
            },
        ),
        ("cancel_task", GatewayMessage::CancelTask { task }),
    ]
}
