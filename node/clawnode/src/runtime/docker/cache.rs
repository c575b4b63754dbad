//! The weights cache of a node: named folders that one workload (or a person) fills
//! and many read, so that large models are not fetched for each start.
//!
//! ```text
//! cache/lock                         one change at a time, over processes
//! cache/uses.json                    who reads, who fills, when each was used last
//! cache/staging/<name>/data          being filled
//! cache/sealed/<name>/<n>/data       complete; the highest n counts
//! cache/sealed/<name>/<n>/manifest.json
//! ```
//!
//! A folder becomes a cache by one rename, with its manifest in it: a crash leaves
//! the old one or the new one, never a half. Readers keep the one that they began with.

mod room;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use claw_proto::time::Timestamp;
use rustix::fs::{FlockOperation, flock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use self::room::Need;
use self::tree::{Tree, copy_tree, folders, remove_tree};
use crate::clock;
use crate::files::{self, Durability, read_json, replace_json, sync_folder};
use crate::platform;

/// Longest name of a cache, characters.
const NAME_CHARS_MAX: usize = 64;
const MIB: u64 = 1024 * 1024;

/// The weights cache, `[runtime.docker.cache]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Most that all caches may take, those that are being filled included, MiB; no limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mib_max: Option<u64>,
    /// Least free space on the disk that must be left, MiB.
    pub disk_free_mib_min: u64,
    /// Names of caches that are never removed to make room.
    pub keep: Vec<String>,
}

/// Why a cache cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It is no name.
    #[error("cache name {got:?} is not [a-z0-9][a-z0-9_.-]*, at most {NAME_CHARS_MAX} characters")]
    Name {
        /// What was given.
        got: String,
    },
    /// Nobody filled it.
    #[error("cache {name} is empty on this node; it has: {}", list(.known))]
    Absent {
        /// Which one.
        name: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// Somebody else fills it.
    #[error("cache {name} is being filled by {by}")]
    Busy {
        /// Which one.
        name: String,
        /// Who does.
        by: String,
    },
    /// Somebody reads it.
    #[error("cache {name} is used by {by}")]
    Used {
        /// Which one.
        name: String,
        /// Who does.
        by: String,
    },
    /// It would not fit.
    #[error(
        "cache {name} takes {mib} MiB, and {room_mib} MiB are left under this node's limit; nothing unused is left to remove"
    )]
    TooLarge {
        /// Which one.
        name: String,
        /// What it takes.
        mib: u64,
        /// What could be made free.
        room_mib: u64,
    },
    /// The disk would be too full with it.
    #[error(
        "with cache {name} {free_mib} MiB of the disk are free, and {least_mib} MiB must be left (runtime.docker.cache.disk_free_mib_min); nothing unused is left to remove"
    )]
    DiskFull {
        /// Which one.
        name: String,
        /// What is free while it is staged.
        free_mib: u64,
        /// What must be.
        least_mib: u64,
    },
    /// It holds something that is neither file, folder nor link.
    #[error("{path} is no file, folder or symbolic link, or too deep")]
    Special {
        /// Which one.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What a sealed cache holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// Who filled it.
    pub filled_by: String,
    /// Number of files and links.
    pub n_files: u64,
    /// Size of the files, bytes.
    pub bytes: u64,
    /// SHA-256 over the files' paths, sizes and contents in order of their paths, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl std::fmt::Display for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} files, {:.1} MiB", self.n_files, self.bytes as f64 / MIB as f64)?;
        match &self.sha256 {
            Some(sha256) => write!(f, ", sha256 {sha256}"),
            None => Ok(()),
        }
    }
}

/// One cache, for a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Name.
    pub name: String,
    /// What it holds.
    pub manifest: Manifest,
    /// When it was used last.
    pub last_used: Timestamp,
    /// Who reads it now.
    pub readers: Vec<String>,
}

impl std::fmt::Display for CacheEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, manifest, last_used, readers } = self;
        write!(
            f,
            "{name}: {manifest}, filled by {}, last used {last_used}, read by {}",
            manifest.filled_by,
            list(readers)
        )
    }
}

