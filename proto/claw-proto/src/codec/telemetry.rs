//! What a node measures, and what its drivers report.

use super::enums::WireEnum as _;
use super::error::{At as _, Fault};
use super::parts::{
    bytes_at_most, chars, decode_bits, decode_detail, decode_gpu, each, encode_bits, encode_detail, finite_f32,
    finite_f32_optional, required,
};
use crate::ids::{Attempt, WorkloadId};
use crate::limits;
use crate::message::kernel::cut;
use crate::message::{
    GpuDetails, GpuEvent, GpuEventKind, GpuMetrics, GpuProcess, KernelLine, KernelLog, NodeMessage, RemappedRows,
    SystemMetrics, ThrottleReason, WorkloadMetrics,
};
use crate::time::Timestamp;
use crate::wire::node_v1 as wire;

pub(super) fn encode_metrics(
    at: Timestamp,
    gpus: &[GpuMetrics],
    system: &SystemMetrics,
    workloads: &[WorkloadMetrics],
) -> wire::Metrics {
    wire::Metrics {
        at_unix_ms: at.unix_ms(),
        gpus: gpus.iter().map(encode_gpu_metrics).collect(),
        system: Some(encode_system_metrics(system)),
        workloads: workloads.iter().map(encode_workload_metrics).collect(),
    }
}

pub(super) fn decode_metrics(metrics: wire::Metrics) -> Result<NodeMessage, Fault> {
    Ok(NodeMessage::Metrics {
        at: Timestamp::from_unix_ms(metrics.at_unix_ms),
        gpus: each(metrics.gpus, "gpus", limits::GPUS_PER_NODE_MAX, decode_gpu_metrics)?,
        system: decode_system_metrics(required(metrics.system, "system")?).at("system")?,
        workloads: each(metrics.workloads, "workloads", limits::WORKLOADS_PER_NODE_MAX, decode_workload_metrics)?,
    })
}

fn encode_gpu_metrics(gpu: &GpuMetrics) -> wire::GpuMetrics {
    wire::GpuMetrics {
        uuid: gpu.uuid.0.clone(),
        utilization_percent: gpu.utilization_percent,
        memory_used_mib: gpu.memory_used_mib,
        memory_total_mib: gpu.memory_total_mib,
        temperature_celsius: gpu.temperature_celsius,
        power_watts: gpu.power_watts,
        simulated: gpu.simulated,
        details: gpu.details.as_deref().map(encode_details),
    }
}

fn decode_gpu_metrics(gpu: wire::GpuMetrics) -> Result<GpuMetrics, Fault> {
    Ok(GpuMetrics {
        uuid: decode_gpu(gpu.uuid).at("uuid")?,
        utilization_percent: finite_f32(gpu.utilization_percent, "utilization_percent")?,
        memory_used_mib: gpu.memory_used_mib,
        memory_total_mib: gpu.memory_total_mib,
        temperature_celsius: finite_f32(gpu.temperature_celsius, "temperature_celsius")?,
        power_watts: finite_f32(gpu.power_watts, "power_watts")?,
        simulated: gpu.simulated,
        details: gpu.details.map(|d| decode_details(d).at("details")).transpose()?.map(Box::new),
    })
}

fn encode_system_metrics(system: &SystemMetrics) -> wire::SystemMetrics {
    wire::SystemMetrics {
        cpu_percent: system.cpu_percent,
        memory_used_mib: system.memory_used_mib,
        memory_total_mib: system.memory_total_mib,
        disk_used_mib: system.disk_used_mib,
        disk_total_mib: system.disk_total_mib,
        load_average_1m: system.load_average_1m,
    }
}

fn decode_system_metrics(system: wire::SystemMetrics) -> Result<SystemMetrics, Fault> {
    Ok(SystemMetrics {
        cpu_percent: finite_f32(system.cpu_percent, "cpu_percent")?,
        memory_used_mib: system.memory_used_mib,
        memory_total_mib: system.memory_total_mib,
        disk_used_mib: system.disk_used_mib,
        disk_total_mib: system.disk_total_mib,
        load_average_1m: finite_f32(system.load_average_1m, "load_average_1m")?,
    })
}

