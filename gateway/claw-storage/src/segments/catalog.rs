//! Which segment files there are and what stands in them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::durable;

use super::error::io as failed_to;
use super::frame::{self, FILE_HEAD_BYTES, FOOTER_BYTES, Footer, Frame, Frames};
use super::{LogCursor, LogError, LogKey, LogOpenReport, Stream};

const SEGMENT_EXTENSION: &str = "log";
const RETIRED_EXTENSION: &str = "retired";
const RETIRED_MAGIC: &[u8; 8] = b"CLAWRET1";
/// Distance of the positions that are remembered in a file, bytes.
const INDEX_STRIDE_BYTES: u64 = 64 * 1024;

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// First sequence that the file is about, line or gap.
    pub(super) first_seq: u64,
    /// Last one; `first_seq - 1` while it is empty.
    pub(super) last_seq: u64,
    pub(super) n_lines: u64,
    /// Highest time in it, as the merge counts time.
    pub(super) order_ms: i64,
    pub(super) bytes: u64,
    /// Complete: nothing is appended to it.
    pub(super) is_sealed: bool,
    /// What the checksums of its frames begin with.
    pub(super) seed: u32,
    /// Sequence → offset of a frame, sparse; empty for files sealed by an earlier process.
    pub(super) index: Vec<(u64, u64)>,
}

impl Segment {
    /// A file with nothing in it yet; its time goes on from `order_ms`.
    pub(super) fn empty(first_seq: u64, order_ms: i64, seed: u32) -> Self {
        Self {
            first_seq,
            last_seq: first_seq - 1,
            n_lines: 0,
            order_ms,
            bytes: FILE_HEAD_BYTES as u64,
            is_sealed: false,
            seed,
            index: Vec::new(),
        }
    }

    fn of_footer(footer: Footer, bytes: u64, seed: u32) -> Self {
        Self {
            first_seq: footer.first_seq,
            last_seq: footer.last_seq,
            n_lines: footer.n_lines,
            order_ms: footer.order_ms,
            bytes,
            is_sealed: true,
            seed,
            index: Vec::new(),
        }
    }

    pub(super) fn footer(&self) -> Footer {
        Footer { first_seq: self.first_seq, last_seq: self.last_seq, n_lines: self.n_lines, order_ms: self.order_ms }
    }

    /// Takes note of a frame about `seq` at `offset`.
    pub(super) fn note(&mut self, seq: u64, offset: u64) {
        let due = self.index.last().map_or(0, |(_, offset)| offset + INDEX_STRIDE_BYTES);
        if offset >= due {
            self.index.push((seq, offset));
        }
    }

    /// How far the file is now, to come back to.
    pub(super) fn mark(&self) -> Mark {
        Mark { bytes: self.bytes, last_seq: self.last_seq, n_lines: self.n_lines, order_ms: self.order_ms }
    }

    /// Forgets everything after `mark`.
    pub(super) fn rewind(&mut self, mark: Mark) {
        self.bytes = mark.bytes;
        self.last_seq = mark.last_seq;
        self.n_lines = mark.n_lines;
        self.order_ms = mark.order_ms;
        self.index.retain(|(_, offset)| *offset < mark.bytes);
    }

    /// Where a scan for lines from `seq` on may begin, and the first sequence there.
    pub(super) fn scan_start(&self, seq: u64) -> (u64, u64) {
        let at = self.index.partition_point(|(first, _)| *first <= seq);
        match at.checked_sub(1) {
            Some(at) => self.index[at],
            None => (self.first_seq, FILE_HEAD_BYTES as u64),
        }
    }
}

/// How far a segment file was at its last sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) bytes: u64,
    pub(super) last_seq: u64,
    pub(super) n_lines: u64,
    pub(super) order_ms: i64,
}

/// One stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StreamState {
    /// Retention removed everything up to here.
    pub(super) retired_through: u64,
    /// In order.
    pub(super) segments: Vec<Segment>,
    /// The last segment at the last sync; `None` = it was not there yet.
    pub(super) synced: Option<Mark>,
    /// A failed write or sync left the file of the last segment in doubt: it must
    /// be cut back to what the segment says before anything is written.
    pub(super) must_cut: bool,
}

impl StreamState {
    pub(super) fn last_seq(&self) -> u64 {
        self.segments.last().map_or(self.retired_through, |segment| segment.last_seq)
    }

