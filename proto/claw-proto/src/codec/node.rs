//! Messages of nodes.

use super::Read;
use super::enums::WireEnum as _;
use super::error::{At as _, Fault, FieldProblem};
use super::parts::{
    bytes_at_most, chars, chars_optional, decode_bits, decode_detail, decode_gpu, decode_gpus, decode_labels,
    decode_log_key, decode_versions, each, encode_bits, encode_detail, encode_gpus, encode_log_key, finite_f32,
    required,
};
use crate::ids::{Attempt, WorkloadId};
use crate::limits;
use crate::message::{
    GpuMetrics, LogChunk, LogGap, LogLine, NodeErrorCode, NodeMessage, NodeWorkloadState, RunningReport, StatusCause,
    StatusRecord, SystemMetrics,
};
use crate::spec::{GpuVendor, RuntimeKind};
use crate::time::Timestamp;
use crate::topology::{GpuDriver, GpuHealth, GpuInfo, NodeCapabilities};
use crate::wire::node_v1 as wire;
use crate::wire::node_v1::envelope::Body;

pub(super) fn encode(message: &NodeMessage) -> Body {
    match message {
        NodeMessage::Register { name, capabilities, running, store_id, versions, clock } => {
            Body::Register(wire::Register {
                name: name.clone(),
                capabilities: Some(encode_capabilities(capabilities)),
                running: running.iter().map(encode_running).collect(),
                store_id: encode_bits(*store_id),
                version_min: versions.0,
                version_max: versions.1,
                clock_unix_ms: clock.unix_ms(),
            })
        }
        NodeMessage::WorkloadStatus { records } => {
            Body::WorkloadStatus(wire::WorkloadStatus { records: records.iter().map(encode_record).collect() })
        }
        NodeMessage::Metrics { at, gpus, system } => Body::Metrics(wire::Metrics {
            at_unix_ms: at.unix_ms(),
            gpus: gpus.iter().map(encode_gpu_metrics).collect(),
            system: Some(encode_system_metrics(system)),
        }),
        NodeMessage::Logs { chunks } => Body::Logs(wire::Logs { chunks: chunks.iter().map(encode_chunk).collect() }),
        NodeMessage::HeartbeatAck { nonce } => Body::HeartbeatAck(wire::HeartbeatAck { nonce: *nonce }),
        NodeMessage::CapabilitiesChanged { capabilities } => Body::CapabilitiesChanged(wire::CapabilitiesChanged {
            capabilities: Some(encode_capabilities(capabilities)),
        }),
        NodeMessage::Error { code, message } => {
            Body::Error(wire::Error { code: code.encode(), message: encode_detail(message) })
        }
    }
}

pub(super) fn decode(body: Body) -> Result<Read<NodeMessage>, Fault> {
    let message = match body {
        Body::Register(register) => decode_register(register).at("register")?,
        Body::WorkloadStatus(wire::WorkloadStatus { records }) => NodeMessage::WorkloadStatus {
            records: each(records, "records", limits::STATUS_RECORDS_PER_MESSAGE_MAX, decode_record)
                .at("workload_status")?,
        },
        Body::Metrics(metrics) => decode_metrics(metrics).at("metrics")?,
        Body::Logs(logs) => NodeMessage::Logs { chunks: decode_logs(logs).at("logs")? },
        Body::HeartbeatAck(wire::HeartbeatAck { nonce }) => NodeMessage::HeartbeatAck { nonce },
        Body::CapabilitiesChanged(wire::CapabilitiesChanged { capabilities }) => NodeMessage::CapabilitiesChanged {
            capabilities: decode_capabilities(capabilities).at("capabilities_changed")?,
        },
        Body::Error(error) => decode_error(error).at("error")?,
        Body::Registered(_) => return Ok(Read::WrongDirection("registered")),
        Body::DesiredSet(_) => return Ok(Read::WrongDirection("desired_set")),
        Body::StartWorkload(_) => return Ok(Read::WrongDirection("start_workload")),
        Body::StopWorkload(_) => return Ok(Read::WrongDirection("stop_workload")),
        Body::UpdateConfig(_) => return Ok(Read::WrongDirection("update_config")),
        Body::Heartbeat(_) => return Ok(Read::WrongDirection("heartbeat")),
        Body::LogsAck(_) => return Ok(Read::WrongDirection("logs_ack")),
        Body::MeshPeers(_) => return Ok(Read::WrongDirection("mesh_peers")),
        Body::Acknowledged(_) => return Ok(Read::WrongDirection("acknowledged")),
        Body::Refused(_) => return Ok(Read::WrongDirection("refused")),
    };
    Ok(Read::Message(message))
}