/// A cache that is being filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Begun {
    /// The how-manieth.
    n: u64,
    /// What an import will take, bytes; nobody knows it of others.
    bytes: Option<u64>,
    /// Its writer has ended: nobody can be stopped for it.
    is_over: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Uses {
    /// Who fills which.
    writers: BTreeMap<String, String>,
    /// What is being filled, by name.
    filling: BTreeMap<String, Begun>,
    /// How often filling was begun.
    n_begun: u64,
    /// Sealed folders (`name/n`) by reader.
    readers: BTreeMap<String, BTreeSet<String>>,
    last_used_ms: BTreeMap<String, i64>,
}

/// The cache folder; opened anew it is the same.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    config: CacheConfig,
}

impl Uses {
    /// Somebody begins to fill a cache.
    fn begin(&mut self, name: &str, bytes: Option<u64>) {
        self.n_begun += 1;
        self.filling.insert(name.to_owned(), Begun { n: self.n_begun, bytes, is_over: false });
    }
}

impl Cache {
    /// The cache at `root`, with its folders.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn open(root: PathBuf, config: CacheConfig) -> Result<Self, CacheError> {
        for folder in [root.clone(), root.join("staging"), root.join("sealed")] {
            // Passed through by the users of containers, listed by nobody.
            files::create_folder(&folder, 0o711).map_err(at(&folder))?;
        }
        Ok(Self { root, config })
    }

    /// Forgets who is not among `known` any more (the attempts that the node has), with
    /// what they did not finish, and removes what no reader needs.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn recover(&self, known: &BTreeSet<String>) -> Result<(), CacheError> {
        self.change(|cache, uses| {
            uses.readers.retain(|reader, _| known.contains(reader));
            uses.writers.retain(|_, writer| known.contains(writer));
            for (name, path) in folders(&cache.root.join("staging"))? {
                // A person's import holds its folder's lock while it works.
                let is_importing = lock_file(&path.join("lock")).is_ok_and(|lock| lock.is_none());
                if !uses.writers.contains_key(&name) && !is_importing {
                    uses.filling.remove(&name);
                    remove_tree(&path)?;
                }
            }
            cache.sweep(uses)
        })
    }

    /// A reader's folder: complete, and it stays as it is until [`Self::release`].
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn read(&self, name: &str, reader: &str) -> Result<PathBuf, CacheError> {
        check_name(name)?;
        self.change(|cache, uses| {
            let Some((n, path)) = cache.newest(name)? else {
                return Err(CacheError::Absent { name: name.to_owned(), known: cache.names()? });
            };
            uses.readers.entry(reader.to_owned()).or_default().insert(format!("{name}/{n}"));
            uses.last_used_ms.insert(name.to_owned(), clock::wall().unix_ms());
            Ok(path.join("data"))
        })
    }

    /// An empty folder for the one that fills the cache. The same writer gets the same
    /// folder again, with what is in it.
    ///
    /// # Errors
    /// [`CacheError::Busy`] while somebody else does.
    pub fn fill(&self, name: &str, writer: &str) -> Result<PathBuf, CacheError> {
        check_name(name)?;
        self.change(|cache, uses| {
            let staging = cache.root.join("staging").join(name);
            let data = staging.join("data");
            match uses.writers.get(name) {
                Some(by) if by == writer && data.is_dir() => return Ok(data),
                Some(by) if by != writer => return Err(CacheError::Busy { name: name.to_owned(), by: by.clone() }),
                Some(_) | None => {}
            }
            if staging.exists() {
                let Some(_lock) = lock_file(&staging.join("lock"))? else {
                    return Err(CacheError::Busy { name: name.to_owned(), by: "an import".to_owned() });
                };
                remove_tree(&staging)?;
            }
            uses.writers.insert(name.to_owned(), writer.to_owned());
            uses.begin(name, None);
            make_staging(&staging)?;
            Ok(data)
        })
    }

    /// The writer is over: what it filled becomes caches if it ended well, and is
    /// thrown away if not. Returns what was sealed, by name.
    ///
    /// # Errors
    /// The first [`CacheError`]; that cache was not sealed, the writer's others are.
    pub fn filled(&self, writer: &str, ended_well: bool) -> Result<Vec<(String, Manifest)>, CacheError> {
        let names: Vec<String> = self.change(|_, uses| {
            let own = uses.writers.iter().filter(|(_, by)| *by == writer);
            let names: Vec<String> = own.map(|(name, _)| name.clone()).collect();
            for name in &names {
                uses.filling.entry(name.clone()).or_default().is_over = true;
            }
            Ok(names)
        })?;
        let (mut sealed, mut failed) = (Vec::new(), None);
        for name in names {
            let prepared = if ended_well { self.prepare(&name, writer, false).map(Some) } else { Ok(None) };
            match self.change(|cache, uses| cache.end_filling(uses, &name, writer, prepared)) {
                Ok(manifest) => sealed.extend(manifest.map(|manifest| (name, manifest))),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(sealed), Err)
    }

    fn end_filling(
        &self,
        uses: &mut Uses,
        name: &str,
        writer: &str,
        prepared: Result<Option<Manifest>, CacheError>,
    ) -> Result<Option<Manifest>, CacheError> {
        if uses.writers.get(name).is_none_or(|by| by != writer) {
            // Given back meanwhile, and perhaps somebody else's now.
            return Ok(None);
        }
        let staging = self.root.join("staging").join(name);
        let sealed = match prepared {
            Ok(Some(manifest)) => self.seal(uses, name, &manifest).map(|()| Some(manifest)),
            other => other,
        };
        uses.writers.remove(name);
        uses.filling.remove(name);
        if staging.exists() {
            remove_tree(&staging)?;
        }
        sealed
    }

    /// A reader is over.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn release(&self, reader: &str) -> Result<(), CacheError> {
        self.change(|cache, uses| {
            if let Some(read) = uses.readers.remove(reader) {
                let now_ms = clock::wall().unix_ms();
                let names = read.iter().filter_map(|path| path.split_once('/'));
                uses.last_used_ms.extend(names.map(|(name, _)| (name.to_owned(), now_ms)));
                cache.sweep(uses)?;
            }
            Ok(())
        })
    }

    /// Copies a folder into a cache, with a checksum if asked for. One that has no room is not
    /// copied at all.
    ///
    /// # Errors
    /// [`CacheError`]; then the cache is as it was.
    pub fn import(&self, from: &Path, name: &str, with_sha256: bool) -> Result<Manifest, CacheError> {
        check_name(name)?;
        let staging = self.root.join("staging").join(name);
        let mut tree = Tree::default();
        tree.measure(from, from, 0)?;
        let filling = self.filling()?;
        let lock = self.change(|cache, uses| {
            let busy = |by: &str| CacheError::Busy { name: name.to_owned(), by: by.to_owned() };
            if let Some(by) = uses.writers.get(name) {
                return Err(busy(by));
            }
            if staging.exists() {
                let Some(_lock) = lock_file(&staging.join("lock"))? else { return Err(busy("an import")) };
                uses.filling.remove(name);
                remove_tree(&staging)?;
            }
            // What will not fit beside all that is there is not copied first.
            let others = filling.iter().filter(|one| one.still_is(uses)).map(|one| one.bytes).sum();
            cache.room(uses, &Need::imported(name, tree.bytes, others))?;
            uses.begin(name, Some(tree.bytes));
            make_staging(&staging)?;
            lock_file(&staging.join("lock"))?.ok_or_else(|| busy("an import"))
        })?;
        // Outside of the lock of all: others go on while it copies.
        let copied = copy_tree(from, &staging.join("data"), 0);
        let sealed = copied.and_then(|()| {
            let manifest = self.prepare(name, "import", with_sha256)?;
            self.change(|cache, uses| cache.seal(uses, name, &manifest))?;
            Ok(manifest)
        });
        let tidied = self.change(|_, uses| {
            uses.filling.remove(name);
            if staging.exists() { remove_tree(&staging) } else { Ok(()) }
        });
        drop(lock);
        if let Err(error) = tidied {
            // It is a cache, or not, all the same; what is left goes with the next import or start.
            tracing::warn!(%error, name, "an import could not be tidied up");
        }
        sealed
    }

    /// Removes a cache that nobody uses.
    ///
    /// # Errors
    /// [`CacheError::Used`], [`CacheError::Absent`].
    pub fn remove(&self, name: &str) -> Result<(), CacheError> {
        check_name(name)?;
        self.change(|cache, uses| {
            let folder = cache.root.join("sealed").join(name);
            if !folder.is_dir() {
                return Err(CacheError::Absent { name: name.to_owned(), known: cache.names()? });
            }
            let readers = readers_of(uses, name);
            if !readers.is_empty() {
                return Err(CacheError::Used { name: name.to_owned(), by: readers.join(", ") });
            }
            uses.last_used_ms.remove(name);
            cache.discard(&folder)
        })
    }

    /// All caches, by name.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn entries(&self) -> Result<Vec<CacheEntry>, CacheError> {
        self.change(|cache, uses| {
            let mut entries = Vec::new();
            for name in cache.names()? {
                let Some((_, path)) = cache.newest(&name)? else { continue };
                let manifest = manifest(&path)?;
                let used_ms = uses.last_used_ms.get(&name).copied();
                let last_used = used_ms.map_or(manifest.sealed_at, Timestamp::from_unix_ms);
                entries.push(CacheEntry { readers: readers_of(uses, &name), name, manifest, last_used });
            }
            Ok(entries)
        })
    }

    /// One change at a time, of all processes; who uses what is written down before the
    /// lock is let go.
    fn change<T>(&self, change: impl FnOnce(&Self, &mut Uses) -> Result<T, CacheError>) -> Result<T, CacheError> {
        let path = self.root.join("lock");
        let lock = open_lock(&path)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| at(&path)(error.into()))?;
        let path = self.root.join("uses.json");
        let mut uses = read_json::<Uses>(&path).map_err(at(&path))?.unwrap_or_default();
        let result = change(self, &mut uses);
        replace_json(&path, &uses, Durability::Synced).map_err(at(&path))?;
        result
    }

    fn names(&self) -> Result<Vec<String>, CacheError> {
        Ok(folders(&self.root.join("sealed"))?.into_iter().map(|(name, _)| name).collect())
    }

    /// The folder of a cache that counts.
    fn newest(&self, name: &str) -> Result<Option<(u64, PathBuf)>, CacheError> {
        let all = folders(&self.root.join("sealed").join(name))?;
        Ok(all.into_iter().filter_map(|(n, path)| Some((n.parse().ok()?, path))).max())
    }

    /// Measures what is staged and writes it through to the disk, with its manifest. Outside of the
    /// lock of all, for that takes minutes: the staged folder is its writer's alone.
    fn prepare(&self, name: &str, by: &str, with_sha256: bool) -> Result<Manifest, CacheError> {
        let staging = self.root.join("staging").join(name);
        let data = staging.join("data");
        let mut tree = Tree { sha256: with_sha256.then(Sha256::new), ..Tree::default() };
        tree.measure(&data, &data, 0)?;
        let sha256 = tree.sha256.map(|hash| hexadecimal(&hash.finalize()));
        let (sealed_at, filled_by) = (clock::wall(), by.to_owned());
        let manifest = Manifest { sealed_at, filled_by, n_files: tree.n_files, bytes: tree.bytes, sha256 };
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).map_err(at(&data))?;
        let path = staging.join("manifest.json");
        replace_json(&path, &manifest, Durability::Synced).map_err(at(&path))?;
        let folder = File::open(&staging).map_err(at(&staging))?;
        // All files at once: thousands of single calls would take longer.
        platform::sync_file_system(&folder).map_err(at(&staging))?;
        Ok(manifest)
    }

    /// Makes what is prepared the cache, by one rename.
    fn seal(&self, uses: &mut Uses, name: &str, manifest: &Manifest) -> Result<(), CacheError> {
        self.make_room(uses, &Need::sealed(name, manifest.bytes))?;
        let sealed = self.root.join("sealed").join(name);
        files::create_folder(&sealed, 0o711).map_err(at(&sealed))?;
        let n = self.newest(name)?.map_or(1, |(n, _)| n + 1);
        let staging = self.root.join("staging").join(name);
        fs::rename(&staging, sealed.join(n.to_string())).map_err(at(&sealed))?;
        sync_folder(&sealed).and_then(|()| sync_folder(&self.root.join("sealed"))).map_err(at(&sealed))?;
        uses.last_used_ms.insert(name.to_owned(), clock::wall().unix_ms());
        self.sweep(uses)
    }

    /// Removes what was replaced and is not read any more.
    fn sweep(&self, uses: &Uses) -> Result<(), CacheError> {
        let read: BTreeSet<&String> = uses.readers.values().flatten().collect();
        for name in self.names()? {
            let newest = self.newest(&name)?.map(|(n, _)| n.to_string());
            for (n, path) in folders(&self.root.join("sealed").join(&name))? {
                if newest.as_ref() != Some(&n) && !read.contains(&format!("{name}/{n}")) {
                    self.discard(&path)?;
                }
            }
        }
        for (name, path) in folders(&self.root.join("staging"))? {
            if name.starts_with('.') {
                remove_tree(&path)?;
            }
        }
        Ok(())
    }

    /// Out of sight by one rename, then removed: a crash leaves no half of it.
    fn discard(&self, folder: &Path) -> Result<(), CacheError> {
        let number = folders(&self.root.join("staging"))?.len();
        let gone = self.root.join("staging").join(format!(".gone-{}-{number}", clock::boot_ms()));
        fs::rename(folder, &gone).map_err(at(folder))?;
        remove_tree(&gone)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_path_buf();
    move |source| CacheError::Io { path, source }
}