    /// Last sequence at the last sync. Files before the last one were synced when they were sealed.
    pub(super) fn synced_seq(&self) -> u64 {
        let before_last = self.segments.len().saturating_sub(1);
        self.synced.map_or_else(|| self.end_before(before_last), |mark| mark.last_seq)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Last sequence before segment `at`.
    pub(super) fn end_before(&self, at: usize) -> u64 {
        match at.checked_sub(1) {
            Some(previous) => self.segments[previous].last_seq,
            None => self.retired_through,
        }
    }
}

pub(super) fn workload_dir(dir: &Path, key: &LogKey) -> PathBuf {
    dir.join(&key.workload)
}

pub(super) fn segment_path(dir: &Path, key: &LogKey, first_seq: u64) -> PathBuf {
    let name = format!("{}-{}-{first_seq:020}.{SEGMENT_EXTENSION}", key.attempt, key.stream);
    workload_dir(dir, key).join(name)
}

fn retired_path(dir: &Path, key: &LogKey) -> PathBuf {
    let name = format!("{}-{}.{RETIRED_EXTENSION}", key.attempt, key.stream);
    workload_dir(dir, key).join(name)
}

/// Records durably that everything up to `through` is gone.
pub(super) fn write_retired(dir: &Path, key: &LogKey, through: u64) -> io::Result<()> {
    let body = through.to_be_bytes();
    let sum = crc32fast::hash(&body).to_be_bytes();
    durable::write_atomic(&retired_path(dir, key), &[RETIRED_MAGIC, &body, &sum])
}

fn read_retired(path: &Path) -> io::Result<Option<u64>> {
    let content = fs::read(path)?;
    let parsed = content
        .strip_prefix(RETIRED_MAGIC)
        .and_then(|rest| rest.split_first_chunk::<8>())
        .filter(|(body, sum)| *sum == crc32fast::hash(&body[..]).to_be_bytes());
    Ok(parsed.map(|(body, _)| u64::from_be_bytes(*body)).filter(|through| frame::is_sequence(*through)))
}

/// Whether a workload's id can be a folder name everywhere.
pub(super) fn is_usable(workload: &str) -> bool {
    (1..=128).contains(&workload.len())
        && workload.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Finds every stream under `dir` and cuts torn ends off.
pub(super) fn load(dir: &Path) -> Result<(BTreeMap<LogKey, StreamState>, LogOpenReport), LogError> {
    let list = || failed_to("list the logs");
    let mut streams: BTreeMap<LogKey, StreamState> = BTreeMap::new();
    let mut report = LogOpenReport::default();
    for entry in fs::read_dir(dir).map_err(list())? {
        let path = entry.map_err(list())?.path();
        let Some(workload) = folder_name(&path) else {
            continue;
        };
        for entry in fs::read_dir(&path).map_err(list())? {
            let path = entry.map_err(list())?.path();
            match Named::parse(&workload, &path) {
                Some(Named::Segment(key, first_seq)) => {
                    let state = streams.entry(key).or_default();
                    state.segments.push(Segment::empty(first_seq, i64::MIN, 0));
                }
                Some(Named::Retired(key)) => {
                    let through = read_retired(&path).map_err(failed_to("read the logs"))?;
                    let state = streams.entry(key).or_default();
                    state.retired_through = through.unwrap_or(0);
                    report.n_bad_stretches += u64::from(through.is_none());
                }
                Some(Named::Unfinished) => {
                    fs::remove_file(&path).map_err(failed_to("remove a leftover"))?;
                }
                None => report.foreign_files.push(path),
            }
        }
    }
    for (key, state) in &mut streams {
        load_stream(dir, key, state, &mut report)?;
    }
    Ok((streams, report))
}

/// The name of a workload's folder.
fn folder_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    (path.is_dir() && is_usable(name)).then(|| name.to_owned())
}

enum Named {
    Segment(LogKey, u64),
    Retired(LogKey),
    Unfinished,
}

impl Named {
    fn parse(workload: &str, path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        if name.ends_with(durable::UNFINISHED_SUFFIX) {
            return Some(Self::Unfinished);
        }
        let (stem, extension) = name.split_once('.')?;
        let mut parts = stem.split('-');
        let attempt = parts.next()?.parse().ok()?;
        let stream = parts.next()?;
        let key = LogKey {
            workload: workload.to_owned(),
            attempt,
            stream: Stream::ALL.into_iter().find(|known| known.as_str() == stream)?,
        };
        match (extension, parts.next()) {
            (SEGMENT_EXTENSION, Some(first_seq)) => {
                let first_seq = first_seq.parse().ok().filter(|seq| frame::is_sequence(*seq))?;
                Some(Self::Segment(key, first_seq))
            }
            (RETIRED_EXTENSION, None) => Some(Self::Retired(key)),
            _ => None,
        }
    }
}

fn load_stream(dir: &Path, key: &LogKey, state: &mut StreamState, report: &mut LogOpenReport) -> Result<(), LogError> {
    state.segments.sort_by_key(|segment| segment.first_seq);
    let named = std::mem::take(&mut state.segments);
    let last = named.last().map(|segment| segment.first_seq);
    for Segment { first_seq, .. } in named {
        let path = segment_path(dir, key, first_seq);
        let loaded = load_segment(&path, key, first_seq).map_err(failed_to("read the logs"))?;
        report.n_bad_stretches += loaded.n_bad_stretches;
        let mut segment = loaded.segment;
        let is_last = Some(first_seq) == last;
        let is_copy = (segment.first_seq..=state.last_seq()).contains(&segment.last_seq);
        if is_copy && segment.last_seq > state.retired_through {
            // It has nothing that an earlier file does not have; it was put here by somebody else.
            report.foreign_files.push(path);
            continue;
        }
        if loaded.torn_bytes > 0 && is_last {
            report.torn.push(LogCursor { key: key.clone(), seq: segment.last_seq });
        }
        let is_empty = segment.last_seq < first_seq;
        if is_empty && loaded.torn_bytes > 0 && !is_last {
            // Nothing in it is readable, but it once held lines: evidence stays.
            report.foreign_files.push(path);
            continue;
        }
        if is_empty || segment.last_seq <= state.retired_through {
            // A file cut short before its first frame, or a retention cut short
            // between its record and the removal.
            fs::remove_file(&path).map_err(failed_to("remove a leftover"))?;
            continue;
        }
        if loaded.torn_bytes > 0 && is_last {
            cut(&path, segment.bytes).map_err(failed_to("cut a torn segment"))?;
        } else if loaded.torn_bytes > 0 {
            report.n_bad_stretches += 1;
        }
        let previous_ms = state.segments.last().map_or(i64::MIN, |last| last.order_ms);
        segment.order_ms = segment.order_ms.max(previous_ms);
        segment.is_sealed |= !is_last;
        state.segments.push(segment);
    }
    state.synced = state.segments.last().map(Segment::mark);
    Ok(())
}

struct Loaded {
    segment: Segment,
    torn_bytes: u64,
    n_bad_stretches: u64,
}

/// Reads the footer of a sealed file, or all of an unsealed one.
fn load_segment(path: &Path, key: &LogKey, first_seq: u64) -> io::Result<Loaded> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut head = [0; FILE_HEAD_BYTES];
    let nonce = match file.read_exact_at(&mut head, 0) {
        Ok(()) => frame::nonce_of(&head),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        Err(error) => return Err(error),
    };
    // Without a nonce no frame is sound, and the file counts as unreadable.
    let seed = nonce.map_or(0, |nonce| frame::seed(key, nonce));
    if let Some(footer_at) = len.checked_sub(FOOTER_BYTES as u64) {
        let mut tail = [0; FOOTER_BYTES];
        file.read_exact_at(&mut tail, footer_at)?;
        let footer = frame::decode_footer(seed, &tail);
        if let Some(footer) = footer.filter(|footer| footer.first_seq == first_seq) {
            return Ok(Loaded { segment: Segment::of_footer(footer, len, seed), torn_bytes: 0, n_bad_stretches: 0 });
        }
    }
    let content = fs::read(path)?;
    let mut segment = Segment::empty(first_seq, i64::MIN, seed);
    let is_head_whole = nonce.is_some_and(|nonce| head == frame::file_head(nonce));
    let mut frames = Frames::new(seed, &content, FILE_HEAD_BYTES);
    for (offset, frame) in frames.by_ref() {
        take(&mut segment, offset as u64, &frame);
    }
    segment.bytes = frames.good_end as u64;
    Ok(Loaded {
        torn_bytes: len - segment.bytes,
        n_bad_stretches: frames.n_bad_stretches + u64::from(!is_head_whole && len > 0),
        segment,
    })
}

fn take(segment: &mut Segment, offset: u64, frame: &Frame<'_>) {
    match *frame {
        Frame::Line { seq, order_ms, .. } if seq > segment.last_seq => {
            segment.note(seq, offset);
            segment.last_seq = seq;
            segment.n_lines += 1;
            segment.order_ms = segment.order_ms.max(order_ms);
        }
        Frame::Gap(gap) if gap.first_seq > segment.last_seq => {
            segment.note(gap.first_seq, offset);
            segment.last_seq = gap.last_seq();
        }
        Frame::Line { .. } | Frame::Gap(_) | Frame::Footer(_) => {}
    }
}

/// Cuts a file back to `bytes`, durably.
pub(super) fn cut(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(bytes)?;
    file.sync_all()
}
