//! Ballast: space that is kept so that a full disk is not the end.
//!
//! `reserve.bin` holds real blocks that nothing uses. When an append first meets
//! a full disk the file is given up and the append tried again, so the gateway
//! can still write its closing records; [`crate::Space::OnReserve`] tells it to.
//! Once there is room for twice the reserve, the file is made again.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::durable;
use crate::journal::Space;

pub(crate) const RESERVE_FILE: &str = "reserve.bin";

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// Configured size; 0 = none.
    bytes: u64,
    is_held: bool,
}

impl Reserve {
    /// Makes sure that the reserve is there, if there is room for it.
    pub(crate) fn open(dir: &Path, bytes: u64) -> io::Result<Self> {
        let path = dir.join(RESERVE_FILE);
        let present_bytes = path.metadata().map_or(0, |metadata| metadata.len());
        let mut reserve = Self { path, bytes, is_held: bytes > 0 && present_bytes == bytes };
        if reserve.is_held {
            return Ok(reserve);
        }
        durable::remove_if_there(&reserve.path)?;
        reserve.regain();
        Ok(reserve)
    }

    pub(crate) fn space(&self) -> Space {
        if self.bytes == 0 || self.is_held { Space::Normal } else { Space::OnReserve }
    }

    /// Gives the space up; false when there was none to give.
    pub(crate) fn release(&mut self) -> bool {
        if !self.is_held || !self.is_disk_full() {
            return false;
        }
        self.is_held = false;
        if let Err(error) = self.give_up() {
            tracing::error!(%error, "journal reserve not released");
            return false;
        }
        tracing::warn!(bytes = self.bytes, "disk full: journal reserve released");
        true
    }

    /// Whether it is the disk that is full, and not a limit on the database that
    /// the reserve cannot lift.
    fn is_disk_full(&self) -> bool {
        let free_bytes = self.path.parent().map(durable::free_bytes);
        !matches!(free_bytes, Some(Ok(free_bytes)) if free_bytes > self.bytes)
    }

    fn give_up(&self) -> io::Result<()> {
        // Cut and synced before it is removed: some file systems hand blocks of a
        // removed file back only after their next commit.
        let file = std::fs::File::options().write(true).open(&self.path)?;
        file.set_len(0)?;
        file.sync_all()?;
        durable::remove_if_there(&self.path).map(|_| ())
    }

    /// Makes the file again when there is room for it twice over.
    pub(crate) fn regain(&mut self) {
        if self.bytes == 0 || self.is_held {
            return;
        }
        let Some(dir) = self.path.parent() else {
            return;
        };
        match durable::free_bytes(dir) {
            Ok(free_bytes) if free_bytes >= self.bytes.saturating_mul(2) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "free space unknown, journal reserve not made");
                return;
            }
        }
        match allocate(&self.path, self.bytes) {
            Ok(()) => {
                self.is_held = true;
                tracing::info!(bytes = self.bytes, "journal reserve in place");
            }
            Err(error) => {
                tracing::warn!(%error, "journal reserve not made");
                if let Err(error) = durable::remove_if_there(&self.path) {
                    tracing::warn!(%error, "unfinished journal reserve not removed");
                }
            }
        }
    }
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = durable::private_file().write(true).create(true).truncate(true).open(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 64 * 1024];
            let mut left_bytes = bytes;
            while left_bytes > 0 {
                let n = usize::try_from(left_bytes).map_or(zeros.len(), |n| n.min(zeros.len()));
                file.write_all(&zeros[..n])?;
                left_bytes -= n as u64;
            }
        }
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}