fn encode_details(details: &GpuDetails) -> wire::GpuDetails {
    let encode_rows = |rows: RemappedRows| wire::RemappedRows {
        correctable: rows.correctable,
        uncorrectable: rows.uncorrectable,
        pending: rows.pending,
        failed: rows.failed,
    };
    let encode_process = |process: &GpuProcess| wire::GpuProcess {
        pid: process.pid,
        memory_used_mib: process.memory_used_mib,
        workload_id: process.workload_id.map(|id| encode_bits(id.bits())),
    };
    wire::GpuDetails {
        memory_utilization_percent: details.memory_utilization_percent,
        sm_clock_mhz: details.sm_clock_mhz,
        memory_clock_mhz: details.memory_clock_mhz,
        power_limit_watts: details.power_limit_watts,
        fan_percent: details.fan_percent,
        throttle_reasons: details.throttle_reasons.iter().map(|reason| reason.encode()).collect(),
        ecc_corrected_total: details.ecc_corrected_total,
        ecc_uncorrected_total: details.ecc_uncorrected_total,
        remapped_rows: details.remapped_rows.map(encode_rows),
        pcie_generation: details.pcie_generation,
        pcie_width: details.pcie_width,
        pcie_replays: details.pcie_replays,
        nvlink_errors_total: details.nvlink_errors_total,
        processes: details.processes.iter().take(limits::PROCESSES_PER_GPU_MAX).map(encode_process).collect(),
    }
}

fn decode_details(details: wire::GpuDetails) -> Result<GpuDetails, Fault> {
    let decode_rows = |rows: wire::RemappedRows| RemappedRows {
        correctable: rows.correctable,
        uncorrectable: rows.uncorrectable,
        pending: rows.pending,
        failed: rows.failed,
    };
    let reasons_max = ThrottleReason::ALL.len();
    Ok(GpuDetails {
        memory_utilization_percent: finite_f32_optional(
            details.memory_utilization_percent,
            "memory_utilization_percent",
        )?,
        sm_clock_mhz: details.sm_clock_mhz,
        memory_clock_mhz: details.memory_clock_mhz,
        power_limit_watts: finite_f32_optional(details.power_limit_watts, "power_limit_watts")?,
        fan_percent: details.fan_percent,
        throttle_reasons: each(details.throttle_reasons, "throttle_reasons", reasons_max, ThrottleReason::decode)?,
        ecc_corrected_total: details.ecc_corrected_total,
        ecc_uncorrected_total: details.ecc_uncorrected_total,
        remapped_rows: details.remapped_rows.map(decode_rows),
        pcie_generation: details.pcie_generation,
        pcie_width: details.pcie_width,
        pcie_replays: details.pcie_replays,
        nvlink_errors_total: details.nvlink_errors_total,
        processes: each(details.processes, "processes", limits::PROCESSES_PER_GPU_MAX, decode_process)?,
    })
}

fn decode_process(process: wire::GpuProcess) -> Result<GpuProcess, Fault> {
    let decode_id = |id: Vec<u8>| decode_bits(&id, "workload_id").map(WorkloadId::from_bits);
    Ok(GpuProcess {
        pid: process.pid,
        memory_used_mib: process.memory_used_mib,
        workload_id: process.workload_id.map(decode_id).transpose()?,
    })
}

