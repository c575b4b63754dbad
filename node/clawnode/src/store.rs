//! The node's record store: one file of changes, folded at start.
//!
//! `records.log` is a row of frames `length u32 | crc32 u32 | JSON`. The first
//! frame is a whole state, each later one a change. A batch of changes is one
//! write and one flush. What a crash leaves half-written at the end is cut off
//! at the next start; damage before the end is an error with its place, never a
//! silent loss. Once the file has grown, the folded state replaces it in one step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{Durability, replace};
use crate::node::{DurableChange, DurableState};

const HEADER_BYTES: usize = 8;
/// Largest frame, bytes.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The file is rewritten when it is larger than this and than twice its folded state.
const COMPACT_BYTES_MIN: u64 = 1024 * 1024;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("record store {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file is damaged before its end: its records cannot be trusted.
    #[error(
        "record store {path} is damaged at byte {offset} of {length}; move it away to start with a new store (the gateway then sees a new store id)"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where the first bad frame begins.
        offset: u64,
        /// Length of the file.
        length: u64,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum FrameOut<'a> {
    State(&'a DurableState),
    Change(&'a DurableChange),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum FrameIn {
    State(DurableState),
    Change(DurableChange),
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
    /// Where the next frame goes; anything behind it is the torn rest of a failed write.
    length: u64,
    state_bytes: u64,
    compact_bytes_min: u64,
    /// The fold of everything on disk.
    state: DurableState,
}

fn push_frame(buffer: &mut Vec<u8>, frame: &FrameOut<'_>) -> io::Result<()> {
    let json = serde_json::to_vec(frame)?;
    let length = u32::try_from(json.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
    buffer.extend_from_slice(&json);
    Ok(())
}

/// The JSON of the frame at the front, if it is complete and intact.
fn read_frame(bytes: &[u8]) -> Option<&[u8]> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_le_bytes(*header.first_chunk::<4>()?) as usize;
    let crc = u32::from_le_bytes(*header.last_chunk::<4>()?);
    let json = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(length)?)?;
    (length <= FRAME_BYTES_MAX && crc32fast::hash(json) == crc).then_some(json)
}

/// Whether an intact frame begins anywhere in `bytes`: then what stands before
/// it is damage, not a torn tail.
fn has_intact_frame(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|start| {
        let tail = &bytes[start..];
        read_frame(tail).is_some_and(|json| !json.is_empty() && serde_json::from_slice::<FrameIn>(json).is_ok())
    })
}

struct Folded {
    state: Option<DurableState>,
    length: u64,
    state_bytes: u64,
}

fn fold(path: &Path, bytes: &[u8]) -> Result<Folded, StoreError> {
    let mut state: Option<DurableState> = None;
    let (mut offset, mut state_bytes) = (0, 0);
    while let Some(json) = read_frame(&bytes[offset..]) {
        match (serde_json::from_slice(json), state.as_mut()) {
            (Ok(FrameIn::State(mut whole)), _) => {
                state_bytes = json.len() as u64;
                whole.recount();
                state = Some(whole);
            }
            (Ok(FrameIn::Change(change)), Some(state)) => state.apply(&change),
            (Ok(FrameIn::Change(_)), None) | (Err(_), _) => break,
        }
        offset += HEADER_BYTES + json.len();
    }
    let rest = bytes.get(offset..).unwrap_or_default();
    // A file may have grown before its blocks were written: then its rest is zeros.
    let is_torn = rest.iter().all(|byte| *byte == 0);
    let damaged = !is_torn && (has_intact_frame(rest.get(1..).unwrap_or_default()) || read_frame(rest).is_some());
    if damaged || (state.is_none() && !bytes.is_empty()) {
        return Err(StoreError::Damaged {
            path: path.to_path_buf(),
            offset: offset as u64,
            length: bytes.len() as u64,
        });
    }
    Ok(Folded { state, length: offset as u64, state_bytes })
}

impl Store {
    /// Opens the store in `folder`, or makes a new one with the id `new_store_id`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(folder: &Path, new_store_id: u128) -> Result<Self, StoreError> {
        let path = folder.join("records.log");
        let io_error = |source| StoreError::Io { path: path.clone(), source };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error(error)),
        };
        let folded = fold(&path, &bytes)?;
        let state = folded.state.unwrap_or_else(|| DurableState::new(new_store_id));
        let open =
            |path: &Path| OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut store = Self {
            file: open(&path).map_err(io_error)?,
            length: folded.length,
            state_bytes: folded.state_bytes,
            compact_bytes_min: COMPACT_BYTES_MIN,
            state,
            path: path.clone(),
        };
        if bytes.is_empty() {
            store.compact().map_err(io_error)?;
        } else {
            let n_torn = bytes.len() as u64 - store.length;
            if n_torn > 0 {
                tracing::warn!(path = %path.display(), n_torn, "the record store ended in a half-written batch, which is cut off");
            }
            store.cut().map_err(io_error)?;
        }
        Ok(store)
    }

    /// The fold of what is on disk, without opening it for writing; `None` if
    /// there is no store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn peek(folder: &Path) -> Result<Option<DurableState>, StoreError> {
        let path = folder.join("records.log");
        match fs::read(&path) {
            Ok(bytes) => Ok(fold(&path, &bytes)?.state),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    /// Everything on disk, folded.
    pub fn state(&self) -> &DurableState {
        &self.state
    }

    /// Writes a batch of changes: all of it is on disk, or none of it counts.
    ///
    /// # Errors
    /// What the file system says; the batch may be tried again.
    pub fn append(&mut self, changes: &[DurableChange]) -> io::Result<()> {
        let mut buffer = Vec::new();
        for change in changes {
            push_frame(&mut buffer, &FrameOut::Change(change))?;
        }
        self.file.seek(SeekFrom::Start(self.length))?;
        let written = self.file.write_all(&buffer).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Cut off what may have reached the disk, so that a later start does
            // not read half a batch that was never reported as written.
            if let Err(cut) = self.cut() {
                tracing::warn!(%cut, "the record store could not be cut back");
            }
            return Err(error);
        }
        self.length += buffer.len() as u64;
        for change in changes {
            self.state.apply(change);
        }
        if self.length > self.compact_bytes_min && self.length > 2 * self.state_bytes {
            // Not urgent: the long file is as good as the short one.
            if let Err(error) = self.compact() {
                tracing::warn!(%error, "the record store could not be compacted");
            }
        }
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.sync_data()
    }

    /// Replaces the file by its fold.
    fn compact(&mut self) -> io::Result<()> {
        let mut buffer = Vec::new();
        push_frame(&mut buffer, &FrameOut::State(&self.state))?;
        replace(&self.path, &buffer, Durability::Synced)?;
        self.file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        self.length = buffer.len() as u64;
        self.state_bytes = self.length;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
