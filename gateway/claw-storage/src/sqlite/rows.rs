//! Rows of live events: what one append wrote stands packed together.
//!
//! A row is the events of one epoch and one moment, in order, as one LZ4 block:
//!
//! ```text
//! event    kind length (1 byte) ‖ kind ‖ version (2) ‖ payload length (4) ‖ payload      integers big-endian
//! block    event ‖ event ‖ …                                                             then LZ4
//! ```
//!
//! What agents submit together says the same things in the same words, so their rows take half of
//! the bytes or less, and pages are what a durable append costs. Chain hashes are not
//! kept but for the first and the last of a row: the others follow from the events.

use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, params};

use crate::journal::{
    Batch, ChainWalk, Damage, DamageKind, Head, JournalError, KIND_BYTES_MAX, PAYLOAD_BYTES_MAX, Stored, chain_hash,
};

use super::db::{DB_FILE, column, content_damage, counter, sql};
use super::meta::Meta;

/// Bytes of unpacked events of a row at most; a larger event has a row of its own.
const ROW_BYTES: usize = 256 * 1024;
/// What stands before a kind, before a version and before a payload, bytes.
const HEAD_BYTES: usize = 1 + 2 + 4;
/// Most bytes of an unpacked event.
const EVENT_BYTES_MAX: usize = HEAD_BYTES + KIND_BYTES_MAX + PAYLOAD_BYTES_MAX;
const COLUMNS: &str = "first_seq, n_events, epoch, at_ms, prev_hash, hash, unpacked_bytes, body";

/// Events that stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRow {
    pub(crate) first_seq: u64,
    n_events: u64,
    epoch: u64,
    at_ms: i64,
    /// Chain hash before the first event.
    prev_hash: [u8; 32],
    /// Chain hash of the last one.
    hash: [u8; 32],
    unpacked_bytes: usize,
    /// The LZ4 block.
    body: Vec<u8>,
}

/// Takes events in order and gives rows.
pub(crate) struct Packer {
    rows: Vec<EventRow>,
    unpacked: Vec<u8>,
    n_events: u64,
    at_ms: i64,
    /// Where the chain stood before the events in `unpacked`.
    from: Head,
    /// Where it stands after them; its epoch is theirs.
    to: Head,
}

impl Packer {
    /// For events that come after where the chain stands at `head`.
    pub(crate) const fn after(head: Head) -> Self {
        Self { rows: Vec::new(), unpacked: Vec::new(), n_events: 0, at_ms: 0, from: head, to: head }
    }

    /// Takes an event after which the chain stands at `to`.
    fn push(&mut self, at_ms: i64, to: Head, (kind, version, payload): (&str, u16, &[u8])) {
        let bytes = HEAD_BYTES + kind.len() + payload.len();
        if (at_ms, to.epoch) != (self.at_ms, self.to.epoch) || self.unpacked.len() + bytes > ROW_BYTES {
            self.end_row();
        }
        let kind_bytes = u8::try_from(kind.len()).expect("a kind is at most KIND_BYTES_MAX bytes");
        let payload_bytes = u32::try_from(payload.len()).expect("a payload is at most PAYLOAD_BYTES_MAX bytes");
        self.unpacked.push(kind_bytes);
        self.unpacked.extend_from_slice(kind.as_bytes());
        self.unpacked.extend_from_slice(&version.to_be_bytes());
        self.unpacked.extend_from_slice(&payload_bytes.to_be_bytes());
        self.unpacked.extend_from_slice(payload);
        self.n_events += 1;
        (self.at_ms, self.to) = (at_ms, to);
    }

    fn end_row(&mut self) {
        if self.n_events > 0 {
            self.rows.push(EventRow {
                first_seq: self.from.seq + 1,
                n_events: self.n_events,
                epoch: self.to.epoch,
                at_ms: self.at_ms,
                prev_hash: self.from.hash,
                hash: self.to.hash,
                unpacked_bytes: self.unpacked.len(),
                body: lz4_flex::block::compress(&self.unpacked),
            });
        }
        self.unpacked.clear();
        self.n_events = 0;
        self.from = self.to;
    }

