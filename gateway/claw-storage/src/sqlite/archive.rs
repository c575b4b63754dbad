//! Archive files: events that left the live journal, one JSON line each.
//!
//! ```text
//! archive/000001.jsonl
//!   {"archive":"claw-journal","format":1,"index":1,"first_seq":1,"last_seq":2,"prev_hash":"00…"}
//!   {"seq":1,"epoch":1,"at_ms":0,"kind":"…","version":1,"hash":"…","payload":{…}}
//!   {"seq":2,…}
//! ```
//!
//! The chain runs on through the files. A payload that is one line of JSON stands
//! as such, any other bytes as `payload_hex`; either way the hash is over the
//! original bytes, so a file is proof of its events without the database.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::durable;
use crate::journal::{ChainWalk, Damage, DamageKind, JournalError, Stored, from_hex, sha256, to_hex};

use super::db::{DB_FILE, column, content_damage, counter, file, sql};

pub(crate) const ARCHIVE_DIR: &str = "archive";
pub(crate) const ARCHIVE_EXTENSION: &str = "jsonl";
const FORMAT_NAME: &str = "claw-journal";
const FORMAT: u32 = 1;

/// What the database knows of one archive file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArchiveRow {
    /// Position, from 1.
    pub(crate) index: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heading<'a> {
    #[serde(borrow)]
    archive: Cow<'a, str>,
    format: u32,
    index: u64,
    first_seq: u64,
    last_seq: u64,
    #[serde(borrow)]
    prev_hash: Cow<'a, str>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    seq: u64,
    epoch: u64,
    at_ms: i64,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    version: u16,
    #[serde(borrow)]
    hash: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

impl ArchiveRow {
    /// File name relative to the journal's folder.
    pub(crate) fn name(&self) -> String {
        name_of(self.index)
    }

    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.name())
    }

    /// All rows, checked to be without holes.
    pub(crate) fn load_all(conn: &Connection) -> Result<Vec<Self>, JournalError> {
        let damage = || content_damage("read the archive list", DB_FILE, DamageKind::ArchiveContent);
        let mut statement = conn
            .prepare("SELECT idx, first_seq, last_seq, bytes, sha256 FROM archives ORDER BY idx")
            .map_err(damage())?;
        let rows: Vec<Self> = statement
            .query_map([], |row| {
                Ok(Self {
                    index: counter(row, 0)?,
                    first_seq: counter(row, 1)?,
                    last_seq: counter(row, 2)?,
                    bytes: counter(row, 3)?,
                    sha256: row.get(4)?,
                })
            })
            .and_then(Iterator::collect)
            .map_err(damage())?;
        let mut next = (1, 1);
        for row in &rows {
            if (row.index, row.first_seq) != next || row.last_seq < row.first_seq {
                let detail = format!("archive list has a hole before file {}", row.index);
                let damage = Damage::new(DB_FILE, DamageKind::ArchiveContent, detail);
                return Err(damage.beginning_at(next.1).into());
            }
            next = (row.index + 1, row.last_seq + 1);
        }
        Ok(rows)
    }

    /// Writes the row inside the caller's transaction.
    pub(crate) fn insert(&self, conn: &Connection) -> Result<(), JournalError> {
        let values =
            params![column(self.index), column(self.first_seq), column(self.last_seq), column(self.bytes), self.sha256];
        conn.execute("INSERT INTO archives VALUES (?1, ?2, ?3, ?4, ?5)", values)
            .map(|_| ())
            .map_err(sql("list an archive file"))
    }

    /// The events of the file, content and chain checked.
    pub(crate) fn read(&self, dir: &Path) -> Result<Vec<Stored>, JournalError> {
        let name = self.name();
        let content = match fs::read(self.path(dir)) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let damage = Damage::new(name, DamageKind::FileMissing, "archive file is not there");
                return Err(damage.beginning_at(self.first_seq).into());
            }
            Err(error) => return Err(file("read an archive file")(error)),
        };
        let events = decode(&name, &content)?;
        let ends = events.first().zip(events.last());
        let is_listed = ends.is_some_and(|(first, last)| (first.seq, last.seq) == (self.first_seq, self.last_seq));
        if !is_listed || content.len() as u64 != self.bytes || sha256(&[&content]) != self.sha256 {
            let detail = "the file is not the one that was archived";
            let damage = Damage::new(name, DamageKind::ArchiveContent, detail);
            return Err(damage.beginning_at(self.first_seq).into());
        }
        Ok(events)
    }
}

/// File name of archive `index`, relative to the journal's folder.
pub(crate) fn name_of(index: u64) -> String {
    format!("{ARCHIVE_DIR}/{index:06}.{ARCHIVE_EXTENSION}")
}

