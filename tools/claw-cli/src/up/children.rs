//! Programs that `claw up` started: their first words, their end, and how they are stopped.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use crate::error::CliError;

/// How long a program may take until it says that it is ready.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a program may take to end after TERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Lines of a log that are shown when its program ended by itself.
const TAIL_LINES: usize = 5;

/// One running program.
#[derive(Debug)]
pub(super) struct Child {
    name: &'static str,
    process: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
    /// Where this run's part of the log begins.
    log_begin: usize,
}

impl Child {
    /// Starts a program in a process group of its own (Ctrl-C is for us to pass on, in order),
    /// its standard error going to a file.
    pub(super) fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Self, CliError> {
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(log);
        let file = file.map_err(|error| CliError::file(log, error))?;
        let log_begin = file.metadata().map_or(0, |meta| usize::try_from(meta.len()).unwrap_or(0));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).process_group(0).kill_on_drop(true);
        let mut process = command.spawn().map_err(|error| not_started(name, &error))?;
        let stdout = process.stdout.take().ok_or_else(|| CliError::Child {
            name,
            why: "was started without standard output".to_owned(),
            log: Vec::new(),
        })?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { name, process, lines, log: log.to_owned(), log_begin })
    }

    /// Waits for the line by which it says that it is ready.
    pub(super) async fn line_that_begins(&mut self, with: &str) -> Result<String, CliError> {
        let wanted = async {
            while let Some(line) = self.lines.next_line().await? {
                if line.starts_with(with) {
                    return Ok(Some(line));
                }
            }
            Ok(None)
        };
        match timeout(READY_TIMEOUT, wanted).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => Err(self.ended().await),
            Ok(Err(error)) => Err(CliError::Io(error)),
            Err(_) => Err(self.failed(&format!("was not ready after {} s", READY_TIMEOUT.as_secs()))),
        }
    }

    /// Waits for its end, which is an error: nobody asked for it. Reads what it still says, so
    /// that it never waits for a reader.
    pub(super) async fn ended(&mut self) -> CliError {
        while let Ok(Some(line)) = self.lines.next_line().await {
            tracing::debug!(program = self.name, line, "a line on standard output");
        }
        match self.process.wait().await {
            Ok(status) => self.failed(&format!("ended by itself ({status})")),
            Err(error) => CliError::Io(error),
        }
    }

    /// Asks it to end, and ends it if it does not.
    pub(super) async fn stop(&mut self) -> Result<(), CliError> {
        if self.process.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            tracing::warn!(program = self.name, %error, "TERM could not be sent");
        }
        if let Ok(status) = timeout(STOP_TIMEOUT, self.process.wait()).await {
            return self.stopped(status?);
        }
        self.process.kill().await?;
        Err(self.failed(&format!("did not end within {} s and was killed", STOP_TIMEOUT.as_secs())))
    }

    fn stopped(&self, status: ExitStatus) -> Result<(), CliError> {
        if status.success() {
            return Ok(());
        }
        Err(self.failed(&format!("did not end cleanly ({status})")))
    }

    /// An error with the last lines of the program's log.
    fn failed(&self, why: &str) -> CliError {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let own = String::from_utf8_lossy(bytes.get(self.log_begin..).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = own.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        CliError::Child {
            name: self.name,
            why: format!("{why}; its log is {}", self.log.display()),
            log: tail.iter().map(|line| (*line).to_owned()).collect(),
        }
    }
}

/// Runs a program that ends by itself, well or with one of the exit codes in `also`; any other
/// end is an error with the program's own words.
pub(super) async fn run_to_end(name: &'static str, command: &mut Command, also: &[i32]) -> Result<i32, CliError> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| not_started(name, &error))?;
    match output.status.code() {
        Some(code) if code == 0 || also.contains(&code) => Ok(code),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let log = said.lines().map(str::to_owned).collect();
            Err(CliError::Child { name, why: format!("failed ({})", output.status), log })
        }
    }
}

fn not_started(name: &'static str, error: &std::io::Error) -> CliError {
    CliError::Child { name, why: format!("cannot be started: {error}"), log: Vec::new() }
}
