//! What protocol versions 2 and 3 added.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::{finite_f32, workload};
use crate::ids::{GpuUuid, WorkloadId};
use crate::limits;
use crate::message::{
    CheckpointWritten, GatewayMessage, GpuDetails, GpuEvent, GpuEventKind, GpuProcess, KernelLine, KernelLog,
    NodeMessage, OutputContent, OutputEntry, RankAssignment, RegistryAuth, RemappedRows, SecretBytes, SecretFile,
    TaskErrorCode, TaskId, ThrottleReason, WorkloadMetrics,
};
use crate::time::Timestamp;
use crate::topology::{EngineInfo, FindingCode, GpuDriver, GpuInfo, MigSlice, NicInfo, NodeFinding};

/// What version 2 knows of a GPU besides.
pub(super) fn with_details(gpu: GpuInfo, more: GpuMore) -> GpuInfo {
    let (parent, driver, [compute_capability, driver_version, cdi_device], (nics, caps_shares)) = more;
    let mig = parent.map(|parent| MigSlice { parent: GpuUuid(parent), profile: "1g.10gb".to_owned() });
    GpuInfo { mig, driver, compute_capability, driver_version, cdi_device, nics, caps_shares, ..gpu }
}

pub(super) type GpuMore = (Option<String>, Option<GpuDriver>, [Option<String>; 3], (Vec<String>, bool));

pub(super) fn gpu_more() -> impl Strategy<Value = GpuMore> {
    let text = || of("[a-z0-9./=]{0,16}");
    let nics = vec("[a-z0-9]{1,8}", 0..3);
    (of("GPU-[0-9a-f]{8}"), of(select(GpuDriver::ALL)), [text(), text(), text()], (nics, any::<bool>()))
}

pub(super) type Around = (Vec<NodeFinding>, Option<EngineInfo>, Vec<NicInfo>, Option<String>);

