//! The journal in memory: same behavior, no disk. For simulation and tests of
//! what stands on a journal; the conformance suite holds both to one behavior.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::journal::{
    Batch, ChainWalk, CompactReport, FaultHook, FaultPoint, GENESIS, Head, Journal, JournalError, NoFaults, Snapshot,
    Stored, VerifyReport, admit, admit_compaction, admit_snapshot, distinct_blobs, extend_chain, next_epoch,
};
use crate::ticket::{Kept, SnapshotTicket, WrittenSnapshot};

/// A [`Journal`] that forgets everything when dropped.
#[derive(Debug)]
pub struct MemoryJournal {
    events: Vec<Stored>,
    head: Head,
    snapshot: Option<Snapshot>,
    /// `None` = erased.
    blobs: BTreeMap<String, Option<Vec<u8>>>,
    archived_through: u64,
    faults: Arc<dyn FaultHook>,
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::new(Arc::new(NoFaults))
    }
}

impl MemoryJournal {
    /// An empty journal that calls `faults` in each append.
    pub fn new(faults: Arc<dyn FaultHook>) -> Self {
        Self {
            events: Vec::new(),
            head: Head { seq: 0, epoch: 0, hash: GENESIS },
            snapshot: None,
            blobs: BTreeMap::new(),
            archived_through: 0,
            faults,
        }
    }

    fn hash_at(&self, seq: u64) -> [u8; 32] {
        match index_of(seq) {
            Some(index) => self.events[index].hash,
            None => GENESIS,
        }
    }
}

/// Index of event `seq`; `None` for genesis.
fn index_of(seq: u64) -> Option<usize> {
    let before = seq.checked_sub(1)?;
    Some(usize::try_from(before).expect("events in memory are countable by usize"))
}

impl Journal for MemoryJournal {
    fn head(&self) -> Head {
        self.head
    }

    fn raise_epoch_above(&mut self, seen: u64) -> Result<u64, JournalError> {
        self.head.epoch = next_epoch(self.head.epoch, seen)?;
        Ok(self.head.epoch)
    }

    fn append(&mut self, expected_seq: u64, epoch: u64, at_ms: i64, batches: &[Batch]) -> Result<Head, JournalError> {
        self.faults.at(FaultPoint::BeforeAppend);
        admit(&self.head, expected_seq, epoch, batches)?;
        let blobs = distinct_blobs(batches)?;
        for (handle, bytes) in &blobs {
            let known = self.blobs.get(*handle);
            if known.is_some_and(|known| known.as_deref() != Some(*bytes)) {
                return Err(JournalError::BlobConflict { handle: (*handle).to_owned() });
            }
        }
        let (stored, head) = extend_chain(&self.head, at_ms, batches);
        self.faults.at(FaultPoint::AfterAppend);
        self.events.extend(stored);
        let owned = blobs.into_iter().map(|(handle, bytes)| (handle.to_owned(), Some(bytes.to_vec())));
        self.blobs.extend(owned);
        self.head = head;
        self.faults.at(FaultPoint::AfterFsync);
        Ok(head)
    }

    fn read(&mut self, after_seq: u64, limit: usize) -> Result<Vec<Stored>, JournalError> {
        let skip = usize::try_from(after_seq).unwrap_or(usize::MAX);
        Ok(self.events.iter().skip(skip).take(limit).cloned().collect())
    }

    fn begin_snapshot(&mut self, seq: u64) -> Result<SnapshotTicket, JournalError> {
        admit_snapshot(&self.head, self.snapshot.as_ref().map(|s| s.seq), seq)?;
        Ok(SnapshotTicket { seq, hash: self.hash_at(seq), file: None })
    }

    fn finish_snapshot(&mut self, written: WrittenSnapshot) -> Result<(), JournalError> {
        admit_snapshot(&self.head, self.snapshot.as_ref().map(|s| s.seq), written.seq)?;
        match written.kept {
            Kept::Memory(snapshot) if written.hash == self.hash_at(written.seq) => {
                self.snapshot = Some(snapshot);
                Ok(())
            }
            _ => Err(JournalError::SequenceConflict { expected: written.seq, actual: self.head.seq }),
        }
    }

    fn latest_snapshot(&mut self) -> Result<Option<Snapshot>, JournalError> {
        Ok(self.snapshot.clone())
    }

    fn compact(&mut self, up_to_seq: u64) -> Result<CompactReport, JournalError> {
        admit_compaction(self.snapshot.as_ref().map(|s| s.seq), up_to_seq)?;
        let n_events = up_to_seq.saturating_sub(self.archived_through);
        self.archived_through = self.archived_through.max(up_to_seq);
        Ok(CompactReport { n_events, files: Vec::new(), bytes: 0, archived_through: self.archived_through })
    }

    fn blob(&mut self, handle: &str) -> Result<Option<Vec<u8>>, JournalError> {
        Ok(self.blobs.get(handle).cloned().flatten())
    }

    fn erase_blob(&mut self, handle: &str) -> Result<bool, JournalError> {
        let erased = self.blobs.get_mut(handle).and_then(Option::take);
        Ok(erased.is_some())
    }

    fn verify(&mut self) -> Result<VerifyReport, JournalError> {
        let mut walk = ChainWalk::after(0, GENESIS);
        for event in &self.events {
            walk.step("memory", event)?;
        }
        Ok(VerifyReport {
            head: self.head,
            n_live: self.head.seq - self.archived_through,
            n_archived: self.archived_through,
            n_archive_files: 0,
            n_blobs: self.blobs.len() as u64,
            snapshot_seq: self.snapshot.as_ref().map(|s| s.seq),
        })
    }
}
