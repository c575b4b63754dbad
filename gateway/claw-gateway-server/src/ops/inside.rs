//! Inside a workload: what a command wrote, and declared outputs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claw_gateway::Cluster;
use claw_gateway::workload::WorkloadEntry;
use claw_proto::ids::OperationId;
use claw_proto::message::{OutputContent, TaskErrorCode};
use claw_tools::inside::{CopyEncoding, CopyEntry, ExecView, WorkloadCopy, WorkloadCopyParams};
use claw_tools::outcome::clip;
use claw_tools::refusal::{ErrorCode, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{OpError, OpsContext};
use crate::control::ControlPlane;
use crate::node_link::TaskFailure;

/// Bytes of a file unless asked otherwise.
const COPY_BYTES: u32 = 8_000;
/// Characters of each stream of a command in an answer.
const STREAM_CHARS_MAX: usize = 8_000;
/// Entries of a folder in an answer.
const ENTRIES_MAX: usize = 200;
/// Characters of a name or a fault.
const NAME_CHARS_MAX: usize = 255;

/// Said in the place of bytes that are no text.
const NOT_TEXT: &str = "this is not text; ask with encoding base64, or save it: claw workload copy --to FILE";

/// What a command wrote, as it is kept beside the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExecOutput {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    stdout: String,
    stderr: String,
}

impl ExecOutput {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let stored = Stored { stdout: STANDARD.encode(&self.stdout), stderr: STANDARD.encode(&self.stderr) };
        serde_json::to_vec(&stored).expect("two strings are always JSON")
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(bytes).ok()?;
        Some(Self { stdout: STANDARD.decode(stored.stdout).ok()?, stderr: STANDARD.decode(stored.stderr).ok()? })
    }
}

/// Adds to the view of a command what it wrote.
pub(super) async fn fill(
    control: &ControlPlane,
    cluster: &Cluster,
    operation_id: OperationId,
    view: &mut Option<ExecView>,
) -> Result<(), OpError> {
    let Some(view) = view else { return Ok(()) };
    let Some(handle) = cluster.execs.get(&operation_id).and_then(|exec| exec.output.clone()) else { return Ok(()) };
    let Some(output) = control.blob(&handle).await?.as_deref().and_then(ExecOutput::from_bytes) else {
        return Ok(());
    };
    let (stdout, stdout_cut) = shown(&output.stdout);
    let (stderr, stderr_cut) = shown(&output.stderr);
    view.truncated |= stdout_cut || stderr_cut;
    (view.stdout, view.stderr) = (Some(stdout), Some(stderr));
    Ok(())
}

/// Text with its lines and without other control characters, and whether the end was left out.
fn shown(bytes: &[u8]) -> (String, bool) {
    let text = String::from_utf8_lossy(bytes);
    let kept: String = text.chars().take(STREAM_CHARS_MAX).collect();
    (plain(&kept), kept.len() < text.len())
}

/// Control characters neutralized, but for the ends of lines.
fn plain(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\t', "    ");
    let lines: Vec<String> = text.split('\n').map(|line| clip(line, usize::MAX)).collect();
    lines.join("\n")
}

/// Reads a piece of a declared output, from the node that has it.
pub(super) async fn copy(ops: &OpsContext, p: &WorkloadCopyParams) -> Result<WorkloadCopy, OpError> {
    let cluster = ops.control.snapshot();
    let workload = cluster.resolve_workload(&p.workload)?.clone();
    let attempt = p.attempt.unwrap_or_else(|| workload.main_attempt());
    let mut answer = WorkloadCopy {
        workload_id: workload.workload_id,
        attempt,
        path: p.path.clone().unwrap_or_default(),
        untrusted: true,
        declared: Vec::new(),
        entries: None,
        text: None,
        base64: None,
        offset: None,
        n_bytes: None,
        total_bytes: None,
        next_offset: None,
        sha256: None,
        truncated: false,
        note: None,
        simulated: workload.simulated(),
    };
    let Some(path) = &p.path else {
        answer.declared.clone_from(&workload.spec.spec().outputs);
        if answer.declared.is_empty() {
            answer.note = Some("it declares no outputs; name them in spec.outputs when it is run".into());
        }
        return Ok(answer);
    };
    let tried = workload.attempts.iter().find(|tried| tried.attempt == attempt);
    let tried = tried.ok_or_else(|| no_attempt(&workload, attempt.0))?;
    let key = (workload.workload_id, attempt);
    let bytes_max = p.bytes_max.unwrap_or(COPY_BYTES);
    let read = ops.links.read_output(tried.node_id, key, path.clone(), p.offset.unwrap_or(0), bytes_max);
    let content = tokio::select! {
        content = read => content.map_err(|failure| refused(&workload, path, &failure))?,
        () = ops.control.stopping().cancelled() => {
            return Err(Refusal::new(ErrorCode::ShuttingDown, "the gateway is stopping").into());
        }
    };
    tell(&mut answer, content, p.encoding.unwrap_or(CopyEncoding::Text));
    Ok(answer)
}