fn decode_register(register: wire::Register) -> Result<NodeMessage, Fault> {
    let running_max = limits::WORKLOADS_PER_NODE_MAX;
    Ok(NodeMessage::Register {
        name: chars(register.name, "name", limits::NAME_CHARS_MAX)?,
        capabilities: decode_capabilities(register.capabilities)?,
        running: each(register.running, "running", running_max, decode_running)?,
        store_id: decode_bits(&register.store_id, "store_id")?,
        versions: decode_versions(register.version_min, register.version_max)?,
        clock: Timestamp::from_unix_ms(register.clock_unix_ms),
    })
}

fn encode_running(report: &RunningReport) -> wire::RunningReport {
    wire::RunningReport {
        workload_id: encode_bits(report.workload_id.bits()),
        attempt: report.attempt.0,
        state: report.state.encode(),
        gpus: encode_gpus(&report.gpus),
    }
}

fn decode_running(report: wire::RunningReport) -> Result<RunningReport, Fault> {
    Ok(RunningReport {
        workload_id: WorkloadId::from_bits(decode_bits(&report.workload_id, "workload_id")?),
        attempt: Attempt(report.attempt),
        state: NodeWorkloadState::decode(report.state).at("state")?,
        gpus: decode_gpus(report.gpus)?,
    })
}

fn encode_record(record: &StatusRecord) -> wire::StatusRecord {
    wire::StatusRecord {
        record: record.record,
        workload_id: encode_bits(record.workload_id.bits()),
        attempt: record.attempt.0,
        state: record.state.encode(),
        cause: record.cause.encode(),
        detail: encode_detail(&record.detail),
        exit_code: record.exit_code,
        signal: record.signal,
        at_unix_ms: record.at.unix_ms(),
        simulated: record.simulated,
    }
}

fn decode_record(record: wire::StatusRecord) -> Result<StatusRecord, Fault> {
    if record.record == 0 {
        return Err(Fault::new(FieldProblem::Missing).at("record"));
    }
    Ok(StatusRecord {
        record: record.record,
        workload_id: WorkloadId::from_bits(decode_bits(&record.workload_id, "workload_id")?),
        attempt: Attempt(record.attempt),
        state: NodeWorkloadState::decode(record.state).at("state")?,
        cause: StatusCause::decode(record.cause).at("cause")?,
        detail: decode_detail(record.detail, "detail")?,
        exit_code: record.exit_code,
        signal: record.signal,
        at: Timestamp::from_unix_ms(record.at_unix_ms),
        simulated: record.simulated,
    })
}

