//! A child process that says when it is ready, and can be killed as a crash would.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long a program may take until it says that it is ready.
pub const READY_DEADLINE: Duration = Duration::from_mins(1);

/// The folder that holds the programs of this build.
pub fn bin_dir() -> Result<PathBuf> {
    let mut dir = std::env::current_exe()?;
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    Ok(dir)
}

/// A program of this build.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = bin_dir()?.join(name);
    if !path.is_file() {
        bail!(
            "{} is not built; run `cargo build --workspace --bins` (`./dev test` and `./dev demo` do)",
            path.display()
        );
    }
    Ok(path)
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// What it said when it was ready; nothing if nobody waited for that.
    pub ready_line: String,
    /// Where its other words go.
    pub log: PathBuf,
}

impl Running {
    /// Starts a program and does not wait until it is ready.
    pub fn start_unheard(mut command: Command, log: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(file)).kill_on_drop(true);
        let child = command.spawn().context("could not start the program")?;
        Ok(Self { child, ready_line: String::new(), log: log.to_path_buf() })
    }

    /// Starts a program and waits for the line that begins with `ready`.
    pub async fn start(mut command: Command, ready: &str, log: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(file)).kill_on_drop(true);
        let mut child = command.spawn().context("could not start the program")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let wait = async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with(ready) {
                    return Ok(line);
                }
            }
            bail!("it ended before it was ready")
        };
        let ready_line = match tokio::time::timeout(READY_DEADLINE, wait).await {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Err(error.context(tail_of(log))),
            Err(_) => bail!("not ready after {} s\n{}", READY_DEADLINE.as_secs(), tail_of(log)),
        };
        // Whoever writes to a pipe that nobody reads stops at some time.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, ready_line, log: log.to_path_buf() })
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// It has not ended.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill9(mut self) -> Result<()> {
        self.child.kill().await.context("kill -9")
    }

    /// SIGTERM, and waits for its end.
    pub async fn terminate(mut self) -> Result<std::process::ExitStatus> {
        if let Some(pid) =
            self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let ended = tokio::time::timeout(READY_DEADLINE, self.child.wait()).await;
        ended.context("it did not end after SIGTERM")?.context("wait")
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, deadline: Duration) -> Result<std::process::ExitStatus> {
        tokio::time::timeout(deadline, self.child.wait()).await.context("it did not end")?.context("wait")
    }
}

/// The last lines of a program's log, for a failure message.
pub fn tail_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
