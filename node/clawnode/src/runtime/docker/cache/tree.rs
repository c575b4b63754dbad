//! Trees of files: listed, measured, hashed, copied, removed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{CacheError, at};
use crate::files;

/// Deepest folder inside a cache.
const DEPTH_MAX: usize = 64;

/// Folders in a folder, by name; none if it is not there.
pub(super) fn folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, CacheError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(folder)(error)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at(folder))?;
        if entry.file_type().map_err(at(folder))?.is_dir() {
            all.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    all.sort();
    Ok(all)
}

pub(super) fn remove_tree(folder: &Path) -> Result<(), CacheError> {
    fs::remove_dir_all(folder).map_err(at(folder))
}

/// Entries of a folder in order of their names.
fn sorted(folder: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>, CacheError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(at(&path))?;
        all.push((path, metadata));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

/// Size of the files below a folder that somebody is filling, bytes: what comes and goes
/// meanwhile, and what cannot be read, is left out.
pub(super) fn size_now(folder: &Path) -> u64 {
    let (mut bytes, mut open) = (0_u64, vec![(folder.to_path_buf(), 0)]);
    while let Some((folder, depth)) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() && depth < DEPTH_MAX {
                open.push((entry.path(), depth + 1));
            } else if metadata.is_file() {
                bytes = bytes.saturating_add(metadata.len());
            }
        }
    }
    bytes
}

#[derive(Default)]
pub(super) struct Tree {
    pub(super) n_files: u64,
    pub(super) bytes: u64,
    pub(super) sha256: Option<Sha256>,
}

impl Tree {
    pub(super) fn measure(&mut self, root: &Path, folder: &Path, depth: usize) -> Result<(), CacheError> {
        for (path, metadata) in sorted(folder)? {
            let kind = metadata.file_type();
            if kind.is_dir() && depth < DEPTH_MAX {
                self.measure(root, &path, depth + 1)?;
            } else if kind.is_file() || kind.is_symlink() {
                self.n_files += 1;
                self.bytes += if kind.is_file() { metadata.len() } else { 0 };
                self.hash(root, &path, &metadata)?;
            } else {
                return Err(CacheError::Special { path });
            }
        }
        Ok(())
    }

    fn hash(&mut self, root: &Path, path: &Path, metadata: &fs::Metadata) -> Result<(), CacheError> {
        let Some(hash) = &mut self.sha256 else { return Ok(()) };
        let name = path.strip_prefix(root).unwrap_or(path).as_os_str().as_encoded_bytes();
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        if metadata.file_type().is_symlink() {
            let target = fs::read_link(path).map_err(at(path))?;
            hash.update(target.as_os_str().as_encoded_bytes());
            return Ok(());
        }
        hash.update(metadata.len().to_be_bytes());
        let mut file = File::open(path).map_err(at(path))?;
        let mut buffer = vec![0_u8; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(at(path))? {
                0 => return Ok(()),
                n => hash.update(&buffer[..n]),
            }
        }
    }
}

/// Copies files, folders and links as they are.
pub(super) fn copy_tree(from: &Path, to: &Path, depth: usize) -> Result<(), CacheError> {
    for (path, metadata) in sorted(from)? {
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        let kind = metadata.file_type();
        if kind.is_dir() && depth < DEPTH_MAX {
            files::create_folder(&target, 0o755).map_err(at(&target))?;
            // Read by the users of all containers, whatever the agent's umask is.
            fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).map_err(at(&target))?;
            copy_tree(&path, &target, depth + 1)?;
        } else if kind.is_file() {
            fs::copy(&path, &target).map_err(at(&target))?;
            // Read by the users of all containers.
            let mode = (metadata.permissions().mode() & 0o755) | 0o444;
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).map_err(at(&target))?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&path).map_err(at(&path))?;
            std::os::unix::fs::symlink(link, &target).map_err(at(&target))?;
        } else {
            return Err(CacheError::Special { path });
        }
    }
    Ok(())
}