/// What version 2 knows of a node besides.
pub(super) fn around() -> impl Strategy<Value = Around> {
    let finding = (select(FindingCode::ALL), "[a-z0-9]{0,8}", ".{0,20}")
        .prop_map(|(code, subject, detail)| NodeFinding { code, subject, detail });
    let engine = ("[a-z]{1,8}", "[0-9.]{1,8}", "[0-9.]{1,4}", any::<bool>())
        .prop_map(|(name, version, api_version, cdi)| EngineInfo { name, version, api_version, cdi });
    let nic = ("[a-z0-9]{1,8}", of(any::<u32>()), of("[0-9a-f:.]{7,12}"), of(any::<u32>()), any::<bool>()).prop_map(
        |(name, numa_node, pci_address, speed_mbps, rdma)| NicInfo { name, numa_node, pci_address, speed_mbps, rdma },
    );
    (vec(finding, 0..3), of(engine), vec(nic, 0..3), of(".{0,36}"))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

pub(super) fn details() -> impl Strategy<Value = GpuDetails> {
    let rows = any::<(u32, u32, bool, bool)>().prop_map(|(correctable, uncorrectable, pending, failed)| RemappedRows {
        correctable,
        uncorrectable,
        pending,
        failed,
    });
    let process = (any::<u32>(), any::<u64>(), of(any::<u128>())).prop_map(|(pid, memory_used_mib, id)| GpuProcess {
        pid,
        memory_used_mib,
        workload_id: id.map(WorkloadId::from_bits),
    });
    let floats = (of(finite_f32()), of(finite_f32()));
    let small = any::<[Option<u32>; 6]>();
    let large = any::<[Option<u64>; 3]>();
    let lists = (vec(select(ThrottleReason::ALL), 0..4), of(rows), vec(process, 0..3));
    (floats, small, large, lists).prop_map(|(floats, small, large, (throttle_reasons, remapped_rows, processes))| {
        GpuDetails {
            memory_utilization_percent: floats.0,
            sm_clock_mhz: small[0],
            memory_clock_mhz: small[1],
            power_limit_watts: floats.1,
            fan_percent: small[2],
            throttle_reasons,
            ecc_corrected_total: large[0],
            ecc_uncorrected_total: large[1],
            remapped_rows,
            pcie_generation: small[3],
            pcie_width: small[4],
            pcie_replays: small[5],
            nvlink_errors_total: large[2],
            processes,
        }
    })
}

pub(super) fn workload_metrics() -> impl Strategy<Value = WorkloadMetrics> {
    (workload(), finite_f32(), any::<[u64; 5]>(), of(any::<u64>()), any::<u32>(), any::<bool>()).prop_map(
        |((workload_id, attempt), cpu_percent, sizes, memory_limit_mib, n_pids, simulated)| WorkloadMetrics {
            workload_id,
            attempt,
            cpu_percent,
            memory_used_mib: sizes[0],
            memory_limit_mib,
            n_pids,
            network_rx_bytes: sizes[1],
            network_tx_bytes: sizes[2],
            disk_read_bytes: sizes[3],
            disk_write_bytes: sizes[4],
            simulated,
        },
    )
}

fn content() -> impl Strategy<Value = OutputContent> {
    let entry = (".{0,12}", any::<u64>(), any::<bool>()).prop_map(|(name, bytes, is_folder)| OutputEntry {
        name,
        bytes,
        is_folder,
    });
    prop_oneof![
        (vec(entry, 0..4), any::<bool>()).prop_map(|(entries, truncated)| OutputContent::Folder { entries, truncated }),
        (bytes(), any::<u64>(), any::<u64>(), of("[0-9a-f]{64}")).prop_map(|(bytes, offset, total_bytes, sha256)| {
            OutputContent::File { bytes, offset, total_bytes, sha256 }
        }),
    ]
}

fn kernel_log() -> impl Strategy<Value = KernelLog> {
    let line = (any::<u64>(), any::<i64>(), any::<u32>(), ".{0,40}").prop_map(|(sequence, at, priority, text)| {
        KernelLine { sequence, at: Timestamp::from_unix_ms(at), priority, text }
    });
    (".{0,36}", vec(line, 0..4), any::<[u64; 3]>()).prop_map(|(boot_id, lines, n)| KernelLog {
        boot_id,
        lines,
        n_kept: n[0],
        n_dropped: n[1],
        n_missed: n[2],
    })
}

pub(super) fn node_message() -> impl Strategy<Value = NodeMessage> {
    let event =
        ("GPU-[0-9a-f]{8}", select(GpuEventKind::ALL), of(any::<u32>()), ".{0,20}", any::<i64>(), any::<bool>())
            .prop_map(|(uuid, kind, code, detail, at, simulated)| GpuEvent {
                uuid: GpuUuid(uuid),
                kind,
                code,
                detail,
                at: Timestamp::from_unix_ms(at),
                simulated,
            });
    let task = || any::<u64>().prop_map(TaskId);
    let done = (task(), of(any::<i32>()), any::<bool>(), bytes(), bytes(), any::<bool>());
    prop_oneof![
        vec(event, 0..4).prop_map(|events| NodeMessage::GpuEvents { events }),
        bytes().prop_map(|csr_der| NodeMessage::RenewCertificate { csr_der }),
        kernel_log().prop_map(NodeMessage::KernelLog),
        done.prop_map(|(task, exit_code, timed_out, stdout, stderr, truncated)| NodeMessage::ExecDone {
            task,
            exit_code,
            timed_out,
            stdout,
            stderr,
            truncated
        }),
        (task(), content()).prop_map(|(task, content)| NodeMessage::OutputRead { task, content }),
        (task(), select(TaskErrorCode::ALL), ".{0,20}").prop_map(|(task, code, message)| NodeMessage::TaskFailed {
            task,
            code,
            message
        }),
    ]
}

type Hidden = (Vec<SecretFile>, Option<RegistryAuth>, Option<RankAssignment>, Option<String>);

/// A program's word that a checkpoint is written.
pub(super) fn checkpoint() -> impl Strategy<Value = CheckpointWritten> {
    let fields = ("[ -~]{1,20}", any::<bool>(), any::<Option<u32>>());
    fields.prop_map(|(label, answers_notice, took_ms)| CheckpointWritten { label, answers_notice, took_ms })
}

/// What a workload gets besides its specification.
pub(super) fn hidden() -> impl Strategy<Value = Hidden> {
    let secret =
        ("[a-z]{1,8}", bytes()).prop_map(|(target, value)| SecretFile { target, value: SecretBytes::new(value) });
    let auth = ("[a-z]{1,8}", bytes())
        .prop_map(|(username, password)| RegistryAuth { username, password: SecretBytes::new(password) });
    let ranks = (any::<[u32; 4]>(), "[a-z0-9.]{1,12}", 1..=u16::MAX).prop_map(|(n, master_address, master_port)| {
        RankAssignment {
            node_rank: n[0],
            n_nodes: n[1],
            first_rank: n[2],
            world_size: n[3],
            master_address,
            master_port,
        }
    });
    (vec(secret, 0..3), of(auth), of(ranks), of("[ -~]{1,20}"))
}

pub(super) fn gateway_message() -> impl Strategy<Value = GatewayMessage> {
    let task = || any::<u64>().prop_map(TaskId);
    let size = || 1..=limits::TASK_BYTES_MAX as u64;
    let certificates = || vec(bytes(), 1..4);
    let exec = (task(), workload(), vec("[ -~]{0,8}", 1..4), 1..=limits::TASK_TIMEOUT_MS_MAX, size());
    let read = (task(), workload(), "[a-z/.]{0,12}", any::<u64>(), size());
    prop_oneof![
        certificates().prop_map(|chain_der| GatewayMessage::CertificateRenewed { chain_der }),
        ".{0,20}".prop_map(|message| GatewayMessage::CertificateRefused { message }),
        (certificates(), any::<bool>()).prop_map(|(cas_der, renew)| GatewayMessage::TrustBundle { cas_der, renew }),
        exec.prop_map(|(task, (workload_id, attempt), command, timeout_ms, output_bytes_max)| {
            GatewayMessage::Exec { task, workload_id, attempt, command, timeout_ms, output_bytes_max }
        }),
        read.prop_map(|(task, (workload_id, attempt), path, offset, bytes_max)| GatewayMessage::ReadOutput {
            task,
            workload_id,
            attempt,
            path,
            offset,
            bytes_max
        }),
        task().prop_map(|task| GatewayMessage::CancelTask { task }),
        (workload(), any::<u32>()).prop_map(|((workload_id, attempt), grace_s)| GatewayMessage::CheckpointNotice {
            workload_id,
            attempt,
            grace_s
        }),
    ]
}
