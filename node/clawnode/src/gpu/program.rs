//! Runs a vendor's program for what it prints, and is never held up by it.
//!
//! The program gets a process group of its own. What has not ended at the
//! deadline, or prints too much, is killed with its whole group and reaped. A
//! program that the kernel does not let die is kept, and reaped later; until
//! then no other is started.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use tracing::warn;

/// Of what it says on standard error, bytes.
const COMPLAINT_BYTES_MAX: usize = 4 * 1024;
/// Of a complaint in an error, characters.
const COMPLAINT_CHARS_MAX: usize = 200;
/// Between two looks at a program that has closed its output and not ended, milliseconds.
const LOOK_MS: u64 = 5;
/// For the end of a program that was killed, milliseconds.
const REAP_MS: u64 = 2_000;

/// What a program may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From its start to its end, milliseconds.
    pub deadline_ms: u64,
    /// On standard output, bytes.
    pub bytes_max: usize,
}

/// What a program that ended has said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// Standard output; what is no UTF-8 is replaced.
    pub output: String,
    /// The beginning of standard error, in one line.
    pub complaint: String,
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
}

/// Why a program said nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be started.
    #[error("it cannot be started: {0}")]
    Start(#[source] io::Error),
    /// It did not end in time, and was killed.
    #[error("it did not end within {deadline_ms} ms and was killed")]
    Hung {
        /// How long it was waited for.
        deadline_ms: u64,
    },
    /// It printed too much, and was killed.
    #[error("it printed more than {bytes_max} bytes and was killed")]
    TooMuch {
        /// How much is read.
        bytes_max: usize,
    },
    /// One that was killed before has not died.
    #[error("one that was killed before does not die (it waits in the kernel)")]
    Undead,
    /// Its output cannot be read.
    #[error("its output cannot be read: {0}")]
    Read(#[source] io::Error),
}

/// Runs programs one after the other.
#[derive(Debug, Default)]
pub struct Runner {
    undead: Option<Child>,
}

impl Runner {
    /// Runs a program to its end.
    ///
    /// # Errors
    /// [`ProgramError`]; an exit code is no error here.
    pub fn run(&mut self, program: &Path, arguments: &[&str], limits: Limits) -> Result<Said, ProgramError> {
        if let Some(child) = &mut self.undead {
            if !matches!(child.try_wait(), Ok(Some(_))) {
                return Err(ProgramError::Undead);
            }
            self.undead = None;
        }
        let until = Instant::now() + Duration::from_millis(limits.deadline_ms);
        let mut command = Command::new(program);
        command.args(arguments).env("LC_ALL", "C").current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(ProgramError::Start)?;
        let said = listen(&mut child, limits, until).and_then(|said| end_of(&mut child, limits, until, said));
        if said.is_err() {
            self.kill(child);
        }
        said
    }

    /// Kills a program that was not waited for yet, so its group still is its own.
    fn kill(&mut self, mut child: Child) {
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(error) = group.and_then(|group| kill_process_group(group, Signal::KILL).err()) {
            warn!(%error, pid = child.id(), "a program that hangs cannot be killed");
        }
        if !ended(&mut child, Instant::now() + Duration::from_millis(REAP_MS)) {
            self.undead = Some(child);
        }
    }
}

/// Whether it ends until then.
fn ended(child: &mut Child, until: Instant) -> bool {
    loop {
        // An error says that there is nothing to wait for.
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(LOOK_MS));
    }
}

fn end_of(child: &mut Child, limits: Limits, until: Instant, said: Said) -> Result<Said, ProgramError> {
    if !ended(child, until) {
        return Err(ProgramError::Hung { deadline_ms: limits.deadline_ms });
    }
    let code = child.try_wait().ok().flatten().and_then(|status| status.code());
    Ok(Said { code, ..said })
}

/// One stream of a program, until it ends.
struct Stream {
    file: Option<File>,
    bytes: Vec<u8>,
}

impl Stream {
    fn new(fd: Option<OwnedFd>) -> Self {
        Self { file: fd.map(File::from), bytes: Vec::new() }
    }

    /// Takes what is there, and does not wait for more.
    fn take(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut buffer = [0; 16 * 1024];
        match file.read(&mut buffer) {
            Ok(0) => self.file = None,
            Ok(n) => self.bytes.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Reads until both streams have ended.
fn listen(child: &mut Child, limits: Limits, until: Instant) -> Result<Said, ProgramError> {
    let stdout = Stream::new(child.stdout.take().map(OwnedFd::from));
    let stderr = Stream::new(child.stderr.take().map(OwnedFd::from));
    let mut streams = [stdout, stderr];
    while streams.iter().any(|stream| stream.file.is_some()) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ProgramError::Hung { deadline_ms: limits.deadline_ms });
        }
        for n in ready(&streams, left).map_err(ProgramError::Read)? {
            streams[n].take().map_err(ProgramError::Read)?;
        }
        if streams[0].bytes.len() > limits.bytes_max {
            return Err(ProgramError::TooMuch { bytes_max: limits.bytes_max });
        }
        streams[1].bytes.truncate(COMPLAINT_BYTES_MAX);
    }
    let [stdout, stderr] = streams;
    Ok(Said {
        output: String::from_utf8_lossy(&stdout.bytes).into_owned(),
        complaint: one_line(&String::from_utf8_lossy(&stderr.bytes)),
        code: None,
    })
}

/// Which streams have something to read, or have ended.
fn ready(streams: &[Stream; 2], wait: Duration) -> io::Result<Vec<usize>> {
    let open = |n: &usize| streams[*n].file.is_some();
    let numbers: Vec<usize> = (0..streams.len()).filter(open).collect();
    let files = numbers.iter().filter_map(|n| streams[*n].file.as_ref());
    let mut polled: Vec<PollFd<'_>> = files.map(|file| PollFd::new(file, PollFlags::IN)).collect();
    let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(numbers.into_iter().zip(&polled).filter(|(_, fd)| !fd.revents().is_empty()).map(|(n, _)| n).collect())
}

/// Words of a program for a finding: one line, short, without control characters.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(COMPLAINT_CHARS_MAX).collect()
}

/// The first of these folders that has a program of this name.
pub fn find<'a>(folders: impl IntoIterator<Item = &'a Path>, name: &str) -> Option<PathBuf> {
    let candidates = folders.into_iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    candidates.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests;