fn no_attempt(workload: &WorkloadEntry, attempt: u32) -> Refusal {
    let known = workload.attempts.iter().map(|tried| tried.attempt.0.to_string());
    Refusal::new(ErrorCode::NotFound, format!("{} has no attempt {attempt}", workload.name))
        .with_field("attempt", attempt.to_string())
        .with_allowed(known)
        .with_next("workload_get", json!({ "workload": workload.workload_id }))
}

fn refused(workload: &WorkloadEntry, path: &str, failure: &TaskFailure) -> Refusal {
    let message = clip(&failure.to_string(), NAME_CHARS_MAX);
    let declared = workload.spec.spec().outputs.clone();
    let node = |code: ErrorCode| Refusal::new(code, message.clone()).with_field("path", path);
    match failure {
        TaskFailure::Node { code: TaskErrorCode::NotFound | TaskErrorCode::Refused, .. } => {
            node(ErrorCode::NotFound).with_allowed(declared)
        }
        TaskFailure::Node { code: TaskErrorCode::NotRunning, .. } => {
            let next = json!({ "workload": workload.workload_id });
            node(ErrorCode::InvalidState).retryable().with_next("workload_wait", next)
        }
        TaskFailure::Node { code: TaskErrorCode::TooLarge, .. } => node(ErrorCode::TooLarge),
        TaskFailure::Busy => Refusal::new(ErrorCode::RateLimited, message),
        TaskFailure::NotConnected | TaskFailure::LinkLost | TaskFailure::Timeout => {
            node(ErrorCode::InvalidState).retryable()
        }
        TaskFailure::TooOld(_) | TaskFailure::Node { .. } => node(ErrorCode::InvalidState),
    }
}

fn tell(answer: &mut WorkloadCopy, content: OutputContent, encoding: CopyEncoding) {
    match content {
        OutputContent::Folder { entries, truncated } => {
            answer.truncated = truncated || entries.len() > ENTRIES_MAX;
            let entry = |e: &claw_proto::message::OutputEntry| CopyEntry {
                name: clip(&e.name, NAME_CHARS_MAX),
                bytes: e.bytes,
                is_folder: e.is_folder,
            };
            answer.entries = Some(entries.iter().take(ENTRIES_MAX).map(entry).collect());
        }
        OutputContent::File { bytes, offset, total_bytes, sha256 } => {
            let bytes =
                if encoding == CopyEncoding::Text { whole_characters(bytes, offset, total_bytes) } else { bytes };
            let n_bytes = bytes.len() as u64;
            let next = offset.saturating_add(n_bytes);
            let is_last = next >= total_bytes;
            (answer.offset, answer.n_bytes, answer.total_bytes) = (Some(offset), Some(n_bytes), Some(total_bytes));
            answer.sha256 = sha256.filter(|_| is_last);
            answer.truncated = !is_last;
            answer.next_offset = (!is_last && n_bytes > 0).then_some(next);
            match encoding {
                CopyEncoding::Base64 => answer.base64 = Some(STANDARD.encode(&bytes)),
                CopyEncoding::Text => {
                    if let Ok(text) = String::from_utf8(bytes) {
                        answer.text = Some(plain(&text));
                    } else {
                        (answer.n_bytes, answer.next_offset) = (None, None);
                        answer.note = Some(NOT_TEXT.into());
                    }
                }
            }
        }
    }
}

/// Leaves a character that is cut at the end to the next piece.
fn whole_characters(mut bytes: Vec<u8>, offset: u64, total_bytes: u64) -> Vec<u8> {
    let is_last = offset.saturating_add(bytes.len() as u64) >= total_bytes;
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
        && error.valid_up_to() > 0
        && !is_last
    {
        bytes.truncate(error.valid_up_to());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_wrote_comes_back_and_is_shown_as_plain_text() {
        let output = ExecOutput { stdout: b"a\x1b[31mb\n\tc\xff".to_vec(), stderr: Vec::new() };
        assert_eq!(ExecOutput::from_bytes(&output.to_bytes()), Some(output.clone()));
        assert_eq!(shown(&output.stdout), ("a\u{fffd}[31mb\n    c\u{fffd}".to_owned(), false));
        assert!(shown(&vec![b'x'; STREAM_CHARS_MAX + 1]).1);
    }

    #[test]
    fn a_character_that_is_cut_belongs_to_the_next_piece() {
        let text = "aé".as_bytes();
        assert_eq!(whole_characters(text[..2].to_vec(), 0, 3), b"a");
        assert_eq!(whole_characters(text.to_vec(), 0, 3), text);
        assert_eq!(whole_characters(vec![0xff, 0xfe], 0, 9), [0xff, 0xfe], "that is no text at all");
    }
}
