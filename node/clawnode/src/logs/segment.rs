//! Segment files of one log: `<stream>-<first sequence>.seg`, each a row of
//! frames `length u32 | crc32 u32 | sequence u64 | unix ms i64 | bytes`.
//!
//! There is one writer (the supervisor of the process, or the simulator) and
//! one reader (the agent). A frame that is not complete or not intact ends its
//! segment for the reader; the writer never writes behind a damaged frame.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use claw_proto::limits::LOG_LINE_BYTES_MAX;
use claw_proto::message::{LogGap, LogLine, LogStream};
use claw_proto::time::Timestamp;

const HEADER_BYTES: usize = 24;
const _: () = assert!(WINDOW_BYTES_MAX > HEADER_BYTES + LOG_LINE_BYTES_MAX);
/// Largest segment, bytes.
const SEGMENT_BYTES_MAX: u64 = 1024 * 1024;
/// Smallest segment, bytes.
const SEGMENT_BYTES_MIN: u64 = 4 * 1024;
/// A log has so many segments before the oldest goes.
const SEGMENTS_PER_LOG: u64 = 8;
/// Most that one read takes from a file; it holds any frame.
const WINDOW_BYTES_MAX: usize = 256 * 1024;
/// Largest number of a line that is believed; no log has so many lines, and there is
/// always a next number.
const SEQUENCE_MAX: u64 = u64::MAX / 2;
/// After so many idle reads the folder is listed even if it looks unchanged.
const IDLE_READS_MAX: u32 = 20;

fn segment_name(stream: LogStream, first_sequence: u64) -> String {
    format!("{stream}-{first_sequence:020}.seg")
}

/// First sequences of a log's segments, in order.
fn list(folder: &Path, stream: LogStream) -> io::Result<Vec<u64>> {
    let prefix = format!("{stream}-");
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let first = name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix))
            .and_then(|rest| rest.strip_suffix(".seg"))
            .and_then(|digits| digits.parse::<u64>().ok())
            .filter(|first| (1..=SEQUENCE_MAX).contains(first));
        found.extend(first);
    }
    found.sort_unstable();
    Ok(found)
}

fn frame_crc(sequence: u64, at_ms: i64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&at_ms.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// Reads one frame from the front; `None` if it is not complete and intact.
fn read_frame(bytes: &[u8]) -> Option<(LogLine, usize)> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_le_bytes(*header.first_chunk::<4>()?) as usize;
    let crc = u32::from_le_bytes(header[4..8].try_into().ok()?);
    let sequence = u64::from_le_bytes(header[8..16].try_into().ok()?);
    let at_ms = i64::from_le_bytes(header[16..24].try_into().ok()?);
    let line = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(length)?)?;
    if frame_crc(sequence, at_ms, line) != crc || sequence > SEQUENCE_MAX {
        return None;
    }
    let line = LogLine { sequence, at: Timestamp::from_unix_ms(at_ms), bytes: line.to_vec() };
    Some((line, HEADER_BYTES + length))
}

/// Writes one log.
#[derive(Debug)]
pub struct SegmentWriter {
    folder: PathBuf,
    stream: LogStream,
    segment_bytes: u64,
    file: Option<File>,
    file_bytes: u64,
    n_segments: VecDeque<u64>,
    next_sequence: u64,
    tail: Option<(Timestamp, u64)>,
    buffer: Vec<u8>,
    buffer_first: u64,
}

/// Time of the last line of the segments and how many lines at the end have it;
/// the number is that of the next line.
fn read_tail(folder: &Path, stream: LogStream, segments: &[u64]) -> io::Result<(u64, Option<(Timestamp, u64)>)> {
    let mut next_sequence = segments.last().copied().unwrap_or(1);
    let mut tail: Option<(Timestamp, u64)> = None;
    for first in segments {
        let bytes = fs::read(folder.join(segment_name(stream, *first)))?;
        let mut rest = bytes.as_slice();
        while let Some((line, n_bytes)) = read_frame(rest) {
            next_sequence = next_sequence.max(line.sequence + 1);
            tail = match tail {
                Some((at, n)) if at == line.at => Some((at, n + 1)),
                Some(_) | None => Some((line.at, 1)),
            };
            rest = &rest[n_bytes..];
        }
    }
    Ok((next_sequence, tail))
}

