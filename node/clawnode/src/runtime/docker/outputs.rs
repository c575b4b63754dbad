//! Declared outputs: read from a running container, collected when it ends.
//!
//! The engine hands out tar archives whose content the workload chose, so
//! nothing in them is trusted: only plain files and folders are taken, below
//! the declared path, within a size limit.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bollard::Docker;
use bollard::container::PathStatResponse;
use bollard::errors::Error as EngineFault;
use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder};
use bytes::Bytes;
use claw_proto::message::{OutputContent, OutputEntry, TaskErrorCode};
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::cache::hexadecimal;
use super::container::status_of;
use crate::files::create_folder;
use crate::runtime::TaskFault;
use crate::runtime::folder::ContainerFile;

/// Entries that a folder's listing has at most.
const ENTRIES_MAX: usize = 1_000;
/// Bytes of an archive that are read for a listing.
const LISTING_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Files and folders that are collected at most.
const FILES_MAX: usize = 100_000;
/// Collecting may take so long, milliseconds.
const COLLECT_TIMEOUT_MS: u64 = 600_000;
/// Pieces of an archive that wait for the reader.
const PIECES_MAX: usize = 16;

/// A path inside a workload without `.` and `//`; none if it leads upward.
pub(super) fn clean(path: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// The path that is meant, if it is a declared output or below one.
///
/// # Errors
/// The answer to give otherwise.
pub(super) fn declared(outputs: &[String], path: &str) -> Result<PathBuf, TaskFault> {
    let fault = |message: String| TaskFault { code: TaskErrorCode::Refused, message };
    let wanted = clean(path).ok_or_else(|| fault(format!("{path:?} leads upward")))?;
    let known = outputs.iter().filter_map(|output| clean(output)).any(|output| wanted.starts_with(output));
    if !known {
        return Err(fault(format!("{path:?} is not among the declared outputs: {}", outputs.join(", "))));
    }
    Ok(wanted)
}

type Archive = Pin<Box<dyn Stream<Item = Result<Bytes, EngineFault>> + Send>>;

fn download(docker: &Docker, name: &str, path: &Path) -> Archive {
    let path = Path::new("/").join(path);
    let options = DownloadFromContainerOptionsBuilder::default().path(&path.to_string_lossy()).build();
    Box::pin(docker.download_from_container(name, Some(options)))
}

/// Reads pieces that come through a channel; for a thread that may wait. That the
/// archive broke off is an error: else what came of it would pass for the whole.
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let n_read = buffer.len().min(self.rest.len());
        buffer[..n_read].copy_from_slice(&self.rest.split_to(n_read));
        Ok(n_read)
    }
}

/// Feeds an archive to a reader on a thread of its own; the reader may stop early.
async fn read_archive<T: Send + 'static>(
    mut archive: Archive,
    read: impl FnOnce(Pieces) -> T + Send + 'static,
) -> Result<T, TaskFault> {
    // The first piece tells whether the path is there at all.
    let first = match archive.next().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(fault_of(&error)),
        None => Bytes::new(),
    };
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let reader = tokio::task::spawn_blocking(move || read(Pieces { pieces, rest: first }));
    while let Some(piece) = archive.next().await {
        if sender.send(piece.map_err(io::Error::other)).await.is_err() {
            break;
        }
    }
    drop(sender);
    reader.await.map_err(|error| TaskFault { code: TaskErrorCode::Internal, message: error.to_string() })
}

fn fault_of(error: &EngineFault) -> TaskFault {
    match status_of(error) {
        Some((404, message)) => TaskFault { code: TaskErrorCode::NotFound, message: message.trim().to_owned() },
        Some((_, message)) => TaskFault { code: TaskErrorCode::Internal, message: message.trim().to_owned() },
        None => TaskFault { code: TaskErrorCode::Internal, message: format!("the engine failed: {error}") },
    }
}

fn broken(error: &io::Error) -> TaskFault {
    TaskFault { code: TaskErrorCode::Internal, message: format!("the archive could not be read: {error}") }
}