    /// Takes an event that has its place in the chain already.
    pub(crate) fn push_stored(&mut self, event: &Stored) {
        let to = Head { seq: event.seq, epoch: event.epoch, hash: event.hash };
        self.push(event.at_ms, to, (&event.kind, event.version, &event.payload));
    }

    /// The rows to which no more comes.
    pub(crate) fn take_full(&mut self) -> Vec<EventRow> {
        std::mem::take(&mut self.rows)
    }

    /// The rows that were not taken yet, with the last one.
    pub(crate) fn rows(mut self) -> Vec<EventRow> {
        self.end_row();
        self.rows
    }
}

/// The rows that `batches` become on top of `head`, and the head after them.
pub(crate) fn pack(head: &Head, at_ms: i64, batches: &[Batch]) -> (Vec<EventRow>, Head) {
    let mut next = *head;
    let mut packer = Packer::after(next);
    for record in batches.iter().flat_map(|batch| &batch.records) {
        next.seq += 1;
        next.hash = chain_hash(&next.hash, next.seq, next.epoch, at_ms, &record.kind, record.version, &record.payload);
        packer.push(at_ms, next, (&record.kind, record.version, &record.payload));
    }
    (packer.rows(), next)
}

/// The same for events that have their place in the chain already, after one with the hash `prev_hash`.
pub(crate) fn pack_stored(prev_hash: [u8; 32], events: &[Stored]) -> Vec<EventRow> {
    let before = events.first().map_or(0, |event| event.seq - 1);
    let mut packer = Packer::after(Head { seq: before, epoch: 0, hash: prev_hash });
    for event in events {
        packer.push_stored(event);
    }
    packer.rows()
}

impl EventRow {
    /// The same row with something else in it.
    #[cfg(test)]
    pub(crate) fn with(self, unpacked_bytes: usize, body: Vec<u8>) -> Self {
        Self { unpacked_bytes, body, ..self }
    }

