//! Writing: idempotent by sequence, durable at `sync`, and taken back when it is not.

use std::fs::{self, File};
use std::io::{self, Write as _};

use crate::durable;

use super::catalog::{self, Segment, is_usable, segment_path, workload_dir};
use super::error::io as failed_to;
use super::frame;
use super::{AckSeq, Gap, LINE_BYTES_CEILING, LogError, LogKey, LogLine, LogSegments};

/// From this many unsynced files on, one sync of the whole file system is cheaper.
const SYNC_ONE_BY_ONE_MAX: usize = 32;
/// What a frame adds to a line at most, bytes.
const FRAME_OVERHEAD_BYTES: u64 = 37;

/// What of a call is new.
#[derive(Debug)]
struct Fresh<'a> {
    gap: Option<Gap>,
    lines: &'a [LogLine],
}

impl LogSegments {
    /// Stores `lines`, preceded by `gap` where the node lost some before them.
    ///
    /// Lines and gaps that are stored already are ignored, so a resent prefix is
    /// never doubled. The rest must go on where the store ends
    /// ([`LogError::Jump`] otherwise; a gateway that knows the lines to be gone
    /// appends a gap). Nothing of a refused call is stored.
    pub fn append(&mut self, key: &LogKey, lines: &[LogLine], gap: Option<Gap>) -> Result<AckSeq, LogError> {
        if !is_usable(&key.workload) {
            return Err(LogError::BadKey { workload: key.workload.clone() });
        }
        let last_seq = self.last_seq(key).map_or(0, |ack| ack.0);
        let line_bytes_max = self.limits.line_bytes_max.min(LINE_BYTES_CEILING);
        require_shape(lines, gap, line_bytes_max)?;
        let fresh = fresh(last_seq, lines, gap)?;
        let Some(first_seq) = first_seq(fresh.gap, fresh.lines) else {
            return Ok(AckSeq(last_seq));
        };
        self.require_space(fresh.lines)?;
        self.prepare(key, first_seq)?;
        self.write(key, &fresh)?;
        self.enforce_bytes(key)?;
        Ok(AckSeq(self.last_seq(key).map_or(0, |ack| ack.0)))
    }

