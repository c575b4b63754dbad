//! Messages of nodes.

use super::Read;
use super::capabilities::{decode_capabilities, encode_capabilities};
use super::enums::WireEnum as _;
use super::error::{At as _, Fault, FieldProblem};
use super::parts::{
    bytes_at_most, chars, decode_bits, decode_detail, decode_gpus, decode_log_key, decode_versions, each, encode_bits,
    encode_detail, encode_gpus, encode_log_key,
};
use super::tasks::{
    decode_exec_done, decode_output_read, decode_task_failed, encode_exec_done, encode_output_read, encode_task_failed,
};
use super::telemetry::{
    decode_gpu_events, decode_kernel_log, decode_metrics, encode_gpu_events, encode_kernel_log, encode_metrics,
};
use crate::ids::{Attempt, WorkloadId};
use crate::limits;
use crate::message::{
    CheckpointWritten, LogChunk, LogGap, LogLine, NodeErrorCode, NodeMessage, NodeWorkloadState, RunningReport,
    StatusCause, StatusRecord,
};
use crate::time::Timestamp;
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
        NodeMessage::Metrics { at, gpus, system, workloads } => {
            Body::Metrics(encode_metrics(*at, gpus, system, workloads))
        }
        NodeMessage::GpuEvents { events } => Body::GpuEvents(encode_gpu_events(events)),
        NodeMessage::KernelLog(log) => Body::KernelLog(encode_kernel_log(log)),
        NodeMessage::RenewCertificate { csr_der } => {
            Body::RenewCertificate(wire::RenewCertificate { csr_der: csr_der.clone() })
        }
        NodeMessage::ExecDone { task, exit_code, timed_out, stdout, stderr, truncated } => {
            encode_exec_done(*task, *exit_code, *timed_out, (stdout, stderr), *truncated)
        }
        NodeMessage::OutputRead { task, content } => encode_output_read(*task, content),
        NodeMessage::TaskFailed { task, code, message } => encode_task_failed(*task, *code, message),
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
        Body::GpuEvents(events) => decode_gpu_events(events).at("gpu_events")?,
        Body::KernelLog(log) => decode_kernel_log(log).at("kernel_log")?,
        Body::RenewCertificate(wire::RenewCertificate { csr_der }) => {
            bytes_at_most(csr_der.len(), "renew_certificate.csr_der", limits::CERTIFICATE_BYTES_MAX)?;
            NodeMessage::RenewCertificate { csr_der }
        }
        Body::ExecDone(done) => decode_exec_done(done).at("exec_done")?,
        Body::OutputRead(read) => decode_output_read(read).at("output_read")?,
        Body::TaskFailed(failed) => decode_task_failed(failed).at("task_failed")?,
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
        Body::CertificateRenewed(_) => return Ok(Read::WrongDirection("certificate_renewed")),
        Body::CertificateRefused(_) => return Ok(Read::WrongDirection("certificate_refused")),
        Body::TrustBundle(_) => return Ok(Read::WrongDirection("trust_bundle")),
        Body::Exec(_) => return Ok(Read::WrongDirection("exec")),
        Body::ReadOutput(_) => return Ok(Read::WrongDirection("read_output")),
        Body::CancelTask(_) => return Ok(Read::WrongDirection("cancel_task")),
        Body::CheckpointNotice(_) => return Ok(Read::WrongDirection("checkpoint_notice")),
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
        checkpoint: record.checkpoint.as_ref().map(|written| wire::CheckpointWritten {
            label: written.label.clone(),
            answers_notice: written.answers_notice,
            took_ms: written.took_ms,
        }),
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
        checkpoint: record.checkpoint.map(decode_checkpoint).transpose().at("checkpoint")?,
    })
}

fn decode_checkpoint(written: wire::CheckpointWritten) -> Result<CheckpointWritten, Fault> {
    if written.label.is_empty() {
        return Err(Fault::new(FieldProblem::Empty).at("label"));
    }
    Ok(CheckpointWritten {
        label: chars(written.label, "label", limits::CHECKPOINT_LABEL_CHARS_MAX)?,
        answers_notice: written.answers_notice,
        took_ms: written.took_ms,
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
