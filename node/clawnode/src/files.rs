//! Small files that are either the old one or the new one, never half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest file that [`read_json`] reads, bytes.
const JSON_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Whether the file must survive a crash of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Flushed to the disk, with its folder.
    Synced,
    /// Survives a crash of the process only.
    Cached,
}

/// Replaces `path` by `bytes` (mode 0600) in one step.
///
/// # Errors
/// What the file system says; the old file then still stands.
pub fn replace(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let temporary = folder.join(format!(".{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    if durability == Durability::Synced {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    if durability == Durability::Synced {
        sync_folder(folder)?;
    }
    Ok(())
}

/// Replaces `path` by `value` as JSON in one step.
///
/// # Errors
/// What the file system says.
pub fn replace_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value)?, durability)
}

/// Reads a JSON file; `None` if there is none.
///
/// # Errors
/// What the file system says, or `InvalidData` if it is not what it should be.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(JSON_BYTES_MAX).read_to_end(&mut text)?;
    let value = serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(value))
}

/// Makes the entries of a folder durable.
///
/// # Errors
/// What the file system says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What others may do with a folder that they pass through: nothing but that.
const PASSABLE: u32 = 0o711;

/// Creates a folder and its parents with `mode`, less what the umask forbids; one that exists
/// keeps its own.
///
/// # Errors
/// What the file system says.
pub fn create_folder(folder: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(folder)
}

/// Creates a folder that users of workloads pass through, whatever the umask is: a service's may
/// be 0077. One that exists, perhaps from before, becomes passable and else keeps its mode.
///
/// # Errors
/// What the file system says.
pub fn create_passable(folder: &Path) -> io::Result<()> {
    create_folder(folder, PASSABLE)?;
    let mode = fs::metadata(folder)?.permissions().mode() & 0o7777;
    if mode & PASSABLE == PASSABLE {
        return Ok(());
    }
    match fs::set_permissions(folder, fs::Permissions::from_mode(mode | PASSABLE)) {
        // Somebody else's folder: its owner says who passes.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}
