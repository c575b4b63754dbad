//! Runs a vendor's program to its end for what it prints, and is never held up by
//! it: a [`child`](super::child) with a deadline. A program that the kernel does not
//! let die is kept, and reaped later; until then no other is started.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::child::{Ended, RunError, Running};

/// Of a complaint in an error, characters.
const COMPLAINT_CHARS_MAX: usize = 200;

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
    undead: Option<Running>,
}

impl Runner {
    /// Runs a program to its end.
    ///
    /// # Errors
    /// [`ProgramError`]; an exit code is no error here.
    pub fn run(&mut self, program: &Path, arguments: &[&str], limits: Limits) -> Result<Said, ProgramError> {
        if self.undead.as_mut().is_some_and(|running| !running.reap()) {
            return Err(ProgramError::Undead);
        }
        self.undead = None;
        let Limits { deadline_ms, bytes_max } = limits;
        // What these programs print is read, so it is asked for in one language.
        let plain = [(OsString::from("LC_ALL"), OsString::from("C"))];
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().chain(plain).collect();
        let started = Running::start(program, arguments, &environment, deadline_ms, bytes_max);
        let mut running = started.map_err(ProgramError::Start)?;
        // Longer than its own deadline, which is what ends the wait.
        let wait = Duration::from_millis(deadline_ms.saturating_mul(2));
        let answer = running.answer(wait);
        if !running.reap() {
            self.undead = Some(running);
        }
        match answer {
            Ok(Some(ended)) => Ok(said(&ended)),
            Ok(None) | Err(RunError::Late { .. }) => Err(ProgramError::Hung { deadline_ms }),
            Err(RunError::Loud { max }) => Err(ProgramError::TooMuch { bytes_max: max }),
            Err(RunError::Io(error)) => Err(ProgramError::Read(error)),
        }
    }
}

fn said(ended: &Ended) -> Said {
    Said {
        output: String::from_utf8_lossy(&ended.output).into_owned(),
        complaint: one_line(&ended.words),
        code: ended.status.code(),
    }
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
