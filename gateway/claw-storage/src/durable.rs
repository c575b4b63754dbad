//! Files that survive a crash: private modes, atomic replacement, synced folders,
//! the lock of a folder, free space.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Suffix of a file that is still being written; leftovers of a crash are removed at open.
pub(crate) const UNFINISHED_SUFFIX: &str = ".new";

/// Creates the folder (and its parents) with mode 0700, or tightens it to that.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        let mode = fs::metadata(dir)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(dir = %dir.display(), mode, "storage folder was open to others, tightened");
            fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        }
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => sync_dir(Path::new(".")),
    }
}

/// Options for a private file: mode 0600.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes created, renamed and removed names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces `path` by a file with `parts` in it: after a crash it is the old one or the new one.
pub(crate) fn write_atomic(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    write_atomic_with(path, |file| parts.iter().try_for_each(|part| file.write_all(part)))
}

/// The same with what `write` writes into the new file; returns what it returns.
pub(crate) fn write_atomic_with<T>(path: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let unfinished = unfinished_path(path);
    let opened = private_file().write(true).create(true).truncate(true).open(&unfinished);
    let written = opened.and_then(|mut file| {
        let made = write(&mut file)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok(made)
    });
    if written.is_err() {
        // Best effort: on a full disk the torso must not keep the space it took.
        remove_if_there(&unfinished).ok();
    }
    let made = written?;
    path.parent().map_or(Ok(()), sync_dir)?;
    Ok(made)
}

/// `path` with the suffix of an unfinished file.
pub(crate) fn unfinished_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED_SUFFIX);
    PathBuf::from(name)
}

/// Removes a file and says whether it was there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the file system (or a quota on it) ran out of space.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Bytes that an unprivileged process may still write to the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Why a folder's lock was not taken.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds it; its id where the file tells.
    Held { pid: Option<u32> },
    /// The lock file could not be opened or locked.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The exclusive lock of a storage folder, held until dropped (or the process dies).
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock and leaves this process's id in the file for whoever comes second.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let mut file = private_file().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The id is a courtesy: an unreadable file leaves it unknown.
                let read = file.read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::Held { pid });
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // On a full disk the id cannot be written; the lock itself holds all the same.
        let noted =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::warn!(path = %path.display(), %error, "lock holder not noted");
        }
        Ok(Self { _file: file })
    }
}
