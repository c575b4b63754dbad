//! Short requests to a node, their answers, and certificates.

use super::enums::WireEnum as _;
use super::error::{At as _, Fault, FieldProblem};
use super::parts::{
    at_most, bytes_at_most, chars, decode_bits, decode_detail, each, encode_bits, encode_detail, required,
};
use super::spec::decode_argv;
use crate::ids::{Attempt, WorkloadId};
use crate::limits;
use crate::message::{GatewayMessage, NodeMessage, OutputContent, OutputEntry, TaskErrorCode, TaskId};
use crate::wire::node_v1 as wire;
use crate::wire::node_v1::envelope::Body;
use crate::wire::node_v1::output_read::Content;

/// Characters of a SHA-256 in hex.
const SHA256_CHARS: usize = 64;

pub(super) fn encode_exec_done(
    task: TaskId,
    exit_code: Option<i32>,
    timed_out: bool,
    output: (&[u8], &[u8]),
    truncated: bool,
) -> Body {
    let (stdout, stderr) = (output.0.to_vec(), output.1.to_vec());
    Body::ExecDone(wire::ExecDone { task: task.0, exit_code, timed_out, stdout, stderr, truncated })
}

pub(super) fn decode_exec_done(done: wire::ExecDone) -> Result<NodeMessage, Fault> {
    bytes_at_most(done.stdout.len(), "stdout", limits::TASK_BYTES_MAX)?;
    bytes_at_most(done.stderr.len(), "stderr", limits::TASK_BYTES_MAX)?;
    Ok(NodeMessage::ExecDone {
        task: TaskId(done.task),
        exit_code: done.exit_code,
        timed_out: done.timed_out,
        stdout: done.stdout,
        stderr: done.stderr,
        truncated: done.truncated,
    })
}

pub(super) fn encode_output_read(task: TaskId, content: &OutputContent) -> Body {
    let encode_entry = |entry: &OutputEntry| wire::OutputEntry {
        name: entry.name.clone(),
        bytes: entry.bytes,
        is_folder: entry.is_folder,
    };
    let content = match content {
        OutputContent::Folder { entries, truncated } => Content::Folder(wire::OutputFolder {
            entries: entries.iter().map(encode_entry).collect(),
            truncated: *truncated,
        }),
        OutputContent::File { bytes, offset, total_bytes, sha256 } => Content::File(wire::OutputFile {
            bytes: bytes.clone(),
            offset: *offset,
            total_bytes: *total_bytes,
            sha256: sha256.clone(),
        }),
    };
    Body::OutputRead(wire::OutputRead { task: task.0, content: Some(content) })
}

pub(super) fn decode_output_read(read: wire::OutputRead) -> Result<NodeMessage, Fault> {
    let decode_entry = |entry: wire::OutputEntry| {
        bytes_at_most(entry.name.len(), "name", limits::PATH_BYTES_MAX)?;
        Ok(OutputEntry { name: entry.name, bytes: entry.bytes, is_folder: entry.is_folder })
    };
    let content = match required(read.content, "content")? {
        Content::Folder(folder) => OutputContent::Folder {
            entries: each(folder.entries, "entries", limits::OUTPUT_ENTRIES_MAX, decode_entry).at("folder")?,
            truncated: folder.truncated,
        },
        Content::File(file) => {
            bytes_at_most(file.bytes.len(), "file.bytes", limits::TASK_BYTES_MAX)?;
            let sha256 = file.sha256.map(|hex| chars(hex, "file.sha256", SHA256_CHARS)).transpose()?;
            OutputContent::File { bytes: file.bytes, offset: file.offset, total_bytes: file.total_bytes, sha256 }
        }
    };
    Ok(NodeMessage::OutputRead { task: TaskId(read.task), content })
}

pub(super) fn encode_task_failed(task: TaskId, code: TaskErrorCode, message: &str) -> Body {
    Body::TaskFailed(wire::TaskFailed { task: task.0, code: code.encode(), message: encode_detail(message) })
}

pub(super) fn decode_task_failed(failed: wire::TaskFailed) -> Result<NodeMessage, Fault> {
    Ok(NodeMessage::TaskFailed {
        task: TaskId(failed.task),
        code: TaskErrorCode::decode(failed.code).at("code")?,
        message: decode_detail(failed.message, "message")?,
    })
}

pub(super) fn decode_exec(exec: wire::Exec) -> Result<GatewayMessage, Fault> {
    let (timeout_max, bytes_max) = (limits::TASK_TIMEOUT_MS_MAX, limits::TASK_BYTES_MAX as u64);
    if exec.command.is_empty() {
        return Err(Fault::new(FieldProblem::Empty).at("command"));
    }
    Ok(GatewayMessage::Exec {
        task: TaskId(exec.task),
        workload_id: WorkloadId::from_bits(decode_bits(&exec.workload_id, "workload_id")?),
        attempt: Attempt(exec.attempt),
        command: decode_argv(exec.command, "command")?,
        timeout_ms: within(exec.timeout_ms, "timeout_ms", timeout_max)?,
        output_bytes_max: within(exec.output_bytes_max, "output_bytes_max", bytes_max)?,
    })
}

pub(super) fn encode_read_output(
    message: (TaskId, WorkloadId, Attempt),
    path: &str,
    offset: u64,
    bytes_max: u64,
) -> Body {
    let (task, workload_id, attempt) = message;
    Body::ReadOutput(wire::ReadOutput {
        task: task.0,
        workload_id: encode_bits(workload_id.bits()),
        attempt: attempt.0,
        path: path.to_owned(),
        offset,
        bytes_max,
    })
}

pub(super) fn decode_read_output(read: wire::ReadOutput) -> Result<GatewayMessage, Fault> {
    bytes_at_most(read.path.len(), "path", limits::PATH_BYTES_MAX)?;
    Ok(GatewayMessage::ReadOutput {
        task: TaskId(read.task),
        workload_id: WorkloadId::from_bits(decode_bits(&read.workload_id, "workload_id")?),
        attempt: Attempt(read.attempt),
        path: read.path,
        offset: read.offset,
        bytes_max: within(read.bytes_max, "bytes_max", limits::TASK_BYTES_MAX as u64)?,
    })
}

/// Certificates, DER; at least one.
pub(super) fn decode_certificates(certificates: Vec<Vec<u8>>, name: &str) -> Result<Vec<Vec<u8>>, Fault> {
    if certificates.is_empty() {
        return Err(Fault::new(FieldProblem::Empty).at(name));
    }
    at_most(certificates.len(), name, limits::CERTIFICATES_MAX)?;
    for (index, certificate) in certificates.iter().enumerate() {
        bytes_at_most(certificate.len(), &format!("{name}[{index}]"), limits::CERTIFICATE_BYTES_MAX)?;
    }
    Ok(certificates)
}

fn within(value: u64, name: &str, max: u64) -> Result<u64, Fault> {
    if (1..=max).contains(&value) {
        return Ok(value);
    }
    Err(Fault::new(FieldProblem::OutOfRange { value, min: 1, max }).at(name))
}