fn decode_metrics(metrics: wire::Metrics) -> Result<NodeMessage, Fault> {
    Ok(NodeMessage::Metrics {
        at: Timestamp::from_unix_ms(metrics.at_unix_ms),
        gpus: each(metrics.gpus, "gpus", limits::GPUS_PER_NODE_MAX, decode_gpu_metrics)?,
        system: decode_system_metrics(required(metrics.system, "system")?).at("system")?,
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

fn encode_chunk(chunk: &LogChunk) -> wire::LogChunk {
    let encode_gap = |gap: LogGap| wire::LogGap { first_sequence: gap.first_sequence, n_lost: gap.n_lost };
    let encode_line = |line: &LogLine| wire::LogLine {
        sequence: line.sequence,
        at_unix_ms: line.at.unix_ms(),
        bytes: line.bytes.clone(),
    };
    wire::LogChunk {
        key: Some(encode_log_key(chunk.key)),
        gap: chunk.gap.map(encode_gap),
        lines: chunk.lines.iter().map(encode_line).collect(),
    }
}

fn decode_logs(logs: wire::Logs) -> Result<Vec<LogChunk>, Fault> {
    let n_bytes = logs.chunks.iter().flat_map(|chunk| &chunk.lines).map(|line| line.bytes.len()).sum();
    bytes_at_most(n_bytes, "chunks", limits::LOG_BYTES_PER_MESSAGE_MAX)?;
    each(logs.chunks, "chunks", limits::LOG_LINES_PER_MESSAGE_MAX, decode_chunk)
}

fn decode_chunk(chunk: wire::LogChunk) -> Result<LogChunk, Fault> {
    let decode_line = |line: wire::LogLine| {
        bytes_at_most(line.bytes.len(), "bytes", limits::LOG_LINE_BYTES_MAX)?;
        if line.sequence == 0 {
            return Err(Fault::new(FieldProblem::Missing).at("sequence"));
        }
        let at = Timestamp::from_unix_ms(line.at_unix_ms);
        Ok(LogLine { sequence: line.sequence, at, bytes: line.bytes })
    };
    let decode_gap = |gap: wire::LogGap| LogGap { first_sequence: gap.first_sequence, n_lost: gap.n_lost };
    Ok(LogChunk {
        key: decode_log_key(chunk.key)?,
        gap: chunk.gap.map(decode_gap),
        lines: each(chunk.lines, "lines", limits::LOG_LINES_PER_MESSAGE_MAX, decode_line)?,
    })
}

fn decode_error(error: wire::Error) -> Result<NodeMessage, Fault> {
    Ok(NodeMessage::Error {
        code: NodeErrorCode::decode(error.code).at("code")?,
        message: decode_detail(error.message, "message")?,
    })
}

fn encode_capabilities(has: &NodeCapabilities) -> wire::NodeCapabilities {
    wire::NodeCapabilities {
        hostname: has.hostname.clone(),
        os: has.os.clone(),
        arch: has.arch.clone(),
        agent_version: has.agent_version.clone(),
        cpu_millis: has.cpu_millis,
        memory_mib: has.memory_mib,
        disk_mib: has.disk_mib,
        gpu_driver: has.gpu_driver.encode(),
        gpus: has.gpus.iter().map(encode_gpu_info).collect(),
        runtimes: has.runtimes.iter().map(|runtime| runtime.encode()).collect(),
        simulated: has.simulated,
        labels: has.labels.clone(),
    }
}

fn decode_capabilities(has: Option<wire::NodeCapabilities>) -> Result<NodeCapabilities, Fault> {
    let has = required(has, "capabilities")?;
    let text_max = limits::NODE_TEXT_CHARS_MAX;
    let decode = || {
        Ok(NodeCapabilities {
            hostname: chars(has.hostname, "hostname", text_max)?,
            os: chars(has.os, "os", text_max)?,
            arch: chars(has.arch, "arch", text_max)?,
            agent_version: chars(has.agent_version, "agent_version", text_max)?,
            cpu_millis: has.cpu_millis,
            memory_mib: has.memory_mib,
            disk_mib: has.disk_mib,
            gpu_driver: GpuDriver::decode(has.gpu_driver).at("gpu_driver")?,
            gpus: each(has.gpus, "gpus", limits::GPUS_PER_NODE_MAX, decode_gpu_info)?,
            runtimes: each(has.runtimes, "runtimes", limits::RUNTIMES_PER_NODE_MAX, RuntimeKind::decode)?,
            simulated: has.simulated,
            labels: decode_labels(has.labels, "labels")?,
        })
    };
    decode().at("capabilities")
}

fn encode_gpu_info(gpu: &GpuInfo) -> wire::GpuInfo {
    wire::GpuInfo {
        uuid: gpu.uuid.0.clone(),
        index: gpu.index,
        vendor: gpu.vendor.encode(),
        model: gpu.model.clone(),
        memory_mib: gpu.memory_mib,
        pci_address: gpu.pci_address.clone(),
        nvlink_island: gpu.nvlink_island,
        numa_node: gpu.numa_node,
        health: gpu.health.encode(),
        health_reason: gpu.health_reason.as_deref().map(encode_detail),
    }
}

fn decode_gpu_info(gpu: wire::GpuInfo) -> Result<GpuInfo, Fault> {
    let text_max = limits::NODE_TEXT_CHARS_MAX;
    let decode_reason = |reason| decode_detail(reason, "health_reason");
    Ok(GpuInfo {
        uuid: decode_gpu(gpu.uuid).at("uuid")?,
        index: gpu.index,
        vendor: GpuVendor::decode(gpu.vendor).at("vendor")?,
        model: chars(gpu.model, "model", limits::NAME_CHARS_MAX)?,
        memory_mib: gpu.memory_mib,
        pci_address: chars_optional(gpu.pci_address, "pci_address", text_max)?,
        nvlink_island: gpu.nvlink_island,
        numa_node: gpu.numa_node,
        health: GpuHealth::decode(gpu.health).at("health")?,
        health_reason: gpu.health_reason.map(decode_reason).transpose()?,
    })
}