/// Writes `events` as archive file `index`, reads it back, and returns its row.
pub(crate) fn write(
    dir: &Path,
    index: u64,
    prev_hash: &[u8; 32],
    events: &[Stored],
) -> Result<ArchiveRow, JournalError> {
    let (Some(first), Some(last)) = (events.first(), events.last()) else {
        let damage = Damage::new(name_of(index), DamageKind::SequenceGap, "nothing to archive");
        return Err(damage.into());
    };
    let content = encode(index, prev_hash, events);
    let row = ArchiveRow {
        index,
        first_seq: first.seq,
        last_seq: last.seq,
        bytes: content.len() as u64,
        sha256: sha256(&[&content]),
    };
    durable::write_atomic(&row.path(dir), &[&content]).map_err(file("write an archive file"))?;
    // The live copy goes only after the archived one was seen to be the same.
    if row.read(dir)? != events {
        let damage = Damage::new(row.name(), DamageKind::ArchiveContent, "read back differently");
        return Err(damage.beginning_at(row.first_seq).into());
    }
    Ok(row)
}

fn encode(index: u64, prev_hash: &[u8; 32], events: &[Stored]) -> Vec<u8> {
    let heading = Heading {
        archive: FORMAT_NAME.into(),
        format: FORMAT,
        index,
        first_seq: events.first().map_or(0, |event| event.seq),
        last_seq: events.last().map_or(0, |event| event.seq),
        prev_hash: to_hex(prev_hash).into(),
    };
    let mut content = serde_json::to_vec(&heading).expect("a heading is plain data");
    content.push(b'\n');
    for event in events {
        let raw = raw_payload(&event.payload);
        let line = Line {
            seq: event.seq,
            epoch: event.epoch,
            at_ms: event.at_ms,
            kind: event.kind.as_str().into(),
            version: event.version,
            hash: to_hex(&event.hash).into(),
            payload: raw,
            payload_hex: raw.is_none().then(|| to_hex(&event.payload)),
        };
        serde_json::to_writer(&mut content, &line).expect("a line is plain data");
        content.push(b'\n');
    }
    content
}

/// The payload as JSON, when it is JSON that survives a line of its own byte for byte.
fn raw_payload(payload: &[u8]) -> Option<&RawValue> {
    let raw: &RawValue = serde_json::from_slice(payload).ok()?;
    let is_exact = raw.get().as_bytes() == payload && payload != b"null";
    (is_exact && !payload.contains(&b'\n')).then_some(raw)
}

/// The events of an archive file's content, each checked against the chain.
pub(crate) fn decode(name: &str, content: &[u8]) -> Result<Vec<Stored>, Damage> {
    let unreadable = |detail: &str| Damage::new(name, DamageKind::ArchiveContent, detail);
    let body = content.strip_suffix(b"\n").ok_or_else(|| unreadable("the last line is cut off"))?;
    let mut lines = body.split(|byte| *byte == b'\n');
    let heading: Heading<'_> = lines
        .next()
        .and_then(|line| serde_json::from_slice(line).ok())
        .ok_or_else(|| unreadable("the heading is not readable"))?;
    let prev_hash: [u8; 32] = from_hex(&heading.prev_hash)
        .and_then(|hash| hash.try_into().ok())
        .ok_or_else(|| unreadable("the heading has no chain hash"))?;
    if heading.archive != FORMAT_NAME || heading.format != FORMAT || heading.first_seq == 0 {
        return Err(unreadable("the heading is not that of a journal archive"));
    }
    let mut walk = ChainWalk::after(heading.first_seq - 1, prev_hash);
    let mut events = Vec::new();
    for line in lines {
        let event = decode_line(line).ok_or_else(|| {
            let detail = format!("the line of event {} is not readable", walk.seq + 1);
            unreadable(&detail).beginning_at(walk.seq + 1)
        })?;
        walk.step(name, &event)?;
        events.push(event);
    }
    if walk.seq != heading.last_seq {
        let detail = format!("ends at event {}, not at {}", walk.seq, heading.last_seq);
        return Err(unreadable(&detail).beginning_at(walk.seq + 1));
    }
    Ok(events)
}

fn decode_line(line: &[u8]) -> Option<Stored> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let payload = match (line.payload, line.payload_hex) {
        (Some(raw), None) => raw.get().as_bytes().to_vec(),
        (None, Some(hex)) => from_hex(&hex)?,
        (Some(_), Some(_)) | (None, None) => return None,
    };
    Some(Stored {
        seq: line.seq,
        epoch: line.epoch,
        at_ms: line.at_ms,
        kind: line.kind.into_owned(),
        version: line.version,
        payload,
        hash: from_hex(&line.hash)?.try_into().ok()?,
    })
}