    /// Bytes that the row takes.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.n_events).saturating_sub(1)
    }

    /// Writes the row inside the caller's transaction.
    pub(crate) fn insert(&self, conn: &Connection) -> rusqlite::Result<()> {
        let values = params![
            column(self.first_seq),
            column(self.n_events),
            column(self.epoch),
            self.at_ms,
            self.prev_hash,
            self.hash,
            column(self.unpacked_bytes as u64),
            self.body
        ];
        conn.prepare_cached("INSERT INTO rounds VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(values)?;
        Ok(())
    }

    pub(crate) fn of(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            first_seq: counter(row, 0)?,
            n_events: counter(row, 1)?,
            epoch: counter(row, 2)?,
            at_ms: row.get(3)?,
            prev_hash: row.get(4)?,
            hash: row.get(5)?,
            unpacked_bytes: usize::try_from(counter(row, 6)?).unwrap_or(usize::MAX),
            body: row.get(7)?,
        })
    }

    /// The events, checked to be those that the row's hashes speak of.
    pub(crate) fn events(&self) -> Result<Vec<Stored>, Damage> {
        let mut walk = ChainWalk::after(self.first_seq.saturating_sub(1), self.prev_hash);
        self.walk(&mut walk)
    }

    /// The events; the row must be what comes next on the walk.
    pub(crate) fn walk(&self, walk: &mut ChainWalk) -> Result<Vec<Stored>, Damage> {
        if self.first_seq != walk.seq + 1 {
            let detail = format!("event {} should come next, event {} stands there", walk.seq + 1, self.first_seq);
            return Err(Damage::new(DB_FILE, DamageKind::SequenceGap, detail).beginning_at(walk.seq + 1));
        }
        let broken = |why: &str| {
            let detail = format!("events {} to {} are not what was written: {why}", self.first_seq, self.last_seq());
            Damage::new(DB_FILE, DamageKind::ChainBroken, detail).beginning_at(self.first_seq)
        };
        if self.prev_hash != walk.hash {
            return Err(broken("they follow another event"));
        }
        if self.epoch < walk.epoch {
            return Err(broken("they are of an older epoch than those before"));
        }
        let unpacked = self.unpacked().ok_or_else(|| broken("they do not unpack"))?;
        let mut events = Vec::new();
        let mut rest = unpacked.as_slice();
        for _ in 0..self.n_events {
            let event = self.next_event(&mut rest, walk).ok_or_else(|| broken("they do not unpack"))?;
            *walk = ChainWalk { seq: event.seq, hash: event.hash, epoch: event.epoch };
            events.push(event);
        }
        if !rest.is_empty() || walk.hash != self.hash {
            return Err(broken("they hash to something else"));
        }
        Ok(events)
    }

    /// Only what a row of this format can have is unpacked, so that what damaged ones take is bounded.
    fn unpacked(&self) -> Option<Vec<u8>> {
        let bytes_max = if self.n_events == 1 { EVENT_BYTES_MAX } else { ROW_BYTES };
        if self.n_events == 0 || self.unpacked_bytes > bytes_max {
            return None;
        }
        let unpacked = lz4_flex::block::decompress(&self.body, self.unpacked_bytes).ok()?;
        (unpacked.len() == self.unpacked_bytes).then_some(unpacked)
    }

    /// Cuts the first event off `rest`.
    fn next_event(&self, rest: &mut &[u8], walk: &ChainWalk) -> Option<Stored> {
        let kind_bytes = rest.split_off_first()?;
        let kind = std::str::from_utf8(rest.split_off(..usize::from(*kind_bytes))?).ok()?;
        let version = u16::from_be_bytes(*rest.split_off(..2)?.first_chunk()?);
        let payload_bytes = u32::from_be_bytes(*rest.split_off(..4)?.first_chunk()?);
        let payload = rest.split_off(..usize::try_from(payload_bytes).ok()?)?;
        let seq = walk.seq + 1;
        Some(Stored {
            seq,
            epoch: self.epoch,
            at_ms: self.at_ms,
            kind: kind.to_owned(),
            version,
            payload: payload.to_vec(),
            hash: chain_hash(&walk.hash, seq, self.epoch, self.at_ms, kind, version, payload),
        })
    }
}

/// The row in which event `seq` stands.
fn row_of(conn: &Connection, seq: u64) -> rusqlite::Result<Option<EventRow>> {
    let query = format!("SELECT {COLUMNS} FROM rounds WHERE first_seq <= ?1 ORDER BY first_seq DESC LIMIT 1");
    let found = conn.prepare_cached(&query)?.query_row([column(seq)], EventRow::of).optional()?;
    Ok(found.filter(|row| seq <= row.last_seq()))
}

/// The row in which event `seq` stands, which must be there.
fn require_row_of(conn: &Connection, seq: u64) -> Result<EventRow, JournalError> {
    row_of(conn, seq).map_err(event_damage("read an event"))?.ok_or_else(|| gap(seq))
}

fn gap(seq: u64) -> JournalError {
    let detail = format!("event {seq} is not there");
    Damage::new(DB_FILE, DamageKind::SequenceGap, detail).beginning_at(seq).into()
}

/// Chain hash of the live event `seq`.
pub(crate) fn live_hash(conn: &Connection, seq: u64) -> Result<[u8; 32], JournalError> {
    let row = require_row_of(conn, seq)?;
    if seq == row.last_seq() {
        return Ok(row.hash);
    }
    let events = row.events()?;
    let at = usize::try_from(seq - row.first_seq).expect("it stands in the row");
    Ok(events[at].hash)
}

