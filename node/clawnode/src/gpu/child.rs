//! A program that answers on its standard output, or does not.
//!
//! It runs in a process group of its own, with no environment but what it is given. It
//! is asked for its answer again and again and never waited for longer than asked; past
//! its deadline, or with too much output, the whole group is killed. It leaves no zombie.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Longest that is read of what it says on standard error, bytes.
const WORDS_BYTES_MAX: usize = 4 * 1024;
/// Most reads of one pipe in a row: together more than a pipe holds.
const READS_MAX: usize = 256;
/// How often its end is looked for; its output wakes at once.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long a killed program may take to end before it is left behind.
const KILL_WAIT: Duration = Duration::from_secs(1);

/// What a program that ended leaves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) output: Vec<u8>,
    /// The beginning of what it said on standard error.
    pub(super) words: String,
}

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// It did not end in time and was killed.
    #[error("it did not end within {timeout_ms} ms and was killed")]
    Late {
        /// How long it had.
        timeout_ms: u64,
    },
    /// It wrote too much and was killed.
    #[error("it wrote more than {max} bytes and was killed")]
    Loud {
        /// How much it may write.
        max: usize,
    },
    /// It cannot be read from or waited for.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A program that runs.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    output: Vec<u8>,
    words: Vec<u8>,
    output_bytes_max: usize,
    started_at: Instant,
    timeout_ms: u64,
    reaped: bool,
}

impl Running {
    /// Starts a program.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(OsString, OsString)],
        timeout_ms: u64,
        output_bytes_max: usize,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment.iter().cloned()).current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let running = Self {
            child,
            stdout,
            stderr,
            output: Vec::new(),
            words: Vec::new(),
            output_bytes_max,
            started_at: Instant::now(),
            timeout_ms,
            reaped: false,
        };
        let pipes = [running.stdout.as_ref().map(AsFd::as_fd), running.stderr.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(running)
    }

    /// Waits for its end, at most so long; nothing if it still runs then.
    ///
    /// # Errors
    /// [`RunError`]; the program is killed then.
    pub(super) fn answer(&mut self, wait: Duration) -> Result<Option<Ended>, RunError> {
        let (from, timeout) = (Instant::now(), Duration::from_millis(self.timeout_ms));
        loop {
            let over = self.is_over()?;
            self.read()?;
            if self.output.len() > self.output_bytes_max {
                self.kill();
                return Err(RunError::Loud { max: self.output_bytes_max });
            }
            if over {
                return self.end().map(Some).map_err(RunError::Io);
            }
            let left = timeout.saturating_sub(self.started_at.elapsed());
            if left.is_zero() {
                self.kill();
                return Err(RunError::Late { timeout_ms: self.timeout_ms });
            }
            let wait = wait.saturating_sub(from.elapsed());
            if wait.is_zero() {
                return Ok(None);
            }
            self.wait_for_output(wait.min(left).min(LOOK_AGAIN))?;
        }
    }

    /// Whether it has ended. It is not reaped: its number stays its own, so that its
    /// group can still be killed without hitting another's.
    fn is_over(&self) -> io::Result<bool> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(rustix::process::waitid(WaitId::Pid(Pid::from_child(&self.child)), look)?.is_some())
    }

    fn wait_for_output(&self, wait: Duration) -> io::Result<()> {
        let pipes = [self.stdout.as_ref().map(AsFd::as_fd), self.stderr.as_ref().map(AsFd::as_fd)];
        let mut pipes: Vec<PollFd<'_>> =
            pipes.iter().flatten().map(|pipe| PollFd::from_borrowed_fd(*pipe, PollFlags::IN)).collect();
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        match rustix::event::poll(&mut pipes, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&mut self) -> io::Result<()> {
        drain(&mut self.stdout, &mut self.output, self.output_bytes_max.saturating_add(1))?;
        drain(&mut self.stderr, &mut self.words, WORDS_BYTES_MAX)
    }

    /// Takes leave of a program that is over, and of what it left behind in its group.
    fn end(&mut self) -> io::Result<Ended> {
        self.kill_group();
        let status = self.child.wait()?;
        self.reaped = true;
        let words = String::from_utf8_lossy(&self.words).trim().to_owned();
        Ok(Ended { status, output: std::mem::take(&mut self.output), words })
    }

    fn kill_group(&self) {
        // It fails only if nobody is left.
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }

    fn kill(&mut self) {
        self.kill_group();
        let from = Instant::now();
        while !self.reap() && from.elapsed() < KILL_WAIT {
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Whether it is gone. A program that hangs in the kernel outlives being killed.
    pub(super) fn reap(&mut self) -> bool {
        self.reaped = self.reaped || matches!(self.child.try_wait(), Ok(Some(_)) | Err(_));
        self.reaped
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
        }
    }
}

/// Reads what is there and keeps the beginning. What is over the limit is dropped, but
/// read: a full pipe would block the program.
fn drain(pipe: &mut Option<impl Read>, into: &mut Vec<u8>, max: usize) -> io::Result<()> {
    let mut buffer = [0; 8 * 1024];
    for _ in 0..READS_MAX {
        let Some(open) = pipe else { break };
        match open.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(n) => {
                let room = max.saturating_sub(into.len());
                into.extend_from_slice(&buffer[..n.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How a program ended that did not end by itself: the name of the signal.
pub(super) fn signal_of(status: ExitStatus) -> Option<String> {
    let number = status.signal()?;
    let named = [
        (Signal::ABORT, "SIGABRT"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::BUS, "SIGBUS"),
        (Signal::ILL, "SIGILL"),
        (Signal::FPE, "SIGFPE"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::SYS, "SIGSYS"),
        (Signal::KILL, "SIGKILL"),
        (Signal::TERM, "SIGTERM"),
    ];
    let name = named.iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| (*name).to_owned());
    Some(name.unwrap_or_else(|| format!("signal {number}")))
}
