//! Snapshot files: one saved state, self-describing and checksummed.
//!
//! The file is written first, under a name that was never used; the transaction
//! that names it as the latest comes second; the previous file goes last. A crash
//! leaves at most a file that nothing names, which the next open removes.

use std::fs;
use std::path::Path;

use crate::durable;
use crate::journal::{Damage, DamageKind, JournalError, Snapshot, sha256};

use super::db::file;
use super::meta::SnapshotMeta;

pub(crate) const SNAPSHOT_DIR: &str = "snapshot";
pub(crate) const SNAPSHOT_EXTENSION: &str = "snap";

const MAGIC: &[u8; 8] = b"CLAWSNP1";
/// Magic, format, sequence, chain hash.
const HEADER_BYTES: usize = 8 + 2 + 8 + 32;

/// File name relative to the journal's folder.
pub(crate) fn name_of(meta: &SnapshotMeta) -> String {
    format!("{SNAPSHOT_DIR}/{}", meta.file)
}

/// Writes the file, durably. `number` makes its name unique.
pub(crate) fn write(dir: &Path, number: u64, snapshot: &Snapshot) -> Result<SnapshotMeta, JournalError> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&snapshot.format.to_be_bytes());
    header.extend_from_slice(&snapshot.seq.to_be_bytes());
    header.extend_from_slice(&snapshot.hash);
    let parts: [&[u8]; 2] = [&header, &snapshot.state];
    let meta = SnapshotMeta {
        seq: snapshot.seq,
        format: snapshot.format,
        file: format!("{:012}-{number:012}.{SNAPSHOT_EXTENSION}", snapshot.seq),
        bytes: parts.iter().map(|part| part.len() as u64).sum(),
        sha256: sha256(&parts),
    };
    durable::write_atomic(&dir.join(name_of(&meta)), &parts).map_err(file("write a snapshot"))?;
    Ok(meta)
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