/// Up to `limit` live events after `after_seq`, none after the head, checked against the chain from the
/// end of the row before theirs on, or from the end of the archive.
pub(crate) fn read(conn: &Connection, meta: &Meta, after_seq: u64, limit: usize) -> Result<Vec<Stored>, JournalError> {
    let damage = || event_damage("read events");
    let end_of =
        |row: &SqlRow<'_>| Ok((counter(row, 0)?.saturating_add(counter(row, 1)?).saturating_sub(1), row.get(2)?));
    let before: Option<(u64, [u8; 32])> = conn
        .prepare_cached(
            "SELECT first_seq, n_events, hash FROM rounds \
             WHERE first_seq < (SELECT max(first_seq) FROM rounds WHERE first_seq <= ?1) ORDER BY first_seq DESC LIMIT 1",
        )
        .and_then(|mut statement| statement.query_row([column(after_seq + 1)], end_of).optional())
        .map_err(damage())?;
    let (seq, hash) = before.unwrap_or((meta.archived_seq, meta.archived_hash));
    let mut walk = ChainWalk::after(seq, hash);
    let query = format!("SELECT {COLUMNS} FROM rounds WHERE first_seq BETWEEN ?1 AND ?2 ORDER BY first_seq");
    let mut statement = conn.prepare_cached(&query).map_err(damage())?;
    let rows = statement.query_map([column(seq.saturating_add(1)), column(meta.seq)], EventRow::of).map_err(damage())?;
    let mut events = Vec::new();
    for row in rows {
        let row = row.map_err(damage())?;
        let asked = row.walk(&mut walk)?.into_iter().filter(|event| event.seq > after_seq);
        events.extend(asked.take(limit - events.len()));
        if events.len() == limit {
            return Ok(events);
        }
    }
    if walk.seq < meta.seq {
        return Err(gap(walk.seq + 1));
    }
    Ok(events)
}

/// Walks all live rows on from where `walk` stands; returns the hash of `probe_seq` if it came by.
pub(crate) fn walk_all(
    conn: &Connection,
    walk: &mut ChainWalk,
    probe_seq: u64,
) -> Result<Option<[u8; 32]>, JournalError> {
    let action = "read events";
    let mut probed = None;
    let query = format!("SELECT {COLUMNS} FROM rounds ORDER BY first_seq");
    let mut statement = conn.prepare(&query).map_err(event_damage(action))?;
    let rows = statement.query_map([], EventRow::of).map_err(event_damage(action))?;
    for row in rows {
        let row = row.map_err(event_damage(action)).map_err(|error| match error {
            JournalError::Damage(damage) => damage.beginning_at(walk.seq + 1).into(),
            other => other,
        })?;
        let events = row.walk(walk)?;
        probed = probed.or_else(|| events.iter().find(|event| event.seq == probe_seq).map(|event| event.hash));
    }
    Ok(probed)
}

/// Removes the live events up to `seq`; what stands in a row with it and comes later gets a row of its own.
pub(crate) fn remove_through(conn: &Connection, seq: u64) -> Result<(), JournalError> {
    let action = "archive events";
    let row = require_row_of(conn, seq)?;
    let rest = if row.last_seq() > seq {
        let events = row.events()?;
        let at = usize::try_from(seq + 1 - row.first_seq).expect("it stands in the row");
        pack_stored(events[at - 1].hash, &events[at..])
    } else {
        Vec::new()
    };
    conn.execute("DELETE FROM rounds WHERE first_seq <= ?1", [column(seq)]).map_err(sql(action))?;
    for row in rest {
        row.insert(conn).map_err(sql(action))?;
    }
    Ok(())
}

/// Removes what stands after event `seq`, which is the last of its row.
pub(crate) fn remove_after(conn: &Connection, seq: u64) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM rounds WHERE first_seq > ?1", [column(seq)]).map(|_| ())
}

/// Errors of reading events.
fn event_damage(action: &'static str) -> impl FnOnce(rusqlite::Error) -> JournalError {
    content_damage(action, DB_FILE, DamageKind::ChainBroken)
}