impl SegmentWriter {
    /// Goes on with the log in `folder`; the whole log is bounded by `bytes_max`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(folder: &Path, stream: LogStream, bytes_max: u64) -> io::Result<Self> {
        let segments = list(folder, stream)?;
        let (next_sequence, tail) = read_tail(folder, stream, &segments)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            stream,
            segment_bytes: (bytes_max / SEGMENTS_PER_LOG).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
            // A new file: never behind a torn frame of an earlier writer.
            file: None,
            file_bytes: 0,
            n_segments: segments.into(),
            next_sequence,
            tail,
            buffer: Vec::new(),
            buffer_first: next_sequence,
        })
    }

    /// Time of the last line that an earlier writer left, and how many lines
    /// at the end have that very time.
    pub fn tail(&self) -> Option<(Timestamp, u64)> {
        self.tail
    }

    /// Adds a line; it is on its way to disk after the next [`Self::flush`].
    pub fn push(&mut self, at: Timestamp, bytes: &[u8]) {
        let sequence = self.next_sequence;
        if self.buffer.is_empty() {
            self.buffer_first = sequence;
        }
        self.next_sequence += 1;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&frame_crc(sequence, at.unix_ms(), bytes).to_le_bytes());
        self.buffer.extend_from_slice(&sequence.to_le_bytes());
        self.buffer.extend_from_slice(&at.unix_ms().to_le_bytes());
        self.buffer.extend_from_slice(bytes);
    }

    /// Leaves a number out: lines are lost here that nobody counted, and the reader sees a gap.
    pub fn skip(&mut self) {
        self.next_sequence += 1;
    }

    /// Writes what was pushed. On an error the pushed lines are lost and the
    /// next segment begins after them, so the reader sees the gap.
    ///
    /// # Errors
    /// What the file system says (a full disk, above all).
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.write(&buffer);
        match &result {
            Ok(()) => self.file_bytes += buffer.len() as u64,
            Err(_) => self.file = None,
        }
        self.buffer = buffer;
        self.buffer.clear();
        result
    }

    fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        if self.file_bytes >= self.segment_bytes {
            self.file = None;
        }
        if let Some(file) = self.file.as_mut() {
            return file.write_all(buffer);
        }
        let path = self.folder.join(segment_name(self.stream, self.buffer_first));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        self.file_bytes = 0;
        self.n_segments.push_back(self.buffer_first);
        while self.n_segments.len() as u64 > SEGMENTS_PER_LOG {
            if let Some(first) = self.n_segments.pop_front() {
                remove(&self.folder.join(segment_name(self.stream, first)))?;
            }
        }
        file.write_all(buffer)?;
        self.file = Some(file);
        Ok(())
    }
}

/// Removes a file; one that is already gone is fine.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Some lines of a log, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Lines lost just before `lines`.
    pub gap: Option<LogGap>,
    /// Lines.
    pub lines: Vec<LogLine>,
}

/// What a batch may still take.
struct Room {
    n_lines: usize,
    n_bytes: usize,
}

/// How far the frames of a window were taken.
struct Taken {
    n_bytes: usize,
    /// The batch takes no more; the rest waits for the next one.
    is_full: bool,
}

/// Takes the frames at the front of `window` into the batch. A gap may only
/// stand before the first line, so a second one ends the batch.
fn take_frames(window: &[u8], next_sequence: &mut u64, batch: &mut Batch, room: &mut Room) -> Taken {
    let mut n_bytes = 0;
    while let Some((line, frame_bytes)) = read_frame(&window[n_bytes..]) {
        if line.sequence >= *next_sequence {
            let is_first = batch.lines.is_empty();
            let is_gap = line.sequence > *next_sequence;
            let fits = room.n_lines > 0 && (is_first || line.bytes.len() <= room.n_bytes);
            if !fits || (is_gap && !is_first) {
                return Taken { n_bytes, is_full: true };
            }
            if is_gap {
                let n_lost = line.sequence - *next_sequence;
                batch.gap = Some(LogGap { first_sequence: *next_sequence, n_lost });
            }
            *next_sequence = line.sequence + 1;
            room.n_lines -= 1;
            room.n_bytes = room.n_bytes.saturating_sub(line.bytes.len());
            batch.lines.push(line);
        }
        n_bytes += frame_bytes;
    }
    Taken { n_bytes, is_full: false }
}