/// Reads a path of a running container.
pub(super) async fn read_live(
    docker: &Docker,
    name: &str,
    path: &Path,
    offset: u64,
    bytes_max: u64,
) -> Result<OutputContent, TaskFault> {
    // Podman follows a link where Docker hands out the link itself.
    let full = Path::new("/").join(path);
    let options = ContainerArchiveInfoOptionsBuilder::default().path(&full.to_string_lossy()).build();
    let found = docker.get_container_archive_info(name, Some(options)).await;
    if found.is_ok_and(|found| is_link(&found, &full)) {
        return Err(special());
    }
    let archive = download(docker, name, path);
    read_archive(archive, move |pieces| read_entry(pieces, offset, bytes_max)).await?
}

/// Podman names the path itself as the target of what is no link.
fn is_link(found: &PathStatResponse, path: &Path) -> bool {
    !found.link_target.is_empty() && Path::new(&found.link_target) != path
}

/// The first entry of an archive, and if it is a folder what is directly in it.
fn read_entry(pieces: impl Read, offset: u64, bytes_max: u64) -> Result<OutputContent, TaskFault> {
    let mut archive = tar::Archive::new(pieces.take(u64::MAX));
    let mut entries = archive.entries().map_err(|error| broken(&error))?;
    let Some(first) = entries.next() else {
        return Err(TaskFault { code: TaskErrorCode::NotFound, message: "nothing is there".to_owned() });
    };
    let mut first = first.map_err(|error| broken(&error))?;
    let kind = first.header().entry_type();
    if kind.is_file() {
        let total_bytes = first.size();
        let skipped = io::copy(&mut (&mut first).take(offset), &mut io::sink()).map_err(|error| broken(&error))?;
        let mut bytes = Vec::new();
        (&mut first).take(bytes_max).read_to_end(&mut bytes).map_err(|error| broken(&error))?;
        if (bytes.len() as u64) < bytes_max.min(total_bytes.saturating_sub(skipped)) {
            return Err(broken(&io::ErrorKind::UnexpectedEof.into()));
        }
        return Ok(piece_of(bytes, skipped, total_bytes));
    }
    if !kind.is_dir() {
        return Err(special());
    }
    let root = first.path().map_err(|error| broken(&error))?.into_owned();
    drop(first);
    let (mut found, mut truncated, mut n_bytes) = (Vec::new(), false, 0_u64);
    for entry in entries {
        let Ok(entry) = entry else {
            truncated = true;
            break;
        };
        let kind = entry.header().entry_type();
        n_bytes = n_bytes.saturating_add(entry.size());
        if found.len() >= ENTRIES_MAX || n_bytes > LISTING_BYTES_MAX {
            truncated = true;
            break;
        }
        let Ok(path) = entry.path().map(std::borrow::Cow::into_owned) else { continue };
        let Ok(below) = path.strip_prefix(&root) else { continue };
        let is_child = below.components().count() == 1 && (kind.is_file() || kind.is_dir());
        if is_child {
            let bytes = if kind.is_dir() { 0 } else { entry.size() };
            let name = below.to_string_lossy().into_owned();
            found.push(OutputEntry { name, bytes, is_folder: kind.is_dir() });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(OutputContent::Folder { entries: found, truncated })
}

fn special() -> TaskFault {
    let message = "it is neither a plain file nor a folder (links are not followed)".to_owned();
    TaskFault { code: TaskErrorCode::Refused, message }
}

fn piece_of(bytes: Vec<u8>, offset: u64, total_bytes: u64) -> OutputContent {
    let is_whole = offset == 0 && bytes.len() as u64 == total_bytes;
    let sha256 = is_whole.then(|| hexadecimal(&Sha256::digest(&bytes)));
    OutputContent::File { bytes, offset, total_bytes, sha256 }
}

/// Reads a path of the collected outputs in `folder`.
pub(super) fn read_collected(
    folder: &Path,
    path: &Path,
    offset: u64,
    bytes_max: u64,
) -> Result<OutputContent, TaskFault> {
    use std::io::{Seek as _, SeekFrom};
    let full = folder.join(path);
    let missing = |error: &io::Error| TaskFault {
        code: TaskErrorCode::NotFound,
        message: format!("{} is not among the collected outputs ({error})", path.display()),
    };
    // Nothing but files and folders was ever put there.
    let kind = fs::symlink_metadata(&full).map_err(|error| missing(&error))?;
    if kind.is_file() {
        let mut file = File::open(&full).map_err(|error| missing(&error))?;
        let offset = offset.min(kind.len());
        file.seek(SeekFrom::Start(offset)).map_err(|error| missing(&error))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes).map_err(|error| missing(&error))?;
        return Ok(piece_of(bytes, offset, kind.len()));
    }
    if !kind.is_dir() {
        return Err(special());
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(&full).map_err(|error| missing(&error))? {
        let entry = entry.map_err(|error| missing(&error))?;
        let metadata = entry.metadata().map_err(|error| missing(&error))?;
        let bytes = if metadata.is_file() { metadata.len() } else { 0 };
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push(OutputEntry { name, bytes, is_folder: metadata.is_dir() });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let truncated = entries.len() > ENTRIES_MAX;
    entries.truncate(ENTRIES_MAX);
    Ok(OutputContent::Folder { entries, truncated })
}

/// What may still be collected.
#[derive(Debug, Clone, Copy)]
struct Budget {
    n_bytes: u64,
    n_files: usize,
}

/// Collects the declared outputs of an ended container; returns what is to be told of
/// each, as an error if it is not there as a whole.
pub(super) async fn collect(
    docker: &Docker,
    container: &ContainerFile,
    wanted: &[String],
) -> Vec<Result<String, String>> {
    let mut told = Vec::new();
    if let Err(error) = create_folder(&container.outputs, 0o700) {
        return vec![Err(format!("outputs could not be collected: {error}"))];
    }
    let mut budget = Budget { n_bytes: container.outputs_bytes_max, n_files: FILES_MAX };
    for output in wanted {
        let Some(path) = clean(output) else { continue };
        let archive = download(docker, &container.name, &path);
        // An archive's entries begin with the last part of the path.
        let above = container.outputs.join(path.parent().unwrap_or(Path::new("")));
        let mut left = budget;
        let work = read_archive(archive, move |pieces| {
            let result = extract(pieces, &above, &mut left);
            (left, result)
        });
        let failed = |why: &dyn std::fmt::Display| Err(format!("output {output} could not be collected: {why}"));
        told.push(match tokio::time::timeout(Duration::from_millis(COLLECT_TIMEOUT_MS), work).await {
            Ok(Ok((left, result))) => {
                budget = left;
                result.map_or_else(|error| failed(&error), |collected| collected.told(output))
            }
            Ok(Err(fault)) => failed(&fault.message),
            Err(_) => failed(&"it took too long"),
        });
    }
    told
}

/// What was taken from one archive.
#[derive(Debug, Default, PartialEq, Eq)]
struct Collected {
    n_files: usize,
    n_bytes: u64,
    n_passed: usize,
    is_cut: bool,
}

impl Collected {
    fn told(&self, output: &str) -> Result<String, String> {
        let Self { n_files, n_bytes, n_passed, is_cut } = self;
        let passed =
            if *n_passed > 0 { format!(", {n_passed} links or special files passed over") } else { String::new() };
        let text = format!("output {output} collected: {n_files} files, {n_bytes} bytes{passed}");
        if *is_cut { Err(format!("{text}, cut: over the node's limit (outputs_mib_max)")) } else { Ok(text) }
    }
}

/// Writes the plain files and folders of an archive below `above`.
fn extract(pieces: impl Read, above: &Path, budget: &mut Budget) -> io::Result<Collected> {
    create_folder(above, 0o700)?;
    let mut collected = Collected::default();
    let mut archive = tar::Archive::new(pieces);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let name = entry.path()?.to_string_lossy().into_owned();
        let plain = kind.is_file() || kind.is_dir();
        let Some(path) = clean(&name).filter(|_| plain) else {
            collected.n_passed += 1;
            continue;
        };
        if budget.n_files == 0 {
            collected.is_cut = true;
            break;
        }
        budget.n_files -= 1;
        let target = above.join(path);
        if kind.is_dir() {
            create_folder(&target, 0o700)?;
            continue;
        }
        if entry.size() > budget.n_bytes {
            collected.is_cut = true;
            continue;
        }
        if let Some(folder) = target.parent() {
            create_folder(folder, 0o700)?;
        }
        let mut file = File::create(&target)?;
        let n_bytes = io::copy(&mut entry, &mut file)?;
        if n_bytes != entry.size() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.flush()?;
        budget.n_bytes = budget.n_bytes.saturating_sub(n_bytes);
        collected.n_files += 1;
        collected.n_bytes += n_bytes;
    }
    Ok(collected)
}

/// Removes collected outputs that are older than `keep`.
pub(super) fn sweep(outputs: &Path, keep: Duration) {
    let Ok(entries) = fs::read_dir(outputs) else { return };
    for entry in entries.flatten() {
        let age =
            entry.metadata().and_then(|metadata| metadata.modified()).map(|at| SystemTime::now().duration_since(at));
        if age.is_ok_and(|age| age.is_ok_and(|age| age > keep))
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "old outputs could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
        let mut header = tar::Header::new_gnu();
        // Written raw: a workload does not keep to what a library allows.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, name: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        builder.append_link(&mut header, name, target).unwrap();
    }

    #[test]
    fn only_declared_paths_are_read_and_none_leads_out() {
        let outputs = vec!["/srv/out".to_owned(), "results.json".to_owned()];
        let ok = |path| declared(&outputs, path).ok();
        assert_eq!(ok("/srv/out/./a//b"), Some(PathBuf::from("srv/out/a/b")));
        assert_eq!(ok("results.json"), Some(PathBuf::from("results.json")));
        for refused in ["/srv", "/srv/output", "/srv/out/../../etc/passwd", "/etc/passwd", "", "/"] {
            assert_eq!(declared(&outputs, refused).unwrap_err().code, TaskErrorCode::Refused, "{refused}");
        }
    }

    #[test]
    fn a_hostile_archive_writes_nothing_outside_and_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("outputs/wl.1");
        let bytes = archive(|builder| {
            link(builder, "out/link", "/");
            file(builder, "out/link/etc-passwd", b"no");
            file(builder, "../../escaped", b"no");
            file(builder, "/absolute", b"kept below");
            file(builder, "out/good", b"good");
            file(builder, "out/large", &[0; 100]);
        });
        let mut budget = Budget { n_bytes: 50, n_files: 10 };
        let collected = extract(bytes.as_slice(), &inside, &mut budget).unwrap();
        assert_eq!(collected, Collected { n_files: 3, n_bytes: 16, n_passed: 2, is_cut: true });
        assert_eq!(fs::read(inside.join("out/good")).unwrap(), b"good");
        assert!(inside.join("out/link").is_dir() && !folder.path().join("escaped").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_broke_off_does_not_pass_for_the_whole() {
        let whole = archive(|builder| file(builder, "result", &[b'x'; 2_000]));
        for n_bytes in [512, 1_000, 2_511] {
            let part = &whole[..n_bytes];
            let folder = tempfile::tempdir().unwrap();
            let mut budget = Budget { n_bytes: 10_000, n_files: 10 };
            assert!(extract(part, folder.path(), &mut budget).is_err(), "{n_bytes} bytes");
            assert_eq!(read_entry(part, 0, 10_000).unwrap_err().code, TaskErrorCode::Internal, "{n_bytes} bytes");
        }
        // All entries that came are whole, and the engine breaks off before the end of the archive.
        let pieces = vec![Ok(Bytes::from(whole[..2_560].to_vec())), Err(EngineFault::RequestTimeoutError)];
        let folder = tempfile::tempdir().unwrap();
        let above = folder.path().to_owned();
        let stream: Archive = Box::pin(futures_util::stream::iter(pieces));
        let mut budget = Budget { n_bytes: 10_000, n_files: 10 };
        let taken = read_archive(stream, move |pieces| extract(pieces, &above, &mut budget)).await.unwrap();
        assert!(taken.is_err(), "{taken:?}");
    }

    #[test]
    fn pieces_and_listings() {
        let bytes = archive(|builder| file(builder, "result", b"0123456789"));
        let piece = read_entry(bytes.as_slice(), 4, 3).unwrap();
        let expected = OutputContent::File { bytes: b"456".to_vec(), offset: 4, total_bytes: 10, sha256: None };
        assert_eq!(piece, expected);
        let bytes = archive(|builder| link(builder, "result", "/etc/shadow"));
        assert_eq!(read_entry(bytes.as_slice(), 0, 3).unwrap_err().code, TaskErrorCode::Refused);
    }
}
