//! Reading: lines of many streams by time, and what is missing between them.
//!
//! Streams are read one after the other into a selection of at most `limit`
//! lines, so memory is bounded by the answer and not by the number of streams.
//! A line's place among other streams is its time, or that of an earlier line of
//! its stream if the node's clock went back: the order inside a stream is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::catalog::{StreamState, segment_path};
use super::error::io as failed_to;
use super::frame::{Frame, Frames};
use super::{GapCause, LogCursor, LogEntry, LogError, LogGap, LogKey, LogLine, LogPage, LogQuery, LogSegments};

/// Time, stream, sequence: the order of a page.
type Rank = (i64, usize, u64);

impl LogSegments {
    /// The lines that match, by time, with the gaps in the range they cover.
    pub fn read(&self, query: &LogQuery<'_>) -> Result<LogPage, LogError> {
        let selected: Vec<(&LogKey, &StreamState)> =
            self.streams.iter().filter(|(key, _)| query.selects(key)).collect();
        let n_max = query.tail.map_or(query.limit, |tail| tail.min(query.limit));
        let mut selection = Selection::new(n_max, query.tail.is_some());
        let mut streams = Vec::new();
        for (at, (key, state)) in selected.into_iter().enumerate() {
            let mut scan =
                StreamScan { dir: &self.dir, key, state, query, at, start: query.start_of(key), gaps: Vec::new() };
            scan.run(&mut selection).map_err(failed_to("read logs"))?;
            streams.push(scan);
        }
        Ok(selection.into_page(streams))
    }
}

impl LogQuery<'_> {
    fn selects(&self, key: &LogKey) -> bool {
        self.workload.is_none_or(|workload| workload == key.workload)
            && self.attempt.is_none_or(|attempt| attempt == key.attempt)
            && (self.streams.is_empty() || self.streams.contains(&key.stream))
    }

    /// The last line of `key` that is not wanted.
    fn start_of(&self, key: &LogKey) -> u64 {
        let after = self.after.iter().find(|cursor| cursor.key == *key);
        after.map(|cursor| cursor.seq).or(self.since_seq).unwrap_or(0)
    }

    fn wants(&self, at_ms: i64, bytes: &[u8]) -> bool {
        self.since_ms.is_none_or(|since_ms| at_ms >= since_ms) && self.grep.is_none_or(|text| contains(bytes, text))
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(line) => line.contains(text),
        Err(_) if text.is_empty() => true,
        Err(_) => bytes.windows(text.len()).any(|window| window == text.as_bytes()),
    }
}

/// The best lines so far.
struct Selection {
    n_max: usize,
    is_tail: bool,
    lines: BTreeMap<Rank, LogLine>,
    has_dropped: bool,
}

impl Selection {
    fn new(n_max: usize, is_tail: bool) -> Self {
        Self { n_max, is_tail, lines: BTreeMap::new(), has_dropped: false }
    }

    /// Whether a line of this rank would be taken.
    fn has_room_for(&self, rank: Rank) -> bool {
        if self.lines.len() < self.n_max {
            return true;
        }
        if self.is_tail {
            self.lines.first_key_value().is_some_and(|(first, _)| rank > *first)
        } else {
            self.lines.last_key_value().is_some_and(|(last, _)| rank < *last)
        }
    }

    fn offer(&mut self, rank: Rank, line: impl FnOnce() -> LogLine) {
        if !self.has_room_for(rank) {
            self.has_dropped = true;
            return;
        }
        self.lines.insert(rank, line());
        if self.lines.len() > self.n_max {
            self.has_dropped = true;
            if self.is_tail {
                self.lines.pop_first();
            } else {
                self.lines.pop_last();
            }
        }
    }

    fn into_page(self, streams: Vec<StreamScan<'_>>) -> LogPage {
        let mut ends: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for &(_, at, seq) in self.lines.keys() {
            let (first, last) = ends.entry(at).or_insert((seq, seq));
            *first = seq.min(*first);
            *last = seq.max(*last);
        }
        let mut page = LogPage { truncated: self.has_dropped, ..LogPage::default() };
        let keys: Vec<&LogKey> = streams.iter().map(|scan| scan.key).collect();
        for ((_, at, _), line) in self.lines {
            let key = keys[at].clone();
            page.entries.push(LogEntry { key, line });
        }
        for scan in streams {
            let ends = ends.get(&scan.at).copied();
            // What the page covers of this stream: all of it, unless lines were left out.
            let (covered_after, covered_through) = match (self.has_dropped, self.is_tail, ends) {
                (false, _, _) => (scan.start, scan.last_seq()),
                (true, false, Some((_, last))) => (scan.start, last),
                (true, false, None) => (scan.start, scan.start),
                (true, true, Some((first, _))) => (first, scan.last_seq()),
                (true, true, None) => (scan.last_seq(), scan.last_seq()),
            };
            page.gaps.extend(scan.gaps_between(covered_after, covered_through));
            page.cursors.push(LogCursor { key: scan.key.clone(), seq: covered_through.max(scan.start) });
        }
        page
    }
}

