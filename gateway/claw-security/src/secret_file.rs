//! Private files: mode 0600, written whole or not at all, refused when others
//! can read them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::secret::{RandomnessError, fill_random};
use crate::text::to_hex;

/// Largest private file read; keys and tokens are a few hundred bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
const OTHERS: u32 = 0o077;

/// Why a private file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Others can get at it.
    #[error("{} has mode {mode:04o}, so others can reach the secret in it; run: chmod {wanted:o} {}", path.display(), path.display())]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits it should have.
        wanted: u32,
    },
    /// It belongs to somebody else, who could read or change it.
    #[error("{} belongs to user {uid}, not to user {expected} who runs this process; run: chown {expected} {}", path.display(), path.display())]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// The owner's numeric id.
        uid: u32,
        /// The numeric id of the user this process runs as.
        expected: u32,
    },
    /// It is a folder, a device, a pipe: not a regular file.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// The folder's place is taken by something else.
    #[error("{} is not a folder", path.display())]
    NotFolder {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than [`FILE_BYTES_MAX`].
    #[error("{} is larger than {max_bytes} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        max_bytes: u64,
    },
    /// [`create_private`] found the place taken.
    #[error("{} exists already", path.display())]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// The path has no file name.
    #[error("{} has no file name", path.display())]
    NoFileName {
        /// The path.
        path: PathBuf,
    },
    /// No randomness for the temporary name.
    #[error(transparent)]
    Randomness(#[from] RandomnessError),
}

impl SecretFileError {
    /// Whether the file is not there (as opposed to unreadable or unsafe).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Adds what was tried and where to an error of the operating system.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SecretFileError {
    move |source| SecretFileError::Io { action, path: path.to_owned(), source }
}

/// Writes a private file (mode 0600), replacing an existing one in one step: a
/// reader sees the old content or the new, also after a crash.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    let temporary = write_temporary(path, bytes)?;
    if let Err(error) = fs::rename(&temporary.path, path) {
        return Err(io_error("replace", path)(error));
    }
    temporary.keep();
    sync_parent(path)
}

/// Writes a private file (mode 0600) that must not exist yet; the content is
/// whole from the moment the name is there. Of two processes that do it at once
/// one wins and the other gets [`SecretFileError::AlreadyExists`].
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    let temporary = write_temporary(path, bytes)?;
    // A link, unlike a rename, never replaces what is there.
    match fs::hard_link(&temporary.path, path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(SecretFileError::AlreadyExists { path: path.to_owned() })
        }
        Err(error) => Err(io_error("create", path)(error)),
    }
}

/// Reads a private file. Refused if the group or others have any access, if it
/// belongs to another user (root's files are accepted), if it is not a regular
/// file, or if it is larger than [`FILE_BYTES_MAX`]. Symbolic links are followed:
/// orchestrators mount secrets that way.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    // Non-blocking, so that a pipe in the file's place cannot hang the start.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| io_error("open", path)(errno.into()))?;
    let file = File::from(fd);
    // The open file is examined, not the path: nobody can swap it in between.
    let metadata = file.metadata().map_err(io_error("examine", path))?;
    if !metadata.is_file() {
        return Err(SecretFileError::NotRegular { path: path.to_owned() });
    }
    check_access(path, &metadata, FILE_MODE)?;
    let too_large = || SecretFileError::TooLarge { path: path.to_owned(), max_bytes: FILE_BYTES_MAX };
    let capacity = usize::try_from(metadata.len().min(FILE_BYTES_MAX)).map_err(|_| too_large())?;
    // One byte of room more than the file has, so that reading does not move the secret.
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity + 1));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Makes sure that a folder for private files exists: created with mode 0700
/// (missing parents too), or, if it is there, owned by us and closed to others.
pub fn ensure_private_folder(path: &Path) -> Result<(), SecretFileError> {
    match DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(SecretFileError::NotFolder { path: path.to_owned() });
        }
        Err(error) => return Err(io_error("create folder", path)(error)),
    }
    let metadata = fs::metadata(path).map_err(io_error("examine", path))?;
    check_access(path, &metadata, FOLDER_MODE)
}

fn check_access(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), SecretFileError> {
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(SecretFileError::Exposed { path: path.to_owned(), mode, wanted });
    }
    let (uid, expected) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if uid != expected && uid != 0 {
        return Err(SecretFileError::Owner { path: path.to_owned(), uid, expected });
    }
    Ok(())
}

/// A temporary file that is removed unless it became the real one.
struct Temporary {
    path: PathBuf,
    remove: bool,
}

impl Temporary {
    fn keep(mut self) {
        self.remove = false;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.remove {
            // Nothing better can be done about a name that will not go away; it
            // is private and never read.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Writes the bytes durably under a fresh name beside `path`.
fn write_temporary(path: &Path, bytes: &[u8]) -> Result<Temporary, SecretFileError> {
    let name = path.file_name().ok_or_else(|| SecretFileError::NoFileName { path: path.to_owned() })?;
    let mut random = [0; 8];
    fill_random(&mut random)?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".tmp-{}", to_hex(&random)));
    let temporary_path = path.with_file_name(temporary_name);

    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&temporary_path)
        .map_err(io_error("create", &temporary_path))?;
    let temporary = Temporary { path: temporary_path, remove: true };
    // The mode above is cut by the umask; this one is exact.
    file.set_permissions(fs::Permissions::from_mode(FILE_MODE)).map_err(io_error("protect", &temporary.path))?;
    file.write_all(bytes).map_err(io_error("write", &temporary.path))?;
    file.sync_all().map_err(io_error("sync", &temporary.path))?;
    Ok(temporary)
}

/// Makes the name itself durable.
fn sync_parent(path: &Path) -> Result<(), SecretFileError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(io_error("sync folder", parent))
}

#[cfg(test)]
mod tests;
