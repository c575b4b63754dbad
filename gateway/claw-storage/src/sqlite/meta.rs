//! The journal's summary row: where the chain stands, what is archived, which
//! snapshot is the latest, how many blobs there are. Checksummed as a whole and
//! rewritten in every transaction under a rising generation.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::journal::{Damage, DamageKind, GENESIS, Head, JournalError, sha256};

use super::db::{DB_FILE, content_damage, sql};

/// Format of the database that this build writes.
pub(crate) const FORMAT: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    /// Format of the database: the one field that every later format keeps.
    pub(crate) format: u32,
    /// Number of the write transaction that wrote this row.
    pub(crate) generation: u64,
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
    #[serde(with = "hex32")]
    pub(crate) hash: [u8; 32],
    /// Events up to here stand in archive files.
    pub(crate) archived_seq: u64,
    #[serde(with = "hex32")]
    pub(crate) archived_hash: [u8; 32],
    pub(crate) n_archives: u64,
    pub(crate) snapshot: Option<SnapshotMeta>,
    pub(crate) n_blobs: u64,
    /// Exclusive-or of the digests of all blob rows.
    #[serde(with = "hex32")]
    pub(crate) blobs_digest: [u8; 32],
}

/// The latest snapshot's file and what must be in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotMeta {
    pub(crate) seq: u64,
    pub(crate) format: u16,
    /// Name inside the snapshot folder.
    pub(crate) file: String,
    pub(crate) bytes: u64,
    #[serde(with = "hex32")]
    pub(crate) sha256: [u8; 32],
}

impl Meta {
    pub(crate) const fn genesis() -> Self {
        Self {
            format: FORMAT,
            generation: 0,
            seq: 0,
            epoch: 0,
            hash: GENESIS,
            archived_seq: 0,
            archived_hash: GENESIS,
            n_archives: 0,
            snapshot: None,
            n_blobs: 0,
            blobs_digest: [0; 32],
        }
    }

    pub(crate) const fn head(&self) -> Head {
        Head { seq: self.seq, epoch: self.epoch, hash: self.hash }
    }

    pub(crate) fn snapshot_seq(&self) -> Option<u64> {
        self.snapshot.as_ref().map(|snapshot| snapshot.seq)
    }

    /// Takes one blob row into the digest, or out of it again.
    pub(crate) fn toggle_blob(&mut self, handle: &str, bytes: Option<&[u8]>) {
        for (sum, byte) in self.blobs_digest.iter_mut().zip(blob_digest(handle, bytes)) {
            *sum ^= byte;
        }
    }

    /// Reads and checks the row.
    pub(crate) fn load(conn: &Connection) -> Result<Self, JournalError> {
        parse(&load_body(conn)?)
    }

    /// Reads the format alone, which is readable whatever else a later format holds.
    pub(crate) fn load_format(conn: &Connection) -> Result<u32, JournalError> {
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u32,
        }
        parse::<FormatOnly>(&load_body(conn)?).map(|only| only.format)
    }

    /// Writes the row inside the caller's transaction.
    pub(crate) fn store(&self, conn: &Connection) -> Result<(), JournalError> {
        let body = serde_json::to_vec(self).expect("the summary is plain data");
        conn.prepare_cached("INSERT OR REPLACE INTO meta(id, body, sha256) VALUES (0, ?1, ?2)")
            .and_then(|mut statement| statement.execute(params![body, sha256(&[&body])]))
            .map_err(sql("write the summary"))?;
        Ok(())
    }
}

/// The row's body, its checksum proven.
fn load_body(conn: &Connection) -> Result<Vec<u8>, JournalError> {
    let read = conn.prepare_cached("SELECT body, sha256 FROM meta WHERE id = 0").and_then(|mut statement| {
        statement.query_row([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, [u8; 32]>(1)?)))
    });
    let (body, checksum) = read.map_err(content_damage("read the summary", DB_FILE, DamageKind::MetaChecksum))?;
    if sha256(&[&body]) == checksum {
        return Ok(body);
    }
    let detail = "the summary row fails its checksum";
    Err(Damage::new(DB_FILE, DamageKind::MetaChecksum, detail).into())
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, JournalError> {
    serde_json::from_slice(body).map_err(|error| Damage::new(DB_FILE, DamageKind::MetaChecksum, error).into())
}

fn blob_digest(handle: &str, bytes: Option<&[u8]>) -> [u8; 32] {
    let len = (handle.len() as u64).to_be_bytes();
    match bytes {
        Some(bytes) => sha256(&[&len, handle.as_bytes(), &[1], bytes]),
        None => sha256(&[&len, handle.as_bytes(), &[0]]),
    }
}

/// 32 bytes as 64 hexadecimal digits.
mod hex32 {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::journal::{from_hex, to_hex};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        from_hex(&text)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| D::Error::custom("not 64 hexadecimal digits"))
    }
}