/// Reads one log, from any line on.
#[derive(Debug)]
pub struct SegmentReader {
    folder: PathBuf,
    stream: LogStream,
    next_sequence: u64,
    segments: Vec<u64>,
    listed_at: Option<SystemTime>,
    idle_reads: u32,
    /// The open segment: its first sequence and how far it is read.
    open: Option<(u64, File, u64)>,
}

impl SegmentReader {
    /// A reader that begins at line 1.
    pub fn new(folder: &Path, stream: LogStream) -> Self {
        Self {
            folder: folder.to_path_buf(),
            stream,
            next_sequence: 1,
            segments: Vec::new(),
            listed_at: None,
            idle_reads: 0,
            open: None,
        }
    }

    /// Reads on from this line.
    pub fn seek(&mut self, next_sequence: u64) {
        self.next_sequence = next_sequence;
        self.open = None;
        self.listed_at = None;
    }

    /// The next line that [`Self::read`] looks for.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The next lines, within both limits; empty if there are none yet.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&mut self, n_lines_max: usize, n_bytes_max: usize) -> io::Result<Batch> {
        self.refresh()?;
        let mut batch = Batch::default();
        let mut room = Room { n_lines: n_lines_max, n_bytes: n_bytes_max };
        loop {
            if self.open.is_none() && !self.open_next()? {
                break;
            }
            let Some((_, file, offset)) = self.open.as_mut() else {
                break;
            };
            let n_ready = file.metadata()?.len().saturating_sub(*offset);
            let mut window = vec![0; usize::try_from(n_ready).map_or(WINDOW_BYTES_MAX, |n| n.min(WINDOW_BYTES_MAX))];
            let n_read = file.read_at(&mut window, *offset)?;
            let taken = take_frames(&window[..n_read], &mut self.next_sequence, &mut batch, &mut room);
            *offset += taken.n_bytes as u64;
            if taken.is_full || (taken.n_bytes == 0 && !self.advance()) {
                break;
            }
        }
        self.idle_reads = if batch.lines.is_empty() { self.idle_reads + 1 } else { 0 };
        Ok(batch)
    }

    /// Lists the segments anew if the folder changed.
    fn refresh(&mut self) -> io::Result<()> {
        let changed_at = match fs::metadata(&self.folder) {
            Ok(metadata) => metadata.modified()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.listed_at != Some(changed_at) || self.idle_reads >= IDLE_READS_MAX {
            self.segments = list(&self.folder, self.stream)?;
            self.listed_at = Some(changed_at);
            self.idle_reads = 0;
        }
        Ok(())
    }

    /// Opens the segment that holds the next line, else the first one after it.
    fn open_next(&mut self) -> io::Result<bool> {
        let after = self.segments.partition_point(|first| *first <= self.next_sequence);
        for first in self.segments.iter().skip(after.saturating_sub(1)).copied() {
            match File::open(self.folder.join(segment_name(self.stream, first))) {
                Ok(file) => {
                    self.open = Some((first, file, 0));
                    return Ok(true);
                }
                // The writer dropped it meanwhile: its lines are lost.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Leaves a segment that is read to its end, if there is a newer one.
    fn advance(&mut self) -> bool {
        let Some((current, _, _)) = self.open else {
            return false;
        };
        let Some(next) = self.segments.iter().copied().find(|first| *first > current) else {
            return false;
        };
        if let Ok(file) = File::open(self.folder.join(segment_name(self.stream, next))) {
            self.open = Some((next, file, 0));
            true
        } else {
            self.listed_at = None;
            false
        }
    }

    /// Deletes the segments of which every line is acknowledged; the last stays.
    ///
    /// # Errors
    /// What the file system says.
    pub fn delete_through(&mut self, acked: u64) -> io::Result<()> {
        while let [first, second, ..] = self.segments.as_slice() {
            if *second > acked.saturating_add(1) {
                break;
            }
            remove(&self.folder.join(segment_name(self.stream, *first)))?;
            self.segments.remove(0);
        }
        Ok(())
    }
}