    /// Makes every appended line durable. What could not be synced is taken back,
    /// so that the node, which was told nothing, sends it again.
    pub fn sync(&mut self) -> Result<(), LogError> {
        let mut outcome = Ok(());
        for dir in &self.unsynced_dirs {
            outcome = outcome.and(durable::sync_dir(dir));
        }
        if outcome.is_ok() {
            self.unsynced_dirs.clear();
        }
        let all_at_once = self.unsynced.len() > SYNC_ONE_BY_ONE_MAX;
        if all_at_once && outcome.is_ok() {
            outcome = File::open(&self.dir).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
        }
        for key in std::mem::take(&mut self.unsynced) {
            let synced = match &outcome {
                Ok(()) if all_at_once => Ok(()),
                // The folder's sync failed: this one may work, but its name is not safe.
                Err(error) => Err(io::Error::from(error.kind())),
                Ok(()) => self.sync_stream(&key),
            };
            match synced {
                Ok(()) => self.mark_synced(&key),
                Err(error) => {
                    self.take_back(&key);
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome.map_err(failed_to("sync logs"))
    }

    /// Closes the files of an attempt that will write no more, so that the next
    /// open need not read them through. Appending later is still allowed.
    pub fn seal(&mut self, workload: &str, attempt: u32) -> Result<(), LogError> {
        for stream in super::Stream::ALL {
            let key = LogKey { workload: workload.to_owned(), attempt, stream };
            self.seal_stream(&key)?;
        }
        Ok(())
    }

    /// Forgets a workload altogether: lines, gaps and the record of how far it was.
    /// For a workload whose own record is gone; returns the bytes freed.
    pub fn forget(&mut self, workload: &str) -> Result<u64, LogError> {
        if !is_usable(workload) {
            return Ok(0);
        }
        let keys: Vec<LogKey> = self.keys_of(workload).cloned().collect();
        let path = self.dir.join(workload);
        match fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed_to("forget a workload's logs")(error)),
        }
        let mut freed_bytes = 0;
        for key in keys {
            self.handles.close(&key);
            self.unsynced.remove(&key);
            let state = self.streams.remove(&key);
            freed_bytes += state.map_or(0, |state| state.bytes());
        }
        self.unsynced_dirs.remove(&path);
        self.bytes -= freed_bytes;
        Ok(freed_bytes)
    }

    fn require_space(&self, lines: &[LogLine]) -> Result<(), LogError> {
        let free_bytes = durable::free_bytes(&self.dir).map_err(failed_to("look at the free space"))?;
        let wanted: u64 = lines.iter().map(|line| line.bytes.len() as u64 + FRAME_OVERHEAD_BYTES).sum();
        let free_bytes_min = self.limits.free_bytes_min;
        if free_bytes < free_bytes_min.saturating_add(wanted) {
            return Err(LogError::LowSpace { free_bytes, free_bytes_min });
        }
        Ok(())
    }

    /// Mends a file in doubt, closes a full one, begins the next.
    fn prepare(&mut self, key: &LogKey, first_seq: u64) -> Result<(), LogError> {
        self.mend(key).map_err(failed_to("mend a log segment"))?;
        let segment_bytes = self.segment_bytes();
        let active = self.streams.get(key).and_then(|state| state.segments.last());
        if active.is_some_and(|segment| segment.bytes >= segment_bytes) {
            self.seal_stream(key)?;
        }
        let state = self.streams.entry(key.clone()).or_default();
        let order_ms = match state.segments.last() {
            Some(segment) if !segment.is_sealed => return Ok(()),
            Some(segment) => segment.order_ms,
            None => i64::MIN,
        };
        let nonce = frame::new_nonce();
        let folder = workload_dir(&self.dir, key);
        let path = segment_path(&self.dir, key, first_seq);
        durable::private_dir(&folder)
            .and_then(|()| {
                let mut options = durable::private_file();
                options.write(true).create(true).truncate(true).open(&path)
            })
            .and_then(|mut file| file.write_all(&frame::file_head(nonce)))
            .map_err(failed_to("begin a log segment"))?;
        let segment = Segment::empty(first_seq, order_ms, frame::seed(key, nonce));
        self.bytes += segment.bytes;
        state.segments.push(segment);
        state.synced = None;
        self.unsynced_dirs.insert(folder);
        Ok(())
    }

    /// The size at which a file is full: a quarter of what may be kept at most,
    /// so that retention, which removes whole files, does not remove everything.
    fn segment_bytes(&self) -> u64 {
        let limits = &self.limits;
        let kept_bytes_max = limits.workload_bytes_max.min(limits.total_bytes_max);
        limits.segment_bytes.min(kept_bytes_max / 4)
    }

    fn write(&mut self, key: &LogKey, fresh: &Fresh<'_>) -> Result<(), LogError> {
        let Some(state) = self.streams.get_mut(key) else {
            return Ok(());
        };
        let Some(segment) = state.segments.last_mut() else {
            return Ok(());
        };
        let before = segment.mark();
        let seed = segment.seed;
        let mut out = Vec::new();
        if let Some(gap) = fresh.gap {
            segment.note(gap.first_seq, before.bytes);
            frame::push_gap(&mut out, seed, gap);
            segment.last_seq = gap.last_seq();
        }
        for line in fresh.lines {
            segment.note(line.seq, before.bytes + out.len() as u64);
            segment.order_ms = segment.order_ms.max(line.at_ms);
            frame::push_line(&mut out, seed, line, segment.order_ms);
            segment.last_seq = line.seq;
            segment.n_lines += 1;
        }
        segment.bytes += out.len() as u64;
        let path = segment_path(&self.dir, key, segment.first_seq);
        let written = self.handles.writer(key, &path).and_then(|file| file.write_all(&out));
        if let Err(error) = written {
            segment.rewind(before);
            state.must_cut = true;
            self.handles.close(key);
            if let Err(error) = self.mend(key) {
                tracing::warn!(?key, %error, "torn log segment is mended at the next append");
            }
            return Err(failed_to("write logs")(error));
        }
        self.bytes += out.len() as u64;
        self.unsynced.insert(key.clone());
        Ok(())
    }

    /// Cuts the last file back to what is known to be in it.
    fn mend(&mut self, key: &LogKey) -> io::Result<()> {
        let Some(state) = self.streams.get_mut(key).filter(|state| state.must_cut) else {
            return Ok(());
        };
        if let Some(segment) = state.segments.last() {
            let path = segment_path(&self.dir, key, segment.first_seq);
            catalog::cut(&path, segment.bytes)?;
        }
        state.must_cut = false;
        Ok(())
    }

    fn sync_stream(&mut self, key: &LogKey) -> io::Result<()> {
        let last = self.streams.get(key).and_then(|state| state.segments.last());
        let Some(segment) = last else {
            return Ok(());
        };
        let path = segment_path(&self.dir, key, segment.first_seq);
        self.handles.writer(key, &path)?.sync_data()
    }

    fn mark_synced(&mut self, key: &LogKey) {
        if let Some(state) = self.streams.get_mut(key) {
            state.synced = state.segments.last().map(Segment::mark);
        }
    }

    /// Goes back to the last sync of a stream whose sync failed.
    fn take_back(&mut self, key: &LogKey) {
        self.handles.close(key);
        let Some(state) = self.streams.get_mut(key) else {
            return;
        };
        let bytes_before = state.bytes();
        match (state.synced, state.segments.last_mut()) {
            (Some(mark), Some(segment)) => {
                segment.rewind(mark);
                state.must_cut = true;
            }
            // The file is new: its next beginning truncates whatever is in it.
            (None, Some(_)) => {
                state.segments.pop();
                state.synced = state.segments.last().map(Segment::mark);
            }
            (_, None) => {}
        }
        self.bytes -= bytes_before - state.bytes();
        if let Err(error) = self.mend(key) {
            tracing::warn!(?key, %error, "unsynced log segment is mended at the next append");
        }
    }

    /// Writes the footer of a stream's last file and syncs it.
    fn seal_stream(&mut self, key: &LogKey) -> Result<(), LogError> {
        self.mend(key).map_err(failed_to("mend a log segment"))?;
        let Some(state) = self.streams.get_mut(key) else {
            return Ok(());
        };
        let Some(segment) = state.segments.last_mut().filter(|last| !last.is_sealed) else {
            return Ok(());
        };
        let mut out = Vec::new();
        frame::push_footer(&mut out, segment.seed, segment.footer());
        let path = segment_path(&self.dir, key, segment.first_seq);
        let sealed =
            self.handles.writer(key, &path).and_then(|file| file.write_all(&out).and_then(|()| file.sync_data()));
        self.handles.close(key);
        if let Err(error) = sealed {
            state.must_cut = true;
            return Err(failed_to("seal a log segment")(error));
        }
        segment.bytes += out.len() as u64;
        segment.is_sealed = true;
        state.synced = Some(segment.mark());
        self.bytes += out.len() as u64;
        self.unsynced.remove(key);
        Ok(())
    }
}

fn first_seq(gap: Option<Gap>, lines: &[LogLine]) -> Option<u64> {
    let of_gap = gap.map(|gap| gap.first_seq);
    of_gap.or_else(|| lines.first().map(|line| line.seq))
}

/// The call in itself: numbers that can be, lines in order, none too long.
fn require_shape(lines: &[LogLine], gap: Option<Gap>, line_bytes_max: usize) -> Result<(), LogError> {
    if first_seq(gap, lines) == Some(0) {
        return Err(LogError::ZeroSequence);
    }
    if let Some(gap) = gap.filter(|gap| !gap.is_one()) {
        return Err(LogError::BadGap { first_seq: gap.first_seq, n_lost: gap.n_lost });
    }
    let mut due = gap.map(|gap| gap.first_seq + gap.n_lost);
    for line in lines {
        let expected = due.unwrap_or(line.seq);
        if line.seq != expected || !frame::is_sequence(line.seq) {
            return Err(LogError::NotContiguous { expected, got: line.seq });
        }
        if line.bytes.len() > line_bytes_max {
            return Err(LogError::LineTooLong { seq: line.seq, bytes: line.bytes.len(), bytes_max: line_bytes_max });
        }
        due = Some(line.seq + 1);
    }
    Ok(())
}

/// The part of the call that the store, which ends at `last_seq`, does not have.
fn fresh(last_seq: u64, lines: &[LogLine], gap: Option<Gap>) -> Result<Fresh<'_>, LogError> {
    let expected = last_seq + 1;
    if let Some(got) = first_seq(gap, lines).filter(|got| *got > expected) {
        return Err(LogError::Jump { expected, got });
    }
    let gap = gap
        .filter(|gap| gap.last_seq() > last_seq)
        .map(|gap| Gap { first_seq: expected, n_lost: gap.last_seq() - last_seq });
    let n_known = lines.partition_point(|line| line.seq <= last_seq);
    Ok(Fresh { gap, lines: &lines[n_known..] })
}
