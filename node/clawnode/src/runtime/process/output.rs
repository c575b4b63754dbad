//! What a program writes, line by line into its log.

use std::io;
use std::path::Path;

use claw_proto::message::LogStream;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::runtime::line_log::LineLog;

/// Bytes taken from a pipe at once.
const READ_BYTES: usize = 64 * 1024;

/// All streams of a program, and the supervisor's own notes.
#[derive(Debug)]
pub(super) struct Output {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    stdout_buffer: Vec<u8>,
    stderr_buffer: Vec<u8>,
    stdout_log: LineLog,
    stderr_log: LineLog,
    system_log: LineLog,
}

impl Output {
    pub(super) fn of(child: &mut Child, logs: &Path, bytes_max: u64) -> io::Result<Self> {
        Ok(Self {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            stdout_buffer: Vec::with_capacity(READ_BYTES),
            stderr_buffer: Vec::with_capacity(READ_BYTES),
            stdout_log: LineLog::open(logs, LogStream::Stdout, bytes_max)?,
            stderr_log: LineLog::open(logs, LogStream::Stderr, bytes_max)?,
            system_log: LineLog::open(logs, LogStream::System, bytes_max)?,
        })
    }

    /// Adds a note of the supervisor.
    pub(super) fn note(&mut self, text: &str) {
        self.system_log.note(text);
    }

    /// Takes the next bytes of either stream; never returns once both are at
    /// their end. Dropping the future loses nothing.
    pub(super) async fn pump(&mut self) {
        let Self { stdout, stderr, stdout_buffer, stderr_buffer, .. } = self;
        tokio::select! {
            n_read = read(stdout, stdout_buffer), if stdout.is_some() => {
                if n_read == 0 {
                    self.stdout = None;
                }
                self.stdout_log.take(&self.stdout_buffer);
                self.stdout_buffer.clear();
            }
            n_read = read(stderr, stderr_buffer), if stderr.is_some() => {
                if n_read == 0 {
                    self.stderr = None;
                }
                self.stderr_log.take(&self.stderr_buffer);
                self.stderr_buffer.clear();
            }
            else => std::future::pending().await,
        }
    }

    /// Takes everything until both streams are at their end.
    pub(super) async fn drain(&mut self) {
        while self.stdout.is_some() || self.stderr.is_some() {
            self.pump().await;
        }
    }

    /// Writes lines that have no end.
    pub(super) fn finish(&mut self) {
        self.stdout_log.finish();
        self.stderr_log.finish();
        self.system_log.finish();
    }
}

async fn read<R: tokio::io::AsyncRead + Unpin>(pipe: &mut Option<R>, buffer: &mut Vec<u8>) -> usize {
    match pipe {
        Some(pipe) => match pipe.read_buf(buffer).await {
            Ok(n_read) => n_read,
            Err(error) => {
                tracing::warn!(%error, "a pipe could not be read");
                0
            }
        },
        None => 0,
    }
}
