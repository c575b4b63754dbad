//! Whether the kernel killed a container's member for want of memory.
//!
//! Docker tells it by a flag of its own; Podman on control groups version 1
//! does not, and its group is gone as soon as the container is. So the group is
//! watched while it lives: by an event counter on version 1 (its removal counts
//! too, so two events mean one kill), by reading again on version 2.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::platform;
use crate::runtime::dmem;

/// Records of the kernel's log that are looked through at most.
const KERNEL_RECORDS_MAX: usize = 100_000;
/// Reading ends where the log does.
const O_NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// How often, and in which distance (milliseconds), the removal of a group is waited for.
const REMOVAL_LOOKS: u32 = 10;
const REMOVAL_LOOK_MS: u64 = 20;

/// Folder of the memory controller's group of a process, and its version.
fn memory_group(root: &Path, membership: &str) -> Option<(PathBuf, bool)> {
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|name| name == "memory") {
            return Some((root.join("memory").join(path), false));
        }
        if id == "0" && controllers.is_empty() && root.join("cgroup.controllers").exists() {
            return Some((root.join(path), true));
        }
    }
    None
}

/// The same, of a process of this host.
pub(super) fn group_of(pid: i32) -> io::Result<(PathBuf, bool)> {
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let group = memory_group(Path::new(dmem::CGROUP_ROOT), &membership);
    group.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The number behind `oom_kill` in `memory.oom_control` or `memory.events`.
fn kills_in(text: &str) -> u64 {
    let counts = text.lines().filter_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok());
    counts.sum()
}

/// Whether the kernel's log tells of a kill for want of memory in container `id`.
pub(super) fn kernel_log_names(id: &str) -> bool {
    let options = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg");
    let Ok(mut log) = options else { return false };
    let mut record = [0; 8192];
    for _ in 0..KERNEL_RECORDS_MAX {
        match log.read(&mut record) {
            // One record at a time.
            Ok(n_read) if n_read > 0 => {
                let text = String::from_utf8_lossy(&record[..n_read]);
                if !id.is_empty() && text.contains("oom-kill:") && text.contains(id) {
                    return true;
                }
            }
            // Overwritten meanwhile: the next one is there.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Ok(_) | Err(_) => return false,
        }
    }
    false
}

/// Watches one container's group.
#[derive(Debug)]
pub(super) struct OomWatch {
    /// `memory.oom_control` or `memory.events`, open.
    counter: File,
    group: PathBuf,
    /// Counts events of a version 1 group.
    events: Option<OwnedFd>,
    n_events: u64,
    n_kills: u64,
}

impl OomWatch {
    /// Watches the group of process `pid`.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        let (group, is_v2) = group_of(pid)?;
        if is_v2 {
            let counter = File::open(group.join("memory.events"))?;
            return Ok(Self { counter, group, events: None, n_events: 0, n_kills: 0 });
        }
        let counter = File::open(group.join("memory.oom_control"))?;
        let events = platform::event_counter()?;
        let order = format!("{} {}", events.as_raw_fd(), counter.as_raw_fd());
        OpenOptions::new().write(true).open(group.join("cgroup.event_control"))?.write_all(order.as_bytes())?;
        Ok(Self { counter, group, events: Some(events), n_events: 0, n_kills: 0 })
    }

    /// Looks again; cheap.
    pub(super) fn look(&mut self) {
        let mut text = [0; 4096];
        // A group that is gone cannot be read any more; what was read stays.
        if let Ok(n_read) = self.counter.read_at(&mut text, 0) {
            self.n_kills = self.n_kills.max(kills_in(&String::from_utf8_lossy(&text[..n_read])));
        }
        let mut count = [0; 8];
        if let Some(events) = &self.events
            && rustix::io::read(events, &mut count) == Ok(8)
        {
            self.n_events += u64::from_ne_bytes(count);
            // While the group is there its removal cannot have been the event.
            if self.group.exists() {
                self.n_kills = self.n_kills.max(1);
            }
        }
    }

    /// Whether a member was killed; asked after the container is over.
    pub(super) async fn was_killed(&mut self) -> bool {
        for _ in 0..REMOVAL_LOOKS {
            self.look();
            if self.n_kills > 0 || self.n_events > 1 || self.events.is_none() {
                break;
            }
            // The removal of the group is told a moment after it.
            tokio::time::sleep(Duration::from_millis(REMOVAL_LOOK_MS)).await;
        }
        self.n_kills > 0 || self.n_events > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let v1 = "12:pids:/docker/abc\n5:memory:/docker/abc\n0::/docker/abc\n";
        assert_eq!(memory_group(root.path(), v1), Some((root.path().join("memory/docker/abc"), false)));
        let v2 = "0::/machine.slice/libpod-abc.scope\n";
        assert_eq!(memory_group(root.path(), v2), None, "no unified hierarchy here");
        fs::write(root.path().join("cgroup.controllers"), "memory").unwrap();
        let expected = (root.path().join("machine.slice/libpod-abc.scope"), true);
        assert_eq!(memory_group(root.path(), v2), Some(expected));
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills_in("low 0\noom 1\noom_kill 1\noom_group_kill 0\n"), 1);
    }
}
