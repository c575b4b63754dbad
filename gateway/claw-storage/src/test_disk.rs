//! A real file system that is nearly full, for tests of a full disk.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// An empty folder, in memory where there is such a place: the tests of this
/// crate sync thousands of times, and none of them cuts the power.
pub(crate) fn scratch() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap_or_else(|_| TempDir::new().unwrap())
}

/// A mounted tmpfs, unmounted when dropped.
#[derive(Debug)]
pub(crate) struct TinyDisk {
    dir: TempDir,
}

impl TinyDisk {
    /// Mounts 1 MiB; `None`, loudly, where this process may not mount.
    pub(crate) fn mount(what: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"]).arg(dir.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { dir }),
            other => {
                println!("SKIPPED: full disk under {what}: no permission to mount a tmpfs: {other:?}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file that leaves about `free_bytes` free, and returns its path.
    pub(crate) fn fill_leaving(&self, free_bytes: u64) -> PathBuf {
        let path = self.path().join("filler");
        let mut filler = File::create(&path).unwrap();
        let free_now = crate::durable::free_bytes(self.path()).unwrap();
        let n = usize::try_from(free_now.saturating_sub(free_bytes)).unwrap();
        filler.write_all(&vec![0; n]).unwrap();
        path
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("left mounted: {}", self.dir.path().display());
        }
    }
}
