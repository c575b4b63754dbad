//! Secret files: on a tmpfs of the node, bound read-only into one container,
//! gone with it. They are in no store of ours and in no answer of the engine.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use claw_proto::message::DesiredWorkload;

use super::plan::container_name;
use crate::files::create_folder;
use crate::platform;
use crate::runtime::Key;

/// Why secrets cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretsError {
    /// They would reach a disk.
    #[error("{path} is not on a tmpfs: secrets must not reach a disk (runtime.docker.secrets_dir)")]
    NotInMemory {
        /// The configured folder.
        path: PathBuf,
    },
    /// Their values did not come along.
    #[error("the values of {n_missing} secrets did not come with the workload")]
    Missing {
        /// How many.
        n_missing: usize,
    },
    /// A name is no file name.
    #[error("secret target {target:?} is not a file name")]
    Target {
        /// The name.
        target: String,
    },
    /// The file system says no.
    #[error("secrets folder {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Folder of one attempt's secrets.
pub(super) fn folder(secrets_dir: &Path, node_id: &str, key: Key) -> PathBuf {
    secrets_dir.join(node_id).join(container_name(key))
}

/// Owner of the files: the container's user if it is a number, and whether
/// others in the container must be let in because it is not.
fn owner(user: &str) -> (u32, u32, u32) {
    let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
    if user.is_empty() || uid == "root" {
        return (0, 0, 0o400);
    }
    match uid.parse::<u32>() {
        Ok(uid) => (uid, gid.and_then(|gid| gid.parse().ok()).unwrap_or(uid), 0o400),
        // Only the engine knows the number of a name; nobody else gets at the folder above.
        Err(_) => (0, 0, 0o444),
    }
}

/// Writes the secret files; returns their folder, or nothing if there are none.
/// `user` is the one that the container will run as.
///
/// # Errors
/// [`SecretsError`]; nothing is left behind.
pub(super) fn write(
    secrets_dir: &Path,
    node_id: &str,
    workload: &DesiredWorkload,
    user: &str,
) -> Result<Option<PathBuf>, SecretsError> {
    let n_missing = workload.spec.secrets.len().saturating_sub(workload.secrets.len());
    if n_missing > 0 {
        return Err(SecretsError::Missing { n_missing });
    }
    if workload.secrets.is_empty() {
        return Ok(None);
    }
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| SecretsError::Io { path, source }
    };
    create_folder(secrets_dir, 0o700).map_err(failed(secrets_dir))?;
    if !platform::is_in_memory(secrets_dir).map_err(failed(secrets_dir))? {
        return Err(SecretsError::NotInMemory { path: secrets_dir.to_path_buf() });
    }
    let folder = folder(secrets_dir, node_id, (workload.workload_id, workload.attempt));
    remove(&folder);
    let written = write_files(&folder, workload, user);
    if written.is_err() {
        remove(&folder);
    }
    written.map(|()| Some(folder))
}

fn write_files(folder: &Path, workload: &DesiredWorkload, user: &str) -> Result<(), SecretsError> {
    let failed = |source| SecretsError::Io { path: folder.to_path_buf(), source };
    create_folder(folder, 0o700).map_err(failed)?;
    let (uid, gid, mode) = owner(user);
    for secret in &workload.secrets {
        let name = &secret.target;
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(SecretsError::Target { target: name.clone() });
        }
        let path = folder.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(secret.value.expose()).map_err(failed)?;
        chown(&path, Some(uid), Some(gid)).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    // The container's user must get through; the folders above keep everybody else out.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).map_err(failed)
}

/// Removes the secrets of an attempt.
pub(super) fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, folder = %folder.display(), "secret files could not be removed");
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_a_numeric_user_and_a_named_one_can_read_them() {
        assert_eq!(owner(""), (0, 0, 0o400));
        assert_eq!(owner("root"), (0, 0, 0o400));
        assert_eq!(owner("1000"), (1000, 1000, 0o400));
        assert_eq!(owner("1000:50"), (1000, 50, 0o400));
        assert_eq!(owner("app"), (0, 0, 0o444));
    }
}