/// Free space of a file system, bytes, for those who may not use the reserve.
///
/// # Errors
/// What the system says.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn check_name(name: &str) -> Result<(), CacheError> {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let begins = name.bytes().next().is_some_and(is_word);
    let is_right = begins && name.len() <= NAME_CHARS_MAX && name.bytes().all(|b| is_word(b) || b"_.-".contains(&b));
    if is_right { Ok(()) } else { Err(CacheError::Name { got: name.to_owned() }) }
}

fn readers_of(uses: &Uses, name: &str) -> Vec<String> {
    let reads =
        |read: &BTreeSet<String>| read.iter().any(|path| path.split_once('/').is_some_and(|(of, _)| of == name));
    uses.readers.iter().filter(|(_, read)| reads(read)).map(|(reader, _)| reader.clone()).collect()
}

fn manifest(sealed: &Path) -> Result<Manifest, CacheError> {
    let path = sealed.join("manifest.json");
    let manifest = read_json(&path).map_err(at(&path))?;
    manifest.ok_or_else(|| at(&path)(io::ErrorKind::NotFound.into()))
}

fn make_staging(staging: &Path) -> Result<(), CacheError> {
    files::create_folder(staging, 0o711).map_err(at(staging))?;
    let data = staging.join("data");
    files::create_folder(&data, 0o777).map_err(at(&data))?;
    // A container's user is not known here; nobody else reaches the folder but through it.
    fs::set_permissions(&data, fs::Permissions::from_mode(0o1777)).map_err(at(&data))
}

fn open_lock(path: &Path) -> Result<File, CacheError> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(at(path))
}

/// The lock of a folder that is being filled by a process; `None` if it has it.
fn lock_file(path: &Path) -> Result<Option<File>, CacheError> {
    let file = open_lock(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(at(path)(error.into())),
    }
}

#[cfg(test)]
mod tests;