/// One stream being read.
struct StreamScan<'a> {
    dir: &'a Path,
    key: &'a LogKey,
    state: &'a StreamState,
    query: &'a LogQuery<'a>,
    /// Position among the selected streams.
    at: usize,
    /// Lines up to here are not wanted.
    start: u64,
    /// First and last lost line, and why.
    gaps: Vec<(u64, u64, GapCause)>,
}

impl StreamScan<'_> {
    fn last_seq(&self) -> u64 {
        self.state.last_seq()
    }

    fn run(&mut self, selection: &mut Selection) -> io::Result<()> {
        if self.state.retired_through > self.start {
            let retired = (1, self.state.retired_through, GapCause::Retention);
            self.gaps.push(retired);
        }
        let n_segments = self.state.segments.len();
        let order: Box<dyn Iterator<Item = usize>> =
            if selection.is_tail { Box::new((0..n_segments).rev()) } else { Box::new(0..n_segments) };
        for segment_at in order {
            let segment = &self.state.segments[segment_at];
            let is_too_old = |since_ms| segment.order_ms < since_ms;
            if segment.last_seq <= self.start || self.query.since_ms.is_some_and(is_too_old) {
                continue;
            }
            // Going back in a tail: this file's lines rank at most so high.
            let highest = (segment.order_ms, self.at, segment.last_seq);
            if selection.is_tail && !selection.has_room_for(highest) {
                selection.has_dropped |= segment.n_lines > 0;
                return Ok(());
            }
            if self.scan(segment_at, selection)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads one file; breaks when no later line of the stream can be wanted.
    fn scan(&mut self, segment_at: usize, selection: &mut Selection) -> io::Result<ControlFlow<()>> {
        let segment = &self.state.segments[segment_at];
        let hole_from = self.state.end_before(segment_at) + 1;
        if hole_from < segment.first_seq {
            let hole = (hole_from, segment.first_seq - 1, GapCause::Damage);
            self.gaps.push(hole);
        }
        let (due, offset) = segment.scan_start(self.start + 1);
        // What an earlier file has is not read again.
        let mut due = due.max(hole_from);
        let content = self.content(segment_at, offset)?;
        for (_, frame) in Frames::new(segment.seed, &content, 0) {
            let first_seq = match frame {
                Frame::Line { seq, .. } => seq,
                Frame::Gap(gap) => gap.first_seq,
                Frame::Footer(_) => continue,
            };
            if first_seq < due {
                continue;
            }
            if first_seq > due {
                self.gaps.push((due, first_seq - 1, GapCause::Damage));
            }
            match frame {
                Frame::Gap(gap) => {
                    self.gaps.push((first_seq, gap.last_seq(), GapCause::Node));
                    due = gap.last_seq() + 1;
                }
                Frame::Line { seq, at_ms, order_ms, bytes } => {
                    due = seq + 1;
                    if seq > self.start && self.query.wants(at_ms, bytes) {
                        let rank = (order_ms, self.at, seq);
                        if !selection.is_tail && !selection.has_room_for(rank) {
                            selection.has_dropped = true;
                            return Ok(ControlFlow::Break(()));
                        }
                        selection.offer(rank, || LogLine { seq, at_ms, bytes: bytes.to_vec() });
                    }
                }
                Frame::Footer(_) => {}
            }
        }
        if due <= segment.last_seq {
            self.gaps.push((due, segment.last_seq, GapCause::Damage));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The file from `offset` on, as far as it is known and there.
    fn content(&self, segment_at: usize, offset: u64) -> io::Result<Vec<u8>> {
        let segment = &self.state.segments[segment_at];
        let path = segment_path(self.dir, self.key, segment.first_seq);
        let file = match File::open(path) {
            Ok(file) => file,
            // Removed from outside: its lines show as a gap.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let known_bytes = segment.bytes.min(file.metadata()?.len());
        let n = usize::try_from(known_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut content = vec![0; n];
        file.read_exact_at(&mut content, offset)?;
        Ok(content)
    }

    /// Gaps clipped to the range after `after` and through `through`, in order, neighbors joined.
    fn gaps_between(&self, after: u64, through: u64) -> Vec<LogGap> {
        let mut clipped: Vec<(u64, u64, GapCause)> = self
            .gaps
            .iter()
            .map(|&(first, last, cause)| (first.max(after + 1), last.min(through), cause))
            .filter(|(first, last, _)| first <= last)
            .collect();
        clipped.sort_unstable();
        let mut joined: Vec<(u64, u64, GapCause)> = Vec::new();
        for (first, last, cause) in clipped {
            match joined.last_mut() {
                Some((_, end, same)) if *same == cause && *end + 1 == first => *end = last,
                _ => joined.push((first, last, cause)),
            }
        }
        let gap =
            |(first_seq, last, cause)| LogGap { key: self.key.clone(), first_seq, n_lost: last + 1 - first_seq, cause };
        joined.into_iter().map(gap).collect()
    }
}
