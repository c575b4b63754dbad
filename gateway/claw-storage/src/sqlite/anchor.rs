//! The head anchor: a small file that remembers what was acknowledged.
//!
//! SQLite drops a damaged end of its write-ahead log in silence and falls back to
//! an older, consistent state. The anchor turns that into named damage: it is
//! written after each commit and before the caller is told, so a journal that is
//! *behind* its anchor has lost something, and one that is *ahead* merely crashed
//! between the two writes.
//!
//! Two slots in two separate blocks are written in turn, so that a torn write
//! hits only the older knowledge.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::durable;
use crate::journal::{Damage, DamageKind};

use super::meta::Meta;

pub(crate) const ANCHOR_FILE: &str = "journal.head";

const MAGIC: &[u8; 8] = b"CLAWHED1";
const SLOT_STRIDE_BYTES: usize = 4096;
const FILE_BYTES: usize = 2 * SLOT_STRIDE_BYTES;
const BODY_BYTES: usize = 72;
const SLOT_BYTES: usize = BODY_BYTES + 4;

/// What was acknowledged last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchored {
    /// Number of the journal's last write transaction.
    pub(crate) generation: u64,
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
    pub(crate) hash: [u8; 32],
}

impl From<&Meta> for Anchored {
    fn from(meta: &Meta) -> Self {
        Self { generation: meta.generation, seq: meta.seq, epoch: meta.epoch, hash: meta.hash }
    }
}

/// The open anchor file.
#[derive(Debug)]
pub(crate) struct Anchor {
    pub(super) file: File,
    /// Number of the next slot write; its parity is the slot.
    counter: u64,
}

/// An anchor read from disk.
#[derive(Debug)]
pub(crate) struct LoadedAnchor {
    pub(crate) anchor: Anchor,
    pub(crate) anchored: Anchored,
    /// One slot was unreadable: a torn write, or damage that the other slot makes good.
    pub(crate) one_slot_bad: bool,
}

/// Why an anchor could not be loaded.
#[derive(Debug)]
pub(crate) enum AnchorFault {
    Io(io::Error),
    Damage(Damage),
}

impl Anchor {
    /// Creates the file with the same content in both slots.
    pub(crate) fn create(dir: &Path, anchored: &Anchored) -> io::Result<Self> {
        let path = dir.join(ANCHOR_FILE);
        let mut image = vec![0; FILE_BYTES];
        for counter in [0, 1] {
            let start = slot_start(counter);
            image[start..start + SLOT_BYTES].copy_from_slice(&encode(counter, anchored));
        }
        durable::write_atomic(&path, &[&image])?;
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Self { file, counter: 2 })
    }

    /// Loads the newest readable slot; `None` when there is no file.
    pub(crate) fn load(dir: &Path) -> Result<Option<LoadedAnchor>, AnchorFault> {
        let path = dir.join(ANCHOR_FILE);
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(AnchorFault::Io(error)),
        };
        let mut image = vec![0; FILE_BYTES];
        let len = file.metadata().map_err(AnchorFault::Io)?.len();
        if len != FILE_BYTES as u64 {
            let detail = format!("{len} bytes instead of {FILE_BYTES}");
            let damage = Damage::new(ANCHOR_FILE, DamageKind::AnchorUnreadable, detail);
            return Err(AnchorFault::Damage(damage));
        }
        file.read_exact_at(&mut image, 0).map_err(AnchorFault::Io)?;
        let slots = [0, 1].map(|parity| decode(parity, &image));
        let one_slot_bad = slots.iter().any(Option::is_none);
        let newest = slots.into_iter().flatten().max_by_key(|(counter, _)| *counter);
        let Some((counter, anchored)) = newest else {
            let detail = "both slots fail their checksum";
            let damage = Damage::new(ANCHOR_FILE, DamageKind::AnchorUnreadable, detail);
            return Err(AnchorFault::Damage(damage));
        };
        Ok(Some(LoadedAnchor { anchor: Self { file, counter: counter + 1 }, anchored, one_slot_bad }))
    }

    /// Records what is about to be acknowledged; on disk when this returns.
    pub(crate) fn write(&mut self, anchored: &Anchored) -> io::Result<()> {
        let slot = encode(self.counter, anchored);
        let start = slot_start(self.counter) as u64;
        self.file.write_all_at(&slot, start)?;
        self.file.sync_data()?;
        // Only now: a failed write is tried again in the same slot, the other one stays good.
        self.counter += 1;
        Ok(())
    }
}

fn slot_start(counter: u64) -> usize {
    if counter.is_multiple_of(2) { 0 } else { SLOT_STRIDE_BYTES }
}

fn encode(counter: u64, anchored: &Anchored) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&counter.to_be_bytes());
    slot[16..24].copy_from_slice(&anchored.generation.to_be_bytes());
    slot[24..32].copy_from_slice(&anchored.seq.to_be_bytes());
    slot[32..40].copy_from_slice(&anchored.epoch.to_be_bytes());
    slot[40..72].copy_from_slice(&anchored.hash);
    let crc = crc32fast::hash(&slot[..BODY_BYTES]);
    slot[BODY_BYTES..].copy_from_slice(&crc.to_be_bytes());
    slot
}

fn decode(parity: u64, image: &[u8]) -> Option<(u64, Anchored)> {
    let start = slot_start(parity);
    let slot = &image[start..start + SLOT_BYTES];
    let crc = u32::from_be_bytes(slot[BODY_BYTES..].try_into().ok()?);
    if slot[..8] != *MAGIC || crc != crc32fast::hash(&slot[..BODY_BYTES]) {
        return None;
    }
    let number = |at: usize| slot[at..at + 8].try_into().ok().map(u64::from_be_bytes);
    let counter = number(8)?;
    if counter % 2 != parity {
        return None;
    }
    let anchored =
        Anchored { generation: number(16)?, seq: number(24)?, epoch: number(32)?, hash: slot[40..72].try_into().ok()? };
    Some((counter, anchored))
}