fn encode_workload_metrics(metrics: &WorkloadMetrics) -> wire::WorkloadMetrics {
    wire::WorkloadMetrics {
        workload_id: encode_bits(metrics.workload_id.bits()),
        attempt: metrics.attempt.0,
        cpu_percent: metrics.cpu_percent,
        memory_used_mib: metrics.memory_used_mib,
        memory_limit_mib: metrics.memory_limit_mib,
        n_pids: metrics.n_pids,
        network_rx_bytes: metrics.network_rx_bytes,
        network_tx_bytes: metrics.network_tx_bytes,
        disk_read_bytes: metrics.disk_read_bytes,
        disk_write_bytes: metrics.disk_write_bytes,
        simulated: metrics.simulated,
    }
}

fn decode_workload_metrics(metrics: wire::WorkloadMetrics) -> Result<WorkloadMetrics, Fault> {
    Ok(WorkloadMetrics {
        workload_id: WorkloadId::from_bits(decode_bits(&metrics.workload_id, "workload_id")?),
        attempt: Attempt(metrics.attempt),
        cpu_percent: finite_f32(metrics.cpu_percent, "cpu_percent")?,
        memory_used_mib: metrics.memory_used_mib,
        memory_limit_mib: metrics.memory_limit_mib,
        n_pids: metrics.n_pids,
        network_rx_bytes: metrics.network_rx_bytes,
        network_tx_bytes: metrics.network_tx_bytes,
        disk_read_bytes: metrics.disk_read_bytes,
        disk_write_bytes: metrics.disk_write_bytes,
        simulated: metrics.simulated,
    })
}

pub(super) fn encode_gpu_events(events: &[GpuEvent]) -> wire::GpuEvents {
    let encode_event = |event: &GpuEvent| wire::GpuEvent {
        uuid: event.uuid.0.clone(),
        kind: event.kind.encode(),
        code: event.code,
        detail: encode_detail(&event.detail),
        at_unix_ms: event.at.unix_ms(),
        simulated: event.simulated,
    };
    wire::GpuEvents { events: events.iter().map(encode_event).collect() }
}

pub(super) fn decode_gpu_events(events: wire::GpuEvents) -> Result<NodeMessage, Fault> {
    let decode_event = |event: wire::GpuEvent| {
        Ok(GpuEvent {
            uuid: decode_gpu(event.uuid).at("uuid")?,
            kind: GpuEventKind::decode(event.kind).at("kind")?,
            code: event.code,
            detail: decode_detail(event.detail, "detail")?,
            at: Timestamp::from_unix_ms(event.at_unix_ms),
            simulated: event.simulated,
        })
    };
    let events = each(events.events, "events", limits::GPU_EVENTS_PER_MESSAGE_MAX, decode_event)?;
    Ok(NodeMessage::GpuEvents { events })
}

pub(super) fn encode_kernel_log(log: &KernelLog) -> wire::KernelLog {
    let encode_line = |line: &KernelLine| wire::KernelLine {
        sequence: line.sequence,
        at_unix_ms: line.at.unix_ms(),
        priority: line.priority,
        text: cut(&line.text).to_owned(),
    };
    wire::KernelLog {
        boot_id: log.boot_id.clone(),
        lines: log.lines.iter().map(encode_line).collect(),
        n_kept: log.n_kept,
        n_dropped: log.n_dropped,
        n_missed: log.n_missed,
    }
}

pub(super) fn decode_kernel_log(log: wire::KernelLog) -> Result<NodeMessage, Fault> {
    let decode_line = |line: wire::KernelLine| {
        bytes_at_most(line.text.len(), "text", limits::KERNEL_LINE_BYTES_MAX)?;
        let at = Timestamp::from_unix_ms(line.at_unix_ms);
        Ok(KernelLine { sequence: line.sequence, at, priority: line.priority, text: line.text })
    };
    Ok(NodeMessage::KernelLog(KernelLog {
        boot_id: chars(log.boot_id, "boot_id", limits::NODE_TEXT_CHARS_MAX)?,
        lines: each(log.lines, "lines", limits::KERNEL_LINES_PER_MESSAGE_MAX, decode_line)?,
        n_kept: log.n_kept,
        n_dropped: log.n_dropped,
        n_missed: log.n_missed,
    }))
}
