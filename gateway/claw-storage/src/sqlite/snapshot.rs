//! Snapshot files: one saved state, self-describing and checksummed.
//!
//! The file is written first, under a name that was never used; the transaction
//! that names it as the latest comes second; the previous file goes last. A crash
//! leaves at most a file that nothing names, which the next open removes.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::durable;
use crate::journal::{Damage, DamageKind, JournalError, Snapshot, sha256};

use super::db::file;
use super::meta::SnapshotMeta;
use crate::state_writer::{StateWriter, write_summed};

pub(crate) const SNAPSHOT_DIR: &str = "snapshot";
pub(crate) const SNAPSHOT_EXTENSION: &str = "snap";

const MAGIC: &[u8; 8] = b"CLAWSNP1";
/// Magic, format, sequence, chain hash.
const HEADER_BYTES: usize = 8 + 2 + 8 + 32;

/// File name relative to the journal's folder.
pub(crate) fn name_of(meta: &SnapshotMeta) -> String {
    format!("{SNAPSHOT_DIR}/{}", meta.file)
}

/// What stands before the state.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) seq: u64,
    pub(crate) format: u16,
    /// Chain hash of event `seq`.
    pub(crate) hash: [u8; 32],
}

/// Writes the file, durably. `number` makes its name unique.
pub(crate) fn write(
    dir: &Path,
    number: u64,
    header: &Header,
    state: impl FnOnce(&mut StateWriter<'_>) -> io::Result<()>,
) -> Result<SnapshotMeta, JournalError> {
    let Header { seq, format, hash } = *header;
    let name = format!("{seq:012}-{number:012}.{SNAPSHOT_EXTENSION}");
    let written = durable::write_atomic_with(&dir.join(SNAPSHOT_DIR).join(&name), |file| {
        write_summed(file, |out| {
            for part in [&MAGIC[..], &format.to_be_bytes(), &seq.to_be_bytes(), &hash] {
                out.write_all(part)?;
            }
            state(out)
        })
    });
    let (bytes, sha256) = written.map_err(file("write a snapshot"))?;
    Ok(SnapshotMeta { seq, format, file: name, bytes, sha256 })
}

/// Reads the file and checks it against what was saved.
pub(crate) fn read(dir: &Path, meta: &SnapshotMeta) -> Result<Snapshot, JournalError> {
    let name = name_of(meta);
    let content = match fs::read(dir.join(&name)) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let detail = "the latest snapshot is not there";
            return Err(Damage::new(name, DamageKind::FileMissing, detail).into());
        }
        Err(error) => return Err(file("read a snapshot")(error)),
    };
    let intact = content.len() as u64 == meta.bytes && sha256(&[&content]) == meta.sha256;
    let snapshot = intact.then(|| decode(&content)).flatten();
    let matching = snapshot.filter(|snapshot| (snapshot.seq, snapshot.format) == (meta.seq, meta.format));
    matching.ok_or_else(|| {
        let detail = "the file is not the one that was saved";
        Damage::new(name, DamageKind::SnapshotContent, detail).into()
    })
}

fn decode(content: &[u8]) -> Option<Snapshot> {
    let (header, state) = content.split_at_checked(HEADER_BYTES)?;
    let rest = header.strip_prefix(MAGIC)?;
    Some(Snapshot {
        format: u16::from_be_bytes(rest[..2].try_into().ok()?),
        seq: u64::from_be_bytes(rest[2..10].try_into().ok()?),
        hash: rest[10..].try_into().ok()?,
        state: state.to_vec(),
    })
}
