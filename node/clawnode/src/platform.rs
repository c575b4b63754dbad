//! What only Linux has, under one name on every system.
//!
//! The agent runs work on Linux. Elsewhere (macOS) it compiles, reports its GPUs
//! and simulates; what needs one of these refuses, so that nothing runs without
//! its supervision.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, Signal};
use rustix::time::ClockId;

/// Whether workloads can run here other than simulated.
pub const RUNS_WORK: bool = cfg!(target_os = "linux");

/// A clock that goes on while the machine sleeps.
#[cfg(target_os = "linux")]
pub(crate) const CLOCK_BOOT: ClockId = ClockId::Boottime;
/// A clock that goes on while the machine sleeps: on macOS the monotonic one does.
#[cfg(not(target_os = "linux"))]
pub(crate) const CLOCK_BOOT: ClockId = ClockId::Monotonic;

pub(crate) use here::{
    adopt_orphans, die_with_parent, event_counter, handle_of, is_in_memory, signal_to, sync_file_system,
};

#[cfg(target_os = "linux")]
mod here {
    use rustix::event::EventfdFlags;
    use rustix::process::PidfdFlags;

    use super::{File, OwnedFd, Path, Pid, Signal, io};

    /// Magic number of a tmpfs (statfs(2)).
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    /// Magic number of a ramfs.
    const RAMFS_MAGIC: i64 = 0x8584_58f6;

    /// Writes everything of the file system that has this file to its disk.
    pub(crate) fn sync_file_system(of: &File) -> io::Result<()> {
        Ok(rustix::fs::syncfs(of)?)
    }

    /// Whether a folder is in memory and on no disk.
    pub(crate) fn is_in_memory(path: &Path) -> io::Result<bool> {
        let kind = rustix::fs::statfs(path)?.f_type;
        Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
    }

    /// A counter of the kernel's events that does not block (eventfd).
    pub(crate) fn event_counter() -> io::Result<OwnedFd> {
        Ok(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)
    }

    /// A handle of a process that becomes readable when it is over (pidfd).
    pub(crate) fn handle_of(pid: Pid) -> io::Result<OwnedFd> {
        Ok(rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?)
    }

    /// Sends a signal to the process of a handle, and to no other.
    pub(crate) fn signal_to(handle: &OwnedFd, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(handle, signal)?)
    }

    /// Orphans below this process become its children.
    pub(crate) fn adopt_orphans() -> io::Result<()> {
        Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
    }

    /// This process is killed when its parent ends. Safe between fork and exec.
    pub(crate) fn die_with_parent() -> io::Result<()> {
        Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
    }
}

#[cfg(not(target_os = "linux"))]
mod here {
    use super::{File, OwnedFd, Path, Pid, Signal, io};

    fn refused() -> io::Error {
        io::ErrorKind::Unsupported.into()
    }

    pub(crate) fn sync_file_system(of: &File) -> io::Result<()> {
        of.sync_all()?;
        rustix::fs::sync();
        Ok(())
    }

    pub(crate) fn is_in_memory(_path: &Path) -> io::Result<bool> {
        Ok(false)
    }

    pub(crate) fn event_counter() -> io::Result<OwnedFd> {
        Err(refused())
    }

    pub(crate) fn handle_of(_pid: Pid) -> io::Result<OwnedFd> {
        Err(refused())
    }

    pub(crate) fn signal_to(_handle: &OwnedFd, _signal: Signal) -> io::Result<()> {
        Err(refused())
    }

    pub(crate) fn adopt_orphans() -> io::Result<()> {
        Err(refused())
    }

    pub(crate) fn die_with_parent() -> io::Result<()> {
        Err(refused())
    }
}
